//! Secrets at rest, with the real binary: on disk there is ciphertext, and its key can be changed.

use std::path::Path;

use weft_tests::cluster::{Cluster, success};

const SECRET: &str = "apiVersion: v1
kind: Secret
metadata: {name: shop, namespace: default}
stringData: {password: correct-horse-battery-staple}
";
/// As the API shows it.
const DATA: &str = "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ==";

fn on_disk(dir: &Path, text: &str) -> bool {
    std::fs::read_dir(dir).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return on_disk(&path, text);
        }
        // What is removed meanwhile holds nothing.
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    })
}

#[test]
fn secrets_are_ciphertext_on_disk_and_can_be_encrypted_anew() {
    let mut cluster = Cluster::start(1).unwrap();
    let weft = |cluster: &Cluster, line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        success(cluster.weft(&words).unwrap()).unwrap()
    };
    let manifest = cluster.data_dir().parent().unwrap().join("secret.yaml");
    std::fs::write(&manifest, SECRET).unwrap();
    weft(&cluster, &format!("apply -f {}", manifest.display()));
    let shown = weft(&cluster, "get secret shop -o json");
    assert!(shown.contains(DATA), "{shown}");

    let done = weft(&cluster, "server rewrap");
    assert!(done.contains("encrypted anew under data key 2"), "{done}");
    let done = weft(&cluster, "server rewrap --output json");
    assert!(done.contains("\"data_key\":3"), "{done}");
    cluster.kill().unwrap();
    let store = cluster.data_dir().join("store");
    for text in [DATA, "correct-horse"] {
        assert!(!on_disk(&store, text), "{text} is on disk");
    }
    // The search does find what is no secret.
    assert!(on_disk(&store, "kube-node-lease"));
    cluster.restart().unwrap();
    let shown = weft(&cluster, "get secret shop -o json");
    assert!(shown.contains(DATA), "{shown}");

    // Without the key, nothing starts, and the reason is said.
    cluster.kill().unwrap();
    let key = cluster.data_dir().join("pki/encryption.key");
    let kept = key.with_extension("kept");
    std::fs::rename(&key, &kept).unwrap();
    let refused = cluster.restart().unwrap_err().to_string();
    assert!(
        refused.contains("there are encrypted secrets, and no"),
        "{refused}"
    );
    std::fs::rename(&kept, &key).unwrap();
    cluster.restart().unwrap();
}
