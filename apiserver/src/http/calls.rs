//! What the mesh counts of calls, as rates: for autoscalers, and as `custom.metrics.k8s.io/v1beta2` for whoever else reads metrics there.
//!
//! Asked for, not collected, as usage is (`usage.rs`): a request has the nodes' `/stats/calls` read, unless that was done a moment ago, and
//! rates are of the time between two readings of a node. A Service's are summed over the nodes that called it; its latency is read from
//! all answers together.
//!
//! ```text
//! GET …/namespaces/NS/pods/*/METRIC?labelSelector=…      of the pods of a namespace that the mesh leads to
//! GET …/namespaces/NS/pods/NAME/METRIC                   of one
//! GET …/namespaces/NS/services/NAME/METRIC               of a Service; zero while nobody calls it
//! ```
//! Beside the rates stand sums of what was counted of Services since a server began to read ([`CallRates::totals`]), for who has to know of a time of
//! his own choice, whoever else reads in between.
//!
//! Invariants: as those of `usage.rs`; a Service that is there has a value as soon as any node was read. Left to others: counting (`weft_mesh`), the
//! names of metrics (`weft_kinds::autoscaling::calls`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::Response;
use jiff::Timestamp;
use serde::de::Error as _;
use serde_json::{Value, json};
use weft_api::quantity::Quantity;
use weft_api::status::StatusError;
use weft_api::time::rfc3339;
use weft_call::counted::{Counted, NodeCalls};
use weft_kinds::autoscaling::calls::{CallFigures, CallMetric, GROUP, VERSION};
use weft_kinds::{Kind, KindRef};

use super::AppState;
use super::proxy::NodeClient;
use super::usage::{FRESH, WINDOW_MAX, WINDOW_MIN, ask_all, json_response, nodes_of};
use crate::caller::Caller;
use crate::listing::ListOptions;
use crate::objects::Objects;
use crate::request::Params;

/// Where a node has it.
const CALLS: &str = "/stats/calls";
/// All of a resource.
const EVERY: &str = "*";
/// Answers within which a latency lies that is told: 95 of a hundred.
const P95: u64 = 950;

/// How long a sum is kept that nothing is added to. What is called again after that begins anew.
const TOTAL_IDLE_MAX: Duration = Duration::from_secs(600);

/// Namespace and name.
type Name = (String, String);

/// What was counted of one pod or Service in the time before a moment, as values of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallRate {
    /// The end of that time, by the node's clock.
    pub at: Timestamp,
    pub window: Duration,
    pub figures: CallFigures,
}

/// The newest rates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallRates {
    pub pods: BTreeMap<Name, CallRate>,
    /// Those that were called.
    pub services: BTreeMap<Name, CallRate>,
    /// What is known of a Service that is not among them: when it was not called. `None`: no node was read.
    pub of_others: Option<CallRate>,
    /// All that was counted of a Service since it was first seen to be called.
    pub totals: BTreeMap<Name, Counted>,
    /// When this was read, by this server's clock. `None`: nothing was.
    pub read: Option<Timestamp>,
}

/// One node at one moment.
#[derive(Debug)]
struct Reading {
    at: Timestamp,
    /// With the uid of the pod.
    pods: BTreeMap<Name, (String, Counted)>,
    services: BTreeMap<Name, Counted>,
}

fn reading(calls: &[u8]) -> serde_json::Result<Reading> {
    let calls: NodeCalls = serde_json::from_slice(calls)?;
    let at = calls.time.parse();
    let at = at.map_err(|error| serde_json::Error::custom(format!("its time: {error}")))?;
    let pods = calls.pods.into_iter();
    let services = calls.services.into_iter();
    Ok(Reading {
        at,
        pods: pods
            .map(|pod| ((pod.namespace, pod.name), (pod.uid, pod.calls)))
            .collect(),
        services: services
            .map(|service| ((service.namespace, service.name), service.calls))
            .collect(),
    })
}

/// What is summed up of a Service over nodes.
struct Sum {
    rate: CallRate,
    all: Counted,
}

/// Makes rates of two readings of each node.
fn rates<'r>(nodes: impl Iterator<Item = (&'r Reading, &'r Reading)>) -> CallRates {
    let mut rates = CallRates::default();
    let mut services: BTreeMap<&Name, Sum> = BTreeMap::new();
    for (earlier, later) in nodes {
        let window = Duration::try_from(later.at.duration_since(earlier.at)).unwrap_or_default();
        if window.is_zero() {
            continue;
        }
        let rate = |calls: &Counted| CallRate {
            at: later.at,
            window,
            figures: figures(calls, window),
        };
        for (name, (uid, calls)) in &later.pods {
            // Another pod of the same name is another pod.
            let before = earlier.pods.get(name).filter(|(known, _)| known == uid);
            let calls = calls.after(before.map(|(_, calls)| calls));
            rates.pods.insert(name.clone(), rate(&calls));
        }
        for (name, calls) in &later.services {
            let calls = calls.after(earlier.services.get(name));
            let rate = rate(&calls);
            match services.get_mut(name) {
                None => {
                    services.insert(name, Sum { rate, all: calls });
                }
                Some(sum) => sum.add(&rate, &calls),
            }
        }
        let none = rate(&Counted::default());
        let newer = rates.of_others.filter(|known| known.at >= none.at);
        rates.of_others = Some(newer.unwrap_or(none));
    }
    for (name, sum) in services {
        let mut rate = sum.rate;
        rate.figures.latency_p95_milliseconds = latency(&sum.all);
        rates.services.insert(name.clone(), rate);
    }
    rates
}

impl Sum {
    fn add(&mut self, rate: &CallRate, calls: &Counted) {
        self.all.add(calls);
        let (sum, other) = (&mut self.rate.figures, rate.figures);
        sum.requests_per_second = sum
            .requests_per_second
            .saturating_add(other.requests_per_second);
        sum.requests_in_flight = sum
            .requests_in_flight
            .saturating_add(other.requests_in_flight);
        self.rate.at = self.rate.at.max(rate.at);
        self.rate.window = self.rate.window.max(rate.window);
    }
}

/// Rounded up, so that whatever happened at all is more than nothing.
fn figures(calls: &Counted, window: Duration) -> CallFigures {
    let micros = window.as_micros().max(1);
    let share = |amount: u64, unit: u128| {
        let share = (u128::from(amount) * unit).div_ceil(micros);
        i64::try_from(share).unwrap_or(i64::MAX)
    };
    CallFigures {
        requests_per_second: share(calls.begun, 1_000_000_000),
        requests_in_flight: share(calls.busy_micros, 1000),
        latency_p95_milliseconds: latency(calls),
    }
}

fn latency(calls: &Counted) -> i64 {
    i64::try_from(calls.quantile_micros(P95)).unwrap_or(i64::MAX)
}

/// The readings of all nodes, and who may read next.
#[derive(Default)]
pub(crate) struct CallMeter {
    state: tokio::sync::Mutex<Readings>,
}

#[derive(Default)]
struct Readings {
    /// The newest of each node, and when it was taken by our clock.
    latest: BTreeMap<String, (Instant, Reading)>,
    /// What was made of them, and when.
    rates: Option<(Instant, Arc<CallRates>)>,
    totals: Totals,
}

/// Sums over nodes and readings.
#[derive(Default)]
struct Totals(BTreeMap<Name, (Instant, Counted)>);

impl Totals {
    /// Takes up what is new. `began`: what tells a sum that begins now from those of before.
    fn add<'r>(
        &mut self,
        nodes: impl Iterator<Item = (&'r Reading, &'r Reading)>,
        now: Instant,
        began: u64,
    ) {
        for (earlier, later) in nodes {
            for (name, calls) in &later.services {
                let new = calls.after(earlier.services.get(name));
                if new.begun == 0 && new.failed == 0 && new.answers.is_empty() {
                    continue;
                }
                let (at, total) = self.0.entry(name.clone()).or_insert_with(|| {
                    let none = Counted {
                        since: began,
                        ..Counted::default()
                    };
                    (now, none)
                });
                *at = now;
                total.add(&new);
            }
        }
        self.0
            .retain(|_, (at, _)| now.saturating_duration_since(*at) < TOTAL_IDLE_MAX);
    }

    fn all(&self) -> BTreeMap<Name, Counted> {
        let all = self.0.iter();
        all.map(|(name, (_, total))| (name.clone(), total.clone()))
            .collect()
    }
}

impl CallMeter {
    /// The rates of now. Whoever asks first reads, the others wait for it.
    pub(super) async fn rates(
        &self,
        objects: &Objects,
        client: &NodeClient,
    ) -> Result<Arc<CallRates>, StatusError> {
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
            earlier.extend(ask_all(client, unknown, CALLS, reading).await);
            tokio::time::sleep(WINDOW_MIN).await;
        }
        let latest = ask_all(client, nodes, CALLS, reading).await;
        let both = latest.iter().filter_map(|(name, (_, later))| {
            let (_, earlier) = earlier.get(name)?;
            Some((earlier, later))
        });
        let now = Timestamp::now();
        let began = u64::try_from(now.as_microsecond()).unwrap_or_default();
        readings.totals.add(both.clone(), Instant::now(), began);
        let rates = Arc::new(CallRates {
            totals: readings.totals.all(),
            read: Some(now),
            ..rates(both)
        });
        readings.latest = latest.into_iter().collect();
        readings.rates = Some((Instant::now(), rates.clone()));
        Ok(rates)
    }
}

/// Answers for the value of a metric of one object, or of all pods of a namespace.
pub(super) async fn answer(
    state: &AppState,
    asked: &Kind,
    namespace: Option<&str>,
    (name, metric): (&str, &str),
    params: &Params,
) -> Result<Response, StatusError> {
    let known = CallMetric::parse(metric).ok_or_else(|| unknown(asked, metric, name))?;
    let namespace = namespace.unwrap_or_default();
    let is_pods = asked.resource == "pods";
    let kind: KindRef = match is_pods {
        true => &weft_kinds::POD,
        false => &weft_kinds::SERVICE,
    };
    let reader = Caller::system("apiserver", None);
    let reader = state.objects.client(&reader);
    let names: Vec<String> = match name {
        EVERY => {
            let options = ListOptions {
                selection: params.selection(kind)?,
                ..ListOptions::default()
            };
            let page = reader.list(kind, Some(namespace), &options).await?;
            let items = page.items.iter();
            items.map(|object| object.name().to_owned()).collect()
        }
        name => {
            let found = reader.get(kind, Some(namespace), name).await;
            found.map_err(|error| match error.code {
                404 => unknown(asked, metric, name),
                _ => error,
            })?;
            vec![name.to_owned()]
        }
    };
    let rates = state.calls.rates(&state.objects, &state.nodes).await?;
    let items: Vec<Value> = names
        .into_iter()
        .filter_map(|name| {
            let key = (namespace.to_owned(), name);
            let rate = match is_pods {
                true => rates.pods.get(&key),
                false => rates.services.get(&key).or(rates.of_others.as_ref()),
            };
            Some(value(kind, &key, known, rate?))
        })
        .collect();
    if items.is_empty() && name != EVERY {
        return Err(unknown(asked, metric, name));
    }
    Ok(json_response(&json!({
        "kind": "MetricValueList",
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "metadata": {},
        "items": items,
    })))
}

fn value(
    kind: KindRef<'_>,
    (namespace, name): &Name,
    metric: CallMetric,
    rate: &CallRate,
) -> Value {
    let milli = i128::from(rate.figures.of(metric));
    json!({
        "describedObject": {
            "kind": kind.kind, "namespace": namespace, "name": name, "apiVersion": "v1",
        },
        "metric": {"name": metric.name(), "selector": null},
        "timestamp": rfc3339(rate.at),
        "windowSeconds": rate.window.as_secs(),
        "value": Quantity::from_milli(milli).to_string(),
    })
}

/// As adapters for other sources of metrics say it.
fn unknown(asked: &Kind, metric: &str, name: &str) -> StatusError {
    let message = format!(
        "the server could not find the metric {metric} for {} {name}",
        asked.resource
    );
    StatusError {
        message,
        ..StatusError::not_found(&asked.resource, GROUP, name)
    }
}

#[cfg(test)]
mod tests {
    use weft_call::counted::{bounds, bucket};

    use super::*;

    fn counted(begun: u64, busy_micros: u64, answers: &[(u64, u64)]) -> Value {
        let answers = answers.iter();
        let answers: BTreeMap<u64, u64> = answers
            .map(|(micros, count)| (bounds(bucket(*micros)).1, *count))
            .collect();
        json!({"since": 1, "begun": begun, "busyMicros": busy_micros, "answers": answers})
    }

    fn node(second: i64, pods: &[(&str, &str, Value)], services: &[(&str, Value)]) -> Reading {
        let pods = pods.iter().map(
            |(name, uid, calls)| json!({"namespace": "n", "name": name, "uid": uid, "calls": calls}),
        );
        let services = services
            .iter()
            .map(|(name, calls)| json!({"namespace": "n", "name": name, "calls": calls}));
        let text = json!({
            "time": Timestamp::from_second(second).unwrap().to_string(),
            "pods": pods.collect::<Vec<_>>(),
            "services": services.collect::<Vec<_>>(),
        });
        reading(text.to_string().as_bytes()).unwrap()
    }

    fn shown(rates: &BTreeMap<Name, CallRate>) -> Vec<String> {
        let all = rates.iter();
        all.map(|((_, name), rate)| {
            let figures = CallMetric::ALL.map(|metric| rate.figures.of(metric).to_string());
            format!("{name} {} {}", figures.join(" "), rate.window.as_secs())
        })
        .collect()
    }

    #[test]
    fn rates_are_of_the_time_between_two_readings_and_of_all_nodes() {
        let a = (
            node(
                100,
                &[
                    ("one", "1", counted(50, 1_000_000, &[(1000, 50)])),
                    ("two", "2", counted(50, 9_000_000, &[])),
                ],
                &[("web", counted(5, 0, &[]))],
            ),
            node(
                110,
                &[
                    (
                        "one",
                        "1",
                        counted(150, 26_000_000, &[(1000, 50), (100, 100)]),
                    ),
                    // Another of that name.
                    ("two", "3", counted(1, 1, &[(1000, 1)])),
                ],
                &[
                    ("web", counted(105, 10_000_000, &[(100, 90)])),
                    ("cart", counted(1, 0, &[])),
                ],
            ),
        );
        let b = (
            node(200, &[], &[]),
            node(220, &[], &[("web", counted(20, 5_000_000, &[(1000, 10)]))]),
        );
        let rates = rates([(&a.0, &a.1), (&b.0, &b.1)].into_iter());
        assert_eq!(
            shown(&rates.pods),
            ["one 10000 2500 111 10", "two 100 1 1017 10"]
        );
        assert_eq!(
            shown(&rates.services),
            ["cart 100 0 0 10", "web 11000 1250 960 20"]
        );
        let others = rates.of_others.unwrap();
        assert_eq!(
            (others.figures, others.at.as_second()),
            (CallFigures::default(), 220)
        );
        // No time between them, no rate.
        assert_eq!(
            super::rates([(&a.1, &a.1)].into_iter()),
            CallRates::default()
        );
    }
}
