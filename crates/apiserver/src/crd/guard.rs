//! Refuses definitions that could not be served, when they are written and not when somebody uses them.

use futures::future::{BoxFuture, FutureExt as _, ready};
use meta::{FieldError, Object, Status, Value};
use resource::{Admission, Attributes, Context, Operation};
use schema::openapi::from_crd;

use super::{jsonpath::JsonPath, strategy::Custom};

/// Checks schemas, CEL rules and column paths of CustomResourceDefinitions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Definitions;

impl Admission for Definitions {
    fn name(&self) -> &'static str {
        "CustomResourceDefinitions"
    }

    fn handles(&self, attributes: &Attributes) -> bool {
        attributes.resource.group == "apiextensions.k8s.io"
            && attributes.resource.resource == "customresourcedefinitions"
            && attributes.subresource.is_empty()
            && matches!(attributes.operation, Operation::Create | Operation::Update)
    }

    fn validate<'a>(
        &'a self,
        _: &'a Context<'a>,
        object: Option<&'a Object>,
        old: Option<&'a Object>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let same = |object: &Object| old.is_some_and(|old| old.get(&["spec"]) == object.get(&["spec"]));
        let verdict = match object.filter(|object| !same(object)) {
            None => Ok(()),
            Some(object) => match check(object).as_slice() {
                [] => Ok(()),
                errors => Err(Status::invalid(
                    "apiextensions.k8s.io",
                    "CustomResourceDefinition",
                    object.name(),
                    errors,
                )),
            },
        };
        ready(verdict).boxed()
    }
}

fn check(object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, version) in object.list(&["spec", "versions"]).iter().enumerate() {
        let path = format!("spec.versions[{at}]");
        if let Some(schema) = version.pointer("/schema/openAPIV3Schema") {
            let path = format!("{path}.schema.openAPIV3Schema");
            match from_crd(schema, &path) {
                Ok(schema) => errors.extend(Custom::new(schema).err().into_iter().flatten()),
                Err(found) => errors.extend(found),
            }
        }
        for list in ["additionalPrinterColumns", "selectableFields"] {
            let items = version.get(list).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            for (at, item) in items.iter().enumerate() {
                let given = item.get("jsonPath").unwrap_or(&Value::Null);
                if let Err(why) = JsonPath::parse(given.as_str().unwrap_or_default()) {
                    errors.push(FieldError::invalid(format!("{path}.{list}[{at}].jsonPath"), given, why));
                }
            }
        }
    }
    errors
}
