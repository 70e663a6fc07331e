//! A refusal on its way out: `metav1.Status` as JSON, with the headers that go with its code.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use weft_api::status::StatusError;

use super::encoding::Answer;

/// A [`StatusError`] as a response; `?` in handlers ends here.
#[derive(Debug)]
pub struct ApiError(pub StatusError);

impl From<StatusError> for ApiError {
    fn from(error: StatusError) -> Self {
        Self(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = self.0;
        let mut response = Response::new(Body::from(error.to_value().to_string()));
        *response.status_mut() =
            StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        let after = error
            .details
            .as_ref()
            .and_then(|details| details.retry_after_seconds);
        if let Some(seconds) = after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(Answer::Whole);
        response
    }
}
