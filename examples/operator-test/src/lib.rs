//! An operator in the usual style of kube-rs: a `Website` becomes a Deployment and a Service, and its status
//! says how many pods serve it. It knows nothing of what it is tested on; `tests/website.rs` is the example.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use kube::{
    Api, Client, CustomResource, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{Controller, controller::Action, watcher},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a user asks for.
#[derive(Clone, Debug, CustomResource, Serialize, Deserialize, JsonSchema)]
#[kube(group = "example.keelson.dev", version = "v1", kind = "Website", namespaced, status = "WebsiteStatus")]
pub struct WebsiteSpec {
    /// The image that serves it.
    pub image: String,
    /// How many pods serve it.
    pub replicas: i32,
}

/// What the operator says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WebsiteStatus {
    /// How many pods serve it now.
    pub ready: i32,
}

/// A reconciliation that failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused something or was away.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The website has no namespace.
    #[error("a Website must be in a namespace")]
    NoNamespace,
}

/// Runs the operator until it is dropped.
pub async fn run(client: Client) {
    let websites: Api<Website> = Api::all(client.clone());
    let deployments: Api<Deployment> = Api::all(client.clone());
    Controller::new(websites, watcher::Config::default())
        .owns(deployments, watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(5)), Arc::new(client))
        .for_each(|_| async {})
        .await;
}

async fn reconcile(site: Arc<Website>, client: Arc<Client>) -> Result<Action, Error> {
    let namespace = site.namespace().ok_or(Error::NoNamespace)?;
    let (name, client) = (site.name_any(), Client::clone(&client));
    let ours = PatchParams::apply("website").force();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let deployment = deployments.patch(&name, &ours, &Patch::Apply(deployment(&site))).await?;
    let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
    services.patch(&name, &ours, &Patch::Apply(service(&site))).await?;
    let ready = deployment.status.and_then(|status| status.ready_replicas).unwrap_or(0);
    if site.status.as_ref().is_none_or(|status| status.ready != ready) {
        let websites: Api<Website> = Api::namespaced(client, &namespace);
        let patch = Patch::Merge(json!({ "status": { "ready": ready } }));
        websites.patch_status(&name, &PatchParams::default(), &patch).await?;
    }
    Ok(Action::await_change())
}

fn metadata(site: &Website) -> Value {
    json!({
        "name": site.name_any(),
        "labels": { "website": site.name_any() },
        "ownerReferences": [site.controller_owner_ref(&())],
    })
}

fn deployment(site: &Website) -> Value {
    let labels = json!({ "website": site.name_any() });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(site),
        "spec": {
            "replicas": site.spec.replicas,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels, "annotations": site.annotations() },
                "spec": { "containers": [{ "name": "web", "image": site.spec.image }] },
            },
        },
    })
}

fn service(site: &Website) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(site),
        "spec": { "selector": { "website": site.name_any() }, "ports": [{ "port": 80 }] },
    })
}
