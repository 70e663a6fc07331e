//! Certificate signing requests: what each of weft's signers demands, and the signature.
//!
//! `crate::objects` calls [`sign`] while it creates a CertificateSigningRequest, so the answer already carries the
//! certificate: joining a node and renewing ten thousand workloads needs no controller and no second round.
//!
//! | signer | who may ask | subject | names | lives |
//! | --- | --- | --- | --- | --- |
//! | `kubernetes.io/kube-apiserver-client-kubelet` | bootstrap token, or the node renewing itself | O=system:nodes, CN=system:node:NAME | none | 24 h |
//! | `weft.dev/node-serving` | the node | O=system:nodes, CN=system:node:NAME | its addresses | 24 h |
//! | `weft.dev/workload` | a node running such a pod | empty | one SPIFFE URI | 24 h |
//!
//! A node that was away for longer renews itself by the one that is over (`crate::ca::lapsed`), if its Node is still there and was while that was good.
//!
//! Invariants: nothing of a request enters a certificate but the public key and names that were checked one by one; a
//! request with anything the signer does not expect is refused, in one sentence; other signers are left pending.
//! Left to others: storing the object, and which pods are bound where (handed in).

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{CertificateSigningRequestParams, PublicKeyData as _, SanType};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use weft_api::identity::SpiffeId;
use weft_api::status::StatusError;
use weft_api::time::rfc3339;
use weft_kinds::lens::{integer, items, text};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use crate::ca::lapsed::Lapsed;
use crate::ca::{Authority, Leaf, address};
use crate::caller::{Caller, GROUP_BOOTSTRAPPERS, GROUP_MASTERS};

/// Node agents' client certificates.
pub const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Serving certificates of node agents.
pub const NODE_SERVING: &str = "weft.dev/node-serving";
/// Workload identities.
pub const WORKLOAD: &str = "weft.dev/workload";

/// Every node may also hold the gateway's identity, for the calls its ingress makes.
const GATEWAY: (&str, &str) = ("weft-system", "gateway");

/// Bytes of a PEM request; a P-256 request with a dozen names has one thousand.
const REQUEST_BYTES_MAX: usize = 16 << 10;

/// Names in one serving certificate.
const NAMES_MAX: usize = 16;

const NODE_LIFE: Duration = Duration::hours(24);
const WORKLOAD_LIFE: Duration = Duration::hours(24);

/// Kubernetes' smallest `spec.expirationSeconds`.
const LIFE_MIN: Duration = Duration::minutes(10);

/// Names that belong to the API server; a node that served them could pose as it.
const RESERVED_NAMES: &[&str] = &["kubernetes", "kubernetes.default", "kubernetes.default.svc"];

/// Whether a host name, in lower case, is one that only servers have.
pub(crate) fn is_of_servers(name: &str, trust_domain: &str) -> bool {
    RESERVED_NAMES.contains(&name)
        || name.starts_with("kubernetes.default.")
        || name.ends_with(&crate::peers::zone(trust_domain))
}

/// What a signature depends on of the cluster.
pub struct Facts<'a> {
    /// The pods bound to the node that asks; none when it is no node.
    pub pods_of_caller: &'a [Arc<Value>],
    /// Whose a host name or an address is, as half a sentence: a server's of the API; an address also a node's other than the
    /// one named first. That a node is who its name says is seen by its subject when it is called.
    pub holder: &'a dyn Fn(&str, &str) -> Option<String>,
    /// Since when there is a Node of that name.
    pub joined: &'a dyn Fn(&str) -> Option<Timestamp>,
}

/// Signs the request in the CertificateSigningRequest `csr`, if its signer is one of ours: sets who asked, and
/// `status.certificate` with the conditions.
///
/// # Errors
/// 403 with the rule that was broken; 400 when the request cannot be read; 500 when signing fails.
pub fn sign(
    authority: &Authority,
    caller: &Caller,
    csr: &mut Value,
    facts: &Facts<'_>,
) -> Result<(), StatusError> {
    // Who asked is the server's knowledge, whatever the client wrote.
    csr["spec"]["username"] = json!(caller.user());
    csr["spec"]["groups"] = json!(caller.groups());
    match caller.uid() {
        Some(uid) => csr["spec"]["uid"] = json!(uid),
        None => drop(
            csr["spec"]
                .as_object_mut()
                .and_then(|spec| spec.remove("uid")),
        ),
    }
    let signer = text(csr, "/spec/signerName").to_owned();
    if !matches!(signer.as_str(), NODE_CLIENT | NODE_SERVING | WORKLOAD) {
        return Ok(());
    }
    let request = read_request(text(csr, "/spec/request"))
        .map_err(|why| StatusError::bad_request(format!("spec.request {why}")))?;
    let allowed = match signer.as_str() {
        NODE_CLIENT => node_client(caller, &request, csr, facts),
        NODE_SERVING => node_serving(caller, &request, csr, authority.trust_domain(), facts),
        _ => workload(
            caller,
            &request,
            csr,
            authority.trust_domain(),
            facts.pods_of_caller,
        ),
    };
    let mut leaf = allowed.map_err(|why| signing_forbidden(caller, csr, &signer, &why))?;
    if let Some(seconds) = integer(csr, "/spec/expirationSeconds") {
        leaf.life = leaf.life.min(Duration::seconds(seconds)).max(LIFE_MIN);
    }

    let certificate = authority
        .sign(&leaf, &request.params.public_key, OffsetDateTime::now_utc())
        .map_err(StatusError::internal)?;
    let now = rfc3339(Timestamp::now());
    csr["status"] = json!({
        "certificate": STANDARD.encode(certificate),
        "conditions": [{
            "type": "Approved",
            "status": "True",
            "reason": "AutoApproved",
            "message": format!("the request fits what {signer} signs for {caller}"),
            "lastUpdateTime": now,
            "lastTransitionTime": now,
        }],
    });
    Ok(())
}

fn signing_forbidden(caller: &Caller, csr: &Value, signer: &str, why: &str) -> StatusError {
    let detail = format!(
        "User {:?} cannot have this request signed by {signer:?}: {why}",
        caller.user()
    );
    StatusError::forbidden(
        "certificatesigningrequests",
        "certificates.k8s.io",
        text(csr, "/metadata/name"),
        &detail,
    )
}

/// A request whose signature was checked, with its subject and names as they were written.
struct Request {
    params: CertificateSigningRequestParams,
    /// Attribute type and value, in order; every one of them.
    subject: Vec<(Attribute, String)>,
    names: Vec<Name>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attribute {
    CommonName,
    Organisation,
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Dns(String),
    Address(IpAddr),
    Uri(String),
    Other,
}

/// Decodes `spec.request`: base64 of one PEM block.
fn read_request(request: &str) -> Result<Request, &'static str> {
    if request.len() > REQUEST_BYTES_MAX {
        return Err("is larger than 16 KiB");
    }
    let pem = STANDARD.decode(request).map_err(|_| "is not base64")?;
    let der = CertificateSigningRequestDer::from_pem_slice(&pem)
        .map_err(|_| "is not a PEM certificate request")?;
    let (rest, parsed) =
        x509_parser::certification_request::X509CertificationRequest::from_der(&der)
            .map_err(|_| "is not a PKCS #10 certificate request")?;
    if !rest.is_empty() {
        return Err("has bytes behind the certificate request");
    }
    let params = CertificateSigningRequestParams::from_der(&der).map_err(
        |_| "has a wrong signature, an unknown key type or an extension that is not signed here",
    )?;
    let key = &params.public_key;
    if ![&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519]
        .iter()
        .any(|known| *known == key.algorithm())
    {
        return Err("must be for an ECDSA P-256 or Ed25519 key");
    }
    debug_assert!(!key.der_bytes().is_empty());

    let oid = x509_parser::oid_registry::OID_X509_COMMON_NAME;
    let organisation = x509_parser::oid_registry::OID_X509_ORGANIZATION_NAME;
    let subject = parsed
        .certification_request_info
        .subject
        .iter_attributes()
        .map(|attribute| {
            let kind = match attribute.attr_type() {
                kind if *kind == oid => Attribute::CommonName,
                kind if *kind == organisation => Attribute::Organisation,
                _ => Attribute::Other,
            };
            (kind, attribute.as_str().unwrap_or("").to_owned())
        });
    let subject = subject.collect();
    let mut names = Vec::new();
    for extension in parsed.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::SubjectAlternativeName(san) => {
                names.extend(san.general_names.iter().map(|name| match name {
                    GeneralName::DNSName(name) => Name::Dns((*name).to_owned()),
                    GeneralName::URI(name) => Name::Uri((*name).to_owned()),
                    GeneralName::IPAddress(octets) => {
                        address(octets).map_or(Name::Other, Name::Address)
                    }
                    _ => Name::Other,
                }));
            }
            ParsedExtension::BasicConstraints(constraints) if constraints.ca => {
                return Err("asks to be a CA");
            }
            _ => {}
        }
    }
    Ok(Request {
        params,
        subject,
        names,
    })
}

/// The node a request is for, if its subject is exactly O=system:nodes, CN=system:node:NAME.
fn node_subject(request: &Request) -> Result<&str, String> {
    let mut common_name = None;
    let mut organisation = None;
    for (attribute, value) in &request.subject {
        let slot = match attribute {
            Attribute::CommonName => &mut common_name,
            Attribute::Organisation => &mut organisation,
            Attribute::Other => return Err("the subject may only have O and CN".to_owned()),
        };
        if slot.replace(value.as_str()).is_some() {
            return Err("the subject must have one O and one CN".to_owned());
        }
    }
    if organisation != Some("system:nodes") {
        return Err("the subject must have O=system:nodes".to_owned());
    }
    let node = common_name
        .and_then(|name| name.strip_prefix("system:node:"))
        .unwrap_or("");
    weft_api::name::dns1123_subdomain(node)
        .map_err(|_| "the subject must have CN=system:node:NAME".to_owned())?;
    Ok(node)
}

fn check_usages(csr: &Value, needed: &[&str]) -> Result<(), String> {
    let asked: Vec<&str> = items(csr, "/spec/usages")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let complete = needed.iter().all(|usage| asked.contains(usage));
    // Meaningless for elliptic curves, yet client-go's helpers ask for it by habit.
    let only = asked
        .iter()
        .all(|usage| needed.contains(usage) || *usage == "key encipherment");
    if complete && only {
        Ok(())
    } else {
        Err(format!("spec.usages must be {}", needed.join(", ")))
    }
}

fn node_client<'a>(
    caller: &Caller,
    request: &'a Request,
    csr: &Value,
    facts: &Facts<'_>,
) -> Result<Leaf<'a>, String> {
    let node = node_subject(request)?;
    let was = caller.lapsed().map(|lapsed| lapsed.node.as_str());
    match caller.node_name().or(was) {
        Some(own) if own == node => {}
        Some(_) => return Err("a node may only renew its own certificate".to_owned()),
        None if caller.in_group(GROUP_BOOTSTRAPPERS) || caller.in_group(GROUP_MASTERS) => {}
        None => return Err("only a bootstrap token or the node itself may ask for it".to_owned()),
    }
    if let Some(lapsed) = caller.lapsed() {
        still_there(lapsed, facts)?;
        tracing::info!(node, ended = %lapsed.ended, "a node is back whose certificate is over");
    }
    if !request.names.is_empty() {
        return Err("a node's client certificate has no alternative names".to_owned());
    }
    check_usages(csr, &["digital signature", "client auth"])?;
    Ok(Leaf {
        common_name: common_name(request),
        organisation: Some("system:nodes"),
        names: Vec::new(),
        server: false,
        client: true,
        life: NODE_LIFE,
    })
}

/// Whether a node whose certificate is over is one of the cluster still, and the one that it was then.
fn still_there(lapsed: &Lapsed, facts: &Facts<'_>) -> Result<(), String> {
    let Lapsed { node, ended } = lapsed;
    let why = match (facts.joined)(node) {
        Some(joined) if joined <= *ended => return Ok(()),
        Some(_) => "the Node of that name is another, made after that",
        None => "there is no Node of that name any more",
    };
    Err(format!(
        "its certificate was over at {}, and {why}: join anew with a token",
        rfc3339(*ended)
    ))
}

fn node_serving<'a>(
    caller: &Caller,
    request: &'a Request,
    csr: &Value,
    trust_domain: &str,
    facts: &Facts<'_>,
) -> Result<Leaf<'a>, String> {
    let node = node_subject(request)?;
    if caller.node_name() != Some(node) {
        return Err("only the node itself may ask for its serving certificate".to_owned());
    }
    if request.names.is_empty() || request.names.len() > NAMES_MAX {
        return Err(format!(
            "it must have one to {NAMES_MAX} addresses or DNS names"
        ));
    }
    check_usages(csr, &["digital signature", "server auth"])?;
    let mut names = Vec::with_capacity(request.names.len());
    for name in &request.names {
        names.push(match name {
            Name::Address(address) => {
                // On one machine several nodes and a server have one address: who calls from it is there.
                let own = address.is_loopback() || caller.address() == Some(*address);
                match (facts.holder)(node, &address.to_string()) {
                    Some(holder) if !own => {
                        return Err(format!("{address} is the address of {holder}"));
                    }
                    _ => SanType::IpAddress(*address),
                }
            }
            Name::Dns(name) => {
                weft_api::name::dns1123_subdomain(name)
                    .map_err(|_| format!("{name:?} is not a DNS name"))?;
                if is_of_servers(name, trust_domain) {
                    return Err(format!("{name:?} belongs to the API server"));
                }
                // Who calls from a server's own machine shares its name.
                let beside = |address: IpAddr| {
                    address.is_loopback() || (facts.holder)(node, &address.to_string()).is_some()
                };
                if let Some(holder) = (facts.holder)(node, name)
                    && !caller.address().is_some_and(beside)
                {
                    return Err(format!("{name:?} is the name of {holder}"));
                }
                SanType::DnsName(
                    name.as_str()
                        .try_into()
                        .map_err(|_| format!("{name:?} is not a DNS name"))?,
                )
            }
            Name::Uri(_) | Name::Other => {
                return Err("it may only have addresses and DNS names".to_owned());
            }
        });
    }
    Ok(Leaf {
        common_name: common_name(request),
        organisation: Some("system:nodes"),
        names,
        server: true,
        client: false,
        life: NODE_LIFE,
    })
}

fn workload<'a>(
    caller: &Caller,
    request: &Request,
    csr: &Value,
    trust_domain: &str,
    pods_of_caller: &[Arc<Value>],
) -> Result<Leaf<'a>, String> {
    let Some(node) = caller.node_name() else {
        return Err("only nodes may ask for workload identities".to_owned());
    };
    if !request.subject.is_empty() {
        return Err("a workload's subject is empty; its identity is the URI".to_owned());
    }
    let [Name::Uri(uri)] = request.names.as_slice() else {
        return Err("it must have exactly one alternative name, a SPIFFE URI".to_owned());
    };
    let identity: SpiffeId = uri
        .parse()
        .map_err(|error: weft_api::identity::SpiffeIdError| error.to_string())?;
    if identity.trust_domain != trust_domain {
        return Err(format!(
            "the trust domain is {trust_domain:?}, not {:?}",
            identity.trust_domain
        ));
    }
    check_usages(csr, &["digital signature", "server auth", "client auth"])?;
    let runs_here = || {
        pods_of_caller.iter().any(|pod| {
            let account = match text(pod, "/spec/serviceAccountName") {
                "" => "default",
                account => account,
            };
            text(pod, "/spec/nodeName") == node
                && text(pod, "/metadata/namespace") == identity.namespace
                && account == identity.service_account
                && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
        })
    };
    let is_gateway = (
        identity.namespace.as_str(),
        identity.service_account.as_str(),
    ) == GATEWAY;
    if !is_gateway && !runs_here() {
        return Err(format!(
            "no pod with ServiceAccount {:?} in namespace {:?} is bound to node {node:?}",
            identity.service_account, identity.namespace
        ));
    }
    let uri = SanType::URI(
        uri.as_str()
            .try_into()
            .map_err(|_| "the URI is not ASCII".to_owned())?,
    );
    Ok(Leaf {
        common_name: None,
        organisation: None,
        names: vec![uri],
        server: true,
        client: true,
        life: WORKLOAD_LIFE,
    })
}

fn common_name(request: &Request) -> Option<&str> {
    let mut names = request
        .subject
        .iter()
        .filter(|(attribute, _)| *attribute == Attribute::CommonName);
    names.next().map(|(_, name)| name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};
    use rustls_pki_types::CertificateDer;

    const CLIENT: &[&str] = &["digital signature", "client auth"];
    const SERVING: &[&str] = &["digital signature", "server auth", "key encipherment"];
    const BOTH: &[&str] = &["digital signature", "server auth", "client auth"];

    fn csr(
        signer: &str,
        usages: &[&str],
        subject: &[(DnType, &str)],
        names: &[SanType],
        change: fn(&mut CertificateParams),
    ) -> Value {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = names.to_vec();
        change(&mut params);
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        json!({
            "metadata": { "name": "c" },
            "spec": { "signerName": signer, "usages": usages, "request": STANDARD.encode(pem), "username": "forged" },
        })
    }

    fn node() -> Caller {
        Caller::client_certificate("system:node:a", vec!["system:nodes".to_owned()])
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    fn pods() -> Vec<Arc<Value>> {
        vec![
            Arc::new(
                json!({ "metadata": { "namespace": "vote" }, "spec": { "nodeName": "a", "serviceAccountName": "web" } }),
            ),
            Arc::new(
                json!({ "metadata": { "namespace": "vote" }, "spec": { "nodeName": "a", "serviceAccountName": "done" }, "status": { "phase": "Succeeded" } }),
            ),
        ]
    }

    fn holder(node: &str, name: &str) -> Option<String> {
        match (node, name) {
            (_, "10.0.0.1" | "api.example") => Some("a server of the API".to_owned()),
            ("a", "10.0.0.3") => Some("node \"b\"".to_owned()),
            _ => None,
        }
    }

    /// `a` since the hundredth second, `late` since the thousandth.
    fn joined(node: &str) -> Option<Timestamp> {
        let seconds = match node {
            "a" => 100,
            "late" => 1000,
            _ => return None,
        };
        Timestamp::from_second(seconds).ok()
    }

    #[test]
    fn a_node_whose_certificate_is_over_gets_another_while_its_node_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path(), "cluster.local").unwrap();
        let facts = Facts {
            pods_of_caller: &pods(),
            holder: &holder,
            joined: &joined,
        };
        let local = SanType::IpAddress("127.0.0.1".parse().unwrap());
        for (was, asks, signer, refusal) in [
            ("a", "a", NODE_CLIENT, ""),
            (
                "a",
                "b",
                NODE_CLIENT,
                "a node may only renew its own certificate",
            ),
            (
                "gone",
                "gone",
                NODE_CLIENT,
                "its certificate was over at 1970-01-01T00:08:20Z, and there is no Node of that name any more: join anew with a token",
            ),
            (
                "late",
                "late",
                NODE_CLIENT,
                "its certificate was over at 1970-01-01T00:08:20Z, and the Node of that name is another, made after that: join anew with a token",
            ),
            (
                "a",
                "a",
                NODE_SERVING,
                "only the node itself may ask for its serving certificate",
            ),
        ] {
            let caller = Caller::lapsed_node(Lapsed {
                node: was.to_owned(),
                ended: Timestamp::from_second(500).unwrap(),
            });
            let subject = format!("system:node:{asks}");
            let subject = [
                (DnType::OrganizationName, "system:nodes"),
                (DnType::CommonName, subject.as_str()),
            ];
            let (usages, names) = match signer {
                NODE_CLIENT => (CLIENT, &[][..]),
                _ => (SERVING, std::slice::from_ref(&local)),
            };
            let mut object = csr(signer, usages, &subject, names, |_| {});
            let told = match sign(&authority, &caller, &mut object, &facts) {
                Ok(()) => String::new(),
                Err(error) => error.message,
            };
            assert!(
                told.ends_with(refusal) && told.is_empty() == refusal.is_empty(),
                "{told}"
            );
            assert_eq!(
                object.get("status").is_some(),
                refusal.is_empty(),
                "{was} {asks}"
            );
        }
    }

    #[test]
    fn requests_that_fit_are_signed_and_others_refused_in_one_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path(), "cluster.local").unwrap();
        let facts = Facts {
            pods_of_caller: &pods(),
            holder: &holder,
            joined: &joined,
        };
        let joining = Caller::bootstrap_token("abcdef", Vec::new());
        let node_a = [
            (DnType::OrganizationName, "system:nodes"),
            (DnType::CommonName, "system:node:a"),
        ];
        let masters = [
            (DnType::OrganizationName, "system:masters"),
            (DnType::CommonName, "system:node:a"),
        ];
        let with_unit = [
            node_a[0].clone(),
            node_a[1].clone(),
            (DnType::OrganizationalUnitName, "x"),
        ];
        let local = SanType::IpAddress("127.0.0.1".parse().unwrap());
        let address = |text: &str| SanType::IpAddress(text.parse().unwrap());
        let elsewhere = Some([10, 0, 0, 2].into());
        let web = uri("spiffe://cluster.local/ns/vote/sa/web");
        let keep: fn(&mut CertificateParams) = |_| {};
        let ca: fn(&mut CertificateParams) =
            |params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        for (caller, request, outcome) in [
            (&joining, csr(NODE_CLIENT, CLIENT, &node_a, &[], keep), ""),
            (&node(), csr(NODE_CLIENT, CLIENT, &node_a, &[], keep), ""),
            (
                &node(),
                csr(
                    NODE_SERVING,
                    SERVING,
                    &node_a,
                    &[local.clone(), dns("a.example")],
                    keep,
                ),
                "",
            ),
            (
                &node(),
                csr(WORKLOAD, BOTH, &[], std::slice::from_ref(&web), keep),
                "",
            ),
            (
                &node(),
                csr(
                    WORKLOAD,
                    BOTH,
                    &[],
                    &[uri("spiffe://cluster.local/ns/weft-system/sa/gateway")],
                    keep,
                ),
                "",
            ),
            (
                &joining,
                csr(NODE_CLIENT, CLIENT, &masters, &[], keep),
                "the subject must have O=system:nodes",
            ),
            (
                &joining,
                csr(NODE_CLIENT, CLIENT, &with_unit, &[], keep),
                "the subject may only have O and CN",
            ),
            (
                &joining,
                csr(NODE_CLIENT, CLIENT, &node_a[..1], &[], keep),
                "the subject must have CN=system:node:NAME",
            ),
            (
                &joining,
                csr(NODE_CLIENT, BOTH, &node_a, &[], keep),
                "spec.usages must be digital signature, client auth",
            ),
            (
                &joining,
                csr(NODE_CLIENT, CLIENT, &node_a, &[dns("x")], keep),
                "a node's client certificate has no alternative names",
            ),
            (
                &joining,
                csr(NODE_CLIENT, CLIENT, &node_a, &[], ca),
                "spec.request asks to be a CA",
            ),
            (
                &joining,
                csr(
                    NODE_SERVING,
                    SERVING,
                    &node_a,
                    std::slice::from_ref(&local),
                    keep,
                ),
                "only the node itself may ask for its serving certificate",
            ),
            (
                &Caller::client_certificate("system:node:b", vec!["system:nodes".to_owned()]),
                csr(NODE_CLIENT, CLIENT, &node_a, &[], keep),
                "a node may only renew its own certificate",
            ),
            (
                &Caller::client_certificate("jo", vec![]),
                csr(NODE_CLIENT, CLIENT, &node_a, &[], keep),
                "only a bootstrap token or the node itself may ask for it",
            ),
            (
                &node(),
                csr(
                    NODE_SERVING,
                    SERVING,
                    &node_a,
                    &[dns("kubernetes.default.svc")],
                    keep,
                ),
                "\"kubernetes.default.svc\" belongs to the API server",
            ),
            (
                &node(),
                csr(
                    NODE_SERVING,
                    SERVING,
                    &node_a,
                    &[dns("server-1.servers.cluster.local")],
                    keep,
                ),
                "\"server-1.servers.cluster.local\" belongs to the API server",
            ),
            (
                &node(),
                csr(
                    NODE_SERVING,
                    SERVING,
                    &node_a,
                    std::slice::from_ref(&web),
                    keep,
                ),
                "it may only have addresses and DNS names",
            ),
            (
                &node().at_address(elsewhere),
                csr(NODE_SERVING, SERVING, &node_a, &[address("10.0.0.2")], keep),
                "",
            ),
            (
                &node().at_address(elsewhere),
                csr(NODE_SERVING, SERVING, &node_a, &[address("10.0.0.1")], keep),
                "10.0.0.1 is the address of a server of the API",
            ),
            (
                &node().at_address(elsewhere),
                csr(
                    NODE_SERVING,
                    SERVING,
                    &node_a,
                    &[local.clone(), address("10.0.0.3")],
                    keep,
                ),
                "10.0.0.3 is the address of node \"b\"",
            ),
            (
                &node().at_address(elsewhere),
                csr(NODE_SERVING, SERVING, &node_a, &[dns("api.example")], keep),
                "\"api.example\" is the name of a server of the API",
            ),
            (
                &node().at_address(Some([10, 0, 0, 1].into())),
                csr(
                    NODE_SERVING,
                    SERVING,
                    &node_a,
                    &[address("10.0.0.1"), dns("api.example")],
                    keep,
                ),
                "",
            ),
            (
                &node(),
                csr(NODE_SERVING, SERVING, &node_a, &[], keep),
                "it must have one to 16 addresses or DNS names",
            ),
            (
                &node(),
                csr(WORKLOAD, BOTH, &node_a, std::slice::from_ref(&web), keep),
                "a workload's subject is empty; its identity is the URI",
            ),
            (
                &node(),
                csr(WORKLOAD, BOTH, &[], &[web.clone(), local.clone()], keep),
                "it must have exactly one alternative name, a SPIFFE URI",
            ),
            (
                &node(),
                csr(
                    WORKLOAD,
                    BOTH,
                    &[],
                    &[uri("spiffe://other/ns/vote/sa/web")],
                    keep,
                ),
                "the trust domain is \"cluster.local\", not \"other\"",
            ),
            (
                &node(),
                csr(
                    WORKLOAD,
                    BOTH,
                    &[],
                    &[uri("spiffe://cluster.local/ns/vote/sa/other")],
                    keep,
                ),
                "no pod with ServiceAccount \"other\" in namespace \"vote\" is bound to node \"a\"",
            ),
            (
                &node(),
                csr(
                    WORKLOAD,
                    BOTH,
                    &[],
                    &[uri("spiffe://cluster.local/ns/vote/sa/done")],
                    keep,
                ),
                "no pod with ServiceAccount \"done\" in namespace \"vote\" is bound to node \"a\"",
            ),
            (
                &joining,
                csr(WORKLOAD, BOTH, &[], std::slice::from_ref(&web), keep),
                "only nodes may ask for workload identities",
            ),
            (
                &joining,
                json!({ "spec": { "signerName": NODE_CLIENT, "request": "!" } }),
                "spec.request is not base64",
            ),
        ] {
            let mut object = request;
            let result = sign(&authority, caller, &mut object, &facts);
            match outcome {
                "" => {
                    result.unwrap();
                    assert_eq!(object["spec"]["username"], caller.user());
                    assert_eq!(object["status"]["conditions"][0]["type"], "Approved");
                }
                refusal => {
                    let error = result.unwrap_err();
                    assert!(
                        error.message.ends_with(refusal),
                        "{} / {refusal}",
                        error.message
                    );
                    assert!(object.get("status").is_none());
                }
            }
        }
    }

    #[test]
    fn an_identity_certificate_says_no_more_than_it_must() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path(), "cluster.local").unwrap();
        let facts = Facts {
            pods_of_caller: &pods(),
            holder: &holder,
            joined: &joined,
        };
        let mut object = csr(
            WORKLOAD,
            BOTH,
            &[],
            &[uri("spiffe://cluster.local/ns/vote/sa/web")],
            |_| {},
        );
        object["spec"]["expirationSeconds"] = json!(3600);
        sign(&authority, &node(), &mut object, &facts).unwrap();
        let pem = STANDARD
            .decode(object["status"]["certificate"].as_str().unwrap())
            .unwrap();
        let der = CertificateDer::from_pem_slice(&pem).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert_eq!(certificate.subject().iter_attributes().count(), 0);
        assert!(!certificate.is_ca());
        let validity = certificate.validity();
        assert_eq!(
            validity.not_after.timestamp() - validity.not_before.timestamp(),
            3600 + 900
        );
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        assert!(matches!(
            names.value.general_names.as_slice(),
            [GeneralName::URI("spiffe://cluster.local/ns/vote/sa/web")]
        ));

        // A signer of somebody else's stays pending.
        let mut object = json!({ "spec": { "signerName": "example.com/x", "request": "" } });
        sign(&authority, &node(), &mut object, &facts).unwrap();
        assert!(object.get("status").is_none());
    }
}
