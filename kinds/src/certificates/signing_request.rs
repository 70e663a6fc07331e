//! Requests for certificates. Who asks is written down when it is created; what is asked never changes.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use weft_api::status::StatusError;
use weft_api::time::rfc3339;

use super::{GROUP, may_act_for, pem, signer_name, x509};
use crate::apply::Writable;
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::kind::{NameRule, Selectable};
use crate::lens::{fill, integer, items, items_mut, member, put, text};
use crate::strategy::{Strategy, Surroundings, replace_part};
use crate::validate::Problems;
use crate::{Kind, StatusMetadata, Subresource};

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
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(SigningRequests),
        ..Kind::new(
            GROUP,
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
/// The signer of clients' certificates, and the group that it may not sign for.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const MASTERS: &str = "system:masters";

struct SigningRequests;

impl Strategy for SigningRequests {
    fn writable(&self, _: &Kind, part: Option<Subresource>) -> Writable {
        match part {
            Some(Subresource::Approval) => {
                Writable::except(&[&["spec"], &["status", "certificate"]])
            }
            // Conditions are those of approval.
            Some(Subresource::Status) => Writable::except(&[&["spec"], &["status", "conditions"]]),
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
                put(&mut next, "metadata", proposed.get("metadata").cloned());
                next
            }
            Some(_) => {
                let mut next = replace_part(kind, part, proposed, old);
                keep_decisions(&mut next, old);
                next
            }
        }
    }

    /// When conditions that are new were reported, and since when they hold.
    fn allocate(
        &self,
        new: &mut Value,
        old: Option<&Value>,
        around: &dyn Surroundings,
    ) -> Result<(), StatusError> {
        const CONDITIONS: &str = "/status/conditions";
        let before = old.map_or(&[][..], |old| items(old, CONDITIONS));
        if items(new, CONDITIONS) == before {
            return Ok(());
        }
        let now = rfc3339(around.now());
        for condition in items_mut(new, CONDITIONS) {
            fill(condition, "lastUpdateTime", now.as_str());
            let same = |one: &&Value| {
                one["type"] == condition["type"] && one["status"] == condition["status"]
            };
            let since = before.iter().find(same);
            let since = since.map_or("", |one| text(one, "/lastTransitionTime"));
            let since = if since.is_empty() { &now } else { since };
            fill(condition, "lastTransitionTime", since);
        }
        Ok(())
    }

    fn admit(&self, new: &mut Value, around: &dyn Surroundings) -> Result<(), StatusError> {
        let requester = around.requester();
        let spec = member(new, "spec");
        spec["username"] = requester.user.into();
        spec["groups"] = json!(requester.groups);
        put(spec, "uid", requester.uid.map(Value::from));
        let extra = requester.extra.filter(|extra| !extra.is_empty());
        put(spec, "extra", extra.map(|extra| json!(extra)));
        Ok(())
    }

    /// Who approves and who signs has the right to, for this signer; and nobody becomes a master by asking.
    fn judge(
        &self,
        new: &Value,
        old: Option<&Value>,
        part: Option<Subresource>,
        around: &dyn Surroundings,
    ) -> Result<(), StatusError> {
        let signer = text(old.unwrap_or(new), "/spec/signerName");
        let refused = |detail: String| {
            let name = text(new, "/metadata/name");
            let resource = &CERTIFICATE_SIGNING_REQUEST.resource;
            Err(StatusError::forbidden(resource, GROUP, name, &detail))
        };
        match (part, old) {
            (None, None) if signer == CLIENT_SIGNER && asks_to_be_master(new) => refused(format!(
                "use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"
            )),
            (Some(Subresource::Approval), Some(_)) if !may_act_for(signer, "approve", around) => {
                refused(format!(
                    "user not permitted to approve requests with signerName {signer:?}"
                ))
            }
            (Some(Subresource::Status), Some(old)) => {
                let differs = |pointer| old.pointer(pointer) != new.pointer(pointer);
                let signs = differs("/status/certificate") || differs("/status/conditions");
                if !signs || may_act_for(signer, "sign", around) {
                    return Ok(());
                }
                refused(format!(
                    "user not permitted to sign requests with signerName {signer:?}"
                ))
            }
            _ => Ok(()),
        }
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

/// Who reports does not decide: what is said again of an approval or a denial is as it was.
fn keep_decisions(next: &mut Value, old: &Value) {
    for kind in ["Approved", "Denied"] {
        let is_decision = |condition: &&Value| text(condition, "/type") == kind;
        let kept: Vec<&Value> = items(old, "/status/conditions")
            .iter()
            .filter(is_decision)
            .collect();
        let said = items(next, "/status/conditions").iter();
        if said.filter(is_decision).count() != kept.len() {
            continue;
        }
        let said = items_mut(next, "/status/conditions");
        let said = said.filter(|condition| text(condition, "/type") == kind);
        for (condition, kept) in said.zip(kept) {
            *condition = kept.clone();
        }
    }
}

/// Whether the organisation in a request is the masters', which whoever is called so belongs to. One that cannot be read asks for nothing
/// that a signer could give.
fn asks_to_be_master(request: &Value) -> bool {
    let pem = STANDARD.decode(text(request, "/spec/request"));
    let pem = String::from_utf8(pem.unwrap_or_default()).unwrap_or_default();
    let asked = pem::next(&pem).and_then(|(block, _)| x509::request(&block.bytes));
    asked.is_some_and(|asked| asked.organisations.iter().any(|one| one == MASTERS))
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
