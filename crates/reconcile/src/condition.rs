//! Conditions: the transition time moves only when the status does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;
use meta::Timestamp;

/// A condition as one step of a plan wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition<'a> {
    /// `type`.
    pub kind: &'a str,
    /// `True`, `False` or `Unknown`.
    pub status: &'a str,
    /// One CamelCase word.
    pub reason: &'a str,
    /// For a reader: what is, and what to change.
    pub message: String,
}

/// Puts `wanted` into `conditions`, keeping `lastTransitionTime` while the status stays the same, and
/// the place in the list of a condition that is already there.
pub fn set_condition(
    conditions: &mut Vec<metav1::Condition>,
    wanted: Condition<'_>,
    observed_generation: Option<i64>,
    now: Timestamp,
) {
    let Condition { kind, status, reason, message } = wanted;
    let fresh = |since| metav1::Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation,
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(present) => {
            let since =
                if present.status == status { present.last_transition_time.clone() } else { second(now) };
            *present = fresh(since);
        }
        None => conditions.push(fresh(second(now))),
    }
}

/// Wire times have whole seconds; dropping the rest here keeps a planned status equal to a stored one.
fn second(now: Timestamp) -> metav1::Time {
    metav1::Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_with_the_status_only() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let want = |status| Condition { kind: "Ready", status, reason: "R", message: "m".into() };
        let mut list = Vec::new();
        set_condition(&mut list, want("False"), Some(1), at(10));
        set_condition(&mut list, want("False"), Some(2), at(20));
        assert_eq!((list[0].last_transition_time.0, list[0].observed_generation), (at(10), Some(2)));
        set_condition(&mut list, want("True"), Some(2), at(30));
        assert_eq!((list.len(), list[0].last_transition_time.0), (1, at(30)));
    }
}
