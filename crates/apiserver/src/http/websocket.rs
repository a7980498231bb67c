//! Streams over WebSocket (RFC 6455), for clients that have no other: watches, an event in each text message, and logs;
//! and the token of a browser, which can set no other header.
//!
//! Guarantees: what the client sends is read and dropped, in messages of a bounded size; a client that does not read holds
//! the stream up, not memory; the connection is closed when the stream ends. As upstream's `wsstream.Reader`,
//! `WatchServer.HandleWS` and `ProtocolAuthenticator`.

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use meta::Status;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{Role, WebSocketConfig},
    },
};
use tokio_util::sync::CancellationToken;

use super::body::{Body, BoxError};

/// Most bytes of a message from a client; nobody has a reason to send any.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// What is appended to a key to accept it.
const ACCEPTING: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Begins a subprotocol that is a token.
const BEARER: &str = "base64url.bearer.authorization.k8s.io.";
const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

/// What a stream is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// Events of a watch, each a line.
    Events,
    /// Bytes.
    Log,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Lines,
    Binary,
    Base64,
}

/// Whether a request asks to go on as a WebSocket.
fn is_asked(headers: &HeaderMap) -> bool {
    let says = |name, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|given| given.trim().eq_ignore_ascii_case(word))
    };
    says(header::CONNECTION, "upgrade") && says(header::UPGRADE, "websocket")
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let all = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    all.map(str::trim).filter(|protocol| !protocol.is_empty())
}

/// Takes a token out of the subprotocols and puts it where tokens are, unless there is one: nobody further on shall see
/// it as anything else. 401 when it cannot be read, or when no other subprotocol is there to be answered with.
pub(crate) fn take_token(headers: &mut HeaderMap) -> Result<(), Status> {
    if !headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) || !is_asked(headers) {
        return Ok(());
    }
    let (tokens, others): (Vec<&str>, Vec<&str>) = protocols(headers).partition(|p| p.starts_with(BEARER));
    let [token] = tokens.as_slice() else {
        return if tokens.is_empty() { Ok(()) } else { Err(Status::unauthorized()) };
    };
    let token = BASE64_URL_SAFE_NO_PAD.decode(token.strip_prefix(BEARER).unwrap_or_default());
    let token = token.ok().and_then(|token| String::from_utf8(token).ok());
    let bearer = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
    let (Some(mut bearer), false) = (bearer, others.is_empty()) else { return Err(Status::unauthorized()) };
    let others = HeaderValue::try_from(others.join(",")).map_err(Status::internal)?;
    bearer.set_sensitive(true);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, others);
    headers.entry(header::AUTHORIZATION).or_insert(bearer);
    Ok(())
}

/// A connection that becomes a WebSocket when there is something to send.
pub(crate) struct Socket {
    upgrade: OnUpgrade,
    accepted: HeaderValue,
    protocol: Option<HeaderValue>,
    form: Form,
}

impl Socket {
    /// The one that a request for such a stream asks for, if it does.
    pub(crate) fn asked(
        headers: &HeaderMap,
        upgrade: &mut Option<OnUpgrade>,
        made: Option<Made>,
    ) -> Result<Option<Self>, Status> {
        let made = made.filter(|_| is_asked(headers));
        made.and_then(|made| Some(Self::new(upgrade.take()?, headers, made))).transpose()
    }

    /// What the request asks for; 400 when it cannot be had.
    fn new(upgrade: OnUpgrade, headers: &HeaderMap, made: Made) -> Result<Self, Status> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if text(header::SEC_WEBSOCKET_VERSION) != Some("13") {
            return Err(Status::bad_request("the WebSocket must be of version 13"));
        }
        let key = text(header::SEC_WEBSOCKET_KEY)
            .ok_or_else(|| Status::bad_request("the WebSocket needs Sec-WebSocket-Key"))?;
        let digest = ring::digest::digest(
            &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
            format!("{}{ACCEPTING}", key.trim()).as_bytes(),
        );
        let accepted = HeaderValue::try_from(BASE64_STANDARD.encode(digest)).map_err(Status::internal)?;
        let asked: Vec<&str> = protocols(headers).collect();
        let known = match made {
            // A watch has no subprotocol of its own: the only one asked for is answered.
            Made::Events => match asked.as_slice() {
                [] => Some((None, Form::Lines)),
                [one] => Some((Some(*one), Form::Lines)),
                _ => None,
            },
            Made::Log if asked.is_empty() => Some((None, Form::Binary)),
            Made::Log => asked.iter().find_map(|protocol| match *protocol {
                BINARY => Some((Some(BINARY), Form::Binary)),
                BASE64 => Some((Some(BASE64), Form::Base64)),
                _ => None,
            }),
        };
        let Some((protocol, form)) = known else {
            let why = format!("none of the WebSocket subprotocols {} is known here", asked.join(", "));
            return Err(Status::bad_request(why));
        };
        let protocol = protocol.map(HeaderValue::try_from).transpose().map_err(Status::internal)?;
        Ok(Self { upgrade, accepted, protocol, form })
    }

    /// Switches, and sends the body of an answer in messages until it ends, the client leaves or the server stops.
    fn switch(self, answer: Response<Body>, stop: CancellationToken) -> Response<Body> {
        let Self { upgrade, accepted, protocol, form } = self;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
        headers.extend(protocol.map(|protocol| (header::SEC_WEBSOCKET_PROTOCOL, protocol)));
        tokio::spawn(async move {
            let sent = stop.run_until_cancelled(send(upgrade, answer.into_body(), form)).await;
            if let Some(Err(error)) = sent {
                tracing::debug!(%error, "a WebSocket ended");
            }
        });
        response
    }
}

/// The answer over the socket, unless it is a refusal.
pub(crate) fn answer(
    socket: Option<Socket>,
    answer: Response<Body>,
    stop: &CancellationToken,
) -> Response<Body> {
    match socket.filter(|_| answer.status() == StatusCode::OK) {
        Some(socket) => socket.switch(answer, stop.clone()),
        None => answer,
    }
}

async fn send(upgrade: OnUpgrade, mut body: Body, form: Form) -> Result<(), BoxError> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
        .read_buffer_size(4 << 10);
    let io = TokioIo::new(upgrade.await?);
    let (mut to, mut from) = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await.split();
    let sending = async {
        let mut line = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(bytes) = frame?.into_data() else { continue };
            match form {
                Form::Binary => to.send(Message::Binary(bytes)).await?,
                Form::Base64 => to.send(Message::text(BASE64_STANDARD.encode(&bytes))).await?,
                Form::Lines => {
                    line.extend_from_slice(&bytes);
                    while let Some(at) = line.iter().position(|byte| *byte == b'\n') {
                        let event: Bytes = line.split_to(at + 1).freeze();
                        to.send(Message::Text(event.try_into()?)).await?;
                    }
                }
            }
        }
        to.close().await?;
        Ok(())
    };
    // Whoever is told to close has left; anything else that it says is nobody's business.
    let leaving = async { while let Some(Ok(_)) = from.next().await {} };
    tokio::select! {
        sent = sending => sent,
        () = leaving => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;
    use http_body_util::Full;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        testing_kinds::registry,
        testing_server::{request, start},
    };

    fn asking(path: &str, protocols: Option<&str>) -> Request<Full<Bytes>> {
        let mut asking = request("GET", path, None);
        let headers = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let protocols = protocols.map(|protocols| ("sec-websocket-protocol", protocols));
        for (name, value) in headers.into_iter().chain(protocols) {
            asking.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        asking
    }

    /// The example of RFC 6455, 1.3, and a watch that ends when the client leaves.
    #[tokio::test]
    async fn a_watch_is_an_event_in_each_message() {
        let running = start(registry()).await;
        let admin = running.pki.admin().unwrap();
        let answer = running
            .begin(Some(&admin), false, asking("/api/v1/gadgets?watch=true", Some("v1.example")))
            .await;
        assert_eq!(answer.status(), 101);
        assert_eq!(answer.headers()[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer.headers()[header::SEC_WEBSOCKET_PROTOCOL], "v1.example");
        let io = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        for name in ["a", "b"] {
            let gadget = json!({"apiVersion": "v1", "kind": "Gadget", "metadata": {"name": name}});
            let made = request("POST", "/api/v1/gadgets", Some(gadget));
            assert_eq!(running.send(Some(&admin), true, made).await.status(), 201);
        }
        socket.send(Message::text("what a client says is dropped")).await.unwrap();
        for name in ["a", "b"] {
            let Message::Text(text) = socket.next().await.unwrap().unwrap() else { panic!("no text") };
            let event: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (&event["type"], &event["object"]["metadata"]["name"]),
                (&"ADDED".into(), &name.into())
            );
        }
        socket.close(None).await.unwrap();
        while running.server.running_watches() > 0 {
            tokio::task::yield_now().await;
        }
        running.serving.stop().await;
    }

    #[tokio::test]
    async fn what_is_asked_wrongly_is_refused() {
        let running = start(registry()).await;
        let admin = running.pki.admin().unwrap();
        let path = "/api/v1/gadgets?watch=true";
        let mut old = asking(path, None);
        old.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("8"));
        let mut keyless = asking(path, None);
        keyless.headers_mut().remove("sec-websocket-key");
        for wrong in [old, keyless, asking(path, Some("a, b"))] {
            assert_eq!(running.send(Some(&admin), false, wrong).await.status(), 400);
        }
        // Not a stream: answered as it is.
        let listed = running.send(Some(&admin), false, asking("/api/v1/gadgets", None)).await;
        assert_eq!(listed.status(), 200);
        let missing = running.send(Some(&admin), false, asking("/api/v1/nothing?watch=true", None)).await;
        assert_eq!(missing.status(), 404);
        running.serving.stop().await;
    }

    #[test]
    fn a_token_among_the_subprotocols_becomes_a_header() {
        let taken = |protocols: &str| {
            let mut headers = asking("/", Some(protocols)).headers().clone();
            take_token(&mut headers).map(|()| {
                let text = |name: http::HeaderName| {
                    headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
                };
                (text(header::AUTHORIZATION), text(header::SEC_WEBSOCKET_PROTOCOL))
            })
        };
        let bearer = format!("{BEARER}{}", BASE64_URL_SAFE_NO_PAD.encode("a.b.c"));
        assert_eq!(taken(&format!("{bearer}, x, y")), Ok(("Bearer a.b.c".to_owned(), "x,y".to_owned())));
        assert_eq!(taken("x,y"), Ok((String::new(), "x,y".to_owned())));
        for wrong in [bearer.clone(), format!("{bearer}, {bearer}, x"), format!("{BEARER}!, x")] {
            assert_eq!(taken(&wrong).unwrap_err().code, 401, "{wrong}");
        }
    }
}
