//! The canonical form of a built-in object, which upstream's objects get by passing through Go structs:
//! zero values that mean "unset" are dropped, quantities and times are written one way.
//!
//! It is a strategy around each kind's own, because it has to run where defaults do: `type: ""` is an unset
//! type and gets the default.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use meta::{
    FieldError, GroupResource, Object, Quantity, QuantityForm, Status, Timestamp, Value, format_micro,
    format_second,
};
use resource::{Claim, ClaimFault, Context, Holder, Strategy};
use schema::{Format, Schema, Shape, TypeId};

/// Fields whose zero means unset, by type.
pub(crate) type Zeros = HashMap<TypeId, HashSet<Arc<str>>>;

/// A kind's strategy with the canonical form before it.
pub(crate) struct Canonical {
    pub(crate) inner: Arc<dyn Strategy>,
    pub(crate) schema: Schema,
    pub(crate) zeros: Arc<Zeros>,
    /// What creating an object warns of.
    pub(crate) notice: Option<String>,
}

impl Canonical {
    /// Brings a value into canonical form; returns whether a field was dropped.
    fn walk(&self, of: TypeId, value: &mut Value) -> bool {
        match (&self.schema.set().node(of).shape, value) {
            (Shape::Struct { properties, .. }, Value::Object(map)) => {
                let mut dropped = false;
                if let Some(zeros) = self.zeros.get(&of) {
                    let before = map.len();
                    map.retain(|key, value| !(is_zero(value) && zeros.contains(key.as_str())));
                    dropped = map.len() != before;
                }
                for (key, value) in map.iter_mut() {
                    if let Some(property) = properties.get(key.as_str()) {
                        dropped |= self.walk(property.of, value);
                    }
                }
                dropped
            }
            (Shape::Map { values, .. }, Value::Object(map)) => {
                map.values_mut().fold(false, |dropped, value| self.walk(*values, value) | dropped)
            }
            (Shape::List { items, .. }, Value::Array(list)) => {
                list.iter_mut().fold(false, |dropped, value| self.walk(*items, value) | dropped)
            }
            (Shape::Any, value) => match self.alternative(of) {
                Some(schema) => self.walk_any(schema, value),
                None => false,
            },
            (Shape::String(format), value) => {
                if let Some(text) = canonical(*format, value) {
                    *value = text.into();
                }
                false
            }
            _ => false,
        }
    }

    /// The struct that a union is an alternative of (`JSONSchemaPropsOrBool` and the like), if it is one.
    fn alternative(&self, union: TypeId) -> Option<TypeId> {
        let set = self.schema.set();
        let (name, _) = set.node(union).name.as_deref()?.rsplit_once("Or")?;
        set.find(name)
    }

    /// The objects of a union: the value itself, or the items of a list.
    fn walk_any(&self, of: TypeId, value: &mut Value) -> bool {
        match value {
            Value::Array(list) => {
                list.iter_mut().fold(false, |dropped, value| self.walk(of, value) | dropped)
            }
            value => self.walk(of, value),
        }
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Another text for the same amount or instant; `None` when it is canonical or not well formed.
fn canonical(format: Format, value: &Value) -> Option<String> {
    match (format, value) {
        (Format::Quantity, Value::String(text)) => {
            let quantity: Quantity = text.parse().ok()?;
            let written = quantity.canonical(QuantityForm::of(text));
            (written != *text).then_some(written)
        }
        (Format::Quantity, Value::Number(number)) => {
            let text = number.to_string();
            Some(text.parse::<Quantity>().ok()?.canonical(QuantityForm::DecimalSi))
        }
        (Format::DateTime, Value::String(text)) if !(text.len() == 20 && text.ends_with('Z')) => {
            Some(format_second(text.parse().ok()?))
        }
        (Format::MicroTime, Value::String(text)) if !(text.len() == 27 && text.ends_with('Z')) => {
            Some(format_micro(text.parse().ok()?))
        }
        _ => None,
    }
}

impl Strategy for Canonical {
    fn default(&self, object: &mut Object) {
        let mut tree = std::mem::take(object).into_value();
        if self.walk(self.schema.root(), &mut tree) {
            schema::default::apply(&self.schema, &mut tree);
        }
        *object = Object::from_value(tree).unwrap_or_default();
        self.inner.default(object);
    }

    fn prepare(&self, cx: &Context<'_>, new: &mut Object, old: Option<&Object>) -> Result<(), Status> {
        self.inner.prepare(cx, new, old)
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Vec<FieldError>) {
        self.inner.validate(cx, new, old, errors);
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let mut warnings = self.inner.warnings(new, old);
        warnings.extend(self.notice.iter().filter(|_| old.is_none()).cloned());
        warnings
    }

    fn claims(&self, object: &Object) -> Vec<Claim> {
        self.inner.claims(object)
    }

    fn held_by(&self) -> Option<GroupResource> {
        self.inner.held_by()
    }

    fn holder(&self, claim: &Object) -> Holder {
        self.inner.holder(claim)
    }

    fn report(
        &self,
        claim: &Object,
        holder: Option<&Object>,
        fault: ClaimFault,
        now: Timestamp,
    ) -> Option<Object> {
        self.inner.report(claim, holder, fault, now)
    }

    fn grace_period(&self, object: &Object, asked: Option<i64>) -> Option<i64> {
        self.inner.grace_period(object, asked)
    }

    fn holds_deletion(&self, object: &Object) -> bool {
        self.inner.holds_deletion(object)
    }

    fn begin_deletion(&self, cx: &Context<'_>, object: &mut Object) {
        self.inner.begin_deletion(cx, object);
    }

    fn orphans_by_default(&self) -> bool {
        self.inner.orphans_by_default()
    }

    fn creates_on_update(&self) -> bool {
        self.inner.creates_on_update()
    }

    fn allows_unconditional_update(&self) -> bool {
        self.inner.allows_unconditional_update()
    }

    fn keeps_status_on_create(&self) -> bool {
        self.inner.keeps_status_on_create()
    }

    fn has_generation(&self) -> bool {
        self.inner.has_generation()
    }

    fn time_to_live(&self) -> Option<Duration> {
        self.inner.time_to_live()
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        self.inner.validate_name(name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::object;

    /// A hook that is not passed on would silently be nothing.
    #[test]
    fn every_hook_is_passed_on() {
        let hooks = |source: &str| -> Vec<String> {
            let names = source.lines().filter_map(|line| line.strip_prefix("    fn ")?.split('(').next());
            names.map(str::to_owned).collect()
        };
        let contract = include_str!("../../resource/src/strategy.rs");
        let contract = contract.split("pub trait Strategy").nth(1).unwrap().split("\n}\n").next().unwrap();
        let own = include_str!("canonical.rs").split("impl Strategy for Canonical").nth(1).unwrap();
        let own = hooks(own.split("\n}\n").next().unwrap());
        for hook in hooks(contract) {
            assert!(own.contains(&hook), "{hook} is not passed on");
        }
    }

    #[test]
    fn zero_is_unset_and_amounts_are_canonical() {
        let table = crate::all(&crate::Options::default(), &crate::Acts::default());
        let pods = table.iter().find(|kind| &*kind.plural == "pods").unwrap();
        let mut pod = object(json!({
            "metadata": {"name": "p", "labels": {}},
            "spec": {
                "restartPolicy": "", "hostNetwork": false, "priorityClassName": "", "tolerations": [],
                "priority": 0, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "c", "image": "i:1", "stdin": false, "resources": {
                    "limits": {"cpu": 0.5, "memory": "1024Mi", "hugepages-2Mi": "0"}}}],
                "volumes": [{"name": "v", "emptyDir": {}}]
            }
        }));
        pods.strategy.default(&mut pod);
        assert_eq!(pod.get(&["metadata"]), Some(&json!({"name": "p"})));
        let spec = pod.get(&["spec"]).unwrap().as_object().unwrap();
        for gone in ["hostNetwork", "priorityClassName", "tolerations"] {
            assert!(!spec.contains_key(gone), "{gone}");
        }
        assert_eq!(spec["restartPolicy"], "Always");
        assert_eq!((&spec["priority"], &spec["terminationGracePeriodSeconds"]), (&json!(0), &json!(0)));
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        let limits = json!({"cpu": "500m", "memory": "1Gi", "hugepages-2Mi": "0"});
        assert_eq!(spec["containers"][0]["resources"]["limits"], limits);
        assert!(spec["containers"][0].get("stdin").is_none());
    }

    /// As a client that speaks protobuf sends a definition: with the zeros of all that is held by value.
    #[test]
    fn zeros_below_a_union_are_unset_too() {
        let table = crate::all(&crate::Options::default(), &crate::Acts::default());
        let crds = table.iter().find(|kind| &*kind.plural == "customresourcedefinitions").unwrap();
        let zeros = json!({"$schema": "", "id": "", "title": "", "type": "string"});
        let schema = |inner: &Value| json!({"type": "object", "additionalProperties": inner, "items": [inner], "dependencies": {"a": ["b"]}});
        let mut crd = object(json!({"metadata": {"name": "x"},
            "spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema(&zeros)}}]}}));
        crds.strategy.default(&mut crd);
        let stored = &crd.list(&["spec", "versions"])[0]["schema"]["openAPIV3Schema"];
        assert_eq!(*stored, schema(&json!({"type": "string"})));
    }

    #[test]
    fn instants_are_in_utc() {
        for (format, text, written) in [
            (Format::DateTime, "2024-01-01T02:00:00+02:00", Some("2024-01-01T00:00:00Z")),
            (Format::DateTime, "2024-01-01T00:00:00Z", None),
            (Format::MicroTime, "2024-01-01T00:00:00Z", Some("2024-01-01T00:00:00.000000Z")),
            (Format::DateTime, "yesterday", None),
        ] {
            assert_eq!(canonical(format, &json!(text)).as_deref(), written, "{text}");
        }
    }
}
