//! What a private containerd needs of the machine. Every error names the Debian package.

use std::path::{Path, PathBuf};

use runtime::{Error, ErrorKind, Result, Step};

use super::Settings;

/// Where programs are looked for; the same list is containerd's own PATH.
const DIRECTORIES: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Where CNI plugins are looked for: Debian's and upstream's directory.
const PLUGIN_DIRECTORIES: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// The plugins that pods need.
const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// Longest path of a socket (`sockaddr_un`), less what containerd appends for its second one.
const SOCKET_BYTES_MAX: usize = 107 - ".ttrpc".len();

/// Linux' `CAP_SYS_RESOURCE`.
const CAP_SYS_RESOURCE: u32 = 24;

/// Magic number of overlayfs (`statfs(2)`).
const OVERLAYFS: rustix::fs::FsWord = 0x794c_7630;

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) containerd: PathBuf,
    pub(super) ctr: PathBuf,
    pub(super) runc: PathBuf,
    /// Another OCI runtime, which is offered where it is there.
    pub(super) crun: Option<PathBuf>,
    pub(super) setsid: PathBuf,
    /// For taking the bridge away; it stays without.
    pub(super) ip: Option<PathBuf>,
    pub(super) plugins: PathBuf,
    pub(super) snapshotter: &'static str,
    pub(super) restrict_oom_score: bool,
    pub(super) portmap_backend: Option<&'static str>,
}

/// `PATH` for containerd and what it starts.
pub(super) fn path() -> String {
    DIRECTORIES.join(":")
}

/// Finds everything or says what to install.
pub(super) fn check(settings: &Settings) -> Result<Programs> {
    if !rustix::process::geteuid().is_root() {
        return Err(absent(
            "running containers needs root; run keelson as root, or with --runtime simulated",
        ));
    }
    let socket = settings.socket();
    if socket.as_os_str().len() > SOCKET_BYTES_MAX {
        let path = socket.display();
        return Err(absent(format!(
            "the path {path} is too long for a socket ({SOCKET_BYTES_MAX} bytes); choose a shorter data directory"
        )));
    }
    let containerd = program("containerd", "containerd")?;
    let runc = program("runc", "runc")?;
    let ctr = program("ctr", "containerd")?;
    let setsid = program("setsid", "util-linux")?;
    let plugins = PLUGIN_DIRECTORIES
        .iter()
        .map(Path::new)
        .find(|directory| PLUGINS.iter().all(|plugin| directory.join(plugin).exists()))
        .ok_or_else(|| {
            absent(install(
                "the CNI plugins bridge, host-local, loopback and portmap",
                "containernetworking-plugins",
            ))
        })?;
    Ok(Programs {
        containerd,
        ctr,
        runc,
        crun: find("crun"),
        setsid,
        ip: find("ip"),
        plugins: plugins.to_owned(),
        snapshotter: snapshotter(&settings.directory),
        restrict_oom_score: !may_lower_oom_score(),
        portmap_backend: portmap_backend(settings, plugins)?,
    })
}

fn program(name: &str, package: &str) -> Result<PathBuf> {
    find(name).ok_or_else(|| absent(install(name, package)))
}

fn find(name: &str) -> Option<PathBuf> {
    DIRECTORIES.iter().map(|directory| Path::new(directory).join(name)).find(|path| path.is_file())
}

fn install(what: &str, package: &str) -> String {
    format!("{what} not found; install the package {package} (apt-get install {package})")
}

fn absent(message: impl Into<String>) -> Error {
    Error::new(Step::Prepare, "containerd", ErrorKind::Missing, message)
}

/// Plugins before 1.6 need the program iptables for host ports (which on nftables-only machines is the
/// nft variant of Debian's package iptables); newer ones can be told to use nftables.
fn portmap_backend(settings: &Settings, plugins: &Path) -> Result<Option<&'static str>> {
    if find("iptables").is_some() {
        return Ok(None);
    }
    let said = std::process::Command::new(plugins.join("portmap")).arg("--version").output();
    let text = said.map(|said| [said.stdout, said.stderr].concat()).unwrap_or_default();
    let nftables = plugin_version(&String::from_utf8_lossy(&text)).is_some_and(|version| version >= (1, 6));
    if !nftables || settings.ip_masquerade {
        return Err(absent(install("iptables, which these CNI plugins need,", "iptables")));
    }
    Ok(Some("nftables"))
}

/// Major and minor version from `CNI portmap plugin v1.1.1`.
fn plugin_version(text: &str) -> Option<(u32, u32)> {
    let version = text.split_whitespace().find_map(|word| word.strip_prefix('v'))?;
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// overlayfs, unless the kernel has none or the directory is on one already (it cannot be stacked).
fn snapshotter(directory: &Path) -> &'static str {
    let kernel = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let stacked = rustix::fs::statfs(existing).is_ok_and(|found| found.f_type == OVERLAYFS);
    if !stacked && kernel.split_whitespace().any(|word| word == "overlay") { "overlayfs" } else { "native" }
}

/// Whether processes may be protected from the OOM killer. Without the capability, asking for it makes
/// every sandbox fail.
fn may_lower_oom_score() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|set| set >> CAP_SYS_RESOURCE & 1 == 1)
}

#[cfg(test)]
impl Programs {
    /// Nothing but names.
    pub(super) fn for_tests() -> Self {
        Self {
            containerd: "/bin/containerd".into(),
            ctr: "/bin/ctr".into(),
            runc: "/bin/runc".into(),
            crun: None,
            setsid: "/bin/setsid".into(),
            ip: None,
            plugins: "/cni".into(),
            snapshotter: "native",
            restrict_oom_score: false,
            portmap_backend: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_plugins_are_read() {
        assert_eq!(
            plugin_version("CNI portmap plugin v1.1.1\nCNI protocol versions supported: 0.3.0"),
            Some((1, 1))
        );
        assert_eq!(plugin_version("CNI portmap plugin v1.10.0"), Some((1, 10)));
        assert_eq!(plugin_version("unknown"), None);
    }

    #[test]
    fn long_paths_and_missing_programs_say_what_to_do() {
        let error = check(&Settings::new(format!("/tmp/{}", "x".repeat(100)))).unwrap_err();
        assert!(error.message.contains("shorter") || error.message.contains("root"), "{error}");
        let error = program("no-such-program", "some-package").unwrap_err();
        assert!(error.message.contains("apt-get install some-package"), "{error}");
    }
}
