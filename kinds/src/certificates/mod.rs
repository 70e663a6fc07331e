//! `certificates.k8s.io`: requests for certificates, those of pods among them, and what certificates are verified by.
//!
//! A signer is named `example.com/signer`. Who may approve, sign or attest for one is a right of its own, over `signers` that are no
//! objects: [`may_act_for`] asks for it.

mod pem;
mod pod_request;
mod signing_request;
mod trust_bundle;
mod x509;

pub use pod_request::POD_CERTIFICATE_REQUEST;
pub use signing_request::CERTIFICATE_SIGNING_REQUEST;
pub use trust_bundle::CLUSTER_TRUST_BUNDLE;

pub(crate) use pod_request::{KUBERNETES_LIFE_SECONDS_MAX, LIFE_SECONDS_MAX, LIFE_SECONDS_MIN};
pub(crate) use trust_bundle::{name_faults, signer_of};

use weft_api::name;

use crate::cel::{Question, Subject};
use crate::field::Field;
use crate::strategy::Surroundings;
use crate::validate::Problems;

const GROUP: &str = "certificates.k8s.io";

/// A domain, a slash, a label, a dot and a name.
const SIGNER_BYTES_MAX: usize = 253 + 1 + 63 + 1 + 253;

/// Whether a signer is one of Kubernetes' own.
pub(crate) fn is_kubernetes_signer(name: &str) -> bool {
    let domain = name.split('/').next().unwrap_or(name);
    domain == "kubernetes.io" || domain.ends_with(".kubernetes.io")
}

/// Whether who asks may do this for a signer, by its name or for all of its domain.
fn may_act_for(signer: &str, verb: &str, around: &dyn Surroundings) -> bool {
    let may = |name: &str| {
        around.allows(&Question {
            account: None,
            verb: verb.to_owned(),
            subject: Subject::Resource {
                group: GROUP.to_owned(),
                resource: "signers".to_owned(),
                subresource: String::new(),
                namespace: String::new(),
                name: name.to_owned(),
                field_selector: String::new(),
                label_selector: String::new(),
            },
        })
    };
    let domain = signer.split('/').next().unwrap_or(signer);
    may(signer) || may(&format!("{domain}/*"))
}

/// `example.com/signer`: whom a request is for.
pub(crate) fn signer_name(field: &Field<'_, '_>, problems: &mut Problems) {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::strategy::small::Cluster;
    use crate::{KindRef, Subresource};

    #[test]
    fn a_report_keeps_what_was_decided_and_gets_its_times() {
        let kind = &CERTIFICATE_SIGNING_REQUEST;
        let approved = |message: &str| json!({"type": "Approved", "status": "True", "message": message, "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let of = |conditions: Value| json!({"metadata": {"name": "r"}, "status": {"conditions": conditions}});
        let old = of(json!([approved("by an administrator")]));
        let said = of(json!([{"type": "Seen", "status": "True"}, approved("by myself")]));
        let part = Some(Subresource::Status);
        let mut next = kind.strategy.prepare_for_update(kind, part, said, &old);
        let around = Cluster::default();
        kind.strategy
            .allocate(&mut next, Some(&old), &around)
            .unwrap();
        let now = "1970-01-01T00:00:00Z";
        assert_eq!(
            next["status"]["conditions"],
            json!([
                {"type": "Seen", "status": "True", "lastUpdateTime": now, "lastTransitionTime": now},
                approved("by an administrator"),
            ])
        );
    }

    #[test]
    fn who_answers_for_a_signer_has_the_right_to() {
        let requested = json!({
            "metadata": {"name": "r"},
            "spec": {"signerName": "example.com/a"},
        });
        let mut reported = requested.clone();
        reported["status"] = json!({"conditions": [{"type": "Denied", "status": "True"}]});
        let mut owned = requested.clone();
        owned["metadata"]["finalizers"] = json!(["a/b"]);
        let (csr, pod) = (&CERTIFICATE_SIGNING_REQUEST, &POD_CERTIFICATE_REQUEST);
        let bundle = &CLUSTER_TRUST_BUNDLE;
        let (status, approval) = (Some(Subresource::Status), Some(Subresource::Approval));
        let approve = r#"certificatesigningrequests.certificates.k8s.io "r" is forbidden: user not permitted to approve requests with signerName "example.com/a""#;
        let sign = r#"certificatesigningrequests.certificates.k8s.io "r" is forbidden: user not permitted to sign requests with signerName "example.com/a""#;
        let sign_pod = r#"PodCertificateRequest.certificates.k8s.io "r" is invalid: spec.signerName: Forbidden: User "" is not permitted to "sign" for signer "example.com/a""#;
        let attest = r#"clustertrustbundles.certificates.k8s.io "r" is forbidden: user not permitted to attest for signerName "example.com/a""#;
        type Case<'a> = (
            KindRef<'a>,
            &'a Value,
            Option<&'a Value>,
            Option<Subresource>,
            &'static str,
            &'static str,
        );
        let cases: &[Case<'_>] = &[
            (csr, &requested, None, None, "approve", ""),
            (
                csr,
                &reported,
                Some(&requested),
                approval,
                "approve",
                approve,
            ),
            (csr, &reported, Some(&requested), approval, "sign", ""),
            (csr, &reported, Some(&requested), status, "sign", sign),
            (csr, &requested, Some(&requested), status, "sign", ""),
            (pod, &reported, Some(&requested), status, "sign", sign_pod),
            (pod, &requested, Some(&requested), status, "sign", ""),
            (pod, &requested, None, None, "sign", ""),
            (bundle, &requested, None, None, "attest", attest),
            (bundle, &reported, Some(&requested), None, "attest", attest),
            (bundle, &owned, Some(&requested), None, "attest", ""),
            (bundle, &requested, None, None, "sign", ""),
        ];
        for (kind, new, old, part, refused, told) in cases {
            let around = Cluster::refusing(refused);
            let judged = kind.strategy.judge(new, *old, *part, &around);
            let message = judged.err().map_or(String::new(), |error| error.message);
            assert_eq!(message, *told, "{} {part:?} {refused}", kind.kind);
        }
    }
}
