//! Where the constants of a model are stored: small ones inline, the others in one file beside the model.
//!
//! Small tensors stay inline because shapes, axes and scales must be visible to tools that do not load external data.
//! The file's offsets are multiples of 64 bytes, of 4 KiB for large tensors, so that a reader may map it and use the
//! tensors in place. Weights with the same data are stored once.

use std::collections::BTreeMap;

use snapc_ir::{DType, LazyTensor};
use snapc_target::TargetError;
use snapc_target::stream::Blob;

use crate::lower::Initializer;
use crate::proto::{EXTERNAL, StringStringEntryProto, TensorProto};

/// Tensors of fewer bytes are stored in the model itself.
const MIN_EXTERNAL: usize = 1 << 10;
/// Tensors of at least this many bytes start on a page.
const LARGE: usize = 1 << 20;
/// Alignment of large tensors.
const PAGE: u64 = 1 << 12;
/// Alignment of the others.
const LINE: u64 = 64;

/// The places of a model's constants.
#[derive(Debug)]
pub(crate) struct Layout<'a> {
    /// What the data file holds, by ascending offset.
    pub(crate) blobs: Vec<Blob<'a>>,
    /// Size of the data file; 0 when everything is inline.
    pub(crate) len: u64,
    /// Offset in the data file by initializer; `None` for those inline.
    offsets: Vec<Option<u64>>,
}

impl<'a> Layout<'a> {
    /// Places the initializers in their order.
    pub(crate) fn new(initializers: &'a [Initializer]) -> Self {
        let mut layout = Layout {
            blobs: Vec::new(),
            len: 0,
            offsets: Vec::with_capacity(initializers.len()),
        };
        // Equal data has equal types; comparing within a type only keeps this far from quadratic.
        let mut placed: BTreeMap<(DType, &[usize]), Vec<usize>> = BTreeMap::new();
        for initializer in initializers {
            let tensor = &initializer.tensor;
            if tensor.byte_len() < MIN_EXTERNAL {
                layout.offsets.push(None);
                continue;
            }
            let alike = placed.entry((tensor.dtype(), tensor.shape())).or_default();
            let twin = alike
                .iter()
                .find(|&&b| layout.blobs[b].tensor.same_data(tensor));
            let offset = match twin {
                Some(&b) => layout.blobs[b].offset,
                None => {
                    alike.push(layout.blobs.len());
                    layout.place(&initializer.name, tensor)
                }
            };
            layout.offsets.push(Some(offset));
        }
        layout
    }

    fn place(&mut self, name: &'a str, tensor: &'a LazyTensor) -> u64 {
        let alignment = if tensor.byte_len() >= LARGE {
            PAGE
        } else {
            LINE
        };
        let offset = self.len.next_multiple_of(alignment);
        self.blobs.push(Blob {
            name,
            offset,
            header: Vec::new(),
            tensor,
        });
        self.len = offset + tensor.byte_len() as u64;
        offset
    }

    /// Bytes of tensors in the data file, without the gaps between them.
    pub(crate) fn tensor_bytes(&self) -> u64 {
        self.blobs.iter().map(|b| b.tensor.byte_len() as u64).sum()
    }

    /// The messages of the initializers, for a data file called `location`.
    ///
    /// # Errors
    /// When the data of a tensor that is stored inline cannot be made.
    pub(crate) fn messages(
        &self,
        graph: &str,
        initializers: &[Initializer],
        location: &str,
    ) -> Result<Vec<TensorProto>, TargetError> {
        let messages =
            initializers
                .iter()
                .zip(&self.offsets)
                .map(|(initializer, offset)| {
                    let mut message = header(initializer);
                    match offset {
                        Some(offset) => {
                            let length = initializer.tensor.byte_len().to_string();
                            let place = [
                                ("location", location.to_owned()),
                                ("offset", offset.to_string()),
                                ("length", length),
                            ];
                            message.data_location = Some(EXTERNAL);
                            message.external_data = place.map(entry).into();
                        }
                        None => {
                            let bytes = initializer.tensor.bytes().map_err(|source| {
                                TargetError::Weight {
                                    graph: graph.to_owned(),
                                    weight: initializer.name.clone(),
                                    source,
                                }
                            })?;
                            message.raw_data = Some(bytes.into_owned().into());
                        }
                    }
                    Ok(message)
                });
        messages.collect()
    }
}

fn header(initializer: &Initializer) -> TensorProto {
    TensorProto {
        dims: initializer.dims.iter().map(|&d| d as i64).collect(),
        data_type: Some(initializer.data_type),
        name: Some(initializer.name.clone()),
        ..TensorProto::default()
    }
}

fn entry((key, value): (&str, String)) -> StringStringEntryProto {
    StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initializer(name: &str, tensor: &LazyTensor) -> Initializer {
        Initializer::new(name, tensor.clone())
    }

    #[test]
    fn small_is_inline_large_is_aligned_equal_is_shared() {
        let small = LazyTensor::from_f32(&[255], &[1.0; 255]);
        let medium = LazyTensor::from_f32(&[257], &[2.0; 257]);
        let large = LazyTensor::from_f32(&[1 << 18], &vec![3.0; 1 << 18]);
        let initializers = [
            initializer("small", &small),
            initializer("first", &medium),
            initializer("tied", &medium),
            initializer("cast", &medium.clone().reshape(&[257, 1])),
            initializer("large", &large),
        ];
        let layout = Layout::new(&initializers);
        let offsets = [None, Some(0), Some(0), Some(1088), Some(4096)];
        assert_eq!(layout.offsets, offsets);
        assert_eq!(layout.len, 4096 + (1 << 20));
        assert_eq!(layout.tensor_bytes(), 2 * 1028 + (1 << 20));

        let messages = layout.messages("g", &initializers, "data").unwrap();
        assert_eq!(messages[0].raw_data.as_ref().map(|d| d.len()), Some(1020));
        assert_eq!(messages[0].data_location, None);
        let place: Vec<&str> = messages[4]
            .external_data
            .iter()
            .filter_map(|e| e.value.as_deref())
            .collect();
        assert_eq!(place, ["data", "4096", "1048576"]);
        assert_eq!(messages[4].raw_data, None);
    }

    #[test]
    fn absent_data_names_the_weight() {
        let initializers = [initializer("scale", &LazyTensor::absent(DType::F32, &[2]))];
        let error = Layout::new(&initializers)
            .messages("unet", &initializers, "data")
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("graph 'unet', weight 'scale': "),
            "{error}"
        );
    }
}
