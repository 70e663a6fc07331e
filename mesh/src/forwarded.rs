//! Where a request came from, as the workload that is called is told: `x-forwarded-for`, `-proto` and `-host`. Pure.
//!
//! ```text
//! client ─► proxies that are trusted, each of which says whom it heard from ─► gateway
//! x-forwarded-for: whatever the client made up, client, first proxy …        ─► client, first proxy, last proxy
//! ```
//! What a client says of itself counts for nothing. Where the node's owner says that so many proxies are in front of the gateway, the last so
//! many words are theirs, and what is before them is not. What is passed on begins with the first that is believed, and ends with who connected.
//!
//! Invariant: every word that is passed on is an address, and was said by a proxy that is trusted or seen by the gateway.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue, uri::Scheme};

use crate::{headers, ingress};

/// Most proxies that may be in front of a gateway: what they say is read for each request.
pub const TRUSTED_HOPS_MAX: u8 = 16;

/// What is said of one request beside its own lines.
pub(crate) struct Seen<'s> {
    /// Who connected, as the value of a line.
    pub(crate) peer: Option<&'s HeaderValue>,
    pub(crate) scheme: Scheme,
    /// Which the request is for, as the value of a line.
    pub(crate) host: HeaderValue,
}

/// Replaces what the request's lines say of where it came from, but for the words of so many proxies in front of the gateway.
pub(crate) fn tell(lines: &mut HeaderMap, trusted_hops: u8, seen: Seen<'_>) {
    // Once for all that is added up to the callee, or the map grows at every other line. It has far fewer than it may.
    let _ = lines.try_reserve(headers::ADDED_LINES_USUAL);
    let own_proto = match seen.scheme == Scheme::HTTPS {
        true => HeaderValue::from_static("https"),
        false => HeaderValue::from_static("http"),
    };
    let (mut proto, mut host, mut way) = (None, None, None);
    if trusted_hops > 0 {
        let is_proto = |said: &&HeaderValue| matches!(said.as_bytes(), b"http" | b"https");
        let is_host = |said: &&HeaderValue| {
            let said = said.to_str();
            said.is_ok_and(|said| ingress::authority(said).is_ok())
        };
        proto = headers::only(lines, &headers::FORWARDED_PROTO).filter(is_proto);
        host = headers::only(lines, &headers::FORWARDED_HOST).filter(is_host);
        way = seen
            .peer
            .and_then(|peer| believed(lines, trusted_hops, peer));
    }
    let proto = proto.cloned().unwrap_or(own_proto);
    let host = host.cloned().unwrap_or(seen.host);
    if let Some(way) = way.or_else(|| seen.peer.cloned()) {
        lines.insert(headers::FORWARDED_FOR, way);
    }
    lines.insert(headers::FORWARDED_PROTO, proto);
    lines.insert(headers::FORWARDED_HOST, host);
}

/// The last words of `x-forwarded-for`, as many as are believed, with who connected behind them; none where nobody said anything.
fn believed(lines: &HeaderMap, trusted_hops: u8, peer: &HeaderValue) -> Option<HeaderValue> {
    let said = lines.get_all(headers::FORWARDED_FOR).iter().rev();
    let said = said.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let said = said.map(|word| word.trim_ascii());
    let said = said.filter(|word| !word.is_empty());
    // What is no address was said by nobody who knows, and neither was what is before it.
    let addresses = said.take(trusted_hops.into()).map_while(address);
    let mut way: Vec<String> = addresses.map(|address| address.to_string()).collect();
    if way.is_empty() {
        return None;
    }
    way.reverse();
    way.push(peer.to_str().ok()?.to_owned());
    HeaderValue::from_str(&way.join(", ")).ok()
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn address(word: &[u8]) -> Option<IpAddr> {
    let word = std::str::from_utf8(word).ok()?;
    let bare = word
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let plain = bare.unwrap_or(word).parse().ok();
    plain.or_else(|| word.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn told(said: &[(&str, &str)], trusted_hops: u8) -> String {
        let mut lines = HeaderMap::new();
        for (name, value) in said {
            let name: HeaderName = format!("x-forwarded-{name}").parse().expect("a name");
            lines.append(name, value.parse().expect("a value"));
        }
        let peer = HeaderValue::from_static("198.51.100.9");
        let seen = Seen {
            peer: Some(&peer),
            scheme: Scheme::HTTP,
            host: HeaderValue::from_static("shop.test"),
        };
        tell(&mut lines, trusted_hops, seen);
        let shown = ["for", "proto", "host"].map(|name| {
            let values = lines.get_all(format!("x-forwarded-{name}")).iter();
            let values = values.map(|value| value.to_str().expect("ASCII"));
            values.collect::<Vec<_>>().join(" | ")
        });
        shown.join("; ")
    }

    #[test]
    fn only_proxies_that_are_trusted_are_believed() {
        const NOBODY: &str = "198.51.100.9; http; shop.test";
        let made_up: &[(&str, &str)] = &[
            ("for", "203.0.113.1, 203.0.113.2"),
            ("for", "203.0.113.3"),
            ("proto", "https"),
            ("host", "www.shop.test:8443"),
        ];
        for (said, hops, expected) in [
            (made_up, 0, NOBODY),
            (
                made_up,
                1,
                "203.0.113.3, 198.51.100.9; https; www.shop.test:8443",
            ),
            (
                made_up,
                2,
                "203.0.113.2, 203.0.113.3, 198.51.100.9; https; www.shop.test:8443",
            ),
            (
                made_up,
                TRUSTED_HOPS_MAX,
                "203.0.113.1, 203.0.113.2, 203.0.113.3, 198.51.100.9; https; www.shop.test:8443",
            ),
            (&[], 2, NOBODY),
            // What is before a word that is no address was not said by a proxy.
            (
                &[("for", "203.0.113.1, unknown, 203.0.113.3")],
                3,
                "203.0.113.3, 198.51.100.9; http; shop.test",
            ),
            (&[("for", "_hidden")], 1, NOBODY),
            (&[("for", " , ,")], 1, NOBODY),
            (
                &[("for", "[2001:db8::1]:7, 192.0.2.1:80 ,")],
                2,
                "2001:db8::1, 192.0.2.1, 198.51.100.9; http; shop.test",
            ),
            // Said twice or wrongly is not said.
            (&[("proto", "https"), ("proto", "http")], 1, NOBODY),
            (&[("proto", "ftp"), ("host", "a@b")], 1, NOBODY),
            (&[("host", "a"), ("host", "b")], 1, NOBODY),
        ] {
            assert_eq!(told(said, hops), expected, "{said:?} of {hops}");
        }
    }
}
