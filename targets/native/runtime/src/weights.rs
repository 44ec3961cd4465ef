//! Where the weights of a graph are in the file, checked when it is opened and borrowed from it when they are used.

use snapc_format::{Container, DType, LayoutId, Stage};
use snapc_kernels::Weights;
use snapc_program::{Storage, Weight};

use crate::error::WeightFault;

/// The data of a weight within the segments of its stage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Location {
    dtype: DType,
    part: usize,
    start: usize,
    end: usize,
}

/// Finds a weight and checks shape, arrangement, type and alignment. Its data are not touched.
pub(crate) fn locate(
    container: &Container,
    stage: Stage,
    weight: &Weight,
) -> Result<Location, WeightFault> {
    let view = container.tensor(stage, &weight.name);
    let view = view.map_err(|_| WeightFault::Missing)?;
    let expected: Vec<u64> = match weight.storage {
        Storage::Codes(codes) => codes.packed_dims(&weight.dims).to_vec(),
        _ => weight.dims.iter().map(|&n| n.into()).collect(),
    };
    if view.shape() != expected {
        return Err(WeightFault::Shape {
            expected,
            found: view.shape().to_vec(),
        });
    }
    let layout = match weight.storage {
        Storage::Panels => LayoutId::PANELS,
        Storage::F32 | Storage::I32 | Storage::Rows | Storage::Codes(_) => LayoutId::CANONICAL,
    };
    let found = view.packed(layout);
    let (variant, data) = found.ok_or(WeightFault::Layout { layout })?;
    let (dtype, storage) = (variant.dtype, weight.storage);
    let readable = match storage {
        Storage::F32 => dtype == DType::F32,
        Storage::I32 => dtype == DType::I32,
        Storage::Rows | Storage::Panels => {
            matches!(dtype, DType::F32 | DType::F16 | DType::Bf16)
        }
        Storage::Codes(_) => dtype == DType::U8,
    };
    if !readable {
        return Err(WeightFault::DType { dtype, storage });
    }
    let expected = match layout {
        LayoutId::PANELS => dtype.panels_len(view.shape()),
        _ => dtype.byte_len(view.shape()),
    };
    if expected != Some(variant.length) {
        return Err(WeightFault::Length {
            expected: expected.unwrap_or(0),
            found: variant.length,
        });
    }
    if !(data.as_ptr() as usize).is_multiple_of(dtype.bits() as usize / 8) {
        return Err(WeightFault::Alignment);
    }
    // The data are in memory, so that their places fit its addresses.
    let start = variant.offset as usize;
    Ok(Location {
        dtype,
        part: usize::from(variant.part),
        start,
        end: start + data.len(),
    })
}

impl Location {
    /// The bytes: those of the elements, or the packed rows of codes.
    pub(crate) fn bytes<'a>(&self, segments: &[&'a [u8]]) -> &'a [u8] {
        &segments[self.part][self.start..self.end]
    }

    /// The elements of a weight of floats.
    pub(crate) fn floats<'a>(&self, segments: &[&'a [u8]]) -> Weights<'a> {
        let bytes = self.bytes(segments);
        match self.dtype {
            DType::F16 => Weights::F16(bytemuck::cast_slice(bytes)),
            DType::Bf16 => Weights::Bf16(bytemuck::cast_slice(bytes)),
            _ => Weights::F32(bytemuck::cast_slice(bytes)),
        }
    }

    /// The words of a weight of 32 bits, by their bits.
    pub(crate) fn words<'a>(&self, segments: &[&'a [u8]]) -> &'a [f32] {
        bytemuck::cast_slice(self.bytes(segments))
    }
}
