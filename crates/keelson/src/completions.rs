//! Completion scripts.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{cli::Cli, error::Failure};

#[allow(clippy::unnecessary_wraps, reason = "the signature of a command")]
pub(crate) fn completions(shell: Shell) -> Result<(), Failure> {
    clap_complete::generate(shell, &mut Cli::command(), "keelson", &mut std::io::stdout());
    Ok(())
}
