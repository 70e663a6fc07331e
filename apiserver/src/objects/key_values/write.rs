//! Writes to key-value stores: what waits for one store is judged on one state and written as one.
//!
//! Each store that is written to has a line on this server, and a task that takes from its front what fits into one write. Their
//! effect is that of one after the other, in the order in which they were taken. What another server's write refused is judged again, on
//! a newer state; a refusal, and an answer that nothing changed, are told only on a state that the leader confirmed.
//!
//! Where it is not known whether a write took effect, the keys tell: each value has the id of the write that it is of. If the keys
//! are as they were, the same write is sent again, with the same preconditions, of which at most one is taken.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use weft_api::status::{Cause, StatusError};
use weft_kinds::KEY_VALUE_STORE;
use weft_kinds::weft::{Access, Quota, quota};
use weft_store::{Entry, Key, Mutation, Precondition, Revision, Snapshot, WriteError};

use super::layout::{self, Usage};
use super::operation::{Change, Name, Write};
use super::{Found, PodRef, READS_HERE_MAX, unreadable};
use crate::authz::Authorized;
use crate::encryption::EncryptionError;
use crate::objects::Objects;
use crate::objects::freshness::write_failed;
use crate::request::ObjectRef;

/// Writes that wait for one store on this server; a node has 64 under way.
const WAITING_MAX: usize = 1024;
/// Writes that are judged together.
const TOGETHER_MAX: usize = 256;
/// Mutations of one write, so that usage and checks find room beside.
const MUTATIONS_MAX: usize = weft_store::COMMAND_MUTATIONS_MAX - 16;
/// Bytes of keys and values that are written together; one alone may have more, up to the limit of a body.
const BYTES_MAX: usize = 2 << 20;
/// Times that one is judged. Each was lost to another server's write.
const ATTEMPTS_MAX: u32 = 64;
/// Seconds after which a write that found no room is worth another try.
const RETRY_AFTER_SECONDS: u32 = 1;

/// What waits, by the key of its KeyValueStore. A store that is here has a task.
#[derive(Default)]
pub(in crate::objects) struct Lines(Mutex<HashMap<Key, VecDeque<Pending>>>);

/// A write that somebody waits for.
struct Pending {
    asked: Authorized,
    pod: Option<PodRef>,
    write: Write,
    answer: oneshot::Sender<Result<Value, StatusError>>,
    attempts: u32,
    /// It is to be judged on a state that the leader confirmed.
    confirm: bool,
    /// Where it may have taken effect: the revisions of its keys before.
    doubt: Option<Vec<Option<Revision>>>,
}

impl Pending {
    fn tell(self, answer: Result<Value, StatusError>) {
        // Nobody may be waiting any more.
        let _ = self.answer.send(answer);
    }
}

/// What one write of several makes of the state.
#[derive(Default)]
struct Plan {
    /// What it rests on beside the keys: the store and the grants.
    checks: BTreeMap<Key, Revision>,
    usage: Option<Mutation>,
    mutations: Vec<Mutation>,
    bytes: usize,
    taken: Vec<Taken>,
}

struct Taken {
    pending: Pending,
    answer: Answer,
    /// How many of the plan's mutations take a revision until it is done.
    revisions: u64,
    /// The revisions that its keys had.
    before: Vec<Option<Revision>>,
}

/// What is told once the write has its revision.
enum Answer {
    Revision,
    Swapped,
    Number(i64),
}

impl Answer {
    fn at(&self, revision: Revision) -> Value {
        match self {
            Self::Revision => json!({"revision": revision}),
            Self::Swapped => json!({"swapped": true, "revision": revision}),
            Self::Number(number) => json!({
                "value": STANDARD.encode(number.to_string()), "number": number, "revision": revision,
            }),
        }
    }
}

/// What the state as it is makes of a write.
enum Verdict {
    Do {
        mutations: Vec<Mutation>,
        /// The revisions that its keys have.
        before: Vec<Option<Revision>>,
        /// What the store holds then.
        usage: Usage,
        answer: Answer,
    },
    /// It changes nothing, or did what it does before.
    Tell(Value),
}

impl Objects {
    pub(super) async fn write_data(
        &self,
        asked: &Authorized,
        pod: Option<PodRef>,
        write: Write,
    ) -> Result<Value, StatusError> {
        let (object, _) = asked.object("create")?;
        let key = object.key();
        let (answer, answered) = oneshot::channel();
        let pending = Pending {
            asked: asked.clone(),
            pod,
            write,
            answer,
            attempts: 0,
            confirm: false,
            doubt: None,
        };
        let begins = {
            let mut lines = self.inner.lines.0.lock();
            let begins = !lines.contains_key(&key);
            let line = lines.entry(key.clone()).or_default();
            if line.len() >= WAITING_MAX {
                return Err(StatusError::too_many_requests(
                    format!("{WAITING_MAX} writes wait for this KeyValueStore: try again later"),
                    RETRY_AFTER_SECONDS,
                ));
            }
            line.push_back(pending);
            begins
        };
        if begins {
            // Not by whoever happens to be first: when he goes away, the others still wait.
            tokio::spawn(self.clone().work_off(key));
        }
        answered.await.unwrap_or_else(|_| {
            Err(StatusError::timeout(
                "the write ended early, and may have taken effect: read before trying again",
            ))
        })
    }

    /// Writes what waits for a store until nothing does.
    async fn work_off(self, key: Key) {
        let mut turn = Turn {
            lines: &self.inner.lines,
            key,
            ended: false,
        };
        let mut again = Vec::new();
        while let Some(batch) = turn.take(again) {
            again = self.write_together(batch).await;
        }
    }

    /// One write of as many as fit; returns those that are to be judged again, in their order.
    async fn write_together(&self, batch: Vec<Pending>) -> Vec<Pending> {
        let confirmed = batch.iter().any(|pending| pending.confirm);
        let snapshot = if confirmed {
            match self.newest(None).await {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    for pending in batch {
                        let unknown = pending.doubt.is_some();
                        pending.tell(Err(if unknown { in_doubt() } else { error.clone() }));
                    }
                    return Vec::new();
                }
            }
        } else {
            self.inner.store.snapshot()
        };
        let (plan, mut again) = self.plan(&snapshot, batch, confirmed).await;
        if plan.taken.is_empty() {
            return again;
        }
        let checks = plan.checks.into_iter();
        let checks = checks.map(|(key, at)| Mutation::check(key, Precondition::Revision(at)));
        let mutations = checks.chain(plan.usage).chain(plan.mutations).collect();
        let written = self.inner.store.write(mutations, None).await;
        let last = plan.taken.last().map_or(0, |taken| taken.revisions);
        let mut judge_again = Vec::new();
        for taken in plan.taken {
            let Taken {
                mut pending,
                answer,
                revisions,
                before,
            } = taken;
            match &written {
                Ok(revision) => {
                    let own = revision.saturating_sub(last - revisions);
                    pending.tell(Ok(answer.at(own)));
                }
                Err(error @ (WriteError::Conflict { .. } | WriteError::Unknown)) => {
                    pending.attempts += 1;
                    pending.confirm = true;
                    if matches!(error, WriteError::Unknown) {
                        pending.doubt = Some(before);
                    }
                    if pending.attempts < ATTEMPTS_MAX {
                        judge_again.push(pending);
                    } else if pending.doubt.is_some() {
                        pending.tell(Err(in_doubt()));
                    } else {
                        pending.tell(Err(StatusError::try_again(
                            "the keys were changed by others too often: try again".to_owned(),
                            RETRY_AFTER_SECONDS,
                        )));
                    }
                }
                Err(error) => {
                    // Of an earlier attempt it may still be unknown.
                    let told = match pending.doubt.is_some() {
                        true => in_doubt(),
                        false => write_failed(&KEY_VALUE_STORE, "", error.clone()),
                    };
                    pending.tell(Err(told));
                }
            }
        }
        judge_again.append(&mut again);
        judge_again
    }

    /// Judges each on what those before it leave, until one write is full. What cannot be a part of it comes back.
    async fn plan(
        &self,
        snapshot: &Snapshot,
        batch: Vec<Pending>,
        confirmed: bool,
    ) -> (Plan, Vec<Pending>) {
        let mut plan = Plan::default();
        let mut again = Vec::new();
        let mut touched = BTreeSet::new();
        // All of a line are about one store.
        let Some(asked) = batch.first().map(|pending| pending.asked.clone()) else {
            return (plan, again);
        };
        let target = self.target(snapshot, &asked);
        let mut now = target.as_ref().ok().map(|target| target.held.clone());
        let mut revisions = 0;
        for mut pending in batch {
            if pending.answer.is_closed() && pending.attempts == 0 {
                // Whoever asked has gone, and nothing was done yet.
                continue;
            }
            let names: Vec<Name> = pending.write.names().into_iter().cloned().collect();
            let bytes = pending.write.bytes();
            let full = plan.mutations.len() + plan.checks.len() + names.len() > MUTATIONS_MAX
                || (!plan.taken.is_empty() && plan.bytes + bytes > BYTES_MAX);
            // A key changes once in a write: what comes after sees the revision that it got.
            if full || names.iter().any(|name| touched.contains(name)) {
                again.push(pending);
                continue;
            }
            let judged = match (&target, &now) {
                (Ok(target), Some(now)) => self.judge(snapshot, &pending, target, now).await,
                (Ok(target), None) => self.judge(snapshot, &pending, target, &target.held).await,
                (Err(error), _) => Err(error.clone()),
            };
            // A refusal, and a change of nothing, rest on the state as it is, and not as those before may make it.
            let rests = !matches!(judged, Ok((Verdict::Do { .. }, _)));
            if rests && !(confirmed && plan.taken.is_empty()) {
                pending.confirm = true;
                again.push(pending);
                continue;
            }
            let (verdict, grant) = match judged {
                Ok(judged) => judged,
                Err(error) => {
                    // Who may not write now may have written before.
                    let told = match pending.doubt.is_some() {
                        true => in_doubt(),
                        false => error,
                    };
                    pending.tell(Err(told));
                    continue;
                }
            };
            match verdict {
                Verdict::Tell(value) => pending.tell(Ok(value)),
                Verdict::Do {
                    mutations,
                    before,
                    usage,
                    answer,
                } => {
                    plan.checks.extend(grant);
                    revisions += mutations.len() as u64;
                    plan.mutations.extend(mutations);
                    plan.bytes += bytes;
                    touched.extend(names);
                    now = Some(usage);
                    plan.taken.push(Taken {
                        pending,
                        answer,
                        revisions,
                        before,
                    });
                }
            }
        }
        if let (Ok(target), Some(now)) = (target, now)
            && !plan.taken.is_empty()
        {
            let Target {
                found,
                held,
                held_at,
                ..
            } = target;
            plan.checks.insert(found.key.clone(), found.revision);
            if now != held || held_at.is_none() {
                let precondition = held_at.map_or(Precondition::Absent, Precondition::Revision);
                let key = layout::usage_key(found.uid());
                plan.usage = Some(Mutation::put(key, precondition, now.to_bytes()));
            }
        }
        (plan, again)
    }

    fn target(&self, snapshot: &Snapshot, asked: &Authorized) -> Result<Target, StatusError> {
        let (object, _) = asked.object("create")?;
        let found = self.key_value_store(snapshot, object)?;
        let entry = snapshot.get(&layout::usage_key(found.uid()));
        let held_at = entry.as_ref().map(|entry| entry.revision);
        let held = match entry {
            Some(entry) => Usage::read(&entry).map_err(StatusError::internal)?,
            None => Usage::none(object.namespace.unwrap_or(""), object.name),
        };
        Ok(Target {
            quota: quota(&found.object),
            found,
            held,
            held_at,
        })
    }

    /// What becomes of one write, and the grant that lets it. `now` is what the store holds after those before it.
    async fn judge(
        &self,
        snapshot: &Snapshot,
        pending: &Pending,
        target: &Target,
        now: &Usage,
    ) -> Result<(Verdict, Option<(Key, Revision)>), StatusError> {
        let (object, _) = pending.asked.object("create")?;
        let pod = pending.pod.as_ref();
        let grant = self.admit_pod(&pending.asked, object, snapshot, pod, Access::ReadWrite)?;
        let uid = target.found.uid();
        let names = pending.write.names();
        let keys: Vec<Key> = names
            .iter()
            .map(|name| layout::data_key(uid, name))
            .collect();
        // Of what is overwritten, its size is all that is kept: a thousand values may have half a GiB.
        let before = before_of(snapshot, &keys).await?;
        let last = keys.last().and_then(|key| snapshot.get(key));
        if let Some(told) = self.done_before(pending, last.as_deref(), &before, snapshot)? {
            return Ok((Verdict::Tell(told), grant));
        }
        let old = last;
        let (values, answer): (Vec<Option<Bytes>>, Answer) = match &pending.write.change {
            Change::Set(entries) => {
                let values = entries.values().cloned().map(Some).collect();
                (values, Answer::Revision)
            }
            Change::Delete(_) => (vec![None; keys.len()], Answer::Revision),
            Change::Increment { key, delta } => {
                let number = match &old {
                    Some(old) => number_of(key, &self.open_data(old)?.1)?,
                    None => 0,
                };
                let number = number.checked_add(*delta).ok_or_else(|| overflow(key))?;
                (
                    vec![Some(number.to_string().into())],
                    Answer::Number(number),
                )
            }
            Change::CompareAndSet {
                revision, value, ..
            } => {
                let found = old.as_ref().map_or(0, |old| old.revision);
                if found != *revision {
                    let mut told = json!({"swapped": false, "revision": found});
                    if let Some(old) = &old {
                        told["value"] = STANDARD.encode(self.open_data(old)?.1).into();
                    }
                    return Ok((Verdict::Tell(told), grant));
                }
                (vec![Some(value.clone())], Answer::Swapped)
            }
        };
        let mut usage = now.clone();
        let mut mutations = Vec::with_capacity(keys.len());
        for (((key, name), before), value) in keys.into_iter().zip(&names).zip(&before).zip(values)
        {
            let precondition = match before {
                Some(before) => {
                    usage.keys = usage.keys.saturating_sub(1);
                    let bytes = name.0.len() as u64 + before.bytes;
                    usage.bytes = usage.bytes.saturating_sub(bytes);
                    Precondition::Revision(before.revision)
                }
                None => Precondition::Absent,
            };
            match value {
                Some(value) => {
                    usage.keys += 1;
                    usage.bytes += (name.0.len() + value.len()) as u64;
                    let vault = &self.inner.vault;
                    let sealed = layout::encode(vault, &key, pending.write.id, &value).await;
                    let sealed = sealed.map_err(not_sealed)?;
                    mutations.push(Mutation::put(key, precondition, sealed));
                }
                None if before.is_some() => mutations.push(Mutation::delete(key, precondition)),
                None => {}
            }
        }
        if mutations.is_empty() {
            let told = Answer::Revision.at(snapshot.revision());
            return Ok((Verdict::Tell(told), grant));
        }
        check_quota(object, target.quota, now, &usage)?;
        let before = before.iter().map(|before| Some(before.as_ref()?.revision));
        let verdict = Verdict::Do {
            mutations,
            before: before.collect(),
            usage,
            answer,
        };
        Ok((verdict, grant))
    }

    /// What to tell of a write that took effect already: of one that was sent once more, or whose end is not known. `last` is under
    /// the last of its keys, which got the revision of the whole.
    fn done_before(
        &self,
        pending: &Pending,
        last: Option<&Entry>,
        now: &[Option<Before>],
        snapshot: &Snapshot,
    ) -> Result<Option<Value>, StatusError> {
        let write = &pending.write;
        if !write.named && pending.doubt.is_none() {
            return Ok(None);
        }
        if let Some(last) = last {
            let (id, value) = self.open_data(last)?;
            if id == write.id {
                let answer = match &write.change {
                    Change::Set(_) | Change::Delete(_) => Answer::Revision,
                    Change::Increment { key, .. } => Answer::Number(number_of(key, &value)?),
                    Change::CompareAndSet { .. } => Answer::Swapped,
                };
                return Ok(Some(answer.at(last.revision)));
            }
        }
        let Some(before) = &pending.doubt else {
            return Ok(None);
        };
        if matches!(write.change, Change::Delete(_)) && now.iter().all(Option::is_none) {
            return Ok(Some(Answer::Revision.at(snapshot.revision())));
        }
        let now = now.iter().map(|now| Some(now.as_ref()?.revision));
        // Somebody else wrote them since, perhaps over this one.
        match now.eq(before.iter().copied()) {
            true => Ok(None),
            false => Err(in_doubt()),
        }
    }
}

/// What a key has before a write.
struct Before {
    revision: Revision,
    /// Of its value.
    bytes: u64,
}

/// What keys have. Those of many are read beside the threads that others wait for.
///
/// # Errors
/// For a value that cannot be read: what it was counted as is not known, so the store would hold that for ever once it is gone.
async fn before_of(snapshot: &Snapshot, keys: &[Key]) -> Result<Vec<Option<Before>>, StatusError> {
    let look = |snapshot: &Snapshot, key: &Key| {
        let Some(entry) = snapshot.get(key) else {
            return Ok(None);
        };
        Ok(Some(Before {
            revision: entry.revision,
            bytes: layout::value_bytes(&entry).map_err(unreadable)?,
        }))
    };
    if keys.len() <= READS_HERE_MAX {
        return keys.iter().map(|key| look(snapshot, key)).collect();
    }
    let (snapshot, keys) = (snapshot.clone(), keys.to_vec());
    let reading = move || keys.iter().map(|key| look(&snapshot, key)).collect();
    let read = tokio::task::spawn_blocking(reading).await;
    read.map_err(StatusError::internal)?
}

/// A store as one state has it.
struct Target {
    found: Found,
    quota: Quota,
    held: Usage,
    /// The revision of what is told of that.
    held_at: Option<Revision>,
}

/// The turn of the task that works a line off. While it is there, so is the line.
struct Turn<'a> {
    lines: &'a Lines,
    key: Key,
    ended: bool,
}

impl Turn<'_> {
    /// Those that are to be judged again, and behind them what waits; `None` when nothing does, and then the line is gone.
    fn take(&mut self, mut batch: Vec<Pending>) -> Option<Vec<Pending>> {
        let mut lines = self.lines.0.lock();
        if let Some(line) = lines.get_mut(&self.key) {
            let room = TOGETHER_MAX.saturating_sub(batch.len()).min(line.len());
            batch.extend(line.drain(..room));
        }
        if batch.is_empty() {
            lines.remove(&self.key);
            self.ended = true;
            return None;
        }
        Some(batch)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // It ended early. Those who wait hear of it, and the next one begins a line anew.
            self.lines.0.lock().remove(&self.key);
        }
    }
}

/// The number that a value stands for, in decimal digits.
fn number_of(key: &Name, value: &[u8]) -> Result<i64, StatusError> {
    let text = std::str::from_utf8(value).ok();
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| {
        let detail = "has no number of 64 bits in decimal digits as its value; set it to one first";
        invalid(key, detail)
    })
}

fn overflow(key: &Name) -> StatusError {
    invalid(key, "would leave the range of 64 bits; nothing was changed")
}

fn invalid(key: &Name, detail: &str) -> StatusError {
    let kind = &KEY_VALUE_STORE;
    let cause = Cause::invalid("key", &key.0.as_str().into(), detail);
    StatusError::invalid(&kind.kind, &kind.group, "", vec![cause])
}

/// 507 for a write that would have a store hold more than its quota, and more than it does.
fn check_quota(
    object: ObjectRef<'_>,
    quota: Quota,
    before: &Usage,
    after: &Usage,
) -> Result<(), StatusError> {
    let exceeds = |before: u64, after: u64, max: u64| after > max && after > before;
    if !exceeds(before.bytes, after.bytes, quota.bytes)
        && !exceeds(before.keys, after.keys, quota.keys)
    {
        return Ok(());
    }
    let mut error = StatusError::unavailable(format!(
        "KeyValueStore {}/{} would hold {} bytes in {} keys, and its quota is {} bytes in {} keys: delete keys, or raise spec.quota",
        object.namespace.unwrap_or(""),
        object.name,
        after.bytes,
        after.keys,
        quota.bytes,
        quota.keys
    ));
    error.code = 507;
    error.reason = "QuotaExceeded".into();
    Err(error)
}

/// 504: what a client does about it depends on whether it can tell.
fn in_doubt() -> StatusError {
    StatusError::timeout(
        "the write may or may not have taken effect, and the keys were written since or cannot be read now: read before trying again",
    )
}

fn not_sealed(error: EncryptionError) -> StatusError {
    match error {
        EncryptionError::Write(error) => write_failed(&KEY_VALUE_STORE, "", error),
        error => StatusError::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use weft_store::{Config, Store};

    use super::*;
    use crate::objects::key_values::DATA_PREFIX;

    async fn open(dir: &std::path::Path) -> Store {
        let store = Store::open(Config::new(dir)).await.unwrap();
        let mut leadership = store.leadership();
        leadership.wait_for(Option::is_some).await.unwrap();
        store
    }

    /// More than the store's caches hold together, of values as large as [`value`]s.
    const VALUES: u64 = 200;

    /// Bytes that do not compress, behind the header of a value; of no two numbers the same.
    fn value(number: u64) -> Vec<u8> {
        let mut seed = number * 2 + 1;
        let noise = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        });
        std::iter::once(1).chain(noise.take(200_016)).collect()
    }

    /// Of a value that the disk lost, nobody knows how much was counted for it: to replace it would leave that counted for ever.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_cannot_be_read_is_not_counted_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let keys: Vec<Key> = ["whole", "lost", "none"]
            .map(|name| Key::from(format!("{DATA_PREFIX}u/{name}")))
            .to_vec();
        let (short, long) = (vec![1; 17], value(0));
        let store = open(dir.path()).await;
        let further = |number| Key::from(format!("{DATA_PREFIX}u/{number}"));
        let others = (1..VALUES).map(|number| (further(number), value(number)));
        let both = keys.iter().cloned().zip([short, long.clone()]);
        for (key, value) in both.chain(others) {
            let put = Mutation::put(key, Precondition::Absent, Bytes::from(value));
            store.write(vec![put], None).await.unwrap();
        }
        store.shutdown().await;
        drop(store);

        let store = open(dir.path()).await;
        let path = dir.path().join("state.redb");
        let content = std::fs::read(&path).unwrap();
        let part = &long[1_000..1_100];
        let places = content.windows(part.len()).enumerate();
        let places = places.filter(|(_, window)| window == &part);
        let places: Vec<usize> = places.map(|(at, _)| at).collect();
        assert!(!places.is_empty(), "the value is in the file");
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        for at in places {
            file.write_all_at(&[b'!'; 100], at as u64).unwrap();
        }

        let snapshot = store.snapshot();
        let [whole, lost, none] = keys.as_slice() else {
            panic!("three keys");
        };
        let found = before_of(&snapshot, &[none.clone(), whole.clone()]).await;
        let found: Vec<Option<u64>> = found
            .unwrap()
            .iter()
            .map(|b| Some(b.as_ref()?.bytes))
            .collect();
        assert_eq!(found, [None, Some(0)]);
        for count in [1, READS_HERE_MAX + 1] {
            let refused = before_of(&snapshot, &vec![lost.clone(); count]).await;
            let refused = refused.map(|found| found.len()).unwrap_err();
            assert_eq!(refused.code, 500);
            assert!(
                refused.message.contains("ask another server"),
                "{}",
                refused.message
            );
        }
        store.shutdown().await;
    }
}
