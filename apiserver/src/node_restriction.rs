//! What depends on the object, the second step after `crate::authz`: a node changes itself and the pods bound to it, reads
//! what these refer to, and a certificate request is read by who made it.
//!
//! [`crate::authz::authorize`] has let the request in by what it asks. Here is judged what only the stored and the proposed
//! object can tell, as Kubernetes' NodeRestriction admission plug-in and its node authorizer do: [`admit`] for single
//! objects, [`admit_selection`] for lists and watches, [`needs_reference`] with [`admit_reference`] for what pods mount.
//!
//! Invariants: pure; nothing here allows what `authz` refused; callers other than nodes and those who ask to become one
//! pass unseen. Left to others: finding the pods of a node (`crate::objects`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use weft_api::selector::FieldSelector;
use weft_api::status::StatusError;
use weft_kinds::lens::{items, text};
use weft_kinds::{Kind, weft};

use crate::authz::{Access, Authorized};
use crate::caller::{Caller, GROUP_BOOTSTRAPPERS, GROUP_MASTERS};

/// Labels that only the cluster's owner may give a node, so that a workload can be kept off stolen ones.
const RESTRICTED_LABELS: &str = "node-restriction.kubernetes.io";

/// Of Kubernetes' own labels, those that tell what a node is, which it knows itself.
const NODES_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// Whether [`admit`] has a say in a read.
pub fn concerns_read(asked: &Authorized) -> bool {
    let requests = asked.access().is_some_and(|access| {
        access.is_resource("certificates.k8s.io", "certificatesigningrequests")
    });
    let caller = asked.caller();
    !caller.in_group(GROUP_MASTERS)
        && ((requests && asks_to_join(caller)) || caller.node_name().is_some())
}

/// Whether the caller is a node, or who has yet to become one: others have what roles give them.
fn asks_to_join(caller: &Caller) -> bool {
    caller.node_name().is_some() || caller.in_group(GROUP_BOOTSTRAPPERS)
}

/// Judges a request by its object: `current` is the stored one (reads, updates, deletes), `proposed` the one that would be
/// stored.
///
/// # Errors
/// 403 in Kubernetes' form, with the rule that was broken.
pub fn admit(
    asked: &Authorized,
    current: Option<&Value>,
    proposed: Option<&Value>,
) -> Result<(), StatusError> {
    let Some(mut access) = asked.access() else {
        return Ok(());
    };
    // The URL of a create names no object; a refusal does.
    let named = proposed.map(|proposed| text(proposed, "/metadata/name"));
    access.name = access.name.or(named.filter(|name| !name.is_empty()));
    admit_access(asked.caller(), &access, current, proposed)
}

fn admit_access(
    caller: &Caller,
    access: &Access<'_>,
    current: Option<&Value>,
    proposed: Option<&Value>,
) -> Result<(), StatusError> {
    if caller.in_group(GROUP_MASTERS) {
        return Ok(());
    }
    if asks_to_join(caller)
        && access.is_resource("certificates.k8s.io", "certificatesigningrequests")
        && let Some(current) = current
        && text(current, "/spec/username") != caller.user()
    {
        return Err(access.forbidden(caller, "it was created by somebody else"));
    }
    let Some(node) = caller.node_name() else {
        return Ok(());
    };
    if access.reads() {
        let is_own = |pod: &Value| text(pod, "/spec/nodeName") == node;
        if access.is_resource("", "pods") && current.is_some_and(|pod| !is_own(pod)) {
            return Err(access.forbidden(caller, "the pod is not bound to this node"));
        }
        return Ok(());
    }
    let broken = match (access.group, access.resource) {
        ("", "pods") => broken_by_pod(node, access, current, proposed),
        ("", "nodes") => broken_by_node(node, access, current, proposed),
        ("coordination.k8s.io", "leases")
            if (current.into_iter().chain(proposed))
                .any(|lease| text(lease, "/metadata/name") != node) =>
        {
            Some("can only access node lease with the same name as the requesting node".to_owned())
        }
        _ => None,
    };
    match broken {
        Some(rule) => {
            let (resource, name) = (access.resource, access.name.unwrap_or_default());
            Err(StatusError::forbidden(resource, access.group, name, &rule))
        }
        None => Ok(()),
    }
}

/// What a node must not do to a pod: touch one that runs elsewhere, or move it into another Service by its labels.
fn broken_by_pod(
    node: &str,
    access: &Access<'_>,
    current: Option<&Value>,
    proposed: Option<&Value>,
) -> Option<String> {
    let mut objects = current.into_iter().chain(proposed);
    if objects.any(|pod| text(pod, "/spec/nodeName") != node) {
        let what = match access.verb {
            "delete" | "deletecollection" => "delete pods",
            _ => "update pod status for pods",
        };
        return Some(format!(
            "node {node:?} can only {what} with spec.nodeName set to itself"
        ));
    }
    // What the node is not told to report, in the order in which it is looked at.
    let kept = [
        (
            "/metadata/labels",
            "cannot update labels through pod status",
        ),
        (
            "/status/resourceClaimStatuses",
            "cannot update resource claim statues",
        ),
        (
            "/status/extendedResourceClaimStatus",
            "cannot update extended resource claim status",
        ),
        (
            "/status/nodeAllocatableResourceClaimStatuses",
            "cannot update node allocatable resource claim statuses",
        ),
    ];
    let (current, proposed) = (current?, proposed?);
    let said = |pod: &Value, pointer: &str| {
        let value = pod.pointer(pointer).cloned().unwrap_or_default();
        let is_empty = value == json!({}) || value == json!([]);
        (!is_empty)
            .then_some(value)
            .filter(|value| !value.is_null())
    };
    kept.into_iter()
        .find(|(pointer, _)| said(current, pointer) != said(proposed, pointer))
        .map(|(_, rule)| format!("node {node:?} {rule}"))
}

/// What a node must not ask for: a certificate for anybody but a pod that runs on it, and has a volume for one of that signer. `find` looks an
/// object of the same namespace up, or one that is in none.
///
/// # Errors
/// 403 in Kubernetes' words.
pub fn admit_pod_certificate(
    asked: &Authorized,
    proposed: &Value,
    find: impl Fn(&Arc<Kind>, &str) -> Option<Value>,
) -> Result<(), StatusError> {
    let (caller, access) = (asked.caller(), asked.access());
    let asks = access
        .is_some_and(|access| access.is_resource("certificates.k8s.io", "podcertificaterequests"));
    let Some(node) = caller.node_name().filter(|_| asks) else {
        return Ok(());
    };
    if caller.in_group(GROUP_MASTERS) {
        return Ok(());
    }
    let said = |field: &str| text(proposed, &format!("/spec/{field}"));
    let name = text(proposed, "/metadata/name");
    let whole = format!(
        "{}/{}",
        text(proposed, "/metadata/namespace"),
        said("podName")
    );
    let rule = broken_by_certificate(node, &whole, said, find);
    rule.map_or(Ok(()), |rule| {
        let (resource, group) = ("podcertificaterequests", "certificates.k8s.io");
        Err(StatusError::forbidden(resource, group, name, &rule))
    })
}

fn broken_by_certificate<'a>(
    node: &str,
    pod_name: &str,
    said: impl Fn(&str) -> &'a str,
    find: impl Fn(&Arc<Kind>, &str) -> Option<Value>,
) -> Option<String> {
    let named = said("nodeName");
    if named != node {
        return Some(format!(
            "PodCertificateRequest.Spec.NodeName={named:?}, which is not the requesting node {node:?}"
        ));
    }
    let uid = |found: &Option<Value>| {
        let found = found.as_ref();
        found.map(|found| text(found, "/metadata/uid").to_owned())
    };
    let own = uid(&find(&weft_kinds::NODE, node));
    if own.as_deref() != Some(said("nodeUID")) {
        return Some(format!(
            "PodCertificateRequest for pod {pod_name:?} names node UID {:?}, inconsistent with the running node ({:?})",
            said("nodeUID"),
            own.unwrap_or_default()
        ));
    }
    let Some(pod) = find(&weft_kinds::POD, said("podName")) else {
        return Some(format!(
            "while retrieving pod {pod_name:?} named in the PodCertificateRequest: pods {:?} not found",
            said("podName")
        ));
    };
    if text(&pod, "/metadata/uid") != said("podUID") {
        return Some(format!(
            "PodCertificateRequest for pod {pod_name:?} contains pod UID ({:?}) which differs from running pod {:?}",
            said("podUID"),
            text(&pod, "/metadata/uid")
        ));
    }
    if text(&pod, "/spec/nodeName") != node {
        return Some(format!(
            "pod {pod_name:?} is not running on node {node:?} named in the PodCertificateRequest"
        ));
    }
    let account = text(&pod, "/spec/serviceAccountName");
    if account != said("serviceAccountName") {
        return Some(format!(
            "PodCertificateRequest for pod {pod_name:?} contains serviceAccountName ({:?}) that differs from running pod ({account:?})",
            said("serviceAccountName")
        ));
    }
    let known = uid(&find(&weft_kinds::SERVICE_ACCOUNT, account));
    if known.as_deref() != Some(said("serviceAccountUID")) {
        return Some(format!(
            "PodCertificateRequest for pod {pod_name:?} names service account UID {:?}, which differs from the running service account ({:?})",
            said("serviceAccountUID"),
            known.unwrap_or_default()
        ));
    }
    let mut sources = items(&pod, "/spec/volumes")
        .iter()
        .flat_map(|volume| items(volume, "/projected/sources"));
    let signer = said("signerName");
    let has_reason = sources.any(|source| text(source, "/podCertificate/signerName") == signer);
    (!has_reason).then(|| {
        format!(
            "pod {pod_name:?} has no projected volume that asks signer {signer:?} for a certificate"
        )
    })
}

/// What a node must not do to itself: escape its taints, take labels that are reserved, or have itself garbage-collected.
fn broken_by_node(
    node: &str,
    access: &Access<'_>,
    current: Option<&Value>,
    proposed: Option<&Value>,
) -> Option<String> {
    let proposed = proposed?;
    let name = text(proposed, "/metadata/name");
    if name != node {
        return Some(format!(
            "node {node:?} is not allowed to modify node {name:?}"
        ));
    }
    let same = |pointer: &str| {
        current.and_then(|current| current.pointer(pointer)) == proposed.pointer(pointer)
    };
    // At its creation a node may bring taints along; later ones belong to the cluster.
    let changes = access.verb != "create" && current.is_some();
    if changes && !same("/spec/taints") {
        return Some(format!("node {node:?} is not allowed to modify taints"));
    }
    let owners = "/metadata/ownerReferences";
    let owned = !items(proposed, owners).is_empty();
    if (changes && !same(owners)) || (!changes && owned) {
        return Some(format!(
            "node {node:?} is not allowed to modify ownerReferences"
        ));
    }
    let forbidden = forbidden_labels(current, proposed);
    if !forbidden.is_empty() {
        let labels = forbidden.join(", ");
        return Some(match changes {
            true => format!("is not allowed to modify labels: {labels}"),
            false => {
                format!("node {node:?} is not allowed to set the following labels: {labels}")
            }
        });
    }
    if changes && !same("/spec/podCIDR") {
        return Some(format!(
            "node {node:?} is not allowed to choose its pod CIDR"
        ));
    }
    None
}

/// The labels that differ and are not a node's to change: reserved ones, and Kubernetes' own but for those that describe a node.
fn forbidden_labels(current: Option<&Value>, proposed: &Value) -> Vec<String> {
    let labels = |object: Option<&Value>| -> BTreeMap<String, Value> {
        let labels = object
            .and_then(|object| object.pointer("/metadata/labels"))
            .and_then(Value::as_object);
        let labels = labels.into_iter().flatten();
        labels
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let (before, after) = (labels(current), labels(Some(proposed)));
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key) && !is_for_nodes(key))
        .cloned()
        .collect()
}

/// Whether a node may change a label of this key on itself.
fn is_for_nodes(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let under = |root: &str| {
        domain
            .strip_suffix(root)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if under(RESTRICTED_LABELS) {
        return false;
    }
    let kubernetes = under("kubernetes.io") || under("k8s.io");
    !kubernetes
        || NODES_LABELS.contains(&key)
        || under("kubelet.kubernetes.io")
        || under("node.kubernetes.io")
}

/// Judges the selector of a list or watch: a node lists its own pods only.
///
/// # Errors
/// 403 in Kubernetes' form.
pub fn admit_selection(asked: &Authorized, fields: &FieldSelector) -> Result<(), StatusError> {
    let caller = asked.caller();
    let (Some(node), Some(access)) = (caller.node_name(), asked.access()) else {
        return Ok(());
    };
    if caller.in_group(GROUP_MASTERS) || !access.is_resource("", "pods") {
        return Ok(());
    }
    let own = fields.exact("spec.nodeName") == Some(node);
    if own {
        Ok(())
    } else {
        Err(access.forbidden(caller, "a node must select its own pods with spec.nodeName"))
    }
}

/// The node whose pods have to refer to what is read, if this read is allowed only then.
pub fn needs_reference(asked: &Authorized) -> Option<&str> {
    let node = asked.caller().node_name()?;
    let mounted = asked.access().is_some_and(|access| {
        access.group.is_empty() && matches!(access.resource, "secrets" | "configmaps")
    });
    (mounted && !asked.caller().in_group(GROUP_MASTERS)).then_some(node)
}

/// Kinds of the Gateway API by which a node may have to read a certificate, and the one that lets those of other namespaces.
pub const TRAFFIC_KINDS: [&str; 4] = [
    "Gateway",
    "ListenerSet",
    "BackendTLSPolicy",
    "ReferenceGrant",
];

/// Judges the read of a Secret or ConfigMap by the pods on the node that reads, and by the grants of their namespace; else by `traffic`, all
/// objects of [`TRAFFIC_KINDS`]: each node shows their certificates.
///
/// # Errors
/// 403 when none of them refers to it.
pub fn admit_reference(
    asked: &Authorized,
    pods: &[Arc<Value>],
    grants: &[Value],
    traffic: impl FnOnce() -> Vec<Value>,
) -> Result<(), StatusError> {
    let (Some(_), Some(access)) = (needs_reference(asked), asked.access()) else {
        return Ok(());
    };
    let caller = asked.caller();
    let mut pods = pods.iter();
    if pods.any(|pod| is_referred_by(caller, &access, pod, grants)) {
        return Ok(());
    }
    if serves_traffic(&access, &traffic()) {
        return Ok(());
    }
    Err(access.forbidden(
        caller,
        "no pod on the node refers to it, nor does a grant to one",
    ))
}

/// Whether a Gateway, a ListenerSet or a policy refers to the Secret or ConfigMap that is asked for, and may.
fn serves_traffic(access: &Access<'_>, traffic: &[Value]) -> bool {
    let (Some(namespace), Some(name)) = (access.namespace, access.name) else {
        return false;
    };
    let wanted = match access.resource {
        "secrets" => "Secret",
        _ => "ConfigMap",
    };
    let is_it = |own: &str, reference: &Value, usual: &str| {
        let or = |pointer: &str, usual: &str| match text(reference, pointer) {
            "" => usual.to_owned(),
            said => said.to_owned(),
        };
        or("/group", "").is_empty()
            && or("/kind", usual) == wanted
            && text(reference, "/name") == name
            && or("/namespace", own) == namespace
    };
    traffic.iter().any(|object| {
        let kind = text(object, "/kind");
        let own = text(object, "/metadata/namespace");
        let listeners = items(object, "/spec/listeners").iter();
        let mut certificates =
            listeners.flat_map(|listener| items(listener, "/tls/certificateRefs"));
        let frontend = object.pointer("/spec/tls/frontend");
        let ports = frontend.map_or(&[][..], |frontend| items(frontend, "/perPort"));
        let configs = ports.iter().filter_map(|port| port.pointer("/tls"));
        let configs = configs.chain(frontend.and_then(|frontend| frontend.pointer("/default")));
        let mut authorities =
            configs.flat_map(|config| items(config, "/validation/caCertificateRefs"));
        let mut of_policy = items(object, "/spec/validation/caCertificateRefs").iter();
        let client = object.pointer("/spec/tls/backend/clientCertificateRef");
        let refers = match kind {
            "Gateway" | "ListenerSet" => {
                certificates.any(|reference| is_it(own, reference, "Secret"))
                    || client.is_some_and(|reference| is_it(own, reference, "Secret"))
                    || authorities.any(|reference| is_it(own, reference, "ConfigMap"))
            }
            "BackendTLSPolicy" => of_policy.any(|reference| is_it(own, reference, "ConfigMap")),
            _ => false,
        };
        refers && (own == namespace || is_granted(traffic, kind, own, wanted, namespace, name))
    })
}

/// Whether a ReferenceGrant lets objects of `kind` in `own` refer to it.
fn is_granted(
    traffic: &[Value],
    kind: &str,
    own: &str,
    wanted: &str,
    namespace: &str,
    name: &str,
) -> bool {
    let mut grants = traffic.iter().filter(|object| {
        text(object, "/kind") == "ReferenceGrant"
            && text(object, "/metadata/namespace") == namespace
    });
    grants.any(|grant| {
        let mut from = items(grant, "/spec/from").iter();
        let mut to = items(grant, "/spec/to").iter();
        from.any(|from| text(from, "/kind") == kind && text(from, "/namespace") == own)
            && to.any(|to| {
                let named = text(to, "/name");
                text(to, "/kind") == wanted && (named.is_empty() || named == name)
            })
    })
}

/// Whether `pod` is bound to the calling node and refers to the Secret or ConfigMap that is asked for, itself or by a grant.
fn is_referred_by(caller: &Caller, access: &Access<'_>, pod: &Value, grants: &[Value]) -> bool {
    let bound = caller
        .node_name()
        .is_some_and(|node| text(pod, "/spec/nodeName") == node);
    let same_namespace = access.namespace == Some(text(pod, "/metadata/namespace"));
    let Some(name) = access.name else {
        return false;
    };
    let secret = access.resource == "secrets";
    let account = text(pod, "/spec/serviceAccountName");
    let granted = |grant: &Value| weft::refers_to(grant, account, secret, name);
    bound && same_namespace && (pod_refers_to(pod, secret, name) || grants.iter().any(granted))
}

fn pod_refers_to(pod: &Value, secret: bool, name: &str) -> bool {
    let (reference, key_reference) = if secret {
        ("/secretRef/name", "/valueFrom/secretKeyRef/name")
    } else {
        ("/configMapRef/name", "/valueFrom/configMapKeyRef/name")
    };
    let containers = [
        "/spec/containers",
        "/spec/initContainers",
        "/spec/ephemeralContainers",
    ];
    let from_env = containers
        .iter()
        .flat_map(|list| items(pod, list))
        .any(|container| {
            items(container, "/envFrom")
                .iter()
                .any(|source| text(source, reference) == name)
                || items(container, "/env")
                    .iter()
                    .any(|variable| text(variable, key_reference) == name)
        });
    let from_volumes = items(pod, "/spec/volumes").iter().any(|volume| {
        let (whole, projected) = if secret {
            ("/secret/secretName", "/secret/name")
        } else {
            ("/configMap/name", "/configMap/name")
        };
        text(volume, whole) == name
            || items(volume, "/projected/sources")
                .iter()
                .any(|source| text(source, projected) == name)
    });
    let pulls = secret
        && items(pod, "/spec/imagePullSecrets")
            .iter()
            .any(|pull| text(pull, "/name") == name);
    from_env || from_volumes || pulls
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Caller {
        Caller::client_certificate("system:node:a", vec!["system:nodes".to_owned()])
    }

    #[test]
    fn a_node_asks_for_certificates_of_its_own_pods_alone() {
        let pod = json!({
            "metadata": {"name": "p", "uid": "u-p"},
            "spec": {"nodeName": "a", "serviceAccountName": "s", "volumes": [
                {"projected": {"sources": [{"podCertificate": {"signerName": "x/y"}}]}},
            ]},
        });
        let find = |kind: &Arc<Kind>, name: &str| match (&*kind.resource, name) {
            ("nodes", "a") => Some(json!({"metadata": {"uid": "u-a"}})),
            ("pods", "p") => Some(pod.clone()),
            ("serviceaccounts", "s") => Some(json!({"metadata": {"uid": "u-s"}})),
            _ => None,
        };
        let whole = json!({
            "nodeName": "a", "nodeUID": "u-a", "podName": "p", "podUID": "u-p",
            "serviceAccountName": "s", "serviceAccountUID": "u-s", "signerName": "x/y",
        });
        for (field, value, expected) in [
            ("nodeName", "a", None),
            (
                "nodeName",
                "b",
                Some(
                    r#"PodCertificateRequest.Spec.NodeName="b", which is not the requesting node "a""#,
                ),
            ),
            (
                "nodeUID",
                "z",
                Some(
                    r#"PodCertificateRequest for pod "n/p" names node UID "z", inconsistent with the running node ("u-a")"#,
                ),
            ),
            (
                "podUID",
                "z",
                Some(
                    r#"PodCertificateRequest for pod "n/p" contains pod UID ("z") which differs from running pod "u-p""#,
                ),
            ),
            (
                "serviceAccountName",
                "z",
                Some(
                    r#"PodCertificateRequest for pod "n/p" contains serviceAccountName ("z") that differs from running pod ("s")"#,
                ),
            ),
            (
                "signerName",
                "z/z",
                Some(
                    r#"pod "n/p" has no projected volume that asks signer "z/z" for a certificate"#,
                ),
            ),
        ] {
            let mut spec = whole.clone();
            spec[field] = json!(value);
            let said = |field: &str| text(&spec, &format!("/{field}"));
            let rule = broken_by_certificate("a", "n/p", said, find);
            assert_eq!(rule.as_deref(), expected, "{field}");
        }
    }

    #[test]
    fn a_node_touches_only_itself_and_its_pods() {
        let mine = json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "a" } });
        let other = json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "b" } });
        let plain = json!({ "metadata": { "name": "a", "labels": { "x": "y" } }, "spec": { "taints": [{ "key": "t" }] } });
        let owned = json!({ "metadata": { "name": "a", "ownerReferences": [{ "uid": "1" }] }, "spec": { "taints": [{ "key": "t" }] } });
        let labelled = json!({ "metadata": { "name": "a", "labels": { "node-restriction.kubernetes.io/team": "y" } }, "spec": { "taints": [{ "key": "t" }] } });
        let untainted = json!({ "metadata": { "name": "a" }, "spec": {} });
        let named_b = json!({ "metadata": { "name": "b" } });
        let unowned =
            json!({ "metadata": { "name": "a" }, "spec": { "taints": [{ "key": "t" }] } });
        let describing = json!({ "metadata": { "name": "a", "labels": { "x": "y", "kubernetes.io/arch": "arm64", "kubelet.kubernetes.io/z": "1" } }, "spec": { "taints": [{ "key": "t" }] } });
        let of_cluster = json!({ "metadata": { "name": "a", "labels": { "x": "y", "node-role.kubernetes.io/control-plane": "", "a.node-restriction.kubernetes.io/b": "", "k8s.io/c": "1" } }, "spec": { "taints": [{ "key": "t" }] } });
        let moved = json!({ "metadata": { "name": "p", "labels": { "app": "other" } }, "spec": { "nodeName": "a" } });
        let claimed = json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "a" }, "status": { "resourceClaimStatuses": [{ "name": "c" }] } });
        let unlabelled =
            json!({ "metadata": { "name": "p", "labels": {} }, "spec": { "nodeName": "a" } });
        for (verb, what, current, proposed, broken) in [
            ("patch", "pods#status", Some(&mine), Some(&mine), ""),
            ("update", "pods#status", Some(&mine), Some(&unlabelled), ""),
            (
                "get",
                "pods",
                Some(&other),
                None,
                r#"pods "n" is forbidden: User "system:node:a" cannot get resource "pods" in API group "" at the cluster scope: the pod is not bound to this node"#,
            ),
            (
                "patch",
                "pods#status",
                Some(&mine),
                Some(&other),
                r#"pods "n" is forbidden: node "a" can only update pod status for pods with spec.nodeName set to itself"#,
            ),
            (
                "patch",
                "pods#status",
                Some(&mine),
                Some(&moved),
                r#"pods "n" is forbidden: node "a" cannot update labels through pod status"#,
            ),
            (
                "update",
                "pods#status",
                Some(&mine),
                Some(&claimed),
                r#"pods "n" is forbidden: node "a" cannot update resource claim statues"#,
            ),
            (
                "delete",
                "pods",
                Some(&other),
                None,
                r#"pods "n" is forbidden: node "a" can only delete pods with spec.nodeName set to itself"#,
            ),
            ("get", "nodes", Some(&named_b), None, ""),
            ("create", "nodes", None, Some(&plain), ""),
            (
                "create",
                "nodes",
                None,
                Some(&named_b),
                r#"nodes "n" is forbidden: node "a" is not allowed to modify node "b""#,
            ),
            (
                "update",
                "nodes",
                Some(&plain),
                Some(&owned),
                r#"nodes "n" is forbidden: node "a" is not allowed to modify ownerReferences"#,
            ),
            (
                "create",
                "nodes",
                None,
                Some(&owned),
                r#"nodes "n" is forbidden: node "a" is not allowed to modify ownerReferences"#,
            ),
            ("update", "nodes#status", Some(&plain), Some(&unowned), ""),
            ("patch", "nodes#status", Some(&plain), Some(&describing), ""),
            (
                "patch",
                "nodes#status",
                Some(&plain),
                Some(&labelled),
                r#"nodes "n" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/team"#,
            ),
            (
                "create",
                "nodes",
                None,
                Some(&of_cluster),
                r#"nodes "n" is forbidden: node "a" is not allowed to set the following labels: a.node-restriction.kubernetes.io/b, k8s.io/c, node-role.kubernetes.io/control-plane"#,
            ),
            (
                "update",
                "nodes",
                Some(&of_cluster),
                Some(&plain),
                r#"nodes "n" is forbidden: is not allowed to modify labels: a.node-restriction.kubernetes.io/b, k8s.io/c, node-role.kubernetes.io/control-plane"#,
            ),
            (
                "update",
                "nodes",
                Some(&plain),
                Some(&untainted),
                r#"nodes "n" is forbidden: node "a" is not allowed to modify taints"#,
            ),
        ] {
            let got = admit_access(
                &node(),
                &Access::of(verb, what, None, Some("n")),
                current,
                proposed,
            );
            let refusal = got.err().map_or(String::new(), |error| error.message);
            assert_eq!(refusal, broken, "{verb} {what}");
        }
    }

    /// Once anybody with a bootstrap token read the requests, and with them the certificates, of all others.
    #[test]
    fn a_certificate_request_is_read_by_who_made_it() {
        let token = |id: &str| {
            let groups = vec!["system:bootstrappers".to_owned()];
            Caller::client_certificate(format!("system:bootstrap:{id}"), groups)
        };
        let request =
            json!({ "metadata": { "name": "r" }, "spec": { "username": "system:bootstrap:mine" } });
        for (caller, allowed) in [
            (token("mine"), true),
            (token("other"), false),
            (node(), false),
            (
                Caller::client_certificate("root", vec![GROUP_MASTERS.to_owned()]),
                true,
            ),
        ] {
            for verb in ["get", "delete", "update"] {
                let kind = "certificates.k8s.io/certificatesigningrequests";
                let asked = Access::of(verb, kind, None, Some("r"));
                let got = admit_access(&caller, &asked, Some(&request), None);
                assert_eq!(got.is_ok(), allowed, "{verb} by {caller}");
            }
        }
    }

    #[test]
    fn nodes_read_what_their_pods_mount() {
        let pod = json!({
            "metadata": { "namespace": "x" },
            "spec": {
                "nodeName": "a",
                "volumes": [{ "secret": { "secretName": "s1" } }, { "projected": { "sources": [{ "configMap": { "name": "c1" } }] } }],
                "containers": [{ "envFrom": [{ "secretRef": { "name": "s2" } }], "env": [{ "valueFrom": { "configMapKeyRef": { "name": "c2" } } }] }],
                "imagePullSecrets": [{ "name": "s3" }],
            }
        });
        for (what, name, expected) in [
            ("secrets", "s1", true),
            ("secrets", "s2", true),
            ("secrets", "s3", true),
            ("secrets", "c1", false),
            ("configmaps", "c1", true),
            ("configmaps", "c2", true),
            ("configmaps", "s3", false),
        ] {
            let access = Access::of("get", what, Some("x"), Some(name));
            assert_eq!(
                is_referred_by(&node(), &access, &pod, &[]),
                expected,
                "{what} {name}"
            );
        }
        let elsewhere = Access::of("get", "secrets", Some("y"), Some("s1"));
        assert!(!is_referred_by(&node(), &elsewhere, &pod, &[]));
    }

    #[test]
    fn nodes_read_what_gateways_show_and_trust() {
        let traffic = [
            json!({
                "kind": "Gateway", "metadata": { "namespace": "x", "name": "g" },
                "spec": {
                    "listeners": [{ "tls": { "certificateRefs": [{ "name": "own" }, { "name": "far", "namespace": "y" }, { "name": "lent", "namespace": "y" }] } }],
                    "tls": { "frontend": { "default": { "validation": { "caCertificateRefs": [{ "kind": "ConfigMap", "name": "ca" }] } } } },
                },
            }),
            json!({
                "kind": "BackendTLSPolicy", "metadata": { "namespace": "x", "name": "p" },
                "spec": { "validation": { "caCertificateRefs": [{ "group": "", "kind": "ConfigMap", "name": "roots" }] } },
            }),
            json!({
                "kind": "ReferenceGrant", "metadata": { "namespace": "y", "name": "r" },
                "spec": {
                    "from": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "x" }],
                    "to": [{ "group": "", "kind": "Secret", "name": "lent" }],
                },
            }),
        ];
        for (what, namespace, name, expected) in [
            ("secrets", "x", "own", true),
            ("secrets", "x", "other", false),
            ("secrets", "y", "far", false),
            ("secrets", "y", "lent", true),
            ("secrets", "x", "ca", false),
            ("configmaps", "x", "ca", true),
            ("configmaps", "x", "roots", true),
            ("configmaps", "x", "own", false),
        ] {
            let access = Access::of("get", what, Some(namespace), Some(name));
            let got = serves_traffic(&access, &traffic);
            assert_eq!(got, expected, "{what} {namespace}/{name}");
        }
    }

    #[test]
    fn nodes_read_what_their_pods_are_granted() {
        let pod = |node: &str, account: &str| {
            json!({
                "metadata": { "namespace": "x" },
                "spec": { "nodeName": node, "serviceAccountName": account },
            })
        };
        let grants = [
            json!({ "spec": { "serviceAccountNames": ["cart"], "config": [{ "secretRef": { "name": "s" } }, { "configMapRef": { "name": "c" } }] } }),
        ];
        for (pod, what, name, expected) in [
            (pod("a", "cart"), "secrets", "s", true),
            (pod("a", "cart"), "configmaps", "c", true),
            (pod("a", "cart"), "secrets", "c", false),
            (pod("a", "other"), "secrets", "s", false),
            (pod("b", "cart"), "secrets", "s", false),
        ] {
            let access = Access::of("get", what, Some("x"), Some(name));
            let got = is_referred_by(&node(), &access, &pod, &grants);
            assert_eq!(got, expected, "{what} {name} {pod}");
        }
    }
}
