//! Pools of simulated nodes, as `--node-pool` describes them.

use std::{collections::BTreeSet, str::FromStr};

use k8s_openapi::api::core::v1::Taint;
use meta::Quantity;
use node::simulated::{Machine, NODES_MAX};

/// Nodes that are alike.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodePool {
    /// How many.
    pub(crate) count: u32,
    /// The first of them; its name is the pool's.
    model: Machine,
}

/// The label that says which pool a node is of.
const POOL: &str = "keelson.dev/node-pool";

impl FromStr for NodePool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut name, mut count) = (None, None);
        let mut model = Machine::new("", 0);
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("{part:?} is not KEY=VALUE"))?;
            match key {
                "name" => name = Some(pool_name(value)?),
                "count" => count = Some(number(key, value, u64::from(NODES_MAX))?),
                "cpu" => model.cpus = number(key, value, 1 << 20)?,
                "memory" => model.memory_bytes = bytes(value)?,
                "pods" => model.max_pods = u32::try_from(number(key, value, 1 << 16)?).unwrap_or(u32::MAX),
                "labels" => {
                    for label in list(value) {
                        let (key, value) = label
                            .split_once('=')
                            .ok_or_else(|| format!("label {label:?} is not KEY=VALUE"))?;
                        model.labels.insert(key.to_owned(), value.to_owned());
                    }
                }
                "taints" => model.taints = list(value).map(taint).collect::<Result<_, _>>()?,
                _ => {
                    return Err(format!(
                        "there is no {key:?}; say name, count, cpu, memory, pods, labels or taints"
                    ));
                }
            }
        }
        model.name = name.ok_or("a pool needs a name, such as name=large")?;
        model.labels.insert(POOL.to_owned(), model.name.clone());
        let count = count.ok_or("a pool needs a count, such as count=10")?;
        Ok(Self { count: u32::try_from(count).unwrap_or(NODES_MAX), model })
    }
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').filter(|item| !item.is_empty())
}

fn pool_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=40).contains(&text.len()) && text.chars().all(plain) && !text.starts_with('-') {
        Ok(text.to_owned())
    } else {
        Err(format!("pool name {text:?} is not 1 to 40 lower-case letters, digits and '-'"))
    }
}

fn number(key: &str, text: &str, max: u64) -> Result<u64, String> {
    let parsed = text.parse().ok().filter(|number| (1..=max).contains(number));
    parsed.ok_or_else(|| format!("{key}={text} is not a whole number from 1 to {max}"))
}

fn bytes(text: &str) -> Result<u64, String> {
    let parsed = text.parse::<Quantity>().ok().and_then(|quantity| u64::try_from(quantity.value()).ok());
    parsed.filter(|bytes| *bytes > 0).ok_or_else(|| format!("memory={text} is not an amount such as 64Gi"))
}

/// `KEY=VALUE:EFFECT` or `KEY:EFFECT`, as `kubectl taint` has it.
fn taint(text: &str) -> Result<Taint, String> {
    let (key, effect) =
        text.rsplit_once(':').ok_or_else(|| format!("taint {text:?} is not KEY=VALUE:EFFECT"))?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(format!("taint {text:?}: effect is not NoSchedule, PreferNoSchedule or NoExecute"));
    }
    let (key, value) = key.split_once('=').map_or((key, None), |(key, value)| (key, Some(value)));
    Ok(Taint {
        key: key.to_owned(),
        value: value.map(str::to_owned),
        effect: effect.to_owned(),
        time_added: None,
    })
}

/// Every node: `node-0` and so on, then each pool's.
pub(crate) fn machines(own: u32, pools: &[NodePool]) -> Vec<Machine> {
    let own = NodePool { count: own, model: Machine::new("node", 0) };
    let all = [&own].into_iter().chain(pools);
    let named = all.flat_map(|pool| (0..pool.count).map(move |at| (pool, at)));
    let numbered = named.zip(0..);
    numbered
        .map(|((NodePool { count: _, model }, at), index)| Machine {
            name: format!("{}-{at}", model.name),
            index,
            ..model.clone()
        })
        .collect()
}

/// What is wrong with the pools taken together.
pub(crate) fn check(own: u32, pools: &[NodePool]) -> Result<(), String> {
    let total: u64 = pools.iter().map(|pool| u64::from(pool.count)).sum::<u64>() + u64::from(own);
    if total > u64::from(NODES_MAX) {
        return Err(format!("{total} nodes are more than the {NODES_MAX} that there are addresses for"));
    }
    let mut names: BTreeSet<&str> = (own > 0).then_some("node").into_iter().collect();
    match pools.iter().find(|pool| !names.insert(&pool.model.name)) {
        Some(twice) => Err(format!("two pools are called {:?}", twice.model.name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, expected: &str) {
        let said = text.parse::<NodePool>().unwrap_err();
        assert!(said.contains(expected), "{text}: {said}");
    }

    #[test]
    fn a_pool_is_read() {
        let pool: NodePool =
            "name=gpu,count=2,cpu=8,memory=16Gi,pods=50,labels=a=b;c=,taints=gpu=yes:NoSchedule;x:NoExecute"
                .parse()
                .unwrap();
        let [first, second] = machines(0, &[pool]).try_into().unwrap();
        assert_eq!((first.name.as_str(), second.name.as_str()), ("gpu-0", "gpu-1"));
        assert_eq!((second.index, second.cpus, second.memory_bytes, second.max_pods), (1, 8, 16 << 30, 50));
        let labels: Vec<String> = second.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(labels, ["a=b", "c=", "keelson.dev/node-pool=gpu"]);
        let taints: Vec<_> = second.taints.iter().map(|t| (t.key.as_str(), t.value.as_deref())).collect();
        assert_eq!(taints, [("gpu", Some("yes")), ("x", None)]);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        refused("count=2", "needs a name");
        refused("name=a", "needs a count");
        refused("name=A,count=1", "lower-case");
        refused("name=a,count=0", "from 1 to 32768");
        refused("name=a,count=1,memory=lots", "such as 64Gi");
        refused("name=a,count=1,size=3", "say name, count");
        refused("name=a,count=1,taints=x:Never", "effect is not");
        refused("name=a,count=1,labels=x", "KEY=VALUE");
    }

    #[test]
    fn pools_are_counted_and_named_together() {
        let pool = |text: &str| text.parse::<NodePool>().unwrap();
        assert_eq!(check(1, &[pool("name=a,count=1"), pool("name=b,count=2")]), Ok(()));
        let twice = [pool("name=a,count=1"), pool("name=a,count=1")];
        assert!(check(0, &twice).unwrap_err().contains("two pools"));
        assert!(check(1, &[pool("name=node,count=1")]).unwrap_err().contains("two pools"));
        assert!(check(1, &[pool("name=a,count=32768")]).unwrap_err().contains("32769 nodes"));
        let names: Vec<_> = machines(2, &[pool("name=a,count=1")]).into_iter().map(|m| m.name).collect();
        assert_eq!(names, ["node-0", "node-1", "a-0"]);
    }
}
