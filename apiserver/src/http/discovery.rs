//! What this server serves, told in the two ways clients ask: a request for each group, or all at once.
//!
//! What this server serves comes from the registry of kinds, what others serve from what they told (`crate::aggregation`), and the order of groups
//! and versions from their APIServices. Left to others: schemas (`super::openapi`).

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};
use weft_api::status::StatusError;
use weft_kinds::apiregistration::{self, Priority, Version, in_order};
use weft_kinds::autoscaling::calls::CallMetric;
use weft_kinds::{Kind, Registry};

use super::negotiate::{self, Form};
use crate::aggregation::{ApiService, Documents, Registered};

/// What numbers of a metric come as.
const VALUES: &str = "MetricValueList";

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

/// What is served: by this server, and by those whom it passes requests on to.
pub(super) struct Served<'a> {
    pub registry: &'a Registry,
    pub registered: &'a Registered,
    pub documents: &'a Documents,
}

/// Who serves a version.
enum By<'a> {
    /// This server.
    Own,
    Other(&'a ApiService),
    /// Nobody: somebody said that this server does.
    Nobody,
}

/// Answers a discovery path, or `None` for a path that is none.
///
/// # Errors
/// 404 for groups that are not served, 406.
pub(super) fn answer(
    served: &Served<'_>,
    path: &str,
    headers: &HeaderMap,
) -> Option<Result<Response, StatusError>> {
    let registry = served.registry;
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        [""] => Some(Ok(json_response(&served.paths()))),
        ["api"] => Some(served.root(headers, true)),
        ["apis"] => Some(served.root(headers, false)),
        ["api", "v1"] => Some(Ok(json_response(&resource_list(registry, "", "v1")))),
        ["apis", group] => Some(found(served.group_entry(group))),
        ["apis", group, version] => {
            let own = registry.of_version(group, version).next().is_some();
            Some(found(own.then(|| resource_list(registry, group, version))))
        }
        _ => None,
    }
}

impl Served<'_> {
    /// All groups but the oldest, in the order that their APIServices ask for.
    fn groups(&self) -> Vec<(String, Vec<Version<By<'_>>>)> {
        let mut all = Vec::new();
        let mut add = |group: &str, version: &str, priority: Priority, what| {
            let (group, version) = (group.to_owned(), version.to_owned());
            all.push(Version {
                group,
                version,
                priority,
                what,
            });
        };
        for (group, versions) in self.registry.groups() {
            for version in versions {
                // The group that tells of all others is nobody else's.
                let said = self.registered.of(group, version);
                let said = said.filter(|_| group != apiregistration::GROUP);
                match said {
                    Some(service) if service.service.is_some() => {
                        add(group, version, service.priority, By::Other(service));
                    }
                    Some(service) => add(group, version, service.priority, By::Own),
                    None => add(group, version, Priority::own(group, version), By::Own),
                }
            }
        }
        for service in self.registered.all() {
            let ApiService { group, version, .. } = &**service;
            let own = self.registry.of_version(group, version).next().is_some();
            if own || group.is_empty() || group == apiregistration::GROUP {
                continue;
            }
            let by = match &service.service {
                Some(_) => By::Other(service),
                None => By::Nobody,
            };
            add(group, version, service.priority, by);
        }
        in_order(all)
    }

    /// What there is to ask for at all.
    fn paths(&self) -> Value {
        let groups = self.groups().into_iter();
        let mut paths: Vec<String> = groups
            .flat_map(|(group, versions)| {
                let versions = versions.into_iter();
                let versions =
                    versions.map(|version| format!("/apis/{}/{}", version.group, version.version));
                [format!("/apis/{group}")].into_iter().chain(versions)
            })
            .collect();
        let others =
            "/api /api/v1 /apis /healthz /livez /metrics /openapi/v2 /openapi/v3 /readyz /version";
        paths.extend(others.split(' ').map(str::to_owned));
        paths.sort();
        json!({"paths": paths})
    }

    fn root(&self, headers: &HeaderMap, core: bool) -> Result<Response, StatusError> {
        match negotiate::form(headers)? {
            Form::Discovery(version) => {
                // client-go tells the formats apart by exactly this Content-Type.
                let content_type = if version == "v2" {
                    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
                } else {
                    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
                };
                Ok(typed_response(
                    &self.aggregated(core, version),
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
                    let groups = self.groups();
                    let groups = groups.iter();
                    let groups = groups.map(|(group, versions)| api_group(group, versions));
                    let groups: Vec<Value> = groups.collect();
                    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
                };
                Ok(json_response(&value))
            }
        }
    }

    fn group_entry(&self, group: &str) -> Option<Value> {
        let groups = self.groups();
        let (name, versions) = groups.iter().find(|(name, _)| name == group)?;
        let mut entry = api_group(name, versions);
        entry["kind"] = "APIGroup".into();
        entry["apiVersion"] = "v1".into();
        Some(entry)
    }

    fn aggregated(&self, core: bool, version: &str) -> Value {
        let items: Vec<Value> = if core {
            let own = own_version(self.registry, "", "v1");
            vec![aggregated_group("", vec![own])]
        } else {
            let groups = self.groups().into_iter();
            let groups = groups.filter_map(|(group, versions)| {
                let versions = versions.iter().filter_map(|one| match one.what {
                    By::Own => Some(own_version(self.registry, &one.group, &one.version)),
                    By::Other(service) => Some(self.documents.discovery(service)),
                    By::Nobody => None,
                });
                let versions: Vec<Value> = versions.collect();
                (!versions.is_empty()).then(|| aggregated_group(&group, versions))
            });
            groups.collect()
        };
        json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": format!("apidiscovery.k8s.io/{version}"),
            "metadata": {},
            "items": items,
        })
    }
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

fn api_group(group: &str, versions: &[Version<By<'_>>]) -> Value {
    let entry = |one: &Version<By<'_>>| json!({"groupVersion": format!("{group}/{}", one.version), "version": one.version});
    json!({
        "name": group,
        "versions": versions.iter().map(entry).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(entry),
    })
}

fn resource_list(registry: &Registry, group: &str, version: &str) -> Value {
    let mut resources = Vec::new();
    for kind in registry.of_version(group, version) {
        if kind.served == weft_kinds::Served::Measured {
            let metrics = CallMetric::ALL.iter();
            resources.extend(metrics.map(|metric| {
                json!({
                    "name": format!("{}/{}", kind.resource, metric.name()),
                    "singularName": "",
                    "namespaced": kind.namespaced,
                    "kind": VALUES,
                    "verbs": kind.verbs(),
                })
            }));
            continue;
        }
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
            if let Some(own) = kind.exchanged(*subresource) {
                entry["group"] = own.group.into();
                entry["version"] = own.version.into();
                entry["kind"] = own.kind.into();
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

fn aggregated_group(group: &str, versions: Vec<Value>) -> Value {
    json!({
        "metadata": {"name": group, "creationTimestamp": null},
        "versions": versions,
    })
}

fn own_version(registry: &Registry, group: &str, version: &str) -> Value {
    let kinds = registry.of_version(group, version);
    let resources: Vec<Value> = kinds.map(|kind| aggregated_resource(kind)).collect();
    json!({"version": version, "freshness": "Current", "resources": resources})
}

fn response_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// As Kubernetes makes it of what an adapter for metrics lists: a resource that is nothing but what is below it.
fn measured_resource(kind: &Kind) -> Value {
    let metrics = CallMetric::ALL.iter().map(|metric| {
        json!({
            "subresource": metric.name(),
            "responseKind": response_kind("", "", VALUES),
            "verbs": kind.verbs(),
        })
    });
    json!({
        "resource": kind.resource,
        "responseKind": response_kind("", "", ""),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": "",
        // Null at upstream, whose clients are written in Go; others ask for a list.
        "verbs": [],
        "subresources": metrics.collect::<Vec<_>>(),
    })
}

fn aggregated_resource(kind: &Kind) -> Value {
    if kind.served == weft_kinds::Served::Measured {
        return measured_resource(kind);
    }
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
            let own = kind.exchanged(*subresource);
            let own = own.unwrap_or_else(|| kind.gvk());
            json!({
                "subresource": subresource.name(),
                "responseKind": response_kind(&own.group, &own.version, &own.kind),
                "verbs": subresource.verbs(),
            })
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}
