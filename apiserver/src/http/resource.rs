//! Resource paths: from a URL to one verb, and from its result to bytes.
//!
//! What the URL names is decoded and allowed already ([`Authorized`]); there is no route per kind. A list is written by
//! concatenating stored bytes.
//!
//! Invariant: one request calls one verb, with the proof that it came with. Left to others: what the verbs do (`crate::objects`), watching (`super::watch`).

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::gvk::GroupVersionKind;
use weft_api::object::Object;
use weft_api::status::{Cause, StatusError};
use weft_kinds::lens::{fill, integer, text};
use weft_kinds::patch::PatchKind;

use super::encoding::{Answer, Encodings};
use super::error::ApiError;
use super::large::Received;
use super::list::{self, Shape};
use super::negotiate::{self, Decoded, Form};
use super::table::{self, Include, Style};
use super::{AppState, discovery, logs, proxy, reviews, usage, watch};
use crate::authz::Authorized;
use crate::objects::{
    Binding, DeleteOptions, Deleted, Operation, POD_HEADER, Patch, PodRef, Propagation,
    WatchOptions, scale_kind, strict_decoding,
};
use crate::request::{Asked, ObjectRef, Params, Resource, Validation, list_options_invalid};
use weft_kinds::{KindRef, Subresource};

const WARNING: HeaderName = HeaderName::from_static("warning");
/// Warnings sent with one answer; more would only fill the client's terminal.
const WARNINGS_MAX: usize = 20;

/// Answers everything that is no route of its own.
pub async fn dispatch(
    State(state): State<AppState>,
    Extension(asked): Extension<Authorized>,
    request: Request,
) -> Response {
    match answer(&state, &asked, request).await {
        Ok(response) => response,
        Err(error) => ApiError(error).into_response(),
    }
}

async fn answer(
    state: &AppState,
    asked: &Authorized,
    request: Request,
) -> Result<Response, StatusError> {
    let params = || asked.request().params();
    match &asked.request().asked {
        Asked::Resource(resource) => match (resource.object(), resource.subresource) {
            (None, _) => collection(state, asked, resource, request).await,
            (Some(object), None) => on_object(state, asked, object, request).await,
            (Some(object), Some(subresource)) => {
                let rest = &resource.rest;
                on_subresource(state, asked, object, subresource, rest, request).await
            }
        },
        Asked::Bindings { .. } => {
            require_method(&request, Method::POST)?;
            let received = state.large_bodies.receive(request).await?;
            let body = negotiate::decode(&received.headers, &received.body)?.value;
            bind(state, asked, text(&body, "/metadata/name"), &body).await
        }
        Asked::Review(review) => {
            require_method(&request, Method::POST)?;
            let received = state.large_bodies.receive(request).await?;
            let body = negotiate::decode(&received.headers, &received.body)?.value;
            let answer = reviews::answer(review, asked.caller(), body)?;
            Ok(json_value(&answer, StatusCode::CREATED))
        }
        Asked::Computed {
            kind,
            namespace,
            name,
        } => {
            require_method(&request, Method::GET)?;
            usage::answer(
                state,
                kind,
                namespace.as_deref(),
                name.as_deref(),
                params()?,
            )
            .await
        }
        Asked::Path(path) => {
            match discovery::answer(&state.objects.registry(), path, request.headers()) {
                Some(_) if *request.method() != Method::GET => {
                    Err(StatusError::method_not_allowed())
                }
                Some(answer) => {
                    let mut answer = answer?;
                    answer.extensions_mut().insert(Answer::Whole);
                    Ok(answer)
                }
                None => Err(StatusError::unknown_path()),
            }
        }
        Asked::Registry => Err(StatusError::unknown_path()),
    }
}

fn require_method(request: &Request, method: Method) -> Result<(), StatusError> {
    if *request.method() == method {
        Ok(())
    } else {
        Err(StatusError::method_not_allowed())
    }
}

async fn collection(
    state: &AppState,
    asked: &Authorized,
    resource: &Resource,
    request: Request,
) -> Result<Response, StatusError> {
    let kind = &resource.kind;
    match *request.method() {
        Method::GET | Method::HEAD => {
            list_or_watch(state, asked, resource, request.headers().clone()).await
        }
        Method::POST => {
            if kind.namespaced && resource.namespace.is_none() {
                return Err(StatusError::method_not_allowed());
            }
            let params = asked.request().params()?;
            let received = state.large_bodies.receive(request).await?;
            let decoded = negotiate::decode_object(&received.headers, &received.body, &kind.gvk())?;
            let mut warnings = Warnings::of_body(&kind.gvk(), &decoded, params.validation()?)?;
            let object = whole_object(decoded.value)?;
            let form = negotiate::form(&received.headers)?;
            let options = params.write_options()?;
            let created = state.objects.create(asked, object, &options).await?;
            warnings.0.extend(options.advice.take_all());
            let response = render(kind, created.as_value(), form, params, StatusCode::CREATED)?;
            Ok(warnings.attach(response))
        }
        Method::DELETE => {
            let params = asked.request().params()?;
            let list = params.list_options(kind)?;
            let received = state.large_bodies.receive(request).await?;
            let options = delete_options(params, sent_options(&received)?)?;
            let encodings = Encodings::of(&received.headers);
            let page = state
                .objects
                .delete_collection(asked, &list, &options)
                .await?;
            Ok(list::respond(kind, page, Shape::Whole, &encodings, &state.bulk).await)
        }
        _ => Err(StatusError::method_not_allowed()),
    }
}

async fn list_or_watch(
    state: &AppState,
    asked: &Authorized,
    resource: &Resource,
    headers: HeaderMap,
) -> Result<Response, StatusError> {
    let kind = &resource.kind;
    let params = asked.request().params()?;
    let form = negotiate::form(&headers)?;
    let include = include(params)?;
    if asked.request().verb == "watch" {
        let options = watch_options(params, kind)?;
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
        let watch = state.objects.watch(asked, options).await?;
        let store = state.objects.store().clone();
        return Ok(watch::respond(
            watch,
            settings,
            store,
            state.closing.clone(),
        ));
    }
    if params.get("sendInitialEvents").is_some() {
        return Err(list_options_invalid(Cause::forbidden(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for list",
        )));
    }
    let options = params.list_options(kind)?;
    let page = state.objects.list(asked, &options).await?;
    let shape = Shape::of(form, |version| Style {
        version,
        include,
        now: Timestamp::now(),
    });
    let encodings = Encodings::of(&headers);
    Ok(list::respond(kind, page, shape, &encodings, &state.bulk).await)
}

/// The rules that Kubernetes has for the parameters of a watch, in its words.
fn watch_options(params: &Params, kind: KindRef<'_>) -> Result<WatchOptions, StatusError> {
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

async fn on_object(
    state: &AppState,
    asked: &Authorized,
    object: ObjectRef<'_>,
    request: Request,
) -> Result<Response, StatusError> {
    let ObjectRef { kind, name, .. } = object;
    let objects = &state.objects;
    match *request.method() {
        Method::GET | Method::HEAD => {
            let params = asked.request().params()?;
            let form = negotiate::form(request.headers())?;
            let version = params.resource_version()?;
            let found = objects.get(asked, version).await?;
            match form {
                Form::Whole | Form::Discovery(_) => Ok(json_bytes(found.json(), StatusCode::OK)),
                Form::Table(_) | Form::Metadata => {
                    render(kind, &found.value(), form, params, StatusCode::OK)
                }
            }
        }
        Method::PUT => update(state, asked, kind, None, request).await,
        Method::PATCH => patch(state, asked, object, None, request).await,
        Method::DELETE => {
            let params = asked.request().params()?;
            let received = state.large_bodies.receive(request).await?;
            let options = delete_options(params, sent_options(&received)?)?;
            let deleted = objects.delete(asked, &options).await?;
            deletion_response(kind, name, deleted)
        }
        _ => Err(StatusError::method_not_allowed()),
    }
}

/// Replaces an object, or what a subresource shows of it.
async fn update(
    state: &AppState,
    asked: &Authorized,
    kind: KindRef<'_>,
    subresource: Option<Subresource>,
    request: Request,
) -> Result<Response, StatusError> {
    let params = asked.request().params()?;
    let received = state.large_bodies.receive(request).await?;
    let gvk = match subresource {
        Some(Subresource::Scale) => scale_kind(),
        _ => kind.gvk(),
    };
    let decoded = negotiate::decode_object(&received.headers, &received.body, &gvk)?;
    let mut warnings = Warnings::of_body(&gvk, &decoded, params.validation()?)?;
    let body = whole_object(decoded.value)?;
    let form = negotiate::form(&received.headers)?;
    let options = params.write_options()?;
    let updated = state.objects.update(asked, body, &options).await?;
    warnings.0.extend(options.advice.take_all());
    let response = render_part(kind, subresource, updated.as_value(), form, params)?;
    Ok(warnings.attach(response))
}

async fn patch(
    state: &AppState,
    asked: &Authorized,
    object: ObjectRef<'_>,
    subresource: Option<Subresource>,
    request: Request,
) -> Result<Response, StatusError> {
    let kind = object.kind;
    let params = asked.request().params()?;
    let received = state.large_bodies.receive(request).await?;
    let media_type = negotiate::media_type(&received.headers);
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
    let decoded = negotiate::decode_json(&received.body)?;
    let validation = params.validation()?;
    if validation == Validation::Strict && !decoded.faults.is_empty() {
        return Err(strict_decoding(&kind.gvk(), &decoded.faults));
    }
    let form = negotiate::form(&received.headers)?;
    let options = params.write_options()?;
    let patch = Patch {
        kind: patch_kind,
        body: &decoded.value,
    };
    let patched = state.objects.patch(asked, patch, &options).await?;
    let mut warnings = Warnings::default();
    if validation == Validation::Warn {
        warnings.0.extend(decoded.faults);
        warnings.0.extend(options.warnings.take_all());
    }
    warnings.0.extend(options.advice.take_all());
    let response = render_part(kind, subresource, patched.as_value(), form, params)?;
    Ok(warnings.attach(response))
}

/// Something below an object; `rest` is what follows the subresource.
async fn on_subresource(
    state: &AppState,
    asked: &Authorized,
    object: ObjectRef<'_>,
    subresource: Subresource,
    rest: &str,
    request: Request,
) -> Result<Response, StatusError> {
    let ObjectRef {
        kind,
        namespace,
        name,
    } = object;
    let objects = &state.objects;
    let method = request.method().clone();
    match (subresource, method) {
        (Subresource::Log, Method::GET) => {
            logs::serve(
                state,
                namespace.unwrap_or(""),
                name,
                asked.request().params()?,
            )
            .await
        }
        (Subresource::Proxy, _) => proxy::serve(state, name, rest, request).await,
        (Subresource::Binding, Method::POST) => {
            let received = state.large_bodies.receive(request).await?;
            let body = negotiate::decode(&received.headers, &received.body)?.value;
            let named = text(&body, "/metadata/name");
            let pod = if named.is_empty() { name } else { named };
            bind(state, asked, pod, &body).await
        }
        (Subresource::Eviction, Method::POST) => {
            let received = state.large_bodies.receive(request).await?;
            let eviction = negotiate::decode(&received.headers, &received.body)?.value;
            let sent = eviction.get("deleteOptions").cloned();
            let options =
                delete_options(asked.request().params()?, sent.unwrap_or_else(|| json!({})))?;
            objects.evict(asked, &options).await?;
            Ok(success(StatusCode::CREATED))
        }
        (Subresource::Data, Method::POST) => {
            if asked.request().params()?.write_options()?.dry_run {
                return Err(StatusError::bad_request(
                    "operations on a key-value store cannot be tried: send them without dryRun",
                ));
            }
            let received = state.large_bodies.receive(request).await?;
            let pod = received.headers.get(POD_HEADER);
            let pod = pod.map(|pod| PodRef::parse(pod.to_str().unwrap_or("")));
            let pod = pod.transpose()?;
            let operation = Operation::parse(&received.body)?;
            // Its place is for others: the operation may wait for long, and has what it needs.
            drop(received);
            let answer = objects.data(asked, pod, operation).await?;
            Ok(json_value(&answer, StatusCode::OK))
        }
        (Subresource::Scale, Method::GET) => {
            let params = asked.request().params()?;
            let form = negotiate::form(request.headers())?;
            let scale = objects.scale(asked).await?;
            render_scale(scale.as_value(), form, params)
        }
        (Subresource::Status | Subresource::Approval, Method::GET) => {
            let params = asked.request().params()?;
            let form = negotiate::form(request.headers())?;
            let found = objects.get(asked, None).await?;
            render(kind, &found.value(), form, params, StatusCode::OK)
        }
        (
            Subresource::Status
            | Subresource::Approval
            | Subresource::Finalize
            | Subresource::Scale,
            Method::PUT,
        ) => update(state, asked, kind, Some(subresource), request).await,
        (Subresource::Status | Subresource::Scale | Subresource::Approval, Method::PATCH) => {
            patch(state, asked, object, Some(subresource), request).await
        }
        _ => Err(StatusError::method_not_allowed()),
    }
}

async fn bind(
    state: &AppState,
    asked: &Authorized,
    pod: &str,
    body: &Value,
) -> Result<Response, StatusError> {
    let options = asked.request().params()?.write_options()?;
    let binding = Binding {
        pod,
        node: text(body, "/target/name"),
        uid: text(body, "/metadata/uid"),
        resource_version: text(body, "/metadata/resourceVersion"),
    };
    state.objects.bind(asked, binding, &options).await?;
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
fn sent_options(received: &Received) -> Result<Value, StatusError> {
    let Received { headers, body, .. } = received;
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

fn deletion_response(
    kind: KindRef<'_>,
    name: &str,
    deleted: Deleted,
) -> Result<Response, StatusError> {
    let gone = match deleted {
        Deleted::Marked(object) => return Ok(json_value(object.as_value(), StatusCode::OK)),
        // Whoever deletes a pod wants to know where it ran: Kubernetes returns these kinds whole.
        Deleted::Gone(object) if kind.strategy.returns_deleted() => {
            return Ok(json_value(object.as_value(), StatusCode::OK));
        }
        Deleted::Gone(object) => object,
    };
    let mut details = json!({"name": name, "kind": kind.resource, "uid": gone.uid()});
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
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
    kind: KindRef<'_>,
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

/// What a write to an object, or to a part of it, leads to.
fn render_part(
    kind: KindRef<'_>,
    subresource: Option<Subresource>,
    shown: &Value,
    form: Form,
    params: &Params,
) -> Result<Response, StatusError> {
    match subresource {
        Some(Subresource::Scale) => render_scale(shown, form, params),
        _ => render(kind, shown, form, params, StatusCode::OK),
    }
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
    response.extensions_mut().insert(Answer::Whole);
    response
}

/// What is sent as `Warning` headers.
#[derive(Default)]
struct Warnings(Vec<String>);

impl Warnings {
    /// Judges a body by `fieldValidation`.
    fn of_body(
        gvk: &GroupVersionKind,
        decoded: &Decoded,
        validation: Validation,
    ) -> Result<Self, StatusError> {
        let faults = &decoded.faults;
        match validation {
            Validation::Strict if !faults.is_empty() => Err(strict_decoding(gvk, faults)),
            Validation::Strict | Validation::Ignore => Ok(Self::default()),
            Validation::Warn => Ok(Self(faults.clone())),
        }
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
