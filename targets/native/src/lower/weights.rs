//! The weights that a program reads, each stored once in the form it is read in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use snapc_format::{LayoutId, PANEL_WIDTH, TensorPlan};
use snapc_ir::{DType, Encoding, LazyTensor};
use snapc_program::{Codes, Storage, Weight};

/// Bytes of the longest weight name that is kept; what is added to make it unique fits behind it.
const MAX_NAME: usize = 480;

/// A weight as it is written.
#[derive(Clone, Debug)]
pub struct StoredWeight {
    /// Name, storage and dimensions, as the program has them.
    pub weight: Weight,
    /// The bytes of the tensor in its storage.
    pub tensor: LazyTensor,
}

/// A weight that is stored already.
struct Known {
    position: usize,
    /// For codes, what they stand for.
    encoding: Option<Arc<Encoding>>,
}

impl StoredWeight {
    /// What the container's tensor table says.
    pub(crate) fn plan(&self) -> TensorPlan {
        let dims: Vec<u64> = match self.weight.storage {
            Storage::Codes(codes) => codes.packed_dims(&self.weight.dims).to_vec(),
            _ => self.weight.dims.iter().map(|&n| n.into()).collect(),
        };
        let dtype = match self.tensor.dtype() {
            DType::F16 => snapc_format::DType::F16,
            DType::BF16 => snapc_format::DType::Bf16,
            DType::I32 => snapc_format::DType::I32,
            DType::U8 => snapc_format::DType::U8,
            // Other integers have been cast.
            _ => snapc_format::DType::F32,
        };
        match layout(self.weight.storage) {
            LayoutId::PANELS => TensorPlan::panels(self.weight.name.as_str(), &dims, dtype),
            _ => TensorPlan::new(self.weight.name.as_str(), &dims, dtype),
        }
    }
}

/// The layout in the container of a storage in the program.
pub(crate) fn layout(storage: Storage) -> LayoutId {
    match storage {
        Storage::Panels => LayoutId::PANELS,
        Storage::F32 | Storage::I32 | Storage::Rows | Storage::Codes(_) => LayoutId::CANONICAL,
    }
}

/// The weights of one graph in the order of their first use.
#[derive(Default)]
pub(super) struct WeightTable {
    weights: Vec<StoredWeight>,
    /// By the bytes they take, where equal ones are looked for: a block that stands twice has its weights under two names.
    by_size: BTreeMap<usize, Vec<Known>>,
    taken: BTreeSet<String>,
}

impl WeightTable {
    /// The position of a weight, and the weight itself when it is new. `tensor` has the dimensions and, but for panels, the
    /// element type in which it is stored.
    pub(super) fn add(
        &mut self,
        name: &str,
        storage: Storage,
        tensor: LazyTensor,
    ) -> (usize, Option<&Weight>) {
        let dims = sizes(tensor.shape());
        let tensor = match storage {
            Storage::F32 => tensor.cast(DType::F32),
            Storage::I32 => tensor.cast(DType::I32),
            Storage::Rows | Storage::Codes(_) => tensor,
            Storage::Panels => tensor.panels(PANEL_WIDTH as usize),
        };
        for known in self.by_size.get(&tensor.byte_len()).into_iter().flatten() {
            let stored = &self.weights[known.position];
            if stored.weight.storage == storage && stored.tensor.same_data(&tensor) {
                return (known.position, None);
            }
        }
        let position = self.push(name, storage, dims, tensor, None);
        (position, Some(&self.weights[position].weight))
    }

    /// The position of the weight that these packed codes are, if it is there.
    pub(super) fn find_codes(&self, rows: &LazyTensor, encoding: &Arc<Encoding>) -> Option<usize> {
        let known = self.by_size.get(&rows.byte_len())?.iter().find(|known| {
            known.encoding.as_ref() == Some(encoding)
                && self.weights[known.position].tensor.same_data(rows)
        });
        known.map(|known| known.position)
    }

    /// Adds packed codes of a weight of dimensions `shape`.
    pub(super) fn add_codes(
        &mut self,
        name: &str,
        codes: Codes,
        shape: &[usize],
        rows: LazyTensor,
        encoding: Arc<Encoding>,
    ) -> (usize, &Weight) {
        let storage = Storage::Codes(codes);
        let position = self.push(name, storage, sizes(shape), rows, Some(encoding));
        (position, &self.weights[position].weight)
    }

    fn push(
        &mut self,
        name: &str,
        storage: Storage,
        dims: Vec<u32>,
        tensor: LazyTensor,
        encoding: Option<Arc<Encoding>>,
    ) -> usize {
        let position = self.weights.len();
        let known = Known { position, encoding };
        let same_size = self.by_size.entry(tensor.byte_len()).or_default();
        same_size.push(known);
        let weight = Weight {
            name: unique(name, &mut self.taken),
            storage,
            dims,
        };
        self.weights.push(StoredWeight { weight, tensor });
        position
    }

    pub(super) fn into_weights(self) -> Vec<StoredWeight> {
        self.weights
    }
}

/// Dimensions as a program has them. The lowering has checked the sizes of every value.
fn sizes(shape: &[usize]) -> Vec<u32> {
    shape.iter().map(|&n| n as u32).collect()
}

/// The name, with a number behind it when it is taken.
fn unique(name: &str, taken: &mut BTreeSet<String>) -> String {
    let name = &name[..name.floor_char_boundary(MAX_NAME)];
    let numbered = (2..).map(|n| format!("{name}.{n}"));
    let found = std::iter::once(name.to_owned())
        .chain(numbered)
        .find(|candidate| !taken.contains(candidate));
    let found = found.expect("there are more numbers than weights");
    taken.insert(found.clone());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_stored_once_for_each_form_it_is_read_in() {
        let mut table = WeightTable::default();
        let shared = LazyTensor::from_f32(&[2, 3], &[0.5; 6]).cast(DType::F16);
        let other = LazyTensor::from_f32(&[2, 3], &[0.25; 6]).cast(DType::F16);
        let mut add = |storage, tensor: &LazyTensor| table.add("w", storage, tensor.clone()).0;
        assert_eq!(add(Storage::Panels, &shared), 0);
        assert_eq!(add(Storage::Panels, &shared), 0);
        assert_eq!(add(Storage::Rows, &shared), 1);
        assert_eq!(add(Storage::F32, &shared), 2);
        assert_eq!(add(Storage::Panels, &other), 3);
        let weights = table.into_weights();
        let names: Vec<&str> = weights.iter().map(|w| w.weight.name.as_str()).collect();
        assert_eq!(names, ["w", "w.2", "w.3", "w.4"]);
        let dtypes: Vec<DType> = weights.iter().map(|w| w.tensor.dtype()).collect();
        assert_eq!(dtypes, [DType::F16, DType::F16, DType::F32, DType::F16]);
        assert_eq!(weights[0].tensor.shape(), [1, 3, 32]);
    }
}
