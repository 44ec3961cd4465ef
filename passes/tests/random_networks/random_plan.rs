//! Random plans for a UNet, and the order of blocks that they leave, worked out from channels and skips alone.

use serde_json::Value;

use crate::numbers::Numbers;
use crate::settings::StockOrder;

/// A plan and what it makes of the stock order.
pub struct RandomPlan {
    pub remove: Vec<String>,
    pub duplicate: Vec<String>,
    pub order: StockOrder,
}

/// The ResNet before a skip, that is the layer's, and whether the plan takes it away.
#[derive(Clone, Copy)]
struct Skip {
    /// Stage and position of the word `skip`; `None` for `conv_in` and downsamplers.
    place: Option<(usize, usize)>,
    goes: bool,
}

impl RandomPlan {
    /// A plan that fits the network of this configuration.
    pub fn new(config: &Value, stock: StockOrder, numbers: &mut Numbers) -> Self {
        let widths: Vec<usize> = config["block_out_channels"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|n| n.as_u64().expect("a number") as usize)
            .collect();
        let mut plan = RandomPlan {
            remove: Vec::new(),
            duplicate: Vec::new(),
            order: stock.clone(),
        };
        let mut skips = vec![Skip {
            place: None,
            goes: false,
        }];
        let mut dropped: Vec<(usize, usize)> = Vec::new();
        let mut channels = widths[0];
        for (stage, words) in stock.down.iter().enumerate() {
            let mut goes = false;
            for (position, word) in words.iter().enumerate() {
                let keeps_type = word.starts_with("attentions") || channels == widths[stage];
                if word == "skip" {
                    skips.push(Skip {
                        place: Some((stage, position)),
                        goes,
                    });
                    continue;
                }
                channels = widths[stage];
                let removed = keeps_type && numbers.chance(30);
                if word.starts_with("resnets") {
                    goes = removed;
                }
                plan.choose(
                    &format!("down_blocks.{stage}.{word}"),
                    removed,
                    keeps_type,
                    numbers,
                );
            }
            if stage + 1 < widths.len() {
                skips.push(Skip {
                    place: None,
                    goes: false,
                });
            }
        }
        for word in &stock.mid {
            let removed = numbers.chance(30);
            plan.choose(&format!("mid_block.{word}"), removed, true, numbers);
        }
        for (stage, words) in stock.up.iter().enumerate() {
            let width = widths[widths.len() - 1 - stage];
            for word in words {
                let mut removed = numbers.chance(30);
                let is_resnet = word.starts_with("resnets");
                if is_resnet {
                    let skip = skips.pop().expect("as many skips as resnets");
                    removed = skip.goes && channels == width && numbers.chance(60);
                    dropped.extend(skip.place.filter(|_| removed));
                }
                channels = width;
                plan.choose(
                    &format!("up_blocks.{stage}.{word}"),
                    removed,
                    !is_resnet,
                    numbers,
                );
            }
        }
        for (stage, position) in dropped {
            "dropped".clone_into(&mut plan.order.down[stage][position]);
        }
        plan.edit_order();
        plan
    }

    fn choose(&mut self, block: &str, removed: bool, may_stand_twice: bool, numbers: &mut Numbers) {
        if removed {
            self.remove.push(block.to_owned());
        } else if may_stand_twice && numbers.chance(20) {
            self.duplicate.push(block.to_owned());
        }
    }

    /// Takes out what goes and puts copies behind what stands twice.
    fn edit_order(&mut self) {
        let StockOrder { down, mid, up } = &mut self.order;
        let downs = down
            .iter_mut()
            .enumerate()
            .map(|(i, words)| (format!("down_blocks.{i}"), words));
        let ups = up
            .iter_mut()
            .enumerate()
            .map(|(i, words)| (format!("up_blocks.{i}"), words));
        for (stage, words) in downs.chain([("mid_block".to_owned(), mid)]).chain(ups) {
            let count = |kind: &str| words.iter().filter(|word| word.starts_with(kind)).count();
            let (mut resnets, mut attentions) = (count("resnets"), count("attentions"));
            let mut edited = Vec::new();
            for word in words.iter() {
                let block = format!("{stage}.{word}");
                if word != "dropped" && !self.remove.contains(&block) {
                    edited.push(word.clone());
                }
                if self.duplicate.contains(&block) {
                    let (kind, next) = match word.starts_with("resnets") {
                        true => ("resnets", &mut resnets),
                        false => ("attentions", &mut attentions),
                    };
                    edited.push(format!("{kind}.{next}"));
                    *next += 1;
                }
            }
            *words = edited;
        }
    }
}
