//! A command, or a look at one, over SPDY: a stream for each of its own, and one for how it ended.
//!
//! The client opens `error`, then those of `stdin`, `stdout`, `stderr` and `resize` that it asked for, and waits for each to be agreed to; it runs once all
//! are there. How it ended is a Status in the fourth version of this, and a sentence before, if it failed. In the first version the client is told of the
//! end of input and of errors before there are any; clients of that time know.
//!
//! Invariants: a client that does not open its streams in time is let go of; one that goes ends the session. Left to others: the connection
//! (`crate::spdy`), the node's end (`super::node`).

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use weft_call::stream_frame::{Channel, Frame};

use super::idle::Idle;
use super::node::{self, Heard, Said, Sizes};
use super::options::Wanted;
use super::wire::Version;
use super::{Session, told_in_words};
use crate::http::proxy::NodeStream;
use crate::spdy::connection::{Connection, Gone, Stream, Voice};
use crate::spdy::frame::header;

/// How long a client has to open its streams; the kubelet's.
pub(super) const OPEN_MAX: Duration = Duration::from_secs(30);
/// What a stream is, among its headers.
pub(super) const STREAM_TYPE: &str = "streamtype";

/// The streams of one client.
#[derive(Default)]
struct Streams {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

/// Carries a session over a connection, to the end of either. `node` is its other end.
pub(super) async fn serve(
    io: impl AsyncRead + AsyncWrite,
    version: Version,
    session: Session,
    node: NodeStream,
) {
    let idle = Idle::new();
    let (connection, mut opened, line) = Connection::new();
    let running = connection.run(io, |_| true, || idle.touch());
    let mut running = std::pin::pin!(running);
    let serving = async {
        let opening = open(&mut opened, version, session.wanted);
        let Ok(Some(mut streams)) = tokio::time::timeout(OPEN_MAX, opening).await else {
            tracing::debug!("a client did not open its streams in time");
            return Err(Gone);
        };
        let (reader, mut writer) = tokio::io::split(node);
        let mut heard = Heard::new(reader, &session.node);
        let input = |stream: &mut Option<Stream>| {
            let stream = stream.as_mut();
            stream.map(|stream| std::mem::replace(&mut stream.heard, mpsc::channel(1).1))
        };
        if version == Version::V1 {
            if let Some(stdin) = &streams.stdin {
                stdin.voice.finish().await?;
            }
            if let Some(error) = &streams.error {
                error.voice.reset().await?;
            }
        }
        let up = up(
            input(&mut streams.stdin),
            input(&mut streams.resize),
            &mut writer,
        );
        tokio::select! {
            () = up => Ok(()),
            told = down(&streams, &mut heard, version, session.doing) => told,
        }
    };
    tokio::select! {
        biased;
        ended = &mut running => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection of SPDY ended early");
            }
            return;
        }
        () = idle.over() => return,
        served = serving => if served.is_err() {
            return;
        },
    }
    tokio::join!(line.close(), async { drop(running.await) });
}

/// The streams, once all that are wanted are there; none when the client goes.
async fn open(
    opened: &mut mpsc::Receiver<Stream>,
    version: Version,
    wanted: Wanted,
) -> Option<Streams> {
    let has_sizes = wanted.tty && version.has_sizes();
    let flags = [true, wanted.stdin, wanted.stdout, wanted.stderr, has_sizes];
    let missing = flags.iter().filter(|is| **is).count();
    let mut streams = Streams::default();
    let mut count = 0;
    while count < missing {
        let stream = opened.recv().await?;
        let place = match header(&stream.headers, STREAM_TYPE) {
            Some("error") => &mut streams.error,
            Some("stdin") => &mut streams.stdin,
            Some("stdout") => &mut streams.stdout,
            Some("stderr") => &mut streams.stderr,
            Some("resize") => &mut streams.resize,
            // Of a later time, and nothing that is waited for.
            _ => continue,
        };
        *place = Some(stream);
        count += 1;
    }
    Some(streams)
}

/// What a stream says next; nothing for ever where there is none.
async fn said(heard: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match heard {
        Some(heard) => heard.recv().await,
        None => std::future::pending().await,
    }
}

/// From the client to the node. Never ends: what ends a session is its other side.
async fn up(
    mut stdin: Option<mpsc::Receiver<Bytes>>,
    mut resize: Option<mpsc::Receiver<Bytes>>,
    writer: &mut (impl AsyncWrite + Unpin),
) {
    let mut sizes = Sizes::default();
    loop {
        let frame = tokio::select! {
            chunk = said(&mut stdin) => match chunk {
                Some(chunk) => Some(Frame::new(Channel::Stdin, chunk)),
                None => {
                    stdin = None;
                    Some(Frame::close(Channel::Stdin))
                }
            },
            chunk = said(&mut resize) => match chunk {
                Some(chunk) => sizes.newest(&chunk),
                None => {
                    resize = None;
                    None
                }
            },
        };
        if let Some(frame) = frame
            && node::say(writer, &frame).await.is_err()
        {
            // The node's end of it is heard on the other side.
            return std::future::pending().await;
        }
    }
}

/// From the node to the client, until it is told how it ended.
async fn down(
    streams: &Streams,
    heard: &mut Heard<impl AsyncRead + Unpin>,
    version: Version,
    doing: &str,
) -> Result<(), Gone> {
    let voice = |stream: &Option<Stream>| -> Option<Voice> {
        let stream = stream.as_ref();
        stream.map(|stream| stream.voice.clone())
    };
    let (stdout, stderr) = (voice(&streams.stdout), voice(&streams.stderr));
    let status = loop {
        let (voice, bytes) = match heard.next(doing).await {
            Said::Stdout(bytes) => (&stdout, bytes),
            Said::Stderr(bytes) => (&stderr, bytes),
            Said::End(status) => break status,
        };
        if let Some(voice) = voice {
            voice.say(bytes).await?;
        }
    };
    for voice in [stdout, stderr].into_iter().flatten() {
        voice.finish().await?;
    }
    if version == Version::V1 {
        return Ok(());
    }
    if let Some(error) = voice(&streams.error) {
        let told = match version.has_status() {
            true => Some(status.to_string()),
            false => told_in_words(&status),
        };
        if let Some(told) = told {
            error.say(told.into()).await?;
        }
        error.finish().await?;
    }
    Ok(())
}
