//! ConfigMaps and Secrets: keys, size, and immutability.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meta::{FieldError, FieldErrorKind, Object, Status, Value, names};
use resource::{Context, Strategy};
use serde_json::{Map, json};

use super::{fill, keep};
use crate::validate::{At, Errors};

/// As much as one of them may hold in bytes (`MaxSecretSize`).
const SIZE_MAX: usize = 1024 * 1024;

/// Behaviour of `v1` ConfigMap.
pub(crate) struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, _: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        let (data, binary) = (At::root(new, "data"), At::root(new, "binaryData"));
        let mut size = 0;
        for (key, value) in data.entries() {
            key_name(key, &value, errors);
            if binary.value().get(key).is_some() {
                value.invalid_as(errors, &json!(key), "duplicate of key present in binaryData");
            }
            size += value.text().len();
        }
        for (key, value) in binary.entries() {
            key_name(key, &value, errors);
            if data.value().get(key).is_some() {
                value.invalid_as(errors, &json!(key), "duplicate of key present in data");
            }
            size += decoded_length(value.text());
        }
        if size > SIZE_MAX {
            too_long("", errors);
        }
        if let Some(old) = old {
            immutable(new, old, &["data", "binaryData"], errors);
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

fn key_name(key: &str, at: &At<'_>, errors: &mut Errors) {
    for message in names::config_map_key(key) {
        at.invalid_as(errors, &json!(key), message);
    }
}

/// Length of what base64 text stands for.
fn decoded_length(text: &str) -> usize {
    text.len() / 4 * 3 - text.bytes().rev().take(2).filter(|b| *b == b'=').count().min(text.len() / 4 * 3)
}

fn too_long(field: &str, errors: &mut Errors) {
    errors.push(FieldError {
        kind: FieldErrorKind::TooLong,
        field: field.to_owned(),
        value: None,
        detail: format!("may not be more than {SIZE_MAX} bytes"),
    });
}

/// What is marked immutable stays, the mark included.
fn immutable(new: &Object, old: &Object, fields: &[&str], errors: &mut Errors) {
    if old.bool(&["immutable"]) != Some(true) {
        return;
    }
    let detail = "field is immutable when `immutable` is set";
    if new.bool(&["immutable"]) != Some(true) {
        errors.push(FieldError::forbidden("immutable", detail));
    }
    for field in fields {
        if new.get(&[field]) != old.get(&[field]) {
            errors.push(FieldError::forbidden(*field, detail));
        }
    }
}

/// Behaviour of `v1` Secret.
pub(crate) struct Secret;

impl Strategy for Secret {
    fn default(&self, object: &mut Object) {
        if object.str(&["type"]) == Some("") {
            object.set(&["type"], "Opaque");
        }
        if let Some(Value::Object(texts)) = object.remove(&["stringData"]) {
            let data = object.map_at(&["data"]);
            for (key, text) in texts {
                data.insert(key, STANDARD.encode(text.as_str().unwrap_or_default()).into());
            }
        }
    }

    fn prepare(&self, _: &Context<'_>, new: &mut Object, old: Option<&Object>) -> Result<(), Status> {
        if let Some(old) = old
            && new.str(&["type"]).is_none_or(str::is_empty)
        {
            keep(new, old, &["type"]);
        }
        fill(&mut new.0, "type", "Opaque");
        Ok(())
    }

    fn validate(&self, _: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        let data = At::root(new, "data");
        let mut size = 0;
        for (key, value) in data.entries() {
            key_name(key, &value, errors);
            size += decoded_length(value.text());
        }
        if size > SIZE_MAX {
            too_long("data", errors);
        }
        required_keys(new, &data, errors);
        if let Some(old) = old {
            At::root(new, "type").immutable(errors, &At::root(old, "type"));
            immutable(new, old, &["data"], errors);
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

/// What each type of Secret must have (`ValidateSecret`).
fn required_keys(secret: &Object, data: &At<'_>, errors: &mut Errors) {
    let has = |key: &str| data.value().get(key).is_some();
    let mut json_file = |key: &str| {
        let at = data.key(key);
        match STANDARD.decode(at.text()) {
            _ if !has(key) => at.required(errors, ""),
            Ok(bytes) if serde_json::from_slice::<Map<String, Value>>(&bytes).is_ok() => {}
            Ok(_) | Err(_) => {
                at.invalid_as(errors, &json!("<secret contents redacted>"), "invalid json object")
            }
        }
    };
    match secret.str(&["type"]).unwrap_or_default() {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            if secret.annotation(key).is_none_or(str::is_empty) {
                errors.push(FieldError::required(format!("metadata.annotations[{key}]"), ""));
            }
        }
        "kubernetes.io/dockercfg" => json_file(".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json_file(".dockerconfigjson"),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            data.key("username").required(errors, "");
            data.key("password").required(errors, "");
        }
        "kubernetes.io/ssh-auth" if data.key("ssh-privatekey").is_empty() => {
            data.key("ssh-privatekey").required(errors, "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !has(key) {
                    data.key(key).required(errors, "");
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cx, object};

    fn check(strategy: &dyn Strategy, new: Value, old: Option<Value>, expected: &[&str]) {
        let errors = Cx::new("", "").errors(strategy, &object(new), old.map(object).as_ref());
        assert_eq!(errors.len(), expected.len(), "{errors:?}");
        for (error, expected) in errors.iter().zip(expected) {
            assert!(error.starts_with(expected), "{error} does not begin with {expected}");
        }
    }

    #[test]
    fn config_maps() {
        check(&ConfigMap, json!({"data": {"a.b": "c"}}), None, &[]);
        check(
            &ConfigMap,
            json!({"data": {"a/b": "c"}}),
            None,
            &["data[a/b]: Invalid value: \"a/b\": a valid config key"],
        );
        check(
            &ConfigMap,
            json!({"data": {"a": "x".repeat(SIZE_MAX + 1)}}),
            None,
            &[": Too long: may not be more than 1048576 bytes"],
        );
        check(
            &ConfigMap,
            json!({"data": {"a": "2"}}),
            Some(json!({"immutable": true, "data": {"a": "1"}})),
            &[
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ],
        );
    }

    #[test]
    fn secrets() {
        check(&Secret, json!({"type": "Opaque", "data": {"a": "AA=="}}), None, &[]);
        check(
            &Secret,
            json!({"type": "kubernetes.io/tls"}),
            None,
            &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
        );
        check(
            &Secret,
            json!({"type": "a", "data": {}}),
            Some(json!({"type": "b", "data": {}})),
            &["type: Invalid value: \"a\": field is immutable"],
        );
        let mut secret = object(json!({"stringData": {"a": "b"}, "data": {"a": "AA==", "c": "AA=="}}));
        Secret.default(&mut secret);
        assert_eq!(secret.get(&["data"]), Some(&json!({"a": "Yg==", "c": "AA=="})));
        assert_eq!(secret.get(&["stringData"]), None);
        for (text, length) in [("", 0), ("AA==", 1), ("AAA=", 2), ("AAAA", 3), ("=", 0)] {
            assert_eq!(decoded_length(text), length, "{text}");
        }
    }
}
