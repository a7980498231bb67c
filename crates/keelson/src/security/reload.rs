//! Files that are read again when they change.
//!
//! Guarantees: what a file says is applied at start, or the start fails; later, a file that cannot be used changes
//! nothing and is logged once. Looked at every [`EVERY`]: these are few small files, and only where flags name them.

use std::{path::PathBuf, time::Duration};

use tokio_util::sync::CancellationToken;

use super::read;
use crate::error::Failure;

/// How often files are looked at. Upstream hears of changes, and looks every minute.
const EVERY: Duration = Duration::from_secs(10);

/// Makes what a text says true; an error changes nothing.
type Apply = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// One file.
pub(crate) struct Reloaded {
    flag: &'static str,
    path: PathBuf,
    apply: Apply,
    seen: String,
}

impl Reloaded {
    pub(super) fn new(flag: &'static str, path: PathBuf, apply: Apply) -> Self {
        Self { flag, path, apply, seen: String::new() }
    }

    /// Applies the file for the first time.
    pub(crate) fn begin(mut self) -> Result<Self, Failure> {
        self.seen = read(self.flag, &self.path)?;
        (self.apply)(&self.seen)
            .map_err(|why| Failure::new(format!("use {} of --{}: {why}", self.path.display(), self.flag)))?;
        Ok(self)
    }

    /// Applies it again if it has changed.
    fn look(&mut self) {
        let Ok(text) = std::fs::read_to_string(&self.path) else {
            // Being replaced, or gone: what it said last stays true.
            return;
        };
        if text == self.seen {
            return;
        }
        match (self.apply)(&text) {
            Ok(()) => tracing::info!(file = %self.path.display(), "read again"),
            Err(why) => {
                tracing::error!(file = %self.path.display(), why, "cannot be used, nothing was changed")
            }
        }
        self.seen = text;
    }
}

/// Looks at files until `stop`.
pub(crate) async fn run(mut files: Vec<Reloaded>, stop: CancellationToken) {
    if files.is_empty() {
        return;
    }
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        files.iter_mut().for_each(Reloaded::look);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[test]
    fn a_file_is_read_again_and_a_bad_one_changes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        fs::write(&path, "one").unwrap();
        let applied = Arc::new(Mutex::new(Vec::new()));
        let log = applied.clone();
        let apply = move |text: &str| {
            log.lock().unwrap().push(text.to_owned());
            if text == "bad" { Err("no good".to_owned()) } else { Ok(()) }
        };
        let mut file = Reloaded::new("flag", path.clone(), Box::new(apply)).begin().unwrap();
        file.look();
        for text in ["two", "two", "bad", "bad", "three"] {
            fs::write(&path, text).unwrap();
            file.look();
        }
        fs::remove_file(&path).unwrap();
        file.look();
        assert_eq!(*applied.lock().unwrap(), ["one", "two", "bad", "three"]);

        fs::write(&path, "bad").unwrap();
        let refused = Reloaded::new("flag", path.clone(), Box::new(|_| Err("no good".to_owned()))).begin();
        let refused = refused.err().unwrap().to_string();
        assert!(refused.contains("of --flag: no good"), "{refused}");
        fs::remove_file(&path).unwrap();
        assert!(Reloaded::new("flag", path, Box::new(|_| Ok(()))).begin().is_err());
    }
}
