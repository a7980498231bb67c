//! A server that is traced, and a collector beside it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use http::{HeaderMap, HeaderValue};
use meta::{Fixed, Seeded};
use prost::Message as _;
use resource::User;
use tokio_util::sync::CancellationToken;

use super::{
    otlp::{Any, ExportTraceServiceRequest, WireSpan},
    *,
};
use crate::{
    testing_grpc::{self, Answering},
    testing_kinds,
    testing_server::{self, Running, request},
};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn tracing(rate: u32, endpoint: SocketAddr) -> (Tracing, Exporter) {
    let configuration =
        TracingConfiguration { endpoint: endpoint.to_string(), sampling_rate_per_million: rate };
    let clock = Arc::new(Fixed::new("2026-01-01T00:00:00Z".parse().unwrap()));
    Tracing::new(&configuration, clock, Arc::new(Seeded::new(1)))
}

#[test]
fn who_asks_and_chance_decide() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let headers = |text: Option<&'static str>| {
        let given = text.map(|text| (TRACEPARENT, HeaderValue::from_static(text)));
        HeaderMap::from_iter(given)
    };
    let unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    // Whether it is traced, as a part of the trace that was given, with a link to it.
    for (rate, group, given, expected) in [
        (0, "system:masters", None, (false, false, false)),
        (1_000_000, "system:masters", None, (true, false, false)),
        (0, "system:masters", Some(PARENT), (true, true, false)),
        (0, "system:monitoring", Some(PARENT), (true, true, false)),
        (1_000_000, "system:masters", Some(unsampled), (false, false, false)),
        (0, "developers", Some(PARENT), (false, false, false)),
        (1_000_000, "developers", Some(PARENT), (true, false, true)),
        (1_000_000, "developers", Some("nonsense"), (true, false, false)),
    ] {
        let user = User { name: "u".into(), groups: vec![group.into()], ..User::default() };
        let decided = tracing(rate, nowhere).0.decide(&user, &headers(given));
        let parent = SpanContext::parse(PARENT).unwrap();
        let seen = match decided {
            None => (false, false, false),
            Some((own, of, link)) => {
                assert!(own.sampled && own.span != parent.span);
                assert_eq!(own.trace == parent.trace, of.is_some());
                (true, of == Some(parent.span), link == Some(parent))
            }
        };
        assert_eq!(seen, expected, "{rate} {group} {given:?}");
    }
    let (some, _) = tracing(250_000, nowhere);
    let user = User::default();
    let sampled = (0..4_000).filter(|_| some.decide(&user, &HeaderMap::new()).is_some()).count();
    assert!((800..1_200).contains(&sampled), "{sampled} of 4000 at a quarter");
}

/// Takes spans as an OTLP collector does.
async fn collector(code: &'static str) -> (SocketAddr, Arc<Mutex<Vec<ExportTraceServiceRequest>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let taking = taken.clone();
    let answering: Answering = Arc::new(move |path, message| {
        assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        taking.lock().unwrap().push(ExportTraceServiceRequest::decode(message).unwrap());
        if code == "0" { Ok(Vec::new()) } else { Err(code) }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            testing_grpc::serve(stream, answering.clone());
        }
    });
    (address, taken)
}

fn text(span: &WireSpan, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Any::Text(text)) => text,
        Some(Any::Number(number)) => number.to_string(),
        None => String::new(),
    }
}

#[tokio::test]
async fn what_is_sampled_comes_to_the_collector() {
    let (address, taken) = collector("0").await;
    let (traced, exporter) = tracing(0, address);
    let stop = CancellationToken::new();
    let exporting = tokio::spawn(exporter.run(stop.clone()));
    let running: Running = testing_server::start_with(testing_kinds::registry(), |server, _, _| {
        server.with_tracing(traced.clone())
    })
    .await;
    let admin = running.pki.admin().unwrap();
    let gadget = serde_json::json!({"apiVersion": "v1", "kind": "Gadget", "metadata": {"name": "g"}});
    let mut asked = request("POST", "/api/v1/gadgets?pretty=false", Some(gadget));
    asked.headers_mut().insert(TRACEPARENT, HeaderValue::from_static(PARENT));
    asked.headers_mut().insert("audit-id", HeaderValue::from_static("a1"));
    assert_eq!(running.send(Some(&admin), true, asked).await.status(), 201);
    // Nobody decided about this one, and the rate is nothing; a stranger's wish is none.
    assert_eq!(running.send(Some(&admin), true, request("GET", "/api/v1/gadgets", None)).await.status(), 200);
    let mut stranger = request("GET", "/version", None);
    stranger.headers_mut().insert(TRACEPARENT, HeaderValue::from_static(PARENT));
    assert_eq!(running.send(None, true, stranger).await.status(), 403);
    stop.cancel();
    exporting.await.unwrap();
    let taken = taken.lock().unwrap().clone();
    assert_eq!((taken.len(), traced.lost()), (1, 0));
    let of = &taken[0].resource_spans[0];
    let resource = of.resource.as_ref().unwrap();
    assert_eq!(resource.attributes[0].key, "service.name");
    let spans = &of.scope_spans[0].spans;
    let parent = SpanContext::parse(PARENT).unwrap();
    let root = spans.iter().find(|span| span.kind == 2).unwrap();
    assert_eq!(root.name, "POST /api/v1/gadgets");
    assert_eq!((&root.trace_id[..], &root.parent_span_id[..]), (&parent.trace[..], &parent.span[..]));
    for (key, expected) in [
        ("http.request.method", "POST"),
        ("http.target", "/api/v1/gadgets?pretty=false"),
        ("http.response.status_code", "201"),
        ("audit-id", "a1"),
    ] {
        assert_eq!(text(root, key), expected, "{key}");
    }
    assert!(root.status.is_none() && root.end_time_unix_nano >= root.start_time_unix_nano);
    let commit = spans.iter().find(|span| span.name == "Commit").unwrap();
    assert_eq!((&commit.parent_span_id, &commit.trace_id), (&root.span_id, &root.trace_id));
    assert_eq!((text(commit, "resource").as_str(), spans.len()), ("gadgets", 2));
    running.serving.stop().await;
}

/// Nobody waits for a collector that is not there, or takes nothing; what it does not take is lost.
#[tokio::test]
async fn requests_do_not_wait_for_a_collector() {
    let (refusing, _) = collector("14").await;
    let nowhere = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for address in [refusing, nowhere] {
        let (traced, exporter) = tracing(1_000_000, address);
        let running = testing_server::start_with(testing_kinds::registry(), |server, _, _| {
            server.with_tracing(traced.clone())
        })
        .await;
        let admin = running.pki.admin().unwrap();
        assert_eq!(running.send(Some(&admin), true, request("GET", "/version", None)).await.status(), 200);
        let stop = CancellationToken::new();
        stop.cancel();
        exporter.run(stop).await;
        assert_eq!(traced.lost(), 0);
        // The exporter is gone: what comes now is lost, and counted.
        assert_eq!(running.send(Some(&admin), true, request("GET", "/version", None)).await.status(), 200);
        assert_eq!(traced.lost(), 1);
        running.serving.stop().await;
    }
}

#[test]
fn spans_are_named_as_upstream_names_them() {
    for (method, path, expected) in [
        ("GET", "/version", "GET"),
        ("GET", "/api/v1/pods", "GET /api/v1/pods"),
        ("GET", "/api/v1/namespaces/a/pods/b/log", "GET /api/v1/namespaces/{:namespace}/pods/{:name}/log"),
        (
            "PUT",
            "/apis/apps/v1/namespaces/a/deployments/b",
            "PUT /apis/apps/v1/namespaces/{:namespace}/deployments/{:name}",
        ),
        (
            "DELETE",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/c",
            "DELETE /apis/rbac.authorization.k8s.io/v1/clusterroles/{:name}",
        ),
    ] {
        assert_eq!(crate::http::span_name(method, path), expected);
    }
}
