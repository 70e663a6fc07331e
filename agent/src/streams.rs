//! What a connection of a server to this node becomes when it asks for more than an answer: a command that runs, a look at a container, a port.
//!
//! ```text
//! POST /exec/NS/POD/UID/CONTAINER?command=a&stdin=1&stdout=1&stderr=1&tty=1 ─┐ frames of weft_call::stream_frame
//! POST /attach/NS/POD/UID/CONTAINER?stdin=1&…                                ─┴─► crate::session
//! POST /portForward/NS/POD/UID/PORT      raw bytes                           ───► crate::port_forward
//! ```
//!
//! What can be refused is refused before the connection is promised; after that a session says how it ended in its last frame.
//!
//! Invariants: a session runs in the task of its connection, and ends with it; what a guest does not read, or a client does not take, waits in
//! bounded channels and holds up its own session only; the last frame is sent once, after all output. Left to others: what a session does
//! (`crate::session`), who may (`weft_apiserver`).

use crate::http::Body;
use crate::node::Node;
use crate::port_forward::{self, PodPort};
use crate::session::{
    CHUNK_BYTES_MAX, CHUNKS_MAX, ContainerRef, SessionEnd, Streams, TerminalSize,
};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use weft_api::StatusError;
use weft_call::stream_frame::{self, Channel, Frame};

/// How often a session tells its server that it is there, which is how it notices one that is not.
const TICK: Duration = Duration::from_secs(1);
/// How long a server has to take the end of a session and go.
const FAREWELL_MAX: Duration = Duration::from_secs(5);
/// Sizes of a terminal that wait to be told; each makes the one before it old.
const SIZES_MAX: usize = 4;
/// What is read at once.
const READ_BYTES: usize = 16 << 10;

/// What a connection becomes.
pub(crate) type Session = BoxFuture<'static, ()>;

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Target {
    Exec {
        container: ContainerRef,
        command: Vec<String>,
        wants: Wants,
    },
    Attach {
        container: ContainerRef,
        wants: Wants,
    },
    Forward(PodPort),
}

/// Which streams of a container the server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wants {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Target {
    /// None where the path is of another kind.
    pub(crate) fn of(uri: &Uri) -> Option<Result<Self, StatusError>> {
        let mut parts = uri.path().strip_prefix('/')?.split('/');
        let what = parts.next()?;
        if !matches!(what, "exec" | "attach" | "portForward") {
            return None;
        }
        let parts: Vec<&str> = parts.collect();
        let [namespace, pod, uid, last] = parts[..] else {
            return Some(Err(StatusError::unknown_path()));
        };
        if parts.iter().any(|part| part.is_empty()) {
            return Some(Err(StatusError::unknown_path()));
        }
        if what == "portForward" {
            let port = match last.parse() {
                Ok(port) if port > 0 => port,
                _ => {
                    let told = format!("{last:?} is no port from 1 to 65535");
                    return Some(Err(StatusError::bad_request(told)));
                }
            };
            return Some(Ok(Self::Forward(PodPort {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                uid: uid.to_owned(),
                port,
            })));
        }
        let container = ContainerRef {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: uid.to_owned(),
            container: last.to_owned(),
        };
        let (mut wants, mut command) = (Wants::default(), Vec::new());
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or("").as_bytes()) {
            match &*name {
                "command" => command.push(value.into_owned()),
                "stdin" => wants.stdin = value == "1",
                "stdout" => wants.stdout = value == "1",
                "stderr" => wants.stderr = value == "1",
                "tty" => wants.tty = value == "1",
                _ => {}
            }
        }
        Some(Ok(match what {
            "exec" => Self::Exec {
                container,
                command,
                wants,
            },
            _ => Self::Attach { container, wants },
        }))
    }

    /// Whose pod it is, by name and uid.
    fn pod(&self) -> (&str, &str, &str) {
        match self {
            Self::Exec { container, .. } | Self::Attach { container, .. } => {
                (&container.namespace, &container.pod, &container.uid)
            }
            Self::Forward(at) => (&at.namespace, &at.pod, &at.uid),
        }
    }
}

/// Agrees to what is asked for: the answer, and what its connection becomes once that is sent.
///
/// # Errors
/// 400 for a connection that cannot become anything, 404 for a pod that is not here, 405, and what [`port_forward::find`] refuses.
pub(crate) async fn begin(
    node: &Arc<Node>,
    target: Target,
    mut request: Request<Incoming>,
) -> Result<(Response<Body>, Session), StatusError> {
    if request.method() != Method::POST {
        return Err(StatusError::method_not_allowed());
    }
    if request.version() != Version::HTTP_11 || !asks(request.headers()) {
        return Err(StatusError::bad_request(format!(
            "this path is for connections that become {}: say so in Connection and Upgrade",
            stream_frame::PROTOCOL
        )));
    }
    let (namespace, pod, uid) = target.pod();
    let record = node.registry.get(namespace, pod);
    if record.is_none_or(|record| record.uid != uid) {
        return Err(StatusError::not_found("pods", "", pod));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let node = Arc::clone(node);
    let session: Session = match target {
        Target::Forward(at) => {
            let way = port_forward::find(&node, &at).await?;
            Box::pin(async move {
                if let Some(io) = upgraded(upgrade).await {
                    port_forward::forward(node, way, io).await;
                }
            })
        }
        Target::Exec {
            container,
            command,
            wants,
        } => Box::pin(async move {
            if let Some(io) = upgraded(upgrade).await {
                let run = move |streams| async move {
                    let end = node.exec(&container, command, streams).await;
                    status_of(end, "error executing command in container")
                };
                serve(io, wants, run).await;
            }
        }),
        Target::Attach { container, wants } => Box::pin(async move {
            if let Some(io) = upgraded(upgrade).await {
                let run = move |streams| async move {
                    let end = node.attach(&container, streams).await;
                    status_of(end, "error attaching to container")
                };
                serve(io, wants, run).await;
            }
        }),
    };
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let protocol = HeaderValue::from_static(stream_frame::PROTOCOL);
    headers.insert(header::UPGRADE, protocol);
    Ok((response, session))
}

fn asks(headers: &HeaderMap) -> bool {
    let protocol = headers.get(header::UPGRADE);
    protocol.is_some_and(|protocol| protocol.as_bytes() == stream_frame::PROTOCOL.as_bytes())
}

async fn upgraded(upgrade: OnUpgrade) -> Option<TokioIo<hyper::upgrade::Upgraded>> {
    match upgrade.await {
        Ok(upgraded) => Some(TokioIo::new(upgraded)),
        Err(error) => {
            tracing::debug!(%error, "a connection did not become a stream");
            None
        }
    }
}

/// How a session ended, as its client is told.
fn status_of(end: SessionEnd, doing: &str) -> Value {
    let refused = |error: &StatusError| {
        let mut status = error.to_value();
        // As Kubernetes has it on streams: the kind is known.
        if let Some(status) = status.as_object_mut() {
            status.retain(|field, _| !matches!(field.as_str(), "kind" | "apiVersion"));
        }
        status
    };
    match end {
        SessionEnd::Exited(0) => json!({"metadata": {}, "status": "Success"}),
        SessionEnd::Exited(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: command terminated with exit code {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        SessionEnd::Refused(error) => refused(&error),
        SessionEnd::Broken(why) => refused(&StatusError::internal(format!("{doing}: {why}"))),
    }
}

/// Carries a session over a connection, to the end of either.
async fn serve<F: Future<Output = Value>>(
    io: impl AsyncRead + AsyncWrite,
    wants: Wants,
    run: impl FnOnce(Streams) -> F,
) {
    let (mut reader, mut writer) = tokio::io::split(io);
    let (stdin, typed) = mpsc::channel(CHUNKS_MAX);
    let (resize, sizes) = mpsc::channel(SIZES_MAX);
    let (stdout, mut told) = mpsc::channel(CHUNKS_MAX);
    let (stderr, mut told_apart) = mpsc::channel(CHUNKS_MAX);
    let (at_work, mut over) = mpsc::channel::<()>(1);
    let streams = Streams {
        stdin: wants.stdin.then_some(typed),
        stdout: wants.stdout.then_some(stdout),
        // A terminal is one stream.
        stderr: (wants.stderr && !wants.tty).then_some(stderr),
        resize: wants.tty.then_some(sizes),
        tty: wants.tty,
    };
    let mut hearing = std::pin::pin!(hear(&mut reader, stdin, resize));
    let ended = {
        let running = async {
            let ended = run(streams).await;
            drop(at_work);
            ended
        };
        let telling = tell(&mut writer, &mut told, &mut told_apart, &mut over);
        let mut running = std::pin::pin!(running);
        let mut telling = std::pin::pin!(telling);
        let (mut ended, mut told_all) = (None, false);
        loop {
            tokio::select! {
                biased;
                // Whoever asked for it is gone.
                () = &mut hearing => return,
                told = &mut telling, if !told_all => match told {
                    Ok(()) => told_all = true,
                    Err(_) => return,
                },
                end = &mut running, if ended.is_none() => ended = Some(end),
            }
            if told_all && let Some(ended) = ended.take() {
                break ended;
            }
        }
    };
    let farewell = async {
        let mut last = BytesMut::new();
        Frame::new(Channel::End, ended.to_string()).encode(&mut last);
        writer.write_all(&last).await?;
        writer.shutdown().await?;
        // What it still says must not have the kernel take back what it was told.
        hearing.await;
        Ok::<_, io::Error>(())
    };
    let _ = tokio::time::timeout(FAREWELL_MAX, farewell).await;
}

/// Hands on what the client says, until it is gone.
async fn hear(
    reader: &mut (impl AsyncRead + Unpin),
    stdin: mpsc::Sender<Bytes>,
    resize: mpsc::Sender<TerminalSize>,
) {
    let mut stdin = Some(stdin);
    let mut read = BytesMut::new();
    loop {
        match stream_frame::decode(&mut read) {
            Ok(Some(frame)) => match frame.channel {
                Channel::Stdin => {
                    let mut rest = frame.payload;
                    while let Some(open) = stdin.as_ref().filter(|_| !rest.is_empty()) {
                        let chunk = rest.split_to(rest.len().min(CHUNK_BYTES_MAX));
                        // Nobody reads it, or nobody reads it any more.
                        if open.send(chunk).await.is_err() {
                            stdin = None;
                        }
                    }
                }
                Channel::Close if frame.closes() == Some(Channel::Stdin) => stdin = None,
                Channel::Resize => {
                    if let Some(size) = size_of(&frame.payload) {
                        // Full: the guest has older ones to look at first, and the newest comes with the next change.
                        let _ = resize.try_send(size);
                    }
                }
                Channel::Stdout | Channel::Stderr | Channel::End | Channel::Close => {}
            },
            Ok(None) => {
                read.reserve(READ_BYTES);
                match reader.read_buf(&mut read).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a server is not understood");
                return;
            }
        }
    }
}

/// Sends what the guest says, until it is at its end and has said all; `over` closes at its end.
async fn tell(
    writer: &mut (impl AsyncWrite + Unpin),
    stdout: &mut mpsc::Receiver<Bytes>,
    stderr: &mut mpsc::Receiver<Bytes>,
    over: &mut mpsc::Receiver<()>,
) -> io::Result<()> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut out, mut errors, mut runs) = (true, true, true);
    let mut frames = BytesMut::new();
    while out || errors || runs {
        let (channel, chunk) = tokio::select! {
            chunk = stdout.recv(), if out => match chunk {
                Some(chunk) => (Channel::Stdout, chunk),
                None => { out = false; continue }
            },
            chunk = stderr.recv(), if errors => match chunk {
                Some(chunk) => (Channel::Stderr, chunk),
                None => { errors = false; continue }
            },
            _ = over.recv(), if runs => { runs = false; continue }
            _ = ticks.tick() => (Channel::Stdout, Bytes::new()),
        };
        Frame::new(channel, chunk).encode(&mut frames);
        // What is there already goes with it.
        while frames.len() < CHUNK_BYTES_MAX
            && let Ok(chunk) = stdout.try_recv()
        {
            Frame::new(Channel::Stdout, chunk).encode(&mut frames);
        }
        writer.write_all(&frames).await?;
        writer.flush().await?;
        frames.clear();
    }
    Ok(())
}

fn size_of(payload: &[u8]) -> Option<TerminalSize> {
    let size: Value = serde_json::from_slice(payload).ok()?;
    let of = |name: &str| u16::try_from(size.get(name)?.as_u64()?).ok();
    Some(TerminalSize {
        width: of("Width")?,
        height: of("Height")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;

    fn all() -> Wants {
        Wants {
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
        }
    }

    async fn next(io: &mut DuplexStream, read: &mut BytesMut) -> Option<Frame> {
        loop {
            if let Some(frame) = stream_frame::decode(read).expect("frames") {
                if frame.payload.is_empty() {
                    continue;
                }
                return Some(frame);
            }
            if io.read_buf(read).await.expect("reads") == 0 {
                return None;
            }
        }
    }

    async fn say(io: &mut DuplexStream, frame: Frame) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        io.write_all(&bytes).await.expect("written");
    }

    #[test]
    fn a_path_says_what_is_asked_for() {
        let told = |uri: &str| match Target::of(&uri.parse().expect("a uri")) {
            None => "another".to_owned(),
            Some(Err(error)) => error.code.to_string(),
            Some(Ok(Target::Forward(at))) => {
                format!("{}/{}/{}:{}", at.namespace, at.pod, at.uid, at.port)
            }
            Some(Ok(Target::Attach { container, wants })) => {
                format!("attach {} {wants:?}", container.container)
            }
            Some(Ok(Target::Exec {
                container,
                command,
                wants,
            })) => {
                format!(
                    "exec {command:?} in {} stdin={} tty={}",
                    container.container, wants.stdin, wants.tty
                )
            }
        };
        for (uri, expected) in [
            (
                "/exec/n/p/u/c?command=sh&command=-c&command=a%20b&stdin=1&tty=1",
                "exec [\"sh\", \"-c\", \"a b\"] in c stdin=true tty=true",
            ),
            ("/exec/n/p/u/c", "exec [] in c stdin=false tty=false"),
            ("/exec/n/p/u", "404"),
            ("/exec/n/p/u/c/d", "404"),
            ("/exec/n//u/c", "404"),
            (
                "/attach/n/p/u/c?stdout=1&stdin=true",
                "attach c Wants { stdin: false, stdout: true, stderr: false, tty: false }",
            ),
            ("/portForward/n/p/u/80", "n/p/u:80"),
            ("/portForward/n/p/u/0", "400"),
            ("/portForward/n/p/u/x", "400"),
            ("/portForward/n/p/u/70000", "400"),
            ("/podProxy/n/p/u/80", "another"),
            ("/", "another"),
        ] {
            assert_eq!(told(uri), expected, "{uri}");
        }
    }

    #[tokio::test]
    async fn a_session_echoes_and_ends_with_its_status_after_all_output() {
        let (mut client, node) = tokio::io::duplex(1 << 10);
        let serving = tokio::spawn(serve(node, all(), |streams: Streams| async move {
            let (mut stdin, stdout, stderr) = (
                streams.stdin.expect("stdin"),
                streams.stdout.expect("stdout"),
                streams.stderr.expect("stderr"),
            );
            while let Some(chunk) = stdin.recv().await {
                stdout.send(chunk).await.expect("taken");
            }
            stderr
                .send(Bytes::from_static(b"bye"))
                .await
                .expect("taken");
            status_of(SessionEnd::Exited(7), "")
        }));
        let mut read = BytesMut::new();
        say(&mut client, Frame::new(Channel::Stdin, &b"hello"[..])).await;
        assert_eq!(
            next(&mut client, &mut read).await,
            Some(Frame::new(Channel::Stdout, &b"hello"[..]))
        );
        say(&mut client, Frame::close(Channel::Stdin)).await;
        assert_eq!(
            next(&mut client, &mut read).await,
            Some(Frame::new(Channel::Stderr, &b"bye"[..]))
        );
        let end = next(&mut client, &mut read).await.expect("an end");
        assert_eq!(end.channel, Channel::End);
        let status: Value = serde_json::from_slice(&end.payload).expect("JSON");
        assert_eq!(status["details"]["causes"][0]["message"], "7");
        assert_eq!(next(&mut client, &mut read).await, None);
        drop(client);
        serving.await.expect("ends");
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_the_session_and_one_that_reads_nothing_costs_a_bounded_buffer()
    {
        let (mut client, node) = tokio::io::duplex(64);
        let (said, mut heard) = mpsc::unbounded_channel();
        let serving = tokio::spawn(serve(node, all(), |streams: Streams| async move {
            let stdout = streams.stdout.expect("stdout");
            loop {
                if stdout
                    .send(Bytes::from_static(&[b'y'; 1 << 10]))
                    .await
                    .is_err()
                {
                    return std::future::pending().await;
                }
                let _ = said.send(());
            }
        }));
        let mut taken = 0;
        while let Ok(Some(())) =
            tokio::time::timeout(Duration::from_millis(200), heard.recv()).await
        {
            taken += 1;
        }
        let most = 2 * CHUNKS_MAX + CHUNK_BYTES_MAX / (1 << 10) + 1;
        assert!(taken <= most, "{taken} chunks of at most {most}");
        let mut some = [0; 16];
        client.read_exact(&mut some).await.expect("output");
        drop(client);
        serving.await.expect("ends");
        // What ran is gone, and says nothing more.
        while heard.recv().await.is_some() {}
    }
}
