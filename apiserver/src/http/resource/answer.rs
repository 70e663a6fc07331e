//! What a verb leads to, as bytes: an object, a part of it or what was deleted, in the form that the client wants, with warnings.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::gvk::GroupVersionKind;
use weft_api::status::StatusError;
use weft_kinds::lens::{member, put};
use weft_kinds::{KindRef, POD, Subresource};

use crate::http::encoding::Answer;
use crate::http::negotiate::{Decoded, Form};
use crate::http::table::{self, Include, Style};
use crate::objects::{Deleted, Written, strict_decoding};
use crate::request::{Params, Validation};

const WARNING: HeaderName = HeaderName::from_static("warning");
/// Warnings sent with one answer; more would only fill the client's terminal.
const WARNINGS_MAX: usize = 20;

pub(super) fn success(status: StatusCode) -> Response {
    let body = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": status.as_u16(),
    });
    json_value(&body, status)
}

/// What rows carry; nothing else has rows, so nothing else looks at it.
pub(super) fn include(params: &Params, form: Form) -> Result<Include, StatusError> {
    if !matches!(form, Form::Table(_)) {
        return Ok(Include::default());
    }
    let text = params.get("includeObject").unwrap_or("");
    Include::parse(text).ok_or_else(|| {
        StatusError::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {text:?}: must be 'Metadata', 'Object', 'None', or empty"
        ))
    })
}

pub(super) fn deletion_response(
    kind: KindRef<'_>,
    name: &str,
    deleted: Deleted,
) -> Result<Response, StatusError> {
    let gone = match deleted {
        Deleted::Marked(object) => return Ok(json_value(object.as_value(), StatusCode::OK)),
        // Whoever deletes a pod wants to know where it ran: Kubernetes returns these kinds whole.
        Deleted::Gone(object) if kind.is_returned_deleted() => {
            let mut last = object.as_value().clone();
            if kind != &*POD {
                // Nobody waited for its end.
                let metadata = member(&mut last, "metadata");
                put(metadata, "deletionTimestamp", None);
                put(metadata, "deletionGracePeriodSeconds", None);
            }
            return Ok(json_value(&last, StatusCode::OK));
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
pub(super) fn render(
    kind: KindRef<'_>,
    object: &Value,
    form: Form,
    params: &Params,
    status: StatusCode,
) -> Result<Response, StatusError> {
    form.check(kind, false)?;
    Ok(match form {
        Form::Whole | Form::Discovery(_) => json_value(object, status),
        Form::Metadata | Form::MetadataList => {
            json_value(&table::metadata_only(object, "v1"), status)
        }
        Form::Table(version) => {
            let style = Style {
                version,
                include: include(params, form)?,
                now: Timestamp::now(),
            };
            json_value(&table::table_of_one(kind, object, style), status)
        }
    })
}

/// What a write that may have made the object leads to.
pub(super) fn render_written(
    kind: KindRef<'_>,
    subresource: Option<Subresource>,
    written: &Written,
    form: Form,
    params: &Params,
) -> Result<Response, StatusError> {
    let shown = written.object.as_value();
    match written.created {
        true => render(kind, shown, form, params, StatusCode::CREATED),
        false => render_part(kind, subresource, shown, form, params),
    }
}

/// What a write to an object, or to a part of it, leads to.
pub(super) fn render_part(
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

pub(super) fn render_scale(
    scale: &Value,
    form: Form,
    params: &Params,
) -> Result<Response, StatusError> {
    Ok(match form {
        Form::Whole | Form::Discovery(_) => json_value(scale, StatusCode::OK),
        Form::Metadata | Form::MetadataList => {
            json_value(&table::metadata_only(scale, "v1"), StatusCode::OK)
        }
        Form::Table(version) => {
            let style = Style {
                version,
                include: include(params, form)?,
                now: Timestamp::now(),
            };
            json_value(&table::table_of_scale(scale, style), StatusCode::OK)
        }
    })
}

pub(super) fn json_value(value: &Value, status: StatusCode) -> Response {
    // A value has text alone for keys, so it can be written.
    let text = serde_json::to_vec(value).unwrap_or_default();
    json_bytes(Bytes::from(text), status)
}

pub(super) fn json_bytes(bytes: Bytes, status: StatusCode) -> Response {
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
pub(super) struct Warnings(pub Vec<String>);

impl Warnings {
    /// Judges a body by `fieldValidation`.
    pub(super) fn of_body(
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

    pub(super) fn attach(self, mut response: Response) -> Response {
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
