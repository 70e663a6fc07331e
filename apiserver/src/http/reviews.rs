//! Questions that are asked by creating an object: who am I, and may I.

use serde_json::{Value, json};
use weft_api::status::{Cause, StatusError};
use weft_kinds::Kind;
use weft_kinds::lens::{items, text};

use crate::authz::{self, Access};
use crate::caller::{Caller, GROUP_MASTERS};

/// Answers a review: the object that was sent, with its status.
pub fn answer(
    review: &Kind,
    namespace: Option<&str>,
    caller: &Caller,
    mut body: Value,
) -> Result<Value, StatusError> {
    if !body.is_object() {
        return Err(StatusError::bad_request(format!(
            "the request body is no {}",
            &review.kind
        )));
    }
    body["kind"] = json!(review.kind);
    body["apiVersion"] = format!("{}/{}", &review.group, &review.version).into();
    body["status"] = match &*review.kind {
        "SelfSubjectReview" => {
            let mut user = json!({"username": caller.user(), "groups": caller.groups()});
            if let Some(uid) = caller.uid() {
                user["uid"] = uid.into();
            }
            json!({"userInfo": user})
        }
        "SelfSubjectRulesReview" => rules_status(caller),
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let subject = subject(review, namespace, &body)?;
            access_status(&subject, &body)
        }
        _ => access_status(caller, &body),
    };
    weft_kinds::lens::fill(&mut body, "metadata", json!({}));
    Ok(body)
}

/// Whom a review asks about, which is somebody else than the caller.
fn subject(review: &Kind, namespace: Option<&str>, body: &Value) -> Result<Caller, StatusError> {
    const PATHS: &str = "spec.nonResourceAttributes";
    let set = |pointer: &str| body.pointer(pointer).is_some_and(|value| !value.is_null());
    let (of_resource, of_path) = (
        set("/spec/resourceAttributes"),
        set("/spec/nonResourceAttributes"),
    );
    let mut causes = Vec::new();
    match (of_resource, of_path) {
        (true, true) => {
            let shown = body
                .pointer("/spec/nonResourceAttributes")
                .unwrap_or(&Value::Null);
            let sentence = "cannot be specified in combination with resourceAttributes";
            causes.push(Cause::invalid(PATHS, shown, sentence));
        }
        (false, false) => {
            let sentence =
                "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let field = "spec.resourceAttributes";
            causes.push(Cause::invalid(field, &Value::Null, sentence));
        }
        _ => {}
    }
    let (user, groups) = (text(body, "/spec/user"), items(body, "/spec/groups"));
    if user.is_empty() && groups.is_empty() {
        let sentence = "at least one of user or group must be specified";
        causes.push(Cause::invalid("spec.user", &json!(""), sentence));
    }
    if let Some(namespace) = namespace {
        if of_path {
            let shown = body
                .pointer("/spec/nonResourceAttributes")
                .unwrap_or(&Value::Null);
            let sentence = "disallowed on this kind of request";
            causes.push(Cause::invalid(PATHS, shown, sentence));
        }
        if text(body, "/spec/resourceAttributes/namespace") != namespace {
            return Err(StatusError::bad_request(format!(
                "spec.resourceAttributes.namespace must match namespace: {namespace}"
            )));
        }
    }
    if !causes.is_empty() {
        return Err(StatusError::invalid(
            &review.kind,
            &review.group,
            "",
            causes,
        ));
    }
    let groups = groups.iter().filter_map(Value::as_str).map(str::to_owned);
    let uid = Some(text(body, "/spec/uid")).filter(|uid| !uid.is_empty());
    Ok(Caller::reviewed(user, uid, groups.collect()))
}

fn access_status(caller: &Caller, review: &Value) -> Value {
    let optional = |pointer: &str| Some(text(review, pointer)).filter(|text| !text.is_empty());
    let at = |field: &str| format!("/spec/resourceAttributes/{field}");
    let outcome = if review.pointer("/spec/nonResourceAttributes").is_some() {
        authz::decide_path(
            caller,
            text(review, "/spec/nonResourceAttributes/verb"),
            text(review, "/spec/nonResourceAttributes/path"),
        )
    } else {
        authz::decide(
            caller,
            &Access {
                verb: text(review, &at("verb")),
                group: text(review, &at("group")),
                resource: text(review, &at("resource")),
                subresource: optional(&at("subresource")),
                namespace: optional(&at("namespace")),
                name: optional(&at("name")),
            },
        )
    };
    match outcome {
        Ok(()) => json!({"allowed": true}),
        Err(error) => json!({"allowed": false, "reason": error.message}),
    }
}

/// What `kubectl auth can-i --list` prints. What a node or a bootstrapper may do depends on objects, so their list says
/// that it is not all.
fn rules_status(caller: &Caller) -> Value {
    if caller.in_group(GROUP_MASTERS) {
        return json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        });
    }
    let asking = |group: &str, resources: &[&str]| json!({"verbs": ["create"], "apiGroups": [group], "resources": resources});
    json!({
        "resourceRules": [
            asking(
                "authorization.k8s.io",
                &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            ),
            asking("authentication.k8s.io", &["selfsubjectreviews"]),
        ],
        "nonResourceRules": [],
        "incomplete": true,
        "evaluationError": "rules that depend on the object are not listed: ask about one with a SelfSubjectAccessReview",
    })
}
