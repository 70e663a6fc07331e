//! A server that was stopped (SIGSTOP) still has its connections accepted; nobody may wait for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_tests::cluster::{Cluster, eventually, success};

use crate::servers::{
    AGAIN_MAX, Writing, four_write, leader, process, server_members, signal, written_again,
};

/// Longer than a node's lease of 8 s: a node that did not get through would be lost.
const STOPPED: Duration = Duration::from_secs(12);

#[test]
fn nobody_waits_for_a_server_that_was_stopped() {
    let cluster = Cluster::start_with(1, &["--servers", "3"]).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let writing = Arc::new(Writing::default());
    leader(&cluster);
    let writers = four_write(&cluster, &runtime, &writing);
    let mut stops = Vec::new();
    // Each of them in turn: the one that connections go to, the leader and another one are among them.
    for server in 1..=3 {
        let leads = leader(&cluster).id;
        let pid = process(&cluster, server);
        let what = if server == leads {
            "leader"
        } else {
            "follower"
        };
        let at = Instant::now();
        signal(pid, "-STOP");
        stops.push((what, at));
        while at.elapsed() < STOPPED {
            let nodes = success(cluster.weft(&["get", "nodes"]).unwrap()).unwrap();
            assert!(nodes.contains(" Ready "), "{what} stopped: {nodes}");
            std::thread::sleep(Duration::from_millis(500));
        }
        signal(pid, "-CONT");
        eventually("all three agree again", || {
            let members = server_members(&cluster)?;
            Ok(members.iter().any(|member| member.leader).then_some(()))
        })
        .unwrap();
    }
    writing.goes_on();
    writing.end();
    let mut acknowledged = Vec::new();
    let mut failed = 0;
    for writer in writers {
        let (written, not) = runtime.block_on(writer).unwrap();
        acknowledged.extend(written);
        failed += not;
    }
    println!(
        "{} writes acknowledged, {failed} failed",
        acknowledged.len()
    );
    for (what, at) in stops {
        let within: Vec<_> = acknowledged
            .iter()
            .filter(|write| write.answered < at + STOPPED)
            .collect();
        let again = written_again(within, at);
        println!("{what} stopped: the first write after it was answered after {again:?}");
        let again = again.expect("writes go on while the server is stopped");
        assert!(again < AGAIN_MAX, "{again:?}");
    }
}
