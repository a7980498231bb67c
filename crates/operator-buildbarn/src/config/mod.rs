//! Configuration files from the checked objects, each of them held against the model before anything is rolled out.

mod browser;
mod frontend;
mod pieces;
mod scheduler;
mod storage;
mod worker;

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::Value;

pub(crate) use browser::browser;
pub(crate) use frontend::Routes;
pub(crate) use frontend::frontend;
pub(crate) use pieces::{Place, map_name};
pub(crate) use scheduler::{Predeclared, scheduler};
pub(crate) use storage::storage;
pub(crate) use worker::{directory, runner, runner_file, runner_port, worker};

use crate::{
    model::{self, Program},
    types::Common,
    verdict::Wrong,
};

/// The name of a pod, where the program is to put it: Jsonnet reads it from the environment.
pub(crate) const POD_NAME: &str = "@@POD_NAME@@";
/// Likewise the name of its node.
pub(crate) const NODE_NAME: &str = "@@NODE_NAME@@";

/// One file: its name, who reads it, and what is in it.
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) program: Program,
    /// Where an overlay for this file stands in `spec.configOverlay`; empty for the overlay itself.
    pub(crate) overlay_key: &'static str,
    pub(crate) content: Value,
}

/// Checked files with the hash of what is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) texts: BTreeMap<String, String>,
    pub(crate) hash: String,
}

/// Applies the overlay, checks, and renders.
pub(crate) fn render(files: Vec<File>, common: &Common) -> Result<Files, Wrong> {
    let mut wrong = Wrong::default();
    let keys: Vec<&str> = files.iter().map(|file| file.overlay_key).collect();
    if let Some(overlay) = common.config_overlay.as_ref().and_then(Value::as_object)
        && !keys.contains(&"")
    {
        for key in overlay.keys().filter(|key| !keys.contains(&key.as_str())) {
            wrong.add(
                &format!("spec.configOverlay.{key}"),
                format!("there is no such file: use {}", distinct(&keys)),
            );
        }
    }
    let mut texts = BTreeMap::new();
    for File { name, program, overlay_key, mut content } in files {
        let overlay = common.config_overlay.as_ref().and_then(|overlay| match overlay_key {
            "" => Some(overlay),
            key => overlay.get(key),
        });
        let blame = if overlay.is_some() { "spec.configOverlay" } else { "generated configuration" };
        if let Some(overlay) = overlay {
            schema::patch::merge(&mut content, overlay);
        }
        for fault in model::check(program, &content) {
            wrong.add(blame, format!("{name}: {fault}"));
        }
        let text = serde_json::to_string_pretty(&content).unwrap_or_default();
        let text = text
            .replace(&format!("{POD_NAME:?}"), "std.extVar(\"POD_NAME\")")
            .replace(&format!("{NODE_NAME:?}"), "std.extVar(\"NODE_NAME\")");
        texts.insert(name, text + "\n");
    }
    if wrong.0.is_empty() { Ok(Files { hash: hash(&texts), texts }) } else { Err(wrong) }
}

fn distinct(keys: &[&str]) -> String {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    keys.dedup();
    keys.join(" or ")
}

/// Eight hex digits over the files.
pub(crate) fn hash(texts: &BTreeMap<String, String>) -> String {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    for (name, text) in texts {
        for part in [name, text] {
            digest.update(&part.len().to_le_bytes());
            digest.update(part.as_bytes());
        }
    }
    short(digest.finish().as_ref())
}

/// Eight hex digits over one text.
pub(crate) fn hash_text(text: &str) -> String {
    short(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
}

fn short(digest: &[u8]) -> String {
    digest.iter().take(4).fold(String::new(), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}
