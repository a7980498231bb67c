//! What authorization is asked of a request (upstream `authorizer.Attributes`), whoever turns out to send it.

use http::Method;
use meta::{FieldSelector, LabelSelector};
use resource::User;

use super::{
    query::Query,
    route::{Named, Route, verb},
};
use crate::auth::{Ask, Asked};

/// A request as far as authorization sees it.
pub(crate) struct Attributes<'a> {
    verb: &'static str,
    route: &'a Route<'a>,
    /// The field selector of what reads many.
    fields: Option<FieldSelector>,
    /// The label selector of what touches many.
    labels: Option<LabelSelector>,
}

impl<'a> Attributes<'a> {
    /// Of a request to a path.
    pub(crate) fn of(method: &Method, route: &'a Route<'a>, query: &Query<'_>) -> Self {
        let Route::Resource(named) = route else {
            return Self { verb: path_verb(method), route, fields: None, labels: None };
        };
        let verb = verb(method, named, query.flag("watch")).unwrap_or(path_verb(method));
        let many = matches!(verb, "list" | "watch" | "deletecollection");
        let labels = query.get("labelSelector").filter(|_| many);
        let fields = query.get("fieldSelector").filter(|_| many && named.name.is_empty());
        Self {
            verb,
            route,
            fields: fields.and_then(|text| FieldSelector::parse(text).ok()),
            labels: labels.and_then(|text| LabelSelector::parse(text).ok()),
        }
    }

    /// Whether somebody may do it.
    pub(crate) fn ask<'s>(&'s self, user: &'s User) -> Ask<'s> {
        let object = match self.route {
            Route::Path(path) => Asked::Path(path),
            Route::Resource(named) => self.object(named),
        };
        Ask {
            fields: self.fields.as_ref(),
            labels: self.labels.as_ref(),
            ..Ask::new(user, self.verb, object)
        }
    }

    fn object<'s>(&'s self, named: &'s Named<'_>) -> Asked<'s> {
        // Whoever may read one object may list and watch it by its name.
        let selected = self.fields.as_ref().and_then(|fields| fields.requires("metadata.name"));
        // As upstream, a namespace is in itself: a Role in it may allow reading it.
        let itself = named.plural == "namespaces" && named.group.is_empty() && named.namespace.is_empty();
        Asked::Resource {
            group: named.group,
            version: named.version,
            resource: named.plural,
            subresource: named.subresource,
            namespace: if itself { &named.name } else { &named.namespace },
            name: selected.unwrap_or(&named.name),
        }
    }
}

/// The verb of a request that is about no resource.
pub(crate) fn path_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "unknown",
    }
}
