//! POST subresources (`binding`, `eviction`, `token`) and virtual kinds (`SubjectAccessReview`).

use std::sync::Arc;

use meta::{GroupResource, Object, ObjectKey, Status, Value};
use resource::{Acted, Operation, Resource, Subresource};

use super::{
    Caller, DeleteOptions, Duplicates, Propagation, Rest, TRIES_MAX, Target, attributes,
    create::Origin,
    delete::preconditions,
    metadata::{settle_name, settle_namespace},
    pipeline::named,
    update::Change,
};

impl Rest {
    /// Carries out the POST subresource `target.subresource`, or (with an empty one) asks a virtual kind.
    pub async fn act(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        body: Object,
    ) -> Result<Value, Status> {
        self.decide(body, |body| self.try_act(caller, resource, target, body)).await
    }

    async fn try_act(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        mut body: Object,
    ) -> Result<Value, Status> {
        let Some(Subresource::Act(act)) = resource.subresource(&target.subresource) else {
            return Err(Status::method_not_allowed(&resource.group_resource(), "create"));
        };
        let (group, version, kind) = act.body();
        let of_body = meta::GroupVersion::new(group, version);
        settle_kind(&of_body.to_string(), kind, &mut body)?;
        let mut attributes = attributes(caller, resource, target, Operation::Create);
        kind.clone_into(&mut attributes.kind);
        attributes.kind_version = of_body;
        let mut of = (resource.clone(), target.clone());
        if target.key.name.is_empty() {
            let cx = self.context(&attributes);
            let acted = match act.outside(&cx, &body) {
                Some(answer) => answer.await?,
                None => act.act(&cx, None, &body)?,
            };
            match acted {
                Acted::Answer(answer) => return Ok(answer),
                Acted::Of { resource, subresource } => {
                    of = self.named_in(&resource, subresource, &target.key, &mut body)?;
                    attributes = named(attributes, body.name());
                }
                Acted::Update { .. } | Acted::Delete { .. } => {
                    return Err(Status::internal("a virtual kind cannot change objects"));
                }
            }
        }
        let (resource, target) = (&of.0, &of.1);
        let Some(Subresource::Act(act)) = resource.subresource(&target.subresource) else {
            return Err(Status::internal(format!("{resource:?} has no act {}", target.subresource)));
        };
        let cx = self.context(&attributes);
        settle_name(&target.key, &mut body)?;
        self.mutate(&cx, Some(&mut body), None).await?;
        self.admit(&cx, Some(&body), None).await?;
        for _ in 0..TRIES_MAX {
            let Some((entry, current)) = self.current(resource, &target.key).await? else {
                return Err(Status::not_found(&resource.group_resource(), &target.key.name));
            };
            match act.act(&cx, Some(&current), &body)? {
                Acted::Answer(answer) => return Ok(answer),
                Acted::Of { .. } => return Err(Status::internal("an object's act is its own")),
                Acted::Update { object, answer } => {
                    if self.act_update(caller, resource, target, &entry, object).await? {
                        return Ok(answer);
                    }
                }
                Acted::Delete { options, answer, also, condition } => {
                    let (mut options, dry_run) = delete_options(caller, options);
                    let caller = Caller { dry_run, ..caller.clone() };
                    if !self.act_also(&caller, also).await? {
                        continue;
                    }
                    if let (Some(condition), false) = (condition, dry_run) {
                        self.say(&caller, resource, target, &condition, &mut options).await?;
                    }
                    self.delete(&caller, resource, &target.key, &options).await?;
                    return Ok(answer);
                }
            }
        }
        Err(super::update::modified(resource, &target.key.name))
    }

    /// The kind and the place of the object that a body names, in the namespace of `place`.
    fn named_in(
        &self,
        of: &GroupResource,
        subresource: &'static str,
        place: &ObjectKey,
        body: &mut Object,
    ) -> Result<(Arc<Resource>, Target), Status> {
        if body.name().is_empty() {
            return Err(Status::bad_request("Name parameter required."));
        }
        let resource = self.registry.stored(of).filter(|resource| resource.group_resource() == *of);
        let resource = resource.ok_or_else(|| Status::internal(format!("kind {of} is not served")))?;
        let key = ObjectKey::new(place.namespace.clone(), body.name());
        settle_namespace(&resource, &key, body)?;
        Ok((resource, Target { key, subresource: subresource.to_owned() }))
    }

    /// Asks admission about a stream. `options` is its body as upstream has it (`PodExecOptions`).
    pub async fn admit_connect(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        options: Object,
    ) -> Result<(), Status> {
        let mut attributes = attributes(caller, resource, target, Operation::Connect);
        options.kind().clone_into(&mut attributes.kind);
        attributes.kind_version = meta::GroupVersion::new("", "v1");
        let cx = self.context(&attributes);
        let mut changed = options.clone();
        self.mutate(&cx, Some(&mut changed), None).await?;
        if changed != options {
            let why = "admission changed the options of a stream, which is not supported";
            return Err(Status::internal(why));
        }
        self.admit(&cx, Some(&options), None).await
    }

    /// Stores what an act decided; false when the object has changed since.
    async fn act_update(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        seen: &Arc<meta::Entry>,
        object: Object,
    ) -> Result<bool, Status> {
        let changed = self
            .change(caller, resource, target, |_, entry| {
                if entry.revision != seen.revision {
                    return Err(super::update::modified(resource, &target.key.name));
                }
                Ok(Change { object: object.clone(), origin: Origin::Acted, conditional: true })
            })
            .await;
        match changed {
            Ok(_) => Ok(true),
            Err(Status { code: 409, .. }) => Ok(false),
            Err(status) => Err(status),
        }
    }

    /// Has the status of an object say something before it is deleted, whatever else of it changes meanwhile. What the
    /// deletion asks for is asked of the object before, and of its version after.
    async fn say(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        condition: &meta::Condition,
        options: &mut DeleteOptions,
    ) -> Result<(), Status> {
        let said = self
            .change(caller, resource, target, |current, entry| {
                preconditions(resource, entry, options)?;
                let mut object = current.clone();
                condition.set_in(&mut object, self.clock.now());
                let origin = Origin::Acted;
                Ok(Change { object, origin, conditional: false })
            })
            .await?;
        if let Some(version) = &mut options.resource_version {
            *version = said.revision.to_string();
        }
        Ok(())
    }

    /// Updates the status of other objects that an act depends on; false when one of them has changed.
    async fn act_also(&self, caller: &Caller, also: Vec<Object>) -> Result<bool, Status> {
        for object in also {
            if self.amend(caller, object).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Updates the status of an object if it is unchanged since it was read; `None` when it is not.
    pub(super) async fn amend(
        &self,
        caller: &Caller,
        object: Object,
    ) -> Result<Option<Arc<meta::Entry>>, Status> {
        let version = object.group_version().unwrap_or_else(|| meta::GroupVersion::new("", "v1"));
        let resource = self
            .registry
            .by_kind(&version.group, &version.version, object.kind())
            .ok_or_else(|| Status::internal(format!("kind {} is not served", object.kind())))?;
        let target = Target { key: object.key(), subresource: "status".to_owned() };
        match self.update(caller, &resource, &target, object, Duplicates::default()).await {
            Ok(written) => Ok(Some(written.entry)),
            Err(Status { code: 409, .. }) => Ok(None),
            Err(status) => Err(status),
        }
    }
}

/// Checks that a body is of the kind that an act takes, or says nothing else.
fn settle_kind(api_version: &str, kind: &str, body: &mut Object) -> Result<(), Status> {
    for (field, wanted) in [("apiVersion", api_version), ("kind", kind)] {
        match body.str(&[field]) {
            None | Some("") => body.set(&[field], wanted),
            Some(given) if given == wanted => {}
            // Upstream still reads evictions of kubectl before 1.22.
            Some("policy/v1beta1") if kind == "Eviction" => body.set(&[field], wanted),
            Some(given) => {
                return Err(Status::bad_request(format!(
                    "the {field} in the data ({given}) does not match the expected {field} ({wanted})"
                )));
            }
        }
    }
    Ok(())
}

/// DeleteOptions as an act gives them, and whether they ask for a dry run.
fn delete_options(caller: &Caller, raw: Value) -> (DeleteOptions, bool) {
    let text = |pointer: &str| raw.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
    let propagation = match raw.get("propagationPolicy").and_then(Value::as_str) {
        Some("Orphan") => Some(Propagation::Orphan),
        Some("Foreground") => Some(Propagation::Foreground),
        Some("Background") => Some(Propagation::Background),
        _ => None,
    };
    let dry_run = raw.get("dryRun").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let options = DeleteOptions {
        grace_period_seconds: raw.get("gracePeriodSeconds").and_then(Value::as_i64),
        uid: text("/preconditions/uid"),
        resource_version: text("/preconditions/resourceVersion"),
        propagation,
        raw,
    };
    (options, caller.dry_run || dry_run)
}
