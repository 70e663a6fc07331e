//! Events end an hour after they were last seen, as in Kubernetes, so that telling stories costs bounded space.

use std::time::Duration;

use crate::view::{Key, Touched, View};
use crate::write::{EVENTS, Propagation, Write};
use crate::{Context, Controller, Outcome, plus_seconds, until};

pub const CONTROLLER: Controller = Controller {
    name: "event-ttl-controller",
    keys,
    seeds: |_| vec![sweep()],
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

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    // The first event starts the clock; from then on the sweep asks for its own next turn.
    let first = touched.resource == EVENTS && view.events_by_age().nth(1).is_none();
    if first { vec![sweep()] } else { Vec::new() }
}

fn reconcile(view: &View, _: &Key, cx: &Context<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for (seen, key, uid) in view.events_by_age() {
        let due = plus_seconds(seen, TTL_SECONDS);
        if due > cx.now || outcome.writes.len() == BATCH {
            outcome.again_after(until(due, cx.now).max(PAUSE));
            break;
        }
        outcome.writes.push(Write::Delete {
            resource: EVENTS,
            namespace: Some(key.namespace.clone()),
            name: key.name.clone(),
            uid: uid.to_owned(),
            grace_seconds: None,
            propagation: Propagation::Background,
            note: None,
        });
    }
    outcome
}
