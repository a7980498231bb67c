//! Request and response bodies.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures::stream::{Stream, StreamExt as _};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use meta::Status;

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Longest request body, as upstream's (`MaxRequestBodyBytes`).
pub(crate) const BODY_BYTES_MAX: usize = 3 << 20;
/// Small pieces of a response that are ready together are sent as one of at most this size: it saves
/// frames and TLS records.
const GATHER_BYTES_MAX: usize = 32 << 10;

/// A response body, and what lives until it has been sent.
pub struct Body(Content, Option<Box<dyn Send>>);

enum Content {
    Whole(Option<Bytes>),
    /// Pieces of a known total length.
    Pieces {
        pieces: Box<dyn Iterator<Item = Bytes> + Send>,
        left: u64,
    },
    Stream(Gather),
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self(Content::Whole(None), None)
    }

    /// These bytes.
    pub fn whole(bytes: Bytes) -> Self {
        Self(Content::Whole(Some(bytes).filter(|b| !b.is_empty())), None)
    }

    /// Pieces whose lengths sum up to `length`, made when they are sent.
    pub(crate) fn pieces(pieces: impl Iterator<Item = Bytes> + Send + 'static, length: u64) -> Self {
        Self(Content::Pieces { pieces: Box::new(pieces), left: length }, None)
    }

    /// Its length, when that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match &self.0 {
            Content::Whole(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Pieces { left, .. } => Some(*left),
            Content::Stream(_) => None,
        }
    }

    /// Its content as pieces; nothing of a stream, which has no end.
    pub(crate) fn into_pieces(self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        match self.0 {
            Content::Whole(bytes) => Box::new(bytes.into_iter()),
            Content::Pieces { pieces, .. } => pieces,
            Content::Stream(_) => Box::new(std::iter::empty()),
        }
    }

    /// Chunks as they come.
    pub(crate) fn stream(stream: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Self {
        Self(Content::Stream(Gather { stream: stream.boxed(), end: None }), None)
    }

    /// Keeps `guard` until the body has been sent or given up.
    #[must_use]
    pub(crate) fn until(mut self, guard: Box<dyn Send>) -> Self {
        self.1 = Some(guard);
        self
    }

    /// The same body and, unless it is a stream, its bytes.
    pub(crate) fn hold(self) -> (Self, Option<Bytes>) {
        let Self(content, guard) = self;
        match content {
            Content::Whole(bytes) => {
                let held = bytes.clone().unwrap_or_default();
                (Self(Content::Whole(bytes), guard), Some(held))
            }
            Content::Pieces { pieces, left } => {
                let mut all = BytesMut::with_capacity(usize::try_from(left).unwrap_or(0));
                pieces.for_each(|piece| all.extend_from_slice(&piece));
                let all = all.freeze();
                (Self(Content::Whole(Some(all.clone()).filter(|b| !b.is_empty())), guard), Some(all))
            }
            stream @ Content::Stream(_) => (Self(stream, guard), None),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().0 {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Content::Pieces { pieces, left } => {
                let Some(piece) = pieces.next() else { return Poll::Ready(None) };
                *left = left.saturating_sub(piece.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Content::Stream(gather) => gather.poll(cx).map(|next| next.map(|b| b.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Content::Whole(bytes) => bytes.is_none(),
            Content::Pieces { left, .. } => *left == 0,
            Content::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Content::Pieces { left, .. } => SizeHint::with_exact(*left),
            Content::Stream(_) => SizeHint::default(),
        }
    }
}

/// Joins small chunks that are ready together. A chunk that is large already is passed on without a copy.
struct Gather {
    stream: Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>,
    /// How the stream ended, when that was met behind a chunk.
    end: Option<Option<BoxError>>,
}

impl Gather {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        if let Some(error) = self.end.as_mut().map(Option::take) {
            return Poll::Ready(error.map(Err));
        }
        let first = match self.stream.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(bytes))) if bytes.len() < GATHER_BYTES_MAX / 2 => bytes,
            other => return other,
        };
        let Some(second) = self.ready(cx) else { return Poll::Ready(Some(Ok(first))) };
        let mut gathered = BytesMut::with_capacity(GATHER_BYTES_MAX);
        gathered.extend_from_slice(&first);
        gathered.extend_from_slice(&second);
        while gathered.len() < GATHER_BYTES_MAX {
            let Some(next) = self.ready(cx) else { break };
            gathered.extend_from_slice(&next);
        }
        Poll::Ready(Some(Ok(gathered.freeze())))
    }

    fn ready(&mut self, cx: &mut Context<'_>) -> Option<Bytes> {
        match self.stream.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(bytes))) => return Some(bytes),
            Poll::Ready(Some(Err(error))) => self.end = Some(Some(error)),
            Poll::Ready(None) => self.end = Some(None),
            Poll::Pending => {}
        }
        None
    }
}

/// A request body, whatever transport it came by.
pub(crate) struct Input(Option<UnsyncBoxBody<Bytes, BoxError>>);

impl Input {
    /// Wraps a transport's body; nothing is allocated when there is none.
    pub(crate) fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self((!body.is_end_stream()).then(|| body.map_err(Into::into).boxed_unsync()))
    }

    /// No body.
    pub(crate) fn empty() -> Self {
        Self(None)
    }

    /// The whole body, at most [`BODY_BYTES_MAX`] (413 beyond).
    pub(crate) async fn collect(self) -> Result<Bytes, Status> {
        match self.0 {
            None => Ok(Bytes::new()),
            Some(body) if body.size_hint().lower() > BODY_BYTES_MAX as u64 => Err(too_large()),
            Some(body) => read(body).await,
        }
    }

    /// Its length, when that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        self.0.as_ref().map_or(Some(0), |body| body.size_hint().exact())
    }

    /// Whether it is known that there is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The body as it comes, for requests that are passed on.
    pub(crate) fn into_body(self) -> UnsyncBoxBody<Bytes, BoxError> {
        self.0.unwrap_or_else(|| http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync())
    }
}

/// Reads frame by frame: `http_body_util::Limited` makes a future that the compiler cannot see to be `Send`.
async fn read(mut body: UnsyncBoxBody<Bytes, BoxError>) -> Result<Bytes, Status> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::bad_request(format!("read request body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + all.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        // Most bodies are one frame, which is not copied.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn too_large() -> Status {
    let why = format!("limit is {BODY_BYTES_MAX}");
    Status::new(413, meta::Reason::RequestEntityTooLarge, format!("Request entity too large: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body_util::Full;

    #[tokio::test]
    async fn small_chunks_travel_together() {
        let chunks: Vec<_> = (0..10).map(|n| Ok(Bytes::from(format!("{n}\n")))).collect();
        let mut body = Body::stream(stream::iter(chunks));
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&frame[..], b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn body_is_bounded() {
        let body = |size: usize| Input::new(Full::new(Bytes::from(vec![b'x'; size])));
        assert_eq!(body(BODY_BYTES_MAX).collect().await.unwrap().len(), BODY_BYTES_MAX);
        assert_eq!(body(BODY_BYTES_MAX + 1).collect().await.unwrap_err().code, 413);
        let endless = stream::repeat_with(|| Ok::<_, BoxError>(Frame::data(Bytes::from_static(&[0; 4096]))));
        let body = Input::new(http_body_util::StreamBody::new(endless));
        assert_eq!(body.collect().await.unwrap_err().code, 413);
    }
}
