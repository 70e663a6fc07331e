//! What a policy makes of the answers of an endpoint, and of its failures: whether it is to be left alone for them.
//!
//! What counts is `breaker.rs`'s; how many endpoints of a port may be left alone at once is the port's. How a call of gRPC ended may be known
//! only when its answer was read: whoever judges is kept until then.

use std::{sync::Arc, time::Instant};

use weft_gateway::{Breaker, Resilience};

use crate::{
    Inner,
    health::Fault,
    table::{Endpoint, Service},
};

/// The policy of the Service that is called, and the port.
#[derive(Clone, Copy)]
pub(crate) struct Judge<'c> {
    service: &'c Arc<Service>,
    port: u16,
    resilience: &'c Arc<Resilience>,
    rule: &'c Breaker,
}

/// The same for later.
pub(crate) struct KeptJudge {
    service: Arc<Service>,
    port: u16,
    resilience: Arc<Resilience>,
}

/// What a policy makes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    Good,
    /// It is none of health.
    Bad,
    /// It is one too many.
    Tripped(Fault),
}

impl<'c> Judge<'c> {
    /// None where the policy says nothing of answers.
    pub(crate) fn of(
        service: &'c Arc<Service>,
        port: u16,
        resilience: &'c Arc<Resilience>,
    ) -> Option<Self> {
        Some(Self {
            service,
            port,
            resilience,
            rule: resilience.breaker.as_ref()?,
        })
    }

    pub(crate) fn kept(self) -> KeptJudge {
        KeptJudge {
            service: Arc::clone(self.service),
            port: self.port,
            resilience: Arc::clone(self.resilience),
        }
    }

    /// Counts an answer of the endpoint.
    pub(crate) fn judge(
        self,
        inner: &Inner,
        endpoint: &Endpoint,
        is_bad: bool,
        now: Instant,
    ) -> Judged {
        let rule = self.rule;
        let now = inner.nanos(now);
        if !is_bad {
            endpoint.outcomes().good(rule, now);
            return Judged::Good;
        }
        let was_tripped = endpoint.health().is_tripped();
        let has_enough = endpoint.outcomes().bad(rule, now);
        if !was_tripped && !has_enough {
            return Judged::Bad;
        }
        let may_trip = || {
            let port = self.service.port(self.port);
            port.is_some_and(|port| port.may_trip(endpoint, rule.ejected_percent_max, now))
        };
        let acted = |action| inner.metrics.acted(self.service.labels(), action);
        if !was_tripped && !may_trip() {
            acted("breaker-capped");
            return Judged::Bad;
        }
        endpoint.outcomes().forget();
        if !was_tripped {
            acted("breaker-opened");
        }
        Judged::Tripped(Fault::Tripped {
            ejection: rule.ejection,
            longest: rule.ejection_max,
        })
    }
}

impl KeptJudge {
    pub(crate) fn now(&self) -> Option<Judge<'_>> {
        Judge::of(&self.service, self.port, &self.resilience)
    }
}
