//! `podCertificate` sources of projected volumes: a key that this node makes, and the certificate that a signer gives it.
//!
//! A request is made when the first container that mounts it gets ready, and looked at until its signer has said something; another, with
//! another key, once the certificate says that it should be renewed. Until that is signed the one before is shown.
//!
//! Invariants: a key is in this process' memory and in the pod's volume, and nowhere else; what was denied or has failed is not asked for again;
//! at most [`ISSUED_WITHIN`] is waited in one go.
//!
//! Source: kubernetes `pkg/kubelet/podcertificate`, 1.37.

use super::trust_bundle::clean;
use crate::pod_view::PodView;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{PodCertificateRequest, PodCertificateRequestSpec};
use k8s_openapi::api::core::v1::{Node, PodCertificateProjection, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ObjectMeta, PostParams};
use parking_lot::Mutex;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, RsaKeySize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a container that gets ready waits for a signer; after that it says so, and tries again.
const ISSUED_WITHIN: Duration = Duration::from_secs(30);
/// How often the request is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A certificate that a volume shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateWish {
    /// Uid of the pod, so that all of a pod's lie together.
    uid: String,
    pod: String,
    node: String,
    account: String,
    volume: String,
    /// Which of the volume's sources it is.
    source: usize,
    signer: String,
    key_type: String,
    max_seconds: Option<i32>,
    annotations: BTreeMap<String, String>,
}

impl CertificateWish {
    pub(super) fn pod(&self) -> &str {
        &self.pod
    }

    pub(super) fn of(
        pod: PodView<'_>,
        volume: &str,
        at: usize,
        source: &PodCertificateProjection,
    ) -> Self {
        let spec = pod.spec();
        Self {
            uid: pod.uid().to_owned(),
            pod: pod.name().to_owned(),
            node: spec
                .and_then(|spec| spec.node_name.clone())
                .unwrap_or_default(),
            account: pod.service_account().to_owned(),
            volume: volume.to_owned(),
            source: at,
            signer: source.signer_name.clone(),
            key_type: source.key_type.clone(),
            max_seconds: source.max_expiration_seconds,
            annotations: source.user_annotations.clone().unwrap_or_default(),
        }
    }
}

/// A key and its certificate, in PEM. Shows nothing of itself.
#[derive(Clone)]
pub struct Credential {
    pub(super) key: String,
    pub(super) chain: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").finish_non_exhaustive()
    }
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("PodCertificateRequest {name} was denied, reason=\"{reason}\", message=\"{message}\"")]
    Denied {
        name: String,
        reason: String,
        message: String,
    },
    #[error("PodCertificateRequest {name} failed, reason=\"{reason}\", message=\"{message}\"")]
    Failed {
        name: String,
        reason: String,
        message: String,
    },
    #[error("PodCertificateRequest {name} has not been signed yet by {signer}")]
    Waiting { name: String, signer: String },
    #[error("a key of type \"{0}\" could not be made")]
    Key(String),
    #[error("asking for the certificate of a pod")]
    Api(#[from] kube::Error),
}

/// Where a wish has come to.
#[derive(Default)]
struct State {
    given: Option<Given>,
    asked: Option<Asked>,
}

struct Given {
    credential: Credential,
    renew_at: Timestamp,
}

/// A request that nobody has answered yet, or that was refused.
struct Asked {
    name: String,
    key: String,
    refused: bool,
}

/// All certificates of this node's pods.
#[derive(Default)]
pub(super) struct Certificates {
    states: Mutex<BTreeMap<CertificateWish, Arc<tokio::sync::Mutex<State>>>>,
}

impl Certificates {
    /// What `wish` has now; with `waits`, a signer is waited for.
    ///
    /// # Errors
    /// [`CertificateError`] where there is none, and none from before.
    pub(super) async fn get(
        &self,
        client: &kube::Client,
        namespace: &str,
        wish: &CertificateWish,
        waits: bool,
    ) -> Result<Credential, CertificateError> {
        let state = self.states.lock().entry(wish.clone()).or_default().clone();
        let mut state = state.lock().await;
        let now = Timestamp::now();
        if let Some(given) = state.given.as_ref().filter(|given| now < given.renew_at) {
            return Ok(given.credential.clone());
        }
        let until = tokio::time::Instant::now() + ISSUED_WITHIN;
        let found = loop {
            let looked = state.advance(client, namespace, wish).await;
            let again = matches!(&looked, Err(CertificateError::Waiting { .. }));
            if !again || !waits || state.given.is_some() || tokio::time::Instant::now() >= until {
                break looked;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        match (found, &state.given) {
            (Err(error), Some(given)) => {
                tracing::warn!(pod = wish.pod, error = %crate::identity::Chain(&error), "a certificate was not renewed");
                Ok(given.credential.clone())
            }
            (found, _) => found,
        }
    }

    /// Forgets those of a pod that is gone.
    pub(super) fn forget(&self, uid: &str) {
        self.states.lock().retain(|wish, _| wish.uid != uid);
    }
}

impl State {
    /// Asks, or looks whether there is an answer.
    async fn advance(
        &mut self,
        client: &kube::Client,
        namespace: &str,
        wish: &CertificateWish,
    ) -> Result<Credential, CertificateError> {
        let requests: Api<PodCertificateRequest> = Api::namespaced(client.clone(), namespace);
        let asked = match &mut self.asked {
            Some(asked) => asked,
            None => {
                let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
                let nodes: Api<Node> = Api::all(client.clone());
                let (account, node) =
                    futures::try_join!(accounts.get(&wish.account), nodes.get(&wish.node))?;
                let (key, stub) = key_and_stub(&wish.key_type)?;
                let request = request(wish, account.metadata.uid, node.metadata.uid, stub);
                let made = requests.create(&PostParams::default(), &request).await?;
                let name = made.metadata.name.unwrap_or_default();
                self.asked.insert(Asked {
                    name,
                    key,
                    refused: false,
                })
            }
        };
        let Some(found) = requests.get_opt(&asked.name).await? else {
            // Somebody removed it: the next look asks anew, unless it was refused.
            if !asked.refused {
                self.asked = None;
            }
            return Err(CertificateError::Waiting {
                name: wish.pod.clone(),
                signer: wish.signer.clone(),
            });
        };
        match answer(&found) {
            Answer::Issued { chain, renew_at } => {
                let credential = Credential {
                    key: std::mem::take(&mut asked.key),
                    chain,
                };
                self.asked = None;
                self.given = Some(Given {
                    credential: credential.clone(),
                    renew_at,
                });
                Ok(credential)
            }
            Answer::Refused(error) => {
                asked.refused = true;
                Err(error)
            }
            Answer::None => Err(CertificateError::Waiting {
                name: format!("{namespace}/{}", asked.name),
                signer: wish.signer.clone(),
            }),
        }
    }
}

enum Answer {
    None,
    Issued { chain: String, renew_at: Timestamp },
    Refused(CertificateError),
}

/// What a signer has said. Pure.
fn answer(request: &PodCertificateRequest) -> Answer {
    let metadata = &request.metadata;
    let name = format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    );
    let Some(status) = &request.status else {
        return Answer::None;
    };
    for condition in status.conditions.iter().flatten() {
        let (reason, message) = (condition.reason.clone(), condition.message.clone());
        match &*condition.type_ {
            "Denied" => {
                return Answer::Refused(CertificateError::Denied {
                    name,
                    reason,
                    message,
                });
            }
            "Failed" => {
                return Answer::Refused(CertificateError::Failed {
                    name,
                    reason,
                    message,
                });
            }
            "Issued" => {
                let renew_at = status.begin_refresh_at.as_ref();
                return Answer::Issued {
                    chain: clean(status.certificate_chain.as_deref().unwrap_or_default()),
                    renew_at: renew_at.map_or(Timestamp::MAX, |time| time.0),
                };
            }
            _ => {}
        }
    }
    Answer::None
}

fn request(
    wish: &CertificateWish,
    account_uid: Option<String>,
    node_uid: Option<String>,
    stub: Vec<u8>,
) -> PodCertificateRequest {
    let annotations = Some(wish.annotations.clone()).filter(|all| !all.is_empty());
    PodCertificateRequest {
        metadata: ObjectMeta {
            generate_name: Some("req-".to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: wish.pod.clone(),
                uid: wish.uid.clone(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: PodCertificateRequestSpec {
            signer_name: wish.signer.clone(),
            pod_name: wish.pod.clone(),
            pod_uid: wish.uid.clone(),
            service_account_name: wish.account.clone(),
            service_account_uid: account_uid.unwrap_or_default(),
            node_name: wish.node.clone(),
            node_uid: node_uid.unwrap_or_default(),
            max_expiration_seconds: wish.max_seconds,
            stub_pkc_s10_request: ByteString(stub),
            unverified_user_annotations: annotations,
        },
        status: None,
    }
}

/// A new key in PEM, and a request without a word that proves it.
fn key_and_stub(key_type: &str) -> Result<(String, Vec<u8>), CertificateError> {
    let failed = |_| CertificateError::Key(key_type.to_owned());
    let key = match key_type {
        "RSA3072" => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        "RSA4096" => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        "ECDSAP256" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        "ECDSAP384" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        "ECDSAP521" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
        "ED25519" => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        _ => return Err(CertificateError::Key(key_type.to_owned())),
    };
    let key = key.map_err(failed)?;
    let mut parameters = CertificateParams::new(Vec::<String>::new()).map_err(failed)?;
    parameters.distinguished_name = DistinguishedName::new();
    let stub = parameters.serialize_request(&key).map_err(failed)?;
    Ok((key.serialize_pem(), stub.der().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_a_signer_says_is_understood() {
        let chain = super::super::trust_bundle::pem(b"leaf");
        let said = |kind: &str| {
            json!({
                "conditions": [{"type": kind, "status": "True", "reason": "R", "message": "M",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "certificateChain": format!("before\n{chain}"),
                "beginRefreshAt": "2026-01-01T10:00:00Z",
            })
        };
        let of = |status: Value| {
            let request = json!({
                "metadata": {"name": "req-1", "namespace": "n"},
                "spec": {"signerName": "x/s", "podName": "p", "podUID": "u", "serviceAccountName": "a",
                    "serviceAccountUID": "b", "nodeName": "c", "nodeUID": "d", "stubPKCS10Request": ""},
                "status": status,
            });
            let request = serde_json::from_value(request).expect("a request");
            match answer(&request) {
                Answer::None => "nothing".to_owned(),
                Answer::Issued {
                    chain: found,
                    renew_at,
                } => {
                    assert_eq!(found, chain);
                    renew_at.to_string()
                }
                Answer::Refused(error) => error.to_string(),
            }
        };
        for (status, expected) in [
            (json!({}), "nothing"),
            (said("Issued"), "2026-01-01T10:00:00Z"),
            (
                said("Denied"),
                "PodCertificateRequest n/req-1 was denied, reason=\"R\", message=\"M\"",
            ),
            (
                said("Failed"),
                "PodCertificateRequest n/req-1 failed, reason=\"R\", message=\"M\"",
            ),
        ] {
            assert_eq!(of(status), expected);
        }
    }

    #[test]
    fn a_stub_proves_its_key_and_says_nothing_else() {
        for key_type in ["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"] {
            let (key, stub) = key_and_stub(key_type).expect("a key");
            assert!(
                key.starts_with("-----BEGIN PRIVATE KEY-----\n"),
                "{key_type}"
            );
            use x509_parser::prelude::FromDer as _;
            let (_, read) =
                x509_parser::certification_request::X509CertificationRequest::from_der(&stub)
                    .expect("a request");
            assert_eq!(read.certification_request_info.subject.iter().count(), 0);
        }
        assert!(key_and_stub("DSA").is_err());
    }
}
