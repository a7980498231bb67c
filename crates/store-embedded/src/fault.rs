//! Names what went wrong with a file.

use std::{io, path::Path, sync::Arc};

use store::Error;

/// What a user can do about damage.
const ADVICE: &str = "nothing was changed; keep a copy of the directory, then restore it from a backup, or move it \
                      away to begin with an empty store";

/// A failed file operation; a lack of space is told apart, because the caller can wait it out.
pub(crate) fn failed(doing: &'static str, path: &Path, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::DiskFull { path: path.to_owned() }
        }
        _ => Error::Io { doing, path: path.to_owned(), source: Arc::new(source) },
    }
}

/// What is in the file is not what was written.
pub(crate) fn damaged(path: &Path, offset: u64, why: impl Into<String>) -> Error {
    Error::Damaged { path: path.to_owned(), offset, why: why.into(), advice: ADVICE }
}
