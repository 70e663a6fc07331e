//! The data of key-value stores: the subresource `data` of a KeyValueStore.
//!
//! A read is linearizable: the newest that anyone was acknowledged. A write is one entry of the log, judged on one state with
//! preconditions on all that it rests on: the store (and so its quota), what it holds, the keys, and the grant of who asks. What waits
//! for one store on this server is written together, one entry at a time ([`write`]), so that writers of one store do not refuse each other.
//!
//! Invariants: two writes, whichever servers they were sent to, never exceed a quota together; a change takes effect once at the
//! most, and one of which that is not known is told so (504), never as refused; nothing is written to a store that is gone, and
//! the data of one that is gone goes ([`tend`]); a node reads and writes for pods that run on it, as far as their ServiceAccount is granted.
//! A file each: what is asked ([`operation`]), how it lies in the store ([`layout`]). Left to others: who may ask at all (`crate::authz`).

mod layout;
mod operation;
mod tend;
mod write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use weft_api::name;
use weft_api::status::StatusError;
use weft_kinds::lens::text;
use weft_kinds::weft::{Access, granted_store, refusal_of_store};
use weft_kinds::{CAPABILITY_GRANT, POD, Subresource};
use weft_store::{Entry, Key, Revision, Snapshot};

pub use self::layout::{DATA_PREFIX, UNWATCHED};
use self::operation::KEYS_MAX;
pub use self::operation::Operation;
use self::operation::{Name, Read};
pub use self::tend::Tended;
pub(super) use self::write::Lines;
use super::Objects;
use crate::authz::Authorized;
use crate::caller::GROUP_MASTERS;
use crate::encryption::EncryptionError;
use crate::request::ObjectRef;
use crate::stored::{self, Stored};

/// Bytes of the values in one answer; four fifths of them are base64.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Values that are read on the thread that others wait for: each may be on disk.
const READS_HERE_MAX: usize = 8;

/// The pod that a node asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    namespace: String,
    name: String,
    uid: String,
}

/// The header that a node names a pod in.
pub const POD_HEADER: &str = "weft-pod";

impl PodRef {
    /// Reads `NAMESPACE/NAME/UID`.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn parse(text: &str) -> Result<Self, StatusError> {
        let parts: Vec<&str> = text.split('/').collect();
        let [namespace, name, uid] = parts.as_slice() else {
            return Err(Self::refused());
        };
        let sound = |part: &&str| !part.is_empty() && name::path_segment(part).is_ok();
        if !parts.iter().all(sound) {
            return Err(Self::refused());
        }
        Ok(Self {
            namespace: (*namespace).to_owned(),
            name: (*name).to_owned(),
            uid: (*uid).to_owned(),
        })
    }

    fn refused() -> StatusError {
        StatusError::bad_request(format!("{POD_HEADER} must be NAMESPACE/NAME/UID of a pod"))
    }
}

/// A KeyValueStore as one state has it.
struct Found {
    key: Key,
    revision: Revision,
    object: Value,
}

impl Found {
    fn uid(&self) -> &str {
        text(&self.object, "/metadata/uid")
    }
}

impl Objects {
    /// Does one operation on the data of the KeyValueStore that is asked for; `pod` is the one that a node asks for.
    ///
    /// # Errors
    /// 403, 404 (no such store), 413, 422 (no number, overflow), 507 `QuotaExceeded`; 429 and 503 when the store cannot take it now;
    /// 504 when a write may have taken effect.
    pub async fn data(
        &self,
        asked: &Authorized,
        pod: Option<PodRef>,
        operation: Operation,
    ) -> Result<Value, StatusError> {
        let (object, resource) = asked.object("create")?;
        if resource.subresource != Some(Subresource::Data) {
            return Err(StatusError::method_not_allowed());
        }
        match operation {
            Operation::Read(read) => {
                let snapshot = self.newest(None).await?;
                let found = self.key_value_store(&snapshot, object)?;
                self.admit_pod(asked, object, &snapshot, pod.as_ref(), Access::ReadOnly)?;
                self.read_data(snapshot, found.uid().to_owned(), read).await
            }
            Operation::Write(write) => self.write_data(asked, pod, write).await,
        }
    }

    fn key_value_store(
        &self,
        snapshot: &Snapshot,
        object: ObjectRef<'_>,
    ) -> Result<Found, StatusError> {
        let found = self.find(snapshot, object)?;
        found.check_lost()?;
        Ok(Found {
            key: object.key(),
            revision: found.revision(),
            object: found.stored_value(),
        })
    }

    /// Judges what a node asks by the pod that it asks for. What comes back lets it: a grant, and the revision that it has.
    fn admit_pod(
        &self,
        asked: &Authorized,
        store: ObjectRef<'_>,
        snapshot: &Snapshot,
        pod: Option<&PodRef>,
        access: Access,
    ) -> Result<Option<(Key, Revision)>, StatusError> {
        let caller = asked.caller();
        let Some(node) = caller.node_name() else {
            return Ok(None);
        };
        if caller.in_group(GROUP_MASTERS) {
            return Ok(None);
        }
        let forbidden = |rule: &str| match asked.access() {
            Some(access) => access.forbidden(caller, rule),
            None => StatusError::forbidden_message(rule),
        };
        let Some(pod) = pod else {
            return Err(forbidden(
                "a node must name the pod that it asks for, in the header weft-pod",
            ));
        };
        let namespace = store.namespace.unwrap_or("");
        if pod.namespace != namespace {
            return Err(forbidden("the pod is in another namespace"));
        }
        let entry = snapshot.get(&stored::key(&POD, Some(namespace), &pod.name));
        let entry = entry.map(|entry| Stored::new(&self.inner.vault, &POD, entry).stored_value());
        let runs_there = |object: &Value| {
            text(object, "/metadata/uid") == pod.uid
                && text(object, "/spec/nodeName") == node
                && !matches!(text(object, "/status/phase"), "Succeeded" | "Failed")
        };
        let Some(object) = entry.filter(runs_there) else {
            return Err(forbidden("the pod does not run on this node"));
        };
        let account = text(&object, "/spec/serviceAccountName");
        for entry in snapshot.range(&stored::prefix(&CAPABILITY_GRANT, Some(namespace)), None) {
            let (key, revision) = (entry.key.clone(), entry.revision);
            let grant = Stored::new(&self.inner.vault, &CAPABILITY_GRANT, entry).stored_value();
            if granted_store(&grant, account, store.name).is_some_and(|given| given >= access) {
                return Ok(Some((key, revision)));
            }
        }
        let refusal = refusal_of_store(namespace, account, store.name, access);
        Err(forbidden(&refusal))
    }

    async fn read_data(
        &self,
        snapshot: Snapshot,
        uid: String,
        read: Read,
    ) -> Result<Value, StatusError> {
        match read {
            Read::Get(name) => {
                let entry = snapshot.get(&layout::data_key(&uid, &name));
                match entry {
                    Some(entry) => {
                        let (_, value) = self.open_data(&entry)?;
                        Ok(json!({"value": STANDARD.encode(value), "revision": entry.revision}))
                    }
                    None => Ok(json!({})),
                }
            }
            Read::Exists(name) => {
                let revision = snapshot.revision_of(&layout::data_key(&uid, &name));
                Ok(json!({"exists": revision.is_some()}))
            }
            Read::GetMany(names) if names.len() <= READS_HERE_MAX => {
                self.read_many(&snapshot, &uid, names)
            }
            Read::GetMany(names) => {
                let objects = self.clone();
                let reading = move || objects.read_many(&snapshot, &uid, names);
                let read = tokio::task::spawn_blocking(reading).await;
                read.map_err(StatusError::internal)?
            }
            Read::List { after } => {
                let prefix = layout::data_prefix(&uid);
                let after = after.map(|name| layout::data_key(&uid, &name));
                let keys = snapshot.keys(&prefix, after.as_ref());
                let names = keys.map(|(key, _)| {
                    let name = key.as_bytes().get(prefix.len()..).unwrap_or_default();
                    Name(String::from_utf8_lossy(name).into_owned())
                });
                let mut names: Vec<Name> = names.take(KEYS_MAX + 1).collect();
                let more = names.len() > KEYS_MAX;
                names.truncate(KEYS_MAX);
                let cursor = names.last().filter(|_| more).map(operation::cursor);
                let keys: Vec<String> = names.into_iter().map(|name| name.0).collect();
                let mut answer = json!({"keys": keys});
                if let Some(cursor) = cursor {
                    answer["cursor"] = cursor.into();
                }
                Ok(answer)
            }
        }
    }

    fn read_many(
        &self,
        snapshot: &Snapshot,
        uid: &str,
        names: Vec<Name>,
    ) -> Result<Value, StatusError> {
        let mut values = Vec::with_capacity(names.len());
        let mut bytes = 0;
        for name in names {
            let Some(entry) = snapshot.get(&layout::data_key(uid, &name)) else {
                values.push(json!({"key": name.0}));
                continue;
            };
            let (_, value) = self.open_data(&entry)?;
            bytes += value.len();
            if bytes > ANSWER_BYTES_MAX {
                return Err(StatusError::request_entity_too_large(format!(
                    "the values have more than {ANSWER_BYTES_MAX} bytes together: ask for fewer keys at a time"
                )));
            }
            values.push(json!({
                "key": name.0, "value": STANDARD.encode(value), "revision": entry.revision,
            }));
        }
        Ok(json!({"values": values}))
    }

    /// A value, and the id of the write that it is of.
    fn open_data(&self, entry: &Entry) -> Result<(operation::Id, bytes::Bytes), StatusError> {
        layout::decode(&self.inner.vault, entry).map_err(unreadable)
    }
}

/// 500 for a value that cannot be opened. The key is the tenant's: it is not told to others, and not logged.
fn unreadable(error: EncryptionError) -> StatusError {
    match error {
        EncryptionError::Replaced { .. } => StatusError::try_again(
            "the value was replaced while it was read: read it again".to_owned(),
            1,
        ),
        EncryptionError::Lost { .. } => StatusError::internal(
            "the value could not be read from this server's disk: ask another server",
        ),
        EncryptionError::Damaged { .. } | EncryptionError::Newer { .. } => StatusError::internal(
            "the value is damaged, or a newer program wrote it: write it again, or use a newer weft",
        ),
        error => StatusError::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_named_by_three_segments() {
        assert!(PodRef::parse("shop/cart-1/0b7e").is_ok());
        for text in [
            "", "a", "a/b", "a/b/", "/b/c", "a//c", "a/b/c/d", "a/../c", "a/b/%2f",
        ] {
            assert_eq!(PodRef::parse(text).unwrap_err().code, 400, "{text:?}");
        }
    }
}
