//! A method of gRPC that takes a message and gives one back, over HTTP/2.
//!
//! ```text
//! POST /opentelemetry.proto.collector.…Service/Export      one connection, made when there is something to send
//! ► flag, length, message                                  ◄ the same, and `grpc-status` behind it
//! ```
//! One method of three services, called by one task at a time, is all that is needed of gRPC: its frames are five bytes and its statuses two
//! lines, so that nothing but the HTTP/2 that is there anyway takes part.
//!
//! Invariants: an answer has at most [`ANSWER_BYTES_MAX`]; a connection is driven by a task that ends with it; nothing of a request's
//! headers is ever shown.
//! Sources: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, <https://opentelemetry.io/docs/specs/otlp/#otlpgrpc>.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Request, Uri, Version, header};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, crypto::aws_lc_rs};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::config::Target;
use super::receiver::{Answer, taken, told};
use super::wire;

/// The longest answer that is read: it has a number and a sentence.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 10;
/// A flag, and the length of the message.
const FRAME_HEAD_BYTES: usize = 5;
/// The most that a time may have in one unit: eight digits.
const TIMEOUT_MILLIS_MAX: u128 = 99_999_999;

/// Who is sent messages.
pub(super) struct Client {
    host: String,
    port: u16,
    /// Without credentials, which a URL may have.
    uri: Uri,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Bytes>,
    _driven: AbortOnDropHandle<()>,
}

impl Client {
    /// Reads what the connection needs; it is made later.
    ///
    /// # Errors
    /// A sentence, where certificates or the key cannot be used.
    pub(super) async fn of(target: &Target) -> Result<Self, String> {
        let endpoint = &target.endpoint;
        let shown = endpoint.host_str().unwrap_or_default().to_owned();
        let host = shown.trim_matches(['[', ']']).to_owned();
        let port = endpoint.port_or_known_default().unwrap_or(4317);
        let (scheme, path) = (endpoint.scheme(), endpoint.path());
        let uri = format!("{scheme}://{shown}:{port}{path}").parse::<Uri>();
        let uri = uri.map_err(|error| error.to_string())?;
        let tls = match scheme {
            "https" => {
                let name = ServerName::try_from(host.clone());
                let name = name.map_err(|error| error.to_string())?;
                let own = target.clone();
                // The platform's certificates are some hundred kilobytes.
                let config = tokio::task::spawn_blocking(move || tls(&own)).await;
                let config = config.map_err(|error| error.to_string())??;
                Some((TlsConnector::from(config), name))
            }
            _ => None,
        };
        Ok(Self {
            host,
            port,
            uri,
            tls,
            connection: None,
        })
    }

    /// Sends a message, compressed already where the target wants that.
    pub(super) async fn post(&mut self, target: &Target, message: Bytes) -> Answer {
        let posted = tokio::time::timeout(target.timeout, self.exchange(target, message));
        match posted.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => {
                self.connection = None;
                Answer::Later(None, why)
            }
            Err(_) => {
                self.connection = None;
                Answer::Later(None, "it did not answer in time".to_owned())
            }
        }
    }

    async fn exchange(&mut self, target: &Target, message: Bytes) -> Result<Answer, String> {
        let request = self.request(target)?;
        let mut sender = self.sender().await?;
        let (answer, mut sending) = sender
            .send_request(request, false)
            .map_err(|error| error.to_string())?;
        let mut left = framed(target.gzip, &message);
        while !left.is_empty() {
            sending.reserve_capacity(left.len());
            // A receiver that has answered already reads no more.
            let Some(room) = poll_fn(|context| sending.poll_capacity(context)).await else {
                break;
            };
            let room = room.map_err(|error| error.to_string())?;
            let part = left.split_to(room.min(left.len()));
            let sent = sending.send_data(part, left.is_empty());
            sent.map_err(|error| error.to_string())?;
        }
        let answer = answer.await.map_err(|error| error.to_string())?;
        let (head, mut body) = answer.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(part) = body.data().await {
            let part = part.map_err(|error| error.to_string())?;
            if bytes.len() + part.len() > ANSWER_BYTES_MAX {
                return Err("its answer is too long".to_owned());
            }
            bytes.extend_from_slice(&part);
            // What is read makes room; without it the receiver would wait.
            let _ = body.flow_control().release_capacity(part.len());
        }
        let trailers = body.trailers().await.map_err(|error| error.to_string())?;
        let lines = trailers.as_ref().unwrap_or(&head.headers);
        if head.status != http::StatusCode::OK {
            return Ok(of_http(head.status));
        }
        Ok(of_lines(lines, &bytes))
    }

    fn request(&self, target: &Target) -> Result<Request<()>, String> {
        let mut request = Request::post(self.uri.clone())
            .version(Version::HTTP_2)
            .body(())
            .map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.clone_from(&target.headers);
        let agent = concat!("weft/", env!("CARGO_PKG_VERSION"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert("grpc-timeout", timeout(target.timeout));
        if target.gzip {
            headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
        }
        Ok(request)
    }

    /// Of the connection that there is, or of a new one.
    async fn sender(&mut self) -> Result<SendRequest<Bytes>, String> {
        if let Some(connection) = self.connection.take()
            && let Ok(sender) = connection.sender.clone().ready().await
        {
            self.connection = Some(connection);
            return Ok(sender);
        }
        let address = (self.host.as_str(), self.port);
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let _ = stream.set_nodelay(true);
        let connection = match &self.tls {
            None => begin(stream).await?,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                let stream = stream.map_err(|error| error.to_string())?;
                if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                    return Err("it does not speak HTTP/2".to_owned());
                }
                begin(stream).await?
            }
        };
        let connection = self.connection.insert(connection);
        let ready = connection.sender.clone().ready().await;
        ready.map_err(|error| error.to_string())
    }
}

async fn begin<S>(stream: S) -> Result<Connection, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = h2::client::handshake(stream).await;
    let (sender, connection) = begun.map_err(|error| error.to_string())?;
    let driven = tokio::spawn(async move {
        // Whoever sends next is told.
        let _ = connection.await;
    });
    Ok(Connection {
        sender,
        _driven: AbortOnDropHandle::new(driven),
    })
}

fn tls(target: &Target) -> Result<Arc<ClientConfig>, String> {
    let read = |path: &std::path::Path| {
        let certificates = CertificateDer::pem_file_iter(path)
            .and_then(|all| all.collect::<Result<Vec<CertificateDer<'static>>, _>>());
        certificates.map_err(|error| format!("{}: {error}", path.display()))
    };
    let extra = match &target.certificate {
        Some(path) => read(path)?,
        None => Vec::new(),
    };
    let verifier = weft_mesh::outside_verifier(extra).map_err(|error| error.to_string())?;
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &target.client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let shown = key.display();
            let chain = read(chain)?;
            // The error says what is wrong with the file, and nothing of what is in it.
            let key = PrivateKeyDer::from_pem_file(key);
            let key = key.map_err(|error| format!("{shown}: {error}"))?;
            let built = builder.with_client_auth_cert(chain, key);
            built.map_err(|error| error.to_string())?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn framed(compressed: bool, message: &Bytes) -> Bytes {
    let mut frame = BytesMut::with_capacity(FRAME_HEAD_BYTES + message.len());
    frame.put_u8(compressed.into());
    // Batches are bounded; one of four gigabytes is none.
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(message);
    frame.freeze()
}

fn timeout(timeout: Duration) -> HeaderValue {
    let text = match timeout.as_millis() {
        millis if millis <= TIMEOUT_MILLIS_MAX => format!("{millis}m"),
        _ => format!("{}S", timeout.as_secs()),
    };
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("10S"))
}

/// What is meant by an answer that is none of gRPC: it is of something in between.
fn of_http(status: http::StatusCode) -> Answer {
    let why = format!("it answered {status}");
    match status.as_u16() {
        429 | 502..=504 => Answer::Later(None, why),
        _ => Answer::Never(why),
    }
}

/// What a status says, and the message before it.
fn of_lines(lines: &HeaderMap, body: &[u8]) -> Answer {
    let text = |name: &str| lines.get(name).and_then(|value| value.to_str().ok());
    let Some(status) = text("grpc-status").and_then(|status| status.parse::<u32>().ok()) else {
        return Answer::Later(None, "its answer has no status".to_owned());
    };
    if status == 0 {
        // What it would compress it was not asked to.
        let message = body.get(FRAME_HEAD_BYTES..).unwrap_or_default();
        return taken(message);
    }
    let said = text("grpc-message").unwrap_or_default();
    let said = percent_encoding::percent_decode_str(said).decode_utf8_lossy();
    let why = format!("it answered with status {status}: {}", told(&said));
    let after = text("grpc-status-details-bin").and_then(retry_info);
    match status {
        // Cancelled, deadline exceeded, aborted, out of range, unavailable, data loss: as the protocol has it.
        1 | 4 | 10 | 11 | 14 | 15 => Answer::Later(after, why),
        // Exhausted: only a receiver that says when will be able to.
        8 if after.is_some() => Answer::Later(after, why),
        _ => Answer::Never(why),
    }
}

/// `google.rpc.RetryInfo` among a status' details: after how long it may be tried again.
fn retry_info(details: &str) -> Option<Duration> {
    let status = STANDARD_NO_PAD.decode(details.trim_end_matches('=')).ok()?;
    let found = wire::fields(&status).find_map(|(number, value)| {
        let wire::Value::Bytes(any) = value else {
            return None;
        };
        let of = wire::bytes_of(any, 1)?;
        let is_one = number == 3 && of.ends_with(b"/google.rpc.RetryInfo");
        is_one.then(|| wire::bytes_of(any, 2)).flatten()
    })?;
    let delay = wire::bytes_of(found, 1).unwrap_or_default();
    let seconds = wire::number_of(delay, 1).unwrap_or_default();
    let nanos = wire::number_of(delay, 2).unwrap_or_default();
    let nanos = u32::try_from(nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::super::wire::Message;
    use super::*;

    fn lines(all: &[(&'static str, &str)]) -> HeaderMap {
        let all = all.iter().map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, value.parse().expect("a value"))
        });
        all.collect()
    }

    fn shown(answer: &Answer) -> String {
        match answer {
            Answer::Taken { rejected, why } => format!("taken but {rejected} [{why}]"),
            Answer::Later(after, why) => format!("later {after:?} [{why}]"),
            Answer::Never(why) => format!("never [{why}]"),
        }
    }

    #[test]
    fn what_a_status_means() {
        let mut details = Message::default();
        details.number(1, 8);
        details.message(3, |any| {
            any.text(1, "type.googleapis.com/google.rpc.RetryInfo");
            any.message(2, |info| {
                info.message(1, |delay| {
                    delay.number(1, 2);
                    delay.number(2, 500_000_000);
                });
            });
        });
        let details = STANDARD_NO_PAD.encode(details.into_bytes());
        let mut partial = Message::default();
        partial.message(1, |partial| {
            partial.number(1, 3);
            partial.text(2, "too old");
        });
        let partial = framed(false, &partial.into_bytes().into());
        let known = [
            ("grpc-status", "8"),
            ("grpc-status-details-bin", details.as_str()),
        ];
        let cases = [
            of_lines(&lines(&[("grpc-status", "0")]), b""),
            of_lines(&lines(&[("grpc-status", "0")]), &[0, 0, 0, 0, 0]),
            of_lines(&lines(&[("grpc-status", "0")]), &partial),
            of_lines(&lines(&[("grpc-status", "14")]), b""),
            of_lines(
                &lines(&[("grpc-status", "3"), ("grpc-message", "no%20such%0a")]),
                b"",
            ),
            of_lines(&lines(&[("grpc-status", "8")]), b""),
            of_lines(&lines(&known), b""),
            of_lines(&lines(&[("grpc-status", "x")]), b""),
            of_lines(&lines(&[]), b""),
            of_http(http::StatusCode::BAD_GATEWAY),
            of_http(http::StatusCode::NOT_FOUND),
        ];
        let cases: Vec<String> = cases.iter().map(shown).collect();
        insta::assert_snapshot!(cases.join("\n"), @r"
        taken but 0 []
        taken but 0 []
        taken but 3 [too old]
        later None [it answered with status 14: ]
        never [it answered with status 3: no such\n]
        never [it answered with status 8: ]
        later Some(2.5s) [it answered with status 8: ]
        later None [its answer has no status]
        later None [its answer has no status]
        later None [it answered 502 Bad Gateway]
        never [it answered 404 Not Found]
        ");
    }

    #[test]
    fn times_have_eight_digits() {
        for (given, expected) in [
            (Duration::from_millis(1), "1m"),
            (Duration::from_secs(10), "10000m"),
            (Duration::from_millis(u32::MAX.into()), "4294967S"),
        ] {
            assert_eq!(timeout(given), expected);
        }
    }
}
