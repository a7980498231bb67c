//! Rules about the text of the sources: length, words, the clock.

use std::{fs, path::Path};

/// Lines of a source file, tests aside. Longer files are where a reader gets lost.
const LINES_MAX: usize = 600;
/// Files that were longer when the rule came, and how long they may be at most. The list only shrinks.
const LONGER: &[(&str, usize)] = &[("crates/rpc/src/generated/keelson.controllermanager.v1.rs", 720)];
/// Names that say nothing.
const NAMES: &[&str] = &["util.rs", "utils.rs", "helper.rs", "helpers.rs", "common.rs", "misc.rs"];
/// Real time and dice, which only adapters and programs may touch, and the layers that may not.
const REAL_TIME: &[&str] = &["SystemTime::now", "Timestamp::now()", "Utc::now", "rand::rng", "thread_rng"];
const PURE: &[&str] = &[
    "meta",
    "schema",
    "resource",
    "store",
    "runtime",
    "kinds",
    "reconcile",
    "controllers",
    "scheduler",
    "node",
    "network",
];

/// Everything in the sources that breaks a rule.
pub(crate) fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut wrong = Vec::new();
    walk(&root.join("crates"), &mut |path| file(root, path, &mut wrong))?;
    Ok(wrong)
}

fn walk(directory: &Path, visit: &mut impl FnMut(&Path) -> Result<(), String>) -> Result<(), String> {
    let failed = |error| format!("read {}: {error}", directory.display());
    let mut entries: Vec<_> = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(failed)?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, visit)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            visit(&path)?;
        }
    }
    Ok(())
}

fn file(root: &Path, path: &Path, wrong: &mut Vec<String>) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|error| format!("read {}: {error}", path.display()))?;
    let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if NAMES.contains(&name) {
        wrong.push(format!("{shown}: name the file by what it holds"));
    }
    if name == "xtask" || shown.starts_with("crates/xtask/") {
        return Ok(());
    }
    let tests = shown.contains("/tests/") || name == "tests.rs";
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().count();
    let limit = LONGER.iter().find(|(longer, _)| *longer == shown).map_or(LINES_MAX, |(_, limit)| *limit);
    if lines > limit && !tests {
        wrong.push(format!("{shown}: {lines} lines, {limit} at most: split it by idea"));
    }
    let pure = !tests && PURE.iter().any(|name| shown.starts_with(&format!("crates/{name}/src/")));
    for call in REAL_TIME.iter().filter(|call| pure && code.contains(**call)) {
        wrong.push(format!("{shown}: {call}: time and chance are passed in"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_sources_are_tidy() {
        assert_eq!(super::check(&crate::root()).unwrap(), Vec::<String>::new());
    }
}
