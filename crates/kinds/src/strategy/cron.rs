//! CronJobs: a schedule and the Job it makes.

use meta::{FieldError, Object, Value};
use resource::{Context, Strategy};
use serde_json::json;

use super::{job, pod_defaults};
use crate::validate::{At, Errors};

/// Behaviour of `batch/v1` CronJob.
pub(crate) struct CronJob;

impl Strategy for CronJob {
    fn default(&self, object: &mut Object) {
        let path = ["spec", "jobTemplate", "spec", "template", "spec"];
        pod_defaults::pod_spec(object.map_at(&path));
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return;
        }
        let spec = At::root(new, "spec");
        let at = spec.get("schedule");
        if at.is_empty() {
            at.required(errors, "");
        } else {
            if let Err(why) = schedule(at.text()) {
                at.invalid(errors, why);
            }
            let kept =
                old.is_some_and(|old| old.str(&["spec", "schedule"]).is_some_and(|s| s.contains("TZ")));
            if at.text().contains("TZ") && !kept {
                at.invalid(errors, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
            }
        }
        for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            spec.get(field).not_negative(errors);
        }
        let template = spec.at(&["jobTemplate", "spec"]);
        job::spec(&template, errors);
        if template.get("selector").is_set() {
            template.get("selector").invalid(errors, "`selector` will be auto-generated");
        }
        if template.get("manualSelector").flag() {
            template.get("manualSelector").not_supported(errors, &["nil", "false"]);
        }
        let zone = spec.get("timeZone");
        if zone.value() == &Value::from("") || zone.text().eq_ignore_ascii_case("local") {
            zone.invalid(
                errors,
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            );
        }
        if old.is_none() && new.name().len() > 52 {
            let value = json!(new.name());
            errors.push(FieldError::invalid("metadata.name", &value, "must be no more than 52 characters"));
        }
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Whether a text is a schedule of five fields or a descriptor, worded as robfig/cron v3, which upstream
/// uses.
fn schedule(text: &str) -> Result<(), String> {
    if let Some(rest) = text.strip_prefix('@') {
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        let every = rest.strip_prefix("every ").is_some_and(|span| !span.is_empty());
        return if known.contains(&rest) || every {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: {text}"))
        };
    }
    let zoned =
        text.split_once(' ').filter(|(zone, _)| zone.starts_with("TZ=") || zone.starts_with("CRON_TZ="));
    let fields: Vec<&str> = zoned.map_or(text, |(_, rest)| rest).split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields.as_slice() else {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    };
    field(minute, 0, 59, &[], 0)?;
    field(hour, 0, 23, &[], 0)?;
    field(day, 1, 31, &[], 0)?;
    field(month, 1, 12, MONTHS, 1)?;
    field(weekday, 0, 6, DAYS, 0)
}

/// A list of ranges: `*`, `a`, `a-b`, each with `/step`.
fn field(text: &str, low: u32, high: u32, names: &[&str], base: u32) -> Result<(), String> {
    for range in text.split(',') {
        let (span, step) = range.split_once('/').map_or((range, None), |(span, step)| (span, Some(step)));
        if step.is_some_and(|step| step.contains('/')) {
            return Err(format!("too many slashes: {range}"));
        }
        let value = |text: &str| {
            let named = names.iter().position(|name| text.eq_ignore_ascii_case(name));
            let named = named.and_then(|at| u32::try_from(at).ok()).map(|at| at + base);
            named.map_or_else(|| number(text), Ok)
        };
        let (start, end) = match span.split_once('-') {
            _ if span == "*" || span == "?" => (low, high),
            Some((start, end)) if !end.contains('-') => (value(start)?, value(end)?),
            Some(_) => return Err(format!("too many hyphens: {range}")),
            None => {
                let start = value(span)?;
                (start, if step.is_some() { high } else { start })
            }
        };
        if start < low {
            return Err(format!("beginning of range ({start}) below minimum ({low}): {range}"));
        }
        if end > high {
            return Err(format!("end of range ({end}) above maximum ({high}): {range}"));
        }
        if start > end {
            return Err(format!("beginning of range ({start}) beyond end of range ({end}): {range}"));
        }
        if step.map(number).transpose()? == Some(0) {
            return Err(format!("step of range should be a positive number: {range}"));
        }
    }
    Ok(())
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in
            ["* * * * *", "*/5 0-3 1,15 jan-mar Mon", "@hourly", "@every 1h", "0 0 ? * *", "TZ=UTC * * * * *"]
        {
            assert_eq!(schedule(good), Ok(()), "{good}");
        }
        for (bad, words) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@x", "unrecognized descriptor: @x"),
        ] {
            assert_eq!(schedule(bad), Err(words.to_owned()), "{bad}");
        }
    }
}
