//! Requests through the host.

use std::rc::Rc;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, HeaderError, IncomingBody, Method, OutgoingBody, OutgoingRequest,
    RequestOptions, Scheme, http_error_code,
};
use wasip2::io::streams::{InputStream, StreamError};

use super::{Call, Failure, Request, Response};
use crate::executor::ready;
use crate::tools::call::CHUNK_BYTES;

pub struct Body {
    // Dropped in this order: a stream is of its body.
    stream: Option<InputStream>,
    _body: Option<IncomingBody>,
}

pub async fn send(_call: &Call, request: Request) -> Result<Response, Failure> {
    let Request {
        method,
        url,
        headers,
        body,
        connect_timeout,
    } = request;
    let fields = Fields::new();
    for (name, value) in &headers {
        fields
            .append(name, value.as_bytes())
            .map_err(|error| match error {
                HeaderError::Forbidden | HeaderError::Immutable => Failure::Header(name.clone()),
                _ => Failure::Other(format!("the header '{name}' is not valid")),
            })?;
    }
    let outgoing = OutgoingRequest::new(fields);
    let invalid = |what: &str| Failure::Other(format!("the {what} is not valid"));
    let method = match method.as_str() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "CONNECT" => Method::Connect,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    };
    outgoing
        .set_method(&method)
        .map_err(|()| invalid("method"))?;
    let scheme = if url.secure {
        Scheme::Https
    } else {
        Scheme::Http
    };
    outgoing
        .set_scheme(Some(&scheme))
        .map_err(|()| invalid("scheme"))?;
    outgoing
        .set_authority(Some(&url.authority()))
        .map_err(|()| invalid("host"))?;
    outgoing
        .set_path_with_query(Some(&url.path))
        .map_err(|()| invalid("path"))?;
    let options = RequestOptions::new();
    if let Some(limit) = connect_timeout {
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        // A host that has no such limit has its own.
        let _ = options.set_connect_timeout(Some(nanos));
    }
    let outgoing_body = outgoing.body().map_err(|()| invalid("body"))?;
    let future = outgoing_handler::handle(outgoing, Some(options)).map_err(failure)?;
    write(outgoing_body, &body).await?;
    let response = loop {
        match future.get() {
            Some(Ok(Ok(response))) => break response,
            Some(Ok(Err(error))) => return Err(failure(error)),
            Some(Err(())) => return Err(Failure::Other("the response was taken already".into())),
            None => ready(Rc::new(future.subscribe())).await,
        }
    };
    let headers = response.headers().entries();
    let headers = headers
        .into_iter()
        .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
        .collect();
    let status = response.status();
    let body = response.consume().ok();
    let stream = body.as_ref().and_then(|body| body.stream().ok());
    Ok(Response {
        status,
        headers,
        body: Body {
            stream,
            _body: body,
        },
    })
}

async fn write(body: OutgoingBody, mut bytes: &[u8]) -> Result<(), Failure> {
    if !bytes.is_empty() {
        let stream = body
            .write()
            .map_err(|()| Failure::Other("the request takes no body".into()))?;
        while !bytes.is_empty() {
            let room = match stream.check_write() {
                Ok(room) => room,
                // The answer came before all was sent; it says why.
                Err(StreamError::Closed) => break,
                Err(StreamError::LastOperationFailed(_)) => break,
            };
            if room == 0 {
                ready(Rc::new(stream.subscribe())).await;
                continue;
            }
            let count = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (part, rest) = bytes.split_at(count);
            if stream.write(part).is_err() {
                break;
            }
            bytes = rest;
        }
        if stream.flush().is_ok() {
            ready(Rc::new(stream.subscribe())).await;
        }
    }
    OutgoingBody::finish(body, None).map_err(failure)
}

impl Body {
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let Some(stream) = &self.stream else {
            return Ok(None);
        };
        loop {
            match stream.read(CHUNK_BYTES as u64) {
                Ok(bytes) if bytes.is_empty() => ready(Rc::new(stream.subscribe())).await,
                Ok(bytes) => return Ok(Some(bytes)),
                Err(StreamError::Closed) => return Ok(None),
                Err(StreamError::LastOperationFailed(error)) => {
                    return Err(
                        http_error_code(&error).map_or(Failure::Ended { empty: false }, failure)
                    );
                }
            }
        }
    }
}

fn failure(error: ErrorCode) -> Failure {
    match error {
        ErrorCode::DnsTimeout | ErrorCode::DnsError(_) | ErrorCode::DestinationNotFound => {
            Failure::Name
        }
        ErrorCode::ConnectionRefused => Failure::Connect("Connection refused".into()),
        ErrorCode::DestinationUnavailable => {
            Failure::Connect("the destination is not available".into())
        }
        ErrorCode::DestinationIpUnroutable => Failure::Connect("No route to host".into()),
        ErrorCode::DestinationIpProhibited | ErrorCode::HttpRequestDenied => {
            Failure::Denied("the host does not let this request through".into())
        }
        ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => Failure::Timeout,
        ErrorCode::TlsProtocolError => Failure::Tls("TLS protocol error".into()),
        ErrorCode::TlsCertificateError => {
            Failure::Tls("the server's certificate is not one that the host trusts".into())
        }
        ErrorCode::TlsAlertReceived(alert) => Failure::Tls(format!(
            "TLS alert: {}",
            alert.alert_message.unwrap_or_default()
        )),
        ErrorCode::ConnectionTerminated | ErrorCode::HttpResponseIncomplete => {
            Failure::Ended { empty: false }
        }
        ErrorCode::InternalError(text) => {
            Failure::Other(text.unwrap_or_else(|| "internal error of the host".into()))
        }
        other => Failure::Other(format!("{other:?}")),
    }
}
