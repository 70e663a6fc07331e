//! Header names of the mesh, and what must not pass from one hop to the next.
//!
//! Invariant: a header named `x-weft-*` that a workload or a client sends never travels; between nodes they
//! carry the call's context and are believed because the connection is authenticated.

use http::{HeaderMap, HeaderName, header};

/// `ip:port` of the pod a request of another node is for.
pub(crate) const DESTINATION: HeaderName = HeaderName::from_static("x-weft-destination");
/// `name.namespace` of the Service that was called.
pub(crate) const SERVICE: HeaderName = HeaderName::from_static("x-weft-service");
/// Names of the calling workload: `name;app;version;service;revision`.
pub(crate) const SOURCE: HeaderName = HeaderName::from_static("x-weft-source");
/// Milliseconds that remain until the deadline.
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("x-weft-timeout-ms");
pub(crate) const DEPTH: HeaderName = HeaderName::from_static("x-weft-depth");
pub(crate) const ATTEMPT: HeaderName = HeaderName::from_static("x-weft-attempt");
/// On a response: the mesh of the peer answered, not the workload; the value names the reason.
pub(crate) const ERROR: HeaderName = HeaderName::from_static("x-weft-error");
/// On a response: nanoseconds from handing the request to the workload until it gave the response's head.
pub(crate) const WORKED: HeaderName = HeaderName::from_static("x-weft-worked-ns");

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Header lines a message may have, and bytes in their names and values together.
pub(crate) const HEADERS_MAX: usize = 256;
pub(crate) const HEADER_BYTES_MAX: usize = 64 << 10;

/// Removes everything by which a workload or a client could claim to be somebody else.
pub(crate) fn strip_forged(headers: &mut HeaderMap) {
    strip_weft(headers);
    headers.remove(FORWARDED_CLIENT_CERT);
}

/// Removes all `x-weft-*`.
pub(crate) fn strip_weft(headers: &mut HeaderMap) {
    // Almost no message has one: look first, allocate only then.
    if !headers
        .keys()
        .any(|name| name.as_str().starts_with("x-weft-"))
    {
        return;
    }
    let forged: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-weft-"))
        .cloned()
        .collect();
    for name in forged {
        headers.remove(name);
    }
}

/// Removes what belongs to one connection (RFC 9110 §7.6.1), including what `connection` lists.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let listed: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in listed {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    headers.remove(HeaderName::from_static("keep-alive"));
    headers.remove(HeaderName::from_static("proxy-connection"));
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::UPGRADE);
    let mut encodings = headers.get_all(header::TE).iter();
    if encodings.any(|value| value.as_bytes() != b"trailers") {
        headers.remove(header::TE);
    }
}

/// Whether the message's head stays within the limits that the wire would enforce.
pub(crate) fn within_limits(headers: &HeaderMap) -> bool {
    if headers.len() > HEADERS_MAX {
        return false;
    }
    let mut bytes = 0;
    for (name, value) in headers {
        bytes += name.as_str().len() + value.len();
    }
    bytes <= HEADER_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                let name: HeaderName = name.parse().expect("a header name");
                (name, value.parse().expect("a header value"))
            })
            .collect()
    }

    #[test]
    fn identity_claims_are_removed_and_nothing_else() {
        let mut headers = map(&[
            ("x-weft-source", "admin;;;;"),
            ("X-Weft-Anything", "1"),
            ("x-forwarded-client-cert", "URI=spiffe://x"),
            ("x-request-id", "7"),
        ]);
        strip_forged(&mut headers);
        assert_eq!(headers, map(&[("x-request-id", "7")]));
    }

    #[test]
    fn hop_by_hop_headers_end_at_the_hop() {
        let mut headers = map(&[
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("te", "trailers"), ("accept", "*/*")]));
    }
}
