//! The UNet in two packages.

use std::collections::BTreeSet;

use snapc_ir::ops::Cast;
use snapc_ir::{BuildError, DType, Graph, Program, Rebuild, TensorType};
use snapc_target::{Interface, TargetError, cut};

/// The program with the UNet in two chunks. For [`Interface::Apple`], what the first one hands to the second is f32, as in
/// Apple's packages; nothing is lost by that.
///
/// # Errors
/// When the UNet has no place to cut.
pub(crate) fn in_chunks(program: Program, interface: Interface) -> Result<Program, TargetError> {
    let Program { graphs, pipeline } = program;
    let mut chunked = Vec::new();
    for graph in graphs {
        if graph.name() != "unet" {
            chunked.push(graph);
            continue;
        }
        let chunks = cut(&graph)?.ok_or_else(|| TargetError::Option {
            option: "--chunk-unet",
            reason: "the UNet has no place to cut".to_owned(),
        })?;
        chunked.extend(match interface {
            Interface::Apple => with_f32_between(&chunks)?,
            Interface::Plain | Interface::Snap => chunks,
        });
    }
    let graphs = chunked;
    Ok(Program { graphs, pipeline })
}

/// The chunks with f32 in place of f16 where the first one hands something to the second.
fn with_f32_between([first, second]: &[Graph; 2]) -> Result<[Graph; 2], BuildError> {
    let given: BTreeSet<&str> = first.outputs().iter().map(|o| o.name.as_str()).collect();

    let mut rebuild = Rebuild::new(first);
    rebuild.copy_inputs();
    copy_nodes(&mut rebuild)?;
    for output in first.outputs() {
        let mut value = rebuild.operand(output.value)?;
        if rebuild.graph.ty(value).dtype == DType::F16 {
            let wide = Cast { to: DType::F32 };
            let name = format!("{}.wide", output.name);
            value = rebuild.graph.add(wide, &[value], name)?;
        }
        rebuild.graph.output(output.name.clone(), value);
    }
    let first = rebuild.graph;

    let mut rebuild = Rebuild::new(second);
    for input in second.inputs() {
        let ty = second.ty(input.value).clone();
        let is_widened = ty.dtype == DType::F16 && given.contains(input.name.as_str());
        let value = if is_widened {
            let wide = TensorType::new(DType::F32, ty.shape);
            let value = rebuild.graph.input(input.name.clone(), wide);
            let narrow = Cast { to: DType::F16 };
            let name = format!("{}.narrow", input.name);
            rebuild.graph.add(narrow, &[value], name)?
        } else {
            rebuild.graph.input(input.name.clone(), ty)
        };
        rebuild.bind(input.value, value);
    }
    copy_nodes(&mut rebuild)?;
    Ok([first, rebuild.finish()?])
}

fn copy_nodes(rebuild: &mut Rebuild<'_>) -> Result<(), BuildError> {
    for node in rebuild.old().nodes() {
        let value = rebuild.copy(node)?;
        rebuild.bind(node.result, value);
    }
    Ok(())
}
