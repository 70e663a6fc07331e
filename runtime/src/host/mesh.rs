//! `weft:mesh/context`: who calls me, how long may I take, on which trace. See `wit/mesh/context.wit`.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use wasmtime::AsContextMut;
use wasmtime::component::{Access, HasData, Linker};

use crate::host::HostState;

/// What is known about a call. Set as an extension on the inbound request by whoever accepted it; found as an
/// extension on each outbound request that the guest makes while it handles the call.
#[derive(Clone, Debug, Default)]
pub struct CallContext {
    /// Who calls; none when nobody was identified.
    pub peer: Option<Arc<Peer>>,
    /// When the caller stops waiting. The runtime may bring it forward, never push it back.
    pub deadline: Option<Instant>,
    pub trace: Option<TraceContext>,
    /// Which attempt of the caller this is; 0 and 1 both mean the first.
    pub attempt: u32,
    /// How many workloads are above this one in the call tree; carried on unchanged, for the outbound service to judge.
    pub depth: u32,
}

/// A verified caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub spiffe_id: String,
    pub namespace: String,
    pub service_account: String,
    pub workload: String,
    pub transport: Transport,
}

/// How a call came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// Handed over in memory on the same node.
    InProcess,
    /// From another node, over mutual TLS.
    MutualTls,
}

/// A W3C trace context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    pub trace_id: u128,
    pub span_id: u64,
    pub sampled: bool,
    /// The `tracestate` header, as it came.
    pub state: Option<Arc<str>>,
}

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit/mesh",
        world: "weft:mesh/imports",
        imports: { default: store | trappable },
    });
}

use bindings::weft::mesh::context;

/// The capability, for the linker.
struct Mesh;

impl HasData for Mesh {
    type Data<'a> = &'a mut HostState;
}

impl context::Host for &mut HostState {}

/// The call that the asking task works on.
fn asking(access: &mut Access<'_, HostState, Mesh>) -> wasmtime::Result<Option<Arc<CallContext>>> {
    let mut store = access.as_context_mut();
    if store.data().is_serial() {
        return Ok(store.data().call_of(None));
    }
    let root = store.async_call_stack()?.last();
    Ok(store.data().call_of(root))
}

impl context::HostWithStore<HostState> for Mesh {
    fn caller(mut access: Access<'_, HostState, Self>) -> wasmtime::Result<Option<context::Peer>> {
        let call = asking(&mut access)?;
        Ok(call
            .and_then(|call| call.peer.clone())
            .map(|peer| context::Peer {
                spiffe_id: peer.spiffe_id.clone(),
                namespace: peer.namespace.clone(),
                service_account: peer.service_account.clone(),
                workload: peer.workload.clone(),
                transport: match peer.transport {
                    Transport::InProcess => context::Transport::InProcess,
                    Transport::MutualTls => context::Transport::MutualTls,
                },
            }))
    }

    fn remaining(
        mut access: Access<'_, HostState, Self>,
    ) -> wasmtime::Result<Option<context::Duration>> {
        let call = asking(&mut access)?;
        Ok(call.and_then(|call| call.deadline).map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)
        }))
    }

    fn attempt(mut access: Access<'_, HostState, Self>) -> wasmtime::Result<u32> {
        Ok(asking(&mut access)?.map_or(1, |call| call.attempt.max(1)))
    }

    fn trace_id(mut access: Access<'_, HostState, Self>) -> wasmtime::Result<Option<String>> {
        let call = asking(&mut access)?;
        Ok(call.and_then(|call| {
            call.trace
                .as_ref()
                .map(|trace| format!("{:032x}", trace.trace_id))
        }))
    }
}

pub(super) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    context::add_to_linker::<HostState, Mesh>(linker, |state| state)
}
