//! The twenty kinds as the contract has them: one table of names, scopes and fields. `R` is always there,
//! `O` may be absent and is never null.

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Type {
    Text,
    Integer,
    Flag,
    /// Texts by name.
    Texts,
    /// A list of texts.
    List,
    Object(&'static [Field]),
    Objects(&'static [Field]),
}

/// A field: its name, what it holds, whether it is always there.
pub(crate) type Field = (&'static str, Type, bool);

/// One kind.
pub(crate) struct Kind {
    /// `kind` of an event.
    pub(crate) name: &'static str,
    /// List of a snapshot; also the kind's place in the store.
    pub(crate) list: &'static str,
    pub(crate) namespaced: bool,
    /// Fields beside the common ones.
    pub(crate) fields: &'static [Field],
}

use Type::{Flag, Integer, List, Object, Objects, Text, Texts};

const R: bool = true;
const O: bool = false;

/// Fields of every kind but Event.
pub(crate) const COMMON: &[Field] = &[
    ("uid", Text, R),
    ("name", Text, R),
    ("labels", Texts, O),
    ("annotations", Texts, O),
    ("k8s_created_at", Text, R),
];
/// Fields of an Event.
pub(crate) const COMMON_OF_EVENT: &[Field] =
    &[("uid", Text, R), ("name", Text, R), ("k8s_created_at", Text, R)];

const RESOURCES: &[Field] = &[
    ("cpu_request", Text, O),
    ("cpu_limit", Text, O),
    ("memory_request", Text, O),
    ("memory_limit", Text, O),
];
const CONTAINER: &[Field] = &[
    ("name", Text, R),
    ("image", Text, R),
    ("state", Text, O),
    ("ready", Flag, R),
    ("restart_count", Integer, R),
    ("resources", Object(RESOURCES), R),
    ("ports", Objects(&[("container_port", Integer, R), ("protocol", Text, O), ("name", Text, O)]), O),
    ("volume_mounts", Objects(&[("name", Text, R), ("mount_path", Text, R), ("read_only", Flag, R)]), O),
    ("env_var_names", List, O),
    (
        "security_context",
        Object(&[("privileged", Flag, O), ("run_as_root", Flag, O), ("capabilities", List, O)]),
        O,
    ),
];
const POD: &[Field] = &[
    ("node_name", Text, O),
    ("service_account", Text, O),
    ("phase", Text, O),
    ("qos_class", Text, O),
    ("priority_class_name", Text, O),
    ("host_ip", Text, O),
    ("pod_ip", Text, O),
    ("conditions", Objects(&[("type", Text, R), ("status", Text, R)]), O),
    ("containers", Objects(CONTAINER), O),
    ("init_containers", Objects(CONTAINER), O),
    ("volumes", Objects(&[("name", Text, R), ("type", Text, R), ("source", Text, O)]), O),
];
const SERVICE: &[Field] = &[
    ("service_type", Text, O),
    ("cluster_ip", Text, O),
    (
        "ports",
        Objects(&[("name", Text, O), ("protocol", Text, R), ("port", Integer, R), ("targetPort", Text, O)]),
        O,
    ),
    ("selector", Texts, O),
];
const NODE: &[Field] = &[
    ("status", Text, R),
    ("roles", List, O),
    ("kubelet_version", Text, O),
    ("container_runtime", Text, O),
    ("os_image", Text, O),
    ("architecture", Text, O),
    ("cpu_capacity", Text, O),
    ("memory_capacity", Text, O),
    ("pod_capacity", Text, O),
];
const DEPLOYMENT: &[Field] = &[
    ("replicas", Integer, R),
    ("ready_replicas", Integer, R),
    ("available_replicas", Integer, R),
    ("updated_replicas", Integer, R),
    ("strategy", Text, O),
    ("selector", Texts, O),
    ("image", Text, O),
];
const STATEFUL_SET: &[Field] = &[
    ("replicas", Integer, R),
    ("ready_replicas", Integer, R),
    ("current_replicas", Integer, R),
    ("update_strategy", Text, O),
    ("service_name", Text, O),
    ("image", Text, O),
    ("selector", Texts, O),
];
const DAEMON_SET: &[Field] = &[
    ("desired_number_scheduled", Integer, R),
    ("current_number_scheduled", Integer, R),
    ("number_ready", Integer, R),
    ("number_available", Integer, R),
    ("update_strategy", Text, O),
    ("image", Text, O),
    ("selector", Texts, O),
    ("node_selector", Texts, O),
];
const JOB: &[Field] = &[
    ("completions", Integer, R),
    ("parallelism", Integer, R),
    ("succeeded", Integer, R),
    ("failed", Integer, R),
    ("active", Integer, R),
    ("start_time", Text, O),
    ("completion_time", Text, O),
    ("owner_ref", Text, O),
];
const CRON_JOB: &[Field] = &[
    ("schedule", Text, R),
    ("suspend", Flag, R),
    ("concurrency_policy", Text, O),
    ("last_schedule_time", Text, O),
    ("active_jobs", Integer, R),
];
const PATH: &[Field] =
    &[("path", Text, O), ("path_type", Text, O), ("service_name", Text, O), ("service_port", Integer, O)];
const INGRESS: &[Field] = &[
    ("ingress_class_name", Text, O),
    ("rules", Objects(&[("host", Text, O), ("paths", Objects(PATH), O)]), O),
    ("tls", Objects(&[("hosts", List, O), ("secret_name", Text, O)]), O),
    ("load_balancer_ips", List, O),
];
const NETWORK_POLICY: &[Field] = &[
    ("pod_selector", Texts, O),
    ("policy_types", List, O),
    ("ingress_rules", Integer, R),
    ("egress_rules", Integer, R),
];
const CONFIG_MAP: &[Field] = &[("data_keys", List, O), ("binary_keys", List, O), ("immutable", Flag, R)];
const SECRET: &[Field] = &[("type", Text, O), ("data_keys", List, O), ("immutable", Flag, R)];
const CLAIM: &[Field] = &[
    ("storage_class_name", Text, O),
    ("volume_name", Text, O),
    ("phase", Text, O),
    ("volume_mode", Text, O),
    ("access_modes", List, O),
    ("storage_request", Text, O),
];
const SERVICE_ACCOUNT: &[Field] =
    &[("secrets", List, O), ("image_pull_secrets", List, O), ("automount_service_account_token", Flag, O)];
const ROLE: &[Field] = &[("is_cluster", Flag, R), ("rule_count", Integer, R), ("resources", List, R)];
const BINDING: &[Field] = &[
    ("is_cluster", Flag, R),
    ("role_ref", Object(&[("kind", Text, R), ("name", Text, R)]), R),
    ("subjects", Objects(&[("kind", Text, R), ("name", Text, R), ("namespace", Text, O)]), O),
];
const EVENT: &[Field] = &[
    ("type", Text, R),
    ("reason", Text, R),
    ("message", Text, R),
    (
        "involved_object",
        Object(&[("kind", Text, R), ("name", Text, R), ("namespace", Text, O), ("uid", Text, O)]),
        R,
    ),
    ("source", Object(&[("component", Text, O), ("host", Text, O)]), R),
    ("first_timestamp", Text, O),
    ("last_timestamp", Text, O),
    ("count", Integer, R),
];

const fn kind(name: &'static str, list: &'static str, namespaced: bool, fields: &'static [Field]) -> Kind {
    Kind { name, list, namespaced, fields }
}

/// All of them, in the order of a snapshot.
pub(crate) const KINDS: [Kind; 20] = [
    kind("Namespace", "namespaces", false, &[("phase", Text, O)]),
    kind("Pod", "pods", true, POD),
    kind("Service", "services", true, SERVICE),
    kind("Node", "nodes", false, NODE),
    kind("Deployment", "deployments", true, DEPLOYMENT),
    kind("StatefulSet", "statefulsets", true, STATEFUL_SET),
    kind("DaemonSet", "daemonsets", true, DAEMON_SET),
    kind("Job", "jobs", true, JOB),
    kind("CronJob", "cronjobs", true, CRON_JOB),
    kind("Ingress", "ingresses", true, INGRESS),
    kind("NetworkPolicy", "network_policies", true, NETWORK_POLICY),
    kind("ConfigMap", "configmaps", true, CONFIG_MAP),
    kind("Secret", "secrets", true, SECRET),
    kind("PersistentVolumeClaim", "pvcs", true, CLAIM),
    kind("ServiceAccount", "service_accounts", true, SERVICE_ACCOUNT),
    kind("Role", "roles", true, ROLE),
    kind("ClusterRole", "cluster_roles", false, ROLE),
    kind("RoleBinding", "role_bindings", true, BINDING),
    kind("ClusterRoleBinding", "cluster_role_bindings", false, BINDING),
    kind("Event", "events", true, EVENT),
];

/// The kind of this name.
pub(crate) fn named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}
