//! containerd's configuration file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use runtime::{Error, ErrorKind, Result, Step};

use super::{Settings, handlers, missing::Programs};
use crate::pause;

/// Writes the file and the directories that it names. Whether the file is another one than before.
pub(super) async fn write(
    settings: &Settings,
    programs: &Programs,
    handlers: &BTreeMap<String, PathBuf>,
) -> Result<bool> {
    let directory = &settings.directory;
    for part in ["root", "state", "cni/net.d", "cni/ipam", "certs.d"] {
        let path = directory.join(part);
        tokio::fs::create_dir_all(&path).await.map_err(|error| failed(&path, error))?;
    }
    let path = directory.join("config.toml");
    let wanted = text(settings, programs, handlers);
    let found = match tokio::fs::read_to_string(&path).await {
        Ok(found) => Some(found),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(&path, error)),
    };
    let changed = found.as_ref().is_some_and(|found| *found != wanted);
    if found.as_ref() != Some(&wanted) {
        tokio::fs::write(&path, wanted).await.map_err(|error| failed(&path, error))?;
    }
    Ok(changed)
}

pub(super) fn failed(path: &Path, error: std::io::Error) -> Error {
    let message = format!("cannot write {}: {error}", path.display());
    Error::new(Step::Prepare, "containerd", ErrorKind::Internal, message).with_source(error)
}

/// Version 2 of the format, which containerd 1.3 to 2 read.
fn text(settings: &Settings, programs: &Programs, handlers: &BTreeMap<String, PathBuf>) -> String {
    let directory = settings.directory.display();
    let Programs { plugins, snapshotter, restrict_oom_score, .. } = programs;
    let (plugins, socket) = (plugins.display(), settings.socket());
    let socket = socket.display();
    let (pause, default) = (pause::NAME, handlers::DEFAULT);
    let runtimes: String = handlers.iter().map(|(name, binary)| runtime(name, binary)).collect();
    format!(
        r#"# Written by keelson at every start; changes are lost.
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = {restrict_oom_score}
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "{default}"
{runtimes}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{directory}/cni/net.d"
    max_conf_num = 1

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{directory}/certs.d"
"#
    )
}

/// A runtime handler: runc's shim runs every program with runc's command line.
fn runtime(name: &str, binary: &Path) -> String {
    let binary = binary.to_string_lossy().replace('\\', r"\\").replace('"', "\\\"");
    format!(
        r#"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}.options]
        BinaryName = "{binary}"
        SystemdCgroup = false
"#
    )
}
