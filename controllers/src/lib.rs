//! Controllers: what has to change so that the cluster becomes what was asked for.
//!
//! One pure reconciler a kind. Each reads the [`View`] and returns an [`Outcome`]: writes in order, and when to
//! look again. No clock, no randomness, no I/O: the time comes with the [`Context`], names of new objects
//! derive from the state that made them necessary.
//!
//! Flow: `change → View::apply → Controller::keys → reconcile → Outcome → (weft::control_loop) → change`. A controller is one
//! file and one line in [`CONTROLLERS`]; kinds, compiled in or registered at run time, are those of `weft_kinds`.
//!
//! Invariants:
//! - equal view, key and context give an equal outcome;
//! - a reconciler that finds nothing to do returns no writes, so the loop comes to rest;
//! - every delete carries the uid it was decided for, so a re-created namesake is never hit.
//!
//! Double creation is excluded twice. The loop folds the answer of each of its writes into the view
//! before it reconciles the same key again ([`View::fold`]), which is what Kubernetes approximates with in-memory
//! expectations. And names are functions of the state (see [`weft_api::names`]): repeating a create from the same view
//! asks for the same name and is refused as `AlreadyExists`. The first covers every answered write, the second those
//! whose answer got lost. Expectations were rejected: they are state beside the state, with a timeout as escape.
//!
//! Left to others: ordering, retries, back-off and the writes themselves (`weft::control_loop`).

mod access_policy;
mod admission_policy;
mod amount;
pub mod autoscaler;
mod capability_grant;
mod claim;
mod cluster_role;
mod conditions;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoint_slice;
mod endpoints;
mod events;
mod foreign;
mod garbage;
mod gateway;
pub mod indexer;
mod job;
pub mod lens;
pub mod metadata;
mod namespace;
mod node;
mod node_ranges;
mod past;
pub mod persistent_volume;
pub mod pod;
mod pod_garbage;
mod quota;
mod replicaset;
mod revision;
pub mod rollout;
mod service_address;
mod slice_mirror;
#[cfg(test)]
mod small;
mod statefulset;
mod template;
mod unreadable;
pub mod usage;
pub mod view;
pub mod write;

use std::time::Duration;

use jiff::Timestamp;
use weft_kinds::Registry;

pub use indexer::{Cached, Lens};
pub use metadata::{Key, Metadata, PartialObject};
pub use past::Past;
pub use usage::{Calls, Usage};
pub use view::{Change, Reads, Touched, View};
pub use write::{Note, Reference, Write};

/// One reconciler and the changes that wake it.
#[derive(Clone, Copy)]
pub struct Controller {
    /// As `kubectl describe` shows it in the `From` column of events.
    pub name: &'static str,
    /// Declares what of the view it reads.
    pub reads: fn(&mut Reads),
    /// Which keys to look at after a change. May name keys that need nothing; must not miss one that does.
    pub keys: fn(&View, &Touched) -> Vec<Key>,
    /// Which keys to look at without the rest of their pause, should their last look have been refused: this change may have ended why.
    pub relieved: fn(&View, &Touched) -> Vec<Key>,
    /// Which keys to look at when leadership starts.
    pub seeds: fn(&View) -> Vec<Key>,
    /// The object a key stands for, if it is one: it is told when the key cannot be worked on.
    pub subject: fn(&View, &Key) -> Option<Reference>,
    pub reconcile: fn(&View, &Key, &Context<'_>) -> Outcome,
}

/// Every controller, in no particular order: they only meet in the view.
pub static CONTROLLERS: &[Controller] = &[
    deployment::CONTROLLER,
    replicaset::CONTROLLER,
    replicaset::REPLICATION,
    statefulset::CONTROLLER,
    daemonset::CONTROLLER,
    endpoint_slice::CONTROLLER,
    job::CONTROLLER,
    job::orphans::CONTROLLER,
    job::ttl::CONTROLLER,
    cronjob::CONTROLLER,
    autoscaler::CONTROLLER,
    endpoints::CONTROLLER,
    slice_mirror::CONTROLLER,
    disruption::CONTROLLER,
    disruption::STALE,
    namespace::CONTROLLER,
    garbage::CONTROLLER,
    node::CONTROLLER,
    pod_garbage::CONTROLLER,
    node_ranges::CONTROLLER,
    service_address::CONTROLLER,
    gateway::CONTROLLER,
    rollout::CONTROLLER,
    foreign::CONTROLLER,
    capability_grant::CONTROLLER,
    quota::CONTROLLER,
    persistent_volume::CONTROLLER,
    persistent_volume::ephemeral::CONTROLLER,
    admission_policy::CONTROLLER,
    access_policy::CONTROLLER,
    cluster_role::CONTROLLER,
    events::CONTROLLER,
    unreadable::CONTROLLER,
];

/// What a reconciler knows besides the view.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub now: Timestamp,
    pub cluster: &'a Cluster,
    /// The kinds that are served: objects of others cannot be looked up.
    pub kinds: &'a Registry,
    /// Why the last attempt at this key was refused, if it was: shown in conditions, and a reason to try less.
    pub last_failure: Option<&'a str>,
    /// What pods use. `None`: nobody has read it yet.
    pub usage: Option<&'a Usage>,
    /// What is counted of calls. `None`: nobody has read it yet.
    pub calls: Option<&'a Calls>,
    /// What the key's last look left to be known by this one.
    pub past: &'a Past,
}

/// Facts of the whole cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The cluster CA's certificate, published to every namespace.
    pub ca_pem: String,
}

/// What one look at a key decided.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Outcome {
    /// To be done in order, stopping at the first refusal. Neighbouring creates, neighbouring deletes, and neighbouring
    /// patches of different objects of one kind are independent of each other and may run at once.
    pub writes: Vec<Write>,
    /// When to look again although nothing changed.
    pub requeue_after: Option<Duration>,
    /// What the key's next look is to know, once the writes are done. `None`: as before.
    pub past: Option<Past>,
}

impl Outcome {
    fn from_writes(writes: Vec<Write>) -> Self {
        Self {
            writes,
            ..Self::default()
        }
    }

    /// Asks to be called again after `delay`, unless something already asked for earlier.
    fn again_after(&mut self, delay: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(delay, |old| old.min(delay)));
    }
}

/// How long from `now` until `then`, never less than zero.
fn until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

/// `time` plus whole seconds, without leaving the range of timestamps.
fn plus_seconds(time: Timestamp, seconds: i64) -> Timestamp {
    time.saturating_add(jiff::SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}

/// The time as objects carry it: whole seconds.
fn stamp(now: Timestamp) -> weft_api::view::Time {
    weft_api::view::Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
