//! Private files: readable by their owner only, replaced whole.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use super::PkiError;

/// Makes `path` (and its parents) as a directory that only its owner can enter.
pub(super) fn private_directory(path: &Path) -> Result<(), PkiError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| PkiError::Write { path: path.to_owned(), source })
}

/// Whoever makes something in `directory` holds this; the system lets go of it when the process dies.
pub(super) fn lock(directory: &Path) -> Result<fs::File, PkiError> {
    let path = directory.join("lock");
    let locked = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let locked = locked.and_then(|file| file.lock().map(|()| file));
    locked.map_err(|source| PkiError::Write { path, source })
}

/// The text of a file; `None` when there is none.
pub fn read_if_there(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Read { path: path.to_owned(), source }),
    }
}

/// As [`write_private`], but a file that is there stays as it is: false then.
pub fn create_private(path: &Path, text: &str) -> Result<bool, PkiError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let aside = Path::new(&aside);
    write_private(aside, text)?;
    let linked = fs::hard_link(aside, path);
    let removed = fs::remove_file(aside);
    match linked.and(removed) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(PkiError::Write { path: path.to_owned(), source }),
    }
}

/// Writes a file that only its owner can read, durably and all at once: a sibling is written, synced and
/// renamed over it.
pub fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    let write = || -> io::Result<()> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".new");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    write().map_err(|source| PkiError::Write { path: path.to_owned(), source })
}
