//! Questions that are asked by creating an object: who am I, whose is this token, and may I.

use serde_json::{Value, json};
use weft_api::status::{Cause, StatusError};
use weft_api::time::rfc3339;
use weft_kinds::Kind;
use weft_kinds::lens::{items, member, put, text};

use super::AppState;
use crate::authz::{Access, Decision};
use crate::caller::{Caller, Extra};

/// Answers a review: the object that was sent, with its status.
pub(super) async fn answer(
    state: &AppState,
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
    let objects = &state.objects;
    let status = match &*review.kind {
        "SelfSubjectReview" => {
            let now = rfc3339(objects.now());
            body["metadata"] = json!({"creationTimestamp": now});
            json!({"userInfo": user_info(caller)})
        }
        "TokenReview" => token_status(state, &body).await?,
        "SelfSubjectRulesReview" => {
            let namespace = text(&body, "/spec/namespace");
            if namespace.is_empty() {
                return Err(StatusError::bad_request("no namespace on request"));
            }
            objects.authorizer().settle().await;
            objects.authorizer().rules_of(caller, namespace)
        }
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let subject = subject(review, namespace, &body)?;
            objects.authorizer().settle().await;
            access_status(state, &subject, &body)
        }
        _ => {
            check_attributes(review, &body, Vec::new())?;
            objects.authorizer().settle().await;
            access_status(state, caller, &body)
        }
    };
    body["status"] = status;
    member(&mut body, "metadata");
    Ok(body)
}

fn user_info(caller: &Caller) -> Value {
    let mut user = json!({"username": caller.user(), "groups": caller.groups()});
    if let Some(uid) = caller.uid() {
        user["uid"] = uid.into();
    }
    if !caller.extra().is_empty() {
        user["extra"] = json!(caller.extra());
    }
    user
}

/// Whose a token is. What is wrong with one, whoever may review tokens may know.
async fn token_status(state: &AppState, review: &Value) -> Result<Value, StatusError> {
    let token = text(review, "/spec/token");
    if token.is_empty() {
        return Err(StatusError::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let asked = items(review, "/spec/audiences").iter();
    let asked: Vec<String> = asked
        .filter_map(|one| one.as_str().map(str::to_owned))
        .collect();
    let authenticator = &state.authenticator;
    let audiences = match asked.is_empty() {
        true => authenticator.audiences(),
        false => &asked,
    };
    Ok(match authenticator.token(token, audiences).await? {
        Ok(known) => json!({
            "authenticated": true,
            "user": user_info(&known.caller),
            "audiences": known.audiences,
        }),
        Err(why) => json!({"user": {}, "error": why}),
    })
}

/// Exactly one of the two kinds of questions has to be asked.
fn check_attributes(
    review: &Kind,
    body: &Value,
    mut further: Vec<Cause>,
) -> Result<(), StatusError> {
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
    causes.append(&mut further);
    match causes.is_empty() {
        true => Ok(()),
        false => Err(StatusError::invalid(
            &review.kind,
            &review.group,
            "",
            causes,
        )),
    }
}

/// Whom a review asks about, which is somebody else than the caller.
fn subject(review: &Kind, namespace: Option<&str>, body: &Value) -> Result<Caller, StatusError> {
    const PATHS: &str = "spec.nonResourceAttributes";
    let (user, groups) = (text(body, "/spec/user"), items(body, "/spec/groups"));
    let mut causes = Vec::new();
    if user.is_empty() && groups.is_empty() {
        let sentence = "at least one of user or group must be specified";
        causes.push(Cause::invalid("spec.user", &json!(""), sentence));
    }
    if let Some(namespace) = namespace {
        let paths = body.pointer("/spec/nonResourceAttributes");
        if let Some(shown) = paths.filter(|shown| !shown.is_null()) {
            let sentence = "disallowed on this kind of request";
            causes.push(Cause::invalid(PATHS, shown, sentence));
        }
        if text(body, "/spec/resourceAttributes/namespace") != namespace {
            return Err(StatusError::bad_request(format!(
                "spec.resourceAttributes.namespace must match namespace: {namespace}"
            )));
        }
    }
    check_attributes(review, body, causes)?;
    let groups = groups.iter().filter_map(Value::as_str).map(str::to_owned);
    let uid = Some(text(body, "/spec/uid")).filter(|uid| !uid.is_empty());
    let extra: Extra = body
        .pointer("/spec/extra")
        .and_then(|extra| serde_json::from_value(extra.clone()).ok())
        .unwrap_or_default();
    Ok(Caller::reviewed(user, uid, groups.collect()).with_extra(extra))
}

fn access_status(state: &AppState, caller: &Caller, review: &Value) -> Value {
    let optional = |pointer: &str| Some(text(review, pointer)).filter(|text| !text.is_empty());
    let at = |field: &str| format!("/spec/resourceAttributes/{field}");
    let authorizer = state.objects.authorizer();
    let paths = review.pointer("/spec/nonResourceAttributes");
    let Decision { allowed, reason } = match paths.filter(|paths| !paths.is_null()) {
        Some(paths) => authorizer.decide_path(caller, text(paths, "/verb"), text(paths, "/path")),
        None => authorizer.decide(
            caller,
            &Access {
                verb: text(review, &at("verb")),
                group: text(review, &at("group")),
                resource: text(review, &at("resource")),
                subresource: optional(&at("subresource")),
                namespace: optional(&at("namespace")),
                name: optional(&at("name")),
            },
        ),
    };
    let mut status = json!({"allowed": allowed});
    let reason = Some(reason).filter(|reason| !reason.is_empty());
    put(&mut status, "reason", reason.map(Value::from));
    status
}
