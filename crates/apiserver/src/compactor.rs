//! Forgets old history in the store, as upstream's compactor does: what happened in the last minutes stays,
//! so that followers of the store can catch up; older changes go.

use std::{sync::Arc, time::Duration};

use meta::Revision;
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::Cache;

/// Between two compactions, and so the least and about half of the most that is kept (upstream
/// `etcd-compaction-interval`).
const EVERY: Duration = Duration::from_secs(300);

/// Compacts until `stop`: each time everything up to where the store stood one interval ago. A failure is
/// logged and made up for by the next round.
pub async fn run(store: Arc<dyn Store>, cache: Arc<Cache>, stop: CancellationToken) {
    let mut before = cache.head();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let through = std::mem::replace(&mut before, cache.head());
        if through == Revision(0) {
            continue;
        }
        if let Err(error) = store.compact(through).await {
            tracing::warn!(%error, %through, "compact the store");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn history_of_an_interval_is_kept() {
        let store = Arc::new(store::Memory::new());
        let cache = Arc::new(Cache::empty());
        let stop = CancellationToken::new();
        for at in 0..3 {
            let key = store::Key::parse(&format!("core/configmaps/default/c{at}")).unwrap();
            store.commit(vec![store::Write::create(key, "x")]).await.unwrap();
        }
        cache.advance(Revision(2));
        let task = tokio::spawn(run(store.clone(), cache.clone(), stop.clone()));
        tokio::task::yield_now().await;
        cache.advance(Revision(3));
        tokio::time::sleep(EVERY + Duration::from_secs(1)).await;
        assert_eq!(store.head().await.unwrap().compacted, Revision(2));
        tokio::time::sleep(EVERY).await;
        assert_eq!(store.head().await.unwrap().compacted, Revision(3));
        stop.cancel();
        task.await.unwrap();
    }
}
