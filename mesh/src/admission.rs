//! Whether a call may be handed to a workload of this node. Whoever calls, from here, from another node, through the gateway or at
//! `localhost`, is judged here, in this order, and nowhere else:
//!
//! 1. is the call tree still one that ends,
//! 2. has the caller time left,
//! 3. is the request's head one that is passed on,
//! 4. has the caller had its share, where a policy limits it (`door.rs`),
//! 5. is the workload still there, and has it a place.
//!
//! Who has a place may have to wait for its turn, where a policy says how many calls there may be at once.
//!
//! A refusal is a [`Failure`] as any other: with its blame (of a rule, [`Blame::Policy`](weft_call::Blame::Policy)) it reaches the
//! caller over whatever lies between. A rule about who may call whom has all it needs in [`Asking`], and belongs before the place is
//! taken.
//!
//! Invariants: what was refused was not shown to the workload; only [`admit`] makes an [`Admitted`], and `deliver.rs` asks for one.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, Uri};
use tokio::sync::Notify;
use weft_call::{CallContext, Failure, FailureKind};

use crate::{
    DEPTH_MAX,
    activity::Ongoing,
    door::Door,
    failure,
    gate::{Gate, Turned},
    headers,
    turnstile::Permit,
};

/// What a call is judged by.
pub(crate) struct Asking<'c> {
    pub(crate) context: &'c CallContext,
    pub(crate) uri: &'c Uri,
    pub(crate) headers: &'c HeaderMap,
    pub(crate) now: Instant,
}

/// The calls of one workload.
pub(crate) struct Places {
    /// Closed before anybody waits for the last call in flight.
    gate: Gate,
    idle: Notify,
}

impl Places {
    pub(crate) fn new(in_flight_max: usize) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(in_flight_max),
            idle: Notify::new(),
        })
    }

    /// From here on nobody is admitted.
    pub(crate) fn close(&self) {
        self.gate.close();
    }

    /// Calls that have not finished, response bodies included that are not in memory.
    pub(crate) fn in_flight(&self) -> usize {
        self.gate.inside()
    }

    /// Waits until no call is in flight.
    pub(crate) async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if self.in_flight() == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// A call that was let in: in flight until this is dropped.
pub(crate) struct Admitted {
    places: Arc<Places>,
    /// The same among what is counted of its workload.
    ongoing: Option<Ongoing>,
    /// Its turn, where there are turns.
    permit: Option<Permit>,
}

impl Admitted {
    /// It counts among the calls of its workload, too.
    pub(crate) fn counted(mut self, ongoing: Ongoing) -> Self {
        self.ongoing = Some(ongoing);
        self
    }

    /// It has had its turn, as long as it is in flight.
    pub(crate) fn permitted(mut self, permit: Option<Permit>) -> Self {
        self.permit = permit;
        self
    }

    /// The call was over then.
    pub(crate) fn end(mut self, at: Instant) {
        if let Some(ongoing) = self.ongoing.take() {
            ongoing.end(at);
        }
    }

    /// The workload answered after so long.
    pub(crate) fn answered(&self, took: std::time::Duration) {
        if let Some(permit) = &self.permit {
            permit.answered(took);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.places.gate.leave() {
            self.places.idle.notify_waiters();
        }
    }
}

/// Lets a call in, or says why not. `door`: what a policy asks of calls to this endpoint, and since when time is counted there.
pub(crate) fn admit(
    places: &Arc<Places>,
    door: Option<(&Door, Instant)>,
    asking: &Asking<'_>,
) -> Result<Admitted, Failure> {
    if asking.context.depth >= DEPTH_MAX {
        return Err(failure::loop_detected());
    }
    let deadline = asking.context.deadline;
    if deadline.is_some_and(|deadline| deadline <= asking.now) {
        return Err(failure::deadline().with_processed(weft_call::Processed::No));
    }
    if !headers::within_limits(asking.uri, asking.headers) {
        let reason = format!("its head has {}", headers::TOO_LARGE);
        return Err(failure::bad_request(&reason));
    }
    if let Some((door, started)) = door {
        door.judge(asking, started)?;
    }
    place(places)
}

fn place(places: &Arc<Places>) -> Result<Admitted, Failure> {
    let entered = places.gate.enter();
    // Counted; dropped, it gives the place back.
    let taken = Admitted {
        places: Arc::clone(places),
        ongoing: None,
        permit: None,
    };
    match entered {
        Ok(()) => Ok(taken),
        Err(Turned::Closed) => Err(FailureKind::NotHere.into()),
        Err(Turned::Full) => Err(FailureKind::Overloaded.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;

    use super::*;

    #[test]
    fn who_is_not_let_in_is_told_why_and_leaves_no_place_taken() {
        let now = Instant::now();
        let good = CallContext {
            deadline: Some(now + Duration::from_secs(1)),
            depth: DEPTH_MAX - 1,
            ..CallContext::default()
        };
        let deep = CallContext {
            depth: DEPTH_MAX,
            ..good.clone()
        };
        let late = CallContext {
            deadline: Some(now),
            ..good.clone()
        };
        let small = HeaderMap::new();
        let large = HeaderMap::from_iter([(
            http::header::COOKIE,
            HeaderValue::from_str(&"x".repeat(headers::HEADER_BYTES_MAX)).expect("a value"),
        )]);
        let uri = Uri::from_static("http://voting/");
        let judge = |places: &Arc<Places>, context: &CallContext, headers: &HeaderMap| {
            let asking = Asking {
                context,
                uri: &uri,
                headers,
                now,
            };
            admit(places, None, &asking)
        };
        let places = Places::new(1);
        let held = judge(&places, &good, &small);
        let gone = Places::new(1);
        gone.close();
        let mut text = String::new();
        for (places, context, headers) in [
            (&places, &deep, &small),
            (&places, &late, &small),
            (&places, &good, &large),
            (&places, &good, &small),
            (&gone, &good, &small),
        ] {
            let refused = judge(places, context, headers).err().expect("not let in");
            let after = refused.retry_after.map(|after| after.as_secs());
            let (kind, blame) = (refused.kind, refused.blame.as_str());
            text += &format!("{kind}, blames {blame}, again after {after:?}: {refused}\n");
            assert!(refused.never_processed(), "{refused:?}");
        }
        assert_eq!((places.in_flight(), gone.in_flight()), (1, 0));
        drop(held);
        assert_eq!(places.in_flight(), 0);
        insta::assert_snapshot!(text, @r"
        loop-detected, blames caller, again after None: the call is nested deeper than 32 workloads
        deadline, blames endpoint, again after None: the call did not finish before its deadline
        bad-request, blames caller, again after None: the request is not acceptable: its head has more than 256 lines or 64 KiB
        overloaded, blames endpoint, again after Some(1): the workload is at its limit of concurrent calls
        not-here, blames connection, again after None: the workload is not on this node
        ");
    }
}
