//! Attributes of nodes.

use crate::proto::{
    ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_INTS, ATTRIBUTE_STRING, AttributeProto,
};

fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        kind: Some(kind),
        ..AttributeProto::default()
    }
}

/// An integer.
pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        i: Some(value),
        ..attribute(name, ATTRIBUTE_INT)
    }
}

/// Several integers.
pub(crate) fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        ints: values.iter().map(|&v| v as i64).collect(),
        ..attribute(name, ATTRIBUTE_INTS)
    }
}

/// A float.
pub(crate) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        f: Some(value),
        ..attribute(name, ATTRIBUTE_FLOAT)
    }
}

/// A string.
pub(crate) fn string(name: &str, value: &str) -> AttributeProto {
    AttributeProto {
        s: Some(value.as_bytes().to_vec()),
        ..attribute(name, ATTRIBUTE_STRING)
    }
}
