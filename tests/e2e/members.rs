//! Servers that leave the cluster: which may go, and what becomes of those that went.

use weft_tests::cluster::{eventually, success};
use weft_tests::servers::{Member, ServerProcess};

/// Exit code of a server that was removed.
const REMOVED: i32 = 3;

struct Three {
    servers: Vec<ServerProcess>,
    dir: tempfile::TempDir,
}

impl Three {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let one = ServerProcess::start(&path("one"), &[]).unwrap();
        let two = one.join(&path("two"), &[]).unwrap();
        let three = one.join(&path("three"), &[]).unwrap();
        Self {
            servers: vec![one, two, three],
            dir,
        }
    }

    fn leader(&self, asked: &ServerProcess) -> u64 {
        eventually("one leads", || {
            let members = asked.members()?;
            Ok(members.into_iter().find(|member| member.leader))
        })
        .unwrap()
        .id
    }

    fn take(&mut self, id: u64) -> ServerProcess {
        let at = self.servers.iter().position(|server| server.id() == id);
        self.servers.remove(at.unwrap())
    }

    fn write(&self, through: &ServerProcess, name: &str) {
        let manifest = self.dir.path().join("map.yaml");
        let map = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\n"
        );
        std::fs::write(&manifest, map).unwrap();
        let manifest = manifest.display().to_string();
        success(through.weft(&["apply", "-f", &manifest]).unwrap()).unwrap();
    }
}

fn voters(members: Vec<Member>) -> Vec<u64> {
    let voters = members.into_iter().filter(|member| member.voter);
    voters.map(|member| member.id).collect()
}

fn remove(asked: &ServerProcess, id: u64) -> anyhow::Result<String> {
    success(asked.weft(&["server", "remove", &id.to_string()])?)
}

/// It says in three lines what happened, and does not start again.
fn ends_for_ever(mut server: ServerProcess, id: u64) {
    let dir = server.dir.clone();
    assert_eq!(server.ended().unwrap(), Some(REMOVED));
    let told = format!("error: server {id} was removed from its cluster");
    let log = server.log();
    assert!(log.contains(&told), "{log}");
    assert!(log.contains("start a server in an empty folder"), "{log}");
    drop(server);
    let mut again = ServerProcess::spawn(&dir, &[]).unwrap();
    assert_eq!(again.ended().unwrap(), Some(REMOVED));
    assert_eq!(again.log().matches(&told).count(), 2, "{}", again.log());
}

#[test]
fn a_server_that_was_removed_says_so_and_ends_for_ever() {
    let mut three = Three::start();
    let leader = three.leader(&three.servers[0]);
    let gone = three.take(leader);
    // Asked itself: it hands over before it goes.
    let said = remove(&gone, leader).unwrap();
    assert!(
        said.starts_with(&format!("server {leader} is removed")),
        "{said}"
    );
    ends_for_ever(gone, leader);
    let (a, b) = (&three.servers[0], &three.servers[1]);
    assert_eq!(voters(a.members().unwrap()), [a.id(), b.id()]);
    three.write(b, "after-the-leader");

    // One that may vote no more, without having been told: it was stopped while it happened.
    let leader = three.leader(&three.servers[0]);
    let follower = three.servers.iter().find(|server| server.id() != leader);
    let follower = follower.unwrap().id();
    let five = three.servers[0].join(&three.dir.path().join("five"), &[]);
    three.servers.push(five.unwrap());
    let gone = three.take(follower);
    gone.signal("-STOP").unwrap();
    remove(&three.servers[0], follower).unwrap();
    gone.signal("-CONT").unwrap();
    ends_for_ever(gone, follower);
    three.write(&three.servers[0], "after-the-follower");
}

#[test]
fn a_cluster_keeps_a_majority_and_its_last_server() {
    let mut three = Three::start();
    let leader = three.leader(&three.servers[0]);
    // Down, and still a voter: of the two that would be left without another one, one answers.
    let down = three.servers.iter().find(|server| server.id() != leader);
    let down = down.unwrap().id();
    let mut down = three.take(down);
    down.kill().unwrap();
    let other = three.servers.iter().find(|server| server.id() != leader);
    let other = other.unwrap().id();
    for id in [other, leader] {
        let refused = remove(&three.servers[0], id).unwrap_err().to_string();
        let why = "1 of the 2 voters that would remain answers, which is no majority";
        assert!(refused.contains(why), "{refused}");
        assert!(refused.contains("remove that one instead"), "{refused}");
    }
    remove(&three.servers[0], down.id()).unwrap();
    // It was down when that happened, and hears of it when it comes back.
    let (dir, gone) = (down.dir.clone(), down.id());
    drop(down);
    let back = ServerProcess::spawn(&dir, &[]).unwrap();
    ends_for_ever(back, gone);

    // Of two the leader may go; the last one may not.
    let gone = three.take(leader);
    remove(&gone, leader).unwrap();
    ends_for_ever(gone, leader);
    let last = &three.servers[0];
    let refused = remove(last, last.id()).unwrap_err().to_string();
    assert!(refused.contains("the only server that votes"), "{refused}");
    assert!(refused.contains("join another one first"), "{refused}");
    three.write(last, "alone");
    // And it grows again, under new numbers.
    let four = last.join(&three.dir.path().join("four"), &[]).unwrap();
    assert_eq!(four.id(), 4);
    three.write(&four, "two-again");
}
