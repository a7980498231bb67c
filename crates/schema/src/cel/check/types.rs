//! The types that an expression's parts have before it runs, as far as they are known.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::super::convert::unescape;
use crate::{Format, Schema, Shape, TypeId, TypeSet};

/// A type. [`Type::Dyn`] is everything that is not known: it goes with all others.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Not known.
    Dyn,
    /// Null.
    Null,
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// A whole number that is not negative.
    Uint,
    /// A number.
    Double,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// A time.
    Timestamp,
    /// A length of time.
    Duration,
    /// A list.
    List(Box<Type>),
    /// A map from keys to values.
    Map(Box<Type>, Box<Type>),
    /// A value that may be missing.
    Optional(Box<Type>),
    /// A type that only functions know, by its name.
    Opaque(&'static str),
    /// Fields that are written out.
    Record(Arc<Record>),
    /// What a schema describes.
    Object(Described),
    /// The element of a list that has none, which becomes any other type.
    Free,
    /// A parameter of a function's signature.
    Param(char),
}

/// Fields and their types, for what has no schema.
#[derive(Debug, PartialEq)]
pub struct Record {
    name: &'static str,
    fields: BTreeMap<String, Type>,
}

/// A type of a schema.
#[derive(Clone, Debug)]
pub struct Described {
    set: Arc<TypeSet>,
    of: TypeId,
    /// What errors call it.
    name: Arc<str>,
    view: View,
}

/// How values are shown to the expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// As rules see them: with times, durations and bytes; undeclared fields are not there.
    Typed,
    /// The same, of which only the names in the metadata are visible: the root, and an embedded object.
    Root,
    /// As policies see them: the JSON itself, so that formats and numbers are left open, and undeclared fields that are
    /// kept may be there.
    Plain,
}

impl PartialEq for Described {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.set, &other.set) && self.of == other.of
    }
}

/// What selecting a field gives.
pub(super) enum Selected {
    Field(Type),
    Undefined,
    Unsupported,
}

impl Type {
    /// A type with these fields.
    pub fn record<N: Into<String>>(name: &'static str, fields: impl IntoIterator<Item = (N, Type)>) -> Self {
        let fields = fields.into_iter().map(|(name, of)| (name.into(), of)).collect();
        Self::Record(Arc::new(Record { name, fields }))
    }

    /// A list of these.
    pub fn list(of: Type) -> Self {
        Self::List(Box::new(of))
    }

    /// A map from text to these.
    pub fn map(values: Type) -> Self {
        Self::Map(Box::new(Self::String), Box::new(values))
    }

    /// What a schema describes, as a policy sees it; `name` is what errors call it.
    pub fn plain(schema: &Schema, name: &str) -> Self {
        of(schema.set(), schema.root(), name.into(), View::Plain)
    }

    /// A type of a schema as rules see it.
    pub(in crate::cel) fn typed(set: &Arc<TypeSet>, id: TypeId, root: bool) -> Self {
        of(set, id, "object".into(), if root { View::Root } else { View::Typed })
    }

    /// A value that may be missing.
    pub(in crate::cel) fn optional(of: Type) -> Self {
        match of {
            // Optionals do not nest.
            Self::Optional(_) => of,
            of => Self::Optional(Box::new(of)),
        }
    }

    /// A field of it.
    pub(super) fn select(&self, field: &str) -> Selected {
        match self {
            Self::Dyn | Self::Free => Selected::Field(Self::Dyn),
            Self::Map(_, values) => Selected::Field((**values).clone()),
            Self::Optional(of) => match of.select(field) {
                Selected::Field(of) => Selected::Field(Self::optional(of)),
                other => other,
            },
            Self::Record(record) => match record.fields.get(field) {
                Some(of) => Selected::Field(of.clone()),
                None => Selected::Undefined,
            },
            Self::Object(described) => described.select(field),
            _ => Selected::Unsupported,
        }
    }

    /// The more general of two types that go together; `None` where they do not.
    pub(super) fn join(&self, other: &Self) -> Option<Self> {
        Some(match (self, other) {
            (Self::Free, of) | (of, Self::Free) => of.clone(),
            (Self::Dyn, _) | (_, Self::Dyn) => Self::Dyn,
            (Self::List(a), Self::List(b)) => Self::list(a.join(b)?),
            (Self::Map(a, x), Self::Map(b, y)) => Self::Map(Box::new(a.join(b)?), Box::new(x.join(y)?)),
            (Self::Optional(a), Self::Optional(b)) => Self::Optional(Box::new(a.join(b)?)),
            (Self::Null, of) | (of, Self::Null) if of.may_be_null() => of.clone(),
            // Two descriptions of one thing are not told apart by where they come from.
            (
                Self::Object(_) | Self::Record(_) | Self::Map(..),
                Self::Object(_) | Self::Record(_) | Self::Map(..),
            ) if self != other => Self::Dyn,
            (a, b) if a == b => a.clone(),
            _ => return None,
        })
    }

    fn may_be_null(&self) -> bool {
        match self {
            Self::Null
            | Self::Timestamp
            | Self::Duration
            | Self::List(_)
            | Self::Map(..)
            | Self::Optional(_)
            | Self::Opaque(_)
            | Self::Record(_)
            | Self::Object(_) => true,
            Self::Dyn
            | Self::Bool
            | Self::Int
            | Self::Uint
            | Self::Double
            | Self::String
            | Self::Bytes
            | Self::Free
            | Self::Param(_) => false,
        }
    }
}

/// In the words of cel-go (`common/types/types.go`, `checker/format.go`).
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn | Self::Free => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(of) => write!(f, "list({of})"),
            Self::Map(keys, values) => write!(f, "map({keys}, {values})"),
            Self::Optional(of) => write!(f, "optional_type({of})"),
            Self::Opaque(name) => f.write_str(name),
            Self::Record(record) => f.write_str(record.name),
            Self::Object(described) => f.write_str(&described.name),
            Self::Param(name) => write!(f, "{name}"),
        }
    }
}

impl Described {
    fn select(&self, field: &str) -> Selected {
        let Shape::Struct { properties, preserve_unknown, .. } = &self.set.node(self.of).shape else {
            return Selected::Field(Type::Dyn);
        };
        let plain = unescape(field);
        if self.view == View::Root && plain == "metadata" {
            let names = [("name", Type::String), ("generateName", Type::String)];
            return Selected::Field(Type::record("object", names));
        }
        match properties.get(plain.as_str()) {
            Some(property) => {
                let view = if self.view == View::Plain { View::Plain } else { View::Typed };
                Selected::Field(of(&self.set, property.of, format!("{}.{plain}", self.name).into(), view))
            }
            None if self.view == View::Plain && (*preserve_unknown || properties.is_empty()) => {
                Selected::Field(Type::Dyn)
            }
            None => Selected::Undefined,
        }
    }
}

fn of(set: &Arc<TypeSet>, id: TypeId, name: Arc<str>, view: View) -> Type {
    let node = set.node(id);
    let below = |id: TypeId, step: &str| {
        of(set, id, format!("{name}.{step}").into(), if view == View::Plain { view } else { View::Typed })
    };
    let known = match &node.shape {
        Shape::Any | Shape::IntOrString => Type::Dyn,
        Shape::Boolean => Type::Bool,
        Shape::Integer(_) => Type::Int,
        Shape::Number(_) if view == View::Plain => Type::Dyn,
        Shape::Number(_) => Type::Double,
        Shape::String(format) => {
            let named = node.constraints.as_ref().and_then(|c| c.format.as_deref()).unwrap_or_default();
            text(*format, named, view)
        }
        Shape::Struct { embedded, .. } => {
            let view = if view == View::Typed && *embedded { View::Root } else { view };
            return Type::Object(Described { set: set.clone(), of: id, name, view });
        }
        Shape::Map { values, .. } => return Type::map(below(*values, "@elem")),
        Shape::List { items, .. } => return Type::list(below(*items, "@idx")),
    };
    // A null that is a value of its own makes a plain type two.
    if node.nullable { Type::Dyn } else { known }
}

fn text(format: Format, named: &str, view: View) -> Type {
    let typed = match (format, named) {
        (Format::DateTime | Format::MicroTime, _) | (_, "date" | "date-time") => Type::Timestamp,
        (_, "duration") => Type::Duration,
        (Format::Byte, _) | (_, "byte") => Type::Bytes,
        (Format::Quantity, _) => Type::Dyn,
        _ => return Type::String,
    };
    // A policy sees the text.
    if view == View::Plain { Type::Dyn } else { typed }
}
