//! A socket of UDP, whichever version of WASI asks.
//!
//! Invariants: a socket that sends is bound; one that is connected hears of nobody else.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use wasmtime_wasi::sockets::ErrorCode;

use super::options::Options;
use super::tcp::{is_of_family, unspecified};
use crate::limits::HostBytes;
use crate::network::{BoundUdp, DATAGRAM_BYTES_MAX, Network, QUEUE_BYTES};

/// See the module's promise.
pub(super) struct UdpSocket {
    network: Network,
    is_v6: bool,
    /// Its streams (WASI 0.2) have it, too.
    bound: Option<Arc<BoundUdp>>,
    remote: Option<SocketAddr>,
    pub(super) options: Options,
    /// A `start-bind` of WASI 0.2 that was not finished.
    pub(super) binding: bool,
}

/// What sends and receives: a port, and whom it is connected to.
#[derive(Clone)]
pub(super) struct Way {
    bound: Arc<BoundUdp>,
    is_v6: bool,
    remote: Option<SocketAddr>,
}

impl UdpSocket {
    pub(super) fn new(network: &Network, is_v6: bool) -> UdpSocket {
        UdpSocket {
            network: network.clone(),
            is_v6,
            bound: None,
            remote: None,
            options: Options::new(QUEUE_BYTES),
            binding: false,
        }
    }

    pub(super) fn is_v6(&self) -> bool {
        self.is_v6
    }

    pub(super) fn is_bound(&self) -> bool {
        self.bound.is_some()
    }

    pub(super) fn bind(
        &mut self,
        address: SocketAddr,
        host: &Arc<HostBytes>,
    ) -> Result<(), ErrorCode> {
        if self.bound.is_some() {
            return Err(ErrorCode::InvalidState);
        }
        if !is_of_family(self.is_v6, address.ip()) {
            return Err(ErrorCode::InvalidArgument);
        }
        self.bound = Some(Arc::new(self.network.bind_udp(address, host)?));
        Ok(())
    }

    /// Says whom the socket speaks with from now on; bound to some port if it is to none.
    pub(super) fn connect(
        &mut self,
        remote: SocketAddr,
        host: &Arc<HostBytes>,
    ) -> Result<(), ErrorCode> {
        is_valid(self.is_v6, remote)?;
        self.way(host)?;
        self.remote = Some(remote);
        Ok(())
    }

    pub(super) fn disconnect(&mut self) -> Result<(), ErrorCode> {
        let was = self.remote.take();
        was.map(drop).ok_or(ErrorCode::InvalidState)
    }

    /// What sends and receives; a socket that is bound to nothing is bound to some port.
    pub(super) fn way(&mut self, host: &Arc<HostBytes>) -> Result<Way, ErrorCode> {
        let bound = match &self.bound {
            Some(bound) => bound.clone(),
            None => {
                let bound = self.network.bind_udp(unspecified(self.is_v6), host)?;
                self.bound.insert(Arc::new(bound)).clone()
            }
        };
        Ok(Way {
            bound,
            is_v6: self.is_v6,
            remote: self.remote,
        })
    }

    /// Where it is bound; once it is connected, with the address that the other end sees, as a kernel's routes say it.
    pub(super) fn local(&self) -> Result<SocketAddr, ErrorCode> {
        let bound = self.bound.as_ref().ok_or(ErrorCode::InvalidState)?;
        let local = bound.local();
        let Some(remote) = self.remote.filter(|_| local.ip().is_unspecified()) else {
            return Ok(local);
        };
        let ip = match (self.is_v6, self.network.source(remote.ip())) {
            (true, IpAddr::V4(ip)) => ip.to_ipv6_mapped().into(),
            (_, ip) => ip,
        };
        Ok(SocketAddr::new(ip, local.port()))
    }

    pub(super) fn remote(&self) -> Result<SocketAddr, ErrorCode> {
        self.remote.ok_or(ErrorCode::InvalidState)
    }
}

impl Way {
    /// Sends a datagram; one that is connected names nobody else.
    pub(super) fn send(&self, to: Option<SocketAddr>, datagram: Bytes) -> Result<(), ErrorCode> {
        let to = match (to, self.remote) {
            (Some(to), Some(remote)) if to != remote => return Err(ErrorCode::InvalidArgument),
            (Some(to), _) | (None, Some(to)) => to,
            (None, None) => return Err(ErrorCode::InvalidArgument),
        };
        is_valid(self.is_v6, to)?;
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(ErrorCode::DatagramTooLarge);
        }
        self.bound.send(to, datagram);
        Ok(())
    }

    /// The next datagram.
    pub(super) fn poll_receive(&self, cx: &mut Context<'_>) -> Poll<(SocketAddr, Bytes)> {
        loop {
            let (from, datagram) = ready!(self.bound.mailbox().poll_take(cx));
            if self.is_heard(from) {
                return Poll::Ready((from, datagram));
            }
        }
    }

    /// Ready when there may be one.
    pub(super) fn poll_any(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.bound.mailbox().poll_any(cx)
    }

    fn is_heard(&self, from: SocketAddr) -> bool {
        self.remote.is_none_or(|remote| {
            remote.port() == from.port() && remote.ip().to_canonical() == from.ip().to_canonical()
        })
    }
}

fn is_valid(is_v6: bool, to: SocketAddr) -> Result<(), ErrorCode> {
    match to.port() != 0 && !to.ip().is_unspecified() && is_of_family(is_v6, to.ip()) {
        true => Ok(()),
        false => Err(ErrorCode::InvalidArgument),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MemoryAccount;

    #[test]
    fn a_connected_socket_knows_from_where_it_is_heard() {
        let network = Network::new("10.42.0.2".parse().unwrap(), ());
        let host = HostBytes::new(Arc::new(MemoryAccount::new(1 << 24)), Arc::default(), None);
        for (bound, remote, expected) in [
            ("0.0.0.0:0", "10.43.0.7:53", "10.42.0.2"),
            ("0.0.0.0:0", "127.0.0.1:53", "127.0.0.1"),
            ("0.0.0.0:0", "10.42.0.2:53", "10.42.0.2"),
            ("127.0.0.1:0", "127.0.0.1:53", "127.0.0.1"),
            ("[::]:0", "[fd00::7]:53", "::ffff:10.42.0.2"),
        ] {
            let (bound, remote): (SocketAddr, SocketAddr) =
                (bound.parse().unwrap(), remote.parse().unwrap());
            let mut socket = UdpSocket::new(&network, bound.is_ipv6());
            socket.bind(bound, &host).unwrap();
            assert_eq!(socket.local().unwrap().ip(), bound.ip());
            socket.connect(remote, &host).unwrap();
            let local = socket.local().unwrap();
            assert_eq!(local.ip().to_string(), expected, "{bound} to {remote}");
            socket.disconnect().unwrap();
            assert_eq!(
                socket.local().unwrap(),
                SocketAddr::new(bound.ip(), local.port())
            );
        }
    }
}
