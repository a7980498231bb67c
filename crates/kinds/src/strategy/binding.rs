//! `pods/binding`: gives a pod its node (`pkg/registry/core/pod/storage.assignPod`).

use meta::{Condition, ConditionStatus, FieldError, GroupResource, Object, Reason, Status, Value};
use resource::{Act, Acted, Context};
use serde_json::json;

/// Binds a pod to a node, once.
pub(crate) struct Binding;

impl Act for Binding {
    fn body(&self) -> (&'static str, &'static str, &'static str) {
        ("", "v1", "Binding")
    }

    fn act(&self, cx: &Context<'_>, object: Option<&Object>, body: &Object) -> Result<Acted, Status> {
        let resource = GroupResource::new("", "pods");
        let pod = object.ok_or_else(|| Status::not_found(&resource, body.name()))?;
        let node = target(body, pod.name())?;
        refuse(pod, body).map_or(Ok(()), |why| Err(conflict(pod.name(), &why)))?;
        let mut bound = pod.clone();
        bound.set(&["spec", "nodeName"], node);
        for map in ["annotations", "labels"] {
            let entries = body.get(&["metadata", map]).and_then(Value::as_object).into_iter().flatten();
            for (key, value) in entries {
                bound.set(&["metadata", map, key], value.clone());
            }
        }
        scheduled(&mut bound, cx);
        let answer =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Ok(Acted::Update { object: bound, answer })
    }
}

/// `bindings`: the same for the pod that the body names (`LegacyBindingREST`).
pub(crate) struct Bindings;

impl Act for Bindings {
    fn body(&self) -> (&'static str, &'static str, &'static str) {
        Binding.body()
    }

    fn act(&self, _: &Context<'_>, _: Option<&Object>, _: &Object) -> Result<Acted, Status> {
        Ok(Acted::Of { resource: GroupResource::new("", "pods"), subresource: "binding" })
    }
}

/// The node that the body names.
fn target(body: &Object, pod: &str) -> Result<String, Status> {
    let mut errors = Vec::new();
    let kind = body.str(&["target", "kind"]).unwrap_or_default();
    let name = body.str(&["target", "name"]).unwrap_or_default();
    if !kind.is_empty() && kind != "Node" {
        errors.push(FieldError::not_supported("target.kind", &json!(kind), &["Node", "<empty>"]));
    }
    if name.is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if errors.is_empty() { Ok(name.to_owned()) } else { Err(Status::invalid("", "Binding", pod, &errors)) }
}

fn refuse(pod: &Object, body: &Object) -> Option<String> {
    let name = pod.name();
    let node = pod.str(&["spec", "nodeName"]).unwrap_or_default();
    if !body.uid().is_empty() && body.uid() != pod.uid() {
        let (have, want) = (pod.uid(), body.uid());
        Some(format!("Precondition failed: UID in precondition: {want}, UID in object meta: {have}"))
    } else if pod.is_deleting() {
        Some(format!("pod {name} is being deleted, cannot be assigned to a host"))
    } else if !node.is_empty() {
        Some(format!("pod {name} is already assigned to node \"{node}\""))
    } else if !pod.list(&["spec", "schedulingGates"]).is_empty() {
        Some(format!("pod {name} has non-empty .spec.schedulingGates"))
    } else {
        None
    }
}

fn conflict(pod: &str, why: &str) -> Status {
    let resource = GroupResource::new("", "pods/binding");
    let message = format!("Operation cannot be fulfilled on pods/binding \"{pod}\": {why}");
    Status::new(409, Reason::Conflict, message).about(&resource, pod)
}

fn scheduled(pod: &mut Object, cx: &Context<'_>) {
    let mut conditions = pod.list(&["status", "conditions"]).to_vec();
    let condition = Condition::new("PodScheduled", ConditionStatus::True, "");
    condition.set(&mut conditions, cx.clock.now());
    for condition in &mut conditions {
        if let Some(map) =
            condition.as_object_mut().filter(|map| map.get("type") == Some(&json!("PodScheduled")))
        {
            // PodCondition has no reason or message when it has nothing to say.
            map.retain(|key, value| !matches!(key.as_str(), "reason" | "message") || value != &json!(""));
        }
    }
    pod.set(&["status", "conditions"], conditions);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cx, object};

    fn check(pod: Value, body: Value) -> Result<Object, String> {
        let cx = Cx::new("pods", "binding");
        match Binding.act(&cx.context(), Some(&object(pod)), &object(body)) {
            Ok(Acted::Update { object, .. }) => Ok(object),
            Ok(_) => panic!("not an update"),
            Err(status) => Err(format!("{} {}", status.code, status.message)),
        }
    }

    #[test]
    fn binds_once() {
        let body = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
        let bound = check(json!({"metadata": {"name": "p"}, "spec": {}}), body.clone()).unwrap();
        assert_eq!(bound.str(&["spec", "nodeName"]), Some("n"));
        let condition = &bound.list(&["status", "conditions"])[0];
        assert_eq!((&condition["type"], &condition["status"]), (&json!("PodScheduled"), &json!("True")));
        let again = check(bound.into_value(), body).unwrap_err();
        assert_eq!(
            again,
            "409 Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\""
        );
    }

    #[test]
    fn refuses() {
        let pod = || json!({"metadata": {"name": "p", "uid": "1"}, "spec": {}});
        for (pod, body, expected) in [
            (pod(), json!({"target": {}}), "422 Binding \"p\" is invalid: target.name: Required value"),
            (
                pod(),
                json!({"metadata": {"uid": "2"}, "target": {"name": "n"}}),
                "409 Operation cannot be fulfilled on pods/binding \"p\": Precondition failed: UID in \
                 precondition: 2, UID in object meta: 1",
            ),
            (
                json!({"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "g"}]}}),
                json!({"target": {"name": "n"}}),
                "409 Operation cannot be fulfilled on pods/binding \"p\": pod p has non-empty \
                 .spec.schedulingGates",
            ),
        ] {
            assert_eq!(check(pod, body).unwrap_err(), expected);
        }
    }
}
