//! What a guest can ask of its host: WASI 0.2 and 0.3, `wasi:http`, `weft:files`, `weft:mesh`, `weft:terminal`, and the engine's capabilities.
//!
//! Everything is linked once, for all workloads: what a workload may *do* is decided by the state in its store (no
//! files, no network, no outbound service, no capability unless granted), so that one prelinked component serves them all.

pub mod config;
mod files;
mod filesystem;
pub mod http;
pub mod keyvalue;
pub mod mesh;
pub mod metrics;
mod resources;
mod shadow;
mod sockets;
mod terminal;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::watch;
use wasmtime::component::{GuestTaskId, Linker, ResourceTable};
use wasmtime::{Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use weft_call::{CallContext, CallOptions};

use crate::capability::{Bound, Capability};
use crate::engine::Calls;
use crate::instance::CallSlot;
use crate::limits::{MemoryShare, Slice};
use crate::logs::Working;
use crate::network::Network;
use crate::ownership::MASK;
use crate::stdio::{ChannelInput, ChannelOutput, Stdio, TerminalSize, on_terminal};
use crate::workload::Inner;

/// Below this, a guest that meets an epoch tick runs on: yielding costs more than the neighbours gain.
const SLICE_MIN: Duration = Duration::from_micros(500);

/// The data of one store: everything that belongs to one instance and is gone with it.
///
/// Host functions of a [`Capability`] get it as the store's data, and find what the instance has of it with [`HostState::bound`].
pub struct HostState {
    wasi: WasiCtx,
    http_ctx: WasiHttpCtx,
    hooks: http::Hooks,
    table: ResourceTable,
    /// Bytes that may have come into the table since they were counted.
    uncounted: usize,
    memory: MemoryShare,
    calls: Open,
    /// What a task asks for of the next request that it sends.
    asked: Option<(Option<GuestTaskId>, CallOptions)>,
    /// Where what it prints is told with its call.
    working: Option<Arc<Working>>,
    bound: Bound,
    /// The size of the terminal that its streams are of.
    terminal: Option<watch::Receiver<TerminalSize>>,
    /// Where its sockets are. A command's alone: what answers calls has none.
    network: Option<Network>,
    /// Bits that what it makes does not get.
    mask: u32,
    workload: Arc<Inner>,
}

impl HostState {
    /// From now on the instance may open sockets in its workload's network, if that has one.
    pub(crate) fn open_network(&mut self) {
        self.network = self.workload.network().cloned();
    }

    /// What this instance has of `C`.
    ///
    /// # Errors
    /// When its workload was not granted `C`. A component that imports it would not have been started.
    pub fn bound<C: Capability>(&mut self) -> wasmtime::Result<&mut C::Bound> {
        let bound = self.bound.of::<C>();
        bound.ok_or_else(|| wasmtime::Error::msg(format!("{} is not granted", C::NAME)))
    }

    /// The name that the workload was built with.
    pub fn workload_name(&self) -> &str {
        &self.workload.config().name
    }

    /// The host's resources of this instance.
    pub fn table_mut(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// From now on, and unless a task is known to belong to another call, the guest works on `context`.
    pub(crate) fn begin_call(&mut self, context: Arc<CallContext>) {
        if let Some(working) = &self.working {
            let is_only = self.calls.by_task.iter().all(|(_, slot)| slot.is_over());
            working.set(is_only.then(|| context.clone()));
        }
        self.calls.current = Some(context.clone());
        self.hooks.context = Some(context);
        self.asked = None;
    }

    /// What `task` asks for of its next request. Whatever another one has asked for and not used is forgotten: between asking and
    /// sending, guests do nothing else.
    fn options_of(&mut self, task: Option<GuestTaskId>) -> &mut CallOptions {
        let asked = self.asked.take().filter(|(of, _)| *of == task);
        let (_, options) = self
            .asked
            .insert(asked.unwrap_or((task, CallOptions::default())));
        options
    }

    /// The same, which is used up by that.
    fn take_options(&mut self, task: Option<GuestTaskId>) -> CallOptions {
        let asked = self.asked.take_if(|(of, _)| *of == task);
        asked.map(|(_, options)| options).unwrap_or_default()
    }

    /// `task` works on the call of `slot`, until the guest has returned from it and its caller is done.
    pub(crate) fn assign_task(&mut self, task: GuestTaskId, slot: Arc<CallSlot>) {
        // A busy instance would otherwise keep what is known of each call that it ever had.
        self.calls.by_task.retain(|(_, slot)| !slot.is_over());
        self.calls.by_task.push((task, slot));
    }

    /// Whether there is never more than one call.
    pub(crate) fn is_serial(&self) -> bool {
        self.workload.policy().concurrent_max() == 1
    }

    /// No call is open any more.
    pub(crate) fn end_calls(&mut self) {
        self.calls = Open::default();
        self.hooks.context = None;
        self.asked = None;
        if let Some(working) = &self.working {
            working.set(None);
        }
    }

    /// The call that the task which began with `root` works on; none when that is over.
    pub(crate) fn call_of(&self, root: Option<GuestTaskId>) -> Option<Arc<CallContext>> {
        if let Some(root) = root
            && !self.is_serial()
        {
            let mut calls = self.calls.by_task.iter().rev();
            let (_, slot) = calls.find(|(task, _)| *task == root)?;
            return Some(slot.context.clone());
        }
        self.calls.current.clone()
    }
}

/// Which call a host function is answering. With several calls in one instance the guest's task tells them apart.
#[derive(Default)]
struct Open {
    current: Option<Arc<CallContext>>,
    by_task: Vec<(GuestTaskId, Arc<CallSlot>)>,
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for HostState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http_ctx,
        }
    }
}

/// The guest's asking task; none where an instance has one call at a time, which all of it works on.
pub(crate) fn task(
    store: &mut StoreContextMut<'_, HostState>,
) -> wasmtime::Result<Option<GuestTaskId>> {
    match store.data().is_serial() {
        true => Ok(None),
        false => Ok(store.async_call_stack()?.last()),
    }
}

/// The call that the guest's asking task works on.
pub(crate) fn asking(
    store: &mut StoreContextMut<'_, HostState>,
) -> wasmtime::Result<Option<Arc<CallContext>>> {
    let task = task(store)?;
    Ok(store.data().call_of(task))
}

/// What [`link`] links, for the sentence that refuses another import: packages and their versions.
pub(crate) const LINKED: [(&str, &str); 10] = [
    ("wasi:cli", "0.2.12 and 0.3.0"),
    ("wasi:clocks", "0.2.12 and 0.3.0"),
    ("wasi:filesystem", "0.2.12 and 0.3.0"),
    ("wasi:http", "0.2.12 and 0.3.0"),
    ("wasi:io", "0.2.12"),
    ("wasi:random", "0.2.12 and 0.3.0"),
    ("wasi:sockets", "0.2.12 and 0.3.0"),
    ("weft:files", "0.1.0"),
    ("weft:mesh", "0.1.1"),
    ("weft:terminal", "0.1.0"),
];

/// Links everything that every workload is offered.
pub(crate) fn link(linker: &mut Linker<HostState>, calls: Calls) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    filesystem::p2::link(linker)?;
    http::link_p2(linker)?;
    resources::link_p2(linker)?;
    sockets::link_p2(linker)?;
    if calls == Calls::Concurrent {
        wasmtime_wasi::p3::add_to_linker(linker)?;
        filesystem::p3::link(linker)?;
        http::link_p3(linker)?;
        resources::link_p3(linker)?;
        sockets::link_p3(linker)?;
    }
    files::link(linker)?;
    mesh::link(linker)?;
    terminal::link(linker)
}

/// A store for one instance of `workload`, on the engine that its code is for. `refused` is set when the guest was denied memory
/// and did not recover.
pub(crate) fn new_store(
    workload: &Arc<Inner>,
    engine: &wasmtime::Engine,
    refused: Arc<AtomicBool>,
) -> Store<HostState> {
    store_with(workload, engine, Stdio::default(), refused)
}

/// The same, with these streams.
pub(crate) fn store_with(
    workload: &Arc<Inner>,
    engine: &wasmtime::Engine,
    stdio: Stdio,
    refused: Arc<AtomicBool>,
) -> Store<HostState> {
    let limits = workload.limits();
    let config = workload.config();
    let mut wasi = WasiCtx::builder();
    wasi.envs(&config.env)
        .args(&config.args)
        .max_random_size(limits.random_bytes);
    if let Some(cwd) = &config.cwd {
        wasi.initial_cwd(cwd);
    }
    let terminal = stdio.terminal.is_some();
    let wants_calls = workload.stdout().wants_calls() || workload.stderr().wants_calls();
    let working = wants_calls.then(Arc::<Working>::default);
    match (stdio.stdout, workload.stdout()) {
        (Some(chunks), _) => wasi.stdout(ChannelOutput::new(chunks, terminal)),
        (None, sink) if terminal => wasi.stdout(on_terminal(sink)),
        (None, sink) => wasi.stdout(sink.of_instance(working.as_ref())),
    };
    match (stdio.stderr, workload.stderr()) {
        (Some(chunks), _) => wasi.stderr(ChannelOutput::new(chunks, terminal)),
        (None, sink) if terminal => wasi.stderr(on_terminal(sink)),
        (None, sink) => wasi.stderr(sink.of_instance(working.as_ref())),
    };
    match (stdio.stdin, workload.stdin()) {
        (Some(chunks), _) => {
            let stopped = workload.draining().clone();
            wasi.stdin(ChannelInput::new(chunks, stopped, terminal));
        }
        (None, Some(silence)) => {
            wasi.stdin(silence);
        }
        (None, None) => {}
    }
    let mut table = ResourceTable::new();
    table.set_max_capacity(limits.resources_max);
    let mut http_ctx = WasiHttpCtx::new();
    http_ctx.set_field_size_limit(limits.header_bytes);
    let mut wasi = wasi.build();
    wasi.filesystem().clone_from(workload.filesystem());
    let memory = MemoryShare::new(
        workload.memory().clone(),
        limits.table_elements,
        refused,
        workload.events().cloned(),
    );
    let state = HostState {
        wasi,
        http_ctx,
        hooks: http::Hooks::new(workload),
        table,
        uncounted: 0,
        bound: workload.granted().bind(memory.host()),
        memory,
        calls: Open::default(),
        asked: None,
        working,
        terminal: stdio.terminal,
        network: None,
        mask: MASK,
        workload: workload.clone(),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(limits.hostcall_bytes);
    store.set_max_component_handles(limits.handles_max);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| {
        let cpu = store.data().workload.cpu();
        let used = Slice::checkpoint(cpu);
        if let Some(debt) = cpu.debt() {
            Slice::preempt();
            return Ok(UpdateDeadline::YieldCustom(
                1,
                Box::pin(tokio::time::sleep(debt)),
            ));
        }
        if used < SLICE_MIN {
            return Ok(UpdateDeadline::Continue(1));
        }
        Slice::preempt();
        // Not `Yield`: that would put the guest first in tokio's queue again, and starve its neighbours.
        Ok(UpdateDeadline::YieldCustom(
            1,
            Box::pin(tokio::task::yield_now()),
        ))
    });
    store
}
