//! Measuring the machine: /proc, /sys, statvfs. Blocking.

use std::{collections::BTreeMap, fs, path::Path};

use super::Measured;
use crate::host::{HostError, Result};

/// Measures; `root` is on the file system that pods use.
pub fn machine(root: &Path) -> Result<Measured> {
    let meminfo = read("/proc/meminfo")?;
    let kib = |name: &str| meminfo_field(&meminfo, name).unwrap_or_default() * 1024;
    fs::create_dir_all(root).map_err(|error| HostError::io("create directory", root, error))?;
    let disk = rustix::fs::statvfs(root)
        .map_err(|error| HostError::io("inspect the file system of", root, error))?;
    let uname = rustix::system::uname();
    let machine_id = optional("/etc/machine-id");
    let system_uuid = optional("/sys/class/dmi/id/product_uuid").to_lowercase();
    Ok(Measured {
        cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
        cpu_nanoseconds: cpu_nanoseconds(&read("/proc/stat")?),
        memory_bytes: kib("MemTotal"),
        memory_available_bytes: kib("MemAvailable"),
        disk_bytes: disk.f_blocks * disk.f_frsize,
        disk_available_bytes: disk.f_bavail * disk.f_frsize,
        inodes: disk.f_files,
        inodes_free: disk.f_ffree,
        pids_max: optional("/proc/sys/kernel/pid_max").parse().unwrap_or(32_768),
        pids: processes(&read("/proc/loadavg")?),
        huge_pages: huge_pages(),
        system_uuid: if system_uuid.is_empty() { machine_id.clone() } else { system_uuid },
        machine_id,
        boot_id: optional("/proc/sys/kernel/random/boot_id"),
        kernel: uname.release().to_string_lossy().into_owned(),
        os_image: os_image(&optional("/etc/os-release")),
        architecture: architecture(&uname.machine().to_string_lossy()).to_owned(),
    })
}

/// All but idle time and waiting for disks, of the line `cpu  user nice system idle iowait irq softirq steal`
/// in hundredths of a second (`USER_HZ` is 100 wherever Linux runs containers).
fn cpu_nanoseconds(stat: &str) -> u64 {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let times = line.split_whitespace().map(|time| time.parse::<u64>().unwrap_or(0));
    let busy = times.take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, time)| time);
    busy.sum::<u64>().saturating_mul(10_000_000)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|error| HostError::io("read", path, error))
}

/// What a machine may not have.
fn optional(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn meminfo_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `running/total` is the fourth field; threads count, as in the kernel's own limit.
fn processes(loadavg: &str) -> u64 {
    let field = loadavg.split_whitespace().nth(3).and_then(|field| field.split('/').nth(1));
    field.and_then(|total| total.parse().ok()).unwrap_or_default()
}

fn huge_pages() -> BTreeMap<String, u64> {
    let Ok(entries) = fs::read_dir("/sys/kernel/mm/hugepages") else { return BTreeMap::new() };
    let sizes = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count: u64 = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
        let size = if kib >= 1 << 20 { format!("{}Gi", kib >> 20) } else { format!("{}Mi", kib >> 10) };
        Some((format!("hugepages-{size}"), count * kib * 1024))
    });
    sizes.collect()
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map(|name| name.trim_matches('"').to_owned()).unwrap_or_else(|| "Linux".to_owned())
}

/// Go's name of an architecture.
fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" => "arm",
        "i686" => "386",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_forms() {
        assert_eq!(meminfo_field("MemTotal:       16 kB\nMemAvailable:    5 kB\n", "MemAvailable"), Some(5));
        assert_eq!(processes("0.00 0.01 0.05 1/213 4711"), 213);
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        let dir = tempfile::tempdir().unwrap();
        let measured = machine(dir.path()).unwrap();
        assert!(measured.cpus > 0 && measured.memory_bytes > 0 && measured.disk_bytes > 0);
        assert!(measured.memory_available_bytes <= measured.memory_bytes);
    }
}
