//! The node agent: runs the pods that are bound to one node and tells the API server about them.
//!
//! Guarantees: what to do is decided by a pure function, [`plan_pod`]; every effect goes through
//! [`runtime::Runtime`], [`Host`] or [`kube::Client`]; containers found running after a restart are
//! adopted, not restarted. Knows nothing of how pods are placed, of Services' traffic or of DNS.
//!
//! Not supported, and said so where a pod asks for it: CSI, NFS, image and block volumes,
//! user namespaces. Not there yet: static pods, eviction under pressure, pod-level cgroup limits.

pub mod admission;
mod agent;
pub mod backoff;
pub mod dns;
pub mod env;
pub mod expand;
pub mod fields;
pub mod host;
pub mod images;
pub mod lifecycle;
pub mod log;
pub mod node;
pub mod options;
pub mod plan;
pub mod pod;
pub mod pressure;
pub mod probe;
pub mod qos;
pub mod resize;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod server;
pub mod service_env;
pub mod simulated;
pub mod sources;
pub mod status;
pub mod summary;
pub mod usage;
pub mod volume;

pub use agent::{Collection, LOCAL_PATH_FINALIZER, RunError, pod_cidr, run};
pub use host::Host;
pub use options::Options;
pub use plan::{Action, Observed, plan_pod};
pub use server::ServerOptions;
