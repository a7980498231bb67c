//! `metav1.Condition` in a status tree: set one and keep `lastTransitionTime` while its status stays.
//! Knows nothing of what a condition means.

use serde_json::{Map, Value, json};

use crate::{Object, Timestamp, format_second};

/// One condition to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `Ready`, `Available`, ...
    pub r#type: String,
    /// `True`, `False` or `Unknown`.
    pub status: ConditionStatus,
    /// One word in CamelCase; required by `metav1.Condition`.
    pub reason: String,
    /// For a reader.
    pub message: String,
    /// The generation it was judged at; left out when `None`.
    pub observed_generation: Option<i64>,
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "upstream's names")]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl ConditionStatus {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl Condition {
    /// A condition without message and generation.
    pub fn new(
        r#type: impl Into<String>,
        status: impl Into<ConditionStatus>,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            r#type: r#type.into(),
            status: status.into(),
            reason: reason.into(),
            message: String::new(),
            observed_generation: None,
        }
    }

    /// With a message.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Judged at this generation.
    #[must_use]
    pub fn observed(mut self, generation: i64) -> Self {
        self.observed_generation = Some(generation);
        self
    }

    /// Puts the condition into a list of conditions, in place of the one of its type or at the end. Fields
    /// it does not know (`lastUpdateTime`, ...) stay. Returns whether anything changed; `lastTransitionTime`
    /// becomes `now` only when the status changed.
    pub fn set(&self, conditions: &mut Vec<Value>, now: Timestamp) -> bool {
        let at =
            conditions.iter().position(|item| item.get("type").and_then(Value::as_str) == Some(&self.r#type));
        let Some(Value::Object(map)) = at.and_then(|at| conditions.get_mut(at)) else {
            let mut map = Map::new();
            self.write(&mut map);
            map.insert("lastTransitionTime".into(), json!(format_second(now)));
            conditions.push(Value::Object(map));
            return true;
        };
        let before = map.clone();
        self.write(map);
        if before.get("status") != map.get("status") || !map.contains_key("lastTransitionTime") {
            map.insert("lastTransitionTime".into(), json!(format_second(now)));
        }
        before != *map
    }

    /// The same in `status.conditions` of an object, made where missing.
    pub fn set_in(&self, object: &mut Object, now: Timestamp) -> bool {
        let slot = object.map_at(&["status"]).entry("conditions").or_insert_with(|| Value::Array(Vec::new()));
        if !slot.is_array() {
            *slot = Value::Array(Vec::new());
        }
        slot.as_array_mut().is_some_and(|conditions| self.set(conditions, now))
    }

    fn write(&self, map: &mut Map<String, Value>) {
        map.insert("type".into(), json!(self.r#type));
        map.insert("status".into(), json!(self.status.as_str()));
        map.insert("reason".into(), json!(self.reason));
        map.insert("message".into(), json!(self.message));
        if let Some(generation) = self.observed_generation {
            map.insert("observedGeneration".into(), json!(generation));
        }
    }
}

/// The condition of a type in `status.conditions`.
pub fn find_condition<'a>(object: &'a Object, r#type: &str) -> Option<&'a Value> {
    object
        .list(&["status", "conditions"])
        .iter()
        .find(|item| item.get("type").and_then(Value::as_str) == Some(r#type))
}

/// Whether the condition of a type is `True`.
pub fn is_condition_true(object: &Object, r#type: &str) -> bool {
    find_condition(object, r#type).and_then(|item| item.get("status")).and_then(Value::as_str) == Some("True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_transition_time_while_the_status_stays() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let time = |object: &Object| {
            find_condition(object, "Ready")
                .unwrap()
                .get("lastTransitionTime")
                .unwrap()
                .as_str()
                .unwrap()
                .to_owned()
        };
        let mut object = Object::default();
        assert!(Condition::new("Ready", false, "Starting").observed(1).set_in(&mut object, at(0)));
        assert!(!Condition::new("Ready", false, "Starting").observed(1).set_in(&mut object, at(5)));
        assert!(Condition::new("Ready", false, "Waiting").message("m").set_in(&mut object, at(6)));
        assert_eq!(time(&object), "1970-01-01T00:00:00Z");
        assert!(!is_condition_true(&object, "Ready"));
        assert!(Condition::new("Ready", true, "Up").set_in(&mut object, at(7)));
        assert_eq!(time(&object), "1970-01-01T00:00:07Z");
        assert!(is_condition_true(&object, "Ready"));
        assert_eq!(object.list(&["status", "conditions"]).len(), 1);
    }
}
