//! Pictures in levels from 0 to 255, as images have them, in place of the decoder's values from -1 to 1.

use snapc_ir::ops::{Add, Cast, FakeQuantize, Mul};
use snapc_ir::{BuildError, DType, Graph, LazyTensor, Rebuild, ValueId};

/// Role of a feature that is an RGB picture of 8 bits per channel, in the manifest.
pub const PICTURE_ROLE: &str = "picture-rgb";

/// Levels from the middle to either end: -1 is level 0, 1 is level 255.
const HALF_RANGE: f32 = 127.5;

/// Adds the levels of a decoder's values `[N, 3, rows, columns]`: `x * 127.5 + 127.5` in f32, rounded half to even and cut off
/// at 0 and 255 (diffusers' `VaeImageProcessor.postprocess` without its change of axes).
///
/// # Errors
/// When `value` holds no floats.
pub fn picture_levels(
    graph: &mut Graph,
    value: ValueId,
    name: &str,
) -> Result<ValueId, BuildError> {
    let mut levels = value;
    if graph.ty(value).dtype != DType::F32 {
        levels = graph.add(Cast { to: DType::F32 }, &[value], format!("{name}.wide"))?;
    }
    let half = scalar(graph, "half_range", HALF_RANGE);
    levels = graph.add(Mul {}, &[levels, half], format!("{name}.scaled"))?;
    levels = graph.add(Add {}, &[levels, half], format!("{name}.shifted"))?;
    let whole = FakeQuantize {
        scale: 1.0,
        zero_point: 0,
    };
    graph.add(whole, &[levels], name)
}

/// The graph with the values from -1 to 1 in place of the levels of an output, which is what diffusers' decoder gives and a
/// pipeline takes.
///
/// # Errors
/// Only for a graph that breaks the invariants of [`snapc_ir::verify`].
pub fn from_picture_levels(graph: &Graph, output: &str) -> Result<Graph, BuildError> {
    let mut rebuild = Rebuild::new(graph);
    rebuild.copy_inputs();
    for node in graph.nodes() {
        let value = rebuild.copy(node)?;
        rebuild.bind(node.result, value);
    }
    for given in graph.outputs().iter().filter(|o| o.name == output) {
        let levels = rebuild.operand(given.value)?;
        let graph = &mut rebuild.graph;
        let step = scalar(graph, "level_step", 1.0 / HALF_RANGE);
        let middle = scalar(graph, "middle", -1.0);
        let scaled = graph.add(Mul {}, &[levels, step], format!("{output}.scaled_back"))?;
        let value = graph.add(Add {}, &[scaled, middle], format!("{output}.values"))?;
        graph.output(output, value);
    }
    rebuild.finish()
}

fn scalar(graph: &mut Graph, name: &str, value: f32) -> ValueId {
    graph.constant(name, LazyTensor::from_f32(&[], &[value]))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use snapc_ir::{Shape, Tensor, TensorType, eval};

    use super::*;

    fn run(graph: &Graph, x: &[f32]) -> Vec<f32> {
        let input = Tensor::float(&[x.len()], x.to_vec());
        let outputs = eval::run(graph, &BTreeMap::from([("x".to_owned(), input)]));
        outputs.unwrap()["y"].floats().to_vec()
    }

    /// `(x / 2 + 0.5).clamp(0, 1) * 255` rounded, by hand; 0.5 of a level goes to the even one.
    #[test]
    fn levels_are_those_of_diffusers() {
        for dtype in [DType::F32, DType::F16] {
            let mut graph = Graph::new("vae_decoder");
            let x = graph.input("x", TensorType::new(dtype, Shape::fixed(&[6])));
            let y = picture_levels(&mut graph, x, "y").unwrap();
            graph.output("y", y);
            let x = [-1.0, 1.0, 0.0, -1.25, 7.0, 0.5];
            assert_eq!(run(&graph, &x), [0.0, 255.0, 128.0, 0.0, 255.0, 191.0]);
            let back = from_picture_levels(&graph, "y").unwrap();
            let values = run(&back, &x);
            let expected = [-1.0, 1.0, 1.0 / 255.0, -1.0, 1.0, 127.0 / 255.0];
            let near = values
                .iter()
                .zip(expected)
                .all(|(v, e)| (v - e).abs() < 1e-6);
            assert!(near, "{values:?}");
        }
    }
}
