//! As much of etcd's gRPC interface as a measurement needs: put, watch, and who leads. The messages are a few fields each,
//! written and read by hand (`rpc.proto` of etcd's API version 3).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::Error;

type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

/// Connections to share; one alone would be its own bottleneck.
const CONNECTIONS: usize = 8;

#[derive(Clone)]
pub struct Client {
    connections: Arc<Vec<http2::SendRequest<Body>>>,
    next: Arc<AtomicUsize>,
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes_field(number: u64, value: &[u8], out: &mut Vec<u8>) {
    varint(number << 3 | 2, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Its number in the message, and what it holds: a number or bytes.
type Field<'m> = (u64, u64, &'m [u8]);

/// The fields of a message, in order.
fn fields(mut message: &[u8]) -> Result<Vec<Field<'_>>, Error> {
    fn varint(message: &mut &[u8]) -> Result<u64, Error> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (byte, rest) = message.split_first().ok_or("a message ends early")?;
            *message = rest;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 || shift > 63 {
                return Ok(value);
            }
        }
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => found.push((tag >> 3, varint(&mut message)?, &[][..])),
            2 => {
                let length = usize::try_from(varint(&mut message)?)?;
                let (value, rest) = message
                    .split_at_checked(length)
                    .ok_or("a message ends early")?;
                found.push((tag >> 3, 0, value));
                message = rest;
            }
            other => return Err(format!("wire type {other}").into()),
        }
    }
    Ok(found)
}

/// A message as gRPC frames it: not compressed, its length, itself.
fn framed(message: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(5 + message.len());
    out.push(0);
    out.extend_from_slice(
        &u32::try_from(message.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    out.extend_from_slice(message);
    out.into()
}

/// Takes a whole message off the front.
fn unframed(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = buffer.get(1..5)?.try_into().ok().map(u32::from_be_bytes)? as usize;
    if buffer.len() < 5 + length {
        return None;
    }
    buffer.advance(5);
    Some(buffer.split_to(length).freeze())
}

async fn open(endpoint: &str) -> Result<http2::SendRequest<Body>, Error> {
    let socket = tokio::net::TcpStream::connect(endpoint).await?;
    socket.set_nodelay(true)?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .handshake(TokioIo::new(socket))
        .await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask(
    mut sender: http2::SendRequest<Body>,
    method: &str,
    body: Body,
) -> Result<http::Response<Incoming>, Error> {
    let request = http::Request::post(format!("http://etcd/etcdserverpb.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)?;
    let response = sender.send_request(request).await?;
    match response.headers().get("grpc-status") {
        Some(status) if status != "0" => Err(format!("{method}: {:?}", response.headers()).into()),
        _ => Ok(response),
    }
}

/// One answer to one message.
async fn unary(
    sender: http2::SendRequest<Body>,
    method: &str,
    message: &[u8],
) -> Result<Bytes, Error> {
    let body = Full::new(framed(message)).boxed();
    let collected = ask(sender, method, body)
        .await?
        .into_body()
        .collect()
        .await?;
    match collected
        .trailers()
        .and_then(|trailers| trailers.get("grpc-status"))
    {
        Some(status) if status == "0" => {}
        _ => return Err(format!("{method}: {:?}", collected.trailers()).into()),
    }
    let mut buffer = BytesMut::from(&*collected.to_bytes());
    unframed(&mut buffer).ok_or_else(|| format!("{method}: no message").into())
}

impl Client {
    /// Connects to the leader among the comma-separated `endpoints`.
    pub async fn connect(endpoints: &str) -> Result<Client, Error> {
        let mut leader = None;
        for endpoint in endpoints.split(',') {
            let status = unary(open(endpoint).await?, "Maintenance/Status", &[]).await?;
            let status = fields(&status)?;
            let header = status
                .iter()
                .find(|(number, ..)| *number == 1)
                .map_or(&[][..], |field| field.2);
            let member = fields(header)?
                .iter()
                .find(|(number, ..)| *number == 2)
                .map(|field| field.1);
            let leads = status
                .iter()
                .find(|(number, ..)| *number == 4)
                .map(|field| field.1);
            if member.is_some() && member == leads {
                leader = Some(endpoint);
            }
        }
        let leader = leader.ok_or("none of the endpoints leads")?;
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(open(leader).await?);
        }
        Ok(Client {
            connections: Arc::new(connections),
            next: Arc::default(),
        })
    }

    fn connection(&self) -> http2::SendRequest<Body> {
        let turn = self.next.fetch_add(1, Relaxed);
        self.connections[turn % self.connections.len()].clone()
    }

    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let mut message = Vec::with_capacity(key.len() + value.len() + 8);
        bytes_field(1, key, &mut message);
        bytes_field(2, value, &mut message);
        unary(self.connection(), "KV/Put", &message).await.map(drop)
    }

    /// Watches the keys that begin with `prefix`; returns once etcd says that it does.
    pub async fn watch(&self, prefix: &[u8]) -> Result<Watch, Error> {
        let mut end = prefix.to_vec();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let mut create = Vec::new();
        bytes_field(1, prefix, &mut create);
        bytes_field(2, &end, &mut create);
        let mut message = Vec::new();
        bytes_field(1, &create, &mut message);
        let first = framed(&message);
        // The stream of requests stays open as long as the watch.
        let requests = futures::stream::once(async { Ok(Frame::data(first)) });
        let requests = futures::StreamExt::chain(requests, futures::stream::pending());
        let response = ask(
            self.connection(),
            "Watch/Watch",
            BodyExt::boxed(StreamBody::new(requests)),
        )
        .await?;
        let mut watch = Watch {
            body: response.into_body(),
            buffer: BytesMut::new(),
        };
        watch.message().await?;
        Ok(watch)
    }
}

pub struct Watch {
    body: Incoming,
    buffer: BytesMut,
}

impl Watch {
    async fn message(&mut self) -> Result<Bytes, Error> {
        loop {
            if let Some(message) = unframed(&mut self.buffer) {
                return Ok(message);
            }
            let frame = self.body.frame().await.ok_or("the watch ended")??;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// The values of the next events.
    pub async fn next(&mut self) -> Result<Vec<Vec<u8>>, Error> {
        let message = self.message().await?;
        let mut values = Vec::new();
        for (number, _, event) in fields(&message)? {
            if number != 11 {
                continue;
            }
            for (number, _, pair) in fields(event)? {
                if number == 2 {
                    let value = fields(pair)?.into_iter().find(|(number, ..)| *number == 5);
                    values.extend(value.map(|value| value.2.to_vec()));
                }
            }
        }
        Ok(values)
    }
}
