//! Tasks of the API server that run until it stops.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt as _;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// Tasks that end when their server stops. One that panics is a reason to stop it: nobody else does its work.
#[derive(Default)]
pub(super) struct Background {
    tasks: JoinSet<()>,
    failed: Arc<watch::Sender<Option<&'static str>>>,
}

impl Background {
    /// Runs a task; `does` says what for.
    pub(super) fn spawn(&mut self, does: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let failed = self.failed.clone();
        self.tasks.spawn(async move {
            // The panic hook has told of it.
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                failed.send_replace(Some(does));
            }
        });
    }

    /// Watches over a task that ends on its own.
    pub(super) fn watch(&self, does: &'static str, task: JoinHandle<()>) -> JoinHandle<()> {
        let failed = self.failed.clone();
        tokio::spawn(async move {
            if task.await.is_err_and(|error| error.is_panic()) {
                failed.send_replace(Some(does));
            }
        })
    }

    /// Waits until one has failed.
    pub(super) async fn broken(&self) {
        let mut failed = self.failed.subscribe();
        // The sender is here: it outlives the wait.
        drop(failed.wait_for(Option::is_some).await);
    }

    /// What the first one that failed was for.
    pub(super) fn failed(&self) -> Option<&'static str> {
        *self.failed.borrow()
    }

    /// Waits for all.
    pub(super) async fn join(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told() {
        let mut background = Background::default();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        background.spawn("wait", async move { drop(stopped.await) });
        background.spawn("end", std::future::ready(()));
        assert!(background.broken().now_or_never().is_none());
        background.spawn("fall", async { panic!("as it should") });
        background.broken().await;
        assert_eq!(background.failed(), Some("fall"));

        let other = Background::default();
        other.watch("write", tokio::spawn(async { panic!("as it should") })).await.unwrap();
        assert_eq!(other.failed(), Some("write"));
        stop.send(()).unwrap();
        background.join().await;
    }
}
