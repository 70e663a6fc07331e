//! Two nodes, their certificates of one throw-away authority, and workloads that answer.

use std::net::{SocketAddr, TcpListener};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use weft_api::identity::SpiffeId;
use weft_mesh::{
    Body, BoxError, CallContext, CallerInfo, CancellationToken, EndpointSpec, Failure,
    GatewayConfig, LocalWorkload, Mesh, OpenServices, Outbound, PodAddress, ServicePortSpec,
    ServiceSpec, Table, WorkloadInfo, WorkloadService,
};

pub const DOMAIN: &str = "cluster.local";

pub struct Authority {
    pub issuer: Issuer<'static, KeyPair>,
    pub root: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a root").der().clone();
        Self {
            issuer: Issuer::new(params, key),
            root,
        }
    }

    pub fn issue(&self, uris: &[&str]) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().expect("ASCII")))
            .collect();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS 8");
        (vec![certificate.der().clone()], key)
    }

    pub fn give(&self, mesh: &Mesh, account: &str) {
        let identity = sa(account);
        let (chain, key) = self.issue(&[&identity.to_string()]);
        mesh.identities()
            .set(identity, chain, key)
            .expect("a matching certificate");
        mesh.identities()
            .set_roots(std::slice::from_ref(&self.root))
            .expect("a root");
    }
}

pub fn sa(account: &str) -> SpiffeId {
    SpiffeId::new(DOMAIN, "vote", account)
}

pub fn named(name: &str) -> WorkloadInfo {
    WorkloadInfo {
        name: name.to_owned(),
        namespace: "vote".to_owned(),
        ..WorkloadInfo::default()
    }
}

pub fn pod(last: u8) -> PodAddress {
    PodAddress {
        ip: [10, 42, 0, last].into(),
        port: 8080,
    }
}

pub fn workload<F>(
    account: &str,
    answer: impl Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
) -> LocalWorkload
where
    F: Future<Output = Result<Response<Body>, Failure>> + Send + 'static,
{
    let service: WorkloadService = WorkloadService::new(tower::service_fn(answer));
    LocalWorkload {
        identity: sa(account),
        workload: named(account),
        service,
        in_flight_max: 100,
    }
}

/// Answers with a line about the call.
pub async fn describe(request: Request<Body>) -> Result<Response<Body>, Failure> {
    let context = request
        .extensions()
        .get::<CallContext>()
        .cloned()
        .expect("the context");
    let peer = context.peer.expect("a peer");
    let line = format!(
        "{} {} from {} ({}) by {}, depth {}, attempt {}, weft headers {}",
        request.method(),
        request.uri(),
        peer.spiffe_id,
        peer.workload,
        peer.transport.as_str(),
        context.depth,
        context.attempt,
        request
            .headers()
            .keys()
            .filter(|name| name.as_str().starts_with("x-weft"))
            .count(),
    );
    Ok(Response::new(Body::full(line)))
}

pub fn endpoint(account: &str, last: u8, node: &str, node_address: SocketAddr) -> EndpointSpec {
    EndpointSpec {
        pod: format!("{account}-{last}"),
        ip: pod(last).ip,
        port: 8080,
        node: node.to_owned(),
        node_address: Some(node_address),
        identity: sa(account),
        workload: named(account),
        ready: true,
        serving: true,
        assigned: true,
    }
}

pub fn service(name: &str, endpoints: Vec<EndpointSpec>) -> ServiceSpec {
    ServiceSpec {
        namespace: "vote".to_owned(),
        name: name.to_owned(),
        ports: vec![ServicePortSpec {
            name: None,
            port: 80,
            endpoints,
        }],
        ..ServiceSpec::default()
    }
}

pub struct World {
    pub authority: Authority,
    /// Node `a`, where the caller runs under the account `web`.
    pub a: Mesh,
    pub b: Mesh,
    pub b_address: SocketAddr,
    pub stop: CancellationToken,
}

pub fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

pub fn world() -> World {
    let authority = Authority::new();
    let open = GatewayConfig {
        open_services: OpenServices::ToThisMachine,
        ..GatewayConfig::default()
    };
    let (a, b) = (
        Mesh::builder("a", DOMAIN).gateway(open).build(),
        Mesh::builder("b", DOMAIN).build(),
    );
    authority.give(&a, "web");
    authority.give(&b, "voting");
    let gateway = a.gateway_identity();
    let (chain, key) = authority.issue(&[&gateway.to_string()]);
    a.identities()
        .set(gateway, chain, key)
        .expect("the gateway's certificate");
    let (listener, b_address) = listen();
    let stop = CancellationToken::new();
    let serving = (b.clone(), stop.clone());
    tokio::spawn(async move { serving.0.serve_inbound(listener, serving.1).await });
    World {
        authority,
        a,
        b,
        b_address,
        stop,
    }
}

impl World {
    pub fn publish(&self, generation: u64, services: Vec<ServiceSpec>) {
        let table = Table::builder("a", generation).services(services).build();
        self.a.publish(table);
    }

    /// The way out of the workload that calls.
    pub fn outbound(&self) -> Outbound {
        self.a.outbound(CallerInfo {
            identity: sa("web"),
            workload: named("web"),
        })
    }

    pub async fn call(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        self.outbound().call(request).await
    }

    pub async fn get(&self, uri: &str) -> Result<(StatusCode, String), Failure> {
        let request = Request::get(uri).body(Body::empty()).expect("a request");
        text(self.call(request).await?).await
    }
}

/// The number that a mesh's metrics have under `name`, without labels.
pub fn gauge(mesh: &Mesh, name: &str) -> u64 {
    let mut text = String::new();
    mesh.render_metrics(&mut text);
    let number = text.lines().find_map(|line| line.strip_prefix(name));
    let number = number.unwrap_or_else(|| panic!("{name} in {text}"));
    number.trim().parse().expect("a number")
}

/// The calls that a mesh counted: reporter, service, code, flag, number.
pub fn counted(mesh: &Mesh) -> String {
    let mut text = String::new();
    mesh.render_metrics(&mut text);
    let shown = |line: &str| {
        let label = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\"")).expect("the label");
            rest.split_once('"').expect("its value").0.to_owned()
        };
        let names = [
            "reporter",
            "destination_service_name",
            "response_code",
            "response_flags",
        ];
        let number = line.rsplit(' ').next().expect("a number");
        format!("{} x{number}", names.map(label).join(" "))
    };
    let totals = text
        .lines()
        .filter(|line| line.starts_with("istio_requests_total{"));
    let mut lines: Vec<String> = totals.map(shown).collect();
    lines.sort();
    lines.join("\n")
}

pub async fn text(response: Response<Body>) -> Result<(StatusCode, String), Failure> {
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body");
    let text = String::from_utf8(body.to_bytes().to_vec()).expect("text");
    Ok((status, text))
}

/// Sends the request's body back as it comes, and gRPC's good status after it.
pub async fn echo(request: Request<Body>) -> Result<Response<Body>, Failure> {
    let frames = request.into_body().into_data_stream();
    let frames = futures::StreamExt::map(frames, |data| data.map(Frame::data));
    let trailers = HeaderMap::from_iter([(
        "grpc-status".parse().expect("a name"),
        "0".parse().expect("a value"),
    )]);
    let end = futures::stream::iter([Ok::<_, BoxError>(Frame::trailers(trailers))]);
    let body = StreamBody::new(futures::StreamExt::chain(frames, end));
    Ok(Response::new(Body::new(body)))
}

/// Sends three parts, each of which comes back before the next is sent, and reads the status at the end.
pub async fn converse(
    mut sender: futures::channel::mpsc::Sender<Result<Frame<Bytes>, BoxError>>,
    mut body: Body,
) {
    for number in 0..3u8 {
        let chunk = Bytes::from(vec![number; 100_000]);
        futures::SinkExt::send(&mut sender, Ok(Frame::data(chunk)))
            .await
            .expect("room");
        let mut received = 0;
        while received < 100_000 {
            let frame = body.frame().await.expect("a frame").expect("no error");
            let data = frame.into_data().expect("data");
            assert!(data.iter().all(|byte| *byte == number));
            received += data.len();
        }
    }
    drop(sender);
    let last = body.frame().await.expect("trailers").expect("no error");
    assert_eq!(last.trailers_ref().expect("trailers")["grpc-status"], "0");
    assert!(body.frame().await.is_none());
}
