//! Resource paths: from a URL to one verb, and from its result to bytes.
//!
//! `/api/v1/…` and `/apis/GROUP/VERSION/…` are decoded by the table of kinds; there is no route per kind. A
//! list is written by concatenating stored bytes.
//!
//! Invariants: names and namespaces taken from a URL are single path segments; one request calls one verb.
//! Left to others: what the verbs do (`crate::objects`), watching (`super::watch`).

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Query, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::name;
use weft_api::object::Object;
use weft_api::status::{Cause, StatusError};
use weft_kinds::lens::{fill, integer, text};
use weft_kinds::patch::PatchKind;
use weft_kinds::schema;
use weft_kinds::{KindRef, REVIEWS, Review, Subresource};

use super::error::ApiError;
use super::negotiate::{self, BODY_BYTES_MAX, Decoded, Form};
use super::table::{self, Include, Style};
use super::{AppState, discovery, logs, proxy, reviews, usage, watch};
use crate::authz;
use crate::caller::Caller;
use crate::objects::{
    DeleteOptions, Deleted, ListOptions, Page, Propagation, Selection, VersionMatch, WatchOptions,
    WriteOptions, strict_decoding,
};

const WARNING: HeaderName = HeaderName::from_static("warning");
/// Warnings sent with one answer; more would only fill the client's terminal.
const WARNINGS_MAX: usize = 20;

/// What a URL under `/api` or `/apis` names.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Collection {
        kind: KindRef,
        namespace: Option<String>,
    },
    One {
        kind: KindRef,
        namespace: Option<String>,
        name: String,
        subresource: Option<Subresource>,
        /// What follows a proxy subresource.
        rest: String,
    },
    /// `namespaces/NS/bindings`: the pod is named in the body.
    Bindings {
        namespace: String,
    },
    Review(&'static str),
}

/// Answers everything that is no route of its own.
pub async fn dispatch(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    match answer(&state, &caller, request).await {
        Ok(response) => response,
        Err(error) => ApiError(error).into_response(),
    }
}

async fn answer(
    state: &AppState,
    caller: &Caller,
    request: Request,
) -> Result<Response, StatusError> {
    let path = request.uri().path();
    let verb = request.method().as_str().to_lowercase();
    if let Some(answer) = discovery::answer(path, request.headers()) {
        authz::authorize_path(caller, &verb, path)?;
        if *request.method() != Method::GET {
            return Err(StatusError::method_not_allowed());
        }
        return answer;
    }
    if let Some(answer) = usage::answer(state, caller, request.method(), request.uri()).await {
        return answer;
    }
    let Some(target) = target_of(path) else {
        authz::authorize_path(caller, &verb, path)?;
        return Err(StatusError::unknown_path());
    };
    match target {
        Target::Collection { kind, namespace } => {
            collection(state, caller, kind, namespace.as_deref(), request).await
        }
        Target::One {
            kind,
            namespace,
            name,
            subresource,
            rest,
        } => {
            let one = One {
                kind,
                namespace: namespace.as_deref(),
                name: &name,
            };
            match subresource {
                None => object(state, caller, one, request).await,
                Some(subresource) => {
                    below_object(state, caller, one, subresource, &rest, request).await
                }
            }
        }
        Target::Bindings { namespace } => {
            let (params, headers, body) = take(request, Method::POST).await?;
            let body = negotiate::decode(&headers, &body)?.value;
            let pod = text(&body, "/metadata/name").to_owned();
            bind(state, caller, &namespace, &pod, &body, &params).await
        }
        Target::Review(resource) => {
            let Some(review) = REVIEWS.iter().find(|review| review.resource == resource) else {
                return Err(StatusError::unknown_path());
            };
            self::review(caller, review, request).await
        }
    }
}

/// Decodes a resource path.
fn target_of(path: &str) -> Option<Target> {
    let segments: Vec<String> = path
        .trim_matches('/')
        .split('/')
        .map(decode_segment)
        .collect::<Option<_>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, version, rest) = match segments.as_slice() {
        ["api", "v1", rest @ ..] => ("", "v1", rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    if let ["namespaces", namespace, resource, rest @ ..] = rest
        && (!group.is_empty() || !matches!(*resource, "status" | "finalize"))
    {
        if group.is_empty() && *resource == "bindings" && rest.is_empty() {
            return Some(Target::Bindings {
                namespace: (*namespace).to_owned(),
            });
        }
        let kind =
            weft_kinds::by_resource(group, version, resource).filter(|kind| kind.namespaced)?;
        return below_resource(kind, Some((*namespace).to_owned()), rest);
    }
    let (resource, rest) = rest.split_first()?;
    let review = REVIEWS.iter().find(|review| {
        review.group == group && review.version == version && review.resource == *resource
    });
    if let Some(review) = review.filter(|_| rest.is_empty()) {
        return Some(Target::Review(review.resource));
    }
    let kind = weft_kinds::by_resource(group, version, resource)?;
    if kind.namespaced && !rest.is_empty() {
        return None;
    }
    below_resource(kind, None, rest)
}

fn below_resource(kind: KindRef, namespace: Option<String>, rest: &[&str]) -> Option<Target> {
    let (name, rest) = match rest {
        [] => return Some(Target::Collection { kind, namespace }),
        [name, rest @ ..] => ((*name).to_owned(), rest),
    };
    let (subresource, rest) = match rest {
        [] => (None, String::new()),
        [own, rest @ ..] => {
            let subresource = *kind
                .subresources
                .iter()
                .find(|subresource| subresource.name() == *own)?;
            if !rest.is_empty() && subresource != Subresource::Proxy {
                return None;
            }
            (Some(subresource), rest.join("/"))
        }
    };
    Some(Target::One {
        kind,
        namespace,
        name,
        subresource,
        rest,
    })
}

/// One path segment without its percent escapes; `None` when it is no sound segment.
fn decode_segment(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    let sound = !text.is_empty()
        && name::path_segment(&text).is_ok()
        && !text.bytes().any(|byte| byte.is_ascii_control());
    sound.then_some(text)
}

/// The query parameters that any verb knows.
#[derive(Debug, Default)]
struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    fn of(uri: &Uri) -> Result<Self, StatusError> {
        Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map(|Query(pairs)| Self { pairs })
            .map_err(|error| StatusError::bad_request(error.body_text()))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, StatusError> {
        match self.get(name) {
            None => Ok(None),
            Some("true" | "1" | "True" | "t" | "T") => Ok(Some(true)),
            Some("false" | "0" | "False" | "f" | "F") => Ok(Some(false)),
            Some(other) => Err(StatusError::bad_request(format!(
                "{name} must be true or false, not {other:?}"
            ))),
        }
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, StatusError> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    StatusError::bad_request(format!("{name} must be a number, not {text:?}"))
                })
            })
            .transpose()
    }

    fn dry_run(&self) -> Result<bool, StatusError> {
        match self.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(StatusError::invalid(
                "CreateOptions",
                "meta.k8s.io",
                "",
                vec![Cause::not_supported("dryRun", &other.into(), &["All"])],
            )),
        }
    }

    fn validation(&self) -> Result<Validation, StatusError> {
        match self.get("fieldValidation") {
            None | Some("Warn") => Ok(Validation::Warn),
            Some("Strict") => Ok(Validation::Strict),
            Some("Ignore") => Ok(Validation::Ignore),
            Some(other) => Err(StatusError::invalid(
                "CreateOptions",
                "meta.k8s.io",
                "",
                vec![Cause::not_supported(
                    "fieldValidation",
                    &other.into(),
                    &["Ignore", "Warn", "Strict"],
                )],
            )),
        }
    }

    fn write_options(&self) -> Result<WriteOptions, StatusError> {
        Ok(WriteOptions {
            dry_run: self.dry_run()?,
            field_manager: self.get("fieldManager").map(str::to_owned),
            strict: self.validation()? == Validation::Strict,
        })
    }

    fn list_options(&self, kind: KindRef) -> Result<ListOptions, StatusError> {
        Ok(ListOptions {
            selection: self.selection(kind)?,
            limit: self.number("limit")?,
            continue_token: self.get("continue").map(str::to_owned),
            resource_version: self.resource_version()?,
            version_match: match self.get("resourceVersionMatch") {
                None => None,
                Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
                Some("Exact") => Some(VersionMatch::Exact),
                Some(other) => {
                    return Err(list_options_invalid(Cause::not_supported(
                        "resourceVersionMatch",
                        &other.into(),
                        &["Exact", "NotOlderThan"],
                    )));
                }
            },
        })
    }

    fn selection(&self, kind: KindRef) -> Result<Selection, StatusError> {
        Selection::parse(kind, self.get("labelSelector"), self.get("fieldSelector"))
    }

    fn resource_version(&self) -> Result<Option<u64>, StatusError> {
        self.get("resourceVersion")
            .map(|text| {
                text.parse().map_err(|_| {
                    list_options_invalid(Cause::invalid(
                        "resourceVersion",
                        &text.into(),
                        "must be a number that this server gave",
                    ))
                })
            })
            .transpose()
    }
}

fn list_options_invalid(cause: Cause) -> StatusError {
    StatusError::invalid("ListOptions", "meta.k8s.io", "", vec![cause])
}

/// What becomes of fields that the kind does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Validation {
    Ignore,
    Warn,
    Strict,
}

#[derive(Clone, Copy)]
struct One<'a> {
    kind: KindRef,
    namespace: Option<&'a str>,
    name: &'a str,
}

/// Query, headers and body of a request that must have this method.
async fn take(request: Request, method: Method) -> Result<(Params, HeaderMap, Bytes), StatusError> {
    if *request.method() != method {
        return Err(StatusError::method_not_allowed());
    }
    split(request).await
}

async fn split(request: Request) -> Result<(Params, HeaderMap, Bytes), StatusError> {
    let params = Params::of(request.uri())?;
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX)
        .await
        .map_err(|error| {
            let too_large = std::error::Error::source(&error)
                .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
            if too_large {
                StatusError::request_entity_too_large(format!(
                    "Request entity too large: limit is {BODY_BYTES_MAX}"
                ))
            } else {
                StatusError::bad_request(format!("the request body could not be read: {error}"))
            }
        })?;
    Ok((params, parts.headers, body))
}

async fn collection(
    state: &AppState,
    caller: &Caller,
    kind: KindRef,
    namespace: Option<&str>,
    request: Request,
) -> Result<Response, StatusError> {
    match *request.method() {
        Method::GET | Method::HEAD => {
            let (parts, _) = request.into_parts();
            list_or_watch(state, caller, kind, namespace, &parts).await
        }
        Method::POST => {
            if kind.namespaced && namespace.is_none() {
                return Err(StatusError::method_not_allowed());
            }
            let (params, headers, body) = split(request).await?;
            let decoded = negotiate::decode(&headers, &body)?;
            let warnings = Warnings::of_body(kind, &decoded, params.validation()?)?;
            let object = whole_object(decoded.value)?;
            let form = negotiate::form(&headers)?;
            let created = state
                .objects
                .create(caller, kind, namespace, object, &params.write_options()?)
                .await?;
            let response = render(kind, created.as_value(), form, &params, StatusCode::CREATED)?;
            Ok(warnings.attach(response))
        }
        Method::DELETE => {
            let (params, headers, body) = split(request).await?;
            let list = params.list_options(kind)?;
            let options = delete_options(&params, sent_options(&headers, &body)?)?;
            let page = state
                .objects
                .delete_collection(caller, kind, namespace, &list, &options)
                .await?;
            Ok(json_bytes(list_bytes(kind, &page), StatusCode::OK))
        }
        _ => Err(StatusError::method_not_allowed()),
    }
}

async fn list_or_watch(
    state: &AppState,
    caller: &Caller,
    kind: KindRef,
    namespace: Option<&str>,
    // Without the body, which cannot be shared between threads while the verb waits.
    request: &http::request::Parts,
) -> Result<Response, StatusError> {
    let params = Params::of(&request.uri)?;
    let form = negotiate::form(&request.headers)?;
    let include = include(&params)?;
    if params.flag("watch")? == Some(true) {
        let options = watch_options(&params, kind)?;
        let settings = watch::Settings {
            form,
            include,
            bookmarks: params.flag("allowWatchBookmarks")?.unwrap_or(false),
            timeout: params
                .number::<u64>("timeoutSeconds")?
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs),
            clock: Timestamp::now,
        };
        let watch = state
            .objects
            .watch(caller, kind, namespace, options)
            .await?;
        return Ok(watch::respond(watch, settings, state.closing.clone()));
    }
    if params.get("sendInitialEvents").is_some() {
        return Err(list_options_invalid(Cause::forbidden(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for list",
        )));
    }
    let options = params.list_options(kind)?;
    let page = state
        .objects
        .list(caller, kind, namespace, &options)
        .await?;
    Ok(match form {
        Form::Whole | Form::Discovery(_) => json_bytes(list_bytes(kind, &page), StatusCode::OK),
        Form::Table(version) => {
            let style = Style {
                version,
                include,
                now: Timestamp::now(),
            };
            let table = table::table(kind, page.items.iter(), list_metadata(&page), style);
            json_value(&table, StatusCode::OK)
        }
        Form::Metadata => {
            let items: Vec<Value> = page
                .items
                .iter()
                .map(|item| table::metadata_only(&item.stored_value(), "v1"))
                .collect();
            let list = json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": list_metadata(&page),
                "items": items,
            });
            json_value(&list, StatusCode::OK)
        }
    })
}

/// The rules that Kubernetes has for the parameters of a watch, in its words.
fn watch_options(params: &Params, kind: KindRef) -> Result<WatchOptions, StatusError> {
    let send_initial_events = params.flag("sendInitialEvents")?;
    let version_match = params.get("resourceVersionMatch");
    if send_initial_events.is_some() {
        match version_match {
            Some("NotOlderThan") => {}
            None => {
                return Err(list_options_invalid(Cause::forbidden(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                )));
            }
            Some(other) => {
                return Err(list_options_invalid(Cause::not_supported(
                    "resourceVersionMatch",
                    &other.into(),
                    &["NotOlderThan"],
                )));
            }
        }
        if send_initial_events == Some(true) && params.flag("allowWatchBookmarks")? != Some(true) {
            return Err(list_options_invalid(Cause::forbidden(
                "sendInitialEvents",
                "sendInitialEvents requires allowWatchBookmarks",
            )));
        }
    } else if version_match.is_some() {
        return Err(list_options_invalid(Cause::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )));
    }
    Ok(WatchOptions {
        selection: params.selection(kind)?,
        resource_version: params.resource_version()?,
        send_initial_events,
    })
}

async fn object(
    state: &AppState,
    caller: &Caller,
    one: One<'_>,
    request: Request,
) -> Result<Response, StatusError> {
    let One {
        kind,
        namespace,
        name,
    } = one;
    let objects = &state.objects;
    match *request.method() {
        Method::GET | Method::HEAD => {
            let params = Params::of(request.uri())?;
            let form = negotiate::form(request.headers())?;
            let version = params.resource_version()?;
            let found = objects
                .get_at(caller, kind, namespace, name, version)
                .await?;
            match form {
                Form::Whole | Form::Discovery(_) => Ok(json_bytes(found.json(), StatusCode::OK)),
                Form::Table(_) | Form::Metadata => {
                    render(kind, &found.value(), form, &params, StatusCode::OK)
                }
            }
        }
        Method::PUT => {
            let (params, headers, body) = split(request).await?;
            let decoded = negotiate::decode(&headers, &body)?;
            let warnings = Warnings::of_body(kind, &decoded, params.validation()?)?;
            let object = whole_object(decoded.value)?;
            let form = negotiate::form(&headers)?;
            let options = params.write_options()?;
            let updated = objects
                .update(caller, kind, namespace, name, object, &options)
                .await?;
            let response = render(kind, updated.as_value(), form, &params, StatusCode::OK)?;
            Ok(warnings.attach(response))
        }
        Method::PATCH => patch(state, caller, one, None, request).await,
        Method::DELETE => {
            let (params, headers, body) = split(request).await?;
            let options = delete_options(&params, sent_options(&headers, &body)?)?;
            let deleted = objects
                .delete(caller, kind, namespace, name, &options)
                .await?;
            deletion_response(kind, name, deleted)
        }
        _ => Err(StatusError::method_not_allowed()),
    }
}

async fn patch(
    state: &AppState,
    caller: &Caller,
    one: One<'_>,
    subresource: Option<Subresource>,
    request: Request,
) -> Result<Response, StatusError> {
    let One {
        kind,
        namespace,
        name,
    } = one;
    let (params, headers, body) = split(request).await?;
    let media_type = negotiate::media_type(&headers);
    let patch_kind = PatchKind::of_media_type(media_type).ok_or_else(|| {
        StatusError::unsupported_media_type(match media_type {
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
                "server-side apply is not served yet: apply without --server-side".to_owned()
            }
            other => format!(
                "the body of the request was in an unknown format ({other}) - accepted media types include: application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json"
            ),
        })
    })?;
    let decoded = negotiate::decode_json(&body)?;
    let validation = params.validation()?;
    if validation == Validation::Strict && !decoded.faults.is_empty() {
        return Err(strict_decoding(kind, &decoded.faults));
    }
    let form = negotiate::form(&headers)?;
    let patched = state
        .objects
        .patch(
            caller,
            kind,
            namespace,
            name,
            subresource,
            patch_kind,
            &decoded.value,
            &params.write_options()?,
        )
        .await?;
    if subresource == Some(Subresource::Scale) {
        return render_scale(patched.as_value(), form, &params);
    }
    let mut warnings = Warnings::default();
    if validation == Validation::Warn {
        warnings.add_unknown(kind, patched.as_value());
    }
    let response = render(kind, patched.as_value(), form, &params, StatusCode::OK)?;
    Ok(warnings.attach(response))
}

async fn below_object(
    state: &AppState,
    caller: &Caller,
    one: One<'_>,
    subresource: Subresource,
    rest: &str,
    request: Request,
) -> Result<Response, StatusError> {
    let One {
        kind,
        namespace,
        name,
    } = one;
    let objects = &state.objects;
    let method = request.method().clone();
    match (subresource, method) {
        (Subresource::Log, Method::GET) => {
            let query = request.uri().query().unwrap_or("").to_owned();
            let headers = request.headers().clone();
            logs::serve(
                state,
                caller,
                namespace.unwrap_or(""),
                name,
                &query,
                &headers,
            )
            .await
        }
        (Subresource::Proxy, _) => proxy::serve(state, caller, name, rest, request).await,
        (Subresource::Binding, Method::POST) => {
            let (params, headers, body) = split(request).await?;
            let body = negotiate::decode(&headers, &body)?.value;
            bind(state, caller, namespace.unwrap_or(""), name, &body, &params).await
        }
        (Subresource::Eviction, Method::POST) => {
            let (params, headers, body) = split(request).await?;
            let eviction = negotiate::decode(&headers, &body)?.value;
            let sent = eviction.get("deleteOptions").cloned();
            let options = delete_options(&params, sent.unwrap_or_else(|| json!({})))?;
            objects
                .evict(caller, namespace.unwrap_or(""), name, &options)
                .await?;
            Ok(success(StatusCode::CREATED))
        }
        (Subresource::Scale, Method::GET) => {
            let params = Params::of(request.uri())?;
            let form = negotiate::form(request.headers())?;
            let scale = objects.scale(caller, kind, namespace, name).await?;
            render_scale(scale.as_value(), form, &params)
        }
        (Subresource::Scale, Method::PUT) => {
            let (params, headers, body) = split(request).await?;
            let scale = whole_object(negotiate::decode(&headers, &body)?.value)?;
            let form = negotiate::form(&headers)?;
            let options = params.write_options()?;
            let scale = objects
                .update_scale(caller, kind, namespace, name, scale, &options)
                .await?;
            render_scale(scale.as_value(), form, &params)
        }
        (Subresource::Status | Subresource::Approval, Method::GET) => {
            let params = Params::of(request.uri())?;
            let form = negotiate::form(request.headers())?;
            let found = objects.get(caller, kind, namespace, name).await?;
            render(kind, &found.value(), form, &params, StatusCode::OK)
        }
        (Subresource::Status | Subresource::Approval | Subresource::Finalize, Method::PUT) => {
            let (params, headers, body) = split(request).await?;
            let object = whole_object(negotiate::decode(&headers, &body)?.value)?;
            let form = negotiate::form(&headers)?;
            let options = params.write_options()?;
            let updated = match subresource {
                Subresource::Finalize => {
                    objects
                        .finalize_namespace(caller, name, object, &options)
                        .await?
                }
                Subresource::Approval => {
                    objects
                        .update_approval(caller, name, object, &options)
                        .await?
                }
                _ => {
                    objects
                        .update_status(caller, kind, namespace, name, object, &options)
                        .await?
                }
            };
            render(kind, updated.as_value(), form, &params, StatusCode::OK)
        }
        (Subresource::Status | Subresource::Scale | Subresource::Approval, Method::PATCH) => {
            patch(state, caller, one, Some(subresource), request).await
        }
        _ => Err(StatusError::method_not_allowed()),
    }
}

async fn bind(
    state: &AppState,
    caller: &Caller,
    namespace: &str,
    pod: &str,
    binding: &Value,
    params: &Params,
) -> Result<Response, StatusError> {
    let node = text(binding, "/target/name");
    let options = params.write_options()?;
    state
        .objects
        .bind(caller, namespace, pod, node, &options)
        .await?;
    Ok(success(StatusCode::CREATED))
}

fn success(status: StatusCode) -> Response {
    let body = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": status.as_u16(),
    });
    json_value(&body, status)
}

async fn review(
    caller: &Caller,
    review: &'static Review,
    request: Request,
) -> Result<Response, StatusError> {
    if caller.is_anonymous() {
        return Err(StatusError::unauthorized());
    }
    let (_, headers, body) = take(request, Method::POST).await?;
    let body = negotiate::decode(&headers, &body)?.value;
    let answer = reviews::answer(review, caller, body)?;
    Ok(json_value(&answer, StatusCode::CREATED))
}

fn whole_object(value: Value) -> Result<Object, StatusError> {
    Object::from_value(value).map_err(|error| {
        StatusError::bad_request(format!("the request body is no object: {error}"))
    })
}

fn include(params: &Params) -> Result<Include, StatusError> {
    let text = params.get("includeObject").unwrap_or("");
    Include::parse(text).ok_or_else(|| {
        StatusError::bad_request(format!("unrecognized includeObject value: {text:?}"))
    })
}

/// The DeleteOptions in a body, which may be empty.
fn sent_options(headers: &HeaderMap, body: &Bytes) -> Result<Value, StatusError> {
    if body.is_empty() {
        Ok(json!({}))
    } else {
        Ok(negotiate::decode(headers, body)?.value)
    }
}

/// Deletion options from the body, where clients of today put them, and from the query.
fn delete_options(params: &Params, mut sent: Value) -> Result<DeleteOptions, StatusError> {
    if let Some(seconds) = params.number::<i64>("gracePeriodSeconds")? {
        fill(&mut sent, "gracePeriodSeconds", seconds);
    }
    if let Some(policy) = params.get("propagationPolicy") {
        fill(&mut sent, "propagationPolicy", policy);
    }
    let orphan = params
        .flag("orphanDependents")?
        .or_else(|| sent.get("orphanDependents").and_then(Value::as_bool));
    let propagation = match text(&sent, "/propagationPolicy") {
        "" => orphan.map(|orphan| {
            if orphan {
                Propagation::Orphan
            } else {
                Propagation::Background
            }
        }),
        "Background" => Some(Propagation::Background),
        "Foreground" => Some(Propagation::Foreground),
        "Orphan" => Some(Propagation::Orphan),
        other => {
            return Err(StatusError::invalid(
                "DeleteOptions",
                "meta.k8s.io",
                "",
                vec![Cause::not_supported(
                    "propagationPolicy",
                    &other.into(),
                    &["Foreground", "Background", "Orphan"],
                )],
            ));
        }
    };
    let dry_run_in_body = weft_kinds::lens::items(&sent, "/dryRun")
        .iter()
        .any(|value| value == "All");
    let version = text(&sent, "/preconditions/resourceVersion");
    Ok(DeleteOptions {
        dry_run: dry_run_in_body || params.dry_run()?,
        grace_period_seconds: integer(&sent, "/gracePeriodSeconds"),
        propagation,
        uid: Some(text(&sent, "/preconditions/uid").to_owned()).filter(|uid| !uid.is_empty()),
        resource_version: match version {
            "" => None,
            version => Some(version.parse().map_err(|_| {
                StatusError::bad_request(format!(
                    "preconditions.resourceVersion must be a number that this server gave, not {version:?}"
                ))
            })?),
        },
    })
}

fn deletion_response(kind: KindRef, name: &str, deleted: Deleted) -> Result<Response, StatusError> {
    let gone = match deleted {
        Deleted::Marked(object) => return Ok(json_value(object.as_value(), StatusCode::OK)),
        // Whoever deletes a pod wants to know where it ran: Kubernetes returns these kinds whole.
        Deleted::Gone(object) if kind.deletes_gracefully() => {
            return Ok(json_value(object.as_value(), StatusCode::OK));
        }
        Deleted::Gone(object) => object,
    };
    let mut details = json!({"name": name, "kind": kind.resource, "uid": gone.uid()});
    if !kind.group.is_empty() {
        details["group"] = kind.group.into();
    }
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    });
    Ok(json_value(&status, StatusCode::OK))
}

/// One object in the form the client wants.
fn render(
    kind: KindRef,
    object: &Value,
    form: Form,
    params: &Params,
    status: StatusCode,
) -> Result<Response, StatusError> {
    Ok(match form {
        Form::Whole | Form::Discovery(_) => json_value(object, status),
        Form::Metadata => json_value(&table::metadata_only(object, "v1"), status),
        Form::Table(version) => {
            let style = Style {
                version,
                include: include(params)?,
                now: Timestamp::now(),
            };
            json_value(&table::table_of_one(kind, object, style), status)
        }
    })
}

fn render_scale(scale: &Value, form: Form, params: &Params) -> Result<Response, StatusError> {
    Ok(match form {
        Form::Whole | Form::Discovery(_) => json_value(scale, StatusCode::OK),
        Form::Metadata => json_value(&table::metadata_only(scale, "v1"), StatusCode::OK),
        Form::Table(version) => {
            let style = Style {
                version,
                include: include(params)?,
                now: Timestamp::now(),
            };
            json_value(&table::table_of_scale(scale, style), StatusCode::OK)
        }
    })
}

fn list_metadata(page: &Page) -> Value {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let Some(next) = &page.next {
        metadata["continue"] = next.as_str().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

/// A list made of stored bytes.
fn list_bytes(kind: KindRef, page: &Page) -> Bytes {
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
        kind.kind,
        kind.api_version(),
        list_metadata(page)
    );
    let mut out = head.into_bytes();
    for (index, item) in page.items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        item.write_json(&mut out);
    }
    out.extend_from_slice(b"]}\n");
    Bytes::from(out)
}

fn json_value(value: &Value, status: StatusCode) -> Response {
    json_bytes(Bytes::from(value.to_string()), status)
}

fn json_bytes(bytes: Bytes, status: StatusCode) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

/// What is sent as `Warning` headers.
#[derive(Default)]
struct Warnings(Vec<String>);

impl Warnings {
    /// Judges a body by `fieldValidation`; unknown fields under Strict are refused by the verb itself.
    fn of_body(
        kind: KindRef,
        decoded: &Decoded,
        validation: Validation,
    ) -> Result<Self, StatusError> {
        let faults = &decoded.faults;
        match validation {
            Validation::Strict if !faults.is_empty() => {
                let mut all: Vec<String> = unknown_texts(kind, &decoded.value);
                all.extend(faults.iter().cloned());
                Err(strict_decoding(kind, &all))
            }
            Validation::Strict | Validation::Ignore => Ok(Self::default()),
            Validation::Warn => {
                let mut warnings = Self(faults.clone());
                warnings.add_unknown(kind, &decoded.value);
                Ok(warnings)
            }
        }
    }

    fn add_unknown(&mut self, kind: KindRef, value: &Value) {
        self.0.extend(unknown_texts(kind, value));
    }

    fn attach(self, mut response: Response) -> Response {
        for text in self.0.into_iter().take(WARNINGS_MAX) {
            let quoted: String = text
                .chars()
                .filter(|c| c.is_ascii() && !c.is_ascii_control())
                .flat_map(|c| {
                    let escape = matches!(c, '"' | '\\').then_some('\\');
                    escape.into_iter().chain([c])
                })
                .collect();
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
                response.headers_mut().append(WARNING, value);
            }
        }
        response
    }
}

fn unknown_texts(kind: KindRef, value: &Value) -> Vec<String> {
    schema::unknown_fields(&kind.gvk(), value)
        .into_iter()
        .map(|field| format!("unknown field {field:?}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_decode_by_the_table() {
        for (path, expected) in [
            ("/api/v1/pods", "all pods"),
            ("/api/v1/namespaces", "all namespaces"),
            ("/api/v1/namespaces/a", "namespaces a"),
            ("/api/v1/namespaces/a/finalize", "namespaces a Finalize"),
            ("/api/v1/namespaces/a/pods", "a pods"),
            ("/api/v1/namespaces/a/pods/p", "a pods p"),
            ("/api/v1/namespaces/a/pods/p/log", "a pods p Log"),
            ("/api/v1/nodes/n/proxy/metrics/x", "nodes n Proxy metrics/x"),
            (
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "a deployments d Scale",
            ),
            (
                "/apis/certificates.k8s.io/v1/certificatesigningrequests/node%3An",
                "certificatesigningrequests node:n",
            ),
            ("/api/v1/pods/p", "none"),
            ("/api/v1/namespaces/a/nodes", "none"),
            ("/api/v1/namespaces/a/pods/p/exec", "none"),
            ("/api/v1/namespaces/a/pods/..%2Fx", "none"),
            ("/api/v1/namespaces/%2e%2e/pods", "none"),
            ("/api/v1/namespaces/a/pods/p%00", "none"),
            ("/apis/apps/v1beta1/deployments", "none"),
        ] {
            let found = match target_of(path) {
                None => "none".to_owned(),
                Some(Target::Collection { kind, namespace }) => format!(
                    "{} {}",
                    namespace.as_deref().unwrap_or("all"),
                    kind.resource
                ),
                Some(Target::One {
                    kind,
                    namespace,
                    name,
                    subresource,
                    rest,
                }) => {
                    let subresource = subresource.map(|s| format!("{s:?}")).unwrap_or_default();
                    let parts = [
                        namespace.unwrap_or_default(),
                        kind.resource.to_owned(),
                        name,
                        subresource,
                        rest,
                    ];
                    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                    parts.join(" ")
                }
                Some(other) => format!("{other:?}"),
            };
            assert_eq!(found, expected, "{path}");
        }
    }
}
