//! The wire against the strict platform, in the process and over a socket.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use meta::{Clock, Fixed, Seeded, Timestamp};
use serde_json::json;

use super::*;
use crate::testkit::{CLUSTER, FakePlatform, Fault, URL, clock, credentials};

fn beat() -> Bytes {
    json!({"cluster_uid": CLUSTER}).to_string().into()
}

struct Rig {
    fake: Arc<FakePlatform>,
    platform: Platform,
}

fn rig_at(ours: Arc<Fixed>) -> Rig {
    let credentials = credentials("client-1");
    let fake = FakePlatform::new(clock(), URL, &credentials);
    let platform = Platform::new(fake.clone(), URL, credentials, ours, Arc::new(Seeded::new(1)));
    Rig { fake, platform }
}

#[tokio::test(start_paused = true)]
async fn one_token_serves_all_until_it_ages() {
    let Rig { fake, platform } = rig_at(clock());
    let beats = futures::future::join_all((0..8).map(|_| platform.post(HEARTBEAT, beat()))).await;
    assert!(beats.iter().all(Result::is_ok), "{beats:?}");
    assert_eq!((fake.requests(TOKEN), fake.requests(HEARTBEAT)), (1, 8));
    tokio::time::sleep(Duration::from_secs(2800)).await;
    platform.post(HEARTBEAT, beat()).await.unwrap();
    assert_eq!(fake.requests(TOKEN), 1);
    tokio::time::sleep(Duration::from_secs(100)).await;
    platform.post(HEARTBEAT, beat()).await.unwrap();
    assert_eq!(fake.requests(TOKEN), 2, "anew before it expires");
    assert_eq!(fake.known.lock().violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn short_tokens_are_used_too() {
    let Rig { fake, platform } = rig_at(clock());
    fake.expires_in(10);
    for _ in 0..4 {
        platform.post(HEARTBEAT, beat()).await.unwrap();
    }
    assert_eq!(fake.requests(TOKEN), 1);
    tokio::time::sleep(Duration::from_secs(9)).await;
    platform.post(HEARTBEAT, beat()).await.unwrap();
    assert_eq!(fake.requests(TOKEN), 2);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_replaced_once() {
    let Rig { fake, platform } = rig_at(clock());
    platform.post(HEARTBEAT, beat()).await.unwrap();
    fake.known.lock().tokens.clear();
    platform.post(HEARTBEAT, beat()).await.unwrap();
    assert_eq!((fake.requests(TOKEN), fake.requests(HEARTBEAT)), (2, 3));
    fake.fail(|path| (path == HEARTBEAT).then_some(Fault::Status(401, None)));
    let trouble = platform.post(HEARTBEAT, beat()).await.unwrap_err();
    assert_eq!((trouble.refusal, trouble.status), (Refusal::Unauthorized, Some(401)));
    assert_eq!(fake.requests(HEARTBEAT), 5, "once more, not for ever");
}

#[tokio::test(start_paused = true)]
async fn answers_become_troubles() {
    let Rig { fake, platform } = rig_at(clock());
    let ask = async |fault: Fault| {
        fake.fail(move |path| (path == HEARTBEAT).then(|| fault.clone()));
        platform.post(HEARTBEAT, beat()).await.unwrap_err()
    };
    assert_eq!(ask(Fault::Disconnect).await.refusal, Refusal::Transient);
    assert_eq!(ask(Fault::Hang).await.refusal, Refusal::Transient);
    let busy = ask(Fault::Status(429, Some("9"))).await;
    assert_eq!((busy.refusal, busy.retry_after), (Refusal::Transient, Some(Duration::from_secs(9))));
    assert!(ask(Fault::Status(302, None)).await.message.contains("spec.platformURL"));
    fake.known.lock().tokens.clear();
    fake.fail(|path| (path == TOKEN).then_some(Fault::Status(503, None)));
    let Rig { fake: _, platform } = rig_at(clock());
    let _fine = platform.post(HEARTBEAT, beat()).await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_client_and_a_wrong_clock_are_told_apart() {
    let slow = Arc::new(Fixed::new(Timestamp::from_second(clock().now().as_second() - 600).unwrap()));
    let trouble = rig_at(slow).platform.post(HEARTBEAT, beat()).await.unwrap_err();
    assert_eq!((trouble.refusal, trouble.status), (Refusal::Unauthorized, None));
    assert!(trouble.message.contains("600 s behind"), "{trouble}");
    let Rig { fake, platform } = rig_at(clock());
    fake.known.lock().clients.clear();
    let trouble = platform.post(HEARTBEAT, beat()).await.unwrap_err();
    assert!(trouble.message.contains("client") && !trouble.message.contains("clock"), "{trouble}");
}

/// The same over a real connection: what hyper sends is what the strict platform accepts.
#[tokio::test]
async fn speaks_http_over_a_socket() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let credentials = credentials("client-1");
    let fake = FakePlatform::new(clock(), &url, &credentials);
    let served = fake.clone();
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let served = served.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let served = served.clone();
                async move {
                    let request = request.map(|body| body.map_err(|e| Aborted(e.to_string())).boxed_unsync());
                    let reply = served.send(request, REPLY_BYTES_MAX).await.map_err(std::io::Error::other)?;
                    let mut answer = http::Response::new(Full::new(reply.body));
                    *answer.status_mut() = http::StatusCode::from_u16(reply.status).unwrap();
                    Ok::<_, std::io::Error>(answer)
                }
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        }
    });
    let platform = Platform::new(
        Arc::new(Https::new(None).unwrap()),
        &url,
        credentials,
        clock(),
        Arc::new(Seeded::new(1)),
    );
    platform.post(HEARTBEAT, beat()).await.unwrap();
    let halves = futures::stream::iter(
        [r#"{"cluster_uid":"clus"#, r#"ter-uid"}"#]
            .map(|half| Ok::<_, Aborted>(http_body::Frame::data(Bytes::from(half)))),
    );
    platform.post_stream(HEARTBEAT, http_body_util::StreamBody::new(halves).boxed_unsync()).await.unwrap();
    let cut =
        futures::stream::iter([Ok(http_body::Frame::data(Bytes::from("{"))), Err(Aborted("end".into()))]);
    let cut = http_body_util::StreamBody::new(cut).boxed_unsync();
    assert_eq!(platform.post_stream(HEARTBEAT, cut).await.unwrap_err().refusal, Refusal::Transient);
    assert_eq!(fake.known.lock().heartbeats, 2, "a cut body does not count");
    fake.fail(|_| Some(Fault::Disconnect));
    assert_eq!(platform.post(HEARTBEAT, beat()).await.unwrap_err().refusal, Refusal::Transient);
    assert_eq!(fake.known.lock().violations, Vec::<String>::new());
    server.abort();
}
