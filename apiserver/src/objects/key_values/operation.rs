//! What is asked of the data of a key-value store: one operation a request, as JSON.
//!
//! Invariants: pure; a key has 1 to 512 bytes, a value up to 512 KiB, and no operation is about more than 1,000 keys; what is not
//! understood whole is refused.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use weft_api::status::{Cause, StatusError};
use weft_kinds::KEY_VALUE_STORE;

/// Longest key in bytes: an identifier, not a document. All keys are in the memory of every server.
pub const KEY_BYTES_MAX: usize = 512;
/// Longest value in bytes; what is larger belongs into a volume or an object store.
pub const VALUE_BYTES_MAX: usize = 512 << 10;
/// Keys that one operation is about, and that one page of a list has.
pub const KEYS_MAX: usize = 1000;
/// Longest name that a client gives an operation: a UUID fits.
const ID_BYTES_MAX: usize = 64;
/// A key in base64.
const CURSOR_BYTES_MAX: usize = KEY_BYTES_MAX * 4 / 3 + 4;

/// Names an operation, so that it is known again where it is not known whether it took effect.
pub(super) type Id = [u8; 16];

/// A key of the store that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(pub(super) String);

/// One operation.
#[derive(Clone, Debug)]
pub enum Operation {
    Read(Read),
    Write(Write),
}

/// What changes nothing.
#[derive(Clone, Debug)]
pub enum Read {
    Get(Name),
    GetMany(Vec<Name>),
    Exists(Name),
    List { after: Option<Name> },
}

/// A change, which takes effect as a whole or not at all.
#[derive(Clone, Debug)]
pub struct Write {
    pub(super) id: Id,
    /// Whether the client gave the id, and so may be sending it once more.
    pub(super) named: bool,
    pub(super) change: Change,
}

#[derive(Clone, Debug)]
pub(super) enum Change {
    Set(BTreeMap<Name, Bytes>),
    Delete(BTreeMap<Name, ()>),
    Increment {
        key: Name,
        delta: i64,
    },
    CompareAndSet {
        key: Name,
        revision: u64,
        value: Bytes,
    },
}

impl Write {
    /// The keys that it is about.
    pub(super) fn names(&self) -> Vec<&Name> {
        match &self.change {
            Change::Set(entries) => entries.keys().collect(),
            Change::Delete(names) => names.keys().collect(),
            Change::Increment { key, .. } | Change::CompareAndSet { key, .. } => vec![key],
        }
    }

    /// Bytes of keys and values.
    pub(super) fn bytes(&self) -> usize {
        let values = match &self.change {
            Change::Set(entries) => entries.values().map(Bytes::len).sum(),
            Change::CompareAndSet { value, .. } => value.len(),
            Change::Delete(_) | Change::Increment { .. } => 0,
        };
        self.names().iter().map(|name| name.0.len()).sum::<usize>() + values
    }
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "camelCase", deny_unknown_fields)]
enum Sent {
    Get {
        key: String,
    },
    GetMany {
        keys: Vec<String>,
    },
    Set {
        key: String,
        value: String,
        id: Option<String>,
    },
    SetMany {
        entries: Vec<SentEntry>,
        id: Option<String>,
    },
    Delete {
        key: String,
        id: Option<String>,
    },
    DeleteMany {
        keys: Vec<String>,
        id: Option<String>,
    },
    Exists {
        key: String,
    },
    ListKeys {
        cursor: Option<String>,
    },
    Increment {
        key: String,
        delta: i64,
        id: Option<String>,
    },
    CompareAndSet {
        key: String,
        revision: u64,
        value: String,
        id: Option<String>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SentEntry {
    key: String,
    value: String,
}

impl Operation {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// 400 for what is no operation, 413 for a value over its limit, 422 for keys, counts and ids that are out of bounds.
    pub fn parse(body: &[u8]) -> Result<Self, StatusError> {
        let sent: Sent = serde_json::from_slice(body).map_err(|error| {
            StatusError::bad_request(format!(
                "the body is no operation on a key-value store: {error}; send one JSON object, such as {{\"op\":\"get\",\"key\":\"k\"}}"
            ))
        })?;
        let write = |id: Option<String>, change| {
            let (id, named) = match id {
                Some(id) => (id_of(&id)?, true),
                None => (rand::random(), false),
            };
            Ok(Self::Write(Write { id, named, change }))
        };
        match sent {
            Sent::Get { key } => Ok(Self::Read(Read::Get(name("key", key)?))),
            Sent::GetMany { keys } => Ok(Self::Read(Read::GetMany(names(keys)?))),
            Sent::Exists { key } => Ok(Self::Read(Read::Exists(name("key", key)?))),
            Sent::ListKeys { cursor } => {
                let after = cursor.map(|cursor| read_cursor(&cursor)).transpose()?;
                Ok(Self::Read(Read::List { after }))
            }
            Sent::Set { key, value, id } => {
                let entry = (name("key", key)?, bytes("value", &value)?);
                write(id, Change::Set([entry].into()))
            }
            Sent::SetMany { entries, id } => {
                check_count("entries", entries.len())?;
                let entries = entries.into_iter().enumerate().map(|(index, entry)| {
                    let key = name(&format!("entries[{index}].key"), entry.key)?;
                    let value = bytes(&format!("entries[{index}].value"), &entry.value)?;
                    Ok((key, value))
                });
                // Of a key that is named twice, the last value is what a client means.
                write(
                    id,
                    Change::Set(entries.collect::<Result<_, StatusError>>()?),
                )
            }
            Sent::Delete { key, id } => write(id, Change::Delete([(name("key", key)?, ())].into())),
            Sent::DeleteMany { keys, id } => {
                let keys = names(keys)?.into_iter().map(|key| (key, ()));
                write(id, Change::Delete(keys.collect()))
            }
            Sent::Increment { key, delta, id } => {
                let key = name("key", key)?;
                write(id, Change::Increment { key, delta })
            }
            Sent::CompareAndSet {
                key,
                revision,
                value,
                id,
            } => {
                let change = Change::CompareAndSet {
                    key: name("key", key)?,
                    revision,
                    value: bytes("value", &value)?,
                };
                write(id, change)
            }
        }
    }
}

fn invalid(cause: Cause) -> StatusError {
    let kind = &KEY_VALUE_STORE;
    StatusError::invalid(&kind.kind, &kind.group, "", vec![cause])
}

fn name(field: &str, key: String) -> Result<Name, StatusError> {
    match key.len() {
        0 => Err(invalid(Cause::required(field, "must have 1 to 512 bytes"))),
        1..=KEY_BYTES_MAX => Ok(Name(key)),
        _ => Err(invalid(Cause::too_long(field, KEY_BYTES_MAX))),
    }
}

fn names(keys: Vec<String>) -> Result<Vec<Name>, StatusError> {
    check_count("keys", keys.len())?;
    let keys = keys.into_iter().enumerate();
    keys.map(|(index, key)| name(&format!("keys[{index}]"), key))
        .collect()
}

fn check_count(field: &str, count: usize) -> Result<(), StatusError> {
    if count <= KEYS_MAX {
        return Ok(());
    }
    Err(invalid(Cause {
        reason: "FieldValueTooMany".to_owned(),
        message: format!("Too many: {count}: must have at most {KEYS_MAX} items"),
        field: field.to_owned(),
    }))
}

fn bytes(field: &str, value: &str) -> Result<Bytes, StatusError> {
    let too_large = |bytes: usize| {
        StatusError::request_entity_too_large(format!(
            "{field} has {bytes} bytes, the limit is {VALUE_BYTES_MAX}: split it, or keep it in a volume"
        ))
    };
    // What decodes to more is not decoded.
    let at_least = (value.len() / 4 * 3).saturating_sub(2);
    if at_least > VALUE_BYTES_MAX {
        return Err(too_large(at_least));
    }
    let decoded = STANDARD.decode(value).map_err(|error| {
        StatusError::bad_request(format!("{field} is no base64 (RFC 4648, padded): {error}"))
    })?;
    match decoded.len() {
        0..=VALUE_BYTES_MAX => Ok(decoded.into()),
        bytes => Err(too_large(bytes)),
    }
}

fn id_of(text: &str) -> Result<Id, StatusError> {
    if text.is_empty() {
        return Err(invalid(Cause::required("id", "must have 1 to 64 bytes")));
    }
    if text.len() > ID_BYTES_MAX {
        return Err(invalid(Cause::too_long("id", ID_BYTES_MAX)));
    }
    let mut id = Id::default();
    id.copy_from_slice(&Sha256::digest(text)[..16]);
    Ok(id)
}

/// Where a list goes on.
pub(super) fn cursor(after: &Name) -> String {
    URL_SAFE_NO_PAD.encode(&after.0)
}

fn read_cursor(text: &str) -> Result<Name, StatusError> {
    let refused = || {
        StatusError::bad_request(
            "the cursor is none that this server gave: begin the list again without one",
        )
    };
    if text.len() > CURSOR_BYTES_MAX {
        return Err(refused());
    }
    let key = URL_SAFE_NO_PAD.decode(text).map_err(|_| refused())?;
    let key = String::from_utf8(key).map_err(|_| refused())?;
    name("cursor", key).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(body: &Value) -> String {
        match Operation::parse(body.to_string().as_bytes()) {
            Ok(_) => "taken".to_owned(),
            Err(error) => format!("{} {}", error.code, error.message),
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let value = |bytes: usize| STANDARD.encode(vec![7; bytes]);
        let keys = |count: usize| vec!["k"; count];
        let entries = |count: usize| vec![json!({"key": "k", "value": ""}); count];
        for (body, expected) in [
            (json!({"op": "get", "key": "k"}), "taken"),
            (json!({"op": "get", "key": "ü/\u{0} "}), "taken"),
            (json!({"op": "get", "key": ""}), "422"),
            (json!({"op": "get", "key": "k".repeat(512)}), "taken"),
            (json!({"op": "get", "key": "k".repeat(513)}), "422"),
            (json!({"op": "get", "key": "ü".repeat(257)}), "422"),
            (json!({"op": "get"}), "400"),
            (json!({"op": "get", "key": "k", "id": "x"}), "400"),
            (json!({"op": "get", "key": "k", "revision": 7}), "400"),
            (json!({"op": "get", "key": 7}), "400"),
            (json!({"op": "steal", "key": "k"}), "400"),
            (json!({"key": "k"}), "400"),
            (json!([]), "400"),
            (json!({"op": "getMany", "keys": keys(1000)}), "taken"),
            (json!({"op": "getMany", "keys": keys(1001)}), "422"),
            (json!({"op": "deleteMany", "keys": keys(1001)}), "422"),
            (json!({"op": "setMany", "entries": entries(1001)}), "422"),
            (
                json!({"op": "setMany", "entries": [{"key": "k", "value": "", "more": 1}]}),
                "400",
            ),
            (
                json!({"op": "set", "key": "k", "value": value(512 << 10)}),
                "taken",
            ),
            (
                json!({"op": "set", "key": "k", "value": value((512 << 10) + 1)}),
                "413",
            ),
            (
                json!({"op": "set", "key": "k", "value": value(1 << 20)}),
                "413",
            ),
            (json!({"op": "set", "key": "k", "value": "a"}), "400"),
            (json!({"op": "set", "key": "k", "value": "aGk"}), "400"),
            (json!({"op": "set", "key": "k", "value": "aG k="}), "400"),
            (
                json!({"op": "set", "key": "k", "value": "", "id": "x".repeat(64)}),
                "taken",
            ),
            (
                json!({"op": "set", "key": "k", "value": "", "id": "x".repeat(65)}),
                "422",
            ),
            (
                json!({"op": "set", "key": "k", "value": "", "id": ""}),
                "422",
            ),
            (
                json!({"op": "increment", "key": "k", "delta": i64::MIN}),
                "taken",
            ),
            (
                json!({"op": "increment", "key": "k", "delta": u64::MAX}),
                "400",
            ),
            (json!({"op": "increment", "key": "k", "delta": 1.5}), "400"),
            (
                json!({"op": "compareAndSet", "key": "k", "revision": u64::MAX, "value": ""}),
                "taken",
            ),
            (
                json!({"op": "compareAndSet", "key": "k", "revision": -1, "value": ""}),
                "400",
            ),
            (json!({"op": "listKeys"}), "taken"),
            (json!({"op": "listKeys", "cursor": "!"}), "400"),
            (
                json!({"op": "listKeys", "cursor": "a".repeat(1 << 20)}),
                "400",
            ),
            (
                json!({"op": "listKeys", "cursor": URL_SAFE_NO_PAD.encode([0xff])}),
                "400",
            ),
        ] {
            let found = told(&body);
            assert!(found.starts_with(expected), "{body:.80}: {found}");
        }
        // 2^64 does not fit the number.
        let body =
            br#"{"op":"compareAndSet","key":"k","revision":18446744073709551616,"value":""}"#;
        assert_eq!(Operation::parse(body).unwrap_err().code, 400);
        assert_eq!(Operation::parse(b"\xff").unwrap_err().code, 400);
        let deep = format!("{{\"op\":\"get\",\"key\":{}", "[".repeat(100_000));
        assert_eq!(Operation::parse(deep.as_bytes()).unwrap_err().code, 400);
    }

    #[test]
    fn refusals_tell_the_field() {
        assert_eq!(
            told(
                &json!({"op": "setMany", "entries": [{"key": "a", "value": ""}, {"key": "", "value": ""}]})
            ),
            "422 KeyValueStore.weft.dev \"\" is invalid: entries[1].key: Required value: must have 1 to 512 bytes"
        );
        assert!(told(&json!({"op": "steal"})).contains("unknown variant `steal`"));
    }

    #[test]
    fn cursors_lead_back_to_their_key() {
        for key in ["a", "ü/\u{0}", &"k".repeat(512)] {
            let key = Name(key.to_owned());
            assert_eq!(read_cursor(&cursor(&key)).unwrap(), key);
        }
    }
}
