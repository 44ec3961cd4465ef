//! A look over the bytes of a model before they are decoded.
//!
//! An empty message takes two bytes in a file and hundreds in memory, so the messages are counted first. The walk knows
//! the path to every kind of message that [`crate::proto`] declares and allocates nothing but a small stack.

use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};

/// Parts of a model (messages, names, lists) that are accepted. Stable Diffusion's UNet has some hundred thousand with
/// every exporter.
const MAX_PARTS: usize = 1 << 22;

/// Kinds of messages that are walked into.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    TensorType,
    Shape,
}

impl Kind {
    /// The kind of a field, when it is a message with parts.
    fn field(self, tag: u32) -> Option<Kind> {
        match (self, tag) {
            (Kind::Model, 7) => Some(Kind::Graph),
            (Kind::Graph, 1) => Some(Kind::Node),
            (Kind::Graph, 5) | (Kind::Attribute, 5) => Some(Kind::Tensor),
            (Kind::Graph, 11..=13) => Some(Kind::ValueInfo),
            (Kind::Node, 5) => Some(Kind::Attribute),
            (Kind::ValueInfo, 2) => Some(Kind::Type),
            (Kind::Type, 1) => Some(Kind::TensorType),
            (Kind::TensorType, 2) => Some(Kind::Shape),
            _ => None,
        }
    }
}

/// Checks that a model is well-formed down to its tensors and has an acceptable number of parts.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn check(model: &[u8]) -> Result<(), String> {
    let mut parts = 0;
    // Messages that are not walked through to their end yet, the innermost last; as deep as `Kind` nests.
    let mut open: Vec<(Kind, &[u8])> = vec![(Kind::Model, model)];
    while let Some((kind, mut rest)) = open.pop() {
        while rest.has_remaining() {
            let (tag, wire) = decode_key(&mut rest).map_err(|e| e.to_string())?;
            let Some(content) = content(&mut rest, wire)? else {
                continue;
            };
            parts += 1;
            if parts > MAX_PARTS {
                return Err(format!("more than {MAX_PARTS} parts"));
            }
            if let Some(inner) = kind.field(tag) {
                open.push((kind, rest));
                open.push((inner, content));
                break;
            }
        }
    }
    Ok(())
}

/// Takes the value of a field; gives it when it has a length of its own.
fn content<'a>(rest: &mut &'a [u8], wire: WireType) -> Result<Option<&'a [u8]>, String> {
    let fixed = match wire {
        WireType::Varint => {
            decode_varint(rest).map_err(|e| e.to_string())?;
            return Ok(None);
        }
        WireType::LengthDelimited => {
            let length = decode_varint(rest).map_err(|e| e.to_string())?;
            let length = usize::try_from(length).ok();
            let split = length.and_then(|n| rest.split_at_checked(n));
            let (content, after) = split.ok_or("a part is longer than what is left")?;
            *rest = after;
            return Ok(Some(content));
        }
        WireType::ThirtyTwoBit => 4,
        WireType::SixtyFourBit => 8,
        WireType::StartGroup | WireType::EndGroup => {
            return Err("it has a protobuf group, which ONNX does not use".to_owned());
        }
    };
    let (_, after) = rest
        .split_at_checked(fixed)
        .ok_or("it ends within a number")?;
    *rest = after;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_before_they_are_decoded() {
        // A graph of empty nodes: two bytes each.
        let graph = |nodes: usize| {
            let mut model = vec![0x3a];
            prost::encoding::encode_varint(2 * nodes as u64, &mut model);
            model.extend([0x0a, 0x00].repeat(nodes));
            model
        };
        assert_eq!(check(&graph(1000)), Ok(()));
        let error = check(&graph(MAX_PARTS)).unwrap_err();
        assert!(error.contains("parts"), "{error}");
    }

    #[test]
    fn lengths_and_groups_are_checked() {
        let error = check(&[0x3a, 0x05, 0x0a]).unwrap_err();
        assert!(error.contains("longer than what is left"), "{error}");
        let error = check(&[0x3b, 0x3c]).unwrap_err();
        assert!(error.contains("group"), "{error}");
        assert!(check(&[0x0d, 0x00]).is_err());
    }
}
