//! Which pods are bound here, and the one task that owns them all.
//!
//! The watch asks for `spec.nodeName=NAME` only; a relist tells what went away unseen. Pods are known by uid: one that was
//! deleted and made again under the same name is another pod. A pod at rest is an entry of a map here and nothing else: no
//! task, no timer. What its children (getting ready, stopping, probes) have to say comes through one mailbox, and the
//! moments that pods wait for lie in one queue in order of time.
//!
//! Invariants: this task waits for nothing but its inputs, so that a slow registry or an absent server cannot keep a
//! container from being stopped; children are ended and awaited when their pod ends; while the server is away everything
//! goes on as it was last wished, but for pods that ask to be stopped then (`fence`); a bug met in one pod leaves the others alone.

use crate::events::Severity;
use crate::execute::{Wish, Worker};
use crate::fence::{self, Change, Fence};
use crate::identity::Chain;
use crate::mailbox::Message;
use crate::node::Node;
use crate::pod_state::later;
use crate::pod_view::PodView;
use crate::topology::reconnecting;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::watcher::{self, Config, Event};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long a draining node waits for its pods: the default grace, and two seconds in which the last of them end. Whoever asks for
/// a longer grace has it where a pod is deleted, and not where a node stops.
pub const DRAIN_MAX: Duration = Duration::from_secs(32);
/// Messages of pods' children that wait to be read; a child waits when it is full.
const MAILBOX_MAX: usize = 1024;
/// Pause before an address is asked for again when the pod CIDR is exhausted.
const ADDRESS_PAUSE: Duration = Duration::from_secs(5);
/// A moment has passed when the clock is a little beyond it: then the plan does not ask for it again.
const PASSED: Duration = Duration::from_millis(1);

/// One pod of this node.
struct Held {
    at: At,
    /// When it is to be looked at though nothing happens.
    wake: Option<Timestamp>,
}

enum At {
    /// Waits for an address.
    Homeless(Arc<Pod>),
    Here(Box<Worker>),
    /// It is over; its children are being waited for.
    Ending,
    /// A bug was met; it is not looked after until the node restarts.
    Failed,
}

struct Pods {
    node: Arc<Node>,
    held: BTreeMap<Arc<str>, Held>,
    wakes: BTreeSet<(Timestamp, Arc<str>)>,
    sender: mpsc::Sender<(Arc<str>, Message)>,
    endings: JoinSet<Arc<str>>,
    gate: Gate,
    /// Pods that were stopped at the gate and have not ended yet.
    fenced: BTreeSet<Arc<str>>,
}

/// Whether pods run that ask not to where their node may be taken for lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Closed,
    /// They may, once the last that was stopped has ended: then all are asked for anew.
    Opening,
}

/// Runs the pods bound to this node until `shutdown`, then drains them.
pub(crate) async fn run(node: Arc<Node>, mut fence: Fence, shutdown: CancellationToken) {
    // Service variables and the first calls need the services; a server that is away delays new pods only.
    tokio::select! {
        biased;
        () = shutdown.cancelled() => return,
        () = node.topology.known() => {}
    }
    let mut link = node.link.clone();
    let (sender, mut mailbox) = mpsc::channel(MAILBOX_MAX);
    let mut pods = Pods {
        node: node.clone(),
        held: BTreeMap::new(),
        wakes: BTreeSet::new(),
        sender,
        endings: JoinSet::new(),
        gate: Gate::Open,
        fenced: BTreeSet::new(),
    };
    let selector = format!("spec.nodeName={}", node.facts.name);
    'connection: loop {
        let api: Api<Pod> = Api::all(link.client());
        let mut events = std::pin::pin!(reconnecting(api, Config::default().fields(&selector)));
        let mut listed: HashSet<Arc<str>> = HashSet::new();
        loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => break 'connection,
                change = fence.changed() => {
                    pods.fence(change);
                    if pods.reopens() { continue 'connection } else { continue }
                }
                () = pods.next(&mut mailbox) => {
                    if pods.reopens() { continue 'connection } else { continue }
                }
                event = events.next() => event,
                // A renewed certificate: watch anew under it.
                () = link.renewed() => None,
            };
            match event {
                None => continue 'connection,
                Some(event) => pods.apply_event(event, &mut listed),
            }
        }
    }
    pods.drain(&mut mailbox).await;
}

impl Pods {
    /// Takes one message of a child, the end of a pod, or the next moment that a pod waits for. May be dropped at any await.
    async fn next(&mut self, mailbox: &mut mpsc::Receiver<(Arc<str>, Message)>) {
        let wake = self.wakes.first().map(|(at, _)| *at);
        tokio::select! {
            biased;
            Some(ended) = self.endings.join_next(), if !self.endings.is_empty() => self.reap(ended),
            Some((uid, message)) = mailbox.recv() => self.with_worker(&uid, |worker| worker.receive(message)),
            () = sleep_until(wake), if wake.is_some() => self.wake(Timestamp::now()),
        }
    }

    fn apply_event(&mut self, event: watcher::Result<Event<Pod>>, listed: &mut HashSet<Arc<str>>) {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.insert(PodView(&pod).uid().into());
                self.apply(pod);
            }
            Ok(Event::InitDone) => {
                let gone = self.held.keys().filter(|uid| !listed.contains(*uid));
                let gone: Vec<Arc<str>> = gone.cloned().collect();
                for uid in gone {
                    self.gone(&uid);
                }
                // Pods that went away while this node was down left their logs and volumes.
                let held = &self.held;
                let lives = |uid: &str| listed.contains(uid) || held.contains_key(uid);
                self.node.logs.sweep(lives);
                self.node.volumes.sweep(lives);
            }
            Ok(Event::Apply(pod)) => self.apply(pod),
            Ok(Event::Delete(pod)) => self.gone(PodView(&pod).uid()),
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "the watch on pods broke, will be opened again")
            }
        }
    }

    fn apply(&mut self, mut pod: Pod) {
        // Who owns which field is nobody's business here, and can be the larger part of an object.
        pod.metadata.managed_fields = None;
        let pod = Arc::new(pod);
        let uid: Arc<str> = PodView(&pod).uid().into();
        match self.held.get_mut(&uid) {
            Some(Held {
                at: At::Homeless(homeless),
                ..
            }) => {
                *homeless = pod.clone();
                if PodView(&pod).is_deleted() {
                    // Asked to go before it had an address: nothing has started, and that is how it ended.
                    self.begin(&uid, None);
                }
            }
            Some(_) => self.with_worker(&uid, |worker| worker.wish(Wish::Is(pod))),
            None if self.gate != Gate::Open && fence::is_asked_for(PodView(&pod)) => {}
            None => {
                let at = At::Homeless(pod);
                self.held.insert(uid.clone(), Held { at, wake: None });
                self.house(&uid);
            }
        }
    }

    /// Gives a pod its address and begins with it, or says that there is none.
    fn house(&mut self, uid: &Arc<str>) {
        let Some(held) = self.held.get_mut(uid) else {
            return;
        };
        let At::Homeless(pod) = &held.at else { return };
        let preferred = PodView(pod).reported_ip();
        let taken = self.node.addresses.lock().allocate(preferred);
        if taken.is_some() {
            self.begin(uid, taken);
            return;
        }
        self.node.recorder.pod(
            pod,
            None,
            Severity::Warning,
            "FailedCreatePodSandBox",
            "the node's pod CIDR has no free address; delete pods or enlarge it with --pod-cidr",
        );
        self.schedule(uid, Some(later(Timestamp::now(), ADDRESS_PAUSE)));
    }

    /// Begins with a pod that waited for an address.
    fn begin(&mut self, uid: &Arc<str>, ip: Option<IpAddr>) {
        let Some(held) = self.held.get_mut(uid) else {
            return;
        };
        let At::Homeless(pod) = &held.at else { return };
        let (node, pod, sender) = (self.node.clone(), pod.clone(), self.sender.clone());
        let worker = Worker::new(node, pod, ip, uid.clone(), sender);
        held.at = At::Here(Box::new(worker));
        self.with_worker(uid, Worker::tick);
    }

    fn gone(&mut self, uid: &str) {
        let homeless = matches!(
            self.held.get(uid),
            Some(Held {
                at: At::Homeless(_) | At::Failed,
                ..
            })
        );
        if homeless {
            self.schedule(uid, None);
            self.held.remove(uid);
        } else {
            self.with_worker(uid, |worker| worker.wish(Wish::Gone));
        }
    }

    /// Has a pod's worker do something, and sees to what follows from its new state.
    fn with_worker(&mut self, uid: &str, act: impl FnOnce(&mut Worker)) {
        let Some(held) = self.held.get_mut(uid) else {
            return;
        };
        let At::Here(worker) = &mut held.at else {
            return;
        };
        // One pod's bug must not take the others with it.
        if catch_unwind(AssertUnwindSafe(|| act(worker))).is_err() {
            tracing::error!(
                uid,
                "the worker of a pod failed; its pod is not looked after until the node restarts"
            );
            held.at = At::Failed;
            self.fenced.remove(uid);
            self.schedule(uid, None);
            return;
        }
        if !worker.is_done() {
            let wake = worker.next_wake(Timestamp::now());
            self.schedule(uid, wake);
            return;
        }
        if let At::Here(worker) = std::mem::replace(&mut held.at, At::Ending) {
            self.end(uid, worker.finish());
        }
    }

    /// The pod is over once `rest` is.
    fn end(&mut self, uid: &str, rest: impl Future<Output = ()> + Send + 'static) {
        self.schedule(uid, None);
        if let Some(held) = self.held.get_mut(uid) {
            held.at = At::Ending;
        }
        let uid: Arc<str> = uid.into();
        self.endings.spawn(async move {
            rest.await;
            uid
        });
    }

    fn schedule(&mut self, uid: &str, wake: Option<Timestamp>) {
        let Some((uid, _)) = self.held.get_key_value(uid) else {
            return;
        };
        let uid = uid.clone();
        let Some(held) = self.held.get_mut(&uid) else {
            return;
        };
        if held.wake == wake {
            return;
        }
        let before = std::mem::replace(&mut held.wake, wake);
        if let Some(before) = before {
            self.wakes.remove(&(before, uid.clone()));
        }
        if let Some(wake) = wake {
            self.wakes.insert((wake, uid));
        }
    }

    /// Looks at the first pod whose moment has passed.
    fn wake(&mut self, now: Timestamp) {
        let Some((at, uid)) = self.wakes.first().cloned() else {
            return;
        };
        if later(at, PASSED) > now {
            return;
        }
        self.schedule(&uid, None);
        match self.held.get(&uid).map(|held| &held.at) {
            Some(At::Homeless(_)) => self.house(&uid),
            _ => self.with_worker(&uid, Worker::tick),
        }
    }

    fn reap(&mut self, ended: Result<Arc<str>, JoinError>) {
        match ended {
            Ok(uid) => {
                self.held.remove(&uid);
                self.fenced.remove(&uid);
            }
            Err(error) => {
                tracing::error!(%error, "ending a pod failed");
                // Which one it was is not known: nobody waits for it.
                self.fenced.clear();
            }
        }
    }

    /// Stops the pods that ask for it, or lets them run again.
    fn fence(&mut self, change: Change) {
        if change == Change::Opens {
            self.gate = Gate::Opening;
            return;
        }
        self.gate = Gate::Closed;
        let asks = |held: &Held| match &held.at {
            At::Here(worker) => worker.is_fenced(),
            At::Homeless(pod) => fence::is_asked_for(PodView(pod)),
            At::Ending | At::Failed => false,
        };
        let asking = self.held.iter().filter(|(_, held)| asks(held));
        let asking: Vec<Arc<str>> = asking.map(|(uid, _)| uid.clone()).collect();
        if !asking.is_empty() {
            tracing::warn!(
                pods = asking.len(),
                "the lease of this node cannot be renewed: stopping the pods that ask for it"
            );
        }
        for uid in asking {
            if let Some(At::Homeless(_)) = self.held.get(&uid).map(|held| &held.at) {
                self.schedule(&uid, None);
                self.held.remove(&uid);
            } else {
                self.fenced.insert(uid.clone());
                self.with_worker(&uid, |worker| worker.wish(Wish::Fence));
            }
        }
    }

    /// Whether the time has come to ask for all pods anew.
    fn reopens(&mut self) -> bool {
        let reopens = self.gate == Gate::Opening && self.fenced.is_empty();
        if reopens {
            self.gate = Gate::Open;
        }
        reopens
    }

    /// Stops what runs, and waits for it.
    async fn drain(&mut self, mailbox: &mut mpsc::Receiver<(Arc<str>, Message)>) {
        let uids: Vec<Arc<str>> = self.held.keys().cloned().collect();
        for uid in uids {
            if matches!(
                self.held.get(&uid),
                Some(Held {
                    at: At::Here(_),
                    ..
                })
            ) {
                self.with_worker(&uid, |worker| worker.wish(Wish::Drain));
            } else if matches!(
                self.held.get(&uid),
                Some(Held {
                    at: At::Homeless(_) | At::Failed,
                    ..
                })
            ) {
                self.schedule(&uid, None);
                self.held.remove(&uid);
            }
        }
        let drained = async {
            while !self.held.is_empty() {
                self.next(mailbox).await;
            }
        };
        if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
            tracing::warn!(
                left = self.held.len(),
                "pods did not stop in time and are cut off"
            );
            self.endings.shutdown().await;
        }
    }
}

async fn sleep_until(wake: Option<Timestamp>) {
    let pause = wake.map_or(Duration::ZERO, |wake| {
        Duration::try_from(wake.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
    });
    tokio::time::sleep(pause + PASSED).await;
}
