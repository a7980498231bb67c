//! Sending spans: OTLP over gRPC, without TLS, as upstream's API server does.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{LAST, Span, otlp};
use crate::grpc::{Channel, Target};

/// Spans sent together, as upstream's batch processor.
const BATCH_MAX: usize = 512;
/// How long a span waits for others.
const GATHER: Duration = Duration::from_secs(5);
/// How long a collector may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Pause after a collector did not take a batch. The batch is lost: what is traced is a sample.
const PAUSE: Duration = Duration::from_secs(5);

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Sends what is sampled.
pub struct Exporter {
    collector: Channel,
    instance: String,
    waiting: mpsc::Receiver<Vec<Span>>,
}

impl Exporter {
    pub(super) fn new(endpoint: String, instance: String, waiting: mpsc::Receiver<Vec<Span>>) -> Self {
        Self { collector: Channel::new(Target::Tcp(endpoint), ANSWER_MAX), instance, waiting }
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
        match self.collector.call::<()>(PATH, &otlp::request(spans, &self.instance)).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, count, "spans were not taken");
                false
            }
        }
    }
}
