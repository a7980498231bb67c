//! `keelson down`: ends what `up` and its containers left running; keeps the data.

use std::time::Duration;

use runtime_containerd::private::Origin;
use rustix::process::{Signal, kill_process};

use crate::{cli::DownOptions, data_dir::DataDir, error::Failure, term};

/// How long the program may take to end after SIGTERM; draining is bounded by less.
const END_WAIT: Duration = Duration::from_secs(40);
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(50);
/// How long a container may take to end by itself.
const GRACE: Duration = Duration::from_secs(30);

pub(crate) async fn down(options: DownOptions) -> Result<(), Failure> {
    let data = DataDir::locate(&options.data)?;
    if !data.path().exists() {
        term::line(&format!("nothing runs: there is no cluster in {}", data.path().display()));
        return Ok(());
    }
    let mut ran = false;
    if let Some(pid) = data.running() {
        ran = true;
        kill_process(pid, Signal::TERM).map_err(|error| Failure::of("stop the running keelson", error))?;
        let ended = tokio::time::timeout(END_WAIT, async {
            while data.running().is_some() {
                tokio::time::sleep(LOOK).await;
            }
        });
        ended.await.map_err(|_| {
            Failure::new(format!("keelson (process {}) did not end", pid.as_raw_nonzero()))
                .advise("look at its log; `kill -9` loses nothing that was acknowledged")
        })?;
        term::line("keelson stopped");
    }
    if data.containerd().exists() && rustix::process::geteuid().is_root() {
        let settings = crate::up::settings(&data);
        let private = runtime_containerd::private::Private::start(settings)
            .await
            .map_err(|error| Failure::of("reach containerd", error))?;
        // Containers can outlive a containerd that was killed, so that one is started to end them.
        ran |= private.origin() == Origin::Adopted;
        private.stop(GRACE).await.map_err(|error| Failure::of("stop pods", error))?;
        let host = node::host::System::new(data.node(), data.volumes());
        host.unmount().await.map_err(|error| Failure::of("unmount pods' volumes", error))?;
        network::remove().await.map_err(|error| Failure::of("remove network rules", error))?;
        network::remove_overlay(&network::Commands::default())
            .await
            .map_err(|error| Failure::of("remove the device to other nodes", error))?;
        if ran {
            term::line("pods and containerd stopped");
            term::line("network rules removed");
        }
    }
    if !ran {
        term::line("nothing ran");
    }
    term::line(&format!("data stays in {}", data.path().display()));
    Ok(())
}
