//! `x-kubernetes-validations` (upstream `apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube_cel::cel::Value as Cel;
use meta::{FieldError, FieldErrorKind};
use serde_json::{Value, json};

use super::{
    check::{Names, Type},
    convert::{convert, optional},
    cost::{PER_CALL, PER_OBJECT, Sizes, estimate},
    program::Program,
};
use crate::{ListType, MapType, Rule, Schema, Shape, TypeId, TypeSet, path::Path};

/// Bytes that a message from a messageExpression may have.
const MESSAGE_MAX: usize = 5 * 1024;

/// The compiled rules of one schema. Costly to make, cheap to run; hold it beside the schema it was made
/// from.
#[derive(Debug, Default)]
pub struct Rules {
    by_type: BTreeMap<TypeId, Vec<Compiled>>,
    /// Types with a rule on them or somewhere below.
    walked: BTreeSet<TypeId>,
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    program: Program,
    message: Option<Program>,
}

impl Rules {
    /// Compiles every rule reachable from the root of `schema`; one error for each that does not compile, its
    /// field relative to the schema (`properties[spec].x-kubernetes-validations[0].rule`).
    pub fn compile(schema: &Schema) -> Result<Self, Vec<FieldError>> {
        Self::compile_as(schema, false)
    }

    /// What [`Rules::compile`] finds, and where a rule does not go with the types of the schema: for definitions
    /// that are written. Those that are there are served as they are.
    pub fn check(schema: &Schema) -> Vec<FieldError> {
        Self::compile_as(schema, true).err().unwrap_or_default()
    }

    fn compile_as(schema: &Schema, typed: bool) -> Result<Self, Vec<FieldError>> {
        let mut compiler = Compiler {
            set: schema.set(),
            typed,
            root: schema.root(),
            rules: Self::default(),
            errors: Vec::new(),
            open: BTreeSet::new(),
        };
        compiler.visit(schema.root(), "", true);
        if compiler.errors.is_empty() { Ok(compiler.rules) } else { Err(compiler.errors) }
    }

    /// Whether there is no rule at all, so that evaluation can be skipped.
    pub fn is_empty(&self) -> bool {
        self.by_type.is_empty()
    }

    /// Evaluates all rules on `new`; transition rules (those that name `oldSelf`) only where an old value
    /// corresponds, unless `optionalOldSelf`. A rule that does not hold for a value that has not changed is
    /// not reported (KEP-4008). Evaluation stops when all rules together have cost too much.
    pub fn validate(&self, schema: &Schema, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut run =
            Run { rules: self, set: schema.set(), errors: Vec::new(), left: PER_OBJECT, stopped: false };
        run.value(schema.root(), new, old, &Path::Root, true);
        run.errors
    }
}

struct Compiler<'s> {
    set: &'s Arc<TypeSet>,
    /// Whether rules must go with the types.
    typed: bool,
    root: TypeId,
    rules: Rules,
    errors: Vec<FieldError>,
    /// Types on the way down: a recursive type is compiled once.
    open: BTreeSet<TypeId>,
}

impl Compiler<'_> {
    /// Whether there is a rule at `of` or below.
    fn visit(&mut self, of: TypeId, path: &str, correlated: bool) -> bool {
        if self.rules.walked.contains(&of) {
            return true;
        }
        if !self.open.insert(of) {
            return false;
        }
        let node = self.set.node(of);
        let mut found = self.rules_of(of, path, correlated);
        let joined = |step: &str| if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") };
        match &node.shape {
            Shape::Struct { properties, map_type, .. } => {
                let correlated = correlated && *map_type == MapType::Granular;
                for (name, property) in properties {
                    found |= self.visit(property.of, &joined(&format!("properties[{name}]")), correlated);
                }
            }
            Shape::Map { values, map_type } => {
                let correlated = correlated && *map_type == MapType::Granular;
                found |= self.visit(*values, &joined("additionalProperties"), correlated);
            }
            Shape::List { items, list_type } => {
                let correlated = correlated && matches!(list_type, ListType::Map(_));
                found |= self.visit(*items, &joined("items"), correlated);
            }
            _ => {}
        }
        self.open.remove(&of);
        if found {
            self.rules.walked.insert(of);
        }
        found
    }

    fn rules_of(&mut self, of: TypeId, path: &str, correlated: bool) -> bool {
        let Some(constraints) = &self.set.node(of).constraints else { return false };
        let mut compiled = Vec::new();
        for (at, rule) in constraints.rules.iter().enumerate() {
            let dot = if path.is_empty() { "" } else { "." };
            let field = |name: &str| format!("{path}{dot}x-kubernetes-validations[{at}].{name}");
            match self.compile(of, rule, correlated) {
                Ok(rule) => compiled.push(rule),
                Err((name, why)) => {
                    let value =
                        json!({"rule": &*rule.rule, "messageExpression": rule.message_expression.as_deref()});
                    let shown = if name == "rule" { json!({"rule": &*rule.rule}) } else { value };
                    self.errors.push(FieldError::invalid(field(name), &shown, why));
                }
            }
        }
        let any = !constraints.rules.is_empty();
        if any {
            self.rules.by_type.insert(of, compiled);
        }
        any
    }

    fn compile(&self, of: TypeId, rule: &Rule, correlated: bool) -> Result<Compiled, (&'static str, String)> {
        let program = self.program(of, rule, &rule.rule, &Type::Bool).map_err(|why| ("rule", why))?;
        if program.uses("oldSelf") {
            if !correlated {
                let why = "oldSelf cannot be used on the uncorrelatable portion of the schema";
                return Err(("rule", why.to_owned()));
            }
        } else if rule.optional_old_self.is_some() {
            return Err(("optionalOldSelf", "may not be set if oldSelf is not used in rule".to_owned()));
        }
        let message = match rule.message_expression.as_deref() {
            None => None,
            Some(source) => {
                let why = |why: String| ("messageExpression", format!("messageExpression {why}"));
                Some(self.program(of, rule, source, &Type::String).map_err(why)?)
            }
        };
        Ok(Compiled { rule: rule.clone(), program, message })
    }

    fn program(&self, of: TypeId, rule: &Rule, source: &str, wanted: &Type) -> Result<Program, String> {
        let variables = ["self", "oldSelf"];
        if !self.typed {
            return Program::compile(source, &variables);
        }
        let this = Type::typed(self.set, of, of == self.root);
        let mut names = Names::new();
        names.declare("self", this.clone());
        let optional = rule.optional_old_self == Some(true);
        names.declare("oldSelf", if optional { Type::optional(this) } else { this });
        match Program::checked(source, &variables, &names)? {
            (program, Type::Dyn) => Ok(program),
            (program, given) if given == *wanted => Ok(program),
            _ => Err(format!("must evaluate to a {wanted}")),
        }
    }
}

struct Run<'a> {
    rules: &'a Rules,
    set: &'a TypeSet,
    errors: Vec<FieldError>,
    left: u64,
    stopped: bool,
}

impl Run<'_> {
    fn value(&mut self, of: TypeId, new: &Value, old: Option<&Value>, path: &Path<'_>, root: bool) {
        if self.stopped || new.is_null() || !self.rules.walked.contains(&of) {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        if let Some(rules) = self.rules.by_type.get(&of).filter(|rules| !rules.is_empty()) {
            self.rules_on(rules, of, new, old, path, root);
        }
        match (&self.set.node(of).shape, new) {
            (Shape::Struct { properties, map_type, .. }, Value::Object(map)) => {
                let old = old.filter(|_| *map_type == MapType::Granular);
                for (name, value) in map {
                    if let Some(property) = properties.get(name.as_str()) {
                        let old = old.and_then(|old| old.get(name));
                        self.value(property.of, value, old, &Path::Field(path, name), false);
                    }
                }
            }
            (Shape::Map { values, map_type }, Value::Object(map)) => {
                let old = old.filter(|_| *map_type == MapType::Granular);
                for (key, value) in map {
                    let old = old.and_then(|old| old.get(key));
                    self.value(*values, value, old, &Path::Key(path, key), false);
                }
            }
            (Shape::List { items, list_type }, Value::Array(list)) => {
                for (at, item) in list.iter().enumerate() {
                    let old = match list_type {
                        ListType::Map(keys) => old.and_then(Value::as_array).and_then(|old| {
                            old.iter().find(|old| keys.iter().all(|key| old.get(&**key) == item.get(&**key)))
                        }),
                        ListType::Unspecified | ListType::Atomic | ListType::Set => None,
                    };
                    self.value(*items, item, old, &Path::Index(path, at), false);
                }
            }
            _ => {}
        }
    }

    fn rules_on(
        &mut self,
        rules: &[Compiled],
        of: TypeId,
        new: &Value,
        old: Option<&Value>,
        path: &Path<'_>,
        root: bool,
    ) {
        let sizes = old.map_or_else(Sizes::default, Sizes::of).max(Sizes::of(new));
        let this = convert(self.set, of, new, root);
        let that = old.map(|old| convert(self.set, of, old, root));
        for compiled in rules {
            let optional_old = compiled.rule.optional_old_self == Some(true);
            let transition = compiled.program.uses("oldSelf");
            if transition && old.is_none() && !optional_old {
                continue;
            }
            if !self.pays(&compiled.program, &compiled.rule, sizes, path) {
                return;
            }
            let mut variables = vec![("self", this.clone())];
            match &that {
                _ if optional_old => variables.push(("oldSelf", optional(that.clone()))),
                Some(that) => variables.push(("oldSelf", that.clone())),
                None => {}
            }
            let failure = match compiled.program.run(&variables) {
                Ok(Cel::Bool(true)) => continue,
                Ok(Cel::Bool(false)) => {
                    if !transition && old == Some(new) {
                        continue;
                    }
                    self.failure(compiled, new, &variables, sizes, path)
                }
                Ok(_) => invalid(path, format!("rule must evaluate to a bool: {}", short(&compiled.rule))),
                Err(why) if why.starts_with("No such overload") => invalid(
                    path,
                    format!(
                        "'no such overload': call arguments did not match a supported operator, function or \
                         macro signature for rule: {}",
                        short(&compiled.rule)
                    ),
                ),
                Err(why) => {
                    invalid(path, format!("{} evaluating rule: {}", worded(&why), short(&compiled.rule)))
                }
            };
            self.errors.push(failure);
        }
    }

    /// Takes the cost of an evaluation from what is left; reports and stops where it is not there.
    fn pays(&mut self, program: &Program, rule: &Rule, sizes: Sizes, path: &Path<'_>) -> bool {
        let cost = estimate(&program.expression, sizes);
        if cost > PER_CALL {
            let why = format!(
                "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to \
                 call cost exceeds limit for rule: {}",
                short(rule)
            );
            self.errors.push(invalid(path, why));
            self.stopped = true;
        } else if cost > self.left {
            let why = "validation failed due to running out of cost budget, no further validation rules will be run";
            self.errors.push(invalid(path, why.to_owned()));
            self.stopped = true;
        }
        self.left = self.left.saturating_sub(cost);
        !self.stopped
    }

    fn failure(
        &self,
        compiled: &Compiled,
        value: &Value,
        variables: &[(&str, Cel)],
        sizes: Sizes,
        path: &Path<'_>,
    ) -> FieldError {
        let rule = &compiled.rule;
        let told = compiled
            .message
            .as_ref()
            .filter(|message| estimate(&message.expression, sizes) <= PER_CALL)
            .and_then(|message| match message.run(variables) {
                Ok(Cel::String(text)) => Some(text.trim().to_owned()),
                // A message that cannot be made is not shown; the static one or the rule is.
                Ok(_) | Err(_) => None,
            })
            .filter(|text| !text.is_empty() && text.len() <= MESSAGE_MAX && !text.contains(['\n', '\r']));
        let detail = told.unwrap_or_else(|| match rule.message.as_deref() {
            Some(message) if !message.is_empty() => message.trim().to_owned(),
            _ => format!("failed rule: {}", short(rule)),
        });
        let field = match rule.field_path.as_deref() {
            Some(below) if !below.is_empty() => below_path(path, below),
            _ => shown(path),
        };
        let kind = match rule.reason.as_deref() {
            Some("FieldValueRequired") => FieldErrorKind::Required,
            Some("FieldValueForbidden") => FieldErrorKind::Forbidden,
            Some("FieldValueDuplicate") => FieldErrorKind::Duplicate,
            _ => FieldErrorKind::Invalid,
        };
        let valued = matches!(kind, FieldErrorKind::Duplicate | FieldErrorKind::Invalid)
            && !matches!(value, Value::Object(_) | Value::Array(_));
        let detail = if kind == FieldErrorKind::Duplicate { String::new() } else { detail };
        FieldError { kind, field, value: valued.then(|| value.to_string()), detail }
    }
}

/// What a rule is called in errors: its message, or itself.
fn short(rule: &Rule) -> &str {
    match rule.message.as_deref().map(str::trim) {
        Some(message) if !message.is_empty() => message,
        _ => rule.rule.trim(),
    }
}

fn shown(path: &Path<'_>) -> String {
    let text = path.to_string();
    if text.is_empty() { "<nil>".to_owned() } else { text }
}

fn below_path(path: &Path<'_>, below: &str) -> String {
    let above = path.to_string();
    let below = if above.is_empty() { below.strip_prefix('.').unwrap_or(below) } else { below };
    // `['a.b']` is how a field path writes a name with dots; errors write `[a.b]`.
    format!("{above}{}", below.replace("['", "[").replace("']", "]"))
}

fn invalid(path: &Path<'_>, detail: String) -> FieldError {
    FieldError { kind: FieldErrorKind::Invalid, field: shown(path), value: None, detail }
}

/// The crate's errors in the words of cel-go.
fn worded(why: &str) -> String {
    match why.strip_prefix("No such key: ") {
        Some(key) => format!("no such key: {key}"),
        None => why.to_owned(),
    }
}
