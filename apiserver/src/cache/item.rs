//! One revision of an object, and what selectors look at in it.
//!
//! An [`Item`] is shared by everybody who meets this revision: lists, watches, the history. Its labels and selectable
//! fields are read out of the JSON once, without building the rest of it, and kept as one small buffer; the value itself
//! stays in the store's entry, compressed (and sealed) as it is there.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use weft_store::Entry;

use crate::encryption::Vault;
use crate::stored;
use weft_kinds::KindRef;

const LABELS: &str = "/metadata/labels";

/// An object at one revision.
pub(crate) struct Item {
    entry: Arc<Entry>,
    facts: OnceLock<Facts>,
}

impl Item {
    pub(crate) fn new(entry: Arc<Entry>) -> Self {
        Self {
            entry,
            facts: OnceLock::new(),
        }
    }

    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// Whether anybody looked into the value.
    #[cfg(test)]
    pub(crate) fn is_read(&self) -> bool {
        self.facts.get().is_some()
    }

    /// Labels and fields; read out of the value at the first call.
    pub(crate) fn facts(&self, kind: KindRef<'_>, vault: &Vault) -> &Facts {
        self.facts.get_or_init(|| {
            let layout = stored::layout(vault, kind, &self.entry);
            Facts::read(kind, stored::json_of(&layout))
        })
    }
}

/// Labels and selectable fields of an object: `[u32 labels]`, then their keys and values, then the fields in the order of the
/// stored kind's `selectable`, each text behind its `u32` length.
pub(crate) struct Facts(Box<[u8]>);

impl Facts {
    fn read(kind: KindRef<'_>, json: &[u8]) -> Self {
        let selectable = &kind.stored().selectable;
        let wanted: Vec<(usize, &str)> = std::iter::once(LABELS)
            .chain(selectable.iter().map(|selectable| &*selectable.pointer))
            .enumerate()
            .collect();
        let mut found = vec![None; wanted.len()];
        let pick = Pick {
            wanted: &wanted,
            found: &mut found,
        };
        // What cannot be read has no labels, and its fields are absent.
        let _ = pick.deserialize(&mut serde_json::Deserializer::from_slice(json));

        let mut out = Vec::new();
        let labels: Vec<(&str, &str)> = found[0]
            .as_ref()
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
            .collect();
        out.extend_from_slice(&length(labels.len()));
        for (key, value) in labels {
            push(&mut out, key);
            push(&mut out, value);
        }
        for (selectable, value) in selectable.iter().zip(&found[1..]) {
            match value {
                Some(Value::String(text)) => push(&mut out, text),
                None | Some(Value::Null) => push(&mut out, &selectable.absent),
                Some(other) => push(&mut out, &other.to_string()),
            }
        }
        Self(out.into_boxed_slice())
    }

    /// Keys and values of the labels.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let (count, rest) = split_length(&self.0);
        let mut texts = Texts(rest);
        (0..count).filter_map(move |_| Some((texts.next()?, texts.next()?)))
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels()
            .find_map(|(name, value)| (name == key).then_some(value))
    }

    /// The field at this place of the stored kind's `selectable`.
    pub(crate) fn field(&self, index: usize) -> &str {
        let (count, rest) = split_length(&self.0);
        Texts(rest).nth(2 * count + index).unwrap_or("")
    }
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&length(text.len()));
    out.extend_from_slice(text.as_bytes());
}

fn split_length(bytes: &[u8]) -> (usize, &[u8]) {
    match bytes.split_first_chunk() {
        Some((length, rest)) => (u32::from_le_bytes(*length) as usize, rest),
        None => (0, &[]),
    }
}

struct Texts<'a>(&'a [u8]);

impl<'a> Iterator for Texts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (length, rest) = split_length(self.0);
        let (text, rest) = rest.split_at_checked(length)?;
        if self.0.is_empty() {
            return None;
        }
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

/// Takes the values at some JSON pointers, and skips all else without building it.
struct Pick<'a> {
    /// Number of the pointer, and what is left of it here.
    wanted: &'a [(usize, &'a str)],
    found: &'a mut [Option<Value>],
}

impl<'de> DeserializeSeed<'de> for Pick<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.wanted.iter().any(|(_, rest)| rest.is_empty()) {
            let value: Value = serde::Deserialize::deserialize(deserializer)?;
            for (number, rest) in self.wanted {
                self.found[*number] = value.pointer(rest).cloned();
            }
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Pick<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut inner: Vec<(usize, &str)> = Vec::new();
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            inner.clear();
            inner.extend(self.wanted.iter().filter_map(|(number, pointer)| {
                let rest = pointer.strip_prefix('/')?.strip_prefix(key.as_ref())?;
                (rest.is_empty() || rest.starts_with('/')).then_some((*number, rest))
            }));
            if inner.is_empty() {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Pick {
                    wanted: &inner,
                    found: self.found,
                })?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        // No kind has a selectable field inside a list.
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use weft_kinds as kinds;

    #[test]
    fn facts_are_what_the_pointers_say() {
        for (value, labels, fields) in [
            (
                json!({
                    "metadata": {"name": "p", "labels": {"app": "web", "tier": "a/b", "odd": 7}},
                    "spec": {"nodeName": "n1", "containers": [{"name": "c"}], "hostNetwork": true},
                    "status": {"phase": "Running", "podIP": null, "podIPs": [{"ip": "10.0.0.1"}]},
                }),
                "app=web tier=a/b",
                "n1 n1    true Running   ",
            ),
            (
                json!({"metadata": {"labels": null}, "spec": "no object"}),
                "",
                "     false    ",
            ),
            (
                json!({"spec": {"nodeName": {"a": [1]}}}),
                "",
                "{\"a\":[1]} {\"a\":[1]}    false    ",
            ),
            (json!([1, 2]), "", "     false    "),
        ] {
            let facts = Facts::read(&kinds::POD, value.to_string().as_bytes());
            let told: Vec<String> = facts.labels().map(|(k, v)| format!("{k}={v}")).collect();
            assert_eq!(told.join(" "), labels);
            let told: Vec<&str> = (0..kinds::POD.selectable.len())
                .map(|index| facts.field(index))
                .collect();
            assert_eq!(told.join(" "), fields, "{value}");
        }
        let facts = Facts::read(
            &kinds::POD,
            b"{\"metadata\":{\"labels\":{\"a\":\"b\"}},\"spec",
        );
        assert_eq!((facts.label("a"), facts.label("b")), (Some("b"), None));
    }
}
