//! What an answer that is not success means for what was sent.

use std::{fmt, time::Duration};

use meta::Timestamp;

use super::{Reply, transport::http_date};

/// The longest wait that a platform may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// Of the platform's own words, so many characters.
const WORDS_MAX: usize = 200;

/// Why a request did not succeed, by what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// No connection, no answer in time, 408, 425, 429, 5xx: the same request may succeed later.
    Transient,
    /// The platform does not accept the client: 401 twice, or no token for its assertion.
    Unauthorized,
    /// 403: the client is known and may not.
    Forbidden,
    /// 400, 413, 415, 422: what was sent is refused for what it says.
    Content,
    /// Another agent speaks for the cluster.
    Superseded,
    /// Any other status: the address is not the platform's, or it has changed.
    Endpoint,
}

/// A request that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What to do about it.
    pub refusal: Refusal,
    /// The platform's status, if it answered.
    pub status: Option<u16>,
    /// The least time to wait, as the platform asked.
    pub retry_after: Option<Duration>,
    /// For conditions and logs; never holds what was sent.
    pub message: String,
    /// The beginning of the platform's answer, for programs; never logged.
    pub answer: bytes::Bytes,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Trouble {
    /// No answer at all.
    pub(crate) fn unreachable(what: &str, why: impl fmt::Display) -> Self {
        Self {
            refusal: Refusal::Transient,
            status: None,
            retry_after: None,
            message: format!("{what}: no answer from the platform: {why}"),
            answer: bytes::Bytes::new(),
        }
    }

    /// An answer other than success.
    pub(crate) fn answered(what: &str, reply: &Reply, now: Timestamp) -> Self {
        let status = reply.status;
        let refusal = match status {
            408 | 425 | 429 | 500..=599 => Refusal::Transient,
            401 => Refusal::Unauthorized,
            403 => Refusal::Forbidden,
            400 | 413 | 415 | 422 => Refusal::Content,
            _ => Refusal::Endpoint,
        };
        let advice = match status {
            300..=399 => "; redirects are not followed: put the final address into spec.platformURL",
            404 | 405 | 410 => "; is spec.platformURL the platform's address?",
            _ => "",
        };
        let retry_after = reply.retry_after.as_deref().and_then(|text| wait(text, reply.date.unwrap_or(now)));
        let words = words(&reply.body);
        let message = format!("{what}: the platform answered {status}{words}{advice}");
        Self { refusal, status: Some(status), retry_after, message, answer: reply.body.clone() }
    }
}

/// `Retry-After` as a wait: seconds, or a date by the platform's own clock.
fn wait(text: &str, now: Timestamp) -> Option<Duration> {
    let span = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let seconds = http_date(text)?.as_second().saturating_sub(now.as_second());
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
        }
    };
    Some(span.min(RETRY_AFTER_MAX))
}

/// What an error says for people: OAuth's (RFC 6749 section 5.2).
#[derive(serde::Deserialize)]
struct Described {
    error: String,
    error_description: String,
}

/// The beginning of an error's body, printable, on one line.
fn words(body: &[u8]) -> String {
    let described = serde_json::from_slice::<Described>(body);
    let text = match &described {
        Ok(Described { error, error_description }) => format!("{error}: {error_description}").into(),
        Err(_) => String::from_utf8_lossy(body),
    };
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect();
    let text = text.trim();
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_waits() {
        let now = Timestamp::from_second(784_111_777).unwrap();
        let check = |status: u16, after: Option<&str>, refusal: Refusal, seconds: Option<u64>| {
            let reply = Reply { status, retry_after: after.map(str::to_owned), ..Reply::default() };
            let trouble = Trouble::answered("heartbeat", &reply, now);
            assert_eq!(
                (trouble.refusal, trouble.retry_after.map(|d| d.as_secs())),
                (refusal, seconds),
                "{status}"
            );
        };
        check(429, Some("7"), Refusal::Transient, Some(7));
        check(503, Some("Sun, 06 Nov 1994 08:49:47 GMT"), Refusal::Transient, Some(10));
        check(503, Some("Sat, 06 Nov 1993 08:49:47 GMT"), Refusal::Transient, Some(0));
        check(503, Some("99999999999"), Refusal::Transient, Some(600));
        check(503, Some("soon"), Refusal::Transient, None);
        check(401, None, Refusal::Unauthorized, None);
        check(403, None, Refusal::Forbidden, None);
        check(413, None, Refusal::Content, None);
        check(404, None, Refusal::Endpoint, None);
        check(302, None, Refusal::Endpoint, None);
        check(0, None, Refusal::Endpoint, None);
        for (body, said) in [
            (
                "{\"error\":\"invalid_client\",\"error_description\":\"not its key\"}",
                "(invalid_client: not its key)",
            ),
            ("{\"error\":\"fault\"}", "({\"error\":\"fault\"})"),
            ("<b>no\u{7}</b>\n", "(<b>no </b>)"),
        ] {
            let reply = Reply { status: 400, body: body.into(), ..Reply::default() };
            let message = Trouble::answered("token", &reply, now).message;
            assert_eq!(message, format!("token: the platform answered 400 {said}"));
        }
    }
}
