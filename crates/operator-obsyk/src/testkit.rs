//! A platform for tests: strict about the wire contract, stateful, and able to fail in every way that a
//! network and a server do. It checks what it gets with code of its own, not with the agent's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use meta::{Clock, Fixed, Timestamp};
use parking_lot::Mutex;
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
        EcdsaKeyPair, UnparsedPublicKey,
    },
};
use serde_json::Value;

use crate::wire::{Body, Credentials, Http, HttpError, Reply};

/// PKCS#8 of a new key.
fn pkcs8(p384: bool) -> Vec<u8> {
    let curve = if p384 { &ECDSA_P384_SHA384_FIXED_SIGNING } else { &ECDSA_P256_SHA256_FIXED_SIGNING };
    EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new()).unwrap().as_ref().to_vec()
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        (0..text.len()).step_by(64).map(|at| &text[at..(at + 64).min(text.len())]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// One P-256 key in both forms (PKCS#8, SEC1).
pub(crate) fn p256() -> (String, String) {
    let der = pkcs8(false);
    // version, algorithm, and an octet string whose content is the SEC1 form: the last 109 bytes.
    let sec1 = &der[der.len() - 109..];
    (pem("PRIVATE KEY", &der), pem("EC PRIVATE KEY", sec1))
}

/// A key on the wrong curve.
pub(crate) fn p384() -> String {
    pem("PRIVATE KEY", &pkcs8(true))
}

pub(crate) fn credentials(client_id: &str) -> Credentials {
    Credentials::parse(Some(client_id.as_bytes()), Some(p256().0.as_bytes())).unwrap()
}

/// What to do to one request instead of serving it.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Answers with this status and `Retry-After`.
    Status(u16, Option<&'static str>),
    /// Closes the connection unread.
    Disconnect,
    /// Applies the request and closes the connection: the maker of duplicates.
    Swallow,
    /// Never answers.
    Hang,
    /// Serves after a while.
    Slow(Duration),
}

pub(crate) const URL: &str = "http://platform.test";
pub(crate) const CLUSTER: &str = "cluster-uid";

/// Objects by kind and uid.
pub(crate) type Objects = BTreeMap<(String, String), Value>;

/// What the platform knows.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) clients: BTreeMap<String, Vec<u8>>,
    pub(crate) tokens: BTreeSet<String>,
    pub(crate) objects: Objects,
    pub(crate) cluster_name: String,
    /// Type, kind and uid of each event, in order.
    pub(crate) events: Vec<(String, String, String)>,
    pub(crate) requests: BTreeMap<String, u32>,
    pub(crate) heartbeats: u32,
    pub(crate) snapshots: u32,
    /// Everything that was received, for canaries.
    pub(crate) bytes: Vec<u8>,
    /// What broke the contract.
    pub(crate) violations: Vec<String>,
    ids: BTreeSet<String>,
    expires_in: i64,
}

type Faults = Box<dyn FnMut(&str) -> Option<Fault> + Send>;

/// A platform in this process.
pub(crate) struct FakePlatform {
    pub(crate) known: Mutex<Known>,
    faults: Mutex<Faults>,
    clock: Arc<Fixed>,
    url: String,
}

impl FakePlatform {
    pub(crate) fn new(clock: Arc<Fixed>, url: &str, client: &Credentials) -> Arc<Self> {
        let known = Known {
            clients: [(client.client_id.clone(), client.public_key().to_vec())].into(),
            expires_in: 3600,
            ..Known::default()
        };
        Arc::new(Self {
            known: Mutex::new(known),
            faults: Mutex::new(Box::new(|_| None)),
            clock,
            url: url.into(),
        })
    }

    /// Sets what is to fail; the function sees the path of each request.
    pub(crate) fn fail(&self, faults: impl FnMut(&str) -> Option<Fault> + Send + 'static) {
        *self.faults.lock() = Box::new(faults);
    }

    /// The platform's own clock.
    pub(crate) fn clock(&self) -> Arc<Fixed> {
        self.clock.clone()
    }

    pub(crate) fn requests(&self, path: &str) -> u32 {
        self.known.lock().requests.get(path).copied().unwrap_or(0)
    }

    pub(crate) fn expires_in(&self, seconds: i64) {
        self.known.lock().expires_in = seconds;
    }

    fn serve(&self, path: &str, headers: &http::HeaderMap, body: &Bytes) -> Reply {
        let mut known = self.known.lock();
        known.bytes.extend_from_slice(body);
        let date = Some(self.clock.now());
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if header("user-agent") != "obsyk-operator/1.0" || headers.contains_key("content-encoding") {
            known.violations.push(format!("{path}: headers {headers:?}"));
        }
        let answer = if path == "/oauth/token" {
            self.token(&mut known, header("content-type"), body)
        } else {
            let bearer = header("authorization").strip_prefix("Bearer ").unwrap_or_default();
            if !known.tokens.contains(bearer) {
                (401, "unknown token".to_owned())
            } else if header("content-type") != "application/json" {
                (415, "not json".to_owned())
            } else {
                match serde_json::from_slice::<Value>(body) {
                    Ok(document) => known.apply(path, document),
                    Err(error) => (400, error.to_string()),
                }
            }
        };
        if answer.0 == 400 {
            known.violations.push(format!("{path}: {}", answer.1));
        }
        Reply { status: answer.0, date, body: answer.1.into(), ..Reply::default() }
    }

    /// RFC 7523 as section 4.1 of the specification checks it.
    fn token(&self, known: &mut Known, content_type: &str, body: &[u8]) -> (u16, String) {
        match self.check_assertion(known, content_type, body) {
            Ok(()) => {
                let token = format!("token-{}", known.ids.len());
                known.tokens.insert(token.clone());
                let expires_in = known.expires_in;
                let answer = serde_json::json!({"access_token": token, "token_type": "Bearer", "expires_in": expires_in});
                (200, answer.to_string())
            }
            // 401 here, so that an assertion refused on purpose is no violation of the contract.
            Err(why) => (401, format!("{{\"error\":\"invalid_grant\",\"error_description\":\"{why}\"}}")),
        }
    }

    fn check_assertion(
        &self,
        known: &mut Known,
        content_type: &str,
        body: &[u8],
    ) -> Result<(), &'static str> {
        let form: BTreeMap<_, _> = form_urlencoded::parse(body).into_owned().collect();
        let right_form = content_type == "application/x-www-form-urlencoded"
            && form.len() == 2
            && form.get("grant_type").is_some_and(|g| g == "urn:ietf:params:oauth:grant-type:jwt-bearer");
        let assertion = form.get("assertion").filter(|_| right_form).ok_or("form")?;
        let (signed, signature) = assertion.rsplit_once('.').ok_or("jwt")?;
        let (header, claims) = signed.split_once('.').ok_or("jwt")?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| "base64");
        let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_| "header")?;
        let claims: Value = serde_json::from_slice(&decode(claims)?).map_err(|_| "claims")?;
        if header != serde_json::json!({"alg": "ES256", "typ": "JWT"}) {
            return Err("header");
        }
        let keys: Vec<&String> = claims.as_object().ok_or("claims")?.keys().collect();
        if keys != ["aud", "exp", "iat", "iss", "jti", "sub"]
            || claims["aud"] != serde_json::json!([self.url])
        {
            return Err("claims");
        }
        let client = claims["iss"].as_str().filter(|iss| claims["sub"] == **iss).ok_or("iss")?;
        let key = known.clients.get(client).ok_or("client")?;
        let signature = decode(signature)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| "signature")?;
        let (issued, expires) = (claims["iat"].as_i64().ok_or("iat")?, claims["exp"].as_i64().ok_or("exp")?);
        let now = self.clock.now().as_second();
        if expires <= now || expires - issued > 300 || issued > now + 60 {
            return Err("time");
        }
        let fresh = known.ids.insert(claims["jti"].as_str().ok_or("jti")?.to_owned());
        fresh.then_some(()).ok_or("replay")
    }
}

const LISTS: [(&str, &str); 20] = [
    ("namespaces", "Namespace"),
    ("pods", "Pod"),
    ("services", "Service"),
    ("nodes", "Node"),
    ("deployments", "Deployment"),
    ("statefulsets", "StatefulSet"),
    ("daemonsets", "DaemonSet"),
    ("jobs", "Job"),
    ("cronjobs", "CronJob"),
    ("ingresses", "Ingress"),
    ("network_policies", "NetworkPolicy"),
    ("configmaps", "ConfigMap"),
    ("secrets", "Secret"),
    ("pvcs", "PersistentVolumeClaim"),
    ("service_accounts", "ServiceAccount"),
    ("roles", "Role"),
    ("cluster_roles", "ClusterRole"),
    ("role_bindings", "RoleBinding"),
    ("cluster_role_bindings", "ClusterRoleBinding"),
    ("events", "Event"),
];

impl Known {
    fn apply(&mut self, path: &str, mut document: Value) -> (u16, String) {
        let Some(fields) = document.as_object_mut() else { return (400, "no object".into()) };
        if fields.get("cluster_uid").and_then(Value::as_str) != Some(CLUSTER) {
            return (400, "cluster_uid".into());
        }
        fields.remove("cluster_uid");
        match path {
            "/api/v1/agent/snapshot" => self.snapshot(fields),
            "/api/v1/agent/events" => self.event(fields),
            "/api/v1/agent/heartbeat" => {
                fields.remove("agent_version");
                if !fields.is_empty() {
                    return (400, "heartbeat has other fields".into());
                }
                self.heartbeats += 1;
                (200, String::new())
            }
            _ => (404, "no such path".into()),
        }
    }

    /// Replaces all that is known, as the specification's default policy.
    fn snapshot(&mut self, fields: &mut serde_json::Map<String, Value>) -> (u16, String) {
        fields.remove("agent_version");
        let Some(Value::String(name)) = fields.remove("cluster_name") else {
            return (400, "cluster_name".into());
        };
        let mut objects = Objects::new();
        for (list, kind) in LISTS {
            let Some(Value::Array(items)) = fields.remove(list) else {
                return (400, format!("no list {list}"));
            };
            for item in items {
                let Some(uid) = item["uid"].as_str() else { return (400, format!("{kind} without uid")) };
                if objects.insert((kind.into(), uid.into()), item.clone()).is_some() {
                    return (400, format!("{kind} {uid} twice"));
                }
            }
        }
        if !fields.is_empty() {
            return (400, format!("snapshot has other fields: {:?}", fields.keys()));
        }
        for (key, new) in &objects {
            self.never_back(key, new);
        }
        self.objects = objects;
        self.cluster_name = name;
        self.snapshots += 1;
        (200, String::new())
    }

    /// An object's label `v`, where a test numbers its versions, never goes down.
    fn never_back(&mut self, key: &(String, String), new: &Value) {
        let version = |object: &Value| object["labels"]["v"].as_str().and_then(|v| v.parse::<u64>().ok());
        if let (Some(old), Some(new)) = (self.objects.get(key).and_then(version), version(new))
            && new < old
        {
            self.violations.push(format!("{key:?} went back from {old} to {new}"));
        }
    }

    fn event(&mut self, fields: &mut serde_json::Map<String, Value>) -> (u16, String) {
        let mut text = |name: &str| match fields.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let (Some(kind), Some(of), Some(uid), Some(name)) =
            (text("type"), text("kind"), text("uid"), text("name"))
        else {
            return (400, "event lacks a field".into());
        };
        let namespace = text("namespace");
        let cluster_scoped = ["Namespace", "Node", "ClusterRole", "ClusterRoleBinding"].contains(&&*of);
        let object = fields.remove("object");
        if !fields.is_empty()
            || namespace.is_none() != cluster_scoped
            || !LISTS.iter().any(|(_, kind)| *kind == of)
        {
            return (400, format!("event of {of} {name} is not as it should be"));
        }
        self.events.push((kind.clone(), of.clone(), uid.clone()));
        let key = (of, uid);
        match (&*kind, object) {
            ("added" | "modified", Some(object)) => {
                self.never_back(&key, &object);
                self.objects.insert(key, object);
            }
            ("deleted", None) => drop(self.objects.remove(&key)),
            _ => return (400, format!("event {kind} with or without an object")),
        }
        (200, String::new())
    }
}

impl Http for FakePlatform {
    fn send(&self, request: http::Request<Body>, _: usize) -> crate::wire::Replying<'_> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let path = parts.uri.path().to_owned();
            *self.known.lock().requests.entry(path.clone()).or_default() += 1;
            let fault = (self.faults.lock())(&path);
            let broken = || HttpError::new("connection closed");
            match &fault {
                Some(Fault::Disconnect) => return Err(broken()),
                Some(Fault::Hang) => std::future::pending::<()>().await,
                Some(Fault::Slow(wait)) => tokio::time::sleep(*wait).await,
                Some(Fault::Status(..) | Fault::Swallow) | None => {}
            }
            let body = body.collect().await.map_err(|error| HttpError::new(error.to_string()))?.to_bytes();
            if let Some(Fault::Status(status, after)) = fault {
                let retry_after = after.map(str::to_owned);
                return Ok(Reply { status, retry_after, date: Some(self.clock.now()), ..Reply::default() });
            }
            let reply = self.serve(&path, &parts.headers, &body);
            if matches!(fault, Some(Fault::Swallow)) { Err(broken()) } else { Ok(reply) }
        })
    }
}

/// A clock for the platform and the agent that follows tokio's.
pub(crate) fn clock() -> Arc<Fixed> {
    Arc::new(Fixed::new(Timestamp::from_second(1_767_225_600).unwrap()))
}
