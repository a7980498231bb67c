//! `exec`, `attach`, `portForward`: an upgraded connection, passed to the runtime's streaming server.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use meta::Status;
use runtime::{StreamRequest, StreamUrl, contract::Streams};
use tokio::net::TcpStream;

use super::{
    Server,
    routes::{Body, Query, full, running, runtime_error},
};
use crate::pod;

/// Most of an answer that refuses the upgrade.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

pub(super) async fn container(
    server: &Server,
    verb: &str,
    want: &Pod,
    container: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let id = running(server, want, container).await?;
    let either = |a: &str, b: &str| query.flag(a) || query.flag(b);
    let tty = query.flag("tty");
    let streams = Streams {
        stdin: either("input", "stdin"),
        stdout: either("output", "stdout"),
        stderr: either("error", "stderr") && !tty,
        tty,
    };
    if !(streams.stdin || streams.stdout || streams.stderr) {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let stream = if verb == "exec" {
        let command = query.all("command");
        if command.is_empty() {
            return Err(Status::bad_request("you must specify at least one command for the container"));
        }
        StreamRequest::Exec { container: id, command, streams }
    } else {
        StreamRequest::Attach { container: id, streams }
    };
    forward(server, &stream, request).await
}

pub(super) async fn port_forward(
    server: &Server,
    want: &Pod,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let observed =
        server.agent.runtime.observe_pod(pod::uid(want)).await.map_err(|error| runtime_error(&error))?;
    let sandbox = observed.as_ref().and_then(|observed| observed.sandbox()).map(|sandbox| sandbox.id.clone());
    let sandbox =
        sandbox.ok_or_else(|| Status::bad_request(format!("pod {} has no sandbox yet", pod::name(want))))?;
    let given = query.all("port").into_iter().chain(query.all("ports"));
    let ports = given.flat_map(|list| list.split(',').map(str::to_owned).collect::<Vec<_>>());
    let ports: Result<Vec<u16>, Status> = ports
        .map(|port| port.parse().map_err(|_| Status::bad_request(format!("{port:?} is not a port number"))))
        .collect();
    forward(server, &StreamRequest::PortForward { sandbox, ports: ports? }, request).await
}

/// Sends the client's upgrade request to the runtime's URL; when that agrees, both connections become
/// one.
async fn forward(
    server: &Server,
    stream: &StreamRequest,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    if !request.headers().contains_key(header::UPGRADE) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let StreamUrl(url) = server.agent.runtime.stream(stream).await.map_err(|error| runtime_error(&error))?;
    let internal = |what: &'static str| {
        move |error: &dyn std::fmt::Display| Status::internal(format!("{what}: {error}"))
    };
    let uri: Uri = url.parse().map_err(|error| internal("the runtime's streaming address")(&error))?;
    let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
    let socket =
        TcpStream::connect(&authority).await.map_err(|error| internal("connect to the runtime")(&error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
    let (mut send, connection) = handshake.map_err(|error| internal("connect to the runtime")(&error))?;
    let stop = server.stop.clone();
    server.tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            ended = connection.with_upgrades() => if let Err(error) = ended {
                tracing::debug!(%error, "the connection to the runtime's streaming server broke off");
            },
        }
    });
    let client = hyper::upgrade::on(&mut request);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut upstream = Request::builder().method(request.method()).uri(path).header(header::HOST, authority);
    if let Some(headers) = upstream.headers_mut() {
        copy_headers(request.headers(), headers);
    }
    let upstream =
        upstream.body(Empty::<Bytes>::new()).map_err(|error| internal("forward the request")(&error))?;
    let mut answer =
        send.send_request(upstream).await.map_err(|error| internal("forward the request")(&error))?;
    let mut response = Response::builder().status(answer.status());
    if let Some(headers) = response.headers_mut() {
        copy_headers(answer.headers(), headers);
    }
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let body = http_body_util::Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect().await;
        let body = body.map_err(|error| internal("read the runtime's answer")(&error))?.to_bytes();
        return response.body(full(body)).map_err(|error| internal("answer")(&error));
    }
    server.tasks.spawn(join(client, hyper::upgrade::on(&mut answer), server.stop.clone()));
    response.body(full(Bytes::new())).map_err(|error| internal("answer")(&error))
}

/// All but what belongs to the other connection.
fn copy_headers(from: &HeaderMap, to: &mut HeaderMap) {
    const OWN: [HeaderName; 4] =
        [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::AUTHORIZATION];
    for (name, value) in from.iter().filter(|(name, _)| !OWN.contains(name)) {
        to.append(name, value.clone());
    }
}

async fn join(client: OnUpgrade, runtime: OnUpgrade, stop: tokio_util::sync::CancellationToken) {
    let copied = async {
        let (client, runtime) = tokio::try_join!(client, runtime).map_err(std::io::Error::other)?;
        tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(runtime)).await
    };
    tokio::select! {
        () = stop.cancelled() => {}
        copied = copied => if let Err(error) = copied {
            tracing::debug!(%error, "a streaming session broke off");
        },
    }
}
