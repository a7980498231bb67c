//! What a request may ask beside its object. Parsed once, by the HTTP layer, into types that are valid.

use std::{collections::HashMap, sync::Arc};

use meta::{ObjectKey, Revision, Value};
use resource::{Notes, User};
use serde_json::Map;

use crate::auth::{AUTHENTICATED, MASTERS};

/// Who writes, and how.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Who.
    pub user: User,
    /// Owner of the fields in `managedFields`: the `fieldManager` parameter, else the first part of the
    /// user agent.
    pub field_manager: String,
    /// Decide everything, store nothing.
    pub dry_run: bool,
    /// What becomes of unknown and duplicate fields.
    pub field_validation: FieldValidation,
    /// The members of CreateOptions or UpdateOptions that the parameters name, for admission: `dryRun`, `fieldManager`,
    /// `fieldValidation`. What the server concludes without them, such as a manager from the user agent, is not here.
    pub options: Map<String, Value>,
    /// Where warnings and audit annotations of this request go.
    pub notes: Arc<Notes>,
}

impl Caller {
    /// This server itself.
    pub(crate) fn server() -> Self {
        let groups = vec![MASTERS.to_owned(), AUTHENTICATED.to_owned()];
        Self {
            user: User { name: "system:apiserver".to_owned(), groups, ..User::default() },
            field_manager: "kube-apiserver".to_owned(),
            field_validation: FieldValidation::Ignore,
            ..Self::default()
        }
    }
}

/// The `fieldValidation` parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them with a warning; the default.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// How `resourceVersion` is meant in a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum At {
    /// The newest state.
    #[default]
    Newest,
    /// Any state, which is the newest here.
    Any,
    /// This or a newer one.
    NotOlderThan(Revision),
    /// This one.
    Exact(Revision),
}

/// Options of list, watch and deletecollection.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Only objects with such labels.
    pub labels: Option<meta::LabelSelector>,
    /// Only objects with such fields.
    pub fields: Option<meta::FieldSelector>,
    /// Page size; `None` for everything.
    pub limit: Option<usize>,
    /// Where the last page ended.
    pub continue_token: Option<String>,
    /// Which state to list.
    pub at: At,
    /// Start of a watch as given: `None` or `"0"` for "from some recent state".
    pub watch_from: Option<Revision>,
    /// Watch: begin with the present objects and mark their end with a bookmark.
    pub send_initial_events: bool,
    /// Watch: begin with what happens from now on, although no revision is given.
    pub skip_initial_events: bool,
    /// Watch: send bookmarks.
    pub bookmarks: bool,
    /// End a watch after so many seconds; `None` for a time between 30 and 60 minutes.
    pub timeout_seconds: Option<u32>,
}

/// `propagationPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "upstream's names")]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// DeleteOptions.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds; `None` for the kind's default.
    pub grace_period_seconds: Option<i64>,
    /// Only if the object has this UID.
    pub uid: Option<String>,
    /// Only if the object is at this revision.
    pub resource_version: Option<String>,
    /// What becomes of dependents; `None` for the kind's default.
    pub propagation: Option<Propagation>,
    /// As the client sent it, for admission.
    pub raw: Value,
}

/// Which patch a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Strategic merge patch; not for custom resources.
    Strategic,
    /// Server-side apply.
    Apply {
        /// Take fields from other managers.
        force: bool,
    },
}

/// Keys that a body gave more than once. Of JSON, upstream's strict decoder names them by their paths, in the order of
/// the text together with the fields it does not know; of YAML, another decoder names them by their lines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Duplicates {
    /// `duplicate field "spec.replicas"`, with the place of the key that repeats another.
    pub(crate) found: Vec<(usize, String)>,
    /// The place of the first key of each path, as far as it was noted; empty without duplicates.
    pub(crate) first: HashMap<String, usize>,
    /// `line 9: key "replicas" already set in map`, of YAML.
    pub(crate) lines: Vec<String>,
}

impl Duplicates {
    /// What a YAML decoder says of the lines; `None` without any.
    pub(crate) fn yaml_errors(&self) -> Option<String> {
        let each = self.lines.iter().map(|line| format!("\n  {line}"));
        (!self.lines.is_empty()).then(|| format!("yaml: unmarshal errors:{}", each.collect::<String>()))
    }

    /// One list by places with `unknown`, the sentences on fields that are not known.
    pub(crate) fn among(self, unknown: Vec<String>) -> Vec<String> {
        let Self { mut found, first, lines: _ } = self;
        let place = |sentence: &str| {
            let path = sentence.split('"').nth(1)?;
            first.get(path).copied()
        };
        found.extend(unknown.into_iter().map(|text| (place(&text).unwrap_or(usize::MAX), text)));
        found.sort_by_key(|(place, _)| *place);
        found.into_iter().map(|(_, text)| text).collect()
    }
}

/// A patch.
#[derive(Clone, Debug)]
pub struct Patch {
    /// How to read the body.
    pub kind: PatchKind,
    /// The body.
    pub body: Value,
    /// Duplicate keys that the decoder found in it.
    pub duplicates: Duplicates,
}

/// Names one object and, possibly, something below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Subresource; empty for the object itself.
    pub subresource: String,
}
