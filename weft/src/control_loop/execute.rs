//! Carries out a reconciler's writes, in its order, and brings back what the server made of them.
//!
//! Neighbours of one sort that concern different objects are independent and run side by side; everything else is one after
//! the other. The first refusal ends the list: the reconciler decides anew on what is there then. That something is gone
//! already is what a delete wanted, and no refusal of a patch either: the next look will not ask for it.
//!
//! A write that was not answered in time is no refusal: it may be done, or be done yet ([`Failure::in_doubt`]).

use std::sync::Arc;

use futures::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::StatusError;
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::{DeleteOptions, Deleted, Objects, Patch, Propagation, WriteOptions};
use weft_apiserver::request::ObjectRef;
use weft_controllers::write::Propagation as Wanted;
use weft_controllers::{Change, Key, Note, Write};
use weft_kinds::{Kind, KindRef, Subresource};

use super::recorder::Handle;

/// Writes of one list under way at once; they share the store's group commits.
const SIDE_BY_SIDE_MAX: usize = 32;

/// Neighbours taken together; bounds the search for two writes to one object.
const GROUP_MAX: usize = 512;

/// What came of a list of writes.
#[derive(Debug, Default)]
pub struct Executed {
    /// The server's answers, for the view.
    pub changes: Vec<Change>,
    /// The refusal that ended the list.
    pub failure: Option<Failure>,
}

#[derive(Debug)]
pub struct Failure {
    /// Somebody else was faster: no news to anybody, just try again.
    pub expected: bool,
    /// It may have been done, or may yet be: nothing can be decided on a view that does not know.
    pub in_doubt: bool,
    pub message: String,
}

/// Carries out `writes` in order until the first refusal.
pub async fn execute(
    objects: &Objects,
    caller: &Caller,
    recorder: &Handle,
    writes: Vec<Write>,
) -> Executed {
    let mut executed = Executed::default();
    let mut rest = writes.into_iter().peekable();
    while let Some(first) = rest.next() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Some(next) =
                rest.next_if(|next| group.iter().all(|one| is_independent(one, next)))
        {
            group.push(next);
        }
        let answers = futures::stream::iter(group)
            .map(|write| execute_one(objects, caller, recorder, write))
            .buffered(SIDE_BY_SIDE_MAX);
        let answers: Vec<Result<Option<Change>, Failure>> = answers.collect().await;
        for answer in answers {
            match answer {
                Ok(change) => executed.changes.extend(change),
                Err(failure) => executed.failure = Some(failure),
            }
        }
        if executed.failure.is_some() {
            break;
        }
    }
    executed
}

fn is_independent(one: &Write, other: &Write) -> bool {
    match (one, other) {
        (Write::Create { .. }, Write::Create { .. })
        | (Write::Delete { .. }, Write::Delete { .. })
        | (Write::Event(_), Write::Event(_)) => true,
        (
            Write::Patch {
                kind: one_kind,
                key: one_key,
                ..
            },
            Write::Patch { kind, key, .. },
        ) => one_kind == kind && one_key != key,
        _ => false,
    }
}

/// The kind as it is served now: a kind may have changed or gone since the decision, or be served in another version.
fn current_kind(objects: &Objects, kind: &Kind) -> Result<Arc<Kind>, StatusError> {
    let registry = objects.registry();
    let current = registry
        .by_resource(&kind.group, &kind.version, &kind.resource)
        .or_else(|| registry.by_group_kind(&kind.group, &kind.kind));
    current.cloned().ok_or_else(StatusError::unknown_path)
}

async fn execute_one(
    objects: &Objects,
    caller: &Caller,
    recorder: &Handle,
    write: Write,
) -> Result<Option<Change>, Failure> {
    let begun = Timestamp::now();
    let doing = match &write {
        Write::Create { .. } => "creating",
        Write::Delete { .. } => "deleting",
        Write::Patch { .. } | Write::Event(_) | Write::ConfirmGone { .. } => "updating",
    };
    let (note, outcome) = match write {
        Write::Event(note) => {
            recorder.tell(note);
            return Ok(None);
        }
        Write::ConfirmGone { kind, key, uid } => {
            let confirmed = confirm_gone(objects, caller, &kind, &key, uid.as_deref());
            return confirmed.await.map(|()| None);
        }
        Write::Create {
            kind,
            key,
            object,
            note,
        } => {
            let created = async {
                let kind = current_kind(objects, &kind)?;
                let options = WriteOptions::default();
                let client = objects.client(caller);
                let object = client.create(&kind, key.scope(), object, &options).await?;
                Ok(Some(Change::Upsert(kind, object)))
            };
            (note, created.await)
        }
        Write::Patch {
            kind,
            key,
            subresource,
            patch_kind,
            mut patch,
            uid,
            resource_version,
            note,
        } => {
            if let Some(uid) = &uid {
                patch["metadata"]["uid"] = json!(&**uid);
            }
            if let Some(version) = resource_version {
                patch["metadata"]["resourceVersion"] = json!(version.to_string());
            }
            let patched = async {
                let kind = &current_kind(objects, &kind)?;
                if subresource == Some(Subresource::Finalize) {
                    return finalize_namespace(objects, caller, kind, &key, uid, &patch).await;
                }
                let object = ObjectRef::new(kind, key.scope(), &key.name);
                let patch = Patch {
                    kind: patch_kind,
                    body: &patch,
                };
                let options = WriteOptions::default();
                let client = objects.client(caller);
                let mut patched = client.patch(object, subresource, patch, &options).await?;
                if subresource == Some(Subresource::Scale) {
                    // The answer is a Scale, not what has one.
                    patched = client.get(kind, key.scope(), &key.name).await?.object();
                }
                Ok(Some(Change::Upsert(Arc::clone(kind), patched)))
            };
            (note, forgive_absence(patched.await))
        }
        Write::Delete {
            kind,
            key,
            uid,
            resource_version,
            grace_seconds,
            propagation,
            note,
        } => {
            let deleted = async {
                let kind = current_kind(objects, &kind)?;
                let options = DeleteOptions {
                    grace_period_seconds: grace_seconds,
                    propagation: Some(match propagation {
                        Wanted::Background => Propagation::Background,
                        Wanted::Foreground => Propagation::Foreground,
                        Wanted::Orphan => Propagation::Orphan,
                    }),
                    uid: Some(uid.to_string()),
                    resource_version,
                    ..DeleteOptions::default()
                };
                let deleted = objects
                    .client(caller)
                    .delete(&kind, key.scope(), &key.name, &options)
                    .await?;
                Ok(Some(match deleted {
                    Deleted::Gone(object) => Change::Delete(kind, object),
                    Deleted::Marked(object) => Change::Upsert(kind, object),
                }))
            };
            (note, forgive_absence(deleted.await))
        }
    };
    match outcome {
        Ok(change) => {
            // A write that found nothing to do is no story.
            if let (Some(note), Some(_)) = (note, &change)
                && !note.only_refused
            {
                recorder.tell_of(note, begun);
            }
            Ok(change)
        }
        Err(error) => Err(refused(recorder, note, doing, &error)),
    }
}

/// Looks whether an object is gone, in the newest state there is: what this server leads with may be behind for a moment,
/// and its view is behind that.
async fn confirm_gone(
    objects: &Objects,
    caller: &Caller,
    kind: &Kind,
    key: &Key,
    uid: Option<&str>,
) -> Result<(), Failure> {
    let again = |message: String| {
        Err(Failure {
            expected: true,
            in_doubt: false,
            message,
        })
    };
    let kind = match current_kind(objects, kind) {
        Ok(kind) => kind,
        // What cannot be looked up is not known to be gone.
        Err(error) => return again(error.message),
    };
    let client = objects.client(caller);
    match client.get(&kind, key.scope(), &key.name).await {
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => again(error.message),
        Ok(found) => {
            let found = found.object();
            let is_other = |uid: &str| !found.uid().is_empty() && found.uid() != uid;
            if uid.is_some_and(is_other) {
                return Ok(());
            }
            again(format!("{} {} is there after all", kind.kind, key.name))
        }
    }
}

/// Writes `spec.finalizers` of a namespace, which only this subresource does.
async fn finalize_namespace(
    objects: &Objects,
    caller: &Caller,
    kind: KindRef<'_>,
    key: &Key,
    uid: Option<Arc<str>>,
    patch: &Value,
) -> Result<Option<Change>, StatusError> {
    let client = objects.client(caller);
    let current = client.get(kind, None, &key.name).await?.object();
    if uid.is_some_and(|uid| *uid != *current.uid()) {
        // A namesake was made meanwhile: the one that was to end is gone.
        return Ok(None);
    }
    let mut value = current.into_value();
    value["spec"]["finalizers"] = patch["spec"]["finalizers"].clone();
    let object = weft_api::Object::from_value(value).map_err(StatusError::internal)?;
    let options = WriteOptions::default();
    let object = client
        .update_part(kind, None, Some(Subresource::Finalize), object, &options)
        .await?;
    Ok(Some(Change::Upsert(Arc::clone(kind), object)))
}

/// The object is gone, or another of that name has taken its place: the informer says so soon, if it has not yet.
fn forgive_absence(
    outcome: Result<Option<Change>, StatusError>,
) -> Result<Option<Change>, StatusError> {
    match outcome {
        Err(error) if error.is_not_found() => Ok(None),
        other => other,
    }
}

/// What a refusal means to whoever decided on the write; told where its note says so.
pub(super) fn refused(
    recorder: &Handle,
    note: Option<Note>,
    doing: &str,
    error: &StatusError,
) -> Failure {
    let expected = error.is_conflict() || error.is_already_exists();
    let in_doubt = error.is_timeout();
    if !expected
        && !in_doubt
        && let Some(mut note) = note
        && let Some(reason) = note.refused_reason
    {
        note.warning = true;
        note.reason = reason;
        note.message = match &note.refused_words {
            Some(words) => format!("{words}: {}", error.message),
            None => format!("Error {doing}: {}", error.message),
        };
        recorder.tell(note);
    }
    Failure {
        expected,
        in_doubt,
        message: error.message.clone(),
    }
}
