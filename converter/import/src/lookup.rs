//! How networks ask for weights, whatever the layout of the checkpoint.

use std::collections::BTreeSet;

use snapc_ir::{DType, LazyTensor};

/// The answer to a request for a weight.
pub struct StoredWeight {
    /// The file it lies in, or would lie in.
    pub file: String,
    /// The key in that file.
    pub key: String,
    /// The weight itself.
    pub content: WeightContent,
}

/// Whether and how a weight is stored.
pub enum WeightContent {
    /// It is not in the checkpoint.
    Missing,
    /// Its element type, as safetensors names it, is not a float of 16 or 32 bits.
    Unsupported(String),
    /// The tensor, in the element type it is stored in.
    Present(LazyTensor),
}

/// The weights of one network under their diffusers keys.
pub trait WeightLookup: Sync {
    /// The weight of a diffusers key. `shape` is what the network expects; the answer may have another shape, which
    /// the network reports.
    fn find(&self, key: &str, shape: &[usize]) -> StoredWeight;

    /// Stored keys of this network that are neither in `used` nor known to be harmless, with their files.
    fn unused(&self, used: &BTreeSet<String>) -> Vec<(String, String)>;
}

/// A lookup that has every weight in the shape asked for, and no data: for counting parameters and operations of a
/// configuration without its checkpoint.
pub struct ShapeOnly;

impl WeightLookup for ShapeOnly {
    fn find(&self, key: &str, shape: &[usize]) -> StoredWeight {
        StoredWeight {
            file: String::new(),
            key: key.to_owned(),
            content: WeightContent::Present(LazyTensor::absent(DType::F32, shape)),
        }
    }

    fn unused(&self, _used: &BTreeSet<String>) -> Vec<(String, String)> {
        Vec::new()
    }
}
