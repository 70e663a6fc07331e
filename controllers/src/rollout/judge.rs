//! Rounds of the analysis: what the mesh counted of a revision's calls in an interval, held against what is asked for.
//!
//! Counts are sums that only grow (`weft_apiserver::http::calls`), read every few seconds; a round is what came between two readings that
//! are an interval apart, so that no call is counted in two rounds or in none. A new leader begins a round anew: what was counted before it
//! came says nothing of the time that it knows of.
//!
//! Invariant: a round is judged on calls to the revision alone, as callers saw them: calls that reached nobody are among them.

use std::sync::Arc;

use jiff::Timestamp;

use super::Rollout;
use super::asked::{Analysis, Asked, Step};
use super::status::{Round, Status, Verdict};
use super::traffic::Traffic;
use crate::indexer::Cached;
use crate::usage::Counted;
use crate::{Context, plus_seconds, stamp};

/// Where the present round began.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    uid: Arc<str>,
    revision: String,
    read: Timestamp,
    /// What had been counted then, in the order of the Services.
    counted: Vec<Counted>,
}

/// Whether the revision on its way is judged now: as soon as there can be calls to it.
pub fn is_judged(asked: &Asked, status: &Status) -> bool {
    let tries = asked.preview.is_some() && matches!(asked.steps.first(), Some(Step::Pods));
    let has_calls = status.weight > 0 || status.marked || (tries && status.step > 0);
    asked.analysis.is_some() && status.is_on_its_way() && has_calls
}

/// The round that is over, if one is, and what the next look has to know.
pub fn look(
    row: &Cached<Rollout>,
    traffic: &Traffic<'_>,
    cx: &Context<'_>,
) -> (Option<Round>, Option<crate::Past>) {
    let (asked, status) = (&row.body.asked, &row.body.status);
    let (Some(analysis), Some(revision)) = (&asked.analysis, &status.current_revision) else {
        return (None, Some(crate::Past::Nothing));
    };
    if !is_judged(asked, status) {
        return (None, Some(crate::Past::Nothing));
    }
    let Some((calls, read)) = cx.calls.and_then(|calls| Some((calls, calls.read?))) else {
        return (None, None);
    };
    let counted: Vec<Counted> = traffic
        .counted_of(revision)
        .map(|service| calls.totals.get(&service).cloned().unwrap_or_default())
        .collect();
    let begins = || {
        crate::Past::Rollout(Past {
            uid: Arc::clone(&row.meta.uid),
            revision: revision.clone(),
            read,
            counted: counted.clone(),
        })
    };
    let past = match cx.past {
        crate::Past::Rollout(past) => past,
        crate::Past::Nothing | crate::Past::Autoscaler(_) => return (None, Some(begins())),
    };
    let is_of_this = past.uid == row.meta.uid
        && past.revision == *revision
        && past.counted.len() == counted.len();
    if !is_of_this {
        return (None, Some(begins()));
    }
    if plus_seconds(past.read, analysis.interval_seconds) > read {
        return (None, None);
    }
    let mut new = Counted::default();
    for (later, earlier) in counted.iter().zip(&past.counted) {
        new.add(&later.after(Some(earlier)));
    }
    let (verdict, message) = judge(analysis, &new);
    let round = Round {
        ended: stamp(read),
        verdict,
        requests: new.begun,
        failures: new.failed,
        message,
    };
    (Some(round), Some(begins()))
}

/// What was counted of calls is what is asked for, or is not, or there is too little of it.
fn judge(analysis: &Analysis, counted: &Counted) -> (Verdict, String) {
    let (requests, failed) = (counted.begun.max(counted.failed), counted.failed);
    if requests < analysis.min_requests {
        let least = analysis.min_requests;
        let message = format!("{requests} calls are fewer than the {least} that say anything");
        return (Verdict::Inconclusive, message);
    }
    let mut told = vec![format!("{failed} of {requests} calls failed")];
    if let Some(least) = analysis.success {
        let succeeded = u128::from(requests - failed) * 100_000;
        if succeeded < u128::from(least) * u128::from(requests) {
            let percent = least as f64 / 1000.0;
            let message =
                format!("{failed} of {requests} calls failed, and {percent} % have to succeed");
            return (Verdict::Failed, message);
        }
    }
    for (percentile, most) in &analysis.latency {
        let took = counted.quantile_micros(percentile * 10);
        let shown = format!("{}.{:03} ms", took / 1000, took % 1000);
        if took > most.saturating_mul(1000) {
            let message = format!(
                "{percentile} % of {requests} answers came within {shown}, and have to within {most} ms"
            );
            return (Verdict::Failed, message);
        }
        told.push(format!("{percentile} % of answers came within {shown}"));
    }
    (Verdict::Passed, told.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_round_passes_fails_or_says_nothing() {
        let analysis = |success: Option<u64>, latency: &[(u64, u64)]| Analysis {
            interval_seconds: 30,
            failure_limit: 1,
            min_requests: 10,
            success,
            latency: latency.to_vec(),
        };
        let counted = |begun, failed, slow| Counted {
            begun,
            failed,
            // A millisecond, and more than a tenth of a second.
            answers: BTreeMap::from([(1024, begun - slow), (131_072, slow)]),
            ..Counted::default()
        };
        for (analysis, counted, verdict, message) in [
            (
                analysis(Some(99_000), &[]),
                counted(9, 9, 0),
                Verdict::Inconclusive,
                "9 calls are fewer than the 10 that say anything",
            ),
            (
                analysis(Some(99_000), &[]),
                counted(100, 1, 0),
                Verdict::Passed,
                "1 of 100 calls failed",
            ),
            (
                analysis(Some(99_500), &[]),
                counted(100, 1, 0),
                Verdict::Failed,
                "1 of 100 calls failed, and 99.5 % have to succeed",
            ),
            (
                analysis(Some(100_000), &[]),
                counted(1_000_000, 1, 0),
                Verdict::Failed,
                "1 of 1000000 calls failed, and 100 % have to succeed",
            ),
            (
                analysis(None, &[(50, 5), (99, 50)]),
                counted(100, 100, 2),
                Verdict::Failed,
                "99 % of 100 answers came within 122.880 ms, and have to within 50 ms",
            ),
            (
                analysis(None, &[(95, 5)]),
                counted(100, 0, 2),
                Verdict::Passed,
                "0 of 100 calls failed, 95 % of answers came within 1.020 ms",
            ),
        ] {
            let found = judge(&analysis, &counted);
            assert_eq!(found, (verdict, message.to_owned()));
        }
    }
}
