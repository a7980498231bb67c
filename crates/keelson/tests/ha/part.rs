//! One process of a cluster.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// How long anything may take that a test waits for. Machines are shared; this is no measure of speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

pub(crate) struct Part {
    process: Option<Child>,
    said: Arc<Mutex<String>>,
}

/// The program with these arguments, and nothing of the environment that would change them.
pub(crate) fn keelson(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keelson"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KEELSON_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn finish(arguments: &[&str]) -> Output {
    keelson(arguments).output().unwrap()
}

/// Runs it to its end, which must be a good one; what it printed.
pub(crate) fn succeed(arguments: &[&str]) -> String {
    let output = finish(arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

impl Part {
    /// Starts it and waits until it says `ready`.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::begin(keelson(arguments), arguments)
    }

    /// The same in a network namespace.
    pub(crate) fn start_in(namespace: &str, arguments: &[&str]) -> Self {
        let command = keelson(arguments);
        let mut within = Command::new("nsenter");
        within.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(command.get_program());
        within.args(command.get_args()).stdin(Stdio::null());
        for (name, _) in command.get_envs() {
            within.env_remove(name);
        }
        Self::begin(within, arguments)
    }

    fn begin(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said: Arc<Mutex<String>> = Arc::default();
        let keep = |from: Box<dyn std::io::Read + Send>| {
            let said = said.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(from).lines().map_while(Result::ok) {
                    said.lock().unwrap().push_str(&format!("{line}\n"));
                }
            });
        };
        keep(Box::new(child.stdout.take().unwrap()));
        keep(Box::new(child.stderr.take().unwrap()));
        let mut part = Self { process: Some(child), said };
        let began = Instant::now();
        while !part.says("ready") {
            let ended = part.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{arguments:?} ended: {}", part.said());
            assert!(began.elapsed() < PATIENCE, "{arguments:?} is not ready: {}", part.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        part
    }

    /// Whether a line begins so.
    pub(crate) fn says(&self, begin: &str) -> bool {
        self.said.lock().unwrap().lines().any(|line| line.starts_with(begin))
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Of an API server: where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        let said = self.said();
        let ready = said.lines().find(|line| line.starts_with("ready")).unwrap();
        ready.rsplit_once("https://").unwrap().1.parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// SIGTERM, and waits; the exit code.
    pub(crate) fn stop(&mut self) -> i32 {
        self.signal("-TERM");
        self.process.take().unwrap().wait().unwrap().code().unwrap_or(-1)
    }

    /// Waits for it to end by itself; the exit code.
    pub(crate) fn ended(&mut self) -> i32 {
        let mut process = self.process.take().unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            if began.elapsed() > PATIENCE {
                drop(process.kill());
                panic!("it goes on: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// Asks until the answer is as wanted.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) if began.elapsed() > PATIENCE => panic!("{what}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// kubectl, which may fail.
pub(crate) fn try_kubectl(kubeconfig: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(kubeconfig).args(arguments).stdin(Stdio::null());
    let output = command.env("HOME", kubeconfig.parent().unwrap()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(said) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// kubectl, which must succeed.
pub(crate) fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> String {
    try_kubectl(kubeconfig, arguments).unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
}
