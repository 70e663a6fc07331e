//! Secrets that are planted wherever a cluster takes one, and looked for in all that it tells: logs, access logs, events, objects, metrics, what `weft
//! mesh` shows, and what lies on its disk. The host outside gets the one that is for it, of the tenant that calls, and whoever calls it does not;
//! one of the two tenants has its components in a process of their own.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use weft_tests::cluster::{Cluster, eventually, success};

use crate::load;

const TOKEN: &str = "planted-token-7f3a91";
const PASSWORD: &str = "planted-password-9c1e44";
const VARIABLE: &str = "planted-variable-51d0b7";
const FILE: &str = "planted-file-88aa02";
const SETTING: &str = "planted-setting-42bcde";
/// Of the other tenant.
const TOKEN_APART: &str = "planted-apart-c05d73";
const PLANTED: [&str; 6] = [TOKEN, PASSWORD, VARIABLE, FILE, SETTING, TOKEN_APART];

/// A host outside that speaks TLS, its authority in PEM, and the heads of the requests that it got.
fn outside() -> (u16, String, Arc<Mutex<Vec<String>>>) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.9".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind(("127.0.0.9", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    std::thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let (config, seen) = (config.clone(), seen.clone());
            std::thread::spawn(move || {
                let Ok(connection) = rustls::ServerConnection::new(config) else {
                    return;
                };
                let mut tls = rustls::StreamOwned::new(connection, tcp);
                let mut head = [0; 4096];
                while let Ok(bytes @ 1..) = tls.read(&mut head) {
                    let text = String::from_utf8_lossy(&head[..bytes]).into_owned();
                    seen.lock().unwrap().push(text);
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nthere";
                    if tls.write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, made.cert.pem(), heads)
}

fn objects(port: u16, roots: &str) -> String {
    let roots: String = roots.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        r#"---
apiVersion: v1
kind: Secret
metadata: {{name: planted}}
stringData: {{token: {TOKEN}, variable: {VARIABLE}, file: {FILE}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: settings}}
stringData: {{setting: {SETTING}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: login}}
type: kubernetes.io/basic-auth
stringData: {{username: me, password: {PASSWORD}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: roots}}
data:
  ca.crt: |
{roots}---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: caller}}
---
apiVersion: weft.dev/v1alpha1
kind: CapabilityGrant
metadata: {{name: planted}}
spec:
  serviceAccountNames: [caller]
  config: [{{secretRef: {{name: settings}}}}]
  outgoingHTTP:
  - hosts: [127.0.0.9]
    scheme: HTTP
    paths: [/proven]
    addresses: [127.0.0.9/32]
    tls: {{originate: true, port: {port}, caCertificates: {{configMapRef: {{name: roots}}}}}}
    credentials: [{{bearer: {{secretRef: {{name: planted, key: token}}}}}}]
  - hosts: [127.0.0.9]
    scheme: HTTP
    paths: [/login]
    addresses: [127.0.0.9/32]
    tls: {{originate: true, port: {port}}}
    credentials: [{{basic: {{secretRef: {{name: login}}}}}}]
  - hosts: [127.0.0.9]
    ports: [9]
    paths: [/nowhere]
    addresses: [127.0.0.9/32]
    credentials: [{{header: {{name: x-key, secretRef: {{name: planted, key: token}}}}}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: probe, labels: {{app: probe}}}}
spec:
  serviceAccountName: caller
  volumes: [{{name: secret, secret: {{secretName: planted}}}}]
  containers:
  - name: main
    image: 'probe:1'
    ports: [{{containerPort: 8080}}]
    env: [{{name: VARIABLE, valueFrom: {{secretKeyRef: {{name: planted, key: variable}}}}}}]
    volumeMounts: [{{name: secret, mountPath: /secret}}]
---
apiVersion: v1
kind: Service
metadata: {{name: probe}}
spec: {{selector: {{app: probe}}, ports: [{{port: 80, targetPort: 8080}}]}}
"#
    )
}

/// The other tenant, with a rule that says the same as the first one's and a Secret of the same name.
fn objects_apart(port: u16, roots: &str) -> String {
    let roots: String = roots.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        r#"---
apiVersion: v1
kind: Namespace
metadata: {{name: apart, labels: {{weft.dev/isolate-process: "true"}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: planted, namespace: apart}}
stringData: {{token: {TOKEN_APART}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: roots, namespace: apart}}
data:
  ca.crt: |
{roots}---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: caller, namespace: apart}}
---
apiVersion: weft.dev/v1alpha1
kind: CapabilityGrant
metadata: {{name: planted, namespace: apart}}
spec:
  serviceAccountNames: [caller]
  outgoingHTTP:
  - hosts: [127.0.0.9]
    scheme: HTTP
    paths: [/proven]
    addresses: [127.0.0.9/32]
    tls: {{originate: true, port: {port}, caCertificates: {{configMapRef: {{name: roots}}}}}}
    credentials: [{{bearer: {{secretRef: {{name: planted, key: token}}}}}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: probe, namespace: apart, labels: {{app: probe}}}}
spec:
  serviceAccountName: caller
  containers: [{{name: main, image: 'probe:1', ports: [{{containerPort: 8080}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: probe, namespace: apart}}
spec: {{selector: {{app: probe}}, ports: [{{port: 80, targetPort: 8080}}]}}
"#
    )
}

/// Files below a folder that hold one of the texts, but for those that are theirs to hold.
fn found_in(folder: &Path, texts: &[String], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        // Where a pod reads its Secret, for as long as the pod is there.
        if name == "volumes" {
            continue;
        }
        if path.is_dir() {
            found_in(&path, texts, found);
            continue;
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        let holds = |text: &String| {
            let mut windows = bytes.windows(text.len());
            windows.any(|window| window == text.as_bytes())
        };
        if texts.iter().any(holds) {
            found.push(path.display().to_string());
        }
    }
}

#[test]
fn what_is_planted_is_told_nowhere_and_sent_where_it_belongs() {
    let environment = vec![
        ("WEFT_ACCESS_LOG", "json".to_owned()),
        (
            "WEFT_LOG",
            "weft=debug,hyper=debug,h2=debug,rustls=debug,warn".to_owned(),
        ),
    ];
    let cluster = Cluster::start_in(1, environment).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (port, roots, heads) = outside();
    cluster.push("probe", "probe:1").unwrap();
    let path = cluster.data_dir().parent().unwrap().join("planted.yaml");
    let all = objects(port, &roots) + &objects_apart(port, &roots);
    std::fs::write(&path, all).unwrap();
    let weft = |words: &[&str]| success(cluster.weft(words).unwrap()).unwrap();
    weft(&["apply", "-f", &path.display().to_string()]);
    let call_of = |namespace: &str, path: &str| {
        let host = format!("probe.{namespace}.localhost");
        let asked = format!("/call?url=http://127.0.0.9{path}");
        runtime.block_on(load::get(&cluster.gateway, &host, &asked))
    };
    let call = |path: &str| call_of("default", path);
    eventually("the host outside is called", || {
        let (_, body) = call("/proven/a")?;
        Ok(body.contains("there").then_some(()))
    })
    .unwrap();
    let sent = heads.lock().unwrap().join("\n");
    assert!(
        sent.contains(&format!("authorization: Bearer {TOKEN}")),
        "{sent}"
    );
    assert!(!sent.contains(PASSWORD) && !sent.contains(TOKEN_APART));

    // From a process of their own, with what is theirs: the same host, by a rule and a Secret of the same names.
    eventually("the host outside is called by the other tenant", || {
        let (_, body) = call_of("apart", "/proven/apart")?;
        Ok(body.contains("there").then_some(()))
    })
    .unwrap();
    let (_, body) = call("/proven/again").unwrap();
    assert!(body.contains("there"), "{body}");
    let heads_now = heads.lock().unwrap().clone();
    let sent_to = |path: &str| {
        let line = format!("GET {path} ");
        heads_now.iter().rev().find(|head| head.starts_with(&line))
    };
    for (path, own, others) in [
        ("/proven/apart", TOKEN_APART, TOKEN),
        ("/proven/again", TOKEN, TOKEN_APART),
    ] {
        let head = sent_to(path).expect(path);
        let bearer = format!("authorization: Bearer {own}");
        assert!(head.contains(&bearer) && !head.contains(others), "{head}");
    }
    let (_, body) = call_of("apart", "/login/a").unwrap();
    assert!(!body.contains("there"), "another's rule: {body}");

    // What fails is told, without what it would have sent: no certificate that is believed, nobody there, another path, a secret that went.
    let mut told = String::new();
    for path in ["/login/a", "/other", "/proven/../other"] {
        let (_, body) = call(path).unwrap();
        assert!(!body.contains("there"), "{path}: {body}");
        told += &body;
    }
    let asked = "/call?url=https://127.0.0.9:9/nowhere";
    let nowhere = load::get(&cluster.gateway, "probe.default.localhost", asked);
    told += &runtime.block_on(nowhere).unwrap().1;
    weft(&["delete", "secret", "login"]);
    eventually("the secret that went is missed", || {
        let (_, body) = call("/login/b")?;
        let events = success(cluster.weft(&["get", "events", "-o", "json"])?)?;
        Ok(
            (!body.contains("there") && events.contains("Secret login does not exist"))
                .then_some(()),
        )
    })
    .unwrap();

    for words in [
        &["get", "events", "-A", "-o", "json"][..],
        &["get", "pods", "-A", "-o", "json"],
        &["get", "capabilitygrants", "-A", "-o", "yaml"],
        &["get", "nodes", "-o", "json"],
        &["get", "--raw", "/metrics"],
        &["logs", "probe"],
        &["logs", "probe", "-n", "apart"],
        &["mesh", "check", "-o", "json"],
        &["mesh", "stat", "-A", "-o", "json"],
        &["mesh", "edges", "-A", "-o", "json"],
        &["mesh", "config", "node-1", "-o", "json"],
    ] {
        // Some of them answer that all is not well.
        let output = cluster.weft(words).unwrap();
        told += &String::from_utf8_lossy(&output.stdout);
        told += &String::from_utf8_lossy(&output.stderr);
    }
    told += &cluster.logs();
    assert!(told.contains("127.0.0.9"), "{told}");
    // As they are, and as the API and lines of requests write them.
    let encoded = |text: &str| {
        use std::fmt::Write as _;
        let mut out = String::new();
        let bytes: Vec<u8> = text.bytes().collect();
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        // Whole groups alone: what follows the text changes nothing of them.
        for group in bytes.chunks_exact(3) {
            let bits = group
                .iter()
                .fold(0_u32, |bits, byte| (bits << 8) | u32::from(*byte));
            for at in [18, 12, 6, 0] {
                let _ = write!(out, "{}", LETTERS[((bits >> at) & 63) as usize] as char);
            }
        }
        out
    };
    let mut texts: Vec<String> = PLANTED.iter().map(|text| (*text).to_owned()).collect();
    texts.extend(PLANTED.iter().map(|text| encoded(text)));
    for text in &texts {
        if let Some(at) = told.find(text.as_str()) {
            let from = (0..=at.saturating_sub(400))
                .rev()
                .find(|at| told.is_char_boundary(*at));
            panic!("{text} is told: {}", &told[from.unwrap_or(0)..at]);
        }
    }
    let mut found = Vec::new();
    found_in(&cluster.data_dir(), &texts, &mut found);
    assert!(found.is_empty(), "{found:?}");
}
