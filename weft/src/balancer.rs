//! One local address for all servers of a cluster: each connection is passed on to a server that answers.
//!
//! Clients of Kubernetes know one address. A node, and `weft up` for its user, listen on loopback and pass bytes on to
//! whichever server answers, starting with the one that answered last, so that the death of a server costs its
//! connections and nothing else. TLS runs from end to end: what is passed on cannot be read here.
//!
//! A process that was stopped still has its connections accepted. So what a client says first is kept until the server
//! answers, and said to the next one when it does not; and servers in use are asked every second whether they are ready
//! ([`probe`]). What follows from the answers is decided in [`health`].
//!
//! Invariants: at most [`CONNECTIONS_MAX`] connections; while one server is ready, no connection stays for longer than
//! [`PROBE_EVERY`] and [`ANSWER_TIMEOUT`] at one that is silent. Left to others: which servers there are.

mod health;
mod probe;

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::health::{Health, Seen};
use self::probe::{Probe, Trusted};

/// Connections at once: watches share one, so a node needs a handful, and a user of `weft up` some dozens.
const CONNECTIONS_MAX: usize = 1024;

/// How long a server may take to accept a connection before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a server may take for its first word, and for the answer whether it is ready. Far above the milliseconds that
/// both take, because a machine that compiles is slow, and short beside the eight seconds after which a node is lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a server in use is asked whether it is ready.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Most of what a client may say before the server's first word: the greeting of TLS, which has to fit into one record.
const GREETING_BYTES_MAX: usize = 17 << 10;

/// How long a connection may go unanswered before its machine counts as gone.
const SILENCE_MAX: Duration = Duration::from_secs(6);
const KEEPALIVE_AFTER: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Pause after an accept that failed, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener that passes connections on, until it is stopped or dropped.
pub struct Balancer {
    address: SocketAddr,
    servers: Arc<Servers>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Balancer {
    /// Passes what comes to a free port of this machine on to `servers`, each `HOST:PORT`. Those with a certificate of
    /// what is trusted are asked whether they are ready.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub async fn start(servers: &[String], trusted: Trusted) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Self::serve(listener, servers, trusted)
    }

    /// As [`Balancer::start`], for what comes to `listener`.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn serve(
        listener: TcpListener,
        servers: &[String],
        trusted: Trusted,
    ) -> std::io::Result<Self> {
        Self::probed(listener, servers, probe::readyz(trusted))
    }

    fn probed(listener: TcpListener, addresses: &[String], probe: Probe) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let servers = Arc::new(Servers::default());
        servers.health.lock().set(addresses);
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(accept(
            listener,
            Arc::clone(&servers),
            stop.clone(),
            tasks.clone(),
        ));
        tasks.spawn(look(Arc::clone(&servers), probe, stop.clone()));
        Ok(Self {
            address,
            servers,
            stop,
            tasks,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes these servers for the connections that come from now on. An empty list is not believed.
    pub fn set(&self, servers: &[String]) {
        if !servers.is_empty() {
            self.servers.health.lock().set(servers);
        }
    }

    /// Ends the connections, and returns once nothing of it runs any more: they are told to end, and do so at once.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What the connections and those who look after the servers share.
#[derive(Default)]
struct Servers {
    health: parking_lot::Mutex<Health>,
    open: parking_lot::Mutex<HashMap<String, Open>>,
    /// A server came into trouble.
    trouble: Notify,
}

/// The connections to one server.
#[derive(Default)]
struct Open {
    count: usize,
    end: CancellationToken,
}

/// A connection to a server, counted for as long as this lives.
struct Counted<'a> {
    servers: &'a Servers,
    server: &'a str,
    /// Cancelled when it should end.
    end: CancellationToken,
}

impl Servers {
    fn count<'a>(&'a self, server: &'a str) -> Counted<'a> {
        let mut open = self.open.lock();
        let of_server = open.entry(server.to_owned()).or_default();
        of_server.count += 1;
        Counted {
            servers: self,
            server,
            end: of_server.end.clone(),
        }
    }

    fn due(&self) -> Vec<String> {
        let open = self.open.lock();
        self.health.lock().due(|server| open.contains_key(server))
    }

    fn saw(&self, server: &str, seen: Seen) {
        let (trouble, lost) = self.health.lock().saw(server, seen);
        if trouble {
            tracing::info!(server, ?seen, "a server is not ready");
            self.trouble.notify_one();
        }
        let mut open = self.open.lock();
        for server in lost {
            if let Some(ended) = open.remove(&server) {
                tracing::warn!(
                    server,
                    connections = ended.count,
                    "a server does not answer; its connections are ended, others take over"
                );
                ended.end.cancel();
            }
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        // One that was told to end is not counted any more, though others may be by now.
        if self.end.is_cancelled() {
            return;
        }
        let mut open = self.servers.open.lock();
        if let Some(of_server) = open.get_mut(self.server) {
            of_server.count -= 1;
            if of_server.count == 0 {
                open.remove(self.server);
            }
        }
    }
}

/// Asks the servers that are due, each at most once at a time, until `stop`.
async fn look(servers: Arc<Servers>, probe: Probe, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = FuturesUnordered::new();
    let mut under_way = BTreeSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some((server, seen)) = asked.next() => {
                let server: String = server;
                under_way.remove(&server);
                servers.saw(&server, seen);
                continue;
            }
            () = servers.trouble.notified() => {}
            _ = ticks.tick() => {}
        }
        for server in servers.due() {
            if under_way.insert(server.clone()) {
                let answer = tokio::time::timeout(ANSWER_TIMEOUT, probe(server.clone()));
                asked.push(async move { (server, answer.await.unwrap_or(Seen::Silent)) });
            }
        }
    }
}

async fn accept(
    listener: TcpListener,
    servers: Arc<Servers>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let client = match accepted {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%error, "a connection to the servers was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(
                CONNECTIONS_MAX,
                "too many connections to the servers; one was closed"
            );
            continue;
        };
        let (servers, stop) = (Arc::clone(&servers), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = pass_on(client, &servers) => {}
            }
            drop(place);
        });
    }
}

async fn pass_on(mut client: TcpStream, servers: &Servers) {
    // Small requests must not wait for the acknowledgement of the one before.
    let _ = client.set_nodelay(true);
    let mut greeting = Vec::new();
    let order = servers.health.lock().order();
    for server in order {
        let mut upstream =
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&server)).await {
                Ok(Ok(upstream)) => upstream,
                Ok(Err(error)) => {
                    tracing::debug!(server, %error, "a server does not take connections");
                    servers.saw(&server, Seen::Gone);
                    continue;
                }
                Err(_) => {
                    tracing::debug!(server, "a server does not take connections in time");
                    servers.saw(&server, Seen::Silent);
                    continue;
                }
            };
        let _ = upstream.set_nodelay(true);
        if let Err(error) = expect_answers(&upstream) {
            tracing::debug!(server, %error, "a server that vanishes will be noticed late");
        }
        match greet(&mut client, &mut upstream, &mut greeting).await {
            Greeted::Answered => {}
            Greeted::ClientLeft => return,
            Greeted::Refused(seen) => {
                tracing::debug!(server, ?seen, "a server does not answer");
                servers.saw(&server, seen);
                continue;
            }
        }
        servers.health.lock().took(&server);
        let counted = servers.count(&server);
        tokio::select! {
            biased;
            () = counted.end.cancelled() => {}
            // An end with an error is an end: the client sees its connection close and opens another one.
            _ = copy_bidirectional(&mut client, &mut upstream) => {}
        }
        return;
    }
    tracing::warn!("no server answers");
}

/// How the first exchange on a connection went.
enum Greeted {
    Answered,
    ClientLeft,
    Refused(Seen),
}

/// Passes the client's greeting on, after what it said of it to another server, until the server's first byte is there.
async fn greet(
    client: &mut TcpStream,
    upstream: &mut TcpStream,
    greeting: &mut Vec<u8>,
) -> Greeted {
    let mut said = 0;
    let mut deadline = None;
    loop {
        if said < greeting.len() {
            if upstream.write_all(&greeting[said..]).await.is_err() {
                return Greeted::Refused(Seen::Gone);
            }
            said = greeting.len();
            deadline.get_or_insert_with(|| Instant::now() + ANSWER_TIMEOUT);
        }
        let (mut first, mut more) = ([0], [0; 4096]);
        tokio::select! {
            biased;
            answer = upstream.peek(&mut first) => {
                return match answer {
                    Ok(1) => Greeted::Answered,
                    // It ended, or has too many connections.
                    _ => Greeted::Refused(Seen::Gone),
                };
            }
            read = client.read(&mut more), if greeting.len() < GREETING_BYTES_MAX => match read {
                Ok(0) | Err(_) => return Greeted::ClientLeft,
                Ok(bytes) => greeting.extend_from_slice(&more[..bytes]),
            },
            () = passed(deadline) => return Greeted::Refused(Seen::Silent),
        }
    }
}

/// Never comes while nothing was said that wants an answer.
async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Lets the kernel end a connection to a machine that is silent.
fn expect_answers(stream: &TcpStream) -> std::io::Result<()> {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(SILENCE_MAX))
}

/// `HOST:PORT` of an `https://` address, with HTTPS' port where it names none.
pub fn host_and_port(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    let host = uri.host().filter(|host| !host.is_empty())?;
    Some(format!("{host}:{}", uri.port_u16().unwrap_or(443)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_from_a_url() {
        for (url, address) in [
            ("https://10.0.0.1:6443", Some("10.0.0.1:6443")),
            ("https://[::1]:6443/", Some("[::1]:6443")),
            ("https://weft.example", Some("weft.example:443")),
            ("nonsense url", None),
        ] {
            assert_eq!(host_and_port(url).as_deref(), address, "{url}");
        }
    }

    /// A server that answers each byte with its name.
    async fn server(name: u8) -> (String, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    while stream.read_u8().await.is_ok() {
                        let _ = stream.write_u8(name).await;
                    }
                });
            }
        });
        (address, task)
    }

    /// One whose connections the kernel accepts, and nobody else.
    async fn stopped() -> (String, TcpListener) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        (listener.local_addr().unwrap().to_string(), listener)
    }

    async fn balancer(servers: &[String], probe: Probe) -> Balancer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Balancer::probed(listener, servers, probe).unwrap()
    }

    async fn ask(balancer: &Balancer) -> (TcpStream, u8) {
        let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
        stream.write_u8(b'?').await.unwrap();
        let name = stream.read_u8().await.unwrap();
        (stream, name)
    }

    fn all_ready() -> Probe {
        Arc::new(|_| Box::pin(std::future::ready(Seen::Ready)))
    }

    #[tokio::test]
    async fn a_dead_server_is_passed_over_and_a_new_one_taken() {
        let (one, first) = server(b'1').await;
        let (two, _second) = server(b'2').await;
        let balancer = balancer(&[one, two], all_ready()).await;
        assert_eq!(ask(&balancer).await.1, b'1');
        first.abort();
        let _ = first.await;
        assert_eq!(ask(&balancer).await.1, b'2');
        let (three, _third) = server(b'3').await;
        balancer.set(&[three]);
        assert_eq!(ask(&balancer).await.1, b'3');
        balancer.set(&[]);
        assert_eq!(ask(&balancer).await.1, b'3', "an empty list is no list");
    }

    #[tokio::test]
    async fn nothing_of_a_stopped_balancer_is_left() {
        let (one, _first) = server(b'1').await;
        let balancer = balancer(&[one], all_ready()).await;
        let address = balancer.address();
        let tasks = balancer.tasks.clone();
        let (mut stream, _) = ask(&balancer).await;
        assert_eq!(tasks.len(), 3, "two of its own and the connection");
        balancer.stop().await;
        assert_eq!(tasks.len(), 0);
        assert!(stream.read_u8().await.is_err());
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn what_a_stopped_server_was_told_first_is_told_to_the_next() {
        let (one, _accepting) = stopped().await;
        let (two, _second) = server(b'2').await;
        let balancer = balancer(&[one.clone(), two], all_ready()).await;
        assert_eq!(ask(&balancer).await.1, b'2');
        assert_eq!(balancer.servers.health.lock().order().last(), Some(&one));
    }

    #[tokio::test]
    async fn connections_to_a_server_that_falls_silent_end() {
        let (one, _first) = server(b'1').await;
        let (two, _second) = server(b'2').await;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let silent = one.clone();
        let probe: Probe = Arc::new(move |asked| {
            let silent = asked == silent && *stopped.borrow();
            Box::pin(async move {
                match silent {
                    true => std::future::pending().await,
                    false => Seen::Ready,
                }
            })
        });
        let balancer = balancer(&[one, two], probe).await;
        let (mut stream, name) = ask(&balancer).await;
        assert_eq!(name, b'1');
        stop.send_replace(true);
        // It ends by itself, though nothing was said on it.
        assert!(stream.read_u8().await.is_err());
        let (mut stream, name) = ask(&balancer).await;
        assert_eq!(name, b'2');
        stop.send_replace(false);
        // The one that took over keeps its connections when the other one is back.
        for _ in 0..3 {
            tokio::time::sleep(PROBE_EVERY).await;
            stream.write_u8(b'?').await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'2');
        }
        assert_eq!(balancer.servers.open.lock().len(), 1);
    }
}
