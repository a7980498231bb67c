//! `spec` without its option. The generated types make every spec optional; the API server stores no
//! workload without one, so a missing spec reads as the empty one here.

use std::sync::LazyLock;

use k8s_openapi::api::{
    apps::v1::{
        DaemonSet, DaemonSetSpec, Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec, StatefulSet,
        StatefulSetSpec,
    },
    batch::v1::{Job, JobSpec},
    core::v1::{
        PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec, Pod,
        PodSpec, ReplicationController, ReplicationControllerSpec, Service, ServiceSpec,
    },
};

/// A kind with a spec.
pub(crate) trait HasSpec {
    /// The spec.
    type Spec: Default;
    /// The spec, or the empty one.
    fn spec(&self) -> &Self::Spec;
    /// The spec, made if missing.
    fn spec_mut(&mut self) -> &mut Self::Spec;
}

macro_rules! has_spec {
    ($($kind:ty => $spec:ty),* $(,)?) => {$(
        impl HasSpec for $kind {
            type Spec = $spec;
            fn spec(&self) -> &$spec {
                static EMPTY: LazyLock<$spec> = LazyLock::new(<$spec>::default);
                self.spec.as_ref().unwrap_or(&EMPTY)
            }
            fn spec_mut(&mut self) -> &mut $spec {
                self.spec.get_or_insert_default()
            }
        }
    )*};
}

has_spec! {
    DaemonSet => DaemonSetSpec,
    Deployment => DeploymentSpec,
    Job => JobSpec,
    PersistentVolume => PersistentVolumeSpec,
    PersistentVolumeClaim => PersistentVolumeClaimSpec,
    Pod => PodSpec,
    ReplicaSet => ReplicaSetSpec,
    ReplicationController => ReplicationControllerSpec,
    Service => ServiceSpec,
    StatefulSet => StatefulSetSpec,
}
