//! The one driver of controllers and scheduler: the only place where their decisions become writes.
//!
//! Runs while this server leads, on a tokio runtime of its own, so that neither requests nor raft wait for a long look. Feeds
//! the informer's stream into the view, queues the keys that each change concerns, runs the pure reconcilers on them and
//! carries out what they return. Placement of pods works the same way beside them, in batches.
//!
//! A turn: everything that the informer told, every answer that came, then a bounded number of looks, the controllers one
//! after the other, each with a queue of its own. So no news waits for more than a turn, and no controller's crowd of
//! keys keeps another from its one.
//!
//! Invariants:
//! - every write carries the term it was decided under and is fenced by it;
//! - a key is never worked on twice at once, and the answers of its writes are in the view before it is looked
//!   at again;
//! - nothing is decided before the view is complete, nor between two changes that were told together;
//! - a write that was not answered in time may be done, or be done yet. Nothing is decided on a view that does not know: all that is under
//!   way is ended, and the loop starts over behind a write of its own, before which the log has settled what came earlier;
//! - a panic costs the key it came from: that key is parked with the pauses of a failure, and its object is told. One that
//!   belongs to no key starts the loop over. The server goes on either way.
//!
//! Left to others: deciding (`weft_controllers`, `weft_scheduler`), refusing (`weft_apiserver::objects`).

pub mod execute;
pub mod inbox;
pub mod placement;
pub mod queue;
pub mod recorder;
mod usage;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use weft_api::StatusError;
use weft_apiserver::caller::Caller;
use weft_apiserver::http::usage::UsageReader;
use weft_apiserver::informer::Change as News;
use weft_apiserver::objects::Objects;
use weft_controllers::{
    CONTROLLERS, Calls, Change, Cluster, Context, Controller, Key, Note, Past, Reads, Touched,
    Usage, View, autoscaler, rollout,
};
use weft_store::Term;

use crate::exit::Chain;
use execute::{Executed, execute};
use inbox::Inbox;
use placement::{Placement, Round};
use queue::Queue;
use recorder::Recorder;

/// Keys whose writes may be under way at once. Each is a group-committed store write or a few: enough to keep the
/// log busy, few enough that a burst does not fill the store's proposal queue.
const WRITES_IN_FLIGHT_MAX: usize = 64;
/// The same of one controller, so that the others find room beside it.
const WRITES_OF_ONE_MAX: usize = 32;
/// Looks in a turn. A look takes some microseconds to some milliseconds, and news waits for the end of the turn.
const LOOKS_A_TURN: usize = 128;
/// Threads of the loop's runtime: the loop itself, and one for the informer, the writes and the events.
const THREADS: usize = 2;
/// First pause after a refusal; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A key that was quiet rests this long after a look: a pod that starts changes several times within a few milliseconds, and somebody
/// may wait for it.
const REST_FIRST: Duration = Duration::from_millis(2);
/// What it rests after the next look, if a change during the rest asked for that, and by how much longer after each further one: a look costs as
/// much as the key has pods, and each of them changes several times.
const REST: Duration = Duration::from_millis(20);
/// Longest rest: a busy Service hears of a pod this late at most.
const REST_MAX: Duration = Duration::from_millis(400);

/// Pause between two readings of what pods use, while anybody asks for it: a little less than between two looks of an
/// autoscaler.
const USAGE_PAUSE: Duration = Duration::from_secs(10);

/// What the loop has to know of the cluster beyond its objects.
#[derive(Clone)]
pub struct ClusterInfo {
    /// The certificates that clients trust, published to every namespace. When they change, the loop starts over.
    pub ca_pem: watch::Receiver<Arc<str>>,
    /// Who reads what pods use; without it nobody does.
    pub usage: Option<UsageReader>,
}

/// The loop on its runtime.
pub struct ControlLoop {
    handle: JoinHandle<()>,
    /// Taken when it ends: a runtime must not be waited for by another one's threads.
    runtime: Option<Runtime>,
}

impl ControlLoop {
    /// Starts the loop: it runs whenever this server leads, until `shutdown` or until the store closes.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn start(
        objects: Objects,
        leadership: watch::Receiver<Option<Term>>,
        cluster: ClusterInfo,
        shutdown: CancellationToken,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("control-loop")
            .enable_all()
            .build()?;
        let handle = runtime.spawn(run(objects, leadership, cluster, CONTROLLERS, shutdown));
        Ok(Self {
            handle,
            runtime: Some(runtime),
        })
    }

    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// Waits for its end, which `shutdown` brings about, but no longer than `patience`.
    pub async fn ended(&mut self, patience: Duration) {
        let _ = tokio::time::timeout(patience, &mut self.handle).await;
    }
}

impl Drop for ControlLoop {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn run(
    objects: Objects,
    mut leadership: watch::Receiver<Option<Term>>,
    cluster: ClusterInfo,
    controllers: &'static [Controller],
    shutdown: CancellationToken,
) {
    let ClusterInfo { mut ca_pem, usage } = cluster;
    let mut panics = 0;
    let mut in_doubt = false;
    loop {
        let term = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            term = elected(&mut leadership) => term,
        };
        let Some(term) = term else { return };
        // What was proposed in this term and not answered is settled by the log before a write that comes after it.
        if in_doubt && let Err(error) = objects.store().write(Vec::new(), Some(term)).await {
            debug!(term, error = %Chain(&error), "cannot settle what is in doubt yet");
            tokio::time::sleep(BACKOFF_MIN).await;
            continue;
        }
        in_doubt = false;
        // What earlier leaders had acknowledged must be applied here before anything is decided on it.
        if let Err(error) = objects.store().read().await {
            debug!(term, error = %Chain(&error), "cannot confirm leadership yet");
            tokio::time::sleep(BACKOFF_MIN).await;
            continue;
        }
        info!(term, "control loop starts");
        let recorder = Recorder::start(objects.clone(), term);
        let mut driver = Driver::new(
            objects.clone(),
            Cluster {
                ca_pem: ca_pem.borrow_and_update().to_string(),
            },
            controllers,
            term,
            recorder,
        );
        driver.meter.reader.clone_from(&usage);
        let started = Instant::now();
        let driven = async {
            define_kinds(&objects, term).await;
            driver.drive().await
        };
        let driven = AssertUnwindSafe(driven).catch_unwind();
        let panic = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = deposed(&mut leadership, term) => {
                info!(term, "control loop stops: this server no longer leads");
                continue;
            }
            () = changed(&mut ca_pem) => {
                info!(term, "control loop starts over: the cluster's authority is another");
                in_doubt = true;
                continue;
            }
            ended = driven => match ended {
                Ok(Ended::Closed) => return,
                Ok(Ended::InDoubt) => {
                    warn!(term, "control loop starts over: a write was not answered in time");
                    in_doubt = true;
                    continue;
                }
                Err(panic) => panic,
            },
        };
        // Whose fault it was is not known, so nothing of what was known is trusted.
        if started.elapsed() > BACKOFF_MAX {
            panics = 0;
        }
        let pause = queue::backoff(panics);
        panics = panics.saturating_add(1);
        error!(
            term,
            panic = panic_message(&*panic),
            ?pause,
            "control loop starts over after a panic"
        );
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Has the kinds served that controllers read and that are custom kinds: objects that lie in the store already are seen then, and keep their
/// namespaces from going.
async fn define_kinds(objects: &Objects, term: Term) {
    let caller = Caller::system("apiserver", Some(term));
    if let Err(error) = objects.ensure_gateway_api(&caller).await {
        warn!(%error, "the kinds of the Gateway API are not all defined; it is tried again");
    }
}

/// The term, once this server leads; `None` when the store is gone.
async fn elected(leadership: &mut watch::Receiver<Option<Term>>) -> Option<Term> {
    let term = leadership.wait_for(Option::is_some).await.ok()?;
    *term
}

/// Comes when clients trust other certificates than before; never where these never change.
async fn changed(ca_pem: &mut watch::Receiver<Arc<str>>) {
    if ca_pem.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Comes when another term than ours is in force, or none.
async fn deposed(leadership: &mut watch::Receiver<Option<Term>>, term: Term) {
    // An error means that the store is gone, which is the end of leading, too.
    let _ = leadership.wait_for(|now| *now != Some(term)).await;
}

/// A controller, by its place among the [`Driver`]'s, and one of its keys.
type Work = (usize, Key);

/// A controller at work.
struct Worker {
    controller: &'static Controller,
    caller: Caller,
    queue: Queue<Key>,
    /// Keys whose writes are under way.
    writing: usize,
    /// What looks at keys left for the next ones.
    pasts: BTreeMap<Key, Past>,
}

/// Why the loop ended.
#[derive(Debug, PartialEq)]
enum Ended {
    /// There is no store any more.
    Closed,
    /// Of some write it is not known whether it was done.
    InDoubt,
}

/// What came back from a task.
enum Done {
    /// What came of a key's writes, or the panic they ended in.
    Key(Work, Result<Executed, String>, Next),
    Round(Round),
    /// What pods use, and what is counted of calls if anybody asks for that, unless they could not be read.
    Usage(Option<Usage>, Option<Calls>),
}

/// What a look left for the next one.
struct Next {
    again: Option<Duration>,
    past: Option<Past>,
}

/// What pods use, and when it is to be read again.
#[derive(Default)]
struct Meter {
    reader: Option<UsageReader>,
    read: Option<Usage>,
    calls: Option<Calls>,
    is_reading: bool,
    /// `None`: as soon as anybody asks for it.
    due: Option<Instant>,
}

impl Meter {
    /// Whether it is to be read now.
    fn is_due(&self, now: Instant) -> bool {
        !self.is_reading && self.due.is_none_or(|due| due <= now)
    }
}

struct Driver {
    objects: Objects,
    cluster: Cluster,
    term: Term,
    view: View,
    workers: Vec<Worker>,
    /// Whose turn it is.
    next: usize,
    placement: Placement,
    tasks: JoinSet<Done>,
    recorder: Recorder,
    meter: Meter,
    /// Of some write it is not known whether it was done.
    in_doubt: bool,
}

impl Driver {
    fn new(
        objects: Objects,
        cluster: Cluster,
        controllers: &'static [Controller],
        term: Term,
        recorder: Recorder,
    ) -> Self {
        let workers: Vec<Worker> = controllers
            .iter()
            .map(|controller| Worker {
                controller,
                caller: Caller::system(controller.name, Some(term)),
                queue: Queue::default(),
                writing: 0,
                pasts: BTreeMap::new(),
            })
            .collect();
        Self {
            view: new_view(&workers),
            objects,
            cluster,
            term,
            workers,
            next: 0,
            placement: Placement::new(term),
            tasks: JoinSet::new(),
            recorder,
            meter: Meter::default(),
            in_doubt: false,
        }
    }

    /// Ends when the store closes, or when a write is in doubt; is dropped, tasks and all, when leadership ends.
    async fn drive(mut self) -> Ended {
        let inbox = Inbox::open(self.objects.informer(|_| true));
        loop {
            let Some(news) = inbox.take_news() else {
                return Ended::Closed;
            };
            for (news, at) in news {
                self.apply_news(news, at);
            }
            while let Some(done) = self.tasks.try_join_next() {
                self.finish_task(done);
            }
            if self.in_doubt {
                // Whoever starts over writes after all of these.
                self.tasks.shutdown().await;
                return Ended::InDoubt;
            }
            if self.start_work() {
                // There is more to look at; first whoever else has something to do on this thread.
                tokio::task::yield_now().await;
                continue;
            }
            let due = self.next_due();
            tokio::select! {
                () = inbox.news_arrived() => {}
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => self.finish_task(done),
                () = sleep_until(due), if due.is_some() => {}
            }
        }
    }

    /// When there will be something to do without any news. A controller without room waits for one of its writes.
    fn next_due(&self) -> Option<Instant> {
        if !self.view.is_synced() || self.tasks.len() >= WRITES_IN_FLIGHT_MAX {
            return None;
        }
        let waiting = self.workers.iter().filter(|worker| worker.has_room());
        let due = waiting.filter_map(|worker| worker.queue.next_due());
        let due = due.chain(self.placement.next_due());
        let reading = self.meter.due.filter(|_| self.meter.reader.is_some());
        let reading = reading.filter(|_| !self.meter.is_reading && self.wants_reading());
        due.chain(reading).min()
    }

    fn apply_news(&mut self, news: News, at: Timestamp) {
        let change = match news {
            News::Reset => {
                self.view = new_view(&self.workers);
                self.placement = Placement::new(self.term);
                return;
            }
            News::Synced { revision } => {
                self.view.set_synced(revision);
                let now = Instant::now();
                for Worker {
                    controller, queue, ..
                } in &mut self.workers
                {
                    for key in keys_of(controller, || (controller.seeds)(&self.view)) {
                        queue.add(key, now);
                    }
                }
                debug!(revision, "the view is complete");
                return;
            }
            News::Upsert { kind, object } => Change::Upsert(kind, object),
            News::Delete { kind, object } => Change::Delete(kind, object),
        };
        if let Some(touched) = self.view.apply(change, at) {
            self.queue_keys(&touched);
        }
    }

    /// Queues whatever a change concerns.
    fn queue_keys(&mut self, touched: &Touched) {
        self.placement.notice(touched);
        if !self.view.is_synced() {
            return;
        }
        let now = Instant::now();
        for Worker {
            controller, queue, ..
        } in &mut self.workers
        {
            for key in keys_of(controller, || (controller.keys)(&self.view, touched)) {
                queue.add(key, now);
            }
            for key in keys_of(controller, || (controller.relieved)(&self.view, touched)) {
                queue.relieve(key);
            }
        }
    }

    /// Starts as much work as there is room for in a turn. True: there is more that could be started at once.
    fn start_work(&mut self) -> bool {
        if !self.view.is_synced() {
            return false;
        }
        self.start_placement();
        self.start_reading();
        for _ in 0..LOOKS_A_TURN {
            let Some(work) = self.next_work() else {
                return false;
            };
            self.reconcile(work);
        }
        true
    }

    /// The next key of the next controller that has one, and room.
    fn next_work(&mut self) -> Option<Work> {
        if self.tasks.len() >= WRITES_IN_FLIGHT_MAX {
            return None;
        }
        let now = Instant::now();
        for _ in 0..self.workers.len() {
            let at = self.next;
            self.next = (at + 1) % self.workers.len();
            let worker = &mut self.workers[at];
            if worker.has_room()
                && let Some(key) = worker.queue.pop(now)
            {
                return Some((at, key));
            }
        }
        None
    }

    /// Whether anybody asks for what pods use, or for what is counted of calls.
    fn wants_reading(&self) -> bool {
        autoscaler::wants_usage(&self.view) || rollout::wants_calls(&self.view)
    }

    /// Has usage read, if anybody asks for it and it is time.
    fn start_reading(&mut self) {
        let Some(reader) = &self.meter.reader else {
            return;
        };
        if !self.meter.is_due(Instant::now()) || !self.wants_reading() {
            return;
        }
        let reader = reader.clone();
        let wants_calls = autoscaler::wants_calls(&self.view) || rollout::wants_calls(&self.view);
        self.meter.is_reading = true;
        self.tasks.spawn(async move {
            let calls = async {
                match wants_calls {
                    true => reader.calls().await.map(Some),
                    false => Ok(None),
                }
            };
            let (read, calls) = tokio::join!(reader.pods(), calls);
            let failed = |error: StatusError| debug!(error = error.message, "usage cannot be read");
            let calls = calls.map_err(failed).ok().flatten();
            let read = read.map_err(failed).ok();
            Done::Usage(
                read.map(usage::collect),
                calls.map(|calls| usage::collect_calls(&calls)),
            )
        });
    }

    fn reconcile(&mut self, (at, key): Work) {
        let worker = &mut self.workers[at];
        let controller = worker.controller;
        let kinds = self.objects.registry();
        let nothing = Past::default();
        let outcome = {
            let context = Context {
                now: Timestamp::now(),
                cluster: &self.cluster,
                kinds: &kinds,
                last_failure: worker.queue.last_failure(&key),
                usage: self.meter.read.as_ref(),
                calls: self.meter.calls.as_ref(),
                past: worker.pasts.get(&key).unwrap_or(&nothing),
            };
            // Reconcilers are pure: one that panics leaves nothing half done.
            let reconcile = || (controller.reconcile)(&self.view, &key, &context);
            std::panic::catch_unwind(AssertUnwindSafe(reconcile))
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(panic) => {
                self.park((at, key), panic_message(&*panic));
                return;
            }
        };
        let next = Next {
            again: outcome.requeue_after,
            past: outcome.past,
        };
        if outcome.writes.is_empty() {
            worker.succeed(key, next);
            return;
        }
        debug!(controller = controller.name, %key, writes = outcome.writes.len(), "reconciled");
        worker.writing += 1;
        let objects = self.objects.clone();
        let caller = worker.caller.clone();
        let recorder = self.recorder.handle(controller.name);
        self.tasks.spawn(async move {
            let writes = execute(&objects, &caller, &recorder, outcome.writes);
            let executed = AssertUnwindSafe(writes).catch_unwind().await;
            let executed = executed.map_err(|panic| panic_message(&*panic).to_owned());
            Done::Key((at, key), executed, next)
        });
    }

    /// Sets a key aside that cannot be worked on, and tells its object.
    fn park(&mut self, (at, key): Work, why: &str) {
        let Worker {
            controller, queue, ..
        } = &mut self.workers[at];
        error!(controller = controller.name, %key, panic = why, "a key is parked");
        let subject = || (controller.subject)(&self.view, &key);
        if let Ok(Some(subject)) = std::panic::catch_unwind(AssertUnwindSafe(subject)) {
            let message = format!(
                "The {} failed on this object and tries again later. This is a bug of weft: {why}",
                controller.name
            );
            let note = Note::warning(subject, "ControllerPanicked", message);
            self.recorder.handle(controller.name).tell(note);
        }
        queue.fail(key, None, Instant::now());
    }

    fn start_placement(&mut self) {
        while let Some(batch) =
            self.placement
                .next_batch(Instant::now(), Timestamp::now(), &self.view)
        {
            let objects = self.objects.clone();
            let caller = Caller::system(placement::COMPONENT, Some(self.term));
            let recorder = self.recorder.handle(placement::COMPONENT);
            self.tasks.spawn(async move {
                Done::Round(placement::carry_out(&objects, &caller, &recorder, batch).await)
            });
        }
    }

    fn finish_task(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Usage(read, calls)) => {
                self.meter.is_reading = false;
                let pause = match rollout::wants_calls(&self.view) {
                    true => rollout::JUDGED_PAUSE,
                    false => USAGE_PAUSE,
                };
                self.meter.due = Some(Instant::now() + pause);
                // What was read last stays until something newer was: who decides on it sees how old it is.
                self.meter.read = read.or(self.meter.read.take());
                self.meter.calls = calls.or(self.meter.calls.take());
            }
            Ok(Done::Key((at, key), executed, next)) => {
                self.workers[at].writing -= 1;
                let executed = match executed {
                    Ok(executed) => executed,
                    Err(why) => {
                        self.park((at, key), &why);
                        return;
                    }
                };
                self.fold(executed.changes);
                let worker = &mut self.workers[at];
                match executed.failure {
                    None => worker.succeed(key, next),
                    Some(failure) => {
                        self.in_doubt |= failure.in_doubt;
                        let controller = worker.controller.name;
                        if failure.expected {
                            debug!(controller, %key, error = failure.message, "trying again");
                        } else {
                            warn!(controller, %key, error = failure.message, "a write was refused");
                        }
                        let told = (!failure.expected).then_some(failure.message);
                        worker.queue.fail(key, told, Instant::now());
                    }
                }
            }
            Ok(Done::Round(mut round)) => {
                self.in_doubt |= round.in_doubt;
                self.fold(std::mem::take(&mut round.changes));
                self.placement.finish_round(round, &self.view);
            }
            // Of no key: the loop starts over.
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }

    fn fold(&mut self, changes: Vec<Change>) {
        for change in changes {
            if let Some(touched) = self.view.fold(change, Timestamp::now()) {
                self.queue_keys(&touched);
            }
        }
    }
}

impl Worker {
    fn has_room(&self) -> bool {
        self.writing < WRITES_OF_ONE_MAX
    }

    /// Ends the work on a key.
    fn succeed(&mut self, key: Key, next: Next) {
        match next.past {
            Some(past) if past.is_empty() => {
                self.pasts.remove(&key);
            }
            Some(past) => {
                self.pasts.insert(key.clone(), past);
            }
            None => {}
        }
        self.queue.succeed(key, next.again, Instant::now());
    }
}

/// A view of what the controllers and placement read.
fn new_view(workers: &[Worker]) -> View {
    let controllers = workers.iter().map(|worker| worker.controller.reads);
    View::new(controllers.chain(std::iter::once(placement::reads as fn(&mut Reads))))
}

/// Which keys a controller wants to look at. One that panics over a change misses it, and nobody else does.
fn keys_of(controller: &Controller, keys: impl FnOnce() -> Vec<Key>) -> Vec<Key> {
    std::panic::catch_unwind(AssertUnwindSafe(keys)).unwrap_or_else(|panic| {
        let panic = panic_message(&*panic);
        error!(controller = controller.name, panic, "a change was missed");
        Vec::new()
    })
}

/// What a panic said.
fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests;
