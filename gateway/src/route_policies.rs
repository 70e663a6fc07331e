//! What MeshPolicies say of the calls that routes lead: times, further tries and hedging, where a rule itself says nothing of them. Pure.
//!
//! A policy is for a route, or for one of its rules by name (`sectionName`). Of several for the same the oldest holds, then the first by
//! name. Of each part the policy of the rule has the word, then that of the route, then those of the Service that is called
//! (`mesh_policies.rs`). What is counted at endpoints (breakers, room, rates, budgets) is a Service's: a route has no part in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{GROUP, MeshPolicy, MeshPolicySpec, PolicyTarget};
use crate::duration;
use crate::mesh_policies::{by_age, limit, retried, time};
use crate::name::NamespacedName;
use crate::objects::Objects;
use crate::route::{Route, RouteKind};
use crate::rule::Rule;

/// A route in the policy's own namespace, and the name of a rule.
pub(crate) type Section<'o> = Option<&'o str>;

/// The policies that name routes.
#[derive(Debug, Default)]
pub(crate) struct RoutePolicies<'o>(
    BTreeMap<(RouteKind, NamespacedName), BTreeMap<Section<'o>, &'o MeshPolicy>>,
);

/// Those of one route, by the rule that they name; the one without a name is for all.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Said<'o>(Option<&'o BTreeMap<Section<'o>, &'o MeshPolicy>>);

/// The kind of route that a target is, if it is one that leads requests.
pub(crate) fn route_kind(target: &PolicyTarget) -> Option<RouteKind> {
    let kinds = [RouteKind::Http, RouteKind::Grpc].into_iter();
    let mut kinds = kinds.filter(|_| target.group == GROUP);
    kinds.find(|kind| kind.name() == target.kind)
}

impl<'o> RoutePolicies<'o> {
    pub(crate) fn of(objects: &'o Objects) -> Self {
        let mut found = Self::default();
        let names_routes = |policy: &&Arc<MeshPolicy>| {
            let mut targets = policy.spec.target_refs.iter();
            targets.any(|target| route_kind(target).is_some())
        };
        if !objects.mesh_policies.values().any(|one| names_routes(&one)) {
            return found;
        }
        for policy in by_age(objects).into_iter().filter(names_routes) {
            let namespace = policy.metadata.name.namespace.as_str();
            for target in &policy.spec.target_refs {
                let Some(kind) = route_kind(target) else {
                    continue;
                };
                let name = NamespacedName::new(namespace, target.name.as_str());
                let of_route = found.0.entry((kind, name)).or_default();
                let section = target.section_name.as_deref();
                of_route.entry(section).or_insert(policy);
            }
        }
        found
    }

    /// Whose word holds for a route, or for a rule of it.
    pub(crate) fn holder(
        &self,
        kind: RouteKind,
        name: &NamespacedName,
        section: Section<'_>,
    ) -> Option<&'o NamespacedName> {
        let of_route = self.0.get(&(kind, name.clone()))?;
        let policy = of_route.get(&section)?;
        Some(&policy.metadata.name)
    }

    pub(crate) fn of_route(&self, route: &Route) -> Said<'_> {
        if self.0.is_empty() {
            return Said::default();
        }
        Said(self.0.get(&(route.kind, route.metadata.name.clone())))
    }
}

impl Said<'_> {
    /// The rule with what is said of it, where that is anything.
    pub(crate) fn added_to(&self, rule: &Rule) -> Option<Rule> {
        let policies = self.0?;
        let own = rule
            .name
            .as_deref()
            .and_then(|name| policies.get(&Some(name)));
        let specs = || {
            own.into_iter()
                .chain(policies.get(&None))
                .map(|one| &one.spec)
        };
        let timeouts = specs().find_map(|spec: &MeshPolicySpec| spec.timeouts.as_ref());
        let unlimited = |text: Option<&String>| {
            let time = time(text)?;
            Some(if time.is_zero() {
                duration::UNLIMITED
            } else {
                time
            })
        };
        let request = timeouts.and_then(|timeouts| unlimited(timeouts.request.as_ref()));
        let attempt = timeouts.and_then(|timeouts| unlimited(timeouts.attempt.as_ref()));
        let retry = specs().find_map(|spec| spec.retry.as_ref());
        let hedging = specs().find_map(|spec| spec.hedging.as_ref());
        let with = Rule {
            request_timeout: rule.request_timeout.or(request),
            backend_timeout: rule.backend_timeout.or(attempt),
            retry: rule.retry.clone().or_else(|| retry.map(retried)),
            hedge_after: hedging.and_then(|hedging| limit(Some(&hedging.after))),
            ..rule.clone()
        };
        (with != *rule).then_some(with)
    }
}
