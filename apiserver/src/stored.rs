//! How an object lies in the store, and how it comes back out without being serialised again.
//!
//! A value is, where it is not sealed (`encryption`), `[version][u32 offset, little endian][JSON without resourceVersion]`: the offset is where
//! `"resourceVersion":"N",` belongs, so an answer is three copies and no parser; so is one about an object of a user's kind that lies in the store
//! as its definition would have it now. What selectors look at is read once a
//! revision ([`Item`]), and a line of a watch is made once for all who are told of the same change ([`Lines`]).
//!
//! An object whose value cannot be read is there all the same: lists and watches show a stand-in that says so, so that it can be
//! found; who asks for one whose value this server's disk has lost is told that ([`Stored::check_lost`]), and nothing is written over it.
//!
//! Invariants: every stored value was written by [`encode`]; `metadata` in it is never empty, so that a comma
//! may follow the spliced member; keys are `/{group|core}/{resource}/{namespace|-}/{name}`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_kinds::apiextensions::Custom;
use weft_kinds::lens;
use weft_kinds::{Kind, KindRef, Selectable};
use weft_store::{Entry, Key, Revision};

use crate::cache::{Facts, Item, LineForm, LineKey, Lines, Missed};
use crate::encryption::{self, EncryptionError, Vault};
use crate::listing::Selection;

/// Version of the layout described above.
const LAYOUT: u8 = 1;
/// Bytes before the JSON.
const HEADER: usize = 5;
/// What a resourceVersion takes, at most.
const VERSION_BYTES: usize = 48;
/// Where the buffer of a line begins; it grows for larger objects.
const LINE_BYTES: usize = 2048;
/// How an object begins that does not say what it is.
const METADATA: &[u8] = br#"{"metadata":{"#;
/// Stands for the namespace in keys of cluster-scoped objects.
const NO_NAMESPACE: &str = "-";

/// The key of an object.
pub fn key(kind: &Kind, namespace: Option<&str>, name: &str) -> Key {
    let prefix = kind.key_prefix();
    Key::from(format!(
        "{prefix}{}/{name}",
        namespace.unwrap_or(NO_NAMESPACE)
    ))
}

/// The prefix of all objects of a kind, or of those in one namespace.
pub fn prefix(kind: &Kind, namespace: Option<&str>) -> Bytes {
    let prefix = kind.key_prefix();
    Bytes::from(match namespace {
        Some(namespace) => format!("{prefix}{namespace}/"),
        None => prefix,
    })
}

/// Namespace and name in a key.
pub(crate) fn split_key(key: &Key) -> (Option<&str>, &str) {
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

/// The JSON of what was stored at a revision, out of what [`encode`] made of it.
pub(crate) fn written(layout: &[u8], revision: Revision) -> Bytes {
    let (before, after) = halves(layout);
    let mut out = Vec::with_capacity(layout.len() + VERSION_BYTES);
    out.extend_from_slice(before);
    write_version(revision, &mut out);
    out.extend_from_slice(after);
    Bytes::from(out)
}

fn write_version(revision: Revision, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"resourceVersion\":\"");
    out.extend_from_slice(revision.to_string().as_bytes());
    out.extend_from_slice(b"\",");
}

/// Whether an object was stored in this version, which [`encode`] writes first.
fn is_stored_in(layout: &[u8], api_version: &str) -> bool {
    let rest = json_of(layout).strip_prefix(b"{\"apiVersion\":\"".as_slice());
    let rest = rest.and_then(|rest| rest.strip_prefix(api_version.as_bytes()));
    rest.is_some_and(|rest| rest.starts_with(b"\""))
}

/// What an entry's value holds, opened where it is sealed.
fn opened(vault: &Vault, kind: KindRef<'_>, entry: &Entry) -> Result<Bytes, EncryptionError> {
    if kind.stored().sealed {
        vault.open(entry)
    } else {
        encryption::layout_of(entry)
    }
}

/// As [`opened`]. One that cannot be read is shown without its contents, so that it can be found, and deleted.
pub(crate) fn layout(vault: &Vault, kind: KindRef<'_>, entry: &Entry) -> Bytes {
    let found = opened(vault, kind, entry);
    found.unwrap_or_else(|error| unreadable(kind, &entry.key, &error))
}

/// The JSON in a layout, without its resourceVersion.
pub(crate) fn json_of(layout: &[u8]) -> &[u8] {
    layout.get(HEADER..).unwrap_or_default()
}

/// What stands in for an object whose value cannot be opened.
fn unreadable(kind: KindRef<'_>, key: &Key, error: &EncryptionError) -> Bytes {
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

/// An object in the store, at one revision, seen as one kind. Cheap to clone.
#[derive(Clone)]
pub struct Stored {
    kind: Arc<Kind>,
    item: Arc<Item>,
    vault: Vault,
    revision: Revision,
    /// What it is to be made of, where that may go while it is needed ([`Stored::pinned`]).
    entry: Option<Arc<Entry>>,
    /// Where encodings for all who are told of the same change are kept.
    lines: Option<Arc<Lines>>,
    /// What a webhook made of it, in the version of `kind`.
    converted: Option<Arc<Value>>,
}

impl Stored {
    pub(crate) fn new(vault: &Vault, kind: KindRef<'_>, entry: Arc<Entry>) -> Self {
        Self::of(vault, kind, Arc::new(Item::new(entry)))
    }

    pub(crate) fn of(vault: &Vault, kind: KindRef<'_>, item: Arc<Item>) -> Self {
        Self {
            kind: kind.clone(),
            revision: item.revision(),
            item,
            vault: vault.clone(),
            entry: None,
            lines: None,
            converted: None,
        }
    }

    /// The same, holding on to its value. May read the disk, where [`Stored::is_away`].
    ///
    /// # Errors
    /// [`Missed`]: it can be had in a moment.
    pub(crate) fn pinned(&self) -> Result<Self, Missed> {
        let mut pinned = self.clone();
        if pinned.entry.is_none() {
            pinned.entry = Some(self.item.entry()?);
        }
        Ok(pinned)
    }

    /// As [`Stored::pinned`]; as it was, where that is to be had in a moment.
    pub(crate) fn into_pinned(mut self) -> Result<Self, Self> {
        if self.entry.is_none() {
            match self.item.entry() {
                Ok(entry) => self.entry = Some(entry),
                Err(Missed) => return Err(self),
            }
        }
        Ok(self)
    }

    /// Whether its value is not in memory.
    pub(crate) fn is_away(&self) -> bool {
        self.entry.is_none() && self.item.is_away()
    }

    /// The same state under another revision: how a watch reports that an object left its selection.
    pub(crate) fn at(mut self, revision: Revision) -> Self {
        self.revision = revision;
        self
    }

    /// As a webhook made it, in the version of its kind.
    pub(crate) fn converted_to(mut self, value: Value) -> Self {
        self.converted = Some(Arc::new(value));
        self
    }

    /// What it was converted to.
    pub(crate) fn converted(&self) -> Option<&Value> {
        self.converted.as_deref()
    }

    /// Whether a selection takes it as it is stored.
    pub(crate) fn is_selected(&self, selection: &Selection) -> bool {
        selection.matches_item(&self.kind, &self.vault, &self.item)
    }

    /// As part of a change that others are told of, too.
    pub(crate) fn shared(mut self, lines: Arc<Lines>) -> Self {
        self.lines = Some(lines);
        self
    }

    pub fn kind(&self) -> KindRef<'_> {
        &self.kind
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn name(&self) -> &str {
        split_key(self.key()).1
    }

    pub fn namespace(&self) -> Option<&str> {
        split_key(self.key()).0
    }

    pub(crate) fn key(&self) -> &Key {
        self.item.key()
    }

    fn entry(&self) -> Result<Arc<Entry>, EncryptionError> {
        match &self.entry {
            Some(entry) => Ok(Arc::clone(entry)),
            None => self.item.entry().map_err(|_| EncryptionError::Replaced {
                key: self.key().to_string(),
            }),
        }
    }

    fn layout(&self) -> Bytes {
        match self.entry() {
            Ok(entry) => layout(&self.vault, &self.kind, &entry),
            Err(error) => unreadable(&self.kind, self.key(), &error),
        }
    }

    /// # Errors
    /// 500 where this server's disk has lost the value: what is there is not known here, and nobody is told that it is another thing,
    /// or nothing.
    pub(crate) fn check_lost(&self) -> Result<(), StatusError> {
        match self.entry() {
            Ok(entry) if entry.is_lost() => {
                let key = self.key();
                Err(StatusError::internal(format!(
                    "{key} is stored, but its value cannot be read from this server's disk: ask another server of the cluster, and put a new one in the place of this one (--replace); where it is the only one, restore a backup"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Whether this is what is stored, and not the sentence that stands in for it.
    ///
    /// # Errors
    /// Why it cannot be read. Whoever is about to overwrite it has to ask.
    pub(crate) fn readable(&self) -> Result<(), EncryptionError> {
        let entry = self.entry()?;
        let layout = opened(&self.vault, &self.kind, &entry)?;
        match serde_json::from_slice::<serde::de::IgnoredAny>(json_of(&layout)) {
            Ok(_) => Ok(()),
            Err(_) => Err(EncryptionError::Damaged {
                key: self.key().to_string(),
            }),
        }
    }

    /// What [`Stored::stored_value`] gives, where it is what is stored.
    ///
    /// # Errors
    /// As [`Stored::readable`].
    pub(crate) fn readable_value(&self) -> Result<Value, EncryptionError> {
        if self.converted.is_some() {
            self.readable()?;
            return Ok(self.stored_value());
        }
        let entry = self.entry()?;
        let layout = opened(&self.vault, &self.kind, &entry)?;
        let read = serde_json::from_slice(json_of(&layout));
        let mut value: Value = read.map_err(|_| EncryptionError::Damaged {
            key: self.key().to_string(),
        })?;
        if let Some(custom) = &self.kind.custom {
            custom.read(&mut value);
        }
        Ok(self.with_revision(value))
    }

    /// The stored JSON as a value, with its resourceVersion, in the spelling of the kind asked for.
    pub fn value(&self) -> Value {
        let mut value = self.stored_value();
        if let Some(spelling) = &self.kind.spelling {
            (spelling.read)(&mut value);
        }
        value
    }

    /// What is stored, in the version that stored it.
    pub(crate) fn raw_value(&self) -> Value {
        serde_json::from_slice(json_of(&self.layout())).unwrap_or_default()
    }

    /// Whether this is what lies in the store already.
    pub(crate) fn is_stored_as(&self, value: &Value) -> bool {
        let mut value = value.clone();
        lens::put(
            lens::member(&mut value, "metadata"),
            "resourceVersion",
            None,
        );
        self.raw_value() == value
    }

    /// As [`Stored::value`], in the spelling that is stored; in the version of the kind, where it is one of several.
    pub(crate) fn stored_value(&self) -> Value {
        let value = match (&self.converted, &self.kind.custom) {
            (Some(converted), _) => (**converted).clone(),
            (None, Some(custom)) => {
                let mut value = self.raw_value();
                custom.read(&mut value);
                value
            }
            (None, None) => self.raw_value(),
        };
        self.with_revision(value)
    }

    fn with_revision(&self, mut value: Value) -> Value {
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
        let mut out = Vec::new();
        self.write_json(&mut out);
        Bytes::from(out)
    }

    /// What a list shows of the object. The list says once what built-in kinds are; an object of a user's kind says it itself.
    pub(crate) fn item_value(&self) -> Value {
        let mut value = self.value();
        if self.kind.custom.is_none() {
            lens::put(&mut value, "apiVersion", None);
            lens::put(&mut value, "kind", None);
        }
        value
    }

    /// Appends the JSON of the object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.write(out, false);
    }

    /// Appends the JSON of [`Stored::item_value`].
    pub(crate) fn write_item(&self, out: &mut Vec<u8>) {
        self.write(out, self.kind.custom.is_none());
    }

    /// `nameless` leaves out what the object is.
    fn write(&self, out: &mut Vec<u8>, nameless: bool) {
        let other = self.kind.spelling.is_some() || self.converted.is_some();
        let layout = if other { Bytes::new() } else { self.layout() };
        let made = match &self.kind.custom {
            _ if other && nameless => Some(self.item_value()),
            _ if other => Some(self.value()),
            Some(custom) => self.made(custom, &layout),
            None => None,
        };
        if let Some(value) = made {
            // Writing to a Vec cannot fail.
            let _ = serde_json::to_writer(out, &value);
            return;
        }
        let (before, after) = halves(&layout);
        out.reserve(layout.len() + VERSION_BYTES);
        // Nothing but its kind stands before the metadata.
        out.extend_from_slice(if nameless { METADATA } else { before });
        write_version(self.revision, out);
        out.extend_from_slice(after);
    }

    /// An object of a user's kind in the version of that kind; none where it lies in the store just so, which is looked at once a revision.
    fn made(&self, custom: &Custom, layout: &[u8]) -> Option<Value> {
        let is_settled = self.item.is_settled(custom);
        let same = is_stored_in(layout, &self.kind.api_version());
        if is_settled == Some(true) && same {
            return None;
        }
        let mut made: Value = serde_json::from_slice(json_of(layout)).unwrap_or_default();
        let stored = (is_settled.is_none() && same).then(|| made.clone());
        custom.read(&mut made);
        if let Some(stored) = stored {
            let is_settled = made == stored;
            // Of what stands in for a value that cannot be read now, nothing is to be remembered.
            if self.readable().is_ok() {
                self.item.note_settled(custom, is_settled);
            }
            if is_settled {
                return None;
            }
        }
        Some(self.with_revision(made))
    }

    /// Whether it was stored in this version.
    pub(crate) fn is_stored_in(&self, api_version: &str) -> bool {
        is_stored_in(&self.layout(), api_version)
    }

    /// The same as the item of a cache, which knows more of it than its entry says.
    pub(crate) fn known_as(mut self, item: Arc<Item>) -> Self {
        self.entry = self.item.entry().ok();
        self.item = item;
        self
    }

    /// Appends `PartialObjectMetadata` of the object: a part of the stored bytes, nothing is parsed.
    pub(crate) fn write_metadata(&self, version: &str, out: &mut Vec<u8>) {
        // A webhook may have changed labels.
        let layout = match &self.converted {
            Some(converted) => encode(converted).unwrap_or_default(),
            None => self.layout(),
        };
        let (_, after) = halves(&layout);
        out.extend_from_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/");
        out.extend_from_slice(version.as_bytes());
        out.extend_from_slice(b"\",\"metadata\":{");
        write_version(self.revision, out);
        out.extend_from_slice(rest_of_object(after));
        out.push(b'}');
    }

    /// A line of a watch stream about this object, from `write`: made once for all who are told the same in the same form.
    pub(crate) fn line(
        &self,
        event: &'static str,
        form: LineForm,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Bytes {
        let make = || {
            let mut out = Vec::with_capacity(LINE_BYTES);
            out.extend_from_slice(b"{\"type\":\"");
            out.extend_from_slice(event.as_bytes());
            out.extend_from_slice(b"\",\"object\":");
            write(&mut out);
            out.extend_from_slice(b"}\n");
            Bytes::from(out)
        };
        match &self.lines {
            Some(lines) => lines.get_or_make(self.line_key(event, form), make),
            None => make(),
        }
    }

    /// What [`Stored::line`] gives, where it was made already.
    pub(crate) fn kept_line(&self, event: &'static str, form: LineForm) -> Option<Bytes> {
        self.lines.as_ref()?.get(&self.line_key(event, form))
    }

    fn line_key(&self, event: &'static str, form: LineForm) -> LineKey {
        LineKey {
            event,
            shown_as: (self.kind.spelling.is_some() || self.kind.custom.is_some())
                .then(|| self.kind.api_version()),
            form,
        }
    }

    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.facts().labels();
        labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// Whether it has a label whose key is of a sort.
    pub(crate) fn has_label(&self, is_of: impl Fn(&str) -> bool) -> bool {
        self.facts().labels().any(|(key, _)| is_of(key))
    }

    /// The value of a selectable field, `None` when the kind has no such field.
    pub(crate) fn field(&self, field: &str) -> Option<Cow<'_, str>> {
        field_of(&self.kind, &self.vault, &self.item, field)
    }

    fn facts(&self) -> &Facts {
        self.item.facts(&self.kind, &self.vault)
    }
}

/// The value of a selectable field of a kind, `None` when it has no such field.
pub(crate) fn field_of<'a>(
    kind: KindRef<'_>,
    vault: &Vault,
    item: &'a Item,
    field: &str,
) -> Option<Cow<'a, str>> {
    let key = item.key();
    match field {
        "metadata.name" => return Some(Cow::Borrowed(split_key(key).1)),
        "metadata.namespace" => return Some(Cow::Borrowed(split_key(key).0.unwrap_or(""))),
        _ => {}
    }
    let named = |selectable: &&Selectable| selectable.field == field;
    let pointer = &kind.selectable.iter().find(named)?.pointer;
    let index = kind
        .looked_at()
        .iter()
        .position(|selectable| selectable.pointer == *pointer)?;
    Some(Cow::Borrowed(item.facts(kind, vault).field(index)))
}

/// What is left of an object that was opened before: up to the brace that closes it.
fn rest_of_object(json: &[u8]) -> &[u8] {
    let (mut depth, mut quoted, mut escaped) = (1_usize, false, false);
    for (at, byte) in json.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return &json[..=at];
                }
            }
            _ => {}
        }
    }
    // Stored values are whole. What is not is shown without a name.
    br#""name":""}"#
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
