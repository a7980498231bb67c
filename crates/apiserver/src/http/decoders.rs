//! The decoders of this folder as functions on bytes, for [`crate::decoders`].

use http::{HeaderMap, HeaderValue, Method, header};

use super::{
    decode::decode,
    negotiate::{self, Binary, Media},
    protobuf,
    query::{self, Query},
    route::{self, Route},
};
use crate::decoders::{World, bounded, text};

pub(crate) fn json(_: &World, bytes: &[u8]) {
    let Ok(decoded) = decode(bytes, Media::Json) else { return };
    bounded(&decoded.value, bytes.len());
    let written = decoded.value.to_string();
    let again = decode(written.as_bytes(), Media::Json).map(|again| again.value);
    assert_eq!(again.as_ref(), Ok(&decoded.value), "JSON does not come back");
}

pub(crate) fn yaml(_: &World, bytes: &[u8]) {
    let Ok(decoded) = decode(bytes, Media::Yaml) else { return };
    bounded(&decoded.value, bytes.len());
    let again = decode(decoded.value.to_string().as_bytes(), Media::Json).map(|again| again.value);
    assert_eq!(again.as_ref(), Ok(&decoded.value), "YAML does not come back as JSON");
}

/// Protobuf to JSON to protobuf to JSON. The first byte chooses the kind.
pub(crate) fn protobuf(world: &World, bytes: &[u8]) {
    drop(protobuf::envelope(bytes).map(|envelope| envelope.definition()));
    let Some((at, message)) = bytes.split_first() else { return };
    let kind = world.kinds.get(usize::from(*at) % world.kinds.len().max(1));
    if let Some(of) = kind.and_then(|name| world.types.find(name))
        && let Some(value) = protobuf::round_trip(&world.types, of, message)
    {
        bounded(&value, bytes.len());
    }
}

pub(crate) fn query(_: &World, bytes: &[u8]) {
    let text = text(bytes);
    let query = Query::parse(Some(&text));
    for watch in [false, true] {
        drop(query::list_options(&query, watch));
    }
    drop(query::get_at(&query));
    drop(query::delete_options(&query, None));
    drop(crate::table::Include::parse(query.get("includeObject")));
}

pub(crate) fn accept(_: &World, bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    headers.insert(header::ACCEPT, value.clone());
    headers.insert(header::CONTENT_TYPE, value);
    for binary in [Binary::Nothing, Binary::Metadata, Binary::Whole] {
        drop(negotiate::accept(&headers, Some("true"), binary, true));
    }
    drop(negotiate::content(&headers));
}

pub(crate) fn path(_: &World, bytes: &[u8]) {
    let text = text(bytes);
    if let Route::Resource(named) = Route::parse(&text) {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::PATCH] {
            std::hint::black_box(route::verb(&method, &named, false));
        }
    }
}
