//! The same ways in behind a listener's TLS, and what only TLS adds: bytes beside it, ends without a word, protocols that were not agreed on,
//! and data that comes before the greeting has ended, which whoever records it could send again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weft_gateway::api::Secret;
use weft_gateway::{
    AttachedRoute, Backend, BackendTarget, Front, FrontTls, HostPattern, Rule, Served,
};

use super::{Gateway, HOST, PATIENCE, h1, h2};

/// A listener's certificate for [`HOST`], and who trusts it.
pub struct Certificate {
    shown: Arc<FrontTls>,
    der: CertificateDer<'static>,
}

impl Certificate {
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).expect("a certificate");
        let key = made.signing_key.serialize_pem();
        let data = BTreeMap::from([
            ("tls.crt".to_owned(), made.cert.pem().into_bytes()),
            ("tls.key".to_owned(), key.into_bytes()),
        ]);
        let pair = Secret::read(&data, true).0.expect("a pair");
        Self {
            shown: Arc::new(FrontTls {
                certificates: vec![pair],
                clients: None,
            }),
            der: made.cert.der().clone(),
        }
    }

    pub fn client(&self, protocols: &[&[u8]]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config
    }

    /// Listeners for [`HOST`] at two places: in the clear, and over TLS.
    pub fn served(&self, plain: SocketAddr, tls: SocketAddr) -> Served {
        let backend = Backend::new(BackendTarget::Service {
            namespace: "vote".to_owned(),
            name: "mirror".to_owned(),
            port: 80,
        });
        let rule = Rule {
            route: "vote/mirror".to_owned(),
            backends: vec![backend],
            ..Rule::default()
        };
        let route = AttachedRoute {
            route: rule.route.clone(),
            rules: [Arc::new(rule)].into(),
            ..AttachedRoute::default()
        };
        let hosts = [(HostPattern::parse(HOST), vec![route])].into();
        let front = Front {
            listeners: [(HostPattern::Any, hosts)].into(),
            tls: BTreeMap::new(),
        };
        let secret = Front {
            tls: [(HostPattern::Any, Arc::clone(&self.shown))].into(),
            ..front.clone()
        };
        Served {
            fronts: [(plain, front), (tls, secret)].into(),
            ..Served::default()
        }
    }
}

pub async fn connect(
    gateway: &Gateway,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(HOST).expect("a name");
    let tcp = TcpStream::connect(gateway.tls).await?;
    let shaking = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    let shaken = tokio::time::timeout(PATIENCE, shaking).await;
    shaken.expect("an end")
}

/// A connection to the listener of TLS, over which `protocol` was agreed on.
pub async fn agreed(gateway: &Gateway, protocol: &[u8]) -> TlsStream<TcpStream> {
    let config = gateway.certificate.client(&[protocol]);
    let stream = connect(gateway, config).await.expect("a connection");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
    stream
}

const REQUEST: &[u8] =
    b"GET /ok HTTP/1.1\r\nHost: mirror.vote.localhost\r\nConnection: close\r\n\r\n";

/// Everything that comes back for bytes on a connection of TCP, whose client then says that this was all.
async fn heard(at: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let talk = async {
        let mut stream = TcpStream::connect(at).await.expect("a connection");
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        heard
    };
    tokio::time::timeout(PATIENCE, talk).await.expect("an end")
}

#[tokio::test]
async fn nothing_is_served_beside_tls() {
    let gateway = Gateway::start();
    let name = ServerName::try_from(HOST).expect("a name");
    let config = Arc::new(gateway.certificate.client(&[b"http/1.1"]));
    let mut client = ClientConnection::new(config, name).expect("a client");
    let mut greeting = Vec::new();
    client.write_tls(&mut greeting).expect("room");
    // A record that says it is data, before there are keys.
    let length = u16::try_from(REQUEST.len()).expect("short");
    let mut record = vec![23, 3, 3];
    record.extend(length.to_be_bytes());
    record.extend(REQUEST);
    for (what, bytes) in [
        ("a request in the clear", REQUEST.to_vec()),
        ("a record without keys", record.clone()),
        (
            "a greeting, then a request",
            [&greeting[..], REQUEST].concat(),
        ),
        (
            "a greeting, then such a record",
            [&greeting[..], &record].concat(),
        ),
        (
            "a request, then a greeting",
            [REQUEST, &greeting[..]].concat(),
        ),
    ] {
        let heard = heard(gateway.tls, &bytes).await;
        let heard = String::from_utf8_lossy(&heard);
        assert!(!heard.contains("HTTP/1."), "{what}: {heard}");
    }
    // And TLS is nothing that is spoken where no listener says so.
    let said = heard(gateway.plain, &greeting).await;
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 400 "),
        "{said}"
    );
    gateway.serves().await;
}

/// Whoever cuts a connection of TLS in two has no keys, and can only end it: what was said by then is a part, and no workload takes it for the
/// whole.
#[tokio::test]
async fn an_end_without_a_word_is_the_end_of_no_request() {
    let gateway = Gateway::start();
    for (what, raw) in [
        (
            "a length",
            "POST /cut HTTP/1.1\r\nHost: mirror.vote.localhost\r\nContent-Length: 10\r\n\r\nhello",
        ),
        (
            "chunks",
            "POST /cut HTTP/1.1\r\nHost: mirror.vote.localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        ),
        (
            "a head",
            "POST /cut HTTP/1.1\r\nHost: mirror.vote.localhost\r\nContent-Length: 0\r\n",
        ),
    ] {
        let mut stream = agreed(&gateway, b"http/1.1").await;
        stream.write_all(raw.as_bytes()).await.expect("room");
        stream.flush().await.expect("room");
        let (mut tcp, _session) = stream.into_inner();
        // No close_notify.
        tcp.shutdown().await.expect("it ends");
        let mut rest = Vec::new();
        let reading = tcp.read_to_end(&mut rest);
        let read = tokio::time::timeout(PATIENCE, reading).await;
        let _ = read.expect("an end");
        let heard = gateway.heard();
        let whole = heard.iter().find(|line| line.ends_with(" bytes"));
        assert_eq!(whole, None, "{what}");
    }
    gateway.serves().await;
}

#[tokio::test]
async fn another_protocol_than_was_agreed_on_smuggles_nothing() {
    let gateway = Gateway::start();
    // Requests of HTTP/1.1 where HTTP/2 was agreed on.
    let two = [REQUEST, b"GET /smuggled HTTP/1.1\r\n\r\n"].concat();
    let said = h1::spoken(agreed(&gateway, b"h2").await, &two).await;
    assert!(
        !said.contains("smuggled") && !said.contains(" + "),
        "{said}"
    );
    // A protocol that the listener does not speak.
    let config = gateway.certificate.client(&[b"spdy/3"]);
    assert!(connect(&gateway, config).await.is_err());
    // The greeting of HTTP/2 where HTTP/1.1 was agreed on: either way it is one conversation.
    let last = h2::request(h2::LAST, &h2::GET);
    let stream = agreed(&gateway, b"http/1.1").await;
    let said = h2::converse(stream, &[], h2::Then::AtOnce, &last).await;
    assert!(said == "closed" || said == "and serves on", "{said}");
    gateway.serves().await;
}

#[tokio::test]
async fn what_can_be_sent_again_is_not_taken_early() {
    let gateway = Gateway::start();
    let mut config = gateway.certificate.client(&[b"http/1.1"]);
    config.resumption = Resumption::in_memory_sessions(8);
    config.enable_early_data = true;
    let mut stream = connect(&gateway, config.clone())
        .await
        .expect("a connection");
    // What comes with the answer is what a session is resumed by.
    let said = h1::heard(&mut stream, REQUEST).await;
    assert!(said.starts_with("200 GET "), "{said}");
    let name = ServerName::try_from(HOST).expect("a name");
    let mut again = ClientConnection::new(Arc::new(config.clone()), name).expect("a client");
    assert!(again.early_data().is_none(), "the listener would take it");
    // And the session is resumed all the same.
    let stream = connect(&gateway, config).await.expect("a connection");
    let kind = stream.get_ref().1.handshake_kind();
    assert_eq!(kind, Some(HandshakeKind::Resumed));
    gateway.serves().await;
}
