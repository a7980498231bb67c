//! A server of unary gRPC calls, for tests.

use std::{convert::Infallible, sync::Arc};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{body::Frame, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

/// What a call answers: a message, or a status code.
pub(crate) type Answering = Arc<dyn Fn(&str, &[u8]) -> Result<Vec<u8>, &'static str> + Send + Sync>;

/// Answers the calls of one connection.
pub(crate) fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, answering: Answering) {
    let serve = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let answering = answering.clone();
        async move {
            assert_eq!(request.headers()["content-type"], "application/grpc");
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
            assert_eq!((body[0], length), (0, body.len() - 5));
            let (message, code) = match answering(&path, &body[5..]) {
                Ok(message) => (message, "0"),
                Err(code) => (Vec::new(), code),
            };
            let mut data = BytesMut::new();
            data.put_u8(0);
            data.put_u32(u32::try_from(message.len()).unwrap());
            data.put_slice(&message);
            let trailers =
                HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(code))]);
            let frames =
                [Ok::<Frame<Bytes>, Infallible>(Frame::data(data.freeze())), Ok(Frame::trailers(trailers))];
            Ok::<_, Infallible>(Response::new(StreamBody::new(futures::stream::iter(frames))))
        }
    });
    tokio::spawn(async move {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(builder.serve_connection(TokioIo::new(stream), serve).await);
    });
}
