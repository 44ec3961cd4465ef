//! Which ResNets and attentions a UNet's stages hold, and in which order.

use serde_json::{Map, Value};

use super::reader::ConfigReader;
use crate::error::ImportError;

/// Entries of one stage that a config may list.
const MAX_ENTRIES: usize = 256;

/// One step of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockEntry {
    /// The stage's `resnets.N`. In an up stage it first takes a skip and concatenates it behind its input.
    Resnet(usize),
    /// The stage's `attentions.N`, a spatial transformer.
    Attention(usize),
    /// Keeps the current tensor as a skip for the up stages.
    Skip,
}

impl BlockEntry {
    fn parse(word: &str) -> Option<Self> {
        if word == "skip" {
            return Some(BlockEntry::Skip);
        }
        let (kind, index) = word.split_once('.')?;
        let index = index.parse().ok().filter(|&i: &usize| i < MAX_ENTRIES)?;
        match kind {
            "resnets" => Some(BlockEntry::Resnet(index)),
            "attentions" => Some(BlockEntry::Attention(index)),
            _ => None,
        }
    }
}

/// The steps of all stages, in order. A step that stands twice shares its weights. Downsamplers and upsamplers stand
/// at the end of their stages and are not listed; `conv_in` and every downsampler also keep a skip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockPlan {
    /// Per down stage.
    pub down: Vec<Vec<BlockEntry>>,
    /// The middle; empty when there is none.
    pub mid: Vec<BlockEntry>,
    /// Per up stage.
    pub up: Vec<Vec<BlockEntry>>,
}

impl BlockPlan {
    /// The order of diffusers' `UNet2DConditionModel`: `layers` ResNets per down stage, one more per up stage, each
    /// followed by an attention where the stage has them; ResNet, attention, ResNet in the middle.
    pub(crate) fn stock(layers: &[usize], down: &[bool], mid: bool, up: &[bool]) -> Self {
        use BlockEntry::{Attention, Resnet, Skip};
        let stage = |layers: usize, attends: bool, skips: bool| {
            let layer = |i| {
                let attention = attends.then_some(Attention(i));
                let skip = skips.then_some(Skip);
                std::iter::once(Resnet(i)).chain(attention).chain(skip)
            };
            (0..layers).flat_map(layer).collect::<Vec<_>>()
        };
        let ups = layers.iter().rev().zip(up);
        BlockPlan {
            down: layers
                .iter()
                .zip(down)
                .map(|(&n, &a)| stage(n, a, true))
                .collect(),
            mid: if mid {
                vec![Resnet(0), Attention(0), Resnet(1)]
            } else {
                Vec::new()
            },
            up: ups.map(|(&n, &a)| stage(n + 1, a, false)).collect(),
        }
    }

    /// Reads the `blocks` key of a UNet config with `stages` stages.
    ///
    /// # Errors
    /// When an entry is unknown or the number of skips made and taken differs.
    pub(crate) fn read(reader: &ConfigReader<'_>, stages: usize) -> Result<Self, ImportError> {
        let expected = "an object of down_blocks, mid_block, up_blocks with entries \
                        resnets.N, attentions.N and, in down_blocks, skip";
        let error = || reader.unsupported("blocks", expected);
        let map: Map<String, Value> = reader.get("blocks", Map::new(), expected)?;
        let known = ["down_blocks", "mid_block", "up_blocks"];
        if map.keys().any(|k| !known.contains(&k.as_str())) {
            return Err(error());
        }
        let list = |key: &str| {
            let lists = map.get(key)?.as_array()?;
            lists.iter().map(entries).collect::<Option<Vec<_>>>()
        };
        let mid = match map.get("mid_block") {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(v) => entries(v),
        };
        let plan = BlockPlan {
            down: list("down_blocks").ok_or_else(error)?,
            mid: mid.ok_or_else(error)?,
            up: list("up_blocks").ok_or_else(error)?,
        };
        if plan.down.len() != stages || plan.up.len() != stages {
            let supported =
                format!("{stages} stages in down_blocks and up_blocks, as in block_out_channels");
            return Err(reader.unsupported("blocks", supported));
        }
        plan.check_skips(reader)?;
        Ok(plan)
    }

    fn check_skips(&self, reader: &ConfigReader<'_>) -> Result<(), ImportError> {
        let elsewhere = self.mid.iter().chain(self.up.iter().flatten());
        if elsewhere.clone().any(|e| *e == BlockEntry::Skip) {
            return Err(reader.unsupported("blocks", "skip in down_blocks only"));
        }
        let listed = self
            .down
            .iter()
            .flatten()
            .filter(|e| **e == BlockEntry::Skip)
            .count();
        // `conv_in` and every downsampler make one each.
        let made = listed + self.down.len();
        let resnet = |e: &&BlockEntry| matches!(e, BlockEntry::Resnet(_));
        let taken = self.up.iter().flatten().filter(resnet).count();
        if made == taken {
            return Ok(());
        }
        let supported = format!(
            "as many resnets in up_blocks ({taken}) as skips made by down_blocks, conv_in and downsamplers ({made})"
        );
        Err(reader.unsupported("blocks", supported))
    }
}

fn entries(value: &Value) -> Option<Vec<BlockEntry>> {
    let list = value.as_array().filter(|l| l.len() <= MAX_ENTRIES)?;
    list.iter()
        .map(|v| BlockEntry::parse(v.as_str()?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::BlockEntry::{Attention, Resnet, Skip};
    use super::*;
    use crate::config::parse_object;

    fn read(json: &str) -> Result<BlockPlan, ImportError> {
        let map = parse_object("unet/config.json", json.as_bytes()).unwrap();
        BlockPlan::read(&ConfigReader::new("unet/config.json", &map), 1)
    }

    #[test]
    fn entries_stand_in_the_order_given() {
        let plan = read(
            r#"{"blocks": {"down_blocks": [["resnets.0", "attentions.2", "skip"]], "mid_block": [],
                "up_blocks": [["resnets.1", "resnets.1"]]}}"#,
        );
        let plan = plan.unwrap();
        assert_eq!(plan.down, [[Resnet(0), Attention(2), Skip]]);
        assert_eq!(plan.up, [[Resnet(1), Resnet(1)]]);
    }

    #[test]
    fn the_stock_order_makes_as_many_skips_as_it_takes() {
        let plan = BlockPlan::stock(&[2, 1], &[true, false], true, &[false, true]);
        assert_eq!(
            plan.down[0],
            [Resnet(0), Attention(0), Skip, Resnet(1), Attention(1), Skip]
        );
        assert_eq!(plan.up[0], [Resnet(0), Resnet(1)]);
        assert_eq!(plan.up[1].len(), 6);
        let map = Map::new();
        assert!(plan.check_skips(&ConfigReader::new("f", &map)).is_ok());
    }

    #[test]
    fn unbalanced_skips_and_unknown_entries_are_refused() {
        let text = |json| read(json).unwrap_err().to_string();
        let unbalanced = text(r#"{"blocks": {"down_blocks": [["resnets.0"]], "up_blocks": [[]]}}"#);
        assert!(
            unbalanced.contains("resnets in up_blocks (0) as skips"),
            "{unbalanced}"
        );
        let misplaced = text(r#"{"blocks": {"down_blocks": [[]], "up_blocks": [["skip"]]}}"#);
        assert!(
            misplaced.contains("skip in down_blocks only"),
            "{misplaced}"
        );
        for bad in ["resnets.x", "resnets.999999", "pool.0", "resnets"] {
            let json =
                format!(r#"{{"blocks": {{"down_blocks": [["{bad}"]], "up_blocks": [[]]}}}}"#);
            assert!(read(&json).is_err(), "{bad}");
        }
    }
}
