//! A look at a claim: finds or makes its volume, says that it is bound, grows it, and lets it go.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use weft_api::annotation::FOLDER_DRIVER;
use weft_api::view::Node;
use weft_kinds::PERSISTENT_VOLUME;
use weft_kinds::lens::text;

use super::matching::{best, is_on, is_reserved_for, mismatch, size};
use super::{
    BETA_CLASS, BIND_COMPLETED, BOUND_BY_CONTROLLER, CLAIM_PROTECTION, Claim, Class, HOST_NAME,
    PROVISIONED_BY, PROVISIONER, PROVISIONER_BETA, SELECTED_NODE, VOLUME_PROTECTION, Volume,
    class_of, is_folder, users,
};
use crate::indexer::Cached;
use crate::metadata::Key;
use crate::view::View;
use crate::write::{Note, Write, object};
use crate::{Context, Outcome};

/// When to look again for a node, of which there is none: nodes report all the time, and wake nobody.
const NODES_WITHIN: Duration = Duration::from_secs(15);

pub(super) fn reconcile(view: &View, key: &Key, _: &Context<'_>) -> Outcome {
    let Some(claim) = view.get::<Claim>(key) else {
        return Outcome::default();
    };
    if claim.meta.is_deleting() {
        return Outcome::from_writes(released(view, claim).into_iter().collect());
    }
    if claim.meta.annotations.contains_key(BIND_COMPLETED) {
        return Outcome::from_writes(bound(view, claim));
    }
    let mut outcome = Outcome::from_writes(unbound(view, claim));
    if !view.list::<Node>().any(|row| is_ready(&row.body)) {
        outcome.again_after(NODES_WITHIN);
    }
    outcome
}

fn is_ready(node: &Node) -> bool {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    let ready = conditions.any(|found| found.type_ == "Ready" && found.status == "True");
    let spec = node.spec.as_ref();
    ready && spec.is_none_or(|spec| spec.unschedulable != Some(true))
}

/// Lets a claim go that no pod uses any more.
fn released(view: &View, claim: &Cached<Claim>) -> Option<Write> {
    let mut users = users(view, &claim.key);
    let in_use = users.any(|(_, uses)| !uses.is_finished && !uses.node.is_empty());
    let finalizers = &claim.meta.finalizers;
    if in_use || !claim.meta.has_finalizer(CLAIM_PROTECTION) {
        return None;
    }
    let rest = finalizers.iter().filter(|name| *name != CLAIM_PROTECTION);
    let rest: Vec<&String> = rest.collect();
    Some(Write::patch(
        claim,
        json!({"metadata": {"finalizers": rest}}),
    ))
}

fn unbound(view: &View, claim: &Cached<Claim>) -> Vec<Write> {
    let named = text(&claim.body.spec, "/volumeName");
    if !named.is_empty() {
        let Some(volume) = view.get::<Volume>(&Key::new("", named)) else {
            return phase(claim, "Pending").into_iter().collect();
        };
        if is_reserved_for(volume, claim) {
            return bind(claim, volume);
        }
        if !volume.body.spec["claimRef"].is_null() {
            let message = format!("volume {named:?} already bound to a different claim.");
            return tell(claim, true, "FailedBinding", message);
        }
        if let Some(why) = mismatch(claim, volume) {
            let message = format!("Cannot bind to requested volume \"{named}\": {why}");
            return tell(claim, true, "VolumeMismatch", message);
        }
        return bind(claim, volume);
    }
    let name = class_of(claim, &claim.body.spec);
    let class = view.get::<Class>(&Key::new("", &name));
    let node = node_of(view, claim);
    let waits = class.is_some_and(|class| class.body.waits) && node.is_none();
    let host = node.as_ref().map(|node| Key::new("", node));
    let host = host.and_then(|key| view.get::<Node>(&key));
    let volumes = view.list::<Volume>().map(|row| &**row);
    let in_reach =
        volumes.filter(|volume| host.is_none_or(|host| is_on(volume, &host.meta.labels)));
    if let Some(volume) = best(claim, in_reach, waits) {
        return bind(claim, volume);
    }
    if !has_class(claim)
        && let Some(class) = default_class(view)
    {
        // It was made before there was a default.
        let patch = json!({"spec": {"storageClassName": class}});
        return vec![Write::patch(claim, patch)];
    }
    if waits {
        let (reason, message) = awaited(view, claim);
        return tell(claim, false, reason, message);
    }
    if name.is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        return tell(claim, false, "FailedBinding", message.to_owned());
    }
    let Some(class) = class else {
        let message = format!("storageclass.storage.k8s.io \"{name}\" not found");
        return tell(claim, true, "ProvisioningFailed", message);
    };
    match &*class.body.provisioner {
        "kubernetes.io/no-provisioner" => {
            let message =
                "no persistent volumes available for this claim and no storage class is set";
            tell(claim, false, "FailedBinding", message.to_owned())
        }
        FOLDER_DRIVER => provision(view, claim, class, node),
        other => wanted_from(claim, other),
    }
}

/// Whether it says of which class it is to be, be it of none.
fn has_class(claim: &Cached<Claim>) -> bool {
    claim.body.spec["storageClassName"].is_string()
        || claim.meta.annotations.contains_key(BETA_CLASS)
}

/// The newest of the classes that are for claims that name none; of equally old ones the first by name.
fn default_class(view: &View) -> Option<String> {
    let classes = view.list::<Class>().filter(|class| class.body.is_default);
    let newest = classes.min_by_key(|class| {
        let born = class.meta.creation_timestamp;
        (Reverse(born), Arc::clone(&class.key.name))
    });
    newest.map(|class| class.key.name.to_string())
}

/// What a claim of a class that waits for a consumer waits for: pods without a node, or any pod at all.
fn awaited(view: &View, claim: &Cached<Claim>) -> (&'static str, String) {
    let pods = users(view, &claim.key);
    let waiting = pods.filter(|(_, uses)| !uses.is_finished && uses.node.is_empty());
    let mut names: Vec<&str> = waiting.map(|(pod, _)| &*pod.key.name).collect();
    names.sort_unstable();
    match names.as_slice() {
        [] => (
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding".to_owned(),
        ),
        [one] => (
            "WaitForPodScheduled",
            format!("waiting for pod {one} to be scheduled"),
        ),
        many => (
            "WaitForPodScheduled",
            format!("waiting for pods {} to be scheduled", many.join(",")),
        ),
    }
}

/// Tells somebody else's provisioner that a volume is wanted.
fn wanted_from(claim: &Cached<Claim>, provisioner: &str) -> Vec<Write> {
    let known = claim.meta.annotations.get(PROVISIONER);
    if known.is_none_or(|known| known != provisioner) {
        let annotations = json!({PROVISIONER: provisioner, PROVISIONER_BETA: provisioner});
        return vec![Write::patch(
            claim,
            json!({"metadata": {"annotations": annotations}}),
        )];
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    tell(claim, false, "ExternalProvisioning", message)
}

/// The node that a claim is to have its volume on: where it was said, or where the first pod that uses it is.
fn node_of(view: &View, claim: &Cached<Claim>) -> Option<String> {
    if let Some(said) = claim.meta.annotations.get(SELECTED_NODE) {
        return Some(said.clone());
    }
    let mut nodes: Vec<&str> = users(view, &claim.key)
        .filter(|(_, uses)| !uses.is_finished && !uses.node.is_empty())
        .map(|(_, uses)| uses.node.as_str())
        .collect();
    nodes.sort_unstable();
    nodes.first().map(|node| (*node).to_owned())
}

/// The ready node that has the fewest folders.
fn emptiest(view: &View) -> Option<String> {
    let nodes = view.list::<Node>().filter(|row| is_ready(&row.body));
    let counted = nodes.map(|row| {
        let name = &*row.key.name;
        let volumes = view.list::<Volume>();
        let count =
            volumes.filter(|volume| is_folder(volume) && node_named(&volume.body.spec) == name);
        (count.count(), name.to_owned())
    });
    counted.min().map(|(_, name)| name)
}

/// The node that a folder is on.
fn node_named(spec: &Value) -> &str {
    text(
        spec,
        "/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0",
    )
}

fn provision(
    view: &View,
    claim: &Cached<Claim>,
    class: &Cached<Class>,
    node: Option<String>,
) -> Vec<Write> {
    let spec = &claim.body.spec;
    let refused = |why: &str| {
        let message = format!(
            "failed to provision volume with StorageClass \"{}\": {why}",
            class.key.name
        );
        tell(claim, true, "ProvisioningFailed", message)
    };
    if text(spec, "/volumeMode") == "Block" {
        return refused("a folder is no block device");
    }
    if !spec["selector"].is_null() {
        return refused("claim Selector is not supported");
    }
    let Some(node) = node.or_else(|| emptiest(view)) else {
        return refused("no node is ready");
    };
    let host = view.get::<Node>(&Key::new("", &node));
    let host = host.and_then(|node| node.meta.labels.get(HOST_NAME).cloned());
    let host = host.unwrap_or_else(|| node.clone());
    let known = claim.meta.annotations.get(SELECTED_NODE);
    if known.is_none_or(|known| *known != node) {
        // Written down first: whichever pod comes next, the volume is made there.
        let annotations = json!({SELECTED_NODE: node, PROVISIONER: FOLDER_DRIVER, PROVISIONER_BETA: FOLDER_DRIVER});
        return vec![Write::patch(
            claim,
            json!({"metadata": {"annotations": annotations}}),
        )];
    }
    let name = format!("pvc-{}", claim.meta.uid);
    let mut spec_of = json!({
        "accessModes": spec["accessModes"],
        "capacity": {"storage": spec["resources"]["requests"]["storage"]},
        "claimRef": reference(claim),
        "csi": {"driver": FOLDER_DRIVER, "volumeHandle": name},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": HOST_NAME, "operator": "In", "values": [host]},
        ]}]}},
        "persistentVolumeReclaimPolicy": match class.body.reclaim.is_empty() {
            true => "Delete",
            false => class.body.reclaim.as_str(),
        },
        "storageClassName": &*class.key.name,
        "volumeMode": "Filesystem",
    });
    if !class.body.mount_options.is_null() {
        spec_of["mountOptions"] = class.body.mount_options.clone();
    }
    let volume = json!({
        "apiVersion": "v1",
        "kind": PERSISTENT_VOLUME.kind,
        "metadata": {
            "name": name,
            "annotations": {PROVISIONED_BY: FOLDER_DRIVER},
            "finalizers": [VOLUME_PROTECTION],
        },
        "spec": spec_of,
    });
    let told = Note::normal(
        claim.reference(),
        "ProvisioningSucceeded",
        format!("Successfully provisioned volume {name}"),
    );
    let told = told.or_refused("ProvisioningFailed");
    vec![Write::create(&PERSISTENT_VOLUME, object(volume)).telling(told)]
}

fn reference(claim: &Cached<Claim>) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "name": &*claim.key.name,
        "namespace": &*claim.key.namespace,
        "uid": &*claim.meta.uid,
        "resourceVersion": claim.meta.resource_version.map(|version| version.to_string()),
    })
}

/// The next step of `claim` towards `volume`.
fn bind(claim: &Cached<Claim>, volume: &Cached<Volume>) -> Vec<Write> {
    let there = &volume.body.spec["claimRef"];
    if text(there, "/uid") != &*claim.meta.uid {
        let mut patch = json!({"spec": {"claimRef": reference(claim)}});
        if there.is_null() {
            patch["metadata"] = json!({"annotations": {BOUND_BY_CONTROLLER: "yes"}});
        }
        return vec![Write::patch(volume, patch)];
    }
    let mut annotations = json!({BIND_COMPLETED: "yes"});
    let named = text(&claim.body.spec, "/volumeName");
    let mut patch = json!({});
    if named.is_empty() {
        annotations[BOUND_BY_CONTROLLER] = json!("yes");
        patch["spec"] = json!({"volumeName": &*volume.key.name});
    }
    patch["metadata"] = json!({"annotations": annotations});
    vec![Write::patch(claim, patch)]
}

fn bound(view: &View, claim: &Cached<Claim>) -> Vec<Write> {
    let named = text(&claim.body.spec, "/volumeName");
    if named.is_empty() {
        let message =
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return lost(claim, "ClaimLost", message);
    }
    let Some(volume) = view.get::<Volume>(&Key::new("", named)) else {
        let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return lost(claim, "ClaimLost", message);
    };
    if volume.body.spec["claimRef"].is_null() {
        return bind(claim, volume);
    }
    if !is_reserved_for(volume, claim) {
        let message = "Two claims are bound to the same volume, this one is bound incorrectly";
        return lost(claim, "ClaimMisbound", message);
    }
    if text(&volume.body.spec, "/claimRef/uid") != &*claim.meta.uid {
        return bind(claim, volume);
    }
    if let Some(grown) = grown(view, claim, volume) {
        return vec![grown];
    }
    let mut status = claim.body.status.clone();
    if !status.is_object() {
        status = json!({});
    }
    // Whoever drives a volume tells by the claim's capacity how much of it the file system has by now.
    if status["phase"] != json!("Bound") || is_folder(volume) {
        status["capacity"] = volume.body.spec["capacity"].clone();
    }
    status["phase"] = json!("Bound");
    status["accessModes"] = volume.body.spec["accessModes"].clone();
    let write = Write::status(claim, &claim.body.status, &status);
    write.into_iter().collect()
}

/// A folder grows as soon as it is asked to: nothing has to be moved.
fn grown(view: &View, claim: &Cached<Claim>, volume: &Cached<Volume>) -> Option<Write> {
    let wanted = &claim.body.spec["resources"]["requests"]["storage"];
    let asked = size(&claim.body.spec, "/resources/requests/storage");
    let has = size(&volume.body.spec, "/capacity/storage");
    let class = view.get::<Class>(&Key::new("", &class_of(claim, &claim.body.spec)));
    let may = class.is_some_and(|class| class.body.grows);
    (may && is_folder(volume) && asked > has)
        .then(|| Write::patch(volume, json!({"spec": {"capacity": {"storage": wanted}}})))
}

fn lost(claim: &Cached<Claim>, reason: &'static str, message: &str) -> Vec<Write> {
    let mut writes: Vec<Write> = phase(claim, "Lost").into_iter().collect();
    if !writes.is_empty() {
        writes.push(Write::Event(Note::warning(
            claim.reference(),
            reason,
            message,
        )));
    }
    writes
}

fn phase(claim: &Cached<Claim>, phase: &str) -> Option<Write> {
    let before = &claim.body.status;
    let mut status = before.clone();
    if !status.is_object() {
        status = json!({});
    }
    status["phase"] = json!(phase);
    if phase == "Lost"
        && let Some(status) = status.as_object_mut()
    {
        status.remove("capacity");
        status.remove("accessModes");
    }
    Write::status(claim, before, &status)
}

/// What a claim waits for. Whoever gathers events tells the same once.
fn tell(claim: &Cached<Claim>, warning: bool, reason: &'static str, message: String) -> Vec<Write> {
    let note = match warning {
        true => Note::warning(claim.reference(), reason, message),
        false => Note::normal(claim.reference(), reason, message),
    };
    let pending = phase(claim, "Pending").into_iter();
    pending.chain([Write::Event(note)]).collect()
}
