//! Clients that write and read ConfigMaps through one server each, and write down what they were told.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::history::{Ask, Key, Moment, Operation, Revision, Told, Unknown, Value};

/// Few, so that clients meet at each of them.
pub const KEYS: Key = 12;
/// Shorter than an election, so that a server that answers nothing does not hold its clients up for long.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Between two questions of a client, in milliseconds: a load, and a machine that has time for it.
const PAUSE: std::ops::Range<u64> = 5..40;

/// What all tasks of the campaign share.
pub struct Campaign {
    begun: Instant,
    values: AtomicU64,
    pub stop: AtomicBool,
    /// For each server, when the last write was asked for that was acknowledged through it.
    accepted: Vec<AtomicU64>,
}

impl Campaign {
    pub fn new(servers: usize) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            values: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            accepted: (0..servers).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    pub fn now(&self) -> Moment {
        // Until the year 2554 or so.
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(Moment::MAX)
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub fn value(&self) -> Value {
        self.values.fetch_add(1, Ordering::Relaxed)
    }

    /// The first server through which no write that was asked for after `moment` was acknowledged.
    pub fn silent_since(&self, moment: Moment) -> Option<usize> {
        self.accepted
            .iter()
            .position(|accepted| accepted.load(Ordering::Relaxed) <= moment)
    }
}

/// A client of the server at `url`, with the credentials of a kubeconfig of its cluster.
///
/// # Errors
/// When the kubeconfig is not usable.
pub async fn connect(kubeconfig: &Path, url: &str) -> anyhow::Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.cluster_url = url.parse().context("a server's URL")?;
    config.connect_timeout = Some(ANSWER_MAX);
    config.proxy_url = None;
    // A repeated write may meet its own first attempt, and be told of a conflict with itself.
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
}

pub fn name(key: Key) -> String {
    format!("chaos-{key}")
}

/// What is known of an object by what a server says of it; `None` for objects of others.
pub fn seen(map: &ConfigMap) -> Option<(Key, Revision, Value)> {
    let key = map.metadata.name.as_ref()?.strip_prefix("chaos-")?;
    let revision = map.metadata.resource_version.as_ref()?;
    let value = map.data.as_ref()?.get("value")?;
    Some((
        key.parse().ok()?,
        revision.parse().ok()?,
        value.parse().ok()?,
    ))
}

fn object(key: Key, value: Value, base: Option<Revision>) -> anyhow::Result<ConfigMap> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name(key), "resourceVersion": base.map(|base| base.to_string())},
        "data": {"value": value.to_string()},
    }))?)
}

pub struct Client {
    campaign: Arc<Campaign>,
    maps: Api<ConfigMap>,
    server: usize,
    rng: StdRng,
    /// What it saw last of each object.
    known: BTreeMap<Key, Revision>,
}

impl Client {
    pub fn new(campaign: &Arc<Campaign>, client: kube::Client, server: usize, seed: u64) -> Self {
        Self {
            campaign: Arc::clone(campaign),
            maps: Api::namespaced(client, "default"),
            server,
            rng: StdRng::seed_from_u64(seed),
            known: BTreeMap::new(),
        }
    }

    /// Asks one question after the other until the campaign is stopped.
    ///
    /// # Errors
    /// When a server answers with something that is no answer to what was asked.
    pub async fn run(mut self) -> anyhow::Result<Vec<Operation>> {
        let mut operations = Vec::new();
        while !self.campaign.stopped() {
            let ask = self.choose();
            let operation = self.ask(ask).await?;
            operations.push(operation);
            let pause = Duration::from_millis(self.rng.random_range(PAUSE));
            tokio::time::sleep(pause).await;
        }
        Ok(operations)
    }

    fn choose(&mut self) -> Ask {
        let key = self.rng.random_range(0..KEYS);
        let value = || self.campaign.value();
        match (self.rng.random_range(0..100), self.known.get(&key).copied()) {
            (0..8, _) => Ask::List,
            (8..40, _) => Ask::Get { key },
            (40..48, Some(base)) => Ask::Delete { key, base },
            (48..90, Some(base)) => Ask::Update {
                key,
                value: value(),
                base,
            },
            _ => Ask::Create {
                key,
                value: value(),
            },
        }
    }

    /// Asks, and remembers what it learned.
    ///
    /// # Errors
    /// When a server answers with something that is no answer to what was asked.
    pub async fn ask(&mut self, ask: Ask) -> anyhow::Result<Operation> {
        let asked = self.campaign.now();
        let answer = tokio::time::timeout(ANSWER_MAX, self.send(&ask)).await;
        let answered = self.campaign.now();
        let told = match answer {
            Err(_) => Told::Unknown(Unknown::TimedOut),
            Ok(told) => told?,
        };
        match (&ask, &told) {
            (
                Ask::Create { key, .. } | Ask::Update { key, .. } | Ask::Get { key },
                Told::Written(revision) | Told::Found(revision, _),
            ) => {
                self.known.insert(*key, *revision);
            }
            (_, Told::Listed(_, seen)) => {
                self.known = seen.iter().map(|(key, seen)| (*key, seen.0)).collect();
            }
            (
                Ask::Update { key, .. } | Ask::Get { key } | Ask::Delete { key, .. },
                Told::NotFound | Told::Deleted | Told::Conflict,
            ) => {
                self.known.remove(key);
            }
            _ => {}
        }
        let operation = Operation {
            server: self.server,
            asked,
            answered,
            ask,
            told,
        };
        if operation.acknowledged() {
            self.campaign.accepted[self.server].fetch_max(asked, Ordering::Relaxed);
        }
        Ok(operation)
    }

    async fn send(&self, ask: &Ask) -> anyhow::Result<Told> {
        let post = PostParams::default();
        let told = match ask {
            Ask::Create { key, value } => {
                let map = object(*key, *value, None)?;
                written(self.maps.create(&post, &map).await)
            }
            Ask::Update { key, value, base } => {
                let map = object(*key, *value, Some(*base))?;
                written(self.maps.replace(&name(*key), &post, &map).await)
            }
            Ask::Delete { key, base } => {
                let condition = DeleteParams {
                    preconditions: Some(Preconditions {
                        resource_version: Some(base.to_string()),
                        uid: None,
                    }),
                    ..DeleteParams::default()
                };
                match self.maps.delete(&name(*key), &condition).await {
                    Ok(_) => Ok(Some(Told::Deleted)),
                    Err(error) => Err(error),
                }
            }
            Ask::Get { key } => match self.maps.get(&name(*key)).await {
                Ok(map) => Ok(seen(&map).map(|(_, revision, value)| Told::Found(revision, value))),
                Err(error) => Err(error),
            },
            Ask::List => match self.maps.list(&ListParams::default()).await {
                Ok(list) => {
                    let revision = list.metadata.resource_version.as_deref();
                    let objects = list.items.iter().filter_map(seen);
                    let objects = objects.map(|(key, revision, value)| (key, (revision, value)));
                    Ok(revision
                        .and_then(|revision| revision.parse().ok())
                        .map(|revision| Told::Listed(revision, objects.collect())))
                }
                Err(error) => Err(error),
            },
        };
        match told {
            Ok(told) => told.with_context(|| format!("no usable answer to {ask:?}")),
            Err(kube::Error::Api(status)) => Ok(match status.code {
                404 => Told::NotFound,
                409 => Told::Conflict,
                code => Told::Unknown(Unknown::Status(code)),
            }),
            Err(_) => Ok(Told::Unknown(Unknown::Disconnected)),
        }
    }
}

fn written(answer: kube::Result<ConfigMap>) -> kube::Result<Option<Told>> {
    Ok(seen(&answer?).map(|(_, revision, _)| Told::Written(revision)))
}
