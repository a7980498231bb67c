//! What built-in types and their fields are for, in upstream's words, for `kubectl explain`.
//!
//! The generated table has structure only; the texts are those that the `k8s-openapi` crate carries, so that
//! they need not be kept twice. Deliberately not kept in memory: collecting them takes a few milliseconds,
//! and only who builds an OpenAPI document asks.

use std::collections::HashMap;

use k8s_openapi::{
    api::{
        admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authentication,
        authorization::v1 as authorization, autoscaling::v1 as autoscaling_v1,
        autoscaling::v2 as autoscaling_v2, batch::v1 as batch, certificates::v1 as certificates,
        coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
        flowcontrol::v1 as flowcontrol, networking::v1 as networking, node::v1 as node, policy::v1 as policy,
        rbac::v1 as rbac, resource::v1 as resources, scheduling::v1 as scheduling, storage::v1 as storage,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions,
    kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration,
};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::Value;

type Texts = HashMap<String, String>;

/// The text of a type (`io.k8s.api.core.v1.PodSpec`), or of a field of it; `None` when there is none.
/// Collects all texts and holds them until it is dropped.
pub fn descriptions() -> impl Fn(&str, &str) -> Option<String> {
    let mut types: HashMap<String, (Option<String>, Texts)> = HashMap::new();
    for (name, mut schema) in collect() {
        let own = text(&schema);
        let mut fields = Texts::new();
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            for (field, schema) in properties {
                fields.extend(text(schema).map(|text| (field.clone(), text)));
            }
        }
        types.insert(name, (own, fields));
    }
    move |name, field| {
        let (own, fields) = types.get(name)?;
        if field.is_empty() { own.clone() } else { fields.get(field).cloned() }
    }
}

fn text(schema: &Value) -> Option<String> {
    schema.get("description").and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The schemas of all types that built-in kinds reach, by name.
fn collect() -> serde_json::Map<String, Value> {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    workloads(&mut generator);
    cluster(&mut generator);
    policies(&mut generator);
    generator.take_definitions(false)
}

macro_rules! add {
    ($generator:ident: $($of:ty),* $(,)?) => { $( $generator.subschema_for::<$of>(); )* };
}

fn workloads(generator: &mut SchemaGenerator) {
    add!(generator:
        core::ConfigMap, core::Endpoints, core::Event, core::Pod, core::PodTemplate,
        core::ReplicationController, core::Secret, core::Service, core::ServiceAccount,
        apps::ControllerRevision, apps::DaemonSet, apps::Deployment, apps::ReplicaSet, apps::StatefulSet,
        autoscaling_v1::HorizontalPodAutoscaler, autoscaling_v1::Scale,
        autoscaling_v2::HorizontalPodAutoscaler,
        batch::CronJob, batch::Job, coordination::Lease, discovery::EndpointSlice, events::Event,
    );
}

fn cluster(generator: &mut SchemaGenerator) {
    add!(generator:
        core::Namespace, core::Node, core::PersistentVolume, core::PersistentVolumeClaim,
        apiextensions::CustomResourceDefinition, apiregistration::APIService,
        networking::IPAddress, networking::Ingress, networking::IngressClass, networking::NetworkPolicy,
        networking::ServiceCIDR, node::RuntimeClass, scheduling::PriorityClass,
        storage::CSIDriver, storage::CSINode, storage::CSIStorageCapacity, storage::StorageClass,
        resources::DeviceClass, resources::ResourceClaim, resources::ResourceClaimTemplate,
        resources::ResourceSlice,
        storage::VolumeAttachment, storage::VolumeAttributesClass, certificates::CertificateSigningRequest,
        flowcontrol::FlowSchema, flowcontrol::PriorityLevelConfiguration,
    );
}

fn policies(generator: &mut SchemaGenerator) {
    add!(generator:
        core::Binding, core::LimitRange, core::ResourceQuota, policy::Eviction, policy::PodDisruptionBudget,
        rbac::ClusterRole, rbac::ClusterRoleBinding, rbac::Role, rbac::RoleBinding,
        authentication::SelfSubjectReview, authentication::TokenRequest, authentication::TokenReview,
        authorization::LocalSubjectAccessReview, authorization::SelfSubjectAccessReview,
        authorization::SelfSubjectRulesReview, authorization::SubjectAccessReview,
        admission::MutatingAdmissionPolicy, admission::MutatingAdmissionPolicyBinding,
        admission::MutatingWebhookConfiguration, admission::ValidatingAdmissionPolicy,
        admission::ValidatingAdmissionPolicyBinding, admission::ValidatingWebhookConfiguration,
    );
}

#[cfg(test)]
mod tests {
    use schema::Shape;

    use super::*;

    /// Everything that `kubectl explain` can show of a kind has a text.
    #[test]
    fn kinds_and_their_fields_are_described() {
        let describe = descriptions();
        let text = describe("io.k8s.api.core.v1.PodSpec", "restartPolicy").unwrap();
        assert!(text.starts_with("Restart policy for all containers"), "{text}");
        let table = crate::all(&crate::Options::default(), &crate::Acts::default());
        for kind in table.iter().filter(|kind| kind.verbs.contains(&resource::Verb::Create)) {
            let node = kind.schema.node();
            let name = node.name.as_deref().unwrap();
            assert!(describe(name, "").is_some(), "{name}");
            let Shape::Struct { properties, .. } = &node.shape else { panic!("{name} has no fields") };
            for field in properties.keys() {
                // Upstream says nothing of most kinds' own metadata and of RuntimeClass's.
                assert!(describe(name, field).is_some() || &**field == "metadata", "{name} {field}");
            }
            let spec = properties.get("spec").map(|spec| kind.schema.set().node(spec.of));
            let Some(Shape::Struct { properties, .. }) = spec.map(|spec| &spec.shape) else { continue };
            let spec = spec.and_then(|spec| spec.name.as_deref()).unwrap();
            for field in properties.keys() {
                assert!(describe(spec, field).is_some(), "{spec} {field}");
            }
        }
    }
}
