//! Element types of models, and the way from and to those of a pipeline.

use half::f16;
use half::slice::HalfFloatSliceExt;
use ort::session::SessionInputValue;
use ort::value::{DynValue, Tensor, TensorElementType, TensorRef};
use snapc_pipeline::{Data, PortType};

/// Element type of an input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F16,
    I32,
    I64,
}

impl Element {
    pub(crate) fn new(ty: TensorElementType) -> Option<Self> {
        match ty {
            TensorElementType::Float32 => Some(Self::F32),
            TensorElementType::Float16 => Some(Self::F16),
            TensorElementType::Int32 => Some(Self::I32),
            TensorElementType::Int64 => Some(Self::I64),
            _ => None,
        }
    }

    /// The type that the caller sees.
    pub(crate) fn port_type(self) -> PortType {
        match self {
            Self::F32 | Self::F16 => PortType::F32,
            Self::I32 | Self::I64 => PortType::I32,
        }
    }

    /// A tensor of this type; without conversion it borrows the values. `None` when the data are of the other
    /// [`PortType`].
    pub(crate) fn tensor<'a>(
        self,
        dims: Vec<usize>,
        data: Data<'a>,
    ) -> Option<ort::Result<SessionInputValue<'a>>> {
        Some(match (self, data) {
            (Self::F32, Data::F32(values)) => {
                TensorRef::from_array_view((dims, values)).map(Into::into)
            }
            (Self::F16, Data::F32(values)) => {
                let mut halves = vec![f16::ZERO; values.len()];
                halves.convert_from_f32_slice(values);
                Tensor::from_array((dims, halves)).map(Into::into)
            }
            (Self::I32, Data::I32(values)) => {
                TensorRef::from_array_view((dims, values)).map(Into::into)
            }
            (Self::I64, Data::I32(values)) => {
                let wide: Vec<i64> = values.iter().map(|&value| value.into()).collect();
                Tensor::from_array((dims, wide)).map(Into::into)
            }
            (Self::F32 | Self::F16, Data::I32(_)) | (Self::I32 | Self::I64, Data::F32(_)) => {
                return None;
            }
        })
    }

    /// Writes a float tensor over `values` and gives its number of values; nothing is written when that is another.
    pub(crate) fn read(self, tensor: &DynValue, values: &mut [f32]) -> ort::Result<usize> {
        if self == Self::F16 {
            let (_, found) = tensor.try_extract_tensor::<f16>()?;
            if found.len() == values.len() {
                found.convert_to_f32_slice(values);
            }
            return Ok(found.len());
        }
        let (_, found) = tensor.try_extract_tensor::<f32>()?;
        if found.len() == values.len() {
            values.copy_from_slice(found);
        }
        Ok(found.len())
    }
}
