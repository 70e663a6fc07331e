//! What a definition may say, in upstream's words and at upstream's paths.
//!
//! Upstream judges a form of its own, in which what all versions have alike stands once, above them: faults of the schema of a definition
//! with one version are told at `spec.validation`, not at `spec.versions[0].schema`.
//!
//! Source: k8s.io/apiextensions-apiserver `pkg/apis/apiextensions/validation`, `pkg/apiserver/schema/defaulting/validation.go`.

mod approval;
mod conversion;
mod open_api;
mod parts;
mod schema;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weft_api::name::{dns1035_label_faults, dns1123_subdomain_faults};
use weft_api::status::Cause;

use self::approval::APPROVED;
pub(super) use self::approval::{Approval, approval, is_protected};
pub(super) use self::conversion::ca_bundle_fault;
use crate::lens::{condition_is_true, flag, items, text};
use crate::schema::{Node, Schema};

const DEPRECATION_BYTES_MAX: usize = 256;

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
            let shown = new["status"]["storedVersions"].clone();
            self.invalid(PATH, shown, "must have at least one stored version");
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

#[cfg(test)]
mod tests;
