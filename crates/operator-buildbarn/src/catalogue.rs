//! The release catalogue: images that belong together, and the one place that names them.

/// Images of one release of Buildbarn. The configuration model (`model`) is that of this release: Buildbarn changes
/// its configuration without versions, so images and model move together.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// Name of the release.
    pub name: &'static str,
    /// `bb_scheduler`.
    pub scheduler: &'static str,
    /// `bb_worker`.
    pub worker: &'static str,
    /// Brings `bb_runner`.
    pub runner_installer: &'static str,
    /// `bb_storage`.
    pub storage: &'static str,
    /// `bb_browser`.
    pub browser: &'static str,
    /// What actions run in.
    pub runner: &'static str,
    /// Prepares volumes.
    pub init: &'static str,
}

/// The release that is run where no image is given.
pub const RELEASE: Release = Release {
    name: "2026-06",
    scheduler: "ghcr.io/buildbarn/bb-scheduler:20260527T162223Z-c48dcda",
    worker: "ghcr.io/buildbarn/bb-worker:20260527T162223Z-c48dcda",
    runner_installer: "ghcr.io/buildbarn/bb-runner-installer:20260527T162223Z-c48dcda",
    storage: "ghcr.io/buildbarn/bb-storage:20260609T094425Z-10acc76",
    browser: "ghcr.io/buildbarn/bb-browser:20260415T065533Z-ee35c54",
    runner: "ghcr.io/catthehacker/ubuntu:act-22.04@sha256:dd7654ffb01d5b7b54b23b9ce928a1f7f2d08c7b3d7e320b6574b55d7ccde78b",
    init: "docker.io/library/busybox:1.31.1-uclibc",
};
