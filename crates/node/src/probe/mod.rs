//! Probes: what is asked ([`Check`], [`Target`]), how often ([`Schedule`]), and when repeated answers
//! become a verdict ([`Tally`]).
//!
//! Guarantees upstream's thresholds and defaults (`pkg/kubelet/prober/worker.go`). Pure, but for
//! [`watch`], which waits and asks.

mod watch;

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

pub use watch::{Answer, Asker, Subject, watch};

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "Kubernetes' names")]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    /// As in events: `Liveness probe failed: ...`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// The probe of this kind that `container` has.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// Something to reach over the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// GET; 200 to 399 is healthy.
    Http {
        /// TLS, unverified.
        https: bool,
        /// Address or name.
        host: String,
        /// Port.
        port: u16,
        /// Path with query.
        path: String,
        /// Further headers.
        headers: Vec<(String, String)>,
    },
    /// A connection that opens is healthy.
    Tcp {
        /// Address or name.
        host: String,
        /// Port.
        port: u16,
    },
    /// `grpc.health.v1.Health/Check`; SERVING is healthy.
    Grpc {
        /// Address or name.
        host: String,
        /// Port.
        port: u16,
        /// Service to ask about.
        service: String,
    },
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Run this in the container; exit code 0 is healthy.
    Exec(Vec<String>),
    /// Ask over the network.
    Network(Target),
}

/// How often to ask and how many answers make a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields of v1.Probe")]
pub struct Schedule {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
    pub grace: Option<Duration>,
}

impl Schedule {
    /// Reads a probe; fields that are 0 or not set take upstream's defaults.
    pub fn of(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            let value = value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0);
            Duration::from_secs(value.unwrap_or(default))
        };
        let count = |value: Option<i32>, default: u32| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
        };
        let grace = probe.termination_grace_period_seconds.and_then(|value| u64::try_from(value).ok());
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
            grace: grace.map(Duration::from_secs),
        }
    }
}

/// Counts like answers until they are enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    last: Option<bool>,
    run: u32,
}

impl Tally {
    /// Takes one answer; `Some` when it has been given often enough to count.
    pub fn add(&mut self, healthy: bool, schedule: &Schedule) -> Option<bool> {
        if self.last == Some(healthy) {
            self.run = self.run.saturating_add(1);
        } else {
            *self = Self { last: Some(healthy), run: 1 };
        }
        let enough = if healthy { schedule.success_threshold } else { schedule.failure_threshold };
        (self.run >= enough).then_some(healthy)
    }
}

/// What `probe` of `container` does in a pod whose address is `ip`. The error says what is wrong with
/// the probe itself; it counts as a failed answer.
pub fn check(container: &Container, probe: &Probe, ip: &str) -> Result<Check, String> {
    if let Some(exec) = &probe.exec {
        return Ok(Check::Exec(exec.command.clone().unwrap_or_default()));
    }
    if let Some(get) = &probe.http_get {
        return http(container, get, ip).map(Check::Network);
    }
    if let Some(tcp) = &probe.tcp_socket {
        let host = tcp.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| ip.to_owned());
        return Ok(Check::Network(Target::Tcp { host, port: port(container, &tcp.port)? }));
    }
    if let Some(grpc) = &probe.grpc {
        let port = u16::try_from(grpc.port).map_err(|_| format!("invalid port number: {}", grpc.port))?;
        let service = grpc.service.clone().unwrap_or_default();
        return Ok(Check::Network(Target::Grpc { host: ip.to_owned(), port, service }));
    }
    Err("missing probe handler".to_owned())
}

/// The target of an `httpGet`, of a probe or a hook.
pub fn http(container: &Container, get: &HTTPGetAction, ip: &str) -> Result<Target, String> {
    let host = get.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| ip.to_owned());
    let path = get.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
    let headers = get.http_headers.iter().flatten().map(|header| (header.name.clone(), header.value.clone()));
    Ok(Target::Http {
        https: get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
        host,
        port: port(container, &get.port)?,
        path: if path.starts_with('/') { path } else { format!("/{path}") },
        headers: headers.collect(),
    })
}

/// A port by number, or by its name in the container.
pub fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named =
                container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name.as_str()));
            match (named, name.parse()) {
                (Some(port), _) => port.container_port,
                (None, Ok(number)) => number,
                (None, Err(_)) => {
                    return Err(format!("couldn't find port: {name} in container {}", container.name));
                }
            }
        }
    };
    u16::try_from(number)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container() -> Container {
        serde_json::from_value(json!({ "name": "c", "ports": [{ "name": "web", "containerPort": 8080 }] }))
            .unwrap()
    }

    #[test]
    fn checks() {
        let http = |path: &str, port: u16, https: bool| {
            Ok(Check::Network(Target::Http {
                https,
                host: "10.0.0.1".into(),
                port,
                path: path.into(),
                headers: vec![],
            }))
        };
        for (probe, expected) in [
            (json!({ "exec": { "command": ["a", "b"] } }), Ok(Check::Exec(vec!["a".into(), "b".into()]))),
            (json!({ "httpGet": { "port": "web" } }), http("/", 8080, false)),
            (
                json!({ "httpGet": { "port": 9, "path": "h?x=1", "scheme": "HTTPS" } }),
                http("/h?x=1", 9, true),
            ),
            (json!({ "httpGet": { "port": "no" } }), Err("couldn't find port: no in container c".to_owned())),
            (
                json!({ "tcpSocket": { "port": "81", "host": "h" } }),
                Ok(Check::Network(Target::Tcp { host: "h".into(), port: 81 })),
            ),
            (json!({ "tcpSocket": { "port": 0 } }), Err("invalid port number: 0".to_owned())),
            (json!({ "grpc": { "port": 70000 } }), Err("invalid port number: 70000".to_owned())),
            (json!({}), Err("missing probe handler".to_owned())),
        ] {
            let probe_value: Probe = serde_json::from_value(probe.clone()).unwrap();
            assert_eq!(check(&container(), &probe_value, "10.0.0.1"), expected, "{probe}");
        }
    }

    #[test]
    fn thresholds() {
        let probe = Probe { failure_threshold: Some(3), success_threshold: Some(2), ..Probe::default() };
        let schedule = Schedule::of(&probe);
        let mut tally = Tally::default();
        let answers = [true, true, false, false, true, false, false, false, false, true, true];
        let verdicts: Vec<Option<bool>> =
            answers.iter().map(|answer| tally.add(*answer, &schedule)).collect();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(verdicts, [None, yes, None, None, None, None, None, no, no, None, yes]);
    }

    #[test]
    fn defaults_are_upstreams() {
        let schedule = Schedule::of(&Probe { period_seconds: Some(0), ..Probe::default() });
        assert_eq!((schedule.period.as_secs(), schedule.timeout.as_secs()), (10, 1));
        assert_eq!((schedule.success_threshold, schedule.failure_threshold), (1, 3));
    }
}
