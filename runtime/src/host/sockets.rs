//! `wasi:sockets` of WASI 0.2 and 0.3 on the virtual network that a workload is given ([`crate::network`]).
//!
//! wasmtime's own functions are those of the host's sockets; all of them are linked anew here, over the same bindings, so that nothing of
//! the host can be reached by any. The types that the bindings name in handles are wasmtime's; in the table behind them are ours
//! ([`ours`]). What a socket does is in `tcp` and `udp`; `p2` and `p3` say it in their version's terms.
//!
//! Invariants: an instance without a network, as all that answer calls are, can create no socket and resolve no name; what a guest holds here is bounded by its network and
//! charged to its memory.

mod options;
mod p2;
mod p3;
mod tcp;
mod udp;

use std::sync::Arc;

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::sockets::ErrorCode;

use crate::host::HostState;
use crate::limits::HostBytes;
use crate::network::Network;

pub(super) use p2::link as link_p2;
pub(super) use p3::link as link_p3;

/// `wasi:sockets`, for the linker.
pub(super) struct Sockets;

impl HasData for Sockets {
    type Data<'a> = View<'a>;
}

/// What a function of `wasi:sockets` works with.
pub(super) struct View<'a> {
    table: &'a mut ResourceTable,
    network: Option<&'a Network>,
    host: &'a Arc<HostBytes>,
}

fn view(state: &mut HostState) -> View<'_> {
    View {
        table: &mut state.table,
        network: state.network.as_ref(),
        host: state.memory.host(),
    }
}

impl View<'_> {
    /// The network, if there is one.
    fn network(&self) -> Result<&Network, ErrorCode> {
        self.network.ok_or(ErrorCode::AccessDenied)
    }
}

/// The handle of a type that the bindings name as one of ours, which is what is in the table.
fn ours<Theirs: 'static, Ours: 'static>(handle: &Resource<Theirs>) -> Resource<Ours> {
    Resource::new_borrow(handle.rep())
}

/// The other way, of what was just put into the table.
fn theirs<Ours: 'static, Theirs: 'static>(handle: &Resource<Ours>) -> Resource<Theirs> {
    Resource::new_own(handle.rep())
}

/// One of ours that the guest lets go.
fn let_go<Theirs: 'static, Ours: 'static>(handle: &Resource<Theirs>) -> Resource<Ours> {
    Resource::new_own(handle.rep())
}

/// Whether a text can be a name or an address at all.
fn is_name(name: &str) -> bool {
    /// Of a name of DNS, as it is written.
    const NAME_BYTES_MAX: usize = 254;
    let mut bytes = name.bytes();
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}
