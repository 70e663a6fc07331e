//! `crd-conversion-webhook`: converts the tests' CronTabs between `stable.example.com/v1` and `v2`.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::flags::{Flags, Known};
use crate::server::{Answer, Request, answer, not_found, refused, text};
use crate::{Code, log, server, tls};

const FLAGS: [Known; 3] = [
    ("tls-cert-file", None, ""),
    ("tls-private-key-file", None, ""),
    ("port", None, "443"),
];
const V1: &str = "stable.example.com/v1";
const V2: &str = "stable.example.com/v2";

pub(crate) async fn run(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&FLAGS, arguments)?;
    let port = flags.port("port")?.unwrap_or(443);
    let acceptor = tls::acceptor(
        flags.text("tls-cert-file"),
        flags.text("tls-private-key-file"),
    )?;
    let listener = server::listen(port)
        .await
        .map_err(|error| error.to_string())?;
    let handler = server::handler(|request| async move {
        match request.path.as_str() {
            "/readyz" => text("ok"),
            "/crdconvert" => served(&request),
            _ => not_found(),
        }
    });
    server::serve(listener, Some(acceptor), handler).await;
    Ok(0)
}

fn served(request: &Request) -> Answer {
    let kind = request.header("content-type");
    if !kind.starts_with("application/json") {
        let told = format!("invalid Content-Type header `{kind}`");
        log::error("framework.go:127", &told);
        return refused(StatusCode::BAD_REQUEST, told);
    }
    let review: Value = match serde_json::from_slice(&request.body) {
        Ok(review) => review,
        Err(error) => {
            let told = format!("failed to deserialize body with error {error}");
            log::error("framework.go:136", &told);
            return refused(StatusCode::BAD_REQUEST, told);
        }
    };
    let version = review["apiVersion"].as_str().unwrap_or("");
    let is_known = matches!(
        version,
        "apiextensions.k8s.io/v1" | "apiextensions.k8s.io/v1beta1"
    );
    if !is_known || review["kind"] != "ConversionReview" {
        let told = format!("Unsupported group version kind: {version}");
        return refused(StatusCode::BAD_REQUEST, told);
    }
    let mut response = match converted(&review["request"]) {
        Ok(objects) => json!({
            "convertedObjects": objects,
            "result": {"metadata": {}, "status": "Success"},
        }),
        Err(told) => json!({
            "convertedObjects": null,
            "result": {"metadata": {}, "status": "Failure", "message": told},
        }),
    };
    response["uid"] = review["request"]["uid"].clone();
    let review = json!({"kind": "ConversionReview", "apiVersion": version, "response": response});
    answer(StatusCode::OK, "application/json", review.to_string())
}

fn converted(asked: &Value) -> Result<Vec<Value>, String> {
    let wanted = asked["desiredAPIVersion"].as_str().unwrap_or("");
    let objects = asked["objects"].as_array().into_iter().flatten();
    objects.map(|object| convert(object, wanted)).collect()
}

fn convert(object: &Value, wanted: &str) -> Result<Value, String> {
    let from = object["apiVersion"].as_str().unwrap_or("");
    if from == wanted {
        return Err(format!(
            "conversion from a version to itself should not call the webhook: {wanted}"
        ));
    }
    let mut object = object.clone();
    let fields = object.as_object_mut().ok_or("it is no object")?;
    match (from, wanted) {
        (V1, V2) => {
            if let Some(both) = fields.remove("hostPort") {
                let parts: Vec<&str> = both.as_str().unwrap_or("").split(':').collect();
                let [host, port] = parts[..] else {
                    let both = both.as_str().unwrap_or("");
                    return Err(format!("invalid hostPort value `{both}`"));
                };
                fields.insert("host".to_owned(), json!(host));
                fields.insert("port".to_owned(), json!(port));
            }
        }
        (V2, V1) => {
            let (host, port) = (fields.remove("host"), fields.remove("port"));
            if host.is_some() || port.is_some() {
                let text = |field: &Option<Value>| match field {
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                    None => String::new(),
                };
                let both = format!("{}:{}", text(&host), text(&port));
                fields.insert("hostPort".to_owned(), json!(both));
            }
        }
        (V1 | V2, _) => return Err(format!("unexpected conversion version {wanted:?}")),
        _ => return Err(format!("unexpected conversion version {from:?}")),
    }
    fields.insert("apiVersion".to_owned(), json!(wanted));
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_and_joined() {
        for (object, wanted, expected) in [
            (
                json!({"apiVersion": V1, "hostPort": "localhost:7070"}),
                V2,
                Ok(json!({"apiVersion": V2, "host": "localhost", "port": "7070"})),
            ),
            (
                json!({"apiVersion": V2, "host": "localhost", "port": "7070"}),
                V1,
                Ok(json!({"apiVersion": V1, "hostPort": "localhost:7070"})),
            ),
            (
                json!({"apiVersion": V2, "host": "a"}),
                V1,
                Ok(json!({"apiVersion": V1, "hostPort": "a:"})),
            ),
            (json!({"apiVersion": V1}), V2, Ok(json!({"apiVersion": V2}))),
            (
                json!({"apiVersion": V1}),
                V1,
                Err(
                    "conversion from a version to itself should not call the webhook: stable.example.com/v1",
                ),
            ),
            (
                json!({"apiVersion": V1, "hostPort": "x"}),
                V2,
                Err("invalid hostPort value `x`"),
            ),
            (
                json!({"apiVersion": "a/v9"}),
                V1,
                Err("unexpected conversion version \"a/v9\""),
            ),
        ] {
            let found = convert(&object, wanted);
            assert_eq!(found, expected.map_err(str::to_owned), "{object}");
        }
    }
}
