//! Which run of a schedule is due (upstream `cronjob/utils.go`).

use std::time::Duration;

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus};
use meta::Timestamp;

use super::schedule::Schedule;

/// So many missed runs are worth a warning; only the last of them is made up for in any case.
const MISSED_MAX: i64 = 100;
/// Clocks may differ by this much (upstream `nextScheduleDelta`).
const DELTA: Duration = Duration::from_millis(100);

/// Where a CronJob stands with its schedule.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The last time that has come and was not seen to yet.
    pub(super) at: Option<Timestamp>,
    /// More than [`MISSED_MAX`] times have come since the last run.
    pub(super) many: bool,
    /// When to look again.
    pub(super) next: Option<Duration>,
}

/// Reads `status` as the state after everything observed. An error is a schedule that has no times.
pub(super) fn due(
    cron: &CronJob,
    status: &CronJobStatus,
    schedule: &Schedule,
    now: Timestamp,
) -> Result<Due, String> {
    let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let last = status.last_schedule_time.as_ref().map_or(created, |time| time.0);
    let deadline = cron.spec.starting_deadline_seconds;
    let oldest = deadline.and_then(|s| Timestamp::from_second(now.as_second().saturating_sub(s)).ok());
    let (at, many) = latest(schedule, oldest.map_or(last, |oldest| oldest.max(last)), now)?;
    let next = schedule.next(at.unwrap_or(if many { now } else { last }).max(last));
    let next = match next {
        Some(next) if next > now => Some(next),
        // The last time of the past, without the deadline, is where the next one follows from.
        _ => schedule.next(latest(schedule, last, now)?.0.unwrap_or(now)),
    };
    let wait = |next: Timestamp| Duration::try_from(next.duration_since(now)).unwrap_or_default() + DELTA;
    Ok(Due { at, many, next: next.map(wait) })
}

/// The last time after `earliest` that is not after `now`, and whether very many are.
fn latest(
    schedule: &Schedule,
    earliest: Timestamp,
    now: Timestamp,
) -> Result<(Option<Timestamp>, bool), String> {
    let never = || "the schedule has no time within five years".to_owned();
    let first = schedule.next(earliest).ok_or_else(never)?;
    if now < first {
        return Ok((None, false));
    }
    let second = schedule.next(first).ok_or_else(never)?;
    if now < second {
        return Ok((Some(first), false));
    }
    // Roughly: as many as fit at the distance of the first two; two distances back from the last of
    // them the real ones are counted, since a schedule may be uneven.
    let between = second.as_second().saturating_sub(first.as_second()).max(1);
    let missed = (now.as_second() - first.as_second()) / between + 1;
    let from = first.as_second() + (missed - 2) * between;
    let mut last = None;
    let mut at = Timestamp::from_second(from).ok().and_then(|from| schedule.next(from));
    while let Some(time) = at.filter(|time| *time <= now) {
        last = Some(time);
        at = schedule.next(time);
    }
    Ok((last, missed > MISSED_MAX))
}

#[cfg(test)]
mod tests {
    use reconcile::testkit::yaml;

    use super::*;

    fn check(schedule: &str, last: &str, deadline: i64, now: &str, expected: (Option<&str>, bool, u64)) {
        let cron: CronJob = yaml(&format!(
            "metadata: {{ creationTimestamp: '2026-01-01T00:00:00Z' }}\nspec: {{ schedule: '', jobTemplate: {{}}, startingDeadlineSeconds: {deadline} }}"
        ));
        let status = yaml(&format!("lastScheduleTime: {last}"));
        let due =
            due(&cron, &status, &Schedule::parse(schedule, None).unwrap(), now.parse().unwrap()).unwrap();
        let at = due.at.map(|at| at.to_string());
        assert_eq!((at.as_deref(), due.many, due.next.unwrap().as_secs()), expected, "{schedule} {now}");
    }

    #[test]
    fn the_last_missed_time_is_due() {
        let far = 10_000_000;
        check("@hourly", "null", far, "2026-01-01T00:30:00Z", (None, false, 1800));
        check("@hourly", "null", far, "2026-01-01T01:00:10Z", (Some("2026-01-01T01:00:00Z"), false, 3590));
        check("@hourly", "null", far, "2026-01-01T05:00:10Z", (Some("2026-01-01T05:00:00Z"), false, 3590));
        check("@hourly", "'2026-01-01T05:00:00Z'", far, "2026-01-01T05:00:10Z", (None, false, 3590));
        check("* * * * *", "null", far, "2026-01-01T05:00:10Z", (Some("2026-01-01T05:00:00Z"), true, 50));
        check("@every 7s", "null", far, "2026-01-01T00:00:22Z", (Some("2026-01-01T00:00:21Z"), false, 6));
    }

    #[test]
    fn beyond_the_deadline_nothing_is_due() {
        check("@hourly", "null", 60, "2026-01-01T01:30:00Z", (None, false, 1800));
        check("@hourly", "null", 60, "2026-01-01T03:00:30Z", (Some("2026-01-01T03:00:00Z"), false, 3570));
    }
}
