//! Requests on objects, after they were authorized: which verb of the engine they mean.

use std::sync::Arc;

use http::{HeaderMap, Method, Response};
use meta::{ObjectKey, Reason, Status};
use resource::{Notes, Resource, Scope, Subresource, User};
use tokio::time::Instant;

use super::{
    body::{Body, Input},
    chain::Shared,
    encode, list,
    negotiate::{self, Form, Wanted},
    query::{self, Query},
    route::Named,
    watch, write,
};
use crate::{
    metrics::{Class, InFlight, Labels},
    rest::{Caller, Rest, Target},
    table::Include,
};

/// One request on objects.
pub(crate) struct Call<'a> {
    pub(crate) server: &'a Arc<Shared>,
    pub(crate) user: &'a User,
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) named: &'a Named<'a>,
    pub(crate) query: Query<'a>,
    pub(crate) verb: &'static str,
    /// Where warnings and audit annotations go.
    pub(crate) notes: &'a Arc<Notes>,
}

impl Call<'_> {
    /// Who writes, and how.
    pub(crate) fn caller(&self, query: &Query<'_>) -> Result<Caller, Status> {
        Ok(Caller { notes: self.notes.clone(), ..query::caller(self.user, self.headers, query)? })
    }

    pub(crate) fn rest(&self) -> &Rest {
        &self.server.rest
    }

    pub(crate) fn subresource(&self) -> &str {
        self.named.subresource
    }

    /// The namespace of the path; `None` for all of them and for cluster scope.
    pub(crate) fn namespace(&self) -> Option<&str> {
        Some(&*self.named.namespace).filter(|namespace| !namespace.is_empty())
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            key: ObjectKey::new(&*self.named.namespace, &*self.named.name),
            subresource: self.named.subresource.to_owned(),
        }
    }

    pub(crate) fn wanted(&self) -> Result<Wanted, Status> {
        self.wanted_as(negotiate::Binary::Whole, true)
    }

    /// The form of answers that are objects of the kind. What cannot be read, such as a review, has no table.
    pub(crate) fn wanted_of(&self, resource: &Resource) -> Result<Wanted, Status> {
        self.wanted_as(negotiate::Binary::of(resource), resource.verbs.contains(&resource::Verb::Get))
    }

    fn wanted_as(&self, binary: negotiate::Binary, tables: bool) -> Result<Wanted, Status> {
        negotiate::accept(self.headers, self.query.get("pretty"), binary, tables)
    }

    /// One object, or its Scale, as the client wants it.
    pub(crate) fn entry(
        &self,
        code: u16,
        wanted: Wanted,
        resource: &Resource,
        entry: &meta::Entry,
    ) -> Result<Response<Body>, Status> {
        let registry = self.rest().registry();
        // A Scale is shown as it is: the columns are those of its parent.
        if let Some(Subresource::Scale(_)) = resource.subresource(self.named.subresource) {
            let scale = serde_json::from_slice(&entry.bytes).map_err(Status::internal)?;
            return Ok(encode::value(code, Wanted { form: Form::Whole, ..wanted }, registry, &scale));
        }
        Ok(encode::entry(code, wanted, registry, resource, entry, self.include()?, self.now()))
    }

    pub(crate) fn include(&self) -> Result<Include, Status> {
        Include::parse(self.query.get("includeObject"))
    }

    pub(crate) fn now(&self) -> meta::Timestamp {
        self.rest().clock().now()
    }

    /// The counters of this request as a long one.
    pub(crate) fn running(&self, resource: &Resource, verb: &'static str) -> InFlight {
        let class = if verb == "WATCH" { Class::Watch } else { Class::Connect };
        let labels = Labels { verb, ..labels(resource, self.named, self.verb, self.headers) };
        self.rest().metrics().requests.begin(class, &labels)
    }
}

/// What a request on a kind that is served here is, for its counters. Nothing of it is the client's own word.
pub(crate) fn labels(resource: &Resource, named: &Named<'_>, verb: &str, headers: &HeaderMap) -> Labels {
    let subresource = resource.subresources.iter().find(|(name, _)| **name == *named.subresource);
    let is_apply = verb == "patch"
        && negotiate::media_type(headers).is_ok_and(|media| media == "application/apply-patch+yaml");
    Labels {
        verb: verb_label(verb, is_apply),
        group: resource.group.clone(),
        version: resource.version.clone(),
        resource: resource.plural.clone(),
        subresource: subresource.map(|(name, _)| name.clone()).unwrap_or_default(),
        scope: scope(named),
    }
}

/// A verb as metrics name it.
pub(crate) fn verb_label(verb: &str, is_apply: bool) -> &'static str {
    match verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" if is_apply => "APPLY",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "CONNECT",
    }
}

/// What a request is about, as metrics name it.
pub(crate) fn scope(named: &Named<'_>) -> &'static str {
    if !named.name.is_empty() {
        "resource"
    } else if named.namespace.is_empty() {
        "cluster"
    } else {
        "namespace"
    }
}

/// Finds the kind and checks that the path fits its scope and subresources.
pub(crate) fn resolve(call: &Call<'_>) -> Result<Arc<Resource>, Status> {
    let Named { group, version, plural, subresource, .. } = call.named;
    let resource = call.rest().registry().resolve(group, version, plural).ok_or_else(Status::no_such_path)?;
    if !subresource.is_empty() && resource.subresource(subresource).is_none() {
        return Err(Status::no_such_path());
    }
    let named = !call.named.name.is_empty();
    let misplaced = match call.verb {
        "create" => named && subresource.is_empty(),
        "update" | "patch" => !named,
        _ => false,
    };
    if misplaced {
        return Err(Status::new(
            405,
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        ));
    }
    let in_namespace = !call.named.namespace.is_empty();
    match (resource.scope, in_namespace) {
        (Scope::Cluster, true) => Err(Status::no_such_path()),
        (Scope::Namespaced, false) if !call.named.name.is_empty() => Err(Status::no_such_path()),
        (Scope::Namespaced, false) if !matches!(call.verb, "list" | "watch") => Err(Status::new(
            405,
            Reason::MethodNotAllowed,
            format!(
                "the server does not allow this method on the requested resource: name a namespace to {} {plural}",
                call.verb
            ),
        )),
        _ => Ok(resource),
    }
}

/// Whether the request may run longer than the request time-out.
pub(crate) fn is_long(call: &Call<'_>, resource: &Resource) -> Option<Class> {
    if call.verb == "watch" {
        return Some(Class::Watch);
    }
    matches!(resource.subresource(call.subresource()), Some(Subresource::Connect)).then_some(Class::Connect)
}

/// Answers a request that is not a stream. What most requests are not, is kept on the heap: each would carry the state of
/// all.
pub(crate) async fn answer(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    input: Input,
) -> Result<Response<Body>, Status> {
    match call.verb {
        "get" => get(call, resource).await,
        "list" => {
            let wanted = call.wanted_of(resource)?;
            let options = query::list_options(&call.query, false)?;
            let page = call.rest().list(resource, call.namespace(), &options).await?;
            let registry = call.rest().registry();
            Ok(list::page(wanted, registry, resource, page, call.include()?, call.now()).await)
        }
        "create" => Box::pin(write::create(call, resource, input)).await,
        "update" => Box::pin(write::update(call, resource, input)).await,
        "patch" => Box::pin(write::patch(call, resource, input)).await,
        "delete" if call.subresource().is_empty() => Box::pin(write::delete(call, resource, input)).await,
        "deletecollection" => Box::pin(write::delete_collection(call, resource, input)).await,
        other => Err(Status::method_not_allowed(&resource.group_resource(), other)),
    }
}

async fn get(call: &Call<'_>, resource: &Arc<Resource>) -> Result<Response<Body>, Status> {
    let wanted = call.wanted_of(resource)?;
    let key = ObjectKey::new(&*call.named.namespace, &*call.named.name);
    let entry = match resource.subresource(call.subresource()) {
        None if !resource.verbs.contains(&resource::Verb::Get) => {
            return Err(Status::method_not_allowed(&resource.group_resource(), "get"));
        }
        None | Some(Subresource::Status | Subresource::Update) => {
            call.rest().get(resource, &key, query::get_at(&call.query)?).await?
        }
        Some(Subresource::Scale(scale)) => call.rest().get_scale(resource, &call.target(), scale).await?,
        Some(Subresource::Act(_) | Subresource::Connect) => {
            return Err(Status::method_not_allowed(&resource.group_resource(), "get"));
        }
    };
    call.entry(200, wanted, resource, &entry)
}

/// Answers a watch.
pub(crate) async fn watch(call: &Call<'_>, resource: &Arc<Resource>) -> Result<Response<Body>, Status> {
    let wanted = call.wanted_of(resource)?;
    let mut options = query::list_options(&call.query, true)?;
    if call.named.watch && !call.named.name.is_empty() {
        options.fields = Some(meta::FieldSelector::equals("metadata.name", &*call.named.name));
    }
    let writing = watch::Writing {
        wanted,
        include: call.include()?,
        registry: call.rest().registry().clone(),
        clock: call.rest().clock().clone(),
        stop: call.server.stop.clone(),
        _running: call.running(resource, "WATCH"),
        series: call.rest().metrics().watches.of(resource),
        scope: scope(call.named),
        began: Instant::now(),
    };
    match call.rest().watch(resource, call.namespace(), &options).await {
        Ok(watch) => Ok(watch::response(watch, writing)),
        Err(expired) if expired.reason == Some(Reason::Expired) => {
            Ok(watch::broken(resource, &writing, &expired))
        }
        Err(refused) => Err(refused),
    }
}
