//! The sandbox image: one static program, compiled by this crate's build script and packed here, so that
//! pods can start on a machine that has no registry and no image yet.

use std::io;

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

/// Its name.
pub(crate) const NAME: &str = "keelson.dev/pause:1";

/// The program (`pause/pause.c`).
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The image as an OCI layout in a tar file. The same program gives the same bytes.
pub(crate) fn image_tar() -> io::Result<Vec<u8>> {
    let layer = tar(&[("pause", PROGRAM, 0o755)])?;
    let layer_digest = sha256(&layer);
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
    if let Some(entry) = entry.as_object_mut() {
        entry.insert("annotations".into(), json!({"io.containerd.image.name": NAME}));
    }
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
    tar(&[
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644),
        ("index.json", index.as_bytes(), 0o644),
        (&blob(config.as_bytes()), config.as_bytes(), 0o644),
        (&blob(manifest.as_bytes()), manifest.as_bytes(), 0o644),
        (&blob(&layer), &layer, 0o644),
    ])
}

fn tar(files: &[(&str, &[u8], u32)]) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(1_700_000_000);
        tar.append_data(&mut header, path, *bytes)?;
    }
    tar.into_inner()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len()})
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Go's name of this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_static_and_small_and_the_image_is_the_same_twice() {
        assert!(PROGRAM.starts_with(b"\x7fELF") && PROGRAM.len() < 2 << 20);
        assert_eq!(image_tar().unwrap(), image_tar().unwrap());
    }
}
