//! Amounts that a pod asks for as a whole, and the comparisons of a LimitRange with them.

use meta::{Object, Quantity, Value};

use crate::{
    quota::{Amounts, amounts},
    validate::quantity,
};

/// `requests` or `limits` of the whole pod: all containers and sidecars together, or the init container
/// that needs most (KEP-753).
pub(crate) fn of_pod(pod: &Object, side: &str) -> Amounts {
    let of = |container: &Value| amounts(container.get("resources").and_then(|r| r.get(side)));
    let mut together = Amounts::new();
    for container in pod.list(&["spec", "containers"]) {
        add(&mut together, &of(container));
    }
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in pod.list(&["spec", "initContainers"]) {
        let mut own = of(container);
        if container.get("restartPolicy").is_some() {
            add(&mut together, &own);
            add(&mut sidecars, &own);
            own.clone_from(&sidecars);
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut most, &own);
    }
    raise(&mut together, &most);
    together
}

fn add(to: &mut Amounts, from: &Amounts) {
    for (name, amount) in from {
        let sum = to.get(name).copied().unwrap_or_default() + *amount;
        to.insert(name.clone(), sum);
    }
}

fn raise(to: &mut Amounts, from: &Amounts) {
    for (name, amount) in from {
        let most = to.get(name).copied().unwrap_or_default().max(*amount);
        to.insert(name.clone(), most);
    }
}

/// What a LimitRange says of one resource, as written.
pub(super) struct Bound<'a> {
    /// `Container`, `Pod`, `PersistentVolumeClaim`.
    pub(super) of: &'a str,
    pub(super) resource: &'a str,
    pub(super) enforced: &'a Value,
}

/// What is asked for, with the texts to show.
pub(super) struct Asked<'a> {
    pub(super) requests: &'a Amounts,
    pub(super) limits: &'a Amounts,
    /// Whether limits are looked at (a claim has none).
    pub(super) has_limits: bool,
}

impl Bound<'_> {
    fn shown(&self) -> String {
        self.enforced.as_str().map_or_else(|| self.enforced.to_string(), str::to_owned)
    }

    fn amount(&self) -> Quantity {
        quantity(self.enforced).unwrap_or_default()
    }

    /// Why less is asked for than allowed.
    pub(super) fn min(&self, asked: &Asked<'_>) -> Option<String> {
        let (resource, of, shown) = (self.resource, self.of, self.shown());
        let head = format!("minimum {resource} usage per {of} is {shown}");
        let request = match asked.requests.get(resource) {
            None => return Some(format!("{head}.  No request is specified")),
            Some(request) => *request,
        };
        let limit = asked.limits.get(resource).filter(|limit| asked.has_limits && **limit < self.amount());
        if request < self.amount() {
            Some(format!("{head}, but request is {}", text(request, &shown)))
        } else {
            limit.map(|limit| format!("{head}, but limit is {}", text(*limit, &shown)))
        }
    }

    /// Why more is asked for than allowed.
    pub(super) fn max(&self, asked: &Asked<'_>) -> Option<String> {
        let (resource, of, shown) = (self.resource, self.of, self.shown());
        let head = format!("maximum {resource} usage per {of} is {shown}");
        let over = |amounts: &Amounts| amounts.get(resource).copied().filter(|a| *a > self.amount());
        if asked.has_limits {
            if !asked.limits.contains_key(resource) {
                return Some(format!("{head}.  No limit is specified"));
            }
            if let Some(limit) = over(asked.limits) {
                return Some(format!("{head}, but limit is {}", text(limit, &shown)));
            }
        } else if !asked.requests.contains_key(resource) {
            return Some(format!("{head}.  No request is specified"));
        }
        over(asked.requests).map(|request| format!("{head}, but request is {}", text(request, &shown)))
    }

    /// Why the limit is too many times the request.
    pub(super) fn ratio(&self, asked: &Asked<'_>) -> Option<String> {
        let (resource, of, shown) = (self.resource, self.of, self.shown());
        let head = format!("{resource} max limit to request ratio per {of} is {shown}");
        let positive = |amounts: &Amounts| amounts.get(resource).copied().filter(|amount| !amount.is_zero());
        let Some(request) = positive(asked.requests) else {
            return Some(format!("{head}, but no request is specified or request is 0"));
        };
        let Some(limit) = positive(asked.limits) else {
            return Some(format!("{head}, but no limit is specified or limit is 0"));
        };
        #[allow(clippy::cast_precision_loss, reason = "upstream compares floats")]
        let ratio = limit.milli_value() as f64 / request.milli_value() as f64;
        #[allow(clippy::cast_precision_loss, reason = "upstream compares floats")]
        let most = self.amount().milli_value() as f64 / 1000.0;
        (ratio > most).then(|| format!("{head}, but provided ratio is {ratio:.6}"))
    }
}

/// An amount in the form its bound is written in.
fn text(amount: Quantity, like: &str) -> String {
    amount.canonical(meta::QuantityForm::of(like))
}
