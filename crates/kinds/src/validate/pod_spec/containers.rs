//! Containers of every sort.

use std::collections::BTreeSet;

use meta::{FieldError, names};
use serde_json::json;

use super::{At, Errors, env_name, header_name, no_backsteps, port_number_or_name};
use crate::validate::{descending_path, port_name, resources::requirements};

type Volumes<'a> = BTreeSet<&'a str>;

/// Regular containers: at least one, names unique.
pub(super) fn containers(spec: &At<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let at = spec.get("containers");
    if at.is_empty() {
        return at.required(errors, "");
    }
    let mut seen = BTreeSet::new();
    let mut ports = BTreeSet::new();
    for container in at.items() {
        common(&container, volumes, errors);
        let name = container.get("name");
        if !seen.insert(name.text()) {
            name.duplicate(errors);
        }
        lifecycle(&container, errors);
        host_ports(&container, &mut ports, errors);
        if spec.get("hostNetwork").flag() {
            for port in container.get("ports").items() {
                let host = port.get("hostPort");
                if host.is_set() && host.int() != port.get("containerPort").int() {
                    host.invalid(errors, "must match `containerPort` when `hostNetwork` is true");
                }
            }
        }
    }
}

/// Init containers, sidecars (`restartPolicy: Always`) among them.
pub(super) fn init_containers(spec: &At<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let regular = spec.get("containers");
    let mut seen: BTreeSet<&str> = regular.items().map(|container| container.get("name").text()).collect();
    for container in spec.get("initContainers").items() {
        common(&container, volumes, errors);
        let name = container.get("name");
        if !name.is_empty() && !seen.insert(name.text()) {
            name.duplicate(errors);
        }
        host_ports(&container, &mut BTreeSet::new(), errors);
        if container.get("restartPolicy").text() == "Always" {
            lifecycle(&container, errors);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            let field = container.get(field);
            if field.is_set() {
                let detail = "may not be set for init containers without restartPolicy=Always";
                field.forbidden(errors, detail);
            }
        }
    }
}

/// Ephemeral containers: names apart from all others, and little else.
pub(super) fn ephemeral_containers(spec: &At<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mut others: BTreeSet<&str> = BTreeSet::new();
    for list in ["containers", "initContainers"] {
        others.extend(spec.get(list).items().map(|container| container.get("name").text()));
    }
    let mut seen = others.clone();
    for container in spec.get("ephemeralContainers").items() {
        common(&container, volumes, errors);
        let (name, target) = (container.get("name"), container.get("targetContainerName"));
        if !seen.insert(name.text()) {
            name.duplicate(errors);
        }
        if !target.is_empty() && !others.contains(target.text()) {
            target.not_found(errors);
        }
        for field in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resizePolicy"]
        {
            let field = container.get(field);
            if !field.is_empty() {
                field.forbidden(errors, "cannot be set for an Ephemeral Container");
            }
        }
        let resources = container.get("resources");
        if !resources.is_empty() {
            resources.forbidden(errors, "cannot be set for an Ephemeral Container");
        }
        for mount in container.get("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                let field = mount.get(field);
                if !field.is_empty() {
                    field.forbidden(errors, "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
}

fn common(at: &At<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    at.get("name").must(errors, names::dns1123_label);
    at.get("image").must(errors, |_| Vec::new());
    ports(&at.get("ports"), errors);
    for variable in at.get("env").items() {
        env(&variable, errors);
    }
    let sources = at.get("envFrom");
    for source in sources.items() {
        env_from(&source, &sources, errors);
    }
    mounts(at, volumes, errors);
    requirements(&at.get("resources"), errors);
    security_context(&at.get("securityContext"), errors);
}

fn ports(at: &At<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for port in at.items() {
        let (name, number) = (port.get("name"), port.get("containerPort"));
        if !name.is_empty() {
            let messages = port_name(name.text());
            if messages.is_empty() && !seen.insert(name.text()) {
                name.duplicate(errors);
            }
            for message in messages {
                name.invalid(errors, message);
            }
        }
        if number.int().unwrap_or(0) == 0 {
            number.required(errors, "");
        } else {
            number.within(errors, 1, 65_535);
        }
        let host = port.get("hostPort");
        if host.int() != Some(0) {
            host.within(errors, 1, 65_535);
        }
    }
}

fn host_ports(container: &At<'_>, seen: &mut BTreeSet<String>, errors: &mut Errors) {
    for port in container.get("ports").items() {
        let number = port.get("hostPort");
        let Some(host) = number.int().filter(|host| *host != 0) else { continue };
        let key = format!("{}/{}/{host}", port.get("protocol").text(), port.get("hostIP").text());
        if seen.contains(&key) {
            number.duplicate_as(errors, &json!(key));
        }
        seen.insert(key);
    }
}

const SOURCES: &str = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` \
                       or `fileKeyRef`";

fn env(at: &At<'_>, errors: &mut Errors) {
    at.get("name").must(errors, env_name);
    let from = at.get("valueFrom");
    if !from.is_set() {
        return;
    }
    for kind in ["configMapKeyRef", "secretKeyRef"] {
        let key = from.get(kind);
        if key.is_set() {
            key.get("name").all(errors, names::dns1123_subdomain);
            key.get("key").must(errors, names::config_map_key);
        }
    }
    let field = from.get("fieldRef");
    if field.is_set() {
        field_ref(&field, errors);
    }
    let resource = from.get("resourceFieldRef");
    if resource.is_set() {
        resource.get("resource").must(errors, |_| Vec::new());
    }
    let sources = from.value().as_object().map_or(0, serde_json::Map::len);
    let empty = json!("");
    if sources == 0 {
        from.invalid_as(errors, &empty, SOURCES);
    } else if !at.get("value").is_empty() {
        from.invalid_as(errors, &empty, "may not be specified when `value` is not empty");
    } else if sources > 1 {
        from.invalid_as(errors, &empty, "may not have more than one field specified at a time");
    }
}

/// Fields that the downward API gives to environment variables.
const DOWNWARD: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn field_ref(at: &At<'_>, errors: &mut Errors) {
    let path = at.get("fieldPath");
    let text = path.text();
    if text.is_empty() {
        return path.required(errors, "");
    }
    let subscript =
        |map: &str| text.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']").map(str::to_owned);
    if let Some(key) = subscript("metadata.labels").or_else(|| subscript("metadata.annotations")) {
        for message in names::qualified_name(&key) {
            at.invalid_as(errors, &json!(key), message);
        }
    } else if !text.starts_with("metadata.") && !text.starts_with("spec.") && !text.starts_with("status.") {
        let detail = format!("error converting fieldPath: field label not supported: {text}");
        path.invalid(errors, detail);
    } else if !DOWNWARD.contains(&text) {
        path.not_supported(errors, DOWNWARD);
    }
}

fn env_from(at: &At<'_>, list: &At<'_>, errors: &mut Errors) {
    let prefix = at.get("prefix");
    if !prefix.is_empty() {
        prefix.all(errors, env_name);
    }
    let mut sources = 0;
    for kind in ["configMapRef", "secretRef"] {
        let source = at.get(kind);
        if source.is_set() {
            sources += 1;
            source.get("name").must(errors, names::dns1123_subdomain);
        }
    }
    let detail = match sources {
        0 => "must specify one of: `configMapRef` or `secretRef`",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    list.invalid_as(errors, &json!(""), detail);
}

fn mounts(container: &At<'_>, volumes: &Volumes<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    let list = container.get("volumeMounts");
    for mount in list.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        if name.is_empty() {
            name.required(errors, "");
        }
        if !volumes.contains(name.text()) {
            errors.push(FieldError::valued(
                meta::FieldErrorKind::NotFound,
                name.path(),
                &json!(name.text()),
                "",
            ));
        }
        if path.is_empty() {
            path.required(errors, "");
        }
        if !seen.insert(path.text()) {
            path.invalid(errors, "must be unique");
        }
        let (sub, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
        if !sub.is_empty() {
            // Upstream reports these at the list, not at the mount.
            descending_path(&sub.named(&format!("{}.subPath", list.path())), errors);
        }
        if !expression.is_empty() {
            if !sub.is_empty() {
                expression.invalid(errors, "subPathExpr and subPath are mutually exclusive");
            }
            descending_path(&expression.named(&format!("{}.subPathExpr", list.path())), errors);
        }
    }
    for device in container.get("volumeDevices").items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        if name.is_empty() {
            name.required(errors, "");
        } else if !volumes.contains(name.text()) {
            name.not_found(errors);
        }
        path.must(errors, |_| Vec::new());
        no_backsteps(&path, errors);
    }
}

fn security_context(at: &At<'_>, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup"] {
        at.get(field).within(errors, 0, i64::from(i32::MAX));
    }
    let escalation = at.get("allowPrivilegeEscalation");
    if escalation.value() == &json!(false) {
        if at.get("privileged").flag() {
            at.invalid(errors, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        if at.at(&["capabilities", "add"]).items().any(|capability| capability.text() == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            at.invalid(errors, detail);
        }
    }
}

fn lifecycle(container: &At<'_>, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        let hook = container.at(&["lifecycle", hook]);
        if hook.is_set() {
            handler(&hook, errors);
        }
    }
    for (name, once) in [("livenessProbe", true), ("readinessProbe", false), ("startupProbe", true)] {
        let probe = container.get(name);
        if probe.is_set() {
            self::probe(&probe, once, errors);
        }
    }
}

fn probe(at: &At<'_>, once: bool, errors: &mut Errors) {
    handler(at, errors);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        at.get(field).not_negative(errors);
    }
    let grace = at.get("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds <= 0) {
        grace.invalid(errors, "must be greater than 0");
    }
    let threshold = at.get("successThreshold");
    if once && threshold.int() != Some(1) {
        threshold.invalid(errors, "must be 1");
    }
}

fn handler(at: &At<'_>, errors: &mut Errors) {
    let mut found = 0;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let action = at.get(kind);
        if !action.is_set() {
            continue;
        }
        found += 1;
        if found > 1 {
            action.forbidden(errors, "may not specify more than 1 handler type");
            continue;
        }
        match kind {
            "exec" => {
                let command = action.get("command");
                if command.is_empty() {
                    command.required(errors, "");
                }
            }
            "httpGet" => {
                port_number_or_name(&action.get("port"), errors);
                for header in action.get("httpHeaders").items() {
                    header
                        .get("name")
                        .named(&format!("{}.httpHeaders", action.path()))
                        .all(errors, header_name);
                }
            }
            "tcpSocket" => port_number_or_name(&action.get("port"), errors),
            "grpc" => action.get("port").within(errors, 1, 65_535),
            _ => {}
        }
    }
    if found == 0 {
        at.required(errors, "must specify a handler type");
    }
}
