//! Which container runtime, and why.

use runtime_containerd::private::Origin;

use crate::{
    cli::{RuntimeChoice, UpOptions},
    error::Failure,
    up::machine::{Containers, Machine},
};

/// What was chosen.
#[derive(Clone, Debug)]
pub(crate) enum Runtime {
    /// containerd; `strict` when the user asked for it, so that nothing else will do.
    Containerd { strict: bool },
    /// Simulated, and why.
    Simulated { why: String },
}

/// A runtime that runs.
pub(crate) enum Started {
    Containerd(Containers),
    Simulated { why: String },
}

impl Runtime {
    /// Decides from what the user asked for and what is plain without trying.
    pub(crate) fn choose(choice: RuntimeChoice) -> Result<Self, Failure> {
        let root = rustix::process::geteuid().is_root();
        match choice {
            RuntimeChoice::Simulated => Ok(Self::Simulated { why: "as asked".to_owned() }),
            RuntimeChoice::Containerd if !root => {
                Err(Failure::new("containerd needs root")
                    .advise("run it as root, or with --runtime simulated"))
            }
            RuntimeChoice::Containerd => Ok(Self::Containerd { strict: true }),
            RuntimeChoice::Auto if !root => {
                Ok(Self::Simulated { why: "not root, so no containers".to_owned() })
            }
            RuntimeChoice::Auto => Ok(Self::Containerd { strict: false }),
        }
    }

    /// The same for the nodes of `up`, of which there may be many.
    pub(crate) fn of(options: &UpOptions) -> Result<Self, Failure> {
        match options.runtime {
            RuntimeChoice::Containerd if options.node_count() > 1 => {
                Err(Failure::usage(format!("{} nodes cannot share one containerd", options.node_count()))
                    .advise("use --nodes 1, or --runtime simulated"))
            }
            RuntimeChoice::Containerd if !options.node_pools.is_empty() => {
                Err(Failure::usage("--node-pool describes simulated nodes")
                    .advise("leave it out, or use --runtime simulated"))
            }
            RuntimeChoice::Auto if !options.node_pools.is_empty() => {
                Ok(Self::Simulated { why: "--node-pool was given".to_owned() })
            }
            RuntimeChoice::Auto if options.node_count() > 1 => {
                Ok(Self::Simulated { why: format!("{} nodes in one process", options.node_count()) })
            }
            choice => Self::choose(choice),
        }
    }

    /// Nothing else will do where containers were chosen: among the nodes of others, pods that exist in memory only would
    /// pass for running ones.
    pub(crate) fn strictly(self) -> Self {
        match self {
            Self::Containerd { strict: _ } => Self::Containerd { strict: true },
            Self::Simulated { why } => Self::Simulated { why },
        }
    }

    pub(crate) fn is_real(&self) -> bool {
        matches!(self, Self::Containerd { .. })
    }

    /// Starts it; an unasked-for containerd that cannot run gives way to the simulated runtime.
    pub(crate) async fn start(self, machine: Machine) -> Result<Started, Failure> {
        let strict = match self {
            Self::Simulated { why } => return Ok(Started::Simulated { why }),
            Self::Containerd { strict } => strict,
        };
        let overlay = machine.overlay().await?;
        match machine.containerd(overlay).await {
            Ok(containers) => Ok(Started::Containerd(containers)),
            Err(error) if strict => Err(Failure::of("start containerd", error)
                .advise("or run with --runtime simulated: pods then exist in memory only")),
            Err(error) => Ok(Started::Simulated { why: format!("no containerd: {error}") }),
        }
    }
}

impl Started {
    pub(crate) fn is_real(&self) -> bool {
        matches!(self, Self::Containerd(_))
    }

    /// What `up` says about it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Simulated { why } => format!("simulated ({why})"),
            Self::Containerd(containers) => match containers.private.origin() {
                Origin::Started => "containerd, started".to_owned(),
                Origin::Adopted => "containerd, adopted with its containers".to_owned(),
            },
        }
    }
}
