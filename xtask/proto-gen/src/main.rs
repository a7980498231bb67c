//! Makes `crates/rpc/src/generated` from `crates/rpc/proto`, without protoc. Run it after a change there:
//! `cargo run --manifest-path xtask/proto-gen/Cargo.toml`. It is not in the workspace, so that building the
//! program does not build a compiler of protos.

use std::{error::Error, path::Path};

use prost::Message;

const FILES: [&str; 2] = [
    "keelson/scheduler/v1/scheduler.proto",
    "keelson/controllermanager/v1/controllermanager.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/rpc");
    let descriptors = protox::compile(FILES, [root.join("proto")])?;
    let out = root.join("src/generated");
    // Comments and positions are not what reflection is asked for.
    let mut bare = descriptors.clone();
    bare.file.iter_mut().for_each(|file| file.source_code_info = None);
    std::fs::write(out.join("descriptors.bin"), bare.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(&out)
        .emit_rerun_if_changed(false)
        // For `-o json` and `-o yaml`.
        .type_attribute(".", "#[derive(::serde::Serialize)] #[serde(rename_all = \"camelCase\")]")
        .compile_fds(descriptors)?;
    Ok(())
}
