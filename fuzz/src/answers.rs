//! What others say that this server asks, or that asks this server in a language of its own: webhooks, key-value data, certificate
//! requests, token files.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use serde_json::{Value, json};
use tempfile::TempDir;
use weft_api::gvk::GroupVersionKind;
use weft_apiserver::authn::StaticToken;
use weft_apiserver::ca::Authority;
use weft_apiserver::caller::Caller;
use weft_apiserver::certificates::{self, Facts};
use weft_apiserver::objects::{Operation, PodRef};
use weft_kinds::admission::webhook::Webhook;
use weft_kinds::apiextensions::conversion as convert;
use weft_kinds::patch::{self, PatchKind};

use crate::seeds;

pub fn webhook(input: &[u8]) {
    let Ok(answer) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    for (mutates, version) in [(true, "v1"), (true, "v1beta1"), (false, "v1")] {
        let configuration = json!({
            "metadata": {"name": "c"},
            "webhooks": [{"name": "a.example.com", "clientConfig": {"url": "https://a"}, "sideEffects": "None", "admissionReviewVersions": [version]}],
        });
        for webhook in Webhook::of(&configuration, mutates) {
            let Ok(answer) = webhook.answer("uid", &answer) else {
                continue;
            };
            if let Err(refused) = &answer.verdict {
                assert!((400..600).contains(&refused.code), "{}", refused.code);
            }
            if let Ok(Some(patch)) = answer.verdict {
                let gvk = GroupVersionKind::new("", "v1", "ConfigMap");
                let current = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
                let _ = patch::apply(&gvk, &current, PatchKind::Json, &patch);
            }
        }
    }
}

pub fn webhook_seeds() -> Vec<Vec<u8>> {
    let patch = STANDARD.encode(r#"[{"op":"add","path":"/data/b","value":"c"}]"#);
    let review = |response: Value| {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        review.to_string().into_bytes()
    };
    vec![
        review(json!({"uid": "uid", "allowed": true})),
        review(
            json!({"uid": "uid", "allowed": true, "patchType": "JSONPatch", "patch": patch, "warnings": ["a"], "auditAnnotations": {"k": "v"}}),
        ),
        review(
            json!({"uid": "uid", "allowed": false, "status": {"code": 418, "message": "no", "reason": "R", "details": {"causes": [{"field": "f"}]}}}),
        ),
    ]
}

pub fn conversion(input: &[u8]) {
    let Ok(answer) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    let objects = [json!({
        "apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": {"name": "a", "namespace": "b", "uid": "u", "labels": {"x": "y"}}, "spec": {"size": 1},
    })];
    for version in ["v1", "v1beta1"] {
        let Ok(made) = convert::converted(version, "uid", "example.com/v2", &objects, &answer)
        else {
            continue;
        };
        // Who an object is, no webhook decides.
        for key in ["name", "namespace", "uid"] {
            assert_eq!(made[0]["metadata"][key], objects[0]["metadata"][key]);
        }
    }
}

pub fn conversion_seeds() -> Vec<Vec<u8>> {
    let object = json!({"apiVersion": "example.com/v2", "kind": "Widget", "metadata": {"name": "a", "namespace": "b", "uid": "u", "annotations": {"c": "d"}}, "spec": {"width": 1}});
    let review = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": {"uid": "uid", "result": {"status": "Success"}, "convertedObjects": [object]},
    });
    let failed = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": {"uid": "uid", "result": {"status": "Failure", "message": "no"}},
    });
    [review, failed]
        .map(|one| one.to_string().into_bytes())
        .to_vec()
}

pub fn key_value(input: &[u8]) {
    let _ = Operation::parse(input);
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = PodRef::parse(text);
    }
}

pub fn key_value_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&[
        r#"{"op":"get","key":"k"}"#,
        r#"{"op":"getMany","keys":["a","b"]}"#,
        r#"{"op":"listKeys","cursor":"YQ"}"#,
        r#"{"op":"set","key":"k","value":"dg==","id":"AAECAwQFBgcICQoLDA0ODw=="}"#,
        r#"{"op":"setMany","entries":[{"key":"a","value":""},{"key":"b","value":"dg=="}]}"#,
        r#"{"op":"increment","key":"n","delta":-1}"#,
        "default/web/123e4567",
    ])
}

static AUTHORITY: LazyLock<(TempDir, Authority)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let authority = Authority::open_or_create(dir.path(), "cluster.local");
    (dir, authority.expect("an authority is made"))
});

/// A certificate request in its binary form.
pub fn certificate_request(input: &[u8]) {
    let body = STANDARD.encode(input);
    let pem =
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
    let node = Caller::client_certificate("system:node:a", vec!["system:nodes".to_owned()]);
    let facts = Facts {
        pods_of_caller: &[],
        holder: &|_, _| None,
        joined: &|_| None,
    };
    for signer in [
        certificates::NODE_CLIENT,
        certificates::NODE_SERVING,
        certificates::WORKLOAD,
    ] {
        for request in [STANDARD.encode(&pem), STANDARD.encode(input)] {
            let mut csr = json!({
                "metadata": {"name": "c"},
                "spec": {"signerName": signer, "request": request, "usages": ["digital signature", "client auth"]},
            });
            let _ = certificates::sign(&AUTHORITY.1, &node, &mut csr, &facts);
        }
    }
}

pub fn certificate_request_seeds() -> Vec<Vec<u8>> {
    let made = [("a", "a.example"), ("b", "10.0.0.1")].map(|(name, host)| {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "system:nodes");
        params
            .distinguished_name
            .push(DnType::CommonName, format!("system:node:{name}"));
        params.subject_alt_names = match (host.parse(), host.try_into()) {
            (Ok(address), _) => vec![SanType::IpAddress(address)],
            (Err(_), Ok(name)) => vec![SanType::DnsName(name)],
            (Err(_), Err(_)) => Vec::new(),
        };
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).ok()?;
        Some(params.serialize_request(&key).ok()?.der().to_vec())
    });
    made.into_iter().flatten().collect()
}

pub fn token_file(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = StaticToken::parse_file(text);
    }
}

pub fn token_file_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&["# c\nsecret,jo,7,\"a,b\"\n\nother,ko,\n", "a,b,c,\"\"\r\n"])
}
