//! `profiles[].pluginConfig`: what plugins are told (upstream `pkg/scheduler/apis/config`).

use std::time::Duration;

use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    config::{ConfigError, Draft, parse},
    plugins::BALANCED_MAX,
    profile::{AddedAffinity, Args, DefaultSpread, FitScoring, PreemptionArgs, Strategy},
    relations::{Labels, Spread},
    resources::Measure,
    selector::{NodeSelector, Term},
};

type Result<T> = std::result::Result<T, ConfigError>;

pub(super) fn apply(path: &str, name: &str, mut args: Value, draft: &mut Draft) -> Result<()> {
    let path = format!("{path}.args");
    if let Some(map) = args.as_object_mut() {
        for (field, wanted) in
            [("apiVersion", super::API_VERSION.to_owned()), ("kind", format!("{name}Args"))]
        {
            if let Some(given) = map.remove(field).filter(|given| *given != wanted) {
                return Err(ConfigError::at(format!("{path}.{field}"), format!("is {given}; want {wanted}")));
            }
        }
    } else {
        args = Value::Object(serde_json::Map::new());
    }
    let out = &mut draft.profile.args;
    match name {
        "InterPodAffinity" => inter_pod_affinity(&path, args, out),
        "NodeAffinity" => node_affinity(&path, args, out),
        "NodeResourcesFit" => fit(&path, args, out),
        "NodeResourcesBalancedAllocation" => balanced(&path, args, out),
        "PodTopologySpread" => spread(&path, args, out),
        "VolumeBinding" => volume_binding(&path, args, out),
        "DefaultPreemption" => {
            let args = preemption(&path, args)?;
            draft.preemption = Some(args);
            draft.profile.preemption = Some(args);
            Ok(())
        }
        other => Err(ConfigError::at(path, format!("plugin {other:?} takes no arguments here"))),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct InterPodAffinityArgs {
    hard_pod_affinity_weight: Option<i64>,
    #[serde(default)]
    ignore_preferred_terms_of_existing_pods: bool,
}

fn inter_pod_affinity(path: &str, args: Value, out: &mut Args) -> Result<()> {
    let args: InterPodAffinityArgs = parse(path, args)?;
    if let Some(weight) = args.hard_pod_affinity_weight {
        within(&format!("{path}.hardPodAffinityWeight"), weight, 0, 100)?;
        out.hard_pod_affinity_weight = weight;
    }
    out.ignore_preferred_terms_of_existing_pods = args.ignore_preferred_terms_of_existing_pods;
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NodeAffinityArgs {
    added_affinity: Option<Value>,
}

fn node_affinity(path: &str, args: Value, out: &mut Args) -> Result<()> {
    let args: NodeAffinityArgs = parse(path, args)?;
    let Some(added) = args.added_affinity else { return Ok(()) };
    let wire: NodeAffinity = whole(&format!("{path}.addedAffinity"), added)?;
    let required = wire.required_during_scheduling_ignored_during_execution.as_ref().map(NodeSelector::from);
    let preferred = wire.preferred_during_scheduling_ignored_during_execution.unwrap_or_default();
    let preferred = preferred.iter().map(|p| (i64::from(p.weight), Term::from(&p.preference))).collect();
    out.added_affinity = Some(AddedAffinity { required, preferred });
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FitArgs {
    #[serde(default)]
    ignored_resources: Vec<String>,
    #[serde(default)]
    ignored_resource_groups: Vec<String>,
    scoring_strategy: Option<WireStrategy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireStrategy {
    #[serde(rename = "type")]
    kind: Option<String>,
    resources: Option<Vec<Weighted>>,
    requested_to_capacity_ratio: Option<Ratio>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Weighted {
    name: String,
    weight: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ratio {
    shape: Vec<ShapePoint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShapePoint {
    utilization: i64,
    score: i64,
}

fn fit(path: &str, args: Value, out: &mut Args) -> Result<()> {
    let args: FitArgs = parse(path, args)?;
    if let Some(group) = args.ignored_resource_groups.iter().find(|group| group.contains('/')) {
        let why = format!("{group:?} is no group: a group is what stands before the slash");
        return Err(ConfigError::at(format!("{path}.ignoredResourceGroups"), why));
    }
    out.ignored_resources = args.ignored_resources;
    out.ignored_resource_groups = args.ignored_resource_groups;
    let Some(wire) = args.scoring_strategy else { return Ok(()) };
    let path = format!("{path}.scoringStrategy");
    let strategy = match (wire.kind.as_deref().unwrap_or("LeastAllocated"), wire.requested_to_capacity_ratio)
    {
        ("LeastAllocated", None) => Strategy::LeastAllocated,
        ("MostAllocated", None) => Strategy::MostAllocated,
        ("RequestedToCapacityRatio", Some(ratio)) => Strategy::RequestedToCapacityRatio(curve(
            &format!("{path}.requestedToCapacityRatio.shape"),
            ratio,
        )?),
        ("RequestedToCapacityRatio", None) => {
            return Err(ConfigError::at(
                path,
                "RequestedToCapacityRatio needs requestedToCapacityRatio.shape",
            ));
        }
        ("LeastAllocated" | "MostAllocated", Some(_)) => {
            let why = "requestedToCapacityRatio goes with type RequestedToCapacityRatio only";
            return Err(ConfigError::at(path, why));
        }
        (other, _) => {
            let why = format!("is {other:?}; want LeastAllocated, MostAllocated or RequestedToCapacityRatio");
            return Err(ConfigError::at(format!("{path}.type"), why));
        }
    };
    let resources = match wire.resources {
        None => Args::default().fit.resources,
        Some(list) => weights(&format!("{path}.resources"), list)?,
    };
    out.fit = FitScoring { strategy, resources };
    Ok(())
}

/// Upstream's points run to a score of 10; ours to 100.
fn curve(path: &str, ratio: Ratio) -> Result<Vec<(i64, i64)>> {
    if ratio.shape.is_empty() {
        return Err(ConfigError::at(path, "has no points"));
    }
    let mut points: Vec<(i64, i64)> = Vec::new();
    for (at, ShapePoint { utilization, score }) in ratio.shape.into_iter().enumerate() {
        within(&format!("{path}[{at}].utilization"), utilization, 0, 100)?;
        within(&format!("{path}[{at}].score"), score, 0, 10)?;
        if points.last().is_some_and(|(before, _)| *before >= utilization) {
            return Err(ConfigError::at(format!("{path}[{at}].utilization"), "is not above the one before"));
        }
        points.push((utilization, score * 10));
    }
    Ok(points)
}

fn weights(path: &str, list: Vec<Weighted>) -> Result<Vec<(Measure, i64)>> {
    if list.is_empty() {
        return Err(ConfigError::at(path, "is empty: name at least one resource"));
    }
    let mut out = Vec::new();
    for (at, Weighted { name, weight }) in list.into_iter().enumerate() {
        // Absent and 0 mean 1 (upstream's defaults).
        let weight = weight.filter(|w| *w != 0).unwrap_or(1);
        within(&format!("{path}[{at}].weight"), weight, 1, 100)?;
        let measure = Measure::of(&name);
        if out.iter().any(|(known, _)| *known == measure) {
            return Err(ConfigError::at(format!("{path}[{at}].name"), format!("{name:?} is named twice")));
        }
        out.push((measure, weight));
    }
    Ok(out)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BalancedArgs {
    resources: Option<Vec<Weighted>>,
}

fn balanced(path: &str, args: Value, out: &mut Args) -> Result<()> {
    let args: BalancedArgs = parse(path, args)?;
    let Some(list) = args.resources else { return Ok(()) };
    let path = format!("{path}.resources");
    if list.len() > BALANCED_MAX {
        return Err(ConfigError::at(path, format!("has {} entries; at most {BALANCED_MAX}", list.len())));
    }
    let weighted = weights(&path, list)?;
    if weighted.iter().any(|(_, weight)| *weight != 1) {
        return Err(ConfigError::at(path, "weights other than 1 have no meaning for balance"));
    }
    out.balanced = weighted.into_iter().map(|(measure, _)| measure).collect();
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpreadArgs {
    defaulting_type: Option<String>,
    #[serde(default)]
    default_constraints: Vec<Value>,
}

fn spread(path: &str, args: Value, out: &mut Args) -> Result<()> {
    let args: SpreadArgs = parse(path, args)?;
    let list = format!("{path}.defaultConstraints");
    // A list without a type is a list; nothing at all is upstream's System.
    let kind = args.defaulting_type.as_deref();
    out.default_spread =
        match kind.unwrap_or(if args.default_constraints.is_empty() { "System" } else { "List" }) {
            "System" if args.default_constraints.is_empty() => DefaultSpread::System,
            "System" => return Err(ConfigError::at(list, "must be empty with defaultingType System")),
            "List" => {
                let mut constraints = Vec::new();
                for (at, value) in args.default_constraints.into_iter().enumerate() {
                    constraints.push(constraint(&format!("{list}[{at}]"), value)?);
                }
                DefaultSpread::List(constraints)
            }
            other => {
                let why = format!("is {other:?}; want System or List");
                return Err(ConfigError::at(format!("{path}.defaultingType"), why));
            }
        };
    Ok(())
}

fn constraint(path: &str, value: Value) -> Result<Spread> {
    let wire: TopologySpreadConstraint = whole(path, value)?;
    if wire.label_selector.is_some() {
        return Err(ConfigError::at(
            format!("{path}.labelSelector"),
            "must be absent: each pod gets its own",
        ));
    }
    within(&format!("{path}.maxSkew"), wire.max_skew.into(), 1, i64::from(i32::MAX))?;
    if wire.topology_key.is_empty() {
        return Err(ConfigError::at(format!("{path}.topologyKey"), "is empty"));
    }
    if !matches!(wire.when_unsatisfiable.as_str(), "DoNotSchedule" | "ScheduleAnyway") {
        let why = format!("is {:?}; want DoNotSchedule or ScheduleAnyway", wire.when_unsatisfiable);
        return Err(ConfigError::at(format!("{path}.whenUnsatisfiable"), why));
    }
    Ok(Spread::read(&wire, &Labels::new()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VolumeBindingArgs {
    bind_timeout_seconds: Option<u64>,
}

fn volume_binding(path: &str, args: Value, out: &mut Args) -> Result<()> {
    let args: VolumeBindingArgs = parse(path, args)?;
    if let Some(seconds) = args.bind_timeout_seconds {
        out.bind_timeout = Duration::from_secs(seconds);
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WirePreemption {
    min_candidate_nodes_percentage: Option<i64>,
    min_candidate_nodes_absolute: Option<i64>,
}

fn preemption(path: &str, args: Value) -> Result<PreemptionArgs> {
    let args: WirePreemption = parse(path, args)?;
    let default = PreemptionArgs::default();
    let number = |field: &str, value: Option<i64>, max: i64, default: usize| match value {
        None => Ok(default),
        Some(value) => {
            within(&format!("{path}.{field}"), value, 0, max)?;
            Ok(usize::try_from(value).unwrap_or(default))
        }
    };
    let share = args.min_candidate_nodes_percentage;
    let candidates_percent = number("minCandidateNodesPercentage", share, 100, default.candidates_percent)?;
    let least = args.min_candidate_nodes_absolute;
    let candidates_min =
        number("minCandidateNodesAbsolute", least, i64::from(i32::MAX), default.candidates_min)?;
    if candidates_percent == 0 && candidates_min == 0 {
        let why = "minCandidateNodesPercentage and minCandidateNodesAbsolute are both 0";
        return Err(ConfigError::at(path, why));
    }
    Ok(PreemptionArgs { candidates_percent, candidates_min })
}

fn within(path: &str, value: i64, least: i64, most: i64) -> Result<()> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::at(path, format!("is {value}; want {least} to {most}")))
    }
}

/// Reads an API type and refuses fields that it does not have.
fn whole<T: serde::de::DeserializeOwned + Serialize>(path: &str, value: Value) -> Result<T> {
    let typed: T = parse(path, value.clone())?;
    let kept = serde_json::to_value(&typed).map_err(|error| ConfigError::at(path, error.to_string()))?;
    match lost(path, &value, &kept) {
        Some(field) => Err(ConfigError::at(field, "is no field of this")),
        None => Ok(typed),
    }
}

/// The first field of one tree that another lacks.
fn lost(path: &str, before: &Value, after: &Value) -> Option<String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().find_map(|(key, value)| {
            let path = format!("{path}.{key}");
            match after.get(key) {
                Some(kept) => lost(&path, value, kept),
                None => Some(path).filter(|_| !value.is_null()),
            }
        }),
        (Value::Array(before), Value::Array(after)) => {
            let pairs = before.iter().zip(after).enumerate();
            pairs.into_iter().find_map(|(at, (b, a))| lost(&format!("{path}[{at}]"), b, a))
        }
        _ => None,
    }
}
