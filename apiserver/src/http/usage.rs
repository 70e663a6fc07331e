//! `metrics.k8s.io/v1beta1`: what nodes and pods use, as `kubectl top` reads it.
//!
//! Asked for, not collected: a request has the nodes' `/stats/summary` read, unless that was done a moment ago; requests at
//! the same time share one reading. CPU is a rate between two readings of the same node: the one before, if it is fresh
//! enough to speak of now, else a second one after [`WINDOW_MIN`]. Window and time are those of the readings, by the
//! node's own clock.
//!
//! Invariants: the nodes read at once, the time and the bytes that each may take are bounded; a node out of reach is left
//! out and holds up nobody; who may not read `nodes` or `pods` of this group reads nothing.
//! Left to others: what the figures are made of (`weft_agent`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use weft_api::status::StatusError;
use weft_api::time::rfc3339;
use weft_kinds::lens::put;

use super::AppState;
use super::calls::{CallMeter, CallRates};
use super::proxy::NodeClient;
use crate::caller::Caller;
use crate::listing::ListOptions;
use crate::objects::Objects;
use crate::request::Params;
use crate::stored::Stored;
use weft_kinds::{Kind, KindRef};

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
/// Where a node has it.
const SUMMARY: &str = "/stats/summary";
/// A reading this young is used again.
pub(super) const FRESH: Duration = Duration::from_secs(5);
/// Shortest time between two readings that a rate is told of: long against the time the readings themselves take.
pub(super) const WINDOW_MIN: Duration = Duration::from_secs(1);
/// Longest: a rate over more would not be about now.
pub(super) const WINDOW_MAX: Duration = Duration::from_secs(90);
/// How long one node may take to answer.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);
/// Nodes read at the same time.
const NODES_AT_ONCE: usize = 16;
/// Longest answer of a node: a pod takes some 400 bytes of it, and a node 20,000 pods.
const SUMMARY_BYTES_MAX: usize = 32 << 20;

/// The part of a node's summary that is read.
#[derive(Deserialize)]
struct Summary {
    node: Used,
    #[serde(default)]
    pods: Vec<PodSummary>,
}

#[derive(Deserialize)]
struct Used {
    cpu: Cpu,
    memory: Memory,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    time: Timestamp,
    usage_core_nano_seconds: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSummary {
    pod_ref: PodReference,
    #[serde(default)]
    containers: Vec<ContainerSummary>,
}

#[derive(Deserialize)]
struct PodReference {
    namespace: String,
    name: String,
    uid: String,
}

#[derive(Deserialize)]
struct ContainerSummary {
    name: String,
    #[serde(flatten)]
    used: Used,
    /// What the summary has no name of its own for.
    #[serde(default, rename = "userDefinedMetrics")]
    others: Vec<OtherMetric>,
}

#[derive(Deserialize)]
struct OtherMetric {
    name: String,
    value: f64,
}

impl ContainerSummary {
    fn sample(&self) -> Sample {
        let other = |name: &str| {
            let found = self.others.iter().find(|other| other.name == name);
            // A count, which is none where it is negative or no number.
            found.map_or(0, |other| other.value as u64)
        };
        Sample {
            instances: other("instances"),
            started: other("instances_started"),
            ..Sample::from(&self.used)
        }
    }
}

/// CPU time so far, and memory; of a container instances of its component, too, those that there are and all that were started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    cpu_nanos: u64,
    memory_bytes: u64,
    instances: u64,
    started: u64,
}

impl From<&Used> for Sample {
    fn from(used: &Used) -> Self {
        Self {
            cpu_nanos: used.cpu.usage_core_nano_seconds,
            memory_bytes: used.memory.working_set_bytes,
            instances: 0,
            started: 0,
        }
    }
}

/// Namespace and name of a pod.
type PodKey = (String, String);

/// One node at one moment.
#[derive(Clone, Debug)]
struct Reading {
    at: Timestamp,
    node: Sample,
    pods: BTreeMap<PodKey, PodReading>,
}

#[derive(Clone, Debug)]
struct PodReading {
    uid: String,
    containers: BTreeMap<String, Sample>,
}

impl From<Summary> for Reading {
    fn from(summary: Summary) -> Self {
        let containers = |pod: PodSummary| {
            let containers = pod.containers.into_iter();
            let samples = containers.map(|one| {
                let sample = one.sample();
                (one.name, sample)
            });
            let reading = PodReading {
                uid: pod.pod_ref.uid,
                containers: samples.collect(),
            };
            ((pod.pod_ref.namespace, pod.pod_ref.name), reading)
        };
        Self {
            at: summary.node.cpu.time,
            node: Sample::from(&summary.node),
            pods: summary.pods.into_iter().map(containers).collect(),
        }
    }
}

/// What something uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Thousand-millionths of a core, over the window.
    pub nano_cores: u64,
    /// At its end.
    pub memory_bytes: u64,
    /// Instances of a container's component at its end, and how many were started within it, in thousandths a second.
    pub instances: u64,
    pub started_milli: u64,
}

/// What a pod uses, for who runs in the server's own process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodUsage {
    pub namespace: String,
    pub name: String,
    /// The end of the window, by the clock of the pod's node.
    pub at: Timestamp,
    pub window: Duration,
    pub containers: BTreeMap<String, Rate>,
}

/// Reads what pods use without a request. Cheap to clone; shares its readings with requests.
#[derive(Clone)]
pub struct UsageReader {
    objects: Objects,
    nodes: NodeClient,
    meter: Arc<Meter>,
    calls: Arc<CallMeter>,
}

impl UsageReader {
    pub(crate) fn of(state: &AppState) -> Self {
        Self {
            objects: state.objects.clone(),
            nodes: state.nodes.clone(),
            meter: state.meter.clone(),
            calls: state.calls.clone(),
        }
    }

    /// What the mesh counts of calls now. Takes as long as [`UsageReader::pods`].
    ///
    /// # Errors
    /// When the nodes cannot be listed.
    pub async fn calls(&self) -> Result<Arc<CallRates>, StatusError> {
        self.calls.rates(&self.objects, &self.nodes).await
    }

    /// What pods use now; those that nothing is known of are left out. Takes as long as the slowest node, some seconds at
    /// most, unless that was read a moment ago.
    ///
    /// # Errors
    /// When the nodes cannot be listed.
    pub async fn pods(&self) -> Result<Vec<PodUsage>, StatusError> {
        let rates = self.meter.rates(&self.objects, &self.nodes).await?;
        let pods = rates
            .pods
            .iter()
            .filter(|(_, (_, rates))| !rates.is_empty());
        let pods = pods.map(|((namespace, name), (span, rates))| PodUsage {
            namespace: namespace.clone(),
            name: name.clone(),
            at: span.at,
            window: span.window,
            containers: rates.clone(),
        });
        Ok(pods.collect())
    }
}

/// Of a pod: namespace, name, thousand-millionths of a core and bytes summed over its containers, calls a second, instances, and how many of
/// these were started a second.
pub(super) type PodInUse = (String, String, u64, u64, f64, u64, f64);

/// What all nodes and pods use, in the order of their names, for who shows all of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct InUse {
    /// Thousand-millionths of a core, and bytes.
    pub(super) nodes: Vec<(String, u64, u64)>,
    pub(super) pods: Vec<PodInUse>,
}

/// What everything uses now. Takes as long as [`UsageReader::pods`].
///
/// # Errors
/// When the nodes cannot be listed.
pub(super) async fn used(
    objects: &Objects,
    nodes: &NodeClient,
    (meter, calls): (&Meter, &CallMeter),
) -> Result<InUse, StatusError> {
    let (rates, calls) =
        tokio::try_join!(meter.rates(objects, nodes), calls.rates(objects, nodes))?;
    let of_nodes = rates.nodes.iter();
    let of_pods = rates.pods.iter().map(|(key, (_, containers))| {
        let sum = |of: fn(&Rate) -> u64| containers.values().map(of).fold(0, u64::saturating_add);
        let called = calls.pods.get(key);
        let called = called.map_or(0, |rate| rate.figures.requests_per_second);
        (
            key.0.clone(),
            key.1.clone(),
            sum(|rate| rate.nano_cores),
            sum(|rate| rate.memory_bytes),
            called as f64 / 1000.0,
            sum(|rate| rate.instances),
            sum(|rate| rate.started_milli) as f64 / 1000.0,
        )
    });
    Ok(InUse {
        nodes: of_nodes
            .map(|(name, (_, rate))| (name.clone(), rate.nano_cores, rate.memory_bytes))
            .collect(),
        pods: of_pods.collect(),
    })
}

/// When figures are from, and what time they are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    at: Timestamp,
    window: Duration,
}

/// Two readings of a node as rates.
#[derive(Debug, Default)]
struct Rates {
    nodes: BTreeMap<String, (Span, Rate)>,
    /// Containers by name.
    pods: BTreeMap<PodKey, (Span, BTreeMap<String, Rate>)>,
}

impl Rates {
    /// Takes up what a node used between two readings; nothing if no time lies between them.
    fn add(&mut self, name: &str, earlier: &Reading, later: &Reading) {
        let window = Duration::try_from(later.at.duration_since(earlier.at)).unwrap_or_default();
        let nanos = window.as_nanos();
        if nanos == 0 {
            return;
        }
        let span = Span {
            at: later.at,
            window,
        };
        // What is new since, or began anew, has used all of it in the window.
        let rate = |before: Option<&Sample>, now: &Sample| {
            let rate = |of: fn(&Sample) -> u64, unit: u128| {
                let now = of(now);
                let new = now.checked_sub(before.map_or(0, of)).unwrap_or(now);
                let rate = u128::from(new) * unit / nanos;
                u64::try_from(rate).unwrap_or(u64::MAX)
            };
            Rate {
                nano_cores: rate(|sample| sample.cpu_nanos, 1_000_000_000),
                memory_bytes: now.memory_bytes,
                instances: now.instances,
                started_milli: rate(|sample| sample.started, 1_000_000_000_000),
            }
        };
        let node = rate(Some(&earlier.node), &later.node);
        self.nodes.insert(name.to_owned(), (span, node));
        for (key, pod) in &later.pods {
            // Another pod of the same name is another pod.
            let before = earlier.pods.get(key).filter(|before| before.uid == pod.uid);
            let rates = pod.containers.iter().map(|(name, now)| {
                let before = before.and_then(|pod| pod.containers.get(name));
                (name.clone(), rate(before, now))
            });
            self.pods.insert(key.clone(), (span, rates.collect()));
        }
    }
}

/// The readings of all nodes, and who may read next.
#[derive(Default)]
pub(crate) struct Meter {
    state: tokio::sync::Mutex<Readings>,
}

#[derive(Default)]
struct Readings {
    /// The newest of each node, and when it was taken by our clock.
    latest: BTreeMap<String, (Instant, Reading)>,
    /// What was made of them, and when.
    rates: Option<(Instant, Arc<Rates>)>,
}

impl Meter {
    /// What nodes and pods use now. Whoever asks first reads, the others wait for it.
    async fn rates(
        &self,
        objects: &Objects,
        client: &NodeClient,
    ) -> Result<Arc<Rates>, StatusError> {
        let mut readings = self.state.lock().await;
        if let Some((at, rates)) = &readings.rates
            && at.elapsed() < FRESH
        {
            return Ok(rates.clone());
        }
        let nodes = nodes_of(objects).await?;
        let mut earlier = std::mem::take(&mut readings.latest);
        earlier.retain(|_, (at, _)| at.elapsed() < WINDOW_MAX);
        let mut unknown = nodes.clone();
        unknown.retain(|(name, _)| !earlier.contains_key(name));
        if !unknown.is_empty() {
            earlier.extend(ask_all(client, unknown, SUMMARY, reading).await);
            tokio::time::sleep(WINDOW_MIN).await;
        }
        let latest = ask_all(client, nodes, SUMMARY, reading).await;
        let mut rates = Rates::default();
        for (name, (_, later)) in &latest {
            if let Some((_, earlier)) = earlier.get(name) {
                rates.add(name, earlier, later);
            }
        }
        let rates = Arc::new(rates);
        readings.latest = latest.into_iter().collect();
        readings.rates = Some((Instant::now(), rates.clone()));
        Ok(rates)
    }
}

/// All nodes, by name.
pub(super) async fn nodes_of(objects: &Objects) -> Result<Vec<(String, Arc<Value>)>, StatusError> {
    let reader = Caller::system("apiserver", None);
    let every = ListOptions::default();
    let client = objects.client(&reader);
    let page = client.list(&weft_kinds::NODE, None, &every);
    let nodes = page.await?.items;
    let nodes = nodes.iter();
    Ok(nodes
        .map(|node| (node.name().to_owned(), Arc::new(node.value())))
        .collect())
}

/// Asks nodes for what they have at `path`, and when they answered by our clock. Who does not is left out.
pub(super) async fn ask_all<T>(
    client: &NodeClient,
    nodes: Vec<(String, Arc<Value>)>,
    path: &'static str,
    read: fn(&[u8]) -> serde_json::Result<T>,
) -> Vec<(String, (Instant, T))> {
    let reads = nodes.into_iter().map(|(name, node)| async move {
        let asked = async {
            let body = ask(client, &node, path).await?;
            read(&body).map_err(|error| error.to_string())
        };
        let why = match tokio::time::timeout(NODE_TIMEOUT, asked).await {
            Ok(Ok(reading)) => return Some((name, (Instant::now(), reading))),
            Ok(Err(why)) => why,
            Err(_) => format!("no answer in {} s", NODE_TIMEOUT.as_secs()),
        };
        tracing::debug!(node = name, path, why, "the node could not be read");
        None
    });
    let reads = futures::stream::iter(reads).buffer_unordered(NODES_AT_ONCE);
    let reads: Vec<_> = reads.collect().await;
    reads.into_iter().flatten().collect()
}

async fn ask(client: &NodeClient, node: &Value, path: &'static str) -> Result<Bytes, String> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = Uri::from_static(path);
    let answer = client.send(node, request).await;
    let (head, body) = answer.map_err(|error| error.to_string())?.into_parts();
    if head.status != StatusCode::OK {
        return Err(format!("it answered {}", head.status));
    }
    let body = Limited::new(body, SUMMARY_BYTES_MAX).collect().await;
    Ok(body.map_err(|error| error.to_string())?.to_bytes())
}

fn reading(summary: &[u8]) -> serde_json::Result<Reading> {
    serde_json::from_slice::<Summary>(summary).map(Reading::from)
}

/// Answers a list of usage, or that of one object.
pub(super) async fn answer(
    state: &AppState,
    asked: &Kind,
    namespace: Option<&str>,
    name: Option<&str>,
    params: &Params,
) -> Result<Response, StatusError> {
    let pods = asked.resource == "pods";
    let kind: KindRef = if pods {
        &weft_kinds::POD
    } else {
        &weft_kinds::NODE
    };
    let reader = Caller::system("apiserver", None);
    let reader = state.objects.client(&reader);
    if let Some(name) = name {
        let described = match namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.to_owned(),
        };
        let missing = || StatusError::not_found(&asked.resource, GROUP, &described);
        let object = reader.get(kind, namespace, name).await;
        let object = object.map_err(|error| if error.code == 404 { missing() } else { error })?;
        let rates = state.meter.rates(&state.objects, &state.nodes).await?;
        let found = metrics_of(&rates, &object, pods).ok_or_else(missing)?;
        return Ok(json_response(&found));
    }
    let selection = params.selection(kind)?;
    let options = ListOptions {
        selection,
        ..ListOptions::default()
    };
    let rates = state.meter.rates(&state.objects, &state.nodes).await?;
    let page = reader.list(kind, namespace, &options).await?;
    let items: Vec<Value> = page
        .items
        .iter()
        .filter_map(|object| {
            let mut metrics = metrics_of(&rates, object, pods)?;
            // The list says once what they are.
            put(&mut metrics, "kind", None);
            put(&mut metrics, "apiVersion", None);
            Some(metrics)
        })
        .collect();
    Ok(json_response(&json!({
        "kind": if pods { "PodMetricsList" } else { "NodeMetricsList" },
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "metadata": {},
        "items": items,
    })))
}

/// The metrics of a stored pod or node; `None` while there are none.
fn metrics_of(rates: &Rates, object: &Stored, pod: bool) -> Option<Value> {
    let mut metadata = json!({"name": object.name()});
    let labels = object.labels();
    if !labels.is_empty() {
        metadata["labels"] = json!(labels);
    }
    if !pod {
        let (span, rate) = rates.nodes.get(object.name())?;
        let mut metrics = head("NodeMetrics", metadata, *span);
        metrics["usage"] = usage(*rate);
        return Some(metrics);
    }
    let key = (object.namespace()?.to_owned(), object.name().to_owned());
    let (span, containers) = rates.pods.get(&key)?;
    if containers.is_empty() {
        return None;
    }
    metadata["namespace"] = json!(object.namespace());
    let mut metrics = head("PodMetrics", metadata, *span);
    let containers = containers.iter();
    let containers = containers.map(|(name, rate)| json!({"name": name, "usage": usage(*rate)}));
    metrics["containers"] = containers.collect();
    Some(metrics)
}

fn head(kind: &str, mut metadata: Value, span: Span) -> Value {
    let at = rfc3339(span.at);
    metadata["creationTimestamp"] = json!(at);
    json!({
        "kind": kind,
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "metadata": metadata,
        "timestamp": at,
        "window": format!("{}.{:03}s", span.window.as_secs(), span.window.subsec_millis()),
    })
}

fn usage(rate: Rate) -> Value {
    json!({
        "cpu": format!("{}n", rate.nano_cores),
        "memory": format!("{}Ki", rate.memory_bytes.div_ceil(1024)),
    })
}

pub(super) fn json_response(value: &Value) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], value.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: &str, node: u64, pods: &[(&str, &str, u64, u64)]) -> Reading {
        let used = |cpu: u64, memory: u64| json!({"cpu": {"time": at, "usageCoreNanoSeconds": cpu}, "memory": {"time": at, "workingSetBytes": memory}});
        let pods: Vec<Value> = pods
            .iter()
            .map(|(uid, container, cpu, memory)| {
                let mut one = used(*cpu, *memory);
                one["name"] = json!(container);
                let (name, uid) = uid.split_once(' ').unwrap_or((uid, "u"));
                json!({"podRef": {"name": name, "namespace": "n", "uid": uid}, "containers": [one]})
            })
            .collect();
        let summary = json!({"node": used(node, 1 << 20), "pods": pods});
        let summary: Summary = serde_json::from_value(summary).unwrap();
        Reading::from(summary)
    }

    #[test]
    fn cpu_is_a_rate_over_the_window_between_two_readings() {
        let earlier = reading(
            "2026-01-02T03:04:05.250000Z",
            1_000_000_000,
            &[
                ("a", "web", 500, 1024),
                ("b", "web", 9_000_000_000, 1),
                ("d old", "web", 100, 1),
            ],
        );
        let later = reading(
            "2026-01-02T03:04:09.250000Z",
            3_000_000_000,
            &[
                ("a", "web", 1_000_000_500, 2048),
                // Its counter began anew.
                ("b", "web", 400_000_000, 1025),
                // It was not there before.
                ("c", "web", 2_000_000_000, 0),
                // It was another pod.
                ("d new", "web", 4_000_000_000, 0),
            ],
        );
        let mut rates = Rates::default();
        rates.add("n", &earlier, &later);
        let text: Vec<String> = rates
            .pods
            .iter()
            .map(|((_, name), (_, containers))| format!("{name} {}", usage(containers["web"])))
            .collect();
        insta::assert_snapshot!(text.join("\n"), @r#"
        a {"cpu":"250000000n","memory":"2Ki"}
        b {"cpu":"100000000n","memory":"2Ki"}
        c {"cpu":"500000000n","memory":"0Ki"}
        d {"cpu":"1000000000n","memory":"0Ki"}
        "#);
        let (span, node) = rates.nodes["n"];
        assert_eq!(node.nano_cores, 500_000_000);
        let head = head("NodeMetrics", json!({"name": "n"}), span);
        assert_eq!(head["window"], "4.000s");
        assert_eq!(head["timestamp"], "2026-01-02T03:04:09Z");
    }

    #[test]
    fn instances_are_told_with_how_many_were_started() {
        let at = |second: u64, instances: u64, started: u64| {
            let now = format!("2026-01-02T03:04:0{second}Z");
            let used = json!({"cpu": {"time": now, "usageCoreNanoSeconds": 1}, "memory": {"time": now, "workingSetBytes": 1}});
            let mut one = used.clone();
            one["name"] = json!("web");
            one["userDefinedMetrics"] = json!([
                {"name": "instances", "type": "gauge", "units": "", "time": now, "value": instances},
                {"name": "instances_started", "type": "cumulative", "units": "", "time": now, "value": started},
                {"name": "others", "value": -1.5},
            ]);
            let pod = json!({"name": "a", "namespace": "n", "uid": "u"});
            let summary = json!({"node": used, "pods": [{"podRef": pod, "containers": [one]}]});
            super::reading(summary.to_string().as_bytes()).unwrap()
        };
        let mut rates = Rates::default();
        rates.add("n", &at(1, 9, 100), &at(5, 3, 110));
        let (_, containers) = &rates.pods[&("n".to_owned(), "a".to_owned())];
        let web = containers["web"];
        assert_eq!((web.instances, web.started_milli), (3, 2500));
    }

    #[test]
    fn no_time_between_two_readings_is_no_rate() {
        let one = reading("2026-01-02T03:04:05Z", 1, &[("a", "web", 1, 1)]);
        let mut rates = Rates::default();
        rates.add("n", &one, &one);
        assert!(rates.nodes.is_empty() && rates.pods.is_empty());
    }
}
