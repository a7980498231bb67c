//! Where an object is kept: `group/resource/namespace/name`, cheap to clone.
//!
//! The core group, whose name is empty, is written `core`; no group can be called that, because
//! upstream's other groups and all CRD groups have a dot or are on a fixed list. Cluster-scoped
//! objects have an empty third part. No part can contain a slash, so the text reads back to what it
//! was made from.

use std::{borrow::Borrow, fmt, sync::Arc};

use meta::{GroupResource, ObjectKey};

const CORE: &str = "core";

/// The key of one object. Ordered by group, resource, namespace, name as text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

/// Parts that make no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// A part contains a slash.
    #[error("{part} {value:?} of a store key contains a slash")]
    Slash {
        /// Which part.
        part: &'static str,
        /// What was given.
        value: String,
    },
    /// Resource or name is empty.
    #[error("{part} of a store key is empty")]
    Empty {
        /// Which part.
        part: &'static str,
    },
    /// The group is literally `core`.
    #[error("group \"core\" is how the empty group is written")]
    Core,
    /// A text that does not have four parts.
    #[error("store key {0:?} does not have the form group/resource/namespace/name")]
    Parts(String),
}

impl Key {
    /// The key of the object `object` of the kind `resource`.
    pub fn new(resource: &GroupResource, object: &ObjectKey) -> Result<Self, InvalidKey> {
        if resource.group == CORE {
            return Err(InvalidKey::Core);
        }
        let group = if resource.group.is_empty() { CORE } else { &resource.group };
        let parts = [
            ("group", group, true),
            ("resource", &resource.resource, true),
            ("namespace", &object.namespace, false),
            ("name", &object.name, true),
        ];
        for (part, value, required) in parts {
            if required && value.is_empty() {
                return Err(InvalidKey::Empty { part });
            }
            if value.contains('/') {
                return Err(InvalidKey::Slash { part, value: value.to_owned() });
            }
        }
        Ok(Self(format!("{group}/{}/{}/{}", resource.resource, object.namespace, object.name).into()))
    }

    /// Reads what [`Key::as_str`] gave.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let mut parts = text.split('/');
        let (Some(group), Some(resource), Some(_namespace), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidKey::Parts(text.to_owned()));
        };
        for (part, value) in [("group", group), ("resource", resource), ("name", name)] {
            if value.is_empty() {
                return Err(InvalidKey::Empty { part });
            }
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Group; empty for core.
    pub fn group(&self) -> &str {
        match self.part(0) {
            CORE => "",
            group => group,
        }
    }

    /// Plural, such as `deployments`.
    pub fn resource(&self) -> &str {
        self.part(1)
    }

    /// Namespace; empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        self.part(2)
    }

    /// Name.
    pub fn name(&self) -> &str {
        self.part(3)
    }

    /// Group and resource.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group(), self.resource())
    }

    /// Namespace and name.
    pub fn object_key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace(), self.name())
    }

    fn part(&self, index: usize) -> &str {
        // Both constructors made sure of four parts.
        self.0.split('/').nth(index).unwrap_or_default()
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(group: &str, resource: &str, namespace: &str, name: &str, expected: Result<&str, InvalidKey>) {
        let made = Key::new(&GroupResource::new(group, resource), &ObjectKey::new(namespace, name));
        assert_eq!(made.as_ref().map(Key::as_str).map_err(Clone::clone), expected);
    }

    #[test]
    fn layout() {
        check("", "pods", "default", "a", Ok("core/pods/default/a"));
        check("", "nodes", "", "n1", Ok("core/nodes//n1"));
        check("apps", "deployments", "ns", "web", Ok("apps/deployments/ns/web"));
        check("core", "pods", "ns", "a", Err(InvalidKey::Core));
        check("", "", "ns", "a", Err(InvalidKey::Empty { part: "resource" }));
        check("", "pods", "ns", "", Err(InvalidKey::Empty { part: "name" }));
        check("", "pods", "ns", "a/b", Err(InvalidKey::Slash { part: "name", value: "a/b".into() }));
        check("a/b", "pods", "ns", "a", Err(InvalidKey::Slash { part: "group", value: "a/b".into() }));
    }

    #[test]
    fn parse_refuses_what_new_cannot_make() {
        for text in ["", "a", "a/b/c", "a/b/c/d/e", "/b/c/d", "a//c/d", "a/b/c/"] {
            assert!(Key::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn reads_back(group in "[a-z.]{0,8}", resource in "[a-z]{1,8}", ns in "[a-z-]{0,8}", name in "[^/]{1,12}") {
            let (resource, object) = (GroupResource::new(group, resource), ObjectKey::new(ns, name));
            prop_assume!(resource.group != CORE);
            let key = Key::new(&resource, &object).unwrap();
            prop_assert_eq!(Key::parse(key.as_str()).unwrap(), key.clone());
            prop_assert_eq!(key.group_resource(), resource);
            prop_assert_eq!(key.object_key(), object);
        }
    }
}
