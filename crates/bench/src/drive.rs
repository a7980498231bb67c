//! Keeps a number of requests under way until a count or a time is reached, and measures them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    failure::{Failure, Result, chain},
    report::Row,
};

/// A phase with more failed requests than this is given up.
const ERRORS_MAX: u64 = 100;

/// When a phase ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) requests: u64,
    pub(crate) time: Duration,
}

/// What one worker saw.
#[derive(Default)]
struct Seen {
    latencies_us: Vec<u32>,
    errors: u64,
    first: Option<String>,
}

/// Runs `request(worker, index)` for the indices from 0 on, `in_flight` at a time. Requests that
/// began in time are waited for.
pub(crate) async fn drive<F, R>(name: &str, in_flight: usize, limit: Limit, request: F) -> Result<Row>
where
    F: Fn(usize, u64) -> R + Send + Sync + 'static,
    R: Future<Output = Result<()>> + Send,
{
    let (request, next, errors) =
        (Arc::new(request), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let begin = Instant::now();
    let workers: Vec<_> = (0..in_flight.max(1))
        .map(|worker| {
            let (request, next, errors) = (request.clone(), next.clone(), errors.clone());
            tokio::spawn(async move {
                let mut seen = Seen::default();
                while begin.elapsed() < limit.time && errors.load(Ordering::Relaxed) <= ERRORS_MAX {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= limit.requests {
                        break;
                    }
                    let sent = Instant::now();
                    match request(worker, index).await {
                        Ok(()) => seen.latencies_us.push(micros(sent.elapsed())),
                        Err(failure) => {
                            errors.fetch_add(1, Ordering::Relaxed);
                            seen.errors += 1;
                            seen.first.get_or_insert_with(|| chain(&failure));
                        }
                    }
                }
                seen
            })
        })
        .collect();
    let mut all = Seen::default();
    for worker in workers {
        let Seen { latencies_us, errors, first } = worker.await?;
        all.latencies_us.extend(latencies_us);
        all.errors += errors;
        all.first = all.first.or(first);
    }
    let elapsed = begin.elapsed();
    let requests = all.latencies_us.len() as u64 + all.errors;
    match all.first {
        Some(first) if all.errors > ERRORS_MAX || all.latencies_us.is_empty() => {
            Err(Failure::TooManyErrors { errors: all.errors, requests, first })
        }
        first => Ok(Row::new(name, all.latencies_us, elapsed, all.errors, first)),
    }
}

/// Microseconds, of more than an hour that hour.
pub(crate) fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREVER: Duration = Duration::from_secs(60);

    fn run(limit: Limit, fail_every: u64) -> Result<Row> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(drive("test", 4, limit, move |_, index| async move {
            if (index + 1).checked_rem(fail_every) == Some(0) {
                return Err(Failure::Answer { path: "/x".into(), why: "no".into() });
            }
            tokio::task::yield_now().await;
            Ok(())
        }))
    }

    #[test]
    fn counts_and_limits() {
        let row = run(Limit { requests: 1000, time: FOREVER }, 0).unwrap();
        assert_eq!((row.done, row.errors), (1000, 0));
        let row = run(Limit { requests: u64::MAX, time: Duration::ZERO }, 0).unwrap();
        assert_eq!(row.done, 0);
        let row = run(Limit { requests: 1000, time: FOREVER }, 20).unwrap();
        assert_eq!((row.done, row.errors), (950, 50));
        assert_eq!(row.note.as_deref(), Some("50 failed: /x: the answer is not as expected: no"));
        let failure = run(Limit { requests: 10_000, time: FOREVER }, 2).map(|_| ()).unwrap_err();
        assert!(matches!(failure, Failure::TooManyErrors { errors: 101..=110, .. }), "{failure:?}");
    }
}
