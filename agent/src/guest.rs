//! A container's guest, wherever it runs: in this process, or in the worker process of its namespace.

use std::time::Duration;

use weft_call::Failure;
use weft_runtime::worker::RemoteWorkload;
use weft_runtime::{Body, Exit, Limits, Usage, Workload};

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

    pub async fn run(&self) -> Exit {
        match self {
            Self::Here(workload) => workload.run().await,
            Self::Apart(workload) => workload.run().await,
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
