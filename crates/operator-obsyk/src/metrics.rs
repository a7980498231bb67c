//! What the agents count, in the Prometheus text form, by the agent they are of.

use meta::ObjectKey;

use crate::{stream::Report, types::StreamStatus};

/// Name, help, whether it only grows, and the number.
type Series = (&'static str, &'static str, bool, fn(&StreamStatus) -> u64);

const SERIES: &[Series] = &[
    ("queue_objects", "Objects whose change the platform does not have yet.", false, |s| s.queue_objects),
    ("queue_bytes", "Bytes that wait for them.", false, |s| s.queue_bytes),
    ("queue_bytes_max", "Most bytes that ever waited.", false, |s| s.queue_bytes_max),
    ("observed_total", "States and deletes that watches and lists showed.", true, |s| s.observed),
    ("noop_total", "Of these, those that changed nothing the platform gets.", true, |s| s.noop),
    ("queued_total", "Changes that were queued.", true, |s| s.queued),
    ("sent_total", "Changes the platform acknowledged.", true, |s| s.sent),
    ("merged_total", "Changes that a newer one of the same object replaced.", true, |s| s.merged),
    ("withdrawn_total", "Changes that became needless before they were sent.", true, |s| s.withdrawn),
    ("shed_total", "Changes dropped for want of room and read again.", true, |s| s.shed),
    ("retries_total", "Requests sent again.", true, |s| s.retries),
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
    let mut gauge = |name: &str, help: &str, number: &dyn Fn(&Report) -> usize| {
        text.push_str(&format!("# HELP obsyk_agent_{name} {help}\n# TYPE obsyk_agent_{name} gauge\n"));
        for (key, report) in agents {
            let (namespace, agent, value) = (&key.namespace, &key.name, number(report));
            text.push_str(&format!(
                "obsyk_agent_{name}{{namespace=\"{namespace}\",agent=\"{agent}\"}} {value}\n"
            ));
        }
    };
    gauge(
        "refused_objects",
        "Objects that the platform has not as they are, since it refused that.",
        &|report| report.refusals.as_ref().map_or(0, |(count, _)| *count),
    );
    gauge("up", "Whether nothing keeps the platform from knowing everything.", &|report| {
        usize::from(report.trouble.is_none())
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_agent_has_its_line() {
        let mut report = Report::default();
        report.stream.sent = 7;
        report.refusals = Some((3, "Pod ns/a".to_owned()));
        let text = text(&[(ObjectKey::new("ns", "a"), report)]);
        assert!(text.contains("obsyk_agent_sent_total{namespace=\"ns\",agent=\"a\"} 7\n"), "{text}");
        assert!(text.contains("obsyk_agent_refused_objects{namespace=\"ns\",agent=\"a\"} 3\n"), "{text}");
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
