//! What is true of an ObsykAgent, in its status. Times come from the agent's report, which changes at most
//! every half minute unless something happened, so that writing a status is no reason to write another.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meta::Timestamp;
use reconcile::{Condition, set_condition};

use crate::{
    reconciler::Wanted,
    stream::{Report, Settings},
    types::{ObsykAgent, ObsykAgentStatus},
    wire::Refusal,
};

/// `True` or `False` with its reason and message.
type Fact = (&'static str, &'static str, String);

/// The status that follows from what is wanted and what runs.
pub(crate) fn status(
    agent: &ObsykAgent,
    wanted: &Wanted,
    running: Option<&(Settings, Report)>,
    now: Timestamp,
) -> ObsykAgentStatus {
    let before = agent.status.clone().unwrap_or_default();
    let report = running.map(|(_, report)| report.clone()).unwrap_or_default();
    let mut conditions = before.conditions.clone();
    let facts = [
        ("Available", available(wanted, &report)),
        ("Syncing", syncing(wanted, &report)),
        ("Degraded", degraded(wanted, &report)),
        ("CredentialsValid", credentials(wanted, &report)),
        ("CachesSynced", caches(wanted, &report)),
    ];
    for (kind, (status, reason, message)) in facts {
        let condition = Condition { kind, status, reason, message };
        set_condition(&mut conditions, condition, agent.metadata.generation, now);
    }
    let cluster_uid = match wanted {
        Wanted::Settings(settings) => Some(settings.cluster_uid.clone()),
        Wanted::Gone | Wanted::BadSpec(_) | Wanted::NoSecret(_) | Wanted::BadSecret(_) => before.cluster_uid,
    };
    ObsykAgentStatus {
        cluster_uid,
        conditions,
        last_sync_time: report.last_ack.map(second).or(before.last_sync_time),
        last_snapshot_time: report.last_snapshot.map(second).or(before.last_snapshot_time),
        observed_generation: agent.metadata.generation,
        resource_counts: (!report.counts.is_empty()).then_some(report.counts).or(before.resource_counts),
        stream: running.map(|_| report.stream),
    }
}

/// Times on the wire have whole seconds.
fn second(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Why nothing can be sent, when it is not for the platform.
fn blocked(wanted: &Wanted) -> Option<(&'static str, &String)> {
    match wanted {
        Wanted::BadSpec(why) => Some(("InvalidSpec", why)),
        Wanted::NoSecret(why) => Some(("AuthenticationError", why)),
        Wanted::Gone | Wanted::BadSecret(_) | Wanted::Settings(_) => None,
    }
}

fn available(wanted: &Wanted, report: &Report) -> Fact {
    if let Some((reason, why)) = blocked(wanted) {
        return ("False", reason, why.clone());
    }
    match (&report.trouble, begun(report)) {
        (Some(trouble), _) => ("False", reason(trouble.refusal), trouble.message.clone()),
        (None, false) => match wanted {
            Wanted::BadSecret(why) => ("False", "AuthenticationError", why.clone()),
            _ => ("False", "Starting", "the first snapshot is not acknowledged yet".to_owned()),
        },
        (None, true) => ("True", "AgentRunning", "the platform acknowledges what is sent".to_owned()),
    }
}

fn syncing(wanted: &Wanted, report: &Report) -> Fact {
    let (status, reason, message) = available(wanted, report);
    match (status, &report.trouble, begun(report)) {
        ("True", _, _) => ("True", "SyncActive", "changes are sent as they happen".to_owned()),
        (_, Some(_), false) => ("False", "SnapshotFailed", message),
        (_, Some(_), true) => ("False", "HeartbeatFailed", message),
        _ => ("False", reason, message),
    }
}

/// A platform that is merely away degrades nothing here: the stream waits, and nothing is lost.
fn degraded(wanted: &Wanted, report: &Report) -> Fact {
    if let Some((reason, why)) = blocked(wanted) {
        return ("True", reason, why.clone());
    }
    if let Wanted::BadSecret(why) = wanted {
        return ("True", "AuthenticationError", why.clone());
    }
    if let Some(trouble) = report.trouble.as_ref().filter(|trouble| trouble.refusal != Refusal::Transient) {
        return ("True", reason(trouble.refusal), trouble.message.clone());
    }
    let mut facts = Vec::new();
    if let Some((count, one)) = &report.refusals {
        let why = format!(
            "the platform refuses {count} objects for what they say, among them {one}; each is said again after \
             a while, and the log has the platform's status"
        );
        facts.push(("ChangesRefused", why));
    }
    if let Some(words) = &report.refused {
        let rest = "everything is sent as changes instead; what was deleted while no agent ran stays there";
        facts.push(("SnapshotRefused", format!("{words}; {rest}")));
    }
    if !report.unread.is_empty() {
        facts.push(("KindsUnread", unread(report)));
    }
    if let Some((reason, _)) = facts.first().cloned() {
        let all: Vec<String> = facts.into_iter().map(|(_, why)| why).collect();
        return ("True", reason, all.join("; "));
    }
    let all = match report.trouble {
        Some(_) => "nothing is lost while the platform is away: what changes waits, or is read again",
        None => "nothing here needs attention",
    };
    ("False", "AgentHealthy", all.to_owned())
}

fn credentials(wanted: &Wanted, report: &Report) -> Fact {
    match wanted {
        Wanted::NoSecret(why) | Wanted::BadSecret(why) => ("False", "AuthenticationError", why.clone()),
        Wanted::Gone | Wanted::BadSpec(_) => ("Unknown", "InvalidSpec", "not looked at".to_owned()),
        Wanted::Settings(_) => match &report.trouble {
            Some(trouble) if trouble.refusal == Refusal::Unauthorized => {
                ("False", "AuthenticationError", trouble.message.clone())
            }
            _ if report.last_ack.is_some() => ("True", "Accepted", "the platform accepts them".to_owned()),
            _ => ("Unknown", "Untried", "the platform has acknowledged nothing with them yet".to_owned()),
        },
    }
}

fn caches(wanted: &Wanted, report: &Report) -> Fact {
    if !report.unread.is_empty() {
        return ("False", "KindsUnread", unread(report));
    }
    if report.listed {
        return ("True", "Synced", "all kinds are watched".to_owned());
    }
    let why = match wanted {
        Wanted::Settings(_) => "the kinds have not all been listed yet",
        Wanted::Gone | Wanted::BadSpec(_) | Wanted::NoSecret(_) | Wanted::BadSecret(_) => {
            "no kind is read until the agent can run"
        }
    };
    ("Unknown", "Starting", why.to_owned())
}

/// Whether what there was at the start is sent, or is being sent as changes.
fn begun(report: &Report) -> bool {
    report.began || report.last_snapshot.is_some() || report.refused.is_some()
}

fn unread(report: &Report) -> String {
    let kinds = report.unread.iter().map(|(kind, why)| format!("{}: {why}", kind.plural()));
    format!("cannot read {}; grant list and watch on them", kinds.collect::<Vec<_>>().join("; "))
}

/// The reason of a condition.
pub(crate) fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Transient => "PlatformUnavailable",
        Refusal::Unauthorized => "AuthenticationError",
        Refusal::Forbidden => "Forbidden",
        Refusal::Superseded => "SessionTakenOver",
        Refusal::Content => "ContentRefused",
        Refusal::Endpoint => "UnexpectedAnswer",
    }
}
