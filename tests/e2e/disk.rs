//! A server whose disk is full: the real binary on a small file system of its own.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;
use weft_tests::cluster::{eventually, success, weft};
use weft_tests::servers::ServerProcess;

/// The store's reserve of 64 MiB, its files, and some room.
const DISK: &str = "size=160m";

/// How a file system is mounted that only one process sees; `None` where this user may not.
fn unshare() -> Option<Vec<&'static str>> {
    let ways = [vec!["-m"], vec!["-rm"]];
    ways.into_iter().find(|flags| {
        let mut command = Command::new("unshare");
        command
            .args(flags)
            .args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]);
        let tried = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    })
}

#[test]
fn reads_and_deletes_go_on_while_the_disk_is_full_and_writes_when_it_has_room() {
    let Some(flags) = unshare() else {
        println!("this user may not mount a file system; nothing was tried");
        return;
    };
    let outside = tempfile::tempdir().unwrap();
    let dir = outside.path().join("server");
    std::fs::create_dir(&dir).unwrap();
    let mut command = Command::new("unshare");
    let mount = format!("mount -t tmpfs -o {DISK} tmpfs \"$0\" && exec \"$@\"");
    command
        .args(flags)
        .args(["sh", "-c", &mount])
        .arg(&dir)
        .arg(weft());
    let mut server = ServerProcess::launch(command, &dir, &["--api-port", "0"]).unwrap();
    server.wait_ready().unwrap();
    // What it sees, from here.
    let inside = |path: &str| PathBuf::from(format!("/proc/{}/root{path}", server.pid()));
    let disk = inside(&dir.display().to_string());
    let kubeconfig = outside.path().join("kubeconfig");
    std::fs::copy(disk.join("kubeconfig"), &kubeconfig).unwrap();
    server.said["kubeconfig"] = json!(kubeconfig);

    let apply = |name: &str| {
        let manifest = outside.path().join("map.yaml");
        let map = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\n"
        );
        std::fs::write(&manifest, map).unwrap();
        server.weft(&["apply", "-f", &manifest.display().to_string()])
    };
    let get = |name: &str| server.weft(&["get", "configmap", name, "-o", "name"]);
    for name in ["kept", "deleted"] {
        success(apply(name).unwrap()).unwrap();
    }

    // Nothing else may find it full meanwhile, or what the store then gives up would be filled as well.
    server.signal("-STOP").unwrap();
    let filler = disk.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    let full = loop {
        if let Err(error) = file.write_all(&[0; 64 << 10]) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    drop(file);
    server.signal("-CONT").unwrap();
    // The first that finds it full is still taken, from the reserve.
    let mut number = 0;
    let refused = eventually("a write is refused", || {
        number += 1;
        let refused = apply(&format!("refused-{number}"))?;
        Ok((!refused.status.success()).then_some(refused))
    })
    .unwrap();
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.contains("the disk of the store is full"),
        "{refused}"
    );
    assert!(refused.contains("free some space"), "{refused}");
    let refused = format!("refused-{number}");
    assert_eq!(success(get("kept").unwrap()).unwrap(), "configmap/kept\n");
    success(server.weft(&["delete", "configmap", "deleted"]).unwrap()).unwrap();
    assert!(!get("deleted").unwrap().status.success());
    assert!(!get(&refused).unwrap().status.success());

    std::fs::remove_file(&filler).unwrap();
    eventually("writes are taken again", || {
        Ok(apply("after")?.status.success().then_some(()))
    })
    .unwrap();
    assert_eq!(success(get("after").unwrap()).unwrap(), "configmap/after\n");
    assert_eq!(success(get("kept").unwrap()).unwrap(), "configmap/kept\n");
    assert_eq!(server.terminate().unwrap(), Some(0));
}
