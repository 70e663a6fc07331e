//! What there is of one kind, and what accounts have of it, in atomics.
//!
//! Invariants, whoever takes and gives back at the same time: no more is taken than there is, nor lent than may be lent; an account
//! has no more of its own than its guarantee; what was given back is there again.

use crate::sync::{AtomicU32, Ordering};

/// How often an account may have borrowed what is left to lend. Higher gives more to one that is alone, and leaves less for
/// whoever comes next.
pub(crate) const BORROWED_TO_LEFT_MAX: u32 = 4;

/// What an account with `accounts` there are has for certain of `total`. Never nothing.
pub(crate) fn guarantee(total: u32, accounts: u32) -> u32 {
    (guaranteed(total) / accounts.max(1)).max(1)
}

/// The part of a pool that is not lent.
fn guaranteed(total: u32) -> u32 {
    total - total / 2
}

/// Whether an account that has borrowed `borrowed` may have `wanted` more of `left`, what nobody has borrowed.
pub(crate) fn may_borrow(wanted: u32, borrowed: u32, left: u32) -> bool {
    wanted <= left
        && u64::from(borrowed) + u64::from(wanted)
            <= u64::from(left) * u64::from(BORROWED_TO_LEFT_MAX)
}

/// All there is of one kind.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(super) total: u32,
    pub(super) taken: AtomicU32,
    /// Of what is taken, what goes beyond the guarantees.
    pub(super) lent: AtomicU32,
}

impl Pool {
    pub(crate) fn new(total: u32) -> Pool {
        Pool {
            total,
            taken: AtomicU32::new(0),
            lent: AtomicU32::new(0),
        }
    }
}

/// What one account has of one kind.
#[derive(Debug, Default)]
pub(crate) struct Share {
    pub(super) own: AtomicU32,
    pub(super) borrowed: AtomicU32,
}

/// What was taken of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(super) own: u32,
    pub(super) borrowed: u32,
}

/// Takes `wanted`, or says whether the pool itself is empty.
pub(crate) fn take(pool: &Pool, share: &Share, guarantee: u32, wanted: u32) -> Result<Taken, bool> {
    if wanted == 0 {
        return Ok(Taken::default());
    }
    let there_is = pool
        .taken
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            taken
                .checked_add(wanted)
                .filter(|taken| *taken <= pool.total)
        });
    if there_is.is_err() {
        return Err(true);
    }
    let mut own = 0;
    // Never refused: it adds nothing where nothing is left of the guarantee.
    let _ = share
        .own
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            own = wanted.min(guarantee.saturating_sub(held));
            Some(held + own)
        });
    let borrowed = wanted - own;
    if borrowed > 0 {
        let lendable = pool.total - guaranteed(pool.total);
        let lent = pool
            .lent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lent| {
                let held = share.borrowed.load(Ordering::Relaxed);
                may_borrow(borrowed, held, lendable.saturating_sub(lent)).then(|| lent + borrowed)
            });
        if lent.is_err() {
            share.own.fetch_sub(own, Ordering::Relaxed);
            pool.taken.fetch_sub(wanted, Ordering::Relaxed);
            return Err(false);
        }
        share.borrowed.fetch_add(borrowed, Ordering::Relaxed);
    }
    Ok(Taken { own, borrowed })
}

pub(crate) fn give_back(pool: &Pool, share: &Share, taken: Taken) {
    let Taken { own, borrowed } = taken;
    if own > 0 {
        share.own.fetch_sub(own, Ordering::Relaxed);
    }
    if borrowed > 0 {
        share.borrowed.fetch_sub(borrowed, Ordering::Relaxed);
        pool.lent.fetch_sub(borrowed, Ordering::Relaxed);
    }
    if own + borrowed > 0 {
        pool.taken.fetch_sub(own + borrowed, Ordering::Relaxed);
    }
}
