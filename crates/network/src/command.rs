//! Runs `nft`, `conntrack`, `ip` and `bridge`: the one place where the kernel is touched.

use std::{io, process::Stdio, time::Duration};

use serde::de::DeserializeOwned;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

/// Nothing asked of them takes this long; a hung program must not hang what waits for it.
const RUN_MAX: Duration = Duration::from_secs(30);

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not there.
    #[error("{program} was not found: install the package {package}")]
    Missing {
        /// Program.
        program: &'static str,
        /// Package that has it on Debian and Ubuntu.
        package: &'static str,
    },
    /// It could not be run.
    #[error("cannot run {program}")]
    Run {
        /// Program.
        program: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// It did not end in time, and was ended.
    #[error("{program} did not end within {RUN_MAX:?}")]
    Late {
        /// Program.
        program: &'static str,
    },
    /// It refused.
    #[error("{program} failed: {message}")]
    Refused {
        /// Program.
        program: &'static str,
        /// What it said.
        message: String,
    },
    /// What it printed is not what this version of it should print.
    #[error("cannot read the output of {program}")]
    Output {
        /// Program.
        program: &'static str,
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
}

/// The two programs of iproute2 that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route2 {
    /// Devices, addresses, routes, neighbours.
    Ip,
    /// Forwarding entries.
    Bridge,
}

impl Route2 {
    const fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Bridge => "bridge",
        }
    }
}

/// Where programs run: in this network namespace, or behind a prefix such as `ip netns exec NAME`.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    prefix: Vec<String>,
}

impl Commands {
    /// Runs programs as arguments of `prefix`; an empty prefix runs them as they are.
    pub fn behind(prefix: &[&str]) -> Self {
        Self { prefix: prefix.iter().map(|word| (*word).to_owned()).collect() }
    }

    /// Carries out one nftables transaction: all of it or nothing.
    pub async fn nft(&self, script: &str) -> Result<(), CommandError> {
        self.run("nft", "nftables", &["-f", "-"], script).await.map(|_| ())
    }

    /// Runs `conntrack` with these arguments.
    pub async fn conntrack(&self, arguments: &[&str]) -> Result<(), CommandError> {
        match self.run("conntrack", "conntrack", arguments, "").await {
            // Deleting what is not there ends with exit code 1.
            Err(CommandError::Refused { message, .. }) if message.contains("0 flow entries") => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// What a program of iproute2 shows.
    pub(crate) async fn show<T: DeserializeOwned>(
        &self,
        program: Route2,
        arguments: &[&str],
    ) -> Result<Vec<T>, CommandError> {
        let arguments: Vec<&str> = ["-json"].iter().chain(arguments).copied().collect();
        let output = self.run(program.name(), "iproute2", &arguments, "").await?;
        // For nothing it prints nothing at all, depending on the command.
        if output.trim_ascii().is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&output)
            .map_err(|source| CommandError::Output { program: program.name(), source })
    }

    /// Has a program of iproute2 carry out its commands in order, up to the first that it refuses.
    pub(crate) async fn batch(&self, program: Route2, commands: &[String]) -> Result<(), CommandError> {
        if commands.is_empty() {
            return Ok(());
        }
        let input = commands.join("\n") + "\n";
        self.run(program.name(), "iproute2", &["-batch", "-"], &input).await.map(|_| ())
    }

    async fn run(
        &self,
        program: &'static str,
        package: &'static str,
        arguments: &[&str],
        input: &str,
    ) -> Result<Vec<u8>, CommandError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => CommandError::Missing { program, package },
            _ => CommandError::Run { program, source },
        };
        let mut words =
            self.prefix.iter().map(String::as_str).chain([program]).chain(arguments.iter().copied());
        let mut command = Command::new(words.next().unwrap_or(program));
        command
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                stdin.write_all(input.as_bytes()).await?;
            }
            Ok::<(), io::Error>(())
        };
        // It may refuse before it has read everything; what it says then matters more.
        let work = async { tokio::join!(feed, child.wait_with_output()) };
        let (fed, output) = timeout(RUN_MAX, work).await.map_err(|_| CommandError::Late { program })?;
        let output = output.map_err(failed)?;
        if !output.status.success() {
            let mut message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if message.is_empty() {
                message = output.status.to_string();
            }
            return Err(CommandError::Refused { program, message });
        }
        fed.map_err(failed)?;
        Ok(output.stdout)
    }
}
