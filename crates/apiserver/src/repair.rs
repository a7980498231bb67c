//! Repairs claims (`resource::Claim`): what a server that died between claiming and storing, or between deleting and
//! giving back, left taken is given back; what an object holds and nobody has claimed is claimed. For Services this is
//! upstream's `ipallocator/controller/repairip.go` and `portallocator/controller/repair.go`.
//!
//! Guarantees: a claim goes only when it is older than a request may take and nothing in a state that is newer than
//! the round holds it; every write is on condition of what was read, so that several servers may repair at once; what
//! was put right is told by whoever did it, once. Knows claims and who holds them by the strategies of their kinds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::SignedDuration;
use meta::{Entry, Object, ObjectKey, Revision, Status, Timestamp};
use resource::{Claim, ClaimFault, Holder, Resource, User};
use tokio_util::sync::CancellationToken;

use crate::rest::{Caller, Duplicates, Rest};

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(60);
/// A claim younger than this may be that of a request under way (upstream's `gracePeriod`, the request time-out).
const GRACE: SignedDuration = SignedDuration::from_secs(60);
/// Repairs in one round: what is left waits for the next, so that a store full of damage is not all there is to do.
const REPAIRS_MAX: usize = 1_000;
/// Objects looked at before others have their turn on this thread: about a millisecond's worth.
const READ_MAX: usize = 256;

/// Repairs until `stop`. A failure is logged and made up for by the next round.
pub async fn run(rest: Rest, stop: CancellationToken) {
    let mut memories: BTreeMap<String, Memory> = BTreeMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        for kind in rest.registry().all() {
            let Some(holders) = kind.strategy.held_by().and_then(|held_by| rest.registry().stored(&held_by))
            else {
                continue;
            };
            let memory = memories.entry(kind.stored_as.to_string()).or_default();
            tokio::select! {
                () = stop.cancelled() => return,
                done = round(&rest, &kind, &holders, memory) => if let Err(status) = done {
                    tracing::warn!(claims = %kind.stored_as, %status, "repair claims");
                }
            }
        }
    }
}

/// What is remembered of a kind of claims between rounds.
#[derive(Default)]
struct Memory {
    /// Where both kinds stood when all was well.
    well: Option<(Revision, Revision)>,
    /// Which disputes have been told, so that each is told once.
    told: BTreeSet<(ObjectKey, String)>,
}

async fn round(
    rest: &Rest,
    kind: &Arc<Resource>,
    holders: &Arc<Resource>,
    memory: &mut Memory,
) -> Result<(), Status> {
    let snapshots = || {
        // Claims first: what holds one is stored after it, and so not missed.
        let claims = rest.cache().kind(&kind.stored_as).snapshot();
        (claims, rest.cache().kind(&holders.stored_as).snapshot())
    };
    let at = {
        let (claims, held) = snapshots();
        (claims.revision, held.revision)
    };
    if memory.well == Some(at) {
        return Ok(());
    }
    // Others may have written what this server has not seen yet.
    rest.newest().await?;
    let (claims, held) = snapshots();
    let at = (claims.revision, held.revision);
    let world = World {
        claims: decoded(claims.range(None, None)).await?,
        holders: decoded(held.range(None, None)).await?.into_iter().map(|(_, object)| object).collect(),
    };
    let Plan { repairs, disputes, waits } = plan(kind, holders, &world, rest.clock().now());
    memory.well = (repairs.is_empty() && !waits).then_some(at);
    memory.told.retain(|told| disputes.iter().any(|dispute| dispute.key() == *told));
    for dispute in disputes {
        if memory.told.insert(dispute.key()) {
            tell(rest, kind, dispute.claim, Some(dispute.holder), ClaimFault::Taken).await;
        }
    }
    for Repair { fault, claim, holder, found, wanted } in repairs.into_iter().take(REPAIRS_MAX) {
        if rest.mend(kind, &claim, found, wanted).await? {
            tracing::warn!(claim = claim.name(), kind = %kind.stored_as, ?fault, "repaired a claim");
            tell(rest, kind, &claim, holder, fault).await;
        }
    }
    Ok(())
}

async fn decoded(entries: impl Iterator<Item = &Arc<Entry>>) -> Result<Vec<(Revision, Object)>, Status> {
    let mut objects = Vec::new();
    for entry in entries {
        if objects.len() % READ_MAX == READ_MAX - 1 {
            tokio::task::yield_now().await;
        }
        objects.push((entry.revision, entry.object().map_err(Status::internal)?));
    }
    Ok(objects)
}

/// What a round looks at.
struct World {
    /// Claims, with the revisions that they stand at.
    claims: Vec<(Revision, Object)>,
    /// Objects that may hold some, in key order.
    holders: Vec<Object>,
}

/// A claim that is taken, given back, or both.
struct Repair<'a> {
    fault: ClaimFault,
    claim: Object,
    holder: Option<&'a Object>,
    /// What is there, to be given back.
    found: Option<Revision>,
    /// Whether it is claimed then.
    wanted: bool,
}

/// An object that holds what another one holds rightly.
struct Dispute<'a> {
    claim: &'a Object,
    holder: &'a Object,
}

impl Dispute<'_> {
    fn key(&self) -> (ObjectKey, String) {
        (self.holder.key(), self.claim.name().to_owned())
    }
}

struct Plan<'a> {
    repairs: Vec<Repair<'a>>,
    disputes: Vec<Dispute<'a>>,
    /// Whether a claim is too young to be judged.
    waits: bool,
}

/// What has to be done. Pure; after it was done, the plan is empty.
fn plan<'a>(kind: &Resource, holders: &Resource, world: &'a World, now: Timestamp) -> Plan<'a> {
    let mut wanted: BTreeMap<String, Vec<(&Object, Claim)>> = BTreeMap::new();
    for holder in &world.holders {
        let claims = holders.strategy.claims(holder);
        for claim in claims.into_iter().filter(|claim| claim.resource == kind.stored_as) {
            wanted.entry(claim.object.name().to_owned()).or_default().push((holder, claim));
        }
    }
    let mut plan = Plan { repairs: Vec::new(), disputes: Vec::new(), waits: false };
    let there: BTreeMap<&str, &(Revision, Object)> =
        world.claims.iter().map(|found| (found.1.name(), found)).collect();
    for (name, wanting) in &wanted {
        let found = there.get(name.as_str());
        let named = found.map(|(_, claim)| kind.strategy.holder(claim));
        let rightly = wanting.iter().position(|(holder, _)| named == Some(Holder::Of(holder.key())));
        let first = rightly.unwrap_or(0);
        for (at, (holder, claim)) in wanting.iter().enumerate() {
            if at != first {
                let claim = found.map_or(*holder, |(_, claim)| claim);
                plan.disputes.push(Dispute { claim, holder });
            } else if rightly.is_none() && found.is_none_or(|(_, claim)| old(claim, now)) {
                let fault = if found.is_some() { ClaimFault::Misnamed } else { ClaimFault::Missing };
                let found = found.map(|(revision, _)| *revision);
                let claim = claim.object.clone();
                plan.repairs.push(Repair { fault, claim, holder: Some(holder), found, wanted: true });
            } else if rightly.is_none() {
                plan.waits = true;
            }
        }
    }
    let known: BTreeSet<ObjectKey> = world.holders.iter().map(Object::key).collect();
    for (revision, claim) in world.claims.iter().filter(|(_, claim)| !wanted.contains_key(claim.name())) {
        let fault = match kind.strategy.holder(claim) {
            Holder::Foreign => continue,
            Holder::Nobody => ClaimFault::Nameless,
            Holder::Of(key) if known.contains(&key) => ClaimFault::Unheld,
            Holder::Of(_) => ClaimFault::Leaked,
        };
        if !old(claim, now) {
            plan.waits = true;
            continue;
        }
        let claim = claim.clone();
        plan.repairs.push(Repair { fault, claim, holder: None, found: Some(*revision), wanted: false });
    }
    plan
}

/// Whether no request can be under way that made it. One that does not say when it was made is none of ours.
fn old(claim: &Object, now: Timestamp) -> bool {
    let made = claim.str(&["metadata", "creationTimestamp"]).and_then(|time| time.parse::<Timestamp>().ok());
    made.is_none_or(|made| made.duration_until(now) > GRACE)
}

/// Makes the object that tells of it. That it cannot be made changes nothing.
async fn tell(rest: &Rest, kind: &Resource, claim: &Object, holder: Option<&Object>, fault: ClaimFault) {
    let Some(report) = kind.strategy.report(claim, holder, fault, rest.clock().now()) else { return };
    let Some(version) = report.group_version() else { return };
    let Some(resource) = rest.registry().by_kind(&version.group, &version.version, report.kind()) else {
        return;
    };
    let user = User {
        name: "system:apiserver".to_owned(),
        groups: vec!["system:masters".to_owned()],
        ..User::default()
    };
    let caller = Caller { user, field_manager: "keelson".to_owned(), ..Caller::default() };
    let namespace = report.namespace().to_owned();
    if let Err(status) = rest.create(&caller, &resource, &namespace, report, Duplicates::default()).await {
        tracing::debug!(%status, claim = claim.name(), "tell of a repaired claim");
    }
}

#[cfg(test)]
mod tests;
