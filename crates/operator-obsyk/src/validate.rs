//! A spec as users write it becomes one that cannot be wrong, or a sentence that says what to change.
//!
//! The CRD refuses most of this already; an agent may be older than the CRD's rules.

use std::time::Duration;

use crate::types::ObsykAgentSpec;

/// What an absent, zero or negative `syncInterval` means, as the original.
pub(crate) const SYNC_INTERVAL_DEFAULT: &str = "5m";
/// Changes per second, as the original.
pub(crate) const RATE_DEFAULT: i32 = 10;
/// Changes at once, as the original.
pub(crate) const BURST_DEFAULT: i32 = 20;
/// Largest rate and burst, as the original.
pub(crate) const RATE_MAX: i32 = 1000;
/// Shorter intervals would make the heartbeat the main load; the original took any.
const SYNC_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// A spec that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Valid {
    /// `spec.platformURL` as it is written: it is the audience of the assertion too.
    pub platform_url: String,
    /// `spec.clusterName`.
    pub cluster_name: String,
    /// Name of the Secret with the credentials.
    pub secret: String,
    /// Time between heartbeats.
    pub sync_interval: Duration,
    /// Changes per second, 1 to 1000.
    pub events_per_second: u32,
    /// Changes at once, 1 to 1000.
    pub burst: u32,
    /// Whether batches are sent to a platform that understands them.
    pub batch: bool,
}

/// Checks a spec; the error is a message for the user.
pub fn validate(spec: &ObsykAgentSpec) -> Result<Valid, String> {
    let ObsykAgentSpec {
        platform_url,
        cluster_name,
        credentials_secret_ref,
        sync_interval,
        rate_limit,
        transport,
    } = spec;
    let parsed: http::Uri = platform_url.parse().map_err(|error| {
        format!(
            "spec.platformURL {platform_url:?} is not a URL ({error}): write it like https://api.obsyk.ai"
        )
    })?;
    if !matches!(parsed.scheme_str(), Some("http" | "https")) || parsed.host().is_none_or(str::is_empty) {
        return Err(format!(
            "spec.platformURL {platform_url:?} has to begin with https:// or http:// and name a host"
        ));
    }
    if parsed.query().is_some() {
        return Err(format!(
            "spec.platformURL {platform_url:?} must not have a query: paths are appended to it"
        ));
    }
    if cluster_name.is_empty() || cluster_name.len() > 253 {
        return Err("spec.clusterName has to have 1 to 253 characters".to_owned());
    }
    if credentials_secret_ref.name.is_empty() {
        return Err("spec.credentialsSecretRef.name is empty: name a Secret of this namespace".to_owned());
    }
    let text = sync_interval.as_deref().unwrap_or(SYNC_INTERVAL_DEFAULT);
    let interval = go_duration(text)
        .ok_or_else(|| format!("spec.syncInterval {text:?} is not a duration: write it like 5m or 30s"))?;
    let sync_interval = match interval {
        Some(interval) => interval.max(SYNC_INTERVAL_MIN),
        None => Duration::from_secs(300),
    };
    let batch = match transport.as_ref().and_then(|transport| transport.mode.as_deref()) {
        None | Some("auto") => true,
        Some("original") => false,
        Some(other) => {
            return Err(format!("spec.transport.mode {other:?} is unknown: write auto or original"));
        }
    };
    let rate = rate_limit.unwrap_or_default();
    let bounded = |name: &str, value: Option<i32>, default: i32| {
        let value = value.unwrap_or(default);
        u32::try_from(value)
            .ok()
            .filter(|_| (1..=RATE_MAX).contains(&value))
            .ok_or_else(|| format!("spec.rateLimit.{name} is {value}: it has to be between 1 and {RATE_MAX}"))
    };
    Ok(Valid {
        platform_url: platform_url.clone(),
        cluster_name: cluster_name.clone(),
        secret: credentials_secret_ref.name.clone(),
        sync_interval,
        events_per_second: bounded("eventsPerSecond", rate.events_per_second, RATE_DEFAULT)?,
        burst: bounded("burstSize", rate.burst_size, BURST_DEFAULT)?,
        batch,
    })
}

/// A duration as Go's `time.ParseDuration` reads it; the outer `None` is an error, the inner one zero or
/// less.
fn go_duration(text: &str) -> Option<Option<Duration>> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(None);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let units =
            [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        // The longest unit that fits: "ms" before "m".
        let fits = units.iter().filter(|(unit, _)| after.starts_with(unit));
        let (unit, scale) = fits.max_by_key(|(unit, _)| unit.len())?;
        if number.is_empty() || number == "." {
            return None;
        }
        let number = number.trim_end_matches('.');
        seconds += format!("0{number}").parse::<f64>().ok()? * scale;
        rest = after.get(unit.len()..)?;
    }
    let span = Duration::try_from_secs_f64(seconds).ok()?;
    Some((!negative && !span.is_zero()).then_some(span))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{RateLimit, SecretReference};

    fn spec() -> ObsykAgentSpec {
        ObsykAgentSpec {
            platform_url: "https://p.example".into(),
            cluster_name: "c".into(),
            credentials_secret_ref: SecretReference { name: "s".into() },
            sync_interval: None,
            rate_limit: None,
            transport: None,
        }
    }

    #[test]
    fn reads_durations_as_go() {
        let check = |text: &str, millis: Option<Option<u128>>| {
            assert_eq!(go_duration(text).map(|span| span.map(|s| s.as_millis())), millis, "{text}");
        };
        check("5m", Some(Some(300_000)));
        check("1h15m30.5s", Some(Some(4_530_500)));
        check("250ms", Some(Some(250)));
        check("1.s", Some(Some(1000)));
        check(".5s", Some(Some(500)));
        check("0", Some(None));
        check("0s", Some(None));
        check("-1s", Some(None));
        for bad in ["", "5", "m", "5 m", "5d", ".s", "1e3s", "-"] {
            check(bad, None);
        }
    }

    #[test]
    fn says_what_to_change() {
        let valid = validate(&spec()).unwrap();
        assert_eq!((valid.sync_interval.as_secs(), valid.events_per_second, valid.burst), (300, 10, 20));
        let check = |change: fn(&mut ObsykAgentSpec), part: &str| {
            let mut bad = spec();
            change(&mut bad);
            let message = validate(&bad).unwrap_err();
            assert!(message.contains(part), "{message}");
        };
        check(|s| s.platform_url = "ftp://x".into(), "https://");
        check(|s| s.platform_url = "https://".into(), "platformURL");
        check(|s| s.platform_url = "https://x/?a=b".into(), "query");
        check(|s| s.sync_interval = Some("soon".into()), "syncInterval");
        check(|s| s.cluster_name.clear(), "clusterName");
        check(|s| s.credentials_secret_ref.name.clear(), "credentialsSecretRef");
        let rate = RateLimit { events_per_second: Some(0), burst_size: None };
        assert!(validate(&ObsykAgentSpec { rate_limit: Some(rate), ..spec() }).is_err());
    }
}
