//! Inside an instance: taking calls, and having the guest's handler answer them.
//!
//! A guest of WASI 0.2 handles one call after the other, with plain calls ([`Driver::answer`]), and waits for the next as a
//! [spare](crate::spare). One of 0.3 takes the next call while it waits in those that it has ([`Driver::side_by_side`]), which the
//! engine's event loop makes possible.
//!
//! Invariants: a call is taken only by an instance that can start it at once; an instance that would not take one is not
//! counted as available; when the last one withdraws, the calls that wait get instances of their own.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use futures::stream::{FuturesUnordered, StreamExt};
use http::Request;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::Sleep;
use wasmtime::component::{Accessor, Func, Resource, TypedFuncCallConcurrent};
use wasmtime::{AsContextMut, Store, StoreContextMut};
use wasmtime_wasi_http::p2::bindings::Proxy as GuestP2;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3::bindings::Service as GuestP3;
use wasmtime_wasi_http::{Error as WasiError, WasiBody, WasiHttpView, p3};

use crate::body::{Body, BoxError};
use crate::host::HostState;
use crate::host::http::body_error;
use crate::instance::{CallSlot, Job, Shard, Shared, response_of, start};
use crate::workload::{CallError, Inner};

/// Has a guest answer calls.
pub(crate) struct Driver<'a> {
    pub(crate) workload: &'a Arc<Inner>,
    /// Where further calls come from; none for an instance that is made for one call.
    pub(crate) shard: Option<&'a Arc<Shard>>,
    pub(crate) shared: &'a Shared,
}

impl Driver<'_> {
    /// Calls the handler of a guest of WASI 0.2 and waits until it has returned.
    pub(crate) async fn answer(
        &self,
        store: &mut Store<HostState>,
        guest: &GuestP2,
        job: Job,
    ) -> wasmtime::Result<()> {
        let Job {
            request,
            slot,
            permit,
        } = job;
        store.data_mut().begin_call(slot.context.clone());
        let scheme = match request.uri().scheme_str() {
            Some("https") => Scheme::Https,
            _ => Scheme::Http,
        };
        let mut view = store.data_mut().http();
        let request = view.new_incoming_request(scheme, self.bounded(request))?;
        let answered = slot.clone();
        let out = view.new_response_outparam_from_callback(move |answer| {
            answered.answer(|| match answer {
                Ok(response) => response_of(response, &answered),
                Err(code) => Err(CallError::Guest {
                    code: format!("{code:?}"),
                }),
            });
        })?;
        let handler = guest.wasi_http_incoming_handler();
        handler.call_handle(&mut *store, request, out).await?;
        slot.answer(|| Err(CallError::NoResponse));
        self.shared.returned(&slot);
        drop(permit);
        store.data_mut().end_calls();
        Ok(())
    }

    /// Has a guest of WASI 0.3 take calls until it has served its share, or nobody wants it any more.
    pub(crate) async fn side_by_side(
        &self,
        accessor: &Accessor<HostState>,
        guest: &GuestP3,
        first: Job,
    ) -> wasmtime::Result<()> {
        let policy = self.workload.policy();
        let mut calls = FuturesUnordered::new();
        calls.push(self.accept(accessor, guest, first)?);
        let mut served = 1;
        let Some(place) = self.place() else {
            while let Some(result) = calls.next().await {
                result?;
            }
            poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
            return Ok(());
        };
        let handler: Func = *guest.wasi_http_handler().func_handle().func();
        let mut idle_timer: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            loop {
                // Results first: a call that is over makes room, one that trapped ends everything.
                while let Poll::Ready(Some(result)) = calls.poll_next_unpin(cx) {
                    if let Err(error) = result {
                        return Poll::Ready(Err(error));
                    }
                }
                let spent = served >= policy.requests_max() || self.shared.retiring.load(Relaxed);
                let ready = accessor
                    .poll_ready_for_concurrent_call(handler, cx)
                    .is_ready();
                // A second call only once the guest waits for something: two that compute are better off apart.
                let able = !spent && ready && calls.len() < policy.concurrent_max();
                let available = able && (calls.is_empty() || self.shared.settled.load(Relaxed));
                self.shared.able.store(able, Relaxed);
                if available {
                    place.offer();
                } else {
                    place.withdraw();
                }
                if available && let Some(job) = place.take() {
                    idle_timer = None;
                    match self.accept(accessor, guest, job) {
                        Ok(call) => calls.push(call),
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                    served += 1;
                    continue;
                }
                if !calls.is_empty() || accessor.poll_no_interesting_tasks(cx).is_pending() {
                    return Poll::Pending;
                }
                if spent || !ready {
                    return Poll::Ready(Ok(()));
                }
                if !self.shared.idle.swap(true, Relaxed) {
                    accessor.with(|mut access| access.data_mut().end_calls());
                }
                let timer =
                    idle_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(policy.idle())));
                if timer.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Ok(()));
                }
                return Poll::Pending;
            }
        })
        .await
    }

    /// Starts the handler of a guest of WASI 0.3. The future resolves when it has returned.
    fn accept<'a>(
        &'a self,
        accessor: &'a Accessor<HostState>,
        guest: &'a GuestP3,
        job: Job,
    ) -> wasmtime::Result<impl Future<Output = wasmtime::Result<()>> + 'a> {
        let Job {
            request,
            slot,
            permit,
        } = job;
        self.shared.settled.store(false, Relaxed);
        let (call, sent) = accessor
            .with(|mut access| self.begin(access.as_context_mut(), guest, request, &slot))?;
        Ok(async move {
            let handler = guest.wasi_http_handler().func_handle();
            match handler.finish_call_concurrent(accessor, call).await?.0 {
                Ok(response) => {
                    let response = accessor.with(|mut access| {
                        let response = access.data_mut().http().table.delete(response)?;
                        response.into_http_with_getter(&mut access, sent, HostState::http)
                    })?;
                    slot.answer(|| response_of(response, &slot));
                }
                Err(code) => slot.answer(|| {
                    Err(CallError::Guest {
                        code: format!("{code:?}"),
                    })
                }),
            }
            self.shared.returned(&slot);
            drop(permit);
            Ok(())
        })
    }

    fn begin(
        &self,
        mut store: StoreContextMut<'_, HostState>,
        guest: &GuestP3,
        request: Request<Body>,
        slot: &Arc<CallSlot>,
    ) -> wasmtime::Result<(P3Call, Sent)> {
        store.data_mut().begin_call(slot.context.clone());
        let view = store.data_mut().http();
        let (request, sent) = p3::Request::from_http(view.hooks, self.bounded(request));
        let request = view.table.push(request)?;
        let handler = guest.wasi_http_handler().func_handle();
        let call = handler.start_call_concurrent(store.as_context_mut(), (request,))?;
        if self.workload.policy().concurrent_max() > 1 {
            let context = slot.context.clone();
            store.data_mut().assign_task(call.task(), context);
        }
        Ok((call, Box::pin(sent)))
    }

    /// With a body that breaks off where it becomes too large.
    fn bounded(&self, request: Request<Body>) -> Request<WasiBody> {
        let limit_bytes = self.workload.limits().body_bytes;
        let most = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
        request.map(|body| {
            let bounded = Limited::new(body, most);
            let told = move |error: BoxError| match error.is::<LengthLimitError>() {
                true => WasiError::HttpRequestBodySize(Some(limit_bytes)),
                false => body_error(error),
            };
            bounded.map_err(told).boxed_unsync()
        })
    }

    fn place(&self) -> Option<Place<'_>> {
        let shard = self.shard?;
        Some(Place {
            driver: self,
            shard,
        })
    }
}

type P3Call = TypedFuncCallConcurrent<
    HostState,
    (Resource<p3::Request>,),
    (Result<Resource<p3::Response>, p3::bindings::http::types::ErrorCode>,),
>;

/// How the guest's reading of its request ended.
type Sent = Pin<Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>>;

/// An instance's place among those that wait for calls.
struct Place<'a> {
    driver: &'a Driver<'a>,
    shard: &'a Arc<Shard>,
}

impl Place<'_> {
    fn take(&self) -> Option<Job> {
        let job = self.shard.take()?;
        self.driver.shared.idle.store(false, Relaxed);
        self.driver.shared.follow(&job.slot);
        Some(job)
    }

    fn offer(&self) {
        if !self.driver.shared.available.load(Relaxed) {
            self.driver.shared.offer(self.shard);
        }
    }

    fn withdraw(&self) {
        if !self.driver.shared.available.swap(false, Relaxed) {
            return;
        }
        for job in self.shard.withdraw() {
            start(self.driver.workload, Some(self.shard.clone()), job, None);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.withdraw();
    }
}
