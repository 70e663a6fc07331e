//! One HTTP/1.1 connection of the load generator, which looks at a response only as far as it takes to find its end.
//!
//! The generator shares the machine with what it measures. A full client (hyper's) took more CPU for each request than
//! a server that answers one line, so that it measured itself; here a request is a buffer that is written as it is.
//!
//! Invariants: a response is whole when [`Connection::exchange`] returns its status; a connection whose response did not
//! follow RFC 9112 §6.3, or that the server wants closed, is not used again; a head has at most [`HEAD_BYTES_MAX`].

use std::net::SocketAddr;

use bytes::{Buf as _, BytesMut};
use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Heads, chunk sizes and trailers that are longer are taken for something else than HTTP.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 128;
/// Enough for most responses in one read.
const READ_BYTES: usize = 16 << 10;

/// Why there was no whole response: a key of the report, so it is short and one of a few.
pub(super) type Reason = &'static str;

const REFUSED: Reason = "connection refused";
const LOST: Reason = "connection lost";
const INCOMPLETE: Reason = "response incomplete";
const MALFORMED: Reason = "response malformed";

/// A connection with no request on its way.
pub(super) struct Connection {
    stream: TcpStream,
    /// What was read and not looked at.
    received: BytesMut,
    reusable: bool,
}

/// Where a body ends.
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// What matters of a response's head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    framing: Framing,
    keep_alive: bool,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Self, Reason> {
        let stream = TcpStream::connect(address).await.map_err(|_| REFUSED)?;
        stream.set_nodelay(true).map_err(|_| LOST)?;
        Ok(Self {
            stream,
            received: BytesMut::new(),
            reusable: true,
        })
    }

    /// Whether another request can be sent: the server may have closed the connection since the last one.
    pub(super) fn is_open(&self) -> bool {
        let mut byte = [0];
        // Bytes that nobody asked for, or the end: either way the connection is of no more use.
        self.reusable
            && self.received.is_empty()
            && matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Sends `request`, a whole request of `method` as it goes over the wire, and reads the response to its end.
    pub(super) async fn exchange(
        &mut self,
        method: &Method,
        request: &[u8],
    ) -> Result<u16, Reason> {
        self.reusable = false;
        self.stream.write_all(request).await.map_err(|_| LOST)?;
        let head = loop {
            let head = self.head(method).await?;
            // 100 Continue and its like come before the response.
            if head.status >= 200 {
                break head;
            }
        };
        match head.framing {
            Framing::Length(bytes) => self.skip(bytes).await?,
            Framing::Chunked => self.chunks().await?,
            Framing::UntilClose => {
                while self.fill().await? {
                    self.received.clear();
                }
            }
        }
        self.reusable = head.keep_alive && head.framing != Framing::UntilClose;
        Ok(head.status)
    }

    async fn head(&mut self, method: &Method) -> Result<Head, Reason> {
        loop {
            if let Some((head, bytes)) = parse_head(method, &self.received)? {
                self.received.advance(bytes);
                return Ok(head);
            }
            let nothing = self.received.is_empty();
            if !self.fill_some().await? {
                return Err(if nothing { LOST } else { INCOMPLETE });
            }
        }
    }

    async fn chunks(&mut self) -> Result<(), Reason> {
        loop {
            match httparse::parse_chunk_size(&self.received).map_err(|_| MALFORMED)? {
                httparse::Status::Complete((line, 0)) => {
                    self.received.advance(line);
                    return self.trailers().await;
                }
                httparse::Status::Complete((line, bytes)) => {
                    self.received.advance(line);
                    // The data and its line end.
                    self.skip(bytes.saturating_add(2)).await?;
                }
                httparse::Status::Partial => self.need_more().await?,
            }
        }
    }

    async fn trailers(&mut self) -> Result<(), Reason> {
        loop {
            match self.received.windows(2).position(|pair| pair == b"\r\n") {
                Some(end) => {
                    self.received.advance(end + 2);
                    if end == 0 {
                        return Ok(());
                    }
                }
                None => self.need_more().await?,
            }
        }
    }

    async fn skip(&mut self, mut bytes: u64) -> Result<(), Reason> {
        loop {
            let here = self.received.len() as u64;
            if here >= bytes {
                // Not more than what is here, so it fits.
                self.received.advance(bytes as usize);
                return Ok(());
            }
            bytes -= here;
            self.received.clear();
            self.need_more().await?;
        }
    }

    async fn need_more(&mut self) -> Result<(), Reason> {
        if self.fill_some().await? {
            Ok(())
        } else {
            Err(INCOMPLETE)
        }
    }

    async fn fill_some(&mut self) -> Result<bool, Reason> {
        if self.received.len() >= HEAD_BYTES_MAX {
            return Err(MALFORMED);
        }
        self.fill().await
    }

    /// False at the end of the stream.
    async fn fill(&mut self) -> Result<bool, Reason> {
        self.received.reserve(READ_BYTES);
        let read = self.stream.read_buf(&mut self.received).await;
        read.map(|bytes| bytes > 0).map_err(|_| LOST)
    }
}

/// The head at the start of `bytes` and how long it is; none while it is not all there.
fn parse_head(method: &Method, bytes: &[u8]) -> Result<Option<(Head, usize)>, Reason> {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut lines);
    let httparse::Status::Complete(length) = response.parse(bytes).map_err(|_| MALFORMED)? else {
        return Ok(None);
    };
    let (Some(status), Some(version)) = (response.code, response.version) else {
        return Err(MALFORMED);
    };
    let mut framing = Framing::UntilClose;
    let mut keep_alive = version > 0;
    for line in response.headers.iter() {
        if line.name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Chunked;
        } else if line.name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunked {
            let text = std::str::from_utf8(line.value).map_err(|_| MALFORMED)?;
            framing = Framing::Length(text.trim().parse().map_err(|_| MALFORMED)?);
        } else if line.name.eq_ignore_ascii_case("connection") {
            if line.value.eq_ignore_ascii_case(b"close") {
                keep_alive = false;
            } else if line.value.eq_ignore_ascii_case(b"keep-alive") {
                keep_alive = true;
            }
        }
    }
    if *method == Method::HEAD || matches!(status, 100..200 | 204 | 304) {
        framing = Framing::Length(0);
    }
    let head = Head {
        status,
        framing,
        keep_alive,
    };
    Ok(Some((head, length)))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Has a server answer with `response`, in pieces of `piece` bytes, and then close.
    async fn answered(
        method: &Method,
        response: &'static str,
        piece: usize,
    ) -> (Result<u16, Reason>, bool) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = [0; 16];
            stream.read_exact(&mut request[..3]).await.unwrap();
            for piece in response.as_bytes().chunks(piece) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut connection = Connection::open(address).await.unwrap();
        let status = connection.exchange(method, b"GET").await;
        server.await.unwrap();
        (status, connection.reusable)
    }

    #[tokio::test]
    async fn a_response_ends_where_its_head_says() {
        for (method, response, expected) in [
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
                (Ok(200), true),
            ),
            (
                Method::GET,
                "HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                (Ok(404), false),
            ),
            (
                Method::GET,
                "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
                (Ok(200), false),
            ),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\n\r\nuntil the end",
                (Ok(200), false),
            ),
            (
                Method::GET,
                "HTTP/1.1 204 No Content\r\n\r\n",
                (Ok(204), true),
            ),
            (
                Method::HEAD,
                "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n",
                (Ok(200), true),
            ),
            (
                Method::GET,
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Made\r\ncontent-length: 1\r\n\r\nx",
                (Ok(201), true),
            ),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nA: b\r\n\r\n",
                (Ok(200), true),
            ),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello",
                (Err(INCOMPLETE), false),
            ),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
                (Err(INCOMPLETE), false),
            ),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
                (Err(MALFORMED), false),
            ),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
                (Err(MALFORMED), false),
            ),
            (
                Method::GET,
                "SSH-2.0-something\r\n\r\n",
                (Err(MALFORMED), false),
            ),
            (Method::GET, "HTTP/1.1 2", (Err(INCOMPLETE), false)),
            (Method::GET, "", (Err(LOST), false)),
        ] {
            for piece in [1, 7, usize::MAX] {
                assert_eq!(
                    answered(&method, response, piece).await,
                    expected,
                    "{response:?} by {piece}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_connection_that_the_server_closed_is_seen_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connection = Connection::open(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(connection.is_open());
        drop(accepted);
        connection.stream.readable().await.unwrap();
        assert!(!connection.is_open());
    }
}
