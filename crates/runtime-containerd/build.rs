//! Compiles the pause program, statically, so that the sandbox image can be made without a registry
//! (`src/pause.rs`). `cc` and a static libc are what Rust's own linker needs on Debian: gcc, libc6-dev.

use std::{env, path::PathBuf, process::Command};

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=pause/pause.c");
    println!("cargo::rerun-if-env-changed=CC");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo gives no OUT_DIR")?).join("pause");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let status = Command::new(&compiler)
        .args(["-Os", "-static", "-s", "-o"])
        .arg(&out)
        .arg("pause/pause.c")
        .status()
        .map_err(|error| format!("cannot run {compiler}: {error}; install gcc and libc6-dev"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{compiler} cannot link statically; install libc6-dev"))
    }
}
