//! Encoded weights in the forms that Core ML has for them (coremltools, `converters/mil/mil/ops/defs/iOS16/constexpr_ops.py` and
//! `iOS18/compression.py`):
//!
//! | encoding | iOS 16 and 17 | iOS 18 |
//! |---|---|---|
//! | 8 bits with scales, one group or one per index of one dimension | `constexpr_affine_dequantize` | `constexpr_blockwise_shift_scale` |
//! | 4 bits with scales, or blocks | none | `constexpr_blockwise_shift_scale` |
//! | palette of 1, 2, 4, 6 or 8 bits, one group | `constexpr_lut_to_dense`, indices packed in bytes | `constexpr_lut_to_dense` |
//! | palette of 3 bits, or of several groups | none | `constexpr_lut_to_dense` |

use std::sync::Arc;

use snapc_ir::{ByteBuffer, Codebook, DType, Encoding, LazyTensor};

use crate::level::Level;
use crate::proto::DataType;

/// Elements as a file of the package holds them.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// Element type in MIL.
    pub dtype: DataType,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// The bytes; elements below a byte are packed, the least significant bits first.
    pub bytes: LazyTensor,
}

impl Stored {
    /// Floats as they are; `None` for other elements.
    pub(crate) fn dense(tensor: &LazyTensor) -> Option<Self> {
        let dtype = match tensor.dtype() {
            DType::F16 => DataType::Float16,
            DType::F32 => DataType::Float32,
            _ => return None,
        };
        Some(Stored {
            dtype,
            shape: tensor.shape().to_vec(),
            bytes: tensor.clone(),
        })
    }

    /// Number of elements.
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// An encoded weight as an operation.
#[derive(Debug)]
pub(crate) struct Compressed {
    /// Name of the operation.
    pub operation: &'static str,
    /// Its parameters by name, which are attributes before iOS 18 and inputs from then on.
    pub parameters: Vec<(&'static str, Stored)>,
}

/// The form of an encoded weight at a level; `None` for a tensor that is not encoded.
///
/// # Errors
/// The reason when the level has no form for the encoding.
pub(crate) fn compressed(tensor: &LazyTensor, level: Level) -> Result<Option<Compressed>, String> {
    let (Some(encoding), Some(codes)) = (tensor.encoding(), tensor.codes()) else {
        return Ok(None);
    };
    let weight = Weight {
        codes,
        encoding,
        dtype: tensor.dtype(),
    };
    let form = match (encoding.codebook(), level >= Level::Ios18) {
        (Codebook::Affine { scale, zero_point }, true) => weight.blockwise(scale, zero_point),
        (Codebook::Affine { scale, zero_point }, false) => weight.affine(scale, zero_point),
        (Codebook::Palette { table }, true) => Ok(weight.palette(table)),
        (Codebook::Palette { table }, false) => weight.packed_palette(table),
    };
    form.map(Some)
}

/// The same weight under other dimensions that only add sizes of 1 at the end; it stays encoded.
///
/// # Panics
/// When `added` dimensions do not make a tensor, that is never for a weight.
pub(crate) fn with_trailing_ones(tensor: &LazyTensor, added: usize) -> LazyTensor {
    let ones = vec![1; added];
    let shape = [tensor.shape(), &ones].concat();
    let (Some(encoding), Some(codes)) = (tensor.encoding(), tensor.codes()) else {
        return tensor.clone().reshape(&shape);
    };
    let groups = [encoding.groups(), &ones].concat();
    let bits = encoding.bits();
    let encoding = match encoding.codebook().clone() {
        Codebook::Affine { scale, zero_point } => {
            Encoding::affine(bits, &groups, scale, zero_point)
        }
        Codebook::Palette { table } => Encoding::palette(bits, &groups, table),
    };
    let encoding = encoding.expect("the number of groups is the same");
    LazyTensor::from_codes(codes.reshape(&shape), Arc::new(encoding), tensor.dtype())
}

/// What the forms are made of.
struct Weight<'a> {
    /// One per byte.
    codes: LazyTensor,
    encoding: &'a Encoding,
    dtype: DType,
}

impl Weight<'_> {
    /// Scales and offsets of the rank of the data.
    fn blockwise(&self, scale: &[f32], zero_point: &[i8]) -> Result<Compressed, String> {
        let groups = self.encoding.groups();
        let data = match self.encoding.bits() {
            4 => DataType::Int4,
            _ => DataType::Int8,
        };
        let mut parameters = vec![
            ("data", self.stored_codes(data)),
            ("scale", self.floats(scale, groups)?),
        ];
        if !zero_point.is_empty() {
            let bytes = signed(zero_point, groups);
            let bytes = match data {
                DataType::Int4 => bytes.pack(4),
                _ => bytes,
            };
            let shape = groups.to_vec();
            let offset = Stored {
                dtype: data,
                shape,
                bytes,
            };
            parameters.push(("offset", offset));
        }
        Ok(Compressed {
            operation: "constexpr_blockwise_shift_scale",
            parameters,
        })
    }

    /// A scale and a zero point for all elements, or for each index along one axis.
    fn affine(&self, scale: &[f32], zero_point: &[i8]) -> Result<Compressed, String> {
        let (groups, shape) = (self.encoding.groups(), self.codes.shape());
        let mut cut = (0..groups.len()).filter(|&d| groups[d] > 1);
        let axis = cut.next();
        let is_one_axis = cut.next().is_none() && axis.is_none_or(|d| groups[d] == shape[d]);
        if self.encoding.bits() != 8 || !is_one_axis {
            return Err(self.needs_ios_18("codes"));
        }
        let vector: &[usize] = match axis {
            Some(_) => &[scale.len()],
            None => &[],
        };
        let zero_point = match zero_point {
            [] => vec![0; scale.len()],
            given => given.to_vec(),
        };
        let zero_point = Stored {
            dtype: DataType::Int8,
            shape: vector.to_vec(),
            bytes: signed(&zero_point, vector),
        };
        let axis = i32::try_from(axis.unwrap_or(0)).expect("a tensor has few dimensions");
        let axis = Stored {
            dtype: DataType::Int32,
            shape: Vec::new(),
            bytes: LazyTensor::from_i32(&[], &[axis]),
        };
        let parameters = vec![
            ("quantized_data", self.stored_codes(DataType::Int8)),
            ("scale", self.floats(scale, vector)?),
            ("zero_point", zero_point),
            ("axis", axis),
        ];
        Ok(Compressed {
            operation: "constexpr_affine_dequantize",
            parameters,
        })
    }

    /// Indices in the weight's dimensions; the table has a number of groups for each of them, entries, and the length of an
    /// entry.
    fn palette(&self, table: &[f32]) -> Compressed {
        let entries = [1 << self.encoding.bits(), 1];
        let shape = [self.encoding.groups(), &entries].concat();
        let parameters = vec![
            ("indices", self.stored_codes(self.index_type())),
            ("lut", self.rounded(table, &shape)),
        ];
        Compressed {
            operation: "constexpr_lut_to_dense",
            parameters,
        }
    }

    /// One table; the indices are packed into a vector of bytes, and the weight's dimensions are a parameter.
    fn packed_palette(&self, table: &[f32]) -> Result<Compressed, String> {
        let bits = self.encoding.bits();
        if bits == 3 || self.encoding.groups().iter().any(|&g| g > 1) {
            return Err(self.needs_ios_18("entries of palettes"));
        }
        let packed = self.codes.clone().pack(bits);
        let indices = Stored {
            dtype: DataType::UInt8,
            shape: packed.shape().to_vec(),
            bytes: packed,
        };
        let sizes = self.codes.shape().iter().map(|&n| {
            let n = u32::try_from(n).expect("lowering refuses dimensions beyond 31 bits");
            n.to_le_bytes()
        });
        let sizes: Vec<u8> = sizes.flatten().collect();
        let shape = Stored {
            dtype: DataType::UInt32,
            shape: vec![self.codes.shape().len()],
            bytes: LazyTensor::from_u8(&[sizes.len()], &sizes),
        };
        let parameters = vec![
            ("indices", indices),
            ("lut", self.rounded(table, &[table.len()])),
            ("shape", shape),
        ];
        Ok(Compressed {
            operation: "constexpr_lut_to_dense",
            parameters,
        })
    }

    fn index_type(&self) -> DataType {
        match self.encoding.bits() {
            1 => DataType::UInt1,
            2 => DataType::UInt2,
            3 => DataType::UInt3,
            4 => DataType::UInt4,
            6 => DataType::UInt6,
            _ => DataType::UInt8,
        }
    }

    /// The codes in the weight's dimensions, packed when they are below a byte.
    fn stored_codes(&self, dtype: DataType) -> Stored {
        let bytes = match self.encoding.bits() {
            8 => self.codes.clone(),
            bits => self.codes.clone().pack(bits),
        };
        Stored {
            dtype,
            shape: self.codes.shape().to_vec(),
            bytes,
        }
    }

    /// Scales in the weight's element type.
    ///
    /// # Errors
    /// When one is zero there: its elements would all be zero.
    fn floats(&self, scale: &[f32], shape: &[usize]) -> Result<Stored, String> {
        let vanishes = |s: f32| s != 0.0 && half::f16::from_f32(s) == half::f16::ZERO;
        if let (DType::F16, Some(s)) = (self.dtype, scale.iter().find(|&&s| vanishes(s))) {
            return Err(format!(
                "its scale {s:e} is zero in f16; use --precision f32"
            ));
        }
        Ok(self.rounded(scale, shape))
    }

    /// Floats in the weight's element type.
    fn rounded(&self, values: &[f32], shape: &[usize]) -> Stored {
        let dtype = match self.dtype {
            DType::F16 => DataType::Float16,
            _ => DataType::Float32,
        };
        Stored {
            dtype,
            shape: shape.to_vec(),
            bytes: LazyTensor::from_f32(shape, values).cast(self.dtype),
        }
    }

    fn needs_ios_18(&self, what: &str) -> String {
        let (bits, groups) = (self.encoding.bits(), self.encoding.groups());
        format!("{what} of {bits} bits in groups {groups:?} need iOS 18; use --min-ios 18")
    }
}

fn signed(values: &[i8], shape: &[usize]) -> LazyTensor {
    let bytes: Vec<u8> = values.iter().map(|v| v.cast_unsigned()).collect();
    let range = 0..bytes.len();
    let buffer: ByteBuffer = Arc::new(bytes);
    LazyTensor::from_buffer(buffer, range, DType::I8, shape)
}
