//! Inputs that hold integers as floats.

use std::collections::BTreeSet;

use crate::proto::{Block, Bound, Content, Elements, Operation, Value};

/// Whether a value is used, and each time to be cast to an integer type.
pub(super) fn only_integers(name: &str, block: &Block) -> bool {
    let words = block.operations.iter().filter(|o| o.kind == "const");
    let integer_words: BTreeSet<&str> = words
        .filter(|o| is_integer_word(o.attributes.get("val")))
        .flat_map(|o| &o.outputs)
        .map(|o| o.name.as_str())
        .collect();
    let binds = |bound: &Option<Bound>| matches!(bound, Some(Bound::Name(n)) if n == name);
    let is_user = |o: &&Operation| {
        let mut bindings = o.inputs.values().flat_map(|a| &a.arguments);
        bindings.any(|b| binds(&b.bound))
    };
    let casts = |o: &Operation| {
        let dtype = o.inputs.get("dtype").and_then(|a| a.arguments.first());
        o.kind == "cast"
            && match dtype.and_then(|b| b.bound.as_ref()) {
                Some(Bound::Name(n)) => integer_words.contains(n.as_str()),
                Some(Bound::Value(value)) => is_integer_word(Some(value)),
                None => false,
            }
    };
    let mut users = block.operations.iter().filter(is_user).peekable();
    users.peek().is_some() && users.all(casts) && !block.outputs.iter().any(|o| o == name)
}

/// Whether a constant is the name of an integer type.
fn is_integer_word(value: Option<&Value>) -> bool {
    let Some(Content::Immediate(immediate)) = value.and_then(|v| v.content.as_ref()) else {
        return false;
    };
    let elements = immediate.tensor.as_ref().and_then(|t| t.elements.as_ref());
    matches!(elements, Some(Elements::Strings(list))
        if list.values.first().is_some_and(|w| w.contains("int")))
}
