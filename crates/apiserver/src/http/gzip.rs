//! Compression of large answers, for clients that ask for it (upstream `APIResponseCompression`).
//!
//! Streams are left alone: an event must not wait in a compressor.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::stream;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::body::{Body, BoxError};

/// Shorter answers are sent as they are, as upstream: compressing costs more than it saves.
const LENGTH_MIN: u64 = 128 << 10;
/// What is compressed at a time, so that others get their turn.
const PIECE_BYTES: usize = 128 << 10;

/// Compresses a large answer if the client accepts it.
pub(super) fn compress(request: &HeaderMap, response: &mut Response<Body>) {
    let large = response.body().length().is_some_and(|length| length >= LENGTH_MIN);
    let plain = !response.headers().contains_key(header::CONTENT_ENCODING);
    if !large || !plain || response.status() != StatusCode::OK || !accepts(request) {
        return;
    }
    let body = std::mem::replace(response.body_mut(), Body::empty());
    *response.body_mut() = Body::stream(stream::iter(compressed(body.into_pieces())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

fn accepts(request: &HeaderMap) -> bool {
    let all = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(',')).any(|coding| {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
        name.trim() == "gzip" && !matches!(quality.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}

/// The compressed form, made while it is sent.
fn compressed(
    pieces: impl Iterator<Item = Bytes> + Send,
) -> impl Iterator<Item = Result<Bytes, BoxError>> + Send {
    let mut pieces = pieces.flat_map(|piece| {
        let mut rest = piece;
        std::iter::from_fn(move || {
            let next = rest.split_to(rest.len().min(PIECE_BYTES));
            (!next.is_empty()).then_some(next)
        })
    });
    let mut encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
    std::iter::from_fn(move || {
        loop {
            let Some(piece) = pieces.next() else {
                let rest = encoder.take()?.finish();
                return Some(rest.map(Bytes::from).map_err(BoxError::from));
            };
            let writing = encoder.as_mut()?;
            if let Err(error) = writing.write_all(&piece) {
                encoder = None;
                return Some(Err(error.into()));
            }
            if !writing.get_ref().is_empty() {
                return Some(Ok(std::mem::take(writing.get_mut()).into()));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use http_body_util::BodyExt as _;

    use super::*;

    fn request(accepted: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_str(accepted).unwrap())])
    }

    #[tokio::test]
    async fn large_answers_are_compressed_for_who_asks() {
        let text: Vec<u8> = (0..400_000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
        for (size, accepted, expected) in [
            (text.len(), "gzip", true),
            (text.len(), "br, gzip;q=0.5", true),
            (128 << 10, "gzip", true),
            ((128 << 10) - 1, "gzip", false),
            (text.len(), "gzip;q=0", false),
            (text.len(), "deflate", false),
        ] {
            let content = Bytes::copy_from_slice(&text[..size]);
            let halves = [content.slice(..size / 2), content.slice(size / 2..)];
            for body in [Body::whole(content.clone()), Body::pieces(halves.into_iter(), size as u64)] {
                let mut response = Response::new(body);
                compress(&request(accepted), &mut response);
                assert_eq!(response.headers().contains_key(header::CONTENT_ENCODING), expected, "{size}");
                let sent = response.into_body().collect().await.unwrap().to_bytes();
                let mut read = Vec::new();
                if expected {
                    flate2::read::GzDecoder::new(&sent[..]).read_to_end(&mut read).unwrap();
                } else {
                    read.extend_from_slice(&sent);
                }
                assert_eq!(read, content);
            }
        }
    }
}
