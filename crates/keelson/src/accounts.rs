//! Clients that act as service accounts, for controllers with credentials of their own (upstream
//! `controller-manager/pkg/clientbuilder`).
//!
//! Guarantees: an account is made where it is missing; its token is asked for when first needed (TokenRequest), kept
//! in memory only, renewed when a fifth of its time is left, and given up when the API server refuses it. While a
//! renewal fails, the old token serves until it is over. A client's requests carry no other credentials.

use std::{collections::HashMap, sync::Arc};

use controllers::accounts::NAMESPACE;
use http::{HeaderValue, Request, Response, StatusCode, header};
use jiff::SignedDuration;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api, Client,
    api::PostParams,
    client::{AuthError, Body},
    config::AuthInfo,
};
use meta::{Clock, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;

use crate::{error::Failure, parts};

/// What is asked for; the server may give less.
const LIFETIME_SECONDS: i64 = 3600;
/// A token that seems to be over sooner than this comes from a server whose clock is another.
const LIFETIME_MIN: SignedDuration = SignedDuration::from_mins(10);
/// The share of a token's time after which another is asked for, in hundredths.
const RENEW_AFTER_PERCENT: i32 = 80;

/// See the module.
pub(crate) struct Accounts {
    /// Asks for tokens.
    manager: Client,
    /// Sends requests as they are, without credentials; shared, so that accounts share connections.
    bare: Client,
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<String, Arc<Account>>>,
}

impl Accounts {
    /// Accounts at the cluster of a kubeconfig, whose user asks for their tokens.
    pub(crate) async fn at(
        kubeconfig: &std::path::Path,
        manager: Client,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        let mut config = parts::config(kubeconfig).await?;
        config.auth_info = AuthInfo::default();
        let bare = Client::try_from(config).map_err(|error| Failure::of("connect to the cluster", error))?;
        Ok(Self::new(manager, bare, clock))
    }

    fn new(manager: Client, bare: Client, clock: Arc<dyn Clock>) -> Self {
        Self { manager, bare, clock, known: Mutex::default() }
    }
}

impl controllers::Accounts for Accounts {
    fn client(&self, name: &str) -> Client {
        let make = || {
            let account = Account {
                name: name.to_owned(),
                manager: self.manager.clone(),
                bare: self.bare.clone(),
                clock: self.clock.clone(),
                token: Turn::default(),
            };
            Arc::new(account)
        };
        let account = self.known.lock().entry(name.to_owned()).or_insert_with(make).clone();
        Client::new(tower::service_fn(move |request| send(account.clone(), request)), "default")
    }
}

struct Account {
    name: String,
    manager: Client,
    bare: Client,
    clock: Arc<dyn Clock>,
    /// Held while a token is asked for: who else needs it waits for the same.
    token: Turn<Option<Token>>,
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    renew: Timestamp,
    over: Timestamp,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[error("cannot get a token of service account {NAMESPACE}/{account}")]
struct NoToken {
    account: String,
    source: Box<kube::Error>,
}

async fn send(account: Arc<Account>, mut request: Request<Body>) -> Result<Response<Body>, kube::Error> {
    let token = account.token().await.map_err(|source| {
        kube::Error::Service(Box::new(NoToken { account: account.name.clone(), source: Box::new(source) }))
    })?;
    request.headers_mut().insert(header::AUTHORIZATION, token.header.clone());
    let response = account.bare.send(request).await?;
    if response.status() == StatusCode::UNAUTHORIZED {
        account.refused(&token).await;
    }
    Ok(response)
}

impl Account {
    async fn token(&self) -> Result<Token, kube::Error> {
        let mut kept = self.token.lock().await;
        let now = self.clock.now();
        if let Some(token) = kept.as_ref().filter(|token| now < token.renew) {
            return Ok(token.clone());
        }
        match self.ask().await {
            Ok(token) => Ok(kept.insert(token).clone()),
            Err(error) => match kept.as_ref().filter(|token| now < token.over) {
                Some(token) => {
                    tracing::warn!(
                        account = self.name,
                        error = reconcile::text(&error),
                        "cannot renew a token, the old one serves"
                    );
                    Ok(token.clone())
                }
                None => Err(error),
            },
        }
    }

    /// The server does not take it: its account may have been made anew.
    async fn refused(&self, token: &Token) {
        let mut kept = self.token.lock().await;
        if kept.as_ref().is_some_and(|kept| kept.header == token.header) {
            *kept = None;
        }
    }

    /// A new token, of a new account where there is none.
    async fn ask(&self) -> Result<Token, kube::Error> {
        let api: Api<ServiceAccount> = Api::namespaced(self.manager.clone(), NAMESPACE);
        let spec =
            TokenRequestSpec { expiration_seconds: Some(LIFETIME_SECONDS), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let post = PostParams::default();
        let answer = match api.create_token_request(&self.name, &post, &request).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let mut new = ServiceAccount::default();
                new.metadata.name = Some(self.name.clone());
                match api.create(&post, &new).await {
                    Ok(_) => {}
                    // Somebody else was faster.
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    Err(error) => return Err(error),
                }
                api.create_token_request(&self.name, &post, &request).await?
            }
            answer => answer?,
        };
        let status = answer.status.unwrap_or_default();
        let header = format!("Bearer {}", status.token.unwrap_or_default()).parse::<HeaderValue>();
        let mut header = header.map_err(|error| kube::Error::Auth(AuthError::InvalidBearerToken(error)))?;
        header.set_sensitive(true);
        let now = self.clock.now();
        let over = status.expiration_timestamp.map_or(now, |time| time.0);
        let left = now.duration_until(over).max(LIFETIME_MIN);
        let after = |time: SignedDuration| now.checked_add(time).unwrap_or(now);
        Ok(Token { header, renew: after(left * RENEW_AFTER_PERCENT / 100), over: after(left) })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use controllers::Accounts as _;
    use http_body_util::Full;
    use meta::Fixed;
    use serde_json::{Value, json};

    use super::*;

    /// An API server with one account or none, which tells what was asked of it by whom.
    #[derive(Default)]
    struct Server {
        exists: bool,
        refuses: bool,
        down: bool,
        tokens: u32,
        asked: Vec<String>,
    }

    fn answer(code: u16, body: &Value) -> Result<Response<Full<Bytes>>, Infallible> {
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        Ok(response)
    }

    fn failure(code: u16, reason: &str) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "no"})
    }

    fn client(server: &Arc<Mutex<Server>>, clock: &Arc<Fixed>, who: &'static str) -> Client {
        let (server, clock) = (server.clone(), clock.clone());
        let serve = move |request: Request<Body>| {
            let mut server = server.lock();
            let bearer = request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
            let path = request.uri().path().trim_start_matches("/api/v1/namespaces/").to_owned();
            let line = format!("{who} {} {path} {}", request.method(), bearer.unwrap_or_default());
            server.asked.push(line.trim_end().to_owned());
            let done = match path.as_str() {
                "kube-system/serviceaccounts/robot/token" if server.down => {
                    answer(500, &failure(500, "InternalError"))
                }
                "kube-system/serviceaccounts/robot/token" if server.exists => {
                    server.tokens += 1;
                    let until = clock.now().checked_add(SignedDuration::from_hours(1)).unwrap();
                    let status =
                        json!({"token": format!("t{}", server.tokens), "expirationTimestamp": until});
                    answer(201, &json!({"metadata": {}, "spec": {"audiences": []}, "status": status}))
                }
                "kube-system/serviceaccounts/robot/token" => answer(404, &failure(404, "NotFound")),
                "kube-system/serviceaccounts" => {
                    server.exists = true;
                    answer(201, &json!({"metadata": {"name": "robot"}}))
                }
                _ if server.refuses => answer(401, &failure(401, "Unauthorized")),
                _ => answer(200, &json!({"metadata": {"name": "x"}})),
            };
            std::future::ready(done)
        };
        Client::new(tower::service_fn(serve), "default")
    }

    struct Rig {
        server: Arc<Mutex<Server>>,
        clock: Arc<Fixed>,
        robot: Api<ServiceAccount>,
    }

    impl Rig {
        fn new() -> Self {
            let clock = Arc::new(Fixed::new("2026-01-01T00:00:00Z".parse().unwrap()));
            let server = Arc::new(Mutex::new(Server::default()));
            let accounts = Accounts::new(
                client(&server, &clock, "manager"),
                client(&server, &clock, "robot"),
                clock.clone(),
            );
            let robot = Api::namespaced(accounts.client("robot"), "ns");
            Self { server, clock, robot }
        }

        async fn get(&self) -> Result<Vec<String>, String> {
            let got = self.robot.get("x").await;
            let asked = std::mem::take(&mut self.server.lock().asked);
            got.map(|_| asked).map_err(|error| reconcile::text(&error))
        }

        fn pass(&self, minutes: i64) {
            self.clock.set(self.clock.now().checked_add(SignedDuration::from_mins(minutes)).unwrap());
        }
    }

    const ASK: &str = "manager POST kube-system/serviceaccounts/robot/token";
    const MAKE: &str = "manager POST kube-system/serviceaccounts";

    fn get(token: &str) -> String {
        format!("robot GET ns/serviceaccounts/x Bearer {token}")
    }

    #[tokio::test]
    async fn a_token_is_asked_for_once_and_renewed_before_it_is_over() {
        let rig = Rig::new();
        assert_eq!(rig.get().await.unwrap(), [ASK, MAKE, ASK, &get("t1")]);
        rig.pass(47);
        assert_eq!(rig.get().await.unwrap(), [get("t1")]);
        rig.pass(2);
        assert_eq!(rig.get().await.unwrap(), [ASK, &get("t2")]);
        // Who is behind the address is down for a while.
        rig.server.lock().down = true;
        rig.pass(50);
        assert_eq!(rig.get().await.unwrap(), [ASK, &get("t2")]);
        rig.pass(11);
        let told = rig.get().await.unwrap_err();
        assert!(told.contains("cannot get a token of service account kube-system/robot: no"), "{told}");
        rig.server.lock().down = false;
        assert_eq!(rig.get().await.unwrap(), [ASK, &get("t3")]);
    }

    #[tokio::test]
    async fn a_refused_token_is_given_up() {
        let rig = Rig::new();
        rig.get().await.unwrap();
        rig.server.lock().refuses = true;
        rig.get().await.unwrap_err();
        *rig.server.lock() = Server { tokens: 1, ..Server::default() };
        assert_eq!(rig.get().await.unwrap(), [ASK, MAKE, ASK, &get("t2")]);
    }
}
