//! OpenAPI version 3 of what a server tells in version 2 only.
//!
//! Schemas move to `components`, bodies to `requestBody`, types of parameters and answers into schemas with the media types that they have. What version 2
//! cannot say is not there.
//!
//! Source: k8s.io/kube-openapi `pkg/openapiconv`.

use serde_json::{Map, Value, json};

use crate::aggregation::V2;

const OF_V2: &str = "#/definitions/";
const OF_V3: &str = "#/components/schemas/";
/// What is said when nothing is.
const JSON: &str = "application/json";
/// Members of a parameter that are its own, and not its schema's.
const OF_PARAMETERS: [&str; 4] = ["name", "in", "description", "required"];

/// The document of one version.
pub(super) fn document(v2: &V2) -> Value {
    let paths = v2.paths.iter().map(|(path, item)| {
        let item = item.as_object().into_iter().flatten();
        let item = item.map(|(member, value)| {
            let value = match member.as_str() {
                "parameters" => Value::Array(parameters(value).0),
                "$ref" => value.clone(),
                _ => operation(value),
            };
            (member.clone(), value)
        });
        (path.clone(), Value::Object(item.collect()))
    });
    let mut document = json!({
        "openapi": "3.0.0",
        "info": super::info(),
        "paths": paths.collect::<Map<_, _>>(),
        "components": {"schemas": v2.definitions},
    });
    refer(&mut document);
    document
}

/// Parameters without the body, and the body.
fn parameters(all: &Value) -> (Vec<Value>, Option<&Value>) {
    let (mut others, mut body) = (Vec::new(), None);
    for parameter in all.as_array().into_iter().flatten() {
        if parameter["in"] == "body" {
            body = Some(parameter);
            continue;
        }
        let (mut own, mut schema) = (Map::new(), Map::new());
        for (member, value) in parameter.as_object().into_iter().flatten() {
            let place = match OF_PARAMETERS.contains(&member.as_str()) {
                true => &mut own,
                false => &mut schema,
            };
            place.insert(member.clone(), value.clone());
        }
        if !schema.is_empty() && !schema.contains_key("$ref") {
            own.insert("schema".to_owned(), schema.into());
        } else {
            own.extend(schema);
        }
        others.push(own.into());
    }
    (others, body)
}

fn operation(v2: &Value) -> Value {
    let mut operation = v2.as_object().cloned().unwrap_or_default();
    let (takes, gives) = (operation.remove("consumes"), operation.remove("produces"));
    operation.remove("schemes");
    if let Some(all) = operation.remove("parameters") {
        let (others, body) = parameters(&all);
        if let Some(body) = body {
            let mut request = json!({"content": content(takes.as_ref(), &body["schema"])});
            for member in ["description", "required"] {
                if let Some(value) = body.get(member) {
                    request[member] = value.clone();
                }
            }
            operation.insert("requestBody".to_owned(), request);
        }
        if !others.is_empty() {
            operation.insert("parameters".to_owned(), others.into());
        }
    }
    let responses = operation
        .get_mut("responses")
        .and_then(Value::as_object_mut);
    for response in responses.into_iter().flat_map(Map::values_mut) {
        let response = response.as_object_mut();
        if let Some(response) = response
            && let Some(schema) = response.remove("schema")
        {
            response.insert("content".to_owned(), content(gives.as_ref(), &schema));
        }
    }
    operation.into()
}

/// A schema by each media type that it comes in.
fn content(types: Option<&Value>, schema: &Value) -> Value {
    let types = types.and_then(Value::as_array).into_iter().flatten();
    let mut types: Vec<&str> = types.filter_map(Value::as_str).collect();
    if types.is_empty() {
        types.push(JSON);
    }
    let content = types.into_iter();
    let content = content.map(|media| (media.to_owned(), json!({"schema": schema})));
    Value::Object(content.collect())
}

/// Has references lead to where schemas are now.
fn refer(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let name = value.as_str().filter(|_| key == "$ref");
                match name.and_then(|name| name.strip_prefix(OF_V2)) {
                    Some(name) => *value = format!("{OF_V3}{name}").into(),
                    None => refer(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(refer),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_types_and_references_are_where_version_three_has_them() {
        let reference = json!({"$ref": "#/definitions/X"});
        let v2 = V2::of(
            json!({"/apis/g/v1/xs": {
                "parameters": [{"name": "namespace", "in": "path", "required": true, "type": "string", "uniqueItems": true}],
                "post": {
                    "consumes": ["*/*"], "produces": ["application/json", "application/yaml"], "schemes": ["https"],
                    "operationId": "create",
                    "parameters": [
                        {"name": "body", "in": "body", "required": true, "schema": reference},
                        {"name": "dryRun", "in": "query", "type": "string"},
                    ],
                    "responses": {"201": {"description": "Created", "schema": reference}, "401": {"description": "no"}},
                },
            }}),
            json!({"X": {"properties": {"self": reference}}}),
        );
        let reference = json!({"$ref": "#/components/schemas/X"});
        let document = document(&v2);
        assert_eq!(
            document["paths"]["/apis/g/v1/xs"],
            json!({
                "parameters": [{"name": "namespace", "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}}],
                "post": {
                    "operationId": "create",
                    "parameters": [{"name": "dryRun", "in": "query", "schema": {"type": "string"}}],
                    "requestBody": {"required": true, "content": {"*/*": {"schema": reference}}},
                    "responses": {
                        "201": {"description": "Created", "content": {
                            "application/json": {"schema": reference}, "application/yaml": {"schema": reference},
                        }},
                        "401": {"description": "no"},
                    },
                },
            })
        );
        assert_eq!(
            document["components"]["schemas"],
            json!({"X": {"properties": {"self": reference}}})
        );
    }
}
