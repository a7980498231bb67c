//! The table of messages, read once from `messages.txt`.

use std::{collections::BTreeMap, sync::LazyLock};

/// The type of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    String,
    Bool,
    /// Base64.
    Bytes,
    /// An integer from the first to the last, inclusive.
    Integer(i128, i128),
    Double,
    /// Seconds with an `s`, such as `1.5s`.
    Duration,
    /// RFC 3339.
    Timestamp,
    /// An object without fields.
    Empty,
    /// Any object.
    Struct,
    /// Anything.
    Open,
    /// One of these names.
    Enum(Vec<&'static str>),
    /// An object of this message.
    Message(&'static str),
}

/// How often a value occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    One,
    List,
    Map,
}

/// One field of a message.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    /// The group of which at most one member may be set; empty for none.
    pub(crate) group: &'static str,
    /// It (or one of its group) has to be set.
    pub(crate) required: bool,
    pub(crate) shape: Shape,
    pub(crate) of: Type,
}

/// Every message by name.
pub(crate) type Table = BTreeMap<&'static str, Vec<Field>>;

static TABLE: LazyLock<Table> = LazyLock::new(|| parse(include_str!("messages.txt")));

/// The table of this release.
pub(crate) fn table() -> &'static Table {
    &TABLE
}

fn parse(text: &'static str) -> Table {
    let mut table = Table::new();
    let mut message = "";
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        match line.strip_prefix("  ") {
            None => {
                message = line.trim();
                table.entry(message).or_default();
            }
            Some(line) => table.entry(message).or_default().push(field(line)),
        }
    }
    table
}

fn field(line: &'static str) -> Field {
    let (name, rest) = line.split_once(' ').unwrap_or((line, "open"));
    let (group, name) = name.split_once('/').unwrap_or(("", name));
    let required = group.ends_with('!') || name.ends_with('!');
    let (shape, of) = match rest.split_once(' ') {
        Some(("repeated", of)) => (Shape::List, of),
        Some(("map", of)) => (Shape::Map, of),
        _ => (Shape::One, rest),
    };
    Field {
        name: name.trim_end_matches('!'),
        group: group.trim_end_matches('!'),
        required,
        shape,
        of: kind(of),
    }
}

/// A type from its name.
pub(crate) fn kind(text: &'static str) -> Type {
    match text {
        "string" => Type::String,
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "int32" => Type::Integer(i32::MIN.into(), i32::MAX.into()),
        "uint32" => Type::Integer(0, u32::MAX.into()),
        "int64" => Type::Integer(i64::MIN.into(), i64::MAX.into()),
        "uint64" => Type::Integer(0, u64::MAX.into()),
        "double" => Type::Double,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "empty" => Type::Empty,
        "struct" => Type::Struct,
        "open" | "value" => Type::Open,
        other => match other.strip_prefix("enum(").and_then(|names| names.strip_suffix(')')) {
            Some(names) => Type::Enum(names.split('|').collect()),
            None => Type::Message(other),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_that_a_field_names_is_in_the_table() {
        for (message, fields) in table() {
            for field in fields {
                if let Type::Message(of) = field.of {
                    assert!(table().contains_key(of), "{message}.{}: no message {of}", field.name);
                }
            }
        }
        assert!(table().len() > 100);
    }
}
