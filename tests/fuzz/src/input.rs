//! Several byte strings in one input.

/// The two parts of an input: `[length of the first: u16 LE] [first] [second]`. A length beyond the end takes all.
pub fn split(input: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = input.split_first_chunk::<2>() else {
        return (&[], &[]);
    };
    let length = usize::from(u16::from_le_bytes(*length));
    rest.split_at(length.min(rest.len()))
}

/// The input with these parts.
///
/// # Panics
/// When the first part is 64 KiB or longer.
pub fn join(first: &[u8], second: &[u8]) -> Vec<u8> {
    let length = u16::try_from(first.len()).expect("the first part is below 64 KiB");
    [&length.to_le_bytes(), first, second].concat()
}
