//! CapabilityGrants: what the host gives to the pods of a ServiceAccount, beyond what every component has.
//!
//! Counts, types and enumerations are the schema's; here is what text may say: hosts, paths, ranges, names.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::name;
use weft_api::status::StatusError;

use crate::columns::{Column, Row, or_none};
use crate::field::Field;
use crate::lens::{items, items_mut, text};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static CAPABILITY_GRANT: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["grant".into()],
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("Service-Accounts", accounts, "To whom it is given."),
            Column::text("Config", config, "Sources of configuration."),
            Column::text("Stores", stores, "Key-value stores."),
            Column::text("Hosts", hosts, "Hosts outside of the cluster."),
            Column::text(
                "Resolved",
                resolved,
                "Whether all that it refers to exists.",
            ),
            Column::age(),
        ],
        ..super::own("CapabilityGrant", "capabilitygrants", CapabilityGrants)
    })
});

/// Grants of one namespace: each is looked at when a pod is created, and when a node asks for its data.
const GRANTS_MAX: usize = 256;

struct CapabilityGrants;

impl Strategy for CapabilityGrants {
    fn default(&self, value: &mut Value) {
        for outgoing in items_mut(value, "/spec/outgoingHTTP") {
            let port = match text(outgoing, "/scheme") {
                "HTTP" => 80,
                _ => 443,
            };
            if outgoing.is_object() && items(outgoing, "/ports").is_empty() {
                outgoing["ports"] = json!([port]);
            }
        }
    }

    fn admit(&self, new: &mut Value, around: &dyn Surroundings) -> Result<(), StatusError> {
        let kind = &CAPABILITY_GRANT;
        let namespace = text(new, "/metadata/namespace");
        if around.objects(kind, Some(namespace)).len() < GRANTS_MAX {
            return Ok(());
        }
        let detail = format!(
            "namespace {namespace} has {GRANTS_MAX} CapabilityGrants, which is as many as it may have: put several ServiceAccounts into one"
        );
        let name = text(new, "/metadata/name");
        Err(StatusError::forbidden(
            &kind.resource,
            &kind.group,
            name,
            &detail,
        ))
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        for account in spec.items("serviceAccountNames") {
            problems.rule(&account, name::dns1123_subdomain_faults);
        }
        for source in spec.items("config") {
            config_source(&source, problems);
        }
        for store in spec.items("keyValue") {
            let identifier = store.child("identifier");
            if !identifier.text().is_empty() {
                problems.rule(&identifier, name::config_key_faults);
            }
            problems.rule(&store.child("store"), name::dns1123_subdomain_faults);
        }
        for outgoing in spec.items("outgoingHTTP") {
            for host in outgoing.items("hosts") {
                problems.rule(&host, host_faults);
            }
            for path in outgoing.items("paths") {
                problems.rule(&path, path_faults);
            }
            for range in outgoing.items("addresses") {
                problems.address_range(&range);
            }
            manner(&outgoing, problems);
        }
    }
}

fn config_source(source: &Field<'_, '_>, problems: &mut Problems) {
    let (map, secret) = (source.child("configMapRef"), source.child("secretRef"));
    match (map.is_set(), secret.is_set()) {
        (true, true) => problems.invalid(
            source,
            "",
            "may not have more than one field specified at a time",
        ),
        (false, false) => problems.invalid(
            source,
            "",
            "must specify one of: `configMapRef` or `secretRef`",
        ),
        _ => {}
    }
    for reference in [map, secret] {
        if reference.is_set() {
            let named = reference.child("name");
            problems.rule(&named, name::dns1123_subdomain_faults);
        }
    }
    let prefix = source.child("prefix");
    if !prefix.text().is_empty() {
        problems.rule(&prefix, name::config_key_faults);
    }
}

/// How calls are sent: by TLS, and with what proves who calls.
fn manner(outgoing: &Field<'_, '_>, problems: &mut Problems) {
    let tls = outgoing.child("tls");
    let is_http = outgoing.child("scheme").text() == "HTTP";
    let originate = tls.child("originate");
    let originates = originate.flag();
    if originates && !is_http {
        let why = "is for calls without TLS: scheme has to be HTTP";
        problems.invalid(&originate, true, why);
    }
    let port = tls.child("port");
    if port.is_set() && !originates {
        problems.invalid(
            &port,
            port.shown(),
            "is where calls by TLS go to: originate has to be true",
        );
    }
    let authorities = tls.child("caCertificates");
    if authorities.is_set() {
        one_reference(&authorities, problems);
    }
    if is_http && !originates {
        for field in [authorities, outgoing.child("credentials")] {
            if field.is_set() && !field.is_empty() {
                problems.forbidden(
                    &field,
                    "needs TLS: scheme has to be HTTPS, or tls.originate true",
                );
            }
        }
    }
    for credential in outgoing.items("credentials") {
        let kinds = CREDENTIALS.map(|kind| credential.child(kind));
        let set: Vec<_> = kinds.into_iter().filter(|kind| kind.is_set()).collect();
        let [one] = &set[..] else {
            let why = match set.is_empty() {
                true => "must specify one of: `header`, `bearer`, `basic` or `clientCertificate`",
                false => "may not have more than one field specified at a time",
            };
            problems.invalid(&credential, "", why);
            continue;
        };
        let reference = one.child("secretRef");
        secret_key(&reference, problems);
        let name = one.child("name");
        if name.is_set() {
            problems.rule(&name, header_faults);
        }
    }
}

/// What a credential may be.
const CREDENTIALS: [&str; 4] = ["header", "bearer", "basic", "clientCertificate"];
/// By which others tell where a request ends and to whom it goes.
const NO_CREDENTIALS: [&str; 12] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "traceparent",
    "tracestate",
    "x-forwarded-client-cert",
    "keep-alive",
];

fn header_faults(name: &str) -> Vec<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let lower = name.to_ascii_lowercase();
    if name.is_empty() || !name.bytes().all(is_token) {
        return vec!["must be the name of a header of HTTP".to_owned()];
    }
    if NO_CREDENTIALS.contains(&lower.as_str()) || lower.starts_with("x-weft-") {
        return vec!["must be a header that says nothing of the connection or the mesh".to_owned()];
    }
    Vec::new()
}

fn one_reference(source: &Field<'_, '_>, problems: &mut Problems) {
    let (map, secret) = (source.child("configMapRef"), source.child("secretRef"));
    match (map.is_set(), secret.is_set()) {
        (true, true) => problems.invalid(
            source,
            "",
            "may not have more than one field specified at a time",
        ),
        (false, false) => problems.invalid(
            source,
            "",
            "must specify one of: `configMapRef` or `secretRef`",
        ),
        _ => {}
    }
    for reference in [map, secret] {
        if reference.is_set() {
            secret_key(&reference, problems);
        }
    }
}

fn secret_key(reference: &Field<'_, '_>, problems: &mut Problems) {
    problems.rule(&reference.child("name"), name::dns1123_subdomain_faults);
    let key = reference.child("key");
    if !key.text().is_empty() {
        problems.rule(&key, name::config_key_faults);
    }
}

/// An exact name, `*.` and a name, or an address: in the one form in which requests are compared with it.
fn host_faults(host: &str) -> Vec<String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        let mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
        return match (mapped, address.to_string()) {
            (true, _) => vec!["must not be an IPv4-mapped IPv6 address".to_owned()],
            (false, canonical) if canonical != host => {
                vec![format!("must be in canonical form ({canonical:?})")]
            }
            _ => Vec::new(),
        };
    }
    if host.contains([':', '/', '[']) {
        return vec![
            "must be a host alone, without scheme, port, path and brackets: ports have a field of their own".to_owned(),
        ];
    }
    let name = host.strip_prefix("*.").unwrap_or(host);
    if name.contains('*') {
        return vec![
            "a wildcard may only be the whole first label, as in \"*.example.com\"".to_owned(),
        ];
    }
    // A number at the end is read as an address by what connects, and then by another rule than a name.
    let last = name.rsplit('.').next().unwrap_or("");
    if last.bytes().all(|byte| byte.is_ascii_digit()) && !last.is_empty() {
        return vec![
            "must be a DNS name or a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
                .to_owned(),
        ];
    }
    name::dns1123_subdomain_faults(name)
}

/// A path whose segments mean what they seem to mean, whoever normalises them.
fn path_faults(path: &str) -> Vec<String> {
    let lower = path.to_ascii_lowercase();
    let dots = |segment: &str| matches!(segment, "." | "..");
    let sentence = if !path.starts_with('/') {
        "must be an absolute path and start with a '/'"
    } else if path.contains("//") {
        "must not contain '//'"
    } else if path.split('/').any(dots) {
        "must not have '.' or '..' as a segment"
    } else if lower.contains("%2f") || lower.contains("%2e") || lower.contains("%5c") {
        "must not contain an encoded '/', '\\' or '.'"
    } else if !path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"?#\\\"<>".contains(&byte))
    {
        "must consist of the characters of a URL's path, without a query or fragment"
    } else {
        return Vec::new();
    };
    vec![sentence.to_owned()]
}

fn joined<'a>(texts: impl Iterator<Item = &'a Value>) -> Value {
    let texts: Vec<&str> = texts.filter_map(Value::as_str).collect();
    or_none(texts.join(","))
}

fn accounts(row: &Row<'_>) -> Value {
    joined(items(row.object, "/spec/serviceAccountNames").iter())
}

fn config(row: &Row<'_>) -> Value {
    let sources = items(row.object, "/spec/config").iter();
    joined(sources.filter_map(|source| {
        let map = source.pointer("/configMapRef/name");
        map.or_else(|| source.pointer("/secretRef/name"))
    }))
}

fn stores(row: &Row<'_>) -> Value {
    let stores = items(row.object, "/spec/keyValue").iter();
    joined(stores.filter_map(|store| store.get("store")))
}

fn resolved(row: &Row<'_>) -> Value {
    row.condition("ResolvedRefs").unwrap_or("").into()
}

fn hosts(row: &Row<'_>) -> Value {
    let entries = items(row.object, "/spec/outgoingHTTP").iter();
    joined(entries.flat_map(|entry| items(entry, "/hosts")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode;
    use crate::validate::told;

    fn grant() -> Value {
        json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "CapabilityGrant",
            "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {
                "serviceAccountNames": ["cart"],
                "config": [
                    {"configMapRef": {"name": "settings"}, "prefix": "app."},
                    {"secretRef": {"name": "api-key", "optional": true}},
                ],
                "keyValue": [
                    {"identifier": "default", "store": "carts", "access": "ReadWrite"},
                    {"identifier": "", "store": "prices", "access": "ReadOnly"},
                ],
                "outgoingHTTP": [{
                    "hosts": ["api.stripe.com", "*.example.org", "10.9.8.7", "2001:db8::1"],
                    "ports": [443], "scheme": "HTTPS", "paths": ["/v1/"],
                    "methods": ["GET", "POST"], "addresses": ["10.0.0.0/8", "fd00::/8"],
                }],
            },
        })
    }

    #[test]
    fn what_is_left_out_has_the_defaults() {
        let mut sent = grant();
        sent["spec"]["keyValue"] = json!([{"store": "carts"}]);
        sent["spec"]["outgoingHTTP"] = json!([
            {"hosts": ["a.example"]},
            {"hosts": ["b.example"], "scheme": "HTTP", "ports": []},
            {"hosts": ["c.example"], "ports": [8443]},
        ]);
        let decoded = decode::value(&CAPABILITY_GRANT.gvk(), &sent).unwrap();
        assert_eq!(decoded.faults, [""; 0]);
        let mut value = decoded.value;
        decode::fill(&CAPABILITY_GRANT.gvk(), &mut value);
        CAPABILITY_GRANT.strategy.default(&mut value);
        let expected = json!([{"identifier": "", "store": "carts", "access": "ReadWrite"}]);
        assert_eq!(value["spec"]["keyValue"], expected);
        let expected = json!([
            {"hosts": ["a.example"], "scheme": "HTTPS", "ports": [443]},
            {"hosts": ["b.example"], "scheme": "HTTP", "ports": [80]},
            {"hosts": ["c.example"], "scheme": "HTTPS", "ports": [8443]},
        ]);
        assert_eq!(value["spec"]["outgoingHTTP"], expected);
        let once = value.clone();
        CAPABILITY_GRANT.strategy.default(&mut value);
        assert_eq!(value, once);
    }

    #[test]
    fn hosts_have_one_form() {
        let name = "a lowercase RFC 1123 subdomain";
        for (host, told) in [
            ("api.stripe.com", ""),
            ("localhost", ""),
            ("*.example.org", ""),
            ("169.254.169.254", ""),
            ("::1", ""),
            ("API.stripe.com", name),
            ("api.stripe.com.", name),
            ("a..b", name),
            ("-a.b", name),
            ("a_b.c", name),
            ("*", "a wildcard may only be the whole first label"),
            ("*.", name),
            ("*.*.org", "a wildcard may only be the whole first label"),
            ("a.*.org", "a wildcard may only be the whole first label"),
            ("*a.org", "a wildcard may only be the whole first label"),
            ("api.stripe.com:443", "must be a host alone"),
            ("https://api.stripe.com", "must be a host alone"),
            ("[::1]", "must be a host alone"),
            ("0:0::1", "must be in canonical form (\"::1\")"),
            ("::ffff:10.0.0.1", "must not be an IPv4-mapped IPv6 address"),
            ("010.0.0.1", "must be a DNS name or a valid IP address"),
            ("10.1", "must be a DNS name or a valid IP address"),
            ("2130706433", "must be a DNS name or a valid IP address"),
            ("*.1", "must be a DNS name or a valid IP address"),
            ("exämple.org", name),
        ] {
            let faults = host_faults(host);
            match told {
                "" => assert_eq!(faults, [""; 0], "{host}"),
                told => assert!(faults.join(" ").starts_with(told), "{host}: {faults:?}"),
            }
        }
    }

    #[test]
    fn paths_mean_what_they_seem_to_mean() {
        for (path, sound) in [
            ("/", true),
            ("/v1/", true),
            ("/v1/a%20b", true),
            ("v1", false),
            ("/a//b", false),
            ("/a/../b", false),
            ("/a/.", false),
            ("/a%2Fb", false),
            ("/a/%2e%2e/b", false),
            ("/a?b", false),
            ("/a#b", false),
            ("/a b", false),
            ("/ä", false),
            ("/a\\b", false),
        ] {
            assert_eq!(path_faults(path).is_empty(), sound, "{path}");
        }
    }

    #[test]
    fn each_fault_is_told_at_its_field() {
        told::check(
            &CAPABILITY_GRANT,
            &grant(),
            &[
                (
                    "/spec/serviceAccountNames",
                    json!([]),
                    &[
                        "spec.serviceAccountNames: Invalid value: 0: spec.serviceAccountNames in body should have at least 1 items",
                    ],
                ),
                (
                    "/spec/config/0",
                    json!({"prefix": "a"}),
                    &[
                        "spec.config[0]: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
                    ],
                ),
                (
                    "/spec/config/0",
                    json!({"configMapRef": {"name": "a"}, "secretRef": {"name": "b"}}),
                    &[
                        "spec.config[0]: Invalid value: \"\": may not have more than one field specified at a time",
                    ],
                ),
                (
                    "/spec/keyValue/1/identifier",
                    json!("default"),
                    &["spec.keyValue[1]: Duplicate value: {\"identifier\":\"default\"}"],
                ),
                (
                    "/spec/keyValue/0/access",
                    json!("Write"),
                    &[
                        "spec.keyValue[0].access: Unsupported value: \"Write\": supported values: \"ReadWrite\", \"ReadOnly\"",
                    ],
                ),
                (
                    "/spec/outgoingHTTP/0/ports",
                    json!([0]),
                    &[
                        "spec.outgoingHTTP[0].ports[0]: Invalid value: 0: spec.outgoingHTTP[0].ports[0] in body should be greater than or equal to 1",
                    ],
                ),
                (
                    "/spec/outgoingHTTP/0/addresses",
                    json!(["10.0.0.0"]),
                    &[
                        "spec.outgoingHTTP[0].addresses[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
                    ],
                ),
                (
                    "/spec/outgoingHTTP/0/credentials",
                    json!([
                        {"bearer": {"secretRef": {"name": "a"}}},
                        {},
                        {"bearer": {"secretRef": {"name": "a"}}, "basic": {"secretRef": {"name": "a"}}},
                        {"header": {"name": "Host", "secretRef": {"name": "A", "key": "a/b"}}},
                    ]),
                    &[
                        "spec.outgoingHTTP[0].credentials[1]: Invalid value: \"\": must specify one of: `header`, `bearer`, `basic` or `clientCertificate`",
                        "spec.outgoingHTTP[0].credentials[2]: Invalid value: \"\": may not have more than one field specified at a time",
                        "spec.outgoingHTTP[0].credentials[3].header.secretRef.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                        "spec.outgoingHTTP[0].credentials[3].header.secretRef.key: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                        "spec.outgoingHTTP[0].credentials[3].header.name: Invalid value: \"Host\": must be a header that says nothing of the connection or the mesh",
                    ],
                ),
                (
                    "/spec/outgoingHTTP/0/tls",
                    json!({"originate": true, "caCertificates": {}}),
                    &[
                        "spec.outgoingHTTP[0].tls.originate: Invalid value: true: is for calls without TLS: scheme has to be HTTP",
                        "spec.outgoingHTTP[0].tls.caCertificates: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
                    ],
                ),
                (
                    "/spec/outgoingHTTP/0",
                    json!({
                        "hosts": ["a.example"], "scheme": "HTTP", "tls": {"port": 444},
                        "credentials": [{"bearer": {"secretRef": {"name": "a"}}}],
                    }),
                    &[
                        "spec.outgoingHTTP[0].tls.port: Invalid value: 444: is where calls by TLS go to: originate has to be true",
                        "spec.outgoingHTTP[0].credentials: Forbidden: needs TLS: scheme has to be HTTPS, or tls.originate true",
                    ],
                ),
                (
                    "/spec/outgoingHTTP/0/paths",
                    json!(["v1"]),
                    &[
                        "spec.outgoingHTTP[0].paths[0]: Invalid value: \"v1\": must be an absolute path and start with a '/'",
                    ],
                ),
            ],
        );
    }
}
