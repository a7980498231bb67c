//! What ends a program from outside.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{error::Failure, term};

/// Listens for signals while it is held.
pub(crate) struct Signals(tokio::task::JoinHandle<()>);

impl Drop for Signals {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Cancels `stop` on the first SIGINT or SIGTERM, ends the process on the second.
pub(crate) fn stop_on_signal(stop: CancellationToken) -> Result<Signals, Failure> {
    let failed = |error| Failure::of("listen for signals", error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(Signals(tokio::spawn(async move {
        for again in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if again {
                std::process::exit(1);
            }
            term::line("stopping");
            stop.cancel();
        }
    })))
}
