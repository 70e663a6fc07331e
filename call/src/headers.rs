//! The header codec: a call's context on a request, and a failure on a response, as nodes tell each other.
//!
//! ```text
//! request    x-weft-timeout-ms, x-weft-depth, x-weft-attempt, x-weft-repeated, x-weft-priority, traceparent, tracestate, baggage
//! response   x-weft-error: a kind, x-weft-blame, x-weft-processed, x-weft-retry-after-ms; the body is the message
//! ```
//! Who calls is not among them: that is what the connection proved. Nor is a failure's detail.
//!
//! What is written here is read here. What a peer leaves out means what its absence always meant (no deadline, the first try, what
//! the kind says), and a kind that is not known is [`FailureKind::Failed`], of which a guest has seen the request.

use std::{
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    Blame, CallContext, Failure, FailureKind, Peer, Priority, Processed, TraceContext,
    trace::baggage,
};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// What applications say of a call to all that come of it.
pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Milliseconds that remain until the deadline.
const TIMEOUT: HeaderName = HeaderName::from_static("x-weft-timeout-ms");
const DEPTH: HeaderName = HeaderName::from_static("x-weft-depth");
const ATTEMPT: HeaderName = HeaderName::from_static("x-weft-attempt");
/// It is part of a further try.
const REPEATED: HeaderName = HeaderName::from_static("x-weft-repeated");
/// How much it matters, where that is not as usual.
const PRIORITY: HeaderName = HeaderName::from_static("x-weft-priority");
/// There is no response of a workload, and this is why.
const ERROR: HeaderName = HeaderName::from_static("x-weft-error");
const BLAME: HeaderName = HeaderName::from_static("x-weft-blame");
const PROCESSED: HeaderName = HeaderName::from_static("x-weft-processed");
const RETRY_AFTER: HeaderName = HeaderName::from_static("x-weft-retry-after-ms");

impl CallContext {
    /// Writes what a request says of the call at `now`; all but the peer.
    pub fn encode(&self, now: Instant, lines: &mut HeaderMap) {
        lines.insert(DEPTH, HeaderValue::from(self.depth));
        match self.attempt {
            0 => lines.remove(ATTEMPT),
            attempt => lines.insert(ATTEMPT, HeaderValue::from(attempt)),
        };
        match self.repeated {
            false => lines.remove(REPEATED),
            true => lines.insert(REPEATED, HeaderValue::from_static("1")),
        };
        match self.priority {
            Priority::Usual => lines.remove(PRIORITY),
            other => lines.insert(PRIORITY, HeaderValue::from_static(other.as_str())),
        };
        match self.deadline {
            Some(deadline) => {
                let left = deadline.saturating_duration_since(now);
                lines.insert(TIMEOUT, HeaderValue::from(millis(left)))
            }
            None => lines.remove(TIMEOUT),
        };
        self.carry(lines);
    }

    /// Writes what whoever serves the call may read and pass on, in the words of the W3C: its trace and its baggage, in place of what
    /// the request says of them.
    pub fn carry(&self, lines: &mut HeaderMap) {
        match &self.trace {
            Some(trace) => trace.write(lines),
            None => {
                lines.remove(TRACEPARENT);
                lines.remove(TRACESTATE);
            }
        }
        match &self.baggage {
            Some(list) => lines.insert(BAGGAGE, list.clone()),
            None => lines.remove(BAGGAGE),
        };
    }

    /// Reads what a request that came at `now` says of its call. Of what is no number, nothing is taken.
    #[must_use]
    pub fn decode(lines: &HeaderMap, peer: Option<Arc<Peer>>, now: Instant) -> Self {
        let small = |name| {
            let number: Option<u64> = read(lines, name);
            number.map_or(0, |number| u32::try_from(number).unwrap_or(u32::MAX))
        };
        Self {
            peer,
            // Who receives it knows whose identity a gateway's is.
            outside: false,
            deadline: read(lines, TIMEOUT)
                .and_then(|millis| now.checked_add(Duration::from_millis(millis))),
            trace: TraceContext::from_headers(lines),
            depth: small(DEPTH),
            attempt: small(ATTEMPT),
            // Who receives it knows where.
            port: None,
            priority: priority(lines),
            repeated: lines.contains_key(REPEATED),
            spent: None,
            baggage: baggage(lines),
        }
    }
}

impl Failure {
    /// Writes what a response says of the failure; all but message and detail.
    pub fn encode(&self, lines: &mut HeaderMap) {
        let word = HeaderValue::from_static;
        lines.insert(ERROR, word(self.kind.as_str()));
        lines.insert(BLAME, word(self.blame.as_str()));
        lines.insert(PROCESSED, word(self.processed.as_str()));
        match self.retry_after {
            Some(after) => lines.insert(RETRY_AFTER, HeaderValue::from(millis(after))),
            None => lines.remove(RETRY_AFTER),
        };
    }

    /// The failure that a response tells of, without its message; none on a response of a workload.
    #[must_use]
    pub fn decode(lines: &HeaderMap) -> Option<Self> {
        let kind = lines.get(ERROR)?;
        let kind = kind.to_str().ok().and_then(|kind| kind.parse().ok());
        let mut failure = Self::from(kind.unwrap_or(FailureKind::Failed));
        let said = |name| lines.get(name).and_then(|value| value.to_str().ok());
        if let Some(blame) = said(BLAME) {
            let mut all = Blame::ALL.into_iter();
            let blame = all.find(|known| known.as_str() == blame);
            failure.blame = blame.unwrap_or(failure.blame);
        }
        if let Some(processed) = said(PROCESSED) {
            let mut all = Processed::ALL.into_iter();
            let processed = all.find(|known| known.as_str() == processed);
            // What is not understood promises nothing.
            failure.processed = processed.unwrap_or(Processed::Yes);
        }
        failure.retry_after = read(lines, RETRY_AFTER).map(Duration::from_millis);
        Some(failure)
    }
}

/// What is not understood is as usual.
fn priority(lines: &HeaderMap) -> Priority {
    let said = lines.get(PRIORITY).map(HeaderValue::as_bytes);
    let mut all = Priority::ALL.into_iter();
    let known = all.find(|known| said == Some(known.as_str().as_bytes()));
    known.unwrap_or_default()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn read<T: FromStr>(lines: &HeaderMap, name: HeaderName) -> Option<T> {
    lines.get(name)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "there is no other way to an Instant"
)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn config() -> ProptestConfig {
        ProptestConfig {
            cases: 1000,
            failure_persistence: None,
            rng_seed: proptest::test_runner::RngSeed::Fixed(1),
            ..ProptestConfig::default()
        }
    }

    fn trace() -> impl Strategy<Value = TraceContext> {
        let state = proptest::option::of("[a-z]{1,8}=[a-z0-9]{1,8}");
        (1..=u128::MAX, 1..=u64::MAX, 0..=3_u8, state).prop_map(
            |(trace_id, span_id, flags, state)| {
                let state = state.map(|state| HeaderValue::from_str(&state).expect("ASCII"));
                TraceContext {
                    trace_id,
                    span_id,
                    flags,
                    state,
                }
            },
        )
    }

    fn failure() -> impl Strategy<Value = Failure> {
        let parts = (
            select(&FailureKind::ALL[..]),
            select(&Blame::ALL[..]),
            select(&Processed::ALL[..]),
            proptest::option::of(any::<u32>()),
            any::<String>(),
            proptest::option::of(any::<String>()),
        );
        parts.prop_map(|(kind, blame, processed, after, message, detail)| Failure {
            kind,
            blame,
            processed,
            retry_after: after.map(|millis| Duration::from_millis(millis.into())),
            message: message.into(),
            detail: detail.map(Into::into),
        })
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn a_context_arrives_as_it_was_sent(
            millis in proptest::option::of(0..100_000_000_u64),
            trace in proptest::option::of(trace()),
            depth: u32,
            attempt: u32,
            priority in select(&Priority::ALL[..]),
            repeated: bool,
        ) {
            let (sent, came) = (Instant::now(), Instant::now() + Duration::from_secs(3));
            let after = |start: Instant| millis.map(|millis| start + Duration::from_millis(millis));
            let context = CallContext {
                deadline: after(sent), trace, depth, attempt, priority, repeated, ..CallContext::default()
            };
            let mut lines = HeaderMap::new();
            // Nothing is left of what was there before.
            CallContext {
                deadline: Some(sent), attempt: 7, depth: 7, priority: Priority::Low, repeated: true, ..CallContext::default()
            }.encode(sent, &mut lines);
            context.encode(sent, &mut lines);
            let expected = CallContext { deadline: after(came), ..context.clone() };
            prop_assert_eq!(CallContext::decode(&lines, None, came), expected.clone());

            let frozen = serde_json::to_string(&context.freeze(sent)).unwrap();
            let thawed = serde_json::from_str::<crate::FrozenContext>(&frozen).unwrap().thaw(came);
            prop_assert_eq!(thawed, expected);
        }

        #[test]
        fn a_failure_arrives_as_it_was_made(failure in failure()) {
            let mut lines = HeaderMap::new();
            Failure::from(FailureKind::Overloaded).encode(&mut lines);
            failure.encode(&mut lines);
            let arrived = Failure::decode(&lines).map(|arrived| arrived.with_message(failure.message.clone()));
            prop_assert_eq!(arrived, Some(Failure { detail: None, ..failure.clone() }));

            let text = serde_json::to_string(&failure).unwrap();
            prop_assert_eq!(serde_json::from_str::<Failure>(&text).unwrap(), failure);
        }

        #[test]
        fn what_a_peer_says_of_a_failure_is_one_of_ours(
            kind in "[a-z-]{0,14}", blame in "[a-z]{0,8}", processed in "[a-z]{0,5}", after in "[0-9-]{0,25}",
        ) {
            let mut lines = HeaderMap::new();
            prop_assert_eq!(Failure::decode(&lines), None);
            for (name, value) in [(ERROR, &kind), (BLAME, &blame), (PROCESSED, &processed), (RETRY_AFTER, &after)] {
                lines.insert(name, HeaderValue::from_str(value).unwrap());
            }
            let failure = Failure::decode(&lines).unwrap();
            prop_assert!(!failure.status().is_success());
            prop_assert!(processed == "no" || !failure.never_processed());
        }
    }

    #[test]
    fn of_an_older_node_what_it_says_is_understood() {
        for (kind, expected, processed) in [
            ("not-here", FailureKind::NotHere, Processed::No),
            ("overloaded", FailureKind::Overloaded, Processed::No),
            ("deadline", FailureKind::Deadline, Processed::Maybe),
            ("out-of-memory", FailureKind::OutOfMemory, Processed::Yes),
            ("something-new", FailureKind::Failed, Processed::Yes),
            ("\u{e9}", FailureKind::Failed, Processed::Yes),
        ] {
            let line = HeaderValue::from_bytes(kind.as_bytes()).expect("a line");
            let lines = HeaderMap::from_iter([(ERROR, line)]);
            let failure = Failure::decode(&lines).expect("a failure");
            assert_eq!(
                (failure.kind, failure.processed),
                (expected, processed),
                "{kind}"
            );
        }
    }

    #[test]
    fn of_what_is_no_number_nothing_is_taken() {
        let now = Instant::now();
        for (line, expected) in [
            ("0", Some(now)),
            ("1500", Some(now + Duration::from_millis(1500))),
            ("18446744073709551616", None),
            ("-1", None),
            ("1.5", None),
        ] {
            let line = HeaderValue::from_static(line);
            let lines = HeaderMap::from_iter([(TIMEOUT, line.clone())]);
            let found = CallContext::decode(&lines, None, now).deadline;
            assert_eq!(found, expected, "{line:?}");
        }
        let lines = HeaderMap::from_iter([(DEPTH, HeaderValue::from(u64::MAX))]);
        assert_eq!(CallContext::decode(&lines, None, now).depth, u32::MAX);
    }
}
