//! `weft:mesh`: who calls me, what I ask for of my own calls, what I tell of the one that I serve. See `wit/mesh/mesh.wit`.
//!
//! Invariants: what a guest asks for holds for one request, of the call that it works on; it gets nothing by it that its own call does not
//! have. `weft:mesh/metrics` is a capability (`metrics.rs`), all else every workload has.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::AsContextMut;
use wasmtime::component::{Access, HasData, Linker};
use weft_call::{CallContext, CallOptions, HEDGE_AFTER_MIN, Priority, Transport, Untaken};

use crate::host::HostState;

pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit/mesh",
        world: "weft:mesh/imports",
        imports: { default: store | trappable },
    });
}

use bindings::weft::mesh::{context, outgoing, serving};

/// What every workload has of it, for the linker.
struct Mesh;

impl HasData for Mesh {
    type Data<'a> = &'a mut HostState;
}

impl context::Host for &mut HostState {}
impl outgoing::Host for &mut HostState {}
impl serving::Host for &mut HostState {}

type Asking<'a> = Access<'a, HostState, Mesh>;

fn asking(access: &mut Asking<'_>) -> wasmtime::Result<Option<Arc<CallContext>>> {
    super::asking(&mut access.as_context_mut())
}

impl context::HostWithStore<HostState> for Mesh {
    fn caller(mut access: Asking<'_>) -> wasmtime::Result<Option<context::Peer>> {
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

    fn call_origin(mut access: Asking<'_>) -> wasmtime::Result<Option<context::Origin>> {
        let call = asking(&mut access)?;
        Ok(call.map(|call| match (&call.peer, call.outside) {
            (_, true) => context::Origin::Gateway,
            (Some(_), false) => context::Origin::Workload,
            (None, false) => context::Origin::Host,
        }))
    }

    fn call_priority(mut access: Asking<'_>) -> wasmtime::Result<context::Priority> {
        let call = asking(&mut access)?;
        Ok(match call.map(|call| call.priority).unwrap_or_default() {
            Priority::Critical => context::Priority::Critical,
            Priority::Usual => context::Priority::Usual,
            Priority::Low => context::Priority::Low,
            Priority::Sheddable => context::Priority::Sheddable,
        })
    }

    fn remaining(mut access: Asking<'_>) -> wasmtime::Result<Option<context::Duration>> {
        let call = asking(&mut access)?;
        Ok(call.and_then(|call| call.deadline).map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)
        }))
    }

    fn attempt(mut access: Asking<'_>) -> wasmtime::Result<u32> {
        // The host counts from 0, the interface from 1.
        Ok(asking(&mut access)?.map_or(1, |call| call.attempt.saturating_add(1)))
    }

    fn port(mut access: Asking<'_>) -> wasmtime::Result<Option<u16>> {
        Ok(asking(&mut access)?.and_then(|call| call.port))
    }

    fn trace_id(mut access: Asking<'_>) -> wasmtime::Result<Option<String>> {
        let call = asking(&mut access)?;
        Ok(call.and_then(|call| {
            call.trace
                .as_ref()
                .map(|trace| format!("{:032x}", trace.trace_id))
        }))
    }
}

/// Asks for something of the next request of the asking task.
fn ask(access: &mut Asking<'_>, change: impl FnOnce(&mut CallOptions)) -> wasmtime::Result<()> {
    let mut store = access.as_context_mut();
    let task = super::task(&mut store)?;
    change(store.data_mut().options_of(task));
    Ok(())
}

impl outgoing::HostWithStore<HostState> for Mesh {
    fn idempotent(mut access: Asking<'_>) -> wasmtime::Result<()> {
        ask(&mut access, |options| options.idempotent = true)
    }

    fn no_retry(mut access: Asking<'_>) -> wasmtime::Result<()> {
        ask(&mut access, |options| options.once = true)
    }

    fn hedge_after(mut access: Asking<'_>, wait: context::Duration) -> wasmtime::Result<()> {
        let wait = Duration::from_nanos(wait).max(HEDGE_AFTER_MIN);
        ask(&mut access, |options| options.hedge_after = Some(wait))
    }

    fn within(mut access: Asking<'_>, limit: context::Duration) -> wasmtime::Result<()> {
        let limit = Duration::from_nanos(limit);
        ask(&mut access, |options| options.within = Some(limit))
    }

    fn at_most(mut access: Asking<'_>, priority: context::Priority) -> wasmtime::Result<()> {
        let priority = match priority {
            context::Priority::Critical => Priority::Critical,
            context::Priority::Usual => Priority::Usual,
            context::Priority::Low => Priority::Low,
            context::Priority::Sheddable => Priority::Sheddable,
        };
        ask(&mut access, |options| options.at_most = Some(priority))
    }

    fn hash_key(mut access: Asking<'_>, key: Vec<u8>) -> wasmtime::Result<()> {
        let key = CallOptions::key_of(&key);
        ask(&mut access, |options| options.key = Some(key))
    }
}

impl serving::HostWithStore<HostState> for Mesh {
    fn rest(mut access: Asking<'_>, time: context::Duration) -> wasmtime::Result<()> {
        if let Some(told) = asking(&mut access)?.and_then(|call| call.spent.clone()) {
            told.rest(Duration::from_nanos(time));
        }
        Ok(())
    }

    fn no_retry(mut access: Asking<'_>) -> wasmtime::Result<()> {
        if let Some(told) = asking(&mut access)?.and_then(|call| call.spent.clone()) {
            told.tell();
        }
        Ok(())
    }

    fn set_attribute(
        mut access: Asking<'_>,
        name: String,
        value: String,
    ) -> wasmtime::Result<Result<(), serving::Refusal>> {
        let call = asking(&mut access)?;
        let recorded = call.filter(|call| {
            let trace = call.trace.as_ref();
            trace.is_some_and(weft_call::TraceContext::is_recorded)
        });
        let told = recorded.and_then(|call| call.spent.clone());
        // Where nobody looks it is judged all the same: a guest that is wrong hears of it always.
        let set = told.unwrap_or_default().set(&name, &value);
        Ok(set.map_err(|untaken| match untaken {
            Untaken::Name => serving::Refusal::Name,
            Untaken::TooLong => serving::Refusal::TooLong,
            Untaken::TooMany => serving::Refusal::TooMany,
        }))
    }
}

pub(super) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    context::add_to_linker::<HostState, Mesh>(linker, |state| state)?;
    outgoing::add_to_linker::<HostState, Mesh>(linker, |state| state)?;
    serving::add_to_linker::<HostState, Mesh>(linker, |state| state)
}
