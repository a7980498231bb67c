//! Log files: where the last lines begin, rotation. Blocking.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use crate::host::{HostError, Result};

const CHUNK: u64 = 64 * 1024;

/// Offset at which the last `lines` lines of a file begin. A last line without a line feed counts.
pub(super) fn tail_offset(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(length);
    }
    let mut wanted = lines;
    let mut end = length;
    let mut buffer = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(CHUNK);
        file.seek(SeekFrom::Start(begin))?;
        buffer.clear();
        Read::by_ref(file).take(end - begin).read_to_end(&mut buffer)?;
        for (index, byte) in buffer.iter().enumerate().rev() {
            let at = begin + index as u64;
            // The feed that ends the file's last line does not begin another.
            if *byte == b'\n' && at + 1 < length {
                wanted -= 1;
                if wanted == 0 {
                    return Ok(at + 1);
                }
            }
        }
        end = begin;
    }
    Ok(0)
}

/// The last `bytes_max` bytes of a file as text; empty when there is no file.
pub fn tail_of_file(path: &Path, bytes_max: usize) -> Result<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(bytes_max as u64)))?;
        let mut buffer = Vec::new();
        file.take(bytes_max as u64).read_to_end(&mut buffer)?;
        Ok(buffer)
    };
    match read() {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(HostError::io("read", path, error)),
    }
}

/// Moves `path` to `path.1` when it is larger than `max_bytes`, the older ones one further, and drops
/// what is beyond `keep`. True when it was moved: the runtime has to reopen the log.
pub fn rotate(path: &Path, max_bytes: u64, keep: usize) -> Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > max_bytes => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(HostError::io("inspect", path, error)),
    }
    for index in (1..=keep).rev() {
        let from = numbered(path, index - 1);
        let moved = if keep == 0 { fs::remove_file(&from) } else { fs::rename(&from, numbered(path, index)) };
        match moved {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(HostError::io("rotate", from, error)),
        }
    }
    Ok(true)
}

fn numbered(path: &Path, index: usize) -> PathBuf {
    if index == 0 {
        return path.to_path_buf();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{index}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_tail_begins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for (text, lines, expected) in [
            ("a\nbb\nccc\n", 1, "ccc\n"),
            ("a\nbb\nccc\n", 2, "bb\nccc\n"),
            ("a\nbb\nccc\n", 3, "a\nbb\nccc\n"),
            ("a\nbb\nccc\n", 9, "a\nbb\nccc\n"),
            ("a\nbb\nccc\n", 0, ""),
            ("a\nbb", 1, "bb"),
            ("\n\n", 1, "\n"),
            ("", 3, ""),
        ] {
            fs::write(&path, text).unwrap();
            let offset = tail_offset(&mut File::open(&path).unwrap(), lines).unwrap();
            assert_eq!(text.get(usize::try_from(offset).unwrap()..), Some(expected), "{text:?} {lines}");
        }
        let long: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, &long).unwrap();
        let offset = usize::try_from(tail_offset(&mut File::open(&path).unwrap(), 15_000).unwrap()).unwrap();
        assert!(long[offset..].starts_with("line 5000\n"));
    }

    #[test]
    fn rotation_keeps_five() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        assert!(!rotate(&path, 10, 4).unwrap());
        for round in 0..8 {
            fs::write(&path, format!("{round:020}")).unwrap();
            assert!(rotate(&path, 10, 4).unwrap());
            assert!(!path.exists());
        }
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["0.log.1", "0.log.2", "0.log.3", "0.log.4"]);
        assert!(tail_of_file(&dir.path().join("0.log.1"), 2).unwrap().ends_with('7'));
    }
}
