//! Kinds for tests: two toy ones for what is derived from the registry, and the built-in ones.

use std::{collections::BTreeMap, sync::Arc};

use meta::{GroupResource, GroupVersion, Value};
use resource::{Column, ColumnType, Plain, Resource, Scale, Scope, Subresource, Verb};
use schema::{Format, ListType, MapType, Node, Property, Schema, Shape, TypeSet};

use crate::Registry;

/// A namespaced `Widget` of `toys.example/v1` with status and scale, and a cluster-scoped core `Gadget`.
pub(crate) fn registry() -> Registry {
    let registry = Registry::new();
    registry.install_all([widget(), gadget()]);
    registry
}

/// The built-in kinds, but that endpoints may be on loopback: it is the only place a test has, and is refused.
pub(crate) fn built_in_kinds() -> Vec<Resource> {
    let all = kinds::all(&kinds::Options::default(), &kinds::Acts::default());
    let lenient = |kind: Resource| match &*kind.plural {
        "endpointslices" => Resource { strategy: Arc::new(Plain), ..kind },
        _ => kind,
    };
    all.into_iter().map(lenient).collect()
}

fn toy(group: &str, kind: &str, scope: Scope) -> Resource {
    let singular = kind.to_lowercase();
    let plural = format!("{singular}s");
    Resource {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        list_kind: format!("{kind}List").into(),
        stored_as: GroupResource::new(group, plural.as_str()),
        stored_version: GroupVersion::new(group, "v1"),
        plural: plural.into(),
        singular: singular.into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        scope,
        convert: None,
        verbs: Verb::ALL,
        schema: schema(&format!("example.toys.v1.{kind}")),
        columns: Vec::new(),
        subresources: Vec::new(),
        selectable: Vec::new(),
        strategy: Arc::new(Plain),
        complete_since: meta::Revision(0),
        custom: false,
        deprecated: None,
    }
}

pub(crate) fn widget() -> Resource {
    let replicas = Column {
        name: "Replicas".into(),
        of: ColumnType::Integer,
        format: "".into(),
        description: "How many.".into(),
        priority: 0,
        cell: Arc::new(|object, _| object.get(&["spec", "replicas"]).cloned().unwrap_or(Value::Null)),
    };
    let scale = Scale {
        spec_replicas: "spec.replicas".into(),
        status_replicas: "status.replicas".into(),
        selector: None,
    };
    Resource {
        short_names: vec!["wd".into()],
        categories: vec!["all".into()],
        columns: vec![replicas],
        subresources: vec![
            ("scale".into(), Subresource::Scale(scale)),
            ("status".into(), Subresource::Status),
        ],
        ..toy("toys.example", "Widget", Scope::Namespaced)
    }
}

pub(crate) fn gadget() -> Resource {
    toy("", "Gadget", Scope::Cluster)
}

/// `{spec: {replicas: int32, parts: [{name}] by name}}`.
fn schema(name: &str) -> Schema {
    let mut set = TypeSet::new();
    let plain = |of| Property { of, default: None, patch: None, protobuf: 0 };
    let structure = |properties: BTreeMap<_, _>| Shape::Struct {
        properties,
        required: Box::default(),
        preserve_unknown: false,
        embedded: false,
        map_type: MapType::Granular,
    };
    let integer = set.add(Node { shape: Shape::Integer(Format::Int32), ..Node::default() });
    let string = set.add(Node { shape: Shape::String(Format::None), ..Node::default() });
    let part = structure([("name".into(), plain(string))].into());
    let part = set.add(Node { name: Some(format!("{name}Part").into()), shape: part, ..Node::default() });
    let list = Shape::List { items: part, list_type: ListType::Map(["name".into()].into()) };
    let list = set.add(Node { shape: list, ..Node::default() });
    let spec = structure([("parts".into(), plain(list)), ("replicas".into(), plain(integer))].into());
    let spec = set.add(Node { name: Some(format!("{name}Spec").into()), shape: spec, ..Node::default() });
    let any = set.add(Node::default());
    let root = structure(
        [
            ("apiVersion".into(), plain(string)),
            ("kind".into(), plain(string)),
            ("metadata".into(), plain(any)),
            ("spec".into(), plain(spec)),
            ("status".into(), plain(any)),
        ]
        .into(),
    );
    let root = set.add(Node { name: Some(name.into()), shape: root, ..Node::default() });
    Schema::new(Arc::new(set), root)
}
