//! A snapshot: the whole cluster in one document, as the original sends it, but streamed: one page of one
//! kind is in memory, not the document.
//!
//! Lists are consistent reads (no `resourceVersion`), so they hold at least what any watch has shown before
//! the snapshot began. A list that fails half-way ends the body without its end, so that the platform cannot
//! take a part for the whole; a kind that may not be listed is an empty list, and reported.

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, channel::mpsc};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use kube::{Api, api::ListParams};
use serde_json::json;

use super::{feed::PAGE_SIZE, whole::Listed};
use crate::{
    Kind,
    project::{Inventory, Projected, Visit, visit},
    watched::Watched,
    wire::{Aborted, Body},
};

/// Chunks of the body that wait for the network.
const CHUNKS_MAX: usize = 1;
/// Chunks are of about this size.
const CHUNK_BYTES: usize = 64 * 1024;

/// What a snapshot said.
#[derive(Default)]
pub(crate) struct Listing {
    pub(crate) objects: Vec<Listed>,
    /// Kinds that could not be listed.
    pub(crate) skipped: Vec<Kind>,
}

type Chunks = mpsc::Sender<Result<Frame<Bytes>, Aborted>>;

/// A body, and what fills it: both have to be polled. The second ends with what the body said, or why it
/// was not finished.
pub(crate) fn snapshot(
    client: kube::Client,
    cluster_uid: &str,
    cluster_name: &str,
) -> (Body, impl Future<Output = Result<Listing, String>> + Send + use<>) {
    let (to, from) = mpsc::channel(CHUNKS_MAX);
    let head = json!({
        "agent_version": env!("CARGO_PKG_VERSION"), "cluster_name": cluster_name, "cluster_uid": cluster_uid,
    });
    (StreamBody::new(from).boxed_unsync(), write(client, head.to_string(), to))
}

async fn write(client: kube::Client, head: String, mut to: Chunks) -> Result<Listing, String> {
    let mut listing = Listing::default();
    let mut chunk = BytesMut::from(head.trim_end_matches('}'));
    for kind in Kind::ALL {
        chunk.extend_from_slice(format!(",\"{}\":[", kind.list()).as_bytes());
        let list = List { client: client.clone(), chunk: &mut chunk, to: &mut to, listing: &mut listing };
        if let Err(why) = visit(kind, list).await {
            // When nobody reads, there is nobody to tell.
            drop(to.send(Err(Aborted(why.clone()))).await);
            return Err(why);
        }
        chunk.extend_from_slice(b"]");
    }
    chunk.extend_from_slice(b"}");
    flush(&mut to, &mut chunk).await?;
    Ok(listing)
}

async fn flush(to: &mut Chunks, chunk: &mut BytesMut) -> Result<(), String> {
    let bytes = chunk.split().freeze();
    to.send(Ok(Frame::data(bytes))).await.map_err(|_| "the platform stopped reading".to_owned())
}

struct List<'a> {
    client: kube::Client,
    chunk: &'a mut BytesMut,
    to: &'a mut Chunks,
    listing: &'a mut Listing,
}

impl<'a> Visit for List<'a> {
    type Output = futures::future::BoxFuture<'a, Result<(), String>>;

    fn visit<I: Inventory>(self) -> Self::Output {
        Box::pin(list::<I>(self))
    }
}

async fn list<I: Inventory>(list: List<'_>) -> Result<(), String> {
    let List { client, chunk, to, listing } = list;
    let mut next = None;
    let mut first = true;
    loop {
        let Page { objects, next: after } = match read_page::<I>(client.clone(), next).await {
            Ok(page) => page,
            Err(Unread::Refused(_)) if first => {
                listing.skipped.push(I::KIND);
                return Ok(());
            }
            Err(Unread::Refused(why) | Unread::Failed(why)) => return Err(why),
        };
        for object in objects {
            if !first {
                chunk.extend_from_slice(b",");
            }
            first = false;
            chunk.extend_from_slice(&object.body);
            listing.objects.push(Listed {
                id: object.id,
                name: object.name,
                namespace: object.namespace,
                revision: object.revision,
                hash: object.hash,
            });
            if chunk.len() >= CHUNK_BYTES {
                flush(to, chunk).await?;
            }
        }
        if after.is_none() {
            return Ok(());
        }
        next = after;
    }
}

/// A part of a list of one kind.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Projected>,
    /// What asks for the next part.
    pub(crate) next: Option<String>,
}

/// Why a page could not be read; the texts are for the user.
#[derive(Debug)]
pub(crate) enum Unread {
    /// The kind may not be listed, or is not served.
    Refused(String),
    /// Anything else: it may be listed later.
    Failed(String),
}

/// One page of a kind; without `next` the first, which is a consistent read.
pub(crate) fn page(
    client: kube::Client,
    kind: Kind,
    next: Option<String>,
) -> futures::future::BoxFuture<'static, Result<Page, Unread>> {
    struct Read(kube::Client, Option<String>);
    impl Visit for Read {
        type Output = futures::future::BoxFuture<'static, Result<Page, Unread>>;
        fn visit<I: Inventory>(self) -> Self::Output {
            Box::pin(read_page::<I>(self.0, self.1))
        }
    }
    visit(kind, Read(client, next))
}

async fn read_page<I: Inventory>(client: kube::Client, next: Option<String>) -> Result<Page, Unread> {
    let mut params = ListParams::default().limit(PAGE_SIZE);
    params.continue_token = next;
    let failed = |why: &str| format!("cannot list {}: {why}", I::KIND.plural());
    match Api::<Watched<I>>::all(client).list(&params).await {
        Ok(page) => Ok(Page {
            objects: page.items.into_iter().map(|watched| watched.object).collect(),
            next: page.metadata.continue_.filter(|token| !token.is_empty()),
        }),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
            Err(Unread::Refused(failed(&status.message)))
        }
        Err(kube::Error::Api(status)) => Err(Unread::Failed(failed(&status.message))),
        // The cause may quote what was read.
        Err(_) => Err(Unread::Failed(failed("no usable answer"))),
    }
}
