//! Which calls may leave the cluster, as grants say it. Pure.
//!
//! A call is allowed where one rule meets it in all: host, port, scheme, method and path. Of the path, a rule names prefixes in whole
//! segments: `/v1` allows `/v1` and `/v1/charges`, and not `/v1beta`. What a server could read as a way out of the prefix (an escaped
//! slash beside dots, dots before a semicolon) is not within it.
//!
//! A refusal says what is missing: of the rule that came closest, or of all when none names the host.

use std::{fmt, net::IpAddr, sync::Arc};

use http::Method;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;
use weft_api::identity::SpiffeId;

use super::{
    address::Refused,
    destination::{Destination, EgressScheme, Host, is_plain_v4},
    manner::{EgressManner, Manner},
};
use crate::{ingress, table::ServiceLabels};

/// Rules that one identity may have; grants of it beyond that are left out.
pub const EGRESS_RULES_MAX: usize = 256;
/// As much of a host or a method as a refusal shows.
const SHOWN_BYTES_MAX: usize = 256;
/// Of the first segment of a path: enough to know it again, and too little of a token.
const SEGMENT_SHOWN_BYTES_MAX: usize = 12;
/// How often escapes within escapes are looked through.
const ESCAPED_MAX: usize = 4;

/// One rule as a grant writes it: calls that meet all of it may leave the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressRule {
    /// Whose rule it is, for refusals: `CapabilityGrant shop/cart`.
    pub grant: String,
    /// Names, names whose first label is `*` (which stands for one label), or addresses.
    pub hosts: Vec<String>,
    pub ports: Vec<u16>,
    pub scheme: EgressScheme,
    /// Prefixes by whole segments; all paths when empty.
    pub paths: Vec<String>,
    /// All methods when empty.
    pub methods: Vec<String>,
    /// CIDRs of addresses that are not public and may be called all the same.
    pub addresses: Vec<String>,
    /// How these calls are sent.
    pub manner: EgressManner,
}

/// Why a rule means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{grant}: {field} \"{value}\" {why}")]
pub struct EgressRuleError {
    grant: String,
    field: &'static str,
    value: String,
    why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostRule {
    Name(Box<str>),
    /// `.example.org` of `*.example.org`.
    OneLabelBefore(Box<str>),
    Address(IpAddr),
}

/// A rule that is ready to be asked.
#[derive(Debug)]
pub(crate) struct Rule {
    grant: String,
    /// With the labels that its calls are counted under: as the rule is written, so that no caller makes up a label.
    hosts: Vec<(HostRule, Arc<ServiceLabels>)>,
    ports: Vec<u16>,
    scheme: EgressScheme,
    /// Without the slash at the end.
    paths: Vec<Box<str>>,
    methods: Vec<Method>,
    pub(crate) cidrs: Vec<IpNet>,
    manner: Manner,
}

impl Rule {
    /// # Errors
    /// [`EgressRuleError`] for the first of its fields that says nothing: half a rule would allow something else.
    pub(crate) fn compile(rule: &EgressRule) -> Result<Self, EgressRuleError> {
        let wrong = |field, value: &str, why| EgressRuleError {
            grant: rule.grant.clone(),
            field,
            value: value.to_owned(),
            why,
        };
        let hosts = rule.hosts.iter().map(|text| {
            let host = host_rule(text).map_err(|why| wrong("hosts", text, why))?;
            let labels = Arc::new(ServiceLabels::new("", text));
            Ok((host, labels))
        });
        let paths = rule.paths.iter().map(|text| {
            let path = ingress::path(text)
                .ok()
                .filter(|path| !path.contains(['?', '#']))
                .ok_or_else(|| wrong("paths", text, "is no path"))?;
            Ok(path.trim_end_matches('/').into())
        });
        let methods = rule.methods.iter().map(|text| {
            let method = Method::from_bytes(text.as_bytes());
            method.map_err(|_| wrong("methods", text, "is no method"))
        });
        let cidrs = rule.addresses.iter().map(|text| {
            let net = text.parse::<IpNet>().map(|net| net.trunc());
            let net = net.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            net.map_err(|_| wrong("addresses", text, "is no CIDR"))
        });
        let rule = Self {
            grant: rule.grant.clone(),
            hosts: hosts.collect::<Result<_, _>>()?,
            ports: rule.ports.clone(),
            scheme: rule.scheme,
            paths: paths.collect::<Result<_, _>>()?,
            methods: methods.collect::<Result<_, _>>()?,
            cidrs: cidrs.collect::<Result<_, _>>()?,
            manner: Manner::compile(&rule.manner, rule.scheme)
                .map_err(|(field, why)| wrong(field, "", why))?,
        };
        Ok(rule)
    }

    fn host(&self, host: &Host) -> Option<&Arc<ServiceLabels>> {
        let is_met = |rule: &HostRule| match (rule, host) {
            (HostRule::Address(rule), Host::Address(address)) => rule == address,
            (HostRule::Name(rule), Host::Name(name)) => **rule == **name,
            (HostRule::OneLabelBefore(rest), Host::Name(name)) => name
                .strip_suffix(&**rest)
                .is_some_and(|label| !label.is_empty() && !label.contains('.')),
            (HostRule::Address(_), Host::Name(_))
            | (HostRule::Name(_) | HostRule::OneLabelBefore(_), Host::Address(_)) => false,
        };
        let mut hosts = self.hosts.iter();
        hosts
            .find(|(rule, _)| is_met(rule))
            .map(|(_, labels)| labels)
    }

    /// What of the rule a call to one of its hosts does not meet, in the order in which it is told.
    fn fault(&self, call: &Asked<'_>) -> Option<Fault> {
        if self.scheme != call.to.scheme {
            return Some(Fault::Scheme);
        }
        if !self.ports.contains(&call.to.port) {
            return Some(Fault::Port);
        }
        let is_named = self.methods.is_empty() || self.methods.contains(call.method);
        if !is_named || self.manner.would_show(call.method) {
            return Some(Fault::Method);
        }
        if !self.paths.is_empty()
            && (may_escape(call.path) || !self.paths.iter().any(|path| leads(path, call.path)))
        {
            return Some(Fault::Path);
        }
        None
    }
}

fn host_rule(text: &str) -> Result<HostRule, &'static str> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(HostRule::Address(address.to_canonical()));
    }
    let (is_wild, name) = match text.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if name.contains([':', '[', '*']) || is_plain_v4(name) {
        return Err("is neither a name nor an address");
    }
    let host = ingress::authority(name).map_err(|_| "is neither a name nor an address")?;
    let host = Host::read(host.as_str()).map_err(|_| "is neither a name nor an address")?;
    match (host, is_wild) {
        (Host::Name(name), false) => Ok(HostRule::Name((*name).into())),
        (Host::Name(name), true) if name.contains('.') => {
            Ok(HostRule::OneLabelBefore(format!(".{name}").into()))
        }
        (Host::Name(_), true) => Err("would be all names of a top-level domain"),
        (Host::Address(_), _) => Err("is neither a name nor an address"),
    }
}

/// Whether `path` is `prefix` or below it.
fn leads(prefix: &str, path: &str) -> bool {
    let rest = path.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether some server could find dot segments in a path that has none: behind escaped slashes, escapes of escapes, or as Tomcat does
/// before a semicolon.
fn may_escape(path: &str) -> bool {
    let mut text = path.to_owned();
    for _ in 0..ESCAPED_MAX {
        let mut segments = text.split(['/', '\\']);
        let is_dots = |segment: &str| {
            let name = segment.split(';').next().unwrap_or_default();
            matches!(
                name.trim_matches(|c: char| c.is_whitespace() || c == '\0'),
                "." | ".."
            )
        };
        if segments.any(is_dots) {
            return true;
        }
        let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
        if decoded == text {
            return false;
        }
        text = decoded;
    }
    // Nobody has a reason to escape so often.
    true
}

/// A call that wants to leave.
pub(crate) struct Asked<'c> {
    pub(crate) to: &'c Destination,
    pub(crate) method: &'c Method,
    /// In its one form (`ingress.rs`).
    pub(crate) path: &'c str,
}

/// The rules of one identity.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    rules: Vec<Arc<Rule>>,
}

/// The rules that a call meets; at least one.
#[derive(Debug)]
pub(crate) struct Matched {
    pub(crate) labels: Arc<ServiceLabels>,
    rules: SmallVec<[Arc<Rule>; 2]>,
}

impl Matched {
    pub(crate) fn cidrs(&self) -> impl Iterator<Item = &IpNet> {
        self.rules.iter().flat_map(|rule| &rule.cidrs)
    }

    /// How it is sent: as the first of these rules has it that says anything of that.
    pub(crate) fn manner(&self) -> Option<&Manner> {
        let mut manners = self.rules.iter().map(|rule| &rule.manner);
        manners.find(|manner| !manner.is_plain())
    }

    /// The refusal of a call whose credentials cannot be had.
    pub(crate) fn without(&self, caller: &SpiffeId, to: &Destination, why: &str) -> NotGranted {
        NotGranted {
            call: to.to_string(),
            account: account(caller),
            missing: Missing::Credential(shown(why).to_owned()),
        }
    }

    /// The refusal of an address that one of these rules would have to name.
    pub(crate) fn refuse(
        &self,
        caller: &SpiffeId,
        to: &Destination,
        refused: &Refused,
    ) -> NotGranted {
        NotGranted {
            call: to.to_string(),
            account: account(caller),
            missing: Missing::Address {
                grant: self
                    .rules
                    .first()
                    .map(|rule| rule.grant.clone())
                    .unwrap_or_default(),
                address: refused.address,
                what: refused.what,
                cidr: refused.cidr(),
            },
        }
    }
}

impl Rules {
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        Self {
            rules: rules.into_iter().map(Arc::new).collect(),
        }
    }

    /// Whether a rule names the host.
    pub(crate) fn name(&self, host: &Host) -> bool {
        self.rules.iter().any(|rule| rule.host(host).is_some())
    }

    /// The rules that `call` meets.
    ///
    /// # Errors
    /// [`NotGranted`], with what is missing.
    pub(crate) fn judge(
        &self,
        caller: &SpiffeId,
        call: &Asked<'_>,
    ) -> Result<Matched, Box<NotGranted>> {
        let mut met = SmallVec::new();
        let mut labels = None;
        let mut closest: Option<(Fault, &Rule)> = None;
        for rule in &self.rules {
            let Some(counted) = rule.host(&call.to.host) else {
                continue;
            };
            match rule.fault(call) {
                None => {
                    labels.get_or_insert_with(|| Arc::clone(counted));
                    met.push(Arc::clone(rule));
                }
                Some(fault) if closest.is_none_or(|(before, _)| fault > before) => {
                    closest = Some((fault, rule));
                }
                Some(_) => {}
            }
        }
        if let Some(labels) = labels {
            return Ok(Matched { labels, rules: met });
        }
        Err(Box::new(NotGranted {
            call: call.to.to_string(),
            account: account(caller),
            missing: match closest {
                None => Missing::Host {
                    host: bare(&call.to.host),
                    port: call.to.port,
                    scheme: call.to.scheme,
                },
                Some((fault, rule)) => Missing::Part {
                    grant: rule.grant.clone(),
                    part: match fault {
                        Fault::Scheme => format!("scheme {}", call.to.scheme.as_str()),
                        Fault::Port => format!("ports [{}]", call.to.port),
                        Fault::Method => format!("methods [{}]", shown(call.method.as_str())),
                        Fault::Path => format!("paths [{}]", first_segment(call.path)),
                    },
                },
            },
        }))
    }
}

/// What a rule for the host does not allow; the later, the closer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Scheme,
    Port,
    Method,
    Path,
}

/// A host as grants write it, without brackets.
fn bare(host: &Host) -> String {
    match host {
        Host::Name(name) => shown(name).to_owned(),
        Host::Address(address) => address.to_string(),
    }
}

fn account(caller: &SpiffeId) -> String {
    format!("{}/{}", caller.namespace, caller.service_account)
}

fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)]
}

/// The rest of a path may be anybody's secret, and so may what is long in its first segment.
fn first_segment(path: &str) -> String {
    let segment = path.split('/').nth(1).unwrap_or_default();
    let shown = &segment[..segment.floor_char_boundary(SEGMENT_SHOWN_BYTES_MAX)];
    let more = if shown.len() < segment.len() {
        "…"
    } else {
        ""
    };
    format!("/{shown}{more}")
}

/// A call out of the cluster that no rule of its caller allows, and the rule that would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotGranted {
    /// `host:port`.
    call: String,
    /// `namespace/name` of the caller's ServiceAccount.
    account: String,
    missing: Missing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Missing {
    /// No rule can name it.
    Never(&'static str),
    /// No rule names the host.
    Host {
        host: String,
        port: u16,
        scheme: EgressScheme,
    },
    /// A rule names the host, and does not allow this call to it.
    Part { grant: String, part: String },
    /// What its rule has sent along cannot be had.
    Credential(String),
    /// The host's address is not one that may be called without being named.
    Address {
        grant: String,
        address: IpAddr,
        what: &'static str,
        cidr: IpNet,
    },
}

impl NotGranted {
    /// Of a host that is not written as one, without the user before it.
    pub(crate) fn never(caller: &SpiffeId, host: &str, why: &'static str) -> Self {
        Self {
            call: shown(host).to_owned(),
            account: account(caller),
            missing: Missing::Never(why),
        }
    }
}

impl std::error::Error for NotGranted {}

impl fmt::Display for NotGranted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            call,
            account,
            missing,
        } = self;
        match missing {
            Missing::Never(why) => write!(
                f,
                "{call} is outside the cluster, and ServiceAccount {account} cannot be allowed to call it this way: {why}"
            ),
            Missing::Host { host, port, scheme } => {
                write!(
                    f,
                    "{call} is outside the cluster, and no CapabilityGrant lets ServiceAccount {account} call it; \
                     add to one of its own outgoingHTTP: hosts [{host}], ports [{port}]"
                )?;
                match scheme {
                    EgressScheme::Http => f.write_str(", scheme HTTP"),
                    EgressScheme::Https => Ok(()),
                }
            }
            Missing::Part { grant, part } => write!(
                f,
                "{call} is outside the cluster, and no CapabilityGrant lets ServiceAccount {account} make this call; \
                 {grant} allows others to that host and would need outgoingHTTP: {part}"
            ),
            Missing::Credential(why) => write!(
                f,
                "{call} is outside the cluster, and what proves ServiceAccount {account} there cannot be had: {why}"
            ),
            Missing::Address {
                grant,
                address,
                what,
                cidr,
            } => write!(
                f,
                "{call} leads to {address}, {what}, which no CapabilityGrant of ServiceAccount {account} names; \
                 {grant} would need outgoingHTTP: addresses [{cidr}]"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::address;
    use http::Uri;

    fn rule() -> EgressRule {
        EgressRule {
            grant: "CapabilityGrant shop/cart".to_owned(),
            hosts: vec!["api.example.com".to_owned()],
            ports: vec![443],
            scheme: EgressScheme::Https,
            paths: Vec::new(),
            methods: Vec::new(),
            addresses: Vec::new(),
            manner: EgressManner::default(),
        }
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn compile(rules: &[EgressRule]) -> Rules {
        Rules::new(
            rules
                .iter()
                .map(|rule| Rule::compile(rule).expect("a rule"))
                .collect(),
        )
    }

    /// `ok`, or what a refusal says is missing.
    fn verdict(rules: &Rules, method: &str, uri: &str) -> String {
        let caller = SpiffeId::new("cluster.local", "shop", "cart");
        let uri: Uri = uri.parse().expect("a URI");
        let to = match Destination::of(&uri) {
            Ok(to) => to,
            Err(why) => return why.to_owned(),
        };
        let path = ingress::path(uri.path()).expect("a path");
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let call = Asked {
            to: &to,
            method: &method,
            path: &path,
        };
        match rules.judge(&caller, &call) {
            Ok(matched) => format!("ok {}", matched.labels.name),
            Err(error) => {
                let text = error.to_string();
                let (_, missing) = text.split_once("outgoingHTTP: ").expect("what is missing");
                missing.to_owned()
            }
        }
    }

    #[test]
    fn hosts_are_exact_or_have_one_wildcard_label() {
        let rules = compile(&[EgressRule {
            hosts: texts(&[
                "api.example.com",
                "*.Example.ORG",
                "93.184.216.34",
                "2606:50c0::1",
            ]),
            ..rule()
        }]);
        for (uri, expected) in [
            ("https://api.example.com/", "ok api.example.com"),
            ("https://API.example.com./", "ok api.example.com"),
            (
                "https://api.example.com.evil.test/",
                "hosts [api.example.com.evil.test], ports [443]",
            ),
            (
                "https://evil-api.example.com/",
                "hosts [evil-api.example.com], ports [443]",
            ),
            ("https://example.com/", "hosts [example.com], ports [443]"),
            // Of a wildcard the rule is counted, not what the caller makes up.
            ("https://a.example.org/", "ok *.Example.ORG"),
            ("https://example.org/", "hosts [example.org], ports [443]"),
            (
                "https://a.b.example.org/",
                "hosts [a.b.example.org], ports [443]",
            ),
            ("https://aexample.org/", "hosts [aexample.org], ports [443]"),
            ("https://93.184.216.34/", "ok 93.184.216.34"),
            ("https://[::ffff:93.184.216.34]/", "ok 93.184.216.34"),
            (
                "https://93.184.216.35/",
                "hosts [93.184.216.35], ports [443]",
            ),
            ("https://[2606:50c0:0::1]/", "ok 2606:50c0::1"),
            (
                "https://[2606:50c0:0::2]/",
                "hosts [2606:50c0::2], ports [443]",
            ),
            (
                "https://1572395042/",
                "its host is a number; an address of IPv4 has four decimal numbers",
            ),
            ("http://a.test/", "hosts [a.test], ports [80], scheme HTTP"),
        ] {
            assert_eq!(verdict(&rules, "GET", uri), expected, "{uri}");
        }
    }

    #[test]
    fn a_refusal_names_what_the_closest_rule_lacks() {
        let rules = compile(&[
            EgressRule {
                paths: texts(&["/v1/", "/status"]),
                methods: texts(&["GET", "POST"]),
                ..rule()
            },
            EgressRule {
                ports: vec![8443],
                scheme: EgressScheme::Http,
                ..rule()
            },
        ]);
        for (method, uri, expected) in [
            ("GET", "https://api.example.com/v1", "ok api.example.com"),
            (
                "GET",
                "https://api.example.com/v1/charges?x=/../y",
                "ok api.example.com",
            ),
            (
                "POST",
                "https://api.example.com/status",
                "ok api.example.com",
            ),
            ("GET", "https://api.example.com/v1beta", "paths [/v1beta]"),
            ("GET", "https://api.example.com/", "paths [/]"),
            (
                "GET",
                "https://api.example.com/secret-1/secret-2",
                "paths [/secret-1]",
            ),
            (
                "GET",
                "https://api.example.com/v1/../admin",
                "paths [/admin]",
            ),
            (
                "GET",
                "https://api.example.com/v1/%2e%2e/admin",
                "paths [/admin]",
            ),
            (
                "GET",
                "https://api.example.com/v1//..//../admin",
                "paths [/admin]",
            ),
            ("GET", "https://api.example.com//v1/x", "ok api.example.com"),
            (
                "GET",
                "https://api.example.com/%76%31/x",
                "ok api.example.com",
            ),
            ("GET", "https://api.example.com/V1/x", "paths [/V1]"),
            (
                "GET",
                "https://api.example.com/v1/objects/a%2Fb",
                "ok api.example.com",
            ),
            ("GET", "https://api.example.com/v1%2Fx", "paths [/v1%2Fx]"),
            (
                "GET",
                "https://api.example.com/v1/..%2Fadmin",
                "paths [/v1]",
            ),
            (
                "GET",
                "https://api.example.com/v1/%252e%252e%252fadmin",
                "paths [/v1]",
            ),
            (
                "GET",
                "https://api.example.com/v1/..%5cadmin",
                "paths [/v1]",
            ),
            (
                "GET",
                "https://api.example.com/v1/..;a=b/admin",
                "paths [/v1]",
            ),
            (
                "GET",
                "https://api.example.com/v1/%25252525252e",
                "paths [/v1]",
            ),
            (
                "GET",
                "https://api.example.com/v1/a..b/.../c",
                "ok api.example.com",
            ),
            ("DELETE", "https://api.example.com/v1", "methods [DELETE]"),
            ("get", "https://api.example.com/v1", "methods [get]"),
            ("GET", "https://api.example.com:444/v1", "ports [444]"),
            (
                "GET",
                "http://api.example.com:8443/any",
                "ok api.example.com",
            ),
            ("GET", "http://api.example.com/any", "ports [80]"),
            ("GET", "https://api.example.com:8443/v1", "ports [8443]"),
        ] {
            assert_eq!(verdict(&rules, method, uri), expected, "{method} {uri}");
        }
        let long = format!("https://api.example.com/{}é", "a".repeat(63));
        assert_eq!(
            verdict(
                &compile(&[EgressRule {
                    paths: texts(&["/v1"]),
                    ..rule()
                }]),
                "GET",
                &long.replace('é', "%C3%A9")
            ),
            format!("paths [/{}…]", "a".repeat(12))
        );
    }

    #[test]
    fn nothing_is_allowed_where_nobody_said_so() {
        let refused = verdict(&Rules::default(), "GET", "https://api.example.com/");
        assert_eq!(refused, "hosts [api.example.com], ports [443]");
        let nowhere = compile(&[EgressRule {
            ports: Vec::new(),
            ..rule()
        }]);
        assert_eq!(
            verdict(&nowhere, "GET", "https://api.example.com/"),
            "ports [443]"
        );
    }

    #[test]
    fn a_refusal_says_what_why_and_what_to_do() {
        let caller = SpiffeId::new("cluster.local", "shop", "cart");
        let to =
            |uri: &'static str| Destination::of(&Uri::from_static(uri)).expect("a destination");
        let rules = compile(&[rule()]);
        let told = |to: &Destination, path: &str| {
            let call = Asked {
                to,
                method: &Method::GET,
                path,
            };
            rules
                .judge(&caller, &call)
                .expect_err("not allowed")
                .to_string()
        };
        assert_eq!(
            told(&to("https://other.test/"), "/"),
            "other.test:443 is outside the cluster, and no CapabilityGrant lets ServiceAccount shop/cart call it; \
             add to one of its own outgoingHTTP: hosts [other.test], ports [443]"
        );
        assert_eq!(
            told(&to("https://api.example.com:8443/"), "/"),
            "api.example.com:8443 is outside the cluster, and no CapabilityGrant lets ServiceAccount shop/cart make this call; \
             CapabilityGrant shop/cart allows others to that host and would need outgoingHTTP: ports [8443]"
        );
        let api = to("https://api.example.com/");
        let call = Asked {
            to: &api,
            method: &Method::GET,
            path: "/",
        };
        let matched = rules.judge(&caller, &call).expect("allowed");
        let private = "10.0.0.7".parse().expect("an address");
        let refused = address::judge(private, None, matched.cidrs()).expect_err("private");
        assert_eq!(
            matched.refuse(&caller, &api, &refused).to_string(),
            "api.example.com:443 leads to 10.0.0.7, a private address, which no CapabilityGrant of ServiceAccount shop/cart names; \
             CapabilityGrant shop/cart would need outgoingHTTP: addresses [10.0.0.7/32]"
        );
    }

    #[test]
    fn a_rule_that_says_nothing_is_no_rule() {
        for (changed, expected) in [
            (
                EgressRule {
                    hosts: texts(&["*"]),
                    ..rule()
                },
                "hosts \"*\" is neither a name nor an address",
            ),
            (
                EgressRule {
                    hosts: texts(&["*.com"]),
                    ..rule()
                },
                "hosts \"*.com\" would be all names of a top-level domain",
            ),
            (
                EgressRule {
                    hosts: texts(&["a.*.com"]),
                    ..rule()
                },
                "hosts \"a.*.com\" is neither a name nor an address",
            ),
            (
                EgressRule {
                    hosts: texts(&["a.example:443"]),
                    ..rule()
                },
                "hosts \"a.example:443\" is neither a name nor an address",
            ),
            (
                EgressRule {
                    hosts: texts(&["https://a.example"]),
                    ..rule()
                },
                "hosts \"https://a.example\" is neither a name nor an address",
            ),
            (
                EgressRule {
                    hosts: texts(&["127.1"]),
                    ..rule()
                },
                "hosts \"127.1\" is neither a name nor an address",
            ),
            (
                EgressRule {
                    hosts: texts(&["*.1.2.3.4"]),
                    ..rule()
                },
                "hosts \"*.1.2.3.4\" is neither a name nor an address",
            ),
            (
                EgressRule {
                    hosts: texts(&["bücher.example"]),
                    ..rule()
                },
                "hosts \"bücher.example\" is neither a name nor an address",
            ),
            (
                EgressRule {
                    paths: texts(&["v1"]),
                    ..rule()
                },
                "paths \"v1\" is no path",
            ),
            (
                EgressRule {
                    paths: texts(&["/v1?x"]),
                    ..rule()
                },
                "paths \"/v1?x\" is no path",
            ),
            (
                EgressRule {
                    methods: texts(&["G T"]),
                    ..rule()
                },
                "methods \"G T\" is no method",
            ),
            (
                EgressRule {
                    addresses: texts(&["10.0.0.0/33"]),
                    ..rule()
                },
                "addresses \"10.0.0.0/33\" is no CIDR",
            ),
        ] {
            let error = Rule::compile(&changed).expect_err("no rule").to_string();
            assert_eq!(error, format!("CapabilityGrant shop/cart: {expected}"));
        }
        assert!(
            Rule::compile(&EgressRule {
                addresses: texts(&["10.0.0.7", "10.1.2.3/8"]),
                ..rule()
            })
            .is_ok()
        );
    }
}
