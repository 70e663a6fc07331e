//! The node's HTTPS port: logs, metrics and summaries, for the API server only.
//!
//! | path | answer |
//! | --- | --- |
//! | `/containerLogs/NS/POD/CONTAINER` | the container's log, followed if asked |
//! | `/metrics` | text of Prometheus, or of OpenMetrics: the mesh's and the workloads' |
//! | `/stats/summary` | usage by pod, as the kubelet's |
//! | `/stats/calls` | what the mesh counted of calls, by pod and Service ([`weft_call::counted`]) |
//! | `/stats/edges?within=SECONDS` | what it counted of each edge, or of those alone that had calls in that time ([`weft_call::edges`]) |
//! | `/stats/mesh?service=NS/NAME` | how the mesh stands, and with it a Service ([`weft_call::standing`]) |
//! | `/tap?…` | calls as they end ([`crate::tap`]) |
//! | `/spans?…` | traces with something to look at, and what was seen of one ([`crate::spans`]) |
//! | `/podProxy/NS/POD/UID/PORT/PATH` | the pod's ([`crate::pod_proxy`]), of any method |
//! | `/exec/…`, `/attach/…`, `/portForward/…` | none: the connection becomes a stream ([`crate::streams`]) |
//! | `/healthz` | `ok` |
//!
//! Invariants: nobody without a client certificate of the cluster's authority that says `O=system:masters` gets past the
//! handshake and its check; connections are bounded; a log that nobody reads is not held in memory.
//!
//! Left to others: who may ask the API server for it (`weft_apiserver`).

use crate::heartbeat;
use crate::identity::Serving;
use crate::logs::{self, Query, Reader, RunId};
use crate::metrics;
use crate::node::Node;
use crate::pod_proxy::{self, Target};
use crate::pod_stream;
use crate::registry::{ContainerRecord, PodRecord};
use crate::streams::{self, Session};
use crate::tap;
use crate::trust::Trust;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use serde_json::json;
use socket2::{SockRef, TcpKeepalive};
use std::fmt::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use weft_api::StatusError;
use weft_call::counted::{NodeCalls, PodCalls};
use weft_mesh::{Format, accept_loop};
use weft_runtime::VolumeUsage;

/// Connections at once: followed logs each take one.
const CONNECTIONS_MAX: usize = 1024;
/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How long a client may take to send its request's head.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// A peer that says nothing for so long is asked whether it is there, and how often it may leave that unanswered.
const SILENCE: Duration = Duration::from_secs(10);
const SILENCES_MAX: u32 = 3;

pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Why the port could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("setting up TLS")]
    Tls(#[source] rustls::Error),
    #[error("trusting the cluster's authority")]
    Verifier(#[source] rustls::client::VerifierBuilderError),
    #[error("registering the listener")]
    Listener(#[source] std::io::Error),
}

/// Serves until `shutdown`.
///
/// # Errors
/// When the listener or TLS cannot be set up; nothing once it serves.
pub async fn serve(
    node: Arc<Node>,
    listener: TcpListener,
    serving: Serving,
    trust: Trust,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let mut changes = trust.changes();
    let now = changes.borrow_and_update().clone();
    let mut tls = TlsAcceptor::from(Arc::new(tls_config(serving.clone(), &now.authorities)?));
    listener
        .set_nonblocking(true)
        .map_err(ServeError::Listener)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(ServeError::Listener)?;
    let serve = move |stream, _, stop: CancellationToken| {
        if changes.has_changed().unwrap_or(false) {
            let now = changes.borrow_and_update().clone();
            match tls_config(serving.clone(), &now.authorities) {
                Ok(config) => tls = TlsAcceptor::from(Arc::new(config)),
                Err(error) => {
                    tracing::error!(%error, "the node port goes on with the authorities of before");
                }
            }
        }
        let connection = connection(node.clone(), tls.clone(), stream);
        // Not drained: a log that is followed has no end.
        async move {
            stop.run_until_cancelled(connection).await;
        }
    };
    accept_loop(listener, shutdown, CONNECTIONS_MAX, serve).await;
    Ok(())
}

async fn connection(node: Arc<Node>, tls: TlsAcceptor, stream: TcpStream) {
    if let Err(error) = notice_its_death(&stream) {
        tracing::debug!(%error, "a connection to the node port is not watched");
    }
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await else {
        return;
    };
    let trusted = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .is_some_and(is_master);
    let begun: Arc<Mutex<Option<Session>>> = Arc::default();
    let becomes = Arc::clone(&begun);
    let service = service_fn(move |request| {
        let (node, becomes) = (node.clone(), Arc::clone(&becomes));
        async move {
            let response = if !trusted {
                Err(StatusError::forbidden_message(
                    "the client certificate must have O=system:masters",
                ))
            } else if let Some(target) = streams::Target::of(request.uri()) {
                begin(&node, target, request, &becomes).await
            } else if let Some(target) = Target::of(request.uri()) {
                Ok(pod_proxy::serve(&node, target, request).await)
            } else if let Some(target) = pod_stream::Target::of(request.uri()) {
                Ok(pod_stream::serve(&node, &target, request))
            } else {
                route(&node, &request).await
            };
            Ok::<_, std::convert::Infallible>(response.unwrap_or_else(|error| refusal(&error)))
        }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(128);
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::trace!(%error, "a connection to the node port ended");
    }
    let session = begun.lock().take();
    if let Some(session) = session {
        session.await;
    }
}

/// A server that is gone without a word is noticed by the kernel, whoever has something to say.
fn notice_its_death(stream: &TcpStream) -> std::io::Result<()> {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(SILENCE)
        .with_interval(SILENCE)
        .with_retries(SILENCES_MAX);
    socket.set_tcp_keepalive(&keepalive)
}

/// Agrees that the connection becomes a stream, which it is once this is answered.
async fn begin(
    node: &Arc<Node>,
    target: Result<streams::Target, StatusError>,
    request: Request<Incoming>,
    becomes: &Mutex<Option<Session>>,
) -> Result<Response<Body>, StatusError> {
    let (response, session) = streams::begin(node, target?, request).await?;
    *becomes.lock() = Some(session);
    Ok(response)
}

fn tls_config(
    serving: Serving,
    authority: &[CertificateDer<'static>],
) -> Result<rustls::ServerConfig, ServeError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in authority {
        roots.add(certificate.clone()).map_err(ServeError::Tls)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(ServeError::Verifier)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ServeError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(serving));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn is_master(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        return false;
    };
    parsed
        .subject()
        .iter_organization()
        .any(|name| name.as_str() == Ok("system:masters"))
}

pub(crate) fn full(
    status: StatusCode,
    content_type: &str,
    text: impl Into<Bytes>,
) -> Response<Body> {
    let body = Full::new(text.into())
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Ok(value) = content_type.parse() {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

pub(crate) fn refusal(error: &StatusError) -> Response<Body> {
    let status = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    full(status, "application/json", error.to_value().to_string())
}

async fn route(
    node: &Arc<Node>,
    request: &Request<Incoming>,
) -> Result<Response<Body>, StatusError> {
    if request.method() != Method::GET {
        return Err(StatusError::method_not_allowed());
    }
    let path = request.uri().path();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments[..] {
        ["healthz"] => Ok(full(StatusCode::OK, "text/plain", "ok")),
        ["metrics"] => {
            let accept = request.headers().get(header::ACCEPT);
            let accept = accept.and_then(|accept| accept.to_str().ok());
            let format = Format::accepted(accept.unwrap_or_default());
            let pieces = metrics::pieces(node.clone(), format);
            let frames = pieces.map(|piece| piece.map(Frame::data));
            let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
            if let Ok(value) = metrics::content_type(format).parse() {
                response.headers_mut().insert(header::CONTENT_TYPE, value);
            }
            Ok(response)
        }
        ["stats", "summary"] => Ok(full(StatusCode::OK, "application/json", summary(node))),
        ["stats", "calls"] => {
            let calls = serde_json::to_string(&calls(node)).map_err(StatusError::internal)?;
            Ok(full(StatusCode::OK, "application/json", calls))
        }
        ["stats", "edges"] => {
            let query = request.uri().query().unwrap_or_default();
            let within = edges_within(query).map_err(StatusError::bad_request)?;
            let node = node.clone();
            let text = tokio::task::spawn_blocking(move || {
                serde_json::to_string(&node.mesh.counted_edges(within))
            });
            let text = text.await.map_err(StatusError::internal)?;
            let text = text.map_err(StatusError::internal)?;
            Ok(full(StatusCode::OK, "application/json", text))
        }
        ["stats", "mesh"] => {
            let query = request.uri().query().unwrap_or_default();
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            let service = pairs.find(|(name, _)| name == "service");
            let service = service
                .as_ref()
                .and_then(|(_, value)| value.split_once('/'));
            let mut standing = node.mesh.standing(service);
            let sent = node.telemetry.all().into_iter();
            standing.telemetry_dropped = sent
                .map(|(_, sent)| sent.dropped.load(Ordering::Relaxed))
                .sum();
            let text = serde_json::to_string(&standing).map_err(StatusError::internal)?;
            Ok(full(StatusCode::OK, "application/json", text))
        }
        ["tap"] => {
            let query = request.uri().query().unwrap_or_default();
            let lines = tap::watch(&node.mesh, &node.facts.name, query)?;
            Ok(lines_response(lines))
        }
        ["spans"] => {
            let query = request.uri().query().unwrap_or_default();
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            match pairs.find(|(name, _)| name == "traces") {
                None => Ok(lines_response(node.spans.watch(&node.mesh)?)),
                Some((_, traces)) => {
                    let spans = node.spans.of(&traces, &node.facts.name);
                    let spans = spans.map_err(StatusError::bad_request)?;
                    Ok(full(StatusCode::OK, "application/json", spans))
                }
            }
        }
        ["containerLogs", namespace, pod, container] => {
            let query = request.uri().query().unwrap_or_default();
            container_logs(node, namespace, pod, container, query).await
        }
        _ => Err(StatusError::unknown_path()),
    }
}

/// Lines of JSON as they come.
fn lines_response(
    lines: impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static,
) -> Response<Body> {
    let frames = lines.map(|lines| match lines {
        Ok(lines) => Ok::<_, std::io::Error>(Frame::data(lines)),
        Err(never) => match never {},
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    response
}

async fn container_logs(
    node: &Arc<Node>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &str,
) -> Result<Response<Body>, StatusError> {
    let asked = log_query(query, Timestamp::now()).map_err(StatusError::bad_request)?;
    let Some(record) = node.registry.get(namespace, pod) else {
        return Err(StatusError::not_found("pods", "", pod));
    };
    let run = choose_run(&record, namespace, pod, container, asked.previous)
        .map_err(StatusError::bad_request)?;
    // `tailLines` counts the lines of up to thirty megabytes: not on an async thread.
    let logs = node.logs.clone();
    let opened = tokio::task::spawn_blocking(move || logs.read(&run, asked.query)).await;
    let reader = match opened.map_err(std::io::Error::other).flatten() {
        Ok(reader) => reader,
        // It ran and wrote nothing.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !asked.previous => {
            return Ok(full(StatusCode::OK, "text/plain", Bytes::new()));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(StatusError::bad_request(format!(
                "previous terminated container \"{container}\" in pod \"{pod}\" not found"
            )));
        }
        Err(error) => return Err(StatusError::internal(format!("reading the log: {error}"))),
    };
    let mut response = Response::new(StreamBody::new(frames(reader)).boxed_unsync());
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Ok(response)
}

fn frames(reader: Reader) -> impl Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send {
    futures::stream::try_unfold(reader, |mut reader| async move {
        Ok(reader
            .next()
            .await?
            .map(|text| (Frame::data(Bytes::from(text)), reader)))
    })
}

/// Which run's log is meant; the error is the sentence kubectl prints.
fn choose_run(
    record: &PodRecord,
    namespace: &str,
    pod: &str,
    container: &str,
    previous: bool,
) -> Result<RunId, String> {
    let Some(found) = record
        .containers
        .iter()
        .find(|found| found.name == container)
    else {
        return Err(format!("container {container} is not valid for pod {pod}"));
    };
    let run = |restart| RunId {
        namespace: namespace.into(),
        pod: pod.into(),
        uid: record.uid.clone(),
        container: container.into(),
        restart,
    };
    match (found, previous) {
        (ContainerRecord { restart: 0, .. }, true) => Err(format!(
            "previous terminated container \"{container}\" in pod \"{pod}\" not found"
        )),
        (ContainerRecord { restart, .. }, true) => Ok(run(restart - 1)),
        (
            ContainerRecord {
                waiting: Some(reason),
                ..
            },
            false,
        ) => {
            let words = match reason.as_str() {
                "ErrImagePull" => "image can't be pulled",
                "ImagePullBackOff" => "trying and failing to pull image",
                other => other,
            };
            Err(format!(
                "container \"{container}\" in pod \"{pod}\" is waiting to start: {words}"
            ))
        }
        (ContainerRecord { restart, .. }, false) => Ok(run(*restart)),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Asked {
    query: Query,
    previous: bool,
}

fn log_query(query: &str, now: Timestamp) -> Result<Asked, String> {
    let mut asked = Asked {
        query: Query::default(),
        previous: false,
    };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{name} must be a number, not \"{value}\""))
        };
        let flag = || matches!(&*value, "true" | "1" | "");
        match &*name {
            "follow" => asked.query.follow = flag(),
            "previous" => asked.previous = flag(),
            "timestamps" => asked.query.timestamps = flag(),
            "tailLines" => asked.query.tail_lines = Some(number()?),
            "limitBytes" => asked.query.limit_bytes = Some(number()?),
            "sinceSeconds" => {
                let ago = i64::try_from(number()?).map_err(|_| format!("{name} is too large"))?;
                asked.query.since = now.checked_sub(jiff::SignedDuration::from_secs(ago)).ok();
            }
            "sinceTime" => {
                let wrong = |_| format!("sinceTime \"{value}\" is not an RFC 3339 time");
                asked.query.since = Some(value.parse().map_err(wrong)?);
            }
            "stream" => {
                asked.query.stream = match &*value {
                    "Stdout" => Some(logs::Stream::Stdout),
                    "Stderr" => Some(logs::Stream::Stderr),
                    _ => None,
                }
            }
            // `container`, `insecureSkipTLSVerifyBackend` and what later versions add.
            _ => {}
        }
    }
    Ok(asked)
}

/// The time before now in which an edge must have had calls.
fn edges_within(query: &str) -> Result<Option<Duration>, String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let Some((_, value)) = pairs.find(|(name, _)| name == "within") else {
        return Ok(None);
    };
    let seconds = value.parse::<u32>();
    let seconds =
        seconds.map_err(|_| format!("within must be a number of seconds, not {value:?}"))?;
    Ok(Some(Duration::from_secs(seconds.into())))
}

/// What the mesh counted of calls.
fn calls(node: &Node) -> NodeCalls {
    let counted = node.mesh.counted_pods();
    let pods = node.registry.all().into_iter();
    let pods = pods.filter_map(|((namespace, name), record)| {
        Some(PodCalls {
            namespace,
            name,
            calls: counted.get(&record.ip?)?.clone(),
            uid: record.uid,
        })
    });
    NodeCalls {
        time: weft_api::time::rfc3339_micros(Timestamp::now()),
        pods: pods.collect(),
        services: node.mesh.counted_services(),
    }
}

/// What the kubelet's summary has no name of its own for, where there is any: how many instances there are of a container's component, and how
/// many were ever started.
fn instances(out: &mut String, now: &str, used: &weft_runtime::Usage) {
    if used.instances_started == 0 {
        return;
    }
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        ",\"userDefinedMetrics\":[{{\"name\":\"instances\",\"type\":\"gauge\",\"units\":\"\",\"time\":\"{now}\",\"value\":{}}},\
         {{\"name\":\"instances_started\",\"type\":\"cumulative\",\"units\":\"\",\"time\":\"{now}\",\"value\":{}}}]",
        used.instances, used.instances_started
    );
}

/// Usage by pod as the kubelet's `/stats/summary` has it, and of this process as the node's. Written as it is read: a tree of
/// ten thousand pods would cost more than the answer.
fn summary(node: &Node) -> String {
    let now = weft_api::time::rfc3339_micros(Timestamp::now());
    let process = heartbeat::process_usage();
    let mut out = format!(
        "{{\"node\":{{\"nodeName\":{},\"cpu\":{{\"time\":\"{now}\",\"usageCoreNanoSeconds\":{}}},\
         \"memory\":{{\"time\":\"{now}\",\"workingSetBytes\":{}}}}},\"pods\":[",
        json!(node.facts.name),
        process.cpu_nanos,
        process.memory_bytes,
    );
    // Names are Kubernetes' and need no escaping. Writing to a String cannot fail.
    let usage = |out: &mut String, cpu: u64, memory: u64| {
        let _ = write!(
            out,
            "\"cpu\":{{\"time\":\"{now}\",\"usageCoreNanoSeconds\":{cpu}}},\
             \"memory\":{{\"time\":\"{now}\",\"workingSetBytes\":{memory},\"usageBytes\":{memory}}}"
        );
    };
    let mut first = true;
    for ((namespace, name), record) in node.registry.all() {
        let _ = write!(
            out,
            "{}{{\"podRef\":{{\"name\":\"{name}\",\"namespace\":\"{namespace}\",\"uid\":\"{}\"}},\"containers\":[",
            if first { "" } else { "," },
            record.uid
        );
        first = false;
        let (mut cpu, mut memory) = (0, 0);
        let mut between = "";
        for container in &record.containers {
            let Some(used) = container.usage() else {
                continue;
            };
            cpu += used.cpu_nanos;
            memory += used.memory_bytes;
            let _ = write!(out, "{between}{{\"name\":\"{}\",", container.name);
            usage(&mut out, used.cpu_nanos, used.memory_bytes);
            instances(&mut out, &now, &used);
            out.push('}');
            between = ",";
        }
        out.push_str("],");
        let volumes = node.volumes.of_pod(&record.uid);
        let in_memory = volumes.iter().filter(|(_, volume)| volume.is_memory());
        memory += in_memory
            .map(|(_, volume)| volume.usage().bytes)
            .sum::<u64>();
        usage(&mut out, cpu, memory);
        out.push_str(",\"volume\":[");
        let mut between = "";
        for (name, volume) in volumes {
            let VolumeUsage {
                bytes,
                inodes,
                limits,
            } = volume.usage();
            let (capacity, most) = (
                limits.bytes.unwrap_or_default(),
                limits.inodes.unwrap_or_default(),
            );
            let _ = write!(
                out,
                "{between}{{\"name\":\"{name}\",\"time\":\"{now}\",\"capacityBytes\":{capacity},\
                 \"usedBytes\":{bytes},\"availableBytes\":{},\"inodes\":{most},\
                 \"inodesUsed\":{inodes},\"inodesFree\":{}}}",
                capacity.saturating_sub(bytes),
                most.saturating_sub(inodes),
            );
            between = ",";
        }
        out.push_str("]}");
    }
    out.push_str("]}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn any_query_is_a_question_or_a_sentence(
            query in prop_oneof![
                1 => any::<String>(),
                4 => "((follow|previous|tailLines|limitBytes|sinceSeconds|sinceTime|x)=([0-9]{1,20}|true|2026-01-02T03%3A04%3A05(Z|%2B01%3A00)|-1)?&?){0,4}",
            ]
        ) {
            let now = Timestamp::from_second(1_000_000).expect("in range");
            match log_query(&query, now) {
                // Seconds are counted back from now; more than there ever were is from the beginning.
                Ok(asked) => prop_assert!(asked.query.since.is_none_or(|since| since <= now || query.contains("sinceTime"))),
                Err(told) => prop_assert!(!told.is_empty()),
            }
        }
    }

    /// Whose certificate leads to logs, metrics, streams and pods of a node: a server's alone. A node's own, stolen or not, opens no other node's
    /// port, and neither does what only looks like a server's. The number is that of `docs/attacks.md`.
    #[test]
    fn attack_82_no_certificate_but_a_servers_opens_a_nodes_port() {
        use rcgen::{CertificateParams, DnType, KeyPair};
        let masters = "system:masters";
        let cases: [(&[(DnType, &str)], bool); 9] = [
            (&[(DnType::OrganizationName, masters)], true),
            (
                &[
                    (DnType::OrganizationName, "x"),
                    (DnType::OrganizationName, masters),
                ],
                true,
            ),
            (&[], false),
            (
                &[
                    (DnType::OrganizationName, "system:nodes"),
                    (DnType::CommonName, "system:node:a"),
                ],
                false,
            ),
            (&[(DnType::CommonName, masters)], false),
            (&[(DnType::OrganizationalUnitName, masters)], false),
            (&[(DnType::OrganizationName, "System:Masters")], false),
            (&[(DnType::OrganizationName, " system:masters")], false),
            (
                &[
                    (DnType::OrganizationName, "weft:servers"),
                    (DnType::CommonName, "weft:server:1"),
                ],
                false,
            ),
        ];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        for (subject, expected) in cases {
            let names = ["spiffe://cluster.local/ns/kube-system/sa/admin".to_owned()];
            let mut params = CertificateParams::new(names).expect("names");
            params.distinguished_name = rcgen::DistinguishedName::new();
            for (kind, value) in subject {
                params.distinguished_name.push(kind.clone(), *value);
            }
            let made = params.self_signed(&key).expect("a certificate");
            assert_eq!(is_master(made.der()), expected, "{subject:?}");
        }
        assert!(!is_master(&CertificateDer::from(vec![0x30, 0x80])));
    }

    #[test]
    fn the_query_of_pods_log() {
        let now = Timestamp::from_second(1_000_000).expect("in range");
        let asked = log_query(
            "container=web&follow=true&tailLines=5&sinceSeconds=60&timestamps=true&previous=false",
            now,
        )
        .expect("parses");
        assert!(asked.query.follow && asked.query.timestamps && !asked.previous);
        assert_eq!(asked.query.tail_lines, Some(5));
        assert_eq!(asked.query.since, Timestamp::from_second(999_940).ok());
        assert!(log_query("sinceTime=2026-01-02T03%3A04%3A05Z", now).is_ok());
        for bad in ["tailLines=x", "sinceTime=yesterday", "limitBytes=-1"] {
            assert!(log_query(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_that_is_not_there_says_why() {
        let container = |name: &str, restart, waiting: Option<&str>| ContainerRecord {
            name: name.into(),
            restart,
            waiting: waiting.map(Into::into),
            workload: None,
            context: None,
            spent: None,
        };
        let record = PodRecord {
            uid: "u".into(),
            ip: None,
            containers: vec![
                container("web", 2, None),
                container("new", 0, Some("ImagePullBackOff")),
                container("up", 0, None),
            ]
            .into(),
        };
        let choose = |name: &str, previous| {
            choose_run(&record, "vote", "web-1", name, previous).map(|run| run.restart)
        };
        assert_eq!(choose("web", false), Ok(2));
        assert_eq!(choose("web", true), Ok(1));
        let text: Vec<String> = [("nope", false), ("new", false), ("up", true)]
            .into_iter()
            .filter_map(|(name, previous)| choose(name, previous).err())
            .collect();
        insta::assert_snapshot!(text.join("\n"), @r#"
        container nope is not valid for pod web-1
        container "new" in pod "web-1" is waiting to start: trying and failing to pull image
        previous terminated container "up" in pod "web-1" not found
        "#);
    }
}
