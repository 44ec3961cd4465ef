//! Palettes: the values that leave the least squared error when every weight takes the nearest one (k-means in one
//! dimension).
//!
//! Clusters of numbers are ranges of them, so the sorted values with their counts are all that is needed, and a weight is
//! read once whatever its size. The best ranges of a coarse histogram are found by dynamic programming (Wang and Song,
//! "Ckmeans.1d.dp", The R Journal 3/2, 2011, with the divide and conquer that the monotone ends allow), then moved on the
//! fine one until no value changes its cluster (Lloyd, "Least squares quantization in PCM", 1982).

use snapc_ir::{DType, Encoding, LazyTensor, WeightError};

use super::EncodeError;
use super::affine::round_to;

/// Rounds of moving the ends of clusters; a handful is enough, as dynamic programming begins close to the end.
const ROUNDS: usize = 50;
/// Ranges of the coarse histogram per palette entry.
const COARSE: usize = 16;

/// A palette of `2^bits` values for each of `palettes` equal parts of the rows.
///
/// # Errors
/// When an element is not finite or cannot be made.
pub(super) fn palettes(
    tensor: &LazyTensor,
    bits: u32,
    palettes: usize,
) -> Result<Encoding, EncodeError> {
    let run = tensor.elements() / palettes;
    let mut histogram = Histogram::new(tensor.dtype());
    let mut table = Vec::with_capacity(palettes << bits);
    let mut position = 0;
    let size = tensor.dtype().size();
    tensor.stream::<WeightError>(|mut bytes| {
        while !bytes.is_empty() {
            let n = (run - position % run).min(bytes.len() / size);
            let (now, later) = bytes.split_at(n * size);
            histogram.count(now);
            position += n;
            bytes = later;
            if position % run == 0 {
                table.extend(palette(&histogram.take(), 1 << bits));
            }
        }
        Ok(())
    })?;
    if table.iter().any(|v: &f32| !v.is_finite()) {
        return Err(EncodeError::not_finite(tensor));
    }
    round_to(&mut table, tensor.dtype());
    let mut groups = vec![1; tensor.shape().len()];
    groups[0] = palettes;
    Ok(Encoding::palette(bits, &groups, table)?)
}

/// How often each value occurs. Values of 16 bits are counted one by one; those of an f32 tensor in 65536 ranges, by their
/// first 16 bits, with the sum of each.
struct Histogram {
    dtype: DType,
    counts: Vec<u32>,
    /// Sums of what is counted; empty where a pattern is the value.
    sums: Vec<f64>,
}

/// Equal or neighbouring values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Point {
    count: f64,
    sum: f64,
}

impl Point {
    fn mean(self) -> f64 {
        self.sum / self.count
    }
}

impl Histogram {
    fn new(dtype: DType) -> Self {
        let sums = if dtype == DType::F32 { 1 << 16 } else { 0 };
        Histogram {
            dtype,
            counts: vec![0; 1 << 16],
            sums: vec![0.0; sums],
        }
    }

    fn count(&mut self, bytes: &[u8]) {
        if self.dtype == DType::F32 {
            for element in bytes.as_chunks().0 {
                let x = f32::from_le_bytes(*element);
                let pattern = (x.to_bits() >> 16) as usize;
                self.counts[pattern] += 1;
                self.sums[pattern] += f64::from(x);
            }
        } else {
            for element in bytes.as_chunks().0 {
                self.counts[usize::from(u16::from_le_bytes(*element))] += 1;
            }
        }
    }

    /// What was counted, in ascending order; the histogram is empty afterwards.
    fn take(&mut self) -> Vec<Point> {
        let negative = (0x8000..=0xffffusize).rev();
        let mut points = Vec::new();
        for pattern in negative.chain(0..0x8000) {
            let count = std::mem::take(&mut self.counts[pattern]);
            if count == 0 {
                continue;
            }
            let count = f64::from(count);
            let sum = match self.sums.get_mut(pattern) {
                Some(sum) => std::mem::take(sum),
                None => value(pattern as u16, self.dtype) * count,
            };
            points.push(Point { count, sum });
        }
        points
    }
}

/// The value of a 16-bit float.
fn value(pattern: u16, dtype: DType) -> f64 {
    if dtype == DType::BF16 {
        return f64::from(f32::from_bits(u32::from(pattern) << 16));
    }
    let (exponent, mantissa) = (i32::from(pattern >> 10 & 31), f64::from(pattern & 0x3ff));
    let magnitude = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 => f64::INFINITY,
        _ => (1024.0 + mantissa) * 2f64.powi(exponent - 25),
    };
    if pattern >> 15 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

/// `k` values, ascending, for points in ascending order. Where there are no more than `k` points it is they, the last one
/// repeated.
fn palette(points: &[Point], k: usize) -> Vec<f32> {
    if !points.iter().all(|p| p.sum.is_finite()) {
        return vec![f32::NAN];
    }
    let mut centers: Vec<f64> = if points.len() <= k {
        points.iter().map(|p| p.mean()).collect()
    } else {
        let coarse = coarsened(points, COARSE * k);
        let sums = Sums::of(&coarse);
        let ends = best_ends(&sums, coarse.len(), k);
        settled(points, sums.means(&ends))
    };
    let last = centers.last().copied().unwrap_or(0.0);
    centers.resize(k, last);
    centers.into_iter().map(|c| c as f32).collect()
}

/// At most `limit` points for these: neighbours are joined so that every point takes an equal share of the count and of the
/// range of values together.
fn coarsened(points: &[Point], limit: usize) -> Vec<Point> {
    if points.len() <= limit {
        return points.to_vec();
    }
    let total: f64 = points.iter().map(|p| p.count).sum();
    let low = points[0].mean();
    let range = points[points.len() - 1].mean() - low;
    let mut coarse: Vec<Point> = Vec::with_capacity(limit);
    let (mut counted, mut share) = (0.0, usize::MAX);
    for point in points {
        let passed = (counted / total + (point.mean() - low) / range) / 2.0;
        let own = (passed * limit as f64) as usize;
        counted += point.count;
        match coarse.last_mut() {
            Some(last) if own == share => {
                last.count += point.count;
                last.sum += point.sum;
            }
            _ => coarse.push(*point),
        }
        share = own;
    }
    coarse
}

/// Counts, sums and squares of the first points, so that those of a range are a difference.
struct Sums {
    count: Vec<f64>,
    sum: Vec<f64>,
    square: Vec<f64>,
}

impl Sums {
    fn of(points: &[Point]) -> Self {
        let running = |each: &dyn Fn(&Point) -> f64| {
            let mut total = 0.0;
            let further = points.iter().map(|p| {
                total += each(p);
                total
            });
            std::iter::once(0.0).chain(further).collect()
        };
        Sums {
            count: running(&|p| p.count),
            sum: running(&|p| p.sum),
            square: running(&|p| p.sum * p.mean()),
        }
    }

    /// Squared error of the points `from..to` around their mean.
    fn cost(&self, from: usize, to: usize) -> f64 {
        let sum = self.sum[to] - self.sum[from];
        let count = self.count[to] - self.count[from];
        self.square[to] - self.square[from] - sum * sum / count
    }

    /// The means of the ranges that end there.
    fn means(&self, ends: &[usize]) -> Vec<f64> {
        let starts = std::iter::once(&0).chain(ends);
        let mean = |(&from, &to): (&usize, &usize)| {
            (self.sum[to] - self.sum[from]) / (self.count[to] - self.count[from])
        };
        starts.zip(ends).map(mean).collect()
    }
}

/// The ends of the `k` ranges of `n > k` points with the least squared error.
fn best_ends(sums: &Sums, n: usize, k: usize) -> Vec<usize> {
    // `best[i]`: the least error of the first `i` points in the ranges so far; `starts[r][i]`: where the last of them begins.
    let mut best: Vec<f64> = (0..=n)
        .map(|i| if i == 0 { 0.0 } else { sums.cost(0, i) })
        .collect();
    let mut starts = vec![vec![0u32; n + 1]];
    for ranges in 2..=k {
        let mut step = DivideAndConquer {
            sums,
            before: &best,
            best: vec![f64::INFINITY; n + 1],
            starts: vec![0; n + 1],
        };
        step.solve(ranges, n, ranges - 1, n - 1);
        let (next, last) = (step.best, step.starts);
        best = next;
        starts.push(last);
    }
    let mut ends = vec![n];
    for last in starts[1..].iter().rev() {
        let end = ends[ends.len() - 1];
        ends.push(last[end] as usize);
    }
    ends.reverse();
    ends
}

/// One more range: for every number of points the best start of the last range. Starts do not move down as the number
/// grows, so that the middle number's start halves what is left to search on both sides.
struct DivideAndConquer<'a> {
    sums: &'a Sums,
    before: &'a [f64],
    best: Vec<f64>,
    starts: Vec<u32>,
}

impl DivideAndConquer<'_> {
    /// Numbers `low..=high`, whose starts are within `first..=last`.
    fn solve(&mut self, low: usize, high: usize, first: usize, last: usize) {
        if low > high {
            return;
        }
        let middle = low.midpoint(high);
        let (mut best, mut at) = (f64::INFINITY, first);
        for start in first..=last.min(middle - 1) {
            let error = self.before[start] + self.sums.cost(start, middle);
            if error < best {
                (best, at) = (error, start);
            }
        }
        self.best[middle] = best;
        self.starts[middle] = at as u32;
        self.solve(low, middle - 1, first, at);
        self.solve(middle + 1, high, at, last);
    }
}

/// Centers moved to the means of what is nearest to them until nothing changes.
fn settled(points: &[Point], mut centers: Vec<f64>) -> Vec<f64> {
    let sums = Sums::of(points);
    let means: Vec<f64> = points.iter().map(|p| p.mean()).collect();
    let mut ends = Vec::new();
    for _ in 0..ROUNDS {
        let middles = centers.windows(2).map(|pair| pair[0].midpoint(pair[1]));
        let mut next: Vec<usize> = middles
            .map(|m| means.partition_point(|&x| x <= m))
            .collect();
        next.push(points.len());
        if next == ends {
            break;
        }
        let moved = sums.means(&next);
        for (center, mean) in centers.iter_mut().zip(moved) {
            // A center that is nearest to nothing stays.
            if mean.is_finite() {
                *center = mean;
            }
        }
        ends = next;
    }
    centers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[(f64, f64)]) -> Vec<Point> {
        let point = |&(value, count): &(f64, f64)| Point {
            count,
            sum: value * count,
        };
        values.iter().map(point).collect()
    }

    fn error(points: &[Point], table: &[f32]) -> f64 {
        let nearest = |p: &Point| {
            let distances = table.iter().map(|&t| (p.mean() - f64::from(t)).powi(2));
            distances.fold(f64::INFINITY, f64::min) * p.count
        };
        points.iter().map(nearest).sum()
    }

    /// The least error over all ways to cut the points into `k` ranges.
    fn least(points: &[Point], k: usize) -> f64 {
        if k == 1 || points.len() <= 1 {
            return Sums::of(points).cost(0, points.len());
        }
        let cuts = 1..points.len();
        let rest = |at: usize| Sums::of(&points[..at]).cost(0, at) + least(&points[at..], k - 1);
        cuts.map(rest).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn the_error_is_the_least_of_all_ways_to_cut() {
        let mut state = 7u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 16) / 65536.0
        };
        for _ in 0..20 {
            let mut values: Vec<f64> = (0..14).map(|_| number() * number() - 0.3).collect();
            values.sort_by(f64::total_cmp);
            let points: Vec<Point> = points(
                &values
                    .iter()
                    .map(|&v| (v, (number() * 9.0).ceil()))
                    .collect::<Vec<_>>(),
            );
            let expected = least(&points, 4);
            let found = error(&points, &palette(&points, 4));
            assert!(found <= expected * (1.0 + 1e-6), "{found} {expected}");
        }
    }

    #[test]
    fn few_values_are_kept_as_they_are() {
        let points = points(&[(-1.5, 3.0), (0.25, 1.0), (2.0, 9.0)]);
        assert_eq!(palette(&points, 4), [-1.5, 0.25, 2.0, 2.0]);
    }

    #[test]
    fn values_of_patterns_are_those_of_ieee() {
        let f16 = [
            (0x0001, 2f64.powi(-24)),
            (0x3c00, 1.0),
            (0xc900, -10.0),
            (0x7bff, 65504.0),
        ];
        for (pattern, expected) in f16 {
            assert_eq!(value(pattern, DType::F16), expected);
        }
        assert_eq!(value(0xbf80, DType::BF16), -1.0);
    }

    #[test]
    fn coarse_points_hold_what_the_fine_ones_do() {
        let fine: Vec<(f64, f64)> = (0..1000)
            .map(|i| (f64::from(i).sqrt(), f64::from(i % 7 + 1)))
            .collect();
        let fine = points(&fine);
        let coarse = coarsened(&fine, 64);
        assert!(coarse.len() <= 65 && coarse.len() > 32);
        let total = |points: &[Point]| {
            points
                .iter()
                .fold((0.0, 0.0), |(c, s), p| (c + p.count, s + p.sum))
        };
        let (fine, coarse) = (total(&fine), total(&coarse));
        assert!(fine.0 == coarse.0 && (fine.1 - coarse.1).abs() < 1e-6);
    }
}
