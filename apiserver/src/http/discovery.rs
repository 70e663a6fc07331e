//! What this server serves, told in the two ways clients ask: a request for each group, or all at once.
//!
//! Everything comes from the registry of kinds. Left to others: schemas (`super::openapi`).

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};
use weft_api::status::StatusError;
use weft_kinds::{Kind, Registry};

use super::negotiate::{self, Form};

/// What `/version` says: the Kubernetes release whose API this is, and weft's own as build metadata, because
/// charts compare it and would take anything behind a `-` for a pre-release.
pub const GIT_VERSION: &str = concat!("v1.37.0+weft.", env!("CARGO_PKG_VERSION"));

pub fn version() -> Value {
    json!({
        "major": "1",
        "minor": "37",
        "emulationMajor": "1",
        "emulationMinor": "37",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// The processor in Go's words, which clients expect.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Answers a discovery path, or `None` for a path that is none.
///
/// # Errors
/// 404 for groups that are not served, 406.
pub fn answer(
    registry: &Registry,
    path: &str,
    headers: &HeaderMap,
) -> Option<Result<Response, StatusError>> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        [""] => Some(Ok(json_response(&paths(registry)))),
        ["api"] => Some(root(registry, headers, true)),
        ["apis"] => Some(root(registry, headers, false)),
        ["api", "v1"] => Some(Ok(json_response(&resource_list(registry, "", "v1")))),
        ["apis", group] => Some(found(group_entry(registry, group))),
        ["apis", group, version] => {
            let served = registry.of_version(group, version).next().is_some();
            Some(found(
                served.then(|| resource_list(registry, group, version)),
            ))
        }
        _ => None,
    }
}

/// What there is to ask for at all.
fn paths(registry: &Registry) -> Value {
    let mut paths: Vec<String> = registry
        .groups()
        .iter()
        .flat_map(|(group, versions)| {
            let versions = versions.iter();
            let versions = versions.map(move |version| format!("/apis/{group}/{version}"));
            [format!("/apis/{group}")].into_iter().chain(versions)
        })
        .collect();
    let others =
        "/api /api/v1 /apis /healthz /livez /metrics /openapi/v2 /openapi/v3 /readyz /version";
    paths.extend(others.split(' ').map(str::to_owned));
    paths.sort();
    json!({"paths": paths})
}

fn found(value: Option<Value>) -> Result<Response, StatusError> {
    value
        .map(|value| json_response(&value))
        .ok_or_else(StatusError::unknown_path)
}

fn json_response(value: &Value) -> Response {
    typed_response(value, HeaderValue::from_static("application/json"))
}

fn typed_response(value: &Value, content_type: HeaderValue) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn root(registry: &Registry, headers: &HeaderMap, core: bool) -> Result<Response, StatusError> {
    match negotiate::form(headers)? {
        Form::Discovery(version) => {
            // client-go tells the formats apart by exactly this Content-Type.
            let content_type = if version == "v2" {
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            } else {
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
            };
            Ok(typed_response(
                &aggregated(registry, core, version),
                HeaderValue::from_static(content_type),
            ))
        }
        Form::Whole | Form::Table(_) | Form::Metadata | Form::MetadataList => {
            let value = if core {
                json!({
                    "kind": "APIVersions",
                    "versions": ["v1"],
                    "serverAddressByClientCIDRs": [
                        {"clientCIDR": "0.0.0.0/0", "serverAddress": ""},
                    ],
                })
            } else {
                let groups: Vec<Value> = registry
                    .groups()
                    .iter()
                    .map(|(group, versions)| api_group(group, versions))
                    .collect();
                json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
            };
            Ok(json_response(&value))
        }
    }
}

fn api_group(group: &str, versions: &[&str]) -> Value {
    let entry =
        |version: &&str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    json!({
        "name": group,
        "versions": versions.iter().map(entry).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(entry),
    })
}

fn group_entry(registry: &Registry, group: &str) -> Option<Value> {
    let groups = registry.groups();
    let (name, versions) = groups.iter().find(|(name, _)| *name == group)?;
    let mut entry = api_group(name, versions);
    entry["kind"] = "APIGroup".into();
    entry["apiVersion"] = "v1".into();
    Some(entry)
}

fn resource_list(registry: &Registry, group: &str, version: &str) -> Value {
    let mut resources = Vec::new();
    for kind in registry.of_version(group, version) {
        let mut entry = json!({
            "name": kind.resource,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": kind.verbs(),
        });
        if !kind.short_names.is_empty() {
            entry["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = json!(kind.categories);
        }
        resources.push(entry);
        for subresource in &kind.subresources {
            let mut entry = json!({
                "name": format!("{}/{}", kind.resource, subresource.name()),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": kind.kind,
                "verbs": subresource.verbs(),
            });
            if let Some((group, version, kind)) = subresource.own_kind() {
                entry["group"] = group.into();
                entry["version"] = version.into();
                entry["kind"] = kind.into();
            }
            resources.push(entry);
        }
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    })
}

fn aggregated(registry: &Registry, core: bool, version: &str) -> Value {
    let items: Vec<Value> = if core {
        vec![aggregated_group(registry, "", &["v1"])]
    } else {
        registry
            .groups()
            .iter()
            .map(|(group, versions)| aggregated_group(registry, group, versions))
            .collect()
    };
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    })
}

fn aggregated_group(registry: &Registry, group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let kinds = registry.of_version(group, version);
            let resources: Vec<Value> = kinds.map(|kind| aggregated_resource(kind)).collect();
            json!({"version": version, "freshness": "Current", "resources": resources})
        })
        .collect();
    json!({
        "metadata": {"name": group, "creationTimestamp": null},
        "versions": versions,
    })
}

fn response_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn aggregated_resource(kind: &Kind) -> Value {
    let mut entry = json!({
        "resource": kind.resource,
        "responseKind": response_kind(&kind.group, &kind.version, &kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs(),
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|subresource| {
            let (group, version, name) =
                subresource
                    .own_kind()
                    .unwrap_or((&kind.group, &kind.version, &kind.kind));
            json!({
                "subresource": subresource.name(),
                "responseKind": response_kind(group, version, name),
                "verbs": subresource.verbs(),
            })
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}
