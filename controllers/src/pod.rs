//! What controllers read of a pod, and the ways they find pods.
//!
//! Pods are what a cluster has most of, so their lens is not the published type but [`Pod`]: the dozen facts that some
//! controller decides on. It reads nothing else, so nothing else can make a pod unreadable.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use weft_api::hash::fnv1a_64_seeded;
use weft_api::object::{Object, ObjectError};
use weft_api::view::Toleration;
use weft_kinds::Kind;
use weft_kinds::lens::{items, object};

use crate::autoscaler::Requests;
use crate::claim::controller_or_namespace;
use crate::indexer::{Cached, Index, Lens};
use crate::job::End;
use crate::view::View;

/// The facts of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod {
    /// The node it is bound to, or `""`.
    pub node: Box<str>,
    pub phase: Phase,
    /// `status.podIP`, or `""`.
    pub address: Box<str>,
    /// Its `Ready` condition holds.
    pub is_ready: bool,
    /// Since when that is as it is.
    pub ready_changed: Option<Timestamp>,
    /// When its node began with it.
    pub started: Option<Timestamp>,
    /// The most that one of its containers was started again.
    pub restarts: i32,
    /// How often all of its containers were started again, those that prepare it with them.
    pub all_restarts: i32,
    /// How it ended, of a pod that ended or is being deleted, as long as its Job has not counted it.
    pub end: Option<Box<End>>,
    /// Since when it is to be disrupted, by somebody else than its node.
    pub disrupted_since: Option<Timestamp>,
    /// Tells apart what its node gives its containers and what they ask for, while that is not the same; else 0.
    pub given: u64,
    /// The one node that its affinity leaves it, by name; `""`: it may go to others.
    pub pinned_to: Box<str>,
    pub template: Arc<Template>,
}

/// Facts that pods of one template have in common: kept once where pods like each other follow on each other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Template {
    /// Empty for `default`.
    pub service_account: String,
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    /// Those that concern NoExecute.
    pub tolerations: Vec<Toleration>,
    /// Ports with a name of containers that stay.
    pub ports: Vec<NamedPort>,
    pub requests: Requests,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedPort {
    #[serde(default)]
    pub name: String,
    #[serde(default = "tcp")]
    pub protocol: String,
    pub container_port: i32,
}

fn tcp() -> String {
    "TCP".to_owned()
}

/// `status.phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Also of a pod that does not say.
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
    Unknown,
}

impl Pod {
    /// Ran to its end; it will not run again.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// It runs or may yet run: it has not ended and is not told to.
    pub fn is_active(pod: &Cached<Self>) -> bool {
        !pod.body.is_finished() && !pod.meta.is_deleting()
    }

    /// Since when it is ready.
    pub fn ready_since(&self) -> Option<Timestamp> {
        self.ready_changed.filter(|_| self.is_ready)
    }
}

impl Lens for Pod {
    fn kind() -> &'static Arc<Kind> {
        &weft_kinds::POD
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let shape: Shape = object.view()?;
        let (spec, status) = (shape.spec, shape.status);
        let restarts = |container: &ContainerStatus| container.restart_count;
        let mains = status.container_statuses.iter().map(restarts);
        let inits = status.init_container_statuses.iter().map(restarts);
        let disrupted = status.conditions.iter().find(|c| {
            c.type_ == "DisruptionTarget"
                && c.status == "True"
                && c.reason.as_deref() != Some("TerminationByKubelet")
        });
        let disrupted_since = disrupted.and_then(|c| c.last_transition_time);
        let ready = status.conditions.into_iter().find(|c| c.type_ == "Ready");
        let stays = |container: &Container| container.restart_policy.as_deref() == Some("Always");
        let sidecars = spec.init_containers.into_iter().filter(stays);
        let ports = spec.containers.into_iter().chain(sidecars);
        let ports = ports.flat_map(|container| container.ports);
        let concerns = |toleration: &Toleration| {
            let effect = toleration.effect.as_deref().unwrap_or_default();
            effect.is_empty() || effect == "NoExecute"
        };
        let account = spec.service_account_name.unwrap_or_default();
        let template = Template {
            service_account: if account == "default" {
                String::new()
            } else {
                account
            },
            hostname: spec.hostname,
            subdomain: spec.subdomain.filter(|name| !name.is_empty()),
            tolerations: spec.tolerations.into_iter().filter(concerns).collect(),
            ports: ports.filter(|port| !port.name.is_empty()).collect(),
            requests: Requests::of(object.as_value()),
        };
        Ok(Self {
            node: spec.node_name.unwrap_or_default(),
            phase: match status.phase.as_deref() {
                None | Some("" | "Pending") => Phase::Pending,
                Some("Running") => Phase::Running,
                Some("Succeeded") => Phase::Succeeded,
                Some("Failed") => Phase::Failed,
                Some(_) => Phase::Unknown,
            },
            address: status.pod_ip.unwrap_or_default(),
            is_ready: ready.as_ref().is_some_and(|c| c.status == "True"),
            ready_changed: ready.and_then(|c| c.last_transition_time),
            started: status.start_time,
            restarts: mains.clone().max().unwrap_or(0),
            all_restarts: mains.chain(inits).fold(0, i32::saturating_add),
            end: End::of(object.as_value()).map(Box::new),
            disrupted_since,
            given: given(object.as_value()),
            pinned_to: spec.affinity.only_node().unwrap_or_default(),
            template: Arc::new(template),
        })
    }

    fn share(&mut self, like: &Self) {
        if self.template == like.template {
            self.template = Arc::clone(&like.template);
        }
    }
}

/// A mark of the amounts that containers were given or have, where those are not what the pod asks for: as long as it is being resized.
fn given(pod: &Value) -> u64 {
    let mut mark = 0;
    for (containers, statuses) in [
        ("/spec/containers", "/status/containerStatuses"),
        ("/spec/initContainers", "/status/initContainerStatuses"),
    ] {
        for status in items(pod, statuses) {
            let Some(has) = object(status, "/resources") else {
                continue;
            };
            let mut all = items(pod, containers).iter();
            let container = all.find(|container| container["name"] == status["name"]);
            let asked = container.and_then(|container| object(container, "/resources/requests"));
            let has = has.get("requests").and_then(Value::as_object);
            let allocated = object(status, "/allocatedResources");
            let nothing = serde_json::Map::new();
            let [asked, has, allocated] =
                [asked, has, allocated].map(|amounts| amounts.unwrap_or(&nothing));
            if has != asked || allocated != asked {
                let text = format!("{} {has:?} {allocated:?} ", status["name"]);
                mark = fnv1a_64_seeded(mark, text.bytes());
            }
        }
    }
    let mut conditions = items(pod, "/status/conditions").iter();
    let is_infeasible =
        conditions.any(|one| one["type"] == "PodResizePending" && one["reason"] == "Infeasible");
    match is_infeasible {
        true => fnv1a_64_seeded(mark, *b"infeasible"),
        false => mark,
    }
}

/// The part of the published type that is read. Lists and members may be `null`, as Go writes them.
#[derive(Deserialize)]
struct Shape {
    #[serde(default, deserialize_with = "or_default")]
    spec: Spec,
    #[serde(default, deserialize_with = "or_default")]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<Box<str>>,
    service_account_name: Option<String>,
    hostname: Option<String>,
    subdomain: Option<String>,
    #[serde(deserialize_with = "or_default")]
    tolerations: Vec<Toleration>,
    #[serde(deserialize_with = "or_default")]
    containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    init_containers: Vec<Container>,
    #[serde(deserialize_with = "or_default")]
    affinity: Affinity,
}

/// Of an affinity, what DaemonSets write: one node by its name.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Affinity {
    #[serde(deserialize_with = "or_default")]
    node_affinity: NodeAffinity,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeAffinity {
    #[serde(deserialize_with = "or_default")]
    required_during_scheduling_ignored_during_execution: NodeSelector,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSelector {
    #[serde(deserialize_with = "or_default")]
    node_selector_terms: Vec<NodeTerm>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeTerm {
    #[serde(deserialize_with = "or_default")]
    match_fields: Vec<NodeField>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeField {
    key: Option<String>,
    operator: Option<String>,
    #[serde(deserialize_with = "or_default")]
    values: Vec<Box<str>>,
}

impl Affinity {
    /// The name that each of its terms asks for.
    fn only_node(self) -> Option<Box<str>> {
        let required = self
            .node_affinity
            .required_during_scheduling_ignored_during_execution;
        let mut names = required.node_selector_terms.into_iter().map(|term| {
            let mut fields = term.match_fields.into_iter().filter(|field| {
                field.key.as_deref() == Some("metadata.name")
                    && field.operator.as_deref() == Some("In")
                    && field.values.len() == 1
            });
            fields
                .next()
                .and_then(|field| field.values.into_iter().next())
        });
        let first = names.next()??;
        names
            .all(|name| name.as_deref() == Some(&*first))
            .then_some(first)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    restart_policy: Option<String>,
    #[serde(deserialize_with = "or_default")]
    ports: Vec<NamedPort>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<Box<str>>,
    start_time: Option<Timestamp>,
    #[serde(deserialize_with = "or_default")]
    conditions: Vec<Condition>,
    #[serde(deserialize_with = "or_default")]
    container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "or_default")]
    init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    #[serde(default)]
    reason: Option<String>,
    last_transition_time: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    restart_count: i32,
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Pods by the node they are bound to; `""`: bound nowhere.
pub static BY_NODE: Index<Pod> = Index {
    name: "node",
    of: |pod| pod.body.node.to_string(),
};

/// Pods by their controller, see [`controller_or_namespace`].
pub static BY_CONTROLLER: Index<Pod> = Index {
    name: "controller",
    of: controller_or_namespace,
};

/// Pods bound to a node, in order; the empty name means bound nowhere.
pub fn on_node<'a>(
    view: &'a View,
    node: &str,
) -> impl Iterator<Item = &'a Arc<Cached<Pod>>> + use<'a> {
    view.list_by(&BY_NODE, node)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Result<Pod, ObjectError> {
        Pod::read(&Object::from_value(value).unwrap())
    }

    #[test]
    fn only_what_is_read_can_make_a_pod_unreadable() {
        let bare = read(json!({"metadata": {"name": "a"}, "spec": {"containers": [{}]}})).unwrap();
        assert_eq!((bare.phase, bare.is_ready), (Phase::Pending, false));
        let sparse = json!({"spec": {"nodeName": null, "tolerations": null, "priority": "high",
            "containers": [{"name": 7, "ports": null}]}, "status": null});
        assert_eq!(read(sparse).unwrap(), bare);
        for spec in [
            json!({"nodeName": 7}),
            json!({"tolerations": "all"}),
            json!({"containers": [{"ports": [{"name": "http", "containerPort": "80"}]}]}),
        ] {
            let refused = read(json!({ "spec": spec }));
            assert!(matches!(refused, Err(ObjectError::View(_))), "{spec}");
        }
    }

    #[test]
    fn the_facts_of_a_running_pod() {
        let pod = read(json!({
            "spec": {
                "nodeName": "n0", "serviceAccountName": "default", "subdomain": "",
                "tolerations": [{"key": "a", "operator": "Exists"},
                    {"key": "b", "operator": "Exists", "effect": "NoSchedule"}],
                "containers": [{"ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81}]}],
                "initContainers": [
                    {"restartPolicy": "Always", "ports": [{"name": "metrics", "containerPort": 9, "protocol": "UDP"}]},
                    {"ports": [{"name": "gone", "containerPort": 8}]}],
            },
            "status": {
                "phase": "Running", "podIP": "10.128.0.2",
                "conditions": [{"type": "PodScheduled", "status": "True"},
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "containerStatuses": [{"restartCount": 1}, {"restartCount": 3}],
            },
        }))
        .unwrap();
        assert_eq!(
            (&*pod.node, &*pod.address, pod.restarts),
            ("n0", "10.128.0.2", 3)
        );
        assert_eq!(
            pod.ready_since(),
            Some("2026-01-01T00:00:00Z".parse().unwrap())
        );
        assert_eq!(pod.template.service_account, "");
        let ports: Vec<(&str, &str, i32)> = pod
            .template
            .ports
            .iter()
            .map(|port| (&*port.name, &*port.protocol, port.container_port))
            .collect();
        assert_eq!(ports, [("http", "TCP", 80), ("metrics", "UDP", 9)]);
        let tolerated = pod.template.tolerations.iter();
        let tolerated: Vec<_> = tolerated.map(|t| t.key.as_deref()).collect();
        assert_eq!(tolerated, [Some("a")]);
        assert_eq!(pod.template.subdomain, None);
    }
}
