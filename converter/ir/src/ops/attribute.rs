//! Attribute values, as the text form writes them.

use std::collections::BTreeMap;

use crate::types::{DType, Dim};

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A count, an index or a size.
    Int(usize),
    /// Several of them.
    Ints(Vec<usize>),
    /// A shape, possibly with the batch.
    Dims(Vec<Dim>),
    /// A number.
    Float(f32),
    /// A truth value.
    Bool(bool),
    /// An element type.
    DType(DType),
}

/// Why attributes do not make an operator.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttributeError {
    /// No operator has this name.
    #[error("unknown operator '{0}'")]
    UnknownOperator(String),
    /// An attribute of the operator is not given.
    #[error("attribute '{0}' is missing")]
    Missing(&'static str),
    /// An attribute that the operator does not have is given.
    #[error("unknown attribute '{0}'")]
    Unknown(String),
    /// The value is of another kind.
    #[error("attribute '{name}' must be {expected}")]
    Kind {
        /// The attribute.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
    },
}

/// Attributes by name, taken out one by one while an operator is made.
#[derive(Clone, Debug, Default)]
pub struct AttributeMap(pub BTreeMap<String, Attribute>);

impl AttributeMap {
    /// Removes and converts an attribute.
    ///
    /// # Errors
    /// When it is missing or of another kind.
    pub fn take<T: AttributeValue>(&mut self, name: &'static str) -> Result<T, AttributeError> {
        let value = self.0.remove(name).ok_or(AttributeError::Missing(name))?;
        let expected = T::KIND;
        T::from_attribute(&value).ok_or(AttributeError::Kind { name, expected })
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// Names the first attribute that was not taken.
    pub fn finish(self) -> Result<(), AttributeError> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(AttributeError::Unknown(name)),
        }
    }
}

/// A field type that can be an attribute.
pub trait AttributeValue: Sized {
    /// What the attribute must be, for messages.
    const KIND: &'static str;

    /// As an attribute.
    fn to_attribute(&self) -> Attribute;

    /// From an attribute of the right kind.
    fn from_attribute(attribute: &Attribute) -> Option<Self>;
}

macro_rules! attribute_value {
    ($ty:ty, $variant:ident, $kind:literal) => {
        impl AttributeValue for $ty {
            const KIND: &'static str = $kind;

            fn to_attribute(&self) -> Attribute {
                Attribute::$variant(self.clone().into())
            }

            fn from_attribute(attribute: &Attribute) -> Option<Self> {
                match attribute {
                    Attribute::$variant(v) => v.clone().try_into().ok(),
                    _ => None,
                }
            }
        }
    };
}

attribute_value!(usize, Int, "an integer");
attribute_value!(f32, Float, "a number");
attribute_value!(bool, Bool, "true or false");
attribute_value!(DType, DType, "an element type");
attribute_value!(Vec<usize>, Ints, "a list of integers");
attribute_value!([usize; 2], Ints, "a list of 2 integers");
attribute_value!([usize; 4], Ints, "a list of 4 integers");

impl AttributeValue for Vec<Dim> {
    const KIND: &'static str = "a shape";

    fn to_attribute(&self) -> Attribute {
        Attribute::Dims(self.clone())
    }

    fn from_attribute(attribute: &Attribute) -> Option<Self> {
        match attribute {
            Attribute::Dims(v) => Some(v.clone()),
            Attribute::Ints(v) => Some(v.iter().copied().map(Dim::Fixed).collect()),
            _ => None,
        }
    }
}

/// Declares an operator's struct and both directions of its attributes.
macro_rules! operator {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $ty:ty),* $(,)? } $($body:tt)*) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty),* }

        impl $crate::ops::Operator for $name {
            fn attributes(&self) -> Vec<(&'static str, $crate::ops::Attribute)> {
                vec![$((
                    stringify!($field),
                    $crate::ops::AttributeValue::to_attribute(&self.$field),
                )),*]
            }

            fn from_attributes(
                attributes: &mut $crate::ops::AttributeMap,
            ) -> Result<Self, $crate::ops::AttributeError> {
                let _ = &attributes;
                Ok($name { $($field: attributes.take(stringify!($field))?),* })
            }

            $($body)*
        }
    };
}
pub(crate) use operator;
