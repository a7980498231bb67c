//! Finds the decoder of a target and gives it what the fuzzer made.

use std::sync::LazyLock;

use apiserver::decoders::{ALL, KINDS, World};

static WORLD: LazyLock<World> = LazyLock::new(|| World { types: kinds::types(), kinds: KINDS });

/// Runs one decoder; a panic is a finding.
pub fn run(name: &str, bytes: &[u8]) {
    let decoder = ALL.iter().find(|decoder| decoder.name == name).expect("a decoder of this name");
    (decoder.run)(&WORLD, bytes);
}
