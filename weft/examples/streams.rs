//! Sessions and streams as load, for `cargo xtask bench sessions`, `port-forward` and `tcp`: each run is one measurement, told as a line of JSON.
//!
//! ```text
//! streams exec NAMESPACE POD CONTAINER SESSIONS AT_ONCE        a shell that says a word, over a WebSocket each, on a connection of its own
//! streams forward NAMESPACE POD PORT up|down MIB               bytes through a forwarded port, to the component `echo` behind it
//! streams plain up|down MIB                                    the same through a proxy that copies, to a server in this process
//! streams tls up|down MIB                                      the same with TLS on both of its sides, as the way to a pod has
//! streams straight ADDRESS up|down MIB                         bytes to whoever does at an address what `echo` does
//! streams opens ADDRESS CONNECTIONS                            connections to it, one after the other, each of which is answered a word
//! streams serve                                                does what `echo` does, at a port that it says, until it is ended
//! ```
//!
//! The kubeconfig is the one of `WEFT_KUBECONFIG`. A session that does not say its word, or a byte that is lost, is a failure.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::BytesMut;
use http::{Request, header};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft::kubeconfig::ClientArgs;
use weft::session::{Session, Wanted, upgraded};
use weft_apiserver::spdy::frame::{Decoder, Encoder, Frame};

/// What is written and read at once, on every way.
const CHUNK_BYTES: usize = 64 << 10;
const ERROR: u32 = 1;
const DATA: u32 = 3;

fn main() -> Result<()> {
    // Of the two that could be compiled in; a program chooses once.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let told = runtime.block_on(async {
        match words[..] {
            ["exec", namespace, pod, container, sessions, at_once] => {
                let (sessions, at_once) = (sessions.parse()?, at_once.parse()?);
                exec(namespace, pod, container, sessions, at_once).await
            }
            ["forward", namespace, pod, port, way, mib] => {
                forward(namespace, pod, port, Way::of(way, mib)?).await
            }
            ["plain", way, mib] => proxied(Way::of(way, mib)?, false).await,
            ["tls", way, mib] => proxied(Way::of(way, mib)?, true).await,
            ["straight", address, way, mib] => {
                let way = Way::of(way, mib)?;
                measured(connected(address).await?, way).await
            }
            ["opens", address, connections] => opens(address, connections.parse()?).await,
            ["serve"] => serves().await,
            _ => bail!("see the first lines of this file for what can be asked"),
        }
    })?;
    println!("{told}");
    Ok(())
}

async fn client() -> Result<kube::Client> {
    let kubeconfig = std::env::var_os("WEFT_KUBECONFIG").map(Into::into);
    Ok(ClientArgs { kubeconfig }.client().await?)
}

// === Sessions ===

async fn exec(
    namespace: &str,
    pod: &str,
    container: &str,
    sessions: usize,
    at_once: usize,
) -> Result<Value> {
    let client = client().await?;
    let of: Arc<[String; 3]> = Arc::new([namespace, pod, container].map(str::to_owned));
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for worker in 0..at_once {
        let (client, of) = (client.clone(), of.clone());
        let share = sessions / at_once + usize::from(worker < sessions % at_once);
        workers.spawn(async move {
            let mut longest = 0.0_f64;
            for _ in 0..share {
                let begun = Instant::now();
                greet(&client, &of).await?;
                longest = longest.max(begun.elapsed().as_secs_f64());
            }
            anyhow::Ok(longest)
        });
    }
    let mut longest = 0.0_f64;
    while let Some(worker) = workers.join_next().await {
        longest = longest.max(worker??);
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(
        json!({"sessions": sessions, "at_once": at_once, "seconds": seconds, "longest_seconds": longest}),
    )
}

async fn greet(client: &kube::Client, [namespace, pod, container]: &[String; 3]) -> Result<()> {
    let command = ["sh", "-c", "echo hi"].map(str::to_owned);
    let wanted = Wanted {
        namespace,
        pod,
        container,
        command: Some(&command),
        stdin: false,
        tty: false,
    };
    let session = Session::open(client, &wanted, "no session").await?;
    let mut said = Vec::new();
    let (stdin, stderr) = (None::<tokio::io::Empty>, tokio::io::sink());
    session.run(stdin, &mut said, stderr, "no end").await?;
    ensure!(said == b"hi\n", "a session said {said:?}");
    Ok(())
}

// === Bytes ===

/// Which way bytes go, and how many.
#[derive(Clone, Copy)]
struct Way {
    is_up: bool,
    bytes: usize,
}

impl Way {
    fn of(way: &str, mib: &str) -> Result<Self> {
        let is_up = match way {
            "up" => true,
            "down" => false,
            other => bail!("{other} is neither up nor down"),
        };
        let mib: usize = mib.parse().context("so many MiB")?;
        Ok(Self {
            is_up,
            bytes: mib << 20,
        })
    }

    /// What is asked of who is at the other end.
    fn asked(self) -> String {
        let word = if self.is_up { "take" } else { "give" };
        format!("{word} {}\n", self.bytes)
    }

    fn told(self, begun: Instant) -> Value {
        let seconds = begun.elapsed().as_secs_f64();
        json!({"bytes": self.bytes, "seconds": seconds, "mb_per_second": self.bytes as f64 / seconds / 1e6})
    }
}

/// Through the API to a pod, as a client of SPDY.
async fn forward(namespace: &str, pod: &str, port: &str, way: Way) -> Result<Value> {
    let client = client().await?;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/portforward");
    let request = Request::post(path)
        .header(header::UPGRADE, "SPDY/3.1")
        .header("X-Stream-Protocol-Version", "portforward.k8s.io");
    let io = upgraded(&client, request, "cannot reach the pod").await?;
    let (reader, mut writer) = tokio::io::split(io);
    let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
    for (stream, kind) in [(ERROR, "error"), (DATA, "data")] {
        let headers = [("streamtype", kind), ("port", port), ("requestid", "0")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let opens = Frame::SynStream {
            stream,
            fin: stream == ERROR,
            unidirectional: false,
            headers: headers.to_vec(),
        };
        encoder.encode(&opens, &mut out);
    }
    writer.write_all(&out).await?;
    let mut answers = Answers {
        reader,
        decoder: Decoder::default(),
        read: BytesMut::new(),
    };
    let mut say = |bytes: Vec<u8>, out: &mut BytesMut| {
        let frame = Frame::Data {
            stream: DATA,
            fin: false,
            bytes: bytes.into(),
        };
        encoder.encode(&frame, out);
    };
    let begun = Instant::now();
    out.clear();
    say(way.asked().into_bytes(), &mut out);
    writer.write_all(&out).await?;
    writer.flush().await?;
    let most = if way.is_up { 0 } else { way.bytes };
    let up = async {
        let mut left = if way.is_up { way.bytes } else { 0 };
        while left > 0 {
            let now = left.min(CHUNK_BYTES);
            out.clear();
            say(vec![b'x'; now], &mut out);
            writer.write_all(&out).await?;
            left -= now;
        }
        writer.flush().await?;
        anyhow::Ok(())
    };
    let down = async {
        let mut come = 0;
        // The word that ends it comes last on either way.
        while come < most + "done\n".len() {
            come += answers.next().await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(up, down)?;
    Ok(way.told(begun))
}

struct Answers<R> {
    reader: R,
    decoder: Decoder,
    read: BytesMut,
}

impl<R: AsyncRead + Unpin> Answers<R> {
    /// How many bytes came next.
    async fn next(&mut self) -> Result<usize> {
        loop {
            match self.decoder.decode(&mut self.read)? {
                Some(Frame::Data { stream, bytes, .. }) if stream == DATA && !bytes.is_empty() => {
                    return Ok(bytes.len());
                }
                Some(Frame::Data { bytes, .. }) if !bytes.is_empty() => {
                    bail!("no port: {}", String::from_utf8_lossy(&bytes));
                }
                Some(_) => {}
                None => {
                    self.read.reserve(CHUNK_BYTES);
                    ensure!(
                        self.reader.read_buf(&mut self.read).await? > 0,
                        "it ended early"
                    );
                }
            }
        }
    }
}

// === Straight ===

async fn connected(address: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn opens(address: &str, connections: usize) -> Result<Value> {
    let begun = Instant::now();
    for _ in 0..connections {
        let mut stream = connected(address).await?;
        stream.write_all(b"give 0\n").await?;
        let mut word = [0; 5];
        stream.read_exact(&mut word).await?;
        ensure!(&word == b"done\n", "a connection was answered {word:?}");
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(
        json!({"connections": connections, "seconds": seconds, "per_second": connections as f64 / seconds}),
    )
}

async fn serves() -> Result<Value> {
    let (listener, address) = listen().await?;
    println!("{}", address.port());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // Whoever leaves early is no reason to stop.
        if let Err(error) = serve(stream).await {
            eprintln!("a connection ended: {error}");
        }
    }
}

// === What it is compared with ===

/// A server of its own behind a proxy of its own, each on a thread of its own.
async fn proxied(way: Way, with_tls: bool) -> Result<Value> {
    let tls = with_tls.then(tls).transpose()?;
    let (listener, server) = listen().await?;
    let acceptor = tls.as_ref().map(|(acceptor, _)| acceptor.clone());
    apart(async move {
        let (stream, _) = listener.accept().await?;
        match acceptor {
            Some(acceptor) => serve(acceptor.accept(stream).await?).await,
            None => serve(stream).await,
        }
    });
    let (listener, proxy) = listen().await?;
    let both = tls.clone();
    apart(async move {
        let (from, _) = listener.accept().await?;
        let to = TcpStream::connect(server).await?;
        match both {
            Some((acceptor, connector)) => {
                let to = connector
                    .connect(ServerName::try_from("localhost")?, to)
                    .await?;
                pass(acceptor.accept(from).await?, to).await
            }
            None => pass(from, to).await,
        }
    });
    let stream = TcpStream::connect(proxy).await?;
    match tls {
        Some((_, connector)) => {
            let name = ServerName::try_from("localhost")?;
            measured(connector.connect(name, stream).await?, way).await
        }
        None => measured(stream, way).await,
    }
}

async fn listen() -> Result<(TcpListener, std::net::SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn apart(work: impl Future<Output = Result<()>> + Send + 'static) {
    // Ends with its connection, or this process.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(work)
    });
}

async fn pass(
    mut from: impl AsyncRead + AsyncWrite + Unpin,
    mut to: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<()> {
    let size = CHUNK_BYTES;
    tokio::io::copy_bidirectional_with_sizes(&mut from, &mut to, size, size).await?;
    Ok(())
}

/// As the component `echo` does it.
async fn serve(stream: impl AsyncRead + AsyncWrite) -> Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = tokio::io::BufReader::with_capacity(CHUNK_BYTES, reader);
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let (word, bytes) = line.trim().split_once(' ').context("a word and a number")?;
    let mut left: usize = bytes.parse()?;
    let mut chunk = vec![b'x'; CHUNK_BYTES];
    while left > 0 {
        let now = left.min(chunk.len());
        left -= match word {
            "take" => match reader.read(&mut chunk[..now]).await? {
                0 => bail!("it ended early"),
                read => read,
            },
            _ => {
                writer.write_all(&chunk[..now]).await?;
                now
            }
        };
    }
    writer.write_all(b"done\n").await?;
    writer.shutdown().await?;
    Ok(())
}

async fn measured(stream: impl AsyncRead + AsyncWrite, way: Way) -> Result<Value> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let begun = Instant::now();
    writer.write_all(way.asked().as_bytes()).await?;
    writer.flush().await?;
    let up = async {
        let chunk = vec![b'x'; CHUNK_BYTES];
        let mut left = if way.is_up { way.bytes } else { 0 };
        while left > 0 {
            let now = left.min(chunk.len());
            writer.write_all(&chunk[..now]).await?;
            left -= now;
        }
        writer.flush().await?;
        anyhow::Ok(())
    };
    let down = async {
        let mut left = "done\n".len() + if way.is_up { 0 } else { way.bytes };
        let mut chunk = vec![0; CHUNK_BYTES];
        while left > 0 {
            let read = reader.read(&mut chunk).await?;
            ensure!(read > 0, "it ended early");
            left -= read;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(up, down)?;
    Ok(way.told(begun))
}

/// Both ends of TLS for `localhost`, with the ciphers of the cluster.
fn tls() -> Result<(TlsAcceptor, TlsConnector)> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let certificate = CertificateDer::from(made.cert.der().to_vec());
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der());
    let key = key.map_err(|error| anyhow::anyhow!("its key: {error}"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate)?;
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((
        TlsAcceptor::from(Arc::new(server)),
        TlsConnector::from(Arc::new(client)),
    ))
}
