//! CORS, as the Fetch standard has it: what is said to pages of other origins. Pure.
//!
//! A preflight is answered here, with 204, whatever the backend would say; an origin that is not allowed hears nothing about itself, and
//! its browser refuses. With credentials nothing is answered with `*`: what was asked for is said instead.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use weft_gateway::{Allowed, Cors, Origin};

use crate::Body;

/// What CORS makes of a request.
pub(super) enum Asked {
    /// Nothing: it is of this origin, or of one that is not allowed.
    Nothing,
    /// The response is for pages of this origin.
    Of(HeaderValue),
    /// A preflight, answered.
    Preflight(Response<Body>),
}

pub(super) fn asked(cors: &Cors, method: &Method, lines: &HeaderMap) -> Asked {
    let Some(origin) = lines.get(header::ORIGIN) else {
        return Asked::Nothing;
    };
    let is_allowed = allows(&cors.origins, origin);
    let wanted = lines.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    if *method != Method::OPTIONS || wanted.is_none() {
        return match is_allowed {
            true => Asked::Of(origin.clone()),
            false => Asked::Nothing,
        };
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let told = response.headers_mut();
    told.append(header::VARY, HeaderValue::from_name(header::ORIGIN));
    if is_allowed {
        tell(cors, origin, told);
        let headers = lines.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let mut may = |name: HeaderName, allowed: &Allowed, asked: Option<&HeaderValue>| {
            if let Some(value) = said(allowed, asked, cors.credentials) {
                told.insert(name, value);
            }
        };
        may(header::ACCESS_CONTROL_ALLOW_METHODS, &cors.methods, wanted);
        may(header::ACCESS_CONTROL_ALLOW_HEADERS, &cors.headers, headers);
        let seconds = HeaderValue::from(cors.max_age_seconds);
        told.insert(header::ACCESS_CONTROL_MAX_AGE, seconds);
    }
    Asked::Preflight(response)
}

/// What every response to an allowed origin says.
pub(super) fn tell(cors: &Cors, origin: &HeaderValue, lines: &mut HeaderMap) {
    lines.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    match cors.credentials {
        true => {
            let yes = HeaderValue::from_static("true");
            lines.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        false => {
            lines.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
        }
    }
    if let Some(exposed) = &cors.exposed {
        lines.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
    }
}

/// A list of what is allowed. `*` stands for nothing where there are credentials.
fn said(allowed: &Allowed, asked: Option<&HeaderValue>, credentials: bool) -> Option<HeaderValue> {
    match (allowed, credentials) {
        (Allowed::Listed(list), _) => list.clone(),
        (Allowed::All, true) => asked.cloned(),
        (Allowed::All, false) => Some(HeaderValue::from_static("*")),
    }
}

fn allows(origins: &[Origin], origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    // Scheme and host are the same in any case (RFC 6454 §4).
    let origin = origin.to_ascii_lowercase();
    origins.iter().any(|allowed| match allowed {
        Origin::Any => true,
        Origin::Exact(exact) => *exact == origin,
        Origin::Wildcard(before, after) => {
            let inner = origin.strip_prefix(before.as_str());
            let inner = inner.and_then(|rest| rest.strip_suffix(after.as_str()));
            // Of the host alone: neither another scheme nor a port is what `*` stands for.
            inner.is_some_and(|inner| !inner.is_empty() && !inner.contains(['/', ':']))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: Vec<Origin>, all: bool, credentials: bool) -> Cors {
        let listed = |text| match all {
            true => Allowed::All,
            false => Allowed::Listed(Some(HeaderValue::from_static(text))),
        };
        Cors {
            origins,
            credentials,
            methods: listed("GET, OPTIONS"),
            headers: listed("x-1"),
            exposed: None,
            max_age_seconds: 5,
        }
    }

    fn told(cors: &Cors, method: &Method, lines: &[(&str, &str)]) -> String {
        let lines: HeaderMap = lines
            .iter()
            .map(|(name, value)| {
                let name: HeaderName = name.parse().expect("a name");
                (name, value.parse::<HeaderValue>().expect("a value"))
            })
            .collect();
        match asked(cors, method, &lines) {
            Asked::Nothing => "nothing".to_owned(),
            Asked::Of(origin) => format!("of {}", origin.to_str().expect("text")),
            Asked::Preflight(response) => {
                let lines = response.headers().iter();
                let lines = lines.map(|(name, value)| {
                    let name = name.as_str().trim_start_matches("access-control-");
                    format!("{name}={}", value.to_str().expect("text"))
                });
                lines.collect::<Vec<_>>().join(" ")
            }
        }
    }

    #[test]
    fn a_preflight_hears_what_is_allowed_and_others_nothing() {
        let wildcard = Origin::Wildcard("https://".to_owned(), ".bar.com".to_owned());
        let some = vec![Origin::Exact("https://www.foo.com".to_owned()), wildcard];
        let preflight = |origin| {
            [
                ("origin", origin),
                ("access-control-request-method", "PUT"),
                ("access-control-request-headers", "x-1, x-2"),
            ]
        };
        let listed = cors(some.clone(), false, true);
        let open = cors(vec![Origin::Any], true, false);
        let all = cors(vec![Origin::Any], true, true);
        let options = &Method::OPTIONS;
        let text = [
            told(&listed, options, &preflight("https://www.foo.com")),
            told(&listed, options, &preflight("https://a.b.bar.com")),
            told(&listed, options, &preflight("https://bar.com")),
            told(&listed, options, &preflight("https://a.com:1.bar.com")),
            told(&open, options, &preflight("https://any.com:1")),
            told(&all, options, &preflight("https://any.com")),
            told(&all, options, &[("origin", "https://any.com")]),
            told(&listed, &Method::GET, &preflight("https://other.com")),
            told(&listed, &Method::GET, &[]),
        ];
        insta::assert_snapshot!(text.join("\n"), @r"
        vary=origin allow-origin=https://www.foo.com allow-credentials=true allow-methods=GET, OPTIONS allow-headers=x-1 max-age=5
        vary=origin allow-origin=https://a.b.bar.com allow-credentials=true allow-methods=GET, OPTIONS allow-headers=x-1 max-age=5
        vary=origin
        vary=origin
        vary=origin allow-origin=https://any.com:1 allow-methods=* allow-headers=* max-age=5
        vary=origin allow-origin=https://any.com allow-credentials=true allow-methods=PUT allow-headers=x-1, x-2 max-age=5
        of https://any.com
        nothing
        nothing
        ");
    }
}
