//! Byte-pair encoding: the bytes of a piece joined to tokens.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::vocabulary::Vocabulary;

/// Appends the tokens of a piece that is not empty.
///
/// CLIP joins all occurrences of the pair of lowest rank, from left to right, and starts again. A queue of pairs by rank
/// and position does the same in O(n log n), however long the piece: a pair with a new token ranks behind the merge that
/// made the token, because merges only join tokens of earlier lines.
pub(super) fn merge_piece(vocabulary: &Vocabulary, piece: &str, ids: &mut Vec<u32>) {
    let last = piece.len() - 1;
    let mut tokens: Vec<Option<u32>> = (0..)
        .zip(piece.bytes())
        .map(|(i, byte)| Some(vocabulary.byte(byte, i == last)))
        .collect();
    // Positions of the neighbours that still hold a token; only valid for positions that do.
    let mut next: Vec<usize> = (1..=tokens.len()).collect();
    let mut previous: Vec<Option<usize>> = (0..tokens.len()).map(|i| i.checked_sub(1)).collect();

    let rank_at = |tokens: &[Option<u32>], next: &[usize], left: usize| {
        let right = tokens.get(next[left]).copied().flatten()?;
        vocabulary.rank([tokens[left]?, right])
    };
    let mut queue: BinaryHeap<Reverse<(u32, usize)>> = (0..tokens.len())
        .filter_map(|left| Some(Reverse((rank_at(&tokens, &next, left)?, left))))
        .collect();

    while let Some(Reverse((rank, left))) = queue.pop() {
        // An entry goes stale when a merge takes one of its two tokens.
        if rank_at(&tokens, &next, left) != Some(rank) {
            continue;
        }
        tokens[left] = Some(Vocabulary::merged(rank));
        let taken = next[left];
        tokens[taken] = None;
        next[left] = next[taken];
        if let Some(after) = previous.get_mut(next[left]) {
            *after = Some(left);
        }
        for start in [previous[left], Some(left)].into_iter().flatten() {
            if let Some(rank) = rank_at(&tokens, &next, start) {
                queue.push(Reverse((rank, start)));
            }
        }
    }
    ids.extend(tokens.into_iter().flatten());
}
