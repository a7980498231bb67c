//! What a pod refers to (upstream `pkg/api/v1/pod.VisitPodSecretNames` and its kin).

use meta::{Object, Value};

/// A kind that nodes read because a pod uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Secret,
    ConfigMap,
    Claim,
    Volume,
    ServiceAccount,
    ResourceClaim,
    Attachment,
}

impl Kind {
    /// Whether the pod uses the object of this kind and name in its namespace.
    pub(super) fn is_used_by(self, pod: &Object, name: &str) -> bool {
        match self {
            Self::Secret => {
                let pull = pod.list(&["spec", "imagePullSecrets"]).iter().filter_map(|r| text(r, "/name"));
                pull.chain(volumes(pod).flat_map(secrets_of_volume))
                    .chain(containers(pod).flat_map(|c| environment(c, "secretRef", "secretKeyRef")))
                    .any(|secret| secret == name)
            }
            Self::ConfigMap => volumes(pod)
                .flat_map(|volume| {
                    let own = text(volume, "/configMap/name").into_iter();
                    own.chain(projections(volume).filter_map(|source| text(source, "/configMap/name")))
                })
                .chain(containers(pod).flat_map(|c| environment(c, "configMapRef", "configMapKeyRef")))
                .any(|map| map == name),
            Self::Claim => volumes(pod).any(|volume| {
                let generic = || {
                    let made = volume.get("ephemeral").and_then(|_| text(volume, "/name"));
                    made.is_some_and(|volume| format!("{}-{volume}", pod.name()) == name)
                };
                text(volume, "/persistentVolumeClaim/claimName") == Some(name) || generic()
            }),
            Self::ServiceAccount => pod.str(&["spec", "serviceAccountName"]) == Some(name),
            Self::ResourceClaim => {
                let named = pod.list(&["spec", "resourceClaims"]).iter();
                let made = pod.list(&["status", "resourceClaimStatuses"]).iter();
                named.chain(made).any(|claim| text(claim, "/resourceClaimName") == Some(name))
            }
            // These are found by way of other objects.
            Self::Volume | Self::Attachment => false,
        }
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn volumes(pod: &Object) -> impl Iterator<Item = &Value> {
    pod.list(&["spec", "volumes"]).iter()
}

fn containers(pod: &Object) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(move |list| pod.list(&["spec", list]))
}

fn projections(volume: &Value) -> impl Iterator<Item = &Value> {
    volume.get("projected").into_iter().flat_map(|projected| items(projected, "sources"))
}

fn secrets_of_volume(volume: &Value) -> impl Iterator<Item = &str> {
    const PLACES: [&str; 10] = [
        "/secret/secretName",
        "/azureFile/secretName",
        "/cephfs/secretRef/name",
        "/cinder/secretRef/name",
        "/flexVolume/secretRef/name",
        "/rbd/secretRef/name",
        "/scaleIO/secretRef/name",
        "/iscsi/secretRef/name",
        "/storageos/secretRef/name",
        "/csi/nodePublishSecretRef/name",
    ];
    let own = PLACES.into_iter().filter_map(move |place| text(volume, place));
    own.chain(projections(volume).filter_map(|source| text(source, "/secret/name")))
}

fn environment<'a>(
    container: &'a Value,
    whole: &'static str,
    key: &'static str,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let from = items(container, "envFrom").filter_map(move |from| text(from.get(whole)?, "/name"));
    from.chain(items(container, "env").filter_map(move |env| text(env.get("valueFrom")?.get(key)?, "/name")))
}
