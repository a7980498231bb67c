//! The five kinds as users write them, and their status. Everything optional stays optional here; what it comes to
//! is decided once, in `validate`. Parts of Kubernetes' own pod API stay JSON: the API server checks them when the
//! pod template is applied.

mod frontend;
mod scheduler;
mod settings;
mod status;
mod storage;
mod worker;

pub use frontend::{
    AcUploads, BrowserAuth, BuildbarnBrowser, BuildbarnBrowserSpec, BuildbarnFrontend, BuildbarnFrontendSpec,
    Existence, FrontendAuth, Keepalive, Route, StoreAuth, Tls,
};
pub use scheduler::{
    BuildbarnScheduler, BuildbarnSchedulerSpec, Execution, Fairness, PageRank, PredeclaredQueue, QueueState,
    RestartPolicy, SchedulerAuth, SizeClassAnalysis,
};
pub use settings::{Common, Disruption, Ingress, Metrics, Reference, ServiceSettings, Switch, Tracing};
pub use status::{
    AutoscalingStatus, Geometry, QueueStatus, ReshardingStage, Shard, Status, StoreStatus, Topology,
};
pub use storage::{
    BuildbarnStorage, BuildbarnStorageSpec, Medium, Resharding, ReshardingStrategy, Shards, StoreSettings,
};
pub use worker::{
    Autoscaling, BuildbarnWorker, BuildbarnWorkerSpec, CacheSize, Cost, Drain, DrainMode, NativeDirectory,
    Platform, Property, Runner,
};

/// Group of the kinds.
pub const GROUP: &str = "buildbarn.io";
/// Their version.
pub const VERSION: &str = "v1alpha1";
