//! Plans: which blocks of a UNet go and which stand twice.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A part of a UNet that holds blocks. Ordered as the network runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// `down_blocks.N`.
    Down(usize),
    /// `mid_block`.
    Mid,
    /// `up_blocks.N`.
    Up(usize),
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Down(n) => write!(f, "down_blocks.{n}"),
            Stage::Mid => f.write_str("mid_block"),
            Stage::Up(n) => write!(f, "up_blocks.{n}"),
        }
    }
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlockKind {
    /// diffusers' `ResnetBlock2D`.
    Resnet,
    /// diffusers' `Transformer2DModel`.
    Attention,
}

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BlockKind::Resnet => "resnets",
            BlockKind::Attention => "attentions",
        })
    }
}

/// The diffusers name of a block of a UNet, such as `down_blocks.0.attentions.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockName {
    /// Where it stands.
    pub stage: Stage,
    /// What it is.
    pub kind: BlockKind,
    /// Its position among those of its kind in the stage.
    pub index: usize,
}

impl BlockName {
    /// The block that a module path lies in, the block's own path included.
    pub(super) fn of_module(path: &str) -> Option<Self> {
        let mut words = path.split('.');
        let stage = match words.next()? {
            "down_blocks" => Stage::Down(number(words.next()?)?),
            "mid_block" => Stage::Mid,
            "up_blocks" => Stage::Up(number(words.next()?)?),
            _ => return None,
        };
        let kind = match words.next()? {
            "resnets" => BlockKind::Resnet,
            "attentions" => BlockKind::Attention,
            _ => return None,
        };
        let index = number(words.next()?)?;
        Some(BlockName { stage, kind, index })
    }
}

/// A number without sign or leading zeros, so that every block has one name.
fn number(word: &str) -> Option<usize> {
    word.parse().ok().filter(|n: &usize| n.to_string() == word)
}

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.stage, self.kind, self.index)
    }
}

impl FromStr for BlockName {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let name = BlockName::of_module(text).filter(|name| name.to_string() == text);
        name.ok_or_else(|| PlanError::NotABlock {
            entry: text.to_owned(),
        })
    }
}

impl Serialize for BlockName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlockName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Why there is no such plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// No plan has that name.
    #[error("there is no plan '{name}'; known are {}", known_plans())]
    UnknownPlan {
        /// The name given.
        name: String,
    },
    /// An entry is not the name of a block.
    #[error(
        "'{entry}' does not name a block; blocks are down_blocks.N.KIND.N, mid_block.KIND.N and up_blocks.N.KIND.N, \
         where KIND is resnets or attentions"
    )]
    NotABlock {
        /// The entry.
        entry: String,
    },
    /// A block is named twice.
    #[error("the plan names '{entry}' more than once; a block can be removed or duplicated, once")]
    Repeated {
        /// The block.
        entry: BlockName,
    },
}

/// Which blocks of a UNet are removed and which get a copy behind them.
///
/// In JSON it is an object of two lists, each of which may be left out:
/// `{"remove": ["mid_block.resnets.1"], "duplicate": ["up_blocks.1.attentions.0"]}`. Where a plan is read, the name of one
/// may stand instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    remove: Vec<BlockName>,
    duplicate: Vec<BlockName>,
}

impl Plan {
    /// The plan of these blocks.
    ///
    /// # Errors
    /// When a block is named twice.
    pub fn new(remove: Vec<BlockName>, duplicate: Vec<BlockName>) -> Result<Self, PlanError> {
        let mut seen = BTreeSet::new();
        match remove.iter().chain(&duplicate).find(|b| !seen.insert(**b)) {
            Some(&entry) => Err(PlanError::Repeated { entry }),
            None => Ok(Plan { remove, duplicate }),
        }
    }

    /// The plan of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<Self, PlanError> {
        let found = NAMED_PLANS.iter().find(|plan| plan.name == name);
        let plan = found.ok_or_else(|| PlanError::UnknownPlan {
            name: name.to_owned(),
        })?;
        let blocks = |names: &[&str]| -> Result<Vec<BlockName>, PlanError> {
            names.iter().map(|name| name.parse()).collect()
        };
        Plan::new(blocks(plan.remove)?, blocks(plan.duplicate)?)
    }

    /// The blocks that go.
    pub fn remove(&self) -> &[BlockName] {
        &self.remove
    }

    /// The blocks that get a copy.
    pub fn duplicate(&self) -> &[BlockName] {
        &self.duplicate
    }
}

/// A plan with a name.
#[derive(Clone, Copy, Debug)]
pub struct NamedPlan {
    /// The name, to be given in place of a plan.
    pub name: &'static str,
    /// What it is.
    pub description: &'static str,
    /// The blocks that go.
    pub remove: &'static [&'static str],
    /// The blocks that get a copy.
    pub duplicate: &'static [&'static str],
}

/// The plans that have a name.
pub const NAMED_PLANS: &[NamedPlan] = &[NamedPlan {
    name: "snapfusion",
    description: "SD v1.5 to the efficient UNet of SnapFusion (arXiv 2306.00980, appendix, table 3), read in the one way \
                  that fits the skips",
    remove: &[
        "down_blocks.0.attentions.0",
        "down_blocks.0.attentions.1",
        "down_blocks.2.resnets.1",
        "down_blocks.3.resnets.1",
        "mid_block.resnets.1",
        "up_blocks.0.resnets.0",
        "up_blocks.1.resnets.0",
        "up_blocks.3.attentions.0",
        "up_blocks.3.attentions.1",
        "up_blocks.3.attentions.2",
    ],
    duplicate: &[
        "up_blocks.1.attentions.0",
        "up_blocks.1.attentions.1",
        "up_blocks.1.attentions.2",
    ],
}];

fn known_plans() -> String {
    let names: Vec<&str> = NAMED_PLANS.iter().map(|plan| plan.name).collect();
    names.join(", ")
}

/// A plan as its lists are written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Lists {
    remove: Vec<BlockName>,
    duplicate: Vec<BlockName>,
}

impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlanVisitor)
    }
}

struct PlanVisitor;

impl<'de> Visitor<'de> for PlanVisitor {
    type Value = Plan;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the name of a plan ({}) or an object of 'remove' and 'duplicate'",
            known_plans()
        )
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Plan, E> {
        Plan::named(name).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Plan, A::Error> {
        let Lists { remove, duplicate } = Lists::deserialize(MapAccessDeserializer::new(map))?;
        Plan::new(remove, duplicate).map_err(A::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Plan, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn a_plan_is_a_name_or_two_lists() {
        let plan = read(
            r#"{"remove": ["mid_block.resnets.1"], "duplicate": ["up_blocks.1.attentions.10"]}"#,
        );
        let plan = plan.unwrap();
        assert_eq!(
            plan.remove(),
            [BlockName {
                stage: Stage::Mid,
                kind: BlockKind::Resnet,
                index: 1
            }]
        );
        assert_eq!(
            plan.duplicate(),
            [BlockName {
                stage: Stage::Up(1),
                kind: BlockKind::Attention,
                index: 10
            }]
        );
        let written = serde_json::to_string(&plan).unwrap();
        assert_eq!(read(&written).unwrap(), plan);
        assert_eq!(read("{}").unwrap(), Plan::default());
        assert_eq!(
            read("\"snapfusion\"").unwrap(),
            Plan::named("snapfusion").unwrap()
        );
    }

    #[test]
    fn every_named_plan_can_be_made() {
        for named in NAMED_PLANS {
            let plan = Plan::named(named.name).unwrap();
            assert_eq!(
                plan.remove().len() + plan.duplicate().len(),
                named.remove.len() + named.duplicate.len()
            );
        }
    }

    #[test]
    fn errors_name_the_entry() {
        let text = |json: &str| read(json).unwrap_err();
        assert!(
            text("\"snapfuson\"").starts_with("there is no plan 'snapfuson'; known are snapfusion")
        );
        for bad in [
            "down_blocks.0",
            "down_blocks.0.downsamplers.0",
            "down_blocks.0.resnets.0.conv1",
            "down_blocks.00.resnets.0",
            "mid_block.0.resnets.0",
            "up_blocks.1.attentions.+1",
            "",
        ] {
            let message = text(&format!(r#"{{"remove": ["{bad}"]}}"#));
            assert!(
                message.starts_with(&format!("'{bad}' does not name a block; ")),
                "{message}"
            );
        }
        for json in [
            r#"{"remove": ["mid_block.resnets.1", "mid_block.resnets.1"]}"#,
            r#"{"remove": ["mid_block.resnets.1"], "duplicate": ["mid_block.resnets.1"]}"#,
        ] {
            assert!(
                text(json).starts_with("the plan names 'mid_block.resnets.1' more than once; ")
            );
        }
        assert!(text(r#"{"add": []}"#).contains("unknown field `add`"));
        assert!(
            text("3").contains(
                "the name of a plan (snapfusion) or an object of 'remove' and 'duplicate'"
            )
        );
    }
}
