//! A network between a client and a server that a test can interrupt: held, nothing passes and nobody is told,
//! as when a cable is pulled; cut, every connection ends at once.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Passes,
    Held,
    /// How often it was cut: each connection is of one count.
    Cut(u32),
}

/// Works while it is there and the test's runtime runs.
pub(crate) struct Wire {
    pub(crate) port: u16,
    state: watch::Sender<State>,
    cuts: std::sync::atomic::AtomicU32,
}

impl Wire {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (state, of) = watch::channel(State::Passes);
        let it = Self { port: listener.local_addr().unwrap().port(), state, cuts: Default::default() };
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = of.clone();
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        let (mut from, mut to) = client.into_split();
                        let (mut back, mut forth) = server.into_split();
                        let (mut there, mut here) = (state.clone(), state);
                        tokio::select! {
                            () = pass(&mut from, &mut forth, &mut there) => {}
                            () = pass(&mut back, &mut to, &mut here) => {}
                        }
                    }
                });
            }
        });
        it
    }

    pub(crate) fn hold(&self) {
        self.state.send_replace(State::Held);
    }

    /// Lets pass what was held.
    pub(crate) fn mend(&self) {
        self.state.send_replace(State::Passes);
    }

    pub(crate) fn cut(&self) {
        let cuts = self.cuts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.state.send_replace(State::Cut(cuts));
    }
}

async fn pass(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    state: &mut watch::Receiver<State>,
) {
    let begun = *state.borrow_and_update();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let now = *state.borrow_and_update();
        if matches!(now, State::Cut(_)) && now != begun {
            return;
        }
        if now == State::Held {
            if state.changed().await.is_err() {
                return;
            }
            continue;
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() { return },
            read = from.read(&mut buffer) => {
                let Ok(length @ 1..) = read else { return };
                // What was read when the wire was held in this very moment waits until it passes again.
                if state.wait_for(|state| *state != State::Held).await.is_err() {
                    return;
                }
                if to.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
