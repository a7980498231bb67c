//! Certificate signing requests: who asks is who is authenticated, what is asked never changes, and an approval
//! or denial stands (`pkg/registry/certificates`, `pkg/apis/certificates/validation`).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use meta::{Object, Status, Value, format_second};
use resource::{Context, Strategy};
use serde_json::{Map, json};

use super::keep;
use crate::validate::{At, Errors};

/// Shortest validity that may be asked for.
const EXPIRATION_SECONDS_MIN: i64 = 600;
/// Longest name of a signer: a domain and a path of it.
const SIGNER_BYTES_MAX: usize = 253 + 1 + 253 + 64;
/// Conditions that are only ever true, and never go once they are there.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];

/// Behaviour of `certificates.k8s.io/v1` CertificateSigningRequest.
pub(crate) struct SigningRequest;

impl Strategy for SigningRequest {
    fn prepare(&self, cx: &Context<'_>, new: &mut Object, old: Option<&Object>) -> Result<(), Status> {
        let Some(old) = old else {
            asked_by(cx, new);
            return Ok(());
        };
        keep(new, old, &["spec"]);
        match cx.attributes.subresource.as_str() {
            "status" => {
                // Approval and denial have their own path.
                let mut conditions = new.list(&["status", "conditions"]).to_vec();
                let decided = |c: &Value| matches!(kind_of(c), "Approved" | "Denied");
                conditions.retain(|c| !decided(c));
                let kept = old.list(&["status", "conditions"]).iter().filter(|c| decided(c));
                conditions.splice(0..0, kept.cloned());
                set_conditions(cx, new, old, conditions);
            }
            "approval" => {
                let conditions = new.list(&["status", "conditions"]).to_vec();
                keep(new, old, &["status"]);
                set_conditions(cx, new, old, conditions);
            }
            _ => keep(new, old, &["status"]),
        }
        Ok(())
    }

    fn validate(&self, cx: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        if old.is_none() {
            spec(&At::root(new, "spec"), errors);
        }
        let status = At::root(new, "status");
        conditions(&status.get("conditions"), errors);
        let certificate = status.get("certificate");
        let before = old.and_then(|old| old.str(&["status", "certificate"])).unwrap_or_default();
        if certificate.text() != before {
            if !before.is_empty() {
                certificate.invalid_as(errors, &Value::Null, "certificate cannot be changed once it is set");
            } else if let Err(why) = decoded(certificate.text()).and_then(|pem| csr::certificates(&pem)) {
                certificate.invalid_as(errors, &Value::Null, why);
            }
        }
        if let Some(old) = old {
            lasting(cx, new, old, errors);
        }
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::segment(name)
    }
}

/// Who asks is who is authenticated, whatever the body says.
fn asked_by(cx: &Context<'_>, new: &mut Object) {
    let user = &cx.attributes.user;
    for field in ["username", "uid", "groups", "extra"] {
        new.remove(&["spec", field]);
    }
    new.set(&["spec", "username"], user.name.as_str());
    if !user.uid.is_empty() {
        new.set(&["spec", "uid"], user.uid.as_str());
    }
    if !user.groups.is_empty() {
        new.set(&["spec", "groups"], json!(user.groups));
    }
    if !user.extra.is_empty() {
        new.set(&["spec", "extra"], json!(user.extra));
    }
}

fn kind_of(condition: &Value) -> &str {
    condition.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// Sets the conditions and gives each its times: an update now, a transition when its status is another.
fn set_conditions(cx: &Context<'_>, new: &mut Object, old: &Object, mut conditions: Vec<Value>) {
    let now = format_second(cx.clock.now());
    let unset = |map: &Map<String, Value>, key: &str| map.get(key).is_none_or(Value::is_null);
    for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
        if unset(condition, "lastUpdateTime") {
            condition.insert("lastUpdateTime".to_owned(), now.clone().into());
        }
        if unset(condition, "lastTransitionTime") {
            let same = old
                .list(&["status", "conditions"])
                .iter()
                .find(|c| {
                    c.get("type") == condition.get("type") && c.get("status") == condition.get("status")
                })
                .and_then(|c| c.get("lastTransitionTime"))
                .filter(|time| !time.is_null());
            let time = same.cloned().unwrap_or_else(|| now.clone().into());
            condition.insert("lastTransitionTime".to_owned(), time);
        }
    }
    if conditions.is_empty() {
        new.remove(&["status", "conditions"]);
    } else {
        new.set(&["status", "conditions"], conditions);
    }
}

fn decoded(base64: &str) -> Result<Vec<u8>, &'static str> {
    STANDARD.decode(base64).map_err(|_| "is not base64")
}

fn spec(spec: &At<'_>, errors: &mut Errors) {
    let request = spec.get("request");
    if request.is_empty() {
        request.required(errors, "");
    } else {
        let parsed = decoded(request.text()).map_err(str::to_owned);
        let parsed = parsed.and_then(|pem| csr::Request::parse(&pem).map_err(|error| error.to_string()));
        if let Err(why) = parsed {
            request.invalid(errors, why);
        }
    }
    let usages = spec.get("usages");
    if usages.is_empty() {
        usages.required(errors, "");
    }
    let mut seen: Vec<&str> = Vec::new();
    for usage in usages.items() {
        usage.one_of(errors, csr::USAGES);
        if seen.contains(&usage.text()) {
            usage.duplicate(errors);
        }
        seen.push(usage.text());
    }
    let signer = spec.get("signerName");
    match signer.text() {
        "" => signer.required(errors, ""),
        csr::LEGACY_UNKNOWN => {
            signer.invalid(errors, "the legacy signerName is not allowed via this API version");
        }
        name if !is_signer(name) => signer.invalid(
            errors,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
        _ => {}
    }
    let expiration = spec.get("expirationSeconds");
    if expiration.int().is_some_and(|seconds| seconds < EXPIRATION_SECONDS_MIN) {
        expiration.invalid(errors, "may not specify a duration less than 600 seconds (10 minutes)");
    }
}

/// `example.com/path`: a domain with a dot, and a path of subdomains with dots between.
fn is_signer(name: &str) -> bool {
    let Some((domain, path)) = name.split_once('/') else { return false };
    name.len() <= SIGNER_BYTES_MAX
        && domain.contains('.')
        && meta::names::dns1123_subdomain(domain).is_empty()
        && meta::names::dns1123_subdomain(path).is_empty()
}

fn conditions(list: &At<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for condition in list.items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        if kind.is_empty() {
            kind.required(errors, "");
        }
        if status.is_empty() {
            status.required(errors, "");
        } else if FINAL.contains(&kind.text()) {
            status.one_of(errors, &["True"]);
        } else {
            status.one_of(errors, &["True", "False", "Unknown"]);
        }
        let against = match kind.text() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !against.is_empty() && seen.contains(&against) {
            kind.invalid(errors, "Approved and Denied conditions are mutually exclusive");
        }
        if seen.contains(&kind.text()) {
            condition.duplicate_as(errors, &json!(kind.text()));
        }
        seen.push(kind.text());
    }
}

/// What was decided stays, and only `approval` decides.
fn lasting(cx: &Context<'_>, new: &Object, old: &Object, errors: &mut Errors) {
    let path = "status.conditions";
    let has = |object: &Object, kind: &str| {
        object.list(&["status", "conditions"]).iter().any(|condition| kind_of(condition) == kind)
    };
    for kind in FINAL {
        let (was, is) = (has(old, kind), has(new, kind));
        if was && !is {
            let why = format!("updates may not remove a condition of type {kind:?}");
            errors.push(meta::FieldError::forbidden(path, why));
        }
        let adds = !was && is;
        if adds && kind == "Failed" && cx.attributes.subresource == "approval" {
            let why = format!("updates may not add a condition of type {kind:?}");
            errors.push(meta::FieldError::forbidden(path, why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cx, object};

    /// The request of `openssl req -new -newkey ec -subj /CN=ann`, made for this test; its key is gone.
    const PEM: &str = include_str!("certificates_request.pem");

    fn request(spec: Value) -> Object {
        object(json!({"metadata": {"name": "a"}, "spec": spec}))
    }

    fn good() -> Value {
        json!({"request": STANDARD.encode(PEM), "signerName": "example.com/mine", "usages": ["client auth"]})
    }

    fn check(change: impl Fn(&mut Value), expected: &[&str]) {
        let mut spec = good();
        change(&mut spec);
        let errors = Cx::new("certificatesigningrequests", "").errors(&SigningRequest, &request(spec), None);
        assert_eq!(errors.len(), expected.len(), "{errors:?}");
        for (error, words) in errors.iter().zip(expected) {
            assert!(error.contains(words), "{error} lacks {words}");
        }
    }

    #[test]
    fn requests_are_checked() {
        check(|_| {}, &[]);
        check(
            |s| s["request"] = json!(STANDARD.encode("x")),
            &["PEM block type must be CERTIFICATE REQUEST"],
        );
        check(|s| s["request"] = json!("%"), &["is not base64"]);
        check(|s| s["usages"] = json!([]), &["spec.usages: Required value"]);
        check(
            |s| s["usages"] = json!(["fly", "client auth", "client auth"]),
            &["Unsupported value", "Duplicate"],
        );
        for name in ["kubernetes.io/legacy-unknown", "mine", "mine/x", "a.b/", "a.b/../c", "a.b/c/d", "A.b/c"]
        {
            check(|s| s["signerName"] = json!(name), &["spec.signerName: Invalid value"]);
        }
        check(|s| s["signerName"] = json!("a.b/c.d"), &[]);
        check(|s| s["expirationSeconds"] = json!(599), &["less than 600 seconds"]);
    }

    #[test]
    fn who_asks_is_who_is_authenticated() {
        let mut cx = Cx::new("certificatesigningrequests", "");
        cx.attributes.user.name = "ann".to_owned();
        let mut new =
            request(json!({"username": "admin", "groups": ["system:masters"], "uid": "0", "extra": {}}));
        SigningRequest.prepare(&cx.context(), &mut new, None).unwrap();
        assert_eq!(new.get(&["spec"]), Some(&json!({"username": "ann"})));
    }

    fn with(conditions: Value, certificate: &str) -> Object {
        let mut object = request(good());
        object.set(&["status", "conditions"], conditions);
        if !certificate.is_empty() {
            object.set(&["status", "certificate"], STANDARD.encode(certificate));
        }
        object
    }

    #[test]
    fn each_path_changes_its_own_part_and_decisions_stand() {
        let approved = json!([{"type": "Approved", "status": "True", "reason": "r"}]);
        let failed = json!([{"type": "Failed", "status": "True"}]);
        let pending = json!([]);
        for (subresource, old, new, expected) in [
            ("approval", &pending, &approved, Ok("Approved")),
            ("status", &pending, &approved, Ok("")),
            ("", &pending, &approved, Ok("")),
            ("status", &approved, &pending, Ok("Approved")),
            ("status", &approved, &failed, Ok("Approved Failed")),
            ("approval", &approved, &pending, Err("may not remove a condition of type \"Approved\"")),
            ("approval", &pending, &failed, Err("may not add a condition of type \"Failed\"")),
        ] {
            let cx = Cx::new("certificatesigningrequests", subresource);
            let (old, mut new) = (with(old.clone(), ""), with(new.clone(), ""));
            SigningRequest.prepare(&cx.context(), &mut new, Some(&old)).unwrap();
            let errors = cx.errors(&SigningRequest, &new, Some(&old));
            let kinds: Vec<&str> = new.list(&["status", "conditions"]).iter().map(kind_of).collect();
            match expected {
                Ok(expected) => assert_eq!((kinds.join(" ").as_str(), errors), (expected, vec![])),
                Err(words) => assert!(errors.iter().any(|e| e.contains(words)), "{errors:?}"),
            }
        }
        let cx = Cx::new("certificatesigningrequests", "approval");
        let both = json!([{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]);
        let errors = cx.errors(&SigningRequest, &with(both, ""), Some(&with(pending.clone(), "")));
        assert!(errors.iter().any(|e| e.contains("mutually exclusive")), "{errors:?}");
        let denied = json!([{"type": "Denied", "status": "False"}]);
        let errors = cx.errors(&SigningRequest, &with(denied, ""), Some(&with(pending.clone(), "")));
        assert!(errors.iter().any(|e| e.contains("Unsupported value")), "{errors:?}");
    }

    #[test]
    fn a_certificate_is_one_and_stays() {
        let cx = Cx::new("certificatesigningrequests", "status");
        let errors = |old: &str, new: &str| {
            cx.errors(&SigningRequest, &with(json!([]), new), Some(&with(json!([]), old))).join(";")
        };
        assert!(errors("", "no pem").contains("must contain at least one PEM block"));
        assert!(errors("", PEM).contains("only CERTIFICATE PEM blocks"));
        assert!(errors("a", "b").contains("cannot be changed"));
        assert_eq!(errors("a", "a"), "");
    }
}
