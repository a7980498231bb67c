//! What a person sees: steps, colours where the terminal has them, one `ready` line for programs.

use std::{
    io::{IsTerminal, Write},
    time::Instant,
};

use crate::{cli::Output, error::Failure, status};

fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn paint(code: &str, text: &str) -> String {
    if colour() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Bold.
pub(crate) fn bold(text: &str) -> String {
    paint("1", text)
}

/// Green.
pub(crate) fn good(text: &str) -> String {
    paint("32", text)
}

/// Yellow.
pub(crate) fn warn(text: &str) -> String {
    paint("33", text)
}

/// Dim.
pub(crate) fn dim(text: &str) -> String {
    paint("2", text)
}

/// Writes a line to standard output. A reader that has gone is no reason to stop a cluster.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// Writes a value for a program.
pub(crate) fn machine(value: &impl serde::Serialize, output: Output) -> Result<(), Failure> {
    let value = serde_json::to_value(value).map_err(|error| Failure::of("write the answer", error))?;
    line(&match output {
        Output::Json => format!("{value:#}"),
        Output::Yaml => status::yaml(&value, 0),
    });
    Ok(())
}

/// Writes what is worth knowing beside the result, to standard error.
pub(crate) fn note(text: &str) {
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Writes an error to standard error.
pub(crate) fn error(text: &str) {
    let red = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let head = if red { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    drop(writeln!(std::io::stderr().lock(), "{head} {text}"));
}

/// The steps of a start: on a terminal each is shown while it runs, and then with what it came to and how
/// long it took; elsewhere one line when it is done.
pub(crate) struct Steps {
    began: Instant,
    step: Instant,
    name: String,
}

impl Steps {
    pub(crate) fn begin() -> Self {
        let now = Instant::now();
        Self { began: now, step: now, name: String::new() }
    }

    /// A step begins.
    pub(crate) fn start(&mut self, name: &str) {
        self.step = Instant::now();
        name.clone_into(&mut self.name);
        if colour() {
            let mut out = std::io::stdout().lock();
            drop(write!(out, "\r\x1b[K  … {name}").and_then(|()| out.flush()));
        }
    }

    /// The step has come to this.
    pub(crate) fn done(&mut self, what: &str) {
        let clear = if colour() { "\r\x1b[K" } else { "" };
        let took = dim(&format!("{} ms", self.step.elapsed().as_millis()));
        line(&format!("{clear}  {} {:<12} {what} {took}", good("✓"), self.name));
    }

    /// Since the beginning.
    pub(crate) fn elapsed_ms(&self) -> u128 {
        self.began.elapsed().as_millis()
    }
}
