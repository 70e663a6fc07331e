//! How many requests of a level are at work at a time: its share of the server, and what levels lend each other.
//!
//! Each level has seats by its share of all. Some of them it lends to others, and it borrows from others up to a limit; every ten seconds the
//! seats are dealt anew by what was asked for of each ([`adjusted`]): nobody has fewer than he keeps or more than he may borrow, and between that,
//! all have the same part of what they want.
//!
//! Pure. Invariants: a level that lends nothing always has its own seats; the sum over levels stays what it was but for rounding. After Kubernetes' KEP 1040.

/// How fast what was wanted is forgotten: half of it in five minutes, by a step of ten seconds.
const SMOOTHING: f64 = 0.977;
/// Nothing is divided by less.
const TARGET_MIN: f64 = 0.001;
/// Halvings of the interval that the fair part is looked for in: beyond the digits of a float.
const HALVINGS: usize = 100;

/// What a level's configuration says of its seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub exempt: bool,
    pub shares: u32,
    pub lendable_percent: u32,
    /// Without one, as much as the server has.
    pub borrowing_limit_percent: Option<u32>,
}

/// What follows from that on this server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub nominal: u32,
    /// What is never lent.
    pub least: u32,
    /// With all that is borrowed.
    pub most: u32,
}

impl Limits {
    /// What a level begins with: half of what it lends is lent.
    pub(super) fn initial(&self) -> u32 {
        self.nominal - (self.nominal - self.least) / 2
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // It is cut to what the type holds.
fn whole(number: f64) -> u32 {
    number.round() as u32
}

/// The limits of levels that share so many seats.
pub(super) fn limits(all: u32, levels: &[Terms]) -> Vec<Limits> {
    let sum: f64 = levels.iter().map(|level| f64::from(level.shares)).sum();
    levels
        .iter()
        .map(|level| {
            let part = f64::from(all) * f64::from(level.shares);
            let nominal = match sum > 0.0 {
                true => whole((part / sum).ceil()),
                false => 0,
            };
            let percent = |percent: u32| whole(f64::from(nominal) * f64::from(percent) / 100.0);
            let lent = percent(level.lendable_percent).min(nominal);
            let borrowed = level.borrowing_limit_percent.map_or(all, percent);
            Limits {
                nominal,
                least: nominal - lent,
                most: nominal.saturating_add(borrowed),
            }
        })
        .collect()
}

/// The seats that were taken or waited for over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub average: f64,
    pub deviation: f64,
    pub most: u32,
}

/// Adds up what is asked for, as it changes.
pub(super) struct Demand {
    since: u64,
    last: u64,
    now: u32,
    most: u32,
    sum: f64,
    squares: f64,
}

#[allow(clippy::cast_precision_loss)] // Microseconds of a period are far from 53 bits.
fn float(micros: u64) -> f64 {
    micros as f64
}

impl Demand {
    pub(super) fn new(now: u64) -> Self {
        Self {
            since: now,
            last: now,
            now: 0,
            most: 0,
            sum: 0.0,
            squares: 0.0,
        }
    }

    fn pass(&mut self, now: u64) {
        let passed = float(now.saturating_sub(self.last));
        let demand = f64::from(self.now);
        self.sum += passed * demand;
        self.squares += passed * demand * demand;
        self.last = self.last.max(now);
    }

    pub(super) fn set(&mut self, demand: u32, now: u64) {
        self.pass(now);
        self.now = demand;
        self.most = self.most.max(demand);
    }

    /// What was asked for since the last time, and begins anew.
    pub(super) fn take(&mut self, now: u64) -> Seen {
        self.pass(now);
        let passed = float(self.last - self.since);
        let seen = if passed > 0.0 {
            let average = self.sum / passed;
            let variance = (self.squares / passed - average * average).max(0.0);
            Seen {
                average,
                deviation: variance.sqrt(),
                most: self.most,
            }
        } else {
            Seen {
                average: f64::from(self.now),
                deviation: 0.0,
                most: self.most,
            }
        };
        let demand = self.now;
        *self = Self::new(self.last);
        (self.now, self.most) = (demand, demand);
        seen
    }
}

/// What a level wants, as its past tells.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wants {
    pub seen: Seen,
    /// Rises at once, and falls slowly.
    pub smoothed: f64,
}

impl Wants {
    pub(super) fn saw(&mut self, seen: Seen) {
        let wanted = seen.average + seen.deviation;
        let faded = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * wanted;
        self.smoothed = wanted.max(faded);
        self.seen = seen;
    }
}

/// One level, for [`adjusted`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub exempt: bool,
    pub limits: Limits,
    pub wants: Wants,
}

impl Level {
    /// What it keeps in any case while there is enough: what it had at work, of what is its own.
    fn kept(&self) -> u32 {
        let own = self.limits.nominal.min(self.wants.seen.most);
        self.limits.least.max(own)
    }

    fn target(&self) -> f64 {
        f64::from(self.kept())
            .max(self.wants.smoothed)
            .max(TARGET_MIN)
    }

    fn clamped(&self, part: f64) -> f64 {
        let most = f64::from(self.limits.most.max(self.kept()));
        (part * self.target()).clamp(f64::from(self.kept()), most)
    }
}

/// The seats of each level from now on, and which part of what they want those have whom no limit holds; 0 where there is not even enough for
/// what each keeps.
pub(super) fn adjusted(levels: &[Level]) -> (Vec<u32>, f64) {
    let sum = |of: &dyn Fn(&Level) -> u32, exempt: bool| -> i64 {
        let some = levels.iter().filter(|level| level.exempt == exempt);
        some.map(|level| i64::from(of(level))).sum()
    };
    let all = sum(&|level| level.limits.nominal, false) + sum(&|level| level.limits.nominal, true);
    // Nobody keeps those without a limit from what they had.
    let exempt = |level: &Level| level.limits.least.max(level.wants.seen.most);
    let left = all - sum(&exempt, true);
    let least = sum(&|level| level.limits.least, false);
    let kept = sum(&Level::kept, false);
    let mut fair = 0.0;
    let seats: Vec<u32> = if left <= least {
        levels.iter().map(|level| level.limits.least).collect()
    } else if left <= kept {
        #[allow(clippy::cast_precision_loss)] // Numbers of seats.
        let part = (left - least) as f64 / (kept - least) as f64;
        let some = levels.iter().map(|level| {
            let more = f64::from(level.kept() - level.limits.least);
            level.limits.least + whole(more * part)
        });
        some.collect()
    } else {
        fair = fair_part(levels, left);
        levels
            .iter()
            .map(|level| whole(level.clamped(fair)))
            .collect()
    };
    let seats = levels
        .iter()
        .zip(seats)
        .map(|(level, seats)| match level.exempt {
            true => exempt(level),
            false => seats,
        });
    (seats.collect(), fair)
}

/// The part of what each wants by which all of them take so many seats together.
fn fair_part(levels: &[Level], left: i64) -> f64 {
    let limited = || levels.iter().filter(|level| !level.exempt);
    let taken = |part: f64| -> f64 { limited().map(|level| level.clamped(part)).sum() };
    #[allow(clippy::cast_precision_loss)] // Numbers of seats.
    let left = left as f64;
    // Beyond this part everybody is at his limit.
    let highest = limited().map(|level| f64::from(level.limits.most) / level.target());
    let (mut low, mut high) = (0.0, highest.fold(0.0, f64::max));
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if taken(middle) <= left {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(shares: u32, lendable_percent: u32) -> Terms {
        Terms {
            exempt: false,
            shares,
            lendable_percent,
            borrowing_limit_percent: None,
        }
    }

    #[test]
    fn shares_are_seats() {
        // The levels that every cluster of Kubernetes has, on a server with 600 seats.
        let levels = [
            (30, 33, 74, 50),
            (40, 25, 98, 73),
            (10, 0, 25, 25),
            (40, 50, 98, 49),
            (100, 90, 245, 24),
            (20, 50, 49, 24),
            (5, 0, 13, 13),
        ];
        let given: Vec<Terms> = levels.iter().map(|one| terms(one.0, one.1)).collect();
        let found = limits(600, &given);
        for ((shares, _, nominal, least), found) in levels.iter().zip(&found) {
            assert_eq!((found.nominal, found.least), (*nominal, *least), "{shares}");
            assert_eq!(found.most, nominal + 600);
        }
        let borrows = Terms {
            borrowing_limit_percent: Some(50),
            ..terms(1, 150)
        };
        let one = limits(10, &[borrows]);
        assert_eq!((one[0].nominal, one[0].least, one[0].most), (10, 0, 15));
        assert_eq!(one[0].initial(), 5);
        assert_eq!(limits(10, &[terms(0, 0)])[0].nominal, 0);
        assert!(limits(10, &[]).is_empty());
    }

    #[test]
    fn demand_is_weighed_by_its_time() {
        let mut demand = Demand::new(100);
        demand.set(4, 100);
        demand.set(8, 300);
        demand.set(0, 400);
        let seen = demand.take(500);
        assert!((seen.average - 4.0).abs() < 1e-9, "{seen:?}");
        assert_eq!(seen.most, 8);
        assert!((seen.deviation - 8.0_f64.sqrt()).abs() < 1e-9, "{seen:?}");
        // A clock that went back a little does no harm.
        demand.set(2, 450);
        let seen = demand.take(500);
        assert_eq!((seen.most, seen.deviation), (2, 0.0));
        let mut wants = Wants::default();
        wants.saw(Seen {
            average: 10.0,
            deviation: 2.0,
            most: 20,
        });
        assert!((wants.smoothed - 12.0).abs() < 1e-9);
        wants.saw(Seen::default());
        assert!((wants.smoothed - 12.0 * 0.977).abs() < 1e-9);
    }

    fn level(limits: Limits, most: u32, smoothed: f64) -> Level {
        Level {
            exempt: false,
            limits,
            wants: Wants {
                seen: Seen {
                    most,
                    ..Seen::default()
                },
                smoothed,
            },
        }
    }

    #[test]
    fn who_wants_less_lends_to_who_wants_more() {
        let limits = |nominal, least, most| Limits {
            nominal,
            least,
            most,
        };
        // One is idle, one wants more than all.
        let (seats, _) = adjusted(&[
            level(limits(50, 25, 150), 0, 0.0),
            level(limits(50, 25, 150), 300, 300.0),
        ]);
        assert_eq!(seats, [25, 75]);
        // Who lends nothing keeps everything.
        let (seats, _) = adjusted(&[
            level(limits(50, 50, 150), 0, 0.0),
            level(limits(50, 25, 150), 300, 300.0),
        ]);
        assert_eq!(seats, [50, 50]);
        // Who may not borrow does not.
        let (seats, _) = adjusted(&[
            level(limits(50, 25, 150), 0, 0.0),
            level(limits(50, 25, 60), 300, 300.0),
        ]);
        assert_eq!(seats[1], 60);
        // Both want all: each has its own.
        let (seats, fair) = adjusted(&[
            level(limits(50, 10, 150), 200, 200.0),
            level(limits(50, 10, 150), 200, 200.0),
        ]);
        assert_eq!(seats, [50, 50]);
        assert!(fair.abs() < 1e-9, "there is just what each keeps");
        // What is left over is dealt by what each wants.
        let (seats, fair) = adjusted(&[
            level(limits(60, 0, 150), 10, 10.0),
            level(limits(40, 0, 150), 30, 30.0),
        ]);
        assert_eq!(seats, [25, 75]);
        assert!((fair - 2.5).abs() < 1e-6);
        // Those without a limit come first, and take from what others keep, but for what those never lend.
        let exempt = |most| Level {
            exempt: true,
            ..level(limits(0, 0, 600), most, 0.0)
        };
        let (seats, _) = adjusted(&[exempt(60), level(limits(100, 50, 700), 100, 100.0)]);
        assert_eq!(seats, [60, 50]);
        let (seats, _) = adjusted(&[exempt(20), level(limits(100, 50, 700), 100, 100.0)]);
        assert_eq!(seats, [20, 80]);
        assert!(adjusted(&[]).0.is_empty());
    }
}
