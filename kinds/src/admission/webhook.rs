//! Admission webhooks: which of them a request is for, what they are asked, and what their answers mean.
//!
//! Invariants: an answer that is not one to the question is a failure of the call, which the failure policy decides about; a refusal is
//! never less than 400.
//! Source: k8s.io/apiserver `pkg/admission/plugin/webhook`, and its sentences. Left to others: the call (`weft_apiserver::webhook`).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use weft_api::selector::LabelSelector;
use weft_api::status::{Details, StatusError};

use super::expressions::{Conditions, Has, Matched, Scope};
use super::matching::{self, Objects, Rule};
use super::{Place, Request};
use crate::lens::{integer, items, text};

/// Where a webhook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub at: At,
    /// What its certificate is checked against, as PEM; without one, what the machine trusts.
    pub ca_bundle: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    Url(String),
    Service {
        namespace: String,
        name: String,
        port: u16,
        path: String,
    },
}

impl Target {
    /// Of a `clientConfig`, which conversions have, too; none for one that says neither where nor which.
    pub fn of(config: &Value) -> Option<Self> {
        let service = config.get("service").filter(|service| service.is_object());
        let at = match service {
            Some(service) => At::Service {
                namespace: text(service, "/namespace").to_owned(),
                name: text(service, "/name").to_owned(),
                port: integer(service, "/port")
                    .and_then(|port| u16::try_from(port).ok())
                    .unwrap_or(443),
                path: text(service, "/path").to_owned(),
            },
            None => At::Url(config.get("url")?.as_str()?.to_owned()),
        };
        let bundle = text(config, "/caBundle");
        let ca_bundle = STANDARD.decode(bundle).ok();
        Some(Self {
            at,
            ca_bundle: ca_bundle.filter(|pem| !pem.is_empty()),
        })
    }
}

/// One webhook of a configuration, compiled.
#[derive(Debug)]
pub struct Webhook {
    pub configuration: String,
    pub name: String,
    pub target: Option<Target>,
    pub timeout_seconds: u64,
    /// Whether a failure of the call lets the request pass.
    pub ignores_failures: bool,
    /// Whether it may be called again once others have changed the object after it.
    pub reinvoked: bool,
    /// Whether what is not stored may be shown to it.
    pub takes_dry_runs: bool,
    /// The first version of the question that it knows and we do.
    version: Option<&'static str>,
    mutates: bool,
    rules: Vec<Rule>,
    exact: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
    conditions: Conditions,
}

impl Webhook {
    /// Those of one configuration, in their order.
    pub fn of(configuration: &Value, mutates: bool) -> Vec<Self> {
        let name = text(configuration, "/metadata/name");
        let hooks = items(configuration, "/webhooks").iter();
        hooks.map(|hook| Self::one(name, hook, mutates)).collect()
    }

    fn one(configuration: &str, hook: &Value, mutates: bool) -> Self {
        let mut versions = items(hook, "/admissionReviewVersions").iter();
        let version = versions.find_map(|version| match version.as_str()? {
            "v1" => Some("v1"),
            "v1beta1" => Some("v1beta1"),
            _ => None,
        });
        let has = Has {
            authorizer: true,
            ..Has::default()
        };
        Self {
            configuration: configuration.to_owned(),
            name: text(hook, "/name").to_owned(),
            target: hook.get("clientConfig").and_then(Target::of),
            timeout_seconds: integer(hook, "/timeoutSeconds")
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map_or(10, |seconds| seconds.clamp(1, 30)),
            ignores_failures: text(hook, "/failurePolicy") == "Ignore",
            reinvoked: text(hook, "/reinvocationPolicy") == "IfNeeded",
            takes_dry_runs: matches!(text(hook, "/sideEffects"), "None" | "NoneOnDryRun"),
            version,
            mutates,
            rules: Rule::list(hook, "/rules"),
            exact: text(hook, "/matchPolicy") == "Exact",
            namespaces: matching::selector(hook, "/namespaceSelector"),
            objects: matching::selector(hook, "/objectSelector"),
            conditions: Conditions::of(hook, "/matchConditions", has),
        }
    }

    /// By which place, and none if at all, the webhook is to be asked, its conditions aside.
    pub fn matched<'r>(&self, request: &'r Request, objects: &Objects<'_>) -> Option<&'r Place> {
        let selected = matching::selects_namespace(&self.namespaces, request, objects)
            && matching::selects_object(&self.objects, objects);
        if !selected {
            return None;
        }
        matching::matched(&self.rules, self.exact, request)
    }

    pub fn has_conditions(&self) -> bool {
        !self.conditions.is_empty()
    }

    /// Whether its conditions hold.
    ///
    /// # Errors
    /// 403 where they cannot be told, unless such failures are ignored.
    pub fn holds(
        &self,
        request: &Request,
        scope: &Scope<'_>,
        object: Option<&Value>,
    ) -> Result<bool, StatusError> {
        match self.conditions.matched(scope, object) {
            Matched::Yes => Ok(true),
            Matched::No => Ok(false),
            Matched::Failed(_) if self.ignores_failures => Ok(false),
            Matched::Failed(told) => Err(StatusError::forbidden(
                &request.place.resource,
                &request.place.resource_group,
                &request.name,
                &told,
            )),
        }
    }

    /// The refusal of what may not be shown to it.
    pub fn no_dry_run(&self) -> StatusError {
        StatusError::bad_request(format!(
            "admission webhook {:?} does not support dry run",
            self.name
        ))
    }

    /// What a failure of the call means for the request, which does not pass.
    pub fn failed(&self, why: &str) -> StatusError {
        StatusError::internal(format!("failed calling webhook {:?}: {why}", self.name))
    }

    /// The question; `uid` is to come back with the answer.
    ///
    /// # Errors
    /// That it knows no version of it that we do.
    pub fn review(
        &self,
        uid: &str,
        request: &Request,
        at: &Place,
        objects: &Objects<'_>,
    ) -> Result<Value, String> {
        let Some(version) = self.version else {
            return Err("could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)".to_owned());
        };
        let mut asked = request.to_value(at);
        asked["uid"] = uid.into();
        asked["object"] = objects.new.cloned().unwrap_or_default();
        asked["oldObject"] = objects.old.cloned().unwrap_or_default();
        Ok(json!({
            "kind": "AdmissionReview",
            "apiVersion": format!("admission.k8s.io/{version}"),
            "request": asked,
        }))
    }

    /// What an answer says.
    ///
    /// # Errors
    /// Why it is none.
    pub fn answer(&self, uid: &str, review: &Value) -> Result<Answer, String> {
        let invalid = |told: String| Err(format!("received invalid webhook response: {told}"));
        let Some(response) = review
            .get("response")
            .filter(|response| response.is_object())
        else {
            return invalid("webhook response was absent".to_owned());
        };
        let is_v1 = self.version == Some("v1");
        if is_v1 {
            let found = text(response, "/uid");
            if found != uid {
                return invalid(format!("expected response.uid={uid:?}, got {found:?}"));
            }
            let found = (text(review, "/apiVersion"), text(review, "/kind"));
            if found != ("admission.k8s.io/v1", "AdmissionReview") {
                let (group, version) = found.0.split_once('/').unwrap_or(("", found.0));
                return invalid(format!(
                    "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {group}/{version}, Kind={}",
                    found.1
                ));
            }
        }
        let patch = response.get("patch").and_then(Value::as_str).unwrap_or("");
        let kind = response.get("patchType").and_then(Value::as_str);
        if is_v1 {
            match (self.mutates, patch.is_empty(), kind) {
                (true, false, None) => {
                    return invalid(
                        "webhook returned response.patch but not response.patchType".to_owned(),
                    );
                }
                (true, true, Some(_)) => {
                    return invalid(
                        "webhook returned response.patchType but not response.patch".to_owned(),
                    );
                }
                (true, _, Some("")) => {
                    return invalid(
                        "webhook returned invalid response.patchType of \"\"".to_owned(),
                    );
                }
                (false, false, _) => {
                    return invalid("validating webhook may not return response.patch".to_owned());
                }
                (false, true, Some(_)) => {
                    return invalid(
                        "validating webhook may not return response.patchType".to_owned(),
                    );
                }
                _ => {}
            }
        }
        let strings = |pointer: &str| -> Vec<String> {
            let list = items(response, pointer).iter().filter_map(Value::as_str);
            list.map(str::to_owned).collect()
        };
        let annotations = response.get("auditAnnotations").and_then(Value::as_object);
        let annotations = annotations
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| {
                Some((format!("{}/{key}", self.name), value.as_str()?.to_owned()))
            });
        let mut answer = Answer {
            warnings: strings("/warnings"),
            annotations: annotations.collect(),
            verdict: Ok(None),
        };
        if response.get("allowed") != Some(&Value::Bool(true)) {
            answer.verdict = Err(self.denied(response.get("status")));
            return Ok(answer);
        }
        if !self.mutates || patch.is_empty() {
            return Ok(answer);
        }
        let undecodable =
            |told: String| format!("received undecodable patch in webhook response: {told}");
        if kind.is_some_and(|kind| kind != "JSONPatch") {
            return Err(format!("unsupported patch type {:?}", kind.unwrap_or("")));
        }
        let patch = STANDARD
            .decode(patch)
            .map_err(|error| undecodable(error.to_string()))?;
        let patch: Value =
            serde_json::from_slice(&patch).map_err(|error| undecodable(error.to_string()))?;
        let is_empty = patch.as_array().is_some_and(Vec::is_empty);
        answer.verdict = Ok(Some(patch).filter(|_| !is_empty));
        Ok(answer)
    }

    /// The refusal that a webhook gives, as far as it says one.
    fn denied(&self, status: Option<&Value>) -> StatusError {
        let given = |pointer: &str| status.map_or("", |status| text(status, pointer));
        let code = status.and_then(|status| integer(status, "/code"));
        let code = code.and_then(|code| u16::try_from(code).ok()).unwrap_or(0);
        let start = format!("admission webhook {:?} denied the request", self.name);
        let message = match (given("/message"), given("/reason")) {
            ("", "") => format!("{start} without explanation"),
            ("", reason) => format!("{start}: {reason}"),
            (message, _) => format!("{start}: {message}"),
        };
        let mut error = StatusError::bad_request(message);
        error.code = code.clamp(400, 599);
        error.reason = given("/reason").to_owned().into();
        let details = status.and_then(|status| status.get("details"));
        error.details = details.and_then(|details| {
            serde_json::from_value::<Details>(details.clone())
                .ok()
                .map(Box::new)
        });
        error
    }
}

/// What a webhook said.
#[derive(Debug)]
pub struct Answer {
    pub warnings: Vec<String>,
    /// With the webhook's name before each key.
    pub annotations: BTreeMap<String, String>,
    /// The patch, if there is one; or the refusal.
    pub verdict: Result<Option<Value>, StatusError>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Operation, User};

    fn hook(more: Value) -> Webhook {
        let mut hook = json!({
            "name": "a.example.com",
            "clientConfig": {"service": {"namespace": "n", "name": "s"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods", "pods/status"]}],
            "admissionReviewVersions": ["v2", "v1"], "sideEffects": "None",
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            hook[key] = value.clone();
        }
        let configuration = json!({"metadata": {"name": "c"}, "webhooks": [hook]});
        let mut hooks = Webhook::of(&configuration, true);
        hooks.remove(0)
    }

    fn request() -> Request {
        let place = Place {
            group: String::new(),
            version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            resource: "pods".to_owned(),
            resource_group: String::new(),
            resource_version: "v1".to_owned(),
        };
        Request {
            operation: Operation::Create,
            place,
            equivalents: Vec::new(),
            subresource: String::new(),
            namespace: "n".to_owned(),
            name: "p".to_owned(),
            user: User {
                name: "jo".to_owned(),
                groups: vec!["g".to_owned()],
                ..User::default()
            },
            dry_run: false,
            options: json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}),
        }
    }

    #[test]
    fn a_webhook_is_asked_about_what_it_names() {
        let labelled = json!({"metadata": {"labels": {"a": "b"}}});
        let namespace = json!({"metadata": {"labels": {"env": "prod"}}});
        let objects = Objects {
            new: Some(&labelled),
            namespace: Some(&namespace),
            ..Objects::default()
        };
        let selects = |labels: Value| json!({"matchLabels": labels});
        for (more, asked) in [
            (json!({}), true),
            (json!({"rules": []}), false),
            (
                json!({"namespaceSelector": selects(json!({"env": "prod"}))}),
                true,
            ),
            (
                json!({"namespaceSelector": selects(json!({"env": "test"}))}),
                false,
            ),
            (json!({"objectSelector": selects(json!({"a": "b"}))}), true),
            (json!({"objectSelector": selects(json!({"a": "c"}))}), false),
            (
                json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "scope": "Namespaced"}]}),
                true,
            ),
            (
                json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "scope": "Cluster"}]}),
                false,
            ),
            (
                json!({"rules": [{"operations": ["UPDATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]}),
                false,
            ),
        ] {
            let request = request();
            let hook = hook(more.clone());
            let found = hook.matched(&request, &objects);
            assert_eq!(found.is_some(), asked, "{more}");
        }
    }

    #[test]
    fn conditions_decide_with_the_failure_policy() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"replicas": 3}});
        let objects = Objects {
            new: Some(&pod),
            ..Objects::default()
        };
        let asked = request();
        let scope = Scope::new(&asked, &asked.place, objects);
        for (policy, expression, expected) in [
            ("Fail", "request.userInfo.username == 'jo'", Ok(true)),
            ("Fail", "object.spec.replicas > 3", Ok(false)),
            (
                "Fail",
                "object.spec.none > 3",
                Err("pods \"p\" is forbidden: expression 'object.spec.none > 3' resulted in error: no such key: none".to_owned()),
            ),
            ("Ignore", "object.spec.none > 3", Ok(false)),
        ] {
            let hook = hook(json!({"failurePolicy": policy, "matchConditions": [{"name": "c", "expression": expression}]}));
            let found = hook.holds(&asked, &scope, None);
            assert_eq!(found.map_err(|error| error.message), expected, "{expression}");
        }
    }

    #[test]
    fn the_question_is_whole() {
        let pod = json!({"metadata": {"name": "p"}});
        let objects = Objects {
            new: Some(&pod),
            ..Objects::default()
        };
        let asked = request();
        let review = hook(json!({})).review("u", &asked, &asked.place, &objects);
        assert_eq!(
            review.unwrap(),
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {
                "uid": "u",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
                "requestResource": {"group": "", "version": "v1", "resource": "pods"},
                "name": "p", "namespace": "n", "operation": "CREATE",
                "userInfo": {"username": "jo", "groups": ["g"]},
                "object": {"metadata": {"name": "p"}}, "oldObject": null,
                "dryRun": false, "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
            }})
        );
    }

    #[test]
    fn answers_are_believed_if_they_are_ones() {
        let hook = hook(json!({}));
        let answer = |response: Value| {
            let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
            match hook.answer("u", &review) {
                Err(told) => told,
                Ok(answer) => match answer.verdict {
                    Ok(patch) => {
                        format!("{patch:?} {:?} {:?}", answer.warnings, answer.annotations)
                    }
                    Err(error) => format!("{} {} {}", error.code, error.reason, error.message),
                },
            }
        };
        for (response, expected) in [
            (
                json!({"uid": "u", "allowed": true, "warnings": ["w"], "auditAnnotations": {"k": "v"}}),
                "None [\"w\"] {\"a.example.com/k\": \"v\"}",
            ),
            (
                json!({"uid": "x", "allowed": true}),
                "received invalid webhook response: expected response.uid=\"u\", got \"x\"",
            ),
            (
                json!({"uid": "u"}),
                "400  admission webhook \"a.example.com\" denied the request without explanation",
            ),
            (
                json!({"uid": "u", "allowed": false, "status": {"code": 200, "reason": "Why"}}),
                "400 Why admission webhook \"a.example.com\" denied the request: Why",
            ),
            (
                json!({"uid": "u", "allowed": false, "status": {"code": 403, "message": "no", "reason": "Forbidden"}}),
                "403 Forbidden admission webhook \"a.example.com\" denied the request: no",
            ),
            (
                json!({"uid": "u", "allowed": true, "patch": "W10="}),
                "received invalid webhook response: webhook returned response.patch but not response.patchType",
            ),
            (
                json!({"uid": "u", "allowed": true, "patchType": "JSONPatch"}),
                "received invalid webhook response: webhook returned response.patchType but not response.patch",
            ),
            (
                json!({"uid": "u", "allowed": true, "patchType": "JSONPatch", "patch": "W10="}),
                "None [] {}",
            ),
            (
                json!({"uid": "u", "allowed": true, "patchType": "Merge", "patch": "W10="}),
                "unsupported patch type \"Merge\"",
            ),
            (
                Value::Null,
                "received invalid webhook response: webhook response was absent",
            ),
        ] {
            assert_eq!(answer(response.clone()), expected, "{response}");
        }
    }
}
