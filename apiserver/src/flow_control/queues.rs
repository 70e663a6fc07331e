//! Whose request is next, within one level: seats, and queues of those who wait for one.
//!
//! The requests of a flow are dealt a hand of the level's queues by its hash, and each goes to the shortest of its hand: a flow that floods
//! fills its own hand, and another flow shares all of it with next to no probability (shuffle sharding). A seat that comes free goes to the queue
//! that has used the least since there was more asked for than there is: what was used is seats times their time, of requests at
//! work counted up to now, so that neither many short requests nor few long ones get more. Among equals the one with fewer seats is first.
//!
//! Pure: time is handed in, in microseconds that never go back much, and nobody is woken here. Invariants: a request is refused, at
//! work or waiting, and leaves each exactly once; never more seats are taken than there are, but for one request alone; whoever waits is
//! seated as soon as those before him in his queue are and his queue's turn has come; no more is kept than [`WAITING_MAX`] and
//! [`IDLE_MAX`] say, whatever a configuration says. After Kubernetes' fair queuing; start-time fair queuing: Goyal, Vin, Cheng, IEEE/ACM Transactions on
//! Networking 1997.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::seats::{Demand, Seen};

/// Requests of one level that wait at a time; each is a task with a head of some kilobytes. A configuration could ask for more than any memory holds.
pub(super) const WAITING_MAX: usize = 8192;
/// Queues without requests that are remembered for what they used.
const IDLE_MAX: usize = 1024;
/// What each seat of a request counts beside its time, in microseconds: the cost of dealing with a request at all.
const FLOOR: i128 = 1000;

/// How a level queues. Without queues, whoever finds no seat is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub queues: u32,
    /// Queues that a flow's requests are dealt among.
    pub hand: u32,
    /// Requests that wait in one queue.
    pub length: u32,
}

/// A request at work: its queue, its seats, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    queue: u32,
    pub seats: u32,
    pub at: u64,
}

/// A request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    queue: u32,
    number: u64,
}

/// Why there is neither a seat nor room to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    QueueFull,
    /// The level has no queues.
    NoSeat,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Seated(Turn),
    Waits(Ticket),
    Refused(Refusal),
}

/// One who waits, and what he is told by.
struct Waiting<T> {
    number: u64,
    seats: u32,
    told: T,
}

struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    waiting_seats: u32,
    at_work: u32,
    seats: u32,
    /// What was used, but for what is at work: the seats of that are counted up to now, as seats × now − Σ seats × start.
    used: i128,
    started: i128,
    /// Of which time of contention that is.
    contention: u64,
}

/// A queue, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueShown {
    pub index: u32,
    pub waiting: usize,
    pub waiting_seats: u32,
    pub at_work: u32,
    pub seats: u32,
    pub used: i128,
}

/// The seats and queues of a level; `T` is what somebody who waits is told by.
pub(super) struct Queues<T> {
    shape: Shape,
    seats: u32,
    /// Those that have requests, or used more than others.
    queues: BTreeMap<u32, Queue<T>>,
    /// Those with somebody who waits.
    backlogged: BTreeSet<u32>,
    taken: u32,
    at_work: usize,
    waiting: usize,
    waiting_seats: u32,
    /// What the queue had used that was served last: whoever comes now begins there.
    progress: i128,
    /// Counts the times at which somebody began to wait while nobody else did.
    contention: u64,
    next_number: u64,
    demand: Demand,
}

impl<T> Queue<T> {
    fn new(used: i128, contention: u64) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_seats: 0,
            at_work: 0,
            seats: 0,
            used,
            started: 0,
            contention,
        }
    }

    fn used_by(&self, now: u64) -> i128 {
        let seats = i128::from(self.seats);
        self.used + seats * (i128::from(now) + FLOOR) - self.started
    }

    /// Has used at least, and where `exactly`, no more than `used`, but for the seats that it has now.
    fn level(&mut self, used: i128, now: u64, exactly: bool) {
        let behind = used + i128::from(self.seats) * FLOOR - self.used_by(now);
        if behind > 0 || exactly {
            self.used += behind;
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.at_work == 0
    }
}

impl<T> Queues<T> {
    pub(super) fn new(shape: Shape, seats: u32, now: u64) -> Self {
        Self {
            shape,
            seats,
            queues: BTreeMap::new(),
            backlogged: BTreeSet::new(),
            taken: 0,
            at_work: 0,
            waiting: 0,
            waiting_seats: 0,
            progress: 0,
            contention: 0,
            next_number: 0,
            demand: Demand::new(now),
        }
    }

    /// Another shape, or another number of seats; who gets one by that.
    pub(super) fn reshape(&mut self, shape: Shape, seats: u32, now: u64) -> Vec<(T, Turn)> {
        self.shape = shape;
        self.seats = seats;
        self.seat(now)
    }

    #[cfg(test)]
    pub(super) fn taken(&self) -> u32 {
        self.taken
    }

    pub(super) fn at_work(&self) -> usize {
        self.at_work
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// What was asked for since this was called last.
    pub(super) fn take_demand(&mut self, now: u64) -> Seen {
        self.demand.take(now)
    }

    pub(super) fn shown(&self, now: u64) -> Vec<QueueShown> {
        let all = self.queues.iter();
        all.map(|(index, queue)| QueueShown {
            index: *index,
            waiting: queue.waiting.len(),
            waiting_seats: queue.waiting_seats,
            at_work: queue.at_work,
            seats: queue.seats,
            used: queue.used_by(now),
        })
        .collect()
    }

    /// A request of a flow comes. `told` is asked for only if it has to wait.
    pub(super) fn arrive(
        &mut self,
        flow: u64,
        seats: u32,
        now: u64,
        told: impl FnOnce() -> T,
    ) -> Arrival {
        let seats = seats.max(1);
        let free = self.waiting == 0 && self.fits(seats);
        if !free && self.shape.queues == 0 {
            return Arrival::Refused(Refusal::NoSeat);
        }
        let index = self.dealt(flow);
        if free {
            let turn = self.begin(index, seats, now);
            self.note_demand(now);
            return Arrival::Seated(turn);
        }
        let length = self.queues.get(&index).map_or(0, |one| one.waiting.len());
        let room = self.shape.length as usize;
        if length >= room || self.waiting >= WAITING_MAX {
            return Arrival::Refused(Refusal::QueueFull);
        }
        if self.waiting == 0 {
            // What was used while there was enough for everybody is nobody's debt.
            self.contention += 1;
        }
        let number = self.next_number;
        self.next_number += 1;
        let queue = self.touched(index, now);
        queue.waiting.push_back(Waiting {
            number,
            seats,
            told: told(),
        });
        queue.waiting_seats = queue.waiting_seats.saturating_add(seats);
        self.backlogged.insert(index);
        self.waiting += 1;
        self.waiting_seats = self.waiting_seats.saturating_add(seats);
        self.note_demand(now);
        Arrival::Waits(Ticket {
            queue: index,
            number,
        })
    }

    /// A request is done; who gets a seat by that.
    pub(super) fn finish(&mut self, turn: Turn, now: u64) -> Vec<(T, Turn)> {
        let (progress, contention) = (self.progress, self.contention);
        if let Some(queue) = self.queues.get_mut(&turn.queue) {
            if queue.contention != contention {
                queue.level(progress, now, true);
                queue.contention = contention;
            }
            let took = i128::from(now.saturating_sub(turn.at));
            let seats = i128::from(turn.seats);
            queue.used += seats * (took + FLOOR);
            queue.started -= seats * i128::from(turn.at);
            queue.seats = queue.seats.saturating_sub(turn.seats);
            queue.at_work = queue.at_work.saturating_sub(1);
        }
        self.taken = self.taken.saturating_sub(turn.seats);
        self.at_work = self.at_work.saturating_sub(1);
        let seated = self.seat(now);
        self.tidy(turn.queue);
        self.note_demand(now);
        seated
    }

    /// Somebody waits no longer, and whether he still did; who gets a seat because a wider request before him is gone.
    pub(super) fn give_up(&mut self, ticket: Ticket, now: u64) -> (bool, Vec<(T, Turn)>) {
        let Some(queue) = self.queues.get_mut(&ticket.queue) else {
            return (false, Vec::new());
        };
        let found = queue
            .waiting
            .binary_search_by_key(&ticket.number, |one| one.number);
        let Some(gone) = found.ok().and_then(|at| queue.waiting.remove(at)) else {
            return (false, Vec::new());
        };
        queue.waiting_seats = queue.waiting_seats.saturating_sub(gone.seats);
        if queue.waiting.is_empty() {
            self.backlogged.remove(&ticket.queue);
        }
        self.waiting -= 1;
        self.waiting_seats = self.waiting_seats.saturating_sub(gone.seats);
        let seated = self.seat(now);
        self.tidy(ticket.queue);
        self.note_demand(now);
        (true, seated)
    }

    /// A request that is wider than the level has the level alone.
    fn fits(&self, seats: u32) -> bool {
        match seats > self.seats {
            true => self.taken == 0,
            false => self.taken.saturating_add(seats) <= self.seats,
        }
    }

    /// The shortest queue of a flow's hand.
    fn dealt(&self, flow: u64) -> u32 {
        let queues = self.shape.queues.max(1);
        let load = |index: u32| {
            let queue = self.queues.get(&index);
            queue.map_or((0, 0), |queue| {
                (
                    queue.waiting_seats.saturating_add(queue.seats),
                    queue.waiting.len(),
                )
            })
        };
        let hand = hand_of(flow, queues, self.shape.hand);
        let shortest = hand.into_iter().min_by_key(|index| load(*index));
        shortest.unwrap_or_default()
    }

    /// The queue, as one that takes part from now on.
    fn touched(&mut self, index: u32, now: u64) -> &mut Queue<T> {
        let (progress, contention) = (self.progress, self.contention);
        let queue = self
            .queues
            .entry(index)
            .or_insert_with(|| Queue::new(progress, contention));
        if queue.waiting.is_empty() {
            let anew = queue.contention != contention;
            queue.level(progress, now, anew);
            queue.contention = contention;
        }
        queue
    }

    fn begin(&mut self, index: u32, seats: u32, now: u64) -> Turn {
        let queue = self.touched(index, now);
        queue.at_work += 1;
        queue.seats = queue.seats.saturating_add(seats);
        queue.started += i128::from(seats) * i128::from(now);
        self.taken = self.taken.saturating_add(seats);
        self.at_work += 1;
        Turn {
            queue: index,
            seats,
            at: now,
        }
    }

    /// Seats those who wait, as long as the next one fits.
    fn seat(&mut self, now: u64) -> Vec<(T, Turn)> {
        let mut seated = Vec::new();
        while let Some((used, index)) = self.next_queue(now) {
            let Some(queue) = self.queues.get(&index) else {
                break;
            };
            let Some(seats) = queue.waiting.front().map(|one| one.seats) else {
                break;
            };
            // A narrower one behind it would keep it waiting for ever.
            if !self.fits(seats) {
                break;
            }
            self.progress = self.progress.max(used);
            let Some(queue) = self.queues.get_mut(&index) else {
                break;
            };
            let Some(next) = queue.waiting.pop_front() else {
                break;
            };
            queue.waiting_seats = queue.waiting_seats.saturating_sub(seats);
            if queue.waiting.is_empty() {
                self.backlogged.remove(&index);
            }
            self.waiting -= 1;
            self.waiting_seats = self.waiting_seats.saturating_sub(seats);
            let turn = self.begin(index, seats, now);
            seated.push((next.told, turn));
        }
        seated
    }

    /// The queue that has used the least of those with somebody who waits.
    fn next_queue(&self, now: u64) -> Option<(i128, u32)> {
        let known = self.backlogged.iter().filter_map(|index| {
            let queue = self.queues.get(index)?;
            let oldest = queue.waiting.front()?.number;
            Some((queue.used_by(now), queue.seats, oldest, *index))
        });
        known.min().map(|(used, _, _, index)| (used, index))
    }

    /// Forgets a queue that has nothing left to remember.
    fn tidy(&mut self, index: u32) {
        let Some(queue) = self.queues.get(&index).filter(|queue| queue.is_idle()) else {
            return;
        };
        if self.waiting == 0 || queue.used <= self.progress {
            self.queues.remove(&index);
        } else if self.queues.len() > IDLE_MAX + self.at_work + self.waiting {
            self.queues.retain(|_, queue| !queue.is_idle());
        }
    }

    fn note_demand(&mut self, now: u64) {
        let demand = self.taken.saturating_add(self.waiting_seats);
        self.demand.set(demand, now);
    }
}

/// A hand out of so many queues, dealt by a hash: each card takes a part of it.
fn hand_of(hash: u64, queues: u32, hand: u32) -> Vec<u32> {
    let mut rest = hash;
    // In order; whoever is dealt is taken out of the deck, so a card counts those that are left.
    let mut dealt: Vec<u32> = Vec::new();
    for taken in 0..hand.clamp(1, queues) {
        let left = u64::from(queues - taken);
        let mut card = u32::try_from(rest % left).unwrap_or_default();
        rest /= left;
        let mut place = 0;
        for (at, earlier) in dealt.iter().enumerate() {
            if card < *earlier {
                break;
            }
            card += 1;
            place = at + 1;
        }
        dealt.insert(place, card);
    }
    dealt
}

#[cfg(test)]
mod tests;
