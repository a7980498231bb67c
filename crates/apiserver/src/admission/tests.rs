//! Webhooks and policies against a whole engine, with a webhook on loopback.

use base64::Engine as _;
use meta::{GroupResource, Object, Status, Value};
use resource::{Resource, User};
use serde_json::json;

use super::*;
use crate::{
    Cache,
    auth::{Ask, Asked, Decision, Rule},
    rest::{Caller as RestCaller, DeleteOptions, Parts, Patch, PatchKind, Rest},
    testing_webhook::{Hook, Reply},
};

/// Everybody may do everything but delete.
struct NoDelete;

impl Authorizer for NoDelete {
    fn allows(&self, ask: &Ask<'_>) -> bool {
        matches!(self.decide(ask), Decision::Allow(_))
    }
    fn decide(&self, ask: &Ask<'_>) -> Decision {
        match ask.verb {
            "delete" if matches!(ask.object, Asked::Resource { .. }) => Decision::NoOpinion("no".to_owned()),
            // Lists of what is selected are.
            "list" if ask.fields.is_none() || ask.labels.is_none() => Decision::NoOpinion("no".to_owned()),
            _ => Decision::Allow("yes".to_owned()),
        }
    }
    fn rules(&self, _: &User, _: &str) -> Vec<Rule> {
        Vec::new()
    }
}

struct Server {
    rest: Rest,
}

impl Server {
    async fn start() -> Self {
        let store = store::Memory::new();
        let registry = Arc::new(Registry::new());
        registry.install_all(crate::testing_kinds::built_in_kinds());
        let cache = Arc::new(Cache::load(&store, &registry).await.unwrap());
        let authorizer: Arc<dyn Authorizer> = Arc::new(NoDelete);
        let client = Webhooks::new(cache.clone());
        let admission = chain(&authorizer, &registry, &client, kinds::admission());
        let (rest, _task) = Rest::start(Parts {
            store: Arc::new(store),
            cache,
            registry,
            admission,
            clock: Arc::new(meta::Fixed::new("2026-01-01T00:00:00Z".parse().unwrap())),
            random: Arc::new(meta::Seeded::new(1)),
        });
        let this = Self { rest };
        for (name, labels) in [("default", json!({})), ("free", json!({"skip": "yes"}))] {
            let namespace = json!({"metadata": {"name": name, "labels": labels}});
            this.create("", "namespaces", "", namespace).await.unwrap();
        }
        this
    }

    fn kind(&self, group: &str, plural: &str) -> Arc<Resource> {
        self.rest.registry().resolve(group, "v1", plural).unwrap()
    }

    async fn create(&self, group: &str, plural: &str, namespace: &str, value: Value) -> Result<Made, Status> {
        self.create_as(RestCaller::default(), group, plural, namespace, value).await
    }

    async fn create_as(
        &self,
        caller: RestCaller,
        group: &str,
        plural: &str,
        namespace: &str,
        value: Value,
    ) -> Result<Made, Status> {
        let caller = RestCaller { field_manager: "test".to_owned(), notes: Arc::default(), ..caller };
        let object = Object::from_value(value).unwrap();
        let written = self
            .rest
            .create(&caller, &self.kind(group, plural), namespace, object, crate::rest::Duplicates::default())
            .await?;
        let notes = caller.notes;
        Ok(Made {
            object: written.entry.object().unwrap(),
            warnings: notes.warnings(),
            notes: notes.annotations(),
        })
    }

    async fn config_map(&self, name: &str, data: Value) -> Result<Made, Status> {
        let object = json!({"metadata": {"name": name}, "data": data});
        self.create("", "configmaps", "default", object).await
    }

    /// Registers one webhook for creation of ConfigMaps; `more` is put over it.
    async fn hook(&self, kind: &str, name: &str, client: Value, more: Value) -> Result<Made, Status> {
        let mut webhook = json!({
            "name": format!("{name}.hooks.example"), "clientConfig": client, "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
        });
        schema::patch::merge(&mut webhook, &more);
        let configuration = json!({"metadata": {"name": name}, "webhooks": [webhook]});
        self.create(request::GROUP, kind, "", configuration).await
    }
}

#[derive(Debug)]
struct Made {
    object: Object,
    warnings: Vec<String>,
    notes: std::collections::BTreeMap<String, String>,
}

const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";

fn reviewed(body: &Value, mut response: Value) -> Reply {
    response["uid"] = body["request"]["uid"].clone();
    Reply::Json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}

fn patch(ops: &Value) -> Value {
    let patch = base64::engine::general_purpose::STANDARD.encode(ops.to_string());
    json!({"allowed": true, "patch": patch, "patchType": "JSONPatch"})
}

/// Behaves as its path says.
async fn hook() -> Hook {
    Hook::start(|path, body| match path {
        "/allow" => {
            reviewed(body, json!({"allowed": true, "warnings": ["mind"], "auditAnnotations": {"k": "v"}}))
        }
        "/deny" => reviewed(body, json!({"allowed": false, "status": {"code": 403, "message": "no"}})),
        "/add" => {
            let count = body["request"]["object"]["data"].as_object().map_or(0, serde_json::Map::len);
            reviewed(body, patch(&json!([{"op": "add", "path": format!("/data/seen{count}"), "value": "x"}])))
        }
        "/rename" => {
            reviewed(body, patch(&json!([{"op": "replace", "path": "/metadata/name", "value": "x"}])))
        }
        "/unfit" => reviewed(body, patch(&json!([{"op": "remove", "path": "/nothing"}]))),
        "/unknown" => reviewed(body, patch(&json!([{"op": "add", "path": "/unheard", "value": 1}]))),
        "/lie" => Reply::Json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {"uid": "another", "allowed": true}})),
        "/kind" => Reply::Json(json!({"apiVersion": "v1", "kind": "Pod"})),
        "/huge" => Reply::Raw(200, vec![b' '; (3 << 20) + 1]),
        "/nested" => Reply::Raw(200, vec![b'['; 1 << 20]),
        "/garbage" => Reply::Raw(200, b"\xff\xfe".to_vec()),
        "/broken" => Reply::Raw(500, Vec::new()),
        _ => Reply::Never,
    })
    .await
}

#[tokio::test]
async fn validating_webhooks() {
    let (server, hook) = (Server::start().await, hook().await);
    server.hook(VALIDATING, "a", hook.client_config("/allow"), json!({})).await.unwrap();
    let made = server.config_map("one", json!({})).await.unwrap();
    assert_eq!(made.warnings, ["mind"]);
    assert_eq!(made.notes["a.hooks.example/k"], "v");
    let (_, review) = hook.calls().pop().unwrap();
    let request = &review["request"];
    assert_eq!(request["operation"], "CREATE");
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(request["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!((&request["name"], &request["namespace"]), (&json!("one"), &json!("default")));
    assert_eq!((&request["oldObject"], &request["dryRun"]), (&Value::Null, &json!(false)));
    assert_eq!(request["object"]["metadata"]["name"], "one");
    assert_eq!(request["options"]["kind"], "CreateOptions");
    server.hook(VALIDATING, "b", hook.client_config("/deny"), json!({})).await.unwrap();
    let denied = server.config_map("two", json!({})).await.unwrap_err();
    assert_eq!(
        (denied.code, denied.message.as_str()),
        (403, "admission webhook \"b.hooks.example\" denied the request: no")
    );
    // What is not asked for is not asked about.
    server.create("", "secrets", "default", json!({"metadata": {"name": "s"}})).await.unwrap();
    let free = json!({"metadata": {"name": "f"}});
    assert_eq!(server.create("", "configmaps", "free", free).await.unwrap_err().code, 403);
}

/// Each option that narrows down a webhook that denies: whether a ConfigMap comes through.
#[tokio::test]
async fn webhooks_are_asked_about_what_they_want() {
    let hook = hook().await;
    let rule = |field: &str, value: Value| {
        let mut rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]});
        rule[field] = value;
        json!({"rules": [rule]})
    };
    let condition = |text: &str| json!({"matchConditions": [{"name": "c", "expression": text}]});
    let pods = "authorizer.group('').resource('pods')";
    for (more, passes) in [
        (rule("operations", json!(["UPDATE"])), true),
        (rule("operations", json!(["*"])), false),
        (rule("apiGroups", json!(["apps"])), true),
        (rule("resources", json!(["*"])), false),
        (rule("resources", json!(["*/*"])), false),
        (rule("resources", json!(["configmaps/status"])), true),
        (rule("scope", json!("Cluster")), true),
        (rule("scope", json!("Namespaced")), false),
        (json!({"namespaceSelector": {"matchLabels": {"skip": "yes"}}}), true),
        (
            json!({"namespaceSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]}}),
            false,
        ),
        (json!({"objectSelector": {"matchLabels": {"on": "yes"}}}), true),
        (condition("object.metadata.name != 'cm'"), true),
        (condition("request.operation == 'CREATE' && object.metadata.namespace == 'default'"), false),
        (condition("authorizer.group('').resource('configmaps').check('delete').allowed()"), true),
        (condition("authorizer.requestResource.check('create').allowed()"), false),
        (
            condition(&format!(
                "{pods}.fieldSelector('a=b').labelSelector('c in (d)').check('list').allowed()"
            )),
            false,
        ),
        (
            condition(&format!("{pods}.fieldSelector('a=b').labelSelector('c in').check('list').allowed()")),
            true,
        ),
    ] {
        let server = Server::start().await;
        server.hook(VALIDATING, "deny", hook.client_config("/deny"), more.clone()).await.unwrap();
        assert_eq!(server.config_map("cm", json!({})).await.is_ok(), passes, "{more}");
    }
    let server = Server::start().await;
    let failing = condition("object.spec.nothing == 1");
    server.hook(VALIDATING, "deny", hook.client_config("/deny"), failing).await.unwrap();
    let refused = server.config_map("cm", json!({})).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (
            403,
            "configmaps \"cm\" is forbidden: expression 'object.spec.nothing == 1' resulted in error: no such key: spec"
        )
    );
    let bad = condition("object.metadata.name ==");
    let refused = server.hook(VALIDATING, "bad", hook.client_config("/deny"), bad).await.unwrap_err();
    assert_eq!(refused.code, 422);
    let place = "webhooks[0].matchConditions[0].expression: Invalid value: \"object.metadata.name ==\": compilation failed";
    assert!(refused.message.contains(place), "{}", refused.message);
}

/// A webhook that hangs or lies ends the request, or is passed over, as its policy says.
#[tokio::test]
async fn webhooks_that_fail() {
    let hook = hook().await;
    let url = format!("https://{}", hook.address());
    for (path, why) in [
        (
            "/lie",
            "received invalid webhook response: expected response.uid=\"UID\", got \"another\"".to_owned(),
        ),
        (
            "/kind",
            "received invalid webhook response: expected webhook response of admission.k8s.io/v1, \
             Kind=AdmissionReview, got v1, Kind=Pod"
                .to_owned(),
        ),
        ("/huge", "failed to call webhook: read the answer: length limit exceeded".to_owned()),
        (
            "/nested",
            "failed to call webhook: couldn't decode the answer: recursion limit exceeded".to_owned(),
        ),
        ("/garbage", "failed to call webhook: couldn't decode the answer: expected value".to_owned()),
        (
            "/broken",
            "failed to call webhook: the server responded with the status code 500 Internal Server Error"
                .to_owned(),
        ),
        (
            "/never",
            format!("failed to call webhook: Post \"{url}/never?timeout=1s\": context deadline exceeded"),
        ),
    ] {
        for kind in [VALIDATING, MUTATING] {
            let server = Server::start().await;
            let more = json!({"timeoutSeconds": 1});
            server.hook(kind, "h", hook.client_config(path), more).await.unwrap();
            let failed = server.config_map("cm", json!({})).await.unwrap_err();
            assert_eq!(failed.code, 500, "{path}");
            let expected =
                format!("Internal error occurred: failed calling webhook \"h.hooks.example\": {why}");
            let uid = hook.calls().pop().unwrap().1["request"]["uid"].as_str().unwrap().to_owned();
            assert!(failed.message.starts_with(&expected.replace("UID", &uid)), "{path}: {}", failed.message);
        }
        let server = Server::start().await;
        let more = json!({"timeoutSeconds": 1, "failurePolicy": "Ignore"});
        server.hook(VALIDATING, "h", hook.client_config(path), more).await.unwrap();
        let made = server.config_map("cm", json!({})).await.unwrap();
        assert!(made.notes.contains_key("failed-open.validation.webhook.admission.k8s.io/h.hooks.example"));
    }
    // Nobody there, the wrong authority, a Service that is not.
    let server = Server::start().await;
    let service = json!({"service": {"namespace": "ns", "name": "hook"}, "caBundle": hook.ca()});
    server.hook(VALIDATING, "h", service, json!({})).await.unwrap();
    let failed = server.config_map("cm", json!({})).await.unwrap_err();
    assert!(
        failed.message.ends_with("Post \"https://hook.ns.svc:443/?timeout=10s\": service \"hook\" not found"),
        "{failed}"
    );
    let server = Server::start().await;
    let other = super::tests::hook().await;
    let mut wrong = hook.client_config("/allow");
    wrong["caBundle"] = json!(other.ca());
    server.hook(VALIDATING, "h", wrong, json!({})).await.unwrap();
    let failed = server.config_map("cm", json!({})).await.unwrap_err();
    assert!(failed.message.contains("tls: invalid peer certificate"), "{failed}");
}

#[tokio::test]
async fn mutating_webhooks_run_in_order_and_again_when_needed() {
    let (server, hook) = (Server::start().await, hook().await);
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    server.hook(MUTATING, "a", hook.client_config("/add"), again.clone()).await.unwrap();
    server.hook(MUTATING, "b", hook.client_config("/add"), again).await.unwrap();
    let made = server.config_map("cm", json!({"mine": "1"})).await.unwrap();
    let data = made.object.get(&["data"]).unwrap();
    // a, b, then a again because b changed the object, then b again because a did.
    assert_eq!(*data, json!({"mine": "1", "seen1": "x", "seen2": "x", "seen3": "x", "seen4": "x"}));
    assert_eq!(
        made.notes["mutation.webhook.admission.k8s.io/round_1_index_0"],
        "{\"configuration\":\"a\",\"mutated\":true,\"webhook\":\"a.hooks.example\"}"
    );
    for (path, code, why) in [
        (
            "/rename",
            500,
            Some("Internal error occurred: admission changed the object: metadata.name must not be changed"),
        ),
        ("/unfit", 500, None),
    ] {
        let server = Server::start().await;
        server.hook(MUTATING, "a", hook.client_config(path), json!({})).await.unwrap();
        let failed = server.config_map("cm", json!({})).await.unwrap_err();
        assert_eq!(failed.code, code, "{failed}");
        assert!(why.is_none_or(|why| failed.message == why), "{failed}");
    }
    let server = Server::start().await;
    server.hook(MUTATING, "a", hook.client_config("/unknown"), json!({})).await.unwrap();
    let made = server.config_map("cm", json!({})).await.unwrap();
    assert_eq!(made.object.get(&["unheard"]), None, "what the kind does not know is pruned");
}

#[tokio::test]
async fn dry_runs_and_deletions() {
    let (server, hook) = (Server::start().await, hook().await);
    server.config_map("old", json!({})).await.unwrap();
    let rules = json!({"rules": [{"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
    server.hook(VALIDATING, "d", hook.client_config("/deny"), rules).await.unwrap();
    let key = meta::ObjectKey::new("default", "old");
    let caller = RestCaller { dry_run: true, ..RestCaller::default() };
    let kind = server.kind("", "configmaps");
    let denied = server.rest.delete(&caller, &kind, &key, &DeleteOptions::default()).await.unwrap_err();
    assert_eq!(denied.code, 403);
    let (_, review) = hook.calls().pop().unwrap();
    assert_eq!(review["request"]["object"], Value::Null);
    assert_eq!(review["request"]["oldObject"]["metadata"]["name"], "old");
    assert_eq!(review["request"]["dryRun"], true);
}

/// Or a broken webhook could not be repaired.
#[tokio::test]
async fn configurations_are_exempt() {
    let (server, hook) = (Server::start().await, hook().await);
    let all = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    server.hook(VALIDATING, "d", hook.client_config("/deny"), all).await.unwrap();
    assert_eq!(server.config_map("cm", json!({})).await.unwrap_err().code, 403);
    server.hook(MUTATING, "m", hook.client_config("/deny"), json!({})).await.unwrap();
    let kind = server.kind(request::GROUP, VALIDATING);
    let key = meta::ObjectKey::new("", "d");
    server.rest.delete(&RestCaller::default(), &kind, &key, &DeleteOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_service_is_dialled_at_its_endpoints() {
    let (server, hook) = (Server::start().await, hook().await);
    server.create("", "namespaces", "", json!({"metadata": {"name": "ns"}})).await.unwrap();
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443}]}});
    server.create("", "services", "ns", service).await.unwrap();
    let slice = json!({"metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": hook.address().port()}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}]});
    server.create("discovery.k8s.io", "endpointslices", "ns", slice).await.unwrap();
    let client =
        json!({"service": {"namespace": "ns", "name": "hook", "path": "/deny"}, "caBundle": hook.ca()});
    server.hook(VALIDATING, "h", client, json!({})).await.unwrap();
    assert_eq!(server.config_map("cm", json!({})).await.unwrap_err().code, 403);
    let cache: &dyn resource::View = server.rest.cache().as_ref();
    assert!(cache.get(&GroupResource::new("", "configmaps"), "default", "cm").is_none());
}

mod policies;

/// Webhooks see the options of the operation that a patch turns out to be, with what the client named of them.
#[tokio::test]
async fn patches_have_the_options_of_their_operation() {
    let (server, hook) = (Server::start().await, hook().await);
    let rules = json!({"rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
    server.hook(VALIDATING, "a", hook.client_config("/allow"), rules).await.unwrap();
    let named = json!({"fieldManager": "me", "fieldValidation": "Strict", "dryRun": ["All"]});
    let (merge, apply) = (PatchKind::Merge, PatchKind::Apply { force: true });
    for (kind, given, operation, options) in [
        (apply, json!({"fieldManager": "me"}), "CREATE", "CreateOptions"),
        (apply, json!({"fieldManager": "me"}), "UPDATE", "UpdateOptions"),
        (merge, json!({}), "UPDATE", "UpdateOptions"),
        (merge, named, "UPDATE", "UpdateOptions"),
    ] {
        let caller = RestCaller {
            field_manager: "agent".to_owned(),
            dry_run: given.get("dryRun").is_some(),
            options: given.as_object().cloned().unwrap(),
            ..RestCaller::default()
        };
        let key = meta::ObjectKey::new("default", "patched");
        let target = crate::rest::Target { key, subresource: String::new() };
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"by": options, "to": operation}});
        let patch = Patch { kind, body, duplicates: crate::rest::Duplicates::default() };
        server.rest.patch(&caller, &server.kind("", "configmaps"), &target, patch).await.unwrap();
        let (_, review) = hook.calls().pop().unwrap();
        let mut expected = json!({"kind": options, "apiVersion": "meta.k8s.io/v1"});
        schema::patch::merge(&mut expected, &given);
        assert_eq!(review["request"]["options"], expected, "{operation}");
        assert_eq!(review["request"]["operation"], operation, "{given}");
    }
}

#[tokio::test]
async fn streams_are_connected_to() {
    let (server, hook) = (Server::start().await, hook().await);
    let rules = json!({"rules": [{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}]});
    server.hook(VALIDATING, "d", hook.client_config("/deny"), rules).await.unwrap();
    let options = |kind: &str| {
        Object::from_value(json!({"kind": kind, "apiVersion": "v1", "command": ["ls"]})).unwrap()
    };
    let key = meta::ObjectKey::new("default", "p");
    let ask = |subresource: &str, kind: &str| {
        let target = crate::rest::Target { key: key.clone(), subresource: subresource.to_owned() };
        let (rest, pods, options) = (&server.rest, server.kind("", "pods"), options(kind));
        async move { rest.admit_connect(&RestCaller::default(), &pods, &target, options).await }
    };
    assert_eq!(ask("exec", "PodExecOptions").await.unwrap_err().code, 403);
    let (_, review) = hook.calls().pop().unwrap();
    let request = &review["request"];
    assert_eq!((&request["operation"], &request["subResource"]), (&json!("CONNECT"), &json!("exec")));
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "PodExecOptions"}));
    assert_eq!(request["object"]["command"], json!(["ls"]));
    ask("attach", "PodAttachOptions").await.unwrap();
}
