//! Limits and requests.

use weft_api::name;

use crate::field::Field;
use crate::validate::Problems;

/// Names without a prefix that Kubernetes knows, in whatever place.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];
/// Those that a container can have.
const OF_CONTAINERS: &[&str] = &["cpu", "memory", "ephemeral-storage"];
const HUGE: &str = "hugepages-";

pub(crate) fn is_huge(resource: &str) -> bool {
    resource.starts_with(HUGE)
}

/// In Kubernetes' own namespace, which names without a prefix are in.
pub(crate) fn is_native(resource: &str) -> bool {
    !resource.contains('/') || resource.contains("kubernetes.io/")
}

pub(crate) fn is_extended(resource: &str) -> bool {
    !is_native(resource)
        && !resource.starts_with("requests.")
        && name::qualified_name_faults(&format!("requests.{resource}")).is_empty()
}

pub(super) fn of_container(resources: &Field<'_, '_>, problems: &mut Problems) {
    requirements(resources, container_resource, problems);
}

/// Of the pod as a whole.
pub(super) fn of_pod(spec: &Field<'_, '_>, problems: &mut Problems) {
    let resources = spec.child("resources");
    if !resources.is_set() {
        return;
    }
    let claims = resources.child("claims");
    if claims.is_set() {
        let sentence = "claims may not be set for Resources at pod-level";
        problems.forbidden(&claims, sentence);
    }
    requirements(&resources, pod_resource, problems);
}

/// What running a pod costs beyond its containers.
pub(super) fn of_overhead(spec: &Field<'_, '_>, problems: &mut Problems) {
    // Kubernetes judges it as limits, and says so in paths.
    limits(spec, "overhead", "overhead.limits", problems);
}

/// Amounts of resources that containers can have, told of at `shown`.
pub(crate) fn limits(of: &Field<'_, '_>, names: &str, shown: &str, problems: &mut Problems) {
    for (resource, quantity) in of.entries_as(names, shown) {
        container_resource(resource, &quantity, problems);
        amount(resource, &quantity, problems);
    }
}

pub(crate) fn known_name(resource: &str, field: &Field<'_, '_>, problems: &mut Problems) -> bool {
    let faults = name::qualified_name_faults(resource);
    for fault in &faults {
        problems.invalid(field, resource, fault);
    }
    if !faults.is_empty() {
        return false;
    }
    let huge = is_huge(resource) || resource.starts_with("requests.hugepages-");
    if !resource.contains('/') && !STANDARD.contains(&resource) && !huge {
        let sentence = "must be a standard resource type or fully qualified";
        problems.invalid(field, resource, sentence);
        return false;
    }
    true
}

/// A resource that a container can have.
pub(crate) fn container_resource(resource: &str, field: &Field<'_, '_>, problems: &mut Problems) {
    known_name(resource, field, problems);
    if !resource.contains('/') {
        if !OF_CONTAINERS.contains(&resource) && !is_huge(resource) {
            let sentence = "must be a standard resource for containers";
            problems.invalid(field, resource, sentence);
        }
    } else if !is_native(resource) && !is_extended(resource) {
        let sentence = "doesn't follow extended resource name standard";
        problems.invalid(field, resource, sentence);
    }
}

fn pod_resource(resource: &str, field: &Field<'_, '_>, problems: &mut Problems) {
    if known_name(resource, field, problems) && !is_huge(resource) {
        problems.one_of_as(field, resource, &["cpu", "hugepages-", "memory"]);
    }
}

fn amount(resource: &str, field: &Field<'_, '_>, problems: &mut Problems) {
    let Some(quantity) = field.quantity() else {
        let sentence = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        return problems.invalid(field, field.shown(), sentence);
    };
    if quantity.is_negative() {
        let sentence = "must be greater than or equal to 0";
        problems.invalid(field, quantity.to_string(), sentence);
    }
    if is_extended(resource) && quantity.milli() % 1000 != 0 {
        problems.invalid(field, quantity.to_string(), "must be an integer");
    }
}

fn requirements(
    of: &Field<'_, '_>,
    check_name: fn(&str, &Field<'_, '_>, &mut Problems),
    problems: &mut Problems,
) {
    let limits = of.child("limits");
    let requests = of.child("requests");
    let (mut huge, mut ordinary) = (false, false);
    for side in ["limits", "requests"] {
        for (resource, field) in of.entries(side) {
            check_name(resource, &field, problems);
            amount(resource, &field, problems);
            if side == "requests"
                && let Some(quantity) = field.quantity()
            {
                let limit = of.entry("limits", resource).quantity();
                let overcommits = is_native(resource) && !is_huge(resource);
                match limit {
                    Some(limit) if !overcommits && quantity != limit => {
                        let sentence = format!("must be equal to {resource} limit of {limit}");
                        problems.invalid(&requests, quantity.to_string(), &sentence);
                    }
                    Some(limit) if quantity > limit => {
                        let sentence =
                            format!("must be less than or equal to {resource} limit of {limit}");
                        problems.invalid(&requests, quantity.to_string(), &sentence);
                    }
                    None if !overcommits => {
                        let sentence = "Limit must be set for non overcommitable resources";
                        problems.required(&limits, sentence);
                    }
                    _ => {}
                }
            }
            huge |= is_huge(resource);
            ordinary |= matches!(resource, "cpu" | "memory");
        }
    }
    if huge && !ordinary {
        problems.forbidden(of, "HugePages require cpu or memory");
    }
}
