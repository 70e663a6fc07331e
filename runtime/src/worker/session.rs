//! The streams of a run on their way to a worker and back: frames in the two bodies of one exchange.
//!
//! ```text
//! request   OPEN  STDIN* (an empty one is the end)  RESIZE*
//! response  STDOUT*  STDERR*  END                            a frame: u8 kind, u32 length, bytes
//! ```
//!
//! The protocol's windows are what holds a guest up whose output nobody takes; giving up the exchange ends the run. What the
//! worker sends is believed as far as it is a frame of a sensible length.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::Stream;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use super::wire::Outward;
use crate::artifact::Artifact;
use crate::body::{Body, BoxError};
use crate::command::Exit;
use crate::session::Session;
use crate::stdio::{CHUNK_BYTES_MAX, Stdio, TerminalSize};
use crate::workload::{Workload, WorkloadError};

const OPEN: u8 = 1;
const STDIN: u8 = 2;
const RESIZE: u8 = 3;
const STDOUT: u8 = 4;
const STDERR: u8 = 5;
const END: u8 = 6;

/// Kind and length.
const HEAD_BYTES: usize = 5;
/// The longest frame that is accepted: an opening with its arguments, or an end with a backtrace.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Chunks that wait in the worker on each stream: the windows of the lane come on top.
const CHUNKS_MAX: usize = 4;

/// What begins a run with streams.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Opening {
    /// None is the run of the workload itself.
    session: Option<Opened>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    terminal: Option<TerminalSize>,
}

/// How a run ended, or why it did not begin.
pub(super) type Ended = Result<Exit, WorkloadError>;

/// Which component, and how it is called.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Opened {
    /// As what its code was loaded.
    pub(super) load: u64,
    pub(super) session: Session,
}

impl Opening {
    pub(super) fn of(session: Option<Opened>, stdio: &Stdio) -> Opening {
        Opening {
            session,
            stdin: stdio.stdin.is_some(),
            stdout: stdio.stdout.is_some(),
            stderr: stdio.stderr.is_some(),
            terminal: stdio.terminal.as_ref().map(|size| *size.borrow()),
        }
    }
}

fn frame(kind: u8, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + bytes.len());
    frame.put_u8(kind);
    frame.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    frame.put_slice(bytes);
    frame.freeze()
}

fn document(kind: u8, document: &impl Serialize) -> Bytes {
    // Plain data is always representable.
    frame(kind, &serde_json::to_vec(document).unwrap_or_default())
}

fn body_of(frames: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    use futures::StreamExt;
    let frames = frames.map(|frame| Ok::<_, BoxError>(Frame::data(frame)));
    Body::new(StreamBody::new(frames.boxed()))
}

/// Takes frames out of a body.
pub(super) struct Frames {
    body: Incoming,
    waiting: BytesMut,
}

impl Frames {
    pub(super) fn new(body: Incoming) -> Frames {
        Frames {
            body,
            waiting: BytesMut::new(),
        }
    }

    /// The next one; none at the end.
    ///
    /// # Errors
    /// When the other side is gone, or sends none.
    async fn next(&mut self) -> Result<Option<(u8, Bytes)>, BoxError> {
        loop {
            if let Some(mut head) = self.waiting.get(..HEAD_BYTES) {
                let (kind, length) = (head.get_u8(), head.get_u32() as usize);
                if length > FRAME_BYTES_MAX {
                    return Err("it sent a frame that is too long".into());
                }
                if self.waiting.len() >= HEAD_BYTES + length {
                    self.waiting.advance(HEAD_BYTES);
                    return Ok(Some((kind, self.waiting.split_to(length).freeze())));
                }
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.waiting.extend_from_slice(&data);
                    }
                }
                None if self.waiting.is_empty() => return Ok(None),
                None => return Err("it broke off in a frame".into()),
            }
        }
    }
}

/// The node's half: what a run is told.
pub(super) fn told(
    opening: &Opening,
    stdin: Option<mpsc::Receiver<Bytes>>,
    terminal: Option<watch::Receiver<TerminalSize>>,
) -> Body {
    struct Telling {
        opening: Option<Bytes>,
        stdin: Option<mpsc::Receiver<Bytes>>,
        terminal: Option<watch::Receiver<TerminalSize>>,
    }
    let telling = Telling {
        opening: Some(document(OPEN, opening)),
        stdin,
        terminal,
    };
    body_of(futures::stream::unfold(telling, |mut telling| async move {
        if let Some(opening) = telling.opening.take() {
            return Some((opening, telling));
        }
        while telling.stdin.is_some() || telling.terminal.is_some() {
            let Telling {
                stdin, terminal, ..
            } = &mut telling;
            let typed = async {
                match stdin {
                    Some(stdin) => stdin.recv().await,
                    None => std::future::pending().await,
                }
            };
            let resized = async {
                match terminal {
                    Some(size) => size.changed().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                chunk = typed => match chunk {
                    Some(chunk) if chunk.is_empty() => {}
                    Some(chunk) => return Some((frame(STDIN, &chunk), telling)),
                    None => {
                        telling.stdin = None;
                        return Some((frame(STDIN, &[]), telling));
                    }
                },
                more = resized => match (more, &mut telling.terminal) {
                    (true, Some(size)) => {
                        let size = *size.borrow_and_update();
                        return Some((document(RESIZE, &size), telling));
                    }
                    _ => telling.terminal = None,
                },
            }
        }
        None
    }))
}

/// The node's half: hands on what a run prints, and says how it ended. A receiver that is gone takes nothing more, and the run is
/// not told: it ends with the exchange.
///
/// # Errors
/// When the worker is gone, or sends what makes no sense.
pub(super) async fn hear(
    response: Response<Incoming>,
    stdout: Option<mpsc::Sender<Bytes>>,
    stderr: Option<mpsc::Sender<Bytes>>,
) -> Result<Ended, BoxError> {
    let mut frames = Frames::new(response.into_body());
    while let Some((kind, mut bytes)) = frames.next().await? {
        let channel = match kind {
            STDOUT => &stdout,
            STDERR => &stderr,
            END => return Ok(serde_json::from_slice(&bytes)?),
            _ => return Err("it sent a frame of no kind".into()),
        };
        let Some(channel) = channel else { continue };
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK_BYTES_MAX));
            // Said above.
            let _ = channel.send(chunk).await;
        }
    }
    Err("it did not say how the run ended".into())
}

/// The worker's half: what a request asks for.
///
/// # Errors
/// When it is nothing that the other side would send.
pub(super) async fn open(frames: &mut Frames) -> Result<Opening, BoxError> {
    match frames.next().await? {
        Some((OPEN, bytes)) => Ok(serde_json::from_slice(&bytes)?),
        _ => Err("a session did not begin with its opening".into()),
    }
}

/// The worker's half: runs it, here, as long as the response is read. `loaded` has the code of a session's component.
pub(super) fn run(
    workload: Workload,
    opening: Opening,
    loaded: impl FnOnce(u64) -> Option<Artifact>,
    frames: Frames,
) -> Response<Outward> {
    let channel = |is_there: bool| is_there.then(|| mpsc::channel(CHUNKS_MAX)).unzip();
    let (keys, stdin) = channel(opening.stdin);
    let (stdout, printed) = channel(opening.stdout);
    let (stderr, complained) = channel(opening.stderr);
    let (resize, terminal) = opening.terminal.map(watch::channel).unzip();
    let stdio = Stdio {
        stdin,
        stdout,
        stderr,
        terminal,
    };
    let artifact = opening.session.map(|Opened { load, session }| {
        let artifact = loaded(load);
        artifact.map(|artifact| (artifact, session))
    });
    let running = AbortOnDropHandle::new(tokio::spawn(async move {
        let run = async {
            match artifact {
                None => Ok(workload.run_with(stdio).await),
                Some(Some((artifact, session))) => {
                    workload.session(&artifact, session, stdio).await
                }
                // Only if it was loaded for somebody else.
                Some(None) => Ok(Exit::NotRunnable),
            }
        };
        tokio::select! {
            biased;
            ended = run => ended,
            never = feed(frames, keys, resize) => match never {},
        }
    }));
    let saying = Saying {
        stdout: printed,
        stderr: complained,
        running: Some(running),
    };
    let frames = futures::stream::unfold(saying, |mut saying| async move {
        let frame = saying.next().await?;
        Some((frame, saying))
    });
    Response::new(Outward::new(body_of(frames)))
}

/// What a run prints, and then how it ended.
struct Saying {
    stdout: Option<mpsc::Receiver<Bytes>>,
    stderr: Option<mpsc::Receiver<Bytes>>,
    running: Option<AbortOnDropHandle<Ended>>,
}

impl Saying {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let (printing, complaining) = (self.stdout.is_some(), self.stderr.is_some());
            let Saying { stdout, stderr, .. } = self;
            let printed = async {
                match stdout {
                    Some(chunks) => chunks.recv().await,
                    None => std::future::pending().await,
                }
            };
            let complained = async {
                match stderr {
                    Some(chunks) => chunks.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                chunk = printed, if printing => match chunk {
                    Some(chunk) => return Some(frame(STDOUT, &chunk)),
                    None => self.stdout = None,
                },
                chunk = complained, if complaining => match chunk {
                    Some(chunk) => return Some(frame(STDERR, &chunk)),
                    None => self.stderr = None,
                },
                else => break,
            }
        }
        // Otherwise the process is about to end.
        let ended: Ended = self.running.take()?.await.unwrap_or(Ok(Exit::Stopped));
        Some(document(END, &ended))
    }
}

/// Hands on what the node sends; for ever, as the run is what ends.
async fn feed(
    mut frames: Frames,
    mut keys: Option<mpsc::Sender<Bytes>>,
    resize: Option<watch::Sender<TerminalSize>>,
) -> std::convert::Infallible {
    while let Ok(Some((kind, bytes))) = frames.next().await {
        match (kind, &keys) {
            (STDIN, Some(chunks)) if !bytes.is_empty() => {
                if chunks.send(bytes).await.is_err() {
                    keys = None;
                }
            }
            (STDIN, _) => keys = None,
            (RESIZE, _) => {
                if let (Some(resize), Ok(size)) = (&resize, serde_json::from_slice(&bytes)) {
                    resize.send_replace(size);
                }
            }
            _ => break,
        }
    }
    drop(keys);
    std::future::pending().await
}
