//! Opening a connection to a host outside of the cluster, at one of the addresses that were judged and at no other.
//!
//! Addresses are tried in their order, the next a quarter of a second after the one before or as soon as that failed; the first that
//! answers is taken (RFC 8305). Whether the host speaks HTTP/2 is agreed on in TLS; without TLS it is spoken to by HTTP/1.1.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use weft_call::{Failure, FailureKind};

use super::{
    destination::Destination,
    pool::{self, Exclusive, Open, Place, Speaks},
    tls::H2,
};
use crate::{
    Body, connection,
    headers::{HEADER_BYTES_MAX, HEADERS_MAX},
};

/// A host at the other end of the world answers within half a second; a lost packet costs one more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Until the next address is tried beside the one before (RFC 8305 §5).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Two round trips and what the host needs for its signature.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A machine that is gone is noticed by a connection that only waits.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Opens a connection to one of `addresses`, which is not empty; with TLS where there is a configuration.
pub(crate) async fn open(
    place: &Arc<Place>,
    to: &Destination,
    addresses: &[IpAddr],
    tls: Option<Arc<ClientConfig>>,
) -> Result<Open, Failed> {
    let (tcp, address) = connect(addresses, to.port).await?;
    let Some(config) = tls else {
        return speak_http1(place, tcp, address).await;
    };
    let name = to.host.server_name();
    let name = name.ok_or_else(|| Failed::finally(unreachable("its name is none of a server")))?;
    let handshake = TlsConnector::from(config).connect(name, tcp);
    let tls = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
        .await
        .map_err(|_| too_slow(address))?
        .map_err(|error| no_tls(address, &error))?;
    if tls.get_ref().1.alpn_protocol() == Some(H2) {
        speak_http2(place, tls, address).await
    } else {
        speak_http1(place, tls, address).await
    }
}

async fn connect(addresses: &[IpAddr], port: u16) -> Result<(TcpStream, SocketAddr), Failed> {
    let mut left = addresses
        .iter()
        .map(|address| SocketAddr::new(*address, port));
    let mut trying = FuturesUnordered::new();
    let mut last = None;
    loop {
        match left.next() {
            Some(address) => trying.push(connect_one(address)),
            None if trying.is_empty() => break,
            None => {}
        }
        let has_more = left.len() > 0;
        let answered = if has_more {
            tokio::time::timeout(NEXT_ADDRESS_AFTER, trying.next()).await
        } else {
            Ok(trying.next().await)
        };
        match answered {
            Ok(Some(Ok(connected))) => return Ok(connected),
            Ok(Some(Err(error))) => last = Some(error),
            // Nobody is left that is being tried, or the next one's turn has come.
            Ok(None) | Err(_) => {}
        }
    }
    Err(last.unwrap_or_else(|| too_slow(SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port))))
}

async fn connect_one(address: SocketAddr) -> Result<(TcpStream, SocketAddr), Failed> {
    let failed = |error: std::io::Error| {
        Failed::from(unreachable(format!("connecting to {address}: {error}")))
    };
    let tcp = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| too_slow(address))?
        .map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    SockRef::from(&tcp)
        .set_tcp_keepalive(&keepalive)
        .map_err(failed)?;
    Ok((tcp, address))
}

async fn speak_http1<S>(place: &Arc<Place>, stream: S, address: SocketAddr) -> Result<Open, Failed>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, driver) = http1::Builder::new()
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .handshake::<_, Body>(TokioIo::new(stream))
        .await
        .map_err(|error| broken(address, &error))?;
    place.learn(Speaks::Http1);
    tokio::spawn(pool::drive(driver, Arc::downgrade(place)));
    Ok(Open::Exclusive(Exclusive {
        sender,
        address,
        opened: Instant::now(),
    }))
}

async fn speak_http2<S>(place: &Arc<Place>, stream: S, address: SocketAddr) -> Result<Open, Failed>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, driver) = connection::http2()
        .handshake::<_, Body>(TokioIo::new(stream))
        .await
        .map_err(|error| broken(address, &error))?;
    place.learn(Speaks::Http2);
    tokio::spawn(pool::drive(driver, Arc::downgrade(place)));
    Ok(Open::Shared(place.share(sender, address)))
}

/// Why a try came to nothing, and whether the same again would fail the same way: what a host is, and what it says, does not change within
/// a second.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) is_final: bool,
}

impl Failed {
    pub(crate) fn finally(failure: Failure) -> Self {
        Self {
            failure,
            is_final: true,
        }
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            is_final: false,
        }
    }
}

pub(crate) fn unreachable(why: impl Into<Box<str>>) -> Failure {
    Failure::from(FailureKind::Unreachable).with_detail(why)
}

fn too_slow(address: SocketAddr) -> Failed {
    unreachable(format!(
        "connecting to {address} took longer than the limit"
    ))
    .into()
}

/// Somebody is there; whoever showed a wrong certificate shows it again.
fn no_tls(address: SocketAddr, error: &std::io::Error) -> Failed {
    let failure = unreachable(format!("TLS with {address}: {error}"));
    let cause = error.get_ref();
    if cause.is_some_and(|cause| cause.is::<rustls::Error>()) {
        return Failed::finally(failure);
    }
    failure.into()
}

/// Before a request was given to it: nothing was processed.
fn broken(address: SocketAddr, error: &hyper::Error) -> Failed {
    unreachable(format!("the connection to {address}: {error}")).into()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_next_address_is_tried_where_one_does_not_answer() {
        let listener = TcpListener::bind(("127.0.0.2", 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        // Nobody listens at the first, and the second is dropped by whoever routes it, if anybody does.
        let addresses = ["127.0.0.3", "240.0.0.1", "127.0.0.2"];
        let addresses = addresses.map(|text| text.parse().expect("an address"));
        let begun = Instant::now();
        let (_, address) = connect(&addresses, port).await.expect("one answers");
        assert_eq!(address.ip(), addresses[2]);
        assert!(begun.elapsed() < CONNECT_TIMEOUT, "{:?}", begun.elapsed());
        let error = connect(&addresses[..1], port)
            .await
            .expect_err("nobody listens");
        let detail = error.failure.detail.unwrap_or_default();
        assert!(detail.starts_with("connecting to 127.0.0.3"), "{detail}");
    }
}
