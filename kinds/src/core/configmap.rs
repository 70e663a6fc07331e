//! ConfigMaps.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use crate::Kind;
use crate::Subresource;
use crate::columns::{Column, Row, entries};
use crate::core::data::{DATA_BYTES_MAX, decoded_bytes, immutable_data};
use crate::field::Field;
use crate::strategy::Strategy;
use crate::validate::Problems;

pub static CONFIG_MAP: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["cm".into()],
        columns: vec![
            Column::name(),
            Column::text("Data", shown_data, "Number of entries."),
            Column::age(),
        ],
        strategy: Arc::new(ConfigMaps),
        ..Kind::new("", "v1", "ConfigMap", "configmaps")
    })
});

struct ConfigMaps;

impl Strategy for ConfigMaps {
    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let mut bytes = 0;
        for (key, value) in root.entries("data") {
            for fault in name::config_key_faults(key) {
                problems.invalid(&value, key, &fault);
            }
            if root.entry("binaryData", key).is_set() {
                let sentence = "duplicate of key present in binaryData";
                problems.invalid(&value, key, sentence);
            }
            bytes += value.text().len();
        }
        for (key, value) in root.entries("binaryData") {
            for fault in name::config_key_faults(key) {
                problems.invalid(&value, key, &fault);
            }
            bytes += decoded_bytes(&value);
        }
        if bytes > DATA_BYTES_MAX {
            problems.too_long(&root, DATA_BYTES_MAX);
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let (root, before) = (Field::root(new), Field::root(old));
        immutable_data(&root, &before, &["data", "binaryData"], problems);
        self.validate(new, problems);
    }
}

fn shown_data(row: &Row<'_>) -> Value {
    entries(row, &["/data", "/binaryData"])
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;
    use crate::validate::told;

    #[test]
    fn sizes_count_decoded_bytes() {
        let map = |data: Value, binary: Value| json!({"metadata": {"name": "m", "namespace": "n"}, "data": data, "binaryData": binary});
        let bytes = |count: usize| STANDARD.encode(vec![7; count]);
        let full = map(
            json!({"a": "x".repeat(1 << 19)}),
            json!({"b": bytes(1 << 19)}),
        );
        assert_eq!(told::of_new(&CONFIG_MAP, &full), [""; 0]);
        let more = map(json!({"a": "x"}), json!({"b": bytes(1 << 20)}));
        assert_eq!(
            told::of_new(&CONFIG_MAP, &more),
            [": Too long: may not be more than 1048576 bytes"]
        );
        let faults = map(json!({"a": "x", "b/": "x"}), json!({"a": "eA=="}));
        assert_eq!(
            told::of_new(&CONFIG_MAP, &faults),
            [
                "data[a]: Invalid value: \"a\": duplicate of key present in binaryData",
                "data[b/]: Invalid value: \"b/\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
            ]
        );
    }

    #[test]
    fn what_is_immutable_stays() {
        let old = json!({"metadata": {"name": "m", "namespace": "n"}, "data": {"a": "1"}, "immutable": true});
        let new = json!({"metadata": {"name": "m", "namespace": "n"}, "data": {"a": "2"}});
        assert_eq!(
            told::of_update(&CONFIG_MAP, &new, &old, None),
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ]
        );
    }
}
