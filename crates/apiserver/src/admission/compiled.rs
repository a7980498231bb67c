//! Configuration objects in the form they are used in, made once for each state of an object.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use meta::{GroupResource, Object, Revision, Status};
use resource::View;

/// What `make` makes of each object of a kind, kept until the object changes.
pub(super) struct Compiled<T> {
    kind: GroupResource,
    make: fn(&Object) -> T,
    known: Mutex<HashMap<String, (Revision, Arc<T>)>>,
}

impl<T> Compiled<T> {
    pub(super) fn new(kind: GroupResource, make: fn(&Object) -> T) -> Self {
        Self { kind, make, known: Mutex::default() }
    }

    /// All of them, by name.
    pub(super) fn all(&self, view: &dyn View) -> Result<Vec<Arc<T>>, Status> {
        let entries = view.list(&self.kind, None);
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > entries.len() {
            known.retain(|name, _| entries.iter().any(|entry| entry.header.key.name == *name));
        }
        let mut all = Vec::with_capacity(entries.len());
        for entry in entries {
            let name = &entry.header.key.name;
            if let Some((revision, made)) = known.get(name)
                && *revision == entry.revision
            {
                all.push(made.clone());
                continue;
            }
            let object = entry.object().map_err(Status::internal)?;
            let made = Arc::new((self.make)(&object));
            known.insert(name.clone(), (entry.revision, made.clone()));
            all.push(made);
        }
        Ok(all)
    }
}
