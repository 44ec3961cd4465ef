//! The sources of the Swift runtime are part of the crate; a file that is added to them makes it anew.

fn main() {
    println!("cargo::rerun-if-changed=runtime/Sources");
}
