//! Rules of TLSRoute and TCPRoute: what is opened and what is passed on as it comes, by which name, to whom and in which shares.
//!
//! Backends say who they are, then what they hear. What is told of a connection: `v1 opened`, where a backend heard what was said inside of
//! TLS; `v1 whole`, where it heard the greeting itself; `v1 plain` without TLS; or `reset`, and `closed`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use rustls::{ClientConfig, ClientConnection, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft_mesh::{Body, BoxError};

use super::streams::{Authority, Issued, asked, bundle, raw, secret};
use super::world::{Asked, OnRaw, World};

const DEADLINE: Duration = Duration::from_secs(20);
const SAID: &[u8] = b"something";

/// Says who it is, then what it hears, until that ends.
fn speaker() -> OnRaw {
    Arc::new(|request: Request<Body>| {
        let name = request
            .extensions()
            .get::<Asked>()
            .expect("a name")
            .0
            .clone();
        let hello = Frame::data(Bytes::from(name + " "));
        let hello = futures::stream::iter([Ok::<_, BoxError>(hello)]);
        let heard = request.into_body().into_data_stream();
        let heard = heard.map(|part| part.map(Frame::data));
        Response::new(Body::new(StreamBody::new(hello.chain(heard))))
    })
}

async fn said(mut stream: impl AsyncRead + AsyncWrite + Unpin, what: &[u8]) -> io::Result<Vec<u8>> {
    let speaking = async {
        stream.write_all(what).await?;
        stream.shutdown().await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        Ok(heard)
    };
    tokio::time::timeout(DEADLINE, speaking)
        .await
        .expect("in time")
}

async fn connected(world: &World, at: (&str, u16)) -> TcpStream {
    let stream = TcpStream::connect(world.place(at.0, at.1)).await;
    stream.expect("a connection")
}

/// Who heard `what`, and how that is called.
fn heard(answer: io::Result<Vec<u8>>, what: &[u8], how: &str) -> String {
    let answer = match answer {
        Err(_) => return "reset".to_owned(),
        Ok(answer) if answer.is_empty() => return "closed".to_owned(),
        Ok(answer) => answer,
    };
    let space = answer.iter().position(|byte| *byte == b' ');
    let (name, rest) = answer.split_at(space.map_or(answer.len(), |space| space + 1));
    let name = String::from_utf8_lossy(name);
    match rest == what {
        true => format!("{name}{how}"),
        false => format!("{name}and {} other bytes", rest.len()),
    }
}

async fn plain(world: &World, at: (&str, u16)) -> String {
    heard(said(connected(world, at).await, SAID).await, SAID, "plain")
}

/// A greeting for a name.
fn greeting(client: &Arc<ClientConfig>, name: &str) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::clone(client), name).expect("a client");
    let mut greeting = Vec::new();
    client.write_tls(&mut greeting).expect("a greeting");
    greeting
}

/// What becomes of a greeting for a name, and of a connection that agrees on TLS where nobody hears the greeting.
async fn tls(world: &World, at: (&str, u16), client: &Arc<ClientConfig>, name: &str) -> String {
    let server = ServerName::try_from(name.to_owned()).expect("a name");
    let stream = connected(world, at).await;
    let shaking = TlsConnector::from(Arc::clone(client)).connect(server, stream);
    let shaken = tokio::time::timeout(DEADLINE, shaking).await;
    if let Ok(stream) = shaken.expect("in time") {
        return heard(said(stream, SAID).await, SAID, "opened");
    }
    let greeting = greeting(client, name);
    let answer = said(connected(world, at).await, &greeting).await;
    heard(answer, &greeting, "whole")
}

#[tokio::test]
async fn tls_goes_by_the_name_that_is_asked_for() {
    let authority = Authority::new();
    let issued = authority.issue(&["tls.example.com", "*.web.test"]);
    let manifests = secret("cert", &issued)
        + r"
- kind: Gateway
  metadata: {name: exact, namespace: infra}
  spec: {gatewayClassName: weft, listeners: [{name: tls, port: 443, protocol: TLS, hostname: abc.example.com, tls: {mode: Passthrough}}]}
- kind: Gateway
  metadata: {name: wild, namespace: infra}
  spec: {gatewayClassName: weft, listeners: [{name: tls, port: 443, protocol: TLS, hostname: '*.example.com', tls: {mode: Passthrough}}]}
- kind: Gateway
  metadata: {name: any, namespace: infra}
  spec: {gatewayClassName: weft, listeners: [{name: tls, port: 443, protocol: TLS, tls: {mode: Passthrough}}]}
- kind: Gateway
  metadata: {name: mixed, namespace: infra}
  spec:
    gatewayClassName: weft
    listeners:
    - {name: open, port: 8883, protocol: TLS, hostname: tls.example.com, tls: {certificateRefs: [{name: cert}]}}
    - {name: whole, port: 8883, protocol: TLS, hostname: abc.example.com, tls: {mode: Passthrough}}
- kind: TLSRoute
  metadata: {name: exact, namespace: infra}
  spec: {parentRefs: [{name: wild}, {name: any}], hostnames: [abc.example.com], rules: [{backendRefs: [{name: v1, port: 8080}]}]}
- kind: TLSRoute
  metadata: {name: wild, namespace: infra}
  spec: {parentRefs: [{name: exact}], hostnames: ['*.example.com'], rules: [{backendRefs: [{name: v1, port: 8080}]}]}
- kind: TLSRoute
  metadata: {name: wilder, namespace: infra}
  spec: {parentRefs: [{name: wild}, {name: any}], hostnames: ['*.com'], rules: [{backendRefs: [{name: v2, port: 8080}]}]}
- kind: TLSRoute
  metadata: {name: nobody, namespace: infra}
  spec: {parentRefs: [{name: any}], hostnames: [gone.test], rules: [{backendRefs: [{name: nobody, port: 443}]}]}
- kind: TLSRoute
  metadata: {name: empty, namespace: infra}
  spec: {parentRefs: [{name: any}], hostnames: [empty.test], rules: [{backendRefs: [{name: empty, port: 8080}]}]}
- kind: TLSRoute
  metadata: {name: kind, namespace: infra}
  spec: {parentRefs: [{name: any}], hostnames: [kind.test], rules: [{backendRefs: [{group: x.test, kind: Other, name: v1, port: 8080}]}]}
- kind: TLSRoute
  metadata: {name: far, namespace: infra}
  spec: {parentRefs: [{name: any}], hostnames: [far.test], rules: [{backendRefs: [{name: far, namespace: web, port: 8080}]}]}
- kind: TLSRoute
  metadata: {name: open, namespace: infra}
  spec: {parentRefs: [{name: mixed}], hostnames: [tls.example.com], rules: [{backendRefs: [{name: v1, port: 8080}]}]}
- kind: TLSRoute
  metadata: {name: whole, namespace: infra}
  spec: {parentRefs: [{name: mixed}], hostnames: [abc.example.com], rules: [{backendRefs: [{name: v2, port: 8080}]}]}
";
    let world = World::with_raw(&manifests, Some(speaker())).await;
    let client = authority.client(None);
    let mut told = Vec::new();
    for (gateway, port, name) in [
        ("exact", 443, "abc.example.com"),
        ("exact", 443, "other.example.com"),
        ("wild", 443, "abc.example.com"),
        ("wild", 443, "ABC.Example.com"),
        ("wild", 443, "other.example.com"),
        ("wild", 443, "a.b.example.com"),
        ("wild", 443, "example.com"),
        ("wild", 443, "192.0.2.1"),
        ("any", 443, "abc.example.com"),
        ("any", 443, "other.example.com"),
        ("any", 443, "other.org"),
        ("any", 443, "gone.test"),
        ("any", 443, "empty.test"),
        ("any", 443, "kind.test"),
        ("any", 443, "far.test"),
        ("mixed", 8883, "tls.example.com"),
        ("mixed", 8883, "abc.example.com"),
        ("mixed", 8883, "def.example.com"),
    ] {
        let what = tls(&world, (gateway, port), &client, name).await;
        told.push(format!("{gateway}:{port} {name}: {what}"));
    }
    insta::assert_snapshot!(told.join("\n"), @r"
    exact:443 abc.example.com: v1 whole
    exact:443 other.example.com: reset
    wild:443 abc.example.com: v1 whole
    wild:443 ABC.Example.com: v1 whole
    wild:443 other.example.com: v2 whole
    wild:443 a.b.example.com: v2 whole
    wild:443 example.com: reset
    wild:443 192.0.2.1: reset
    any:443 abc.example.com: v1 whole
    any:443 other.example.com: v2 whole
    any:443 other.org: reset
    any:443 gone.test: reset
    any:443 empty.test: reset
    any:443 kind.test: reset
    any:443 far.test: reset
    mixed:8883 tls.example.com: v1 opened
    mixed:8883 abc.example.com: v2 whole
    mixed:8883 def.example.com: reset
    ");
    // An alert (RFC 8446 §6), or a reset, as what was said is left unread.
    let noise = b"GET / HTTP/1.1\r\n\r\n";
    let heard = said(connected(&world, ("any", 443)).await, noise).await;
    assert!(
        heard
            .as_ref()
            .map_or(true, |heard| heard.first() == Some(&21)),
        "{heard:?}"
    );
}

/// Attack 49: who came in by the name of one listener asks for what is another's.
#[tokio::test]
async fn attack_49_listeners_of_https_and_tls_share_a_port_and_no_request() {
    let authority = Authority::new();
    let issued = authority.issue(&["*.web.test"]);
    let manifests = secret("cert", &issued)
        + r"
- kind: Gateway
  metadata: {name: both, namespace: infra}
  spec:
    gatewayClassName: weft
    listeners:
    - {name: https, port: 443, protocol: HTTPS, hostname: '*.web.test', tls: {certificateRefs: [{name: cert}]}}
    - {name: whole, port: 443, protocol: TLS, hostname: whole.web.test, tls: {mode: Passthrough}}
    - {name: open, port: 443, protocol: TLS, hostname: open.web.test, tls: {certificateRefs: [{name: cert}]}}
- kind: HTTPRoute
  metadata: {name: web, namespace: infra}
  spec: {parentRefs: [{name: both}], rules: [{backendRefs: [{name: v1, port: 8080}]}]}
- kind: TLSRoute
  metadata: {name: whole, namespace: infra}
  spec: {parentRefs: [{name: both, sectionName: whole}], hostnames: [whole.web.test], rules: [{backendRefs: [{name: v2, port: 8080}]}]}
- kind: TLSRoute
  metadata: {name: open, namespace: infra}
  spec: {parentRefs: [{name: both, sectionName: open}], hostnames: [open.web.test], rules: [{backendRefs: [{name: v3, port: 8080}]}]}
";
    let world = World::with_raw(&manifests, Some(speaker())).await;
    let client = authority.client(None);
    let at = ("both", 443);
    for (name, expected) in [
        ("whole.web.test", "v2 whole"),
        ("open.web.test", "v3 opened"),
        ("other.test", "closed"),
    ] {
        assert_eq!(tls(&world, at, &client, name).await, expected, "{name}");
    }
    for (name, host, expected) in [
        ("a.web.test", "a.web.test", 200),
        ("a.web.test", "whole.web.test", 421),
        ("a.web.test", "open.web.test", 421),
        ("a.web.test", "other.test", 404),
    ] {
        let answer = asked(&world, at, &client, name, host).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status.as_u16(), expected, "{name} {host}");
    }
}

/// A backend of TLS that says who it is once somebody agrees with it.
fn secure(issued: &Issued) -> OnRaw {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![issued.der.clone()], issued.key.clone_key())
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    raw(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let agreed = stream.get_ref().1.alpn_protocol().is_some();
            assert!(!agreed, "what is spoken is nobody's to say");
            let mut heard = Vec::new();
            if stream.read_to_end(&mut heard).await.is_ok() {
                let answer = [b"secure ", &heard[..]].concat();
                stream.write_all(&answer).await.expect("room");
                stream.shutdown().await.expect("it ends");
            }
        }
    })
}

#[tokio::test]
async fn what_was_opened_is_closed_again_where_a_policy_says_so() {
    let authority = Authority::new();
    let issued = authority.issue(&["tls.example.com", "whole.example.com", "back.test"]);
    let policy = |name: &str, host: &str| {
        format!(
            r#"
- {{kind: Service, metadata: {{name: {name}, namespace: infra}}, spec: {{clusterIP: 10.43.1.1, ports: [{{port: 8080}}]}}}}
- kind: BackendTLSPolicy
  metadata: {{name: {name}, namespace: infra}}
  spec:
    targetRefs: [{{group: "", kind: Service, name: {name}}}]
    validation: {{caCertificateRefs: [{{group: "", kind: ConfigMap, name: {host}}}], hostname: {host}}}
"#
        )
    };
    let ca = |name: &str| bundle(name, &authority);
    let manifests = secret("cert", &issued)
        + &ca("back.test")
        + &ca("wrong.test")
        + &policy("proven", "back.test")
        + &policy("other", "wrong.test")
        + &policy("none", "gone.test")
        + r"
- kind: Gateway
  metadata: {name: tls, namespace: infra}
  spec:
    gatewayClassName: weft
    listeners:
    - {name: open, port: 443, protocol: TLS, hostname: tls.example.com, tls: {certificateRefs: [{name: cert}]}}
    - {name: whole, port: 443, protocol: TLS, hostname: whole.example.com, tls: {mode: Passthrough}}
    - {name: proven, port: 1000, protocol: TCP}
    - {name: other, port: 1001, protocol: TCP}
    - {name: none, port: 1002, protocol: TCP}
- kind: TLSRoute
  metadata: {name: both, namespace: infra}
  spec: {parentRefs: [{name: tls}], hostnames: ['*.example.com'], rules: [{backendRefs: [{name: proven, port: 8080}]}]}
- kind: TCPRoute
  metadata: {name: proven, namespace: infra}
  spec: {parentRefs: [{name: tls, port: 1000}], rules: [{backendRefs: [{name: proven, port: 8080}]}]}
- kind: TCPRoute
  metadata: {name: other, namespace: infra}
  spec: {parentRefs: [{name: tls, port: 1001}], rules: [{backendRefs: [{name: other, port: 8080}]}]}
- kind: TCPRoute
  metadata: {name: none, namespace: infra}
  spec: {parentRefs: [{name: tls, port: 1002}], rules: [{backendRefs: [{name: none, port: 8080}]}]}
";
    let world = World::with_raw(&manifests, Some(secure(&issued))).await;
    let client = authority.client(None);
    // The policy is for whom the Gateway speaks to itself: what is passed on as it comes is agreed on by its two ends.
    for name in ["tls.example.com", "whole.example.com"] {
        let told = tls(&world, ("tls", 443), &client, name).await;
        assert_eq!(told, "secure opened", "{name}");
    }
    for (port, expected) in [(1000, "secure plain"), (1001, "reset"), (1002, "reset")] {
        assert_eq!(plain(&world, ("tls", port)).await, expected, "{port}");
    }
}

#[tokio::test]
async fn connections_go_by_their_place_and_in_shares() {
    let world = World::with_raw(
        r"
- kind: Service
  metadata: {name: datagrams, namespace: infra}
  spec: {clusterIP: 10.43.0.9, ports: [{name: dns, port: 53, protocol: UDP}]}
- kind: Gateway
  metadata: {name: tcp, namespace: infra}
  spec:
    gatewayClassName: weft
    allowedListeners: {namespaces: {from: Same}}
    listeners:
    - {name: one, port: 9300, protocol: TCP}
    - {name: two, port: 9301, protocol: TCP}
    - {name: three, port: 9302, protocol: TCP}
    - {name: shares, port: 9303, protocol: TCP}
    - {name: far, port: 9304, protocol: TCP}
    - {name: datagrams, port: 9305, protocol: TCP}
    - {name: unused, port: 9306, protocol: TCP}
    - {name: closed, port: 9307, protocol: TCP}
- kind: ListenerSet
  metadata: {name: more, namespace: infra}
  spec: {parentRef: {name: tcp}, listeners: [{name: tcp, port: 9400, protocol: TCP}]}
- kind: TCPRoute
  metadata: {name: by-port, namespace: infra}
  spec: {parentRefs: [{name: tcp, port: 9300}], rules: [{backendRefs: [{name: v1, port: 8080}]}]}
- kind: TCPRoute
  metadata: {name: by-section, namespace: infra, creationTimestamp: '2026-01-01T00:00:00Z'}
  spec: {parentRefs: [{name: tcp, sectionName: two}], rules: [{backendRefs: [{name: v2, port: 8080}]}]}
- kind: TCPRoute
  metadata: {name: a-newer, namespace: infra, creationTimestamp: '2026-01-01T00:00:01Z'}
  spec: {parentRefs: [{name: tcp, sectionName: two}], rules: [{backendRefs: [{name: v1, port: 8080}]}]}
- kind: TCPRoute
  metadata: {name: by-both, namespace: infra}
  spec: {parentRefs: [{name: tcp, sectionName: three, port: 9302}], rules: [{backendRefs: [{name: v3, port: 8080}]}]}
- kind: TCPRoute
  metadata: {name: shares, namespace: infra}
  spec:
    parentRefs: [{name: tcp, sectionName: shares}]
    rules: [{backendRefs: [{name: v1, port: 8080, weight: 70}, {name: v2, port: 8080, weight: 30}, {name: v3, port: 8080, weight: 0}]}]
- kind: TCPRoute
  metadata: {name: far, namespace: infra}
  spec: {parentRefs: [{name: tcp, sectionName: far}], rules: [{backendRefs: [{name: far, namespace: web, port: 8080}]}]}
- kind: ReferenceGrant
  metadata: {name: infra, namespace: web}
  spec: {from: [{group: gateway.networking.k8s.io, kind: TCPRoute, namespace: infra}], to: [{group: '', kind: Service, name: far}]}
- kind: TCPRoute
  metadata: {name: datagrams, namespace: infra}
  spec: {parentRefs: [{name: tcp, sectionName: datagrams}], rules: [{backendRefs: [{name: datagrams, port: 53}]}]}
- kind: TCPRoute
  metadata: {name: closed, namespace: infra}
  spec: {parentRefs: [{name: tcp, sectionName: closed}], rules: [{backendRefs: [{name: v1, port: 8080, weight: 0}]}]}
- kind: TCPRoute
  metadata: {name: set, namespace: infra}
  spec: {parentRefs: [{name: more, kind: ListenerSet}], rules: [{backendRefs: [{name: v3, port: 8080}]}]}
",
        Some(speaker()),
    )
    .await;
    for (port, expected) in [
        (9300, "v1 plain"),
        (9301, "v2 plain"),
        (9302, "v3 plain"),
        (9304, "far plain"),
        (9305, "reset"),
        (9306, "reset"),
        (9307, "reset"),
        (9400, "v3 plain"),
    ] {
        assert_eq!(plain(&world, ("tcp", port)).await, expected, "{port}");
    }
    let mut shares: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..200 {
        let told = plain(&world, ("tcp", 9303)).await;
        *shares.entry(told).or_default() += 1;
    }
    let share = |name: &str| shares.get(name).copied().unwrap_or_default();
    assert_eq!(share("v1 plain") + share("v2 plain"), 200, "{shares:?}");
    // Of 200 at 0.7, fewer than 100 come to one in a billion.
    assert!(
        share("v1 plain") > 100 && share("v2 plain") > 10,
        "{shares:?}"
    );
}
