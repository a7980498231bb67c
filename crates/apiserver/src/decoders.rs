//! Every decoder of what comes from outside, as functions on bytes, with the laws that each keeps: what the fuzz
//! targets in `fuzz/` run, and the seeded mutations of the tests below.
//!
//! A decoder may refuse anything and must not panic. What it accepts comes back the same when it is written and read
//! again, and is no larger than its input allows. Frames of WebSocket and SPDY have no decoder: this server passes
//! streams on byte by byte.

use std::{borrow::Cow, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use meta::{FieldSelector, LabelSelector, Quantity, Value};
use schema::{
    Schema, TypeSet,
    cel::{Expression, Names, POLICY_BUDGET, Scope},
    managed::FieldSet,
};
use serde_json::json;

use crate::{
    audit::Policy,
    auth::{AuthenticationConfiguration, AuthorizationConfiguration, StaticTokens},
    crd,
    encryption::Encryption,
    http::decoders as http,
    pki::Identity,
    rest,
    webhook::Endpoint,
};

/// Nodes that a tree may have for each byte it was read from, and for none. References of YAML repeat what they name;
/// the reader bounds them.
const NODES_PER_BYTE: usize = 16;
const NODES_MAX: usize = 1 << 20;

/// Kinds whose protobuf form is read.
pub const KINDS: &[&str] = &[
    "io.k8s.api.core.v1.Pod",
    "io.k8s.api.core.v1.Secret",
    "io.k8s.api.core.v1.Service",
    "io.k8s.api.apps.v1.Deployment",
    "io.k8s.api.authorization.v1.SubjectAccessReview",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
];

/// What decoders need to know of kinds.
pub struct World {
    /// The types of the built-in kinds.
    pub types: Arc<TypeSet>,
    /// Kinds whose protobuf form is read, by definition name: [`KINDS`].
    pub kinds: &'static [&'static str],
}

/// One decoder.
pub struct Decoder {
    /// The name of its fuzz target.
    pub name: &'static str,
    /// Decodes, and panics where what was accepted breaks a law.
    pub run: fn(&World, &[u8]),
    /// Inputs that are accepted, or nearly: what mutations begin with.
    pub seeds: &'static [&'static str],
}

const fn one(name: &'static str, run: fn(&World, &[u8]), seeds: &'static [&'static str]) -> Decoder {
    Decoder { name, run, seeds }
}

const OBJECT: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"x","ports":[{"containerPort":80}],"env":[{"name":"A","value":"1"}]}],"nodeName":null,"priority":-1,"x":1.5e3}}"#;
/// Found by libFuzzer: it came back as its neighbour.
const INEXACT: &str = "[444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444444440]";
const YAML: &str = "apiVersion: v1\nkind: Pod\nmetadata: &m {name: p, labels: {a: \"b\"}}\nspec:\n  containers:\n  - {name: c, image: x}\n  - *m\n  text: |\n    a\n    b\n  on: true\n  n: 0x1f\n";
const PATCHED: &str = r#"{"target":{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a","ports":[{"containerPort":1}]},{"name":"b"}],"tolerations":[]}},"patch":{"spec":{"$setElementOrder/containers":[{"name":"b"},{"name":"a"}],"containers":[{"name":"a","$patch":"delete"},{"name":"b","image":"y"}],"tolerations":null}}}"#;

/// All of them.
pub const ALL: &[Decoder] = &[
    one("json_body", http::json, &[OBJECT, r#"[1,"\u00e9",null,{"a":1,"a":2}]"#, INEXACT]),
    one(
        "yaml_body",
        http::yaml,
        &[YAML, "a: &a [x]\nb: &b [*a,*a]\nc: [*b,*b]\n", "--- !!map {? [a] : b}\n...\n"],
    ),
    one(
        "protobuf_body",
        http::protobuf,
        &[
            "\0\n\x03\n\x01p\x12\x0c\x12\n\n\x01c\x12\x01x8\x01",
            "\x01\n\x03\n\x01s\x12\x08\n\x01k\x12\x03abc\x1a\x01o",
            "k8s\0\n\x09\n\x02v1\x12\x03Pod\x12\x02\n\0",
        ],
    ),
    one(
        "query",
        http::query,
        &[
            "labelSelector=a%3Db%2C!c&limit=5&watch=1&timeoutSeconds=9",
            "fieldSelector=metadata.name%21%3Da&resourceVersion=7&resourceVersionMatch=Exact&continue=x",
            "propagationPolicy=Foreground&gracePeriodSeconds=0&includeObject=None&sendInitialEvents=true",
        ],
    ),
    one(
        "accept",
        http::accept,
        &[
            "application/json;as=Table;v=v1;g=meta.k8s.io, application/json;q=0.8, */*",
            "application/vnd.kubernetes.protobuf;stream=watch",
        ],
    ),
    one(
        "path",
        http::path,
        &[
            "/apis/apps/v1/namespaces/ns/deployments/d/scale",
            "/api/v1/watch/namespaces/%2e%2e/pods",
            "/api/v1/nodes/n/proxy/a/../b",
        ],
    ),
    one(
        "label_selector",
        label_selector,
        &["a=b,c!=d,e in (f,g),h notin (i),!j,k,l>1,m<2", "app.kubernetes.io/name==x"],
    ),
    one("field_selector", field_selector, &["metadata.name=a,spec.nodeName!=b\\,c", "status.phase==Running"]),
    one(
        "continue_token",
        continue_token,
        &[
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6Nywic3RhcnQiOiJucy9wIn0",
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiL24ifQ",
        ],
    ),
    one("quantity", quantity, &["1.5Gi", "-100m", "1e3", "12E", ".5", "9223372036854775807"]),
    one(
        "cel",
        cel,
        &[
            "self.a.all(x, x > 1) && has(self.b) ? self.c.size() : 'x' + string(2)",
            "[1,2].exists_one(i, i in self.a) || self.b.matches('^a+$')",
            "self.?a[?0].orValue(dyn({'k': b'x'})) == timestamp('2026-01-01T00:00:00Z')",
            "self.a.all(i, v, i < 3) && self.c.transformMap(k, v, k != '', v) == self.?c.optMap(c, c).value()",
            "self.a.transformList(i, v, i > 0, v).exists(i, v, i == 0 && v == 2)",
            "'%s %d'.format(['a', 1]) + quantity('1Ki').asInteger() + ip('::1') + url('https://a/b').getHost()",
        ],
    ),
    one(
        "json_patch",
        json_patch,
        &[
            r#"{"target":{"a":[1,2,{"b":3}]},"patch":[{"op":"test","path":"/a/2/b","value":3},{"op":"move","from":"/a/0","path":"/c~1d"},{"op":"copy","from":"/a","path":"/a/-"},{"op":"remove","path":"/a/1"},{"op":"replace","path":"","value":{}}]}"#,
        ],
    ),
    one(
        "merge_patch",
        merge_patch,
        &[PATCHED, r#"{"target":{"a":{"b":1}},"patch":{"a":{"b":null,"c":{"d":null}}}}"#],
    ),
    one(
        "strategic_patch",
        strategic_patch,
        &[
            PATCHED,
            r#"{"target":{"spec":{"volumes":[{"name":"v","emptyDir":{}}]}},"patch":{"spec":{"volumes":[{"$patch":"replace"},{"name":"v","$retainKeys":["name","hostPath"],"hostPath":{"path":"/"}}],"$patch":"merge"},"metadata":{"$deleteFromPrimitiveList/finalizers":["a"],"finalizers":["b"]}}}"#,
        ],
    ),
    one(
        "managed_fields",
        managed_fields,
        &[
            r#"{"f:metadata":{"f:labels":{".":{},"f:a":{}}},"f:spec":{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{}},"v:\"x\"":{},"i:3":{}}}}"#,
        ],
    ),
    one(
        "json_path",
        json_path,
        &[
            ".spec.containers[0].image",
            ".metadata.annotations['a\\.b/c']",
            "{.status.conditions[?(@.type==\"Ready\")].status}",
            ".a[*].b",
            ".a[1:2]",
        ],
    ),
    one(
        "kubeconfig",
        kubeconfig,
        &[
            "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\nclusters: [{name: k, cluster: {server: 'https://h/p', certificate-authority-data: eA==}}]\nusers: [{name: u, user: {token: t, username: n}}]\n",
        ],
    ),
    one(
        "configuration_files",
        configuration_files,
        &[
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer: {url: 'https://a', audiences: [x]}\n  claimMappings: {username: {expression: 'claims.sub'}, extra: [{key: a.b/c, valueExpression: 'claims.d'}]}\n  userValidationRules: [{expression: 'user.username != \"\"'}]\nanonymous: {enabled: true, conditions: [{path: /x}]}\n",
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- {type: Node, name: n}\n- type: Webhook\n  name: w\n  webhook: {timeout: 3s, failurePolicy: Deny, subjectAccessReviewVersion: v1, matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{expression: 'has(request.user)'}], connectionInfo: {type: InClusterConfig}}\n",
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets, '*.apps']\n  providers: [{aesgcm: {keys: [{name: a, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}}, {identity: {}}]\n",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata, resources: [{group: '', resources: [pods/*]}], omitStages: [RequestReceived]}, {level: None, nonResourceURLs: ['/a*']}]\n",
            "token,user,1,\"a,b\"\n# x\n",
        ],
    ),
    one("duration", duration, &["1h15m30.918s", "2m0s", "+5us", "0"]),
    one(
        "certificate",
        certificate,
        &[
            "MIIBAzCBqgIBADBIMQ4wDAYDVQQKDAVkZXY=",
            "-----BEGIN CERTIFICATE REQUEST-----\nMIH5\n-----END CERTIFICATE REQUEST-----\n",
        ],
    ),
];

/// Bytes as text; what is no text is replaced.
pub(crate) fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A tree is no larger than what it was read from allows.
pub(crate) fn bounded(value: &Value, bytes: usize) {
    let allowed = NODES_MAX.max(bytes.saturating_mul(NODES_PER_BYTE));
    let (mut nodes, mut open) = (0_usize, vec![value]);
    while let Some(value) = open.pop() {
        nodes += 1;
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(map) => open.extend(map.values()),
            _ => {}
        }
    }
    assert!(nodes <= allowed, "{nodes} nodes of {bytes} bytes");
}

fn label_selector(_: &World, bytes: &[u8]) {
    if let Ok(selector) = LabelSelector::parse(&text(bytes)) {
        let written = selector.to_string();
        assert_eq!(LabelSelector::parse(&written).as_ref(), Ok(&selector), "{written:?} does not come back");
    }
}

fn field_selector(_: &World, bytes: &[u8]) {
    if let Ok(selector) = FieldSelector::parse(&text(bytes)) {
        let written = selector.to_string();
        assert_eq!(FieldSelector::parse(&written).as_ref(), Ok(&selector), "{written:?} does not come back");
    }
}

fn continue_token(_: &World, bytes: &[u8]) {
    rest::decode_token(&text(bytes));
}

fn quantity(_: &World, bytes: &[u8]) {
    if let Ok(quantity) = text(bytes).parse::<Quantity>() {
        let written = quantity.to_string();
        assert_eq!(written.parse::<Quantity>().as_ref(), Ok(&quantity), "{written:?} does not come back");
    }
}

fn cel(_: &World, bytes: &[u8]) {
    let source = text(bytes);
    drop(Expression::check(&source, &Names::untyped(&["self"])));
    let Ok(expression) = Expression::compile(&source, &["self"]) else { return };
    let mut scope = Scope::new(POLICY_BUDGET);
    scope.set("self", &json!({"a": [1, 2, "x"], "b": "aaa", "c": {"k": null}, "d": 1.5}));
    drop(expression.value(&scope));
}

/// `{"target": .., "patch": ..}`.
fn patched(bytes: &[u8]) -> Option<(Value, Value)> {
    let mut both: Value = serde_json::from_slice(bytes).ok()?;
    Some((both.get_mut("target")?.take(), both.get_mut("patch")?.take()))
}

fn json_patch(_: &World, bytes: &[u8]) {
    let Some((mut target, patch)) = patched(bytes) else { return };
    // Copies may double what there is with each operation; the whole is bounded, also where the patch then fails.
    drop(schema::patch::json(&mut target, &patch));
    assert!(target.to_string().len() <= (8 << 20) + bytes.len(), "the patch made too much");
}

fn merge_patch(_: &World, bytes: &[u8]) {
    let Some((mut target, patch)) = patched(bytes) else { return };
    schema::patch::merge(&mut target, &patch);
    let once = target.clone();
    schema::patch::merge(&mut target, &patch);
    assert_eq!(target, once, "a merge patch is idempotent");
}

fn strategic_patch(world: &World, bytes: &[u8]) {
    let Some((mut target, patch)) = patched(bytes) else { return };
    let Some(pod) = world.types.find("io.k8s.api.core.v1.Pod") else { return };
    let schema = Schema::new(world.types.clone(), pod);
    if schema::patch::strategic(&schema, &mut target, &patch).is_ok() {
        bounded(&target, bytes.len());
    }
}

fn managed_fields(_: &World, bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let Ok(set) = FieldSet::from_value(&value) else { return };
    let written = set.to_value();
    assert_eq!(FieldSet::from_value(&written).as_ref(), Ok(&set), "{written} does not come back");
    assert_eq!(set.clone().union(&set), set, "a set and itself are the set");
    assert!(set.difference(&set).is_empty(), "a set without itself is empty");
}

fn json_path(_: &World, bytes: &[u8]) {
    crd::decode_json_path(&text(bytes));
}

fn kubeconfig(_: &World, bytes: &[u8]) {
    drop(Endpoint::parse(&text(bytes), Path::new("/nowhere")));
}

fn configuration_files(_: &World, bytes: &[u8]) {
    let text = text(bytes);
    drop(AuthenticationConfiguration::parse(&text, &[]));
    drop(AuthorizationConfiguration::parse(&text));
    drop(Encryption::parse(&text));
    drop(Policy::parse(&text));
    drop(StaticTokens::parse(&text));
}

fn duration(_: &World, bytes: &[u8]) {
    if let Some(duration) = meta::parse_duration(&text(bytes)) {
        let written = format!("{}ns", duration.as_nanos());
        assert_eq!(meta::parse_duration(&written), Some(duration), "{written} does not come back");
    }
}

/// PEM as it is, or DER in base64.
fn certificate(_: &World, bytes: &[u8]) {
    drop(csr::Request::parse(bytes));
    std::hint::black_box(csr::certificates(bytes).is_ok());
    if let Ok(der) = STANDARD.decode(bytes) {
        drop(Identity::of(&der));
    }
}

#[cfg(test)]
mod tests;
