//! A container's guest, wherever it runs: in this process, or in the worker process of its namespace.

use std::time::Duration;

use weft_call::Failure;
use weft_runtime::worker::RemoteWorkload;
use weft_runtime::{
    Allotment, Artifact, Body, Engine, Exit, Limits, ResizeError, Session, Stdio, Usage, Workload,
};

use crate::identity::Chain;

/// What the agent calls, runs, stops and measures. Cheap to clone.
#[derive(Clone)]
pub enum Guest {
    Here(Workload),
    Apart(RemoteWorkload),
}

impl Guest {
    /// # Errors
    /// [`Failure`], the same for both.
    pub async fn call(
        &self,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Failure> {
        match self {
            Self::Here(workload) => workload.call(request).await,
            Self::Apart(workload) => workload.call(request).await,
        }
    }

    /// Runs the container's own command, with these streams where there are any.
    pub async fn run_with(&self, stdio: Stdio) -> Exit {
        match self {
            Self::Here(workload) => workload.run_with(stdio).await,
            Self::Apart(workload) => {
                let has_any = stdio.stdin.is_some() || stdio.terminal.is_some();
                match has_any {
                    true => workload.run_with(stdio).await,
                    false => workload.run().await,
                }
            }
        }
    }

    /// Runs `artifact`, which `engine` has loaded, in the context of this guest.
    ///
    /// # Errors
    /// A sentence when nothing was started.
    pub async fn session(
        &self,
        engine: &Engine,
        artifact: &Artifact,
        session: Session,
        stdio: Stdio,
    ) -> Result<Exit, String> {
        match self {
            Self::Here(workload) => {
                let ran = workload.session(artifact, session, stdio).await;
                ran.map_err(|error| error.to_string())
            }
            Self::Apart(workload) => {
                let ran = workload.session(engine, artifact, session, stdio).await;
                ran.map_err(|error| Chain(&error).to_string())
            }
        }
    }

    /// Gives it other amounts of memory and CPU from now on.
    ///
    /// # Errors
    /// As [`Workload::resize`].
    pub async fn resize(&self, to: Allotment) -> Result<(), ResizeError> {
        match self {
            Self::Here(workload) => workload.resize(to),
            Self::Apart(workload) => workload.resize(to).await,
        }
    }

    pub async fn stop(&self, grace: Duration) {
        match self {
            Self::Here(workload) => workload.stop(grace).await,
            Self::Apart(workload) => workload.stop(grace).await,
        }
    }

    pub fn usage(&self) -> Usage {
        match self {
            Self::Here(workload) => workload.usage(),
            Self::Apart(workload) => workload.usage(),
        }
    }

    pub fn limits(&self) -> &Limits {
        match self {
            Self::Here(workload) => workload.limits(),
            Self::Apart(workload) => workload.limits(),
        }
    }

    /// Waits for the end of the process that the guest runs in, and says what it was. For ever, when that is this one.
    pub async fn lost(&self) -> String {
        let Self::Apart(workload) = self else {
            return std::future::pending().await;
        };
        let mut ended = workload.worker().ended();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.as_ref().map(ToString::to_string).unwrap_or_default(),
            Err(_) => "is not looked after any more".to_owned(),
        }
    }
}
