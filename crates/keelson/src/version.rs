//! The version of this program and of the Kubernetes it presents itself as.

use crate::{cli::Output, error::Failure, term};

/// `gitVersion` of `/version`.
pub(crate) const GIT_VERSION: &str = concat!("v1.36.0+keelson.", env!("CARGO_PKG_VERSION"));

pub(crate) fn version(output: Option<Output>) -> Result<(), Failure> {
    let (own, kubernetes) = (env!("CARGO_PKG_VERSION"), GIT_VERSION);
    term::line(&match output {
        None => format!("keelson {own}, Kubernetes {kubernetes}"),
        Some(Output::Json) => format!("{:#}", serde_json::json!({"version": own, "kubernetes": kubernetes})),
        Some(Output::Yaml) => format!("version: {own}\nkubernetes: {kubernetes}"),
    });
    Ok(())
}
