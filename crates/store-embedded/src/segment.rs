//! One file of the log. Appended to while it is the last, then only read, then removed.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use meta::Revision;
use store::Result;

use crate::{
    fault::{damaged, failed},
    frame::{SEGMENT_HEADER, decode_segment_header, encode_segment_header},
    sync_directory,
};

/// An open segment. Reading goes on after its file was removed, for as long as somebody holds it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) sequence: u64,
    /// The newest revision when it was begun.
    pub(crate) base: Revision,
    pub(crate) path: PathBuf,
    file: File,
}

/// The path of the segment with this number.
pub(crate) fn path_of(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(format!("{sequence:016}.log"))
}

/// The number of the segment with this file name.
pub(crate) fn sequence_of(name: &str) -> Option<u64> {
    name.strip_suffix(".log").filter(|digits| digits.len() == 16)?.parse().ok()
}

impl Segment {
    /// Makes an empty, durable segment. Replaces a file that is there: one that no manifest names.
    pub(crate) fn create(directory: &Path, sequence: u64, base: Revision) -> Result<Self> {
        let path = path_of(directory, sequence);
        let make = || -> io::Result<File> {
            let file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .read(true)
                .write(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all_at(&encode_segment_header(sequence, base), 0)?;
            file.sync_all()?;
            Ok(file)
        };
        let file = make().map_err(|error| failed("create the log segment", &path, error))?;
        sync_directory(directory)?;
        Ok(Self { sequence, base, path, file })
    }

    /// Opens a segment that must be there; also gives its length.
    pub(crate) fn open(directory: &Path, sequence: u64) -> Result<(Self, u64)> {
        let path = path_of(directory, sequence);
        let mut header = [0; SEGMENT_HEADER];
        let read = || -> io::Result<(File, u64)> {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) = match read() {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(&path, 0, "this segment of the log is missing"));
            }
            Err(error) => return Err(failed("open the log segment", &path, error)),
        };
        if length < SEGMENT_HEADER as u64 {
            return Err(damaged(&path, length, "the segment ends within its header"));
        }
        file.read_exact_at(&mut header, 0).map_err(|error| failed("read", &path, error))?;
        match decode_segment_header(&header) {
            Some((found, base)) if found == sequence => Ok((Self { sequence, base, path, file }, length)),
            Some((found, _)) => {
                Err(damaged(&path, 0, format!("this is segment {found} under another's name")))
            }
            None => Err(damaged(&path, 0, "the segment's header is not readable")),
        }
    }

    /// Fills `buffer` from `offset`.
    pub(crate) fn read_exact(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged(&self.path, offset, "the segment has become shorter"),
            _ => failed("read", &self.path, error),
        })
    }

    /// Writes at `offset` and waits until it is on disk.
    pub(crate) fn write_durably(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        self.file.sync_data()
    }

    /// The same segment as one that begins after `base`, durably.
    pub(crate) fn rebase(self, base: Revision) -> io::Result<Self> {
        self.file.write_all_at(&encode_segment_header(self.sequence, base), 0)?;
        self.file.sync_all()?;
        Ok(Self { base, ..self })
    }

    /// Cuts off everything from `length` on, durably.
    pub(crate) fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.sync_data()
    }
}
