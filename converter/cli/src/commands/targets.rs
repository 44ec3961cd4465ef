//! `snapc targets`: what can be written.

use serde_json::json;
use snapc_ir::Op;
use snapc_target::{EmitOptions, Target};

use crate::args::ListCommand;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::table::Table;
use crate::targets::{self, TARGETS};

/// Lists the targets or shows one.
///
/// # Errors
/// When no target has the name.
pub fn run(command: &ListCommand, output: &Output) -> Result<Exit, Failure> {
    match command {
        ListCommand::List => {
            let all: Vec<_> = TARGETS
                .iter()
                .map(|t| json!({ "name": t.name(), "description": t.describe() }))
                .collect();
            output.result(
                &json!({ "command": "targets list", "targets": all }),
                || {
                    let mut lines = String::new();
                    for target in TARGETS {
                        lines.push_str(&format!("{:<8} {}\n", target.name(), target.describe()));
                    }
                    lines
                },
            )?;
        }
        ListCommand::Show { name } => show(targets::find(name)?, output)?,
    }
    Ok(Exit::Done)
}

fn show(target: &dyn Target, output: &Output) -> Result<(), Failure> {
    let capabilities = target.capabilities(&EmitOptions::default());
    let native = native_composites(capabilities.native);
    let document = json!({
        "command": "targets show",
        "name": target.name(),
        "description": target.describe(),
        "native_composites": native,
        "symbolic_batch": capabilities.symbolic_batch,
        "max_rank": capabilities.max_rank,
    });
    output.result(&document, || {
        let batch = if capabilities.symbolic_batch {
            "symbolic"
        } else {
            "fixed"
        };
        let mut table = Table::new(&[target.name(), ""]);
        table.row(["batch".to_owned(), batch.to_owned()]);
        table.row(["largest rank".to_owned(), capabilities.max_rank.to_string()]);
        table.row(["composites it has".to_owned(), native.join(", ")]);
        format!("{}\n\n{}", target.describe(), table.render())
    })
}

/// Names of the composite operators that the target lowers itself, in the order of the operator list.
fn native_composites(native: fn(&Op) -> bool) -> Vec<&'static str> {
    let examples = Op::examples();
    let mut names: Vec<&'static str> = examples
        .iter()
        .filter(|e| e.op.is_composite() && native(&e.op))
        .map(|e| e.op.name())
        .collect();
    names.dedup();
    names
}
