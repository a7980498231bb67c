//! Where events go: a file that is replaced when it is full, or standard output.
//!
//! Bounds: in batch mode [`WAITING_MAX`] events wait for the disk, further ones are dropped and counted; in
//! the blocking modes the request waits for the write.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use jiff::SignedDuration;
use meta::{Clock, Timestamp};

/// Events that wait in batch mode (upstream `--audit-log-batch-buffer-size`).
const WAITING_MAX: usize = 10_000;
/// Form of the time in the name of a file that is full.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S";

/// What happens to a request while its event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It waits; a failure is only counted.
    #[default]
    Blocking,
    /// It waits, and one whose receipt cannot be logged is refused.
    BlockingStrict,
    /// It does not wait.
    Batch,
}

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The file; `-` is standard output.
    pub path: PathBuf,
    /// What requests do meanwhile.
    pub mode: Mode,
    /// A file larger than this is put aside; 0 never.
    pub bytes_max: u64,
    /// How many files put aside are kept; 0 all.
    pub backups_max: usize,
    /// How long files put aside are kept, in days; 0 for ever.
    pub days_max: u32,
}

/// A place for events. Each is one line of JSON.
pub struct Log {
    mode: Mode,
    /// Taken when the log ends: then the writer ends too.
    queue: Mutex<Option<SyncSender<Vec<u8>>>>,
    writer: Option<JoinHandle<()>>,
    file: Arc<Mutex<Rotating>>,
    lost: Arc<AtomicU64>,
}

impl Log {
    /// Opens the file, so that a path that cannot be written is told at start.
    pub fn open(options: LogOptions, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let mode = options.mode;
        let file = Arc::new(Mutex::new(Rotating::open(options, clock)?));
        let lost = Arc::new(AtomicU64::new(0));
        let (mut queue, mut writer) = (None, None);
        if mode == Mode::Batch {
            let (sender, receiver) = sync_channel::<Vec<u8>>(WAITING_MAX);
            let (file, lost) = (file.clone(), lost.clone());
            let thread = std::thread::Builder::new().name("audit-log".to_owned()).spawn(move || {
                while let Ok(line) = receiver.recv() {
                    write(&file, &line, &lost);
                }
            });
            (queue, writer) = (Some(sender), Some(thread?));
        }
        Ok(Self { mode, queue: Mutex::new(queue), writer, file, lost })
    }

    /// Writes one event, or hands it to the writer. False when it is lost.
    pub(super) fn write(&self, line: Vec<u8>) -> bool {
        if self.mode != Mode::Batch {
            return write(&self.file, &line, &self.lost);
        }
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match queue.as_ref().map(|queue| queue.try_send(line)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => {
                lose(&self.lost, 1, "the queue is full");
                false
            }
        }
    }

    pub(super) fn is_strict(&self) -> bool {
        self.mode == Mode::BlockingStrict
    }

    /// Events that were not written since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = self.writer.take() {
            // It ends when it has written what waits; a panic was reported by the thread itself.
            drop(writer.join());
        }
    }
}

fn write(file: &Mutex<Rotating>, line: &[u8], lost: &AtomicU64) -> bool {
    match file.lock().unwrap_or_else(PoisonError::into_inner).write(line) {
        Ok(()) => true,
        Err(error) => {
            lose(lost, 1, &error.to_string());
            false
        }
    }
}

/// Says so at the first loss and then at every power of two.
pub(super) fn lose(lost: &AtomicU64, events: u64, why: &str) {
    let before = lost.fetch_add(events, Ordering::Relaxed);
    let count = before.saturating_add(events);
    if before.checked_ilog2() != count.checked_ilog2() {
        tracing::error!(lost = count, why, "audit events are lost");
    }
}

struct Rotating {
    options: LogOptions,
    clock: Arc<dyn Clock>,
    /// `None`: standard output.
    file: Option<File>,
    written: u64,
}

impl Rotating {
    fn open(options: LogOptions, clock: Arc<dyn Clock>) -> io::Result<Self> {
        if options.path.as_os_str() == "-" {
            return Ok(Self { options, clock, file: None, written: 0 });
        }
        let file = append(&options.path)?;
        let written = file.metadata()?.len();
        Ok(Self { options, clock, file: Some(file), written })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return io::stdout().lock().write_all(line);
        };
        let length = line.len() as u64;
        if self.options.bytes_max > 0 && self.written > 0 && self.written + length > self.options.bytes_max {
            let now = self.clock.now();
            fs::rename(&self.options.path, self.aside(now)?)?;
            let fresh = append(&self.options.path)?;
            self.written = 0;
            self.file.insert(fresh).write_all(line)?;
            self.forget(now)?;
        } else {
            file.write_all(line)?;
        }
        self.written += length;
        Ok(())
    }

    /// `audit-TIME.NUMBER.log`, much as upstream's library names them: numbers grow within a second, so that
    /// names are in the order of time.
    fn aside(&self, now: Timestamp) -> io::Result<PathBuf> {
        let (stem, end) = self.name();
        let stem = format!("{stem}-{}.", now.strftime(STAMP));
        let newest = self.put_aside()?.into_iter().rev().find(|name| name.starts_with(&stem));
        let number = newest.and_then(|name| name.get(stem.len()..stem.len() + 3)?.parse::<u16>().ok());
        let next = number.map_or(0, |number| number + 1);
        if next > 999 {
            return Err(io::Error::other("a thousand audit logs in one second"));
        }
        Ok(self.options.path.with_file_name(format!("{stem}{next:03}{end}")))
    }

    /// The names of files put aside, the oldest first.
    fn put_aside(&self) -> io::Result<Vec<String>> {
        let (stem, end) = self.name();
        let parent = self.options.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let mut old: Vec<String> = Vec::new();
        for entry in fs::read_dir(parent.unwrap_or(Path::new(".")))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let stamp = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&end));
            // 2006-01-02T15-04-05.000
            let is_stamp =
                |s: &str| s.len() == 23 && s.bytes().all(|b| b.is_ascii_digit() || b"-T.".contains(&b));
            if stamp.is_some_and(is_stamp) {
                old.push(name);
            }
        }
        old.sort();
        Ok(old)
    }

    fn name(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
        let path = &self.options.path;
        let end = text(path.extension()).map(|end| format!(".{end}")).unwrap_or_default();
        (text(path.file_stem()).unwrap_or_default(), end)
    }

    /// Deletes files put aside that are too many or too old.
    fn forget(&self, now: Timestamp) -> io::Result<()> {
        let LogOptions { path, mode: _, bytes_max: _, backups_max, days_max } = &self.options;
        let ((stem, _), old) = (self.name(), self.put_aside()?);
        let surplus = if *backups_max == 0 { 0 } else { old.len().saturating_sub(*backups_max) };
        let limit = now
            .checked_sub(SignedDuration::from_hours(24 * i64::from(*days_max)))
            .map(|limit| format!("{stem}-{}", limit.strftime(STAMP)))
            .unwrap_or_default();
        for (at, name) in old.iter().enumerate() {
            if at < surplus || (*days_max > 0 && *name < limit) {
                fs::remove_file(path.with_file_name(name))?;
            }
        }
        Ok(())
    }
}

/// Readable by its owner only: it tells who did what.
fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(path: PathBuf, mode: Mode) -> LogOptions {
        LogOptions { path, mode, bytes_max: 20, backups_max: 2, days_max: 0 }
    }

    fn clock() -> Arc<meta::Fixed> {
        Arc::new(meta::Fixed::new("2026-01-01T00:00:00Z".parse().unwrap()))
    }

    fn files(home: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(home)
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn full_files_are_put_aside_and_old_ones_go() {
        let home = tempfile::tempdir().unwrap();
        let log = Log::open(options(home.path().join("audit.log"), Mode::Blocking), clock()).unwrap();
        fs::write(home.path().join("audit-mine.log"), "not ours").unwrap();
        for number in 0..9 {
            assert!(log.write(format!("event {number}\n").into_bytes()));
        }
        assert_eq!(
            files(home.path()),
            [
                "audit-2026-01-01T00-00-00.002.log",
                "audit-2026-01-01T00-00-00.003.log",
                "audit-mine.log",
                "audit.log"
            ]
        );
        assert_eq!(fs::read_to_string(home.path().join("audit.log")).unwrap(), "event 8\n");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(home.path().join("audit.log")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn age_counts_too() {
        let home = tempfile::tempdir().unwrap();
        let old = home.path().join("audit-2025-12-01T00-00-00.000.log");
        fs::write(&old, "x").unwrap();
        let wanted = LogOptions { days_max: 7, ..options(home.path().join("audit.log"), Mode::Blocking) };
        let log = Log::open(wanted, clock()).unwrap();
        log.write(vec![b'a'; 19]);
        log.write(vec![b'b'; 19]);
        assert_eq!(files(home.path()), ["audit-2026-01-01T00-00-00.000.log", "audit.log"]);
    }

    #[test]
    fn a_batch_is_written_by_the_end_and_what_is_lost_is_counted() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("audit.log");
        let wanted = LogOptions { bytes_max: 0, ..options(path.clone(), Mode::Batch) };
        let log = Log::open(wanted, clock()).unwrap();
        let holding = log.file.clone();
        let held = holding.lock().unwrap();
        // The writer holds one; the queue holds its bound; two more are lost. One may be taken meanwhile.
        let written = (0..WAITING_MAX + 3).filter(|n| log.write(format!("{n}\n").into_bytes())).count();
        assert!((WAITING_MAX..=WAITING_MAX + 1).contains(&written), "{written}");
        assert_eq!(log.lost(), (WAITING_MAX + 3 - written) as u64);
        drop(held);
        drop(log);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), written);
        assert!(Log::open(options(home.path().join("no/audit.log"), Mode::Blocking), clock()).is_err());
    }
}
