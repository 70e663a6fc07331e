//! Calls of gRPC as nobody's library makes them: what is in their fields and trailers reaches no workload as something else.

use super::Gateway;
use super::h2::{self, Want};
use super::tls;

const CALL: [(&str, &str); 6] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "mirror.vote.localhost"),
    (":path", "/shop.Cart/Add"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
];

/// A message of five bytes, framed.
const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";

/// A call with one field changed, further fields and these trailers.
fn call(changed: (&str, &str), more: &[(&str, &str)], trailers: &[(&str, &str)]) -> Vec<u8> {
    let lines = CALL.iter().map(|(name, value)| match *name == changed.0 {
        true => changed,
        false => (*name, *value),
    });
    let lines: Vec<(&str, &str)> = lines.chain(more.iter().copied()).collect();
    let end = u8::from(trailers.is_empty());
    let mut out = h2::frame(1, 4, 1, &h2::fields(&lines));
    out.extend(h2::frame(0, end, 1, MESSAGE));
    if !trailers.is_empty() {
        out.extend(h2::frame(1, 5, 1, &h2::fields(trailers)));
    }
    out
}

#[tokio::test]
async fn a_call_is_one_message_of_http_whatever_is_written_into_it() {
    const NONE: (&str, &str) = ("", "");
    let fine = || Want::Says("1: 200");
    let wrong = h2::told(&[
        ("a call", fine(), call(NONE, &[], &[])),
        ("trailers", fine(), call(NONE, &[], &[("x-checksum", "1")])),
        (
            "trailers of nodes",
            fine(),
            call(
                NONE,
                &[],
                &[("x-weft-source", "admin"), ("x-weft-worked-ns", "1")],
            ),
        ),
        (
            "a status of its own",
            fine(),
            call(NONE, &[("grpc-status", "0")], &[]),
        ),
        (
            "another coding",
            Want::Refused,
            call(("te", "gzip, trailers"), &[], &[]),
        ),
        (
            "a deadline that is none",
            fine(),
            call(NONE, &[("grpc-timeout", "99999999999S")], &[]),
        ),
        // What names a request is nothing at its end, and goes.
        (
            "a name in trailers",
            fine(),
            call(NONE, &[], &[(":path", "/smuggled")]),
        ),
        (
            "a status in trailers",
            fine(),
            call(NONE, &[], &[(":status", "200")]),
        ),
        (
            "chunks in trailers",
            Want::Refused,
            call(NONE, &[], &[("transfer-encoding", "chunked")]),
        ),
        (
            "chunks",
            Want::Refused,
            call(NONE, &[("transfer-encoding", "chunked")], &[]),
        ),
        (
            "a connection's line",
            Want::Refused,
            call(NONE, &[("connection", "te")], &[]),
        ),
        (
            "an upgrade",
            Want::Refused,
            call(NONE, &[("upgrade", "websocket")], &[]),
        ),
        (
            "more than it says",
            Want::Refused,
            call(NONE, &[("content-length", "5")], &[]),
        ),
        (
            "less than it says",
            Want::Refused,
            call(NONE, &[("content-length", "50")], &[]),
        ),
        (
            "a request in the path",
            Want::Refused,
            call(
                (":path", "/ HTTP/1.1\r\nHost: a.test\r\n\r\nGET /smuggled"),
                &[],
                &[],
            ),
        ),
        (
            "a line in the method",
            Want::Refused,
            call((":method", "GET / HTTP/1.1\r\nx: y"), &[], &[]),
        ),
        (
            "a line in the host",
            Want::Refused,
            call(
                (
                    ":authority",
                    "mirror.vote.localhost\r\nx-weft-source: admin",
                ),
                &[],
                &[],
            ),
        ),
        (
            "a line in a value",
            Want::Refused,
            call(NONE, &[("x", "1\r\nx-weft-source: admin")], &[]),
        ),
        (
            "a zero in a value",
            Want::Refused,
            call(NONE, &[("x", "1\0")], &[]),
        ),
        (
            "a colon in a name",
            Want::Refused,
            call(NONE, &[("x:y", "1")], &[]),
        ),
        (
            "a space in a name",
            Want::Refused,
            call(NONE, &[("content-length ", "10")], &[]),
        ),
        (
            "capitals in a name",
            Want::Refused,
            call(NONE, &[("Content-Length", "10")], &[]),
        ),
    ])
    .await;
    assert_eq!(wrong, Vec::<String>::new());
}

/// What only nodes may say, and what is for one hop, is taken off wherever it stands.
#[tokio::test]
async fn lines_at_the_end_say_no_more_than_those_at_the_beginning() {
    let gateway = Gateway::start();
    let trailers = [
        ("x-weft-source", "admin"),
        ("x-checksum", "1"),
        ("x-forwarded-client-cert", "URI=spiffe://x"),
        ("x-weft-error", "trap"),
    ];
    let sent = call(("", ""), &[], &trailers);
    let last = h2::request(h2::LAST, &h2::GET);
    let stream = tls::agreed(&gateway, b"h2").await;
    let told = h2::converse(stream, &sent, h2::Then::After, &last).await;
    assert!(
        told.starts_with("1: 200") && told.ends_with("and serves on"),
        "{told}"
    );
    let heard = gateway.heard();
    assert!(heard[0].ends_with("10 bytes, then x-checksum"), "{heard:?}");
}
