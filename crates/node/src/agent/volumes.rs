//! Making the volumes of a pod: fetch what they refer to, plan, put on disk.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use meta::Timestamp;

use super::{
    Agent, fetch,
    job::{Failed, Tokens, VolumesMade},
};
use crate::{
    pod,
    sources::Needs,
    volume::{self, Inputs},
};

const FAILED: &str = "FailedMount";

/// Makes or refreshes the volumes; `had` are the tokens that may still be good.
pub(super) async fn set_up(
    agent: Arc<Agent>,
    want: Arc<Pod>,
    pod_ips: Vec<String>,
    had: Tokens,
) -> Result<VolumesMade, Failed> {
    let fail = |error: &dyn std::fmt::Display| Failed::new(FAILED, error);
    let has_volumes =
        want.spec.as_ref().is_some_and(|spec| spec.volumes.as_ref().is_some_and(|v| !v.is_empty()));
    if !has_volumes {
        return Ok(VolumesMade::default());
    }
    let client = &agent.client;
    let sources = fetch::sources(client, &want, &Needs::of_volumes(&want)).await.map_err(|e| fail(&e))?;
    let claims = fetch::claims(client, &want, volume::claim_names(&want)).await.map_err(|e| fail(&e))?;
    let tokens = tokens(&agent, &want, had).await?;
    let inputs = Inputs {
        place: agent.place(pod_ips),
        sources,
        tokens: tokens.iter().map(|(token, (value, _))| (token.clone(), value.clone())).collect(),
        claims,
    };
    let plans = volume::plan(&want, &inputs).map_err(|error| fail(&error))?;
    let mut paths = BTreeMap::new();
    for plan in plans {
        let path = agent.options.host.set_up_volume(pod::uid(&want), &plan).await.map_err(|error| {
            Failed::new(FAILED, format!("MountVolume.SetUp failed for volume {:?}: {error}", plan.name))
        })?;
        paths.insert(plan.name, path);
    }
    Ok(VolumesMade { paths, tokens })
}

/// Tokens that are still good, and new ones for those that are due.
async fn tokens(agent: &Agent, want: &Pod, had: Tokens) -> Result<Tokens, Failed> {
    let mut tokens = Tokens::new();
    for token in volume::tokens(want) {
        let now = agent.now();
        if let Some(good) = had.get(&token).filter(|(_, renew)| *renew > now) {
            tokens.insert(token, good.clone());
            continue;
        }
        if agent.options.host.is_simulated() {
            // Nobody reads it: the simulated containers have no processes.
            tokens.insert(token, (String::new(), Timestamp::MAX));
            continue;
        }
        let (value, expires) =
            fetch::token(&agent.client, want, &token).await.map_err(|error| Failed::new(FAILED, error))?;
        tokens.insert(token, (value, renew_at(now, expires)));
    }
    Ok(tokens)
}

/// At 80 % of its life, as upstream (`pkg/kubelet/token`), and at least once a day.
fn renew_at(now: Timestamp, expires: Timestamp) -> Timestamp {
    const DAY_SECONDS: i64 = 24 * 60 * 60;
    let life = expires.duration_since(now).as_secs().max(0);
    let seconds = (life / 5 * 4).min(DAY_SECONDS);
    now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(expires)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_at_80_percent() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        for (expires, expected) in [(3600, 2880), (0, 0), (-5, 0), (1_000_000, 86_400)] {
            assert_eq!(renew_at(at(0), at(expires)), at(expected), "{expires}");
        }
    }
}
