//! The original's way of sending, for figures beside ours: one change a request, the next one when that is answered.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Api, Client};
use operator_obsyk::{Http as _, Https, Kind, Projected, REPLY_BYTES_MAX, full};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};

/// What it calls itself; so is its Secret called.
pub(crate) const CLIENT: &str = "original";
/// How long it sends for a figure.
const SENDS: Duration = Duration::from_secs(3);

/// With a token, and a change of a pod.
pub(crate) struct Original {
    https: Https,
    url: String,
    authorization: String,
    body: Bytes,
}

impl Original {
    /// By the Secret of its name, to a platform that knows it.
    pub(crate) async fn new(client: &Client, platform: &str) -> Self {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), "default");
        let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
        let data = secrets.get(CLIENT).await.unwrap().data.unwrap();
        let https = Https::new(Some(&data["ca.crt"].0)).unwrap();
        let form = token_request(&data["private_key"].0, platform);
        let request = http::Request::post(format!("{platform}/oauth/token"))
            .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let reply = https.send(request.body(full(form.into())).unwrap(), REPLY_BYTES_MAX).await.unwrap();
        let granted: Value = serde_json::from_slice(&reply.body).unwrap();
        let token = granted["access_token"].as_str().unwrap_or_else(|| panic!("no token: {granted}"));
        let pod = pods.get("pod-00000").await.unwrap();
        let object = Projected::decode(Kind::Pod, &serde_json::to_vec(&pod).unwrap()).unwrap();
        let body = json!({
            "cluster_uid": CLIENT, "type": "modified", "kind": "Pod", "uid": &*object.id.uid,
            "name": &*object.name, "namespace": &*object.namespace,
            "object": serde_json::from_slice::<Value>(&object.body).unwrap(),
        });
        let (authorization, body) = (format!("Bearer {token}"), body.to_string().into());
        Self { https, url: format!("{platform}/api/v1/agent/events"), authorization, body }
    }

    /// How many changes a second it sends, its own limit aside.
    pub(crate) async fn rate(&self) -> f64 {
        let (began, mut sent) = (Instant::now(), 0_u32);
        while began.elapsed() < SENDS {
            let request = http::Request::post(&self.url)
                .header(http::header::CONTENT_TYPE, "application/json")
                .header(http::header::AUTHORIZATION, &self.authorization);
            let request = request.body(full(self.body.clone())).unwrap();
            let reply = self.https.send(request, REPLY_BYTES_MAX).await.unwrap();
            assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
            sent += 1;
        }
        f64::from(sent) / began.elapsed().as_secs_f64()
    }
}

/// RFC 7523.
fn token_request(key: &[u8], url: &str) -> String {
    let key = PrivatePkcs8KeyDer::from_pem_slice(key).unwrap();
    let random = SystemRandom::new();
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der(), &random).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let part = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let claims = json!({"iss": CLIENT, "sub": CLIENT, "aud": [url], "iat": now, "exp": now + 300,
        "jti": now.to_string()});
    let signed = format!("{}.{}", part(json!({"alg": "ES256", "typ": "JWT"})), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(&random, signed.as_bytes()).unwrap());
    format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={signed}.{signature}")
}
