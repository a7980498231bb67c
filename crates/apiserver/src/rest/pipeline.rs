//! The steps that every write shares.

use std::sync::Arc;

use meta::{Entry, FieldError, Header, Object, Revision, Status, Value};
use resource::{Admission, Attributes, Claim, Context, Operation, Resource};
use schema::managed;
use store::Expect;
use tokio::time::Instant;

use super::{
    Caller, Duplicates, FieldValidation, Rest, complete, converter, is_stored_version, metadata, to_stored,
};
use crate::{
    cache::fields,
    committer::{Commit, Committed, Put},
    metrics::Step,
};

/// The code of a write that may or may not have happened.
pub(super) const UNKNOWN: u16 = 504;

/// Something wrong with the way a body is written, not with what it says.
pub(super) fn strict(caller: &Caller, unknown: Vec<String>, duplicates: Duplicates) -> Result<(), Status> {
    match caller.field_validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => {
            caller.notes.warn_all(duplicates.lines.iter().cloned());
            caller.notes.warn_all(duplicates.among(unknown));
        }
        FieldValidation::Strict => {
            let mut errors: Vec<String> = duplicates.yaml_errors().into_iter().collect();
            errors.extend(duplicates.among(unknown));
            if !errors.is_empty() {
                return Err(Status::bad_request(format!("strict decoding error: {}", errors.join(", "))));
            }
        }
    }
    Ok(())
}

/// Checks that a body is an object of this kind, drops unknown fields and applies defaults.
pub(super) fn decode(
    resource: &Resource,
    caller: &Caller,
    object: &mut Object,
    duplicates: Duplicates,
) -> Result<(), Status> {
    let (api_version, kind) = (resource.api_version(), &*resource.kind);
    for (field, expected, what) in
        [("apiVersion", api_version.as_str(), "API version"), ("kind", kind, "kind")]
    {
        match object.str(&[field]) {
            None | Some("") => object.set(&[field], expected),
            Some(given) if given == expected => {}
            Some(given) => {
                return Err(Status::bad_request(format!(
                    "the {what} in the data ({given}) does not match the expected {what} ({expected})"
                )));
            }
        }
    }
    let mut tree = std::mem::take(object).into_value();
    if !resource.custom
        && let Err(why) = schema::decode::check(&resource.schema, &tree)
    {
        let version = &*resource.version;
        return Err(Status::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"
        )));
    }
    let mode = match caller.field_validation {
        FieldValidation::Ignore => schema::prune::Mode::Ignore,
        FieldValidation::Warn | FieldValidation::Strict => schema::prune::Mode::Report,
    };
    let unknown = schema::prune::unknown(&resource.schema, &mut tree, mode);
    strict(caller, unknown, duplicates)?;
    schema::default::apply(&resource.schema, &mut tree);
    *object = Object::from_value(tree).map_err(|_| Status::bad_request("the body is not an object"))?;
    resource.strategy.default(object);
    Ok(())
}

/// 422 with everything that is wrong. Takes the trees for a moment to look at them as values.
pub(super) fn validate(
    resource: &Resource,
    cx: &Context<'_>,
    new: &mut Object,
    old: Option<&mut Object>,
) -> Result<(), Status> {
    let mut errors: Vec<FieldError> = Vec::new();
    let tree = std::mem::take(new).into_value();
    let old = match old {
        None => {
            errors.extend(schema::validate::value(&resource.schema, &tree, None));
            None
        }
        Some(old) => {
            let old_tree = std::mem::take(old).into_value();
            errors.extend(schema::validate::value(&resource.schema, &tree, Some(&old_tree)));
            *old = whole(old_tree);
            Some(&*old)
        }
    };
    *new = whole(tree);
    metadata::validate(resource, new, old, &mut errors);
    let mut further: Vec<FieldError> = Vec::new();
    resource.strategy.validate(cx, new, old, &mut further);
    if !resource.custom {
        // What the schema of a built-in kind said, its own rules need not say again in other words. The
        // rules of a custom resource say something of their own each.
        further.retain(|said| !errors.iter().any(|e| e.field == said.field && e.kind == said.kind));
    }
    errors.append(&mut further);
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(&resource.group, &resource.kind, new.name(), &errors))
}

fn whole(tree: Value) -> Object {
    Object::from_value(tree).unwrap_or_default()
}

/// One round of admission, timed: the clock is read once between two plugins.
struct Round<'a> {
    rest: &'a Rest,
    step: Step,
    operation: Operation,
    began: Instant,
    last: Instant,
    rejected: bool,
}

impl<'a> Round<'a> {
    fn begin(rest: &'a Rest, step: Step, operation: Operation) -> Self {
        let now = Instant::now();
        Self { rest, step, operation, began: now, last: now, rejected: false }
    }

    fn plugin(&mut self, at: usize, rejected: bool) {
        let now = Instant::now();
        let took = now - std::mem::replace(&mut self.last, now);
        self.rest.metrics.admission.plugin(at, self.step, self.operation, rejected, took);
        self.rejected |= rejected;
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        let took = self.last - self.began;
        self.rest.metrics.admission.all(self.step, self.operation, self.rejected, took);
    }
}

impl Rest {
    pub(super) async fn mutate(
        &self,
        cx: &Context<'_>,
        mut object: Option<&mut Object>,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        let mut round = Round::begin(self, Step::Admit, cx.attributes.operation);
        for (at, plugin) in self.handling(cx) {
            let done = plugin.mutate(cx, object.as_deref_mut(), old).await;
            round.plugin(at, done.is_err());
            done?;
        }
        Ok(())
    }

    pub(super) async fn admit(
        &self,
        cx: &Context<'_>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        let mut round = Round::begin(self, Step::Validate, cx.attributes.operation);
        for (at, plugin) in self.handling(cx) {
            let done = plugin.validate(cx, object, old).await;
            round.plugin(at, done.is_err());
            done?;
        }
        Ok(())
    }

    /// The plugins that want to see the request, and their places in the chain.
    fn handling<'a>(&'a self, cx: &Context<'a>) -> impl Iterator<Item = (usize, &'a Arc<dyn Admission>)> {
        let attributes = cx.attributes;
        self.admission.iter().enumerate().filter(|(_, plugin)| plugin.handles(attributes))
    }

    /// Records who owns which field, for creates, updates and patches other than apply.
    pub(super) fn manage(
        &self,
        resource: &Resource,
        caller: &Caller,
        subresource: &str,
        old: Option<&Object>,
        new: &mut Object,
    ) {
        let api_version = resource.api_version();
        let request = self.managed(resource, caller, subresource, &api_version);
        managed::update(&resource.schema, old, new, &request);
    }

    pub(super) fn managed<'a>(
        &self,
        resource: &Resource,
        caller: &'a Caller,
        subresource: &'a str,
        api_version: &'a str,
    ) -> managed::Request<'a> {
        let manager = if caller.field_manager.is_empty() { "unknown" } else { &caller.field_manager };
        let reset: &[&str] = match subresource {
            "" if resource.has_status() => &["status"],
            "status" => &["spec"],
            _ => &[],
        };
        managed::Request { manager, api_version, subresource, reset, now: self.clock.now() }
    }

    /// Encodes an object in the version it is stored in.
    pub(super) async fn put(&self, resource: &Resource, mut object: Object) -> Result<Put, Status> {
        // Selectable fields are read in the stored version, by the entry that declares it.
        let stored_entry = (!is_stored_version(resource)).then(|| self.registry.stored(&resource.stored_as));
        to_stored(resource, &mut object).await?;
        let declared = stored_entry.flatten();
        if let Some(declared) = declared.as_deref().filter(|stored| is_stored_version(stored))
            && converter(resource).is_some()
        {
            // A webhook may have added what the stored version does not know.
            complete(declared, &mut object);
        }
        let fields = fields(&object, declared.as_deref().unwrap_or(resource));
        let header = Header::of(&object, fields);
        Ok(Put { stored: Entry::encode(&object).map_err(Status::internal)?, header })
    }

    /// What a dry run answers: the object as it would be, with the revision of `old` or none.
    pub(super) fn pretend(&self, object: &Object, old: Option<&Arc<Entry>>) -> Result<Arc<Entry>, Status> {
        let header = Header::of(object, Box::default());
        let stored = Entry::encode(object).map_err(Status::internal)?;
        let revision = old.map_or(Revision(0), |old| old.revision);
        Entry::commit(&stored, header, revision).map_err(Status::internal)
    }

    /// Takes the claims of an object; gives back those taken when one of them is not free.
    pub(super) async fn claim(&self, claims: &[Claim]) -> Result<Option<Vec<Claim>>, Status> {
        let mut taken = Vec::new();
        for claim in claims {
            let Some(resource) = self.registry.stored(&claim.resource) else {
                return Err(Status::internal(format!("claims of kind {} are not served", claim.resource)));
            };
            let mut object = claim.object.clone();
            self.begin(&resource, &mut object);
            let commit = Commit {
                kind: resource.stored_as.clone(),
                key: object.key(),
                expect: Expect::Absent,
                put: Some(self.put(&resource, object).await?),
            };
            match self.commit(commit).await {
                Ok(Committed::Done(_) | Committed::Gone(_)) => taken.push(claim.clone()),
                Ok(Committed::Clash) => {
                    self.release(&taken).await;
                    return Ok(None);
                }
                Err(status) => {
                    self.release_after(&status, &taken).await;
                    return Err(status);
                }
            }
        }
        Ok(Some(taken))
    }

    /// Gives claims back after their claimant could not be stored; where nobody knows whether it was, they
    /// stay, since two must not hold the same.
    pub(super) async fn release_after(&self, status: &Status, claims: &[Claim]) {
        if status.code == UNKNOWN {
            tracing::warn!(claims = claims.len(), "claims stay, since their claimant may be stored");
        } else {
            self.release(claims).await;
        }
    }

    /// Gives claims back, unless they are another's by now: who is slow to give back may find that it was done for
    /// it. A failure leaves a claim whose owner does not hold it; it is logged, and `crate::repair` finds it by the
    /// owner named in it.
    pub(crate) async fn release(&self, claims: &[Claim]) {
        for claim in claims {
            let (kind, key) = (claim.resource.clone(), claim.object.key());
            let Some(found) = self.cache.kind(&kind).get(&key) else { continue };
            let holder = |object: &Object| {
                self.registry.stored(&kind).map(|resource| resource.strategy.holder(object))
            };
            if found.object().is_ok_and(|object| holder(&object) != holder(&claim.object)) {
                continue;
            }
            let commit = Commit { kind, key, expect: Expect::At(found.revision), put: None };
            if let Err(error) = self.commit(commit).await {
                tracing::warn!(claim = claim.object.name(), %error, "release a claim");
            }
        }
    }
}

/// Attributes of the same request for the object it turned out to be about.
pub(super) fn named(mut attributes: Attributes, name: &str) -> Attributes {
    name.clone_into(&mut attributes.name);
    attributes
}
