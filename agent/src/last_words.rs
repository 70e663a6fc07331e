//! What a container says of its own end: the file at `terminationMessagePath`, or the end of its log.
//!
//! Read once, when the run is over and nobody writes any more. Lengths and rules are the kubelet's.

use crate::logs::{Logs, Query, RunId};
use crate::root_files::termination_path;
use crate::volumes::Mount;
use k8s_openapi::api::core::v1::Container;
use std::path::PathBuf;
use std::time::Duration;
use weft_runtime::Volume;

use crate::pod_state::Exit;
use crate::roots::Root;

/// Longest message.
const MESSAGE_BYTES_MAX: u64 = 4096;
/// As much of a log stands in for it.
const LOG_LINES_MAX: u64 = 80;
const LOG_BYTES_MAX: usize = 2048;
/// How long the log may take to be written out.
const LOG_WITHIN: Duration = Duration::from_secs(2);

/// Where they are.
#[derive(Clone)]
pub(crate) struct LastWords {
    /// None where the container has no files.
    file: Option<(Volume, PathBuf)>,
    from_log: bool,
    logs: Logs,
    run: RunId,
}

impl LastWords {
    pub(crate) fn new(
        container: &Container,
        root: Option<&Root>,
        mounts: &[(Mount, Volume)],
        logs: Logs,
        run: RunId,
    ) -> Self {
        let path = PathBuf::from(termination_path(container));
        let mut mounted: Vec<_> = mounts
            .iter()
            .filter_map(|(mount, volume)| {
                let below = path.strip_prefix(&mount.path).ok()?;
                Some((mount.path.len(), volume, below))
            })
            .collect();
        mounted.sort_by_key(|(length, ..)| *length);
        let file = match mounted.pop() {
            Some((_, volume, below)) => Some((volume.clone(), below.to_owned())),
            None => root.map(|root| (root.volume().clone(), path)),
        };
        let policy = container.termination_message_policy.as_deref();
        Self {
            file,
            from_log: policy == Some("FallbackToLogsOnError"),
            logs,
            run,
        }
    }

    /// The end of a run with what it said of it; what the node knows stands where it said nothing.
    pub(crate) async fn of(self, mut exit: Exit) -> Exit {
        let Self {
            file,
            from_log,
            logs,
            run,
        } = self;
        let said = tokio::task::spawn_blocking(move || {
            let (volume, path) = file?;
            let bytes = volume.read_end(&path, MESSAGE_BYTES_MAX).ok()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        });
        let said = said.await.ok().flatten().filter(|said| !said.is_empty());
        if said.is_some() {
            exit.message = said;
        } else if from_log && !exit.succeeded() && exit.message.is_none() {
            let log = tokio::time::timeout(LOG_WITHIN, end_of_log(logs, run)).await;
            exit.message = log.ok().flatten().filter(|log| !log.is_empty());
        }
        exit
    }
}

async fn end_of_log(logs: Logs, run: RunId) -> Option<String> {
    let query = Query {
        follow: true,
        tail_lines: Some(LOG_LINES_MAX),
        ..Query::default()
    };
    let opened = tokio::task::spawn_blocking(move || logs.read(&run, query)).await;
    let mut reader = opened.ok()?.ok()?;
    let mut text = Vec::new();
    // It ends, as the log is closed.
    while let Ok(Some(part)) = reader.next().await {
        text.extend_from_slice(&part);
        let more = text.len().saturating_sub(LOG_BYTES_MAX);
        text.drain(..more);
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}
