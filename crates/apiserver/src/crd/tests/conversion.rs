//! Conversion between versions, by name and by webhook.

use super::*;
use crate::testing_webhook::{Hook, Reply};

/// v1 has `spec.size`, v2 `spec.length`; v1 is stored.
fn two_versions(conversion: Value) -> Value {
    let version = |name: &str, field: &str, storage: bool| {
        let spec = json!({"type": "object", "properties": {field: {"type": "integer"}}});
        json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec,
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}})
    };
    let mut definition = widgets();
    definition["spec"]["versions"] = json!([version("v1", "size", true), version("v2", "length", false)]);
    definition["spec"]["conversion"] = conversion;
    definition
}

fn by(hook: &Hook, path: &str) -> Value {
    json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": hook.client_config(path)}})
}

/// Renames the field and says in a label that it did; otherwise as its path says.
async fn hook() -> Hook {
    Hook::start(|path, body| {
        let request = &body["request"];
        let wanted = &request["desiredAPIVersion"];
        let (from, to) = if wanted == "toys.example/v2" { ("size", "length") } else { ("length", "size") };
        let convert = |object: &Value| {
            let mut object = object.clone();
            object["apiVersion"] = wanted.clone();
            let value = object["spec"][from].take();
            object["spec"] = json!({to: value, "unheard": 1});
            object["metadata"]["labels"] = json!({"converted": "yes"});
            object["metadata"]["generation"] = json!(77);
            object
        };
        let mut objects: Vec<Value> = request["objects"].as_array().unwrap().iter().map(convert).collect();
        let mut response = json!({"uid": request["uid"], "result": {"status": "Success"}});
        match path {
            "/refuse" => response["result"] = json!({"status": "Failed", "message": "not today"}),
            "/lie" => response["uid"] = json!("another"),
            "/lose" => drop(objects.pop()),
            "/rename" => objects[0]["metadata"]["name"] = json!("x"),
            "/stay" => objects[0]["apiVersion"] = json!("toys.example/v1"),
            "/broken" => return Reply::Raw(500, Vec::new()),
            _ => {}
        }
        response["convertedObjects"] = json!(objects);
        Reply::Json(json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response}))
    })
    .await
}

impl Server {
    fn version(&self, version: &str) -> Arc<Resource> {
        self.rest.registry().resolve("toys.example", version, "widgets").unwrap()
    }

    async fn make_at(&self, version: &str, name: &str, spec: Value) -> Result<Object, Status> {
        let object = Object::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        let resource = self.version(version);
        let written = self
            .rest
            .create(&Caller::server(), &resource, "default", object, crate::rest::Duplicates::default())
            .await?;
        Ok(written.entry.object().unwrap())
    }

    async fn get_at(&self, version: &str, name: &str) -> Result<Object, Status> {
        let key = meta::ObjectKey::new("default", name);
        Ok(self.rest.get(&self.version(version), &key, None).await?.object().unwrap())
    }

    async fn list_at(&self, version: &str) -> Result<Vec<Value>, Status> {
        let page = self.rest.list(&self.version(version), Some("default"), &ListOptions::default()).await?;
        Ok(page.entries.iter().map(|entry| shown(&entry.object().unwrap())).collect())
    }
}

fn shown(object: &Object) -> Value {
    json!([object.api_version(), object.name(), object.get(&["spec"])])
}

#[tokio::test]
async fn webhooks_convert_what_is_read_written_and_watched() {
    let (server, hook) = (start().await, hook().await);
    server.define(two_versions(by(&hook, "/convert"))).await.unwrap();
    server.established("widgets.toys.example").await;
    let made = server.make_at("v2", "a", json!({"length": 3})).await.unwrap();
    assert_eq!(shown(&made), json!(["toys.example/v2", "a", {"length": 3}]));
    assert_eq!(
        made.int(&["metadata", "generation"]),
        Some(1),
        "a webhook changes labels and annotations only"
    );
    assert_eq!(made.label("converted"), Some("yes"));
    assert_eq!(shown(&server.get_at("v1", "a").await.unwrap()), json!(["toys.example/v1", "a", {"size": 3}]));
    let before = hook.calls().len();
    server.make_at("v1", "b", json!({"size": 4})).await.unwrap();
    assert_eq!(hook.calls().len(), before, "the stored version is not converted");
    let all = json!([["toys.example/v2", "a", {"length": 3}], ["toys.example/v2", "b", {"length": 4}]]);
    assert_eq!(json!(server.list_at("v2").await.unwrap()), all);
    assert_eq!(hook.calls().len(), before + 1, "a list is converted in one go");
    // A watch shows what is there and what comes, in its version.
    let options = ListOptions::default();
    let mut watch = server.rest.watch(&server.version("v2"), None, &options).await.unwrap();
    server.make_at("v1", "c", json!({"size": 5})).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = watch.next().await.unwrap().unwrap();
        seen.push(json!([event.happened.wire(), shown(&event.entry.object().unwrap())]));
    }
    assert_eq!(
        json!(seen),
        json!([["ADDED", all[0]], ["ADDED", all[1]], ["ADDED", ["toys.example/v2", "c", {"length": 5}]]])
    );
    // An update in another version keeps what it does not name.
    let target = Target { key: meta::ObjectKey::new("default", "b"), subresource: String::new() };
    let patch = Patch {
        kind: PatchKind::Merge,
        body: json!({"spec": {"length": 9}}),
        duplicates: crate::rest::Duplicates::default(),
    };
    server.rest.patch(&Caller::server(), &server.version("v2"), &target, patch).await.unwrap();
    assert_eq!(shown(&server.get_at("v1", "b").await.unwrap()), json!(["toys.example/v1", "b", {"size": 9}]));
    server.stop().await;
}

/// As upstream's conformance test of selectable fields asks: those of the version that is asked for, whatever is stored.
#[tokio::test]
async fn fields_are_selected_as_the_version_asked_for_shows_them() {
    let (server, hook) = (start().await, hook().await);
    let mut definition = two_versions(by(&hook, "/convert"));
    for (at, field) in [(0, ".spec.size"), (1, ".spec.length")] {
        definition["spec"]["versions"][at]["selectableFields"] = json!([{"jsonPath": field}]);
    }
    server.define(definition).await.unwrap();
    server.established("widgets.toys.example").await;
    let selecting = |field: &str| ListOptions {
        fields: Some(meta::FieldSelector::equals(field, "3")),
        ..ListOptions::default()
    };
    server.make_at("v2", "a", json!({"length": 3})).await.unwrap();
    let mut watch = server.rest.watch(&server.version("v2"), None, &selecting("spec.length")).await.unwrap();
    server.make_at("v1", "b", json!({"size": 4})).await.unwrap();
    for (version, field) in [("v1", "spec.size"), ("v2", "spec.length")] {
        let page =
            server.rest.list(&server.version(version), Some("default"), &selecting(field)).await.unwrap();
        let names: Vec<&str> = page.entries.iter().map(|entry| entry.header.key.name.as_str()).collect();
        assert_eq!(names, ["a"], "{version}");
    }
    for (name, length) in [("b", 3), ("a", 5), ("b", 3)] {
        let target = Target { key: meta::ObjectKey::new("default", name), subresource: String::new() };
        let body = json!({"metadata": {"annotations": {"of": name}}, "spec": {"length": length}});
        let patch = Patch { kind: PatchKind::Merge, body, duplicates: crate::rest::Duplicates::default() };
        server.rest.patch(&Caller::server(), &server.version("v2"), &target, patch).await.unwrap();
    }
    server.make_at("v2", "c", json!({"length": 3})).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let event = watch.next().await.unwrap().unwrap();
        let length = event.entry.object().unwrap().int(&["spec", "length"]);
        seen.push(format!("{} {} {}", event.happened.wire(), event.entry.header.key.name, length.unwrap()));
    }
    assert_eq!(seen, ["ADDED a 3", "ADDED b 3", "DELETED a 3", "ADDED c 3"]);
    server.stop().await;
}

/// Each way in which a webhook can fail: the request fails with it, and no list is shorter for it.
#[tokio::test]
async fn webhooks_that_fail_fail_the_request() {
    let hook = hook().await;
    for (path, why) in [
        ("/refuse", "failed: not today"),
        ("/lie", "failed: expected response.uid="),
        ("/lose", "returned 0 objects, expected 1"),
        (
            "/rename",
            "returned invalid converted object at index 0: invalid metadata: must have the same name: x != a",
        ),
        (
            "/stay",
            "returned invalid converted object at index 0: invalid groupVersion (expected toys.example/v2, received \
             toys.example/v1)",
        ),
        ("/broken", "failed: the server responded with the status code 500 Internal Server Error"),
    ] {
        let server = start().await;
        server.define(two_versions(by(&hook, path))).await.unwrap();
        server.established("widgets.toys.example").await;
        server.make_at("v1", "a", json!({"size": 1})).await.unwrap();
        let expected = format!("conversion webhook for toys.example/v1, Kind=Widget {why}");
        for failed in [server.get_at("v2", "a").await.map(|_| ()), server.list_at("v2").await.map(|_| ())] {
            let failed = failed.unwrap_err();
            assert_eq!(failed.code, 500, "{path}");
            assert!(failed.message.starts_with(&expected), "{path}: {failed}");
        }
        let mut watch =
            server.rest.watch(&server.version("v2"), None, &ListOptions::default()).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap_err().code, 500);
        assert!(watch.next().await.is_none());
        assert_eq!(server.list_at("v1").await.unwrap().len(), 1, "who needs no conversion is not disturbed");
        server.stop().await;
    }
}

/// What was stored before the stored version changed is shown in the version asked for.
#[tokio::test]
async fn the_stored_version_may_change() {
    let server = start().await;
    let mut definition = two_versions(json!({"strategy": "None"}));
    server.define(definition.clone()).await.unwrap();
    server.established("widgets.toys.example").await;
    server.make_at("v1", "a", json!({"size": 1})).await.unwrap();
    definition["spec"]["versions"][0]["storage"] = json!(false);
    definition["spec"]["versions"][1]["storage"] = json!(true);
    let mut changes = server.rest.registry().changes();
    server.patch("widgets.toys.example", json!({"spec": {"versions": definition["spec"]["versions"]}})).await;
    while *server.version("v1").stored_version.version != *"v2" {
        tokio::time::timeout(Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
    }
    server.make_at("v2", "b", json!({"length": 2})).await.unwrap();
    for (version, a, b) in [("v1", json!({"size": 1}), json!({})), ("v2", json!({}), json!({"length": 2}))] {
        let of = format!("toys.example/{version}");
        assert_eq!(json!(server.list_at(version).await.unwrap()), json!([[of, "a", a], [of, "b", b]]));
    }
    server.stop().await;
}
