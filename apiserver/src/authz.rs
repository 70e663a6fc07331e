//! Who may do what: pure decisions over the caller and what is asked.
//!
//! Until roles are served there are four kinds of caller. `system:masters` may do everything. A node (`system:nodes`)
//! may read what it needs to serve traffic and change only itself, its lease and the pods bound to it. A holder of a
//! bootstrap token may ask for a node certificate. Everybody else, and above all the anonymous, may do nothing but look at
//! health, version and, once authenticated, discovery.
//!
//! There is one seam: [`authorize`], before anything is read. Who passes it holds an [`Authorized`], without which
//! `crate::objects` does nothing, whether the request came over HTTP or from inside the process. Roles will be another
//! implementation of [`decide`]. What depends on the object is a step of its own, `crate::node_restriction`.
//!
//! Invariants: default deny; a refusal is Kubernetes' sentence, with ours behind it where a reason is more than "no";
//! an [`Authorized`] has one constructor, and a verb serves only the request that it was given for; nothing here reads a
//! clock or the store.

use std::sync::Arc;

use weft_api::status::StatusError;
use weft_kinds::KindRef;

use crate::caller::{Caller, GROUP_BOOTSTRAPPERS, GROUP_MASTERS, GROUP_SERVERS};
use crate::request::{Asked, ObjectRef, RequestInfo, Resource};

/// Where servers are listed, and join.
pub const SERVERS_PATH: &str = "/weft/v1/servers";
/// Where nodes keep their leases.
const NODE_LEASES: &str = "kube-node-lease";

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

#[cfg(test)]
impl<'a> Access<'a> {
    /// Of `GROUP/RESOURCE#SUBRESOURCE`, without the parts that there are not.
    pub(crate) fn of(
        verb: &'a str,
        what: &'a str,
        namespace: Option<&'a str>,
        name: Option<&'a str>,
    ) -> Self {
        let (group, resource) = what.rsplit_once('/').unwrap_or(("", what));
        let (resource, subresource) = match resource.split_once('#') {
            Some((resource, subresource)) => (resource, Some(subresource)),
            None => (resource, None),
        };
        Self {
            verb,
            group,
            resource,
            subresource,
            namespace,
            name,
        }
    }
}

impl Access<'_> {
    pub(crate) fn reads(&self) -> bool {
        matches!(self.verb, "get" | "list" | "watch")
    }

    pub(crate) fn is_resource(&self, group: &str, resource: &str) -> bool {
        self.group == group && self.resource == resource
    }

    /// The refusal; `reason` is the rule that was broken, as half a sentence, and empty when there is nothing to say.
    pub(crate) fn forbidden(&self, caller: &Caller, reason: &str) -> StatusError {
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
        if !reason.is_empty() {
            detail = format!("{detail}: {reason}");
        }
        StatusError::forbidden(self.resource, self.group, self.name.unwrap_or(""), &detail)
    }
}

/// A request whose caller may make it, as far as can be told before anything is read. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Authorized {
    caller: Caller,
    request: Arc<RequestInfo>,
}

/// The seam: every request passes it once, those from inside the process too.
///
/// # Errors
/// 403 in Kubernetes' form.
pub fn authorize(
    caller: Caller,
    request: impl Into<Arc<RequestInfo>>,
) -> Result<Authorized, StatusError> {
    let request = request.into();
    match (&request.asked, request.access()) {
        (_, Some(access)) => decide(&caller, &access)?,
        (Asked::Path(path), None) => decide_path(&caller, request.verb, path)?,
        // It refuses in the words of its own protocol, and before it reads anything: [`authorize_registry`].
        _ => {}
    }
    Ok(Authorized { caller, request })
}

impl Authorized {
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    pub fn request(&self) -> &Arc<RequestInfo> {
        &self.request
    }

    /// What was allowed; nothing for what is no resource.
    pub(crate) fn access(&self) -> Option<Access<'_>> {
        self.request.access()
    }

    /// The resource that is asked for by one of these verbs.
    ///
    /// # Errors
    /// 500 for a request that was allowed as something else: serving it would be doing what nobody decided about.
    pub(crate) fn resource(&self, verbs: &[&str]) -> Result<&Resource, StatusError> {
        match &self.request.asked {
            Asked::Resource(resource) if verbs.contains(&self.request.verb) => Ok(resource),
            asked => Err(StatusError::internal(format!(
                "a request allowed to {} {asked:?} reached a verb that does {}",
                self.request.verb,
                verbs.join(" and ")
            ))),
        }
    }

    /// The object that is asked for by this verb, itself or something below it.
    ///
    /// # Errors
    /// 500 as above; 405 for a collection.
    pub(crate) fn object(&self, verb: &str) -> Result<(ObjectRef<'_>, &Resource), StatusError> {
        let resource = self.resource(&[verb])?;
        let object = resource.object();
        Ok((
            object.ok_or_else(StatusError::method_not_allowed)?,
            resource,
        ))
    }

    /// Kind and namespace of the objects that are asked for by this verb.
    ///
    /// # Errors
    /// As [`Authorized::object`]; 405 for a single object.
    pub(crate) fn collection(
        &self,
        verb: &str,
    ) -> Result<(KindRef<'_>, Option<&str>), StatusError> {
        let resource = self.resource(&[verb])?;
        match resource.name {
            None => Ok((&resource.kind, resource.namespace.as_deref())),
            Some(_) => Err(StatusError::method_not_allowed()),
        }
    }
}

/// Decides whether a caller has an access, before anything is read.
///
/// # Errors
/// 403 in Kubernetes' form.
pub(crate) fn decide(caller: &Caller, access: &Access<'_>) -> Result<(), StatusError> {
    if caller.in_group(GROUP_MASTERS) {
        return Ok(());
    }
    if caller.is_anonymous() {
        return Err(access.forbidden(caller, ""));
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
        return decide_node(caller, node, access);
    }
    let requests_certificate = access
        .is_resource("certificates.k8s.io", "certificatesigningrequests")
        && access.subresource.is_none()
        && matches!(access.verb, "create" | "get");
    if caller.in_group(GROUP_BOOTSTRAPPERS) && requests_certificate {
        return Ok(());
    }
    Err(access.forbidden(caller, ""))
}

fn decide_node(caller: &Caller, node: &str, access: &Access<'_>) -> Result<(), StatusError> {
    let named = |name: &str| access.name.is_none_or(|asked| asked == name);
    let (allowed, rule) = match (access.group, access.resource, access.subresource) {
        ("", "services" | "namespaces" | "serviceaccounts", None)
        | ("discovery.k8s.io", "endpointslices", None)
        | (
            "gateway.networking.k8s.io",
            "httproutes" | "gateways" | "gatewayclasses" | "referencegrants",
            None,
        )
        | ("weft.dev", "capabilitygrants" | "keyvaluestores", None) => {
            (access.reads(), "a node may only read it")
        }
        // Whether a pod that it names runs there, and is granted the store, is seen on the objects.
        ("weft.dev", "keyvaluestores", Some("data")) => (
            access.verb == "create",
            "a node may only use key-value stores for its pods",
        ),
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
        Err(access.forbidden(caller, rule))
    }
}

/// Decides about URLs that are not resources.
///
/// # Errors
/// 403 in Kubernetes' form.
pub(crate) fn decide_path(caller: &Caller, verb: &str, path: &str) -> Result<(), StatusError> {
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

    fn node() -> Caller {
        Caller::client_certificate("system:node:a", vec!["system:nodes".to_owned()])
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
                "list",
                "weft.dev/capabilitygrants",
                None,
                None,
                true,
            ),
            (
                &node(),
                "patch",
                "weft.dev/capabilitygrants",
                Some("x"),
                Some("g"),
                false,
            ),
            (
                &node(),
                "create",
                "weft.dev/keyvaluestores#data",
                Some("x"),
                Some("s"),
                true,
            ),
            (
                &node(),
                "patch",
                "weft.dev/keyvaluestores#status",
                Some("x"),
                Some("s"),
                false,
            ),
            (
                &user,
                "create",
                "weft.dev/keyvaluestores#data",
                Some("x"),
                Some("s"),
                false,
            ),
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
            let got = decide(caller, &Access::of(verb, what, namespace, name));
            assert_eq!(got.is_ok(), allowed, "{caller} {verb} {what} {name:?}");
        }
    }

    #[test]
    fn refusals_are_kubernetes_sentences() {
        let user = Caller::client_certificate("u", vec![]);
        for (access, message) in [
            (
                Access::of("list", "pods", Some("x"), None),
                r#"pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "x""#,
            ),
            (
                Access::of("get", "apps/deployments#scale", Some("x"), Some("web")),
                r#"deployments.apps "web" is forbidden: User "u" cannot get resource "deployments/scale" in API group "apps" in the namespace "x""#,
            ),
            (
                Access::of("list", "nodes", None, None),
                r#"nodes is forbidden: User "u" cannot list resource "nodes" in API group "" at the cluster scope"#,
            ),
        ] {
            let error = decide(&user, &access).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (403, message));
        }
        let path = decide_path(&Caller::anonymous(), "get", "/metrics").unwrap_err();
        assert_eq!(
            path.message,
            r#"forbidden: User "system:anonymous" cannot get path "/metrics""#
        );
    }

    #[test]
    fn who_was_allowed_one_thing_is_served_no_other() {
        let admin = Caller::client_certificate("root", vec!["system:masters".to_owned()]);
        let pod = ObjectRef {
            kind: &weft_kinds::POD,
            namespace: Some("x"),
            name: "p",
        };
        let asked = authorize(admin, RequestInfo::of_object("get", pod, None)).unwrap();
        assert_eq!(asked.object("get").unwrap().0.name, "p");
        assert_eq!(asked.object("delete").err().unwrap().code, 500);
        assert_eq!(asked.collection("get").err().unwrap().code, 405);
        let anybody = Caller::client_certificate("jo", vec![]);
        let refused = authorize(anybody, RequestInfo::of_object("get", pod, None));
        assert_eq!(refused.err().unwrap().code, 403);
    }
}
