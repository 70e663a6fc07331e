//! What of a node's logging one container and one namespace may take: bytes a second, and bytes that wait to be written.
//!
//! A chunk costs more than its bytes: each line is stored with its time and stream, and each chunk that waits has a record. So
//! that one byte a write, or a line for each byte, costs its writer what it costs the node.
//!
//! Invariants: what waits on a node is at most [`NODE_WAITING_BYTES_MAX`] and [`GUARANTEED_BYTES`] for each namespace; a
//! namespace that has less than that waiting is never refused for what others have; what was admitted is given back when it is
//! dropped. Time is handed in.

use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// What a line takes in its file beside its bytes: time, stream, tag.
const LINE_COST_BYTES: u64 = 48;
/// What a chunk that waits takes beside its bytes.
const CHUNK_COST_BYTES: u64 = 128;

/// What a container may write for long, and at once.
pub(super) const CONTAINER: Rate = Rate {
    per_second: 4 << 20,
    burst: 8 << 20,
};
/// The same for all containers of a namespace: a disk of today takes several such namespaces.
pub(super) const NAMESPACE: Rate = Rate {
    per_second: 16 << 20,
    burst: 32 << 20,
};
/// What the node itself may add to the log of a run, such as why a request trapped. A guest's flood leaves it alone.
pub(super) const NOTES: Rate = Rate {
    per_second: 64 << 10,
    burst: 256 << 10,
};
/// What may wait for the disk of one namespace: a second of one container at its rate.
pub(super) const NAMESPACE_WAITING_BYTES_MAX: u64 = 4 << 20;
/// What may wait for the disk on a node: sixteen namespaces at their most.
pub(super) const NODE_WAITING_BYTES_MAX: u64 = 64 << 20;
/// What of a namespace may wait however much others have waiting: one of the largest chunks and some lines.
pub(super) const GUARANTEED_BYTES: u64 = 128 << 10;
/// What may wait of the node's own notes beyond the namespace's most.
const NOTES_WAITING_BYTES: u64 = 64 << 10;

/// Bytes a second, and at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) per_second: u64,
    pub(super) burst: u64,
}

/// Why something was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// The container writes faster than it may.
    Container,
    /// All containers of its namespace together do.
    Namespace,
    /// The disk is slower than its namespace writes.
    Waiting,
}

impl Limit {
    pub(super) const ALL: [Self; 3] = [Self::Container, Self::Namespace, Self::Waiting];

    /// What stands in the log where `bytes` were dropped.
    pub(super) fn tell(self, bytes: u64) -> String {
        let why = match self {
            Self::Container => format!(
                "the container logs more than {} bytes a second",
                CONTAINER.per_second
            ),
            Self::Namespace => format!(
                "the containers of its namespace log more than {} bytes a second on this node",
                NAMESPACE.per_second
            ),
            Self::Waiting => format!(
                "more than {NAMESPACE_WAITING_BYTES_MAX} bytes of its namespace wait for this node's disk"
            ),
        };
        format!("[weft: {bytes} bytes of log were dropped here: {why}]")
    }
}

/// What `chunk` takes of a rate, and of what may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) written: u64,
    pub(super) waiting: u64,
}

impl Cost {
    pub(super) fn of(chunk: &[u8]) -> Self {
        let bytes = chunk.len() as u64;
        let lines = chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
        Self {
            written: bytes + lines * LINE_COST_BYTES,
            waiting: bytes + CHUNK_COST_BYTES,
        }
    }
}

/// A token bucket in bytes.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    tokens: u64,
    at: Timestamp,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now: Timestamp) -> Self {
        Self {
            rate,
            tokens: rate.burst,
            at: now,
        }
    }

    pub(super) fn try_spend(&mut self, bytes: u64, now: Timestamp) -> bool {
        let elapsed = u64::try_from(now.duration_since(self.at).as_millis()).unwrap_or(0);
        let earned = elapsed.saturating_mul(self.rate.per_second) / 1000;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(self.rate.burst);
            self.at = now;
        }
        match self.tokens.checked_sub(bytes) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

/// The accounts of a node's namespaces; one is there as long as a run of the namespace is.
#[derive(Default)]
pub(super) struct Accounts {
    waiting: Arc<AtomicU64>,
    by_namespace: Mutex<HashMap<String, Weak<Account>>>,
}

impl Accounts {
    pub(super) fn of(&self, namespace: &str, now: Timestamp) -> Arc<Account> {
        let mut accounts = self.by_namespace.lock();
        if let Some(account) = accounts.get(namespace).and_then(Weak::upgrade) {
            return account;
        }
        accounts.retain(|_, account| account.strong_count() > 0);
        let account = Arc::new(Account {
            bucket: Mutex::new(Bucket::new(NAMESPACE, now)),
            waiting: AtomicU64::new(0),
            node: self.waiting.clone(),
        });
        accounts.insert(namespace.to_owned(), Arc::downgrade(&account));
        account
    }
}

/// What one namespace takes.
pub(super) struct Account {
    bucket: Mutex<Bucket>,
    waiting: AtomicU64,
    /// Of all namespaces.
    node: Arc<AtomicU64>,
}

impl Account {
    /// Takes what a guest wrote.
    ///
    /// # Errors
    /// The limit of the namespace that it meets.
    pub(super) fn admit(self: &Arc<Self>, cost: Cost, now: Timestamp) -> Result<Waiting, Limit> {
        if !self.bucket.lock().try_spend(cost.written, now) {
            return Err(Limit::Namespace);
        }
        self.wait(cost.waiting, NAMESPACE_WAITING_BYTES_MAX)
    }

    /// Takes what the node has to add, for which there is room of its own.
    ///
    /// # Errors
    /// When that is used up.
    pub(super) fn admit_note(self: &Arc<Self>, cost: Cost) -> Result<Waiting, Limit> {
        self.wait(
            cost.waiting,
            NAMESPACE_WAITING_BYTES_MAX + NOTES_WAITING_BYTES,
        )
    }

    fn wait(self: &Arc<Self>, bytes: u64, most: u64) -> Result<Waiting, Limit> {
        let mine = self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.node.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Given back at once where it is refused.
        let waiting = Waiting {
            account: self.clone(),
            bytes,
        };
        let fits = mine <= GUARANTEED_BYTES || (mine <= most && all <= NODE_WAITING_BYTES_MAX);
        if fits {
            Ok(waiting)
        } else {
            Err(Limit::Waiting)
        }
    }
}

/// A part of what may wait, given back when it is dropped.
pub(super) struct Waiting {
    account: Arc<Account>,
    bytes: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.account
            .waiting
            .fetch_sub(self.bytes, Ordering::Relaxed);
        self.account.node.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_000_000_000 + millis).expect("in range")
    }

    #[test]
    fn a_flood_is_dropped_at_the_rate() {
        let mut bucket = Bucket::new(CONTAINER, at(0));
        assert!(bucket.try_spend(CONTAINER.burst, at(0)));
        assert!(!bucket.try_spend(1, at(0)));
        assert!(bucket.try_spend(CONTAINER.per_second / 10, at(100)));
        assert!(!bucket.try_spend(CONTAINER.per_second, at(101)));
    }

    #[test]
    fn small_writes_and_short_lines_cost_what_they_cost_the_node() {
        for (chunk, written, waiting) in [
            (&b"x"[..], 1, 129),
            (b"\n", 49, 129),
            (b"a\nb\nc", 5 + 96, 5 + 128),
        ] {
            assert_eq!(Cost::of(chunk), Cost { written, waiting });
        }
    }

    #[test]
    fn no_namespace_is_refused_its_share_for_what_others_have_waiting() {
        let accounts = Accounts::default();
        let chunk = Cost {
            written: 0,
            waiting: 64 << 10,
        };
        let mut waiting = Vec::new();
        // More namespaces than the node has room for, each as greedy as it can be.
        for number in 0..40 {
            let account = accounts.of(&format!("greedy-{number}"), at(0));
            while let Ok(taken) = account.admit(chunk, at(0)) {
                waiting.push(taken);
            }
        }
        let all = accounts.waiting.load(Ordering::Relaxed);
        assert!(all > NODE_WAITING_BYTES_MAX - GUARANTEED_BYTES);
        assert!(all <= NODE_WAITING_BYTES_MAX + 40 * GUARANTEED_BYTES);
        let modest = accounts.of("modest", at(0));
        let line = Cost::of(b"one line\n");
        let taken: Vec<_> = (0..800).map(|_| modest.admit(line, at(0))).collect();
        assert!(taken.iter().all(Result::is_ok));
        drop((waiting, taken));
        assert_eq!(accounts.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn containers_of_a_namespace_share_its_rate_and_it_ends_with_them() {
        let accounts = Accounts::default();
        let (one, two) = (accounts.of("a", at(0)), accounts.of("a", at(0)));
        let half = Cost {
            written: NAMESPACE.burst / 2,
            waiting: 0,
        };
        assert!(one.admit(half, at(0)).is_ok());
        assert!(two.admit(half, at(0)).is_ok());
        assert_eq!(two.admit(half, at(0)).err(), Some(Limit::Namespace));
        assert!(accounts.of("b", at(0)).admit(half, at(0)).is_ok());
        drop((one, two));
        accounts.of("c", at(0));
        let names: Vec<String> = accounts.by_namespace.lock().keys().cloned().collect();
        assert_eq!(names, ["c"]);
    }
}
