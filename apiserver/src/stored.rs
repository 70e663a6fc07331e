//! How an object lies in the store, and how it comes back out without being serialised again.
//!
//! A value is, where it is not sealed (`encryption`), `[version][u32 offset, little endian][JSON without resourceVersion]`: the offset is where
//! `"resourceVersion":"N",` belongs, so an answer is three copies and no parser. What selectors look at, and
//! the watch event of an entry, are computed once and hang on the store's entry for all who read it.
//!
//! Invariants: every stored value was written by [`encode`]; `metadata` in it is never empty, so that a comma
//! may follow the spliced member; keys are `/{group|core}/{resource}/{namespace|-}/{name}`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::{Map, Value};
use weft_api::object::Object;
use weft_kinds::KindRef;
use weft_kinds::lens;
use weft_store::{Entry, Key, Revision};

use crate::encryption::{self, EncryptionError, Vault};

/// Version of the layout described above.
const LAYOUT: u8 = 1;
/// Bytes before the JSON.
const HEADER: usize = 5;
/// Kinds that are ciphertext at rest.
pub(crate) const SEALED: [KindRef; 1] = [&weft_kinds::SECRET];
/// Stands for the namespace in keys of cluster-scoped objects.
const NO_NAMESPACE: &str = "-";

/// The key of an object.
pub fn key(kind: KindRef, namespace: Option<&str>, name: &str) -> Key {
    let prefix = kind.key_prefix();
    Key::from(format!(
        "{prefix}{}/{name}",
        namespace.unwrap_or(NO_NAMESPACE)
    ))
}

/// The prefix of all objects of a kind, or of those in one namespace.
pub fn prefix(kind: KindRef, namespace: Option<&str>) -> Bytes {
    let prefix = kind.key_prefix();
    Bytes::from(match namespace {
        Some(namespace) => format!("{prefix}{namespace}/"),
        None => prefix,
    })
}

/// Namespace and name in a key.
fn split_key(key: &Key) -> (Option<&str>, &str) {
    let text = std::str::from_utf8(key.as_bytes()).unwrap_or("");
    let mut parts = text.rsplitn(3, '/');
    let name = parts.next().unwrap_or("");
    let namespace = parts.next().filter(|namespace| *namespace != NO_NAMESPACE);
    (namespace, name)
}

/// The bytes to store for an object. `metadata.resourceVersion` is left out: it is the entry's revision.
///
/// # Errors
/// When the value is no object with metadata, which callers rule out before.
pub fn encode(value: &Value) -> Result<Bytes, serde_json::Error> {
    let empty = Map::new();
    let object = value.as_object().unwrap_or(&empty);
    let metadata = object.get("metadata").and_then(Value::as_object);
    let mut out = vec![LAYOUT, 0, 0, 0, 0];
    out.push(b'{');
    for member in ["apiVersion", "kind"] {
        if let Some(text) = object.get(member) {
            serde_json::to_writer(&mut out, member)?;
            out.push(b':');
            serde_json::to_writer(&mut out, text)?;
            out.push(b',');
        }
    }
    out.extend_from_slice(b"\"metadata\":{");
    let splice = u32::try_from(out.len() - HEADER).unwrap_or(u32::MAX);
    out[1..HEADER].copy_from_slice(&splice.to_le_bytes());
    let mut first = true;
    for (member, value) in metadata.into_iter().flatten() {
        if member == "resourceVersion" {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, member)?;
        out.push(b':');
        serde_json::to_writer(&mut out, value)?;
    }
    out.push(b'}');
    for (member, value) in object {
        if matches!(member.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        out.push(b',');
        serde_json::to_writer(&mut out, member)?;
        out.push(b':');
        serde_json::to_writer(&mut out, value)?;
    }
    out.push(b'}');
    Ok(Bytes::from(out))
}

/// The two halves of a stored value's JSON, around the place of the resourceVersion.
fn halves(value: &[u8]) -> (&[u8], &[u8]) {
    let json = value.get(HEADER..).unwrap_or_default();
    let splice = value
        .get(1..HEADER)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_le_bytes) as usize;
    json.split_at_checked(splice).unwrap_or((json, &[]))
}

fn readable(kind: KindRef, entry: &Entry, found: Result<Bytes, EncryptionError>) -> Bytes {
    found.unwrap_or_else(|error| unreadable(kind, &entry.key, &error))
}

/// What stands in for an object whose value cannot be opened.
fn unreadable(kind: KindRef, key: &Key, error: &EncryptionError) -> Bytes {
    tracing::error!(%key, %error, "an object cannot be read");
    let (namespace, name) = split_key(key);
    let mut value = serde_json::json!({
        "apiVersion": kind.stored().api_version(), "kind": kind.kind,
        "metadata": {"name": name, "annotations": {"weft.dev/unreadable": error.to_string()}},
    });
    if let Some(namespace) = namespace {
        value["metadata"]["namespace"] = namespace.into();
    }
    // Text in, text out: this cannot fail.
    encode(&value).unwrap_or_default()
}

/// What was read out of an entry once, for everybody.
struct Parsed {
    labels: BTreeMap<String, String>,
    /// Parallel to the stored kind's `selectable`.
    fields: Vec<String>,
    /// The entry's own watch event, complete with its newline.
    event: OnceLock<Bytes>,
}

/// An object in the store, at one revision, seen as one kind.
#[derive(Clone)]
pub struct Stored {
    kind: KindRef,
    entry: Arc<Entry>,
    /// The entry's value once somebody looked at it; from the start where it was sealed.
    layout: OnceLock<Bytes>,
    revision: Revision,
}

impl Stored {
    /// One that cannot be opened is shown without its contents, so that it can be found, and deleted.
    pub(crate) fn new(vault: &Vault, kind: KindRef, entry: Arc<Entry>) -> Self {
        let layout = OnceLock::new();
        if SEALED.contains(&kind.stored()) {
            layout.get_or_init(|| readable(kind, &entry, vault.open(&entry)));
        }
        let revision = entry.revision;
        Self {
            kind,
            entry,
            layout,
            revision,
        }
    }

    /// The same state under another revision: how a watch reports that an object left its selection.
    pub(crate) fn at(mut self, revision: Revision) -> Self {
        self.revision = revision;
        self
    }

    pub fn kind(&self) -> KindRef {
        self.kind
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn name(&self) -> &str {
        split_key(&self.entry.key).1
    }

    pub fn namespace(&self) -> Option<&str> {
        split_key(&self.entry.key).0
    }

    pub(crate) fn key(&self) -> &Key {
        &self.entry.key
    }

    fn layout(&self) -> &Bytes {
        let read = || readable(self.kind, &self.entry, encryption::layout_of(&self.entry));
        self.layout.get_or_init(read)
    }

    /// The stored JSON as a value, with its resourceVersion, in the spelling of the kind asked for.
    pub fn value(&self) -> Value {
        let mut value = self.stored_value();
        if let Some(view) = &self.kind.view {
            (view.read)(&mut value);
        }
        value
    }

    /// As [`Stored::value`], in the spelling that is stored.
    pub(crate) fn stored_value(&self) -> Value {
        let json = self.layout().get(HEADER..).unwrap_or_default();
        let mut value: Value = serde_json::from_slice(json).unwrap_or_default();
        lens::member(&mut value, "metadata")["resourceVersion"] = self.revision.to_string().into();
        value
    }

    /// An [`Object`] of its own; parses the JSON.
    pub fn object(&self) -> Object {
        match Object::from_value(self.value()) {
            Ok(object) => object,
            // `value` always has metadata, so it is an object.
            Err(_) => Object::from_map(Map::new()),
        }
    }

    /// The JSON of the object.
    pub fn json(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.layout().len() + 48);
        self.write_json(&mut out);
        Bytes::from(out)
    }

    /// Appends the JSON of the object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        if self.kind.view.is_some() {
            // Writing to a Vec cannot fail.
            let _ = serde_json::to_writer(out, &self.value());
            return;
        }
        let (before, after) = halves(self.layout());
        out.extend_from_slice(before);
        out.extend_from_slice(b"\"resourceVersion\":\"");
        out.extend_from_slice(self.revision.to_string().as_bytes());
        out.extend_from_slice(b"\",");
        out.extend_from_slice(after);
    }

    /// The line of a JSON watch stream for this object: computed once for the event that wrote the entry.
    ///
    /// Replays and changes of selection, which tell another event about the same entry, are not kept.
    pub(crate) fn watch_line(&self, kind: &'static str) -> Bytes {
        let own = match kind {
            "ADDED" => self.entry.create_revision == self.entry.revision,
            "MODIFIED" => self.entry.create_revision != self.entry.revision,
            _ => true,
        };
        let line = || {
            let mut out = Vec::with_capacity(self.layout().len() + 96);
            out.extend_from_slice(b"{\"type\":\"");
            out.extend_from_slice(kind.as_bytes());
            out.extend_from_slice(b"\",\"object\":");
            self.write_json(&mut out);
            out.extend_from_slice(b"}\n");
            Bytes::from(out)
        };
        if own && self.kind.view.is_none() && self.revision == self.entry.revision {
            self.parsed().event.get_or_init(line).clone()
        } else {
            line()
        }
    }

    pub fn labels(&self) -> BTreeMap<String, String> {
        self.parsed().labels.clone()
    }

    pub(crate) fn with_labels<T>(&self, look: impl FnOnce(&BTreeMap<String, String>) -> T) -> T {
        look(&self.parsed().labels)
    }

    /// The value of a selectable field, `None` when the kind has no such field.
    pub(crate) fn field(&self, field: &str) -> Option<Cow<'_, str>> {
        match field {
            "metadata.name" => return Some(Cow::Borrowed(self.name())),
            "metadata.namespace" => {
                return Some(Cow::Borrowed(self.namespace().unwrap_or("")));
            }
            _ => {}
        }
        let pointer = self
            .kind
            .selectable
            .iter()
            .find(|selectable| selectable.field == field)?
            .pointer;
        let index = self
            .kind
            .stored()
            .selectable
            .iter()
            .position(|selectable| selectable.pointer == pointer)?;
        self.parsed()
            .fields
            .get(index)
            .map(|text| Cow::Owned(text.clone()))
    }

    fn parsed(&self) -> Arc<Parsed> {
        let kind = self.kind.stored();
        self.entry.attachment(|_| {
            let json = self.layout().get(HEADER..).unwrap_or_default();
            let value: Value = serde_json::from_slice(json).unwrap_or_default();
            let labels = lens::object(&value, "/metadata/labels")
                .into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect();
            let fields = kind
                .selectable
                .iter()
                .map(|selectable| match value.pointer(selectable.pointer) {
                    Some(Value::String(text)) => text.clone(),
                    None | Some(Value::Null) => selectable.absent.to_owned(),
                    Some(other) => other.to_string(),
                })
                .collect();
            Parsed {
                labels,
                fields,
                event: OnceLock::new(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_revision_is_spliced_where_it_belongs() {
        let value = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "resourceVersion": "9", "labels": {"x": "y"}},
            "spec": {"nodeName": "n"}, "status": {},
        });
        let bytes = encode(&value).unwrap();
        let (before, after) = halves(&bytes);
        assert_eq!(
            before,
            br#"{"apiVersion":"v1","kind":"Pod","metadata":{"#.as_slice()
        );
        assert_eq!(
            std::str::from_utf8(after).unwrap(),
            r#""labels":{"x":"y"},"name":"a"},"spec":{"nodeName":"n"},"status":{}}"#
        );
    }

    #[test]
    fn keys_split_where_they_were_joined() {
        for (kind, namespace, name, expected) in [
            (&weft_kinds::POD, Some("n"), "a", "/core/pods/n/a"),
            (&weft_kinds::NODE, None, "a.b", "/core/nodes/-/a.b"),
            (&weft_kinds::EVENT_V1, Some("n"), "e", "/core/events/n/e"),
            (
                &weft_kinds::DEPLOYMENT,
                Some("n"),
                "web",
                "/apps/deployments/n/web",
            ),
        ] {
            let key = key(kind, namespace, name);
            assert_eq!(key.to_string(), expected);
            assert_eq!(split_key(&key), (namespace, name));
        }
    }
}
