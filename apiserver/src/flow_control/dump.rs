//! What levels and queues are at, as tables for whoever looks into a server: Kubernetes' `/debug/api_priority_and_fairness/…`.
//!
//! Invariant: a table is of one moment for each level. Left to others: who may see it (`crate::authz`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::FlowControl;
use super::measure::Rejected;

/// Where the tables are.
pub(crate) const LEVELS_PATH: &str = "/debug/api_priority_and_fairness/dump_priority_levels";
pub(crate) const QUEUES_PATH: &str = "/debug/api_priority_and_fairness/dump_queues";

impl FlowControl {
    /// A row a level.
    pub(crate) fn dump_levels(&self) -> String {
        let plan = self.0.plan.load();
        let mut rows = vec![
            [
                "PriorityLevelName",
                "ActiveQueues",
                "IsIdle",
                "IsQuiescing",
                "WaitingRequests",
                "ExecutingRequests",
                "DispatchedRequests",
                "RejectedRequests",
                "TimedoutRequests",
                "CancelledRequests",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        let mut counts: BTreeMap<&str, [u64; 4]> = BTreeMap::new();
        for class in &plan.schemas {
            let of = |why| class.counts.all_rejected(why);
            let found = [
                class.counts.all_dispatched(),
                of(Rejected::QueueFull) + of(Rejected::NoSeat),
                of(Rejected::TimedOut),
                of(Rejected::Cancelled),
            ];
            let sum = counts.entry(&class.level.name).or_default();
            for (sum, found) in sum.iter_mut().zip(found) {
                *sum += found;
            }
        }
        for (name, level) in &plan.levels {
            let state = level.state.lock();
            let queues = state.queues.shown(self.now());
            let active = queues.iter().filter(|queue| queue.waiting > 0).count();
            let (waiting, at_work) = (state.queues.waiting(), state.queues.at_work());
            let mut row = vec![
                name.clone(),
                active.to_string(),
                (waiting + at_work == 0).to_string(),
                "false".to_owned(),
                waiting.to_string(),
                at_work.to_string(),
            ];
            let counts = counts.get(name.as_str()).copied().unwrap_or_default();
            row.extend(counts.map(|count| count.to_string()));
            rows.push(row);
        }
        table(&rows)
    }

    /// A row a queue that has requests.
    pub(crate) fn dump_queues(&self) -> String {
        let plan = self.0.plan.load();
        let mut rows = vec![
            [
                "PriorityLevelName",
                "Index",
                "PendingRequests",
                "ExecutingRequests",
                "SeatsInUse",
                "NextDispatchR",
                "InitialSeatsSum",
                "MaxSeatsSum",
                "TotalWorkSum",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        for (name, level) in &plan.levels {
            let queues = level.state.lock().queues.shown(self.now());
            for queue in queues {
                let seats = queue.waiting_seats.to_string();
                // In seats times seconds.
                let micros = queue.used.max(0);
                let used = format!("{}.{:06}ss", micros / 1_000_000, micros % 1_000_000);
                rows.push(vec![
                    name.clone(),
                    queue.index.to_string(),
                    queue.waiting.to_string(),
                    queue.at_work.to_string(),
                    queue.seats.to_string(),
                    used.clone(),
                    seats.clone(),
                    seats,
                    used,
                ]);
            }
        }
        table(&rows)
    }
}

/// Columns below each other.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.len() + 2).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let last = row.len().saturating_sub(1);
        for (at, (cell, width)) in row.iter().zip(widths.iter().copied()).enumerate() {
            // Writing to a String cannot fail.
            let _ = match at == last {
                true => write!(out, "{cell}"),
                false => write!(out, "{:width$}", format!("{cell},")),
            };
        }
        out.push('\n');
    }
    out
}
