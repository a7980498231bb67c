//! Which objects a list or watch wants.

use meta::{Entry, FieldSelector, LabelSelector, ObjectKey, Operator, Status};
use resource::Resource;

use super::{ListOptions, converter, is_stored_version};
use crate::cache::{By, Interest};

/// A compiled selection over headers.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    namespace: Option<String>,
    labels: Option<LabelSelector>,
    terms: Vec<Term>,
    /// Those on fields of a custom kind whose objects are stored in another version, or in several: headers have the
    /// fields of the version that is stored.
    shown: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    field: Field,
    value: String,
    equal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    /// Position in `Resource::selectable`.
    At(usize),
}

impl Selection {
    /// Refuses field selectors on fields that the kind does not offer, in upstream's words.
    pub(super) fn new(
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Self, Status> {
        let terms = match &options.fields {
            Some(selector) => terms(resource, selector)?,
            None => Vec::new(),
        };
        let labels = options.labels.clone().filter(|selector| !selector.is_everything());
        let several = resource.custom && (!is_stored_version(resource) || converter(resource).is_some());
        let (shown, terms) =
            terms.into_iter().partition(|term: &Term| several && matches!(term.field, Field::At(_)));
        Ok(Self { namespace: namespace.map(ToOwned::to_owned), labels, terms, shown })
    }

    /// Whether something besides the namespace narrows it.
    pub(super) fn has_selectors(&self) -> bool {
        self.labels.is_some() || !self.terms.is_empty() || !self.shown.is_empty()
    }

    /// Whether objects have to be looked at as they are shown, beside [`matches`](Self::matches).
    pub(super) fn looks_at_shown(&self) -> bool {
        !self.shown.is_empty()
    }

    /// Whether an object, as the version that is asked for shows it, is selected by its fields.
    pub(super) fn shows(&self, resource: &Resource, entry: &Entry) -> bool {
        self.shown.is_empty()
            || entry.object().is_ok_and(|object| {
                self.shown.iter().all(|term| {
                    let Field::At(at) = term.field else { return true };
                    let value = resource.selectable.get(at).map(|field| (field.value)(&object));
                    (value.unwrap_or_default() == term.value) == term.equal
                })
            })
    }

    /// Whether an object is selected by what its header says.
    pub(super) fn matches(&self, entry: &Entry) -> bool {
        let header = &entry.header;
        self.namespace.as_ref().is_none_or(|namespace| header.key.namespace == *namespace)
            && self.labels.as_ref().is_none_or(|selector| selector.matches_with(|key| header.labels.get(key)))
            && self.terms.iter().all(|term| {
                let value = match term.field {
                    Field::Name => &header.key.name,
                    Field::Namespace => &header.key.namespace,
                    Field::At(at) => header.fields.get(at).map_or("", String::as_str),
                };
                (value == term.value) == term.equal
            })
    }

    /// The name, where the selection is for one object.
    pub(super) fn single(&self) -> Option<&str> {
        self.value_of(Field::Name)
    }

    fn value_of(&self, field: Field) -> Option<&str> {
        self.terms.iter().find(|term| term.field == field && term.equal).map(|term| term.value.as_str())
    }

    /// The selectable fields, by position, whose value all selected objects share.
    pub(super) fn fields(&self) -> impl Iterator<Item = (usize, &str)> {
        self.terms.iter().filter(|term| term.equal).filter_map(|term| match term.field {
            Field::At(at) => Some((at, term.value.as_str())),
            Field::Name | Field::Namespace => None,
        })
    }

    /// The narrowest thing a watcher of this selection can wait for.
    pub(super) fn interest(&self, resource: &Resource) -> Interest {
        let namespace = self.namespace.as_deref().or_else(|| self.value_of(Field::Namespace));
        let cluster = resource.scope == resource::Scope::Cluster;
        if let (Some(name), true) = (self.single(), namespace.is_some() || cluster) {
            return Interest::Object(ObjectKey::new(namespace.unwrap_or_default(), name));
        }
        let namespace = namespace.map(ToOwned::to_owned);
        match self.value() {
            Some((by, value)) => Interest::Valued { by, value: value.to_owned(), namespace },
            None => Interest::All { namespace },
        }
    }

    /// A value that all selected objects have. Fields first: their values are the more different ones, such as
    /// the node of a Pod.
    fn value(&self) -> Option<(By, &str)> {
        // "Unset" is no narrow choice: most objects may share it.
        let field = self.fields().find(|(_, value)| !value.is_empty());
        let field = field.map(|(at, value)| (By::Field(at), value));
        let label = || {
            let requirements = self.labels.iter().flat_map(LabelSelector::requirements);
            requirements.filter(|term| is_equality(term.operator())).find_map(|term| match term.values() {
                [one] => Some((By::Label(term.key().to_owned()), one.as_str())),
                _ => None,
            })
        };
        field.or_else(label)
    }
}

fn is_equality(operator: Operator) -> bool {
    matches!(operator, Operator::Equals | Operator::DoubleEquals | Operator::In)
}

fn terms(resource: &Resource, selector: &FieldSelector) -> Result<Vec<Term>, Status> {
    selector
        .requirements()
        .iter()
        .map(|requirement| {
            let name = requirement.field.as_str();
            let field = match name {
                "metadata.name" => Field::Name,
                "metadata.namespace" => Field::Namespace,
                _ => Field::At(
                    resource
                        .selectable
                        .iter()
                        .position(|field| field.name == name)
                        .ok_or_else(|| unknown(resource, name))?,
                ),
            };
            Ok(Term { field, value: requirement.value.clone(), equal: !requirement.negated })
        })
        .collect()
}

/// Upstream words it in one way for kinds with fields of their own and in another for the rest.
fn unknown(resource: &Resource, name: &str) -> Status {
    Status::bad_request(if resource.custom || !resource.selectable.is_empty() {
        format!("field label not supported: {name}")
    } else {
        format!("\"{name}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    })
}
