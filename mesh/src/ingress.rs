//! What a call is, decided once where it comes into the mesh: one host, one path, a head within limits, and nothing in it that only
//! the mesh may say. Pure.
//!
//! Listeners, routes, policies and the guest all look at what this leaves, so that none of them can be shown another host or path than
//! the next (CVE-2021-31920, CVE-2021-29492). What can be read in two ways is refused, not guessed.
//!
//! ```text
//! host   lower case, without the dot that ends a full name; no user, no second line, no other name beside the authority
//! path   RFC 3986 §6.2.2: dot segments resolved, letters and digits unescaped, escapes in upper case; slashes merged.
//!        An escaped slash stays escaped: it is a part of its segment.
//! head   within what is delivered, less what the mesh adds on the way
//! ```
//! Sources: RFC 9110 §4.2, §7.2; RFC 9112 §3.2; RFC 9113 §8.3.1; the gateway's defaults are those of Envoy Gateway.

use std::{borrow::Cow, net::Ipv6Addr};

use http::{
    HeaderValue, Method, Request, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use parking_lot::Mutex;

use weft_call::Failure;

use crate::{failure, headers, resolve};

/// Longest host name (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;

type Wrong = &'static str;

/// The host that a connection's last request named: most name one all along, and reading it costs more than comparing.
#[derive(Default)]
pub(crate) struct LastHost(Mutex<Option<Host>>);

#[derive(Clone)]
struct Host {
    /// As it was written in the line `Host`.
    written: HeaderValue,
    authority: Authority,
    /// The authority as the value of a line.
    line: HeaderValue,
}

impl LastHost {
    /// What `request` names, if it says so by one line alone and has the words of the one before.
    fn known<B>(&self, request: &Request<B>) -> Option<Host> {
        let mut lines = request.headers().get_all(header::HOST).iter();
        let (Some(written), None, None) = (lines.next(), lines.next(), request.uri().authority())
        else {
            return None;
        };
        let last = self.0.lock();
        last.as_ref()
            .filter(|host| host.written == *written)
            .cloned()
    }

    fn read<B>(&self, request: &Request<B>) -> Result<Host, Wrong> {
        let authority = named_authority(request)?;
        let line = HeaderValue::from_str(authority.as_str()).map_err(|_| NO_HOST)?;
        let written = match request.uri().authority() {
            None => request.headers().get(header::HOST).cloned(),
            Some(_) => None,
        };
        let host = Host {
            written: written.unwrap_or_else(|| line.clone()),
            authority,
            line,
        };
        *self.0.lock() = Some(host.clone());
        Ok(host)
    }
}

/// Brings a request of a client outside into the form that the mesh works with. The result is its host, as the value of a line.
///
/// # Errors
/// `BadRequest` or `HeadTooLarge`, in one sentence.
pub(crate) fn from_outside<B>(
    request: &mut Request<B>,
    last: &LastHost,
    scheme: Scheme,
) -> Result<HeaderValue, Failure> {
    refuse_connect(request)?;
    let Host {
        authority, line, ..
    } = match last.known(request) {
        Some(host) => host,
        None => last.read(request).map_err(bad)?,
    };
    let path = path_and_query(request.uri()).map_err(bad)?;
    let path = path.or_else(|| request.uri().path_and_query().cloned());
    let mut parts = http::uri::Parts::default();
    // What the connection was is known; a proxy before it may have said otherwise.
    parts.scheme = Some(scheme);
    parts.authority = Some(authority);
    parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| bad("its URI is not valid"))?;

    let lines = request.headers_mut();
    lines.remove(header::HOST);
    headers::keep_what_enters(lines);
    within_limits(request)?;
    Ok(line)
}

/// Brings a request of a workload into that form, and says the port that its scheme implies. Its host is read by `resolve.rs`.
///
/// # Errors
/// As [`from_outside`].
pub(crate) fn from_workload<B>(request: &mut Request<B>) -> Result<u16, Failure> {
    refuse_connect(request)?;
    let default_port = resolve::absolute(request)?;
    if let Some(path) = path_and_query(request.uri()).map_err(bad)? {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.path_and_query = Some(path);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| bad("its URI is not valid"))?;
    }
    headers::keep_what_sets_out(request.headers_mut());
    within_limits(request)?;
    Ok(default_port)
}

fn bad(reason: Wrong) -> Failure {
    failure::bad_request(reason)
}

fn refuse_connect<B>(request: &Request<B>) -> Result<(), Failure> {
    if request.method() == Method::CONNECT {
        return Err(bad("CONNECT is not supported"));
    }
    Ok(())
}

fn within_limits<B>(request: &Request<B>) -> Result<(), Failure> {
    if headers::may_enter(request.uri(), request.headers()) {
        Ok(())
    } else {
        Err(failure::head_too_large())
    }
}

/// The one host that a client names.
fn named_authority<B>(request: &Request<B>) -> Result<Authority, Wrong> {
    let mut lines = request.headers().get_all(header::HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err("it names more than one host");
    }
    // RFC 9112 §3.2: also where the request line names one.
    if line.is_none() && request.version() == Version::HTTP_11 {
        return Err("it names no host");
    }
    let line = line.map(|line| line.to_str().map_err(|_| NO_HOST).and_then(authority));
    match (request.uri().authority(), line) {
        (Some(named), Some(other)) if request.version() >= Version::HTTP_2 => {
            let named = authority(named.as_str())?;
            if other != Ok(named.clone()) {
                return Err("its host line names another host than its authority");
            }
            Ok(named)
        }
        // The request line holds, and whatever Host says is ignored (RFC 9112 §3.2.2).
        (Some(named), _) => authority(named.as_str()),
        (None, Some(line)) => line,
        (None, None) => Err("it names no host"),
    }
}

const NO_HOST: Wrong = "its host is not valid";

/// `host[:port]` as it is compared everywhere.
pub(crate) fn authority(text: &str) -> Result<Authority, Wrong> {
    if text.contains('@') {
        return Err("its host names a user");
    }
    let is_literal = text.starts_with('[');
    let (host, port) = match text.rsplit_once(':') {
        // A colon inside of the brackets is the address's.
        Some((host, port)) if !is_literal || host.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    let host = if is_literal {
        literal(host)?
    } else {
        name(host)?
    };
    let normal = match port {
        "" => host,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let port = digits.parse::<u16>().ok().filter(|port| *port > 0);
            Cow::Owned(format!("{host}:{}", port.ok_or("its port is not valid")?))
        }
        _ => return Err("its port is not valid"),
    };
    Authority::try_from(&*normal).map_err(|_| NO_HOST)
}

/// `[…]`, an address of IPv6 without a zone.
fn literal(host: &str) -> Result<Cow<'_, str>, Wrong> {
    let inside = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .ok_or(NO_HOST)?;
    let address: Ipv6Addr = inside.parse().map_err(|_| NO_HOST)?;
    Ok(Cow::Owned(format!("[{address}]")))
}

/// A name of DNS, or an address of IPv4. Underscores are not DNS's, but are in use.
fn name(host: &str) -> Result<Cow<'_, str>, Wrong> {
    let host = resolve::host_name(host);
    let is_label = |label: &str| {
        let mut bytes = label.bytes();
        !label.is_empty()
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if host.len() > HOST_BYTES_MAX || !host.split('.').all(is_label) {
        return Err(NO_HOST);
    }
    Ok(host)
}

/// The path as it is compared everywhere, if it is written otherwise.
fn path_and_query(uri: &Uri) -> Result<Option<PathAndQuery>, Wrong> {
    let text = uri.path();
    if text.is_empty() {
        return Ok(None);
    }
    match path(text)? {
        Cow::Borrowed(_) => Ok(None),
        Cow::Owned(path) => {
            let text = match uri.query() {
                Some(query) => format!("{path}?{query}"),
                None => path,
            };
            let parsed = PathAndQuery::try_from(text).map_err(|_| "its path is not valid")?;
            Ok(Some(parsed))
        }
    }
}

/// The one way to write a path. Borrowed where it is written so.
pub(crate) fn path(text: &str) -> Result<Cow<'_, str>, Wrong> {
    if !text.starts_with('/') {
        return Err("its path does not begin with a slash");
    }
    let bytes = text.as_bytes();
    let is_plain = !bytes.iter().any(|byte| matches!(byte, b'%' | b'\\'))
        && !bytes.windows(2).any(|pair| matches!(pair, b"//" | b"/."));
    if is_plain {
        return Ok(Cow::Borrowed(text));
    }
    let path = without_dots(&unescaped(text)?);
    Ok(if path == text {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(path)
    })
}

/// Escapes of unreserved characters are the characters (RFC 3986 §6.2.2.2), others are kept, in upper case. A percent sign that begins none
/// is escaped: what follows it could otherwise make one of it. A backslash is a slash to browsers, and to many routers.
fn unescaped(path: &str) -> Result<String, Wrong> {
    let bytes = path.as_bytes();
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = match bytes[at..] {
            [b'%', high, low, ..] => digit(high).zip(digit(low)),
            _ => None,
        };
        match (escape, byte) {
            (Some((0, 0)), _) => return Err("its path has a zero byte"),
            (Some((high, low)), _) => {
                let meant = high << 4 | low;
                if meant.is_ascii_alphanumeric() || matches!(meant, b'-' | b'.' | b'_' | b'~') {
                    out.push(meant);
                } else {
                    let upper = [byte, bytes[at + 1], bytes[at + 2]];
                    out.extend(upper.map(|byte| byte.to_ascii_uppercase()));
                }
                at += 3;
                continue;
            }
            (None, b'\\') => out.push(b'/'),
            (None, b'%') => out.extend(*b"%25"),
            (None, byte) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8(out).map_err(|_| "its path is not valid")
}

/// RFC 3986 §5.2.4, and empty segments left out but for the last. What would lead above the root leads to the root.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_slash = true;
    for segment in path.split('/') {
        ends_in_slash = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if ends_in_slash || kept.is_empty() {
        out.push('/');
    }
    out
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};

    use super::*;

    #[test]
    fn a_path_is_written_in_one_way() {
        for (text, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a///b//", "/a/b/"),
            ("/public/../admin", "/admin"),
            ("/public/%2e%2E/admin", "/admin"),
            ("/public/.%2e/admin", "/admin"),
            ("/public\\..\\admin", "/admin"),
            ("/a/./b/.", "/a/b/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/../../a", "/a"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/%41%7e", "/A~"),
            // Another segment than `group/name`, and so it stays.
            ("/group%2fname", "/group%2Fname"),
            ("/a%5cb", "/a%5Cb"),
            // Escaped twice is no escape of what it looks like.
            ("/%252e%252e/a", "/%252e%252e/a"),
            ("/100%", "/100%25"),
            ("/%zz/%2", "/%25zz/%252"),
            ("/%%32e%%32e/a", "/%252e%252e/a"),
            ("/%C3%A9", "/%C3%A9"),
        ] {
            let found = path(text).expect(text);
            assert_eq!(found, expected, "{text}");
            let is_borrowed = matches!(found, Cow::Borrowed(_));
            assert_eq!(
                is_borrowed,
                text == expected,
                "{text} costs nothing if it is right"
            );
        }
        for (text, why) in [
            ("*", "its path does not begin with a slash"),
            ("a/b", "its path does not begin with a slash"),
            ("/a%00b", "its path has a zero byte"),
        ] {
            assert_eq!(path(text), Err(why), "{text}");
        }
    }

    /// Why a path does not go through `percent_encoding` and back, segment by segment: of two paths (RFC 3986 §2.2) that makes one.
    #[test]
    fn an_escaped_sign_is_another_path_than_the_sign() {
        let back_and_forth = |path: &str| {
            let segments = path.split('/').map(|segment| {
                let bytes: Vec<u8> = percent_decode_str(segment).collect();
                percent_encode(&bytes, NON_ALPHANUMERIC).to_string()
            });
            segments.collect::<Vec<_>>().join("/")
        };
        for sign in "!$&'()*+,;=:@".chars() {
            let (escaped, plain) = (format!("/a%{:02X}b", u32::from(sign)), format!("/a{sign}b"));
            assert_eq!(path(&escaped), Ok(Cow::Borrowed(&*escaped)));
            assert_eq!(path(&plain), Ok(Cow::Borrowed(&*plain)));
            assert_eq!(back_and_forth(&escaped), back_and_forth(&plain));
        }
    }

    #[test]
    fn a_host_is_written_in_one_way() {
        for (text, expected) in [
            ("shop.test", Ok("shop.test")),
            ("Shop.TEST.", Ok("shop.test")),
            ("shop.test.:8080", Ok("shop.test:8080")),
            ("shop.test:", Ok("shop.test")),
            ("shop.test:0080", Ok("shop.test:80")),
            ("a_b.test", Ok("a_b.test")),
            ("10.42.0.1:80", Ok("10.42.0.1:80")),
            ("[::1]", Ok("[::1]")),
            ("[0:0:0:0:0:0:0:1]:80", Ok("[::1]:80")),
            ("[::ffff:127.0.0.1]", Ok("[::ffff:127.0.0.1]")),
            ("user@a.test", Err("its host names a user")),
            ("user:secret@a.test:80", Err("its host names a user")),
            ("a.test:99999", Err("its port is not valid")),
            ("a.test:0", Err("its port is not valid")),
            ("a.test:+80", Err("its port is not valid")),
            ("a.test:80x", Err("its port is not valid")),
            ("a.test, b.test", Err(NO_HOST)),
            ("a.test,b.test", Err(NO_HOST)),
            ("a%2etest", Err(NO_HOST)),
            ("a..test", Err(NO_HOST)),
            ("a.test..", Err(NO_HOST)),
            (".test", Err(NO_HOST)),
            (".", Err(NO_HOST)),
            ("", Err(NO_HOST)),
            (":80", Err(NO_HOST)),
            ("[::1", Err(NO_HOST)),
            ("[::1]x:80", Err(NO_HOST)),
            ("[fe80::1%25eth0]", Err(NO_HOST)),
            ("a:b:80", Err(NO_HOST)),
        ] {
            let found = authority(text);
            let found = found.as_ref().map(Authority::as_str).map_err(|why| *why);
            assert_eq!(found, expected, "{text}");
        }
        let long = format!("{}.test", "a".repeat(249));
        assert_eq!(authority(&long), Err(NO_HOST));
    }

    fn request(version: Version, uri: &str, hosts: &[&str]) -> Request<()> {
        let mut builder = Request::builder().version(version).uri(uri);
        for host in hosts {
            builder = builder.header(header::HOST, *host);
        }
        builder.body(()).expect("a request")
    }

    #[test]
    fn a_client_names_one_host() {
        let none = "the request is not acceptable: it names no host";
        let two = "the request is not acceptable: it names more than one host";
        let other =
            "the request is not acceptable: its host line names another host than its authority";
        for (version, uri, hosts, expected) in [
            (Version::HTTP_11, "/p", &["A.test."][..], "http://a.test/p"),
            (Version::HTTP_11, "/p", &[], none),
            (Version::HTTP_10, "/p", &[], none),
            (Version::HTTP_10, "/p", &["a.test"], "http://a.test/p"),
            (Version::HTTP_11, "/p", &["a.test", "b.test"], two),
            (Version::HTTP_11, "/p", &["a.test", "a.test"], two),
            (
                Version::HTTP_11,
                "http://a.test/p?q",
                &["b.test"],
                "http://a.test/p?q",
            ),
            (
                Version::HTTP_11,
                "https://a.test",
                &["a.test"],
                "http://a.test/",
            ),
            (Version::HTTP_11, "http://a.test/p", &[], none),
            (Version::HTTP_2, "http://a.test/p", &[], "http://a.test/p"),
            (
                Version::HTTP_2,
                "http://A.test/p",
                &["a.test."],
                "http://a.test/p",
            ),
            (Version::HTTP_2, "http://a.test/p", &["b.test"], other),
            (Version::HTTP_2, "http://a.test/p", &["b@a.test"], other),
            (Version::HTTP_2, "/p", &["a.test"], "http://a.test/p"),
        ] {
            // As the first of its connection, after itself, and after what named another host.
            let (first, other) = (LastHost::default(), LastHost::default());
            let mut before = self::request(Version::HTTP_11, "/", &["b.test"]);
            from_outside(&mut before, &other, Scheme::HTTP).expect("a host");
            for last in [&first, &first, &other] {
                let mut request = self::request(version, uri, hosts);
                let found = match from_outside(&mut request, last, Scheme::HTTP) {
                    Ok(host) => {
                        assert_eq!(
                            host.to_str().ok(),
                            request.uri().host(),
                            "{version:?} {uri}"
                        );
                        request.uri().to_string()
                    }
                    Err(error) => error.to_string(),
                };
                assert_eq!(found, expected, "{version:?} {uri} {hosts:?}");
                assert!(!found.starts_with("http:") || !request.headers().contains_key("host"));
            }
        }
    }

    #[test]
    fn a_head_that_would_not_be_delivered_does_not_come_in() {
        let mut request = request(Version::HTTP_11, "/", &["a.test"]);
        for number in 0..241 {
            let name: header::HeaderName = format!("x-{number}").parse().expect("a name");
            request
                .headers_mut()
                .insert(name, header::HeaderValue::from_static("1"));
        }
        let error = from_outside(&mut request, &LastHost::default(), Scheme::HTTP)
            .expect_err("too many lines");
        assert_eq!(error.status().as_u16(), 431);
    }
}
