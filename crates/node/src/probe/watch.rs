//! The loop of one probe: wait, ask, count, tell.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{ProbeKind, Schedule, Tally};

/// Who is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Container name.
    pub container: String,
    /// Runtime id.
    pub id: String,
    /// Which probe.
    pub kind: ProbeKind,
}

/// A verdict, or a failed answer on the way to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who.
    pub subject: Subject,
    /// The verdict once the threshold is reached; `None` before.
    pub verdict: Option<bool>,
    /// Why it failed; for the event.
    pub failure: Option<String>,
    /// Grace to stop it with, when the probe names one.
    pub grace: Option<Duration>,
}

/// Asks once.
#[async_trait]
pub trait Asker: Send + Sync {
    /// `Err` says why it is not healthy.
    async fn ask(&self, subject: &Subject, timeout: Duration) -> Result<(), String>;
}

/// Probes `subject` until its purpose is fulfilled (a startup probe that passed or failed, a liveness
/// probe that failed) or the receiver is gone. `since_start` is how long the container runs already.
/// Only changes of verdict and failed answers are told. Dropping it at any point is safe.
pub async fn watch(
    asker: Arc<dyn Asker>,
    subject: Subject,
    schedule: Schedule,
    since_start: Duration,
    tell: mpsc::Sender<Answer>,
) {
    tokio::time::sleep(schedule.initial_delay.saturating_sub(since_start)).await;
    let mut ticks = tokio::time::interval(schedule.period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut tally = Tally::default();
    let mut told = None;
    loop {
        ticks.tick().await;
        let asked = tokio::time::timeout(schedule.timeout, asker.ask(&subject, schedule.timeout)).await;
        let failure = match asked {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(_) => Some(format!("no answer within {} s", schedule.timeout.as_secs())),
        };
        let counted = tally.add(failure.is_none(), &schedule);
        let verdict = counted.filter(|verdict| told != Some(*verdict));
        if verdict.is_some() {
            told = verdict;
        }
        if verdict.is_some() || failure.is_some() {
            let answer = Answer { subject: subject.clone(), verdict, failure, grace: schedule.grace };
            if tell.send(answer).await.is_err() {
                return;
            }
        }
        match (subject.kind, verdict) {
            (ProbeKind::Startup, Some(_)) | (ProbeKind::Liveness, Some(false)) => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Scripted(Mutex<Vec<bool>>);

    #[async_trait]
    impl Asker for Scripted {
        async fn ask(&self, _subject: &Subject, _timeout: Duration) -> Result<(), String> {
            let next = self.0.lock().unwrap().pop();
            match next {
                Some(true) => Ok(()),
                Some(false) => Err("no".into()),
                None => std::future::pending().await,
            }
        }
    }

    async fn run(kind: ProbeKind, script: &[bool], delay: u64) -> (Vec<Option<bool>>, Duration) {
        let mut script = script.to_vec();
        script.reverse();
        let schedule = Schedule {
            initial_delay: Duration::from_secs(delay),
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 2,
            grace: None,
        };
        let (tell, mut told) = mpsc::channel(16);
        let subject = Subject { container: "c".into(), id: "1".into(), kind };
        let begun = tokio::time::Instant::now();
        let limit = Duration::from_secs(100);
        let watching = watch(Arc::new(Scripted(Mutex::new(script))), subject, schedule, Duration::ZERO, tell);
        let _ended = tokio::time::timeout(limit, watching).await;
        let mut verdicts = Vec::new();
        while let Ok(answer) = told.try_recv() {
            verdicts.push(answer.verdict);
        }
        (verdicts, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn verdicts_and_timing() {
        let (yes, no) = (Some(true), Some(false));
        let (told, took) = run(ProbeKind::Startup, &[false, true], 5).await;
        assert_eq!((told, took.as_secs()), (vec![None, yes], 15));
        let (told, took) = run(ProbeKind::Liveness, &[true, true, false, false], 0).await;
        assert_eq!((told, took.as_secs()), (vec![yes, None, no], 30));
        let (told, _) = run(ProbeKind::Readiness, &[true, false, false, true], 0).await;
        // After the script it hangs, which counts as failing.
        assert_eq!(told.get(..4), Some([yes, None, no, yes].as_slice()));
        assert_eq!(told.get(4..6), Some([None, no].as_slice()));
    }
}
