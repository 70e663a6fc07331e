//! What a message's head may have, and what must not pass from one hop to the next.
//!
//! Invariant: a header named `x-weft-*` that a workload or a client sends never travels; between nodes they
//! are `wire.rs`'s.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use weft_call::Priority;

pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// Looked for in each call, and a name that is text would have to be read each time.
pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const PRIORITY: HeaderName = HeaderName::from_static("priority");
/// What ends at the gateway: other words for where a request came from, an expectation that is met by reading on, and what was
/// for a proxy (WASI forbids guests to send it, so that one which copies its request's lines would fail).
const OF_THE_WAY_HERE: [HeaderName; 7] = [
    header::FORWARDED,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-forwarded-port"),
    header::EXPECT,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("http2-settings"),
];

/// Header lines a message may have, and bytes in its URI and the lines' names and values together.
pub(crate) const HEADERS_MAX: usize = 256;
pub(crate) const HEADER_BYTES_MAX: usize = 64 << 10;
/// Of a head beyond them.
pub(crate) const TOO_LARGE: &str = "more than 256 lines or 64 KiB";
const _: () = assert!(HEADERS_MAX == 256 && HEADER_BYTES_MAX == 64 << 10);
/// What the mesh itself adds between the way in and the callee: who called, since when, for whom (a dozen lines, a trace of 600 bytes).
/// A head that fits where it comes in still fits where it is delivered.
const ADDED_LINES: usize = 16;
/// Of those, what a gateway's call has: where it came from, and its trace.
pub(crate) const ADDED_LINES_USUAL: usize = 4;
const ADDED_BYTES: usize = 4 << 10;
/// A head within the limits as HTTP/2 counts it, with 32 bytes a line: what is within them is never refused by a codec.
pub(crate) const HEADER_LIST_BYTES_MAX: u32 = (HEADER_BYTES_MAX + 32 * (HEADERS_MAX + 16)) as u32;

/// Removes everything by which a workload or a client could claim to be somebody else.
pub(crate) fn strip_forged(headers: &mut HeaderMap) {
    strip_weft(headers);
    headers.remove(FORWARDED_CLIENT_CERT);
}

/// Whether a line of this name may have to go: it says who asks, or belongs to one hop, or to the way up to the gateway. Most messages
/// have none, and are looked through once.
fn is_for_us(name: &HeaderName) -> bool {
    let name = name.as_str();
    match name.as_bytes().first() {
        Some(b'c') => name == "connection",
        Some(b'e') => name == "expect",
        Some(b'f') => name == "forwarded",
        Some(b'h') => name == "http2-settings",
        Some(b'k') => name == "keep-alive",
        Some(b'p') => name.starts_with("proxy-"),
        Some(b't') => matches!(name, "te" | "transfer-encoding"),
        Some(b'u') => name == "upgrade",
        Some(b'x') => {
            name.starts_with("x-weft-")
                || matches!(
                    name,
                    "x-real-ip" | "x-forwarded-client-cert" | "x-forwarded-port"
                )
        }
        _ => false,
    }
}

/// Removes what a client outside may not say, and what it says to the gateway alone.
pub(crate) fn keep_what_enters(headers: &mut HeaderMap) {
    if headers.keys().any(is_for_us) {
        strip_forged(headers);
        strip_hop_by_hop(headers);
        strip_way(headers);
    }
}

/// Removes what a workload may not say. It may say what a client outside says to the gateway: there is none before it.
pub(crate) fn keep_what_sets_out(headers: &mut HeaderMap) {
    if headers.keys().any(is_for_us) {
        strip_forged(headers);
        strip_hop_by_hop(headers);
    }
}

/// Removes what does not go from one hop to the next.
pub(crate) fn keep_what_passes(headers: &mut HeaderMap) {
    if headers.keys().any(is_for_us) {
        strip_weft(headers);
        strip_hop_by_hop(headers);
    }
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

/// Removes what a client says to the gateway, or of the way it came.
pub(crate) fn strip_way(headers: &mut HeaderMap) {
    for name in OF_THE_WAY_HERE {
        headers.remove(name);
    }
}

/// Whether a line is for all who pass a message on, so that nobody can call it one connection's: where the message ends, and whose it is.
/// A sender that lists it in `connection` breaks RFC 9110 §7.6.1; without its length, an upload would be held to no pace.
fn is_for_all(name: &HeaderName) -> bool {
    *name == header::CONTENT_LENGTH || *name == header::HOST
}

/// Removes what belongs to one connection (RFC 9110 §7.6.1), including what `connection` lists of lines that can. `te` says `trailers`,
/// once, or nothing: HTTP/2 takes no other (RFC 9113 §8.2.2), and codecs look at the first line only.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let listed: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| !is_for_all(name))
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
    let Some(first) = encodings.next() else {
        return;
    };
    if first == "trailers" && encodings.next().is_none() {
        return;
    }
    let takes_trailers = headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"));
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(header::TE);
    }
}

/// Whether a line that is a list has this word, however its letters are written.
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).iter();
    let words = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    words
        .map(<[u8]>::trim_ascii)
        .any(|said| said.eq_ignore_ascii_case(word.as_bytes()))
}

/// The value of a line that is there once.
pub(crate) fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

/// Whether a request's head may come in: within the limits, with room for what the mesh adds.
pub(crate) fn may_enter(uri: &Uri, headers: &HeaderMap) -> bool {
    fits(
        uri,
        headers,
        HEADERS_MAX - ADDED_LINES,
        HEADER_BYTES_MAX - ADDED_BYTES,
    )
}

/// Whether a message's head stays within the limits; a response has no URI.
pub(crate) fn within_limits(uri: &Uri, headers: &HeaderMap) -> bool {
    fits(uri, headers, HEADERS_MAX, HEADER_BYTES_MAX)
}

fn fits(uri: &Uri, headers: &HeaderMap, lines_max: usize, bytes_max: usize) -> bool {
    if headers.len() > lines_max {
        return false;
    }
    let authority = uri
        .authority()
        .map_or(0, |authority| authority.as_str().len());
    let mut bytes = authority + uri.path_and_query().map_or(0, |path| path.as_str().len());
    for (name, value) in headers {
        bytes += name.as_str().len() + value.len();
    }
    bytes <= bytes_max
}

/// What `content-length` says; an error where lines differ or one is no number (RFC 9110 §8.6).
pub(crate) fn content_length(headers: &HeaderMap) -> Result<Option<u64>, BadLength> {
    let mut found = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let digits = value.as_bytes();
        let length = digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| value.to_str().ok()?.parse::<u64>().ok())
            .flatten()
            .ok_or(BadLength)?;
        if found.is_some_and(|before| before != length) {
            return Err(BadLength);
        }
        found = Some(length);
    }
    Ok(found)
}

/// A `content-length` that says no length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadLength;

/// What a call of gRPC may take, as its caller says; none where it says nothing, or nothing that can be read. Source: gRPC over HTTP/2.
pub(crate) fn grpc_timeout(lines: &HeaderMap) -> Option<Duration> {
    let text = lines.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// How much a call matters, as its caller says with the line `priority` (RFC 9218); none where it says nothing.
pub(crate) fn priority(lines: &HeaderMap) -> Option<Priority> {
    let text = lines.get(PRIORITY)?.to_str().ok()?;
    let mut items = text.split(',').map(str::trim);
    let urgency = items.find_map(|item| item.strip_prefix("u="))?;
    let urgency = urgency.parse().ok().filter(|urgency| *urgency <= 7)?;
    Some(Priority::of_urgency(urgency))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_caller_says_of_time_and_of_what_its_call_is_worth() {
        let millis = Duration::from_millis;
        for (line, expected) in [
            ("1H", Some(millis(3_600_000))),
            ("2M", Some(millis(120_000))),
            ("3S", Some(millis(3000))),
            ("250m", Some(millis(250))),
            ("1000u", Some(millis(1))),
            ("1000000n", Some(millis(1))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("999999999m", None),
            ("m", None),
            ("-1m", None),
            ("1x", None),
            ("", None),
        ] {
            assert_eq!(
                grpc_timeout(&map(&[("grpc-timeout", line)])),
                expected,
                "{line:?}"
            );
        }
        for (line, expected) in [
            ("u=0", Some(Priority::Critical)),
            ("i, u=3", Some(Priority::Usual)),
            ("u=5;x=1, i", None),
            ("u=5, i", Some(Priority::Low)),
            ("u=7", Some(Priority::Sheddable)),
            ("u=8", None),
            ("i", None),
        ] {
            assert_eq!(priority(&map(&[("priority", line)])), expected, "{line:?}");
        }
    }

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
    fn a_message_is_looked_through_for_all_that_is_removed() {
        let of_one_hop = [
            "connection",
            "keep-alive",
            "proxy-connection",
            "te",
            "transfer-encoding",
            "upgrade",
        ];
        let forged = ["x-weft-source", "x-forwarded-client-cert"];
        let nobodys = of_one_hop.into_iter().chain(forged);
        let nobodys = nobodys.map(|name| (HeaderName::from_static(name), false));
        let of_the_way = OF_THE_WAY_HERE.map(|name| (name, true));
        for (name, is_a_workloads) in nobodys.chain(of_the_way) {
            assert!(is_for_us(&name), "{name}");
            let line = HeaderMap::from_iter([(name, HeaderValue::from_static("x"))]);
            let (mut entering, mut setting_out) = (line.clone(), line.clone());
            keep_what_enters(&mut entering);
            assert!(entering.is_empty(), "{entering:?}");
            keep_what_sets_out(&mut setting_out);
            match is_a_workloads {
                true => assert_eq!(setting_out, line),
                false => assert!(setting_out.is_empty(), "{setting_out:?}"),
            }
        }
        for name in ["x-forwarded-for", "cookie", "content-type", "trailer", "x"] {
            assert!(!is_for_us(&HeaderName::from_static(name)), "{name}");
        }
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
            ("proxy-authorization", "Basic eA=="),
            ("http2-settings", "AAMAAABkAAQ"),
            ("x-real-ip", "192.0.2.1"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        strip_way(&mut headers);
        assert_eq!(headers, map(&[("te", "trailers"), ("accept", "*/*")]));
    }

    /// A client could list the length of its upload, and take a minute for each byte of it.
    #[test]
    fn what_is_for_all_is_no_connections_whoever_says_so() {
        let message = [
            ("host", "a.test"),
            ("content-length", "5"),
            ("x-mine", "1"),
            ("accept", "*/*"),
        ];
        let all = &["host", "content-length", "x-mine", "accept"][..];
        let without_mine = &["host", "content-length", "accept"][..];
        for (listed, kept) in [
            (&["close"][..], all),
            (&["content-length"], all),
            (&["close, Content-Length"], all),
            (&["content-length", "host"], all),
            (&["Host,content-length ,x-mine"], without_mine),
            (&["x-mine", "content-length"], without_mine),
        ] {
            let expected = message.into_iter().filter(|(name, _)| kept.contains(name));
            let expected = map(&expected.collect::<Vec<_>>());
            let lines = listed.iter().map(|listed| ("connection", *listed));
            let sent = map(&message.into_iter().chain(lines).collect::<Vec<_>>());
            for strip in [
                keep_what_enters,
                keep_what_sets_out,
                keep_what_passes,
                strip_hop_by_hop,
            ] {
                let mut headers = sent.clone();
                strip(&mut headers);
                assert_eq!(headers, expected, "{listed:?}");
            }
        }
    }

    #[test]
    fn whoever_takes_trailers_says_so_once() {
        for (lines, expected) in [
            (&["trailers"][..], Some("trailers")),
            (&["trailers", "gzip"], Some("trailers")),
            (&["gzip", "trailers"], Some("trailers")),
            (&["trailers", "trailers"], Some("trailers")),
            (&["gzip, Trailers"], Some("trailers")),
            (&["gzip"], None),
            (&["trailers;q=0"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::TE, HeaderValue::from_static(line));
            }
            strip_hop_by_hop(&mut headers);
            let found: Vec<_> = headers.get_all(header::TE).iter().collect();
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{lines:?}");
        }
    }

    #[test]
    fn what_comes_in_has_room_for_what_the_mesh_adds() {
        let uri = Uri::from_static("http://voting/p");
        let head = |lines: usize, bytes: usize| {
            let mut headers = HeaderMap::new();
            for number in 0..lines {
                let name: HeaderName = format!("x-{number:04}").parse().expect("a name");
                headers.append(name, HeaderValue::from_static(""));
            }
            let value = "v".repeat(bytes);
            headers.append("x", value.parse().expect("a value"));
            headers
        };
        for (lines, bytes, enters, is_within) in [
            (239, 0, true, true),
            (240, 0, false, true),
            (255, 0, false, true),
            (256, 0, false, false),
            (0, 60 << 10, false, true),
            (0, (60 << 10) - 9, true, true),
            (0, 64 << 10, false, false),
        ] {
            let head = head(lines, bytes);
            let found = (may_enter(&uri, &head), within_limits(&uri, &head));
            assert_eq!(found, (enters, is_within), "{lines} lines, {bytes} bytes");
        }
    }

    #[test]
    fn a_length_is_one_number() {
        for (lines, expected) in [
            (&[][..], Ok(None)),
            (&["0"], Ok(Some(0))),
            (&["5", "5"], Ok(Some(5))),
            (&["5", "6"], Err(BadLength)),
            (&["5, 5"], Err(BadLength)),
            (&["+5"], Err(BadLength)),
            (&["-1"], Err(BadLength)),
            (&[""], Err(BadLength)),
            (&["99999999999999999999"], Err(BadLength)),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::CONTENT_LENGTH, HeaderValue::from_static(line));
            }
            assert_eq!(content_length(&headers), expected, "{lines:?}");
        }
    }
}
