//! A host for WebAssembly components that can be built into any program.
//!
//! ```text
//! bytes ──Engine::load──► Artifact ──Workload::builder──► Workload ──call──► Response
//!          verify, compile            limits, env, logs,             ──run───► Exit
//!          once, cache on disk        outbound, policy
//! ```
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use weft_runtime::{Body, Engine, FailureKind, Limits, Outbound, Workload};
//!
//! let engine = Engine::builder().build()?;
//! let artifact = engine.load(std::fs::read("shop.wasm")?).await?;
//! // Where its own requests go: any `tower` service. Without one it may send none.
//! let outbound = Outbound::new(tower::service_fn(|request: http::Request<Body>| async move {
//!     match request.uri().host() {
//!         Some("stock") => Ok(http::Response::new(Body::full("42"))),
//!         _ => Err(FailureKind::Denied.into()),
//!     }
//! }));
//! let shop = Workload::builder(&engine, &artifact)
//!     .limits(Limits { memory_bytes: 64 << 20, ..Limits::default() })
//!     .outbound(outbound)
//!     .build()?;
//! let response = shop.call(http::Request::get("http://shop/price/7").body(Body::empty())?).await?;
//! # Ok(()) }
//! ```
//!
//! An [`Engine`] compiles components and owns the memory their instances live in. An [`Artifact`] is one compiled
//! component, shared by everything that runs it. A [`Workload`] is that component with a name, an environment, limits
//! and an outbound service; it owns no instance, task or timer while nobody calls it. WASI 0.2 and 0.3 take the same
//! path: a component that exports `wasi:http` is called, one that exports `wasi:cli/run` is run. One that exports an
//! interface of the embedder's own is a plug-in ([`Workload::with_instance`]).
//!
//! Invariants: a guest reaches nothing that its workload was not given; what it uses (memory over all of its instances and what
//! the host holds for them, CPU, wall-clock time, handles, bodies in flight) is counted and bounded; what the engine has a fixed
//! number of is divided fairly among accounts; an instance that trapped, overran its deadline, returned without a response or
//! lost its caller is never used again; a call that may have had effects is never called one that was not begun; every queue has an end.
//!
//! What guests can import beside WASI and HTTP are capabilities ([`capability`]), of which a workload has what it is granted:
//! settings ([`Config`]), buckets of key-value stores ([`KeyValueStore`]), counts of its own ([`Metrics`]), and those of the embedder.
//!
//! Examples to start from, in `examples/`: `embed` (a capability of one's own), `axum` (routes answered by a component),
//! `plugins` (a typed interface both ways), `keyvalue` (settings and a store), `job` (a command with arguments, output and limits).
//!
//! A command that is given a [`Network`] listens and connects by `wasi:sockets` in it, and nowhere else ([`network`]).
//!
//! Left to others: where components come from, what a workload is called in a cluster, and where outbound requests go:
//! [`Outbound`] is any `tower` service.
//!
//! Guests of one trust domain can have a process of their own that holds nothing else: [`worker`].
//!
//! Hot path, in file order: [`workload`] admits a call and finds an instance, `instance` drives it, `host` answers what
//! the guest asks of its host, `limits` says how far it may go.

mod account;
mod alive;
pub mod artifact;
mod body;
pub mod capability;
pub mod command;
pub mod compile;
pub mod cores;
mod delivery;
mod driver;
pub mod engine;
pub mod events;
mod failure;
pub mod host;
mod instance;
pub mod limits;
pub mod logs;
pub mod network;
pub mod ownership;
mod plugin;
#[cfg(test)]
mod properties;
mod room;
pub mod scheduling;
pub mod session;
mod setup;
mod spare;
pub mod stdin;
pub mod stdio;
mod sync;
pub mod volume;
mod waiters;
pub mod worker;
pub mod workload;

pub use artifact::{Artifact, ArtifactError, Digest, Kind, Wasi};
pub use body::{Body, BoxError};
pub use capability::{Capability, GrantError, Grants};
pub use command::Exit;
pub use compile::{CompileLimits, CompilerCommand, compile_main};
pub use cores::Cores;
pub use engine::{BuildError, Calls, Engine, EngineBuilder};
pub use events::{CallEnd, Event, EventSink};
pub use host::HostState;
pub use host::config::{Config, ConfigSender, ConfigTooLarge};
pub use host::http::Outbound;
pub use host::keyvalue::{KeyValueError, KeyValueStore, MemoryStore};
pub use host::metrics::{MeshMetrics, Metrics};
pub use limits::{Allotment, HostBytes, Limits, ResizeError, Usage};
pub use logs::LogSink;
pub use network::Network;
pub use ownership::{Identity, Ownership};
pub use scheduling::Computing;
pub use session::Session;
pub use setup::{Setup, WorkloadConfig};
pub use stdin::Stdin;
pub use stdio::{Stdio, TerminalSize};
pub use volume::{Access, Below, Full, Told, Volume, VolumeError, VolumeLimits, VolumeUsage};
pub use workload::{InstancePolicy, Workload, WorkloadBuilder, WorkloadError, WorkloadService};

/// What is known of a call, and why one failed: each kind says in its docs what it means, whose doing it is and whether the guest may have
/// seen the request.
pub use weft_call::{
    Blame, CallContext, CallOptions, CallService, Failure, FailureKind, Peer, Processed,
    TraceContext, Transport,
};

/// The engine itself, for embedders who add capabilities of their own.
pub use wasmtime;
