use super::*;

fn counting(shape: &[usize]) -> LazyTensor {
    let n: usize = shape.iter().product();
    LazyTensor::from_f32(shape, &(0..n).map(|i| i as f32).collect::<Vec<_>>())
}

fn streamed(t: &LazyTensor) -> Vec<u8> {
    let mut out = Vec::new();
    t.stream::<WeightError>(|b| {
        out.extend_from_slice(b);
        Ok(())
    })
    .unwrap();
    out
}

#[test]
fn moves_compose() {
    let t = counting(&[2, 3]).permute(&[1, 0]);
    assert_eq!(t.to_f32().unwrap(), [0., 3., 1., 4., 2., 5.]);
    let t = counting(&[2, 3, 2]).permute(&[2, 0, 1]).slice(2, 1, 2);
    assert_eq!(t.shape(), [2, 2, 1]);
    assert_eq!(t.to_f32().unwrap(), [2., 8., 3., 9.]);
    let t = counting(&[4, 2]).slice(0, 1, 3).reshape(&[4]);
    assert!(t.transforms().len() == 1 && t.to_f32().unwrap() == [2., 3., 4., 5.]);
}

#[test]
fn large_transpose_agrees_with_index_arithmetic() {
    let t = counting(&[67, 45]).permute(&[1, 0]).to_f32().unwrap();
    for r in 0..67 {
        for c in 0..45 {
            assert_eq!(t[c * 67 + r], (r * 45 + c) as f32);
        }
    }
}

#[test]
fn streaming_gives_the_same_bytes() {
    let n = CHUNK + 17;
    let data: Vec<f32> = (0..n).map(|i| (i % 1000) as f32 * 0.25).collect();
    let t = LazyTensor::from_f32(&[n], &data).cast(DType::F16);
    assert_eq!(streamed(&t), t.bytes().unwrap().as_ref());
    assert_eq!(t.byte_len(), 2 * n);
}

#[test]
fn rows_made_piece_by_piece_are_those_of_the_whole() {
    // A convolution's weight as its kernel reads it: channels last, in panels; more rows than a piece holds.
    let weight = counting(&[75, 700, 3, 3]).cast(DType::BF16);
    let panels = weight.clone().permute(&[0, 2, 3, 1]).panels(32);
    assert_eq!(panels.shape(), [3, 6300, 32]);
    assert_eq!(panels.row_block(), Some(32));
    assert!(streamed(&panels) == *panels.bytes().unwrap());
    let flat = panels.reshape(&[3, 6300 * 32]).slice(1, 5, 900);
    assert_eq!(flat.row_block(), Some(32));
    assert!(streamed(&flat) == *flat.bytes().unwrap());
    for mixed in [
        weight.clone().permute(&[1, 0, 2, 3]),
        weight.clone().reshape(&[150, 350 * 9]).panels(32),
        weight.panels(5).panels(2),
    ] {
        assert_eq!(mixed.row_block(), None);
        assert!(streamed(&mixed) == *mixed.bytes().unwrap());
    }
}

#[test]
fn packed_codes_made_piece_by_piece_are_those_of_the_whole() {
    let table: Vec<f32> = (0..64).map(|i| i as f32 * 7000.0).collect();
    let palette = Arc::new(Encoding::palette(6, &[1, 1], table).unwrap());
    // Rows of an odd number of codes, and more of them than a piece holds.
    let packed = counting(&[1001, 453])
        .encode(palette)
        .codes()
        .unwrap()
        .pack(6);
    assert_eq!(packed.row_block(), Some(8));
    assert_eq!(packed.byte_len(), (1001 * 453 * 6usize).div_ceil(8));
    assert!(streamed(&packed) == *packed.bytes().unwrap());
    assert_eq!(packed.reshape(&[1, 340_090]).row_block(), None);
}

#[test]
fn combinations_are_sums_along_an_axis() {
    // Columns 0, 1, 2 of each row as 10 times the first, and the sum of the others.
    let matrix = [10.0, 0.0, 0.0, 0.0, 1.0, 1.0];
    let t = counting(&[2, 3]).combine(1, &matrix);
    assert_eq!(t.shape(), [2, 2]);
    assert_eq!(t.to_f32().unwrap(), [0., 3., 30., 9.]);
    let rows = counting(&[2, 3]).combine(0, &[1.0, -1.0]);
    assert_eq!(rows.to_f32().unwrap(), [-3., -3., -3.]);
    // The sum is rounded, not its terms: 2048 + 1 + 1 in f16.
    let halves = LazyTensor::from_f32(&[1, 3], &[2048.0, 1.0, 1.0]).cast(DType::F16);
    let sum = halves.combine(1, &[1.0; 3]);
    assert_eq!(sum.to_f32().unwrap(), [2050.0]);
    let large = counting(&[CHUNK / 4, 9]).combine(1, &[0.5; 36]);
    assert_eq!(large.row_block(), Some(1));
    assert!(streamed(&large) == *large.bytes().unwrap());
}

#[test]
fn panels_hold_a_column_after_the_other() {
    let t = counting(&[3, 2]).panels(2);
    assert_eq!(t.shape(), [2, 2, 2]);
    assert_eq!(t.to_f32().unwrap(), [0., 2., 1., 3., 4., 0., 5., 0.]);
}

#[test]
fn packed_rows_are_made_piece_by_piece() {
    let weight = counting(&[75, 700, 3, 3]).cast(DType::BF16);
    let scale = (0..75).map(|i| 4000.0 + i as f32).collect();
    let encoding = Encoding::affine(4, &[75, 1, 1, 1], scale, Vec::new()).unwrap();
    let codes = weight.encode(Arc::new(encoding)).codes().unwrap();
    let rows = codes.permute(&[0, 2, 3, 1]).panels(32).pack_rows(4);
    assert_eq!(
        (rows.shape(), rows.dtype()),
        (&[3, 6300, 16][..], DType::U8)
    );
    assert_eq!(rows.row_block(), Some(32));
    assert!(streamed(&rows) == *rows.bytes().unwrap());
}

#[test]
fn an_overflow_in_a_later_piece_has_its_own_position() {
    let rows = CHUNK / 64 + 3;
    let mut data = vec![0.0; rows * 64];
    data[64 * (rows - 1) + 7] = 1e6;
    let t = LazyTensor::from_f32(&[rows, 64], &data)
        .cast(DType::F16)
        .panels(2);
    let error = t.stream::<WeightError>(|_| Ok(())).unwrap_err();
    let expected = 64 * (rows - 1) + 7;
    assert!(matches!(error, WeightError::Overflow { index, .. } if index == expected));
}

#[test]
fn widening_and_narrowing_again_is_nothing() {
    let half = counting(&[8]).cast(DType::F16);
    let again = half.clone().cast(DType::F32).cast(DType::F16);
    assert_eq!(again.transforms(), half.transforms());
    let rounded = counting(&[8]).cast(DType::F16).cast(DType::F32);
    assert_eq!(rounded.transforms().len(), 2);
}

#[test]
fn overflow_is_an_error_and_rounding_is_to_even() {
    let t = LazyTensor::from_f32(&[2], &[1.0, 65520.0]).cast(DType::F16);
    assert_eq!(
        t.bytes().unwrap_err(),
        WeightError::Overflow {
            value: 65520.0,
            index: 1,
            dtype: DType::F16
        }
    );
    // 2049 lies between 2048 and 2050; the even mantissa is 2048.
    let t = LazyTensor::from_f32(&[2], &[2049.0, 65519.0]).cast(DType::F16);
    assert_eq!(t.to_f32().unwrap(), [2048.0, 65504.0]);
}

#[test]
fn moved_and_widened_weights_are_exact_in_their_stored_type() {
    let half = LazyTensor::from_f32(&[2], &[1.0, 2.0]).cast(DType::F16);
    let stored = LazyTensor::from_buffer(
        Arc::new(half.bytes().unwrap().into_owned()),
        0..4,
        DType::F16,
        &[2],
    );
    let wide = stored.clone().cast(DType::F32);
    assert_eq!(wide.exact_dtype(), DType::F16);
    assert_eq!(wide.clone().select(0, &[1]).exact_dtype(), DType::F16);
    assert_eq!(wide.scale(0, &[2.0, 1.0]).exact_dtype(), DType::F32);
    assert_eq!(half.exact_dtype(), DType::F16);
    let other = stored.cast(DType::F32).cast(DType::BF16);
    assert_eq!(other.exact_dtype(), DType::BF16);
}

#[test]
fn absent_data_is_an_error() {
    let t = LazyTensor::absent(DType::F32, &[2]);
    assert_eq!(t.bytes().unwrap_err(), WeightError::Absent);
}
