//! Bodies of objects: JSON, YAML and protobuf of every kind, as they are read, completed and judged before anything is stored.

use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use serde_json::Value;
use weft_apiserver::http::negotiate;
use weft_kinds::{Kind, Row, decode, protobuf, validate};

use crate::seeds;

pub fn json(input: &[u8]) {
    body(input, "application/json");
}

pub fn json_seeds() -> Vec<Vec<u8>> {
    seeds::bodies(|manifest| Some(manifest.to_string().into_bytes()))
}

pub fn yaml(input: &[u8]) {
    body(input, "application/yaml");
}

pub fn yaml_seeds() -> Vec<Vec<u8>> {
    let mut made = seeds::bodies(|manifest| Some(as_yaml(manifest, 0).into_bytes()));
    let more = [
        "a: &a [x, x]\nb: *a\nmetadata: {<<: *a}\n",
        "metadata:\n  name: |-\n    a\n  labels: {a: !!str 1, ? b : c}\n",
        "%YAML 1.2\n---\n{kind: ConfigMap, data: {a: 0x1F, b: 1_000, c: ~, d: 012, e: .inf, f: yes, g: 2026-01-01}}\n...\n",
    ];
    made.extend(more.map(|text| [b"\x04", text.as_bytes()].concat()));
    made
}

pub fn protobuf(input: &[u8]) {
    let Ok(read) = protobuf::decode(input) else {
        return;
    };
    assert!(decode::is_bounded(&read.value), "deeper than may be stored");
    // What was read can be written, unless a text in it is no quantity or the like, and is read the same again.
    if let Ok(written) = protobuf::encode(&read.value) {
        let again = protobuf::decode(&written).map(|again| again.value);
        assert_eq!(again.ok().as_ref(), Some(&read.value));
    }
    let registry = weft_kinds::Registry::builtin();
    let (version, kind) = (&read.value["apiVersion"], &read.value["kind"]);
    let (group, version) = weft_api::gvk::split_api_version(version.as_str().unwrap_or_default());
    if let Some(kind) = registry.by_kind(group, version, kind.as_str().unwrap_or_default())
        && let Ok(decoded) = decode::value(kind, &read.value)
    {
        judged(kind, decoded.value);
    }
}

pub fn protobuf_seeds() -> Vec<Vec<u8>> {
    let manifests = seeds::MANIFESTS.iter();
    let mut found: Vec<Vec<u8>> = manifests
        .filter_map(|manifest| protobuf::encode(manifest).ok())
        .collect();
    // Of six releases; every third is enough of them.
    found.extend(seeds::fixtures(".pb").into_iter().step_by(3));
    found
}

fn body(input: &[u8], media_type: &'static str) {
    let Some((chosen, body)) = input.split_first() else {
        return;
    };
    let kind = seeds::kind(*chosen);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    let Ok(read) = negotiate::decode_object(&headers, body, &kind.gvk(), kind) else {
        return;
    };
    assert!(decode::is_bounded(&read.value), "deeper than may be stored");
    let again = decode::value(kind, &read.value).map(|again| again.value);
    assert_eq!(again.ok().as_ref(), Some(&read.value), "not canonical");
    judged(kind, read.value);
}

/// An object through what a create makes of it; what is taken stays as it is, and is shown in every form.
pub fn judged(kind: &Kind, mut value: Value) {
    if !value.is_object() {
        return;
    }
    let strategy = &kind.strategy;
    strategy.prepare_for_create(kind, &mut value);
    strategy.default(&mut value);
    let mut twice = value.clone();
    strategy.default(&mut twice);
    assert_eq!(twice, value, "a default of a default");
    let is_taken = validate::created(kind, &value).is_ok();
    let stays = validate::updated(kind, &value, &value, None);
    if is_taken {
        assert!(stays.is_ok(), "it may not stay what it may be: {stays:?}");
    }
    let row = Row {
        object: &value,
        now: Timestamp::UNIX_EPOCH,
    };
    for column in &kind.columns {
        let _ = (column.cell)(&row);
    }
}

/// Block style, which is what people write.
fn as_yaml(value: &Value, level: usize) -> String {
    let indent = "  ".repeat(level);
    match value {
        Value::Object(map) if !map.is_empty() => map
            .iter()
            .map(|(key, value)| {
                let key = Value::from(key.as_str());
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        format!("{indent}{key}:\n{}", as_yaml(value, level + 1))
                    }
                    Value::Array(inner) if !inner.is_empty() => {
                        format!("{indent}{key}:\n{}", as_yaml(value, level))
                    }
                    plain => format!("{indent}{key}: {plain}\n"),
                }
            })
            .collect(),
        Value::Array(items) => items
            .iter()
            .map(|item| format!("{indent}- {item}\n"))
            .collect(),
        plain => format!("{indent}{plain}\n"),
    }
}
