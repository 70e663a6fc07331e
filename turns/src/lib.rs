//! Whose turn it is on a core: tenants that want more than there is get equal parts of it.
//!
//! A core is one thread, and takes work in the order of its arrival, which is fair to calls and not to tenants: who sends a hundred at
//! once has a hundred parts. So before a core works for a tenant it asks for a [`Turn`], and afterwards the tenant is [`charge`]d for the
//! time. A tenant that has had its part of a round waits for the next one; a round is whatever a core finds to do between two looks at
//! its sockets (deficit round robin: Shreedhar and Varghese, SIGCOMM 1995, with time in place of bytes). Rounds in which nobody else
//! has work are over at once, so that nothing of a core is left unused.
//!
//! ```text
//! a request at the gateway or from another node ─ Turn ─► … ─► an instance is polled ─ Turn, charge ─► …
//! cores.rs: rounds(): as long as somebody waits, look at the sockets, begin a round, wake whose turn it is
//! ```
//! Threads that never [`begin`] have no turns: there, everybody goes on at once.
//!
//! Invariants: who waits is woken within as many rounds as its tenant has debts for, which are bounded ([`DEBT_MAX_NANOS`]); of one tenant,
//! who came first goes first; a tenant that is within its part waits for nobody; what is remembered of a tenant goes [`KEPT`] after its
//! last work. Deciding ([`Turns`]) is pure.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    future::{Future, poll_fn},
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// What a tenant may have of a core in one round beside others. Whoever comes waits about as long: a short call, or two.
const PART_NANOS: i64 = 100_000;
/// The same while nobody else is there. Looking at the sockets once in that time costs nothing that can be measured, and whoever comes
/// waits no longer for its first turn.
const PART_ALONE_NANOS: i64 = 2_000_000;
/// A tenant that had more than its part in one piece gives it back in later rounds, up to this much.
pub const DEBT_MAX_NANOS: i64 = 5_000_000;
/// How long a tenant without work counts as one of those who share a core.
pub const KEPT: Duration = Duration::from_secs(10);
/// Requests of one tenant that wait for their turn on one core.
pub const WAITING_MAX: usize = 4_096;
/// What a request costs beside the time that it has an instance: connection, routing and measuring (docs/performance.md).
pub const REQUEST: Duration = Duration::from_micros(30);
/// Of how many turns the average cost of one is made.
const TURNS_REMEMBERED: i64 = 64;

/// Whose work it is: a namespace's, usually. Two names that come to the same number share a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(u64);

impl Tenant {
    /// Of requests that lead to nobody.
    pub const NOBODY: Tenant = Tenant(0);

    /// The same for the same name, in this process. Who chooses a name cannot choose whom it shares with.
    #[must_use]
    pub fn named(name: &str) -> Tenant {
        static KEYS: OnceLock<RandomState> = OnceLock::new();
        Tenant(KEYS.get_or_init(RandomState::new).hash_one(name))
    }
}

/// A [`Tenant`] is a hash.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// One who waits for its turn.
#[derive(Debug, Default)]
struct Ticket(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    New,
    Waiting(Waker),
    /// Its turn has come.
    Called,
    /// It has begun, or does not want to any more.
    Gone,
}

impl Ticket {
    /// Its turn has come. False if it is not there any more.
    fn call(&self) -> bool {
        let mut state = self.0.lock();
        if matches!(*state, State::Gone) {
            return false;
        }
        if let State::Waiting(waker) = std::mem::replace(&mut *state, State::Called) {
            waker.wake();
        }
        true
    }

    fn is_called(&self) -> bool {
        matches!(*self.0.lock(), State::Called)
    }

    fn leave(&self) {
        *self.0.lock() = State::Gone;
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        match &mut *state {
            State::Called | State::Gone => {
                *state = State::Gone;
                return Poll::Ready(());
            }
            State::Waiting(waker) => waker.clone_from(context.waker()),
            State::New => *state = State::Waiting(context.waker().clone()),
        }
        Poll::Pending
    }
}

/// One tenant on one core.
#[derive(Debug)]
struct Line {
    /// What is left of its part of this round; below zero, it had more.
    left: i64,
    waiting: VecDeque<Arc<Ticket>>,
    /// It is among [`Turns::busy`].
    is_busy: bool,
    /// It has worked since it was last looked at.
    has_worked: bool,
    seen: Instant,
    /// Whose turn has come, and who has not begun.
    called: Vec<Arc<Ticket>>,
    /// Of its last turns.
    turns: i64,
    cost: i64,
}

impl Line {
    fn new(part: i64, now: Instant) -> Line {
        Line {
            left: part,
            waiting: VecDeque::new(),
            is_busy: false,
            has_worked: true,
            seen: now,
            called: Vec::new(),
            turns: 0,
            cost: 0,
        }
    }

    fn count_turn(&mut self) {
        if self.turns >= TURNS_REMEMBERED {
            self.turns /= 2;
            self.cost /= 2;
        }
        self.turns += 1;
    }

    /// What a turn of this tenant comes to.
    fn usual_cost(&self) -> i64 {
        (self.cost / self.turns.max(1)).clamp(1, PART_NANOS)
    }

    /// Begins a round: its part, and whose turn it is.
    fn begin_round(&mut self, part: i64) {
        self.left = self.left.saturating_add(part).min(part);
        self.called.retain(|ticket| ticket.is_called());
        if self.left <= 0 {
            return;
        }
        // At least one, and what those cost who were called and have not begun is not known yet.
        let most = usize::try_from(self.left / self.usual_cost()).unwrap_or_default();
        while self.called.len() < most.max(1)
            && let Some(ticket) = self.waiting.pop_front()
        {
            if ticket.call() {
                self.count_turn();
                self.called.push(ticket);
            }
        }
    }
}

/// The tenants of one core.
#[derive(Debug, Default)]
struct Turns {
    lines: HashMap<Tenant, Line, BuildHasherDefault<AsItIs>>,
    /// Who has had something of this round, or waits.
    busy: Vec<Tenant>,
    /// How many wait.
    waiting: usize,
    swept: Option<Instant>,
}

impl Turns {
    fn part(&self) -> i64 {
        match self.lines.len() {
            0 | 1 => PART_ALONE_NANOS,
            _ => PART_NANOS,
        }
    }

    fn line(&mut self, tenant: Tenant, now: impl Fn() -> Instant) -> &mut Line {
        if !self.lines.contains_key(&tenant) {
            self.sweep(now());
            if self.lines.len() == 1 {
                // It is not alone any more.
                for line in self.lines.values_mut() {
                    line.left = line.left.min(PART_NANOS);
                }
            }
        }
        self.lines
            .entry(tenant)
            .or_insert_with(|| Line::new(PART_NANOS, now()))
    }

    /// Forgets who has had no work for long.
    fn sweep(&mut self, now: Instant) {
        self.swept = Some(now);
        self.lines.retain(|_, line| {
            if std::mem::take(&mut line.has_worked) {
                line.seen = now;
            }
            line.is_busy || now.saturating_duration_since(line.seen) < KEPT
        });
    }

    /// Whether it is `tenant`'s turn.
    fn may_go(&mut self, tenant: Tenant, now: impl Fn() -> Instant) -> bool {
        let line = self.line(tenant, now);
        let may_go = line.left > 0 && line.waiting.is_empty();
        if may_go {
            line.count_turn();
        }
        may_go
    }

    fn wait(&mut self, tenant: Tenant, ticket: Arc<Ticket>, now: impl Fn() -> Instant) {
        let line = self.line(tenant, now);
        line.waiting.push_back(ticket);
        if !std::mem::replace(&mut line.is_busy, true) {
            self.busy.push(tenant);
        }
        self.waiting += 1;
    }

    fn charge(&mut self, tenant: Tenant, nanos: i64, now: impl Fn() -> Instant) {
        let line = self.line(tenant, now);
        line.left = line.left.saturating_sub(nanos).max(-DEBT_MAX_NANOS);
        line.cost = line.cost.saturating_add(nanos);
        line.has_worked = true;
        if !std::mem::replace(&mut line.is_busy, true) {
            self.busy.push(tenant);
        }
    }

    /// Everybody has had what it may have.
    fn begin_round(&mut self, now: Instant) {
        let swept = *self.swept.get_or_insert(now);
        if now.saturating_duration_since(swept) >= KEPT {
            self.sweep(now);
        }
        let part = self.part();
        let (lines, waiting) = (&mut self.lines, &mut self.waiting);
        *waiting = 0;
        self.busy.retain(|tenant| {
            let Some(line) = lines.get_mut(tenant) else {
                return false;
            };
            line.begin_round(part);
            *waiting += line.waiting.len();
            line.is_busy = !line.waiting.is_empty() || line.left < part;
            line.is_busy
        });
    }
}

/// This thread's, if it is a core.
#[derive(Default)]
struct Core {
    turns: Turns,
    /// Whoever begins its rounds.
    rounds: Option<Waker>,
}

thread_local! {
    static CORE: RefCell<Option<Core>> = const { RefCell::new(None) };
}

fn with_core<T>(act: impl FnOnce(&mut Core) -> T) -> Option<T> {
    CORE.with_borrow_mut(|core| core.as_mut().map(act))
}

/// From now on this thread is a core. Whoever says so runs [`rounds`] on it, or those who wait do so for ever.
pub fn begin() {
    CORE.set(Some(Core::default()));
}

/// Begins rounds as long as somebody waits on this thread; never ends. `look` has whatever became ready meanwhile found, and what was found
/// worked on.
pub async fn rounds<F: Future<Output = ()>>(look: impl Fn() -> F) {
    loop {
        poll_fn(|context| {
            let somebody = with_core(|core| {
                if core.turns.waiting == 0 {
                    core.rounds = Some(context.waker().clone());
                }
                core.turns.waiting > 0
            });
            match somebody {
                Some(true) => Poll::Ready(()),
                Some(false) | None => Poll::Pending,
            }
        })
        .await;
        look().await;
        with_core(|core| core.turns.begin_round(Instant::now()));
    }
}

/// Takes `used` of a core from `tenant`'s part, where this thread is one. Costs a few nanoseconds.
pub fn charge(tenant: Tenant, used: Duration) {
    let nanos = i64::try_from(used.as_nanos()).unwrap_or(i64::MAX);
    with_core(|core| core.turns.charge(tenant, nanos, Instant::now));
}

/// Whether as many of `tenant`'s wait here as may.
#[must_use]
pub fn is_full(tenant: Tenant) -> bool {
    let full = |core: &mut Core| {
        let line = core.turns.lines.get(&tenant);
        line.is_some_and(|line| line.waiting.len() >= WAITING_MAX)
    };
    with_core(full).unwrap_or_default()
}

/// Waits for the turn of a request that comes in over a connection, and charges what every request costs ([`REQUEST`]).
pub async fn request(tenant: Tenant) {
    let mut turn = Turn::of(tenant);
    poll_fn(|context| turn.poll(context)).await;
    charge(tenant, REQUEST);
}

/// A tenant's place on this thread's core: asked before each piece of work.
#[derive(Debug)]
pub struct Turn {
    tenant: Tenant,
    ticket: Option<Arc<Ticket>>,
}

impl Turn {
    #[must_use]
    pub const fn of(tenant: Tenant) -> Turn {
        Turn {
            tenant,
            ticket: None,
        }
    }

    /// Ready when it is this tenant's turn; asked again afterwards, it is about the next one.
    pub fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        let polled = match &self.ticket {
            Some(ticket) => ticket.poll(context),
            None => {
                let may_go = with_core(|core| core.turns.may_go(self.tenant, Instant::now));
                if may_go.unwrap_or(true) {
                    return Poll::Ready(());
                }
                self.wait(context)
            }
        };
        if polled.is_ready() {
            self.ticket = None;
        }
        polled
    }

    #[cold]
    fn wait(&mut self, context: &Context<'_>) -> Poll<()> {
        let ticket = Arc::new(Ticket::default());
        let polled = ticket.poll(context);
        self.ticket = Some(Arc::clone(&ticket));
        let rounds = with_core(|core| {
            core.turns.wait(self.tenant, ticket, Instant::now);
            core.rounds.take()
        });
        if let Some(rounds) = rounds.flatten() {
            rounds.wake();
        }
        polled
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(ticket) = &self.ticket {
            ticket.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREEDY: Tenant = Tenant(1);
    const NEIGHBOUR: Tenant = Tenant(2);

    /// A core on which tenants work through what they have at once, a piece at a time.
    struct Played {
        turns: Turns,
        now: Instant,
        /// Who may begin, in the order in which the core comes to them.
        ready: VecDeque<(Tenant, Option<Arc<Ticket>>)>,
        waiting: Vec<(Tenant, Arc<Ticket>)>,
        worked: HashMap<Tenant, i64>,
    }

    impl Played {
        fn new() -> Played {
            Played {
                turns: Turns::default(),
                now: Instant::now(),
                ready: VecDeque::new(),
                waiting: Vec::new(),
                worked: HashMap::new(),
            }
        }

        fn arrive(&mut self, tenant: Tenant, count: usize) {
            self.ready.extend((0..count).map(|_| (tenant, None)));
        }

        /// Works through what is ready, which comes again if `again` says so, then begins a round.
        fn round(&mut self, cost: impl Fn(Tenant) -> i64, again: impl Fn(Tenant) -> bool) {
            let now = self.now;
            for (tenant, ticket) in std::mem::take(&mut self.ready) {
                let may_go = match &ticket {
                    Some(ticket) => {
                        ticket.leave();
                        true
                    }
                    None => self.turns.may_go(tenant, || now),
                };
                if !may_go {
                    let ticket = Arc::new(Ticket::default());
                    self.turns.wait(tenant, Arc::clone(&ticket), || now);
                    self.waiting.push((tenant, ticket));
                    continue;
                }
                let cost = cost(tenant);
                self.turns.charge(tenant, cost, || now);
                self.now += Duration::from_nanos(cost.unsigned_abs());
                *self.worked.entry(tenant).or_default() += cost;
                if again(tenant) {
                    self.ready.push_back((tenant, None));
                }
            }
            self.turns.begin_round(self.now);
            let ready = &mut self.ready;
            self.waiting.retain(|(tenant, ticket)| {
                if ticket.is_called() {
                    ready.push_back((*tenant, Some(Arc::clone(ticket))));
                }
                !ticket.is_called()
            });
        }
    }

    #[test]
    fn eight_hundred_callers_have_as_much_of_a_core_as_four() {
        let mut core = Played::new();
        core.arrive(GREEDY, 800);
        core.arrive(NEIGHBOUR, 4);
        let cost = |tenant| if tenant == GREEDY { 70_000 } else { 40_000 };
        let mut longest = Duration::ZERO;
        for _ in 0..1_000 {
            let before = core.now;
            core.round(cost, |_| true);
            longest = longest.max(core.now - before);
        }
        let (greedy, neighbour) = (core.worked[&GREEDY], core.worked[&NEIGHBOUR]);
        let ratio = greedy as f64 / neighbour as f64;
        assert!((0.9..1.1).contains(&ratio), "{greedy} and {neighbour} ns");
        assert!(
            longest < Duration::from_micros(600),
            "a round took {longest:?}"
        );
    }

    #[test]
    fn nothing_of_a_core_is_left_unused() {
        let mut core = Played::new();
        core.arrive(GREEDY, 100);
        let mut rounds = 0;
        while !core.ready.is_empty() || !core.waiting.is_empty() {
            core.round(|_| 1_000_000, |_| false);
            rounds += 1;
            assert!(rounds < 1_000, "it does not come to an end");
        }
        assert_eq!(core.worked[&GREEDY], 100_000_000);
    }

    #[test]
    fn who_had_too_much_at_once_gives_it_back() {
        let mut core = Played::new();
        core.arrive(NEIGHBOUR, 2);
        core.arrive(GREEDY, 2);
        // One piece of ten parts, then small ones.
        core.round(
            |tenant| {
                if tenant == GREEDY {
                    10 * PART_NANOS
                } else {
                    10_000
                }
            },
            |_| true,
        );
        let before = core.worked.clone();
        for round in 1..8 {
            core.round(|_| 10_000, |_| true);
            assert_eq!(core.worked[&GREEDY], before[&GREEDY], "round {round}");
        }
        for _ in 0..8 {
            core.round(|_| 10_000, |_| true);
        }
        assert!(core.worked[&GREEDY] > before[&GREEDY], "its debt is paid");
        assert!(
            core.worked[&NEIGHBOUR] >= 15 * 2 * 10_000,
            "it waited for nobody"
        );
    }

    #[test]
    fn a_tenant_that_comes_finds_the_one_that_was_alone_within_its_part() {
        let mut turns = Turns::default();
        let now = Instant::now();
        turns.charge(GREEDY, 10, || now);
        turns.begin_round(now);
        assert_eq!(turns.lines[&GREEDY].left, PART_ALONE_NANOS);
        assert!(turns.may_go(NEIGHBOUR, || now));
        assert_eq!(turns.lines[&GREEDY].left, PART_NANOS);
    }

    #[test]
    fn what_nobody_works_for_any_more_is_forgotten() {
        let mut turns = Turns::default();
        let start = Instant::now();
        for number in 0..1_000 {
            turns.charge(Tenant(number), 10, || start);
        }
        let ticket = Arc::new(Ticket::default());
        turns.wait(GREEDY, Arc::clone(&ticket), || start);
        turns.begin_round(start);
        assert!(ticket.is_called());
        assert_eq!((turns.lines.len(), turns.busy.len()), (1_000, 0));
        turns.begin_round(start + KEPT);
        assert!(turns.lines.len() <= 1_000);
        turns.begin_round(start + KEPT * 3);
        assert_eq!(turns.lines.len(), 0);
    }

    #[test]
    fn who_goes_away_while_it_waits_has_no_turn() {
        let mut turns = Turns::default();
        let now = Instant::now();
        turns.charge(GREEDY, PART_NANOS + 50_000, || now);
        let tickets = [(); 3].map(|()| Arc::new(Ticket::default()));
        for ticket in &tickets {
            assert!(!turns.may_go(GREEDY, || now));
            turns.wait(GREEDY, Arc::clone(ticket), || now);
        }
        tickets[0].leave();
        turns.begin_round(now);
        assert_eq!(
            tickets.each_ref().map(|ticket| ticket.is_called()),
            [false, true, true]
        );
        assert_eq!(turns.waiting, 0);
    }

    #[test]
    fn threads_that_are_no_cores_have_no_turns() {
        charge(GREEDY, DEBT);
        let mut turn = Turn::of(GREEDY);
        assert_eq!(
            turn.poll(&Context::from_waker(Waker::noop())),
            Poll::Ready(())
        );
        assert!(!is_full(GREEDY));
    }

    const DEBT: Duration = Duration::from_secs(1);

    #[test]
    fn on_a_core_who_waits_is_woken_by_the_next_round() {
        begin();
        charge(GREEDY, DEBT);
        let mut context = Context::from_waker(Waker::noop());
        let mut turn = Turn::of(GREEDY);
        assert_eq!(turn.poll(&context), Poll::Pending);
        let mut rounds = std::pin::pin!(rounds(|| std::future::ready(())));
        let mut polls = 0;
        // `rounds` does not stop as long as somebody waits, so it is given a look at a time.
        let mut looked = std::pin::pin!(async {
            while turn.poll(&Context::from_waker(Waker::noop())).is_pending() {
                polls += 1;
                let mut looks = 0;
                poll_fn(|context| {
                    looks += 1;
                    let _ = rounds.as_mut().poll(context);
                    Poll::Ready(())
                })
                .await;
                assert!(polls < 100, "its debt has a bound");
            }
        });
        assert!(looked.as_mut().poll(&mut context).is_ready());
    }
}
