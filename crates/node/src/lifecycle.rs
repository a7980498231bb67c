//! postStart and preStop hooks.
//!
//! Guarantees: a hook takes no longer than it is given. Knows nothing of what follows from its
//! failure.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use runtime::Runtime;

use crate::{Host, probe};

/// Which hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kubernetes' names")]
pub enum Hook {
    PostStart,
    PreStop,
}

impl Hook {
    /// The hook of this kind that `container` has.
    pub fn of(self, container: &Container) -> Option<&LifecycleHandler> {
        let lifecycle = container.lifecycle.as_ref()?;
        match self {
            Self::PostStart => lifecycle.post_start.as_ref(),
            Self::PreStop => lifecycle.pre_stop.as_ref(),
        }
    }

    /// Reason of the event when it fails.
    pub fn failure(self) -> &'static str {
        match self {
            Self::PostStart => "FailedPostStartHook",
            Self::PreStop => "FailedPreStopHook",
        }
    }
}

/// Runs a hook in the container `id` of a pod whose address is `ip`.
pub async fn run(
    runtime: &dyn Runtime,
    host: &dyn Host,
    container: &Container,
    id: &str,
    handler: &LifecycleHandler,
    ip: &str,
    timeout: Duration,
) -> Result<(), String> {
    if let Some(sleep) = &handler.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or_default();
        tokio::time::sleep(Duration::from_secs(seconds).min(timeout)).await;
        return Ok(());
    }
    if host.is_simulated() {
        return Ok(());
    }
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let output = runtime.exec_sync(id, &command, timeout).await.map_err(|error| error.to_string())?;
        if output.exit_code == 0 {
            return Ok(());
        }
        let said =
            String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr });
        return Err(format!("command {command:?} exited with {}: {}", output.exit_code, said.trim()));
    }
    if let Some(get) = &handler.http_get {
        let target = probe::http(container, get, ip)?;
        return host.probe(&target, timeout).await;
    }
    Err("the handler is none of exec, httpGet and sleep".to_owned())
}
