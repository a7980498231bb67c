//! The body of a list: stored objects, joined.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::Response;
use meta::{Entry, Status, Value};
use resource::Resource;
use serde_json::json;

use super::{
    body::Body,
    encode,
    negotiate::{Form, Media, Wanted},
    protobuf,
};
use crate::{Registry, rest::Page, table};

/// Objects are joined into pieces of about this size while they are sent, so that a list costs the memory
/// of one piece and not of the whole.
const PIECE_BYTES: usize = 128 << 10;

/// Objects that are written as protobuf before others get their turn.
const TURN_OBJECTS: usize = 64;

/// A page in the form the client wants.
pub(crate) async fn page(
    wanted: Wanted,
    registry: &Registry,
    resource: &Resource,
    page: Page,
    include: table::Include,
    now: meta::Timestamp,
) -> Response<Body> {
    if wanted == Wanted::PLAIN {
        let head = head(&resource.list_kind, &resource.api_version(), &page);
        let typed = meta::type_head(&resource.kind, &resource.api_version()).into_bytes();
        let custom = resource.custom;
        return joined(wanted, head, page.entries, move |entry| match entry.untyped(&typed) {
            // The list says what they are. Custom objects say it themselves, as upstream has it.
            Some(rest) if !custom => ("{", rest),
            _ => ("", &entry.bytes),
        });
    }
    if wanted == (Wanted { form: Form::Partial, ..Wanted::PLAIN }) {
        let head = head("PartialObjectMetadataList", "meta.k8s.io/v1", &page);
        let items: Result<Vec<_>, _> =
            page.entries.iter().map(|entry| encode::partial_bytes(entry)).collect();
        return match items {
            Ok(items) => joined(wanted, head, items, |item| ("", item.as_bytes())),
            Err(failed) => encode::status(&failed),
        };
    }
    if wanted.media == Media::Protobuf {
        let written = binary(wanted, registry, resource, &page).await;
        return written.unwrap_or_else(|failed| encode::status(&failed));
    }
    match tree(wanted, resource, &page, include, now) {
        Ok(tree) => encode::value(200, wanted, registry, &tree),
        Err(failed) => encode::status(&failed),
    }
}

/// The lengths of all items stand before the first, so all are written before anything is sent.
async fn binary(
    wanted: Wanted,
    registry: &Registry,
    resource: &Resource,
    page: &Page,
) -> Result<Response<Body>, Status> {
    let writer = protobuf::Writer::new(wanted.form, resource, registry)?;
    let mut items = Vec::with_capacity(page.entries.len());
    for some in page.entries.chunks(TURN_OBJECTS) {
        for entry in some {
            items.push(Bytes::from(writer.item(&entry.bytes)?));
        }
        tokio::task::yield_now().await;
    }
    let length: usize = items.iter().map(Bytes::len).sum();
    let (head, tail) = writer.list(&metadata(page), length)?;
    let length = (head.len() + length + tail.len()) as u64;
    let mut pieces = std::iter::once(Bytes::from(head))
        .chain(items)
        .chain(std::iter::once(Bytes::from_static(tail)))
        .peekable();
    let gathered = std::iter::from_fn(move || {
        let first = pieces.next()?;
        if pieces.peek().is_none() {
            return Some(first);
        }
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        piece.put_slice(&first);
        while let Some(next) = pieces.next_if(|_| piece.len() < PIECE_BYTES) {
            piece.put_slice(&next);
        }
        Some(piece.freeze())
    });
    Ok(encode::response(200, wanted.content_type(), Body::pieces(gathered, length)))
}

fn metadata(page: &Page) -> Value {
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    if let Some(map) = metadata.as_object_mut() {
        if let Some(token) = &page.continue_token {
            map.insert("continue".to_owned(), json!(token));
        }
        if let Some(remaining) = page.remaining.filter(|n| *n > 0) {
            map.insert("remainingItemCount".to_owned(), json!(remaining));
        }
    }
    metadata
}

/// Everything up to the first item.
fn head(kind: &str, api_version: &str, page: &Page) -> Bytes {
    Bytes::from(format!(
        r#"{{"kind":{},"apiVersion":{},"metadata":{},"items":["#,
        json!(kind),
        json!(api_version),
        metadata(page)
    ))
}

/// Writes each item as the two pieces that `json` makes of it.
fn joined<T: Send + 'static>(
    wanted: Wanted,
    head: Bytes,
    entries: Vec<T>,
    json: impl Fn(&T) -> (&'static str, &[u8]) + Send + 'static,
) -> Response<Body> {
    let tail = Bytes::from_static(b"]}\n");
    let commas = entries.len().saturating_sub(1);
    let pieces = entries.iter().map(&json);
    let items: usize = pieces.map(|(begin, rest)| begin.len() + rest.len()).sum();
    let length = (head.len() + items + commas + tail.len()) as u64;
    let mut entries = entries.into_iter();
    let (mut begun, mut ended) = (false, false);
    let pieces = std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let mut piece =
            BytesMut::with_capacity(PIECE_BYTES.min(usize::try_from(length).unwrap_or(PIECE_BYTES)));
        let mut first = !begun;
        if first {
            piece.put_slice(&head);
            begun = true;
        }
        while piece.len() < PIECE_BYTES {
            let Some(entry) = entries.next() else {
                piece.put_slice(&tail);
                ended = true;
                break;
            };
            if !std::mem::take(&mut first) {
                piece.put_u8(b',');
            }
            let (begin, rest) = json(&entry);
            piece.put_slice(begin.as_bytes());
            piece.put_slice(rest);
        }
        Some(piece.freeze())
    });
    encode::response(200, wanted.content_type(), Body::pieces(pieces, length))
}

fn tree(
    wanted: Wanted,
    resource: &Resource,
    page: &Page,
    include: table::Include,
    now: meta::Timestamp,
) -> Result<Value, Status> {
    let (kind, api_version) = match wanted.form {
        Form::Table => {
            let rows = page.entries.iter().map(|entry| table::row(resource, entry, include, now));
            let rows = rows.collect::<Result<_, _>>()?;
            return Ok(table::whole(Some(table::definitions(resource)), metadata(page), rows));
        }
        Form::Whole => (&*resource.list_kind, resource.api_version()),
        Form::Partial => ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned()),
    };
    let item = |entry: &Arc<Entry>| match wanted.form {
        Form::Partial => encode::partial(entry),
        Form::Whole | Form::Table => {
            let mut item: Value = serde_json::from_slice(&entry.bytes).map_err(Status::internal)?;
            if let Some(members) = item.as_object_mut().filter(|_| !resource.custom) {
                members.remove("kind");
                members.remove("apiVersion");
            }
            Ok(item)
        }
    };
    let items: Vec<Value> = page.entries.iter().map(item).collect::<Result<_, _>>()?;
    Ok(json!({ "kind": kind, "apiVersion": api_version, "metadata": metadata(page), "items": items }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use meta::{Header, Object, Revision};

    #[tokio::test]
    async fn joins_what_is_stored() {
        for count in [0, 1, 2, 500] {
            let entries: Vec<_> = (0..count)
                .map(|n| {
                    let text = "x".repeat(1000);
                    let object = json!({"metadata": {"name": n.to_string()}, "data": text});
                    let stored = Entry::encode(&Object::from_value(object).unwrap()).unwrap();
                    Entry::commit(&stored, Header::default(), Revision(n + 1)).unwrap()
                })
                .collect();
            let page = Page {
                entries: Vec::new(),
                revision: Revision(9),
                continue_token: Some("c\"".into()),
                remaining: Some(3),
            };
            let head = head("ThingList", "v1", &page);
            let body =
                joined(Wanted::PLAIN, head, entries, |entry: &Arc<Entry>| ("", &entry.bytes)).into_body();
            let length = http_body::Body::size_hint(&body).exact().unwrap();
            let bytes = body.collect().await.unwrap().to_bytes();
            assert_eq!(bytes.len() as u64, length, "{count}");
            let list: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(list["items"].as_array().unwrap().len() as u64, count);
            assert_eq!(
                list["metadata"],
                json!({"resourceVersion": "9", "continue": "c\"", "remainingItemCount": 3})
            );
        }
    }
}
