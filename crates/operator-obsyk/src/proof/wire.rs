//! The network between agent and receiver, in the process: it keeps what went over it, and breaks where the
//! receiver's process ends.

use std::sync::Arc;

use bytes::Bytes;
use http::header;
use http_body_util::BodyExt;
use obsyk_platform::{Answer, Cut, Receiver};
use parking_lot::Mutex;
use reconcile::CancellationToken;

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
    /// The receiver, and the end of its process.
    receiver: Mutex<(Arc<Receiver>, CancellationToken)>,
    pub(super) journal: Mutex<Vec<Sent>>,
}

impl Wire {
    pub(super) fn new(receiver: Arc<Receiver>) -> Arc<Self> {
        Arc::new(Self {
            receiver: Mutex::new((receiver, CancellationToken::new())),
            journal: Mutex::default(),
        })
    }

    pub(super) fn receiver(&self) -> Arc<Receiver> {
        Arc::clone(&self.receiver.lock().0)
    }

    /// The receiver's process ends: what it was at is not answered any more. What it had begun to apply is
    /// applied, and nothing else.
    pub(super) async fn cut(&self) {
        let (receiver, ended) = self.receiver.lock().clone();
        ended.cancel();
        receiver.close().await;
    }

    /// Another process takes its place.
    pub(super) fn connect(&self, receiver: Arc<Receiver>) {
        *self.receiver.lock() = (receiver, CancellationToken::new());
    }
}

impl Http for Wire {
    fn send(&self, request: http::Request<Body>, bytes_max: usize) -> Replying<'_> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let broken = || HttpError::new("connection closed");
            let body = body.collect().await.map_err(|error| HttpError::new(error.to_string()))?.to_bytes();
            let text =
                |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            assert_eq!(text(header::USER_AGENT).as_deref(), Some("obsyk-operator/1.0"));
            self.journal.lock().push(Sent {
                path: parts.uri.path().to_owned(),
                content_type: text(header::CONTENT_TYPE).unwrap_or_default(),
                encoding: text(header::CONTENT_ENCODING),
                body: body.clone(),
            });
            let (receiver, ended) = self.receiver.lock().clone();
            let answered = tokio::select! {
                biased;
                () = ended.cancelled() => Err(Cut),
                answered = receiver.agent(http::Request::from_parts(parts, body)) => answered,
            };
            match answered {
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
