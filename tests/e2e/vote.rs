//! The vote app's call to a host outside of the cluster, as its manifest has it: none by itself, one where a setting says where to and
//! its CapabilityGrant has a rule for that, and otherwise a vote that counts all the same. `weft demo` brings the app out and takes it away.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use http::Method;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use weft_tests::cluster::{Cluster, eventually, guest, repository, success};

use crate::load;

const HOST: &str = "vote.localhost";
/// An address of this machine that is no node's.
const OUTSIDE: &str = "127.0.0.9";

/// What came in: the line that a request begins with, and its body.
type Seen = Arc<Mutex<Vec<(String, Value)>>>;

/// A host outside, which takes webhooks over HTTPS. Also its port, and the certificate that its own is verified with, as PEM.
fn outside() -> (u16, String, Seen) {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new([OUTSIDE.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf], key)
        .unwrap();
    let config = Arc::new(config);

    let listener = TcpListener::bind((OUTSIDE, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let sees = seen.clone();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let (Ok(tcp), Ok(tls)) = (tcp, ServerConnection::new(config.clone())) else {
                continue;
            };
            let sees = sees.clone();
            // A connection that breaks has told what it had to tell.
            std::thread::spawn(move || take(StreamOwned::new(tls, tcp), &sees));
        }
    });
    (port, root, seen)
}

/// Takes the requests of one connection, and answers each with 204.
fn take(tls: StreamOwned<ServerConnection, TcpStream>, seen: &Seen) -> std::io::Result<()> {
    let mut tls = BufReader::new(tls);
    loop {
        let mut head = Vec::new();
        let mut line = String::new();
        while tls.read_line(&mut line)? > "\r\n".len() {
            head.push(std::mem::take(&mut line));
        }
        let Some(first) = head.first() else {
            return Ok(());
        };
        let mut fields = head.iter().filter_map(|line| line.split_once(": "));
        let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|(_, value)| value.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        tls.read_exact(&mut body)?;
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        seen.lock().unwrap().push((first.trim().to_owned(), body));
        let tls = tls.get_mut();
        tls.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
        tls.flush()?;
    }
}

/// A vote counts, whatever the host outside does.
fn vote(cluster: &Cluster, runtime: &tokio::runtime::Runtime) {
    let path = "/api/vote?choice=:tada:";
    let sent = load::send(&cluster.gateway, HOST, Method::POST, path);
    let (status, body) = runtime.block_on(sent).unwrap();
    assert_eq!(status, 200, "{body}");
}

#[test]
fn the_vote_app_announces_where_a_setting_says_to_and_a_grant_lets_it() {
    let (port, root, seen) = outside();
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("outside.crt");
    std::fs::write(&ca_file, root).unwrap();
    let ca_file = ca_file.display().to_string();
    let cluster = Cluster::start_with(1, &["--egress-ca-file", &ca_file]).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let apply = |manifest: &str| {
        let path = folder.path().join("applied.yaml");
        std::fs::write(&path, manifest).unwrap();
        success(
            cluster
                .weft(&["apply", "-f", &path.display().to_string()])
                .unwrap(),
        )
        .unwrap();
    };
    let components = guest("web");
    let components = components.parent().unwrap().display().to_string();
    let demo = ["demo", "apply", "vote", "--components", &components];
    let told = cluster.weft(&[&demo[..], &["--load", "3", "-o", "json"]].concat());
    let told: Value = serde_json::from_str(&success(told.unwrap()).unwrap()).unwrap();
    let at = cluster.gateway.rsplit_once(':').unwrap().1;
    assert_eq!(told["page"], format!("http://{HOST}:{at}"));
    let link = told["dashboard"].as_str().unwrap();
    assert!(
        link.ends_with("&to=%2Fdashboard%2Ftraffic%3Fns%3Dvote"),
        "{link}"
    );
    let rate = [
        "get",
        "deploy",
        "bot",
        "-n",
        "vote",
        "-o",
        "jsonpath={.spec.template.spec.containers[0].env[?(@.name==\"RATE\")].value}",
    ];
    assert_eq!(success(cluster.weft(&rate).unwrap()).unwrap().trim(), "3");
    let manifest = repository().join("sample-apps/vote/weft.yaml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    eventually("the page is there, and what it asks", || {
        let board = load::get(&cluster.gateway, HOST, "/api/leaderboard");
        let (status, _) = runtime.block_on(board)?;
        Ok((status == 200).then_some(()))
    })
    .unwrap();
    vote(&cluster, &runtime);

    // A setting alone opens nothing: each vote counts, and the log says what is missing.
    let settings = r#"{announce-to: "", announce-every: "100"}"#;
    let set =
        format!("{{announce-to: \"https://{OUTSIDE}:{port}/vote/secret\", announce-every: \"1\"}}");
    assert!(manifest.contains(settings), "the manifest's settings moved");
    let manifest = manifest.replace(settings, &set);
    apply(&manifest);
    let logs = ["logs", "-n", "vote", "-l", "app=voting", "--tail", "1000"];
    let missing = format!(
        "{OUTSIDE}:{port} is outside the cluster, and no CapabilityGrant lets ServiceAccount vote/voting call it; \
         add to one of its own outgoingHTTP: hosts [{OUTSIDE}], ports [{port}]"
    );
    let says = format!(
        "votes for :tada: are not announced: {OUTSIDE}: the request was denied (HTTP-request-denied)"
    );
    eventually("the log says which rule is missing", || {
        vote(&cluster, &runtime);
        let told = success(cluster.weft(&logs)?)?;
        assert!(!told.contains("secret"), "{told}");
        Ok((told.contains(&missing) && told.contains(&says)).then_some(()))
    })
    .unwrap();
    assert!(seen.lock().unwrap().is_empty(), "nobody was called");

    // With the rule that was missing, and what else it takes for an address that is not public.
    let rule = "    - hosts: [hooks.example.com]\n      scheme: HTTPS\n      ports: [443]\n";
    assert!(manifest.contains(rule), "the manifest's rule moved");
    let named = format!(
        "    - hosts: [{OUTSIDE}]\n      ports: [{port}]\n      addresses: [{OUTSIDE}/32]\n"
    );
    apply(&manifest.replace(rule, &named));
    let (first, body) = eventually("the host outside hears of a vote", || {
        vote(&cluster, &runtime);
        let seen = seen.lock().unwrap();
        let ours = |(_, body): &&(String, Value)| body["shortcode"] == ":tada:";
        Ok(seen.iter().find(ours).cloned())
    })
    .unwrap();
    assert_eq!(first, "POST /vote/secret HTTP/1.1");
    let votes = body["votes"].as_u64().unwrap();
    assert!(votes > 1, "{body}");
    assert_eq!(body["text"], format!(":tada: has {votes} votes"));

    let deleted = success(cluster.weft(&["demo", "delete", "vote"]).unwrap());
    assert_eq!(deleted.unwrap(), "namespace/vote deleted\n");
    let gone = cluster.weft(&["get", "namespace", "vote"]).unwrap();
    assert!(!gone.status.success(), "waited for");
}
