//! patch: JSON, merge, strategic merge, server-side apply.

use std::sync::Arc;

use meta::{Entry, Object, Reason, Status, Value};
use resource::{Resource, Subresource, Verb};
use schema::patch::PatchError;

use super::{
    Caller, Duplicates, FieldValidation, Patch, PatchKind, Rest, TRIES_MAX, Target, Written,
    create::Origin,
    metadata::{settle_name, settle_namespace},
    pipeline,
    update::{Change, modified, preconditions},
};

impl Rest {
    /// Changes an object by a patch. Server-side apply creates it when it is absent.
    pub async fn patch(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        patch: Patch,
    ) -> Result<Written, Status> {
        self.decide(patch, |patch| self.try_patch(caller, resource, target, patch)).await
    }

    async fn try_patch(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        patch: Patch,
    ) -> Result<Written, Status> {
        if !resource.verbs.contains(&Verb::Patch) {
            return Err(Status::method_not_allowed(&resource.group_resource(), "patch"));
        }
        if let Some(Subresource::Scale(scale)) = resource.subresource(&target.subresource) {
            return self.patch_scale(caller, resource, target, scale, &patch).await;
        }
        match patch.kind {
            PatchKind::Apply { force } => self.apply(caller, resource, target, patch, force).await,
            PatchKind::Strategic if resource.custom => Err(unsupported(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )),
            PatchKind::Json | PatchKind::Merge | PatchKind::Strategic => {
                self.patch_plain(caller, resource, target, patch).await
            }
        }
    }

    async fn patch_plain(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        patch: Patch,
    ) -> Result<Written, Status> {
        pipeline::strict(caller, Vec::new(), patch.duplicates.clone())?;
        let entry = self
            .change(caller, resource, target, |current, entry| {
                let mut tree = current.clone().into_value();
                patched(resource, &mut tree, &patch)?;
                let mut object = Object::from_value(tree)
                    .map_err(|_| Status::bad_request("the patch does not leave an object"))?;
                pipeline::decode(resource, caller, &mut object, Duplicates::default())?;
                settle_name(&target.key, &mut object)?;
                settle_namespace(resource, &target.key, &mut object)?;
                // The stored revision came with the object; only one that the patch brought counts.
                let conditional =
                    brings_revision(&patch.body) && preconditions(resource, current, entry, &object)?;
                Ok(Change { object, origin: Origin::Sent, conditional })
            })
            .await?;
        Ok(Written { entry, created: false })
    }

    async fn apply(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        patch: Patch,
        force: bool,
    ) -> Result<Written, Status> {
        if caller.field_manager.is_empty() {
            return Err(Status::bad_request(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ));
        }
        let mut applied = Object::from_value(patch.body)
            .map_err(|_| Status::bad_request("the applied configuration must be an object"))?;
        if applied.get(&["metadata", "managedFields"]).is_some_and(|v| !v.is_null()) {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        self.check_applied(caller, resource, target, &mut applied, patch.duplicates)?;
        let api_version = resource.api_version();
        let request = self.managed(resource, caller, &target.subresource, &api_version);
        let creates = target.subresource.is_empty();
        for _ in 0..TRIES_MAX {
            if creates && self.kind(resource).get(&target.key).is_none() {
                match self.apply_new(caller, resource, target, &applied, &request, force).await {
                    // Somebody else created it since: apply to what is there now.
                    Err(Status { reason: Some(Reason::AlreadyExists), .. }) => {}
                    other => return other.map(|entry| Written { entry, created: true }),
                }
            }
            let changed = self.change(caller, resource, target, |current, entry| {
                let conditional = preconditions(resource, current, entry, &applied)?;
                let made = schema::managed::apply(&resource.schema, Some(current), &applied, &request, force);
                let mut object =
                    made.map_err(|error| error.status(&resource.group_resource(), &target.key.name))?.object;
                self.complete(resource, &mut object)?;
                Ok(Change { object, origin: Origin::Applied, conditional })
            });
            match changed.await {
                // Somebody else deleted it since: look again.
                Err(status) if creates && status.is_missing(&resource.group_resource(), &target.key.name) => {
                }
                other => return other.map(|entry| Written { entry, created: false }),
            }
        }
        Err(modified(resource, &target.key.name))
    }

    /// Applies to nothing.
    async fn apply_new(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        applied: &Object,
        request: &schema::managed::Request<'_>,
        force: bool,
    ) -> Result<Arc<Entry>, Status> {
        if !applied.uid().is_empty() || applied.str(&["metadata", "resourceVersion"]).is_some() {
            let why = "uid mismatch: the provided object specified uid or resourceVersion, and no existing object was found";
            return Err(Status::conflict(&resource.group_resource(), &target.key.name, why));
        }
        let made = schema::managed::apply(&resource.schema, None, applied, request, force);
        let mut object =
            made.map_err(|error| error.status(&resource.group_resource(), &target.key.name))?.object;
        self.complete(resource, &mut object)?;
        self.create_decoded(caller, resource, target.key.clone(), object, Origin::Applied).await
    }

    /// Checks an applied configuration without adding defaults to it: it must own what it says, no more.
    fn check_applied(
        &self,
        caller: &Caller,
        resource: &Resource,
        target: &Target,
        applied: &mut Object,
        duplicates: Duplicates,
    ) -> Result<(), Status> {
        for field in ["apiVersion", "kind"] {
            if applied.str(&[field]).is_none_or(str::is_empty) {
                return Err(Status::bad_request(format!("{field} must be set in an apply patch")));
            }
        }
        let mut probe = applied.clone();
        pipeline::decode(
            resource,
            &Caller { field_validation: FieldValidation::Ignore, ..caller.clone() },
            &mut probe,
            Duplicates::default(),
        )?;
        if caller.field_validation == FieldValidation::Strict
            && let Some(errors) = duplicates.yaml_errors()
        {
            let why = format!("error strict decoding YAML: error converting YAML to JSON: {errors}");
            return Err(Status::bad_request(why));
        }
        // A field that no schema declares is refused by the merge, whatever field validation was asked for.
        pipeline::strict(caller, Vec::new(), duplicates)?;
        settle_name(&target.key, applied)?;
        settle_namespace(resource, &target.key, applied)
    }

    /// Defaults of an object that apply has merged.
    fn complete(&self, resource: &Resource, object: &mut Object) -> Result<(), Status> {
        let mut tree = std::mem::take(object).into_value();
        schema::default::apply(&resource.schema, &mut tree);
        *object = Object::from_value(tree).map_err(|_| Status::internal("apply did not leave an object"))?;
        resource.strategy.default(object);
        Ok(())
    }
}

/// Applies a plain patch to a tree.
pub(super) fn patched(resource: &Resource, tree: &mut Value, patch: &Patch) -> Result<(), Status> {
    let applied = match patch.kind {
        PatchKind::Json => schema::patch::json(tree, &patch.body),
        PatchKind::Merge | PatchKind::Apply { .. } => {
            if !patch.body.is_object() {
                return Err(Status::bad_request("a merge patch must be an object"));
            }
            schema::patch::merge(tree, &patch.body);
            Ok(())
        }
        PatchKind::Strategic => schema::patch::strategic(&resource.schema, tree, &patch.body),
    };
    applied.map_err(|error: PatchError| match error.code() {
        422 => Status {
            code: 422,
            reason: Some(Reason::Invalid),
            message: format!("the server rejected our request due to an error in our request: {error}"),
            details: None,
            continue_token: None,
        },
        413 => Status::new(413, Reason::RequestEntityTooLarge, error.to_string()),
        _ => Status::bad_request(error.to_string()),
    })
}

/// Whether the patch itself says which revision it is for.
pub(super) fn brings_revision(body: &Value) -> bool {
    match body {
        Value::Array(ops) => {
            ops.iter().any(|op| op.get("path").and_then(Value::as_str) == Some("/metadata/resourceVersion"))
        }
        other => other.pointer("/metadata/resourceVersion").is_some_and(|v| !v.is_null()),
    }
}

fn unsupported(why: &str) -> Status {
    Status::new(415, Reason::UnsupportedMediaType, why)
}
