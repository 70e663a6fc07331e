//! Servers, a network and a clock, all in one thread.
//!
//! Each server has a runtime of its own with a clock of its own, which stands still unless the world lets it run: a
//! millisecond at a time, one server after the other. A crash drops the runtime and with it everything the process held;
//! a pause lets the others' time pass.
//!
//! Equal seeds give equal worlds, message for message.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::client::{self, Place};
use super::disk::SimDisk;
use super::history::{History, SharedHistory, seen};
use super::net::{Net, SharedNet, SimNetwork};
use super::random::{Random, mix};
use super::runtime;
use crate::error::{MemberError, OpenError};
use crate::key::ServerId;
use crate::message::WIRE;
use crate::{Config, Start, Store};

/// Clients of each server.
const CLIENTS: u64 = 2;

/// Watch events kept: more than any world has.
const HISTORY_EVENTS: usize = 100_000;

/// Entries a world keeps in its logs: few, so that whoever was away for a second needs a snapshot.
const LOG_ENTRIES_KEPT: usize = 24;

const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(300);

/// What became of an administrator's request.
pub(crate) type Administered = Arc<Mutex<Option<Result<ServerId, MemberError>>>>;

type Opened = Arc<Mutex<Option<Result<Store, OpenError>>>>;

/// A server that runs.
struct Process {
    runtime: tokio::runtime::Runtime,
    opened: Opened,
    failed: Arc<Mutex<Option<String>>>,
}

/// A machine that may run a server.
pub(crate) struct Host {
    id: ServerId,
    disk: SimDisk,
    process: Option<Process>,
    /// openraft's stream of random numbers.
    stream: u64,
    /// Not run before this time.
    pub(crate) paused_until: u64,
    /// How far its clock is behind the world's.
    behind: u64,
    places: [Arc<Mutex<Place>>; 2],
    starts: u64,
}

/// A cluster under test.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) now: u64,
    pub(crate) net: SharedNet,
    pub(crate) hosts: BTreeMap<ServerId, Host>,
    pub(crate) history: SharedHistory,
    pub(crate) random: Random,
    clients: bool,
    /// The version that servers speak, and those that speak the newest one whatever the others do.
    wire: u8,
    pub(crate) newer: BTreeSet<ServerId>,
    /// The number that the next server is expected to get, which is its address.
    next: ServerId,
}

impl World {
    /// One server that leads, and as many more as asked for, promoted.
    pub(crate) fn new(seed: u64, servers: u64) -> World {
        World::of_version(seed, servers, WIRE)
    }

    /// The same, of servers that speak an older version.
    pub(crate) fn of_version(seed: u64, servers: u64, wire: u8) -> World {
        let mut world = World {
            seed,
            now: 0,
            net: Net::new(seed),
            hosts: BTreeMap::new(),
            history: Arc::default(),
            random: Random::new(seed, 0),
            clients: true,
            wire,
            newer: BTreeSet::new(),
            next: 2,
        };
        world.add_host(1, Start::Alone);
        for _ in 1..servers {
            world.grow();
        }
        world
    }

    pub(crate) fn next_address(&self) -> ServerId {
        self.next
    }

    /// The address may belong to a server that nobody started.
    pub(crate) fn skip_address(&mut self) {
        self.next += 1;
    }

    pub(crate) fn add_learner(&mut self, id: ServerId) {
        self.next = self.next.max(id + 1);
        self.add_host(id, Start::Joining);
    }

    /// The members as a server has applied them.
    pub(crate) fn members_of(&self, id: ServerId) -> Option<Vec<ServerId>> {
        let store = self.hosts.get(&id)?.store()?;
        let members = store.members();
        Some(members.iter().map(|member| member.server).collect())
    }

    /// Adds a server the way an operator does.
    fn grow(&mut self) {
        let next = self.next;
        let added = self.administer(move |store| {
            Box::pin(async move { store.add_learner(next.to_string()).await })
        });
        let Some(Ok(server)) = added else {
            let text = format!("a healthy cluster took no learner: {added:?}");
            return self.history.lock().violation(text);
        };
        self.add_learner(server);
        let promoted = self.administer(move |store| {
            Box::pin(async move { store.promote(server).await.map(|()| server) })
        });
        if !matches!(promoted, Some(Ok(_))) {
            let text = format!("a healthy cluster did not promote {server}: {promoted:?}");
            self.history.lock().violation(text);
        }
    }

    /// Has an operator ask a server that answers, and waits for a while.
    pub(crate) fn administer<F>(&mut self, ask: F) -> Option<Result<ServerId, MemberError>>
    where
        F: FnOnce(Store) -> futures::future::BoxFuture<'static, Result<ServerId, MemberError>>
            + Send
            + 'static,
    {
        let mut waited = 0;
        let (store, host) = loop {
            let leads = |store: &Store| store.leadership().borrow().is_some();
            let running = self.hosts.values().filter_map(|host| {
                let store = host.store()?;
                (host.paused_until <= self.now).then_some((store, host.id))
            });
            let mut stores: Vec<_> = running.collect();
            stores.sort_by_key(|(store, _)| !leads(store));
            match stores.into_iter().next() {
                Some(found) => break found,
                None if waited > 10_000 => return None,
                None => {
                    self.run(20);
                    waited += 20;
                }
            }
        };
        let result: Administered = Arc::default();
        let process = self.hosts.get(&host)?.process.as_ref()?;
        process.runtime.spawn({
            let result = Arc::clone(&result);
            async move {
                let answer = ask(store).await;
                *result.lock() = Some(answer);
            }
        });
        for _ in 0..1500 {
            self.run(10);
            if let Some(result) = result.lock().take() {
                return Some(result);
            }
        }
        None
    }

    fn add_host(&mut self, id: ServerId, start: Start) {
        let host = Host {
            id,
            disk: SimDisk::new(self.seed, 1000 + id),
            process: None,
            stream: mix(self.seed ^ (id << 20)),
            paused_until: 0,
            behind: 0,
            places: Default::default(),
            starts: 0,
        };
        self.hosts.insert(id, host);
        self.start_as(id, start);
    }

    pub(crate) fn start(&mut self, id: ServerId) {
        self.start_as(id, Start::Joining);
    }

    fn start_as(&mut self, id: ServerId, start: Start) {
        let Some(host) = self.hosts.get_mut(&id) else {
            return;
        };
        if host.process.is_some() {
            return;
        }
        host.starts += 1;
        host.behind = 0;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("runtime");
        let opened = Opened::default();
        let failed = Arc::<Mutex<Option<String>>>::default();
        let config = Config {
            server_id: id,
            cluster_id: "sim".to_owned(),
            address: id.to_string(),
            start,
            history_events_max: HISTORY_EVENTS,
            // Servers that keep what they read, and servers that read every value that is not new from disk, each time.
            value_cache_bytes: if id.is_multiple_of(2) { 4096 } else { 0 },
            checkpoint_interval: CHECKPOINT_INTERVAL,
            log_entries_kept: LOG_ENTRIES_KEPT,
            wire: match self.newer.contains(&id) {
                true => WIRE,
                false => self.wire,
            },
            ..Config::new(PathBuf::from("/sim"))
        };
        let network = Arc::new(SimNetwork {
            net: Arc::clone(&self.net),
            me: id,
        });
        host.disk = host.disk.next_process();
        let disk = Arc::new(host.disk.clone());
        let mut inbox = self.net.lock().open(id);
        let history = Arc::clone(&self.history);
        let clients = if self.clients { CLIENTS } else { 0 };
        let random = |name| Random::new(self.seed, (id << 40) ^ (host.starts << 20) ^ name);
        let randoms: Vec<_> = (0..=clients).map(random).collect();
        let places = host.places.clone();
        runtime.spawn({
            let (opened, failed) = (Arc::clone(&opened), Arc::clone(&failed));
            async move {
                let store = match crate::open(config, network, disk).await {
                    Ok(store) => store,
                    Err(error) => {
                        *opened.lock() = Some(Err(error));
                        return;
                    }
                };
                *opened.lock() = Some(Ok(store.clone()));
                tokio::spawn({
                    let store = store.clone();
                    async move {
                        let reason = store.ended().await;
                        *failed.lock() = Some(reason.to_string());
                    }
                });
                let mut randoms = randoms.into_iter();
                if let Some(random) = randoms.next().filter(|_| clients > 0) {
                    for place in places {
                        tokio::spawn(client::watch(
                            id,
                            store.clone(),
                            Arc::clone(&history),
                            place,
                        ));
                    }
                    tokio::spawn(client::visit(
                        id,
                        store.clone(),
                        Arc::clone(&history),
                        random,
                    ));
                }
                for random in randoms {
                    tokio::spawn(client::run(
                        id,
                        store.clone(),
                        Arc::clone(&history),
                        random,
                        60,
                    ));
                }
                while let Some(arrived) = inbox.recv().await {
                    let store = store.clone();
                    tokio::spawn(async move {
                        let answer = store.answer(Some(arrived.from), arrived.message).await;
                        arrived.answer.send(answer);
                    });
                }
            }
        });
        host.process = Some(Process {
            runtime,
            opened,
            failed,
        });
    }

    /// Runs something in a server's process, until that ends.
    pub(crate) fn spawn(&self, id: ServerId, work: impl Future<Output = ()> + Send + 'static) {
        let process = self.hosts.get(&id).and_then(|host| host.process.as_ref());
        if let Some(process) = process {
            process.runtime.spawn(work);
        }
    }

    /// Ends a server's process; what it wrote stays in the page cache.
    pub(crate) fn kill(&mut self, id: ServerId) {
        if let Some(host) = self.hosts.get_mut(&id)
            && let Some(process) = host.process.take()
        {
            host.disk.kill();
            self.net.lock().close(id);
            drop(process);
        }
    }

    /// Takes a server's power.
    pub(crate) fn cut_power(&mut self, id: ServerId) {
        if let Some(host) = self.hosts.get_mut(&id) {
            host.disk.kill();
            self.net.lock().close(id);
            drop(host.process.take());
            host.disk.cut_power();
        }
    }

    /// Takes a server away for good.
    pub(crate) fn destroy(&mut self, id: ServerId) {
        self.kill(id);
        if let Some(host) = self.hosts.get_mut(&id) {
            host.disk.wipe();
        }
        self.hosts.remove(&id);
    }

    pub(crate) fn note(&self, what: String) {
        let line = format!("{:>7} {what}", self.now);
        self.history.lock().log.push(line);
    }

    /// Lets so many milliseconds pass.
    pub(crate) fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.now += 1;
            Net::deliver(&self.net, self.now);
            for host in self.hosts.values_mut() {
                host.behind += 1;
                if host.paused_until > self.now {
                    continue;
                }
                let Some(process) = &host.process else {
                    continue;
                };
                let ours = runtime::enter(Some(host.stream));
                let behind = std::mem::take(&mut host.behind);
                process.runtime.block_on(async {
                    if behind > 1 {
                        // A process that was stopped finds that time has passed.
                        tokio::time::advance(Duration::from_millis(behind - 1)).await;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                });
                host.stream = runtime::enter(ours).unwrap_or_default();
            }
            self.look_after();
        }
    }

    /// Takes the power of servers whose disk lost it, and notes what must not happen.
    fn look_after(&mut self) {
        let cut: Vec<_> = self
            .hosts
            .values()
            .filter(|host| host.process.is_some() && host.disk.is_cut())
            .map(|host| host.id)
            .collect();
        for id in cut {
            self.note(format!("server {id} lost its power while it wrote"));
            self.cut_power(id);
        }
        for host in self.hosts.values() {
            let Some(process) = &host.process else {
                continue;
            };
            let id = host.id;
            if let Some(Err(error)) = &*process.opened.lock() {
                let reason = format!("server {id} does not open: {error}: {error:?}");
                self.history.lock().violation(reason);
            }
            if let Some(reason) = process.failed.lock().take() {
                self.history
                    .lock()
                    .violation(format!("server {id} failed: {reason}"));
            }
        }
    }

    /// Lets a host's clock jump ahead.
    pub(crate) fn jump(&mut self, id: ServerId, milliseconds: u64) {
        if let Some(host) = self.hosts.get_mut(&id) {
            host.behind += milliseconds;
        }
    }

    pub(crate) fn leader(&self) -> Option<ServerId> {
        let leads = |host: &&Host| {
            let store = host.store();
            store.is_some_and(|store| store.leadership().borrow().is_some())
        };
        self.hosts.values().find(leads).map(|host| host.id)
    }

    /// Ends every fault and starts every server.
    pub(crate) fn heal(&mut self) {
        {
            let mut net = self.net.lock();
            net.blocked.clear();
            net.loss = 0;
        }
        let ids: Vec<_> = self.hosts.keys().copied().collect();
        for id in ids {
            if let Some(host) = self.hosts.get_mut(&id) {
                host.paused_until = 0;
                host.disk.set_full(false);
                host.disk.set_slow(0);
                host.disk.keep_power();
            }
            self.start(id);
        }
    }

    /// Whether every server shows the same, and a read on each succeeds. Waits for it; a violation if it never happens.
    fn settle(&mut self) {
        self.heal();
        let mut last = String::new();
        for _ in 0..400 {
            self.run(100);
            match self.settled() {
                None => return,
                Some(reason) => last = reason,
            }
        }
        let text = format!("after 40 s without faults: {last}");
        self.history.lock().violation(text);
    }

    fn settled(&mut self) -> Option<String> {
        let mut states = BTreeMap::new();
        for host in self.hosts.values() {
            let Some(store) = host.store() else {
                return Some(format!("server {} is not open", host.id));
            };
            if store.leader().borrow().is_none() {
                return Some(format!("server {} knows no leader", host.id));
            }
            let snapshot = store.snapshot();
            let Some(entries) = seen(&snapshot) else {
                return Some(format!("server {} does not read its disk", host.id));
            };
            states.insert(host.id, (snapshot.revision(), entries));
        }
        let mut all = states.into_iter();
        let (first, state) = all.next()?;
        for (id, other) in all {
            if other.0 != state.0 {
                return Some(format!(
                    "server {first} is at revision {}, server {id} at {}",
                    state.0, other.0
                ));
            }
            if other.1 != state.1 {
                let text = format!("servers {first} and {id} differ at revision {}", state.0);
                self.history.lock().violation(text);
                return None;
            }
        }
        None
    }

    /// Stops the clients by starting every server anew without them, and collects what the servers remember.
    pub(crate) fn finish(&mut self) -> u64 {
        self.clients = false;
        let ids: Vec<_> = self.hosts.keys().copied().collect();
        for id in &ids {
            self.kill(*id);
        }
        self.settle();
        let mut newest = 0;
        for id in ids {
            let Some(host) = self.hosts.get(&id) else {
                continue;
            };
            let (Some(store), Some(process)) = (host.store(), &host.process) else {
                continue;
            };
            let history = Arc::clone(&self.history);
            newest = store.snapshot().revision().max(newest);
            process
                .runtime
                .block_on(client::collect(id, &store, &history));
        }
        newest
    }

    /// What happened, as one number: equal for equal seeds.
    pub(crate) fn trace(&self) -> u64 {
        let history = self.history.lock();
        let mut trace = self.net.lock().trace;
        for host in self.hosts.values() {
            trace = mix(trace ^ host.disk.operations());
        }
        mix(trace ^ history.operations.len() as u64)
    }
}

impl Host {
    pub(crate) fn store(&self) -> Option<Store> {
        let process = self.process.as_ref()?;
        match &*process.opened.lock() {
            Some(Ok(store)) => Some(store.clone()),
            _ => None,
        }
    }

    pub(crate) fn disk(&self) -> &SimDisk {
        &self.disk
    }

    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History")
            .field("operations", &self.operations.len())
            .finish_non_exhaustive()
    }
}
