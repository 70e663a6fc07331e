//! `/openapi/v3` and `/openapi/v2`: what kubectl, SDK generators and Argo CD learn the kinds from.
//!
//! Both are views of `weft_kinds` (paths and operations) and `weft_kinds::schema` (definitions); those of users' kinds are in
//! [`custom`]. A v3 document holds one group version and is addressed by its hash, so clients keep it for ever; version 2 holds all,
//! as JSON and as protobuf ([`gnostic`]). What was made is kept for a while ([`kept`]). What other servers serve is told by their own documents: in version
//! 3 they are asked for them when somebody else asks, in version 2 they are part of the one document ([`merged`]); who has version 2 only is told in
//! version 3 from that ([`converted`]).
//!
//! Invariants: every `$ref` resolves inside its document (one that does not stops Argo CD for a whole cluster); each kind
//! has a `patch` operation that names its kind and takes `fieldValidation` and `dryRun`, which is how kubectl decides to
//! let the server validate; both forms of version 2 say the same.

mod converted;
mod custom;
pub mod gnostic;
mod kept;
mod merged;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Extension, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{self, HeaderMap};
use serde_json::{Map, Value, json};
use weft_api::gvk::GroupVersionKind;
use weft_api::status::StatusError;
use weft_kinds::apiextensions::Custom;
use weft_kinds::schema;
use weft_kinds::{Kind, Registry, Served, Subresource};

pub use self::kept::Documents;
use self::kept::{Document, V2};
use crate::authz::Authorized;
use crate::http::error::ApiError;
use crate::http::{AppState, aggregated};

/// Without `@`, which Go's media type parser refuses although its own clients ask with it.
const GNOSTIC: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const JSON: &str = "application/json";
/// What clients call that form.
const GNOSTIC_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

const V3_REFERENCE: &str = "#/components/schemas/";

/// A year: the hash in the URL changes with the content.
const IMMUTABLE: &str = "public, immutable, max-age=31536000";
const MUTABLE: &str = "no-cache, private";

/// The kinds that documents describe: all but those that are computed or measured, which are told by discovery only.
fn described(registry: &Registry) -> impl Iterator<Item = &Arc<Kind>> {
    let kinds = registry.all().iter().filter(|kind| kind.listed);
    kinds.filter(|kind| {
        !matches!(kind.served, Served::Computed | Served::Measured) && !kind.served.is_told()
    })
}

/// The routes of this module, for callers who may see which kinds there are.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/openapi/v2", get(v2))
        .route("/openapi/v3", get(root))
        .route("/openapi/v3/", get(root))
        .route("/openapi/v3/{*path}", get(v3))
}

async fn root(State(state): State<AppState>) -> Result<Response, ApiError> {
    let hashes = state.documents.hashes(&state.objects.registry()).await?;
    let own = hashes
        .iter()
        .map(|(path, hash)| (path.clone(), format!("/openapi/v3/{path}?hash={hash}")));
    let documents = state.objects.aggregation().documents();
    let converted = documents.v2_only().into_iter();
    let converted = converted.map(|(path, hash)| {
        let url = format!("/openapi/v3/{path}?hash={hash}");
        (path, url)
    });
    let paths: Map<String, Value> = own
        .chain(converted)
        .chain(documents.v3())
        .map(|(path, url)| (path, json!({ "serverRelativeURL": url })))
        .collect();
    let body = json!({ "paths": paths }).to_string();
    let headers = [
        (header::CONTENT_TYPE, JSON),
        (header::CACHE_CONTROL, MUTABLE),
    ];
    Ok((headers, body).into_response())
}

async fn v3(
    State(state): State<AppState>,
    Extension(asked): Extension<Authorized>,
    Path(path): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let path = path.trim_end_matches('/');
    let services = state.objects.api_services();
    let other = services.serving(&format!("/{path}"));
    let documents = state.objects.aggregation().documents();
    if let Some(other) = other
        && documents.has_v3(other)
    {
        return Ok(aggregated::pass_on(&state, &asked, other, request).await);
    }
    let (uri, headers) = (request.uri().clone(), request.headers().clone());
    let found = match other {
        Some(other) => {
            // It is known by what it is made of.
            documents.v2_of(other).map(|v2| Document {
                hash: v2.hash.as_str().into(),
                bytes: converted::document(&v2).to_string().into(),
            })
        }
        None => state.documents.v3(&state.objects.registry(), path).await?,
    };
    let Some(document) = found else {
        return Err(ApiError(StatusError::unknown_path()));
    };
    if !accepted(&headers).any(|range| matches!(range, JSON | "application/*" | "*/*")) {
        return Ok(unacceptable());
    }
    let asked = uri
        .query()
        .into_iter()
        .flat_map(|query| query.split('&'))
        .find_map(|pair| pair.strip_prefix("hash="));
    if asked.is_some_and(|asked| *asked != *document.hash) {
        let current = format!("/openapi/v3/{path}?hash={}", document.hash);
        let moved = (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, current)]);
        return Ok(moved.into_response());
    }
    let cache = if asked.is_some() { IMMUTABLE } else { MUTABLE };
    Ok(answer(&headers, document, JSON, cache))
}

async fn v2(State(state): State<AppState>, headers: HeaderMap) -> Result<Response, ApiError> {
    let form = accepted(&headers).find_map(|range| match range {
        JSON | "application/*" | "*/*" => Some((V2::Json, JSON)),
        GNOSTIC | GNOSTIC_ASKED => Some((V2::Gnostic, GNOSTIC)),
        _ => None,
    });
    let Some((form, media_type)) = form else {
        return Ok(unacceptable());
    };
    let registry = state.objects.registry();
    let others = state.objects.aggregation().documents().v2();
    let document = state.documents.v2(&registry, others, form).await?;
    Ok(answer(&headers, document, media_type, MUTABLE))
}

/// The media types that the client takes, as it wrote them; one that says nothing takes anything.
fn accepted(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let accepts = headers.get_all(header::ACCEPT).iter();
    let silent = !headers.contains_key(header::ACCEPT);
    accepts
        .filter_map(|value| value.to_str().ok())
        .flat_map(|accept| accept.split(','))
        .map(|range| range.split(';').next().unwrap_or("").trim())
        .chain(silent.then_some("*/*"))
}

fn unacceptable() -> Response {
    (StatusCode::NOT_ACCEPTABLE, [(header::VARY, "Accept")]).into_response()
}

/// The document, or that the client has it.
fn answer(
    headers: &HeaderMap,
    document: Document,
    media_type: &'static str,
    cache: &'static str,
) -> Response {
    let Document { hash, bytes } = document;
    let tag = format!("\"{hash}\"");
    let known = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut known = known
        .filter_map(|value| value.to_str().ok())
        .flat_map(|tags| tags.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"));
    let told = [
        (header::ETAG, tag.clone()),
        (header::VARY, "Accept".to_owned()),
        (header::CACHE_CONTROL, cache.to_owned()),
    ];
    if known.any(|known| known == "*" || known == tag) {
        return (StatusCode::NOT_MODIFIED, told).into_response();
    }
    (told, [(header::CONTENT_TYPE, media_type)], bytes).into_response()
}

fn group_versions(registry: &Registry) -> Vec<(&str, &str)> {
    let mut versions: Vec<(&str, &str)> = described(registry)
        .map(|kind| (&*kind.group, &*kind.version))
        .collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

fn document_v3(registry: &Registry, group: &str, version: &str) -> String {
    let told = operations(
        registry,
        |g, v| (g, v) == (group, version),
        custom::schema_v3,
    );
    let mut text = format!(
        r#"{{"openapi":"3.0.0","info":{},"paths":{},"components":{{"schemas":{{"#,
        info(),
        Value::Object(told.paths)
    );
    append_schemas(&mut text, &told.roots, &told.own);
    text.push_str("}}}");
    text
}

/// The same operations and definitions in OpenAPI 2: references point elsewhere, bodies and types are parameters.
fn document_v2(registry: &Registry) -> String {
    let told = operations(registry, |_, _| true, custom::schema_v2);
    let paths: Map<String, Value> = told
        .paths
        .into_iter()
        .map(|(path, mut item)| {
            item.as_object_mut()
                .into_iter()
                .flat_map(Map::values_mut)
                .for_each(operation_v2);
            (path, item)
        })
        .collect();
    let mut text = format!(
        r#"{{"swagger":"2.0","info":{},"paths":{},"definitions":{{"#,
        info(),
        Value::Object(paths)
    );
    append_schemas(&mut text, &told.roots, &told.own);
    text.push_str("}}");
    // The table writes a reference with a description as allOf of one; version 2 has it side by side. All text is compact
    // JSON of our own making, so these patterns occur nowhere else.
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    const ALL_OF: &str = r##""allOf":[{"$ref":"#/components/schemas/"##;
    while let Some(at) = rest.find(ALL_OF) {
        let (before, after) = rest.split_at(at);
        let after = &after[ALL_OF.len()..];
        let end = after.find("\"}]").unwrap_or(0);
        let _ = write!(out, r##"{before}"$ref":"#/definitions/{}""##, &after[..end]);
        rest = &after[end + 3..];
    }
    out.push_str(rest);
    out.replace(V3_REFERENCE, "#/definitions/")
        .replace(
            r#""oneOf":[{"type":"integer"},{"type":"string"}]"#,
            r#""type":"string""#,
        )
        .replace(
            r#""oneOf":[{"type":"string"},{"type":"number"}]"#,
            r#""type":"string""#,
        )
}

/// Turns an operation, or the parameters shared by a path, into version 2.
fn operation_v2(value: &mut Value) {
    let parameter_v2 = |parameter: &mut Value| {
        if let Some(schema) = parameter
            .as_object_mut()
            .and_then(|parameter| parameter.remove("schema"))
        {
            parameter["type"] = schema["type"].clone();
            parameter["uniqueItems"] = json!(true);
        }
    };
    if let Some(shared) = value.as_array_mut() {
        return shared.iter_mut().for_each(parameter_v2);
    }
    let mut parameters = value["parameters"]
        .as_array_mut()
        .map(std::mem::take)
        .unwrap_or_default();
    parameters.iter_mut().for_each(parameter_v2);
    let body = value
        .as_object_mut()
        .and_then(|operation| operation.remove("requestBody"));
    if let Some(content) = body.as_ref().and_then(|body| body["content"].as_object())
        && let Some(first) = content.values().next()
    {
        parameters.push(
            json!({ "in": "body", "name": "body", "required": true, "schema": first["schema"] }),
        );
        value["consumes"] = json!(content.keys().collect::<Vec<_>>());
    }
    value["parameters"] = Value::Array(parameters);
    value["produces"] = json!(["application/json"]);
    if let Some(schema) = value
        .pointer_mut("/responses/200/content/application~1json/schema")
        .map(Value::take)
    {
        value["responses"]["200"] = json!({ "description": "OK", "schema": schema });
    }
}

fn info() -> Value {
    json!({ "title": "Kubernetes", "version": "v1.37.0" })
}

/// Appends the definitions reachable from `roots`, as the members of an object, and those of users' kinds.
fn append_schemas(text: &mut String, roots: &[String], own: &BTreeMap<String, Value>) {
    let mut first = true;
    let mut separate = |text: &mut String| {
        if !std::mem::take(&mut first) {
            text.push(',');
        }
    };
    for name in schema::closure(roots.iter().map(String::as_str)) {
        separate(text);
        let schema = schema::text(name).unwrap_or("{}");
        let _ = write!(text, "\"{name}\":{schema}");
    }
    // What Kubernetes calls so, stays what it is.
    for (name, schema) in own.iter().filter(|(name, _)| schema::text(name).is_none()) {
        separate(text);
        let _ = write!(text, "{}:{schema}", Value::from(name.as_str()));
    }
}

/// What documents tell of kinds.
#[derive(Default)]
struct Told {
    paths: Map<String, Value>,
    /// Definitions of the table that are named.
    roots: Vec<String>,
    /// Definitions of users' kinds, by name.
    own: BTreeMap<String, Value>,
}

/// Paths with their operations for the wanted group versions, and the definitions these name; `schema` is that of a user's kind.
fn operations(
    registry: &Registry,
    wanted: impl Fn(&str, &str) -> bool,
    schema: fn(&Kind, &Custom) -> Value,
) -> Told {
    let mut told = Told::default();
    for kind in described(registry).filter(|kind| wanted(&kind.group, &kind.version)) {
        if kind.served == Served::Review {
            add_review(kind, &mut told);
        } else {
            add_kind(kind, &mut told, schema);
        }
    }
    told
}

fn add_kind(kind: &Kind, told: &mut Told, schema: fn(&Kind, &Custom) -> Value) {
    let (mut own, mut list) = (
        Target::new(&kind.group, &kind.version, &kind.kind),
        Target::new(&kind.group, &kind.version, &kind.list_kind()),
    );
    if let Some(defined) = &kind.custom {
        let (name, list_name) = (
            custom::name(kind, &kind.kind),
            custom::name(kind, &kind.list_kind()),
        );
        told.own.insert(name.clone(), schema(kind, defined));
        told.own
            .insert(list_name.clone(), custom::list_schema(kind, &name));
        told.roots
            .extend([custom::OBJECT_META, custom::LIST_META].map(str::to_owned));
        own.definition = Some(name);
        list.definition = Some(list_name);
    }
    let Told { paths, roots, .. } = told;
    let status = Target::new("", "v1", "Status");
    let options = Target::new("", "v1", "DeleteOptions");
    let patch = Target {
        definition: Some("io.k8s.apimachinery.pkg.apis.meta.v1.Patch".to_owned()),
        ..own.clone()
    };
    roots.extend(
        [&own, &list, &status, &options, &patch]
            .into_iter()
            .filter_map(|target| target.definition.clone()),
    );

    let base = format!("/{}", path_of(&kind.group, &kind.version));
    let scope = if kind.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let collection = format!("{base}{scope}/{}", kind.resource);
    let item = format!("{collection}/{{name}}");
    let namespace = kind.namespaced.then(|| path_parameter("namespace"));
    let name = path_parameter("name");

    let make =
        |verb: &str, action: &str, body: Option<&Target>, media: &[&str], answer: &Target| {
            operation(
                &format!("{verb}{}{}", camel(&kind.group, &kind.version), kind.kind),
                action,
                &own,
                body,
                media,
                answer,
            )
        };
    const JSON_ONLY: &[&str] = &[JSON];
    const PATCHES: &[&str] = &[
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ];
    // kubectl applies with the strategic format wherever it is offered here.
    let patches = if kind.merges_strategically {
        PATCHES
    } else {
        &PATCHES[..3]
    };
    if kind.namespaced {
        paths.insert(
            format!("{base}/{}", kind.resource),
            json!({ "get": make("listAll", "list", None, JSON_ONLY, &list) }),
        );
    }
    paths.insert(
        collection,
        json!({
            "get": make("list", "list", None, JSON_ONLY, &list),
            "post": make("create", "post", Some(&own), JSON_ONLY, &own),
            "delete": make("deleteCollection", "deletecollection", Some(&options), JSON_ONLY, &status),
            "parameters": namespace.iter().collect::<Vec<_>>(),
        }),
    );
    let parameters: Vec<&Value> = std::iter::once(&name).chain(&namespace).collect();
    paths.insert(
        item.clone(),
        json!({
            "get": make("read", "get", None, JSON_ONLY, &own),
            "put": make("replace", "put", Some(&own), JSON_ONLY, &own),
            "patch": make("patch", "patch", Some(&patch), patches, &own),
            "delete": make("delete", "delete", Some(&options), JSON_ONLY, &status),
            "parameters": parameters,
        }),
    );
    for subresource in &kind.subresources {
        let target = match subresource {
            Subresource::Status
            | Subresource::Approval
            | Subresource::Finalize
            | Subresource::EphemeralContainers
            | Subresource::Resize => own.clone(),
            Subresource::Scale
            | Subresource::Binding
            | Subresource::Eviction
            | Subresource::Token => match subresource.own_kind() {
                Some((group, version, kind)) => Target::new(group, version, kind),
                None => continue,
            },
            // Streams and operations, not objects: nothing for a schema to say.
            Subresource::Log
            | Subresource::Proxy
            | Subresource::Data
            | Subresource::Exec
            | Subresource::Attach
            | Subresource::PortForward => continue,
        };
        roots.extend(target.definition.clone());
        let id = |verb: &str| {
            format!(
                "{verb}{}{}{}",
                camel(&kind.group, &kind.version),
                &kind.kind,
                capital(subresource.name())
            )
        };
        let mut entry = json!({ "parameters": parameters });
        for verb in subresource.verbs() {
            let (method, body, media): (_, Option<&Target>, _) = match *verb {
                "get" => ("get", None, JSON_ONLY),
                "update" => ("put", Some(&target), JSON_ONLY),
                "create" => ("post", Some(&target), JSON_ONLY),
                "patch" => ("patch", Some(&patch), patches),
                _ => continue,
            };
            entry[method] = operation(&id(verb), method, &target, body, media, &target);
        }
        paths.insert(format!("{item}/{}", subresource.name()), entry);
    }
}

fn add_review(review: &Kind, told: &mut Told) {
    let Told { paths, roots, .. } = told;
    let own = Target::new(&review.group, &review.version, &review.kind);
    roots.extend(own.definition.clone());
    let id = format!(
        "create{}{}",
        camel(&review.group, &review.version),
        &review.kind
    );
    let post = operation(&id, "post", &own, Some(&own), &["application/json"], &own);
    paths.insert(
        format!(
            "/{}/{}",
            path_of(&review.group, &review.version),
            &review.resource
        ),
        json!({ "post": post }),
    );
}

/// A kind that an operation takes or gives, and its definition if the table has one.
#[derive(Clone)]
struct Target {
    gvk: GroupVersionKind,
    definition: Option<String>,
}

impl Target {
    fn new(group: &str, version: &str, kind: &str) -> Self {
        let gvk = GroupVersionKind::new(group, version, kind);
        let definition = schema::definition_name(&gvk).map(str::to_owned);
        Self { gvk, definition }
    }

    fn schema(&self) -> Value {
        match &self.definition {
            Some(name) => json!({ "$ref": format!("{V3_REFERENCE}{name}") }),
            None => json!({ "type": "object" }),
        }
    }
}

fn operation(
    id: &str,
    action: &str,
    about: &Target,
    body: Option<&Target>,
    media: &[&str],
    answer: &Target,
) -> Value {
    let query = |name: &str, kind: &str, description: &str| json!({ "name": name, "in": "query", "description": description, "schema": { "type": kind } });
    let mut parameters = Vec::new();
    if matches!(
        action,
        "post" | "put" | "patch" | "delete" | "deletecollection"
    ) {
        parameters.push(query("dryRun", "string", "When present, indicates that modifications should not be persisted; `All` runs every stage."));
    }
    if matches!(action, "post" | "put" | "patch") {
        parameters.push(query(
            "fieldManager",
            "string",
            "The name of the actor or entity that is making these changes.",
        ));
        parameters.push(query(
            "fieldValidation",
            "string",
            "How to treat unknown or duplicate fields: Ignore, Warn (default) or Strict.",
        ));
    }
    if action == "patch" {
        parameters.push(query(
            "force",
            "boolean",
            "Whether an apply takes fields from whoever owns them.",
        ));
    }
    if matches!(action, "delete" | "deletecollection") {
        parameters.push(query(
            "gracePeriodSeconds",
            "integer",
            "The duration in seconds before the object should be deleted.",
        ));
        parameters.push(query(
            "propagationPolicy",
            "string",
            "Whether and how garbage collection will be performed.",
        ));
    }
    if matches!(action, "list" | "deletecollection") {
        for (name, kind) in [
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("timeoutSeconds", "integer"),
        ] {
            parameters.push(query(name, kind, "As in the Kubernetes API conventions."));
        }
    }
    if action == "list" {
        for name in ["allowWatchBookmarks", "sendInitialEvents", "watch"] {
            parameters.push(query(
                name,
                "boolean",
                "As in the Kubernetes API conventions.",
            ));
        }
    }
    let GroupVersionKind {
        group,
        version,
        kind,
    } = &about.gvk;
    let mut operation = json!({
        "operationId": id,
        "parameters": parameters,
        "responses": { "200": { "description": "OK", "content": { "application/json": { "schema": answer.schema() } } } },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": { "group": group, "version": version, "kind": kind },
    });
    if let Some(body) = body {
        let content: Map<String, Value> = media
            .iter()
            .map(|media| ((*media).to_owned(), json!({ "schema": body.schema() })))
            .collect();
        operation["requestBody"] = json!({ "content": content });
    }
    operation
}

fn path_parameter(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
}

/// `CoreV1`, `AppsV1`, `GatewayNetworkingV1`: the middle of an operation's id.
fn camel(group: &str, version: &str) -> String {
    let group = group.trim_end_matches(".k8s.io");
    let group = if group.is_empty() { "core" } else { group };
    group.split('.').chain([version]).map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .chain(letters)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    fn assert_references_resolve(document: &Value) {
        let mut found = Vec::new();
        references(document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn v3_documents_are_complete() {
        let registry = Registry::builtin();
        for (group, version) in group_versions(&registry) {
            let document = document_v3(&registry, group, version);
            let document: Value = serde_json::from_str(&document).unwrap();
            assert_references_resolve(&document);
        }
        for kind in described(&registry) {
            assert!(
                schema::definition_name(&kind.gvk()).is_some(),
                "{kind:?} has no schema"
            );
        }
        let apps: Value = serde_json::from_str(&document_v3(&registry, "apps", "v1")).unwrap();
        let patch =
            &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({ "group": "apps", "version": "v1", "kind": "Deployment" })
        );
        let names: Vec<&str> = patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|p| p["name"].as_str())
            .collect();
        assert_eq!(
            names,
            ["dryRun", "fieldManager", "fieldValidation", "force"]
        );
        let apply = &patch["requestBody"]["content"]["application/apply-patch+yaml"];
        assert!(apply["schema"].is_object());
    }

    #[test]
    fn the_v2_document_is_complete() {
        let document: Value = serde_json::from_str(&document_v2(&Registry::builtin())).unwrap();
        assert_references_resolve(&document);
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        assert_eq!(patch["parameters"][0]["type"], "string");
        assert_eq!(patch["parameters"][4]["in"], "body");
        let text = document.to_string();
        for only_v3 in ["\"allOf\":[", "\"oneOf\":[", "#/components"] {
            assert!(!text.contains(only_v3), "{only_v3}");
        }
    }
}
