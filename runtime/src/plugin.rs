//! Calling what a component exports beyond HTTP and commands: plug-ins with an interface of the embedder's own.
//!
//! The embedder's `bindgen!` gives the types. One instance lives as long as the work that is done in it, under the same
//! limits, admission and accounts as a call.
//!
//! Invariants: after the work the instance is gone, however it ended; it takes no longer than `Limits::request_timeout`.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use wasmtime::Store;
use wasmtime::component::Instance;
use weft_call::Failure;

use crate::alive::Alive;
use crate::command::{Cut, accounted};
use crate::events::{CallEnd, CallReport};
use crate::failure;
use crate::host::{HostState, new_store};
use crate::instance::{Stage, after, fault};
use crate::workload::Workload;

impl Workload {
    /// Starts an instance, lends it to `work`, and ends it.
    ///
    /// For components that export an interface of the embedder's own; an engine loads those that export nothing else
    /// only when it was built with [`accept_plugins`](crate::EngineBuilder::accept_plugins). Dropping the future ends
    /// the work.
    ///
    /// ```ignore
    /// let cents = workload
    ///     .with_instance(async |store, instance| {
    ///         let plugin = Discount::new(&mut *store, instance)?; // from `bindgen!`
    ///         plugin.call_discount(store, &basket).await
    ///     })
    ///     .await?;
    /// ```
    ///
    /// # Errors
    /// As those of [`Workload::call`]; an error that `work` returns is a [`Trap`](weft_call::FailureKind::Trap) with its message.
    pub async fn with_instance<T>(
        &self,
        work: impl AsyncFnOnce(&mut Store<HostState>, &Instance) -> wasmtime::Result<T>,
    ) -> Result<T, Failure> {
        let mut report = self.inner().events().map(CallReport::new);
        let ended = self.enter(work).await;
        if let Some(report) = &mut report {
            report.end = match &ended {
                Ok(_) => CallEnd::Returned,
                Err(error) => CallEnd::Failed(error.clone()),
            };
        }
        ended
    }

    async fn enter<T>(
        &self,
        work: impl AsyncFnOnce(&mut Store<HostState>, &Instance) -> wasmtime::Result<T>,
    ) -> Result<T, Failure> {
        let workload = self.inner();
        workload.counters().requests.fetch_add(1, Relaxed);
        let deadline = after(workload.limits().request_timeout);
        let admitted = tokio::time::timeout_at(deadline, async {
            let permit = self.admit().await?;
            if let Some(debt) = workload.cpu().debt() {
                tokio::time::sleep(debt).await;
            }
            Ok::<_, Failure>(permit)
        });
        let overrun = || {
            workload.counters().deadlines.fetch_add(1, Relaxed);
            failure::deadline()
        };
        let _place = admitted.await.map_err(|_| overrun())??;
        let refused = Arc::new(AtomicBool::new(false));
        let begun = AtomicBool::new(false);
        let _alive = Alive::for_call(workload).await?;
        let guest = pin!(async {
            let code = workload.artifact().code(workload.engine()).await?;
            let mut store = new_store(workload, code.engine(), refused.clone());
            let instance = code.pre().instantiate_async(&mut store).await?;
            begun.store(true, Relaxed);
            work(&mut store, &instance).await
        });
        match accounted(workload, guest, Some(deadline)).await {
            Ok(result) => result.map_err(|error| {
                let stage = match begun.load(Relaxed) {
                    true => Stage::Run,
                    false => Stage::Start,
                };
                fault(workload, &error, stage, refused.load(Relaxed))
            }),
            Err(Cut::Deadline) => Err(overrun()),
            Err(Cut::Stopped) => Err(failure::stopped_at_work()),
        }
    }
}
