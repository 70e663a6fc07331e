//! Kubernetes' own signers of certificate requests, which sign what somebody has approved: what each checks of a request.
//!
//! | signer | what is checked | for |
//! | --- | --- | --- |
//! | `kubernetes.io/kube-apiserver-client` | usages; never `system:masters` | users of the API |
//! | `kubernetes.io/kubelet-serving` | subject of a node, names, usages | what a node serves |
//! | `kubernetes.io/kube-apiserver-client-kubelet` | subject of a node, no names, usages | nodes that were not let in by themselves |
//! | `kubernetes.io/legacy-unknown` | nothing | whatever it is |
//!
//! Those that weft signs at once are in `crate::certificates`.
//!
//! The authority is also the one of the servers' links and of the mesh: who may approve requests lets nobody in there ([`reserved`]).
//!
//! Invariants: pure but for the signature; what does not pass gets the condition `Failed` with Kubernetes' sentence. Source: kubernetes
//! `pkg/controller/certificates`, `pkg/apis/certificates/helpers.go` and the plug-ins of `plugin/pkg/admission/certificates`, 1.37.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use weft_api::status::StatusError;
use weft_api::time::rfc3339;
use weft_kinds::Kind;
use weft_kinds::lens::{condition_is_true, integer, items, text, time};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

use crate::authz::{Access, Authorized, Authorizer};
use crate::ca::{AlternativeName, Authority, Wanted};
use crate::caller::GROUP_SERVERS;
use crate::certificates::{NODE_CLIENT, is_of_servers};
use crate::peers::ORGANISATION;

const GROUP: &str = "certificates.k8s.io";
/// Users' client certificates.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// What nodes serve.
const SERVING: &str = "kubernetes.io/kubelet-serving";
/// Whatever was asked before signers had names.
const LEGACY: &str = "kubernetes.io/legacy-unknown";
/// How long a certificate is good where nobody says, and at most.
const LIFE: Duration = Duration::days(365);
const LIFE_MIN: Duration = Duration::minutes(10);
/// Bytes of a request that is read.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// A request for a certificate, in DER.
struct Asked(CertificateSigningRequestDer<'static>);

impl Asked {
    fn of(request: &Value) -> Result<Self, String> {
        let request = text(request, "/spec/request");
        if request.len() > REQUEST_BYTES_MAX {
            return Err("the request is too large".to_owned());
        }
        let pem = STANDARD
            .decode(request)
            .map_err(|error| error.to_string())?;
        let der = CertificateSigningRequestDer::from_pem_slice(&pem);
        let der = der.map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
        Ok(Self(der))
    }

    fn parsed(&self) -> Result<X509CertificationRequest<'_>, String> {
        let (_, parsed) = X509CertificationRequest::from_der(&self.0)
            .map_err(|error| format!("x509: malformed certificate request: {error}"))?;
        Ok(parsed)
    }
}

fn organisations<'a>(request: &'a X509CertificationRequest<'_>) -> Vec<&'a str> {
    let subject = &request.certification_request_info.subject;
    let all = subject.iter_organization();
    all.filter_map(|one| one.as_str().ok()).collect()
}

fn names_of(request: &X509CertificationRequest<'_>) -> Vec<AlternativeName> {
    let extensions = request.requested_extensions().into_iter().flatten();
    let mut names = Vec::new();
    for extension in extensions {
        let ParsedExtension::SubjectAlternativeName(all) = extension else {
            continue;
        };
        names.extend(all.general_names.iter().filter_map(|name| {
            Some(match name {
                GeneralName::DNSName(name) => AlternativeName::Dns((*name).to_owned()),
                GeneralName::RFC822Name(name) => AlternativeName::Email((*name).to_owned()),
                GeneralName::URI(name) => AlternativeName::Uri((*name).to_owned()),
                GeneralName::IPAddress(octets) if matches!(octets.len(), 4 | 16) => {
                    AlternativeName::Address(octets.to_vec())
                }
                _ => return None,
            })
        }));
    }
    names
}

/// Whether the usages are exactly these, with or without the one that only RSA needs.
fn check_usages(usages: &[&str], last: &str) -> Result<(), String> {
    let required = ["digital signature", "key encipherment", last];
    let known = usages.iter().all(|usage| required.contains(usage));
    let complete = usages.contains(&"digital signature") && usages.contains(&last);
    if known && complete {
        return Ok(());
    }
    let mut sorted = required;
    sorted.sort_unstable();
    Err(format!("usages did not match [{}]", sorted.join(" ")))
}

/// What is wrong with an approved request, by its signer's rules.
fn check(
    signer: &str,
    request: &X509CertificationRequest<'_>,
    names: &[AlternativeName],
    usages: &[&str],
) -> Result<(), String> {
    let is_dns = |name: &AlternativeName| matches!(name, AlternativeName::Dns(_));
    let is_email = |name: &AlternativeName| matches!(name, AlternativeName::Email(_));
    let is_uri = |name: &AlternativeName| matches!(name, AlternativeName::Uri(_));
    let is_address = |name: &AlternativeName| matches!(name, AlternativeName::Address(_));
    let refused = |why: &str| Err(why.to_owned());
    let of_nodes = || match organisations(request).as_slice() {
        ["system:nodes"] => Ok(()),
        _ => refused("subject organization is not system:nodes"),
    };
    let named_as_node = || {
        let subject = &request.certification_request_info.subject;
        let name = subject.iter_common_name().last();
        let name = name.and_then(|name| name.as_str().ok()).unwrap_or("");
        match name.starts_with("system:node:") {
            true => Ok(()),
            false => refused("subject common name does not begin with system:node:"),
        }
    };
    match signer {
        SERVING => {
            of_nodes()?;
            if !names.iter().any(|name| is_dns(name) || is_address(name)) {
                return refused("DNS or IP subjectAltName is required");
            }
            if names.iter().any(is_email) {
                return refused("Email subjectAltNames are not allowed");
            }
            if names.iter().any(is_uri) {
                return refused("URI subjectAltNames are not allowed");
            }
            check_usages(usages, "server auth")?;
            named_as_node()
        }
        NODE_CLIENT => {
            of_nodes()?;
            for (is, called) in [
                (&is_dns as &dyn Fn(&AlternativeName) -> bool, "DNS"),
                (&is_email, "Email"),
                (&is_address, "IP"),
                (&is_uri, "URI"),
            ] {
                if names.iter().any(is) {
                    return Err(format!("{called} subjectAltNames are not allowed"));
                }
            }
            named_as_node()?;
            check_usages(usages, "client auth")
        }
        CLIENT => {
            for usage in usages {
                if !matches!(
                    *usage,
                    "digital signature" | "key encipherment" | "client auth"
                ) {
                    return Err(format!("invalid usage for client certificate: {usage}"));
                }
            }
            match usages.contains(&"client auth") {
                true => Ok(()),
                false => refused("missing required usage for client certificate: client auth"),
            }
        }
        _ => Ok(()),
    }
}

/// What nobody gets by a request, whoever approves it: to be a server of this cluster, or a workload of its mesh.
fn reserved(
    request: &X509CertificationRequest<'_>,
    names: &[AlternativeName],
    trust_domain: &str,
) -> Result<(), String> {
    let organisations = organisations(request);
    // The second lets servers in.
    for of_servers in [ORGANISATION, GROUP_SERVERS] {
        if organisations.contains(&of_servers) {
            return Err(format!("subject organization {of_servers} is reserved"));
        }
    }
    for name in names {
        match name {
            AlternativeName::Dns(name) => {
                let lower = name.trim_end_matches('.').to_ascii_lowercase();
                if is_of_servers(&lower, trust_domain) {
                    return Err(format!("DNS subjectAltName {name:?} is reserved"));
                }
            }
            AlternativeName::Uri(uri) => {
                let scheme = uri.split(':').next().unwrap_or("");
                if scheme.trim().eq_ignore_ascii_case("spiffe") {
                    return Err(format!("URI subjectAltName {uri:?} is reserved"));
                }
            }
            AlternativeName::Email(_) | AlternativeName::Address(_) => {}
        }
    }
    Ok(())
}

/// The status of an approved request after its signer looked at it; none where there is nothing to do.
///
/// # Errors
/// What kept it from being read or signed, for the log: the request stays as it is.
pub(crate) fn signed(
    authority: &Authority,
    request: &Value,
    now: Timestamp,
) -> Result<Option<Value>, String> {
    let signer = text(request, "/spec/signerName");
    let is_due = condition_is_true(request, "Approved")
        && !condition_is_true(request, "Failed")
        && text(request, "/status/certificate").is_empty();
    if !is_due || !matches!(signer, CLIENT | SERVING | NODE_CLIENT | LEGACY) {
        return Ok(None);
    }
    let asked = Asked::of(request)?;
    let parsed = asked.parsed()?;
    parsed
        .verify_signature()
        .map_err(|error| format!("unable to verify the request's signature: {error}"))?;
    let names = names_of(&parsed);
    let usages: Vec<&str> = items(request, "/spec/usages")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let mut status = request["status"].clone();
    let checked = check(signer, &parsed, &names, &usages)
        .and_then(|()| reserved(&parsed, &names, authority.trust_domain()));
    if let Err(why) = checked {
        let failed = json!({
            "type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": why,
            "lastUpdateTime": rfc3339(now), "lastTransitionTime": rfc3339(now),
        });
        let mut conditions = items(&status, "/conditions").to_vec();
        conditions.push(failed);
        status["conditions"] = conditions.into();
        return Ok(Some(status));
    }
    let seconds = integer(request, "/spec/expirationSeconds");
    let life = seconds.map_or(LIFE, Duration::seconds);
    let wanted = Wanted {
        subject: parsed.certification_request_info.subject.as_raw(),
        key: parsed.certification_request_info.subject_pki.raw,
        names: &names,
        usages: &usages,
        life: life.clamp(LIFE_MIN, LIFE),
    };
    let at = OffsetDateTime::from_unix_timestamp(now.as_second()).map_err(|e| e.to_string())?;
    let pem = authority.issue(&wanted, at);
    let pem = pem.map_err(|error| error.to_string())?;
    status["certificate"] = STANDARD.encode(pem).into();
    Ok(Some(status))
}

/// Whether a request has been there for long enough: what was decided, or asked for in vain, is not kept.
pub(crate) fn is_old(request: &Value, now: Timestamp) -> bool {
    const DECIDED: i64 = 60 * 60;
    const PENDING: i64 = 24 * 60 * 60;
    let older = |of: &Value, pointer: &str, seconds: i64| {
        time(of, pointer).is_some_and(|at| now.as_second() - at.as_second() > seconds)
    };
    let conditions = items(request, "/status/conditions");
    if conditions.is_empty() {
        return older(request, "/metadata/creationTimestamp", PENDING);
    }
    let certificate = text(request, "/status/certificate");
    conditions.iter().any(|condition| {
        let age = |seconds| older(condition, "/lastUpdateTime", seconds);
        match text(condition, "/type") {
            "Denied" | "Failed" => age(DECIDED),
            "Approved" if certificate.is_empty() => age(PENDING),
            "Approved" => age(DECIDED) || is_over(certificate, now),
            _ => false,
        }
    })
}

/// Whether a certificate, PEM in base64, is good no longer.
fn is_over(certificate: &str, now: Timestamp) -> bool {
    let pem = STANDARD.decode(certificate).unwrap_or_default();
    let Ok(der) = rustls_pki_types::CertificateDer::from_pem_slice(&pem) else {
        return false;
    };
    x509_parser::parse_x509_certificate(&der)
        .is_ok_and(|(_, made)| made.validity().not_after.timestamp() < now.as_second())
}

/// Judges a new request: nobody is let into the group that may do everything by a certificate.
///
/// # Errors
/// 403.
pub(crate) fn judge_new(request: &Value) -> Result<(), StatusError> {
    if text(request, "/spec/signerName") != CLIENT {
        return Ok(());
    }
    let refused = |why: &str| {
        let name = text(request, "/metadata/name");
        StatusError::forbidden("certificatesigningrequests", GROUP, name, why)
    };
    let asked = Asked::of(request);
    let unread = |why: String| refused(&format!("failed to parse CSR: {why}"));
    let asked = asked.map_err(unread)?;
    let parsed = asked.parsed().map_err(unread)?;
    match organisations(&parsed).contains(&"system:masters") {
        true => Err(refused(&format!(
            "use of {CLIENT} signer with system:masters group is not allowed"
        ))),
        false => Ok(()),
    }
}

/// Says of each condition of a certificate request when it was changed, where the client does not.
pub(crate) fn stamp(kind: &Kind, new: &mut Value, old: &Value, now: Timestamp) {
    if &*kind.group != GROUP || &*kind.resource != "certificatesigningrequests" {
        return;
    }
    let conditions = new
        .pointer_mut("/status/conditions")
        .and_then(Value::as_array_mut);
    let conditions = conditions.into_iter().flatten();
    for condition in conditions.filter(|condition| condition.is_object()) {
        if text(condition, "/lastUpdateTime").is_empty() {
            condition["lastUpdateTime"] = rfc3339(now).into();
        }
        if !text(condition, "/lastTransitionTime").is_empty() {
            continue;
        }
        let is = |at: &str| {
            let mut old = items(old, "/status/conditions").iter();
            old.find(|old| {
                ["/type", "/status"].map(|field| text(old, field))
                    == ["/type", "/status"].map(|field| text(condition, field))
            })
            .map(|old| text(old, at).to_owned())
        };
        let since = is("/lastTransitionTime").filter(|since| !since.is_empty());
        condition["lastTransitionTime"] = since.unwrap_or_else(|| rfc3339(now)).into();
    }
}

/// Judges an approval, or a signature: the caller has to be one who may give it for this signer.
///
/// # Errors
/// 403.
pub(crate) fn judge_change(
    authorizer: &Authorizer,
    asked: &Authorized,
    new: &Value,
    old: &Value,
) -> Result<(), StatusError> {
    let Some(access) = asked.access() else {
        return Ok(());
    };
    if !access.is_resource(GROUP, "certificatesigningrequests") {
        return Ok(());
    }
    let changes = |pointer: &str| new.pointer(pointer) != old.pointer(pointer);
    let verb = match access.subresource {
        Some("approval") => "approve",
        Some("status") if changes("/status/certificate") || changes("/status/conditions") => "sign",
        _ => return Ok(()),
    };
    let signer = text(old, "/spec/signerName");
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    let any = format!("{domain}/*");
    let may = |name: &str| {
        let access = Access {
            verb,
            group: GROUP,
            resource: "signers",
            subresource: None,
            namespace: None,
            name: Some(name),
        };
        authorizer.decide(asked.caller(), &access).allowed
    };
    if may(signer) || may(&any) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    let name = access.name.unwrap_or("");
    Err(StatusError::forbidden(access.resource, GROUP, name, &why))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
    use rustls_pki_types::CertificateDer;

    use super::*;

    fn request(
        signer: &str,
        usages: &[&str],
        subject: &[(DnType, &str)],
        names: &[SanType],
    ) -> Value {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = names.to_vec();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        json!({
            "metadata": {"name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"signerName": signer, "usages": usages, "request": STANDARD.encode(pem)},
            "status": {"conditions": [{"type": "Approved", "status": "True"}]},
        })
    }

    #[test]
    fn each_signer_signs_what_fits_it() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open_or_create(dir.path(), "cluster.local").unwrap();
        let node = [
            (DnType::OrganizationName, "system:nodes"),
            (DnType::CommonName, "system:node:a"),
        ];
        let user = [
            (DnType::OrganizationName, "devs"),
            (DnType::CommonName, "jo"),
        ];
        let named = |name: &str| [SanType::DnsName(name.try_into().unwrap())];
        let dns = named("a.example");
        let uri = [SanType::URI("https://x/y".try_into().unwrap())];
        let workload = [SanType::URI(
            "Spiffe://cluster.local/ns/a/sa/b".try_into().unwrap(),
        )];
        let server = [
            (DnType::OrganizationName, "weft:servers"),
            (DnType::CommonName, "weft:server:1"),
        ];
        let joining = [
            (DnType::OrganizationName, GROUP_SERVERS),
            (DnType::CommonName, "jo"),
        ];
        let (client, serving) = (
            &["digital signature", "client auth"][..],
            &["digital signature", "key encipherment", "server auth"][..],
        );
        for (request, expected) in [
            (request(CLIENT, client, &user, &[]), "CN=jo"),
            (
                request(CLIENT, serving, &user, &[]),
                "invalid usage for client certificate: server auth",
            ),
            (
                request(CLIENT, &["digital signature"], &user, &[]),
                "missing required usage for client certificate: client auth",
            ),
            (request(SERVING, serving, &node, &dns), "CN=system:node:a"),
            (
                request(SERVING, serving, &node, &[]),
                "DNS or IP subjectAltName is required",
            ),
            (
                request(
                    SERVING,
                    serving,
                    &node,
                    &[dns.clone(), uri.clone()].concat(),
                ),
                "URI subjectAltNames are not allowed",
            ),
            (
                request(SERVING, client, &node, &dns),
                "usages did not match [digital signature key encipherment server auth]",
            ),
            (
                request(SERVING, serving, &user, &dns),
                "subject organization is not system:nodes",
            ),
            (request(NODE_CLIENT, client, &node, &[]), "CN=system:node:a"),
            (
                request(NODE_CLIENT, client, &node, &dns),
                "DNS subjectAltNames are not allowed",
            ),
            (
                request(NODE_CLIENT, client, &node[..1], &[]),
                "subject common name does not begin with system:node:",
            ),
            (request(LEGACY, serving, &user, &uri), "CN=jo"),
            (request("example.com/own", client, &user, &[]), ""),
            // What belongs to the cluster itself, nobody gets.
            (
                request(CLIENT, client, &server, &[]),
                "subject organization weft:servers is reserved",
            ),
            (
                request(CLIENT, client, &joining, &[]),
                "subject organization system:bootstrappers:weft:servers is reserved",
            ),
            (
                request(CLIENT, client, &user, &workload),
                "URI subjectAltName \"Spiffe://cluster.local/ns/a/sa/b\" is reserved",
            ),
            (
                request(LEGACY, client, &user, &workload),
                "URI subjectAltName \"Spiffe://cluster.local/ns/a/sa/b\" is reserved",
            ),
            (
                request(
                    SERVING,
                    serving,
                    &node,
                    &named("server-1.Servers.cluster.local"),
                ),
                "DNS subjectAltName \"server-1.Servers.cluster.local\" is reserved",
            ),
            (
                request(LEGACY, serving, &user, &named("kubernetes.default.svc")),
                "DNS subjectAltName \"kubernetes.default.svc\" is reserved",
            ),
        ] {
            let status = signed(&authority, &request, Timestamp::now()).unwrap();
            let Some(status) = status else {
                assert_eq!(expected, "");
                continue;
            };
            let certificate = STANDARD.decode(text(&status, "/certificate")).unwrap();
            let told = match CertificateDer::from_pem_slice(&certificate) {
                Ok(der) => {
                    let (_, made) = x509_parser::parse_x509_certificate(&der).unwrap();
                    let name = made.subject().iter_common_name().next().unwrap();
                    format!("CN={}", name.as_str().unwrap())
                }
                Err(_) => text(&status, "/conditions/1/message").to_owned(),
            };
            assert_eq!(told, expected);
        }
        // Before it is approved, and once it has its certificate, there is nothing to do.
        let mut waiting = request(CLIENT, client, &user, &[]);
        waiting["status"] = json!({});
        assert_eq!(signed(&authority, &waiting, Timestamp::now()), Ok(None));
    }

    #[test]
    fn requests_are_not_kept_for_ever() {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let with = |kind: &str, certificate: &str| {
            json!({
                "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
                "status": {
                    "certificate": certificate,
                    "conditions": [{"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z"}],
                },
            })
        };
        let pending = json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}});
        for (request, now, old) in [
            (&pending, "2026-01-01T23:59:59Z", false),
            (&pending, "2026-01-02T00:00:01Z", true),
            (&with("Denied", ""), "2026-01-01T01:00:01Z", true),
            (&with("Approved", "x"), "2026-01-01T00:59:59Z", false),
            (&with("Approved", "x"), "2026-01-01T01:00:01Z", true),
            (&with("Approved", ""), "2026-01-01T01:00:01Z", false),
            (&with("Approved", ""), "2026-01-02T00:00:01Z", true),
        ] {
            assert_eq!(is_old(request, at(now)), old, "{request} {now}");
        }
    }

    #[test]
    fn nobody_becomes_a_master_by_a_certificate() {
        let masters = [(DnType::OrganizationName, "system:masters")];
        let usages = ["client auth"];
        let refused = judge_new(&request(CLIENT, &usages, &masters, &[])).unwrap_err();
        assert_eq!(
            refused.message,
            "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
        );
        assert!(judge_new(&request("example.com/own", &usages, &masters, &[])).is_ok());
        let broken =
            json!({"metadata": {"name": "r"}, "spec": {"signerName": CLIENT, "request": "eA=="}});
        assert_eq!(judge_new(&broken).unwrap_err().code, 403);
    }
}
