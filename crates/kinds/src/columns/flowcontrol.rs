//! Priority and fairness.

use super::{AGE, Col};

/// Columns of a FlowSchema.
pub(crate) const FLOW_SCHEMA: &[Col] = &[
    Col::text_at("PriorityLevel", "spec.priorityLevelConfiguration.name", ""),
    Col::int_at("MatchingPrecedence", "spec.matchingPrecedence"),
    Col::text_at("DistinguisherMethod", "spec.distinguisherMethod.type", "<none>"),
    AGE,
    Col::text("MissingPL", |object, _| {
        let conditions = object.list(&["status", "conditions"]);
        let dangling = conditions.iter().find(|c| c.get("type").is_some_and(|t| t == "Dangling"));
        dangling.and_then(|c| c.get("status")).cloned().unwrap_or_else(|| "?".into())
    }),
];

/// Columns of a PriorityLevelConfiguration.
pub(crate) const PRIORITY_LEVEL: &[Col] = &[
    Col::text_at("Type", "spec.type", ""),
    Col::text_at("NominalConcurrencyShares", "spec.limited.nominalConcurrencyShares", "<none>"),
    Col::text_at("Queues", "spec.limited.limitResponse.queuing.queues", "<none>"),
    Col::text_at("HandSize", "spec.limited.limitResponse.queuing.handSize", "<none>"),
    Col::text_at("QueueLengthLimit", "spec.limited.limitResponse.queuing.queueLengthLimit", "<none>"),
    AGE,
];
