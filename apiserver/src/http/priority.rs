//! A place among the requests in flight, by who asks and for what.
//!
//! Each [`Level`] has places of its own, so that no flood of one takes a place from another: whatever users do, nodes
//! renew their leases, and whatever nodes do, administrators get in. Within a level nobody holds more than his share.
//! A request without a place waits for one, a short while and in a short queue, with nothing but its head in memory;
//! then it is told to come back. After Kubernetes' priority and fairness, with levels that are fixed.
//!
//! Invariants: chosen from proof (an authenticated [`Caller`] and a decoded [`RequestInfo`] that was authorised), never
//! from what a client says of itself; every pool, queue and wait is bounded. A place is given back when its [`Place`]
//! goes. Left to others: how long it is held (`super::deadline`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weft_api::status::StatusError;
use weft_kinds::Subresource;

use crate::caller::{Caller, GROUP_MASTERS};
use crate::request::{Asked, RequestInfo};

/// Longest wait for a place. Clients give up after ten seconds or more, and a lease has to be renewed in less.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Seconds after which a request that found no place is worth another try.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Who comes before whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What a node must say to count as alive: its lease, its status.
    NodeHigh,
    /// All else that nodes ask.
    System,
    /// What nodes ask for the pods on them, which must not keep them from what they ask for themselves.
    Data,
    Administration,
    /// Everybody else who showed a credential.
    Workload,
    /// Strangers, who may see whether this server is there.
    CatchAll,
}

impl Level {
    const ALL: [Self; 6] = [
        Self::NodeHigh,
        Self::System,
        Self::Data,
        Self::Administration,
        Self::Workload,
        Self::CatchAll,
    ];

    pub fn of(caller: &Caller, info: &RequestInfo) -> Self {
        if caller.node_name().is_some() {
            return if keeps_alive(info) {
                Self::NodeHigh
            } else if is_data(info) {
                Self::Data
            } else {
                Self::System
            };
        }
        if caller.in_group(GROUP_MASTERS) {
            return Self::Administration;
        }
        if caller.is_anonymous() {
            return Self::CatchAll;
        }
        Self::Workload
    }

    /// Reads and writes at a time in all, and how many one user has or waits for. The sums are those of Kubernetes' `--max-requests-inflight`
    /// (400) and `--max-mutating-requests-inflight` (200); nodes come on top, for they need little and at once. Kubernetes exempts
    /// administrators; here as many as a thousand requests of one wait for the places there are.
    const fn bounds(self) -> Bounds {
        let (reads, writes, reads_each, writes_each) = match self {
            Self::NodeHigh => (100, 200, 8, 8),
            Self::System => (200, 200, 32, 32),
            // All of it is asked by POST, which counts as writing.
            Self::Data => (1, 200, 1, 64),
            Self::Administration => (200, 200, 1000, 1000),
            Self::Workload => (200, 100, 100, 50),
            Self::CatchAll => (20, 4, 20, 4),
        };
        Bounds {
            reads: Bound {
                all: reads,
                each: reads_each,
            },
            writes: Bound {
                all: writes,
                each: writes_each,
            },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::NodeHigh => "node-high",
            Self::System => "system",
            Self::Data => "data",
            Self::Administration => "administration",
            Self::Workload => "workload",
            Self::CatchAll => "catch-all",
        }
    }
}

/// Leases and the node's own object: without them a node is taken for dead.
fn keeps_alive(info: &RequestInfo) -> bool {
    match &info.asked {
        Asked::Resource(one) => {
            let stored = one.kind.stored();
            *stored == *weft_kinds::LEASE || (*stored == *weft_kinds::NODE && one.name.is_some())
        }
        _ => false,
    }
}

fn is_data(info: &RequestInfo) -> bool {
    matches!(&info.asked, Asked::Resource(one) if one.subresource == Some(Subresource::Data))
}

struct Bounds {
    reads: Bound,
    writes: Bound,
}

#[derive(Clone, Copy)]
struct Bound {
    all: usize,
    each: usize,
}

/// All places of a server.
pub struct Places {
    /// Parallel to [`Level::ALL`].
    levels: Vec<(Arc<Pool>, Arc<Pool>)>,
}

impl Default for Places {
    fn default() -> Self {
        let pools = |level: Level| {
            let bounds = level.bounds();
            (
                Arc::new(Pool::new(bounds.reads)),
                Arc::new(Pool::new(bounds.writes)),
            )
        };
        Self {
            levels: Level::ALL.into_iter().map(pools).collect(),
        }
    }
}

impl Places {
    /// Waits for a place of `level`.
    ///
    /// # Errors
    /// 429 when there is none for this user, or none came free in time.
    pub async fn take(&self, level: Level, user: &str, writes: bool) -> Result<Place, StatusError> {
        let (reading, writing) = &self.levels[level as usize];
        let pool = if writes { writing } else { reading };
        let taken = pool.take(user).await;
        if taken.is_none() {
            tracing::debug!(level = level.name(), user, writes, "no place for a request");
        }
        taken.ok_or_else(|| {
            StatusError::too_many_requests(
                "too many requests, please try again later",
                RETRY_AFTER_SECONDS,
            )
        })
    }
}

#[cfg(test)]
impl Places {
    /// How many places of a level are taken.
    pub(super) fn held(&self, level: Level, writes: bool) -> usize {
        let (reading, writing) = &self.levels[level as usize];
        let pool = if writes { writing } else { reading };
        pool.bound.all - pool.free.available_permits()
    }
}

/// Places that one level has for reads or for writes.
struct Pool {
    bound: Bound,
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// How many places each user holds or waits for.
    users: Mutex<HashMap<String, usize>>,
}

/// One place; dropping it gives it back.
#[must_use]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

/// One of a user's own places, taken before the common one is waited for.
struct Share {
    pool: Arc<Pool>,
    user: String,
}

/// One who waits, counted.
struct Waiting<'a>(&'a AtomicUsize);

impl Pool {
    fn new(bound: Bound) -> Self {
        Self {
            bound,
            free: Arc::new(Semaphore::new(bound.all)),
            waiting: AtomicUsize::new(0),
            users: Mutex::default(),
        }
    }

    async fn take(self: &Arc<Self>, user: &str) -> Option<Place> {
        let share = self.share(user)?;
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                // As many may wait as may be served, or as one user may have: more would wait in vain.
                let waiting = Waiting(&self.waiting);
                if waiting.0.fetch_add(1, Ordering::Relaxed) >= self.bound.all.max(self.bound.each)
                {
                    return None;
                }
                let acquire = Arc::clone(&self.free).acquire_owned();
                tokio::time::timeout(WAIT_MAX, acquire).await.ok()?.ok()?
            }
        };
        Some(Place {
            _permit: permit,
            _share: share,
        })
    }

    fn share(self: &Arc<Self>, user: &str) -> Option<Share> {
        let mut users = self.users.lock();
        match users.get_mut(user) {
            Some(held) if *held >= self.bound.each => return None,
            Some(held) => *held += 1,
            None => {
                users.insert(user.to_owned(), 1);
            }
        }
        Some(Share {
            pool: Arc::clone(self),
            user: user.to_owned(),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut users = self.pool.users.lock();
        if let Some(held) = users.get_mut(&self.user) {
            *held -= 1;
            if *held == 0 {
                users.remove(&self.user);
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn levels_follow_from_who_asks_and_for_what() {
        let node = Caller::client_certificate("system:node:a", vec!["system:nodes".to_owned()]);
        let admin = Caller::client_certificate("root", vec!["system:masters".to_owned()]);
        let user = Caller::client_certificate("jo", vec![]);
        let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a";
        for (caller, method, path, level) in [
            (&node, "PUT", lease, Level::NodeHigh),
            (&node, "PATCH", "/api/v1/nodes/a/status", Level::NodeHigh),
            (&node, "GET", "/api/v1/nodes", Level::System),
            (
                &node,
                "PATCH",
                "/api/v1/namespaces/x/pods/p/status",
                Level::System,
            ),
            (
                &node,
                "POST",
                "/apis/weft.dev/v1alpha1/namespaces/x/keyvaluestores/s/data",
                Level::Data,
            ),
            (&admin, "PUT", lease, Level::Administration),
            (&user, "PUT", lease, Level::Workload),
            (&Caller::anonymous(), "PUT", lease, Level::CatchAll),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let info = RequestInfo::of(
                &weft_kinds::Registry::builtin(),
                &method,
                &path.parse().unwrap(),
            );
            assert_eq!(Level::of(caller, &info), level, "{caller} {path}");
        }
        for (index, level) in Level::ALL.into_iter().enumerate() {
            assert_eq!(level as usize, index);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_level_waits_a_while_and_touches_no_other() {
        let places = Places::default();
        let bound = Level::Workload.bounds().writes;
        let mut held = Vec::new();
        for user in ["a", "b"] {
            for _ in 0..bound.each {
                held.push(places.take(Level::Workload, user, true).await.unwrap());
            }
            // One user has his share and no more, at once.
            assert_eq!(
                places
                    .take(Level::Workload, user, true)
                    .await
                    .err()
                    .unwrap()
                    .code,
                429
            );
        }
        assert_eq!(held.len(), bound.all);
        // The level is full for everybody, and only this one.
        assert_eq!(
            places
                .take(Level::Workload, "c", true)
                .await
                .err()
                .unwrap()
                .code,
            429
        );
        let _other = places.take(Level::Workload, "c", false).await.unwrap();
        let _node = places.take(Level::NodeHigh, "n", true).await.unwrap();
        // Who waits gets the next place that comes free.
        let (got, ()) = tokio::join!(places.take(Level::Workload, "c", true), async {
            tokio::task::yield_now().await;
            held.pop();
        });
        assert!(got.is_ok());
        drop((got, held));
        let pool = &places.levels[Level::Workload as usize].1;
        assert!(pool.users.lock().is_empty());
        assert_eq!(pool.waiting.load(Ordering::Relaxed), 0);
        assert_eq!(pool.free.available_permits(), bound.all);
    }

    #[tokio::test(start_paused = true)]
    async fn many_requests_of_one_administrator_wait_for_each_other() {
        let places = Arc::new(Places::default());
        let bound = Level::Administration.bounds().writes;
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..bound.each {
            let places = Arc::clone(&places);
            asking.spawn(async move {
                let place = places.take(Level::Administration, "root", true).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
                place.is_ok()
            });
        }
        // Each of them gets its turn.
        for _ in 0..bound.each {
            tokio::task::yield_now().await;
        }
        assert_eq!(places.held(Level::Administration, true), bound.all);
        // One more of the same has no share, and is told at once; what somebody else asks waits with the others.
        let refused = places.take(Level::Administration, "root", true).await;
        assert_eq!(refused.err().unwrap().code, 429);
        assert!(
            places
                .take(Level::Administration, "other", true)
                .await
                .is_ok()
        );
        let all = asking.join_all().await;
        assert_eq!(all.iter().filter(|got| **got).count(), bound.each);
        assert_eq!(places.held(Level::Administration, true), 0);
    }
}
