//! What a workload is made from, wherever it runs.
//!
//! [`WorkloadConfig`] is all of it that is plain data, and goes to a worker process as it is. What is alive (where output goes, where
//! requests go, what is granted) is beside it in a [`Setup`]. A workload keeps its setup: a new field is written once, here.

use serde::{Deserialize, Serialize};

use crate::account;
use crate::capability::Grants;
use crate::events::EventSink;
use crate::host::http::Outbound;
use crate::limits::Limits;
use crate::logs::LogSink;
use crate::network::Network;
use crate::ownership::Identity;
use crate::stdin::Stdin;
use crate::workload::InstancePolicy;

/// What a workload is told, and held to.
#[derive(Clone, Serialize, Deserialize)]
pub struct WorkloadConfig {
    /// For logs.
    pub name: String,
    /// Who pays for its instances. See [`WorkloadBuilder::account`](crate::WorkloadBuilder::account).
    pub account: String,
    /// Environment variables, in order.
    pub env: Vec<(String, String)>,
    /// Arguments, the program's name first.
    pub args: Vec<String>,
    /// Where a command finds itself, if it is told.
    pub cwd: Option<String>,
    /// What the guest reads on its standard input.
    pub stdin: Stdin,
    pub limits: Limits,
    /// None means [`InstancePolicy::default_for`] the component's generation of WASI.
    pub policy: Option<InstancePolicy>,
    /// Who the guest is to its files.
    pub identity: Identity,
}

impl Default for WorkloadConfig {
    fn default() -> WorkloadConfig {
        WorkloadConfig {
            name: String::new(),
            account: account::UNNAMED.to_owned(),
            env: Vec::new(),
            args: Vec::new(),
            cwd: None,
            stdin: Stdin::Empty,
            limits: Limits::default(),
            policy: None,
            identity: Identity::default(),
        }
    }
}

impl std::fmt::Debug for WorkloadConfig {
    /// Without the values of the environment: they may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let env: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("WorkloadConfig")
            .field("name", &self.name)
            .field("account", &self.account)
            .field("env", &env)
            .field("args", &self.args)
            .field("cwd", &self.cwd)
            .field("stdin", &self.stdin)
            .field("limits", &self.limits)
            .field("policy", &self.policy)
            .field("identity", &self.identity)
            .finish()
    }
}

/// A workload's configuration, and what it is connected to in this process.
#[derive(Clone)]
pub struct Setup {
    pub config: WorkloadConfig,
    pub stdout: LogSink,
    pub stderr: LogSink,
    /// Where outbound requests go. Without it, the guest may send none.
    pub outbound: Option<Outbound>,
    /// Where its sockets are. Without it, it can have none. Not for a workload in a worker process, whose guests never have sockets.
    pub network: Option<Network>,
    /// Hears what happens to it; of a workload in a worker process only [`Event::BrokenOff`](crate::Event::BrokenOff) is told here.
    pub events: Option<EventSink>,
    /// What it may have of the engine's capabilities.
    pub grants: Grants,
}

impl Default for Setup {
    /// A workload that is connected to nothing: what it prints is dropped.
    fn default() -> Setup {
        Setup {
            config: WorkloadConfig::default(),
            stdout: LogSink::discard(),
            stderr: LogSink::discard(),
            outbound: None,
            network: None,
            events: None,
            grants: Grants::default(),
        }
    }
}
