//! Dense tensors of the reference evaluator.

use half::{bf16, f16};

use crate::types::DType;

/// The elements of a [`Tensor`], row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// Floats, whatever their width in the graph.
    Float(Vec<f32>),
    /// Integers and truth values.
    Int(Vec<i64>),
}

/// A tensor with all dimensions known and its elements in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Elements, row-major.
    pub elements: Elements,
}

impl Tensor {
    /// A float tensor.
    ///
    /// # Panics
    /// When `data` does not hold the elements of `shape`.
    pub fn float(shape: &[usize], data: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len());
        Tensor {
            shape: shape.to_vec(),
            elements: Elements::Float(data),
        }
    }

    /// An integer tensor.
    ///
    /// # Panics
    /// When `data` does not hold the elements of `shape`.
    pub fn int(shape: &[usize], data: Vec<i64>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len());
        Tensor {
            shape: shape.to_vec(),
            elements: Elements::Int(data),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as floats.
    ///
    /// # Panics
    /// When they are integers.
    pub fn floats(&self) -> &[f32] {
        match &self.elements {
            Elements::Float(v) => v,
            Elements::Int(_) => panic!("an integer tensor where a float tensor is expected"),
        }
    }

    /// The elements as integers.
    ///
    /// # Panics
    /// When they are floats.
    pub fn ints(&self) -> &[i64] {
        match &self.elements {
            Elements::Int(v) => v,
            Elements::Float(_) => panic!("a float tensor where an integer tensor is expected"),
        }
    }

    /// Row-major strides, in elements.
    pub fn strides(&self) -> Vec<usize> {
        strides(&self.shape)
    }

    /// Rounds floats to the grid of a narrower float type.
    pub fn round_to(&mut self, dtype: DType) {
        if let Elements::Float(v) = &mut self.elements {
            match dtype {
                DType::F16 => v.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()),
                DType::BF16 => v.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
                _ => {}
            }
        }
    }
}

/// Row-major strides of a shape, in elements.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        strides[i] = strides[i + 1] * shape[i + 1];
    }
    strides
}
