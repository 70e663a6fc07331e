//! Ingresses: hosts and paths from outside, for a controller that serves their class. A new one without a class has the default
//! one, as Kubernetes' admission gives it.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::name;
use weft_api::status::StatusError;

use super::{CLASS_ANNOTATION, GROUP, INGRESS_CLASS};
use crate::address::{address_faults, loose, remark_on_address};
use crate::columns::{Column, Row};
use crate::default_class;
use crate::field::Field;
use crate::lens::{items, member, put, text};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::{Problems, wildcard_faults};
use crate::{Kind, StatusMetadata, Subresource, unserved};

pub static INGRESS: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["ing".into()],
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("Class", class, "Which controller serves it."),
            Column::text("Hosts", hosts, "Hosts that requests are for."),
            Column::text("Address", address, "Where it is reached."),
            Column::text("Ports", ports, "Ports that are open for it."),
            Column::age(),
        ],
        counts_generations: true,
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(Ingresses),
        ..Kind::new(GROUP, "v1", "Ingress", "ingresses")
    })
});

pub(super) const IS_DEFAULT: &[&str] = &["ingressclass.kubernetes.io/is-default-class"];

/// How many hosts a cell names before it says how many more rules there are.
const NAMED_IN_CELL: usize = 3;

struct Ingresses;

impl Strategy for Ingresses {
    fn default(&self, value: &mut Value) {
        let status = member(value, "status");
        if status.get("loadBalancer").is_none_or(Value::is_null) {
            put(status, "loadBalancer", Some(json!({})));
        }
    }

    fn admit(&self, new: &mut Value, around: &dyn Surroundings) -> Result<(), StatusError> {
        let root = Field::root(new);
        let named = root.child("spec.ingressClassName").is_set()
            || root
                .entry("metadata.annotations", CLASS_ANNOTATION)
                .is_set();
        if !named && let Some(class) = default_class::newest(around, &INGRESS_CLASS, IS_DEFAULT) {
            put(member(new, "spec"), "ingressClassName", Some(class.into()));
        }
        Ok(())
    }

    fn warn(&self, value: &Value, _: &dyn Surroundings) -> Vec<String> {
        let mut told = unserved::told_of(GROUP, "Ingress");
        let root = Field::root(value);
        let annotated = root
            .entry("metadata.annotations", CLASS_ANNOTATION)
            .is_set();
        if annotated && !root.child("spec.ingressClassName").is_set() {
            told.push(format!(
                "annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead"
            ));
        }
        for point in root.items("status.loadBalancer.ingress") {
            let path = point.to_string();
            told.extend(remark_on_address(&path, point.child("ip").text()));
        }
        told
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        spec(&root.child("spec"), problems);
        let annotation = root.entry("metadata.annotations", CLASS_ANNOTATION);
        let class = root.child("spec.ingressClassName");
        if annotation.is_set() && class.is_set() && annotation.text() != class.text() {
            let path = format!("annotations.{CLASS_ANNOTATION}");
            let sentence = "must match `ingressClassName` when both are specified";
            problems.invalid_at(&path, annotation.text(), sentence);
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        _: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let root = Field::root(new);
        if part == Some(Subresource::Status) {
            status(&root, problems);
        } else {
            spec(&root.child("spec"), problems);
        }
    }
}

fn spec(spec: &Field<'_, '_>, problems: &mut Problems) {
    let backend = spec.child("defaultBackend");
    if spec.child("rules").is_empty() && !backend.is_set() {
        let sentence = "either `defaultBackend` or `rules` must be specified";
        problems.invalid(spec, spec.child("rules").shown(), sentence);
    }
    if backend.is_set() {
        self::backend(&backend, problems);
    }
    for rule in spec.items("rules") {
        host_of_rule(&rule.child("host"), problems);
        let http = rule.child("http");
        if http.is_set() {
            paths(&http, problems);
        }
    }
    for tls in spec.items("tls") {
        for host in tls.items("hosts") {
            if host.text().contains('*') {
                problems.rule(&host, wildcard_faults);
            } else {
                problems.rule(&host, name::dns1123_subdomain_faults);
            }
        }
        let secret = tls.child("secretName");
        if !secret.text().is_empty() {
            problems.rule(&secret, name::dns1123_subdomain_faults);
        }
    }
    let class = spec.child("ingressClassName");
    if class.is_set() {
        problems.rule(&class, name::dns1123_subdomain_faults);
    }
}

fn host_of_rule(host: &Field<'_, '_>, problems: &mut Problems) {
    if host.text().is_empty() {
        return;
    }
    not_an_address(host, problems);
    if host.text().contains('*') {
        problems.rule(host, wildcard_faults);
    } else {
        problems.rule(host, name::dns1123_subdomain_faults);
    }
}

fn not_an_address(host: &Field<'_, '_>, problems: &mut Problems) {
    if loose(host.text()).is_some() {
        let sentence = "must be a DNS name, not an IP address";
        problems.invalid(host, host.text(), sentence);
    }
}

fn paths(http: &Field<'_, '_>, problems: &mut Problems) {
    if http.child("paths").is_empty() {
        problems.required(&http.child("paths"), "");
    }
    for entry in http.items("paths") {
        let kind = entry.child("pathType");
        if !kind.is_set() {
            problems.required(&kind, "pathType must be specified");
            continue;
        }
        let path = entry.child("path");
        let absolute = path.text().starts_with('/');
        let mut refuse = |sentence: &str| problems.invalid(&path, path.text(), sentence);
        match kind.text() {
            "Exact" | "Prefix" => {
                if !absolute {
                    refuse("must be an absolute path");
                }
                for part in ["//", "/./", "/../", "%2f", "%2F"] {
                    if path.text().contains(part) {
                        refuse(&format!("must not contain '{part}'"));
                    }
                }
                for end in ["/..", "/."] {
                    if path.text().ends_with(end) {
                        refuse(&format!("cannot end with '{end}'"));
                    }
                }
            }
            "ImplementationSpecific" => {
                if !path.text().is_empty() && !absolute {
                    refuse("must be an absolute path");
                }
            }
            _ => problems.one_of(&kind, &["Exact", "ImplementationSpecific", "Prefix"]),
        }
        backend(&entry.child("backend"), problems);
    }
}

fn backend(backend: &Field<'_, '_>, problems: &mut Problems) {
    let (resource, service) = (backend.child("resource"), backend.child("service"));
    match (resource.is_set(), service.is_set()) {
        (true, true) => {
            let sentence = "cannot set both resource and service backends";
            problems.invalid(backend, "", sentence);
        }
        (true, false) => reference(&resource, problems),
        (false, true) => {
            let own_name = backend.child("service.name");
            problems.required_rule(&own_name, name::dns1123_label_faults);
            let (port, number) = (
                backend.child("service.port.name"),
                backend.child("service.port.number"),
            );
            let numbered = number.integer().unwrap_or(0) != 0;
            match (!port.text().is_empty(), numbered) {
                (true, true) => {
                    problems.invalid(backend, "", "cannot set both port name & port number");
                }
                (true, false) => problems.rule(&port, name::port_name_faults),
                (false, true) => problems.port(&number),
                (false, false) => {
                    problems.required(backend, "port name or number is required");
                }
            }
        }
        (false, false) => {
            problems.invalid(backend, "", "resource or service backend is required");
        }
    }
}

/// An object by group, kind and name.
fn reference(reference: &Field<'_, '_>, problems: &mut Problems) {
    let group = reference.child("apiGroup");
    if group.is_set() {
        problems.rule(&group, name::dns1123_subdomain_faults);
    }
    for member in ["kind", "name"] {
        problems.required_path_segment(&reference.child(member));
    }
}

fn status(root: &Field<'_, '_>, problems: &mut Problems) {
    for point in root.items("status.loadBalancer.ingress") {
        let address = point.child("ip");
        if !address.text().is_empty() {
            problems.rule(&address, address_faults);
        }
        let host = point.child("hostname");
        if !host.text().is_empty() {
            problems.rule(&host, name::dns1123_subdomain_faults);
            not_an_address(&host, problems);
        }
    }
}

fn class(row: &Row<'_>) -> Value {
    row.text_or("/spec/ingressClassName", "<none>")
}

fn hosts(row: &Row<'_>) -> Value {
    let rules = items(row.object, "/spec/rules");
    let mut named = Vec::new();
    let mut more = String::new();
    for rule in rules {
        if named.len() == NAMED_IN_CELL {
            more = format!(" + {} more...", rules.len() - NAMED_IN_CELL);
            break;
        }
        let host = text(rule, "/host");
        if !host.is_empty() {
            named.push(host);
        }
    }
    match named.as_slice() {
        [] => "*".into(),
        named => format!("{}{more}", named.join(",")).into(),
    }
}

fn address(row: &Row<'_>) -> Value {
    let points = items(row.object, "/status/loadBalancer/ingress").iter();
    let addresses: BTreeSet<&str> = points
        .map(|point| match text(point, "/ip") {
            "" => text(point, "/hostname"),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    addresses.into_iter().collect::<Vec<_>>().join(",").into()
}

fn ports(row: &Row<'_>) -> Value {
    match items(row.object, "/spec/tls") {
        [] => "80".into(),
        _ => "80, 443".into(),
    }
}
