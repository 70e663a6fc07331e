//! An instance's place: among those of its account, among what is counted, and in what is told of it.
//!
//! Invariants: what it takes it gives back when it is dropped, and tells those who wait for it; a call that gets none is refused before
//! anything was started.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;
use weft_call::Failure;

use crate::account::{Refusal, Seat};
use crate::events::Event;
use crate::failure;
use crate::workload::Inner;

/// An instance's place among those of its account, while it lives; counted, and told of.
pub(crate) struct Alive {
    workload: Arc<Inner>,
    started: Option<Instant>,
    pub(crate) seat: Seat,
}

impl Alive {
    /// # Errors
    /// When its account may have no more of what it needs. Nothing was started.
    pub(crate) fn new(workload: &Arc<Inner>) -> Result<Alive, Refusal> {
        let artifact = workload.artifact();
        let seat = workload
            .account()
            .seat(artifact.calls(), artifact.amounts())?;
        workload.counters().instances.fetch_add(1, Relaxed);
        workload.counters().instances_started.fetch_add(1, Relaxed);
        let started = workload.events().map(|events| {
            events.tell(Event::InstanceStarted);
            Instant::now()
        });
        let workload = workload.clone();
        Ok(Alive {
            workload,
            started,
            seat,
        })
    }

    /// The same for a call, which waits a while where there is no room: see [`Room`](crate::room::Room).
    pub(crate) async fn for_call(workload: &Arc<Inner>) -> Result<Alive, Failure> {
        let overloaded = |failure| {
            workload.counters().overloaded.fetch_add(1, Relaxed);
            failure
        };
        if !workload.has_room() {
            let look = || {
                workload.end_idle();
                let may_start = workload.has_room() || !workload.has_instances_beside(0);
                may_start.then_some(()).ok_or(())
            };
            let found = workload.room().wait(look).await;
            found.map_err(|()| overloaded(failure::no_memory_left(workload.memory_limit())))?;
        }
        let refusal = match Alive::new(workload) {
            Ok(alive) => return Ok(alive),
            Err(refusal) => refusal,
        };
        if refusal.held == 0 {
            return Err(overloaded(failure::refused(&refusal)));
        }
        let freed = workload.account().freed();
        let seated = freed.wait(|| Alive::new(workload)).await;
        seated.map_err(|refusal| overloaded(failure::refused(&refusal)))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.workload.counters().instances.fetch_sub(1, Relaxed);
        self.workload.room().is_made();
        if let (Some(events), Some(started)) = (self.workload.events(), self.started) {
            let lived = started.elapsed();
            events.tell(Event::InstanceEnded { lived });
        }
    }
}
