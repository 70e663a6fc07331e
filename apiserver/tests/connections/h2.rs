//! HTTP/2, frame by frame, as far as floods need it. Fields are written as literals, which takes no table; what comes back is read for
//! how the connection ends.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// The stream of the request that shows whether a connection is still good.
const LAST: u32 = 100_001;
const CANCEL: u32 = 8;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// Literal fields, without Huffman and without a place in the table (RFC 7541 §6.2.2). Texts are shorter than 127 bytes.
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).expect("short");
        assert!(length < 127, "{text}");
        [&[length], text.as_bytes()].concat()
    };
    let field = |(name, value): &(&str, &str)| [vec![0], text(name), text(value)].concat();
    fields.iter().flat_map(field).collect()
}

/// The head of a request that has a body.
pub fn head(stream: u32, method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &lines(method, path, more))
}

/// A whole request.
pub fn request(stream: u32, method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let lines = lines(method, path, more);
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &lines)
}

fn lines(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let own = [
        (":method", method),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
    ];
    fields(&[&own[..], more].concat())
}

pub fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// Sends frames and then one more request, reads meanwhile, and tells what became of the connection: `ends` or `serves on`.
pub async fn outcome(io: impl AsyncRead + AsyncWrite + Unpin, sent: &[u8]) -> &'static str {
    let (mut reads, mut writes) = tokio::io::split(io);
    let write = async {
        // It may close before it has read all.
        let _ = writes.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let _ = writes.write_all(&frame(SETTINGS, 0, 0, &[])).await;
        let _ = writes.write_all(&frame(SETTINGS, ACK, 0, &[])).await;
        let _ = writes.write_all(sent).await;
        let _ = writes.write_all(&request(LAST, "GET", "/livez", &[])).await;
        let _ = writes.flush().await;
        std::future::pending::<()>().await;
    };
    let read = async {
        loop {
            let mut head = [0; 9];
            if reads.read_exact(&mut head).await.is_err() {
                return "ends";
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut payload = vec![0; length as usize];
            if head[3] == GOAWAY || reads.read_exact(&mut payload).await.is_err() {
                return "ends";
            }
            if stream == LAST && head[4] & END_STREAM != 0 {
                return "serves on";
            }
        }
    };
    tokio::select! {
        end = read => end,
        () = write => "ends",
    }
}
