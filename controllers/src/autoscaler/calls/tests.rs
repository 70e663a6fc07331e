//! Sizes by calls, line by line: what pods and a Service had, what they are to have, and how many pods that makes.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::Object;
use weft_kinds::POD;
use weft_kinds::autoscaling::calls::CallFigures;

use super::super::ratio::Tolerances;
use super::*;
use crate::pod::Pod;
use crate::usage::{CallRate, Calls, Usage};
use crate::view::{Change, View};

/// 2026-01-01T01:00:00Z
const NOW: i64 = 1_767_229_200;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn rate(value: i64) -> CallRate {
    CallRate {
        at: at(NOW - 5),
        window: Duration::from_secs(10),
        figures: CallFigures {
            requests_per_second: value * 1000,
            requests_in_flight: 1,
            latency_p95_milliseconds: 2,
        },
    }
}

/// A target with these pods, each with its state and how often it is called, and Service `web` with as many calls.
struct Target {
    view: View,
    calls: Calls,
}

impl Target {
    fn new(pods: &[(&str, Option<i64>)], service: Option<i64>) -> Self {
        let mut view = View::new([crate::autoscaler::CONTROLLER.reads]);
        let mut calls = Calls {
            of_others: Some(rate(0)),
            ..Calls::default()
        };
        let mut put = |kind: &std::sync::Arc<weft_kinds::Kind>, object: Value| {
            let object = Object::from_value(object).unwrap();
            view.apply(Change::Upsert(kind.clone(), object), at(NOW));
        };
        put(
            &SERVICE,
            json!({"metadata": {"name": "web", "namespace": "n", "uid": "web", "resourceVersion": "1"}}),
        );
        for (number, (state, called)) in pods.iter().enumerate() {
            let name = format!("p{number}");
            let (phase, ready) = match *state {
                "ready" | "deleted" => ("Running", "True"),
                "not ready" => ("Running", "False"),
                phase => (phase, "False"),
            };
            let mut pod = json!({
                "metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": "1"},
                "spec": {"containers": [{"name": "c"}]},
                "status": {"phase": phase, "startTime": at(NOW - 900).to_string(), "conditions": [
                    {"type": "Ready", "status": ready, "lastTransitionTime": at(NOW - 900).to_string()}]},
            });
            if *state == "deleted" {
                pod["metadata"]["deletionTimestamp"] = json!(at(NOW).to_string());
            }
            put(&POD, pod);
            if let Some(called) = called {
                calls.pods.insert(Key::new("n", &name), rate(*called));
            }
        }
        if let Some(called) = service {
            calls.services.insert(Key::new("n", "web"), rate(called));
        }
        Self { view, calls }
    }

    fn facts<'a>(&'a self, replicas: i64, usage: &'a Usage) -> Facts<'a> {
        Facts {
            namespace: "n",
            replicas,
            observed: replicas,
            pods: self.view.list::<Pod>().cloned().collect(),
            usage,
            calls: Some(&self.calls),
            view: &self.view,
            tolerances: Tolerances { down: 0.1, up: 0.1 },
            now: at(NOW),
        }
    }

    fn by_pods(&self, replicas: i64, metric: Value) -> Result<(i64, String), String> {
        let source: PodsMetricSource = serde_json::from_value(metric).unwrap();
        let answer = of_pods(&source, &self.facts(replicas, &Usage::new()));
        let shown = |answer: Answer| {
            let current = answer.status.pods.unwrap().current.average_value;
            (answer.replicas, current.unwrap().0)
        };
        answer.map(shown).map_err(|fault| fault.message)
    }

    fn by_object(&self, replicas: i64, metric: &Value) -> Result<(i64, String), Fault> {
        let source: ObjectMetricSource = serde_json::from_value(metric.clone()).unwrap();
        let answer = of_object(&source, &self.facts(replicas, &Usage::new()))?;
        let current = answer.status.object.unwrap().current;
        let shown = current.value.or(current.average_value).unwrap().0;
        Ok((answer.replicas, shown))
    }
}

fn pods_metric(name: &str, average: &str) -> Value {
    json!({"metric": {"name": name}, "target": {"type": "AverageValue", "averageValue": average}})
}

fn object_metric(kind: &str, target: Value) -> Value {
    json!({
        "describedObject": {"apiVersion": "v1", "kind": kind, "name": "web"},
        "metric": {"name": "requests-per-second"}, "target": target,
    })
}

fn value(value: &str) -> Value {
    object_metric("Service", json!({"type": "Value", "value": value}))
}

fn share(value: &str) -> Value {
    let target = json!({"type": "AverageValue", "averageValue": value});
    object_metric("Service", target)
}

#[test]
fn pods_have_as_many_calls_as_they_are_to_have() {
    let ready = |called| ("ready", Some(called));
    let unread = ("ready", None);
    for (pods, wanted, expected) in [
        (vec![ready(100), ready(100)], "50", (4, "100")),
        (vec![ready(100), ready(40)], "70", (2, "70")),
        // Within the tolerance.
        (vec![ready(54), ready(54)], "50", (2, "54")),
        (vec![ready(56), ready(56)], "50", (3, "56")),
        (vec![ready(0), ready(0)], "50", (0, "0")),
        (vec![ready(1)], "1500m", (1, "1")),
        // What ends neither counts nor is missed.
        (
            vec![ready(100), ("deleted", Some(900)), ("Failed", None)],
            "50",
            (2, "100"),
        ),
        // Of whom nothing is known is idle where it would grow, and as busy as it is to be where it would shrink.
        (vec![ready(200), unread], "50", (4, "200")),
        (vec![ready(0), unread], "50", (1, "0")),
        // Who does not run yet has no calls where it would grow, and is no reason to shrink less.
        (vec![ready(200), ("Pending", None)], "50", (4, "200")),
        (vec![ready(10), ("Pending", None)], "50", (1, "10")),
        // When a pod became ready matters for the CPU only.
        (vec![ready(50), ("not ready", Some(50))], "50", (2, "50")),
    ] {
        let current = pods.len() as i64;
        let found = Target::new(&pods, None);
        let found = found.by_pods(current, pods_metric("requests-per-second", wanted));
        let expected = (expected.0, expected.1.to_owned());
        assert_eq!(found, Ok(expected), "{pods:?} {wanted}");
    }
    let target = Target::new(&[ready(1)], None);
    for (metric, shown) in [
        ("requests-in-flight", "1m"),
        ("request-latency-p95-milliseconds", "2m"),
    ] {
        let found = target.by_pods(1, pods_metric(metric, "1m")).unwrap();
        assert_eq!(found.1, shown, "{metric}");
    }
}

#[test]
fn what_is_not_counted_of_pods_is_said() {
    let target = Target::new(&[("ready", None)], None);
    assert_eq!(
        target.by_pods(1, pods_metric("requests-per-second", "1")),
        Err(
            "unable to get metric requests-per-second: no metrics returned from custom metrics API"
                .to_owned()
        )
    );
    let why = target.by_pods(1, pods_metric("packets", "1")).unwrap_err();
    assert_eq!(
        why,
        "unable to get metric packets: unable to fetch metrics from custom metrics API: the server could not find the metric packets for pods *: there are requests-per-second, requests-in-flight, request-latency-p95-milliseconds"
    );
    let mut selected = pods_metric("requests-per-second", "1");
    selected["metric"]["selector"] = json!({"matchLabels": {"verb": "GET"}});
    assert!(target.by_pods(1, selected).is_err());
}

#[test]
fn a_service_has_as_many_calls_as_it_is_to_have() {
    let ready = ("ready", None);
    for (pods, replicas, called, metric, expected) in [
        (vec![ready; 2], 2, Some(100), value("50"), (4, "100")),
        (vec![ready; 2], 2, Some(54), value("50"), (2, "54")),
        (vec![ready; 4], 4, Some(10), value("50"), (1, "10")),
        // Of those that are ready, the factor is.
        (
            vec![ready, ("not ready", None), ("Pending", None)],
            3,
            Some(200),
            value("50"),
            (4, "200"),
        ),
        // Nobody calls it: zero, and from there by the number itself.
        (vec![ready; 2], 2, None, value("50"), (0, "0")),
        (vec![], 0, None, value("50"), (0, "0")),
        (vec![], 0, Some(1), value("50"), (1, "1")),
        (vec![], 0, Some(120), value("50"), (3, "120")),
        // By the share of each.
        (vec![ready; 2], 2, Some(100), share("25"), (4, "50")),
        (vec![ready; 2], 2, Some(54), share("25"), (2, "27")),
        (vec![ready; 3], 3, Some(10), share("25"), (1, "3334m")),
        (vec![ready; 2], 2, None, share("25"), (0, "0")),
        (vec![], 0, Some(100), share("25"), (4, "100")),
        (vec![], 0, None, share("25"), (0, "0")),
    ] {
        let target = Target::new(&pods, called);
        let found = target.by_object(replicas, &metric);
        let expected = (expected.0, expected.1.to_owned());
        assert_eq!(found, Ok(expected), "{pods:?} {called:?} {metric}");
    }
}

#[test]
fn what_is_not_counted_of_objects_is_said() {
    let target = Target::new(&[], None);
    let fault = |metric: &Value| target.by_object(1, metric).unwrap_err();
    let ingress = object_metric("Ingress", json!({"type": "Value", "value": "1"}));
    let mut gone = value("1");
    gone["describedObject"]["name"] = json!("gone");
    let told: Vec<String> = [ingress, gone, value("1")]
        .iter()
        .map(|metric| fault(metric).message)
        .collect();
    assert_eq!(
        told,
        [
            "unable to get metric requests-per-second on Ingress n/web: unable to fetch metrics from custom metrics API: the server could not find the metric requests-per-second for Ingress web: there are metrics of objects for Services of apiVersion v1",
            "unable to get metric requests-per-second on Service n/gone: unable to fetch metrics from custom metrics API: the server could not find the metric requests-per-second for services gone",
            "unable to calculate ready pods: no pods returned by selector while calculating replica count",
        ]
    );
    assert_eq!(fault(&value("1")).reason, "FailedGetObjectMetric");
    let none = Target {
        view: Target::new(&[], None).view,
        calls: Calls {
            pods: BTreeMap::new(),
            ..Calls::default()
        },
    };
    let fault = none.by_object(1, &share("1")).unwrap_err();
    assert_eq!(
        fault.told,
        "failed to get object metric value: failed to get requests-per-second object metric: unable to get metric requests-per-second on Service n/web: unable to fetch metrics from custom metrics API: no metrics returned from custom metrics API"
    );
}
