//! What no schema can say about a kind.

use std::time::Duration;

use meta::{Clock, FieldError, GroupResource, Object, ObjectKey, Random, Status, Timestamp};

use crate::{Attributes, View};

/// What a strategy may look at. Reads only; a strategy decides, the engine acts.
pub struct Context<'a> {
    /// Who asks for what.
    pub attributes: &'a Attributes,
    /// Committed state of every kind.
    pub view: &'a dyn View,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Chance.
    pub random: &'a dyn Random,
}

/// A name that an object takes for itself cluster-wide: a Service IP or node port. The engine creates
/// `object` (an `IPAddress`, or any stored object whose name is the claim) before it stores the claimant,
/// so two servers cannot hand out the same; it deletes claims that the claimant gave up or that it could
/// not store. The claim's owner is named in the object so that an interrupted claim is found and repaired.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Kind of the claim.
    pub resource: GroupResource,
    /// The object to create; its name is what is claimed.
    pub object: Object,
}

/// Whom a claim names as the one that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The engine did not make it: somebody's own object of the kind, which is left alone.
    Foreign,
    /// The engine made it, and it names nobody any more.
    Nobody,
    /// This object.
    Of(ObjectKey),
}

/// What is wrong between a claim and its holder. See `apiserver::repair`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimFault {
    /// An object holds what nobody has claimed: it is claimed now.
    Missing,
    /// An object holds what is claimed in the name of something that does not hold it: it is claimed anew.
    Misnamed,
    /// An object holds what another one holds rightly; only its user can help.
    Taken,
    /// The claim names an object that is not there: it is given back.
    Leaked,
    /// The claim names an object that does not hold it: it is given back.
    Unheld,
    /// The claim names nothing that could hold it: it is given back.
    Nameless,
}

/// Behaviour of a kind beyond its schema. Every hook defaults to nothing. Hooks are pure: the same input
/// gives the same result.
pub trait Strategy: Send + Sync {
    /// Defaults that depend on other fields. Runs after the schema's own defaults, on every write.
    fn default(&self, object: &mut Object) {
        let _: &mut Object = object;
    }

    /// Sets what only the server may set, and resets what this request may not change. `old` is absent on
    /// create. The engine itself keeps metadata, generation and `status` (where a subresource) in order.
    fn prepare(&self, cx: &Context<'_>, new: &mut Object, old: Option<&Object>) -> Result<(), Status> {
        let _ = (cx, new, old);
        Ok(())
    }

    /// Checks what the schema cannot. `old` is absent on create.
    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Vec<FieldError>) {
        let _ = (cx, new, old, errors);
    }

    /// Warnings for the user (`Warning: 299`).
    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let _ = (new, old);
        Vec::new()
    }

    /// Claims that this state of the object holds; called after `prepare`, which chose the values.
    fn claims(&self, object: &Object) -> Vec<Claim> {
        let _ = object;
        Vec::new()
    }

    /// Of a kind whose objects are claims: the kind of those who hold them.
    fn held_by(&self) -> Option<GroupResource> {
        None
    }

    /// Of a kind whose objects are claims: whom this one names as its holder.
    fn holder(&self, claim: &Object) -> Holder {
        let _ = claim;
        Holder::Foreign
    }

    /// Of a kind whose objects are claims: the object that tells users what was wrong with one and has been put right,
    /// such as an Event; `None` tells nobody. `holder` is who holds it, or should; absent where that is not there.
    fn report(
        &self,
        claim: &Object,
        holder: Option<&Object>,
        fault: ClaimFault,
        now: Timestamp,
    ) -> Option<Object> {
        let (_, _, _, _) = (claim, holder, fault, now);
        None
    }

    /// Seconds of grace for a deletion, given what the client asked for; `None` deletes at once. Pods have
    /// a grace period, other kinds do not (upstream `CheckGracefulDelete`).
    fn grace_period(&self, object: &Object, asked: Option<i64>) -> Option<i64> {
        let _ = (object, asked);
        None
    }

    /// Finalizers that a new object begins with outside `metadata.finalizers` (a Namespace's
    /// `spec.finalizers`): while this is true, deletion only marks the object.
    fn holds_deletion(&self, object: &Object) -> bool {
        let _ = object;
        false
    }

    /// Called on the stored object when its deletion begins (a Namespace becomes Terminating).
    fn begin_deletion(&self, cx: &Context<'_>, object: &mut Object) {
        let _ = (cx, object);
    }

    /// Orphans dependents by default when no policy is given (upstream: only old ReplicationControllers and
    /// the like); almost every kind says false.
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// Whether PUT on a missing name creates it (upstream `AllowCreateOnUpdate`): Leases, Nodes' status no,
    /// Endpoints, RBAC objects yes.
    fn creates_on_update(&self) -> bool {
        false
    }

    /// Whether an update without `metadata.resourceVersion` is allowed (upstream
    /// `AllowUnconditionalUpdate`).
    fn allows_unconditional_update(&self) -> bool {
        true
    }

    /// Whether `metadata.generation` is kept by the engine: 1 on create, +1 when anything outside metadata
    /// and status changes.
    fn has_generation(&self) -> bool {
        true
    }

    /// Whether a client may create an object with its status (a node agent registers its Node so).
    fn keeps_status_on_create(&self) -> bool {
        false
    }

    /// How long an object is kept after it was last written (upstream's `TTLFunc`, with which events are
    /// stored); `None` for ever. When the time is over the object goes, finalizers or not.
    fn time_to_live(&self) -> Option<Duration> {
        None
    }

    /// How names are checked.
    fn validate_name(&self, name: &str) -> Result<(), String> {
        let _ = name;
        Ok(())
    }
}

/// A kind without behaviour of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Strategy for Plain {}
