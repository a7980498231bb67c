//! Servers that kubeconfig files name: webhooks of authentication and authorization.

use std::{path::Path, sync::Arc, time::Duration};

use apiserver::webhook::{Endpoint, Reviewer, Webhooks};
use meta::Random;

use super::read;
use crate::error::Failure;

/// How long a webhook that a flag names may take, as upstream (`webhook.NewGenericWebhook`).
pub(super) const WITHIN: Duration = Duration::from_secs(30);

/// What is needed to ask them.
#[derive(Clone)]
pub(crate) struct Callers {
    pub(crate) client: Webhooks,
    pub(crate) random: Arc<dyn Random>,
}

impl Callers {
    /// A client of the server that the kubeconfig of a flag names.
    pub(super) fn reviewer(&self, flag: &str, path: &Path) -> Result<Reviewer, Failure> {
        let text = read(flag, path)?;
        let doing = || format!("use the kubeconfig {} of --{flag}", path.display());
        let endpoint = Endpoint::parse(&text, path.parent().unwrap_or(Path::new(".")));
        endpoint
            .and_then(|endpoint| Reviewer::new(self.client.clone(), &endpoint, WITHIN, self.random.clone()))
            .map_err(|why| Failure::new(format!("{}: {why}", doing())))
    }
}

/// Reads a duration of the command line.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    meta::parse_duration(text).ok_or_else(|| "want a duration such as 30s, 5m or 1h30m".to_owned())
}
