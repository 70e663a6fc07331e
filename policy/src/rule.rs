//! One rule: sources, operations and conditions, as clauses that a call meets or does not.
//!
//! Of each rule there are two forms. Of a connection that is no HTTP, nothing is known that HTTP says: an ALLOW that asks for it is met by no
//! such connection, and what a DENY asks of it is as good as met, so that nobody gets past one by not speaking HTTP.
//!
//! Invariants: what is not known of a call meets no value, and therefore every `not…`; values are alternatives, and everything else has to hold
//! together.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::attributes::Attributes;
use crate::pattern::{Pattern, Template};
use crate::spec::{Condition, Operation, RuleSpec, Source};
use crate::token::Claims;

/// What a rule is compiled for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meaning<'a> {
    /// Of the policy: a ServiceAccount without one is of it.
    pub(crate) namespace: &'a str,
    /// Of this cluster, for which `cluster.local` stands as well.
    pub(crate) trust_domain: &'a str,
    /// What is not understood makes the rule one that nobody meets; otherwise it is left out of it.
    pub(crate) lets_in: bool,
}

/// By this name policies mean the trust domain that they are in, whatever that is.
const LOCAL_TRUST_DOMAIN: &str = "cluster.local";

/// See the module's promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Alternatives; none where anybody is meant.
    from: Vec<Vec<Clause>>,
    to: Vec<Vec<Clause>>,
    when: Vec<Clause>,
}

/// One field: one of its values, or none of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Clause {
    values: Values,
    is_not: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Values {
    Principals(Vec<Pattern>),
    Namespaces(Vec<Pattern>),
    /// Namespace and name.
    Accounts(Vec<(String, String)>),
    TrustDomains(Vec<Pattern>),
    SourceIps(Vec<IpNet>),
    RemoteIps(Vec<IpNet>),
    DestinationIps(Vec<IpNet>),
    Ports(Vec<u16>),
    Snis(Vec<Pattern>),
    /// Issuer and subject.
    RequestPrincipals(Vec<(Pattern, Pattern)>),
    Hosts(Vec<Pattern>),
    Methods(Vec<Pattern>),
    Paths(Vec<Pattern>),
    Header(String, Vec<Pattern>),
    /// The claim by its path.
    Claim(Vec<String>, Vec<Pattern>),
}

/// What a field's values are read as. Names in parentheses are those of Istio's attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Principal,
    Namespace,
    ServiceAccount,
    TrustDomain,
    SourceIp,
    RemoteIp,
    DestinationIp,
    DestinationPort,
    Sni,
    RequestPrincipal,
    Host,
    Method,
    Path,
    Header(String),
    Claim(Vec<String>),
    /// Nothing that is known here.
    Unknown,
}

impl Field {
    /// Of a condition's key.
    fn of_key(key: &str) -> Self {
        match key {
            "source.principal" => Self::Principal,
            "source.namespace" => Self::Namespace,
            "source.serviceAccount" => Self::ServiceAccount,
            "source.trustDomain" => Self::TrustDomain,
            "source.ip" => Self::SourceIp,
            "remote.ip" => Self::RemoteIp,
            "destination.ip" => Self::DestinationIp,
            "destination.port" => Self::DestinationPort,
            "connection.sni" => Self::Sni,
            "request.auth.principal" => Self::RequestPrincipal,
            "request.auth.audiences" => Self::Claim(vec!["aud".to_owned()]),
            "request.auth.presenter" => Self::Claim(vec!["azp".to_owned()]),
            key => match (
                key.strip_prefix("request.headers"),
                key.strip_prefix("request.auth.claims"),
            ) {
                (Some(name), _) => match &*in_brackets(name) {
                    [name] => Self::Header(name.to_ascii_lowercase()),
                    _ => Self::Unknown,
                },
                (None, Some(path)) => match in_brackets(path) {
                    path if path.is_empty() => Self::Unknown,
                    path => Self::Claim(path),
                },
                (None, None) => Self::Unknown,
            },
        }
    }

    /// Only HTTP says it.
    fn is_http(&self) -> bool {
        matches!(
            self,
            Self::RequestPrincipal
                | Self::Host
                | Self::Method
                | Self::Path
                | Self::Header(_)
                | Self::Claim(_)
        )
    }
}

/// `[a][b]` as its parts; nothing where it is not that.
fn in_brackets(text: &str) -> Vec<String> {
    let inside = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let parts = inside.map(|inside| inside.split("][").map(str::to_owned));
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.iter().any(String::is_empty) {
        true => Vec::new(),
        false => parts,
    }
}

/// Something of a rule is not understood, and the rule is one that lets in.
struct Unmet;

impl Rule {
    /// A rule for requests, or for what is no HTTP. None where nobody meets it.
    pub(crate) fn compile(spec: &RuleSpec, meaning: Meaning<'_>, is_http: bool) -> Option<Self> {
        let compiler = Compiler { meaning, is_http };
        let rule = || {
            let from = spec.from.iter().flatten();
            let from = from.map(|one| match &one.source {
                Some(source) => compiler.source(source),
                None => Ok(Vec::new()),
            });
            let to = spec.to.iter().flatten();
            let to = to.map(|one| match &one.operation {
                Some(operation) => compiler.operation(operation),
                None => Ok(Vec::new()),
            });
            Ok::<_, Unmet>(Self {
                from: from.collect::<Result<_, _>>()?,
                to: to.collect::<Result<_, _>>()?,
                when: compiler.conditions(&spec.when)?,
            })
        };
        rule().ok()
    }

    /// Whether a call meets it.
    pub(crate) fn matches(&self, call: &Attributes<'_>) -> bool {
        let one_of = |alternatives: &[Vec<Clause>]| {
            alternatives.is_empty()
                || alternatives
                    .iter()
                    .any(|clauses| clauses.iter().all(|clause| clause.matches(call)))
        };
        self.when.iter().all(|clause| clause.matches(call))
            && one_of(&self.to)
            && one_of(&self.from)
    }

    /// Whether it asks where somebody is.
    pub(crate) fn asks_for_addresses(&self) -> bool {
        let mut all = self.from.iter().flatten().chain(&self.when);
        all.any(|clause| matches!(clause.values, Values::SourceIps(_) | Values::RemoteIps(_)))
    }
}

struct Compiler<'a> {
    meaning: Meaning<'a>,
    is_http: bool,
}

impl Compiler<'_> {
    fn source(&self, source: &Source) -> Result<Vec<Clause>, Unmet> {
        self.clauses([
            (Field::Principal, &source.principals, &source.not_principals),
            (
                Field::RequestPrincipal,
                &source.request_principals,
                &source.not_request_principals,
            ),
            (Field::Namespace, &source.namespaces, &source.not_namespaces),
            (
                Field::ServiceAccount,
                &source.service_accounts,
                &source.not_service_accounts,
            ),
            (
                Field::TrustDomain,
                &source.trust_domains,
                &source.not_trust_domains,
            ),
            (Field::SourceIp, &source.ip_blocks, &source.not_ip_blocks),
            (
                Field::RemoteIp,
                &source.remote_ip_blocks,
                &source.not_remote_ip_blocks,
            ),
        ])
    }

    fn operation(&self, operation: &Operation) -> Result<Vec<Clause>, Unmet> {
        self.clauses([
            (
                Field::DestinationPort,
                &operation.ports,
                &operation.not_ports,
            ),
            (Field::Host, &operation.hosts, &operation.not_hosts),
            (Field::Method, &operation.methods, &operation.not_methods),
            (Field::Path, &operation.paths, &operation.not_paths),
        ])
    }

    fn conditions(&self, conditions: &[Condition]) -> Result<Vec<Clause>, Unmet> {
        let all = conditions.iter();
        self.clauses(
            all.map(|one| (Field::of_key(&one.key), &one.values, &one.not_values))
                .collect::<Vec<_>>(),
        )
    }

    fn clauses<'s>(
        &self,
        fields: impl IntoIterator<Item = (Field, &'s Vec<String>, &'s Vec<String>)>,
    ) -> Result<Vec<Clause>, Unmet> {
        let mut clauses = Vec::new();
        for (field, values, not_values) in fields {
            for (texts, is_not) in [(values, false), (not_values, true)] {
                if texts.is_empty() {
                    continue;
                }
                if let Some(values) = self.values(&field, texts)? {
                    clauses.push(Clause { values, is_not });
                }
            }
        }
        Ok(clauses)
    }

    /// None: nothing of it is understood, and it is left out.
    fn values(&self, field: &Field, texts: &[String]) -> Result<Option<Values>, Unmet> {
        if field.is_http() && !self.is_http {
            return self.not_understood(None);
        }
        Ok(Some(match field {
            Field::Principal => {
                let texts = texts.iter().map(|text| self.principal(text));
                Values::Principals(texts.map(|text| Pattern::of(&text)).collect())
            }
            Field::Namespace => {
                Values::Namespaces(texts.iter().map(|text| Pattern::pieces(text)).collect())
            }
            Field::ServiceAccount => {
                Values::Accounts(texts.iter().map(|text| self.account(text)).collect())
            }
            Field::TrustDomain => {
                Values::TrustDomains(texts.iter().map(|text| Pattern::pieces(text)).collect())
            }
            Field::SourceIp => return self.read(texts, range, Values::SourceIps),
            Field::RemoteIp => return self.read(texts, range, Values::RemoteIps),
            Field::DestinationIp => return self.read(texts, range, Values::DestinationIps),
            Field::DestinationPort => {
                return self.read(texts, |text| text.parse().ok(), Values::Ports);
            }
            Field::Sni => Values::Snis(patterns(texts)),
            Field::RequestPrincipal => {
                let texts = texts.iter().map(|text| request_principal(text));
                Values::RequestPrincipals(texts.collect())
            }
            Field::Host => {
                let texts = texts.iter().map(|text| text.to_ascii_lowercase());
                Values::Hosts(texts.map(|text| Pattern::of(&text)).collect())
            }
            Field::Method => Values::Methods(patterns(texts)),
            Field::Path => return self.read(texts, path, Values::Paths),
            Field::Header(name) => Values::Header(name.clone(), patterns(texts)),
            Field::Claim(claim) => Values::Claim(claim.clone(), patterns(texts)),
            Field::Unknown => return self.not_understood(None),
        }))
    }

    /// Values of which each may be no value.
    fn read<T>(
        &self,
        texts: &[String],
        read: impl Fn(&str) -> Option<T>,
        wrap: impl Fn(Vec<T>) -> Values,
    ) -> Result<Option<Values>, Unmet> {
        let understood: Vec<T> = texts.iter().filter_map(|text| read(text)).collect();
        if understood.len() == texts.len() {
            return Ok(Some(wrap(understood)));
        }
        let left = (!understood.is_empty()).then(|| wrap(understood));
        self.not_understood(left)
    }

    fn not_understood(&self, left: Option<Values>) -> Result<Option<Values>, Unmet> {
        match self.meaning.lets_in {
            true => Err(Unmet),
            false => Ok(left),
        }
    }

    /// A principal under the name that its trust domain has here, if it is one of this cluster.
    fn principal(&self, text: &str) -> String {
        let own = self.meaning.trust_domain;
        match text.split_once('/') {
            Some((domain, rest))
                if !domain.starts_with('*')
                    && rest.split('/').count() == 4
                    && (domain == LOCAL_TRUST_DOMAIN || Pattern::of(domain).matches(own)) =>
            {
                format!("{own}/{rest}")
            }
            _ => text.to_owned(),
        }
    }

    fn account(&self, text: &str) -> (String, String) {
        let (namespace, name) = text
            .split_once('/')
            .unwrap_or((self.meaning.namespace, text));
        (namespace.to_owned(), name.to_owned())
    }
}

fn patterns(texts: &[String]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::of(text)).collect()
}

fn path(text: &str) -> Option<Pattern> {
    match Template::is_meant(text) {
        true => Template::parse(text).map(Pattern::Path),
        false => Some(Pattern::of(text)),
    }
}

/// An address, or a range of them.
pub(crate) fn range(text: &str) -> Option<IpNet> {
    match text.contains('/') {
        true => text.parse().ok(),
        false => text.parse::<IpAddr>().ok().map(IpNet::from),
    }
}

/// `ISSUER/SUBJECT`. An issuer may be a URL, so that the last slash is the one between them.
fn request_principal(text: &str) -> (Pattern, Pattern) {
    let any = || Pattern::Present;
    let (issuer, subject) = match text.rsplit_once('/') {
        Some((issuer, subject)) => (issuer, Some(subject)),
        None => (text, None),
    };
    let exact = |text: &str| Pattern::Exact(text.to_owned());
    match (text, subject) {
        ("*", _) => (any(), any()),
        (text, Some(subject)) if text.starts_with('*') => (Pattern::of(issuer), exact(subject)),
        (text, None) if text.starts_with('*') => (any(), Pattern::of(text)),
        (text, Some(subject)) if text.ends_with('*') => (exact(issuer), Pattern::of(subject)),
        (text, None) if text.ends_with('*') => (Pattern::of(text), any()),
        (_, subject) => (exact(issuer), exact(subject.unwrap_or_default())),
    }
}

impl Clause {
    fn matches(&self, call: &Attributes<'_>) -> bool {
        self.values.has(call) != self.is_not
    }
}

impl Values {
    /// Whether the call has one of them.
    fn has(&self, call: &Attributes<'_>) -> bool {
        let request = call.request.as_ref();
        let claims = request.and_then(|request| request.claims);
        match self {
            Self::Principals(all) => call.principal.is_some_and(|who| one_of(all, who.text)),
            Self::Namespaces(all) => call.principal.is_some_and(|who| one_of(all, who.namespace)),
            Self::Accounts(all) => call.principal.is_some_and(|who| {
                let mut all = all.iter();
                all.any(|(space, name)| space == who.namespace && name == who.service_account)
            }),
            Self::TrustDomains(all) => call
                .principal
                .is_some_and(|who| one_of(all, who.trust_domain())),
            Self::SourceIps(all) => is_in(all, call.source_ip),
            Self::RemoteIps(all) => is_in(all, call.remote_ip),
            Self::DestinationIps(all) => is_in(all, call.destination_ip),
            Self::Ports(all) => all.contains(&call.destination_port),
            Self::Snis(all) => call.sni.is_some_and(|name| one_of(all, name)),
            Self::RequestPrincipals(all) => claims.is_some_and(|claims| {
                let text = |name| claims.text(name);
                text("iss")
                    .zip(text("sub"))
                    .is_some_and(|(issuer, subject)| {
                        let mut all = all.iter();
                        all.any(|(of, who)| of.matches(issuer) && who.matches(subject))
                    })
            }),
            Self::Hosts(all) => request.is_some_and(|request| {
                match request.host.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    true => one_of(all, &request.host.to_ascii_lowercase()),
                    false => one_of(all, request.host),
                }
            }),
            Self::Methods(all) => request.is_some_and(|request| one_of(all, request.method)),
            Self::Paths(all) => request.is_some_and(|request| one_of(all, request.path)),
            Self::Header(name, all) => request.is_some_and(|request| {
                let mut lines = request.headers.get_all(name.as_str()).iter();
                match (lines.next(), lines.next()) {
                    (None, _) => false,
                    (Some(only), None) => has_line(all, &text_of(only)),
                    (Some(first), Some(second)) => {
                        let mut joined = text_of(first);
                        for line in std::iter::once(second).chain(lines) {
                            joined.push(',');
                            joined.push_str(&text_of(line));
                        }
                        has_line(all, &joined)
                    }
                }
            }),
            Self::Claim(path, all) => claims.is_some_and(|claims| has_claim(claims, path, all)),
        }
    }
}

fn one_of(all: &[Pattern], text: &str) -> bool {
    all.iter().any(|pattern| pattern.matches(text))
}

/// A line that is there and empty is there.
fn has_line(all: &[Pattern], text: &str) -> bool {
    all.iter()
        .any(|pattern| *pattern == Pattern::Present || pattern.matches(text))
}

fn text_of(line: &http::HeaderValue) -> String {
    String::from_utf8_lossy(line.as_bytes()).into_owned()
}

fn is_in(all: &[IpNet], ip: Option<IpAddr>) -> bool {
    let ip = ip.map(|ip| ip.to_canonical());
    ip.is_some_and(|ip| all.iter().any(|range| range.contains(&ip)))
}

/// A claim is a text, or a list of texts of which one has to be meant.
fn has_claim(claims: &Claims, path: &[String], all: &[Pattern]) -> bool {
    match claims.at(path) {
        Some(Value::String(text)) => one_of(all, text),
        Some(Value::Array(texts)) => {
            let mut texts = texts.iter().filter_map(Value::as_str);
            texts.any(|text| one_of(all, text))
        }
        _ => false,
    }
}
