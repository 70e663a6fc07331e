//! MeshPolicies and FaultInjections: what holds for the calls to a Service, and what is said of each object. Pure.
//!
//! What policies say of the calls that a route leads is `route_policies.rs`'s.
//!
//! Of the policies that name a Service the oldest holds, then the first by name; and the same among those that name none, which are for
//! every Service of their namespace. Of each part (timeouts, retry, …) the policy that names the Service has the word, then the other.
//! FaultInjections add up.
//!
//! Invariant: a policy whose condition `Accepted` is true for a target is what the nodes do there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use imbl::OrdMap;

use crate::api::{
    CallerRef, FaultInjection, FaultInjectionSpec, MeshPolicy, MeshPolicySpec, Metadata,
    PolicyTarget, RetryPolicy,
};
use crate::certificates::is_service;
use crate::duration;
use crate::name::NamespacedName;
use crate::objects::Objects;
use crate::resilience::{
    Account, Across, Breaker, Concurrency, Fault, LimitedBy, RateLimit, Resilience, RetryBudget,
};
use crate::route::RouteKind;
use crate::route_policies::{RoutePolicies, route_kind};
use crate::rule::Retry;
use crate::status::Condition;

/// Tries after the first where a policy says none.
const ATTEMPTS_USUAL: u32 = 2;
const BACKOFF_USUAL: Duration = Duration::from_millis(25);
/// Answers that are asked for again where a policy names none: those that the Gateway API has implementations support.
const CODES_USUAL: [StatusCode; 3] = [
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// Failures of gRPC by name, from 1 on.
const GRPC_CODES: [&str; 16] = [
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// What became of a FaultInjection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultStatus {
    pub accepted: Condition,
    /// Seconds since the epoch: until when it is done.
    pub until: i64,
}

/// All that there is to say and to do.
#[derive(Debug, Default)]
pub(crate) struct MeshPolicies {
    pub(crate) served: OrdMap<NamespacedName, Arc<Resilience>>,
    pub(crate) policies: BTreeMap<NamespacedName, Vec<Condition>>,
    pub(crate) faults: BTreeMap<NamespacedName, FaultStatus>,
}

/// The policies of one Service.
#[derive(Default)]
struct Of<'o> {
    own: Option<&'o MeshPolicySpec>,
    faults: Vec<Fault>,
}

impl MeshPolicies {
    pub(crate) fn of(objects: &Objects) -> Self {
        let mut found = Self::default();
        if objects.mesh_policies.is_empty() && objects.faults.is_empty() {
            return found;
        }
        let mut by_service: BTreeMap<NamespacedName, Of<'_>> = BTreeMap::new();
        let mut of_namespace: BTreeMap<&str, &MeshPolicy> = BTreeMap::new();
        let mut holders: BTreeMap<NamespacedName, &NamespacedName> = BTreeMap::new();
        let of_routes = RoutePolicies::of(objects);
        for policy in by_age(objects) {
            let name = &policy.metadata.name;
            if policy.spec.target_refs.is_empty() {
                let namespace = name.namespace.as_str();
                let holder = *of_namespace.entry(namespace).or_insert(policy);
                let holder = &holder.metadata.name;
                let accepted = match holder == name {
                    true => accepted(),
                    false => conflicted(
                        holder,
                        &format!("names no target, as this one, in namespace {namespace}"),
                    ),
                };
                found.policies.insert(name.clone(), vec![accepted]);
                continue;
            }
            let mut fault = None;
            for target in &policy.spec.target_refs {
                if let Some(kind) = route_kind(target) {
                    let told = of_route(policy, kind, target, objects, &of_routes);
                    fault = fault.or(told.err());
                }
            }
            let others = policy.spec.target_refs.iter();
            let others = others.filter(|target| route_kind(target).is_none());
            for target in targets(&policy.metadata, others, TAKEN, objects) {
                match target {
                    Ok(service) => {
                        let holder = *holders.entry(service.clone()).or_insert(name);
                        if holder == name {
                            by_service.entry(service).or_default().own = Some(&policy.spec);
                        } else {
                            fault.get_or_insert_with(|| {
                                conflicted(holder, &format!("has Service {} already", service.name))
                            });
                        }
                    }
                    Err(condition) => {
                        fault.get_or_insert(condition);
                    }
                }
            }
            let conditions = vec![fault.unwrap_or_else(accepted)];
            found.policies.insert(name.clone(), conditions);
        }
        for (name, injection) in &objects.faults {
            let (status, services, fault) = injected(injection, objects);
            found.faults.insert(name.clone(), status);
            for service in services {
                by_service
                    .entry(service)
                    .or_default()
                    .faults
                    .push(fault.clone());
            }
        }
        for namespace in of_namespace.keys() {
            let first = NamespacedName::new(*namespace, "");
            let services = objects.services.range(first..);
            let services = services.take_while(|(name, _)| name.namespace == *namespace);
            for (service, _) in services {
                by_service.entry(service.clone()).or_default();
            }
        }
        let served = by_service.into_iter().map(|(service, of)| {
            let general = of_namespace.get(service.namespace.as_str());
            let general = general.map(|policy| &policy.spec);
            let resilience = compiled(&service.namespace, of.own, general, of.faults);
            (service, Arc::new(resilience))
        });
        found.served = served.collect();
        found
    }
}

/// The first holds.
pub(crate) fn by_age(objects: &Objects) -> Vec<&Arc<MeshPolicy>> {
    let mut by_age: Vec<&Arc<MeshPolicy>> = objects.mesh_policies.values().collect();
    by_age.sort_by_key(|policy| (policy.metadata.created, &policy.metadata.name));
    by_age
}

/// Why what a policy says of a route, or of a rule, does not hold there.
fn of_route(
    policy: &MeshPolicy,
    kind: RouteKind,
    target: &PolicyTarget,
    objects: &Objects,
    policies: &RoutePolicies<'_>,
) -> Result<(), Condition> {
    let own = &policy.metadata.name;
    let name = NamespacedName::new(own.namespace.as_str(), target.name.as_str());
    let not_found = |message| Err(Condition::fails("Accepted", "TargetNotFound", message));
    let Some(route) = objects.routes.get(&(kind, name.clone())) else {
        return not_found(format!(
            "{kind} {} does not exist: create it, or correct targetRefs.",
            name.name
        ));
    };
    let section = target.section_name.as_deref();
    let is_named = |section: &str| {
        let mut rules = route.rules.iter();
        rules.any(|rule| rule.name.as_deref() == Some(section))
    };
    if let Some(section) = section.filter(|section| !is_named(section)) {
        return not_found(format!(
            "{kind} {} has no rule called {section}: name one so, or correct targetRefs.",
            name.name
        ));
    }
    match policies.holder(kind, &name, section) {
        Some(holder) if holder != own => Err(conflicted(
            holder,
            &match section {
                None => format!("has {kind} {} already", name.name),
                Some(rule) => format!("has rule {rule} of {kind} {} already", name.name),
            },
        )),
        _ => Ok(()),
    }
}

fn accepted() -> Condition {
    Condition::holds("Accepted", "Accepted", "The nodes do what it says.")
}

fn conflicted(holder: &NamespacedName, why: &str) -> Condition {
    let message = format!("MeshPolicy {holder} is older and {why}: what it says holds there.");
    Condition::fails("Accepted", "Conflicted", message)
}

/// What can be a target of a MeshPolicy, and of a FaultInjection.
const TAKEN: &str = "a Service, an HTTPRoute or a GRPCRoute";
const TAKEN_BY_FAULTS: &str = "a Service";

/// The Services that an object is for, each once; for each that is none, what is said of it: only `taken` can be one.
fn targets<'o>(
    metadata: &'o Metadata,
    written: impl Iterator<Item = &'o PolicyTarget>,
    taken: &'static str,
    objects: &'o Objects,
) -> impl Iterator<Item = Result<NamespacedName, Condition>> {
    let mut seen = BTreeSet::new();
    let once = written.filter(move |target| seen.insert((*target).clone()));
    once.map(move |target| {
        if !is_service(target) {
            let message = format!(
                "targetRefs names {} {}, and only {taken} can be a target.",
                target.kind, target.name
            );
            return Err(Condition::fails("Accepted", "Invalid", message));
        }
        let service = NamespacedName::new(metadata.name.namespace.as_str(), target.name.as_str());
        if objects.services.contains_key(&service) {
            return Ok(service);
        }
        let message = format!(
            "Service {} does not exist: create it, or correct targetRefs.",
            service.name
        );
        Err(Condition::fails("Accepted", "TargetNotFound", message))
    })
}

/// A time that its schema has judged; one that cannot be read is as good as not there.
pub(crate) fn time(text: Option<&String>) -> Option<Duration> {
    duration::parse(text?).ok()
}

/// The same, where zero stands for none.
pub(crate) fn limit(text: Option<&String>) -> Option<Duration> {
    time(text).filter(|limit| !limit.is_zero())
}

pub(crate) fn retried(written: &RetryPolicy) -> Retry {
    let grpc = written.grpc_codes.iter();
    let grpc = grpc.filter_map(|name| GRPC_CODES.iter().position(|known| known == name));
    let grpc = grpc.filter_map(|place| u16::try_from(place + 1).ok());
    Retry {
        codes: match written.status_codes.as_slice() {
            [] => CODES_USUAL.to_vec(),
            codes => codes
                .iter()
                .filter_map(|code| StatusCode::from_u16(*code).ok())
                .collect(),
        },
        grpc: grpc.collect(),
        attempts: written.attempts.unwrap_or(ATTEMPTS_USUAL),
        backoff: Some(time(written.backoff.as_ref()).unwrap_or(BACKOFF_USUAL)),
    }
}

fn compiled(
    namespace: &str,
    own: Option<&MeshPolicySpec>,
    general: Option<&MeshPolicySpec>,
    faults: Vec<Fault>,
) -> Resilience {
    let both = [own, general];
    let both = || both.into_iter().flatten();
    let timeouts = both().find_map(|spec| spec.timeouts.as_ref());
    let retry = both().find_map(|spec| spec.retry.as_ref());
    let budget = retry.and_then(|retry| retry.budget.as_ref());
    let usual = RetryBudget::default();
    let rate_limits = both()
        .map(|spec| &spec.rate_limits)
        .find(|limits| !limits.is_empty());
    Resilience {
        retry: retry.map(retried),
        request_timeout: limit(timeouts.and_then(|timeouts| timeouts.request.as_ref())),
        attempt_timeout: limit(timeouts.and_then(|timeouts| timeouts.attempt.as_ref())),
        budget: budget.map_or(usual, |budget| RetryBudget {
            percent: budget.percent.unwrap_or(usual.percent),
            interval: limit(budget.interval.as_ref()).unwrap_or(usual.interval),
            min_per_second: budget.min_per_second.unwrap_or(usual.min_per_second),
        }),
        breaker: both()
            .find_map(|spec| spec.circuit_breaker.as_ref())
            .map(breaker),
        hedge_after: both()
            .find_map(|spec| spec.hedging.as_ref())
            .and_then(|hedging| limit(Some(&hedging.after))),
        concurrency: both()
            .find_map(|spec| spec.concurrency.as_ref())
            .map(|written| {
                let usual = Concurrency::default();
                let min = written.min.unwrap_or(usual.min).max(1);
                Concurrency {
                    min,
                    max: written.max.unwrap_or(usual.max).max(min),
                    queue_max: written.queue.unwrap_or(usual.queue_max),
                    critical: accounts(namespace, &written.critical_callers),
                }
            }),
        rate_limits: rate_limits
            .into_iter()
            .flatten()
            .map(|written| RateLimit {
                by: match written.by.as_deref() {
                    Some("Namespace") => LimitedBy::Namespace,
                    Some("Everyone") => LimitedBy::Everyone,
                    _ => LimitedBy::ServiceAccount,
                },
                requests: written.requests.max(1),
                per: limit(written.per.as_ref()).unwrap_or(Duration::from_secs(1)),
                burst: written.burst.unwrap_or(written.requests).max(1),
                across: match written.across.as_deref() {
                    Some("Cluster") => Across::Cluster,
                    _ => Across::Node,
                },
            })
            .collect(),
        faults,
    }
}

fn breaker(written: &crate::api::CircuitBreaker) -> Breaker {
    let usual = Breaker::default();
    let ejection = limit(written.ejection.as_ref()).unwrap_or(usual.ejection);
    Breaker {
        consecutive_failures: written
            .consecutive_failures
            .unwrap_or(usual.consecutive_failures)
            .max(1),
        success_percent: written.success_percent.unwrap_or(usual.success_percent),
        min_requests: written.min_requests.unwrap_or(usual.min_requests).max(1),
        interval: limit(written.interval.as_ref()).unwrap_or(usual.interval),
        ejection,
        ejection_max: limit(written.max_ejection.as_ref())
            .unwrap_or(usual.ejection_max)
            .max(ejection),
        ejected_percent_max: written
            .max_ejected_percent
            .unwrap_or(usual.ejected_percent_max),
    }
}

fn accounts(namespace: &str, written: &[CallerRef]) -> Vec<Account> {
    let accounts = written.iter().map(|caller| Account {
        namespace: caller
            .namespace
            .clone()
            .unwrap_or_else(|| namespace.to_owned()),
        name: caller.service_account_name.clone(),
    });
    accounts.collect()
}

/// What is said of a FaultInjection, whose calls it spoils, and how.
fn injected(
    injection: &FaultInjection,
    objects: &Objects,
) -> (FaultStatus, Vec<NamespacedName>, Fault) {
    let FaultInjectionSpec {
        target_refs,
        duration,
        callers,
        headers,
        delay,
        abort,
    } = &injection.spec;
    let metadata = &injection.metadata;
    let lasts = time(Some(duration)).unwrap_or_default();
    let lasts = i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX);
    let until = metadata.created.saturating_add(lasts);
    let percent = |percent: Option<u32>| percent.unwrap_or(100).min(100);
    let lines = headers.iter().map(|line| {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(&line.value).ok()?))
    });
    // A line that none can be is none that a call has: nobody's calls are spoiled.
    let (lines, until) = match lines.collect::<Option<Vec<_>>>() {
        Some(lines) => (lines, until),
        None => (Vec::new(), i64::MIN),
    };
    let fault = Fault {
        name: metadata.name.to_string(),
        headers: lines,
        until,
        callers: accounts(&metadata.name.namespace, callers),
        delay: delay.as_ref().and_then(|delay| {
            let time = limit(Some(&delay.duration))?;
            Some((time, percent(delay.percent)))
        }),
        abort: abort.as_ref().and_then(|abort| {
            let status = StatusCode::from_u16(abort.http_status).ok()?;
            Some((status, percent(abort.percent)))
        }),
    };
    let mut services = Vec::new();
    let mut refused = None;
    for target in targets(metadata, target_refs.iter(), TAKEN_BY_FAULTS, objects) {
        match target {
            Ok(service) => services.push(service),
            Err(condition) => {
                refused.get_or_insert(condition);
            }
        }
    }
    let accepted = refused.unwrap_or_else(accepted);
    (FaultStatus { accepted, until }, services, fault)
}
