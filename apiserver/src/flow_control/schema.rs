//! Which requests a FlowSchema is about, and what tells the flows of one apart.
//!
//! A schema is read once for each of its states; judging a request by it copies nothing. Pure. Invariants: chosen from proof (a caller and a
//! request that were authenticated and decoded), never from what a client says of itself; what cannot be read matches nothing. After Kubernetes'
//! `pkg/util/flowcontrol`.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value;
use weft_kinds::lens::{flag, integer, items, text};

use crate::authz::Access;
use crate::caller::{Caller, service_account_parts};
use crate::request::{Asked, RequestInfo};

/// What stands for everything, where it stands alone.
const ALL: &str = "*";

/// What a request is about.
#[derive(Clone, Copy)]
pub(super) enum About<'a> {
    Resource(Access<'a>),
    Path { verb: &'a str, path: &'a str },
}

impl<'a> About<'a> {
    pub(super) fn of(info: &'a RequestInfo) -> Self {
        if let Some(access) = info.access() {
            return Self::Resource(access);
        }
        let path = match &info.asked {
            Asked::Path(path) => path,
            Asked::Aggregated(one) => one.path.as_str(),
            _ => "",
        };
        Self::Path {
            verb: info.verb,
            path,
        }
    }
}

enum Subject {
    User(String),
    Group(String),
    ServiceAccount { namespace: String, name: String },
}

impl Subject {
    fn of(value: &Value) -> Option<Self> {
        let own = |pointer: &str| Some(text(value, pointer).to_owned()).filter(|it| !it.is_empty());
        Some(match text(value, "/kind") {
            "User" => Self::User(own("/user/name")?),
            "Group" => Self::Group(own("/group/name")?),
            "ServiceAccount" => Self::ServiceAccount {
                namespace: own("/serviceAccount/namespace")?,
                name: own("/serviceAccount/name")?,
            },
            _ => return None,
        })
    }

    fn is(&self, caller: &Caller) -> bool {
        match self {
            Self::User(name) => name == ALL || name == caller.user(),
            Self::Group(name) => name == ALL || caller.in_group(name),
            Self::ServiceAccount { namespace, name } => service_account_parts(caller.user())
                .is_some_and(|(its, own)| its == namespace && (name == ALL || own == name)),
        }
    }
}

/// A list of words, or all of them.
struct Words(Vec<String>);

impl Words {
    fn of(value: &Value, pointer: &str) -> Self {
        let words = items(value, pointer).iter().filter_map(Value::as_str);
        Self(words.map(str::to_owned).collect())
    }

    fn are_all(&self) -> bool {
        matches!(self.0.as_slice(), [one] if one == ALL)
    }

    fn have(&self, word: &str) -> bool {
        self.are_all() || self.0.iter().any(|own| own == word)
    }

    /// Of resources and what is below them.
    fn have_resource(&self, access: &Access<'_>) -> bool {
        let fits = |own: &String| match (own.split_once('/'), access.subresource) {
            (Some((resource, part)), Some(asked)) => resource == access.resource && part == asked,
            (None, None) => own == access.resource,
            _ => false,
        };
        self.are_all() || self.0.iter().any(fits)
    }

    /// Of paths, and what is below them.
    fn have_path(&self, path: &str) -> bool {
        self.0.iter().any(|own| {
            let above = own.strip_suffix('*').unwrap_or(own);
            let above = above.strip_suffix('/').unwrap_or(above);
            let below = path.strip_prefix(above);
            own == ALL || own == path || below.is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

struct ResourceRule {
    verbs: Words,
    groups: Words,
    resources: Words,
    namespaces: Words,
    cluster: bool,
}

struct PathRule {
    verbs: Words,
    paths: Words,
}

struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

impl Rule {
    fn of(value: &Value) -> Self {
        let resource = |rule: &Value| ResourceRule {
            verbs: Words::of(rule, "/verbs"),
            groups: Words::of(rule, "/apiGroups"),
            resources: Words::of(rule, "/resources"),
            namespaces: Words::of(rule, "/namespaces"),
            cluster: flag(rule, "/clusterScope"),
        };
        let path = |rule: &Value| PathRule {
            verbs: Words::of(rule, "/verbs"),
            paths: Words::of(rule, "/nonResourceURLs"),
        };
        let subjects = items(value, "/subjects").iter();
        Self {
            subjects: subjects.filter_map(Subject::of).collect(),
            resources: items(value, "/resourceRules")
                .iter()
                .map(resource)
                .collect(),
            paths: items(value, "/nonResourceRules").iter().map(path).collect(),
        }
    }

    fn fits(&self, caller: &Caller, about: About<'_>) -> bool {
        if !self.subjects.iter().any(|subject| subject.is(caller)) {
            return false;
        }
        match about {
            About::Resource(access) => self.resources.iter().any(|rule| {
                let there = match access.namespace {
                    Some(namespace) => rule.namespaces.have(namespace),
                    None => rule.cluster,
                };
                there
                    && rule.verbs.have(access.verb)
                    && rule.groups.have(access.group)
                    && rule.resources.have_resource(&access)
            }),
            About::Path { verb, path } => {
                let mut rules = self.paths.iter();
                rules.any(|rule| rule.verbs.have(verb) && rule.paths.have_path(path))
            }
        }
    }
}

/// What tells the flows of a schema apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    /// They are all one.
    None,
    ByUser,
    ByNamespace,
}

/// A FlowSchema, as it is applied.
pub(super) struct Schema {
    pub name: String,
    pub precedence: i64,
    /// The level that it names.
    pub level: String,
    method: Method,
    rules: Vec<Rule>,
}

impl Schema {
    pub(super) fn of(value: &Value) -> Self {
        Self {
            name: text(value, "/metadata/name").to_owned(),
            precedence: integer(value, "/spec/matchingPrecedence").unwrap_or(i64::MAX),
            level: text(value, "/spec/priorityLevelConfiguration/name").to_owned(),
            method: match text(value, "/spec/distinguisherMethod/type") {
                "ByUser" => Method::ByUser,
                "ByNamespace" => Method::ByNamespace,
                _ => Method::None,
            },
            rules: items(value, "/spec/rules").iter().map(Rule::of).collect(),
        }
    }

    pub(super) fn fits(&self, caller: &Caller, about: About<'_>) -> bool {
        self.rules.iter().any(|rule| rule.fits(caller, about))
    }

    /// Of which flow a request is: a hash of the schema and of what tells its flows apart.
    pub(super) fn flow(&self, caller: &Caller, about: About<'_>) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.name.as_str(), self.distinguisher(caller, about)).hash(&mut hasher);
        hasher.finish()
    }

    fn distinguisher<'a>(&self, caller: &'a Caller, about: About<'a>) -> &'a str {
        match (self.method, about) {
            (Method::ByUser, _) => caller.user(),
            (Method::ByNamespace, About::Resource(access)) => access.namespace.unwrap_or(""),
            (Method::None | Method::ByNamespace, _) => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method as Verb;
    use serde_json::json;
    use weft_kinds::Registry;
    use weft_kinds::flowcontrol;

    use super::*;

    fn info(line: &str) -> RequestInfo {
        let (verb, path) = line.split_once(' ').unwrap();
        let verb: Verb = verb.parse().unwrap();
        RequestInfo::of(&Registry::builtin(), &verb, &path.parse().unwrap())
    }

    /// The schemas that every cluster has, in the order that they are asked in.
    fn suggested() -> Vec<Schema> {
        let objects = flowcontrol::pieces().map(|piece| piece.object);
        let schemas = objects.filter(|object| object["kind"] == "FlowSchema");
        let mut schemas: Vec<Schema> = schemas.map(|object| Schema::of(&object)).collect();
        schemas.sort_by(|one, other| {
            (one.precedence, &one.name).cmp(&(other.precedence, &other.name))
        });
        schemas
    }

    #[test]
    fn schemas_follow_from_who_asks_and_for_what() {
        let schemas = suggested();
        let groups = |name: &str| vec![name.to_owned()];
        let node = Caller::client_certificate("system:node:a", groups("system:nodes"));
        let admin = Caller::client_certificate("root", groups("system:masters"));
        let user = Caller::client_certificate("jo", vec![]);
        let account = Caller::service_account("shop", "web", None);
        let system = Caller::service_account("kube-system", "coredns", None);
        let scheduler = Caller::client_certificate("system:kube-scheduler", vec![]);
        let lease = "PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a";
        let data = "POST /apis/weft.dev/v1alpha1/namespaces/x/keyvaluestores/s/data";
        for (caller, line, schema, level) in [
            (&node, lease, "system-node-high", "node-high"),
            (
                &node,
                "PATCH /api/v1/nodes/a/status",
                "system-node-high",
                "node-high",
            ),
            (&node, "GET /api/v1/nodes", "system-node-high", "node-high"),
            (&node, data, "system-node-data", "node-data"),
            (
                &node,
                "PATCH /api/v1/namespaces/x/pods/p/status",
                "system-nodes",
                "system",
            ),
            (&node, "GET /weft/v1/servers", "system-nodes", "system"),
            (&admin, lease, "exempt", "exempt"),
            (&admin, "POST /api/v1/namespaces/x/pods", "exempt", "exempt"),
            (&user, lease, "global-default", "global-default"),
            (&user, data, "global-default", "global-default"),
            (&account, lease, "service-accounts", "workload-low"),
            (
                &system,
                "PUT /apis/coordination.k8s.io/v1/namespaces/x/leases/a",
                "system-leader-election",
                "leader-election",
            ),
            (
                &system,
                "GET /api/v1/endpoints",
                "kube-system-service-accounts",
                "workload-high",
            ),
            (
                &scheduler,
                "GET /api/v1/pods",
                "kube-scheduler",
                "workload-high",
            ),
            (&Caller::anonymous(), "GET /livez/ping", "probes", "exempt"),
            (
                &Caller::anonymous(),
                "GET /version",
                "global-default",
                "global-default",
            ),
        ] {
            let info = info(line);
            let about = About::of(&info);
            let found = schemas.iter().find(|schema| schema.fits(caller, about));
            let found = found.unwrap();
            assert_eq!(
                (found.name.as_str(), found.level.as_str()),
                (schema, level),
                "{caller} {line}"
            );
        }
    }

    #[test]
    fn rules_are_read_word_by_word() {
        let schema = |rule: Value| {
            let mut rule = rule;
            if rule.get("subjects").is_none() {
                rule["subjects"] = json!([{"kind": "Group", "group": {"name": "*"}}]);
            }
            Schema::of(&json!({"metadata": {"name": "s"}, "spec": {"rules": [rule]}}))
        };
        let resources = |field: &str, words: Value| {
            let mut rule = json!({
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"],
            });
            rule[field] = words;
            schema(json!({"resourceRules": [rule]}))
        };
        let paths = |words: Value| {
            schema(json!({"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": words}]}))
        };
        let subject = |subject: Value| {
            schema(json!({
                "subjects": [subject],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            }))
        };
        let of_account = |name: &str| {
            subject(json!({
                "kind": "ServiceAccount", "serviceAccount": {"namespace": "shop", "name": name},
            }))
        };
        let account = Caller::service_account("shop", "web", None);
        let other = Caller::service_account("shopping", "web", None);
        let pods = "GET /api/v1/namespaces/a/pods";
        for (schema, caller, line, fits) in [
            (resources("verbs", json!(["list"])), &account, pods, true),
            (resources("verbs", json!(["get"])), &account, pods, false),
            (resources("apiGroups", json!([""])), &account, pods, true),
            (
                resources("apiGroups", json!(["apps"])),
                &account,
                pods,
                false,
            ),
            (resources("namespaces", json!(["b"])), &account, pods, false),
            (resources("namespaces", json!(["a"])), &account, pods, true),
            (
                resources("namespaces", json!(["*"])),
                &account,
                "GET /api/v1/pods",
                false,
            ),
            (
                resources("clusterScope", json!(true)),
                &account,
                "GET /api/v1/pods",
                true,
            ),
            // A star beside others is a word.
            (
                resources("resources", json!(["*", "x"])),
                &account,
                pods,
                false,
            ),
            (
                resources("resources", json!(["pods"])),
                &account,
                pods,
                true,
            ),
            (
                resources("resources", json!(["pods"])),
                &account,
                "GET /api/v1/namespaces/a/pods/p/log",
                false,
            ),
            (
                resources("resources", json!(["pods/log"])),
                &account,
                "GET /api/v1/namespaces/a/pods/p/log",
                true,
            ),
            (paths(json!(["/healthz"])), &account, "GET /healthz", true),
            (
                paths(json!(["/healthz"])),
                &account,
                "GET /healthz/ping",
                true,
            ),
            (paths(json!(["/healthz"])), &account, "GET /healthzy", false),
            (paths(json!(["/api/*"])), &account, "GET /api/nothing", true),
            (paths(json!(["/"])), &account, "GET /anything", true),
            (paths(json!(["*"])), &account, "POST /anything", false),
            (of_account("web"), &account, "GET /version", true),
            (of_account("*"), &account, "GET /version", true),
            (of_account("other"), &account, "GET /version", false),
            (of_account("*"), &other, "GET /version", false),
            (
                subject(json!({"kind": "User", "user": {"name": "*"}})),
                &account,
                "GET /version",
                true,
            ),
            (
                subject(json!({"kind": "Group", "group": {"name": "system:serviceaccounts:shop"}})),
                &other,
                "GET /version",
                false,
            ),
            (
                subject(json!({"kind": "User"})),
                &account,
                "GET /version",
                false,
            ),
        ] {
            let info = info(line);
            let found = schema.fits(caller, About::of(&info));
            assert_eq!(found, fits, "{line} {}", schema.rules.len());
        }
    }

    #[test]
    fn flows_are_told_apart_as_the_schema_says() {
        let schema = |method: &str| {
            Schema::of(&json!({
                "metadata": {"name": "s"}, "spec": {"distinguisherMethod": {"type": method}},
            }))
        };
        let (jo, ko) = (
            Caller::client_certificate("jo", vec![]),
            Caller::client_certificate("ko", vec![]),
        );
        let (in_a, in_b) = (
            info("GET /api/v1/namespaces/a/pods"),
            info("GET /api/v1/namespaces/b/pods"),
        );
        for (method, by_user, by_namespace) in [
            ("", false, false),
            ("ByUser", true, false),
            ("ByNamespace", false, true),
        ] {
            let schema = schema(method);
            let flow = |caller, info| schema.flow(caller, About::of(info));
            assert_eq!(flow(&jo, &in_a) != flow(&ko, &in_a), by_user, "{method}");
            assert_eq!(
                flow(&jo, &in_a) != flow(&jo, &in_b),
                by_namespace,
                "{method}"
            );
            assert_eq!(flow(&jo, &in_a), flow(&jo, &in_a));
        }
    }
}
