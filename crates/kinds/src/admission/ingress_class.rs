//! Ingresses without a class get the default one (`plugin/pkg/admission/network/defaultingressclass`).

use meta::{Object, Status};
use resource::{Context, Operation};

use super::{Plugin, list, storage::newest_default};

pub(super) struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    const NAME: &'static str = "DefaultIngressClass";

    fn handles(&self, resource: &str, operation: Operation, subresource: &str) -> bool {
        resource == "ingresses.networking.k8s.io" && operation == Operation::Create && subresource.is_empty()
    }

    fn mutate(&self, cx: &Context<'_>, ingress: &mut Object, _: Option<&Object>) -> Result<(), Status> {
        let annotated = ingress.annotation("kubernetes.io/ingress.class").is_some();
        if annotated || ingress.get(&["spec", "ingressClassName"]).is_some() {
            return Ok(());
        }
        let classes = list(cx, "networking.k8s.io", "ingressclasses", None)?;
        if let Some(class) = newest_default(classes, &["ingressclass.kubernetes.io/is-default-class"]) {
            ingress.set(&["spec", "ingressClassName"], class.name());
        }
        Ok(())
    }
}
