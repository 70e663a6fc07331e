//! `weft why`: what each node has against a pod, and what an autoscaler has against another size.
//!
//! Asks the cluster for what placement knows (nodes, pods, namespaces, services), and runs placement's own rules on it here. So it
//! tells of now, of pods that run as of those that wait, and costs the server four lists.

mod autoscaler;

use std::fmt::Write as _;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use kube::api::{Api, ListParams};
use weft_scheduler::{NodeFacts, PodFacts, Snapshot};

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
    let services = Api::<Service>::all(client)
        .list(&everything)
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
    stdout::text(&explain(&mut snapshot, &pod, shown))?;
    Ok(())
}

/// What is told of a pod; it must not be among those of the snapshot.
fn explain(snapshot: &mut Snapshot, pod: &Pod, shown: usize) -> String {
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
    let pending = PodFacts {
        node: None,
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
        insta::assert_snapshot!(explain(&mut snapshot.clone(), &pod("2", "a"), 9), @r"
        web is on a. If it had to be placed again:
        1 of 3 nodes would take it
          c: would take it
          a: Insufficient cpu: 2000m requested, 1000m of 1000m free
          b: node(s) had untolerated taint(s): gpu=yes:NoSchedule
        ");
        insta::assert_snapshot!(explain(&mut snapshot, &pod("8", ""), 1), @r"
        web has no node.
        0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.
          a: Insufficient cpu: 8000m requested, 1000m of 1000m free
          and 2 more: see them with --all-nodes
        ");
    }
}
