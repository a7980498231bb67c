//! Flags about who may do what, and what is kept how, and what they build. A flag that cannot work says so at
//! start.

mod audit;
mod authentication;
mod authorization;
pub(crate) mod reload;
mod remote;

use std::path::{Path, PathBuf};

use apiserver::{
    encryption::{self, Encryption},
    pki::{create_private, read_if_there},
};
use clap::Args;
use meta::Random;

pub(crate) use remote::Callers;

use crate::error::Failure;

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Security")]
pub(crate) struct SecurityOptions {
    /// What is encrypted in the store and with which keys, an EncryptionConfiguration [default: Secrets, with a
    /// key of its own beside the authority]
    #[arg(long, env = "KEELSON_ENCRYPTION_PROVIDER_CONFIG", value_name = "FILE")]
    pub(crate) encryption_provider_config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) authentication: authentication::AuthenticationOptions,
    #[command(flatten)]
    pub(crate) authorization: authorization::AuthorizationOptions,
    #[command(flatten)]
    pub(crate) audit: audit::AuditOptions,
}

/// The text of a file that a flag names.
fn read(flag: &str, path: &Path) -> Result<String, Failure> {
    let doing = || format!("read {} of --{flag}", path.display());
    match read_if_there(path) {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(Failure::new(format!("{}: there is no such file", doing()))),
        Err(error) => Err(Failure::of(doing(), error)),
    }
}

impl SecurityOptions {
    /// Refuses flags that need others, before anything is started.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.authentication.check()?;
        self.authorization.check()?;
        self.audit.check()
    }

    /// What is encrypted at rest. Without a file of the user's, one with a fresh key is made beside the authority,
    /// which all servers of a cluster share, and kept.
    pub(crate) fn encryption(&self, authority: &Path, random: &dyn Random) -> Result<Encryption, Failure> {
        let own = || authority.join("encryption.yaml");
        let path = self.encryption_provider_config.clone().unwrap_or_else(own);
        let doing = format!("read the encryption configuration {}", path.display());
        let text = read_if_there(&path).map_err(|error| Failure::of(doing.clone(), error))?;
        let text = match (text, &self.encryption_provider_config) {
            (Some(text), _) => text,
            (None, Some(_)) => {
                return Err(Failure::new(format!("{doing}: there is no such file")).advise(
                    "name an existing file, or leave the flag out to encrypt with a key of the cluster's own",
                ));
            }
            (None, None) => {
                let made = encryption::generate(random);
                let made = made.ok_or_else(|| Failure::new("make an encryption key: no random numbers"))?;
                let failed = |error| Failure::of("keep the encryption key", error);
                // Another server of the same cluster may have been faster; its key is the one then.
                match create_private(&path, &made).map_err(failed)? {
                    true => made,
                    false => read_if_there(&path).map_err(failed)?.unwrap_or_default(),
                }
            }
        };
        Encryption::parse(&text).map_err(|error| Failure::of(doing, error))
    }
}
