//! Istio's DestinationRule: subsets as Services, and what it says of all calls as a MeshPolicy.

use serde_json::{Value, json};

use super::mapped::{Mapped, Services, duration, items, service_of, subset_name};
use crate::metadata::Key;

/// Services for its subsets: the pods of the host's Service that bear their labels.
pub fn destination_rule(key: &Key, spec: &Value, services: &Services<'_>) -> Mapped {
    let mut mapped = Mapped::default();
    mapped.lose_others(
        spec,
        "spec",
        &["host", "subsets", "exportTo", "trafficPolicy"],
    );
    let host = spec["host"].as_str().unwrap_or_default();
    let service = service_of(host, &key.namespace);
    let Some(service) = service.filter(|service| service.namespace == key.namespace) else {
        mapped.lost.push(format!(
            "spec.host ({host} is no Service of this namespace)"
        ));
        return mapped;
    };
    let Some((selector, ports)) = services.selecting(&service) else {
        mapped
            .lost
            .push(format!("spec.host (Service {service} is not there)"));
        return mapped;
    };
    for (at, subset) in items(spec, "subsets").iter().enumerate() {
        let at = format!("spec.subsets[{at}]");
        mapped.lose_others(subset, &at, &["name", "labels"]);
        let mut labels = selector.clone();
        let own = subset["labels"].as_object().into_iter().flatten();
        labels.extend(
            own.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))),
        );
        let name = subset_name(&service.name, subset["name"].as_str().unwrap_or_default());
        mapped
            .services
            .insert(name, json!({"selector": labels, "ports": ports}));
    }
    let names = mapped.services.keys().cloned();
    let names: Vec<String> = std::iter::once(service.name.to_string())
        .chain(names)
        .collect();
    if let Some(mut policy) = policy(&spec["trafficPolicy"], &mut mapped) {
        let targets = names
            .iter()
            .map(|name| json!({"group": "", "kind": "Service", "name": name}));
        policy["targetRefs"] = json!(targets.collect::<Vec<_>>());
        mapped.policies.insert(key.name.to_string(), policy);
    }
    mapped
}

/// What is said of all calls, as a MeshPolicy says it: how many at once, and whom to leave alone for its answers. Calls are counted at each
/// endpoint, and not at each caller.
fn policy(traffic: &Value, mapped: &mut Mapped) -> Option<Value> {
    const AT: &str = "spec.trafficPolicy";
    mapped.lose_others(traffic, AT, &["connectionPool", "outlierDetection"]);
    let mut policy = json!({});
    let pool = &traffic["connectionPool"];
    let (tcp, http) = (&pool["tcp"], &pool["http"]);
    mapped.lose_others(
        tcp,
        &format!("{AT}.connectionPool.tcp"),
        &["maxConnections"],
    );
    let known = ["http1MaxPendingRequests", "http2MaxRequests"];
    mapped.lose_others(http, &format!("{AT}.connectionPool.http"), &known);
    let most = [&tcp["maxConnections"], &http["http2MaxRequests"]];
    let most = most
        .into_iter()
        .filter_map(Value::as_i64)
        .filter(|most| *most > 0);
    if let Some(most) = most.min() {
        let waiting = http["http1MaxPendingRequests"]
            .as_i64()
            .unwrap_or(WAITING_USUAL);
        policy["concurrency"] = json!({"min": most, "max": most, "queue": waiting});
    } else if !http["http1MaxPendingRequests"].is_null() {
        mapped
            .lost
            .push(format!("{AT}.connectionPool.http.http1MaxPendingRequests"));
    }
    let outliers = &traffic["outlierDetection"];
    if outliers.is_object() {
        policy["circuitBreaker"] = breaker(outliers, &format!("{AT}.outlierDetection"), mapped);
    }
    (policy != json!({})).then_some(policy)
}

/// Calls that wait where nobody says how many.
const WAITING_USUAL: i64 = 100;
/// Failures in a row, the first time alone, and how many of them: Istio's.
const FAILURES_USUAL: i64 = 5;
const ALONE_USUAL: &str = "30s";
const ALONE_MAX: &str = "5m";
const SHARE_USUAL: i64 = 10;

fn breaker(outliers: &Value, at: &str, mapped: &mut Mapped) -> Value {
    let known = [
        "consecutive5xxErrors",
        "consecutiveGatewayErrors",
        "consecutiveErrors",
        "interval",
        "baseEjectionTime",
        "maxEjectionPercent",
    ];
    mapped.lose_others(outliers, at, &known);
    let failures = known[..3]
        .iter()
        .filter_map(|name| outliers[*name].as_i64());
    let mut time = |name: &str, usual: &str| match outliers[name].as_str() {
        None => usual.to_owned(),
        Some(said) => duration(said).unwrap_or_else(|| {
            mapped.lost.push(format!("{at}.{name}"));
            usual.to_owned()
        }),
    };
    let alone = time("baseEjectionTime", ALONE_USUAL);
    let share = outliers["maxEjectionPercent"]
        .as_i64()
        .unwrap_or(SHARE_USUAL);
    json!({
        "consecutiveFailures": failures.min().filter(|most| *most > 0).unwrap_or(FAILURES_USUAL),
        "successPercent": 0,
        "interval": time("interval", "10s"),
        "ejection": alone,
        "maxEjection": match minutes(&alone) > minutes(ALONE_MAX) {
            true => alone.clone(),
            false => ALONE_MAX.to_owned(),
        },
        "maxEjectedPercent": share.clamp(0, 100),
    })
}

/// Whole minutes of a duration as [`duration`] writes it.
fn minutes(text: &str) -> u64 {
    let number = |text: &str| text.parse::<u64>().unwrap_or(0);
    match text.split_once('s') {
        Some((seconds, _)) if !seconds.ends_with('m') => number(seconds) / 60,
        _ => text.strip_suffix('m').map_or(0, number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::mapped::cluster_of;

    #[test]
    fn what_is_said_of_all_calls_is_a_policy() {
        let cluster = cluster_of(&["reviews", "ratings"], 9080);
        let services = Services {
            view: &cluster.view,
        };
        let spec = json!({"host": "ratings", "subsets": [{"name": "v1", "labels": {"version": "v1"}}],
            "trafficPolicy": {
                "connectionPool": {"tcp": {"maxConnections": 1}, "http": {"http1MaxPendingRequests": 1, "maxRequestsPerConnection": 1}},
                "outlierDetection": {"consecutive5xxErrors": 1, "interval": "1s", "baseEjectionTime": "3m", "maxEjectionPercent": 100}}});
        let found = destination_rule(&Key::new("d", "ratings"), &spec, &services);
        assert_eq!(
            found.lost,
            ["spec.trafficPolicy.connectionPool.http.maxRequestsPerConnection"]
        );
        let target = |name: &str| json!({"group": "", "kind": "Service", "name": name});
        assert_eq!(
            found.policies["ratings"],
            json!({
                "targetRefs": [target("ratings"), target("ratings-v1")],
                "concurrency": {"min": 1, "max": 1, "queue": 1},
                "circuitBreaker": {"consecutiveFailures": 1, "successPercent": 0, "interval": "1s",
                    "ejection": "180s", "maxEjection": "5m", "maxEjectedPercent": 100},
            })
        );
        for (text, expected) in [
            ("180s", 3),
            ("5m", 5),
            ("30s", 0),
            ("1s500ms", 0),
            ("500ms", 0),
        ] {
            assert_eq!(minutes(text), expected, "{text}");
        }
    }

    #[test]
    fn subsets_are_services() {
        let cluster = cluster_of(&["reviews", "ratings"], 9080);
        let services = Services {
            view: &cluster.view,
        };
        let spec = json!({"host": "reviews", "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}},
            "subsets": [{"name": "v1", "labels": {"version": "v1"}}]});
        let found = destination_rule(&Key::new("d", "reviews"), &spec, &services);
        assert_eq!(found.lost, ["spec.trafficPolicy.loadBalancer"]);
        assert!(found.policies.is_empty());
        let service = &found.services["reviews-v1"];
        assert_eq!(
            service["selector"],
            json!({"app": "reviews", "version": "v1"})
        );
        assert_eq!(service["ports"][0]["port"], 9080);
    }
}
