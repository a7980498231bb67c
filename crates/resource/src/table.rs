//! The table entry of a kind.

use std::{borrow::Cow, sync::Arc};

use futures::future::BoxFuture;
use meta::{GroupResource, GroupVersion, Object, Revision, Status, Value};
use schema::Schema;

use crate::{Context, Strategy};

/// Whether objects live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "upstream's names")]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// A verb as in discovery and RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "upstream's names")]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

impl Verb {
    /// All eight, in discovery's order: what a stored kind serves unless its entry says less.
    pub const ALL: &'static [Self] = &[
        Self::Create,
        Self::Delete,
        Self::DeleteCollection,
        Self::Get,
        Self::List,
        Self::Patch,
        Self::Update,
        Self::Watch,
    ];
}

/// One version of one kind.
#[derive(Clone)]
pub struct Resource {
    /// Group; empty for core.
    pub group: Arc<str>,
    /// Version, such as `v1`.
    pub version: Arc<str>,
    /// Kind, such as `Deployment`.
    pub kind: Arc<str>,
    /// Kind of lists, such as `DeploymentList`.
    pub list_kind: Arc<str>,
    /// Plural, such as `deployments`.
    pub plural: Arc<str>,
    /// Singular, such as `deployment`.
    pub singular: Arc<str>,
    /// `deploy`.
    pub short_names: Vec<Arc<str>>,
    /// `all`.
    pub categories: Vec<Arc<str>>,
    /// Namespaced or cluster.
    pub scope: Scope,
    /// Where its objects are stored. Versions of one kind share it, and so do `events` and
    /// `events.events.k8s.io`.
    pub stored_as: GroupResource,
    /// The group and version objects are stored in; [`Resource::convert`] bridges to this entry's version.
    pub stored_version: GroupVersion,
    /// Brings objects from and to the stored version; `None` when only `apiVersion` differs or nothing does.
    pub convert: Option<Arc<dyn Convert>>,
    /// Verbs served. A kind with only `create` and no store (`TokenReview`) is answered by its
    /// [`Subresource::Act`] under the empty name.
    pub verbs: &'static [Verb],
    /// Structure, defaults, rules.
    pub schema: Schema,
    /// Columns of `kubectl get`, without `Name` where it is the first as usual.
    pub columns: Vec<Column>,
    /// Subresources, sorted by name.
    pub subresources: Vec<(Arc<str>, Subresource)>,
    /// Fields that field selectors may name besides `metadata.name` and `metadata.namespace`.
    pub selectable: Vec<Selectable>,
    /// What no schema can say.
    pub strategy: Arc<dyn Strategy>,
    /// Objects last written before this revision may lack what the schema gives by default now; revision 0 where
    /// none can.
    pub complete_since: Revision,
    /// Whether it came from a CRD: JSON patch types, no strategic merge, pruning of unknown fields.
    pub custom: bool,
    /// `Warning` header text when it is used; `None` when not deprecated.
    pub deprecated: Option<Arc<str>>,
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.group, self.version, self.plural)
    }
}

impl Resource {
    /// Group and plural as users and RBAC name it.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&*self.group, &*self.plural)
    }

    /// `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        GroupVersion::new(&*self.group, &*self.version).to_string()
    }

    /// A subresource by name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|(n, _)| &**n == name).map(|(_, s)| s)
    }

    /// Whether `status` is a subresource, so that writes to the main resource leave it alone.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }
}

/// What can be done below an object's path.
#[derive(Clone)]
pub enum Subresource {
    /// Reads the object, writes only `status` (and, as upstream, metadata is kept).
    Status,
    /// `autoscaling/v1` Scale over fields of the object.
    Scale(Scale),
    /// Writes the whole object under other rules than the main path; `ephemeralcontainers`, `resize`,
    /// `finalize`, `approval`: `Strategy::prepare` and `validate` see the name in [`Context`].
    Update,
    /// POST with a body of its own kind.
    Act(Arc<dyn Act>),
    /// A stream through to the node (`log`, `exec`, `attach`, `portforward`, `proxy`).
    Connect,
}

/// Paths of a scale subresource, in dots (`spec.replicas`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "CustomResourceSubresourceScale's names")]
pub struct Scale {
    pub spec_replicas: Cow<'static, str>,
    pub status_replicas: Cow<'static, str>,
    /// A string at this path, or a LabelSelector map, is the selector.
    pub selector: Option<Cow<'static, str>>,
}

/// A POST subresource (`binding`, `eviction`, `token`) or a virtual kind (`SubjectAccessReview`).
pub trait Act: Send + Sync {
    /// Group, version and kind of the body.
    fn body(&self) -> (&'static str, &'static str, &'static str);

    /// Decides in place of `act`, for a virtual kind that may have to ask somebody outside (a token issuer, a
    /// webhook) and wait for the answer; `None` when there is nobody to ask.
    fn outside<'a>(
        &'a self,
        cx: &'a Context<'a>,
        body: &'a Object,
    ) -> Option<BoxFuture<'a, Result<Acted, Status>>> {
        let _ = (cx, body);
        None
    }

    /// Decides from the current object (absent for virtual kinds) and the body.
    fn act(&self, cx: &Context<'_>, object: Option<&Object>, body: &Object) -> Result<Acted, Status>;
}

/// What a POST subresource asks the engine to do. The engine repeats `act` when the object has changed
/// meanwhile.
#[derive(Debug)]
pub enum Acted {
    /// Store this new state of the object (as an update) and answer with `answer` (201).
    Update {
        /// New state.
        object: Object,
        /// Body of the answer.
        answer: Value,
    },
    /// Delete the object with these DeleteOptions and answer with `answer` (201).
    Delete {
        /// DeleteOptions.
        options: Value,
        /// Body of the answer.
        answer: Value,
        /// Objects of other kinds to update first, each only if unchanged since read (a
        /// PodDisruptionBudget's status): `apiVersion`, `kind` and metadata say which.
        also: Vec<Object>,
        /// What the object's status says of it from then on, while it goes.
        condition: Option<meta::Condition>,
    },
    /// Nothing is stored; this is the answer (201).
    Answer(Value),
    /// Of a virtual kind: the body is meant for the POST subresource of the object that it names by `metadata.name`, in
    /// the namespace of the request. Admission sees the request as it came.
    Of {
        /// Whose.
        resource: GroupResource,
        /// Which.
        subresource: &'static str,
    },
}

/// Conversion between a served and the stored version. Total: an object that cannot be represented keeps
/// what it cannot say in annotations, as upstream.
pub trait Convert: Send + Sync {
    /// Served to stored.
    fn to_stored(&self, object: &mut Object) -> Result<(), Status>;
    /// Stored to served.
    fn to_served(&self, object: &mut Object) -> Result<(), Status>;
    /// What converts instead, where stored objects are in several versions or conversion has to ask somebody.
    fn all(&self) -> Option<&dyn ConvertAll> {
        None
    }
}

/// Conversion of objects that are each in a version of its own, by somebody who may have to be asked.
pub trait ConvertAll: Send + Sync {
    /// Brings the objects to `api_version`, in their order: all or none.
    fn convert<'a>(
        &'a self,
        objects: Vec<Object>,
        api_version: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Object>, Status>>;
}

/// Computes one cell of a Table row at a given time.
pub type Cell = Arc<dyn Fn(&Object, meta::Timestamp) -> Value + Send + Sync>;

/// A column of a Table.
#[derive(Clone)]
pub struct Column {
    /// Heading as upstream has it; kubectl upper-cases it.
    pub name: Cow<'static, str>,
    /// Type.
    pub of: ColumnType,
    /// Format, such as `name`; mostly empty.
    pub format: Cow<'static, str>,
    /// For a reader.
    pub description: Cow<'static, str>,
    /// 0 shows always; above, only with `-o wide`.
    pub priority: i32,
    /// The cell.
    pub cell: Cell,
}

/// OpenAPI type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "OpenAPI's names")]
pub enum ColumnType {
    String,
    Integer,
    Number,
    Boolean,
    Date,
}

/// A field that selectors may name.
#[derive(Clone)]
pub struct Selectable {
    /// As written in the selector, such as `spec.nodeName`.
    pub name: Cow<'static, str>,
    /// Its value, as a string; empty when unset.
    pub value: Arc<dyn Fn(&Object) -> String + Send + Sync>,
    /// Objects are also found by it, whoever else there is: a read that names its value costs what it finds.
    /// One field of a kind at most, as it costs each write; of several the first counts.
    pub indexed: bool,
}
