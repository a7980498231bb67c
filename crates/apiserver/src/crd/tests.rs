use super::*;
use crate::{
    Cache, Registry,
    rest::{Duplicates, Parts},
};
use std::time::Duration;

struct Server {
    rest: Rest,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

async fn start() -> Server {
    over(store::Memory::new()).await
}

async fn over(store: store::Memory) -> Server {
    let registry = Arc::new(Registry::new());
    registry.install_all(kinds::all(&kinds::Options::default(), &kinds::Acts::default()));
    let cache = Arc::new(Cache::load(&store, &registry).await.unwrap());
    let (rest, _task) = Rest::start(Parts {
        store: Arc::new(store),
        cache,
        registry,
        admission: vec![Arc::new(Definitions)],
        clock: Arc::new(meta::Fixed::new("2026-01-01T00:00:00Z".parse().unwrap())),
        random: Arc::new(meta::Seeded::new(1)),
    });
    let stop = CancellationToken::new();
    let running = tokio::spawn(CustomResources::install_stored(&rest).run(stop.clone()));
    Server { rest, stop, running }
}

fn widgets() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 3}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.toys.example"},
        "spec": {
            "group": "toys.example", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            }],
        },
    })
}

impl Server {
    async fn define(&self, value: Value) -> Result<(), Status> {
        let object = Object::from_value(value).unwrap();
        let resource = definitions(&self.rest).unwrap();
        self.rest.create(&Caller::server(), &resource, "", object, Duplicates::default()).await.map(|_| ())
    }

    /// The definition once it fits, or once it is gone.
    async fn wait(&self, name: &str, fits: impl Fn(Option<&Object>) -> bool) {
        let resource = definitions(&self.rest).unwrap();
        let options = ListOptions {
            fields: Some(meta::FieldSelector::equals("metadata.name", name)),
            ..ListOptions::default()
        };
        let mut watch = self.rest.watch(&resource, None, &options).await.unwrap();
        let key = meta::ObjectKey::new("", name);
        if self.rest.cache().kind(&resource.stored_as).get(&key).is_none() && fits(None) {
            return;
        }
        let all = async {
            loop {
                let event = watch.next().await.unwrap().unwrap();
                let object = event.entry.object().unwrap();
                if fits((event.happened != Happened::Deleted).then_some(&object)) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
    }

    async fn established(&self, name: &str) {
        self.wait(name, |object| object.is_some_and(|o| meta::is_condition_true(o, "Established"))).await;
    }

    fn widgets(&self) -> Arc<Resource> {
        self.rest.registry().resolve("toys.example", "v1", "widgets").unwrap()
    }

    async fn make(&self, namespace: &str, name: &str) {
        let widget = json!({"metadata": {"name": name}, "spec": {}});
        let object = Object::from_value(widget).unwrap();
        let resource = self.widgets();
        self.rest
            .create(&Caller::server(), &resource, namespace, object, Duplicates::default())
            .await
            .unwrap();
    }

    async fn patch(&self, name: &str, body: Value) {
        let target = Target { key: meta::ObjectKey::new("", name), subresource: String::new() };
        let patch = Patch { kind: PatchKind::Merge, body, duplicates: Duplicates::default() };
        let resource = definitions(&self.rest).unwrap();
        self.rest.patch(&Caller::server(), &resource, &target, patch).await.unwrap();
    }

    async fn undefine(&self, name: &str) {
        let resource = definitions(&self.rest).unwrap();
        let key = meta::ObjectKey::new("", name);
        self.rest.delete(&Caller::server(), &resource, &key, &DeleteOptions::default()).await.unwrap();
        self.wait(name, |object| object.is_none()).await;
        let mut changes = self.rest.registry().changes();
        while self.rest.registry().resolve("toys.example", "v1", "widgets").is_some() {
            tokio::time::timeout(Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap();
    }
}

#[tokio::test]
async fn serves_what_is_defined_until_it_goes() {
    let server = start().await;
    server.define(widgets()).await.unwrap();
    server.established("widgets.toys.example").await;
    let resource = server.rest.registry().resolve("toys.example", "v1", "widgets").unwrap();
    assert_eq!(resource.columns[0].name, "Size");
    assert_eq!(&*resource.short_names[0], "wd");
    assert!(resource.has_status());
    let widget =
        json!({"apiVersion": "toys.example/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {}});
    let object = Object::from_value(widget).unwrap();
    let written = server
        .rest
        .create(&Caller::server(), &resource, "default", object, Duplicates::default())
        .await
        .unwrap();
    assert_eq!(written.entry.object().unwrap().int(&["spec", "size"]), Some(3));

    server.undefine("widgets.toys.example").await;
    assert!(server.rest.cache().kind(&resource.stored_as).snapshot().is_empty());
    server.stop().await;
}

/// Upstream: the deletion itself adds the finalizer, whether or not any loop has seen the definition.
#[tokio::test]
async fn a_definition_that_goes_at_once_takes_its_instances_with_it() {
    let store = store::Memory::new();
    let name = "widgets.toys.example";
    let server = over(store.clone()).await;
    server.define(widgets()).await.unwrap();
    // Served before the condition says so: an instance may be there before any status is.
    let mut changes = server.rest.registry().changes();
    while server.rest.registry().resolve("toys.example", "v1", "widgets").is_none() {
        tokio::time::timeout(Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
    }
    server.make("default", "w").await;
    let stored_as = server.widgets().stored_as.clone();
    server.undefine(name).await;
    assert!(server.rest.cache().kind(&stored_as).snapshot().is_empty());

    // Nobody follows definitions any more: the deletion can only be marked, and the next server ends it.
    server.stop.cancel();
    server.running.await.unwrap();
    let resource = definitions(&server.rest).unwrap();
    let object = Object::from_value(widgets()).unwrap();
    server.rest.create(&Caller::server(), &resource, "", object, Duplicates::default()).await.unwrap();
    let key = meta::ObjectKey::new("", name);
    let deleted =
        server.rest.delete(&Caller::server(), &resource, &key, &DeleteOptions::default()).await.unwrap();
    let crate::rest::Deleted::Pending(entry) = deleted else { panic!("it went without its finalizer") };
    let marked = entry.object().unwrap();
    assert_eq!(marked.list(&["metadata", "finalizers"]), [json!(CLEANUP)]);
    let terminating = meta::find_condition(&marked, "Terminating").unwrap();
    assert_eq!(
        (&terminating["status"], &terminating["reason"]),
        (&json!("True"), &json!("InstanceDeletionPending"))
    );
    let server = over(store).await;
    server.wait(name, |object| object.is_none()).await;
    server.stop().await;
}

#[tokio::test]
async fn a_definition_that_was_never_established_goes() {
    let server = start().await;
    server.define(widgets()).await.unwrap();
    server.established("widgets.toys.example").await;
    let mut other = widgets();
    other["metadata"]["name"] = json!("others.toys.example");
    other["spec"]["names"] = json!({"plural": "others", "kind": "Widget"});
    server.define(other).await.unwrap();
    let resource = definitions(&server.rest).unwrap();
    let key = meta::ObjectKey::new("", "others.toys.example");
    server.rest.delete(&Caller::server(), &resource, &key, &DeleteOptions::default()).await.unwrap();
    server.wait("others.toys.example", |object| object.is_none()).await;
    assert!(server.rest.registry().resolve("toys.example", "v1", "widgets").is_some());
    server.stop().await;
}

#[tokio::test]
async fn names_are_given_once() {
    let server = start().await;
    server.define(widgets()).await.unwrap();
    server.established("widgets.toys.example").await;
    let mut other = widgets();
    other["metadata"]["name"] = json!("others.toys.example");
    other["spec"]["names"] = json!({"plural": "others", "kind": "Widget"});
    server.define(other).await.unwrap();
    server
        .wait("others.toys.example", |object| {
            let condition = object.and_then(|object| meta::find_condition(object, "NamesAccepted"));
            condition.is_some_and(|c| c["reason"] == "SingularConflict" && c["status"] == "False")
        })
        .await;
    assert!(server.rest.registry().resolve("toys.example", "v1", "others").is_none());
    server.stop().await;
}

#[tokio::test]
async fn refuses_what_could_not_be_served() {
    let server = start().await;
    let mut webhook = widgets();
    webhook["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"], "clientConfig": {"url": "http://localhost/convert"}}});
    assert_eq!(server.define(webhook).await.unwrap_err().code, 422);
    let mut schema = widgets();
    schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] =
        json!({"properties": {}});
    assert_eq!(server.define(schema).await.unwrap_err().code, 422);
    let mut column = widgets();
    column["spec"]["versions"][0]["additionalPrinterColumns"][0]["jsonPath"] = json!("spec.size");
    assert_eq!(server.define(column).await.unwrap_err().code, 422);
    server.stop().await;
}

#[tokio::test]
async fn what_is_stored_is_served_before_the_first_request() {
    let store = store::Memory::new();
    let server = over(store.clone()).await;
    server.define(widgets()).await.unwrap();
    server.established("widgets.toys.example").await;
    server.make("default", "w").await;
    server.stop().await;
    // Nothing is awaited between the start and the request: the task that follows has not run.
    let server = over(store).await;
    let key = meta::ObjectKey::new("default", "w");
    let found = server.rest.get(&server.widgets(), &key, None).await.unwrap();
    assert_eq!(found.object().unwrap().int(&["spec", "size"]), Some(3));
    server.stop().await;
}

/// What an object shows of a default that came after it: read alone, in a list, and as a watch begins.
async fn shown(server: &Server, name: &str) -> [Option<i64>; 3] {
    let (resource, options) = (server.widgets(), ListOptions::default());
    let weight = |entry: &meta::Entry| entry.object().unwrap().int(&["spec", "weight"]);
    let alone = server.rest.get(&resource, &meta::ObjectKey::new("default", name), None).await.unwrap();
    let page = server.rest.list(&resource, None, &options).await.unwrap();
    let listed = page.entries.iter().find(|entry| &*entry.header.key.name == name).unwrap();
    let mut watch = server.rest.watch(&resource, None, &options).await.unwrap();
    let watched = loop {
        let event = watch.next().await.unwrap().unwrap();
        if &*event.entry.header.key.name == name {
            break serde_json::from_slice::<Value>(&event.line).unwrap()["object"]["spec"]["weight"].as_i64();
        }
    };
    [weight(&alone), weight(listed), watched]
}

#[tokio::test]
async fn a_default_that_comes_later_is_shown_of_what_was_there() {
    let store = store::Memory::new();
    let server = over(store.clone()).await;
    server.define(widgets()).await.unwrap();
    server.established("widgets.toys.example").await;
    server.make("default", "old").await;
    assert_eq!(shown(&server, "old").await, [None; 3]);
    let mut version = widgets()["spec"]["versions"][0].clone();
    version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["weight"] =
        json!({"type": "integer", "default": 7});
    let mut changes = server.rest.registry().changes();
    server.patch("widgets.toys.example", json!({"spec": {"versions": [version]}})).await;
    // Under the new schema or, where it is not yet served, still under the old one.
    server.make("default", "between").await;
    tokio::time::timeout(Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
    server.make("default", "new").await;
    for name in ["old", "between", "new"] {
        assert_eq!(shown(&server, name).await, [Some(7); 3], "{name}");
    }
    // The next one served by another server, which knows the definition and the object from the store.
    server.stop().await;
    let server = over(store).await;
    for name in ["old", "new"] {
        assert_eq!(shown(&server, name).await, [Some(7); 3], "{name}");
    }
    server.stop().await;
}

async fn rest_of(watch: &mut crate::rest::Watch) -> Vec<String> {
    let all = async {
        let mut seen = Vec::new();
        while let Some(event) = watch.next().await {
            let event = event.unwrap();
            seen.push(format!("{} {}", event.happened.wire(), event.entry.header.key.name));
        }
        seen
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap()
}

#[tokio::test]
async fn watches_end_with_what_they_watch() {
    let server = start().await;
    server.define(widgets()).await.unwrap();
    server.established("widgets.toys.example").await;
    server.make("default", "w").await;
    let options = ListOptions::default();
    let watch = || async { server.rest.watch(&server.widgets(), None, &options).await.unwrap() };
    let mut changed = watch().await;
    server.patch("widgets.toys.example", json!({"metadata": {"labels": {"a": "b"}}})).await;
    let columns = json!([{"name": "Size", "type": "string", "jsonPath": ".spec.size"}]);
    let mut version = widgets()["spec"]["versions"][0].clone();
    version["additionalPrinterColumns"] = columns;
    let old = server.widgets();
    server.patch("widgets.toys.example", json!({"spec": {"versions": [version]}})).await;
    assert_eq!(rest_of(&mut changed).await, ["ADDED w"]);
    let mut stale = server.rest.watch(&old, None, &options).await.unwrap();
    assert_eq!(rest_of(&mut stale).await, ["ADDED w"]);

    let mut going = watch().await;
    server.undefine("widgets.toys.example").await;
    assert_eq!(rest_of(&mut going).await, ["ADDED w", "DELETED w"]);
    server.stop().await;
}

#[tokio::test]
async fn a_new_definition_shows_nothing_of_an_earlier_one() {
    let server = start().await;
    server.define(widgets()).await.unwrap();
    server.established("widgets.toys.example").await;
    server.make("default", "old").await;
    let before = server.rest.cache().head();
    // Somebody takes the finalizer away, so that the definition goes without its instances.
    let stored_as = server.widgets().stored_as.clone();
    let name = "widgets.toys.example";
    let instance = json!({"metadata": {"finalizers": ["example.com/held"]}});
    let target = Target { key: meta::ObjectKey::new("default", "old"), subresource: String::new() };
    let patch = Patch { kind: PatchKind::Merge, body: instance, duplicates: Duplicates::default() };
    server.rest.patch(&Caller::server(), &server.widgets(), &target, patch).await.unwrap();
    let definitions = definitions(&server.rest).unwrap();
    let key = meta::ObjectKey::new("", name);
    server.rest.delete(&Caller::server(), &definitions, &key, &DeleteOptions::default()).await.unwrap();
    server.patch(name, json!({"metadata": {"finalizers": null}})).await;
    server.wait(name, |object| object.is_none()).await;

    let mut cluster = widgets();
    cluster["spec"]["scope"] = json!("Cluster");
    server.define(cluster).await.unwrap();
    server.established(name).await;
    assert!(server.rest.cache().kind(&stored_as).snapshot().is_empty());
    server.make("", "new").await;
    let page = server.rest.list(&server.widgets(), None, &ListOptions::default()).await.unwrap();
    assert_eq!(page.entries.iter().map(|e| &*e.header.key.name).collect::<Vec<_>>(), ["new"]);
    let from = ListOptions { watch_from: Some(before), ..ListOptions::default() };
    let gone = server.rest.watch(&server.widgets(), None, &from).await.err().unwrap();
    assert_eq!(gone.reason, Some(meta::Reason::Expired));
    server.stop().await;
}

#[tokio::test]
async fn a_freed_name_goes_to_who_waits_for_it() {
    let server = start().await;
    server.define(widgets()).await.unwrap();
    server.established("widgets.toys.example").await;
    let mut other = widgets();
    other["metadata"]["name"] = json!("others.toys.example");
    other["spec"]["names"] =
        json!({"plural": "others", "kind": "Widget", "listKind": "OtherList", "singular": "other"});
    server.define(other).await.unwrap();
    server
        .wait("others.toys.example", |object| {
            let condition = object.and_then(|object| meta::find_condition(object, "NamesAccepted"));
            condition.is_some_and(|c| c["reason"] == "KindConflict")
        })
        .await;
    server.undefine("widgets.toys.example").await;
    server.established("others.toys.example").await;
    server.stop().await;
}

mod conversion;
