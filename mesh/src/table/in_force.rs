//! What is asked of calls to services at the moment, for whoever looks at the mesh. Pure.
//!
//! Invariants: what nobody asks for is not told, and a service that nobody asks anything for costs a look at its endpoints; faults that are over
//! are not in force; at most [`SERVICES_MAX`] are told of.

use std::time::Duration;

use weft_call::edges::{
    BreakerStanding, FaultStanding, RetryStanding, ServicePolicies, WeightedBackend,
};
use weft_gateway::Fault;

use super::{Service, Table};
use crate::route::BackendTarget;

/// Services that are told of, in the order of their names.
const SERVICES_MAX: usize = 1024;
/// Shares of one service that are told of.
const BACKENDS_MAX: usize = 16;

impl Table {
    /// Of each service that anybody asks something for, at `now` of the mesh's clock and so many `seconds` after the epoch.
    pub(crate) fn policies(&self, now: u64, seconds: i64) -> Vec<ServicePolicies> {
        let named = self.by_name.values().flat_map(|names| names.values());
        let services = named.filter_map(|index| self.services.get(index.0));
        let told = services.map(|service| service.policies(now, seconds));
        let mut told: Vec<ServicePolicies> = told.filter(|one| !one.is_none()).collect();
        told.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        told.truncate(SERVICES_MAX);
        told
    }
}

impl Service {
    fn policies(&self, now: u64, seconds: i64) -> ServicePolicies {
        let ejected_of = |port: &super::Port| {
            let all = port.all.iter();
            let ejected = all.filter(|endpoint| endpoint.health().is_ejected(now));
            (ejected.count(), port.all.len())
        };
        // Its ports have the same endpoints, mostly.
        let worst = self.ports.iter().map(ejected_of).max().unwrap_or_default();
        let resilience = &self.resilience;
        let breaks = resilience.breaker.is_some() || worst.0 > 0;
        let rule = self.routes.shares();
        let retry = rule.and_then(|rule| rule.retry.as_ref());
        let retry = retry.or(resilience.retry.as_ref());
        let timeout = rule.and_then(|rule| rule.request_timeout);
        let timeout = timeout.or(resilience.request_timeout);
        let backends = rule
            .map(|rule| rule.backends.as_slice())
            .unwrap_or_default();
        let shares = backends.iter().filter_map(|backend| match &backend.target {
            BackendTarget::Service {
                namespace, name, ..
            } => Some(WeightedBackend {
                namespace: namespace.clone(),
                name: name.clone(),
                weight: backend.weight,
            }),
            BackendTarget::Invalid { .. } => None,
        });
        ServicePolicies {
            namespace: self.labels.namespace.clone(),
            name: self.labels.name.clone(),
            breaker: breaks.then_some(BreakerStanding {
                ejected: worst.0,
                endpoints: worst.1,
            }),
            faults: in_force(&resilience.faults, seconds),
            retries: retry.map(|retry| RetryStanding {
                attempts: retry.attempts,
            }),
            timeout_millis: timeout.map(millis),
            backends: match backends.len() {
                0 | 1 => Vec::new(),
                _ => shares.take(BACKENDS_MAX).collect(),
            },
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn in_force(faults: &[Fault], seconds: i64) -> Vec<FaultStanding> {
    let faults = faults.iter().filter(|fault| seconds < fault.until);
    let told = faults.map(|fault| FaultStanding {
        name: fault.name.clone(),
        until: fault.until,
        delay_millis: fault.delay.map(|(delay, _)| millis(delay)),
        delay_percent: fault.delay.map(|(_, percent)| percent),
        abort: fault.abort.map(|(status, _)| status.as_u16()),
        abort_percent: fault.abort.map(|(_, percent)| percent),
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::StatusCode;
    use weft_gateway::{
        Backend, Breaker, NamespacedName, Resilience, Retry, Rule, Served, ServiceRoutes,
    };

    use super::*;
    use crate::route::testing::attached_rules;
    use crate::table::testing::{self, service};

    #[test]
    fn what_somebody_asks_for_is_told_and_no_more() {
        let fault = |name: &str, until| Fault {
            name: name.to_owned(),
            until,
            callers: Vec::new(),
            headers: Vec::new(),
            delay: Some((Duration::from_millis(500), 50)),
            abort: Some((StatusCode::SERVICE_UNAVAILABLE, 10)),
        };
        let resilience = Resilience {
            retry: Some(Retry {
                attempts: 2,
                ..Retry::default()
            }),
            breaker: Some(Breaker::default()),
            faults: vec![fault("shop/over", 99), fault("shop/slow", 101)],
            ..Resilience::default()
        };
        let to = |name: &str, weight| Backend {
            weight,
            ..Backend::new(BackendTarget::Service {
                namespace: "shop".to_owned(),
                name: name.to_owned(),
                port: 80,
            })
        };
        let rule = Rule {
            backends: vec![to("pay-1", 90), to("pay-2", 10)],
            request_timeout: Some(Duration::from_secs(1)),
            ..Rule::default()
        };
        let routes = ServiceRoutes {
            producer: vec![attached_rules("shop/pay", vec![rule])],
            ..ServiceRoutes::default()
        };
        let pay = NamespacedName::new("shop", "pay");
        let served = Served {
            services: [(pay.clone(), Arc::new(routes))].into_iter().collect(),
            resilience: [(pay, Arc::new(resilience))].into_iter().collect(),
            ..Served::default()
        };
        let mut builder = testing::table("a");
        builder.set_service(service("shop", "plain").build());
        builder.set_service(service("shop", "pay").build());
        builder.set_routes(&served);
        let told = builder.table(1).policies(0, 100);
        let told = serde_json::to_value(told).expect("JSON");
        assert_eq!(
            told,
            serde_json::json!([{
                "namespace": "shop", "name": "pay",
                "breaker": {"ejected": 0, "endpoints": 1},
                "faults": [{
                    "name": "shop/slow", "until": 101, "delayMillis": 500, "delayPercent": 50, "abort": 503,
                    "abortPercent": 10,
                }],
                "retries": {"attempts": 2},
                "timeoutMillis": 1000,
                "backends": [
                    {"namespace": "shop", "name": "pay-1", "weight": 90},
                    {"namespace": "shop", "name": "pay-2", "weight": 10},
                ],
            }])
        );
    }
}
