//! One platform, as one client of it: posts with a valid token.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT as USER_AGENT_HEADER};
use meta::{Clock, Random};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::{
    Body, Certificate, Credentials, Http, HttpError, REPLY_BYTES_MAX, Refusal, Reply, Trouble, assertion,
    batch::{ASKED, CAPABILITIES, FENCE, has_batch},
    full,
    token::Token,
};

pub(crate) const TOKEN: &str = "/oauth/token";
pub(crate) const SNAPSHOT: &str = "/api/v1/agent/snapshot";
pub(crate) const EVENTS: &str = "/api/v1/agent/events";
pub(crate) const HEARTBEAT: &str = "/api/v1/agent/heartbeat";
/// The original's constant.
pub(crate) const USER_AGENT: &str = "obsyk-operator/1.0";
/// RFC 7523 section 2.1.
pub(crate) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// How long an answer may take, beside the time for the body; the original's.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// A body may take a second for each of these.
const SLOWEST_BYTES_PER_SECOND: u64 = 256 * 1024;
/// A snapshot's length is not known beforehand; 10 minutes are 150 MB at the slowest speed.
const SNAPSHOT_MAX: Duration = Duration::from_secs(600);
/// More difference between two clocks than this makes assertions fail.
const SKEW_MAX_SECONDS: i64 = 60;

/// Largest answer of `sync/state`: 256 buckets of 20 kinds, with room.
const STATE_BYTES_MAX: usize = 1 << 20;

/// How a request is made.
#[derive(Clone, Copy)]
struct Form {
    content_type: &'static str,
    encoding: Option<&'static str>,
    /// Says what the agent can do, and hears what the platform can.
    asks: bool,
    answer_max: usize,
}

impl Form {
    /// As the original makes them.
    const ORIGINAL: Self =
        Self { content_type: "application/json", encoding: None, asks: false, answer_max: REPLY_BYTES_MAX };
}

/// One client of one platform. Requests may run at the same time.
pub(crate) struct Platform {
    http: Arc<dyn Http>,
    /// As the user wrote it: paths are appended, and it is the audience.
    url: String,
    credentials: Credentials,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// Held while a token is got: that is what makes the others wait for the same one. Dropping the future
    /// that holds it leaves no token, and the next one gets it.
    token: tokio::sync::Mutex<Option<Token>>,
    /// How far the platform's clock is ahead of ours, in seconds, when last seen.
    skew: Mutex<Option<i64>>,
    /// Whether the platform speaks batches, once it has been asked.
    batch: Mutex<Option<bool>>,
    /// Tokens that were granted.
    tokens: AtomicU64,
    /// Grows with each new leader of the replicas; none to keep to the original contract's letter.
    fence: Option<u64>,
}

impl Platform {
    pub(crate) fn new(
        http: Arc<dyn Http>,
        url: &str,
        credentials: Credentials,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let (token, skew, batch) = (tokio::sync::Mutex::default(), Mutex::default(), Mutex::default());
        Self {
            http,
            url: url.to_owned(),
            credentials,
            clock,
            random,
            token,
            skew,
            batch,
            tokens: AtomicU64::new(0),
            fence: None,
        }
    }

    /// Says which of its replicas' leaders this is, to a platform that heeds it also where the original
    /// contract is spoken, which has no numbers.
    pub(crate) fn with_fence(self, fence: u64) -> Self {
        Self { fence: Some(fence), ..self }
    }

    /// Whether the platform speaks batches; `None` until it has been asked.
    pub(crate) fn offers_batches(&self) -> Option<bool> {
        *self.batch.lock()
    }

    /// Tokens that were granted.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Gets a token, with which the platform says what it can do.
    pub(crate) async fn ask(&self) -> Result<(), Trouble> {
        self.token().await.map(drop)
    }

    /// Posts one document of the original contract.
    pub(crate) async fn post(&self, path: &str, body: Bytes) -> Result<(), Trouble> {
        self.exchange_twice(path, body, Form::ORIGINAL).await.map(drop)
    }

    /// Posts a heartbeat that says that the agent can do batches, and hears whether the platform can.
    pub(crate) async fn beat(&self, path: &str, body: Bytes) -> Result<(), Trouble> {
        self.exchange_twice(path, body, Form { asks: true, ..Form::ORIGINAL }).await.map(drop)
    }

    /// Posts a document of the batch mode; the answer is read in whole.
    pub(crate) async fn exchange_json(&self, path: &str, body: Bytes) -> Result<Bytes, Trouble> {
        self.exchange_twice(path, body, Form { answer_max: STATE_BYTES_MAX, ..Form::ORIGINAL }).await
    }

    /// Posts a batch.
    pub(crate) async fn exchange_batch(
        &self,
        path: &str,
        body: Bytes,
        encoding: Option<&'static str>,
    ) -> Result<Bytes, Trouble> {
        let form = Form { content_type: "application/x-ndjson", encoding, ..Form::ORIGINAL };
        self.exchange_twice(path, body, form).await
    }

    /// A token that the platform refuses is replaced and the request repeated, once.
    async fn exchange_twice(&self, path: &str, body: Bytes, form: Form) -> Result<Bytes, Trouble> {
        let seconds = u64::try_from(body.len()).unwrap_or(u64::MAX) / SLOWEST_BYTES_PER_SECOND;
        let limit = ANSWER_MAX + Duration::from_secs(seconds);
        match self.exchange_once(path, full(body.clone()), limit, form).await {
            Err(trouble) if trouble.status == Some(401) => {
                self.exchange_once(path, full(body), limit, form).await
            }
            result => result,
        }
    }

    /// Posts a body that can be read only once. When the token is refused, the caller makes the body anew.
    pub(crate) async fn post_stream(&self, path: &str, body: Body) -> Result<(), Trouble> {
        self.exchange_once(path, body, SNAPSHOT_MAX, Form::ORIGINAL).await.map(drop)
    }

    async fn exchange_once(
        &self,
        path: &str,
        body: Body,
        limit: Duration,
        form: Form,
    ) -> Result<Bytes, Trouble> {
        let Form { content_type, encoding, asks, answer_max } = form;
        let token = self.token().await?;
        let what = path.rsplit('/').next().unwrap_or(path);
        let mut request = http::Request::post(format!("{}{path}", self.url))
            .header(CONTENT_TYPE, content_type)
            .header(USER_AGENT_HEADER, USER_AGENT)
            .header(AUTHORIZATION, format!("Bearer {}", token.text));
        if let Some(encoding) = encoding {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        if asks {
            request = request.header(ASKED, CAPABILITIES);
        }
        if let (SNAPSHOT | EVENTS, Some(fence), true) = (path, self.fence, token.fence) {
            request = request.header(FENCE, fence);
        }
        let request = request.body(body).map_err(|error| Trouble::unreachable(what, error))?;
        let reply = self.send(what, request, limit, answer_max).await?;
        match reply.status {
            200..=299 => {
                if asks {
                    *self.batch.lock() = Some(reply.capabilities.as_deref().is_some_and(has_batch));
                }
                Ok(reply.body)
            }
            401 => {
                self.forget(&token).await;
                Err(Trouble::answered(what, &reply, self.clock.now()))
            }
            _ => Err(self.answered(what, &reply)),
        }
    }

    /// An answer other than success, with what the address has to do with it.
    fn answered(&self, what: &str, reply: &Reply) -> Trouble {
        let mut trouble = Trouble::answered(what, reply, self.clock.now());
        if trouble.refusal == Refusal::Endpoint && self.url.ends_with('/') {
            trouble.message.push_str("; it ends with a slash, and paths are appended to it as it is");
        }
        trouble
    }

    async fn send(
        &self,
        what: &str,
        request: http::Request<Body>,
        limit: Duration,
        answer_max: usize,
    ) -> Result<Reply, Trouble> {
        let reply = timeout(limit, self.http.send(request, answer_max))
            .await
            .map_err(|_| Trouble::unreachable(what, format!("none within {} s", limit.as_secs())))?
            .map_err(|error| self.unreachable(what, &error))?;
        if let Some(date) = reply.date {
            *self.skew.lock() = Some(date.as_second().saturating_sub(self.clock.now().as_second()));
        }
        Ok(reply)
    }

    /// No answer, with what the address or the Secret has to do with it.
    fn unreachable(&self, what: &str, error: &HttpError) -> Trouble {
        let advice = match error.certificate {
            Some(Certificate::Stranger) => {
                "; no authority that is trusted here vouches for it: put the platform's into ca.crt of the Secret"
            }
            Some(Certificate::Name) => {
                "; it is another host's: spec.platformURL has to name the one it is for"
            }
            Some(Certificate::Time) => {
                "; it has expired or is not valid yet: renew it, or set the clock right that is wrong"
            }
            None if self.url.starts_with("http://") => "; does it expect https:// in spec.platformURL?",
            None => "",
        };
        Trouble::unreachable(what, format!("{error}{advice}"))
    }

    /// A token that is still good, got now if need be.
    async fn token(&self) -> Result<Token, Trouble> {
        let mut slot = self.token.lock().await;
        if let Some(token) = slot.as_ref().filter(|token| token.until > Instant::now()) {
            return Ok(token.clone());
        }
        *slot = None;
        let token = self.exchange().await?;
        *self.batch.lock() = Some(token.batch);
        self.tokens.fetch_add(1, Ordering::Relaxed);
        Ok(slot.insert(token).clone())
    }

    /// Forgets exactly this token: another may have been got meanwhile.
    async fn forget(&self, refused: &Token) {
        let mut slot = self.token.lock().await;
        if slot.as_ref().is_some_and(|token| Arc::ptr_eq(&token.text, &refused.text)) {
            *slot = None;
        }
    }

    async fn exchange(&self) -> Result<Token, Trouble> {
        const WHAT: &str = "token";
        let id = self.random.uuid();
        let assertion = assertion(&self.credentials, &self.url, self.clock.now(), &id)
            .map_err(|error| Trouble::unreachable(WHAT, format!("cannot sign: {error}")))?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", GRANT_TYPE)
            .append_pair("assertion", &assertion)
            .finish();
        let request = http::Request::post(format!("{}{TOKEN}", self.url))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(USER_AGENT_HEADER, USER_AGENT)
            .body(full(form.into()))
            .map_err(|error| Trouble::unreachable(WHAT, error))?;
        let reply = self.send(WHAT, request, ANSWER_MAX, REPLY_BYTES_MAX).await?;
        if reply.status == 200 {
            return Token::granted(&reply.body, Instant::now()).map_err(|why| Trouble {
                refusal: Refusal::Transient,
                status: Some(200),
                retry_after: None,
                message: format!("{WHAT}: {why}; is spec.platformURL the platform's address?"),
                answer: Bytes::new(),
            });
        }
        let mut trouble = self.answered(WHAT, &reply);
        if matches!(trouble.refusal, Refusal::Content | Refusal::Forbidden) {
            trouble.refusal = Refusal::Unauthorized;
        }
        if trouble.status == Some(401) {
            // Not the status of a post: nothing there may take it for a token that was refused.
            trouble.status = None;
        }
        let client = super::refused(&trouble).error == "invalid_client";
        if trouble.refusal == Refusal::Unauthorized && client {
            let advice =
                "; is client_id of the Secret registered there, with the public part of its private_key?";
            trouble.message.push_str(advice);
        }
        let skew = self.skew.lock().filter(|skew| skew.abs() > SKEW_MAX_SECONDS);
        if let (Refusal::Unauthorized, Some(skew)) = (trouble.refusal, skew) {
            let side = if skew > 0 { "behind" } else { "ahead of" };
            trouble.message.push_str(&format!(
                "; the clock here is {} s {side} the platform's: set it right",
                skew.abs()
            ));
        }
        Err(trouble)
    }
}
