//! Rollouts in a world where everything goes wrong: users bring out one template after the other, some of which fail calls, take them back,
//! pause and promote them; and callers, as a model of the mesh: so many a second, led as the routes say, counted as nodes count them.
//!
//! Invariants, after every change: a route leads nobody to a revision that the status says was rolled back; the revision that is served is not
//! left by its pods for another that has not taken its place. In the end each is promoted or rolled back, with all calls led to the one
//! that is served, and no pod left of any other.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weft_controllers::Key;
use weft_controllers::usage::Counted;
use weft_kinds::{ROLLOUT, SERVICE};

use super::chance::Chance;
use super::cluster::Cluster;
use super::deeds::template;
use super::record::{Doer, Record, name_of, number, text};

const NAMES: [&str; 3] = ["front", "cart", "pay"];
/// Of the last one, one call in four fails.
const IMAGES: [&str; 4] = ["x:1", "x:2", "x:3", BAD];
const BAD: &str = "x:bad";
/// Calls of each Service, each second.
const CALLS: u64 = 40;
/// Pauses between two seconds' calls, and between two readings of what was counted, in milliseconds.
const SECOND: i64 = 1_000;
const READING: i64 = 5_000;
/// How long a world with Rollouts goes wrong, in milliseconds.
pub const STORM: i64 = 300_000;

/// The label that a revision is known by.
const HASH: &str = "pod-template-hash";
const PATIENCE_SECONDS: i64 = 90;

/// Users and callers, and what was seen of the ways of revisions.
#[derive(Default)]
pub struct Rollouts {
    next_calls: i64,
    next_reading: i64,
    totals: BTreeMap<Key, Counted>,
    /// By Rollout: revision, steps done and phase, as they were last seen.
    seen: BTreeMap<String, (String, i64, String)>,
    pub steps: u64,
    pub promoted: u64,
    pub rolled_back: u64,
}

impl Rollouts {
    /// What is there before anything goes wrong.
    pub fn begin(&mut self, cluster: &mut Cluster) {
        cluster.define_gateway_api();
        for (at, name) in NAMES.iter().enumerate() {
            let service = json!({
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
            });
            cluster.create(&SERVICE, service).unwrap();
            let strategy = match at {
                0 => json!({"canary": {"steps": [
                    {"setWeight": 10}, {"analysis": {"rounds": 1}}, {"setWeight": 40},
                    {"pause": {"durationSeconds": 3}}, {"setWeight": 80}, {"analysis": {"rounds": 1}}]}}),
                1 => json!({"blueGreen": {"autoPromotionSeconds": 8}}),
                _ => json!({"ab": {"headers": [{"name": "x-try", "value": "yes"}], "rounds": 2}}),
            };
            let mut pods = template(name, "x:1", "100m", "");
            pods["metadata"]["labels"]["app"] = json!(name);
            let rollout = json!({
                "metadata": {"name": name, "namespace": "default"},
                "spec": {
                    "replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": pods,
                    "progressDeadlineSeconds": PATIENCE_SECONDS, "scaleDownDelaySeconds": 4,
                    "traffic": {"service": name},
                    "analysis": {"intervalSeconds": 10, "minRequests": 20, "successPercent": 95},
                    "strategy": strategy,
                },
            });
            cluster.create(&ROLLOUT, rollout).unwrap();
        }
    }

    /// Draws a deed and does it.
    pub fn act(&mut self, cluster: &mut Cluster, chance: &mut Chance) {
        let name = *chance.one_of(&NAMES).unwrap();
        let key = Key::new("default", name);
        let Some(rollout) = cluster.record.get("Rollout", &key) else {
            return;
        };
        let revision = text(rollout, "/status/currentRevision").to_owned();
        let paused = rollout["spec"]["paused"] == true;
        let body = match chance.below(12) {
            0..=6 => {
                let image = *chance.one_of(&IMAGES).unwrap();
                json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image,
                    "resources": {"requests": {"cpu": "100m"}}}]}}}})
            }
            7 => json!({"spec": {"paused": !paused}}),
            8 if !revision.is_empty() => json!({"spec": {"promote": {"revision": revision}}}),
            9 if !revision.is_empty() => json!({"spec": {"abort": {"revision": revision}}}),
            10 => json!({"spec": {"retry": chance.within(1, 1_000).to_string(), "abort": null}}),
            _ => json!({"spec": {"replicas": chance.within(1, 4)}}),
        };
        let came = cluster.patch(&ROLLOUT, &key, &body);
        let came = came.map_or_else(|error| format!(" … {}", error.message), |()| String::new());
        cluster.tell(&format!("a user patches Rollout {name} {body}{came}"));
    }

    /// Users leave nothing that waits for them.
    pub fn finish(cluster: &mut Cluster) {
        for name in NAMES {
            let body = json!({"spec": {"paused": false}});
            let _ = cluster.patch(&ROLLOUT, &Key::new("default", name), &body);
        }
    }

    /// When calls come next.
    pub fn next_due(&self) -> i64 {
        self.next_calls
    }

    /// The calls of a second, once it is over; and what is seen of the Rollouts by then.
    pub fn serve(&mut self, cluster: &mut Cluster) {
        let now = cluster.millis();
        if now < self.next_calls {
            return;
        }
        self.next_calls = now + SECOND;
        for name in NAMES {
            let route = cluster.record.get("HTTPRoute", &Key::new("default", name));
            let Some(route) = route else { continue };
            let led = shares(route);
            for (service, share) in led {
                let calls = CALLS * share / 100;
                let failed = match behind(&cluster.record, &service) {
                    Behind::Nobody => calls,
                    Behind::Good => 0,
                    Behind::Bad => calls.div_ceil(4),
                };
                let total = self.totals.entry(Key::new("default", &service));
                let total = total.or_insert_with(|| Counted {
                    since: 1,
                    ..Counted::default()
                });
                total.begun += calls;
                total.failed += failed;
            }
        }
        if now >= self.next_reading {
            self.next_reading = now + READING;
            cluster.calls.totals.clone_from(&self.totals);
            cluster.calls.read = Some(cluster.now());
        }
        self.look(&cluster.record);
    }

    fn look(&mut self, record: &Record) {
        for (key, rollout) in record.all("Rollout") {
            let now = (
                text(rollout, "/status/currentRevision").to_owned(),
                number(rollout, "/status/step"),
                text(rollout, "/status/phase").to_owned(),
            );
            let before = self.seen.insert(key.to_string(), now.clone());
            let Some((revision, step, phase)) = before else {
                continue;
            };
            if revision == now.0 {
                self.steps += u64::try_from((now.1 - step).max(0)).unwrap();
            }
            if phase != now.2 || revision != now.0 {
                self.promoted += u64::from(now.2 == "Healthy");
                self.rolled_back += u64::from(now.2 == "RolledBack");
            }
        }
    }

    /// Whether each is promoted or rolled back, and nothing is left between.
    ///
    /// # Errors
    /// Which is not.
    pub fn ended(record: &Record) -> Result<(), String> {
        for (key, rollout) in record.all("Rollout") {
            let phase = text(rollout, "/status/phase");
            if !matches!(phase, "Healthy" | "RolledBack") {
                return Err(format!(
                    "Rollout {key} is {phase}: {}",
                    text(rollout, "/status/message")
                ));
            }
            let stable = text(rollout, "/status/stableRevision");
            let service = format!("{}-{stable}", key.name);
            let route = record.get("HTTPRoute", key);
            let led = route.map(shares).unwrap_or_default();
            if led != [(service, 100)] {
                return Err(format!(
                    "Rollout {key} is {phase}, and calls are led {led:?}"
                ));
            }
            let size = number(rollout, "/spec/replicas");
            for set in record.sets_of(super::record::uid_of(rollout)) {
                let is_stable = set["metadata"]["labels"][HASH] == *stable;
                let wanted = if is_stable { size } else { 0 };
                let there = number(set, "/status/availableReplicas");
                let all = number(set, "/status/replicas");
                if there != wanted || all != wanted {
                    let name = name_of(set);
                    return Err(format!(
                        "ReplicaSet {name} has {there} and {all} of {wanted}"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Judges a change of a route or of a set of a Rollout's.
///
/// # Errors
/// Which rule it breaks.
pub fn judge(
    record: &Record,
    doer: Doer,
    kind: &str,
    before: Option<&Value>,
    after: Option<&Value>,
) -> Result<(), String> {
    let Some(after) = after.filter(|_| matches!(doer, Doer::Controller(_))) else {
        return Ok(());
    };
    let owner = super::record::controller(after).and_then(|uid| record.by_uid(uid));
    let Some(rollout) = owner.filter(|owner| text(owner, "/kind") == "Rollout") else {
        return Ok(());
    };
    let stable = text(rollout, "/status/stableRevision");
    match kind {
        "HTTPRoute" => {
            let back = text(rollout, "/status/rolledBackRevision");
            let back = format!("{}-{back}", name_of(rollout));
            let is_led = shares(after)
                .iter()
                .any(|(to, share)| *to == back && *share > 0);
            match is_led && back != format!("{}-{stable}", name_of(rollout)) {
                true => Err(format!("nobody is led to what was rolled back: {back}")),
                false => Ok(()),
            }
        }
        "ReplicaSet" if after["metadata"]["labels"][HASH] == *stable => {
            let size = number(after, "/spec/replicas");
            let shrinks = before.is_some_and(|before| number(before, "/spec/replicas") > size);
            // Whoever decides may have heard of another size that was asked for.
            match shrinks && size == 0 {
                true => Err(format!("what is served keeps its pods: {}", name_of(after))),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Where calls that are not marked go, of a hundred; and those that are, as if one in ten were.
fn shares(route: &Value) -> Vec<(String, u64)> {
    let empty = Vec::new();
    let rules = route["spec"]["rules"].as_array().unwrap_or(&empty);
    let mut led: BTreeMap<String, u64> = BTreeMap::new();
    for rule in rules {
        let is_marked = !rule["matches"][0]["headers"].is_null();
        let calls = match (is_marked, rules.len()) {
            (true, _) => 10,
            (false, 1) => 100,
            (false, _) => 90,
        };
        let backends = rule["backendRefs"].as_array().unwrap_or(&empty);
        let weight = |backend: &Value| backend["weight"].as_u64().unwrap_or(1);
        let sum: u64 = backends.iter().map(weight).sum();
        for backend in backends.iter().filter(|backend| weight(backend) > 0) {
            let name = text(backend, "/name").to_owned();
            *led.entry(name).or_default() += calls * weight(backend) / sum;
        }
    }
    led.into_iter().collect()
}

enum Behind {
    Nobody,
    Good,
    Bad,
}

/// Who answers for a Service.
fn behind(record: &Record, service: &str) -> Behind {
    let slices = record
        .all("EndpointSlice")
        .filter(|(_, slice)| slice["metadata"]["labels"]["kubernetes.io/service-name"] == *service);
    let endpoints =
        slices.flat_map(|(_, slice)| slice["endpoints"].as_array().into_iter().flatten());
    let mut serving = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    let Some(first) = serving.next() else {
        return Behind::Nobody;
    };
    let pod = Key::new("default", text(first, "/targetRef/name"));
    let pod = record.get("Pod", &pod);
    match pod.map(|pod| text(pod, "/spec/containers/0/image")) {
        Some(BAD) => Behind::Bad,
        _ => Behind::Good,
    }
}
