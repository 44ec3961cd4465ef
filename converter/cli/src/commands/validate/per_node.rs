//! Where inside a graph an artifact departs: its nodes against those of the checkpoint, matched by name.

use std::path::Path;

use serde_json::{Value, json};
use snapc_pipeline::Stage;

use super::comparison::{Bars, graph_and_step};
use super::nodes::{ComparedNode, matched, observe};
use crate::accuracy::decibels;
use crate::args::{CheckpointArgs, Size};
use crate::artifact::Artifact;
use crate::engines::{self, EvaluatorNetwork, snap};
use crate::failure::Failure;
use crate::reference_file::Reference;
use crate::stages;
use crate::table::Table;

/// Nodes in the table of the worst.
const WORST: usize = 10;

/// One call of a graph, node by node.
#[derive(Debug)]
pub struct PerNode {
    stage: Stage,
    bar: f64,
    /// Nodes that both graphs have, in the order of the artifact's.
    nodes: Vec<ComparedNode>,
}

impl PerNode {
    /// Runs the call on the checkpoint's graph in f32 and on the artifact's, with the reference's inputs, and compares
    /// what nodes of the same name give. The artifact's graph is read back and evaluated, or for a `.snap` file run by the
    /// runtime.
    ///
    /// # Errors
    /// When the checkpoint cannot be imported, the artifact's graphs cannot be read, or one of them cannot run.
    pub fn compare(
        artifact: &Artifact,
        checkpoint: &Path,
        reference: &Reference,
        stage: Stage,
        bars: Bars,
    ) -> Result<Self, Failure> {
        let latent = &artifact.manifest.latent;
        let options = CheckpointArgs {
            size: Some(Size {
                height: latent.height.saturating_mul(latent.pixels_per_cell),
                width: latent.width.saturating_mul(latent.pixels_per_cell),
            }),
            ..CheckpointArgs::default()
        };
        let program = stages::open(checkpoint, &options)?.import()?;
        let scale = latent.scaling_factor as f32;
        let expected = observe(
            engines::evaluator(program.graphs),
            &[],
            reference,
            scale,
            stage,
        )?;
        let timesteps = &artifact.manifest.timesteps;
        let found = if snap::runs_as_it_is(artifact) {
            let networks = snap::networks(artifact, None, reference.batch)?;
            observe(networks, timesteps, reference, scale, stage)?
        } else {
            let graphs = engines::graphs(artifact, reference.batch)?;
            observe(
                graphs.map(EvaluatorNetwork::new),
                timesteps,
                reference,
                scale,
                stage,
            )?
        };
        Ok(PerNode {
            stage,
            // What lies inside may be further off than what the graph gives.
            bar: bars
                .call
                .unwrap_or(bars.final_latents)
                .min(bars.final_latents),
            nodes: matched(&expected, &found),
        })
    }

    /// Position of the first node under the bar.
    fn first(&self) -> Option<usize> {
        self.nodes
            .iter()
            .position(|node| !node.accuracy.reaches(self.bar))
    }

    /// The node at a position and those beside it.
    fn around(&self, at: usize) -> &[ComparedNode] {
        let end = self.nodes.len().min(at + 2);
        &self.nodes[at.saturating_sub(1)..end]
    }

    /// The nodes that are furthest off, the worst first.
    fn worst(&self) -> Vec<&ComparedNode> {
        let mut nodes: Vec<&ComparedNode> = self.nodes.iter().collect();
        let key = |node: &ComparedNode| {
            let psnr = node.accuracy.psnr;
            if psnr.is_nan() {
                f64::NEG_INFINITY
            } else {
                psnr
            }
        };
        nodes.sort_by(|a, b| key(a).total_cmp(&key(b)));
        nodes.truncate(WORST);
        nodes
    }

    /// As JSON.
    pub fn document(&self) -> Value {
        let (graph, step) = graph_and_step(self.stage);
        let around = self.first().map(|at| self.around(at));
        json!({
            "graph": graph,
            "step": step,
            "bar_db": self.bar,
            "compared": self.nodes.len(),
            "first": self.first().map(|at| document(&self.nodes[at])),
            "around_first": around.map(|nodes| nodes.iter().map(document).collect::<Value>()),
            "worst": self.worst().into_iter().map(document).collect::<Value>(),
        })
    }

    /// As text, behind a blank line.
    pub fn text(&self) -> String {
        let bar = decibels(self.bar);
        let compared = self.nodes.len();
        let mut text = format!(
            "\n{}: {compared} nodes compared with the checkpoint's\n",
            self.stage
        );
        match self.first() {
            None => text.push_str(&format!("every node reaches {bar}\n")),
            Some(at) => {
                let node = &self.nodes[at];
                let psnr = decibels(node.accuracy.psnr);
                text.push_str(&format!(
                    "first under {bar}: {} ({}), {psnr}\n\n",
                    node.name, node.op
                ));
                text.push_str(&table("around it", self.around(at)));
            }
        }
        text.push('\n');
        text.push_str(&table("worst", self.worst()));
        text
    }
}

fn document(node: &ComparedNode) -> Value {
    let mut document = json!({ "node": node.name, "op": node.op });
    if let (Value::Object(map), Value::Object(figures)) = (&mut document, node.accuracy.document())
    {
        map.extend(figures);
    }
    document
}

fn table<'a>(title: &str, nodes: impl IntoIterator<Item = &'a ComparedNode>) -> String {
    let mut table = Table::new(&[title, "op", "PSNR", "cosine", "max error"]);
    for node in nodes {
        let [psnr, cosine, max_error] = node.accuracy.cells();
        table.row([
            node.name.clone(),
            node.op.to_owned(),
            psnr,
            cosine,
            max_error,
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accuracy::Accuracy;

    #[test]
    fn the_first_node_under_the_bar_is_named_with_its_neighbours() {
        let node = |name: &str, psnr| ComparedNode {
            name: name.to_owned(),
            op: "add",
            accuracy: Accuracy {
                psnr,
                cosine: 1.0,
                max_error: 0.5,
            },
        };
        let mut per_node = PerNode {
            stage: Stage::Unet { step: 3 },
            bar: 55.0,
            nodes: vec![
                node("a", 80.0),
                node("b", 70.0),
                node("c", 26.0),
                node("d", f64::NAN),
                node("e", 18.0),
            ],
        };
        let document = per_node.document();
        assert_eq!(
            (&document["graph"], &document["step"]),
            (&json!("unet"), &json!(3))
        );
        assert_eq!(document["first"]["node"], "c");
        let names = |list: &Value| -> Vec<String> {
            let nodes = list.as_array().into_iter().flatten();
            nodes
                .map(|n| n["node"].as_str().unwrap_or_default().to_owned())
                .collect()
        };
        assert_eq!(names(&document["around_first"]), ["b", "c", "d"]);
        assert_eq!(names(&document["worst"]), ["d", "e", "c", "b", "a"]);
        assert!(
            per_node
                .text()
                .contains("first under 55.0 dB: c (add), 26.0 dB")
        );
        per_node.nodes.truncate(2);
        assert_eq!(per_node.document()["first"], Value::Null);
        assert!(per_node.text().contains("every node reaches 55.0 dB"));
    }
}
