//! Which pods are bound here: one watch, one worker for each of them.
//!
//! The watch asks for `spec.nodeName=NAME` only. Every object that arrives becomes the newest [`Wish`] of its pod's worker;
//! a relist tells what went away unseen. Pods are known by uid: one that was deleted and made again under the same name
//! is another pod with another worker.
//!
//! Invariants: at most one worker a uid; workers are children of this task and are awaited when the node drains; while the
//! server is away everything goes on as it was last wished.

use crate::execute::{Node, Wish, run_pod};
use crate::identity::Chain;
use crate::topology::reconnecting;
use crate::translate;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::watcher::{Config, Event};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a draining node waits for its pods, whatever grace they ask for: whoever stops a node wants it to stop.
pub const DRAIN_MAX: Duration = Duration::from_secs(20);

struct Workers {
    node: Arc<Node>,
    wishes: HashMap<String, watch::Sender<Wish>>,
    tasks: JoinSet<String>,
}

/// Runs the pods bound to this node until `shutdown`, then drains them.
pub async fn run(node: Arc<Node>, shutdown: CancellationToken) {
    let mut link = node.link.clone();
    let mut workers = Workers {
        node: node.clone(),
        wishes: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let selector = format!("spec.nodeName={}", node.facts.name);
    'connection: loop {
        let api: Api<Pod> = Api::all(link.client());
        let mut events = std::pin::pin!(reconnecting(api, Config::default().fields(&selector)));
        let mut listed: HashSet<String> = HashSet::new();
        loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => break 'connection,
                Some(ended) = workers.tasks.join_next(), if !workers.tasks.is_empty() => {
                    workers.reap(ended);
                    continue;
                }
                event = events.next() => event,
                // A renewed certificate: watch anew under it.
                () = link.renewed() => None,
            };
            match event {
                None => continue 'connection,
                Some(Ok(Event::Init)) => listed.clear(),
                Some(Ok(Event::InitApply(pod))) => {
                    listed.insert(translate::uid(&pod).to_owned());
                    workers.apply(pod);
                }
                Some(Ok(Event::InitDone)) => {
                    workers.keep_only(&listed);
                    // Pods that went away while this node was down left their logs.
                    let held = &workers.wishes;
                    node.logs
                        .sweep(|uid| listed.contains(uid) || held.contains_key(uid));
                }
                Some(Ok(Event::Apply(pod))) => workers.apply(pod),
                Some(Ok(Event::Delete(pod))) => workers.gone(translate::uid(&pod)),
                Some(Err(error)) => {
                    tracing::debug!(error = %Chain(&error), "the watch on pods broke, will be opened again")
                }
            }
        }
    }
    workers.drain().await;
}

impl Workers {
    fn apply(&mut self, pod: Pod) {
        let uid = translate::uid(&pod).to_owned();
        let pod = Arc::new(pod);
        if let Some(wish) = self.wishes.get(&uid) {
            wish.send_modify(|wish| wish.pod = pod);
            return;
        }
        let (sender, receiver) = watch::channel(Wish {
            pod,
            gone: false,
            drain: false,
        });
        self.wishes.insert(uid.clone(), sender);
        let node = self.node.clone();
        self.tasks.spawn(async move {
            // Service variables and the first calls need the services; a server that is away delays new pods only.
            node.topology.known().await;
            run_pod(node, receiver).await;
            uid
        });
    }

    fn gone(&mut self, uid: &str) {
        if let Some(wish) = self.wishes.get(uid) {
            wish.send_modify(|wish| wish.gone = true);
        }
    }

    fn keep_only(&mut self, listed: &HashSet<String>) {
        for (uid, wish) in &self.wishes {
            if !listed.contains(uid) {
                wish.send_modify(|wish| wish.gone = true);
            }
        }
    }

    fn reap(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                self.wishes.remove(&uid);
            }
            Err(error) => {
                tracing::error!(%error, "the worker of a pod failed; its pod is not looked after until the node restarts")
            }
        }
    }

    async fn drain(mut self) {
        for wish in self.wishes.values() {
            wish.send_modify(|wish| wish.drain = true);
        }
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_MAX, all).await.is_err() {
            tracing::warn!(
                left = self.tasks.len(),
                "pods did not stop in time and are cut off"
            );
            self.tasks.shutdown().await;
        }
    }
}
