//! `certificates.k8s.io`: requests for certificates. Who asks is written down when it is created; what is asked never changes.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use weft_api::name;
use weft_api::status::StatusError;

use crate::apply::Writable;
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::kind::{NameRule, Selectable};
use crate::lens::{integer, member, put, text};
use crate::strategy::{Strategy, Surroundings, replace_part};
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static CERTIFICATE_SIGNING_REQUEST: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["csr".into()],
        namespaced: false,
        subresources: vec![Subresource::Status, Subresource::Approval],
        columns: vec![
            Column::name(),
            Column::age(),
            Column::text("SignerName", signer, "Who is asked to sign."),
            Column::text("Requestor", requestor, "Who asks."),
            Column::text("RequestedDuration", duration, "For how long."),
            Column::text("Condition", condition, "What became of it."),
        ],
        selectable: vec![Selectable::new("spec.signerName", "/spec/signerName")],
        name_rule: NameRule::PathSegment,
        strategy: Arc::new(SigningRequests),
        ..Kind::new(
            "certificates.k8s.io",
            "v1",
            "CertificateSigningRequest",
            "certificatesigningrequests",
        )
    })
});

/// What a certificate can be for, as Kubernetes names it.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const EXPIRATION_SECONDS_MIN: i64 = 600;
/// A domain, a slash, a label, a dot and a name.
const SIGNER_BYTES_MAX: usize = 253 + 1 + 63 + 1 + 253;

struct SigningRequests;

impl Strategy for SigningRequests {
    fn writable(&self, _: &Kind, part: Option<Subresource>) -> Writable {
        match part {
            Some(Subresource::Approval) => {
                Writable::except(&[&["metadata"], &["spec"], &["status", "certificate"]])
            }
            // Conditions are those of approval.
            Some(Subresource::Status) => {
                Writable::except(&[&["metadata"], &["spec"], &["status", "conditions"]])
            }
            _ => Writable::except(&[&["spec"], &["status"]]),
        }
    }

    fn prepare_for_update(
        &self,
        kind: &Kind,
        part: Option<Subresource>,
        proposed: Value,
        old: &Value,
    ) -> Value {
        match part {
            None => {
                let mut next = replace_part(kind, part, proposed, old);
                put(&mut next, "spec", old.get("spec").cloned());
                next
            }
            Some(Subresource::Approval) => {
                let mut next = old.clone();
                let conditions = proposed.pointer("/status/conditions").cloned();
                put(member(&mut next, "status"), "conditions", conditions);
                next
            }
            Some(_) => replace_part(kind, part, proposed, old),
        }
    }

    fn admit(&self, new: &mut Value, around: &dyn Surroundings) -> Result<(), StatusError> {
        let requester = around.requester();
        let spec = member(new, "spec");
        spec["username"] = requester.user.into();
        spec["groups"] = json!(requester.groups);
        put(spec, "uid", requester.uid.map(Value::from));
        Ok(())
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        let request = spec.child("request");
        if request.text().is_empty() {
            let sentence = "PEM block type must be CERTIFICATE REQUEST";
            problems.invalid(&request, request.shown(), sentence);
        }
        let usages = spec.child("usages");
        if usages.list().is_empty() {
            problems.required(&usages, "");
        }
        for (index, usage) in spec.items("usages").enumerate() {
            problems.one_of(&usage, USAGES);
            if usages.list()[..index].contains(&usages.list()[index]) {
                problems.duplicate(&usage, usage.text());
            }
        }
        signer_name(&spec.child("signerName"), problems);
        let expires = spec.child("expirationSeconds");
        if let Some(seconds) = expires.integer().filter(|n| *n < EXPIRATION_SECONDS_MIN) {
            let sentence = "may not specify a duration less than 600 seconds (10 minutes)";
            problems.invalid(&expires, seconds, sentence);
        }
        conditions(&root, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        self.validate(new, problems);
        let (root, before) = (Field::root(new), Field::root(old));
        problems.immutable(&root.child("spec"), &before.child("spec"));
        let all = root.child("status.conditions");
        for kind in ["Approved", "Denied", "Failed"] {
            let (now, kept) = (conditions_of(&root, kind), conditions_of(&before, kind));
            if now.len() < kept.len() {
                let sentence = format!("updates may not remove a condition of type {kind:?}");
                problems.forbidden(&all, &sentence);
            } else if kind != "Failed" && part != Some(Subresource::Approval) {
                if now.len() > kept.len() {
                    let sentence = format!("updates may not add a condition of type {kind:?}");
                    problems.forbidden(&all, &sentence);
                } else if now != kept {
                    let sentence = format!("updates may not modify a condition of type {kind:?}");
                    problems.forbidden(&all, &sentence);
                }
            }
        }
        let (issued, kept) = (
            root.child("status.certificate"),
            before.child("status.certificate"),
        );
        if issued.text() != kept.text() {
            if part != Some(Subresource::Status) {
                problems.forbidden(&issued, "updates may not set certificate content");
            } else if !kept.text().is_empty() {
                let sentence = "updates may not modify existing certificate content";
                problems.forbidden(&issued, sentence);
            }
            if !issued.text().is_empty() && !is_pem_certificate(issued.text()) {
                let sentence = "must contain at least one CERTIFICATE PEM block";
                problems.invalid(&issued, "<certificate data>", sentence);
            }
        }
    }
}

/// Whether base64 holds what at least looks like a certificate in PEM; whoever uses it reads the rest.
fn is_pem_certificate(base64: &str) -> bool {
    let bytes = STANDARD.decode(base64).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.lines()
        .any(|line| line.trim_end() == "-----BEGIN CERTIFICATE-----")
}

fn conditions_of<'a>(request: &Field<'a, '_>, kind: &str) -> Vec<&'a Value> {
    let all = request.child("status.conditions").value();
    let all = all.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    all.iter()
        .filter(|condition| text(condition, "/type") == kind)
        .collect()
}

fn conditions(root: &Field<'_, '_>, problems: &mut Problems) {
    let all = root.child("status.conditions");
    let mut seen = BTreeSet::new();
    for condition in root.items("status.conditions") {
        let kind = condition.child("type");
        problems.required_text(&kind);
        let status = condition.child("status");
        let final_only = matches!(kind.text(), "Approved" | "Denied" | "Failed");
        if final_only {
            problems.required_one_of(&status, &["True"]);
        } else {
            problems.required_one_of(&status, &["False", "True", "Unknown"]);
        }
        let opposite = match kind.text() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if seen.contains(opposite) {
            let sentence = "Approved and Denied conditions are mutually exclusive";
            problems.invalid(&all, kind.text(), sentence);
        }
        if !seen.insert(kind.text()) {
            problems.duplicate(&kind, kind.text());
        }
    }
}

/// `example.com/signer`: whom a request is for.
fn signer_name(field: &Field<'_, '_>, problems: &mut Problems) {
    let text = field.text();
    if text.is_empty() {
        return problems.required(field, "");
    }
    let Some((domain, path)) = text.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let sentence =
            "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return problems.invalid(field, text, sentence);
    };
    let first_fault = |of: &str, rule: fn(&str) -> Vec<String>| {
        let mut labels = of.split('.').map(|label| (label.to_owned(), rule(label)));
        labels.find(|(_, faults)| !faults.is_empty())
    };
    if let Some((label, faults)) = first_fault(domain, name::dns1123_label_faults) {
        for fault in faults {
            let sentence = format!("validating label {label:?}: {fault}");
            problems.invalid(field, domain, &sentence);
        }
    }
    if !domain.contains('.') {
        let sentence = "should be a domain with at least two segments separated by dots";
        problems.invalid(field, domain, sentence);
    }
    if let Some((label, faults)) = first_fault(path, name::dns1123_subdomain_faults) {
        for fault in faults {
            let sentence = format!("validating label {label:?}: {fault}");
            problems.invalid(field, path, &sentence);
        }
    }
    if text.len() > SIGNER_BYTES_MAX {
        problems.too_long(field, SIGNER_BYTES_MAX);
    }
}

fn signer(row: &Row<'_>) -> Value {
    row.text_or("/spec/signerName", "<none>")
}

fn requestor(row: &Row<'_>) -> Value {
    row.text_or("/spec/username", "")
}

fn duration(row: &Row<'_>) -> Value {
    match integer(row.object, "/spec/expirationSeconds") {
        Some(seconds) => {
            let seconds = u64::try_from(seconds).unwrap_or(0);
            weft_api::time::short_duration(Duration::from_secs(seconds)).into()
        }
        None => "<none>".into(),
    }
}

fn condition(row: &Row<'_>) -> Value {
    let mut condition = if row.condition("Approved").is_some() {
        "Approved".to_owned()
    } else if row.condition("Denied").is_some() {
        "Denied".to_owned()
    } else {
        "Pending".to_owned()
    };
    if row.condition("Failed").is_some() {
        condition.push_str(",Failed");
    }
    if !text(row.object, "/status/certificate").is_empty() {
        condition.push_str(",Issued");
    }
    condition.into()
}
