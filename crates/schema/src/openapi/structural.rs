//! The rules of structural schemas, in upstream's words
//! (`apiextensions-apiserver/pkg/apiserver/schema/validation.go`,
//! `pkg/apis/apiextensions/validation/validation.go`). Only looks; `crd` reads.

use meta::FieldError;
use serde_json::{Value, json};

use super::crd::{Level, Reader, entries, flag, items, text};

impl Reader {
    pub(super) fn metadata_rules(&mut self, json: &Value, path: &str) {
        if text(json, "type") != "object" {
            self.invalid(format!("{path}.type"), json!(text(json, "type")), "must be object");
        }
        let allowed = ["type", "properties", "description", "default"];
        let other =
            json.as_object().is_some_and(|map| map.keys().any(|key| !allowed.contains(&key.as_str())))
                || entries(json, "properties").any(|(name, _)| name != "name" && name != "generateName");
        if other {
            self.forbidden(
                path.to_owned(),
                "must not specify anything other than name and generateName, but metadata is implicitly specified",
            );
        }
    }

    pub(super) fn unsupported(&mut self, json: &Value, path: &str) {
        for name in
            ["id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions"]
        {
            if json.get(name).is_some_and(|value| !value.is_null()) {
                self.forbidden(format!("{path}.{name}"), &format!("{name} is not supported"));
            }
        }
        if flag(json, "uniqueItems") {
            let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden(format!("{path}.uniqueItems"), why);
        }
        if json.get("items").is_some_and(Value::is_array) {
            let why = "items must be a schema object and not an array";
            self.forbidden(format!("{path}.items"), why);
        }
        if json.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let at = format!("{path}.x-kubernetes-preserve-unknown-fields");
            self.invalid(at, json!(false), "must be true or undefined");
        }
    }

    pub(super) fn type_rules(&mut self, json: &Value, path: &str, level: Level) {
        let kind = text(json, "type");
        let at = format!("{path}.type");
        let embedded = flag(json, "x-kubernetes-embedded-resource");
        let preserve = flag(json, "x-kubernetes-preserve-unknown-fields");
        let int_or_string = flag(json, "x-kubernetes-int-or-string");
        if !matches!(kind, "" | "string" | "integer" | "number" | "boolean" | "array" | "object") {
            let supported = ["array", "boolean", "integer", "number", "object", "string"];
            self.errors.push(FieldError::not_supported(at.clone(), &json!(kind), &supported));
        }
        if embedded && kind != "object" {
            let why = "must be object if x-kubernetes-embedded-resource is true";
            self.required_or_invalid(at, kind, why);
        } else if kind.is_empty() && !int_or_string && !preserve {
            self.errors.push(FieldError::required(
                at,
                match level {
                    Level::Root => "must not be empty at the root",
                    Level::Item => "must not be empty for specified array items",
                    Level::Field => "must not be empty for specified object fields",
                },
            ));
        } else if level == Level::Root && kind != "object" && !kind.is_empty() {
            self.invalid(at, json!(kind), "must be object at the root");
        }
        if kind == "array" && json.get("items").is_none() {
            self.errors.push(FieldError::required(format!("{path}.items"), "must be specified"));
        }
        if int_or_string && preserve {
            let at = format!("{path}.x-kubernetes-preserve-unknown-fields");
            self.invalid(at, json!(true), "must be false if x-kubernetes-int-or-string is true");
        }
        if int_or_string && embedded {
            let at = format!("{path}.x-kubernetes-embedded-resource");
            self.invalid(at, json!(true), "must be false if x-kubernetes-int-or-string is true");
        }
        let no_fields = entries(json, "properties").next().is_none();
        if embedded && !preserve && no_fields {
            let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                       x-kubernetes-preserve-unknown-fields";
            self.errors.push(FieldError::required(format!("{path}.properties"), why));
        }
        let additional = json.get("additionalProperties").filter(|value| !value.is_null());
        let at = format!("{path}.additionalProperties");
        if additional.is_some() && level == Level::Root {
            self.forbidden(at.clone(), "must not be used at the root");
        }
        if additional.is_some() && embedded {
            self.forbidden(at.clone(), "must not be used if x-kubernetes-embedded-resource is set");
        }
        if additional.is_some_and(|value| *value != Value::Bool(true)) && !no_fields {
            self.forbidden(at, "additionalProperties and properties are mutual exclusive");
        }
        if level == Level::Root || embedded {
            for (name, field) in entries(json, "properties") {
                if matches!(name.as_str(), "apiVersion" | "kind") && text(field, "type") != "string" {
                    let at = format!("{path}.properties[{name}].type");
                    self.invalid(at, json!(text(field, "type")), "must be string");
                }
            }
        }
        if level == Level::Root && flag(json, "nullable") {
            self.forbidden(format!("{path}.nullable"), "nullable cannot be true at the root");
        }
    }

    pub(super) fn list_rules(&mut self, json: &Value, path: &str) {
        let kind = text(json, "type");
        let map_type = json.get("x-kubernetes-map-type").and_then(Value::as_str);
        let list_type = json.get("x-kubernetes-list-type").and_then(Value::as_str);
        if map_type.is_some() && kind != "object" {
            let why = "must be object if x-kubernetes-map-type is specified";
            self.required_or_invalid(format!("{path}.type"), kind, why);
        }
        if let Some(other) = map_type.filter(|t| !matches!(*t, "atomic" | "granular")) {
            let at = format!("{path}.x-kubernetes-map-type");
            self.errors.push(FieldError::not_supported(at, &json!(other), &["atomic", "granular"]));
        }
        if list_type.is_some() && kind != "array" {
            let why = "must be array if x-kubernetes-list-type is specified";
            self.required_or_invalid(format!("{path}.type"), kind, why);
        }
        let at = format!("{path}.x-kubernetes-list-type");
        if let Some(other) = list_type.filter(|t| !matches!(*t, "atomic" | "set" | "map")) {
            self.errors.push(FieldError::not_supported(at.clone(), &json!(other), &["atomic", "map", "set"]));
        }
        let keys: Vec<&str> = items(json, "x-kubernetes-list-map-keys").filter_map(Value::as_str).collect();
        if !keys.is_empty() && list_type != Some("map") {
            let why = "must be map if x-kubernetes-list-map-keys is non-empty";
            self.required_or_invalid(at, list_type.unwrap_or_default(), why);
        }
        let of = json.get("items").unwrap_or(&Value::Null);
        match list_type {
            Some("map") => self.map_list_rules(json, of, &keys, path),
            Some("set") if text(of, "type") == "object" && text(of, "x-kubernetes-map-type") != "atomic" => {
                let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
                self.invalid(format!("{path}.items.x-kubernetes-map-type"), Value::Null, why);
            }
            Some("set")
                if text(of, "type") == "array"
                    && !matches!(text(of, "x-kubernetes-list-type"), "" | "atomic") =>
            {
                let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
                let value = json!(text(of, "x-kubernetes-list-type"));
                self.invalid(format!("{path}.items.x-kubernetes-list-type"), value, why);
            }
            _ => {}
        }
    }

    fn map_list_rules(&mut self, json: &Value, of: &Value, keys: &[&str], path: &str) {
        let at = format!("{path}.x-kubernetes-list-map-keys");
        if keys.is_empty() {
            let why = "must not be empty if x-kubernetes-list-type is map";
            self.errors.push(FieldError::required(at.clone(), why));
        }
        if json.get("items").is_none() {
            let why = "must have a schema if x-kubernetes-list-type is map";
            self.errors.push(FieldError::required(format!("{path}.items"), why));
            return;
        }
        if text(of, "type") != "object" {
            let why = "must be object if parent array's x-kubernetes-list-type is map";
            return self.invalid(format!("{path}.items.type"), json!(text(of, "type")), why);
        }
        for (nth, key) in keys.iter().enumerate() {
            if keys.iter().take(nth).any(|earlier| earlier == key) {
                self.invalid(at.clone(), json!(keys), "must not contain duplicate entries");
            }
            let Some(field) = of.get("properties").and_then(|p| p.get(key)) else {
                self.invalid(at.clone(), json!(keys), "entries must all be names of item properties");
                continue;
            };
            if matches!(text(field, "type"), "array" | "object") {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                let at = format!("{path}.items.properties[{key}].type");
                self.invalid(at, json!(text(field, "type")), why);
            }
            let required = items(of, "required").any(|name| name.as_str() == Some(key));
            if !required && field.get("default").is_none() {
                let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a \
                           required property";
                let at = format!("{path}.items.properties[{key}].default");
                self.errors.push(FieldError::required(at, why));
            }
        }
    }

    pub(super) fn rule_rules(&mut self, json: &Value, path: &str) {
        let lines = |text: &str| text.trim().contains(['\n', '\r']);
        let (rule, message) = (text(json, "rule"), text(json, "message"));
        let at = format!("{path}.message");
        if rule.trim().is_empty() {
            self.errors.push(FieldError::required(format!("{path}.rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            self.invalid(at, json!(message), "must be non-empty if specified");
        } else if lines(message) {
            self.invalid(at, json!(message), "must not contain line breaks");
        } else if lines(rule) && message.trim().is_empty() {
            let why = "message must be specified if rule contains line breaks";
            self.errors.push(FieldError::required(at, why));
        }
        let expression = text(json, "messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let why = "messageExpression must be non-empty if specified";
            self.errors.push(FieldError::required(format!("{path}.messageExpression"), why));
        }
        let reasons =
            ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
        if let Some(reason) = json.get("reason").and_then(Value::as_str)
            && !reasons.contains(&reason)
        {
            self.errors.push(FieldError::not_supported(format!("{path}.reason"), &json!(reason), &reasons));
        }
        let field = text(json, "fieldPath");
        let at = format!("{path}.fieldPath");
        if !field.is_empty() && field.trim().is_empty() {
            self.invalid(at, json!(field), "must be non-empty if specified");
        } else if lines(field) {
            self.invalid(at, json!(field), "must not contain line breaks");
        }
    }

    pub(super) fn invalid(&mut self, at: String, value: Value, why: &str) {
        self.errors.push(FieldError::invalid(at, &value, why));
    }

    pub(super) fn forbidden(&mut self, at: String, why: &str) {
        self.errors.push(FieldError::forbidden(at, why));
    }

    fn required_or_invalid(&mut self, at: String, value: &str, why: &str) {
        self.errors.push(if value.is_empty() {
            FieldError::required(at, why)
        } else {
            FieldError::invalid(at, &json!(value), why)
        });
    }
}
