//! Faults on purpose: everything that a network, a proxy and a server do to an agent (section 4.2 of the
//! specification), by chance from a seed, so that a run can be had again.

use std::{sync::Arc, time::Duration};

use meta::Random;
use parking_lot::Mutex;

/// What is done to one request instead of serving it, or beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers with this status and `Retry-After`, unread.
    Status(u16, Option<String>),
    /// Answers 302 to somewhere else.
    Redirect(String),
    /// Closes the connection unread.
    Disconnect,
    /// Serves it and closes the connection: the maker of duplicates.
    Swallow,
    /// Never answers.
    Hang,
    /// Serves it after so long.
    Slow(Duration),
    /// Serves it and cuts the answer in the middle.
    Truncate,
    /// Serves it and answers with half of the body, as if that were all.
    HalfBody,
    /// All tokens end first.
    ForgetTokens,
    /// Answers that it is done, and does nothing: silent loss, in batch mode.
    Drop,
    /// Forgets what was applied in the session, in batch mode.
    ForgetSession,
    /// Refuses bodies of more bytes than this.
    Larger(usize),
    /// Its clock is so many seconds ahead.
    Clock(i64),
    /// Refuses the batch as if one of its objects were bad, in batch mode.
    BadRecord,
}

type Choose = Box<dyn FnMut(&str) -> Option<Fault> + Send>;

/// Decides for each request whether something happens to it.
pub struct Faults(Mutex<Choose>);

/// A text that names no faults.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no fault: write PATH:FAULT%PERCENT, such as events:503%10 or stream:swallow%5; faults are a \
     status (503, 429/7 with Retry-After), redirect, disconnect, swallow, hang, slow/MILLISECONDS, truncate, \
     half-body, larger/BYTES (413), clock/SECONDS (ahead; -600 is behind), forget-tokens, drop, forget-session, bad-record; PATH is the end of the path, or * for all"
)]
pub struct FaultError(String);

impl Faults {
    /// None.
    pub fn none() -> Self {
        Self::by(|_| None)
    }

    /// What a function of the path says.
    pub fn by(choose: impl FnMut(&str) -> Option<Fault> + Send + 'static) -> Self {
        Self(Mutex::new(Box::new(choose)))
    }

    /// Reads rules such as `events:503%10`; chance comes from `random`.
    pub fn parse(rules: &[String], random: Arc<dyn Random>) -> Result<Self, FaultError> {
        let rules = rules.iter().map(|text| rule(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self::by(move |path| {
            let matches = |end: &str| end == "*" || path.ends_with(end);
            let mut chosen = rules.iter().filter(|(end, _, _)| matches(end));
            chosen.find(|(_, _, percent)| random.below(100) < *percent).map(|(_, fault, _)| fault.clone())
        }))
    }

    /// Sets what is to happen from now on.
    pub fn set(&self, choose: impl FnMut(&str) -> Option<Fault> + Send + 'static) {
        *self.0.lock() = Box::new(choose);
    }

    pub(crate) fn choose(&self, path: &str) -> Option<Fault> {
        (self.0.lock())(path)
    }
}

fn rule(text: &str) -> Result<(String, Fault, u64), FaultError> {
    let read = || {
        let (path, rest) = text.split_once(':')?;
        let (fault, percent) = rest.rsplit_once('%')?;
        let percent = percent.parse().ok().filter(|percent| *percent <= 100)?;
        let (word, value) = fault.split_once('/').map_or((fault, None), |(word, value)| (word, Some(value)));
        let fault = match (word, value) {
            ("redirect", None) => Fault::Redirect("https://elsewhere.invalid/".to_owned()),
            ("disconnect", None) => Fault::Disconnect,
            ("swallow", None) => Fault::Swallow,
            ("hang", None) => Fault::Hang,
            ("slow", Some(millis)) => Fault::Slow(Duration::from_millis(millis.parse().ok()?)),
            ("larger", Some(bytes)) => Fault::Larger(bytes.parse().ok()?),
            ("clock", Some(seconds)) => Fault::Clock(seconds.parse().ok()?),
            ("truncate", None) => Fault::Truncate,
            ("half-body", None) => Fault::HalfBody,
            ("forget-tokens", None) => Fault::ForgetTokens,
            ("drop", None) => Fault::Drop,
            ("forget-session", None) => Fault::ForgetSession,
            ("bad-record", None) => Fault::BadRecord,
            (status, after) => {
                let status = status.parse().ok().filter(|status| (300..600).contains(status))?;
                Fault::Status(status, after.map(str::to_owned))
            }
        };
        Some((path.to_owned(), fault, percent))
    };
    read().ok_or_else(|| FaultError(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read() {
        let check = |text: &str, fault: Option<Fault>| {
            assert_eq!(rule(text).ok().map(|(_, fault, _)| fault), fault, "{text}");
        };
        check("events:503%10", Some(Fault::Status(503, None)));
        check("*:429/7%100", Some(Fault::Status(429, Some("7".into()))));
        check("stream:slow/250%5", Some(Fault::Slow(Duration::from_millis(250))));
        check("token:clock/-600%100", Some(Fault::Clock(-600)));
        check("snapshot:larger/1000%100", Some(Fault::Larger(1000)));
        check("stream:swallow%5", Some(Fault::Swallow));
        for bad in ["", "events", "events:503", "events:burn%3", "events:200%3", "events:503%101", "x:slow%1"]
        {
            check(bad, None);
        }
    }
}
