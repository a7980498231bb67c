//! The Node object: what the machine has ([`Measured`]), what is reported of it ([`object`]).
//!
//! Guarantees: capacity and conditions come from measurements, allocatable from capacity less what is
//! reserved. Pure, but for [`measure`].

pub mod measure;
pub mod object;

use std::collections::BTreeMap;

/// Size and load of a machine at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// CPUs.
    pub cpus: u64,
    /// CPU time spent since the machine started; 0 when there is no such count.
    pub cpu_nanoseconds: u64,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Memory that programs can still get, bytes.
    pub memory_available_bytes: u64,
    /// File system of the node's directory, bytes.
    pub disk_bytes: u64,
    /// Free of it, bytes.
    pub disk_available_bytes: u64,
    /// Inodes of it.
    pub inodes: u64,
    /// Free of them.
    pub inodes_free: u64,
    /// Most processes.
    pub pids_max: u64,
    /// Processes now.
    pub pids: u64,
    /// Huge pages by resource name (`hugepages-2Mi`), bytes.
    pub huge_pages: BTreeMap<String, u64>,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// DMI product uuid; the machine id when it cannot be read.
    pub system_uuid: String,
    /// Changes with each boot.
    pub boot_id: String,
    /// `uname -r`.
    pub kernel: String,
    /// PRETTY_NAME of os-release.
    pub os_image: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
}
