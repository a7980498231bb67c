//! Which segments make up the log, and what is known of it that is not in the log. Replaced as a
//! whole, by renaming; so that a segment that is missing, or shorter than it was, is noticed.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use meta::Revision;
use serde::{Deserialize, Serialize};
use store::{Error, Result};

use crate::{
    fault::{damaged, failed},
    sync_directory,
};

const NAME: &str = "manifest";
const TEMPORARY: &str = "manifest.new";
/// The format of everything in the directory. Raised when an older release could not read it.
const FORMAT: u32 = 1;

/// The content of the file: one line of JSON behind one line with format and checksum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// How often the store was opened.
    pub(crate) epoch: u64,
    /// History up to here is forgotten.
    pub(crate) compacted: Revision,
    /// The segments, oldest first.
    pub(crate) segments: Vec<u64>,
    /// How long the last of them was, at least, when this was written.
    pub(crate) end: u64,
}

impl Manifest {
    /// Reads the manifest; `None` when the directory has none.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged(&path, 0, "it is not text"));
            }
            Err(error) => return Err(failed("read", &path, error)),
        };
        let (found, crc, body) =
            split(&text).ok_or_else(|| damaged(&path, 0, "its first line is not readable"))?;
        if found > FORMAT {
            return Err(Error::NewerFormat { path, found, supported: FORMAT });
        }
        if crc32fast::hash(body.as_bytes()) != crc {
            return Err(damaged(&path, 0, "it does not match its checksum"));
        }
        serde_json::from_str(body).map(Some).map_err(|error| damaged(&path, 0, error.to_string()))
    }

    /// Replaces the manifest, durably. On failure the old one stands.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(TEMPORARY);
        let body =
            serde_json::to_string(self).map_err(|error| failed("encode", &path, io::Error::other(error)))?;
        let crc = crc32fast::hash(body.as_bytes());
        let replace = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
            writeln!(file, "keelson-store format {FORMAT} crc32 {crc:08x}")?;
            file.write_all(body.as_bytes())?;
            file.sync_all()?;
            fs::rename(&path, directory.join(NAME))
        };
        replace().map_err(|error| failed("write", &path, error))?;
        sync_directory(directory)
    }
}

fn split(text: &str) -> Option<(u32, u32, &str)> {
    let (first, body) = text.split_once('\n')?;
    let (format, crc) = first.strip_prefix("keelson-store format ")?.split_once(" crc32 ")?;
    Some((format.parse().ok()?, u32::from_str_radix(crc, 16).ok()?, body))
}
