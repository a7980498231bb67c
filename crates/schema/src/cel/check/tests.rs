//! Findings in cel-go's words, and expressions of which none may be made.

use serde_json::{Value, json};

use super::super::{Expression, Names, Type};
use crate::openapi::from_crd;

fn names() -> Names {
    let text = || json!({"type": "string"});
    let of = |properties: Value| json!({"type": "object", "properties": properties});
    let object = of(json!({
        "spec": of(json!({
            "replicas": {"type": "integer"}, "paused": {"type": "boolean"}, "name": text(), "my-name": text(),
            "ratio": {"type": "number"}, "max": {"x-kubernetes-int-or-string": true},
            "since": {"type": "string", "format": "date-time"}, "maybe": {"type": "string", "nullable": true},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": text()}},
            "labels": {"type": "object", "additionalProperties": text()},
            "parts": {"type": "array", "items": of(json!({"name": text(), "size": {"type": "integer"},
                "tags": {"type": "array", "items": text()}}))},
        })),
    }));
    let mut names = Names::untyped(&["any", "authorizer", "authorizer.requestResource"]);
    names.declare("object", Type::plain(&from_crd(&object, "").unwrap(), "Widget"));
    names.declare("variables", Type::record("variables", [("count", Type::Int), ("open", Type::Dyn)]));
    names
}

fn check(source: &str, expected: &str) {
    let told = match Expression::check(source, &names()) {
        Ok(of) => of.to_string(),
        Err(issues) => issues,
    };
    assert_eq!(told, expected, "{source}");
}

#[test]
fn what_is_wrong_is_found_where_it_stands() {
    for (source, expected) in [
        (
            "object.spec.replicas > '1'",
            "ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n \
             | object.spec.replicas > '1'\n | .....................^",
        ),
        (
            "'wants ' + object.spec.replicas",
            "ERROR: <input>:1:10: found no matching overload for '_+_' applied to '(string, int)'\n \
             | 'wants ' + object.spec.replicas\n | .........^",
        ),
        (
            "object.nope == 'a'",
            "ERROR: <input>:1:7: undefined field 'nope'\n | object.nope == 'a'\n | ......^",
        ),
        ("has(object.nope)", "ERROR: <input>:1:4: undefined field 'nope'\n | has(object.nope)\n | ...^"),
        ("object.?nope", "ERROR: <input>:1:7: undefined field 'nope'\n | object.?nope\n | ......^"),
        (
            "(object.spec.labels['a']).size() > 0 &&\n\tobject.spec.parts.all(p, p.tags.exists(t, t.size() > p.nope))",
            "ERROR: <input>:2:56: undefined field 'nope'\n | \
             \u{20}object.spec.parts.all(p, p.tags.exists(t, t.size() > p.nope))\n | \
             .......................................................^",
        ),
        (
            "object.spec.parts.map(p, p.size > 1, p.name).filter(n, n + 1 == 'a').size() == ['é', object.x].size()",
            "ERROR: <input>:1:58: found no matching overload for '_+_' applied to '(string, int)'\n \
             | object.spec.parts.map(p, p.size > 1, p.name).filter(n, n + 1 == 'a').size() == ['é', object.x].size()\n \
             | .........................................................^\n\
             ERROR: <input>:1:92: undefined field 'x'\n \
             | object.spec.parts.map(p, p.size > 1, p.name).filter(n, n + 1 == 'a').size() == ['é', object.x].size()\n \
             | .................................................................................．.........^",
        ),
        (
            "[1, 2].nope() || object.spec.name.nope",
            "ERROR: <input>:1:12: undeclared reference to 'nope' (in container '')\n | [1, 2].nope() || \
             object.spec.name.nope\n | ...........^\n\
             ERROR: <input>:1:34: type 'string' does not support field selection\n | [1, 2].nope() || \
             object.spec.name.nope\n | .................................^",
        ),
        (
            "authorizer.allowed()",
            "ERROR: <input>:1:19: found no matching overload for 'allowed' applied to \
             'kubernetes.authorization.Authorizer.()'\n | authorizer.allowed()\n | ..................^",
        ),
        (
            "object.spec.replicas.all(x, true)",
            "ERROR: <input>:1:12: expression of type 'int' cannot be range of a comprehension (must be list, map, or \
             dynamic)\n | object.spec.replicas.all(x, true)\n | ...........^",
        ),
        (
            "variables.nope == 1",
            "ERROR: <input>:1:10: undefined field 'nope'\n | variables.nope == 1\n | .........^",
        ),
        (
            "variables.count == 'a' ? {'a': object.nope}['a'] : !-1",
            "ERROR: <input>:1:17: found no matching overload for '_==_' applied to '(int, string)'\n \
             | variables.count == 'a' ? {'a': object.nope}['a'] : !-1\n | ................^\n\
             ERROR: <input>:1:38: undefined field 'nope'\n \
             | variables.count == 'a' ? {'a': object.nope}['a'] : !-1\n | .....................................^\n\
             ERROR: <input>:1:52: found no matching overload for '!_' applied to '(int)'\n \
             | variables.count == 'a' ? {'a': object.nope}['a'] : !-1\n | ...................................................^",
        ),
        (
            "nobody.x",
            "ERROR: <input>:1:1: undeclared reference to 'nobody' (in container '')\n | nobody.x\n | ^",
        ),
    ] {
        check(source, expected);
    }
}

#[test]
fn what_is_right_or_not_known_is_let_pass() {
    for (source, of) in [
        ("object.spec.replicas > 1 && object.spec.replicas < 2.5", "bool"),
        ("object.spec.max == 1 || object.spec.max == '10%'", "bool"),
        ("object.spec.ratio == 1 && object.spec.ratio < 1.5", "bool"),
        (
            "object.spec.since == 'x' || timestamp(object.spec.since) > timestamp('2026-01-01T00:00:00Z')",
            "bool",
        ),
        ("object.spec.maybe == null || object.spec.maybe == 'x'", "bool"),
        ("object.spec.labels == null || object.spec == null", "bool"),
        ("object.spec.open.whatever.more == 1", "bool"),
        ("object.metadata.labels['a'] == 'b' && 'a' in object.metadata.labels", "bool"),
        ("object.metadata.?labels[?'a'].orValue('') == 'b'", "bool"),
        ("object.spec.?replicas.orValue(1) + 1", "int"),
        ("object.spec.my__dash__name + 'a'", "string"),
        ("object.spec.parts.map(p, p.name)", "list(string)"),
        ("object.spec.parts.filter(p, p.size > 1).map(p, p.size)", "list(int)"),
        ("object.spec.parts.map(p, p.size > 1, p.tags)", "list(list(string))"),
        ("object.spec.parts.exists_one(p, p.name == 'a')", "bool"),
        ("object.spec.labels.all(k, k.startsWith('a') && object.spec.labels[k] == 'b')", "bool"),
        ("[] + ['a']", "list(string)"),
        ("[1, 'a', 2.0]", "list(dyn)"),
        ("object.spec.replicas in [1, 2] && size(object.spec.parts) > 0", "bool"),
        ("any.anything.goes(1) == 2", ""),
        ("any + 1 == any.x[0].y ? any.z : 'a'", "dyn"),
        ("variables.count + variables.open", "int"),
        ("variables.open + any", "dyn"),
        ("quantity('1Gi').isGreaterThan(quantity(any)) && isQuantity('1')", "bool"),
        ("ip.isCanonical('::1') && ip('::1').family() == 6 && cidr('::/0').containsIP(ip('::1'))", "bool"),
        ("url('https://a').getHost() + string(1) + string(true)", "string"),
        ("type(object.spec.name) == string", "bool"),
        (
            "authorizer.group('').resource('pods').namespace('a').fieldSelector('b').check('get').allowed()",
            "bool",
        ),
        ("authorizer.requestResource.check('get').reason()", "string"),
        ("authorizer.path('/').check('get').errored()", "bool"),
        ("format.named('uuid').hasValue() && !format.uuid().validate('a').hasValue()", "bool"),
        ("object.spec.parts.map(p, p.size).sum() > 1 && ['a'].isSorted() && [1].max() == 1", "bool"),
        ("'%s'.format([object]) + ['a', 'b'].join(',') + 'a,b'.split(',')[0].upperAscii()", "string"),
        (
            "duration('1h') + duration('1m') > duration('1s') ? timestamp(0) : timestamp(0) + duration('1s')",
            "timestamp",
        ),
        ("semver('1.2.3').major() + math.greatest(1, 2)", "int"),
        ("!!true", "bool"),
        (r#"'it''s' != "a" || r'\' == b'x'"#, ""),
    ] {
        let told = Expression::check(source, &names());
        match of {
            // The parser or the name decide; what matters is that no type does.
            "" => assert!(!told.is_err_and(|why| why.contains("overload")), "{source}"),
            of => assert_eq!(told.map(|of| of.to_string()), Ok(of.to_owned()), "{source}"),
        }
    }
}

/// What the interpreter can do, the checker knows: every function has a signature.
#[test]
fn every_signature_is_of_a_function_that_the_interpreter_has() {
    let unknown = |source: &str| {
        let compiled = Expression::compile(source, &["any"]).unwrap();
        let scope = super::super::Scope::new(super::super::POLICY_BUDGET);
        compiled.value(&scope).is_err_and(|why| why.to_string().contains("ndeclared reference to"))
    };
    assert!(unknown("nope(1)"));
    let missing: Vec<&str> =
        super::functions::names().filter(|name| unknown(&format!("{name}(1)"))).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn macros_that_the_parser_does_not_know_have_types_and_places() {
    for (source, expected) in [
        ("object.spec.parts.all(i, p, i < p.size)", "bool"),
        ("object.spec.parts.transformList(i, p, p.size + i)", "list(int)"),
        ("object.spec.labels.transformMap(k, v, v != k, v.size())", "map(string, int)"),
        ("object.spec.labels.transformMapEntry(k, v, {v: k})", "map(string, string)"),
        ("object.spec.labels.existsOne(k, v, k == v)", "bool"),
        ("object.spec.?name.optMap(n, n.size())", "optional_type(int)"),
        ("object.spec.?name.optFlatMap(n, optional.ofNonZeroValue(n.size()))", "optional_type(int)"),
        (
            "object.spec.parts.all(i, p, i < p.nope)",
            "ERROR: <input>:1:34: undefined field 'nope'\n | object.spec.parts.all(i, p, i < p.nope)\n | \
             .................................^",
        ),
        (
            "object.spec.parts.exists(i, p, i == p.name)",
            "ERROR: <input>:1:34: found no matching overload for '_==_' applied to '(int, string)'\n | \
             object.spec.parts.exists(i, p, i == p.name)\n | .................................^",
        ),
        (
            "object.spec.?name.optMap(n, n + 1)",
            "ERROR: <input>:1:31: found no matching overload for '_+_' applied to '(string, int)'\n | \
             object.spec.?name.optMap(n, n + 1)\n | ..............................^",
        ),
        ("object.spec.parts.all(1, p, true)", "argument must be a simple name"),
    ] {
        check(source, expected);
    }
}
