//! `webhook`: admits, denies and changes what the API server asks about, as the tests of admission expect.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use crate::flags::{Flags, Known};
use crate::server::{Answer, Request, answer, not_found, refused, text};
use crate::{Code, log, server, tls};

const FLAGS: [Known; 4] = [
    ("tls-cert-file", None, ""),
    ("tls-private-key-file", None, ""),
    ("port", None, "443"),
    ("sidecar-image", None, ""),
];
const DELAY: Duration = Duration::from_secs(5);
/// A label, a key of a ConfigMap or of a custom resource, by which tests say what is to happen.
const MARK: &str = "webhook-e2e-test";

pub(crate) async fn run(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&FLAGS, arguments)?;
    let port = flags.port("port")?.unwrap_or(443);
    let acceptor = tls::acceptor(
        flags.text("tls-cert-file"),
        flags.text("tls-private-key-file"),
    )?;
    let sidecar = flags.text("sidecar-image").to_owned();
    let listener = server::listen(port)
        .await
        .map_err(|error| error.to_string())?;
    let handler = server::handler(move |request| {
        let sidecar = sidecar.clone();
        async move { served(request, &sidecar).await }
    });
    server::serve(listener, Some(acceptor), handler).await;
    Ok(0)
}

async fn served(request: Request, sidecar: &str) -> Answer {
    let path = request.path.as_str();
    if path == "/readyz" {
        return text("ok");
    }
    if !PATHS.contains(&path) {
        return not_found();
    }
    let kind = request.header("content-type");
    if kind != "application/json" {
        log::error(
            "main.go:109",
            format_args!("contentType={kind}, expect application/json"),
        );
        return text("");
    }
    let review: Value = match serde_json::from_slice(&request.body) {
        Ok(review) => review,
        Err(error) => {
            let told = format!("Request could not be decoded: {error}");
            log::error("main.go:119", &told);
            return refused(StatusCode::BAD_REQUEST, told);
        }
    };
    let version = review["apiVersion"].as_str().unwrap_or("");
    let is_known = matches!(version, "admission.k8s.io/v1" | "admission.k8s.io/v1beta1");
    if !is_known || review["kind"] != "AdmissionReview" {
        let told = format!(
            "Unsupported group version kind: {version}, Kind={}",
            review["kind"]
        );
        log::error("main.go:150", &told);
        return refused(StatusCode::BAD_REQUEST, told);
    }
    let asked = &review["request"];
    match decided(path, asked, sidecar) {
        Decided::After(delay) => tokio::time::sleep(delay).await,
        Decided::Never => return std::future::pending().await,
        Decided::Now(response) => return reviewed(version, asked, response),
    }
    reviewed(version, asked, allowed())
}

fn reviewed(version: &str, asked: &Value, mut response: Value) -> Answer {
    response["uid"] = asked["uid"].clone();
    let review = json!({"kind": "AdmissionReview", "apiVersion": version, "response": response});
    answer(StatusCode::OK, "application/json", review.to_string())
}

const PATHS: [&str; 12] = [
    "/always-allow-delay-5s",
    "/always-deny",
    "/add-label",
    "/pods",
    "/pods/attach",
    "/mutating-pods",
    "/mutating-pods-sidecar",
    "/configmaps",
    "/mutating-configmaps",
    "/custom-resource",
    "/mutating-custom-resource",
    "/crd",
];

/// What comes of a review.
#[derive(Debug, PartialEq)]
enum Decided {
    Now(Value),
    /// Allowed, later.
    After(Duration),
    /// No answer at all.
    Never,
}

fn allowed() -> Value {
    json!({"allowed": true})
}

fn denied(status: Value) -> Value {
    json!({"allowed": false, "status": with_metadata(status)})
}

/// A Status as Go writes it, with its metadata.
fn with_metadata(mut status: Value) -> Value {
    status["metadata"] = json!({});
    status
}

/// Allowed with a JSON patch.
fn patched(patch: &Value) -> Value {
    let patch = base64(patch.to_string().as_bytes());
    json!({"allowed": true, "patch": patch, "patchType": "JSONPatch"})
}

fn add(path: &str, value: Value) -> Value {
    json!([{"op": "add", "path": path, "value": value}])
}

fn decided(path: &str, asked: &Value, sidecar: &str) -> Decided {
    let object = &asked["object"];
    let is_deleted = asked["operation"] == "DELETE";
    // Of what is deleted there is only the old.
    let looked_at = if is_deleted {
        &asked["oldObject"]
    } else {
        object
    };
    Decided::Now(match path {
        "/always-allow-delay-5s" => return Decided::After(DELAY),
        "/always-deny" => denied(json!({"message": "this webhook denies all requests"})),
        "/add-label" => labelled(object),
        "/pods" => match of_resource(asked, "pods") {
            Ok(()) => return pods(object),
            Err(refused) => refused,
        },
        "/pods/attach" => attached(asked),
        "/mutating-pods" => {
            let is_meant = object["metadata"]["name"] == "webhook-to-be-mutated"
                && !has_container(
                    &object["spec"]["initContainers"],
                    "webhook-added-init-container",
                );
            match is_meant {
                true => patched(&add(
                    "/spec/initContainers",
                    json!([{"image": "webhook-added-image", "name": "webhook-added-init-container", "resources": {}}]),
                )),
                false => allowed(),
            }
        }
        "/mutating-pods-sidecar" if sidecar.is_empty() => denied(json!({
            "status": "Failure", "message": "No image specified by the sidecar-image parameter", "code": 500,
        })),
        "/mutating-pods-sidecar" => {
            match has_container(&object["spec"]["containers"], "webhook-added-sidecar") {
                true => allowed(),
                false => patched(&add(
                    "/spec/containers/-",
                    json!({"image": sidecar, "name": "webhook-added-sidecar", "resources": {}}),
                )),
            }
        }
        "/configmaps" => data(
            looked_at,
            is_deleted,
            "the configmap contains unwanted key and value",
            "the configmap cannot be deleted because it contains unwanted key and value",
        ),
        "/custom-resource" => data(
            looked_at,
            is_deleted,
            "the custom resource contains unwanted data",
            "the custom resource cannot be deleted because it contains unwanted key and value",
        ),
        "/mutating-configmaps" | "/mutating-custom-resource" => staged(object),
        "/crd" => match object["metadata"]["labels"][MARK] == "webhook-disallow" {
            true => denied(json!({"message": "the crd contains unwanted label"})),
            false => allowed(),
        },
        _ => allowed(),
    })
}

fn of_resource(asked: &Value, resource: &str) -> Result<(), Value> {
    let is_it = asked["resource"] == json!({"group": "", "version": "v1", "resource": resource});
    match is_it {
        true => Ok(()),
        false => {
            let told = format!("expect resource to be {{ v1 {resource}}}");
            Err(denied(json!({"message": told})))
        }
    }
}

fn labelled(object: &Value) -> Value {
    let labels = object["metadata"]["labels"].as_object();
    let none = Map::new();
    let labels = labels.unwrap_or(&none);
    let path = "/metadata/labels/added-label";
    match labels.get("added-label") {
        _ if labels.is_empty() => patched(&add("/metadata/labels", json!({"added-label": "yes"}))),
        None => patched(&add(path, json!("yes"))),
        Some(value) if value == "yes" => allowed(),
        Some(_) => patched(&json!([{"op": "replace", "path": path, "value": "yes"}])),
    }
}

fn pods(pod: &Value) -> Decided {
    let mut told = String::new();
    let mark = &pod["metadata"]["labels"][MARK];
    if mark == "webhook-disallow" {
        told += "the pod contains unwanted label; ";
    }
    if mark == "wait-forever" {
        return Decided::Never;
    }
    for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
        let name = container["name"].as_str().unwrap_or("");
        if name.contains("webhook-disallow") {
            told += "the pod contains unwanted container name; ";
        }
    }
    Decided::Now(match told.is_empty() {
        true => allowed(),
        false => denied(json!({"message": told.trim()})),
    })
}

fn attached(asked: &Value) -> Value {
    if asked["name"] != "to-be-attached-pod" {
        return allowed();
    }
    if let Err(refused) = of_resource(asked, "pods") {
        return refused;
    }
    if asked["subResource"] != "attach" {
        let told = format!(
            "expect subresource to be attach, got {}",
            asked["subResource"].as_str().unwrap_or("")
        );
        return denied(json!({"message": told}));
    }
    let options = &asked["object"];
    match options["stdin"] == true && options["container"] == "container1" {
        true => denied(json!({"message": "attaching to pod 'to-be-attached-pod' is not allowed"})),
        false => allowed(),
    }
}

fn has_container(containers: &Value, name: &str) -> bool {
    let mut containers = containers.as_array().into_iter().flatten();
    containers.any(|container| container["name"] == name)
}

fn data(object: &Value, is_deleted: bool, unwanted: &str, kept: &str) -> Value {
    let mark = &object["data"][MARK];
    if mark == "webhook-disallow" && !is_deleted {
        return denied(json!({"reason": unwanted}));
    }
    if mark == "webhook-nondeletable" && is_deleted {
        return denied(json!({"reason": kept}));
    }
    allowed()
}

/// Two webhooks in a row: what the first adds, the second waits for.
fn staged(object: &Value) -> Value {
    let data = &object["data"];
    let stage = match (
        data["mutation-start"] == "yes",
        data["mutation-stage-1"] == "yes",
    ) {
        (_, true) => 2,
        (true, false) => 1,
        (false, false) => return allowed(),
    };
    patched(&add(&format!("/data/mutation-stage-{stage}"), json!("yes")))
}

/// Source: RFC 4648, 4.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |place: usize| u32::from(chunk.get(place).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(operation: &str, object: Value) -> Value {
        json!({
            "uid": "u", "operation": operation, "name": "n", "object": object, "oldObject": object,
            "resource": {"group": "", "version": "v1", "resource": "pods"},
        })
    }

    fn told(path: &str, asked: &Value) -> String {
        match decided(path, asked, "") {
            Decided::After(_) => "later".to_owned(),
            Decided::Never => "never".to_owned(),
            Decided::Now(response) => match (&response["allowed"], &response["patch"]) {
                (Value::Bool(true), Value::Null) => "allowed".to_owned(),
                (Value::Bool(true), _) => "patched".to_owned(),
                _ => {
                    let status = &response["status"];
                    let said = status["message"].as_str().or(status["reason"].as_str());
                    said.unwrap_or("denied").to_owned()
                }
            },
        }
    }

    #[test]
    fn reviews_are_answered_as_the_tests_expect() {
        let marked = |mark: &str| json!({"metadata": {"labels": {MARK: mark}}, "spec": {"containers": [{"name": "a"}]}});
        let with_data = |key: &str, value: &str| json!({"data": {key: value}});
        for (path, operation, object, expected) in [
            (
                "/always-deny",
                "CREATE",
                json!({}),
                "this webhook denies all requests",
            ),
            ("/always-allow-delay-5s", "CREATE", json!({}), "later"),
            (
                "/pods",
                "CREATE",
                marked("webhook-disallow"),
                "the pod contains unwanted label;",
            ),
            ("/pods", "CREATE", marked("wait-forever"), "never"),
            ("/pods", "CREATE", marked("other"), "allowed"),
            (
                "/pods",
                "CREATE",
                json!({"spec": {"containers": [{"name": "webhook-disallow"}]}}),
                "the pod contains unwanted container name;",
            ),
            (
                "/configmaps",
                "CREATE",
                with_data(MARK, "webhook-disallow"),
                "the configmap contains unwanted key and value",
            ),
            (
                "/configmaps",
                "DELETE",
                with_data(MARK, "webhook-disallow"),
                "allowed",
            ),
            (
                "/custom-resource",
                "DELETE",
                with_data(MARK, "webhook-nondeletable"),
                "the custom resource cannot be deleted because it contains unwanted key and value",
            ),
            (
                "/mutating-configmaps",
                "CREATE",
                with_data("mutation-start", "yes"),
                "patched",
            ),
            (
                "/mutating-configmaps",
                "CREATE",
                with_data("mutation-stage-1", "yes"),
                "patched",
            ),
            (
                "/mutating-configmaps",
                "CREATE",
                with_data("other", "yes"),
                "allowed",
            ),
            (
                "/crd",
                "CREATE",
                marked("webhook-disallow"),
                "the crd contains unwanted label",
            ),
            (
                "/mutating-pods",
                "CREATE",
                json!({"metadata": {"name": "webhook-to-be-mutated"}}),
                "patched",
            ),
            (
                "/mutating-pods",
                "CREATE",
                json!({"metadata": {"name": "other"}}),
                "allowed",
            ),
            (
                "/mutating-pods-sidecar",
                "CREATE",
                json!({}),
                "No image specified by the sidecar-image parameter",
            ),
            ("/add-label", "CREATE", json!({"metadata": {}}), "patched"),
            (
                "/add-label",
                "CREATE",
                json!({"metadata": {"labels": {"added-label": "yes"}}}),
                "allowed",
            ),
            (
                "/add-label",
                "CREATE",
                json!({"metadata": {"labels": {"added-label": "no"}}}),
                "patched",
            ),
        ] {
            let found = told(path, &review(operation, object.clone()));
            assert_eq!(found, expected, "{path} {operation} {object}");
        }
    }

    #[test]
    fn an_attachment_is_denied_to_one_container() {
        for (name, container, stdin, expected) in [
            (
                "to-be-attached-pod",
                "container1",
                true,
                "attaching to pod 'to-be-attached-pod' is not allowed",
            ),
            ("to-be-attached-pod", "container1", false, "allowed"),
            ("to-be-attached-pod", "container2", true, "allowed"),
            ("other", "container1", true, "allowed"),
        ] {
            let mut asked = review("CONNECT", json!({"stdin": stdin, "container": container}));
            (asked["name"], asked["subResource"]) = (json!(name), json!("attach"));
            assert_eq!(told("/pods/attach", &asked), expected, "{name} {container}");
        }
    }

    #[test]
    fn bytes_are_written_in_base64() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }
}
