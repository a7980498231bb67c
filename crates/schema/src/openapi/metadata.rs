//! `ObjectMeta`, which every CRD has and none spells out.

use std::{collections::BTreeMap, sync::Arc};

use crate::{Format, ListType, MapType, Node, PatchStrategy, Property, Shape, TypeId, TypeSet};

const PREFIX: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// The type `ObjectMeta` in `set`, added where missing, with every field granular as upstream has it:
/// labels and annotations by key, finalizers as a set, owners by UID.
pub fn object_meta(set: &mut TypeSet) -> TypeId {
    let name = format!("{PREFIX}ObjectMeta");
    if let Some(known) = set.find(&name) {
        return known;
    }
    let string = inline(set, Shape::String(Format::None));
    let integer = inline(set, Shape::Integer(Format::Int64));
    let time = time(set);
    let strings = inline(set, Shape::Map { values: string, map_type: MapType::Granular });
    let finalizers = inline(set, Shape::List { items: string, list_type: ListType::Set });
    let owner = owner_reference(set, string);
    let owners = inline(set, Shape::List { items: owner, list_type: ListType::Map(["uid".into()].into()) });
    let entry = managed_fields_entry(set, string, time);
    let managed = inline(set, Shape::List { items: entry, list_type: ListType::Atomic });
    let mut properties: BTreeMap<Arc<str>, Property> = BTreeMap::new();
    for (name, of) in [
        ("annotations", strings),
        ("creationTimestamp", time),
        ("deletionGracePeriodSeconds", integer),
        ("deletionTimestamp", time),
        ("finalizers", finalizers),
        ("generateName", string),
        ("generation", integer),
        ("labels", strings),
        ("managedFields", managed),
        ("name", string),
        ("namespace", string),
        ("ownerReferences", owners),
        ("resourceVersion", string),
        ("selfLink", string),
        ("uid", string),
    ] {
        let patch = match name {
            "finalizers" => Some(PatchStrategy { merge: true, ..PatchStrategy::default() }),
            "ownerReferences" => {
                Some(PatchStrategy { merge: true, merge_key: Some("uid".into()), ..PatchStrategy::default() })
            }
            _ => None,
        };
        properties.insert(name.into(), Property { of, default: None, patch, protobuf: 0 });
    }
    named(set, &name, properties, &[], MapType::Granular)
}

fn inline(set: &mut TypeSet, shape: Shape) -> TypeId {
    set.add(Node { shape, ..Node::default() })
}

fn time(set: &mut TypeSet) -> TypeId {
    let name: Arc<str> = format!("{PREFIX}Time").into();
    set.find(&name).unwrap_or_else(|| {
        set.add(Node { name: Some(name), shape: Shape::String(Format::DateTime), ..Node::default() })
    })
}

fn named(
    set: &mut TypeSet,
    name: &str,
    properties: BTreeMap<Arc<str>, Property>,
    required: &[&str],
    map_type: MapType,
) -> TypeId {
    let required = required.iter().map(|name| Arc::from(*name)).collect();
    let shape = Shape::Struct { properties, required, preserve_unknown: false, embedded: false, map_type };
    set.add(Node { name: Some(name.into()), shape, ..Node::default() })
}

fn plain(of: TypeId) -> Property {
    Property { of, default: None, patch: None, protobuf: 0 }
}

fn owner_reference(set: &mut TypeSet, string: TypeId) -> TypeId {
    let boolean = inline(set, Shape::Boolean);
    let mut properties: BTreeMap<Arc<str>, Property> = BTreeMap::new();
    for name in ["apiVersion", "kind", "name", "uid"] {
        properties.insert(name.into(), plain(string));
    }
    for name in ["blockOwnerDeletion", "controller"] {
        properties.insert(name.into(), plain(boolean));
    }
    let required = ["apiVersion", "kind", "name", "uid"];
    named(set, &format!("{PREFIX}OwnerReference"), properties, &required, MapType::Atomic)
}

fn managed_fields_entry(set: &mut TypeSet, string: TypeId, time: TypeId) -> TypeId {
    let fields = set.add(Node {
        name: Some(format!("{PREFIX}FieldsV1").into()),
        shape: Shape::Any,
        ..Node::default()
    });
    let mut properties: BTreeMap<Arc<str>, Property> = BTreeMap::new();
    for name in ["apiVersion", "fieldsType", "manager", "operation", "subresource"] {
        properties.insert(name.into(), plain(string));
    }
    properties.insert("fieldsV1".into(), plain(fields));
    properties.insert("time".into(), plain(time));
    named(set, &format!("{PREFIX}ManagedFieldsEntry"), properties, &[], MapType::Granular)
}
