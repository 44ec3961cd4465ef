//! Constants as the file holds them, before they become weights of the graph.

use std::ops::Range;
use std::sync::Arc;

use snapc_ir::{ByteBuffer, DType, LazyTensor};

use super::element::{bits, float, integer, is_float, packed_bytes};
use super::error::Fault;
use super::weight_file::WeightFiles;
use crate::proto::{Content, DataType, Elements, Extent, Value, ValueType};

/// Dimensions of a value; MIL has five at most.
const MAX_RANK: usize = 8;

/// Elements of a type and shape, in a mapped file or an owned buffer.
#[derive(Clone)]
pub(super) struct Constant {
    pub(super) dtype: DataType,
    pub(super) shape: Vec<usize>,
    /// Whether it is a weight of the network, rather than a setting of an operation.
    pub(super) is_weight: bool,
    buffer: ByteBuffer,
    range: Range<usize>,
}

/// What a [`Value`] of the file holds.
pub(super) enum Literal {
    Tensor(Constant),
    Word(String),
}

impl Constant {
    /// A constant over bytes of a buffer.
    ///
    /// # Errors
    /// When the range has not the size of the elements.
    pub(super) fn new(
        dtype: DataType,
        shape: Vec<usize>,
        (buffer, range): (ByteBuffer, Range<usize>),
        is_weight: bool,
    ) -> Result<Self, Fault> {
        let size = elements(&shape).and_then(|n| packed_bytes(dtype, n));
        if size != Some(range.len()) || range.end > (*buffer).as_ref().len() {
            let found = range.len();
            return Err(Fault::malformed(format!(
                "{found} bytes do not hold {dtype:?}{shape:?}"
            )));
        }
        Ok(Constant {
            dtype,
            shape,
            is_weight,
            buffer,
            range,
        })
    }

    /// A constant over bytes of its own.
    ///
    /// # Errors
    /// As [`Constant::new`].
    pub(super) fn owned(
        dtype: DataType,
        shape: Vec<usize>,
        bytes: Vec<u8>,
        is_weight: bool,
    ) -> Result<Self, Fault> {
        let range = 0..bytes.len();
        Constant::new(dtype, shape, (Arc::new(bytes), range), is_weight)
    }

    /// The floats that a tensor stored as codes stands for.
    ///
    /// # Errors
    /// When one is beyond the element type.
    pub(super) fn dense(tensor: &LazyTensor) -> Result<Self, Fault> {
        let dtype = match tensor.dtype() {
            DType::F16 => DataType::Float16,
            _ => DataType::Float32,
        };
        let bytes = tensor
            .bytes()
            .map_err(|e| Fault::malformed(e.to_string()))?;
        Constant::owned(dtype, tensor.shape().to_vec(), bytes.into_owned(), true)
    }

    /// The elements as codes of a byte each, in their place in the file when they are packed there.
    ///
    /// # Errors
    /// When they are no integers of at most 8 bits.
    pub(super) fn codes(&self, dtype: DType) -> Result<LazyTensor, Fault> {
        let bits = bits(self.dtype).filter(|bits| *bits <= 8);
        let bits = bits
            .ok_or_else(|| Fault::malformed(format!("{:?} elements are no codes", self.dtype)))?;
        let (buffer, range) = (self.buffer.clone(), self.range.clone());
        if bits == 8 {
            return Ok(LazyTensor::from_buffer(buffer, range, dtype, &self.shape));
        }
        let packed = [range.len()];
        let packed = LazyTensor::from_buffer(buffer, range, DType::U8, &packed);
        Ok(packed.unpack(bits as u32, dtype, &self.shape))
    }

    /// The same elements under other dimensions.
    ///
    /// # Errors
    /// When their number differs.
    pub(super) fn reshaped(&self, shape: Vec<usize>) -> Result<Self, Fault> {
        let place = (self.buffer.clone(), self.range.clone());
        Constant::new(self.dtype, shape, place, self.is_weight)
    }

    /// The same bytes as elements of another type and shape.
    ///
    /// # Errors
    /// When they do not hold so many.
    pub(super) fn reinterpreted(&self, dtype: DataType, shape: Vec<usize>) -> Result<Self, Fault> {
        let place = (self.buffer.clone(), self.range.clone());
        Constant::new(dtype, shape, place, self.is_weight)
    }

    /// The elements as stored.
    pub(super) fn bytes(&self) -> &[u8] {
        &(*self.buffer).as_ref()[self.range.clone()]
    }

    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The elements of an integer constant.
    ///
    /// # Errors
    /// When they are floats.
    pub(super) fn integers(&self) -> Result<Vec<i64>, Fault> {
        let at = integer(self.dtype).ok_or_else(|| {
            Fault::malformed(format!("{:?} elements are no integers", self.dtype))
        })?;
        Ok((0..self.len()).map(|i| at(self.bytes(), i)).collect())
    }

    /// The elements as floats.
    ///
    /// # Errors
    /// When they are no numbers.
    pub(super) fn floats(&self) -> Result<Vec<f32>, Fault> {
        let at = float(self.dtype)
            .ok_or_else(|| Fault::malformed(format!("{:?} elements are no floats", self.dtype)))?;
        Ok((0..self.len()).map(|i| at(self.bytes(), i)).collect())
    }

    /// The constant as a tensor of the IR: floats as they are stored, all integers as i32.
    ///
    /// # Errors
    /// When an integer is beyond 32 bits.
    pub(super) fn tensor(&self) -> Result<LazyTensor, Fault> {
        let stored = match self.dtype {
            DataType::Float16 => Some(DType::F16),
            DataType::Float32 => Some(DType::F32),
            DataType::BFloat16 => Some(DType::BF16),
            DataType::Int32 => Some(DType::I32),
            DataType::Bool => Some(DType::Bool),
            _ => None,
        };
        if let Some(dtype) = stored {
            let (buffer, range) = (self.buffer.clone(), self.range.clone());
            return Ok(LazyTensor::from_buffer(buffer, range, dtype, &self.shape));
        }
        if is_float(self.dtype) {
            return Ok(LazyTensor::from_f32(&self.shape, &self.floats()?));
        }
        let integers = self.integers()?.into_iter().map(i32::try_from);
        let integers = integers.collect::<Result<Vec<i32>, _>>();
        let integers = integers.map_err(|_| Fault::unsupported("an integer is beyond 32 bits"))?;
        Ok(LazyTensor::from_i32(&self.shape, &integers))
    }
}

/// Number of elements of a shape; `None` on overflow.
pub(super) fn elements(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |n, &size| n.checked_mul(size))
}

/// Element type and dimensions of a declared type.
///
/// # Errors
/// When it is no tensor of known dimensions, or an empty one.
pub(super) fn declared(ty: Option<&ValueType>) -> Result<(DataType, Vec<usize>), Fault> {
    let ty = ty.and_then(|t| t.tensor.as_ref());
    let ty = ty.ok_or_else(|| {
        Fault::unsupported("its type is no tensor; convert without states, lists and images")
    })?;
    let dtype = DataType::try_from(ty.data_type).ok();
    let dtype = dtype.filter(|d| *d == DataType::String || bits(*d).is_some());
    let dtype = dtype.ok_or_else(|| {
        Fault::unsupported(format!("element type {} has no form here", ty.data_type))
    })?;
    if ty.dimensions.len() > MAX_RANK || usize::try_from(ty.rank) != Ok(ty.dimensions.len()) {
        let (rank, found) = (ty.rank, ty.dimensions.len());
        return Err(Fault::malformed(format!(
            "rank {rank} with {found} dimensions"
        )));
    }
    let size = |d: &crate::proto::Dimension| match &d.extent {
        Some(Extent::Constant(c)) => usize::try_from(c.size).ok(),
        _ => None,
    };
    let shape: Option<Vec<usize>> = ty.dimensions.iter().map(size).collect();
    let shape = shape.ok_or_else(|| {
        Fault::unsupported("a dimension has no fixed size; convert with fixed shapes")
    })?;
    // A vector may be empty (no axes, say); sizes beside a zero could not be counted.
    let is_empty = shape.contains(&0) && shape.len() > 1;
    if is_empty || elements(&shape).and_then(|n| n.checked_mul(8)).is_none() {
        return Err(Fault::malformed(format!(
            "shape {shape:?} is empty or cannot be counted"
        )));
    }
    Ok((dtype, shape))
}

/// The constant that a value of the file holds.
///
/// # Errors
/// When its elements do not fit its type, or its blob cannot be read.
pub(super) fn literal(value: &Value, files: &mut WeightFiles) -> Result<Literal, Fault> {
    let (dtype, shape) = declared(value.ty.as_ref())?;
    let count = elements(&shape).ok_or_else(|| Fault::malformed("its size cannot be counted"))?;
    let immediate = match &value.content {
        Some(Content::BlobFile(blob)) => {
            let place = files.blob(blob, dtype, count)?;
            return Ok(Literal::Tensor(Constant::new(dtype, shape, place, true)?));
        }
        Some(Content::Immediate(immediate)) => immediate,
        None => return Err(Fault::malformed("its value is empty")),
    };
    let elements = immediate.tensor.as_ref().and_then(|t| t.elements.as_ref());
    let Some(elements) = elements else {
        // An empty list of a oneof is not written at all.
        return Ok(Literal::Tensor(Constant::owned(
            dtype,
            shape,
            Vec::new(),
            false,
        )?));
    };
    if dtype == DataType::String {
        return word(elements).map(Literal::Word);
    }
    let bytes = raw_bytes(dtype, elements)
        .ok_or_else(|| Fault::malformed(format!("{dtype:?} elements stand in another field")))?;
    // Short biases stand in place.
    let is_weight = is_float(dtype) && !shape.is_empty();
    Ok(Literal::Tensor(Constant::owned(
        dtype, shape, bytes, is_weight,
    )?))
}

fn word(elements: &Elements) -> Result<String, Fault> {
    match elements {
        Elements::Strings(list) if list.values.len() == 1 => Ok(list.values[0].clone()),
        _ => Err(Fault::malformed("it is not one string")),
    }
}

/// Elements in place as the weight file would hold them.
fn raw_bytes(dtype: DataType, elements: &Elements) -> Option<Vec<u8>> {
    use DataType as D;
    match (dtype, elements) {
        (D::Float32, Elements::Floats(v)) => Some(flat(&v.values, |x| x.to_le_bytes())),
        (D::Float64, Elements::Doubles(v)) => Some(flat(&v.values, |x| x.to_le_bytes())),
        (D::Int32, Elements::Ints(v)) => Some(flat(&v.values, |x| x.to_le_bytes())),
        (D::Int16, Elements::Ints(v)) => {
            narrowed(&v.values, |x| Some(i16::try_from(x).ok()?.to_le_bytes()))
        }
        (D::UInt16, Elements::Ints(v)) => {
            narrowed(&v.values, |x| Some(u16::try_from(x).ok()?.to_le_bytes()))
        }
        (D::Int8, Elements::Ints(v)) => {
            narrowed(&v.values, |x| Some(i8::try_from(x).ok()?.to_le_bytes()))
        }
        (D::UInt8, Elements::Ints(v)) => {
            narrowed(&v.values, |x| Some(u8::try_from(x).ok()?.to_le_bytes()))
        }
        (D::Int64 | D::UInt64, Elements::LongInts(v)) => Some(flat(&v.values, |x| x.to_le_bytes())),
        (D::Bool, Elements::Bools(v)) => Some(v.values.iter().map(|&b| u8::from(b)).collect()),
        (D::Bool, _) => None,
        (_, Elements::Bytes(v)) => Some(v.values.clone()),
        _ => None,
    }
}

fn flat<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&x| bytes(x)).collect()
}

fn narrowed<const N: usize>(
    values: &[i32],
    bytes: impl Fn(i32) -> Option<[u8; N]>,
) -> Option<Vec<u8>> {
    let bytes: Option<Vec<[u8; N]>> = values.iter().map(|&x| bytes(x)).collect();
    bytes.map(|b| b.concat())
}
