//! What is asked of devices: requests, what must hold between them, and their configuration. A claim, a template of claims and
//! a class share these rules.
//!
//! Source: k8s.io/kubernetes `pkg/apis/resource/validation`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use weft_api::name;

use crate::field::Field;
use crate::lens::{fill, integer, items_mut, none_when_empty, put, text};
use crate::storage::declared_driver_name;
use crate::validate::Problems;

const REQUESTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const CONSTRAINTS_MAX: usize = 32;
const CONFIGURATIONS_MAX: usize = 32;
const SELECTORS_MAX: usize = 32;
const TOLERATIONS_MAX: usize = 16;
const EXPRESSION_BYTES_MAX: usize = 10 << 10;
const DOMAIN_BYTES_MAX: usize = 63;
const IDENTIFIER_BYTES_MAX: usize = 32;

/// Names of requests, with those of their alternatives.
pub(super) struct Requests(BTreeMap<String, BTreeSet<String>>);

impl Requests {
    pub(super) fn of(devices: &Field<'_, '_>) -> Self {
        let requests = devices.items("requests").map(|request| {
            let alternatives = request
                .items("firstAvailable")
                .map(|alternative| alternative.child("name").text().to_owned());
            (
                request.child("name").text().to_owned(),
                alternatives.collect(),
            )
        });
        Self(requests.collect())
    }

    fn has(&self, name: &str) -> bool {
        match name.split_once('/') {
            None => self.0.contains_key(name),
            Some((request, alternative)) => self
                .0
                .get(request)
                .is_some_and(|alternatives| alternatives.contains(alternative)),
        }
    }
}

/// Requests of devices that there are none of, as they are kept; `spec` is a claim's.
pub(super) fn settle(spec: Option<&mut Value>) {
    if let Some(devices) = spec.and_then(|spec| spec.get_mut("devices")) {
        none_when_empty(devices, "requests");
    }
}

pub(super) fn default(devices: &mut Value) {
    let exact = |request: &mut Value| {
        if text(request, "/allocationMode").is_empty() {
            fill(request, "allocationMode", "ExactCount");
        }
        let counted = text(request, "/allocationMode") == "ExactCount";
        if counted && integer(request, "/count").unwrap_or(0) == 0 {
            put(request, "count", Some(1.into()));
        }
    };
    for request in items_mut(devices, "/requests") {
        if let Some(request) = request.get_mut("exactly") {
            exact(request);
        }
        items_mut(request, "/firstAvailable").for_each(exact);
    }
}

/// Judges what a claim asks for.
pub(super) fn validate(devices: &Field<'_, '_>, problems: &mut Problems) {
    let names = Requests::of(devices);
    at_most(devices, "requests", REQUESTS_MAX, problems);
    let mut seen = BTreeSet::new();
    for request in devices.items("requests") {
        self::request(&request, problems);
        let own_name = request.child("name").text();
        if !seen.insert(own_name) {
            problems.duplicate(&request, own_name);
        }
    }
    at_most(devices, "constraints", CONSTRAINTS_MAX, problems);
    for constraint in devices.items("constraints") {
        references(&constraint, &names, problems);
        let (alike, distinct) = (
            constraint.child("matchAttribute"),
            constraint.child("distinctAttribute"),
        );
        if alike.is_set() {
            qualified_attribute(&alike, problems);
        } else if distinct.is_set() {
            qualified_attribute(&distinct, problems);
        } else {
            let sentence = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            problems.required(&constraint, sentence);
        }
    }
    at_most(devices, "config", CONFIGURATIONS_MAX, problems);
    for config in devices.items("config") {
        references(&config, &names, problems);
        configuration(&config, problems);
    }
}

pub(super) fn at_most(of: &Field<'_, '_>, list: &str, max: usize, problems: &mut Problems) {
    let field = of.child(list);
    let found = field.list().len();
    if found > max {
        problems.too_many(&field, found, max);
    }
}

fn request(request: &Field<'_, '_>, problems: &mut Problems) {
    const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
    problems.rule(&request.child("name"), name::dns1123_label_faults);
    let (exactly, alternatives) = (request.child("exactly"), request.child("firstAvailable"));
    match (exactly.is_set(), !alternatives.is_empty()) {
        (false, false) => problems.required(request, ONE),
        (true, true) => {
            let sentence = format!("{ONE}, but multiple fields are set");
            problems.invalid(request, Value::Null, &sentence);
        }
        (true, false) => device(&exactly, problems),
        (false, true) => {
            at_most(request, "firstAvailable", ALTERNATIVES_MAX, problems);
            let mut seen = BTreeSet::new();
            for alternative in request.items("firstAvailable") {
                let own_name = alternative.child("name");
                problems.rule(&own_name, name::dns1123_label_faults);
                device(&alternative, problems);
                if !seen.insert(own_name.text()) {
                    problems.duplicate(&alternative, own_name.text());
                }
            }
        }
    }
}

fn device(request: &Field<'_, '_>, problems: &mut Problems) {
    let class = request.child("deviceClassName");
    problems.required_rule(&class, name::dns1123_subdomain_faults);
    selectors(request, problems);
    let (mode, count) = (request.child("allocationMode"), request.child("count"));
    let number = count.integer().unwrap_or(0);
    match mode.text() {
        "All" if number != 0 => {
            let sentence = "must not be specified when allocationMode is 'All'";
            problems.invalid(&count, number, sentence);
        }
        "ExactCount" if number <= 0 => {
            problems.invalid(&count, number, "must be greater than zero");
        }
        other => problems.one_of_as(&mode, other, &["All", "ExactCount"]),
    }
    at_most(request, "tolerations", TOLERATIONS_MAX, problems);
    for toleration in request.items("tolerations") {
        self::toleration(&toleration, problems);
    }
}

fn toleration(toleration: &Field<'_, '_>, problems: &mut Problems) {
    let (key, operator, value) = (
        toleration.child("key"),
        toleration.child("operator"),
        toleration.child("value"),
    );
    if !key.text().is_empty() {
        problems.rule(&key, name::qualified_name_faults);
    }
    match operator.text() {
        "Exists" if !value.text().is_empty() => {
            let sentence = "must be empty for operator `Exists`";
            problems.invalid(&value, value.text(), sentence);
        }
        "Exists" => {}
        "Equal" | "" => problems.rule(&value, name::label_value_faults),
        _ => problems.one_of(&operator, &["Equal", "Exists"]),
    }
    let effect = toleration.child("effect");
    if !effect.text().is_empty() {
        problems.one_of(&effect, &["NoExecute", "NoSchedule"]);
    }
}

/// Expressions that a device has to meet. Whether they are sound is for who evaluates them to say.
pub(super) fn selectors(of: &Field<'_, '_>, problems: &mut Problems) {
    at_most(of, "selectors", SELECTORS_MAX, problems);
    for selector in of.items("selectors") {
        let cel = selector.child("cel");
        if !cel.is_set() {
            problems.required(&cel, "");
        }
        let expression = selector.child("cel.expression");
        if expression.text().len() > EXPRESSION_BYTES_MAX {
            problems.too_long(&expression, EXPRESSION_BYTES_MAX);
        }
    }
}

/// The requests of the claim that something is about.
fn references(of: &Field<'_, '_>, names: &Requests, problems: &mut Problems) {
    const SENTENCE: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    at_most(of, "requests", REQUESTS_MAX, problems);
    let mut seen = BTreeSet::new();
    for reference in of.items("requests") {
        let text = reference.text();
        let parts = text.split('/').count();
        if parts <= 2 {
            for part in text.split('/') {
                for fault in name::dns1123_label_faults(part) {
                    problems.invalid(&reference, part, &fault);
                }
            }
        }
        if parts > 2 || !names.has(text) {
            problems.invalid(&reference, text, SENTENCE);
        }
        if !seen.insert(text) {
            problems.duplicate(&reference, text);
        }
    }
}

pub(super) fn configuration(config: &Field<'_, '_>, problems: &mut Problems) {
    let opaque = config.child("opaque");
    if !opaque.is_set() {
        return problems.required(&opaque, "");
    }
    let parameters = opaque.child("parameters");
    if !parameters.is_set() {
        problems.required(&parameters, "");
    } else if parameters.map().is_none() {
        let sentence = "must be a valid JSON object";
        problems.invalid(&parameters, "<value omitted>", sentence);
    }
    declared_driver_name(&opaque.child("driver"), problems);
}

/// `example.com/attribute`: a domain, and an identifier of the programming language C.
fn qualified_attribute(field: &Field<'_, '_>, problems: &mut Problems) {
    let text = field.text();
    attribute_name(field, text, problems);
    if !text.contains('/') {
        let sentence = "a fully qualified name must be a domain and a name separated by a slash";
        problems.invalid(field, text, sentence);
    }
}

/// The name of an attribute or a capacity, told of at `field`.
pub(super) fn attribute_name(field: &Field<'_, '_>, text: &str, problems: &mut Problems) {
    match text.split_once('/') {
        None => attribute_parts(field, None, text, problems),
        // Kubernetes looks at two parts, and at none of more.
        Some((_, more)) if more.contains('/') => {}
        Some((domain, identifier)) => attribute_parts(field, Some(domain), identifier, problems),
    }
}

fn attribute_parts(
    field: &Field<'_, '_>,
    domain: Option<&str>,
    identifier: &str,
    problems: &mut Problems,
) {
    match domain {
        Some("") => problems.invalid(field, "", "the domain must not be empty"),
        Some(domain) => {
            if domain.len() > DOMAIN_BYTES_MAX {
                problems.too_long(field, DOMAIN_BYTES_MAX);
            }
            for fault in name::dns1123_subdomain_faults(domain) {
                problems.invalid(field, domain, &fault);
            }
        }
        None => {}
    }
    if identifier.is_empty() && domain.is_some() {
        return problems.invalid(field, "", "the name must not be empty");
    }
    if identifier.len() > IDENTIFIER_BYTES_MAX {
        problems.too_long(field, IDENTIFIER_BYTES_MAX);
    }
    let starts =
        identifier.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_');
    let rest = identifier
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !starts || !rest {
        let sentence = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
        problems.invalid(field, identifier, sentence);
    }
}
