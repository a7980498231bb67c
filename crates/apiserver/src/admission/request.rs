//! What webhooks and policies see of a request (`admission/v1` AdmissionRequest).

use std::sync::Arc;

use meta::{FieldSelector, GroupResource, LabelSelector, Object, Status, Value};
use resource::{Attributes, Context, Operation, Resource};
use schema::cel::{Asked, Authorize};
use serde_json::{Map, json};
use tokio::runtime::Handle;

use crate::{
    Registry,
    auth::{Ask, Asked as AskedOf, Authorizer, Decision},
};

/// Kinds that say who is asked: nobody is asked about them, or a broken webhook could not be repaired
/// (upstream `rules.IsExemptAdmissionConfigurationResource`).
const EXEMPT: [&str; 6] = [
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "validatingwebhookconfigurations",
];

/// The group of those kinds.
pub(super) const GROUP: &str = "admissionregistration.k8s.io";

/// Whether webhooks and policies are asked about the request at all.
pub(super) fn concerns(attributes: &Attributes) -> bool {
    let Attributes { resource, .. } = attributes;
    !(resource.group == GROUP && EXEMPT.contains(&&*resource.resource))
}

/// The operation as rules name it.
pub(super) fn operation(attributes: &Attributes) -> &'static str {
    match attributes.operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

/// A version of the kind of a request, in which somebody wants to see it.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) resource: String,
    /// The entry to convert to; `None` when the objects are seen as they are.
    pub(super) converted: Option<Arc<Resource>>,
}

impl Seen {
    /// As the request names it.
    pub(super) fn direct(attributes: &Attributes) -> Self {
        Self {
            group: attributes.resource.group.clone(),
            version: attributes.version.clone(),
            resource: attributes.resource.resource.clone(),
            converted: None,
        }
    }
}

/// `request`, without `uid`, `object` and `oldObject`.
pub(super) fn request(attributes: &Attributes, seen: &Seen) -> Map<String, Value> {
    let Attributes {
        user,
        operation: _,
        resource,
        version,
        kind,
        kind_version,
        subresource,
        namespace,
        name,
        dry_run,
        options,
        notes: _,
    } = attributes;
    let gvk = |group: &str, version: &str| json!({"group": group, "version": version, "kind": kind});
    let gvr = |group: &str, version: &str, resource: &str| json!({"group": group, "version": version, "resource": resource});
    let (kind_group, kind_at) = match &seen.converted {
        Some(to) => (&*to.group, &*to.version),
        None => (&*kind_version.group, &*kind_version.version),
    };
    let mut user_info = json!({"username": user.name, "groups": user.groups});
    if let Some(info) = user_info.as_object_mut() {
        if !user.uid.is_empty() {
            info.insert("uid".to_owned(), json!(user.uid));
        }
        if !user.extra.is_empty() {
            info.insert("extra".to_owned(), json!(user.extra));
        }
    }
    let mut request = Map::new();
    let mut put = |key: &str, value: Value| request.insert(key.to_owned(), value);
    put("kind", gvk(kind_group, kind_at));
    put("resource", gvr(&seen.group, &seen.version, &seen.resource));
    put("requestKind", gvk(&kind_version.group, &kind_version.version));
    put("requestResource", gvr(&resource.group, version, &resource.resource));
    if !subresource.is_empty() {
        put("subResource", json!(subresource));
        put("requestSubResource", json!(subresource));
    }
    if !name.is_empty() {
        put("name", json!(name));
    }
    if !namespace.is_empty() {
        put("namespace", json!(namespace));
    }
    put("operation", json!(operation(attributes)));
    put("userInfo", user_info);
    put("dryRun", json!(dry_run));
    put("options", options.clone());
    request
}

/// An object as JSON, null when there is none.
pub(super) fn value(object: Option<&Object>) -> Value {
    object.map_or(Value::Null, |object| Value::Object(object.0.clone()))
}

/// Brings an object to another version of its kind.
pub(super) async fn convert(from: &Resource, to: &Resource, object: &mut Object) -> Result<(), Status> {
    crate::rest::to_stored(from, object).await?;
    crate::rest::to_served(to, object).await
}

/// The namespace of a request: the object itself for a Namespace. `None` for cluster scope.
pub(super) fn namespace(cx: &Context<'_>, object: Option<&Object>) -> Result<Option<Object>, Status> {
    let Attributes { resource, namespace, operation, .. } = cx.attributes;
    let namespaces = GroupResource::new("", "namespaces");
    let name = if *resource == namespaces {
        if *operation == Operation::Create {
            return Ok(object.cloned());
        }
        &cx.attributes.name
    } else {
        namespace
    };
    if name.is_empty() {
        return Ok(None);
    }
    let entry = cx.view.get(&namespaces, "", name);
    let entry = entry.ok_or_else(|| Status::not_found(&namespaces, name))?;
    entry.object().map(Some).map_err(Status::internal)
}

/// `authorizer` for one request.
pub(super) struct Asker {
    pub(super) authorizer: Arc<dyn Authorizer>,
    pub(super) user: resource::User,
    /// Where to wait for those outside, whatever thread evaluates the expression.
    pub(super) runtime: Option<Handle>,
}

impl Authorize for Asker {
    fn check(&self, asked: &Asked) -> Result<(bool, String), String> {
        let account;
        let user = match &asked.service_account {
            None => &self.user,
            Some((namespace, name)) => {
                account = resource::User {
                    name: format!("system:serviceaccount:{namespace}:{name}"),
                    groups: vec![
                        "system:serviceaccounts".to_owned(),
                        format!("system:serviceaccounts:{namespace}"),
                        crate::auth::AUTHENTICATED.to_owned(),
                    ],
                    ..resource::User::default()
                };
                &account
            }
        };
        let object = match &asked.path {
            Some(path) => AskedOf::Path(path),
            None => AskedOf::Resource {
                group: &asked.group,
                version: "*",
                resource: &asked.resource,
                subresource: &asked.subresource,
                namespace: &asked.namespace,
                name: &asked.name,
            },
        };
        let _entered = self.runtime.as_ref().map(Handle::enter);
        // One that cannot be read narrows nothing, as upstream.
        let fields = Some(&*asked.fields).filter(|text| !text.is_empty());
        let fields = fields.and_then(|text| FieldSelector::parse(text).ok());
        let labels = Some(&*asked.labels).filter(|text| !text.is_empty());
        let labels = labels.and_then(|text| LabelSelector::parse(text).ok());
        let ask =
            Ask { fields: fields.as_ref(), labels: labels.as_ref(), ..Ask::new(user, &asked.verb, object) };
        let decision = self.authorizer.decide(&ask);
        match decision {
            Decision::Failed { error, .. } => Err(error),
            other => Ok((other.allows(), other.reason().to_owned())),
        }
    }
}

/// The check that `authorizer.requestResource` begins with.
pub(super) fn asked(attributes: &Attributes) -> Asked {
    Asked {
        group: attributes.resource.group.clone(),
        resource: attributes.resource.resource.clone(),
        subresource: attributes.subresource.clone(),
        namespace: attributes.namespace.clone(),
        name: attributes.name.clone(),
        ..Asked::default()
    }
}

/// What a plugin of this folder stands on.
#[derive(Clone)]
pub(super) struct Ground {
    pub(super) registry: Arc<Registry>,
    pub(super) authorizer: Arc<dyn Authorizer>,
}

impl Ground {
    /// The table entry of the request's kind; `None` for bodies of subresources.
    pub(super) fn entry(&self, attributes: &Attributes) -> Option<Arc<Resource>> {
        let Attributes { resource, version, .. } = attributes;
        let entry = self.registry.resolve(&resource.group, version, &resource.resource)?;
        (*entry.kind == *attributes.kind).then_some(entry)
    }

    /// Brings an object that was changed into the form of its kind again: unknown fields go, defaults come.
    pub(super) fn settle(&self, attributes: &Attributes, object: &mut Object) {
        let Some(entry) = self.entry(attributes) else { return };
        let mut tree = std::mem::take(object).into_value();
        drop(schema::prune::unknown(&entry.schema, &mut tree, schema::prune::Mode::Ignore));
        schema::default::apply(&entry.schema, &mut tree);
        *object = Object::from_value(tree).unwrap_or_default();
        entry.strategy.default(object);
    }

    pub(super) fn asker(&self, attributes: &Attributes) -> Arc<dyn Authorize> {
        Arc::new(Asker {
            authorizer: self.authorizer.clone(),
            user: attributes.user.clone(),
            runtime: Handle::try_current().ok(),
        })
    }
}
