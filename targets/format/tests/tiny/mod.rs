//! A small file put together by hand: a program, one entry of metadata, two tensors of the UNet and a packed variant.
//!
//! The hashes are from Python's hashlib; everything else is written down from `docs/native-format.md`.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use snapc_format::{Container, FormatError, Problem};

/// Bytes of the file: contents, program, metadata, table, two segments; a page each.
pub const LEN: usize = 6 * PAGE;
pub const PAGE: usize = 16 * 1024;

const HEADER: &str = "89534e41500d0a1a 0100 0000 40000000 0080010000000000 40000000 40010000
    87101c5d2dc762d966768bed9ed1e1b46faf7a2c3d21a187746e694181c70828";

/// Kind, flags, stage, part, alignment, offset, length, hash.
const ENTRIES: [&str; 5] = [
    "01000000 01000000 0000 0000 00400000 0040000000000000 0400000000000000
        b5e3882e07c8b72bfa58f53fcf296f62d9b51a102d1514f6b57b7ac114b24c73",
    "06000000 00000000 0000 0000 00400000 0080000000000000 1600000000000000
        13419787eae43e4b84ab584214d8d31f6ee9da1fbaf7c3740931e031a0745ac5",
    "02000000 01000000 0200 0000 00400000 00c0000000000000 5e00000000000000
        cf8365efdfce742fa3842841831626c307cdd5fd7facb1eff3223869bd1f8faf",
    "03000000 01000000 0200 0000 00400000 0000010000000000 4800000000000000
        b30094c3793abff2393f29e38f63bcc2c97caa4e99c6f60e5779d84323272a35",
    "03000000 01000000 0200 0100 00400000 0040010000000000 0500000000000000
        a26baf5a9a07d9eb7ba10f43924dcdf3f75f0abf066cd9f0c76f983121302e01",
];

/// One entry: key length, value length, key, value.
const METADATA: &str = "01000000 07000000 03000000 6c6963656e7365 4d4954";

/// `a`: f32 [2] at byte 64 of part 0. `b`: an f16 scalar at byte 0 of part 0, and 5 bytes of bf16 in layout 7.
const TABLE: &str = "02000000
    0100 01 01 61 0200000000000000  0100 0000 0000 0000 4000000000000000 0800000000000000
    0100 00 02 62                   0200 0000 0000 0000 0000000000000000 0200000000000000
                                    0300 0700 0100 0000 0000000000000000 0500000000000000";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| d as u8)
        .collect();
    digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect()
}

/// The file.
pub fn file() -> Vec<u8> {
    let mut file = vec![0; LEN];
    put(&mut file, 0, &hex(HEADER));
    for (index, entry) in ENTRIES.iter().enumerate() {
        put(&mut file, 64 + 64 * index, &hex(entry));
    }
    put(&mut file, PAGE, b"PROG");
    put(&mut file, 2 * PAGE, &hex(METADATA));
    put(&mut file, 3 * PAGE, &hex(TABLE));
    put(&mut file, 4 * PAGE, &[0x11, 0x22]);
    put(&mut file, 4 * PAGE + 64, &hex("0000803f 000000c0"));
    put(&mut file, 5 * PAGE, &[1, 2, 3, 4, 5]);
    file
}

/// Writes `bytes` at `at`.
pub fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Opens a file in memory.
pub fn open(file: &[u8]) -> Result<Container, FormatError> {
    Container::from_bytes("tiny.snap", Arc::new(file.to_vec()))
}

/// What opening a file complains about.
#[allow(dead_code, reason = "not every test that uses the file needs it")]
pub fn problem(file: &[u8]) -> Problem {
    open(file).expect_err("the file is wrong").problem
}

/// Makes the hash in the header right again.
#[allow(dead_code, reason = "not every test that uses the file needs it")]
pub fn rehash_contents(file: &mut [u8]) {
    let toc_len = file[28..32].try_into().expect("four bytes");
    let toc_len = u32::from_le_bytes(toc_len) as usize;
    let mut hasher = Sha256::new();
    hasher.update(&file[..32]);
    hasher.update(&file[64..64 + toc_len]);
    let hash = hasher.finalize();
    put(file, 32, &hash);
}

/// Sets the content of the section at `index` of the table of contents, which is at most a page, with its hash.
#[allow(dead_code, reason = "not every test that uses the file needs it")]
pub fn set_section(file: &mut [u8], index: usize, content: &[u8]) {
    let start = (1 + index) * PAGE;
    file[start..start + PAGE].fill(0);
    put(file, start, content);
    let entry = 64 + 64 * index;
    put(file, entry + 24, &(content.len() as u64).to_le_bytes());
    let hash = Sha256::digest(Sha256::digest(content));
    put(file, entry + 32, &hash);
    rehash_contents(file);
}
