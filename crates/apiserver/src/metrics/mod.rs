//! What this server counts, under the names and labels that upstream documents and dashboards use.
//!
//! Guarantees: counting a request takes a lock only for the moment of finding its numbers, and allocates nothing
//! once a request like it was seen; no client can make up labels: they are names of what is served, of what the
//! cluster has configured, and words of this program.

mod admission;
mod process;
mod requests;
mod stored;
mod watches;
mod webhooks;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use meta::metrics::{Bounds, Exposition, Histogram, Kind, Unit, labels};

use crate::Cache;

pub(crate) use admission::{AdmissionTimes, Step};
pub(crate) use requests::{Class, Ended, InFlight, Labels, Requests};
pub(crate) use stored::{Write, Writes};
pub(crate) use watches::{Tally, WatchSeries, Watches};
pub(crate) use webhooks::{Called, WebhookCounts};

/// Of request durations and of times at the store, upstream's.
const TIMES: Bounds = Bounds {
    upper: &[
        5_000, 25_000, 50_000, 100_000, 200_000, 400_000, 600_000, 800_000, 1_000_000, 1_250_000, 1_500_000,
        2_000_000, 3_000_000, 4_000_000, 5_000_000, 6_000_000, 8_000_000, 10_000_000, 15_000_000, 20_000_000,
        30_000_000, 45_000_000, 60_000_000,
    ],
    unit: Unit::Micros,
};

/// Of authentication and authorization: a millisecond, doubled fifteen times.
const GUARD_TIMES: Bounds = Bounds {
    upper: &[
        1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_024_000, 2_048_000,
        4_096_000, 8_192_000, 16_384_000,
    ],
    unit: Unit::Micros,
};

/// Of `apiserver_client_certificate_expiration_seconds`: from nothing over hours and days to a year.
const CERTIFICATE_TIMES: Bounds = Bounds {
    upper: &[
        0, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400, 172_800, 345_600, 604_800, 2_592_000, 7_776_000,
        15_552_000, 31_104_000,
    ],
    unit: Unit::Whole,
};

/// What an authenticator or authorizer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Success,
    Failure,
    Error,
    Allowed,
    Denied,
    NoOpinion,
}

const VERDICTS: [(Verdict, &str); 6] = [
    (Verdict::Success, "success"),
    (Verdict::Failure, "failure"),
    (Verdict::Error, "error"),
    (Verdict::Allowed, "allowed"),
    (Verdict::Denied, "denied"),
    (Verdict::NoOpinion, "no-opinion"),
];

/// Users that are counted by name; all others are counted together, so that no name of a person is shown.
const USERS: [&str; 7] = [
    "admin",
    "client",
    "kube_proxy",
    "kubelet",
    "system:serviceaccount:kube-system:default",
    "email_id",
    "other",
];

/// How long a guard took, by its verdict.
struct Guard([Histogram; VERDICTS.len()]);

impl Default for Guard {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Histogram::new(GUARD_TIMES)))
    }
}

impl Guard {
    fn took(&self, verdict: Verdict, took: std::time::Duration) {
        let mut all = VERDICTS.iter().zip(&self.0);
        if let Some((_, times)) = all.find(|((of, _), _)| *of == verdict) {
            times.took(took);
        }
    }

    fn expose(&self, out: &mut Exposition, attempts: (&str, &str), times: (&str, &str)) {
        let all = || {
            let named = VERDICTS.iter().zip(&self.0);
            named.map(|((_, name), times)| (labels(&[("result", name)]), times))
        };
        let mut family = out.family(attempts.0, Kind::Counter, attempts.1);
        all().filter(|(_, times)| times.count() > 0).for_each(|(text, of)| family.value(&text, of.count()));
        let mut family = out.family(times.0, Kind::Histogram, times.1);
        all().for_each(|(text, times)| family.histogram(&text, times));
    }
}

/// What a server counts.
pub(crate) struct Metrics {
    pub(crate) requests: Requests,
    pub(crate) watches: Watches,
    pub(crate) admission: AdmissionTimes,
    authentication: Guard,
    authorization: Guard,
    users: [AtomicU64; USERS.len()],
    certificates: Histogram,
    handshake_errors: AtomicU64,
}

impl Metrics {
    /// Nothing counted yet. `plugins` are the admission plugins in their order.
    pub(crate) fn new(plugins: impl Iterator<Item = &'static str>) -> Arc<Self> {
        Arc::new(Self {
            requests: Requests::default(),
            watches: Watches::default(),
            admission: AdmissionTimes::new(plugins),
            authentication: Guard::default(),
            authorization: Guard::default(),
            users: Default::default(),
            certificates: Histogram::new(CERTIFICATE_TIMES),
            handshake_errors: AtomicU64::new(0),
        })
    }

    /// Counts somebody who proved, or did not prove, who they are.
    pub(crate) fn authenticated(&self, verdict: Verdict, user: Option<&str>, took: std::time::Duration) {
        self.authentication.took(verdict, took);
        if let Some(user) = user {
            let known = USERS.iter().take(USERS.len() - 2).position(|known| *known == user);
            let at = known.unwrap_or(USERS.len() - if user.contains('@') { 2 } else { 1 });
            if let Some(count) = self.users.get(at) {
                count.fetch_add(1, Relaxed);
            }
        }
    }

    /// Counts a decision about what somebody may do.
    pub(crate) fn authorized(&self, verdict: Verdict, took: std::time::Duration) {
        self.authorization.took(verdict, took);
    }

    /// Counts a request by a certificate that is good for so many more seconds.
    pub(crate) fn certified(&self, seconds_left: i64) {
        self.certificates.observe(u64::try_from(seconds_left).unwrap_or(0));
    }

    /// Counts a connection that did not come to TLS.
    pub(crate) fn handshake_failed(&self) {
        self.handshake_errors.fetch_add(1, Relaxed);
    }

    /// Writes everything. `version` is what `/version` says.
    pub(crate) fn expose(&self, out: &mut Exposition, cache: &Cache, version: &serde_json::Value) {
        build_info(out, version);
        self.requests.expose(out);
        self.watches.expose(out);
        self.admission.expose(out);
        self.authentication.expose(
            out,
            ("authentication_attempts", "Attempts to prove who one is by result."),
            ("authentication_duration_seconds", "Time that takes by result."),
        );
        let mut family =
            out.family("authenticated_user_requests", Kind::Counter, "Requests by sort of user.");
        for (user, count) in USERS.iter().zip(&self.users) {
            let count = count.load(Relaxed);
            if count > 0 {
                family.value(&labels(&[("username", user)]), count);
            }
        }
        self.authorization.expose(
            out,
            ("authorization_attempts_total", "Decisions about what somebody may do by result."),
            ("authorization_duration_seconds", "Time that takes by result."),
        );
        let help = "Seconds that the certificate of a request is still good for.";
        out.family("apiserver_client_certificate_expiration_seconds", Kind::Histogram, help)
            .histogram("", &self.certificates);
        let help = "Connections that did not come to TLS.";
        out.family("apiserver_tls_handshake_errors_total", Kind::Counter, help)
            .value("", self.handshake_errors.load(Relaxed));
        stored::expose(out, cache);
        process::expose(out);
    }
}

/// `kubernetes_build_info`, by which dashboards tell versions apart.
fn build_info(out: &mut Exposition, version: &serde_json::Value) {
    let member = |name: &str| version.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
    let text = labels(&[
        ("build_date", member("buildDate")),
        ("compiler", member("compiler")),
        ("git_commit", member("gitCommit")),
        ("git_tree_state", member("gitTreeState")),
        ("git_version", member("gitVersion")),
        ("go_version", member("goVersion")),
        ("major", member("major")),
        ("minor", member("minor")),
        ("platform", member("platform")),
    ]);
    out.family("kubernetes_build_info", Kind::Gauge, "What is running.").value(&text, 1);
}

#[cfg(test)]
mod tests;
