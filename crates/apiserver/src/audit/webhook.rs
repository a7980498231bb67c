//! Events sent to a webhook in batches (upstream `apiserver/plugin/pkg/audit/webhook` in mode `batch`).
//!
//! Guarantees: no request waits for it; what waits is bounded, and what does not fit, or is not taken after all tries,
//! is dropped and counted; each batch is one `audit.k8s.io/v1` EventList, in the order of the events.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::log::lose;
use crate::webhook::Reviewer;

/// Settings of batches; the defaults are upstream's.
#[derive(Clone, Debug)]
pub struct BatchOptions {
    /// Events that wait; further ones are dropped.
    pub waiting_max: usize,
    /// Events of one batch.
    pub batch_max: usize,
    /// How long the first event of a batch waits for others.
    pub wait: Duration,
}

/// Where events wait for the webhook.
pub struct EventWebhook {
    queue: Sender<Value>,
    lost: Arc<AtomicU64>,
}

impl EventWebhook {
    /// Begins to send. The task ends when this is dropped and what waited was sent, or given up.
    pub fn start(reviewer: Reviewer, options: BatchOptions) -> (Self, JoinHandle<()>) {
        let (queue, waiting) = channel(options.waiting_max.max(1));
        let lost = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(run(reviewer, options, waiting, lost.clone()));
        (Self { queue, lost }, task)
    }

    /// Hands an event over; false when it is lost.
    pub(super) fn write(&self, event: Value) -> bool {
        let taken = self.queue.try_send(event).is_ok();
        if !taken {
            lose(&self.lost, 1, "the webhook's queue is full");
        }
        taken
    }

    /// Events that were dropped since the start.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

async fn run(reviewer: Reviewer, options: BatchOptions, mut waiting: Receiver<Value>, lost: Arc<AtomicU64>) {
    while let Some(first) = waiting.recv().await {
        let until = Instant::now() + options.wait;
        let mut batch = vec![first];
        while batch.len() < options.batch_max {
            match timeout_at(until, waiting.recv()).await {
                Ok(Some(event)) => batch.push(event),
                Ok(None) | Err(_) => break,
            }
        }
        let count = batch.len() as u64;
        let list = json!({
            "kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": batch,
        });
        if let Err(why) = reviewer.tell(&list).await {
            lose(&lost, count, &why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::Objects,
        testing_webhook::{Hook, Reply},
        webhook::{Endpoint, Webhooks},
    };

    fn start(hook: &Hook, waiting_max: usize) -> (EventWebhook, JoinHandle<()>) {
        let endpoint = Endpoint {
            url: format!("https://{}/audit", hook.address()),
            ca_pem: hook.ca_pem(),
            ..Endpoint::default()
        };
        let client = Webhooks::new(Arc::new(Objects::default()));
        let random = Arc::new(meta::Seeded::new(1));
        let reviewer = Reviewer::new(client, &endpoint, Duration::from_secs(5), random).unwrap().eager();
        let options = BatchOptions { waiting_max, batch_max: 2, wait: Duration::from_secs(3600) };
        EventWebhook::start(reviewer, options)
    }

    #[tokio::test]
    async fn events_go_in_batches_and_the_rest_at_the_end() {
        let hook = Hook::start(|_, _| Reply::Raw(200, Vec::new())).await;
        let (webhook, task) = start(&hook, 10);
        for n in 0..5 {
            assert!(webhook.write(json!({ "auditID": n })));
        }
        drop(webhook);
        task.await.unwrap();
        let batches: Vec<Value> = hook.calls().into_iter().map(|(_, body)| body["items"].clone()).collect();
        let ids: Vec<Vec<u64>> = batches
            .iter()
            .map(|items| items.as_array().unwrap().iter().map(|e| e["auditID"].as_u64().unwrap()).collect())
            .collect();
        assert_eq!(ids, [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(hook.calls()[0].1["kind"], "EventList");
    }

    #[tokio::test]
    async fn what_is_not_taken_is_counted() {
        let hook = Hook::start(|_, _| Reply::Raw(400, Vec::new())).await;
        let (webhook, task) = start(&hook, 3);
        // The task has not run yet: the queue holds three.
        let taken = (0..5).filter(|n| webhook.write(json!({ "auditID": n }))).count();
        assert_eq!((taken, webhook.lost()), (3, 2));
        let lost = webhook.lost.clone();
        drop(webhook);
        task.await.unwrap();
        assert_eq!(lost.load(Ordering::Relaxed), 5, "the webhook refuses");
    }
}
