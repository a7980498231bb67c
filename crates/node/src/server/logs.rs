//! `/containerLogs`.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture};
use http::{Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Pod;
use meta::Status;
use runtime::{ContainerState, ObservedContainer};
use tokio::sync::mpsc;

use super::{
    Server,
    routes::{Body, Query, runtime_error},
};
use crate::{
    log::{self, LogOptions, Which},
    pod,
};

/// Pieces that wait for a slow reader; reading stops until it catches up.
const PIECES_MAX: usize = 16;

pub(super) async fn answer(
    server: &Server,
    want: &Pod,
    container: &str,
    query: &Query,
) -> Result<Response<Body>, Status> {
    let options = options(query, server.agent.now())?;
    let uid = pod::uid(want).to_owned();
    let runtime = &server.agent.runtime;
    let observed = runtime.observe_pod(&uid).await.map_err(|error| runtime_error(&error))?;
    let instances = observed.iter().flat_map(|observed| observed.containers.iter());
    let mut instances = instances.filter(|instance| instance.name == container);
    let instance = if query.flag("previous") { instances.nth(1) } else { instances.find(|i| has_begun(i)) };
    let Some(instance) = instance else { return Err(none_yet(want, container, query.flag("previous"))) };
    let id = instance.id.clone();
    let log = runtime.log(&id).await.map_err(|error| runtime_error(&error))?;
    let (out, mut pieces) = mpsc::channel::<Bytes>(PIECES_MAX);
    let runtime = Arc::clone(runtime);
    let is_running = move || -> BoxFuture<'static, bool> {
        let (runtime, uid, id) = (Arc::clone(&runtime), uid.clone(), id.clone());
        Box::pin(async move {
            let observed = runtime.observe_pod(&uid).await.ok().flatten();
            observed.is_some_and(|pod| {
                pod.containers.iter().any(|instance| instance.id == id && instance.is_running())
            })
        })
    };
    let stop = server.stop.clone();
    server.tasks.spawn(async move {
        let sending = log::send(log, &options, &is_running, &out);
        tokio::select! {
            () = stop.cancelled() => {}
            sent = sending => if let Err(error) = sent {
                tracing::warn!(%error, "a log could not be sent to its end");
            },
        }
    });
    let stream = futures::stream::poll_fn(move |context| pieces.poll_recv(context));
    let frames = StreamBody::new(stream.map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
    let mut response = Response::new(BodyExt::boxed(frames));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn has_begun(instance: &ObservedContainer) -> bool {
    match instance.state {
        ContainerState::Running { .. } | ContainerState::Exited { .. } => true,
        ContainerState::Created | ContainerState::Unknown => false,
    }
}

/// Upstream's words (`pkg/kubelet/kubelet_pods.go`, `validateContainerLogStatus`).
fn none_yet(want: &Pod, container: &str, previous: bool) -> Status {
    let name = pod::name(want);
    if !pod::has(want, container) {
        return Status::bad_request(format!("container {container:?} in pod {name:?} is not available"));
    }
    if previous {
        return Status::bad_request(format!(
            "previous terminated container {container:?} in pod {name:?} not found"
        ));
    }
    let status = want.status.as_ref();
    let statuses = status.iter().flat_map(|status| {
        let lists = [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ];
        lists.into_iter().flatten().flatten()
    });
    let own = statuses.into_iter().find(|own| own.name == container);
    let reason = own.and_then(|own| own.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let reason = reason.unwrap_or_else(|| "ContainerCreating".to_owned());
    Status::bad_request(format!("container {container:?} in pod {name:?} is waiting to start: {reason}"))
}

fn options(query: &Query, now: meta::Timestamp) -> Result<LogOptions, Status> {
    let number = |key: &str| match query.get(key) {
        None | Some("") => Ok(None),
        Some(text) => text
            .parse::<u64>()
            .map(Some)
            .map_err(|_| Status::bad_request(format!("{key}: {text:?} is not a number of 0 or more"))),
    };
    let since =
        match (number("sinceSeconds")?, query.get("sinceTime")) {
            (Some(seconds), _) => {
                let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
                now.checked_sub(jiff::SignedDuration::from_secs(seconds)).ok()
            }
            (None, Some(text)) => {
                let time = text.parse();
                Some(time.map_err(|_| {
                    Status::bad_request(format!("sinceTime: {text:?} is not an RFC 3339 time"))
                })?)
            }
            (None, None) => None,
        };
    Ok(LogOptions {
        follow: query.flag("follow"),
        tail_lines: number("tailLines")?,
        since,
        limit_bytes: number("limitBytes")?,
        timestamps: query.flag("timestamps"),
        stream: match query.get("stream") {
            Some("Stdout") => Which::Stdout,
            Some("Stderr") => Which::Stderr,
            None | Some("" | "All") => Which::All,
            Some(other) => {
                return Err(Status::bad_request(format!("stream: {other:?} is none of All, Stdout, Stderr")));
            }
        },
    })
}
