//! Refuses definitions that could not be served, when they are written and not when somebody uses them.

use futures::future::{BoxFuture, FutureExt as _, ready};
use meta::{FieldError, Object, Status, Value};
use resource::{Admission, Attributes, Context, Operation};
use schema::{cel::Rules, openapi::from_crd};

use super::jsonpath::JsonPath;

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
            Some(object) => match errors(object, old).as_slice() {
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

/// What is wrong; rules that were let pass earlier are not looked at more closely now.
fn errors(object: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = check(object);
    if errors.is_empty() {
        return errors;
    }
    let before = old.map(check).unwrap_or_default();
    errors.retain(|error| !(error.field.contains("x-kubernetes-validations") && before.contains(error)));
    errors
}

fn check(object: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, version) in object.list(&["spec", "versions"]).iter().enumerate() {
        let path = format!("spec.versions[{at}]");
        if let Some(schema) = version.pointer("/schema/openAPIV3Schema") {
            let path = format!("{path}.schema.openAPIV3Schema");
            match from_crd(schema, &path) {
                Ok(schema) => errors.extend(Rules::check(&schema).into_iter().map(|mut error| {
                    error.field = format!("{path}.{}", error.field);
                    error
                })),
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(rules: &[&str]) -> Object {
        let rules: Vec<Value> = rules.iter().map(|rule| json!({"rule": rule})).collect();
        let spec = json!({"type": "object", "properties": {"size": {"type": "integer"}}, "x-kubernetes-validations": rules});
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        let version = json!({"name": "v1", "schema": {"openAPIV3Schema": schema}});
        Object::from_value(json!({"metadata": {"name": "w"}, "spec": {"versions": [version]}})).unwrap()
    }

    fn check(new: &[&str], old: Option<&[&str]>, expected: &[&str]) {
        let found = errors(&definition(new), old.map(definition).as_ref());
        let place = "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations";
        let short = found.iter().map(|error| {
            let field = error.field.strip_prefix(place).unwrap();
            format!("{field} {}", error.detail.lines().next().unwrap())
        });
        assert_eq!(short.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn rules_that_do_not_go_with_the_schema_are_refused_unless_they_were_there() {
        let confused = "[0].rule compilation failed: ERROR: <input>:1:11: found no matching overload for '_>_' \
                        applied to '(int, string)'";
        let nope = "[1].rule compilation failed: ERROR: <input>:1:5: undefined field 'nope'";
        check(&["self.size > 1"], None, &[]);
        check(&["self.size > '1'"], None, &[confused]);
        check(&["self.size > '1'"], Some(&["self.size > 1"]), &[confused]);
        check(&["self.size > '1'", "self.nope == 1"], Some(&["self.size > '1'"]), &[nope]);
    }
}
