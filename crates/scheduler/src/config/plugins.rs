//! `profiles[].plugins`: what is on, with which weight.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    config::{ConfigError, Draft, parse},
    plugins::{FILTERS, SCORES, Score},
};

/// Plugins of upstream's that are no filter and no score and cannot be turned off here.
const ALWAYS: &[&str] = &["SchedulingGates", "PrioritySort", "DefaultBinder"];
const PREEMPTION: &str = "DefaultPreemption";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Points {
    #[serde(default)]
    multi_point: Set,
    #[serde(default)]
    filter: Set,
    #[serde(default)]
    score: Set,
    #[serde(default)]
    post_filter: Set,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    #[serde(default)]
    enabled: Vec<Named>,
    #[serde(default)]
    disabled: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    weight: Option<i64>,
}

/// Points at which no plugin can be switched by itself here.
const OTHER_POINTS: &[&str] =
    &["preEnqueue", "queueSort", "preFilter", "preScore", "reserve", "permit", "preBind", "bind", "postBind"];

/// Where a plugin acts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Point {
    Every,
    Filter,
    Score,
    PostFilter,
}

impl Point {
    fn has(self, other: Self) -> bool {
        self == Self::Every || self == other
    }
}

pub(super) fn apply(path: &str, value: Value, draft: &mut Draft) -> Result<(), ConfigError> {
    if value.is_null() {
        return Ok(());
    }
    for point in OTHER_POINTS {
        if value.get(point).is_some() {
            let why = "plugins are switched at filter, score, postFilter or multiPoint here";
            return Err(ConfigError::at(format!("{path}.{point}"), why));
        }
    }
    let Points { multi_point, filter, score, post_filter } = parse(path, value)?;
    let sets = [
        ("multiPoint", Point::Every, multi_point),
        ("filter", Point::Filter, filter),
        ("score", Point::Score, score),
        ("postFilter", Point::PostFilter, post_filter),
    ];
    for (name, point, Set { enabled, disabled }) in sets {
        let path = format!("{path}.{name}");
        for plugin in disabled {
            disable(&format!("{path}.disabled"), point, &plugin, draft)?;
        }
        for plugin in enabled {
            enable(&format!("{path}.enabled"), point, &plugin, draft)?;
        }
    }
    // Filters are asked in upstream's order whatever the order of the file.
    let rank = |name: &str| FILTERS.iter().position(|f| f.name == name);
    draft.profile.filters.sort_by_key(|filter| rank(filter.name));
    Ok(())
}

fn disable(path: &str, point: Point, plugin: &Named, draft: &mut Draft) -> Result<(), ConfigError> {
    let name = plugin.name.as_str();
    let all = name == "*";
    if !all {
        known(path, point, name)?;
        if ALWAYS.contains(&name) {
            return Err(ConfigError::at(path, format!("{name} cannot be turned off")));
        }
    }
    let profile = &mut draft.profile;
    if point.has(Point::Filter) {
        profile.filters.retain(|filter| !all && filter.name != name);
    }
    if point.has(Point::Score) {
        profile.scores.retain(|score| !all && score.name != name);
    }
    if point.has(Point::PostFilter) && (all || name == PREEMPTION) {
        profile.preemption = None;
    }
    Ok(())
}

fn enable(path: &str, point: Point, plugin: &Named, draft: &mut Draft) -> Result<(), ConfigError> {
    let name = plugin.name.as_str();
    known(path, point, name)?;
    let weight = match plugin.weight {
        None | Some(0) => 1,
        Some(weight @ 1..=1_000_000) => weight,
        Some(weight) => {
            return Err(ConfigError::at(path, format!("weight of {name} is {weight}; want 1 to 1000000")));
        }
    };
    let profile = &mut draft.profile;
    let filter = FILTERS.iter().find(|f| f.name == name).filter(|_| point.has(Point::Filter));
    if let Some(filter) = filter.filter(|f| profile.filters.iter().all(|have| have.name != f.name)) {
        profile.filters.push(*filter);
    }
    if let Some(score) = SCORES.iter().find(|s| s.name == name).filter(|_| point.has(Point::Score)) {
        profile.scores.retain(|have| have.name != name);
        profile.scores.push(Score { weight, ..*score });
    }
    if point.has(Point::PostFilter) && name == PREEMPTION && profile.preemption.is_none() {
        profile.preemption = Some(draft.preemption.unwrap_or_default());
    }
    Ok(())
}

fn known(path: &str, point: Point, name: &str) -> Result<(), ConfigError> {
    let filters = FILTERS.iter().map(|f| f.name).filter(|_| point.has(Point::Filter));
    let scores = SCORES.iter().map(|s| s.name).filter(|_| point.has(Point::Score));
    let rest = ALWAYS.iter().copied().filter(|_| point == Point::Every);
    let preemption = [PREEMPTION].into_iter().filter(|_| point.has(Point::PostFilter));
    let mut all: Vec<&str> = filters.chain(scores).chain(rest).chain(preemption).collect();
    if all.contains(&name) {
        return Ok(());
    }
    all.sort_unstable();
    all.dedup();
    Err(ConfigError::at(path, format!("there is no plugin {name:?} here; there are {}", all.join(", "))))
}
