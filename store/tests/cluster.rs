//! Three servers that reach each other over HTTP/2 and mutual TLS, through the crate's public face.

mod authority;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weft_store::transport::{Link, serve};
use weft_store::{
    Config, Key, Lane, MemberError, Mutation, Network, Peer, Precondition, ServerId, Start, Store,
    WriteError,
};

use authority::Authority;

struct Server {
    store: Store,
    stop: CancellationToken,
    dir: tempfile::TempDir,
    address: SocketAddr,
}

struct Cluster {
    authority: Authority,
    servers: BTreeMap<ServerId, Server>,
}

impl Cluster {
    async fn start(servers: u64) -> Cluster {
        let mut cluster = Cluster {
            authority: Authority::new(),
            servers: BTreeMap::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        cluster.open(1, listener, Start::Alone, None).await;
        for _ in 1..servers {
            let added = cluster.join().await;
            cluster.any().promote(added).await.expect("promoted");
        }
        cluster
    }

    async fn open(
        &mut self,
        server: ServerId,
        listener: TcpListener,
        start: Start,
        dir: Option<tempfile::TempDir>,
    ) {
        let dir = dir.unwrap_or_else(|| tempfile::tempdir().expect("tempdir"));
        let tls = self.authority.tls(server);
        let address = listener.local_addr().expect("bound");
        let config = Config {
            server_id: server,
            address: address.to_string(),
            start,
            ..Config::new(dir.path())
        };
        let link = Arc::new(Link::new(&tls));
        let store = Store::open_with(config, link).await.expect("opens");
        let stop = CancellationToken::new();
        tokio::spawn({
            let (store, stop) = (store.clone(), stop.clone());
            async move { serve(listener, &tls, store, stop).await }
        });
        let server_handle = Server {
            store,
            stop,
            dir,
            address,
        };
        self.servers.insert(server, server_handle);
    }

    async fn join(&mut self) -> ServerId {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let address = listener.local_addr().expect("bound").to_string();
        let server = self.any().add_learner(address).await.expect("added");
        self.open(server, listener, Start::Joining, None).await;
        server
    }

    /// Takes a server away as if its process had been killed.
    async fn kill(&mut self, server: ServerId) -> (tempfile::TempDir, SocketAddr) {
        let gone = self.servers.remove(&server).expect("runs");
        gone.stop.cancel();
        gone.store.shutdown().await;
        (gone.dir, gone.address)
    }

    fn any(&self) -> Store {
        let last = self.servers.values().next_back().expect("one runs");
        last.store.clone()
    }

    fn leader(&self) -> Option<ServerId> {
        let leads = |store: &Store| store.leadership().borrow().is_some();
        let mut servers = self.servers.iter();
        servers
            .find(|(_, server)| leads(&server.store))
            .map(|(id, _)| *id)
    }

    async fn wait_leader(&self) -> ServerId {
        loop {
            if let Some(leader) = self.leader() {
                return leader;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) {
        for server in self.servers.into_values() {
            server.stop.cancel();
            server.store.shutdown().await;
        }
    }
}

fn put(key: &str, value: &str) -> Vec<Mutation> {
    vec![Mutation::put(key, Precondition::None, value.to_owned())]
}

fn roles(store: &Store) -> String {
    let members = store.members();
    let texts = members.iter().map(|member| {
        let role = if member.voter { "votes" } else { "learns" };
        format!("{} {role}", member.server)
    });
    texts.collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_server_answers_any_request() {
    let cluster = Cluster::start(3).await;
    let stores: Vec<_> = cluster
        .servers
        .values()
        .map(|server| server.store.clone())
        .collect();
    let mut last = 0;
    for (turn, store) in stores.iter().cycle().take(30).enumerate() {
        let revision = store
            .write(put("/k", &turn.to_string()), None)
            .await
            .expect("written");
        assert!(revision > last, "revisions go up whoever is asked");
        last = revision;
        // Who was answered reads it there without asking anyone.
        assert!(store.snapshot().revision() >= revision);
        for other in &stores {
            let snapshot = other.read().await.expect("read");
            let entry = snapshot.get(&Key::from("/k")).expect("there");
            assert_eq!(entry.value(), turn.to_string(), "a read misses a write");
        }
    }
    for store in &stores {
        let conflict = store
            .write(vec![Mutation::put("/k", Precondition::Absent, "x")], None)
            .await;
        let expected = WriteError::Conflict {
            key: Key::from("/k"),
            found: Some(last),
        };
        assert_eq!(conflict, Err(expected));
        let mut watch = store.watch("/k", 0).expect("kept");
        for revision in 1..=last {
            let event = watch.next().await.expect("open").expect("in time");
            assert_eq!(event.revision, revision);
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_ends_with_the_leadership() {
    let cluster = Cluster::start(3).await;
    let old = cluster.wait_leader().await;
    let store = cluster.servers[&old].store.clone();
    let term = store.leadership().borrow().expect("leads");
    store
        .write(put("/a", "1"), Some(term))
        .await
        .expect("leads");
    let started = Instant::now();
    let new = store.transfer(None).await.expect("transferred");
    assert_ne!(new, old);
    println!("transferred in {:?}", started.elapsed());
    let refused = store.write(put("/a", "2"), Some(term)).await;
    assert_eq!(refused, Err(WriteError::NotLeader { leader: Some(new) }));
    store.write(put("/a", "3"), None).await.expect("passed on");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_succeeded_and_a_lost_disk_replaced() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.wait_leader().await;
    cluster
        .any()
        .write(put("/a", "1"), None)
        .await
        .expect("written");

    let (dir, address) = cluster.kill(first).await;
    let started = Instant::now();
    let survivor = cluster.any();
    survivor
        .write(put("/a", "2"), None)
        .await
        .expect("two of three go on");
    println!("writes accepted again after {:?}", started.elapsed());

    // It comes back with its disk and has everything.
    let listener = TcpListener::bind(address).await.expect("same port");
    cluster
        .open(first, listener, Start::Joining, Some(dir))
        .await;
    let back = cluster.servers[&first].store.clone();
    let snapshot = back.read().await.expect("caught up");
    assert_eq!(snapshot.get(&Key::from("/a")).expect("there").value(), "2");

    // Another loses its disk: a new number takes its place.
    let lost = cluster.wait_leader().await;
    let _ = cluster.kill(lost).await;
    let new = cluster.join().await;
    assert_eq!(new, 4, "numbers are given out once");
    cluster.any().replace(lost, new).await.expect("replaced");
    let mut expected: Vec<u64> = (1..=4).filter(|server| *server != lost).collect();
    expected.sort_unstable();
    let store = cluster.servers[&new].store.clone();
    store.read().await.expect("serves");
    let text: Vec<_> = expected
        .iter()
        .map(|server| format!("{server} votes"))
        .collect();
    assert_eq!(roles(&store), text.join(", "));
    assert_eq!(
        store
            .snapshot()
            .get(&Key::from("/a"))
            .expect("there")
            .value(),
        "2"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_cannot_work_are_refused_in_a_sentence() {
    let mut cluster = Cluster::start(1).await;
    let store = cluster.any();
    let refused = |error: MemberError| error.to_string();
    let only = store.remove(1).await.map_err(refused);
    assert_eq!(
        only,
        Err("it is the only server that votes, and without it there is no cluster; join another one first, or stop it".to_owned())
    );
    let nobody = store.promote(7).await.map_err(refused);
    assert_eq!(nobody, Err("there is no server 7; add it first".to_owned()));
    let learner = cluster.join().await;
    let address = cluster.servers[&learner].address.to_string();
    let twice = store.add_learner(address.clone()).await.map_err(refused);
    assert_eq!(
        twice,
        Err(format!("server 2 has the address {address} already"))
    );
    store.remove(learner).await.expect("a learner may go");
    assert_eq!(roles(&store), "1 votes");
    let again = store.add_learner("127.0.0.1:1").await.expect("added");
    assert_eq!(again, 3, "the number of a removed server never returns");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_with_another_servers_name_is_refused() {
    let cluster = Cluster::start(1).await;
    let peer = |server| Peer {
        server,
        address: cluster.servers[&1].address.to_string(),
    };
    // Dialled as 2, where 1 listens: its certificate says so, and nothing is sent.
    let link = Link::new(&cluster.authority.tls(3));
    let refused = link.call(peer(2), Lane::Control, "".into()).await;
    assert!(
        refused
            .expect_err("refused")
            .to_string()
            .contains("certificate"),
        "the handshake fails"
    );
    // A certificate of another authority.
    let stranger = Link::new(&Authority::new().tls(3));
    assert!(
        stranger
            .call(peer(1), Lane::Control, "".into())
            .await
            .is_err()
    );
    // A message that makes no sense is answered, not believed.
    let answer = link.call(peer(1), Lane::Control, "nonsense".into()).await;
    let answer = answer.expect("answered");
    assert!(
        answer
            .windows(10)
            .any(|window| window == b"unreadable".as_slice())
    );
    cluster.stop().await;
}
