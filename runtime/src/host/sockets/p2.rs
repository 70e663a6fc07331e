//! `wasi:sockets` of WASI 0.2: operations that are started and finished, and pollables.

mod lookup;
mod tcp;
mod udp;

use std::task::{Context, Waker};

use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddressFamily, Network};
use wasmtime_wasi::p2::bindings::sockets::{
    ip_name_lookup, tcp as tcp_interface, tcp_create_socket, udp as udp_interface,
    udp_create_socket,
};
use wasmtime_wasi::p2::{SocketError, SocketResult};

use super::{Sockets, View, view};
use crate::host::HostState;

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
    tcp_interface::add_to_linker::<HostState, Sockets>(linker, view)?;
    udp_create_socket::add_to_linker::<HostState, Sockets>(linker, view)?;
    udp_interface::add_to_linker::<HostState, Sockets>(linker, view)?;
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
