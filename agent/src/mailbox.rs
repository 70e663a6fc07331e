//! What the children of a pod's worker have to say, and where they say it.

use crate::pod_state::Exit;
use crate::prepare::{Prepared, Refusal};
use crate::probes;
use k8s_openapi::api::core::v1::ResourceRequirements;
use std::sync::Arc;
use tokio::sync::mpsc;

/// From a worker's children. `run` tells of which run of the container it is news; that of an earlier one is old.
pub(crate) enum Message {
    Prepared {
        container: usize,
        run: u64,
        result: Result<Box<Prepared>, Refusal>,
    },
    Exited {
        container: usize,
        run: u64,
        exit: Exit,
    },
    /// Its first hook is done, or has failed with a sentence.
    Hooked {
        container: usize,
        run: u64,
        started: Box<Started>,
        result: Result<(), String>,
    },
    /// It has other amounts now, or keeps those that it had, for a reason.
    Resized {
        container: usize,
        run: u64,
        amounts: Box<ResourceRequirements>,
        result: Result<(), String>,
    },
    Probed {
        container: usize,
        run: u64,
        report: probes::Report,
    },
}

/// What is said of a run once it counts as started.
pub(crate) struct Started {
    pub(crate) serving: bool,
    pub(crate) image_id: String,
    pub(crate) container_id: String,
}

/// Where the children of one pod report to.
#[derive(Clone)]
pub(crate) struct Mailbox {
    pub(crate) uid: Arc<str>,
    pub(crate) sender: mpsc::Sender<(Arc<str>, Message)>,
}

impl Mailbox {
    pub(crate) async fn send(&self, message: Message) {
        // The other end is gone only when the node is: then nobody needs the answer.
        let _ = self.sender.send((self.uid.clone(), message)).await;
    }
}
