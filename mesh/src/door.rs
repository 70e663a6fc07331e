//! What a policy asks of the calls that come to an endpoint of this node, by whatever way: how many each caller may make (`limit.rs`), and
//! how many there may be at once (`turnstile.rs`).
//!
//! There is one for each endpoint here of a Service with such a policy; of several Services that have the endpoint, the first by namespace
//! and name that has one. Limits are counted for all endpoints of the Service on this node, or over all nodes
//! where the policy says so (`share.rs`); room for each by itself.
//!
//! Invariant: what is counted stays as long as the policy says the same, through any number of tables.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use weft_call::{Blame, CallContext, Failure, FailureKind, Priority};
use weft_gateway::Resilience;

use crate::{
    admission::Asking,
    failure,
    limit::Limits,
    table::ServiceLabels,
    turnstile::{Permit, Turnstile},
};

/// What a Service's policy asks on this node, and what is counted of it.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) asked: Arc<Resilience>,
    pub(crate) limits: Limits,
}

impl Guard {
    /// None where nothing is asked.
    pub(crate) fn of(asked: &Arc<Resilience>) -> Option<Arc<Self>> {
        asked.guards().then(|| {
            Arc::new(Self {
                limits: Limits::new(asked.rate_limits.clone()),
                asked: Arc::clone(asked),
            })
        })
    }

    /// Whether `asked` is the same as far as this is concerned.
    pub(crate) fn holds_for(&self, asked: &Resilience) -> bool {
        self.asked.rate_limits == asked.rate_limits && self.asked.concurrency == asked.concurrency
    }
}

/// See the module's promise.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) labels: Arc<ServiceLabels>,
    pub(crate) guard: Arc<Guard>,
    turnstile: Option<Arc<Turnstile>>,
}

impl Door {
    pub(crate) fn new(labels: &Arc<ServiceLabels>, guard: &Arc<Guard>) -> Arc<Self> {
        let concurrency = guard.asked.concurrency.as_ref();
        Arc::new(Self {
            labels: Arc::clone(labels),
            guard: Arc::clone(guard),
            turnstile: concurrency.map(Turnstile::new),
        })
    }

    /// Whether the caller has had its share.
    pub(crate) fn judge(&self, asking: &Asking<'_>, started: Instant) -> Result<(), Failure> {
        let now = asking.now.saturating_duration_since(started).as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let taken = self.guard.limits.take(asking.context.peer.as_deref(), now);
        taken.map_err(|after| rate_limited(&self.labels.display, after))
    }

    /// Waits until there is room for the call, for a while. None: nobody asks for that.
    pub(crate) async fn enter(&self, context: &CallContext) -> Result<Option<Permit>, Failure> {
        let Some(turnstile) = &self.turnstile else {
            return Ok(None);
        };
        let entered = turnstile.enter(self.priority(context)).await;
        let entered = entered.map_err(|_| failure::shed(&self.labels.display))?;
        Ok(Some(entered))
    }

    fn priority(&self, context: &CallContext) -> Priority {
        let critical = self.guard.asked.concurrency.iter();
        let mut critical = critical.flat_map(|concurrency| &concurrency.critical);
        let is_critical = context.peer.as_deref().is_some_and(|peer| {
            critical.any(|account| {
                *account.namespace == *peer.namespace && *account.name == *peer.service_account
            })
        });
        match is_critical {
            true => Priority::Critical,
            false => context.priority,
        }
    }

    /// How many calls there may be at once, and how many there are.
    pub(crate) fn room(&self) -> Option<(u32, u32)> {
        Some(self.turnstile.as_ref()?.limit_and_inside())
    }
}

/// The caller has had its share. That is nobody's fault, and no other endpoint's business.
fn rate_limited(service: &str, after: Duration) -> Failure {
    Failure::new(
        FailureKind::LimitReached,
        format!(
            "a MeshPolicy limits the calls of this caller to {service}, and it has had its share"
        ),
    )
    .with_blame(Blame::Policy)
    .with_retry_after(after)
}
