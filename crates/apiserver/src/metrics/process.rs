//! What the system says of this process, as Prometheus' client libraries do. Nothing where there is no `/proc`.

use std::fs;

use meta::metrics::{Exposition, Kind, number};

/// Ticks of the kernel's clock as programs see it (`USER_HZ`), the same on every architecture that Linux runs
/// containers on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Writes it.
pub(super) fn expose(out: &mut Exposition) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (stat, status, limits) =
        (read("/proc/self/stat"), read("/proc/self/status"), read("/proc/self/limits"));
    let open = fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
    let found: [(&str, Kind, &str, Option<f64>); 7] = [
        ("cpu_seconds_total", Kind::Counter, "Processor time of user and system.", cpu_seconds(&stat)),
        ("open_fds", Kind::Gauge, "Open file descriptors.", open.map(whole)),
        ("max_fds", Kind::Gauge, "Most open file descriptors.", limit(&limits, "Max open files")),
        ("resident_memory_bytes", Kind::Gauge, "Memory in use.", memory(&status, "VmRSS")),
        ("virtual_memory_bytes", Kind::Gauge, "Addresses in use.", memory(&status, "VmSize")),
        (
            "virtual_memory_max_bytes",
            Kind::Gauge,
            "Most addresses in use.",
            limit(&limits, "Max address space"),
        ),
        (
            "start_time_seconds",
            Kind::Gauge,
            "When the process began, in seconds since 1970.",
            started(&stat, &read("/proc/stat")),
        ),
    ];
    for (name, kind, help, value) in found {
        if let Some(value) = value {
            out.family(&format!("process_{name}"), kind, help).value("", number(value));
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts of files are small")]
fn whole(count: usize) -> f64 {
    count as f64
}

/// The `n`th field of `/proc/self/stat`, counted from one as its manual does.
fn field(stat: &str, n: usize) -> Option<f64> {
    // The second is the name in brackets, which may hold blanks.
    stat.rsplit_once(')')?.1.split_whitespace().nth(n.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / TICKS_PER_SECOND)
}

fn started(stat: &str, system: &str) -> Option<f64> {
    let boot: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + field(stat, 22)? / TICKS_PER_SECOND)
}

fn memory(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

/// The soft limit of a name; none that is not limited.
fn limit(limits: &str, name: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_words_are_read() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 10 0 0 0 150 50 0 0 20 0 9 0 1234 99 3";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(started(stat, "cpu 1\nbtime 1000\n"), Some(1012.34));
        assert_eq!(memory("VmPeak:\t9 kB\nVmRSS:\t  2 kB\n", "VmRSS"), Some(2048.0));
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files   1024   4096   files\nMax address space  unlimited unlimited bytes\n";
        assert_eq!(limit(limits, "Max open files"), Some(1024.0));
        assert_eq!(limit(limits, "Max address space"), None);
        assert_eq!(cpu_seconds(""), None);
    }
}
