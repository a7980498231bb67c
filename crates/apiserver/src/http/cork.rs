//! What a connection writes while its task runs, sent together when the task is about to wait.
//!
//! hyper flushes after every answer whose body it does not copy, and each answer wakes the connection's task before the
//! next request of the connection gets its turn: a TLS record and a system call for each. Here the task lets those who are
//! ready go first, once, while requests of its connection are being answered, and what they all wrote is one of both.
//! Guarantees: nothing is held back over a wait of the task; at most [`HELD_MAX`] bytes are held, beyond which the writer
//! waits as it would without this. For HTTP/2 only: a connection that is handed out after an upgrade has nobody to send
//! for it.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are held; four TLS records.
const HELD_MAX: usize = 64 << 10;
/// Bytes that are not worth copying.
const LARGE: usize = 8 << 10;

/// A stream whose writes are held; the clones are the same stream.
pub(super) struct Corked<S>(Arc<Mutex<Held<S>>>);

struct Held<S> {
    stream: S,
    bytes: Vec<u8>,
    /// How many of them are written.
    written: usize,
    corked: bool,
}

impl<S> Corked<S> {
    /// Holds writes if `corked`; passes everything on otherwise.
    pub(super) fn new(stream: S, corked: bool) -> Self {
        Self(Arc::new(Mutex::new(Held { stream, bytes: Vec::new(), written: 0, corked })))
    }

    fn held(&self) -> MutexGuard<'_, Held<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Clone for Corked<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    /// Runs what serves the stream; whenever it waits, what it wrote is sent. `running` is how many requests are being
    /// answered.
    pub(super) async fn run<F: Future>(self, running: &AtomicUsize, served: F) -> F::Output {
        let mut served = pin!(served);
        let mut gave_way = false;
        std::future::poll_fn(|cx| {
            let done = served.as_mut().poll(cx);
            let mut held = self.held();
            if !held.corked {
                return done;
            }
            if done.is_pending() && !gave_way && !held.bytes.is_empty() && running.load(Ordering::Relaxed) > 0
            {
                gave_way = true;
                // Whoever wakes itself comes after all who are ready.
                cx.waker().wake_by_ref();
                return done;
            }
            gave_way = false;
            // An error is the connection's at its next write; nobody is left to wait when it is done.
            let _ = held.flush(cx);
            done
        })
        .await
    }
}

/// Counts a request while it is answered.
pub(super) struct Running(Arc<AtomicUsize>);

impl Running {
    pub(super) fn begin(running: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::Relaxed);
        Self(running.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S: AsyncWrite + Unpin> Held<S> {
    /// Writes what is held.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        self.written = 0;
        // An idle connection, such as a watch, keeps no buffer.
        self.bytes = Vec::new();
        Poll::Ready(Ok(()))
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Makes room for that many bytes; whether they are to be held.
    fn room(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<bool>> {
        let small = self.corked && bytes < LARGE;
        if !small || self.bytes.len() + bytes > HELD_MAX {
            ready!(self.send(cx))?;
        }
        Poll::Ready(Ok(small))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.held().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut held = self.held();
        let bytes = slices.iter().map(|slice| slice.len()).sum();
        if !ready!(held.room(cx, bytes))? {
            return Pin::new(&mut held.stream).poll_write_vectored(cx, slices);
        }
        slices.iter().for_each(|slice| held.bytes.extend_from_slice(slice));
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.held();
        if held.corked { Poll::Ready(Ok(())) } else { held.flush(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.held();
        ready!(held.flush(cx))?;
        Pin::new(&mut held.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_is_written_before_a_wait_is_sent_together() {
        let (near, mut far) = duplex(1 << 20);
        let corked = Corked::new(near, true);
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let mut writer = corked.clone();
        let none = AtomicUsize::new(0);
        let served = corked.run(&none, async move {
            for _ in 0..3 {
                writer.write_all(b"answer").await.unwrap();
                writer.flush().await.unwrap();
                assert_eq!(writer.held().bytes.len() % 6, 0);
            }
            assert_eq!(writer.held().bytes.len(), 18, "nothing is sent before the wait");
            told.await.unwrap();
            assert_eq!(writer.held().bytes.len(), 0, "all is sent in the wait");
            // What is large does not overtake what is held.
            writer.write_all(b"last").await.unwrap();
            writer.write_all(&[b'x'; LARGE]).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let read = async {
            let mut answers = [0; 18];
            far.read_exact(&mut answers).await.unwrap();
            assert_eq!(&answers, b"answeransweranswer");
            tell.send(()).unwrap();
            let mut rest = Vec::new();
            far.read_to_end(&mut rest).await.unwrap();
            assert!(rest.starts_with(b"lastx") && rest.len() == 4 + LARGE);
        };
        tokio::join!(served, read);
    }

    /// Of requests that are ready together, the answers are sent together.
    #[tokio::test]
    async fn others_who_are_ready_go_first() {
        let (near, mut far) = duplex(1 << 20);
        let corked = Corked::new(near, true);
        let running = Arc::new(AtomicUsize::new(0));
        let (answer, mut answers) = tokio::sync::mpsc::unbounded_channel::<&str>();
        let served = tokio::spawn({
            let (mut writer, running) = (corked.clone(), running.clone());
            async move {
                let served = async move {
                    while let Some(answer) = answers.recv().await {
                        writer.write_all(answer.as_bytes()).await.unwrap();
                    }
                };
                corked.run(&running, served).await;
            }
        });
        for _ in 0..2 {
            let (answer, request) = (answer.clone(), Running::begin(&running));
            tokio::spawn(async move {
                answer.send("answer").unwrap();
                drop(request);
            });
        }
        let mut bytes = [0; 64];
        assert_eq!(far.read(&mut bytes).await.unwrap(), 12);
        drop(answer);
        served.await.unwrap();
    }

    /// A reader that does not read holds the writer up, whatever it writes.
    #[tokio::test]
    async fn what_is_held_is_bounded() {
        let (near, mut far) = duplex(1);
        let corked = Corked::new(near, true);
        let mut writer = corked.clone();
        let (mut sent, total) = (0, 4 * HELD_MAX);
        let none = AtomicUsize::new(0);
        let served = corked.run(&none, async move {
            while sent < total {
                writer.write_all(&[b'x'; 100]).await.unwrap();
                sent += 100;
                assert!(writer.held().bytes.len() <= HELD_MAX);
            }
            writer.shutdown().await.unwrap();
        });
        let mut all = Vec::new();
        let (read, ()) = tokio::join!(far.read_to_end(&mut all), served);
        assert_eq!(read.unwrap(), total.div_ceil(100) * 100);
    }
}
