//! Real servers for the tests, each in a directory of its own on a free port of loopback, stopped and
//! removed when the test or its whole process ends, however it ends.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod redundant;
pub(crate) mod wire;

use std::{
    fs,
    io::Write as _,
    net::{TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use meta::Seeded;
use store_postgres::{Config, Fault, PostgresStore};
use tempfile::TempDir;
use tokio_postgres::NoTls;

pub(crate) const PASSWORD: &str = "hunter2";

/// Where Debian and Ubuntu put the programs, the newest first; else the path.
fn program(name: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}

/// A file that the servers can read and others cannot.
pub(crate) fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
    if fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        // The group that they run with.
        std::os::unix::fs::chown(path, None, Some(65534)).unwrap();
    } else {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// As a user that is not root, which PostgreSQL does not run as.
fn unprivileged(program: &Path) -> Command {
    if !fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
    command
}

/// A process that is gone already is as good as signalled.
fn signal(signal: &str, pid: u32) {
    Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status().unwrap();
}

fn children(parent: u32) -> Vec<u32> {
    let child_of = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // After the name, which is in parentheses: state, then parent.
        let found: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        (found == parent).then_some(pid)
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(child_of).collect()
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} took too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A directory whose servers are killed and which is removed when this process ends: the watchdog's
/// standard input ends then.
struct Home {
    directory: PathBuf,
    _watchdog: Child,
}

impl Home {
    /// In memory where that is possible: these tests are about processes that die, not machines.
    fn new(in_memory: bool) -> Self {
        let memory = Path::new("/dev/shm");
        let directory = match in_memory && memory.is_dir() {
            true => TempDir::with_prefix_in("keelson-store-", memory),
            false => TempDir::with_prefix("keelson-store-"),
        };
        let directory = directory.unwrap().keep();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        let watch = r#"
            read -r _
            for file in "$1"/data/postmaster.pid "$1"/redis.pid; do
                [ -f "$file" ] || continue
                pid=$(head -1 "$file")
                # Redis leaves QUIT to what it was started with, which ignores it where that ran in the background.
                case $file in */redis.pid) signal=KILL ;; *) signal=QUIT ;; esac
                [ "$(readlink "/proc/$pid/cwd")" = "${file%/*}" ] && kill -"$signal" "$pid" 2>/dev/null
            done
            mountpoint -q "$1"/data && umount -l "$1"/data
            for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$1" 2>/dev/null && break; sleep 0.2; done
        "#;
        let watchdog = Command::new("sh")
            .args(["-c", watch, "watchdog"])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { directory, _watchdog: watchdog }
    }
}

/// A PostgreSQL server.
pub(crate) struct Postgres {
    home: Home,
    pub(crate) port: u16,
    server: Mutex<Option<Child>>,
    databases: Mutex<Vec<String>>,
    next: AtomicU32,
    settings: Vec<String>,
}

impl Postgres {
    /// On the disk, or in memory where a test makes so many commits that their syncs would be most of it.
    pub(crate) fn start(in_memory: bool) -> Self {
        Self::with(in_memory, |_| Vec::new())
    }

    /// With more settings, made once there is a directory, which the server can read.
    pub(crate) fn with(in_memory: bool, settings: impl FnOnce(&Path) -> Vec<String>) -> Self {
        Self::at(Home::new(in_memory), settings)
    }

    /// All of it, its log of writes as well, on a file system of so many megabytes. Needs root. What it has
    /// it keeps: nothing is freed meanwhile by a checkpoint or vacuum.
    pub(crate) fn on_small_disk(megabytes: u32) -> Self {
        let home = Home::new(true);
        let data = home.directory.join("data");
        fs::create_dir(&data).unwrap();
        let options = format!("size={megabytes}m,uid=65534,gid=65534,mode=700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&data).output().unwrap();
        let errors = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "mount: {errors} (this test runs as root)");
        let keeps = ["autovacuum=off", "checkpoint_timeout=1h", "max_wal_size=2GB"];
        Self::at(home, |_| keeps.map(str::to_owned).into())
    }

    /// Takes all the space that is left where the data is.
    pub(crate) fn fill_disk(&self) {
        let mut file = fs::File::create(self.data().join("filler")).unwrap();
        let zeros = vec![0; 1 << 16];
        let full = loop {
            if let Err(error) = file.write(&zeros) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    }

    /// Gives it back.
    pub(crate) fn free_disk(&self) {
        fs::remove_file(self.data().join("filler")).unwrap();
    }

    fn at(home: Home, settings: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let secret = home.directory.join("secret");
        fs::write(&secret, PASSWORD).unwrap();
        let made = unprivileged(&program("initdb"))
            .args([
                "-N",
                "-E",
                "UTF8",
                "--no-locale",
                "-U",
                "admin",
                "--auth-host=password",
                "--auth-local=scram-sha-256",
            ])
            .arg(format!("--pwfile={}", secret.display()))
            .arg("-D")
            .arg(home.directory.join("data"))
            .current_dir("/")
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (server, databases) = Default::default();
        let settings = settings(&home.directory);
        let it = Self { home, port: free_port(), server, databases, next: AtomicU32::new(0), settings };
        it.resume();
        it
    }

    fn data(&self) -> PathBuf {
        self.home.directory.join("data")
    }

    /// Starts it again after [`Postgres::kill`].
    pub(crate) fn resume(&self) {
        let log = self.home.directory.join("log");
        let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = unprivileged(&program("postgres"))
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=on"])
            .args(["-c", "max_connections=200", "-c", "shared_buffers=64MB"])
            .args(self.settings.iter().flat_map(|setting| ["-c", setting]))
            .arg("-c")
            .arg(format!("unix_socket_directories={}", self.home.directory.display()))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = child.id().to_string();
        *self.server.lock().unwrap() = Some(child);
        wait_for("the start of PostgreSQL", || {
            let shown = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            shown.lines().next() == Some(&pid) && shown.contains("ready")
        });
    }

    /// `kill -9` of the server and all of its processes.
    pub(crate) fn kill(&self) {
        let Some(mut child) = self.server.lock().unwrap().take() else { return };
        // Stopped first, so that it makes no more of them. They have sessions of their own.
        signal("-STOP", child.id());
        let backends = children(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        for backend in &backends {
            signal("-KILL", *backend);
        }
        let alive = |pid: &u32| Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok();
        wait_for("the end of the backends", || !backends.iter().any(alive));
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://admin:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    pub(crate) fn socket_url(&self, database: &str) -> String {
        let socket = self.home.directory.display().to_string().replace('/', "%2F");
        format!("postgres://admin:{PASSWORD}@{socket}:{}/{database}", self.port)
    }

    /// An empty database: a new one, or one that a test has handed back.
    pub(crate) fn database(&self) -> String {
        if let Some(used) = self.databases.lock().unwrap().pop() {
            self.sql(&used, "DROP SCHEMA IF EXISTS keelson CASCADE");
            return used;
        }
        let name = format!("t{}", self.next.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    pub(crate) fn hand_back(&self, database: String) {
        self.databases.lock().unwrap().push(database);
    }

    /// Runs statements on a connection of their own; the first column of the rows, as text.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> Vec<String> {
        let (url, sql) = (self.url(database), sql.to_owned());
        // Not on the test's runtime: this is called within and without one.
        let work = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
                let driver = tokio::spawn(connection);
                let rows = client.simple_query(&sql).await.unwrap();
                drop(client);
                driver.await.unwrap().unwrap();
                let first = |row| match row {
                    tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                };
                rows.into_iter().filter_map(first).collect()
            })
        });
        work.join().unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut child) = self.server.lock().unwrap().take() {
            Command::new("kill").args(["-QUIT", &child.id().to_string()]).status().unwrap();
            child.wait().unwrap();
        }
    }
}

/// The server that the tests of one file share.
pub(crate) fn postgres() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start(true))
}

/// A Redis server.
pub(crate) struct Redis {
    home: Home,
    pub(crate) port: u16,
    server: Mutex<Option<Child>>,
    settings: Vec<String>,
    /// What it reads first, and writes what it learns to.
    file: Option<PathBuf>,
}

impl Redis {
    pub(crate) fn start() -> Self {
        Self::with(|_, port| vec!["--port".into(), port.to_string(), "--requirepass".into(), PASSWORD.into()])
    }

    /// With these settings, made once there is a directory, which the server can read, and a port.
    pub(crate) fn with(settings: impl FnOnce(&Path, u16) -> Vec<String>) -> Self {
        let (home, port) = (Home::new(true), free_port());
        let settings = settings(&home.directory, port);
        let it = Self { home, port, server: Mutex::default(), settings, file: None };
        it.resume();
        it
    }

    /// A Sentinel with this configuration.
    pub(crate) fn sentinel(text: &str) -> Self {
        let (home, port) = (Home::new(true), free_port());
        let file = home.directory.join("sentinel.conf");
        fs::write(&file, format!("port {port}\n{text}")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        let it = Self {
            home,
            port,
            server: Mutex::default(),
            settings: vec!["--sentinel".into()],
            file: Some(file),
        };
        it.resume();
        it
    }

    pub(crate) fn resume(&self) {
        let directory = self.home.directory.display().to_string();
        let child = unprivileged(Path::new("redis-server"))
            .args(&self.file)
            .args(["--bind", "127.0.0.1", "--save", "", "--dir", &directory])
            .args(["--pidfile", &format!("{directory}/redis.pid")])
            .args(&self.settings)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        *self.server.lock().unwrap() = Some(child);
        wait_for("the start of Redis", || TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// `kill -9`; nothing was saved.
    pub(crate) fn kill(&self) {
        let Some(mut child) = self.server.lock().unwrap().take() else { return };
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://:{PASSWORD}@127.0.0.1:{}", self.port)
    }

    /// One command, answered.
    pub(crate) fn command(&self, words: &[&str]) {
        let _: redis::Value = self.query(words.iter().map(|word| word.as_bytes()));
    }

    /// One command that answers with words.
    pub(crate) fn ask(&self, words: &[&str]) -> Vec<String> {
        self.query(words.iter().map(|word| word.as_bytes()))
    }

    /// A key's content as Redis would write it to a disk.
    pub(crate) fn dump(&self, key: &str) -> Vec<u8> {
        self.query([&b"DUMP"[..], key.as_bytes()])
    }

    /// Puts back what [`Redis::dump`] gave.
    pub(crate) fn restore(&self, key: &str, content: &[u8]) {
        let _: redis::Value = self.query([&b"RESTORE"[..], key.as_bytes(), b"0", content, b"REPLACE"]);
    }

    fn query<'a, T: redis::FromRedisValue>(&self, words: impl IntoIterator<Item = &'a [u8]>) -> T {
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        let mut words = words.into_iter();
        let mut command = redis::cmd(std::str::from_utf8(words.next().unwrap()).unwrap());
        for word in words {
            command.arg(word);
        }
        command.query(&mut connection).unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The Redis that the tests of one file share.
pub(crate) fn redis() -> &'static Redis {
    static SERVER: OnceLock<Redis> = OnceLock::new();
    SERVER.get_or_init(Redis::start)
}

pub(crate) fn config(postgres: &str, redis: Option<&Redis>) -> Config {
    let config = Config::parse(postgres).unwrap();
    match redis {
        Some(redis) => config.with_events(&redis.url()).unwrap(),
        None => config,
    }
}

pub(crate) async fn open(config: Config) -> Result<PostgresStore, Fault> {
    static SEED: AtomicU32 = AtomicU32::new(0);
    let seed = u64::from(SEED.fetch_add(1, Ordering::Relaxed)) + (u64::from(std::process::id()) << 32);
    PostgresStore::open(config, Arc::new(Seeded::new(seed))).await
}

pub(crate) fn run<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(120), task).await.expect("the test hangs")
    })
}
