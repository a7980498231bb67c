//! Keeping `managedFields` on ordinary writes. On the hot path of every create and update: a create writes
//! FieldsV1 straight from the object, an update that changes nothing decodes nothing.

use meta::{Object, Value, format_second};
use serde_json::Map;

use super::{
    Request,
    entries::{self, Entry, Operation},
    fieldset::FieldSet,
    own::{self, Comparison},
};
use crate::Schema;

/// Keeps `metadata.managedFields` of `new` for a create (`old` absent), an update or a patch: fields that
/// changed now belong to the request's manager, fields that are gone to nobody. `managedFields` that the
/// client sends in `new` are taken as they are when they can be read, `[]` and `[{}]` drop all of them; what
/// cannot be read is ignored in favour of `old`'s, as upstream does. An object without `managedFields` is not
/// tracked until it is applied.
pub fn update(schema: &Schema, old: Option<&Object>, new: &mut Object, request: &Request<'_>) {
    let sent = new.remove(&["metadata", "managedFields"]).filter(|sent| !sent.is_null());
    let Some(old) = old else {
        return create(schema, new, sent.as_ref(), request);
    };
    let stored = old.get(&["metadata", "managedFields"]);
    // What a client read and sends back, as most do, is not its own.
    let (same, own) = match sent {
        Some(sent) if Some(&sent) == stored => (Some(sent), None),
        sent => (None, sent.filter(|_| request.subresource.is_empty())),
    };
    if own.as_ref().is_some_and(entries::is_reset) {
        return;
    }
    let comparison = own::compare(schema.set(), schema.root(), &old.0, &new.0, request.reset);
    let own = own.and_then(|own| entries::read(Some(&own)).ok()).filter(|own| !own.is_empty());
    if own.is_none() && comparison.is_empty() {
        if let Some(stored) = same.or_else(|| stored.cloned()) {
            new.set(&["metadata", "managedFields"], stored);
        }
        return;
    }
    let mut managers = own.or_else(|| entries::read(stored).ok()).unwrap_or_default();
    if !managers.is_empty() {
        record(&mut managers, &comparison, request);
        entries::cap(&mut managers);
        entries::store(new, managers);
    }
}

fn create(schema: &Schema, new: &mut Object, sent: Option<&Value>, request: &Request<'_>) {
    let sent = sent.filter(|sent| request.subresource.is_empty() && !entries::is_reset(sent));
    let sent = sent.and_then(|sent| entries::read(Some(sent)).ok()).unwrap_or_default();
    if !sent.is_empty() {
        let mut managers = sent;
        let comparison = own::compare(schema.set(), schema.root(), &Map::new(), &new.0, request.reset);
        record(&mut managers, &comparison, request);
        entries::cap(&mut managers);
        return entries::store(new, managers);
    }
    let fields = own::created(schema.set(), schema.root(), &new.0, request.reset);
    if fields.is_empty() {
        return;
    }
    let now = format_second(request.now);
    let names = [request.manager, request.api_version, request.subresource, &now];
    let entry = entries::write(Operation::Update, names, Value::Object(fields));
    new.set(&["metadata", "managedFields"], Value::Array(vec![entry]));
}

impl Comparison {
    pub(super) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }
}

/// Takes what changed from everyone, gives it to the request's manager, and forgets what is gone.
pub(super) fn record(managers: &mut Vec<Entry>, comparison: &Comparison, request: &Request<'_>) {
    let taken: FieldSet = comparison.modified.clone().union(&comparison.added);
    for entry in &mut *managers {
        entry.fields = entry.fields.difference(&taken).difference(&comparison.removed);
    }
    if !taken.is_empty() {
        let Request { manager, api_version, subresource, reset: _, now } = *request;
        let time = format_second(now);
        match managers.iter_mut().find(|e| e.is(Operation::Update, manager, api_version, subresource)) {
            Some(entry) => {
                entry.fields = std::mem::take(&mut entry.fields).union(&taken);
                entry.time = time;
            }
            None => managers.push(Entry {
                operation: Operation::Update,
                time,
                manager: manager.to_owned(),
                api_version: api_version.to_owned(),
                subresource: subresource.to_owned(),
                fields: taken,
            }),
        }
    }
    managers.retain(|entry| !entry.fields.is_empty());
}
