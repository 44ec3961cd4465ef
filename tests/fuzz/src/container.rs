//! `.snap` files from small inputs.
//!
//! Sections of a file begin at multiples of 16 KiB and are hashed, so that a mutated file would be refused at the first
//! hash and be mostly zeros. An input is therefore a file taken apart: `[flags] [header] [table of contents] [contents,
//! one behind the other]`. Lengths, places and hashes are set right when it is assembled, unless a flag says to leave
//! them as they are.

use sha2::{Digest, Sha256};

/// Take the bytes behind the flags as the file.
const AS_IT_IS: u8 = 1;
/// Leave length of the file and offsets of the sections as they are.
const KEEP_PLACES: u8 = 2;
/// Leave the hashes of the sections as they are.
const KEEP_SECTION_HASHES: u8 = 4;
/// Leave the hash of header and table of contents as it is.
const KEEP_CONTENTS_HASH: u8 = 8;

/// Bytes of the header, and of an entry of the table of contents.
const ENTRY: usize = 64;
/// Alignment of the file's length.
const PAGE: usize = 16 << 10;
/// Longest file that is assembled; also the longest section whose hash is one of a single chunk.
const MAX_LEN: usize = 1 << 20;

/// The file of an input.
pub fn assemble(input: &[u8]) -> Vec<u8> {
    let Some((&flags, parts)) = input.split_first() else {
        return Vec::new();
    };
    if flags & AS_IT_IS != 0 || parts.len() < ENTRY {
        return parts.to_vec();
    }
    let toc = u32_at(parts, 12);
    let toc_end = toc.saturating_add(u32_at(parts, 28)).min(parts.len());
    let toc = toc.clamp(ENTRY, toc_end.max(ENTRY));
    let entries = toc_end.saturating_sub(toc) / ENTRY;
    let mut file = parts[..toc + entries * ENTRY].to_vec();
    let mut contents = &parts[file.len()..];
    for i in 0..entries {
        let entry = toc + i * ENTRY;
        let length = u64_at(&file, entry + 24);
        let (content, rest) = contents.split_at(length.min(contents.len()));
        contents = rest;
        let alignment = u32_at(&file, entry + 12).clamp(1, MAX_LEN);
        if flags & KEEP_PLACES == 0 {
            let offset = file.len().next_multiple_of(alignment) as u64;
            put(&mut file, entry + 16, &offset.to_le_bytes());
        }
        let offset = u64_at(&file, entry + 16);
        let end = offset.saturating_add(length);
        if end > MAX_LEN {
            continue;
        }
        file.resize(file.len().max(end), 0);
        put(&mut file, offset, content);
        if flags & KEEP_SECTION_HASHES == 0 {
            let hash = match length {
                0 => Sha256::digest([]),
                _ => Sha256::digest(Sha256::digest(&file[offset..end])),
            };
            put(&mut file, entry + 32, &hash);
        }
    }
    if flags & KEEP_PLACES == 0 {
        file.resize(file.len().next_multiple_of(PAGE), 0);
        let length = file.len() as u64;
        put(&mut file, 16, &length.to_le_bytes());
    }
    if flags & KEEP_CONTENTS_HASH == 0 {
        let mut hash = Sha256::new();
        hash.update(&file[..32]);
        hash.update(&file[ENTRY..toc + entries * ENTRY]);
        put(&mut file, 32, &hash.finalize());
    }
    file
}

/// The input that [`assemble`] makes a well-formed file from.
///
/// # Panics
/// When the file is not well formed.
pub fn take_apart(file: &[u8]) -> Vec<u8> {
    let toc = u32_at(file, 12);
    let end = toc + u32_at(file, 28);
    let mut input = vec![0];
    input.extend(&file[..end]);
    for entry in (toc..end).step_by(ENTRY) {
        let offset = u64_at(file, entry + 16);
        input.extend(&file[offset..offset + u64_at(file, entry + 24)]);
    }
    input
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    let bytes = bytes[at..at + 4].try_into().expect("four bytes");
    u32::from_le_bytes(bytes) as usize
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    let bytes = bytes[at..at + 8].try_into().expect("eight bytes");
    u64::from_le_bytes(bytes) as usize
}
