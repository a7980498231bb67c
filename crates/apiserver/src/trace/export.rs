//! Sending spans: OTLP over gRPC, without TLS, as upstream's API server does.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{LAST, Span, otlp};

/// Spans sent together, as upstream's batch processor.
const BATCH_MAX: usize = 512;
/// How long a span waits for others.
const GATHER: Duration = Duration::from_secs(5);
/// How long a collector may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// What is read of its answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Pause after a collector did not take a batch. The batch is lost: what is traced is a sample.
const PAUSE: Duration = Duration::from_secs(5);

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Sends what is sampled.
pub struct Exporter {
    endpoint: String,
    instance: String,
    waiting: mpsc::Receiver<Vec<Span>>,
    connection: Option<SendRequest<Full<Bytes>>>,
    tasks: JoinSet<()>,
}

impl Exporter {
    pub(super) fn new(endpoint: String, instance: String, waiting: mpsc::Receiver<Vec<Span>>) -> Self {
        Self { endpoint, instance, waiting, connection: None, tasks: JoinSet::new() }
    }

    /// Sends until `stop`, and then what is left, for five seconds at most.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch: Vec<Span> = Vec::new();
        while let Some(ended) = stop.run_until_cancelled(self.gather(&mut batch)).await {
            if batch.is_empty() {
                return;
            }
            if !self.send(std::mem::take(&mut batch)).await {
                // Cancelled or over: both go on.
                let _ = stop.run_until_cancelled(sleep(PAUSE)).await;
            }
            if !ended {
                continue;
            }
            return;
        }
        let last = async {
            while let Ok(spans) = self.waiting.try_recv() {
                batch.extend(spans);
            }
            if !batch.is_empty() {
                self.send(batch).await;
            }
        };
        if timeout(LAST, last).await.is_err() {
            tracing::debug!("the last spans were not taken in time");
        }
    }

    /// Waits for a first span, and a while for others. True when nothing more will come.
    async fn gather(&mut self, batch: &mut Vec<Span>) -> bool {
        if batch.is_empty() {
            match self.waiting.recv().await {
                Some(spans) => batch.extend(spans),
                None => return true,
            }
        }
        let more = async {
            while batch.len() < BATCH_MAX {
                match self.waiting.recv().await {
                    Some(spans) => batch.extend(spans),
                    None => return true,
                }
            }
            false
        };
        timeout(GATHER, more).await.unwrap_or(false)
    }

    async fn send(&mut self, spans: Vec<Span>) -> bool {
        let count = spans.len();
        match timeout(ANSWER_MAX, self.export(spans)).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => tracing::warn!(endpoint = self.endpoint, %error, count, "spans were not taken"),
            Err(_) => tracing::warn!(endpoint = self.endpoint, count, "spans were not taken in time"),
        }
        self.connection = None;
        false
    }

    async fn export(&mut self, spans: Vec<Span>) -> Result<(), String> {
        let mut sender = match self.connection.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let request = request(&self.endpoint, otlp::request(spans, &self.instance))?;
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let said = |headers: &http::HeaderMap| {
            let text =
                |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            text("grpc-status").map(|code| (code, text("grpc-message").unwrap_or_default()))
        };
        let (parts, body) = answer.into_parts();
        if parts.status != 200 {
            return Err(format!("the collector answers {}", parts.status));
        }
        let read = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
        let status = said(&parts.headers).or_else(|| read.trailers().and_then(said));
        self.connection = Some(sender);
        match status {
            Some((code, _)) if code == "0" => Ok(()),
            Some((code, message)) => Err(format!("the collector answers gRPC status {code}: {message}")),
            None => Err("the collector's answer is no gRPC".to_owned()),
        }
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, String> {
        while self.tasks.try_join_next().is_some() {}
        let stream = TcpStream::connect(&self.endpoint).await.map_err(|error| error.to_string())?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| error.to_string())?;
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the collector ended");
            }
        });
        Ok(sender)
    }
}

/// A gRPC request: the message after a flag and its length.
fn request(endpoint: &str, message: otlp::ExportTraceServiceRequest) -> Result<Request<Full<Bytes>>, String> {
    let length = message.encoded_len();
    let mut body = BytesMut::with_capacity(length + 5);
    body.put_u8(0);
    body.put_u32(u32::try_from(length).map_err(|error| error.to_string())?);
    message.encode(&mut body).map_err(|error| error.to_string())?;
    Request::post(format!("http://{endpoint}{PATH}"))
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(header::TE, HeaderValue::from_static("trailers"))
        .body(Full::new(body.freeze()))
        .map_err(|error| error.to_string())
}
