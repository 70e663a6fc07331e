//! Requests for certificates of pods, and bundles of certificates: what is read out of the DER in them, and who may answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::world::*;

const BUNDLES: &str = "/apis/certificates.k8s.io/v1/clustertrustbundles";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/namespaces/default/podcertificaterequests";
/// 2030-03-17T17:46:40Z.
const NOW: i64 = 1_900_000_000;

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

/// A certificate in PEM that signs itself, from seconds before now and for so many seconds.
fn certificate(key: &KeyPair, is_authority: bool, begin: i64, seconds: i64) -> String {
    let mut params = CertificateParams::new(vec!["a.example.com".to_owned()]).unwrap();
    params.is_ca = match is_authority {
        true => IsCa::Ca(BasicConstraints::Unconstrained),
        false => IsCa::ExplicitNoCa,
    };
    let at = |second| OffsetDateTime::from_unix_timestamp(second).unwrap();
    params.not_before = at(NOW - begin);
    params.not_after = at(NOW - begin + seconds);
    params.self_signed(key).unwrap().pem()
}

fn bundle(name: &str, signer: &str, pem: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"signerName": signer, "trustBundle": pem}})
}

#[tokio::test]
async fn a_bundle_holds_authorities_and_each_once() {
    let world = World::new().await;
    let (one, other) = (key(), key());
    let anchor = certificate(&one, true, 0, 3600);
    let second = certificate(&other, true, 0, 3600);
    let leaf = certificate(&one, false, 0, 3600);
    let headers = anchor.replacen("-----\n", "-----\nk: v\n\n", 1);
    let post = format!("POST {BUNDLES}");
    let strange = "-----BEGIN KEY-----\nYWI=\n-----END KEY-----\n";
    let broken = "-----BEGIN CERTIFICATE-----\nYWI=\n-----END CERTIFICATE-----\n";
    let told = world
        .transcript(&[
            (&post, bundle("own", "", &format!("text\n{anchor}{second}"))),
            (&post, bundle("example.com:a:b", "example.com/a", &anchor)),
            (&post, bundle("other", "example.com/a", &anchor)),
            (&post, bundle("example.com:a:b", "", &anchor)),
            (&post, bundle("a", "nonsense", &anchor)),
            (&post, bundle("a", "", "")),
            (&post, bundle("a", "", &format!("{second}{anchor}{second}"))),
            (
                &post,
                bundle("a", "", &format!("{strange}{broken}{leaf}{headers}")),
            ),
            (&format!("PUT {BUNDLES}/own"), bundle("own", "", &second)),
            (
                &format!("GET {BUNDLES}?fieldSelector=spec.signerName%3Dexample.com/a"),
                Value::Null,
            ),
        ])
        .await;
    insta::assert_snapshot!(told, @r#"
    201 ClusterTrustBundle own
    201 ClusterTrustBundle example.com:a:b
    422 Invalid: ClusterTrustBundle.certificates.k8s.io "other" is invalid: metadata.name: Invalid value: "other": ClusterTrustBundle for signerName example.com/a must be named with prefix example.com:a:
    422 Invalid: ClusterTrustBundle.certificates.k8s.io "example.com:a:b" is invalid: metadata.name: Invalid value: "example.com:a:b": ClusterTrustBundle without signer name must not have ":" in its name
    422 Invalid: ClusterTrustBundle.certificates.k8s.io "a" is invalid: [metadata.name: Invalid value: "a": ClusterTrustBundle for signerName nonsense must be named with prefix nonsense:, spec.signerName: Invalid value: "nonsense": must be a fully qualified domain and path of the form 'example.com/signer-name']
    422 Invalid: ClusterTrustBundle.certificates.k8s.io "a" is invalid: spec.trustBundle: Invalid value: "<value omitted>": at least one trust anchor must be provided
    422 Invalid: ClusterTrustBundle.certificates.k8s.io "a" is invalid: spec.trustBundle: Invalid value: "<value omitted>": duplicate trust anchor (indices [0 2])
    422 Invalid: ClusterTrustBundle.certificates.k8s.io "a" is invalid: [spec.trustBundle: Invalid value: "<value omitted>": entry 0 has bad block type: KEY, spec.trustBundle: Invalid value: "<value omitted>": entry 1 does not parse as X.509, spec.trustBundle: Invalid value: "<value omitted>": entry 2 does not have the CA bit set, spec.trustBundle: Invalid value: "<value omitted>": entry 3 has PEM block headers]
    422 Invalid: clustertrustbundles.certificates.k8s.io "own" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update
    200 ClusterTrustBundleList [example.com:a:b]
    "#);
    let own = format!("{BUNDLES}/own");
    let change = json!({"spec": {"signerName": "example.com/a"}});
    let refused = world.patch(&own, "merge-patch", change).await;
    insta::assert_snapshot!(refused.line(), @r#"422 Invalid: ClusterTrustBundle.certificates.k8s.io "own" is invalid: [metadata.name: Invalid value: "own": ClusterTrustBundle for signerName example.com/a must be named with prefix example.com:a:, spec.signerName: Invalid value: "example.com/a": field is immutable]"#);
    // What is kept is not read again: no rule of today keeps an object of before from being labelled.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(world.patch(&own, "merge-patch", label).await.status, 200);
    insta::assert_snapshot!(world.table(BUNDLES).await.line(), @r#"200 ["example.com:a:b","example.com/a"] ["own","<none>"]"#);
}

fn request(name: &str, stub: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "signerName": "example.com/a",
            "podName": "p", "podUID": "1",
            "serviceAccountName": "default", "serviceAccountUID": "2",
            "nodeName": "n", "nodeUID": "3",
            "stubPKCS10Request": stub,
        },
    })
}

fn stub(key: &KeyPair) -> Vec<u8> {
    let request = CertificateParams::default().serialize_request(key).unwrap();
    request.der().to_vec()
}

fn at(second: i64) -> String {
    Timestamp::from_second(second).unwrap().to_string()
}

fn condition(kind: &str) -> Value {
    json!([{
        "type": kind, "status": "True", "reason": "R", "message": "m",
        "lastTransitionTime": "2030-01-01T00:00:00Z",
    }])
}

#[tokio::test]
async fn a_pods_request_is_judged_by_its_key() {
    let world = World::new().await;
    let der = stub(&key());
    let mut forged = der.clone();
    // In the signature, which ends the request.
    *forged.last_mut().unwrap() ^= 1;
    let post = format!("POST {REQUESTS}");
    let sound = request("r", &STANDARD.encode(&der));
    let with = |pointer: &str, value: Value| {
        let mut changed = sound.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        changed
    };
    let keyless = with("/spec/stubPKCS10Request", Value::Null);
    let mut long = sound.clone();
    long["spec"]["maxExpirationSeconds"] = 7_862_401.into();
    let mut of_kubernetes = with("/spec/signerName", "kubernetes.io/x".into());
    of_kubernetes["spec"]["maxExpirationSeconds"] = 86_401.into();
    let mut said = sound.clone();
    said["spec"]["unverifiedUserAnnotations"] = json!({"plain": "x"});
    let told = world
        .transcript(&[
            (&post, with("/spec/stubPKCS10Request", "YWI=".into())),
            (
                &post,
                with("/spec/stubPKCS10Request", STANDARD.encode(&forged).into()),
            ),
            (&post, with("/spec/podUID", "".into())),
            (&post, keyless),
            (&post, long),
            (&post, of_kubernetes),
            (&post, said),
            (&post, sound.clone()),
        ])
        .await;
    insta::assert_snapshot!(told, @r#"
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: spec.stubPKCS10Request: Invalid value: must be a valid PKCS#10 CSR
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: spec.stubPKCS10Request: Invalid value: invalid signature
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: spec.podUID: Invalid value: "": must not be empty
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: spec: Invalid value: exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: spec.maxExpirationSeconds: Invalid value: 7862401: must be in the range [3600, 7862400]
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: spec.maxExpirationSeconds: Invalid value: 86401: must be in the range [3600, 86400]
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: spec.unverifiedUserAnnotations: Invalid value: "plain": must be a domain-prefixed key (such as "acme.io/foo")
    201 PodCertificateRequest r
    "#);
    let path = format!("{REQUESTS}/r");
    assert_eq!(
        world.get(&path).await.body["spec"]["maxExpirationSeconds"],
        86_400
    );
    let change = json!({"spec": {"podName": "other"}});
    let refused = world.patch(&path, "merge-patch", change).await;
    assert_eq!(refused.status, 422);
    assert!(refused.line().ends_with("field is immutable"));
}

#[tokio::test]
async fn a_signer_answers_once_and_with_what_was_asked_for() {
    let world = World::with(Setup {
        clock: || Timestamp::from_second(NOW).unwrap(),
        ..Setup::default()
    })
    .await;
    let own = key();
    let post = format!("POST {REQUESTS}");
    for name in ["r", "denied"] {
        let made = request(name, &STANDARD.encode(stub(&own)));
        assert_eq!(world.ask(&post, made).await.status, 201);
    }
    let path = format!("{REQUESTS}/r/status");
    let answer = |chain: String, begin: i64, end: i64, refresh: i64| {
        json!({"status": {
            "certificateChain": chain, "conditions": condition("Issued"),
            "notBefore": at(begin), "notAfter": at(end), "beginRefreshAt": at(refresh),
        }})
    };
    let hour = certificate(&own, false, 60, 3600);
    let (begin, end) = (NOW - 60, NOW + 3540);
    let mut told = Vec::new();
    for status in [
        json!({"status": {"certificateChain": "x"}}),
        json!({"status": {"conditions": condition("Ready")}}),
        json!({"status": {"conditions": condition("Denied"), "certificateChain": "x"}}),
        json!({"status": {"conditions": condition("Issued")}}),
        answer(certificate(&key(), false, 60, 3600), begin, end, NOW + 900),
        json!({"status": {"conditions": condition("Issued"), "certificateChain": hour}}),
        answer(hour.clone(), begin - 1, end, NOW + 900),
        answer(hour.clone(), begin, end, NOW),
        answer(hour.clone(), begin, end, NOW + 3500),
        answer(
            certificate(&own, false, 60, 3599),
            begin,
            end - 1,
            NOW + 900,
        ),
        answer(
            certificate(&own, false, 60, 86_401),
            begin,
            begin + 86_401,
            NOW + 900,
        ),
        answer(
            certificate(&own, false, 400, 4000),
            NOW - 400,
            NOW + 3600,
            NOW + 900,
        ),
        answer(
            format!("{hour}-----BEGIN X-----\n-----END X-----\n"),
            begin,
            end,
            NOW + 900,
        ),
        answer(hour.clone(), begin, end, NOW + 900),
        json!({"status": {"conditions": condition("Failed")}}),
        json!({"metadata": {"labels": {"not": "taken"}}}),
    ] {
        let line = world.patch(&path, "merge-patch", status).await.line();
        // Certificates are others in each run.
        let shown = line
            .split("Invalid value: \"-----BEGIN")
            .collect::<Vec<_>>();
        told.push(match shown.as_slice() {
            [head, tail] => {
                let rest = tail.rsplit("\": ").next().unwrap();
                format!("{head}Invalid value: …: {rest}")
            }
            _ => line,
        });
    }
    let denied = json!({"status": {"conditions": condition("Denied")}});
    let path = format!("{REQUESTS}/denied/status");
    told.push(world.patch(&path, "merge-patch", denied).await.line());
    told.push(world.table(REQUESTS).await.line());
    insta::assert_snapshot!(told.join("\n"), @r#"
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: status: Invalid value: status is immutable unless transitioning to "Issued", "Denied", or "Failed"
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: status.conditions[0].type: Unsupported value: "Ready": supported values: "Issued", "Denied", "Failed"
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: status: Invalid value: non-condition status fields must be empty when denying or failing the PodCertificateRequest
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: status.certificateChain: Invalid value: "": issued certificate chain must contain at least one certificate
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: status.certificateChain: Invalid value: …: leaf certificate was not issued to the requested public key
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: [status.notBefore: Required value: must be present and consistent with the issued certificate, status.notAfter: Required value: must be present and consistent with the issued certificate, status.beginRefreshAt: Required value: must be present and in the range [notbefore+10min, notafter-10min]]
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: status.notBefore: Invalid value: "2030-03-17T17:45:39Z": must be set to the NotBefore time encoded in the leaf certificate
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: status.beginRefreshAt: Invalid value: "2030-03-17T17:46:40Z": must be at least 10 minutes after status.notBefore
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: status.beginRefreshAt: Invalid value: "2030-03-17T18:45:00Z": must be at least 10 minutes before status.notAfter
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: status.certificateChain: Invalid value: 3599000000000: leaf certificate lifetime must be >= 1 hour
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: status.certificateChain: Invalid value: 86401000000000: leaf certificate lifetime must be <= spec.maxExpirationSeconds (86400)
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: status.notBefore: Invalid value: "2030-03-17T17:40:00Z": must be set to within 5 minutes of kube-apiserver's current time
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: status.certificateChain: Invalid value: …: issued certificate chain must consist entirely of CERTFICATE PEM blocks
    200 PodCertificateRequest r
    422 Invalid: PodCertificateRequest.certificates.k8s.io "r" is invalid: status: Invalid value: immutable after PodCertificateRequest is issued, denied, or failed
    200 PodCertificateRequest r
    200 PodCertificateRequest denied
    200 ["denied","p","default","n","example.com/a","Denied","<none>"] ["r","p","default","n","example.com/a","Issued","<none>"]
    "#);
}
