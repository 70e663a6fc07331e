//! Pods, and the pod templates that workloads are made of.

mod admission;
mod columns;
mod defaults;
mod resize;
mod service_account;
mod status;
mod validation;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::status::StatusError;

use crate::apply::Writable;
use crate::field::Field;
use crate::kind::Selectable;
use crate::lens::{fill, integer, items, member, put, text};
use crate::strategy::{Strategy, Surroundings, replace_part, writable_by};
use crate::validate::Problems;
use crate::{Kind, StatusMetadata, Subresource, weft};

pub(crate) use defaults::default_spec;
pub(crate) use validation::{
    container_resource as validate_container_resource, limits as validate_limits, node_selector,
    resources, template as validate_template, tolerations as validate_tolerations,
};

/// Seconds a pod stays bound to a node that is not ready or not reachable, unless it says otherwise. Kubernetes' 300
/// were chosen for containers; a component starts elsewhere in milliseconds, so waiting costs more than moving.
const TOLERATION_SECONDS: i64 = 2;
/// Seconds between the wish to stop a pod and its end, unless it says otherwise, as in Kubernetes.
const GRACE_SECONDS: i64 = 30;

pub static POD: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["po".into()],
        categories: vec!["all".into()],
        subresources: vec![
            Subresource::Status,
            Subresource::Binding,
            Subresource::Eviction,
            Subresource::Log,
            Subresource::Proxy,
            Subresource::Exec,
            Subresource::Attach,
            Subresource::PortForward,
            Subresource::EphemeralContainers,
            Subresource::Resize,
        ],
        columns: columns::columns(),
        selectable: vec![
            Selectable::new("spec.nodeName", "/spec/nodeName"),
            Selectable::new("spec.host", "/spec/nodeName"),
            Selectable::new("spec.restartPolicy", "/spec/restartPolicy"),
            Selectable::new("spec.schedulerName", "/spec/schedulerName"),
            Selectable::new("spec.serviceAccountName", "/spec/serviceAccountName"),
            Selectable::or("spec.hostNetwork", "/spec/hostNetwork", "false"),
            Selectable::new("status.phase", "/status/phase"),
            Selectable::new("status.podIP", "/status/podIP"),
            Selectable::new("status.podIPs", "/status/podIP"),
            Selectable::new("status.nominatedNodeName", "/status/nominatedNodeName"),
        ],
        counts_generations: true,
        // A node that knows less than there is to know must not make a pod garbage.
        status_metadata: StatusMetadata::TakenBut(&["deletionTimestamp", "ownerReferences"]),
        strategy: Arc::new(Pods),
        ..Kind::new("", "v1", "Pod", "pods")
    })
});

struct Pods;

impl Strategy for Pods {
    fn prepare_for_create(&self, _: &Kind, new: &mut Value) {
        put(new, "status", Some(json!({"phase": "Pending"})));
    }

    fn prepare_for_update(
        &self,
        kind: &Kind,
        part: Option<Subresource>,
        proposed: Value,
        old: &Value,
    ) -> Value {
        if part == Some(Subresource::EphemeralContainers) {
            let added = proposed.pointer("/spec/ephemeralContainers").cloned();
            let mut next = old.clone();
            put(member(&mut next, "spec"), "ephemeralContainers", added);
            return next;
        }
        if part == Some(Subresource::Resize) {
            return resize::prepared(&proposed, old);
        }
        let mut next = replace_part(kind, part, proposed, old);
        if part.is_none() {
            admission::keep_priority(&mut next, old);
            tolerate_lost_nodes(member(&mut next, "spec"));
        }
        if part == Some(Subresource::Status) {
            status::complete(member(&mut next, "status"), &old["status"]);
        }
        next
    }

    fn default(&self, value: &mut Value) {
        defaults::pod(value);
    }

    fn admit(&self, new: &mut Value, around: &dyn Surroundings) -> Result<(), StatusError> {
        service_account::take(new, around)?;
        weft::judge_pod(new, around)?;
        admission::take_priority(new, around)?;
        tolerate_lost_nodes(member(new, "spec"));
        admission::take_runtime_class(new, around)
    }

    fn writable(&self, kind: &Kind, part: Option<Subresource>) -> Writable {
        match part {
            Some(Subresource::Resize) => resize::writable(),
            _ => writable_by(kind, part),
        }
    }

    fn images(&self, value: &Value) -> BTreeSet<String> {
        images_of(value, "/spec")
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        validation::created(&Field::root(new), problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        // Binding, status and what is added to look around are judged by rules of their own; a pod's spec is frozen for everyone else.
        match part {
            Some(Subresource::Binding) => {}
            Some(Subresource::EphemeralContainers) => {
                validation::looked_into(&Field::root(new), &Field::root(old), problems);
            }
            Some(Subresource::Resize) => {
                resize::judge(&Field::root(new), &Field::root(old), problems);
            }
            Some(Subresource::Status) => {
                status::judge(&Field::root(new), &Field::root(old), problems);
            }
            _ => validation::updated(&Field::root(new), &Field::root(old), problems),
        }
    }

    fn judge(
        &self,
        new: &Value,
        old: Option<&Value>,
        part: Option<Subresource>,
        around: &dyn Surroundings,
    ) -> Result<(), StatusError> {
        match (part, old) {
            (Some(Subresource::Resize), Some(old)) => resize::fits_its_node(new, old, around),
            _ => Ok(()),
        }
    }

    /// Deletion waits for the node to stop what runs, if anything does.
    fn grace_seconds(&self, old: &Value, asked: Option<i64>) -> Option<i64> {
        let phase = text(old, "/status/phase");
        let nothing_runs =
            text(old, "/spec/nodeName").is_empty() || matches!(phase, "Succeeded" | "Failed");
        let wanted = asked
            .or_else(|| integer(old, "/spec/terminationGracePeriodSeconds"))
            .unwrap_or(GRACE_SECONDS);
        Some(match wanted {
            _ if nothing_runs => 0,
            // Kubernetes reads a negative period as one second.
            wanted if wanted < 0 => 1,
            wanted => wanted,
        })
    }
}

/// The images of a pod, or of a template, whose spec is at a pointer.
pub(crate) fn images_of(value: &Value, spec: &str) -> BTreeSet<String> {
    let lists = ["containers", "initContainers"];
    let containers = lists
        .iter()
        .flat_map(|list| items(value, &format!("{spec}/{list}")));
    let images = containers.map(|container| text(container, "/image"));
    images
        .filter(|image| !image.is_empty())
        .map(str::to_owned)
        .collect()
}

fn tolerate_lost_nodes(spec: &mut Value) {
    for condition in ["not-ready", "unreachable"] {
        let key = format!("node.kubernetes.io/{condition}");
        let covered = items(spec, "/tolerations").iter().any(|toleration| {
            let named = text(toleration, "/key");
            let effect = text(toleration, "/effect");
            (named == key || named.is_empty()) && matches!(effect, "" | "NoExecute")
        });
        if !covered {
            fill(spec, "tolerations", json!([]));
            if let Some(tolerations) = spec["tolerations"].as_array_mut() {
                tolerations.push(json!({
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": TOLERATION_SECONDS,
                }));
            }
        }
    }
}
