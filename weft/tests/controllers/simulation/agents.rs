//! Nodes, as a model of their agents: what is bound to one starts, serves, fails, ends, and is told of, each in its own time; the node
//! renews its lease. A node that ends takes along what ran on it; one that is cut off runs on, and hears of nothing.
//!
//! A node stops the pods that ask for it when it has not renewed its lease for [`FENCED_AFTER`], and takes them up again once it has.
//!
//! The model keeps a kubelet's promises: a pod's object goes only after the pod does not run any more, each write names the pod's uid,
//! and what others say of the pod stays. It has no images, volumes or probes: the real agent's life of a pod has tests of its own.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weft_api::annotation;
use weft_apiserver::objects::DeleteOptions;
use weft_controllers::Key;
use weft_kinds::{LEASE, NODE, POD};

use super::chance::Chance;
use super::check::RUNS_ONCE;
use super::cluster::Cluster;
use super::faults::Fault;
use super::record::{
    self, Doer, controller, has_condition, is_deleting, is_finished, key_of, text, uid_of,
};

/// Processors and pods of a node.
pub const CPU: &str = "4";
pub const PODS: &str = "24";
/// A lease lasts 8 s, in milliseconds; it is renewed as often as this.
const RENEWAL: i64 = 2_500;
/// As the agent does, in milliseconds: within how long after that it has stopped them, and what its lease says of both, in seconds.
const FENCED_AFTER: i64 = 6_000;
const FENCED_GRACE: i64 = 1_500;
const FENCES_WITHIN: &str = "8";

/// A pod that runs here.
struct Run {
    key: Key,
    /// At most once in the world.
    is_ordered: bool,
    /// It asks to be stopped when its node is cut off.
    asks: bool,
    /// It was, and may run here again.
    is_fenced: bool,
    /// It ends by itself.
    is_job: bool,
    serves_at: i64,
    ends_at: Option<i64>,
    /// How it ended.
    code: Option<i64>,
    /// It was told to end, and has by then.
    stops_at: Option<i64>,
    restarts: i64,
    address: String,
    /// What was said of it last, and when it may be said again.
    told: Option<Value>,
    told_as: Option<(bool, Option<i64>, i64)>,
    tell_at: i64,
}

impl Run {
    fn serves(&self, now: i64) -> bool {
        self.code.is_none() && self.stops_at.is_none() && now >= self.serves_at
    }
}

/// It is to go, and its node has not let it go yet. One that others hold goes when they let go of it.
fn is_asked_to_go(pod: &Value) -> bool {
    is_deleting(pod) && pod["metadata"]["deletionGracePeriodSeconds"] != 0
}

pub struct Agent {
    pub name: String,
    pub is_up: bool,
    pub is_cut: bool,
    /// Until when it takes its time to tell anything.
    pub slow_until: i64,
    runs: BTreeMap<String, Run>,
    renew_at: i64,
    /// When it asked for the last renewal that succeeded.
    renewed: i64,
    /// It stops what asks for it, as its lease says.
    pub keeps_promise: bool,
    addresses: u64,
}

impl Agent {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            is_up: true,
            is_cut: false,
            slow_until: 0,
            runs: BTreeMap::new(),
            renew_at: 0,
            renewed: 0,
            keeps_promise: true,
            addresses: 0,
        }
    }

    /// The node as it joins.
    pub fn register(&mut self, cluster: &mut Cluster) {
        let key = Key::cluster(&self.name);
        if cluster.record.get("Node", &key).is_none() {
            let mut node = crate::manifests::node_object(&self.name);
            node["status"].take();
            let _ = cluster.create(&NODE, node);
        }
        let lease = Key::new("kube-node-lease", &self.name);
        if cluster.record.get("Lease", &lease).is_none() {
            let lease = json!({"metadata": {"name": self.name, "namespace": "kube-node-lease",
                "annotations": {annotation::FENCES_WITHIN: FENCES_WITHIN}}});
            let _ = cluster.create(&LEASE, lease);
        }
        self.report_ready(cluster);
    }

    fn report_ready(&mut self, cluster: &mut Cluster) {
        let now = cluster.now().to_string();
        let status = json!({"status": {
            "capacity": {"cpu": CPU, "pods": PODS, "memory": "8Gi"},
            "allocatable": {"cpu": CPU, "pods": PODS, "memory": "8Gi"},
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastHeartbeatTime": now, "lastTransitionTime": now}],
        }});
        let _ = cluster.report(&NODE, &Key::cluster(&self.name), &status);
    }

    /// The node ends, and all that runs on it.
    pub fn end(&mut self) {
        self.is_up = false;
        self.runs.clear();
    }

    pub fn runs(&self, key: &Key) -> bool {
        let mut runs = self.runs.values();
        runs.any(|run| run.key == *key && run.is_ordered && run.code.is_none())
    }

    /// What has to stop because nobody may know any more that the node lives, whoever's turn it is.
    pub fn fence(&mut self, now: i64, chance: &mut Chance) {
        if !self.is_up || !self.keeps_promise || !self.is_closed(now) {
            return;
        }
        for run in self
            .runs
            .values_mut()
            .filter(|run| run.asks && !run.is_fenced)
        {
            run.is_fenced = true;
            let stops_at = now + chance.within(0, FENCED_GRACE);
            run.stops_at = Some(run.stops_at.map_or(stops_at, |at| at.min(stops_at)));
        }
        self.live(now, chance);
    }

    fn is_closed(&self, now: i64) -> bool {
        now - self.renewed >= FENCED_AFTER
    }

    /// What ran in one of its pods ends.
    pub fn fail_one(&mut self, cluster: &mut Cluster, chance: &mut Chance) {
        let now = cluster.millis();
        let serving: Vec<&mut Run> = self
            .runs
            .values_mut()
            .filter(|run| run.serves_at <= now && run.stops_at.is_none())
            .collect();
        let at = chance.below(serving.len());
        let Some(run) = serving.into_iter().nth(at) else {
            return;
        };
        cluster.tell(&format!("{} fails on {}", run.key, self.name));
        if run.is_job {
            run.ends_at = Some(now);
            run.code = Some(1);
        } else {
            run.restarts += 1;
            run.serves_at = now + chance.within(300, 4_000);
        }
    }

    /// When something is due here without any news, at the latest.
    pub fn next_due(&self) -> Option<i64> {
        if !self.is_up {
            return None;
        }
        let own = self.runs.values().flat_map(|run| {
            let times = [Some(run.serves_at), run.ends_at, run.stops_at];
            times.into_iter().flatten().chain([run.tell_at])
        });
        own.chain([self.renew_at]).min()
    }

    /// One thing that is due. False: nothing is.
    pub fn act(&mut self, cluster: &mut Cluster, chance: &mut Chance, others: &[Agent]) -> bool {
        if !self.is_up {
            return false;
        }
        let now = cluster.millis();
        self.live(now, chance);
        if self.is_cut {
            return false;
        }
        // What was stopped for it is taken up again, and nobody is told that it ended.
        self.runs
            .retain(|_, run| !run.is_fenced || run.code.is_none());
        if now >= self.renew_at {
            self.renew(cluster);
            return true;
        }
        self.forget(cluster);
        let bound = cluster
            .record
            .pods()
            .filter(|pod| record::node_of(pod) == self.name && self.is_due(pod, now));
        let bound: Vec<Value> = bound.cloned().collect();
        let first = chance.below(bound.len());
        let (front, back) = bound.split_at(first.min(bound.len()));
        let mut turns = back.iter().chain(front);
        turns.any(|pod| self.tend(cluster, chance, pod, others))
    }

    /// Whether there may be something to do for a pod.
    fn is_due(&self, pod: &Value, now: i64) -> bool {
        let Some(run) = self.runs.get(uid_of(pod)) else {
            return !is_finished(pod) || is_asked_to_go(pod);
        };
        if is_deleting(pod) && run.stops_at.is_none() {
            return true;
        }
        let serves = run.serves(now);
        let is_news = run.told_as != Some((serves, run.code, run.restarts))
            || has_condition(pod, "Ready", "True") != serves;
        let may_tell = now >= self.slow_until || run.told.is_none();
        now >= run.tell_at && (is_news && may_tell || run.code.is_some() && is_asked_to_go(pod))
    }

    fn renew(&mut self, cluster: &mut Cluster) {
        self.renew_at = cluster.millis() + RENEWAL;
        let node = cluster.record.get("Node", &Key::cluster(&self.name));
        let is_well = node.map(|node| has_condition(node, "Ready", "True"));
        if is_well.is_none() {
            self.register(cluster);
        } else if is_well == Some(false) {
            self.report_ready(cluster);
        }
        let time = cluster.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let lease = Key::new("kube-node-lease", &self.name);
        let renewed = json!({"spec": {"renewTime": time}});
        let asked_at = cluster.millis();
        let came = cluster.patch_part(
            Doer::Node,
            &LEASE,
            &lease,
            None,
            weft_apiserver::objects::Patch::merge(&renewed),
        );
        if came.is_ok() {
            self.renewed = asked_at;
        }
    }

    /// What happens in its pods while time passes.
    fn live(&mut self, now: i64, chance: &mut Chance) {
        for run in self.runs.values_mut() {
            if run.code.is_none() && run.ends_at.is_some_and(|at| at <= now) {
                run.code = Some(i64::from(chance.is(12)));
            }
            if run.stops_at.is_some_and(|at| at <= now) && run.code.is_none() {
                run.code = Some(if run.is_job { 143 } else { 0 });
            }
        }
    }

    /// Pods that are not there any more, or not here, end at once.
    fn forget(&mut self, cluster: &Cluster) {
        let name = &self.name;
        self.runs.retain(|uid, _| {
            let pod = cluster.record.by_uid(uid);
            pod.is_some_and(|pod| record::node_of(pod) == name)
        });
    }

    /// Does for a pod what is due. False: nothing is.
    fn tend(
        &mut self,
        cluster: &mut Cluster,
        chance: &mut Chance,
        pod: &Value,
        others: &[Agent],
    ) -> bool {
        let now = cluster.millis();
        let (uid, key) = (uid_of(pod).to_owned(), key_of(pod));
        let Some(run) = self.runs.get_mut(&uid) else {
            return self.begin(cluster, chance, pod, others);
        };
        if is_deleting(pod) && run.stops_at.is_none() {
            run.stops_at = Some(now + chance.within(0, 2_000));
            return true;
        }
        let status = status_of(cluster, run);
        let is_due = now >= run.tell_at && (now >= self.slow_until || run.told.is_none());
        // While nobody heard of the node, others said of its pods that they are not ready.
        let said = has_condition(pod, "Ready", "True")
            == has_condition(&json!({"status": status}), "Ready", "True");
        if (run.told.as_ref() != Some(&status) || !said) && is_due {
            let body = json!({"metadata": {"uid": uid}, "status": status});
            if cluster.report(&POD, &key, &body).is_ok() {
                run.told = Some(status);
                run.told_as = Some((run.serves(now), run.code, run.restarts));
            }
            run.tell_at = now + 200;
            return true;
        }
        let is_over = run.code.is_some() && run.told.as_ref() == Some(&status);
        if is_over && is_asked_to_go(pod) && now >= run.tell_at {
            run.tell_at = now + 500;
            remove(cluster, &key, &uid);
            return true;
        }
        false
    }

    fn begin(
        &mut self,
        cluster: &mut Cluster,
        chance: &mut Chance,
        pod: &Value,
        others: &[Agent],
    ) -> bool {
        let (uid, key) = (uid_of(pod).to_owned(), key_of(pod));
        let asked = is_asked_to_go(pod);
        let owner = controller(pod).and_then(|uid| cluster.record.by_uid(uid));
        let kind = owner.map(|owner| text(owner, "/kind").to_owned());
        let kind = kind.unwrap_or_default();
        let ran = !text(pod, "/status/startTime").is_empty();
        let is_job = text(pod, "/spec/restartPolicy") == "Never";
        if is_finished(pod) || is_deleting(pod) || (ran && is_job) {
            // It ran here before the node started again, or never did.
            if !is_finished(pod) {
                let status = json!({"metadata": {"uid": uid}, "status": {"phase": "Failed",
                    "conditions": [{"type": "Ready", "status": "False", "reason": "PodFailed",
                        "lastTransitionTime": cluster.now().to_string()}]}});
                return cluster.report(&POD, &key, &status).is_ok();
            }
            if asked {
                remove(cluster, &key, &uid);
            }
            return asked;
        }
        let now = cluster.millis();
        let asks = pod["metadata"]["annotations"][annotation::FENCED] == "true";
        if asks && self.keeps_promise && self.is_closed(now) {
            return false;
        }
        let is_ordered = kind == "StatefulSet";
        if is_ordered {
            let elsewhere = others.iter().find(|other| other.runs(&key));
            let elsewhere = elsewhere.map(|other| other.name.clone());
            cluster.record.judge(RUNS_ONCE, true);
            if let Some(other) = elsewhere {
                let name = &self.name;
                let how = format!(
                    "{RUNS_ONCE}: {} starts on {name}, and runs on {other}",
                    key.name
                );
                cluster.breaks(how);
            }
        }
        self.addresses += 1;
        let number = self.addresses;
        let net = self.name.trim_start_matches('n');
        let run = Run {
            key,
            is_ordered,
            asks,
            is_fenced: false,
            is_job,
            serves_at: now + chance.within(100, 3_000),
            ends_at: is_job.then(|| now + chance.within(1_000, 6_000)),
            code: None,
            stops_at: None,
            restarts: i64::from(ran),
            address: format!("10.4{net}.{}.{}", number / 250, number % 250 + 1),
            told: None,
            told_as: None,
            tell_at: now + chance.within(0, 300),
        };
        self.runs.insert(uid, run);
        true
    }
}

fn remove(cluster: &mut Cluster, key: &Key, uid: &str) {
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        uid: Some(uid.to_owned()),
        ..DeleteOptions::default()
    };
    let _ = cluster.delete(Doer::Node, &POD, key, &options);
}

/// What a node says of a pod.
fn status_of(cluster: &Cluster, run: &Run) -> Value {
    let now = cluster.now();
    let serves = run.serves(cluster.millis());
    let phase = match run.code {
        Some(0) => "Succeeded",
        Some(_) => "Failed",
        None => "Running",
    };
    let ready = if serves { "True" } else { "False" };
    let before = run.told.as_ref();
    let said = |pointer: &str| before.and_then(|told| told.pointer(pointer)).cloned();
    let since = said("/conditions/0/lastTransitionTime")
        .filter(|_| said("/conditions/0/status") == Some(json!(ready)));
    let since = since.unwrap_or_else(|| json!(now.to_string()));
    let started = said("/startTime").unwrap_or_else(|| json!(now.to_string()));
    let state = match run.code {
        Some(code) => {
            let was = said("/containerStatuses/0/state/terminated/finishedAt");
            let finished = was.unwrap_or_else(|| json!(now.to_string()));
            json!({"terminated": {"exitCode": code, "startedAt": started, "finishedAt": finished}})
        }
        None => json!({"running": {"startedAt": started}}),
    };
    json!({
        "phase": phase, "startTime": started, "podIP": run.address, "podIPs": [{"ip": run.address}],
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}],
        "containerStatuses": [{"name": "main", "image": "x:1", "imageID": "", "ready": serves,
            "restartCount": run.restarts, "state": state}],
    })
}

/// What happens to nodes: one is lost, cut off or slow, or comes back.
pub fn strike(agents: &mut [Agent], cluster: &mut Cluster, chance: &mut Chance, fault: Fault) {
    let at = chance.below(agents.len());
    let patience = chance.within(4_000, 25_000);
    let down = agents.iter().filter(|one| !one.is_up || one.is_cut).count();
    let agent = &mut agents[at];
    let is_well = agent.is_up && !agent.is_cut;
    let may_be = match fault {
        Fault::NodeLost | Fault::NodeCut => is_well && down < 2,
        Fault::NodeSlow | Fault::PodFails => true,
        _ => false,
    };
    if !may_be || !cluster.faults.strikes(fault) {
        return;
    }
    match fault {
        Fault::NodeLost => {
            cluster.tell(&format!("node {} is lost", agent.name));
            agent.end();
        }
        Fault::NodeCut => {
            cluster.tell(&format!("node {} is cut off", agent.name));
            agent.is_cut = true;
        }
        Fault::NodeSlow => agent.slow_until = cluster.millis() + patience,
        _ => agent.fail_one(cluster, chance),
    }
}

/// A node that was lost or cut off is there again.
pub fn mend(agent: &mut Agent, cluster: &mut Cluster) {
    if !agent.is_up || agent.is_cut {
        cluster.tell(&format!("node {} is back", agent.name));
    }
    agent.is_up = true;
    agent.is_cut = false;
    agent.slow_until = 0;
    agent.renew_at = 0;
}
