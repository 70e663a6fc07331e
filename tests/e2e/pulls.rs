//! Images of registries elsewhere, as a cluster of users has them: by a file of the node, and by Secrets of a ServiceAccount.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::json;
use sha2::{Digest as _, Sha256};
use weft_tests::cluster::{Cluster, eventually, guest, success};

use crate::pods::{apply, becomes, message, pod};

/// `ann:secret` in base64.
const BASIC: &str = "Basic YW5uOnNlY3JldA==";

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// What a registry has by path: a component, as `oras push NAME component.wasm:application/wasm` pushes it.
fn artefact(name: &str, component: &[u8]) -> HashMap<String, Vec<u8>> {
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind, "artifactType": "application/vnd.unknown.artifact.v1",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(b"{}"), "size": 2, "data": "e30="},
        "layers": [{
            "mediaType": "application/wasm", "digest": digest(component), "size": component.len(),
            "annotations": {"org.opencontainers.image.title": "component.wasm"},
        }],
    });
    HashMap::from([
        (
            format!("/v2/{name}/manifests/1"),
            manifest.to_string().into_bytes(),
        ),
        (
            format!("/v2/{name}/blobs/{}", digest(component)),
            component.to_vec(),
        ),
    ])
}

/// Answers one request; content only to who says who it is.
fn answer(mut stream: TcpStream, content: &HashMap<String, Vec<u8>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).take(64 << 10).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut known = false;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let header = line.split_once(": ");
        known |= header.is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("authorization") && value == BASIC
        });
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let (head, body) = match content.get(path) {
        Some(body) if known => ("200 OK", body.as_slice()),
        Some(_) => (
            "401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\"",
            [].as_slice(),
        ),
        None => ("404 Not Found", [].as_slice()),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    )?;
    stream.write_all(body)
}

#[test]
fn a_pod_runs_an_image_that_its_account_has_the_password_of() {
    let component = std::fs::read(guest("hello")).unwrap();
    let content = artefact("team/hello", &component);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes is no failure of the registry.
            let _ = answer(stream, &content);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registries.yaml");
    std::fs::write(&file, format!("mirrors:\n  \"{host}\":\n")).unwrap();
    let file = file.display().to_string();
    let cluster = Cluster::start_with(1, &["--private-registry", &file]).unwrap();

    let config = json!({"auths": {host.as_str(): {"username": "ann", "password": "secret"}}});
    let objects = [
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: hub, namespace: default}}\ntype: kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: '{config}'\n"
        ),
        "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: puller, namespace: default}\nimagePullSecrets: [{name: hub}]\n".to_owned(),
    ];
    apply(&cluster, &objects.concat()).unwrap();
    let image = format!("{host}/team/hello:1");
    let spec = |account: &str| {
        format!(
            "  serviceAccountName: {account}\n  containers:\n  - {{name: main, image: '{image}'}}\n"
        )
    };
    let pods = [
        pod("with", &spec("puller")),
        pod("without", &spec("default")),
    ];
    apply(&cluster, &pods.concat()).unwrap();
    becomes(
        &cluster,
        "with",
        "Running [main running after nothing ready] Initialized Ready ContainersReady",
    );
    becomes(
        &cluster,
        "without",
        "Pending [main waiting ImagePullBackOff after nothing] Initialized",
    );
    let told = message(&cluster, "without");
    assert!(
        told.contains("does not let anybody without credentials pull"),
        "{told}"
    );

    // The cluster's own registry, as `weft images` shows it.
    cluster.push("hello", "vote/web:1").unwrap();
    let shown = success(cluster.weft(&["images"]).unwrap()).unwrap();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(
        lines.len() == 2 && lines[1].starts_with("vote/web     1     sha256:"),
        "{shown}"
    );
    success(cluster.weft(&["images", "rm", "vote/web:1"]).unwrap()).unwrap();
    eventually("nothing is left", || {
        let output = cluster.weft(&["images"])?;
        Ok(output.stdout.is_empty().then_some(()))
    })
    .unwrap();
}
