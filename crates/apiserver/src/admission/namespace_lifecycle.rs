//! Objects are only created in namespaces that are there and stay (upstream `namespace/lifecycle`).

use futures::future::{BoxFuture, FutureExt as _, ready};
use meta::{Cause, GroupResource, Object, Status};
use resource::{Admission, Attributes, Context, Operation};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Refuses creation in a namespace that does not exist (404) or is terminating (403), and deletion of the
/// namespaces that everything relies on.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceLifecycle;

fn is_namespace(resource: &GroupResource) -> bool {
    resource.group.is_empty() && resource.resource == "namespaces"
}

impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        match attributes.operation {
            Operation::Delete => is_namespace(&attributes.resource),
            Operation::Create => {
                // Whether one may do a thing does not depend on the namespace being there.
                let review = attributes.resource.group == "authorization.k8s.io";
                !attributes.namespace.is_empty() && !is_namespace(&attributes.resource) && !review
            }
            Operation::Update | Operation::Connect => false,
        }
    }

    fn validate<'a>(
        &'a self,
        cx: &'a Context<'a>,
        _: Option<&'a Object>,
        _: Option<&'a Object>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        ready(self.check(cx)).boxed()
    }
}

impl NamespaceLifecycle {
    fn check(self, cx: &Context<'_>) -> Result<(), Status> {
        let attributes = cx.attributes;
        let Attributes { operation, resource, namespace, name, .. } = attributes;
        if *operation == Operation::Delete {
            return match IMMORTAL.contains(&name.as_str()) {
                true => Err(Status::forbidden(resource, name, "this namespace may not be deleted")),
                false => Ok(()),
            };
        }
        let namespaces = GroupResource::new("", "namespaces");
        let entry = cx.view.get(&namespaces, "", namespace);
        let entry = entry.ok_or_else(|| Status::not_found(&namespaces, namespace))?;
        if !entry.header.deleting {
            return Ok(());
        }
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut status = Status::forbidden(resource, name, &why);
        if let Some(details) = &mut status.details {
            details.causes.push(Cause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {namespace} is being terminated"),
                field: "metadata.namespace".to_owned(),
            });
        }
        Err(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Objects;
    use serde_json::json;

    fn check(operation: Operation, resource: &str, namespace: &str, name: &str, expected: Result<(), &str>) {
        let namespaces = GroupResource::new("", "namespaces");
        let deleted = "2026-01-01T00:00:00Z";
        let view = Objects::default()
            .with(&namespaces, json!({"metadata": {"name": "here"}}))
            .with(&namespaces, json!({"metadata": {"name": "going", "deletionTimestamp": deleted}}));
        let attributes = Attributes {
            user: resource::User::default(),
            operation,
            resource: GroupResource::new("", resource),
            version: "v1".into(),
            kind: String::new(),
            subresource: String::new(),
            namespace: namespace.into(),
            name: name.into(),
            dry_run: false,
            options: json!(null),
            notes: std::sync::Arc::default(),
            kind_version: meta::GroupVersion::new("", "v1"),
        };
        let clock = meta::Fixed::new(deleted.parse().unwrap());
        let random = meta::Seeded::new(1);
        let cx = Context { attributes: &attributes, view: &view, clock: &clock, random: &random };
        let got =
            if NamespaceLifecycle.handles(&attributes) { NamespaceLifecycle.check(&cx) } else { Ok(()) };
        assert_eq!(got.map_err(|status| status.message), expected.map_err(str::to_owned));
    }

    #[test]
    fn content_needs_a_namespace_that_stays() {
        check(Operation::Create, "pods", "here", "x", Ok(()));
        check(Operation::Create, "pods", "absent", "x", Err("namespaces \"absent\" not found"));
        let going = "pods \"x\" is forbidden: unable to create new content in namespace going because it is \
                     being terminated";
        check(Operation::Create, "pods", "going", "x", Err(going));
        check(Operation::Update, "pods", "going", "x", Ok(()));
        check(Operation::Create, "nodes", "", "x", Ok(()));
        check(Operation::Delete, "namespaces", "", "here", Ok(()));
        let forbidden = "namespaces \"default\" is forbidden: this namespace may not be deleted";
        check(Operation::Delete, "namespaces", "", "default", Err(forbidden));
    }
}
