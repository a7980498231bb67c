//! Loads images from a tar file.
//!
//! By the program `ctr`, which containerd's package brings along in Debian and upstream: reading layouts
//! and archives of both formats, unpacking layers and telling half-made images from whole ones is a few
//! hundred lines in containerd's client library, for which there is no Rust crate, and loading is rare.

use std::{path::Path, time::Duration};

use runtime::{Error, ErrorKind, Result, Runtime, Step};
use tokio::process::Command;

use super::{Settings, missing::Programs};
use crate::{Containerd, connection::NAMESPACE};

/// How long CRI may take to see an image that was loaded beside it: it learns of images by events, and waits
/// 1, 2, 4... seconds before it looks again where an event came too early.
const SEEN: Duration = Duration::from_secs(60);

/// Loads a file; the names of its images.
pub(super) async fn file(
    runtime: &Containerd,
    settings: &Settings,
    programs: &Programs,
    file: &Path,
) -> Result<Vec<String>> {
    let subject = file.display().to_string();
    let failed = |message: String| Error::new(Step::PullImage, &subject, ErrorKind::Internal, message);
    if let Err(error) = tokio::fs::File::open(file).await {
        return Err(failed(format!("cannot read the file: {error}")));
    }
    let said = Command::new(&programs.ctr)
        .arg("--address")
        .arg(settings.socket())
        .args(["--namespace", NAMESPACE, "images", "import", "--snapshotter", programs.snapshotter])
        .arg(file)
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| failed(format!("cannot run {}: {error}", programs.ctr.display())))?;
    if !said.status.success() {
        let why = String::from_utf8_lossy(&said.stderr).trim().to_owned();
        return Err(failed(format!(
            "it is no image that containerd can load (an OCI layout or `docker save` tar): {why}"
        )));
    }
    let names = names(&String::from_utf8_lossy(&said.stdout));
    if names.is_empty() {
        return Err(failed("the file has no image with a name".into()));
    }
    for name in &names {
        let seen = async {
            while runtime.image_status(name).await?.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        tokio::time::timeout(SEEN, seen).await.unwrap_or_else(|_elapsed| {
            Err(failed(format!("image {name} was loaded, but containerd's CRI plugin does not show it")))
        })?;
    }
    Ok(names)
}

/// `ctr` says `unpacking NAME (sha256:...)...done` of each image.
fn names(said: &str) -> Vec<String> {
    said.lines()
        .filter_map(|line| {
            line.trim().strip_prefix("unpacking ")?.split_once(" (").map(|(name, _)| name.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_what_ctr_says() {
        let said = "unpacking docker.io/library/a:1 (sha256:12)...done\nunpacking docker.io/library/a:latest (sha256:12)...done\n";
        assert_eq!(names(said), ["docker.io/library/a:1", "docker.io/library/a:latest"]);
        assert!(names("").is_empty());
    }
}
