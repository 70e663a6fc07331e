//! The campaign of faults, interrupted: it says what it saw, and leaves nothing behind.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use serde_json::Value;
use weft_tests::clients::target_dir;
use weft_tests::cluster::eventually;

/// What is left of it: processes, network namespaces (which take their firewall's rules along) and the bridge.
fn left(campaign: u32) -> Vec<String> {
    let mut left = Vec::new();
    for (program, arguments) in [("ip", ["netns", "list"]), ("ip", ["-o", "link"])] {
        // Without the program there is no network to leave behind.
        let Ok(output) = Command::new(program).args(arguments).output() else {
            continue;
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let names = [format!("weft-chaos-{campaign}-"), format!("wc{campaign}")];
        let ours = |line: &&str| names.iter().any(|name| line.contains(name));
        left.extend(text.lines().filter(ours).map(str::to_owned));
    }
    left
}

/// The processes that a process has started and not waited for.
fn children(of: u32) -> Vec<u32> {
    let parent = format!("PPid:\t{of}");
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let status = std::fs::read_to_string(process.path().join("status")).ok()?;
            status.lines().any(|line| line == parent).then_some(pid)
        })
        .collect()
}

#[test]
fn a_campaign_that_is_interrupted_says_what_it_saw_and_leaves_nothing() {
    let mut campaign = Command::new(target_dir().join("debug/examples/chaos"))
        .args(["--minutes", "10", "--output", "json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = campaign.id();
    let mut told = String::new();
    let mut stderr = BufReader::new(campaign.stderr.take().unwrap());
    while !told.contains(" cycle 1: ") {
        assert!(stderr.read_line(&mut told).unwrap() > 0, "it ended: {told}");
    }
    let servers = children(id);
    assert_eq!(servers.len(), 3, "{told}");
    let sent = Command::new("kill")
        .args(["-INT", &id.to_string()])
        .status();
    assert!(sent.unwrap().success());
    let mut document = String::new();
    let mut stdout = campaign.stdout.take().unwrap();
    stdout.read_to_string(&mut document).unwrap();
    stderr.read_to_string(&mut told).unwrap();
    let status = campaign.wait().unwrap();
    assert!(status.success(), "{told}");
    assert!(told.contains("not written down"), "{told}");
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["violations"], 0, "{document}");
    assert!(document["cycles"].as_u64().unwrap() >= 1, "{document}");
    assert!(document["operations"].as_u64().unwrap() > 0, "{document}");
    eventually("the servers are gone", || {
        let gone = |pid: &u32| !std::path::Path::new(&format!("/proc/{pid}")).exists();
        Ok(servers.iter().all(gone).then_some(()))
    })
    .unwrap();
    // The kernel takes a namespace apart, and its links with it, a moment after the last process in it has ended.
    eventually("its links are gone", || {
        Ok(left(id).is_empty().then_some(()))
    })
    .unwrap();
}
