//! What custom resources have beyond their schema's structure: CEL rules and upstream's rules for names and
//! updates (`apiextensions-apiserver/pkg/registry/customresource/strategy.go`).

use meta::{FieldError, Object};
use resource::{Context, Strategy};
use schema::{Schema, TypeId, cel::Rules};

/// The strategy of one version of a custom resource.
pub(super) struct Custom {
    /// With the schema they were compiled from; `None` when there are no rules.
    rules: Option<(Rules, Schema)>,
}

impl Custom {
    /// Compiles the rules of the schema; one error for each that does not compile.
    pub(super) fn new(schema: Schema) -> Result<Self, Vec<FieldError>> {
        if !has_rules(&schema) {
            return Ok(Self { rules: None });
        }
        let rules = Rules::compile(&schema)?;
        Ok(Self { rules: Some((rules, schema)) })
    }
}

/// Whether any type of the schema has a rule. Types have consecutive ids.
fn has_rules(schema: &Schema) -> bool {
    let mut reached = vec![schema.root()];
    let mut seen: std::collections::BTreeSet<TypeId> = std::collections::BTreeSet::new();
    while let Some(id) = reached.pop() {
        if !seen.insert(id) {
            continue;
        }
        let node = schema.set().node(id);
        if node.constraints.as_ref().is_some_and(|constraints| !constraints.rules.is_empty()) {
            return true;
        }
        match &node.shape {
            schema::Shape::Struct { properties, .. } => reached.extend(properties.values().map(|p| p.of)),
            schema::Shape::Map { values, .. } => reached.push(*values),
            schema::Shape::List { items, .. } => reached.push(*items),
            schema::Shape::Any
            | schema::Shape::String(_)
            | schema::Shape::Integer(_)
            | schema::Shape::Number(_)
            | schema::Shape::Boolean
            | schema::Shape::IntOrString => {}
        }
    }
    false
}

impl Strategy for Custom {
    fn validate(&self, _: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Vec<FieldError>) {
        if let Some((rules, schema)) = &self.rules {
            let new = new.clone().into_value();
            let old = old.map(|old| old.clone().into_value());
            errors.extend(rules.validate(schema, &new, old.as_ref()));
        }
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        let wrong = meta::names::dns1123_subdomain(name);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join(", ")) }
    }
}
