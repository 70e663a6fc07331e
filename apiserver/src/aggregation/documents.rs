//! What those who serve groups tell of them: discovery in two forms, OpenAPI in two versions.
//!
//! Asked for as `system:kube-aggregator`, kept by APIService. What could not be had stays as it was and counts as stale; of whoever never
//! answered there is the version and nothing else, so that clients know that there is something that they do not see.
//!
//! Invariants: only what is below its own version's path is taken from a server; a document, and OpenAPI of all servers together, have a bound,
//! beyond which it is left out. Left to others: when somebody is asked (`super::follow`), merging (`crate::http`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use weft_kinds::lens::{items, text};

use super::{Answered, ApiService, Question, Unasked};
use crate::objects::Objects;

/// Bytes of a discovery document: Kubernetes' own has a quarter of a million.
const DISCOVERY_BYTES_MAX: usize = 4 << 20;
/// Bytes of an OpenAPI document: Kubernetes' own, of all of its groups, has four million.
const OPENAPI_BYTES_MAX: usize = 16 << 20;
/// Bytes of OpenAPI documents of all servers that are kept.
const KEPT_BYTES_MAX: usize = 32 << 20;
/// How long a server has for discovery, as for a client that asks it for that.
pub(crate) const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it has for OpenAPI.
const OPENAPI_TIMEOUT: Duration = Duration::from_secs(30);

const ACCEPT_DISCOVERY: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const JSON: &str = "application/json";

/// What is kept of all servers. Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Documents(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// Of all that are served now: what comes late of one that is not any more, is not kept.
    by_name: BTreeMap<String, Told>,
    /// Counts changes of what OpenAPI version 2 says.
    generation: u64,
}

/// What one server told of one version.
#[derive(Clone, Default)]
struct Told {
    /// As an entry of `apidiscovery.k8s.io/v2`, without its freshness.
    discovery: Option<Arc<Value>>,
    fresh: bool,
    /// The path of its version in OpenAPI version 3, such as `apis/example.com/v1`, and the URL that its document is at.
    v3: Option<(String, String)>,
    v2: Option<Arc<V2>>,
}

/// The part of a server's document that is about its version.
pub(crate) struct V2 {
    tag: String,
    /// The version's path, such as `apis/example.com/v1`.
    root: String,
    /// Of what follows.
    pub hash: String,
    bytes: usize,
    pub paths: Map<String, Value>,
    pub definitions: Map<String, Value>,
}

#[cfg(test)]
impl V2 {
    pub(crate) fn of(paths: Value, definitions: Value) -> Self {
        let members = |value| match value {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        Self {
            tag: String::new(),
            root: String::new(),
            hash: String::new(),
            bytes: 0,
            paths: members(paths),
            definitions: members(definitions),
        }
    }
}

impl Documents {
    /// The entry of a version in aggregated discovery.
    pub(crate) fn discovery(&self, service: &ApiService) -> Value {
        let kept = self.0.lock();
        let told = kept.by_name.get(&service.name);
        let mut entry = match told.and_then(|told| told.discovery.as_deref()) {
            Some(entry) => entry.clone(),
            None => json!({"version": service.version}),
        };
        let fresh = told.is_some_and(|told| told.fresh);
        entry["freshness"] = if fresh { "Current" } else { "Stale" }.into();
        entry
    }

    /// The paths of OpenAPI version 3 that those servers have, and their URLs.
    pub(crate) fn v3(&self) -> Vec<(String, String)> {
        let kept = self.0.lock();
        let all = kept.by_name.values().filter_map(|told| told.v3.clone());
        all.collect()
    }

    /// Whether the server of an APIService has OpenAPI version 3.
    pub(crate) fn has_v3(&self, service: &ApiService) -> bool {
        let kept = self.0.lock();
        let told = kept.by_name.get(&service.name);
        told.is_some_and(|told| told.v3.is_some())
    }

    /// The paths of OpenAPI version 3 of those servers that have version 2 only, and the hash of that.
    pub(crate) fn v2_only(&self) -> Vec<(String, String)> {
        let kept = self.0.lock();
        let all = kept.by_name.values();
        all.filter(|told| told.v3.is_none())
            .filter_map(|told| told.v2.as_ref())
            .map(|v2| (v2.root.clone(), v2.hash.clone()))
            .collect()
    }

    /// What the server of an APIService tells in version 2.
    pub(crate) fn v2_of(&self, service: &ApiService) -> Option<Arc<V2>> {
        let kept = self.0.lock();
        kept.by_name.get(&service.name)?.v2.clone()
    }

    /// Which state OpenAPI version 2 of those servers is in, and what it says.
    pub(crate) fn v2(&self) -> (u64, Vec<Arc<V2>>) {
        let kept = self.0.lock();
        let all = kept.by_name.values().filter_map(|told| told.v2.clone());
        (kept.generation, all.collect())
    }

    /// Has room for what the servers of these APIServices tell, and lets go of what others told.
    pub(super) fn keep_only(&self, served: &BTreeSet<&str>) {
        let mut kept = self.0.lock();
        let before = kept.by_name.len();
        kept.by_name
            .retain(|name, _| served.contains(name.as_str()));
        if kept.by_name.len() != before {
            kept.generation += 1;
        }
        for name in served {
            kept.by_name.entry((*name).to_owned()).or_default();
        }
    }

    fn told(&self, name: &str) -> Told {
        let kept = self.0.lock();
        kept.by_name.get(name).cloned().unwrap_or_default()
    }

    fn put(&self, name: &str, mut told: Told) {
        let mut kept = self.0.lock();
        if !kept.by_name.contains_key(name) {
            return;
        }
        let others = kept.by_name.iter().filter(|(known, _)| *known != name);
        let others = others.filter_map(|(_, told)| told.v2.as_ref());
        let bytes: usize = others.map(|document| document.bytes).sum();
        let own = told.v2.as_ref().map_or(0, |document| document.bytes);
        if bytes + own > KEPT_BYTES_MAX {
            tracing::warn!(
                name,
                KEPT_BYTES_MAX,
                "OpenAPI of a group is left out: that of all groups is too large"
            );
            told.v2 = None;
        }
        let before = kept.by_name.get(name).and_then(|told| told.v2.as_ref());
        let same = match (before, &told.v2) {
            (None, None) => true,
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            _ => false,
        };
        kept.generation += u64::from(!same);
        kept.by_name.insert(name.to_owned(), told);
    }
}

impl Objects {
    /// Asks whoever serves a version for its documents; whether it answered.
    pub(super) async fn fetch_documents(&self, service: &ApiService) -> bool {
        let documents = self.aggregation().documents();
        let mut told = documents.told(&service.name);
        let discovered = match service.available {
            true => self.fetch_discovery(service).await,
            false => Err("it is not available".to_owned()),
        };
        told.fresh = discovered.is_ok();
        match discovered {
            Ok(entry) => told.discovery = Some(Arc::new(entry)),
            Err(why) => tracing::info!(name = service.name, why, "discovery of a group is stale"),
        }
        // Clients see what there is before they see how it looks.
        documents.put(&service.name, told.clone());
        if !told.fresh {
            return false;
        }
        let unread = |why: String| {
            tracing::info!(name = service.name, why, "OpenAPI of a group is as it was");
        };
        match self.fetch_v3(service).await {
            Ok(path) => told.v3 = path,
            Err(why) => unread(why),
        }
        match self.fetch_v2(service, told.v2.as_ref()).await {
            Ok(document) => told.v2 = document,
            Err(why) => unread(why),
        }
        documents.put(&service.name, told);
        true
    }

    /// The entry of its version: of all that it tells of itself at once, or else of that version alone.
    async fn fetch_discovery(&self, service: &ApiService) -> Result<Value, String> {
        let ApiService { group, version, .. } = service;
        let answer = self.fetch(service, "/apis", ACCEPT_DISCOVERY).await?;
        if answer.status == StatusCode::OK && is_discovery(&answer.headers) {
            let list = json_of(&answer)?;
            let mut groups = items(&list, "/items").iter();
            let found = groups.find(|entry| text(entry, "/metadata/name") == group);
            let versions = found.map_or(&[][..], |entry| items(entry, "/versions"));
            let mut versions = versions.iter();
            let found = versions.find(|entry| text(entry, "/version") == version);
            let mut entry = json!({"version": version});
            if let Some(resources) = found.and_then(|entry| entry.get("resources")) {
                entry["resources"] = with_kinds(resources);
            }
            return Ok(entry);
        }
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            let code = answer.status.as_u16();
            return Err(format!("it returned non-success response code: {code}"));
        }
        let answer = self.fetch(service, &service.root(), JSON).await?;
        if answer.status != StatusCode::OK {
            let status = answer.status;
            return Err(format!("failed to download legacy discovery: {status}"));
        }
        let list = json_of(&answer)?;
        if text(&list, "/kind") != "APIResourceList" {
            return Err("its discovery is no APIResourceList".to_owned());
        }
        Ok(json!({"version": version, "resources": from_legacy(&list)}))
    }

    /// A small document.
    async fn fetch(
        &self,
        service: &ApiService,
        path: &str,
        accept: &str,
    ) -> Result<Answered, String> {
        let question = Question {
            path,
            headers: &[(header::ACCEPT, accept)],
            bytes_max: DISCOVERY_BYTES_MAX,
            timeout: DISCOVERY_TIMEOUT,
        };
        let asked = self.ask_api_service(service, &question).await;
        asked.map_err(Unasked::why)
    }

    async fn fetch_v3(&self, service: &ApiService) -> Result<Option<(String, String)>, String> {
        let answer = self.fetch(service, "/openapi/v3", JSON).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(format!("its OpenAPI answered {status}")),
        }
        let root = json_of(&answer)?;
        let own = service.root();
        let own = own.trim_start_matches('/');
        let entry = root.get("paths").and_then(|paths| paths.get(own));
        let url = entry.map(|entry| text(entry, "/serverRelativeURL").to_owned());
        let url = url.filter(|url| url.starts_with("/openapi/v3/"));
        Ok(url.map(|url| (own.to_owned(), url)))
    }

    async fn fetch_v2(
        &self,
        service: &ApiService,
        before: Option<&Arc<V2>>,
    ) -> Result<Option<Arc<V2>>, String> {
        let tag = before.map_or("", |before| before.tag.as_str());
        let headers = [(header::ACCEPT, JSON), (header::IF_NONE_MATCH, tag)];
        let question = Question {
            path: "/openapi/v2",
            headers: if tag.is_empty() {
                &headers[..1]
            } else {
                &headers
            },
            bytes_max: OPENAPI_BYTES_MAX,
            timeout: OPENAPI_TIMEOUT,
        };
        let asked = self.ask_api_service(service, &question).await;
        let answer = asked.map_err(Unasked::why)?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED => return Ok(before.cloned()),
            StatusCode::NOT_FOUND => return Ok(None),
            status => return Err(format!("its OpenAPI answered {status}")),
        }
        let tag = answer.headers.get(header::ETAG);
        let tag = tag.and_then(|tag| tag.to_str().ok());
        let tag = tag.unwrap_or_default().to_owned();
        let root = format!("{}/", service.root());
        // Megabytes to read and to sort: not on a thread that others wait for.
        let read = move || {
            let document = json_of(&answer)?;
            Ok(Some(Arc::new(of_version(document, &root, tag))))
        };
        let read = tokio::task::spawn_blocking(read).await;
        read.map_err(|error| error.to_string())?
    }
}

fn json_of(answer: &Answered) -> Result<Value, String> {
    serde_json::from_slice(&answer.body).map_err(|error| format!("its answer is no JSON: {error}"))
}

/// Whether an answer says that it is an aggregated document of the second version.
fn is_discovery(headers: &HeaderMap) -> bool {
    let told = headers.get(header::CONTENT_TYPE);
    let told = told.and_then(|told| told.to_str().ok()).unwrap_or("");
    let mut parts = told.split(';').map(str::trim);
    parts.next() == Some(JSON)
        && ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"]
            .iter()
            .all(|wanted| told.split(';').any(|part| part.trim() == *wanted))
}

/// Old clients take a kind that is not told for one that is nothing.
fn with_kinds(resources: &Value) -> Value {
    let mut resources = resources.clone();
    let fill = |entry: &mut Value| {
        if let Some(entry) = entry.as_object_mut()
            && entry.get("responseKind").is_none_or(Value::is_null)
        {
            entry.insert("responseKind".to_owned(), no_kind());
        }
    };
    for resource in resources.as_array_mut().into_iter().flatten() {
        fill(resource);
        let subresources = resource.get_mut("subresources");
        let subresources = subresources.and_then(Value::as_array_mut);
        subresources.into_iter().flatten().for_each(fill);
    }
    resources
}

fn no_kind() -> Value {
    json!({"group": "", "version": "", "kind": ""})
}

/// The resources of a legacy document in the form of an aggregated one.
fn from_legacy(list: &Value) -> Value {
    let kind = |entry: &Value| json!({"group": text(entry, "/group"), "version": text(entry, "/version"), "kind": text(entry, "/kind")});
    let scope = |entry: &Value| match entry["namespaced"] == true {
        true => "Namespaced",
        false => "Cluster",
    };
    let verbs = |entry: &Value| {
        let verbs = entry.get("verbs").filter(|verbs| verbs.is_array());
        verbs.cloned().unwrap_or_else(|| json!([]))
    };
    let mut resources: Vec<Value> = Vec::new();
    for entry in items(list, "/resources") {
        let name = text(entry, "/name");
        if name.contains('/') {
            continue;
        }
        let mut resource = json!({
            "resource": name, "responseKind": kind(entry), "scope": scope(entry),
            "singularResource": text(entry, "/singularName"), "verbs": verbs(entry),
        });
        for told in ["shortNames", "categories"] {
            if let Some(names) = entry.get(told).filter(|names| names.is_array()) {
                resource[told] = names.clone();
            }
        }
        resources.push(resource);
    }
    for entry in items(list, "/resources") {
        let Some((parent, name)) = text(entry, "/name").split_once('/') else {
            continue;
        };
        let own = json!({
            "subresource": name, "responseKind": kind(entry), "verbs": verbs(entry),
        });
        let known = resources.iter_mut();
        let known = known
            .filter(|known| known["resource"] == parent)
            .find_map(Value::as_object_mut);
        match known {
            Some(known) => {
                let all = known.entry("subresources").or_insert_with(|| json!([]));
                all.as_array_mut()
                    .into_iter()
                    .for_each(|all| all.push(own.clone()));
            }
            // Of something that can only be reached through its parts.
            None => resources.push(json!({
                "resource": parent, "responseKind": no_kind(), "scope": scope(entry),
                "singularResource": "", "verbs": [], "subresources": [own],
            })),
        }
    }
    resources.into()
}

/// What a document says of paths below `root`, and the definitions that those need.
fn of_version(mut document: Value, root: &str, tag: String) -> V2 {
    let mut take = |name: &str| match document.get_mut(name).map(Value::take) {
        Some(Value::Object(members)) => members,
        _ => Map::new(),
    };
    let (paths, mut all) = (take("paths"), take("definitions"));
    let paths = paths.into_iter().filter(|(path, _)| path.starts_with(root));
    let paths: Map<String, Value> = paths.collect();
    let mut wanted = Vec::new();
    paths
        .values()
        .for_each(|path| references(path, &mut wanted));
    let mut definitions = Map::new();
    while let Some(name) = wanted.pop() {
        if definitions.contains_key(&name) {
            continue;
        }
        // What refers to nothing breaks whoever follows it: anything is better.
        let found = all.remove(&name);
        let found = found.unwrap_or_else(|| json!({"type": "object"}));
        references(&found, &mut wanted);
        definitions.insert(name, found);
    }
    let (mut bytes, mut digest) = (0, Sha256::new());
    for (name, value) in paths.iter().chain(&definitions) {
        let text = value.to_string();
        bytes += name.len() + text.len();
        digest.update(name);
        digest.update(text);
    }
    let digest = digest.finalize();
    let digits = digest.iter().take(16).map(|byte| format!("{byte:02X}"));
    V2 {
        tag,
        root: root.trim_matches('/').to_owned(),
        hash: digits.collect(),
        bytes,
        paths,
        definitions,
    }
}

/// The definitions that something refers to.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            let name = members.get("$ref").and_then(Value::as_str);
            let name = name.and_then(|name| name.strip_prefix("#/definitions/"));
            found.extend(name.map(str::to_owned));
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_old_is_told_in_the_new_form() {
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["update"]},
            {"name": "gone/scale", "namespaced": false, "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get"]},
        ]});
        let flunder = json!({"group": "", "version": "", "kind": "Flunder"});
        let scale = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
        assert_eq!(
            from_legacy(&list),
            json!([
                {
                    "resource": "flunders", "responseKind": flunder, "scope": "Namespaced", "singularResource": "flunder",
                    "verbs": ["get"], "shortNames": ["fl"],
                    "subresources": [{"subresource": "status", "responseKind": flunder, "verbs": ["update"]}],
                },
                {
                    "resource": "gone", "responseKind": no_kind(), "scope": "Cluster", "singularResource": "", "verbs": [],
                    "subresources": [{"subresource": "scale", "responseKind": scale, "verbs": ["get"]}],
                },
            ])
        );
        let filled =
            with_kinds(&json!([{"resource": "x", "subresources": [{"responseKind": null}]}]));
        assert_eq!(filled[0]["responseKind"], no_kind());
        assert_eq!(filled[0]["subresources"][0]["responseKind"], no_kind());
    }

    #[test]
    fn a_server_tells_of_its_own_version_only() {
        let document = json!({
            "paths": {
                "/apis/a/v1/x": {"get": {"schema": {"$ref": "#/definitions/X"}}},
                "/apis/apps/v1/deployments": {"get": {}},
                "/api/v1/pods": {},
            },
            "definitions": {
                "X": {"properties": {"y": {"$ref": "#/definitions/Y"}, "z": {"$ref": "#/definitions/Z"}}},
                "Y": {}, "Pod": {},
            },
        });
        let told = of_version(document, "/apis/a/v1/", String::new());
        let paths: Vec<&String> = told.paths.keys().collect();
        assert_eq!(paths, ["/apis/a/v1/x"]);
        let mut definitions: Vec<&String> = told.definitions.keys().collect();
        definitions.sort();
        assert_eq!(definitions, ["X", "Y", "Z"]);
    }

    #[test]
    fn a_document_says_what_it_is() {
        for (told, expected) in [
            (ACCEPT_DISCOVERY, true),
            (
                "application/json; g=apidiscovery.k8s.io; v=v2; as=APIGroupDiscoveryList",
                true,
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
                false,
            ),
            (JSON, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, told.parse().unwrap());
            assert_eq!(is_discovery(&headers), expected, "{told}");
        }
    }
}
