//! Memory for another instance, where idle ones have what is left.
//!
//! An idle instance of WASI 0.2 is a value, and is ended by whoever wants its memory. One of 0.3 is a task that only ends itself, on
//! its core and soon; a call waits for that here.
//!
//! Invariants: a call waits no longer than [`ROOM_WITHIN`], and not at all while there is memory; nobody wakes anybody when nobody
//! waits.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::Notify;

use crate::waiters::Waiters;
use crate::workload::Inner;

/// How long a call waits for idle instances of WASI 0.3, which end by themselves, to make room for its own.
const ROOM_WITHIN: Duration = Duration::from_millis(100);

/// The word that an instance has ended, for those who wait for its memory.
#[derive(Default)]
pub(crate) struct Room {
    waiting: Waiters,
    made: Notify,
}

impl Room {
    pub(crate) fn is_made(&self) {
        // Almost always nobody waits, and the others do not meet here.
        if self.waiting.anybody() {
            self.made.notify_waiters();
        }
    }

    /// Ends idle instances of `workload` until there is memory for another, as long as that may take.
    pub(crate) async fn make(&self, workload: &Inner) {
        let needed = workload.artifact().initial_memory_bytes();
        if workload.memory().has_room(needed) {
            return;
        }
        let _waits = self.waiting.wait();
        let made = async {
            loop {
                let mut made = pin!(self.made.notified());
                // From here on no word is missed.
                made.as_mut().enable();
                workload.end_idle();
                if workload.memory().has_room(needed) || !workload.has_idle() {
                    return;
                }
                made.await;
            }
        };
        // Elapsed: the call is refused as it would have been, with its reason.
        let _ = tokio::time::timeout(ROOM_WITHIN, made).await;
    }
}
