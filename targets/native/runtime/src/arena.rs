//! Memory for the values of a network.

use std::ops::Range;

/// Words of a cache line.
const LINE: usize = 16;

/// Words of 32 bits that keep their place: f32, or i32 by their bits.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    data: Vec<f32>,
}

impl Arena {
    /// The first `words` words, from a cache line on; `None` when the system has not as many. They hold what the last
    /// user left.
    pub(crate) fn words(&mut self, words: usize) -> Option<&mut [f32]> {
        let padded = words.checked_add(LINE)?;
        if self.data.len() < padded {
            // Freed first, so that the old and the new memory are not there at once.
            self.data = Vec::new();
            let mut data = Vec::new();
            data.try_reserve_exact(padded).ok()?;
            data.resize(padded, 0.0);
            self.data = data;
        }
        let start = self.data.as_ptr().align_offset(size_of::<f32>() * LINE);
        self.data.get_mut(start..start.checked_add(words)?)
    }

    /// Gives the memory back to the system.
    pub(crate) fn release(&mut self) {
        self.data = Vec::new();
    }

    /// Bytes that are held.
    pub(crate) fn held(&self) -> usize {
        self.data.capacity() * size_of::<f32>()
    }
}

/// All of an arena but the place of one result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest<'a> {
    below: &'a [f32],
    above: &'a [f32],
    /// Where `above` begins.
    end: usize,
}

/// The place of a result, and the rest of the arena to read from.
pub(crate) fn split(arena: &mut [f32], place: Range<usize>) -> (&mut [f32], Rest<'_>) {
    let (below, from_place) = arena.split_at_mut(place.start);
    let (result, above) = from_place.split_at_mut(place.len());
    let end = place.end;
    (result, Rest { below, above, end })
}

impl<'a> Rest<'a> {
    /// The words of a place; `None` when it is not apart from the result's.
    pub(crate) fn get(&self, place: Range<usize>) -> Option<&'a [f32]> {
        match place.start.checked_sub(self.end) {
            Some(start) => self.above.get(start..place.end - self.end),
            None => self.below.get(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_grows() {
        let mut arena = Arena::default();
        for words in [1, 100, 70_000, 3] {
            let memory = arena.words(words).unwrap();
            assert_eq!((memory.len(), memory.as_ptr() as usize % 64), (words, 0));
        }
        assert!(arena.held() >= 280_000);
        arena.release();
        assert_eq!(arena.held(), 0);
        assert!(arena.words(usize::MAX / 4).is_none());
    }

    #[test]
    fn only_what_is_apart_from_the_result_is_read() {
        let mut memory = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let (result, rest) = split(&mut memory, 2..4);
        assert_eq!(result, [2.0, 3.0]);
        assert_eq!(rest.get(0..2), Some(&[0.0, 1.0][..]));
        assert_eq!(rest.get(4..6), Some(&[4.0, 5.0][..]));
        for shared in [2..4, 1..3, 3..5, 0..6] {
            assert_eq!(rest.get(shared), None);
        }
    }
}
