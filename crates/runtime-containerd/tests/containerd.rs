//! The contract on a real, private containerd: needs root and Debian's packages containerd, runc,
//! containernetworking-plugins and iptables; what is missing fails the test with its package.
//!
//! One containerd for each test, in a directory and with a bridge and an address range of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not know"
)]

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use runtime::{
    Action, ContainerSpec, ErrorKind, Event, PodSandboxSpec, PullPolicy, Runtime, StreamRequest,
    action::{DnsConfig, Mount, PidNamespace, PortMapping, Profile, Protocol, Resources, SecurityContext},
    conformance,
    contract::Streams,
};
use runtime_containerd::private::{Origin, Private, Settings};

const BUSYBOX: &str = "docker.io/library/busybox:1.35";

/// A directory that is taken away even when a test fails, containerd and pods included.
struct Machine {
    directory: tempfile::TempDir,
    number: u8,
}

impl Machine {
    fn new(number: u8) -> Self {
        Self { directory: tempfile::Builder::new().prefix("keelson-").tempdir().unwrap(), number }
    }

    fn settings(&self) -> Settings {
        Settings {
            bridge: format!("keelson-t{}", self.number),
            ..Settings::new(self.directory.path().join("c"))
        }
    }

    async fn start(&self) -> Private {
        let private = Private::start(self.settings()).await.unwrap();
        private.runtime().set_pod_cidr(&format!("10.213.{}.0/24", self.number)).await.unwrap();
        private
    }

    /// Command lines that name our directory: containerd and its shims.
    fn processes(&self) -> Vec<String> {
        let below = self.directory.path().to_string_lossy().into_owned();
        std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path().join("cmdline")).ok())
            .filter(|command| command.contains(&below))
            .collect()
    }

    fn pod(&self, name: &str) -> PodSandboxSpec {
        PodSandboxSpec {
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            name: name.into(),
            hostname: name.into(),
            log_dir: self.directory.path().join("logs").join(name),
            ..PodSandboxSpec::default()
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.directory.path().join("c/containerd.pid"));
        if pid.is_ok() {
            let settings = self.settings();
            let stopping = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime
                    .block_on(async { Private::start(settings).await.unwrap().stop(Duration::ZERO).await })
                    .unwrap();
            });
            if stopping.join().is_err() {
                eprintln!("cannot stop the containerd below {}", self.directory.path().display());
            }
        }
        let left = self.processes();
        assert!(left.is_empty() || std::thread::panicking(), "processes are left: {left:?}");
    }
}

/// The file of an image that `images/build.sh` makes; built at most once, whoever asks.
fn image(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().unwrap().join("../..");
    let output =
        std::env::var_os("KEELSON_IMAGE_DIR").map_or_else(|| root.join("target/images"), PathBuf::from);
    let built =
        Command::new(root.join("images/build.sh")).arg("--output").arg(&output).arg(name).status().unwrap();
    assert!(built.success(), "images/build.sh {name} failed");
    output.join(format!("{name}.tar"))
}

async fn run(
    runtime: &dyn Runtime,
    pod: &PodSandboxSpec,
    image: &str,
    change: impl FnOnce(&mut ContainerSpec),
) -> (String, String) {
    let pull = Action::PullImage { image: image.into(), policy: PullPolicy::Never, credentials: None };
    let mut spec = ContainerSpec {
        name: "main".into(),
        image: runtime.act(&pull).await.unwrap().id().to_owned(),
        image_name: image.into(),
        log_path: "main/0.log".into(),
        ..ContainerSpec::default()
    };
    change(&mut spec);
    let sandbox = runtime.act(&Action::CreateSandbox(Box::new(pod.clone()))).await.unwrap().id().to_owned();
    let create = Action::CreateContainer {
        sandbox: sandbox.clone(),
        pod: Box::new(pod.clone()),
        spec: Box::new(spec),
    };
    let id = runtime.act(&create).await.unwrap().id().to_owned();
    runtime.act(&Action::StartContainer { id: id.clone() }).await.unwrap();
    (sandbox, id)
}

fn shell(script: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), script.into()]
}

/// Asks for an upgraded connection; all that is said until `output` comes or, without any, the headers end.
fn upgraded(url: &str, upgrade: &str, output: &str) -> String {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n{key}\r\nUpgrade: {upgrade}\r\n\r\n"
    );
    let method = if upgrade.starts_with("websocket") { "GET" } else { "POST" };
    stream.write_all(request.replacen("POST", method, 1).as_bytes()).unwrap();
    let (mut said, mut buffer) = (String::new(), [0; 1024]);
    while !said.contains("\r\n\r\n") || !said.contains(output) {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "closed after: {said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    said
}

async fn log(runtime: &dyn Runtime, id: &str) -> String {
    match runtime.log(id).await.unwrap() {
        runtime::log::Log::File(path) => std::fs::read_to_string(path).unwrap(),
        runtime::log::Log::Lines(lines) => panic!("not a file: {lines:?}"),
    }
}

/// Asks again until a command in a container succeeds: databases take a moment to start.
async fn until_said(runtime: &dyn Runtime, id: &str, script: &str) -> String {
    let asking = async {
        loop {
            match runtime.exec_sync(id, &shell(script), Duration::from_secs(10)).await {
                Ok(said) if said.exit_code == 0 => {
                    return String::from_utf8_lossy(&said.stdout).trim().to_owned();
                }
                Ok(_) => {}
                Err(error) => panic!("{error}\n{}", log(runtime, id).await),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), asking)
        .await
        .unwrap_or_else(|_| panic!("never succeeds: {script}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn conformance_on_containerd() {
    let machine = Machine::new(1);
    let private = machine.start().await;
    assert_eq!(private.origin(), Origin::Started);
    let names = private.load_image(&image("busybox")).await.unwrap();
    assert!(names.contains(&BUSYBOX.to_owned()), "{names:?}");
    let environment = conformance::Environment {
        runtime: Arc::new(private.runtime()),
        image: BUSYBOX.into(),
        missing_image: "missing.invalid/x:1".into(),
        log_dir: machine.directory.path().join("logs"),
        cgroup_parent: String::new(),
        real: true,
    };
    conformance::run(&environment).await.unwrap_or_else(|failures| panic!("{failures}"));
    private.stop(Duration::ZERO).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_us_and_containerd_and_end_with_stop() {
    let machine = Machine::new(2);
    let (first, beside) = tokio::join!(machine.start(), machine.start());
    assert_ne!(first.origin(), beside.origin(), "one starts it, the other adopts it");
    drop(beside);
    first.load_image(&image("busybox")).await.unwrap();
    let pod = machine.pod("lasting");
    let (_, id) = run(&first.runtime(), &pod, BUSYBOX, |spec| spec.command = shell("exec sleep 1000")).await;
    let before = first.runtime().observe_pod(&pod.uid).await.unwrap().unwrap();
    drop(first);

    let second = machine.start().await;
    assert_eq!(second.origin(), Origin::Adopted);
    let after = second.runtime().observe_pod(&pod.uid).await.unwrap().unwrap();
    assert_eq!(after, before);

    let pid_file = machine.directory.path().join("c/containerd.pid");
    let pid = std::fs::read_to_string(&pid_file).unwrap();
    let runtime = second.runtime();
    let mut events = runtime.events();
    for _ in 0..2 {
        assert_eq!(events.next().await, Some(Event::Lost), "the subscription stands");
    }
    let kill = Command::new("kill").args(["-9", &pid]).status().unwrap();
    assert!(kill.success());
    let supervised = tokio::time::timeout(Duration::from_secs(60), async {
        tokio::select! {
            () = second.supervise() => panic!("nobody ended it"),
            event = events.next() => assert_eq!(event, Some(Event::Lost), "it is back"),
        }
    });
    supervised.await.unwrap();
    assert_ne!(std::fs::read_to_string(&pid_file).unwrap(), pid);
    let after = runtime.observe_pod(&pod.uid).await.unwrap().unwrap();
    assert_eq!(after.container("main").unwrap().state, before.container("main").unwrap().state);
    let said = runtime.exec_sync(&id, &shell("echo alive"), Duration::from_secs(10)).await.unwrap();
    assert_eq!(said.stdout.as_ref(), b"alive\n");

    second.stop(Duration::ZERO).await.unwrap();
    assert!(!pid_file.exists());
    assert!(!Path::new("/sys/class/net/keelson-t2").exists());
    let below = machine.directory.path().to_string_lossy().into_owned();
    assert!(!std::fs::read_to_string("/proc/self/mounts").unwrap().contains(&below));
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_attach_and_port_forward_give_a_loopback_address() {
    let machine = Machine::new(3);
    let private = machine.start().await;
    private.load_image(&image("busybox")).await.unwrap();
    let runtime = private.runtime();
    let pod = machine.pod("streams");
    let (sandbox, container) =
        run(&runtime, &pod, BUSYBOX, |spec| spec.command = shell("exec sleep 1000")).await;
    let streams = Streams { stdout: true, stderr: true, ..Streams::default() };
    for request in [
        StreamRequest::Exec { container: container.clone(), command: shell("echo hi"), streams },
        StreamRequest::Attach { container: container.clone(), streams },
        StreamRequest::PortForward { sandbox, ports: vec![80] },
    ] {
        let url = runtime.stream(&request).await.unwrap().0;
        assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    }

    // what the node passes through: WebSocket as old as v4 works, v5 is refused, so that kubectl falls
    // back to SPDY, which works too
    let request = StreamRequest::Exec { container: container.clone(), command: shell("echo hi"), streams };
    for (upgrade, status, output) in [
        ("websocket\r\nSec-WebSocket-Protocol: v4.channel.k8s.io", "HTTP/1.1 101 ", "\x01hi\n"),
        ("websocket\r\nSec-WebSocket-Protocol: v5.channel.k8s.io", "HTTP/1.1 403 ", ""),
        ("SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io", "HTTP/1.1 101 ", ""),
    ] {
        let url = runtime.stream(&request).await.unwrap().0;
        let said = tokio::task::spawn_blocking(move || upgraded(&url, upgrade, output)).await.unwrap();
        assert!(said.starts_with(status), "{upgrade}: {said}");
    }
    let gone = StreamRequest::Attach { container: "0".repeat(64), streams };
    assert_eq!(runtime.stream(&gone).await.unwrap_err().kind, ErrorKind::NotFound);
    private.stop(Duration::ZERO).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn database_images_behave_as_the_official_ones() {
    let machine = Machine::new(4);
    let private = machine.start().await;
    for name in ["postgres", "redis"] {
        private.load_image(&image(name)).await.unwrap();
    }
    let runtime = private.runtime();

    let (_, id) = run(&runtime, &machine.pod("postgres"), "postgres:15", |spec| {
        spec.env = [("POSTGRES_PASSWORD", "it's secret"), ("POSTGRES_USER", "app"), ("POSTGRES_DB", "shop")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec();
        spec.args = vec!["postgres".into(), "-c".into(), "max_connections=42".into()];
    })
    .await;
    let address = runtime.observe_pod("uid-postgres").await.unwrap().unwrap().sandbox().unwrap().ips[0];
    let psql = |sql: &str| format!("PGPASSWORD=\"it's secret\" psql -h {address} -U app shop -tAc '{sql}'");
    assert_eq!(until_said(&runtime, &id, &psql("show max_connections")).await, "42");
    assert_eq!(until_said(&runtime, &id, &psql("show data_directory")).await, "/var/lib/postgresql/data");
    assert_eq!(until_said(&runtime, &id, "stat -c %u /proc/1").await, "999");
    let refused = format!("PGPASSWORD=wrong psql -h {address} -U app shop -c 'select 1'");
    let said = runtime.exec_sync(&id, &shell(&refused), Duration::from_secs(10)).await.unwrap();
    assert_ne!(said.exit_code, 0, "a wrong password is let in");

    let (_, id) = run(&runtime, &machine.pod("redis"), "redis:7", |spec| {
        spec.args = ["--requirepass", "secret"].map(str::to_owned).to_vec();
    })
    .await;
    assert_eq!(
        until_said(&runtime, &id, "redis-cli -a secret --no-auth-warning ping | grep PONG").await,
        "PONG"
    );
    assert_eq!(until_said(&runtime, &id, "redis-cli ping").await, "NOAUTH Authentication required.");
    assert_eq!(until_said(&runtime, &id, "stat -c %u /proc/1").await, "999");
    private.stop(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn database_images_run_as_their_user_on_a_read_only_root_and_say_what_is_missing() {
    let machine = Machine::new(5);
    let private = machine.start().await;
    for name in ["postgres", "redis"] {
        private.load_image(&image(name)).await.unwrap();
    }
    let runtime = private.runtime();
    let confined = |uid| SecurityContext {
        uid: Some(uid),
        gid: Some(uid),
        read_only_root: true,
        no_new_privileges: true,
        drop_capabilities: vec!["ALL".into()],
        seccomp: Profile::RuntimeDefault,
        ..SecurityContext::default()
    };
    let data = |name: &str, uid: u32| {
        let host_path = machine.directory.path().join(name);
        std::fs::create_dir_all(&host_path).unwrap();
        std::os::unix::fs::chown(&host_path, Some(uid), Some(uid)).unwrap();
        host_path
    };
    let scripts = data("scripts", 0);
    std::fs::write(scripts.join("1.sql"), "create table made (by text); insert into made values ('script');")
        .unwrap();
    std::fs::write(scripts.join("password"), "from a file").unwrap();

    // 999 is the image's postgres, 4711 has no account in it
    for uid in [999, 4711] {
        let name = format!("postgres-{uid}");
        let (_, id) = run(&runtime, &machine.pod(&name), "postgres:15", |spec| {
            spec.security = confined(i64::from(uid));
            spec.env = [
                ("POSTGRES_PASSWORD_FILE", "/docker-entrypoint-initdb.d/password"),
                ("PGDATA", "/var/lib/postgresql/data/pgdata"),
                ("POSTGRES_INITDB_ARGS", "--data-checksums --encoding='UTF8'"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec();
            let mount = |host_path, path: &str, read_only| Mount {
                host_path,
                container_path: path.into(),
                read_only,
                ..Mount::default()
            };
            spec.mounts = vec![
                mount(data(&name, uid), "/var/lib/postgresql/data", false),
                mount(scripts.clone(), "/docker-entrypoint-initdb.d", true),
            ];
        })
        .await;
        let psql = |sql: &str| format!("PGPASSWORD='from a file' psql -h 127.0.0.1 -U postgres -tAc '{sql}'");
        assert_eq!(until_said(&runtime, &id, &psql("select by from made")).await, "script");
        assert_eq!(until_said(&runtime, &id, &psql("show data_checksums")).await, "on");
        assert_eq!(until_said(&runtime, &id, "stat -c %u /proc/1").await, uid.to_string());
    }

    let (_, id) =
        run(&runtime, &machine.pod("redis-999"), "redis:7", |spec| spec.security = confined(999)).await;
    assert_eq!(until_said(&runtime, &id, "redis-cli set a b").await, "OK");
    assert_eq!(until_said(&runtime, &id, "redis-cli config get protected-mode | tail -n 1").await, "no");

    let pod = machine.pod("postgres-empty");
    let mut events = runtime.events();
    let (_, id) = run(&runtime, &pod, "postgres:15", |_| {}).await;
    while runtime.observe_pod(&pod.uid).await.unwrap().unwrap().container("main").unwrap().is_running() {
        events.next().await;
    }
    let seen = runtime.observe_pod(&pod.uid).await.unwrap().unwrap();
    assert_eq!(seen.container("main").unwrap().exit_code(), Some(1));
    assert!(log(&runtime, &id).await.contains("set POSTGRES_PASSWORD"), "{}", log(&runtime, &id).await);
    private.stop(Duration::from_secs(30)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_what_it_asked_for() {
    let machine = Machine::new(6);
    let private = machine.start().await;
    private.load_image(&image("busybox")).await.unwrap();
    let runtime = private.runtime();
    let host_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut pod = machine.pod("asks");
    pod.dns = DnsConfig {
        servers: vec!["10.96.0.10".into()],
        searches: vec!["default.svc.cluster.local".into()],
        options: vec!["ndots:5".into()],
    };
    pod.port_mappings = vec![PortMapping {
        protocol: Protocol::Tcp,
        container_port: 8080,
        host_port,
        host_ip: String::new(),
    }];
    pod.sysctls = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "80".to_owned())].into();
    pod.namespaces.pid = PidNamespace::Pod;
    let shared = machine.directory.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("index.html"), "served").unwrap();
    let (_, id) = run(&runtime, &pod, BUSYBOX, |spec| {
        spec.command = shell("exec httpd -f -p 8080 -h /shared");
        spec.env = vec![("A".into(), "x y".into())];
        spec.working_dir = "/shared".into();
        spec.mounts = vec![Mount {
            host_path: shared.clone(),
            container_path: "/shared".into(),
            read_only: true,
            ..Mount::default()
        }];
        spec.resources = Resources { memory_limit_bytes: 64 << 20, cpu_shares: 512, ..Resources::default() };
        spec.security = SecurityContext {
            uid: Some(1000),
            gid: Some(2000),
            supplemental_groups: vec![3000],
            read_only_root: true,
            no_new_privileges: true,
            drop_capabilities: vec!["ALL".into()],
            seccomp: Profile::RuntimeDefault,
            ..SecurityContext::default()
        };
    })
    .await;
    let sandbox = runtime.observe_pod(&pod.uid).await.unwrap().unwrap().sandbox().unwrap().clone();
    let memory =
        "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
    for (script, expected) in [
        ("hostname", "asks"),
        ("echo $A; pwd", "x y\n/shared"),
        ("id -u; id -g; id -G", "1000\n2000\n2000 3000"),
        (
            "grep -v '^$' /etc/resolv.conf",
            "search default.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5",
        ),
        ("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "80"),
        (
            "touch /x 2>&1; touch /shared/x 2>&1; true",
            "touch: /x: Read-only file system\ntouch: /shared/x: Read-only file system",
        ),
        (
            "sed -n -e 's/^CapEff:\t//p' -e 's/^NoNewPrivs:\t//p' -e 's/^Seccomp:\t//p' /proc/self/status",
            "0000000000000000\n1\n2",
        ),
        // the sandbox's own process is seen: the pod shares its process namespace
        ("cat /proc/1/comm", "pause"),
        (memory, "67108864"),
    ] {
        assert_eq!(until_said(&runtime, &id, script).await, expected, "{script}");
    }

    let other = machine.pod("other");
    let (_, other_id) = run(&runtime, &other, BUSYBOX, |spec| spec.command = shell("exec sleep 1000")).await;
    let fetch = format!("wget -qO- http://{}:8080/", sandbox.ips[0]);
    assert_eq!(until_said(&runtime, &other_id, &fetch).await, "served", "from pod to pod");
    let fetch = format!("wget -qO- http://10.213.{}.1:{host_port}/", machine.number);
    assert_eq!(until_said(&runtime, &other_id, &fetch).await, "served", "through the host's port");
    private.stop(Duration::ZERO).await.unwrap();
}
