//! Who may do what: by the groups that may do everything, by what a node is, and by roles.
//!
//! Asked in this order, and the first that says yes decides: whether the caller is in `system:masters`; what nodes may ([`node`]); what one may
//! who has yet to join; then the roles that are bound to him or his groups ([`roles`]). Nobody but those says yes. What a role gives is read
//! from the store, so what every cluster has of roles is an object like any other (`weft_kinds::rbac`).
//!
//! There is one seam: [`Authorizer::authorize`], before anything is read. Who passes it holds an [`Authorized`], without which
//! `crate::objects` does nothing, whether the request came over HTTP or from inside the process. What depends on the object is a step of its
//! own: `crate::node_restriction`, and for roles and bindings themselves, [`grants`].
//!
//! Invariants: default deny; a refusal is Kubernetes' sentence, with a reason behind it where that is more than "no"; an [`Authorized`] has one
//! constructor, and a verb serves only the request that it was given for; nothing here reads a clock.

mod grants;
mod node;
mod roles;

use std::sync::Arc;

use serde_json::{Value, json};
use weft_api::status::StatusError;
use weft_kinds::KindRef;
use weft_kinds::rbac::rules::{Asked as Question, Rule, full_authority};
use weft_store::Store;

use self::roles::Roles;
use crate::caller::{Caller, GROUP_BOOTSTRAPPERS, GROUP_MASTERS, GROUP_SERVERS};
use crate::encryption::Vault;
use crate::request::{Asked, ObjectRef, RequestInfo, Resource};

/// Where servers are listed, and join.
pub const SERVERS_PATH: &str = "/weft/v1/servers";
/// Where the cluster's authorities are.
pub const ROOTS_PATH: &str = "/weft/v1/roots";
/// What anybody may ask, whatever roles there are: whether this server is there, and for balancers, whether it has a leader.
const ALWAYS: [&str; 4] = ["/healthz", "/livez", "/readyz", "/readyz/store"];

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
    reason: Arc<str>,
}

impl Authorized {
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    pub fn request(&self) -> &Arc<RequestInfo> {
        &self.request
    }

    /// By what it was allowed, in Kubernetes' words; empty for who may do everything.
    pub(crate) fn reason(&self) -> &str {
        &self.reason
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

/// What came of a question, and why, in Kubernetes' words; the reason of a refusal is half a sentence, empty where there is nothing to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
}

impl Decision {
    fn yes(reason: String) -> Self {
        Self {
            allowed: true,
            reason,
        }
    }

    fn no(reason: String) -> Self {
        Self {
            allowed: false,
            reason,
        }
    }
}

/// Decides, by roles as this server's store has them. Cheap to clone; clones share what was read of them.
#[derive(Clone)]
pub struct Authorizer {
    roles: Arc<Roles>,
}

impl Authorizer {
    pub(crate) fn new(store: Store, vault: Vault) -> Self {
        Self {
            roles: Arc::new(Roles::new(store, vault)),
        }
    }

    /// Comes once roles are known as far as this server was told of them: what somebody was given here a moment ago, he has.
    pub async fn settle(&self) {
        self.roles.settle().await;
    }

    /// The seam: every request passes it once, those from inside the process too.
    ///
    /// # Errors
    /// 403 in Kubernetes' form.
    pub fn authorize(
        &self,
        caller: Caller,
        request: impl Into<Arc<RequestInfo>>,
    ) -> Result<Authorized, StatusError> {
        let request = request.into();
        let reason = match (&request.asked, request.access()) {
            (_, Some(access)) => self.check(&caller, &access)?,
            (Asked::Path(path), None) => self.check_path(&caller, request.verb, path)?,
            (Asked::Aggregated(one), None) => self.check_path(&caller, request.verb, &one.path)?,
            // It refuses in the words of its own protocol, and before it reads anything: [`authorize_registry`].
            _ => String::new(),
        };
        Ok(Authorized {
            caller,
            request,
            reason: reason.into(),
        })
    }

    /// Decides whether a caller has an access, before anything is read; by what he has it.
    ///
    /// # Errors
    /// 403 in Kubernetes' form.
    pub(crate) fn check(
        &self,
        caller: &Caller,
        access: &Access<'_>,
    ) -> Result<String, StatusError> {
        let decision = self.decide(caller, access);
        match decision.allowed {
            true => Ok(decision.reason),
            false => Err(access.forbidden(caller, &decision.reason)),
        }
    }

    pub(crate) fn decide(&self, caller: &Caller, access: &Access<'_>) -> Decision {
        if caller.in_group(GROUP_MASTERS) {
            return Decision::yes(String::new());
        }
        let mut rule = "";
        if let Some(node) = caller.node_name() {
            match node::decide(node, access) {
                Ok(()) => return Decision::yes(String::new()),
                Err(broken) => rule = broken,
            }
        }
        let requests_certificate = access
            .is_resource("certificates.k8s.io", "certificatesigningrequests")
            && access.subresource.is_none()
            && matches!(access.verb, "create" | "get");
        if caller.in_group(GROUP_BOOTSTRAPPERS) && requests_certificate {
            return Decision::yes(String::new());
        }
        if caller.lapsed().is_some() && requests_certificate && access.verb == "create" {
            return Decision::yes(String::new());
        }
        let question = Question {
            verb: access.verb,
            group: access.group,
            resource: access.resource,
            subresource: access.subresource.unwrap_or(""),
            name: access.name.unwrap_or(""),
        };
        let by_roles = self.roles.decide(caller, access.namespace, &|rule: &Rule| {
            rule.allows(&question)
        });
        match rule {
            "" => by_roles,
            _ if by_roles.allowed => by_roles,
            rule => Decision::no(rule.to_owned()),
        }
    }

    /// # Errors
    /// 403 in Kubernetes' form.
    pub(crate) fn check_path(
        &self,
        caller: &Caller,
        verb: &str,
        path: &str,
    ) -> Result<String, StatusError> {
        let Decision { allowed, reason } = self.decide_path(caller, verb, path);
        if allowed {
            return Ok(reason);
        }
        let mut why = format!(
            "forbidden: User {:?} cannot {verb} path {path:?}",
            caller.user()
        );
        if !reason.is_empty() {
            why = format!("{why}: {reason}");
        }
        Err(StatusError::forbidden_message(why))
    }

    /// Decides about URLs that are not resources.
    pub(crate) fn decide_path(&self, caller: &Caller, verb: &str, path: &str) -> Decision {
        // Nodes need the addresses of the servers; a server that joins, those and its place among them.
        let joins = caller.in_group(GROUP_SERVERS);
        let servers = path == SERVERS_PATH
            && match verb {
                "get" => joins || caller.node_name().is_some(),
                "post" => joins,
                _ => false,
            };
        // What they trust; there is nothing secret in it.
        let roots = path == ROOTS_PATH && verb == "get" && caller.node_name().is_some();
        if servers || roots || caller.in_group(GROUP_MASTERS) {
            return Decision::yes(String::new());
        }
        let allows = |rule: &Rule| rule.allows_path(verb, path);
        let by_roles = self.roles.decide(caller, None, &allows);
        let always = verb == "get" && ALWAYS.contains(&path);
        match always && !by_roles.allowed {
            true => Decision::yes(String::new()),
            false => by_roles,
        }
    }

    /// What a caller may do in a namespace, as a SelfSubjectRulesReview tells it.
    pub(crate) fn rules_of(&self, caller: &Caller, namespace: &str) -> Value {
        let (mut rules, mut faults) = self.roles.rules_of(caller, Some(namespace));
        if caller.in_group(GROUP_MASTERS) && !full_authority().iter().all(|one| rules.contains(one))
        {
            rules.splice(0..0, full_authority());
        }
        let is_node = caller.node_name().is_some();
        if is_node {
            faults.insert(
                0,
                "node authorizer does not support user rule resolution".to_owned(),
            );
        }
        let of_resources = rules.iter().filter(|rule| !rule.resources.is_empty());
        let of_paths = rules.iter().filter(|rule| !rule.paths.is_empty());
        let resource_rules: Vec<Value> = of_resources.map(Rule::to_value).collect();
        let path_rules: Vec<Value> = of_paths.map(Rule::to_value).collect();
        let mut status = json!({
            "resourceRules": resource_rules, "nonResourceRules": path_rules, "incomplete": is_node,
        });
        if !faults.is_empty() {
            status["evaluationError"] = aggregate(&faults).into();
        }
        status
    }
}

/// Several sentences as one, as Kubernetes' aggregates are written.
fn aggregate(told: &[String]) -> String {
    match told {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
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

    /// Of a store without any role.
    async fn bare(dir: &std::path::Path) -> Authorizer {
        let store = Store::open(weft_store::Config::new(dir)).await.unwrap();
        let mut leadership = store.leadership();
        leadership.wait_for(Option::is_some).await.unwrap();
        Authorizer::new(store.clone(), Vault::new(store, None))
    }

    #[tokio::test]
    async fn before_anything_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let authorizer = bare(dir.path()).await;
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
                false,
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
            let got = authorizer.decide(caller, &Access::of(verb, what, namespace, name));
            assert_eq!(got.allowed, allowed, "{caller} {verb} {what} {name:?}");
        }
    }

    #[tokio::test]
    async fn refusals_are_kubernetes_sentences() {
        let dir = tempfile::tempdir().unwrap();
        let authorizer = bare(dir.path()).await;
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
            let error = authorizer.check(&user, &access).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (403, message));
        }
        let request = RequestInfo::of_path("get", "/metrics");
        let refused = authorizer.authorize(Caller::anonymous(), request);
        assert_eq!(
            refused.err().unwrap().message,
            r#"forbidden: User "system:anonymous" cannot get path "/metrics""#
        );
        let health = authorizer.decide_path(&Caller::anonymous(), "get", "/livez");
        assert!(health.allowed);
        for path in ["/livez/ping", "/version", "/api"] {
            let decision = authorizer.decide_path(&user, "get", path);
            assert!(!decision.allowed, "{path}");
        }
    }

    #[tokio::test]
    async fn who_was_allowed_one_thing_is_served_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let authorizer = bare(dir.path()).await;
        let admin = Caller::client_certificate("root", vec!["system:masters".to_owned()]);
        let pod = ObjectRef {
            kind: &weft_kinds::POD,
            namespace: Some("x"),
            name: "p",
        };
        let asked = RequestInfo::of_object("get", pod, None);
        let asked = authorizer.authorize(admin, asked).unwrap();
        assert_eq!(asked.object("get").unwrap().0.name, "p");
        assert_eq!(asked.object("delete").err().unwrap().code, 500);
        assert_eq!(asked.collection("get").err().unwrap().code, 405);
        let anybody = Caller::client_certificate("jo", vec![]);
        let refused = RequestInfo::of_object("get", pod, None);
        let refused = authorizer.authorize(anybody, refused);
        assert_eq!(refused.err().unwrap().code, 403);
    }
}
