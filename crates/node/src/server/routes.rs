//! Paths of the kubelet API.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use meta::{Reason, Status};
use serde_json::json;

use super::{Server, logs, proxy, stats};
use crate::pod;

/// A body of an answer.
pub(super) type Body = BoxBody<Bytes, Infallible>;

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// The query of a request; a key may come more than once.
pub(super) struct Query(HashMap<String, Vec<String>>);

impl Query {
    pub(super) fn parse(query: &str) -> Self {
        let mut map: HashMap<String, Vec<String>> = HashMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            map.entry(decode(key)).or_default().push(decode(value));
        }
        Self(map)
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.first().map(String::as_str)
    }

    pub(super) fn all(&self, key: &str) -> Vec<String> {
        self.0.get(key).cloned().unwrap_or_default()
    }

    /// `1` and `true` are what the API server sends.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
    }
}

/// Percent and plus decoding.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let hex = tail.split_at_checked(2).and_then(|(hex, after)| {
                    let value = u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?;
                    Some((value, after))
                });
                match hex {
                    Some((value, after)) => {
                        out.push(value);
                        rest = after;
                    }
                    None => out.push(b'%'),
                }
            }
            byte => out.push(*byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An error as the API server passes it on.
pub(super) fn refuse(status: &Status) -> Response<Body> {
    let mut response = Response::new(full(status.to_json().to_string()));
    *response.status_mut() = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

pub(super) fn runtime_error(error: &runtime::Error) -> Status {
    match error.kind {
        runtime::ErrorKind::NotSupported => Status::new(501, Reason::MethodNotAllowed, error.to_string()),
        runtime::ErrorKind::NotFound => Status::new(404, Reason::NotFound, error.to_string()),
        _ => Status::internal(error),
    }
}

impl Server {
    pub(super) async fn answer(&self, user: Option<&str>, request: Request<Incoming>) -> Response<Body> {
        let allowed = user.is_some_and(|user| self.users.iter().any(|other| other == user));
        if !allowed {
            let who = user.unwrap_or("an unnamed user");
            let message = format!("Forbidden (user={who}): the kubelet API is for the API server only");
            return refuse(&Status::new(403, Reason::Forbidden, message));
        }
        match self.route(request).await {
            Ok(response) => response,
            Err(status) => refuse(&status),
        }
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Body>, Status> {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let get = request.method() == Method::GET;
        match parts.as_slice() {
            ["healthz"] if get => Ok(Response::new(full("ok"))),
            ["pods"] if get => Ok(json_response(&self.pod_list())),
            ["metrics"] if get => stats::metrics(&self.agent).await,
            ["stats", "summary"] if get => {
                stats::summary(&self.agent).await.map(|value| json_response(&value))
            }
            ["containerLogs", namespace, name, container] if get => {
                let want = self.pod(namespace, name, None)?;
                logs::answer(self, &want, container, &query).await
            }
            [verb @ ("exec" | "attach"), namespace, name, container] => {
                let want = self.pod(namespace, name, None)?;
                proxy::container(self, verb, &want, container, &query, request).await
            }
            [verb @ ("exec" | "attach"), namespace, name, uid, container] => {
                let want = self.pod(namespace, name, Some(uid))?;
                proxy::container(self, verb, &want, container, &query, request).await
            }
            ["portForward", namespace, name] => {
                let want = self.pod(namespace, name, None)?;
                proxy::port_forward(self, &want, &query, request).await
            }
            ["portForward", namespace, name, uid] => {
                let want = self.pod(namespace, name, Some(uid))?;
                proxy::port_forward(self, &want, &query, request).await
            }
            _ => Err(Status::no_such_path()),
        }
    }

    fn pod(&self, namespace: &str, name: &str, uid: Option<&str>) -> Result<Arc<Pod>, Status> {
        self.agent.pods.find(namespace, name, uid).ok_or_else(|| {
            let message = format!("pod {namespace}/{name} does not run on node {}", self.agent.options.name);
            Status::new(404, Reason::NotFound, message)
        })
    }

    fn pod_list(&self) -> serde_json::Value {
        let mut pods = self.agent.pods.list();
        pods.sort_by(|a, b| (pod::namespace(a), pod::name(a)).cmp(&(pod::namespace(b), pod::name(b))));
        let items: Vec<&Pod> = pods.iter().map(AsRef::as_ref).collect();
        json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items })
    }
}

fn json_response(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// The container that runs now, as the runtime knows it.
pub(super) async fn running(server: &Server, want: &Pod, container: &str) -> Result<String, Status> {
    let observed =
        server.agent.runtime.observe_pod(pod::uid(want)).await.map_err(|error| runtime_error(&error))?;
    let found = observed.as_ref().and_then(|observed| observed.container(container));
    match found {
        Some(found) if found.is_running() => Ok(found.id.clone()),
        Some(_) => Err(Status::bad_request(format!(
            "container {container:?} of pod {} is not running",
            pod::name(want)
        ))),
        None => Err(Status::new(404, Reason::NotFound, format!("container not found ({container:?})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let query =
            Query::parse("command=sh&command=-c&command=echo+%24A%26b&tty=1&stdin=true&x=%zz&output=0");
        assert_eq!(query.all("command"), ["sh", "-c", "echo $A&b"]);
        assert!(query.flag("tty") && query.flag("stdin") && !query.flag("output") && !query.flag("none"));
        assert_eq!(query.get("x"), Some("%zz"));
    }
}
