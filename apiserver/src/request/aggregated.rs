//! What is asked of another server: enough of it to decide whether that is allowed, named as it is named everywhere. After Kubernetes'
//! `RequestInfoFactory`.
//!
//! Invariant: what is judged here and what that server reads are the same: a path that could be read in two ways, or that leads out of where it begins,
//! is none. Left to others: who serves what (`crate::aggregation`).

use std::sync::Arc;

use http::{Method, Uri};
use weft_api::selector::FieldSelector;

use super::path::{leads_out, segments_of};
use super::{Asked, Params, RequestInfo, method_word};
use crate::aggregation::{ApiService, Registered};

/// A path that another server serves.
#[derive(Clone, Debug)]
pub struct Aggregated {
    pub service: Arc<ApiService>,
    pub path: String,
    /// None of the path of its version, which is asked for discovery.
    pub resource: Option<AggregatedResource>,
}

/// What such a path names, as far as it is named alike everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregatedResource {
    pub resource: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

impl RequestInfo {
    /// What is asked of another server; none where none serves the path, or the path is not sound: what is judged here and what is read there
    /// have to be the same.
    pub fn of_aggregated(services: &Registered, method: &Method, uri: &Uri) -> Option<Self> {
        let path = uri.path();
        let service = services.serving(path)?;
        let below = match path.strip_prefix(&service.root()) {
            Some(below) => {
                let below = below.strip_prefix('/').unwrap_or(below);
                below.strip_suffix('/').unwrap_or(below)
            }
            None if path.trim_end_matches('/') == "/api" => "",
            None => return None,
        };
        let params = Params::of(uri.query().unwrap_or(""));
        let (old_verb, mut resource) = match below {
            "" => (None, None),
            below => {
                let (verb, resource) = aggregated_of(below)?;
                (verb, Some(resource))
            }
        };
        let verb = match (&mut resource, old_verb) {
            (None, _) => method_word(method),
            (Some(_), Some(verb)) => verb,
            (Some(one), None) => aggregated_verb(method, one, &params),
        };
        Some(Self {
            verb,
            asked: Asked::Aggregated(Aggregated {
                service: Arc::clone(service),
                path: path.to_owned(),
                resource,
            }),
            params: Ok(params),
        })
    }
}

/// What a path below a version's names, and the verb that the oldest paths begin with. After Kubernetes' `RequestInfoFactory`.
fn aggregated_of(below: &str) -> Option<(Option<&'static str>, AggregatedResource)> {
    /// The segments that mean something: of a watch of the first kind, one more.
    const NAMED_MAX: usize = 6;
    let all: Vec<&str> = below.split('/').collect();
    // What lies behind a subresource is its own; it may not lead out of there again.
    // Nor may there be nothing where something is named.
    let mut named = all.iter().take(NAMED_MAX);
    if leads_out(below) || named.any(|segment| segment.is_empty()) {
        return None;
    }
    let named = all.get(..NAMED_MAX).unwrap_or(&all).join("/");
    let segments = segments_of(&named)?;
    let mut rest: Vec<&str> = segments.iter().map(String::as_str).collect();
    let verb = match rest.first() {
        Some(&"watch") if rest.len() > 1 => Some("watch"),
        Some(&"proxy") if rest.len() > 1 => Some("proxy"),
        _ => None,
    };
    if verb.is_some() {
        rest.remove(0);
    }
    let mut namespace = None;
    if let ["namespaces", name, below @ ..] = rest.as_slice() {
        namespace = Some((*name).to_owned());
        if below
            .first()
            .is_some_and(|below| !matches!(*below, "status" | "finalize"))
        {
            rest.drain(..2);
        }
    }
    let part = |place: usize| rest.get(place).map(|part| (*part).to_owned());
    let resource = AggregatedResource {
        resource: part(0)?,
        namespace,
        name: part(1),
        subresource: part(2),
    };
    Some((verb, resource))
}

fn aggregated_verb(method: &Method, one: &mut AggregatedResource, params: &Params) -> &'static str {
    let verb = match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => method_word(method),
    };
    if one.name.is_some() {
        return verb;
    }
    match verb {
        "get" => {
            let fields = params.get("fieldSelector");
            let fields = fields.and_then(|text| FieldSelector::parse(text).ok());
            let exact = fields.as_ref();
            let exact = exact.and_then(|fields| fields.exact("metadata.name"));
            one.name = exact.map(str::to_owned);
            match params.flag("watch") {
                Some(true) => "watch",
                _ => "list",
            }
        }
        "delete" => "deletecollection",
        verb => verb,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregation::tests::registered;

    #[test]
    fn what_is_asked_of_others_is_judged_by_what_it_names() {
        let registered = registered();
        const ROOT: &str = "/apis/wardle.example.com/v1";
        for (line, expected) in [
            ("GET ", "get"),
            ("GET /", "get"),
            ("POST ", "post"),
            ("GET /flunders", "list - flunders"),
            ("HEAD /namespaces/n/flunders", "list n flunders"),
            ("GET /namespaces/n/flunders?watch=1", "watch n flunders"),
            (
                "GET /flunders?fieldSelector=metadata.name%3Df",
                "list - flunders f",
            ),
            ("GET /watch/namespaces/n/flunders/f", "watch n flunders f"),
            ("POST /namespaces/n/flunders", "create n flunders"),
            ("PUT /namespaces/n/flunders/f", "update n flunders f"),
            (
                "PATCH /namespaces/n/flunders/f/status",
                "patch n flunders f status",
            ),
            (
                "DELETE /namespaces/n/flunders",
                "deletecollection n flunders",
            ),
            ("DELETE /namespaces/n", "delete n namespaces n"),
            ("GET /namespaces/n/status", "get n namespaces n status"),
            ("GET /namespaces", "list - namespaces"),
            (
                "GET /namespaces/n/flunders/f/proxy/a/b%2Fc/",
                "get n flunders f proxy",
            ),
            // Neither sound nor anybody's.
            ("GET //flunders", "-"),
            ("GET /namespaces//flunders", "-"),
            ("GET /namespaces/n/flunders/%2e%2e", "-"),
            ("GET /namespaces/n%2Fflunders", "-"),
            ("GET /namespaces/n/flunders/f/proxy/..", "-"),
        ] {
            let (method, path) = line.split_once(' ').unwrap();
            let (method, uri) = (method.parse().unwrap(), format!("{ROOT}{path}"));
            let found = RequestInfo::of_aggregated(&registered, &method, &uri.parse().unwrap());
            let told = match &found {
                None => "-".to_owned(),
                Some(info) => match info.access() {
                    None => info.verb.to_owned(),
                    Some(access) => {
                        assert_eq!(access.group, "wardle.example.com");
                        let parts = [access.name, access.subresource];
                        let namespace = access.namespace.unwrap_or("-");
                        let mut parts: Vec<&str> = parts.into_iter().flatten().collect();
                        parts.splice(0..0, [access.verb, namespace, access.resource]);
                        parts.join(" ")
                    }
                },
            };
            assert_eq!(told, expected, "{line}");
        }
        for path in [
            "//apis/wardle.example.com/v1/flunders",
            "/apis//wardle.example.com/v1",
        ] {
            let uri = path.parse().unwrap();
            let found = RequestInfo::of_aggregated(&registered, &Method::GET, &uri);
            assert!(found.is_none(), "{path}");
        }
    }
}
