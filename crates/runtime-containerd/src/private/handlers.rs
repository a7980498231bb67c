//! Runtime handlers: which OCI runtime runs the pods of a RuntimeClass that names one (KEP-585).
//!
//! Guarantees: `runc` is there and the default, `crun` is there where it is installed, and what is given goes before
//! both. A start that says nothing of them keeps those of the start before, so that a program that only looks after
//! images does not take them away.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use runtime::{Error, ErrorKind, Result, Step};

use super::{Settings, config, missing::Programs};

/// The handler of pods that ask for none.
pub(super) const DEFAULT: &str = "runc";

/// Handlers besides `runc`, and `crun` where that is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Handlers {
    /// Those of the last start.
    #[default]
    AsBefore,
    /// OCI runtime programs with runc's command line by the handler's name, which is a DNS label.
    Given(BTreeMap<String, PathBuf>),
}

/// All handlers with their programs. What was given is kept for later starts.
pub(super) async fn of(settings: &Settings, programs: &Programs) -> Result<BTreeMap<String, PathBuf>> {
    let path = settings.directory.join("handlers");
    let given = match &settings.handlers {
        Handlers::AsBefore => read(&path).await?,
        Handlers::Given(given) => {
            if let Some((name, binary)) = given.iter().find(|(_, binary)| !binary.is_file()) {
                let message =
                    format!("the program of runtime handler {name} is not there: {}", binary.display());
                return Err(Error::new(Step::Prepare, "containerd", ErrorKind::Missing, message));
            }
            keep(&path, given).await?;
            given.clone()
        }
    };
    let found = programs.crun.clone().map(|crun| ("crun".to_owned(), crun));
    let mut all: BTreeMap<_, _> =
        [(DEFAULT.to_owned(), programs.runc.clone())].into_iter().chain(found).collect();
    all.extend(given);
    Ok(all)
}

async fn keep(path: &Path, given: &BTreeMap<String, PathBuf>) -> Result<()> {
    let text: String = given.iter().map(|(name, binary)| format!("{name}={}\n", binary.display())).collect();
    let directory = path.parent().unwrap_or(path);
    tokio::fs::create_dir_all(directory).await.map_err(|error| config::failed(directory, error))?;
    tokio::fs::write(path, text).await.map_err(|error| config::failed(path, error))
}

async fn read(path: &Path) -> Result<BTreeMap<String, PathBuf>> {
    match tokio::fs::read_to_string(path).await {
        Ok(text) => Ok(text.lines().filter_map(|line| line.split_once('=')).map(owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => {
            let message = format!("cannot read {}: {error}", path.display());
            Err(Error::new(Step::Prepare, "containerd", ErrorKind::Internal, message).with_source(error))
        }
    }
}

fn owned((name, binary): (&str, &str)) -> (String, PathBuf) {
    (name.to_owned(), binary.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn names(directory: &Path, crun: bool, handlers: Handlers) -> Result<Vec<String>> {
        let settings = Settings { handlers, ..Settings::new(directory) };
        let programs = Programs { crun: crun.then(|| "/bin/crun".into()), ..Programs::for_tests() };
        let all = of(&settings, &programs).await?;
        Ok(all.into_iter().map(|(name, binary)| format!("{name}={}", binary.display())).collect())
    }

    #[tokio::test]
    async fn what_is_given_is_kept_until_something_else_is_given() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let given = |name: &str, binary: &str| Handlers::Given([(name.to_owned(), binary.into())].into());
        assert_eq!(names(root, false, Handlers::AsBefore).await.unwrap(), ["runc=/bin/runc"]);
        let with_own = ["crun=/bin/crun", "own=/bin/sh", "runc=/bin/runc"];
        assert_eq!(names(root, true, given("own", "/bin/sh")).await.unwrap(), with_own);
        assert_eq!(names(root, true, Handlers::AsBefore).await.unwrap(), with_own);
        assert_eq!(
            names(root, true, given("crun", "/bin/sh")).await.unwrap(),
            ["crun=/bin/sh", "runc=/bin/runc"]
        );
        let error = names(root, true, given("own", "/no/such")).await.unwrap_err();
        assert!(error.message.contains("handler own is not there: /no/such"), "{error}");
        assert_eq!(names(root, false, Handlers::Given(BTreeMap::new())).await.unwrap(), ["runc=/bin/runc"]);
        assert_eq!(names(root, false, Handlers::AsBefore).await.unwrap(), ["runc=/bin/runc"]);
    }
}
