//! Paths that are no objects: discovery, OpenAPI, health, version, metrics, token issuer.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header, request::Parts};
use meta::{Reason, Status, metrics::Exposition};
use serde_json::json;

use super::{
    backup,
    body::Body,
    chain::{Configured, Shared},
    encode,
    negotiate::{self, Binary, Form, Wanted},
    query::Query,
};
use crate::{discovery::Aggregated, openapi::Document};

/// Answers one of them; 404 when it is none.
pub(crate) async fn answer(
    server: &Arc<Shared>,
    parts: &Parts,
    path: &str,
    query: &Query<'_>,
) -> Result<Response<Body>, Status> {
    if let Some(answer) = server.health.answer(path, query) {
        return Ok(answer);
    }
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(Status::new(
            405,
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        ));
    }
    let wanted = || negotiate::accept(&parts.headers, query.get("pretty"), Binary::Nothing, true);
    match path.trim_end_matches('/') {
        "" => Ok(encode::value(
            200,
            wanted()?,
            server.rest.registry(),
            &json!({ "paths": server.discovery.paths(server.rest.registry()) }),
        )),
        "/version" => Ok(encode::value(200, wanted()?, server.rest.registry(), &server.version)),
        "/metrics" => {
            let of = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            Ok(encode::response(200, of, Body::whole(metrics(server).into())))
        }
        "/configz" => {
            let of = |(name, configured): &(String, Configured)| (name.clone(), configured());
            let mut all: serde_json::Map<String, serde_json::Value> =
                server.configured.iter().map(of).collect();
            all.insert("apiserver".to_owned(), own_configuration(server));
            Ok(encode::value(200, wanted()?, server.rest.registry(), &all.into()))
        }
        "/.well-known/openid-configuration" => issuer(server, |tokens| tokens.discovery()),
        "/openid/v1/jwks" => issuer(server, |tokens| tokens.jwks()),
        backup::BACKUP_PATH if parts.method == Method::GET => {
            server.backup.as_ref().map(backup::answer).ok_or_else(Status::no_such_path)
        }
        openapi if openapi == "/openapi" || openapi.starts_with("/openapi/") => {
            self::openapi(server, parts, openapi, query)
        }
        api if api == "/api" || api == "/apis" || api.starts_with("/api/") || api.starts_with("/apis/") => {
            let wanted = || negotiate::accept(&parts.headers, query.get("pretty"), Binary::Whole, true);
            discovery(server, parts, api, wanted)
        }
        _ => Err(Status::no_such_path()),
    }
}

/// The bounds of this server under the names of upstream's flags. They are constants of the program.
fn own_configuration(server: &Shared) -> serde_json::Value {
    json!({
        "gitVersion": server.version.get("gitVersion"),
        "requestTimeout": "1m0s",
        "minRequestTimeout": 1800,
        "maxRequestBodyBytes": super::body::BODY_BYTES_MAX,
        "maxInflightSeats": server.flow.seats(),
        "http2MaxStreamsPerConnection": super::serve::STREAMS_MAX,
        "anonymousAuth": server.authenticator.takes_anonymous(),
        "audit": server.audit.is_some(),
        "aggregation": server.aggregation.is_some(),
    })
}

fn metrics(server: &Shared) -> String {
    let mut out = Exposition::default();
    server.rest.metrics().expose(&mut out, server.rest.cache(), &server.version);
    server.flow.expose(&mut out);
    server.authenticator.expose(&mut out);
    crate::audit::expose(server.audit.as_deref(), &mut out);
    server.health.expose(&mut out);
    crate::aggregation::expose(&server.rest.registry().remotes(), &mut out);
    server.exposed.iter().for_each(|expose| expose(&mut out));
    out.into_text()
}

fn issuer(
    server: &Shared,
    document: impl Fn(&crate::tokens::Tokens) -> serde_json::Value,
) -> Result<Response<Body>, Status> {
    let tokens = server.tokens.as_ref().ok_or_else(Status::no_such_path)?;
    Ok(encode::json(200, &document(tokens)))
}

fn discovery(
    server: &Shared,
    parts: &Parts,
    path: &str,
    wanted: impl Fn() -> Result<Wanted, Status>,
) -> Result<Response<Body>, Status> {
    let registry = server.rest.registry();
    if matches!(path, "/api" | "/apis") && crate::discovery::wants_aggregated(&parts.headers) {
        let core = path == "/api";
        let Aggregated { body, etag } = server.discovery.aggregated(registry, core);
        return Ok(tagged(parts, &etag, crate::discovery::AGGREGATED_TYPE, body));
    }
    let wanted = Wanted { form: Form::Whole, ..wanted()? };
    let document = crate::discovery::legacy(registry, path).ok_or_else(Status::no_such_path)?;
    Ok(encode::value(200, wanted, registry, &document))
}

fn openapi(server: &Shared, parts: &Parts, path: &str, query: &Query<'_>) -> Result<Response<Body>, Status> {
    let registry = server.rest.registry();
    let document = match path {
        "/openapi/v2" => {
            let accepted =
                parts.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
            server.openapi.v2(registry, accepted)?
        }
        "/openapi/v3" => server.openapi.v3_index(registry)?,
        _ => {
            let name = path.strip_prefix("/openapi/v3/").ok_or_else(Status::no_such_path)?;
            server.openapi.v3(registry, name)?.ok_or_else(Status::no_such_path)?
        }
    };
    let Document { bytes, etag, content_type } = document;
    let mut response = tagged(parts, &etag, content_type, bytes);
    if query.get("hash").is_some_and(|hash| etag.trim_matches('"') == hash) {
        // The address names this very content, so it never changes.
        let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
        response.headers_mut().insert(header::CACHE_CONTROL, forever);
    }
    Ok(response)
}

/// The document, or 304 when the client has it.
fn tagged(parts: &Parts, etag: &str, content_type: &'static str, bytes: Bytes) -> Response<Body> {
    let known = parts.headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let same =
        known.is_some_and(|list| list.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag));
    let (code, body) = if same { (304, Body::empty()) } else { (200, Body::whole(bytes)) };
    let mut response = encode::response(code, HeaderValue::from_static(content_type), body);
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}
