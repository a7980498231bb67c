//! What the agents count, in the Prometheus text form, by the agent they are of.

use meta::ObjectKey;

use crate::{status::reason, stream::Report, types::StreamStatus};

/// Name, help, whether it only grows, and the number.
type Series = (&'static str, &'static str, bool, fn(&StreamStatus) -> u64);

const SERIES: &[Series] = &[
    ("queue_objects", "Objects whose change the platform does not have yet.", false, |s| s.queue_objects),
    ("queue_bytes", "Bytes that wait for them.", false, |s| s.queue_bytes),
    ("lag_seconds", "How long the oldest change has waited that the platform does not have.", false, |s| {
        s.lag_seconds
    }),
    ("queue_bytes_max", "Most bytes that ever waited.", false, |s| s.queue_bytes_max),
    ("observed_total", "States and deletes that watches and lists showed.", true, |s| s.observed),
    ("noop_total", "Of these, those that changed nothing the platform gets.", true, |s| s.noop),
    ("queued_total", "Changes that were queued.", true, |s| s.queued),
    ("sent_total", "Changes the platform acknowledged.", true, |s| s.sent),
    ("merged_total", "Changes that a newer one of the same object replaced.", true, |s| s.merged),
    ("withdrawn_total", "Changes that became needless before they were sent.", true, |s| s.withdrawn),
    ("shed_total", "Changes dropped for want of room and read again.", true, |s| s.shed),
    ("retries_total", "Requests that failed and were sent again, or in another form.", true, |s| s.retries),
    ("refused_total", "Changes the platform refused for what they say.", true, |s| s.quarantined),
    ("snapshots_total", "Snapshots the platform acknowledged.", true, |s| s.snapshots),
    ("relists_total", "Lists read again for what was dropped.", true, |s| s.relists),
    ("sessions_total", "Sessions of the batch mode that were opened.", true, |s| s.sessions),
    ("batches_total", "Batches the platform acknowledged.", true, |s| s.batches),
    ("batch_bytes_total", "Bytes of batches as sent.", true, |s| s.sent_bytes),
    ("drift_repaired_total", "Kinds in which the platform differed and was repaired.", true, |s| {
        s.drift_repaired
    }),
];

/// The text for these agents.
pub(crate) fn text(agents: &[(ObjectKey, Report)]) -> String {
    let mut text = String::new();
    for (name, help, grows, number) in SERIES {
        let kind = if *grows { "counter" } else { "gauge" };
        text.push_str(&format!("# HELP obsyk_agent_{name} {help}\n# TYPE obsyk_agent_{name} {kind}\n"));
        for (key, report) in agents {
            let (namespace, agent) = (&key.namespace, &key.name);
            let value = number(&report.stream);
            text.push_str(&format!(
                "obsyk_agent_{name}{{namespace=\"{namespace}\",agent=\"{agent}\"}} {value}\n"
            ));
        }
    }
    let mut series = |name: &str, help: &str, kind: &str, numbers: &dyn Fn(&Report) -> Vec<(String, u64)>| {
        text.push_str(&format!("# HELP obsyk_agent_{name} {help}\n# TYPE obsyk_agent_{name} {kind}\n"));
        for (key, report) in agents {
            let (namespace, agent) = (&key.namespace, &key.name);
            for (label, value) in numbers(report) {
                text.push_str(&format!(
                    "obsyk_agent_{name}{{namespace=\"{namespace}\",agent=\"{agent}\"{label}}} {value}\n"
                ));
            }
        }
    };
    let one = |value: u64| vec![(String::new(), value)];
    let refused = "Objects that the platform has not as they are, since it refused that.";
    series("refused_objects", refused, "gauge", &|report| {
        one(report.refusals.as_ref().map_or(0, |(count, _)| u64::try_from(*count).unwrap_or(u64::MAX)))
    });
    series("up", "Whether nothing keeps the platform from knowing everything.", "gauge", &|report| {
        one(report.trouble.is_none().into())
    });
    series(
        "failures_total",
        "Requests that came to nothing, by the reason of the condition.",
        "counter",
        &|report| {
            let reasons = report.failures.iter();
            reasons.map(|(refusal, count)| (format!(",reason=\"{}\"", reason(*refusal)), *count)).collect()
        },
    );
    let in_a_row = "Failures since a request succeeded; after five a heartbeat goes before all else.";
    series("failures_in_a_row", in_a_row, "gauge", &|report| one(report.failures_in_a_row));
    series("tokens_total", "Access tokens the platform granted.", "counter", &|report| one(report.tokens));
    series("broken_watches_total", "Watches and lists of the API server that broke.", "counter", &|report| {
        one(report.broken_watches)
    });
    series("unread_kinds", "Kinds that cannot be read.", "gauge", &|report| {
        one(u64::try_from(report.unread.len()).unwrap_or(u64::MAX))
    });
    let last = "When the platform last acknowledged something, in seconds since 1970.";
    series("last_ack_timestamp_seconds", last, "gauge", &|report| {
        let second = report.last_ack.and_then(|at| u64::try_from(at.as_second()).ok());
        second.map(one).unwrap_or_default()
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Refusal;

    #[test]
    fn each_agent_has_its_line() {
        let mut report = Report::default();
        report.stream.sent = 7;
        report.refusals = Some((3, "Pod ns/a".to_owned()));
        report.failures.insert(Refusal::Transient, 4);
        let text = text(&[(ObjectKey::new("ns", "a"), report)]);
        assert!(text.contains("obsyk_agent_sent_total{namespace=\"ns\",agent=\"a\"} 7\n"), "{text}");
        assert!(text.contains("obsyk_agent_refused_objects{namespace=\"ns\",agent=\"a\"} 3\n"), "{text}");
        let failures =
            "obsyk_agent_failures_total{namespace=\"ns\",agent=\"a\",reason=\"PlatformUnavailable\"} 4\n";
        assert!(text.contains(failures), "{text}");
        assert!(text.contains("obsyk_agent_up{namespace=\"ns\",agent=\"a\"} 1\n"), "{text}");
    }

    #[test]
    fn the_rights_are_those_of_the_kinds() {
        let granted: usize = crate::READS.iter().map(|(_, resources)| resources.len()).sum();
        assert_eq!(granted, crate::Kind::ALL.len());
        for kind in crate::Kind::ALL {
            let of = crate::READS.iter().find(|(group, _)| *group == kind.group());
            assert!(of.is_some_and(|(_, resources)| resources.contains(&kind.plural())), "{kind:?}");
        }
    }
}
