//! How a kind is written down: an [`Entry`] that reads as one line and ends as a [`Resource`].

use std::{borrow::Cow, sync::Arc};

use meta::{GroupResource, GroupVersion, Object, Value};
use resource::{Act, Convert, Plain, Resource, Scale, Scope, Selectable, Strategy, Subresource, Verb};
use schema::{Schema, TypeId, TypeSet};

use crate::columns::Col;

/// The version of a group that entries belong to.
pub(crate) struct Group<'a> {
    /// Group; empty for core.
    pub(crate) name: &'static str,
    /// Version.
    pub(crate) version: &'static str,
    /// Prefix of its definition names, such as `io.k8s.api.apps.v1`.
    pub(crate) package: &'static str,
    /// Where its types are.
    pub(crate) types: &'a Arc<TypeSet>,
}

impl Group<'_> {
    /// A kind whose objects live in a namespace.
    pub(crate) fn namespaced(&self, kind: &str, plural: &str) -> Entry {
        self.entry(kind, plural, Scope::Namespaced)
    }

    /// A kind whose objects do not.
    pub(crate) fn cluster(&self, kind: &str, plural: &str) -> Entry {
        self.entry(kind, plural, Scope::Cluster)
    }

    fn entry(&self, kind: &str, plural: &str, scope: Scope) -> Entry {
        let root = self.types.find(&format!("{}.{kind}", self.package)).unwrap_or(TypeId(u32::MAX));
        Entry(Resource {
            group: self.name.into(),
            version: self.version.into(),
            kind: kind.into(),
            list_kind: format!("{kind}List").into(),
            plural: plural.into(),
            singular: kind.to_lowercase().into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            scope,
            stored_as: GroupResource::new(self.name, plural),
            stored_version: GroupVersion::new(self.name, self.version),
            convert: None,
            verbs: Verb::ALL,
            schema: Schema::new(self.types.clone(), root),
            columns: Vec::new(),
            subresources: Vec::new(),
            selectable: Vec::new(),
            strategy: Arc::new(Plain),
            complete_since: meta::Revision(0),
            custom: false,
            deprecated: None,
        })
    }
}

/// A [`Resource`] being written down.
pub(crate) struct Entry(Resource);

impl Entry {
    /// A short name.
    pub(crate) fn short(mut self, name: &str) -> Self {
        self.0.short_names.push(name.into());
        self
    }

    /// Shown by `kubectl get all`.
    pub(crate) fn in_all(self) -> Self {
        self.category("all")
    }

    /// A category.
    pub(crate) fn category(mut self, name: &str) -> Self {
        self.0.categories.push(name.into());
        self
    }

    /// Columns after `Name`.
    pub(crate) fn columns(mut self, columns: &[Col]) -> Self {
        self.0.columns = columns.iter().map(Col::column).collect();
        self
    }

    /// A `status` subresource.
    pub(crate) fn status(self) -> Self {
        self.subresource("status", Subresource::Status)
    }

    /// A `scale` subresource over `spec.replicas` and `status.replicas`.
    pub(crate) fn scale(self) -> Self {
        self.subresource(
            "scale",
            Subresource::Scale(Scale {
                spec_replicas: Cow::Borrowed("spec.replicas"),
                status_replicas: Cow::Borrowed("status.replicas"),
                selector: Some(Cow::Borrowed("spec.selector")),
            }),
        )
    }

    /// Streams through to the node.
    pub(crate) fn connects(mut self, names: &[&str]) -> Self {
        for name in names {
            self = self.subresource(name, Subresource::Connect);
        }
        self
    }

    /// Any subresource.
    pub(crate) fn subresource(mut self, name: &str, subresource: Subresource) -> Self {
        self.0.subresources.push((name.into(), subresource));
        self
    }

    /// Fields that selectors may name, each with what it reads as when unset.
    pub(crate) fn selectable(mut self, fields: &'static [(&'static str, &'static str)]) -> Self {
        for (path, unset) in fields {
            let value = Arc::new(move |object: &Object| text_at(object, path, unset));
            self.0.selectable.push(Selectable { name: Cow::Borrowed(path), value, indexed: false });
        }
        self
    }

    /// One more selectable field, which is no field of the object as it is.
    pub(crate) fn selectable_by(mut self, name: &'static str, value: fn(&Object) -> String) -> Self {
        self.0.selectable.push(Selectable {
            name: Cow::Borrowed(name),
            value: Arc::new(value),
            indexed: false,
        });
        self
    }

    /// Has objects found by this one of the selectable fields.
    pub(crate) fn indexed(mut self, field: &str) -> Self {
        for selectable in &mut self.0.selectable {
            selectable.indexed |= selectable.name == field;
        }
        self
    }

    /// Behaviour.
    pub(crate) fn strategy(mut self, strategy: impl Strategy + 'static) -> Self {
        self.0.strategy = Arc::new(strategy);
        self
    }

    /// Stored as another kind, in its version.
    pub(crate) fn stored_as(
        mut self,
        resource: GroupResource,
        version: GroupVersion,
        convert: impl Convert + 'static,
    ) -> Self {
        self.0.stored_as = resource;
        self.0.stored_version = version;
        self.0.convert = Some(Arc::new(convert));
        self
    }

    /// A kind that is only asked, never stored: POST is answered by `act`.
    pub(crate) fn answered_by(mut self, act: Arc<dyn Act>) -> Self {
        self.0.verbs = &[Verb::Create];
        self.subresource("", Subresource::Act(act))
    }

    /// Measured, not stored: the server shows its objects, and they can only be read.
    pub(crate) fn measured(mut self) -> Self {
        self.0.verbs = &[Verb::Get, Verb::List];
        self
    }

    /// Stored and never served: no verb.
    pub(crate) fn hidden(mut self) -> Self {
        self.0.verbs = &[];
        self
    }

    /// `Warning` text when it is used.
    pub(crate) fn deprecated(mut self, text: &str) -> Self {
        self.0.deprecated = Some(text.into());
        self
    }

    /// The finished value.
    pub(crate) fn done(mut self) -> Resource {
        self.0.subresources.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.0
    }
}

/// The value at a dotted path as field selectors compare it.
fn text_at(object: &Object, path: &str, unset: &str) -> String {
    let path: Vec<&str> = path.split('.').collect();
    match object.get(&path) {
        None | Some(Value::Null) => unset.to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
