//! Nodes, namespaces, events, quotas, roles and the like.

use meta::{Object, Timestamp, Value};

use super::{AGE, Col, entries, or, since};

/// Columns of a Node.
pub(crate) const NODE: &[Col] = &[
    Col::text("Status", node_status),
    Col::text("Roles", roles),
    AGE,
    Col::text_at("Version", "status.nodeInfo.kubeletVersion", ""),
    Col::text("Internal-IP", |o, _| address(o, "InternalIP")).wide(),
    Col::text("External-IP", |o, _| address(o, "ExternalIP")).wide(),
    Col::text("OS-Image", |o, _| info(o, "osImage").into()).wide(),
    Col::text("Kernel-Version", |o, _| match o.str(&["status", "nodeInfo", "architecture"]) {
        Some(architecture) if !architecture.is_empty() => {
            format!("{} ({architecture})", info(o, "kernelVersion")).into()
        }
        _ => info(o, "kernelVersion").into(),
    })
    .wide(),
    Col::text("Container-Runtime", |o, _| info(o, "containerRuntimeVersion").into()).wide(),
];

/// Columns of a ComponentStatus.
pub(crate) const COMPONENT: &[Col] = &[
    Col::text("Status", |o, _| {
        let status = healthy(o).and_then(|condition| condition.get("status"));
        let shown = status.map(|status| if status == "True" { "Healthy" } else { "Unhealthy" });
        shown.unwrap_or("Unknown").into()
    }),
    Col::text("Message", |o, _| said(o, "message")),
    Col::text("Error", |o, _| said(o, "error")),
];

fn healthy(component: &Object) -> Option<&Value> {
    component.list(&["conditions"]).iter().find(|condition| condition["type"] == "Healthy")
}

fn said(component: &Object, field: &str) -> Value {
    healthy(component).and_then(|condition| condition.get(field)).cloned().unwrap_or_else(|| "".into())
}

fn info<'a>(node: &'a Object, field: &str) -> &'a str {
    or(node.str(&["status", "nodeInfo", field]), "<unknown>")
}

fn node_status(node: &Object, _: Timestamp) -> Value {
    let ready = meta::find_condition(node, "Ready").map(|condition| condition["status"] == "True");
    let status = match ready {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    };
    if node.bool(&["spec", "unschedulable"]) == Some(true) {
        format!("{status},SchedulingDisabled").into()
    } else {
        status.into()
    }
}

fn roles(node: &Object, _: Timestamp) -> Value {
    let labels = node.get(&["metadata", "labels"]).and_then(Value::as_object).into_iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(|(key, value)| match key.as_str() {
            "kubernetes.io/role" => value.as_str(),
            key => key.strip_prefix("node-role.kubernetes.io/"),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    or(Some(&roles.join(",")), "<none>").into()
}

fn address(node: &Object, kind: &str) -> Value {
    let addresses = node.list(&["status", "addresses"]).iter();
    let found = addresses.filter(|a| a["type"] == kind).find_map(|a| a.get("address")?.as_str());
    or(found, "<none>").into()
}

/// Columns of a Namespace.
pub(crate) const NAMESPACE: &[Col] = &[Col::text_at("Status", "status.phase", ""), AGE];

/// Columns of an Event, in either of its shapes.
pub(crate) const EVENT: &[Col] = &[
    Col::text("Last Seen", last_seen),
    Col::text_at("Type", "type", ""),
    Col::text_at("Reason", "reason", ""),
    Col::text("Object", |o, _| {
        let kind = about(o, "kind").to_lowercase();
        let name = about(o, "name");
        if name.is_empty() { kind.into() } else { format!("{kind}/{name}").into() }
    }),
    Col::text("Subobject", |o, _| about(o, "fieldPath").into()).wide(),
    Col::text("Source", source).wide(),
    Col::text("Message", |o, _| {
        o.str(&["message"]).or_else(|| o.str(&["note"])).unwrap_or_default().trim().into()
    }),
    Col::text("First Seen", |o, now| first_seen(o, now).into()).wide(),
    Col::text("Count", |o, _| {
        let single = o.int(&["count"]).or_else(|| o.int(&["deprecatedCount"])).filter(|count| *count != 0);
        o.int(&["series", "count"]).or(single).unwrap_or(1).into()
    })
    .wide(),
    Col::text("Name", |o, _| o.name().into()).wide(),
];

fn about<'a>(event: &'a Object, field: &str) -> &'a str {
    let text = event.str(&["involvedObject", field]).or_else(|| event.str(&["regarding", field]));
    text.unwrap_or_default()
}

fn first_seen(event: &Object, now: Timestamp) -> String {
    let first = event.str(&["firstTimestamp"]).or_else(|| event.str(&["deprecatedFirstTimestamp"]));
    since(first.or_else(|| event.str(&["eventTime"])), now)
}

fn last_seen(event: &Object, now: Timestamp) -> Value {
    let last = event.str(&["lastTimestamp"]).or_else(|| event.str(&["deprecatedLastTimestamp"]));
    match event.str(&["series", "lastObservedTime"]).or(last) {
        Some(at) => since(Some(at), now).into(),
        None => first_seen(event, now).into(),
    }
}

fn source(event: &Object, _: Timestamp) -> Value {
    let old = |field| event.str(&["source", field]).or_else(|| event.str(&["deprecatedSource", field]));
    let reporter = event.str(&["reportingComponent"]).or_else(|| event.str(&["reportingController"]));
    let component = old("component").filter(|text| !text.is_empty()).or(reporter).unwrap_or_default();
    let host = old("host").filter(|text| !text.is_empty()).or_else(|| event.str(&["reportingInstance"]));
    match host.filter(|host| !host.is_empty()) {
        Some(host) => format!("{component}, {host}").into(),
        None => component.into(),
    }
}

/// Columns of a ConfigMap.
pub(crate) const CONFIG_MAP: &[Col] = &[Col::text("Data", |o, _| entries(o, &["data", "binaryData"])), AGE];

/// Columns of a Secret.
pub(crate) const SECRET: &[Col] =
    &[Col::text_at("Type", "type", ""), Col::text("Data", |o, _| entries(o, &["data"])), AGE];

/// Columns of a ResourceQuota.
pub(crate) const QUOTA: &[Col] =
    &[Col::text("Request", |o, _| used(o, false)), Col::text("Limit", |o, _| used(o, true)), AGE];

fn used(quota: &Object, limits: bool) -> Value {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("0").to_owned();
    let hard = quota.get(&["status", "hard"]).and_then(Value::as_object).into_iter().flatten();
    let shown: Vec<String> = hard
        .filter(|(name, _)| name.starts_with("limits.") == limits)
        .map(|(name, hard)| {
            format!("{name}: {}/{}", text(quota.get(&["status", "used", name])), text(Some(hard)))
        })
        .collect();
    shown.join(", ").into()
}

/// The column of kinds that upstream has no printer for.
pub(crate) const CREATED: &[Col] = &[Col::date_at("Created At", "metadata.creationTimestamp")];

/// Columns of RoleBinding and ClusterRoleBinding.
pub(crate) const ROLE_BINDING: &[Col] = &[
    Col::text("Role", |o, _| {
        let text = |field| o.str(&["roleRef", field]).unwrap_or_default();
        format!("{}/{}", text("kind"), text("name")).into()
    }),
    AGE,
    Col::text("Users", |o, _| subjects(o, "User")).wide(),
    Col::text("Groups", |o, _| subjects(o, "Group")).wide(),
    Col::text("ServiceAccounts", |o, _| subjects(o, "ServiceAccount")).wide(),
];

fn subjects(binding: &Object, kind: &str) -> Value {
    let shown: Vec<String> = binding
        .list(&["subjects"])
        .iter()
        .filter(|subject| subject["kind"] == kind)
        .map(|subject| {
            let text = |field: &str| subject.get(field).and_then(Value::as_str).unwrap_or_default();
            if kind == "ServiceAccount" {
                format!("{}/{}", text("namespace"), text("name"))
            } else {
                text("name").to_owned()
            }
        })
        .collect();
    shown.join(", ").into()
}

/// Columns of a Lease.
pub(crate) const LEASE: &[Col] = &[Col::text_at("Holder", "spec.holderIdentity", ""), AGE];

/// Columns of a PriorityClass.
pub(crate) const PRIORITY_CLASS: &[Col] = &[
    Col::int_at("Value", "value"),
    Col::bool_at("Global-Default", "globalDefault"),
    AGE,
    Col::text_at("PreemptionPolicy", "preemptionPolicy", "").wide(),
];

/// Columns of a RuntimeClass.
pub(crate) const RUNTIME_CLASS: &[Col] = &[Col::text_at("Handler", "handler", ""), AGE];
