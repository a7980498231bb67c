//! Namespaces: active until deleted, terminating until their finalizer is gone
//! (`pkg/registry/core/namespace`).

use meta::{Object, Status, Value};
use resource::{Context, Strategy};
use serde_json::json;

use super::keep;
use crate::validate::{At, Errors};
use meta::names;

/// Behaviour of `v1` Namespace.
pub(crate) struct Namespace;

impl Strategy for Namespace {
    fn default(&self, object: &mut Object) {
        let name = object.name().to_owned();
        if !name.is_empty() {
            object.set(&["metadata", "labels", "kubernetes.io/metadata.name"], name);
        }
    }

    fn prepare(&self, cx: &Context<'_>, new: &mut Object, old: Option<&Object>) -> Result<(), Status> {
        match (old, cx.attributes.subresource.as_str()) {
            (None, _) => {
                // A name made from generateName is known only now.
                self.default(new);
                new.set(&["status"], json!({"phase": "Active"}));
                let mut finalizers = new.list(&["spec", "finalizers"]).to_vec();
                if !finalizers.contains(&json!("kubernetes")) {
                    finalizers.push(json!("kubernetes"));
                }
                new.set(&["spec", "finalizers"], finalizers);
            }
            (Some(old), "finalize") => keep(new, old, &["status"]),
            (Some(old), _) => keep(new, old, &["spec", "finalizers"]),
        }
        Ok(())
    }

    fn validate(&self, _: &Context<'_>, new: &Object, _: Option<&Object>, errors: &mut Errors) {
        for finalizer in At::root(new, "spec").get("finalizers").items() {
            finalizer.all(errors, names::qualified_name);
            if !finalizer.text().contains('/') && finalizer.text() != "kubernetes" {
                let detail = "name is neither a standard finalizer name nor is it fully qualified";
                finalizer.invalid(errors, detail);
            }
        }
    }

    fn holds_deletion(&self, object: &Object) -> bool {
        !object.list(&["spec", "finalizers"]).is_empty()
    }

    fn begin_deletion(&self, _: &Context<'_>, object: &mut Object) {
        object.set(&["status", "phase"], Value::from("Terminating"));
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::label(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cx, object};

    #[test]
    fn lives_until_its_finalizer_is_gone() {
        let cx = Cx::new("namespaces", "");
        let mut namespace = object(json!({"metadata": {"name": "a"}}));
        Namespace.default(&mut namespace);
        Namespace.prepare(&cx.context(), &mut namespace, None).unwrap();
        assert_eq!(namespace.label("kubernetes.io/metadata.name"), Some("a"));
        assert_eq!(namespace.str(&["status", "phase"]), Some("Active"));
        assert!(Namespace.holds_deletion(&namespace));
        Namespace.begin_deletion(&cx.context(), &mut namespace);
        assert_eq!(namespace.str(&["status", "phase"]), Some("Terminating"));

        let mut update = namespace.clone();
        update.set(&["spec", "finalizers"], json!([]));
        Namespace.prepare(&cx.context(), &mut update, Some(&namespace)).unwrap();
        assert!(Namespace.holds_deletion(&update), "an ordinary update leaves finalizers alone");
        update.set(&["spec", "finalizers"], json!([]));
        let finalize = Cx::new("namespaces", "finalize");
        Namespace.prepare(&finalize.context(), &mut update, Some(&namespace)).unwrap();
        assert!(!Namespace.holds_deletion(&update));
    }
}
