//! A started server over loopback TLS, and the same server in process.

use http::header;
use http_body_util::BodyExt as _;
use meta::Value;
use resource::User;
use serde_json::json;
use tower::ServiceExt as _;

use crate::{
    flow::{Asks, On},
    testing_kinds,
    testing_server::{self, Running, request, value},
};

async fn start() -> Running {
    testing_server::start(testing_kinds::registry()).await
}

#[tokio::test]
async fn serves_certified_users_on_both_protocols() {
    let running = start().await;
    let admin = running.pki.admin().unwrap();
    for (h2, name) in [(false, "one"), (true, "two")] {
        let gadget = json!({"apiVersion": "v1", "kind": "Gadget", "metadata": {"name": name}});
        let made = running.send(Some(&admin), h2, request("POST", "/api/v1/gadgets", Some(gadget))).await;
        assert_eq!(made.status(), 201, "{:?}", made.body());
        assert!(made.headers().contains_key("audit-id"));
        let path = format!("/api/v1/gadgets/{name}");
        let read = running.send(Some(&admin), h2, request("GET", &path, None)).await;
        assert_eq!((read.status().as_u16(), value(&read)["metadata"]["name"].as_str()), (200, Some(name)));
    }
    let list = running.send(Some(&admin), true, request("GET", "/api/v1/gadgets", None)).await;
    assert_eq!(value(&list)["items"].as_array().unwrap().len(), 2);
    running.serving.stop().await;
}

#[tokio::test]
async fn refuses_in_statuses() {
    let running = start().await;
    let admin = running.pki.admin().unwrap();
    let nobody = running.pki.component("nobody").unwrap();
    for (login, method, path, expected, reason) in [
        (None, "GET", "/api/v1/gadgets", 403, "Forbidden"),
        (Some(&nobody), "GET", "/api/v1/gadgets", 403, "Forbidden"),
        (Some(&admin), "GET", "/api/v1/gadgets/none", 404, "NotFound"),
        (Some(&admin), "GET", "/api/v1/things", 404, "NotFound"),
        (Some(&admin), "POST", "/apis/toys.example/v1/widgets", 405, "MethodNotAllowed"),
        (Some(&admin), "GET", "/nothing", 404, "NotFound"),
    ] {
        let answer = running.send(login, true, request(method, path, None)).await;
        assert_eq!(answer.status(), expected, "{method} {path}");
        let status = value(&answer);
        assert_eq!((status["kind"].as_str(), status["reason"].as_str()), (Some("Status"), Some(reason)));
    }
    running.serving.stop().await;
}

#[tokio::test]
async fn who_finds_no_place_is_told_to_come_again() {
    let mut running = start().await;
    running.serving.stop().await;
    running.server = running.server.with_seats(1);
    let tenant = |name: &str| User { name: name.into(), ..User::default() };
    let (flood, other) = (tenant("flood"), tenant("other"));
    let asks = Asks { user: &flood, verb: "get", on: On::Path("/version") };
    let place = running.server.flow().admit(&asks, 1).await.ok().unwrap();
    let call =
        |user: &User, path: &str| running.server.service(user.clone()).oneshot(request("GET", path, None));
    let refused = call(&other, "/api/v1/gadgets").await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()[header::RETRY_AFTER]),
        (429, &"1".parse().unwrap())
    );
    assert!(refused.headers().contains_key("x-kubernetes-pf-prioritylevel-uid"));
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["reason"], "TooManyRequests");
    let admin = User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() };
    let served = call(&admin, "/api/v1/gadgets").await.unwrap();
    assert!(served.status() == 200 && served.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
    let metrics = call(&admin, "/metrics").await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    for line in [
        "apiserver_flowcontrol_current_executing_requests{flow_schema=\"catch-all\",priority_level=\"catch-all\"} 1",
        "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"catch-all\",priority_level=\"catch-all\",reason=\"concurrency-limit\"} 1",
        "apiserver_flowcontrol_current_executing_seats{flow_schema=\"catch-all\",priority_level=\"catch-all\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    drop(place);
    assert_eq!(call(&other, "/api/v1/gadgets").await.unwrap().status(), 403);
}

/// The task of a request is copied when it is spawned: at 37 KB that cost more than to answer a get.
#[tokio::test]
async fn a_request_is_small() {
    let running = start().await;
    let bytes = running.server.bytes_of_a_request();
    assert!(bytes < 8 << 10, "{bytes}");
    running.serving.stop().await;
}

#[tokio::test]
async fn watches_end_with_the_server() {
    let running = start().await;
    let admin = running.pki.admin().unwrap();
    let path = "/api/v1/gadgets?watch=true";
    let (watched, ()) = tokio::join!(running.send(Some(&admin), true, request("GET", path, None)), async {
        let gadget = json!({"apiVersion": "v1", "kind": "Gadget", "metadata": {"name": "g"}});
        let made = running.send(Some(&admin), true, request("POST", "/api/v1/gadgets", Some(gadget))).await;
        assert_eq!(made.status(), 201);
        // The watch may begin before or after the write; it shows the object in both cases.
        while !running.server_watches() {
            tokio::task::yield_now().await;
        }
        running.server.stop_streams();
    });
    let line = watched.body().split(|b| *b == b'\n').next().unwrap();
    let event: Value = serde_json::from_slice(line).unwrap();
    assert_eq!(
        (event["type"].as_str(), event["object"]["metadata"]["name"].as_str()),
        (Some("ADDED"), Some("g"))
    );
    running.serving.stop().await;
}

impl Running {
    fn server_watches(&self) -> bool {
        self.server.running_watches() > 0
    }
}

#[tokio::test]
async fn in_process_requests_pass_the_same_chain() {
    let running = start().await;
    let call = |groups: &[&str], path: &str| {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        let user = User { name: "system:test".into(), groups, ..User::default() };
        running.server.service(user).oneshot(request("GET", path, None))
    };
    let ok = call(&["system:masters"], "/api/v1/gadgets").await.unwrap();
    assert_eq!(ok.status(), 200);
    let table = {
        let mut request = request("GET", "/api/v1/gadgets", None);
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        request.headers_mut().insert(header::ACCEPT, accept.parse().unwrap());
        let user = User { name: "a".into(), groups: vec!["system:masters".into()], ..User::default() };
        running.server.service(user).oneshot(request).await.unwrap()
    };
    let table: Value =
        serde_json::from_slice(&table.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(table["kind"], "Table");
    assert_eq!(call(&[], "/api/v1/gadgets").await.unwrap().status(), 403);
    running.serving.stop().await;
}
