//! The receiver as an agent meets it: requests in, answers out, over a store in memory and on disk.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, header};
use meta::{Clock, Fixed, Seeded, Timestamp};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};
use store::{Memory, Store};

use crate::{
    Client, Clients, Cut, Fault, Options, Receiver, digest,
    kinds::KINDS,
    public_key_pem,
    receiver::{EVENTS, HEARTBEAT, SNAPSHOT, STATE, STREAM, TOKEN},
};

const URL: &str = "https://platform.test";
const NOW: i64 = 1_767_225_600;

fn pair() -> (EcdsaKeyPair, Vec<u8>) {
    let random = SystemRandom::new();
    let der =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap().as_ref().to_vec();
    (EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random).unwrap(), der)
}

struct Rig {
    receiver: Arc<Receiver>,
    clock: Arc<Fixed>,
    pair: EcdsaKeyPair,
    der: Vec<u8>,
    clients: Clients,
}

impl Rig {
    async fn over(store: Arc<dyn Store>) -> Self {
        let clock = Arc::new(Fixed::new(Timestamp::from_second(NOW).unwrap()));
        let receiver =
            Receiver::open(store, Options::new(URL, clock.clone(), Arc::new(Seeded::new(1)))).await.unwrap();
        let (pair, der) = pair();
        let mut clients = Clients::default();
        let public_keys = vec![public_key_pem(pair.public_key().as_ref())];
        for id in ["one", "two"] {
            let client = Client { client_id: id.into(), public_keys: public_keys.clone(), revoked: false };
            clients.register(client).unwrap();
        }
        receiver.set_clients(clients.clone());
        Self { receiver, clock, pair, der, clients }
    }

    async fn new() -> Self {
        Self::over(Arc::new(Memory::new())).await
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    async fn send(&self, request: Request<Bytes>) -> Response<Bytes> {
        self.receiver.agent(request).await.unwrap().response
    }

    async fn exchange(&self, assertion: &str) -> (u16, Value) {
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
            .append_pair("assertion", assertion)
            .finish();
        let request = Request::post(TOKEN)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.into())
            .unwrap();
        read(self.send(request).await)
    }

    async fn token(&self, client: &str) -> String {
        let (status, body) = self.exchange(&self.sign(&head(), &claims(client))).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    async fn post(&self, token: &str, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
        let request = Request::post(path)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(
                header::CONTENT_TYPE,
                if path == STREAM { "application/x-ndjson" } else { "application/json" },
            )
            .body(body.into())
            .unwrap();
        read(self.send(request).await)
    }

    fn look(&self, path: &str) -> Value {
        let request = Request::get(path).header(header::HOST, "localhost:1").body(Bytes::new()).unwrap();
        read(self.receiver.look(&request)).1
    }

    fn pods(&self) -> Vec<String> {
        let found = self.look("/api/clusters/c/objects?kind=Pod");
        let names = found["objects"].as_array().into_iter().flatten();
        names.map(|object| object["name"].as_str().unwrap().to_owned()).collect()
    }
}

fn read(response: Response<Bytes>) -> (u16, Value) {
    let body = serde_json::from_slice(response.body()).unwrap_or(Value::Null);
    (response.status().as_u16(), body)
}

fn head() -> Value {
    json!({"alg": "ES256", "typ": "JWT"})
}

fn claims(client: &str) -> Value {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    json!({"iss": client, "sub": client, "aud": [URL], "iat": NOW, "exp": NOW + 300, "jti": format!("id-{id}")})
}

fn pod(uid: &str) -> Value {
    json!({"uid": uid, "name": uid, "namespace": "ns", "k8s_created_at": "2026-01-01T00:00:00Z"})
}

fn snapshot(pods: &[&str]) -> String {
    let mut body = json!({"cluster_uid": "c", "cluster_name": "home", "agent_version": "1"});
    for kind in &KINDS {
        body[kind.list] = json!([]);
    }
    body["pods"] = pods.iter().map(|uid| pod(uid)).collect();
    body.to_string()
}

fn event(kind: &str, uid: &str) -> Value {
    let mut event =
        json!({"cluster_uid": "c", "type": kind, "kind": "Pod", "uid": uid, "name": uid, "namespace": "ns"});
    if kind != "deleted" {
        event["object"] = pod(uid);
    }
    event
}

#[tokio::test]
async fn assertions_are_checked_in_full() {
    let rig = Rig::new().await;
    assert_eq!(rig.exchange(&rig.sign(&head(), &claims("one"))).await.0, 200);
    let check = async |assertion: String, error: &str| {
        let (status, body) = rig.exchange(&assertion).await;
        assert_eq!((status, body["error"].as_str().unwrap_or_default()), (400, error), "{body}");
    };
    let with = |field: &str, value: Value| {
        let mut claims = claims("one");
        claims[field] = value;
        rig.sign(&head(), &claims)
    };
    for (field, value) in [
        ("sub", json!("two")),
        ("aud", json!("https://elsewhere.test")),
        ("aud", json!([format!("{URL}/")])),
        ("exp", json!(NOW)),
        ("exp", json!(NOW + 301)),
        ("iat", json!(NOW + 61)),
        ("nbf", json!(NOW + 100)),
        ("jti", json!("")),
        ("jti", json!(1)),
        ("iat", json!("now")),
    ] {
        check(with(field, value), "invalid_grant").await;
    }
    check(with("aud", json!(["x", "y"])), "invalid_grant").await;
    assert_eq!(rig.exchange(&with("aud", json!(URL))).await.0, 200, "a text will do");
    let once = rig.sign(&head(), &claims("one"));
    assert_eq!(rig.exchange(&once).await.0, 200);
    check(once, "invalid_grant").await;
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "HS256"}),
        json!({"alg": "RS256"}),
        json!({"alg": "ES256", "jwk": {"kty": "EC"}}),
        json!({"alg": "ES256", "jku": "https://elsewhere.test"}),
        json!({"alg": "ES256", "x5u": "https://elsewhere.test"}),
        json!({"alg": "ES256", "crit": ["exp"]}),
    ] {
        check(rig.sign(&header, &claims("one")), "invalid_grant").await;
    }
    check(rig.sign(&head(), &claims("three")), "invalid_client").await;
    let other = Rig::new().await;
    check(other.sign(&head(), &claims("one")), "invalid_client").await;
    for bad in ["", "a.b", "a.b.c.d", "a.b.c"] {
        check(bad.to_owned(), "invalid_grant").await;
    }
    // The DER form of a good signature.
    let good = rig.sign(&head(), &claims("one"));
    let (signed, _) = good.rsplit_once('.').unwrap();
    let random = SystemRandom::new();
    let der = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rig.der, &random).unwrap();
    let signature = der.sign(&random, signed.as_bytes()).unwrap();
    check(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)), "invalid_grant").await;
}

#[tokio::test]
async fn an_assertion_is_not_good_again_after_a_restart() {
    let store = Arc::new(Memory::new());
    let rig = Rig::over(store.clone()).await;
    let once = rig.sign(&head(), &claims("one"));
    assert_eq!(rig.exchange(&once).await.0, 200);
    let again = Rig { pair: rig.pair, clients: rig.clients.clone(), ..Rig::over(store).await };
    again.receiver.set_clients(rig.clients);
    assert_eq!(again.exchange(&once).await.1["error_description"], "the assertion was used before");
}

#[tokio::test]
async fn tokens_end_with_time_client_and_cluster() {
    let mut rig = Rig::new().await;
    let token = rig.token("one").await;
    let beat = |cluster: &str| json!({"cluster_uid": cluster, "agent_version": "1"}).to_string();
    assert_eq!(rig.post(&token, HEARTBEAT, beat("c")).await.0, 200);
    assert_eq!(rig.post(&token, HEARTBEAT, beat("d")).await.0, 403, "a token is for one cluster");
    let two = rig.token("two").await;
    assert_eq!(rig.post(&two, HEARTBEAT, beat("c")).await.0, 403, "a cluster is one client's");
    assert_eq!(rig.post("nonsense", HEARTBEAT, beat("c")).await.0, 401);
    rig.clients.revoke("one").unwrap();
    rig.receiver.set_clients(rig.clients.clone());
    assert_eq!(rig.post(&token, HEARTBEAT, beat("c")).await.0, 401);
    rig.clock.set(Timestamp::from_second(NOW + 3600).unwrap());
    assert_eq!(rig.post(&two, HEARTBEAT, beat("e")).await.0, 401, "it has expired");
}

#[tokio::test]
async fn the_original_contract_to_the_letter() {
    let rig = Rig::new().await;
    let token = rig.token("one").await;
    assert_eq!(rig.post(&token, SNAPSHOT, snapshot(&["a", "b"])).await.0, 200);
    assert_eq!(rig.pods(), ["a", "b"]);
    assert_eq!(rig.post(&token, EVENTS, event("added", "x").to_string()).await.0, 200);
    assert_eq!(rig.post(&token, EVENTS, event("deleted", "a").to_string()).await.0, 200);
    assert_eq!(rig.pods(), ["b", "x"]);
    assert_eq!(rig.post(&token, SNAPSHOT, snapshot(&["b"])).await.0, 200);
    assert_eq!(rig.pods(), ["b"], "a snapshot replaces");
    let check = async |path: &str, body: String, part: &str| {
        let (status, answer) = rig.post(&token, path, body).await;
        let why = answer["error_description"].as_str().unwrap_or_default().to_owned();
        assert!(status == 400 && why.contains(part), "{status} {why}, not {part}");
    };
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut event = event("added", "y");
        change(&mut event);
        event.to_string()
    };
    check(EVENTS, "[]".into(), "no JSON object").await;
    check(EVENTS, changed(&|e| e["seq"] = json!(1)), "seq is unknown").await;
    check(EVENTS, changed(&|e| e["type"] = json!("ADDED")), "ADDED").await;
    check(EVENTS, changed(&|e| e["kind"] = json!("ReplicaSet")), "ReplicaSet").await;
    check(EVENTS, changed(&|e| e["object"]["uid"] = json!("z")), "not the one").await;
    check(EVENTS, changed(&|e| e["object"]["spec"] = json!({})), "spec is unknown").await;
    check(EVENTS, changed(&|e| e["object"]["phase"] = json!(null)), "phase").await;
    check(EVENTS, changed(&|e| e["object"]["containers"] = json!([{"name": "c"}])), "missing").await;
    check(EVENTS, changed(&|e| drop(e.as_object_mut().unwrap().remove("object"))), "without an object").await;
    check(EVENTS, changed(&|e| e["type"] = json!("deleted")), "with or without").await;
    check(EVENTS, changed(&|e| drop(e.as_object_mut().unwrap().remove("namespace"))), "namespace").await;
    check(EVENTS, changed(&|e| e["uid"] = json!("../x")), "uid").await;
    check(SNAPSHOT, snapshot(&["a", "a"]), "twice").await;
    check(SNAPSHOT, snapshot(&[]).replace("\"events\":[],", ""), "events is missing").await;
    check(HEARTBEAT, json!({"cluster_uid": "c", "queue": 1}).to_string(), "queue is unknown").await;
    assert_eq!(rig.pods(), ["b"], "what is refused changes nothing");
    let packed = Request::post(EVENTS)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_ENCODING, "gzip")
        .body(Bytes::new())
        .unwrap();
    assert_eq!(rig.send(packed).await.status(), 415);
    let got = Request::get(EVENTS).body(Bytes::new()).unwrap();
    assert_eq!(rig.send(got).await.status(), 405);
}

fn batch(epoch: u64, first: u64, records: &[Value]) -> String {
    let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
    let last = first + u64::try_from(records.len()).unwrap() - 1;
    let head = json!({"cluster_uid": "c", "epoch": epoch, "first_seq": first, "last_seq": last,
        "sha256": digest::sha256(lines.as_bytes())});
    format!("{head}\n{lines}")
}

fn upsert(seq: u64, uid: &str) -> Value {
    json!({"op": "upsert", "seq": seq, "kind": "Pod", "uid": uid, "name": uid, "namespace": "ns", "object": pod(uid)})
}

#[tokio::test]
async fn batches_are_applied_whole_and_once() {
    let rig = Rig::new().await;
    let token = rig.token("one").await;
    let open = json!({"cluster_uid": "c", "cluster_name": "home", "fence": 3}).to_string();
    assert_eq!(rig.post(&token, STATE, open.clone()).await.1["epoch"], 1);
    let first = batch(1, 1, &[upsert(1, "a"), upsert(2, "b")]);
    assert_eq!(rig.post(&token, STREAM, first.clone()).await.1["acked_seq"], 2);
    assert_eq!(rig.post(&token, STREAM, first).await.1["acked_seq"], 2, "the same again is acknowledged");
    let other = batch(1, 1, &[upsert(1, "a"), upsert(2, "c")]);
    assert_eq!(rig.post(&token, STREAM, other).await.1["error"], "conflict");
    let gap = batch(1, 4, &[upsert(4, "d")]);
    let (status, body) = rig.post(&token, STREAM, gap).await;
    assert_eq!((status, &body["expected_seq"]), (409, &json!(3)));
    let mut bad = upsert(4, "e");
    bad["object"]["spec"] = json!({});
    let (status, body) = rig.post(&token, STREAM, batch(1, 3, &[upsert(3, "d"), bad])).await;
    assert_eq!((status, &body["seq"]), (422, &json!(4)), "it says which");
    assert_eq!(rig.pods(), ["a", "b"], "none of it was applied");
    let tampered = batch(1, 3, &[upsert(3, "d")]).replace("\"d\"", "\"f\"");
    assert_eq!(rig.post(&token, STREAM, tampered).await.0, 400);
    let delete = json!({"op": "delete", "seq": 3, "kind": "Pod", "uid": "a", "name": "a", "namespace": "ns"});
    assert_eq!(rig.post(&token, STREAM, batch(1, 3, &[delete])).await.1["acked_seq"], 3);
    assert_eq!(rig.pods(), ["b"]);
    // Another session ends this one; a deposed leader opens none.
    assert_eq!(rig.post(&token, STATE, open).await.1["epoch"], 2);
    let (status, body) = rig.post(&token, STREAM, batch(1, 4, &[upsert(4, "z")])).await;
    assert_eq!((status, &body["error"]), (409, &json!("stale_epoch")));
    let late = json!({"cluster_uid": "c", "cluster_name": "home", "fence": 2}).to_string();
    assert_eq!(rig.post(&token, STATE, late).await.1["error"], "fenced");
}

#[tokio::test]
async fn a_sweep_removes_what_was_not_said_and_a_check_finds_drift() {
    let rig = Rig::new().await;
    let token = rig.token("one").await;
    assert_eq!(rig.post(&token, SNAPSHOT, snapshot(&["a", "b"])).await.0, 200);
    let open = json!({"cluster_uid": "c", "cluster_name": "home"}).to_string();
    let state = rig.post(&token, STATE, open).await.1;
    let buckets: Vec<Value> =
        state["kinds"]["Pod"].as_array().unwrap().iter().map(|bucket| bucket[0].clone()).collect();
    let begin = json!({"op": "sync_begin", "seq": 1, "kind": "Pod", "buckets": buckets});
    let end = json!({"op": "sync_end", "seq": 3, "kind": "Pod"});
    assert_eq!(rig.post(&token, STREAM, batch(1, 1, &[begin, upsert(2, "b"), end])).await.0, 200);
    assert_eq!(rig.pods(), ["b"]);
    let digests = rig.look("/api/clusters/c/digests");
    let right = json!([digests["Pod"]["count"], digests["Pod"]["digest"]]);
    let check = |seq: u64, tally: &Value| {
        batch(1, seq, &[json!({"op": "check", "seq": seq, "tallies": {"Pod": tally}})])
    };
    assert_eq!(rig.post(&token, STREAM, check(4, &right)).await.1["action"], "continue");
    let drift = rig.post(&token, STREAM, check(5, &json!([7, digests["Pod"]["digest"]]))).await.1;
    assert_eq!((&drift["action"], &drift["kinds"]), (&json!("resync_kinds"), &json!(["Pod"])));
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_the_process_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Arc::new(store_embedded::EmbeddedStore::open(directory.path()).unwrap());
    let rig = Rig::over(open()).await;
    let token = rig.token("one").await;
    assert_eq!(rig.post(&token, SNAPSHOT, snapshot(&["a", "b"])).await.0, 200);
    assert_eq!(rig.post(&token, EVENTS, event("deleted", "a").to_string()).await.0, 200);
    let before = rig.look("/api/clusters/c/digests");
    drop(rig);
    let again = Rig::over(open()).await;
    assert_eq!(again.pods(), ["b"]);
    assert_eq!(again.look("/api/clusters/c/digests"), before);
    assert_eq!(again.look("/api/clusters")[0]["name"], "home");
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_any_more_is_applied_in_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(store_embedded::EmbeddedStore::open(directory.path()).unwrap());
    let rig = Rig::over(store.clone()).await;
    let token = rig.token("one").await;
    for polls in 0..12 {
        let uid = format!("pod-{polls}");
        let request = Request::post(EVENTS)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(event("added", &uid).to_string()))
            .unwrap();
        {
            let mut answering = std::pin::pin!(rig.receiver.agent(request));
            for _ in 0..polls {
                if futures::poll!(answering.as_mut()).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // Another request comes after all that was begun, and after its commit.
        assert_eq!(rig.post(&token, EVENTS, event("added", "other").to_string()).await.0, 200);
        let stored = Rig::over(store.clone()).await;
        assert_eq!(stored.pods(), rig.pods(), "after {polls} polls");
    }
    rig.receiver.close().await;
    let (status, _) = rig.post(&token, EVENTS, event("added", "late").to_string()).await;
    assert_eq!(status, 503);
}

#[tokio::test(start_paused = true)]
async fn faults_do_what_they_say() {
    let rig = Rig::new().await;
    let token = rig.token("one").await;
    let beat = || {
        Request::post(HEARTBEAT)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(json!({"cluster_uid": "c"}).to_string()))
            .unwrap()
    };
    let fault = |fault: Fault| rig.receiver.faults().set(move |_| Some(fault.clone()));
    fault(Fault::Disconnect);
    assert_eq!(rig.receiver.agent(beat()).await.unwrap_err(), Cut);
    assert_eq!(rig.look("/api/clusters"), json!([]), "it was not read");
    fault(Fault::Swallow);
    assert_eq!(rig.receiver.agent(beat()).await.unwrap_err(), Cut);
    assert_eq!(rig.look("/api/clusters")[0]["uid"], "c", "it was applied");
    fault(Fault::Status(429, Some("7".into())));
    let response = rig.send(beat()).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"7".parse().unwrap())
    );
    fault(Fault::Slow(Duration::from_secs(5)));
    let began = tokio::time::Instant::now();
    assert_eq!(rig.send(beat()).await.status(), 200);
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    fault(Fault::ForgetTokens);
    assert_eq!(rig.send(beat()).await.status(), 401);
    fault(Fault::Hang);
    assert!(tokio::time::timeout(Duration::from_secs(3600), rig.receiver.agent(beat())).await.is_err());
}

#[tokio::test]
async fn those_who_look_on_get_data_and_no_more() {
    let rig = Rig::new().await;
    let token = rig.token("one").await;
    let mut evil = event("added", "evil");
    evil["object"]["labels"] = json!({"x": "<script>alert(1)</script>"});
    assert_eq!(rig.post(&token, EVENTS, evil.to_string()).await.0, 200);
    let ask = |method: &str, host: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).header(header::HOST, host);
        rig.receiver.look(&request.body(Bytes::new()).unwrap())
    };
    let page = ask("GET", "127.0.0.1:8444", "/");
    assert_eq!(page.status(), 200);
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for file in ["/", "/page.js", "/page.css"] {
        let text = String::from_utf8(ask("GET", "localhost", file).body().to_vec()).unwrap();
        assert!(!text.contains("http://") && !text.contains("https://"), "{file} loads from elsewhere");
        assert!(!text.contains("innerHTML") && !text.contains("insertAdjacent"), "{file} makes markup");
    }
    assert_eq!(ask("GET", "evil.test", "/api/clusters").status(), 421);
    assert_eq!(ask("POST", "localhost", "/api/clusters").status(), 405);
    assert_eq!(ask("GET", "localhost", "/api/clusters/nowhere").status(), 404);
    assert_eq!(ask("GET", "localhost", "/../etc/passwd").status(), 404);
    let answer = ask("GET", "localhost", "/api/clusters/c/objects?q=ALERT(1)");
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/json");
    let found: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!((&found["found"], &found["objects"][0]["name"]), (&json!(1), &json!("evil")));
    assert_eq!(rig.look("/api/clusters/c/objects?q=nothing")["found"], 0);
    let changes = rig.look("/api/changes?after=0&cluster=c");
    assert_eq!((&changes["last"], &changes["changes"][0]["type"]), (&json!(1), &json!("added")));
    assert!(
        String::from_utf8_lossy(ask("GET", "localhost", "/metrics").body())
            .contains("obsyk_platform_objects")
    );
    assert!(rig.clock.now().as_second() == NOW);
}

#[test]
fn clients_are_read_written_and_refused() {
    let (pair, _) = pair();
    let pem = public_key_pem(pair.public_key().as_ref());
    let client = |id: &str, keys: &[&str]| Client {
        client_id: id.into(),
        public_keys: keys.iter().map(ToString::to_string).collect(),
        revoked: false,
    };
    let mut clients = Clients::default();
    clients.register(client("a", &[&pem])).unwrap();
    let read = Clients::from_json(clients.to_json().as_bytes()).unwrap();
    assert_eq!(read.get("a"), clients.get("a"));
    let check = |client: Client, part: &str| {
        let error = Clients::default().register(client).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    check(client("", &[&pem]), "client id");
    check(client("a b", &[&pem]), "client id");
    check(client("a", &[]), "one key, or two");
    check(client("a", &[&pem, &pem, &pem]), "one key, or two");
    check(client("a", &["nonsense"]), "openssl");
    // An RSA key, in short.
    let rsa = "-----BEGIN PUBLIC KEY-----\nMAsGCSqGSIb3DQEBAQ==\n-----END PUBLIC KEY-----\n";
    check(client("a", &[rsa]), "openssl");
    assert!(clients.revoke("b").is_err());
}
