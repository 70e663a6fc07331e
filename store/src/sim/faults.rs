//! What goes wrong, and when: cycles of one fault each, chosen by the seed.

use std::collections::BTreeMap;

use super::world::World;
use crate::key::ServerId;

/// A kind of fault. Each cycle has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A process is killed.
    Kill,
    /// A server loses its power.
    PowerCut,
    /// A server loses its power in the middle of writing.
    TornWrite,
    /// All servers lose their power at once.
    PowerCutAll,
    /// A process stops for a while and goes on as if nothing had been.
    Pause,
    /// A clock jumps ahead.
    ClockJump,
    /// The leader is cut off.
    LeaderAlone,
    /// A minority is cut off.
    Split,
    /// One server hears nobody, and everybody hears it.
    OneWay,
    /// Two halves that only one server reaches.
    Bridge,
    /// Each server reaches its neighbours only.
    Ring,
    /// Messages get lost.
    Loss,
    SlowDisk,
    FullDisk,
    /// Leadership is handed over.
    Transfer,
    /// A server loses its disk for good and is replaced by a new one.
    Replace,
    /// Two servers in a row are killed, the second while the first catches up.
    Double,
}

pub(crate) const ALL: &[Fault] = &[
    Fault::Kill,
    Fault::PowerCut,
    Fault::TornWrite,
    Fault::PowerCutAll,
    Fault::Pause,
    Fault::ClockJump,
    Fault::LeaderAlone,
    Fault::Split,
    Fault::OneWay,
    Fault::Bridge,
    Fault::Ring,
    Fault::Loss,
    Fault::SlowDisk,
    Fault::FullDisk,
    Fault::Transfer,
    Fault::Replace,
    Fault::Double,
];

/// How often each fault was injected.
pub(crate) type Tally = BTreeMap<Fault, u64>;

/// Runs so many cycles of faults.
pub(crate) fn campaign(world: &mut World, cycles: u64, tally: &mut Tally) {
    for _ in 0..cycles {
        if !world.history.lock().violations.is_empty() {
            return;
        }
        let Some(fault) = world.random.pick(ALL) else {
            return;
        };
        *tally.entry(fault).or_default() += 1;
        inject(world, fault);
        let length = 200 + world.random.below(2200);
        world.run(length);
        world.heal();
        let pause = 100 + world.random.below(1500);
        world.run(pause);
    }
}

/// A server, twice as often the leader as chance would have it.
fn victim(world: &mut World) -> ServerId {
    let ids: Vec<_> = world.hosts.keys().copied().collect();
    let leader = world.leader().filter(|_| world.random.chance(1, 3));
    let any = world.random.pick(&ids).unwrap_or_default();
    leader.unwrap_or(any)
}

fn cut_between(world: &mut World, cut: impl Fn(ServerId, ServerId) -> bool) {
    let ids: Vec<_> = world.hosts.keys().copied().collect();
    let mut net = world.net.lock();
    for from in &ids {
        for to in &ids {
            if from != to && cut(*from, *to) {
                net.blocked.insert((*from, *to));
            }
        }
    }
}

fn inject(world: &mut World, fault: Fault) {
    let id = victim(world);
    world.note(format!("{fault:?} on {id}"));
    let ids: Vec<_> = world.hosts.keys().copied().collect();
    match fault {
        Fault::Kill => world.kill(id),
        Fault::PowerCut => world.cut_power(id),
        Fault::TornWrite => {
            let operations = world.random.below(60);
            if let Some(host) = world.hosts.get(&id) {
                host.disk().cut_power_in(operations);
            }
        }
        Fault::PowerCutAll => {
            // Where disks are slow, much is under way that was not synced.
            let slow = world.random.below(300);
            for host in world.hosts.values() {
                host.disk().set_slow(slow);
            }
            let busy = 100 + world.random.below(400);
            world.run(busy);
            for id in ids {
                world.cut_power(id);
            }
            for host in world.hosts.values() {
                host.disk().set_slow(0);
            }
            // Not all come back at once.
            let pause = world.random.below(1000);
            world.run(pause);
            for id in world.hosts.keys().copied().collect::<Vec<_>>() {
                if world.random.chance(2, 3) {
                    world.start(id);
                }
            }
        }
        Fault::Pause => {
            let until = world.now + 300 + world.random.below(3000);
            if let Some(host) = world.hosts.get_mut(&id) {
                host.paused_until = until;
            }
        }
        Fault::ClockJump => {
            let by = 500 + world.random.below(5000);
            world.jump(id, by);
        }
        Fault::LeaderAlone => {
            let leader = world.leader().unwrap_or(id);
            cut_between(world, |from, to| from == leader || to == leader);
        }
        Fault::Split => {
            let mut side = world.random.next();
            // Never everyone on one side.
            side |= 1 << id;
            let other = ids.iter().find(|other| **other != id);
            if let Some(other) = other {
                side &= !(1 << other);
            }
            let of = move |server: ServerId| side >> server & 1;
            cut_between(world, |from, to| of(from) != of(to));
        }
        Fault::OneWay => {
            let deaf = world.random.chance(1, 2);
            cut_between(world, |from, to| if deaf { to == id } else { from == id });
        }
        Fault::Bridge => {
            let place = |server: ServerId| ids.iter().position(|other| *other == server);
            cut_between(world, |from, to| {
                from != id && to != id && place(from).map(|at| at % 2) != place(to).map(|at| at % 2)
            });
        }
        Fault::Ring => {
            let count = ids.len();
            let place = |server: ServerId| ids.iter().position(|other| *other == server);
            cut_between(world, |from, to| {
                let (Some(from), Some(to)) = (place(from), place(to)) else {
                    return false;
                };
                // In a ring of three each reaches all, so one direction is cut.
                if count <= 3 {
                    (from + 1) % count != to
                } else {
                    (from + 1) % count != to && (to + 1) % count != from
                }
            });
        }
        Fault::Loss => {
            let loss = 5 + world.random.below(40);
            world.net.lock().loss = loss;
        }
        Fault::SlowDisk => {
            let slow = 50 + world.random.below(700);
            if let Some(host) = world.hosts.get(&id) {
                host.disk().set_slow(slow);
            }
        }
        Fault::FullDisk => {
            if let Some(host) = world.hosts.get(&id) {
                host.disk().set_full(true);
            }
        }
        Fault::Transfer => {
            let result =
                world.administer(|store| Box::pin(async move { store.transfer(None).await }));
            world.note(format!("transfer: {result:?}"));
        }
        Fault::Replace => replace(world, id),
        Fault::Double => {
            world.kill(id);
            let pause = 200 + world.random.below(1500);
            world.run(pause);
            world.start(id);
            let soon = world.random.below(300);
            world.run(soon);
            let second = victim(world);
            world.cut_power(second);
        }
    }
}

fn replace(world: &mut World, old: ServerId) {
    // Without the others there would be no majority to decide on it.
    if world.hosts.values().any(|host| !host.runs()) {
        return;
    }
    world.destroy(old);
    let before: Vec<_> = world.hosts.keys().copied().collect();
    let next = world.next_address();
    let added = world.administer(move |store| {
        Box::pin(async move { store.add_learner(next.to_string()).await })
    });
    let Some(Ok(new)) = added else {
        // It may have been added all the same: its number and its address belong to nobody now.
        world.note(format!("replacing {old}: no learner: {added:?}"));
        world.skip_address();
        return;
    };
    world.add_learner(new);
    if new != next {
        let moved = world.administer(move |store| {
            Box::pin(async move { store.relocate(new, new.to_string()).await.map(|()| new) })
        });
        world.note(format!(
            "{new} was added at the address of {next}: {moved:?}"
        ));
    }
    for attempt in 0..8 {
        let replaced = world.administer(move |store| {
            Box::pin(async move { store.replace(old, new).await.map(|()| new) })
        });
        world.note(format!(
            "replace {old} by {new}, attempt {attempt}: {replaced:?}"
        ));
        if matches!(replaced, Some(Ok(_))) {
            return;
        }
        world.heal();
        world.run(1000);
        // The answer may be all that was lost.
        if before
            .iter()
            .filter_map(|id| world.members_of(*id))
            .any(|members| !members.contains(&old))
        {
            return;
        }
    }
}
