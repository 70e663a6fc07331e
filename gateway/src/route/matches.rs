//! Conditions of rules, from how they are written to values. Pure.

use http::{HeaderName, Method};

use crate::api::{GrpcMethodMatch, GrpcRouteMatch, HttpRouteMatch, NamedMatch};
use crate::rule::{Match, PathMatch, Pattern};

const EXACT: &str = "Exact";
const PATTERN: &str = "RegularExpression";

/// # Errors
/// Half a sentence with what is not supported.
pub(super) fn http(one: &HttpRouteMatch) -> Result<Match, String> {
    let path = one.path.clone().unwrap_or_default();
    let value = path.value.unwrap_or_else(|| "/".to_owned());
    let path = match path.kind.as_deref().unwrap_or("PathPrefix") {
        EXACT => PathMatch::Exact(value),
        "PathPrefix" => PathMatch::Prefix(value),
        PATTERN => PathMatch::Pattern(Pattern::new(&value)?),
        other => return Err(format!("a path match of type {other} is not supported")),
    };
    let mut matches = Match {
        path,
        ..Match::default()
    };
    with_headers(&mut matches, &one.headers)?;
    for entry in &one.query_params {
        let is_known = |known: &String| *known == entry.name;
        // Of entries with one name the first counts.
        if matches.query.iter().any(|(known, _)| is_known(known))
            || matches
                .query_patterns
                .iter()
                .any(|(known, _)| is_known(known))
        {
            continue;
        }
        let name = entry.name.clone();
        match entry.kind.as_deref().unwrap_or(EXACT) {
            EXACT => matches.query.push((name, entry.value.clone())),
            PATTERN => matches
                .query_patterns
                .push((name, Pattern::new(&entry.value)?)),
            other => {
                return Err(format!(
                    "a query parameter match of type {other} is not supported"
                ));
            }
        }
    }
    let method = one.method.as_ref().map(|method| {
        let parsed = method.parse::<Method>();
        parsed.map_err(|_| format!("{method:?} is no method"))
    });
    matches.method = method.transpose()?;
    Ok(matches)
}

/// # Errors
/// As [`http`].
pub(super) fn grpc(one: &GrpcRouteMatch) -> Result<Match, String> {
    let path = match &one.method {
        None => PathMatch::default(),
        Some(method) => called(method)?,
    };
    let mut matches = Match {
        path,
        ..Match::default()
    };
    with_headers(&mut matches, &one.headers)?;
    Ok(matches)
}

/// A method is `/service/method` on the wire.
fn called(wanted: &GrpcMethodMatch) -> Result<PathMatch, String> {
    let (service, method) = (wanted.service.as_deref(), wanted.method.as_deref());
    match wanted.kind.as_deref().unwrap_or(EXACT) {
        EXACT => Ok(match (service, method) {
            (Some(service), Some(method)) => PathMatch::Exact(format!("/{service}/{method}")),
            (Some(service), None) => PathMatch::Prefix(format!("/{service}")),
            (None, Some(method)) => PathMatch::Method(method.to_owned()),
            (None, None) => PathMatch::default(),
        }),
        PATTERN => {
            let (service, method) = (service.unwrap_or("[^/]+"), method.unwrap_or("[^/]+"));
            let path = format!("/(?:{service})/(?:{method})");
            Ok(PathMatch::Pattern(Pattern::new(&path)?))
        }
        other => Err(format!("a method match of type {other} is not supported")),
    }
}

fn with_headers(matches: &mut Match, wanted: &[NamedMatch]) -> Result<(), String> {
    for entry in wanted {
        let name = header_name(&entry.name)?;
        if matches.headers.iter().any(|(known, _)| *known == name)
            || matches
                .header_patterns
                .iter()
                .any(|(known, _)| *known == name)
        {
            continue;
        }
        match entry.kind.as_deref().unwrap_or(EXACT) {
            EXACT => matches.headers.push((name, entry.value.clone())),
            PATTERN => matches
                .header_patterns
                .push((name, Pattern::new(&entry.value)?)),
            other => return Err(format!("a header match of type {other} is not supported")),
        }
    }
    Ok(())
}

pub(super) fn header_name(name: &str) -> Result<HeaderName, String> {
    name.parse()
        .map_err(|_| format!("{name:?} is no header name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_of_grpc_is_a_path() {
        let path = |kind: Option<&str>, service: Option<&str>, method: Option<&str>| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            let method = GrpcMethodMatch {
                kind: owned(kind),
                service: owned(service),
                method: owned(method),
            };
            let found = grpc(&GrpcRouteMatch {
                method: Some(method),
                headers: Vec::new(),
            });
            found.map(|found| match found.path {
                PathMatch::Pattern(pattern) => format!("like {}", pattern.as_str()),
                path => format!("{path:?}"),
            })
        };
        for (kind, service, method, expected) in [
            (None, Some("a.B"), Some("C"), Ok(r#"Exact("/a.B/C")"#)),
            (Some("Exact"), Some("a.B"), None, Ok(r#"Prefix("/a.B")"#)),
            (None, None, Some("C"), Ok(r#"Method("C")"#)),
            (None, None, None, Ok(r#"Prefix("")"#)),
            (
                Some("RegularExpression"),
                Some("a.*"),
                None,
                Ok("like /(?:a.*)/(?:[^/]+)"),
            ),
            (
                Some("Suffix"),
                None,
                None,
                Err("a method match of type Suffix is not supported"),
            ),
            (
                Some("RegularExpression"),
                Some("("),
                None,
                Err(r#""/(?:()/(?:[^/]+)" is no regular expression"#),
            ),
        ] {
            let found = path(kind, service, method);
            let found = found.as_deref().map_err(|error| error.as_str());
            assert_eq!(found, expected);
        }
    }
}
