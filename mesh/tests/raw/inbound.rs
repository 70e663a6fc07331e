//! HTTP/2 over mutual TLS, as another node would speak it if somebody had got hold of a workload's key.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::Request;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weft_mesh::{Body, CallContext};

use super::h2::{
    LAST, Then,
    Want::{self, Closed, Refused, Says},
    converse, fields, frame, given_up, request,
};
use super::{mirror, world};
use world::{Authority, World, describe, pod, sa, workload};

/// Takes any server: what is tested is what the server takes.
#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = aws_lc_rs::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A connection to `address` as the workload `web`, with a certificate of `authority` or none, in `protocol`.
async fn connect(
    address: SocketAddr,
    authority: Option<&Authority>,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous));
    let mut config = match authority {
        Some(authority) => {
            let (chain, key) = authority.issue(&[&sa("web").to_string()]);
            builder
                .with_client_auth_cert(chain, key)
                .expect("a certificate")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = weft_mesh::server_name(&sa("voting")).expect("a name");
    let tcp = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

fn started() -> World {
    let world = world::world();
    world.b.attach(pod(2), workload("voting", mirror));
    world.b.attach(pod(3), workload("other", describe));
    world
}

fn call(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "voting"),
        (":path", "/"),
    ];
    request(stream, &[&usual[..], more].concat())
}

/// `POST /` for the pod of [`HERE`], whose body follows in frames of data.
fn post(more: &[(&str, &str)], parts: &[&str]) -> Vec<u8> {
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "voting"),
        (":path", "/"),
        HERE,
    ];
    let mut out = frame(1, 4, 1, &fields(&[&usual[..], more].concat()));
    for (number, part) in parts.iter().enumerate() {
        let is_last = number + 1 == parts.len();
        out.extend(frame(0, u8::from(is_last), 1, part.as_bytes()));
    }
    out
}

const HERE: (&str, &str) = ("x-weft-destination", "10.42.0.2:8080");

/// Sends each on a connection of its own, then a call like any other, and says of which something else came than should.
async fn told(world: &World, cases: Vec<(&str, Want<'_>, Vec<u8>)>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, want, sent) in cases {
        let stream = connect(world.b_address, Some(&world.authority), b"weft-h2/1").await;
        let stream = stream.expect("a connection");
        let told = converse(stream, &sent, want.then(), &call(LAST, &[HERE])).await;
        if !want.is(&told) {
            wrong.push(format!("{name}: {told}"));
        }
    }
    wrong
}

#[tokio::test]
async fn what_is_no_message_of_http_reaches_no_workload() {
    let world = started();
    let long = "v".repeat(90 << 10);
    let many: Vec<(String, String)> = (0..300)
        .map(|number| (format!("x-{number}"), "1".to_owned()))
        .collect();
    let many: Vec<(&str, &str)> = many
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .chain([HERE])
        .collect();
    let usual = fields(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "voting"),
        (":path", "/"),
        HERE,
    ]);
    let trailers = |lines: &[(&str, &str)]| {
        let mut out = post(&[], &["hello", ""]);
        // The last part is not the end, the trailers are.
        out.truncate(out.len() - 9);
        out.extend(frame(1, 5, 1, &fields(lines)));
        out
    };
    let wrong = told(
        &world,
        vec![
            (
                "a length",
                Says("1: 200"),
                post(&[("content-length", "5")], &["hel", "lo"]),
            ),
            (
                "a longer one",
                Refused,
                post(&[("content-length", "6")], &["hello"]),
            ),
            (
                "a shorter one",
                Refused,
                post(&[("content-length", "4")], &["hello"]),
            ),
            (
                "two lengths",
                Refused,
                post(
                    &[("content-length", "5"), ("content-length", "6")],
                    &["hello"],
                ),
            ),
            (
                "a length with a sign",
                Refused,
                post(&[("content-length", "+5")], &["hello"]),
            ),
            (
                "transfer-encoding",
                Refused,
                post(&[("transfer-encoding", "chunked")], &["0\r\n\r\n"]),
            ),
            ("te", Refused, call(1, &[HERE, ("te", "gzip")])),
            (
                "te for trailers",
                Says("1: 200"),
                call(1, &[HERE, ("te", "trailers")]),
            ),
            ("upgrade", Refused, call(1, &[HERE, ("upgrade", "h2c")])),
            ("capitals", Refused, call(1, &[HERE, ("X-Mine", "1")])),
            ("a zero byte", Refused, call(1, &[HERE, ("x", "a\0b")])),
            (
                "the end of a line",
                Refused,
                call(1, &[HERE, ("x", "a\r\nx-weft-source: admin")]),
            ),
            (
                "two authorities",
                Refused,
                call(1, &[HERE, (":authority", "a.test")]),
            ),
            // The authority holds, and the guest is not shown a second opinion.
            (
                "another in host",
                Says("1: 200"),
                call(1, &[HERE, ("host", "a.test")]),
            ),
            (
                "a pseudo-field of responses",
                Refused,
                call(1, &[HERE, (":status", "200")]),
            ),
            (
                "a pseudo-field after fields",
                Refused,
                call(1, &[HERE, ("x", "1"), (":path", "/")]),
            ),
            (
                "a tunnel",
                Refused,
                request(
                    1,
                    &[(":method", "CONNECT"), (":authority", "voting:80"), HERE],
                ),
            ),
            (
                "trailers",
                Says("1: 200"),
                trailers(&[("x-checksum", "1"), ("x-weft-source", "admin")]),
            ),
            (
                "trailers with a method",
                Want::ServesOn,
                trailers(&[(":method", "GET")]),
            ),
            ("more lines than are passed on", Refused, call(1, &many)),
            ("more bytes than are taken", Refused, {
                let block = [&usual[..], &fields(&[("x-long", &long)])].concat();
                let parts: Vec<&[u8]> = block.chunks(16_000).collect();
                let mut out = frame(1, 1, 1, parts[0]);
                for (number, part) in parts.iter().enumerate().skip(1) {
                    let is_last = number + 1 == parts.len();
                    out.extend(frame(9, if is_last { 4 } else { 0 }, 1, part));
                }
                out
            }),
            ("a head without end", Closed, {
                let part = frame(9, 0, 1, &fields(&[("x", "1")]));
                [frame(1, 1, 1, &usual), part.repeat(4000)].concat()
            }),
            (
                "data of a stream that is not open",
                Closed,
                frame(0, 0, 7, b"hello"),
            ),
            (
                "a window that overflows",
                Closed,
                frame(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
            ),
            (
                "a frame that is too large",
                Closed,
                frame(0, 0, 1, &vec![0; 40_000]),
            ),
        ],
    )
    .await;
    assert_eq!(wrong, Vec::<String>::new());
    // Nothing of it is held against the workload.
    let endpoint = world::endpoint("voting", 2, "b", world.b_address);
    world.publish(1, vec![world::service("voting", vec![endpoint])]);
    world.get("http://voting/").await.expect("it serves on");
    world.stop.cancel();
}

#[tokio::test]
async fn what_a_node_says_is_taken_with_care() {
    let world = started();
    let here = HERE;
    let most = u64::MAX.to_string();
    let (longest, longer) = ("n".repeat(1024), "n".repeat(1025));
    let cases: Vec<(&str, Want<'_>, Vec<u8>)> = vec![
        ("a call", Says("1: 200"), call(1, &[here])),
        (
            "from whose name is as long as it may be",
            Says("1: 200"),
            call(1, &[here, ("x-weft-source", &longest)]),
        ),
        (
            "from whose name is longer, and would be remembered",
            Says("1: 400"),
            call(1, &[here, ("x-weft-source", &longer)]),
        ),
        ("for nobody", Says("1: 421"), call(1, &[])),
        (
            "for what is no address",
            Says("1: 421"),
            call(1, &[("x-weft-destination", "voting")]),
        ),
        (
            "for a pod that is not here",
            Says("1: 421"),
            call(1, &[("x-weft-destination", "10.42.0.9:8080")]),
        ),
        // The connection is for `voting`, whose certificate was asked for.
        (
            "for a pod of another identity",
            Says("1: 421"),
            call(1, &[("x-weft-destination", "10.42.0.3:8080")]),
        ),
        (
            "twice",
            Says("1: 200"),
            call(1, &[here, ("x-weft-destination", "10.42.0.3:8080")]),
        ),
        (
            "no time left",
            Says("1: 504"),
            call(1, &[here, ("x-weft-timeout-ms", "0")]),
        ),
        (
            "all the time there is",
            Says("1: 200"),
            call(1, &[here, ("x-weft-timeout-ms", &most)]),
        ),
        (
            "time that is none",
            Says("1: 200"),
            call(1, &[here, ("x-weft-timeout-ms", "-1")]),
        ),
        (
            "as deep as can be said",
            Says("1: 508"),
            call(1, &[here, ("x-weft-depth", &most)]),
        ),
        (
            "a source that is none",
            Says("1: 200"),
            call(1, &[here, ("x-weft-source", ";;;;;;;;\u{e9}")]),
        ),
        (
            "a claim",
            Says("1: 200"),
            call(1, &[here, ("x-forwarded-client-cert", "URI=spiffe://x")]),
        ),
        (
            "HEAD",
            Says("1: 200, end; "),
            request(
                1,
                &[
                    (":method", "HEAD"),
                    (":scheme", "http"),
                    (":authority", "voting"),
                    (":path", "/"),
                    here,
                ],
            ),
        ),
        (
            "204",
            Says("1: 204, end; "),
            request(
                1,
                &[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":authority", "voting"),
                    (":path", "/?status=204"),
                    here,
                ],
            ),
        ),
        (
            "304",
            Says("1: 304, end; "),
            request(
                1,
                &[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":authority", "voting"),
                    (":path", "/?status=304"),
                    here,
                ],
            ),
        ),
        (
            "connection",
            Refused,
            call(1, &[here, ("connection", "close")]),
        ),
        ("a field that is none", Closed, frame(1, 5, 1, &[0xff; 20])),
        ("an even stream", Closed, call(2, &[here])),
        (
            "no path",
            Refused,
            frame(
                1,
                5,
                1,
                &fields(&[(":method", "GET"), (":scheme", "http"), here]),
            ),
        ),
    ];
    assert_eq!(told(&world, cases).await, Vec::<String>::new());
    let stream = connect(world.b_address, Some(&world.authority), b"weft-h2/1").await;
    let sent = given_up(|stream| call(stream, &[here]));
    let stream = stream.expect("a connection");
    let told = converse(stream, &sent, Then::AtOnce, &call(LAST, &[here])).await;
    let ends_well = told.ends_with("and serves on");
    assert!(ends_well || told.ends_with("closed"), "{told}");
    // Nobody else noticed.
    let endpoint = world::endpoint("voting", 2, "b", world.b_address);
    world.publish(1, vec![world::service("voting", vec![endpoint])]);
    world.get("http://voting/").await.expect("it serves on");
    world.stop.cancel();
}

/// Whoever has the key of one account is that account for whom he calls, whatever else he brings: a token of another account, lines that
/// say who calls, another name in each of them. The number is that of `docs/attacks.md`.
#[tokio::test]
async fn attack_87_a_token_of_another_account_makes_nobody_that_account() {
    let world = world::world();
    let callers = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&callers);
    let noting = move |request: Request<Body>| {
        let context = request.extensions().get::<CallContext>();
        let peer = context.and_then(|context| context.peer.clone());
        let whom = peer.map(|peer| peer.spiffe_id.to_string());
        seen.lock().expect("nobody panicked").push(whom);
        mirror(request)
    };
    world.b.attach(pod(2), workload("voting", noting));
    world.b.attach(pod(3), workload("other", describe));
    let admin = sa("admin").to_string();
    let xfcc = format!("By={admin};URI={admin}");
    let brought: [&[(&str, &str)]; 5] = [
        &[("authorization", "Bearer of.another.account")],
        &[("x-weft-source", "admin;admin;1;admin;1")],
        &[
            ("x-forwarded-client-cert", &xfcc),
            ("x-weft-source", &admin),
        ],
        &[("x-weft-source", "a;;;;"), ("x-weft-source", &admin)],
        &[("impersonate-user", "admin"), ("x-remote-user", "admin")],
    ];
    for more in brought {
        let sent = call(1, &[&[HERE], more].concat());
        let stream = connect(world.b_address, Some(&world.authority), b"weft-h2/1").await;
        let stream = stream.expect("it proved who it is");
        let told = converse(stream, &sent, Then::After, &call(LAST, &[HERE])).await;
        assert!(told.starts_with("1: 200"), "{more:?}: {told}");
    }
    let callers = callers.lock().expect("nobody panicked").clone();
    assert!(callers.len() >= brought.len(), "{callers:?}");
    let own = Some(sa("web").to_string());
    assert!(callers.iter().all(|whom| *whom == own), "{callers:?}");
    // The pods of an account that was not asked for by its certificate are not there on this connection.
    let other = call(1, &[("x-weft-destination", "10.42.0.3:8080")]);
    let stream = connect(world.b_address, Some(&world.authority), b"weft-h2/1").await;
    let stream = stream.expect("it proved who it is");
    let told = converse(stream, &other, Then::After, &call(LAST, &[HERE])).await;
    assert!(told.starts_with("1: 421"), "{told}");
    world.stop.cancel();
}

#[tokio::test]
async fn nobody_gets_in_without_a_certificate_of_the_cluster() {
    let world = started();
    let stranger = Authority::new();
    let mut lines = Vec::new();
    for (name, authority, protocol) in [
        ("no certificate", None, &b"weft-h2/1"[..]),
        ("a stranger's", Some(&stranger), b"weft-h2/1"),
        ("another protocol", Some(&world.authority), b"h2"),
        ("as it should be", Some(&world.authority), b"weft-h2/1"),
    ] {
        let sent = call(LAST, &[("x-weft-destination", "10.42.0.2:8080")]);
        // With TLS 1.3 a client hears only after its handshake that it was refused.
        lines.push(match connect(world.b_address, authority, protocol).await {
            Ok(stream) => format!(
                "{name}: {}",
                converse(stream, &[], Then::AtOnce, &sent).await
            ),
            Err(_) => format!("{name}: closed"),
        });
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    no certificate: closed
    a stranger's: closed
    another protocol: closed
    as it should be: and serves on
    ");
    world.stop.cancel();
}
