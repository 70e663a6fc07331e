//! A connection that makes objects, or one that watches, and does nothing else, at the least cost to the processors that it shares with the server.
//!
//! HTTP/2 over TLS as a client with one request at a time speaks it: the head and the body of a request are one write, headers that stay the
//! same are sent once and then by their number, windows are so large that they need no care. No task and no queue stands between who asks and
//! the socket. All servers are asked the same bytes.
//!
//! Left to others: everything but creates and watches (`client`). That an answer is what was asked for is seen by what its body begins with.

use std::io::BufRead as _;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::client::Pool;
use crate::{Error, TOKEN};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Flags of frames.
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// Settings.
const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;
const FRAME_HEAD: usize = 9;
/// Fields of a head by their places in the table that every connection begins with.
const AUTHORITY: usize = 1;
const PATH: usize = 4;
const AUTHORIZATION: usize = 23;
const CONTENT_TYPE: usize = 31;
const HTTPS: u8 = 0x87;
/// Longest payload that may be sent without asking.
const FRAME_MAX: usize = 16_384;
const STREAM_WINDOW: u32 = 4 << 20;
/// What a watch takes in before its stream's window is opened again.
const STREAM_STEP: u32 = STREAM_WINDOW / 2;
/// What is taken in before the connection's window is opened again.
const WINDOW_STEP: u32 = 1 << 30;
/// A connection's window as it begins, in both directions.
const WINDOW_AT_FIRST: i64 = 65_535;
/// So much of an answer tells whether it is a refusal: kind and version come first in every answer.
const BEGINNING: usize = 64;

/// One connection, for one path.
pub struct Wire {
    stream: TlsStream<TcpStream>,
    path: String,
    authority: String,
    /// The stream of the next request.
    next: u32,
    /// What may be sent still.
    window: i64,
    /// What came since the window was opened.
    taken: u32,
    inbox: BytesMut,
    outbox: Vec<u8>,
}

impl Wire {
    pub async fn open(pool: &Pool, path: &str) -> Result<Self, Error> {
        let mut outbox = PREFACE.to_vec();
        let mut settings = Vec::new();
        for (name, value) in [(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, STREAM_WINDOW)] {
            settings.extend_from_slice(&name.to_be_bytes());
            settings.extend_from_slice(&u32::to_be_bytes(value));
        }
        frame(&mut outbox, SETTINGS, 0, 0, &settings);
        frame(&mut outbox, WINDOW_UPDATE, 0, 0, &WINDOW_STEP.to_be_bytes());
        let mut stream = pool.stream().await?;
        stream.write_all(&outbox).await?;
        stream.flush().await?;
        Ok(Self {
            stream,
            path: path.to_owned(),
            authority: pool.authority(),
            next: 1,
            window: WINDOW_AT_FIRST,
            taken: 0,
            inbox: BytesMut::with_capacity(FRAME_MAX),
            outbox,
        })
    }

    /// Makes an object, and waits for the end of the answer.
    pub async fn create(&mut self, body: &[u8]) -> Result<(), Error> {
        if body.len() > FRAME_MAX {
            return Err("an object that is made here fits into one frame".into());
        }
        let head = self.head(body.len());
        let length = i64::try_from(body.len())?;
        self.outbox.clear();
        while self.window < length {
            self.receive().await?;
            while let Some((kind, flags, stream, payload)) = self.frame() {
                self.heard(kind, flags, stream, &payload)?;
            }
        }
        self.window -= length;
        let own = self.next;
        self.next += 2;
        frame(&mut self.outbox, HEADERS, END_HEADERS, own, &head);
        frame(&mut self.outbox, DATA, END_STREAM, own, body);
        self.send().await?;
        let mut beginning = Vec::with_capacity(BEGINNING);
        loop {
            while let Some((kind, flags, stream, payload)) = self.frame() {
                let ends = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
                if kind == DATA {
                    self.taken += u32::try_from(payload.len())?;
                    let room = BEGINNING.saturating_sub(beginning.len());
                    beginning.extend_from_slice(&payload[..payload.len().min(room)]);
                } else {
                    self.heard(kind, flags, stream, &payload)?;
                }
                if ends && stream == own {
                    return self.answered(&beginning).await;
                }
            }
            self.send().await?;
            self.receive().await?;
        }
    }

    async fn answered(&mut self, beginning: &[u8]) -> Result<(), Error> {
        let text = String::from_utf8_lossy(beginning);
        if text.is_empty() || text.contains("\"Status\"") {
            return Err(format!("POST {}: {text}", self.path).into());
        }
        self.open_window();
        self.send().await
    }

    /// Lets the server send on, well before it may not.
    fn open_window(&mut self) {
        if self.taken > WINDOW_STEP / 2 {
            let taken = std::mem::take(&mut self.taken).to_be_bytes();
            frame(&mut self.outbox, WINDOW_UPDATE, 0, 0, &taken);
        }
    }

    /// What all frames are heard for that bring no part of an answer.
    fn heard(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), Error> {
        match kind {
            SETTINGS if flags & ACK == 0 => frame(&mut self.outbox, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(&mut self.outbox, PING, ACK, 0, payload),
            // A stream's own has room for all that is sent on it.
            WINDOW_UPDATE if stream == 0 => {
                let step: [u8; 4] = payload.try_into()?;
                self.window += i64::from(u32::from_be_bytes(step) & 0x7fff_ffff);
            }
            RST_STREAM | GOAWAY => return Err(format!("the server ended with frame {kind}").into()),
            _ => {}
        }
        Ok(())
    }

    /// The next frame that is here: kind, flags, stream and payload.
    fn frame(&mut self) -> Option<(u8, u8, u32, BytesMut)> {
        let head: [u8; FRAME_HEAD] = *self.inbox.first_chunk()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if self.inbox.len() < FRAME_HEAD + length {
            return None;
        }
        self.inbox.advance(FRAME_HEAD);
        let payload = self.inbox.split_to(length);
        Some((kind, flags, u32::from_be_bytes(stream), payload))
    }

    async fn receive(&mut self) -> Result<(), Error> {
        match self.stream.read_buf(&mut self.inbox).await? {
            0 => Err("the server closed the connection".into()),
            _ => Ok(()),
        }
    }

    /// Sends what was written, if anything.
    async fn send(&mut self) -> Result<(), Error> {
        if !self.outbox.is_empty() {
            self.stream.write_all(&self.outbox).await?;
            self.stream.flush().await?;
            self.outbox.clear();
        }
        Ok(())
    }

    /// A head in HPACK: what stays the same is put into the table by the first request.
    fn head(&self, length: usize) -> Vec<u8> {
        const POST: u8 = 0x83;
        const CONTENT_LENGTH: usize = 28;
        let token = bearer();
        let same = [
            (AUTHORITY, &*self.authority),
            (PATH, &*self.path),
            (AUTHORIZATION, &*token),
            (CONTENT_TYPE, "application/json"),
        ];
        let mut head = vec![POST, HTTPS];
        self.kept(&mut head, &same);
        integer(&mut head, 0, 4, CONTENT_LENGTH);
        string(&mut head, &length.to_string());
        head
    }

    /// The head of a request for what is at a path.
    fn get(&self, path: &str) -> Vec<u8> {
        const GET: u8 = 0x82;
        let token = bearer();
        let mut head = vec![GET, HTTPS];
        integer(&mut head, 0, 4, PATH);
        string(&mut head, path);
        self.kept(
            &mut head,
            &[(AUTHORITY, &*self.authority), (AUTHORIZATION, &*token)],
        );
        head
    }

    /// Fields that are the same in every request: whole in the first one, by their numbers later.
    fn kept(&self, head: &mut Vec<u8>, same: &[(usize, &str)]) {
        for (index, (name, value)) in same.iter().enumerate() {
            if self.next == 1 {
                integer(head, 0x40, 6, *name);
                string(head, value);
            } else {
                // The newest is the first behind the 61 that are always there.
                integer(head, 0x80, 7, 61 + same.len() - index);
            }
        }
    }
}

/// Watches on one connection.
pub struct Watches {
    wire: Wire,
    /// By the place of their streams.
    begun: Vec<Begun>,
}

/// A watch's line that has not come whole, and what came since its window was opened.
#[derive(Default)]
struct Begun {
    line: Vec<u8>,
    taken: u32,
}

impl Watches {
    /// Opens a watch at each path, and waits until all are answered.
    pub async fn open<'a>(
        pool: &Pool,
        paths: impl Iterator<Item = &'a str>,
    ) -> Result<Self, Error> {
        let mut wire = Wire::open(pool, "").await?;
        let mut begun = Vec::new();
        wire.outbox.clear();
        for path in paths {
            let head = wire.get(path);
            let flags = END_HEADERS | END_STREAM;
            frame(&mut wire.outbox, HEADERS, flags, wire.next, &head);
            wire.next += 2;
            begun.push(Begun::default());
        }
        let mut unanswered = begun.len();
        let mut watches = Self { wire, begun };
        while unanswered > 0 {
            watches.wire.send().await?;
            watches.wire.receive().await?;
            let mut early = 0;
            watches.take(&mut |_, _| early += 1, &mut unanswered)?;
            if early > 0 {
                return Err("a watch told of something before anything was changed".into());
            }
        }
        Ok(watches)
    }

    /// Hands on each line with the number of its watch, until a watch ends, which is a failure.
    pub async fn run(mut self, mut hear: impl FnMut(usize, &[u8])) -> Result<(), Error> {
        let mut unanswered = 0;
        loop {
            self.take(&mut hear, &mut unanswered)?;
            self.wire.open_window();
            self.wire.send().await?;
            self.wire.receive().await?;
        }
    }

    /// All frames that are here.
    fn take(
        &mut self,
        hear: &mut impl FnMut(usize, &[u8]),
        unanswered: &mut usize,
    ) -> Result<(), Error> {
        while let Some((kind, flags, stream, payload)) = self.wire.frame() {
            if !matches!(kind, DATA | HEADERS) {
                self.wire.heard(kind, flags, stream, &payload)?;
                continue;
            }
            if flags & END_STREAM != 0 {
                let why = String::from_utf8_lossy(&payload);
                return Err(format!("a watch ended: {why}").into());
            }
            if kind == HEADERS {
                *unanswered = unanswered.saturating_sub(1);
                continue;
            }
            let number = stream as usize / 2;
            let begun = self.begun.get_mut(number).ok_or("nobody asked for it")?;
            let length = u32::try_from(payload.len())?;
            self.wire.taken += length;
            begun.taken += length;
            if begun.taken > STREAM_STEP {
                let taken = std::mem::take(&mut begun.taken).to_be_bytes();
                frame(&mut self.wire.outbox, WINDOW_UPDATE, 0, stream, &taken);
            }
            let mut rest = &payload[..];
            while !rest.is_empty() {
                let mut after = rest;
                let line = &rest[..after.skip_until(b'\n')?];
                rest = after;
                match (line.ends_with(b"\n"), begun.line.is_empty()) {
                    (true, true) => hear(number, line),
                    (true, false) => {
                        begun.line.extend_from_slice(line);
                        hear(number, &begun.line);
                        begun.line.clear();
                    }
                    (false, _) => begun.line.extend_from_slice(line),
                }
            }
        }
        Ok(())
    }
}

fn bearer() -> String {
    format!("Bearer {TOKEN}")
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A number behind the marks of its first byte, which leave it so many bits.
fn integer(out: &mut Vec<u8>, marks: u8, bits: u32, number: usize) {
    let most = (1 << bits) - 1;
    if number < most {
        out.push(marks | number as u8);
        return;
    }
    out.push(marks | most as u8);
    let mut rest = number - most;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn string(out: &mut Vec<u8>, text: &str) {
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}
