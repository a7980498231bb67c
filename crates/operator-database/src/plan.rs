//! The decision: from the world to writes and a status. Pure.

use std::time::Duration;

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Pod, Secret, Service},
    policy::v1::PodDisruptionBudget,
};
use kube::{Resource, ResourceExt};
use meta::{ObjectKey, Timestamp};
use reconcile::{Child, Kind, Note, Plan, Precondition, Write, controlled_by};
use serde_json::{Value, json};

use crate::{
    children::{self, Facts},
    observe::World,
    status::{Verdict, status},
    types::{DeletionPolicy, FINALIZER, Phase},
    validate::{Password, Valid},
};

/// Looked at anew even if nothing changes (the original's interval).
const STEADY: Duration = Duration::from_secs(300);
/// And while something is wrong.
const TROUBLED: Duration = Duration::from_secs(60);

pub(crate) fn plan(world: &World, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let verdict = if world.database.meta().deletion_timestamp.is_some() {
        let held = world.database.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
        if !held {
            return plan;
        }
        delete(world, &mut plan)
    } else {
        match &world.valid {
            Err(wrong) => Verdict::failed("InvalidSpec", wrong.join("; ")),
            Ok(valid) => build(world, valid, &mut plan),
        }
    };
    finish(world, &verdict, now, &mut plan);
    plan
}

fn finish(world: &World, verdict: &Verdict, now: Timestamp, plan: &mut Plan) {
    let before = world.database.status.clone().unwrap_or_default();
    let after = status(world, verdict, now);
    if verdict.is_news(&before, &after) {
        let (reason, message) = (verdict.reason, verdict.message.clone());
        plan.events.push(if verdict.phase == Phase::Failed {
            Note::warning(&*world.database, reason, "Reconcile", message)
        } else {
            Note::normal(&*world.database, reason, "Reconcile", message)
        });
    }
    plan.set_status(&*world.database, &after);
    plan.recheck(if verdict.phase == Phase::Ready { STEADY } else { TROUBLED });
}

/// Children in the order in which they need each other.
fn build(world: &World, valid: &Valid, plan: &mut Plan) -> Verdict {
    let database = &*world.database;
    if let Some(foreign) = foreign(world) {
        return Verdict::failed(
            "NameTaken",
            format!(
                "{foreign} exists and belongs to something else: delete it, or give this Database another name"
            ),
        );
    }
    plan.add_finalizer(database, FINALIZER);
    let mut apply = |kind: Kind, body: Value, write: Write| {
        let name = body.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
        plan.apply.push(Child::object(kind, ObjectKey::new(valid.namespace.as_str(), name), write, body));
    };
    apply(Kind::of::<Service>(), children::service(database, valid), Write::Apply);
    apply(Kind::of::<Service>(), children::headless(database, valid), Write::Apply);
    apply(Kind::of::<ConfigMap>(), children::config_map(database, valid), Write::Apply);
    let secret_version = match password(world, valid) {
        Found::Version(version) => version,
        Found::ToBeMade => {
            let body = children::credentials(database, valid, &world.fresh_password);
            apply(Kind::of::<Secret>(), body, Write::Create);
            // The StatefulSet follows when the Secret has a version: it is part of the pods.
            return Verdict::starting("CredentialsCreated", "generated the credentials");
        }
        Found::Missing(why) => {
            return Verdict {
                phase: running_phase(world, Phase::Pending),
                ..Verdict::failed("SecretNotFound", why)
            };
        }
    };
    let templates = world.stateful_set.as_ref().and_then(|set| volume_templates(set));
    let resize = templates.as_ref().and_then(|templates| resized(valid, templates));
    let facts = Facts { secret_version: &secret_version, volume_templates: templates };
    apply(Kind::of::<PodDisruptionBudget>(), children::disruption_budget(database, valid), Write::Apply);
    apply(Kind::of::<StatefulSet>(), children::stateful_set(database, valid, &facts), Write::Apply);
    if let Some(why) = resize {
        return Verdict::failed("VolumeImmutable", why);
    }
    Verdict::of_members(world, valid)
}

enum Found {
    /// The password is there, in this version of its Secret.
    Version(String),
    /// It is the operator's to make.
    ToBeMade,
    /// It is the user's to give.
    Missing(String),
}

fn password(world: &World, valid: &Valid) -> Found {
    let key = valid.password.key();
    let value = world.secret.as_ref().and_then(|secret| secret.data.as_ref()?.get(&key.key));
    match (&valid.password, &world.secret, value) {
        (_, Some(_), Some(value)) if value.0.is_empty() => Found::Missing(format!(
            "key {:?} of secret {:?} is empty: put a password there",
            key.key, key.name
        )),
        (_, Some(secret), Some(_)) => Found::Version(secret.resource_version().unwrap_or_default()),
        (Password::Generated(_), None, _) => Found::ToBeMade,
        (Password::Given(_), None, _) => Found::Missing(format!(
            "secret {:?} not found: create it with the key {:?}, or remove passwordSecret to have a password generated",
            key.name, key.key
        )),
        (_, Some(_), None) => {
            Found::Missing(format!("secret {:?} has no key {:?}: add it", key.name, key.key))
        }
    }
}

/// Trouble with what is needed to start is no trouble for a database that runs.
fn running_phase(world: &World, otherwise: Phase) -> Phase {
    if world.stateful_set.is_some() { Phase::Failed } else { otherwise }
}

/// A child's name that is taken by an object of somebody else.
fn foreign(world: &World) -> Option<String> {
    let uid = world.database.uid().unwrap_or_default();
    fn check<K: Resource<DynamicType = ()>>(object: Option<&K>, uid: &str) -> Option<String> {
        let object = object.filter(|object| !controlled_by(*object, uid))?;
        Some(format!("{} {:?}", K::kind(&()), object.meta().name.clone().unwrap_or_default()))
    }
    let World { stateful_set, service, headless, config, budget, secret, .. } = world;
    let generated = matches!(&world.valid, Ok(valid) if matches!(valid.password, Password::Generated(_)));
    check(stateful_set.as_deref(), &uid)
        .or_else(|| check(service.as_deref(), &uid))
        .or_else(|| check(headless.as_deref(), &uid))
        .or_else(|| check(config.as_deref(), &uid))
        .or_else(|| check(budget.as_deref(), &uid))
        .or_else(|| check(secret.as_deref().filter(|_| generated), &uid))
}

/// The templates that are there, as they were applied: without what the server added.
fn volume_templates(set: &StatefulSet) -> Option<Value> {
    let templates = set.spec.as_ref()?.volume_claim_templates.as_ref()?;
    let templates = templates.iter().map(|template| {
        let spec = template.spec.clone().unwrap_or_default();
        let mut claim = json!({
            "accessModes": spec.access_modes,
            "resources": {"requests": spec.resources.and_then(|resources| resources.requests)},
        });
        if let (Some(class), Some(claim)) = (spec.storage_class_name, claim.as_object_mut()) {
            claim.insert("storageClassName".to_owned(), class.into());
        }
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": template.name_any(), "labels": template.labels()}, "spec": claim,
        })
    });
    Some(templates.collect())
}

/// What cannot be changed about a volume that is there.
fn resized(valid: &Valid, templates: &Value) -> Option<String> {
    let volume = valid.storage.as_ref()?;
    let present = templates.pointer("/0/spec/resources/requests/storage").and_then(Value::as_str)?;
    let amount = |text: &str| text.parse::<meta::Quantity>().ok();
    (amount(present) != amount(&volume.size)).then(|| {
        format!(
            "spec.storage.size: the volume has {present} and cannot be changed to {} by this release: set it back, \
             or move the data to a new Database",
            volume.size
        )
    })
}

/// Deletes what is there, members first; lets the Database go when all is gone. The volume is treated as the
/// policy says even if the spec is bad by now.
fn delete(world: &World, plan: &mut Plan) -> Verdict {
    let database = &*world.database;
    let uid = database.uid().unwrap_or_default();
    if let Some(set) = own(world.stateful_set.as_deref(), &uid) {
        doom(plan, set);
    }
    let pods: Vec<&Pod> =
        world.pods.iter().map(AsRef::as_ref).filter(|pod| is_own_pod(pod, &database.name_any())).collect();
    if world.stateful_set.is_some() || !pods.is_empty() {
        return Verdict::deleting(format!("waiting for {} member(s) to stop", pods.len()));
    }
    for service in [&world.service, &world.headless] {
        if let Some(service) = own(service.as_deref(), &uid) {
            doom(plan, service);
        }
    }
    if let Some(config) = own(world.config.as_deref(), &uid) {
        doom(plan, config);
    }
    if let Some(budget) = own(world.budget.as_deref(), &uid) {
        doom(plan, budget);
    }
    if let Some(secret) = own(world.secret.as_deref(), &uid) {
        doom(plan, secret);
    }
    if database.spec.deletion_policy.unwrap_or_default() == DeletionPolicy::Delete {
        for claim in &world.claims {
            doom(plan, &**claim);
        }
        if !world.claims.is_empty() {
            return Verdict::deleting(format!("waiting for {} volume(s) to go", world.claims.len()));
        }
    }
    plan.remove_finalizer(database, FINALIZER);
    Verdict::deleting("all children are gone".to_owned())
}

fn own<'a, K: Resource>(object: Option<&'a K>, uid: &str) -> Option<&'a K> {
    object.filter(|object| controlled_by(*object, uid))
}

fn doom<K: Resource<DynamicType = ()>>(plan: &mut Plan, object: &K) {
    if object.meta().deletion_timestamp.is_none() {
        plan.delete.push(Precondition::of(object));
    }
}

/// Members are named by the StatefulSet.
fn is_own_pod(pod: &Pod, database: &str) -> bool {
    let name = pod.name_any();
    let ordinal = name.strip_prefix(database).and_then(|rest| rest.strip_prefix('-'));
    ordinal.is_some_and(|ordinal| ordinal.parse::<u32>().is_ok())
}
