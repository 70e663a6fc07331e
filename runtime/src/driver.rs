//! Inside an instance: taking calls, and having the guest's handler answer them.
//!
//! A guest of WASI 0.2 handles one call after the other, with plain calls ([`Driver::answer`]), and waits for the next as a
//! [spare](crate::spare). One of 0.3 takes the next call while it waits in those that it has ([`Driver::side_by_side`]), which the
//! engine's event loop makes possible.
//!
//! Tasks that wait in a guest of WASI 0.3 hold fibers, which are no resource that the engine counts for each store. What a store
//! has of tasks, streams and waitables is counted each time that the guest has run, and fibers are taken for it ([`fibers`]).
//!
//! Invariants: a call is taken only by an instance that can start it at once; an instance that would not take one is not
//! counted as available; when the last one withdraws, the calls that wait get instances of their own; a guest holds no more
//! fibers than its account has given it, beyond what it makes between two looks.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, ready};

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use wasmtime::component::{Accessor, Func, Resource, TypedFuncCallConcurrent};
use wasmtime::{AsContextMut, Store, StoreContextMut};
use wasmtime_wasi_http::p2::bindings::Proxy as GuestP2;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3::bindings::Service as GuestP3;
use wasmtime_wasi_http::{Error as WasiError, WasiBody, WasiHttpView, p3};

use crate::account::{Pooled, Refusal, Seat};
use crate::body::{Body, BoxError};
use crate::failure;
use crate::host::HostState;
use crate::host::http::body_error;
use crate::instance::{CallSlot, Job, Shard, Shared, response_of, start};
use crate::workload::Inner;

/// Has a guest answer calls.
pub(crate) struct Driver<'a> {
    pub(crate) workload: &'a Arc<Inner>,
    /// Where further calls come from; none for an instance that is made for one call.
    pub(crate) shard: Option<&'a Arc<Shard>>,
    pub(crate) shared: &'a Shared,
    /// Where its call came from, wherever it is now.
    pub(crate) home: &'a Handle,
}

/// What the engine's tables have in a store beside its calls, and what they have for each call at work: a body, its trailers and its
/// result take three entries each, a request of the guest's own a dozen.
const ENTRIES_ORDINARY: usize = 64;
const ENTRIES_OF_CALL: usize = 64;
/// A task and its thread.
const ENTRIES_OF_TASK: usize = 2;
/// Fibers are taken so many at a time.
const FIBERS_AT_ONCE: u32 = 8;

/// The calls of one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// Those that are not over: a guest that has returned may still be writing the body, as the task that it was.
    open: usize,
    /// Those that were accepted since the event loop came to rest: what is left of them in its tables is tidied up by then.
    recent: usize,
}

impl Calls {
    /// A command, or one call and nothing else.
    pub(crate) const ONE: Calls = Calls { open: 1, recent: 0 };
}

/// How many fibers a store with `entries` in its tables is taken to hold. Tasks have entries there, and so have streams and futures, of which
/// calls have some each. What is beyond that is taken for tasks, which only a component of several components has.
fn fibers(entries: usize, calls: Calls) -> u32 {
    let with_entries = calls.open.saturating_add(calls.recent);
    let of_calls = ENTRIES_OF_CALL.saturating_mul(with_entries);
    let ordinary = ENTRIES_ORDINARY.saturating_add(of_calls);
    let tasks = entries.saturating_sub(ordinary).div_ceil(ENTRIES_OF_TASK);
    let held = calls.open.saturating_add(tasks);
    u32::try_from(held).unwrap_or(u32::MAX)
}

/// The fibers of one instance, as its account knows them.
pub(crate) struct Fibers<'a> {
    seat: &'a mut Seat,
    /// One comes with the instance.
    taken: u32,
}

impl<'a> Fibers<'a> {
    pub(crate) fn new(seat: &'a mut Seat) -> Fibers<'a> {
        Fibers { seat, taken: 1 }
    }

    /// Takes more if a guest with these calls holds more.
    ///
    /// # Errors
    /// When the account may have no more.
    pub(crate) fn count(
        &mut self,
        accessor: &Accessor<HostState>,
        calls: Calls,
    ) -> Result<(), Refusal> {
        let entries = accessor.with(|mut access| {
            let mut store = access.as_context_mut();
            store.concurrent_state_table_size()
        });
        self.have(fibers(entries, calls))
    }

    fn have(&mut self, wanted: u32) -> Result<(), Refusal> {
        let missing = wanted.saturating_sub(self.taken);
        if missing > 0 {
            let more = missing.next_multiple_of(FIBERS_AT_ONCE);
            self.seat.take(Pooled::Fibers, more)?;
            self.taken += more;
        }
        Ok(())
    }
}

impl Driver<'_> {
    /// Calls the handler of a guest of WASI 0.2 and waits until it has returned. The result is whether it has responded, and the
    /// call's place, for whoever has the instance next.
    pub(crate) async fn answer(
        &self,
        store: &mut Store<HostState>,
        guest: &GuestP2,
        job: Job,
    ) -> wasmtime::Result<(bool, OwnedSemaphorePermit)> {
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
                Err(code) => Err(failure::guest_error(format_args!("{code:?}"))),
            });
        })?;
        let handler = guest.wasi_http_incoming_handler();
        handler.call_handle(&mut *store, request, out).await?;
        let is_missing = slot.answer(|| Err(failure::no_response()));
        self.shared.returned(&slot);
        store.data_mut().end_calls();
        Ok((!is_missing, permit))
    }

    /// Has a guest of WASI 0.3 take calls until it has served its share, or nobody wants it any more.
    pub(crate) async fn side_by_side(
        &self,
        accessor: &Accessor<HostState>,
        guest: &GuestP3,
        first: Job,
        seat: &mut Seat,
    ) -> wasmtime::Result<()> {
        let policy = self.workload.policy();
        let mut fibers = Fibers::new(seat);
        let mut calls = FuturesUnordered::new();
        calls.push(self.accept(accessor, guest, first)?);
        let mut served = 1;
        let Some(place) = self.place() else {
            return poll_fn(|cx| -> Poll<wasmtime::Result<()>> {
                fibers.count(accessor, Calls::ONE)?;
                while let Some(result) = ready!(calls.poll_next_unpin(cx)) {
                    result?;
                }
                accessor.poll_no_interesting_tasks(cx).map(Ok)
            })
            .await;
        };
        let handler: Func = *guest.wasi_http_handler().func_handle().func();
        let mut idle_timer: Option<Pin<Box<Sleep>>> = None;
        let mut ends = place.shard.ends();
        // Its account has no fiber for another call, beside those that it has.
        let mut is_cramped = false;
        let mut recent = 1;
        poll_fn(|cx| -> Poll<wasmtime::Result<()>> {
            if self.shared.settled.load(Relaxed) {
                recent = 0;
            }
            loop {
                // Results first: a call that is over makes room, one that trapped ends everything.
                while let Poll::Ready(Some(result)) = calls.poll_next_unpin(cx) {
                    if let Err(error) = result {
                        return Poll::Ready(Err(error));
                    }
                }
                fibers.count(accessor, self.calls(recent))?;
                let spent = served >= policy.requests_max() || self.shared.retiring.load(Relaxed);
                let ready = accessor
                    .poll_ready_for_concurrent_call(handler, cx)
                    .is_ready();
                is_cramped &= !calls.is_empty();
                // A second call only once the guest waits for something: two that compute are better off apart.
                let able = !spent && ready && !is_cramped && calls.len() < policy.concurrent_max();
                let available = able && (calls.is_empty() || self.shared.settled.load(Relaxed));
                self.shared.able.store(able, Relaxed);
                if available {
                    place.offer();
                } else {
                    place.withdraw();
                }
                if available && let Some(job) = place.shard.take() {
                    let mut with_it = self.calls(0);
                    with_it.open += 1;
                    if fibers.have(self::fibers(0, with_it)).is_err() {
                        is_cramped = true;
                        start(self.workload, Some(place.shard.clone()), job, None);
                        continue;
                    }
                    place.taken(&job);
                    idle_timer = None;
                    match self.accept(accessor, guest, job) {
                        Ok(call) => calls.push(call),
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                    served += 1;
                    recent += 1;
                    continue;
                }
                if !calls.is_empty() || accessor.poll_no_interesting_tasks(cx).is_pending() {
                    return Poll::Pending;
                }
                if spent || !ready {
                    return Poll::Ready(Ok(()));
                }
                let since = place.shard.ends();
                if !self.shared.idle.swap(true, Relaxed) {
                    ends = since;
                    accessor.with(|mut access| access.data_mut().end_calls());
                    self.workload.offer_room();
                } else if ends != since {
                    return Poll::Ready(Ok(())); // Its memory is wanted.
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

    fn calls(&self, recent: usize) -> Calls {
        Calls {
            open: self.shared.open_calls(),
            recent,
        }
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
                Err(code) => {
                    slot.answer(|| Err(failure::guest_error(format_args!("{code:?}"))));
                }
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
            store.data_mut().assign_task(call.task(), slot.clone());
        }
        Ok((call, Box::pin(sent)))
    }

    /// With a body that breaks off where it becomes too large.
    fn bounded(&self, request: Request<Body>) -> Request<WasiBody> {
        let limit_bytes = self.workload.limits().body_bytes;
        let most = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
        request.map(|body| {
            let body = match body.into_whole() {
                Ok(bytes) if bytes.len() <= most => return whole(bytes),
                Ok(bytes) => Body::full(bytes),
                Err(streamed) => streamed,
            };
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

/// A body that is in memory. An empty one costs nothing.
fn whole(bytes: Bytes) -> WasiBody {
    match bytes.is_empty() {
        true => Empty::new().map_err(|never| match never {}).boxed_unsync(),
        false => Full::new(bytes)
            .map_err(|never| match never {})
            .boxed_unsync(),
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
    /// A call from the shard is this instance's from now on.
    fn taken(&self, job: &Job) {
        self.driver.shared.idle.store(false, Relaxed);
        self.driver.shared.follow(&job.slot);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Amounts, Ledger};
    use crate::engine::Calls as Kind;

    #[test]
    fn a_call_is_a_fiber_and_what_no_call_explains_is_taken_for_tasks() {
        let calls = |open, recent| Calls { open, recent };
        for (entries, calls, expected) in [
            (0, calls(0, 0), 0),
            (64, calls(0, 0), 0),
            (65, calls(0, 0), 1),
            (0, calls(1, 0), 1),
            (128, calls(1, 0), 1),
            (16 * 64 + 64, calls(16, 0), 16),
            // Returned and read, and not tidied up yet.
            (16 * 64 + 64, calls(0, 16), 0),
            (16 * 64 + 66, calls(0, 16), 1),
            (4_096, calls(1, 0), (4_096 - 128) / 2 + 1),
            (usize::MAX, calls(1, 1), u32::MAX),
        ] {
            assert_eq!(
                fibers(entries, calls),
                expected,
                "{entries} entries, {calls:?}"
            );
        }
    }

    #[test]
    fn fibers_are_the_accounts_until_it_has_no_more() {
        let ledger = Ledger::new(Amounts::of_engine(10));
        let account = ledger.account("shop");
        let seat = || account.seat(Kind::Concurrent, Amounts::of_instance(1, 1));
        let mut seat = seat().expect("there is room");
        let mut fibers = Fibers::new(&mut seat);
        for (wanted, taken) in [(1, 1), (2, 9), (9, 9), (30, 33)] {
            assert_eq!(fibers.have(wanted), Ok(()));
            assert_eq!(fibers.taken, taken, "{wanted}");
        }
        let refused = fibers.have(42).expect_err("that is more than there is");
        assert_eq!(
            refused.to_string(),
            "account \"shop\" has 32 of this host's 40 further fibers, of which not enough are left"
        );
        drop(seat);
        let mut all = account
            .seat(Kind::Concurrent, Amounts::of_instance(1, 1))
            .expect("there is room");
        assert_eq!(all.take(Pooled::Fibers, 36), Ok(()), "it gave all back");
    }
}
