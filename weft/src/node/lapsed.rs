//! A node that was away for longer than its certificate was good, at a real API server: it gets back in by its key for a while, by that one thing
//! alone, and is told why where it does not.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weft_agent::identity::{IdentityError, NodeIdentity, Server};
use weft_agent::trust::Trust;
use weft_apiserver::ca::Authority;
use weft_apiserver::server;
use weft_store::Store;

struct Cluster {
    dir: TempDir,
    url: String,
    admin: Client,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(weft_store::Config::new(dir.path().join("store"))).await;
        let store = store.expect("a store");
        let mut leadership = store.leadership();
        leadership
            .wait_for(Option::is_some)
            .await
            .expect("a leader");
        let authority = Authority::open_or_create(&dir.path().join("pki"), "cluster.local");
        let authority = authority.expect("an authority");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("its address"));
        let kubeconfig = dir.path().join("kubeconfig");
        std::fs::write(&kubeconfig, authority.kubeconfig(&url, &[])).expect("written");
        let server = server::Server::new(server::Config {
            listener,
            store,
            authority,
            cluster_id: "test".to_owned(),
            server_id: 1,
            peer_address: None,
            scratch_dir: dir.path().to_owned(),
            names: vec!["127.0.0.1".to_owned()],
            registry_dir: dir.path().join("registry"),
            tokens: Vec::new(),
            key_file: dir.path().join("none"),
            keys: None,
            url: url.clone(),
            authentication: None,
            audit: None,
        });
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.expect("a server").run(stop.clone()));
        let admin = crate::kubeconfig::ClientArgs {
            kubeconfig: Some(kubeconfig),
        };
        Self {
            admin: admin.client().await.expect("a client"),
            dir,
            url,
            stop,
            serving,
        }
    }

    /// A certificate of node `name` and its key, in PEM.
    fn certificate(&self, name: &str, ended: Timestamp) -> (String, String) {
        let pki = self.dir.path().join("pki");
        let read = |name: &str| std::fs::read_to_string(pki.join(name)).expect("a file");
        let key = KeyPair::from_pem(&read("ca.key")).expect("a key");
        let issuer = Issuer::from_ca_cert_pem(&read("ca.crt"), key).expect("an issuer");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in [
            (DnType::OrganizationName, "system:nodes".to_owned()),
            (DnType::CommonName, format!("system:node:{name}")),
        ] {
            params.distinguished_name.push(kind, value);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        let since = Duration::from_secs(ended.as_second().try_into().expect("after the epoch"));
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since;
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &issuer).expect("signed");
        (signed.pem(), key.serialize_pem())
    }

    /// What becomes of a node that starts with this certificate.
    async fn starts(
        &self,
        name: &str,
        (certificate, key): &(String, String),
        token: Option<&str>,
    ) -> Result<(NodeIdentity, Client), IdentityError> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("node-client.pem");
        std::fs::write(file, format!("{certificate}\n{key}")).expect("written");
        let authority = self.dir.path().join("pki/ca.crt");
        let authority = weft_agent::identity::read_authority(&authority).expect("an authority");
        let server = Server::new(&self.url, Trust::taken_up(folder.path(), authority))?;
        let (identity, link) = NodeIdentity::obtain(server, name, folder.path(), token).await?;
        Ok((identity, link.client()))
    }

    /// A client that shows a certificate as it is.
    fn shows(&self, certificate: &(String, String)) -> Client {
        let path = self.dir.path().join("shown");
        let at = |name: &str, text: &str| {
            let file = path.with_extension(name);
            std::fs::write(&file, text).expect("written");
            file.display().to_string()
        };
        let mut config = kube::Config::new(self.url.parse().expect("a URL"));
        let auth = json!({
            "client-certificate": at("crt", &certificate.0),
            "client-key": at("key", &certificate.1),
        });
        config.auth_info = serde_json::from_value(auth).expect("credentials");
        config.root_cert = Some(roots(&self.dir.path().join("pki/ca.crt")));
        config.tls_server_name = Some("kubernetes.default.svc".to_owned());
        Client::try_from(config).expect("a client")
    }
}

fn roots(file: &Path) -> Vec<Vec<u8>> {
    let read = weft_agent::identity::read_authority(file).expect("an authority");
    read.iter().map(|one| one.to_vec()).collect()
}

fn told(result: Result<(NodeIdentity, Client), IdentityError>) -> String {
    match result {
        Ok(_) => "it is back".to_owned(),
        Err(error) => weft_agent::identity::Chain(&error).to_string(),
    }
}

fn code<T: std::fmt::Debug>(result: kube::Result<T>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_gets_back_in_by_a_certificate_that_is_over() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cluster = Cluster::start().await;
    let nodes: Api<Node> = Api::all(cluster.admin.clone());
    let ago = |hours| Timestamp::now() - SignedDuration::from_hours(hours);

    let lost = cluster.certificate("node-a", ago(48));
    let away = cluster.starts("node-a", &lost, None).await;
    assert!(matches!(away, Err(IdentityError::Lapsed { .. })));
    let away = told(away);
    assert!(
        away.contains("there is no Node of that name any more"),
        "{away}"
    );

    let node: Node =
        serde_json::from_value(json!({ "metadata": { "name": "node-a" } })).expect("a Node");
    let node = nodes.create(&PostParams::default(), &node).await;
    node.expect("created");
    let another = told(cluster.starts("node-a", &lost, None).await);
    assert!(another.contains("another, made after that"), "{another}");
    // Its token is tried where it has one.
    let token = Some("abcdef.0123456789abcdef");
    let by_token = told(cluster.starts("node-a", &lost, token).await);
    assert!(by_token.contains("Unauthorized"), "{by_token}");
    let long_ago = cluster.certificate("node-a", ago(31 * 24));
    let long_ago = cluster.starts("node-a", &long_ago, None).await;
    assert!(
        matches!(long_ago, Err(IdentityError::Lapsed { .. })),
        "{}",
        told(long_ago)
    );

    // Good while there was that Node, and over since.
    let ended = Timestamp::now() + SignedDuration::from_secs(1);
    let short = cluster.certificate("node-a", ended);
    while Timestamp::now().as_second() <= ended.as_second() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let shown = cluster.shows(&short);
    let requests: Api<CertificateSigningRequest> = Api::all(shown.clone());
    let nodes_seen: Api<Node> = Api::all(shown);
    assert_eq!(code(nodes_seen.list(&ListParams::default()).await), 403);
    assert_eq!(code(nodes_seen.get("node-a").await), 403);
    assert_eq!(code(requests.list(&ListParams::default()).await), 403);
    let (identity, client) = match cluster.starts("node-a", &short, None).await {
        Ok(back) => back,
        Err(error) => panic!("{}", told(Err(error))),
    };
    assert_eq!(
        identity.lapsed().map(|at| at.as_second()),
        Some(ended.as_second())
    );
    let own: Api<Node> = Api::all(client);
    assert!(own.get("node-a").await.is_ok(), "as a node again");

    cluster.stop.cancel();
    cluster.serving.await.expect("no panic");
}
