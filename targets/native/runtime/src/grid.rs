//! Which values are on a grid of 256, so that products may read their codes.

use snapc_program::{Graph, Op, Operand, Rounding};

/// The numbers `scale · (code - zero_point)` for codes from 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grid {
    pub(crate) scale: f32,
    pub(crate) zero_point: u8,
}

/// The grid of every value that is on one: what was rounded to it, and what movements make of that.
pub(crate) fn grids(graph: &Graph) -> Vec<Option<Grid>> {
    let mut grids: Vec<Option<Grid>> = vec![None; graph.inputs().len()];
    for instruction in graph.instructions() {
        let grid = match (&instruction.op, &instruction.operands[..]) {
            // What is rounded once more is beside the grid.
            _ if instruction.rounding != Rounding::None => None,
            (Op::FakeQuantize { scale, zero_point }, _) => Some(Grid {
                scale: *scale,
                zero_point: *zero_point,
            }),
            (
                Op::View { .. }
                | Op::Permute { .. }
                | Op::Slice { .. }
                | Op::UpsampleNearest { .. },
                [Operand::Value(x)],
            ) => grids[*x as usize],
            _ => None,
        };
        grids.push(grid);
    }
    grids
}

#[cfg(test)]
mod tests {
    use snapc_program::{Dim, Instruction, Type, Unary};

    use super::*;

    #[test]
    fn movements_keep_the_grid_and_arithmetic_does_not() {
        let mut graph = Graph::new();
        let mut x = graph
            .input("x", Type::f32([Dim::Fixed(2), Dim::Fixed(3)]))
            .unwrap();
        let round = |scale| Op::FakeQuantize {
            scale,
            zero_point: 7,
        };
        let steps = [
            (round(0.5), Rounding::None),
            (Op::Permute { order: vec![1, 0] }, Rounding::None),
            (
                Op::View {
                    dims: vec![Dim::Fixed(6)],
                },
                Rounding::None,
            ),
            (Op::Unary(Unary::Silu), Rounding::None),
            (round(0.25), Rounding::F16),
        ];
        for (op, rounding) in steps {
            let (name, operands) = (String::new(), vec![x]);
            let instruction = Instruction {
                name,
                op,
                operands,
                rounding,
            };
            x = graph.push(instruction).unwrap();
        }
        let grid = Grid {
            scale: 0.5,
            zero_point: 7,
        };
        let on = Some(grid);
        assert_eq!(grids(&graph), [None, on, on, on, None, None]);
    }
}
