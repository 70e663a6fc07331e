//! WebSocket as far as an echo needs it: the handshake, and messages back as they came. Source: RFC 6455.
//!
//! Invariant: of a frame, no more is held than [`FRAME_BYTES_MAX`].

use std::io;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::http::plain;
use crate::serve::Reply;
use crate::tls::base64;

const FRAME_BYTES_MAX: u64 = 1 << 20;
/// RFC 6455 §1.3.
const SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Agrees to the upgrade, and echoes on the connection from then on.
pub(crate) fn answer(request: &mut Request<Incoming>) -> Response<Reply> {
    let Some(key) = request.headers().get("sec-websocket-key").cloned() else {
        return plain(StatusCode::BAD_REQUEST, "not a websocket handshake");
    };
    let upgrade = hyper::upgrade::on(request);
    tokio::task::spawn_local(async move {
        if let Ok(upgraded) = upgrade.await {
            // A client that leaves is no failure.
            let _ = echo(TokioIo::new(upgraded)).await;
        }
    });
    let mut response = plain(StatusCode::SWITCHING_PROTOCOLS, "");
    let lines = response.headers_mut();
    lines.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    lines.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accepted) = HeaderValue::from_str(&accepted(key.as_bytes())) {
        lines.insert("sec-websocket-accept", accepted);
    }
    response
}

fn accepted(key: &[u8]) -> String {
    let digest = Sha1::new()
        .chain_update(key)
        .chain_update(SUFFIX)
        .finalize();
    base64(&digest)
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let [first, second] = [stream.read_u8().await?, stream.read_u8().await?];
        let (kind, is_masked) = (first & 15, second & 128 != 0);
        let length = match second & 127 {
            126 => u64::from(stream.read_u16().await?),
            127 => stream.read_u64().await?,
            short => u64::from(short),
        };
        if length > FRAME_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut mask = [0; 4];
        if is_masked {
            stream.read_exact(&mut mask).await?;
        }
        let mut said = vec![0; length as usize];
        stream.read_exact(&mut said).await?;
        for (byte, key) in said.iter_mut().zip(mask.into_iter().cycle()) {
            *byte ^= key;
        }
        let kind_back = if kind == PING { PONG } else { kind };
        if kind != PONG {
            stream
                .write_all(&frame(first & 128 | kind_back, &said))
                .await?;
            stream.flush().await?;
        }
        if kind == CLOSE {
            return stream.shutdown().await;
        }
    }
}

/// A server's frame, which has no mask.
fn frame(first: u8, said: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match said.len() {
        short @ 0..126 => frame.push(short as u8),
        length @ 126..65536 => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(said);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_is_the_standards() {
        assert_eq!(
            accepted(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_message_comes_back_without_its_mask() {
        let (mut client, server) = tokio::io::duplex(1024);
        let masked = [0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
        let closing = [0x88, 0x80, 0, 0, 0, 0];
        client.write_all(&masked).await.expect("room");
        client.write_all(&closing).await.expect("room");
        echo(server).await.expect("it ends");
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.expect("bytes");
        assert_eq!(heard, [0x81, 2, b'h', b'i', 0x88, 0]);
    }
}
