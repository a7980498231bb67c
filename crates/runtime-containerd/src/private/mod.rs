//! A containerd of our own: below one directory, configured by us, alive when we are not.
//!
//! Guarantees: it runs in its own session, so that containers outlive this program however it ends; a
//! second [`Private::start`] on the same directory adopts what is alive; nothing outside the directory is
//! written but the bridge, the CNI plugins' records and what runc keeps below `/run`.
//! [`Private::stop`] ends all of it.
//!
//! Deliberately unaware of Services (the network crate's) and of which images there are to load.

mod config;
mod handlers;
mod import;
mod leftovers;
mod missing;
mod network;
mod process;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{StreamExt, future::try_join_all, stream::FuturesUnordered};
use runtime::{Action, Error, ErrorKind, Result, Runtime, Step};
use tokio::sync::{Mutex, watch};

use crate::{Containerd, Registries, pause};
pub use handlers::Handlers;
pub(crate) use network::Network;
use process::Process;

/// What a private containerd is made from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Everything is below here; made when missing. The socket in it must fit into a socket address,
    /// which takes 107 bytes.
    pub directory: PathBuf,
    /// Name of the bridge that pods are attached to; at most 15 characters, one for each directory.
    pub bridge: String,
    /// Whether pods reach the world behind the machine's address (the bridge plugin's iptables rules).
    /// Switch it off where something else does that.
    pub ip_masquerade: bool,
    /// The longest packet that pods send; `None` leaves it to the kernel.
    pub mtu: Option<u32>,
    /// Whether images may be fetched.
    pub registries: Registries,
    /// What runs the pods of RuntimeClasses.
    pub handlers: Handlers,
}

impl Settings {
    /// The usual settings below `directory`: bridge `keelson0`, masquerade, no registries, the handlers of the last
    /// start.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            bridge: "keelson0".into(),
            ip_masquerade: true,
            mtu: None,
            registries: Registries::Off,
            handlers: Handlers::AsBefore,
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("containerd.sock")
    }
}

/// How a private containerd came to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was started now.
    Started,
    /// It ran already and so do its containers.
    Adopted,
}

/// How long containerd may take to answer after its start; its database may be large.
const START: Duration = Duration::from_secs(60);

/// How long containerd may take to end.
const END: Duration = Duration::from_secs(15);

/// Between two starts of a containerd that dies.
const RESTART: Duration = Duration::from_secs(1);

/// Pods stopped at a time.
const STOPS: usize = 16;

/// A private containerd that runs. Dropping it leaves containerd and its containers running.
pub struct Private {
    settings: Settings,
    programs: missing::Programs,
    runtime: Containerd,
    origin: Origin,
    process: Mutex<Process>,
    ending: watch::Sender<bool>,
}

impl Private {
    /// Starts or adopts the containerd of a directory; it answers, and has its sandbox image, when this
    /// returns. The error says which package to install when something is missing.
    pub async fn start(settings: Settings) -> Result<Self> {
        let programs = missing::check(&settings)?;
        let starting = process::lock(&settings.directory, START).await?;
        let handlers = handlers::of(&settings, &programs).await?;
        let changed = config::write(&settings, &programs, &handlers).await?;
        let socket = settings.socket();
        let network = Network::new(&settings, programs.portmap_backend);
        let names = handlers.into_keys().collect();
        let runtime = Containerd::configured(&socket, settings.registries, network, names);
        let (process, origin) = match process::find(&settings.directory).await {
            Some(process) if !changed && answers(&runtime, Duration::from_secs(10)).await.is_ok() => {
                (process, Origin::Adopted)
            }
            Some(mut process) => {
                // It hangs, or its configuration is another one now. Containers do not notice.
                process.end(END).await?;
                (spawn(&settings, &programs, &runtime).await?, Origin::Adopted)
            }
            None => (spawn(&settings, &programs, &runtime).await?, Origin::Started),
        };
        let (ending, _) = watch::channel(false);
        let private = Self { settings, programs, runtime, origin, process: Mutex::new(process), ending };
        private.ensure_sandbox_image().await?;
        drop(starting);
        Ok(private)
    }

    /// The runtime on it.
    pub fn runtime(&self) -> Containerd {
        self.runtime.clone()
    }

    /// Whether it was started or adopted.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// containerd's log file.
    pub fn log_file(&self) -> PathBuf {
        process::log_file(&self.settings.directory)
    }

    /// Starts containerd again whenever it dies, until [`Private::stop`] is called. Containers do not
    /// notice. Dropping the future only ends the watching.
    pub async fn supervise(&self) {
        let mut ending = self.ending.subscribe();
        loop {
            let mut process = self.process.lock().await;
            tokio::select! {
                () = process.ended() => {}
                _ = ending.wait_for(|ending| *ending) => return,
            }
            if let Some(alive) = process::find(&self.settings.directory).await {
                // An earlier call was dropped when it had just started this one.
                *process = alive;
                continue;
            }
            tracing::warn!(log = %self.log_file().display(), "containerd died, starting it again");
            match spawn(&self.settings, &self.programs, &self.runtime).await {
                Ok(next) => *process = next,
                Err(error) => tracing::error!(%error, "containerd cannot be started again"),
            }
            drop(process);
            tokio::time::sleep(RESTART).await;
        }
    }

    /// Loads the images of an OCI layout or a `docker save` tar; their names. They can be used when
    /// this returns.
    pub async fn load_image(&self, file: &Path) -> Result<Vec<String>> {
        import::file(&self.runtime, &self.settings, &self.programs, file).await
    }

    /// Ends every pod, each container having `grace` to end by itself, then containerd, and takes away
    /// what they leave in the kernel: mounts below the directory and the bridge. Images and volumes stay.
    pub async fn stop(&self, grace: Duration) -> Result<()> {
        self.ending.send_replace(true);
        let mut process = self.process.lock().await;
        if let Some(alive) = process::find(&self.settings.directory).await {
            // `supervise` may have been dropped when it had just started this one.
            *process = alive;
        }
        let stopped = stop_pods(&self.runtime, grace).await;
        process.end(END).await?;
        leftovers::remove(&self.settings, &self.programs).await?;
        stopped
    }

    async fn ensure_sandbox_image(&self) -> Result<()> {
        if self.runtime.image_status(pause::NAME).await?.is_some() {
            return Ok(());
        }
        let failed = |error: std::io::Error| {
            Error::new(
                Step::Prepare,
                pause::NAME,
                ErrorKind::Internal,
                format!("cannot write the sandbox image: {error}"),
            )
            .with_source(error)
        };
        let file = self.settings.directory.join("pause.tar");
        tokio::fs::write(&file, pause::image_tar().map_err(failed)?).await.map_err(failed)?;
        self.load_image(&file).await?;
        tokio::fs::remove_file(&file).await.map_err(failed)
    }
}

async fn spawn(settings: &Settings, programs: &missing::Programs, runtime: &Containerd) -> Result<Process> {
    let mut process = process::spawn(&settings.directory, programs).await?;
    tokio::select! {
        answered = answers(runtime, START) => match answered {
            Ok(()) => Ok(process),
            Err(error) => {
                process.end(END).await?;
                Err(error)
            }
        },
        () = process.ended() => Err(process::died(&settings.directory).await),
    }
}

/// Waits until both of containerd's services that we use answer.
async fn answers(runtime: &Containerd, patience: Duration) -> Result<()> {
    let asking = async {
        loop {
            match runtime.list_images().await {
                Ok(_) => return,
                Err(error) => tracing::trace!(%error, "containerd does not answer yet"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(patience, asking).await.map_err(|_elapsed| {
        let message = format!("containerd does not answer within {} s", patience.as_secs());
        Error::new(Step::Connect, "containerd", ErrorKind::TimedOut, message)
    })
}

/// Stops and removes every pod; goes on after a failure and returns the first.
async fn stop_pods(runtime: &Containerd, grace: Duration) -> Result<()> {
    let pods = runtime.observe().await?;
    let stop_pod = |pod: runtime::ObservedPod| async move {
        let running = pod.containers.iter().filter(|container| container.is_running());
        let stop = |id: &String| Action::StopContainer { id: id.clone(), grace };
        try_join_all(running.map(|container| async move { runtime.act(&stop(&container.id)).await })).await?;
        for sandbox in pod.sandboxes {
            runtime.act(&Action::RemoveSandbox { id: sandbox.id }).await?;
        }
        Ok(())
    };
    let mut pods = pods.into_iter();
    let mut running: FuturesUnordered<_> = pods.by_ref().take(STOPS).map(stop_pod).collect();
    let mut first = Ok(());
    while let Some(stopped) = running.next().await {
        if let Err(error) = stopped {
            tracing::warn!(%error, "cannot stop a pod");
            first = first.and(Err(error));
        }
        running.extend(pods.next().map(stop_pod));
    }
    first
}
