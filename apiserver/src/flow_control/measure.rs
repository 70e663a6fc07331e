//! What is counted of requests by their schema and level, as Prometheus text under Kubernetes' names.
//!
//! Invariants: counting is an atomic step and no lock; a series is of a schema that is in force. Left to others: the rest of `/metrics` (`http::metrics`).

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::FlowControl;

/// Upper bounds of the classes of a duration in milliseconds, but for the last, which has none; as Kubernetes has them.
const BOUNDS: [u64; 13] = [
    0, 5, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000,
];
/// The same of seats.
const SEATS: [u64; 4] = [1, 2, 4, 10];

/// Why a request was refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rejected {
    QueueFull,
    NoSeat,
    TimedOut,
    /// It was given up while it waited.
    Cancelled,
}

impl Rejected {
    const ALL: [Self; 4] = [
        Self::QueueFull,
        Self::NoSeat,
        Self::TimedOut,
        Self::Cancelled,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::NoSeat => "concurrency-limit",
            Self::TimedOut => "time-out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How many of something were in each class, and their sum.
struct Histogram<const N: usize> {
    classes: [AtomicU64; N],
    beyond: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            classes: std::array::from_fn(|_| AtomicU64::new(0)),
            beyond: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Histogram<N> {
    /// `class` is what `bounds` are of, `exact` what is summed.
    fn add(&self, bounds: &[u64; N], class: u64, exact: u64) {
        let at = bounds.iter().position(|bound| class <= *bound);
        let count = at.and_then(|at| self.classes.get(at));
        count
            .unwrap_or(&self.beyond)
            .fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(exact, Ordering::Relaxed);
    }

    fn write(
        &self,
        out: &mut String,
        name: &str,
        labels: &str,
        bounds: &[u64; N],
        unit: f64,
    ) -> fmt::Result {
        let mut sum = 0;
        for (bound, class) in bounds.iter().zip(&self.classes) {
            sum += class.load(Ordering::Relaxed);
            let bound = number(*bound) / unit;
            writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {sum}")?;
        }
        sum += self.beyond.load(Ordering::Relaxed);
        let total = number(self.sum.load(Ordering::Relaxed));
        let total = match unit > 1.0 {
            true => total / 1e6,
            false => total,
        };
        writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {sum}")?;
        writeln!(out, "{name}_sum{{{labels}}} {total}")?;
        writeln!(out, "{name}_count{{{labels}}} {sum}")
    }

    fn count(&self) -> u64 {
        let classes = self.classes.iter().chain([&self.beyond]);
        classes.map(|class| class.load(Ordering::Relaxed)).sum()
    }
}

#[allow(clippy::cast_precision_loss)] // It is shown.
fn number(number: u64) -> f64 {
    number as f64
}

/// What is counted of the requests of a schema.
#[derive(Default)]
pub(super) struct Counts {
    dispatched: AtomicU64,
    rejected: [AtomicU64; 4],
    at_work: AtomicU64,
    seats: AtomicU64,
    waiting: AtomicU64,
    waiting_seats: AtomicU64,
    estimated: Histogram<4>,
    waited: Histogram<13>,
    waited_in_vain: Histogram<13>,
    took: Histogram<13>,
    watch_took: Histogram<13>,
}

fn more(count: &AtomicU64, by: u64) {
    count.fetch_add(by, Ordering::Relaxed);
}

fn less(count: &AtomicU64, by: u64) {
    count.fetch_sub(by, Ordering::Relaxed);
}

fn add(histogram: &Histogram<13>, time: Duration) {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    histogram.add(&BOUNDS, micros.div_ceil(1000), micros);
}

impl Counts {
    pub(super) fn estimated(&self, seats: u32) {
        self.estimated
            .add(&SEATS, u64::from(seats), u64::from(seats));
    }

    pub(super) fn queued(&self, seats: u32) {
        more(&self.waiting, 1);
        more(&self.waiting_seats, u64::from(seats));
    }

    pub(super) fn unqueued(&self, seats: u32) {
        less(&self.waiting, 1);
        less(&self.waiting_seats, u64::from(seats));
    }

    pub(super) fn waited(&self, time: Duration, served: bool) {
        let histogram = match served {
            true => &self.waited,
            false => &self.waited_in_vain,
        };
        add(histogram, time);
    }

    pub(super) fn began(&self, seats: u32) {
        more(&self.dispatched, 1);
        more(&self.at_work, 1);
        more(&self.seats, u64::from(seats));
    }

    pub(super) fn done(&self, seats: u32, took: Duration, watch: bool) {
        less(&self.at_work, 1);
        less(&self.seats, u64::from(seats));
        let histogram = match watch {
            true => &self.watch_took,
            false => &self.took,
        };
        add(histogram, took);
    }

    pub(super) fn rejected(&self, why: Rejected) {
        if let Some(count) = self.rejected.get(why as usize) {
            more(count, 1);
        }
    }

    pub(super) fn all_dispatched(&self) -> u64 {
        self.dispatched.load(Ordering::Relaxed)
    }

    pub(super) fn all_rejected(&self, why: Rejected) -> u64 {
        let count = self.rejected.get(why as usize);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

type Gauge = fn(&Counts) -> &AtomicU64;
type Times = fn(&Counts) -> &Histogram<13>;
/// A histogram's name and help, and its parts by their labels.
type Timed = (&'static str, &'static str, [(&'static str, Times); 2]);

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

impl FlowControl {
    /// All series, as text.
    pub(crate) fn metrics(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_schemas(&mut out);
        let _ = self.write_levels(&mut out);
        out
    }

    fn write_schemas(&self, out: &mut String) -> fmt::Result {
        let plan = self.0.plan.load();
        let all = || {
            plan.schemas.iter().map(|class| {
                let labels = format!(
                    "flow_schema=\"{}\",priority_level=\"{}\"",
                    class.schema.name, class.level.name
                );
                (labels, &*class.counts)
            })
        };
        let simple: [(&str, &str, &str, Gauge); 5] = [
            (
                "dispatched_requests_total",
                "counter",
                "Requests that got their seats.",
                |counts| &counts.dispatched,
            ),
            (
                "current_executing_requests",
                "gauge",
                "Requests at work; of watches, those that begin.",
                |counts| &counts.at_work,
            ),
            (
                "current_executing_seats",
                "gauge",
                "Their seats.",
                |counts| &counts.seats,
            ),
            (
                "current_inqueue_requests",
                "gauge",
                "Requests that wait for a seat.",
                |counts| &counts.waiting,
            ),
            (
                "current_inqueue_seats",
                "gauge",
                "The seats that they wait for.",
                |counts| &counts.waiting_seats,
            ),
        ];
        for (name, kind, help, of) in simple {
            let name = format!("apiserver_flowcontrol_{name}");
            head(out, &name, kind, help)?;
            for (labels, counts) in all() {
                let count = of(counts).load(Ordering::Relaxed);
                writeln!(out, "{name}{{{labels}}} {count}")?;
            }
        }
        let name = "apiserver_flowcontrol_rejected_requests_total";
        head(out, name, "counter", "Requests that got no seat, and why.")?;
        for (labels, counts) in all() {
            for why in Rejected::ALL {
                let count = counts.all_rejected(why);
                if count > 0 {
                    let why = why.name();
                    writeln!(out, "{name}{{{labels},reason=\"{why}\"}} {count}")?;
                }
            }
        }
        let name = "apiserver_flowcontrol_work_estimated_seats";
        head(
            out,
            name,
            "histogram",
            "Seats that requests were taken to need.",
        )?;
        for (labels, counts) in all().filter(|(_, counts)| counts.estimated.count() > 0) {
            counts.estimated.write(out, name, &labels, &SEATS, 1.0)?;
        }
        let times: [Timed; 2] = [
            (
                "apiserver_flowcontrol_request_wait_duration_seconds",
                "How long requests waited for a seat.",
                [
                    ("execute=\"true\"", |counts| &counts.waited),
                    ("execute=\"false\"", |counts| &counts.waited_in_vain),
                ],
            ),
            (
                "apiserver_flowcontrol_request_execution_seconds",
                "How long requests had their seats.",
                [
                    ("type=\"regular\"", |counts| &counts.took),
                    ("type=\"watch\"", |counts| &counts.watch_took),
                ],
            ),
        ];
        for (name, help, parts) in times {
            head(out, name, "histogram", help)?;
            for (labels, counts) in all() {
                for (label, of) in parts {
                    let histogram = of(counts);
                    if histogram.count() > 0 {
                        let labels = format!("{labels},{label}");
                        histogram.write(out, name, &labels, &BOUNDS, 1e3)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn write_levels(&self, out: &mut String) -> fmt::Result {
        let plan = self.0.plan.load();
        let shown: Vec<(String, [f64; 8])> = plan
            .levels
            .values()
            .map(|level| {
                let state = level.state.lock();
                let limits = state.limits;
                let values = [
                    f64::from(limits.nominal),
                    f64::from(limits.least),
                    f64::from(limits.most),
                    f64::from(state.given),
                    f64::from(state.wants.seen.most),
                    state.wants.seen.average,
                    state.wants.seen.deviation,
                    state.wants.smoothed,
                ];
                (level.name.clone(), values)
            })
            .collect();
        for (place, (name, help)) in [
            ("nominal_limit_seats", "Seats of a level by its share."),
            ("lower_limit_seats", "What of them it does not lend."),
            ("upper_limit_seats", "With all that it may borrow."),
            ("current_limit_seats", "Seats that it has now."),
            (
                "demand_seats_high_watermark",
                "The most that was asked for in the last ten seconds.",
            ),
            ("demand_seats_average", "What was asked for in that time."),
            ("demand_seats_stdev", "How far it was from that."),
            ("demand_seats_smoothed", "What is taken to be wanted."),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("apiserver_flowcontrol_{name}");
            head(out, &name, "gauge", help)?;
            for (level, values) in &shown {
                let value = values.get(place).copied().unwrap_or_default();
                writeln!(out, "{name}{{priority_level=\"{level}\"}} {value}")?;
            }
        }
        Ok(())
    }
}
