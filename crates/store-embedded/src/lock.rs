//! One process at a time: an advisory lock on a file in the directory, which the system lets go of
//! when the process dies, however it dies.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{Seek, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use store::{Error, Result};

use crate::fault::failed;

const NAME: &str = "lock";

/// Holds the directory until dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held, never read")] File);

impl Lock {
    /// Makes the directory if need be, readable by its owner only, and takes its lock.
    pub(crate) fn take(directory: &Path) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| failed("create the store's directory", directory, error))?;
        let path = directory.join(NAME);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed("open the lock file", &path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                let holder = holder.lines().next().unwrap_or("pid unknown").to_owned();
                return Err(Error::Locked { path: directory.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path, error)),
        }
        if let Err(error) = write_holder(&file) {
            // Only the other process's error message is poorer for it; on a full disk we still open.
            tracing::warn!(path = %path.display(), %error, "could not note the pid in the lock file");
        }
        Ok(Self(file))
    }
}

fn write_holder(mut file: &File) -> std::io::Result<()> {
    let holder = format!("pid {}\n", std::process::id());
    file.seek(SeekFrom::Start(0))?;
    file.write_all(holder.as_bytes())?;
    file.set_len(holder.len() as u64)
}
