//! Events end an hour after they were last written, as in Kubernetes, so that telling stories costs bounded space.
//!
//! When that was is what the leader saw ([`Written`]), whatever times an event tells: a source whose clock is wrong loses none, and keeps
//! none. Of those that were there before it led, what they tell is all that is known; none of them has longer than an hour from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use weft_api::object::{Object, ObjectError};
use weft_kinds::{EVENT, Kind};

use crate::indexer::Lens;
use crate::metadata::Key;
use crate::view::{Touched, Track, View};
use crate::write::Write;
use crate::{Context, Controller, Outcome, plus_seconds, until};

pub const CONTROLLER: Controller = Controller {
    name: "event-ttl-controller",
    reads: |reads| {
        reads.kind::<Seen>().track::<Written>();
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |_| vec![sweep()],
    subject: |_, _| None,
    reconcile,
};

/// Kubernetes' `--event-ttl` default.
const TTL_SECONDS: i64 = 3600;
/// Deletes in one sweep.
const BATCH: usize = 500;
/// Sweeps are at least this far apart, so that steady events do not mean steady sweeping.
const PAUSE: Duration = Duration::from_secs(10);

/// There is one key: all events, oldest first.
fn sweep() -> Key {
    Key::cluster("sweep")
}

/// When an event says that it was seen last. Read without the published type: an event of any shape ends some day.
#[derive(Debug)]
struct Seen(Timestamp);

impl Lens for Seen {
    fn kind() -> &'static Arc<Kind> {
        &EVENT
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let event = object.as_value();
        let times = [
            "/lastTimestamp",
            "/series/lastObservedTime",
            "/eventTime",
            "/metadata/creationTimestamp",
        ];
        let time = |path: &&str| event.pointer(path)?.as_str()?.parse().ok();
        let seen: Option<Timestamp> = times.iter().filter_map(time).max();
        Ok(Self(seen.unwrap_or(Timestamp::UNIX_EPOCH)))
    }
}

/// When each event was last written, by its uid, and all of them in that order.
#[derive(Debug, Default)]
struct Written {
    times: BTreeMap<Arc<str>, Timestamp>,
    in_order: BTreeSet<(Timestamp, Key)>,
}

impl Track for Written {
    fn notice(&mut self, touched: &Touched, news: bool, now: Timestamp) {
        if !touched.is_of(&EVENT) {
            return;
        }
        if let Some(time) = self.times.remove(&touched.uid) {
            self.in_order.remove(&(time, touched.key.clone()));
        }
        if let Some(event) = touched.after::<Seen>() {
            let time = if news { now } else { event.body.0.min(now) };
            self.times.insert(Arc::clone(&touched.uid), time);
            self.in_order.insert((time, touched.key.clone()));
        }
    }
}

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    // The first event starts the clock; from then on the sweep asks for its own next turn.
    let first = touched.is_of(&EVENT) && view.tracked::<Written>().times.len() <= 1;
    if first { vec![sweep()] } else { Vec::new() }
}

fn reconcile(view: &View, _: &Key, cx: &Context<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (time, key) in &view.tracked::<Written>().in_order {
        let due = plus_seconds(*time, TTL_SECONDS);
        if due > cx.now {
            outcome.again_after(until(due, cx.now).max(PAUSE));
            break;
        }
        if outcome.writes.len() == BATCH {
            // More are due: they must go faster than new ones come.
            outcome.again_after(Duration::ZERO);
            break;
        }
        if let Some(event) = view.get::<Seen>(key) {
            outcome.writes.push(Write::delete(event));
        }
    }
    outcome
}
