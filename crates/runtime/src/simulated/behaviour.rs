//! Reads how a container is to behave from its pod's annotations. The table is in the parent module.

use std::time::Duration;

use crate::action::{ContainerSpec, PodSandboxSpec, Role};

const PREFIX: &str = "simulated.keelson.dev/";

/// Labels of a Job's pods: they are expected to end (`pkg/controller/job`).
const JOB_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// How one container behaves.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Behaviour {
    pub(super) start_delay: Option<Duration>,
    pub(super) start_error: Option<String>,
    pub(super) exit: Option<Exit>,
    pub(super) stop_delay: Duration,
    pub(super) startup: Health,
    pub(super) readiness: Health,
    pub(super) liveness: Health,
    pub(super) log: String,
    pub(super) cpu_millicores: u64,
    pub(super) memory_bytes: u64,
}

/// How and when a container ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    pub(super) after: Duration,
    pub(super) code: i32,
    pub(super) oom: bool,
}

/// How a probe is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Always,
    Never,
    /// Healthy from (readiness, startup) or until (liveness) this long after the start.
    Turns(Duration),
}

impl Behaviour {
    /// The behaviour of `spec` in `pod`; the error says which annotation cannot be read.
    pub(super) fn read(pod: &PodSandboxSpec, spec: &ContainerSpec) -> Result<Self, String> {
        let given = Given { pod, container: &spec.name };
        let memory_bytes = given.number("memory-bytes")?.unwrap_or(1 << 20);
        Ok(Self {
            start_delay: given.duration("start-delay")?,
            start_error: given.text("start-error").map(str::to_owned),
            exit: exit(&given, spec)?,
            stop_delay: given.duration("stop-delay")?.unwrap_or_default(),
            startup: given.health("startup")?,
            readiness: given.health("readiness")?,
            liveness: given.health("liveness")?,
            log: given.text("log").map_or_else(
                || {
                    format!(
                        "simulated container {} of pod {} runs image {}",
                        spec.name,
                        pod.key(),
                        spec.image_name
                    )
                },
                str::to_owned,
            ),
            cpu_millicores: given.number("cpu-millicores")?.unwrap_or(1),
            memory_bytes,
        })
    }
}

fn exit(given: &Given<'_>, spec: &ContainerSpec) -> Result<Option<Exit>, String> {
    let after = given.duration("exit-after")?;
    let code = match given.number("exit-code")? {
        Some(code) => Some(u8::try_from(code).map_err(|_| given.bad("exit-code", "a number from 0 to 255"))?),
        None => None,
    };
    let crashing = match given.text("crash-loop") {
        None | Some("false") => None,
        Some("true") => Some(true),
        Some(_) => {
            let first = given.number("crash-loop")?.unwrap_or_default();
            Some(u64::from(spec.attempt) < first)
        }
    };
    let at_once = after.unwrap_or_default();
    if given.text("oom") == Some("true") {
        return Ok(Some(Exit { after: at_once, code: 137, oom: true }));
    }
    match crashing {
        Some(true) => {
            return Ok(Some(Exit { after: at_once, code: i32::from(code.unwrap_or(1)), oom: false }));
        }
        Some(false) => return Ok(None),
        None => {}
    }
    let job = JOB_LABELS.iter().any(|label| given.pod.labels.contains_key(*label));
    let ends =
        after.is_some() || code.is_some() || spec.role == Role::Init || (job && spec.role == Role::Main);
    Ok(ends.then_some(Exit { after: at_once, code: i32::from(code.unwrap_or(0)), oom: false }))
}

struct Given<'a> {
    pod: &'a PodSandboxSpec,
    container: &'a str,
}

impl Given<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        let annotations = &self.pod.annotations;
        annotations
            .get(&format!("{PREFIX}{key}.{}", self.container))
            .or_else(|| annotations.get(&format!("{PREFIX}{key}")))
            .map(String::as_str)
    }

    fn bad(&self, key: &str, want: &str) -> String {
        let value = self.text(key).unwrap_or_default();
        format!("annotation {PREFIX}{key} of pod {} is {value:?}, want {want}", self.pod.key())
    }

    fn number(&self, key: &str) -> Result<Option<u64>, String> {
        self.text(key).map(|text| text.parse().map_err(|_| self.bad(key, "a whole number"))).transpose()
    }

    fn duration(&self, key: &str) -> Result<Option<Duration>, String> {
        self.text(key)
            .map(|text| {
                parse_duration(text).ok_or_else(|| self.bad(key, "a duration such as 250ms, 10s, 5m or 1h"))
            })
            .transpose()
    }

    fn health(&self, key: &str) -> Result<Health, String> {
        match self.text(key) {
            None | Some("true") => Ok(Health::Always),
            Some("false") => Ok(Health::Never),
            Some(text) => parse_duration(text)
                .map(Health::Turns)
                .ok_or_else(|| self.bad(key, "true, false or a duration such as 10s")),
        }
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        annotations: &[(&str, &str)],
        role: Role,
        attempt: u32,
        expected: Result<Option<(u64, i32, bool)>, &str>,
    ) {
        let annotations =
            annotations.iter().map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned())).collect();
        let pod = PodSandboxSpec { annotations, ..PodSandboxSpec::default() };
        let spec = ContainerSpec { name: "main".into(), role, attempt, ..ContainerSpec::default() };
        let got =
            Behaviour::read(&pod, &spec).map(|b| b.exit.map(|e| (e.after.as_millis() as u64, e.code, e.oom)));
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
            (got, expected) => panic!("{got:?} is not {expected:?}"),
        }
    }

    #[test]
    fn annotations_say_how_it_ends() {
        check(&[], Role::Main, 0, Ok(None));
        check(&[], Role::Init, 0, Ok(Some((0, 0, false))));
        check(&[], Role::Sidecar, 0, Ok(None));
        check(&[("exit-after", "2s")], Role::Main, 0, Ok(Some((2000, 0, false))));
        check(&[("exit-code", "3")], Role::Main, 0, Ok(Some((0, 3, false))));
        check(&[("exit-after.other", "2s")], Role::Main, 0, Ok(None));
        check(
            &[("exit-after", "2s"), ("exit-after.main", "1m")],
            Role::Main,
            0,
            Ok(Some((60_000, 0, false))),
        );
        check(&[("crash-loop", "true")], Role::Main, 9, Ok(Some((0, 1, false))));
        check(&[("crash-loop", "2"), ("exit-code", "7")], Role::Main, 1, Ok(Some((0, 7, false))));
        check(&[("crash-loop", "2")], Role::Main, 2, Ok(None));
        check(&[("oom", "true"), ("exit-after", "5ms")], Role::Main, 0, Ok(Some((5, 137, true))));
        check(&[("exit-code", "256")], Role::Main, 0, Err("0 to 255"));
        check(&[("exit-after", "2 s")], Role::Main, 0, Err("250ms"));
        check(&[("readiness", "maybe")], Role::Main, 0, Err("true, false or a duration"));
        check(&[("crash-loop", "often")], Role::Main, 0, Err("whole number"));
    }
}
