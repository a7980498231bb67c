//! ResourceQuotas are not exceeded (`plugin/pkg/admission/resourcequota`).
//!
//! What an object takes is added to `status.used` before the object is stored, by a conditional write, so
//! that two requests cannot both take the last of a quota. What a request took that fails after that is given back
//! by the engine where nobody has changed the quota since; else the usage is too high until the quota controller
//! counts anew, as upstream. Unlike upstream, a quota that nobody has
//! counted yet is counted here instead of refusing everything.

use std::collections::BTreeSet;

use meta::{GroupResource, Object, ObjectKey, Quantity, Status};
use resource::{Context, Operation};

use super::{Plugin, forbidden, list, namespace};
use crate::quota::{Amounts, amounts, counts, covers, hard, text, to_value, total, unspecified, usage};

pub(super) struct ResourceQuota;

impl Plugin for ResourceQuota {
    const NAME: &'static str = "ResourceQuota";

    fn handles(&self, resource: &str, operation: Operation, subresource: &str) -> bool {
        let grows = matches!(resource, "services" | "persistentvolumeclaims");
        match (operation, subresource) {
            (Operation::Create, "") => !matches!(resource, "events" | "events.events.k8s.io"),
            (Operation::Update, "") => grows,
            (Operation::Update, "resize") => resource == "pods",
            _ => false,
        }
    }

    fn charge(
        &self,
        cx: &Context<'_>,
        object: &Object,
        old: Option<&Object>,
        taken: &BTreeSet<ObjectKey>,
    ) -> Result<Vec<Object>, Status> {
        if namespace(cx).is_empty() {
            return Ok(Vec::new());
        }
        let request = Request { cx, resource: &cx.attributes.resource, object, old };
        let quotas = list(cx, "", "resourcequotas", Some(namespace(cx)))?;
        let mut charged = Vec::new();
        for quota in quotas.into_iter().filter(|quota| !taken.contains(&quota.key())) {
            charged.extend(request.charge(quota)?);
        }
        Ok(charged)
    }
}

struct Request<'a> {
    cx: &'a Context<'a>,
    resource: &'a GroupResource,
    object: &'a Object,
    old: Option<&'a Object>,
}

impl Request<'_> {
    /// The quota with what the object takes; `None` when it takes nothing of it.
    fn charge(&self, mut quota: Object) -> Result<Option<Object>, Status> {
        if !covers(&quota, self.resource, self.object) {
            return Ok(None);
        }
        let allowed = hard(&quota);
        let pods = self.resource.group.is_empty() && self.resource.resource == "pods";
        if pods
            && self.old.is_none()
            && let Some(why) = unspecified(self.object, allowed.keys().map(String::as_str))
        {
            return Err(self.refused(&format!("failed quota: {}: {why}", quota.name())));
        }
        let asked = self.asked(&quota, &allowed);
        if asked.is_empty() {
            return Ok(None);
        }
        let mut used = self.used(&quota, &allowed)?;
        let over = |name: &str, amount: Quantity| {
            let sum = used.get(name).copied().unwrap_or_default() + amount;
            amount > Quantity::default() && allowed.get(name).is_some_and(|most| sum > *most)
        };
        let exceeded: Vec<&str> =
            asked.iter().filter(|(name, amount)| over(name, **amount)).map(|(name, _)| &**name).collect();
        if !exceeded.is_empty() {
            let shown = |amounts: &Amounts| {
                let one = |name: &&str| {
                    let amount = amounts.get(*name).copied().unwrap_or_default();
                    format!("{name}={}", text(&quota, name, amount))
                };
                exceeded.iter().map(one).collect::<Vec<_>>().join(",")
            };
            return Err(self.refused(&format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                quota.name(),
                shown(&asked),
                shown(&used),
                shown(&allowed)
            )));
        }
        for (name, amount) in &asked {
            let sum = used.get(name).copied().unwrap_or_default() + *amount;
            used.insert(name.clone(), sum);
        }
        let counted = to_value(&quota, &used);
        quota.set(&["status", "used"], counted);
        let limits = quota.get(&["spec", "hard"]).cloned().unwrap_or_default();
        quota.set(&["status", "hard"], limits);
        Ok(Some(quota))
    }

    /// What the request takes of the quota, beyond what the old object had.
    fn asked(&self, quota: &Object, allowed: &Amounts) -> Amounts {
        let now = self.cx.clock.now();
        let mut asked = usage(self.resource, self.object, now);
        if let Some(old) = self.old.filter(|old| covers(quota, self.resource, old)) {
            for (name, amount) in usage(self.resource, old, now) {
                *asked.entry(name).or_default() -= amount;
            }
        }
        asked.retain(|name, amount| !amount.is_zero() && allowed.contains_key(name));
        asked
    }

    /// What is taken: as last counted, and counted now where nobody has yet.
    fn used(&self, quota: &Object, allowed: &Amounts) -> Result<Amounts, Status> {
        let mut used = amounts(quota.get(&["status", "used"]));
        used.retain(|name, _| allowed.contains_key(name));
        let missing: BTreeSet<GroupResource> =
            allowed.keys().filter(|name| !used.contains_key(*name)).filter_map(|name| counts(name)).collect();
        let mut stored = Vec::new();
        for kind in missing {
            let objects = list(self.cx, &kind.group, &kind.resource, Some(quota.namespace()))?;
            stored.extend(objects.into_iter().map(|object| (kind.clone(), object)));
        }
        let counted = total(quota, stored.iter().map(|(kind, object)| (kind, object)), self.cx.clock.now());
        for (name, amount) in counted {
            used.entry(name).or_insert(amount);
        }
        Ok(used)
    }

    fn refused(&self, why: &str) -> Status {
        forbidden(self.cx, self.object.name(), why)
    }
}
