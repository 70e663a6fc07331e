//! What each filter of a rule does, and the choice among backends. Pure but for chance, which is handed in. When a filter does it is
//! said in `exchange.rs`.
//!
//! Source: gateway-api `apis/v1/httproute_types.go`.

use std::borrow::Cow;

use http::{
    HeaderMap, StatusCode, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use weft_gateway::{Backend, HeaderChange, PathChange, Redirect, Rewrite};

use super::matching::elements;

/// Chooses a backend by weight and says its position. `None` when no backend has any weight.
pub(super) fn choose_backend(backends: &[Backend], rng: &mut impl rand::Rng) -> Option<usize> {
    if let [only] = backends {
        return (only.weight > 0).then_some(0);
    }
    let total: u64 = backends
        .iter()
        .map(|backend| u64::from(backend.weight))
        .sum();
    if total == 0 {
        return None;
    }
    let mut ticket = rng.random_range(0..total);
    backends.iter().position(|backend| {
        let weight = u64::from(backend.weight);
        let mine = ticket < weight;
        ticket = ticket.saturating_sub(weight);
        mine
    })
}

/// Status and `location` of a redirect. `listener_port`: the port of the listener that the request came in by, where it
/// is also that of the node.
pub(super) fn redirect(
    redirect: &Redirect,
    prefix: &str,
    uri: &Uri,
    listener_port: Option<u16>,
) -> (StatusCode, String) {
    let old_scheme = uri.scheme_str().unwrap_or("http");
    let scheme = redirect.scheme.as_deref().unwrap_or(old_scheme);
    let host = redirect
        .hostname
        .as_deref()
        .or_else(|| uri.host())
        .unwrap_or_default();
    // Explicit port, else that of an explicit scheme, else the listener's. What a client says of the port is its own idea: it is
    // believed only where the listener's port is not the one that clients reach.
    let port = match (redirect.port, &redirect.scheme) {
        (Some(port), _) => Some(port),
        (None, Some(_)) => None,
        (None, None) => listener_port.or_else(|| uri.port_u16()),
    };
    let well_known = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let path = match &redirect.path {
        Some(change) => changed_path(uri.path(), change, prefix),
        None => Cow::Borrowed(uri.path()),
    };
    let mut location = format!("{scheme}://{host}");
    if let Some(port) = port.filter(|port| Some(*port) != well_known) {
        location.push(':');
        location.push_str(&port.to_string());
    }
    location.push_str(&path);
    if let Some(query) = uri.query() {
        location.push('?');
        location.push_str(query);
    }
    (redirect.status.unwrap_or(StatusCode::FOUND), location)
}

pub(super) fn change_headers(change: &HeaderChange, headers: &mut HeaderMap) {
    for (name, value) in &change.set {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &change.add {
        headers.append(name.clone(), value.clone());
    }
    for name in &change.remove {
        headers.remove(name);
    }
}

/// None where that is no valid URI.
pub(super) fn rewritten(uri: &Uri, rewrite: &Rewrite, prefix: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    if let Some(hostname) = &rewrite.hostname {
        parts.authority = Some(hostname.parse::<Authority>().ok()?);
        parts.scheme.get_or_insert(Scheme::HTTP);
    }
    if let Some(change) = &rewrite.path {
        let path = changed_path(uri.path(), change, prefix);
        let text = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.into_owned(),
        };
        parts.path_and_query = Some(text.parse::<PathAndQuery>().ok()?);
    }
    Uri::from_parts(parts).ok()
}

fn changed_path<'p>(path: &'p str, change: &'p PathChange, prefix: &str) -> Cow<'p, str> {
    match change {
        PathChange::Full(full) if full.is_empty() => Cow::Borrowed("/"),
        PathChange::Full(full) => Cow::Borrowed(full),
        PathChange::Prefix(replacement) => {
            let rest = path.strip_prefix(elements(prefix)).unwrap_or(path);
            let replacement = elements(replacement);
            match (replacement, rest) {
                ("", "") => Cow::Borrowed("/"),
                ("", rest) => Cow::Borrowed(rest),
                (replacement, rest) => Cow::Owned(format!("{replacement}{rest}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use http::{HeaderName, HeaderValue};
    use rand::{SeedableRng, rngs::SmallRng};
    use weft_gateway::{BackendTarget, Filter};

    use super::*;
    use crate::route::exchange::{Head, Memories, request_side};

    #[test]
    fn prefixes_are_replaced_as_the_gateway_api_tabulates() {
        for (path, prefix, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/a", "/", "/x", "/x/a"),
        ] {
            let change = PathChange::Prefix(replacement.to_owned());
            assert_eq!(
                changed_path(path, &change, prefix),
                expected,
                "{path} {prefix} {replacement}"
            );
        }
    }

    #[test]
    fn redirects_name_the_port_only_when_it_is_not_the_usual_one() {
        let to = |redirect: Redirect, uri: &str| {
            let uri: Uri = uri.parse().expect("a URI");
            super::redirect(&redirect, "/old", &uri, None)
        };
        let base = Redirect::default;
        let text = [
            to(
                Redirect {
                    hostname: Some("example.org".to_owned()),
                    ..base()
                },
                "http://a:8080/old/p?q=1",
            ),
            to(
                Redirect {
                    scheme: Some("https".to_owned()),
                    status: Some(StatusCode::MOVED_PERMANENTLY),
                    ..base()
                },
                "http://a:8080/old",
            ),
            to(
                Redirect {
                    port: Some(80),
                    path: Some(PathChange::Prefix("/new".to_owned())),
                    ..base()
                },
                "http://a:8080/old/x",
            ),
            to(
                Redirect {
                    scheme: Some("https".to_owned()),
                    port: Some(8443),
                    path: Some(PathChange::Full("/".to_owned())),
                    ..base()
                },
                "http://a/old/x",
            ),
        ]
        .map(|(status, location)| format!("{} {location}", status.as_u16()))
        .join("\n");
        insta::assert_snapshot!(text, @r"
        302 http://example.org:8080/old/p?q=1
        301 https://a/old
        302 http://a/new/x
        302 https://a:8443/
        ");
    }

    #[test]
    fn a_redirect_names_the_listeners_port_and_not_the_clients_idea_of_it() {
        let to = |client: &str, listener: Option<u16>| {
            let uri: Uri = format!("http://{client}/a").parse().expect("a URI");
            let wanted = Redirect {
                path: Some(PathChange::Full("/b".to_owned())),
                ..Redirect::default()
            };
            super::redirect(&wanted, "/", &uri, listener).1
        };
        for (client, listener, expected) in [
            ("r.test", Some(8080), "http://r.test:8080/b"),
            ("r.test:8080", Some(8080), "http://r.test:8080/b"),
            ("r.test:9", Some(8080), "http://r.test:8080/b"),
            ("r.test:9", Some(80), "http://r.test/b"),
            // The listener's port is not that of any node: whoever asked knows how the node is reached.
            ("r.test:9080", None, "http://r.test:9080/b"),
            ("r.test", None, "http://r.test/b"),
        ] {
            assert_eq!(to(client, listener), expected, "{client} {listener:?}");
        }
    }

    #[test]
    fn filters_change_requests_in_order() {
        let name = HeaderName::from_static;
        let value = HeaderValue::from_static;
        let filters = [
            Filter::RequestHeaders(HeaderChange {
                set: vec![(name("a"), value("set"))],
                add: vec![(name("b"), value("two"))],
                remove: vec![name("c")],
            }),
            Filter::Rewrite(Rewrite {
                hostname: Some("other.example".to_owned()),
                path: Some(PathChange::Prefix("/new".to_owned())),
            }),
        ];
        let mut uri: Uri = "http://host:8080/old/x?q=1".parse().expect("a URI");
        let mut headers: HeaderMap = [("a", "old"), ("b", "one"), ("c", "gone")]
            .into_iter()
            .map(|(n, v)| (name(n), value(v)))
            .collect();
        let apply = |filters: &[Filter], uri: &mut Uri, headers: &mut HeaderMap| {
            let mut head = Head {
                method: &http::Method::GET,
                uri,
                headers,
                prefix: "/old",
                listener_port: None,
            };
            let (mut memories, mut mirrors) = (Memories::new(), Vec::new());
            let mut rng = SmallRng::seed_from_u64(1);
            let passed = request_side(
                filters,
                None,
                &mut head,
                &mut memories,
                &mut mirrors,
                &mut rng,
            );
            passed.map(|flow| flow.is_continue())
        };
        assert_eq!(apply(&filters, &mut uri, &mut headers), Ok(true));
        assert_eq!(uri, "http://other.example/new/x?q=1");
        let lines: Vec<_> = headers
            .iter()
            .map(|(n, v)| format!("{n}: {}", v.to_str().expect("text")))
            .collect();
        assert_eq!(lines, ["a: set", "b: one", "b: two"]);

        let broken = [Filter::Invalid {
            reason: "no such filter".to_owned(),
        }];
        let error = apply(&broken, &mut uri, &mut headers);
        assert_eq!(error, Err("no such filter".to_owned()));
    }

    #[test]
    fn weights_are_shares_and_zero_is_none() {
        let backends = |weights: &[u32]| -> Vec<Backend> {
            weights
                .iter()
                .map(|&weight| Backend {
                    weight,
                    ..Backend::new(BackendTarget::Invalid {
                        reason: weight.to_string(),
                    })
                })
                .collect()
        };
        let mut rng = SmallRng::seed_from_u64(3);
        let set = backends(&[70, 0, 30]);
        let mut hits = HashMap::new();
        for _ in 0..1000 {
            let chosen = choose_backend(&set, &mut rng).expect("a backend");
            *hits.entry(set[chosen].weight).or_insert(0) += 1;
        }
        assert!((650..750).contains(&hits[&70]), "{hits:?}");
        assert_eq!(hits[&70] + hits[&30], 1000);
        for none in [&[][..], &[0], &[0, 0]] {
            assert!(choose_backend(&backends(none), &mut rng).is_none());
        }
    }
}
