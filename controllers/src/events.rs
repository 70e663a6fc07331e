//! Events end an hour after they were last seen, as in Kubernetes, so that telling stories costs bounded space.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use weft_api::object::{Object, ObjectError};
use weft_kinds::{EVENT, Kind};

use crate::indexer::{Index, Lens};
use crate::metadata::Key;
use crate::view::{Touched, View};
use crate::write::Write;
use crate::{Context, Controller, Outcome, plus_seconds, until};

pub const CONTROLLER: Controller = Controller {
    name: "event-ttl-controller",
    reads: |reads| {
        reads.index(&BY_AGE);
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

/// When an event was last seen. Read without the published type: an event of any shape ends some day.
#[derive(Debug)]
struct Seen(Timestamp);

impl Lens for Seen {
    fn kind() -> &'static Arc<Kind> {
        &EVENT
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let event = object.as_value();
        let time = |text: &Value| text.as_str().and_then(|text| text.parse().ok());
        let seen = time(&event["lastTimestamp"])
            .or_else(|| time(&event["series"]["lastObservedTime"]))
            .or_else(|| time(&event["eventTime"]))
            .or_else(|| time(&event["metadata"]["creationTimestamp"]));
        Ok(Self(seen.unwrap_or(Timestamp::UNIX_EPOCH)))
    }
}

/// Seconds since the first second there is, so that the order of the texts is that of the times.
static BY_AGE: Index<Seen> = Index {
    name: "age",
    of: |event| {
        let since = event.body.0.as_second() - Timestamp::MIN.as_second();
        format!("{since:012}")
    },
};

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    // The first event starts the clock; from then on the sweep asks for its own next turn.
    let first = touched.is_of(&EVENT) && view.indexer::<Seen>().len() <= 1;
    if first { vec![sweep()] } else { Vec::new() }
}

fn reconcile(view: &View, _: &Key, cx: &Context<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for event in view.indexer::<Seen>().in_order(&BY_AGE) {
        let due = plus_seconds(event.body.0, TTL_SECONDS);
        if due > cx.now {
            outcome.again_after(until(due, cx.now).max(PAUSE));
            break;
        }
        if outcome.writes.len() == BATCH {
            // More are due: they must go faster than new ones come.
            outcome.again_after(Duration::ZERO);
            break;
        }
        outcome.writes.push(Write::delete(event));
    }
    outcome
}
