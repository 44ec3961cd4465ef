//! Figures, bars, and the verdict.

use std::fmt;

use serde_json::{Value, json};
use snapc_pipeline::Stage;

use crate::accuracy::{Accuracy, decibels};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::table::Table;

/// Least PSNR in dB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bars {
    /// Of the final latents of the guided run.
    pub final_latents: f64,
    /// Of one call of a graph.
    pub call: Option<f64>,
}

impl Bars {
    /// The bars of `docs/accuracy.md` for the precision and the weights of an artifact. `min_psnr` stands in place of that of the final
    /// latents, and no call has to be better than that.
    ///
    /// # Errors
    /// When precision and weights have no bars and none is given.
    pub fn of(
        precision: &str,
        weights: Option<&str>,
        min_psnr: Option<f64>,
    ) -> Result<Self, Failure> {
        let bars = match weights.unwrap_or(precision) {
            "int8" | "palette8" | "palette6" => Bars {
                final_latents: 30.0,
                call: None,
            },
            "f32" => Bars {
                final_latents: 100.0,
                call: Some(100.0),
            },
            "f16" => Bars {
                final_latents: 55.0,
                call: Some(65.0),
            },
            other => {
                let final_latents = min_psnr.ok_or_else(|| {
                    let error =
                        anyhow::anyhow!("there is no bar for weights or values in '{other}'");
                    Failure::new(Exit::InvalidInput, error).help("--min-psnr sets one")
                })?;
                Bars {
                    final_latents,
                    call: None,
                }
            }
        };
        Ok(match min_psnr {
            None => bars,
            Some(least) => Bars {
                final_latents: least,
                call: bars.call.map(|bar| bar.min(least)),
            },
        })
    }
}

/// What a figure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One call of a graph on the reference's own inputs.
    Call(Stage),
    /// The token ids that the artifact's tokenizer gives for the prompts.
    Tokens,
    /// The latents of the whole run after a step.
    Latents {
        /// Number of the step, from 0.
        step: usize,
        /// Whether it is the last one.
        last: bool,
    },
    /// The picture of the whole run.
    Picture,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Call(stage) => write!(f, "{stage}"),
            Subject::Tokens => f.write_str("run: tokens"),
            Subject::Latents { last: true, .. } => f.write_str("run: final latents"),
            Subject::Latents { step, .. } => write!(f, "run: latents after step {step}"),
            Subject::Picture => f.write_str("run: picture"),
        }
    }
}

/// One compared tensor.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What it is.
    pub subject: Subject,
    /// How far it is from the reference.
    pub accuracy: Accuracy,
    /// Least PSNR; none for what is shown for information.
    pub bar: Option<f64>,
}

impl Row {
    /// Whether the bar, if there is one, is reached.
    pub fn ok(&self) -> bool {
        self.bar.is_none_or(|bar| self.accuracy.reaches(bar))
    }

    /// How many dB it is above its bar; NaN counts as far below.
    fn margin(&self) -> f64 {
        let margin = self.accuracy.psnr - self.bar.unwrap_or_default();
        if margin.is_nan() {
            f64::NEG_INFINITY
        } else {
            margin
        }
    }

    /// What the row is about, as JSON.
    pub fn subject_document(&self) -> Value {
        match self.subject {
            Subject::Call(stage) => {
                let (graph, step) = graph_and_step(stage);
                json!({ "kind": "call", "graph": graph, "step": step })
            }
            Subject::Tokens => json!({ "kind": "tokens" }),
            Subject::Latents { step, last } => {
                json!({ "kind": if last { "final_latents" } else { "latents" }, "step": step })
            }
            Subject::Picture => json!({ "kind": "picture" }),
        }
    }

    /// The row as JSON.
    pub fn document(&self) -> Value {
        let mut document = self.subject_document();
        if let (Value::Object(map), Value::Object(figures)) =
            (&mut document, self.accuracy.document())
        {
            map.extend(figures);
            map.insert("bar_db".to_owned(), json!(self.bar));
            map.insert("ok".to_owned(), self.ok().into());
        }
        document
    }
}

/// The graph of a stage, and the step if there is one.
pub fn graph_and_step(stage: Stage) -> (&'static str, Option<usize>) {
    match stage {
        Stage::Unet { step } => ("unet", Some(step)),
        Stage::VaeDecoder => ("vae_decoder", None),
        _ => ("text_encoder", None),
    }
}

/// All compared tensors: calls in the order of a run, then the run.
#[derive(Debug)]
pub struct Comparison {
    /// The rows.
    pub rows: Vec<Row>,
}

impl Comparison {
    /// The first row under its bar.
    pub fn first_departure(&self) -> Option<&Row> {
        self.rows.iter().find(|row| !row.ok())
    }

    /// The call to look into: the first under its bar, else the one that is closest to it.
    pub fn suspect(&self) -> Option<Stage> {
        let call = |row: &Row| match row.subject {
            Subject::Call(stage) => Some(stage),
            _ => None,
        };
        let departed = self.rows.iter().filter(|row| !row.ok()).find_map(call);
        departed.or_else(|| self.closest().and_then(call))
    }

    fn closest(&self) -> Option<&Row> {
        let calls = self
            .rows
            .iter()
            .filter(|r| matches!(r.subject, Subject::Call(_)));
        calls.min_by(|a, b| a.margin().total_cmp(&b.margin()))
    }

    /// The table and the verdict.
    pub fn text(&self) -> String {
        let mut table = Table::new(&["", "PSNR", "cosine", "max error", "bar", ""]);
        for row in &self.rows {
            let [psnr, cosine, max_error] = row.accuracy.cells();
            let verdict = match (row.bar, row.ok()) {
                (None, _) => "",
                (Some(_), true) => "ok",
                (Some(_), false) => "under",
            };
            table.row([
                row.subject.to_string(),
                psnr,
                cosine,
                max_error,
                row.bar.map(decibels).unwrap_or_default(),
                verdict.to_owned(),
            ]);
        }
        format!("{}\n{}\n", table.render(), self.verdict())
    }

    fn verdict(&self) -> String {
        let figures = |row: &Row| {
            let bar = row.bar.map(decibels).unwrap_or_default();
            format!("{}, the bar is {bar}", decibels(row.accuracy.psnr))
        };
        match self.first_departure() {
            None => "every figure reaches its bar".to_owned(),
            Some(row) => match row.subject {
                Subject::Call(stage) => format!("{stage}: departs first: {}", figures(row)),
                Subject::Tokens => {
                    "the tokenizer gives other tokens than the reference has".to_owned()
                }
                _ => {
                    let closest = self.closest().map_or_else(String::new, |call| {
                        format!(
                            "; of the calls, {} comes closest to its bar: {}",
                            call.subject,
                            figures(call)
                        )
                    });
                    format!("{}: {}{closest}", row.subject, figures(row))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(subject: Subject, psnr: f64, bar: Option<f64>) -> Row {
        let accuracy = Accuracy {
            psnr,
            cosine: 1.0,
            max_error: 0.5,
        };
        Row {
            subject,
            accuracy,
            bar,
        }
    }

    const LAST: Subject = Subject::Latents {
        step: 7,
        last: true,
    };

    #[test]
    fn the_first_call_under_its_bar_departs() {
        let unet = |step| Subject::Call(Stage::Unet { step });
        let mut comparison = Comparison {
            rows: vec![
                row(Subject::Call(Stage::TextEncoder), 80.0, Some(65.0)),
                row(unet(0), 66.0, Some(65.0)),
                row(unet(1), 40.0, Some(65.0)),
                row(unet(2), f64::NAN, Some(65.0)),
                row(LAST, 30.0, Some(55.0)),
            ],
        };
        let stage = Stage::Unet { step: 1 };
        assert_eq!(
            comparison.first_departure().unwrap().subject,
            Subject::Call(stage)
        );
        assert_eq!(comparison.suspect(), Some(stage));
        let text = comparison.text();
        assert!(
            text.contains("unet, step 1: departs first: 40.0 dB, the bar is 65.0 dB"),
            "{text}"
        );

        comparison.rows.drain(2..4);
        assert_eq!(comparison.first_departure().unwrap().subject, LAST);
        assert_eq!(comparison.suspect(), Some(Stage::Unet { step: 0 }));
        let text = comparison.text();
        assert!(
            text.contains("run: final latents: 30.0 dB")
                && text.contains("unet, step 0 comes closest"),
            "{text}"
        );

        comparison.rows.pop();
        assert!(comparison.first_departure().is_none());
    }

    #[test]
    fn bars_follow_the_precision_and_the_flag() {
        let bars = |precision, least| Bars::of(precision, None, least).unwrap();
        assert_eq!(
            bars("f32", None),
            Bars {
                final_latents: 100.0,
                call: Some(100.0)
            }
        );
        assert_eq!(
            bars("f16", None),
            Bars {
                final_latents: 55.0,
                call: Some(65.0)
            }
        );
        assert_eq!(
            bars("f16", Some(60.0)),
            Bars {
                final_latents: 60.0,
                call: Some(60.0)
            }
        );
        assert_eq!(
            bars("f32", Some(120.0)),
            Bars {
                final_latents: 120.0,
                call: Some(100.0)
            }
        );
        let stored = |form, least| Bars::of("f16", Some(form), least);
        let coarse = Bars {
            final_latents: 30.0,
            call: None,
        };
        assert_eq!(stored("int8", None).unwrap(), coarse);
        assert_eq!(stored("palette6", None).unwrap(), coarse);
        assert!(stored("palette2", None).is_err());
        assert_eq!(stored("palette2", Some(20.0)).unwrap().call, None);
    }

    #[test]
    fn rows_are_documents() {
        let document = row(Subject::Call(Stage::Unet { step: 2 }), 70.0, Some(65.0)).document();
        assert_eq!(document["graph"], "unet");
        assert_eq!(
            (&document["step"], &document["ok"]),
            (&json!(2), &json!(true))
        );
        assert_eq!(document["bar_db"], 65.0);
        assert_eq!(row(Subject::Picture, 20.0, None).document()["ok"], true);
    }
}
