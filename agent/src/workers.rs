//! The worker processes of this node: one for each namespace that asks for it and has a pod here.
//!
//! A Namespace asks with the label `weft.dev/isolate-process: "true"`, which whoever may only change what is in the
//! namespace cannot take away. It is read when a container is made ready, at most once a second, and holds from then on for that run; while the
//! API server cannot be asked, what it said last counts, and a namespace it never spoke of is not started. In the same way it says by
//! `weft.dev/toolbox: "off"` that commands of the node's toolbox are not for its containers.
//!
//! A worker is started for the first container and ends with the last one. One that dies is followed by the next after a
//! pause that doubles ([`pause`]), however many pods ask for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use weft_api::annotation::{ISOLATE_PROCESS, TOOLBOX};
use weft_runtime::Cores;
use weft_runtime::worker::{Ended, WeakWorker, Worker, WorkerCommand, WorkerError};

use crate::identity::{Chain, Link};

/// How long a namespace's word is good for: a thousand pods that start at once ask once.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// The first pause after a worker died, and the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A worker that lived so long did not die of how it was started.
const LIVED_WELL: Duration = Duration::from_secs(600);

/// All of them.
pub struct Workers {
    /// None when this node was not told how to start one.
    command: Option<WorkerCommand>,
    cores: Cores,
    namespaces: Mutex<BTreeMap<String, Arc<Entry>>>,
}

#[derive(Default)]
struct Entry {
    /// What the namespace said last, and when.
    said: Mutex<Option<(Said, Instant)>>,
    /// Held while it is asked, so that one asks and the others find what was said.
    asking: tokio::sync::Mutex<()>,
    /// Held while a worker is started, so that one starts it and the others find it.
    slot: tokio::sync::Mutex<Slot>,
}

/// What a namespace says of its guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    /// They have a process of their own.
    isolated: bool,
    /// Commands of the toolbox may be run in them.
    toolbox: bool,
}

impl Said {
    fn by(namespace: &Namespace) -> Self {
        let labels = namespace.metadata.labels.as_ref();
        let is = |label: &str, word: &str| {
            labels
                .and_then(|labels| labels.get(label))
                .is_some_and(|value| value == word)
        };
        Self {
            isolated: is(ISOLATE_PROCESS, "true"),
            toolbox: !is(TOOLBOX, "off"),
        }
    }
}

#[derive(Default)]
struct Slot {
    current: Option<Current>,
    deaths: u32,
}

struct Current {
    /// The workloads hold the worker; this does not, so that it ends with them.
    worker: WeakWorker,
    ended: watch::Receiver<Option<Ended>>,
    started: Instant,
}

/// Why a container cannot have the process its namespace asks for, or whether it does is not known.
#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    #[error("namespace \"{namespace}\" could not be read: {reason}")]
    Unknown { namespace: String, reason: String },
    #[error(
        "namespace \"{namespace}\" asks for a process of its own ({ISOLATE_PROCESS}), and this node was not told how to start one"
    )]
    NoCommand { namespace: String },
    #[error("the worker process of namespace \"{namespace}\" is not there: {reason}")]
    Start { namespace: String, reason: String },
}

impl Workers {
    pub fn new(command: Option<WorkerCommand>, cores: Cores) -> Self {
        Self {
            command,
            cores,
            namespaces: Mutex::default(),
        }
    }

    fn entry(&self, namespace: &str) -> Arc<Entry> {
        let mut namespaces = self.namespaces.lock();
        namespaces.entry(namespace.to_owned()).or_default().clone()
    }

    /// Whether `namespace` lets commands of the toolbox be run in its containers.
    ///
    /// # Errors
    /// When it never said anything, and cannot be asked.
    pub async fn toolbox_allowed(
        &self,
        namespace: &str,
        link: &Link,
    ) -> Result<bool, IsolationError> {
        let said = self.entry(namespace).said(namespace, link).await?;
        Ok(said.toolbox)
    }

    /// The worker for the guests of `namespace`; none when they run in this process.
    ///
    /// # Errors
    /// [`IsolationError`]; never a guest in the wrong place.
    pub async fn find(
        &self,
        namespace: &str,
        link: &Link,
    ) -> Result<Option<Worker>, IsolationError> {
        let entry = self.entry(namespace);
        if !entry.said(namespace, link).await?.isolated {
            return Ok(None);
        }
        let Some(command) = &self.command else {
            return Err(IsolationError::NoCommand {
                namespace: namespace.to_owned(),
            });
        };
        let mut command = command.clone();
        // For whoever looks at the process table.
        command.args.push(namespace.to_owned());
        let started = entry.slot.lock().await.worker(&command, &self.cores).await;
        started.map(Some).map_err(|error| IsolationError::Start {
            namespace: namespace.to_owned(),
            reason: Chain(&error).to_string(),
        })
    }
}

impl Entry {
    /// What it said, if that is good still.
    fn lately(&self) -> Option<Said> {
        let said = *self.said.lock();
        let said = said.filter(|(_, at)| at.elapsed() < ASKED_AGAIN_AFTER);
        said.map(|(said, _)| said)
    }

    async fn said(&self, namespace: &str, link: &Link) -> Result<Said, IsolationError> {
        if let Some(said) = self.lately() {
            return Ok(said);
        }
        let _asking = self.asking.lock().await;
        if let Some(said) = self.lately() {
            return Ok(said);
        }
        let api: Api<Namespace> = Api::all(link.client());
        match api.get(namespace).await {
            Ok(found) => {
                let said = Said::by(&found);
                *self.said.lock() = Some((said, Instant::now()));
                Ok(said)
            }
            Err(error) => match &mut *self.said.lock() {
                Some((said, at)) => {
                    // Who waited to ask does not wait for the same again.
                    *at = Instant::now();
                    Ok(*said)
                }
                None => Err(IsolationError::Unknown {
                    namespace: namespace.to_owned(),
                    reason: Chain(&error).to_string(),
                }),
            },
        }
    }
}

impl Slot {
    async fn worker(
        &mut self,
        command: &WorkerCommand,
        cores: &Cores,
    ) -> Result<Worker, WorkerError> {
        let mut deaths = self.deaths;
        if let Some(current) = &self.current {
            let ended = current.ended.borrow().clone();
            match ended {
                None => {
                    if let Some(worker) = current.worker.upgrade() {
                        return Ok(worker);
                    }
                }
                Some(Ended::NotNeeded) => deaths = 0,
                Some(Ended::Died { at, .. }) => {
                    // Counted with the start of the next one: whoever is stopped while it waits here counts nothing.
                    let lived = at.saturating_duration_since(current.started);
                    deaths = match lived >= LIVED_WELL {
                        true => 1,
                        false => self.deaths.saturating_add(1),
                    };
                    tokio::time::sleep_until(at + pause(deaths)).await;
                }
            }
        }
        let worker = Worker::start(command, cores).await?;
        self.deaths = deaths;
        self.current = Some(Current {
            worker: worker.downgrade(),
            ended: worker.ended(),
            started: Instant::now(),
        });
        Ok(worker)
    }
}

/// How long after the death number `deaths` in a row the next worker may start.
fn pause(deaths: u32) -> Duration {
    let doublings = deaths.saturating_sub(1).min(16);
    (PAUSE_FIRST * (1 << doublings)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_words_themselves_ask() {
        for (labels, isolated, toolbox) in [
            (json!({}), false, true),
            (json!({"weft.dev/isolate-process": "true"}), true, true),
            (json!({"weft.dev/isolate-process": "false"}), false, true),
            (json!({"weft.dev/isolate-process": ""}), false, true),
            (json!({"weft.dev/toolbox": "off"}), false, false),
            (json!({"weft.dev/toolbox": "on"}), false, true),
        ] {
            let namespace = json!({"metadata": {"name": "a", "labels": labels}});
            let namespace = serde_json::from_value(namespace).expect("a namespace");
            let said = Said { isolated, toolbox };
            assert_eq!(Said::by(&namespace), said);
        }
    }

    #[test]
    fn the_pause_doubles_and_has_an_end() {
        let seconds: Vec<u64> = [1, 2, 3, 6, 7, 8, u32::MAX]
            .into_iter()
            .map(|deaths| pause(deaths).as_secs())
            .collect();
        assert_eq!(seconds, [1, 2, 4, 32, 60, 60, 60]);
    }
}
