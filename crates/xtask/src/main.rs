//! `cargo xtask ci`: the whole gate, the same here and in CI. `cargo xtask tidy`: only the rules that no
//! compiler knows. `cargo xtask sim --seed N --hours H`: simulations of a cluster, optimised.

mod layers;
mod tidy;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    let task = std::env::args().nth(1).unwrap_or_default();
    let result = match task.as_str() {
        "ci" => ci(),
        "tidy" => rules(),
        "sim" => sim(),
        _ => Err("usage: cargo xtask ci|tidy|sim".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The directory of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

fn rules() -> Result<(), String> {
    let mut wrong = layers::check(&layers::metadata()?)?;
    wrong.extend(tidy::check(&root())?);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("{} rule(s) broken:\n  {}", wrong.len(), wrong.join("\n  ")))
    }
}

fn sim() -> Result<(), String> {
    let own: Vec<String> = std::env::args().skip(2).collect();
    let mut arguments = vec!["run", "--release", "--quiet", "--package", "sim", "--"];
    arguments.extend(own.iter().map(String::as_str));
    step("cargo", &arguments)
}

fn ci() -> Result<(), String> {
    step("cargo", &["fmt", "--all", "--check"])?;
    rules()?;
    step(
        "cargo",
        &["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"],
    )?;
    step("cargo", &["test", "--workspace", "--locked", "--no-fail-fast"])
}

fn step(program: &str, arguments: &[&str]) -> Result<(), String> {
    println!("xtask: {program} {}", arguments.join(" "));
    let status = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .status()
        .map_err(|error| format!("start {program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} {} failed", arguments.join(" "))) }
}
