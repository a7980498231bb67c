//! A pod's runtime class exists, and gives the pod its overhead and its nodes
//! (`plugin/pkg/admission/runtimeclass`, KEP-688).

use meta::{Object, Status, Value};
use resource::{Context, Operation};

use super::{Plugin, find, forbidden};

pub(super) struct RuntimeClass;

impl Plugin for RuntimeClass {
    const NAME: &'static str = "RuntimeClass";

    fn handles(&self, resource: &str, operation: Operation, subresource: &str) -> bool {
        resource == "pods" && operation == Operation::Create && subresource.is_empty()
    }

    fn mutate(&self, cx: &Context<'_>, pod: &mut Object, _: Option<&Object>) -> Result<(), Status> {
        let Some(class) = class(cx, pod)? else { return Ok(()) };
        if let Some(overhead) = class.get(&["overhead", "podFixed"]) {
            if pod.get(&["spec", "overhead"]).is_some_and(|given| given != overhead) {
                let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
                return Err(forbidden(cx, pod.name(), why));
            }
            pod.set(&["spec", "overhead"], overhead.clone());
        }
        let selector = class.get(&["scheduling", "nodeSelector"]).and_then(Value::as_object);
        for (key, value) in selector.into_iter().flatten() {
            let given = pod.get(&["spec", "nodeSelector", key]).filter(|given| *given != value);
            if let Some(given) = given {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let (class, pod_value) = (text(value), text(given));
                let why = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {class}; \
                     pod.spec.nodeSelector[{key}] = {pod_value}"
                );
                return Err(forbidden(cx, pod.name(), &why));
            }
            pod.set(&["spec", "nodeSelector", key], value.clone());
        }
        let mut tolerations = pod.list(&["spec", "tolerations"]).to_vec();
        for toleration in class.list(&["scheduling", "tolerations"]) {
            if !tolerations.contains(toleration) {
                tolerations.push(toleration.clone());
            }
        }
        if !tolerations.is_empty() {
            pod.set(&["spec", "tolerations"], tolerations);
        }
        Ok(())
    }

    fn validate(&self, cx: &Context<'_>, pod: &Object, _: Option<&Object>) -> Result<(), Status> {
        let class = class(cx, pod)?;
        let defined = class.as_ref().is_some_and(|class| class.get(&["overhead", "podFixed"]).is_some());
        if pod.get(&["spec", "overhead"]).is_some() && !defined {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return Err(forbidden(cx, pod.name(), why));
        }
        Ok(())
    }
}

fn class(cx: &Context<'_>, pod: &Object) -> Result<Option<Object>, Status> {
    let Some(name) = pod.str(&["spec", "runtimeClassName"]).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let found = find(cx, "node.k8s.io", "runtimeclasses", "", name)?;
    if found.is_none() {
        let why = format!("pod rejected: RuntimeClass \"{name}\" not found");
        return Err(forbidden(cx, pod.name(), &why));
    }
    Ok(found)
}
