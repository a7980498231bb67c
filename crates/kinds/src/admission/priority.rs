//! A pod's priority comes from its class (`plugin/pkg/admission/priority`).

use meta::{Object, Status, Value};
use resource::{Context, Operation};
use serde_json::json;

use super::{Plugin, find, forbidden, list};

const GROUP: &str = "scheduling.k8s.io";
const CLASSES: &str = "priorityclasses";

pub(super) struct Priority;

impl Plugin for Priority {
    const NAME: &'static str = "Priority";

    fn handles(&self, resource: &str, operation: Operation, subresource: &str) -> bool {
        matches!(resource, "pods" | "priorityclasses.scheduling.k8s.io")
            && matches!(operation, Operation::Create | Operation::Update)
            && subresource.is_empty()
    }

    fn mutate(&self, cx: &Context<'_>, pod: &mut Object, old: Option<&Object>) -> Result<(), Status> {
        if cx.attributes.resource.resource != "pods" {
            return Ok(());
        }
        if let Some(old) = old {
            for field in ["priority", "preemptionPolicy"] {
                if let Some(value) = old.get(&["spec", field]) {
                    pod.set_default(&["spec", field], value.clone());
                }
            }
            return Ok(());
        }
        let (class, value, policy) = establish(cx, pod)?;
        let tail = "must not be provided in pod spec; priority admission controller computed";
        if let Some(given) = pod.int(&["spec", "priority"]).filter(|given| *given != value) {
            let why = format!(
                "the integer value of priority ({given}) {tail} {value} from the given PriorityClass name"
            );
            return Err(forbidden(cx, pod.name(), &why));
        }
        if let Some(given) = pod.str(&["spec", "preemptionPolicy"]).filter(|given| *given != policy) {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) {tail} {policy} from the given PriorityClass name"
            );
            return Err(forbidden(cx, pod.name(), &why));
        }
        if !class.is_empty() {
            pod.set(&["spec", "priorityClassName"], class);
        }
        pod.set(&["spec", "priority"], value);
        pod.set(&["spec", "preemptionPolicy"], policy);
        Ok(())
    }

    fn validate(&self, cx: &Context<'_>, class: &Object, _: Option<&Object>) -> Result<(), Status> {
        if cx.attributes.resource.resource != CLASSES || class.bool(&["globalDefault"]) != Some(true) {
            return Ok(());
        }
        let other = default_class(cx)?.filter(|other| other.name() != class.name());
        other.map_or(Ok(()), |other| {
            let name = other.name();
            let why =
                format!("PriorityClass {name} is already marked as default. Only one default can exist");
            Err(forbidden(cx, class.name(), &why))
        })
    }
}

/// Name, value and preemption policy of the pod's class, or of the default.
fn establish(cx: &Context<'_>, pod: &Object) -> Result<(String, i64, String), Status> {
    let asked = pod.str(&["spec", "priorityClassName"]).unwrap_or_default();
    let class = if asked.is_empty() {
        default_class(cx)?
    } else {
        let found = find(cx, GROUP, CLASSES, "", asked)?;
        if found.is_none() {
            let why = format!("no PriorityClass with name {asked} was found");
            return Err(forbidden(cx, pod.name(), &why));
        }
        found
    };
    let policy =
        |class: &Object| class.str(&["preemptionPolicy"]).unwrap_or("PreemptLowerPriority").to_owned();
    Ok(match &class {
        Some(class) => (class.name().to_owned(), class.int(&["value"]).unwrap_or(0), policy(class)),
        None => (String::new(), 0, "PreemptLowerPriority".to_owned()),
    })
}

/// The class marked default; the lowest when a race made two.
fn default_class(cx: &Context<'_>) -> Result<Option<Object>, Status> {
    let marked = |class: &Object| class.get(&["globalDefault"]) == Some(&json!(true));
    let classes = list(cx, GROUP, CLASSES, None)?.into_iter().filter(marked);
    Ok(classes.min_by_key(|class| class.get(&["value"]).and_then(Value::as_i64)))
}
