//! openraft's watch channel in the tests: those who wait are woken in the order in which they came.
//!
//! Tokio's wakes them in an order of its own choosing, which is good for contention and bad for replaying a seed.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use openraft::async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use openraft::{OptionalSend, OptionalSync};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

#[derive(Default)]
struct Ends {
    version: u64,
    senders: usize,
    receivers: usize,
    waiting: Vec<Waker>,
}

struct Shared<T> {
    value: RwLock<T>,
    ends: Mutex<Ends>,
}

impl<T> Shared<T> {
    fn changed(&self) {
        let waiting = {
            let mut ends = self.ends.lock();
            ends.version += 1;
            std::mem::take(&mut ends.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }

    fn receiver(self: &Arc<Self>) -> Receiver<T> {
        let mut ends = self.ends.lock();
        ends.receivers += 1;
        Receiver {
            shared: Arc::clone(self),
            seen: ends.version,
        }
    }
}

/// The kind of channel.
pub(crate) struct Channel;

pub(crate) struct Sender<T>(Arc<Shared<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.ends.lock().senders += 1;
        Sender(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waiting = {
            let mut ends = self.0.ends.lock();
            ends.senders -= 1;
            if ends.senders > 0 {
                return;
            }
            std::mem::take(&mut ends.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }
}

pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.ends.lock().receivers += 1;
        Receiver {
            shared: Arc::clone(&self.shared),
            seen: self.seen,
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.ends.lock().receivers -= 1;
    }
}

impl Watch for Channel {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = RwLockReadGuard<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let shared = Arc::new(Shared {
            value: RwLock::new(init),
            ends: Mutex::new(Ends {
                senders: 1,
                ..Ends::default()
            }),
        });
        let receiver = shared.receiver();
        (Sender(shared), receiver)
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<Channel, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.ends.lock().receivers == 0 {
            return Err(SendError(value));
        }
        *self.0.value.write() = value;
        self.0.changed();
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        let modified = modify(&mut self.0.value.write());
        if modified {
            self.0.changed();
        }
        modified
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.0.value.read()
    }

    fn subscribe(&self) -> Receiver<T> {
        self.0.receiver()
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<Channel, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        poll_fn(|context| {
            let mut ends = self.shared.ends.lock();
            if ends.version != self.seen {
                self.seen = ends.version;
                return Poll::Ready(Ok(()));
            }
            if ends.senders == 0 {
                return Poll::Ready(Err(RecvError(())));
            }
            let waker = context.waker();
            if !ends.waiting.iter().any(|other| other.will_wake(waker)) {
                ends.waiting.push(waker.clone());
            }
            Poll::Pending
        })
        .await
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.shared.value.read()
    }

    fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        // The version first: a change in between is then seen twice, not missed.
        self.seen = self.shared.ends.lock().version;
        self.shared.value.read()
    }
}
