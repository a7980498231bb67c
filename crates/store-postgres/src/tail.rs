//! Keeps the window at the head: woken by hints, and asking by itself in case none comes.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use meta::Revision;
use store::{Error, Head};
use tokio::time::timeout;

use crate::{
    backoff::Backoff,
    fault::Fault,
    pool::Hear,
    read::{head, log},
    shared::Shared,
};

/// How often to ask for the head when hints are expected: what a lost one costs.
const ASK: Duration = Duration::from_secs(1);
/// And when none are, because the bus or the listener is down.
const ASK_BLIND: Duration = Duration::from_millis(100);
/// How long a change known to be committed may be on its way by the bus before it is read from the log.
const GRACE: Duration = Duration::from_millis(3);

/// Until dropped, or the store must stop.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut target = shared.target.subscribe();
    let mut window = shared.head.subscribe();
    let mut backoff = Backoff::new();
    while shared.check().is_ok() {
        let wanted = *target.borrow_and_update();
        let end = shared.window().end();
        if wanted <= end {
            let ask = if shared.woken.load(Ordering::Relaxed) { ASK } else { ASK_BLIND };
            if timeout(ask, target.changed()).await.is_err() {
                ask_head(&shared).await;
            }
            continue;
        }
        if shared.pool.config.events.is_some() && shared.woken.load(Ordering::Relaxed) {
            // Whether it came or not, the window is looked at again.
            drop(timeout(GRACE, window.wait_for(|head| head.0 >= wanted)).await);
        }
        let end = shared.window().end();
        if wanted <= end {
            continue;
        }
        match log(&shared, Revision(end)).await {
            Ok(changes) => {
                shared.push(changes, &shared.counters.log);
                backoff = Backoff::new();
            }
            // Asleep for longer than history is kept: followers who need it are told by the log.
            Err(Error::Compacted { asked: _, compacted }) => shared.skip_to(compacted),
            Err(error) => {
                tracing::debug!(%error, "the log cannot be read yet");
                backoff.wait(&*shared.pool.random).await;
            }
        }
    }
}

async fn ask_head(shared: &Shared) {
    let end = shared.window().end();
    match head(shared).await {
        Ok(Head { revision, epoch, compacted: _ }) => shared.observe(revision.0, epoch, end),
        Err(error) => tracing::debug!(%error, "the head cannot be asked for yet"),
    }
}

/// Turns notifications into hints, on a connection of its own, until dropped.
pub(crate) async fn listen(shared: Arc<Shared>) {
    let mut backoff = Backoff::new();
    loop {
        match listen_once(&shared).await {
            Ok(()) => backoff = Backoff::new(),
            Err(fault) => tracing::warn!(%fault, "cannot listen to PostgreSQL yet, asking it instead"),
        }
        shared.woken.store(false, Ordering::Relaxed);
        backoff.wait(&*shared.pool.random).await;
    }
}

async fn listen_once(shared: &Arc<Shared>) -> Result<(), Fault> {
    let hear = || {
        let shared = shared.clone();
        let hear: Hear = Box::new(move |payload: &str| {
            if let Ok(revision) = payload.parse() {
                shared.hint(revision);
            }
        });
        Some(hear)
    };
    let mut session = shared.pool.connect(hear).await?;
    let failed = |why: String| Fault::Sql { doing: "listen to PostgreSQL", why };
    timeout(shared.pool.config.answer, session.client.batch_execute("LISTEN keelson"))
        .await
        .map_err(|_| failed("no answer".into()))?
        .map_err(|error| failed(crate::fault::words(&error)))?;
    // What was committed before the LISTEN brings no notification.
    ask_head(shared).await;
    shared.woken.store(true, Ordering::Relaxed);
    session.closed().await;
    Ok(())
}
