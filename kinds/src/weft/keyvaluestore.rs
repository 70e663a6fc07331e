//! KeyValueStores: how much may be kept. The keys and values themselves are no part of the object (`Subresource::Data`).

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::integer;
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, Subresource, quantity_of};

pub static KEY_VALUE_STORE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["kvs".into()],
        subresources: vec![Subresource::Status, Subresource::Data],
        columns: vec![
            Column::name(),
            Column::integer("Bytes", bytes, "Bytes of keys and values."),
            Column::text("Quota", bytes_max, "Bytes that it may hold."),
            Column::integer("Keys", keys, "Number of keys."),
            Column::integer("Max-Keys", keys_max, "Keys that it may hold."),
            Column::age(),
        ],
        ..super::own("KeyValueStore", "keyvaluestores", KeyValueStores)
    })
});

/// Less than that holds nothing; more belongs into a database: each server has a copy, and restarts and backups carry it.
const QUOTA_BYTES: std::ops::RangeInclusive<i128> = (1 << 10)..=(1 << 30);
/// What the schema fills in, for objects that were stored without.
const DEFAULT_QUOTA: Quota = Quota {
    bytes: 16 << 20,
    keys: 10_000,
};

/// How much a store may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Of all keys and values.
    pub bytes: u64,
    pub keys: u64,
}

/// The quota of a KeyValueStore.
pub fn quota(store: &Value) -> Quota {
    let bytes = store.pointer("/spec/quota/bytes").and_then(quantity_of);
    let bytes = bytes.and_then(|bytes| u64::try_from(bytes.value()).ok());
    let keys = integer(store, "/spec/quota/keys").and_then(|keys| u64::try_from(keys).ok());
    Quota {
        bytes: bytes.unwrap_or(DEFAULT_QUOTA.bytes),
        keys: keys.unwrap_or(DEFAULT_QUOTA.keys),
    }
}

struct KeyValueStores;

impl Strategy for KeyValueStores {
    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let bytes = root.child("spec.quota.bytes");
        let asked = bytes.quantity();
        if asked.is_none_or(|asked| !QUOTA_BYTES.contains(&asked.value())) {
            problems.invalid(
                &bytes,
                bytes.shown(),
                "must be a quantity between 1Ki and 1Gi, inclusive",
            );
        }
    }
}

fn bytes(row: &Row<'_>) -> Value {
    row.count("/status/bytes").into()
}

fn bytes_max(row: &Row<'_>) -> Value {
    match row.object.pointer("/spec/quota/bytes") {
        Some(Value::String(text)) => text.as_str().into(),
        Some(number) => number.to_string().into(),
        None => "".into(),
    }
}

fn keys(row: &Row<'_>) -> Value {
    row.count("/status/keys").into()
}

fn keys_max(row: &Row<'_>) -> Value {
    row.count("/spec/quota/keys").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode;
    use crate::validate::told;

    fn decoded(spec: Value) -> Value {
        let store = json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "KeyValueStore",
            "metadata": {"name": "carts", "namespace": "shop"}, "spec": spec,
        });
        let decoded = decode::value(&KEY_VALUE_STORE.gvk(), &store).unwrap();
        assert_eq!(decoded.faults, [""; 0]);
        let mut value = decoded.value;
        decode::fill(&KEY_VALUE_STORE.gvk(), &mut value);
        value
    }

    #[test]
    fn what_is_left_out_has_the_defaults() {
        for spec in [Value::Null, json!({}), json!({"quota": {}})] {
            let store = decoded(spec);
            let expected = json!({"quota": {"bytes": "16Mi", "keys": 10000}});
            assert_eq!(store["spec"], expected);
            assert_eq!(quota(&store), DEFAULT_QUOTA);
            assert_eq!(told::of_new(&KEY_VALUE_STORE, &store), [""; 0]);
        }
        assert_eq!(quota(&json!({})), DEFAULT_QUOTA);
    }

    #[test]
    fn quotas_have_a_range() {
        let bytes = "spec.quota.bytes: Invalid value";
        let range = "must be a quantity between 1Ki and 1Gi, inclusive";
        for (quota, expected) in [
            (json!({"bytes": "1Ki", "keys": 1}), vec![]),
            (json!({"bytes": "1Gi", "keys": 1_000_000}), vec![]),
            (json!({"bytes": 4096}), vec![]),
            (
                json!({"bytes": "1023"}),
                vec![format!("{bytes}: \"1023\": {range}")],
            ),
            (
                json!({"bytes": "2Gi"}),
                vec![format!("{bytes}: \"2Gi\": {range}")],
            ),
            (
                json!({"bytes": "-1Mi"}),
                vec![format!("{bytes}: \"-1Mi\": {range}")],
            ),
            (
                json!({"keys": 0}),
                vec![
                    "spec.quota.keys: Invalid value: 0: spec.quota.keys in body should be greater than or equal to 1".to_owned(),
                ],
            ),
            (
                json!({"keys": 1_000_001}),
                vec![
                    "spec.quota.keys: Invalid value: 1000001: spec.quota.keys in body should be less than or equal to 1000000".to_owned(),
                ],
            ),
        ] {
            let store = decoded(json!({"quota": quota}));
            assert_eq!(told::of_new(&KEY_VALUE_STORE, &store), expected);
        }
    }

    #[test]
    fn a_write_of_the_status_changes_nothing_else() {
        let old = decoded(json!({}));
        let mut new = old.clone();
        new["spec"]["quota"]["keys"] = 7.into();
        new["status"] = json!({"bytes": 3, "keys": 1});
        let strategy = &KEY_VALUE_STORE.strategy;
        let part = Some(Subresource::Status);
        let next = strategy.prepare_for_update(&KEY_VALUE_STORE, part, new.clone(), &old);
        assert_eq!(next["spec"], old["spec"]);
        assert_eq!(next["status"]["bytes"], 3);
        let next = strategy.prepare_for_update(&KEY_VALUE_STORE, None, new, &old);
        assert_eq!(
            (&next["spec"]["quota"]["keys"], next.get("status")),
            (&7.into(), None)
        );
    }
}
