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
        let mut cause: Option<&dyn Error> = self.why.as_deref().map(|why| why as &dyn Error);
        let mut said = self.doing.clone();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some libraries repeat their source in their own text.
            if !said.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            cause = error.source();
        }
        match &self.advice {
            Some(advice) => write!(f, "\n  {advice}"),
            None => Ok(()),
        }
    }
}
