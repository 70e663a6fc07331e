//! A command in the context of a workload: its files, environment, way out, grants and limits, with streams of its own.
//!
//! The command may be another component. What it uses is on the workload's own accounts: one limit of memory, one quota of CPU, one
//! number of open requests for all of them. It has an instance to itself, which ends with its run.
//!
//! Invariants: a session has what its workload has and nothing else; when the workload is told to stop, the session's input ends, and
//! when it is stopped, the session is cut off; a stop does not wait for sessions.

use serde::{Deserialize, Serialize};

use crate::artifact::Artifact;
use crate::command::Exit;
use crate::network::Network;
use crate::setup::{Setup, WorkloadConfig};
use crate::stdin::Stdin;
use crate::stdio::Stdio;
use crate::volume::{Access, Volume};
use crate::workload::{Workload, WorkloadBuilder, WorkloadError};

/// What is run.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Session {
    /// Arguments, the name it is called by first.
    pub args: Vec<String>,
    /// Beside those of the workload, and instead of them where they have the same name.
    pub env: Vec<(String, String)>,
    /// The working directory; the workload's own if it is not said.
    pub cwd: Option<String>,
    /// What it is lent instead of the workload's directories, where there is any: for a component that opens files in the place of one
    /// that does not. A worker process has none of it.
    #[serde(skip)]
    pub volumes: Vec<(Volume, String, Access)>,
    /// Where its sockets are, if not in the workload's own network. A worker process has none of it.
    #[serde(skip)]
    pub network: Option<Network>,
}

impl std::fmt::Debug for Session {
    /// Without the values of the environment, as those of a [`WorkloadConfig`].
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("args", &self.args)
            .field("cwd", &self.cwd)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// The configuration of a workload of its own.
    fn config(self, outer: &WorkloadConfig) -> WorkloadConfig {
        let mut env = outer.env.clone();
        env.retain(|(name, _)| !self.env.iter().any(|(own, _)| own == name));
        env.extend(self.env);
        WorkloadConfig {
            args: self.args,
            env,
            cwd: self.cwd.or_else(|| outer.cwd.clone()),
            stdin: Stdin::Empty,
            ..outer.clone()
        }
    }
}

impl Workload {
    /// Runs `artifact` in the context of this workload, to its end, on the current thread's runtime. What it prints where `stdio` has no
    /// channel is dropped. Dropping the future ends it.
    ///
    /// # Errors
    /// Before anything was started: when the component needs more than the workload has.
    pub async fn session(
        &self,
        artifact: &Artifact,
        session: Session,
        stdio: Stdio,
    ) -> Result<Exit, WorkloadError> {
        Ok(self.within(artifact, session)?.run_with(stdio).await)
    }

    fn within(&self, artifact: &Artifact, mut session: Session) -> Result<Workload, WorkloadError> {
        let outer = self.inner();
        let volumes = std::mem::take(&mut session.volumes);
        let network = session.network.take().or_else(|| outer.network().cloned());
        let setup = Setup {
            config: session.config(outer.config()),
            outbound: outer.outbound().cloned(),
            grants: outer.grants().clone(),
            network,
            ..Setup::default()
        };
        let mut builder = WorkloadBuilder::within(outer, artifact, setup);
        for (volume, guest_path, access) in volumes {
            builder = builder.volume(&volume, guest_path, access);
        }
        builder.build()
    }
}
