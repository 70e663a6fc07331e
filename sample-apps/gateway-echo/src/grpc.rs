//! The server of gRPC: `GrpcEcho`, whose few messages are written here.

use std::io;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Request, Response};

use crate::serve::{Peer, Reply, serve};
use crate::tls::{Acceptor, Agreed};
use crate::{Ended, Place, port, variable};

const SERVICE: &str = "/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho/";
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Of gRPC.
const UNIMPLEMENTED: u16 = 12;

pub(crate) async fn run(place: Place) -> Ended {
    let (plain, over_tls) = (port("HTTP_PORT", 3000)?, port("HTTPS_PORT", 8443)?);
    let (certificate, key) = (variable("TLS_SERVER_CERT"), variable("TLS_SERVER_PRIV_KEY"));
    let acceptor = match certificate.is_empty() || key.is_empty() {
        true => None,
        false => Some(Acceptor::of(&certificate, &key, "", &["h2"])?),
    };
    let answer = |place: &Place| {
        let place = place.clone();
        move |request, peer| answered(place.clone(), request, peer)
    };
    println!("plaintext server listening at 0.0.0.0:{plain}");
    let secure = async {
        match acceptor {
            None => std::future::pending().await,
            Some(tls) => serve(over_tls, Some(tls), answer(&place)).await,
        }
    };
    tokio::select! {
        ended = serve(plain, None, answer(&place)) => ended,
        ended = secure => ended,
    }
}

async fn answered(
    place: Place,
    request: Request<Incoming>,
    peer: Peer,
) -> io::Result<Response<Reply>> {
    let (head, body) = request.into_parts();
    // What is asked is always nothing.
    let _ = Limited::new(body, MESSAGE_BYTES_MAX).collect().await;
    let method = head.uri.path();
    let is_known = matches!(method.strip_prefix(SERVICE), Some("Echo" | "EchoTwo"));
    if !is_known {
        return Ok(reply(None, UNIMPLEMENTED));
    }
    let over = if peer.tls.is_some() {
        "TLS"
    } else {
        "plaintext"
    };
    println!("Received over {over}:");
    let authority = head
        .uri
        .authority()
        .map_or("", |authority| authority.as_str());
    let mut lines = vec![(":authority".to_owned(), authority.to_owned())];
    lines.extend(head.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    }));
    let message = assertions(method, &lines, authority, &place, peer.tls.as_deref());
    Ok(reply(Some(field(1, &message)), 0))
}

/// The answer of a mesh's server: a message with one text.
pub(crate) fn echoed(told: &str) -> Response<Reply> {
    reply(Some(field(1, told.as_bytes())), 0)
}

/// A message of one call, or only its end.
fn reply(message: Option<Vec<u8>>, status: u16) -> Response<Reply> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(status));
    if status == UNIMPLEMENTED {
        trailers.insert("grpc-message", HeaderValue::from_static("unimplemented"));
    }
    let framed = message.map(|message| {
        let mut framed = vec![0];
        framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        framed.extend_from_slice(&message);
        Bytes::from(framed)
    });
    let kind = HeaderValue::from_static("application/grpc");
    let mut response = Response::new(Reply {
        bytes: framed,
        trailers: Some(trailers),
    });
    response.headers_mut().insert("content-type", kind);
    response
}

/// `Assertions` of grpcecho.proto.
fn assertions(
    method: &str,
    lines: &[(String, String)],
    authority: &str,
    place: &Place,
    tls: Option<&Agreed>,
) -> Vec<u8> {
    let mut message = text(1, method);
    for (key, value) in lines {
        message.extend(field(2, &[text(1, key), text(2, value)].concat()));
    }
    message.extend(text(3, authority));
    let context = [
        text(1, &place.namespace),
        text(2, &place.ingress),
        text(3, &place.service),
        text(4, &place.pod),
    ];
    message.extend(field(4, &context.concat()));
    if let Some(tls) = tls {
        let mut agreed = [
            text(1, &format!("TLSv{}", tls.version)),
            text(2, &tls.protocol),
            text(3, &tls.server_name),
            text(4, &tls.suite),
        ]
        .concat();
        for certificate in &tls.certificates {
            agreed.extend(text(5, certificate));
        }
        message.extend(field(5, &agreed));
    }
    message
}

/// A string, which is left out where it is empty.
fn text(number: u8, text: &str) -> Vec<u8> {
    match text.is_empty() {
        true => Vec::new(),
        false => field(number, text.as_bytes()),
    }
}

/// A field with a length (wire type 2).
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 127 {
        field.push((length & 127) as u8 | 128);
        length >>= 7;
    }
    field.push(length as u8);
    field.extend_from_slice(bytes);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_protocol() {
        let lines = [("a".to_owned(), "b".to_owned())];
        let place = Place {
            pod: "p".to_owned(),
            ..Place::default()
        };
        let found = assertions("/m", &lines, "h", &place, None);
        let expected = b"\x0a\x02/m\x12\x06\x0a\x01a\x12\x01b\x1a\x01h\x22\x03\x22\x01p";
        assert_eq!(found, expected);
        let long = field(1, &[0; 300]);
        assert_eq!(&long[..3], [0x0a, 0xac, 0x02]);
    }
}
