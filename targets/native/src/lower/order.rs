//! Orders of dimensions: which logical dimension each physical one is.

use snapc_ir::Dim;

/// For each physical dimension, outermost first, the logical dimension of the IR value that it is.
pub(super) type Order = Vec<usize>;

/// The order of row-major IR values.
pub(super) fn plain(rank: usize) -> Order {
    (0..rank).collect()
}

/// `[N,H,W,C]` of a logical `[N,C,H,W]`.
pub(super) fn channels_last() -> Order {
    vec![0, 2, 3, 1]
}

/// The order in which `axis` is innermost and the others stay as they are.
pub(super) fn innermost(order: &[usize], axis: usize) -> Order {
    let others = order.iter().copied().filter(|&d| d != axis);
    others.chain([axis]).collect()
}

/// Where a logical dimension is.
///
/// # Panics
/// When the order has no such dimension.
pub(super) fn position(order: &[usize], axis: usize) -> usize {
    let found = order.iter().position(|&d| d == axis);
    found.expect("an order holds every dimension")
}

/// The order of `transpose(x, perm)` when `x` has `order` and nothing moves.
pub(super) fn transposed(order: &[usize], perm: &[usize]) -> Order {
    order.iter().map(|&d| position(perm, d)).collect()
}

/// The dimensions that decide where elements are: those of size 1 do not.
pub(super) fn moving(order: &[usize], dims: &[Dim]) -> Order {
    let moving = order.iter().copied().filter(|&d| dims[d] != Dim::Fixed(1));
    moving.collect()
}

/// Whether elements are where row-major order has them.
pub(super) fn is_plain(order: &[usize], dims: &[Dim]) -> bool {
    moving(order, dims).is_sorted()
}

/// The order of a reshaped value when no element moves; `None` when some would have to, because dimensions that are merged
/// or that belong to one split are not neighbours. A dimension of size 1 stands behind the logical one before it, so that
/// values that are joined along it are joined where they lie.
pub(super) fn reshaped(order: &[usize], from: &[Dim], to: &[Dim]) -> Option<Order> {
    if is_plain(order, from) {
        return Some(plain(to.len()));
    }
    let groups = groups(from, to);
    let mut physical = moving(order, from);
    let mut result: Order = Vec::with_capacity(to.len());
    while let Some(first) = physical.first() {
        let (before, after) = groups.iter().find(|(before, _)| before.contains(first))?;
        if !physical.starts_with(before) {
            return None;
        }
        result.extend(after);
        physical.drain(..before.len());
    }
    for one in (0..to.len()).filter(|&d| to[d] == Dim::Fixed(1)) {
        let at = if one == 0 {
            0
        } else {
            position(&result, one - 1) + 1
        };
        result.insert(at, one);
    }
    Some(result)
}

/// The dimensions, without those of size 1, cut into the smallest groups before and after a reshape that hold the same
/// elements.
fn groups(from: &[Dim], to: &[Dim]) -> Vec<(Vec<usize>, Vec<usize>)> {
    let moving = |dims: &[Dim]| {
        (0..dims.len())
            .filter(|&d| dims[d] != Dim::Fixed(1))
            .collect()
    };
    let (before, after): (Vec<usize>, Vec<usize>) = (moving(from), moving(to));
    let (mut before, mut after) = (before.into_iter().peekable(), after.into_iter().peekable());
    let mut groups = Vec::new();
    while before.peek().is_some() || after.peek().is_some() {
        let (mut left, mut right) = (Extent::default(), Extent::default());
        let mut group = (Vec::new(), Vec::new());
        loop {
            // The side that lags behind grows; the totals are equal, so that this ends.
            let left_lags = left <= right && before.peek().is_some() || after.peek().is_none();
            let (side, extent, axes, dims) = if left_lags {
                (&mut before, &mut left, &mut group.0, from)
            } else {
                (&mut after, &mut right, &mut group.1, to)
            };
            let Some(axis) = side.next() else { break };
            axes.push(axis);
            extent.grow(dims[axis]);
            if left == right {
                break;
            }
        }
        groups.push(group);
    }
    groups
}

/// Elements of a group of dimensions.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Extent {
    per_batch: usize,
    has_batch: bool,
}

impl Default for Extent {
    fn default() -> Self {
        Extent {
            per_batch: 1,
            has_batch: false,
        }
    }
}

impl Extent {
    fn grow(&mut self, dim: Dim) {
        match dim {
            // The verifier has seen that the elements of a value can be counted.
            Dim::Fixed(n) => self.per_batch *= n,
            Dim::Batch => self.has_batch = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(text: &str) -> Vec<Dim> {
        let dim = |word: &str| match word {
            "N" => Dim::Batch,
            n => Dim::Fixed(n.parse().unwrap()),
        };
        text.split(',').map(dim).collect()
    }

    #[test]
    fn images_become_tokens_and_back_without_a_move() {
        let (image, tokens) = (dims("N,320,64,32"), dims("N,320,2048"));
        let order = reshaped(&channels_last(), &image, &tokens).unwrap();
        assert_eq!(order, [0, 2, 1]);
        assert_eq!(transposed(&order, &[0, 2, 1]), [0, 1, 2]);
        assert_eq!(reshaped(&order, &tokens, &image), Some(channels_last()));
        // The other way that graphs are written: transpose first.
        assert_eq!(transposed(&channels_last(), &[0, 2, 3, 1]), plain(4));
    }

    #[test]
    fn plain_values_reshape_freely() {
        let (from, to) = (dims("N,6,4"), dims("2,N,3,1,4"));
        assert_eq!(reshaped(&plain(3), &from, &to), Some(plain(5)));
        // Channels last of one pixel is plain.
        let pixel = dims("N,8,1,1");
        assert_eq!(
            reshaped(&channels_last(), &pixel, &dims("N,8")),
            Some(plain(2))
        );
    }

    #[test]
    fn dimensions_that_are_apart_cannot_be_merged() {
        let image = dims("N,4,3,5");
        assert_eq!(reshaped(&channels_last(), &image, &dims("N,60")), None);
        assert_eq!(reshaped(&channels_last(), &image, &dims("N,12,5")), None);
        let heads = dims("N,8,77,40");
        assert_eq!(reshaped(&[0, 2, 1, 3], &heads, &dims("N,616,40")), None);
    }

    #[test]
    fn splits_stay_where_their_dimension_was() {
        let (tokens, heads) = (dims("N,6,8"), dims("N,6,2,4"));
        assert_eq!(
            reshaped(&[0, 2, 1], &tokens, &heads),
            Some(vec![0, 2, 3, 1])
        );
        let ones = dims("N,1,6,8,1");
        assert_eq!(
            reshaped(&[0, 2, 1], &tokens, &ones),
            Some(vec![0, 1, 3, 4, 2])
        );
    }
}
