//! Other amounts of CPU and memory for containers that run (`pods/resize`), as functions.
//!
//! ```text
//! spec ──decide──► allocated ──due──► in place: Workload::resize ──applied──► actual
//!        │                     └────► by a restart, where the container's resizePolicy says so
//!        └──► pending: Deferred, as others have what it asks for; Infeasible, as the node never has so much
//! ```
//!
//! What a pod is given is remembered by its status (`allocatedResources`, `resources`), which a node that starts again takes up
//! ([`Resize::adopt`]): the node counts on no more than it said.
//!
//! Invariants: a container is prepared and measured by what is allocated, never by what is asked for; a pod's share of the node grows only
//! by [`Resize::decide`]; a condition is there as long as what it says. No clock and no I/O: time is handed in.
//!
//! Left to others: when it is asked (`execute`), what a kernel would call it (`cgroup`), whether a request is sound (the API).

use crate::pod_view::PodView;
use crate::wanted::Role;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Pod, PodCondition, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use weft_api::Quantity;

/// How often a pod looks again whether there is room for what it waits for.
pub(crate) const AGAIN_AFTER: Duration = Duration::from_secs(3);

/// The conditions that say where a resize stands.
pub(crate) const PENDING: &str = "PodResizePending";
pub(crate) const IN_PROGRESS: &str = "PodResizeInProgress";

/// What a pod's containers request together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) cpu_millis: u64,
    pub(crate) memory_bytes: u64,
}

impl Request {
    /// Of a pod, by Kubernetes' rule: its containers and sidecars together, or its neediest init container beside the sidecars before it.
    pub(crate) fn of(pod: &Pod) -> Self {
        let (mut sidecars, mut start, mut sum) =
            (Self::default(), Self::default(), Self::default());
        for (container, role) in PodView(pod).containers() {
            let own = Self::of_container(&container);
            match role {
                Role::Init => start = start.max(sidecars.plus(own)),
                Role::Sidecar => {
                    sidecars = sidecars.plus(own);
                    start = start.max(sidecars);
                }
                Role::Main => sum = sum.plus(own),
                Role::Ephemeral => {}
            }
        }
        sum.plus(sidecars).max(start)
    }

    fn of_container(container: &Container) -> Self {
        let resources = container.resources.as_ref();
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        let amount = |name: &str| {
            let text = requests.and_then(|requests| requests.get(name));
            text.and_then(|text| Quantity::parse(&text.0).ok())
        };
        let clamp = |amount: i128| u64::try_from(amount.max(0)).unwrap_or(u64::MAX);
        Self {
            cpu_millis: amount("cpu").map_or(0, |cpu| clamp(cpu.milli())),
            memory_bytes: amount("memory").map_or(0, |memory| clamp(memory.value())),
        }
    }

    pub(crate) fn plus(self, more: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(more.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(more.memory_bytes),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
        }
    }
}

/// What a node has, and what its other pods were given of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) capacity: Request,
    pub(crate) used: Request,
}

/// What the pods of this node were given, by uid.
#[derive(Debug, Default)]
pub(crate) struct Shares(Mutex<BTreeMap<Arc<str>, Request>>);

impl Shares {
    pub(crate) fn set(&self, uid: &Arc<str>, request: Request) {
        self.0.lock().insert(uid.clone(), request);
    }

    /// The pod is over.
    pub(crate) fn remove(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// What there is for the pod, of a node that has `capacity`.
    pub(crate) fn room(&self, uid: &str, capacity: Request) -> Room {
        let shares = self.0.lock();
        let others = shares.iter().filter(|(other, _)| &***other != uid);
        let used = others.fold(Request::default(), |sum, (_, share)| sum.plus(*share));
        Room { capacity, used }
    }
}

/// What came of asking for other amounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decided {
    /// Nothing is asked for, or it is known already that there is no room.
    Nothing,
    /// The pod has what it asks for from now on.
    Allocated,
    /// It has to wait.
    Deferred,
    /// It waits in vain.
    Infeasible,
}

/// How a container comes to what it was given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    InPlace(ResourceRequirements),
    Restart,
}

/// Why something is not done yet.
#[derive(Clone, Debug, PartialEq)]
struct Standing {
    reason: &'static str,
    message: String,
    generation: i64,
    since: Timestamp,
}

impl Standing {
    fn condition(&self, kind: &str) -> PodCondition {
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        PodCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: said(self.reason),
            message: said(&self.message),
            last_transition_time: Some(Time(self.since)),
            last_probe_time: None,
            observed_generation: Some(self.generation),
        }
    }
}

/// Amounts by container: of one or two, so that a list is smaller than a tree and found as fast.
#[derive(Clone, Debug, Default, PartialEq)]
struct ByContainer(Vec<(String, ResourceRequirements)>);

impl ByContainer {
    fn get(&self, container: &str) -> Option<&ResourceRequirements> {
        let mut all = self.0.iter();
        Some(&all.find(|(name, _)| name == container)?.1)
    }

    fn get_mut(&mut self, container: &str) -> Option<&mut ResourceRequirements> {
        let mut all = self.0.iter_mut();
        Some(&mut all.find(|(name, _)| name == container)?.1)
    }

    fn set(&mut self, container: &str, amounts: ResourceRequirements) {
        match self.get_mut(container) {
            Some(before) => *before = amounts,
            None => {
                self.0.reserve_exact(1);
                self.0.push((container.to_owned(), amounts));
            }
        }
    }

    fn remove(&mut self, container: &str) {
        self.0.retain(|(name, _)| name != container);
    }
}

impl FromIterator<(String, ResourceRequirements)> for ByContainer {
    fn from_iter<I: IntoIterator<Item = (String, ResourceRequirements)>>(all: I) -> Self {
        // Only as long as it has to be.
        let all: Box<[_]> = all.into_iter().collect();
        Self(all.into_vec())
    }
}

/// Where the amounts of one pod stand. See the module's promise.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Resize {
    /// What each was given.
    allocated: ByContainer,
    /// What the run of each has.
    actual: ByContainer,
    pending: Option<Standing>,
    in_progress: Option<Standing>,
}

impl Resize {
    /// Of a pod that is new here, or that an earlier process of this node told of.
    pub(crate) fn adopt(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let init = status.and_then(|status| status.init_container_statuses.as_ref());
        let main = status.and_then(|status| status.container_statuses.as_ref());
        let told: Vec<&ContainerStatus> = init.into_iter().chain(main).flatten().collect();
        let containers = resizable(pod);
        let allocated = containers.map(|container| {
            let told = told.iter().find(|told| told.name == container.name);
            let before = told.and_then(|told| {
                let has = told.resources.as_ref()?;
                Some(ResourceRequirements {
                    claims: own(&container).claims,
                    limits: has.limits.clone(),
                    requests: told.allocated_resources.clone().or(has.requests.clone()),
                })
            });
            let amounts = before.map_or_else(|| own(&container), plain);
            (container.name.clone(), amounts)
        });
        Self {
            allocated: allocated.collect(),
            ..Self::default()
        }
    }

    /// The pod with what it was given in the place of what it asks for.
    pub(crate) fn given(&self, pod: Arc<Pod>) -> Arc<Pod> {
        if !self.differs(&pod) {
            return pod;
        }
        let mut given = pod.as_ref().clone();
        if let Some(spec) = &mut given.spec {
            let init = spec.init_containers.iter_mut().flatten();
            for container in init.chain(&mut spec.containers) {
                if let Some(allocated) = self.allocated.get(&container.name) {
                    container.resources = Some(allocated.clone());
                }
            }
        }
        Arc::new(given)
    }

    fn differs(&self, asked: &Pod) -> bool {
        let mut containers = resizable(asked);
        containers.any(|container| {
            let allocated = self.allocated.get(&container.name);
            allocated.is_some_and(|allocated| *allocated != own(&container))
        })
    }

    /// Gives the pod what it asks for, if there is `room`.
    pub(crate) fn decide(&mut self, asked: &Pod, room: Room, now: Timestamp) -> Decided {
        if !self.differs(asked) {
            self.pending = None;
            return Decided::Nothing;
        }
        let generation = asked.metadata.generation.unwrap_or_default();
        let wish = Request::of(asked);
        let Some((reason, message)) = lack(wish, room) else {
            self.allocated = resizable(asked)
                .map(|container| (container.name.clone(), own(&container)))
                .collect();
            self.pending = None;
            self.in_progress = Some(Standing {
                reason: "",
                message: String::new(),
                generation,
                since: now,
            });
            return Decided::Allocated;
        };
        let before = self.pending.as_ref();
        let same = |before: &&Standing| before.reason == reason;
        let is_known =
            before.is_some_and(|before| same(&before) && before.generation == generation);
        self.pending = Some(Standing {
            reason,
            message,
            generation,
            since: before.filter(same).map_or(now, |before| before.since),
        });
        match reason {
            _ if is_known => Decided::Nothing,
            INFEASIBLE => Decided::Infeasible,
            _ => Decided::Deferred,
        }
    }

    /// Whether there may be room later.
    pub(crate) fn waits(&self) -> bool {
        let pending = self.pending.as_ref();
        pending.is_some_and(|pending| pending.reason == DEFERRED)
    }

    /// What there is not enough of.
    pub(crate) fn lacks(&self) -> Option<&str> {
        Some(self.pending.as_ref()?.message.as_str())
    }

    /// The message of what could not be done, if anything could not.
    pub(crate) fn failure(&self) -> Option<&str> {
        let standing = self.in_progress.as_ref()?;
        (!standing.message.is_empty()).then_some(standing.message.as_str())
    }

    /// A run of the container began, as `container` said when it got ready.
    pub(crate) fn started(&mut self, container: &Container) {
        if self.allocated.get(&container.name).is_some() {
            self.actual.set(&container.name, own(container));
        }
    }

    /// The run is over.
    pub(crate) fn ended(&mut self, container: &str) {
        self.actual.remove(container);
    }

    /// What the run of a container that was given other amounts has to come to.
    pub(crate) fn due(&self, container: &Container) -> Option<Change> {
        let allocated = self.allocated.get(&container.name)?;
        let actual = self.actual.get(&container.name)?;
        if allocated == actual {
            return None;
        }
        let is_other = |resource: &str| {
            let of = |amounts: &ResourceRequirements| {
                let at = |map: &Option<BTreeMap<_, _>>| map.as_ref()?.get(resource).cloned();
                (at(&amounts.limits), at(&amounts.requests))
            };
            of(allocated) != of(actual)
        };
        let mut policies = container.resize_policy.iter().flatten();
        let restarts = policies.any(|policy| {
            policy.restart_policy == "RestartContainer" && is_other(&policy.resource_name)
        });
        Some(match restarts {
            true => Change::Restart,
            false => Change::InPlace(allocated.clone()),
        })
    }

    /// The run of a container has `amounts` now, or could not get them.
    pub(crate) fn applied(
        &mut self,
        container: &str,
        amounts: ResourceRequirements,
        result: Result<(), String>,
    ) {
        match (result, self.actual.get_mut(container)) {
            (Ok(()), Some(actual)) => *actual = amounts,
            (Ok(()), None) => {}
            (Err(message), _) => {
                if let Some(standing) = &mut self.in_progress {
                    standing.reason = "Error";
                    standing.message = message;
                }
            }
        }
    }

    /// Whether this ends it: each run has what it was given.
    pub(crate) fn settle(&mut self) -> bool {
        let mut runs = self.actual.0.iter();
        let is_done = runs.all(|(name, actual)| self.allocated.get(name) == Some(actual));
        is_done && self.in_progress.take().is_some()
    }

    /// What a status says of a container.
    pub(crate) fn tell(&self, container: &str, status: &mut ContainerStatus) {
        let Some(allocated) = self.allocated.get(container) else {
            return;
        };
        status.allocated_resources.clone_from(&allocated.requests);
        let actual = self.actual.get(container).unwrap_or(allocated);
        status.resources = Some(actual.clone());
    }

    /// The conditions that say where it stands.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = PodCondition> {
        let all = [(PENDING, &self.pending), (IN_PROGRESS, &self.in_progress)];
        all.into_iter()
            .filter_map(|(kind, standing)| Some(standing.as_ref()?.condition(kind)))
    }
}

const DEFERRED: &str = "Deferred";
const INFEASIBLE: &str = "Infeasible";

/// What there is not enough of, and whether there will ever be.
fn lack(wish: Request, room: Room) -> Option<(&'static str, String)> {
    let of = |request: Request| {
        [
            ("cpu", request.cpu_millis),
            ("memory", request.memory_bytes),
        ]
    };
    let amounts = || {
        let all = of(wish).into_iter().zip(of(room.capacity));
        all.zip(of(room.used)).map(|((wish, capacity), used)| {
            let (name, requested) = wish;
            (name, requested, capacity.1, used.1)
        })
    };
    for (name, requested, capacity, _) in amounts() {
        if requested > capacity {
            let words = format!(
                "Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}"
            );
            return Some((INFEASIBLE, words));
        }
    }
    for (name, requested, capacity, used) in amounts() {
        if requested.saturating_add(used) > capacity {
            let words = format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            );
            return Some((DEFERRED, words));
        }
    }
    None
}

/// The containers whose amounts can change.
fn resizable(pod: &Pod) -> impl Iterator<Item = std::borrow::Cow<'_, Container>> {
    let all = PodView(pod).containers().into_iter();
    all.filter(|(_, role)| *role != Role::Ephemeral)
        .map(|(container, _)| container)
}

fn own(container: &Container) -> ResourceRequirements {
    plain(container.resources.clone().unwrap_or_default())
}

/// Without lists in which nothing is: they say the same as none.
fn plain(mut amounts: ResourceRequirements) -> ResourceRequirements {
    for map in [&mut amounts.limits, &mut amounts.requests] {
        if map.as_ref().is_some_and(BTreeMap::is_empty) {
            *map = None;
        }
    }
    amounts
}

/// What events of a resize tell.
#[derive(Serialize)]
struct Summary {
    #[serde(rename = "initContainers", skip_serializing_if = "Vec::is_empty")]
    init: Vec<Amounts>,
    containers: Vec<Amounts>,
    generation: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: String,
}

#[derive(Serialize)]
struct Amounts {
    name: String,
    resources: ResourceRequirements,
}

/// The amounts by container as one line of JSON, in the kubelet's order.
pub(crate) fn summary(pod: &Pod, error: &str) -> String {
    let spec = pod.spec.as_ref();
    let list = |containers: Option<&Vec<Container>>| {
        let all = containers.into_iter().flatten();
        all.map(|container| Amounts {
            name: container.name.clone(),
            resources: own(container),
        })
        .collect()
    };
    let summary = Summary {
        init: list(spec.and_then(|spec| spec.init_containers.as_ref())),
        containers: list(spec.map(|spec| &spec.containers)),
        generation: pod.metadata.generation.unwrap_or_default(),
        error: error.to_owned(),
    };
    // Plain data with names as keys is always representable.
    serde_json::to_string(&summary).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("in range")
    }

    fn pod(generation: i64, cpu: &str, policy: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "generation": generation},
            "spec": {
                "initContainers": [{"name": "first", "resources": {"requests": {"cpu": "100m"}}}],
                "containers": [
                    {"name": "web", "resizePolicy": policy, "resources": {"requests": {"cpu": cpu}, "limits": {"memory": "64Mi"}}},
                    {"name": "log", "resources": {"requests": {"cpu": "50m", "memory": "1Mi"}}},
                ],
            },
        }))
        .expect("a pod")
    }

    fn room(cpu: u64, used: u64) -> Room {
        let request = |cpu_millis| Request {
            cpu_millis,
            memory_bytes: 1 << 30,
        };
        Room {
            capacity: request(cpu),
            used: Request {
                memory_bytes: 0,
                ..request(used)
            },
        }
    }

    fn container(pod: &Pod) -> &Container {
        &pod.spec.as_ref().expect("a spec").containers[0]
    }

    fn conditions(resize: &Resize) -> Vec<String> {
        let all = resize.conditions();
        all.map(|one| {
            let text = |text: Option<String>| text.unwrap_or_default();
            format!(
                "{} {} {:?} {}",
                one.type_,
                text(one.reason),
                one.observed_generation,
                text(one.message)
            )
        })
        .collect()
    }

    #[test]
    fn a_pod_asks_for_what_runs_at_once() {
        let asked = Request::of(&pod(1, "200m", json!([])));
        let expected = Request {
            cpu_millis: 250,
            memory_bytes: 1 << 20,
        };
        assert_eq!(asked, expected);
        assert_eq!(Request::of(&pod(1, "10m", json!([]))).cpu_millis, 100);
    }

    #[test]
    fn what_fits_is_given_and_is_in_progress_until_runs_have_it() {
        let mut resize = Resize::adopt(&pod(1, "100m", json!([])));
        let before = pod(1, "100m", json!([]));
        resize.started(container(&before));
        let asked = Arc::new(pod(2, "200m", json!([])));
        assert_eq!(
            container(&resize.given(asked.clone())),
            container(&pod(1, "100m", json!([])))
        );
        let decided = resize.decide(&asked, room(1000, 700), at(0));
        assert_eq!(decided, Decided::Allocated);
        assert_eq!(conditions(&resize), ["PodResizeInProgress  Some(2) "]);
        let Some(Change::InPlace(amounts)) = resize.due(container(&asked)) else {
            panic!("something is due");
        };
        assert!(!resize.settle());
        let mut status = ContainerStatus::default();
        resize.tell("web", &mut status);
        let cpu = |map: &Option<BTreeMap<String, _>>| {
            format!("{:?}", map.as_ref().expect("amounts")["cpu"])
        };
        assert!(cpu(&status.allocated_resources).contains("200m"));
        assert!(cpu(&status.resources.as_ref().expect("told").requests).contains("100m"));
        resize.applied("web", amounts.clone(), Err("no".into()));
        assert_eq!(
            conditions(&resize),
            ["PodResizeInProgress Error Some(2) no"]
        );
        assert_eq!(resize.failure(), Some("no"));
        resize.applied("web", amounts, Ok(()));
        assert!(resize.settle() && resize.due(container(&asked)).is_none());
        assert_eq!(conditions(&resize), [""; 0]);
        assert_eq!(
            resize.decide(&asked, room(1000, 700), at(1)),
            Decided::Nothing
        );
    }

    #[test]
    fn what_does_not_fit_waits_or_waits_in_vain() {
        let mut resize = Resize::adopt(&pod(1, "100m", json!([])));
        let asked = pod(2, "200m", json!([]));
        let full = room(1000, 800);
        assert_eq!(resize.decide(&asked, full, at(0)), Decided::Deferred);
        assert_eq!(
            resize.decide(&asked, full, at(5)),
            Decided::Nothing,
            "known"
        );
        assert!(resize.waits());
        assert_eq!(
            conditions(&resize),
            [
                "PodResizePending Deferred Some(2) Node didn't have enough resource: cpu, requested: 250, used: 800, capacity: 1000"
            ]
        );
        let more = pod(3, "1", json!([]));
        assert_eq!(resize.decide(&more, full, at(6)), Decided::Infeasible);
        assert!(!resize.waits());
        assert_eq!(
            conditions(&resize),
            [
                "PodResizePending Infeasible Some(3) Node didn't have enough capacity: cpu, requested: 1050, capacity: 1000"
            ]
        );
        // Back to what it has.
        assert_eq!(
            resize.decide(&pod(4, "100m", json!([])), full, at(7)),
            Decided::Nothing
        );
        assert_eq!(conditions(&resize), [""; 0]);
    }

    #[test]
    fn a_container_is_restarted_only_for_what_its_policy_names() {
        let policy = |resource: &str| json!([{"resourceName": resource, "restartPolicy": "RestartContainer"}]);
        for (resource, restarts) in [("cpu", true), ("memory", false)] {
            let before = pod(1, "100m", policy(resource));
            let mut resize = Resize::adopt(&before);
            resize.started(container(&before));
            let asked = pod(2, "200m", policy(resource));
            resize.decide(&asked, room(1000, 0), at(0));
            let due = resize.due(container(&asked));
            assert_eq!(due == Some(Change::Restart), restarts, "{resource}");
            resize.ended("web");
            assert!(resize.settle(), "nothing runs that has less");
        }
    }

    #[test]
    fn a_node_that_starts_again_gives_what_it_had_given() {
        let mut asked = pod(2, "200m", json!([]));
        let status = json!({"containerStatuses": [{
            "name": "web", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResources": {"cpu": "100m"}, "resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "64Mi"}},
        }]});
        asked.status = serde_json::from_value(status).expect("a status");
        let resize = Resize::adopt(&asked);
        let given = resize.given(Arc::new(asked));
        assert_eq!(container(&given), container(&pod(1, "100m", json!([]))));
    }

    #[test]
    fn events_tell_the_amounts_as_a_kubelets() {
        assert_eq!(
            summary(&pod(2, "1", json!([])), "no"),
            r#"{"initContainers":[{"name":"first","resources":{"requests":{"cpu":"100m"}}}],"containers":[{"name":"web","resources":{"limits":{"memory":"64Mi"},"requests":{"cpu":"1"}}},{"name":"log","resources":{"requests":{"cpu":"50m","memory":"1Mi"}}}],"generation":2,"error":"no"}"#
        );
    }
}
