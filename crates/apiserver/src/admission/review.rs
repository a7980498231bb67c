//! `admission.k8s.io` AdmissionReview: what is sent, and what an answer may say (upstream
//! `apiserver/pkg/admission/plugin/webhook/request`).

use base64::Engine as _;
use meta::{Cause, Details, Reason, Status, Value};
use serde_json::{Map, json};

/// What a webhook answered.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) allowed: bool,
    /// `status` as sent, null when absent.
    status: Value,
    /// RFC 6902 operations.
    pub(super) patch: Option<Value>,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: Vec<(String, String)>,
}

/// The review to send.
pub(super) fn review(
    version: &str,
    uid: &str,
    mut request: Map<String, Value>,
    object: Value,
    old: Value,
) -> Value {
    request.insert("uid".to_owned(), json!(uid));
    request.insert("object".to_owned(), object);
    request.insert("oldObject".to_owned(), old);
    json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"), "request": request})
}

/// Reads an answer to a review; what is wrong with it, as upstream says it.
pub(super) fn read(version: &str, uid: &str, mutating: bool, answer: &Value) -> Result<Answer, String> {
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text(answer, "apiVersion"), text(answer, "kind"));
    if api_version != format!("admission.k8s.io/{version}") || kind != "AdmissionReview" {
        return Err(format!(
            "expected webhook response of admission.k8s.io/{version}, Kind=AdmissionReview, got {api_version}, Kind={kind}"
        ));
    }
    let response = answer.get("response").filter(|response| response.is_object());
    let response = response.ok_or("webhook response was absent")?;
    let given = text(response, "uid");
    // Servers of v1beta1 need not repeat it.
    if given != uid && !(version == "v1beta1" && given.is_empty()) {
        return Err(format!("expected response.uid={uid:?}, got {given:?}"));
    }
    let patch = patch(response, mutating)?;
    let warnings = response.get("warnings").and_then(Value::as_array).into_iter().flatten();
    let annotations = response.get("auditAnnotations").and_then(Value::as_object).into_iter().flatten();
    Ok(Answer {
        allowed: response.get("allowed").and_then(Value::as_bool).unwrap_or(false),
        status: response.get("status").cloned().unwrap_or_default(),
        patch,
        warnings: warnings.filter_map(Value::as_str).map(str::to_owned).collect(),
        annotations: annotations
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
    })
}

fn patch(response: &Value, mutating: bool) -> Result<Option<Value>, String> {
    let patch = response.get("patch").and_then(Value::as_str).filter(|patch| !patch.is_empty());
    let kind = response.get("patchType").and_then(Value::as_str).filter(|kind| !kind.is_empty());
    let (patch, kind) = match (patch, kind) {
        (None, None) => return Ok(None),
        _ if !mutating => return Err("validating webhook may not return response.patch".to_owned()),
        (Some(_), None) => {
            return Err("webhook returned response.patch but not response.patchType".to_owned());
        }
        (None, Some(_)) => {
            return Err("webhook returned response.patchType but not response.patch".to_owned());
        }
        (Some(patch), Some(kind)) => (patch, kind),
    };
    if kind != "JSONPatch" {
        return Err(format!("webhook returned invalid response.patchType of {kind:?}"));
    }
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(patch)
        .map_err(|error| format!("webhook returned an invalid response.patch: {error}"))?;
    let ops = serde_json::from_slice(&bytes)
        .map_err(|error| format!("webhook returned an invalid response.patch: {error}"))?;
    Ok(Some(ops))
}

impl Answer {
    /// The refusal of the webhook `name` (upstream `errors.ToStatusErr`).
    pub(super) fn denial(&self, name: &str) -> Status {
        let text = |key: &str| self.status.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let by = format!("admission webhook {name:?} denied the request");
        let message = match (text("message"), text("reason")) {
            (Some(message), _) => format!("{by}: {message}"),
            (None, Some(reason)) => format!("{by}: {reason}"),
            (None, None) => format!("{by} without explanation"),
        };
        let code = self.status.get("code").and_then(Value::as_u64).unwrap_or(0);
        // A refusal is never a success.
        let code = u16::try_from(code).ok().filter(|code| (400..600).contains(code)).unwrap_or(400);
        let reason = self
            .status
            .get("reason")
            .and_then(|reason| serde_json::from_value::<Reason>(reason.clone()).ok());
        let details = self.status.get("details").filter(|details| details.is_object()).cloned();
        let details = details.and_then(|mut details| {
            // A list of causes that is not well formed does not hide the rest.
            if details.get("causes").is_some_and(|c| serde_json::from_value::<Vec<Cause>>(c.clone()).is_err())
                && let Some(map) = details.as_object_mut()
            {
                map.remove("causes");
            }
            serde_json::from_value::<Details>(details).ok().map(Box::new)
        });
        Status { code, reason, message, details, continue_token: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(response: Value) -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }

    fn check(sent: Value, mutating: bool, expected: Result<(), &str>) {
        let read = read("v1", "u", mutating, &sent).map(|_| ());
        assert_eq!(read, expected.map_err(str::to_owned), "{sent}");
    }

    #[test]
    fn answers_that_are_no_answers() {
        check(answer(json!({"uid": "u", "allowed": true})), false, Ok(()));
        check(answer(json!({"uid": "x"})), false, Err("expected response.uid=\"u\", got \"x\""));
        check(answer(json!(null)), false, Err("webhook response was absent"));
        check(
            json!({"apiVersion": "v1", "kind": "Pod"}),
            false,
            Err("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got v1, Kind=Pod"),
        );
        let patch = json!({"uid": "u", "patch": "W10=", "patchType": "JSONPatch"});
        check(answer(patch.clone()), true, Ok(()));
        check(answer(patch), false, Err("validating webhook may not return response.patch"));
        let untyped = json!({"uid": "u", "patch": "W10="});
        check(answer(untyped), true, Err("webhook returned response.patch but not response.patchType"));
        let typed = json!({"uid": "u", "patchType": "JSONPatch"});
        check(answer(typed), true, Err("webhook returned response.patchType but not response.patch"));
        let other = json!({"uid": "u", "patch": "W10=", "patchType": "X"});
        check(answer(other), true, Err("webhook returned invalid response.patchType of \"X\""));
        check(
            json!([]),
            true,
            Err("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got , Kind="),
        );
    }

    #[test]
    fn denials() {
        let denial = |status: Value| {
            let answer = answer(json!({"uid": "u", "allowed": false, "status": status}));
            let denial = read("v1", "u", false, &answer).unwrap().denial("w");
            (denial.code, denial.reason, denial.message)
        };
        let by = |rest: &str| format!("admission webhook \"w\" denied the request{rest}");
        assert_eq!(denial(json!(null)), (400, None, by(" without explanation")));
        assert_eq!(
            denial(json!({"code": 403, "reason": "Forbidden", "message": "no"})),
            (403, Some(Reason::Forbidden), by(": no"))
        );
        assert_eq!(denial(json!({"code": 200, "reason": "because"})), (400, None, by(": because")));
    }
}
