//! The one driver of controllers and scheduler: the only place where their decisions become writes.
//!
//! Runs while this server leads. Feeds the informer's stream into the view, queues the keys that each change concerns,
//! runs the pure reconcilers on them and carries out what they return. Placement of pods works the same way
//! beside them, in batches.
//!
//! Invariants:
//! - every write carries the term it was decided under and is fenced by it;
//! - a key is never worked on twice at once, and the answers of its writes are in the view before it is looked
//!   at again;
//! - nothing is decided before the view is complete.
//!
//! Left to others: deciding (`weft_controllers`, `weft_scheduler`), refusing (`weft_apiserver::objects`).

mod execute;
mod placement;
mod queue;
mod recorder;

use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use weft_apiserver::caller::Caller;
use weft_apiserver::informer::{Change as News, Informer};
use weft_apiserver::objects::Objects;
use weft_controllers::{CONTROLLERS, Change, Cluster, Context, Key, Resource, Touched, View};
use weft_kinds::KindRef;
use weft_store::Term;

use crate::exit::Chain;
use execute::{Executed, execute};
use placement::{Placement, Round};
use queue::Queue;
use recorder::Recorder;

/// Keys whose writes may be under way at once. Each is a group-committed store write or a few: enough to keep the
/// log busy, few enough that a burst does not fill the store's proposal queue.
const WRITES_IN_FLIGHT_MAX: usize = 64;
/// Changes taken in before the queue is served: many changes of one key become one look at it.
const CHANGES_A_TURN: usize = 512;
/// First pause after a refusal; doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A key that was looked at rests this long before the next look, and this much longer after each further one that a
/// change during the rest asked for: a look costs as much as the key has pods, and each of them changes several times.
const REST: Duration = Duration::from_millis(20);
/// Longest rest: a busy Service hears of a pod this late at most.
const REST_MAX: Duration = Duration::from_millis(400);

/// What the loop has to know of the cluster beyond its objects.
#[derive(Debug, Clone)]
pub struct ClusterInfo {
    /// The cluster CA's certificate, published to every namespace.
    pub ca_pem: String,
}

/// Runs the loop whenever this server leads, until `shutdown` or until the store closes.
pub async fn run(
    objects: Objects,
    mut leadership: watch::Receiver<Option<Term>>,
    cluster: ClusterInfo,
    shutdown: CancellationToken,
) {
    let cluster = Cluster {
        ca_pem: cluster.ca_pem,
    };
    loop {
        let term = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            term = elected(&mut leadership) => term,
        };
        let Some(term) = term else { return };
        // What earlier leaders had acknowledged must be applied here before anything is decided on it.
        if let Err(error) = objects.store().read().await {
            debug!(term, error = %Chain(&error), "cannot confirm leadership yet");
            tokio::time::sleep(BACKOFF_MIN).await;
            continue;
        }
        info!(term, "control loop starts");
        let recorder = Recorder::start(objects.clone(), term);
        let driver = Driver::new(objects.clone(), cluster.clone(), term, recorder);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = deposed(&mut leadership, term) => info!(term, "control loop stops: this server no longer leads"),
            () = driver.drive() => return,
        }
    }
}

/// The term, once this server leads; `None` when the store is gone.
async fn elected(leadership: &mut watch::Receiver<Option<Term>>) -> Option<Term> {
    let term = leadership.wait_for(Option::is_some).await.ok()?;
    *term
}

/// Comes when another term than ours is in force, or none.
async fn deposed(leadership: &mut watch::Receiver<Option<Term>>, term: Term) {
    // An error means that the store is gone, which is the end of leading, too.
    let _ = leadership.wait_for(|now| *now != Some(term)).await;
}

/// A controller, by its place in [`CONTROLLERS`], and one of its keys.
type Work = (usize, Key);

/// What came back from a task.
enum Done {
    Key(Work, Executed, Option<Duration>),
    Round(Round),
}

struct Driver {
    objects: Objects,
    cluster: Cluster,
    term: Term,
    callers: Vec<Caller>,
    view: View,
    queue: Queue<Work>,
    placement: Placement,
    tasks: JoinSet<Done>,
    recorder: Recorder,
}

impl Driver {
    fn new(objects: Objects, cluster: Cluster, term: Term, recorder: Recorder) -> Self {
        let callers = CONTROLLERS
            .iter()
            .map(|controller| Caller::system(controller.name, Some(term)))
            .collect();
        Self {
            objects,
            cluster,
            term,
            callers,
            view: View::default(),
            queue: Queue::default(),
            placement: Placement::new(term),
            tasks: JoinSet::new(),
            recorder,
        }
    }

    /// Ends when the store closes; is dropped, tasks and all, when leadership ends.
    async fn drive(mut self) {
        let mut informer = self.objects.informer(&watched());
        loop {
            self.serve();
            let due = self.next_due();
            tokio::select! {
                biased;
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => self.finished(done),
                news = informer.next() => match news {
                    Some(news) => self.take_all(news, &mut informer),
                    None => return,
                },
                () = sleep_until(due), if due.is_some() => {}
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        if !self.view.is_synced() {
            return None;
        }
        let mut due: Vec<Instant> = Vec::with_capacity(2);
        // With no task free, waiting for a key would only spin; a finished task comes first.
        if self.tasks.len() < WRITES_IN_FLIGHT_MAX {
            due.extend(self.queue.next_due());
            due.extend(self.placement.next_due());
        }
        due.into_iter().min()
    }

    /// Takes what the informer has ready, up to a turn's worth.
    fn take_all(&mut self, first: News, informer: &mut Informer) {
        self.take(first);
        for _ in 1..CHANGES_A_TURN {
            match informer.next().now_or_never() {
                Some(Some(news)) => self.take(news),
                // The end of the stream shows again on the next await.
                Some(None) | None => break,
            }
        }
    }

    fn take(&mut self, news: News) {
        let change = match news {
            News::Reset => {
                self.view = View::default();
                self.placement = Placement::new(self.term);
                return;
            }
            News::Synced { revision } => {
                self.view.set_synced(revision);
                let now = Instant::now();
                for (index, controller) in CONTROLLERS.iter().enumerate() {
                    for key in (controller.seeds)(&self.view) {
                        self.queue.add((index, key), now);
                    }
                }
                debug!(revision, "the view is complete");
                return;
            }
            News::Upsert { kind, object } => Change::Upsert(resource(kind), object),
            News::Delete { kind, object } => Change::Delete(resource(kind), object),
        };
        match self.view.apply(change, Timestamp::now()) {
            Ok(Some(touched)) => self.notice(&touched),
            Ok(None) => {}
            Err(error) => {
                warn!(error = %Chain(&error), "an object cannot be read and is left alone")
            }
        }
    }

    /// Queues whatever a change concerns.
    fn notice(&mut self, touched: &Touched) {
        self.placement.notice(touched);
        if !self.view.is_synced() {
            return;
        }
        let now = Instant::now();
        for (index, controller) in CONTROLLERS.iter().enumerate() {
            for key in (controller.keys)(&self.view, touched) {
                self.queue.add((index, key), now);
            }
        }
    }

    /// Starts as much work as there is room for.
    fn serve(&mut self) {
        if !self.view.is_synced() {
            return;
        }
        self.place();
        while self.tasks.len() < WRITES_IN_FLIGHT_MAX {
            let Some(work) = self.queue.pop(Instant::now()) else {
                break;
            };
            self.reconcile(work);
        }
    }

    fn reconcile(&mut self, work: Work) {
        let controller = &CONTROLLERS[work.0];
        let outcome = {
            let context = Context {
                now: Timestamp::now(),
                cluster: &self.cluster,
                last_failure: self.queue.last_failure(&work),
            };
            (controller.reconcile)(&self.view, &work.1, &context)
        };
        if outcome.writes.is_empty() {
            let again = outcome.requeue_after;
            self.queue.succeed(work, again, Instant::now());
            return;
        }
        debug!(controller = controller.name, key = %work.1, writes = outcome.writes.len(), "reconciled");
        let objects = self.objects.clone();
        let caller = self.callers[work.0].clone();
        let recorder = self.recorder.handle(controller.name);
        self.tasks.spawn(async move {
            let executed = execute(&objects, &caller, &recorder, outcome.writes).await;
            Done::Key(work, executed, outcome.requeue_after)
        });
    }

    fn place(&mut self) {
        while let Some(batch) = self.placement.next(Instant::now(), &self.view) {
            let objects = self.objects.clone();
            let caller = Caller::system(placement::COMPONENT, Some(self.term));
            let recorder = self.recorder.handle(placement::COMPONENT);
            self.tasks.spawn(async move {
                Done::Round(placement::carry_out(&objects, &caller, &recorder, batch).await)
            });
        }
    }

    fn finished(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Key(work, executed, again)) => {
                self.fold(executed.changes);
                match executed.failure {
                    None => self.queue.succeed(work, again, Instant::now()),
                    Some(failure) => {
                        let controller = CONTROLLERS[work.0].name;
                        if failure.expected {
                            debug!(controller, key = %work.1, error = failure.message, "trying again");
                        } else {
                            warn!(controller, key = %work.1, error = failure.message, "a write was refused");
                        }
                        let told = (!failure.expected).then_some(failure.message);
                        self.queue.fail(work, told, Instant::now());
                    }
                }
            }
            Ok(Done::Round(mut round)) => {
                self.fold(std::mem::take(&mut round.changes));
                self.placement.finish(round, &self.view);
            }
            // A bug in a task: its key would stay taken for ever, so the loop must not go on as if nothing happened.
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }

    fn fold(&mut self, changes: Vec<Change>) {
        for change in changes {
            match self.view.fold(change, Timestamp::now()) {
                Ok(Some(touched)) => self.notice(&touched),
                Ok(None) => {}
                Err(error) => warn!(error = %Chain(&error), "an answer cannot be read"),
            }
        }
    }
}

/// Every stored kind: ownership and namespace deletion concern them all.
fn watched() -> Vec<KindRef> {
    let all = weft_kinds::all().iter().copied();
    all.filter(|kind| kind.view.is_none()).collect()
}

fn resource(kind: KindRef) -> Resource {
    Resource {
        group: kind.group,
        version: kind.version,
        resource: kind.resource,
        kind: kind.kind,
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}
