//! What the leader does about definitions: it accepts names, tells that a kind is served, and removes the objects of one that goes.
//!
//! Invariants: every write is fenced by the leader's term, and takes effect on the state that it was decided on or not at all; a definition
//! goes when no object of its kind is stored any more, and none can come, because each new one is stored only while its definition takes it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weft_api::status::StatusError;
use weft_api::time::rfc3339;
use weft_kinds::apiextensions::Definition;
use weft_kinds::apiextensions::status::{self, Cleanup};
use weft_kinds::lens::{condition_is_true, items, text};
use weft_kinds::{CUSTOM_RESOURCE_DEFINITION, Kind, Registry, Subresource};
use weft_store::Revision;

use crate::caller::Caller;
use crate::listing::ListOptions;
use crate::objects::{DeleteOptions, Objects, Patch, WriteOptions};
use crate::request::ObjectRef;
use crate::stored;

/// How soon is looked again at a definition whose objects are not gone yet, or that could not be written.
const AGAIN: Duration = Duration::from_millis(250);
/// Rounds in a row: each takes every definition one step on, and there are four at most.
const ROUNDS_MAX: usize = 16;
/// How long a definition outlives its objects: what they owned goes by what is known of them, and nothing is of a kind that is not served.
const OUTLIVES: i64 = 2;

impl Objects {
    /// Tends definitions while this server leads, until the token is cancelled.
    pub async fn tend_definitions(self, closing: CancellationToken) {
        let mut leadership = self.store().leadership();
        let mut news = self.definition_news();
        loop {
            let term = *leadership.borrow_and_update();
            news.mark_unchanged();
            let mut again = false;
            if term.is_some() {
                let caller = Caller::system("customresourcedefinition-controller", term);
                again = self.tend_definitions_once(&caller).await;
            }
            let pause = async {
                match again {
                    true => tokio::time::sleep(AGAIN).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = closing.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() {
                    return closing.cancelled().await;
                },
                _ = news.changed() => {}
                () = pause => {}
            }
        }
    }

    /// Takes every definition as far as it can be taken now; whether there is more to do later.
    pub async fn tend_definitions_once(&self, caller: &Caller) -> bool {
        for _ in 0..ROUNDS_MAX {
            self.show_definitions(&self.store().snapshot()).await;
            let all = self.all_definitions();
            let lean: Vec<&Value> = all.iter().map(|(_, definition)| &**definition).collect();
            let (mut written, mut waits) = (false, false);
            for (revision, definition) in &all {
                let now = rfc3339(self.now());
                let done = if status::is_to_be_cleaned(definition) {
                    self.clean(caller, *revision, definition, &now).await
                } else {
                    match status::next(definition, &lean, &now) {
                        // What two of them want is decided one after the other.
                        Some(_) if written => Ok(Done::Written),
                        Some(next) => {
                            self.write_status(caller, *revision, definition, &next)
                                .await
                        }
                        None => Ok(Done::Nothing),
                    }
                };
                match done {
                    Ok(Done::Nothing) => {}
                    Ok(Done::Written) => written = true,
                    Ok(Done::Waits) => waits = true,
                    // Written by somebody else meanwhile: it is looked at again.
                    Err(error) if error.is_conflict() || error.is_not_found() => written = true,
                    Err(error) => {
                        let name = text(definition, "/metadata/name");
                        tracing::warn!(name, %error, "a definition is tended later");
                        waits = true;
                    }
                }
            }
            if !written {
                return waits;
            }
        }
        true
    }

    async fn write_status(
        &self,
        caller: &Caller,
        revision: Revision,
        definition: &Value,
        next: &Value,
    ) -> Result<Done, StatusError> {
        let name = text(definition, "/metadata/name");
        let object = ObjectRef::new(&CUSTOM_RESOURCE_DEFINITION, None, name);
        let body = json!({
            "metadata": {
                "resourceVersion": revision.to_string(),
                "finalizers": next.pointer("/metadata/finalizers"),
            },
            "status": {
                "acceptedNames": exactly(definition, next),
                "conditions": next.pointer("/status/conditions"),
            },
        });
        let part = Some(Subresource::Status);
        let options = WriteOptions::default();
        let client = self.client(caller);
        client
            .patch(object, part, Patch::merge(&body), &options)
            .await?;
        Ok(Done::Written)
    }

    /// One step towards the end of a definition.
    async fn clean(
        &self,
        caller: &Caller,
        revision: Revision,
        definition: &Value,
        now: &str,
    ) -> Result<Done, StatusError> {
        let cleanup = self.remove_objects(caller, definition).await?;
        if matches!(cleanup, Cleanup::Done) && self.has_just_lost_its_objects(definition) {
            return Ok(Done::Waits);
        }
        match status::cleaned(definition, &cleanup, now) {
            Some(next) => self.write_status(caller, revision, definition, &next).await,
            None => Ok(Done::Waits),
        }
    }

    fn has_just_lost_its_objects(&self, definition: &Value) -> bool {
        let mut conditions = items(definition, "/status/conditions").iter();
        let begun = conditions
            .find(|condition| condition["type"] == "Terminating" && condition["status"] == "True")
            .and_then(|condition| {
                text(condition, "/lastTransitionTime")
                    .parse::<Timestamp>()
                    .ok()
            });
        begun.is_some_and(|begun| self.now().as_second() - begun.as_second() <= OUTLIVES)
    }

    /// Deletes the objects of a definition that goes, once it says that it does.
    async fn remove_objects(
        &self,
        caller: &Caller,
        definition: &Value,
    ) -> Result<Cleanup, StatusError> {
        let group = text(definition, "/spec/group");
        let plural = text(definition, "/spec/names/plural");
        let builtin = Registry::builtin();
        let taken = |kind: &Arc<Kind>| kind.group == group && kind.resource == plural;
        if builtin.all().iter().any(taken) {
            return Ok(Cleanup::Overlapping);
        }
        if !condition_is_true(definition, "Established") {
            return Ok(Cleanup::NeverEstablished);
        }
        let name = text(definition, "/metadata/name");
        let client = self.client(caller);
        let whole = client.get(&CUSTOM_RESOURCE_DEFINITION, None, name).await?;
        let kind = match Definition::primary_kind(&whole.value()) {
            Ok(kind) => kind,
            Err(why) => return Ok(Cleanup::Failed(why)),
        };
        let prefix = stored::prefix(&kind, None);
        if self.newest_snapshot().await?.len_of(&prefix) == 0 {
            return Ok(Cleanup::Done);
        }
        let (list, options) = (ListOptions::default(), DeleteOptions::default());
        let deleted = client.delete_collection(&kind, None, &list, &options).await;
        if let Err(error) = deleted {
            return Ok(Cleanup::Failed(error.to_string()));
        }
        // Their finalizers may have something to do, and whatever they owned has.
        Ok(Cleanup::InProgress)
    }
}

/// The names as a merge patch makes them: what is not accepted any more is taken away.
fn exactly(definition: &Value, next: &Value) -> Value {
    const NAMES: &str = "/status/acceptedNames";
    let mut names = next.pointer(NAMES).cloned().unwrap_or_else(|| json!({}));
    let had = definition.pointer(NAMES).and_then(Value::as_object);
    for (field, _) in had.into_iter().flatten() {
        if names.get(field).is_none() {
            names[field] = Value::Null;
        }
    }
    names
}

/// What became of one step.
enum Done {
    Nothing,
    Written,
    /// Nothing more can be done now.
    Waits,
}
