//! A cluster without clock or network: the real object verbs over a store in memory, the controllers, and what plays nodes,
//! users and the informer's delay.
//!
//! Writes go through `weft::control_loop::execute`, so the server judges each as it would; what it stores comes back by its own
//! informer, and reaches the view when the dice say so. Time stands still unless a test lets it pass; uids are counted;
//! `WEFT_SEED` replays one world.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use futures::FutureExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use weft::control_loop::execute::execute;
use weft::control_loop::recorder::{Handle, Telling};
use weft_api::{Object, StatusError};
use weft_apiserver::caller::Caller;
use weft_apiserver::informer::{Change as News, Informer};
use weft_apiserver::objects::{
    self, Binding, DeleteOptions, Deleted, Evicted, Objects, Patch, WriteOptions,
};
use weft_apiserver::request::ObjectRef;
use weft_apiserver::stored;
use weft_controllers::write::Propagation;
use weft_controllers::{
    CONTROLLERS, Calls, Change, Cluster, Context, Key, Past, Touched, Usage, View, Write,
};
use weft_kinds::{Kind, KindRef, LEASE, NODE, POD, Registries, Subresource};
use weft_store::{Mutation, Precondition, Store, Term};

use crate::manifests::node_object;

/// 2026-01-01T00:00:00Z
const START: i64 = 1_767_225_600;
/// Where a pod says that it is for one node.
pub const PINNED: &str = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0\
                          /matchFields/0/values/0";
/// Notes of one write that are waited for; more than a write ever tells.
const NOTES_MAX: usize = 64;
/// Seconds in which definitions are tended to the end.
const ROUNDS_MAX: usize = 16;

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(START) };
    static UIDS: Cell<u64> = const { Cell::new(0) };
}

fn clock() -> Timestamp {
    Timestamp::from_second(NOW.get()).unwrap()
}

fn new_uid() -> String {
    UIDS.set(UIDS.get() + 1);
    format!("00000000-0000-4000-8000-{:012}", UIDS.get())
}

fn empty() -> View {
    View::new(CONTROLLERS.iter().map(|controller| controller.reads))
}

/// A controller's place in the list, and one of its keys.
type Work = (usize, Key);

pub struct World {
    seed: u64,
    runtime: Runtime,
    objects: Objects,
    pub registries: Registries,
    admin: Caller,
    term: Term,
    /// Everything that is stored, as the informer tells it.
    stored: BTreeMap<(Arc<Kind>, Key), Value>,
    informer: Informer,
    /// What the informer told and the view does not know yet.
    news: VecDeque<Change>,
    pub now: Timestamp,
    view: View,
    queue: BTreeSet<Work>,
    later: BTreeMap<Work, Timestamp>,
    cluster: Cluster,
    /// Whether pods get bound, become ready, and end.
    pub agents: bool,
    /// Why the last attempt at a key was refused.
    failures: BTreeMap<Work, String>,
    /// What the last look at a key left for the next one.
    pasts: BTreeMap<Work, Past>,
    /// What pods use.
    pub usage: Usage,
    /// What is counted of calls.
    pub calls: Calls,
    notes: mpsc::Receiver<Telling>,
    sender: mpsc::Sender<Telling>,
    /// Every write that was carried out, and every note.
    story: Vec<String>,
    // After the store that is in it.
    _dir: tempfile::TempDir,
}

/// A folder in memory, where the machine has such.
pub fn folder() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.or_else(|_| tempfile::tempdir()).unwrap()
}

impl World {
    /// A cluster whose namespaces have what belongs into them.
    pub fn new(seed: u64) -> Self {
        NOW.set(START);
        UIDS.set(0);
        let dir = folder();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let registries = Registries::default();
        let config = objects::Config {
            clock,
            new_uid,
            registries: registries.clone(),
            ..objects::Config::default()
        };
        let admin = Caller::system("test", None);
        let (objects, term) = runtime.block_on(async {
            let config_of_store = weft_store::Config::new(dir.path().join("store"));
            let store = Store::open(config_of_store).await.unwrap();
            let mut leadership = store.leadership();
            let term = leadership.wait_for(Option::is_some).await.unwrap().unwrap();
            let objects = Objects::new(store, config);
            objects.ensure_permanent_namespaces(&admin).await.unwrap();
            (objects, term)
        });
        let (sender, notes) = mpsc::channel(NOTES_MAX);
        let mut world = Self {
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            informer: objects.informer(|_| true),
            runtime,
            objects,
            registries,
            admin,
            term,
            stored: BTreeMap::new(),
            news: VecDeque::new(),
            now: clock(),
            view: empty(),
            queue: BTreeSet::new(),
            later: BTreeMap::new(),
            cluster: Cluster {
                ca_pem: "PEM".into(),
            },
            agents: false,
            failures: BTreeMap::new(),
            pasts: BTreeMap::new(),
            usage: Usage::new(),
            calls: Calls::default(),
            notes,
            sender,
            story: Vec::new(),
            _dir: dir,
        };
        world.change_leader();
        world.settle();
        world.tell();
        world.agents = true;
        world
    }

    /// One whose nodes do nothing by themselves.
    pub fn still() -> Self {
        let mut world = Self::new(1);
        world.agents = false;
        world
    }

    /// All controllers look at everything, as under a new leader.
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
        self.pasts.clear();
        self.stored.clear();
        self.informer = self.objects.informer(|_| true);
        self.listen();
        while let Some(change) = self.news.pop_front() {
            self.view.apply(change, self.now);
        }
        self.view
            .set_synced(self.objects.store().snapshot().revision());
        self.seed_controllers();
    }

    /// Takes what the informer has to tell by now.
    fn listen(&mut self) {
        let store = self.objects.store();
        let revision = store.snapshot().revision();
        let mut dispatched = store.dispatched();
        let dispatched = dispatched.wait_for(|dispatched| *dispatched >= revision);
        self.runtime.block_on(dispatched).unwrap();
        let _inside = self.runtime.enter();
        while let Some(news) = self.informer.next().now_or_never() {
            let (kind, object, gone) = match news.expect("the store is open") {
                News::Reset | News::Synced { .. } => continue,
                News::Upsert { kind, object } => (kind, object, false),
                News::Delete { kind, object } => (kind, object, true),
            };
            let key = (
                Arc::clone(&kind),
                Key::new(object.namespace().unwrap_or(""), object.name()),
            );
            if gone {
                self.stored.remove(&key);
                self.news.push_back(Change::Delete(kind, object));
            } else {
                self.stored.insert(key, object.as_value().clone());
                self.news.push_back(Change::Upsert(kind, object));
            }
        }
    }

    fn dice(&mut self, sides: usize) -> usize {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        usize::try_from(self.seed % sides.max(1) as u64).unwrap()
    }

    pub fn pass_time(&mut self, seconds: i64) {
        NOW.set(NOW.get() + seconds);
        self.now = clock();
    }

    /// Three nodes with their leases.
    pub fn create_nodes(&mut self) {
        for node in ["n0", "n1", "n2"] {
            self.create(&NODE, node_object(node));
            let lease = json!({"metadata": {"name": node, "namespace": "kube-node-lease"}});
            self.create(&LEASE, lease);
        }
    }

    /// Second after second passes, in which these nodes renew their leases and no others.
    pub fn live(&mut self, seconds: usize, nodes: &[&str]) {
        for _ in 0..seconds {
            self.pass_time(1);
            for node in nodes {
                self.renew_lease(node);
            }
            self.settle();
        }
    }

    pub fn renew_lease(&mut self, node: &str) {
        let time = format!("{}.000000Z", self.now.strftime("%Y-%m-%dT%H:%M:%S"));
        self.patch(&LEASE, node, json!({"spec": {"renewTime": time}}));
    }

    pub fn get(&self, kind: KindRef<'_>, name: &str) -> &Value {
        let key = self.find(kind, name);
        key.map_or(&Value::Null, |key| &self.stored[&key])
    }

    fn find(&self, kind: KindRef<'_>, name: &str) -> Option<(Arc<Kind>, Key)> {
        let keys = self.stored.range((Arc::clone(kind), Key::cluster(""))..);
        let mut found = keys
            .take_while(|((of, _), _)| of == kind)
            .filter(|((_, key), _)| &*key.name == name);
        found.next().map(|(key, _)| key.clone())
    }

    pub fn all(&self, kind: KindRef<'_>) -> Vec<&Value> {
        let all = self.stored.range((Arc::clone(kind), Key::cluster(""))..);
        let all = all.take_while(|((of, _), _)| of == kind);
        all.map(|(_, value)| value).collect()
    }

    pub fn names(&self, kind: KindRef<'_>) -> Vec<String> {
        let all = self.all(kind).into_iter();
        all.map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    pub fn sum(&self, kind: KindRef<'_>, pointer: &str) -> i64 {
        let values = self
            .all(kind)
            .into_iter()
            .filter_map(|v| v.pointer(pointer));
        values.filter_map(Value::as_i64).sum()
    }

    /// Pods that are not being deleted.
    pub fn live_pods(&self) -> i64 {
        let live = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        self.all(&POD).into_iter().filter(live).count() as i64
    }

    pub fn available_pods(&self) -> i64 {
        let pods = self.all(&POD).into_iter();
        pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null() && is_ready(pod))
            .count() as i64
    }

    /// The kind as it is served: of a custom kind, with what its definition says.
    fn served(&self, kind: KindRef<'_>) -> Arc<Kind> {
        let registry = self.objects.registry();
        let served = registry.by_resource(&kind.group, &kind.version, &kind.resource);
        Arc::clone(served.unwrap_or(kind))
    }

    /// A user creates an object; its status is written as its owner would, and it is as the server has made it.
    pub fn create(&mut self, kind: KindRef<'_>, mut object: Value) -> Value {
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(&*kind.kind);
        let status = object["status"].take();
        let object = Object::from_value(object).unwrap();
        let namespace = object.namespace().map(str::to_owned);
        let name = object.name().to_owned();
        let options = WriteOptions::default();
        let kind = &self.served(kind);
        let client = self.objects.client(&self.admin);
        let created = client.create(kind, namespace.as_deref(), object, &options);
        let created = self.runtime.block_on(created).unwrap();
        self.listen();
        if status.is_null() {
            return created.into_value();
        }
        let key = Key::new(namespace.as_deref().unwrap_or(""), &name);
        let patched = self.patch_part(
            kind,
            &key,
            Some(Subresource::Status),
            json!({"status": status}),
        );
        patched.unwrap().into_value()
    }

    /// Stores an object that the informer does not tell of.
    pub fn create_unseen(&mut self, kind: KindRef<'_>, object: Value) -> Value {
        let created = self.create(kind, object);
        self.news.pop_back();
        created
    }

    /// A user or a node patches an object, spec and status apart.
    pub fn patch(&mut self, kind: KindRef<'_>, name: &str, mut patch: Value) {
        let (_, key) = self.find(kind, name).unwrap();
        let status = patch
            .as_object_mut()
            .and_then(|patch| patch.remove("status"));
        if patch != json!({}) {
            self.patch_part(kind, &key, None, patch).unwrap();
        }
        if let Some(status) = status {
            let patch = json!({ "status": status });
            let part = Some(Subresource::Status);
            self.patch_part(kind, &key, part, patch).unwrap();
        }
    }

    /// A patch that the informer does not tell of.
    pub fn patch_unseen(&mut self, kind: KindRef<'_>, name: &str, patch: Value) {
        self.patch(kind, name, patch);
        self.news.pop_back();
    }

    fn patch_part(
        &mut self,
        kind: KindRef<'_>,
        key: &Key,
        part: Option<Subresource>,
        patch: Value,
    ) -> Result<Object, StatusError> {
        let options = WriteOptions::default();
        let kind = &self.served(kind);
        let object = ObjectRef::new(kind, key.scope(), &key.name);
        let client = self.objects.client(&self.admin);
        let patched = client.patch(object, part, Patch::merge(&patch), &options);
        let patched = self.runtime.block_on(patched);
        self.listen();
        patched
    }

    /// Writes past every check, as another version or a bug would have.
    pub fn corrupt(&mut self, kind: KindRef<'_>, name: &str, patch: &Value) {
        let (_, key) = self.find(kind, name).unwrap();
        let mut value = self.stored[&(Arc::clone(kind), key.clone())].clone();
        merge(&mut value, patch);
        let put = Mutation::put(
            stored::key(kind, key.scope(), &key.name),
            Precondition::None,
            stored::encode(&value).unwrap(),
        );
        let written = self.objects.store().write(vec![put], None);
        self.runtime.block_on(written).unwrap();
        self.listen();
    }

    pub fn delete(&mut self, kind: KindRef<'_>, name: &str, propagation: Propagation) {
        let (_, key) = self.find(kind, name).unwrap();
        let propagation = match propagation {
            Propagation::Background => objects::Propagation::Background,
            Propagation::Foreground => objects::Propagation::Foreground,
            Propagation::Orphan => objects::Propagation::Orphan,
        };
        let options = DeleteOptions {
            propagation: Some(propagation),
            ..DeleteOptions::default()
        };
        self.delete_with(kind, &key, &options);
    }

    /// Somebody who empties a node asks for a pod to go.
    pub fn evict(&mut self, name: &str) -> Result<(), StatusError> {
        let (_, key) = self.find(&POD, name).unwrap();
        let client = self.objects.client(&self.admin);
        let options = DeleteOptions::default();
        let evicted = client.evict(&key.namespace, &key.name, &options);
        let evicted = self.runtime.block_on(evicted);
        self.listen();
        match evicted? {
            Evicted::Deleted(_) => Ok(()),
            Evicted::Refused(error) => Err(error),
        }
    }

    fn delete_with(&mut self, kind: KindRef<'_>, key: &Key, options: &DeleteOptions) -> Deleted {
        let kind = &self.served(kind);
        let client = self.objects.client(&self.admin);
        let deleted = client.delete(kind, key.scope(), &key.name, options);
        let deleted = self.runtime.block_on(deleted).unwrap();
        self.listen();
        deleted
    }

    /// The kinds of the Gateway API are there, as in every cluster; most tests do without, for the time that it takes.
    pub fn define_gateway_api(&mut self) {
        let defined = self.objects.ensure_gateway_api(&self.admin);
        self.runtime.block_on(defined).unwrap();
        self.listen();
        self.settle();
    }

    /// The leader does about definitions what there is to do.
    pub fn tend_definitions(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let tended = self.objects.tend_definitions_once(&self.admin);
            if !self.runtime.block_on(tended) {
                return self.listen();
            }
            // A definition outlives its objects for a moment.
            self.pass_time(1);
        }
        panic!("definitions are never tended to the end");
    }

    fn notice(&mut self, touched: &Touched) {
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
        let kinds = self.registries.current();
        let nothing = Past::default();
        let context = Context {
            now: self.now,
            cluster: &self.cluster,
            kinds: &kinds,
            last_failure: self.failures.get(&work).map(String::as_str),
            usage: Some(&self.usage),
            calls: Some(&self.calls),
            past: self.pasts.get(&work).unwrap_or(&nothing),
        };
        let controller = &CONTROLLERS[work.0];
        let outcome = (controller.reconcile)(&self.view, &work.1, &context);
        let again = (controller.reconcile)(&self.view, &work.1, &context);
        assert_eq!(outcome, again, "the same view gives the same outcome");
        if let Some(delay) = outcome.requeue_after {
            self.look_later(work.clone(), delay);
        }
        let caller = Caller::system(controller.name, Some(self.term));
        let handle = Handle::new(controller.name, self.sender.clone());
        for write in outcome.writes {
            if !matches!(write, Write::ConfirmGone { .. } | Write::Event(_)) {
                self.story.push(render(&write));
            }
            let executed = execute(&self.objects, &caller, &handle, vec![write]);
            let executed = self.runtime.block_on(executed);
            while let Ok(Telling { note, .. }) = self.notes.try_recv() {
                self.story
                    .push(format!("event {} {}", note.reason, note.message));
            }
            self.listen();
            for change in executed.changes {
                if let Some(touched) = self.view.fold(change, self.now) {
                    self.notice(&touched);
                }
            }
            match executed.failure {
                None => {}
                // Somebody else was faster: what the informer has still to tell is a reason to try again.
                Some(failure) if failure.expected && !self.news.is_empty() => {
                    self.queue.insert(work);
                    return;
                }
                Some(failure) => {
                    if !failure.expected {
                        self.failures.insert(work.clone(), failure.message);
                    }
                    self.look_later(work, std::time::Duration::from_secs(1));
                    return;
                }
            }
        }
        self.failures.remove(&work);
        if let Some(past) = outcome.past {
            self.pasts.insert(work, past);
        }
    }

    fn look_later(&mut self, work: Work, delay: std::time::Duration) {
        let delay = jiff::SignedDuration::try_from(delay).unwrap();
        self.later.insert(work, self.now + delay);
    }

    /// A random pod gets its node, becomes ready, or ends. False: there is none that could.
    fn play_agent(&mut self) -> bool {
        if !self.agents {
            return false;
        }
        let pods = self.stored.range((Arc::clone(&POD), Key::cluster(""))..);
        // What has ended is left alone, and what was let go of waits for others.
        let moves = |pod: &Value| match pod["metadata"]["deletionTimestamp"].is_null() {
            true => !is_ready(pod) && !is_finished(pod),
            false => pod["metadata"]["deletionGracePeriodSeconds"] != 0 || !is_finished(pod),
        };
        let mut moves: Vec<Key> = pods
            .take_while(|((kind, _), _)| *kind == *POD)
            .filter(|(_, pod)| moves(pod))
            .map(|((_, key), _)| key.clone())
            .collect();
        if moves.is_empty() {
            return false;
        }
        let at = self.dice(moves.len());
        let key = moves.swap_remove(at);
        let pod = &self.stored[&(Arc::clone(&POD), key.clone())];
        let is_ending = !pod["metadata"]["deletionTimestamp"].is_null();
        if is_ending {
            if !is_finished(pod) && !pod["metadata"]["finalizers"].is_null() {
                // How it ended is told before it goes.
                let status = json!({"status": {"phase": "Failed", "conditions": [
                    {"type": "Ready", "status": "False", "lastTransitionTime": self.now.to_string()}]}});
                let part = Some(Subresource::Status);
                self.patch_part(&POD, &key, part, status).unwrap();
            }
            let options = DeleteOptions {
                grace_period_seconds: Some(0),
                ..DeleteOptions::default()
            };
            self.delete_with(&POD, &key, &options);
        } else if pod["spec"]["nodeName"].is_null() {
            let pinned = pod
                .pointer(PINNED)
                .and_then(Value::as_str)
                .map(str::to_owned);
            let node = pinned.unwrap_or_else(|| format!("n{}", self.dice(3)));
            // The node controller removes pods of nodes that do not exist.
            if self.get(&NODE, &node).is_null() {
                self.create(&NODE, node_object(&node));
            }
            self.bind(&key, &node);
        } else {
            let number = self.objects.store().snapshot().revision();
            let address = format!("10.42.{}.{}", number / 250 % 250, number % 250 + 1);
            let status = json!({"status": {"phase": "Running", "podIP": address,
                "startTime": self.now.to_string(), "podIPs": [{"ip": address}], "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": self.now.to_string()}]}});
            let part = Some(Subresource::Status);
            self.patch_part(&POD, &key, part, status).unwrap();
        }
        true
    }

    fn bind(&mut self, key: &Key, node: &str) {
        let binding = Binding {
            pod: &key.name,
            node,
            uid: "",
            resource_version: "",
        };
        let options = WriteOptions::default();
        let client = self.objects.client(&self.admin);
        let bound = client.bind(&key.namespace, binding, &options);
        self.runtime.block_on(bound).unwrap();
        self.listen();
    }

    /// Turns of the world, in random order, until nothing is left to do or `turns` are over; `check` after each.
    pub fn run(&mut self, turns: usize, check: impl Fn(&Self)) {
        for _ in 0..turns {
            match self.dice(3) {
                0 => self.deliver(),
                1 => self.reconcile_one(),
                _ => {
                    self.play_agent();
                }
            }
            check(self);
            if self.news.is_empty() && self.queue.is_empty() && !self.play_agent() {
                return;
            }
        }
    }

    /// Runs until nothing is left to do now.
    pub fn settle(&mut self) {
        let due: Vec<Work> = self
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

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn is_finished(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    )
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
    match write {
        Write::Create { kind, key, .. } => format!("create {} {key}", kind.resource),
        Write::Patch {
            kind,
            key,
            subresource,
            patch,
            ..
        } => {
            let part = subresource.map(|part| format!("/{}", part.name()));
            let part = part.unwrap_or_default();
            format!("patch {}{part} {key} {patch}", kind.resource)
        }
        Write::Delete {
            kind,
            key,
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
            format!("delete {} {key}{grace}{how}", kind.resource)
        }
        Write::ConfirmGone { key, .. } => format!("confirm that {key} is gone"),
        Write::Event(note) => format!("event {} {}", note.reason, note.message),
    }
}
