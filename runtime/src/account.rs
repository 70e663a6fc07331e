//! Who may have how much of what an engine has a fixed number of: instances, memories, tables and fibers.
//!
//! An account is a tenant's, such as a namespace's. The embedder names it ([`WorkloadBuilder::account`]), and all workloads of
//! that name on one engine share it. Half of each pool is guaranteed, in equal parts to the accounts there are; the rest is lent: an
//! account may borrow while what it has borrowed is no more than [`pool::BORROWED_TO_LEFT_MAX`] times what is left to lend, as switches
//! share their buffers (Choudhury and Hahne, "Dynamic Queue Length Thresholds", IEEE/ACM ToN 1998). One that is alone gets nine
//! tenths of everything, two that want all of it the same, and whoever comes next always finds something.
//!
//! A [`Seat`] is taken before an instance starts and given back when it ends: a call to an instance that waits touches nothing here.
//! Everything is counted in atomics; there is a lock only where accounts are named and where idle instances are looked for.
//!
//! Invariants: no more is given out than there is; what a seat took it gives back; an account that has less than its guarantee is
//! refused only while others still have what was theirs when there were fewer accounts; a refusal says whose account it is.
//!
//! [`WorkloadBuilder::account`]: crate::WorkloadBuilder::account

mod faults;
mod pool;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use weft_turns::Tenant;

use crate::account::faults::Faults;
use crate::account::pool::{Pool, Share, Taken, give_back, guarantee, take};
use crate::engine::Calls;
use crate::room::Room;
use crate::workload::Inner as WorkloadInner;

/// The account of workloads that were built without one.
pub(crate) const UNNAMED: &str = "default";

/// What there is a fixed number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooled {
    /// Each comes with one memory, three tables and one fiber: what almost every component needs.
    Instances,
    /// Memories beyond the one that comes with an instance.
    Memories,
    /// Tables beyond those that come with an instance.
    Tables,
    /// Fibers beyond the one that comes with an instance: one for each task that waits in a guest of WASI 0.3.
    Fibers,
}

impl Pooled {
    const ALL: [Pooled; 4] = [
        Pooled::Instances,
        Pooled::Memories,
        Pooled::Tables,
        Pooled::Fibers,
    ];
}

impl fmt::Display for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Pooled::Instances => "instances",
            Pooled::Memories => "further memories",
            Pooled::Tables => "further tables",
            Pooled::Fibers => "further fibers",
        })
    }
}

/// Fibers that there are for each instance, beside its own: a stack each, of which most are never touched.
const FIBERS_PER_INSTANCE: u32 = 4;
/// Memories and tables that come with an instance.
const MEMORIES_INCLUDED: u32 = 1;
const TABLES_INCLUDED: u32 = 3;

/// How many of each kind, in the order of [`Pooled::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts([u32; 4]);

impl Amounts {
    /// What an engine with room for `instances` has of each.
    pub(crate) fn of_engine(instances: u32) -> Amounts {
        Amounts([
            instances,
            instances / 2,
            instances,
            instances.saturating_mul(FIBERS_PER_INSTANCE),
        ])
    }

    /// What one instance of a component takes that has so many memories and tables.
    pub(crate) fn of_instance(memories: u32, tables: u32) -> Amounts {
        Amounts([
            1,
            memories.saturating_sub(MEMORIES_INCLUDED),
            tables.saturating_sub(TABLES_INCLUDED),
            0,
        ])
    }

    /// Memories, tables and fibers that an engine has to have for it, for one kind of machine code.
    pub(crate) fn slots(self, calls: Calls) -> [u32; 3] {
        let [instances, memories, tables, fibers] = self.0;
        let fibers = match calls {
            // The one that an instance comes with, and another while it is made.
            Calls::Serial => instances,
            Calls::Concurrent => fibers,
        };
        [
            instances
                .saturating_mul(MEMORIES_INCLUDED)
                .saturating_add(memories),
            instances
                .saturating_mul(TABLES_INCLUDED)
                .saturating_add(tables),
            instances.saturating_add(fibers),
        ]
    }
}

/// Why an account gets no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Whose account it is.
    pub account: String,
    pub what: Pooled,
    /// How many of them the account has.
    pub held: u32,
    /// How many of them the host has.
    pub total: u32,
    /// There are not enough left for anybody; otherwise some are, for others.
    pub full: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal {
            account,
            what,
            held,
            total,
            full,
        } = self;
        let why = match full {
            true => "of which not enough are left",
            false => "and what is left is for others",
        };
        write!(
            f,
            "account \"{account}\" has {held} of this host's {total} {what}, {why}"
        )
    }
}

impl std::error::Error for Refusal {}

/// All accounts of one engine, and the pools that they share: one set for each kind of machine code.
#[derive(Debug)]
pub(crate) struct Ledger {
    pools: [[Pool; 4]; 2],
    accounts: Mutex<HashMap<String, Weak<Account>>>,
    /// How many of them are held by anybody.
    count: AtomicU32,
}

impl Ledger {
    /// For an engine that has `amounts` for each kind of machine code.
    pub(crate) fn new(amounts: Amounts) -> Arc<Ledger> {
        Arc::new(Ledger {
            pools: Calls::ALL.map(|_| amounts.0.map(Pool::new)),
            accounts: Mutex::default(),
            count: AtomicU32::new(0),
        })
    }

    /// The account of that name; made when nobody has it.
    pub(crate) fn account(self: &Arc<Ledger>, name: &str) -> Arc<Account> {
        let mut accounts = self.accounts.lock();
        if let Some(account) = accounts.get(name).and_then(Weak::upgrade) {
            return account;
        }
        accounts.retain(|_, account| account.strong_count() > 0);
        self.count.fetch_add(1, Relaxed);
        let account = Arc::new(Account {
            name: name.to_owned(),
            tenant: Tenant::named(name),
            ledger: self.clone(),
            shares: Default::default(),
            faults: Faults::default(),
            freed: Room::default(),
            workloads: Mutex::default(),
        });
        accounts.insert(name.to_owned(), Arc::downgrade(&account));
        account
    }

    /// Ends what waits for calls, of everybody.
    fn end_idle(&self) {
        let accounts: Vec<_> = {
            let accounts = self.accounts.lock();
            accounts.values().filter_map(Weak::upgrade).collect()
        };
        for account in accounts {
            account.end_idle();
        }
    }
}

/// A tenant's part of an engine.
pub(crate) struct Account {
    name: String,
    tenant: Tenant,
    ledger: Arc<Ledger>,
    shares: [[Share; 4]; 2],
    faults: Faults,
    /// For those who wait for a seat of its own.
    freed: Room,
    /// Those whose idle instances can be ended when there is no room.
    workloads: Mutex<Vec<Weak<WorkloadInner>>>,
}

impl Drop for Account {
    fn drop(&mut self) {
        self.ledger.count.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("name", &self.name).finish()
    }
}

impl Account {
    /// As cores know it.
    pub(crate) fn tenant(&self) -> Tenant {
        self.tenant
    }

    /// One of its guests has failed; how much later its caller is to be told, if not now.
    pub(crate) fn delay_of_fault(&self) -> Option<Duration> {
        self.faults.delay(Instant::now())
    }

    /// Where to wait for one of its seats.
    pub(crate) fn freed(&self) -> &Room {
        &self.freed
    }

    /// Remembers one of its workloads.
    pub(crate) fn add(&self, workload: Weak<WorkloadInner>) {
        let mut workloads = self.workloads.lock();
        workloads.retain(|workload| workload.strong_count() > 0);
        workloads.push(workload);
    }

    /// Room for what `wanted` says. Before it is refused, idle instances end: the account's own, or everybody's when nothing
    /// is left at all.
    pub(crate) fn seat(
        self: &Arc<Account>,
        calls: Calls,
        wanted: Amounts,
    ) -> Result<Seat, Refusal> {
        let mut seat = Seat {
            account: self.clone(),
            calls,
            taken: Default::default(),
        };
        if let Err(refusal) = seat.take_all(wanted) {
            match refusal.full {
                true => self.ledger.end_idle(),
                false => self.end_idle(),
            }
            seat.take_all(wanted)?;
        }
        Ok(seat)
    }

    /// Ends what waits for calls. Instances of WASI 0.2 are gone when this returns, the others soon.
    fn end_idle(&self) {
        let workloads: Vec<_> = {
            let workloads = self.workloads.lock();
            workloads.iter().filter_map(Weak::upgrade).collect()
        };
        for workload in workloads {
            workload.end_idle();
        }
    }
}

/// What one instance has of the pools; given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    account: Arc<Account>,
    calls: Calls,
    taken: [Taken; 4],
}

impl Seat {
    /// All of `wanted`, or nothing.
    fn take_all(&mut self, wanted: Amounts) -> Result<(), Refusal> {
        let before = self.taken;
        for (kind, wanted) in Pooled::ALL.into_iter().zip(wanted.0) {
            if let Err(refusal) = self.take(kind, wanted) {
                self.give_back_to(before);
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// Some more of one kind.
    pub(crate) fn take(&mut self, kind: Pooled, wanted: u32) -> Result<(), Refusal> {
        let (pool, share) = self.of(kind);
        let accounts = self.account.ledger.count.load(Relaxed);
        let taken = take(pool, share, guarantee(pool.total, accounts), wanted);
        let taken = taken.map_err(|full| Refusal {
            account: self.account.name.clone(),
            what: kind,
            held: share.own.load(Relaxed) + share.borrowed.load(Relaxed),
            total: pool.total,
            full,
        })?;
        let held = &mut self.taken[kind as usize];
        held.own += taken.own;
        held.borrowed += taken.borrowed;
        Ok(())
    }

    fn of(&self, kind: Pooled) -> (&Pool, &Share) {
        let (calls, kind) = (self.calls as usize, kind as usize);
        (
            &self.account.ledger.pools[calls][kind],
            &self.account.shares[calls][kind],
        )
    }

    fn give_back_to(&mut self, before: [Taken; 4]) {
        for kind in Pooled::ALL {
            let (now, then) = (self.taken[kind as usize], before[kind as usize]);
            let (pool, share) = self.of(kind);
            let more = Taken {
                own: now.own - then.own,
                borrowed: now.borrowed - then.borrowed,
            };
            give_back(pool, share, more);
        }
        self.taken = before;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let has_any = self
            .taken
            .iter()
            .any(|taken| taken.own + taken.borrowed > 0);
        self.give_back_to(Default::default());
        // One that was refused everything makes no room, and whoever was refused must not be woken by it.
        if has_any {
            self.account.freed.is_made();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::pool::may_borrow;

    #[test]
    fn half_is_guaranteed_in_equal_parts_and_never_nothing() {
        for (total, accounts, expected) in [
            (1000, 0, 500),
            (1000, 1, 500),
            (1000, 4, 125),
            (1000, 2000, 1),
            (1, 1, 1),
            (3, 1, 2),
            (0, 1, 1),
        ] {
            assert_eq!(
                guarantee(total, accounts),
                expected,
                "{total} for {accounts}"
            );
        }
    }

    #[test]
    fn borrowing_ends_before_everything_is_lent() {
        for (wanted, borrowed, left, may) in [
            (1, 0, 500, true),
            (1, 399, 101, true),
            (1, 403, 97, false),
            (1, 0, 1, true),
            (1, 0, 0, false),
            (2, 0, 1, false),
            (1, 4, 1, false),
            (u32::MAX, u32::MAX, u32::MAX, true),
        ] {
            assert_eq!(
                may_borrow(wanted, borrowed, left),
                may,
                "{wanted} {borrowed} {left}"
            );
        }
    }

    /// Seats of one instance each, until there are no more.
    fn all_of(account: &Arc<Account>) -> Vec<Seat> {
        let one = Amounts::of_instance(1, 3);
        std::iter::from_fn(|| account.seat(Calls::Serial, one).ok()).collect()
    }

    /// Who comes in this order takes all that it gets; how much that is.
    fn grab(total: u32, accounts: usize) -> Vec<usize> {
        let ledger = Ledger::new(Amounts::of_engine(total));
        let accounts: Vec<_> = (0..accounts)
            .map(|number| ledger.account(&number.to_string()))
            .collect();
        let seats: Vec<_> = accounts.iter().map(all_of).collect();
        seats.iter().map(Vec::len).collect()
    }

    #[test]
    fn who_takes_all_there_is_leaves_the_others_theirs() {
        for (total, accounts, expected) in [
            (1000, 1, vec![900]),
            (1000, 2, vec![650, 330]),
            (1000, 4, vec![525, 205, 141, 129]),
            // A small engine is for its only tenant.
            (1, 1, vec![1]),
            (2, 1, vec![2]),
            (8, 1, vec![8]),
            (8, 2, vec![6, 2]),
        ] {
            let got = grab(total, accounts);
            assert!(got.iter().sum::<usize>() <= total as usize);
            assert_eq!(got, expected, "{accounts} of {total}");
        }
    }

    #[test]
    fn a_refusal_says_whose_account_and_why_and_takes_nothing() {
        let ledger = Ledger::new(Amounts::of_engine(10));
        let (shop, bank) = (ledger.account("shop"), ledger.account("bank"));
        let held = all_of(&shop);
        let said = |account: &Arc<Account>, wanted| {
            let refused = account.seat(Calls::Serial, wanted);
            refused.expect_err("there is no room").to_string()
        };
        assert_eq!(
            said(&shop, Amounts::of_instance(1, 0)),
            format!(
                "account \"shop\" has {} of this host's 10 instances, and what is left is for others",
                held.len()
            )
        );
        // Sixteen memories are fifteen more than an instance comes with, and five is all there is.
        assert_eq!(
            said(&bank, Amounts::of_instance(16, 0)),
            "account \"bank\" has 0 of this host's 5 further memories, of which not enough are left"
        );
        let theirs = all_of(&bank);
        assert!(!theirs.is_empty(), "the refusal has taken nothing");
        drop((held, theirs));
        assert_eq!(ledger.pools[0][0].taken.load(Relaxed), 0);
        assert_eq!(ledger.pools[0][0].lent.load(Relaxed), 0);
        assert_eq!(ledger.pools[0][1].taken.load(Relaxed), 0);
    }

    #[test]
    fn from_many_threads_no_more_is_given_out_than_there_is() {
        let ledger = Ledger::new(Amounts::of_engine(8));
        let held = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let (ledger, held) = (&ledger, &held);
                scope.spawn(move || {
                    // Two threads for each account, and accounts that come and go.
                    for round in 0..5_000_u32 {
                        let account = ledger.account(if thread % 2 == 0 { "a" } else { "b" });
                        let wanted = Amounts::of_instance(1 + round % 3, 4);
                        let seats: Vec<_> = (0..=thread)
                            .filter_map(|_| account.seat(Calls::Serial, wanted).ok())
                            .collect();
                        let mine = u32::try_from(seats.len()).unwrap();
                        assert!(held.fetch_add(mine, Relaxed) + mine <= 8);
                        held.fetch_sub(mine, Relaxed);
                        drop(seats);
                    }
                });
            }
        });
        for pool in &ledger.pools[0] {
            assert_eq!(pool.taken.load(Relaxed), 0);
            assert_eq!(pool.lent.load(Relaxed), 0);
        }
        assert_eq!(ledger.count.load(Relaxed), 0);
        assert_eq!(all_of(&ledger.account("a")).len(), 8);
    }

    #[test]
    fn accounts_are_found_by_name_and_end_with_their_last_holder() {
        let ledger = Ledger::new(Amounts::of_engine(10));
        let one = ledger.account("a");
        assert!(Arc::ptr_eq(&one, &ledger.account("a")));
        assert_eq!(ledger.count.load(Relaxed), 1);
        let two = ledger.account("b");
        assert_eq!((two.name.as_str(), ledger.count.load(Relaxed)), ("b", 2));
        let seat = one.seat(Calls::Concurrent, Amounts::of_instance(0, 0));
        drop((one, two));
        // Whoever sits there keeps the account.
        assert_eq!(ledger.count.load(Relaxed), 1);
        drop(seat);
        assert_eq!(ledger.count.load(Relaxed), 0);
        assert_eq!(ledger.account("a").shares[1][0].own.load(Relaxed), 0);
    }

    #[test]
    fn an_engine_has_what_its_accounts_can_give_out() {
        let engine = Amounts::of_engine(1000);
        assert_eq!(engine.slots(Calls::Serial), [1500, 4000, 2000]);
        assert_eq!(engine.slots(Calls::Concurrent), [1500, 4000, 5000]);
        let largest = Amounts::of_engine(u32::MAX);
        assert_eq!(largest.slots(Calls::Concurrent), [u32::MAX; 3]);
    }
}
