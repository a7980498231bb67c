//! The environment of a container: `envFrom`, then `env`, then the Services' variables that nothing
//! has set.
//!
//! Guarantees upstream's order, precedence and error wording
//! (`pkg/kubelet/kubelet_pods.go`, `makeEnvironmentVariables`). Pure: what it refers to is in
//! [`Sources`]. Not supported: `fileKeyRef` (alpha upstream), refused by name.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod};

use crate::{
    expand::expand,
    fields::{self, FieldUnknown, Place},
    sources::{Missing, Sources},
};

/// Why a container's environment cannot be made: `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// It refers to data that is not there.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// It refers to a field that the downward API does not have.
    #[error(transparent)]
    Field(#[from] FieldUnknown),
    /// It asks for something this agent does not do.
    #[error("environment variable {0}: fileKeyRef is not supported")]
    FileKeyRef(String),
}

/// The environment, in order of name, as the process gets it.
pub fn environment(
    pod: &Pod,
    container: &Container,
    place: &Place,
    sources: &Sources,
    services: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, EnvError> {
    let mut env = BTreeMap::new();
    from_objects(pod, container, sources, &mut env)?;
    for var in container.env.iter().flatten() {
        if let Some(value) = value_of(pod, container, place, sources, services, &env, var)? {
            env.insert(var.name.clone(), value);
        }
    }
    for (name, value) in services {
        env.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Ok(env)
}

fn from_objects(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    env: &mut BTreeMap<String, String>,
) -> Result<(), EnvError> {
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let (data, name) = if let Some(r) = &from.config_map_ref {
            (sources.config_map(&r.name, r.optional.unwrap_or_default())?, &r.name)
        } else if let Some(r) = &from.secret_ref {
            (sources.secret(&r.name, r.optional.unwrap_or_default())?, &r.name)
        } else {
            continue;
        };
        for (key, value) in data.into_iter().flatten() {
            let Ok(text) = std::str::from_utf8(value) else {
                // Binary ConfigMap data is not part of an environment; upstream skips it as well.
                if from.config_map_ref.is_some() {
                    continue;
                }
                return Err(not_text(pod, name, key).into());
            };
            let name = format!("{prefix}{key}");
            if is_env_name(&name) {
                env.insert(name, text.to_owned());
            }
        }
    }
    Ok(())
}

/// Upstream's relaxed rule (KEP-4369): printable ASCII but `=`. Others are skipped.
fn is_env_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'=')
}

fn value_of(
    pod: &Pod,
    container: &Container,
    place: &Place,
    sources: &Sources,
    services: &BTreeMap<String, String>,
    env: &BTreeMap<String, String>,
    var: &EnvVar,
) -> Result<Option<String>, EnvError> {
    if let Some(value) = var.value.as_deref().filter(|value| !value.is_empty()) {
        let lookup = |name: &str| env.get(name).or_else(|| services.get(name)).map(String::as_str);
        return Ok(Some(expand(value, lookup)));
    }
    let Some(source) = &var.value_from else { return Ok(Some(String::new())) };
    let EnvVarSource { config_map_key_ref, field_ref, file_key_ref, resource_field_ref, secret_key_ref } =
        source;
    if let Some(r) = field_ref {
        return Ok(Some(fields::field(pod, place, &r.field_path)?));
    }
    if let Some(r) = resource_field_ref {
        return Ok(Some(fields::resource(pod, place, Some(container), r)?));
    }
    if let Some(r) = config_map_key_ref {
        let optional = r.optional.unwrap_or_default();
        let data = sources.config_map(&r.name, optional)?;
        return keyed(pod, "ConfigMap", &r.name, &r.key, optional, data);
    }
    if let Some(r) = secret_key_ref {
        let optional = r.optional.unwrap_or_default();
        let data = sources.secret(&r.name, optional)?;
        return keyed(pod, "Secret", &r.name, &r.key, optional, data);
    }
    if file_key_ref.is_some() {
        return Err(EnvError::FileKeyRef(var.name.clone()));
    }
    Ok(Some(String::new()))
}

fn keyed(
    pod: &Pod,
    kind: &'static str,
    name: &str,
    key: &str,
    optional: bool,
    data: Option<BTreeMap<&str, &[u8]>>,
) -> Result<Option<String>, EnvError> {
    let Some(data) = data else { return Ok(None) };
    match data.get(key) {
        Some(value) => {
            let text = std::str::from_utf8(value).map_err(|_| not_text(pod, name, key))?;
            Ok(Some(text.to_owned()))
        }
        None if optional => Ok(None),
        None => {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            Err(Missing::Key { kind, namespace, name: name.to_owned(), key: key.to_owned() }.into())
        }
    }
}

fn not_text(pod: &Pod, name: &str, key: &str) -> Missing {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    Missing::NotText { namespace, name: name.to_owned(), key: key.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(spec: serde_json::Value) -> Result<Vec<(String, String)>, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns" },
            "spec": { "containers": [spec] }
        }))
        .unwrap();
        let container = pod.spec.as_ref().unwrap().containers.first().unwrap();
        let mut sources = Sources::default();
        let map = json!({ "data": { "a": "1", "b": "2", "bad=": "x" }, "binaryData": { "raw": "/w==" } });
        sources.config_maps.insert("cm".into(), Some(serde_json::from_value(map).unwrap()));
        let secret = json!({ "data": { "password": "aHVudGVyMg==", "raw": "/w==" } });
        sources.secrets.insert("s".into(), Some(serde_json::from_value(secret).unwrap()));
        let place = Place { pod_ips: vec!["10.0.0.9".into()], ..Place::default() };
        let services = [("DB_SERVICE_HOST".to_owned(), "10.96.0.5".to_owned())].into();
        environment(&pod, container, &place, &sources, &services)
            .map(|env| env.into_iter().filter(|(name, _)| name != "DB_SERVICE_HOST").collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn values_in_order() {
        for (spec, expected) in [
            (
                json!({ "name": "c", "env": [{ "name": "A", "value": "x" }, { "name": "B", "value": "$(A)y$(Z)" }] }),
                vec![("A", "x"), ("B", "xy$(Z)")],
            ),
            (
                json!({ "name": "c", "env": [{ "name": "B", "value": "$(A)" }, { "name": "A", "value": "x" }] }),
                vec![("A", "x"), ("B", "$(A)")],
            ),
            (
                json!({ "name": "c", "env": [{ "name": "URL", "value": "tcp://$(DB_SERVICE_HOST)" }] }),
                vec![("URL", "tcp://10.96.0.5")],
            ),
            (
                json!({ "name": "c", "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "cm" } }],
                     "env": [{ "name": "P_a", "value": "own" }] }),
                vec![("P_a", "own"), ("P_b", "2")],
            ),
            (json!({ "name": "c", "env": [{ "name": "E" }] }), vec![("E", "")]),
            (
                json!({ "name": "c", "env": [{ "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }] }),
                vec![("IP", "10.0.0.9")],
            ),
            (
                json!({ "name": "c", "env": [{ "name": "P", "valueFrom": { "secretKeyRef": { "name": "s", "key": "password" } } }] }),
                vec![("P", "hunter2")],
            ),
            (
                json!({ "name": "c", "env": [{ "name": "P", "valueFrom": { "secretKeyRef": { "name": "no", "key": "k", "optional": true } } },
                                          { "name": "Q", "valueFrom": { "configMapKeyRef": { "name": "cm", "key": "no", "optional": true } } }] }),
                vec![],
            ),
            (
                json!({ "name": "c", "envFrom": [{ "secretRef": { "name": "no", "optional": true } }] }),
                vec![],
            ),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            assert_eq!(check(spec.clone()), Ok(expected), "{spec}");
        }
    }

    #[test]
    fn what_is_missing_is_named_as_upstream_names_it() {
        for (spec, expected) in [
            (
                json!({ "name": "c", "envFrom": [{ "secretRef": { "name": "no" } }] }),
                "secret \"no\" not found",
            ),
            (
                json!({ "name": "c", "envFrom": [{ "configMapRef": { "name": "no" } }] }),
                "configmap \"no\" not found",
            ),
            (
                json!({ "name": "c", "env": [{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }] }),
                "couldn't find key k in Secret ns/s",
            ),
            (
                json!({ "name": "c", "env": [{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "cm", "key": "k" } } }] }),
                "couldn't find key k in ConfigMap ns/cm",
            ),
            (
                json!({ "name": "c", "env": [{ "name": "A", "valueFrom": { "fieldRef": { "fieldPath": "spec.x" } } }] }),
                "unsupported fieldPath: spec.x",
            ),
            (
                json!({ "name": "c", "env": [{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "s", "key": "raw" } } }] }),
                "key raw in Secret ns/s is not valid UTF-8, so it cannot be an environment variable",
            ),
        ] {
            assert_eq!(check(spec.clone()), Err(expected.to_owned()), "{spec}");
        }
    }
}
