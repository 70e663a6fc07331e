//! Who is sent one signal: a message until it is taken, refused or too old, by HTTP or by gRPC.
//!
//! Invariants: a receiver that is gone, slow or full costs nobody but the telemetry: a message is tried for [`TRYING_MAX`], and what is not
//! taken is counted as dropped, that part of it included which a receiver says it left out. Credentials are in no message of ours.
//! Sources: <https://opentelemetry.io/docs/specs/otlp/> (`#failures`, `#partial-success`).

use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::{Identity, Response};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::{self, Protocol, Target};
use super::{Encoded, Sent, grpc, wire};

/// The pause before a batch is sent again, doubled each time; a receiver may ask for a longer one.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long one batch is tried, pauses included.
const TRYING_MAX: Duration = Duration::from_secs(30);
/// How long the last ones may take when the node stops.
const FAREWELL_MAX: Duration = Duration::from_millis(800);
/// Of what a receiver says, so much is told.
const TOLD_CHARS_MAX: usize = 200;

/// Who is sent one signal.
pub(super) struct Receiver<'t> {
    target: &'t Target,
    way: Way,
}

enum Way {
    Http(reqwest::Client),
    Grpc(grpc::Client),
}

/// What a receiver said to a batch.
#[derive(Debug)]
pub(super) enum Answer {
    /// All but so many of it, and why these not.
    Taken {
        rejected: u64,
        why: String,
    },
    /// It may take it later, after that long if it says so.
    Later(Option<Duration>, String),
    Never(String),
}

/// The answer of who took a message, as both protocols have it.
pub(super) fn taken(message: &[u8]) -> Answer {
    let partial = wire::bytes_of(message, 1).unwrap_or_default();
    let why = wire::bytes_of(partial, 2).unwrap_or_default();
    Answer::Taken {
        rejected: wire::number_of(partial, 1).unwrap_or_default(),
        why: told(&String::from_utf8_lossy(why)),
    }
}

/// What somebody else says, as it may stand in a line of ours.
pub(super) fn told(text: &str) -> String {
    text.chars()
        .take(TOLD_CHARS_MAX)
        .flat_map(char::escape_debug)
        .collect()
}

impl<'t> Receiver<'t> {
    /// None, and a line of the log, where nothing can be sent to it.
    pub(super) async fn of(target: &'t Target) -> Option<Self> {
        let way = match target.protocol {
            Protocol::Http => client(target).map(Way::Http),
            Protocol::Grpc => grpc::Client::of(target).await.map(Way::Grpc),
        };
        match way {
            Ok(way) => Some(Self { target, way }),
            Err(why) => {
                let endpoint = config::shown(&target.endpoint);
                tracing::error!(why, endpoint, "no telemetry can be sent to this receiver");
                None
            }
        }
    }

    /// Sends a message until it is taken, refused or too old; once the node stops, for a moment only.
    pub(super) async fn send(
        &mut self,
        (count, message): Encoded,
        counts: &Sent,
        stop: &CancellationToken,
    ) {
        let body = match self.target.gzip {
            true => gzip(&message),
            false => message,
        };
        let body = Bytes::from(body);
        let stopping = async {
            stop.cancelled().await;
            tokio::time::sleep(FAREWELL_MAX).await;
        };
        let sent = tokio::select! {
            biased;
            sent = self.tries(body) => sent,
            () = stopping => Err("the node stops".to_owned()),
        };
        let (rejected, why) = match sent {
            Ok((rejected, why)) => (rejected.min(count), why),
            Err(why) => (count, why),
        };
        counts
            .exported
            .fetch_add(count - rejected, Ordering::Relaxed);
        if rejected > 0 {
            let dropped = counts.dropped.fetch_add(rejected, Ordering::Relaxed) + rejected;
            let failures = counts.failures.fetch_add(1, Ordering::Relaxed) + 1;
            // Now and then: a receiver that refuses all would fill the log.
            if failures.is_power_of_two() {
                let endpoint = config::shown(&self.target.endpoint);
                tracing::warn!(endpoint, why, failures, dropped, "telemetry was dropped");
            }
        }
    }

    /// How many were left out, and why.
    async fn tries(&mut self, body: Bytes) -> Result<(u64, String), String> {
        let until = Instant::now() + TRYING_MAX;
        let mut pause = PAUSE;
        loop {
            let answer = match &mut self.way {
                Way::Http(client) => post(client, self.target, body.clone()).await,
                Way::Grpc(client) => client.post(self.target, body.clone()).await,
            };
            let (after, why) = match answer {
                Answer::Taken { rejected, why } => return Ok((rejected, why)),
                Answer::Never(why) => return Err(why),
                Answer::Later(after, why) => (after, why),
            };
            let after = after.unwrap_or(pause).min(PAUSE_MAX.max(pause));
            if Instant::now() + after >= until {
                return Err(why);
            }
            tokio::time::sleep(after).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

fn client(target: &Target) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("weft/", env!("CARGO_PKG_VERSION")))
        .timeout(target.timeout)
        .redirect(reqwest::redirect::Policy::none())
        .http1_only();
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    if target.endpoint.scheme() == "http" {
        // A machine without authorities of its own can send, too.
        builder = builder.tls_certs_only([]);
    } else if let Some(path) = &target.certificate {
        let certificates = reqwest::Certificate::from_pem_bundle(&read(path)?);
        let certificates = certificates.map_err(|error| format!("{}: {error}", path.display()))?;
        builder = builder.tls_certs_merge(certificates);
    }
    if let Some((chain, key)) = &target.client {
        let mut pem = read(chain)?;
        pem.push(b'\n');
        pem.extend(read(key)?);
        let identity = Identity::from_pem(&pem);
        let identity = identity.map_err(|error| format!("{}: {error}", chain.display()))?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| error.to_string())
}

async fn post(client: &reqwest::Client, target: &Target, body: Bytes) -> Answer {
    let mut request = client
        .post(target.endpoint.clone())
        .headers(target.headers.clone())
        .header(http::header::CONTENT_TYPE, "application/x-protobuf");
    if target.gzip {
        request = request.header(http::header::CONTENT_ENCODING, "gzip");
    }
    let answer = match request.body(body).send().await {
        Ok(answer) => answer,
        // Without the URL, in which there may be credentials.
        Err(error) => return Answer::Later(None, error.without_url().to_string()),
    };
    let status = answer.status();
    let after = answer.headers().get(http::header::RETRY_AFTER);
    let after = after.and_then(|after| after.to_str().ok()?.parse().ok());
    let why = format!("it answered {status}");
    // Those that the protocol names; any other refusal would be the same again.
    match status.as_u16() {
        200..=299 => taken(&beginning(answer).await),
        429 | 502..=504 => Answer::Later(after.map(Duration::from_secs), why),
        _ => Answer::Never(why),
    }
}

/// Of an answer so much as may say anything.
async fn beginning(mut answer: Response) -> BytesMut {
    let mut bytes = BytesMut::new();
    while let Ok(Some(part)) = answer.chunk().await {
        if bytes.len() + part.len() > grpc::ANSWER_BYTES_MAX {
            break;
        }
        bytes.extend_from_slice(&part);
    }
    bytes
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Into memory, which takes all.
    let _ = encoder.write_all(message);
    encoder.finish().unwrap_or_default()
}
