//! What this crate's tests stand on: a view of given objects and a context around it.

use std::sync::Arc;

use meta::{Entry, Fixed, GroupResource, Header, Object, Revision, Seeded, Timestamp, Value};
use resource::{Attributes, Context, Operation, Strategy, User, View};

use crate::validate::Errors;

/// An object out of JSON.
pub(crate) fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

/// A request and the world it is made in.
pub(crate) struct Cx {
    pub(crate) attributes: Attributes,
    objects: Vec<(GroupResource, Object)>,
    clock: Fixed,
    random: Seeded,
}

impl Cx {
    pub(crate) fn new(resource: &str, subresource: &str) -> Self {
        let attributes = Attributes {
            user: User::default(),
            operation: Operation::Create,
            resource: GroupResource::new("", resource),
            version: "v1".to_owned(),
            kind: String::new(),
            subresource: subresource.to_owned(),
            namespace: "ns".to_owned(),
            name: String::new(),
            dry_run: false,
            options: Value::Null,
            notes: std::sync::Arc::default(),
            kind_version: meta::GroupVersion::new("", "v1"),
        };
        let clock = Fixed::new(Timestamp::UNIX_EPOCH);
        Self { attributes, objects: Vec::new(), clock, random: Seeded::new(1) }
    }

    /// Adds an object to what is stored.
    pub(crate) fn with(mut self, group: &str, resource: &str, value: Value) -> Self {
        self.objects.push((GroupResource::new(group, resource), object(value)));
        self
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context { attributes: &self.attributes, view: self, clock: &self.clock, random: &self.random }
    }

    /// What `strategy` finds wrong with `new`, in words.
    pub(crate) fn errors(&self, strategy: &dyn Strategy, new: &Object, old: Option<&Object>) -> Vec<String> {
        let mut errors = Errors::new();
        strategy.validate(&self.context(), new, old, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }
}

impl View for Cx {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        let mut all = self.list(resource, None).into_iter();
        all.find(|entry| entry.header.key.namespace == namespace && entry.header.key.name == name)
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Entry>> {
        let of_kind = self.objects.iter().filter(|(kind, object)| {
            kind == resource && namespace.is_none_or(|namespace| namespace == object.namespace())
        });
        of_kind
            .map(|(_, object)| {
                let header = Header {
                    key: object.key(),
                    labels: crate::strategy::label_map(object.get(&["metadata", "labels"]))
                        .into_iter()
                        .collect(),
                    ..Header::default()
                };
                Entry::commit(&Entry::encode(object).unwrap(), header, Revision(1)).unwrap()
            })
            .collect()
    }
}
