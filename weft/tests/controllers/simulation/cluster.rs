//! What all of a world act on: the real verbs over a real store of one server, a clock that is handed in, and the record of what was
//! stored. Whoever acts does so here, one after the other, and what comes of it is judged at once.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use weft::control_loop::recorder::{Handle, Telling};
use weft_api::{Object, StatusError};
use weft_apiserver::caller::Caller;
use weft_apiserver::informer::{Change as News, Informer};
use weft_apiserver::objects::{
    self, DeleteOptions, Deleted, Evicted, Objects, Patch, Propagation, WriteOptions,
};
use weft_apiserver::request::ObjectRef;
use weft_apiserver::stored;
use weft_controllers::{Calls, Key};
use weft_kinds::patch::PatchKind;
use weft_kinds::{KindRef, POD, Registries, Subresource};
use weft_store::{Mutation, Precondition, Revision, Store, Term};

use super::faults::Faults;
use super::record::{Doer, Record};
use crate::world::folder;

/// 2026-01-01T00:00:00Z, in milliseconds.
const START: i64 = 1_767_225_600_000;
/// Notes of one write that are waited for; more than a write ever tells.
const NOTES_MAX: usize = 1024;
/// What of a story is told of a world that failed.
const STORY_MAX: usize = 60;

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(START) };
    static UIDS: Cell<u64> = const { Cell::new(0) };
}

fn clock() -> Timestamp {
    Timestamp::from_millisecond(NOW.get()).unwrap()
}

fn new_uid() -> String {
    UIDS.set(UIDS.get() + 1);
    format!("00000000-0000-4000-8000-{:012}", UIDS.get())
}

fn told_by_now(objects: &Objects, runtime: &Runtime, informer: &mut Informer) -> Vec<News> {
    let store = objects.store();
    let revision = store.snapshot().revision();
    let mut dispatched = store.dispatched();
    let dispatched = dispatched.wait_for(|dispatched| *dispatched >= revision);
    runtime.block_on(dispatched).unwrap();
    let _inside = runtime.enter();
    let mut told = Vec::new();
    while let Some(news) = informer.next().now_or_never() {
        told.push(news.expect("the store is open"));
    }
    told
}

pub struct Cluster {
    pub objects: Objects,
    pub registries: Registries,
    pub record: Record,
    pub faults: Faults,
    /// The first rule that was broken, and how.
    pub broken: Option<String>,
    pub term: Term,
    /// What was counted of calls, as it was last read; nothing in worlds without callers.
    pub calls: Calls,
    runtime: Runtime,
    admin: Caller,
    informer: Informer,
    begun: Instant,
    notes: mpsc::Receiver<Telling>,
    sender: mpsc::Sender<Telling>,
    story: VecDeque<String>,
    /// Of the whole story.
    pub digest: u64,
    is_loud: bool,
    /// What is told is a list of what is there, not news.
    is_listing: bool,
    // After the store that is in it.
    _dir: tempfile::TempDir,
}

impl Cluster {
    pub fn new(faults: Faults, is_loud: bool) -> Self {
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
        let mut cluster = Self {
            informer: objects.informer(|_| true),
            objects,
            registries,
            record: Record::default(),
            faults,
            broken: None,
            term,
            calls: Calls::default(),
            runtime,
            admin,
            begun: Instant::now(),
            notes,
            sender,
            story: VecDeque::new(),
            digest: 0,
            is_loud,
            is_listing: false,
            _dir: dir,
        };
        cluster.absorb(Doer::User);
        cluster
    }

    /// The kinds of the Gateway API are there, as in every cluster; most worlds do without, for the time that it takes.
    pub fn define_gateway_api(&mut self) {
        let admin = self.admin.clone();
        let defined = self.carry(Doer::User, async |objects| {
            objects.ensure_gateway_api(&admin).await
        });
        defined.unwrap();
    }

    pub fn now(&self) -> Timestamp {
        clock()
    }

    /// Milliseconds since the world began.
    pub fn millis(&self) -> i64 {
        NOW.get() - START
    }

    /// The same, as queues count it.
    pub fn instant(&self) -> Instant {
        self.begun + Duration::from_millis(u64::try_from(self.millis()).unwrap())
    }

    pub fn pass(&mut self, millis: i64) {
        NOW.set(NOW.get() + millis);
    }

    pub fn handle(&self, component: &'static str) -> Handle {
        Handle::new(component, self.sender.clone())
    }

    /// A line of the story.
    pub fn tell(&mut self, line: &str) {
        let millis = self.millis();
        let line = format!("{:>4}.{:03} {line}", millis / 1000, millis % 1000);
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.is_loud {
            println!("{line}");
        }
        if self.story.len() == STORY_MAX {
            self.story.pop_front();
        }
        self.story.push_back(line);
    }

    /// What happened last.
    pub fn story(&self) -> String {
        self.story.iter().fold(String::new(), |mut all, line| {
            let _ = writeln!(all, "{line}");
            all
        })
    }

    /// Breaks a rule.
    pub fn breaks(&mut self, how: String) {
        if self.broken.is_none() {
            self.tell(&format!("BROKEN {how}"));
            self.broken = Some(how);
        }
    }

    /// Drives what somebody does to its end, and takes what came of it.
    pub fn carry<T>(&mut self, doer: Doer, what: impl AsyncFnOnce(&Objects) -> T) -> T {
        let objects = self.objects.clone();
        let done = self.runtime.block_on(what(&objects));
        while self.notes.try_recv().is_ok() {}
        self.absorb(doer);
        done
    }

    pub fn revision(&self) -> Revision {
        self.objects.store().snapshot().revision()
    }

    /// Takes what an informer has to tell by now.
    pub fn listen(&self, informer: &mut Informer) -> Vec<News> {
        told_by_now(&self.objects, &self.runtime, informer)
    }

    fn absorb(&mut self, doer: Doer) {
        for news in told_by_now(&self.objects, &self.runtime, &mut self.informer) {
            let (kind, object, gone) = match news {
                News::Reset => {
                    self.is_listing = true;
                    continue;
                }
                News::Synced { .. } => {
                    self.is_listing = false;
                    continue;
                }
                News::Upsert { kind, object } => (kind, object, false),
                News::Delete { kind, object } => (kind, object, true),
            };
            let key = Key::new(object.namespace().unwrap_or(""), object.name());
            let value = (!gone).then(|| object.into_value());
            let held = self.record.apply(doer, &kind.kind, &key, value);
            // What was there before the world began is in no order.
            if let Err(how) = held
                && !self.is_listing
            {
                self.breaks(how);
            }
        }
    }

    pub fn create(&mut self, kind: KindRef<'_>, mut object: Value) -> Result<Object, StatusError> {
        object["apiVersion"] = json!(kind.api_version());
        object["kind"] = json!(&*kind.kind);
        let object = Object::from_value(object).unwrap();
        let namespace = object.namespace().map(str::to_owned);
        let admin = self.admin.clone();
        self.carry(Doer::User, async |objects| {
            let options = WriteOptions::default();
            let client = objects.client(&admin);
            let created = client.create(kind, namespace.as_deref(), object, &options);
            created.await
        })
    }

    /// A merge patch of the object itself.
    pub fn patch(&mut self, kind: KindRef<'_>, key: &Key, body: &Value) -> Result<(), StatusError> {
        let patch = Patch::merge(body);
        self.patch_part(Doer::User, kind, key, None, patch)
    }

    /// What a node says of an object: conditions of others stay.
    pub fn report(
        &mut self,
        kind: KindRef<'_>,
        key: &Key,
        status: &Value,
    ) -> Result<(), StatusError> {
        let patch = Patch {
            kind: PatchKind::Strategic,
            body: status,
        };
        self.patch_part(Doer::Node, kind, key, Some(Subresource::Status), patch)
    }

    pub fn patch_part(
        &mut self,
        doer: Doer,
        kind: KindRef<'_>,
        key: &Key,
        part: Option<Subresource>,
        patch: Patch<'_>,
    ) -> Result<(), StatusError> {
        let admin = self.admin.clone();
        self.carry(doer, async |objects| {
            let options = WriteOptions::default();
            let object = ObjectRef::new(kind, key.scope(), &key.name);
            let client = objects.client(&admin);
            client.patch(object, part, patch, &options).await.map(drop)
        })
    }

    pub fn delete(
        &mut self,
        doer: Doer,
        kind: KindRef<'_>,
        key: &Key,
        options: &DeleteOptions,
    ) -> Result<Deleted, StatusError> {
        let admin = self.admin.clone();
        self.carry(doer, async |objects| {
            let client = objects.client(&admin);
            client.delete(kind, key.scope(), &key.name, options).await
        })
    }

    pub fn delete_with(
        &mut self,
        kind: KindRef<'_>,
        key: &Key,
        propagation: Propagation,
    ) -> Result<Deleted, StatusError> {
        let options = DeleteOptions {
            propagation: Some(propagation),
            ..DeleteOptions::default()
        };
        self.delete(Doer::User, kind, key, &options)
    }

    pub fn evict(&mut self, key: &Key) -> Result<(), StatusError> {
        let admin = self.admin.clone();
        let evicted = self.carry(Doer::Eviction, async |objects| {
            let options = DeleteOptions::default();
            let client = objects.client(&admin);
            client.evict(&key.namespace, &key.name, &options).await
        });
        match evicted? {
            Evicted::Deleted(_) => Ok(()),
            Evicted::Refused(error) => Err(error),
        }
    }

    /// Writes a pod past every check, as a bug would.
    pub fn corrupt_pod(&mut self, doer: Doer, key: &Key, pod: &Value) {
        let put = Mutation::put(
            stored::key(&POD, key.scope(), &key.name),
            Precondition::None,
            stored::encode(pod).unwrap(),
        );
        self.carry(doer, async |objects| {
            objects.store().write(vec![put], None).await.unwrap();
        });
    }
}
