//! Signs of life of nodes, timed by our clock: renewals of their leases, and what they report of themselves.
//!
//! Only that a time changes says something: nodes have clocks of their own. So each node's time begins when it is first seen here, and begins
//! anew with its lease. What the first list shows is no sign of life.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use weft_api::annotation;
use weft_api::object::{Object, ObjectError};
use weft_api::view::Node;
use weft_kinds::{Kind, LEASE, NODE};

use super::condition;
use crate::indexer::{Cached, Lens};
use crate::metadata::Key;
use crate::until;
use crate::view::{Touched, Track};

/// Where node leases live.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How long a node's lease lasts where it does not say: as long as those of weft's own nodes, which renew it eight times
/// as often.
pub const LEASE_LASTS: Duration = Duration::from_secs(8);

/// How long a node counts as alive after each sign of life.
#[derive(Debug)]
pub struct Lease {
    pub lasts: Duration,
    /// By the node's clock: only that it changes says something.
    renewed: Option<Timestamp>,
    /// After so long without a renewal, nothing runs on the node of pods that ask for that.
    fences_within: Option<Duration>,
}

impl Lens for Lease {
    fn kind() -> &'static Arc<Kind> {
        &LEASE
    }

    fn wants(key: &Key) -> bool {
        &*key.namespace == LEASE_NAMESPACE
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let spec = &object.as_value()["spec"];
        let seconds = spec["leaseDurationSeconds"].as_u64();
        let seconds = seconds.filter(|seconds| *seconds > 0);
        let renewed = spec["renewTime"].as_str();
        let annotations = &object.as_value()["metadata"]["annotations"];
        let fences_within = annotations[annotation::FENCES_WITHIN].as_str();
        Ok(Self {
            lasts: seconds.map_or(LEASE_LASTS, Duration::from_secs),
            renewed: renewed.and_then(|time| time.parse().ok()),
            fences_within: fences_within
                .and_then(|seconds| seconds.parse().ok())
                .map(Duration::from_secs),
        })
    }
}

/// The signs of life of a node, timed by our clock: the node's own is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// The last one, or when we began to look.
    pub seen: Timestamp,
    /// How long the node counts as alive after each, as its lease says.
    pub lasts: Duration,
    /// Since when they have been coming without a gap longer than that. `None`: not one was seen to come; what stood in
    /// the first list is no sign of life.
    pub alive_since: Option<Timestamp>,
    fences_within: Option<Duration>,
}

impl Heartbeat {
    fn expected(now: Timestamp) -> Self {
        Self {
            seen: now,
            lasts: LEASE_LASTS,
            alive_since: None,
            fences_within: None,
        }
    }

    /// How long the node has been silent.
    pub fn silence(&self, now: Timestamp) -> Duration {
        until(now, self.seen)
    }

    pub fn is_silent(&self, now: Timestamp) -> bool {
        self.silence(now) >= self.lasts
    }

    /// From when on nothing runs there any more of pods that ask to be stopped; `None`: nobody promises that.
    ///
    /// A lease that somebody shortened was not shortened by the node.
    pub fn fenced_from(&self) -> Option<Timestamp> {
        let within = self.fences_within?.max(self.lasts);
        self.seen.checked_add(within).ok()
    }

    fn renew(&mut self, now: Timestamp) {
        if self.alive_since.is_none() || self.is_silent(now) {
            self.alive_since = Some(now);
        }
        self.seen = now;
    }
}

/// Everybody's signs of life, from when the node or its lease was first seen until both are gone.
#[derive(Debug, Default)]
pub struct Heartbeats {
    by_node: BTreeMap<String, Heartbeat>,
    nodes: BTreeSet<String>,
    leases: BTreeSet<String>,
}

impl Heartbeats {
    pub fn of(&self, node: &str) -> Option<&Heartbeat> {
        self.by_node.get(node)
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, &Heartbeat)> {
        let all = self.by_node.iter();
        all.map(|(node, heartbeat)| (node.as_str(), heartbeat))
    }

    fn expect(&mut self, node: &str, now: Timestamp) -> &mut Heartbeat {
        let heartbeat = self.by_node.entry(node.to_owned());
        heartbeat.or_insert_with(|| Heartbeat::expected(now))
    }

    fn forget(&mut self, node: &str) {
        if !self.nodes.contains(node) && !self.leases.contains(node) {
            self.by_node.remove(node);
        }
    }

    /// A renewal is a sign of life; whatever else changes in a lease may be somebody else's doing.
    fn take_lease(&mut self, touched: &Touched, news: bool, now: Timestamp) {
        let node = &*touched.key.name;
        let Some(lease) = touched.after::<Lease>() else {
            self.leases.remove(node);
            // The lease is gone, not the node: its silence begins now.
            *self.expect(node, now) = Heartbeat::expected(now);
            self.forget(node);
            return;
        };
        self.leases.insert(node.to_owned());
        let before = touched.before::<Lease>().map(|lease| lease.body.renewed);
        let renewed = lease.body.renewed.is_none() || before != Some(lease.body.renewed);
        let heartbeat = self.expect(node, now);
        if news && renewed {
            heartbeat.renew(now);
        }
        heartbeat.fences_within = lease.body.fences_within;
        // A lease that was shortened before we began to look has its whole time again, as all others have.
        heartbeat.lasts = match news {
            true => lease.body.lasts,
            false => lease.body.lasts.max(LEASE_LASTS),
        };
    }

    /// A node that reports its state is alive, whether it has a lease or not.
    fn take_report(&mut self, touched: &Touched, news: bool, now: Timestamp) {
        let node = &*touched.key.name;
        if !touched.is_there {
            self.nodes.remove(node);
            self.forget(node);
            return;
        }
        self.nodes.insert(node.to_owned());
        let heartbeat = self.expect(node, now);
        let reported = |node: &Cached<Node>| {
            let ready = condition(node, "Ready")?;
            Some(ready.last_heartbeat_time.as_ref()?.0)
        };
        if let (Some(before), Some(after)) = (touched.before::<Node>(), touched.after::<Node>()) {
            let after = reported(after);
            if news && after.is_some() && after != reported(before) {
                heartbeat.renew(now);
            }
        }
    }
}

impl Track for Heartbeats {
    fn notice(&mut self, touched: &Touched, news: bool, now: Timestamp) {
        if touched.is_of(&NODE) {
            self.take_report(touched, news, now);
        } else if &*touched.key.namespace == LEASE_NAMESPACE && touched.is_of(&LEASE) {
            self.take_lease(touched, news, now);
        }
    }
}
