//! What happens to a workload, told as it happens: for metrics, logs and billing of a program of one's own.
//!
//! [`Workload::usage`](crate::Workload::usage) counts; an [`EventSink`] hears each call with its outcome and duration, each
//! instance, trap and refusal of memory. It is one function over one type, so that a new event is a new variant and no
//! change for anyone. A workload without a sink reads no clock for it and allocates nothing.
//!
//! Invariants: every call that was made ends in exactly one [`Event::CallEnded`]; every [`Event::InstanceStarted`] is
//! followed by exactly one [`Event::InstanceEnded`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;

use crate::command::Exit;
use weft_call::Failure;

/// Something that happened to a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A call is over, whoever ended it. `duration` counts from its arrival to the last byte of its response.
    CallEnded {
        end: CallEnd,
        duration: Duration,
    },
    /// A run is over. A run whose future was dropped has nobody to end for, and is not told.
    RunEnded {
        exit: Exit,
        duration: Duration,
    },
    InstanceStarted,
    InstanceEnded {
        lived: Duration,
    },
    /// The guest trapped, which ended its instance and every call that was open in it.
    Trapped {
        message: String,
        /// The guest's stack, one frame a line.
        backtrace: String,
    },
    /// A response broke off after its head was with the caller, so that no call can return why; or an instance failed when
    /// there was no call that could.
    BrokenOff {
        fault: Failure,
    },
    /// The guest asked for more memory than is left to it, and did not get it. It may live on.
    MemoryRefused {
        asked_bytes: u64,
        used_bytes: u64,
        limit_bytes: u64,
    },
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// The caller has the whole response.
    Answered(StatusCode),
    /// The work in a plug-in was done.
    Returned,
    /// The response had begun, and broke off: the caller left, the guest paused for too long, or failed.
    BrokenOff(StatusCode),
    /// There was no response.
    Failed(Failure),
    /// The caller left before there was a response.
    Abandoned,
}

/// Hears what happens to a workload. Cheap to clone.
#[derive(Clone)]
pub struct EventSink {
    hear: Arc<dyn Fn(Event) + Send + Sync>,
    broken_off_only: bool,
}

impl EventSink {
    /// Calls `hear` for each event, on the thread where it happened. It must not block.
    pub fn new(hear: impl Fn(Event) + Send + Sync + 'static) -> EventSink {
        EventSink {
            hear: Arc::new(hear),
            broken_off_only: false,
        }
    }

    /// Calls `hear` for each [`Event::BrokenOff`] and nothing else: with what [`Workload::call`](crate::Workload::call) returns that
    /// is every fault, and a call costs nothing more. It must not block.
    pub fn of_broken_off(hear: impl Fn(Failure) + Send + Sync + 'static) -> EventSink {
        EventSink {
            hear: Arc::new(move |event| {
                if let Event::BrokenOff { fault } = event {
                    hear(fault);
                }
            }),
            broken_off_only: true,
        }
    }

    pub(crate) fn hears_all(&self) -> bool {
        !self.broken_off_only
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.hear)(event);
    }
}

impl std::fmt::Debug for EventSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventSink")
    }
}

/// A call on its way to its one event.
pub(crate) struct CallReport {
    sink: EventSink,
    started: Instant,
    pub(crate) end: CallEnd,
}

impl CallReport {
    pub(crate) fn new(sink: &EventSink) -> CallReport {
        CallReport {
            sink: sink.clone(),
            started: Instant::now(),
            end: CallEnd::Abandoned,
        }
    }
}

impl Drop for CallReport {
    fn drop(&mut self) {
        self.sink.tell(Event::CallEnded {
            end: std::mem::replace(&mut self.end, CallEnd::Abandoned),
            duration: self.started.elapsed(),
        });
    }
}
