//! Time spans as kubectl shows them: two units at most, coarser the longer they are (apimachinery
//! `util/duration.HumanDuration`).

pub(crate) use meta::human_duration as human;
use meta::{Object, Timestamp, Value};

/// Time since the object's creation.
pub(crate) fn age(object: &Object, now: Timestamp) -> Value {
    since(object.str(&["metadata", "creationTimestamp"]), now).into()
}

/// Time since an RFC 3339 instant; `<unknown>` without one.
pub(crate) fn since(at: Option<&str>, now: Timestamp) -> String {
    match at.and_then(parse) {
        Some(at) => human(now.as_second().saturating_sub(at.as_second())),
        None => "<unknown>".to_owned(),
    }
}

/// Reads `metav1.Time` or `metav1.MicroTime`.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (8 * 3600, "8h"),
            (47 * 3600, "47h"),
            (49 * 3600, "2d1h"),
            (8 * 86_400, "8d"),
            (800 * 86_400, "2y70d"),
            (9 * 365 * 86_400, "9y"),
        ] {
            assert_eq!(human(seconds), text, "{seconds}");
        }
        assert_eq!(since(None, Timestamp::UNIX_EPOCH), "<unknown>");
        assert_eq!(since(Some("1969-12-31T23:59:30Z"), Timestamp::UNIX_EPOCH), "30s");
    }
}
