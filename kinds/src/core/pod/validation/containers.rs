//! Containers: names, ports, environment, mounts.

use std::collections::BTreeSet;

use serde_json::Value;
use weft_api::name;

use super::volumes::{Volume, Volumes, descends, no_backsteps};
use super::{handlers, resources, security};
use crate::field::Field;
use crate::validate::Problems;

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
/// Rules of restarting, and codes in one of them.
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// The containers that run for as long as the pod does.
pub(super) fn regular(spec: &Field<'_, '_>, volumes: &Volumes, problems: &mut Problems) {
    let containers = spec.child("containers");
    if containers.list().is_empty() {
        return problems.required(&containers, "");
    }
    let mut names = BTreeSet::new();
    for container in spec.items("containers") {
        common(&container, spec, volumes, problems);
        let name = container.child("name");
        if !names.insert(name.text()) {
            problems.duplicate(&name, name.text());
        }
        handlers::all(&container, spec, problems);
        restart_policy(&container, problems);
    }
    let mut taken = BTreeSet::new();
    for container in spec.items("containers") {
        host_ports(&container, &mut taken, problems);
    }
}

/// The containers that run before, one after the other; with `restartPolicy: Always`, beside the others.
pub(super) fn init(spec: &Field<'_, '_>, volumes: &Volumes, problems: &mut Problems) {
    let regular = spec.child("containers").list().iter();
    let mut names: BTreeSet<&str> = regular.filter_map(name_of).collect();
    for container in spec.items("initContainers") {
        common(&container, spec, volumes, problems);
        let policy = container.child("restartPolicy");
        let rules = container.child("restartPolicyRules");
        if policy.is_set() || !rules.list().is_empty() {
            restart_policy(&container, problems);
        }
        let name = container.child("name");
        if names.contains(name.text()) {
            problems.duplicate(&name, name.text());
        } else if !name.text().is_empty() {
            names.insert(name.text());
        }
        host_ports(&container, &mut BTreeSet::new(), problems);
        let stays = policy.text() == "Always";
        if stays {
            handlers::all(&container, spec, problems);
        } else {
            for member in [
                "lifecycle",
                "livenessProbe",
                "readinessProbe",
                "startupProbe",
            ] {
                let member = container.child(member);
                if member.is_set() {
                    let sentence =
                        "may not be set for init containers without restartPolicy=Always";
                    problems.forbidden(&member, sentence);
                }
            }
            for resize in container.items("resizePolicy") {
                let policy = resize.child("restartPolicy");
                if policy.text() == "RestartContainer" {
                    let sentence =
                        "must not be set to 'RestartContainer' for non-sidecar initContainers";
                    problems.invalid(&policy, policy.text(), sentence);
                }
            }
        }
    }
}

/// Members that a container for looking around may not have.
const NOT_EPHEMERAL: &[&str] = &[
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

/// Containers that were added to look around.
pub(super) fn ephemeral(spec: &Field<'_, '_>, volumes: &Volumes, problems: &mut Problems) {
    let others = ["containers", "initContainers"].map(|list| spec.child(list).list());
    let others: BTreeSet<&str> = others.into_iter().flatten().filter_map(name_of).collect();
    let mut names = others.clone();
    const SENTENCE: &str = "cannot be set for an Ephemeral Container";
    for container in spec.items("ephemeralContainers") {
        common(&container, spec, volumes, problems);
        image_is_trimmed(&container, problems);
        let name = container.child("name");
        if !names.insert(name.text()) {
            problems.duplicate(&name, name.text());
        }
        let target = container.child("targetContainerName");
        if !target.text().is_empty() && !others.contains(target.text()) {
            problems.not_found(&target, target.text());
        }
        for member in NOT_EPHEMERAL {
            let member = container.child(member);
            if member.is_set() && !member.is_empty() {
                problems.forbidden(&member, SENTENCE);
            }
        }
        for mount in container.items("volumeMounts") {
            for path in ["subPath", "subPathExpr"] {
                let path = mount.child(path);
                if !path.text().is_empty() {
                    problems.forbidden(&path, SENTENCE);
                }
            }
        }
    }
}

fn name_of(container: &Value) -> Option<&str> {
    container.get("name").and_then(Value::as_str)
}

pub(super) fn image_is_trimmed(container: &Field<'_, '_>, problems: &mut Problems) {
    let image = container.child("image");
    if image.text().trim() != image.text() {
        let sentence = "must not have leading or trailing whitespace";
        problems.invalid(&image, image.text(), sentence);
    }
}

fn common(
    container: &Field<'_, '_>,
    spec: &Field<'_, '_>,
    volumes: &Volumes,
    problems: &mut Problems,
) {
    problems.required_rule(&container.child("name"), name::dns1123_label_faults);
    problems.required_text(&container.child("image"));
    problems.required_one_of(
        &container.child("terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
    );
    ports(container, problems);
    environment(container, problems);
    mounts(container, volumes, problems);
    devices(container, volumes, problems);
    problems.required_one_of(
        &container.child("imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
    );
    resources::of_container(&container.child("resources"), problems);
    resize_policy(container, spec, problems);
    security::of_container(container, spec, problems);
}

fn ports(container: &Field<'_, '_>, problems: &mut Problems) {
    let mut names = BTreeSet::new();
    for port in container.items("ports") {
        let own_name = port.child("name");
        if !own_name.text().is_empty() {
            let faults = name::port_name_faults(own_name.text());
            if !faults.is_empty() {
                problems.rule(&own_name, name::port_name_faults);
            } else if !names.insert(own_name.text()) {
                problems.duplicate(&own_name, own_name.text());
            }
        }
        let number = port.child("containerPort");
        match number.integer() {
            None | Some(0) => problems.required(&number, ""),
            Some(_) => problems.port(&number),
        }
        let of_host = port.child("hostPort");
        if of_host.integer().is_some_and(|port| port != 0) {
            problems.port(&of_host);
        }
        problems.required_one_of(&port.child("protocol"), PROTOCOLS);
    }
}

fn host_ports(container: &Field<'_, '_>, taken: &mut BTreeSet<String>, problems: &mut Problems) {
    for port in container.items("ports") {
        let of_host = port.child("hostPort");
        let Some(number) = of_host.integer().filter(|number| *number != 0) else {
            continue;
        };
        let protocol = port.child("protocol").text();
        let address = port.child("hostIP").text();
        let claimed = format!("{protocol}/{address}/{number}");
        if !taken.insert(claimed.clone()) {
            problems.duplicate(&of_host, claimed);
        }
    }
}

/// On the host's network a container's port is the host's.
pub(super) fn ports_of_host_network(spec: &Field<'_, '_>, in_pod: bool, problems: &mut Problems) {
    if !spec.child("hostNetwork").flag() {
        return;
    }
    for container in spec.items("containers") {
        for port in container.items("ports") {
            let of_host = port.child("hostPort");
            let number = of_host.integer().unwrap_or(0);
            let own = port.child("containerPort").integer().unwrap_or(0);
            if (in_pod || number != 0) && number != own {
                let sentence = "must match `containerPort` when `hostNetwork` is true";
                problems.invalid(&of_host, number, sentence);
            }
        }
    }
}

/// What a variable may take from the pod.
const POD_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn environment(container: &Field<'_, '_>, problems: &mut Problems) {
    for variable in container.items("env") {
        problems.required_rule(&variable.child("name"), name::env_name_faults);
        let from = variable.child("valueFrom");
        if from.is_set() {
            value_from(&variable, &from, problems);
        }
    }
    let all_from = container.child("envFrom");
    for from in container.items("envFrom") {
        let prefix = from.child("prefix");
        if !prefix.text().is_empty() {
            problems.rule(&prefix, name::env_name_faults);
        }
        let mut sources = 0;
        for source in ["configMapRef", "secretRef"] {
            let source = from.child(source);
            if source.is_set() {
                sources += 1;
                problems.required_rule(&source.child("name"), name::dns1123_subdomain_faults);
            }
        }
        match sources {
            0 => {
                let sentence = "must specify one of: `configMapRef` or `secretRef`";
                problems.invalid(&all_from, "", sentence);
            }
            1 => {}
            _ => {
                let sentence = "may not have more than one field specified at a time";
                problems.invalid(&all_from, "", sentence);
            }
        }
    }
}

fn value_from(variable: &Field<'_, '_>, from: &Field<'_, '_>, problems: &mut Problems) {
    let mut sources = 0;
    let reference = from.child("fieldRef");
    if reference.is_set() {
        sources += 1;
        pod_field(&reference, POD_FIELDS, problems);
    }
    let reference = from.child("resourceFieldRef");
    if reference.is_set() {
        sources += 1;
        resource_field(&reference, false, problems);
    }
    for reference in ["configMapKeyRef", "secretKeyRef"] {
        let reference = from.child(reference);
        if reference.is_set() {
            sources += 1;
            problems.rule(&reference.child("name"), name::dns1123_subdomain_faults);
            problems.required_rule(&reference.child("key"), name::config_key_faults);
        }
    }
    let reference = from.child("fileKeyRef");
    if reference.is_set() {
        sources += 1;
        problems.required_rule(&reference.child("key"), name::env_name_faults);
        problems.required_rule(&reference.child("volumeName"), name::dns1123_label_faults);
        let path = reference.child("path");
        problems.required_text(&path);
        no_backsteps(&path, problems);
    }
    if sources == 0 {
        let sentence = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        problems.invalid(from, "", sentence);
    } else if !variable.child("value").text().is_empty() {
        let sentence = "may not be specified when `value` is not empty";
        problems.invalid(from, "", sentence);
    } else if sources > 1 {
        let sentence = "may not have more than one field specified at a time";
        problems.invalid(from, "", sentence);
    }
}

/// Labels of fields of a pod that may be named, beyond those of one use.
const CONVERTIBLE: &[&str] = &["metadata.annotations", "metadata.labels"];

/// A field of the pod itself; labels and annotations by key.
pub(super) fn pod_field(reference: &Field<'_, '_>, supported: &[&str], problems: &mut Problems) {
    let version = reference.child("apiVersion");
    if version.text().is_empty() {
        return problems.required(&version, "");
    }
    let path = reference.child("fieldPath");
    if path.text().is_empty() {
        return problems.required(&path, "");
    }
    let subscripted = path
        .text()
        .strip_suffix("']")
        .and_then(|text| text.split_once("['"));
    let plain = subscripted.map_or(path.text(), |(plain, _)| plain);
    if version.text() != "v1" {
        let sentence = format!(
            "error converting fieldPath: unsupported pod version: {}",
            version.text()
        );
        return problems.invalid(&path, path.text(), &sentence);
    }
    let known = CONVERTIBLE.contains(&plain)
        || POD_FIELDS.contains(&plain)
        || ["spec.restartPolicy", "spec.schedulerName", "status.phase"].contains(&plain);
    if !known {
        let sentence = format!("error converting fieldPath: field label not supported: {plain}");
        return problems.invalid(&path, path.text(), &sentence);
    }
    match (subscripted, plain) {
        (Some((_, key)), "metadata.annotations") => {
            for fault in name::qualified_name_faults(&key.to_lowercase()) {
                problems.invalid(reference, key.to_lowercase(), &fault);
            }
        }
        (Some((_, key)), "metadata.labels") => {
            for fault in name::qualified_name_faults(key) {
                problems.invalid(reference, key, &fault);
            }
        }
        (Some(_), plain) => problems.invalid(reference, plain, "does not support subscript"),
        (None, _) => problems.one_of(&path, supported),
    }
}

const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const DIVISORS_OF_CPU: &[&str] = &["1m", "1"];
const DIVISORS_OF_BYTES: &[&str] = &[
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

/// A limit or request of a container; in a volume it has to say of which.
pub(super) fn resource_field(reference: &Field<'_, '_>, in_volume: bool, problems: &mut Problems) {
    let container = reference.child("containerName");
    let resource = reference.child("resource");
    let huge = ["limits.hugepages-", "requests.hugepages-"]
        .iter()
        .any(|prefix| resource.text().starts_with(prefix));
    if in_volume && container.text().is_empty() {
        problems.required(&container, "");
    } else if resource.text().is_empty() {
        problems.required(&resource, "");
    } else if !huge {
        problems.one_of(&resource, RESOURCE_FIELDS);
    }
    let divisor = reference.child("divisor");
    let Some(quantity) = divisor.quantity().filter(|quantity| !quantity.is_zero()) else {
        return;
    };
    const BYTES: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
    let (supported, of) = match resource.text() {
        "limits.cpu" | "requests.cpu" => (DIVISORS_OF_CPU, "cpu"),
        "limits.memory" | "requests.memory" => (DIVISORS_OF_BYTES, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => {
            (DIVISORS_OF_BYTES, "local ephemeral storage")
        }
        _ if huge => (DIVISORS_OF_BYTES, "hugepages"),
        _ => return,
    };
    if !supported.contains(&quantity.to_string().as_str()) {
        let listed = if of == "cpu" { "1m and 1" } else { BYTES };
        let sentence =
            format!("only divisor's values {listed} are supported with the {of} resource");
        problems.invalid(&divisor, resource.text(), &sentence);
    }
}

fn mounts(container: &Field<'_, '_>, volumes: &Volumes, problems: &mut Problems) {
    let all = container.child("volumeMounts");
    let devices = container.child("volumeDevices").list();
    let device = |member: &str, value: &str| {
        let mut members = devices.iter().filter_map(|device| device.get(member));
        members.any(|found| found == value)
    };
    let mut paths = BTreeSet::new();
    for mount in container.items("volumeMounts") {
        let name = mount.child("name");
        problems.required_text(&name);
        let volume = volumes.get(name.text());
        if volume.is_none() {
            problems.not_found(&name, name.text());
        }
        let path = mount.child("mountPath");
        problems.required_text(&path);
        if !paths.insert(path.text()) {
            problems.invalid(&path, path.text(), "must be unique");
        }
        if device("name", name.text()) {
            let sentence = "must not already exist in volumeDevices";
            problems.invalid(&name, name.text(), sentence);
        }
        if device("devicePath", path.text()) {
            let sentence = "must not already exist as a path in volumeDevices";
            problems.invalid(&path, path.text(), sentence);
        }
        let (plain, expanded) = (mount.child("subPath"), mount.child("subPathExpr"));
        descends(&all.child("subPath"), plain.text(), problems);
        if !expanded.text().is_empty() && !plain.text().is_empty() {
            let sentence = "subPathExpr and subPath are mutually exclusive";
            problems.invalid(&expanded, expanded.text(), sentence);
        }
        descends(&all.child("subPathExpr"), expanded.text(), problems);
        propagation(container, &all, &mount, problems);
        bind_options(&mount, volume, problems);
    }
}

fn propagation(
    container: &Field<'_, '_>,
    all: &Field<'_, '_>,
    mount: &Field<'_, '_>,
    problems: &mut Problems,
) {
    let spreads = mount.child("mountPropagation");
    // Kubernetes leaves the index out of these paths.
    let shown = all.child("mountPropagation");
    if spreads.is_set() {
        problems.one_of_as(
            &shown,
            spreads.text(),
            &["Bidirectional", "HostToContainer", "None"],
        );
        let privileged = container.child("securityContext.privileged").flag();
        if spreads.text() == "Bidirectional" && !privileged {
            let sentence =
                "Bidirectional mount propagation is available only to privileged containers";
            problems.forbidden(&shown, sentence);
        }
    }
    let recursive = mount.child("recursiveReadOnly");
    let shown = all.child("recursiveReadOnly");
    match recursive.text() {
        "Enabled" | "IfPossible" => {
            if !mount.child("readOnly").flag() {
                problems.forbidden(&shown, "may only be specified when readOnly is true");
            }
            if spreads.is_set() && spreads.text() != "None" {
                let sentence =
                    "may only be specified when mountPropagation is None or not specified";
                problems.forbidden(&shown, sentence);
            }
        }
        _ if !recursive.is_set() => {}
        other => problems.one_of_as(&shown, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn bind_options(mount: &Field<'_, '_>, volume: Option<&Volume>, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for option in mount.items("bindMountOptions") {
        problems.one_of(&option, &["nodev", "noexec", "nosuid"]);
        if !seen.insert(option.text()) {
            problems.duplicate(&option, option.text());
        }
    }
    let options = mount.child("bindMountOptions");
    if !options.list().is_empty() && volume == Some(&Volume::Image) {
        let sentence = "bindMountOptions may not be used with image volumes";
        problems.invalid(&options, options.shown(), sentence);
    }
}

fn devices(container: &Field<'_, '_>, volumes: &Volumes, problems: &mut Problems) {
    let mounts = container.child("volumeMounts").list();
    let mounted = |member: &str, value: &str| {
        let mut members = mounts.iter().filter_map(|mount| mount.get(member));
        members.any(|found| found == value)
    };
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for device in container.items("volumeDevices") {
        let (name, path) = (device.child("name"), device.child("devicePath"));
        problems.required_text(&name);
        if !name.text().is_empty() && !names.insert(name.text()) {
            problems.invalid(&name, name.text(), "must be unique");
        }
        match volumes.get(name.text()) {
            Some(Volume::Claim) => {}
            Some(_) => {
                let sentence = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                problems.invalid(&name, name.text(), sentence);
            }
            None => problems.not_found(&name, name.text()),
        }
        problems.required_text(&path);
        if paths.contains(path.text()) {
            problems.invalid(&path, path.text(), "must be unique");
        }
        if path.text().split('/').any(|part| part == "..") {
            let sentence = "can not contain backsteps ('..')";
            problems.invalid(&path, path.text(), sentence);
        } else {
            paths.insert(path.text());
        }
        if mounted("name", name.text()) {
            let sentence = "must not already exist in volumeMounts";
            problems.invalid(&name, name.text(), sentence);
        }
        if mounted("mountPath", path.text()) {
            let sentence = "must not already exist as a path in volumeMounts";
            problems.invalid(&path, path.text(), sentence);
        }
    }
}

fn resize_policy(container: &Field<'_, '_>, spec: &Field<'_, '_>, problems: &mut Problems) {
    let all = container.child("resizePolicy");
    let never = spec.child("restartPolicy").text() == "Never";
    let mut resources = BTreeSet::new();
    for resize in container.items("resizePolicy") {
        let resource = resize.child("resourceName").text();
        if !resources.insert(resource) {
            problems.duplicate(&resize, resource);
        }
        match resource {
            "" => problems.required(&all, ""),
            other => problems.one_of_as(&all, other, &["cpu", "memory"]),
        }
        let policy = resize.child("restartPolicy").text();
        match policy {
            "" => problems.required(&all, ""),
            other => problems.one_of_as(&all, other, &["NotRequired", "RestartContainer"]),
        }
        if never && policy != "NotRequired" {
            let sentence = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            problems.invalid(&all, policy, sentence);
        }
    }
}

fn restart_policy(container: &Field<'_, '_>, problems: &mut Problems) {
    let policy = container.child("restartPolicy");
    let rules = container.child("restartPolicyRules");
    if !policy.is_set() {
        if rules.list().is_empty() {
            return;
        }
        let sentence = "must specify restartPolicy when restart rules are used";
        problems.required(&policy, sentence);
    } else {
        problems.one_of(&policy, &["Always", "Never", "OnFailure"]);
    }
    if rules.list().len() > RESTART_RULES_MAX {
        problems.too_many(&rules, rules.list().len(), RESTART_RULES_MAX);
    }
    for rule in container.items("restartPolicyRules") {
        let action = rule.child("action");
        problems.one_of_as(&action, action.text(), &["Restart", "RestartAllContainers"]);
        let codes = rule.child("exitCodes");
        if !codes.is_set() {
            problems.required(&codes, "must be specified");
            continue;
        }
        let operator = codes.child("operator");
        problems.one_of_as(&operator, operator.text(), &["In", "NotIn"]);
        let values = codes.child("values");
        if values.list().len() > EXIT_CODES_MAX {
            problems.too_many(&values, values.list().len(), EXIT_CODES_MAX);
        }
    }
}
