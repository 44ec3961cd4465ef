//! The 64 bytes at the beginning of the file, and the table of contents behind them.

use std::fmt;

use crate::error::Problem;
use crate::hash::{self, Hash};
use crate::limits::MAX_SECTIONS;
use crate::section::{Section, SectionId};
use crate::wire::{Cursor, Ended, put_u16, put_u32, put_u64};

/// The first eight bytes. A byte over 127, a CR-LF and an end-of-file mark show when the file was sent as text.
pub const MAGIC: [u8; 8] = *b"\x89SNAP\r\n\x1a";

/// The version that this crate writes.
pub const VERSION: Version = Version { major: 1, minor: 0 };

/// Bytes of the header that this version writes.
pub(crate) const HEADER_LEN: usize = 64;

/// Bytes of a header up to the hash.
const HASHED_LEN: usize = 32;

/// The longest header that a newer minor version may have.
const MAX_HEADER_LEN: u32 = 4096;

/// Bytes of an entry of the table of contents.
pub(crate) const ENTRY_LEN: usize = 64;

const FLAG_CRITICAL: u32 = 1;

/// Version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Readers refuse another one.
    pub major: u16,
    /// Readers accept any; a newer one adds what older readers may skip.
    pub minor: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The bytes of header and table of contents.
pub(crate) fn encode(sections: &[Section], file_len: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + sections.len() * ENTRY_LEN);
    out.extend_from_slice(&MAGIC);
    put_u16(&mut out, VERSION.major);
    put_u16(&mut out, VERSION.minor);
    put_u32(&mut out, HEADER_LEN as u32);
    put_u64(&mut out, file_len);
    put_u32(&mut out, HEADER_LEN as u32);
    put_u32(&mut out, (sections.len() * ENTRY_LEN) as u32);
    out.resize(HEADER_LEN, 0);
    for section in sections {
        put_u32(&mut out, section.id.kind);
        put_u32(&mut out, if section.critical { FLAG_CRITICAL } else { 0 });
        put_u16(&mut out, section.id.stage);
        put_u16(&mut out, section.id.part);
        put_u32(&mut out, section.alignment);
        put_u64(&mut out, section.offset);
        put_u64(&mut out, section.length);
        out.extend_from_slice(&section.hash);
    }
    let hash = contents_hash(&out, HEADER_LEN);
    out[HASHED_LEN..HEADER_LEN].copy_from_slice(&hash);
    out
}

/// Hash over the header, without the place of the hash itself, and over the table of contents.
fn contents_hash(contents: &[u8], header_len: usize) -> Hash {
    let (header, toc) = contents.split_at(header_len);
    hash::sha256(&[&header[..HASHED_LEN], &header[HEADER_LEN..], toc])
}

/// What header and table of contents say. The places of the sections are not checked here.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) version: Version,
    pub(crate) sections: Vec<Section>,
    /// First byte behind the table of contents.
    pub(crate) end: u64,
}

pub(crate) fn parse(file: &[u8]) -> Result<Contents, Problem> {
    let actual = file.len() as u64;
    let truncated = |_: Ended| Problem::Length {
        declared: HEADER_LEN as u64,
        actual,
    };
    let mut cursor = Cursor::new(file);
    let magic: [u8; 8] = cursor.array().map_err(truncated)?;
    if magic != MAGIC {
        return Err(Problem::Magic);
    }
    let version = Version {
        major: cursor.u16().map_err(truncated)?,
        minor: cursor.u16().map_err(truncated)?,
    };
    let header_len = cursor.u32().map_err(truncated)?;
    let declared = cursor.u64().map_err(truncated)?;
    let toc_offset = cursor.u32().map_err(truncated)?;
    let toc_len = cursor.u32().map_err(truncated)?;
    let hash: Hash = cursor.array().map_err(truncated)?;
    if version.major != VERSION.major {
        return Err(Problem::Version { found: version });
    }
    if declared != actual {
        return Err(Problem::Length { declared, actual });
    }

    let field = |field, value: u32| Problem::Header {
        field,
        value: value.into(),
    };
    let newer = version.minor > VERSION.minor;
    let longest = if newer {
        MAX_HEADER_LEN
    } else {
        HEADER_LEN as u32
    };
    if !(HEADER_LEN as u32..=longest).contains(&header_len) || header_len % 64 != 0 {
        return Err(field("its length", header_len));
    }
    if toc_offset != header_len {
        return Err(field("the offset of the table of contents", toc_offset));
    }
    let toc_limit = MAX_SECTIONS * ENTRY_LEN as u64;
    if !(toc_len as usize).is_multiple_of(ENTRY_LEN) || u64::from(toc_len) > toc_limit {
        return Err(field("the length of the table of contents", toc_len));
    }
    let (header_len, toc_len) = (header_len as usize, toc_len as usize);
    // Both are a few hundred KiB at most, so that the sum is no overflow.
    let Some(contents) = file.get(..header_len + toc_len) else {
        return Err(field("the length of the table of contents", toc_len as u32));
    };
    if contents_hash(contents, header_len) != hash {
        return Err(Problem::ContentsHash);
    }
    let sections = contents[header_len..].chunks_exact(ENTRY_LEN);
    Ok(Contents {
        version,
        sections: sections.map(parse_entry).collect::<Result<_, _>>()?,
        end: contents.len() as u64,
    })
}

fn parse_entry(entry: &[u8]) -> Result<Section, Problem> {
    let fields = || -> Result<(Section, u32), Ended> {
        let mut cursor = Cursor::new(entry);
        let kind = cursor.u32()?;
        let flags = cursor.u32()?;
        let id = SectionId {
            kind,
            stage: cursor.u16()?,
            part: cursor.u16()?,
        };
        let section = Section {
            id,
            critical: flags & FLAG_CRITICAL != 0,
            alignment: cursor.u32()?,
            offset: cursor.u64()?,
            length: cursor.u64()?,
            hash: cursor.array()?,
        };
        Ok((section, flags))
    };
    let (section, flags) = fields().expect("an entry has 64 bytes");
    if flags & !FLAG_CRITICAL != 0 {
        return Err(Problem::Flags {
            section: section.id,
            flags,
        });
    }
    Ok(section)
}
