//! Who may do what: pure decisions over the caller and what is asked.
//!
//! Until roles are served there are four kinds of caller. `system:masters` may do everything. A node (`system:nodes`)
//! may read what it needs to serve traffic and change only itself, its lease and the pods bound to it. A holder of a
//! bootstrap token may ask for a node certificate. Everybody else, and above all the anonymous, may do nothing but look at
//! health, version and, once authenticated, discovery.
//!
//! A request passes [`authorize`] before anything is read. Where the answer depends on objects, `crate::objects` also asks
//! [`authorize_object`] with the stored and the proposed object (writes and single reads), [`authorize_selection`] with the
//! field selector (lists and watches), and [`needs_reference`] with [`references`] for what pods mount.
//!
//! Invariants: default deny; a refusal is Kubernetes' sentence, with ours behind it where a reason is more than "no";
//! nothing here reads a clock or the store.

use serde_json::Value;
use weft_api::selector::FieldSelector;
use weft_api::status::StatusError;
use weft_kinds::lens::{items, text};

use crate::caller::{Caller, GROUP_BOOTSTRAPPERS, GROUP_MASTERS, GROUP_SERVERS};

/// Where servers are listed, and join.
pub const SERVERS_PATH: &str = "/weft/v1/servers";
/// Where nodes keep their leases.
const NODE_LEASES: &str = "kube-node-lease";

/// Labels that only the cluster's owner may give a node, so that a workload can be kept off stolen ones.
const RESTRICTED_LABELS: &str = "node-restriction.kubernetes.io/";

/// What is asked of a resource, in the words of Kubernetes' attributes.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: Option<&'a str>,
    pub namespace: Option<&'a str>,
    /// Absent in lists, watches and creates.
    pub name: Option<&'a str>,
}

impl Access<'_> {
    fn reads(&self) -> bool {
        matches!(self.verb, "get" | "list" | "watch")
    }

    fn is(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource
    }

    /// `may` is what the caller may do instead, as half a sentence; empty when there is nothing to say.
    fn refuse(&self, caller: &Caller, may: &str) -> StatusError {
        let resource = match self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource),
            None => self.resource.to_owned(),
        };
        let place = match self.namespace {
            Some(namespace) => format!("in the namespace {namespace:?}"),
            None => "at the cluster scope".to_owned(),
        };
        let mut detail = format!(
            "User {:?} cannot {} resource {resource:?} in API group {:?} {place}",
            caller.user(),
            self.verb,
            self.group
        );
        if !may.is_empty() {
            detail = format!("{detail}: {may}");
        }
        StatusError::forbidden(self.resource, self.group, self.name.unwrap_or(""), &detail)
    }
}

/// Decides what can be decided before anything is read.
///
/// # Errors
/// 403 in Kubernetes' form.
pub fn authorize(caller: &Caller, access: &Access<'_>) -> Result<(), StatusError> {
    if caller.in_group(GROUP_MASTERS) {
        return Ok(());
    }
    if caller.is_anonymous() {
        return Err(access.refuse(caller, ""));
    }
    let asks_about_itself = access.verb == "create"
        && matches!(
            (access.group, access.resource),
            (
                "authorization.k8s.io",
                "selfsubjectaccessreviews" | "selfsubjectrulesreviews"
            ) | ("authentication.k8s.io", "selfsubjectreviews")
        );
    if asks_about_itself {
        return Ok(());
    }
    if let Some(node) = caller.node_name() {
        return authorize_node(caller, node, access);
    }
    let requests_certificate = access.is("certificates.k8s.io", "certificatesigningrequests")
        && access.subresource.is_none()
        && matches!(access.verb, "create" | "get");
    if caller.in_group(GROUP_BOOTSTRAPPERS) && requests_certificate {
        return Ok(());
    }
    Err(access.refuse(caller, ""))
}

fn authorize_node(caller: &Caller, node: &str, access: &Access<'_>) -> Result<(), StatusError> {
    let named = |name: &str| access.name.is_none_or(|asked| asked == name);
    let (allowed, may) = match (access.group, access.resource, access.subresource) {
        ("", "services" | "namespaces" | "serviceaccounts", None)
        | ("discovery.k8s.io", "endpointslices", None)
        | ("gateway.networking.k8s.io", "httproutes" | "gateways" | "gatewayclasses", None) => {
            (access.reads(), "a node may only read it")
        }
        ("", "nodes", None) => (
            access.reads() || (matches!(access.verb, "create" | "update" | "patch") && named(node)),
            "a node may only change itself",
        ),
        ("", "nodes", Some("status")) => (
            access.verb == "get" || (matches!(access.verb, "update" | "patch") && named(node)),
            "a node may only change itself",
        ),
        // Whether the pod is bound to this node is seen on the object.
        ("", "pods", None) => (
            access.reads() || access.verb == "delete",
            "a node may only read and delete pods bound to it",
        ),
        ("", "pods", Some("status")) => (
            matches!(access.verb, "get" | "update" | "patch"),
            "a node may only report on pods",
        ),
        ("", "secrets" | "configmaps", None) => (
            access.verb == "get" && access.name.is_some(),
            "a node may only get by name what pods bound to it refer to",
        ),
        ("coordination.k8s.io", "leases", None) => (
            access.namespace == Some(NODE_LEASES)
                && matches!(
                    access.verb,
                    "get" | "create" | "update" | "patch" | "delete"
                )
                && named(node),
            "a node may only hold its own lease in kube-node-lease",
        ),
        ("" | "events.k8s.io", "events", None) => (
            matches!(access.verb, "create" | "update" | "patch"),
            "a node may only write events",
        ),
        ("certificates.k8s.io", "certificatesigningrequests", None) => (
            matches!(access.verb, "create" | "get"),
            "a node may only ask for certificates",
        ),
        _ => (false, ""),
    };
    if allowed {
        Ok(())
    } else {
        Err(access.refuse(caller, may))
    }
}

/// Whether [`authorize_object`] has a say in a read by this caller.
pub fn depends_on_object(caller: &Caller, access: &Access<'_>) -> bool {
    let requests = access.is("certificates.k8s.io", "certificatesigningrequests");
    !caller.in_group(GROUP_MASTERS) && (requests || caller.node_name().is_some())
}

/// Decides what depends on the object: `current` is the stored one (reads, updates, deletes), `proposed` the one that
/// would be stored. Callers other than nodes and bootstrappers are done with [`authorize`].
///
/// # Errors
/// 403 in Kubernetes' form, with the rule that was broken.
pub fn authorize_object(
    caller: &Caller,
    access: &Access<'_>,
    current: Option<&Value>,
    proposed: Option<&Value>,
) -> Result<(), StatusError> {
    if caller.in_group(GROUP_MASTERS) {
        return Ok(());
    }
    if access.is("certificates.k8s.io", "certificatesigningrequests")
        && let Some(current) = current
        && text(current, "/spec/username") != caller.user()
    {
        return Err(access.refuse(caller, "it was created by somebody else"));
    }
    let Some(node) = caller.node_name() else {
        return Ok(());
    };
    let objects = || current.into_iter().chain(proposed);
    let broken = match (access.group, access.resource) {
        ("", "pods") if objects().any(|pod| text(pod, "/spec/nodeName") != node) => {
            Some("the pod is not bound to this node")
        }
        ("", "nodes") if access.reads() => None,
        ("", "nodes") => node_write(node, access, current, proposed),
        ("coordination.k8s.io", "leases")
            if objects().any(|lease| text(lease, "/metadata/name") != node) =>
        {
            Some("a node may only hold its own lease in kube-node-lease")
        }
        _ => None,
    };
    match broken {
        Some(rule) => Err(access.refuse(caller, rule)),
        None => Ok(()),
    }
}

/// What a node must not do to itself: escape its taints, take labels that are reserved, or have itself garbage-collected.
fn node_write(
    node: &str,
    access: &Access<'_>,
    current: Option<&Value>,
    proposed: Option<&Value>,
) -> Option<&'static str> {
    let proposed = proposed?;
    if text(proposed, "/metadata/name") != node {
        return Some("a node may only change itself");
    }
    let same = |pointer: &str| {
        current.and_then(|current| current.pointer(pointer)) == proposed.pointer(pointer)
    };
    let owners = "/metadata/ownerReferences";
    if !items(proposed, owners).is_empty() && !same(owners) {
        return Some("a node may not give itself an owner");
    }
    let restricted = |object: Option<&Value>| -> Vec<(String, Value)> {
        let labels = object
            .and_then(|object| object.pointer("/metadata/labels"))
            .and_then(Value::as_object);
        labels
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.starts_with(RESTRICTED_LABELS))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    if restricted(current) != restricted(Some(proposed)) {
        return Some("a node may not change its labels under node-restriction.kubernetes.io/");
    }
    // At its creation a node may bring taints along; later ones belong to the cluster.
    if access.verb != "create" && current.is_some() && !same("/spec/taints") {
        return Some("a node may not change its taints");
    }
    if access.verb != "create" && current.is_some() && !same("/spec/podCIDR") {
        return Some("a node may not choose its pod CIDR");
    }
    None
}

/// Decides what depends on the selector of a list or watch: a node lists its own pods only.
///
/// # Errors
/// 403 in Kubernetes' form.
pub fn authorize_selection(
    caller: &Caller,
    access: &Access<'_>,
    fields: &FieldSelector,
) -> Result<(), StatusError> {
    let Some(node) = caller.node_name() else {
        return Ok(());
    };
    if caller.in_group(GROUP_MASTERS) || !access.is("", "pods") {
        return Ok(());
    }
    let own = fields.exact("spec.nodeName") == Some(node);
    if own {
        Ok(())
    } else {
        Err(access.refuse(caller, "a node must select its own pods with spec.nodeName"))
    }
}

/// Whether this read is allowed only if a pod bound to the calling node refers to the object.
pub fn needs_reference(caller: &Caller, access: &Access<'_>) -> bool {
    !caller.in_group(GROUP_MASTERS)
        && caller.node_name().is_some()
        && access.group.is_empty()
        && matches!(access.resource, "secrets" | "configmaps")
}

/// Whether `pod` is bound to the calling node and refers to the Secret or ConfigMap that is asked for.
pub fn references(caller: &Caller, access: &Access<'_>, pod: &Value) -> bool {
    let bound = caller
        .node_name()
        .is_some_and(|node| text(pod, "/spec/nodeName") == node);
    let same_namespace = access.namespace == Some(text(pod, "/metadata/namespace"));
    let Some(name) = access.name else {
        return false;
    };
    bound && same_namespace && refers(pod, access.resource == "secrets", name)
}

fn refers(pod: &Value, secret: bool, name: &str) -> bool {
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

/// Decides about URLs that are not resources.
///
/// # Errors
/// 403 in Kubernetes' form.
pub fn authorize_path(caller: &Caller, verb: &str, path: &str) -> Result<(), StatusError> {
    let under = |root: &str| {
        path == root
            || path
                .strip_prefix(root)
                .is_some_and(|rest| rest.starts_with('/'))
    };
    let everybody = verb == "get"
        && ["/healthz", "/livez", "/readyz", "/version"]
            .into_iter()
            .any(under);
    let authenticated = verb == "get" && ["/api", "/apis", "/openapi"].into_iter().any(under);
    // Nodes need the addresses of the servers; a server that joins, those and its place among them.
    let joins = caller.in_group(GROUP_SERVERS);
    let servers = path == SERVERS_PATH
        && match verb {
            "get" => joins || caller.node_name().is_some(),
            "post" => joins,
            _ => false,
        };
    let allowed = caller.in_group(GROUP_MASTERS)
        || everybody
        || servers
        || (authenticated && !caller.is_anonymous());
    if allowed {
        Ok(())
    } else {
        Err(StatusError::forbidden_message(format!(
            "forbidden: User {:?} cannot {verb} path {path:?}",
            caller.user()
        )))
    }
}

/// What a caller may do with the cluster's own image registry under `/v2/`: nodes pull, masters push too.
///
/// # Errors
/// 401 for the anonymous, so that a client offers its credentials; 403 otherwise.
pub fn authorize_registry(caller: &Caller, push: bool) -> Result<(), StatusError> {
    if caller.in_group(GROUP_MASTERS) || (!push && caller.node_name().is_some()) {
        return Ok(());
    }
    if caller.is_anonymous() {
        return Err(StatusError::unauthorized());
    }
    let action = if push { "push to" } else { "pull from" };
    Err(StatusError::forbidden_message(format!(
        "forbidden: User {:?} cannot {action} the registry",
        caller.user()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> Caller {
        Caller::client_certificate("system:node:a", vec!["system:nodes".to_owned()])
    }

    fn access<'a>(
        verb: &'a str,
        what: &'a str,
        namespace: Option<&'a str>,
        name: Option<&'a str>,
    ) -> Access<'a> {
        let (group, resource) = what.rsplit_once('/').unwrap_or(("", what));
        let (resource, subresource) = match resource.split_once('#') {
            Some((resource, subresource)) => (resource, Some(subresource)),
            None => (resource, None),
        };
        Access {
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
        }
    }

    #[test]
    fn before_anything_is_read() {
        let master = Caller::client_certificate("root", vec!["system:masters".to_owned()]);
        let user = Caller::client_certificate("jo", vec![]);
        let joining = Caller::bootstrap_token("abcdef", Vec::new());
        let anonymous = Caller::anonymous();
        let csr = "certificates.k8s.io/certificatesigningrequests";
        for (caller, verb, what, namespace, name, allowed) in [
            (&master, "delete", "nodes", None, Some("a"), true),
            (&user, "list", "pods", Some("x"), None, false),
            (
                &user,
                "create",
                "authorization.k8s.io/selfsubjectaccessreviews",
                None,
                None,
                true,
            ),
            (
                &anonymous,
                "create",
                "authorization.k8s.io/selfsubjectaccessreviews",
                None,
                None,
                false,
            ),
            (&anonymous, "get", "pods", Some("x"), Some("p"), false),
            (&joining, "create", csr, None, None, true),
            (&joining, "get", csr, None, Some("c"), true),
            (&joining, "list", csr, None, None, false),
            (&joining, "create", "nodes", None, None, false),
            (&node(), "create", csr, None, None, true),
            (&node(), "patch", "nodes", None, Some("a"), true),
            (&node(), "patch", "nodes", None, Some("b"), false),
            (&node(), "patch", "nodes#status", None, Some("b"), false),
            (&node(), "delete", "nodes", None, Some("a"), false),
            (&node(), "list", "nodes", None, None, true),
            (&node(), "create", "pods", Some("x"), None, false),
            (
                &node(),
                "create",
                "pods#binding",
                Some("x"),
                Some("p"),
                false,
            ),
            (&node(), "patch", "pods#status", Some("x"), Some("p"), true),
            (&node(), "patch", "pods", Some("x"), Some("p"), false),
            (&node(), "get", "secrets", Some("x"), Some("s"), true),
            (&node(), "list", "secrets", Some("x"), None, false),
            (&node(), "watch", "secrets", Some("x"), Some("s"), false),
            (&node(), "update", "services", Some("x"), Some("s"), false),
            (
                &node(),
                "watch",
                "gateway.networking.k8s.io/httproutes",
                None,
                None,
                true,
            ),
            (
                &node(),
                "update",
                "coordination.k8s.io/leases",
                Some("kube-node-lease"),
                Some("a"),
                true,
            ),
            (
                &node(),
                "update",
                "coordination.k8s.io/leases",
                Some("kube-node-lease"),
                Some("b"),
                false,
            ),
            (
                &node(),
                "update",
                "coordination.k8s.io/leases",
                Some("default"),
                Some("a"),
                false,
            ),
            (
                &node(),
                "create",
                "apps/deployments",
                Some("x"),
                None,
                false,
            ),
        ] {
            let got = authorize(caller, &access(verb, what, namespace, name));
            assert_eq!(got.is_ok(), allowed, "{caller} {verb} {what} {name:?}");
        }
    }

    #[test]
    fn refusals_are_kubernetes_sentences() {
        let user = Caller::client_certificate("u", vec![]);
        for (access, message) in [
            (
                access("list", "pods", Some("x"), None),
                r#"pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "x""#,
            ),
            (
                access("get", "apps/deployments#scale", Some("x"), Some("web")),
                r#"deployments.apps "web" is forbidden: User "u" cannot get resource "deployments/scale" in API group "apps" in the namespace "x""#,
            ),
            (
                access("list", "nodes", None, None),
                r#"nodes is forbidden: User "u" cannot list resource "nodes" in API group "" at the cluster scope"#,
            ),
        ] {
            let error = authorize(&user, &access).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (403, message));
        }
        let path = authorize_path(&Caller::anonymous(), "get", "/metrics").unwrap_err();
        assert_eq!(
            path.message,
            r#"forbidden: User "system:anonymous" cannot get path "/metrics""#
        );
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
        for (verb, what, current, proposed, broken) in [
            ("patch", "pods#status", Some(&mine), Some(&mine), ""),
            (
                "get",
                "pods",
                Some(&other),
                None,
                "the pod is not bound to this node",
            ),
            (
                "patch",
                "pods#status",
                Some(&mine),
                Some(&other),
                "the pod is not bound to this node",
            ),
            (
                "delete",
                "pods",
                Some(&other),
                None,
                "the pod is not bound to this node",
            ),
            ("get", "nodes", Some(&named_b), None, ""),
            ("create", "nodes", None, Some(&plain), ""),
            (
                "create",
                "nodes",
                None,
                Some(&named_b),
                "a node may only change itself",
            ),
            (
                "update",
                "nodes",
                Some(&plain),
                Some(&owned),
                "a node may not give itself an owner",
            ),
            (
                "update",
                "nodes",
                Some(&plain),
                Some(&labelled),
                "a node may not change its labels under node-restriction.kubernetes.io/",
            ),
            (
                "update",
                "nodes",
                Some(&plain),
                Some(&untainted),
                "a node may not change its taints",
            ),
        ] {
            let got = authorize_object(&node(), &access(verb, what, None, None), current, proposed);
            let rule = got.err().map_or(String::new(), |error| {
                error.message.rsplit(": ").next().unwrap().to_owned()
            });
            assert_eq!(rule, broken, "{verb} {what}");
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
            let access = access("get", what, Some("x"), Some(name));
            assert!(needs_reference(&node(), &access));
            assert_eq!(
                references(&node(), &access, &pod),
                expected,
                "{what} {name}"
            );
        }
        let elsewhere = access("get", "secrets", Some("y"), Some("s1"));
        assert!(!references(&node(), &elsewhere, &pod));
    }
}
