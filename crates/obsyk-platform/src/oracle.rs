//! What a platform should hold of a Kubernetes object: a second reading of the contract, for proofs.
//!
//! It shares nothing with the agent's projection but the contract: a table of JSON pointers instead of typed
//! decoding, so that a mistake of one is no mistake of the other. Quantities are taken as they are written:
//! a proof writes them in canonical form.

#![allow(
    clippy::indexing_slicing,
    reason = "of JSON: reading gives null for what is absent, writing adds a field to an object made here"
)]

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

/// How a field comes out of an object. Pointers are those of RFC 6901.
#[derive(Clone, Copy)]
enum Rule {
    /// A text, number or flag; absent when it is or when it is an empty text.
    Maybe(&'static str),
    /// A text; empty when absent.
    Text(&'static str),
    /// A number, with what it is when absent.
    Number(&'static str, i64),
    /// A flag; false when absent.
    Flag(&'static str),
    /// A map or list; absent when empty.
    Filled(&'static str),
    /// The sorted keys of a map; absent when none.
    Keys(&'static str),
    /// The length of a list.
    Length(&'static str),
    /// The names in a list of references; absent when none.
    Names(&'static str),
    /// Anything else; null means absent.
    By(fn(&Value) -> Value),
}

use Rule::{By, Filled, Flag, Keys, Length, Maybe, Names, Number, Text};

type Row = (&'static str, Rule);

const NAMESPACE: &[Row] = &[("phase", Maybe("/status/phase"))];
const POD: &[Row] = &[
    ("node_name", Maybe("/spec/nodeName")),
    ("service_account", Maybe("/spec/serviceAccountName")),
    ("phase", Maybe("/status/phase")),
    ("qos_class", Maybe("/status/qosClass")),
    ("priority_class_name", Maybe("/spec/priorityClassName")),
    ("host_ip", Maybe("/status/hostIP")),
    ("pod_ip", Maybe("/status/podIP")),
    (
        "conditions",
        By(|pod| each(pod, "/status/conditions", &[("type", Text("/type")), ("status", Text("/status"))])),
    ),
    ("containers", By(|pod| containers(pod, "/spec/containers", "/status/containerStatuses"))),
    ("init_containers", By(|pod| containers(pod, "/spec/initContainers", "/status/initContainerStatuses"))),
    ("volumes", By(volumes)),
];
const SERVICE: &[Row] = &[
    ("service_type", Maybe("/spec/type")),
    ("cluster_ip", Maybe("/spec/clusterIP")),
    (
        "ports",
        By(|service| {
            each(
                service,
                "/spec/ports",
                &[
                    ("name", Maybe("/name")),
                    ("protocol", Text("/protocol")),
                    ("port", Number("/port", 0)),
                    (
                        "targetPort",
                        By(|port| match port.get("targetPort") {
                            None => json!("0"),
                            Some(Value::String(name)) => json!(name),
                            Some(number) => json!(number.to_string()),
                        }),
                    ),
                ],
            )
        }),
    ),
    ("selector", Filled("/spec/selector")),
];
const NODE: &[Row] = &[
    (
        "status",
        By(|node| {
            let ready = items(node, "/status/conditions")
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            json!(if ready { "Ready" } else { "NotReady" })
        }),
    ),
    ("roles", By(roles)),
    ("kubelet_version", Maybe("/status/nodeInfo/kubeletVersion")),
    ("container_runtime", Maybe("/status/nodeInfo/containerRuntimeVersion")),
    ("os_image", Maybe("/status/nodeInfo/osImage")),
    ("architecture", Maybe("/status/nodeInfo/architecture")),
    ("cpu_capacity", By(|node| amount(node, "/status/capacity/cpu"))),
    ("memory_capacity", By(|node| amount(node, "/status/capacity/memory"))),
    ("pod_capacity", By(|node| amount(node, "/status/capacity/pods"))),
];
const IMAGE: &str = "/spec/template/spec/containers/0/image";
const DEPLOYMENT: &[Row] = &[
    ("replicas", Number("/spec/replicas", 1)),
    ("ready_replicas", Number("/status/readyReplicas", 0)),
    ("available_replicas", Number("/status/availableReplicas", 0)),
    ("updated_replicas", Number("/status/updatedReplicas", 0)),
    ("strategy", Maybe("/spec/strategy/type")),
    ("selector", Filled("/spec/selector/matchLabels")),
    ("image", Maybe(IMAGE)),
];
const STATEFUL_SET: &[Row] = &[
    ("replicas", Number("/spec/replicas", 1)),
    ("ready_replicas", Number("/status/readyReplicas", 0)),
    ("current_replicas", Number("/status/currentReplicas", 0)),
    ("update_strategy", Maybe("/spec/updateStrategy/type")),
    ("service_name", Maybe("/spec/serviceName")),
    ("selector", Filled("/spec/selector/matchLabels")),
    ("image", Maybe(IMAGE)),
];
const DAEMON_SET: &[Row] = &[
    ("desired_number_scheduled", Number("/status/desiredNumberScheduled", 0)),
    ("current_number_scheduled", Number("/status/currentNumberScheduled", 0)),
    ("number_ready", Number("/status/numberReady", 0)),
    ("number_available", Number("/status/numberAvailable", 0)),
    ("update_strategy", Maybe("/spec/updateStrategy/type")),
    ("selector", Filled("/spec/selector/matchLabels")),
    ("node_selector", Filled("/spec/template/spec/nodeSelector")),
    ("image", Maybe(IMAGE)),
];
const JOB: &[Row] = &[
    ("completions", Number("/spec/completions", 1)),
    ("parallelism", Number("/spec/parallelism", 1)),
    ("succeeded", Number("/status/succeeded", 0)),
    ("failed", Number("/status/failed", 0)),
    ("active", Number("/status/active", 0)),
    ("start_time", Maybe("/status/startTime")),
    ("completion_time", Maybe("/status/completionTime")),
    (
        "owner_ref",
        By(|job| {
            let owners = items(job, "/metadata/ownerReferences");
            owners
                .iter()
                .find(|owner| owner["kind"] == "CronJob")
                .map_or(Value::Null, |owner| owner["name"].clone())
        }),
    ),
];
const CRON_JOB: &[Row] = &[
    ("schedule", Text("/spec/schedule")),
    ("suspend", Flag("/spec/suspend")),
    ("concurrency_policy", Maybe("/spec/concurrencyPolicy")),
    ("last_schedule_time", Maybe("/status/lastScheduleTime")),
    ("active_jobs", Length("/status/active")),
];
const INGRESS: &[Row] = &[
    ("ingress_class_name", Maybe("/spec/ingressClassName")),
    (
        "rules",
        By(|ingress| {
            each(
                ingress,
                "/spec/rules",
                &[
                    ("host", Maybe("/host")),
                    (
                        "paths",
                        By(|rule| {
                            each(
                                rule,
                                "/http/paths",
                                &[
                                    ("path", Maybe("/path")),
                                    ("path_type", Maybe("/pathType")),
                                    ("service_name", Maybe("/backend/service/name")),
                                    ("service_port", Maybe("/backend/service/port/number")),
                                ],
                            )
                        }),
                    ),
                ],
            )
        }),
    ),
    (
        "tls",
        By(|ingress| {
            each(ingress, "/spec/tls", &[("hosts", Filled("/hosts")), ("secret_name", Maybe("/secretName"))])
        }),
    ),
    (
        "load_balancer_ips",
        By(|ingress| {
            let address = |one: &Value| one.get("ip").or_else(|| one.get("hostname")).cloned();
            filled(items(ingress, "/status/loadBalancer/ingress").iter().filter_map(address).collect())
        }),
    ),
];
const NETWORK_POLICY: &[Row] = &[
    ("pod_selector", Filled("/spec/podSelector/matchLabels")),
    ("policy_types", Filled("/spec/policyTypes")),
    ("ingress_rules", Length("/spec/ingress")),
    ("egress_rules", Length("/spec/egress")),
];
const CONFIG_MAP: &[Row] =
    &[("data_keys", Keys("/data")), ("binary_keys", Keys("/binaryData")), ("immutable", Flag("/immutable"))];
const SECRET: &[Row] =
    &[("type", Maybe("/type")), ("data_keys", Keys("/data")), ("immutable", Flag("/immutable"))];
const CLAIM: &[Row] = &[
    ("storage_class_name", Maybe("/spec/storageClassName")),
    ("volume_name", Maybe("/spec/volumeName")),
    ("phase", Maybe("/status/phase")),
    ("volume_mode", Maybe("/spec/volumeMode")),
    ("access_modes", Filled("/spec/accessModes")),
    ("storage_request", Maybe("/spec/resources/requests/storage")),
];
const SERVICE_ACCOUNT: &[Row] = &[
    ("secrets", Names("/secrets")),
    ("image_pull_secrets", Names("/imagePullSecrets")),
    ("automount_service_account_token", Maybe("/automountServiceAccountToken")),
];
const RULES: &[Row] = &[("rule_count", Length("/rules")), ("resources", By(resources))];
const BINDING: &[Row] = &[
    (
        "role_ref",
        By(|binding| project(&binding["roleRef"], &[("kind", Text("/kind")), ("name", Text("/name"))])),
    ),
    (
        "subjects",
        By(|binding| {
            let rows =
                &[("kind", Text("/kind")), ("name", Text("/name")), ("namespace", Maybe("/namespace"))];
            each(binding, "/subjects", rows)
        }),
    ),
];
const EVENT: &[Row] = &[
    ("type", Text("/type")),
    ("reason", Text("/reason")),
    ("message", Text("/message")),
    (
        "involved_object",
        By(|event| {
            let rows = &[
                ("kind", Text("/kind")),
                ("name", Text("/name")),
                ("namespace", Maybe("/namespace")),
                ("uid", Maybe("/uid")),
            ];
            project(&event["involvedObject"], rows)
        }),
    ),
    (
        "source",
        By(|event| {
            project(&event["source"], &[("component", Maybe("/component")), ("host", Maybe("/host"))])
        }),
    ),
    ("first_timestamp", Maybe("/firstTimestamp")),
    ("last_timestamp", Maybe("/lastTimestamp")),
    ("count", Number("/count", 0)),
];

/// What the platform should hold of an object of this kind; the object is as the API server gives it.
pub fn expected(kind: &str, object: &Value) -> Value {
    let (rows, cluster_scoped): (&[Row], bool) = match kind {
        "Namespace" => (NAMESPACE, true),
        "Pod" => (POD, false),
        "Service" => (SERVICE, false),
        "Node" => (NODE, true),
        "Deployment" => (DEPLOYMENT, false),
        "StatefulSet" => (STATEFUL_SET, false),
        "DaemonSet" => (DAEMON_SET, false),
        "Job" => (JOB, false),
        "CronJob" => (CRON_JOB, false),
        "Ingress" => (INGRESS, false),
        "NetworkPolicy" => (NETWORK_POLICY, false),
        "ConfigMap" => (CONFIG_MAP, false),
        "Secret" => (SECRET, false),
        "PersistentVolumeClaim" => (CLAIM, false),
        "ServiceAccount" => (SERVICE_ACCOUNT, false),
        "Role" => (RULES, false),
        "ClusterRole" => (RULES, true),
        "RoleBinding" => (BINDING, false),
        "ClusterRoleBinding" => (BINDING, true),
        "Event" => (EVENT, false),
        _ => return Value::Null,
    };
    let mut fields = match project(object, rows) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    let meta = &object["metadata"];
    fields.insert("uid".into(), meta["uid"].clone());
    fields.insert("name".into(), meta["name"].clone());
    fields.insert("k8s_created_at".into(), meta["creationTimestamp"].clone());
    if !cluster_scoped {
        fields.insert("namespace".into(), meta["namespace"].clone());
    }
    if kind.contains("Role") {
        fields.insert("is_cluster".into(), json!(cluster_scoped));
    }
    if kind != "Event" {
        put(&mut fields, "labels", filled_map(meta.get("labels")));
        put(&mut fields, "annotations", annotations(kind, object));
    }
    Value::Object(fields)
}

fn project(object: &Value, rows: &[Row]) -> Value {
    let mut fields = Map::new();
    for (name, rule) in rows {
        put(&mut fields, name, read(object, *rule));
    }
    Value::Object(fields)
}

fn put(fields: &mut Map<String, Value>, name: &str, value: Value) {
    if !value.is_null() {
        fields.insert(name.to_owned(), value);
    }
}

fn read(object: &Value, rule: Rule) -> Value {
    let at = |pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
    match rule {
        Maybe(pointer) => match at(pointer) {
            Value::String(text) if text.is_empty() => Value::Null,
            value => value,
        },
        Text(pointer) => json!(at(pointer).as_str().unwrap_or_default()),
        Number(pointer, default) => json!(at(pointer).as_i64().unwrap_or(default)),
        Flag(pointer) => json!(at(pointer).as_bool().unwrap_or(false)),
        Filled(pointer) => match at(pointer) {
            Value::Array(list) => filled(list),
            value => filled_map(Some(&value)),
        },
        Keys(pointer) => {
            let keys: BTreeSet<String> =
                at(pointer).as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
            filled(keys.into_iter().map(Value::String).collect())
        }
        Length(pointer) => json!(items(object, pointer).len()),
        Names(pointer) => {
            filled(items(object, pointer).iter().filter_map(|one| one.get("name")).cloned().collect())
        }
        By(read) => read(object),
    }
}

fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn each(object: &Value, pointer: &str, rows: &[Row]) -> Value {
    filled(items(object, pointer).iter().map(|item| project(item, rows)).collect())
}

fn filled(list: Vec<Value>) -> Value {
    if list.is_empty() { Value::Null } else { Value::Array(list) }
}

fn filled_map(value: Option<&Value>) -> Value {
    match value {
        Some(Value::Object(map)) if !map.is_empty() => Value::Object(map.clone()),
        _ => Value::Null,
    }
}

fn amount(object: &Value, pointer: &str) -> Value {
    match object.pointer(pointer) {
        None | Some(Value::Null) => json!("0"),
        Some(Value::String(text)) => json!(text),
        Some(other) => json!(other.to_string()),
    }
}

/// What a Secret or ConfigMap holds, as bytes.
fn values(kind: &str, object: &Value) -> Vec<Vec<u8>> {
    let of = |pointer: &str, packed: bool| -> Vec<Vec<u8>> {
        let texts = object.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
        let texts = texts.filter_map(|(_, value)| value.as_str());
        texts.filter_map(|text| if packed { STANDARD.decode(text).ok() } else { Some(text.into()) }).collect()
    };
    match kind {
        "Secret" => of("/data", true),
        "ConfigMap" => [of("/data", false), of("/binaryData", true)].concat(),
        _ => Vec::new(),
    }
}

/// Whether a text holds a value, as it is or in base64; of the latter the part that does not depend on what
/// follows.
fn holds(text: &str, value: &[u8]) -> bool {
    let has = |part: &[u8], least: usize| {
        part.len() >= least && text.as_bytes().windows(part.len()).any(|window| window == part)
    };
    let end = value.trim_ascii_end();
    let whole_groups = STANDARD.encode(&end[..end.len() / 3 * 3]);
    has(value.trim_ascii(), 4) || has(whole_groups.as_bytes(), 8)
}

fn annotations(kind: &str, object: &Value) -> Value {
    let mut kept = Map::new();
    let values = values(kind, object);
    for (key, value) in object["metadata"]["annotations"].as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        let applied = [
            "kapp.k14s.io/original",
            "objectset.rio.cattle.io/applied",
            "management.cattle.io/applied",
            "banzaicloud.com/last-applied",
        ];
        let copies = text.starts_with("H4sI")
            || ["data\"", "data:", "Data\"", "Data:", "data\\\""].iter().any(|word| text.contains(word));
        let secretive = kind == "Secret" || kind == "ConfigMap";
        let dropped = key.starts_with("kubernetes.io/") || key.starts_with("kubectl.kubernetes.io/");
        let copied = values.iter().any(|value| holds(text, value));
        if !(dropped || copied || applied.contains(&key.as_str()) || (secretive && copies)) {
            kept.insert(key.clone(), value.clone());
        }
    }
    filled_map(Some(&Value::Object(kept)))
}

fn containers(pod: &Value, specs: &str, statuses: &str) -> Value {
    let rows: &[Row] = &[
        ("name", Text("/name")),
        ("image", Text("/image")),
        (
            "ports",
            By(|container| {
                let rows = &[
                    ("container_port", Number("/containerPort", 0)),
                    ("protocol", Maybe("/protocol")),
                    ("name", Maybe("/name")),
                ];
                each(container, "/ports", rows)
            }),
        ),
        (
            "volume_mounts",
            By(|container| {
                let rows = &[
                    ("name", Text("/name")),
                    ("mount_path", Text("/mountPath")),
                    ("read_only", Flag("/readOnly")),
                ];
                each(container, "/volumeMounts", rows)
            }),
        ),
        ("env_var_names", Names("/env")),
        (
            "resources",
            By(|container| {
                let rows = &[
                    ("cpu_request", Maybe("/requests/cpu")),
                    ("cpu_limit", Maybe("/limits/cpu")),
                    ("memory_request", Maybe("/requests/memory")),
                    ("memory_limit", Maybe("/limits/memory")),
                ];
                project(&container["resources"], rows)
            }),
        ),
        ("security_context", By(security)),
    ];
    let all = items(pod, statuses);
    let one = |spec: &Value| {
        let status = all.iter().find(|status| status["name"] == spec["name"]).cloned().unwrap_or_default();
        let mut fields = project(spec, rows);
        let states = ["running", "waiting", "terminated"];
        let state = states.iter().find(|state| status["state"].get(**state).is_some_and(|s| !s.is_null()));
        if let (Some(state), Some(fields)) = (state, fields.as_object_mut()) {
            fields.insert("state".into(), json!(state));
        }
        fields["ready"] = json!(status["ready"].as_bool().unwrap_or(false));
        fields["restart_count"] = json!(status["restartCount"].as_i64().unwrap_or(0));
        fields
    };
    filled(items(pod, specs).iter().map(one).collect())
}

fn security(container: &Value) -> Value {
    let Some(context) = container.get("securityContext").filter(|context| !context.is_null()) else {
        return Value::Null;
    };
    let rows = &[("privileged", Maybe("/privileged")), ("capabilities", Filled("/capabilities/add"))];
    let mut fields = project(context, rows);
    if context["runAsUser"] == 0 || context["runAsNonRoot"] == false {
        fields["run_as_root"] = json!(true);
    }
    fields
}

fn volumes(pod: &Value) -> Value {
    // Field of Kubernetes, what it is called here, where its source stands.
    const SOURCES: &[(&str, &str, &str)] = &[
        ("emptyDir", "emptyDir", ""),
        ("configMap", "configMap", "name"),
        ("secret", "secret", "secretName"),
        ("persistentVolumeClaim", "pvc", "claimName"),
        ("hostPath", "hostPath", "path"),
        ("projected", "projected", ""),
        ("downwardAPI", "downwardAPI", ""),
        ("csi", "csi", "driver"),
        ("nfs", "nfs", ""),
        ("ephemeral", "ephemeral", ""),
    ];
    let one = |volume: &Value| {
        let found = SOURCES.iter().find(|(field, ..)| volume.get(*field).is_some_and(|of| !of.is_null()));
        let (field, kind, source) = found.copied().unwrap_or(("", "unknown", ""));
        let mut sent = json!({"name": volume["name"], "type": kind});
        let of = &volume[field];
        let source = match kind {
            "nfs" => {
                let text = |name: &str| of[name].as_str().unwrap_or_default().to_owned();
                json!(format!("{}:{}", text("server"), text("path")))
            }
            _ => of[source].clone(),
        };
        if source.as_str().is_some_and(|text| !text.is_empty()) {
            sent["source"] = source;
        }
        sent
    };
    filled(items(pod, "/spec/volumes").iter().map(one).collect())
}

fn roles(node: &Value) -> Value {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    let mut roles = BTreeSet::new();
    for key in labels.into_iter().flat_map(Map::keys) {
        match key.split_once("node-role.kubernetes.io/") {
            Some(("", "master")) => roles.insert("control-plane"),
            Some(("", role)) if !role.is_empty() => roles.insert(role),
            _ => false,
        };
    }
    filled(roles.into_iter().map(|role| json!(role)).collect())
}

fn resources(role: &Value) -> Value {
    let named = items(role, "/rules").iter().flat_map(|rule| items(rule, "/resources"));
    let set: BTreeSet<&str> = named.filter_map(Value::as_str).collect();
    json!(set)
}
