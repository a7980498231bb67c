//! Rules by example, in upstream's words.

use serde_json::{Value, json};

use std::sync::Arc;

use super::{Asked, Authorize, Expression, ExpressionError, POLICY_BUDGET, Rules, Scope};
use crate::{Schema, openapi::from_crd};

fn schema(spec: Value) -> Schema {
    from_crd(&json!({"type": "object", "properties": {"spec": spec}}), "s").unwrap()
}

fn spec(rules: Value) -> Schema {
    schema(json!({"type": "object", "x-kubernetes-validations": rules, "properties": {
        "min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string"},
        "my-name": {"type": "string"}, "namespace": {"type": "string"}, "a__b": {"type": "string"},
        "memory": {"x-kubernetes-int-or-string": true},
        "since": {"type": "string", "format": "date-time"},
        "ratio": {"type": "number"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "tags": {"type": "array", "items": {"type": "string"}},
        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"], "items":
            {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "size": {"type": "integer",
                "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "may only grow"}]}}}},
    }}))
}

fn check(rules: Value, new: Value, old: Option<Value>, expected: &[&str]) {
    let schema = spec(rules.clone());
    assert_eq!(Rules::check(&schema), Vec::new(), "{rules}");
    let compiled = Rules::compile(&schema).unwrap();
    let new = json!({"apiVersion": "x/v1", "kind": "W", "metadata": {"name": "w"}, "spec": new});
    let old = old.map(|old| json!({"spec": old}));
    let errors: Vec<String> =
        compiled.validate(&schema, &new, old.as_ref()).iter().map(ToString::to_string).collect();
    assert_eq!(errors, expected, "{rules}");
}

#[test]
fn rules_hold_or_say_why() {
    let limits = json!([{"rule": "self.min <= self.max"}]);
    check(limits.clone(), json!({"min": 1, "max": 2}), None, &[]);
    check(
        limits.clone(),
        json!({"min": 3, "max": 2}),
        None,
        &["spec: Invalid value: failed rule: self.min <= self.max"],
    );
    check(
        limits,
        json!({"min": 3}),
        None,
        &["spec: Invalid value: no such key: max evaluating rule: self.min <= self.max"],
    );
    check(
        json!([{"rule": "self.min <= self.max", "message": "min over max", "fieldPath": ".min", "reason": "FieldValueForbidden"}]),
        json!({"min": 3, "max": 2}),
        None,
        &["spec.min: Forbidden: min over max"],
    );
    check(
        json!([{"rule": "self.min <= self.max", "messageExpression": "'min ' + string(self.min) + ' is over max'"}]),
        json!({"min": 3, "max": 2}),
        None,
        &["spec: Invalid value: min 3 is over max"],
    );
    check(
        json!([{"rule": "self.min <= self.max", "messageExpression": "''", "message": "static"}]),
        json!({"min": 3, "max": 2}),
        None,
        &["spec: Invalid value: static"],
    );
}

#[test]
fn the_language_of_kubernetes_is_there() {
    for rule in [
        "has(self.name) && !has(self.ratio)",
        "self.name.matches('^[a-z]+$') && self.name.size() == 3",
        "'{a]{b]'.find('{[^b]]') == '{a]' && 'x'.find('y') == '' && 'a1b22'.findAll('\\\\d+') == ['1', '22']",
        "'a1b22c3'.findAll('\\\\d+', 2) == ['1', '22'] && 'a1'.findAll('\\\\d', 0) == [] && '1'.findAll('\\\\d', -1) == ['1']",
        "'{a]'.matches('^{[^b]]$') && !'\\u0663'.matches('^\\\\d$')",
        "self.name.lowerAscii().startsWith('ab')",
        "self.tags.all(t, t in ['x', 'y']) && self.tags.exists_one(t, t == 'x')",
        "self.tags.map(t, t + '1').filter(t, t.endsWith('1')).size() == 2",
        "self.labels.all(k, k == 'app') && self.labels['app'] == 'w' && self.labels.app == 'w'",
        "self.parts.exists(p, p.id == 'a' && p.size > 1)",
        "quantity(self.memory).isGreaterThan(quantity('1Gi'))",
        "type(self.memory) == string ? self.memory == '2Gi' : false",
        "self.since > timestamp('2020-01-01T00:00:00Z')",
        "isURL('https://a/b') && url('https://a/b').getHost() == 'a'",
        "self.tags.isSorted() && self.tags.join(',') == 'x,y'",
        "self.my__dash__name == 'm' && self.__namespace__ == 'n' && self.a__underscores__b == 'u'",
        "sets.contains(self.tags, ['x'])",
        "ip.isCanonical('127.0.0.1') && cidr('10.0.0.0/8').containsIP('10.1.2.3')",
        "self.?ratio.orValue(1.0) == 1.0",
        "!format.dns1123Label().validate('a').hasValue()",
        "'%s-%d'.format(['a', 1]) == 'a-1'",
        "self.tags.all(i, t, i < 2 && t in ['x', 'y']) && !self.tags.all(i, t, i == 0)",
        "self.tags.exists(i, t, i == 1 && t == 'y') && !self.tags.exists(i, t, i == 1 && t == 'x')",
        "self.labels.all(k, v, k == 'app' && v == 'w') && {'a': 1, 'b': 2}.existsOne(k, v, v > 1)",
        "self.tags.transformList(i, t, t + string(i)) == ['x0', 'y1']",
        "self.tags.transformList(i, t, i > 0, t) == ['y']",
        "{'a': 1, 'b': 2}.transformMap(k, v, k == 'b', v * 2) == {'b': 4}",
        "{'a': 'x'}.transformMapEntry(k, v, {v: k}) == {'x': 'a'} && ['u'].transformMap(i, v, v) == {0: 'u'}",
        "self.parts.all(i, p, self.tags.all(j, t, i == 0 && p.id == 'a' && (j == 0) == (t == 'x')))",
        "self.?name.optMap(n, n + '!').orValue('') == 'abc!' && !self.?ratio.optMap(r, r * 2.0).hasValue()",
        "self.?name.optFlatMap(n, optional.none()).orValue('d') == 'd'",
        "self.?name.optMap(n, n + '1').optMap(n, n + '2').value() == 'abc12'",
        "optional.ofNonZeroValue(self.name).hasValue() && !optional.ofNonZeroValue('').hasValue()",
        "dyn(self.name) != 1 && bool('true') && !bool('0')",
    ] {
        check(
            json!([{"rule": rule}]),
            json!({"min": 1, "name": "abc", "my-name": "m", "namespace": "n", "a__b": "u", "memory": "2Gi",
                "since": "2024-01-01T00:00:00Z", "labels": {"app": "w"}, "tags": ["x", "y"],
                "parts": [{"id": "a", "size": 2}]}),
            None,
            &[],
        );
    }
}

#[test]
fn transition_rules_need_an_old_value() {
    let frozen = json!([{"rule": "self.name == oldSelf.name", "message": "name is immutable"}]);
    check(frozen.clone(), json!({"name": "a"}), None, &[]);
    check(frozen.clone(), json!({"name": "a"}), Some(json!({"name": "a"})), &[]);
    check(
        frozen,
        json!({"name": "b"}),
        Some(json!({"name": "a"})),
        &["spec: Invalid value: name is immutable"],
    );
    let optional = json!([{"rule": "oldSelf.hasValue() || self.min == 0", "optionalOldSelf": true, "message": "starts at 0"}]);
    check(optional.clone(), json!({"min": 1}), None, &["spec: Invalid value: starts at 0"]);
    check(optional, json!({"min": 1}), Some(json!({"min": 5})), &[]);
    let parts = |a: i64, b: i64| json!({"parts": [{"id": "b", "size": b}, {"id": "a", "size": a}]});
    let old = json!({"parts": [{"id": "a", "size": 5}]});
    check(json!([]), parts(5, 1), Some(old.clone()), &[]);
    check(json!([]), parts(4, 1), Some(old), &["spec.parts[1].size: Invalid value: 4: may only grow"]);
}

#[test]
fn what_was_wrong_and_stays_is_not_reported() {
    let rules = json!([{"rule": "self.min <= self.max", "message": "m"}]);
    check(rules.clone(), json!({"min": 3, "max": 2}), Some(json!({"min": 3, "max": 2})), &[]);
    check(rules, json!({"min": 4, "max": 2}), Some(json!({"min": 3, "max": 2})), &["spec: Invalid value: m"]);
}

#[test]
fn bad_rules_are_refused_when_the_schema_is_written() {
    for (rule, expected) in [
        (json!({"rule": "self.min <"}), "compilation failed"),
        (
            json!({"rule": "other.min > 1"}),
            "ERROR: <input>:1:1: undeclared reference to 'other' (in container '')",
        ),
        (json!({"rule": "self.nope == 1"}), "compilation failed: ERROR: <input>:1:5: undefined field 'nope'"),
        (json!({"rule": "self.parts.all(p, p.nope == 1)"}), "ERROR: <input>:1:20: undefined field 'nope'"),
        (json!({"rule": "self.min > 'a'"}), "no matching overload for '_>_' applied to '(int, string)'"),
        (
            json!({"rule": "self.since == 'a'"}),
            "no matching overload for '_==_' applied to '(timestamp, string)'",
        ),
        (json!({"rule": "oldSelf.nope && self.min == 1", "optionalOldSelf": true}), "undefined field 'nope'"),
        (json!({"rule": "self.min"}), "must evaluate to a bool"),
        (json!({"rule": "self.min > 1", "messageExpression": "self.min"}), "must evaluate to a string"),
        (
            json!({"rule": "self.min > 1", "messageExpression": "self.nope"}),
            "messageExpression compilation failed: ERROR: <input>:1:5: undefined field 'nope'",
        ),
        (
            json!({"rule": "self.min > 1", "optionalOldSelf": true}),
            "may not be set if oldSelf is not used in rule",
        ),
    ] {
        let errors = Rules::check(&spec(json!([rule])));
        let text = errors[0].to_string();
        assert!(text.starts_with("properties[spec].x-kubernetes-validations[0]."), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    let set = schema(
        json!({"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}),
    );
    let errors = Rules::compile(&set).unwrap_err();
    assert!(errors[0].detail.contains("uncorrelatable"), "{errors:?}");
}

#[test]
fn rules_of_the_root_see_names_only() {
    let root = |rule: &str| {
        let rules = json!([{"rule": rule}]);
        let json = json!({"type": "object", "x-kubernetes-validations": rules, "properties": {
            "inner": {"type": "object", "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true}}});
        Rules::check(&from_crd(&json, "s").unwrap()).iter().map(ToString::to_string).collect::<String>()
    };
    assert_eq!(root("self.metadata.name == self.kind + self.inner.metadata.generateName"), "");
    for hidden in ["self.metadata.labels == {}", "self.inner.metadata.labels == {}"] {
        assert!(root(hidden).contains("undefined field 'labels'"), "{hidden}");
    }
}

/// A definition of an earlier release is served on, whatever is found in it today.
#[test]
fn rules_that_are_there_are_not_looked_at_more_closely() {
    let schema = spec(json!([{"rule": "self.min > 'a'"}]));
    assert!(Rules::compile(&schema).is_ok());
}

#[test]
fn costly_rules_are_stopped() {
    let rules = json!([{"rule": "self.tags.all(a, self.tags.all(b, self.tags.all(c, a + b + c != '')))"}]);
    let tags: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    check(rules.clone(), json!({"tags": ["a", "b"]}), None, &[]);
    check(
        rules,
        json!({"tags": tags}),
        None,
        &[
            "spec: Invalid value: 'operation cancelled: actual cost limit exceeded': no further validation rules will \
           be run due to call cost exceeds limit for rule: self.tags.all(a, self.tags.all(b, self.tags.all(c, a + b + c != '')))",
        ],
    );
}

/// An expression over `object` and two variables, one of which fails when it is reached.
fn evaluate(source: &str) -> Result<Value, String> {
    let compile =
        |source: &str, names: &[&str]| Expression::compile(source, names).map_err(|e| e.to_string());
    let double = compile("object.size * 2", &["object"])?;
    let broken = compile("object.none", &["object"])?;
    let names = ["object", "params", "variables.double", "variables.broken", "Object", "JSONPatch"];
    let expression = compile(source, &names)?;
    let mut scope = Scope::new(POLICY_BUDGET);
    scope.set("object", &json!({"size": 2, "name": "x", "tags": ["a", "b"]}));
    scope.set("params", &Value::Null);
    scope.define("variables.double", &double);
    scope.define("variables.broken", &broken);
    expression.value(&scope).map_err(|error| error.to_string())
}

#[test]
fn expressions_answer() {
    for (source, expected) in [
        ("object.size <= 2 && params == null", Ok(json!(true))),
        ("variables.double + variables.double", Ok(json!(8))),
        ("has(variables.double)", Ok(json!(true))),
        ("true || variables.broken == 1", Ok(json!(true))),
        ("variables.broken == 1", Err("expression 'object.none' resulted in error: no such key: none")),
        ("variables.other == 1", Err("compilation failed: undefined field 'other'")),
        ("unheard == 1", Err("compilation failed: undeclared reference to 'unheard'")),
        ("object.tags.map(variables, variables + '!')", Ok(json!(["a!", "b!"]))),
        (
            "Object{spec: Object.spec{list: [Object.spec.list{name: object.name}]}, ?gone: optional.none()}",
            Ok(json!({"spec": {"list": [{"name": "x"}]}})),
        ),
        (
            "Object{spec: Object.other{}}",
            Err(
                "compilation failed: unexpected type name \"Object.other\", expected \"Object.spec\", which matches \
                 field name path from root Object type",
            ),
        ),
        (
            "[JSONPatch{op: 'add', path: '/a', value: {'b': 1}}]",
            Ok(json!([{"op": "add", "path": "/a", "value": {"b": 1}}])),
        ),
        ("JSONPatch{ap: 'add'}", Err("compilation failed: undefined field 'ap'")),
        ("Pod{}", Err("compilation failed: undeclared reference to 'Pod'")),
        ("timestamp('2026-01-01T00:00:00Z')", Ok(json!("2026-01-01T00:00:00+00:00"))),
    ] {
        assert_eq!(evaluate(source), expected.map_err(str::to_owned), "{source}");
    }
    let deep = "object.tags.all(a, object.tags.all(b, object.tags.all(c, a + b + c != '')))";
    let expression = Expression::compile(deep, &["object"]).unwrap();
    let tags = |count: usize| json!({"tags": vec!["x"; count]});
    let mut scope = Scope::new(POLICY_BUDGET);
    scope.set("object", &tags(3000));
    let error = expression.truth(&scope).unwrap_err().to_string();
    assert!(error.ends_with("resulted in error: operation cancelled: actual cost limit exceeded"), "{error}");
    let mut scope = Scope::new(10);
    scope.set("object", &tags(2));
    assert_eq!(expression.truth(&scope), Err(ExpressionError::Budget));
}

#[test]
fn authorizers_answer() {
    struct Only;
    impl Authorize for Only {
        fn check(&self, asked: &Asked) -> Result<(bool, String), String> {
            let Asked { service_account, path, group, resource, subresource, namespace, name, .. } = asked;
            let Asked { fields, labels, verb, .. } = asked;
            let place =
                path.clone().unwrap_or(format!("{group}/{resource}/{subresource}/{namespace}/{name}"));
            match verb.as_str() {
                "list" => Ok((true, format!("{place} where {fields} and {labels}"))),
                "fail" => Err("nobody answers".to_owned()),
                _ => Ok((verb == "get", format!("{verb} {place} {service_account:?}"))),
            }
        }
    }
    let authorize: Arc<dyn Authorize> = Arc::new(Only);
    let check = |source: &str| {
        let names = ["authorizer", "authorizer.requestResource"];
        let expression = Expression::compile(source, &names).unwrap();
        let mut scope = Scope::new(POLICY_BUDGET);
        let resource = Asked { resource: "pods".to_owned(), ..Asked::default() };
        scope.set_authorizer(&authorize, Some(&resource));
        expression.value(&scope).map_err(|error| error.to_string())
    };
    let long = "authorizer.serviceAccount('ns', 'sa').group('apps').resource('deployments').subresource('scale')\
                .namespace('n').name('x').check('get')";
    assert_eq!(check(&format!("{long}.allowed()")), Ok(json!(true)));
    assert_eq!(
        check(&format!("{long}.reason()")),
        Ok(json!("get apps/deployments/scale/n/x Some((\"ns\", \"sa\"))"))
    );
    assert_eq!(
        check(
            "authorizer.group('').resource('pods').labelSelector('a=b').fieldSelector('c=d').check('list').reason()"
        ),
        Ok(json!("/pods/// where c=d and a=b"))
    );
    assert_eq!(check("authorizer.path('/healthz').check('put').allowed()"), Ok(json!(false)));
    assert_eq!(check("authorizer.requestResource.check('get').reason()"), Ok(json!("get /pods/// None")));
    assert_eq!(check("authorizer.path('/').check('get').errored()"), Ok(json!(false)));
    assert_eq!(check("authorizer.path('/').check('fail').errored()"), Ok(json!(true)));
    assert_eq!(check("authorizer.path('/').check('fail').error()"), Ok(json!("nobody answers")));
    assert_eq!(check("authorizer.path('/').check('fail').allowed()"), Ok(json!(false)));
    assert!(check("'x'.check('get').allowed()").is_err());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn no_source_panics(source in "\\PC{0,30}|[a-z().\\[\\]{}?:+<>='\" 0-9&|!]{0,30}") {
        if let Ok(expression) = Expression::compile(&source, &["self", "Object"]) {
            let mut scope = Scope::new(POLICY_BUDGET);
            scope.set("self", &json!({"a": [1, "x"]}));
            drop(expression.value(&scope));
        }
    }
}
