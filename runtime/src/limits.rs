//! How far a guest may go, and how far it went.
//!
//! [`Limits`] are one workload's bounds. Memory is counted over all of its instances: linear memories and tables, and what the host
//! holds because the guest said so, such as chunks of a body that nobody has read yet and header fields ([`HostBytes`]).
//! CPU time is measured around every poll of an instance, so that it includes what the host does for the guest, and is
//! held to a quota by a token bucket: a guest in debt waits, at its next epoch check or at its next call. On a core the tenant is charged
//! for it, too (`weft_turns`).
//!
//! Invariants: the memory account never exceeds its limit, and is back at zero when the last store is gone and what it wrote is
//! delivered; before memory is refused, idle instances of the workload have ended; a quota of `q` milli-cores lets at most `q` thousandths of a second a second pass, beyond one burst.
//! The arithmetic ([`Bucket`]) takes the time as an argument and is a pure function of it.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use wasmtime::ResourceLimiter;
use weft_turns::Tenant;

use crate::events::{Event, EventSink};
use crate::workload::Inner as Workload;

/// A workload's bounds. The defaults suit a small service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Linear memory and tables, and what the host holds for them, in bytes, summed over all live instances of the workload.
    pub memory_bytes: u64,
    /// CPU quota in thousandths of a core over all instances; none means no quota.
    pub cpu_millis: Option<u32>,
    /// CPU in thousandths of a core that guests which compute for long get beside everybody else; with more than that, or with
    /// zero, they compute while nobody else on the machine wants to.
    pub cpu_reserved_millis: u32,
    /// From the arrival of a call to the head of its response, waiting in the queue included.
    pub request_timeout: Duration,
    /// The longest pause between two parts of a response body: the guest's, who writes them, and the caller's, who reads
    /// them (up to twice as long).
    pub body_idle_timeout: Duration,
    /// Bytes of one request body that the guest is given, and of one response body that is taken from it. Beyond that, the body
    /// breaks off.
    pub body_bytes: u64,
    /// How long an instance may go on working after its last response was delivered.
    pub background_timeout: Duration,
    /// How long a command may run; none means for ever.
    pub run_timeout: Option<Duration>,
    /// Calls that are being handled at the same time, over all instances.
    pub in_flight_max: usize,
    /// Calls that may wait for one of those places. Beyond that, a call is refused at once.
    pub queued_max: usize,
    /// Outbound requests of the workload that may be open at the same time.
    pub outbound_max: usize,
    /// Operations on the workload's key-value stores that may be under way at the same time. Further ones wait for one to end.
    pub key_value_max: usize,
    /// Size of one set of header fields, as the host holds it.
    pub header_bytes: usize,
    /// Random bytes a guest may ask for in one call.
    pub random_bytes: u64,
    /// Host resources (streams, requests, fields, …) one instance may hold.
    pub resources_max: usize,
    /// Handles in the tables of one instance.
    pub handles_max: usize,
    /// Bytes that one call may copy from the guest into the host.
    pub hostcall_bytes: usize,
    /// Elements of one table.
    pub table_elements: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory_bytes: 256 << 20,
            cpu_millis: None,
            cpu_reserved_millis: 0,
            request_timeout: Duration::from_secs(30),
            body_idle_timeout: Duration::from_secs(300),
            // Nothing is held in memory for it: a stop for what never ends, beyond any file.
            body_bytes: 64 << 30,
            background_timeout: Duration::from_secs(30),
            run_timeout: None,
            // What one tenant's workloads take together, its account bounds.
            in_flight_max: 512,
            queued_max: 512,
            outbound_max: 256,
            // Enough for thousands a second; what they answer comes to a mebibyte each at most.
            key_value_max: 64,
            // wasmtime's 128 KiB counts in-memory size; half of it still holds more than common proxies accept.
            header_bytes: 64 << 10,
            random_bytes: 1 << 20,
            // Four for each request that may be open at once; what they hold is counted as memory.
            resources_max: 1_024,
            handles_max: 4_096,
            // Room for one body chunk of a megabyte and then some; wasmtime's default is 128 MiB.
            hostcall_bytes: 16 << 20,
            table_elements: 100_000,
        }
    }
}

impl Limits {
    /// What of them may be another while the workload runs.
    pub fn allotment(&self) -> Allotment {
        Allotment {
            memory_bytes: self.memory_bytes,
            cpu_millis: self.cpu_millis,
            cpu_reserved_millis: self.cpu_reserved_millis,
        }
    }
}

/// Memory and CPU of a workload, as in [`Limits`]: what can be changed while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allotment {
    pub memory_bytes: u64,
    pub cpu_millis: Option<u32>,
    pub cpu_reserved_millis: u32,
}

/// Why a workload keeps what it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ResizeError {
    /// It may be less once the guest uses less.
    #[error("the memory limit cannot be {asked_bytes} bytes while {used_bytes} are in use")]
    InUse { asked_bytes: u64, used_bytes: u64 },
    #[error(
        "the component starts with {needed_bytes} bytes of memory, and the limit would be {asked_bytes}"
    )]
    TooSmall { needed_bytes: u64, asked_bytes: u64 },
    #[error("the process that the component runs in {reason}")]
    Lost { reason: String },
}

/// What a workload has used since it was built. Counters only grow; gauges say so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub cpu_nanos: u64,
    /// Gauge: linear memory and tables of all live instances, and what the host holds for them.
    pub memory_bytes: u64,
    pub memory_peak_bytes: u64,
    pub memory_limit_bytes: u64,
    /// Gauge: live instances.
    pub instances: u64,
    /// Instances ever started.
    pub instances_started: u64,
    /// Gauge: calls being handled.
    pub in_flight: u64,
    /// Gauge: calls waiting for a place.
    pub queued: u64,
    pub requests: u64,
    /// Calls refused because the queue was full.
    pub overloaded: u64,
    pub deadlines: u64,
    pub traps: u64,
    /// Calls that the guest returned from without a response; each has ended its instance.
    pub no_response: u64,
    pub out_of_memory: u64,
    pub outbound_requests: u64,
}

/// Memory of one workload, over all of its instances.
pub(crate) struct MemoryAccount {
    limit: AtomicU64,
    used: AtomicU64,
    peak: AtomicU64,
    /// Whose idle instances can be ended.
    workload: OnceLock<Weak<Workload>>,
}

impl MemoryAccount {
    pub(crate) fn new(limit: u64) -> MemoryAccount {
        MemoryAccount {
            limit: AtomicU64::new(limit),
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            workload: OnceLock::new(),
        }
    }

    /// From now on `workload`'s idle instances end before anything is refused.
    pub(crate) fn belongs_to(&self, workload: Weak<Workload>) {
        // Said once, when it is built.
        let _ = self.workload.set(workload);
    }

    fn take_or_make_room(&self, bytes: u64) -> bool {
        if self.try_take(bytes) {
            return true;
        }
        let workload = self.workload.get().and_then(Weak::upgrade);
        workload.is_some_and(|workload| {
            workload.end_idle();
            self.try_take(bytes)
        })
    }

    /// Whether that much is left.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let used = self.used.load(Relaxed);
        used.checked_add(bytes)
            .is_some_and(|total| total <= self.limit())
    }

    fn try_take(&self, bytes: u64) -> bool {
        let limit = self.limit();
        let taken = self.used.fetch_update(Relaxed, Relaxed, |used| {
            used.checked_add(bytes).filter(|total| *total <= limit)
        });
        match taken {
            Ok(before) => {
                self.peak.fetch_max(before + bytes, Relaxed);
                true
            }
            Err(_) => false,
        }
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// Another limit from now on. Where more than that is in use, idle instances end; if that is not enough it stays as it was, with how much
    /// is in use.
    pub(crate) fn set_limit(&self, limit: u64) -> Result<(), u64> {
        let before = self.limit.swap(limit, Relaxed);
        if self.used() > limit
            && let Some(workload) = self.workload.get().and_then(Weak::upgrade)
        {
            workload.end_idle();
        }
        let used = self.used();
        if used <= limit {
            return Ok(());
        }
        self.limit.store(before, Relaxed);
        Err(used)
    }
}

/// One table element as the engine holds it.
const TABLE_ELEMENT_BYTES: u64 = 16;
/// Bounds on one store; wasmtime's own are 10,000 each.
const STORE_INSTANCES_MAX: usize = 256;
const STORE_TABLES_MAX: usize = 64;
const STORE_MEMORIES_MAX: usize = 64;

/// Memory that the host holds for a guest; given back when it is dropped.
pub struct Charge {
    host: Arc<HostBytes>,
    bytes: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.host.account.give_back(self.bytes);
    }
}

/// The account that what the host holds is charged to. One for each store, so that cores do not meet at it.
pub struct HostBytes {
    account: Arc<MemoryAccount>,
    refused: Arc<AtomicBool>,
    events: Option<EventSink>,
}

impl HostBytes {
    /// `refused` is set where something is.
    pub(crate) fn new(
        account: Arc<MemoryAccount>,
        refused: Arc<AtomicBool>,
        events: Option<EventSink>,
    ) -> Arc<HostBytes> {
        Arc::new(HostBytes {
            account,
            refused,
            events,
        })
    }

    /// The same bytes, charged wherever they go until the last of them is dropped.
    ///
    /// # Errors
    /// When the workload has no memory left for them. The guest does not outlive that: the host could not do what it was told.
    pub fn charged(self: &Arc<HostBytes>, bytes: Bytes) -> wasmtime::Result<Bytes> {
        if bytes.is_empty() {
            return Ok(bytes);
        }
        let charge = self.charge(bytes.len() as u64)?;
        Ok(Bytes::from_owner(Charged {
            bytes,
            _charge: charge,
        }))
    }

    /// Room for `bytes`, until the result is dropped.
    ///
    /// # Errors
    /// As [`HostBytes::charged`].
    pub fn charge(self: &Arc<HostBytes>, bytes: u64) -> wasmtime::Result<Charge> {
        if !self.account.take_or_make_room(bytes) {
            return Err(self.refuse(bytes));
        }
        Ok(Charge {
            host: self.clone(),
            bytes,
        })
    }

    /// Room for `bytes` where there is any: for what the host can do without, and the guest is told of.
    pub(crate) fn try_charge(self: &Arc<HostBytes>, bytes: u64) -> Option<Charge> {
        self.account.take_or_make_room(bytes).then(|| Charge {
            host: self.clone(),
            bytes,
        })
    }

    fn refuse(&self, bytes: u64) -> wasmtime::Error {
        self.tell_refused(bytes);
        self.refused.store(true, Relaxed);
        wasmtime::Error::msg("the host may hold no more for the guest: its memory limit is reached")
    }

    fn tell_refused(&self, bytes: u64) {
        if let Some(events) = &self.events {
            events.tell(Event::MemoryRefused {
                asked_bytes: bytes,
                used_bytes: self.account.used(),
                limit_bytes: self.account.limit(),
            });
        }
    }
}

/// Bytes with what they cost.
struct Charged {
    bytes: Bytes,
    _charge: Charge,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What one store holds of its workload's memory; gives it back when dropped.
pub(crate) struct MemoryShare {
    host: Arc<HostBytes>,
    held: u64,
    last: u64,
    /// Of what is held, what is in the table of host resources.
    resources: u64,
    table_elements: usize,
}

impl MemoryShare {
    pub(crate) fn new(
        account: Arc<MemoryAccount>,
        table_elements: usize,
        refused: Arc<AtomicBool>,
        events: Option<EventSink>,
    ) -> MemoryShare {
        MemoryShare {
            host: HostBytes::new(account, refused, events),
            held: 0,
            last: 0,
            resources: 0,
            table_elements,
        }
    }

    /// Where what the host holds for this store is charged.
    pub(crate) fn host(&self) -> &Arc<HostBytes> {
        &self.host
    }

    /// Sets what the table of host resources holds.
    ///
    /// # Errors
    /// When that is more than is left.
    pub(crate) fn set_resources(&mut self, bytes: u64) -> wasmtime::Result<()> {
        let more = bytes.saturating_sub(self.resources);
        if !self.host.account.take_or_make_room(more) {
            return Err(self.host.refuse(more));
        }
        let less = self.resources.saturating_sub(bytes);
        self.host.account.give_back(less);
        self.held = self.held + more - less;
        self.resources = bytes;
        Ok(())
    }

    fn grow(&mut self, bytes: u64) -> bool {
        let granted = self.host.account.take_or_make_room(bytes);
        if granted {
            self.held += bytes;
            self.last = bytes;
        } else {
            self.host.tell_refused(bytes);
        }
        // A guest that lived through a refusal and grew again did not die of it.
        self.host.refused.store(!granted, Relaxed);
        granted
    }

    fn undo(&mut self) {
        let bytes = std::mem::take(&mut self.last);
        self.held -= bytes;
        self.host.account.give_back(bytes);
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.host.account.give_back(self.held);
    }
}

impl ResourceLimiter for MemoryShare {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current) as u64))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > self.table_elements || maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current) as u64 * TABLE_ELEMENT_BYTES))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn instances(&self) -> usize {
        STORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        STORE_TABLES_MAX
    }

    fn memories(&self) -> usize {
        STORE_MEMORIES_MAX
    }
}

/// The stretch of time over which a quota may be used up at once, as in Linux' CFS bandwidth control.
const BURST_PERIOD: Duration = Duration::from_millis(100);

/// A token bucket of CPU nanoseconds. Its balance may go negative: a guest runs on credit until its next check.
#[derive(Debug)]
pub(crate) struct Bucket {
    millis: u32,
    balance_nanos: i64,
    refilled_at: Instant,
}

impl Bucket {
    pub(crate) fn new(millis: u32, now: Instant) -> Bucket {
        let mut bucket = Bucket {
            millis: millis.max(1),
            balance_nanos: 0,
            refilled_at: now,
        };
        bucket.balance_nanos = bucket.burst_nanos();
        bucket
    }

    fn burst_nanos(&self) -> i64 {
        self.earned(BURST_PERIOD)
    }

    fn earned(&self, elapsed: Duration) -> i64 {
        let nanos = elapsed.as_nanos() * u128::from(self.millis) / 1000;
        i64::try_from(nanos).unwrap_or(i64::MAX)
    }

    fn refill(&mut self, now: Instant) {
        let earned = self.earned(now.saturating_duration_since(self.refilled_at));
        self.balance_nanos = self
            .balance_nanos
            .saturating_add(earned)
            .min(self.burst_nanos());
        self.refilled_at = now;
    }

    /// Takes what was used up to `now`.
    pub(crate) fn charge(&mut self, nanos: u64, now: Instant) {
        self.refill(now);
        self.balance_nanos = self.balance_nanos.saturating_sub_unsigned(nanos);
    }

    /// How long to wait until the debt is paid; none when there is no debt.
    pub(crate) fn debt(&mut self, now: Instant) -> Option<Duration> {
        self.refill(now);
        let debt = u64::try_from(-self.balance_nanos)
            .ok()
            .filter(|debt| *debt > 0)?;
        Some(Duration::from_nanos(
            debt.saturating_mul(1000) / u64::from(self.millis),
        ))
    }
}

/// CPU time of one workload.
#[derive(Debug)]
pub(crate) struct CpuAccount {
    tenant: Tenant,
    used_nanos: AtomicU64,
    quota: Rate,
    /// Charged on the threads for long computations only: nothing else waits for it.
    reserve: Rate,
}

/// A bucket that there may be or not, which changes while it is in use. Whoever has none pays no lock.
#[derive(Debug)]
struct Rate {
    /// Zero: none.
    millis: AtomicU32,
    bucket: Mutex<Bucket>,
}

impl Rate {
    fn new(millis: u32) -> Rate {
        Rate {
            millis: AtomicU32::new(millis),
            bucket: Mutex::new(Bucket::new(millis, Instant::now())),
        }
    }

    /// Debts of before are let go with the bucket that they were made in.
    fn set(&self, millis: u32) {
        if self.millis.load(Relaxed) != millis {
            *self.bucket.lock() = Bucket::new(millis, Instant::now());
            self.millis.store(millis, Relaxed);
        }
    }

    fn bucket(&self) -> Option<MutexGuard<'_, Bucket>> {
        (self.millis.load(Relaxed) > 0).then(|| self.bucket.lock())
    }
}

impl CpuAccount {
    pub(crate) fn new(
        tenant: Tenant,
        quota_millis: Option<u32>,
        reserved_millis: u32,
    ) -> CpuAccount {
        CpuAccount {
            tenant,
            used_nanos: AtomicU64::new(0),
            quota: Rate::new(quota(quota_millis)),
            reserve: Rate::new(reserved_millis),
        }
    }

    /// Another quota and another reserve from now on.
    pub(crate) fn set(&self, quota_millis: Option<u32>, reserved_millis: u32) {
        self.quota.set(quota(quota_millis));
        self.reserve.set(reserved_millis);
    }

    pub(crate) fn used_nanos(&self) -> u64 {
        self.used_nanos.load(Relaxed)
    }

    /// Whose turn it has to be before it runs on a core.
    pub(crate) fn tenant(&self) -> Tenant {
        self.tenant
    }

    fn charge(&self, used: Duration) {
        weft_turns::charge(self.tenant, used);
        let nanos = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        self.used_nanos.fetch_add(nanos, Relaxed);
        if let Some(mut quota) = self.quota.bucket() {
            quota.charge(nanos, Instant::now());
        }
        if COUNTS_CPU.get()
            && let Some(mut reserve) = self.reserve.bucket()
        {
            reserve.charge(nanos, Instant::now());
        }
    }

    /// Whether something is left of what the workload reserved for long computations.
    pub(crate) fn has_reserve(&self) -> bool {
        let reserve = self.reserve.bucket();
        reserve.is_some_and(|mut reserve| reserve.debt(Instant::now()).is_none())
    }

    /// How long the workload has to wait before it may run again.
    pub(crate) fn debt(&self) -> Option<Duration> {
        self.quota.bucket()?.debt(Instant::now())
    }
}

/// A quota of nothing is the least that there is.
fn quota(millis: Option<u32>) -> u32 {
    millis.map_or(0, |millis| millis.max(1))
}

thread_local! {
    /// By [`clock`], when the guest that runs on this thread was last charged.
    static SLICE: Cell<Option<Duration>> = const { Cell::new(None) };
    /// This thread makes way for others, so that time passes without its doing.
    static COUNTS_CPU: Cell<bool> = const { Cell::new(false) };
    /// Whether the guest that ran last on this thread was made to yield, rather than having nothing to do. None: nobody ran since
    /// that was asked.
    static PREEMPTED: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Has guests on this thread charged for the CPU time that it got, which costs a system call for each stretch of work.
pub(crate) fn count_cpu() {
    COUNTS_CPU.set(true);
}

/// Time as guests on this thread are charged for it. A core that wants to run does, almost always, and is asked often: its is
/// the wall clock.
fn clock() -> Duration {
    if COUNTS_CPU.get() {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
        return Duration::new(seconds, nanos);
    }
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// A stretch of guest work on this thread: charged to its workload when dropped.
pub(crate) struct Slice<'a> {
    cpu: &'a CpuAccount,
    outer: Option<Duration>,
}

impl<'a> Slice<'a> {
    pub(crate) fn start(cpu: &'a CpuAccount) -> Slice<'a> {
        PREEMPTED.set(Some(false));
        Slice {
            cpu,
            outer: SLICE.replace(Some(clock())),
        }
    }

    /// Whether this is called by a guest that runs.
    pub(crate) fn anyone_runs() -> bool {
        SLICE.get().is_some()
    }

    /// Whether the guest that ran last on this thread was interrupted, and has more to compute. None if nobody ran since [`Slice::ask`].
    pub(crate) fn last_was_preempted() -> Option<bool> {
        PREEMPTED.get()
    }

    /// From here on it is about who runs next.
    pub(crate) fn ask() {
        PREEMPTED.set(None);
    }

    /// For whoever interrupts the guest.
    pub(crate) fn preempt() {
        PREEMPTED.set(Some(true));
    }

    /// Charges what the current slice used so far and says how much it was. For a guest in the middle of a slice.
    pub(crate) fn checkpoint(cpu: &CpuAccount) -> Duration {
        let now = clock();
        let used = SLICE
            .replace(Some(now))
            .map_or(Duration::ZERO, |start| now.saturating_sub(start));
        cpu.charge(used);
        used
    }
}

impl Drop for Slice<'_> {
    fn drop(&mut self) {
        if let Some(start) = SLICE.replace(self.outer) {
            self.cpu.charge(clock().saturating_sub(start));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_summed_over_instances_and_given_back() {
        let account = Arc::new(MemoryAccount::new(1000));
        let refused = Arc::new(AtomicBool::new(false));
        let mut one = MemoryShare::new(account.clone(), 10, refused.clone(), None);
        let mut two = MemoryShare::new(account.clone(), 10, refused.clone(), None);
        assert!(one.memory_growing(0, 600, None).unwrap());
        assert!(
            !two.memory_growing(0, 600, None).unwrap(),
            "the sum would be 1200 of 1000"
        );
        assert!(refused.load(Relaxed));
        assert!(two.memory_growing(0, 400, None).unwrap());
        assert!(!refused.load(Relaxed), "it lived on");
        assert!(
            !two.table_growing(0, 11, None).unwrap(),
            "more elements than allowed"
        );
        one.memory_grow_failed(wasmtime::Error::msg("the host had none"))
            .unwrap();
        assert_eq!((account.used(), account.peak()), (400, 1000));
        drop((one, two));
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn what_the_host_holds_is_charged_until_the_last_of_it_is_dropped() {
        let account = Arc::new(MemoryAccount::new(1000));
        let refused = Arc::new(AtomicBool::new(false));
        let mut share = MemoryShare::new(account.clone(), 10, refused.clone(), None);
        let host = share.host().clone();
        assert!(share.memory_growing(0, 500, None).unwrap());
        let mut chunk = host.charged(Bytes::from(vec![7; 300])).unwrap();
        assert_eq!(account.used(), 800);
        let rest = chunk.split_off(1);
        drop(chunk);
        assert_eq!((account.used(), rest.len()), (800, 299));
        share.set_resources(150).unwrap();
        assert_eq!(account.used(), 950);
        assert!(!refused.load(Relaxed));
        assert!(host.charged(Bytes::from(vec![7; 51])).is_err());
        assert!(refused.load(Relaxed), "the guest dies of it");
        assert!(share.set_resources(201).is_err());
        share.set_resources(10).unwrap();
        assert_eq!(account.used(), 810);
        // The store goes, and what it wrote is still on its way.
        drop((share, host));
        assert_eq!(account.used(), 300);
        drop(rest);
        assert_eq!(account.used(), 0);
    }

    #[test]
    fn a_limit_may_change_and_not_below_what_is_in_use() {
        let account = Arc::new(MemoryAccount::new(1000));
        let refused = Arc::new(AtomicBool::new(false));
        let mut share = MemoryShare::new(account.clone(), 10, refused, None);
        assert!(share.memory_growing(0, 600, None).unwrap());
        assert_eq!(account.set_limit(599), Err(600));
        assert_eq!(account.limit(), 1000, "it is as it was");
        account.set_limit(600).unwrap();
        assert!(!share.memory_growing(600, 601, None).unwrap());
        account.set_limit(2000).unwrap();
        assert!(share.memory_growing(600, 2000, None).unwrap());
    }

    #[test]
    fn quota_and_reserve_come_and_go_while_a_workload_runs() {
        let account = CpuAccount::new(Tenant::named("shop"), None, 0);
        let second = Duration::from_secs(1);
        account.charge(second);
        assert_eq!(account.debt(), None);
        account.set(Some(100), 100);
        assert!(account.has_reserve());
        account.charge(second);
        assert!(account.debt() > Some(second * 9), "ten times as long");
        account.set(Some(200), 0);
        assert_eq!(account.debt(), None, "of the quota of before");
        assert!(!account.has_reserve());
        account.set(None, 0);
        account.charge(second);
        assert_eq!(account.debt(), None);
    }

    #[test]
    fn a_quota_is_a_rate_with_one_burst() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        // 250 millicores: 25 ms a period of 100 ms.
        let mut bucket = Bucket::new(250, start);
        assert_eq!(bucket.debt(at(0)), None);
        bucket.charge(25_000_000, at(0));
        assert_eq!(
            bucket.debt(at(0)),
            None,
            "the burst is used up, and no more"
        );
        bucket.charge(10_000_000, at(0));
        assert_eq!(
            bucket.debt(at(0)),
            Some(Duration::from_millis(40)),
            "10 ms of CPU cost 40 ms of waiting"
        );
        assert_eq!(bucket.debt(at(39)), Some(Duration::from_millis(1)));
        assert_eq!(bucket.debt(at(40)), None);
        // A long pause buys one burst, not more.
        bucket.charge(35_000_000, at(100_000));
        assert_eq!(bucket.debt(at(100_000)), Some(Duration::from_millis(40)));
    }

    #[test]
    fn long_computations_are_charged_for_the_cpu_that_they_got() {
        // 100 millicores: 10 ms are reserved.
        let tenant = Tenant::named("shop");
        let account = CpuAccount::new(tenant, None, 100);
        let burn = |account: &CpuAccount, until: Duration| {
            let _slice = Slice::start(account);
            let start = clock();
            while clock() - start < until {}
        };
        burn(&account, Duration::from_millis(30));
        assert!(account.has_reserve(), "that was on a core");
        let before = account.used_nanos();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                count_cpu();
                let slice = Slice::start(&account);
                std::thread::sleep(Duration::from_millis(50));
                drop(slice);
                assert!(account.used_nanos() - before < 50_000_000, "it slept");
                assert!(account.has_reserve());
                burn(&account, Duration::from_millis(30));
                assert!(!account.has_reserve());
            });
        });
        assert!(account.used_nanos() - before >= 30_000_000);
        assert!(!CpuAccount::new(tenant, Some(100), 0).has_reserve());
    }
}
