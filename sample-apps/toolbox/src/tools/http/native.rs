//! A plain HTTP/1.1 client, one connection a request. Heads are bounded.

use std::net::SocketAddr;

use super::{Call, Failure, Request, Response};
use crate::tools::call::{CHUNK_BYTES, reason};
use crate::tools::resolver;
use crate::tools::socket::Tcp;

/// The head of an answer.
const HEAD_BYTES_MAX: usize = 256 << 10;

pub struct Body {
    stream: Tcp,
    held: Vec<u8>,
    length: Length,
}

enum Length {
    Known(u64),
    /// What is left of a chunk, and whether one was begun.
    Chunked(u64, bool),
    ToTheEnd,
    Nothing,
}

pub async fn send(call: &Call, request: Request) -> Result<Response, Failure> {
    let Request {
        method,
        url,
        headers,
        body,
        connect_timeout,
    } = request;
    if url.secure {
        return Err(Failure::Tls(
            "this build has no TLS; in a component the host brings it".into(),
        ));
    }
    let addresses = resolver::addresses(call, &url.host)
        .await
        .map_err(|_| Failure::Name)?
        .1;
    let mut stream = Err(Failure::Name);
    for address in addresses {
        match Tcp::connect(SocketAddr::new(address, url.port_number()), connect_timeout) {
            Ok(open) => {
                stream = Ok(open);
                break;
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                stream = Err(Failure::Timeout)
            }
            Err(error) => stream = Err(Failure::Connect(reason(&error))),
        }
    }
    let stream = stream?;
    let named = |name: &str| {
        headers
            .iter()
            .any(|(known, _)| known.eq_ignore_ascii_case(name))
    };
    let mut head = format!("{method} {} HTTP/1.1\r\n", url.path);
    if !named("host") {
        head += &format!("Host: {}\r\n", url.authority());
    }
    for (name, value) in &headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !named("content-length")
        && (!body.is_empty() || matches!(method.as_str(), "POST" | "PUT" | "PATCH"))
    {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head += "Connection: close\r\n\r\n";
    let broken = |_| Failure::Ended { empty: true };
    stream.write_all(head.as_bytes()).await.map_err(broken)?;
    // A server that answers before it has read everything may close its side.
    let _ = stream.write_all(&body).await;
    let mut held = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = held.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if held.len() > HEAD_BYTES_MAX {
                return Err(Failure::Other(
                    "the head of the response is too long".into(),
                ));
            }
            if read_more(&stream, &mut held).await? == 0 {
                return Err(Failure::Ended {
                    empty: held.is_empty(),
                });
            }
        };
        let rest = held.split_off(end + 4);
        let head = String::from_utf8_lossy(&held).into_owned();
        held = rest;
        let mut lines = head.trim_end().split("\r\n");
        let first = lines.next().unwrap_or_default();
        let status: Option<u16> = first
            .strip_prefix("HTTP/")
            .and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        let Some(status) = status else {
            return Err(Failure::Other("Received HTTP/0.9 when not allowed".into()));
        };
        // What comes before the answer itself.
        if status < 200 && status != 101 {
            continue;
        }
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let value = |name: &str| {
            headers
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
        };
        let length = match (
            value("transfer-encoding"),
            value("content-length").and_then(|text| text.parse().ok()),
        ) {
            _ if method == "HEAD" || matches!(status, 204 | 304) => Length::Nothing,
            (Some(coding), _) if coding.to_ascii_lowercase().contains("chunked") => {
                Length::Chunked(0, false)
            }
            (_, Some(length)) => Length::Known(length),
            (_, None) => Length::ToTheEnd,
        };
        return Ok(Response {
            status,
            headers,
            body: Body {
                stream,
                held,
                length,
            },
        });
    }
}

async fn read_more(stream: &Tcp, held: &mut Vec<u8>) -> Result<usize, Failure> {
    let mut buf = vec![0; CHUNK_BYTES];
    let count = stream.read(&mut buf).await.map_err(|_| Failure::Ended {
        empty: held.is_empty(),
    })?;
    held.extend_from_slice(buf.get(..count).unwrap_or_default());
    Ok(count)
}

impl Body {
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let ended = Failure::Ended { empty: false };
        match self.length {
            Length::Nothing | Length::Known(0) => Ok(None),
            Length::Known(left) => {
                if self.held.is_empty() && read_more(&self.stream, &mut self.held).await? == 0 {
                    return Err(ended);
                }
                let part = self.take(left);
                self.length = Length::Known(left - part.len() as u64);
                Ok(Some(part))
            }
            Length::ToTheEnd => {
                if self.held.is_empty() && read_more(&self.stream, &mut self.held).await? == 0 {
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut self.held)))
            }
            Length::Chunked(0, begun) => {
                loop {
                    // The line end of the chunk before.
                    let from = if begun { 2 } else { 0 };
                    let line = self
                        .held
                        .get(from..)
                        .and_then(|rest| rest.windows(2).position(|pair| pair == b"\r\n"));
                    if let Some(end) = line {
                        let text = self.held.get(from..from + end).unwrap_or_default().to_vec();
                        self.held.drain(..from + end + 2);
                        let text = String::from_utf8_lossy(&text).into_owned();
                        let digits = text.split(';').next().unwrap_or_default().trim();
                        let size = u64::from_str_radix(digits, 16)
                            .map_err(|_| Failure::Other("a chunk has no size".into()))?;
                        self.length = if size == 0 {
                            Length::Nothing
                        } else {
                            Length::Chunked(size, true)
                        };
                        return Box::pin(self.chunk()).await;
                    }
                    if self.held.len() > HEAD_BYTES_MAX
                        || read_more(&self.stream, &mut self.held).await? == 0
                    {
                        return Err(ended);
                    }
                }
            }
            Length::Chunked(left, _) => {
                if self.held.is_empty() && read_more(&self.stream, &mut self.held).await? == 0 {
                    return Err(ended);
                }
                let part = self.take(left);
                self.length = Length::Chunked(left - part.len() as u64, true);
                Ok(Some(part))
            }
        }
    }

    fn take(&mut self, most: u64) -> Vec<u8> {
        let count = self
            .held
            .len()
            .min(usize::try_from(most).unwrap_or(usize::MAX));
        self.held.drain(..count).collect()
    }
}
