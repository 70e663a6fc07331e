//! The rules of pods, and of the templates that pods are made from, in the words and the order of Kubernetes.
//!
//! Source: `ValidatePodSpec` and what it calls in k8s.io/kubernetes `pkg/apis/core/validation`. Left out is what no
//! component can have: options of Windows, claims of devices, volumes of vendors, and annotations that fields replaced.

mod containers;
mod handlers;
pub(crate) mod resources;
mod scheduling;
mod security;
#[cfg(test)]
mod tests;
mod volumes;

pub(crate) use scheduling::node_selector;

use serde_json::Value;
use weft_api::name;

pub(crate) use resources::{container_resource, limits};
pub(crate) use scheduling::tolerations;

use crate::field::Field;
use crate::lens::{items_mut, put};
use crate::validate::{Problems, annotations, labels};

/// What a pod is told whose spec is frozen. Kubernetes adds a difference in Go's syntax.
const FROZEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Longest and most of what `resolv.conf` takes.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_BYTES_MAX: usize = 2048;
/// Longest host name, as in Linux.
const HOST_NAME_BYTES_MAX: usize = 64;
/// Largest number of seconds in an int32.
const SECONDS_MAX: i64 = i32::MAX as i64;

/// What a spec is part of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Pod,
    Template,
}

/// A pod that is to be created.
pub(super) fn created(pod: &Field<'_, '_>, problems: &mut Problems) {
    metadata_and_spec(pod, problems);
    let spec = pod.child("spec");
    let ephemeral = spec.child("ephemeralContainers");
    if !ephemeral.list().is_empty() {
        problems.forbidden(&ephemeral, "cannot be set on create");
    }
    let node = spec.child("nodeName");
    if !node.text().is_empty() && !spec.child("schedulingGates").list().is_empty() {
        let sentence = "cannot be set until all schedulingGates have been cleared";
        problems.forbidden(&node, sentence);
    }
}

pub(super) fn metadata_and_spec(pod: &Field<'_, '_>, problems: &mut Problems) {
    let spec = pod.child("spec");
    self::spec(
        &spec,
        Part::Pod,
        pod.child("metadata.name").text(),
        problems,
    );
    if spec.child("serviceAccountName").text().is_empty() {
        for volume in spec.items("volumes") {
            for source in volume.items("projected.sources") {
                let token = source.child("serviceAccountToken");
                if token.is_set() {
                    let sentence = "must not be specified when serviceAccountName is not set";
                    problems.forbidden(&token, sentence);
                }
            }
        }
    }
    problems.not_negative(&spec.child("terminationGracePeriodSeconds"));
    for list in ["containers", "initContainers"] {
        for container in spec.items(list) {
            containers::image_is_trimmed(&container, problems);
        }
    }
}

/// A pod template, as workloads have one.
pub(crate) fn template(template: &Field<'_, '_>, problems: &mut Problems) {
    // Kubernetes leaves `metadata` out of these two paths.
    labels(&template.child_as("metadata.labels", "labels"), problems);
    let own_annotations = template.child_as("metadata.annotations", "annotations");
    annotations(&own_annotations, problems);
    let spec = template.child("spec");
    self::spec(&spec, Part::Template, "", problems);
    let ephemeral = spec.child("ephemeralContainers");
    if !ephemeral.list().is_empty() {
        let sentence = "ephemeral containers not allowed in pod template";
        problems.forbidden(&ephemeral, sentence);
    }
}

/// `name` is the pod's, empty where it has none.
fn spec(spec: &Field<'_, '_>, part: Part, name: &str, problems: &mut Problems) {
    let grace = spec.child("terminationGracePeriodSeconds");
    if !grace.is_set() {
        problems.required(&grace, "");
    }
    let volumes = volumes::all(spec, name, problems);
    containers::regular(spec, &volumes, problems);
    containers::init(spec, &volumes, problems);
    containers::ephemeral(spec, &volumes, problems);
    resources::of_pod(spec, problems);
    containers::ports_of_host_network(spec, part == Part::Pod, problems);
    problems.required_one_of(
        &spec.child("restartPolicy"),
        &["Always", "OnFailure", "Never"],
    );
    problems.required_one_of(
        &spec.child("dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    labels(&spec.child("nodeSelector"), problems);
    security::of_pod(spec, problems);
    scheduling::affinity(&spec.child("affinity"), problems);
    dns_config(spec, problems);
    for gate in spec.items("readinessGates") {
        problems.rule(&gate.child("conditionType"), name::qualified_name_faults);
    }
    scheduling::gates(spec, problems);
    scheduling::spread(spec, problems);
    host_users(spec, problems);
    host_name_override(spec, problems);
    names(spec, problems);
    scheduling::tolerations(spec, problems);
    for alias in spec.items("hostAliases") {
        problems.ip_address(&alias.child("ip"));
        for host in alias.items("hostnames") {
            problems.rule(&host, name::dns1123_subdomain_faults);
        }
    }
    let class = spec.child("priorityClassName");
    if !class.text().is_empty() {
        problems.rule(&class, name::dns1123_subdomain_faults);
    }
    let runtime = spec.child("runtimeClassName");
    if runtime.is_set() {
        problems.rule(&runtime, name::dns1123_subdomain_faults);
    }
    let preemption = spec.child("preemptionPolicy");
    if preemption.is_set() {
        problems.required_one_of(&preemption, &["PreemptLowerPriority", "Never"]);
    }
    resources::of_overhead(spec, problems);
    let system = spec.child("os");
    if system.is_set() {
        problems.required_one_of(&system.child("name"), &["linux", "windows"]);
    }
    volumes::of_environment_files(spec, problems);
}

/// Names of other objects, and the pod's own on its network.
fn names(spec: &Field<'_, '_>, problems: &mut Problems) {
    let account = spec.child("serviceAccountName");
    if !account.text().is_empty() {
        problems.rule(&account, name::dns1123_subdomain_faults);
    }
    let former = spec.child_as("serviceAccount", "deprecatedServiceAccount");
    if former.text() != account.text() {
        let sentence = format!(
            "must be the same as serviceAccountName: {:?}",
            account.text()
        );
        problems.invalid(&former, former.text(), &sentence);
    }
    let node = spec.child("nodeName");
    if !node.text().is_empty() {
        problems.rule(&node, name::dns1123_subdomain_faults);
    }
    let deadline = spec.child("activeDeadlineSeconds");
    if deadline.is_set() {
        problems.in_range(&deadline, 1..=SECONDS_MAX);
    }
    for names in ["hostname", "subdomain"] {
        let label = spec.child(names);
        if !label.text().is_empty() {
            problems.rule(&label, name::dns1123_label_faults);
        }
    }
}

fn dns_config(spec: &Field<'_, '_>, problems: &mut Problems) {
    let config = spec.child("dnsConfig");
    let servers = config.child("nameservers");
    if spec.child("dnsPolicy").text() == "None" {
        if !config.is_set() {
            let sentence = "must provide `dnsConfig` when `dnsPolicy` is None";
            return problems.required(&config, sentence);
        }
        if servers.list().is_empty() {
            let sentence = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return problems.required(&servers, sentence);
        }
    }
    if servers.list().len() > NAMESERVERS_MAX {
        let sentence = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        problems.invalid(&servers, servers.shown(), &sentence);
    }
    for server in config.items("nameservers") {
        problems.ip_address(&server);
    }
    let searches = config.child("searches");
    if searches.list().len() > SEARCHES_MAX {
        let sentence = format!("must not have more than {SEARCHES_MAX} search paths");
        problems.invalid(&searches, searches.shown(), &sentence);
    }
    let lengths = searches
        .list()
        .iter()
        .filter_map(Value::as_str)
        .map(str::len);
    let bytes: usize = lengths.sum::<usize>() + searches.list().len().saturating_sub(1);
    if bytes > SEARCH_BYTES_MAX {
        let sentence = format!(
            "must not have more than {SEARCH_BYTES_MAX} characters (including spaces) in the search list"
        );
        problems.invalid(&searches, searches.shown(), &sentence);
    }
    for search in config
        .items("searches")
        .filter(|search| search.text() != ".")
    {
        let plain = search.text().strip_suffix('.').unwrap_or(search.text());
        // An underscore is allowed here, as it is in many names of services.
        for fault in name::dns1123_subdomain_faults(&plain.replace('_', "-")) {
            problems.invalid(&search, plain, &fault);
        }
    }
    for option in config.items("options") {
        if option.child("name").text().is_empty() {
            problems.required(&option, "must not be empty");
        }
    }
}

/// A pod with users of its own shares no namespace of the host.
fn host_users(spec: &Field<'_, '_>, problems: &mut Problems) {
    if spec.child("hostUsers").value() != Some(&Value::Bool(false)) {
        return;
    }
    const SENTENCE: &str = "when `hostUsers` is false";
    for (names, shown) in [
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ] {
        if spec.child(names).flag() {
            problems.forbidden(&spec.child(shown), SENTENCE);
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.items(list) {
            let devices = container.child("volumeDevices");
            if !devices.list().is_empty() {
                problems.forbidden(&devices, SENTENCE);
            }
        }
    }
}

fn host_name_override(spec: &Field<'_, '_>, problems: &mut Problems) {
    let host = spec.child("hostnameOverride");
    if !host.is_set() {
        return;
    }
    if spec.child("setHostnameAsFQDN").flag() {
        let sentence = "may not be specified when setHostnameAsFQDN is true";
        problems.forbidden(&host, sentence);
    }
    if spec.child("hostNetwork").flag() {
        problems.forbidden(&host, "may not be specified when hostNetwork is true");
    }
    if host.text().len() > HOST_NAME_BYTES_MAX {
        problems.too_long(&host, HOST_NAME_BYTES_MAX);
    }
    problems.rule(&host, name::dns1123_subdomain_faults);
}

/// An update of a pod: its spec is frozen but for some fields.
pub(super) fn updated(new: &Field<'_, '_>, old: &Field<'_, '_>, problems: &mut Problems) {
    metadata_and_spec(new, problems);
    let (new, old) = (new.child("spec"), old.child("spec"));
    for list in ["containers", "initContainers"] {
        let containers = new.child(list);
        if containers.list().len() != old.child(list).list().len() {
            let sentence = "pod updates may not add or remove containers";
            return problems.forbidden(&containers, sentence);
        }
    }
    let deadline = new.child("activeDeadlineSeconds");
    match (
        deadline.integer(),
        old.child("activeDeadlineSeconds").integer(),
    ) {
        (Some(seconds), _) if !(0..=SECONDS_MAX).contains(&seconds) => {
            return problems.in_range(&deadline, 0..=SECONDS_MAX);
        }
        (Some(seconds), Some(before)) if before < seconds => {
            let sentence = "must be less than or equal to previous value";
            return problems.invalid(&deadline, seconds, sentence);
        }
        (None, Some(_)) => {
            let sentence = "must not update from a positive integer to nil value";
            problems.invalid(&deadline, Value::Null, sentence);
        }
        _ => {}
    }
    scheduling::tolerations_only_added(&new, &old, problems);
    scheduling::gates_only_deleted(&new, &old, problems);
    let gated = !old.child("schedulingGates").list().is_empty();
    if gated {
        scheduling::only_narrowed(&new, &old, problems);
    }
    if frozen(&new, &old, gated) != frozen(&old, &old, gated) {
        problems.forbidden(&new, FROZEN);
    }
}

/// A pod that containers are added to, to look around: those that are there stay as they are.
pub(super) fn looked_into(new: &Field<'_, '_>, old: &Field<'_, '_>, problems: &mut Problems) {
    const LIST: &str = "ephemeralContainers";
    metadata_and_spec(new, problems);
    let (new, old) = (new.child("spec"), old.child("spec"));
    let path = new.child(LIST);
    for before in old.child(LIST).list() {
        let name = &before["name"];
        let after = path.list().iter().find(|after| after["name"] == *name);
        let sentence = match after {
            None => format!("existing ephemeral containers {name} may not be removed\n"),
            Some(after) if after != before => {
                format!("existing ephemeral containers {name} may not be changed\n")
            }
            Some(_) => continue,
        };
        problems.forbidden(&path, &sentence);
    }
}

/// What is left of a spec without the fields that may change.
fn frozen(spec: &Field<'_, '_>, old: &Field<'_, '_>, gated: bool) -> Value {
    let mut spec = spec.shown();
    for list in ["/containers", "/initContainers"] {
        for container in items_mut(&mut spec, list) {
            put(container, "image", None);
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        put(&mut spec, field, None);
    }
    if gated {
        put(&mut spec, "nodeSelector", None);
        if let Some(affinity) = spec.get_mut("affinity") {
            put(affinity, "nodeAffinity", None);
            if affinity.as_object().is_some_and(serde_json::Map::is_empty) {
                put(&mut spec, "affinity", None);
            }
        }
    }
    // A period that was negative may become one second, as which it is read.
    let before = old.child("terminationGracePeriodSeconds").integer();
    if before.is_some_and(|seconds| seconds < 0) && spec["terminationGracePeriodSeconds"] == 1 {
        spec["terminationGracePeriodSeconds"] = before.into();
    }
    spec
}
