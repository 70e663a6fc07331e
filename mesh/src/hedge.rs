//! A second try beside the first, of a call that is not answered in time, where its caller, or a policy of its route or of its Service,
//! asks for that.
//!
//! It goes to another endpoint, if one is well, and is paid for as any further try. Invariants: what may be done only once is never made
//! twice; of two tries one is let go of before the call ends; a call that is part of a further try is not hedged.
//! Source: Dean and Barroso, "The Tail at Scale", CACM 2013.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use weft_call::Failure;

use crate::{
    attempt::{Answered, Attempt},
    call::{Call, Head},
    replay,
    table::{Endpoint, Table},
};

/// What came of a try that may have become two.
pub(crate) struct Hedged {
    pub(crate) outcome: Result<Answered, Failure>,
    /// The outcome is that of the second try.
    pub(crate) is_seconds: bool,
    /// Where that went; none where there was no second one.
    pub(crate) second: Option<Arc<Endpoint>>,
}

impl Hedged {
    fn alone(outcome: Result<Answered, Failure>) -> Self {
        Self {
            outcome,
            is_seconds: false,
            second: None,
        }
    }
}

/// Whether the other try is not waited for.
fn is_good(outcome: &Result<Answered, Failure>) -> bool {
    let answered = outcome.as_ref();
    answered.is_ok_and(|answered| !answered.response.status().is_server_error())
}

impl Call {
    /// After how long without an answer a call is made a second time: only one that may be, that has no body to send, and that does not
    /// have to go to a certain endpoint.
    pub(crate) fn hedges_after(&self, attempt: u32, has_choice: bool) -> Option<Duration> {
        let after = self.options.hedge_after.or(self.hedge_after)?;
        let is_bound = self.stays.is_some() || self.options.key.is_some();
        let is_free = !is_bound && self.client.is_none() && has_choice;
        let is_simple = matches!(self.body, replay::Source::Empty);
        let may = attempt == 0 && is_free && is_simple && self.asked().may_repeat(&self.method);
        (may && !self.context.repeated).then_some(after)
    }

    /// A first try, and a second one elsewhere if that is not answered in time. The first good answer counts, and whoever is slower is let
    /// go of.
    pub(crate) async fn hedged(
        &self,
        after: Duration,
        first: Attempt<'_>,
        head: &Head,
        table: &Table,
    ) -> Hedged {
        let (at, labels) = (first.endpoint.address, first.labels);
        let mut own = Head::new(head.again());
        let mut first = std::pin::pin!(self.attempt(first, &mut own));
        tokio::select! {
            biased;
            outcome = &mut first => return Hedged::alone(outcome),
            () = tokio::time::sleep(after) => {}
        }
        let now = self.inner.nanos(Instant::now());
        let port = self.port(table).filter(|port| port.has_well(&[at], now));
        let second = port.and_then(|port| port.pick(&[at], now, &mut rand::rng()));
        let Some(second) = second.cloned().filter(|_| self.may_retry()) else {
            return Hedged::alone(first.await);
        };
        self.acted("hedged");
        let attempt = Attempt {
            endpoint: &second,
            labels,
            number: 1,
            has_choice: true,
        };
        let mut its = Head::new(head.again());
        let mut other = std::pin::pin!(self.attempt(attempt, &mut its));
        let (is_seconds, outcome) = tokio::select! {
            biased;
            outcome = &mut first => (false, outcome),
            outcome = &mut other => (true, outcome),
        };
        let (is_seconds, outcome) = if is_good(&outcome) {
            (is_seconds, outcome)
        } else {
            let late = match is_seconds {
                true => first.await,
                false => other.await,
            };
            match is_good(&late) {
                true => (!is_seconds, late),
                false => (is_seconds, outcome),
            }
        };
        Hedged {
            outcome,
            is_seconds,
            second: Some(second.clone()),
        }
    }
}
