//! Queues in simulated time: fair shares, nobody starves, nothing is kept.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const SHAPE: Shape = Shape {
    queues: 64,
    hand: 6,
    length: 50,
};

fn flow(name: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn a_hand_is_of_different_queues_and_always_the_same() {
    for (queues, hand) in [(1, 1), (2, 2), (8, 8), (64, 6), (128, 6), (10_000_000, 2)] {
        for hash in [0, 1, u64::MAX, flow("a"), flow("b")] {
            let dealt = hand_of(hash, queues, hand);
            assert_eq!(dealt.len(), hand as usize);
            assert!(dealt.is_sorted_by(|one, other| one < other), "{dealt:?}");
            assert!(dealt.iter().all(|index| *index < queues));
            assert_eq!(dealt, hand_of(hash, queues, hand));
        }
    }
    // Two flows share all of their hands with next to no probability.
    let flooding = hand_of(flow("flood"), 64, 6);
    let covered = (0..10_000).filter(|number| {
        let own = hand_of(flow(&format!("user {number}")), 64, 6);
        own.iter().all(|index| flooding.contains(index))
    });
    assert!(covered.count() <= 1);
}

#[test]
fn seats_come_before_queues_and_queues_before_refusals() {
    let shape = Shape {
        queues: 1,
        hand: 1,
        length: 2,
    };
    let mut queues = Queues::new(shape, 2, 0);
    let mut next = 0..;
    let mut arrive = |queues: &mut Queues<u32>, seats| {
        let number = next.next().unwrap();
        queues.arrive(7, seats, 10, || number)
    };
    let Arrival::Seated(first) = arrive(&mut queues, 1) else {
        panic!("a free seat");
    };
    // One that does not fit waits, and those behind it do, too: otherwise it would never fit.
    let Arrival::Waits(wide) = arrive(&mut queues, 2) else {
        panic!("a full level");
    };
    let Arrival::Waits(narrow) = arrive(&mut queues, 1) else {
        panic!("in its order");
    };
    assert_eq!(arrive(&mut queues, 1), Arrival::Refused(Refusal::QueueFull));
    assert_eq!(
        (queues.taken(), queues.waiting(), queues.at_work()),
        (1, 2, 1)
    );
    // Whoever gives up makes room for those behind.
    let (was_there, seated) = queues.give_up(wide, 20);
    assert!(was_there);
    assert_eq!(seated.len(), 1);
    assert_eq!(seated[0].0, 2);
    assert_eq!(queues.give_up(wide, 20), (false, Vec::new()));
    assert_eq!(queues.give_up(narrow, 20), (false, Vec::new()));
    assert!(queues.finish(first, 30).is_empty());
    assert!(queues.finish(seated[0].1, 30).is_empty());
    assert_eq!((queues.taken(), queues.at_work()), (0, 0));
    assert!(queues.queues.is_empty());
    // One that is wider than the level has it alone.
    let Arrival::Seated(widest) = arrive(&mut queues, 9) else {
        panic!("an empty level");
    };
    let Arrival::Waits(_) = arrive(&mut queues, 1) else {
        panic!("a level that is taken");
    };
    assert_eq!(queues.finish(widest, 40).len(), 1);
    // A level without queues refuses at once, one without seats still serves one after the other.
    let none = Shape {
        queues: 0,
        hand: 0,
        length: 0,
    };
    let mut rejecting = Queues::new(none, 0, 0);
    let Arrival::Seated(only) = rejecting.arrive(1, 1, 0, || 0) else {
        panic!("somebody is served");
    };
    assert_eq!(
        rejecting.arrive(1, 1, 0, || 0),
        Arrival::Refused(Refusal::NoSeat)
    );
    assert!(rejecting.finish(only, 1).is_empty());
}

#[test]
fn more_seats_are_given_at_once() {
    let mut queues = Queues::new(SHAPE, 1, 0);
    for number in 0..5 {
        queues.arrive(number, 1, 0, || number);
    }
    assert_eq!(queues.reshape(SHAPE, 3, 1).len(), 2);
    assert_eq!(queues.waiting(), 2);
    // Fewer take nobody's away.
    assert_eq!(queues.reshape(SHAPE, 1, 2).len(), 0);
    assert_eq!(queues.taken(), 3);
}

/// Somebody who sends requests.
struct Client {
    name: &'static str,
    /// Microseconds between two requests, and how many of them at most are open at a time.
    every: u64,
    open_max: usize,
    seats: u32,
    takes: u64,
}

#[derive(Default, Debug)]
struct Outcome {
    sent: u32,
    served: u32,
    refused: u32,
    seat_micros: u64,
    longest_wait: u64,
}

/// Runs a level for so many microseconds; what became of each client's requests. Every queue and map is looked at for its bound.
fn simulate(seats: u32, until: u64, clients: &[Client]) -> Vec<Outcome> {
    let mut queues: Queues<(usize, u64)> = Queues::new(SHAPE, seats, 0);
    let mut outcomes: Vec<Outcome> = clients.iter().map(|_| Outcome::default()).collect();
    let mut open = vec![0; clients.len()];
    // What happens next: a client sends, or a request is done.
    let mut events = BinaryHeap::new();
    let mut turns = BTreeMap::new();
    let mut next_turn = 0_u64;
    for (index, _) in clients.iter().enumerate() {
        events.push(Reverse((0_u64, index, None)));
    }
    while let Some(Reverse((now, index, done))) = events.pop() {
        if now > until {
            break;
        }
        let client = &clients[index];
        let mut seated = Vec::new();
        match done {
            Some(number) => {
                let turn: Turn = turns.remove(&number).unwrap();
                open[index] -= 1;
                outcomes[index].served += 1;
                outcomes[index].seat_micros += u64::from(turn.seats) * (now - turn.at);
                seated = queues.finish(turn, now);
            }
            None => {
                events.push(Reverse((now + client.every, index, None)));
                if open[index] < client.open_max {
                    outcomes[index].sent += 1;
                    match queues.arrive(flow(client.name), client.seats, now, || (index, now)) {
                        Arrival::Seated(turn) => {
                            open[index] += 1;
                            seated.push(((index, now), turn));
                        }
                        Arrival::Waits(_) => open[index] += 1,
                        Arrival::Refused(_) => outcomes[index].refused += 1,
                    }
                }
            }
        }
        for ((whose, since), turn) in seated {
            let outcome = &mut outcomes[whose];
            outcome.longest_wait = outcome.longest_wait.max(now - since);
            turns.insert(next_turn, turn);
            events.push(Reverse((
                now + clients[whose].takes,
                whose,
                Some(next_turn),
            )));
            next_turn += 1;
        }
        assert!(queues.taken() <= seats.max(clients.iter().map(|one| one.seats).max().unwrap()));
        assert!(queues.waiting() <= WAITING_MAX);
        assert!(queues.queues.len() <= IDLE_MAX + queues.at_work() + queues.waiting());
        assert!(queues.queues.len() <= SHAPE.queues as usize);
    }
    outcomes
}

#[test]
fn who_floods_takes_no_more_than_his_share() {
    const UNTIL: u64 = 3_000_000;
    // One sends a hundred times what there is, the other wants a third of it, and gets it at once.
    let flood = |takes, seats| Client {
        name: "flood",
        every: 100,
        open_max: usize::MAX,
        seats,
        takes,
    };
    let modest = |every| Client {
        name: "modest",
        every,
        open_max: usize::MAX,
        seats: 1,
        takes: 10_000,
    };
    for (takes, wide) in [(10_000, 1), (100_000, 1), (1_000, 1), (10_000, 4)] {
        let found = simulate(10, UNTIL, &[flood(takes, wide), modest(3_000)]);
        let (flooding, other) = (&found[0], &found[1]);
        assert_eq!(other.refused, 0, "{takes} {wide}: {found:?}");
        // All but those that are under way are served, and nobody waits longer than a seat needs to come free, four of which are not many.
        assert!(other.sent - other.served <= 80, "{takes} {wide}: {found:?}");
        assert!(
            other.longest_wait <= 3 * takes.max(10_000),
            "{takes} {wide}: {found:?}"
        );
        assert!(flooding.refused > 1000, "{found:?}");
        assert!(flooding.served > 100, "{found:?}");
    }
    // Two that both want everything have half each, whether their requests are long or short, wide or narrow.
    for (takes, wide) in [(10_000, 1), (100_000, 1), (2_000, 1), (10_000, 3)] {
        let greedy = Client {
            name: "greedy",
            every: 200,
            open_max: usize::MAX,
            seats: wide,
            takes,
        };
        let found = simulate(12, UNTIL, &[flood(10_000, 1), greedy]);
        let (one, other) = (found[0].seat_micros, found[1].seat_micros);
        let all = one + other;
        assert!(
            one * 5 >= all * 2 && other * 5 >= all * 2,
            "{takes} {wide}: {found:?}"
        );
        assert!(all * 10 >= 12 * UNTIL * 8, "{takes} {wide}: {found:?}");
    }
}

#[test]
fn nobody_starves_among_many() {
    const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let mut clients: Vec<Client> = NAMES
        .iter()
        .map(|name| Client {
            name,
            every: 2_000,
            open_max: 20,
            seats: 1,
            takes: 5_000,
        })
        .collect();
    // One of them asks wide, another for long.
    clients[3].seats = 10;
    clients[7].takes = 200_000;
    let found = simulate(4, 20_000_000, &clients);
    for (name, outcome) in NAMES.iter().zip(&found) {
        assert!(outcome.served > 15, "{name}: {outcome:?}");
    }
}

#[test]
fn what_was_used_while_there_was_enough_is_nobodys_debt() {
    // A flow has one queue.
    let shape = Shape { hand: 1, ..SHAPE };
    assert_ne!(hand_of(flow("a"), 64, 1), hand_of(flow("b"), 64, 1));
    let mut queues = Queues::new(shape, 2, 0);
    // For an hour somebody has a seat, and nobody wants for one.
    let Arrival::Seated(long) = queues.arrive(flow("a"), 1, 0, || "a") else {
        panic!("a free seat");
    };
    let hour = 3_600_000_000;
    let Arrival::Seated(other) = queues.arrive(flow("b"), 1, hour, || "b") else {
        panic!("a free seat");
    };
    // Now both want more: they take turns, beginning with either.
    for _ in 0..4 {
        queues.arrive(flow("a"), 1, hour, || "a");
        queues.arrive(flow("b"), 1, hour, || "b");
    }
    let mut order = Vec::new();
    let mut turns = VecDeque::from([long, other]);
    let mut now = hour;
    while let Some(turn) = turns.pop_front() {
        now += 10_000;
        for (name, turn) in queues.finish(turn, now) {
            order.push(name);
            turns.push_back(turn);
        }
    }
    for pair in order.chunks(4) {
        let of_a = pair.iter().filter(|name| **name == "a").count();
        assert_eq!(of_a * 2, pair.len(), "{order:?}");
    }
    assert_eq!(order.len(), 8);
}

#[test]
fn queues_without_number_take_no_memory() {
    let shape = Shape {
        queues: 10_000_000,
        hand: 2,
        length: 1_000_000,
    };
    let mut queues = Queues::new(shape, 1, 0);
    let mut refused = 0;
    for number in 0..20_000_u64 {
        if let Arrival::Refused(why) = queues.arrive(flow(&number.to_string()), 1, number, || ()) {
            assert_eq!(why, Refusal::QueueFull);
            refused += 1;
        }
    }
    assert_eq!(queues.waiting(), WAITING_MAX);
    assert_eq!(refused, 20_000 - WAITING_MAX - 1);
    assert!(queues.queues.len() <= WAITING_MAX + 1);
}
