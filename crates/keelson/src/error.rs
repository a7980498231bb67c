//! What ends a command: what was attempted, why it failed, and what the user can do.

use std::{error::Error, fmt};

/// A failure as the terminal shows it.
#[derive(Debug)]
pub(crate) struct Failure {
    doing: String,
    why: Option<Box<dyn Error + Send + Sync>>,
    advice: Option<String>,
    usage: bool,
}

impl Failure {
    /// Something that went wrong while `doing`.
    pub(crate) fn of(doing: impl Into<String>, why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { doing: doing.into(), why: Some(why.into()), advice: None, usage: false }
    }

    /// Something that needs no cause.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { doing: what.into(), why: None, advice: None, usage: false }
    }

    /// Something wrong with the command line itself.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { doing: what.into(), why: None, advice: None, usage: true }
    }

    /// The same, where it is the command line that has to be changed.
    pub(crate) fn of_usage(mut self, usage: bool) -> Self {
        self.usage = usage;
        self
    }

    /// What the program exits with: 2 for the command line, as clap does, else 1.
    pub(crate) fn exit_code(&self) -> u8 {
        if self.usage { 2 } else { 1 }
    }

    /// What to do about it.
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        if let Some(why) = &self.why {
            let why = reconcile::text(&**why);
            if !self.doing.ends_with(&why) {
                write!(f, ": {why}")?;
            }
        }
        match &self.advice {
            Some(advice) => write!(f, "\n  {advice}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_api_server_is_a_sentence() {
        let status = kube::core::Status::failure("pods is forbidden: no", "Forbidden").with_code(403);
        let failure = Failure::of("ask the cluster of a.kubeconfig", kube::Error::Api(Box::new(status)));
        let told = failure.advise("name another").to_string();
        assert_eq!(told, "ask the cluster of a.kubeconfig: pods is forbidden: no\n  name another");
    }
}
