//! The scale subresource of any kind: `autoscaling/v1` Scale over paths of the object.

use std::sync::Arc;

use meta::{Entry, Header, LabelSelector, Object, Status, Value};
use resource::{Resource, Scale};

use super::{
    Caller, Patch, PatchKind, Rest, Target, Written,
    create::Origin,
    patch::{brings_revision, patched},
    update::{Change, preconditions},
};

fn path(dotted: &str) -> Vec<&str> {
    dotted.trim_start_matches('.').split('.').collect()
}

/// The Scale of an object.
fn scale_of(scale: &Scale, object: &Object) -> Object {
    let int = |dotted: &str| object.int(&path(dotted)).unwrap_or(0);
    let mut made = Object::default();
    made.set(&["kind"], "Scale");
    made.set(&["apiVersion"], "autoscaling/v1");
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.get(&["metadata", field]) {
            made.set(&["metadata", field], value.clone());
        }
    }
    made.set(&["spec", "replicas"], int(&scale.spec_replicas));
    made.set(&["status", "replicas"], int(&scale.status_replicas));
    let selector = scale.selector.as_ref().and_then(|dotted| object.get(&path(dotted)));
    let text = match selector {
        Some(Value::String(text)) => Some(text.clone()),
        Some(map) => LabelSelector::from_value(map).ok().map(|selector| selector.to_string()),
        None => None,
    };
    if let Some(text) = text {
        made.set(&["status", "selector"], text);
    }
    made
}

impl Rest {
    /// The scale subresource of an object.
    pub async fn get_scale(
        &self,
        resource: &Arc<Resource>,
        target: &Target,
        scale: &Scale,
    ) -> Result<Arc<Entry>, Status> {
        let entry = self.get(resource, &target.key, None).await?;
        entry_of(scale, &entry)
    }

    pub(super) async fn update_scale(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        scale: &Scale,
        wanted: &Object,
    ) -> Result<Written, Status> {
        self.set_scale(caller, resource, target, scale, true, |_| Ok(wanted.clone())).await
    }

    pub(super) async fn patch_scale(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        scale: &Scale,
        patch: &Patch,
    ) -> Result<Written, Status> {
        if patch.kind == PatchKind::Strategic && resource.custom {
            return Err(Status::new(
                415,
                meta::Reason::UnsupportedMediaType,
                "strategic merge patch is not supported for the scale of custom resources",
            ));
        }
        // A Scale has no lists, so that strategic merge and apply are the same as merge.
        let plain = match patch.kind {
            PatchKind::Json => patch.clone(),
            _ => Patch { kind: PatchKind::Merge, ..patch.clone() },
        };
        // The Scale's revision came with it; only one that the patch brought counts.
        self.set_scale(caller, resource, target, scale, brings_revision(&patch.body), |current| {
            let mut tree = scale_of(scale, current).into_value();
            patched(resource, &mut tree, &plain)?;
            Object::from_value(tree).map_err(|_| Status::bad_request("the patch does not leave a Scale"))
        })
        .await
    }

    async fn set_scale(
        &self,
        caller: &Caller,
        resource: &Arc<Resource>,
        target: &Target,
        scale: &Scale,
        conditional: bool,
        wanted: impl Fn(&Object) -> Result<Object, Status>,
    ) -> Result<Written, Status> {
        let entry = self
            .change(caller, resource, target, |current, entry| {
                let wanted = wanted(current)?;
                let replicas = replicas(&wanted)?;
                let conditional = conditional && preconditions(resource, current, entry, &wanted)?;
                let mut object = current.clone();
                object.set(&path(&scale.spec_replicas), replicas);
                Ok(Change { object, origin: Origin::Sent, conditional })
            })
            .await?;
        Ok(Written { entry: entry_of(scale, &entry)?, created: false })
    }
}

fn entry_of(scale: &Scale, entry: &Entry) -> Result<Arc<Entry>, Status> {
    let object = scale_of(scale, &entry.object().map_err(Status::internal)?);
    let stored = Entry::encode(&object).map_err(Status::internal)?;
    Entry::commit(&stored, Header::of(&object, Box::default()), entry.revision).map_err(Status::internal)
}

fn replicas(wanted: &Object) -> Result<i64, Status> {
    let given = wanted.get(&["spec", "replicas"]).cloned().unwrap_or_else(|| 0.into());
    match given.as_i64() {
        Some(replicas) if (0..=i64::from(i32::MAX)).contains(&replicas) => Ok(replicas),
        _ => {
            let why = "must be greater than or equal to 0";
            let error = meta::FieldError::invalid("spec.replicas", &given, why);
            Err(Status::invalid("autoscaling", "Scale", wanted.name(), &[error]))
        }
    }
}
