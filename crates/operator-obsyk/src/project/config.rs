//! Namespaces, ConfigMaps, Secrets, volume claims and service accounts. Of data there are keys here, and
//! nothing that a value could be put into; an annotation that holds a value of its own object stays here too.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Fields, Inventory, Meta, amount,
    data::{Data, Prints},
    lite, sorted,
};
use crate::Kind;

type Plain = Data<false>;
type Packed = Data<true>;

lite! {
    Namespace { metadata: Meta, status: Phase }
    Phase { phase: String }

    ConfigMap { metadata: Meta, data: Plain, binary_data: Packed, immutable: bool }
    Secret { metadata: Meta, data: Packed, r#type: String, immutable: bool }

    PersistentVolumeClaim { metadata: Meta, spec: ClaimSpec, status: Phase }
    ClaimSpec {
        storage_class_name: String, volume_name: String, volume_mode: String, access_modes: Vec<String>,
        resources: ClaimResources,
    }
    ClaimResources { requests: BTreeMap<String, Value> }

    ServiceAccount {
        metadata: Meta, secrets: Vec<Reference>, image_pull_secrets: Vec<Reference>,
        automount_service_account_token: bool,
    }
    Reference { name: String }
}

/// The metadata without annotations that hold one of the object's values.
fn discreet(meta: Option<Meta>, values: &Prints) -> Meta {
    let mut meta = meta.unwrap_or_default();
    if let Some(annotations) = &mut meta.annotations {
        annotations.retain(|_, annotation| !values.are_in(annotation));
    }
    meta
}

impl Inventory for Namespace {
    const KIND: Kind = Kind::Namespace;

    fn split(self) -> (Meta, Fields) {
        let phase = self.status.and_then(|status| status.phase);
        (self.metadata.unwrap_or_default(), Fields::default().unless_empty("phase", phase))
    }
}

impl Inventory for ConfigMap {
    const KIND: Kind = Kind::ConfigMap;

    fn split(self) -> (Meta, Fields) {
        let (data, mut values) = self.data.unwrap_or_default().into_parts();
        let (binary, more) = self.binary_data.unwrap_or_default().into_parts();
        values.extend(more);
        let fields = Fields::default()
            .unless_empty("data_keys", sorted(data))
            .unless_empty("binary_keys", sorted(binary))
            .always("immutable", self.immutable.unwrap_or(false));
        (discreet(self.metadata, &values), fields)
    }
}

impl Inventory for Secret {
    const KIND: Kind = Kind::Secret;

    fn split(self) -> (Meta, Fields) {
        let (data, values) = self.data.unwrap_or_default().into_parts();
        let fields = Fields::default()
            .unless_empty("type", self.r#type)
            .unless_empty("data_keys", sorted(data))
            .always("immutable", self.immutable.unwrap_or(false));
        (discreet(self.metadata, &values), fields)
    }
}

impl Inventory for PersistentVolumeClaim {
    const KIND: Kind = Kind::PersistentVolumeClaim;

    fn split(self) -> (Meta, Fields) {
        let spec = self.spec.unwrap_or_default();
        let requests = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
        let fields = Fields::default()
            .unless_empty("storage_class_name", spec.storage_class_name)
            .unless_empty("volume_name", spec.volume_name)
            .unless_empty("phase", self.status.and_then(|status| status.phase))
            .unless_empty("volume_mode", spec.volume_mode)
            .unless_empty("access_modes", spec.access_modes)
            .unless_empty("storage_request", amount(requests.get("storage")));
        (self.metadata.unwrap_or_default(), fields)
    }
}

impl Inventory for ServiceAccount {
    const KIND: Kind = Kind::ServiceAccount;

    fn split(self) -> (Meta, Fields) {
        let names = |references: Option<Vec<Reference>>| -> Vec<String> {
            references.into_iter().flatten().filter_map(|reference| reference.name).collect()
        };
        let fields = Fields::default()
            .unless_empty("secrets", names(self.secrets))
            .unless_empty("image_pull_secrets", names(self.image_pull_secrets))
            .unless_empty("automount_service_account_token", self.automount_service_account_token);
        (self.metadata.unwrap_or_default(), fields)
    }
}
