//! Compiled patterns, kept because compiling one costs more than a thousand matches. They are written as Go reads them.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, PoisonError, RwLock},
};

use regex::{Regex, RegexBuilder};

use super::re2::to_regex;

/// Patterns kept at once; more than all CRDs of a large cluster have. Beyond it the store starts anew.
const KEPT_MAX: usize = 4096;

/// Bytes that one compiled pattern may take, so that a CRD cannot make the server use up its memory.
const SIZE_MAX: usize = 1 << 20;

/// By pattern; `None` where it does not compile.
type Compiled = HashMap<Box<str>, Option<Arc<Regex>>>;

static COMPILED: LazyLock<RwLock<Compiled>> = LazyLock::new(RwLock::default);

/// Whether a text contains a match of `pattern`. A pattern that does not compile matches nothing; CRDs with
/// such are refused when they are read.
pub(crate) fn is_match(pattern: &str, text: &str) -> bool {
    regex(pattern).is_some_and(|regex| regex.is_match(text))
}

/// Why a pattern does not compile.
pub(crate) fn pattern_error(pattern: &str) -> Result<(), String> {
    compile(pattern).map(drop)
}

fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(&to_regex(pattern)).size_limit(SIZE_MAX).build().map_err(|error| error.to_string())
}

/// A pattern, compiled once; `None` for one that does not compile.
pub(crate) fn regex(pattern: &str) -> Option<Arc<Regex>> {
    if let Some(known) = COMPILED.read().unwrap_or_else(PoisonError::into_inner).get(pattern) {
        return known.clone();
    }
    let regex = compile(pattern).ok().map(Arc::new);
    let mut kept = COMPILED.write().unwrap_or_else(PoisonError::into_inner);
    if kept.len() >= KEPT_MAX {
        kept.clear();
    }
    kept.insert(pattern.into(), regex.clone());
    regex
}
