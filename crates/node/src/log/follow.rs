//! Sending a log, and waiting for more of it.

use std::{
    io::SeekFrom,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use runtime::log::{Line, Log};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
    sync::mpsc,
};

use super::{Filter, LogOptions, file};
use crate::host::{HostError, Result};

/// How often a followed file is looked at. A quarter of a second is below what a reader notices, and
/// a look costs two system calls.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest entry that is held together; more is passed on in parts. The runtime splits at 16 KiB.
const ENTRY_BYTES_MAX: usize = 1 << 20;
const CHUNK: usize = 64 * 1024;

/// Sends `log` as `options` say and returns at its end; with `follow`, when `is_running` says that no
/// more will come. Returns early when the receiver is gone. Dropping it at any point is safe.
pub async fn send(
    log: Log,
    options: &LogOptions,
    is_running: &(dyn Fn() -> BoxFuture<'static, bool> + Send + Sync),
    out: &mpsc::Sender<Bytes>,
) -> Result<()> {
    let mut filter = Filter::new(options);
    match log {
        Log::Lines(lines) => {
            let skip = options
                .tail_lines
                .map_or(0, |tail| lines.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX)));
            for line in lines.iter().skip(skip) {
                if !pass(&mut filter, line, out).await {
                    return Ok(());
                }
            }
            while options.follow && !out.is_closed() && is_running().await {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(())
        }
        Log::File(path) => {
            Tail::open(path, options.tail_lines).await?.send(options, &mut filter, is_running, out).await
        }
    }
}

/// False when nothing more is wanted.
async fn pass(filter: &mut Filter, line: &Line, out: &mpsc::Sender<Bytes>) -> bool {
    let text = filter.show(line);
    let sent = text.is_empty() || out.send(text).await.is_ok();
    sent && !filter.is_done()
}

struct Tail {
    path: PathBuf,
    file: File,
    inode: u64,
    rest: BytesMut,
}

impl Tail {
    async fn open(path: PathBuf, tail_lines: Option<u64>) -> Result<Self> {
        let fail = |error| HostError::io("open log", &path, error);
        let mut file = File::open(&path).await.map_err(fail)?;
        let inode = file.metadata().await.map_err(fail)?.ino();
        if let Some(lines) = tail_lines {
            let copy = file.try_clone().await.map_err(fail)?.into_std().await;
            let mut copy = copy;
            let offset = tokio::task::spawn_blocking(move || file::tail_offset(&mut copy, lines))
                .await
                .map_err(std::io::Error::other)
                .and_then(|offset| offset)
                .map_err(fail)?;
            file.seek(SeekFrom::Start(offset)).await.map_err(fail)?;
        }
        Ok(Self { path, file, inode, rest: BytesMut::new() })
    }

    async fn send(
        mut self,
        options: &LogOptions,
        filter: &mut Filter,
        is_running: &(dyn Fn() -> BoxFuture<'static, bool> + Send + Sync),
        out: &mpsc::Sender<Bytes>,
    ) -> Result<()> {
        let mut last_look = false;
        loop {
            if !self.drain(filter, out).await? {
                return Ok(());
            }
            if self.reopened().await? {
                continue;
            }
            if !options.follow || last_look || out.is_closed() {
                return Ok(());
            }
            // What was written between the last read and the end of the process is still to come.
            last_look = !is_running().await;
            if !last_look {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Sends all that is there. False when nothing more is wanted.
    async fn drain(&mut self, filter: &mut Filter, out: &mpsc::Sender<Bytes>) -> Result<bool> {
        loop {
            self.rest.reserve(CHUNK);
            let read = self.file.read_buf(&mut self.rest).await;
            let count = read.map_err(|error| HostError::io("read log", &self.path, error))?;
            if count == 0 {
                return Ok(true);
            }
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let entry = self.rest.split_to(end + 1);
                // A damaged entry (a torn write after a crash of the machine) is passed over.
                if let Some(line) = Line::parse(&entry)
                    && !pass(filter, &line, out).await
                {
                    return Ok(false);
                }
            }
            if self.rest.len() > ENTRY_BYTES_MAX {
                self.rest.clear();
            }
        }
    }

    /// After a rotation the path names another file; go on with that one.
    async fn reopened(&mut self) -> Result<bool> {
        let Some(inode) = inode(&self.path).await else { return Ok(false) };
        if inode == self.inode {
            return Ok(false);
        }
        match File::open(&self.path).await {
            Ok(file) => {
                self.file = file;
                self.inode = inode;
                self.rest.clear();
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(HostError::io("open log", &self.path, error)),
        }
    }
}

async fn inode(path: &Path) -> Option<u64> {
    tokio::fs::metadata(path).await.ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
    };

    use super::*;

    fn entry(text: &str) -> String {
        format!("2024-01-01T00:00:00Z stdout F {text}\n")
    }

    async fn collect(log: Log, options: LogOptions) -> String {
        let (out, mut lines) = mpsc::channel(64);
        send(log, &options, &|| Box::pin(async { false }), &out).await.unwrap();
        drop(out);
        let mut text = String::new();
        while let Some(bytes) = lines.recv().await {
            text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        text
    }

    #[tokio::test]
    async fn files_and_tails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, format!("{}{}damaged\n{}", entry("1"), entry("2"), entry("3"))).unwrap();
        let tail = |lines| LogOptions { tail_lines: Some(lines), ..LogOptions::default() };
        assert_eq!(collect(Log::File(path.clone()), LogOptions::default()).await, "1\n2\n3\n");
        assert_eq!(collect(Log::File(path.clone()), tail(1)).await, "3\n");
        assert_eq!(collect(Log::File(path.clone()), tail(0)).await, "");
        let lines: Vec<Line> = ["1", "2"].iter().map(|t| Line::parse(entry(t).as_bytes()).unwrap()).collect();
        assert_eq!(collect(Log::Lines(lines), tail(1)).await, "2\n");
        let missing = Log::File(dir.path().join("none"));
        let (out, _lines) = mpsc::channel(1);
        let error =
            send(missing, &LogOptions::default(), &|| Box::pin(async { false }), &out).await.unwrap_err();
        assert!(error.to_string().starts_with("open log "));
    }

    #[tokio::test]
    async fn following_survives_rotation_and_ends_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, entry("1")).unwrap();
        let looks = Arc::new(AtomicU32::new(0));
        let (at, count) = (path.clone(), Arc::clone(&looks));
        let is_running = move || -> BoxFuture<'static, bool> {
            let (at, look) = (at.clone(), count.fetch_add(1, Ordering::SeqCst));
            Box::pin(async move {
                let append = |text: &str| {
                    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&at).unwrap();
                    file.write_all(text.as_bytes()).unwrap();
                };
                match look {
                    0 => append(&entry("2")),
                    1 => {
                        append(&entry("3"));
                        file::rotate(&at, 1, 4).unwrap();
                        append(&entry("4"));
                    }
                    _ => append(&entry("5")),
                }
                look < 2
            })
        };
        let (out, mut lines) = mpsc::channel(64);
        let options = LogOptions { follow: true, ..LogOptions::default() };
        send(Log::File(path), &options, &is_running, &out).await.unwrap();
        drop(out);
        let mut text = String::new();
        while let Some(bytes) = lines.recv().await {
            text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
        assert_eq!(text, "1\n2\n3\n4\n5\n");
    }
}
