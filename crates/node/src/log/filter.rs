//! Which lines are shown, and how.

use bytes::{BufMut, Bytes, BytesMut};
use meta::Timestamp;
use runtime::log::{Line, StreamName};

/// Options of a log request.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "fields of v1.PodLogOptions")]
pub struct LogOptions {
    pub follow: bool,
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub limit_bytes: Option<u64>,
    pub timestamps: bool,
    pub stream: Which,
}

/// `stream` of a log request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kubernetes' names")]
pub enum Which {
    #[default]
    All,
    Stdout,
    Stderr,
}

/// Turns log entries into what is shown, until the limit is reached.
#[derive(Debug)]
pub struct Filter {
    since: Option<Timestamp>,
    timestamps: bool,
    which: Which,
    left: Option<u64>,
    continued: [bool; 2],
}

impl Filter {
    /// A filter for one request.
    pub fn new(options: &LogOptions) -> Self {
        Self {
            since: options.since,
            timestamps: options.timestamps,
            which: options.stream,
            left: options.limit_bytes,
            continued: [false; 2],
        }
    }

    /// What is shown of one entry; empty when nothing is.
    pub fn show(&mut self, line: &Line) -> Bytes {
        let wanted = match (self.which, line.stream) {
            (Which::All, _) | (Which::Stdout, StreamName::Stdout) | (Which::Stderr, StreamName::Stderr) => {
                true
            }
            (Which::Stdout, StreamName::Stderr) | (Which::Stderr, StreamName::Stdout) => false,
        };
        if !wanted || self.since.is_some_and(|since| line.at < since) {
            return Bytes::new();
        }
        let [stdout, stderr] = &mut self.continued;
        let continued = match line.stream {
            StreamName::Stdout => stdout,
            StreamName::Stderr => stderr,
        };
        let mut out = BytesMut::with_capacity(line.text.len() + 40);
        // A long line comes in parts; its time belongs in front of the first only.
        if self.timestamps && !*continued {
            out.put_slice(line.at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string().as_bytes());
        }
        *continued = line.partial;
        out.put_slice(&line.text);
        if !line.partial {
            out.put_u8(b'\n');
        }
        self.limit(out.freeze())
    }

    fn limit(&mut self, mut text: Bytes) -> Bytes {
        if let Some(left) = &mut self.left {
            text.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= text.len() as u64;
        }
        text
    }

    /// Whether nothing more will be shown.
    pub fn is_done(&self) -> bool {
        self.left == Some(0)
    }
}

/// The text of the last entries, at most so many lines and bytes.
pub fn plain_tail(lines: &[Line], lines_max: usize, bytes_max: usize) -> String {
    let mut text = String::new();
    for line in lines.iter().skip(lines.len().saturating_sub(lines_max)) {
        text.push_str(&String::from_utf8_lossy(&line.text));
        if !line.partial {
            text.push('\n');
        }
    }
    let cut = text.len().saturating_sub(bytes_max);
    let begin = (cut..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    text.split_off(begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(options: &LogOptions) -> String {
        let text = "2024-01-01T00:00:00.5Z stdout F one\n2024-01-01T00:00:01Z stderr F oops\n\
                    2024-01-01T00:00:02Z stdout P tw\n2024-01-01T00:00:02.1Z stdout F o\n";
        let mut filter = Filter::new(options);
        let mut out = String::new();
        for line in text.lines() {
            out.push_str(std::str::from_utf8(&filter.show(&Line::parse(line.as_bytes()).unwrap())).unwrap());
        }
        out
    }

    #[test]
    fn options() {
        let since: Timestamp = "2024-01-01T00:00:01Z".parse().unwrap();
        for (options, expected) in [
            (LogOptions::default(), "one\noops\ntwo\n"),
            (LogOptions { since: Some(since), ..LogOptions::default() }, "oops\ntwo\n"),
            (LogOptions { limit_bytes: Some(6), ..LogOptions::default() }, "one\noo"),
            (LogOptions { limit_bytes: Some(0), ..LogOptions::default() }, ""),
            (LogOptions { stream: Which::Stderr, ..LogOptions::default() }, "oops\n"),
            (
                LogOptions { timestamps: true, stream: Which::Stdout, ..LogOptions::default() },
                "2024-01-01T00:00:00.500000000Z one\n2024-01-01T00:00:02.000000000Z two\n",
            ),
        ] {
            assert_eq!(show(&options), expected, "{options:?}");
        }
    }
}
