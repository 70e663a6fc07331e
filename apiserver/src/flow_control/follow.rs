//! What is in force follows the store, on every server; what FlowSchemas are told of their level is written by the leader.
//!
//! Invariants: a change is in force as soon as this server's store tells of it; a burst of changes is read once; the leader's writes are
//! fenced by its term.

use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_api::time::rfc3339;
use weft_kinds::lens::{member, text};
use weft_kinds::{FLOW_SCHEMA, KindRef, PRIORITY_LEVEL_CONFIGURATION, Subresource};

use super::{FlowControl, condition, dangling};
use crate::caller::Caller;
use crate::objects::{Objects, WriteOptions};
use crate::stored::{self, Stored};

/// Schemas and levels, and nothing else.
const PREFIX: &str = "/flowcontrol.apiserver.k8s.io/";
/// Pause before the store is asked again for a watch that it could not give.
const PAUSE: Duration = Duration::from_millis(20);
/// How often levels lend each other seats anew, as in Kubernetes; and statuses are looked at, should one have been missed.
const EVERY: Duration = Duration::from_secs(10);
/// Who writes conditions, as it is called in Kubernetes.
const WRITER: &str = "api-priority-and-fairness-config-consumer-v1";

impl FlowControl {
    /// Orders requests by what this server's store says, until the token is cancelled.
    pub async fn follow(self, objects: Objects, closing: CancellationToken) {
        let leadership = objects.store().leadership();
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let snapshot = objects.store().snapshot();
            let mut found = read(&objects);
            self.apply(&found);
            let Ok(mut watch) = objects.store().watch(PREFIX, snapshot.revision()) else {
                // The history moved past the snapshot.
                tokio::select! {
                    () = closing.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => continue,
                }
            };
            loop {
                let term = *leadership.borrow();
                if term.is_some() {
                    let caller = Caller::system(WRITER, term);
                    for (schema, dangles) in dangling(&found) {
                        if let Err(error) = tell(&objects, &caller, schema, dangles).await {
                            tracing::debug!(%error, "a FlowSchema is looked at again");
                        }
                    }
                }
                let event = tokio::select! {
                    biased;
                    () = closing.cancelled() => return,
                    event = watch.next() => event,
                    _ = ticks.tick() => {
                        self.adjust();
                        continue;
                    }
                };
                match event {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => break,
                    None => return,
                }
                // What else is known by now is read along.
                while let Some(Ok(_)) = watch.try_next() {}
                found = read(&objects);
                self.apply(&found);
            }
        }
    }
}

/// The objects, as they are stored.
fn read(objects: &Objects) -> Vec<Value> {
    let snapshot = objects.store().snapshot();
    let kinds: [KindRef<'_>; 2] = [&PRIORITY_LEVEL_CONFIGURATION, &FLOW_SCHEMA];
    let mut found = Vec::new();
    for kind in kinds {
        for entry in snapshot.range(&stored::prefix(kind, None), None) {
            found.push(Stored::new(objects.vault(), kind, entry).value());
        }
    }
    found
}

async fn tell(
    objects: &Objects,
    caller: &Caller,
    schema: &Value,
    dangles: bool,
) -> Result<(), StatusError> {
    let Some(condition) = condition(schema, dangles, &rfc3339(objects.now())) else {
        return Ok(());
    };
    let mut next = schema.clone();
    let conditions = &mut member(&mut next, "status")["conditions"];
    if !conditions.is_array() {
        *conditions = Value::Array(Vec::new());
    }
    if let Some(all) = conditions.as_array_mut() {
        all.retain(|one| text(one, "/type") != "Dangling");
        all.push(condition);
    }
    let object = Object::from_value(next).map_err(StatusError::internal)?;
    let options = WriteOptions::default();
    let status = Some(Subresource::Status);
    let client = objects.client(caller);
    let written = client.update_part(&FLOW_SCHEMA, None, status, object, &options);
    match written.await {
        // Whoever changed it just now is heard of at once.
        Err(error) if error.is_not_found() || error.code == 409 => Ok(()),
        done => done.map(drop),
    }
}
