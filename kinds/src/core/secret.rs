//! Secrets: ciphertext at rest; `stringData` is write-only and ends up in `data`.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use weft_api::name;

use crate::columns::{Column, Row, entries};
use crate::core::data::{DATA_BYTES_MAX, decoded_bytes, immutable_data};
use crate::field::Field;
use crate::kind::Selectable;
use crate::lens::{fill, member};
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static SECRET: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        columns: vec![
            Column::name(),
            Column::text("Type", shown_type, "What the secret is for."),
            Column::text("Data", shown_data, "Number of entries."),
            Column::age(),
        ],
        selectable: vec![Selectable::new("type", "/type")],
        sealed: true,
        strategy: Arc::new(Secrets),
        ..Kind::new("", "v1", "Secret", "secrets")
    })
});

struct Secrets;

impl Strategy for Secrets {
    fn default(&self, value: &mut Value) {
        fold_string_data(value);
        fill(value, "type", "Opaque");
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let data = root.child("data");
        let mut bytes = 0;
        for (key, value) in root.entries("data") {
            for fault in name::config_key_faults(key) {
                problems.invalid(&value, key, &fault);
            }
            bytes += decoded_bytes(&value);
        }
        if bytes > DATA_BYTES_MAX {
            problems.too_long(&data, DATA_BYTES_MAX);
        }
        validate_type(&root, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let (root, before) = (Field::root(new), Field::root(old));
        immutable_data(&root, &before, &["data"], problems);
        self.validate(new, problems);
        problems.immutable(&root.child("type"), &before.child("type"));
    }
}

/// Stands for what messages must not show.
const REDACTED: &str = "<secret contents redacted>";

/// What a secret of a known type has to hold.
fn validate_type(root: &Field<'_, '_>, problems: &mut Problems) {
    let has = |key: &str| root.entry("data", key).is_set();
    let required = |key: &str, problems: &mut Problems| {
        problems.required(&root.entry("data", key), "");
    };
    match root.child("type").text() {
        "kubernetes.io/service-account-token" => {
            let account = root.entry("metadata.annotations", "kubernetes.io/service-account.name");
            problems.required_text(&account);
        }
        "kubernetes.io/dockercfg" => docker(root, ".dockercfg", problems),
        "kubernetes.io/dockerconfigjson" => docker(root, ".dockerconfigjson", problems),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            required("username", problems);
            required("password", problems);
        }
        "kubernetes.io/ssh-auth" if root.entry("data", "ssh-privatekey").text().is_empty() => {
            required("ssh-privatekey", problems);
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !has(key) {
                    required(key, problems);
                }
            }
        }
        _ => {}
    }
}

/// Credentials of registries are a JSON object.
fn docker(root: &Field<'_, '_>, key: &str, problems: &mut Problems) {
    let held = root.entry("data", key);
    if !held.is_set() {
        return problems.required(&held, "");
    }
    let bytes = STANDARD.decode(held.text()).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        // Which sign was wrong is not told: it is one of a secret's.
        let told = match error.is_eof() {
            true => "unexpected end of JSON input".to_owned(),
            false => error.to_string(),
        };
        problems.invalid(&held, REDACTED, &told);
    }
}

/// `stringData` is write-only: it ends up encoded in `data`, and wins over what is there.
fn fold_string_data(value: &mut Value) {
    let Some(map) = value.as_object_mut() else {
        return;
    };
    let Some(Value::Object(plain)) = map.remove("stringData") else {
        return;
    };
    let data = member(value, "data");
    for (key, text) in plain {
        if let Some(text) = text.as_str() {
            data[key] = STANDARD.encode(text).into();
        }
    }
}

fn shown_type(row: &Row<'_>) -> Value {
    row.text_or("/type", "")
}

fn shown_data(row: &Row<'_>) -> Value {
    entries(row, &["/data"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validate::told;

    #[test]
    fn string_data_is_folded() {
        let mut value = json!({"data": {"a": "eA=="}, "stringData": {"a": "y", "b": "z"}});
        Secrets.default(&mut value);
        assert_eq!(
            value,
            json!({"data": {"a": "eQ==", "b": "eg=="}, "type": "Opaque"})
        );
    }

    fn secret(kind: &str, data: Value) -> Value {
        json!({"metadata": {"name": "s", "namespace": "n"}, "type": kind, "data": data})
    }

    /// A release of Helm between 768 KiB and 1 MiB: what is stored is a third longer than what it stands for.
    #[test]
    fn sizes_count_decoded_bytes() {
        let of = |bytes: usize| {
            let whole = json!({"a": STANDARD.encode(vec![7; bytes])});
            told::of_new(&SECRET, &secret("Opaque", whole))
        };
        assert_eq!(of(1 << 20), [""; 0]);
        assert_eq!(
            of((1 << 20) + 1),
            ["data: Too long: may not be more than 1048576 bytes"]
        );
        let mut plain = secret("Opaque", json!({}));
        plain["stringData"] = json!({"a": "x".repeat(1 << 20), "b": ""});
        assert_eq!(told::of_new(&SECRET, &plain), [""; 0]);
        plain["stringData"]["b"] = json!("x");
        assert_eq!(told::of_new(&SECRET, &plain).len(), 1);
    }

    #[test]
    fn known_types_hold_what_they_are_for() {
        for (kind, data, expected) in [
            (
                "kubernetes.io/tls",
                json!({"tls.crt": ""}),
                vec!["data[tls.key]: Required value"],
            ),
            (
                "kubernetes.io/basic-auth",
                json!({}),
                vec![
                    "data[username]: Required value",
                    "data[password]: Required value",
                ],
            ),
            ("kubernetes.io/basic-auth", json!({"password": ""}), vec![]),
            (
                "kubernetes.io/ssh-auth",
                json!({"ssh-privatekey": ""}),
                vec!["data[ssh-privatekey]: Required value"],
            ),
            (
                "kubernetes.io/service-account-token",
                json!({}),
                vec!["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
            (
                "kubernetes.io/dockerconfigjson",
                json!({}),
                vec!["data[.dockerconfigjson]: Required value"],
            ),
            (
                "kubernetes.io/dockerconfigjson",
                json!({".dockerconfigjson": "e30="}),
                vec![],
            ),
            ("example.com/own", json!({}), vec![]),
        ] {
            assert_eq!(
                told::of_new(&SECRET, &secret(kind, data)),
                expected,
                "{kind}"
            );
        }
        let held = json!({".dockercfg": STANDARD.encode("[pass]")});
        let found = told::of_new(&SECRET, &secret("kubernetes.io/dockercfg", held));
        assert!(found.len() == 1 && !found[0].contains("pass"), "{found:?}");
    }
}
