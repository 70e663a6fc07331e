//! A socket of TCP, whichever version of WASI asks.
//!
//! ```text
//! New ──bind──► New, bound ──listen──► Listening ──accept──► Connected
//!  └──────────────┴────connect──► Connecting ──► Connected
//!                                     └────────► Closed
//! ```
//!
//! Invariant: an operation that does not fit the state changes nothing, and is answered `invalid-state`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::future::BoxFuture;
use wasmtime_wasi::sockets::ErrorCode;

use super::options::Options;
use crate::limits::HostBytes;
use crate::network::{
    BACKLOG_MAX, Bound, Dialing, Held, Listener, Network, PIPE_BYTES, Reader, Stream, Writer,
};

/// An operation of WASI 0.2 that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Bind,
    Connect,
    Listen,
}

/// See the module's promise.
pub(super) struct TcpSocket {
    network: Network,
    is_v6: bool,
    state: State,
    backlog: usize,
    pub(super) options: Options,
    pub(super) doing: Option<Doing>,
    /// What the guest shuts down by the socket (WASI 0.2); its streams have it, too.
    pub(super) ends: Option<(Arc<Reader>, Arc<Writer>)>,
}

enum State {
    New(Option<Bound>),
    Connecting(BoxFuture<'static, Result<Stream, ErrorCode>>, Option<Bound>),
    Listening(Arc<Listener>),
    Connected(Connected),
    Closed(ErrorCode),
}

struct Connected {
    local: SocketAddr,
    remote: SocketAddr,
    reader: Option<Reader>,
    writer: Option<Writer>,
    held: Option<Arc<Held>>,
    _bound: Option<Bound>,
}

/// A direction of a connection, and what the connection holds.
pub(super) type Direction<T> = (T, Option<Arc<Held>>);

impl TcpSocket {
    pub(super) fn new(network: &Network, is_v6: bool) -> TcpSocket {
        TcpSocket {
            network: network.clone(),
            is_v6,
            state: State::New(None),
            backlog: BACKLOG_MAX,
            options: Options::new(PIPE_BYTES),
            doing: None,
            ends: None,
        }
    }

    /// What the sockets of its connections have of it.
    pub(super) fn heirs(&self) -> Heirs {
        Heirs {
            network: self.network.clone(),
            is_v6: self.is_v6,
            options: self.options.clone(),
        }
    }

    pub(super) fn is_v6(&self) -> bool {
        self.is_v6
    }

    /// Whether an address is of the socket's family. IPv4 in the clothes of IPv6 is not: these sockets speak IPv6 only.
    fn is_of_family(&self, ip: IpAddr) -> bool {
        is_of_family(self.is_v6, ip)
    }

    pub(super) fn bind(&mut self, address: SocketAddr) -> Result<(), ErrorCode> {
        if !self.is_of_family(address.ip()) {
            return Err(ErrorCode::InvalidArgument);
        }
        match &mut self.state {
            State::New(bound @ None) => {
                *bound = Some(self.network.bind(address)?);
                Ok(())
            }
            _ => Err(ErrorCode::InvalidState),
        }
    }

    pub(super) fn is_bound(&self) -> bool {
        !matches!(self.state, State::New(None))
    }

    /// Begins to listen; a socket that is bound to nothing is bound to some port.
    pub(super) fn listen(&mut self, host: &Arc<HostBytes>) -> Result<Arc<Listener>, ErrorCode> {
        let State::New(bound) = &mut self.state else {
            return Err(ErrorCode::InvalidState);
        };
        let bound = match bound.take() {
            Some(bound) => bound,
            None => self.network.bind(unspecified(self.is_v6))?,
        };
        let listener = Arc::new(bound.listen(self.backlog, host));
        self.state = State::Listening(listener.clone());
        Ok(listener)
    }

    pub(super) fn listener(&self) -> Option<&Arc<Listener>> {
        match &self.state {
            State::Listening(listener) => Some(listener),
            _ => None,
        }
    }

    pub(super) fn connect(
        &mut self,
        to: SocketAddr,
        host: &Arc<HostBytes>,
    ) -> Result<(), ErrorCode> {
        let State::New(bound) = &mut self.state else {
            return Err(ErrorCode::InvalidState);
        };
        if to.port() == 0 || to.ip().is_unspecified() || !is_of_family(self.is_v6, to.ip()) {
            return Err(ErrorCode::InvalidArgument);
        }
        let bound = bound.take();
        let connecting: BoxFuture<'static, _> = match self.network.dial(bound.as_ref(), to, host) {
            Dialing::Done(done) => Box::pin(std::future::ready(done)),
            Dialing::Waiting(waiting) => waiting,
        };
        self.state = State::Connecting(connecting, bound);
        Ok(())
    }

    /// Ready when the connection is made, or is not. To be asked until then only.
    pub(super) fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ErrorCode>> {
        match &mut self.state {
            State::Connecting(connecting, bound) => {
                let connected = ready!(connecting.as_mut().poll(cx));
                let bound = bound.take();
                match connected {
                    Ok(stream) => self.state = State::connected(stream, bound),
                    Err(code) => self.state = State::Closed(code),
                }
                self.settled()
            }
            _ => self.settled(),
        }
    }

    fn settled(&self) -> Poll<Result<(), ErrorCode>> {
        match &self.state {
            State::Connected(_) => Poll::Ready(Ok(())),
            State::Closed(code) => Poll::Ready(Err(*code)),
            _ => Poll::Ready(Err(ErrorCode::InvalidState)),
        }
    }

    /// What comes in, once.
    pub(super) fn take_reader(&mut self) -> Result<Direction<Reader>, ErrorCode> {
        match &mut self.state {
            State::Connected(connected) => {
                let reader = connected.reader.take().ok_or(ErrorCode::InvalidState)?;
                Ok((reader, connected.held.clone()))
            }
            State::Closed(code) => Err(*code),
            _ => Err(ErrorCode::InvalidState),
        }
    }

    /// Where what goes out is written, once.
    pub(super) fn take_writer(&mut self) -> Result<Direction<Writer>, ErrorCode> {
        match &mut self.state {
            State::Connected(connected) => {
                let writer = connected.writer.take().ok_or(ErrorCode::InvalidState)?;
                Ok((writer, connected.held.clone()))
            }
            State::Closed(code) => Err(*code),
            _ => Err(ErrorCode::InvalidState),
        }
    }

    pub(super) fn local(&self) -> Result<SocketAddr, ErrorCode> {
        match &self.state {
            State::New(Some(bound)) => Ok(bound.local()),
            State::Listening(listener) => Ok(listener.local()),
            State::Connected(connected) => Ok(connected.local),
            State::Closed(code) => Err(*code),
            State::New(None) | State::Connecting(..) => Err(ErrorCode::InvalidState),
        }
    }

    pub(super) fn remote(&self) -> Result<SocketAddr, ErrorCode> {
        match &self.state {
            State::Connected(connected) => Ok(connected.remote),
            State::Closed(code) => Err(*code),
            _ => Err(ErrorCode::InvalidState),
        }
    }

    pub(super) fn set_backlog(&mut self, value: u64) -> Result<(), ErrorCode> {
        if value == 0 {
            return Err(ErrorCode::InvalidArgument);
        }
        self.backlog = usize::try_from(value).unwrap_or(usize::MAX);
        match &self.state {
            State::New(_) => Ok(()),
            State::Listening(listener) => {
                listener.set_backlog(self.backlog);
                Ok(())
            }
            _ => Err(ErrorCode::InvalidState),
        }
    }
}

/// Makes the sockets of connections that come to a listener.
pub(super) struct Heirs {
    network: Network,
    is_v6: bool,
    options: Options,
}

impl Heirs {
    pub(super) fn accepted(&self, stream: Stream) -> TcpSocket {
        TcpSocket {
            state: State::connected(stream, None),
            options: self.options.clone(),
            ..TcpSocket::new(&self.network, self.is_v6)
        }
    }
}

impl State {
    fn connected(stream: Stream, bound: Option<Bound>) -> State {
        let (local, remote) = (stream.local(), stream.remote());
        let (reader, writer, held) = stream.into_parts();
        State::Connected(Connected {
            local,
            remote,
            reader: Some(reader),
            writer: Some(writer),
            held,
            _bound: bound,
        })
    }
}

pub(super) fn is_of_family(is_v6: bool, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => !is_v6,
        IpAddr::V6(ip) => is_v6 && ip.to_ipv4_mapped().is_none(),
    }
}

/// Any port of any address of the family.
pub(super) fn unspecified(is_v6: bool) -> SocketAddr {
    match is_v6 {
        true => SocketAddr::from(([0_u16; 8], 0)),
        false => SocketAddr::from(([0_u8; 4], 0)),
    }
}
