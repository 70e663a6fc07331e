//! `weft port-forward`: ports of this machine that lead to a pod, as long as this runs.
//!
//! Each connection to one is a connection of SPDY of its own to the API, with two streams: the bytes, and why there are none.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use http::{Request, header};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use weft_apiserver::spdy::frame::{Decoder, Encoder, Frame};

use super::pods;
use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::session::upgraded;

const PROTOCOL: &str = "portforward.k8s.io";
const ERROR: u32 = 1;
const DATA: u32 = 3;
/// What is read at once.
const READ_BYTES: usize = 64 << 10;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the pod, or KIND/NAME of what owns pods, such as service/web: then its first pod
    #[arg(value_name = "POD")]
    pod: String,
    /// PORT, LOCAL:PORT, or :PORT for any local port that is free
    #[arg(required = true, value_name = "PORT")]
    ports: Vec<String>,
    /// Addresses of this machine to listen at
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    address: Vec<String>,
    /// In this namespace [default: the one of the kubeconfig]
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// The two ends of `LOCAL:PORT`; what is no number is a name, of a port of the pod or the Service.
fn ends(text: &str) -> Result<(u16, &str), String> {
    let (local, remote) = match text.split_once(':') {
        None => (text, text),
        Some((local, remote)) => (local, remote),
    };
    let refused = || format!("{text:?} is neither PORT nor LOCAL:PORT");
    let local = match (local, text.contains(':')) {
        ("", true) => 0,
        (local, true) => local.parse().map_err(|_| refused())?,
        // A port with a name is at any port here.
        (local, false) => local.parse().unwrap_or(0),
    };
    match remote {
        "" | "0" => Err(refused()),
        remote => Ok((local, remote)),
    }
}

/// The pod's port that is meant: of a Service, the one that its port leads to.
fn port_of(pod: &Pod, service: Option<&Service>, remote: &str) -> Option<u16> {
    let spec = pod.spec.as_ref();
    let named = |name: &str| {
        let containers = spec.into_iter().flat_map(|spec| &spec.containers);
        let ports = containers.flat_map(|container| container.ports.iter().flatten());
        let mut ports = ports.filter(|port| port.name.as_deref() == Some(name));
        ports
            .next()
            .and_then(|port| u16::try_from(port.container_port).ok())
    };
    let number: Option<i32> = remote.parse().ok();
    let Some(service) = service.and_then(|service| service.spec.as_ref()) else {
        return remote.parse().ok().or_else(|| named(remote));
    };
    let mut ports = service.ports.iter().flatten();
    let port =
        ports.find(|port| number == Some(port.port) || port.name.as_deref() == Some(remote))?;
    match &port.target_port {
        Some(IntOrString::Int(target)) if *target > 0 => u16::try_from(*target).ok(),
        Some(IntOrString::String(name)) => named(name),
        _ => u16::try_from(port.port).ok(),
    }
}

/// # Errors
/// When there is no such pod or port, or nothing can be listened at.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.client.client().await?;
    let namespace = args.namespace.as_deref();
    let namespace = namespace.unwrap_or_else(|| client.default_namespace());
    let cannot = format!("cannot forward ports to {}", args.pod);
    let pod = pods::one(&client, namespace, &args.pod, &cannot).await?;
    let service = match args.pod.split_once('/') {
        Some(("service" | "services" | "svc", name)) => {
            let api: kube::Api<Service> = kube::Api::namespaced(client.clone(), namespace);
            let found = api.get(name).await;
            Some(found.map_err(|error| api_failure(&cannot, &error))?)
        }
        _ => None,
    };
    let name = pod.metadata.name.clone().unwrap_or_default();
    let path: Arc<str> = format!("/api/v1/namespaces/{namespace}/pods/{name}/portforward").into();
    let mut listeners = JoinSet::new();
    for text in &args.ports {
        let wrong = |why: String| Failure::new(&cannot, why, "for example 8080:80").usage();
        let (local, remote) = ends(text).map_err(wrong)?;
        let port = port_of(&pod, service.as_ref(), remote);
        let port = port.ok_or_else(|| wrong(format!("{} has no port {remote}", args.pod)))?;
        for address in &args.address {
            for listener in listen(address, local).await.map_err(|error| {
                let next = "choose another with LOCAL:PORT";
                Failure::new(
                    &cannot,
                    format!("listening at {address}:{local}: {error}"),
                    next,
                )
            })? {
                println!("Forwarding from {} -> {port}", listener.local_addr()?);
                listeners.spawn(serve(listener, client.clone(), path.clone(), port));
            }
        }
    }
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(()),
        Some(ended) = listeners.join_next() => Ok(ended?),
    }
}

/// Listens at an address; at both of this machine's own for `localhost`, as far as there are both.
async fn listen(address: &str, port: u16) -> std::io::Result<Vec<TcpListener>> {
    if address != "localhost" {
        return Ok(vec![TcpListener::bind((address, port)).await?]);
    }
    let first = TcpListener::bind(("127.0.0.1", port)).await?;
    let port = first.local_addr()?.port();
    let second = TcpListener::bind(("::1", port)).await.ok();
    Ok([Some(first), second].into_iter().flatten().collect())
}

async fn serve(listener: TcpListener, client: kube::Client, path: Arc<str>, port: u16) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, from)) = accepted else { continue };
                println!("Handling connection for {}", port_at(&listener));
                let (client, path) = (client.clone(), path.clone());
                connections.spawn(async move {
                    if let Err(error) = forward(stream, &client, &path, port).await {
                        tracing::debug!(%from, "a connection ended early");
                        eprintln!("error: an error occurred forwarding {port}: {error:#}");
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

fn port_at(listener: &TcpListener) -> u16 {
    listener.local_addr().as_ref().map_or(0, SocketAddr::port)
}

/// One connection, from its beginning to its end.
async fn forward(
    mut here: TcpStream,
    client: &kube::Client,
    path: &str,
    port: u16,
) -> anyhow::Result<()> {
    here.set_nodelay(true)?;
    let request = Request::post(path)
        .header(header::UPGRADE, "SPDY/3.1")
        .header("X-Stream-Protocol-Version", PROTOCOL);
    let io = upgraded(client, request, "cannot reach the pod").await?;
    let (mut reader, mut writer) = tokio::io::split(io);
    let (mut read_here, mut write_here) = here.split();
    let up = async {
        let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
        for (stream, kind) in [(ERROR, "error"), (DATA, "data")] {
            let headers = [
                ("streamtype", kind.to_owned()),
                ("port", port.to_string()),
                ("requestid", "0".to_owned()),
            ];
            let headers = headers.into_iter();
            let headers = headers
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            let opens = Frame::SynStream {
                stream,
                fin: stream == ERROR,
                unidirectional: false,
                headers,
            };
            encoder.encode(&opens, &mut out);
        }
        loop {
            writer.write_all(&out).await?;
            writer.flush().await?;
            out.clear();
            let mut read = BytesMut::with_capacity(READ_BYTES);
            let count = read_here.read_buf(&mut read).await?;
            let said = Frame::Data {
                stream: DATA,
                fin: count == 0,
                bytes: read.freeze(),
            };
            encoder.encode(&said, &mut out);
            if count == 0 {
                writer.write_all(&out).await?;
                writer.flush().await?;
                return std::future::pending::<std::io::Result<()>>().await;
            }
        }
    };
    let down = async {
        let (mut decoder, mut read) = (Decoder::default(), BytesMut::new());
        let mut why = Vec::new();
        loop {
            let Some(frame) = decoder.decode(&mut read)? else {
                read.reserve(READ_BYTES);
                if reader.read_buf(&mut read).await? == 0 {
                    anyhow::bail!("lost connection to pod");
                }
                continue;
            };
            match frame {
                Frame::Data {
                    stream: DATA,
                    fin,
                    bytes,
                } => {
                    write_here.write_all(&bytes).await?;
                    if fin {
                        write_here.shutdown().await?;
                        return Ok(());
                    }
                }
                Frame::Data {
                    stream: ERROR,
                    fin,
                    bytes,
                } => {
                    why.extend_from_slice(&bytes);
                    if fin && !why.is_empty() {
                        anyhow::bail!("{}", String::from_utf8_lossy(&why).into_owned());
                    }
                }
                Frame::Reset { .. } | Frame::GoAway { .. } => {
                    anyhow::bail!("lost connection to pod")
                }
                _ => {}
            }
        }
    };
    tokio::select! {
        biased;
        down = down => down,
        up = up => Ok(up?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_have_two_ends() {
        for (text, expected) in [
            ("8080", Some((8080, "8080"))),
            ("8080:80", Some((8080, "80"))),
            (":80", Some((0, "80"))),
            ("http", Some((0, "http"))),
            ("8080:http", Some((8080, "http"))),
            ("8080:", None),
            ("x:80", None),
            ("70000:80", None),
            ("0", None),
        ] {
            assert_eq!(ends(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_port_of_a_service_is_the_one_it_leads_to() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "c", "ports": [{"name": "http", "containerPort": 8080}]},
        ]}}))
        .expect("a pod");
        let service: Service = serde_json::from_value(json!({"spec": {"ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 9090}, {"port": 82},
        ]}}))
        .expect("a service");
        for (remote, of_pod, of_service) in [
            ("80", Some(80), Some(8080)),
            ("web", None, Some(8080)),
            ("http", Some(8080), None),
            ("81", Some(81), Some(9090)),
            ("82", Some(82), Some(82)),
            ("83", Some(83), None),
        ] {
            assert_eq!(port_of(&pod, None, remote), of_pod, "{remote}");
            assert_eq!(
                port_of(&pod, Some(&service), remote),
                of_service,
                "{remote}"
            );
        }
    }
}
