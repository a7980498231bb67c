//! Swagger 2 in the protobuf form of gnostic (`openapiv2/OpenAPIv2.proto`), for kubectl up to 1.26.
//!
//! The messages are the subset that a document of ours needs, written by hand: the full definition has a
//! hundred messages and no crate publishes it.

use meta::Value;
use prost::{Message, Oneof};
use serde_json::Map;

/// Encodes a Swagger 2 document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let info = document.get("info").unwrap_or(&Value::Null);
    let paths = entries(document.get("paths"));
    let definitions = entries(document.get("definitions"));
    Document {
        swagger: text(document, "swagger"),
        info: Some(Info { title: text(info, "title"), version: text(info, "version") }),
        paths: Some(Paths {
            path: paths
                .map(|(name, item)| NamedPathItem { name: name.clone(), value: Some(path_item(item)) })
                .collect(),
        }),
        definitions: Some(Definitions { schemas: definitions.map(named_schema).collect() }),
    }
    .encode_to_vec()
}

fn entries(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text(map: &Map<String, Value>, key: &str) -> String {
    map.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn any(value: &Value) -> Any {
    // JSON is YAML.
    Any { yaml: value.to_string() }
}

fn extensions(map: &Map<String, Value>) -> Vec<NamedAny> {
    map.iter()
        .filter(|(key, _)| key.starts_with("x-"))
        .map(|(key, value)| NamedAny { name: key.clone(), value: Some(any(value)) })
        .collect()
}

fn path_item(value: &Value) -> PathItem {
    let operation = |method: &str| value.get(method).and_then(Value::as_object).map(operation);
    let parameters = value.get("parameters").and_then(Value::as_array);
    PathItem {
        get: operation("get"),
        put: operation("put"),
        post: operation("post"),
        delete: operation("delete"),
        patch: operation("patch"),
        parameters: parameters.into_iter().flatten().filter_map(parameter).collect(),
    }
}

fn operation(map: &Map<String, Value>) -> Operation {
    let parameters = map.get("parameters").and_then(Value::as_array);
    let responses = entries(map.get("responses")).map(|(code, response)| {
        let description = response.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
        let of = response.get("schema").and_then(Value::as_object).map(schema);
        let response = Response { description, schema: of.map(|of| SchemaItem { schema: Some(of) }) };
        NamedResponse { name: code.clone(), value: Some(ResponseValue { response: Some(response) }) }
    });
    Operation {
        parameters: parameters.into_iter().flatten().filter_map(parameter).collect(),
        responses: Some(Responses { codes: responses.collect() }),
        extensions: extensions(map),
    }
}

fn parameter(value: &Value) -> Option<ParametersItem> {
    let map = value.as_object()?;
    let (name, place) = (text(map, "name"), text(map, "in"));
    let required = map.get("required").and_then(Value::as_bool).unwrap_or(false);
    let of = match place.as_str() {
        "body" => {
            let schema = map.get("schema").and_then(Value::as_object).map(schema);
            parameter::Of::Body(Box::new(BodyParameter { name, place, required, schema }))
        }
        _ => {
            let of = text(map, "type");
            let non_body = match place.as_str() {
                "query" => non_body::Of::Query(QueryParameter { required, place, name, of }),
                "path" => non_body::Of::Path(PathParameter { required, place, name, of }),
                _ => return None,
            };
            parameter::Of::NonBody(NonBodyParameter { of: Some(non_body) })
        }
    };
    Some(ParametersItem { parameter: Some(Parameter { of: Some(of) }) })
}

fn named_schema((name, value): (&String, &Value)) -> NamedSchema {
    NamedSchema { name: name.clone(), value: value.as_object().map(schema) }
}

fn schema(map: &Map<String, Value>) -> Schema {
    let list = |key: &str| map.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let count = |key: &str| map.get(key).and_then(Value::as_i64).unwrap_or_default();
    let number = |key: &str| map.get(key).and_then(Value::as_f64).unwrap_or_default();
    let flag = |key: &str| map.get(key).and_then(Value::as_bool).unwrap_or_default();
    let additional = match map.get("additionalProperties") {
        Some(Value::Object(of)) => Some(additional::Of::Schema(Box::new(schema(of)))),
        Some(Value::Bool(any)) => Some(additional::Of::Boolean(*any)),
        _ => None,
    };
    let of = match map.get("type") {
        Some(Value::String(one)) => vec![one.clone()],
        many => strings(many),
    };
    let properties: Vec<NamedSchema> = entries(map.get("properties")).map(named_schema).collect();
    Schema {
        reference: text(map, "$ref"),
        format: text(map, "format"),
        title: text(map, "title"),
        description: text(map, "description"),
        default: map.get("default").map(any),
        multiple_of: number("multipleOf"),
        maximum: number("maximum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        minimum: number("minimum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        max_length: count("maxLength"),
        min_length: count("minLength"),
        pattern: text(map, "pattern"),
        max_items: count("maxItems"),
        min_items: count("minItems"),
        unique_items: flag("uniqueItems"),
        max_properties: count("maxProperties"),
        min_properties: count("minProperties"),
        required: strings(map.get("required")),
        enumeration: list("enum").iter().map(any).collect(),
        additional: additional.map(|of| Box::new(Additional { of: Some(of) })),
        of: (!of.is_empty()).then_some(TypeItem { values: of }),
        items: map.get("items").and_then(Value::as_object).map(|of| Items { schemas: vec![schema(of)] }),
        all_of: list("allOf").iter().filter_map(Value::as_object).map(schema).collect(),
        properties: (!properties.is_empty()).then_some(Properties { schemas: properties }),
        extensions: extensions(map),
    }
}

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<Definitions>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedPathItem {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct PathItem {
    #[prost(message, optional, tag = "2")]
    get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    patch: Option<Operation>,
    #[prost(message, repeated, tag = "9")]
    parameters: Vec<ParametersItem>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParametersItem>,
    #[prost(message, optional, tag = "9")]
    responses: Option<Responses>,
    #[prost(message, repeated, tag = "13")]
    extensions: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(oneof = "parameter::Of", tags = "1, 2")]
    of: Option<parameter::Of>,
}

mod parameter {
    use super::{BodyParameter, NonBodyParameter, Oneof};

    #[derive(Clone, PartialEq, Oneof)]
    pub(super) enum Of {
        #[prost(message, boxed, tag = "1")]
        Body(Box<BodyParameter>),
        #[prost(message, tag = "2")]
        NonBody(NonBodyParameter),
    }
}

#[derive(Clone, PartialEq, Message)]
struct BodyParameter {
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    place: String,
    #[prost(bool, tag = "4")]
    required: bool,
    #[prost(message, optional, tag = "5")]
    schema: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct NonBodyParameter {
    #[prost(oneof = "non_body::Of", tags = "3, 4")]
    of: Option<non_body::Of>,
}

mod non_body {
    use super::{Oneof, PathParameter, QueryParameter};

    #[derive(Clone, PartialEq, Oneof)]
    pub(super) enum Of {
        #[prost(message, tag = "3")]
        Query(QueryParameter),
        #[prost(message, tag = "4")]
        Path(PathParameter),
    }
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(bool, tag = "1")]
    required: bool,
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    of: String,
}

#[derive(Clone, PartialEq, Message)]
struct PathParameter {
    #[prost(bool, tag = "1")]
    required: bool,
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "5")]
    of: String,
}

#[derive(Clone, PartialEq, Message)]
struct Responses {
    #[prost(message, repeated, tag = "1")]
    codes: Vec<NamedResponse>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedResponse {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<ResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseValue {
    #[prost(message, optional, tag = "1")]
    response: Option<Response>,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(string, tag = "1")]
    description: String,
    #[prost(message, optional, tag = "2")]
    schema: Option<SchemaItem>,
}

#[derive(Clone, PartialEq, Message)]
struct SchemaItem {
    #[prost(message, optional, tag = "1")]
    schema: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Definitions {
    #[prost(message, repeated, tag = "1")]
    schemas: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
struct Properties {
    #[prost(message, repeated, tag = "1")]
    schemas: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedSchema {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Schema {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    format: String,
    #[prost(string, tag = "3")]
    title: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(message, optional, tag = "5")]
    default: Option<Any>,
    #[prost(double, tag = "6")]
    multiple_of: f64,
    #[prost(double, tag = "7")]
    maximum: f64,
    #[prost(bool, tag = "8")]
    exclusive_maximum: bool,
    #[prost(double, tag = "9")]
    minimum: f64,
    #[prost(bool, tag = "10")]
    exclusive_minimum: bool,
    #[prost(int64, tag = "11")]
    max_length: i64,
    #[prost(int64, tag = "12")]
    min_length: i64,
    #[prost(string, tag = "13")]
    pattern: String,
    #[prost(int64, tag = "14")]
    max_items: i64,
    #[prost(int64, tag = "15")]
    min_items: i64,
    #[prost(bool, tag = "16")]
    unique_items: bool,
    #[prost(int64, tag = "17")]
    max_properties: i64,
    #[prost(int64, tag = "18")]
    min_properties: i64,
    #[prost(string, repeated, tag = "19")]
    required: Vec<String>,
    #[prost(message, repeated, tag = "20")]
    enumeration: Vec<Any>,
    #[prost(message, optional, boxed, tag = "21")]
    additional: Option<Box<Additional>>,
    #[prost(message, optional, tag = "22")]
    of: Option<TypeItem>,
    #[prost(message, optional, tag = "23")]
    items: Option<Items>,
    #[prost(message, repeated, tag = "24")]
    all_of: Vec<Schema>,
    #[prost(message, optional, tag = "25")]
    properties: Option<Properties>,
    #[prost(message, repeated, tag = "31")]
    extensions: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct Additional {
    #[prost(oneof = "additional::Of", tags = "1, 2")]
    of: Option<additional::Of>,
}

mod additional {
    use super::{Oneof, Schema};

    #[derive(Clone, PartialEq, Oneof)]
    pub(super) enum Of {
        #[prost(message, boxed, tag = "1")]
        Schema(Box<Schema>),
        #[prost(bool, tag = "2")]
        Boolean(bool),
    }
}

#[derive(Clone, PartialEq, Message)]
struct TypeItem {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Items {
    #[prost(message, repeated, tag = "1")]
    schemas: Vec<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "2")]
    yaml: String,
}
