//! How many calls each caller may make. Pure but for its lock; time comes in as monotonic nanoseconds.
//!
//! The algorithm is that of ATM networks for constant rates (GCRA): a caller has one number, when its last call would have been due, and
//! may be ahead of that by its burst.
//!
//! Invariants: of several limits a call counts at each or, where one refuses it, at none; callers that are remembered have a bound, and
//! beyond it those share one place that are not among them; who calls is what the host or a certificate says.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use weft_call::Peer;
use weft_gateway::{LimitedBy, RateLimit};

/// Callers that are remembered of one Service, about 100 bytes each.
const CALLERS_MAX: usize = 10_000;

/// The limits of one Service on one node.
#[derive(Debug)]
pub(crate) struct Limits {
    limits: Vec<RateLimit>,
    /// When the last call of a caller would have been due, by the place of its limit and by who shares it.
    due: Mutex<HashMap<(usize, Arc<str>), u64>>,
}

impl Limits {
    pub(crate) fn new(limits: Vec<RateLimit>) -> Self {
        Self {
            limits,
            due: Mutex::default(),
        }
    }

    /// Counts a call, or says after how long the next one would be taken.
    pub(crate) fn take(&self, peer: Option<&Peer>, now: u64) -> Result<(), Duration> {
        if self.limits.is_empty() {
            return Ok(());
        }
        let mut due = self.due.lock();
        let mut wait = 0;
        let mut next = Vec::with_capacity(self.limits.len());
        for (place, limit) in self.limits.iter().enumerate() {
            let who = (place, key(limit.by, peer));
            let who = match due.contains_key(&who) || has_room(&mut due, now) {
                true => who,
                // Nobody's own.
                false => (place, "".into()),
            };
            let gap = gap(limit);
            let ahead = gap.saturating_mul(u64::from(limit.burst.saturating_sub(1)));
            let last = due.get(&who).copied().unwrap_or(0).max(now);
            wait = wait.max(last.saturating_sub(now.saturating_add(ahead)));
            next.push((who, last.saturating_add(gap)));
        }
        if wait > 0 {
            return Err(Duration::from_nanos(wait));
        }
        due.extend(next);
        Ok(())
    }
}

/// Whether one more caller can be remembered; forgets those of whom nothing is due.
fn has_room(due: &mut HashMap<(usize, Arc<str>), u64>, now: u64) -> bool {
    if due.len() >= CALLERS_MAX {
        due.retain(|_, due| *due > now);
    }
    due.len() < CALLERS_MAX
}

/// Nanoseconds from one call to the next.
fn gap(limit: &RateLimit) -> u64 {
    let per = u64::try_from(limit.per.as_nanos()).unwrap_or(u64::MAX);
    (per / u64::from(limit.requests.max(1))).max(1)
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
    use weft_gateway::Across;

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

    #[test]
    fn callers_that_are_remembered_have_a_bound() {
        let limits = Limits::new(vec![limit(LimitedBy::ServiceAccount, 1, 1)]);
        for number in 0..CALLERS_MAX + 50 {
            let _ = limits.take(Some(&peer("x", &number.to_string())), 0);
        }
        assert!(limits.due.lock().len() <= CALLERS_MAX + 1);
        assert!(
            limits.take(Some(&peer("x", "late")), 0).is_err(),
            "a place is shared"
        );
        assert!(
            limits
                .take(Some(&peer("x", "later")), 3_000 * MILLI)
                .is_ok()
        );
        assert!(limits.due.lock().len() < 10, "those were forgotten");
    }
}
