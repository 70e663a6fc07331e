//! Calling other services, and small helpers for answering.
//!
//! Every call leaves through the mesh: `http://voting` is the service of that name in the caller's namespace,
//! `http://voting.vote` the one in namespace `vote`. The mesh finds an endpoint, balances, authorises, encrypts and
//! carries identity, deadline and trace context on; none of that is the guest's work. What it refuses arrives as an
//! [`Error`] that says why.

use std::fmt;
use std::time::Duration;

pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};

use crate::{Body, BodyError, Request, Response, host};

/// How long a call may take until its response begins, connecting and trying elsewhere included; put it into a request's
/// extensions.
///
/// Without it the mesh's own timeouts and the remaining time of the inbound call hold; this can only shorten them.
///
/// ```
/// # use weft_sdk as weft; use std::time::Duration;
/// let mut request = weft::Request::new(weft::Body::empty());
/// request.extensions_mut().insert(weft::http::Timeout(Duration::from_millis(250)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Timeout(pub Duration);

/// Why a call got no response.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    code: &'static str,
    detail: Option<String>,
}

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request itself cannot be sent: its address, method or a header is wrong. Do not repeat it.
    Invalid,
    /// A policy refused it, such as any address outside the cluster by default. Do not repeat it.
    Denied,
    /// No service has that name.
    NotFound,
    /// The service exists, but nothing behind it could be reached; another attempt may find it.
    Unavailable,
    /// It took too long. Whether the other side acted is unknown.
    Timeout,
    /// Too many calls at once; slow down.
    LimitReached,
    /// The call came back to where it started.
    LoopDetected,
    /// The connection broke or spoke nonsense. Whether the other side acted is unknown.
    Protocol,
    /// Anything else, with the host's words in the text.
    Internal,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, code: &'static str, detail: Option<String>) -> Self {
        Self { kind, code, detail }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The name of the case in WASI's `error-code`, such as `destination-not-found`.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The host's own words, where it gave any.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.kind {
            ErrorKind::Invalid => "the request is not valid",
            ErrorKind::Denied => "the request was denied",
            ErrorKind::NotFound => "no such service",
            ErrorKind::Unavailable => "the service cannot be reached",
            ErrorKind::Timeout => "the call took too long",
            ErrorKind::LimitReached => "too many calls at once",
            ErrorKind::LoopDetected => "the call loops",
            ErrorKind::Protocol => "the connection failed",
            ErrorKind::Internal => "the call failed",
        };
        write!(f, "{text} ({})", self.code)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<BodyError> for Error {
    fn from(error: BodyError) -> Self {
        let code = match error {
            BodyError::Broken(_) => "HTTP-response-incomplete",
            BodyError::TooLarge { .. } => "HTTP-response-body-size",
            BodyError::Malformed(_) => "HTTP-response-content-coding",
        };
        Self::new(ErrorKind::Protocol, code, Some(error.to_string()))
    }
}

/// Sends a request and waits for the head of its response.
///
/// The body of the response arrives while it is read. A response that begins before the request's body was sent whole
/// ends the sending, as HTTP allows. Headers that belong to one connection (`connection`, `host`, …) are left out.
///
/// ```
/// # use weft_sdk as weft;
/// use weft::http::{ErrorKind, Method, header};
///
/// async fn reserve(item: u32) -> Result<String, weft::http::Error> {
///     let mut request = weft::Request::new(format!(r#"{{"item":{item}}}"#).into());
///     *request.method_mut() = Method::PUT;
///     *request.uri_mut() = "http://warehouse.shop/reservations".parse().unwrap();
///     request.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
///     Ok(weft::http::send(request).await?.into_body().text().await?)
/// }
/// # // Natively there is no mesh.
/// # assert_eq!(weft::block_on(reserve(42)).unwrap_err().kind(), ErrorKind::Unavailable);
/// ```
///
/// # Errors
/// See [`ErrorKind`]. A response with an error status is a response, not an `Err`.
pub async fn send(request: Request) -> Result<Response, Error> {
    host::send(request).await
}

/// Answers what [`send`] sends on this thread from now on, in the place of the mesh. Natively only: for tests.
///
/// ```
/// # use weft_sdk as weft;
/// # #[cfg(not(target_family = "wasm"))] {
/// weft::http::respond_with(|request| match request.uri().host() {
///     Some("warehouse") => Ok(weft::Response::new("42 left".into())),
///     _ => Err(weft::http::ErrorKind::NotFound),
/// });
/// let answer = weft::block_on(weft::http::get("http://warehouse/stock")).unwrap();
/// assert_eq!(weft::block_on(answer.into_body().text()).unwrap(), "42 left");
/// # }
/// ```
#[cfg(not(target_family = "wasm"))]
pub fn respond_with(answer: impl Fn(Request) -> Result<Response, ErrorKind> + 'static) {
    host::respond_with(answer);
}

/// Sends a GET for `uri`, as [`send`] does.
///
/// ```
/// # use weft_sdk as weft;
/// async fn results() -> Result<Vec<u32>, weft::http::Error> {
///     Ok(weft::http::get("http://voting/api/results").await?.into_body().json().await?)
/// }
/// # assert!(weft::block_on(results()).is_err());
/// ```
pub async fn get(uri: impl AsRef<str>) -> Result<Response, Error> {
    let uri: Uri = uri.as_ref().parse().map_err(invalid_uri)?;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    send(request).await
}

/// Sends a POST of `body` to `uri`, as [`send`] does.
///
/// ```
/// # use weft_sdk as weft;
/// async fn vote() -> Result<(), weft::http::Error> {
///     let answer = weft::http::post("http://voting/api/vote?shortcode=:tada:", "").await?;
///     weft::info!("voting answered {}", answer.status());
///     Ok(())
/// }
/// # assert!(weft::block_on(vote()).is_err());
/// ```
pub async fn post(uri: impl AsRef<str>, body: impl Into<Body>) -> Result<Response, Error> {
    let uri: Uri = uri.as_ref().parse().map_err(invalid_uri)?;
    let mut request = Request::new(body.into());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    send(request).await
}

fn invalid_uri(error: ::http::uri::InvalidUri) -> Error {
    Error::new(
        ErrorKind::Invalid,
        "HTTP-request-URI-invalid",
        Some(error.to_string()),
    )
}

/// A response of that status with its name as the text. A number that is no status becomes 500.
pub fn status(code: u16) -> Response {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = format!(
        "{} {}\n",
        status.as_str(),
        status.canonical_reason().unwrap_or("")
    );
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

/// A 200 response of HTML text.
pub fn html(text: impl Into<Body>) -> Response {
    typed("text/html; charset=utf-8", text.into())
}

/// A 200 response of `value` as JSON, with a line break at its end.
///
/// ```
/// # use weft_sdk as weft;
/// let response = weft::http::json(&["a", "b"])?;
/// assert_eq!(response.headers()["content-type"], "application/json");
/// # Ok::<(), weft::http::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Internal`] when `value` has no JSON form, such as a map whose keys are not strings.
#[cfg(feature = "json")]
pub fn json(value: &(impl serde::Serialize + ?Sized)) -> Result<Response, Error> {
    let mut text = serde_json::to_vec(value).map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            "internal-error",
            Some(error.to_string()),
        )
    })?;
    text.push(b'\n');
    Ok(typed("application/json", text.into()))
}

fn typed(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The value of `name` in the query of `uri`, percent-decoded; the first one if there are several.
///
/// ```
/// # use weft_sdk as weft;
/// let uri = "/find?q=hot+dog&limit=3".parse().unwrap();
/// assert_eq!(weft::http::query(&uri, "q").as_deref(), Some("hot dog"));
/// ```
pub fn query(uri: &Uri, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(uri.query()?.as_bytes());
    let (_, value) = pairs.find(|(key, _)| key == name)?;
    Some(value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_and_garbage_is_kept() {
        let uri: Uri = "/x?a=1&b=%C3%A9+%2B&c&d=%zz%4&a=2".parse().unwrap();
        for (name, value) in [
            ("a", Some("1")),
            ("b", Some("é +")),
            ("c", Some("")),
            ("d", Some("%zz%4")),
            ("e", None),
        ] {
            assert_eq!(query(&uri, name).as_deref(), value, "{name}");
        }
    }

    #[test]
    fn an_error_says_what_why_and_the_hosts_words() {
        let error = Error::new(
            ErrorKind::Denied,
            "HTTP-request-denied",
            Some("egress is closed".into()),
        );
        assert_eq!(
            error.to_string(),
            "the request was denied (HTTP-request-denied): egress is closed"
        );
        let error = crate::block_on(get("http://[oops")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }

    #[test]
    fn natively_nothing_can_be_reached() {
        assert_eq!(
            crate::block_on(get("http://voting")).unwrap_err().kind(),
            ErrorKind::Unavailable
        );
    }
}
