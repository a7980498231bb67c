//! Everything that the store holds, as one snapshot, for whoever may do everything (`keelson backup`). The
//! values are as they are stored.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Response};
use store::{Store, backup::Encoder};
use tokio::sync::mpsc;

use super::{
    body::{Body, BoxError},
    encode,
};

/// Where a backup is to be had.
pub const BACKUP_PATH: &str = "/keelson/backup";
/// Bytes that go into one piece.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces ahead of a client that reads slowly; then the store is read no further.
const PIECES_MAX: usize = 8;

/// Begins a snapshot. An error of the store breaks the answer off: what came is then no whole backup.
pub(super) fn answer(store: &Arc<dyn Store>) -> Response<Body> {
    let (send, receive) = mpsc::channel::<Result<Bytes, BoxError>>(PIECES_MAX);
    // Ends with the store's snapshot, or when nobody reads any more.
    tokio::spawn(read(store.clone(), send));
    let pieces = futures::stream::unfold(receive, |mut receive| async move {
        let piece = receive.recv().await?;
        Some((piece, receive))
    });
    encode::response(200, HeaderValue::from_static("application/octet-stream"), Body::stream(pieces))
}

async fn read(store: Arc<dyn Store>, send: mpsc::Sender<Result<Bytes, BoxError>>) {
    let (mut items, mut encoder) = (store.load(), Encoder::default());
    let mut piece: Vec<u8> = Vec::new();
    while let Some(item) = items.next().await {
        match item {
            Ok(item) => piece.extend(encoder.encode(&item)),
            Err(error) => {
                tracing::warn!(%error, "a backup broke off");
                // The client may have gone.
                drop(send.send(Err(Box::new(error))).await);
                return;
            }
        }
        if piece.len() >= PIECE_BYTES && send.send(Ok(std::mem::take(&mut piece).into())).await.is_err() {
            return;
        }
    }
    // The client may have gone.
    drop(send.send(Ok(piece.into())).await);
}
