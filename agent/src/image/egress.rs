//! Where a pull may connect to: a pod names any host, and the node's network reaches what no pod may.
//!
//! Invariants: an address is judged after resolution and is the one that is connected to, so that no second answer of a name
//! server gets round it; of several addresses of a name, only those that pass are tried; what is written as an address is judged
//! as one. Private networks pass: registries of companies are there. What an address is says the mesh.
//!
//! Left to others: hosts that the node's owner named ([`super::registries`]), which are not judged. Behind a proxy of the
//! environment (`HTTPS_PROXY`), names are the proxy's to resolve and to judge.

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, SocketAddr};
use weft_mesh::SpecialAddress;

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
    use SpecialAddress as Special;
    let special = SpecialAddress::of(address)?;
    match special {
        Special::Metadata | Special::Unspecified | Special::LinkLocal => Some(special.as_str()),
        Special::Loopback => Some("this machine (a loopback address)"),
        Special::Multicast | Special::Broadcast | Special::Reserved => Some("no address of a host"),
        // Of networks that a company may well have registries in.
        Special::Private
        | Special::Carrier
        | Special::Protocol
        | Special::Documentation
        | Special::Benchmark
        | Special::UniqueLocal
        | Special::SiteLocal
        | Special::Translator => None,
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
