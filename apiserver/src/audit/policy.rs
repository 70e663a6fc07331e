//! Which requests are written down, and how much of each: Kubernetes' audit policy, from its file.
//!
//! The first rule that fits a request decides; a request that none fits is not written down.
//!
//! Invariants: pure; a policy that cannot be read as a whole is refused. Source: k8s.io/apiserver `pkg/audit/policy`, 1.37.

use serde::Deserialize;

use crate::caller::Caller;
use crate::request::{Asked, RequestInfo};

/// How much of a request is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    #[default]
    None,
    /// Who asked what, and what became of it.
    Metadata,
    /// With what was sent.
    Request,
    /// With what was answered, too.
    RequestResponse,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When something is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Stage {
    RequestReceived,
    /// Of what may stay open for as long as its client likes.
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    paths: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

/// A policy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[allow(dead_code)] // It is read, and says nothing.
    metadata: serde_json::Value,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("it is no audit policy: {0}")]
    Unread(String),
    #[error("it is a {kind} of {api_version}, and audit policies are a Policy of audit.k8s.io/v1")]
    Another { kind: String, api_version: String },
    #[error("loaded illegal policy with 0 rules")]
    Empty,
    #[error("rule {index} is about resources and about paths, and can be about one of them only")]
    Mixed { index: usize },
}

/// What is written down of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub level: Level,
    pub omitted: Vec<Stage>,
    pub without_managed_fields: bool,
}

impl Policy {
    /// Reads a policy, YAML or JSON.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let read: Result<Self, _> = serde_saphyr::from_str(text);
        let policy = read.map_err(|error| PolicyError::Unread(error.to_string()))?;
        if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            return Err(PolicyError::Another {
                kind: policy.kind,
                api_version: policy.api_version,
            });
        }
        if policy.rules.is_empty() {
            return Err(PolicyError::Empty);
        }
        let mixed = |rule: &Rule| {
            let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            of_resources && !rule.paths.is_empty()
        };
        match policy.rules.iter().position(mixed) {
            Some(index) => Err(PolicyError::Mixed { index }),
            None => Ok(policy),
        }
    }

    pub(super) fn wanted(&self, caller: Option<&Caller>, info: &RequestInfo) -> Wanted {
        let rule = self.rules.iter().find(|rule| rule.fits(caller, info));
        let Some(rule) = rule else {
            return Wanted {
                omitted: self.omit_stages.clone(),
                without_managed_fields: self.omit_managed_fields,
                ..Wanted::default()
            };
        };
        Wanted {
            level: rule.level,
            omitted: [&self.omit_stages[..], &rule.omit_stages].concat(),
            without_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

fn has(list: &[String], one: &str) -> bool {
    list.iter().any(|each| each == one)
}

impl Rule {
    fn fits(&self, caller: Option<&Caller>, info: &RequestInfo) -> bool {
        let by_user = |caller: &Caller| has(&self.users, caller.user());
        let by_group = |caller: &Caller| {
            caller
                .groups()
                .iter()
                .any(|group| has(&self.user_groups, group))
        };
        if !self.users.is_empty() && !caller.is_some_and(by_user) {
            return false;
        }
        if !self.user_groups.is_empty() && !caller.is_some_and(by_group) {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, info.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return self.fits_resource(info);
        }
        if !self.paths.is_empty() {
            let path = match &info.asked {
                Asked::Path(path) => path,
                Asked::Aggregated(one) if one.resource.is_none() => &one.path,
                _ => return false,
            };
            return self.paths.iter().any(|own| fits_path(own, path));
        }
        true
    }

    fn fits_resource(&self, info: &RequestInfo) -> bool {
        let Some(access) = info.access() else {
            return false;
        };
        if !self.namespaces.is_empty() && !has(&self.namespaces, access.namespace.unwrap_or("")) {
            return false;
        }
        let name = access.name.unwrap_or("");
        let about = |own: &String| match (own.as_str(), access.subresource) {
            ("*", _) => true,
            (own, None) => {
                own == access.resource || own.strip_suffix("/*") == Some(access.resource)
            }
            (own, Some(below)) => own.split_once('/').is_some_and(|(of, part)| {
                (of == access.resource && (part == below || part == "*"))
                    || (of == "*" && part == below)
            }),
        };
        let fits = |group: &GroupResources| {
            (group.group == access.group || group.group == "*")
                && (group.resources.is_empty()
                    || ((group.resource_names.is_empty() || has(&group.resource_names, name))
                        && group.resources.iter().any(about)))
        };
        self.resources.is_empty() || self.resources.iter().any(fits)
    }
}

fn fits_path(own: &str, path: &str) -> bool {
    own == "*" || own == path || (own.ends_with('*') && path.starts_with(own.trim_end_matches('*')))
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};
    use weft_kinds::Registry;

    use super::*;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: ["system:node:a"]
  verbs: ["watch"]
- level: Metadata
  resources:
  - group: ""
    resources: ["secrets", "pods/log", "*/status"]
- level: RequestResponse
  userGroups: ["ops"]
  namespaces: ["default", ""]
  omitManagedFields: false
- level: None
  nonResourceURLs: ["/healthz*", "/version"]
- level: Request
  verbs: ["create", "delete"]
  omitStages: [ResponseStarted]
"#;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = Policy::parse(POLICY).unwrap();
        let registry = Registry::builtin();
        let ops = Caller::static_token("jo", None, vec!["ops".to_owned()]);
        let node = Caller::client_certificate("system:node:a", vec![]);
        for (caller, line, level) in [
            (&node, "GET /api/v1/pods?watch=1", Level::None),
            (&node, "GET /api/v1/namespaces/x/secrets/s", Level::Metadata),
            (
                &node,
                "GET /api/v1/namespaces/x/pods/p/log",
                Level::Metadata,
            ),
            (
                &node,
                "PUT /api/v1/namespaces/x/pods/p/status",
                Level::Metadata,
            ),
            (&node, "GET /api/v1/namespaces/x/pods/p", Level::None),
            (
                &ops,
                "GET /api/v1/namespaces/default/pods",
                Level::RequestResponse,
            ),
            (&ops, "GET /api/v1/nodes", Level::RequestResponse),
            (&ops, "GET /api/v1/namespaces/x/pods", Level::None),
            (&ops, "GET /healthz/ping", Level::None),
            (&ops, "DELETE /api/v1/namespaces/x/pods/p", Level::Request),
        ] {
            let (method, path) = line.split_once(' ').unwrap();
            let (method, uri): (Method, Uri) = (method.parse().unwrap(), path.parse().unwrap());
            let info = RequestInfo::of(&registry, &method, &uri);
            assert_eq!(policy.wanted(Some(caller), &info).level, level, "{line}");
        }
        let uri: Uri = "/api/v1/namespaces/x/pods".parse().unwrap();
        let info = RequestInfo::of(&registry, &Method::POST, &uri);
        let wanted = policy.wanted(None, &info);
        assert_eq!(
            wanted.omitted,
            [Stage::RequestReceived, Stage::ResponseStarted]
        );
        assert!(wanted.without_managed_fields);
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for (text, told) in [
            ("rules: []", "it is no audit policy"),
            (
                "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []",
                "0 rules",
            ),
            (
                "apiVersion: v1\nkind: Policy\nrules: [{level: None}]",
                "it is a Policy of v1",
            ),
            (
                "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Some}]",
                "it is no audit policy",
            ),
            (
                "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, namespaces: [a], nonResourceURLs: [/x]}]",
                "rule 0 is about resources and about paths",
            ),
        ] {
            let error = Policy::parse(text).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
