//! Mutations of protobuf messages that keep the lengths of nested messages right, without knowing their schema.
//!
//! Changing single bytes mostly breaks a length, so that decoding fails and the code behind it is not reached. Here a
//! message becomes a tree, one node of which is changed. Encoding: <https://protobuf.dev/programming-guides/encoding/>.

use crate::input::{join, split};

/// Messages are taken apart down to this depth; what lies deeper is bytes.
const MAX_DEPTH: usize = 12;

/// Numbers at which readers tend to go wrong.
const EDGES: [u64; 10] = [
    0,
    1,
    2,
    7,
    64,
    (1 << 16) - 1,
    (1 << 31) - 1,
    (1 << 32) - 1,
    (1 << 63) - 1,
    u64::MAX,
];

/// A field of a message.
#[derive(Clone, Debug, PartialEq)]
struct Field {
    number: u64,
    value: Value,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

/// libFuzzer's own mutation: changes the first bytes of a buffer, as many as the second argument says, to at most as many
/// as the third, and gives how many they are then.
pub type Change<'a> = &'a mut dyn FnMut(&mut [u8], usize, usize) -> usize;

/// Mutates an input of the form `[length of a message: u16 LE] [message] [data]` in place, as
/// `libfuzzer_sys::fuzz_mutator` asks for: mostly a node of the message, else any bytes.
pub fn mutate(
    buffer: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    change: Change<'_>,
) -> usize {
    let mut random = Random(u64::from(seed) | 1 << 32);
    let (message, data) = split(&buffer[..size]);
    let mutated = match random.below(8) {
        0 => None,
        1 => Some(join(message, &changed(data, change))),
        _ => mutate_message(message, &mut random, change).map(|m| join(&m, data)),
    };
    match mutated {
        Some(input) if input.len() <= max_size => {
            buffer[..input.len()].copy_from_slice(&input);
            input.len()
        }
        _ => change(buffer, size, max_size),
    }
}

/// A changed copy of some bytes, at most 16 longer.
fn changed(bytes: &[u8], change: Change<'_>) -> Vec<u8> {
    let mut buffer = bytes.to_vec();
    buffer.resize(bytes.len() + 16, 0);
    let max_size = buffer.len();
    let size = change(&mut buffer, bytes.len(), max_size);
    buffer.truncate(size);
    buffer
}

/// A mutated copy of a message, or `None` when the bytes are no message or it has no field.
fn mutate_message(message: &[u8], random: &mut Random, change: Change<'_>) -> Option<Vec<u8>> {
    let mut fields = decode(message, 0)?;
    let nodes = count(&fields);
    if nodes == 0 {
        return None;
    }
    let donor = nth(&mut fields, &mut random.below(nodes))?.clone();
    let mut target = random.below(nodes);
    match random.below(4) {
        0 => edit_list(&mut fields, &mut target, random),
        // A field takes the place of another one, mostly under its number.
        1 => {
            let field = nth(&mut fields, &mut target)?;
            let number = field.number;
            *field = donor;
            if random.below(4) > 0 {
                field.number = number;
            }
        }
        _ => change_value(nth(&mut fields, &mut target)?, random, change),
    }
    let mut out = Vec::new();
    encode(&fields, &mut out);
    Some(out)
}

fn change_value(field: &mut Field, random: &mut Random, change: Change<'_>) {
    match &mut field.value {
        Value::Varint(n) => {
            *n = match random.below(4) {
                0 => EDGES[random.below(EDGES.len())],
                1 => n.wrapping_add(1),
                2 => n.wrapping_sub(1),
                _ => *n ^ 1 << random.below(64),
            }
        }
        Value::Fixed64(bytes) => bytes[random.below(8)] = random.below(256) as u8,
        Value::Fixed32(bytes) => bytes[random.below(4)] = random.below(256) as u8,
        Value::Bytes(bytes) => *bytes = changed(bytes, change),
        Value::Message(inner) if random.below(8) == 0 => inner.clear(),
        Value::Message(inner) => {
            let mut encoded = Vec::new();
            encode(inner, &mut encoded);
            field.value = Value::Bytes(changed(&encoded, change));
        }
    }
}

/// Repeats, removes or moves the field at a position in the list that holds it.
fn edit_list(fields: &mut Vec<Field>, position: &mut usize, random: &mut Random) {
    for i in 0..fields.len() {
        if *position == 0 {
            let field = fields[i].clone();
            let place = random.below(fields.len());
            match random.below(3) {
                0 => fields.insert(place, field),
                1 => drop(fields.remove(i)),
                _ => fields.swap(i, place),
            }
            return;
        }
        *position -= 1;
        if let Value::Message(inner) = &mut fields[i].value {
            let inside = count(inner);
            if *position < inside {
                return edit_list(inner, position, random);
            }
            *position -= inside;
        }
    }
}

/// Number of fields, those of nested messages included.
fn count(fields: &[Field]) -> usize {
    let inside = fields.iter().map(|f| match &f.value {
        Value::Message(inner) => 1 + count(inner),
        _ => 1,
    });
    inside.sum()
}

/// The field at a position in the order of [`count`].
fn nth<'a>(fields: &'a mut [Field], position: &mut usize) -> Option<&'a mut Field> {
    for field in fields {
        if *position == 0 {
            return Some(field);
        }
        *position -= 1;
        if let Value::Message(inner) = &mut field.value {
            let inside = count(inner);
            if *position < inside {
                return nth(inner, position);
            }
            *position -= inside;
        }
    }
    None
}

/// The fields of a message; `None` when the bytes are not exactly some fields.
fn decode(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => Value::Fixed64(chunk(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (content, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                match decode(content, depth + 1) {
                    Some(inner) if depth < MAX_DEPTH && !inner.is_empty() => Value::Message(inner),
                    _ => Value::Bytes(content.to_vec()),
                }
            }
            5 => Value::Fixed32(chunk(&mut bytes)?),
            _ => return None,
        };
        let number = key >> 3;
        if number == 0 || number > u64::from(u32::MAX >> 3) {
            return None;
        }
        fields.push(Field { number, value });
    }
    Some(fields)
}

fn encode(fields: &[Field], out: &mut Vec<u8>) {
    for Field { number, value } in fields {
        let mut key = |wire_type: u64| put_varint(out, number << 3 | wire_type);
        match value {
            Value::Varint(n) => {
                key(0);
                put_varint(out, *n);
            }
            Value::Fixed64(bytes) => {
                key(1);
                out.extend(bytes);
            }
            Value::Fixed32(bytes) => {
                key(5);
                out.extend(bytes);
            }
            Value::Bytes(bytes) => {
                key(2);
                put_varint(out, bytes.len() as u64);
                out.extend(bytes);
            }
            Value::Message(inner) => {
                key(2);
                let mut encoded = Vec::new();
                encode(inner, &mut encoded);
                put_varint(out, encoded.len() as u64);
                out.extend(encoded);
            }
        }
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = chunk(bytes)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn chunk<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// Marsaglia's xorshift64; good enough to choose what to mutate. The state is never 0.
struct Random(u64);

impl Random {
    /// A number below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{1: 150, 2: "testing", 3: {1: 150}}`, the examples of the encoding guide, and a 32-bit 1 as field 4.
    const MESSAGE: &[u8] = b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01\x25\x01\x00\x00\x00";

    #[test]
    fn messages_round_trip() {
        let fields = decode(MESSAGE, 0).unwrap();
        assert_eq!(fields[0].value, Value::Varint(150));
        assert_eq!(fields[1].value, Value::Bytes(b"testing".to_vec()));
        assert!(matches!(&fields[2].value, Value::Message(inner) if *inner == fields[..1]));
        assert_eq!(count(&fields), 5);
        let mut out = Vec::new();
        encode(&fields, &mut out);
        assert_eq!(out, MESSAGE);
        assert_eq!(decode(&MESSAGE[..4], 0), None);
    }

    #[test]
    fn mutations_are_messages_again() {
        let input = join(MESSAGE, b"data");
        let mut buffer = input.clone();
        buffer.resize(64, 0);
        let mut different = 0;
        for seed in 0..2000 {
            buffer[..input.len()].copy_from_slice(&input);
            let mut keep = |_: &mut [u8], size: usize, _: usize| size;
            let size = mutate(&mut buffer, input.len(), 64, seed, &mut keep);
            let (message, data) = split(&buffer[..size]);
            assert!(decode(message, 0).is_some(), "{seed}: {message:?}");
            assert_eq!(data, b"data", "{seed}");
            different += usize::from(message != MESSAGE);
        }
        assert!(different > 1000, "{different} of 2000 differ");
    }
}
