//! What the path of a URL names: a kind of the table, an object of it, or what is below one; and what it would name if that were served.
//!
//! Invariants: pure; a path that could be read in two ways, or that leads out of where it begins, names nothing here.

use percent_encoding::percent_decode_str;
use weft_api::name;
use weft_api::selector::FieldSelector;
use weft_api::status::StatusError;
use weft_kinds::{Registry, Served, Subresource};

use super::{Asked, Params, Resource};
use crate::authz::Access;
use crate::http::registry;

/// What a URL names.
pub(super) fn asked_of(
    registry: &Registry,
    path: &str,
    params: &Result<Params, StatusError>,
) -> Asked {
    if registry::serves(path) {
        return Asked::Registry;
    }
    let resource = |path: &str| {
        let segments = segments_of(path)?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        resource_of(registry, &segments)
    };
    let found = proxied_of(path, resource).or_else(|| resource(path));
    match found {
        Some(Asked::Resource(mut one)) if one.name.is_none() => {
            let fields = params
                .as_ref()
                .ok()
                .and_then(|params| params.get("fieldSelector"));
            let fields = fields.and_then(|text| FieldSelector::parse(text).ok());
            one.selected = fields
                .as_ref()
                .and_then(|fields| fields.exact("metadata.name"))
                .map(str::to_owned);
            Asked::Resource(one)
        }
        Some(asked) => asked,
        None => Asked::Path(path.to_owned()),
    }
}

/// A path below a proxy: what follows is left as it came, for whoever is proxied to.
fn proxied_of(path: &str, resource: impl Fn(&str) -> Option<Asked>) -> Option<Asked> {
    const PROXY: &str = "/proxy";
    // Objects may be called so: a name, and what is below it.
    let places = path.match_indices(PROXY).map(|(at, _)| at + PROXY.len());
    for end in places.take(3) {
        let (above, rest) = path.split_at(end);
        if !(rest.is_empty() || rest.starts_with('/')) || leads_out(rest) {
            continue;
        }
        if let Some(Asked::Resource(one)) = resource(above)
            && one.subresource == Some(Subresource::Proxy)
        {
            let rest = rest.strip_prefix('/').unwrap_or(rest).to_owned();
            return Some(Asked::Resource(Resource { rest, ..one }));
        }
    }
    None
}

/// Whether a path has segments that lead out of what is above it.
pub(super) fn leads_out(path: &str) -> bool {
    path.split('/').any(|segment| {
        let text = percent_decode_str(segment).decode_utf8_lossy();
        text.split(['/', '\\'])
            .any(|part| matches!(part, "." | ".."))
    })
}

/// The segments of a path without their percent escapes; `None` when one is not sound.
pub(super) fn segments_of(path: &str) -> Option<Vec<String>> {
    let segment = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().ok()?.into_owned();
        let sound = !text.is_empty()
            && name::path_segment(&text).is_ok()
            && !text.bytes().any(|byte| byte.is_ascii_control());
        sound.then_some(text)
    };
    path.trim_matches('/').split('/').map(segment).collect()
}

/// What a path of the first kind of watches names, which Kubernetes still serves: `/api/v1/watch/…` before a collection or an object.
pub(super) fn watched_of(registry: &Registry, path: &str) -> Option<Resource> {
    let segments = segments_of(path)?;
    let mut segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let place = match *segments.first()? {
        "api" => 2,
        "apis" => 3,
        _ => return None,
    };
    if segments.get(place) != Some(&"watch") {
        return None;
    }
    segments.remove(place);
    match resource_of(registry, &segments)? {
        Asked::Resource(one) if one.subresource.is_none() => Some(one),
        _ => None,
    }
}

fn resource_of(registry: &Registry, segments: &[&str]) -> Option<Asked> {
    let (group, version, rest) = match segments {
        ["api", "v1", rest @ ..] => ("", "v1", rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        // `namespaces/NS/status` is about the namespace itself.
        ["namespaces", namespace, resource, rest @ ..]
            if !group.is_empty() || !matches!(*resource, "status" | "finalize") =>
        {
            (Some((*namespace).to_owned()), [&[*resource], rest].concat())
        }
        rest => (None, rest.to_vec()),
    };
    let (resource, rest) = rest.split_first()?;
    if group.is_empty() && *resource == "bindings" {
        let namespace = namespace.filter(|_| rest.is_empty())?;
        return Some(Asked::Bindings { namespace });
    }
    let kind = registry.by_resource(group, version, resource)?;
    match kind.served {
        Served::Stored => {}
        Served::Review => {
            let asks = rest.is_empty() && namespace.is_some() == kind.namespaced;
            return asks.then(|| Asked::Review {
                kind: kind.clone(),
                namespace,
            });
        }
        Served::Computed => {
            let name = match rest {
                [] => None,
                [name] => Some((*name).to_owned()),
                _ => return None,
            };
            check_scope(kind.namespaced, namespace.is_some(), name.is_some())?;
            return Some(Asked::Computed {
                kind: kind.clone(),
                namespace,
                name,
                metric: None,
            });
        }
        Served::Watched | Served::Streamed => {
            check_scope(kind.namespaced, namespace.is_some(), !rest.is_empty())?;
            return rest.is_empty().then(|| Asked::Computed {
                kind: kind.clone(),
                namespace,
                name: None,
                metric: None,
            });
        }
        Served::Measured => {
            let [name, metric] = rest else {
                return None;
            };
            check_scope(kind.namespaced, namespace.is_some(), true)?;
            return Some(Asked::Computed {
                kind: kind.clone(),
                namespace,
                name: Some((*name).to_owned()),
                metric: Some((*metric).to_owned()),
            });
        }
    }
    check_scope(kind.namespaced, namespace.is_some(), !rest.is_empty())?;
    let (name, subresource, rest) = match rest {
        [] => (None, None, String::new()),
        [name] => (Some((*name).to_owned()), None, String::new()),
        [name, below, rest @ ..] => {
            let subresource = *kind
                .subresources
                .iter()
                .find(|subresource| subresource.name() == *below)?;
            if !rest.is_empty() && subresource != Subresource::Proxy {
                return None;
            }
            (Some((*name).to_owned()), Some(subresource), rest.join("/"))
        }
    };
    Some(Asked::Resource(Resource {
        kind: kind.clone(),
        namespace,
        name,
        subresource,
        rest,
        selected: None,
    }))
}

/// A kind without namespaces is in none; one with them has its objects in one, and its lists in one or all.
fn check_scope(namespaced: bool, in_namespace: bool, named: bool) -> Option<()> {
    let fits = if namespaced {
        in_namespace || !named
    } else {
        !in_namespace
    };
    fits.then_some(())
}

/// What a URL would ask of a kind that is not served: who may ask that is told that it is not there, and nobody else.
pub(super) fn unserved<'a>(path: &'a str, method: &str) -> Option<Access<'a>> {
    let mut parts = path.strip_prefix('/')?.split('/').collect::<Vec<_>>();
    if parts.contains(&"") {
        return None;
    }
    let (group, version_at) = match parts.first() {
        Some(&"api") => ("", 1),
        Some(&"apis") => (*parts.get(1)?, 2),
        _ => return None,
    };
    if parts.len() <= version_at + 1 {
        return None;
    }
    parts.drain(..=version_at);
    let mut namespace = None;
    if parts[0] == "namespaces" && parts.len() > 1 {
        namespace = Some(parts[1]);
        if parts.len() > 2 {
            parts.drain(..2);
        }
    }
    let name = parts.get(1).copied();
    let verb = match (method, name) {
        ("post", _) => "create",
        ("get" | "head", Some(_)) => "get",
        ("get" | "head", None) => "list",
        ("put", _) => "update",
        ("patch", _) => "patch",
        ("delete", Some(_)) => "delete",
        ("delete", None) => "deletecollection",
        _ => return None,
    };
    Some(Access {
        verb,
        group,
        resource: parts[0],
        subresource: parts.get(2).copied(),
        namespace,
        name,
    })
}
