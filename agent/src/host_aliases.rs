//! The names that a pod has for hosts by itself (`hostAliases`), for its requests. Pure.
//!
//! They come before what the mesh knows, as `/etc/hosts` comes before a name server: a request to such a name goes to its first address and keeps the
//! name as its host. Guests that look names up are told by `pod_names`, from the file itself.

use crate::pod_view::PodView;
use http::uri::{Authority, Uri};
use http::{HeaderValue, Request, header};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Names in lower case with an address each, in the pod's order. Clones share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostAliases(Arc<[(String, IpAddr)]>);

impl HostAliases {
    pub(crate) fn of(pod: PodView<'_>) -> Self {
        let aliases = pod.spec().and_then(|spec| spec.host_aliases.as_deref());
        let aliases = aliases.unwrap_or_default().iter().flat_map(|alias| {
            let names = alias.hostnames.iter().flatten();
            // The API takes addresses only.
            let ip: Option<IpAddr> = alias.ip.parse().ok();
            names.filter_map(move |name| Some((name.to_ascii_lowercase(), ip?)))
        });
        Self(aliases.collect())
    }

    /// All addresses of a name; none where the pod has no such name.
    pub(crate) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let name = name.strip_suffix('.').unwrap_or(name);
        let found = self.0.iter();
        let found = found.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, ip)| *ip).collect()
    }

    /// Has a request to one of the names go to its address.
    pub(crate) fn direct<B>(&self, request: &mut Request<B>) {
        if self.0.is_empty() {
            return;
        }
        let Some(authority) = request.uri().authority() else {
            return;
        };
        let Some(ip) = self.addresses(authority.host()).first().copied() else {
            return;
        };
        let is_https = request.uri().scheme_str() == Some("https");
        let port = authority.port_u16();
        let port = port.unwrap_or(if is_https { 443 } else { 80 });
        let host = HeaderValue::from_str(authority.as_str());
        let to: Result<Authority, _> = SocketAddr::new(ip, port).to_string().parse();
        let (Ok(to), Ok(host)) = (to, host) else {
            return;
        };
        let mut parts = request.uri().clone().into_parts();
        parts.authority = Some(to);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
            request.headers_mut().entry(header::HOST).or_insert(host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    fn aliases() -> HostAliases {
        let pod = json!({"spec": {"containers": [], "hostAliases": [
            {"ip": "10.0.0.9", "hostnames": ["db", "DB.example"]},
            {"ip": "fd00::9", "hostnames": ["db"]},
            {"ip": "10.0.0.10"},
        ]}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        HostAliases::of(PodView(&pod))
    }

    #[test]
    fn a_name_has_the_addresses_that_the_pod_says() {
        for (name, expected) in [
            ("db", &["10.0.0.9", "fd00::9"][..]),
            ("Db.", &["10.0.0.9", "fd00::9"]),
            ("db.EXAMPLE", &["10.0.0.9"]),
            ("db.shop", &[]),
        ] {
            let found = aliases().addresses(name);
            let found: Vec<String> = found.iter().map(IpAddr::to_string).collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_request_to_a_name_goes_to_its_address_and_keeps_its_host() {
        for (uri, expected, host) in [
            ("http://db/x?y=1", "http://10.0.0.9:80/x?y=1", "db"),
            ("http://db:8080/", "http://10.0.0.9:8080/", "db:8080"),
            ("https://db.example/", "https://10.0.0.9:443/", "db.example"),
            ("http://web/", "http://web/", ""),
        ] {
            let mut request = Request::get(uri).body(()).expect("a request");
            aliases().direct(&mut request);
            assert_eq!(request.uri().to_string(), expected);
            let found = request.headers().get(header::HOST);
            let found = found.map_or("", |host| host.to_str().expect("text"));
            assert_eq!(found, host, "{uri}");
        }
    }
}
