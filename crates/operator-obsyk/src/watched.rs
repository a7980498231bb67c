//! A watched object is projected while it is decoded: nothing larger than what the platform gets is ever
//! held, and no value of a Secret becomes a value here.

use std::{borrow::Cow, fmt, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, core::NamespaceResourceScope};
use serde::{Deserialize, Deserializer};

use crate::project::{Inventory, Projected};

/// One version of one object of the kind `I`, as a watch or a list gives it.
pub(crate) struct Watched<I> {
    pub(crate) object: Projected,
    /// Only what kube's watcher asks for.
    meta: ObjectMeta,
    kind: PhantomData<fn() -> I>,
}

impl<'de, I: Inventory> Deserialize<'de> for Watched<I> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let object = Projected::of(I::deserialize(from)?);
        let meta = ObjectMeta {
            name: Some(object.name.to_string()),
            resource_version: (!object.version.is_empty()).then(|| object.version.to_string()),
            ..ObjectMeta::default()
        };
        Ok(Self { object, meta, kind: PhantomData })
    }
}

impl<I> Clone for Watched<I> {
    fn clone(&self) -> Self {
        Self { object: self.object.clone(), meta: self.meta.clone(), kind: PhantomData }
    }
}

impl<I> fmt::Debug for Watched<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.object.id.kind.name(), self.object.namespace, self.object.name)
    }
}

impl<I: Inventory> Resource for Watched<I> {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        I::KIND.name().into()
    }

    fn group((): &()) -> Cow<'_, str> {
        I::KIND.group().into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        I::KIND.plural().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}
