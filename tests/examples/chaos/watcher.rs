//! A watcher that goes from server to server and resumes where it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, timeout};

use super::client::{Campaign, seen};
use super::history::{Change, Event, Revision, Watch};

/// How often it looks whether it is time to end or to go elsewhere.
const LOOK: Duration = Duration::from_millis(200);
/// Milliseconds that it stays at a server: several times in a campaign it resumes from every server.
const STAY: std::ops::Range<u64> = 2000..10_000;
const RETRY: Duration = Duration::from_millis(100);
/// How long a server may take to open a watch; one that is cut off from the others may wait for them.
const OPEN_MAX: Duration = Duration::from_secs(2);
/// How long after everything is healed a watch may be behind.
const END_MAX: Duration = Duration::from_secs(30);

pub struct Watcher {
    campaign: Arc<Campaign>,
    maps: Vec<Api<ConfigMap>>,
    /// The last revision of all, once it is known; until then 0.
    end: Arc<AtomicU64>,
    rng: StdRng,
}

/// Why one stay at a server ended.
enum Left {
    Moves,
    /// The server's history does not reach back to where the watch was.
    Gone,
    ToldAll,
}

impl Watcher {
    pub fn new(
        campaign: &Arc<Campaign>,
        clients: &[kube::Client],
        end: &Arc<AtomicU64>,
        seed: u64,
    ) -> Self {
        let maps = |client: &kube::Client| Api::namespaced(client.clone(), "default");
        Self {
            campaign: Arc::clone(campaign),
            maps: clients.iter().map(maps).collect(),
            end: Arc::clone(end),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Watches until it was told of the last revision of all, or is too late for it.
    ///
    /// # Errors
    /// When a server answers with something that is no event.
    pub async fn run(mut self, after: Revision) -> anyhow::Result<Vec<Watch>> {
        let mut given_up = Vec::new();
        let mut watch = Watch {
            after,
            ..Watch::default()
        };
        let mut deadline = None;
        loop {
            if self.campaign.stopped() {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + END_MAX);
                // The judge finds what it was not told of.
                if Instant::now() > deadline {
                    break;
                }
            }
            match self.stay(&mut watch).await? {
                Left::Moves => tokio::time::sleep(RETRY).await,
                Left::ToldAll => break,
                Left::Gone => {
                    watch.given_up = true;
                    let next = Watch {
                        after: self.newest().await,
                        ..Watch::default()
                    };
                    given_up.push(std::mem::replace(&mut watch, next));
                }
            }
        }
        given_up.push(watch);
        Ok(given_up)
    }

    /// The revision of a list, from whoever answers.
    async fn newest(&mut self) -> Revision {
        loop {
            let maps = self.anyone();
            let limit = ListParams::default().limit(1);
            if let Ok(Ok(list)) = timeout(OPEN_MAX, maps.list(&limit)).await
                && let Some(revision) = list.metadata.resource_version
                && let Ok(revision) = revision.parse()
            {
                return revision;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn anyone(&mut self) -> Api<ConfigMap> {
        let server = self.rng.random_range(0..self.maps.len());
        self.maps[server].clone()
    }

    async fn stay(&mut self, watch: &mut Watch) -> anyhow::Result<Left> {
        let maps = self.anyone();
        let leave = Instant::now() + Duration::from_millis(self.rng.random_range(STAY));
        let last = watch.events.last().map_or(watch.after, Event::revision);
        let (params, last) = (WatchParams::default(), last.to_string());
        let open = maps.watch(&params, &last);
        let stream = match timeout(OPEN_MAX, open).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(kube::Error::Api(status))) if status.code == 410 => return Ok(Left::Gone),
            Ok(Err(_)) | Err(_) => return Ok(Left::Moves),
        };
        let mut stream = std::pin::pin!(stream);
        loop {
            let end = self.end.load(Ordering::Relaxed);
            let last = watch.events.last().map_or(watch.after, Event::revision);
            if end > 0 && last >= end {
                return Ok(Left::ToldAll);
            }
            if Instant::now() > leave {
                return Ok(Left::Moves);
            }
            let event = match timeout(LOOK, stream.next()).await {
                Err(_) => continue,
                Ok(None | Some(Err(_))) => return Ok(Left::Moves),
                Ok(Some(Ok(event))) => event,
            };
            let (change, map) = match event {
                WatchEvent::Added(map) => (Change::Added, map),
                WatchEvent::Modified(map) => (Change::Modified, map),
                WatchEvent::Deleted(map) => (Change::Deleted, map),
                WatchEvent::Bookmark(bookmark) => {
                    let revision = bookmark.metadata.resource_version.parse();
                    let revision = revision.context("a bookmark's resourceVersion")?;
                    watch.events.push(Event::Bookmark(revision));
                    continue;
                }
                WatchEvent::Error(status) if status.code == 410 => return Ok(Left::Gone),
                WatchEvent::Error(_) => return Ok(Left::Moves),
            };
            if let Some((key, revision, value)) = seen(&map) {
                watch.events.push(Event::Object {
                    change,
                    key,
                    value,
                    revision,
                });
            }
        }
    }
}
