//! The one schema form for all kinds. It carries what upstream spreads over OpenAPI, Go tags and code:
//! structure, defaults, list semantics, patch strategy, protobuf numbers and CEL rules. For CRDs it is
//! read from the CRD, for built-in kinds from a generated table.
//!
//! Types live in an arena ([`TypeSet`]) and name each other by index, so recursive types
//! (`JSONSchemaProps`) need no special case and a walk needs no look-up by name.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

/// Index of a [`Node`] in its [`TypeSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// An arena of types. Immutable once built; shared by every kind that came from the same source.
#[derive(Debug, Default)]
pub struct TypeSet {
    nodes: Vec<Node>,
    names: BTreeMap<Arc<str>, TypeId>,
}

/// A type and the set it lives in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Schema {
    set: Arc<TypeSet>,
    root: TypeId,
}

/// One type.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// OpenAPI definition name (`io.k8s.api.core.v1.PodSpec`); `None` for an inline type.
    pub name: Option<Arc<str>>,
    /// What values look like.
    pub shape: Shape,
    /// Whether null is a value of its own. Where false, null means "absent" and is dropped.
    pub nullable: bool,
    /// For readers (`kubectl explain`); empty for built-in kinds, whose texts come from elsewhere.
    pub description: Option<Arc<str>>,
    /// Value checks; boxed because most types have none.
    pub constraints: Option<Box<Constraints>>,
}

/// The structure of a type.
#[derive(Clone, Debug, Default)]
pub enum Shape {
    /// Any JSON, kept as it is (`x-kubernetes-preserve-unknown-fields` without properties, `RawExtension`,
    /// `JSON`).
    #[default]
    Any,
    /// A string.
    String(Format),
    /// A whole number of 32 or 64 bits.
    Integer(Format),
    /// A number.
    Number(Format),
    /// True or false.
    Boolean,
    /// `x-kubernetes-int-or-string`: IntOrString, or a Quantity given as a number.
    IntOrString,
    /// A map with known keys. Sorted by name.
    Struct {
        /// Known keys.
        properties: BTreeMap<Arc<str>, Property>,
        /// Keys that must be there.
        required: Box<[Arc<str>]>,
        /// Whether unknown keys are kept (`x-kubernetes-preserve-unknown-fields`).
        preserve_unknown: bool,
        /// `x-kubernetes-embedded-resource`: apiVersion, kind and metadata are implied.
        embedded: bool,
        /// Whether server-side apply owns it as one value or key by key.
        map_type: MapType,
    },
    /// A map with free keys.
    Map {
        /// Type of each value.
        values: TypeId,
        /// Whether server-side apply owns it as one value or key by key.
        map_type: MapType,
    },
    /// A list.
    List {
        /// Type of each item.
        items: TypeId,
        /// How server-side apply identifies items.
        list_type: ListType,
    },
}

/// OpenAPI format, as far as behaviour depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "OpenAPI's names")]
pub enum Format {
    #[default]
    None,
    Int32,
    Int64,
    Float,
    Double,
    Byte,
    DateTime,
    MicroTime,
    Quantity,
    Other,
}

/// A named field of a struct.
#[derive(Clone, Debug)]
pub struct Property {
    /// Type of the field.
    pub of: TypeId,
    /// Value given when the field is absent.
    pub default: Option<Arc<Value>>,
    /// How strategic merge patch treats it; `None` for maps and scalars that have no directive.
    pub patch: Option<PatchStrategy>,
    /// Protobuf field number in the low 16 bits; 0 where the kind has no protobuf form. JSON inlines structs
    /// that protobuf keeps as messages: the number of such a message is in the next 8 bits, and that of the
    /// one around it, if there is one, in the last 8.
    pub protobuf: u32,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Not said, which means one value.
    #[default]
    Unspecified,
    /// One value.
    Atomic,
    /// Items are scalars and unique.
    Set,
    /// Items are structs, identified by these fields.
    Map(Box<[Arc<str>]>),
}

/// `x-kubernetes-map-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapType {
    /// Keys are owned one by one.
    #[default]
    Granular,
    /// One value.
    Atomic,
}

/// `x-kubernetes-patch-strategy` and `x-kubernetes-patch-merge-key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// `merge` is in the strategy; otherwise lists are replaced.
    pub merge: bool,
    /// `retainKeys` is in the strategy.
    pub retain_keys: bool,
    /// Merge key for lists of structs; `None` for lists of scalars.
    pub merge_key: Option<Arc<str>>,
}

/// Value checks of OpenAPI v3 and `x-kubernetes-validations`.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "OpenAPI's names")]
pub struct Constraints {
    pub enumeration: Vec<Value>,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub pattern: Option<Arc<str>>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub unique_items: bool,
    /// String format that is checked (`date-time`, `ipv4`, `uuid`, ...), as written.
    pub format: Option<Arc<str>>,
    pub all_of: Vec<TypeId>,
    pub any_of: Vec<TypeId>,
    pub one_of: Vec<TypeId>,
    pub not: Option<TypeId>,
    pub rules: Vec<Rule>,
    pub external_docs: Option<Arc<Value>>,
    pub example: Option<Arc<Value>>,
}

/// One CEL rule (`x-kubernetes-validations`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "upstream's names (apiextensions/v1 ValidationRule)")]
pub struct Rule {
    pub rule: Arc<str>,
    pub message: Option<Arc<str>>,
    pub message_expression: Option<Arc<str>>,
    pub reason: Option<Arc<str>>,
    pub field_path: Option<Arc<str>>,
    pub optional_old_self: Option<bool>,
}

impl TypeSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a type and, when it has a name, makes it findable.
    pub fn add(&mut self, node: Node) -> TypeId {
        let id = TypeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        if let Some(name) = &node.name {
            self.names.insert(name.clone(), id);
        }
        self.nodes.push(node);
        id
    }

    /// Replaces a type, so that a recursive one can be reserved first and filled later.
    pub fn replace(&mut self, id: TypeId, node: Node) {
        if let Some(name) = &node.name {
            self.names.insert(name.clone(), id);
        }
        if let Some(slot) = usize::try_from(id.0).ok().and_then(|at| self.nodes.get_mut(at)) {
            *slot = node;
        }
    }

    /// The type at `id`; an id of another set gives [`Shape::Any`].
    pub fn node(&self, id: TypeId) -> &Node {
        static ANY: Node =
            Node { name: None, shape: Shape::Any, nullable: false, description: None, constraints: None };
        usize::try_from(id.0).ok().and_then(|at| self.nodes.get(at)).unwrap_or(&ANY)
    }

    /// A type by its definition name.
    pub fn find(&self, name: &str) -> Option<TypeId> {
        self.names.get(name).copied()
    }

    /// Every named type, sorted by name.
    pub fn named(&self) -> impl Iterator<Item = (&Arc<str>, TypeId)> {
        self.names.iter().map(|(name, id)| (name, *id))
    }
}

impl Schema {
    /// The type `root` of `set`.
    pub fn new(set: Arc<TypeSet>, root: TypeId) -> Self {
        Self { set, root }
    }

    /// The set the type lives in.
    pub fn set(&self) -> &Arc<TypeSet> {
        &self.set
    }

    /// Where in the set it is.
    pub fn root(&self) -> TypeId {
        self.root
    }

    /// The type itself.
    pub fn node(&self) -> &Node {
        self.set.node(self.root)
    }

    /// Whether any field of any type of the set has a default.
    pub fn has_defaults(&self) -> bool {
        self.set.nodes.iter().any(|node| match &node.shape {
            Shape::Struct { properties, .. } => {
                properties.values().any(|property| property.default.is_some())
            }
            _ => false,
        })
    }
}
