//! Who may do what, as kube-apiserver answers it: roles and bindings of every shape, and some fifteen hundred questions about them.
//!
//! `tests/access` has the objects, the questions and the recorded answers (`cargo xtask differential access`): reviews of what somebody may do with
//! the reason, requests in somebody's name with the words of their refusal, roles and bindings that somebody would give, and reviews of all that he may. A reason that is null
//! there is one of several.

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use weft_apiserver::caller::Caller;

use crate::world::*;

const OBJECTS: &str = include_str!("../access/objects.json");
const QUESTIONS: &str = include_str!("../access/questions.json");
const ANSWERS: &str = include_str!("../access/answers.json");
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";

fn read(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or("")
}

/// A cluster with the roles of every cluster, and those that are asked about.
async fn world() -> World {
    let world = World::new().await;
    let system = Caller::system("apiserver", None);
    world.objects.ensure_roles(&system).await.unwrap();
    for object in read(OBJECTS) {
        let path = match text(&object, "kind") {
            "Namespace" => "/api/v1/namespaces".to_owned(),
            kind => {
                let resource = format!("{}s", kind.to_ascii_lowercase());
                match object["metadata"]["namespace"].as_str() {
                    Some(namespace) => format!("{RBAC}/namespaces/{namespace}/{resource}"),
                    None => format!("{RBAC}/{resource}"),
                }
            }
        };
        let made = world.ask(&format!("POST {path}"), object).await;
        assert_eq!(made.status, 201, "{}", made.line());
    }
    while gather(&world).await {}
    world
}

/// What the controller does that is not there: roles that gather others have the rules of those.
async fn gather(world: &World) -> bool {
    let listed = world.get(&format!("{RBAC}/clusterroles")).await.body;
    let roles = listed["items"].as_array().unwrap();
    let mut changed = false;
    for role in roles {
        let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array();
        let Some(selectors) = selectors else { continue };
        let mut rules: Vec<Value> = Vec::new();
        for other in roles {
            let labels = &other["metadata"]["labels"];
            let selects = |selector: &Value| {
                let plain = selector["matchLabels"].as_object();
                let further = selector["matchExpressions"].as_array();
                let mut plain = plain.into_iter().flatten();
                let mut further = further.into_iter().flatten();
                plain.all(|(key, value)| labels[key] == *value)
                    && further.all(|one| {
                        let value = &labels[text(one, "key")];
                        one["values"].as_array().unwrap().contains(value)
                    })
            };
            let own = other["metadata"]["name"] == role["metadata"]["name"];
            if own || !selectors.iter().any(selects) {
                continue;
            }
            for rule in other["rules"].as_array().into_iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
        let has = role["rules"].as_array().cloned().unwrap_or_default();
        if rules != has {
            let name = text(&role["metadata"], "name");
            let path = format!("{RBAC}/clusterroles/{name}");
            let answer = world
                .patch(&path, "merge-patch", json!({"rules": rules}))
                .await;
            assert_eq!(answer.status, 200, "{}", answer.line());
            changed = true;
        }
    }
    changed
}

/// Asks in the name of whoever the question is about.
async fn ask_for(world: &World, question: &Value, line: &str, body: Value) -> Answer {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let mut request = world.request(line, &[], &body);
    let headers = request.headers_mut();
    let value = |text: &str| HeaderValue::from_str(text).unwrap();
    if line.starts_with("PATCH ") {
        headers.insert(
            http::header::CONTENT_TYPE,
            value("application/merge-patch+json"),
        );
    }
    let name = HeaderName::from_static("impersonate-user");
    headers.insert(name, value(text(question, "user")));
    for group in groups(question).as_array().unwrap() {
        let name = HeaderName::from_static("impersonate-group");
        headers.append(name, value(group.as_str().unwrap()));
    }
    world.send(request).await
}

fn groups(question: &Value) -> Value {
    match &question["groups"] {
        Value::Null => json!(["system:authenticated"]),
        groups => groups.clone(),
    }
}

async fn answer(world: &World, question: &Value) -> Value {
    if let Some(line) = question["request"].as_str() {
        let writes = ["POST ", "PUT ", "PATCH "];
        let body = match writes.iter().any(|method| line.starts_with(method)) {
            true => json!({}),
            false => Value::Null,
        };
        if let Some(body) = question.get("body") {
            let answer = ask_for(world, question, line, body.clone()).await;
            return match answer.status {
                200 | 201 => json!({"code": answer.status}),
                code => json!({"code": code, "message": answer.body["message"]}),
            };
        }
        let answer = ask_for(world, question, line, body).await;
        return match answer.status {
            403 => json!({"code": 403, "message": answer.body["message"]}),
            _ => json!({"allowed": true}),
        };
    }
    if let Some(namespace) = question.get("rulesIn") {
        let line = format!("POST {REVIEWS}/selfsubjectrulesreviews");
        let body = json!({"spec": {"namespace": namespace}});
        let mut status = ask_for(world, question, &line, body).await.body["status"].clone();
        for rules in ["resourceRules", "nonResourceRules"] {
            let rules = status[rules].as_array_mut().unwrap();
            rules.sort_by_key(Value::to_string);
        }
        return status;
    }
    let mut spec = json!({"user": question["user"], "groups": groups(question)});
    let (what, fields): (&str, &[&str]) = match question.get("path") {
        Some(_) => ("nonResourceAttributes", &["verb", "path"]),
        None => (
            "resourceAttributes",
            &[
                "verb",
                "group",
                "resource",
                "subresource",
                "namespace",
                "name",
            ],
        ),
    };
    for field in fields {
        if let Some(value) = question.get(*field) {
            spec[what][*field] = value.clone();
        }
    }
    let line = format!("POST {REVIEWS}/subjectaccessreviews");
    let answer = world.ask(&line, json!({"spec": spec})).await;
    assert_eq!(answer.status, 201, "{question}: {}", answer.line());
    answer.body["status"].clone()
}

/// Rules of kinds that no other cluster has, which common roles here gather.
fn is_own(rule: &Value) -> bool {
    let groups = rule["apiGroups"].as_array();
    groups.is_some_and(|groups| {
        let own = ["weft.dev", "gateway.networking.k8s.io"];
        groups
            .iter()
            .all(|group| own.iter().any(|own| group == own))
    })
}

#[tokio::test]
async fn questions_are_answered_as_kube_apiserver_does() {
    let world = world().await;
    let (questions, answers) = (read(QUESTIONS), read(ANSWERS));
    assert_eq!(questions.len(), answers.len());
    assert!(questions.len() >= 500);
    let mut different = Vec::new();
    for (question, expected) in questions.iter().zip(&answers) {
        // Who has a token to join may ask for a certificate here, without a binding.
        if text(question, "user").starts_with("system:bootstrap:") {
            continue;
        }
        let mut found = answer(&world, question).await;
        if expected.get("reason") == Some(&Value::Null) {
            found["reason"] = Value::Null;
        }
        let mut expected = expected.clone();
        // What these gather is more here: which of it is missing is told, and not compared.
        let role = question["body"]["roleRef"]["name"].as_str();
        let viewers = text(question, "request").contains("viewers-everywhere");
        if viewers || matches!(role, Some("view" | "edit" | "admin")) {
            (found["message"], expected["message"]) = (Value::Null, Value::Null);
        }
        for answer in [&mut found, &mut expected] {
            if let Some(rules) = answer.get_mut("resourceRules") {
                rules.as_array_mut().unwrap().retain(|rule| !is_own(rule));
                rules.as_array_mut().unwrap().sort_by_key(Value::to_string);
            }
            if let Some(rules) = answer.get_mut("nonResourceRules") {
                rules.as_array_mut().unwrap().sort_by_key(Value::to_string);
            }
        }
        if found != expected {
            different.push(format!("{question}\n  here  {found}\n  there {expected}"));
        }
    }
    assert!(
        different.is_empty(),
        "{} of {}:\n{}",
        different.len(),
        questions.len(),
        different.join("\n")
    );
}
