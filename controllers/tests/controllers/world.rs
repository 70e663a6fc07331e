//! A server of values: stores objects, applies writes as the API would, and plays nodes and the informer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::Object;
use weft_controllers::write::{
    CONFIG_MAPS, DEPLOYMENTS, LEASES, NAMESPACES, NODES, PODS, Propagation, REPLICA_SETS, SECRETS,
    SERVICES,
};
use weft_controllers::{CONTROLLERS, Change, Cluster, Context, Key, Resource, View, Write};

/// 2026-01-01T00:00:00Z
const START: i64 = 1_767_225_600;

/// Kinds that the server serves.
const SERVED: &[Resource] = &[
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICES,
];

fn empty() -> View {
    View::of(CONTROLLERS.iter().map(|controller| controller.reads))
}

pub struct World {
    seed: u64,
    objects: BTreeMap<(Resource, Key), Value>,
    revision: u64,
    pub now: Timestamp,
    view: View,
    news: VecDeque<Change>,
    queue: BTreeSet<(usize, Key)>,
    later: BTreeMap<(usize, Key), Timestamp>,
    cluster: Cluster,
    /// Whether pods get bound, become ready, and end.
    pub agents: bool,
    /// Pods are refused with this sentence, as admission or a quota would.
    pub refuse_pods: Option<&'static str>,
    /// Why the last attempt at a key was refused.
    failures: BTreeMap<(usize, Key), String>,
    /// Every write that was carried out.
    story: Vec<String>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut view = empty();
        view.set_synced(0);
        Self {
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            objects: BTreeMap::new(),
            revision: 0,
            now: Timestamp::from_second(START).unwrap(),
            view,
            news: VecDeque::new(),
            queue: BTreeSet::new(),
            later: BTreeMap::new(),
            cluster: Cluster {
                ca_pem: "PEM".into(),
                served: SERVED.to_vec(),
            },
            agents: true,
            refuse_pods: None,
            failures: BTreeMap::new(),
            story: Vec::new(),
        }
    }

    /// Starts the controllers as a new leader would.
    pub fn seed_controllers(&mut self) {
        for (index, controller) in CONTROLLERS.iter().enumerate() {
            for key in (controller.seeds)(&self.view) {
                self.queue.insert((index, key));
            }
        }
    }

    /// Another server leads: it knows what is stored, and nothing of what was.
    pub fn change_leader(&mut self) {
        self.view = empty();
        self.news.clear();
        self.queue.clear();
        self.later.clear();
        self.failures.clear();
        for (key, object) in &self.objects {
            let object = Object::from_value(object.clone()).unwrap();
            self.view.apply(Change::Upsert(key.0, object), self.now);
        }
        self.view.set_synced(self.revision);
        self.seed_controllers();
    }

    fn dice(&mut self, sides: usize) -> usize {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        usize::try_from(self.seed % sides.max(1) as u64).unwrap()
    }

    pub fn pass_time(&mut self, seconds: i64) {
        self.now += jiff::SignedDuration::from_secs(seconds);
    }

    /// Three nodes with their leases.
    pub fn create_nodes(&mut self) {
        for node in ["n0", "n1", "n2"] {
            self.create(NODES, node_object(node));
            let lease = json!({"metadata": {"name": node, "namespace": "kube-node-lease"}});
            self.create(LEASES, lease);
        }
    }

    /// Second after second passes, in which these nodes renew their leases and no others.
    pub fn live(&mut self, seconds: usize, nodes: &[&str]) {
        for _ in 0..seconds {
            self.pass_time(1);
            for node in nodes {
                self.patch(
                    LEASES,
                    node,
                    json!({"spec": {"renewTime": self.now.to_string()}}),
                );
            }
            self.settle();
        }
    }

    pub fn get(&self, resource: Resource, name: &str) -> &Value {
        let mut found = self
            .objects
            .iter()
            .filter(|((r, key), _)| *r == resource && key.name == name);
        found.next().map_or(&Value::Null, |(_, value)| value)
    }

    pub fn all(&self, resource: Resource) -> Vec<&Value> {
        let all = self.objects.iter().filter(|((r, _), _)| *r == resource);
        all.map(|(_, value)| value).collect()
    }

    pub fn sum(&self, resource: Resource, pointer: &str) -> i64 {
        let values = self
            .all(resource)
            .into_iter()
            .filter_map(|v| v.pointer(pointer));
        values.filter_map(Value::as_i64).sum()
    }

    /// Pods that are not being deleted.
    pub fn live_pods(&self) -> i64 {
        let live = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        self.all(PODS).into_iter().filter(live).count() as i64
    }

    pub fn available_pods(&self) -> i64 {
        let pods = self.all(PODS).into_iter();
        pods.filter(|pod| {
            pod["metadata"]["deletionTimestamp"].is_null()
                && pod["status"]["conditions"][0]["status"] == "True"
        })
        .count() as i64
    }

    fn key(resource: Resource, namespace: Option<&str>, name: &str) -> (Resource, Key) {
        (resource, Key::new(namespace.unwrap_or(""), name))
    }

    /// A user creates an object.
    pub fn create(&mut self, resource: Resource, object: Value) {
        self.do_create(resource, object).expect("created");
    }

    fn do_create(&mut self, resource: Resource, mut object: Value) -> Result<Change, String> {
        let namespace = object["metadata"]["namespace"].as_str().map(str::to_owned);
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let key = Self::key(resource, namespace.as_deref(), &name);
        if self.objects.contains_key(&key) {
            return Err("AlreadyExists".into());
        }
        object["apiVersion"] = json!(resource.api_version());
        object["kind"] = json!(resource.kind);
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] =
                json!(format!("{}-{name}-{}", resource.kind, self.revision));
        }
        object["metadata"]["generation"] = json!(1);
        if object["metadata"]["creationTimestamp"].is_null() {
            object["metadata"]["creationTimestamp"] = json!(self.now.to_string());
        }
        if resource == PODS && object["status"].is_null() {
            object["status"] =
                json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]});
        }
        if resource == NAMESPACES {
            object["spec"]["finalizers"] = json!(["kubernetes"]);
            object["status"] = json!({"phase": "Active"});
        }
        Ok(self.put(key, object))
    }

    /// Stores an object that the informer does not tell of.
    pub fn store_unseen(&mut self, resource: Resource, object: Value) {
        self.create(resource, object);
        self.news.pop_back();
    }

    fn put(&mut self, key: (Resource, Key), mut object: Value) -> Change {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let change = Change::Upsert(key.0, Object::from_value(object.clone()).unwrap());
        self.objects.insert(key, object);
        self.news.push_back(change.clone());
        change
    }

    fn remove(&mut self, key: &(Resource, Key)) -> Option<Change> {
        let mut object = self.objects.remove(key)?;
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let change = Change::Delete(key.0, Object::from_value(object).unwrap());
        self.news.push_back(change.clone());
        Some(change)
    }

    /// A user or a node patches an object, spec or status.
    pub fn patch(&mut self, resource: Resource, name: &str, patch: Value) {
        let namespace = self.get(resource, name)["metadata"]["namespace"].clone();
        let key = Self::key(resource, namespace.as_str(), name);
        self.do_patch(key, &patch);
    }

    fn do_patch(&mut self, key: (Resource, Key), patch: &Value) -> Option<Change> {
        let old = self.objects.get(&key)?.clone();
        let mut new = old.clone();
        merge(&mut new, patch);
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        if new == old {
            return None;
        }
        if new["spec"] != old["spec"] && !old["metadata"]["generation"].is_null() {
            new["metadata"]["generation"] =
                json!(old["metadata"]["generation"].as_i64().unwrap() + 1);
        }
        let ended =
            !new["metadata"]["deletionTimestamp"].is_null() && unfinished(&key, &new).is_empty();
        if ended && key.0 != PODS {
            return self.remove(&key);
        }
        Some(self.put(key, new))
    }

    pub fn delete(&mut self, resource: Resource, name: &str, propagation: Propagation) {
        let namespace = self.get(resource, name)["metadata"]["namespace"].clone();
        let key = Self::key(resource, namespace.as_str(), name);
        self.do_delete(key, None, propagation);
    }

    fn do_delete(
        &mut self,
        key: (Resource, Key),
        grace: Option<i64>,
        how: Propagation,
    ) -> Option<Change> {
        let mut object = self.objects.get(&key)?.clone();
        let finalizer = match how {
            Propagation::Background => None,
            Propagation::Foreground => Some("foregroundDeletion"),
            Propagation::Orphan => Some("orphan"),
        };
        if let Some(finalizer) = finalizer {
            let mut finalizers = object["metadata"]["finalizers"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            if !finalizers.contains(&json!(finalizer)) {
                finalizers.push(json!(finalizer));
            }
            object["metadata"]["finalizers"] = json!(finalizers);
        }
        let graceful = key.0 == PODS && grace != Some(0) && !object["spec"]["nodeName"].is_null();
        if !graceful && unfinished(&key, &object).is_empty() {
            return self.remove(&key);
        }
        if object["metadata"]["deletionTimestamp"].is_null() {
            let at = self.now + jiff::SignedDuration::from_secs(if graceful { 30 } else { 0 });
            object["metadata"]["deletionTimestamp"] = json!(at.to_string());
            if key.0 == NAMESPACES {
                object["status"]["phase"] = json!("Terminating");
            }
        }
        if Some(&object) == self.objects.get(&key) {
            return None;
        }
        Some(self.put(key, object))
    }

    /// As the API server would: preconditions, subresources, absence.
    fn carry_out(&mut self, write: Write) -> Result<Option<Change>, String> {
        if !matches!(write, Write::ConfirmGone { .. }) {
            self.story.push(render(&write));
        }
        let note = match &write {
            Write::Create { note, .. } | Write::Patch { note, .. } | Write::Delete { note, .. } => {
                note.clone()
            }
            Write::Event(_) | Write::ConfirmGone { .. } => None,
        };
        let outcome = self.answer(write);
        if let (Some(note), Ok(Some(_))) = (note, &outcome) {
            self.story.push(render(&Write::Event(note)));
        }
        outcome
    }

    fn answer(&mut self, write: Write) -> Result<Option<Change>, String> {
        match write {
            Write::Event(_) => Ok(None),
            Write::ConfirmGone {
                resource,
                namespace,
                name,
                uid,
            } => {
                let found = self
                    .objects
                    .get(&Self::key(resource, namespace.as_deref(), &name));
                let it = |found: &Value| uid.is_none_or(|uid| found["metadata"]["uid"] == *uid);
                match found.filter(|found| it(found)) {
                    Some(_) => Err("it is there".into()),
                    None => Ok(None),
                }
            }
            Write::Create {
                resource, object, ..
            } => match self.refuse_pods {
                Some(sentence) if resource == PODS => Err(sentence.to_owned()),
                _ => self.do_create(resource, object.into_value()).map(Some),
            },
            Write::Patch {
                resource,
                namespace,
                name,
                subresource,
                mut patch,
                uid,
                revision,
                ..
            } => {
                let key = Self::key(resource, namespace.as_deref(), &name);
                let Some(old) = self.objects.get(&key) else {
                    return Ok(None);
                };
                if uid.is_some_and(|uid| old["metadata"]["uid"] != *uid) {
                    return Err("uid".into());
                }
                if revision.is_some_and(|r| {
                    old["metadata"]["resourceVersion"].as_str() != Some(r.to_string().as_str())
                }) {
                    return Err("Conflict".into());
                }
                let has_status =
                    [DEPLOYMENTS, REPLICA_SETS, PODS, NODES, NAMESPACES].contains(&resource);
                let members = patch.as_object_mut().unwrap();
                match subresource {
                    Some("status") => members.retain(|key, _| key == "status"),
                    None if has_status => members.retain(|key, _| key != "status"),
                    _ => {}
                }
                Ok(self.do_patch(key, &patch))
            }
            Write::Delete {
                resource,
                namespace,
                name,
                uid,
                grace_seconds,
                propagation,
                ..
            } => {
                let key = Self::key(resource, namespace.as_deref(), &name);
                let Some(old) = self.objects.get(&key) else {
                    return Ok(None);
                };
                if old["metadata"]["uid"] != uid {
                    return Err("uid".into());
                }
                Ok(self.do_delete(key, grace_seconds, propagation))
            }
        }
    }

    fn notice(&mut self, touched: &weft_controllers::Touched) {
        for (index, controller) in CONTROLLERS.iter().enumerate() {
            for key in (controller.keys)(&self.view, touched) {
                self.queue.insert((index, key));
            }
        }
    }

    /// The informer tells the oldest news.
    fn deliver(&mut self) {
        if let Some(change) = self.news.pop_front()
            && let Some(touched) = self.view.apply(change, self.now)
        {
            self.notice(&touched);
        }
    }

    /// One key is looked at; its writes are carried out and their answers folded in.
    fn reconcile_one(&mut self) {
        let at = self.dice(self.queue.len());
        let Some(work) = self.queue.iter().nth(at).cloned() else {
            return;
        };
        self.queue.remove(&work);
        self.later.remove(&work);
        let context = Context {
            now: self.now,
            cluster: &self.cluster,
            last_failure: self.failures.get(&work).map(String::as_str),
        };
        let outcome = (CONTROLLERS[work.0].reconcile)(&self.view, &work.1, &context);
        let again = (CONTROLLERS[work.0].reconcile)(&self.view, &work.1, &context);
        assert_eq!(outcome, again, "the same view gives the same outcome");
        if let Some(delay) = outcome.requeue_after {
            let delay = jiff::SignedDuration::try_from(delay).unwrap();
            self.later.insert(work.clone(), self.now + delay);
        }
        for write in outcome.writes {
            match self.carry_out(write) {
                Ok(Some(change)) => {
                    if let Some(touched) = self.view.fold(change, self.now) {
                        self.notice(&touched);
                    }
                }
                Ok(None) => {}
                Err(message) if self.refuse_pods == Some(message.as_str()) => {
                    let pause = jiff::SignedDuration::from_secs(1);
                    self.later.insert(work.clone(), self.now + pause);
                    self.failures.insert(work, message);
                    return;
                }
                Err(_) => {
                    self.queue.insert(work);
                    return;
                }
            }
        }
        self.failures.remove(&work);
    }

    /// A random pod gets its node, becomes ready, or ends.
    fn agent(&mut self) -> bool {
        if !self.agents {
            return false;
        }
        let mut moves: Vec<(Resource, Key)> = Vec::new();
        for (key, pod) in &self.objects {
            let ready = pod["status"]["conditions"][0]["status"] == "True";
            let ending = !pod["metadata"]["deletionTimestamp"].is_null();
            if key.0 == PODS && (ending || !ready) {
                moves.push(key.clone());
            }
        }
        if moves.is_empty() {
            return false;
        }
        let at = self.dice(moves.len());
        let key = moves.swap_remove(at);
        let pod = self.objects[&key].clone();
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            self.remove(&key);
        } else if pod["spec"]["nodeName"].is_null() {
            let node = format!("n{}", self.dice(3));
            // The node controller removes pods of nodes that do not exist.
            if self.get(NODES, &node).is_null() {
                self.create(NODES, node_object(&node));
            }
            self.do_patch(key, &json!({"spec": {"nodeName": node}}));
        } else {
            let address = format!("10.42.0.{}", self.revision % 250 + 1);
            self.do_patch(key, &json!({"status": {"phase": "Running", "podIP": address, "conditions":
                [{"type": "Ready", "status": "True", "lastTransitionTime": self.now.to_string()}]}}));
        }
        true
    }

    /// Turns of the world, in random order, until nothing is left to do or `turns` are over; `check` after each.
    pub fn run(&mut self, turns: usize, check: impl Fn(&Self)) {
        for _ in 0..turns {
            match self.dice(3) {
                0 => self.deliver(),
                1 => self.reconcile_one(),
                _ => {
                    self.agent();
                }
            }
            check(self);
            if self.news.is_empty() && self.queue.is_empty() && !self.agent() {
                return;
            }
        }
    }

    /// Runs until nothing is left to do now.
    pub fn settle(&mut self) {
        let due: Vec<(usize, Key)> = self
            .later
            .iter()
            .filter(|(_, at)| **at <= self.now)
            .map(|(work, _)| work.clone())
            .collect();
        self.queue.extend(due);
        self.run(200_000, |_| {});
        assert!(
            self.queue.is_empty(),
            "the world does not come to rest: {:?}",
            self.story.iter().rev().take(10).collect::<Vec<_>>()
        );
    }

    /// What was written since the last call, one line each.
    pub fn tell(&mut self) -> String {
        std::mem::take(&mut self.story).join("\n")
    }
}

/// What keeps an object from going.
fn unfinished(key: &(Resource, Key), object: &Value) -> Vec<Value> {
    let pointer = "/metadata/finalizers";
    let mut left = object
        .pointer(pointer)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    if key.0 == NAMESPACES {
        let spec = object
            .pointer("/spec/finalizers")
            .and_then(Value::as_array)
            .cloned();
        left.extend(spec.unwrap_or_default());
    }
    left
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

fn render(write: &Write) -> String {
    let place = |namespace: &Option<String>, name: &str| match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    };
    match write {
        Write::Create {
            resource,
            namespace,
            object,
            ..
        } => {
            format!(
                "create {} {}",
                resource.resource,
                place(namespace, object.name())
            )
        }
        Write::Patch {
            resource,
            namespace,
            name,
            subresource,
            patch,
            ..
        } => {
            let part = subresource
                .map(|part| format!("/{part}"))
                .unwrap_or_default();
            format!(
                "patch {}{part} {} {patch}",
                resource.resource,
                place(namespace, name)
            )
        }
        Write::Delete {
            resource,
            namespace,
            name,
            grace_seconds,
            propagation,
            ..
        } => {
            let grace = if *grace_seconds == Some(0) {
                " now"
            } else {
                ""
            };
            let how = match propagation {
                Propagation::Background => "",
                Propagation::Foreground => " foreground",
                Propagation::Orphan => " orphan",
            };
            format!(
                "delete {} {}{grace}{how}",
                resource.resource,
                place(namespace, name)
            )
        }
        Write::ConfirmGone { name, .. } => format!("confirm that {name} is gone"),
        Write::Event(note) => format!("event {} {}", note.reason, note.message),
    }
}

pub fn node_object(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"podCIDR": "10.42.0.0/24"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

pub fn deployment(name: &str, replicas: i64, image: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": image}]},
            },
        },
    })
}
