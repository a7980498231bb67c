//! FlowSchemas and PriorityLevelConfigurations (upstream `pkg/apis/flowcontrol`).

use meta::{Object, Value};
use resource::{Context, Strategy, flow_control};
use serde_json::json;

use crate::validate::{At, Errors};

/// The highest number that `matchingPrecedence` may be.
const PRECEDENCE_MAX: i64 = 10_000;
/// Most queues of a level (upstream `priorityLevelConfigurationQueuingMaxQueues`).
const QUEUES_MAX: i64 = 10_000_000;
/// Bits of a hash that dealing a hand may use up.
const ENTROPY_BITS_MAX: u32 = 60;

/// Behaviour of FlowSchema.
pub(crate) struct FlowSchema;

impl Strategy for FlowSchema {
    fn default(&self, object: &mut Object) {
        if object.get(&["spec"]).is_some_and(Value::is_object) {
            object.set_default(&["spec", "matchingPrecedence"], 1000);
        }
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, _: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return;
        }
        let spec = At::root(new, "spec");
        mandatory(new, &spec, errors);
        let precedence = spec.get("matchingPrecedence");
        precedence.within(errors, 1, PRECEDENCE_MAX);
        if precedence.int() == Some(1) && new.name() != "exempt" {
            precedence.invalid(errors, "only the schema named 'exempt' may have matchingPrecedence 1");
        }
        spec.at(&["priorityLevelConfiguration", "name"])
            .must(errors, |name| super::subdomain(name).err().into_iter().collect());
        let method = spec.get("distinguisherMethod");
        if method.is_set() {
            method.get("type").one_of(errors, &["ByNamespace", "ByUser"]);
        }
        for rule in spec.get("rules").items() {
            check_rule(&rule, errors);
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

fn check_rule(rule: &At<'_>, errors: &mut Errors) {
    let subjects = rule.get("subjects");
    if subjects.is_empty() {
        subjects.required(errors, "subjects must contain at least one value");
    }
    for subject in subjects.items() {
        check_subject(&subject, errors);
    }
    let (resources, paths) = (rule.get("resourceRules"), rule.get("nonResourceRules"));
    if resources.is_empty() && paths.is_empty() {
        rule.required(errors, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for resource in resources.items() {
        for list in ["verbs", "apiGroups", "resources"] {
            members(&resource.get(list), errors);
        }
        let (namespaces, cluster) = (resource.get("namespaces"), resource.get("clusterScope"));
        if namespaces.is_empty() && !cluster.flag() {
            let detail = "resource rules that are not cluster scoped must supply at least one namespace";
            namespaces.required(errors, detail);
        } else if !namespaces.is_empty() {
            members(&namespaces, errors);
        }
    }
    for path in paths.items() {
        members(&path.get("verbs"), errors);
        let urls = path.get("nonResourceURLs");
        members(&urls, errors);
        for url in urls.items() {
            let text = url.text();
            let star = text.find('*');
            if text != "*" && !text.starts_with('/') {
                url.invalid(errors, "must start with slash");
            } else if text != "*" && star.is_some_and(|at| at + 1 != text.len() || !text.ends_with("/*")) {
                url.invalid(errors, "wildcard can only do suffix matching");
            }
        }
    }
}

/// A list that has to name something, and names all of it alone.
fn members(list: &At<'_>, errors: &mut Errors) {
    if list.is_empty() {
        list.required(errors, "");
    } else if list.len() > 1 && list.items().any(|item| item.text() == "*") {
        list.invalid(errors, "if '*' is present, must not specify other members");
    }
}

fn check_subject(subject: &At<'_>, errors: &mut Errors) {
    let kinds = [("User", "user"), ("Group", "group"), ("ServiceAccount", "serviceAccount")];
    let kind = subject.get("kind");
    kind.one_of(errors, &["Group", "ServiceAccount", "User"]);
    for (named, member) in kinds {
        let body = subject.get(member);
        if kind.text() != named {
            if body.is_set() {
                body.forbidden(errors, format!("{member} is forbidden when subject kind is not '{named}'"));
            }
            continue;
        }
        if !body.is_set() {
            body.required(errors, &format!("{member} is required when subject kind is '{named}'"));
            continue;
        }
        if body.get("name").is_empty() {
            body.get("name").required(errors, "");
        }
        if named == "ServiceAccount" && body.get("namespace").is_empty() {
            body.get("namespace").required(errors, "must specify namespace for service account");
        }
    }
}

/// Behaviour of PriorityLevelConfiguration.
pub(crate) struct PriorityLevel;

impl Strategy for PriorityLevel {
    fn default(&self, object: &mut Object) {
        if object.get(&["spec", "exempt"]).is_some_and(Value::is_object) {
            object.set_default(&["spec", "exempt", "nominalConcurrencyShares"], 0);
            object.set_default(&["spec", "exempt", "lendablePercent"], 0);
        }
        if !object.get(&["spec", "limited"]).is_some_and(Value::is_object) {
            return;
        }
        object.set_default(&["spec", "limited", "nominalConcurrencyShares"], 30);
        object.set_default(&["spec", "limited", "lendablePercent"], 0);
        let queuing = ["spec", "limited", "limitResponse", "queuing"];
        if object.get(&queuing).is_some_and(Value::is_object) {
            for (field, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                object.set_default(&["spec", "limited", "limitResponse", "queuing", field], value);
            }
        }
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, _: Option<&Object>, errors: &mut Errors) {
        if cx.attributes.subresource == "status" {
            return;
        }
        let spec = At::root(new, "spec");
        mandatory(new, &spec, errors);
        let (exempt, limited, kind) = (spec.get("exempt"), spec.get("limited"), spec.get("type"));
        kind.one_of(errors, &["Exempt", "Limited"]);
        match kind.text() {
            "Exempt" if limited.is_set() => {
                limited.forbidden(errors, "must be nil if the type is not Limited")
            }
            "Limited" if exempt.is_set() => exempt.forbidden(errors, "must be nil if the type is Limited"),
            "Limited" if !limited.is_set() => {
                limited.required(errors, "must not be empty when type is Limited");
            }
            "Limited" => check_limited(&limited, errors),
            _ => {}
        }
        if exempt.is_set() {
            exempt.get("nominalConcurrencyShares").not_negative(errors);
            exempt.get("lendablePercent").within(errors, 0, 100);
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}

fn check_limited(limited: &At<'_>, errors: &mut Errors) {
    limited.get("nominalConcurrencyShares").not_negative(errors);
    limited.get("lendablePercent").within(errors, 0, 100);
    limited.get("borrowingLimitPercent").not_negative(errors);
    let response = limited.get("limitResponse");
    let (kind, queuing) = (response.get("type"), response.get("queuing"));
    kind.one_of(errors, &["Queue", "Reject"]);
    match kind.text() {
        "Reject" if queuing.is_set() => {
            queuing.forbidden(errors, "must be nil if limited.limitResponse.type is not Limited")
        }
        "Queue" if !queuing.is_set() => {
            queuing.required(errors, "must not be empty if limited.limitResponse.type is Limited")
        }
        "Queue" => check_queuing(&queuing, errors),
        _ => {}
    }
}

fn check_queuing(queuing: &At<'_>, errors: &mut Errors) {
    let (queues, hand) = (queuing.get("queues"), queuing.get("handSize"));
    let length = queuing.get("queueLengthLimit");
    if length.int().is_some_and(|n| n <= 0) {
        length.invalid(errors, "must be positive");
    }
    let (Some(deck), Some(cards)) = (queues.int(), hand.int()) else { return };
    if deck <= 0 {
        queues.invalid(errors, "must be positive");
    } else if deck > QUEUES_MAX {
        queues.invalid(errors, format!("must not be greater than {QUEUES_MAX}"));
    } else if cards <= 0 {
        hand.invalid(errors, "must be positive");
    } else if cards > deck {
        hand.invalid(errors, format!("should not be greater than queues ({deck})"));
    } else if entropy_bits(deck, cards) > ENTROPY_BITS_MAX {
        let bits = entropy_bits(deck, cards);
        let detail = format!(
            "required entropy bits of deckSize {deck} and handSize {cards} should not be greater than {ENTROPY_BITS_MAX}, got {bits}"
        );
        hand.invalid(errors, detail);
    }
}

/// Bits of a number below `deck * (deck - 1) * ...`, one factor for each card.
fn entropy_bits(deck: i64, cards: i64) -> u32 {
    let mut hands: u128 = 1;
    for card in 0..cards {
        hands = hands.saturating_mul(u128::try_from(deck - card).unwrap_or(1));
        if hands.checked_ilog2().unwrap_or(0) > 120 {
            break;
        }
    }
    hands.saturating_sub(1).checked_ilog2().map_or(0, |bits| bits + 1)
}

/// What everything falls back on cannot be changed, save for the shares of `exempt`.
fn mandatory(new: &Object, spec: &At<'_>, errors: &mut Errors) {
    let wanted =
        flow_control::mandatory().into_iter().find(|o| o.kind() == new.kind() && o.name() == new.name());
    let Some(wanted) = wanted else { return };
    let mut given = spec.value().clone();
    if let Some(exempt) = given.get_mut("exempt").filter(|exempt| exempt.is_object()) {
        *exempt = json!({"lendablePercent": 0, "nominalConcurrencyShares": 0});
    }
    if Some(&given) != wanted.get(&["spec"]) {
        spec.invalid(errors, format!("spec of '{}' must equal the fixed value", new.name()));
    }
}
