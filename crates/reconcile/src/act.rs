//! The one place that writes. Takes a plan, carries it out in the order [`Plan`] documents, and says
//! what the caches have to show before the key may be planned again.

use std::{borrow::Cow, collections::HashMap};

use futures::future::join_all;
use kube::{
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
    core::Request,
};
use meta::ObjectKey;
use serde_json::Value;

use crate::{
    Child, Context, Error, Finalizer, Kind, Plan, Precondition, Propagation, Recorder, Result, Write,
    applied::Applied, expect::Expectation,
};

/// The largest number of writes of one plan in flight. Keeps one large plan from filling the server's
/// queue; group commit makes one sync of so many.
const IN_FLIGHT_MAX: usize = 64;

/// Carries out the plans of one controller.
pub struct Actor {
    manager: String,
    applied: Applied,
    recorder: Recorder,
}

/// What became of a plan.
pub struct Acted {
    /// Requests that may have changed something; applies skipped as unchanged are not among them.
    pub writes: u64,
    /// The first failure, if there was one.
    pub result: Result<()>,
    pub(crate) expectations: Vec<Expectation>,
    /// For each object patched: the version the plan saw and the one our patch made of it.
    moved: HashMap<(Kind, ObjectKey), (Value, Value)>,
}

impl Actor {
    /// An actor whose field manager and event reporter is `keelson-<name>`.
    pub fn new(name: &str) -> Self {
        let manager = format!("keelson-{name}");
        Self { recorder: Recorder::new(manager.clone()), manager, applied: Applied::default() }
    }

    /// Carries out `plan`. Not cancel-safe: dropped half-way, the rest is left for the next plan,
    /// which plans from what is, so nothing is lost but time.
    pub async fn act(&self, cx: &Context, plan: &Plan) -> Acted {
        let Plan { apply, delete, status, events, effects, recheck_after: _, finalizer } = plan;
        let mut done = Acted { writes: 0, result: Ok(()), expectations: Vec::new(), moved: HashMap::new() };
        if let Some(Finalizer::Add(child)) = finalizer {
            self.write_all(cx, &mut done, &[child]).await;
        }
        for run in apply.chunk_by(|a, b| a.kind == b.kind && a.write == b.write) {
            self.write_run(cx, &mut done, run).await;
        }
        for effect in effects {
            if done.result.is_ok() {
                done.writes += 1;
                let failed = |source| Error::Effect { effect: effect.name(), source };
                done.result = effect.run(cx).await.map_err(failed);
            }
        }
        for batch in delete.chunks(IN_FLIGHT_MAX) {
            self.delete_all(cx, &mut done, batch).await;
        }
        let failure = std::mem::replace(&mut done.result, Ok(()));
        self.write_all(cx, &mut done, &status.iter().collect::<Vec<_>>()).await;
        if done.result.as_ref().is_err_and(Error::is_not_found) {
            // Gone meanwhile, perhaps by this very plan: there is no status left to write.
            done.result = Ok(());
        }
        if failure.is_err() {
            done.result = failure;
        }
        if done.result.is_ok() {
            for note in events {
                self.recorder.tell(cx, note).await;
            }
        }
        if let Some(Finalizer::Remove(child)) = finalizer {
            self.write_all(cx, &mut done, &[child]).await;
        }
        done
    }

    /// Writes neighbours of one kind and write; creates slowly at first (upstream `slowStartBatch`).
    async fn write_run(&self, cx: &Context, done: &mut Acted, run: &[Child]) {
        let due: Vec<&Child> = run.iter().filter(|child| !self.is_current(cx, child)).collect();
        let mut rest = due.as_slice();
        let creates = due.first().is_some_and(|child| child.write == Write::Create);
        let mut size = if creates { 1 } else { IN_FLIGHT_MAX };
        while !rest.is_empty() && done.result.is_ok() {
            let (batch, after) = rest.split_at(size.min(rest.len()));
            self.write_all(cx, done, batch).await;
            rest = after;
            size = size.saturating_mul(2).min(IN_FLIGHT_MAX);
        }
    }

    fn is_current(&self, cx: &Context, child: &Child) -> bool {
        child.write == Write::Apply
            && self
                .applied
                .is_current(child, cx.stores.find(&child.kind).and_then(|cache| cache.seen(&child.key)))
    }

    async fn write_all(&self, cx: &Context, done: &mut Acted, batch: &[&Child]) {
        if done.result.is_err() {
            return;
        }
        let due: Vec<Cow<'_, Child>> = batch.iter().map(|child| done.rebase(child)).collect();
        let answers = join_all(due.iter().map(|child| send(&cx.client, &self.manager, child))).await;
        for (child, answer) in batch.iter().zip(answers) {
            done.writes += 1;
            match answer {
                Ok(object) => {
                    let revision = revision_in(&object);
                    if child.write == Write::Apply {
                        self.applied.remember(child, revision);
                    }
                    if let Some(announce) = &child.announce {
                        self.recorder.tell(cx, &announce.created(child, &object)).await;
                    }
                    done.note_move(child, &object);
                    let about_object = !matches!(child.write, Write::Post(_));
                    if about_object && revision > 0 {
                        done.expectations.extend(Expectation::revision(&cx.stores, &child.kind, revision));
                    }
                }
                Err(error) => {
                    if let Some(announce) =
                        child.announce.as_ref().filter(|_| !error.is_namespace_terminating())
                    {
                        self.recorder.tell(cx, &announce.failed(&error)).await;
                    }
                    keep_first(&mut done.result, error);
                }
            }
        }
    }

    async fn delete_all(&self, cx: &Context, done: &mut Acted, batch: &[Precondition]) {
        if done.result.is_err() {
            return;
        }
        let answers = join_all(batch.iter().map(|target| delete(&cx.client, target))).await;
        for (target, answer) in batch.iter().zip(answers) {
            done.writes += 1;
            match answer {
                Ok(()) => {
                    self.applied.forget(&target.kind, &target.key);
                    let uid = target.uid.as_deref();
                    done.expectations.extend(
                        uid.and_then(|uid| Expectation::gone(&cx.stores, &target.kind, &target.key, uid)),
                    );
                }
                Err(error) => keep_first(&mut done.result, error),
            }
        }
    }
}

impl Acted {
    /// A plan may patch one object twice (its metadata and its status), both on condition of the
    /// version it saw. Our own first patch must not make the second one a conflict.
    fn rebase<'a>(&self, child: &'a Child) -> Cow<'a, Child> {
        let precondition = child.body.pointer(VERSION);
        let moved = self.moved.get(&(child.kind.clone(), child.key.clone()));
        match (child.write, moved, precondition) {
            (Write::Patch(_) | Write::Put(_), Some((from, to)), Some(wanted)) if wanted == from => {
                let mut child = child.clone();
                if let Some(version) = child.body.pointer_mut(VERSION) {
                    *version = to.clone();
                }
                Cow::Owned(child)
            }
            _ => Cow::Borrowed(child),
        }
    }

    fn note_move(&mut self, child: &Child, answer: &Value) {
        if let (Write::Patch(_) | Write::Put(_), Some(from), Some(to)) =
            (child.write, child.body.pointer(VERSION), answer.pointer(VERSION))
        {
            let slot = self.moved.entry((child.kind.clone(), child.key.clone()));
            slot.or_insert_with(|| (from.clone(), Value::Null)).1 = to.clone();
        }
    }
}

const VERSION: &str = "/metadata/resourceVersion";

fn keep_first(result: &mut Result<()>, error: Error) {
    if result.is_ok() {
        *result = Err(error);
    }
}

fn revision_in(object: &Value) -> u64 {
    let text = object.pointer(VERSION).and_then(Value::as_str);
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Sends one write and gives the server's answer.
pub(crate) async fn send(client: &kube::Client, manager: &str, child: &Child) -> Result<Value> {
    let Child { kind, key, write, body, announce: _ } = child;
    let verb = match write {
        Write::Apply => "apply",
        Write::Create => "create",
        Write::Patch(_) => "patch",
        Write::Post(_) => "post",
        Write::Put(_) => "put",
    };
    let path = Request::new(kind.url(&key.namespace));
    let encode =
        || serde_json::to_vec(body).map_err(|source| Error::Encode { what: format!("{kind} {key}"), source });
    let post = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
    let patch = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    let request = match write {
        Write::Apply => path.patch(&key.name, &PatchParams::apply(manager).force(), &Patch::Apply(body)),
        Write::Create => path.create(&post, encode()?),
        Write::Patch(None) => path.patch(&key.name, &patch, &Patch::Merge(body)),
        Write::Patch(Some(sub)) => path.patch_subresource(sub, &key.name, &patch, &Patch::Merge(body)),
        Write::Post(sub) => path.create_subresource(sub, &key.name, &post, encode()?),
        Write::Put(sub) => path.replace_subresource(sub, &key.name, &post, encode()?),
    };
    let request =
        request.map_err(|source| Error::Request { verb, key: key.clone(), source: Box::new(source) })?;
    client.request::<Value>(request).await.map_err(Error::write(verb, kind, key))
}

/// Deletes one object; that it is gone already is success.
async fn delete(client: &kube::Client, target: &Precondition) -> Result<()> {
    let Precondition { kind, key, uid, resource_version, grace_period_seconds, propagation } = target;
    let params = DeleteParams {
        grace_period_seconds: *grace_period_seconds,
        propagation_policy: propagation.map(|propagation| match propagation {
            Propagation::Background => PropagationPolicy::Background,
            Propagation::Foreground => PropagationPolicy::Foreground,
            Propagation::Orphan => PropagationPolicy::Orphan,
        }),
        preconditions: (uid.is_some() || resource_version.is_some())
            .then(|| Preconditions { uid: uid.clone(), resource_version: resource_version.clone() }),
        ..DeleteParams::default()
    };
    let request = Request::new(kind.url(&key.namespace))
        .delete(&key.name, &params)
        .map_err(|source| Error::Request { verb: "delete", key: key.clone(), source: Box::new(source) })?;
    match client.request::<Value>(request).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error::write("delete", kind, key)(source)),
    }
}
