//! How far a rollout may go above and below the wanted replicas (upstream `ResolveFenceposts`).

use crate::spec::HasSpec;
use k8s_openapi::{
    api::apps::v1::{Deployment, RollingUpdateDeployment},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// `spec.replicas`, 1 when unset.
pub(super) fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec().replicas.unwrap_or(1)
}

/// The most pods above the wanted number; 0 unless rolling.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    rolling(deployment).map_or(0, |rolling| fenceposts(&rolling, replicas(deployment)).0)
}

/// The most unavailable pods; 0 unless rolling, never more than the wanted number.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    let wanted = replicas(deployment);
    rolling(deployment).map_or(0, |rolling| fenceposts(&rolling, wanted).1.min(wanted))
}

fn rolling(deployment: &Deployment) -> Option<RollingUpdateDeployment> {
    let strategy = deployment.spec().strategy.clone().unwrap_or_default();
    (strategy.type_.as_deref() != Some("Recreate")).then(|| strategy.rolling_update.unwrap_or_default())
}

/// Surge rounds up and unavailable down; both 0 would never move, so then one may be unavailable.
fn fenceposts(rolling: &RollingUpdateDeployment, wanted: i32) -> (i32, i32) {
    let quarter = IntOrString::String("25%".to_owned());
    let surge = scaled(rolling.max_surge.as_ref().unwrap_or(&quarter), wanted, true);
    let unavailable = scaled(rolling.max_unavailable.as_ref().unwrap_or(&quarter), wanted, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// A number, or a percentage of `whole`. A text that is neither (the API server refuses it) counts as 0.
pub(crate) fn scaled(value: &IntOrString, whole: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|n| n.parse().ok()).unwrap_or(0);
            let hundredths = percent * i64::from(whole);
            let rounded =
                if round_up { (hundredths + 99).div_euclid(100) } else { hundredths.div_euclid(100) };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_apart() {
        let check = |surge: &str, unavailable: &str, wanted, expected| {
            let value = |text: &str| Some(IntOrString::String(text.to_owned()));
            let rolling =
                RollingUpdateDeployment { max_surge: value(surge), max_unavailable: value(unavailable) };
            assert_eq!(fenceposts(&rolling, wanted), expected, "{surge} {unavailable} of {wanted}");
        };
        check("25%", "25%", 10, (3, 2));
        check("25%", "25%", 1, (1, 0));
        check("0%", "25%", 1, (0, 1));
        check("0%", "0%", 10, (0, 1));
        check("100%", "0%", 3, (3, 0));
    }
}
