//! A watch as a stream of JSON lines, or of protobuf frames.

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response};
use meta::Status;
use resource::Resource;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    body::{Body, BoxError},
    encode,
    negotiate::{self, Binary, Form, Media, Wanted},
    protobuf,
};
use crate::{
    Registry,
    cache::{Happened, line_of},
    metrics::{InFlight, WatchSeries},
    rest::{Watch, WatchEvent},
    table,
};

/// How the events of one watch are written.
pub(crate) struct Writing {
    pub(crate) wanted: Wanted,
    pub(crate) include: table::Include,
    pub(crate) registry: std::sync::Arc<Registry>,
    pub(crate) clock: std::sync::Arc<dyn meta::Clock>,
    /// Ends the watch when the server stops.
    pub(crate) stop: CancellationToken,
    /// Counts the watch while it runs.
    pub(crate) _running: InFlight,
    /// What is counted of all watches of the kind.
    pub(crate) series: std::sync::Arc<WatchSeries>,
    /// What the watch is about, as metrics name it.
    pub(crate) scope: &'static str,
    /// When the watch began.
    pub(crate) began: tokio::time::Instant,
}

/// Streams the watch until it ends, the client leaves or the server stops.
pub(crate) fn response(watch: Watch, writing: Writing) -> Response<Body> {
    let (content_type, frames) = match spoken(watch.resource(), &writing) {
        Ok(spoken) => spoken,
        Err(refused) => return encode::status(&refused),
    };
    let state = State { watch, writing, frames, columns_sent: false, ended: false };
    let lines = stream::unfold(state, |mut state| async move {
        let line = state.next().await?;
        Some((Ok::<_, BoxError>(line), state))
    });
    encode::response(200, content_type, Body::stream(lines))
}

/// A watch that breaks before its first event. Once a request is authorized and its revision read, upstream
/// says what is wrong with an event of type ERROR (`newErrWatcher` in `storage/cacher`), and clients count on
/// it: kube-rs lists again when it reads 410 there, and asks for the same revision for ever when it is the
/// answer's own code.
pub(crate) fn broken(resource: &Resource, writing: &Writing, why: &Status) -> Response<Body> {
    match spoken(resource, writing) {
        Ok((content_type, frames)) => {
            let last = error_event(frames.is_some(), &writing.registry, why);
            let lines = stream::iter([Ok::<_, BoxError>(last)]);
            encode::response(200, content_type, Body::stream(lines))
        }
        Err(refused) => encode::status(&refused),
    }
}

/// The content type of the stream, and what writes protobuf where the client wants it.
fn spoken(resource: &Resource, writing: &Writing) -> Result<(HeaderValue, Option<protobuf::Writer>), Status> {
    match writing.wanted.media {
        Media::Yaml => Err(negotiate::not_acceptable(Binary::of(resource))),
        Media::Protobuf => {
            let writer = protobuf::Writer::new(writing.wanted.form, resource, &writing.registry)?;
            let content_type = HeaderValue::from_static("application/vnd.kubernetes.protobuf;stream=watch");
            Ok((content_type, Some(writer)))
        }
        Media::Json => Ok((writing.wanted.content_type(), None)),
    }
}

fn error_event(protobuf: bool, registry: &Registry, why: &Status) -> Bytes {
    if protobuf && let Ok(frame) = protobuf::error_event(registry, why) {
        return frame.into();
    }
    Bytes::from(format!("{}\n", json!({ "type": "ERROR", "object": why.to_json() })))
}

struct State {
    watch: Watch,
    writing: Writing,
    /// Writes protobuf, where the client wants it.
    frames: Option<protobuf::Writer>,
    columns_sent: bool,
    ended: bool,
}

impl State {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let stop = self.writing.stop.clone();
        let line = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            line = self.line() => line?,
        };
        self.count(line.as_ref().map_or(0, Bytes::len));
        Some(line.unwrap_or_else(|failed| {
            self.ended = true;
            error_event(self.frames.is_some(), &self.writing.registry, &failed)
        }))
    }

    /// Counts what was just given: of JSON the watch itself has counted its events, everything else is one
    /// event at a time.
    fn count(&mut self, bytes: usize) {
        let counted = self.frames.is_none() && self.writing.wanted.form == Form::Whole;
        if !counted && bytes > 0 {
            self.watch.tally.add(bytes);
        }
        self.writing.series.tell(&mut self.watch.tally);
        if std::mem::take(&mut self.watch.told_all) {
            self.writing.series.listed(self.writing.scope, self.writing.began.elapsed());
        }
    }

    async fn line(&mut self) -> Option<Result<Bytes, Status>> {
        if let Some(writer) = &self.frames {
            let event = self.watch.next().await?;
            return Some(event.and_then(|WatchEvent { happened, entry, line: _ }| {
                writer.event(happened, &entry.bytes).map(Bytes::from)
            }));
        }
        if self.writing.wanted.form == Form::Whole {
            return self.watch.next_chunk().await;
        }
        let event = self.watch.next().await?;
        Some(event.and_then(|event| self.formed(&event)))
    }

    fn formed(&mut self, event: &WatchEvent) -> Result<Bytes, Status> {
        let WatchEvent { happened, entry, line: _ } = event;
        match self.writing.wanted.form {
            Form::Table => {
                let resource = self.watch.resource().clone();
                let definitions = (!self.columns_sent).then(|| table::definitions(&resource));
                self.columns_sent = true;
                let list = json!({ "resourceVersion": entry.revision.to_string() });
                let now = self.writing.clock.now();
                // A bookmark is no object: its row would be empty, its revision is what counts.
                let rows = if *happened == Happened::Bookmark {
                    vec![json!({ "cells": [], "object": encode::partial(entry)? })]
                } else {
                    vec![table::row(&resource, entry, self.writing.include, now)?]
                };
                let table = table::whole(definitions, list, rows);
                Ok(Bytes::from(format!("{}\n", json!({ "type": happened.wire(), "object": table }))))
            }
            Form::Partial | Form::Whole => Ok(line_of(*happened, encode::partial_bytes(entry)?.as_bytes())),
        }
    }
}
