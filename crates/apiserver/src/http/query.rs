//! From a query string to options that are valid.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, header};
use meta::{FieldError, FieldSelector, LabelSelector, Object, Revision, Status, Value};
use resource::User;
use serde_json::{Map, json};

use crate::rest::{At, Caller, DeleteOptions, FieldValidation, ListOptions, Propagation};

/// The parameters of a request.
#[derive(Debug, Default)]
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Parses a query string; nothing is allocated when there is none.
    pub(crate) fn parse(query: Option<&'a str>) -> Self {
        Self(query.map_or_else(Vec::new, |q| form_urlencoded::parse(q.as_bytes()).collect()))
    }

    /// The first value of a parameter; `None` when absent or empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// Every value of a parameter.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// Whether a parameter is set to something true. As upstream, `watch` alone and unreadable values mean
    /// true; only `0` and `false` mean false.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.all(name)
            .next()
            .is_some_and(|value| !matches!(value, "0" | "false" | "False" | "FALSE" | "f" | "F"))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Status> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| Status::bad_request(format!("invalid {name} {text:?}: must be a number")))
        };
        self.get(name).map(parse).transpose()
    }

    fn revision(&self) -> Result<Option<Revision>, Status> {
        self.get("resourceVersion").map(revision).transpose()
    }
}

/// Reads a `resourceVersion`.
pub(crate) fn revision(text: &str) -> Result<Revision, Status> {
    let error = || {
        let error =
            FieldError::invalid("resourceVersion", &json!(text), "must be a number as the server gave it");
        Status::invalid("meta.k8s.io", "ListOptions", "", &[error])
    };
    text.parse().map(Revision).map_err(|_| error())
}

/// The `resourceVersion` of a get; the answer is not older than it.
pub(crate) fn get_at(query: &Query<'_>) -> Result<Option<Revision>, Status> {
    query.revision()
}

/// Options of list, watch and deletecollection (upstream `ValidateListOptions`).
pub(crate) fn list_options(query: &Query<'_>, watch: bool) -> Result<ListOptions, Status> {
    let labels = query.get("labelSelector").map(LabelSelector::parse).transpose();
    let labels =
        labels.map_err(|error| Status::bad_request(format!("unable to parse labelSelector: {error}")))?;
    let fields = query.get("fieldSelector").map(FieldSelector::parse).transpose();
    let fields =
        fields.map_err(|error| Status::bad_request(format!("unable to parse fieldSelector: {error}")))?;
    let asked = query.revision()?;
    let matching = query.get("resourceVersionMatch");
    let continue_token = query.get("continue").map(str::to_owned);
    let send_initial_events = query.flag("sendInitialEvents");
    if watch {
        check_watch(query, matching)?
    } else {
        check_list(query, matching)?
    }
    let limit: Option<i64> = query.number("limit")?;
    let limit = limit.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    let timeout: Option<i64> = query.number("timeoutSeconds")?;
    Ok(ListOptions {
        at: if watch { At::Newest } else { list_at(asked, matching, limit, continue_token.is_some())? },
        labels,
        fields,
        limit,
        continue_token,
        watch_from: if watch { asked } else { None },
        send_initial_events,
        skip_initial_events: query.all("sendInitialEvents").next().is_some() && !send_initial_events,
        bookmarks: query.flag("allowWatchBookmarks"),
        timeout_seconds: timeout.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0),
    })
}

const MATCH: &str = "resourceVersionMatch";

fn refused(errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "ListOptions", "", errors)) }
}

/// Upstream's `validateWatchOptions`: every error, in its words.
fn check_watch(query: &Query<'_>, matching: Option<&str>) -> Result<(), Status> {
    let initial = query.all("sendInitialEvents").next().is_some();
    let mut errors = Vec::new();
    if initial && matching != Some("NotOlderThan") {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(MATCH, why));
    }
    if let Some(matching) = matching {
        if !initial {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(MATCH, why));
        }
        if matching != "NotOlderThan" {
            errors.push(FieldError::not_supported(MATCH, &json!(matching), &["NotOlderThan"]));
        }
        if query.get("continue").is_some() {
            errors.push(FieldError::forbidden(
                MATCH,
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
    }
    refused(&errors)
}

/// Upstream's `ValidateListOptions`: every error, in its words.
fn check_list(query: &Query<'_>, matching: Option<&str>) -> Result<(), Status> {
    let mut errors = Vec::new();
    if let Some(matching) = matching {
        let asked = query.get("resourceVersion");
        if asked.is_none() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(FieldError::forbidden(MATCH, why));
        }
        if query.get("continue").is_some() {
            errors.push(FieldError::forbidden(
                MATCH,
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            errors.push(FieldError::not_supported(MATCH, &json!(matching), &["Exact", "NotOlderThan", ""]));
        }
        if matching == "Exact" && asked == Some("0") {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden(MATCH, why));
        }
    }
    if query.all("sendInitialEvents").next().is_some() {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    refused(&errors)
}

/// Which state a list means (KEP-1904 and the legacy rules of `resourceVersion` with `limit`), of options
/// that [`check_list`] let through.
fn list_at(
    asked: Option<Revision>,
    matching: Option<&str>,
    limit: Option<usize>,
    continued: bool,
) -> Result<At, Status> {
    match (asked, matching) {
        (Some(Revision(1..)), _) if continued => {
            Err(Status::bad_request("specifying resource version is not allowed when using continue"))
        }
        (None, _) => Ok(At::Newest),
        _ if continued => Ok(At::Newest),
        (Some(Revision(0)), _) => Ok(At::Any),
        (Some(at), Some("Exact")) => Ok(At::Exact(at)),
        (Some(at), None) if limit.is_some() => Ok(At::Exact(at)),
        (Some(at), _) => Ok(At::NotOlderThan(at)),
    }
}

/// Who writes, and how.
pub(crate) fn caller(user: &User, headers: &HeaderMap, query: &Query<'_>) -> Result<Caller, Status> {
    let field_validation = match query.get("fieldValidation") {
        None | Some("Warn") => FieldValidation::Warn,
        Some("Ignore") => FieldValidation::Ignore,
        Some("Strict") => FieldValidation::Strict,
        Some(other) => {
            let supported = ["Ignore", "Strict", "Warn"];
            let error = FieldError::not_supported("fieldValidation", &json!(other), &supported);
            return Err(Status::invalid("meta.k8s.io", "WriteOptions", "", &[error]));
        }
    };
    Ok(Caller {
        user: user.clone(),
        field_manager: field_manager(headers, query)?,
        dry_run: dry_run(query.all("dryRun"))?,
        field_validation,
        options: write_options(query),
        notes: std::sync::Arc::default(),
    })
}

/// What upstream decodes the parameters of a write into, without what they do not name.
fn write_options(query: &Query<'_>) -> Map<String, Value> {
    let mut options = Map::new();
    let dry: Vec<Value> = query.all("dryRun").map(Value::from).collect();
    if !dry.is_empty() {
        options.insert("dryRun".to_owned(), dry.into());
    }
    for name in ["fieldManager", "fieldValidation"] {
        if let Some(value) = query.get(name).filter(|value| !value.is_empty()) {
            options.insert(name.to_owned(), value.into());
        }
    }
    options
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, Status> {
    let mut dry = false;
    for value in values {
        match value {
            "" => {}
            "All" => dry = true,
            other => {
                let error = FieldError::not_supported("dryRun", &json!(other), &["All"]);
                return Err(Status::invalid("meta.k8s.io", "WriteOptions", "", &[error]));
            }
        }
    }
    Ok(dry)
}

/// The `fieldManager` parameter, else the user agent up to its first slash (upstream `managerOrUserAgent`).
fn field_manager(headers: &HeaderMap, query: &Query<'_>) -> Result<String, Status> {
    if let Some(manager) = query.get("fieldManager") {
        let long = manager.chars().count() > 128;
        if long || manager.chars().any(char::is_control) {
            let why = if long {
                "may not be more than 128 bytes"
            } else {
                "should only contain printable characters"
            };
            let error = FieldError::invalid("fieldManager", &json!(manager), why);
            return Err(Status::invalid("meta.k8s.io", "WriteOptions", "", &[error]));
        }
        return Ok(manager.to_owned());
    }
    let agent =
        headers.get(header::USER_AGENT).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
    let first = agent.split('/').next().unwrap_or_default();
    let printable = first.chars().filter(|c| !c.is_control()).take(128).collect::<String>();
    Ok(if printable.is_empty() { "unknown".to_owned() } else { printable })
}

/// DeleteOptions from the query and, where there is one, the body; the body counts.
pub(crate) fn delete_options(
    query: &Query<'_>,
    body: Option<Object>,
) -> Result<(DeleteOptions, bool), Status> {
    let raw = body.unwrap_or_default();
    let text = |path: &[&str]| raw.str(path).filter(|text| !text.is_empty()).map(str::to_owned);
    let policy = text(&["propagationPolicy"]).or_else(|| query.get("propagationPolicy").map(str::to_owned));
    let orphan =
        raw.bool(&["orphanDependents"]).or_else(|| query.get("orphanDependents").map(|v| v == "true"));
    let propagation = match (policy.as_deref(), orphan) {
        (Some(_), Some(_)) => {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            let error = FieldError::invalid("propagationPolicy", &Value::Null, why);
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &[error]));
        }
        (None, None) => None,
        (None, Some(orphan)) => Some(if orphan { Propagation::Orphan } else { Propagation::Background }),
        (Some("Orphan"), None) => Some(Propagation::Orphan),
        (Some("Background"), None) => Some(Propagation::Background),
        (Some("Foreground"), None) => Some(Propagation::Foreground),
        (Some(other), None) => {
            let supported = ["Background", "Foreground", "Orphan"];
            let error = FieldError::not_supported("propagationPolicy", &json!(other), &supported);
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &[error]));
        }
    };
    let asked: Option<i64> = query.number("gracePeriodSeconds")?;
    let dry = raw.list(&["dryRun"]).iter().filter_map(Value::as_str);
    let dry_run = dry_run(dry.chain(query.all("dryRun")))?;
    let options = DeleteOptions {
        grace_period_seconds: raw.int(&["gracePeriodSeconds"]).or(asked),
        uid: text(&["preconditions", "uid"]),
        resource_version: text(&["preconditions", "resourceVersion"]),
        propagation,
        raw: raw.into_value(),
    };
    Ok((options, dry_run))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Result<At, u16> {
        list_options(&Query::parse(Some(text)), false).map(|o| o.at).map_err(|s| s.code)
    }

    #[test]
    fn list_states() {
        for (text, expected) in [
            ("", Ok(At::Newest)),
            ("resourceVersion=", Ok(At::Newest)),
            ("resourceVersion=0", Ok(At::Any)),
            ("resourceVersion=7", Ok(At::NotOlderThan(Revision(7)))),
            ("resourceVersion=7&limit=5", Ok(At::Exact(Revision(7)))),
            ("resourceVersion=7&resourceVersionMatch=Exact", Ok(At::Exact(Revision(7)))),
            (
                "resourceVersion=7&limit=5&resourceVersionMatch=NotOlderThan",
                Ok(At::NotOlderThan(Revision(7))),
            ),
            ("resourceVersion=0&resourceVersionMatch=Exact", Err(422)),
            ("resourceVersionMatch=Exact", Err(422)),
            ("resourceVersion=7&resourceVersionMatch=Newer", Err(422)),
            ("resourceVersion=7&resourceVersionMatch=Exact&continue=a", Err(422)),
            ("sendInitialEvents=false", Err(422)),
            ("resourceVersion=x", Err(422)),
            ("continue=a&resourceVersion=7", Err(400)),
            ("continue=a&resourceVersion=0", Ok(At::Newest)),
            ("labelSelector=a%20in", Err(400)),
            ("limit=x", Err(400)),
        ] {
            assert_eq!(at(text), expected, "{text}");
        }
    }

    #[test]
    fn every_error_is_named() {
        let query = "resourceVersionMatch=Newer&continue=a&sendInitialEvents=true";
        let refused = list_options(&Query::parse(Some(query)), false).unwrap_err();
        let causes: Vec<_> = refused.details.unwrap().causes.into_iter().map(|c| c.message).collect();
        assert_eq!(
            causes,
            [
                "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
                "Forbidden: resourceVersionMatch is forbidden when continue is provided",
                "Unsupported value: \"Newer\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
                "Forbidden: sendInitialEvents is forbidden for list",
            ]
        );
    }

    #[test]
    fn watch_options() {
        let options = |text| list_options(&Query::parse(Some(text)), true);
        let list =
            options("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")
                .unwrap();
        assert!(list.send_initial_events && list.bookmarks && list.watch_from.is_none());
        let none = options("sendInitialEvents=false&resourceVersionMatch=NotOlderThan").unwrap();
        assert!(none.skip_initial_events && !none.send_initial_events);
        assert_eq!(options("resourceVersion=5&timeoutSeconds=9").unwrap().watch_from, Some(Revision(5)));
        assert_eq!(options("timeoutSeconds=9").unwrap().timeout_seconds, Some(9));
        for bad in [
            "sendInitialEvents=true",
            "sendInitialEvents=false",
            "resourceVersionMatch=NotOlderThan",
            "sendInitialEvents=true&resourceVersionMatch=Exact",
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=a",
        ] {
            assert_eq!(options(bad).unwrap_err().code, 422, "{bad}");
        }
    }

    #[test]
    fn callers() {
        let caller = |agent: &str, text| {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, HeaderValue::from_str(agent).unwrap());
            caller(&User::default(), &headers, &Query::parse(Some(text)))
        };
        let plain = caller("kubectl/v1.36 (linux)", "").unwrap();
        assert_eq!((plain.field_manager.as_str(), plain.dry_run), ("kubectl", false));
        assert_eq!(plain.field_validation, FieldValidation::Warn);
        let full = caller("x", "fieldManager=me&dryRun=All&fieldValidation=Strict").unwrap();
        assert_eq!((full.field_manager.as_str(), full.dry_run), ("me", true));
        assert_eq!(full.field_validation, FieldValidation::Strict);
        assert_eq!(Value::Object(plain.options), json!({}));
        let said = json!({"dryRun": ["All"], "fieldManager": "me", "fieldValidation": "Strict"});
        assert_eq!(Value::Object(full.options), said);
        for bad in ["dryRun=Some", "fieldValidation=x"] {
            assert_eq!(caller("x", bad).unwrap_err().code, 422, "{bad}");
        }
    }

    #[test]
    fn deletes() {
        let options = |query, body: Value| {
            delete_options(&Query::parse(Some(query)), Object::from_value(body).ok()).map_err(|s| s.code)
        };
        let (both, dry) = options(
            "gracePeriodSeconds=5&dryRun=All",
            json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}}),
        )
        .unwrap();
        assert_eq!((both.grace_period_seconds, both.uid.as_deref(), dry), (Some(0), Some("u"), true));
        assert_eq!(
            options("propagationPolicy=Foreground", Value::Null).unwrap().0.propagation,
            Some(Propagation::Foreground)
        );
        assert_eq!(
            options("orphanDependents=true", Value::Null).unwrap().0.propagation,
            Some(Propagation::Orphan)
        );
        assert_eq!(options("propagationPolicy=Never", Value::Null).unwrap_err(), 422);
        assert_eq!(options("gracePeriodSeconds=x", Value::Null).unwrap_err(), 400);
    }

    #[test]
    fn flags() {
        for (text, expected) in [
            ("watch=true", true),
            ("watch=1", true),
            ("watch", true),
            ("watch=0", false),
            ("watch=false", false),
            ("", false),
        ] {
            assert_eq!(Query::parse(Some(text)).flag("watch"), expected, "{text}");
        }
    }
}
