//! Reads the generated table of types (`schemas.txt`) and the table of defaults (`defaults.txt`) into one
//! [`TypeSet`].
//!
//! The form is lines, because that parses in about a millisecond where JSON with the same content takes
//! several. Heads begin a type: `struct NAME [atomic]`, `enum NAME "VALUE"...`, `scalar NAME FORM`. A line that
//! begins with a space is a field of the struct above it:
//!
//! ```text
//!  containers! 2 []core.v1.Container map=name patch=merge:name default=[]
//! ```
//!
//! name (`!` when required, `~` when `""`, 0, false, `[]` and `{}` mean the same as absent), protobuf number, type, attributes. `[]` and `{}` are list and map of what
//! follows. A number `2.3` is field 3 of the message that is field 2, and `2.2.1` lies one deeper: JSON
//! inlines structs that protobuf keeps; [`schema::Property::protobuf`] says how it holds them.
//!
//! A damaged line is skipped: the table is generated, and a test reads every line of it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use schema::{Constraints, Format, ListType, MapType, Node, PatchStrategy, Property, Shape, TypeId, TypeSet};
use serde_json::Value;

use crate::canonical::Zeros;

const TYPES: &str = include_str!("schemas.txt");
const DEFAULTS: &str = include_str!("defaults.txt");

/// The built-in types, and which of their fields mean "unset" when they are zero.
pub(crate) struct Types {
    pub(crate) set: TypeSet,
    pub(crate) zeros: Zeros,
}

/// The whole table.
pub(crate) fn read() -> Types {
    let mut reader = Reader::new(TYPES, DEFAULTS);
    reader.reserve(TYPES);
    reader.fill(TYPES);
    Types { set: reader.set, zeros: reader.zeros }
}

/// State of one reading.
struct Reader<'a> {
    set: TypeSet,
    zeros: Zeros,
    packages: BTreeMap<&'a str, &'a str>,
    ids: BTreeMap<&'a str, TypeId>,
    /// (type, field) -> default; overrides what the types say.
    /// Whether the field's zero gives way to it, too.
    defaults: BTreeMap<(&'a str, &'a str), (bool, Arc<Value>)>,
    anonymous: BTreeMap<(&'a str, &'a str), TypeId>,
}

impl<'a> Reader<'a> {
    fn new(types: &'a str, defaults: &'a str) -> Self {
        let packages = types
            .lines()
            .filter_map(|line| line.strip_prefix("package ")?.split_once(' '))
            .collect::<BTreeMap<_, _>>();
        let defaults = defaults
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .filter_map(|line| {
                let (path, value) = line.split_once(' ')?;
                let (of, field) = path.rsplit_once('.')?;
                let (field, zero) = field.strip_suffix('~').map_or((field, false), |field| (field, true));
                Some(((of, field), (zero, Arc::new(serde_json::from_str(value).ok()?))))
            })
            .collect();
        let mut set = TypeSet::new();
        let mut ids = BTreeMap::new();
        for (name, shape) in [
            ("any", Shape::Any),
            ("string", Shape::String(Format::None)),
            ("byte", Shape::String(Format::Byte)),
            ("bool", Shape::Boolean),
            ("int32", Shape::Integer(Format::Int32)),
            ("int64", Shape::Integer(Format::Int64)),
            ("float", Shape::Number(Format::Float)),
            ("double", Shape::Number(Format::Double)),
        ] {
            ids.insert(name, set.add(Node { shape, ..Node::default() }));
        }
        Self { set, zeros: Zeros::new(), packages, ids, defaults, anonymous: BTreeMap::new() }
    }

    /// Gives every named type its place, so that fields may refer to types further down.
    fn reserve(&mut self, types: &'a str) {
        for line in types.lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(head), Some(name)) = (words.next(), words.next()) else { continue };
            let rest = words.next().unwrap_or_default();
            let node = match head {
                "struct" => Node { name: self.full(name), ..Node::default() },
                "enum" => enumeration(rest),
                "scalar" => Node { name: self.full(name), shape: scalar(rest), ..Node::default() },
                _ => continue,
            };
            let id = self.set.add(node);
            self.ids.insert(name, id);
        }
    }

    fn full(&self, name: &str) -> Option<Arc<str>> {
        let (package, name) = name.rsplit_once('.')?;
        Some(format!("{}.{name}", self.packages.get(package)?).into())
    }

    fn fill(&mut self, types: &'a str) {
        let mut lines = types.lines().peekable();
        while let Some(line) = lines.next() {
            let Some(head) = line.strip_prefix("struct ") else { continue };
            let (name, atomic) = match head.split_once(' ') {
                Some((name, _)) => (name, true),
                None => (head, false),
            };
            let mut properties = BTreeMap::new();
            let mut required = Vec::new();
            let mut zeros = HashSet::new();
            while let Some(field) = lines.peek().and_then(|line| line.strip_prefix(' ')) {
                lines.next();
                if let Some((key, property, zero)) = self.field(name, field) {
                    match zero {
                        Zero::Missing => required.push(key.clone()),
                        Zero::Unset => {
                            zeros.insert(key.clone());
                        }
                        Zero::Value => {}
                    }
                    properties.insert(key, property);
                }
            }
            let map_type = if atomic { MapType::Atomic } else { MapType::Granular };
            let shape = Shape::Struct {
                properties,
                required: required.into(),
                preserve_unknown: false,
                embedded: false,
                map_type,
            };
            if let Some(id) = self.ids.get(name) {
                self.set.replace(*id, Node { name: self.full(name), shape, ..Node::default() });
                self.zeros.insert(*id, zeros);
            }
        }
    }

    fn field(&mut self, of: &'a str, line: &'a str) -> Option<(Arc<str>, Property, Zero)> {
        let (line, written) = match line.split_once(" default=") {
            Some((line, value)) => (line, serde_json::from_str::<Value>(value).ok().map(Arc::new)),
            None => (line, None),
        };
        let mut words = line.split(' ');
        let name = words.next()?;
        let (name, zero) = match (name.strip_suffix('!'), name.strip_suffix('~')) {
            (Some(name), _) => (name, Zero::Missing),
            (None, Some(name)) => (name, Zero::Unset),
            (None, None) => (name, Zero::Value),
        };
        let number = protobuf(words.next()?)?;
        let form = words.next()?;
        let (mut patch, mut attribute) = (None, "");
        for word in words {
            match word.strip_prefix("patch=") {
                Some(directive) => patch = Some(patch_strategy(directive)),
                None if word == "nullable" => {}
                None => attribute = word,
            }
        }
        let (default, zero) = match self.defaults.get(&(of, name)) {
            Some((true, default)) => (Some(default.clone()), Zero::Unset),
            Some((false, default)) => (Some(default.clone()), zero),
            None => (written, zero),
        };
        let property = Property { of: self.form(form, attribute)?, default, patch, protobuf: number };
        Some((name.into(), property, zero))
    }

    /// The type that an expression with its attribute means; equal ones share a node.
    fn form(&mut self, form: &'a str, attribute: &'a str) -> Option<TypeId> {
        if let Some(id) = self.anonymous.get(&(form, attribute)) {
            return Some(*id);
        }
        let shape = if let Some(item) = form.strip_prefix("[]") {
            Shape::List { items: self.form(item, "")?, list_type: list_type(attribute) }
        } else if let Some(value) = form.strip_prefix("{}") {
            Shape::Map { values: self.form(value, "")?, map_type: map_type(attribute) }
        } else {
            let id = *self.ids.get(form)?;
            if attribute.is_empty() {
                return Some(id);
            }
            // A field that treats a shared struct differently (PersistentVolume's `claimRef` is granular
            // although ObjectReference is atomic) has a copy. Types are sorted, so the original is filled.
            return Some(self.variant(id, attribute));
        };
        let id = self.set.add(Node { shape, ..Node::default() });
        self.anonymous.insert((form, attribute), id);
        Some(id)
    }

    fn variant(&mut self, of: TypeId, attribute: &str) -> TypeId {
        let mut node = self.set.node(of).clone();
        node.name = None;
        if let Shape::Struct { map_type: slot, .. } = &mut node.shape {
            *slot = map_type(attribute);
        }
        self.set.add(node)
    }
}

/// What the zero of a field means.
enum Zero {
    /// The field is required; its zero stands for nothing better.
    Missing,
    /// The same as not setting it.
    Unset,
    /// Itself.
    Value,
}

fn scalar(form: &str) -> Shape {
    match form {
        "date-time" => Shape::String(Format::DateTime),
        "micro-time" => Shape::String(Format::MicroTime),
        "quantity" => Shape::String(Format::Quantity),
        "int-or-string" => Shape::IntOrString,
        "string" => Shape::String(Format::None),
        _ => Shape::Any,
    }
}

fn enumeration(values: &str) -> Node {
    // Quoted, one after the other; a value may hold blanks.
    let values = serde_json::Deserializer::from_str(values).into_iter().map_while(Result::ok).collect();
    let constraints = Constraints { enumeration: values, ..Constraints::default() };
    Node { shape: Shape::String(Format::None), constraints: Some(Box::new(constraints)), ..Node::default() }
}

fn protobuf(number: &str) -> Option<u32> {
    let mut numbers = number.rsplit('.').map(str::parse::<u32>);
    let mut place = numbers.next()?.ok()?;
    for (outer, shift) in numbers.zip([16, 24]) {
        place |= outer.ok()? << shift;
    }
    Some(place)
}

fn patch_strategy(directive: &str) -> PatchStrategy {
    let (strategies, key) = directive.split_once(':').unwrap_or((directive, ""));
    PatchStrategy {
        merge: strategies.split(',').any(|strategy| strategy == "merge"),
        retain_keys: strategies.split(',').any(|strategy| strategy == "retainKeys"),
        merge_key: (!key.is_empty()).then(|| key.into()),
    }
}

fn list_type(attribute: &str) -> ListType {
    match attribute.split_once('=') {
        Some(("map", keys)) => ListType::Map(keys.split(',').map(Arc::from).collect()),
        _ if attribute == "set" => ListType::Set,
        _ if attribute == "atomic" => ListType::Atomic,
        _ => ListType::Unspecified,
    }
}

fn map_type(attribute: &str) -> MapType {
    if attribute == "atomic" { MapType::Atomic } else { MapType::Granular }
}
