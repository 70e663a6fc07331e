//! How long a cluster takes to serve again after all its servers ended, in simulated time.
//!
//! Clients work until the end, so that servers that are stopped one after the other end with different logs. Then each
//! listens at once and answers once it has loaded, as the process does; from there on it is asked for a write and a read
//! until it has done them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::world::World;
use super::{PANICS, check, count_panics, seeds, servers};
use crate::command::{Mutation, Precondition};
use crate::key::ServerId;

/// How the servers ended.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// One after the other, the leader after it has handed over: only the last one has the whole log.
    InARow,
    /// All at once.
    Killed,
}

/// What a server takes to load, in the order in which they ended.
#[derive(Debug, Clone, Copy)]
enum Loading {
    /// Within 100 ms of each other.
    Alike,
    /// The first that ended takes so many milliseconds.
    FirstTakes(u64),
    /// The last that ended does.
    LastTakes(u64),
    /// All but the first that ended do.
    OnlyFirstIsQuick(u64),
    /// The first that ended stays away.
    WithoutFirst,
    /// The last that ended stays away.
    WithoutLast,
}

const LOADS_MS: u64 = 400;

/// How soon after itself and a majority have loaded every server serves: a turn for those that have not, another one for a
/// better one that may have come meanwhile, and the stalls of disks and network.
const SOON_MS: u64 = 400;

impl Loading {
    /// Of the server that was the `nth` of `count` to end.
    fn of(self, nth: usize, count: usize, chance: u64) -> Option<u64> {
        let (first, last) = (nth == 0, nth + 1 == count);
        match self {
            Loading::FirstTakes(long) if first => Some(long),
            Loading::LastTakes(long) if last => Some(long),
            Loading::OnlyFirstIsQuick(long) if !first => Some(long + chance),
            Loading::WithoutFirst if first => None,
            Loading::WithoutLast if last => None,
            _ => Some(LOADS_MS + chance),
        }
    }
}

/// When a server first did what, in milliseconds after the start.
#[derive(Debug, Default, Clone, Copy)]
struct Served {
    loaded: u64,
    asked: bool,
    write: Option<u64>,
    read: Option<u64>,
}

/// What a server was asked for and has done since it was last looked at.
type Done = Arc<Mutex<(bool, bool)>>;

fn end(world: &mut World, ending: Ending) -> Vec<ServerId> {
    let ids: Vec<_> = world.hosts.keys().copied().collect();
    for (nth, id) in ids.iter().enumerate() {
        if matches!(ending, Ending::InARow) {
            let majority = (ids.len() - nth) * 2 > ids.len();
            if majority && world.leader() == Some(*id) {
                let moved =
                    world.administer(|store| Box::pin(async move { store.transfer(None).await }));
                world.note(format!("handed over: {moved:?}"));
            }
            let meanwhile = 50 + world.random.below(400);
            world.run(meanwhile);
        }
        world.kill(*id);
    }
    ids
}

/// Starts the servers and asks them, for at most so many milliseconds.
fn begin(
    world: &mut World,
    ended: &[ServerId],
    loading: Loading,
    most: u64,
) -> BTreeMap<ServerId, Served> {
    let begun = world.now;
    let mut served = BTreeMap::new();
    for (nth, id) in ended.iter().enumerate() {
        let chance = world.random.below(100);
        if let Some(loaded) = loading.of(nth, ended.len(), chance) {
            world.net.lock().load(*id);
            let new = Served {
                loaded,
                ..Served::default()
            };
            served.insert(*id, new);
        }
    }
    let dones: BTreeMap<ServerId, Done> = served.keys().map(|id| (*id, Done::default())).collect();
    while world.now < begun + most {
        for (id, served) in &mut served {
            let now = world.now - begun;
            if now >= served.loaded {
                world.start(*id);
            }
            let (write, read) = *dones[id].lock();
            served.write = served.write.or(write.then_some(now));
            served.read = served.read.or(read.then_some(now));
            if !served.asked
                && let Some(store) = world.hosts[id].store()
            {
                served.asked = true;
                let done = Arc::clone(&dones[id]);
                world.spawn(*id, async move {
                    let again = || tokio::time::sleep(Duration::from_millis(2));
                    let write = async {
                        // Of a key that nobody has: it is ordered, and no client sees it.
                        let absent = Mutation::delete("/absent", Precondition::None);
                        while store.write(vec![absent.clone()], None).await.is_err() {
                            again().await;
                        }
                        done.lock().0 = true;
                    };
                    let read = async {
                        while store.read().await.is_err() {
                            again().await;
                        }
                        done.lock().1 = true;
                    };
                    tokio::join!(write, read);
                });
            }
        }
        let all = |served: &Served| served.write.is_some() && served.read.is_some();
        if served.values().all(all) {
            break;
        }
        world.run(1);
    }
    served
}

/// When all of them served, in milliseconds after this server and a majority had loaded.
fn latest(served: &BTreeMap<ServerId, Served>, majority: u64) -> Option<u64> {
    let after = |served: &Served| {
        let done = served.write?.max(served.read?);
        Some(done - served.loaded.max(majority))
    };
    let latest: Option<Vec<_>> = served.values().map(after).collect();
    latest?.into_iter().max()
}

#[test]
fn servers_that_were_stopped_serve_again_soon() {
    use Ending::{InARow, Killed};
    use Loading::{Alike, FirstTakes, LastTakes, OnlyFirstIsQuick, WithoutFirst, WithoutLast};
    count_panics();
    let cases = [
        (InARow, Alike),
        (Killed, Alike),
        (InARow, FirstTakes(1500)),
        (InARow, LastTakes(1500)),
        (InARow, OnlyFirstIsQuick(4000)),
        (InARow, WithoutFirst),
        (InARow, WithoutLast),
    ];
    let mut late = Vec::new();
    for (ending, loading) in cases {
        for seed in seeds(6) {
            let mut world = World::new(seed, servers(seed));
            world.run(500);
            let ended = end(&mut world, ending);
            world.run(50);
            let served = begin(&mut world, &ended, loading, 20_000);
            let mut loads: Vec<_> = served.values().map(|served| served.loaded).collect();
            loads.sort_unstable();
            let latest = latest(&served, loads[ended.len() / 2]);
            let line = format!("{ending:?} {loading:?} WEFT_SEED={seed}: {latest:?} ms {served:?}");
            println!("{line}");
            let newest = world.finish();
            let history = world.history.lock();
            assert_eq!(history.violations, Vec::<String>::new(), "{line}");
            let wrong = check::by_revision(&history, newest);
            assert_eq!(wrong, Vec::<String>::new(), "{line}");
            if latest.is_none_or(|latest| latest > SOON_MS) {
                late.push(line);
            }
        }
    }
    assert_eq!(PANICS.take().unwrap_or_default(), Vec::<String>::new());
    assert!(late.is_empty(), "more than {SOON_MS} ms: {late:#?}");
}

/// Each of the others is killed and started again, after a moment and after so long that it missed an election's time.
#[test]
fn a_server_that_returns_leaves_the_leader_alone() {
    count_panics();
    for seed in seeds(6) {
        let mut world = World::new(seed, servers(seed));
        world.run(500);
        let leader = world.leader().expect("one leads");
        let term = |world: &World| {
            let store = world.hosts[&leader].store().expect("it runs");
            *store.leadership().borrow()
        };
        let before = term(&world);
        let others: Vec<_> = world.hosts.keys().copied().collect();
        for id in others.into_iter().filter(|id| *id != leader) {
            for away in [20, 300, 2500] {
                world.kill(id);
                world.run(away);
                world.start(id);
                // Past the time in which openraft's own elections are off.
                world.run(2500);
                assert_eq!(
                    term(&world),
                    before,
                    "WEFT_SEED={seed}: {id} after {away} ms"
                );
                let follows = world.hosts[&id].store().expect("it runs").leader();
                assert_eq!(*follows.borrow(), Some(leader), "WEFT_SEED={seed}: {id}");
            }
        }
        world.finish();
        let history = world.history.lock();
        assert_eq!(history.violations, Vec::<String>::new(), "WEFT_SEED={seed}");
    }
    assert_eq!(PANICS.take().unwrap_or_default(), Vec::<String>::new());
}
