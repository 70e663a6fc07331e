//! What the leader does about APIServices: it makes those of what is served here, and finds out whether the others can be asked.
//!
//! Whoever serves a version is looked at when its APIService, its Service or an endpoint in its namespace changes, and every
//! [`LOOK_EVERY`]; one that failed soon again. It is asked for its discovery as clients ask for it, several times at once: one answer is enough.
//!
//! Invariants: every write is fenced by the leader's term, and takes effect on the state that it was decided on or not at all; a status that is as it
//! should be is not written; one server that does not answer keeps nobody else from being looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_api::time::rfc3339;
use weft_kinds::apiextensions::status::Condition;
use weft_kinds::apiregistration::{self, Tended, reference, tended};
use weft_kinds::lens::{items, text};
use weft_kinds::{API_SERVICE, ENDPOINT_SLICE, SERVICE, Subresource};
use weft_store::{Key, Watch};

use super::follow::until;
use super::{ApiService, Question};
use crate::caller::Caller;
use crate::objects::{DeleteOptions, Objects, Patch, WriteOptions};
use crate::reach::State;
use crate::request::ObjectRef;
use crate::stored::{self, Stored};

/// How often somebody is looked at of whom there is no news.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The first pause after a failure; each further one is twice as long, up to [`LOOK_EVERY`].
const AGAIN: Duration = Duration::from_millis(100);
/// The shortest pause between two looks, however much changes in a namespace, and before what could not be written is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// How soon is tried again what could not be written.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// Servers that are looked at at a time.
const LOOKS_MAX: usize = 32;
/// Questions of one look, how long each may take, and what is read of its answer: only that there is one counts.
const QUESTIONS: usize = 5;
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// When somebody is looked at again.
struct Look {
    spec: Value,
    namespace: String,
    due: Instant,
    failures: u32,
    looking: bool,
    /// Something changed since the look began.
    stale: bool,
}

struct Looked {
    name: String,
    spec: Value,
    condition: Condition,
}

type Looks = BTreeMap<String, Look>;

impl Objects {
    /// Tends APIServices while this server leads, until the token is cancelled.
    pub async fn tend_api_services(self, closing: CancellationToken) {
        let mut leadership = self.store().leadership();
        loop {
            let term = *leadership.borrow_and_update();
            let tending = async {
                match term {
                    Some(_) => {
                        let caller = Caller::system("apiserver", term);
                        self.tend_for_a_term(&caller).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = closing.cancelled() => return,
                changed = leadership.changed() => if changed.is_err() {
                    return closing.cancelled().await;
                },
                () = tending => {}
            }
        }
    }

    async fn tend_for_a_term(&self, caller: &Caller) {
        let mut looks = Looks::new();
        let mut looking: JoinSet<Looked> = JoinSet::new();
        let mut definitions = self.definition_news();
        // What a term begins with is put right once all of it could be written.
        let mut starts = true;
        loop {
            let snapshot = self.store().snapshot();
            let watches = [&API_SERVICE, &SERVICE, &ENDPOINT_SLICE].map(|kind| {
                let prefix = stored::prefix(kind, None);
                self.store().watch(prefix, snapshot.revision())
            });
            let [Ok(mut own), Ok(mut services), Ok(mut slices)] = watches else {
                // The history moved past the snapshot.
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let mut changes = true;
            loop {
                let mut again = None;
                if changes {
                    let written = self.tend_all(caller, &mut looks, starts).await;
                    starts = starts && !written;
                    changes = !written;
                    again = (!written).then(|| Instant::now() + WRITE_AGAIN);
                }
                self.look_at_who_is_due(&mut looks, &mut looking);
                let due = looks.values().filter(|look| !look.looking);
                let due = due.map(|look| look.due).min();
                let due = due.filter(|_| looking.len() < LOOKS_MAX);
                let due = due.into_iter().chain(again).min();
                tokio::select! {
                    biased;
                    Some(looked) = looking.join_next(), if !looking.is_empty() => {
                        if let Ok(looked) = looked {
                            self.settle(caller, &mut looks, looked).await;
                        }
                    }
                    key = changed(&mut own) => match key {
                        Some(_) => changes = true,
                        None => break,
                    },
                    key = changed(&mut services) => match key {
                        Some(key) => touch(&mut looks, &key),
                        None => break,
                    },
                    key = changed(&mut slices) => match key {
                        Some(key) => touch(&mut looks, &key),
                        None => break,
                    },
                    news = definitions.changed() => match news {
                        Ok(()) => changes = true,
                        Err(_) => return std::future::pending().await,
                    },
                    () = until(due) => {}
                }
            }
        }
    }

    /// Makes, changes and removes what stands for this server's own, and plans looks at the others; whether all could be written.
    async fn tend_all(&self, caller: &Caller, looks: &mut Looks, starts: bool) -> bool {
        let named = |object: Value| (text(&object, "/metadata/name").to_owned(), object);
        let snapshot = self.store().snapshot();
        let prefix = stored::prefix(&API_SERVICE, None);
        let present = snapshot.range(&prefix, None);
        let present = present.map(|entry| Stored::new(self.vault(), &API_SERVICE, entry).value());
        let present: BTreeMap<String, Value> = present.map(named).collect();
        // The registry follows definitions, which may have changed in this state.
        self.show_definitions(&snapshot).await;
        let wanted = apiregistration::own(&self.registry()).into_iter();
        let wanted: BTreeMap<String, Value> = wanted.map(named).collect();
        let names: BTreeSet<&String> = present.keys().chain(wanted.keys()).collect();
        let mut all_written = true;
        for name in names {
            let (is, should) = (present.get(name), wanted.get(name));
            let done = match (tended(is, should, starts), is) {
                (Tended::Left, Some(object)) if reference(object).is_none() => {
                    let condition = apiregistration::local();
                    self.write_condition(caller, object, &condition).await
                }
                (what, _) => self.write_own(caller, what, is, should).await,
            };
            if let Err(error) = done {
                // Written by somebody else meanwhile: that is news, too.
                let overtaken =
                    error.is_conflict() || error.is_not_found() || error.is_already_exists();
                if !overtaken {
                    tracing::warn!(name, %error, "an APIService is tended later");
                }
                all_written = all_written && overtaken;
            }
        }
        plan(looks, present);
        all_written
    }

    async fn write_own(
        &self,
        caller: &Caller,
        what: Tended,
        present: Option<&Value>,
        wanted: Option<&Value>,
    ) -> Result<(), StatusError> {
        let (client, options) = (self.client(caller), WriteOptions::default());
        match (what, present, wanted) {
            (Tended::Made, _, Some(wanted)) => {
                let object = Object::from_value(wanted.clone()).map_err(StatusError::internal)?;
                client.create(&API_SERVICE, None, object, &options).await?;
            }
            (Tended::Changed, Some(present), Some(wanted)) => {
                let mut next = present.clone();
                next["spec"] = wanted["spec"].clone();
                let object = Object::from_value(next).map_err(StatusError::internal)?;
                client.update(&API_SERVICE, None, object, &options).await?;
            }
            (Tended::Removed, Some(present), _) => {
                let options = DeleteOptions {
                    uid: Some(text(present, "/metadata/uid").to_owned()),
                    ..DeleteOptions::default()
                };
                let name = text(present, "/metadata/name");
                client.delete(&API_SERVICE, None, name, &options).await?;
            }
            _ => {}
        }
        Ok(())
    }

    fn look_at_who_is_due(&self, looks: &mut Looks, looking: &mut JoinSet<Looked>) {
        let now = Instant::now();
        for (name, look) in looks {
            if look.looking || look.due > now || looking.len() >= LOOKS_MAX {
                continue;
            }
            (look.looking, look.stale) = (true, false);
            let (objects, name, spec) = (self.clone(), name.clone(), look.spec.clone());
            looking.spawn(async move {
                let object = json!({"metadata": {"name": name}, "spec": spec});
                let condition = objects.look_at(&object).await;
                Looked {
                    name,
                    spec,
                    condition,
                }
            });
        }
    }

    /// Whether an APIService's server can be asked, as its condition says it.
    async fn look_at(&self, object: &Value) -> Condition {
        if let Some((namespace, name, _)) = reference(object) {
            let snapshot = self.store().snapshot();
            let state = State {
                snapshot: &snapshot,
                vault: self.vault(),
            };
            let service = state.object(&SERVICE, Some(namespace), name);
            let slices = state.slices(namespace, name);
            let found = apiregistration::unavailable(object, service.as_ref(), &slices);
            if let Some(condition) = found {
                return condition;
            }
        }
        let service = ApiService::read(object);
        let questions = (0..QUESTIONS).map(|_| self.question(&service));
        let mut questions: FuturesUnordered<_> = questions.collect();
        let mut outcome = Ok(());
        while let Some(answered) = questions.next().await {
            outcome = answered;
            if outcome.is_ok() {
                break;
            }
        }
        apiregistration::asked(outcome)
    }

    async fn question(&self, service: &ApiService) -> Result<(), String> {
        let host = self.host_of(service)?;
        let path = service.root();
        let url = format!("https://{host}{path}");
        let question = Question {
            path: &path,
            headers: &[],
            bytes_max: ANSWER_BYTES_MAX,
            timeout: QUESTION_TIMEOUT,
        };
        let why = match self.ask_api_service(service, &question).await {
            Ok(answer) if answer.status.is_success() => return Ok(()),
            Ok(answer) => format!("bad status from {url}: {}", answer.status.as_u16()),
            Err(unasked) => format!("Get {url:?}: {}", unasked.why()),
        };
        Err(format!("failing or missing response from {url}: {why}"))
    }

    async fn settle(&self, caller: &Caller, looks: &mut Looks, looked: Looked) {
        let Looked {
            name,
            spec,
            condition,
        } = looked;
        let Some(look) = looks.get_mut(&name) else {
            return;
        };
        look.looking = false;
        let is_current = look.spec == spec;
        let mut pause = LOOK_EVERY;
        if condition.reason == apiregistration::FAILED_CHECK {
            let doubled = AGAIN.saturating_mul(1 << look.failures.min(10));
            pause = doubled.min(LOOK_EVERY);
            look.failures = look.failures.saturating_add(1);
        } else {
            look.failures = 0;
        }
        if look.stale || !is_current {
            pause = PAUSE;
        }
        if is_current && let Err(error) = self.write_looked(caller, &name, &condition).await {
            // Written by somebody else meanwhile, or it could not be: it is looked at again.
            tracing::debug!(name, %error, "the status of an APIService is written later");
            pause = WRITE_AGAIN;
        }
        look.due = Instant::now() + pause;
    }

    async fn write_looked(
        &self,
        caller: &Caller,
        name: &str,
        condition: &Condition,
    ) -> Result<(), StatusError> {
        let found = self.client(caller).get(&API_SERVICE, None, name).await?;
        self.write_condition(caller, &found.value(), condition)
            .await
    }

    async fn write_condition(
        &self,
        caller: &Caller,
        object: &Value,
        condition: &Condition,
    ) -> Result<(), StatusError> {
        let mut next = object.clone();
        condition.set(&mut next, &rfc3339(self.now()));
        if next == *object {
            return Ok(());
        }
        let name = text(object, "/metadata/name");
        tracing::info!(
            name,
            status = condition.status,
            reason = condition.reason,
            message = condition.message,
            "the availability of an APIService changed"
        );
        let body = json!({
            "metadata": {"resourceVersion": object.pointer("/metadata/resourceVersion")},
            "status": {"conditions": items(&next, "/status/conditions")},
        });
        let (object, part) = (
            ObjectRef::new(&API_SERVICE, None, name),
            Some(Subresource::Status),
        );
        let (client, options) = (self.client(caller), WriteOptions::default());
        client
            .patch(object, part, Patch::merge(&body), &options)
            .await?;
        Ok(())
    }
}

/// Whoever is new or asks for something else is looked at at once.
fn plan(looks: &mut Looks, present: BTreeMap<String, Value>) {
    looks.retain(|name, _| {
        let object = present.get(name);
        object.is_some_and(|object| reference(object).is_some())
    });
    for (name, object) in present {
        let Some((namespace, ..)) = reference(&object) else {
            continue;
        };
        let known = looks.get(&name);
        if known.is_some_and(|look| look.spec == object["spec"]) {
            continue;
        }
        let look = Look {
            spec: object["spec"].clone(),
            namespace: namespace.to_owned(),
            due: Instant::now(),
            failures: 0,
            looking: known.is_some_and(|look| look.looking),
            stale: true,
        };
        looks.insert(name, look);
    }
}

/// The key of the next change; none when the watch is over.
async fn changed(watch: &mut Watch) -> Option<Key> {
    let event = watch.next().await?;
    event.ok().map(|event| event.entry.key.clone())
}

/// Whoever has its Service in the namespace of a key is looked at soon.
fn touch(looks: &mut Looks, key: &Key) {
    if looks.is_empty() {
        return;
    }
    let text = std::str::from_utf8(key.as_bytes()).unwrap_or("");
    let namespace = text.rsplit('/').nth(1).unwrap_or("");
    let soon = Instant::now() + PAUSE;
    for look in looks.values_mut() {
        if look.namespace == namespace {
            look.stale = true;
            look.due = look.due.min(soon);
        }
    }
}
