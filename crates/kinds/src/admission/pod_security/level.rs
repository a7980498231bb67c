//! Levels and their versions, and what all of a level's checks say of a pod.

use std::fmt;

use meta::Value;

use super::{baseline, restricted};

/// The newest rules, whatever they are.
pub(super) const LATEST: u32 = u32::MAX;

/// How much a pod may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }
}

/// `latest` or `v1.x` as x.
pub(super) fn minor(text: &str) -> Option<u32> {
    if text == "latest" {
        return Some(LATEST);
    }
    let digits = text.strip_prefix("v1.")?;
    let plain = digits == "0" || !digits.starts_with('0');
    (plain && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// A level in one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) level: Level,
    pub(super) minor: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { level: Level::Privileged, minor: LATEST }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })?;
        match self.minor {
            LATEST => f.write_str(":latest"),
            minor => write!(f, ":v1.{minor}"),
        }
    }
}

/// A pod that is being checked.
pub(super) struct Pod<'a> {
    pub(super) metadata: &'a Value,
    pub(super) spec: &'a Value,
    pub(super) minor: u32,
}

/// What a check forbids: the reason, and where (empty when the reason says it all).
pub(super) struct Forbidden {
    pub(super) reason: String,
    pub(super) detail: String,
}

pub(super) fn forbidden(reason: &str, detail: String) -> Option<Forbidden> {
    Some(Forbidden { reason: reason.to_owned(), detail })
}

/// A check of one control.
pub(super) type Check = fn(&Pod<'_>) -> Option<Forbidden>;

impl Policy {
    fn checks(&self) -> Vec<Check> {
        match self.level {
            Level::Privileged => Vec::new(),
            Level::Baseline => baseline::CHECKS.iter().map(|(check, _)| *check).collect(),
            Level::Restricted => {
                // Some controls have a stricter check instead of the one of baseline.
                let kept = baseline::CHECKS.iter().filter(|(_, overridden)| !overridden);
                kept.map(|(check, _)| *check).chain(restricted::CHECKS.iter().copied()).collect()
            }
        }
    }

    fn forbidden(&self, metadata: &Value, spec: &Value) -> Vec<Forbidden> {
        let pod = Pod { metadata, spec, minor: self.minor };
        self.checks().into_iter().filter_map(|check| check(&pod)).collect()
    }

    /// Everything that is forbidden, with details; `None` when nothing is.
    pub(super) fn violations(&self, metadata: &Value, spec: &Value) -> Option<String> {
        let shown = |found: &Forbidden| match found.detail.as_str() {
            "" => found.reason.clone(),
            detail => format!("{} ({detail})", found.reason),
        };
        let found: Vec<String> = self.forbidden(metadata, spec).iter().map(shown).collect();
        (!found.is_empty()).then(|| found.join(", "))
    }

    /// The reasons alone.
    pub(super) fn reasons(&self, metadata: &Value, spec: &Value) -> Option<String> {
        let found: Vec<String> =
            self.forbidden(metadata, spec).into_iter().map(|found| found.reason).collect();
        (!found.is_empty()).then(|| found.join(", "))
    }
}

impl<'a> Pod<'a> {
    /// Init, main and ephemeral containers, in this order.
    pub(super) fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .filter_map(|list| spec.get(list)?.as_array())
            .flatten()
    }

    /// Names of the containers of which `test` is true.
    pub(super) fn named(&self, test: impl Fn(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| test(container)).map(name).collect()
    }

    /// A field of the pod's security context.
    pub(super) fn context(&self, pointer: &str) -> Option<&'a Value> {
        self.spec.pointer(&format!("/securityContext{pointer}")).filter(|value| !value.is_null())
    }

    /// Rules that mean nothing on Windows do not hold there, since v1.25.
    pub(super) fn is_windows(&self) -> bool {
        self.minor >= 25 && self.spec.pointer("/os/name").and_then(Value::as_str) == Some("windows")
    }
}

pub(super) fn name(value: &Value) -> &str {
    value.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// A field of a container's security context.
pub(super) fn own<'a>(container: &'a Value, pointer: &str) -> Option<&'a Value> {
    container.pointer(&format!("/securityContext{pointer}")).filter(|value| !value.is_null())
}

/// `"a", "b"`.
pub(super) fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    names.iter().map(|name| format!("\"{}\"", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// One or many.
pub(super) fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"` or `containers "a", "b"`.
pub(super) fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}
