//! What is wrong with a file, or with the plan of one.

use std::io;

use thiserror::Error;

use crate::header::{VERSION, Version};
use crate::section::{SectionId, Stage};
use crate::tensor::{DType, LayoutId};
use crate::wire::Ended;

/// A file that cannot be used, and why.
#[derive(Debug, Error)]
#[error("{file}: {problem}")]
pub struct FormatError {
    /// The file as the caller named it.
    pub file: String,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file cannot be opened, mapped or read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file does not begin as a `.snap` file does, or was changed by a transfer as text.
    #[error(
        "not a .snap file, or changed by a transfer as text; convert the checkpoint with --target native, or copy the \
         file again as binary"
    )]
    Magic,
    /// The major version is another one than this reader's.
    #[error(
        "format version {found}, and this reader knows {VERSION}; convert the checkpoint with the matching snapc"
    )]
    Version {
        /// Version of the file.
        found: Version,
    },
    /// The file does not have the length that its header gives.
    #[error("{actual} bytes long and not {declared}; copy or download the file again")]
    Length {
        /// Length by the header, or that of a header when not even that is there.
        declared: u64,
        /// Length of the file.
        actual: u64,
    },
    /// A field of the header is out of its range.
    #[error("header: {field} is {value}; copy or download the file again")]
    Header {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Header and table of contents do not have the hash in the header.
    #[error("header and table of contents are damaged; copy or download the file again")]
    ContentsHash,
    /// A section that must be understood and is not.
    #[error(
        "{section} is not known to format version {VERSION} and cannot be skipped; use a newer snapc"
    )]
    UnknownSection {
        /// The section.
        section: SectionId,
    },
    /// Flags that this version does not define.
    #[error(
        "{section}: flags {flags:#x} are not known to format version {VERSION}; use a newer snapc"
    )]
    Flags {
        /// The section.
        section: SectionId,
        /// The flags in the file.
        flags: u32,
    },
    /// A section is listed twice.
    #[error("{section} is listed twice; convert the checkpoint again")]
    Repeated {
        /// The section.
        section: SectionId,
    },
    /// A section that is needed is not there.
    #[error("{section} is missing; convert the checkpoint again")]
    Missing {
        /// The section.
        section: SectionId,
    },
    /// A section's alignment is not a power of two from 16 KiB to 2 MiB.
    #[error("{section}: alignment {alignment} is not a power of two from 16 KiB to 2 MiB")]
    Alignment {
        /// The section.
        section: SectionId,
        /// The alignment in the file.
        alignment: u32,
    },
    /// A section does not stand right behind the one before it.
    #[error("{section}: begins at byte {offset} and not {expected}")]
    Offset {
        /// The section.
        section: SectionId,
        /// Where it begins by the table of contents.
        offset: u64,
        /// Where the section before it makes it begin.
        expected: u64,
    },
    /// A section goes beyond the end of the file.
    #[error("{section}: {length} bytes from byte {offset} go beyond the end of the file")]
    OutOfFile {
        /// The section.
        section: SectionId,
        /// Where it begins.
        offset: u64,
        /// How long it is.
        length: u64,
    },
    /// A byte between sections or between tensors is not zero.
    #[error("byte {at} is padding and not zero; copy or download the file again")]
    Padding {
        /// Position in the file.
        at: u64,
    },
    /// The content of a section does not have its hash.
    #[error("{section} is damaged; copy or download the file again")]
    SectionHash {
        /// The section.
        section: SectionId,
    },
    /// A table breaks its rules although its hash is right: it was made wrong.
    #[error("{section}: {fault}; convert the checkpoint again")]
    Table {
        /// The section.
        section: SectionId,
        /// The rule that is broken.
        #[source]
        fault: TableFault,
    },
    /// A tensor that was asked for is not there.
    #[error("the weights of {stage} have no tensor '{name}'; convert the checkpoint again")]
    NoTensor {
        /// The stage.
        stage: Stage,
        /// The tensor.
        name: String,
    },
}

/// The rule that a tensor table or the metadata breaks.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TableFault {
    /// The section ends within an entry.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// Bytes are left behind the last entry.
    #[error("{0} bytes are left behind the last entry")]
    TrailingBytes(usize),
    /// A count or length is over its limit.
    #[error("{what} is {value}, at most {limit} is allowed")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// The number in the file.
        value: u64,
        /// The largest that is allowed.
        limit: u64,
    },
    /// A string is not UTF-8.
    #[error("the string at byte {0} is not UTF-8")]
    NotUtf8(usize),
    /// Names or keys do not ascend, or one is there twice.
    #[error("'{0}' does not come after the entry before it")]
    Order(String),
    /// A tensor has no name.
    #[error("the name at byte {0} is empty")]
    EmptyName(usize),
    /// A dimension is 0, or the elements of a tensor are more than 64 bits can count.
    #[error("tensor '{tensor}': shape {shape:?} has a dimension of 0 or too many elements")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// The number of a type is not known.
    #[error("tensor '{tensor}': type number {code} is not known")]
    DType {
        /// The tensor.
        tensor: String,
        /// The number in the file.
        code: u16,
    },
    /// The variants do not begin with the canonical one or the one in panels, have both, or do not ascend by layout.
    #[error(
        "tensor '{tensor}': layout {layout} is out of order; layout 0 or 1 comes first, and only one of the two"
    )]
    Variants {
        /// The tensor.
        tensor: String,
        /// The layout that is out of order.
        layout: LayoutId,
    },
    /// The first variant is not as long as layout, shape and type make it, or another one is empty.
    #[error(
        "tensor '{tensor}', layout {layout}: {length} bytes do not fit shape {shape:?} of {dtype}"
    )]
    TensorLength {
        /// The tensor.
        tensor: String,
        /// The variant.
        layout: LayoutId,
        /// Its type.
        dtype: DType,
        /// Shape of the tensor.
        shape: Vec<u64>,
        /// Bytes by the table.
        length: u64,
    },
    /// A variant is not aligned, overlaps the one before it, leaves a hole of a page or more, or leaves its segment.
    #[error(
        "tensor '{tensor}', layout {layout}: {length} bytes at {offset} of part {part} do not fit there"
    )]
    Place {
        /// The tensor.
        tensor: String,
        /// The variant.
        layout: LayoutId,
        /// Segment of the stage.
        part: u16,
        /// First byte in the segment.
        offset: u64,
        /// Bytes by the table.
        length: u64,
    },
    /// A segment goes on behind its last tensor.
    #[error("part {part} has {length} bytes and its tensors end at {end}")]
    Uncovered {
        /// Segment of the stage.
        part: u16,
        /// Bytes of the segment.
        length: u64,
        /// End of its last tensor.
        end: u64,
    },
}

/// A plan that cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Two tensors of a stage have the same name.
    #[error("graph '{stage}', weight '{name}': planned twice")]
    RepeatedTensor {
        /// The stage.
        stage: Stage,
        /// The tensor.
        name: String,
    },
    /// A tensor breaks a rule of the tensor table.
    #[error("graph '{stage}', weight '{name}': {fault}")]
    Tensor {
        /// The stage.
        stage: Stage,
        /// The tensor.
        name: String,
        /// The rule.
        #[source]
        fault: TableFault,
    },
    /// A count or length is over its limit.
    #[error("{what} is {value}, a .snap file holds at most {limit}")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// The number in the plan.
        value: u64,
        /// The largest that is allowed.
        limit: u64,
    },
    /// The file would be longer than 64 bits can say.
    #[error("the sizes of the sections add up to more than a file can hold")]
    TooLong,
}
