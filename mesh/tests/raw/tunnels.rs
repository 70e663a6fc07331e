//! CONNECT and its kin: nobody has a tunnel through the gateway, and what was meant for one is not read as requests.

use super::h2::{self, Want};
use super::{Gateway, HOST, h1, tls};

#[tokio::test]
async fn connect_is_refused_and_nothing_after_it_is_a_request() {
    let gateway = Gateway::start();
    let refused = "400 the request is not acceptable: CONNECT is not supported";
    for (what, first) in [
        ("a host", "CONNECT mirror.vote.localhost:80 HTTP/1.1"),
        ("another host", "CONNECT 127.0.0.1:22 HTTP/1.1"),
        ("an address of IPv6", "CONNECT [::1]:22 HTTP/1.1"),
        ("no port", "CONNECT mirror.vote.localhost HTTP/1.1"),
        (
            "before there was any",
            "CONNECT mirror.vote.localhost:80 HTTP/1.0",
        ),
    ] {
        for lines in ["", "Content-Length: 4\r\n", "Connection: keep-alive\r\n"] {
            let raw = format!(
                "{first}\r\nHost: {HOST}\r\n{lines}\r\nGET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
            );
            let said = h1::exchange(gateway.address, raw.as_bytes()).await;
            assert_eq!(said, refused, "{what}, {lines:?}");
            let stream = tls::agreed(&gateway, b"http/1.1").await;
            let said = h1::spoken(stream, raw.as_bytes()).await;
            assert_eq!(said, refused, "{what}, {lines:?}, over TLS");
        }
    }
    // What is no host at all is no request.
    for first in [
        "CONNECT / HTTP/1.1",
        "CONNECT * HTTP/1.1",
        "CONNECT  HTTP/1.1",
    ] {
        let raw = format!(
            "{first}\r\nHost: {HOST}\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
        );
        let said = h1::exchange(gateway.address, raw.as_bytes()).await;
        let is_refused =
            |said: &str| said == "closed" || (said.starts_with("400") && !said.contains(" + "));
        assert!(is_refused(&said), "{first}: {said}");
        let stream = tls::agreed(&gateway, b"http/1.1").await;
        let said = h1::spoken(stream, raw.as_bytes()).await;
        assert!(is_refused(&said), "{first}, over TLS: {said}");
    }
    gateway.serves().await;
}

#[tokio::test]
async fn a_stream_is_no_tunnel_either() {
    let connect = |more: &[(&str, &str)]| {
        let lines = [&[(":method", "CONNECT"), (":authority", HOST)], more].concat();
        let begun = h2::frame(1, 4, 1, &h2::fields(&lines));
        let said = b"GET /smuggled HTTP/1.1\r\n\r\n";
        [begun, h2::frame(0, 1, 1, said)].concat()
    };
    let target = [(":scheme", "http"), (":path", "/")];
    let wrong = h2::told(&[
        ("a tunnel", Want::Refused, connect(&[])),
        ("with a path", Want::Refused, connect(&target)),
        // RFC 8441: nobody was told that it may be asked for.
        (
            "WebSocket",
            Want::Refused,
            connect(&[&target[..], &[(":protocol", "websocket")]].concat()),
        ),
        (
            "datagrams",
            Want::Refused,
            connect(&[&target[..], &[(":protocol", "connect-udp")]].concat()),
        ),
        (
            "a protocol of another method",
            Want::Refused,
            h2::get(1, &[(":protocol", "websocket")]),
        ),
    ])
    .await;
    assert_eq!(wrong, Vec::<String>::new());
}
