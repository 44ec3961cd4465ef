//! Buffers of features: bytes in the element types of the package, values as the engine takes and gives them.

use half::f16;
use snapc_coreml::ArrayFeature;
use snapc_ir::DType;
use snapc_pipeline::{Data, PortType};

use crate::failure::Failure;

/// Whether a feature goes in or comes out, as messages say it.
pub(crate) const INPUT: &str = "input";
/// As [`INPUT`].
pub(crate) const OUTPUT: &str = "output";

/// Values of an input.
#[derive(Debug)]
pub(crate) enum Values {
    F32(Vec<f32>),
    I32(Vec<i32>),
}

impl Values {
    pub(crate) fn data(&self) -> Data<'_> {
        match self {
            Self::F32(values) => Data::F32(values),
            Self::I32(values) => Data::I32(values),
        }
    }
}

/// Number of values of a feature; `None` when they cannot be counted.
pub(crate) fn count(feature: &ArrayFeature) -> Option<usize> {
    let mut sizes = feature.shape.iter();
    sizes.try_fold(1usize, |count, &size| count.checked_mul(size))
}

/// Bytes of a feature's buffer. Values that cannot be counted have no buffer that is long enough.
fn bytes(feature: &ArrayFeature) -> usize {
    let count = count(feature).unwrap_or(usize::MAX);
    count.saturating_mul(feature.dtype.size())
}

/// The position of a named feature in the model's list.
///
/// # Errors
/// When there is none.
pub(crate) fn find(
    kind: &'static str,
    features: &[ArrayFeature],
    name: &str,
) -> Result<usize, Failure> {
    let found = features.iter().position(|feature| feature.name == name);
    found.ok_or_else(|| {
        let known = features.iter().map(|f| format!("'{}'", f.name));
        Failure::Unknown {
            kind,
            name: name.to_owned(),
            known: known.collect::<Vec<_>>().join(", "),
        }
    })
}

/// Checks the length of a feature's buffer.
///
/// # Errors
/// When it is not that of the feature's values.
pub(crate) fn check_bytes(
    kind: &'static str,
    feature: &ArrayFeature,
    found: usize,
) -> Result<(), Failure> {
    let expected = bytes(feature);
    match found == expected {
        true => Ok(()),
        false => Err(Failure::Bytes {
            kind,
            name: feature.name.clone(),
            dtype: feature.dtype,
            shape: feature.shape.clone(),
            expected,
            found,
        }),
    }
}

/// The values in an input's buffer of the right length, as the port takes them. f16 and f32 become f32 without rounding; floats
/// for a port of integers, which the package only casts to integers, are cast as it does: toward zero.
///
/// # Errors
/// When such a float is not finite or out of range.
pub(crate) fn decode(
    feature: &ArrayFeature,
    port: PortType,
    buffer: &[u8],
) -> Result<Values, Failure> {
    let floats: Vec<f32> = match feature.dtype {
        DType::F16 => {
            let (words, _) = buffer.as_chunks::<2>();
            let halves = words.iter().map(|word| f16::from_le_bytes(*word));
            halves.map(f16::to_f32).collect()
        }
        DType::F32 => {
            let (words, _) = buffer.as_chunks::<4>();
            words.iter().map(|word| f32::from_le_bytes(*word)).collect()
        }
        _ => {
            let (words, _) = buffer.as_chunks::<4>();
            let integers = words.iter().map(|word| i32::from_le_bytes(*word));
            return Ok(Values::I32(integers.collect()));
        }
    };
    if port == PortType::F32 {
        return Ok(Values::F32(floats));
    }
    let integers = floats.iter().enumerate().map(|(index, &value)| {
        integer(value).ok_or_else(|| Failure::NotAnInteger {
            name: feature.name.clone(),
            index,
            value,
        })
    });
    Ok(Values::I32(integers.collect::<Result<_, _>>()?))
}

/// The integer that a float is cast to.
fn integer(value: f32) -> Option<i32> {
    // Both bounds are floats exactly; the upper one is the first that is too large.
    const RANGE: std::ops::Range<f32> = -2_147_483_648.0..2_147_483_648.0;
    RANGE.contains(&value).then_some(value as i32)
}

/// The bytes of an output. The engine has rounded values of f16 already, so that nothing is lost; an image's program makes whole
/// levels.
pub(crate) fn encode(feature: &ArrayFeature, values: &[f32]) -> Vec<u8> {
    match feature.dtype {
        DType::F16 => {
            let halves = values.iter().map(|&value| f16::from_f32(value));
            halves.flat_map(f16::to_le_bytes).collect()
        }
        // The cast cuts off at 0 and 255.
        DType::U8 => values.iter().map(|v| v.round_ties_even() as u8).collect(),
        _ => values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(dtype: DType) -> ArrayFeature {
        ArrayFeature {
            name: "x".to_owned(),
            dtype,
            shape: vec![2],
        }
    }

    // The halves are from the definition of binary16.
    #[test]
    fn halves_keep_their_value() {
        let bytes = [0x00, 0x3c, 0xff, 0x7b];
        let values = decode(&feature(DType::F16), PortType::F32, &bytes);
        let Ok(Values::F32(values)) = values else {
            panic!("{values:?}")
        };
        assert_eq!(values, [1.0, 65504.0]);
        assert_eq!(encode(&feature(DType::F16), &values), bytes);
    }

    #[test]
    fn floats_are_cast_toward_zero_where_they_can_be() {
        let decode = |pair: [f32; 2]| {
            let bytes = pair.map(f32::to_le_bytes).concat();
            decode(&feature(DType::F32), PortType::I32, &bytes)
        };
        let Ok(Values::I32(values)) = decode([-1.75, 49407.0]) else {
            panic!("not cast")
        };
        assert_eq!(values, [-1, 49407]);
        for (pair, index) in [([f32::NAN, 0.0], 0), ([0.0, 2_147_483_648.0], 1)] {
            let error = decode(pair).map(|_| ()).map_err(|e| e.to_string());
            let start = format!("value {index} of input 'x' is ");
            assert!(error.is_err_and(|e| e.starts_with(&start)), "{pair:?}");
        }
    }

    #[test]
    fn levels_of_an_image_are_whole_and_cut_off() {
        let values = [-1.0, 0.0, 127.5, 128.5, 254.75, 300.0, f32::NAN];
        let levels = [0, 0, 128, 128, 255, 255, 0];
        assert_eq!(encode(&feature(DType::U8), &values), levels);
    }

    #[test]
    fn a_length_must_be_that_of_the_shape() {
        assert!(check_bytes(INPUT, &feature(DType::I32), 8).is_ok());
        let error = check_bytes(OUTPUT, &feature(DType::F16), 8).map_err(|e| e.to_string());
        let expected = "output 'x' is f16[2], which takes 4 bytes, not 8";
        assert_eq!(error, Err(expected.to_owned()));
        let endless = ArrayFeature {
            shape: vec![usize::MAX, usize::MAX],
            ..feature(DType::F16)
        };
        assert!(check_bytes(INPUT, &endless, 4).is_err());
    }
}
