//! The same requests to every kind that the server announces: a kind is a value in a table, so one suite
//! holds them all.

use futures::future::join_all;
use http::{Request, header};
use kube::{Client, client::Body};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, Runtime},
    kube_rs::client,
    samples,
};

const NAMESPACE: &str = "every";
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// Tries of a write that a controller may meet with one of its own.
const TRIES: usize = 50;

#[tokio::test]
async fn every_kind_is_served_alike() {
    let mut cluster = Cluster::up(Runtime::Simulated, &["--operators", "none"]);
    let client = client(&cluster).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let made = ask(&client, "POST", "/api/v1/namespaces", JSON, JSON, namespace.to_string().into()).await;
    assert_eq!(made.code, 201, "{made:?}");
    let kinds = announced(&client).await;
    assert!(kinds.len() > 40, "only {} kinds", kinds.len());
    let failures: Vec<String> = join_all(kinds.into_iter().map(|kind| kind.check(&client))).await.concat();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    drop(client);
    assert_eq!(cluster.stop(), 0);
}

#[derive(Debug)]
struct Answer {
    code: u16,
    media: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    fn shown(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        format!("{} {}", self.code, text.chars().take(300).collect::<String>())
    }
}

async fn ask(
    client: &Client,
    method: &str,
    path: &str,
    content: &str,
    accept: &str,
    body: Vec<u8>,
) -> Answer {
    ask_as(client, "", method, path, content, accept, body).await
}

#[allow(clippy::too_many_arguments, reason = "the parts of a request")]
async fn ask_as(
    client: &Client,
    user: &str,
    method: &str,
    path: &str,
    content: &str,
    accept: &str,
    body: Vec<u8>,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, content);
    }
    if !user.is_empty() {
        request = request.header("impersonate-user", user);
    }
    let response = client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let media = response.headers().get(header::CONTENT_TYPE).map(|v| v.to_str().unwrap().to_owned());
    let body = response.into_body().collect_bytes().await.unwrap().to_vec();
    Answer { code, media: media.unwrap_or_default(), body }
}

/// One announced kind, with its sample.
struct Kind {
    version: String,
    plural: String,
    kind: String,
    namespaced: bool,
    status: bool,
    sample: Option<Value>,
}

/// Every kind of discovery that can be created.
async fn announced(client: &Client) -> Vec<Kind> {
    let groups = ask(client, "GET", "/apis", JSON, JSON, Vec::new()).await.json();
    let mut versions = vec!["v1".to_owned()];
    for group in groups["groups"].as_array().unwrap() {
        let all = group["versions"].as_array().unwrap();
        versions.extend(all.iter().map(|version| version["groupVersion"].as_str().unwrap().to_owned()));
    }
    let samples = samples::samples();
    let mut kinds = Vec::new();
    for version in versions {
        let list = ask(client, "GET", &prefix(&version), JSON, JSON, Vec::new()).await.json();
        let list = list["resources"].as_array().unwrap();
        for resource in list {
            let plural = resource["name"].as_str().unwrap();
            let verbs = resource["verbs"].as_array().unwrap();
            let stored = verbs.contains(&json!("create")) && verbs.contains(&json!("list"));
            let elsewhere = samples::ELSEWHERE.contains(&(&*version, plural));
            if plural.contains('/') || !stored || elsewhere {
                continue;
            }
            let status = list.iter().any(|r| r["name"] == json!(format!("{plural}/status")));
            let sample = samples.iter().find(|(v, p, _)| *v == version && *p == plural);
            kinds.push(Kind {
                version: version.clone(),
                plural: plural.to_owned(),
                kind: resource["kind"].as_str().unwrap().to_owned(),
                namespaced: resource["namespaced"] == json!(true),
                status,
                sample: sample.map(|(_, _, sample)| sample.clone()),
            });
        }
    }
    kinds
}

fn prefix(version: &str) -> String {
    if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") }
}

/// What one kind did wrong.
struct Run<'a> {
    client: &'a Client,
    failures: Vec<String>,
    label: String,
}

impl Run<'_> {
    fn expect(&mut self, step: &str, ok: bool, answer: &Answer) {
        if !ok {
            self.failures.push(format!("{} {step}: {}", self.label, answer.shown()));
        }
    }

    async fn code(
        &mut self,
        step: &str,
        expected: u16,
        method: &str,
        path: &str,
        content: &str,
        body: Value,
    ) -> Answer {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = ask(self.client, method, path, content, JSON, body).await;
        self.expect(step, answer.code == expected, &answer);
        answer
    }
}

impl Kind {
    async fn check(self, client: &Client) -> Vec<String> {
        let label = format!("{} {}", self.version, self.plural);
        let mut run = Run { client, failures: Vec::new(), label };
        match &self.sample {
            None => run.failures.push(format!("{}: no sample: add one to samples.rs", run.label)),
            Some(sample) => {
                let object = self.object(sample);
                self.creates(&mut run, &object).await;
                // A name that could not be made would fail every step below.
                if run.failures.is_empty() {
                    let revision = self.reads(&mut run).await;
                    self.writes(&mut run, &object).await;
                    self.watches(&mut run, &revision).await;
                    self.deletes(&mut run).await;
                }
            }
        }
        run.failures
    }

    fn collection(&self) -> String {
        let namespace = if self.namespaced { format!("/namespaces/{NAMESPACE}") } else { String::new() };
        format!("{}{namespace}/{}", prefix(&self.version), self.plural)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name())
    }

    fn name(&self) -> String {
        // Events are the same objects in both groups, as are both versions of an autoscaler; and controllers
        // make objects that are called like a Service.
        let own = || format!("every-{}-{}", self.plural, self.version.replace(['/', '.'], "-"));
        samples::name(&self.plural).map_or_else(own, ToOwned::to_owned)
    }

    fn object(&self, sample: &Value) -> Value {
        // Labels of its own, so that no controller takes the objects of one kind for another's.
        let own = json!({"of": self.plural}).to_string();
        let text = sample.to_string().replace(&json!({"of": "every"}).to_string(), &own);
        let mut object: Value = serde_json::from_str(&text).unwrap();
        let mut metadata = json!({"name": self.name(), "labels": {"made": self.plural}});
        if self.namespaced {
            metadata["namespace"] = json!(NAMESPACE);
        }
        object["apiVersion"] = json!(self.version);
        object["kind"] = json!(self.kind);
        object["metadata"] = metadata;
        object
    }

    async fn creates(&self, run: &mut Run<'_>, object: &Value) {
        let (collection, path) = (self.collection(), self.path());
        let dry = format!("{collection}?dryRun=All");
        run.code("dry create", 201, "POST", &dry, JSON, object.clone()).await;
        run.code("get after a dry create", 404, "GET", &path, JSON, Value::Null).await;
        let mut unknown = object.clone();
        unknown["noSuchField"] = json!(1);
        let strict = format!("{collection}?fieldValidation=Strict");
        run.code("strict create", 400, "POST", &strict, JSON, unknown).await;
        let made = run.code("create", 201, "POST", &collection, JSON, object.clone()).await.json();
        let whole = made["metadata"]["uid"].is_string() && made["kind"] == json!(self.kind);
        if !whole {
            run.failures.push(format!("{} create answered {made}", run.label));
        }
        let again = run.code("create again", 409, "POST", &collection, JSON, object.clone()).await;
        run.expect("create again", again.json()["reason"] == json!("AlreadyExists"), &again);
    }

    /// Reads in every form; the revision of the list.
    async fn reads(&self, run: &mut Run<'_>) -> String {
        let (collection, path) = (self.collection(), self.path());
        let got = run.code("get", 200, "GET", &path, JSON, Value::Null).await;
        run.expect("get", got.json()["apiVersion"] == json!(self.version), &got);
        let table = format!("{JSON};as=Table;v=v1;g=meta.k8s.io");
        let table = ask(run.client, "GET", &path, JSON, &table, Vec::new()).await;
        run.expect("table", table.json()["kind"] == json!("Table"), &table);
        for (form, step) in
            [("", "protobuf"), (";as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "protobuf metadata")]
        {
            let answer = ask(run.client, "GET", &path, JSON, &format!("{PROTOBUF}{form}"), Vec::new()).await;
            run.expect(step, answer.code == 200 && answer.media == PROTOBUF, &answer);
        }
        let forbidden = ask_as(run.client, "nobody", "GET", &path, JSON, JSON, Vec::new()).await;
        run.expect("get as nobody", forbidden.code == 403, &forbidden);
        run.code("get what is not there", 404, "GET", &format!("{collection}/none-such"), JSON, Value::Null)
            .await;
        let list = run
            .code(
                "list",
                200,
                "GET",
                &format!("{collection}?labelSelector=made%3D{}", self.plural),
                JSON,
                Value::Null,
            )
            .await;
        let value = list.json();
        let found = value["items"]
            .as_array()
            .is_some_and(|items| items.iter().any(|item| item["metadata"]["name"] == json!(self.name())));
        run.expect("list", found && value["kind"] == json!(format!("{}List", self.kind)), &list);
        value["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned()
    }

    async fn writes(&self, run: &mut Run<'_>, object: &Value) {
        let path = self.path();
        let mut stale = object.clone();
        stale["metadata"]["resourceVersion"] = json!("1");
        run.code("stale update", 409, "PUT", &path, JSON, stale).await;
        self.again(run, "protobuf update").await;
        let label = |value: &str| json!({"metadata": {"labels": {"step": value}}});
        let add = json!([{"op": "add", "path": "/metadata/labels/step", "value": "json"}]);
        for (step, content, patch) in [
            ("merge patch", "application/merge-patch+json", label("merge")),
            ("strategic patch", "application/strategic-merge-patch+json", label("strategic")),
            ("json patch", "application/json-patch+json", add),
        ] {
            let dry = format!("{path}?dryRun=All");
            run.code(&format!("dry {step}"), 200, "PATCH", &dry, content, patch.clone()).await;
            run.code(step, 200, "PATCH", &path, content, patch).await;
        }
        let mut apply = json!({"apiVersion": self.version, "kind": self.kind});
        apply["metadata"] = json!({"name": self.name(), "labels": {"step": "apply"}});
        let apply_path = format!("{path}?fieldManager=every&force=true");
        let applied =
            run.code("apply", 200, "PATCH", &apply_path, "application/apply-patch+yaml", apply).await;
        let owned = applied.json()["metadata"]["managedFields"].to_string().contains("\"every\"");
        run.expect("apply", owned, &applied);
        run.code("unknown patch", 415, "PATCH", &path, "text/plain", label("x")).await;
        let none = format!("{}/none-such", self.collection());
        run.code("patch what is not there", 404, "PATCH", &none, "application/merge-patch+json", label("x"))
            .await;
        if self.status {
            let status = format!("{path}/status");
            run.code("get status", 200, "GET", &status, JSON, Value::Null).await;
            run.code("patch status", 200, "PATCH", &status, "application/merge-patch+json", label("status"))
                .await;
        }
    }

    /// Puts back, as protobuf, what was read as protobuf.
    async fn again(&self, run: &mut Run<'_>, step: &str) {
        let path = self.path();
        for tries in 1.. {
            let read = ask(run.client, "GET", &path, JSON, PROTOBUF, Vec::new()).await;
            let before = run.code(step, 200, "GET", &path, JSON, Value::Null).await.json();
            let put = ask(run.client, "PUT", &path, PROTOBUF, JSON, read.body).await;
            let raced = put.code == 409
                || put.json()["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"];
            if tries < TRIES && put.code != 400 && raced {
                continue;
            }
            // Nothing changed, so nothing was written.
            run.expect(step, put.code == 200 && !raced, &put);
            return;
        }
    }

    async fn watches(&self, run: &mut Run<'_>, revision: &str) {
        let query = format!(
            "watch=true&resourceVersion={revision}&timeoutSeconds=1&labelSelector=made%3D{}",
            self.plural
        );
        let path = format!("{}?{query}", self.collection());
        let events = run.code("watch", 200, "GET", &path, JSON, Value::Null).await;
        let modified = String::from_utf8_lossy(&events.body).lines().any(|line| {
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            event["type"] == json!("MODIFIED") && event["object"]["metadata"]["name"] == json!(self.name())
        });
        run.expect("watch", modified, &events);
        let frames = ask(run.client, "GET", &path, JSON, PROTOBUF, Vec::new()).await;
        run.expect(
            "protobuf watch",
            frames.code == 200 && frames.media.starts_with(PROTOBUF) && frames.body.len() > 4,
            &frames,
        );
    }

    async fn deletes(&self, run: &mut Run<'_>) {
        let path = self.path();
        run.code("dry delete", 200, "DELETE", &format!("{path}?dryRun=All"), JSON, Value::Null).await;
        run.code("get after a dry delete", 200, "GET", &path, JSON, Value::Null).await;
        let none = format!("{}?labelSelector=made%3Dnone", self.collection());
        run.code("delete none", 200, "DELETE", &none, JSON, Value::Null).await;
        run.code("delete", 200, "DELETE", &path, JSON, Value::Null).await;
        let mut last = ask(run.client, "GET", &path, JSON, JSON, Vec::new()).await;
        // Finalizers of the server's own go a moment later.
        for _ in 0..600 {
            if last.code == 404 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            last = ask(run.client, "GET", &path, JSON, JSON, Vec::new()).await;
        }
        run.expect("get after delete", last.code == 404, &last);
        run.code("delete again", 404, "DELETE", &path, JSON, Value::Null).await;
    }
}
