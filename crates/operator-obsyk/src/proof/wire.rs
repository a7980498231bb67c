//! The network between agent and receiver, in the process: it keeps what went over it.

use std::sync::Arc;

use bytes::Bytes;
use http::header;
use http_body_util::BodyExt;
use obsyk_platform::{Answer, Cut, Receiver};
use parking_lot::Mutex;

use crate::wire::{Body, Http, HttpError, Reply, Replying};

/// One request as it was sent.
#[derive(Clone)]
pub(super) struct Sent {
    pub(super) path: String,
    pub(super) content_type: String,
    pub(super) encoding: Option<String>,
    pub(super) body: Bytes,
}

/// See the module.
pub(super) struct Wire {
    pub(super) receiver: Mutex<Arc<Receiver>>,
    pub(super) journal: Mutex<Vec<Sent>>,
}

impl Wire {
    pub(super) fn new(receiver: Arc<Receiver>) -> Arc<Self> {
        Arc::new(Self { receiver: Mutex::new(receiver), journal: Mutex::default() })
    }
}

impl Http for Wire {
    fn send(&self, request: http::Request<Body>, bytes_max: usize) -> Replying<'_> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let broken = || HttpError("connection closed".to_owned());
            let body = body.collect().await.map_err(|error| HttpError(error.to_string()))?.to_bytes();
            let text =
                |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            assert_eq!(text(header::USER_AGENT).as_deref(), Some("obsyk-operator/1.0"));
            self.journal.lock().push(Sent {
                path: parts.uri.path().to_owned(),
                content_type: text(header::CONTENT_TYPE).unwrap_or_default(),
                encoding: text(header::CONTENT_ENCODING),
                body: body.clone(),
            });
            let receiver = Arc::clone(&self.receiver.lock());
            match receiver.agent(http::Request::from_parts(parts, body)).await {
                Err(Cut) | Ok(Answer { cut_after: Some(_), .. }) => Err(broken()),
                Ok(Answer { response, cut_after: None }) => {
                    let text = |name: &str| {
                        response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
                    };
                    let (status, retry_after) = (response.status().as_u16(), text("retry-after"));
                    let capabilities = text("obsyk-capabilities");
                    let body = response.body().slice(..response.body().len().min(bytes_max));
                    Ok(Reply { status, retry_after, date: None, capabilities, body })
                }
            }
        })
    }
}
