//! Counters under the names that dashboards use, in Prometheus text form.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::Cache;

/// Upper bounds of `apiserver_request_duration_seconds`, upstream's, in microseconds.
const BUCKETS_US: [u64; 23] = [
    5_000, 25_000, 50_000, 100_000, 200_000, 400_000, 600_000, 800_000, 1_000_000, 1_250_000, 1_500_000,
    2_000_000, 3_000_000, 4_000_000, 5_000_000, 6_000_000, 8_000_000, 10_000_000, 15_000_000, 20_000_000,
    30_000_000, 45_000_000, 60_000_000,
];

/// Upper bounds of `apiserver_response_sizes`, upstream's.
const SIZES: [u64; 7] = [1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// What a request was, for its counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Labels {
    /// Upper case, as upstream.
    pub(crate) verb: &'static str,
    pub(crate) group: Arc<str>,
    pub(crate) version: Arc<str>,
    pub(crate) resource: Arc<str>,
    pub(crate) subresource: String,
    /// `cluster`, `namespace`, `resource` or empty.
    pub(crate) scope: &'static str,
}

#[derive(Default)]
struct Series {
    codes: Mutex<BTreeMap<u16, u64>>,
    buckets: [AtomicU64; BUCKETS_US.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
    sizes: [AtomicU64; SIZES.len()],
    sized: AtomicU64,
    size_sum: AtomicU64,
}

/// What the server counts.
#[derive(Default)]
pub struct Metrics {
    requests: RwLock<HashMap<Labels, Arc<Series>>>,
    reading: Arc<AtomicI64>,
    mutating: Arc<AtomicI64>,
    watches: Arc<AtomicI64>,
    connects: Arc<AtomicI64>,
}

/// Which gauge a request is in while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Reading,
    Mutating,
    Watch,
    Connect,
}

/// Counts one running request until it is dropped.
pub(crate) struct InFlight(Arc<AtomicI64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request as running.
    pub(crate) fn begin(&self, class: Class) -> InFlight {
        let gauge = match class {
            Class::Reading => &self.reading,
            Class::Mutating => &self.mutating,
            Class::Watch => &self.watches,
            Class::Connect => &self.connects,
        };
        gauge.fetch_add(1, Ordering::Relaxed);
        InFlight(gauge.clone())
    }

    #[cfg(test)]
    pub(super) fn watching(&self) -> i64 {
        self.watches.load(Ordering::Relaxed)
    }

    /// Counts an answered request. Watches and streams have no duration worth a histogram, and no size.
    pub(crate) fn answered(&self, labels: &Labels, code: u16, took: Option<Duration>, size: Option<u64>) {
        let series = self.series(labels);
        if let Some(size) = size {
            let at = SIZES.partition_point(|bound| *bound < size);
            if let Some(bucket) = series.sizes.get(at) {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
            series.sized.fetch_add(1, Ordering::Relaxed);
            series.size_sum.fetch_add(size, Ordering::Relaxed);
        }
        *series.codes.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
        let Some(took) = took else { return };
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = BUCKETS_US.partition_point(|bound| *bound < took);
        if let Some(bucket) = series.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        series.count.fetch_add(1, Ordering::Relaxed);
        series.sum_us.fetch_add(took, Ordering::Relaxed);
    }

    fn series(&self, labels: &Labels) -> Arc<Series> {
        if let Some(series) = self.requests.read().unwrap_or_else(PoisonError::into_inner).get(labels) {
            return series.clone();
        }
        let mut requests = self.requests.write().unwrap_or_else(PoisonError::into_inner);
        requests.entry(labels.clone()).or_default().clone()
    }

    /// The text that `/metrics` answers. `version` is what `/version` says.
    pub(crate) fn text(&self, cache: &Cache, version: &serde_json::Value) -> String {
        let mut out = build_info(version);
        let series: BTreeMap<Labels, Arc<Series>> = {
            let requests = self.requests.read().unwrap_or_else(PoisonError::into_inner);
            requests.iter().map(|(labels, series)| (labels.clone(), series.clone())).collect()
        };
        // Writing to a String cannot fail.
        let _ = self.write(&mut out, &series, cache);
        out
    }

    fn write(
        &self,
        out: &mut String,
        series: &BTreeMap<Labels, Arc<Series>>,
        cache: &Cache,
    ) -> std::fmt::Result {
        heading(out, "apiserver_request_total", "counter", "Requests by verb, resource and status code.")?;
        for (labels, series) in series {
            let codes = series.codes.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for (code, count) in codes {
                writeln!(out, "apiserver_request_total{{code=\"{code}\",{labels}}} {count}")?;
            }
        }
        let name = "apiserver_request_duration_seconds";
        heading(out, name, "histogram", "Time to the answer, without watches and streams.")?;
        for (labels, series) in series {
            series.write(out, name, labels)?;
        }
        // Upstream takes the time of webhooks off; here that is part of a request like the rest.
        let name = "apiserver_request_sli_duration_seconds";
        heading(out, name, "histogram", "Time to the answer, without watches and streams.")?;
        for (labels, series) in series {
            series.write(out, name, labels)?;
        }
        let name = "apiserver_response_sizes";
        heading(out, name, "histogram", "Bytes of answers before compression, without watches and streams.")?;
        for (labels, series) in series {
            series.write_sizes(out, name, labels)?;
        }
        let name = "apiserver_current_inflight_requests";
        heading(out, name, "gauge", "Requests being answered now.")?;
        writeln!(out, "{name}{{request_kind=\"readOnly\"}} {}", self.reading.load(Ordering::Relaxed))?;
        writeln!(out, "{name}{{request_kind=\"mutating\"}} {}", self.mutating.load(Ordering::Relaxed))?;
        let name = "apiserver_longrunning_requests";
        heading(out, name, "gauge", "Watches and streams that run now.")?;
        writeln!(out, "{name}{{verb=\"WATCH\"}} {}", self.watches.load(Ordering::Relaxed))?;
        writeln!(out, "{name}{{verb=\"CONNECT\"}} {}", self.connects.load(Ordering::Relaxed))?;
        let name = "apiserver_storage_objects";
        heading(out, name, "gauge", "Stored objects by kind.")?;
        for (resource, kind) in cache.kinds() {
            writeln!(out, "{name}{{resource=\"{resource}\"}} {}", kind.snapshot().len())?;
        }
        let name = "apiserver_registered_watchers";
        heading(out, name, "gauge", "Watches that run now by stored kind.")?;
        for (resource, kind) in cache.kinds() {
            writeln!(out, "{name}{{resource=\"{resource}\"}} {}", kind.watchers())?;
        }
        Ok(())
    }
}

impl Series {
    fn write(&self, out: &mut String, name: &str, labels: &Labels) -> std::fmt::Result {
        let count = self.count.load(Ordering::Relaxed);
        if count == 0 {
            return Ok(());
        }
        let mut below = 0;
        for (bound, bucket) in BUCKETS_US.iter().zip(&self.buckets) {
            below += bucket.load(Ordering::Relaxed);
            writeln!(out, "{name}_bucket{{{labels},le=\"{}\"}} {below}", seconds(*bound))?;
        }
        writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
        writeln!(out, "{name}_sum{{{labels}}} {}", seconds(self.sum_us.load(Ordering::Relaxed)))?;
        writeln!(out, "{name}_count{{{labels}}} {count}")
    }
}

/// `kubernetes_build_info`, by which dashboards tell versions apart.
fn build_info(version: &serde_json::Value) -> String {
    let labels: Vec<String> = [
        ("build_date", "buildDate"),
        ("compiler", "compiler"),
        ("git_commit", "gitCommit"),
        ("git_tree_state", "gitTreeState"),
        ("git_version", "gitVersion"),
        ("go_version", "goVersion"),
        ("major", "major"),
        ("minor", "minor"),
        ("platform", "platform"),
    ]
    .iter()
    .map(|(label, member)| {
        format!("{label}={}", version.get(*member).unwrap_or(&serde_json::Value::String(String::new())))
    })
    .collect();
    format!(
        "# HELP kubernetes_build_info What is running.\n# TYPE kubernetes_build_info gauge\n\
         kubernetes_build_info{{{}}} 1\n",
        labels.join(",")
    )
}

fn seconds(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64()
}

impl Series {
    fn write_sizes(&self, out: &mut String, name: &str, labels: &Labels) -> std::fmt::Result {
        let count = self.sized.load(Ordering::Relaxed);
        if count == 0 {
            return Ok(());
        }
        let mut below = 0;
        for (bound, bucket) in SIZES.iter().zip(&self.sizes) {
            below += bucket.load(Ordering::Relaxed);
            writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}")?;
        }
        writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
        writeln!(out, "{name}_sum{{{labels}}} {}", self.size_sum.load(Ordering::Relaxed))?;
        writeln!(out, "{name}_count{{{labels}}} {count}")
    }
}

fn heading(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { verb, group, version, resource, subresource, scope } = self;
        write!(
            f,
            "component=\"apiserver\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",\
             subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_label_and_bucket() {
        let metrics = Metrics::default();
        let labels =
            Labels { verb: "GET", version: "v1".into(), resource: "pods".into(), ..Labels::default() };
        metrics.answered(&labels, 200, Some(Duration::from_millis(30)), Some(1_001));
        metrics.answered(&labels, 404, Some(Duration::from_millis(1)), None);
        let running = metrics.begin(Class::Watch);
        let version = serde_json::json!({"gitVersion": "v1.36.0+test", "minor": "36"});
        let text = metrics.text(&Cache::empty(), &version);
        for line in [
            "apiserver_request_total{code=\"200\",component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"\",subresource=\"\",verb=\"GET\",version=\"v1\"} 1",
            "version=\"v1\",le=\"0.005\"} 1",
            "version=\"v1\",le=\"0.05\"} 2",
            "version=\"v1\",le=\"+Inf\"} 2",
            "apiserver_response_sizes_bucket{component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"\",subresource=\"\",verb=\"GET\",version=\"v1\",le=\"10000\"} 1",
            "apiserver_request_sli_duration_seconds_count{component",
            "git_version=\"v1.36.0+test\",go_version=\"\",major=\"\",minor=\"36\"",
            "apiserver_longrunning_requests{verb=\"WATCH\"} 1",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        drop(running);
        assert!(
            metrics
                .text(&Cache::empty(), &version)
                .contains("apiserver_longrunning_requests{verb=\"WATCH\"} 0")
        );
    }
}
