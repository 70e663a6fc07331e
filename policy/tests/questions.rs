//! What comes of calls, question by question: the answers are those that Istio's documentation states, of its concepts (security), its
//! reference (authorization policy, conditions) and its tasks (HTTP, TCP, JWT, deny, dry run, trust domains).
//!
//! A call is written `METHOD HOST/PATH`, or `TCP`, and what else is known of it: `from=NAMESPACE/ACCOUNT` (or a whole principal), `ip=`,
//! `remote=`, `to=`, `port=`, `sni=`, `by=NAMESPACE/SERVICE`, `jwt={…}`, and any other name is a line of its head. Whoever is called is
//! `foo/httpbin`, labelled `app: httpbin, version: v1`.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use weft_policy::{
    Attributes, Because, Claims, Object, Pod, Policies, PolicyKind, Principal, Request, Verdict,
};

/// Policies as `namespace/name` with their specs, and the answers to calls.
type Case<'a> = (&'a str, Value, &'a [(&'a str, &'a str)]);

struct Call {
    method: String,
    host: String,
    path: String,
    principal: Option<(String, String, String)>,
    ip: Option<IpAddr>,
    remote: Option<IpAddr>,
    to: Option<IpAddr>,
    port: u16,
    sni: Option<String>,
    by: Option<(String, String)>,
    claims: Option<Claims>,
    headers: HeaderMap,
}

impl Call {
    fn read(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let method = words.next().expect("a method").to_owned();
        let mut call = Self {
            method,
            host: String::new(),
            path: String::new(),
            principal: None,
            ip: None,
            remote: None,
            to: None,
            port: 8000,
            sni: None,
            by: None,
            claims: None,
            headers: HeaderMap::new(),
        };
        if call.method != "TCP" {
            let (host, path) = words
                .next()
                .expect("a URL")
                .split_once('/')
                .expect("a path");
            call.host = host.to_owned();
            call.path = format!("/{path}");
        }
        for word in words {
            let (name, value) = word.split_once('=').expect("a name and a value");
            let ip = || Some(value.parse().expect("an address"));
            match name {
                "from" => {
                    let whole = match value.contains("/ns/") {
                        true => value.to_owned(),
                        false => {
                            let (space, account) = value.split_once('/').expect("an account");
                            format!("cluster.local/ns/{space}/sa/{account}")
                        }
                    };
                    let mut parts = whole.split('/').map(str::to_owned);
                    let (space, account) = (parts.nth(2), parts.nth(1));
                    call.principal = Some((
                        whole,
                        space.expect("a namespace"),
                        account.expect("an account"),
                    ));
                }
                "ip" => call.ip = ip(),
                "remote" => call.remote = ip(),
                "to" => call.to = ip(),
                "port" => call.port = value.parse().expect("a port"),
                "sni" => call.sni = Some(value.to_owned()),
                "by" => {
                    let (space, service) = value.split_once('/').expect("a service");
                    call.by = Some((space.to_owned(), service.to_owned()));
                }
                "jwt" => {
                    let claims: Value = serde_json::from_str(value).expect("claims");
                    // Texts that are lists of words come as lists.
                    call.claims = Some(Claims::new(claims.as_object().expect("claims").clone()));
                }
                name => {
                    let name = HeaderName::try_from(name).expect("a name");
                    let value = HeaderValue::from_str(value).expect("a value");
                    call.headers.append(name, value);
                }
            }
        }
        call
    }

    fn judged(&self, policies: &Policies) -> Verdict {
        let pod = Pod {
            namespace: "foo".to_owned(),
            name: "httpbin-0".to_owned(),
            labels: [("app", "httpbin"), ("version", "v1")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..Pod::default()
        };
        let principal = self.principal.as_ref();
        let asked = Attributes {
            principal: principal.map(|(text, namespace, service_account)| Principal {
                text,
                namespace,
                service_account,
            }),
            source_ip: self.ip,
            remote_ip: self.remote,
            destination_ip: self.to,
            destination_port: self.port,
            sni: self.sni.as_deref(),
            request: (self.method != "TCP").then(|| Request {
                method: &self.method,
                host: &self.host,
                path: self.path.split('?').next().unwrap_or_default(),
                headers: &self.headers,
                claims: self.claims.as_ref(),
            }),
        };
        let by = self.by.as_ref();
        let by = by.map(|(space, service)| (space.as_str(), service.as_str()));
        policies.guard(&pod).judge(&asked, by)
    }
}

/// `allow`, or by which rule (`allow foo/p:0`); `deny` because nobody allows it, or `deny foo/p:0`.
fn told(verdict: &Verdict) -> String {
    let word = match verdict.allowed {
        true => "allow",
        false => "deny",
    };
    match &verdict.because {
        Because::Met(matched) => {
            let policy = &matched.policy;
            format!(
                "{word} {}/{}:{}",
                policy.namespace, policy.name, matched.rule
            )
        }
        Because::Unrestricted | Because::NobodyAllows => word.to_owned(),
    }
}

fn policies(trust_domain: &str, all: &Value) -> Policies {
    let mut policies = Policies::new(trust_domain);
    for (name, spec) in all.as_object().expect("policies") {
        let (namespace, name) = name.split_once('/').expect("a namespace");
        let dry = [("istio.io/dry-run".to_owned(), "true".to_owned())].into();
        policies.apply(&Object {
            kind: PolicyKind::Authorization,
            namespace,
            name: name.trim_start_matches('~'),
            annotations: name.starts_with('~').then_some(&dry),
            spec,
        });
    }
    policies
}

/// Asks all questions; returns how many there were.
fn ask(trust_domain: &str, cases: &[Case<'_>]) -> usize {
    let mut wrong = Vec::new();
    let mut asked = 0;
    for (what, all, questions) in cases {
        let policies = policies(trust_domain, all);
        for (call, expected) in *questions {
            asked += 1;
            let found = told(&Call::read(call).judged(&policies));
            if found != *expected {
                wrong.push(format!("{what}: {call}: {found}, not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    asked
}

/// A policy `foo/p` with one rule.
fn rule(action: &str, rule: Value) -> Value {
    json!({ "foo/p": { "action": action, "rules": [rule] } })
}

fn from(action: &str, source: Value) -> Value {
    rule(action, json!({ "from": [{ "source": source }] }))
}

fn to(action: &str, operation: Value) -> Value {
    rule(action, json!({ "to": [{ "operation": operation }] }))
}

fn when(action: &str, condition: Value) -> Value {
    rule(action, json!({ "when": [condition] }))
}

/// What comes over what: 1–33.
fn order() -> usize {
    ask(
        "cluster.local",
        &[
            (
                "nothing is said",
                json!({}),
                &[("GET httpbin/", "allow"), ("TCP port=9000", "allow")],
            ),
            (
                "allow nothing",
                json!({ "foo/p": {} }),
                &[
                    ("GET httpbin/ from=foo/sleep", "deny"),
                    ("TCP from=foo/sleep", "deny"),
                ],
            ),
            (
                "no rules is not an empty rule",
                json!({ "foo/p": { "rules": [] } }),
                &[("GET httpbin/", "deny")],
            ),
            (
                "allow all",
                json!({ "foo/p": { "rules": [{}] } }),
                &[
                    ("GET httpbin/", "allow foo/p:0"),
                    ("TCP port=9000", "allow foo/p:0"),
                ],
            ),
            (
                "deny all",
                json!({ "foo/p": { "action": "DENY", "rules": [{}] } }),
                &[
                    ("GET httpbin/ from=foo/sleep", "deny foo/p:0"),
                    ("TCP", "deny foo/p:0"),
                ],
            ),
            (
                "a DENY without rules is met by nothing",
                json!({ "foo/p": { "action": "DENY" } }),
                &[("GET httpbin/", "allow")],
            ),
            (
                "DENY over ALLOW",
                json!({
                    "foo/a": { "rules": [{}] },
                    "foo/d": { "action": "DENY", "rules": [{ "to": [{ "operation": { "methods": ["POST"] } }] }] },
                }),
                &[
                    ("GET httpbin/", "allow foo/a:0"),
                    ("POST httpbin/", "deny foo/d:0"),
                ],
            ),
            (
                "whatever is not denied needs an ALLOW where there is one",
                json!({
                    "foo/a": { "rules": [{ "to": [{ "operation": { "paths": ["/ip"] } }] }] },
                    "foo/d": { "action": "DENY", "rules": [{ "to": [{ "operation": { "methods": ["POST"] } }] }] },
                }),
                &[
                    ("GET httpbin/ip", "allow foo/a:0"),
                    ("GET httpbin/headers", "deny"),
                    ("POST httpbin/ip", "deny foo/d:0"),
                ],
            ),
            (
                "a DENY alone lets the rest in",
                to("DENY", json!({ "methods": ["GET"] })),
                &[("GET httpbin/", "deny foo/p:0"), ("POST httpbin/", "allow")],
            ),
            (
                "of several ALLOW one is enough",
                json!({
                    "foo/a": { "rules": [{ "to": [{ "operation": { "methods": ["GET"] } }] }] },
                    "foo/b": { "rules": [{ "to": [{ "operation": { "methods": ["POST"] } }] }] },
                }),
                &[
                    ("GET httpbin/", "allow foo/a:0"),
                    ("POST httpbin/", "allow foo/b:0"),
                    ("PUT httpbin/", "deny"),
                ],
            ),
            (
                "of several rules one is enough",
                json!({ "foo/p": { "rules": [
                { "to": [{ "operation": { "methods": ["GET"] } }] },
                { "to": [{ "operation": { "methods": ["POST"] } }] },
            ] } }),
                &[
                    ("GET httpbin/", "allow foo/p:0"),
                    ("POST httpbin/", "allow foo/p:1"),
                    ("PUT httpbin/", "deny"),
                ],
            ),
            (
                "AUDIT decides nothing",
                json!({ "foo/p": { "action": "AUDIT", "rules": [{}] } }),
                &[("GET httpbin/", "allow")],
            ),
            (
                "AUDIT beside allow-nothing",
                json!({
                    "foo/a": {}, "foo/p": { "action": "AUDIT", "rules": [{}] },
                }),
                &[("GET httpbin/", "deny")],
            ),
            (
                "there is nobody to ask",
                json!({ "foo/p": {
                "action": "CUSTOM", "provider": { "name": "opa" }, "rules": [{ "to": [{ "operation": { "paths": ["/admin*"] } }] }],
            } }),
                &[
                    ("GET httpbin/admin", "deny foo/p:0"),
                    ("GET httpbin/", "allow"),
                ],
            ),
            (
                "from, to and when hold together",
                rule(
                    "ALLOW",
                    json!({
                        "from": [{ "source": { "principals": ["cluster.local/ns/default/sa/sleep"] } }, { "source": { "namespaces": ["test"] } }],
                        "to": [
                            { "operation": { "methods": ["GET"], "paths": ["/info*"] } },
                            { "operation": { "methods": ["POST"], "paths": ["/data"] } },
                        ],
                        "when": [{ "key": "request.auth.claims[iss]", "values": ["https://accounts.google.com"] }],
                    }),
                ),
                &[
                    (
                        r#"GET httpbin/info from=default/sleep jwt={"iss":"https://accounts.google.com"}"#,
                        "allow foo/p:0",
                    ),
                    (
                        r#"GET httpbin/information from=test/x jwt={"iss":"https://accounts.google.com"}"#,
                        "allow foo/p:0",
                    ),
                    (
                        r#"POST httpbin/data from=test/x jwt={"iss":"https://accounts.google.com"}"#,
                        "allow foo/p:0",
                    ),
                    (
                        r#"POST httpbin/info from=test/x jwt={"iss":"https://accounts.google.com"}"#,
                        "deny",
                    ),
                    (
                        r#"GET httpbin/info from=default/other jwt={"iss":"https://accounts.google.com"}"#,
                        "deny",
                    ),
                    (
                        r#"GET httpbin/info from=default/sleep jwt={"iss":"https://else"}"#,
                        "deny",
                    ),
                    ("GET httpbin/info from=default/sleep", "deny"),
                ],
            ),
        ],
    )
}

/// Where a policy applies.
fn places() -> usize {
    let nothing = || json!({});
    let selected =
        |key: &str, value: &str| json!({ "selector": { "matchLabels": { key: value } } });
    ask(
        "cluster.local",
        &[
            (
                "of its namespace",
                json!({ "foo/p": nothing() }),
                &[("GET httpbin/", "deny")],
            ),
            (
                "of another namespace",
                json!({ "bar/p": nothing() }),
                &[("GET httpbin/", "allow")],
            ),
            (
                "of all",
                json!({ "istio-system/p": nothing() }),
                &[("GET httpbin/", "deny")],
            ),
            (
                "of all, as this cluster calls it",
                json!({ "weft-system/p": nothing() }),
                &[("GET httpbin/", "deny")],
            ),
            (
                "of its labels",
                json!({ "foo/p": selected("app", "httpbin") }),
                &[("GET httpbin/", "deny")],
            ),
            (
                "of other labels",
                json!({ "foo/p": selected("app", "other") }),
                &[("GET httpbin/", "allow")],
            ),
            (
                "of all with these labels",
                json!({ "istio-system/p": selected("version", "v1") }),
                &[("GET httpbin/", "deny")],
            ),
            (
                "of all with others",
                json!({ "istio-system/p": selected("version", "v2") }),
                &[("GET httpbin/", "allow")],
            ),
            (
                "labels of another namespace's",
                json!({ "bar/p": selected("app", "httpbin") }),
                &[("GET httpbin/", "allow")],
            ),
            (
                "an ALLOW of all and one of the namespace are both looked at",
                json!({
                    "istio-system/a": { "rules": [{ "to": [{ "operation": { "paths": ["/healthz"] } }] }] },
                    "foo/b": { "rules": [{ "to": [{ "operation": { "methods": ["POST"] } }] }] },
                }),
                &[
                    ("GET httpbin/healthz", "allow istio-system/a:0"),
                    ("POST httpbin/x", "allow foo/b:0"),
                    ("GET httpbin/x", "deny"),
                ],
            ),
            (
                "a DENY of all over an ALLOW of the namespace",
                json!({
                    "istio-system/d": { "action": "DENY", "rules": [{ "to": [{ "operation": { "paths": ["/admin"] } }] }] },
                    "foo/a": { "rules": [{}] },
                }),
                &[("GET httpbin/admin", "deny istio-system/d:0")],
            ),
            (
                "of a Service",
                json!({ "foo/p": { "targetRefs": [{ "kind": "Service", "group": "", "name": "httpbin" }] } }),
                &[
                    ("GET httpbin/ by=foo/httpbin", "deny"),
                    ("GET other/ by=foo/other", "allow"),
                    ("GET httpbin/ by=bar/httpbin", "allow"),
                    ("GET 10.42.0.1/", "allow"),
                ],
            ),
        ],
    )
}

/// What values mean.
fn values() -> usize {
    ask(
        "cluster.local",
        &[
            (
                "exactly",
                to("ALLOW", json!({ "paths": ["/info"] })),
                &[
                    ("GET httpbin/info", "allow foo/p:0"),
                    ("GET httpbin/info/", "deny"),
                    ("GET httpbin/INFO", "deny"),
                    ("GET httpbin/info?debug=1", "allow foo/p:0"),
                ],
            ),
            (
                "by the beginning",
                to("ALLOW", json!({ "paths": ["/test/*"] })),
                &[
                    ("GET httpbin/test/", "allow foo/p:0"),
                    ("GET httpbin/test/a/b", "allow foo/p:0"),
                    ("GET httpbin/test", "deny"),
                    ("GET httpbin/testing", "deny"),
                ],
            ),
            (
                "by the end",
                to("ALLOW", json!({ "paths": ["*/info"] })),
                &[
                    ("GET httpbin/a/info", "allow foo/p:0"),
                    ("GET httpbin/info", "allow foo/p:0"),
                    ("GET httpbin/info/a", "deny"),
                ],
            ),
            (
                "that there is any",
                to("ALLOW", json!({ "paths": ["*"] })),
                &[("GET httpbin/", "allow foo/p:0"), ("TCP", "deny")],
            ),
            (
                "anything but",
                to("ALLOW", json!({ "notPaths": ["/healthz", "/private/*"] })),
                &[
                    ("GET httpbin/", "allow foo/p:0"),
                    ("GET httpbin/healthz", "deny"),
                    ("GET httpbin/private/x", "deny"),
                ],
            ),
            (
                "both",
                to("ALLOW", json!({ "paths": ["/a*"], "notPaths": ["/ab*"] })),
                &[
                    ("GET httpbin/a", "allow foo/p:0"),
                    ("GET httpbin/abc", "deny"),
                    ("GET httpbin/b", "deny"),
                ],
            ),
            (
                "methods",
                to("ALLOW", json!({ "methods": ["GET", "HEAD"] })),
                &[
                    ("GET httpbin/", "allow foo/p:0"),
                    ("HEAD httpbin/", "allow foo/p:0"),
                    ("POST httpbin/", "deny"),
                    ("get httpbin/", "deny"),
                ],
            ),
            (
                "all methods but",
                to("DENY", json!({ "notMethods": ["GET"] })),
                &[("GET httpbin/", "allow"), ("POST httpbin/", "deny foo/p:0")],
            ),
            (
                "hosts",
                to(
                    "ALLOW",
                    json!({ "hosts": ["example.com", "*.example.org", "Test.io", "api.*"] }),
                ),
                &[
                    ("GET example.com/", "allow foo/p:0"),
                    ("GET EXAMPLE.com/", "allow foo/p:0"),
                    ("GET example.com:8080/", "deny"),
                    ("GET www.example.org/", "allow foo/p:0"),
                    ("GET example.org/", "deny"),
                    ("GET test.IO/", "allow foo/p:0"),
                    ("GET api.x.y/", "allow foo/p:0"),
                ],
            ),
            (
                "hosts with any port",
                to("DENY", json!({ "hosts": ["example.com", "example.com:*"] })),
                &[
                    ("GET example.com/", "deny foo/p:0"),
                    ("GET example.com:8080/", "deny foo/p:0"),
                    ("GET example.company/", "allow"),
                ],
            ),
            (
                "all hosts but",
                to("DENY", json!({ "notHosts": ["good.example"] })),
                &[
                    ("GET good.example/", "allow"),
                    ("GET bad.example/", "deny foo/p:0"),
                ],
            ),
            (
                "ports",
                to("ALLOW", json!({ "ports": ["8000", "9000"] })),
                &[
                    ("GET httpbin/ port=8000", "allow foo/p:0"),
                    ("TCP port=9000", "allow foo/p:0"),
                    ("GET httpbin/ port=80", "deny"),
                    ("TCP port=9001", "deny"),
                ],
            ),
            (
                "all ports but",
                to("DENY", json!({ "notPorts": ["8000"] })),
                &[
                    ("GET httpbin/ port=8000", "allow"),
                    ("TCP port=22", "deny foo/p:0"),
                ],
            ),
            (
                "all fields of an operation",
                to(
                    "ALLOW",
                    json!({ "methods": ["GET"], "paths": ["/a"], "ports": ["8000"] }),
                ),
                &[
                    ("GET httpbin/a port=8000", "allow foo/p:0"),
                    ("GET httpbin/a port=8001", "deny"),
                    ("POST httpbin/a port=8000", "deny"),
                ],
            ),
            (
                "templates",
                to(
                    "ALLOW",
                    json!({ "paths": ["/foo/{*}", "/bar/{*}/baz/{**}", "/qux/{**}/"] }),
                ),
                &[
                    ("GET httpbin/foo/bar", "allow foo/p:0"),
                    ("GET httpbin/foo/bar/baz", "deny"),
                    ("GET httpbin/foo/", "deny"),
                    ("GET httpbin/bar/x/baz/", "allow foo/p:0"),
                    ("GET httpbin/bar/x/baz/y/z", "allow foo/p:0"),
                    ("GET httpbin/bar/x/baz", "deny"),
                    ("GET httpbin/qux/a/", "allow foo/p:0"),
                    ("GET httpbin/qux/a/b.txt/", "allow foo/p:0"),
                    ("GET httpbin/qux/a", "deny"),
                ],
            ),
            (
                "what is no template lets nobody in",
                to("ALLOW", json!({ "paths": ["/*/baz/{*}"] })),
                &[("GET httpbin/x/baz/y", "deny")],
            ),
            (
                "and denies everything",
                to("DENY", json!({ "paths": ["/foo/{*}.txt"] })),
                &[("GET httpbin/other", "deny foo/p:0")],
            ),
            (
                "gRPC by its path",
                to(
                    "ALLOW",
                    json!({ "methods": ["POST"], "paths": ["/yages.Echo/Ping"] }),
                ),
                &[
                    ("POST echo/yages.Echo/Ping", "allow foo/p:0"),
                    ("POST echo/yages.Echo/Other", "deny"),
                ],
            ),
        ],
    )
}

/// Who calls.
fn sources() -> usize {
    ask(
        "cluster.local",
        &[
            (
                "a principal",
                from(
                    "ALLOW",
                    json!({ "principals": ["cluster.local/ns/foo/sa/sleep"] }),
                ),
                &[
                    ("GET httpbin/ from=foo/sleep", "allow foo/p:0"),
                    ("TCP from=foo/sleep", "allow foo/p:0"),
                    ("GET httpbin/ from=bar/sleep", "deny"),
                    ("GET httpbin/ from=foo/sleep2", "deny"),
                    ("GET httpbin/", "deny"),
                ],
            ),
            (
                "any principal",
                from("ALLOW", json!({ "principals": ["*"] })),
                &[
                    ("GET httpbin/ from=foo/sleep", "allow foo/p:0"),
                    ("GET httpbin/", "deny"),
                ],
            ),
            (
                "by the beginning and the end",
                from(
                    "ALLOW",
                    json!({ "principals": ["cluster.local/ns/foo/*", "*/sa/admin"] }),
                ),
                &[
                    ("GET httpbin/ from=foo/any", "allow foo/p:0"),
                    ("GET httpbin/ from=bar/admin", "allow foo/p:0"),
                    ("GET httpbin/ from=bar/any", "deny"),
                ],
            ),
            (
                "nobody without one",
                from("DENY", json!({ "notPrincipals": ["*"] })),
                &[
                    ("GET httpbin/", "deny foo/p:0"),
                    ("GET httpbin/ from=foo/sleep", "allow"),
                ],
            ),
            (
                "whom is not known is not the one",
                from(
                    "ALLOW",
                    json!({ "notPrincipals": ["cluster.local/ns/foo/sa/bad"] }),
                ),
                &[
                    ("GET httpbin/", "allow foo/p:0"),
                    ("GET httpbin/ from=foo/bad", "deny"),
                ],
            ),
            (
                "namespaces",
                from("ALLOW", json!({ "namespaces": ["prod", "test-*", "*-eu"] })),
                &[
                    ("GET httpbin/ from=prod/x", "allow foo/p:0"),
                    ("GET httpbin/ from=test-1/x", "allow foo/p:0"),
                    ("GET httpbin/ from=dev-eu/x", "allow foo/p:0"),
                    ("GET httpbin/ from=production/x", "deny"),
                    ("GET httpbin/", "deny"),
                ],
            ),
            (
                "other namespaces",
                from("DENY", json!({ "notNamespaces": ["foo"] })),
                &[
                    ("GET httpbin/ from=foo/x", "allow"),
                    ("GET httpbin/ from=bar/x", "deny foo/p:0"),
                    ("GET httpbin/", "deny foo/p:0"),
                ],
            ),
            (
                "accounts",
                from("ALLOW", json!({ "serviceAccounts": ["sleep", "bar/curl"] })),
                &[
                    ("GET httpbin/ from=foo/sleep", "allow foo/p:0"),
                    ("GET httpbin/ from=bar/curl", "allow foo/p:0"),
                    ("GET httpbin/ from=bar/sleep", "deny"),
                    ("GET httpbin/ from=foo/sleepy", "deny"),
                    ("TCP from=bar/curl", "allow foo/p:0"),
                ],
            ),
            (
                "not these accounts",
                from("DENY", json!({ "notServiceAccounts": ["sleep"] })),
                &[
                    ("GET httpbin/ from=foo/sleep", "allow"),
                    ("GET httpbin/ from=foo/other", "deny foo/p:0"),
                ],
            ),
            (
                "addresses",
                from(
                    "ALLOW",
                    json!({ "ipBlocks": ["203.0.113.4", "10.1.0.0/16", "2001:db8::/32"] }),
                ),
                &[
                    ("GET httpbin/ ip=203.0.113.4", "allow foo/p:0"),
                    ("GET httpbin/ ip=203.0.113.5", "deny"),
                    ("GET httpbin/ ip=10.1.255.1", "allow foo/p:0"),
                    ("GET httpbin/ ip=10.2.0.1", "deny"),
                    ("GET httpbin/ ip=2001:db8::7", "allow foo/p:0"),
                    ("GET httpbin/ ip=::ffff:10.1.0.7", "allow foo/p:0"),
                    ("GET httpbin/", "deny"),
                ],
            ),
            (
                "not these addresses",
                from("ALLOW", json!({ "notIpBlocks": ["203.0.113.4"] })),
                &[
                    ("GET httpbin/ ip=203.0.113.4", "deny"),
                    ("GET httpbin/ ip=203.0.113.5", "allow foo/p:0"),
                ],
            ),
            (
                "who is behind a gateway",
                from("ALLOW", json!({ "remoteIpBlocks": ["198.51.100.0/24"] })),
                &[
                    (
                        "GET httpbin/ ip=10.0.0.1 remote=198.51.100.7",
                        "allow foo/p:0",
                    ),
                    ("GET httpbin/ ip=198.51.100.7 remote=10.0.0.1", "deny"),
                ],
            ),
            (
                "not who is behind it",
                from("DENY", json!({ "notRemoteIpBlocks": ["198.51.100.0/24"] })),
                &[
                    ("GET httpbin/ remote=198.51.100.7", "allow"),
                    ("GET httpbin/ remote=192.0.2.1", "deny foo/p:0"),
                ],
            ),
            (
                "all fields of a source",
                from(
                    "ALLOW",
                    json!({
                        "principals": ["*/sa/admin", "*/sa/dev"], "namespaces": ["prod", "test"], "notIpBlocks": ["203.0.113.4"],
                    }),
                ),
                &[
                    (
                        "GET httpbin/ from=prod/admin ip=203.0.113.5",
                        "allow foo/p:0",
                    ),
                    ("GET httpbin/ from=prod/admin ip=203.0.113.4", "deny"),
                    ("GET httpbin/ from=foo/admin ip=203.0.113.5", "deny"),
                    ("GET httpbin/ from=test/other ip=203.0.113.5", "deny"),
                ],
            ),
            (
                "one of several sources",
                rule(
                    "ALLOW",
                    json!({ "from": [
                { "source": { "namespaces": ["a"] } }, { "source": { "ipBlocks": ["10.0.0.0/8"] } },
            ] }),
                ),
                &[
                    ("GET httpbin/ from=a/x", "allow foo/p:0"),
                    ("GET httpbin/ ip=10.1.1.1", "allow foo/p:0"),
                    ("GET httpbin/ from=b/x ip=11.1.1.1", "deny"),
                ],
            ),
            (
                "what is no address lets nobody in",
                from("ALLOW", json!({ "ipBlocks": ["10.0.0.0/8", "10.0.0"] })),
                &[("GET httpbin/ ip=10.0.0.1", "deny")],
            ),
            (
                "and is left out of a DENY",
                from("DENY", json!({ "ipBlocks": ["10.0.0.0/8", "10.0.0"] })),
                &[
                    ("GET httpbin/ ip=10.0.0.1", "deny foo/p:0"),
                    ("GET httpbin/ ip=11.0.0.1", "allow"),
                ],
            ),
        ],
    )
}

/// Tokens.
fn tokens() -> usize {
    ask(
        "cluster.local",
        &[
            (
                "a principal of a token",
                from(
                    "ALLOW",
                    json!({ "requestPrincipals": ["testing@secure.istio.io/testing@secure.istio.io"] }),
                ),
                &[
                    (
                        r#"GET httpbin/ jwt={"iss":"testing@secure.istio.io","sub":"testing@secure.istio.io"}"#,
                        "allow foo/p:0",
                    ),
                    (
                        r#"GET httpbin/ jwt={"iss":"testing@secure.istio.io","sub":"other"}"#,
                        "deny",
                    ),
                    ("GET httpbin/", "deny"),
                    ("TCP", "deny"),
                ],
            ),
            (
                "any token",
                from("ALLOW", json!({ "requestPrincipals": ["*"] })),
                &[
                    (r#"GET httpbin/ jwt={"iss":"a","sub":"b"}"#, "allow foo/p:0"),
                    (r#"GET httpbin/ jwt={"iss":"a"}"#, "deny"),
                    ("GET httpbin/", "deny"),
                ],
            ),
            (
                "any subject of an issuer",
                from(
                    "ALLOW",
                    json!({ "requestPrincipals": ["https://issuer.example/x/*"] }),
                ),
                &[
                    (
                        r#"GET httpbin/ jwt={"iss":"https://issuer.example/x","sub":"b"}"#,
                        "allow foo/p:0",
                    ),
                    (
                        r#"GET httpbin/ jwt={"iss":"https://issuer.example","sub":"x"}"#,
                        "deny",
                    ),
                ],
            ),
            (
                "a subject of any issuer",
                from("ALLOW", json!({ "requestPrincipals": ["*/ann"] })),
                &[
                    (
                        r#"GET httpbin/ jwt={"iss":"any","sub":"ann"}"#,
                        "allow foo/p:0",
                    ),
                    (r#"GET httpbin/ jwt={"iss":"any","sub":"joann"}"#, "deny"),
                ],
            ),
            (
                "nobody without a token",
                from("DENY", json!({ "notRequestPrincipals": ["*"] })),
                &[
                    ("GET httpbin/", "deny foo/p:0"),
                    (r#"GET httpbin/ jwt={"iss":"a","sub":"b"}"#, "allow"),
                ],
            ),
            (
                "without a token on one path only",
                rule(
                    "DENY",
                    json!({
                        "from": [{ "source": { "notRequestPrincipals": ["*"] } }], "to": [{ "operation": { "notPaths": ["/healthz"] } }],
                    }),
                ),
                &[
                    ("GET httpbin/healthz", "allow"),
                    ("GET httpbin/x", "deny foo/p:0"),
                ],
            ),
            (
                "a claim that is a list",
                when(
                    "ALLOW",
                    json!({ "key": "request.auth.claims[groups]", "values": ["group1"] }),
                ),
                &[
                    (
                        r#"GET httpbin/ jwt={"iss":"a","sub":"b","groups":["group1","group2"]}"#,
                        "allow foo/p:0",
                    ),
                    (
                        r#"GET httpbin/ jwt={"iss":"a","sub":"b","groups":["group2"]}"#,
                        "deny",
                    ),
                    (r#"GET httpbin/ jwt={"iss":"a","sub":"b"}"#, "deny"),
                    (
                        r#"GET httpbin/ jwt={"iss":"a","sub":"b","groups":"group1"}"#,
                        "allow foo/p:0",
                    ),
                ],
            ),
            (
                "a claim within a claim",
                when(
                    "ALLOW",
                    json!({ "key": "request.auth.claims[realm][roles]", "values": ["adm*"] }),
                ),
                &[
                    (
                        r#"GET httpbin/ jwt={"realm":{"roles":["admin"]}}"#,
                        "allow foo/p:0",
                    ),
                    (r#"GET httpbin/ jwt={"realm":{"roles":["user"]}}"#, "deny"),
                    (r#"GET httpbin/ jwt={"realm":"roles"}"#, "deny"),
                    (r#"GET httpbin/ jwt={"roles":["admin"]}"#, "deny"),
                ],
            ),
            (
                "claims are texts",
                when(
                    "ALLOW",
                    json!({ "key": "request.auth.claims[level]", "values": ["7"] }),
                ),
                &[
                    (r#"GET httpbin/ jwt={"level":"7"}"#, "allow foo/p:0"),
                    (r#"GET httpbin/ jwt={"level":7}"#, "deny"),
                ],
            ),
            (
                "audiences",
                when(
                    "ALLOW",
                    json!({ "key": "request.auth.audiences", "values": ["example.com"] }),
                ),
                &[
                    (
                        r#"GET httpbin/ jwt={"aud":["other","example.com"]}"#,
                        "allow foo/p:0",
                    ),
                    (r#"GET httpbin/ jwt={"aud":"example.com"}"#, "allow foo/p:0"),
                    (r#"GET httpbin/ jwt={"aud":"other"}"#, "deny"),
                ],
            ),
            (
                "presenters",
                when(
                    "ALLOW",
                    json!({ "key": "request.auth.presenter", "values": ["app.*"] }),
                ),
                &[
                    (r#"GET httpbin/ jwt={"azp":"app.shop"}"#, "allow foo/p:0"),
                    ("GET httpbin/", "deny"),
                ],
            ),
            (
                "a principal as a condition",
                when(
                    "ALLOW",
                    json!({ "key": "request.auth.principal", "values": ["a/b"] }),
                ),
                &[
                    (r#"GET httpbin/ jwt={"iss":"a","sub":"b"}"#, "allow foo/p:0"),
                    (r#"GET httpbin/ jwt={"iss":"a","sub":"c"}"#, "deny"),
                ],
            ),
        ],
    )
}

/// Conditions.
fn conditions() -> usize {
    ask(
        "cluster.local",
        &[
            (
                "a line",
                when(
                    "ALLOW",
                    json!({ "key": "request.headers[User-Agent]", "values": ["Mozilla/*"] }),
                ),
                &[
                    ("GET httpbin/ user-agent=Mozilla/5.0", "allow foo/p:0"),
                    ("GET httpbin/ user-agent=curl/8", "deny"),
                    ("GET httpbin/", "deny"),
                    ("TCP", "deny"),
                ],
            ),
            (
                "a line that is there",
                when(
                    "ALLOW",
                    json!({ "key": "request.headers[x-token]", "values": ["*"] }),
                ),
                &[
                    ("GET httpbin/ x-token=a", "allow foo/p:0"),
                    ("GET httpbin/ x-token=", "allow foo/p:0"),
                    ("GET httpbin/", "deny"),
                ],
            ),
            (
                "a line that is not another",
                when(
                    "DENY",
                    json!({ "key": "request.headers[x-token]", "notValues": ["admin"] }),
                ),
                &[
                    ("GET httpbin/ x-token=admin", "allow"),
                    ("GET httpbin/ x-token=guest", "deny foo/p:0"),
                    ("GET httpbin/", "deny foo/p:0"),
                ],
            ),
            (
                "several lines of a name are one",
                when(
                    "ALLOW",
                    json!({ "key": "request.headers[x-a]", "values": ["1,2"] }),
                ),
                &[
                    ("GET httpbin/ x-a=1 x-a=2", "allow foo/p:0"),
                    ("GET httpbin/ x-a=1", "deny"),
                ],
            ),
            (
                "where from",
                when(
                    "ALLOW",
                    json!({ "key": "source.ip", "values": ["10.1.2.0/24"] }),
                ),
                &[
                    ("GET httpbin/ ip=10.1.2.3", "allow foo/p:0"),
                    ("TCP ip=10.1.3.3", "deny"),
                ],
            ),
            (
                "from behind what",
                when(
                    "ALLOW",
                    json!({ "key": "remote.ip", "values": ["10.1.2.3"] }),
                ),
                &[
                    ("GET httpbin/ remote=10.1.2.3", "allow foo/p:0"),
                    ("GET httpbin/ ip=10.1.2.3", "deny"),
                ],
            ),
            (
                "of which namespace",
                when(
                    "ALLOW",
                    json!({ "key": "source.namespace", "values": ["default"] }),
                ),
                &[
                    ("GET httpbin/ from=default/x", "allow foo/p:0"),
                    ("GET httpbin/ from=other/x", "deny"),
                ],
            ),
            (
                "who",
                when(
                    "ALLOW",
                    json!({ "key": "source.principal", "values": ["cluster.local/ns/default/sa/productpage"] }),
                ),
                &[
                    ("GET httpbin/ from=default/productpage", "allow foo/p:0"),
                    ("GET httpbin/ from=default/reviews", "deny"),
                ],
            ),
            (
                "which account",
                when(
                    "ALLOW",
                    json!({ "key": "source.serviceAccount", "values": ["default/productpage"] }),
                ),
                &[
                    ("GET httpbin/ from=default/productpage", "allow foo/p:0"),
                    ("GET httpbin/ from=foo/productpage", "deny"),
                ],
            ),
            (
                "where to",
                when(
                    "ALLOW",
                    json!({ "key": "destination.ip", "values": ["10.42.0.0/16"] }),
                ),
                &[
                    ("GET httpbin/ to=10.42.0.7", "allow foo/p:0"),
                    ("GET httpbin/ to=10.43.0.7", "deny"),
                ],
            ),
            (
                "which port",
                when(
                    "ALLOW",
                    json!({ "key": "destination.port", "values": ["80", "443"] }),
                ),
                &[
                    ("GET httpbin/ port=443", "allow foo/p:0"),
                    ("TCP port=22", "deny"),
                ],
            ),
            (
                "which name of TLS",
                when(
                    "ALLOW",
                    json!({ "key": "connection.sni", "values": ["www.example.com"] }),
                ),
                &[
                    ("GET httpbin/ sni=www.example.com", "allow foo/p:0"),
                    ("GET httpbin/", "deny"),
                ],
            ),
            (
                "both of two",
                rule(
                    "ALLOW",
                    json!({ "when": [
                { "key": "source.namespace", "values": ["default"] }, { "key": "request.headers[x]", "values": ["1"] },
            ] }),
                ),
                &[
                    ("GET httpbin/ from=default/x x=1", "allow foo/p:0"),
                    ("GET httpbin/ from=default/x", "deny"),
                ],
            ),
            (
                "what is known and what is not, of one",
                when(
                    "ALLOW",
                    json!({
                        "key": "source.namespace", "values": ["a*"], "notValues": ["ab"],
                    }),
                ),
                &[
                    ("GET httpbin/ from=ac/x", "allow foo/p:0"),
                    ("GET httpbin/ from=ab/x", "deny"),
                ],
            ),
            (
                "what nobody knows lets nobody in",
                when(
                    "ALLOW",
                    json!({ "key": "destination.labels[app]", "values": ["x"] }),
                ),
                &[("GET httpbin/", "deny")],
            ),
            (
                "and is left out of a DENY",
                when(
                    "DENY",
                    json!({ "key": "experimental.envoy.filters.a.b[c]", "values": ["x"] }),
                ),
                &[("GET httpbin/", "deny foo/p:0")],
            ),
        ],
    )
}

/// Connections that are no HTTP.
fn connections() -> usize {
    ask(
        "cluster.local",
        &[
            (
                "ports alone",
                to("ALLOW", json!({ "ports": ["9000", "9001"] })),
                &[
                    ("TCP port=9000", "allow foo/p:0"),
                    ("TCP port=9002", "deny"),
                ],
            ),
            (
                "an ALLOW that asks for a method is met by none",
                to("ALLOW", json!({ "ports": ["9000"], "methods": ["GET"] })),
                &[
                    ("TCP port=9000", "deny"),
                    ("GET httpbin/ port=9000", "allow foo/p:0"),
                ],
            ),
            (
                "a DENY that asks for a method is met without it",
                to("DENY", json!({ "ports": ["9000"], "methods": ["GET"] })),
                &[
                    ("TCP port=9000", "deny foo/p:0"),
                    ("TCP port=9001", "allow"),
                    ("GET httpbin/ port=9000", "deny foo/p:0"),
                    ("POST httpbin/ port=9000", "allow"),
                ],
            ),
            (
                "a DENY of methods alone is one of all connections",
                to("DENY", json!({ "methods": ["POST"] })),
                &[("TCP port=9001", "deny foo/p:0")],
            ),
            (
                "one rule of several",
                json!({ "foo/p": { "rules": [
                { "to": [{ "operation": { "methods": ["GET"] } }] }, { "to": [{ "operation": { "ports": ["9000"] } }] },
            ] } }),
                &[
                    ("TCP port=9000", "allow foo/p:1"),
                    ("TCP port=9001", "deny"),
                ],
            ),
            (
                "who, of what is no HTTP",
                from(
                    "DENY",
                    json!({ "principals": ["cluster.local/ns/foo/sa/bad"], "requestPrincipals": ["*"] }),
                ),
                &[
                    ("TCP from=foo/bad", "deny foo/p:0"),
                    ("TCP from=foo/good", "allow"),
                ],
            ),
        ],
    )
}

#[test]
fn two_hundred_questions_have_the_answers_that_istio_gives() {
    let asked = [
        order(),
        places(),
        values(),
        sources(),
        tokens(),
        conditions(),
        connections(),
    ];
    let asked: usize = asked.iter().sum();
    assert!(asked >= 200, "{asked} questions");
}

#[test]
fn a_trust_domain_is_meant_by_its_own_name_and_by_that_of_all() {
    ask(
        "td1",
        &[
            (
                "the name of all",
                from(
                    "ALLOW",
                    json!({ "principals": ["cluster.local/ns/foo/sa/a"] }),
                ),
                &[
                    ("GET httpbin/ from=td1/ns/foo/sa/a", "allow foo/p:0"),
                    ("GET httpbin/ from=td2/ns/foo/sa/a", "deny"),
                ],
            ),
            (
                "its own",
                from("ALLOW", json!({ "principals": ["td1/ns/foo/sa/a"] })),
                &[
                    ("GET httpbin/ from=td1/ns/foo/sa/a", "allow foo/p:0"),
                    ("GET httpbin/ from=cluster.local/ns/foo/sa/a", "deny"),
                ],
            ),
            (
                "any",
                from("ALLOW", json!({ "principals": ["*/ns/foo/sa/a"] })),
                &[("GET httpbin/ from=td2/ns/foo/sa/a", "allow foo/p:0")],
            ),
            (
                "domains alone",
                from("ALLOW", json!({ "trustDomains": ["td*"] })),
                &[
                    ("GET httpbin/ from=td2/ns/foo/sa/a", "allow foo/p:0"),
                    ("GET httpbin/ from=other/ns/foo/sa/a", "deny"),
                ],
            ),
        ],
    );
}

#[test]
fn what_is_tried_out_changes_nothing_and_is_told() {
    let all = json!({
        "foo/a": { "rules": [{ "to": [{ "operation": { "methods": ["GET"] } }] }] },
        "foo/~d": { "action": "DENY", "rules": [{ "to": [{ "operation": { "paths": ["/headers"] } }] }] },
        "foo/z": { "action": "AUDIT", "rules": [{ "to": [{ "operation": { "paths": ["/head*"] } }] }] },
    });
    let policies = policies("cluster.local", &all);
    let verdict = Call::read("GET httpbin/headers").judged(&policies);
    assert_eq!(told(&verdict), "allow foo/a:0");
    let (would, because) = verdict.dry_run.expect("a policy is tried out");
    assert_eq!(
        (would, because.to_string()),
        (false, "ns[foo]-policy[d]-rule[0]".to_owned())
    );
    let audited: Vec<String> = verdict.audited.iter().map(ToString::to_string).collect();
    assert_eq!(audited, ["ns[foo]-policy[z]-rule[0]"]);
    let other = Call::read("GET httpbin/ip").judged(&policies);
    assert_eq!(other.dry_run.map(|(would, _)| would), Some(true));
    assert!(other.audited.is_empty());
}

#[test]
fn a_verdict_says_what_it_rests_on() {
    let said = |all: Value, call: &str| {
        let verdict = Call::read(call).judged(&policies("cluster.local", &all));
        verdict.explained()
    };
    let text = [
        said(json!({}), "GET httpbin/"),
        said(json!({ "foo/p": {} }), "GET httpbin/"),
        said(json!({ "foo/p": { "rules": [{}] } }), "GET httpbin/"),
        said(to("DENY", json!({ "paths": ["/x"] })), "GET httpbin/x"),
    ];
    insta::assert_snapshot!(text.join("\n"), @r"
    allowed: no DENY policy is met, and no ALLOW policy selects the workload
    denied: ALLOW policies select the workload, and no rule of them is met
    allowed by rule 0 of AuthorizationPolicy foo/p
    denied by rule 0 of AuthorizationPolicy foo/p
    ");
}

#[test]
fn what_is_wrong_with_a_policy_is_told_in_istios_words() {
    let wrong = json!({
        "selector": {}, "targetRefs": [{ "kind": "Pod", "group": "", "name": "x" }],
        "action": "CUSTOM",
        "rules": [
            { "from": [], "to": [{}], "when": [{ "key": "source.ip", "values": ["10.0.0"] }, { "key": "who" }] },
            { "from": [{ "source": {} }], "to": [{ "operation": { "ports": ["70000"], "paths": ["/{**}/{*}", ""] } }] },
            { "from": [{ "source": { "serviceAccounts": ["a"], "namespaces": ["b"] } }] },
        ],
    });
    let faults = weft_policy::faults(&Object {
        kind: PolicyKind::Authorization,
        namespace: "foo",
        name: "p",
        annotations: None,
        spec: &wrong,
    });
    insta::assert_snapshot!(faults.join("\n"), @r#"
    only one of targetRefs or selector can be set
    targetRef: no policy is attached to objects of kind Pod in group ""
    action CUSTOM is not served: there is no provider to ask, and what meets its rules is denied
    `from` must not be empty, found at rule 0
    `to.operation` must not be nil, found at rule 0
    invalid `value` for `key` source.ip: bad IP address (10.0.0)
    at least one of `values` or `notValues` must be set for key who
    invalid `value` for `key` who: unknown attribute: who
    `from.source` must not be empty, found at rule 1
    bad port (70000)
    empty value not allowed, found in Paths
    invalid or unsupported path template, found in Paths
    cannot set serviceAccounts with namespaces or principals, found at rule 2
    "#);
}
