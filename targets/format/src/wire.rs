//! Little-endian numbers and strings in byte slices: the notation of every section.

use thiserror::Error;

/// The bytes end before the value that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the data ends within the value at byte {at}")]
pub struct Ended {
    /// Where the value begins.
    pub at: usize,
}

/// Reads values one after the other; never beyond the end, never by panic.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    /// Begins at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, position: 0 }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// When fewer are left; this holds for every reading method, and leaves the position as it was.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Ended> {
        let at = self.position;
        let end = at.checked_add(n).ok_or(Ended { at })?;
        let taken = self.bytes.get(at..end).ok_or(Ended { at })?;
        self.position = end;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Ended> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    /// The next byte.
    ///
    /// # Errors
    /// When none is left.
    pub fn u8(&mut self) -> Result<u8, Ended> {
        self.array().map(u8::from_le_bytes)
    }

    /// The next two bytes as a number.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn u16(&mut self) -> Result<u16, Ended> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next four bytes as a number.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn u32(&mut self) -> Result<u32, Ended> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next eight bytes as a number.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn u64(&mut self) -> Result<u64, Ended> {
        self.array().map(u64::from_le_bytes)
    }
}

/// Appends a number of two bytes.
pub fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a number of four bytes.
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a number of eight bytes.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_little_endian() {
        let bytes = [1, 2, 0, 3, 0, 0, 0x80, 4, 0, 0, 0, 0, 0, 0, 0, 9];
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(cursor.u8(), Ok(1));
        assert_eq!(cursor.u16(), Ok(2));
        assert_eq!(cursor.u32(), Ok(0x8000_0003));
        assert_eq!(cursor.u64(), Ok(4));
        assert_eq!((cursor.position(), cursor.remaining()), (15, 1));
        assert_eq!(cursor.u16(), Err(Ended { at: 15 }));
        assert_eq!(cursor.u8(), Ok(9));
    }

    #[test]
    fn a_length_beyond_the_address_space_is_an_error() {
        let mut cursor = Cursor::new(&[0; 4]);
        cursor.bytes(1).unwrap();
        assert_eq!(cursor.bytes(usize::MAX), Err(Ended { at: 1 }));
    }
}
