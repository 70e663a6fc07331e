//! The lock-free parts of mesh and runtime, in every order that threads may have.
//!
//! The files are the very ones of their crates, compiled here with loom's atomics in the place of the standard library's (`crate::sync`).
//! A model is a few threads and what must hold whatever their order; loom runs it once for each, which takes milliseconds.
//!
//! What has no model here has locks (`mesh/src/replay.rs`, `runtime/src/spare.rs`, a call's answer in `runtime/src/instance.rs`), or is a flag
//! or a counter that nothing else is ordered by. The clock of `runtime/src/engine.rs` is ordered by SeqCst accesses, which loom takes for
//! weaker ones.

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
}

#[allow(dead_code)]
#[path = "../../../mesh/src/budget.rs"]
mod budget;
#[allow(dead_code)]
#[path = "../../../mesh/src/gate.rs"]
mod gate;
#[allow(dead_code)]
#[path = "../../../mesh/src/health.rs"]
mod health;
#[allow(dead_code)]
#[path = "../../../mesh/src/load.rs"]
mod load;
#[allow(dead_code)]
#[path = "../../../runtime/src/account/pool.rs"]
mod pool;
#[allow(dead_code)]
#[path = "../../../runtime/src/waiters.rs"]
mod waiters;

use std::time::Duration;

use budget::Budget;
use gate::{Gate, Turned};
use health::{Fault, Health};
use load::Load;
use loom::sync::Arc;
use loom::thread;
use pool::{Pool, Share, give_back, take};
use sync::{AtomicU32, Ordering};
use waiters::Waiters;

/// In nanoseconds.
const MILLI: u64 = 1_000_000;

/// Whoever closes a gate and sees nobody inside is followed by nobody.
pub fn a_closed_gate_is_passed_by_nobody() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(1));
        // What a workload does while it may: loom fails if it was stopped before.
        let stopped = Arc::new(AtomicU32::new(0));
        let call = {
            let (gate, stopped) = (gate.clone(), stopped.clone());
            thread::spawn(move || {
                let entered = gate.enter();
                if entered.is_ok() {
                    assert_eq!(stopped.load(Ordering::Acquire), 0);
                }
                gate.leave()
            })
        };
        gate.close();
        let alone = gate.inside() == 0;
        if alone {
            stopped.store(1, Ordering::Release);
        }
        assert!(
            call.join().unwrap() || alone,
            "nobody would end the waiting"
        );
        assert_eq!(gate.inside(), 0);
        assert_eq!(gate.enter(), Err(Turned::Closed));
    });
}

/// No more are let in than fit, and who was turned away leaves nothing behind.
pub fn a_gate_lets_in_as_many_as_fit() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(1));
        let inside = Arc::new(AtomicU32::new(0));
        let call = |gate: Arc<Gate>, inside: Arc<AtomicU32>| {
            if gate.enter().is_ok() {
                assert_eq!(inside.fetch_add(1, Ordering::AcqRel), 0);
                inside.fetch_sub(1, Ordering::AcqRel);
            }
            gate.leave();
        };
        let other = {
            let (gate, inside) = (gate.clone(), inside.clone());
            thread::spawn(move || call(gate, inside))
        };
        call(gate.clone(), inside);
        other.join().unwrap();
        assert_eq!(gate.inside(), 0);
        assert_eq!(gate.enter(), Ok(()));
    });
}

/// A retry is taken once, and what is earned meanwhile is not lost.
pub fn a_budget_gives_each_retry_once() {
    let mut model = loom::model::Builder::new();
    // Each looks at all parts of the interval.
    model.max_branches = 20_000;
    model.preemption_bound = Some(2);
    model.check(|| {
        let budget = Arc::new(Budget::new(100, Duration::from_secs(10), 0));
        budget.earn(0);
        let other = {
            let budget = budget.clone();
            thread::spawn(move || u32::from(budget.take(0)))
        };
        // Each call earns one here.
        budget.earn(0);
        let mine = u32::from(budget.take(0));
        let taken = mine + other.join().unwrap();
        // One was left and one was earned.
        let left = (0..3).filter(|_| budget.take(0)).count() as u32;
        assert_eq!(taken + left, 2);
    });
}

/// Each of two samples counts, in one order or the other, and calls that ended are not pending.
pub fn no_sample_of_a_load_is_lost() {
    loom::model(|| {
        let load = Arc::new(Load::new(Duration::from_millis(1)));
        let call = |load: &Load, millis| {
            load.begin();
            load.record(Duration::from_millis(millis), 0);
            load.end();
        };
        let other = {
            let load = load.clone();
            thread::spawn(move || call(&load, 50))
        };
        call(&load, 20);
        other.join().unwrap();
        assert_eq!(load.pending(), 0);
        // No time has passed: the worse of the two.
        assert!((load.cost(0) / 50e6 - 1.0).abs() < 0.01, "{}", load.cost(0));
    });
}

/// Calls that fail at once are one failure, whichever is told first.
pub fn one_incident_is_one_failure() {
    loom::model(|| {
        let health = Arc::new(Health::new());
        let other = {
            let health = health.clone();
            thread::spawn(move || health.failed(Fault::Failed, 0, 10 * MILLI))
        };
        health.failed(Fault::Failed, 5 * MILLI, 20 * MILLI);
        other.join().unwrap();
        assert!(health.is_ejected(109 * MILLI), "for a hundred milliseconds");
        assert!(!health.is_ejected(120 * MILLI), "and not longer");
    });
}

/// An answer to the call that tries an endpoint has the last word over those that were begun before it.
pub fn what_failed_before_does_not_eject_who_is_well_again() {
    loom::model(|| {
        let health = Arc::new(Health::new());
        health.failed(Fault::Failed, 0, 0);
        let old = {
            let health = health.clone();
            thread::spawn(move || health.failed(Fault::Unreachable, 50 * MILLI, 109 * MILLI))
        };
        health.begin(100 * MILLI);
        health.answered(100 * MILLI, 110 * MILLI);
        old.join().unwrap();
        assert!(!health.is_ejected(111 * MILLI));
        health.failed(Fault::Failed, 110 * MILLI, 200 * MILLI);
        assert!(
            health.is_ejected(299 * MILLI) && !health.is_ejected(300 * MILLI),
            "the next failure is a first one"
        );
    });
}

/// Of one pool no more is taken than there is, and all of it comes back.
pub fn a_pool_gives_out_what_there_is() {
    loom::model(|| {
        let (pool, shares) = (
            Arc::new(Pool::new(3)),
            Arc::new([Share::default(), Share::default()]),
        );
        let held = Arc::new(AtomicU32::new(0));
        let seat = |pool: &Pool, share: &Share, held: &AtomicU32| {
            // More than its guarantee: a part is borrowed.
            let Ok(taken) = take(pool, share, 1, 2) else {
                return;
            };
            assert_eq!(held.fetch_add(2, Ordering::AcqRel), 0, "there are three");
            held.fetch_sub(2, Ordering::AcqRel);
            give_back(pool, share, taken);
        };
        let other = {
            let (pool, shares, held) = (pool.clone(), shares.clone(), held.clone());
            thread::spawn(move || seat(&pool, &shares[1], &held))
        };
        seat(&pool, &shares[0], &held);
        other.join().unwrap();
        for share in &*shares {
            let taken = take(&pool, share, 1, 2).expect("all of it is there again");
            give_back(&pool, share, taken);
        }
    });
}

/// Who waits for room sees what was made, or is seen by whoever made it.
pub fn no_word_of_room_is_missed() {
    loom::model(|| {
        let waiters = Arc::new(Waiters::default());
        let room = Arc::new(AtomicU32::new(0));
        let made = {
            let (waiters, room) = (waiters.clone(), room.clone());
            thread::spawn(move || {
                room.store(1, Ordering::Relaxed);
                waiters.anybody()
            })
        };
        let waiting = waiters.wait();
        let seen = room.load(Ordering::Relaxed) == 1;
        let told = made.join().unwrap();
        assert!(seen || told);
        drop(waiting);
        assert!(!waiters.anybody());
    });
}
