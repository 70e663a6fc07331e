//! Resource quotas: what an object uses of them, and whether there is room for it.
//!
//! [`charge`] gives the quotas of a namespace as they are once an object is written, or why it may not be; whoever writes the object
//! writes them in the same step, so that concurrent writers cannot use more than there is. [`usage`] is what is counted, for one object;
//! a controller counts all anew.
//!
//! Source: k8s.io/apiserver `pkg/admission/plugin/resourcequota`, kubernetes `pkg/quota/v1`, and their sentences.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use weft_api::quantity::Quantity;
use weft_api::status::StatusError;

use super::amounts::{self, Amounts};
use super::{Operation, Request, claims};
use crate::core::pod::resources;
use crate::lens::{integer, items, member, object, text, time};

/// A resource as quotas count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted<'a> {
    pub group: &'a str,
    pub resource: &'a str,
}

impl Counted<'_> {
    /// `count/pods`, `count/deployments.apps`.
    fn name(&self) -> String {
        match self.group {
            "" => format!("count/{}", self.resource),
            group => format!("count/{}.{group}", self.resource),
        }
    }

    fn core(&self) -> &str {
        match self.group {
            "" => self.resource,
            _ => "",
        }
    }

    /// Whether a name in a quota is of such objects.
    pub fn has(&self, name: &str) -> bool {
        if name == self.name() {
            return true;
        }
        match self.core() {
            "pods" => {
                let standard = matches!(
                    name,
                    "pods"
                        | "cpu"
                        | "memory"
                        | "ephemeral-storage"
                        | "requests.cpu"
                        | "requests.memory"
                        | "requests.ephemeral-storage"
                        | "limits.cpu"
                        | "limits.memory"
                        | "limits.ephemeral-storage"
                );
                standard
                    || name.starts_with("hugepages-")
                    || name.starts_with("requests.hugepages-")
                    || (name.starts_with("requests.") && !resources::is_native(name))
            }
            "services" => {
                matches!(
                    name,
                    "services" | "services.nodeports" | "services.loadbalancers"
                )
            }
            "persistentvolumeclaims" => claims::is_of_volumes(name),
            core @ ("configmaps" | "resourcequotas" | "replicationcontrollers" | "secrets") => {
                name == core
            }
            _ => self.is_of_devices() && claims::is_of_devices(name),
        }
    }

    fn is_of_devices(&self) -> bool {
        self.group == "resource.k8s.io" && self.resource == "resourceclaims"
    }
}

/// What an object uses, at a time that decides whether one in deletion still counts.
pub fn usage(of: Counted<'_>, object: &Value, now: Timestamp) -> Amounts {
    let one = || Quantity::from_value(1);
    let mut used = Amounts::from([(of.name(), one())]);
    match of.core() {
        "pods" if !lives(object, now) => {}
        "pods" => of_pod(object, &mut used),
        "services" => {
            let ports = items(object, "/spec/ports");
            let kind = text(object, "/spec/type");
            let counted = match kind {
                "LoadBalancer"
                    if object.pointer("/spec/allocateLoadBalancerNodePorts")
                        == Some(&Value::Bool(false)) =>
                {
                    let with = ports.iter();
                    with.filter(|port| integer(port, "/nodePort").unwrap_or(0) != 0)
                        .count()
                }
                "NodePort" | "LoadBalancer" => ports.len(),
                _ => 0,
            };
            let balancers = i128::from(kind == "LoadBalancer");
            used.extend([
                ("services".to_owned(), one()),
                (
                    "services.nodeports".to_owned(),
                    Quantity::from_value(counted as i128),
                ),
                (
                    "services.loadbalancers".to_owned(),
                    Quantity::from_value(balancers),
                ),
            ]);
        }
        "persistentvolumeclaims" => claims::of_volume(object, &mut used),
        core @ ("configmaps" | "resourcequotas" | "replicationcontrollers" | "secrets") => {
            used.insert(core.to_owned(), one());
        }
        _ if of.is_of_devices() => claims::of_devices(object, &mut used),
        _ => {}
    }
    used
}

/// Whether a pod uses what it asks for: not once it has ended, or should have.
fn lives(pod: &Value, now: Timestamp) -> bool {
    if matches!(text(pod, "/status/phase"), "Failed" | "Succeeded") {
        return false;
    }
    let deleted = time(pod, "/metadata/deletionTimestamp");
    let grace = integer(pod, "/metadata/deletionGracePeriodSeconds");
    match (deleted, grace) {
        (Some(deleted), Some(grace)) => {
            let end = deleted.saturating_add(SignedDuration::from_secs(grace));
            end.is_ok_and(|end| now <= end)
        }
        _ => true,
    }
}

/// How a quota names what containers ask for.
fn computed(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::from([("pods".to_owned(), Quantity::from_value(1))]);
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = requests.get(name) {
            used.insert(name.to_owned(), *amount);
            used.insert(format!("requests.{name}"), *amount);
        }
        if let Some(amount) = limits.get(name) {
            used.insert(format!("limits.{name}"), *amount);
        }
    }
    for (name, amount) in requests {
        if resources::is_huge(name) {
            used.insert(name.clone(), *amount);
            used.insert(format!("requests.{name}"), *amount);
        }
        if resources::is_extended(name) {
            used.insert(format!("requests.{name}"), *amount);
        }
    }
    used
}

fn of_pod(pod: &Value, used: &mut Amounts) {
    let requests = amounts::of_pod(pod, "requests", true);
    let limits = amounts::of_pod(pod, "limits", true);
    used.extend(computed(&requests, &limits));
}

/// Whether a quota is about an object, by its scopes.
pub fn in_scope(quota: &Value, of: Counted<'_>, object: &Value) -> bool {
    let plain = items(quota, "/spec/scopes").iter();
    let plain = plain.map(|scope| json!({"scopeName": scope, "operator": "Exists"}));
    let selected = items(quota, "/spec/scopeSelector/matchExpressions").iter();
    plain
        .chain(selected.cloned())
        .all(|scope| matches_scope(&scope, of, object))
}

fn matches_scope(scope: &Value, of: Counted<'_>, object: &Value) -> bool {
    let name = text(scope, "/scopeName");
    let among = |value: &str| {
        let values = items(scope, "/values").iter();
        let named = values.filter_map(Value::as_str).any(|known| known == value);
        match text(scope, "/operator") {
            "In" => !value.is_empty() && named,
            "NotIn" => value.is_empty() || !named,
            "DoesNotExist" => value.is_empty(),
            _ => !value.is_empty(),
        }
    };
    match (of.core(), name) {
        ("pods", "Terminating") => terminates(object),
        ("pods", "NotTerminating") => !terminates(object),
        ("pods", "BestEffort") => is_best_effort(object),
        ("pods", "NotBestEffort") => !is_best_effort(object),
        ("pods", "PriorityClass") => among(text(object, "/spec/priorityClassName")),
        ("pods", "CrossNamespacePodAffinity") => reaches_other_namespaces(object),
        ("persistentvolumeclaims", "VolumeAttributesClass") => {
            let classes = claims::attribute_classes(object);
            match classes.as_slice() {
                [] => among(""),
                classes => classes.iter().any(|class| among(class)),
            }
        }
        _ => false,
    }
}

fn terminates(pod: &Value) -> bool {
    integer(pod, "/spec/activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0)
}

fn is_best_effort(pod: &Value) -> bool {
    let none = |of: &Value, pointer: &str| {
        let counted = |(name, amount): (&String, &Quantity)| {
            matches!(name.as_str(), "cpu" | "memory") && !amount.is_zero()
        };
        ["requests", "limits"].iter().all(|sort| {
            !amounts::at(of, &format!("{pointer}/{sort}"))
                .iter()
                .any(counted)
        })
    };
    none(pod, "/spec/resources")
        && ["/spec/containers", "/spec/initContainers"]
            .iter()
            .flat_map(|list| items(pod, list))
            .all(|container| none(container, "/resources"))
}

fn reaches_other_namespaces(pod: &Value) -> bool {
    let reaches = |term: &Value| {
        !items(term, "/namespaces").is_empty() || term.get("namespaceSelector").is_some()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|sort| {
        let at = |list: &str| items(pod, &format!("/spec/affinity/{sort}/{list}"));
        at("requiredDuringSchedulingIgnoredDuringExecution")
            .iter()
            .any(reaches)
            || at("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|weighted| weighted.get("podAffinityTerm").is_some_and(reaches))
    })
}

/// Whether a write may change what is used.
pub fn concerns(request: &Request, new: &Value, old: Option<&Value>) -> bool {
    let counted = counted(request);
    match (counted.core(), request.subresource.as_str()) {
        ("pods", "") if request.operation == Operation::Update => {
            old.is_some_and(|old| terminates(old) != terminates(new))
        }
        ("pods", "resize") => request.operation == Operation::Update,
        ("services" | "persistentvolumeclaims", "") => {
            matches!(request.operation, Operation::Create | Operation::Update)
        }
        ("persistentvolumeclaims", "status") => {
            old.is_some_and(|old| claims::is_recounted(new, old))
        }
        (_, "") if counted.is_of_devices() => {
            matches!(request.operation, Operation::Create | Operation::Update)
        }
        // Events come and go.
        ("events", _) => false,
        (_, "") => request.operation == Operation::Create && counted.group != "events.k8s.io",
        _ => false,
    }
}

pub fn counted(request: &Request) -> Counted<'_> {
    Counted {
        group: &request.place.resource_group,
        resource: &request.place.resource,
    }
}

/// The quotas among `quotas` that change by a write, as they are after it: their places, and what is stored of them then.
///
/// # Errors
/// 403 where there is no room.
pub fn charge(
    quotas: &[Value],
    request: &Request,
    new: &Value,
    old: Option<&Value>,
    now: Timestamp,
) -> Result<Vec<(usize, Value)>, StatusError> {
    let of = counted(request);
    let refuse = |sentence: String| Err(request.forbidden(Some(new), &sentence));
    let mut pertinent = Vec::new();
    for (place, quota) in quotas.iter().enumerate() {
        let hard = amounts::at(quota, "/status/hard");
        let restricted: Vec<&String> = hard.keys().filter(|name| of.has(name)).collect();
        if restricted.is_empty() || !in_scope(quota, of, new) {
            continue;
        }
        let name = text(quota, "/metadata/name");
        if of.core() == "pods"
            && let Some(missing) = unspecified(&restricted, new)
        {
            return refuse(format!("failed quota: {name}: must specify {missing}"));
        }
        let used = amounts::at(quota, "/status/used");
        if restricted.iter().any(|name| !used.contains_key(*name)) {
            let names: Vec<&str> = restricted.iter().map(|name| name.as_str()).collect();
            return refuse(format!(
                "status unknown for quota: {name}, resources: {}",
                names.join(",")
            ));
        }
        pertinent.push((place, hard, used));
    }
    if pertinent.is_empty() {
        return Ok(Vec::new());
    }
    let uses = usage(of, new, now);
    let negative: Vec<&str> = uses
        .iter()
        .filter(|(_, amount)| amount.is_negative())
        .map(|(name, _)| name.as_str())
        .collect();
    if !negative.is_empty() {
        let names = negative.join(",");
        return refuse(format!("quota usage is negative for resource(s): {names}"));
    }
    let mut after = Vec::new();
    for (place, hard, used) in pertinent {
        let quota = &quotas[place];
        let before = old.filter(|old| in_scope(quota, of, old));
        let before = before.map(|old| usage(of, old, now)).unwrap_or_default();
        let more: Amounts = uses
            .iter()
            .filter(|(name, _)| hard.contains_key(*name))
            .map(|(name, amount)| {
                let before = before.get(name).copied().unwrap_or(Quantity::ZERO);
                let more = if *amount > before {
                    *amount - before
                } else {
                    Quantity::ZERO
                };
                (name.clone(), more)
            })
            .filter(|(_, more)| !more.is_zero())
            .collect();
        if more.is_empty() {
            continue;
        }
        let mut next = used.clone();
        amounts::add(&mut next, &more);
        let exceeded: Vec<&String> = more
            .keys()
            .filter(|name| next.get(*name) > hard.get(*name))
            .collect();
        if !exceeded.is_empty() {
            let shown = |amounts: &Amounts| {
                let parts = exceeded.iter().filter_map(|name| {
                    let amount = amounts.get(*name)?;
                    Some(format!("{name}={amount}"))
                });
                parts.collect::<Vec<_>>().join(",")
            };
            return refuse(format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                text(quota, "/metadata/name"),
                shown(&more),
                shown(&used),
                shown(&hard)
            ));
        }
        let mut charged = quota.clone();
        write(member(&mut charged, "status"), "used", &next);
        after.push((place, charged));
    }
    Ok(after)
}

/// What pods must say where a quota counts it: of which containers that is missing.
fn unspecified(restricted: &[&String], pod: &Value) -> Option<String> {
    // As Kubernetes regrets: of processors and memory alone.
    let must = |name: &&&String| {
        matches!(
            name.as_str(),
            "cpu" | "memory" | "requests.cpu" | "requests.memory" | "limits.cpu" | "limits.memory"
        )
    };
    if object(pod, "/spec/resources").is_some_and(|resources| !resources.is_empty()) {
        return None;
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for list in ["/spec/containers", "/spec/initContainers"] {
        for container in items(pod, list) {
            let requests = amounts::at(container, "/resources/requests");
            let limits = amounts::at(container, "/resources/limits");
            let says = computed(&requests, &limits);
            for name in restricted.iter().filter(must) {
                if !says.contains_key(*name) {
                    let names = missing.entry(name.as_str()).or_default();
                    names.insert(text(container, "/name"));
                }
            }
        }
    }
    let told: Vec<String> = missing
        .into_iter()
        .map(|(name, containers)| {
            let containers: Vec<&str> = containers.into_iter().collect();
            format!("{name} for: {}", containers.join(","))
        })
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// Writes amounts as the map `name` of an object.
pub fn write(into: &mut Value, name: &str, amounts: &Amounts) {
    let map: serde_json::Map<String, Value> = amounts
        .iter()
        .map(|(name, amount)| (name.clone(), amount.to_string().into()))
        .collect();
    member(into, name);
    into[name] = map.into();
}

/// The status of a quota, by all objects of its namespace: each with what it is.
pub fn status<'a>(
    quota: &Value,
    objects: impl IntoIterator<Item = (Counted<'a>, &'a Value)>,
    now: Timestamp,
) -> Value {
    let hard = amounts::at(quota, "/spec/hard");
    let mut used: Amounts = hard
        .keys()
        .map(|name| (name.clone(), Quantity::ZERO))
        .collect();
    for (of, object) in objects {
        if !hard.keys().any(|name| of.has(name)) || !in_scope(quota, of, object) {
            continue;
        }
        let mut uses = usage(of, object, now);
        uses.retain(|name, _| hard.contains_key(name));
        amounts::add(&mut used, &uses);
    }
    let mut status = json!({});
    write(&mut status, "hard", &hard);
    write(&mut status, "used", &used);
    status
}

/// When a pod in deletion stops counting although it is still there.
pub fn ends_at(pod: &Value) -> Option<Timestamp> {
    let deleted = time(pod, "/metadata/deletionTimestamp")?;
    let grace = integer(pod, "/metadata/deletionGracePeriodSeconds")?;
    deleted
        .saturating_add(SignedDuration::from_secs(grace))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Place, User};

    fn request(operation: Operation, group: &str, resource: &str) -> Request {
        Request {
            operation,
            place: Place {
                group: group.to_owned(),
                version: "v1".to_owned(),
                kind: String::new(),
                resource: resource.to_owned(),
                resource_group: group.to_owned(),
                resource_version: "v1".to_owned(),
            },
            equivalents: Vec::new(),
            subresource: String::new(),
            namespace: "n".to_owned(),
            name: "x".to_owned(),
            user: User::default(),
            dry_run: false,
            options: Value::Null,
        }
    }

    fn quota(hard: Value, used: Value) -> Value {
        json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
    }

    fn told(quota: Value, request: &Request, new: &Value, old: Option<&Value>) -> String {
        match charge(&[quota], request, new, old, Timestamp::UNIX_EPOCH) {
            Ok(after) => after
                .iter()
                .map(|(_, quota)| quota["status"]["used"].to_string())
                .collect(),
            Err(error) => error.message,
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_there_is() {
        let create = request(Operation::Create, "", "pods");
        let pod = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}}}]}});
        for (hard, used, expected) in [
            (
                json!({"pods": "2"}),
                json!({"pods": "1"}),
                r#"{"pods":"2"}"#,
            ),
            (
                json!({"pods": "2", "requests.cpu": "1"}),
                json!({"pods": "2", "requests.cpu": "700m"}),
                "pods \"x\" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=500m, used: pods=2,requests.cpu=700m, limited: pods=2,requests.cpu=1",
            ),
            (
                json!({"limits.memory": "1Gi", "memory": "1Gi"}),
                json!({"limits.memory": "0", "memory": "0"}),
                "pods \"x\" is forbidden: failed quota: q: must specify limits.memory for: a; memory for: a",
            ),
            (
                json!({"pods": "2"}),
                json!({}),
                "pods \"x\" is forbidden: status unknown for quota: q, resources: pods",
            ),
            (json!({"services": "0"}), json!({"services": "0"}), ""),
            (
                json!({"count/pods": "1"}),
                json!({"count/pods": "1"}),
                "pods \"x\" is forbidden: exceeded quota: q, requested: count/pods=1, used: count/pods=1, limited: count/pods=1",
            ),
        ] {
            assert_eq!(told(quota(hard, used), &create, &pod, None), expected);
        }
    }

    #[test]
    fn a_change_costs_what_it_adds() {
        let update = request(Operation::Update, "", "services");
        let service = |kind: &str, ports: usize| json!({"spec": {"type": kind, "ports": vec![json!({"port": 80}); ports]}});
        let limits = |nodeports: &str| {
            quota(
                json!({"services.nodeports": nodeports, "services": "1"}),
                json!({"services.nodeports": "0", "services": "1"}),
            )
        };
        assert_eq!(
            told(
                limits("2"),
                &update,
                &service("NodePort", 2),
                Some(&service("ClusterIP", 2))
            ),
            r#"{"services":"1","services.nodeports":"2"}"#
        );
        assert_eq!(
            told(
                limits("1"),
                &update,
                &service("NodePort", 2),
                Some(&service("ClusterIP", 2))
            ),
            "services \"x\" is forbidden: exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1"
        );
        assert_eq!(
            told(
                limits("0"),
                &update,
                &service("ClusterIP", 1),
                Some(&service("NodePort", 3))
            ),
            ""
        );
        let deployments = request(Operation::Create, "apps", "deployments");
        assert_eq!(
            told(
                quota(
                    json!({"count/deployments.apps": "1"}),
                    json!({"count/deployments.apps": "0"})
                ),
                &deployments,
                &json!({}),
                None
            ),
            r#"{"count/deployments.apps":"1"}"#
        );
    }

    #[test]
    fn scopes_pick_pods() {
        let of = Counted {
            group: "",
            resource: "pods",
        };
        let scoped = |scope: Value| json!({"spec": {"scopes": [scope]}});
        let selected = |operator: &str, values: Value| json!({"spec": {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}}});
        let plain = json!({"spec": {"containers": [{"name": "a"}]}});
        let busy = json!({"spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high", "containers": [{"resources": {"limits": {"cpu": "1"}}}]}});
        for (quota, of_plain, of_busy) in [
            (scoped(json!("BestEffort")), true, false),
            (scoped(json!("NotBestEffort")), false, true),
            (scoped(json!("Terminating")), false, true),
            (scoped(json!("NotTerminating")), true, false),
            (selected("In", json!(["high"])), false, true),
            (selected("NotIn", json!(["high"])), true, false),
            (selected("Exists", json!([])), false, true),
            (selected("DoesNotExist", json!([])), true, false),
        ] {
            let found = (in_scope(&quota, of, &plain), in_scope(&quota, of, &busy));
            assert_eq!(found, (of_plain, of_busy), "{quota}");
        }
    }

    #[test]
    fn all_is_counted_anew() {
        let pod = Counted {
            group: "",
            resource: "pods",
        };
        let secret = Counted {
            group: "",
            resource: "secrets",
        };
        let ended = json!({"status": {"phase": "Succeeded"}, "spec": {}});
        let running =
            json!({"spec": {"containers": [{"resources": {"requests": {"memory": "1Mi"}}}]}});
        let quota = json!({"spec": {"hard": {"pods": "5", "count/pods": "5", "requests.memory": "1Gi", "secrets": "1", "services": "2"}}});
        let empty = json!({});
        assert_eq!(
            status(
                &quota,
                [
                    (pod, &ended),
                    (pod, &running),
                    (pod, &running),
                    (secret, &empty)
                ],
                Timestamp::UNIX_EPOCH
            )["used"],
            json!({"pods": "2", "count/pods": "3", "requests.memory": "2Mi", "secrets": "1", "services": "0"})
        );
    }
}
