//! Deployments, StatefulSets, DaemonSets, Jobs and CronJobs.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;

use super::{Fields, Inventory, Meta, lite, texts};
use crate::Kind;

lite! {
    Selector { match_labels: BTreeMap<String, String> }
    Strategy { r#type: String }
    Template { spec: TemplateSpec }
    TemplateSpec { containers: Vec<Image>, node_selector: BTreeMap<String, String> }
    Image { image: String }

    Deployment { metadata: Meta, spec: DeploymentSpec, status: DeploymentStatus }
    DeploymentSpec { replicas: i64, strategy: Strategy, selector: Selector, template: Template }
    DeploymentStatus { ready_replicas: i64, available_replicas: i64, updated_replicas: i64 }

    StatefulSet { metadata: Meta, spec: StatefulSetSpec, status: StatefulSetStatus }
    StatefulSetSpec {
        replicas: i64, update_strategy: Strategy, service_name: String, selector: Selector, template: Template,
    }
    StatefulSetStatus { ready_replicas: i64, current_replicas: i64 }

    DaemonSet { metadata: Meta, spec: DaemonSetSpec, status: DaemonSetStatus }
    DaemonSetSpec { update_strategy: Strategy, selector: Selector, template: Template }
    DaemonSetStatus {
        desired_number_scheduled: i64, current_number_scheduled: i64, number_ready: i64, number_available: i64,
    }

    Job { metadata: Meta, spec: JobSpec, status: JobStatus }
    JobSpec { completions: i64, parallelism: i64 }
    JobStatus { succeeded: i64, failed: i64, active: i64, start_time: String, completion_time: String }

    CronJob { metadata: Meta, spec: CronJobSpec, status: CronJobStatus }
    CronJobSpec { schedule: String, suspend: bool, concurrency_policy: String }
    CronJobStatus { last_schedule_time: String, active: Vec<IgnoredAny> }
}

/// Labels that a selector asks for; expressions are not sent.
fn labels(selector: Option<Selector>) -> serde_json::Value {
    texts(selector.and_then(|selector| selector.match_labels))
}

/// The image of the template's first container.
fn image(spec: &mut TemplateSpec) -> Option<String> {
    spec.containers.take().into_iter().flatten().next().and_then(|container| container.image)
}

fn template(template: Option<Template>) -> TemplateSpec {
    template.and_then(|template| template.spec).unwrap_or_default()
}

fn kind_of(strategy: Option<Strategy>) -> Option<String> {
    strategy.and_then(|strategy| strategy.r#type)
}

impl Inventory for Deployment {
    const KIND: Kind = Kind::Deployment;

    fn split(self) -> (Meta, Fields) {
        let (spec, status) = (self.spec.unwrap_or_default(), self.status.unwrap_or_default());
        let fields = Fields::default()
            .always("replicas", spec.replicas.unwrap_or(1))
            .always("ready_replicas", status.ready_replicas.unwrap_or(0))
            .always("available_replicas", status.available_replicas.unwrap_or(0))
            .always("updated_replicas", status.updated_replicas.unwrap_or(0))
            .unless_empty("strategy", kind_of(spec.strategy))
            .unless_empty("selector", labels(spec.selector))
            .unless_empty("image", image(&mut template(spec.template)));
        (self.metadata.unwrap_or_default(), fields)
    }
}

impl Inventory for StatefulSet {
    const KIND: Kind = Kind::StatefulSet;

    fn split(self) -> (Meta, Fields) {
        let (spec, status) = (self.spec.unwrap_or_default(), self.status.unwrap_or_default());
        let fields = Fields::default()
            .always("replicas", spec.replicas.unwrap_or(1))
            .always("ready_replicas", status.ready_replicas.unwrap_or(0))
            .always("current_replicas", status.current_replicas.unwrap_or(0))
            .unless_empty("update_strategy", kind_of(spec.update_strategy))
            .unless_empty("service_name", spec.service_name)
            .unless_empty("selector", labels(spec.selector))
            .unless_empty("image", image(&mut template(spec.template)));
        (self.metadata.unwrap_or_default(), fields)
    }
}

impl Inventory for DaemonSet {
    const KIND: Kind = Kind::DaemonSet;

    fn split(self) -> (Meta, Fields) {
        let (spec, status) = (self.spec.unwrap_or_default(), self.status.unwrap_or_default());
        let mut template = template(spec.template);
        let fields = Fields::default()
            .always("desired_number_scheduled", status.desired_number_scheduled.unwrap_or(0))
            .always("current_number_scheduled", status.current_number_scheduled.unwrap_or(0))
            .always("number_ready", status.number_ready.unwrap_or(0))
            .always("number_available", status.number_available.unwrap_or(0))
            .unless_empty("update_strategy", kind_of(spec.update_strategy))
            .unless_empty("selector", labels(spec.selector))
            .unless_empty("node_selector", texts(template.node_selector.take()))
            .unless_empty("image", image(&mut template));
        (self.metadata.unwrap_or_default(), fields)
    }
}

impl Inventory for Job {
    const KIND: Kind = Kind::Job;

    fn split(self) -> (Meta, Fields) {
        let (spec, status) = (self.spec.unwrap_or_default(), self.status.unwrap_or_default());
        let mut meta = self.metadata.unwrap_or_default();
        let owners = meta.owner_references.take().into_iter().flatten();
        let owner = owners.into_iter().find(|owner| owner.kind.as_deref() == Some("CronJob"));
        let fields = Fields::default()
            .always("completions", spec.completions.unwrap_or(1))
            .always("parallelism", spec.parallelism.unwrap_or(1))
            .always("succeeded", status.succeeded.unwrap_or(0))
            .always("failed", status.failed.unwrap_or(0))
            .always("active", status.active.unwrap_or(0))
            .unless_empty("start_time", status.start_time)
            .unless_empty("completion_time", status.completion_time)
            .unless_empty("owner_ref", owner.and_then(|owner| owner.name));
        (meta, fields)
    }
}

impl Inventory for CronJob {
    const KIND: Kind = Kind::CronJob;

    fn split(self) -> (Meta, Fields) {
        let (spec, status) = (self.spec.unwrap_or_default(), self.status.unwrap_or_default());
        let fields = Fields::default()
            .always("schedule", spec.schedule.unwrap_or_default())
            .always("suspend", spec.suspend.unwrap_or(false))
            .unless_empty("concurrency_policy", spec.concurrency_policy)
            .unless_empty("last_schedule_time", status.last_schedule_time)
            .always("active_jobs", status.active.map_or(0, |jobs| jobs.len()));
        (self.metadata.unwrap_or_default(), fields)
    }
}
