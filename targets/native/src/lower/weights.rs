//! The weights that a program reads, each stored once in the form it is read in.

use std::collections::{BTreeMap, BTreeSet};

use snapc_format::{LayoutId, PANEL_WIDTH, TensorPlan};
use snapc_ir::{DType, LazyTensor};
use snapc_program::{Storage, Weight};

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

impl StoredWeight {
    /// What the container's tensor table says.
    pub(crate) fn plan(&self) -> TensorPlan {
        let dims: Vec<u64> = self.weight.dims.iter().map(|&n| n.into()).collect();
        let dtype = match self.tensor.dtype() {
            DType::F16 => snapc_format::DType::F16,
            DType::BF16 => snapc_format::DType::Bf16,
            DType::I32 => snapc_format::DType::I32,
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
        Storage::F32 | Storage::I32 | Storage::Rows => LayoutId::CANONICAL,
    }
}

/// The weights of one graph in the order of their first use.
#[derive(Default)]
pub(super) struct WeightTable {
    weights: Vec<StoredWeight>,
    /// Positions in `weights` by the name in the IR, where they are looked for.
    by_name: BTreeMap<String, Vec<usize>>,
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
        // The lowering has checked the sizes of every value.
        let dims = tensor.shape().iter().map(|&n| n as u32).collect();
        let tensor = match storage {
            Storage::F32 => tensor.cast(DType::F32),
            Storage::I32 => tensor.cast(DType::I32),
            Storage::Rows => tensor,
            Storage::Panels => tensor.panels(PANEL_WIDTH as usize),
        };
        let known = self.by_name.entry(name.to_owned()).or_default();
        for &position in known.iter() {
            let stored = &self.weights[position];
            if stored.weight.storage == storage && stored.tensor.same_data(&tensor) {
                return (position, None);
            }
        }
        known.push(self.weights.len());
        let weight = Weight {
            name: unique(name, &mut self.taken),
            storage,
            dims,
        };
        self.weights.push(StoredWeight { weight, tensor });
        let position = self.weights.len() - 1;
        (position, Some(&self.weights[position].weight))
    }

    pub(super) fn into_weights(self) -> Vec<StoredWeight> {
        self.weights
    }
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
