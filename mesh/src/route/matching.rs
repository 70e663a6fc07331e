//! Whether a request meets the conditions of a rule. Pure.
//!
//! Invariants: paths are compared as `ingress.rs` writes them, by elements, case-sensitive;
//! the first value of a repeated query parameter counts.
//! Source: gateway-api `apis/v1/httproute_types.go`.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use weft_gateway::{Match, PathMatch, Pattern};

/// The part of a request that routing looks at.
#[derive(Clone, Copy)]
pub(crate) struct View<'r> {
    pub(crate) method: &'r Method,
    pub(crate) path: &'r str,
    pub(crate) query: Option<&'r str>,
    pub(crate) headers: &'r HeaderMap,
    /// Port of the parent that was addressed.
    pub(crate) port: u16,
}

impl<'r> View<'r> {
    pub(crate) fn new<B>(request: &'r http::Request<B>, port: u16) -> Self {
        Self {
            method: request.method(),
            path: match request.uri().path() {
                "" => "/",
                path => path,
            },
            query: request.uri().query(),
            headers: request.headers(),
            port,
        }
    }
}

/// All conditions hold.
pub(crate) fn matches(wanted: &Match, view: View<'_>) -> bool {
    path_matches(&wanted.path, view.path)
        && wanted
            .method
            .as_ref()
            .is_none_or(|method| method == view.method)
        && wanted
            .headers
            .iter()
            .all(|(name, value)| header_matches(view.headers, name, value))
        && wanted
            .query
            .iter()
            .all(|(name, value)| query_matches(view.query, name, |found| found == value))
        && wanted
            .header_patterns
            .iter()
            .all(|(name, pattern)| header_is_like(view.headers, name, pattern))
        && wanted
            .query_patterns
            .iter()
            .all(|(name, pattern)| query_matches(view.query, name, |found| pattern.matches(found)))
}

fn path_matches(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Prefix(prefix) => path
            .strip_prefix(elements(prefix))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        PathMatch::Method(method) => {
            let called = path.strip_prefix('/').and_then(|path| path.split_once('/'));
            called.is_some_and(|(service, called)| !service.is_empty() && called == method)
        }
        PathMatch::Pattern(pattern) => pattern.matches(path),
    }
}

fn header_is_like(headers: &HeaderMap, name: &HeaderName, pattern: &Pattern) -> bool {
    let mut values = headers.get_all(name).iter();
    let joined = match (values.next(), values.next()) {
        (None, _) => return false,
        (Some(only), None) => return only.to_str().is_ok_and(|only| pattern.matches(only)),
        (Some(first), Some(second)) => joined(first, second, values),
    };
    std::str::from_utf8(&joined).is_ok_and(|joined| pattern.matches(joined))
}

/// Repeated lines mean the same as one line joined by commas.
fn joined<'v>(
    first: &HeaderValue,
    second: &'v HeaderValue,
    others: impl Iterator<Item = &'v HeaderValue>,
) -> Vec<u8> {
    let mut joined = first.as_bytes().to_vec();
    for value in std::iter::once(second).chain(others) {
        joined.push(b',');
        joined.extend_from_slice(value.as_bytes());
    }
    joined
}

fn header_matches(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => false,
        (Some(only), None) => only.as_bytes() == wanted.as_bytes(),
        (Some(first), Some(second)) => joined(first, second, values) == wanted.as_bytes(),
    }
}

fn query_matches(query: Option<&str>, name: &str, is_wanted: impl Fn(&str) -> bool) -> bool {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .find(|(found, _)| found == name)
        .is_some_and(|(_, value)| is_wanted(&value))
}

/// A path prefix without the slash at its end, which means nothing; `/` is the empty prefix.
pub(crate) fn elements(prefix: &str) -> &str {
    prefix.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_decoded_and_broken_escapes_stay() {
        for (query, value) in [
            ("v=plain", "plain"),
            ("v=a+b%20c", "a b c"),
            ("v=%2B%2f", "+/"),
            ("%76=x&v=y", "x"),
            ("v", ""),
            ("v=%", "%"),
            ("v=%4", "%4"),
            ("v=%zz%41", "%zzA"),
            ("v=%ff", "\u{fffd}"),
        ] {
            assert!(
                query_matches(Some(query), "v", |found| found == value),
                "{query}"
            );
        }
        assert!(!query_matches(None, "v", str::is_empty));
    }

    #[test]
    fn patterns_are_for_the_whole_and_methods_of_any_service() {
        let pattern = |text| Pattern::new(text).expect("a pattern");
        for (wanted, path, is_met) in [
            (PathMatch::Pattern(pattern("/v[0-9]+/a")), "/v12/a", true),
            (PathMatch::Pattern(pattern("/v[0-9]+/a")), "/v12/ab", false),
            (PathMatch::Method("Echo".to_owned()), "/a.B/Echo", true),
            (PathMatch::Method("Echo".to_owned()), "//Echo", false),
            (PathMatch::Method("Echo".to_owned()), "/a/b/Echo", false),
        ] {
            assert_eq!(path_matches(&wanted, path), is_met, "{path}");
        }
        let name = HeaderName::from_static("x-v");
        let mut headers = HeaderMap::new();
        let like = |headers: &HeaderMap| header_is_like(headers, &name, &pattern("a|b,c"));
        assert!(!like(&headers));
        headers.append(&name, HeaderValue::from_static("b"));
        assert!(!like(&headers));
        headers.append(&name, HeaderValue::from_static("c"));
        assert!(like(&headers));
    }
}
