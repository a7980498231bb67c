//! Taints and what tolerates them (upstream `component-helpers/scheduling/corev1`).

use k8s_openapi::api::core::v1 as wire;

/// What a taint does to a pod that does not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Is not placed there.
    NoSchedule,
    /// Is placed there only when nothing better is.
    PreferNoSchedule,
    /// Is neither placed nor left there.
    NoExecute,
}

impl Effect {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "NoSchedule" => Some(Self::NoSchedule),
            "PreferNoSchedule" => Some(Self::PreferNoSchedule),
            "NoExecute" => Some(Self::NoExecute),
            _ => None,
        }
    }
}

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value; may be empty.
    pub value: String,
    /// Effect.
    pub effect: Effect,
}

impl Taint {
    /// Reads a wire taint; `None` for an effect this release does not know, which has no effect.
    pub fn read(from: &wire::Taint) -> Option<Self> {
        let effect = Effect::parse(&from.effect)?;
        Some(Self { key: from.key.clone(), value: from.value.clone().unwrap_or_default(), effect })
    }

    /// Whether it keeps pods away for good, rather than being a preference.
    pub fn repels(&self) -> bool {
        matches!(self.effect, Effect::NoSchedule | Effect::NoExecute)
    }
}

/// A toleration of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Toleration {
    /// Key; `None` tolerates every key.
    pub key: Option<String>,
    /// The value to equal; `None` (operator `Exists`) tolerates every value.
    pub value: Option<String>,
    /// Effect; `None` tolerates every effect.
    pub effect: Option<Effect>,
}

impl Toleration {
    /// Reads a wire toleration; `None` when its operator or effect is unknown, so that it tolerates
    /// nothing.
    pub fn read(from: &wire::Toleration) -> Option<Self> {
        let value = match from.operator.as_deref() {
            None | Some("" | "Equal") => Some(from.value.clone().unwrap_or_default()),
            Some("Exists") => None,
            Some(_) => return None,
        };
        let effect = match from.effect.as_deref() {
            None | Some("") => None,
            Some(text) => Some(Effect::parse(text)?),
        };
        Some(Self { key: from.key.clone().filter(|k| !k.is_empty()), value, effect })
    }

    /// Whether it tolerates the taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|e| e == taint.effect)
            && self.key.as_ref().is_none_or(|k| *k == taint.key)
            && self.value.as_ref().is_none_or(|v| *v == taint.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations() {
        let taint = Taint { key: "k".into(), value: "v".into(), effect: Effect::NoSchedule };
        for (toleration, expected) in [
            (serde_json::json!({"operator": "Exists"}), true),
            (serde_json::json!({"key": "k", "operator": "Exists"}), true),
            (serde_json::json!({"key": "k", "value": "v"}), true),
            (
                serde_json::json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}),
                true,
            ),
            (serde_json::json!({"key": "k", "value": "v", "effect": "NoExecute"}), false),
            (serde_json::json!({"key": "k", "value": "w"}), false),
            (serde_json::json!({"key": "k"}), false),
            (serde_json::json!({"key": "j", "operator": "Exists"}), false),
            (serde_json::json!({"key": "k", "operator": "Near", "value": "v"}), false),
        ] {
            let wire: wire::Toleration = serde_json::from_value(toleration.clone()).unwrap();
            let got = Toleration::read(&wire).is_some_and(|t| t.tolerates(&taint));
            assert_eq!(got, expected, "{toleration}");
        }
    }
}
