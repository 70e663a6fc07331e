//! Room for another instance, where others have what there is of it: memory of the workload, seats of its account.
//!
//! An instance at work ends with its call, and one that is idle soon after it is told to. So a call for which there is no room waits a
//! while before it is refused: whoever sends more than there is room for at once is served a little later, and whoever goes on to
//! do so is not answered as fast as it can ask, at the expense of everybody else.
//!
//! Invariants: a call waits no longer than [`ROOM_WITHIN`], and not at all while there is room, or where nobody is there who could make
//! some; who came first is looked after first; nobody wakes anybody when nobody waits.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::Notify;

use crate::instance::after;
use crate::waiters::Waiters;

/// How long a call waits for others to end. Short enough to be made elsewhere, or told, in time.
pub(crate) const ROOM_WITHIN: Duration = Duration::from_millis(500);

/// The word that an instance has ended, for those who wait for what it had.
#[derive(Default)]
pub(crate) struct Room {
    waiting: Waiters,
    made: Notify,
}

impl Room {
    pub(crate) fn is_made(&self) {
        // Almost always nobody waits, and the others do not meet here.
        if self.waiting.anybody() {
            self.made.notify_one();
        }
    }

    /// Looks whether there is room, and again whenever some was made, until `look` finds some or it takes too long: then its last refusal.
    pub(crate) async fn wait<T, E>(&self, mut look: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        let until = after(ROOM_WITHIN);
        let _waits = self.waiting.wait();
        loop {
            let mut made = pin!(self.made.notified());
            // From here on no word is missed.
            made.as_mut().enable();
            match look() {
                Ok(found) => {
                    // There may be room for the next one, too.
                    self.made.notify_one();
                    return Ok(found);
                }
                Err(refusal) => {
                    if tokio::time::timeout_at(until, made).await.is_err() {
                        return Err(refusal);
                    }
                }
            }
        }
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_came_first_is_looked_after_first_and_nobody_waits_for_ever() {
        let (room, places) = (Room::default(), AtomicU32::new(0));
        let take = || {
            let taken = places.fetch_update(Relaxed, Relaxed, |places| places.checked_sub(1));
            taken.map(drop)
        };
        let order = parking_lot::Mutex::new(Vec::new());
        let call = async |name| {
            let found = room.wait(take).await.is_ok();
            order.lock().push((name, found));
        };
        let make = async {
            tokio::time::sleep(ROOM_WITHIN / 2).await;
            places.fetch_add(2, Relaxed);
            // One word: the first passes it on.
            room.is_made();
        };
        tokio::join!(call("first"), call("second"), call("third"), make);
        let expected = [("first", true), ("second", true), ("third", false)];
        assert_eq!(*order.lock(), expected);
    }
}
