//! The batch mode on the wire: what a platform offers, and what it answers.

use serde::Deserialize;

use super::{Refusal, Trouble};
use crate::{
    Kind,
    digest::{Buckets, Tally},
};

pub(crate) const STATE: &str = "/api/v2/agent/sync/state";
pub(crate) const STREAM: &str = "/api/v2/agent/stream";
/// The header by which an agent says on heartbeats what it can do, and its value.
pub(crate) const ASKED: &str = "obsyk-agent-capabilities";
pub(crate) const CAPABILITIES: &str = "batch=1, sync=1, gzip";
/// The header by which a platform answers.
pub(crate) const OFFERED: &str = "obsyk-capabilities";

/// The header that numbers leaders, on snapshots and changes to a platform that heeds it.
pub(crate) const FENCE: &str = "obsyk-agent-fence";

fn has(capabilities: &str, wanted: &str) -> bool {
    capabilities.split(',').any(|one| one.trim() == wanted)
}

/// Whether a list of capabilities has all that the batch mode needs.
pub(crate) fn has_batch(capabilities: &str) -> bool {
    has(capabilities, "batch=1") && has(capabilities, "sync=1")
}

/// Whether the platform refuses the original contract's snapshots and changes from a leader that was deposed.
pub(crate) fn has_fence(capabilities: &str) -> bool {
    has(capabilities, "fence=1")
}

/// A session that was opened: what the platform has, and what it takes.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) epoch: u64,
    pub(crate) buckets: Buckets,
    pub(crate) records_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) gzip: bool,
}

#[derive(Deserialize)]
struct State {
    epoch: u64,
    kinds: std::collections::BTreeMap<String, Vec<(u8, u64, String)>>,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    encodings: Vec<String>,
}

/// Limits that a platform may lower or raise; the defaults are the specification's.
#[derive(Deserialize)]
#[serde(default)]
struct Limits {
    max_records: usize,
    max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_records: 500, max_bytes: 1 << 20 }
    }
}

/// Reads the answer of `sync/state`. Kinds that are not ours are ignored.
pub(crate) fn opened(body: &[u8]) -> Result<Opened, Trouble> {
    let odd = || unusable("sync/state");
    let State { epoch, kinds, limits, encodings } = serde_json::from_slice(body).map_err(|_| odd())?;
    let mut buckets = Buckets::default();
    for (name, tallies) in kinds {
        let Some(kind) = Kind::from_name(&name) else { continue };
        for (bucket, count, xor) in tallies {
            let xor = u64::from_str_radix(&xor, 16).map_err(|_| odd())?;
            buckets.set(kind, bucket, Tally { count, xor });
        }
    }
    Ok(Opened {
        epoch,
        buckets,
        records_max: limits.max_records.clamp(1, 5000),
        bytes_max: limits.max_bytes.clamp(64 << 10, 8 << 20),
        gzip: encodings.iter().any(|encoding| encoding == "gzip"),
    })
}

/// The answer to a batch.
#[derive(Debug, Deserialize)]
pub(crate) struct Acknowledged {
    pub(crate) acked_seq: u64,
    pub(crate) epoch: u64,
    #[serde(default)]
    pub(crate) action: String,
    #[serde(default)]
    pub(crate) kinds: Vec<String>,
}

/// Reads the answer to a batch.
pub(crate) fn acknowledged(body: &[u8]) -> Result<Acknowledged, Trouble> {
    serde_json::from_slice(body).map_err(|_| unusable("stream"))
}

/// A refusal in the platform's own words for programs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Refused {
    pub(crate) error: String,
    /// `bad_record`: which.
    pub(crate) seq: Option<u64>,
}

/// Reads a refusal; nothing of it when it is no JSON.
pub(crate) fn refused(trouble: &Trouble) -> Refused {
    serde_json::from_slice(&trouble.answer).unwrap_or_default()
}

/// An answer of success that is not what it should be: perhaps cut on its way.
fn unusable(what: &str) -> Trouble {
    Trouble {
        refusal: Refusal::Transient,
        status: Some(200),
        retry_after: None,
        message: format!("{what}: the platform's answer is not the JSON it should be"),
        answer: bytes::Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_and_answered() {
        assert!(has_batch("batch=1, sync=1, gzip") && has_batch("sync=1,batch=1"));
        assert!(!has_batch("batch=2, sync=1") && !has_batch(""));
        assert!(has_fence("batch=1, fence=1") && !has_fence("batch=1"));
        let answer =
            br#"{"epoch":7,"kinds":{"Pod":[[3,2,"00ff"]],"New":[]},"limits":{"max_records":0},"more":1}"#;
        let opened = opened(answer).unwrap();
        assert_eq!((opened.epoch, opened.records_max, opened.bytes_max, opened.gzip), (7, 1, 1 << 20, false));
        assert!(super::opened(br#"{"epoch":7,"kinds":{"Pod":[[3,2,"x"]]}}"#).is_err());
        assert_eq!(acknowledged(b"{\"acked_se").unwrap_err().refusal, Refusal::Transient);
    }
}
