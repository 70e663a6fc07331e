//! Resource paths: from a URL to one verb, and from its result to bytes.
//!
//! What the URL names is decoded and allowed already ([`Authorized`]); there is no route per kind. A list is written by
//! concatenating stored bytes.
//!
//! Invariant: one request calls one verb, with the proof that it came with. Left to others: what the verbs do (`crate::objects`), watching (`super::watch`).

mod answer;
mod deletion;

use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::gvk::GroupVersionKind;
use weft_api::object::Object;
use weft_api::status::StatusError;
use weft_kinds::lens::text;
use weft_kinds::patch::{PatchKind, not_strategic};

use self::answer::{
    Warnings, deletion_response, include, json_bytes, json_value, render, render_part,
    render_scale, render_written, success,
};
use self::deletion::{delete_options, sent_options};
use super::encoding::{Answer, Encodings};
use super::error::ApiError;
use super::large::Received;
use super::list::{self, Shape};
use super::negotiate::{self, Form};
use super::table::{self, Style};
use super::{
    AppState, activations, aggregated, calls, components, discovery, edges, logs, proxied, proxy,
    reviews, streams, usage, watch, websocket,
};
use crate::authz::Authorized;
use crate::objects::{
    Binding, Evicted, Operation, POD_HEADER, Patch, PodRef, WatchOptions, WriteOptions, scale_kind,
};
use crate::request::{Asked, ObjectRef, Params, RequestInfo, Resource, Validation, Write};
use weft_kinds::{KindRef, Registry, Subresource};

/// Longest time of a watch that anybody could mean; clocks have no room for all that can be asked for.
const WATCH_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// How far below an object a path is looked at that leads nowhere.
const BELOW_MAX: usize = 3;

/// Answers everything that is no route of its own.
pub async fn dispatch(
    State(state): State<AppState>,
    Extension(asked): Extension<Authorized>,
    request: Request,
) -> Response {
    let response = match answer(&state, &asked, request).await {
        Ok(response) => response,
        Err(error) => ApiError(error).into_response(),
    };
    let kind = match &asked.request().asked {
        Asked::Resource(resource) => Some(&resource.kind),
        Asked::Review { kind, .. } | Asked::Computed { kind, .. } => Some(kind),
        Asked::Bindings { .. } | Asked::Aggregated(_) | Asked::Registry | Asked::Path(_) => None,
    };
    let told = kind.and_then(|kind| match &kind.custom {
        Some(custom) => custom.deprecation().map(str::to_owned),
        None => kind.deprecated.as_ref().map(ToString::to_string),
    });
    let told = told.into_iter().collect();
    Warnings(told).attach(response)
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
        Asked::Review { kind, namespace } => {
            require_method(&request, Method::POST)?;
            let received = state.large_bodies.receive(request).await?;
            let form = negotiate::form(&received.headers)?;
            form.check(kind, false)?;
            if let Form::Table(_) = form {
                // An answer to a question is no object, and has no row.
                return Err(StatusError {
                    message: format!(
                        "the resource {} does not support being converted to a Table",
                        qualified(kind)
                    ),
                    ..StatusError::not_acceptable("")
                });
            }
            let body = negotiate::decode(&received.headers, &received.body)?.value;
            let answer = match (&*kind.kind, namespace) {
                ("Activation", Some(namespace)) => {
                    activations::answer(state, namespace, body).await?
                }
                _ => {
                    let namespace = namespace.as_deref();
                    reviews::answer(state, kind, namespace, asked.caller(), body).await?
                }
            };
            Ok(json_value(&answer, StatusCode::CREATED))
        }
        Asked::Computed {
            kind,
            namespace,
            name,
            metric,
        } => {
            require_method(&request, Method::GET)?;
            if let (Some(name), Some(metric)) = (name, metric) {
                let namespace = namespace.as_deref();
                let asked = (name.as_str(), metric.as_str());
                return calls::answer(state, kind, namespace, asked, params()?).await;
            }
            if kind.served.is_told() {
                return edges::answer(state, asked, kind, namespace.as_deref()).await;
            }
            if kind.group.is_empty() {
                let form = negotiate::form(request.headers())?;
                return computed(state, kind, name.as_deref(), form, params()?).await;
            }
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
            let served = discovery::Served {
                registry: &state.objects.registry(),
                registered: &state.objects.api_services(),
                documents: state.objects.aggregation().documents(),
            };
            match discovery::answer(&served, path, request.headers()) {
                Some(_) if *request.method() != Method::GET => {
                    Err(StatusError::method_not_allowed())
                }
                Some(answer) => {
                    let mut answer = answer?;
                    answer.extensions_mut().insert(Answer::Whole);
                    Ok(answer)
                }
                None => Err(unserved(&state.objects.registry(), path)),
            }
        }
        Asked::Aggregated(one) => Ok(aggregated::serve(state, asked, one, request).await),
        Asked::Registry => Err(StatusError::unknown_path()),
    }
}

/// What leads nowhere. Below an object of a user's kind it is the object that is not found, as Kubernetes tells it.
fn unserved(registry: &Registry, path: &str) -> StatusError {
    let parent = |path: &str| path.rsplit_once('/').map(|(above, _)| above.to_owned());
    let above = std::iter::successors(parent(path), |path| parent(path));
    let custom = above.take(BELOW_MAX).find_map(|above| {
        let uri = above.parse().ok()?;
        match RequestInfo::of(registry, &Method::GET, &uri).asked {
            Asked::Resource(Resource { kind, name, .. }) if kind.custom.is_some() => {
                Some(StatusError::not_found(&kind.resource, &kind.group, &name?))
            }
            _ => None,
        }
    });
    custom.unwrap_or_else(StatusError::unknown_path)
}

/// The parts of the control plane, or one of them.
async fn computed(
    state: &AppState,
    kind: KindRef<'_>,
    name: Option<&str>,
    form: Form,
    params: &Params,
) -> Result<Response, StatusError> {
    let parts = components::parts(state).await;
    if let Some(name) = name {
        let part = parts
            .into_iter()
            .find(|part| text(part, "/metadata/name") == name);
        let missing = || StatusError::not_found(&kind.resource, &kind.group, name);
        return render(
            kind,
            &part.ok_or_else(missing)?,
            form,
            params,
            StatusCode::OK,
        );
    }
    form.check(kind, true)?;
    let selection = params.selection(kind)?;
    let chosen: Vec<Value> = parts
        .into_iter()
        .filter(|part| selection.matches_names(text(part, "/metadata/name")))
        .collect();
    let list = match form {
        Form::Whole | Form::Discovery(_) => components::list(kind, &chosen),
        Form::Metadata | Form::MetadataList => {
            let chosen: Vec<Value> = chosen
                .iter()
                .map(|part| table::metadata_only(part, "v1"))
                .collect();
            json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {},
                "items": chosen,
            })
        }
        Form::Table(version) => {
            let style = Style {
                version,
                include: include(params, form)?,
                now: Timestamp::now(),
            };
            table::table_of_all(kind, &chosen, style)
        }
    };
    Ok(json_value(&list, StatusCode::OK))
}

/// A kind's resource as messages name it: with its group, if it has one.
fn qualified(kind: KindRef<'_>) -> String {
    match &*kind.group {
        "" => kind.resource.to_string(),
        group => format!("{}.{group}", kind.resource),
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
        Method::GET => list_or_watch(state, asked, resource, request).await,
        Method::POST => {
            if kind.namespaced && resource.namespace.is_none() {
                return Err(StatusError::method_not_allowed());
            }
            let params = asked.request().params()?;
            let received = state.large_bodies.receive(request).await?;
            let agent = negotiate::user_agent(&received.headers);
            let options = params.write_options(Write::Create, agent)?;
            let decoded =
                negotiate::decode_object(&received.headers, &received.body, &kind.gvk(), kind)?;
            let mut warnings = Warnings::of_body(&kind.gvk(), &decoded, params.validation())?;
            let object = whole_object(decoded.value)?;
            let form = negotiate::form(&received.headers)?;
            let objects = &state.objects;
            let created = objects.create_read(asked, object.into_value(), &options);
            let created = created.await?;
            warnings.0.extend(options.advice.take_all());
            let response = match (created.json, form) {
                (Some(json), Form::Whole | Form::Discovery(_)) => {
                    form.check(kind, false)?;
                    json_bytes(json, StatusCode::CREATED)
                }
                _ => {
                    let created = created.object.as_value();
                    render(kind, created, form, params, StatusCode::CREATED)?
                }
            };
            Ok(warnings.attach(response))
        }
        Method::DELETE => {
            let params = asked.request().params()?;
            let list = params.list_options(kind)?;
            let received = state.large_bodies.receive(request).await?;
            let options = delete_options(params, sent_options(&received)?)?;
            let form = negotiate::form(&received.headers)?;
            form.check(kind, true)?;
            let include = include(params, form)?;
            let page = state
                .objects
                .delete_collection(asked, &list, &options)
                .await?;
            let shape = Shape::of(form, |version| Style {
                version,
                include,
                now: Timestamp::now(),
            });
            let encodings = Encodings::of(&received.headers);
            Ok(list::respond(kind, page, shape, &encodings, &state.bulk).await)
        }
        _ => Err(StatusError::method_not_allowed()),
    }
}

async fn list_or_watch(
    state: &AppState,
    asked: &Authorized,
    resource: &Resource,
    request: Request,
) -> Result<Response, StatusError> {
    let kind = &resource.kind;
    let params = asked.request().params()?;
    let form = negotiate::form(request.headers())?;
    let include = include(params, form)?;
    let watches = asked.request().verb == "watch";
    // A watch answers one object after the other.
    form.check(kind, !watches)?;
    if watches {
        let options = watch_options(params, kind)?;
        let settings = watch::Settings {
            form,
            include,
            bookmarks: params.flag("allowWatchBookmarks").unwrap_or(false),
            timeout: watch_time(params)?,
            clock: Timestamp::now,
        };
        let watch = state.objects.watch(asked, options).await?;
        let (store, closing) = (state.objects.store().clone(), state.closing.clone());
        let response = watch::respond(watch, settings, store, closing);
        if websocket::is_asked(request.headers()) {
            let sockets = &state.sockets;
            return Ok(sockets.respond(request, response, &state.answers).await);
        }
        return Ok(response);
    }
    let options = params.list_options(kind)?;
    let page = state.objects.list(asked, &options).await?;
    let shape = Shape::of(form, |version| Style {
        version,
        include,
        now: Timestamp::now(),
    });
    let encodings = Encodings::of(request.headers()).with(params);
    Ok(list::respond(kind, page, shape, &encodings, &state.bulk).await)
}

/// How long a watch lasts; `None` where the client leaves that to the server. One that has no time at all ends when it began.
fn watch_time(params: &Params) -> Result<Option<Duration>, StatusError> {
    let seconds = params.number("timeoutSeconds")?;
    let seconds = seconds.filter(|seconds| *seconds != 0);
    Ok(seconds
        .map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(WATCH_MAX)))
}

/// What a watch asks for.
fn watch_options(params: &Params, kind: KindRef<'_>) -> Result<WatchOptions, StatusError> {
    params.check_reading(true)?;
    Ok(WatchOptions {
        selection: params.selection(kind)?,
        resource_version: params.resource_version()?,
        send_initial_events: params.flag("sendInitialEvents"),
        marks_end: params.flag("allowWatchBookmarks") == Some(true),
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
        Method::GET => {
            let params = asked.request().params()?;
            let form = negotiate::form(request.headers())?;
            let version = params.resource_version()?;
            let found = objects.get(asked, version).await?;
            match form {
                Form::Whole | Form::Discovery(_) => Ok(json_bytes(found.json(), StatusCode::OK)),
                Form::Table(_) | Form::Metadata | Form::MetadataList => {
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
            let mut warnings = Warnings::default();
            warnings.0.extend(options.advice.take_all());
            let response = deletion_response(kind, name, deleted)?;
            Ok(warnings.attach(response))
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
    let agent = negotiate::user_agent(&received.headers);
    let options = params.write_options(Write::Update, agent)?;
    let gvk = match subresource {
        Some(Subresource::Scale) => scale_kind(),
        _ => kind.gvk(),
    };
    let (headers, text) = (&received.headers, &received.body);
    let decoded = match subresource {
        Some(Subresource::Scale) => negotiate::decode_object(headers, text, &gvk, &gvk)?,
        _ => negotiate::decode_object(headers, text, &gvk, kind)?,
    };
    let mut warnings = Warnings::of_body(&gvk, &decoded, params.validation())?;
    let body = whole_object(decoded.value)?;
    let form = negotiate::form(&received.headers)?;
    let written = state.objects.update(asked, body, &options).await?;
    warnings.0.extend(options.advice.take_all());
    let response = render_written(kind, subresource, &written, form, params)?;
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
    let agent = negotiate::user_agent(&received.headers);
    if media_type == negotiate::APPLY {
        return apply(state, asked, kind, subresource, &received).await;
    }
    let patch_kind =
        PatchKind::of_media_type(media_type).ok_or_else(|| match kind.merges_strategically {
            true => StatusError::unsupported_media_type("415: Unsupported Media Type"),
            false => not_strategic(),
        })?;
    let form = negotiate::form(&received.headers)?;
    let mut options = params.write_options(Write::Patch, agent)?;
    let decoded = negotiate::decode_json(&received.body)?;
    options.noted = match patch_kind {
        PatchKind::Json => {
            let faults = decoded.faults.iter();
            faults.map(|fault| format!("json patch {fault}")).collect()
        }
        PatchKind::Merge | PatchKind::Strategic => decoded.faults,
    };
    let patch = Patch {
        kind: patch_kind,
        body: &decoded.value,
    };
    let patched = state.objects.patch(asked, patch, &options).await?;
    let mut warnings = Warnings::default();
    if params.validation() == Validation::Warn {
        warnings.0.extend(options.warnings.take_all());
    }
    warnings.0.extend(options.advice.take_all());
    let response = render_part(kind, subresource, patched.as_value(), form, params)?;
    Ok(warnings.attach(response))
}

/// Lays a configuration over an object, or over what a subresource shows of it.
async fn apply(
    state: &AppState,
    asked: &Authorized,
    kind: KindRef<'_>,
    subresource: Option<Subresource>,
    received: &Received,
) -> Result<Response, StatusError> {
    let params = asked.request().params()?;
    let form = negotiate::form(&received.headers)?;
    let agent = negotiate::user_agent(&received.headers);
    let options = params.write_options(Write::Apply, agent)?;
    let force = params.force();
    let config = negotiate::decode_applied(&received.body)?;
    let objects = &state.objects;
    let validation = params.validation();
    // A configuration that cannot be applied is told as such first, and strictly read after that.
    if let (Validation::Strict, Some(fault)) = (validation, &config.fault) {
        let tried = WriteOptions {
            dry_run: true,
            ..options
        };
        objects.apply(asked, &config.value, force, &tried).await?;
        return Err(StatusError::bad_request(format!(
            "error strict decoding patch: error converting YAML to JSON: yaml: unmarshal errors:\n  {fault}"
        )));
    }
    let written = objects.apply(asked, &config.value, force, &options).await?;
    let mut warnings = Warnings::default();
    if validation == Validation::Warn {
        warnings.0.extend(config.fault);
    }
    warnings.0.extend(options.advice.take_all());
    let response = render_written(kind, subresource, &written, form, params)?;
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
            let (namespace, params) = (namespace.unwrap_or(""), asked.request().params()?);
            let log = logs::serve(state, namespace, name, params).await?;
            if !websocket::is_asked(request.headers()) {
                return Ok(log);
            }
            let (sockets, tasks) = (&state.sockets, &state.answers);
            Ok(sockets.respond_bytes(request, log, tasks).await)
        }
        (Subresource::Proxy, _) => {
            let kind = kind.exchanged(Subresource::Proxy);
            let kind = kind.map_or_else(String::new, |gvk| gvk.kind);
            let mut options = json!({"kind": kind, "apiVersion": "v1"});
            if !rest.is_empty() {
                options["path"] = format!("/{rest}").into();
            }
            objects.admit_connect(asked, object, &kind, options).await?;
            match namespace {
                None => proxy::serve(state, name, rest, request).await,
                Some(_) => proxied::serve(state, object, rest, request).await,
            }
        }
        (Subresource::Exec | Subresource::Attach | Subresource::PortForward, _) => {
            streams::serve(state, asked, object, subresource, request).await
        }
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
            if text(&eviction, "/metadata/name") != name {
                return Err(StatusError::bad_request(
                    "name in URL does not match name in Eviction object",
                ));
            }
            let sent = eviction.get("deleteOptions").cloned();
            let options = delete_options(asked.request().params()?, sent)?;
            Ok(match objects.evict(asked, &options).await? {
                Evicted::Deleted(_) => success(StatusCode::CREATED),
                Evicted::Refused(error) => json_value(&error.to_value(), StatusCode::CREATED),
            })
        }
        (Subresource::Token, Method::POST) => {
            let params = asked.request().params()?;
            let agent = negotiate::user_agent(request.headers());
            let options = params.write_options(Write::Create, agent)?;
            let received = state.large_bodies.receive(request).await?;
            let gvk = GroupVersionKind::new("authentication.k8s.io", "v1", "TokenRequest");
            let (headers, text) = (&received.headers, &received.body);
            let decoded = negotiate::decode_object(headers, text, &gvk, &gvk)?;
            let mut warnings = Warnings::of_body(&gvk, &decoded, params.validation())?;
            let token = objects.create_token(asked, decoded.value, &options).await?;
            warnings.0.extend(options.advice.take_all());
            Ok(warnings.attach(json_value(&token, StatusCode::CREATED)))
        }
        (Subresource::Data, Method::POST) => {
            let agent = negotiate::user_agent(request.headers());
            let options = asked
                .request()
                .params()?
                .write_options(Write::Create, agent)?;
            if options.dry_run {
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
        (
            Subresource::Status
            | Subresource::Approval
            | Subresource::EphemeralContainers
            | Subresource::Resize,
            Method::GET,
        ) => {
            let params = asked.request().params()?;
            let form = negotiate::form(request.headers())?;
            let found = objects.get(asked, None).await?;
            render(kind, &found.value(), form, params, StatusCode::OK)
        }
        (
            Subresource::Status
            | Subresource::Approval
            | Subresource::Finalize
            | Subresource::Scale
            | Subresource::EphemeralContainers
            | Subresource::Resize,
            Method::PUT,
        ) => update(state, asked, kind, Some(subresource), request).await,
        (
            Subresource::Status
            | Subresource::Scale
            | Subresource::Approval
            | Subresource::EphemeralContainers
            | Subresource::Resize,
            Method::PATCH,
        ) => patch(state, asked, object, Some(subresource), request).await,
        _ => Err(StatusError::method_not_allowed()),
    }
}

async fn bind(
    state: &AppState,
    asked: &Authorized,
    pod: &str,
    body: &Value,
) -> Result<Response, StatusError> {
    let params = asked.request().params()?;
    let options = params.write_options(Write::Create, "")?;
    let binding = Binding {
        pod,
        node: text(body, "/target/name"),
        uid: text(body, "/metadata/uid"),
        resource_version: text(body, "/metadata/resourceVersion"),
    };
    state.objects.bind(asked, binding, &options).await?;
    Ok(success(StatusCode::CREATED))
}

fn whole_object(value: Value) -> Result<Object, StatusError> {
    Object::from_value(value).map_err(|error| {
        StatusError::bad_request(format!("the request body is no object: {error}"))
    })
}
