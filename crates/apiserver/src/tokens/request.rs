//! `serviceaccounts/token`: answers a TokenRequest with a token.

use std::sync::Arc;

use meta::{FieldError, GroupResource, Object, Status, format_second};
use resource::{Act, Acted, Context};
use serde_json::{Value, json};

use super::{Bound, Grant, Tokens};

/// Validity when none is asked for.
const SECONDS_DEFAULT: i64 = 3600;
/// Shortest validity (upstream `ValidateTokenRequest`).
const SECONDS_MIN: i64 = 600;
/// Longest validity.
const SECONDS_MAX: i64 = 1 << 32;

/// The `token` subresource of ServiceAccounts.
#[derive(Debug)]
pub struct TokenRequest(pub Arc<Tokens>);

impl Act for TokenRequest {
    fn body(&self) -> (&'static str, &'static str, &'static str) {
        ("authentication.k8s.io", "v1", "TokenRequest")
    }

    fn act(&self, cx: &Context<'_>, object: Option<&Object>, body: &Object) -> Result<Acted, Status> {
        let account = object.ok_or_else(|| Status::internal("token request without service account"))?;
        let seconds = seconds_of(body)?;
        let mut grant = Grant {
            namespace: account.namespace().to_owned(),
            account: account.name().to_owned(),
            account_uid: account.uid().to_owned(),
            audiences: body
                .list(&["spec", "audiences"])
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            seconds,
            id: cx.random.uuid(),
            ..Grant::default()
        };
        if body.get(&["spec", "boundObjectRef"]).is_some_and(|r| !r.is_null()) {
            bind(cx, body, &mut grant)?;
        }
        let now = cx.clock.now();
        let token = self.0.issue(&grant, now).map_err(Status::internal)?;
        let expires = now
            .checked_add(jiff::SignedDuration::from_secs(seconds))
            .map_err(|_| Status::bad_request("expirationSeconds is out of range"))?;

        let mut answer = body.clone();
        answer.set(&["apiVersion"], "authentication.k8s.io/v1");
        answer.set(&["kind"], "TokenRequest");
        answer.set(&["metadata", "name"], account.name());
        answer.set(&["metadata", "namespace"], account.namespace());
        answer.set(&["metadata", "creationTimestamp"], format_second(now));
        answer.set(&["spec", "expirationSeconds"], seconds);
        let audiences = if grant.audiences.is_empty() { self.0.audiences() } else { &grant.audiences };
        answer.set(&["spec", "audiences"], json!(audiences));
        answer.set(&["status"], json!({ "token": token, "expirationTimestamp": format_second(expires) }));
        Ok(Acted::Answer(answer.into_value()))
    }
}

fn seconds_of(body: &Object) -> Result<i64, Status> {
    let path = "spec.expirationSeconds";
    let seconds = match body.get(&["spec", "expirationSeconds"]) {
        None | Some(Value::Null) => SECONDS_DEFAULT,
        Some(value) => {
            value.as_i64().ok_or_else(|| Status::bad_request(format!("{path} is not a number")))?
        }
    };
    let why = match seconds {
        n if n < SECONDS_MIN => "may not specify a duration less than 10 minutes",
        n if n > SECONDS_MAX => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(seconds),
    };
    let error = FieldError::invalid(path, &json!(seconds), why);
    Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", &[error]))
}

/// Finds the object to bind to and checks that it is the one meant (upstream
/// `registry/core/serviceaccount/storage/token.go`).
fn bind(cx: &Context<'_>, body: &Object, grant: &mut Grant) -> Result<(), Status> {
    let field = |name| body.str(&["spec", "boundObjectRef", name]).unwrap_or_default();
    let (kind, api_version, name, uid) = (field("kind"), field("apiVersion"), field("name"), field("uid"));
    let plural = match (api_version, kind) {
        ("v1", "Pod") => "pods",
        ("v1", "Secret") => "secrets",
        ("v1", "Node") => "nodes",
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {api_version}, Kind={kind}; use a v1 Pod, Secret or Node"
            )));
        }
    };
    let resource = GroupResource::new("", plural);
    let namespace = if plural == "nodes" { "" } else { grant.namespace.as_str() };
    let entry = cx.view.get(&resource, namespace, name).ok_or_else(|| Status::not_found(&resource, name))?;
    let found = entry.header.uid.as_str();
    if !uid.is_empty() && uid != found {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object \
             might have been deleted and then recreated"
        );
        return Err(Status::conflict(&resource, name, &why));
    }
    let bound = Bound { name: name.to_owned(), uid: found.to_owned() };
    match plural {
        "secrets" => grant.secret = Some(bound),
        "nodes" => grant.node = Some(bound),
        _ => {
            let pod = entry.object().map_err(Status::internal)?;
            let runs_as = pod.str(&["spec", "serviceAccountName"]).unwrap_or_default();
            if runs_as != grant.account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount \
                     name {runs_as:?}",
                    grant.account
                )));
            }
            let node = pod.str(&["spec", "nodeName"]).unwrap_or_default();
            let node = cx.view.get(&GroupResource::new("", "nodes"), "", node);
            grant.node = node.map(|n| Bound { name: n.header.key.name.clone(), uid: n.header.uid.clone() });
            grant.pod = Some(bound);
        }
    }
    Ok(())
}
