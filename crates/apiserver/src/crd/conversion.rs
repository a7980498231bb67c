//! Conversion between the versions of a custom resource: by name alone, or by a webhook (upstream
//! `apiextensions-apiserver/pkg/apiserver/conversion`).

use std::{sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt as _, ready};
use meta::{Object, Random, Status, Value};
use resource::{Convert, ConvertAll};
use serde_json::json;

use crate::webhook::{Target, Webhooks};

/// How long a conversion may take, as upstream's client.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Objects in one review: a list of any length is converted in pieces that a webhook can answer.
const OBJECTS_MAX: usize = 500;

/// What a definition says of conversion.
pub(super) enum Conversion {
    /// All versions have the same structure.
    None,
    Webhook(Box<Hook>),
}

/// A conversion webhook.
pub(super) struct Hook {
    target: Result<Target, String>,
    version: Option<&'static str>,
    client: Webhooks,
    random: Arc<dyn Random>,
}

impl Conversion {
    /// Reads `spec.conversion`.
    pub(super) fn read(definition: &Object, client: &Webhooks, random: &Arc<dyn Random>) -> Self {
        if definition.str(&["spec", "conversion", "strategy"]) != Some("Webhook") {
            return Self::None;
        }
        let config = definition.get(&["spec", "conversion", "webhook", "clientConfig"]);
        let versions = definition.list(&["spec", "conversion", "webhook", "conversionReviewVersions"]);
        let version = versions.iter().filter_map(Value::as_str).find_map(|version| match version {
            "v1" => Some("v1"),
            "v1beta1" => Some("v1beta1"),
            _ => None,
        });
        Self::Webhook(Box::new(Hook {
            target: Target::read(config.unwrap_or(&Value::Null)),
            version,
            client: client.clone(),
            random: random.clone(),
        }))
    }
}

impl Convert for Conversion {
    /// Objects of one kind are stored in whatever version was the stored one then: see [`ConvertAll`].
    fn to_stored(&self, _: &mut Object) -> Result<(), Status> {
        Ok(())
    }

    fn to_served(&self, _: &mut Object) -> Result<(), Status> {
        Ok(())
    }

    fn all(&self) -> Option<&dyn ConvertAll> {
        Some(self)
    }
}

impl ConvertAll for Conversion {
    fn convert<'a>(
        &'a self,
        mut objects: Vec<Object>,
        api_version: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Object>, Status>> {
        match self {
            Self::None => {
                objects.iter_mut().for_each(|object| object.set(&["apiVersion"], api_version));
                ready(Ok(objects)).boxed()
            }
            Self::Webhook(hook) => hook.convert(objects, api_version).boxed(),
        }
    }
}

impl Hook {
    async fn convert(&self, mut objects: Vec<Object>, api_version: &str) -> Result<Vec<Object>, Status> {
        let strangers: Vec<usize> = objects
            .iter()
            .enumerate()
            .filter(|(_, object)| object.api_version() != api_version)
            .map(|(at, _)| at)
            .collect();
        for piece in strangers.chunks(OBJECTS_MAX) {
            let sent: Vec<Object> = piece.iter().filter_map(|at| objects.get(*at).cloned()).collect();
            let of = sent.first().map(|first| format!("{}, Kind={}", first.api_version(), first.kind()));
            let converted = self.ask(&sent, api_version).await.map_err(|why| {
                let message = format!("conversion webhook for {} {why}", of.unwrap_or_default());
                Status { code: 500, reason: None, message, details: None, continue_token: None }
            })?;
            for (at, object) in piece.iter().zip(converted) {
                if let Some(slot) = objects.get_mut(*at) {
                    *slot = object;
                }
            }
        }
        Ok(objects)
    }

    async fn ask(&self, sent: &[Object], api_version: &str) -> Result<Vec<Object>, String> {
        let failed = |why: String| format!("failed: {why}");
        let version = self.version.ok_or("does not accept known ConversionReview versions (v1, v1beta1)")?;
        let target = self.target.as_ref().map_err(|why| failed(why.clone()))?;
        let uid = self.random.uuid();
        let list: Vec<Value> = sent.iter().map(|object| Value::Object(object.0.clone())).collect();
        let review = json!({
            "kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": list},
        });
        let answer = self.client.post(target, &review, TIMEOUT).await.map_err(failed)?;
        let converted = read(version, &uid, answer).map_err(failed)?;
        if converted.len() != sent.len() {
            return Err(format!("returned {} objects, expected {}", converted.len(), sent.len()));
        }
        let checked = converted.into_iter().zip(sent).enumerate().map(|(at, (converted, sent))| {
            fit(converted, sent, api_version)
                .map_err(|why| format!("returned invalid converted object at index {at}: {why}"))
        });
        checked.collect()
    }
}

/// The converted objects of an answer.
fn read(version: &str, uid: &str, mut answer: Value) -> Result<Vec<Value>, String> {
    let text = |value: &Value, pointer: &str| {
        value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let (api_version, kind) = (text(&answer, "/apiVersion"), text(&answer, "/kind"));
    if api_version != format!("apiextensions.k8s.io/{version}") || kind != "ConversionReview" {
        return Err(format!(
            "expected webhook response of apiextensions.k8s.io/{version}, Kind=ConversionReview, got {api_version}, Kind={kind}"
        ));
    }
    if !answer.get("response").is_some_and(Value::is_object) {
        return Err("no response provided".to_owned());
    }
    let given = text(&answer, "/response/uid");
    if given != uid {
        return Err(format!("expected response.uid={uid:?}, got {given:?}"));
    }
    let status = text(&answer, "/response/result/status");
    if status != "Success" {
        let message = text(&answer, "/response/result/message");
        return Err(match message.as_str() {
            "" => format!("response.result.status was '{status}', not 'Success'"),
            _ => message,
        });
    }
    match answer.pointer_mut("/response/convertedObjects").map(Value::take) {
        Some(Value::Array(objects)) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// The object as converted, if it is the same object in the wanted version. Of its metadata a webhook may
/// change labels and annotations only.
fn fit(converted: Value, sent: &Object, api_version: &str) -> Result<Object, String> {
    let mut object = Object::from_value(converted).map_err(|_| "not an object".to_owned())?;
    if object.api_version() != api_version {
        return Err(format!(
            "invalid groupVersion (expected {api_version}, received {})",
            object.api_version()
        ));
    }
    if object.kind() != sent.kind() {
        return Err(format!("invalid kind (expected {}, received {})", sent.kind(), object.kind()));
    }
    for (field, was, is) in [
        ("name", sent.name(), object.name()),
        ("namespace", sent.namespace(), object.namespace()),
        ("UID", sent.uid(), object.uid()),
    ] {
        if was != is {
            return Err(format!("invalid metadata: must have the same {field}: {is} != {was}"));
        }
    }
    let mut metadata = sent.get(&["metadata"]).cloned().unwrap_or_else(|| json!({}));
    if let Some(map) = metadata.as_object_mut() {
        for field in ["labels", "annotations"] {
            match object.get(&["metadata", field]) {
                Some(value) => map.insert(field.to_owned(), value.clone()),
                None => map.remove(field),
            };
        }
    }
    object.set(&["metadata"], metadata);
    Ok(object)
}
