//! Small schemas, and those that several kinds have.

use serde_json::{Map, Value, json};

/// Upstream's form of a quantity.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

pub(super) fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

pub(super) fn name(description: &str) -> Value {
    json!({"type": "string", "description": description, "minLength": 1, "maxLength": 253})
}

pub(super) fn quantity(description: &str) -> Value {
    json!({"type": "string", "description": description, "pattern": QUANTITY})
}

pub(super) fn flag(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

pub(super) fn choice(description: &str, values: &[&str]) -> Value {
    json!({"type": "string", "description": description, "enum": values})
}

/// An integer of at most 32 bits.
pub(super) fn int(description: &str, least: i64, most: i64) -> Value {
    json!({"type": "integer", "format": "int32", "description": description, "minimum": least, "maximum": most})
}

/// An integer of at most 64 bits.
pub(super) fn long(description: &str, least: i64) -> Value {
    json!({"type": "integer", "format": "int64", "description": description, "minimum": least})
}

pub(super) fn number(description: &str) -> Value {
    json!({"type": "number", "description": description})
}

pub(super) fn list(description: &str, items: Value) -> Value {
    json!({"type": "array", "description": description, "items": items})
}

pub(super) fn texts(description: &str) -> Value {
    json!({"type": "object", "description": description, "additionalProperties": {"type": "string"}})
}

/// An object of another API, taken as it is.
pub(super) fn foreign(description: &str) -> Value {
    json!({"type": "object", "description": description, "x-kubernetes-preserve-unknown-fields": true})
}

pub(super) fn object(description: &str, required: &[&str], properties: Value) -> Value {
    let mut out = json!({"type": "object", "description": description, "properties": properties});
    if let (Some(map), false) = (out.as_object_mut(), required.is_empty()) {
        map.insert("required".to_owned(), json!(required));
    }
    out
}

/// An object with rules: expression and message.
pub(super) fn ruled(mut object: Value, rules: &[(&str, &str)]) -> Value {
    let rules: Vec<Value> =
        rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect();
    if let Some(map) = object.as_object_mut() {
        map.insert("x-kubernetes-validations".to_owned(), rules.into());
    }
    object
}

pub(super) fn reference(description: &str) -> Value {
    object(description, &["name"], json!({"name": name("Name of an object of the same namespace.")}))
}

pub(super) fn enabled(description: &str) -> Value {
    object(description, &[], json!({"enabled": flag("On.")}))
}

pub(super) fn platform(description: &str) -> Value {
    let property = object("A property.", &["name"], json!({"name": name("Name."), "value": text("Value.")}));
    let mut properties = list("Sorted by name and value, without duplicates.", property);
    if let Some(map) = properties.as_object_mut() {
        map.insert("maxItems".to_owned(), 64.into());
    }
    object(description, &["properties"], json!({"properties": properties}))
}

pub(super) fn ingress(description: &str) -> Value {
    object(
        description,
        &["host"],
        json!({
            "host": name("Host name."), "className": text("Ingress class."),
            "tlsSecretName": text("Secret with the certificate; plain HTTP when absent."),
            "annotations": texts("Annotations."),
        }),
    )
}

pub(super) fn service_type(otherwise: &str) -> Value {
    let description = format!("Type of the Service; {otherwise} when absent.");
    choice(&description, &["ClusterIP", "NodePort", "LoadBalancer"])
}

pub(super) fn service() -> Value {
    object(
        "Further settings of the Service.",
        &[],
        json!({
            "annotations": texts("Annotations."),
            "loadBalancerSourceRanges": list("Who may reach a load balancer.", json!({"type": "string"})),
            "externalTrafficPolicy": choice("Where connections go.", &["Cluster", "Local"]),
            "loadBalancerClass": text("Which load balancer."),
        }),
    )
}

/// A whole spec: the kind's own fields and the common ones.
pub(super) fn spec(own: Value, rules: &[(&str, &str)]) -> Value {
    let mut properties: Map<String, Value> = common();
    if let Value::Object(own) = own {
        properties.extend(own);
    }
    let mut all = vec![(
        "!(has(self.configMapName) && has(self.configOverlay))",
        "configOverlay is for generated configuration: remove it, or configMapName",
    )];
    all.extend_from_slice(rules);
    let mut spec = object("What is wanted.", &[], properties.into());
    // Every field has a meaning when absent, so all of them may be.
    if let Some(map) = spec.as_object_mut() {
        map.insert("default".to_owned(), json!({}));
    }
    ruled(spec, &all)
}

fn common() -> Map<String, Value> {
    let either = json!({"x-kubernetes-int-or-string": true});
    let fields = json!({
        "image": text("Image of the main container; that of the release catalogue when absent."),
        "configMapName": text("A ConfigMap of your own with the configuration; generated when absent."),
        "imagePullSecrets": list("Secrets for pulling images.", foreign("A reference to a Secret.")),
        "resources": foreign("Resources of the main container."),
        "nodeSelector": texts("Nodes that may run the pods."),
        "tolerations": list("Taints that the pods tolerate.", foreign("A toleration.")),
        "imagePullPolicy": choice("When images are pulled.", &["Always", "IfNotPresent", "Never"]),
        "initImage": text("Image with sh and mkdir that prepares volumes."),
        "affinity": foreign("Affinity of the pods."),
        "topologySpreadConstraints": list("How the pods spread.", foreign("A constraint.")),
        "priorityClassName": text("Priority class of the pods."),
        "serviceAccountName": text("Service account of the pods."),
        "podAnnotations": texts("Further annotations of the pods."),
        "podLabels": texts("Further labels of the pods."),
        "podSecurityContext": foreign("Security context of the pods, instead of the operator's."),
        "containerSecurityContext": foreign("Security context of the main container, instead of the operator's."),
        "extraEnv": list("Further environment of the main container.", foreign("A variable.")),
        "extraVolumes": list("Further volumes of the pods.", foreign("A volume.")),
        "extraVolumeMounts": list("Further mounts of the main container.", foreign("A mount.")),
        "terminationGracePeriodSeconds": long("Seconds between SIGTERM and SIGKILL.", 0),
        "pdb": object("The PodDisruptionBudget.", &[], json!({
            "enabled": flag("There is one unless this is false."),
            "minAvailable": either, "maxUnavailable": either,
        })),
        "metrics": enabled("Metrics; on when absent."),
        "tracing": object("Traces to an OTLP collector.", &["otlpEndpoint"], json!({
            "otlpEndpoint": name("gRPC address of the collector."),
            "sampleRate": {"type": "number", "minimum": 0, "maximum": 1, "description": "Share of the traces that are kept."},
        })),
        "configOverlay": foreign("A JSON merge patch for the generated configuration, applied last and checked with it. For workers below the keys worker and runner."),
        "paused": flag("Only the status is kept up; nothing else is changed."),
    });
    fields.as_object().cloned().unwrap_or_default()
}
