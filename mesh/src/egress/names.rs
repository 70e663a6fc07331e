//! The addresses of names outside of the cluster.
//!
//! The resolver is the machine's (`getaddrinfo`), so that a host is found here where the node's owner finds it, `/etc/hosts` and all. It
//! blocks, so that it runs on threads for blocking work, a bounded number at a time; callers that ask for the same name share one lookup,
//! which goes on when they stop waiting. What was found is kept for a moment, failures too.
//!
//! Invariants: of the lookups at most [`LOOKUPS_MAX`] run at a time, [`LOOKUPS_OF_ONE_MAX`] of them for one identity; a lookup is over
//! after [`LOOKUP_MAX`] for whoever waits for it; names that are kept are at most [`NAMES_MAX`].
//!
//! Left to others: whether an address may be called (`address.rs`), which is judged at each call anew.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, channel::oneshot, future::Shared};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lookups that run at a time on this node; each holds a thread for as long as name servers take to answer or not.
const LOOKUPS_MAX: usize = 32;
/// Of these for one identity: whoever asks for names that nobody answers leaves room to others.
const LOOKUPS_OF_ONE_MAX: usize = 8;
/// A resolver that does not answer by then is taken for one that does not know.
const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// How long it is believed that a name has no address, or cannot be asked for.
const FRESH_FAILURE: Duration = Duration::from_secs(3);
/// Names kept, of all identities: at most a megabyte.
const NAMES_MAX: usize = 1024;
/// Addresses of one name that are looked at.
const ADDRESSES_MAX: usize = 16;

/// What finds the addresses of a name.
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of `name` in the order in which they are to be tried; empty when it has none.
    fn resolve(&self, name: &str) -> Resolving;
}

/// The future of [`Resolve::resolve`].
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Why a name has no address.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LookupError {
    #[error("it has no address")]
    NoAddress,
    #[error("its name servers did not answer within {} seconds", LOOKUP_MAX.as_secs())]
    Timeout,
    #[error("{0}")]
    Failed(Arc<io::Error>),
}

type Answer = Result<Arc<[IpAddr]>, LookupError>;
type Lookup = Shared<oneshot::Receiver<Answer>>;

enum Known {
    Asking(Lookup),
    Answered { answer: Answer, until: Instant },
}

/// How many lookups one identity may have under way.
#[derive(Debug, Clone)]
pub(crate) struct Share(Arc<Semaphore>);

impl Default for Share {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS_OF_ONE_MAX)))
    }
}

/// The names of this node. Clones share them.
#[derive(Clone)]
pub(crate) struct Names {
    resolver: Arc<dyn Resolve>,
    fresh: Duration,
    known: Arc<Mutex<HashMap<Arc<str>, Known>>>,
}

impl Names {
    /// `fresh`: how long addresses are believed.
    pub(crate) fn new(resolver: Arc<dyn Resolve>, fresh: Duration) -> Self {
        Self {
            resolver,
            fresh,
            known: Arc::default(),
        }
    }

    /// The addresses of `name`, at least one, in the order in which they are to be tried.
    pub(crate) async fn addresses(&self, name: &Arc<str>, share: &Share) -> Answer {
        let looking = async {
            let lookup = match self.known(name) {
                Some(Known::Answered { answer, .. }) => return answer,
                Some(Known::Asking(lookup)) => lookup,
                None => {
                    // The semaphore is never closed.
                    let place = Arc::clone(&share.0).acquire_owned().await;
                    match self.known(name) {
                        Some(Known::Answered { answer, .. }) => return answer,
                        Some(Known::Asking(lookup)) => lookup,
                        None => self.ask(name, place.ok()),
                    }
                }
            };
            // The asking task always answers; if its runtime went away, so did the caller's.
            lookup.await.unwrap_or(Err(LookupError::Timeout))
        };
        tokio::time::timeout(LOOKUP_MAX, looking)
            .await
            .unwrap_or(Err(LookupError::Timeout))
    }

    fn known(&self, name: &str) -> Option<Known> {
        let known = self.known.lock();
        match known.get(name)? {
            Known::Asking(lookup) => Some(Known::Asking(lookup.clone())),
            Known::Answered { until, .. } if *until <= Instant::now() => None,
            Known::Answered { answer, until } => Some(Known::Answered {
                answer: answer.clone(),
                until: *until,
            }),
        }
    }

    /// Asks in a task of its own, so that the caller who asked first may give up.
    fn ask(&self, name: &Arc<str>, place: Option<OwnedSemaphorePermit>) -> Lookup {
        let mut known = self.known.lock();
        if let Some(Known::Asking(lookup)) = known.get(name) {
            // Somebody else was faster while this one waited for its turn.
            return lookup.clone();
        }
        if known.len() >= NAMES_MAX {
            make_room(&mut known);
        }
        let (done, lookup) = oneshot::channel();
        let lookup = lookup.shared();
        known.insert(Arc::clone(name), Known::Asking(lookup.clone()));
        drop(known);
        let resolving = self.resolver.resolve(name);
        let (name, known) = (Arc::clone(name), Arc::clone(&self.known));
        let fresh = self.fresh;
        tokio::spawn(async move {
            let _place = place;
            let mut resolving = resolving;
            let tried = tokio::time::timeout(LOOKUP_MAX, &mut resolving).await;
            let is_late = tried.is_err();
            let answer = match tried {
                Err(_) => Err(LookupError::Timeout),
                Ok(Err(error)) => Err(LookupError::Failed(Arc::new(error))),
                Ok(Ok(found)) if found.is_empty() => Err(LookupError::NoAddress),
                Ok(Ok(found)) => Ok(found.into_iter().take(ADDRESSES_MAX).collect()),
            };
            let fresh = if answer.is_ok() {
                fresh
            } else {
                fresh.min(FRESH_FAILURE)
            };
            let until = Instant::now() + fresh;
            let answered = Known::Answered {
                answer: answer.clone(),
                until,
            };
            known.lock().insert(name, answered);
            // Nobody may be waiting any more.
            let _ = done.send(answer);
            if is_late {
                // A thread of the resolver is at it for longer than anybody waits; so long it counts as one of this identity's.
                let _ = resolving.await;
            }
        });
        lookup
    }
}

/// Forgets what is old, or else what will be soonest: lookups under way are bounded by themselves.
fn make_room(known: &mut HashMap<Arc<str>, Known>) {
    let now = Instant::now();
    known.retain(|_, known| match known {
        Known::Asking(_) => true,
        Known::Answered { until, .. } => *until > now,
    });
    if known.len() < NAMES_MAX {
        return;
    }
    let answered = known.iter().filter_map(|(name, known)| match known {
        Known::Asking(_) => None,
        Known::Answered { until, .. } => Some((*until, Arc::clone(name))),
    });
    if let Some((_, oldest)) = answered.min() {
        known.remove(&oldest);
    }
}

/// The machine's own resolver.
pub(crate) struct System {
    lookups: Arc<Semaphore>,
}

impl Default for System {
    fn default() -> Self {
        Self {
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }
}

impl Resolve for System {
    fn resolve(&self, name: &str) -> Resolving {
        let (lookups, name) = (Arc::clone(&self.lookups), name.to_owned());
        Box::pin(async move {
            let place = lookups.acquire_owned().await.map_err(io::Error::other)?;
            let found = tokio::task::spawn_blocking(move || {
                // Held until the thread is free again, whether anybody still waits or not.
                let _place = place;
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip()).collect())
            });
            found.await.map_err(io::Error::other)?
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const FRESH: Duration = Duration::from_secs(10);

    /// Answers with as many addresses as it was asked before, after a second.
    #[derive(Default)]
    struct Counting(Arc<AtomicUsize>);

    impl Resolve for Counting {
        fn resolve(&self, _: &str) -> Resolving {
            let asked = self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(vec![[1, 1, 1, 1].into(); asked])
            })
        }
    }

    struct Silent;

    impl Resolve for Silent {
        fn resolve(&self, _: &str) -> Resolving {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn callers_share_a_lookup_and_failures_are_kept_as_well() {
        let asked = Arc::new(AtomicUsize::new(0));
        let names = Names::new(Arc::new(Counting(Arc::clone(&asked))), FRESH);
        let share = Share::default();
        let name: Arc<str> = "a.example".into();
        let all = (0..100).map(|_| names.addresses(&name, &share));
        for answer in futures::future::join_all(all).await {
            assert!(matches!(answer, Err(LookupError::NoAddress)));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(names.addresses(&name, &share).await.is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 1, "kept");
        let other: Arc<str> = "b.example".into();
        assert_eq!(names.addresses(&other, &share).await.expect("one").len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_nobody_answers_for_end_by_themselves_and_hold_up_nobody_else() {
        let names = Names::new(Arc::new(Silent), FRESH);
        let share = Share::default();
        let all = (0..100).map(|number| {
            let (names, share) = (names.clone(), share.clone());
            let name: Arc<str> = format!("{number}.example").into();
            async move { names.addresses(&name, &share).await }
        });
        let begun = tokio::time::Instant::now();
        for answer in futures::future::join_all(all).await {
            assert!(matches!(answer, Err(LookupError::Timeout)));
        }
        assert!(begun.elapsed() <= LOOKUP_MAX + Duration::from_secs(1));
        assert!(names.known.lock().len() <= LOOKUPS_OF_ONE_MAX);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut known = HashMap::new();
        for number in 0..NAMES_MAX {
            let name: Arc<str> = format!("{number}.example").into();
            let until = Instant::now() + FRESH + Duration::from_millis(number as u64);
            let answer = Err(LookupError::NoAddress);
            known.insert(name, Known::Answered { answer, until });
        }
        make_room(&mut known);
        assert_eq!(known.len(), NAMES_MAX - 1);
        assert!(!known.contains_key("0.example"), "the oldest");
    }

    #[tokio::test]
    async fn the_machines_resolver_knows_the_machine() {
        let found = System::default().resolve("localhost").await;
        assert!(found.expect("an answer").iter().all(IpAddr::is_loopback));
    }
}
