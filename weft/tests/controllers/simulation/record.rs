//! What is stored, as its own watch tells it: every change in its order, with whoever made it. Each is judged before it is taken
//! ([`super::check`]); what judging has to remember of a workload is kept beside it.

use std::collections::BTreeMap;

use serde_json::Value;
use weft_controllers::Key;

use super::check;

/// Who made a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doer {
    Controller(&'static str),
    Scheduler,
    Node,
    User,
    /// A user who empties a node.
    Eviction,
}

/// What a workload or a budget asked for in one of its generations, as numbers of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub generation: i64,
    pub size: i64,
    /// There may be no more.
    pub most: i64,
    /// So many are to serve.
    pub fewest: i64,
}

/// What is remembered of a workload or a budget, by its uid.
#[derive(Debug, Default)]
pub struct Ledger {
    /// What was asked for since all was well; decisions may rest on any of it, for who decides hears late.
    pub asked: Vec<Asked>,
    /// Pods that stopped serving since all was well by something else than what the ledger is kept for: a node that fell silent, an
    /// eviction. Who decides may not have known of them.
    pub hurt: i64,
}

impl Ledger {
    pub fn most(&self) -> i64 {
        self.asked.iter().map(|one| one.most).max().unwrap_or(0)
    }

    /// The fewest that are to serve. A workload that is made smaller is made so without a look at who serves.
    pub fn fewest(&self) -> i64 {
        let shrinks = self.asked.windows(2).any(|two| two[1].size < two[0].size);
        let fewest = self.asked.iter().map(|one| one.fewest).min();
        fewest.filter(|_| !shrinks).unwrap_or(0)
    }

    pub fn smallest(&self) -> i64 {
        self.asked.iter().map(|one| one.size).min().unwrap_or(0)
    }
}

/// How often something was judged, and how often with nothing to excuse it.
#[derive(Debug, Default, Clone, Copy)]
pub struct Judged {
    pub times: u64,
    pub strictly: u64,
}

#[derive(Default)]
pub struct Record {
    /// By kind and name.
    objects: BTreeMap<(String, Key), Value>,
    by_uid: BTreeMap<String, (String, Key)>,
    pub(super) ledgers: BTreeMap<String, Ledger>,
    pub judged: BTreeMap<&'static str, Judged>,
    /// Changes that were told.
    pub changes: u64,
    /// Of those, what the leaders made.
    pub decisions: u64,
}

impl Record {
    pub fn get(&self, kind: &str, key: &Key) -> Option<&Value> {
        self.objects.get(&(kind.to_owned(), key.clone()))
    }

    pub fn by_uid(&self, uid: &str) -> Option<&Value> {
        self.objects.get(self.by_uid.get(uid)?)
    }

    pub fn all<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = (&'a Key, &'a Value)> {
        let from = (kind.to_owned(), Key::cluster(""));
        let all = self.objects.range(from..);
        let all = all.take_while(move |((of, _), _)| of == kind);
        all.map(|((_, key), value)| (key, value))
    }

    pub fn everything(&self) -> impl Iterator<Item = (&str, &Key, &Value)> {
        let all = self.objects.iter();
        all.map(|((kind, key), value)| (kind.as_str(), key, value))
    }

    pub fn pods(&self) -> impl Iterator<Item = &Value> {
        self.all("Pod").map(|(_, pod)| pod)
    }

    /// Pods of this controller.
    pub fn pods_of<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Value> {
        self.pods().filter(move |pod| controller(pod) == Some(uid))
    }

    /// ReplicaSets of this Deployment.
    pub fn sets_of<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Value> {
        let sets = self.all("ReplicaSet").map(|(_, set)| set);
        sets.filter(move |set| controller(set) == Some(uid))
    }

    /// Pods of this Deployment.
    pub fn pods_of_deployment<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Value> {
        self.sets_of(uid)
            .flat_map(move |set| self.pods_of(uid_of(set)))
    }

    /// Takes a change; `None`: the object is gone.
    ///
    /// # Errors
    /// What it breaks.
    pub fn apply(
        &mut self,
        doer: Doer,
        kind: &str,
        key: &Key,
        value: Option<Value>,
    ) -> Result<(), String> {
        self.changes += 1;
        self.decisions += u64::from(matches!(doer, Doer::Controller(_) | Doer::Scheduler));
        let place = (kind.to_owned(), key.clone());
        let before = match &value {
            Some(value) => {
                let uid = uid_of(value).to_owned();
                self.by_uid.insert(uid, place.clone());
                self.objects.insert(place, value.clone())
            }
            None => self.objects.remove(&place),
        };
        if let Some(before) = &before
            && value
                .as_ref()
                .is_none_or(|value| uid_of(value) != uid_of(before))
        {
            self.by_uid.remove(uid_of(before));
            self.ledgers.remove(uid_of(before));
        }
        check::change(self, doer, kind, before.as_ref(), value.as_ref())
    }

    pub fn judge(&mut self, what: &'static str, strictly: bool) {
        let judged = self.judged.entry(what).or_default();
        judged.times += 1;
        judged.strictly += u64::from(strictly);
    }
}

pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let found = value.pointer(pointer);
    found.and_then(Value::as_str).unwrap_or_default()
}

pub fn number(value: &Value, pointer: &str) -> i64 {
    let found = value.pointer(pointer);
    found.and_then(Value::as_i64).unwrap_or(0)
}

pub fn uid_of(value: &Value) -> &str {
    text(value, "/metadata/uid")
}

pub fn name_of(value: &Value) -> &str {
    text(value, "/metadata/name")
}

pub fn key_of(value: &Value) -> Key {
    Key::new(text(value, "/metadata/namespace"), name_of(value))
}

pub fn is_deleting(value: &Value) -> bool {
    !text(value, "/metadata/deletionTimestamp").is_empty()
}

pub fn owners(value: &Value) -> impl Iterator<Item = &Value> {
    let owners = value["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten()
}

/// The uid of the owner that manages it.
pub fn controller(value: &Value) -> Option<&str> {
    let found = owners(value).find(|owner| owner["controller"] == true)?;
    found["uid"].as_str()
}

pub fn has_condition(value: &Value, kind: &str, status: &str) -> bool {
    let conditions = value["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one["type"] == kind && one["status"] == status)
}

pub fn is_finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// It runs or may yet run.
pub fn is_live(pod: &Value) -> bool {
    !is_deleting(pod) && !is_finished(pod)
}

pub fn serves(pod: &Value) -> bool {
    is_live(pod) && has_condition(pod, "Ready", "True")
}

pub fn node_of(pod: &Value) -> &str {
    text(pod, "/spec/nodeName")
}

/// Thousandths of a processor that the pod asks for.
pub fn cpu_of(pod: &Value) -> i64 {
    let containers = pod["spec"]["containers"].as_array();
    let containers = containers.into_iter().flatten();
    containers
        .map(|one| millis(text(one, "/resources/requests/cpu")))
        .sum()
}

pub fn millis(cpu: &str) -> i64 {
    match cpu.strip_suffix('m') {
        Some(millis) => millis.parse().unwrap_or(0),
        None => cpu.parse::<i64>().unwrap_or(0) * 1000,
    }
}

pub fn count<'a>(pods: impl Iterator<Item = &'a Value>, is: fn(&Value) -> bool) -> i64 {
    i64::try_from(pods.filter(|pod| is(pod)).count()).unwrap()
}
