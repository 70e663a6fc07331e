//! Whose turn it is on a core: tenants that want more than there is get equal parts of it.
//!
//! A core is one thread, and takes work in the order of its arrival, which is fair to calls and not to tenants: who sends a hundred at
//! once has a hundred parts. So before a core works for a tenant it asks for a [`Turn`], and afterwards the tenant is [`charge`]d for the
//! time. A tenant that has had its part of a round waits for the next one; a round is whatever a core finds to do between two looks at
//! its sockets (deficit round robin: Shreedhar and Varghese, SIGCOMM 1995, with time in place of bytes). Rounds in which nobody else
//! has work are over at once, so that nothing of a core is left unused.
//!
//! ```text
//! a request at the gateway or from another node ─ request() ─► … ─► an instance is polled ─ Turn, charge ─► a piece of a body ─ Turn, charge
//! cores.rs: rounds(): as long as somebody waits, look at the sockets, begin a round, wake whose turn it is
//! ```
//! Threads that never [`begin`] have no turns: there, everybody goes on at once. What no tenant is known of is nobody's: reading a request's
//! head, handshakes, frames that open no stream.
//!
//! Invariants: who waits is woken within as many rounds as its tenant has debts for, which are bounded ([`DEBT_MAX_NANOS`]); of one tenant,
//! what has begun goes before what has not, and of each who came first; a tenant that is within its part waits for nobody; what is
//! remembered of a tenant goes [`KEPT`] after its last work; nobody is woken while anything here is borrowed. Deciding ([`Turns`]) is pure.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    future::{Future, poll_fn},
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// What a tenant may have of a core in one round beside others. Whoever comes waits about as long: a short call, or two.
const PART_NANOS: i64 = 100_000;
/// The same while nobody else is there. Looking at the sockets once in that time costs nothing that can be measured, and whoever comes
/// waits no longer for its first turn.
const PART_ALONE_NANOS: i64 = 2_000_000;
/// A tenant that had more than its part in one piece gives it back in later rounds, up to this much: what nothing interrupts is shorter.
/// Paying for all of it takes two milliseconds where nobody else has work.
pub const DEBT_MAX_NANOS: i64 = 100_000_000;
/// How long a tenant without work counts as one of those who share a core.
pub const KEPT: Duration = Duration::from_secs(10);
/// Requests of one tenant that wait for their turn on one core.
pub const WAITING_MAX: usize = 4_096;
/// What a request costs beside the time that it has an instance: connection, routing and measuring (docs/performance.md).
pub const REQUEST: Duration = Duration::from_micros(30);
/// What a core passes on of bodies in a second, as one codec or two and the kernel copy them.
const BODY_BYTES_A_SECOND: u64 = 1 << 30;
/// Rounds after which who was called and has not begun is not waited for.
const CALLED_ROUNDS_MAX: u32 = 64;
/// Of how many turns the average cost of one is made.
const TURNS_REMEMBERED: i64 = 64;

static WAITS: AtomicU64 = AtomicU64::new(0);
static WAITED_NANOS: AtomicU64 = AtomicU64::new(0);

/// What was waited for turns in this process, on all cores and by all tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waited {
    /// Pieces of work that had to wait and came to their turn.
    pub count: u64,
    pub time: Duration,
}

/// As it is now; both only grow.
#[must_use]
pub fn waited() -> Waited {
    Waited {
        count: WAITS.load(Relaxed),
        time: Duration::from_nanos(WAITED_NANOS.load(Relaxed)),
    }
}

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
    /// Its turn has come: whoever is to be woken. None if it is not there any more.
    fn call(&self) -> Option<Waker> {
        let mut state = self.0.lock();
        if matches!(*state, State::Gone) {
            return None;
        }
        match std::mem::replace(&mut *state, State::Called) {
            State::Waiting(waker) => Some(waker),
            State::New | State::Called | State::Gone => Some(Waker::noop().clone()),
        }
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

/// What a turn is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// A request that comes in.
    New,
    /// An instance that goes on, a piece of a body: what it holds is given back once it is done.
    Begun,
}

/// One tenant on one core.
#[derive(Debug)]
struct Line {
    /// What is left of its part of this round; below zero, it had more.
    left: i64,
    /// Was called, and found nothing left.
    again: VecDeque<Arc<Ticket>>,
    begun: VecDeque<Arc<Ticket>>,
    new: VecDeque<Arc<Ticket>>,
    /// It is among [`Turns::busy`].
    is_busy: bool,
    /// It has worked since it was last looked at.
    has_worked: bool,
    seen: Instant,
    /// Whose turn has come, and who has not begun; and for how many rounds there has been somebody.
    called: Vec<Arc<Ticket>>,
    called_rounds: u32,
    /// Of its last turns.
    turns: i64,
    cost: i64,
}

impl Line {
    fn new(part: i64, now: Instant) -> Line {
        Line {
            left: part,
            again: VecDeque::new(),
            begun: VecDeque::new(),
            new: VecDeque::new(),
            is_busy: false,
            has_worked: true,
            seen: now,
            called: Vec::new(),
            called_rounds: 0,
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

    fn waiting(&self) -> usize {
        self.again.len() + self.begun.len() + self.new.len()
    }

    fn next(&mut self) -> Option<Arc<Ticket>> {
        let begun = self.again.pop_front().or_else(|| self.begun.pop_front());
        begun.or_else(|| self.new.pop_front())
    }

    /// Begins a round: its part, and whose turn it is, by who is to be woken.
    fn begin_round(&mut self, part: i64, woken: &mut Vec<Waker>) {
        // Who waits keeps what was too little for another turn.
        let kept = if self.waiting() > 0 { part } else { 0 };
        self.left = self.left.saturating_add(part).min(part + kept);
        self.called.retain(|ticket| ticket.is_called());
        self.called_rounds = match self.called.is_empty() {
            true => 0,
            false => self.called_rounds + 1,
        };
        if self.called_rounds > CALLED_ROUNDS_MAX {
            self.called.clear();
        }
        if self.left <= 0 {
            return;
        }
        // At least one, and what those cost who were called and have not begun is not known yet.
        let most = usize::try_from(self.left / self.usual_cost()).unwrap_or_default();
        while self.called.len() < most.max(1)
            && let Some(ticket) = self.next()
        {
            if let Some(waker) = ticket.call() {
                self.count_turn();
                self.called.push(ticket);
                woken.push(waker);
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
    fn may_go(&mut self, tenant: Tenant, work: Work, now: impl Fn() -> Instant) -> bool {
        let line = self.line(tenant, now);
        let is_next = work == Work::Begun || line.waiting() == 0;
        let may_go = line.left > 0 && is_next;
        if may_go {
            line.count_turn();
        }
        may_go
    }

    /// Whether who was called may begin: others of its tenant may have had more meanwhile than they usually have.
    fn may_begin(&self, tenant: Tenant) -> bool {
        self.lines.get(&tenant).is_none_or(|line| line.left > 0)
    }

    /// Has `ticket` wait, for the first time or `again`.
    fn wait(
        &mut self,
        (tenant, work): (Tenant, Work),
        ticket: Arc<Ticket>,
        again: bool,
        now: impl Fn() -> Instant,
    ) {
        let line = self.line(tenant, now);
        let queue = match (again, work) {
            (true, _) => &mut line.again,
            (false, Work::Begun) => &mut line.begun,
            (false, Work::New) => &mut line.new,
        };
        queue.push_back(ticket);
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

    /// Everybody has had what it may have; says who is to be woken.
    fn begin_round(&mut self, now: Instant, woken: &mut Vec<Waker>) {
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
            line.begin_round(part, woken);
            *waiting += line.waiting();
            line.is_busy = line.waiting() > 0 || line.left < part;
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
    let mut woken = Vec::new();
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
        with_core(|core| core.turns.begin_round(Instant::now(), &mut woken));
        woken.drain(..).for_each(Waker::wake);
    }
}

/// Takes `used` of a core from `tenant`'s part, where this thread is one. Costs a few nanoseconds.
pub fn charge(tenant: Tenant, used: Duration) {
    let nanos = i64::try_from(used.as_nanos()).unwrap_or(i64::MAX);
    with_core(|core| core.turns.charge(tenant, nanos, Instant::now));
}

/// The same for `bytes` of a body that are passed on.
pub fn charge_body(tenant: Tenant, bytes: u64) {
    let nanos = bytes.saturating_mul(1_000_000_000) / BODY_BYTES_A_SECOND;
    charge(tenant, Duration::from_nanos(nanos));
}

/// Whether as many requests of `tenant`'s wait here as may.
#[must_use]
pub fn is_full(tenant: Tenant) -> bool {
    let full = |core: &mut Core| {
        let line = core.turns.lines.get(&tenant);
        line.is_some_and(|line| line.new.len() >= WAITING_MAX)
    };
    with_core(full).unwrap_or_default()
}

/// What every request costs is charged, also if it goes away before its turn.
struct Paid(Tenant);

impl Drop for Paid {
    fn drop(&mut self) {
        charge(self.0, REQUEST);
    }
}

/// Waits for the turn of a request that comes in over a connection, and charges what every request costs ([`REQUEST`]). Says whether it had
/// to wait. Where as many wait as may, it does not: whoever asked [`is_full`] is about to refuse it.
pub async fn request(tenant: Tenant) -> bool {
    let _paid = Paid(tenant);
    if is_full(tenant) {
        return false;
    }
    let mut turn = Turn::new(tenant, Work::New);
    let mut had_to_wait = false;
    poll_fn(|context| {
        let polled = turn.poll(context);
        had_to_wait |= polled.is_pending();
        polled
    })
    .await;
    had_to_wait
}

/// A tenant's place on this thread's core: asked before each piece of work.
#[derive(Debug)]
pub struct Turn {
    tenant: Tenant,
    work: Work,
    ticket: Option<Arc<Ticket>>,
    since: Option<Instant>,
}

impl Turn {
    /// For what has begun, and goes on.
    #[must_use]
    pub const fn of(tenant: Tenant) -> Turn {
        Turn::new(tenant, Work::Begun)
    }

    const fn new(tenant: Tenant, work: Work) -> Turn {
        Turn {
            tenant,
            work,
            ticket: None,
            since: None,
        }
    }

    /// Whether it has been asked and has not come.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.ticket.is_some()
    }

    /// Ready when it is this tenant's turn; asked again afterwards, it is about the next one.
    pub fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        let (tenant, work) = (self.tenant, self.work);
        let may_go = match &self.ticket {
            Some(ticket) => {
                if ticket.poll(context).is_pending() {
                    return Poll::Pending;
                }
                with_core(|core| core.turns.may_begin(tenant))
            }
            None => with_core(|core| core.turns.may_go(tenant, work, Instant::now)),
        };
        if may_go.unwrap_or(true) {
            self.ticket = None;
            if let Some(since) = self.since.take() {
                let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
                WAITED_NANOS.fetch_add(nanos, Relaxed);
                WAITS.fetch_add(1, Relaxed);
            }
            return Poll::Ready(());
        }
        self.wait(context);
        Poll::Pending
    }

    #[cold]
    fn wait(&mut self, context: &Context<'_>) {
        self.since.get_or_insert_with(Instant::now);
        let ticket = Arc::new(Ticket::default());
        // It is new, and nobody has called it.
        let _ = ticket.poll(context);
        let again = self.ticket.replace(Arc::clone(&ticket)).is_some();
        let place = (self.tenant, self.work);
        let rounds = with_core(|core| {
            core.turns.wait(place, ticket, again, Instant::now);
            core.rounds.take()
        });
        if let Some(rounds) = rounds.flatten() {
            rounds.wake();
        }
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
                    None => self.turns.may_go(tenant, Work::New, || now),
                };
                if !may_go {
                    let ticket = Arc::new(Ticket::default());
                    let place = (tenant, Work::New);
                    self.turns.wait(place, Arc::clone(&ticket), false, || now);
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
            self.turns.begin_round(self.now, &mut Vec::new());
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
        turns.begin_round(now, &mut Vec::new());
        assert_eq!(turns.lines[&GREEDY].left, PART_ALONE_NANOS);
        assert!(turns.may_go(NEIGHBOUR, Work::New, || now));
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
        let place = (GREEDY, Work::New);
        turns.wait(place, Arc::clone(&ticket), false, || start);
        turns.begin_round(start, &mut Vec::new());
        assert!(ticket.is_called());
        assert_eq!((turns.lines.len(), turns.busy.len()), (1_000, 0));
        turns.begin_round(start + KEPT, &mut Vec::new());
        assert!(turns.lines.len() <= 1_000);
        turns.begin_round(start + KEPT * 3, &mut Vec::new());
        assert_eq!(turns.lines.len(), 0);
    }

    #[test]
    fn who_goes_away_while_it_waits_has_no_turn() {
        let mut turns = Turns::default();
        let now = Instant::now();
        turns.charge(GREEDY, PART_NANOS + 50_000, || now);
        let tickets = [(); 3].map(|()| Arc::new(Ticket::default()));
        for ticket in &tickets {
            assert!(!turns.may_go(GREEDY, Work::New, || now));
            turns.wait((GREEDY, Work::New), Arc::clone(ticket), false, || now);
        }
        tickets[0].leave();
        turns.begin_round(now, &mut Vec::new());
        assert_eq!(
            tickets.each_ref().map(|ticket| ticket.is_called()),
            [false, true, true]
        );
        assert_eq!(turns.waiting, 0);
    }

    #[test]
    fn what_has_begun_goes_before_what_has_not() {
        let mut turns = Turns::default();
        let now = Instant::now();
        // A turn of the usual cost is all that fits into a round.
        turns.charge(GREEDY, PART_NANOS, || now);
        let tickets = [Work::New, Work::New, Work::Begun].map(|work| {
            assert!(!turns.may_go(GREEDY, work, || now));
            let ticket = Arc::new(Ticket::default());
            turns.wait((GREEDY, work), Arc::clone(&ticket), false, || now);
            ticket
        });
        let called = || tickets.each_ref().map(|ticket| ticket.is_called());
        turns.lines.insert(NEIGHBOUR, Line::new(PART_NANOS, now));
        turns.begin_round(now, &mut Vec::new());
        assert_eq!(called(), [false, false, true]);
        tickets[2].leave();
        turns.charge(GREEDY, PART_NANOS, || now);
        turns.begin_round(now, &mut Vec::new());
        assert_eq!(called(), [true, false, false]);
    }

    /// Many cheap turns, then dear ones: as many were called as would have been cheap, and each had a tick of its own.
    #[test]
    fn who_was_called_waits_again_where_others_had_more_than_usual() {
        begin();
        let started = Instant::now();
        with_core(|core| {
            core.turns.charge(NEIGHBOUR, 1, || started);
            for _ in 0..TURNS_REMEMBERED {
                assert!(core.turns.may_go(GREEDY, Work::Begun, || started));
                core.turns.charge(GREEDY, 1, || started);
            }
            core.turns.charge(GREEDY, PART_NANOS, || started);
        });
        let context = Context::from_waker(Waker::noop());
        let mut dear = [(); 50].map(|()| Turn::of(GREEDY));
        let mut round = || {
            let mut ran = 0;
            for turn in &mut dear {
                if turn.poll(&context).is_ready() {
                    charge(GREEDY, Duration::from_millis(1));
                    ran += 1;
                }
            }
            with_core(|core| core.turns.begin_round(started, &mut Vec::new()));
            ran
        };
        assert_eq!(round(), 0);
        let ran: Vec<_> = (0..20).map(|_| round()).collect();
        assert_eq!(
            ran.iter().sum::<i32>(),
            2,
            "each pays for ten rounds: {ran:?}"
        );
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
        let before = waited();
        assert!(looked.as_mut().poll(&mut context).is_ready());
        assert!(waited().count > before.count);
    }
}
