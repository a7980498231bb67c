//! A `keelson up` of the test's own: temporary directory, free port and, on containerd, a network namespace
//! made for it, so that nothing of the machine's network is touched.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long anything may take that a test waits for. Machines are shared; this is no measure of speed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// What must be left of the disk for a node to take pods.
pub(crate) const ROOM: &str = "nodefs.available<64Mi,nodefs.inodesFree<1k";

/// Which runtime a cluster has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    Containerd,
    Simulated,
}

pub(crate) struct Cluster {
    directory: TempDir,
    runtime: Runtime,
    namespace: Option<NetworkNamespace>,
    listen: String,
    arguments: Vec<String>,
    program: Option<Program>,
    said: String,
}

/// A keelson that runs until it is told to stop.
pub(crate) struct Program {
    process: Child,
    output: Arc<Mutex<String>>,
}

impl Program {
    /// Starts it, and waits until it says `ready`.
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let output = Arc::<Mutex<String>>::default();
        let stderr = process.stderr.take().unwrap();
        let log = output.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                log.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| {
            output.lock().unwrap().push_str(&format!("{line}\n"));
            line.starts_with("ready")
        });
        let this = Self { process, output: output.clone() };
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                output.lock().unwrap().push_str(&format!("{line}\n"));
            }
        });
        assert!(ready, "keelson ended before it was ready:\n{}", this.said());
        this
    }

    pub(crate) fn said(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }

    /// Ctrl-C, and waits; the exit code.
    fn stop(&mut self) -> i32 {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        self.process.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Cluster {
    /// Starts a cluster and waits until it says `ready`.
    pub(crate) fn up(runtime: Runtime, arguments: &[&str]) -> Self {
        let namespace = (runtime == Runtime::Containerd).then(NetworkNamespace::new);
        Self::start_in(runtime, namespace, "127.0.0.1:0", arguments)
    }

    /// The same, with containers, at an address of this network.
    pub(crate) fn up_at(listen: &str, namespace: NetworkNamespace, arguments: &[&str]) -> Self {
        Self::start_in(Runtime::Containerd, Some(namespace), listen, arguments)
    }

    fn start_in(
        runtime: Runtime,
        namespace: Option<NetworkNamespace>,
        listen: &str,
        arguments: &[&str],
    ) -> Self {
        let directory = tempfile::Builder::new().prefix("kl").tempdir_in("/tmp").unwrap();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let (listen, said) = (listen.to_owned(), String::new());
        let mut cluster = Self { directory, runtime, namespace, listen, arguments, program: None, said };
        cluster.start();
        cluster
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The file that stands for the cluster's network, where it has one of its own.
    pub(crate) fn network(&self) -> Option<PathBuf> {
        self.namespace.as_ref().map(NetworkNamespace::file)
    }

    /// A command inside the cluster's network.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        match &self.namespace {
            Some(namespace) => namespace.command(program.as_ref()),
            None => Command::new(program.as_ref()),
        }
    }

    /// Starts (again) and waits for `ready`.
    pub(crate) fn start(&mut self) {
        let runtime = match self.runtime {
            Runtime::Containerd => "containerd",
            Runtime::Simulated => "simulated",
        };
        let mut command = self.command(env!("CARGO_BIN_EXE_keelson"));
        command
            .args(["up", "--listen", &self.listen, "--log-level", "info", "--runtime", runtime])
            // Whatever else fills the machine's disk.
            .args(["--eviction-hard", ROOM, "--data-dir"])
            .arg(self.data_dir())
            .args(&self.arguments);
        if !self.arguments.iter().any(|argument| argument == "--registries") {
            // There is no network in which to wait for one.
            command.args(["--registries", "off"]);
        }
        self.program = Some(Program::start(command));
    }

    /// What the program printed since its last start.
    pub(crate) fn said(&self) -> String {
        self.program.as_ref().map_or_else(|| self.said.clone(), Program::said)
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut program = self.program.take().unwrap();
        program.kill();
        self.said = program.said();
    }

    /// Ctrl-C, and waits; the exit code.
    pub(crate) fn stop(&mut self) -> i32 {
        let mut program = self.program.take().unwrap();
        let code = program.stop();
        self.said = program.said();
        code
    }

    /// `keelson down`, which must succeed.
    pub(crate) fn down(&self) {
        let mut command = self.command(env!("CARGO_BIN_EXE_keelson"));
        let output = command.args(["down", "--data-dir"]).arg(self.data_dir()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs `keelson` on this cluster's data directory and returns what it printed.
    pub(crate) fn keelson(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_keelson"));
        command.args(arguments).arg("--data-dir").arg(self.data_dir()).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs kubectl and returns what it printed, whether or not it succeeded.
    pub(crate) fn try_kubectl(&self, arguments: &[&str]) -> Output {
        let mut command = self.command("kubectl");
        command.arg("--kubeconfig").arg(self.data_dir().join("admin.kubeconfig")).args(arguments);
        command.env("HOME", self.directory.path()).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs kubectl, which must succeed; its standard output.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "kubectl {arguments:?}:\n{text}\n{errors}\nkeelson said:\n{}",
            self.said()
        );
        text
    }

    /// Applies a manifest given as text.
    pub(crate) fn apply(&self, manifest: &str) -> String {
        self.kubectl(&["apply", "-f", self.file(manifest).to_str().unwrap()])
    }

    /// Applies a manifest that must be refused; what kubectl says.
    pub(crate) fn refuse(&self, manifest: &str) -> String {
        let output = self.try_kubectl(&["apply", "-f", self.file(manifest).to_str().unwrap()]);
        assert!(!output.status.success(), "accepted:\n{manifest}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn file(&self, manifest: &str) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("manifest-{}.yaml", NEXT.fetch_add(1, Ordering::Relaxed));
        let path = self.directory.path().join(name);
        fs::write(&path, manifest).unwrap();
        path
    }

    /// Loads a test image into the cluster's containerd.
    pub(crate) fn load_image(&self, name: &str) {
        let archive = images().join(format!("{name}.tar"));
        let output = self
            .command(env!("CARGO_BIN_EXE_keelson"))
            .args(["image", "load", "--data-dir"])
            .arg(self.data_dir())
            .arg(&archive)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "load {}: {}",
            archive.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Asks until the answer is as wanted.
    pub(crate) fn eventually<T>(&self, what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
        let began = Instant::now();
        loop {
            match ask() {
                Ok(answer) => return answer,
                Err(why) if began.elapsed() > PATIENCE => {
                    panic!("{what}: {why}\n{}\nkeelson said:\n{}", self.picture(), self.said())
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// What there is, for a failure's message.
    pub(crate) fn picture(&self) -> String {
        let get =
            |arguments: &[&str]| String::from_utf8_lossy(&self.try_kubectl(arguments).stdout).into_owned();
        let pods = get(&["get", "pods,pvc,pv,svc,statefulsets,databases", "-A", "-o", "wide"]);
        format!("{pods}\n{}", get(&["get", "events", "-A"]))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.program.take());
        if self.runtime == Runtime::Containerd {
            let mut command = self.command(env!("CARGO_BIN_EXE_keelson"));
            drop(command.args(["down", "--data-dir"]).arg(self.data_dir()).output());
        }
    }
}

/// Test images, built when they are not there.
pub(crate) fn images() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let directory =
        std::env::var_os("KEELSON_IMAGE_DIR").map_or_else(|| root.join("target/images"), PathBuf::from);
    static BUILT: std::sync::Once = std::sync::Once::new();
    BUILT.call_once(|| {
        let script = root.join("images/build.sh");
        let output = Command::new(script).env("KEELSON_IMAGE_DIR", &directory).output().unwrap();
        assert!(output.status.success(), "build test images: {}", String::from_utf8_lossy(&output.stderr));
    });
    directory
}

/// A network namespace of the test's own, gone with it.
pub(crate) struct NetworkNamespace {
    name: String,
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap_or_else(|error| {
        panic!("ip (package iproute2) does not start: {error}");
    });
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {arguments} (the test runs as root): {said}");
    String::from_utf8(output.stdout).unwrap()
}

impl NetworkNamespace {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("kl-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        Self { name }
    }

    /// Two machines with a cable between them, at 192.0.2.1 and 192.0.2.2.
    pub(crate) fn pair() -> [Self; 2] {
        let [one, two] = [Self::new(), Self::new()];
        ip(&format!("-n {} link add eth0 type veth peer name eth0 netns {}", one.name, two.name));
        for (namespace, host) in [(&one, 1), (&two, 2)] {
            namespace.ip(&format!("address add 192.0.2.{host}/24 dev eth0"));
            namespace.ip("link set eth0 up");
        }
        [one, two]
    }

    /// What `ip` says in it.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.name))
    }

    fn file(&self) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}", self.name))
    }

    /// Only the network: `ip netns exec` would also hide the machine's cgroups.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.file().display())).arg("--").arg(program);
        command
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["netns", "delete", &self.name]).output());
    }
}
