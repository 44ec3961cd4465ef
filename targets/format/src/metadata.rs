//! The metadata section: key and value strings, by ascending key.

use std::collections::BTreeMap;

use crate::error::TableFault;
use crate::limits::{MAX_KEY, MAX_METADATA, MAX_VALUE};
use crate::table::within;
use crate::wire::{Cursor, put_u32};

/// Checks an entry against the limits.
pub(crate) fn check_entry(key_len: usize, value_len: usize) -> Result<(), TableFault> {
    within(
        "the length of a metadata key",
        key_len as u64,
        MAX_KEY as u64,
    )?;
    within(
        "the length of a metadata value",
        value_len as u64,
        MAX_VALUE as u64,
    )
}

/// Bytes of the section. The entries are within the limits.
pub(crate) fn encode(entries: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    put_u32(&mut out, entries.len() as u32);
    for (key, value) in entries {
        put_u32(&mut out, key.len() as u32);
        put_u32(&mut out, value.len() as u32);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    out
}

pub(crate) fn parse(bytes: &[u8]) -> Result<BTreeMap<String, String>, TableFault> {
    let mut cursor = Cursor::new(bytes);
    let count = u64::from(cursor.u32()?);
    within("the number of metadata entries", count, MAX_METADATA)?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let (key_len, value_len) = (cursor.u32()? as usize, cursor.u32()? as usize);
        check_entry(key_len, value_len)?;
        let key = parse_string(&mut cursor, key_len)?;
        let value = parse_string(&mut cursor, value_len)?;
        if entries
            .last_key_value()
            .is_some_and(|(last, _)| *last >= key)
        {
            return Err(TableFault::Order(key));
        }
        entries.insert(key, value);
    }
    match cursor.remaining() {
        0 => Ok(entries),
        n => Err(TableFault::TrailingBytes(n)),
    }
}

fn parse_string(cursor: &mut Cursor<'_>, length: usize) -> Result<String, TableFault> {
    let at = cursor.position();
    let text = std::str::from_utf8(cursor.bytes(length)?);
    text.map(str::to_owned).map_err(|_| TableFault::NotUtf8(at))
}
