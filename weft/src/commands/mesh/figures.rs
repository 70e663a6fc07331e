//! Figures of calls as tables: edge by edge, or summed up by workload. Pure.
//!
//! What a list of edges says of durations cannot be summed exactly, so that a workload's are those of its edges, weighted by their calls; the
//! longest is exact.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weft_call::edges::is_failure;

use super::shown_micros;
use crate::commands::output::{lines, printable};

/// Whose figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Source,
    Destination,
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn number(value: &Value, pointer: &str) -> f64 {
    value
        .pointer(pointer)
        .and_then(Value::as_f64)
        .unwrap_or_default()
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// `workload.namespace`; of nobody, the Service that was called.
fn end(edge: &Value, which: &str) -> String {
    let (namespace, workload) = (
        text(edge, &format!("/{which}/namespace")),
        text(edge, &format!("/{which}/workload")),
    );
    let shown = match (workload, which) {
        ("", "destination") => match (
            text(edge, "/service/name"),
            text(edge, "/service/namespace"),
        ) {
            (name, "") => format!("({name})"),
            (name, namespace) => format!("({name}.{namespace})"),
        },
        (workload, _) => format!("{workload}.{namespace}"),
    };
    printable(&shown)
}

fn share(calls: f64, failures: f64) -> String {
    match calls > 0.0 {
        true => format!("{:.2}%", (calls - failures) / calls * 100.0),
        false => "-".to_owned(),
    }
}

fn rate(rate: f64) -> String {
    match rate {
        rate if rate >= 100.0 => format!("{rate:.0}"),
        rate if rate >= 1.0 => format!("{rate:.1}"),
        rate => format!("{rate:.3}"),
    }
}

fn nothing(list: &Value) -> String {
    format!(
        "no calls in the last {}s\n",
        number(list, "/windowSeconds").round()
    )
}

/// A line an edge.
pub(super) fn edges_text(list: &Value) -> String {
    let mut rows = Vec::new();
    for edge in items(list) {
        let outcomes = edge["outcomes"].as_object();
        let bad = outcomes
            .into_iter()
            .flatten()
            .filter(|(how, _)| is_failure(how));
        let bad: Vec<String> = bad.map(|(how, count)| format!("{how}:{count}")).collect();
        rows.push(vec![
            end(edge, "source"),
            end(edge, "destination"),
            printable(text(edge, "/service/name")),
            text(edge, "/protocol").to_owned(),
            text(edge, "/security").to_owned(),
            rate(number(edge, "/callsPerSecond")),
            share(number(edge, "/calls"), number(edge, "/failures")),
            shown_micros(number(edge, "/latencyMicros/p50")),
            shown_micros(number(edge, "/latencyMicros/p99")),
            printable(&bad.join(",")),
        ]);
    }
    if rows.is_empty() {
        return nothing(list);
    }
    table(
        &[
            "SOURCE",
            "DESTINATION",
            "SERVICE",
            "PROTOCOL",
            "SECURITY",
            "CALLS/S",
            "SUCCESS",
            "P50",
            "P99",
            "FAILURES",
        ],
        rows,
    )
}

fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let head = head.iter().map(|&cell| cell.to_owned()).collect();
    let all: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    lines(&all, &mut Vec::new())
}

/// Sums of one workload.
#[derive(Default)]
struct Sum {
    calls: f64,
    failures: f64,
    calls_per_second: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    peers: usize,
}

fn sums(list: &Value, by: By) -> BTreeMap<String, Sum> {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for edge in items(list) {
        let name = match by {
            By::Source => end(edge, "source"),
            By::Destination => end(edge, "destination"),
        };
        let sum = sums.entry(name).or_default();
        let calls = number(edge, "/calls");
        sum.calls += calls;
        sum.failures += number(edge, "/failures");
        sum.calls_per_second += number(edge, "/callsPerSecond");
        sum.p50 += number(edge, "/latencyMicros/p50") * calls;
        sum.p90 += number(edge, "/latencyMicros/p90") * calls;
        sum.p99 = sum.p99.max(number(edge, "/latencyMicros/p99"));
        sum.peers += 1;
    }
    for sum in sums.values_mut() {
        let calls = sum.calls.max(1.0);
        sum.p50 /= calls;
        sum.p90 /= calls;
    }
    sums
}

/// Sums by workload, as JSON.
pub(super) fn stat(list: &Value, by: By) -> Value {
    let sums = sums(list, by).into_iter();
    let items: Vec<Value> = sums
        .map(|(name, sum)| {
            json!({
                "workload": name,
                "calls": sum.calls,
                "failures": sum.failures,
                "callsPerSecond": sum.calls_per_second,
                "latencyMicros": {"p50": sum.p50, "p90": sum.p90, "p99": sum.p99},
                "edges": sum.peers,
            })
        })
        .collect();
    json!({
        "time": list["time"],
        "windowSeconds": list["windowSeconds"],
        "items": items,
    })
}

/// The same as a table, the busiest first.
pub(super) fn stat_text(list: &Value, by: By) -> String {
    let mut sums: Vec<(String, Sum)> = sums(list, by).into_iter().collect();
    if sums.is_empty() {
        return nothing(list);
    }
    sums.sort_by(|(_, a), (_, b)| b.calls_per_second.total_cmp(&a.calls_per_second));
    let rows = sums.into_iter().map(|(name, sum)| {
        vec![
            name,
            rate(sum.calls_per_second),
            share(sum.calls, sum.failures),
            shown_micros(sum.p50),
            shown_micros(sum.p90),
            shown_micros(sum.p99),
            sum.peers.to_string(),
        ]
    });
    let (head, peers) = match by {
        By::Source => ("FROM", "CALLEES"),
        By::Destination => ("TO", "CALLERS"),
    };
    table(
        &[head, "CALLS/S", "SUCCESS", "P50", "P90", "P99", peers],
        rows.collect(),
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn edge(source: &str, destination: &str, outcomes: &Value) -> Value {
        let counts = outcomes.as_object().expect("outcomes");
        let of = |failed: bool| {
            let counts = counts.iter();
            let counts = counts.filter(|(how, _)| !failed || is_failure(how));
            counts.filter_map(|(_, count)| count.as_u64()).sum::<u64>()
        };
        json!({
            "metadata": {"name": "x", "namespace": "shop"},
            "source": {"namespace": "shop", "workload": source},
            "destination": {"namespace": if destination.is_empty() { "" } else { "bank" }, "workload": destination},
            "service": {"namespace": "bank", "name": "pay"},
            "protocol": "http",
            "security": if destination.is_empty() { "none" } else { "mutual_tls" },
            "calls": of(false),
            "failures": of(true),
            "callsPerSecond": of(false) as f64 / 60.0,
            "latencyMicros": {"mean": 1, "p50": 950, "p90": 1500.5, "p99": 2_345_678},
            "outcomes": outcomes,
        })
    }

    fn list() -> Value {
        json!({
            "kind": "EdgeList", "time": "2026-01-02T03:04:05.000006Z", "windowSeconds": 60.0,
            "items": [
                edge("web", "pay", &json!({"200": 5990, "503/UO": 10})),
                edge("job", "pay", &json!({"200": 6})),
                edge("web", "", &json!({"503/UH": 3})),
            ],
        })
    }

    #[test]
    fn edges_are_a_table() {
        insta::assert_snapshot!(edges_text(&list()), @r"
        SOURCE     DESTINATION   SERVICE   PROTOCOL   SECURITY     CALLS/S   SUCCESS   P50     P99     FAILURES
        web.shop   pay.bank      pay       http       mutual_tls   100       99.83%    950µs   2.35s   503/UO:10
        job.shop   pay.bank      pay       http       mutual_tls   0.100     100.00%   950µs   2.35s
        web.shop   (pay.bank)    pay       http       none         0.050     0.00%     950µs   2.35s   503/UH:3
        ");
        let none = json!({"windowSeconds": 60.0, "items": []});
        assert_eq!(edges_text(&none), "no calls in the last 60s\n");
    }

    #[test]
    fn workloads_are_summed_up_the_busiest_first() {
        insta::assert_snapshot!(stat_text(&list(), By::Destination), @r"
        TO           CALLS/S   SUCCESS   P50     P90      P99     CALLERS
        pay.bank     100       99.83%    950µs   1.50ms   2.35s   2
        (pay.bank)   0.050     0.00%     950µs   1.50ms   2.35s   1
        ");
        insta::assert_snapshot!(stat_text(&list(), By::Source), @r"
        FROM       CALLS/S   SUCCESS   P50     P90      P99     CALLEES
        web.shop   100       99.78%    950µs   1.50ms   2.35s   2
        job.shop   0.100     100.00%   950µs   1.50ms   2.35s   1
        ");
        assert_eq!(
            stat(&list(), By::Source)["items"][0]["workload"],
            "job.shop"
        );
    }
}
