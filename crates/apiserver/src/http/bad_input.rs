//! Requests that no well-behaved client sends, over real sockets: each is answered with the code, the reason and the
//! words that upstream has for it, and the server goes on serving others.

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use meta::Value;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::body::BODY_BYTES_MAX;
use crate::{
    testing_kinds,
    testing_server::{self, Running, value},
};

const WIDGETS: &str = "/apis/toys.example/v1/namespaces/default/widgets";

/// A request, and what comes of it: code, reason and a part of the message.
struct Case {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: Bytes,
    expected: (u16, &'static str, &'static str),
}

fn case(method: &'static str, path: impl Into<String>, expected: (u16, &'static str, &'static str)) -> Case {
    Case { method, path: path.into(), headers: Vec::new(), body: Bytes::new(), expected }
}

impl Case {
    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(self.method).uri(&self.path).header("host", "127.0.0.1");
        if !self.headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(self.body.clone())).unwrap()
    }
}

const BAD: &str = "BadRequest";
const INVALID: &str = "Invalid";
const TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

fn bodies() -> Vec<Case> {
    let create = |expected| case("POST", WIDGETS, expected);
    let patch = |of| case("PATCH", format!("{WIDGETS}/w"), of);
    let deep = "[".repeat(100_000);
    let unknown_format = "the body of the request was in an unknown format - accepted media types include: ";
    vec![
        create((413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"))
            .body(vec![b' '; BODY_BYTES_MAX + 1]),
        create((400, BAD, "error decoding json: ")).body("{"),
        create((400, BAD, "error decoding json: ")).body(""),
        create((400, BAD, "error decoding json: ")).body("{} {}"),
        create((400, BAD, "error decoding json: ")).body(&b"{\"kind\": \"\xff\xfe\"}"[..]),
        create((400, BAD, "error decoding json: ")).body(deep.clone()),
        create((400, BAD, "the body of the request is not an object")).body("[]"),
        create((400, BAD, "error decoding yaml: "))
            .body("a: [b\nc: }")
            .header("content-type", "application/yaml"),
        create((400, BAD, "error decoding yaml: ")).body(deep).header("content-type", "application/yaml"),
        create((400, BAD, "error decoding protobuf: "))
            .body("no magic")
            .header("content-type", "application/vnd.kubernetes.protobuf"),
        create((400, BAD, "error decoding protobuf: "))
            .body(&b"k8s\0\x0a\xff\xff\xff\xff\x0f"[..])
            .header("content-type", "application/vnd.kubernetes.protobuf"),
        create((415, "UnsupportedMediaType", TYPES)).body("<x/>").header("content-type", "application/xml"),
        create((415, "UnsupportedMediaType", unknown_format)).body("{}").header("content-type", "a;b"),
        patch((415, "UnsupportedMediaType", "application/apply-patch+yaml"))
            .body("{}")
            .header("content-type", "application/json"),
        patch((400, BAD, "error decoding json: "))
            .body("{")
            .header("content-type", "application/merge-patch+json"),
        create((400, BAD, "does not match the expected API version"))
            .body(json!({"apiVersion": "v2", "kind": "Widget", "metadata": {"name": "w"}}).to_string()),
        create((400, BAD, "does not match the expected kind"))
            .body(json!({"kind": "Gadget", "metadata": {"name": "w"}}).to_string()),
        create((
            400,
            BAD,
            "the namespace of the provided object does not match the namespace sent on the request",
        ))
        .body(json!({"metadata": {"name": "w", "namespace": "other"}}).to_string()),
        create((400, BAD, "cannot be handled as a Widget"))
            .body(json!({"metadata": {"name": "w"}, "spec": {"replicas": "many"}}).to_string()),
        create((422, INVALID, "metadata.name: Required value: name or generateName is required"))
            .body(json!({"metadata": {}}).to_string()),
        create((422, INVALID, "metadata.name: Invalid value: \"a/b\": may not contain '/'"))
            .body(json!({"metadata": {"name": "a/b"}}).to_string()),
        create((422, INVALID, "metadata.name: Invalid value: \"..\": may not be '..'"))
            .body(json!({"metadata": {"name": ".."}}).to_string()),
        create((422, INVALID, "metadata.labels: Invalid value"))
            .body(json!({"metadata": {"name": "w", "labels": {"a b": "c"}}}).to_string()),
        create((400, BAD, "resourceVersion should not be set on objects to be created"))
            .body(json!({"metadata": {"name": "w", "resourceVersion": "1"}}).to_string()),
        case("DELETE", format!("{WIDGETS}/w"), (400, BAD, "the body of a delete must be DeleteOptions"))
            .body(json!({"kind": "Widget"}).to_string()),
    ]
}

fn questions() -> Vec<Case> {
    let list = |query: &str, of| case("GET", format!("{WIDGETS}?{query}"), of);
    let acceptable = "only the following media types are accepted: application/json, application/yaml";
    vec![
        list("", (406, "NotAcceptable", acceptable)).header("accept", "text/html"),
        list("", (406, "NotAcceptable", acceptable)).header("accept", "application/json;q=0"),
        list("", (406, "NotAcceptable", acceptable))
            .header("accept", "application/json;as=Table;v=v9;g=meta.k8s.io"),
        case("GET", "/version", (406, "NotAcceptable", acceptable)).header("accept", "text/html"),
        list("resourceVersion=x", (422, INVALID, "resourceVersion: Invalid value: \"x\"")),
        list("resourceVersion=-1", (422, INVALID, "resourceVersion: Invalid value: \"-1\"")),
        list("resourceVersion=99999999999999999999", (422, INVALID, "resourceVersion: Invalid value")),
        list("continue=x", (400, BAD, "continue key is not valid")),
        list("continue=e30", (400, BAD, "continue key is not valid")),
        list("limit=x", (400, BAD, "limit")),
        list("limit=99999999999999999999", (400, BAD, "limit")),
        list("timeoutSeconds=x", (400, BAD, "timeoutSeconds")),
        list("labelSelector=a%20in", (400, BAD, "unable to parse labelSelector")),
        list("labelSelector=%00", (400, BAD, "unable to parse labelSelector")),
        list("fieldSelector=a", (400, BAD, "unable to parse fieldSelector")),
        list("fieldSelector=spec.nothing%3Dx", (400, BAD, "\"spec.nothing\" is not a known field selector")),
        list("resourceVersionMatch=Exact", (422, INVALID, "resourceVersionMatch: Forbidden")),
        list("sendInitialEvents=true", (422, INVALID, "sendInitialEvents: Forbidden")),
        list("watch=1&resourceVersion=x", (422, INVALID, "resourceVersion: Invalid value")),
        list("watch=1&sendInitialEvents=true", (422, INVALID, "resourceVersionMatch: Forbidden")),
        list("watch=1&resourceVersionMatch=Exact", (422, INVALID, "resourceVersionMatch")),
        list("watch=1&labelSelector=a%20in", (400, BAD, "unable to parse labelSelector")),
        list("watch=1", (406, "NotAcceptable", acceptable)).header("accept", "application/yaml"),
        list("includeObject=x", (400, BAD, "includeObject"))
            .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"),
        case("POST", format!("{WIDGETS}?dryRun=x"), (422, INVALID, "dryRun: Unsupported value: \"x\"")),
        case(
            "POST",
            format!("{WIDGETS}?fieldValidation=x"),
            (422, INVALID, "fieldValidation: Unsupported value"),
        ),
        case("POST", format!("{WIDGETS}?fieldManager=%01"), (422, INVALID, "fieldManager: Invalid value")),
        case("DELETE", format!("{WIDGETS}/w?gracePeriodSeconds=x"), (400, BAD, "gracePeriodSeconds")),
        case(
            "DELETE",
            format!("{WIDGETS}/w?propagationPolicy=x"),
            (422, INVALID, "propagationPolicy: Unsupported"),
        ),
    ]
}

fn paths() -> Vec<Case> {
    let not_here = (404, "NotFound", "the server could not find the requested resource");
    let not_so = (405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
    vec![
        case("GET", format!("{WIDGETS}/none"), (404, "NotFound", "widgets.toys.example \"none\" not found")),
        case(
            "GET",
            format!("{WIDGETS}/Bad_Name"),
            (404, "NotFound", "widgets.toys.example \"Bad_Name\" not found"),
        ),
        case("GET", format!("{WIDGETS}/w/madeup"), not_here),
        case("GET", "/apis/toys.example/v1/nothings", not_here),
        case("GET", "/apis/toys.example/v9/widgets", not_here),
        case("GET", "/apis/nobody.example/v1/widgets", not_here),
        case("GET", "/api/v1/namespaces/a/gadgets/g", not_here),
        case("GET", "/apis/toys.example/v1/widgets/w", not_here),
        case("GET", "/nothing", not_here),
        case("GET", "/api/v1/../../etc/passwd", not_here),
        case("GET", "/api/v1/%2e%2e/secrets", not_here),
        case("GET", "//api//v1//gadgets", not_here),
        case("GET", format!("{WIDGETS}/%ff"), not_here),
        case("POST", format!("{WIDGETS}/w"), not_so),
        case("PUT", WIDGETS, not_so),
        case("PATCH", WIDGETS, not_so),
        case("POST", "/apis/toys.example/v1/widgets", not_so),
        case("POST", "/version", not_so),
        case("DELETE", "/metrics", not_so),
        case("OPTIONS", WIDGETS, not_so),
        case("TRACE", WIDGETS, not_so),
        case("BREW", WIDGETS, not_so),
    ]
}

async fn start() -> Running {
    testing_server::start(testing_kinds::registry()).await
}

#[tokio::test]
async fn whatever_is_sent_is_answered_as_upstream_answers() {
    let running = start().await;
    let admin = running.pki.admin().unwrap();
    let mut wrong = Vec::new();
    for case in bodies().into_iter().chain(questions()).chain(paths()) {
        // A body that is not read to its end ends an HTTP/1.1 connection while the client still writes: what the
        // client sees of the answer is chance. `raw_bytes_are_answered_or_refused` has that case.
        let protocols = if case.body.len() > BODY_BYTES_MAX { &[true][..] } else { &[true, false] };
        for h2 in protocols.iter().copied() {
            let answer = running.send(Some(&admin), h2, case.request()).await;
            let (code, reason, part) = case.expected;
            let status: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
            let message = status["message"].as_str().unwrap_or_default();
            let same = answer.status() == code
                && status["kind"] == "Status"
                && status["apiVersion"] == "v1"
                && status["status"] == "Failure"
                && status["code"] == code
                && status["reason"] == reason
                && message.contains(part);
            if !same {
                let said = (answer.status().as_u16(), status["reason"].clone(), message.to_owned());
                wrong.push(format!(
                    "h2 {h2} {} {}: {said:?}, not {:?}",
                    case.method, case.path, case.expected
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    running.serving.stop().await;
}

/// What upstream passes over, we do.
#[tokio::test]
async fn what_is_not_known_is_passed_over() {
    let running = start().await;
    let admin = running.pki.admin().unwrap();
    for query in
        ["madeup=1", "limit=-1", "limit=0", "limit=", "timeoutSeconds=0", "pretty=x", "a=%zz", "&&=&"]
    {
        let of = (200, "", "");
        let answer =
            running.send(Some(&admin), true, case("GET", format!("{WIDGETS}?{query}"), of).request()).await;
        assert_eq!(answer.status(), 200, "{query}: {:?}", answer.body());
    }
    running.serving.stop().await;
}

/// Selectors as long as an address may be, and addresses that are longer.
#[tokio::test]
async fn long_addresses_are_read_up_to_a_bound() {
    let running = start().await;
    let admin = running.pki.admin().unwrap();
    let selector = |values: usize| {
        let values: Vec<String> = (0..values).map(|n| format!("v{n:06}")).collect();
        format!("{WIDGETS}?labelSelector=a%20in%20({})", values.join("%2C"))
    };
    let long = selector(4_000);
    assert!(long.len() > 40_000);
    for h2 in [true, false] {
        let answer = running.send(Some(&admin), h2, case("GET", long.clone(), (200, "", "")).request()).await;
        assert_eq!(answer.status(), 200, "h2 {h2}");
    }
    let raw = format!("GET {}?x={} HTTP/1.1\r\nhost: a\r\n\r\n", WIDGETS, "y".repeat(70_000));
    assert_eq!(codes(&raw_exchange(&running, raw.as_bytes(), false).await), ["414"]);
    running.serving.stop().await;
}

/// Sends bytes on a new connection, and reads until the server closes it. `half` closes our side first.
async fn raw_exchange(running: &Running, bytes: &[u8], half: bool) -> String {
    let admin = running.pki.admin().unwrap();
    let mut stream = running.dial(Some(&admin), "http/1.1").await;
    // A server that has refused what came so far may have closed already.
    let _ = stream.write_all(bytes).await;
    if half {
        let _ = stream.shutdown().await;
    }
    let mut said = Vec::new();
    // How the connection ends does not matter, what was said before does.
    let _ = stream.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

/// The codes of the answers in what was said.
fn codes(said: &str) -> Vec<&str> {
    said.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)).collect()
}

#[tokio::test]
async fn raw_bytes_are_answered_or_refused() {
    let running = start().await;
    let get = "GET /version HTTP/1.1\r\nhost: a\r\n";
    let many = (0..600).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let some = (0..200).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let large = format!("POST {WIDGETS} HTTP/1.1\r\nhost: a\r\ncontent-length: 4000000\r\n\r\n");
    for (what, bytes, expected) in [
        // Three in a row are answered in their order.
        (
            "pipelined",
            format!("{get}\r\nGET /nothing HTTP/1.1\r\nhost: a\r\n\r\n{get}connection: close\r\n\r\n"),
            &["200", "404", "200"][..],
        ),
        ("HTTP/1.0", "GET /version HTTP/1.0\r\n\r\n".to_owned(), &["HTTP/1.0 200"]),
        ("as many headers as somebody may need", format!("{get}{some}connection: close\r\n\r\n"), &["200"]),
        ("too many headers", format!("{get}{many}\r\n"), &["431"]),
        ("no HTTP", "\x16\x03\x01 hello\r\n\r\n".to_owned(), &["400"]),
        ("a blank in a header's name", "GET /version HTTP/1.1\r\nho st: a\r\n\r\n".to_owned(), &["400"]),
        (
            "a length that is no number",
            format!("POST {WIDGETS} HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n"),
            &["400"],
        ),
        (
            "two lengths",
            format!(
                "POST {WIDGETS} HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{{}}"
            ),
            &["400"],
        ),
        ("a body that is announced too long is not waited for", large, &["413"]),
    ] {
        let said = raw_exchange(&running, bytes.as_bytes(), false).await;
        let seen = if expected[0].starts_with("HTTP") {
            said.lines().next().and_then(|line| line.get(..12)).into_iter().collect()
        } else {
            codes(&said)
        };
        assert_eq!(seen, expected, "{what}: {}", said.chars().take(400).collect::<String>());
    }
    assert_alive(&running).await;
    running.serving.stop().await;
}

/// Whoever goes away in the middle is not waited for.
#[tokio::test]
async fn half_closed_connections_end() {
    let running = start().await;
    for bytes in [
        "",
        "GET /ver",
        "GET /version HTTP/1.1\r\nhost: a\r\n",
        "POST /apis/toys.example/v1/namespaces/default/widgets HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{",
    ] {
        // It ends, whatever was said; that the read returns is the test.
        raw_exchange(&running, bytes.as_bytes(), true).await;
    }
    assert_alive(&running).await;
    running.serving.stop().await;
}

/// Connections that never come to a request, in either protocol, are closed.
#[tokio::test]
async fn who_does_not_come_to_a_request_is_not_waited_for() {
    let short = std::time::Duration::from_millis(50);
    let running = start().await.again(|server| server.with_head_timeout(short)).await;
    for (protocol, bytes) in [
        ("http/1.1", ""),
        ("http/1.1", "GET /version HTT"),
        ("http/1.1", "GET /version HTTP/1.1\r\nhost: a\r\nx: "),
        ("h2", ""),
        ("h2", "PRI * HTTP/2.0\r\n"),
    ] {
        let mut stream = running.dial(None, protocol).await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        // Reset or closed: either is an end.
        let _ = stream.read_to_end(&mut said).await;
        assert!(!String::from_utf8_lossy(&said).contains(" 200 "), "{protocol} {bytes:?}");
    }
    assert_alive(&running).await;
    running.serving.stop().await;
}

async fn assert_alive(running: &Running) {
    let admin = running.pki.admin().unwrap();
    let answer = running.send(Some(&admin), true, case("GET", "/version", (200, "", "")).request()).await;
    assert_eq!((answer.status().as_u16(), value(&answer)["major"].as_str()), (200, Some("1")));
}
