//! `weft:mesh/context`: who calls me, how long may I take, on which trace. See `wit/mesh/context.wit`.

use std::sync::Arc;
use std::time::Instant;

use wasmtime::AsContextMut;
use wasmtime::component::{Access, HasData, Linker};
use weft_call::{CallContext, Transport};

use crate::host::HostState;

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

fn asking(access: &mut Access<'_, HostState, Mesh>) -> wasmtime::Result<Option<Arc<CallContext>>> {
    super::asking(&mut access.as_context_mut())
}

impl context::HostWithStore<HostState> for Mesh {
    fn caller(mut access: Access<'_, HostState, Self>) -> wasmtime::Result<Option<context::Peer>> {
        let call = asking(&mut access)?;
        Ok(call
            .and_then(|call| call.peer.clone())
            .map(|peer| context::Peer {
                spiffe_id: peer.spiffe_id.to_string(),
                namespace: peer.namespace.to_string(),
                service_account: peer.service_account.to_string(),
                workload: peer.workload.to_string(),
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
        // The host counts from 0, the interface from 1.
        Ok(asking(&mut access)?.map_or(1, |call| call.attempt.saturating_add(1)))
    }

    fn port(mut access: Access<'_, HostState, Self>) -> wasmtime::Result<Option<u16>> {
        Ok(asking(&mut access)?.and_then(|call| call.port))
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
