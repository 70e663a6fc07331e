//! Sockets of UDP and the streams of their datagrams.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;

use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::network::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Network,
};
use wasmtime_wasi::p2::bindings::sockets::udp::{
    self, IncomingDatagram, IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream,
};
use wasmtime_wasi::p2::bindings::sockets::udp_create_socket;
use wasmtime_wasi::p2::{self, DynPollable, Pollable, SocketError, SocketResult, subscribe};

use super::super::options::set;
use super::super::udp::{UdpSocket, Way};
use super::super::{View, let_go, ours, theirs};
use super::{READ_BYTES_MAX, code, family, now};

/// Datagrams that pass with one call.
const DATAGRAMS_MAX: usize = 16;

impl View<'_> {
    fn udp(&mut self, socket: &Resource<p2::UdpSocket>) -> SocketResult<&mut UdpSocket> {
        Ok(self.table.get_mut(&ours::<_, UdpSocket>(socket))?)
    }
}

impl udp_create_socket::Host for View<'_> {
    async fn create_udp_socket(
        &mut self,
        family: IpAddressFamily,
    ) -> SocketResult<Resource<p2::UdpSocket>> {
        let network = code(self.network())?;
        let socket = UdpSocket::new(network, family == IpAddressFamily::Ipv6);
        Ok(theirs(&self.table.push(socket)?))
    }
}

impl udp::Host for View<'_> {}

impl udp::HostUdpSocket for View<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<p2::UdpSocket>,
        network: Resource<Network>,
        local_address: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let host = self.host;
        let socket = self.udp(&this)?;
        if socket.binding {
            return Err(ErrorCode::ConcurrencyConflict.into());
        }
        code(socket.bind(SocketAddr::from(local_address), host))?;
        socket.binding = true;
        Ok(())
    }

    fn finish_bind(&mut self, this: Resource<p2::UdpSocket>) -> SocketResult<()> {
        let socket = self.udp(&this)?;
        match std::mem::take(&mut socket.binding) {
            true => Ok(()),
            false => Err(ErrorCode::NotInProgress.into()),
        }
    }

    async fn stream(
        &mut self,
        this: Resource<p2::UdpSocket>,
        remote_address: Option<IpSocketAddress>,
    ) -> SocketResult<(
        Resource<IncomingDatagramStream>,
        Resource<OutgoingDatagramStream>,
    )> {
        let parent = ours::<_, UdpSocket>(&this);
        let mut children = self.table.iter_children(&parent)?;
        if children.any(|child| child.is::<Incoming>() || child.is::<Outgoing>()) {
            let error = wasmtime::Error::msg("the streams of the socket have not been dropped");
            return Err(SocketError::trap(error));
        }
        drop(children);
        let host = self.host;
        let socket = self.udp(&this)?;
        if !socket.is_bound() {
            // In this version a socket is bound by who uses it.
            return Err(ErrorCode::InvalidState.into());
        }
        match remote_address {
            Some(remote) => code(socket.connect(remote.into(), host))?,
            // There may be nothing to undo.
            None => drop(socket.disconnect()),
        }
        let way = code(socket.way(host))?;
        let incoming = self.table.push_child(Incoming(way.clone()), &parent)?;
        let outgoing = Outgoing { way, permitted: 0 };
        let outgoing = self.table.push_child(outgoing, &parent)?;
        Ok((theirs(&incoming), theirs(&outgoing)))
    }

    fn local_address(&mut self, this: Resource<p2::UdpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(code(self.udp(&this)?.local())?.into())
    }

    fn remote_address(&mut self, this: Resource<p2::UdpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(code(self.udp(&this)?.remote())?.into())
    }

    fn address_family(
        &mut self,
        this: Resource<p2::UdpSocket>,
    ) -> wasmtime::Result<IpAddressFamily> {
        let socket = self.table.get(&ours::<_, UdpSocket>(&this))?;
        Ok(family(socket.is_v6()))
    }

    fn unicast_hop_limit(&mut self, this: Resource<p2::UdpSocket>) -> SocketResult<u8> {
        Ok(self.udp(&this)?.options.hop_limit)
    }

    fn set_unicast_hop_limit(
        &mut self,
        this: Resource<p2::UdpSocket>,
        value: u8,
    ) -> SocketResult<()> {
        code(set(&mut self.udp(&this)?.options.hop_limit, value))
    }

    fn receive_buffer_size(&mut self, this: Resource<p2::UdpSocket>) -> SocketResult<u64> {
        Ok(self.udp(&this)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(
        &mut self,
        this: Resource<p2::UdpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        code(set(&mut self.udp(&this)?.options.receive_buffer, value))
    }

    fn send_buffer_size(&mut self, this: Resource<p2::UdpSocket>) -> SocketResult<u64> {
        Ok(self.udp(&this)?.options.send_buffer)
    }

    fn set_send_buffer_size(
        &mut self,
        this: Resource<p2::UdpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        code(set(&mut self.udp(&this)?.options.send_buffer, value))
    }

    fn subscribe(
        &mut self,
        this: Resource<p2::UdpSocket>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, ours::<_, UdpSocket>(&this))
    }

    fn drop(&mut self, this: Resource<p2::UdpSocket>) -> wasmtime::Result<()> {
        self.table.delete(let_go::<_, UdpSocket>(&this))?;
        Ok(())
    }
}

#[async_trait]
impl Pollable for UdpSocket {
    async fn ready(&mut self) {
        // Nothing that a socket does takes time: its streams are what is waited for.
    }
}

/// What a socket of UDP receives.
struct Incoming(Way);

impl udp::HostIncomingDatagramStream for View<'_> {
    fn receive(
        &mut self,
        this: Resource<IncomingDatagramStream>,
        max_results: u64,
    ) -> SocketResult<Vec<IncomingDatagram>> {
        let Incoming(way) = self.table.get_mut(&ours::<_, Incoming>(&this))?;
        let most = usize::try_from(max_results).unwrap_or(usize::MAX);
        let most = most.min(DATAGRAMS_MAX);
        let (mut datagrams, mut bytes) = (Vec::new(), 0);
        while datagrams.len() < most && bytes < READ_BYTES_MAX {
            let Poll::Ready((from, datagram)) = way.poll_receive(&mut now()) else {
                break;
            };
            bytes += datagram.len();
            datagrams.push(IncomingDatagram {
                data: datagram.into(),
                remote_address: from.into(),
            });
        }
        Ok(datagrams)
    }

    fn subscribe(
        &mut self,
        this: Resource<IncomingDatagramStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, ours::<_, Incoming>(&this))
    }

    fn drop(&mut self, this: Resource<IncomingDatagramStream>) -> wasmtime::Result<()> {
        self.table.delete(let_go::<_, Incoming>(&this))?;
        Ok(())
    }
}

#[async_trait]
impl Pollable for Incoming {
    async fn ready(&mut self) {
        poll_fn(|cx| self.0.poll_any(cx)).await;
    }
}

/// What a socket of UDP sends.
struct Outgoing {
    way: Way,
    /// Datagrams that the last `check-send` allowed.
    permitted: usize,
}

impl udp::HostOutgoingDatagramStream for View<'_> {
    fn check_send(&mut self, this: Resource<OutgoingDatagramStream>) -> SocketResult<u64> {
        let outgoing = self.table.get_mut(&ours::<_, Outgoing>(&this))?;
        // What there is no room for is lost: a sender never waits.
        outgoing.permitted = DATAGRAMS_MAX;
        Ok(DATAGRAMS_MAX as u64)
    }

    fn send(
        &mut self,
        this: Resource<OutgoingDatagramStream>,
        datagrams: Vec<OutgoingDatagram>,
    ) -> SocketResult<u64> {
        let outgoing = self.table.get_mut(&ours::<_, Outgoing>(&this))?;
        if datagrams.is_empty() {
            return Ok(0);
        }
        if datagrams.len() > std::mem::take(&mut outgoing.permitted) {
            let error = wasmtime::Error::msg("more datagrams are sent than check-send permitted");
            return Err(SocketError::trap(error));
        }
        let mut sent = 0;
        for datagram in datagrams {
            let to = datagram.remote_address.map(SocketAddr::from);
            match outgoing.way.send(to, datagram.data.into()) {
                Ok(()) => sent += 1,
                // What was sent is what is told.
                Err(_) if sent > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sent)
    }

    fn subscribe(
        &mut self,
        this: Resource<OutgoingDatagramStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, ours::<_, Outgoing>(&this))
    }

    async fn drop(&mut self, this: Resource<OutgoingDatagramStream>) -> wasmtime::Result<()> {
        self.table.delete(let_go::<_, Outgoing>(&this))?;
        Ok(())
    }
}

#[async_trait]
impl Pollable for Outgoing {
    async fn ready(&mut self) {}
}
