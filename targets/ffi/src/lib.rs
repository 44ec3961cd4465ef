//! The border between Rust and C, as every C interface of snapc draws it: a function gives a status, the text of its error
//! stays with the thread, a panic does not cross, and pointers are checked as far as they can be.

mod call;
mod pointer;

pub use call::{Failure, Status, c_string, call, last_message};
pub use pointer::{ArgumentError, borrow, text};
