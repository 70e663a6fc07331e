//! `wasi:sockets` of WASI 0.3: streams, futures and functions that wait.

use std::future::poll_fn;
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;
use wasmtime::component::{
    Access, Accessor, Destination, FutureReader, Linker, Resource, Source, StreamConsumer,
    StreamProducer, StreamReader, StreamResult,
};
use wasmtime::{AsContextMut, StoreContextMut};
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup::{self, ErrorCode as NameError};
use wasmtime_wasi::p3::bindings::sockets::types::{
    self, Duration, ErrorCode, HostTcpSocket, HostTcpSocketWithStore, HostUdpSocket,
    HostUdpSocketWithStore, IpAddress, IpAddressFamily, IpSocketAddress,
};
use wasmtime_wasi::p3::sockets::{SocketError, SocketResult};
use wasmtime_wasi::sockets::{TcpSocket as TheirTcp, UdpSocket as TheirUdp};

use super::options::set;
use super::tcp::{Direction, Heirs, TcpSocket};
use super::udp::UdpSocket;
use super::{Sockets, View, let_go, ours, theirs, view};
use crate::host::HostState;
use crate::network::{Listener, Reader, Writer};

/// Bytes that are given to a guest at once.
const READ_BYTES: usize = 16 << 10;

/// All of it.
pub(in crate::host) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let linked = types::add_to_linker::<HostState, Sockets>(linker, view)
        .and_then(|()| ip_name_lookup::add_to_linker::<HostState, Sockets>(linker, view));
    linker.allow_shadowing(false);
    linked
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

fn trap(error: impl Into<wasmtime::Error>) -> SocketError {
    SocketError::trap(error.into())
}

impl View<'_> {
    fn tcp3(&mut self, socket: &Resource<TheirTcp>) -> SocketResult<&mut TcpSocket> {
        let socket = ours::<_, TcpSocket>(socket);
        self.table.get_mut(&socket).map_err(trap)
    }

    fn udp3(&mut self, socket: &Resource<TheirUdp>) -> SocketResult<&mut UdpSocket> {
        let socket = ours::<_, UdpSocket>(socket);
        self.table.get_mut(&socket).map_err(trap)
    }
}

impl types::Host for View<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }
}

/// Connections of a listener, as the guest takes them.
struct Accepting {
    listener: Arc<Listener>,
    /// What its sockets have of the one that listens, which may be dropped before.
    heirs: Heirs,
}

impl StreamProducer<HostState> for Accepting {
    type Item = Resource<TheirTcp>;
    type Buffer = Option<Self::Item>;

    fn poll_produce<'a>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, HostState>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let is_asked_for_none = destination.remaining(&mut store) == Some(0);
        if self.listener.poll_any(cx).is_pending() {
            return match finish {
                true => Poll::Ready(Ok(StreamResult::Cancelled)),
                false => Poll::Pending,
            };
        }
        if is_asked_for_none {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let Poll::Ready(stream) = self.listener.poll_accept(cx) else {
            return Poll::Pending;
        };
        let accepted = self.heirs.accepted(stream);
        match store.data_mut().table.push(accepted) {
            Ok(accepted) => {
                destination.set_buffer(Some(theirs(&accepted)));
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

/// What comes in on a connection. Its end is told once.
struct Receiving {
    from: Option<Direction<Reader>>,
    ended: Option<oneshot::Sender<Result<(), ErrorCode>>>,
}

impl Receiving {
    fn end(&mut self) {
        self.from = None;
        if let Some(ended) = self.ended.take() {
            // The guest may not wait for it.
            let _ = ended.send(Ok(()));
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.end();
    }
}

impl StreamProducer<HostState> for Receiving {
    type Item = u8;
    type Buffer = Bytes;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, HostState>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let remaining = destination.remaining(store.as_context_mut());
        let Some((reader, _)) = &self.from else {
            return Poll::Ready(Ok(StreamResult::Dropped));
        };
        let polled = match remaining {
            Some(0) => reader.poll_readable(cx).map(|()| None),
            wanted => {
                let most = wanted.unwrap_or(READ_BYTES).min(READ_BYTES);
                reader.poll_read(cx, most).map(Some)
            }
        };
        match polled {
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => Poll::Pending,
            // It was only asked whether there is anything.
            Poll::Ready(None) => Poll::Ready(Ok(StreamResult::Completed)),
            Poll::Ready(Some(None)) => {
                self.end();
                Poll::Ready(Ok(StreamResult::Dropped))
            }
            Poll::Ready(Some(Some(bytes))) => {
                destination.set_buffer(bytes);
                Poll::Ready(Ok(StreamResult::Completed))
            }
        }
    }
}

/// What goes out on a connection. Its end is told once.
struct Sending {
    to: Option<Direction<Writer>>,
    ended: Option<oneshot::Sender<Result<(), ErrorCode>>>,
}

impl Sending {
    fn end(&mut self, result: Result<(), ErrorCode>) {
        self.to = None;
        if let Some(ended) = self.ended.take() {
            let _ = ended.send(result);
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.end(Ok(()));
    }
}

impl StreamConsumer<HostState> for Sending {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, HostState>,
        source: Source<'_, Self::Item>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut source = source.as_direct(store);
        let Some((writer, _)) = &self.to else {
            return Poll::Ready(Ok(StreamResult::Dropped));
        };
        let written = match writer.poll_room(cx) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(broken)) => Err(broken),
            Poll::Ready(Ok(room)) => {
                let all = source.remaining();
                let now = all.get(..room).unwrap_or(all);
                let count = now.len();
                writer.write(Bytes::copy_from_slice(now)).map(|()| count)
            }
        };
        match written {
            Ok(count) => {
                source.mark_read(count);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Err(_) => {
                self.end(Err(ErrorCode::ConnectionBroken));
                Poll::Ready(Ok(StreamResult::Dropped))
            }
        }
    }
}

impl HostTcpSocketWithStore<HostState> for Sockets {
    async fn connect(
        accessor: &Accessor<HostState, Self>,
        socket: Resource<TheirTcp>,
        remote_address: IpSocketAddress,
    ) -> SocketResult<()> {
        accessor.with(|mut access| {
            let mut view = access.get();
            let host = view.host;
            let socket = view.tcp3(&socket)?;
            code(socket.connect(SocketAddr::from(remote_address), host))
        })?;
        poll_fn(|cx| {
            accessor.with(|mut access| -> Poll<SocketResult<()>> {
                let mut view = access.get();
                let connected = view.tcp3(&socket).map(|socket| socket.poll_connected(cx));
                match connected {
                    Ok(polled) => polled.map(code),
                    Err(error) => Poll::Ready(Err(error)),
                }
            })
        })
        .await
    }

    async fn listen(
        mut access: Access<'_, HostState, Self>,
        socket: Resource<TheirTcp>,
    ) -> SocketResult<StreamReader<Resource<TheirTcp>>> {
        let accepting = {
            let mut view = access.get();
            let host = view.host;
            let socket = view.tcp3(&socket)?;
            Accepting {
                listener: code(socket.listen(host))?,
                heirs: socket.heirs(),
            }
        };
        StreamReader::new(&mut access, accepting).map_err(SocketError::trap)
    }

    fn send(
        mut access: Access<'_, HostState, Self>,
        socket: Resource<TheirTcp>,
        mut data: StreamReader<u8>,
    ) -> wasmtime::Result<FutureReader<Result<(), ErrorCode>>> {
        let taken = access.get().tcp3(&socket).map(TcpSocket::take_writer);
        match taken.map_err(|error| error.downcast()) {
            Ok(Ok(to)) => {
                let (ended, end) = oneshot::channel();
                let sending = Sending {
                    to: Some(to),
                    ended: Some(ended),
                };
                data.pipe(&mut access, sending)?;
                FutureReader::new(&mut access, end)
            }
            Ok(Err(error)) => {
                data.close(&mut access)?;
                let error = ErrorCode::from(error);
                FutureReader::new(&mut access, async move { wasmtime::error::Ok(Err(error)) })
            }
            Err(error) => {
                data.close(&mut access)?;
                let error = error?;
                FutureReader::new(&mut access, async move { wasmtime::error::Ok(Err(error)) })
            }
        }
    }

    fn receive(
        mut access: Access<'_, HostState, Self>,
        socket: Resource<TheirTcp>,
    ) -> wasmtime::Result<(StreamReader<u8>, FutureReader<Result<(), ErrorCode>>)> {
        let taken = access.get().tcp3(&socket).map(TcpSocket::take_reader);
        let error = match taken.map_err(|error| error.downcast()) {
            Ok(Ok(from)) => {
                let (ended, end) = oneshot::channel();
                let receiving = Receiving {
                    from: Some(from),
                    ended: Some(ended),
                };
                return Ok((
                    StreamReader::new(&mut access, receiving)?,
                    FutureReader::new(&mut access, end)?,
                ));
            }
            Ok(Err(error)) => ErrorCode::from(error),
            Err(error) => error?,
        };
        Ok((
            StreamReader::new(&mut access, iter::empty())?,
            FutureReader::new(&mut access, async move { wasmtime::error::Ok(Err(error)) })?,
        ))
    }
}

impl HostTcpSocket for View<'_> {
    async fn bind(
        &mut self,
        socket: Resource<TheirTcp>,
        local_address: IpSocketAddress,
    ) -> SocketResult<()> {
        code(self.tcp3(&socket)?.bind(SocketAddr::from(local_address)))
    }

    fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TheirTcp>> {
        let network = code(self.network())?;
        let socket = TcpSocket::new(network, matches!(family, IpAddressFamily::Ipv6));
        Ok(theirs(&self.table.push(socket).map_err(trap)?))
    }

    fn get_local_address(&mut self, socket: Resource<TheirTcp>) -> SocketResult<IpSocketAddress> {
        Ok(code(self.tcp3(&socket)?.local())?.into())
    }

    fn get_remote_address(&mut self, socket: Resource<TheirTcp>) -> SocketResult<IpSocketAddress> {
        Ok(code(self.tcp3(&socket)?.remote())?.into())
    }

    fn get_is_listening(&mut self, socket: Resource<TheirTcp>) -> wasmtime::Result<bool> {
        let socket = self.table.get(&ours::<_, TcpSocket>(&socket))?;
        Ok(socket.listener().is_some())
    }

    fn get_address_family(
        &mut self,
        socket: Resource<TheirTcp>,
    ) -> wasmtime::Result<IpAddressFamily> {
        let socket = self.table.get(&ours::<_, TcpSocket>(&socket))?;
        Ok(family(socket.is_v6()))
    }

    fn set_listen_backlog_size(
        &mut self,
        socket: Resource<TheirTcp>,
        value: u64,
    ) -> SocketResult<()> {
        code(self.tcp3(&socket)?.set_backlog(value))
    }

    fn get_keep_alive_enabled(&mut self, socket: Resource<TheirTcp>) -> SocketResult<bool> {
        Ok(self.tcp3(&socket)?.options.keep_alive)
    }

    fn set_keep_alive_enabled(
        &mut self,
        socket: Resource<TheirTcp>,
        value: bool,
    ) -> SocketResult<()> {
        self.tcp3(&socket)?.options.keep_alive = value;
        Ok(())
    }

    fn get_keep_alive_idle_time(&mut self, socket: Resource<TheirTcp>) -> SocketResult<Duration> {
        Ok(self.tcp3(&socket)?.options.keep_alive_idle)
    }

    fn set_keep_alive_idle_time(
        &mut self,
        socket: Resource<TheirTcp>,
        value: Duration,
    ) -> SocketResult<()> {
        code(set(&mut self.tcp3(&socket)?.options.keep_alive_idle, value))
    }

    fn get_keep_alive_interval(&mut self, socket: Resource<TheirTcp>) -> SocketResult<Duration> {
        Ok(self.tcp3(&socket)?.options.keep_alive_interval)
    }

    fn set_keep_alive_interval(
        &mut self,
        socket: Resource<TheirTcp>,
        value: Duration,
    ) -> SocketResult<()> {
        let option = &mut self.tcp3(&socket)?.options.keep_alive_interval;
        code(set(option, value))
    }

    fn get_keep_alive_count(&mut self, socket: Resource<TheirTcp>) -> SocketResult<u32> {
        Ok(self.tcp3(&socket)?.options.keep_alive_count)
    }

    fn set_keep_alive_count(&mut self, socket: Resource<TheirTcp>, value: u32) -> SocketResult<()> {
        code(set(
            &mut self.tcp3(&socket)?.options.keep_alive_count,
            value,
        ))
    }

    fn get_hop_limit(&mut self, socket: Resource<TheirTcp>) -> SocketResult<u8> {
        Ok(self.tcp3(&socket)?.options.hop_limit)
    }

    fn set_hop_limit(&mut self, socket: Resource<TheirTcp>, value: u8) -> SocketResult<()> {
        code(set(&mut self.tcp3(&socket)?.options.hop_limit, value))
    }

    fn get_receive_buffer_size(&mut self, socket: Resource<TheirTcp>) -> SocketResult<u64> {
        Ok(self.tcp3(&socket)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(
        &mut self,
        socket: Resource<TheirTcp>,
        value: u64,
    ) -> SocketResult<()> {
        code(set(&mut self.tcp3(&socket)?.options.receive_buffer, value))
    }

    fn get_send_buffer_size(&mut self, socket: Resource<TheirTcp>) -> SocketResult<u64> {
        Ok(self.tcp3(&socket)?.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, socket: Resource<TheirTcp>, value: u64) -> SocketResult<()> {
        code(set(&mut self.tcp3(&socket)?.options.send_buffer, value))
    }

    fn drop(&mut self, socket: Resource<TheirTcp>) -> wasmtime::Result<()> {
        self.table.delete(let_go::<_, TcpSocket>(&socket))?;
        Ok(())
    }
}

impl HostUdpSocketWithStore<HostState> for Sockets {
    async fn send(
        accessor: &Accessor<HostState, Self>,
        socket: Resource<TheirUdp>,
        data: Vec<u8>,
        remote_address: Option<IpSocketAddress>,
    ) -> SocketResult<()> {
        accessor.with(|mut access| {
            let mut view = access.get();
            let host = view.host;
            let way = code(view.udp3(&socket)?.way(host))?;
            code(way.send(remote_address.map(SocketAddr::from), data.into()))
        })
    }

    async fn receive(
        accessor: &Accessor<HostState, Self>,
        socket: Resource<TheirUdp>,
    ) -> SocketResult<(Vec<u8>, IpSocketAddress)> {
        let way = accessor.with(|mut access| {
            let mut view = access.get();
            let host = view.host;
            let socket = view.udp3(&socket)?;
            if !socket.is_bound() {
                return Err(ErrorCode::InvalidState.into());
            }
            code(socket.way(host))
        })?;
        let (from, datagram) = poll_fn(|cx| way.poll_receive(cx)).await;
        Ok((datagram.into(), from.into()))
    }
}

impl HostUdpSocket for View<'_> {
    async fn create(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TheirUdp>> {
        let network = code(self.network())?;
        let socket = UdpSocket::new(network, matches!(family, IpAddressFamily::Ipv6));
        Ok(theirs(&self.table.push(socket).map_err(trap)?))
    }

    async fn bind(
        &mut self,
        socket: Resource<TheirUdp>,
        local_address: IpSocketAddress,
    ) -> SocketResult<()> {
        let host = self.host;
        let socket = self.udp3(&socket)?;
        code(socket.bind(SocketAddr::from(local_address), host))
    }

    async fn connect(
        &mut self,
        socket: Resource<TheirUdp>,
        remote_address: IpSocketAddress,
    ) -> SocketResult<()> {
        let host = self.host;
        let socket = self.udp3(&socket)?;
        code(socket.connect(SocketAddr::from(remote_address), host))
    }

    fn disconnect(&mut self, socket: Resource<TheirUdp>) -> SocketResult<()> {
        code(self.udp3(&socket)?.disconnect())
    }

    fn get_local_address(&mut self, socket: Resource<TheirUdp>) -> SocketResult<IpSocketAddress> {
        Ok(code(self.udp3(&socket)?.local())?.into())
    }

    fn get_remote_address(&mut self, socket: Resource<TheirUdp>) -> SocketResult<IpSocketAddress> {
        Ok(code(self.udp3(&socket)?.remote())?.into())
    }

    fn get_address_family(
        &mut self,
        socket: Resource<TheirUdp>,
    ) -> wasmtime::Result<IpAddressFamily> {
        let socket = self.table.get(&ours::<_, UdpSocket>(&socket))?;
        Ok(family(socket.is_v6()))
    }

    fn get_unicast_hop_limit(&mut self, socket: Resource<TheirUdp>) -> SocketResult<u8> {
        Ok(self.udp3(&socket)?.options.hop_limit)
    }

    fn set_unicast_hop_limit(&mut self, socket: Resource<TheirUdp>, value: u8) -> SocketResult<()> {
        code(set(&mut self.udp3(&socket)?.options.hop_limit, value))
    }

    fn get_receive_buffer_size(&mut self, socket: Resource<TheirUdp>) -> SocketResult<u64> {
        Ok(self.udp3(&socket)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(
        &mut self,
        socket: Resource<TheirUdp>,
        value: u64,
    ) -> SocketResult<()> {
        code(set(&mut self.udp3(&socket)?.options.receive_buffer, value))
    }

    fn get_send_buffer_size(&mut self, socket: Resource<TheirUdp>) -> SocketResult<u64> {
        Ok(self.udp3(&socket)?.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, socket: Resource<TheirUdp>, value: u64) -> SocketResult<()> {
        code(set(&mut self.udp3(&socket)?.options.send_buffer, value))
    }

    fn drop(&mut self, socket: Resource<TheirUdp>) -> wasmtime::Result<()> {
        self.table.delete(let_go::<_, UdpSocket>(&socket))?;
        Ok(())
    }
}

impl ip_name_lookup::Host for View<'_> {}

impl ip_name_lookup::HostWithStore<HostState> for Sockets {
    async fn resolve_addresses(
        accessor: &Accessor<HostState, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<IpAddress>, NameError>> {
        let asking = accessor.with(|mut access| {
            let view = access.get();
            let network = view.network.ok_or(NameError::PermanentResolverFailure)?;
            if !super::is_name(&name) {
                return Err(NameError::InvalidArgument);
            }
            Ok(network.resolve(name))
        });
        let found = match asking {
            Ok(asking) => asking.await,
            Err(refused) => return Ok(Err(refused)),
        };
        Ok(match found {
            Ok(found) => Ok(found.into_iter().map(IpAddress::from).collect()),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound => NameError::NameUnresolvable,
                io::ErrorKind::PermissionDenied => NameError::AccessDenied,
                _ => NameError::TemporaryResolverFailure,
            }),
        })
    }
}
