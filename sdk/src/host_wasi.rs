//! The host's side over WASI 0.2: waiting, HTTP in both directions, `wasi:config` and `wasi:keyvalue`; `weft:mesh` is in `host_wasi/mesh.rs`.
//!
//! Waiting is a table of pollables, each with the waker of the future that waits for it. A future that is dropped
//! takes its pollable along, so nothing waits for what nobody wants any more; a pollable always goes before the
//! stream it belongs to, as the host demands.

use std::cell::RefCell;
use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, HeaderError, IncomingBody, IncomingRequest, IncomingResponse,
    Method as WasiMethod, OutgoingBody, OutgoingRequest, OutgoingResponse, RequestOptions,
    ResponseOutparam, Scheme, http_error_code,
};
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

use crate::body::{Kind, Sink};
use crate::http::{
    Error, ErrorKind, HeaderMap, HeaderName, HeaderValue, Method, Timeout, Uri, header,
};
use crate::keyvalue::Error as KeyValueError;
use crate::mesh::Options;
use crate::{Body, BodyError, Request, Response, Writer, block_on, config, http};

#[path = "host_wasi/mesh.rs"]
mod mesh;
pub use mesh::{
    attempt, attribute, caller, metric_add, metric_observe, metric_set, no_retry, origin, port,
    priority, remaining, rest, trace_id,
};

mod config_bindings {
    wit_bindgen::generate!({
        path: "../wit/config",
        world: "wasi:config/imports",
    });
}
mod keyvalue_bindings {
    wit_bindgen::generate!({
        path: "../wit/keyvalue",
        world: "wasi:keyvalue/imports",
    });
}
use config_bindings::wasi::config::store as wasi_config;
use keyvalue_bindings::wasi::keyvalue::{atomics, batch, store};

/// Bytes asked for in one read: a stream's usual chunk, small beside a guest's memory.
const READ_BYTES: u64 = 64 << 10;

/// What `blocking-write-and-flush` takes at most; WASI fixes the number.
const ONE_WRITE_BYTES: usize = 4096;

// Waiting ------------------------------------------------------------------------------------------------------------

thread_local! {
    static WAITING: RefCell<Vec<Option<Entry>>> = const { RefCell::new(Vec::new()) };
}

struct Entry {
    pollable: Pollable,
    waker: Waker,
    ready: bool,
}

/// Waits until `pollable` is ready.
async fn ready(pollable: Pollable) {
    let wait = Wait {
        pollable: Some(pollable),
        slot: None,
    };
    wait.await;
}

/// Holds the pollable until the first poll, then its place in the table until it is ready.
struct Wait {
    pollable: Option<Pollable>,
    slot: Option<usize>,
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        WAITING.with_borrow_mut(|waiting| {
            if let Some(pollable) = self.pollable.take() {
                let entry = Some(Entry {
                    pollable,
                    waker: context.waker().clone(),
                    ready: false,
                });
                let slot = waiting.iter().position(Option::is_none);
                let slot = slot.unwrap_or_else(|| {
                    waiting.push(None);
                    waiting.len() - 1
                });
                waiting[slot] = entry;
                self.slot = Some(slot);
                return Poll::Pending;
            }
            let Some(slot) = self.slot else {
                return Poll::Ready(());
            };
            match &mut waiting[slot] {
                Some(entry) if !entry.ready => {
                    entry.waker.clone_from(context.waker());
                    Poll::Pending
                }
                place => {
                    *place = None;
                    self.slot = None;
                    Poll::Ready(())
                }
            }
        })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            WAITING.with_borrow_mut(|waiting| waiting[slot] = None);
        }
    }
}

/// Blocks until at least one of the things waited for is ready, and wakes those who wait for them.
pub fn wait_for_any() {
    WAITING.with_borrow_mut(|waiting| {
        let mut entries: Vec<&mut Entry> = waiting
            .iter_mut()
            .flatten()
            .filter(|entry| !entry.ready)
            .collect();
        assert!(
            !entries.is_empty(),
            "the future waits for something that nothing can bring about"
        );
        let pollables: Vec<&Pollable> = entries.iter().map(|entry| &entry.pollable).collect();
        for index in poll(&pollables) {
            let entry = &mut entries[index as usize];
            entry.ready = true;
            entry.waker.wake_by_ref();
        }
    });
}

pub async fn sleep(duration: Duration) {
    let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    ready(monotonic_clock::subscribe_duration(nanoseconds)).await;
}

// Bodies -------------------------------------------------------------------------------------------------------------

/// A body on its way in. Fields are dropped in order: the stream before its body, the body before its message.
pub struct Incoming {
    stream: InputStream,
    _body: IncomingBody,
    _message: Message,
}

/// What a body belongs to; kept because a host may end the body with it.
enum Message {
    Request(IncomingRequest),
    Response(IncomingResponse),
}

impl Incoming {
    fn of(message: Message) -> Option<Self> {
        let body = match &message {
            Message::Request(request) => request.consume(),
            Message::Response(response) => response.consume(),
        };
        let body = body.ok()?;
        let stream = body.stream().ok()?;
        Some(Self {
            stream,
            _body: body,
            _message: message,
        })
    }

    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            match self.stream.read(READ_BYTES) {
                Ok(bytes) if bytes.is_empty() => ready(self.stream.subscribe()).await,
                Ok(bytes) => return Ok(Some(bytes.into())),
                Err(StreamError::Closed) => return Ok(None),
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(BodyError::Broken(match http_error_code(&error) {
                        Some(code) => explain(&code).to_string(),
                        None => error.to_debug_string(),
                    }));
                }
            }
        }
    }
}

/// A body on its way out. The stream is dropped before the body it belongs to.
pub struct Outgoing {
    stream: OutputStream,
}

impl Outgoing {
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), BodyError> {
        while !bytes.is_empty() {
            let room = self.stream.check_write().map_err(broken)?;
            if room == 0 {
                ready(self.stream.subscribe()).await;
                continue;
            }
            let (now, later) =
                bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            self.stream.write(now).map_err(broken)?;
            bytes = later;
        }
        Ok(())
    }

    /// Hands what was written to the receiver's side; a body may only be finished after it.
    async fn flush(&mut self) -> Result<(), BodyError> {
        self.stream.flush().map_err(broken)?;
        while self.stream.check_write().map_err(broken)? == 0 {
            ready(self.stream.subscribe()).await;
        }
        Ok(())
    }
}

fn broken(error: StreamError) -> BodyError {
    BodyError::Broken(match error {
        StreamError::Closed => "the receiver closed it".to_owned(),
        StreamError::LastOperationFailed(error) => error.to_debug_string(),
    })
}

/// Sends the whole body and finishes it; on an error the receiver sees an incomplete one.
async fn write_body(body: Body, to: OutgoingBody) -> Result<(), BodyError> {
    let stream = to
        .write()
        .map_err(|()| BodyError::Broken("the host gave no stream".to_owned()))?;
    // The stream is gone when this returns: a body that still has one cannot be finished.
    write_all(body, Outgoing { stream }).await?;
    OutgoingBody::finish(to, None).map_err(|code| BodyError::Broken(explain(&code).to_string()))
}

async fn write_all(body: Body, mut outgoing: Outgoing) -> Result<(), BodyError> {
    match body.0 {
        Kind::Whole(bytes) if bytes.is_empty() => {}
        // One host call instead of five, for the bodies that most calls have.
        Kind::Whole(bytes) if bytes.len() <= ONE_WRITE_BYTES => {
            outgoing
                .stream
                .blocking_write_and_flush(&bytes)
                .map_err(broken)?;
        }
        Kind::Whole(bytes) => {
            outgoing.write(&bytes).await?;
            outgoing.flush().await?;
        }
        Kind::Arriving(mut incoming) => {
            while let Some(chunk) = incoming.chunk().await? {
                outgoing.write(&chunk).await?;
            }
            outgoing.flush().await?;
        }
        Kind::Produced(produce) => {
            produce(Writer(Sink::Host(outgoing))).await?;
        }
    }
    Ok(())
}

// Serving ------------------------------------------------------------------------------------------------------------

/// Serves one call with `handler`; what `#[weft::http]` exports.
pub fn serve<H, F, E>(request: IncomingRequest, out: ResponseOutparam, handler: H)
where
    H: FnOnce(Request) -> F,
    F: Future<Output = Result<Response, E>>,
    E: Display,
{
    block_on(async move {
        let response = match import_request(request) {
            Some(request) => handler(request).await.unwrap_or_else(|error| {
                eprintln!("ERROR the handler failed: {error}");
                http::status(500)
            }),
            None => http::status(400),
        };
        if let Err(error) = respond(response, out).await {
            eprintln!("WARN the response was not sent whole: {error}");
        }
    });
}

/// The request in `http`'s types; `None` when it has no form in them, which a conforming host never sends.
fn import_request(request: IncomingRequest) -> Option<Request> {
    let method = match request.method() {
        WasiMethod::Get => Method::GET,
        WasiMethod::Head => Method::HEAD,
        WasiMethod::Post => Method::POST,
        WasiMethod::Put => Method::PUT,
        WasiMethod::Delete => Method::DELETE,
        WasiMethod::Connect => Method::CONNECT,
        WasiMethod::Options => Method::OPTIONS,
        WasiMethod::Trace => Method::TRACE,
        WasiMethod::Patch => Method::PATCH,
        WasiMethod::Other(name) => name.parse().ok()?,
    };
    let path = request
        .path_with_query()
        .filter(|path| !path.is_empty())
        .unwrap_or_else(|| "/".to_owned());
    let uri = match request.authority() {
        Some(authority) => {
            let scheme = match request.scheme() {
                Some(Scheme::Https) => "https".to_owned(),
                Some(Scheme::Other(scheme)) => scheme,
                Some(Scheme::Http) | None => "http".to_owned(),
            };
            Uri::builder()
                .scheme(scheme.as_str())
                .authority(authority)
                .path_and_query(path)
                .build()
                .ok()?
        }
        None => path.parse().ok()?,
    };
    let headers = import_headers(&request.headers());
    let body = Incoming::of(Message::Request(request))
        .map_or_else(Body::empty, |body| Body(Kind::Arriving(body)));
    let mut imported = Request::new(body);
    *imported.method_mut() = method;
    *imported.uri_mut() = uri;
    *imported.headers_mut() = headers;
    Some(imported)
}

async fn respond(response: Response, out: ResponseOutparam) -> Result<(), BodyError> {
    let (parts, body) = response.into_parts();
    let fields = match export_headers(&parts.headers, &body) {
        Ok(fields) => fields,
        Err(error) => {
            ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some(error.to_string()))));
            return Err(BodyError::Broken(error.to_string()));
        }
    };
    let outgoing = OutgoingResponse::new(fields);
    // http's StatusCode allows 100 to 999, WASI as well; a host that refuses one answers 200's default instead.
    let _ = outgoing.set_status_code(parts.status.as_u16());
    let to = outgoing.body();
    ResponseOutparam::set(out, Ok(outgoing));
    match to {
        Ok(to) => write_body(body, to).await,
        Err(()) => Err(BodyError::Broken("the host gave no body".to_owned())),
    }
}

fn import_headers(fields: &Fields) -> HeaderMap {
    let entries = fields.entries();
    let mut headers = HeaderMap::with_capacity(entries.len());
    for (name, value) in entries {
        // The host checked both already; one that it lets through and `http` does not is left out.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers
}

fn export_headers(headers: &HeaderMap, body: &Body) -> Result<Fields, Error> {
    let fields = Fields::new();
    for (name, value) in headers {
        match fields.append(name.as_str(), value.as_bytes()) {
            // Forbidden are those that belong to one connection: the host sets its own.
            Ok(()) | Err(HeaderError::Forbidden) => {}
            Err(HeaderError::InvalidSyntax | HeaderError::Immutable) => {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    "internal-error",
                    Some(format!("header {name} is refused")),
                ));
            }
        }
    }
    if let Kind::Whole(bytes) = &body.0
        && !bytes.is_empty()
        && !headers.contains_key(header::CONTENT_LENGTH)
    {
        let _ = fields.append(
            header::CONTENT_LENGTH.as_str(),
            bytes.len().to_string().as_bytes(),
        );
    }
    Ok(fields)
}

// Calling ------------------------------------------------------------------------------------------------------------

pub async fn send(request: Request) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let outgoing = OutgoingRequest::new(export_headers(&parts.headers, &body)?);
    let method = match parts.method {
        Method::GET => WasiMethod::Get,
        Method::HEAD => WasiMethod::Head,
        Method::POST => WasiMethod::Post,
        Method::PUT => WasiMethod::Put,
        Method::DELETE => WasiMethod::Delete,
        Method::CONNECT => WasiMethod::Connect,
        Method::OPTIONS => WasiMethod::Options,
        Method::TRACE => WasiMethod::Trace,
        Method::PATCH => WasiMethod::Patch,
        other => WasiMethod::Other(other.as_str().to_owned()),
    };
    let uri = &parts.uri;
    let scheme = match uri.scheme_str() {
        None | Some("http") => Scheme::Http,
        Some("https") => Scheme::Https,
        Some(other) => Scheme::Other(other.to_owned()),
    };
    let Some(authority) = uri.authority() else {
        return Err(invalid(
            "HTTP-request-URI-invalid",
            format!("{uri} names no service"),
        ));
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    outgoing
        .set_method(&method)
        .map_err(|()| invalid("HTTP-request-method-invalid", "the method is refused"))?;
    outgoing
        .set_scheme(Some(&scheme))
        .and_then(|()| outgoing.set_authority(Some(authority.as_str())))
        .and_then(|()| outgoing.set_path_with_query(Some(path)))
        .map_err(|()| invalid("HTTP-request-URI-invalid", format!("{uri} is refused")))?;
    let options = parts.extensions.get::<Timeout>().map(|Timeout(duration)| {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let options = RequestOptions::new();
        // Not the time for connecting as well: a host waits for the one, then for the other. One that does not support this still has
        // its own bounds.
        let _ = options.set_first_byte_timeout(Some(nanoseconds));
        options
    });
    let to = outgoing
        .body()
        .map_err(|()| invalid("internal-error", "the host gave no body"))?;
    if let Some(asked) = parts.extensions.get::<Options>() {
        // Of the next request, which follows at once.
        mesh::ask(asked);
    }
    let future = outgoing_handler::handle(outgoing, options).map_err(|code| explain(&code))?;

    let answer = async {
        loop {
            match future.get() {
                None => ready(future.subscribe()).await,
                Some(Ok(Ok(response))) => return Ok(response),
                Some(Ok(Err(code))) => return Err(explain(&code)),
                Some(Err(())) => {
                    return Err(Error::new(ErrorKind::Internal, "internal-error", None));
                }
            }
        }
    };
    import_response(first_of(answer, write_body(body, to)).await?)
}

/// The answer, driving the upload for as long as there is none. An upload that fails leaves the answer to tell why.
async fn first_of<A: Future>(
    answer: A,
    upload: impl Future<Output = Result<(), BodyError>>,
) -> A::Output {
    let (mut answer, mut upload) = (pin!(answer), pin!(upload));
    let mut uploading = true;
    poll_fn(|context| {
        if uploading && upload.as_mut().poll(context).is_ready() {
            uploading = false;
        }
        answer.as_mut().poll(context)
    })
    .await
}

fn import_response(response: IncomingResponse) -> Result<Response, Error> {
    let status = http::StatusCode::from_u16(response.status()).map_err(|error| {
        Error::new(
            ErrorKind::Protocol,
            "HTTP-protocol-error",
            Some(error.to_string()),
        )
    })?;
    let headers = import_headers(&response.headers());
    let body = Incoming::of(Message::Response(response))
        .map_or_else(Body::empty, |body| Body(Kind::Arriving(body)));
    let mut imported = Response::new(body);
    *imported.status_mut() = status;
    *imported.headers_mut() = headers;
    Ok(imported)
}

fn invalid(code: &'static str, detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, code, Some(detail.into()))
}

/// The host's error code as an [`Error`], with the code's name as the WIT writes it.
fn explain(code: &ErrorCode) -> Error {
    use ErrorKind::{
        Denied, Internal, Invalid, LimitReached, LoopDetected, NotFound, Protocol,
        Timeout as TimedOut, Unavailable,
    };
    let (kind, name, detail) = match code {
        ErrorCode::DnsTimeout => (TimedOut, "DNS-timeout", None),
        ErrorCode::DnsError(error) => (NotFound, "DNS-error", error.rcode.clone()),
        ErrorCode::DestinationNotFound => (NotFound, "destination-not-found", None),
        ErrorCode::DestinationUnavailable => (Unavailable, "destination-unavailable", None),
        ErrorCode::DestinationIpProhibited => (Denied, "destination-IP-prohibited", None),
        ErrorCode::DestinationIpUnroutable => (Unavailable, "destination-IP-unroutable", None),
        ErrorCode::ConnectionRefused => (Unavailable, "connection-refused", None),
        ErrorCode::ConnectionTerminated => (Protocol, "connection-terminated", None),
        ErrorCode::ConnectionTimeout => (TimedOut, "connection-timeout", None),
        ErrorCode::ConnectionReadTimeout => (TimedOut, "connection-read-timeout", None),
        ErrorCode::ConnectionWriteTimeout => (TimedOut, "connection-write-timeout", None),
        ErrorCode::ConnectionLimitReached => (LimitReached, "connection-limit-reached", None),
        ErrorCode::TlsProtocolError => (Protocol, "TLS-protocol-error", None),
        ErrorCode::TlsCertificateError => (Protocol, "TLS-certificate-error", None),
        ErrorCode::TlsAlertReceived(alert) => {
            (Protocol, "TLS-alert-received", alert.alert_message.clone())
        }
        ErrorCode::HttpRequestDenied => (Denied, "HTTP-request-denied", None),
        ErrorCode::HttpRequestLengthRequired => (Invalid, "HTTP-request-length-required", None),
        ErrorCode::HttpRequestBodySize(_) => (Invalid, "HTTP-request-body-size", None),
        ErrorCode::HttpRequestMethodInvalid => (Invalid, "HTTP-request-method-invalid", None),
        ErrorCode::HttpRequestUriInvalid => (Invalid, "HTTP-request-URI-invalid", None),
        ErrorCode::HttpRequestUriTooLong => (Invalid, "HTTP-request-URI-too-long", None),
        ErrorCode::HttpRequestHeaderSectionSize(_) => {
            (Invalid, "HTTP-request-header-section-size", None)
        }
        ErrorCode::HttpRequestHeaderSize(_) => (Invalid, "HTTP-request-header-size", None),
        ErrorCode::HttpRequestTrailerSectionSize(_) => {
            (Invalid, "HTTP-request-trailer-section-size", None)
        }
        ErrorCode::HttpRequestTrailerSize(_) => (Invalid, "HTTP-request-trailer-size", None),
        ErrorCode::HttpResponseIncomplete => (Protocol, "HTTP-response-incomplete", None),
        ErrorCode::HttpResponseHeaderSectionSize(_) => {
            (Protocol, "HTTP-response-header-section-size", None)
        }
        ErrorCode::HttpResponseHeaderSize(_) => (Protocol, "HTTP-response-header-size", None),
        ErrorCode::HttpResponseBodySize(_) => (Protocol, "HTTP-response-body-size", None),
        ErrorCode::HttpResponseTrailerSectionSize(_) => {
            (Protocol, "HTTP-response-trailer-section-size", None)
        }
        ErrorCode::HttpResponseTrailerSize(_) => (Protocol, "HTTP-response-trailer-size", None),
        ErrorCode::HttpResponseTransferCoding(coding) => {
            (Protocol, "HTTP-response-transfer-coding", coding.clone())
        }
        ErrorCode::HttpResponseContentCoding(coding) => {
            (Protocol, "HTTP-response-content-coding", coding.clone())
        }
        ErrorCode::HttpResponseTimeout => (TimedOut, "HTTP-response-timeout", None),
        ErrorCode::HttpUpgradeFailed => (Protocol, "HTTP-upgrade-failed", None),
        ErrorCode::HttpProtocolError => (Protocol, "HTTP-protocol-error", None),
        ErrorCode::LoopDetected => (LoopDetected, "loop-detected", None),
        ErrorCode::ConfigurationError => (Internal, "configuration-error", None),
        ErrorCode::InternalError(text) => (Internal, "internal-error", text.clone()),
    };
    Error::new(kind, name, detail)
}

// wasi:config --------------------------------------------------------------------------------------------------------

pub fn config_get(name: &str) -> Result<Option<String>, config::Error> {
    wasi_config::get(name).map_err(unavailable)
}

pub fn config_all() -> Result<Vec<(String, String)>, config::Error> {
    wasi_config::get_all().map_err(unavailable)
}

fn unavailable(error: wasi_config::Error) -> config::Error {
    let (wasi_config::Error::Upstream(reason) | wasi_config::Error::Io(reason)) = error;
    config::Error::Unavailable(reason)
}

// wasi:keyvalue ------------------------------------------------------------------------------------------------------

impl From<store::Error> for KeyValueError {
    fn from(error: store::Error) -> KeyValueError {
        match error {
            store::Error::NoSuchStore => KeyValueError::NoSuchStore,
            store::Error::AccessDenied => KeyValueError::AccessDenied,
            store::Error::Other(reason) => KeyValueError::Other(reason),
        }
    }
}

/// A bucket of the host's.
pub struct Bucket(store::Bucket);

impl Bucket {
    pub fn open(identifier: &str) -> Result<Bucket, KeyValueError> {
        Ok(Bucket(store::open(identifier)?))
    }

    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KeyValueError> {
        Ok(self.0.get(key)?)
    }

    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), KeyValueError> {
        Ok(self.0.set(key, value)?)
    }

    pub fn delete(&self, key: &str) -> Result<(), KeyValueError> {
        Ok(self.0.delete(key)?)
    }

    pub fn exists(&self, key: &str) -> Result<bool, KeyValueError> {
        Ok(self.0.exists(key)?)
    }

    pub fn list(
        &self,
        cursor: Option<String>,
    ) -> Result<(Vec<String>, Option<String>), KeyValueError> {
        let page = self.0.list_keys(cursor.as_deref())?;
        Ok((page.keys, page.cursor))
    }

    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, KeyValueError> {
        Ok(atomics::increment(&self.0, key, delta)?)
    }

    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, KeyValueError> {
        let entries = batch::get_many(&self.0, keys)?;
        Ok(entries.into_iter().map(|(_, value)| value).collect())
    }

    pub fn set_many(&self, entries: &[(String, Vec<u8>)]) -> Result<(), KeyValueError> {
        Ok(batch::set_many(&self.0, entries)?)
    }

    pub fn delete_many(&self, keys: &[String]) -> Result<(), KeyValueError> {
        Ok(batch::delete_many(&self.0, keys)?)
    }

    pub fn look(&self, key: &str) -> Result<Seen, KeyValueError> {
        Ok(Seen(atomics::Cas::new(&self.0, key)?))
    }
}

/// A compare-and-swap handle of the host's.
pub struct Seen(atomics::Cas);

impl Seen {
    pub fn value(&self) -> Result<Option<Vec<u8>>, KeyValueError> {
        Ok(self.0.current()?)
    }

    pub fn swap(self, value: &[u8]) -> Result<Result<(), Seen>, KeyValueError> {
        match atomics::swap(self.0, value) {
            Ok(()) => Ok(Ok(())),
            Err(atomics::CasError::CasFailed(newer)) => Ok(Err(Seen(newer))),
            Err(atomics::CasError::StoreError(error)) => Err(error.into()),
        }
    }
}
