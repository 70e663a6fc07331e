//! Where a pull may connect to: a pod names any host, and the node's network reaches what no pod may.
//!
//! Invariants: an address is judged after resolution and is the one that is connected to, so that no second answer of a name
//! server gets round it; of several addresses of a name, only those that pass are tried; what is written as an address is judged
//! as one. Private networks pass: registries of companies are there.
//!
//! Left to others: hosts that the node's owner named ([`super::registries`]), which are not judged. Behind a proxy of the
//! environment (`HTTPS_PROXY`), names are the proxy's to resolve and to judge.

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where clouds tell machines their credentials, outside of the link-local range: Alibaba, Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// The same of AWS and Google.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];
/// The variables in which proxies are named.
const PROXIES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// A host that pods may not have the node connect to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{host} is {kind}, where no pod may have a node connect to; if it is meant, name it in the node's --private-registry file"
)]
pub(super) struct Refused {
    host: String,
    kind: &'static str,
}

/// What kind of address it is, if it is one that is refused.
fn refused(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => refused_v4(address),
        IpAddr::V6(address) => refused_v6(address),
    }
}

fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address {
        _ if METADATA_V4.contains(&address) => Some("the metadata service of a cloud"),
        _ if address.octets()[0] == 0 => Some("an unspecified address"),
        _ if address.is_loopback() => Some("this machine (a loopback address)"),
        _ if address.is_link_local() => Some("a link-local address"),
        _ if address.is_multicast() || address.octets()[0] >= 240 => Some("no address of a host"),
        _ => None,
    }
}

fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    if let Some(embedded) = embedded_v4(address) {
        return refused_v4(embedded);
    }
    match address {
        _ if METADATA_V6.contains(&address) => Some("the metadata service of a cloud"),
        _ if address.is_unspecified() => Some("an unspecified address"),
        _ if address.is_loopback() => Some("this machine (a loopback address)"),
        _ if address.is_unicast_link_local() => Some("a link-local address"),
        _ if address.is_multicast() => Some("no address of a host"),
        _ => None,
    }
}

/// The IPv4 address that an IPv6 address leads to: mapped, compatible, translated, NAT64 (RFC 6052, 8215) and 6to4
/// (RFC 3056).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let parts = address.segments();
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        _ if address.is_loopback() || address.is_unspecified() => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low] => of(high, low),
        [0x2002, high, low, ..] => of(high, low),
        _ => None,
    }
}

/// Judges a URL whose host is written as an address; what is a name is judged when it is resolved.
pub(super) fn check_literal(url: &Url) -> Result<(), Refused> {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse().ok().and_then(refused) {
        None => Ok(()),
        Some(kind) => Err(Refused {
            host: host.to_owned(),
            kind,
        }),
    }
}

/// The addresses of a host that may be connected to.
fn admitted(host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Refused> {
    let first = found.iter().find_map(|address| refused(address.ip()));
    let admitted: Vec<SocketAddr> = found
        .into_iter()
        .filter(|address| refused(address.ip()).is_none())
        .collect();
    match first {
        Some(kind) if admitted.is_empty() => Err(Refused {
            host: host.to_owned(),
            kind,
        }),
        _ => Ok(admitted),
    }
}

/// Resolves names, and leaves out the addresses that are refused.
pub(super) struct Guard {
    /// Hosts of the proxies that the environment names: the node's owner wants them.
    proxies: Vec<String>,
}

impl Guard {
    pub(super) fn of_environment() -> Self {
        let host = |name: &str| {
            let value = std::env::var(name).ok()?;
            let url = match value.contains("://") {
                true => value,
                false => format!("http://{value}"),
            };
            Some(Url::parse(&url).ok()?.host_str()?.to_owned())
        };
        Self {
            proxies: PROXIES.into_iter().filter_map(host).collect(),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let is_proxy = self.proxies.contains(&host);
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let addresses = if is_proxy {
                found
            } else {
                admitted(&host, found)?
            };
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_other_hosts_pass() {
        for (text, expected) in [
            ("127.0.0.1", Some("this machine (a loopback address)")),
            ("127.8.9.1", Some("this machine (a loopback address)")),
            ("::1", Some("this machine (a loopback address)")),
            (
                "::ffff:127.0.0.1",
                Some("this machine (a loopback address)"),
            ),
            ("64:ff9b::7f00:1", Some("this machine (a loopback address)")),
            ("2002:7f00:1::1", Some("this machine (a loopback address)")),
            ("169.254.169.254", Some("a link-local address")),
            ("::ffff:169.254.169.254", Some("a link-local address")),
            ("64:ff9b::a9fe:a9fe", Some("a link-local address")),
            ("::169.254.169.254", Some("a link-local address")),
            ("::ffff:0:169.254.169.254", Some("a link-local address")),
            ("64:ff9b:1::a9fe:a9fe", Some("a link-local address")),
            ("fe80::1", Some("a link-local address")),
            ("100.100.100.200", Some("the metadata service of a cloud")),
            ("168.63.129.16", Some("the metadata service of a cloud")),
            ("fd00:ec2::254", Some("the metadata service of a cloud")),
            ("0.0.0.0", Some("an unspecified address")),
            ("0.1.2.3", Some("an unspecified address")),
            ("::", Some("an unspecified address")),
            ("224.0.0.1", Some("no address of a host")),
            ("255.255.255.255", Some("no address of a host")),
            ("ff02::1", Some("no address of a host")),
            ("10.0.0.7", None),
            ("192.168.1.1", None),
            ("140.82.112.34", None),
            ("::ffff:10.0.0.7", None),
            ("fd00::7", None),
            ("2606:50c0:8000::154", None),
        ] {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(refused(address), expected, "{text}");
        }
    }

    /// Names of an address that only a URL parser reads as one.
    #[test]
    fn an_address_is_refused_however_it_is_written() {
        for (text, passes) in [
            ("https://169.254.169.254/v2/", false),
            ("https://[::ffff:169.254.169.254]:443/v2/", false),
            ("https://0x7f.1/v2/", false),
            ("https://2130706433/v2/", false),
            ("https://0177.0.0.1/v2/", false),
            ("https://10.0.0.7:5000/v2/", true),
            ("https://ghcr.io/v2/", true),
        ] {
            let url = Url::parse(text).expect("a URL");
            assert_eq!(check_literal(&url).is_ok(), passes, "{text}");
        }
        let url = Url::parse("https://169.254.169.254/v2/").expect("a URL");
        assert_eq!(
            check_literal(&url).map_err(|refused| refused.to_string()),
            Err(
                "169.254.169.254 is a link-local address, where no pod may have a node connect to; if it is meant, name it in \
                 the node's --private-registry file"
                    .to_owned()
            )
        );
    }

    #[test]
    fn of_a_name_only_the_addresses_that_pass_are_tried() {
        let at = |text: &str| SocketAddr::new(text.parse().expect("an address"), 0);
        let (inside, outside) = (at("127.0.0.1"), at("140.82.112.34"));
        assert_eq!(
            admitted("a.example", vec![inside, outside]),
            Ok(vec![outside])
        );
        assert!(admitted("a.example", vec![inside, at("fe80::1")]).is_err());
        assert_eq!(admitted("a.example", Vec::new()), Ok(Vec::new()));
    }
}
