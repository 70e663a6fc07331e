//! The engine: compiled code, the memory of all instances, and the clock that interrupts them.
//!
//! One engine serves one trust domain. Its memory is reserved once and handed out in slots (pooling allocator); a slot
//! keeps its resident pages between tenants, and is reset before the next one sees it. What the kernel offers is asked
//! at start-up, see [`EngineBuilder::build`].
//!
//! There are two kinds of machine code ([`Calls`]): components of WASI 0.2 are called plainly, those of 0.3 through the component
//! model's event loop, which has to know of every call in either direction and takes its time for that. Each kind has a
//! [`Machine`] with memory of its own.
//!
//! What there is a fixed number of is handed out by accounts ([`crate::account`]), so that the engine itself has to refuse nothing.
//!
//! Invariants: epochs advance while any guest runs, from a thread of their own, whatever the runtimes do; compiled
//! artefacts fit every engine that this version of the crate builds on the same kind of machine ([`compiler_config`]).

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, OptLevel, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::account::{Account, Amounts, Ledger};
use crate::artifact::{Artifact, ArtifactError, Artifacts, Digest};
use crate::capability::{Capabilities, Capability, GrantError, Granted, Grants};
use crate::compile::{Compiler, CompilerCommand};
use crate::cores::Cores;
use crate::host::config::ConfigStore;
use crate::host::keyvalue::KeyValue;
use crate::host::metrics::MeshMetrics;
use crate::host::{self, HostState};
use crate::scheduling::{self, Rank};

/// Why an engine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(
        "the engine's configuration is not possible on this machine; fewer instances or less memory each may be"
    )]
    Engine(#[source] wasmtime::Error),
    /// Two of them link the same name, or one of them one of WASI's.
    #[error("a capability could not be linked")]
    Capability(#[source] wasmtime::Error),
    #[error("the cache of compiled components at {path} cannot be used")]
    Cache {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("starting the epoch thread")]
    Ticker(#[source] std::io::Error),
}

/// How the calls into a component, and its calls out, are made. Decided when it is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Calls {
    /// One at a time, each a plain call: all that WASI 0.2 can express.
    Serial,
    /// Tasks of the component model, any number at the same time: components of WASI 0.3, and plug-ins. Host functions that are
    /// `async` in WIT (`func_wrap_concurrent`) exist here alone.
    Concurrent,
}

impl Calls {
    pub(crate) const ALL: [Calls; 2] = [Calls::Serial, Calls::Concurrent];
}

/// What runs one kind of code: its engine, with memory for its instances, and what they can import.
pub(crate) struct Machine {
    pub(crate) wasm: wasmtime::Engine,
    pub(crate) linker: Linker<HostState>,
}

/// Options of an [`Engine`].
pub struct EngineBuilder {
    instances_max: u32,
    instance_memory_bytes_max: u64,
    memory_keep_resident_bytes: usize,
    table_keep_resident_bytes: usize,
    epoch_tick: Duration,
    pagemap_scan: Option<bool>,
    component_bytes_max: usize,
    cache_dir: Option<PathBuf>,
    compiler: Option<CompilerCommand>,
    accept_plugins: bool,
    capabilities: Capabilities,
}

/// A host for components. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    serial: Machine,
    concurrent: Machine,
    ticker: Ticker,
    artifacts: Artifacts,
    ledger: Arc<Ledger>,
    accept_plugins: bool,
    capabilities: Capabilities,
    /// Threads for guests that compute for long; started when the first one does.
    away: OnceLock<Option<Away>>,
}

impl Engine {
    /// Options, with defaults for a node of a few thousand workloads.
    pub fn builder() -> EngineBuilder {
        let mut capabilities = Capabilities::default();
        capabilities.add(ConfigStore);
        capabilities.add(KeyValue);
        capabilities.add(MeshMetrics);
        EngineBuilder {
            instances_max: 1_000,
            instance_memory_bytes_max: 4 << 30,
            // A Rust guest dirties well under a megabyte; more would only cost memory that nobody touches.
            memory_keep_resident_bytes: 1 << 20,
            table_keep_resident_bytes: 64 << 10,
            // Bounds what a neighbour waits for a guest that computes; only ticks while guests run.
            epoch_tick: Duration::from_millis(1),
            pagemap_scan: None,
            component_bytes_max: 64 << 20,
            cache_dir: None,
            compiler: None,
            accept_plugins: false,
            capabilities,
        }
    }

    /// Verifies and compiles `bytes`, or finds the result of having done so.
    ///
    /// Equal bytes are compiled once, also when several tasks ask at the same time; with a cache directory, once per
    /// machine and version. The artefact is ready to run: everything it imports is there.
    ///
    /// # Errors
    /// One sentence about what is wrong with the component, or with the machine ([`ArtifactError`]).
    pub async fn load(&self, bytes: impl Into<bytes::Bytes>) -> Result<Artifact, ArtifactError> {
        self.inner.artifacts.load(self, bytes.into()).await
    }

    /// An artefact that this machine has compiled before, without its bytes. None when it has not.
    pub async fn load_cached(&self, digest: Digest) -> Result<Option<Artifact>, ArtifactError> {
        self.inner.artifacts.load_cached(self, digest).await
    }

    /// The machine code of an artefact of this engine, as a file. For handing it to a process that may not open any.
    pub(crate) fn open_code(&self, artifact: &Artifact) -> std::io::Result<std::fs::File> {
        self.inner.artifacts.open_code(artifact)
    }

    /// An artefact whose machine code another process of ours has verified and handed over.
    pub(crate) fn adopt(
        &self,
        digest: Digest,
        calls: Calls,
        code: impl FnOnce() -> std::io::Result<Vec<u8>>,
    ) -> Result<Artifact, ArtifactError> {
        self.inner.artifacts.adopt(self, digest, calls, code)
    }

    /// An artefact that is in use already, without waiting for anything.
    pub fn loaded(&self, digest: Digest) -> Option<Artifact> {
        self.inner.artifacts.loaded(digest)
    }

    /// Unloads the machine code of every component that was not called since this was last asked, and says of how many.
    ///
    /// Workloads stay; the next call of one maps its code again from the cache directory, in milliseconds. Without a cache
    /// directory nothing is unloaded. Ask at the pace at which code is to grow cold.
    pub fn unload_cold(&self) -> usize {
        self.inner.artifacts.unload_cold()
    }

    /// Live instances' use of the engine's slots: those of WASI 0.2, and those of 0.3.
    pub fn pool_metrics(&self) -> [Option<wasmtime::PoolingAllocatorMetrics>; 2] {
        Calls::ALL.map(|calls| self.machine(calls).wasm.pooling_allocator_metrics())
    }

    pub(crate) fn machine(&self, calls: Calls) -> &Machine {
        match calls {
            Calls::Serial => &self.inner.serial,
            Calls::Concurrent => &self.inner.concurrent,
        }
    }

    /// The account of that name.
    pub(crate) fn account(&self, name: &str) -> Arc<Account> {
        self.inner.ledger.account(name)
    }

    pub(crate) fn artifacts(&self) -> &Artifacts {
        &self.inner.artifacts
    }

    pub(crate) fn accepts_plugins(&self) -> bool {
        self.inner.accept_plugins
    }

    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.inner.capabilities
    }

    /// What a workload of `artifact` has of its `grants`.
    pub(crate) fn granted(
        &self,
        grants: &Grants,
        artifact: &Artifact,
    ) -> Result<Granted, GrantError> {
        self.inner.capabilities.granted(grants, artifact.imports())
    }

    pub(crate) fn ticker(&self) -> &Ticker {
        &self.inner.ticker
    }

    /// Where a guest of this core goes on when it computes for long, so that the kernel can share the processor between
    /// it and its neighbours. None when the machine has no threads left.
    pub(crate) fn away(&self, rank: Rank) -> Option<&Handle> {
        let threads = self.inner.away.get_or_init(|| {
            let count = scheduling::parallelism();
            let start = |rank| Cores::start_as(count, rank);
            match start(Rank::Reserved).and_then(|reserved| Ok((reserved, start(Rank::Idle)?))) {
                Ok((reserved, idle)) => Some(Away { reserved, idle }),
                Err(error) => {
                    tracing::warn!(%error, "no threads for long computations; they stay with their callers");
                    None
                }
            }
        });
        let threads = threads.as_ref()?;
        let threads = match rank {
            Rank::Core => return None,
            Rank::Reserved => &threads.reserved,
            Rank::Idle => &threads.idle,
        };
        Some(threads.handle(Cores::current().unwrap_or(0)))
    }
}

/// Threads for long computations.
struct Away {
    reserved: Cores,
    idle: Cores,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl EngineBuilder {
    /// Instances that may live at the same time, over all workloads of WASI 0.2, and as many of 0.3. Each takes one 4 GiB
    /// slot of address space. One account alone gets nine tenths of them ([`WorkloadBuilder::account`]), of less than ten all.
    ///
    /// [`WorkloadBuilder::account`]: crate::WorkloadBuilder::account
    pub fn instances_max(mut self, instances: u32) -> Self {
        self.instances_max = instances;
        self
    }

    /// The largest linear memory of any instance. Workloads have their own, usually lower, limits.
    pub fn instance_memory_bytes_max(mut self, bytes: u64) -> Self {
        self.instance_memory_bytes_max = bytes;
        self
    }

    /// Bytes of each memory slot that stay resident for its next tenant: saves page faults, costs memory.
    pub fn memory_keep_resident_bytes(mut self, bytes: usize) -> Self {
        self.memory_keep_resident_bytes = bytes;
        self
    }

    /// The same for tables.
    pub fn table_keep_resident_bytes(mut self, bytes: usize) -> Self {
        self.table_keep_resident_bytes = bytes;
        self
    }

    /// How often running guests are interrupted: the resolution of fairness and of the CPU quota.
    pub fn epoch_tick(mut self, tick: Duration) -> Self {
        self.epoch_tick = tick;
        self
    }

    /// Whether slots are reset page by page as the kernel reports them dirty. By default when it can (Linux 6.7) and
    /// no swap is on: with swap, pages that were swapped out would be missed.
    pub fn pagemap_scan(mut self, on: bool) -> Self {
        self.pagemap_scan = Some(on);
        self
    }

    /// The largest component that [`Engine::load`] accepts.
    pub fn component_bytes_max(mut self, bytes: usize) -> Self {
        self.component_bytes_max = bytes;
        self
    }

    /// Keeps compiled components in this directory (created with mode 0700). Without it, in memory only.
    pub fn cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(dir.into());
        self
    }

    /// Compiles in a short-lived child instead of in this process. Recommended for components of strangers: what a
    /// compilation may cost is not part of the engine's promises.
    pub fn compiler(mut self, command: CompilerCommand) -> Self {
        self.compiler = Some(command);
        self
    }

    /// Also loads components that export neither an HTTP handler nor a command, for
    /// [`Workload::with_instance`](crate::Workload::with_instance). By default they are refused: there is nothing to run.
    pub fn accept_plugins(mut self) -> Self {
        self.accept_plugins = true;
        self
    }

    /// Adds a capability of your own. Components may import it from now on, where their workload is granted it
    /// ([`WorkloadBuilder::grant`]). Those of the runtime itself, [`ConfigStore`], [`KeyValue`] and [`MeshMetrics`], are there already.
    ///
    /// [`WorkloadBuilder::grant`]: crate::WorkloadBuilder::grant
    pub fn capability(mut self, capability: impl Capability) -> Self {
        self.capabilities.add(capability);
        self
    }

    /// Reserves the memory and starts the epoch thread.
    ///
    /// # Errors
    /// When the machine cannot hold the configuration, a capability clashes with another, or the cache directory
    /// cannot be used.
    pub fn build(self) -> Result<Engine, BuildError> {
        let pagemap_scan = match self.pagemap_scan {
            Some(true) => Enabled::Yes,
            Some(false) => Enabled::No,
            None if swap_is_on() => Enabled::No,
            None => Enabled::Auto,
        };
        let count = self.instances_max.max(1);
        let amounts = Amounts::of_engine(count);
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(count)
            // Only counted: as many as the instances can have.
            .total_core_instances(count.saturating_mul(CORE_INSTANCES_PER_COMPONENT_MAX))
            .total_gc_heaps((count / 4).max(1))
            .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT_MAX)
            .max_memories_per_component(16)
            .max_tables_per_component(32)
            .max_memories_per_module(4)
            .max_tables_per_module(4)
            .table_elements(100_000)
            .max_component_instance_size(4 << 20)
            .max_core_instance_size(2 << 20)
            .max_memory_size(usize::try_from(self.instance_memory_bytes_max).unwrap_or(usize::MAX))
            .linear_memory_keep_resident(self.memory_keep_resident_bytes)
            .table_keep_resident(self.table_keep_resident_bytes)
            .max_unused_warm_slots((count / 8).max(16))
            .pagemap_scan(pagemap_scan);
        let machine = |calls: Calls| {
            let [memories, tables, stacks] = amounts.slots(calls);
            let mut pool = pool.clone();
            pool.total_memories(memories)
                .total_tables(tables)
                .total_stacks(stacks);
            let mut config = compiler_config(calls);
            config.allocation_strategy(pool);
            let wasm = wasmtime::Engine::new(&config).map_err(BuildError::Engine)?;
            let mut linker = Linker::new(&wasm);
            host::link(&mut linker, calls).map_err(BuildError::Engine)?;
            let linked = self.capabilities.link(&mut linker, calls);
            linked.map_err(BuildError::Capability)?;
            Ok(Machine { wasm, linker })
        };
        let (serial, concurrent) = (machine(Calls::Serial)?, machine(Calls::Concurrent)?);
        let artifacts = Artifacts::open(
            [&serial.wasm, &concurrent.wasm],
            Compiler::new(self.compiler),
            self.cache_dir.clone(),
            self.component_bytes_max,
        )
        .map_err(|source| BuildError::Cache {
            path: self.cache_dir.unwrap_or_default(),
            source,
        })?;
        let engines = [serial.wasm.clone(), concurrent.wasm.clone()];
        let ticker = Ticker::start(engines, self.epoch_tick).map_err(BuildError::Ticker)?;
        Ok(Engine {
            inner: Arc::new(Inner {
                serial,
                concurrent,
                ticker,
                artifacts,
                ledger: Ledger::new(amounts),
                accept_plugins: self.accept_plugins,
                capabilities: self.capabilities,
                away: OnceLock::new(),
            }),
        })
    }
}

/// Core modules in one component, most of them adapters.
const CORE_INSTANCES_PER_COMPONENT_MAX: u32 = 64;

/// Everything that decides what compiled code looks like. The compiling child uses the same.
///
/// Off are proposals that cost attack surface and that WASI components do not use: memory64, GC, exceptions. Threads are
/// not even compiled in.
pub(crate) fn compiler_config(calls: Calls) -> Config {
    let concurrent = calls == Calls::Concurrent;
    let mut config = Config::new();
    config
        .concurrency_support(concurrent)
        .wasm_component_model_async(concurrent)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .parallel_compilation(true)
        .memory_init_cow(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_memory64(false)
        .wasm_gc(false)
        .wasm_exceptions(false);
    config
}

fn swap_is_on() -> bool {
    // The first line is a heading. Without the file there is no swap to speak of.
    std::fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}

/// Advances the epoch while guests run, and sleeps when none does.
pub(crate) struct Ticker {
    shared: Arc<TickerShared>,
    thread: Thread,
}

/// Guests running now are counted per core, so that cores do not share a cache line for it.
const LANES: usize = 64;

#[derive(Default)]
#[repr(align(128))]
struct Lane(AtomicUsize);

struct TickerShared {
    running: [Lane; LANES],
    parked: AtomicBool,
    stop: AtomicBool,
}

impl TickerShared {
    fn anyone_runs(&self) -> bool {
        self.running.iter().any(|lane| lane.0.load(SeqCst) > 0)
    }
}

/// Ticks without a running guest after which the thread goes to sleep.
const TICKS_BEFORE_SLEEP: u32 = 50;

impl Ticker {
    fn start(engines: [wasmtime::Engine; 2], tick: Duration) -> std::io::Result<Ticker> {
        let shared = Arc::new(TickerShared {
            running: std::array::from_fn(|_| Lane::default()),
            parked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let seen = shared.clone();
        let thread = thread::Builder::new().name("epoch".into()).spawn(move || {
            let mut idle = 0;
            while !seen.stop.load(SeqCst) {
                thread::sleep(tick);
                for engine in &engines {
                    engine.increment_epoch();
                }
                idle = if seen.anyone_runs() { 0 } else { idle + 1 };
                if idle < TICKS_BEFORE_SLEEP {
                    continue;
                }
                // Either this thread sees the newcomer here, or the newcomer sees `parked` and wakes it.
                seen.parked.store(true, SeqCst);
                while seen.parked.load(SeqCst) && !seen.anyone_runs() && !seen.stop.load(SeqCst) {
                    thread::park();
                }
                seen.parked.store(false, SeqCst);
                idle = 0;
            }
        })?;
        Ok(Ticker {
            shared,
            thread: thread.thread().clone(),
        })
    }

    /// Holds the clock running until the guard is dropped, on the same thread.
    pub(crate) fn run(&self) -> Running<'_> {
        let lane =
            &self.shared.running[Cores::current().map_or(LANES - 1, |core| core % (LANES - 1))].0;
        lane.fetch_add(1, SeqCst);
        if self.shared.parked.load(SeqCst) && self.shared.parked.swap(false, SeqCst) {
            self.thread.unpark();
        }
        Running { lane }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.thread.unpark();
    }
}

/// A guest is running.
pub(crate) struct Running<'a> {
    lane: &'a AtomicUsize,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.lane.fetch_sub(1, SeqCst);
    }
}
