use super::*;
use crate::{Cache, Registry, rest::Parts};
use std::time::Duration;

struct Server {
    rest: Rest,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

async fn start() -> Server {
    let registry = Arc::new(Registry::new());
    registry.install_all(kinds::all(&kinds::Options::default(), &kinds::Acts::default()));
    let store = store::Memory::new();
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
    let running = tokio::spawn(run(rest.clone(), stop.clone()));
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
        self.rest.create(&caller(), &resource, "", object, Vec::new()).await.map(|_| ())
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
        self.wait(name, |object| {
            object.is_some_and(|object| {
                let held = object.list(&["metadata", "finalizers"]).contains(&json!(CLEANUP));
                held && meta::is_condition_true(object, "Established")
            })
        })
        .await;
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
    let written = server.rest.create(&caller(), &resource, "default", object, Vec::new()).await.unwrap();
    assert_eq!(written.entry.object().unwrap().int(&["spec", "size"]), Some(3));

    let definitions = definitions(&server.rest).unwrap();
    let key = meta::ObjectKey::new("", "widgets.toys.example");
    server.rest.delete(&caller(), &definitions, &key, &DeleteOptions::default()).await.unwrap();
    server.wait("widgets.toys.example", |object| object.is_none()).await;
    assert!(server.rest.cache().kind(&resource.stored_as).snapshot().is_empty());
    let mut changes = server.rest.registry().changes();
    while server.rest.registry().resolve("toys.example", "v1", "widgets").is_some() {
        tokio::time::timeout(Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
    }
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
        "conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://localhost/convert"}}});
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
