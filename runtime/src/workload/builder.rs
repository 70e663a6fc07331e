//! What a workload is made of, and what keeps it from being made.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Counters, Inner, InstancePolicy, Workload};
use crate::artifact::{Artifact, Wasi};
use crate::capability::{Capability, GrantError};
use crate::engine::Engine;
use crate::events::EventSink;
use crate::host::config::Config;
use crate::host::http::Outbound;
use crate::host::keyvalue::KeyValueStore;
use crate::host::metrics::Metrics;
use crate::limits::{CpuAccount, HostBytes, Limits, MemoryAccount};
use crate::logs::LogSink;
use crate::network::Network;
use crate::ownership::Identity;
use crate::room::Room;
use crate::setup::Setup;
use crate::stdin::Stdin;
use crate::volume::{self, Access, Preopen, Volume};

/// Why a workload could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum WorkloadError {
    #[error(
        "the component starts with {needed_bytes} bytes of memory, and the limit is {limit_bytes}"
    )]
    MemoryLimitTooSmall { needed_bytes: u64, limit_bytes: u64 },
    #[error("{what} contains a NUL byte")]
    Nul { what: String },
    #[error("the directory {host_dir} cannot be lent to the guest: {reason}")]
    Preopen { host_dir: PathBuf, reason: String },
    /// What it imports and what it is granted do not fit.
    #[error(transparent)]
    Grant(#[from] GrantError),
}

/// Options of a [`Workload`].
pub struct WorkloadBuilder {
    engine: Engine,
    artifact: Artifact,
    setup: Setup,
    preopens: Vec<Preopen>,
    /// The workload whose files and accounts it shares.
    outer: Option<Arc<Inner>>,
}

impl Workload {
    /// Options for running `artifact` on the engine that loaded it.
    pub fn builder(engine: &Engine, artifact: &Artifact) -> WorkloadBuilder {
        WorkloadBuilder {
            engine: engine.clone(),
            artifact: artifact.clone(),
            setup: Setup::default(),
            preopens: Vec::new(),
            outer: None,
        }
    }
}

impl WorkloadBuilder {
    /// Of a workload that shares the files and the accounts of `outer`, and ends with it.
    pub(crate) fn within(outer: &Arc<Inner>, artifact: &Artifact, setup: Setup) -> Self {
        WorkloadBuilder {
            engine: outer.engine.clone(),
            artifact: artifact.clone(),
            setup,
            preopens: Vec::new(),
            outer: Some(outer.clone()),
        }
    }

    /// All options but the directories, in the place of what was there.
    pub fn setup(mut self, setup: Setup) -> Self {
        self.setup = setup;
        self
    }

    /// A name for logs.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.setup.config.name = name.into();
        self
    }

    /// Who pays for its instances, such as the namespace it belongs to: what the engine has a fixed number of is divided fairly
    /// among accounts, whatever number of workloads each has. Without one it shares the account of all that have none.
    pub fn account(mut self, name: impl Into<String>) -> Self {
        self.setup.config.account = name.into();
        self
    }

    /// Environment variables, in order.
    pub fn env(mut self, env: Vec<(String, String)>) -> Self {
        self.setup.config.env = env;
        self
    }

    /// Arguments, the program's name first.
    pub fn args(mut self, args: Vec<String>) -> Self {
        self.setup.config.args = args;
        self
    }

    /// By default [`Limits::default`]: 256 MiB of memory, 30 seconds for a call, 512 calls at once, and no quota of CPU.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.setup.config.limits = limits;
        self
    }

    /// By default [`InstancePolicy::default_for`] the component's generation of WASI.
    pub fn instance_policy(mut self, policy: InstancePolicy) -> Self {
        self.setup.config.policy = Some(policy);
        self
    }

    /// By default, what the guest prints is dropped.
    pub fn stdout(mut self, sink: LogSink) -> Self {
        self.setup.stdout = sink;
        self
    }

    pub fn stderr(mut self, sink: LogSink) -> Self {
        self.setup.stderr = sink;
        self
    }

    /// Where a command finds itself (`wasi:cli/environment.initial-cwd`). By default it is not told.
    pub fn cwd(mut self, cwd: impl Into<String>) -> Self {
        self.setup.config.cwd = Some(cwd.into());
        self
    }

    /// What the guest reads on its standard input. By default it is empty.
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.setup.config.stdin = stdin;
        self
    }

    /// Where outbound requests go. Without it, the guest may send none.
    pub fn outbound(mut self, outbound: Outbound) -> Self {
        self.setup.outbound = Some(outbound);
        self
    }

    /// Where the guest's sockets are. Without it, it can have none.
    pub fn network(mut self, network: Network) -> Self {
        self.setup.network = Some(network);
        self
    }

    /// Tells what happens to the workload. By default nobody hears it.
    pub fn events(mut self, sink: EventSink) -> Self {
        self.setup.events = Some(sink);
        self
    }

    /// Who the guest is to its files: what it may do with them, and whose those are that it makes. User 0 by default, who may all.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.setup.config.identity = identity;
        self
    }

    /// Lends the directory `host_dir` to the guest, which finds it at `guest_path`. By default it has no files at all.
    ///
    /// The directory is opened once, when the workload is built; the guest gets nowhere else from there, neither by `..`
    /// nor by symbolic links. How much it writes is for the file system to bound; a [`Volume`] has bounds of its own.
    pub fn preopen(
        mut self,
        host_dir: impl Into<PathBuf>,
        guest_path: impl Into<String>,
        access: Access,
    ) -> Self {
        self.preopens.push(Preopen {
            host_dir: host_dir.into(),
            guest_path: guest_path.into(),
            access,
            volume: None,
        });
        self
    }

    /// Lends `volume` to the guest in the same way. What does not fit into it is answered `quota`, and what would be moved or
    /// linked from it to elsewhere, or from elsewhere to it, `cross-device`.
    ///
    /// In a volume with limits one thing at a time is opened, created, moved or written, over all who share it; reading and
    /// looking are as anywhere.
    pub fn volume(
        mut self,
        volume: &Volume,
        guest_path: impl Into<String>,
        access: Access,
    ) -> Self {
        self.preopens.push(Preopen {
            host_dir: volume.dir().to_owned(),
            guest_path: guest_path.into(),
            access,
            volume: Some(volume.clone()),
        });
        self
    }

    /// Grants what the guest may have of a capability that the engine was built with. By default it is granted nothing, and a component
    /// that imports something of it is refused.
    pub fn grant<C: Capability>(mut self, grant: C::Grant) -> Self {
        self.setup.grants.give::<C>(grant);
        self
    }

    /// Grants `wasi:config/store`, with these settings.
    pub fn config(mut self, config: Config) -> Self {
        self.setup.grants.config(config);
        self
    }

    /// Grants `weft:mesh/metrics`; what the guest counts is in `metrics`.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.setup.grants.metrics(metrics);
        self
    }

    /// Grants `wasi:keyvalue`, and `store` as the bucket that the guest opens by `identifier`; `default` and the empty one are usual.
    /// To be called once for each bucket.
    pub fn key_value(
        mut self,
        identifier: impl Into<String>,
        store: Arc<dyn KeyValueStore>,
    ) -> Self {
        self.setup.grants.key_value(identifier, store);
        self
    }

    /// # Errors
    /// When the component could never start within these limits, imports what it is not granted, or a directory to lend it
    /// cannot be opened.
    pub fn build(self) -> Result<Workload, WorkloadError> {
        let WorkloadBuilder {
            engine,
            artifact,
            setup,
            preopens,
            outer,
        } = self;
        let (config, limits) = (&setup.config, &setup.config.limits);
        let granted = engine.granted(&setup.grants, &artifact)?;
        let needed_bytes = artifact.initial_memory_bytes();
        let limit_bytes = match &outer {
            Some(outer) => outer.memory.limit(),
            None => limits.memory_bytes,
        };
        if needed_bytes > limit_bytes {
            return Err(WorkloadError::MemoryLimitTooSmall {
                needed_bytes,
                limit_bytes,
            });
        }
        if let Some((name, _)) = config
            .env
            .iter()
            .find(|(name, value)| name.contains('\0') || value.contains('\0'))
        {
            return Err(WorkloadError::Nul {
                what: format!("environment variable {}", name.escape_debug()),
            });
        }
        if config.args.iter().any(|arg| arg.contains('\0')) {
            return Err(WorkloadError::Nul {
                what: "an argument".into(),
            });
        }
        let (filesystem, lent) = match &outer {
            Some(outer) if preopens.is_empty() => (outer.filesystem.clone(), outer.lent.clone()),
            _ => volume::lend(preopens, &setup.config.identity)?,
        };
        let wasi = artifact.kind().http.unwrap_or(Wasi::P2);
        let policy = config
            .policy
            .unwrap_or(InstancePolicy::default_for(wasi))
            .for_wasi(wasi);
        let account = match &outer {
            Some(outer) => outer.account.clone(),
            None => engine.account(&config.account),
        };
        let memory = match &outer {
            Some(outer) => outer.memory.clone(),
            None => Arc::new(MemoryAccount::new(limit_bytes)),
        };
        let cpu = match &outer {
            Some(outer) => outer.cpu.clone(),
            None => Arc::new(CpuAccount::new(
                account.tenant(),
                limits.cpu_millis,
                limits.cpu_reserved_millis,
            )),
        };
        let child = |token: fn(&Inner) -> &CancellationToken| match &outer {
            Some(outer) => token(outer).child_token(),
            None => CancellationToken::new(),
        };
        let (draining, stopping) = (
            child(|outer| &outer.draining),
            child(|outer| &outer.stopping),
        );
        let all_events = setup.events.clone().filter(EventSink::hears_all);
        let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        let workload = Workload {
            inner: Arc::new(Inner {
                cpu,
                account,
                room: Room::default(),
                host_bytes: HostBytes::new(memory.clone(), Arc::default(), all_events),
                memory,
                places: places(limits.in_flight_max),
                outbound_permits: match &outer {
                    Some(outer) => outer.outbound_permits.clone(),
                    None => places(limits.outbound_max),
                },
                key_value_places: match &outer {
                    Some(outer) => outer.key_value_places.clone(),
                    None => places(limits.key_value_max),
                },
                granted,
                counters: Counters::default(),
                draining,
                stopping,
                shards: OnceLock::new(),
                policy,
                gather_rounds: match wasi {
                    // It is done with a small body when its response arrives.
                    Wasi::P2 => 0,
                    // It returns, then writes, then ends the body: three steps.
                    Wasi::P3 => 3,
                },
                engine,
                artifact,
                setup,
                runs: TaskTracker::new(),
                filesystem,
                lent,
            }),
        };
        if outer.is_none() {
            let inner = &workload.inner;
            inner.memory.belongs_to(Arc::downgrade(inner));
            inner.account.add(Arc::downgrade(inner));
        }
        Ok(workload)
    }
}
