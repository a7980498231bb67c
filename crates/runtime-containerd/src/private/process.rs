//! The containerd process: started in its own session, found again by its pid file, watched by a pidfd,
//! which works for a process that is not our child.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use runtime::{Error, ErrorKind, Result, Step};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{
    io::{Interest, unix::AsyncFd},
    process::{Child, Command},
};

use super::missing::{self, Programs};

/// Size from which the log file is set aside at a start.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// Between two tries to get the lock.
const LOOK: Duration = Duration::from_millis(20);

/// Characters of the log that an error shows.
const LOG_SHOWN: usize = 2000;

/// A running containerd.
pub(super) struct Process {
    pidfd: AsyncFd<OwnedFd>,
    directory: PathBuf,
    /// Kept so that tokio buries it when it ends.
    child: Option<Child>,
}

/// containerd's log file.
pub(super) fn log_file(directory: &Path) -> PathBuf {
    directory.join("containerd.log")
}

fn pid_file(directory: &Path) -> PathBuf {
    directory.join("containerd.pid")
}

fn failed(what: &str, error: io::Error) -> Error {
    Error::new(Step::Prepare, "containerd", ErrorKind::Internal, format!("{what}: {error}"))
        .with_source(error)
}

/// Makes the directory and keeps others from starting a containerd in it until the file is dropped: two programs may
/// want it at once (`keelson up` and `keelson image load`).
pub(super) async fn lock(directory: &Path, patience: Duration) -> Result<File> {
    tokio::fs::create_dir_all(directory)
        .await
        .map_err(|error| failed(&format!("cannot make the directory {}", directory.display()), error))?;
    let path = directory.join("starting.lock");
    let file = File::create(&path).map_err(|error| failed("cannot make the lock file", error))?;
    let locking = async {
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOK).await,
                Err(TryLockError::Error(error)) => return Err(failed("cannot lock the lock file", error)),
            }
        }
    };
    tokio::time::timeout(patience, locking).await.unwrap_or_else(|_elapsed| {
        let message = format!("another keelson is starting it and does not get on; see {}", path.display());
        Err(Error::new(Step::Prepare, "containerd", ErrorKind::TimedOut, message))
    })?;
    Ok(file)
}

/// Starts containerd in a session of its own: no signal that ends us reaches it.
pub(super) async fn spawn(directory: &Path, programs: &Programs) -> Result<Process> {
    let path = log_file(directory);
    if tokio::fs::metadata(&path).await.is_ok_and(|found| found.len() > LOG_BYTES_MAX) {
        let old = path.with_extension("log.old");
        tokio::fs::rename(&path, &old)
            .await
            .map_err(|error| failed("cannot set the log file aside", error))?;
    }
    let open = || {
        OpenOptions::new().create(true).append(true).open(&path).and_then(|log| Ok((log.try_clone()?, log)))
    };
    let (out, err) = open().map_err(|error| failed("cannot open the log file", error))?;
    // setsid replaces itself with containerd, which so has the pid that we see. std can only make a
    // new process group, which a terminal's end still reaches.
    let child = Command::new(&programs.setsid)
        .arg(&programs.containerd)
        .arg("--config")
        .arg(directory.join("config.toml"))
        .env("PATH", missing::path())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(|error| failed("cannot start it", error))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(|| {
        Error::new(Step::Prepare, "containerd", ErrorKind::Internal, "it ended as soon as it was started")
    })?;
    // No await since the start: a caller that is dropped leaves a containerd that can be found.
    std::fs::write(pid_file(directory), pid.to_string())
        .map_err(|error| failed("cannot write the pid file", error))?;
    Process::watch(pid, directory, Some(child)).map_err(|error| failed("cannot watch it", error))
}

/// The containerd of a directory, when one is alive. A pid that now belongs to another program is told
/// from it by its command line.
pub(super) async fn find(directory: &Path) -> Option<Process> {
    let pid: i32 = tokio::fs::read_to_string(pid_file(directory)).await.ok()?.trim().parse().ok()?;
    let process = Process::watch(pid, directory, None).ok()?;
    let command = tokio::fs::read(format!("/proc/{pid}/cmdline")).await.ok()?;
    let config = directory.join("config.toml");
    let ours =
        command.split(|byte| *byte == 0).any(|argument| argument == config.as_os_str().as_encoded_bytes());
    ours.then_some(process)
}

/// The error for a containerd that ended while it was starting: the end of its log.
pub(super) async fn died(directory: &Path) -> Error {
    let path = log_file(directory);
    let log = tokio::fs::read(&path).await.unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let telling: Vec<&str> = log.lines().rev().filter(|line| !line.contains("level=info")).take(5).collect();
    let telling = telling.into_iter().rev().collect::<Vec<_>>().join("; ");
    let shown: String = telling.chars().take(LOG_SHOWN).collect();
    let message = format!("it ended while starting, see {}: {shown}", path.display());
    Error::new(Step::Prepare, "containerd", ErrorKind::Internal, message)
}

impl Process {
    #[allow(
        deprecated,
        reason = "its successor is unsafe; an OwnedFd stays open and ours, which is all that asks for"
    )]
    fn watch(pid: i32, directory: &Path, child: Option<Child>) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        Ok(Self { pidfd, directory: directory.to_owned(), child })
    }

    /// Resolves when the process has ended. Cancel-safe.
    pub(super) async fn ended(&mut self) {
        if let Err(error) = self.pidfd.readable().await {
            // The descriptor is ours and open, so this cannot be; to wait for ever would be worse.
            tracing::error!(%error, "cannot wait for containerd's end");
        }
        if let Some(child) = &mut self.child {
            drop(child.try_wait());
        }
    }

    /// Asks the process to end, then makes it. Resolves when it has ended.
    pub(super) async fn end(&mut self, patience: Duration) -> Result<()> {
        for signal in [Signal::TERM, Signal::KILL] {
            match pidfd_send_signal(&self.pidfd, signal) {
                Ok(()) => {}
                Err(rustix::io::Errno::SRCH) => break,
                Err(error) => return Err(failed("cannot end it", error.into())),
            }
            if tokio::time::timeout(patience, self.ended()).await.is_ok() {
                break;
            }
        }
        match tokio::fs::remove_file(pid_file(&self.directory)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("cannot remove the pid file", error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
