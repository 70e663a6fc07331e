//! Carries out a reconciler's writes, in its order, and brings back what the server made of them.
//!
//! Neighbours of one sort that concern different objects are independent and run side by side; everything else is one after
//! the other. The first refusal ends the list: the reconciler decides anew on what is there then. That something is gone
//! already is what a delete wanted, and no refusal of a patch either: the next look will not ask for it.

use std::sync::Arc;

use futures::StreamExt as _;
use serde_json::{Value, json};
use weft_api::StatusError;
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::{DeleteOptions, Deleted, Objects, Propagation, WriteOptions};
use weft_controllers::write::Propagation as Wanted;
use weft_controllers::{Change, Note, Resource, Write};
use weft_kinds::patch::PatchKind;
use weft_kinds::{Kind, Subresource};

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
            && let Some(next) = rest.next_if(|next| group.iter().all(|one| independent(one, next)))
        {
            group.push(next);
        }
        let answers = futures::stream::iter(group)
            .map(|write| one(objects, caller, recorder, write))
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

fn independent(one: &Write, other: &Write) -> bool {
    match (one, other) {
        (Write::Create { .. }, Write::Create { .. })
        | (Write::Delete { .. }, Write::Delete { .. })
        | (Write::Event(_), Write::Event(_)) => true,
        (
            Write::Patch {
                resource: one_resource,
                namespace: one_namespace,
                name: one_name,
                ..
            },
            Write::Patch {
                resource,
                namespace,
                name,
                ..
            },
        ) => one_resource == resource && (one_namespace, one_name) != (namespace, name),
        _ => false,
    }
}

/// The registry's kind of a resource; a kind may have gone since the decision.
fn kind_of(objects: &Objects, resource: Resource) -> Result<Arc<Kind>, StatusError> {
    let registry = objects.registry();
    let kind = registry.by_resource(resource.group, resource.version, resource.resource);
    kind.cloned().ok_or_else(StatusError::unknown_path)
}

async fn one(
    objects: &Objects,
    caller: &Caller,
    recorder: &Handle,
    write: Write,
) -> Result<Option<Change>, Failure> {
    if let Write::ConfirmGone {
        resource,
        namespace,
        name,
        uid,
    } = &write
    {
        let confirmed = confirm_gone(objects, caller, *resource, namespace.as_deref(), name, uid);
        return confirmed.await.map(|()| None);
    }
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
        Write::ConfirmGone { .. } => return Ok(None),
        Write::Create {
            resource,
            namespace,
            object,
            note,
        } => {
            let created = async {
                let kind = &kind_of(objects, resource)?;
                let options = WriteOptions::default();
                let namespace = namespace.as_deref();
                let object = objects
                    .create(caller, kind, namespace, object, &options)
                    .await?;
                Ok(Some(Change::Upsert(resource, object)))
            };
            (note, created.await)
        }
        Write::Patch {
            resource,
            namespace,
            name,
            subresource,
            mut patch,
            uid,
            revision,
            note,
        } => {
            if let Some(uid) = &uid {
                patch["metadata"]["uid"] = json!(uid);
            }
            if let Some(revision) = revision {
                patch["metadata"]["resourceVersion"] = json!(revision.to_string());
            }
            let patched = patch_one(
                objects,
                caller,
                resource,
                namespace.as_deref(),
                &name,
                uid.as_deref(),
                subresource,
                &patch,
            );
            let patched = forgive_absence(patched.await);
            (note, patched)
        }
        Write::Delete {
            resource,
            namespace,
            name,
            uid,
            grace_seconds,
            propagation,
            note,
        } => {
            let deleted = async {
                let kind = &kind_of(objects, resource)?;
                let options = DeleteOptions {
                    grace_period_seconds: grace_seconds,
                    propagation: Some(match propagation {
                        Wanted::Background => Propagation::Background,
                        Wanted::Foreground => Propagation::Foreground,
                        Wanted::Orphan => Propagation::Orphan,
                    }),
                    uid: Some(uid),
                    ..DeleteOptions::default()
                };
                let deleted = objects
                    .delete(caller, kind, namespace.as_deref(), &name, &options)
                    .await?;
                Ok(Some(match deleted {
                    Deleted::Gone(object) => Change::Delete(resource, object),
                    Deleted::Marked(object) => Change::Upsert(resource, object),
                }))
            };
            (note, forgive_absence(deleted.await))
        }
    };
    match outcome {
        Ok(change) => {
            // A write that found nothing to do is no story.
            if let (Some(note), Some(_)) = (note, &change) {
                recorder.tell(note);
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
    resource: Resource,
    namespace: Option<&str>,
    name: &str,
    uid: &Option<String>,
) -> Result<(), Failure> {
    let again = |message: String| {
        Err(Failure {
            expected: true,
            message,
        })
    };
    let kind = match kind_of(objects, resource) {
        Ok(kind) => kind,
        // What cannot be looked up is not known to be gone.
        Err(error) => return again(error.message),
    };
    match objects.get(caller, &kind, namespace, name).await {
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => again(error.message),
        Ok(found) => {
            let found = found.object();
            let other = |uid: &String| !found.uid().is_empty() && found.uid() != uid;
            if uid.as_ref().is_some_and(other) {
                return Ok(());
            }
            again(format!("{} {name} is there after all", resource.kind))
        }
    }
}

#[allow(clippy::too_many_arguments)] // One request, spelled out once, called once.
async fn patch_one(
    objects: &Objects,
    caller: &Caller,
    resource: Resource,
    namespace: Option<&str>,
    name: &str,
    uid: Option<&str>,
    subresource: Option<&str>,
    patch: &Value,
) -> Result<Option<Change>, StatusError> {
    let kind = &kind_of(objects, resource)?;
    let options = WriteOptions::default();
    let object = match subresource {
        Some("finalize") => {
            let current = objects.get(caller, kind, namespace, name).await?.object();
            if uid.is_some_and(|uid| uid != current.uid()) {
                // A namesake was made meanwhile: the one that was to end is gone.
                return Ok(None);
            }
            let mut value = current.into_value();
            value["spec"]["finalizers"] = patch["spec"]["finalizers"].clone();
            let object = weft_api::Object::from_value(value).map_err(StatusError::internal)?;
            objects
                .finalize_namespace(caller, name, object, &options)
                .await?
        }
        part => {
            let part = part.map(|_| Subresource::Status);
            let merge = PatchKind::Merge;
            objects
                .patch(caller, kind, namespace, name, part, merge, patch, &options)
                .await?
        }
    };
    Ok(Some(Change::Upsert(resource, object)))
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

fn refused(recorder: &Handle, note: Option<Note>, doing: &str, error: &StatusError) -> Failure {
    let expected = error.is_conflict() || error.is_already_exists();
    if !expected
        && let Some(mut note) = note
        && let Some(reason) = note.refused_reason
    {
        note.warning = true;
        note.reason = reason;
        note.message = format!("Error {doing}: {}", error.message);
        recorder.tell(note);
    }
    Failure {
        expected,
        message: error.message.clone(),
    }
}
