//! `weft why`: what each node has against a pod, and what an autoscaler has against another size.
//!
//! Asks the cluster for what placement knows (nodes, pods, namespaces, services, and what the pod's claims are bound to), and runs
//! placement's own rules on it here. So it tells of now, of pods that run as of those that wait, and costs the server four lists.

mod autoscaler;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use weft_scheduler::{
    ClaimFacts, NodeFacts, PodFacts, Snapshot, Storage, VolumeFacts, VolumeNeeds, Why,
};

use crate::kubeconfig::{ClientArgs, api_failure};
use crate::stdout;

/// Nodes that are told of one by one, unless all are asked for.
const NODES_SHOWN_MAX: usize = 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the pod, as web-1 or pod/web-1; or an autoscaler, as hpa/web
    #[arg(value_name = "POD")]
    pod: String,
    /// In this namespace [default: the one of the kubeconfig]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Tell of all nodes, however many there are
    #[arg(long)]
    all_nodes: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// # Errors
/// When the pod is not there, or the server does not answer.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.client.client().await?;
    let name = args
        .pod
        .trim_start_matches("pods/")
        .trim_start_matches("pod/");
    let namespace = args
        .namespace
        .as_deref()
        .unwrap_or(client.default_namespace());
    let kinds = [
        "hpa/",
        "horizontalpodautoscaler/",
        "horizontalpodautoscalers/",
    ];
    if let Some(name) = kinds.iter().find_map(|kind| name.strip_prefix(kind)) {
        let all: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), namespace);
        let failed =
            |error: kube::Error| api_failure(format!("cannot read autoscaler {name}"), &error);
        let found = all.get(name).await.map_err(failed)?;
        stdout::text(&autoscaler::explain(&found))?;
        return Ok(());
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let failed = |error: kube::Error| api_failure(format!("cannot read pod {name}"), &error);
    let pod = pods.get(name).await.map_err(failed)?;
    let failed = |error: kube::Error| api_failure("cannot read the cluster", &error);
    let everything = ListParams::default();
    let nodes = Api::<Node>::all(client.clone())
        .list(&everything)
        .await
        .map_err(failed)?;
    let pods = Api::<Pod>::all(client.clone())
        .list(&everything)
        .await
        .map_err(failed)?;
    let namespaces = Api::<Namespace>::all(client.clone())
        .list(&everything)
        .await
        .map_err(failed)?;
    let services = Api::<Service>::all(client.clone())
        .list(&everything)
        .await
        .map_err(failed)?;
    let stored = Stored::read(&client, namespace, &pod)
        .await
        .map_err(failed)?;
    let mut snapshot = Snapshot::new(0);
    for node in &nodes.items {
        snapshot.put_node(NodeFacts::of(node));
    }
    for namespace in &namespaces.items {
        snapshot.put_namespace(namespace);
    }
    for service in &services.items {
        snapshot.put_service(service);
    }
    for other in &pods.items {
        let facts = PodFacts::of(other);
        let phase = other
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let is_finished = matches!(phase, Some("Succeeded" | "Failed"));
        if is_finished || other.metadata.uid == pod.metadata.uid {
            continue;
        }
        if let (None, Some(node)) = (&facts.node, &facts.nominated) {
            snapshot.nominate(&facts, node);
        }
        snapshot.put_pod(facts);
    }
    let shown = if args.all_nodes {
        usize::MAX
    } else {
        NODES_SHOWN_MAX
    };
    stdout::text(&explain(&mut snapshot, &pod, &stored, shown))?;
    Ok(())
}

/// Names of the claims of a pod, each with whether it brings it along.
fn claims(pod: &Pod) -> impl Iterator<Item = (String, bool)> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(move |volume| match &volume.persistent_volume_claim {
        Some(claim) => Some((claim.claim_name.clone(), false)),
        None => {
            let is_brought = volume.ephemeral.is_some();
            is_brought.then(|| (format!("{name}-{}", volume.name), true))
        }
    })
}

/// What there is of a pod's claims.
#[derive(Default)]
struct Stored {
    /// What is asked for, and whether it is being deleted.
    claims: BTreeMap<String, (Value, bool)>,
    volumes: BTreeMap<String, (Value, BTreeMap<String, String>)>,
    /// Classes whose volumes are made where a pod goes.
    waiting: BTreeSet<String>,
}

impl Stored {
    /// Cost: two or three requests for each claim.
    async fn read(client: &kube::Client, namespace: &str, pod: &Pod) -> kube::Result<Self> {
        let all: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
        let mut stored = Self::default();
        for (name, _) in claims(pod) {
            let Some(claim) = all.get_opt(&name).await? else {
                continue;
            };
            let spec = claim.spec.unwrap_or_default();
            if let Some(name) = &spec.volume_name {
                let volumes = Api::<PersistentVolume>::all(client.clone());
                if let Some(volume) = volumes.get_opt(name).await? {
                    let labels = volume.metadata.labels.unwrap_or_default();
                    let volume = (json!(volume.spec), labels);
                    stored.volumes.insert(name.clone(), volume);
                }
            } else if let Some(name) = &spec.storage_class_name {
                let classes = Api::<StorageClass>::all(client.clone());
                let class = classes.get_opt(name).await?;
                let mode = class.and_then(|class| class.volume_binding_mode);
                if mode.as_deref() == Some("WaitForFirstConsumer") {
                    stored.waiting.insert(name.clone());
                }
            }
            let is_deleting = claim.metadata.deletion_timestamp.is_some();
            stored.claims.insert(name, (json!(spec), is_deleting));
        }
        Ok(stored)
    }
}

impl Storage for Stored {
    fn claim(&self, name: &str) -> Option<ClaimFacts<'_>> {
        let (spec, is_deleting) = self.claims.get(name)?;
        Some(ClaimFacts {
            spec,
            is_deleting: *is_deleting,
        })
    }

    fn volume(&self, name: &str) -> Option<VolumeFacts<'_>> {
        let (spec, labels) = self.volumes.get(name)?;
        Some(VolumeFacts { spec, labels })
    }

    fn waits(&self, class: &str) -> bool {
        self.waiting.contains(class)
    }
}

/// What is told of a pod; it must not be among those of the snapshot.
fn explain(snapshot: &mut Snapshot, pod: &Pod, stored: &Stored, shown: usize) -> String {
    let facts = PodFacts::of(pod);
    let mut text = match &facts.node {
        Some(node) => format!(
            "{} is on {node}. If it had to be placed again:\n",
            facts.name
        ),
        None => format!("{} has no node.\n", facts.name),
    };
    let gates = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.scheduling_gates.as_ref());
    for gate in gates.into_iter().flatten() {
        let _ = writeln!(
            text,
            "nobody looks for one while its scheduling gate {} is there",
            gate.name
        );
    }
    let claims: Vec<(String, bool)> = claims(pod).collect();
    let named = claims.iter();
    let named = named.map(|(name, is_brought)| (name.as_str(), *is_brought));
    let volumes = match VolumeNeeds::of(named, stored) {
        Ok(volumes) => volumes,
        Err(why) => {
            let why = Why::held(snapshot.len(), &why, facts.yields);
            let _ = writeln!(text, "{why}");
            return text;
        }
    };
    let pending = PodFacts {
        node: None,
        needs: facts.needs.with_volumes(volumes).into(),
        ..facts
    };
    let explained = snapshot.explain(&pending);
    // Those that would take it first: then what stands against the others.
    let (open, closed): (Vec<_>, Vec<_>) = explained
        .into_iter()
        .partition(|(_, reasons)| reasons.is_empty());
    let count = open.len() + closed.len();
    if open.is_empty() {
        let refusals = snapshot.plan([&pending]).refusals;
        let told = refusals
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        let _ = writeln!(text, "{told}");
    } else {
        let _ = writeln!(text, "{} of {count} nodes would take it", open.len());
    }
    let lines = open
        .iter()
        .map(|(node, _)| format!("  {node}: would take it"));
    let closed = closed.iter().map(|(node, reasons)| {
        let reasons: Vec<String> = reasons
            .iter()
            .map(weft_scheduler::Reason::in_detail)
            .collect();
        format!("  {node}: {}", reasons.join(", "))
    });
    for line in lines.chain(closed).take(shown) {
        let _ = writeln!(text, "{line}");
    }
    if count > shown {
        let _ = writeln!(
            text,
            "  and {} more: see them with --all-nodes",
            count - shown
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_node_says_what_it_has_against_the_pod() {
        let mut snapshot = Snapshot::new(0);
        for (name, cpu, taints) in [
            ("a", "1", json!([])),
            (
                "b",
                "4",
                json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]),
            ),
            ("c", "4", json!([])),
        ] {
            let node = json!({"metadata": {"name": name}, "spec": {"taints": taints}, "status": {"allocatable": {"cpu": cpu}}});
            snapshot.put_node(NodeFacts::of(&serde_json::from_value(node).unwrap()));
        }
        let pod = |cpu: &str, node: &str| -> Pod {
            let spec = json!({"nodeName": node, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
            serde_json::from_value(json!({"metadata": {"name": "web", "uid": "1"}, "spec": spec}))
                .unwrap()
        };
        let nothing = Stored::default();
        insta::assert_snapshot!(explain(&mut snapshot.clone(), &pod("2", "a"), &nothing, 9), @r"
        web is on a. If it had to be placed again:
        1 of 3 nodes would take it
          c: would take it
          a: Insufficient cpu: 2000m requested, 1000m of 1000m free
          b: node(s) had untolerated taint(s): gpu=yes:NoSchedule
        ");
        insta::assert_snapshot!(explain(&mut snapshot, &pod("8", ""), &nothing, 1), @r"
        web has no node.
        0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
          a: Insufficient cpu: 8000m requested, 1000m of 1000m free
          and 2 more: see them with --all-nodes
        ");
    }

    #[test]
    fn a_pods_volumes_have_their_say() {
        let mut snapshot = Snapshot::new(0);
        for name in ["a", "b"] {
            let node = json!({"metadata": {"name": name, "labels": {"disk": name}}});
            snapshot.put_node(NodeFacts::of(&serde_json::from_value(node).unwrap()));
        }
        let pod = json!({"metadata": {"name": "web", "uid": "1"}, "spec": {"containers": [],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let mut stored = Stored::default();
        insta::assert_snapshot!(explain(&mut snapshot, &pod, &stored, 9), @r#"
        web has no node.
        0/2 nodes are available: persistentvolumeclaim "data" not found. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.
        "#);
        let claim = json!({"volumeName": "pv"});
        stored.claims.insert("data".into(), (claim, false));
        let on_b = json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["b"]}]}]}}});
        stored.volumes.insert("pv".into(), (on_b, BTreeMap::new()));
        insta::assert_snapshot!(explain(&mut snapshot, &pod, &stored, 9), @r"
        web has no node.
        1 of 2 nodes would take it
          b: would take it
          a: node(s) didn't match PersistentVolume's node affinity
        ");
    }
}
