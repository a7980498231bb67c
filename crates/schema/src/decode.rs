//! Type checks of built-in kinds, in the words of upstream's decoder. kubectl users see them as
//! `Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go
//! struct field DeploymentSpec.spec.replicas of type int32` (400); the prefix is the caller's.
//! Unknown fields are not its business, nor values of the right type.

use base64::Engine as _;
use meta::Quantity;
use serde_json::Value;

use crate::{Format, Schema, Shape, TypeId, TypeSet, validate};

/// Checks that every known field of `value` has the type `schema` says; the first mismatch is returned.
pub fn check(schema: &Schema, value: &Value) -> Result<(), String> {
    walk(schema.set(), schema.root(), value, &At { strct: "", up: None, field: "" })
}

/// The way to a value as Go's decoder counts it: struct fields only, no indexes and no map keys.
struct At<'a> {
    /// Name of the struct that the innermost field belongs to.
    strct: &'a str,
    up: Option<&'a At<'a>>,
    field: &'a str,
}

impl At<'_> {
    fn path(&self) -> String {
        match self.up {
            None => self.field.to_owned(),
            Some(up) => {
                let mut path = up.path();
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(self.field);
                path
            }
        }
    }
}

fn walk(set: &TypeSet, of: TypeId, value: &Value, at: &At<'_>) -> Result<(), String> {
    let node = set.node(of);
    match (&node.shape, value) {
        // Null is the zero value of everything.
        (_, Value::Null) | (Shape::Any, _) => Ok(()),
        (Shape::Struct { properties, .. }, Value::Object(map)) => {
            let name = node.name.as_deref().map_or(at.strct, short);
            map.iter().try_for_each(|(field, value)| match properties.get(field.as_str()) {
                Some(property) => walk(set, property.of, value, &At { strct: name, up: Some(at), field }),
                None => Ok(()),
            })
        }
        (Shape::Map { values, .. }, Value::Object(map)) => {
            map.values().try_for_each(|value| walk(set, *values, value, at))
        }
        (Shape::List { items, .. }, Value::Array(list)) => {
            list.iter().try_for_each(|value| walk(set, *items, value, at))
        }
        (Shape::String(format), Value::String(text)) => check_text(*format, text),
        (Shape::Integer(format), Value::Number(number)) => {
            let fits = match (format, number.as_i64()) {
                (Format::Int32, Some(n)) => i32::try_from(n).is_ok(),
                (_, Some(_)) => true,
                (_, None) => false,
            };
            if fits { Ok(()) } else { Err(mismatch(set, of, &format!("number {number}"), at)) }
        }
        (shape, value) if validate::has_type(shape, value) => Ok(()),
        (Shape::String(Format::Quantity), _) => Err(meta::QuantityError::Format.to_string()),
        (_, value) => Err(mismatch(set, of, go_value(value), at)),
    }
}

fn check_text(format: Format, text: &str) -> Result<(), String> {
    match format {
        Format::Quantity => match text.parse::<Quantity>() {
            Ok(_) => Ok(()),
            Err(why) => Err(why.to_string()),
        },
        Format::DateTime if !validate::is_date_time(text) => Err(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
        )),
        Format::MicroTime if !validate::is_date_time(text) => Err(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse {text:?} as \"2006\""
        )),
        Format::Byte => match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(_) => Ok(()),
            Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
                Err(format!("illegal base64 data at input byte {at}"))
            }
            Err(_) => Err(format!("illegal base64 data at input byte {}", text.len() / 4 * 4)),
        },
        Format::None
        | Format::Int32
        | Format::Int64
        | Format::Float
        | Format::Double
        | Format::DateTime
        | Format::MicroTime
        | Format::Other => Ok(()),
    }
}

fn mismatch(set: &TypeSet, of: TypeId, found: &str, at: &At<'_>) -> String {
    let (path, wanted) = (at.path(), go_type(set, of));
    if path.is_empty() {
        return format!("json: cannot unmarshal {found} into Go value of type {wanted}");
    }
    format!("json: cannot unmarshal {found} into Go struct field {}.{path} of type {wanted}", at.strct)
}

/// `io.k8s.api.apps.v1.DeploymentSpec` is `DeploymentSpec`.
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn go_value(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The type as Go prints it: `int32`, `[]v1.Container`, `map[string]string`.
fn go_type(set: &TypeSet, of: TypeId) -> String {
    let node = set.node(of);
    if let Some(name) = &node.name {
        let mut parts = name.rsplit('.');
        let (kind, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        return if package.is_empty() { kind.to_owned() } else { format!("{package}.{kind}") };
    }
    match &node.shape {
        Shape::Any => "interface {}".to_owned(),
        Shape::String(Format::Byte) => "[]uint8".to_owned(),
        Shape::String(Format::DateTime) => "v1.Time".to_owned(),
        Shape::String(_) | Shape::IntOrString => "string".to_owned(),
        Shape::Integer(Format::Int32) => "int32".to_owned(),
        Shape::Integer(_) => "int64".to_owned(),
        Shape::Number(Format::Float) => "float32".to_owned(),
        Shape::Number(_) => "float64".to_owned(),
        Shape::Boolean => "bool".to_owned(),
        Shape::Struct { .. } => "struct {}".to_owned(),
        Shape::Map { values, .. } => format!("map[string]{}", go_type(set, *values)),
        Shape::List { items, .. } => format!("[]{}", go_type(set, *items)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::deployment;

    fn check_says(value: Value, expected: Result<(), &str>) {
        assert_eq!(check(&deployment(), &value), expected.map_err(str::to_owned), "{value}");
    }

    #[test]
    fn speaks_as_upstreams_decoder() {
        let quantity =
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        check_says(json!({"spec": {"replicas": 3, "paused": null}, "unknown": 1}), Ok(()));
        check_says(
            json!({"spec": {"replicas": "3"}}),
            Err(
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
        );
        check_says(
            json!({"spec": {"replicas": 3_000_000_000_u64}}),
            Err(
                "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
        );
        check_says(
            json!({"spec": {"replicas": 1.5}}),
            Err(
                "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
        );
        check_says(
            json!({"metadata": {"labels": {"a": 1}}}),
            Err(
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
        );
        check_says(
            json!({"spec": {"template": {"spec": {"containers": {}}}}}),
            Err(
                "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
            ),
        );
        check_says(
            json!({"spec": {"template": {"spec": {"containers": [{"image": true}]}}}}),
            Err(
                "json: cannot unmarshal bool into Go struct field Container.spec.template.spec.containers.image of type string",
            ),
        );
        let memory = |text: Value| json!({"spec": {"template": {"spec": {"containers": [{"resources": {"limits": {"memory": text}}}]}}}});
        check_says(memory(json!("1Gi")), Ok(()));
        check_says(memory(json!(2)), Ok(()));
        check_says(memory(json!("lots")), Err(quantity));
        check_says(json!([]), Err("json: cannot unmarshal array into Go value of type v1.Deployment"));
    }
}
