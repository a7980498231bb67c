//! What is counted of each request, by what it asked for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use meta::metrics::{Bounds, Exposition, Histogram, Kind, Unit, labels};

use super::TIMES;

/// Of `apiserver_request_sli_duration_seconds`.
const SLI_TIMES: Bounds = Bounds {
    upper: &[
        50_000, 100_000, 200_000, 400_000, 600_000, 800_000, 1_000_000, 1_250_000, 1_500_000, 2_000_000,
        3_000_000, 4_000_000, 5_000_000, 6_000_000, 8_000_000, 10_000_000, 15_000_000, 20_000_000,
        30_000_000, 45_000_000, 60_000_000,
    ],
    unit: Unit::Micros,
};

/// Of `apiserver_response_sizes`.
const SIZES: Bounds = Bounds {
    upper: &[1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000],
    unit: Unit::Whole,
};

/// Of `apiserver_request_body_size_bytes`: 50,000 and 30 steps of 100,000.
const BODY_SIZES: Bounds = Bounds {
    upper: &[
        50_000, 150_000, 250_000, 350_000, 450_000, 550_000, 650_000, 750_000, 850_000, 950_000, 1_050_000,
        1_150_000, 1_250_000, 1_350_000, 1_450_000, 1_550_000, 1_650_000, 1_750_000, 1_850_000, 1_950_000,
        2_050_000, 2_150_000, 2_250_000, 2_350_000, 2_450_000, 2_550_000, 2_650_000, 2_750_000, 2_850_000,
        2_950_000, 3_050_000,
    ],
    unit: Unit::Whole,
};

/// What a request was, for its counters. Making one allocates nothing where a kind is served here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Labels {
    /// Upper case, as upstream.
    pub(crate) verb: &'static str,
    pub(crate) group: Arc<str>,
    pub(crate) version: Arc<str>,
    pub(crate) resource: Arc<str>,
    pub(crate) subresource: Arc<str>,
    /// `cluster`, `namespace`, `resource` or empty.
    pub(crate) scope: &'static str,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ended {
    pub(crate) code: u16,
    /// Nothing was to be stored.
    pub(crate) dry_run: bool,
    /// Time to the answer; `None` for watches and streams, which have no duration worth a histogram.
    pub(crate) took: Option<Duration>,
    /// What of that was waiting for its turn.
    pub(crate) waited: Duration,
    /// Bytes of the answer before compression, where they are known.
    pub(crate) size: Option<u64>,
    /// Bytes of the body, where there is one and its length is known.
    pub(crate) body: Option<u64>,
    /// Who it came from is this process itself.
    pub(crate) in_process: bool,
    /// The server ended it to protect itself.
    pub(crate) terminated: bool,
}

struct Series {
    /// By dry run and code.
    codes: Mutex<BTreeMap<(bool, u16), u64>>,
    took: Histogram,
    took_dry: OnceLock<Histogram>,
    sli: Histogram,
    sizes: Histogram,
    bodies: OnceLock<Histogram>,
    running: Arc<AtomicI64>,
    in_process: AtomicU64,
    terminated: Mutex<BTreeMap<u16, u64>>,
    aborted: AtomicU64,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            codes: Mutex::default(),
            took: Histogram::new(TIMES),
            took_dry: OnceLock::new(),
            sli: Histogram::new(SLI_TIMES),
            sizes: Histogram::new(SIZES),
            bodies: OnceLock::new(),
            running: Arc::default(),
            in_process: AtomicU64::new(0),
            terminated: Mutex::default(),
            aborted: AtomicU64::new(0),
        }
    }
}

/// All requests.
#[derive(Default)]
pub(crate) struct Requests {
    series: RwLock<HashMap<Labels, Arc<Series>>>,
    reading: Arc<AtomicI64>,
    mutating: Arc<AtomicI64>,
    reading_waits: Arc<AtomicI64>,
    mutating_waits: Arc<AtomicI64>,
    /// Of this process to itself, by method and code.
    clients: RwLock<HashMap<(&'static str, u16), Arc<Histogram>>>,
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

impl InFlight {
    fn of(gauge: &Arc<AtomicI64>) -> Self {
        gauge.fetch_add(1, Relaxed);
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Requests {
    /// Counts a request as running.
    pub(crate) fn begin(&self, class: Class, labels: &Labels) -> InFlight {
        match class {
            Class::Reading => InFlight::of(&self.reading),
            Class::Mutating => InFlight::of(&self.mutating),
            Class::Watch | Class::Connect => InFlight::of(&self.of(labels).running),
        }
    }

    /// Counts a request as waiting for its turn.
    pub(crate) fn waiting(&self, mutating: bool) -> InFlight {
        InFlight::of(if mutating { &self.mutating_waits } else { &self.reading_waits })
    }

    #[cfg(test)]
    pub(crate) fn watching(&self) -> i64 {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        let watches = series.iter().filter(|(labels, _)| labels.verb == "WATCH");
        watches.map(|(_, series)| series.running.load(Relaxed)).sum()
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, labels: &Labels, ended: &Ended) {
        let Ended { code, dry_run, took, waited, size, body, in_process, terminated } = *ended;
        let series = self.of(labels);
        let add = |to: &Mutex<BTreeMap<u16, u64>>| {
            *to.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
        };
        *series.codes.lock().unwrap_or_else(PoisonError::into_inner).entry((dry_run, code)).or_default() += 1;
        if terminated {
            add(&series.terminated);
        }
        if in_process {
            series.in_process.fetch_add(1, Relaxed);
        }
        if let Some(size) = size {
            series.sizes.observe(size);
        }
        if let Some(body) = body {
            series.bodies.get_or_init(|| Histogram::new(BODY_SIZES)).observe(body);
        }
        if let Some(took) = took {
            if dry_run {
                series.took_dry.get_or_init(|| Histogram::new(TIMES)).took(took);
            } else {
                series.took.took(took);
            }
            series.sli.took(took.saturating_sub(waited));
        }
    }

    /// Counts a request whose client left before the answer.
    pub(crate) fn aborted(&self, labels: &Labels) {
        self.of(labels).aborted.fetch_add(1, Relaxed);
    }

    /// Counts a request of this process to itself.
    pub(crate) fn client(&self, method: &'static str, code: u16, took: Duration) {
        let known = self.clients.read().unwrap_or_else(PoisonError::into_inner).get(&(method, code)).cloned();
        let of = known.unwrap_or_else(|| {
            let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
            clients.entry((method, code)).or_insert_with(|| Arc::new(Histogram::new(TIMES))).clone()
        });
        of.took(took);
    }

    fn of(&self, labels: &Labels) -> Arc<Series> {
        if let Some(series) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(labels) {
            return series.clone();
        }
        let mut requests = self.series.write().unwrap_or_else(PoisonError::into_inner);
        requests.entry(labels.clone()).or_default().clone()
    }

    pub(crate) fn expose(&self, out: &mut Exposition) {
        let series: BTreeMap<Labels, Arc<Series>> = {
            let requests = self.series.read().unwrap_or_else(PoisonError::into_inner);
            requests.iter().map(|(labels, series)| (labels.clone(), series.clone())).collect()
        };
        let shown: Vec<(String, &Labels, &Series)> =
            series.iter().map(|(labels, series)| (labels.shown(None), labels, &**series)).collect();
        expose_ends(out, &shown);
        expose_histograms(out, &shown);
        self.expose_running(out, &shown);
        self.expose_clients(out, &shown);
    }

    fn expose_running(&self, out: &mut Exposition, shown: &[(String, &Labels, &Series)]) {
        let help = "Requests being answered now.";
        let mut family = out.family("apiserver_current_inflight_requests", Kind::Gauge, help);
        family.value("request_kind=\"mutating\"", self.mutating.load(Relaxed));
        family.value("request_kind=\"readOnly\"", self.reading.load(Relaxed));
        let help = "Requests waiting for their turn now.";
        let mut family = out.family("apiserver_current_inqueue_requests", Kind::Gauge, help);
        family.value("request_kind=\"mutating\"", self.mutating_waits.load(Relaxed));
        family.value("request_kind=\"readOnly\"", self.reading_waits.load(Relaxed));
        let help = "Watches and streams that run now.";
        let mut family = out.family("apiserver_longrunning_requests", Kind::Gauge, help);
        for (text, labels, series) in shown {
            if matches!(labels.verb, "WATCH" | "CONNECT") {
                family.value(text, series.running.load(Relaxed));
            }
        }
    }

    fn expose_clients(&self, out: &mut Exposition, shown: &[(String, &Labels, &Series)]) {
        let help = "Requests of parts of this process to this server, without a socket.";
        let mut family = out.family("apiserver_selfrequest_total", Kind::Counter, help);
        let mut own: BTreeMap<String, u64> = BTreeMap::new();
        for (_, of, series) in shown {
            let text = labels(&[
                ("group", &of.group),
                ("resource", &of.resource),
                ("subresource", &of.subresource),
                ("verb", of.verb),
            ]);
            *own.entry(text).or_default() += series.in_process.load(Relaxed);
        }
        own.iter().filter(|(_, count)| **count > 0).for_each(|(text, count)| family.value(text, *count));
        let clients: BTreeMap<_, _> =
            self.clients.read().unwrap_or_else(PoisonError::into_inner).clone().into_iter().collect();
        let help = "Requests of parts of this process to this server by status code and method.";
        let mut family = out.family("rest_client_requests_total", Kind::Counter, help);
        let mut times: BTreeMap<&str, Histogram> = BTreeMap::new();
        for ((method, code), of) in &clients {
            let code = code.to_string();
            family.value(&labels(&[("code", &code), ("host", "in-process"), ("method", method)]), of.count());
            times.entry(method).or_insert_with(|| Histogram::new(TIMES)).add(of);
        }
        let help = "Time that these took, watches and streams to their beginning.";
        let mut family = out.family("rest_client_request_duration_seconds", Kind::Histogram, help);
        for (method, all) in &times {
            family.histogram(&labels(&[("host", "in-process"), ("verb", method)]), all);
        }
    }
}

fn expose_ends(out: &mut Exposition, shown: &[(String, &Labels, &Series)]) {
    let help = "Requests by verb, dry run, resource, scope and status code.";
    let mut family = out.family("apiserver_request_total", Kind::Counter, help);
    for (_, labels, series) in shown {
        let codes = series.codes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for ((dry_run, code), count) in codes {
            family.value(&format!("code=\"{code}\",{}", labels.shown(Some(dry_run))), count);
        }
    }
    let help = "Requests that the server ended to protect itself.";
    let mut family = out.family("apiserver_request_terminations_total", Kind::Counter, help);
    for (text, _, series) in shown {
        let codes = series.terminated.lock().unwrap_or_else(PoisonError::into_inner).clone();
        codes.iter().for_each(|(code, count)| family.value(&format!("code=\"{code}\",{text}"), *count));
    }
    let help = "Requests whose clients left before the answer.";
    let mut family = out.family("apiserver_request_aborts_total", Kind::Counter, help);
    for (text, _, series) in shown {
        let count = series.aborted.load(Relaxed);
        if count > 0 {
            // The one name of these without the label.
            family.value(text.trim_start_matches("component=\"apiserver\","), count);
        }
    }
}

fn expose_histograms(out: &mut Exposition, shown: &[(String, &Labels, &Series)]) {
    let help = "Time to the answer, without watches and streams.";
    let mut family = out.family("apiserver_request_duration_seconds", Kind::Histogram, help);
    for (_, labels, series) in shown {
        family.histogram(&labels.shown(Some(false)), &series.took);
        if let Some(dry) = series.took_dry.get() {
            family.histogram(&labels.shown(Some(true)), dry);
        }
    }
    // Upstream takes the time of webhooks off too; here that is part of a request like the rest.
    let help =
        "Time to the answer without what was spent waiting for a turn, and without watches and streams.";
    let mut family = out.family("apiserver_request_sli_duration_seconds", Kind::Histogram, help);
    shown.iter().for_each(|(text, _, series)| family.histogram(text, &series.sli));
    let help = "Bytes of answers before compression, without watches and streams.";
    let mut family = out.family("apiserver_response_sizes", Kind::Histogram, help);
    shown.iter().for_each(|(text, _, series)| family.histogram(text, &series.sizes));
    let help = "Bytes of request bodies.";
    let mut family = out.family("apiserver_request_body_size_bytes", Kind::Histogram, help);
    // These have no subresource, version and scope: all of one resource and verb are one.
    let mut merged: BTreeMap<String, Histogram> = BTreeMap::new();
    for (_, of, series) in shown {
        if let Some(bodies) = series.bodies.get() {
            let text = labels(&[("group", &of.group), ("resource", &of.resource), ("verb", of.verb)]);
            merged.entry(text).or_insert_with(|| Histogram::new(BODY_SIZES)).add(bodies);
        }
    }
    merged.iter().for_each(|(text, all)| family.histogram(text, all));
}

impl Labels {
    /// As text, with `dry_run` where the name has it.
    fn shown(&self, dry_run: Option<bool>) -> String {
        let Self { verb, group, version, resource, subresource, scope } = self;
        let dry_run = dry_run.map(|dry| ("dry_run", if dry { "All" } else { "" }));
        let pairs = [Some(("component", "apiserver")), dry_run]
            .into_iter()
            .flatten()
            .chain([
                ("group", &**group),
                ("resource", &**resource),
                ("scope", scope),
                ("subresource", &**subresource),
                ("verb", verb),
                ("version", &**version),
            ])
            .collect::<Vec<_>>();
        labels(&pairs)
    }
}
