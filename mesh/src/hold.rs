//! Calls to a service that has nobody to answer, and gets somebody when it is called: an autoscaler took away the last of its pods and says
//! so ([`ServiceSpec::wakes`](crate::ServiceSpec)). Such a call is held while a replica is asked for, and goes on as soon as there is an
//! endpoint, or the next one where that went meanwhile.
//!
//! Asking is left to whoever holds the [`Mesh`](crate::Mesh): it is told of each service once, however many calls wait for it, and may say
//! that it is of no use ([`Wanted`]).
//!
//! Invariants: what is held for one namespace is bounded in number and in bytes, and takes nothing from another; no call is held for longer
//! than [`HELD_TIME_MAX`], nor beyond its deadline; a call that ends, for whatever reason, leaves nothing behind, and with the last one
//! ends the asking.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use weft_call::{Failure, FailureKind};

use crate::{
    Inner,
    table::{ServiceLabels, Table},
};

/// Calls that are held for the services of one namespace on a node: what a few clients send while a pod starts, and each is a task and a
/// request in memory.
pub(crate) const HELD_MAX: usize = 1000;
/// Bytes of requests in memory, of the calls that are held for one namespace.
pub(crate) const HELD_BYTES_MAX: u64 = 32 << 20;
/// How long a call is held: what a request may take where nobody says otherwise. A pod whose code is there starts within milliseconds; this is
/// for one whose image has to be fetched and compiled.
pub(crate) const HELD_TIME_MAX: Duration = Duration::from_secs(30);
/// What a request's head is taken to be in memory.
const HEAD_BYTES: u64 = 2 << 10;
/// When a call may be made again that was held in vain: nothing is faster than asking twice.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The calls that are held on this node.
#[derive(Default)]
pub(crate) struct Holding {
    state: Mutex<State>,
    asked: Notify,
}

#[derive(Default)]
struct State {
    namespaces: HashMap<String, Tally>,
    services: HashMap<Arc<ServiceLabels>, Arc<Wait>>,
    /// Services that nobody has been told of yet.
    fresh: VecDeque<Arc<Wait>>,
}

/// What is held for a namespace.
#[derive(Default)]
struct Tally {
    calls: usize,
    bytes: u64,
}

/// Those who wait for one service.
struct Wait {
    service: Arc<ServiceLabels>,
    /// Changed under the lock of [`Holding`].
    calls: watch::Sender<usize>,
    /// Why there will be nobody, or there is nobody yet.
    told: watch::Sender<Told>,
}

#[derive(Debug, Clone, Default)]
struct Told {
    why: Option<Arc<str>>,
    is_final: bool,
}

/// A call that is held; until it is dropped.
struct Held {
    inner: Arc<Inner>,
    wait: Arc<Wait>,
    bytes: u64,
}

impl Held {
    fn begin(inner: &Arc<Inner>, service: &Arc<ServiceLabels>, body: u64) -> Result<Self, Failure> {
        let bytes = body.saturating_add(HEAD_BYTES);
        let holding = &inner.holding;
        let mut guard = holding.state.lock();
        let state = &mut *guard;
        let tally = state
            .namespaces
            .entry(service.namespace.clone())
            .or_default();
        let (calls, held) = (tally.calls, tally.bytes.saturating_add(bytes));
        if calls >= HELD_MAX || held > HELD_BYTES_MAX {
            if calls == 0 {
                state.namespaces.remove(&service.namespace);
            }
            return Err(crowded(service, calls));
        }
        tally.calls += 1;
        tally.bytes = held;
        let known = state.services.get(service);
        // Who is refused already leaves one after the other; whoever comes now is asked for anew.
        let known = known.filter(|wait| !wait.told.borrow().is_final);
        let wait = match known {
            Some(wait) => Arc::clone(wait),
            None => {
                let wait = Arc::new(Wait {
                    service: Arc::clone(service),
                    calls: watch::Sender::new(0),
                    told: watch::Sender::default(),
                });
                state
                    .services
                    .insert(Arc::clone(service), Arc::clone(&wait));
                state.fresh.push_back(Arc::clone(&wait));
                holding.asked.notify_one();
                wait
            }
        };
        wait.calls.send_modify(|calls| *calls += 1);
        drop(guard);
        Ok(Self {
            inner: Arc::clone(inner),
            wait,
            bytes,
        })
    }

    /// Returns when it is of no use to wait.
    async fn refused(&self) -> Option<Arc<str>> {
        let mut told = self.wait.told.subscribe();
        let told = told.wait_for(|told| told.is_final).await;
        told.ok().and_then(|told| told.why.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut guard = self.inner.holding.state.lock();
        let state = &mut *guard;
        let service = &self.wait.service;
        if let Some(tally) = state.namespaces.get_mut(&service.namespace) {
            tally.calls = tally.calls.saturating_sub(1);
            tally.bytes = tally.bytes.saturating_sub(self.bytes);
            if tally.calls == 0 {
                state.namespaces.remove(&service.namespace);
            }
        }
        self.wait
            .calls
            .send_modify(|calls| *calls = calls.saturating_sub(1));
        if *self.wait.calls.borrow() > 0 {
            return;
        }
        let is_this = |wait: &Arc<Wait>| Arc::ptr_eq(wait, &self.wait);
        if state.services.get(service).is_some_and(is_this) {
            state.services.remove(service);
        }
        state.fresh.retain(|wait| !is_this(wait));
    }
}

impl Holding {
    /// Whether any call is held.
    pub(crate) fn is_any(&self) -> bool {
        !self.state.lock().services.is_empty()
    }

    async fn next(&self) -> Arc<Wait> {
        loop {
            let asked = self.asked.notified();
            if let Some(wait) = self.state.lock().fresh.pop_front() {
                return wait;
            }
            asked.await;
        }
    }
}

/// Waits for the next service that calls are held for, and that was not returned yet.
pub(crate) async fn next_wanted(inner: &Arc<Inner>) -> Wanted {
    Wanted {
        wait: inner.holding.next().await,
    }
}

/// A service that calls are held for: somebody should see to it that it gets an endpoint. That it has one is seen by the table.
pub struct Wanted {
    wait: Arc<Wait>,
}

impl Wanted {
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.wait.service.namespace
    }

    /// The service's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.wait.service.name
    }

    /// Returns once no call waits any more: somebody answers, or they gave up.
    pub async fn is_over(&self) {
        // The sender is in `self`.
        let _ = self
            .wait
            .calls
            .subscribe()
            .wait_for(|calls| *calls == 0)
            .await;
    }

    /// Why there is nobody yet; half a sentence for those who will have waited in vain.
    pub fn tell(&self, why: Option<&str>) {
        let why = why.map(Arc::from);
        self.wait.told.send_modify(|told| told.why = why);
    }

    /// Has the calls fail that are held: it is of no use to wait.
    pub fn refuse(&self, why: &str) {
        self.wait.told.send_replace(Told {
            why: Some(why.into()),
            is_final: true,
        });
    }
}

/// How a service stands in a table.
enum Standing {
    Answers,
    /// It would be woken.
    Sleeps,
    Nobody,
}

impl Standing {
    fn of(table: &Table, labels: &ServiceLabels, port: u16) -> Self {
        let Some(service) = table.service(&labels.namespace, &labels.name) else {
            return Self::Nobody;
        };
        match service.port(port) {
            Some(port) if !port.is_empty() => Self::Answers,
            Some(port) if service.wakes() && port.outside().is_none() => Self::Sleeps,
            _ => Self::Nobody,
        }
    }
}

/// Holds a call to a service that has no endpoint in `known`: until there is a table in which it has one, which is returned. `None`: it is one
/// that nobody wakes.
///
/// # Errors
/// When there is no place to hold it, when nobody answers until `until`, and when it is of no use to wait.
pub(crate) async fn hold(
    inner: &Arc<Inner>,
    known: &Table,
    (labels, port): (&Arc<ServiceLabels>, u16),
    body: u64,
    until: Instant,
) -> Result<Option<Arc<Table>>, Failure> {
    let mut published = inner.published.subscribe();
    let mut held: Option<Held> = None;
    loop {
        published.mark_unchanged();
        let table = inner.table.load_full();
        match Standing::of(&table, labels, port) {
            Standing::Answers if table.generation() == known.generation() => return Ok(None),
            Standing::Answers => return Ok(Some(table)),
            Standing::Nobody => return Ok(None),
            Standing::Sleeps => {}
        }
        if held.is_none() {
            held = Some(Held::begin(inner, labels, body)?);
        }
        let Some(held) = &held else { continue };
        tokio::select! {
            biased;
            why = held.refused() => return Err(in_vain(labels, why.as_deref())),
            changed = published.changed() => if changed.is_err() {
                return Ok(None);
            },
            () = tokio::time::sleep_until(until.into()) => {
                let why = held.wait.told.borrow().why.clone();
                return Err(in_vain(labels, why.as_deref()));
            }
        }
    }
}

fn crowded(service: &ServiceLabels, calls: usize) -> Failure {
    let message = format!(
        "service {} has no ready endpoint yet, and {calls} calls wait for those of its namespace already",
        service.display
    );
    Failure::new(FailureKind::NoEndpoints, message).with_retry_after(AGAIN_AFTER)
}

fn in_vain(service: &ServiceLabels, why: Option<&str>) -> Failure {
    let why = match why {
        Some(why) => why.to_owned(),
        None => format!("none came within {} s", HELD_TIME_MAX.as_secs()),
    };
    let message = format!("service {} has no ready endpoint: {why}", service.display);
    Failure::new(FailureKind::NoEndpoints, message).with_retry_after(AGAIN_AFTER)
}
