//! A registry on this machine that does whatever a test tells it, and notes what it was asked.

use parking_lot::Mutex;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// What an endless body is made of.
const PIECE: [u8; 16 << 10] = [b' '; 16 << 10];

/// What a test's component is.
pub(super) const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0rest";
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    /// With the query.
    pub(super) path: String,
    /// As the client calls the registry.
    pub(super) host: String,
    pub(super) authorization: Option<String>,
    pub(super) body: String,
}

pub(super) enum Reply {
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Nothing, for as long as the client stays.
    Silence,
    /// A byte now and then, without end.
    Trickle,
    /// Bytes without end.
    Endless(u16),
    /// A length, and nothing of what it says.
    Announced(u64),
}

impl Reply {
    pub(super) fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new(), Vec::new())
    }

    pub(super) fn redirect(location: impl Into<String>) -> Self {
        Self::Answer(307, vec![("location", location.into())], Vec::new())
    }

    pub(super) fn body(body: impl Into<Vec<u8>>) -> Self {
        Self::Answer(200, Vec::new(), body.into())
    }

    pub(super) fn challenge(challenge: impl Into<String>) -> Self {
        Self::Answer(
            401,
            vec![("www-authenticate", challenge.into())],
            Vec::new(),
        )
    }
}

pub(super) struct FakeRegistry {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    count: watch::Receiver<usize>,
    connections: Arc<AtomicUsize>,
    /// Bytes of endless bodies that clients took.
    sent: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl FakeRegistry {
    pub(super) async fn start(
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::start_with(None, answer).await
    }

    pub(super) async fn start_with(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (counted, count) = watch::channel(0);
        let (asked, connections, sent) = (
            Arc::<Mutex<Vec<Asked>>>::default(),
            Arc::<AtomicUsize>::default(),
            Arc::<AtomicUsize>::default(),
        );
        let serving = {
            let (asked, connections, sent) = (asked.clone(), connections.clone(), sent.clone());
            let (answer, counted) = (Arc::new(answer), Arc::new(counted));
            async move {
                let mut serving = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.fetch_add(1, Ordering::Relaxed);
                    let (asked, sent, tls) = (asked.clone(), sent.clone(), tls.clone());
                    let (answer, counted) = (answer.clone(), counted.clone());
                    serving.spawn(async move {
                        let stream: Box<dyn Stream> = match tls {
                            None => Box::new(stream),
                            Some(tls) => match tls.accept(stream).await {
                                Ok(stream) => Box::new(stream),
                                Err(_) => return,
                            },
                        };
                        let note = |request: &Asked| {
                            asked.lock().push(request.clone());
                            counted.send_modify(|count| *count += 1);
                        };
                        // A client that goes is no failure of the registry.
                        let _ = serve(stream, note, &*answer, &sent).await;
                    });
                }
            }
        };
        Ok(Self {
            address,
            asked,
            count,
            connections,
            sent,
            _serving: AbortOnDropHandle::new(tokio::spawn(serving)),
        })
    }

    /// One that serves what it is given by path, and 404 otherwise.
    pub(super) async fn of(content: HashMap<String, Vec<u8>>) -> io::Result<Self> {
        Self::start(move |asked| match content.get(asked.path.as_str()) {
            Some(body) => Reply::body(body.clone()),
            None => Reply::status(404),
        })
        .await
    }

    /// As images and configuration name it.
    pub(super) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    pub(super) fn paths(&self) -> Vec<String> {
        let asked = self.asked();
        asked.into_iter().map(|asked| asked.path).collect()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until it was asked so often.
    pub(super) async fn was_asked(&self, times: usize) {
        let mut count = self.count.clone();
        let enough = count.wait_for(|count| *count >= times).await;
        enough.expect("the registry runs");
    }
}

async fn serve(
    mut stream: Box<dyn Stream>,
    note: impl Fn(&Asked),
    answer: &(impl Fn(&Asked) -> Reply + ?Sized),
    sent: &AtomicUsize,
) -> io::Result<()> {
    while let Some(request) = request(&mut stream).await? {
        note(&request);
        match answer(&request) {
            Reply::Answer(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
                for (name, value) in headers {
                    head += &format!("{name}: {value}\r\n");
                }
                head += "\r\n";
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&body).await?;
                stream.flush().await?;
            }
            Reply::Silence => {
                // Until the client goes.
                let mut nothing = [0];
                stream.read_exact(&mut nothing).await?;
            }
            Reply::Trickle => {
                stream.write_all(b"HTTP/1.1 200 x\r\n\r\n").await?;
                loop {
                    stream.write_all(b" ").await?;
                    stream.flush().await?;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            Reply::Endless(status) => {
                let head = format!("HTTP/1.1 {status} x\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                loop {
                    stream.write_all(&PIECE).await?;
                    sent.fetch_add(PIECE.len(), Ordering::Relaxed);
                }
            }
            Reply::Announced(length) => {
                let head = format!("HTTP/1.1 200 x\r\ncontent-length: {length}\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                stream.flush().await?;
            }
        }
    }
    Ok(())
}

/// The next request of a connection.
async fn request(stream: &mut Box<dyn Stream>) -> io::Result<Option<Asked>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (first.next(), first.next());
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
    };
    let length = header("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    Ok(Some(Asked {
        method: method.unwrap_or_default().to_owned(),
        path: path.unwrap_or_default().to_owned(),
        host: header("host").unwrap_or_default(),
        authorization: header("authorization"),
        body: String::from_utf8_lossy(&body).into_owned(),
    }))
}

/// The manifest of an artefact with one layer, as `oras push NAME a.wasm:application/wasm` writes it.
pub(super) fn manifest_of(layer: &[u8]) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.unknown.artifact.v1",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2, "data": "e30="},
        "layers": [{
            "mediaType": "application/wasm", "digest": sha256(layer), "size": layer.len(),
            "annotations": {"org.opencontainers.image.title": "a.wasm"},
        }],
    });
    manifest.to_string().into_bytes()
}

/// What a registry has that has a component under `NAME:1`.
pub(super) fn artefact(name: &str, component: &[u8]) -> HashMap<String, Vec<u8>> {
    let manifest = manifest_of(component);
    HashMap::from([
        (
            format!("/v2/{name}/manifests/{}", sha256(&manifest)),
            manifest.clone(),
        ),
        (format!("/v2/{name}/manifests/1"), manifest),
        (
            format!("/v2/{name}/blobs/{}", sha256(component)),
            component.to_vec(),
        ),
    ])
}
