//! What the downward API can say of a pod: `fieldRef` and `resourceFieldRef`, for environment
//! variables and for volume files.
//!
//! Guarantees upstream's text forms (`pkg/fieldpath`, `pkg/api/v1/resource`). Does not know the
//! runtime: addresses are passed in, because the status of the pod may lag behind the sandbox.

use std::{collections::BTreeMap, fmt::Write as _};

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceFieldSelector},
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};
use meta::Quantity;

/// What stands outside the pod's object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Addresses of the pod, the primary first; empty before the sandbox has one.
    pub pod_ips: Vec<String>,
    /// Addresses of the node, the primary first.
    pub host_ips: Vec<String>,
    /// Allocatable of the node: the value of a limit that is not set.
    pub allocatable: BTreeMap<String, String>,
}

/// A reference that cannot be resolved; the pod has to be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldUnknown {
    /// The path is none the downward API has.
    #[error("unsupported fieldPath: {0}")]
    Path(String),
    /// `containerName` names no container of the pod.
    #[error("container {0} not found")]
    Container(String),
    /// `resource` is none the downward API has.
    #[error("unsupported container resource: {0}")]
    Resource(String),
    /// The divisor is not a positive quantity.
    #[error("divisor {0:?} is not a positive quantity")]
    Divisor(String),
}

/// The value at `path` (`metadata.name`, `metadata.labels['a']`, `status.podIP`, ...).
pub fn field(pod: &Pod, place: &Place, path: &str) -> Result<String, FieldUnknown> {
    let none = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&none);
    let spec = pod.spec.as_ref();
    let owned = |value: Option<&String>| value.cloned().unwrap_or_default();
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(owned(labels.get(key)));
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(owned(annotations.get(key)));
    }
    Ok(match path {
        "metadata.name" => owned(pod.metadata.name.as_ref()),
        "metadata.namespace" => owned(pod.metadata.namespace.as_ref()),
        "metadata.uid" => owned(pod.metadata.uid.as_ref()),
        "metadata.labels" => format_map(labels),
        "metadata.annotations" => format_map(annotations),
        "spec.nodeName" => owned(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => owned(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.podIP" => owned(place.pod_ips.first()),
        "status.podIPs" => place.pod_ips.join(","),
        "status.hostIP" => owned(place.host_ips.first()),
        "status.hostIPs" => place.host_ips.join(","),
        _ => return Err(FieldUnknown::Path(path.to_owned())),
    })
}

fn subscript<'a>(path: &'a str, map: &str) -> Option<&'a str> {
    path.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']")
}

/// `key="value"` lines in order of key, values quoted as Go's `%q` does.
fn format_map(map: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map.iter().map(|(key, value)| format!("{key}={}", go_quote(value))).collect();
    lines.join("\n")
}

fn go_quote(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_control() && u32::from(c) < 0x80 => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of `selector`, in units of its divisor, rounded up. `own` is the container that asks;
/// a volume has none and must name one.
pub fn resource(
    pod: &Pod,
    place: &Place,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
) -> Result<String, FieldUnknown> {
    let named = selector.container_name.as_deref().unwrap_or_default();
    let container = if named.is_empty() {
        own.ok_or_else(|| FieldUnknown::Container(String::new()))?
    } else {
        find(pod, named).ok_or_else(|| FieldUnknown::Container(named.to_owned()))?
    };
    let unknown = || FieldUnknown::Resource(selector.resource.clone());
    let (kind, name) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !known {
        return Err(unknown());
    }
    let resources = container.resources.as_ref();
    let limit = resources.and_then(|r| r.limits.as_ref()).and_then(|limits| limits.get(name));
    let amount = match kind {
        "requests" => resources.and_then(|r| r.requests.as_ref()).and_then(|requests| requests.get(name)),
        "limits" => limit,
        _ => return Err(unknown()),
    };
    let text = match (amount, kind) {
        (Some(WireQuantity(text)), _) => text.clone(),
        (None, "limits") => place.allocatable.get(name).cloned().unwrap_or_else(|| "0".to_owned()),
        (None, _) => "0".to_owned(),
    };
    let divisor = selector.divisor.as_ref().map_or("1", |WireQuantity(text)| text.as_str());
    let divisor = if divisor == "0" || divisor.is_empty() { "1" } else { divisor };
    let bad = || FieldUnknown::Divisor(divisor.to_owned());
    let by: Quantity = divisor.parse().map_err(|_| bad())?;
    let of: Quantity = text.parse().map_err(|_| unknown())?;
    // The milli scale only where it is needed: a memory limit in milli-bytes would overflow.
    let (of, by) =
        if name == "cpu" { (of.milli_value(), by.milli_value()) } else { (of.value(), by.value()) };
    if by <= 0 {
        return Err(bad());
    }
    Ok((of / by + i64::from(of % by != 0)).to_string())
}

fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u",
                "labels": { "b": "2", "a": "1\n\"" }, "annotations": { "k.io/x": "y" } },
            "spec": { "nodeName": "n1", "serviceAccountName": "sa", "containers": [
                { "name": "c", "resources": { "limits": { "memory": "100Mi" }, "requests": { "cpu": "250m" } } },
                { "name": "bare" } ] }
        }))
        .unwrap()
    }

    fn place() -> Place {
        Place {
            pod_ips: vec!["10.0.0.1".into(), "fd00::1".into()],
            host_ips: vec!["192.0.2.1".into()],
            allocatable: [("cpu".to_owned(), "4".to_owned()), ("memory".to_owned(), "8Gi".to_owned())].into(),
        }
    }

    #[test]
    fn fields() {
        for (path, expected) in [
            ("metadata.name", Ok("p")),
            ("metadata.namespace", Ok("ns")),
            ("metadata.uid", Ok("u")),
            ("metadata.labels['b']", Ok("2")),
            ("metadata.labels['none']", Ok("")),
            ("metadata.annotations['k.io/x']", Ok("y")),
            ("metadata.labels", Ok("a=\"1\\n\\\"\"\nb=\"2\"")),
            ("spec.nodeName", Ok("n1")),
            ("spec.serviceAccountName", Ok("sa")),
            ("status.podIP", Ok("10.0.0.1")),
            ("status.podIPs", Ok("10.0.0.1,fd00::1")),
            ("status.hostIP", Ok("192.0.2.1")),
            ("spec.hostname", Err(FieldUnknown::Path("spec.hostname".into()))),
        ] {
            assert_eq!(field(&pod(), &place(), path), expected.map(str::to_owned), "{path}");
        }
    }

    #[test]
    fn resources() {
        let pod = pod();
        for (container, resource_name, divisor, expected) in [
            ("c", "limits.memory", "1Mi", Ok("100")),
            ("c", "limits.memory", "1Gi", Ok("1")),
            ("c", "limits.memory", "0", Ok("104857600")),
            ("c", "requests.cpu", "1", Ok("1")),
            ("c", "requests.cpu", "1m", Ok("250")),
            ("bare", "limits.cpu", "1", Ok("4")),
            ("bare", "limits.memory", "1Gi", Ok("8")),
            ("bare", "requests.memory", "1", Ok("0")),
            ("none", "limits.cpu", "1", Err(FieldUnknown::Container("none".into()))),
            ("c", "limits.gpu", "1", Err(FieldUnknown::Resource("limits.gpu".into()))),
            ("c", "limits.cpu", "-1", Err(FieldUnknown::Divisor("-1".into()))),
        ] {
            let selector = ResourceFieldSelector {
                container_name: Some(container.into()),
                resource: resource_name.into(),
                divisor: Some(WireQuantity(divisor.into())),
            };
            let got = resource(&pod, &place(), None, &selector);
            assert_eq!(got, expected.map(str::to_owned), "{container} {resource_name} {divisor}");
        }
    }
}
