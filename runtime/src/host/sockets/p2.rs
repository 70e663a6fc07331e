//! `wasi:sockets` of WASI 0.2: operations that are started and finished, and pollables.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::vec;

use bytes::Bytes;
use futures::future::BoxFuture;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{self, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{
    self, ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Network,
};
use wasmtime_wasi::p2::bindings::sockets::tcp::{self, ShutdownType};
use wasmtime_wasi::p2::bindings::sockets::udp::{
    self, IncomingDatagram, IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream,
};
use wasmtime_wasi::p2::bindings::sockets::{tcp_create_socket, udp_create_socket};
use wasmtime_wasi::p2::{
    self, DynInputStream, DynOutputStream, DynPollable, InputStream, OutputStream, Pollable,
    SocketError, SocketResult, StreamError, StreamResult, subscribe,
};

use super::options::set;
use super::tcp::{Doing, TcpSocket};
use super::udp::{UdpSocket, Way};
use super::{Sockets, View, let_go, ours, theirs, view};
use crate::host::HostState;
use crate::network::{Reader, Writer};

/// Datagrams that pass with one call.
const DATAGRAMS_MAX: usize = 16;
/// Bytes that a guest reads with one call, of a stream or in datagrams.
const READ_BYTES_MAX: usize = 64 << 10;

/// The interfaces of sockets and names. `network` and `instance-network` are handles that open nothing, and stay wasmtime's.
pub(in crate::host) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let linked = link_all(linker);
    linker.allow_shadowing(false);
    linked
}

fn link_all(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    tcp_create_socket::add_to_linker::<HostState, Sockets>(linker, view)?;
    tcp::add_to_linker::<HostState, Sockets>(linker, view)?;
    udp_create_socket::add_to_linker::<HostState, Sockets>(linker, view)?;
    udp::add_to_linker::<HostState, Sockets>(linker, view)?;
    ip_name_lookup::add_to_linker::<HostState, Sockets>(linker, view)
}

fn now<'a>() -> Context<'a> {
    Context::from_waker(Waker::noop())
}

fn family(is_v6: bool) -> IpAddressFamily {
    match is_v6 {
        true => IpAddressFamily::Ipv6,
        false => IpAddressFamily::Ipv4,
    }
}

fn code<T>(result: Result<T, wasmtime_wasi::sockets::ErrorCode>) -> SocketResult<T> {
    result.map_err(SocketError::from)
}

impl View<'_> {
    fn tcp(&mut self, socket: &Resource<p2::TcpSocket>) -> SocketResult<&mut TcpSocket> {
        Ok(self.table.get_mut(&ours::<_, TcpSocket>(socket))?)
    }

    fn udp(&mut self, socket: &Resource<p2::UdpSocket>) -> SocketResult<&mut UdpSocket> {
        Ok(self.table.get_mut(&ours::<_, UdpSocket>(socket))?)
    }

    /// The socket, about to begin something.
    fn idle_tcp(
        &mut self,
        socket: &Resource<p2::TcpSocket>,
        network: Option<&Resource<Network>>,
    ) -> SocketResult<&mut TcpSocket> {
        if let Some(network) = network {
            self.table.get(network)?;
        }
        let socket = self.tcp(socket)?;
        match socket.doing {
            Some(_) => Err(ErrorCode::ConcurrencyConflict.into()),
            None => Ok(socket),
        }
    }

    /// What was begun is over.
    fn finish(
        &mut self,
        socket: &Resource<p2::TcpSocket>,
        doing: Doing,
    ) -> SocketResult<&mut TcpSocket> {
        let socket = self.tcp(socket)?;
        match socket.doing == Some(doing) {
            true => Ok(socket),
            false => Err(ErrorCode::NotInProgress.into()),
        }
    }

    /// The two streams of a socket that has just been connected.
    fn streams(
        &mut self,
        socket: &Resource<TcpSocket>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let connected = self.table.get_mut(socket)?;
        let (reader, _) = code(connected.take_reader())?;
        let (writer, _) = code(connected.take_writer())?;
        let (reader, writer) = (Arc::new(reader), Arc::new(writer));
        connected.ends = Some((reader.clone(), writer.clone()));
        let input: DynInputStream = Box::new(Input(reader));
        let output: DynOutputStream = Box::new(Output(writer));
        Ok((
            self.table.push_child(input, socket)?,
            self.table.push_child(output, socket)?,
        ))
    }
}

impl network::Host for View<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(
        &mut self,
        _: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        // No stream of ours fails with an error: it is closed, or goes on.
        Ok(None)
    }
}

impl network::HostNetwork for View<'_> {
    fn drop(&mut self, this: Resource<Network>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl tcp_create_socket::Host for View<'_> {
    fn create_tcp_socket(
        &mut self,
        family: IpAddressFamily,
    ) -> SocketResult<Resource<p2::TcpSocket>> {
        let network = code(self.network())?;
        let socket = TcpSocket::new(network, family == IpAddressFamily::Ipv6);
        Ok(theirs(&self.table.push(socket)?))
    }
}

impl tcp::Host for View<'_> {}

impl tcp::HostTcpSocket for View<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<p2::TcpSocket>,
        network: Resource<Network>,
        local_address: IpSocketAddress,
    ) -> SocketResult<()> {
        let socket = self.idle_tcp(&this, Some(&network))?;
        code(socket.bind(SocketAddr::from(local_address)))?;
        socket.doing = Some(Doing::Bind);
        Ok(())
    }

    fn finish_bind(&mut self, this: Resource<p2::TcpSocket>) -> SocketResult<()> {
        self.finish(&this, Doing::Bind)?.doing = None;
        Ok(())
    }

    fn start_connect(
        &mut self,
        this: Resource<p2::TcpSocket>,
        network: Resource<Network>,
        remote_address: IpSocketAddress,
    ) -> SocketResult<()> {
        let host = self.host;
        let socket = self.idle_tcp(&this, Some(&network))?;
        code(socket.connect(SocketAddr::from(remote_address), host))?;
        socket.doing = Some(Doing::Connect);
        Ok(())
    }

    fn finish_connect(
        &mut self,
        this: Resource<p2::TcpSocket>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let socket = self.finish(&this, Doing::Connect)?;
        let Poll::Ready(connected) = socket.poll_connected(&mut now()) else {
            return Err(ErrorCode::WouldBlock.into());
        };
        socket.doing = None;
        code(connected)?;
        self.streams(&ours(&this))
    }

    async fn start_listen(&mut self, this: Resource<p2::TcpSocket>) -> SocketResult<()> {
        let host = self.host;
        let socket = self.idle_tcp(&this, None)?;
        if !socket.is_bound() {
            // In this version a socket is bound by who listens.
            return Err(ErrorCode::InvalidState.into());
        }
        code(socket.listen(host))?;
        socket.doing = Some(Doing::Listen);
        Ok(())
    }

    fn finish_listen(&mut self, this: Resource<p2::TcpSocket>) -> SocketResult<()> {
        self.finish(&this, Doing::Listen)?.doing = None;
        Ok(())
    }

    fn accept(
        &mut self,
        this: Resource<p2::TcpSocket>,
    ) -> SocketResult<(
        Resource<p2::TcpSocket>,
        Resource<DynInputStream>,
        Resource<DynOutputStream>,
    )> {
        let socket = self.tcp(&this)?;
        let listener = socket.listener().filter(|_| socket.doing.is_none());
        let listener = listener.ok_or(ErrorCode::InvalidState)?;
        let Poll::Ready(stream) = listener.poll_accept(&mut now()) else {
            return Err(ErrorCode::WouldBlock.into());
        };
        let accepted = socket.heirs().accepted(stream);
        let accepted = self.table.push(accepted)?;
        let (input, output) = self.streams(&accepted)?;
        Ok((theirs(&accepted), input, output))
    }

    fn local_address(&mut self, this: Resource<p2::TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(code(self.tcp(&this)?.local())?.into())
    }

    fn remote_address(&mut self, this: Resource<p2::TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(code(self.tcp(&this)?.remote())?.into())
    }

    fn is_listening(&mut self, this: Resource<p2::TcpSocket>) -> wasmtime::Result<bool> {
        let socket = self.table.get(&ours::<_, TcpSocket>(&this))?;
        Ok(socket.listener().is_some())
    }

    fn address_family(
        &mut self,
        this: Resource<p2::TcpSocket>,
    ) -> wasmtime::Result<IpAddressFamily> {
        let socket = self.table.get(&ours::<_, TcpSocket>(&this))?;
        Ok(family(socket.is_v6()))
    }

    fn set_listen_backlog_size(
        &mut self,
        this: Resource<p2::TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        code(self.tcp(&this)?.set_backlog(value))
    }

    fn keep_alive_enabled(&mut self, this: Resource<p2::TcpSocket>) -> SocketResult<bool> {
        Ok(self.tcp(&this)?.options.keep_alive)
    }

    fn set_keep_alive_enabled(
        &mut self,
        this: Resource<p2::TcpSocket>,
        value: bool,
    ) -> SocketResult<()> {
        self.tcp(&this)?.options.keep_alive = value;
        Ok(())
    }

    fn keep_alive_idle_time(&mut self, this: Resource<p2::TcpSocket>) -> SocketResult<u64> {
        Ok(self.tcp(&this)?.options.keep_alive_idle)
    }

    fn set_keep_alive_idle_time(
        &mut self,
        this: Resource<p2::TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        code(set(&mut self.tcp(&this)?.options.keep_alive_idle, value))
    }

    fn keep_alive_interval(&mut self, this: Resource<p2::TcpSocket>) -> SocketResult<u64> {
        Ok(self.tcp(&this)?.options.keep_alive_interval)
    }

    fn set_keep_alive_interval(
        &mut self,
        this: Resource<p2::TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        code(set(
            &mut self.tcp(&this)?.options.keep_alive_interval,
            value,
        ))
    }

    fn keep_alive_count(&mut self, this: Resource<p2::TcpSocket>) -> SocketResult<u32> {
        Ok(self.tcp(&this)?.options.keep_alive_count)
    }

    fn set_keep_alive_count(
        &mut self,
        this: Resource<p2::TcpSocket>,
        value: u32,
    ) -> SocketResult<()> {
        code(set(&mut self.tcp(&this)?.options.keep_alive_count, value))
    }

    fn hop_limit(&mut self, this: Resource<p2::TcpSocket>) -> SocketResult<u8> {
        Ok(self.tcp(&this)?.options.hop_limit)
    }

    fn set_hop_limit(&mut self, this: Resource<p2::TcpSocket>, value: u8) -> SocketResult<()> {
        code(set(&mut self.tcp(&this)?.options.hop_limit, value))
    }

    fn receive_buffer_size(&mut self, this: Resource<p2::TcpSocket>) -> SocketResult<u64> {
        Ok(self.tcp(&this)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(
        &mut self,
        this: Resource<p2::TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        code(set(&mut self.tcp(&this)?.options.receive_buffer, value))
    }

    fn send_buffer_size(&mut self, this: Resource<p2::TcpSocket>) -> SocketResult<u64> {
        Ok(self.tcp(&this)?.options.send_buffer)
    }

    fn set_send_buffer_size(
        &mut self,
        this: Resource<p2::TcpSocket>,
        value: u64,
    ) -> SocketResult<()> {
        code(set(&mut self.tcp(&this)?.options.send_buffer, value))
    }

    fn subscribe(
        &mut self,
        this: Resource<p2::TcpSocket>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, ours::<_, TcpSocket>(&this))
    }

    fn shutdown(&mut self, this: Resource<p2::TcpSocket>, how: ShutdownType) -> SocketResult<()> {
        let ends = self.tcp(&this)?.ends.as_ref();
        let (reader, writer) = ends.ok_or(ErrorCode::InvalidState)?;
        if matches!(how, ShutdownType::Receive | ShutdownType::Both) {
            reader.close();
        }
        if matches!(how, ShutdownType::Send | ShutdownType::Both) {
            writer.finish();
        }
        Ok(())
    }

    fn drop(&mut self, this: Resource<p2::TcpSocket>) -> wasmtime::Result<()> {
        self.table.delete(let_go::<_, TcpSocket>(&this))?;
        Ok(())
    }
}

#[async_trait]
impl Pollable for TcpSocket {
    async fn ready(&mut self) {
        match (self.doing, self.listener().cloned()) {
            (Some(Doing::Connect), _) => {
                // What came of it is asked for when it is finished.
                let _ = poll_fn(|cx| self.poll_connected(cx)).await;
            }
            (None, Some(listener)) => poll_fn(|cx| listener.poll_any(cx)).await,
            _ => {}
        }
    }
}

/// What comes in on a connection.
struct Input(Arc<Reader>);

#[async_trait]
impl InputStream for Input {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        match self.0.poll_read(&mut now(), size.min(READ_BYTES_MAX)) {
            Poll::Ready(Some(bytes)) => Ok(bytes),
            Poll::Ready(None) => Err(StreamError::Closed),
            Poll::Pending => Ok(Bytes::new()),
        }
    }
}

#[async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        poll_fn(|cx| self.0.poll_readable(cx)).await;
    }
}

/// What goes out on a connection.
struct Output(Arc<Writer>);

#[async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.write(bytes).map_err(|_| StreamError::Closed)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match self.0.poll_room(&mut now()) {
            Poll::Ready(Ok(room)) => Ok(room),
            Poll::Ready(Err(_)) => Err(StreamError::Closed),
            Poll::Pending => Ok(0),
        }
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        // Ready to be told that nobody reads, too.
        let _ = poll_fn(|cx| self.0.poll_room(cx)).await;
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

/// A name that is being looked up.
enum Lookup {
    Asking(BoxFuture<'static, Result<vec::IntoIter<IpAddr>, ErrorCode>>),
    Answered(Result<vec::IntoIter<IpAddr>, ErrorCode>),
}

impl Lookup {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<&mut Result<vec::IntoIter<IpAddr>, ErrorCode>> {
        if let Lookup::Asking(asking) = self {
            match asking.as_mut().poll(cx) {
                Poll::Ready(answer) => *self = Lookup::Answered(answer),
                Poll::Pending => return Poll::Pending,
            }
        }
        match self {
            Lookup::Answered(answer) => Poll::Ready(answer),
            Lookup::Asking(_) => Poll::Pending,
        }
    }
}

impl ip_name_lookup::Host for View<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        self.table.get(&network)?;
        let known = self.network.ok_or(ErrorCode::PermanentResolverFailure)?;
        if !super::is_name(&name) {
            return Err(ErrorCode::InvalidArgument.into());
        }
        let asking = known.resolve(name);
        let lookup = Lookup::Asking(Box::pin(async move {
            let found = asking.await.map_err(|error| unresolved(&error))?;
            Ok(found.into_iter())
        }));
        Ok(theirs(&self.table.push(lookup)?))
    }
}

fn unresolved(error: &std::io::Error) -> ErrorCode {
    match error.kind() {
        std::io::ErrorKind::NotFound => ErrorCode::NameUnresolvable,
        std::io::ErrorKind::PermissionDenied => ErrorCode::AccessDenied,
        _ => ErrorCode::TemporaryResolverFailure,
    }
}

impl ip_name_lookup::HostResolveAddressStream for View<'_> {
    fn resolve_next_address(
        &mut self,
        this: Resource<ResolveAddressStream>,
    ) -> SocketResult<Option<IpAddress>> {
        let lookup = self.table.get_mut(&ours::<_, Lookup>(&this))?;
        match lookup.poll(&mut now()) {
            Poll::Pending => Err(ErrorCode::WouldBlock.into()),
            Poll::Ready(Ok(addresses)) => Ok(addresses.next().map(IpAddress::from)),
            Poll::Ready(Err(code)) => Err((*code).into()),
        }
    }

    fn subscribe(
        &mut self,
        this: Resource<ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, ours::<_, Lookup>(&this))
    }

    fn drop(&mut self, this: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.table.delete(let_go::<_, Lookup>(&this))?;
        Ok(())
    }
}

#[async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        poll_fn(|cx| self.poll(cx).map(drop)).await;
    }
}
