//! Sockets of TCP and the streams of their connections.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::network::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Network,
};
use wasmtime_wasi::p2::bindings::sockets::tcp::{self, ShutdownType};
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket;
use wasmtime_wasi::p2::{
    self, DynInputStream, DynOutputStream, DynPollable, InputStream, OutputStream, Pollable,
    SocketResult, StreamError, StreamResult, subscribe,
};

use super::super::options::set;
use super::super::tcp::{Doing, TcpSocket};
use super::super::{View, let_go, ours, theirs};
use super::{READ_BYTES_MAX, code, family, now};
use crate::network::{Reader, Writer};

impl View<'_> {
    fn tcp(&mut self, socket: &Resource<p2::TcpSocket>) -> SocketResult<&mut TcpSocket> {
        Ok(self.table.get_mut(&ours::<_, TcpSocket>(socket))?)
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
