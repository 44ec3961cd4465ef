//! Graphs that were read.

use snapc_ir::Graph;
use snapc_ir::verify::verify;

/// Weights of more bytes are not made: a tensor of many equal elements is a few bytes in a file.
const MAX_WEIGHT: usize = 1 << 20;

/// Checks what holds for a graph that a reader gives: it is well formed, and its weights have the bytes that their types
/// ask for, or an error.
///
/// # Panics
/// When one of that does not hold.
pub fn check_graph(graph: &Graph) {
    if let Err(violations) = verify(graph) {
        panic!("{}: {violations:?}", graph.name());
    }
    for weight in graph.weights() {
        let expected = weight.tensor.byte_len();
        if expected > MAX_WEIGHT {
            continue;
        }
        if let Ok(bytes) = weight.tensor.bytes() {
            assert_eq!(bytes.len(), expected, "{}", weight.name);
        }
    }
}
