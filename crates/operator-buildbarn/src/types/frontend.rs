//! BuildbarnFrontend and BuildbarnBrowser.

use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Common, Ingress, Reference, ServiceSettings, Status};

/// `spec` of a BuildbarnFrontend.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Deserialize, Serialize)]
#[kube(
    group = "buildbarn.io",
    version = "v1alpha1",
    kind = "BuildbarnFrontend",
    plural = "buildbarnfrontends",
    namespaced,
    status = "Status",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct BuildbarnFrontendSpec {
    /// Settings of all kinds.
    #[serde(flatten)]
    pub common: Common,
    /// Pods; 3 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Type of the Service; `LoadBalancer` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<String>,
    /// Further settings of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceSettings>,
    /// The storage; the only BuildbarnStorage when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_ref: Option<Reference>,
    /// Who executes what; the only BuildbarnScheduler, for every instance name, when absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedulers: Vec<Route>,
    /// A cache without execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_only: Option<bool>,
    /// Whether clients may store action results; `Deny` with execution, `Allow` without, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ac_uploads: Option<AcUploads>,
    /// TLS of the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Who may do what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<FrontendAuth>,
    /// Remembers which objects of the CAS exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existence_cache: Option<Existence>,
    /// Keeps connections moving between frontends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<Keepalive>,
    /// Name that clients use, for the endpoint in the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_host: Option<String>,
    /// Largest gRPC message; 2097152 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_message_size_bytes: Option<i64>,
}

/// Who executes actions of some instance names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Instance names; taken off before the scheduler sees them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_name_prefix: Option<String>,
    /// A scheduler of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_ref: Option<Reference>,
    /// Or the address of any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Put before the rest of the instance name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_instance_name_prefix: Option<String>,
}

/// Whether clients may store action results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum AcUploads {
    /// Only workers do.
    Deny,
    /// Every client that may use the frontend.
    Allow,
}

/// A certificate, read anew every five minutes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Secret of type `kubernetes.io/tls`.
    pub secret_name: String,
}

/// Who may do what, as Buildbarn's own policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendAuth {
    /// Who is who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Value>,
    /// The CAS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cas: Option<StoreAuth>,
    /// The AC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ac: Option<StoreAuth>,
    /// Execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execute: Option<Value>,
}

/// Who may do what with a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreAuth {
    /// Reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub get: Option<Value>,
    /// Writing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put: Option<Value>,
    /// Asking what is missing; CAS only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub find_missing: Option<Value>,
}

/// Remembers which objects exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Existence {
    /// Objects.
    pub size: i64,
    /// For how long; must be less than the storage keeps data.
    pub duration_seconds: i64,
}

/// Ages of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Keepalive {
    /// Connections are closed after this long, so that clients spread anew.
    pub max_connection_age_seconds: i64,
}

/// `spec` of a BuildbarnBrowser.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Deserialize, Serialize)]
#[kube(
    group = "buildbarn.io",
    version = "v1alpha1",
    kind = "BuildbarnBrowser",
    plural = "buildbarnbrowsers",
    namespaced,
    status = "Status",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct BuildbarnBrowserSpec {
    /// Settings of all kinds.
    #[serde(flatten)]
    pub common: Common,
    /// Pods; 3 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Type of the Service; `ClusterIP` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<String>,
    /// Further settings of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceSettings>,
    /// Host of an Ingress; none when absent. The short form of `ingress`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_host: Option<String>,
    /// The Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// The storage; the only BuildbarnStorage when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_ref: Option<Reference>,
    /// Path below which it is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_prefix: Option<String>,
    /// Who may look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<BrowserAuth>,
    /// JMESPath expression that makes links of an action's metadata; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_metadata_links: Option<String>,
    /// Instance name of bb_clientd, for links to its mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bb_clientd_instance_name_prefix: Option<String>,
}

/// Who may look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct BrowserAuth {
    /// Who is who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Value>,
    /// Who may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorizer: Option<Value>,
}
