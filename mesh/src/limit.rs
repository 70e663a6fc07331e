//! How many calls each caller may make. Pure but for its lock; time comes in as monotonic nanoseconds.
//!
//! The algorithm is that of ATM networks for constant rates (GCRA): a caller has one number, when its last call would have been due, and
//! may be ahead of that by its burst.
//!
//! What other nodes let in of a limit that is counted over all of them (`share.rs`) moves the same number.
//!
//! Invariants: of several limits a call counts at each or, where one refuses it, at none; callers that are remembered have a bound, and
//! beyond it those share one place that are not among them; who calls is what the host or a certificate says.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use weft_api::hash::fnv1a_64;
use weft_call::Peer;
use weft_gateway::{Across, LimitedBy, RateLimit};

/// Callers that are remembered of one Service, about 100 bytes each.
const CALLERS_MAX: usize = 10_000;

/// What other nodes let in is owed for so many times the time of a limit at most: who tells nonsense closes no Service for ever.
const DEBT_MAX: u64 = 16;

/// The limits of one Service on one node.
#[derive(Debug)]
pub(crate) struct Limits {
    limits: Vec<RateLimit>,
    counted: Mutex<Counted>,
}

/// A limit by its place, and who shares it.
type Who = (usize, Arc<str>);

#[derive(Debug, Default)]
struct Counted {
    /// When the last call of a caller would have been due.
    due: HashMap<Who, u64>,
    /// Calls that were let in and that other nodes were not told of, where a limit is counted over all of them.
    untold: HashMap<Who, u32>,
}

impl Limits {
    pub(crate) fn new(limits: Vec<RateLimit>) -> Self {
        Self {
            limits,
            counted: Mutex::default(),
        }
    }

    /// Counts a call, or says after how long the next one would be taken.
    pub(crate) fn take(&self, peer: Option<&Peer>, now: u64) -> Result<(), Duration> {
        if self.limits.is_empty() {
            return Ok(());
        }
        let mut counted = self.counted.lock();
        let mut wait = 0;
        let mut next = Vec::with_capacity(self.limits.len());
        for (place, limit) in self.limits.iter().enumerate() {
            let who = counted.place((place, key(limit.by, peer)), now);
            let gap = gap(limit);
            let last = counted.due.get(&who).copied().unwrap_or(0).max(now);
            wait = wait.max(last.saturating_sub(now.saturating_add(ahead(limit))));
            next.push((who, last.saturating_add(gap)));
        }
        if wait > 0 {
            return Err(Duration::from_nanos(wait));
        }
        let shared = next.iter().zip(&self.limits);
        let shared = shared.filter(|(_, limit)| limit.across == Across::Cluster);
        for ((who, _), _) in shared {
            // Where nobody tells, nothing is kept for that without end.
            if counted.untold.len() < CALLERS_MAX || counted.untold.contains_key(who) {
                let calls = counted.untold.entry(who.clone()).or_default();
                *calls = calls.saturating_add(1);
            }
        }
        counted.due.extend(next);
        Ok(())
    }

    /// What other nodes are to be told of, of so many callers at most: a limit, who shares it, and calls.
    pub(crate) fn take_untold(&self, most: usize) -> Vec<(u64, Arc<str>, u32)> {
        let mut counted = self.counted.lock();
        let some: Vec<Who> = counted.untold.keys().take(most).cloned().collect();
        let told = some.into_iter().filter_map(|who| {
            let calls = counted.untold.remove(&who)?;
            let limit = self.limits.get(who.0)?;
            Some((name(who.0, limit), who.1, calls))
        });
        told.collect()
    }

    /// Counts calls that another node let in. Whether there is such a limit.
    pub(crate) fn hear(&self, limit: u64, who: &str, calls: u32, now: u64) -> bool {
        let mut limits = self.limits.iter().enumerate();
        let found =
            limits.find(|(place, one)| one.across == Across::Cluster && name(*place, one) == limit);
        let Some((place, limit)) = found else {
            return false;
        };
        let mut counted = self.counted.lock();
        let who = counted.place((place, who.into()), now);
        let last = counted.due.get(&who).copied().unwrap_or(0).max(now);
        let next = last.saturating_add(gap(limit).saturating_mul(u64::from(calls)));
        let longest = nanos(limit.per).saturating_mul(DEBT_MAX);
        let longest = now.saturating_add(ahead(limit)).saturating_add(longest);
        counted.due.insert(who, next.min(longest));
        true
    }
}

impl Counted {
    /// Where a caller is counted: at its own place, or where there is no room for one, at nobody's own.
    fn place(&mut self, who: Who, now: u64) -> Who {
        match self.due.contains_key(&who) || has_room(&mut self.due, now) {
            true => who,
            false => (who.0, "".into()),
        }
    }
}

/// Whether one more caller can be remembered; forgets those of whom nothing is due.
fn has_room(due: &mut HashMap<Who, u64>, now: u64) -> bool {
    if due.len() >= CALLERS_MAX {
        due.retain(|_, due| *due > now);
    }
    due.len() < CALLERS_MAX
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds from one call to the next.
fn gap(limit: &RateLimit) -> u64 {
    (nanos(limit.per) / u64::from(limit.requests.max(1))).max(1)
}

/// How far ahead of its time a caller may be.
fn ahead(limit: &RateLimit) -> u64 {
    gap(limit).saturating_mul(u64::from(limit.burst.saturating_sub(1)))
}

/// What nodes call a limit among themselves: one that a policy says otherwise is another.
fn name(place: usize, limit: &RateLimit) -> u64 {
    let RateLimit {
        by,
        requests,
        per,
        burst,
        across: _,
    } = limit;
    let text = format!("{place} {by:?} {requests} {} {burst}", nanos(*per));
    fnv1a_64(text.bytes())
}

/// Who shares a limit with whoever calls.
fn key(by: LimitedBy, peer: Option<&Peer>) -> Arc<str> {
    match (by, peer) {
        (LimitedBy::ServiceAccount, Some(peer)) => Arc::clone(&peer.spiffe_id),
        (LimitedBy::Namespace, Some(peer)) => Arc::clone(&peer.namespace),
        (LimitedBy::Everyone, _) | (_, None) => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use weft_call::Transport;

    use super::*;

    const MILLI: u64 = 1_000_000;

    fn peer(namespace: &str, account: &str) -> Peer {
        Peer {
            spiffe_id: format!("spiffe://cluster.local/ns/{namespace}/sa/{account}").into(),
            namespace: namespace.into(),
            service_account: account.into(),
            workload: "".into(),
            transport: Transport::InProcess,
        }
    }

    fn limit(by: LimitedBy, requests: u32, burst: u32) -> RateLimit {
        RateLimit {
            by,
            requests,
            per: Duration::from_secs(1),
            burst,
            across: Across::Node,
        }
    }

    #[test]
    fn a_burst_then_the_rate_for_each_caller() {
        let limits = Limits::new(vec![limit(LimitedBy::ServiceAccount, 10, 3)]);
        let taken = |who: &Peer, now: u64| {
            let taken = (0..100).take_while(|_| limits.take(Some(who), now).is_ok());
            taken.count()
        };
        let (a, b) = (peer("shop", "a"), peer("shop", "b"));
        assert_eq!(taken(&a, 0), 3);
        assert_eq!(
            limits.take(Some(&a), 0),
            Err(Duration::from_millis(100)),
            "when it may come again"
        );
        assert_eq!(taken(&b, 0), 3, "another caller has its own");
        assert_eq!(taken(&a, 100 * MILLI), 1);
        assert_eq!(taken(&a, 350 * MILLI), 2);
        assert_eq!(
            taken(&a, 60_000 * MILLI),
            3,
            "no more than a burst is saved"
        );
    }

    #[test]
    fn whoever_shares_a_limit_shares_it_and_all_limits_hold() {
        let limits = Limits::new(vec![
            limit(LimitedBy::Namespace, 4, 4),
            limit(LimitedBy::Everyone, 6, 6),
        ]);
        let (a, b, c) = (peer("x", "a"), peer("x", "b"), peer("y", "c"));
        let ok = |who: &Peer| limits.take(Some(who), 0).is_ok();
        assert!(ok(&a) && ok(&b) && ok(&a) && ok(&b));
        assert!(!ok(&a) && !ok(&b), "the namespace has had its four");
        assert!(ok(&c) && ok(&c), "refused calls were counted nowhere");
        assert!(!ok(&c), "six in all");
        assert!(limits.take(None, 1).is_err());
    }

    /// Two nodes that tell each other now and then let in as much as one would, up to what they did not know of yet.
    #[test]
    fn what_another_node_let_in_counts_here() {
        let shared = || {
            Limits::new(vec![RateLimit {
                across: Across::Cluster,
                ..limit(LimitedBy::Namespace, 10, 10)
            }])
        };
        let (a, b) = (shared(), shared());
        let (who, others) = (peer("shop", "x"), peer("else", "x"));
        let taken = |of: &Limits, now: u64| {
            let taken = (0..100).take_while(|_| of.take(Some(&who), now).is_ok());
            taken.count()
        };
        let tell = |from: &Limits, to: &Limits, now: u64| {
            for (limit, who, calls) in from.take_untold(10) {
                assert!(to.hear(limit, &who, calls, now));
            }
        };
        let mut all = 0;
        for tick in 0..100 {
            let now = tick * 100 * MILLI;
            all += taken(&a, now) + taken(&b, now);
            tell(&a, &b, now);
            tell(&b, &a, now);
        }
        // Ten a second for ten seconds and a burst; and what each could not know: another burst, and a call an interval.
        assert!((100..=131).contains(&all), "{all}");
        assert!(a.take_untold(10).is_empty(), "it is told once");
        assert!(b.take(Some(&others), 0).is_ok(), "nobody else pays for it");
        // Of other limits, and of one that is counted at each node, nothing is taken in.
        assert!(!a.hear(1, "shop", 5, 0));
        let own = Limits::new(vec![limit(LimitedBy::Namespace, 10, 10)]);
        let told = (name(0, &own.limits[0]), "shop", 5);
        assert!(!own.hear(told.0, told.1, told.2, 0));
        assert!(own.take(Some(&who), 0).is_ok() && own.take_untold(10).is_empty());
        // Nonsense is owed for a while, and not for ever.
        let one = shared();
        assert!(one.hear(name(0, &one.limits[0]), "shop", u32::MAX, 0));
        assert!(one.take(Some(&who), 10_000 * MILLI).is_err());
        assert!(one.take(Some(&who), 18_000 * MILLI).is_ok());
    }

    #[test]
    fn callers_that_are_remembered_have_a_bound() {
        let limits = Limits::new(vec![limit(LimitedBy::ServiceAccount, 1, 1)]);
        for number in 0..CALLERS_MAX + 50 {
            let _ = limits.take(Some(&peer("x", &number.to_string())), 0);
        }
        assert!(limits.counted.lock().due.len() <= CALLERS_MAX + 1);
        assert!(
            limits.take(Some(&peer("x", "late")), 0).is_err(),
            "a place is shared"
        );
        assert!(
            limits
                .take(Some(&peer("x", "later")), 3_000 * MILLI)
                .is_ok()
        );
        assert!(limits.counted.lock().due.len() < 10, "those were forgotten");
    }
}
