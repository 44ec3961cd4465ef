//! Building a graph layer by layer, with the weights of a checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use snapc_ir::ops::{Add, Conv2d, GroupNorm, LayerNorm, Linear, Reshape, Silu, Transpose};
use snapc_ir::{BuildError, DType, Dim, Graph, LazyTensor, Op, TensorType, ValueId};

use super::Network;
use crate::lookup::{StoredWeight, WeightContent, WeightLookup};
use crate::report::{WeightIssue, WeightProblem};
use crate::scan::{Scan, scan};

/// A graph under construction. Weights are found, checked and scanned as they are asked for; what is wrong with them
/// is collected, so that one run reports all of it.
pub(super) struct NetworkBuilder<'a> {
    graph: Graph,
    weights: &'a dyn WeightLookup,
    /// Diffusers key → value, so that a layer that stands twice shares its weights.
    parameters: BTreeMap<String, ValueId>,
    used: BTreeSet<String>,
    issues: Vec<WeightIssue>,
}

impl<'a> NetworkBuilder<'a> {
    /// An empty graph of that name.
    pub(super) fn new(graph: &str, weights: &'a dyn WeightLookup) -> Self {
        NetworkBuilder {
            graph: Graph::new(graph),
            weights,
            parameters: BTreeMap::new(),
            used: BTreeSet::new(),
            issues: Vec::new(),
        }
    }

    /// The graph and everything that is wrong with its weights.
    pub(super) fn finish(mut self) -> Network {
        for (file, key) in self.weights.unused(&self.used) {
            self.report(file, key, WeightProblem::Extra);
        }
        Network {
            graph: self.graph,
            issues: self.issues,
        }
    }

    fn report(&mut self, file: String, weight: String, problem: WeightProblem) {
        self.issues.push(WeightIssue {
            graph: self.graph.name().to_owned(),
            file,
            weight,
            problem,
        });
    }

    /// Declares an input.
    pub(super) fn input(&mut self, name: &str, ty: TensorType) -> ValueId {
        self.graph.input(name, ty)
    }

    /// Declares an output.
    pub(super) fn output(&mut self, name: &str, value: ValueId) {
        self.graph.output(name, value);
    }

    /// Adds a constant of the architecture, named after the node that wants it.
    pub(super) fn constant(&mut self, name: &str, tensor: LazyTensor) -> ValueId {
        self.graph.constant(name, tensor)
    }

    /// The weight of a diffusers key, as f32 of this shape.
    pub(super) fn parameter(&mut self, key: &str, shape: &[usize]) -> ValueId {
        if let Some(&value) = self.parameters.get(key) {
            return value;
        }
        let tensor = self.checked(key, shape);
        let value = self.graph.parameter(key, tensor);
        self.parameters.insert(key.to_owned(), value);
        value
    }

    /// The stored weight when it is sound, otherwise a tensor without data and an issue.
    fn checked(&mut self, key: &str, shape: &[usize]) -> LazyTensor {
        let StoredWeight { file, key, content } = self.weights.find(key, shape);
        let problem = match content {
            WeightContent::Missing => WeightProblem::Missing,
            WeightContent::Unsupported(found) => WeightProblem::ElementType(found),
            WeightContent::Present(tensor) if tensor.shape() != shape => WeightProblem::Misshapen {
                expected: shape.to_vec(),
                found: tensor.shape().to_vec(),
            },
            WeightContent::Present(tensor) => match scan(&tensor) {
                Ok(Scan::NonFinite { count, first }) => WeightProblem::NonFinite { count, first },
                Ok(Scan::Finite(max_abs)) => {
                    self.used.insert(key);
                    return tensor.with_max_abs(max_abs).cast(DType::F32);
                }
                // Only a shape-only lookup has no data, and wants none.
                Err(_) => return tensor,
            },
        };
        self.used.insert(key.clone());
        self.report(file, key, problem);
        LazyTensor::absent(DType::F32, shape)
    }

    /// Applies an operator.
    pub(super) fn op(
        &mut self,
        op: impl Into<Op>,
        operands: &[ValueId],
        name: &str,
    ) -> Result<ValueId, BuildError> {
        self.graph.add(op, operands, name)
    }

    /// The size of a value along an axis other than the batch.
    ///
    /// # Panics
    /// When that is the batch or does not exist.
    pub(super) fn size(&self, value: ValueId, axis: usize) -> usize {
        let dim = self.graph.ty(value).shape.dims()[axis];
        dim.fixed().expect("only axis 0 is the batch")
    }

    /// The channels of a value: its last axis.
    ///
    /// # Panics
    /// When the value is a scalar.
    pub(super) fn features(&self, value: ValueId) -> usize {
        self.size(value, self.graph.ty(value).shape.rank() - 1)
    }

    /// `torch.nn.Conv2d` with a bias and the padding that keeps the size at stride 1.
    pub(super) fn conv2d(
        &mut self,
        name: &str,
        x: ValueId,
        out_channels: usize,
        kernel: usize,
        stride: usize,
    ) -> Result<ValueId, BuildError> {
        let shape = [out_channels, self.size(x, 1), kernel, kernel];
        let weight = self.parameter(&format!("{name}.weight"), &shape);
        let bias = self.parameter(&format!("{name}.bias"), &[out_channels]);
        let op = Conv2d {
            strides: [stride; 2],
            pads: [kernel / 2; 4],
            groups: 1,
        };
        self.op(op, &[x, weight, bias], name)
    }

    /// `torch.nn.Linear` with a bias.
    pub(super) fn linear(
        &mut self,
        name: &str,
        x: ValueId,
        out_features: usize,
    ) -> Result<ValueId, BuildError> {
        let weight = self.linear_weight(name, x, out_features);
        let bias = self.parameter(&format!("{name}.bias"), &[out_features]);
        self.op(Linear {}, &[x, weight, bias], name)
    }

    /// `torch.nn.Linear` without bias.
    pub(super) fn projection(
        &mut self,
        name: &str,
        x: ValueId,
        out_features: usize,
    ) -> Result<ValueId, BuildError> {
        let weight = self.linear_weight(name, x, out_features);
        self.op(Linear {}, &[x, weight], name)
    }

    fn linear_weight(&mut self, name: &str, x: ValueId, out_features: usize) -> ValueId {
        let shape = [out_features, self.features(x)];
        self.parameter(&format!("{name}.weight"), &shape)
    }

    /// `torch.nn.GroupNorm` over `[N,C,H,W]`.
    pub(super) fn group_norm(
        &mut self,
        name: &str,
        x: ValueId,
        groups: usize,
        epsilon: f32,
    ) -> Result<ValueId, BuildError> {
        let (scale, bias) = self.affine(name, self.size(x, 1));
        self.op(GroupNorm { groups, epsilon }, &[x, scale, bias], name)
    }

    /// `torch.nn.LayerNorm` over the last axis.
    pub(super) fn layer_norm(
        &mut self,
        name: &str,
        x: ValueId,
        epsilon: f32,
    ) -> Result<ValueId, BuildError> {
        let (scale, bias) = self.affine(name, self.features(x));
        self.op(LayerNorm { epsilon }, &[x, scale, bias], name)
    }

    fn affine(&mut self, name: &str, channels: usize) -> (ValueId, ValueId) {
        let scale = self.parameter(&format!("{name}.weight"), &[channels]);
        let bias = self.parameter(&format!("{name}.bias"), &[channels]);
        (scale, bias)
    }

    /// `torch.nn.SiLU`.
    pub(super) fn silu(&mut self, name: &str, x: ValueId) -> Result<ValueId, BuildError> {
        self.op(Silu {}, &[x], name)
    }

    /// A sum.
    pub(super) fn add(
        &mut self,
        name: &str,
        a: ValueId,
        b: ValueId,
    ) -> Result<ValueId, BuildError> {
        self.op(Add {}, &[a, b], name)
    }

    /// `[N,C,H,W]` → `[N,H*W,C]`, the form that attention takes.
    pub(super) fn image_to_tokens(
        &mut self,
        name: &str,
        x: ValueId,
    ) -> Result<ValueId, BuildError> {
        let (channels, height, width) = (self.size(x, 1), self.size(x, 2), self.size(x, 3));
        let shape = vec![Dim::Batch, channels.into(), (height * width).into()];
        let flat = self.op(Reshape { shape }, &[x], name)?;
        self.op(
            Transpose {
                perm: vec![0, 2, 1],
            },
            &[flat],
            name,
        )
    }

    /// `[N,H*W,C]` → `[N,C,H,W]`.
    pub(super) fn tokens_to_image(
        &mut self,
        name: &str,
        x: ValueId,
        height: usize,
        width: usize,
    ) -> Result<ValueId, BuildError> {
        let channels = self.features(x);
        let flat = self.op(
            Transpose {
                perm: vec![0, 2, 1],
            },
            &[x],
            name,
        )?;
        let shape = vec![Dim::Batch, channels.into(), height.into(), width.into()];
        self.op(Reshape { shape }, &[flat], name)
    }
}
