//! Where a request wants to go outside of the cluster, read once and in one way. Pure.
//!
//! ```text
//! host   a name of DNS in lower case, or an address; what only some programs read as an address (`2130706433`, `0x7f.1`, `0177.0.0.1`)
//!        is refused, as the resolver would be one of them
//! port   the URI's, or its scheme's
//! ```
//! Path and head were brought into their one form by `ingress.rs`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use http::{Uri, uri};
use rustls_pki_types::ServerName;

use crate::ingress;

/// How a host outside is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EgressScheme {
    Http,
    Https,
}

impl EgressScheme {
    /// As grants write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Https => "HTTPS",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// In lower case, without the last dot.
    Name(Arc<str>),
    /// Never a mapped one.
    Address(IpAddr),
}

impl Host {
    /// Reads a host as it is after [`ingress::authority`].
    ///
    /// # Errors
    /// In one clause, when programs disagree on what it means.
    pub(crate) fn read(text: &str) -> Result<Self, &'static str> {
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'));
        if let Ok(address) = bare.unwrap_or(text).parse::<IpAddr>() {
            return match (address, bare) {
                (IpAddr::V6(_), None) => Err("its host is not valid"),
                (IpAddr::V4(_), Some(_)) => Err("its host is not valid"),
                _ => Ok(Self::Address(address.to_canonical())),
            };
        }
        if ends_in_a_number(text) {
            return Err("its host is a number; an address of IPv4 has four decimal numbers");
        }
        Ok(Self::Name(text.into()))
    }

    /// What the certificate has to be for, and what is asked for by SNI.
    pub(crate) fn server_name(&self) -> Option<ServerName<'static>> {
        match self {
            Self::Name(name) => ServerName::try_from(name.to_string()).ok(),
            Self::Address(address) => Some(ServerName::IpAddress((*address).into())),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// What `inet_aton` takes for an address (WHATWG URL, "ends in a number").
fn ends_in_a_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_decimal = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    let hex = last.strip_prefix("0x");
    is_decimal || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Where a request wants to go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Destination {
    pub(crate) scheme: EgressScheme,
    pub(crate) host: Host,
    pub(crate) port: u16,
}

impl Destination {
    /// Reads the destination of an absolute URI.
    ///
    /// # Errors
    /// In one clause, when it is not one host and port of HTTP.
    pub(crate) fn of(uri: &Uri) -> Result<Self, &'static str> {
        let scheme = match uri.scheme() {
            Some(scheme) if *scheme == uri::Scheme::HTTPS => EgressScheme::Https,
            Some(scheme) if *scheme == uri::Scheme::HTTP => EgressScheme::Http,
            _ => return Err("its scheme is neither http nor https"),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        let authority = ingress::authority(authority.as_str())?;
        Ok(Self {
            scheme,
            host: Host::read(authority.host())?,
            port: authority.port_u16().unwrap_or(scheme.default_port()),
        })
    }

    /// As the host line has it: the port only where it is not the scheme's.
    pub(crate) fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            self.to_string()
        }
    }
}

/// `host:port`, always both.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Whether a host is never outside: the caller's own pod, and what has the shape of the cluster's names.
pub(crate) fn is_inside(host: &str, cluster_domain: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let below = |domain: &str| {
        host.len() >= domain.len()
            && host.is_char_boundary(host.len() - domain.len())
            && host[host.len() - domain.len()..].eq_ignore_ascii_case(domain)
            && (host.len() == domain.len()
                || host.as_bytes()[host.len() - domain.len() - 1] == b'.')
    };
    below("localhost") || below("svc") || below(cluster_domain)
}

/// Reads an IPv4 address as programs agree on it; for rules.
pub(crate) fn is_plain_v4(text: &str) -> bool {
    text.parse::<Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_read_in_one_way() {
        let number = Err("its host is a number; an address of IPv4 has four decimal numbers");
        let user = Err("its host names a user");
        let host = Err("its host is not valid");
        let port = Err("its port is not valid");
        for (uri, expected) in [
            (
                "https://api.example.com/v1",
                Ok("https api.example.com:443 as api.example.com"),
            ),
            (
                "http://api.example.com/v1",
                Ok("http api.example.com:80 as api.example.com"),
            ),
            (
                "HTTPS://API.Example.COM./",
                Ok("https api.example.com:443 as api.example.com"),
            ),
            (
                "https://a.example:8443/",
                Ok("https a.example:8443 as a.example:8443"),
            ),
            (
                "https://a.example:443/",
                Ok("https a.example:443 as a.example"),
            ),
            (
                "http://a.example:443/",
                Ok("http a.example:443 as a.example:443"),
            ),
            (
                "https://a.example:/",
                Ok("https a.example:443 as a.example"),
            ),
            (
                "https://xn--bcher-kva.example/",
                Ok("https xn--bcher-kva.example:443 as xn--bcher-kva.example"),
            ),
            (
                "http://93.184.216.34/",
                Ok("http 93.184.216.34:80 as 93.184.216.34"),
            ),
            (
                "http://[2606:50c0::1]/",
                Ok("http [2606:50c0::1]:80 as [2606:50c0::1]"),
            ),
            (
                "http://[2606:50C0:0:0::1]:8080/",
                Ok("http [2606:50c0::1]:8080 as [2606:50c0::1]:8080"),
            ),
            // The same host as the one that it is connected to.
            (
                "http://[::ffff:127.0.0.1]/",
                Ok("http 127.0.0.1:80 as 127.0.0.1"),
            ),
            ("http://2130706433/", number),
            ("http://0x7f000001/", number),
            ("http://0x7f.1/", number),
            ("http://0x/", number),
            ("http://0177.0.0.1/", number),
            ("http://127.1/", number),
            ("http://127.0.0.01/", number),
            ("http://1.2.3.4.5/", number),
            ("http://256.0.0.1/", number),
            (
                "http://127.0.0.1.:80/",
                Ok("http 127.0.0.1:80 as 127.0.0.1"),
            ),
            ("http://a.0x7f/", number),
            (
                "http://a.example.0x7fg/",
                Ok("http a.example.0x7fg:80 as a.example.0x7fg"),
            ),
            ("http://a.example@169.254.169.254/", user),
            ("http://user:secret@a.example/", user),
            ("http://a%2eexample/", host),
            ("http://a..example/", host),
            ("http://a.example:0/", port),
            ("http://a.example:99999/", port),
            (
                "ftp://a.example/",
                Err("its scheme is neither http nor https"),
            ),
        ] {
            let Ok(uri) = uri.parse::<Uri>() else {
                // What does not even parse never comes this far.
                assert!(expected.is_err(), "{uri}");
                continue;
            };
            let found = Destination::of(&uri).map(|found| {
                let scheme = found.scheme.as_str().to_lowercase();
                format!("{scheme} {found} as {}", found.authority())
            });
            assert_eq!(
                found.as_deref(),
                expected.as_ref().map(|text| *text),
                "{uri}"
            );
        }
    }

    #[test]
    fn what_has_the_shape_of_ours_is_never_outside() {
        for (host, inside) in [
            ("localhost", true),
            ("LOCALHOST.", true),
            ("a.localhost", true),
            ("cart.shop.svc", true),
            ("a.cart.shop.svc.Cluster.Local.", true),
            ("cluster.local", true),
            ("notlocalhost", false),
            ("localhost.example", false),
            ("svc.example", false),
            ("é.example", false),
            ("api.example.com", false),
            ("", false),
        ] {
            assert_eq!(is_inside(host, "cluster.local"), inside, "{host}");
        }
    }

    #[test]
    fn certificates_are_asked_for_by_name_or_address() {
        let name = |text: &str| {
            let host = Host::read(text).expect(text);
            host.server_name().map(|name| name.to_str().into_owned())
        };
        assert_eq!(name("a.example").as_deref(), Some("a.example"));
        assert_eq!(name("93.184.216.34").as_deref(), Some("93.184.216.34"));
        assert_eq!(name("[2606:50c0::1]").as_deref(), Some("2606:50c0::1"));
    }
}
