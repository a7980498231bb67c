//! What those outside (token issuers, webhooks) answered, each for a while.
//!
//! Guarantees: of those who ask the same at once only one asks outside, and the others get its answer; failures are
//! not kept; at most `max` answers are. Keys are digests: tokens themselves are not kept.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use meta::{Clock, Timestamp};
use tokio::sync::OnceCell;

use super::token_cache::TokenCache;

type Digest = [u8; 32];
type Slot<V> = Arc<OnceCell<(Timestamp, V)>>;

/// Answers by what was asked.
pub(super) struct Memo<V> {
    slots: Mutex<HashMap<Digest, Slot<V>>>,
    clock: Arc<dyn Clock>,
    max: usize,
    counts: Option<Arc<TokenCache>>,
}

impl<V: Clone> Memo<V> {
    /// Keeps `max` answers at most; when there are more, all are forgotten.
    pub(super) fn new(clock: Arc<dyn Clock>, max: usize) -> Self {
        Self { slots: Mutex::default(), clock, max, counts: None }
    }

    /// Counts who asks for what from now on.
    pub(super) fn count(&mut self, counts: &Arc<TokenCache>) {
        self.counts = Some(counts.clone());
    }

    /// The answer that is known, or that `ask` gives, with the time it is good for. One of no time is still
    /// everybody's who asked meanwhile.
    pub(super) async fn get<E>(
        &self,
        key: &[&str],
        ask: impl Future<Output = Result<(V, Duration), E>>,
    ) -> Result<V, E> {
        let key = digest(key);
        let slot = self.slot(key);
        let _asking = self.counts.as_ref().map(|counts| counts.asking(slot.get().is_some()));
        let asked = slot.get_or_try_init(|| async {
            let fetching = self.counts.as_ref().map(TokenCache::fetching);
            let answer = ask.await;
            if let Some(fetching) = fetching {
                fetching.answered(answer.is_ok());
            }
            let (value, good) = answer?;
            let now = self.clock.now();
            Ok((now.checked_add(good).unwrap_or(now), value))
        });
        match asked.await {
            Ok((until, value)) => {
                if *until <= self.clock.now() {
                    self.forget(key, &slot);
                }
                Ok(value.clone())
            }
            Err(error) => {
                self.forget(key, &slot);
                Err(error)
            }
        }
    }

    fn slot(&self, key: Digest) -> Slot<V> {
        let now = self.clock.now();
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&key)
            && slot.get().is_none_or(|(until, _)| *until > now)
        {
            return slot.clone();
        }
        if slots.len() >= self.max {
            slots.clear();
        }
        let slot = Slot::default();
        slots.insert(key, slot.clone());
        slot
    }

    /// Lets go of a question without an answer that is kept, unless somebody has asked it anew.
    fn forget(&self, key: Digest, slot: &Slot<V>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.get(&key).is_some_and(|now| Arc::ptr_eq(now, slot)) {
            slots.remove(&key);
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.slots.lock().unwrap().len()
    }
}

/// Each part with its length, so that two keys are not one because their parts join alike.
fn digest(parts: &[&str]) -> Digest {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    let mut digest = [0_u8; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::ready, sync::atomic::AtomicUsize};

    use super::*;

    fn memo(max: usize) -> (Arc<meta::Fixed>, Memo<u8>) {
        let clock = Arc::new(meta::Fixed::new(Timestamp::UNIX_EPOCH));
        (clock.clone(), Memo::new(clock, max))
    }

    async fn ask(memo: &Memo<u8>, key: &[&str], answer: u8, seconds: u64) -> u8 {
        let good = Duration::from_secs(seconds);
        memo.get(key, ready(Ok::<_, Infallible>((answer, good)))).await.unwrap()
    }

    #[tokio::test]
    async fn an_answer_is_good_for_its_time() {
        let (clock, memo) = memo(8);
        assert_eq!(ask(&memo, &["a"], 1, 10).await, 1);
        assert_eq!(ask(&memo, &["a"], 2, 10).await, 1);
        assert_eq!(ask(&memo, &["a", ""], 3, 10).await, 3, "another question");
        clock.set(Timestamp::from_second(10).unwrap());
        assert_eq!(ask(&memo, &["a"], 4, 0).await, 4);
        assert_eq!(ask(&memo, &["a"], 5, 0).await, 5, "nothing is kept that is good for no time");
        assert_eq!(memo.len(), 1, "only the other question");
    }

    #[tokio::test]
    async fn failures_are_not_kept_and_neither_is_too_much() {
        let (_, memo) = memo(4);
        let failed = memo.get(&["x"], ready(Err("down"))).await;
        assert_eq!((failed, memo.len()), (Err("down"), 0));
        for name in ["a", "b", "c", "d", "e"] {
            ask(&memo, &[name], 0, 10).await;
        }
        assert!(memo.len() <= 4);
    }

    #[tokio::test]
    async fn who_asks_is_counted_by_what_was_known() {
        let (_, mut memo) = memo(8);
        let counts = Arc::<TokenCache>::default();
        memo.count(&counts);
        let text = || {
            let mut out = meta::metrics::Exposition::default();
            counts.expose(&mut out);
            let line = |line: &str| Some(line.strip_prefix("authentication_token_cache_")?.to_owned());
            let all = out.text().lines().filter_map(line).filter(|line| !line.contains("seconds_"));
            all.collect::<Vec<String>>()
        };
        assert_eq!(text(), [""; 0], "nothing was asked");
        for _ in 0..3 {
            ask(&memo, &["a"], 1, 10).await;
        }
        assert!(memo.get(&["x"], ready(Err::<(u8, Duration), _>("down"))).await.is_err());
        let pending = std::future::pending::<Result<(u8, Duration), Infallible>>;
        let (one, other) = (memo.get(&["y"], pending()), memo.get(&["y"], pending()));
        let (mut one, mut other) = (std::pin::pin!(one), std::pin::pin!(other));
        assert!(futures::poll!(&mut one).is_pending() && futures::poll!(&mut other).is_pending());
        assert_eq!(
            text(),
            [
                "request_total{status=\"hit\"} 2",
                "request_total{status=\"miss\"} 2",
                "fetch_total{status=\"error\"} 1",
                "fetch_total{status=\"ok\"} 1",
                "active_fetch_count{status=\"blocked\"} 2",
                "active_fetch_count{status=\"in_flight\"} 1",
            ]
        );
    }

    #[tokio::test]
    async fn who_asks_the_same_at_once_is_answered_once() {
        let (_, memo) = memo(8);
        let asked = AtomicUsize::new(0);
        let one = || {
            memo.get(&["a"], async {
                asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok::<_, Infallible>((7, Duration::ZERO))
            })
        };
        let answers = futures::future::join_all((0..5).map(|_| one())).await;
        assert_eq!(answers, vec![Ok(7); 5]);
        assert_eq!(asked.into_inner(), 1);
    }
}
