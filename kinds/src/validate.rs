//! The rules an object must keep, kind by kind, in the words of Kubernetes.
//!
//! Pure: the defaulted object and, on update, the stored one; out come causes, each with its field. All
//! problems are reported at once. Shapes and types are the schema's business, so a wrong type is treated as
//! absent here. What depends on other objects is in `admission`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;

use serde_json::{Value, json};
use weft_api::image::ImageReference;
use weft_api::name;
use weft_api::selector::LabelSelector;
use weft_api::status::{Cause, StatusError};

use crate::defaults::quantity_of;
use crate::lens::{integer, items, object, text};
use crate::{Kind, NameRule};

/// Annotations of one object, keys and values together.
const ANNOTATION_BYTES_MAX: usize = 256 << 10;
/// Data of one ConfigMap or Secret.
const DATA_BYTES_MAX: usize = 1 << 20;

/// Causes gathered so far.
#[derive(Debug, Default)]
pub struct Problems {
    causes: Vec<Cause>,
}

impl Problems {
    pub fn add(&mut self, cause: Cause) {
        self.causes.push(cause);
    }

    fn required(&mut self, field: &str, detail: &str) {
        self.add(Cause::required(field, detail));
    }

    fn invalid(&mut self, field: &str, value: impl Into<Value>, detail: &str) {
        self.add(Cause::invalid(field, &value.into(), detail));
    }

    fn rule(&mut self, field: &str, value: &str, outcome: Result<(), String>) {
        if let Err(sentence) = outcome {
            self.invalid(field, value, &sentence);
        }
    }

    fn one_of(&mut self, field: &str, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            self.add(Cause::not_supported(field, &value.into(), supported));
        }
    }

    fn not_negative(&mut self, field: &str, value: Option<i64>) {
        if let Some(value) = value.filter(|value| *value < 0) {
            self.invalid(field, value, "must be greater than or equal to 0");
        }
    }

    fn port(&mut self, field: &str, value: Option<i64>) {
        match value {
            Some(1..=65535) => {}
            Some(value) => self.invalid(field, value, "must be between 1 and 65535, inclusive"),
            None => self.required(field, ""),
        }
    }

    /// A field that may not change once set.
    fn immutable(&mut self, field: &str, pointer: &str, new: &Value, old: &Value) {
        let (new, old) = (new.pointer(pointer), old.pointer(pointer));
        if new.unwrap_or(&Value::Null) != old.unwrap_or(&Value::Null) {
            self.invalid(
                field,
                new.cloned().unwrap_or(Value::Null),
                "field is immutable",
            );
        }
    }

    /// # Errors
    /// 422 Invalid when there is any cause.
    pub fn into_result(self, kind: &Kind, name: &str) -> Result<(), StatusError> {
        if self.causes.is_empty() {
            Ok(())
        } else {
            Err(StatusError::invalid(
                kind.kind,
                kind.group,
                name,
                self.causes,
            ))
        }
    }
}

/// Everything that must hold: metadata, then the kind's own rules.
///
/// # Errors
/// 422 Invalid with every cause.
pub fn object_of(kind: &Kind, new: &Value, old: Option<&Value>) -> Result<(), StatusError> {
    let mut problems = Problems::default();
    metadata(kind, new, &mut problems);
    (kind.validate)(new, old, &mut problems);
    problems.into_result(kind, text(new, "/metadata/name"))
}

fn metadata(kind: &Kind, value: &Value, problems: &mut Problems) {
    let own_name = text(value, "/metadata/name");
    if own_name.is_empty() {
        problems.required("metadata.name", "name or generateName is required");
    } else {
        let outcome = match kind.name_rule {
            NameRule::Subdomain => name::dns1123_subdomain(own_name),
            NameRule::Label => name::dns1123_label(own_name),
            NameRule::Dns1035Label => name::dns1035_label(own_name),
            NameRule::PathSegment => name::path_segment(own_name),
        };
        problems.rule("metadata.name", own_name, outcome);
    }
    labels(value, "/metadata/labels", "metadata.labels", problems);
    let mut annotation_bytes = 0;
    for (key, value) in object(value, "/metadata/annotations").into_iter().flatten() {
        problems.rule(
            "metadata.annotations",
            key,
            name::qualified_name(&key.to_lowercase()),
        );
        annotation_bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if annotation_bytes > ANNOTATION_BYTES_MAX {
        problems.add(Cause::too_long(
            "metadata.annotations",
            ANNOTATION_BYTES_MAX,
        ));
    }
    for (index, finalizer) in items(value, "/metadata/finalizers").iter().enumerate() {
        let finalizer = finalizer.as_str().unwrap_or("");
        let field = format!("metadata.finalizers[{index}]");
        problems.rule(&field, finalizer, name::qualified_name(finalizer));
    }
    let mut controllers = Vec::new();
    for (index, owner) in items(value, "/metadata/ownerReferences").iter().enumerate() {
        let field = format!("metadata.ownerReferences[{index}]");
        for (member, sentence) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text(owner, &format!("/{member}")).is_empty() {
                problems.invalid(&format!("{field}.{member}"), "", sentence);
            }
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            controllers.push(text(owner, "/name").to_owned());
        }
    }
    if controllers.len() > 1 {
        problems.invalid(
            "metadata.ownerReferences",
            value
                .pointer("/metadata/ownerReferences")
                .cloned()
                .unwrap_or_default(),
            &format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {}",
                controllers.join(" and ")
            ),
        );
    }
}

fn labels(value: &Value, pointer: &str, field: &str, problems: &mut Problems) {
    for (key, value) in object(value, pointer).into_iter().flatten() {
        problems.rule(field, key, name::qualified_name(key));
        match value.as_str() {
            Some(value) => problems.rule(field, value, name::label_value(value)),
            None => problems.invalid(field, value.clone(), "must be a string"),
        }
    }
}

/// For kinds whose metadata is all there is to judge.
pub fn nothing(_: &Value, _: Option<&Value>, _: &mut Problems) {}

pub fn namespace(_: &Value, _: Option<&Value>, _: &mut Problems) {}

pub fn node(new: &Value, old: Option<&Value>, problems: &mut Problems) {
    for (index, taint) in items(new, "/spec/taints").iter().enumerate() {
        let field = format!("spec.taints[{index}]");
        let key = text(taint, "/key");
        problems.rule(&format!("{field}.key"), key, name::qualified_name(key));
        problems.one_of(
            &format!("{field}.effect"),
            text(taint, "/effect"),
            &["NoSchedule", "PreferNoSchedule", "NoExecute"],
        );
    }
    // A node keeps its address range for life: pods hold addresses from it.
    if let Some(old) = old
        && !text(old, "/spec/podCIDR").is_empty()
        && text(old, "/spec/podCIDR") != text(new, "/spec/podCIDR")
    {
        problems.add(Cause::forbidden(
            "spec.podCIDR",
            "node updates may not change podCIDR except from \"\" to valid",
        ));
    }
}

pub fn pod(new: &Value, old: Option<&Value>, problems: &mut Problems) {
    let Some(old) = old else {
        pod_spec(new.get("spec"), "spec", problems);
        return;
    };
    if pod_spec_is_frozen(new) != pod_spec_is_frozen(old) {
        problems.add(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to existing tolerations), `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        ));
        return;
    }
    // How long a toleration holds may change, the rest of it not.
    let lasting = |toleration: &Value| {
        let mut toleration = toleration.clone();
        crate::lens::put(&mut toleration, "tolerationSeconds", None);
        toleration
    };
    let kept = items(old, "/spec/tolerations").iter().map(lasting);
    let now: Vec<Value> = items(new, "/spec/tolerations")
        .iter()
        .map(lasting)
        .collect();
    if !kept.into_iter().all(|toleration| now.contains(&toleration)) {
        problems.add(Cause::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
    for (list, field) in [
        ("/spec/containers", "spec.containers"),
        ("/spec/initContainers", "spec.initContainers"),
    ] {
        for (index, container) in items(new, list).iter().enumerate() {
            image(container, &format!("{field}[{index}]"), problems);
        }
    }
}

/// What is left of a pod spec without the fields that may change.
fn pod_spec_is_frozen(pod: &Value) -> Value {
    let mut spec = pod.get("spec").cloned().unwrap_or_default();
    for list in ["/containers", "/initContainers"] {
        for container in crate::lens::items_mut(&mut spec, list) {
            crate::lens::put(container, "image", None);
            // Follows from the image when it was defaulted.
            crate::lens::put(container, "imagePullPolicy", None);
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations"] {
        crate::lens::put(&mut spec, field, None);
    }
    spec
}

fn pod_spec(spec: Option<&Value>, path: &str, problems: &mut Problems) {
    let Some(spec) = spec.filter(|spec| spec.is_object()) else {
        problems.required(&format!("{path}.containers"), "");
        return;
    };
    let volumes = volumes(spec, path, problems);
    let mut names = BTreeSet::new();
    if items(spec, "/containers").is_empty() {
        problems.required(&format!("{path}.containers"), "");
    }
    for (pointer, list) in [
        ("/initContainers", "initContainers"),
        ("/containers", "containers"),
    ] {
        for (index, container) in items(spec, pointer).iter().enumerate() {
            let field = format!("{path}.{list}[{index}]");
            self::container(container, &field, &volumes, problems);
            let own_name = text(container, "/name");
            if !own_name.is_empty() && !names.insert(own_name.to_owned()) {
                problems.add(Cause::duplicate(&format!("{field}.name"), &own_name.into()));
            }
        }
    }
    problems.one_of(
        &format!("{path}.restartPolicy"),
        text(spec, "/restartPolicy"),
        &["Always", "OnFailure", "Never"],
    );
    problems.one_of(
        &format!("{path}.dnsPolicy"),
        text(spec, "/dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    problems.not_negative(
        &format!("{path}.terminationGracePeriodSeconds"),
        integer(spec, "/terminationGracePeriodSeconds"),
    );
    if let Some(seconds) = integer(spec, "/activeDeadlineSeconds").filter(|seconds| *seconds < 1) {
        problems.invalid(
            &format!("{path}.activeDeadlineSeconds"),
            seconds,
            "must be between 1 and 2147483647, inclusive",
        );
    }
    for (pointer, field) in [
        ("/serviceAccountName", "serviceAccountName"),
        ("/nodeName", "nodeName"),
    ] {
        let value = text(spec, pointer);
        if !value.is_empty() {
            problems.rule(
                &format!("{path}.{field}"),
                value,
                name::dns1123_subdomain(value),
            );
        }
    }
    labels(
        spec,
        "/nodeSelector",
        &format!("{path}.nodeSelector"),
        problems,
    );
    for (index, toleration) in items(spec, "/tolerations").iter().enumerate() {
        let field = format!("{path}.tolerations[{index}]");
        let (key, operator) = (text(toleration, "/key"), text(toleration, "/operator"));
        if key.is_empty() && operator != "Exists" {
            problems.invalid(
                &format!("{field}.operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if !matches!(operator, "" | "Equal" | "Exists") {
            problems.one_of(&format!("{field}.operator"), operator, &["Equal", "Exists"]);
        }
    }
}

fn volumes(spec: &Value, path: &str, problems: &mut Problems) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (index, volume) in items(spec, "/volumes").iter().enumerate() {
        let field = format!("{path}.volumes[{index}]");
        let own_name = text(volume, "/name");
        if own_name.is_empty() {
            problems.required(&format!("{field}.name"), "");
        } else {
            problems.rule(
                &format!("{field}.name"),
                own_name,
                name::dns1123_label(own_name),
            );
            if !names.insert(own_name.to_owned()) {
                problems.add(Cause::duplicate(&format!("{field}.name"), &own_name.into()));
            }
        }
        let sources = volume
            .as_object()
            .map_or(0, |map| map.keys().filter(|key| *key != "name").count());
        if sources > 1 {
            problems.add(Cause::forbidden(
                &field,
                "may not specify more than 1 volume type",
            ));
        }
    }
    names
}

fn image(container: &Value, field: &str, problems: &mut Problems) {
    let image = text(container, "/image");
    let field = format!("{field}.image");
    if image.is_empty() {
        problems.required(&field, "");
    } else if image.trim() != image {
        problems.invalid(
            &field,
            image,
            "must not have leading or trailing whitespace",
        );
    } else if let Err(error) = ImageReference::from_str(image) {
        problems.invalid(&field, image, &error.to_string());
    }
}

fn container(container: &Value, field: &str, volumes: &BTreeSet<String>, problems: &mut Problems) {
    let own_name = text(container, "/name");
    if own_name.is_empty() {
        problems.required(&format!("{field}.name"), "");
    } else {
        problems.rule(
            &format!("{field}.name"),
            own_name,
            name::dns1123_label(own_name),
        );
    }
    image(container, field, problems);
    problems.one_of(
        &format!("{field}.imagePullPolicy"),
        text(container, "/imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
    );
    let mut port_names = BTreeSet::new();
    for (index, port) in items(container, "/ports").iter().enumerate() {
        let field = format!("{field}.ports[{index}]");
        problems.port(
            &format!("{field}.containerPort"),
            integer(port, "/containerPort"),
        );
        protocol(port, &field, problems);
        let own_name = text(port, "/name");
        if !own_name.is_empty() {
            problems.rule(&format!("{field}.name"), own_name, port_name(own_name));
            if !port_names.insert(own_name) {
                problems.add(Cause::duplicate(&format!("{field}.name"), &own_name.into()));
            }
        }
    }
    for (index, variable) in items(container, "/env").iter().enumerate() {
        let field = format!("{field}.env[{index}]");
        let own_name = text(variable, "/name");
        if own_name.is_empty() {
            problems.required(&format!("{field}.name"), "");
        } else {
            problems.rule(&format!("{field}.name"), own_name, name::env_name(own_name));
        }
        if !text(variable, "/value").is_empty() && variable.get("valueFrom").is_some() {
            problems.invalid(
                &format!("{field}.valueFrom"),
                "",
                "may not be specified when `value` is not empty",
            );
        }
    }
    for (index, mount) in items(container, "/volumeMounts").iter().enumerate() {
        let field = format!("{field}.volumeMounts[{index}]");
        let volume = text(mount, "/name");
        if volume.is_empty() {
            problems.required(&format!("{field}.name"), "");
        } else if !volumes.contains(volume) {
            problems.add(Cause::not_found(&format!("{field}.name"), &volume.into()));
        }
        if text(mount, "/mountPath").is_empty() {
            problems.required(&format!("{field}.mountPath"), "");
        }
    }
    resources(container, field, problems);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(value) = container.get(probe).filter(|value| value.is_object()) {
            self::probe(value, &format!("{field}.{probe}"), probe, problems);
        }
    }
}

fn port_name(text: &str) -> Result<(), String> {
    if text.len() > 15 {
        return Err("must be no more than 15 characters".to_owned());
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err("must contain at least one letter (a-z)".to_owned());
    }
    name::dns1123_label(text)
}

fn protocol(port: &Value, field: &str, problems: &mut Problems) {
    problems.one_of(
        &format!("{field}.protocol"),
        text(port, "/protocol"),
        &["SCTP", "TCP", "UDP"],
    );
}

fn resources(container: &Value, field: &str, problems: &mut Problems) {
    for side in ["limits", "requests"] {
        for (resource, value) in object(container, &format!("/resources/{side}"))
            .into_iter()
            .flatten()
        {
            let field = format!("{field}.resources.{side}[{resource}]");
            match quantity_of(value) {
                None => problems.invalid(
                    &field,
                    value.clone(),
                    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                ),
                Some(quantity) if quantity.is_negative() => problems.invalid(
                    &field,
                    value.clone(),
                    "must be greater than or equal to 0",
                ),
                Some(_) => {}
            }
        }
    }
    for (resource, request) in object(container, "/resources/requests")
        .into_iter()
        .flatten()
    {
        let limit = object(container, "/resources/limits").and_then(|limits| limits.get(resource));
        if let (Some(request_amount), Some(limit)) =
            (quantity_of(request), limit.and_then(quantity_of))
            && request_amount > limit
        {
            problems.invalid(
                &format!("{field}.resources.requests"),
                request.clone(),
                &format!("must be less than or equal to {resource} limit of {limit}"),
            );
        }
    }
}

fn probe(probe: &Value, field: &str, kind: &str, problems: &mut Problems) {
    let handlers: Vec<&str> = ["exec", "httpGet", "tcpSocket", "grpc"]
        .into_iter()
        .filter(|handler| probe.get(*handler).is_some_and(|value| !value.is_null()))
        .collect();
    match handlers.as_slice() {
        [] => problems.required(field, "must specify a handler type"),
        [_] => {}
        [_, rest @ ..] => {
            for handler in rest {
                problems.add(Cause::forbidden(
                    &format!("{field}.{handler}"),
                    "may not specify more than 1 handler type",
                ));
            }
        }
    }
    for number in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        problems.not_negative(
            &format!("{field}.{number}"),
            integer(probe, &format!("/{number}")),
        );
    }
    if kind != "readinessProbe" && integer(probe, "/successThreshold").is_some_and(|n| n != 1) {
        problems.invalid(
            &format!("{field}.successThreshold"),
            integer(probe, "/successThreshold").unwrap_or(0),
            "must be 1",
        );
    }
    for handler in ["httpGet", "tcpSocket"] {
        if let Some(port) = probe.pointer(&format!("/{handler}/port")) {
            let field = format!("{field}.{handler}.port");
            match port {
                Value::String(port) => problems.rule(&field, port, port_name(port)),
                port => problems.port(&field, port.as_i64()),
            }
        }
    }
}

pub fn deployment(new: &Value, old: Option<&Value>, problems: &mut Problems) {
    workload(new, old, problems);
    problems.not_negative(
        "spec.minReadySeconds",
        integer(new, "/spec/minReadySeconds"),
    );
    problems.not_negative(
        "spec.revisionHistoryLimit",
        integer(new, "/spec/revisionHistoryLimit"),
    );
    let deadline = integer(new, "/spec/progressDeadlineSeconds");
    problems.not_negative("spec.progressDeadlineSeconds", deadline);
    if let (Some(deadline), Some(min_ready)) = (deadline, integer(new, "/spec/minReadySeconds"))
        && deadline <= min_ready
    {
        problems.invalid(
            "spec.progressDeadlineSeconds",
            deadline,
            "must be greater than minReadySeconds",
        );
    }
    let strategy = text(new, "/spec/strategy/type");
    problems.one_of(
        "spec.strategy.type",
        strategy,
        &["Recreate", "RollingUpdate"],
    );
    let rolling = new.pointer("/spec/strategy/rollingUpdate");
    if strategy == "Recreate" && rolling.is_some_and(|rolling| !rolling.is_null()) {
        problems.add(Cause::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        ));
    }
    if let (Some(rolling), "RollingUpdate") = (rolling, strategy) {
        let mut zeros = 0;
        for member in ["maxUnavailable", "maxSurge"] {
            let field = format!("spec.strategy.rollingUpdate.{member}");
            let value = rolling.get(member).cloned().unwrap_or_default();
            match amount_or_percent(&value) {
                Some(amount) if amount < 0 => {
                    problems.invalid(&field, value, "must be greater than or equal to 0");
                }
                Some(amount) if member == "maxUnavailable" && value.is_string() && amount > 100 => {
                    problems.invalid(&field, value, "must not be greater than 100%");
                }
                Some(amount) => zeros += i32::from(amount == 0),
                None => problems.invalid(
                    &field,
                    value,
                    "must be an integer or percentage (e.g '5%%')",
                ),
            }
        }
        if zeros == 2 {
            problems.invalid(
                "spec.strategy.rollingUpdate.maxUnavailable",
                rolling.get("maxUnavailable").cloned().unwrap_or_default(),
                "may not be 0 when `maxSurge` is 0",
            );
        }
    }
}

fn amount_or_percent(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.strip_suffix('%')?.parse().ok(),
        _ => None,
    }
}

pub fn replica_set(new: &Value, old: Option<&Value>, problems: &mut Problems) {
    workload(new, old, problems);
    problems.not_negative(
        "spec.minReadySeconds",
        integer(new, "/spec/minReadySeconds"),
    );
}

/// What Deployments and ReplicaSets share: replicas, selector, template.
fn workload(new: &Value, old: Option<&Value>, problems: &mut Problems) {
    problems.not_negative("spec.replicas", integer(new, "/spec/replicas"));
    let selector = new.pointer("/spec/selector").cloned().unwrap_or_default();
    let parsed = match selector.is_object() {
        false => {
            problems.required("spec.selector", "");
            None
        }
        true => match LabelSelector::from_object(&selector) {
            Ok(parsed) if parsed.is_everything() => {
                problems.invalid(
                    "spec.selector",
                    selector.clone(),
                    "empty selector is invalid for deployment",
                );
                None
            }
            Ok(parsed) => Some(parsed),
            Err(error) => {
                problems.invalid("spec.selector", selector.clone(), &error.to_string());
                None
            }
        },
    };
    let template_labels: BTreeMap<String, String> = object(new, "/spec/template/metadata/labels")
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect();
    if let Some(parsed) = parsed
        && !parsed.matches(&template_labels)
    {
        problems.invalid(
            "spec.template.metadata.labels",
            json!(template_labels),
            "`selector` does not match template `labels`",
        );
    }
    labels(
        new,
        "/spec/template/metadata/labels",
        "spec.template.labels",
        problems,
    );
    pod_spec(
        new.pointer("/spec/template/spec"),
        "spec.template.spec",
        problems,
    );
    let restart = text(new, "/spec/template/spec/restartPolicy");
    if matches!(restart, "OnFailure" | "Never") {
        problems.add(Cause::not_supported(
            "spec.template.spec.restartPolicy",
            &restart.into(),
            &["Always"],
        ));
    }
    if let Some(old) = old {
        problems.immutable("spec.selector", "/spec/selector", new, old);
    }
}

pub fn service(new: &Value, old: Option<&Value>, problems: &mut Problems) {
    let kind = text(new, "/spec/type");
    problems.one_of(
        "spec.type",
        kind,
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
    );
    let cluster_ip = text(new, "/spec/clusterIP");
    let ports = items(new, "/spec/ports");
    if kind == "ExternalName" {
        let target = text(new, "/spec/externalName").trim_end_matches('.');
        if target.is_empty() {
            problems.required("spec.externalName", "");
        } else {
            problems.rule("spec.externalName", target, name::dns1123_subdomain(target));
        }
    } else if ports.is_empty() && cluster_ip != "None" {
        problems.required("spec.ports", "");
    }
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        problems.port(&format!("{field}.port"), integer(port, "/port"));
        protocol(port, &field, problems);
        let own_name = text(port, "/name");
        if own_name.is_empty() {
            if ports.len() > 1 {
                problems.required(&format!("{field}.name"), "");
            }
        } else {
            problems.rule(
                &format!("{field}.name"),
                own_name,
                name::dns1123_label(own_name),
            );
            if !names.insert(own_name) {
                problems.add(Cause::duplicate(&format!("{field}.name"), &own_name.into()));
            }
        }
        match port.get("targetPort") {
            Some(Value::String(target)) => {
                problems.rule(&format!("{field}.targetPort"), target, port_name(target));
            }
            Some(target) if !target.is_null() && cluster_ip != "None" => {
                problems.port(&format!("{field}.targetPort"), target.as_i64());
            }
            _ => {}
        }
        let key = (integer(port, "/port"), text(port, "/protocol"));
        if !numbers.insert(key) {
            problems.add(Cause::duplicate(
                &field,
                &json!({"port": key.0, "protocol": key.1}),
            ));
        }
    }
    labels(new, "/spec/selector", "spec.selector", problems);
    problems.one_of(
        "spec.sessionAffinity",
        text(new, "/spec/sessionAffinity"),
        &["ClientIP", "None"],
    );
    if !matches!(cluster_ip, "" | "None") && IpAddr::from_str(cluster_ip).is_err() {
        problems.invalid(
            "spec.clusterIPs[0]",
            cluster_ip,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
    }
    if let Some(old) = old
        && kind != "ExternalName"
        && text(old, "/spec/type") != "ExternalName"
        && !text(old, "/spec/clusterIP").is_empty()
    {
        let field = "spec.clusterIPs[0]";
        if text(old, "/spec/clusterIP") != cluster_ip {
            problems.invalid(
                field,
                new.pointer("/spec/clusterIPs").cloned().unwrap_or_default(),
                "may not change once set",
            );
        }
    }
}

pub fn endpoint_slice(new: &Value, old: Option<&Value>, problems: &mut Problems) {
    let kind = text(new, "/addressType");
    if kind.is_empty() {
        problems.required("addressType", "");
    } else {
        problems.one_of("addressType", kind, &["FQDN", "IPv4", "IPv6"]);
    }
    let endpoints = items(new, "/endpoints");
    if endpoints.len() > 1000 {
        problems.add(Cause {
            reason: "FieldValueTooMany".to_owned(),
            message: format!(
                "Too many: {}: must have at most 1000 items",
                endpoints.len()
            ),
            field: "endpoints".to_owned(),
        });
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        let field = format!("endpoints[{index}].addresses");
        let addresses = items(endpoint, "/addresses");
        if addresses.is_empty() {
            problems.required(&field, "must contain at least 1 address");
        }
        for (index, address) in addresses.iter().enumerate() {
            let address = address.as_str().unwrap_or("");
            if kind != "FQDN" && IpAddr::from_str(address).is_err() {
                problems.invalid(
                    &format!("{field}[{index}]"),
                    address,
                    "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                );
            }
        }
    }
    if let Some(old) = old {
        problems.immutable("addressType", "/addressType", new, old);
    }
}

pub fn config_map(new: &Value, old: Option<&Value>, problems: &mut Problems) {
    data(new, &["data", "binaryData"], problems);
    for key in object(new, "/binaryData")
        .into_iter()
        .flat_map(|map| map.keys())
    {
        if object(new, "/data").is_some_and(|data| data.contains_key(key)) {
            problems.invalid(
                &format!("data[{key}]"),
                key.as_str(),
                "duplicate of key present in binaryData",
            );
        }
    }
    immutable_data(new, old, &["data", "binaryData"], problems);
}

pub fn secret(new: &Value, old: Option<&Value>, problems: &mut Problems) {
    data(new, &["data"], problems);
    for (key, value) in object(new, "/data").into_iter().flatten() {
        use base64::Engine as _;
        let encoded = value.as_str().unwrap_or("");
        if base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .is_err()
        {
            // The value itself stays out of messages: it is meant to be secret.
            problems.invalid(
                &format!("data[{key}]"),
                "<secret>",
                "must be standard base64",
            );
        }
    }
    let needed: &[&str] = match text(new, "/type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needed {
        if object(new, "/data").is_none_or(|data| !data.contains_key(*key)) {
            problems.required(&format!("data[{key}]"), "");
        }
    }
    if let Some(old) = old {
        problems.immutable("type", "/type", new, old);
    }
    immutable_data(new, old, &["data"], problems);
}

fn data(value: &Value, members: &[&str], problems: &mut Problems) {
    let mut bytes = 0;
    for member in members {
        for (key, value) in object(value, &format!("/{member}")).into_iter().flatten() {
            problems.rule(&format!("{member}[{key}]"), key, name::config_key(key));
            bytes += value.as_str().map_or(0, str::len);
        }
    }
    if bytes > DATA_BYTES_MAX {
        problems.add(Cause::too_long("", DATA_BYTES_MAX));
    }
}

fn immutable_data(new: &Value, old: Option<&Value>, members: &[&str], problems: &mut Problems) {
    let Some(old) = old.filter(|old| crate::lens::flag(old, "/immutable")) else {
        return;
    };
    if !crate::lens::flag(new, "/immutable") {
        problems.add(Cause::forbidden(
            "immutable",
            "field is immutable when `immutable` is set",
        ));
    }
    for member in members {
        if new.get(member) != old.get(member) {
            problems.add(Cause::forbidden(
                member,
                "field is immutable when `immutable` is set",
            ));
        }
    }
}

pub fn event(new: &Value, _: Option<&Value>, problems: &mut Problems) {
    let own = text(new, "/metadata/namespace");
    let about = text(new, "/involvedObject/namespace");
    let cluster_scoped_in_default = about.is_empty() && own == "default";
    if own != about && !cluster_scoped_in_default {
        problems.invalid(
            "involvedObject.namespace",
            about,
            "does not match event.namespace",
        );
    }
}

pub fn lease(new: &Value, _: Option<&Value>, problems: &mut Problems) {
    if let Some(seconds) = integer(new, "/spec/leaseDurationSeconds").filter(|n| *n <= 0) {
        problems.invalid(
            "spec.leaseDurationSeconds",
            seconds,
            "must be greater than 0",
        );
    }
    problems.not_negative(
        "spec.leaseTransitions",
        integer(new, "/spec/leaseTransitions"),
    );
}

pub fn gateway_class(new: &Value, old: Option<&Value>, problems: &mut Problems) {
    if text(new, "/spec/controllerName").is_empty() {
        problems.required("spec.controllerName", "");
    }
    if let Some(old) = old {
        problems.immutable("spec.controllerName", "/spec/controllerName", new, old);
    }
}

pub fn gateway(new: &Value, _: Option<&Value>, problems: &mut Problems) {
    if text(new, "/spec/gatewayClassName").is_empty() {
        problems.required("spec.gatewayClassName", "");
    }
    let listeners = items(new, "/spec/listeners");
    if listeners.is_empty() {
        problems.required("spec.listeners", "");
    }
    let mut names = BTreeSet::new();
    for (index, listener) in listeners.iter().enumerate() {
        let field = format!("spec.listeners[{index}]");
        let own_name = text(listener, "/name");
        if own_name.is_empty() {
            problems.required(&format!("{field}.name"), "");
        } else if !names.insert(own_name) {
            problems.add(Cause::duplicate(&field, &json!({"name": own_name})));
        }
        problems.port(&format!("{field}.port"), integer(listener, "/port"));
        if text(listener, "/protocol").is_empty() {
            problems.required(&format!("{field}.protocol"), "");
        }
    }
}

pub fn http_route(new: &Value, _: Option<&Value>, problems: &mut Problems) {
    for (index, host) in items(new, "/spec/hostnames").iter().enumerate() {
        let host = host.as_str().unwrap_or("");
        let plain = host.strip_prefix("*.").unwrap_or(host);
        problems.rule(
            &format!("spec.hostnames[{index}]"),
            host,
            name::dns1123_subdomain(plain),
        );
    }
    for (index, parent) in items(new, "/spec/parentRefs").iter().enumerate() {
        if text(parent, "/name").is_empty() {
            problems.required(&format!("spec.parentRefs[{index}].name"), "");
        }
    }
    for (rule_index, rule) in items(new, "/spec/rules").iter().enumerate() {
        let field = format!("spec.rules[{rule_index}]");
        for (index, condition) in items(rule, "/matches").iter().enumerate() {
            let field = format!("{field}.matches[{index}].path");
            let path = text(condition, "/path/value");
            let kind = text(condition, "/path/type");
            problems.one_of(
                &format!("{field}.type"),
                kind,
                &["Exact", "PathPrefix", "RegularExpression"],
            );
            if kind != "RegularExpression" && !path.starts_with('/') {
                problems.invalid(
                    &format!("{field}.value"),
                    path,
                    "value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']",
                );
            }
        }
        for (index, backend) in items(rule, "/backendRefs").iter().enumerate() {
            let field = format!("{field}.backendRefs[{index}]");
            if text(backend, "/name").is_empty() {
                problems.required(&format!("{field}.name"), "");
            }
            if text(backend, "/kind") == "Service" && text(backend, "/group").is_empty() {
                problems.port(&format!("{field}.port"), integer(backend, "/port"));
            }
            problems.not_negative(&format!("{field}.weight"), integer(backend, "/weight"));
        }
    }
}

pub fn certificate_signing_request(new: &Value, old: Option<&Value>, problems: &mut Problems) {
    if text(new, "/spec/signerName").is_empty() {
        problems.required("spec.signerName", "");
    }
    if text(new, "/spec/request").is_empty() {
        problems.required("spec.request", "");
    }
    if let Some(seconds) = integer(new, "/spec/expirationSeconds").filter(|n| *n < 600) {
        problems.invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
    if let Some(old) = old {
        problems.immutable("spec", "/spec", new, old);
    }
}
