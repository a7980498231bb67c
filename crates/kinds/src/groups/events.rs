//! `events.k8s.io/v1`: the same Events as the core group's under other field names.

use std::time::Duration;

use meta::{GroupResource, GroupVersion, Object, Status, Value};
use resource::{Convert, Resource};

use crate::{columns::EVENT, entry::Group, strategy::Rules};

/// How long an Event is kept (upstream `--event-ttl`).
pub(super) const EVENT_TTL: Duration = Duration::from_secs(3_600);

/// Selectable fields of a core Event before `source`; those of this group's are in the same order.
pub(super) const EVENT_FIELDS: &[(&str, &str)] = &[
    ("involvedObject.kind", ""),
    ("involvedObject.namespace", ""),
    ("involvedObject.name", ""),
    ("involvedObject.uid", ""),
    ("involvedObject.apiVersion", ""),
    ("involvedObject.resourceVersion", ""),
    ("involvedObject.fieldPath", ""),
    ("reason", ""),
    ("reportingComponent", ""),
    ("type", ""),
];

/// Who a core Event is from: its source, or what the newer group has instead.
pub(super) fn event_source(event: &Object) -> String {
    let source = event.str(&["source", "component"]).filter(|component| !component.is_empty());
    source.or_else(|| event.str(&["reportingComponent"])).unwrap_or_default().to_owned()
}

const REGARDING_FIELDS: &[(&str, &str)] = &[
    ("regarding.kind", ""),
    ("regarding.namespace", ""),
    ("regarding.name", ""),
    ("regarding.uid", ""),
    ("regarding.apiVersion", ""),
    ("regarding.resourceVersion", ""),
    ("regarding.fieldPath", ""),
    ("reason", ""),
    ("reportingController", ""),
    ("type", ""),
];

/// The kinds of the group.
pub(super) fn kinds(group: &Group<'_>) -> Vec<Resource> {
    vec![
        group
            .namespaced("Event", "events")
            .short("ev")
            .columns(EVENT)
            .strategy(Rules::new().creates_on_update().expires_after(EVENT_TTL))
            .selectable(REGARDING_FIELDS)
            .stored_as(GroupResource::new("", "events"), GroupVersion::new("", "v1"), Renamed)
            .done(),
    ]
}

/// (core, events.k8s.io).
const NAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// Renames the fields that the two groups call differently.
struct Renamed;

impl Convert for Renamed {
    fn to_stored(&self, object: &mut Object) -> Result<(), Status> {
        for (core, new) in NAMES {
            rename(object, new, core);
        }
        object.0.insert("apiVersion".to_owned(), Value::from("v1"));
        Ok(())
    }

    fn to_served(&self, object: &mut Object) -> Result<(), Status> {
        for (core, new) in NAMES {
            rename(object, core, new);
        }
        object.0.insert("apiVersion".to_owned(), Value::from("events.k8s.io/v1"));
        Ok(())
    }
}

fn rename(object: &mut Object, from: &str, to: &str) {
    if let Some(value) = object.0.remove(from) {
        object.0.insert(to.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_from_its_source_or_its_reporter() {
        for (event, expected) in [
            (json!({"source": {"component": "kubelet"}, "reportingComponent": "other"}), "kubelet"),
            (json!({"source": {"component": ""}, "reportingComponent": "other"}), "other"),
            (json!({"reportingComponent": "other"}), "other"),
            (json!({"source": {}}), ""),
        ] {
            let mut whole = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}});
            whole.as_object_mut().unwrap().extend(event.as_object().unwrap().clone());
            assert_eq!(event_source(&Object::from_value(whole).unwrap()), expected, "{event}");
        }
    }

    #[test]
    fn conversion_round_trips() {
        let stored = Object::from_value(json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "m", "count": 2,
            "involvedObject": {"kind": "Pod"}, "reportingComponent": "k", "series": {"count": 1}
        }))
        .unwrap();
        let mut object = stored.clone();
        Renamed.to_served(&mut object).unwrap();
        assert_eq!(object.api_version(), "events.k8s.io/v1");
        assert_eq!(object.str(&["note"]), Some("m"));
        assert_eq!(object.str(&["regarding", "kind"]), Some("Pod"));
        assert_eq!(object.get(&["message"]), None);
        Renamed.to_stored(&mut object).unwrap();
        assert_eq!(object, stored);
    }
}
