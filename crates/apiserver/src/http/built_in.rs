//! What upstream's conformance suite asks of an API server alone, over a socket, with the built-in kinds:
//! `docs/conformance.md` says which test each of these does.

use meta::Value;
use serde_json::json;

use crate::{
    Registry,
    testing_kinds::built_in_kinds,
    testing_server::{self, Running, request, value},
};

struct Asker(Running);

impl Asker {
    async fn start() -> Self {
        let registry = Registry::new();
        registry.install_all(built_in_kinds());
        let asker = Self(testing_server::start(registry).await);
        asker.ask("POST", "/api/v1/namespaces", json!({"metadata": {"name": "ns"}}), 201).await;
        asker
    }

    /// Asks, wants this code, and gives what is answered.
    async fn ask(&self, method: &str, path: &str, body: Value, code: u16) -> Value {
        let admin = self.0.pki.admin().unwrap();
        let body = Some(body).filter(|body| !body.is_null());
        let answer = self.0.send(Some(&admin), true, request(method, path, body)).await;
        assert_eq!(answer.status(), code, "{method} {path}: {:?}", answer.body());
        value(&answer)
    }

    async fn refused(&self, method: &str, path: &str, body: Value, parts: &[&str]) {
        let status = self.ask(method, path, body, 422).await;
        let message = status["message"].as_str().unwrap();
        assert_eq!(status["reason"], "Invalid");
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[tokio::test]
async fn maps_and_secrets_with_an_empty_key_are_refused() {
    let asker = Asker::start().await;
    for plural in ["configmaps", "secrets"] {
        let object = json!({"metadata": {"name": "m"}, "data": {"": "dmFsdWU="}});
        let path = format!("/api/v1/namespaces/ns/{plural}");
        asker.refused("POST", &path, object, &["data[]: Invalid value: \"\""]).await;
    }
    asker.0.serving.stop().await;
}

#[tokio::test]
async fn what_is_immutable_stays() {
    let asker = Asker::start().await;
    for plural in ["configmaps", "secrets"] {
        let all = format!("/api/v1/namespaces/ns/{plural}");
        let one = format!("{all}/m");
        let object = |data: &str, immutable: bool| json!({"metadata": {"name": "m"}, "data": {"key": data}, "immutable": immutable});
        asker.ask("POST", &all, object("YQ==", false), 201).await;
        asker.ask("PUT", &one, object("Yg==", false), 200).await;
        asker.ask("PUT", &one, object("Yg==", true), 200).await;
        let why = "field is immutable when `immutable` is set";
        asker.refused("PUT", &one, object("Yg==", false), &["immutable: Forbidden", why]).await;
        asker.refused("PUT", &one, object("YQ==", true), &["data: Forbidden", why]).await;
        let mut labelled = object("Yg==", true);
        labelled["metadata"]["labels"] = json!({"a": "b"});
        assert_eq!(asker.ask("PUT", &one, labelled, 200).await["metadata"]["labels"]["a"], "b");
        asker.ask("DELETE", &one, Value::Null, 200).await;
    }
    asker.0.serving.stop().await;
}

#[tokio::test]
async fn a_pod_has_its_quality_of_service() {
    let asker = Asker::start().await;
    let amounts = json!({"cpu": "100m", "memory": "100Mi"});
    for (name, resources, class) in [
        ("a", json!({"requests": amounts, "limits": amounts}), "Guaranteed"),
        ("b", json!({"requests": amounts}), "Burstable"),
        ("c", json!({}), "BestEffort"),
    ] {
        let container = json!({"name": "c", "image": "i:1", "resources": resources});
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": [container]}});
        let made = asker.ask("POST", "/api/v1/namespaces/ns/pods", pod, 201).await;
        assert_eq!(made["status"]["qosClass"], class);
    }
    asker.0.serving.stop().await;
}

#[tokio::test]
async fn sysctls_that_are_none_are_refused() {
    let asker = Asker::start().await;
    let sysctls = ["foo-", "kernel.shmmax", "safe-and-unsafe", "bar.."];
    let sysctls = sysctls.map(|name| json!({"name": name, "value": "100000000"}));
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "image": "i:1"}], "securityContext": {"sysctls": sysctls}}});
    let status = asker.ask("POST", "/api/v1/namespaces/ns/pods", pod, 422).await;
    let message = status["message"].as_str().unwrap();
    for (part, wanted) in [
        ("Invalid value: \"foo-\"", true),
        ("Invalid value: \"bar..\"", true),
        ("safe-and-unsafe", false),
        ("kernel.shmmax", false),
    ] {
        assert_eq!(message.contains(part), wanted, "{part}: {message}");
    }
    asker.0.serving.stop().await;
}

/// A Job's failure policy may ignore pods that were evicted: the condition must be there before the pod ends.
#[tokio::test]
async fn an_evicted_pod_says_that_it_is() {
    let asker = Asker::start().await;
    let container = json!({"name": "c", "image": "i:1"});
    let pod = json!({"metadata": {"name": "p", "finalizers": ["example.com/stay"]}, "spec": {"containers": [container]}});
    let made = asker.ask("POST", "/api/v1/namespaces/ns/pods", pod, 201).await;
    let (one, eviction) = ("/api/v1/namespaces/ns/pods/p", "/api/v1/namespaces/ns/pods/p/eviction");
    let evict = |options: Value| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}, "deleteOptions": options});
    asker.ask("POST", eviction, evict(json!({"dryRun": ["All"]})), 201).await;
    assert_eq!(asker.ask("GET", one, Value::Null, 200).await, made, "a dry run leaves all as it is");
    let other = json!({"preconditions": {"uid": "0"}});
    asker.ask("POST", eviction, evict(other), 409).await;
    assert_eq!(asker.ask("GET", one, Value::Null, 200).await, made, "it was another pod that was meant");
    let version = &made["metadata"]["resourceVersion"];
    asker.ask("POST", eviction, evict(json!({"preconditions": {"resourceVersion": version}})), 201).await;
    let pod = asker.ask("GET", one, Value::Null, 200).await;
    assert!(pod["metadata"]["deletionTimestamp"].is_string(), "{pod}");
    let mut conditions = pod["status"]["conditions"].as_array().unwrap().iter();
    let condition = conditions.find(|condition| condition["type"] == "DisruptionTarget").unwrap();
    let said = ["status", "reason", "message"].map(|field| condition[field].as_str().unwrap());
    assert_eq!(said, ["True", "EvictionByEvictionAPI", "Eviction API: evicting"]);
    asker.0.serving.stop().await;
}

#[tokio::test]
async fn a_service_takes_conditions_without_a_time() {
    let asker = Asker::start().await;
    let service =
        json!({"metadata": {"name": "s"}, "spec": {"type": "ExternalName", "externalName": "a.example"}});
    let mut service = asker.ask("POST", "/api/v1/namespaces/ns/services", service, 201).await;
    let condition =
        json!({"type": "T", "status": "True", "reason": "R", "message": "", "lastTransitionTime": null});
    service["status"] = json!({"conditions": [condition]});
    let service = asker.ask("PUT", "/api/v1/namespaces/ns/services/s/status", service, 200).await;
    assert_eq!(service["status"]["conditions"][0]["reason"], "R");
    asker.0.serving.stop().await;
}

/// What schedulers did before pods had a subresource for it.
#[tokio::test]
async fn a_binding_names_its_pod() {
    let asker = Asker::start().await;
    let container = json!({"name": "c", "image": "i:1"});
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}});
    let pod = asker.ask("POST", "/api/v1/namespaces/ns/pods", pod, 201).await;
    let (one, bindings) = ("/api/v1/namespaces/ns/pods/p", "/api/v1/namespaces/ns/bindings");
    let binding = |metadata: Value| json!({"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": {"kind": "Node", "name": "n"}});
    for (metadata, code, why) in [
        (json!({}), 400, "Name parameter required."),
        (json!({"name": "q"}), 404, "pods \"q\" not found"),
        (json!({"name": "p", "namespace": "other"}), 400, "does not match the namespace"),
        (json!({"name": "p", "uid": "0"}), 409, "UID in precondition: 0"),
    ] {
        let refused = asker.ask("POST", bindings, binding(metadata), code).await;
        assert!(refused["message"].as_str().unwrap().contains(why), "{refused}");
    }
    assert_eq!(asker.ask("GET", one, Value::Null, 200).await, pod);
    asker.ask("GET", bindings, Value::Null, 405).await;
    asker.ask("POST", &format!("{bindings}?dryRun=All"), binding(json!({"name": "p"})), 201).await;
    assert_eq!(asker.ask("GET", one, Value::Null, 200).await, pod, "a dry run leaves all as it is");
    let named = json!({"name": "p", "annotations": {"by": "me"}, "uid": pod["metadata"]["uid"]});
    let done = asker.ask("POST", bindings, binding(named), 201).await;
    assert_eq!((&done["kind"], &done["status"]), (&json!("Status"), &json!("Success")));
    let bound = asker.ask("GET", one, Value::Null, 200).await;
    assert_eq!(
        (&bound["spec"]["nodeName"], &bound["metadata"]["annotations"]["by"]),
        (&json!("n"), &json!("me"))
    );
    let again = asker.ask("POST", bindings, binding(json!({"name": "p"})), 409).await;
    assert!(again["message"].as_str().unwrap().contains("already assigned to node \"n\""), "{again}");
    asker.0.serving.stop().await;
}

/// Upstream warns whoever uses a version that is to go, whatever for, and once.
#[tokio::test]
async fn who_uses_what_is_deprecated_is_warned() {
    let asker = Asker::start().await;
    let admin = asker.0.pki.admin().unwrap();
    let all = "/api/v1/namespaces/ns/endpoints";
    let one = format!("{all}/e");
    let endpoints = || Some(json!({"metadata": {"name": "e"}}));
    let deprecated = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    for (method, path, body, code, warnings) in [
        ("POST", all.to_owned(), endpoints(), 201, 1),
        // Whoever is refused is told all the same.
        ("POST", all.to_owned(), endpoints(), 409, 1),
        ("POST", all.to_owned(), Some(json!({"metadata": {"name": "E"}})), 422, 1),
        ("GET", format!("{all}/none"), None, 404, 1),
        ("PUT", one.clone(), endpoints(), 200, 1),
        ("GET", one.clone(), None, 200, 1),
        ("GET", all.to_owned(), None, 200, 1),
        ("GET", format!("{all}?watch=1&timeoutSeconds=1"), None, 200, 1),
        ("DELETE", one.clone(), None, 200, 1),
        ("GET", "/api/v1/namespaces/ns/configmaps".to_owned(), None, 200, 0),
        ("GET", "/api/v1/componentstatuses".to_owned(), None, 200, 1),
    ] {
        let answer = asker.0.send(Some(&admin), true, request(method, &path, body)).await;
        assert_eq!(answer.status(), code, "{method} {path}");
        let said: Vec<_> = answer.headers().get_all("warning").iter().collect();
        assert_eq!(said.len(), warnings, "{method} {path}: {said:?}");
        assert!(!path.contains("endpoints") || said[0] == deprecated, "{said:?}");
    }
    asker.0.serving.stop().await;
}

/// An error comes in the form that was asked for, whatever form of an object that is.
#[tokio::test]
async fn errors_are_written_as_asked() {
    let asker = Asker::start().await;
    let admin = asker.0.pki.admin().unwrap();
    for (accept, content_type, begins) in [
        ("application/json", "application/json", &b"{\"apiVersion\":\"v1\",\"code\":404"[..]),
        ("application/yaml", "application/yaml", b"apiVersion: v1\ncode: 404\n"),
        ("application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf", b"k8s\0"),
        (
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            "application/json",
            b"{\"apiVersion\":\"v1\",\"code\":404",
        ),
        ("text/nothing", "application/json", b"{\"apiVersion\":\"v1\",\"code\":406"),
    ] {
        let mut asked = request("GET", "/api/v1/namespaces/ns/configmaps/none", None);
        asked.headers_mut().insert("accept", accept.parse().unwrap());
        let answer = asker.0.send(Some(&admin), true, asked).await;
        assert_eq!(answer.headers()["content-type"], content_type, "{accept}");
        assert!(answer.body().starts_with(begins), "{accept}: {:?}", answer.body());
    }
    asker.0.serving.stop().await;
}

/// What a list of built-in kinds is of, its items do not say again; watches and single objects do.
#[tokio::test]
async fn items_of_a_list_do_not_say_what_they_are() {
    let asker = Asker::start().await;
    let admin = asker.0.pki.admin().unwrap();
    let all = "/api/v1/namespaces/ns/configmaps";
    let map = json!({"metadata": {"name": "m"}, "data": {"kind": "ConfigMap"}});
    let made = asker.0.send(Some(&admin), true, request("POST", all, Some(map))).await;
    assert!(
        made.body().starts_with(b"{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"data\":{"),
        "{:?}",
        made.body()
    );
    for (accept, pretty) in
        [("application/json", ""), ("application/json", "?pretty=1"), ("application/yaml", "")]
    {
        let mut asked = request("GET", &format!("{all}{pretty}"), None);
        asked.headers_mut().insert("accept", accept.parse().unwrap());
        let list = asker.0.send(Some(&admin), true, asked).await;
        let list: Value = serde_saphyr::from_slice(list.body()).unwrap();
        assert_eq!((list["kind"].as_str(), list["apiVersion"].as_str()), (Some("ConfigMapList"), Some("v1")));
        let item = &list["items"][0];
        assert_eq!((&item["kind"], &item["apiVersion"]), (&Value::Null, &Value::Null), "{accept}{pretty}");
        assert_eq!((&item["metadata"]["name"], &item["data"]["kind"]), (&json!("m"), &json!("ConfigMap")));
    }
    asker.0.serving.stop().await;
}
