//! One local address for all servers of a cluster: each connection is passed on to a server that takes it.
//!
//! Clients of Kubernetes know one address. A node, and `weft up` for its user, listen on loopback and pass bytes on to
//! whichever server answers, starting with the one that answered last, so that the death of a server costs its
//! connections and nothing else. TLS runs from end to end: what is passed on cannot be read here.
//!
//! Invariants: at most [`CONNECTIONS_MAX`] connections; a server whose machine vanished is noticed within
//! [`SILENCE_MAX`]. Left to others: which servers there are.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Connections at once: watches share one, so a node needs a handful, and a user of `weft up` some dozens.
const CONNECTIONS_MAX: usize = 1024;

/// How long a server may take to accept a connection before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a connection may go unanswered before its server counts as gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(6);
const KEEPALIVE_AFTER: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Pause after an accept that failed, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener that passes connections on, until it is dropped.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    servers: watch::Sender<Vec<String>>,
    stop: CancellationToken,
}

impl Balancer {
    /// Passes what comes to a free port of this machine on to `servers`, each `HOST:PORT`.
    ///
    /// # Errors
    /// When no port can be listened on.
    pub async fn start(servers: Vec<String>) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Self::serve(listener, servers)
    }

    /// Passes what comes to `listener` on to `servers`.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn serve(listener: TcpListener, servers: Vec<String>) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (servers, known) = watch::channel(servers);
        let stop = CancellationToken::new();
        tokio::spawn(accept(listener, known, stop.clone()));
        Ok(Self {
            address,
            servers,
            stop,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes these servers for the connections that come from now on. An empty list is not believed.
    pub fn set(&self, servers: Vec<String>) {
        if servers.is_empty() {
            return;
        }
        self.servers.send_if_modified(|known| {
            let changed = *known != servers;
            *known = servers;
            changed
        });
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    servers: watch::Receiver<Vec<String>>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let last = Arc::new(parking_lot::Mutex::new(String::new()));
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
        let servers = in_order(&servers.borrow(), &last.lock());
        let (last, stop) = (Arc::clone(&last), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = pass_on(client, servers, &last) => {}
            }
            drop(place);
        });
    }
}

/// The servers in the order in which they are tried: the one that answered last comes first.
fn in_order(servers: &[String], last: &str) -> Vec<String> {
    let start = servers
        .iter()
        .position(|server| server == last)
        .unwrap_or(0);
    let (before, from) = servers.split_at(start);
    [from, before].concat()
}

async fn pass_on(mut client: TcpStream, servers: Vec<String>, last: &parking_lot::Mutex<String>) {
    for server in servers {
        let mut upstream =
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&server)).await {
                Ok(Ok(upstream)) => upstream,
                Ok(Err(error)) => {
                    tracing::debug!(server, %error, "a server does not answer");
                    continue;
                }
                Err(_) => {
                    tracing::debug!(server, "a server does not answer in time");
                    continue;
                }
            };
        last.lock().clone_from(&server);
        for stream in [&client, &upstream] {
            // Small requests must not wait for the acknowledgement of the one before.
            let _ = stream.set_nodelay(true);
        }
        if let Err(error) = expect_answers(&upstream) {
            tracing::debug!(server, %error, "a server that vanishes will be noticed late");
        }
        // An end with an error is an end: the client sees its connection close and opens another one.
        let _ = copy_bidirectional(&mut client, &mut upstream).await;
        return;
    }
    tracing::warn!("no server answers");
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn the_server_that_answered_last_comes_first() {
        let servers = ["a", "b", "c"].map(str::to_owned);
        for (last, order) in [("", "abc"), ("b", "bca"), ("c", "cab"), ("gone", "abc")] {
            assert_eq!(in_order(&servers, last).concat(), order, "{last}");
        }
    }

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

    /// A server that answers each connection with one byte and then waits for its end.
    async fn server(name: u8) -> (String, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(&[name]).await.unwrap();
            }
        });
        (address, task)
    }

    #[tokio::test]
    async fn a_dead_server_is_passed_over_and_a_new_one_taken() {
        let (one, first) = server(b'1').await;
        let (two, _second) = server(b'2').await;
        let balancer = Balancer::start(vec![one, two]).await.unwrap();
        let ask = || async {
            let mut stream = TcpStream::connect(balancer.address()).await.unwrap();
            stream.read_u8().await.unwrap()
        };
        assert_eq!(ask().await, b'1');
        first.abort();
        let _ = first.await;
        assert_eq!(ask().await, b'2');
        let (three, _third) = server(b'3').await;
        balancer.set(vec![three]);
        assert_eq!(ask().await, b'3');
        balancer.set(Vec::new());
        assert_eq!(ask().await, b'3', "an empty list is no list");
    }
}
