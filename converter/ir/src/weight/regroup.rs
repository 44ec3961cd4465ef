//! Movement of encoded tensors that stay encoded: codes and groups move together.

use std::sync::Arc;

use super::{Codebook, Encoding, LazyTensor};

impl Encoding {
    /// The encoding of a tensor whose dimensions are reordered: dimension `i` of the result is dimension `perm[i]` of this.
    ///
    /// # Panics
    /// When `perm` is not a permutation of the dimensions.
    pub fn permute(&self, perm: &[usize]) -> Self {
        assert_eq!(perm.len(), self.groups.len(), "not a permutation");
        let groups: Vec<usize> = perm.iter().map(|&p| self.groups[p]).collect();
        let strides = crate::tensor::strides(&self.groups);
        let own = crate::tensor::strides(&groups);
        let from = |group: usize| {
            let along = (0..perm.len()).map(|d| group / own[d] % groups[d] * strides[perm[d]]);
            along.sum::<usize>()
        };
        let order: Vec<usize> = (0..groups.iter().product()).map(from).collect();
        Encoding {
            bits: self.bits,
            codebook: self.codebook.reordered(&order, self.bits),
            groups,
        }
    }

    /// The encoding of the same row-major elements in other dimensions: `None` when a group is not a part of every new
    /// dimension that it lies in.
    pub fn reshape(&self, from: &[usize], to: &[usize]) -> Option<Self> {
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        if !self.fits(from) || elements(from) != elements(to) || elements(to) == 0 {
            return None;
        }
        let mut groups = Vec::with_capacity(to.len());
        let (mut old, mut new) = (0, 0);
        while old < from.len() || new < to.len() {
            // The shortest runs of dimensions with as many elements each, and single dimensions of size 1.
            let (first_old, first_new) = (old, new);
            let (mut held, mut wanted) = (1usize, 1usize);
            loop {
                if held <= wanted && old < from.len() {
                    held *= from[old];
                    old += 1;
                } else if new < to.len() {
                    wanted *= to[new];
                    new += 1;
                } else {
                    break;
                }
                if held == wanted {
                    break;
                }
            }
            let count = merged(&from[first_old..old], &self.groups[first_old..old])?;
            split(count, &to[first_new..new], &mut groups)?;
        }
        Some(Encoding {
            bits: self.bits,
            groups,
            codebook: self.codebook.clone(),
        })
    }
}

/// Into how many parts the dimension is cut that these make together; `None` when the parts would not be runs of equal
/// length.
fn merged(sizes: &[usize], groups: &[usize]) -> Option<usize> {
    let cut = groups.iter().rposition(|&g| g > 1);
    let leading = ..cut.unwrap_or(0);
    let whole = sizes[leading].iter().zip(&groups[leading]);
    let runs = whole.into_iter().all(|(size, count)| size == count);
    runs.then(|| groups.iter().product())
}

/// Cuts the dimensions that one of `count` parts becomes.
fn split(mut count: usize, sizes: &[usize], groups: &mut Vec<usize>) -> Option<()> {
    for &size in sizes {
        if count.is_multiple_of(size) {
            groups.push(size);
            count /= size;
        } else if size.is_multiple_of(count) {
            groups.push(count);
            count = 1;
        } else {
            return None;
        }
    }
    (count == 1).then_some(())
}

impl Codebook {
    /// Group `i` of the result is group `order[i]` of this.
    fn reordered(&self, order: &[usize], bits: u32) -> Self {
        match self {
            Codebook::Affine { scale, zero_point } => Codebook::Affine {
                scale: order.iter().map(|&i| scale[i]).collect(),
                zero_point: match zero_point.as_slice() {
                    [] => Vec::new(),
                    all => order.iter().map(|&i| all[i]).collect(),
                },
            },
            Codebook::Palette { table } => {
                let tables = order.iter().map(|&i| &table[i << bits..(i + 1) << bits]);
                Codebook::Palette {
                    table: tables.flatten().copied().collect(),
                }
            }
        }
    }
}

impl LazyTensor {
    /// As [`LazyTensor::permute`]; an encoded tensor stays encoded, its codes and groups move.
    ///
    /// # Panics
    /// When `perm` is not a permutation of the dimensions.
    pub fn permute_codes(self, perm: &[usize]) -> Self {
        let (Some(encoding), Some(codes)) = (self.encoding(), self.codes()) else {
            return self.permute(perm);
        };
        let moved = Arc::new(encoding.permute(perm));
        LazyTensor::from_codes(codes.permute(perm), moved, self.dtype())
    }

    /// As [`LazyTensor::reshape`]; an encoded tensor stays encoded where its groups are parts of the new dimensions.
    ///
    /// # Panics
    /// When the number of elements differs.
    pub fn reshape_codes(self, shape: &[usize]) -> Self {
        let moved = self.encoding().and_then(|e| e.reshape(self.shape(), shape));
        let (Some(encoding), Some(codes)) = (moved, self.codes()) else {
            return self.reshape(shape);
        };
        LazyTensor::from_codes(codes.reshape(shape), Arc::new(encoding), self.dtype())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(shape: &[usize], groups: &[usize]) -> LazyTensor {
        let count: usize = groups.iter().product();
        let scale: Vec<f32> = (0..count).map(|i| 0.25 + i as f32 / 8.0).collect();
        let zero: Vec<i8> = (0..count).map(|i| i as i8 - 2).collect();
        let encoding = Encoding::affine(8, groups, scale, zero).unwrap();
        let elements = shape.iter().product::<usize>();
        let data: Vec<f32> = (0..elements).map(|i| (i * 7 % 23) as f32 - 11.0).collect();
        LazyTensor::from_f32(shape, &data).encode(Arc::new(encoding))
    }

    #[test]
    fn permuted_codes_stand_for_the_permuted_values() {
        for (shape, groups, perm) in [
            (&[4, 6][..], &[4, 1][..], &[1, 0][..]),
            (&[4, 6], &[2, 3], &[1, 0]),
            (&[2, 6, 4], &[2, 3, 2], &[2, 0, 1]),
        ] {
            let plain = encoded(shape, groups).permute(perm);
            let moved = encoded(shape, groups).permute_codes(perm);
            assert!(plain.encoding().is_none() && moved.encoding().is_some());
            assert_eq!(moved.to_f32().unwrap(), plain.to_f32().unwrap());
        }
        let table: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let encoding = Encoding::palette(2, &[3, 1], table).unwrap();
        let data: Vec<f32> = (0..12).map(|i| (i * 5 % 12) as f32).collect();
        let tensor = LazyTensor::from_f32(&[3, 4], &data).encode(Arc::new(encoding));
        let plain = tensor.clone().permute(&[1, 0]).to_f32().unwrap();
        assert_eq!(tensor.permute_codes(&[1, 0]).to_f32().unwrap(), plain);
    }

    #[test]
    fn groups_follow_a_reshape_where_they_can() {
        type Case<'a> = (&'a [usize], &'a [usize], &'a [usize], Option<&'a [usize]>);
        let cases: [Case<'_>; 10] = [
            (&[4, 6, 3, 3], &[4, 2, 1, 1], &[4, 54], Some(&[4, 2])),
            (&[4, 54], &[4, 2], &[4, 6, 3, 3], Some(&[4, 2, 1, 1])),
            (&[8, 5], &[4, 1], &[40], Some(&[4])),
            (&[40], &[4], &[8, 5], Some(&[4, 1])),
            (&[6], &[6], &[6, 1, 1], Some(&[6, 1, 1])),
            (&[1, 6], &[1, 3], &[6], Some(&[3])),
            (&[4, 6], &[1, 1], &[24, 1], Some(&[1, 1])),
            // Blocks that all rows share are no runs of elements.
            (&[4, 6], &[1, 2], &[24], None),
            (&[6, 4], &[2, 1], &[4, 6], Some(&[2, 1])),
            (&[6, 4], &[3, 1], &[4, 6], None),
        ];
        for (from, groups, to, expected) in cases {
            let tensor = encoded(from, groups);
            let moved = tensor.clone().reshape_codes(to);
            let found = moved.encoding().map(|e| e.groups().to_vec());
            assert_eq!(found.as_deref(), expected, "{from:?} {groups:?} {to:?}");
            assert_eq!(moved.shape(), to);
            assert_eq!(moved.to_f32().unwrap(), tensor.to_f32().unwrap());
        }
    }
}
