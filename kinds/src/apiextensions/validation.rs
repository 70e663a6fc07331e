//! What a definition may say, in upstream's words and at upstream's paths.
//!
//! Upstream judges a form of its own, in which what all versions have alike stands once, above them: faults of the schema of a definition
//! with one version are told at `spec.validation`, not at `spec.versions[0].schema`.
//!
//! Source: k8s.io/apiextensions-apiserver `pkg/apis/apiextensions/validation`, `pkg/apiserver/schema/defaulting/validation.go`.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use weft_api::name::{dns1035_label_faults, dns1123_subdomain_faults};
use weft_api::status::Cause;

use super::structural;
use crate::cel::rules;
use crate::decode::structural as schemas;
use crate::lens::{condition_is_true, flag, integer, items, object, text};
use crate::schema::{Node, Schema};

/// The annotation that kinds in groups of Kubernetes' own need.
const APPROVED: &str = "api-approved.kubernetes.io";
const SELECTABLE_MAX: usize = 8;
const DEPRECATION_BYTES_MAX: usize = 256;
const COLUMN_TYPES: &str = "boolean,date,integer,number,string";
const COLUMN_FORMATS: &[&str] = &[
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
];
const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Why a new definition is refused.
pub(super) fn created(new: &Value) -> Vec<Cause> {
    let mut judge = Judge::default();
    let spec = &new["spec"];
    let plural = text(spec, "/names/plural");
    let group = text(spec, "/group");
    let name = text(new, "/metadata/name");
    if name != format!("{plural}.{group}") {
        judge.invalid(
            "metadata.name",
            name,
            "must be spec.names.plural+\".\"+spec.group",
        );
    }
    judge.whole(new, None, true);
    judge.causes
}

/// Why a definition may not take the place of `old`.
pub(super) fn updated(new: &Value, old: &Value) -> Vec<Cause> {
    let mut judge = Judge::default();
    let bundle = old.pointer("/spec/conversion/webhook/clientConfig/caBundle");
    let bundle = bundle.and_then(Value::as_str);
    let established = condition_is_true(old, "Established");
    let lenient = !established || bundle.is_some_and(|old| ca_bundle_fault(old).is_some());
    judge.whole(new, Some(old), lenient);
    judge.causes
}

/// Why a status is refused.
pub(super) fn status(new: &Value) -> Vec<Cause> {
    let mut judge = Judge::default();
    judge.names(&new["status"]["acceptedNames"], "status.acceptedNames");
    judge.causes
}

/// Whether a group is Kubernetes' own.
pub(super) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|own| {
        let above = group.strip_suffix(own);
        above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
    })
}

/// Whether a definition in such a group says that it was approved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Approval {
    Invalid,
    Missing,
    Approved,
    Bypassed,
}

pub(super) fn approval(definition: &Value) -> (Approval, String) {
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let annotations = definition.pointer("/metadata/annotations");
    let annotation = annotations.and_then(|all| all.get(APPROVED)?.as_str());
    let annotation = annotation.unwrap_or("");
    let is_url = annotation.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.split('/').next().is_none_or(str::is_empty)
    });
    if annotation.is_empty() {
        let told = format!("protected groups must have approval annotation {APPROVED:?}, {SEE}");
        return (Approval::Missing, told);
    }
    if annotation.starts_with("unapproved") {
        return (Approval::Bypassed, format!("not approved: {annotation:?}"));
    }
    if is_url {
        return (Approval::Approved, format!("approved in {annotation}"));
    }
    let told = format!(
        "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", {SEE}"
    );
    (Approval::Invalid, told)
}

/// Why certificates in base64 are none that a server could be known by.
pub(super) fn ca_bundle_fault(bundle: &str) -> Option<&'static str> {
    const FAULT: &str = "unable to load root certificates: unable to parse bytes as PEM block";
    let Ok(bytes) = STANDARD.decode(bundle) else {
        return Some(FAULT);
    };
    let Ok(pem) = String::from_utf8(bytes) else {
        return Some(FAULT);
    };
    if pem.trim().is_empty() {
        return None;
    }
    let mut found = false;
    for block in pem.split("-----BEGIN CERTIFICATE-----").skip(1) {
        let body: String = block
            .split("-----END CERTIFICATE-----")
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect();
        // A certificate is a sequence.
        found = STANDARD
            .decode(body)
            .is_ok_and(|der| der.first() == Some(&0x30));
        if !found {
            break;
        }
    }
    (!found).then_some(FAULT)
}

#[derive(Default)]
struct Judge {
    causes: Vec<Cause>,
}

/// What stands in a version, and at which path upstream looks for it.
struct Parts<'v> {
    path: String,
    schema: Option<&'v Value>,
    subresources: Option<&'v Value>,
    columns: &'v [Value],
    selectable: &'v [Value],
}

impl Judge {
    fn required(&mut self, path: &str, detail: &str) {
        self.causes.push(Cause::required(path, detail));
    }

    fn forbidden(&mut self, path: &str, detail: &str) {
        self.causes.push(Cause::forbidden(path, detail));
    }

    fn invalid(&mut self, path: &str, value: impl Into<Value>, detail: &str) {
        self.causes
            .push(Cause::invalid(path, &value.into(), detail));
    }

    fn not_supported(&mut self, path: &str, value: &str, supported: &[&str]) {
        self.causes
            .push(Cause::not_supported(path, &value.into(), supported));
    }

    fn whole(&mut self, new: &Value, old: Option<&Value>, lenient_bundle: bool) {
        let spec = &new["spec"];
        self.spec(spec, lenient_bundle);
        if let Some(old) = old {
            let was = &old["spec"];
            if condition_is_true(old, "Established") {
                self.immutable("spec.scope", &spec["scope"], &was["scope"]);
                self.immutable(
                    "spec.names.kind",
                    &spec["names"]["kind"],
                    &was["names"]["kind"],
                );
            }
            self.immutable("spec.group", &spec["group"], &was["group"]);
            self.immutable(
                "spec.names.plural",
                &spec["names"]["plural"],
                &was["names"]["plural"],
            );
        }
        self.names(&new["status"]["acceptedNames"], "status.acceptedNames");
        self.stored_versions(new);
        self.approval(new, old);
        if flag(spec, "/preserveUnknownFields")
            && !old.is_some_and(|old| flag(old, "/spec/preserveUnknownFields"))
        {
            let told = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
            self.invalid("spec.preserveUnknownFields", true, told);
        }
    }

    fn immutable(&mut self, path: &str, new: &Value, old: &Value) {
        if new != old {
            self.invalid(path, new.clone(), "field is immutable");
        }
    }

    fn spec(&mut self, spec: &Value, lenient_bundle: bool) {
        let group = text(spec, "/group");
        let faults = dns1123_subdomain_faults(group);
        if group.is_empty() {
            self.required("spec.group", "");
        } else if !faults.is_empty() {
            self.invalid("spec.group", group, &faults.join(","));
        } else if !group.contains('.') {
            let told = "should be a domain with at least one dot";
            self.invalid("spec.group", group, told);
        }
        match text(spec, "/scope") {
            "" => self.required("spec.scope", ""),
            "Cluster" | "Namespaced" => {}
            other => self.not_supported("spec.scope", other, &["Cluster", "Namespaced"]),
        }
        let versions = items(spec, "/versions");
        for (index, version) in versions.iter().enumerate() {
            if schema_of(version).is_none() {
                let at = format!("spec.versions[{index}].schema.openAPIV3Schema");
                self.required(&at, "");
            }
        }
        // What all versions have alike is told of once.
        let alike = |member: &str| {
            let first = versions.first().and_then(|version| version.get(member));
            let same = |version: &Value| version.get(member) == first;
            !versions.is_empty() && versions.iter().all(same)
        };
        let (one_schema, one_subresources) = (alike("schema"), alike("subresources"));
        let one_columns = alike("additionalPrinterColumns");
        let one_selectable = alike("selectableFields");
        let mut names = BTreeSet::new();
        let (mut stored, mut unique) = (0, true);
        for (index, version) in versions.iter().enumerate() {
            let path = format!("spec.versions[{index}]");
            stored += usize::from(flag(version, "/storage"));
            let name = text(version, "/name");
            unique &= names.insert(name);
            let faults = dns1035_label_faults(name);
            if !faults.is_empty() {
                self.invalid(&format!("{path}.name"), name, &faults.join(","));
            }
            self.deprecation(version, &format!("{path}.deprecationWarning"));
            let parts = Parts {
                schema: schema_of(version).filter(|_| !one_schema),
                subresources: version.get("subresources").filter(|_| !one_subresources),
                columns: match one_columns {
                    true => &[],
                    false => items(version, "/additionalPrinterColumns"),
                },
                selectable: match one_selectable {
                    true => &[],
                    false => items(version, "/selectableFields"),
                },
                path,
            };
            let status = has_status(version);
            let own = parts.schema.is_some() || one_schema;
            self.parts(&parts, "schema", schema_of(version).filter(|_| own), status);
        }
        if !unique {
            let told = "must contain unique version names";
            self.invalid("spec.versions", spec["versions"].clone(), told);
        }
        if stored != 1 {
            let told = "must have exactly one version marked as storage version";
            self.invalid("spec.versions", spec["versions"].clone(), told);
        }
        for name in ["plural", "singular", "kind", "listKind"] {
            if text(spec, &format!("/names/{name}")).is_empty() {
                self.required(&format!("spec.names.{name}"), "");
            }
        }
        self.names(&spec["names"], "spec.names");
        if let Some(first) = versions.first() {
            let parts = Parts {
                path: "spec".to_owned(),
                schema: schema_of(first).filter(|_| one_schema),
                subresources: first.get("subresources").filter(|_| one_subresources),
                columns: match one_columns {
                    true => items(first, "/additionalPrinterColumns"),
                    false => &[],
                },
                selectable: match one_selectable {
                    true => items(first, "/selectableFields"),
                    false => &[],
                },
            };
            let any = versions.iter().any(has_status);
            self.parts(&parts, "validation", schema_of(first), any);
        }
        self.conversion(spec, lenient_bundle);
    }

    /// `known` is the schema that selectable fields are looked up in.
    fn parts(&mut self, parts: &Parts<'_>, member: &str, known: Option<&Value>, status: bool) {
        let path = &parts.path;
        if let Some(schema) = parts.schema {
            let at = format!("{path}.{member}");
            self.schema(schema, &format!("{at}.openAPIV3Schema"), &at, status);
        }
        if let Some(subresources) = parts.subresources {
            self.subresources(subresources, &format!("{path}.subresources"));
        }
        for (index, column) in parts.columns.iter().enumerate() {
            self.column(column, &format!("{path}.additionalPrinterColumns[{index}]"));
        }
        if !parts.selectable.is_empty() {
            let at = format!("{path}.selectableFields");
            match known.and_then(|schema| Node::parse(schema).ok()) {
                Some(node) => self.selectable(parts.selectable, Schema::at(&node), &at),
                None => {
                    let told =
                        "may only be set when `version.schema.openAPIV3Schema` is not included";
                    self.invalid(&at, "", told);
                }
            }
        }
    }

    fn deprecation(&mut self, version: &Value, path: &str) {
        let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else {
            return;
        };
        let mut tell = |told: &str| self.invalid(path, warning, told);
        if !flag(version, "/deprecated") {
            tell("can only be set for deprecated versions");
            return;
        }
        if warning.len() > DEPRECATION_BYTES_MAX {
            tell("must be <= 256 characters long");
        }
        if warning.is_empty() {
            tell("must not be an empty string");
        }
        let unprintable = |c: &char| c.is_control() || (c.is_whitespace() && *c != ' ');
        let mut chars = warning.char_indices();
        if let Some((at, _)) = chars.find(|(_, c)| unprintable(c)) {
            tell(&format!(
                "must only contain printable UTF-8 characters; non-printable character found at index {at}"
            ));
        }
    }

    fn names(&mut self, names: &Value, path: &str) {
        for name in ["plural", "singular"] {
            let value = text(names, &format!("/{name}"));
            let faults = dns1035_label_faults(value);
            if !value.is_empty() && !faults.is_empty() {
                self.invalid(&format!("{path}.{name}"), value, &faults.join(","));
            }
        }
        for name in ["kind", "listKind"] {
            let value = text(names, &format!("/{name}"));
            let faults = dns1035_label_faults(&value.to_lowercase());
            if !value.is_empty() && !faults.is_empty() {
                let told = format!(
                    "may have mixed case, but should otherwise match: {}",
                    faults.join(",")
                );
                self.invalid(&format!("{path}.{name}"), value, &told);
            }
        }
        self.labels(names, "shortNames", path);
        let (kind, list) = (text(names, "/kind"), text(names, "/listKind"));
        if !kind.is_empty() && kind == list {
            let told = "kind and listKind may not be the same";
            self.invalid(&format!("{path}.listKind"), list, told);
        }
        self.labels(names, "categories", path);
    }

    fn labels(&mut self, names: &Value, member: &str, path: &str) {
        let list = items(names, &format!("/{member}")).iter();
        for (index, label) in list.filter_map(Value::as_str).enumerate() {
            let faults = dns1035_label_faults(label);
            if !faults.is_empty() {
                let at = format!("{path}.{member}[{index}]");
                self.invalid(&at, label, &faults.join(","));
            }
        }
    }

    fn stored_versions(&mut self, new: &Value) {
        const PATH: &str = "status.storedVersions";
        let stored = items(new, "/status/storedVersions");
        if stored.is_empty() {
            self.invalid(PATH, json!(stored), "must have at least one stored version");
            return;
        }
        let versions = items(new, "/spec/versions");
        for version in versions.iter().filter(|version| flag(version, "/storage")) {
            if !stored.contains(&version["name"]) {
                let told = format!("must have the storage version {}", text(version, "/name"));
                self.invalid(PATH, json!(stored), &told);
            }
        }
        for (index, name) in stored.iter().enumerate() {
            if !versions.iter().any(|version| version["name"] == *name) {
                let shown = name.as_str().unwrap_or("");
                let told = format!(
                    "missing from spec.versions; {shown} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {shown} and removes {shown} from status.storedVersions"
                );
                self.invalid(&format!("{PATH}[{index}]"), shown, &told);
            }
        }
    }

    fn approval(&mut self, new: &Value, old: Option<&Value>) {
        if !is_protected(text(new, "/spec/group")) {
            return;
        }
        let (state, reason) = approval(new);
        if old.is_some_and(|old| approval(old).0 == state) {
            return;
        }
        let path = format!("metadata.annotations[{APPROVED}]");
        let annotations = new.pointer("/metadata/annotations");
        let annotation = annotations.and_then(|all| all.get(APPROVED)?.as_str());
        match state {
            Approval::Invalid => self.invalid(&path, annotation.unwrap_or(""), &reason),
            Approval::Missing => self.required(&path, &reason),
            Approval::Approved | Approval::Bypassed => {}
        }
    }

    fn subresources(&mut self, subresources: &Value, path: &str) {
        let Some(scale) = subresources.get("scale").filter(|scale| scale.is_object()) else {
            return;
        };
        for (member, start, told) in [
            (
                "specReplicasPath",
                ".spec.",
                "should be a json path under .spec",
            ),
            (
                "statusReplicasPath",
                ".status.",
                "should be a json path under .status",
            ),
        ] {
            let at = format!("{path}.scale.{member}");
            let value = text(scale, &format!("/{member}"));
            if value.is_empty() {
                self.required(&at, "");
            } else if self.simple_path(value, &at) && !value.starts_with(start) {
                self.invalid(&at, value, told);
            }
        }
        let selector = text(scale, "/labelSelectorPath");
        let at = format!("{path}.scale.labelSelectorPath");
        if !selector.is_empty()
            && self.simple_path(selector, &at)
            && !selector.starts_with(".spec.")
            && !selector.starts_with(".status.")
        {
            let told = "should be a json path under either .spec or .status";
            self.invalid(&at, selector, told);
        }
    }

    fn simple_path(&mut self, value: &str, path: &str) -> bool {
        let sound = value.starts_with('.');
        if !sound {
            self.invalid(path, value, "must be a simple json path starting with .");
        }
        sound
    }

    fn column(&mut self, column: &Value, path: &str) {
        if text(column, "/name").is_empty() {
            self.required(&format!("{path}.name"), "");
        }
        let told = format!("must be one of {COLUMN_TYPES}");
        match text(column, "/type") {
            "" => self.required(&format!("{path}.type"), &told),
            kind if COLUMN_TYPES.split(',').any(|known| known == kind) => {}
            kind => self.invalid(&format!("{path}.type"), kind, &told),
        }
        let format = text(column, "/format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let told = format!("must be one of {}", COLUMN_FORMATS.join(","));
            self.invalid(&format!("{path}.format"), format, &told);
        }
        let at = format!("{path}.JSONPath");
        match text(column, "/jsonPath") {
            "" => self.required(&at, ""),
            value => {
                self.simple_path(value, &at);
            }
        }
    }

    fn selectable(&mut self, fields: &[Value], schema: Schema<'_>, path: &str) {
        let mut known = BTreeSet::new();
        for (index, field) in fields.iter().enumerate() {
            let at = format!("{path}[{index}].jsonPath");
            let value = text(field, "/jsonPath");
            if value.is_empty() {
                self.required(&at, "");
                continue;
            }
            let (target, steps) = match selected(schema, value) {
                Ok(found) => found,
                Err(told) => {
                    self.invalid(&at, value, &format!("is an invalid path: {told}"));
                    continue;
                }
            };
            if steps.first().is_some_and(|first| *first == "metadata") {
                self.invalid(&at, value, "must not point to fields in metadata");
            }
            if !matches!(target.kind(), Some("string" | "boolean" | "integer")) {
                let told = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
                self.invalid(&at, value, told);
            }
            if !known.insert(steps) {
                self.causes.push(Cause::duplicate(&at, &value.into()));
            }
        }
        if known.len() > SELECTABLE_MAX {
            self.causes.push(Cause {
                reason: "FieldValueTooMany".to_owned(),
                message: format!(
                    "Too many: {}: must have at most {SELECTABLE_MAX} items",
                    known.len()
                ),
                field: path.to_owned(),
            });
        }
    }

    fn conversion(&mut self, spec: &Value, lenient_bundle: bool) {
        let Some(conversion) = spec.get("conversion").filter(|it| it.is_object()) else {
            return;
        };
        let strategy = text(conversion, "/strategy");
        if strategy != "None" && flag(spec, "/preserveUnknownFields") {
            let told = "must be None if spec.preserveUnknownFields is true";
            self.invalid("spec.conversion.strategy", strategy, told);
        }
        match strategy {
            "" => self.required("spec.conversion.strategy", ""),
            "None" | "Webhook" => {}
            other => {
                self.not_supported("spec.conversion.strategy", other, &["None", "Webhook"]);
            }
        }
        const CLIENT: &str = "spec.conversion.webhookClientConfig";
        const REVIEWS: &str = "spec.conversion.conversionReviewVersions";
        let client = conversion.pointer("/webhook/clientConfig");
        let client = client.filter(|client| !client.is_null());
        let reviews = items(conversion, "/webhook/conversionReviewVersions");
        if strategy != "Webhook" {
            let told = "should not be set when strategy is not set to Webhook";
            if client.is_some() {
                self.forbidden(CLIENT, told);
            }
            if !reviews.is_empty() {
                self.forbidden(REVIEWS, told);
            }
            return;
        }
        match client {
            None => self.required(CLIENT, "required when strategy is set to Webhook"),
            Some(client) => self.client(client, CLIENT, lenient_bundle),
        }
        if reviews.is_empty() {
            self.required(REVIEWS, "");
            return;
        }
        let mut seen = BTreeSet::new();
        for (index, review) in reviews.iter().filter_map(Value::as_str).enumerate() {
            let at = format!("{REVIEWS}[{index}]");
            if !seen.insert(review) {
                self.invalid(&at, review, "duplicate version");
                continue;
            }
            for fault in dns1035_label_faults(review) {
                self.invalid(&at, review, &fault);
            }
        }
        if !seen.contains("v1") && !seen.contains("v1beta1") {
            let told = "must include at least one of v1, v1beta1";
            self.invalid(REVIEWS, json!(reviews), told);
        }
    }

    fn client(&mut self, client: &Value, path: &str, lenient_bundle: bool) {
        let url = client.get("url").and_then(Value::as_str);
        let service = client.get("service").filter(|service| service.is_object());
        match (url, service) {
            (None, None) | (Some(_), Some(_)) => {
                self.required(path, "exactly one of url or service is required");
            }
            (Some(url), None) => self.url(url, &format!("{path}.url")),
            (None, Some(service)) => self.service(service, &format!("{path}.service")),
        }
        let bundle = text(client, "/caBundle");
        if !bundle.is_empty()
            && !lenient_bundle
            && let Some(told) = ca_bundle_fault(bundle)
        {
            self.invalid(&format!("{path}.caBundle"), bundle, told);
        }
    }

    fn url(&mut self, url: &str, path: &str) {
        const FORM: &str = "; desired format: https://host[/path]";
        let (scheme, rest) = url.split_once("://").unwrap_or(("", ""));
        if scheme != "https" {
            let told = format!("'https' is the only allowed URL scheme{FORM}");
            self.invalid(path, scheme, &told);
        }
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = rest.split('/').next().unwrap_or("");
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if host.is_empty() {
            self.invalid(path, host, &format!("host must be specified{FORM}"));
        }
        if let Some(user) = user {
            let told = "user information is not permitted in the URL";
            self.invalid(path, user, told);
        }
        if !fragment.is_empty() {
            self.invalid(path, fragment, "fragments are not permitted in the URL");
        }
        if !query.is_empty() {
            let told = "query parameters are not permitted in the URL";
            self.invalid(path, query, told);
        }
    }

    fn service(&mut self, service: &Value, path: &str) {
        // Upstream hands name and namespace over in the wrong order, so each is told of as the other.
        for (told_as, member) in [("name", "namespace"), ("namespace", "name")] {
            if text(service, &format!("/{member}")).is_empty() {
                self.required(&format!("{path}.{told_as}"), "");
            }
        }
        let port = integer(service, "/port").unwrap_or(443);
        if !(1..=65535).contains(&port) {
            let told = "port is not valid: must be between 1 and 65535, inclusive";
            self.invalid(&format!("{path}.port"), port, told);
        }
        let at = format!("{path}.path");
        let Some(whole) = service.get("path").and_then(Value::as_str) else {
            return;
        };
        if whole.is_empty() || whole == "/" {
            return;
        }
        if whole == "//" {
            self.invalid(&at, whole, "segment[0] may not be empty");
            return;
        }
        let steps = match whole.strip_prefix('/') {
            Some(steps) => steps,
            None => {
                self.invalid(&at, whole, "must start with a '/'");
                let mut chars = whole.chars();
                chars.next();
                chars.as_str()
            }
        };
        let steps = steps.strip_suffix('/').unwrap_or(steps);
        for (index, step) in steps.split('/').enumerate() {
            if step.is_empty() {
                self.invalid(&at, whole, &format!("segment[{index}] may not be empty"));
                continue;
            }
            for fault in dns1123_subdomain_faults(step) {
                self.invalid(&at, whole, &format!("segment[{index}]: {fault}"));
            }
        }
    }

    /// The schema at `path`, of the part of a definition at `above`.
    fn schema(&mut self, schema: &Value, path: &str, above: &str, status: bool) {
        let before = self.causes.len();
        if status {
            self.root_of_status(schema, path);
        }
        if flag(schema, "/nullable") {
            let at = format!("{path}.nullable");
            self.forbidden(&at, "nullable cannot be true at the root");
        }
        let mut open_api = OpenApi::default();
        open_api.place(schema, path, true, Around::default());
        // What structural schemas do not have at all is told of by the rules of OpenAPI alone.
        let structural = match open_api.unsupported {
            true => Vec::new(),
            false => structural::faults(schema, path),
        };
        let node = match Node::parse(schema) {
            Ok(node) => Some(node),
            Err(error) => {
                if open_api.causes.is_empty() && structural.is_empty() {
                    self.invalid(above, "", &format!("error building validator: {error}"));
                }
                None
            }
        };
        let sound = structural.is_empty() && !open_api.unsupported;
        self.causes.extend(structural);
        let mut ready = false;
        if let Some(node) = node.as_ref().filter(|_| sound) {
            let faults = defaults(Schema::at(node), path);
            ready = faults.is_empty() && open_api.causes.is_empty();
            self.causes.extend(faults);
        }
        self.causes.extend(open_api.causes);
        if let Some(node) = node
            .as_ref()
            .filter(|_| ready && self.causes.len() == before)
        {
            self.causes
                .extend(rules::definition_faults(Schema::at(node), path));
        }
    }

    /// The status is judged by a part of the schema, so the root may say nothing that would be lost.
    fn root_of_status(&mut self, schema: &Value, path: &str) {
        const ALLOWED: &[(&str, &str)] = &[
            ("Description", "description"),
            ("Type", "type"),
            ("Format", "format"),
            ("Title", "title"),
            ("Maximum", "maximum"),
            ("ExclusiveMaximum", "exclusiveMaximum"),
            ("Minimum", "minimum"),
            ("ExclusiveMinimum", "exclusiveMinimum"),
            ("MaxLength", "maxLength"),
            ("MinLength", "minLength"),
            ("Pattern", "pattern"),
            ("MaxItems", "maxItems"),
            ("MinItems", "minItems"),
            ("UniqueItems", "uniqueItems"),
            ("MultipleOf", "multipleOf"),
            ("Required", "required"),
            ("Items", "items"),
            ("Properties", "properties"),
            ("ExternalDocs", "externalDocs"),
            ("Example", "example"),
            (
                "XPreserveUnknownFields",
                "x-kubernetes-preserve-unknown-fields",
            ),
            ("XValidations", "x-kubernetes-validations"),
        ];
        let kind = text(schema, "/type");
        if !kind.is_empty() && kind != "object" {
            let told = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
            self.invalid(&format!("{path}.type"), kind, told);
            return;
        }
        let allowed = |member: &String| ALLOWED.iter().any(|(_, known)| *known == member.as_str());
        let members = schema.as_object().into_iter().flatten();
        let mut others =
            members.filter(|(member, value)| !allowed(member) && **value != json!(false));
        if others.next().is_some() {
            let names: Vec<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
            let told = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                names.join(" ")
            );
            self.invalid(path, schema.clone(), &told);
        }
    }
}

fn schema_of(version: &Value) -> Option<&Value> {
    version
        .pointer("/schema/openAPIV3Schema")
        .filter(|schema| schema.is_object())
}

fn has_status(version: &Value) -> bool {
    version
        .pointer("/subresources/status")
        .is_some_and(|status| !status.is_null())
}

/// The place that a selectable field points at, and the steps to it.
///
/// # Errors
/// Why it is no path in the schema.
fn selected<'s, 'p>(
    schema: Schema<'s>,
    path: &'p str,
) -> Result<(Schema<'s>, Vec<&'p str>), String> {
    if path.contains('[') {
        return Err("array notation is not allowed".to_owned());
    }
    rules::field_path(schema, path)?;
    let mut target = schema;
    let steps: Vec<&str> = path.split('.').skip(1).collect();
    for step in &steps {
        target = target
            .field(step)
            .ok_or("does not refer to a valid field")?;
    }
    Ok((target, steps))
}

/// Defaults that their own schema would refuse.
fn defaults(schema: Schema<'_>, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut budget = rules::OBJECT_COST_MAX;
    default_at(schema, path, true, &mut budget, &mut causes);
    causes
}

fn default_at(
    schema: Schema<'_>,
    path: &str,
    root: bool,
    budget: &mut u64,
    causes: &mut Vec<Cause>,
) {
    if let Some(default) = schema.default() {
        let at = format!("{path}.default");
        if !schemas::is_pruned(schema, default) {
            causes.push(Cause::invalid(&at, default, "must not have unknown fields"));
        }
        let found = schemas::validate_part(schema, default, &at);
        let sound = found.is_empty();
        causes.extend(found);
        // As the value of an object that is new, and of one that stays as it is.
        for old in [Some(default), None] {
            if !sound || *budget == 0 {
                break;
            }
            let options = rules::Options {
                cost_max: *budget,
                root,
                ratchets: false,
            };
            let judgement = rules::judge(schema, default, old, options);
            let ended = !judgement.causes.is_empty();
            for mut cause in judgement.causes {
                cause.field = match cause.field.as_str() {
                    "<nil>" | "" => at.clone(),
                    below => format!("{at}.{below}"),
                };
                causes.push(cause);
            }
            *budget = budget.saturating_sub(judgement.cost.unwrap_or(*budget));
            if ended {
                break;
            }
        }
    }
    if let Some(item) = schema.items() {
        default_at(item, &format!("{path}.items"), false, budget, causes);
    }
    for (name, field) in schema.properties() {
        let at = format!("{path}.properties[{name}]");
        default_at(field, &at, false, budget, causes);
    }
}

/// The rules of OpenAPI, as far as definitions follow it.
#[derive(Default)]
struct OpenApi {
    causes: Vec<Cause>,
    /// Whether there is something that no structural schema can be made from.
    unsupported: bool,
}

/// Where a place of a schema stands.
#[derive(Clone, Copy, Default)]
struct Around {
    /// Why no defaults may be set here.
    no_defaults: Option<&'static str>,
    in_metadata: bool,
}

impl OpenApi {
    fn forbidden(&mut self, path: &str, member: &str, detail: &str) {
        self.causes
            .push(Cause::forbidden(&format!("{path}.{member}"), detail));
    }

    fn required(&mut self, path: &str, member: &str, detail: &str) {
        self.causes
            .push(Cause::required(&format!("{path}.{member}"), detail));
    }

    fn invalid(&mut self, path: &str, member: &str, value: &Value, detail: &str) {
        self.causes
            .push(Cause::invalid(&format!("{path}.{member}"), value, detail));
    }

    fn place(&mut self, schema: &Value, path: &str, root: bool, around: Around) {
        self.members(schema, path, around);
        if flag(schema, "/uniqueItems") {
            let told =
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden(path, "uniqueItems", told);
        }
        let properties = object(schema, "/properties").filter(|map| !map.is_empty());
        let additional = schema
            .get("additionalProperties")
            .filter(|it| !it.is_null());
        if let Some(additional) = additional {
            if properties.is_some() && *additional != true {
                let told = "additionalProperties and properties are mutual exclusive";
                self.forbidden(path, "additionalProperties", told);
            }
            let mut around = around;
            if around.in_metadata {
                around.no_defaults =
                    Some("inside additionalProperties applying to object metadata");
            }
            if additional.is_object() {
                self.place(
                    additional,
                    &format!("{path}.additionalProperties"),
                    false,
                    around,
                );
            }
        }
        let embedded = flag(schema, "/x-kubernetes-embedded-resource");
        for (name, field) in properties.into_iter().flatten() {
            let mut around = around;
            if (root || embedded) && META.contains(&name.as_str()) {
                around.in_metadata = true;
                if root {
                    around.no_defaults = Some(match name.as_str() {
                        "metadata" => "in top-level metadata",
                        "kind" => "in top-level kind",
                        _ => "in top-level apiVersion",
                    });
                }
            }
            self.place(field, &format!("{path}.properties[{name}]"), false, around);
        }
        if let Some(not) = schema.get("not").filter(|not| not.is_object()) {
            self.place(not, &format!("{path}.not"), false, around);
        }
        for member in ["allOf", "oneOf", "anyOf"] {
            let list = schema.get(member).and_then(Value::as_array);
            for (index, part) in list.into_iter().flatten().enumerate() {
                self.place(part, &format!("{path}.{member}[{index}]"), false, around);
            }
        }
        if let Some(item) = schema.get("items").filter(|item| item.is_object()) {
            self.place(item, &format!("{path}.items"), false, around);
        }
        self.lists(schema, path);
    }

    fn members(&mut self, schema: &Value, path: &str, around: Around) {
        let kind = text(schema, "/type");
        if !kind.is_empty() && !TYPES.contains(&kind) {
            let at = format!("{path}.type");
            self.causes
                .push(Cause::not_supported(&at, &kind.into(), TYPES));
        }
        if let Some(reason) = around
            .no_defaults
            .filter(|_| schema.get("default").is_some())
        {
            self.forbidden(path, "default", &format!("must not be set {reason}"));
        }
        for (member, detail) in [
            ("id", "id is not supported"),
            ("additionalItems", "additionalItems is not supported"),
            ("patternProperties", "patternProperties is not supported"),
            ("definitions", "definitions is not supported"),
            ("dependencies", "dependencies is not supported"),
            ("$ref", "$ref is not supported"),
        ] {
            if schema.get(member).is_some_and(|value| !value.is_null()) {
                self.unsupported = true;
                self.forbidden(path, member, detail);
            }
        }
        if schema.get("$schema").is_some_and(|value| !value.is_null()) {
            self.unsupported = true;
            let told = "OpenAPIV3Schema 'schema' is not supported";
            self.causes.push(Cause::invalid(path, &"".into(), told));
        }
        if kind == "null" {
            let told = "type cannot be set to null, use nullable as an alternative";
            self.forbidden(path, "type", told);
        }
        if schema.get("items").is_some_and(Value::is_array) {
            self.unsupported = true;
            let told = "items must be a schema object and not an array";
            self.forbidden(path, "items", told);
        }
        if around.in_metadata && flag(schema, "/x-kubernetes-embedded-resource") {
            let told = "must not be used inside of resource meta";
            self.forbidden(path, "x-kubernetes-embedded-resource", told);
        }
        if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(false)) {
            self.unsupported = true;
            let member = "x-kubernetes-preserve-unknown-fields";
            self.invalid(path, member, &json!(false), "must be true or undefined");
        }
    }

    fn typed(&mut self, schema: &Value, path: &str, wanted: &str, marker: &str) -> bool {
        let kind = text(schema, "/type");
        if kind == wanted {
            return true;
        }
        let told = format!("must be {wanted} if {marker} is specified");
        match kind {
            "" => self.required(path, "type", &told),
            kind => self.invalid(path, "type", &kind.into(), &told),
        }
        false
    }

    fn lists(&mut self, schema: &Value, path: &str) {
        const LIST_TYPE: &str = "x-kubernetes-list-type";
        const MAP_TYPE: &str = "x-kubernetes-map-type";
        const KEYS: &str = "x-kubernetes-list-map-keys";
        let mark = |member: &str| schema.get(member).and_then(Value::as_str);
        if let Some(map_type) = mark(MAP_TYPE) {
            self.typed(schema, path, "object", MAP_TYPE);
            if !matches!(map_type, "atomic" | "granular") {
                let at = format!("{path}.{MAP_TYPE}");
                let known = &["atomic", "granular"];
                self.causes
                    .push(Cause::not_supported(&at, &map_type.into(), known));
            }
        }
        let list_type = mark(LIST_TYPE);
        let item = schema.get("items").filter(|item| item.is_object());
        if list_type.is_some()
            && self.typed(schema, path, "array", LIST_TYPE)
            && list_type == Some("set")
            && let Some(item) = item
        {
            let told = "must be atomic as item of a list with x-kubernetes-list-type=set";
            let at = format!("{path}.items");
            let inner = |member: &str| item.get(member).cloned().unwrap_or_default();
            match text(item, "/type") {
                "array" if !matches!(inner(LIST_TYPE).as_str(), None | Some("atomic")) => {
                    self.invalid(&at, LIST_TYPE, &inner(LIST_TYPE), told);
                }
                "object" if inner(MAP_TYPE) != "atomic" => {
                    self.invalid(&at, MAP_TYPE, &inner(LIST_TYPE), told);
                }
                _ => {}
            }
        }
        if let Some(kind) = list_type.filter(|kind| !matches!(*kind, "atomic" | "set" | "map")) {
            let at = format!("{path}.{LIST_TYPE}");
            let known = &["atomic", "set", "map"];
            self.causes
                .push(Cause::not_supported(&at, &kind.into(), known));
        }
        let keys = items(schema, &format!("/{KEYS}"));
        if !keys.is_empty() && list_type != Some("map") {
            let told = "must be map if x-kubernetes-list-map-keys is non-empty";
            match list_type {
                None => self.required(path, LIST_TYPE, told),
                Some(kind) => self.invalid(path, LIST_TYPE, &kind.into(), told),
            }
        }
        if list_type == Some("map") {
            if keys.is_empty() {
                let told = "must not be empty if x-kubernetes-list-type is map";
                self.required(path, KEYS, told);
            }
            match item {
                None => {
                    let told = "must have a schema if x-kubernetes-list-type is map";
                    self.required(path, "items", told);
                }
                Some(item) => self.keys(item, keys, path),
            }
        }
        self.identities(list_type, item, keys, path);
    }

    fn keys(&mut self, item: &Value, keys: &[Value], path: &str) {
        const KEYS: &str = "x-kubernetes-list-map-keys";
        let kind = text(item, "/type");
        if kind != "object" {
            let told = "must be object if parent array's x-kubernetes-list-type is map";
            self.invalid(&format!("{path}.items"), "type", &kind.into(), told);
            return;
        }
        let all = Value::from(keys);
        let mut seen = BTreeSet::new();
        for key in keys.iter().filter_map(Value::as_str) {
            let property = item.get("properties").and_then(|all| all.get(key));
            match property.map(|property| text(property, "/type")) {
                Some("array" | "object") => {
                    let told =
                        "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    let at = format!("{path}.items.properties[{key}]");
                    self.invalid(&at, "type", &"object".into(), told);
                }
                Some(_) => {}
                None => {
                    let told = "entries must all be names of item properties";
                    self.invalid(path, KEYS, &all, told);
                }
            }
            if !seen.insert(key) {
                self.invalid(path, KEYS, &all, "must not contain duplicate entries");
            }
        }
    }

    /// What elements are known by is there, and is something.
    fn identities(
        &mut self,
        list_type: Option<&str>,
        item: Option<&Value>,
        keys: &[Value],
        path: &str,
    ) {
        let (Some(kind @ ("set" | "map")), Some(item)) = (list_type, item) else {
            return;
        };
        let at = format!("{path}.items");
        if flag(item, "/nullable") {
            let told = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
            self.forbidden(&at, "nullable", &told);
        }
        if kind != "map" {
            return;
        }
        let required = items(item, "/required");
        for key in keys.iter().filter_map(Value::as_str) {
            let Some(property) = item.get("properties").and_then(|all| all.get(key)) else {
                continue;
            };
            let at = format!("{at}.properties[{key}]");
            let given =
                required.iter().any(|name| name == key) || property.get("default").is_some();
            if !given {
                let told = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.required(&at, "default", told);
            }
            if flag(property, "/nullable") {
                let told =
                    "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.forbidden(&at, "nullable", told);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CUSTOM_RESOURCE_DEFINITION as KIND;
    use crate::validate::told::{check, of_new, of_update, with};

    fn base() -> Value {
        json!({
            "metadata": { "name": "widgets.example.com" },
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": { "plural": "widgets", "kind": "Widget" },
                "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                    "type": "object", "properties": { "spec": { "type": "object", "properties": { "size": { "type": "integer" } } } },
                } } }],
            },
        })
    }

    const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

    #[test]
    fn names_versions_and_parts_are_held_to_the_rules() {
        check(
            &KIND,
            &base(),
            &[
                (
                    "/metadata/name",
                    json!("widgets.other.com"),
                    &[
                        "metadata.name: Invalid value: \"widgets.other.com\": must be spec.names.plural+\".\"+spec.group",
                    ],
                ),
                (
                    "/spec/scope",
                    json!("Global"),
                    &[
                        "spec.scope: Unsupported value: \"Global\": supported values: \"Cluster\", \"Namespaced\"",
                    ],
                ),
                ("/spec/scope", json!(""), &["spec.scope: Required value"]),
                (
                    "/spec/versions/0/storage",
                    json!(false),
                    &[
                        "spec.versions: Invalid value: [{\"name\":\"v1\",\"schema\":{\"openAPIV3Schema\":{\"properties\":{\"spec\":{\"properties\":{\"size\":{\"type\":\"integer\"}},\"type\":\"object\"}},\"type\":\"object\"}},\"served\":true,\"storage\":false}]: must have exactly one version marked as storage version",
                        "status.storedVersions: Invalid value: []: must have at least one stored version",
                    ],
                ),
                (
                    "/spec/versions/0/name",
                    json!("V1"),
                    &[
                        "spec.versions[0].name: Invalid value: \"V1\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                    ],
                ),
                (
                    "/spec/versions/0/schema",
                    Value::Null,
                    &["spec.versions[0].schema.openAPIV3Schema: Required value"],
                ),
                (
                    "/spec/names/listKind",
                    json!("Widget"),
                    &[
                        "spec.names.listKind: Invalid value: \"Widget\": kind and listKind may not be the same",
                    ],
                ),
                (
                    "/spec/versions/0/deprecationWarning",
                    json!("old"),
                    &[
                        "spec.versions[0].deprecationWarning: Invalid value: \"old\": can only be set for deprecated versions",
                    ],
                ),
                (
                    "/spec/versions/0/additionalPrinterColumns",
                    json!([{ "name": "A", "type": "int", "jsonPath": "spec.a", "format": "x" }, { "type": "string" }]),
                    &[
                        "spec.additionalPrinterColumns[0].type: Invalid value: \"int\": must be one of boolean,date,integer,number,string",
                        "spec.additionalPrinterColumns[0].format: Invalid value: \"x\": must be one of byte,date,date-time,double,float,int32,int64,password",
                        "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"spec.a\": must be a simple json path starting with .",
                        "spec.additionalPrinterColumns[1].name: Required value",
                        "spec.additionalPrinterColumns[1].JSONPath: Required value",
                    ],
                ),
                (
                    "/spec/versions/0/subresources",
                    json!({ "scale": { "specReplicasPath": ".status.a", "labelSelectorPath": ".metadata.x" } }),
                    &[
                        "spec.subresources.scale.specReplicasPath: Invalid value: \".status.a\": should be a json path under .spec",
                        "spec.subresources.scale.statusReplicasPath: Required value",
                        "spec.subresources.scale.labelSelectorPath: Invalid value: \".metadata.x\": should be a json path under either .spec or .status",
                    ],
                ),
                (
                    "/spec/versions/0/selectableFields",
                    json!([{ "jsonPath": ".spec.size" }, { "jsonPath": ".spec.size" }, { "jsonPath": ".spec" }, { "jsonPath": ".spec.none" }, { "jsonPath": ".spec['a']" }, {}]),
                    &[
                        "spec.selectableFields[1].jsonPath: Duplicate value: \".spec.size\"",
                        "spec.selectableFields[2].jsonPath: Invalid value: \".spec\": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
                        "spec.selectableFields[3].jsonPath: Invalid value: \".spec.none\": is an invalid path: does not refer to a valid field",
                        "spec.selectableFields[4].jsonPath: Invalid value: \".spec['a']\": is an invalid path: array notation is not allowed",
                        "spec.selectableFields[5].jsonPath: Required value",
                    ],
                ),
                (
                    "/spec/preserveUnknownFields",
                    json!(true),
                    &[
                        "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
                    ],
                ),
                (
                    "/spec/conversion",
                    json!({ "strategy": "Webhook" }),
                    &[
                        "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
                        "spec.conversion.conversionReviewVersions: Required value",
                    ],
                ),
                (
                    "/spec/conversion",
                    json!({ "strategy": "Webhook", "webhook": { "clientConfig": { "url": "http://u@h?x" }, "conversionReviewVersions": ["v2", "v2"] } }),
                    &[
                        "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                        "spec.conversion.webhookClientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
                        "spec.conversion.webhookClientConfig.url: Invalid value: \"x\": query parameters are not permitted in the URL",
                        "spec.conversion.conversionReviewVersions[1]: Invalid value: \"v2\": duplicate version",
                        "spec.conversion.conversionReviewVersions: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1",
                    ],
                ),
                (
                    "/spec/conversion",
                    json!({ "strategy": "None", "webhook": { "clientConfig": { "url": "https://h" }, "conversionReviewVersions": ["v1"] } }),
                    &[
                        "spec.conversion.webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook",
                        "spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook",
                    ],
                ),
            ],
        );
    }

    #[test]
    fn schemas_are_judged_where_upstream_judges_them() {
        let path = |below: &str| format!("{SCHEMA}{below}");
        let told = |below: &str, value: Value| of_new(&KIND, &with(&base(), &path(below), value));
        for (below, value, expected) in [
            (
                "/type",
                json!("string"),
                &[
                    "spec.validation.openAPIV3Schema.type: Invalid value: \"string\": must be object at the root",
                ][..],
            ),
            (
                "/nullable",
                json!(true),
                &[
                    "spec.validation.openAPIV3Schema.nullable: Forbidden: nullable cannot be true at the root",
                ],
            ),
            (
                "/properties/spec/properties/size/type",
                json!("int"),
                &[
                    "spec.validation.openAPIV3Schema.properties[spec].properties[size].type: Unsupported value: \"int\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
                ],
            ),
            (
                "/properties/spec/properties/size",
                json!({ "type": "integer", "default": "x" }),
                &[
                    "spec.validation.openAPIV3Schema.properties[spec].properties[size].default: Invalid value: \"string\": spec.validation.openAPIV3Schema.properties[spec].properties[size].default in body must be of type integer: \"string\"",
                ],
            ),
            (
                "/properties/spec/default",
                json!({ "sizes": 1 }),
                &[
                    "spec.validation.openAPIV3Schema.properties[spec].default: Invalid value: {\"sizes\":1}: must not have unknown fields",
                ],
            ),
            (
                "/properties/metadata",
                json!({ "type": "object", "default": {} }),
                &[
                    "spec.validation.openAPIV3Schema.properties[metadata].default: Forbidden: must not be set in top-level metadata",
                ],
            ),
            (
                "/properties/spec/additionalProperties",
                json!({ "type": "string" }),
                &[
                    "spec.validation.openAPIV3Schema.properties[spec].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
                ],
            ),
            (
                "/properties/list",
                json!({ "type": "array", "x-kubernetes-list-type": "map", "items": { "type": "object", "properties": { "a": { "type": "string" } } }, "x-kubernetes-list-map-keys": ["a", "b"] }),
                &[
                    "spec.validation.openAPIV3Schema.properties[list].x-kubernetes-list-map-keys: Invalid value: [\"a\",\"b\"]: entries must all be names of item properties",
                    "spec.validation.openAPIV3Schema.properties[list].items.properties[a].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                ],
            ),
            (
                "/properties/list",
                json!({ "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "object", "nullable": true } }),
                &[
                    "spec.validation.openAPIV3Schema.properties[list].items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
                    "spec.validation.openAPIV3Schema.properties[list].items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is set",
                ],
            ),
            (
                "/properties/spec/uniqueItems",
                json!(true),
                &[
                    "spec.validation.openAPIV3Schema.properties[spec].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
                ],
            ),
            (
                "/properties/spec/$ref",
                json!("#/x"),
                &[
                    "spec.validation.openAPIV3Schema.properties[spec].$ref: Forbidden: $ref is not supported",
                ],
            ),
            (
                "/properties/spec/x-kubernetes-validations",
                json!([{ "rule": "self.size > 0" }, { "rule": "self.nothing > 0" }]),
                &[
                    "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[1].rule: Invalid value: \"self.nothing > 0\": compilation failed: ERROR: <input>:1:5: undefined field 'nothing'\n | self.nothing > 0\n | ....^",
                ],
            ),
            (
                "/properties/list",
                json!({ "type": "array", "items": { "type": "array", "items": { "type": "string", "x-kubernetes-validations": [{ "rule": "self.matches('a.*b')" }] } } }),
                &[
                    "spec.validation.openAPIV3Schema.properties[list].items.items.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
                ],
            ),
        ] {
            let found = told(below, value.clone());
            let found: Vec<&str> = found
                .iter()
                .map(String::as_str)
                .take(expected.len().max(1))
                .collect();
            assert_eq!(found, expected, "{below} = {value}");
        }
        // Where versions differ, each is told of at its own place; what all have alike is told of above them.
        let mut two = base();
        let mut other = two["spec"]["versions"][0].clone();
        other["name"] = "v2".into();
        other["storage"] = false.into();
        other["schema"]["openAPIV3Schema"]["properties"]["spec"]["type"] = "".into();
        let versions = two["spec"]["versions"].as_array_mut().unwrap();
        versions.push(other);
        assert_eq!(
            of_new(&KIND, &two),
            [
                "spec.versions[1].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields"
            ]
        );
    }

    #[test]
    fn what_objects_depend_on_stays() {
        let old = with(
            &base(),
            "/status",
            json!({
                "storedVersions": ["v1"], "conditions": [{ "type": "Established", "status": "True" }],
            }),
        );
        let told = |pointer: &str, value: Value| {
            let new = with(&old, pointer, value);
            of_update(&KIND, &new, &old, None)
        };
        assert_eq!(told("/metadata/labels", json!({ "a": "b" })), [""; 0]);
        assert_eq!(
            told("/spec/scope", json!("Cluster")),
            ["spec.scope: Invalid value: \"Cluster\": field is immutable"]
        );
        assert_eq!(
            told("/spec/names/kind", json!("Gadget")),
            ["spec.names.kind: Invalid value: \"Gadget\": field is immutable"]
        );
        let renamed = told("/spec/versions/0/name", json!("v2"));
        assert_eq!(
            renamed,
            [
                "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions"
            ]
        );
    }

    #[test]
    fn groups_of_kubernetes_need_approval() {
        let mut definition = base();
        definition["metadata"]["name"] = "widgets.x.k8s.io".into();
        definition["spec"]["group"] = "x.k8s.io".into();
        assert_eq!(
            of_new(&KIND, &definition),
            [
                "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111"
            ]
        );
        let annotated = |text: &str| {
            let annotations = json!({ "api-approved.kubernetes.io": text });
            of_new(
                &KIND,
                &with(&definition, "/metadata/annotations", annotations),
            )
        };
        assert_eq!(
            annotated("https://github.com/kubernetes/enhancements/pull/1"),
            [""; 0]
        );
        assert_eq!(annotated("unapproved, for a test"), [""; 0]);
        assert!(annotated("yes")[0].contains("with either a URL or a reason"));
        assert!(is_protected("k8s.io") && is_protected("a.kubernetes.io"));
        assert!(!is_protected("ak8s.io") && !is_protected("k8s.io.example.com"));
    }
}
