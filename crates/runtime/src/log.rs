//! A container's log: CRI's line format (KEP-3, `cri/streaming` "logging"), read and written.
//!
//! `2016-10-06T00:17:09.669794202Z stdout F text`: time, stream, tags (`P` partial, `F` full), text.

use std::path::PathBuf;

use bytes::{BufMut, Bytes, BytesMut};
use meta::Timestamp;

/// Where a container's log is.
#[derive(Clone, Debug, PartialEq)]
pub enum Log {
    /// A file in CRI's line format, which the runtime appends to.
    File(PathBuf),
    /// All of it, from a runtime that writes no files.
    Lines(Vec<Line>),
}

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the two streams")]
pub enum StreamName {
    Stdout,
    Stderr,
}

impl StreamName {
    /// As in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One line, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// When the runtime read it.
    pub at: Timestamp,
    /// From which stream.
    pub stream: StreamName,
    /// Whether the text goes on in the next entry of the stream (no line feed follows).
    pub partial: bool,
    /// The text, without the line feed.
    pub text: Bytes,
}

impl Line {
    /// Reads one line of a log file, with or without its line feed; `None` when it is damaged.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let at = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let stream = match parts.next()? {
            b"stdout" => StreamName::Stdout,
            b"stderr" => StreamName::Stderr,
            _ => return None,
        };
        let partial = match parts.next()?.split(|byte| *byte == b':').next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        Some(Self { at, stream, partial, text: Bytes::copy_from_slice(parts.next()?) })
    }

    /// The line as it stands in a log file, line feed included.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.text.len() + 48);
        out.put_slice(self.at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string().as_bytes());
        out.put_u8(b' ');
        out.put_slice(self.stream.as_str().as_bytes());
        out.put_slice(if self.partial { b" P " } else { b" F " });
        out.put_slice(&self.text);
        out.put_u8(b'\n');
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_read_breaks(
            nanosecond in 0..4_000_000_000_000_000_000_i128, partial: bool, text in "[^\n]*", noise: Vec<u8>,
        ) {
            let at = Timestamp::from_nanosecond(nanosecond).unwrap();
            let line = Line { at, stream: StreamName::Stderr, partial, text: text.into() };
            prop_assert_eq!(Line::parse(&line.encode()), Some(line));
            Line::parse(&noise);
        }
    }

    #[test]
    fn a_line_comes_back_as_it_was() {
        let text = b"2016-10-06T00:17:09.669794202Z stdout P log  content 1\n";
        let line = Line::parse(text).unwrap();
        assert!(line.partial);
        assert_eq!(line.text.as_ref(), b"log  content 1");
        assert_eq!(line.encode().as_ref(), text);
    }

    #[test]
    fn damaged_lines_are_told_from_empty_ones() {
        assert_eq!(Line::parse(b"2016-10-06T00:17:09Z stderr F \n").unwrap().text.len(), 0);
        for damaged in [
            &b""[..],
            b"x stdout F y",
            b"2016-10-06T00:17:09Z stdin F y",
            b"2016-10-06T00:17:09Z stdout Q y",
            b"2016-10-06T00:17:09Z stdout",
        ] {
            assert!(Line::parse(damaged).is_none());
        }
    }
}
