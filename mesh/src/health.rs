//! Whether an endpoint can be called, apart from how fast it answers. Pure but for its atomics.
//!
//! Time comes in as monotonic nanoseconds. A [`Health`] is shared by every thread and lives as long as its endpoint keeps its pod, through
//! any number of tables.
//!
//! ```text
//!       fails: 100 ms             the backoff is over
//! well ───────────────► ejected ──────────────────────► on trial: one call a second
//!  ▲                      │ ▲                              │      │
//!  ├─ a call is answered ─┘ └─ fails: twice as long ───────┘      │
//!  └────────────────────────── a call is answered ────────────────┘
//! ```
//! One incident is one step: what was in flight fails all at once, and a call that was begun before the backoff was over, for want of
//! another endpoint or before the failure was known, is no trial. Nor does a call say anything that was begun before the endpoint
//! recovered and fails later.
//!
//! Which answers end it depends on what it is ejected for. After a failure any does: an endpoint that fails now and then among many
//! calls is hardly missed. That the way to it is good again, a call shows that was begun after the way had failed. That it has room
//! again, only one that was begun after the backoff, which runs its course: to answer some and refuse others is what being full is. The same
//! holds of an endpoint that a policy has had enough of (`breaker.rs`), which answered before.
//!
//! No jitter: a backoff begins at the failure of a call, which is at another moment for each node and each endpoint.
//!
//! Invariants: no lock; reading never writes, nor does an answer of a healthy endpoint; a reading of the clock that is a little behind
//! lengthens nothing. Left to others: which failures are the endpoint's (`attempt.rs`), and that somebody is chosen though all are
//! ejected (`balance.rs`).
//! Source: Linkerd's failure accrual (linkerd2-proxy, `linkerd/app/outbound/src/http/breaker`), which ejects at the seventh failure in a
//! row for 1 to 60 s, and lets one call try it then. Here the first failure does, for a tenth of a second: of a service with few calls
//! seven would be a minute's. What that comes to is simulated in `balance/simulation.rs`.

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};

/// How long an endpoint is left alone to which the way failed. It went away or its node did, and dialling takes calls a second.
const EJECTION: Duration = Duration::from_secs(5);

/// How long it is left alone at its first failure: a few calls of most services.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// And at most: as long an endpoint that is well again may stay unasked.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The longest where it only has no room and does not say when it will: that passes by itself.
const OVERLOAD_MAX: Duration = Duration::from_secs(1);

/// How long after a call that tries it another one may, if nothing is known by then. All that come until the first is given up would
/// wait for who hangs; a call that its own caller spoils must not keep the others from trying for long.
const TRIAL: Duration = Duration::from_secs(1);

/// Failures in a row that are told apart; the backoff is at its longest by then.
const FAILURES_MAX: u8 = 8;

/// The parts of a packed state. The time needs no better than 64 ns.
const FAILURES_MASK: u64 = 0xf;
const CAUSE_SHIFT: u32 = 4;
const TIME_MASK: u64 = !0x3f;

/// What came of a call that is held against its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Failed,
    /// It had no room, and may have said for how long. That bounds the backoff and does not set it: the least that can be said is a
    /// second, and it is said to one caller.
    Overloaded {
        retry_after: Option<Duration>,
    },
    /// The way there failed.
    Unreachable,
    /// It answered, and a policy has had enough of its answers: for how long it is left alone first, and at most.
    Tripped {
        ejection: Duration,
        longest: Duration,
    },
}

/// Whether an endpoint is left alone, and for how long.
#[derive(Debug)]
pub struct Health {
    /// A packed [`State`].
    state: AtomicU64,
    /// When a call began last that tries it.
    tried: AtomicU64,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            tried: AtomicU64::new(0),
        }
    }

    /// A call to it begins.
    pub(crate) fn begin(&self, now: u64) {
        let state = self.state();
        if state.failures > 0 && state.at <= now {
            self.tried.store(now, Ordering::Relaxed);
        }
    }

    /// A call that was begun at `began` was answered.
    pub(crate) fn answered(&self, began: u64, now: u64) {
        if self.state().failures == 0 {
            return;
        }
        self.update(|state| (state.failures > 0 && state.ends_by(began)).then(|| State::well(now)));
    }

    /// A call that was begun at `began` came to nothing.
    pub(crate) fn failed(&self, fault: Fault, began: u64, now: u64) {
        self.update(|state| (began >= state.at).then(|| state.after(fault, now)));
    }

    /// Whether a policy has it left alone for its answers, or a call has yet to show that those are good again.
    pub(crate) fn is_tripped(&self) -> bool {
        let state = self.state();
        state.failures > 0 && state.cause == Cause::Answers
    }

    pub(crate) fn is_ejected(&self, now: u64) -> bool {
        self.rank(now) > 0
    }

    /// 0 for an endpoint that can be called; of the others, who is more likely to answer ranks before who is less.
    pub(crate) fn rank(&self, now: u64) -> u64 {
        let state = self.state();
        if state.failures == 0 || (state.at <= now && !self.is_on_trial(state, now)) {
            return 0;
        }
        match state.cause {
            // How full each of them is at the moment, their loads say.
            Cause::Overload => 1,
            // Whose backoff ends first: each has its turn, and who failed more often for shorter.
            Cause::Failure | Cause::Answers => state.at,
            Cause::Way => u64::MAX,
        }
    }

    /// Whether a call has begun to try it since the backoff was over.
    fn is_on_trial(&self, state: State, now: u64) -> bool {
        let tried = self.tried.load(Ordering::Relaxed);
        tried >= state.at && tried.saturating_add(nanos(TRIAL)) > now
    }

    fn state(&self) -> State {
        State::unpack(self.state.load(Ordering::Relaxed))
    }

    fn update(&self, step: impl Fn(State) -> Option<State>) {
        let step = |packed| step(State::unpack(packed)).map(State::pack);
        // Refused where the state stays as it is.
        let _ = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }
}

/// What an endpoint was last ejected for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Failure,
    Overload,
    Way,
    Answers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// Since when it is well, or until when it is left alone: failures of calls begun before say nothing new.
    at: u64,
    /// In a row; 0: it is well.
    failures: u8,
    cause: Cause,
}

impl State {
    fn well(now: u64) -> Self {
        Self {
            at: now,
            failures: 0,
            cause: Cause::Failure,
        }
    }

    /// Whether an answer to a call begun then shows that what it is ejected for is over.
    fn ends_by(self, began: u64) -> bool {
        match self.cause {
            Cause::Failure => true,
            Cause::Way => began.saturating_add(nanos(EJECTION)) >= self.at,
            Cause::Overload | Cause::Answers => began >= self.at,
        }
    }

    fn after(self, fault: Fault, now: u64) -> Self {
        let failures = (self.failures + 1).min(FAILURES_MAX);
        let backoff = (BACKOFF_MIN * (1 << (failures - 1))).min(BACKOFF_MAX);
        let (cause, backoff) = match fault {
            Fault::Failed => (Cause::Failure, backoff),
            Fault::Overloaded { retry_after } => {
                let longest = retry_after.unwrap_or(OVERLOAD_MAX).max(BACKOFF_MIN);
                (Cause::Overload, backoff.min(longest))
            }
            Fault::Unreachable => (Cause::Way, EJECTION),
            Fault::Tripped { ejection, longest } => {
                // Failures of another kind before it are not its answers.
                let before = match self.cause {
                    Cause::Answers => failures - 1,
                    Cause::Failure | Cause::Overload | Cause::Way => 0,
                };
                let backoff = ejection.saturating_mul(1 << before);
                (Cause::Answers, backoff.min(longest))
            }
        };
        Self {
            at: now.saturating_add(nanos(backoff)),
            failures,
            cause,
        }
    }

    fn pack(self) -> u64 {
        let cause = match self.cause {
            Cause::Failure => 0,
            Cause::Overload => 1,
            Cause::Way => 2,
            Cause::Answers => 3,
        };
        (self.at & TIME_MASK) | (cause << CAUSE_SHIFT) | u64::from(self.failures)
    }

    fn unpack(packed: u64) -> Self {
        Self {
            at: packed & TIME_MASK,
            failures: (packed & FAILURES_MASK) as u8,
            cause: match (packed & !TIME_MASK) >> CAUSE_SHIFT {
                0 => Cause::Failure,
                1 => Cause::Overload,
                2 => Cause::Way,
                _ => Cause::Answers,
            },
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    use Fault::{Failed, Unreachable};

    const MILLI: u64 = 1_000_000;
    const OVERLOADED: Fault = Fault::Overloaded { retry_after: None };
    const ANSWERED: Option<Fault> = None;

    fn retry_after(seconds: u64) -> Fault {
        let retry_after = Some(Duration::from_secs(seconds));
        Fault::Overloaded { retry_after }
    }

    /// What comes of calls: when each was begun and when it ended, in milliseconds, and how.
    type Calls<'c> = &'c [(u64, u64, Option<Fault>)];

    /// How it stands after each: its failures in a row, and until when it is left alone.
    fn told(calls: Calls<'_>) -> String {
        let health = Health::new();
        let mut told = Vec::new();
        for (began, now, fault) in calls {
            let (began, now) = (began * MILLI, now * MILLI);
            match fault {
                Some(fault) => health.failed(*fault, began, now),
                None => health.answered(began, now),
            }
            let state = health.state();
            assert_eq!(State::unpack(state.pack()), state);
            told.push(match state.failures {
                0 => "well".to_owned(),
                failures => {
                    assert!(health.is_ejected(state.at - 1) && !health.is_ejected(state.at));
                    format!("{failures} until {}", state.at.div_ceil(MILLI))
                }
            });
        }
        told.join(", ")
    }

    #[test]
    fn what_ejects_for_how_long_and_what_ends_it() {
        let tripped = Some(Fault::Tripped {
            ejection: Duration::from_secs(1),
            longest: Duration::from_secs(3),
        });
        let cases: [(&str, Calls<'_>, &str); 16] = [
            ("answers", &[(0, 1, ANSWERED)], "well"),
            (
                "the backoff doubles at each trial",
                &[
                    (0, 1, Some(Failed)),
                    (101, 102, Some(Failed)),
                    (302, 303, Some(Failed)),
                ],
                "1 until 101, 2 until 302, 3 until 703",
            ),
            (
                "an answer ends it, and the next failure is a first one",
                &[
                    (0, 1, Some(Failed)),
                    (101, 102, Some(Failed)),
                    (302, 303, ANSWERED),
                    (303, 304, Some(Failed)),
                ],
                "1 until 101, 2 until 302, well, 1 until 404",
            ),
            (
                "all that were in flight fail at once",
                &[
                    (0, 10, Some(Failed)),
                    (1, 10, Some(Failed)),
                    (9, 11, Some(OVERLOADED)),
                    (9, 12, Some(Unreachable)),
                ],
                "1 until 110, 1 until 110, 1 until 110, 1 until 110",
            ),
            (
                "a call for want of another endpoint is no trial, unless it is answered",
                &[
                    (0, 1, Some(Failed)),
                    (50, 51, Some(Failed)),
                    (52, 53, ANSWERED),
                ],
                "1 until 101, 1 until 101, well",
            ),
            (
                "who fails now and then is not missed for long",
                &[(0, 10, Some(Failed)), (5, 11, ANSWERED)],
                "1 until 110, well",
            ),
            (
                "what was begun before it was well again",
                &[
                    (0, 1, Some(Failed)),
                    (90, 150, ANSWERED),
                    (95, 151, Some(Failed)),
                    (149, 152, Some(Unreachable)),
                    (150, 153, Some(Failed)),
                ],
                "1 until 101, well, well, well, 1 until 253",
            ),
            (
                "the way fails, for as long each time",
                &[
                    (0, 1, Some(Unreachable)),
                    (5001, 5002, Some(Unreachable)),
                    (10_002, 10_003, Some(Failed)),
                ],
                "1 until 5001, 2 until 10002, 3 until 10403",
            ),
            (
                "what had gone the way before it failed does not mend it",
                &[
                    (0, 10, Some(Unreachable)),
                    (5, 11, ANSWERED),
                    (10, 12, ANSWERED),
                ],
                "1 until 5010, 1 until 5010, well",
            ),
            (
                "no room, and no word of when",
                &[
                    (0, 0, Some(OVERLOADED)),
                    (100, 100, Some(OVERLOADED)),
                    (300, 300, Some(OVERLOADED)),
                    (700, 700, Some(OVERLOADED)),
                    (1500, 1500, Some(OVERLOADED)),
                    (2500, 2500, Some(Failed)),
                ],
                "1 until 100, 2 until 300, 3 until 700, 4 until 1500, 5 until 2500, 6 until 5700",
            ),
            (
                "it says when there will be",
                &[
                    (0, 0, Some(retry_after(0))),
                    (100, 100, Some(retry_after(0))),
                    (200, 200, Some(retry_after(300))),
                    (600, 600, Some(retry_after(300))),
                    (1400, 1400, Some(retry_after(300))),
                ],
                "1 until 100, 2 until 200, 3 until 600, 4 until 1400, 5 until 3000",
            ),
            (
                "it has no room while it answers others",
                &[
                    (0, 10, Some(OVERLOADED)),
                    (5, 11, ANSWERED),
                    (50, 60, ANSWERED),
                    (110, 111, ANSWERED),
                ],
                "1 until 110, 1 until 110, 1 until 110, well",
            ),
            (
                "what it fails at the last counts, whatever it was before",
                &[
                    (0, 0, Some(OVERLOADED)),
                    (100, 100, Some(Failed)),
                    (50, 101, ANSWERED),
                ],
                "1 until 100, 2 until 300, well",
            ),
            (
                "a policy has had enough of its answers: only one that was begun afterwards ends that",
                &[
                    (0, 1, Some(Failed)),
                    (2, 3, ANSWERED),
                    (3, 4, tripped),
                    (3, 5, ANSWERED),
                    (1004, 1005, tripped),
                    (3005, 3006, tripped),
                    (6006, 6007, ANSWERED),
                ],
                "1 until 101, well, 1 until 1004, 1 until 1004, 2 until 3005, 3 until 6006, well",
            ),
            (
                "a clock that is behind",
                &[
                    (5, 4, Some(Failed)),
                    (104, 103, ANSWERED),
                    (102, 102, Some(Failed)),
                ],
                "1 until 104, well, well",
            ),
            (
                "at the end of time",
                &[(u64::MAX / MILLI, u64::MAX / MILLI, Some(Failed))],
                "1 until 18446744073710",
            ),
        ];
        for (name, calls, expected) in cases {
            assert_eq!(told(calls), expected, "{name}");
        }
    }

    #[test]
    fn the_backoff_has_an_end() {
        let backoffs = |fault: Fault| {
            let health = Health::new();
            let backoff = |_| {
                let now = health.state().at;
                health.failed(fault, now, now);
                (health.state().at - now) / MILLI
            };
            (0..10).map(backoff).collect::<Vec<u64>>()
        };
        let doubled = [100, 200, 400, 800, 1600, 3200, 6400];
        let all = [&doubled[..], &[10_000; 3]].concat();
        assert_eq!(backoffs(Failed), all);
        assert_eq!(backoffs(retry_after(300)), all);
        assert_eq!(
            backoffs(retry_after(2)),
            [&doubled[..5], &[2000; 5]].concat()
        );
        assert_eq!(backoffs(OVERLOADED), [&doubled[..4], &[1000; 6]].concat());
        assert_eq!(backoffs(Unreachable), [5000; 10]);
    }

    #[test]
    fn of_those_that_are_ejected_the_more_hopeful_rank_first() {
        let failed = |fault: Fault, at: &[u64]| {
            let health = Health::new();
            at.iter()
                .for_each(|at| health.failed(fault, at * MILLI, at * MILLI));
            health
        };
        let in_order = [
            failed(Failed, &[]),
            failed(OVERLOADED, &[0, 100, 300]),
            failed(Failed, &[250]),
            failed(Failed, &[0, 100, 300]),
            failed(Unreachable, &[0]),
        ];
        let ranks = in_order.map(|health| health.rank(310 * MILLI));
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
        assert_eq!(ranks[0], 0);
        // How often it had no room is no matter of how much it has now.
        let [once, often] = [&[310][..], &[0, 100, 300]].map(|at| failed(OVERLOADED, at));
        assert_eq!(once.rank(310 * MILLI), often.rank(310 * MILLI));
    }

    #[test]
    fn one_call_tries_it_before_all_do() {
        let health = Health::new();
        let is_ejected = |millis| health.is_ejected(millis * MILLI);
        let begin = |millis| health.begin(millis * MILLI);
        begin(0);
        health.failed(Failed, 0, 0);
        // For want of another endpoint: no trial.
        begin(50);
        assert!(is_ejected(99) && !is_ejected(100));
        begin(100);
        assert!(is_ejected(101) && is_ejected(1099));
        // Nobody knows what became of that one.
        assert!(!is_ejected(1100));
        begin(1100);
        assert!(is_ejected(1101));
        health.answered(1100 * MILLI, 1200 * MILLI);
        assert!(!is_ejected(1200));
        // The next failure is a first one, whenever the last trial was.
        begin(1200);
        health.failed(Failed, 1200 * MILLI, 1300 * MILLI);
        assert!(is_ejected(1399) && !is_ejected(1400));
    }
}
