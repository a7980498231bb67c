//! Starts the server, times it until it is ready, and reads how much memory and processor time processes
//! have.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Method;

use crate::{
    cli::{ProcessOptions, TargetOptions},
    client::Client,
    failure::{Failure, Result, chain},
    target::Target,
};

/// Between two tries: small beside what is measured, not so small that trying is a load.
const TRY_EVERY: Duration = Duration::from_millis(2);
/// A server that does not stop within this is killed.
const STOP: Duration = Duration::from_secs(30);

/// A server that was started here. Dropping it stops it.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Starts the command and waits until `/readyz` answers 200; gives the time that took. The
    /// kubeconfig may be written meanwhile.
    pub(crate) async fn start(
        command: &str,
        process: &ProcessOptions,
        target: &TargetOptions,
    ) -> Result<(Self, Duration)> {
        let begin = Instant::now();
        let mut server = Self::spawn(command)?;
        loop {
            let last = match is_ready(target).await {
                Ok(()) => return Ok((server, begin.elapsed())),
                Err(failure) => chain(&failure),
            };
            if begin.elapsed() > Duration::from_secs(process.ready_seconds) {
                return Err(Failure::NotReady { seconds: process.ready_seconds, last });
            }
            server.must_run()?;
            tokio::time::sleep(TRY_EVERY).await;
        }
    }

    /// Starts the command in a process group of its own and waits for nothing.
    pub(crate) fn spawn(command: &str) -> Result<Self> {
        let child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| Failure::Spawn { command: command.to_owned(), source })?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the process has ended.
    pub(crate) fn must_run(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(Failure::Ended(status)),
            // A process that cannot be asked is found to be gone by whoever asks it for something.
            Ok(None) | Err(_) => Ok(()),
        }
    }
}

async fn is_ready(options: &TargetOptions) -> Result<()> {
    let target = Target::read(options)?;
    let client = Client::connect(&target, 1).await?;
    client.call(0, Method::GET, "/readyz", Bytes::new()).await.map(|_| ())
}

impl Drop for Server {
    /// Stops the whole group that the command made: gently, then not.
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let begin = Instant::now();
        signal("-TERM", &group);
        while begin.elapsed() < STOP {
            // Reaps the shell; what it started may outlive it, so the whole group must be gone.
            let reaped = !matches!(self.child.try_wait(), Ok(None));
            if reaped && !signal("-0", &group) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("warning: the server did not stop within {} s and is killed", STOP.as_secs());
        signal("-KILL", &group);
        if let Err(error) = self.child.wait() {
            eprintln!("warning: wait for the server: {error}");
        }
    }
}

/// Sends a signal to a process group; whether there is one.
fn signal(name: &str, group: &str) -> bool {
    let status = Command::new("kill").args([name, "--", group]).stderr(Stdio::null()).status();
    status.inspect_err(|error| eprintln!("warning: run kill: {error}")).is_ok_and(|status| status.success())
}

/// Resident memory of these processes and all their descendants, in MB (2^20 bytes).
pub(crate) fn memory_mb(pids: &[u32]) -> Result<f64> {
    let all = family(pids, "read the memory of")?;
    let kb: u64 = all.into_iter().filter_map(|pid| status(pid, "VmRSS:")).sum();
    Ok(kb as f64 / 1024.0)
}

/// Processor time that these processes and their present descendants have used, in seconds.
pub(crate) fn cpu_seconds(pids: &[u32]) -> Result<f64> {
    let all = family(pids, "read the processor time of")?;
    Ok(all.into_iter().filter_map(ticks).sum::<u64>() as f64 / TICKS)
}

/// The unit of `/proc/PID/stat`: `USER_HZ`, which Linux has fixed for programs.
const TICKS: f64 = 100.0;

/// User and system time of all threads of a process, those that have ended included.
fn ticks(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last parenthesis may hold anything; after it come state (3) to utime (14), stime.
    let (_, fields) = text.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    Some(times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?)
}

/// The machine's load averages, as `uptime` prints them.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// These processes and all their descendants.
fn family(pids: &[u32], doing: &'static str) -> Result<BTreeSet<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        // A process may end between being listed and being read.
        if let Some(pid) = pid
            && let Some(parent) = status(pid, "PPid:")
        {
            children.entry(u32::try_from(parent).unwrap_or(0)).or_default().push(pid);
        }
    }
    for &pid in pids {
        if status(pid, "PPid:").is_none() {
            return Err(Failure::Process { doing, pid, why: "there is no such process".into() });
        }
    }
    let mut all: BTreeSet<u32> = BTreeSet::new();
    let mut open: Vec<u32> = pids.to_vec();
    while let Some(pid) = open.pop() {
        if all.insert(pid) {
            open.extend(children.get(&pid).into_iter().flatten());
        }
    }
    Ok(all)
}

fn status(pid: u32, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_time_of_this_process() {
        assert!(memory_mb(&[std::process::id()]).unwrap() > 0.5);
        assert!(memory_mb(&[u32::MAX]).is_err());
        let before = cpu_seconds(&[std::process::id()]).unwrap();
        while cpu_seconds(&[std::process::id()]).unwrap() <= before {
            std::hint::spin_loop();
        }
        assert!(cpu_seconds(&[u32::MAX]).is_err());
    }
}
