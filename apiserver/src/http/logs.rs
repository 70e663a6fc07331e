//! `GET …/pods/NAME/log`: finds the container and streams what its node has kept of its output.
//!
//! What can be said without the node is said here, in the words kubectl users know; the rest is the node's answer.
//!
//! Invariants: nothing is buffered, so `follow` costs one connection; a client that goes away ends the node's stream.
//! Left to others: keeping the output (`weft_agent`), reaching the node (`super::proxy`).

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{self, HeaderValue};
use http::{StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};
use weft_api::annotation::DEFAULT_CONTAINER;
use weft_api::status::{Cause, StatusError};
use weft_api::time::rfc3339_nanos;
use weft_kinds::lens::{items, text};

use crate::caller::Caller;
use crate::http::AppState;
use crate::http::proxy::{find_node, unreachable};
use crate::request::Params;

/// How much of a node's refusal is read to pass it on.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

/// What kubectl asks for, checked. Times and counts go to the node as they came.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    container: Option<String>,
    previous: bool,
    /// The parameters that the node understands, already encoded.
    passed_on: String,
}

/// Answers the log subresource of a pod.
///
/// # Errors
/// 400 for a container that cannot be chosen or has no log yet, 404, 422 for parameters out of range, 503 when the
/// pod's node is out of reach.
pub async fn serve(
    state: &AppState,
    namespace: &str,
    pod: &str,
    params: &Params,
) -> Result<Response, StatusError> {
    let options = parse(params.pairs())?;
    let reader = Caller::system("apiserver", None);
    let reader = state.objects.client(&reader);
    let stored = reader.get(&weft_kinds::POD, Some(namespace), pod).await?;
    let stored = stored.object();
    let object = stored.as_value();
    let container = choose(object, &options)?;
    let node_name = text(object, "/spec/nodeName");
    if node_name.is_empty() {
        return Err(StatusError::bad_request(format!(
            "pod {pod} does not have a host assigned"
        )));
    }
    let node = find_node(state, node_name).await?;

    // Names are DNS labels and subdomains, which need no escaping in a path.
    let path = format!(
        "/containerLogs/{namespace}/{pod}/{container}?{}",
        options.passed_on
    );
    let uri: Uri = path.parse().map_err(StatusError::internal)?;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    let answer = state
        .nodes
        .send(&node, request)
        .await
        .map_err(|error| unreachable(node_name, &error))?;
    let status = answer.status();
    if status == StatusCode::OK {
        let mut response = Response::new(answer.into_body());
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        return Ok(response);
    }
    let refusal = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX)
        .collect()
        .await;
    let refusal = refusal
        .map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned())
        .unwrap_or_default();
    // A node refuses as the API does; what the user wants to read is the sentence in it.
    let refusal = serde_json::from_str::<serde_json::Value>(&refusal)
        .ok()
        .and_then(|status| status["message"].as_str().map(str::to_owned))
        .unwrap_or(refusal);
    Err(match status {
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => StatusError::bad_request(refusal),
        status => StatusError::internal(format!(
            "node {node_name:?} answered {status} to a log request: {refusal}"
        )),
    })
}

fn parse(parameters: &[(String, String)]) -> Result<Options, StatusError> {
    let mut options = Options::default();
    let mut causes = Vec::new();
    let mut since = 0;
    let mut time = None;
    for (key, value) in parameters {
        let bound = |least: i64| match value.parse::<i64>() {
            Ok(number) if number >= least => None,
            Ok(number) => Some(Cause::invalid(
                key,
                &json!(number),
                &format!("must be greater than or equal to {least}"),
            )),
            Err(_) => Some(Cause::invalid(key, &json!(value), "must be an integer")),
        };
        let flag = matches!(
            value.as_str(),
            "" | "1" | "t" | "T" | "true" | "True" | "TRUE"
        );
        let cause = match key.as_str() {
            "container" => {
                options.container = (!value.is_empty()).then(|| value.clone());
                continue;
            }
            "previous" => {
                options.previous = flag;
                None
            }
            "follow" | "timestamps" => None,
            "tailLines" => bound(0),
            "limitBytes" => bound(1),
            "sinceSeconds" => {
                since += 1;
                bound(1)
            }
            "sinceTime" => {
                since += 1;
                time = value.parse::<jiff::Timestamp>().ok();
                time.is_none()
                    .then(|| Cause::invalid(key, &json!(value), "must be an RFC 3339 time"))
            }
            // pretty, stream, insecureSkipTLSVerifyBackend: nothing to do with the node.
            _ => continue,
        };
        causes.extend(cause);
        let value = match key.as_str() {
            "follow" | "timestamps" | "previous" => flag.to_string(),
            // Rewritten in UTC: an offset's `+` would be read as a space.
            "sinceTime" => time.map(rfc3339_nanos).unwrap_or_default(),
            _ => value.clone(),
        };
        if !options.passed_on.is_empty() {
            options.passed_on.push('&');
        }
        options.passed_on.push_str(&format!("{key}={value}"));
    }
    if since > 1 {
        let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        causes.push(Cause::forbidden("sinceSeconds", detail));
    }
    if causes.is_empty() {
        Ok(options)
    } else {
        Err(StatusError::invalid("PodLogOptions", "", "", causes))
    }
}

/// The container whose log is meant, if it can have one.
fn choose(pod: &Value, options: &Options) -> Result<String, StatusError> {
    let name = text(pod, "/metadata/name");
    let names = |list: &str| -> Vec<&str> {
        items(pod, list)
            .iter()
            .map(|container| text(container, "/name"))
            .collect()
    };
    let (containers, init) = (names("/spec/containers"), names("/spec/initContainers"));
    let annotated = pod
        .pointer("/metadata/annotations")
        .and_then(|all| all.get(DEFAULT_CONTAINER))
        .and_then(Value::as_str);
    let annotated = annotated.filter(|container| containers.contains(container));
    let container = match (
        options.container.as_deref(),
        containers.as_slice(),
        annotated,
    ) {
        (Some(container), _, _) => container,
        (None, [only], _) if init.is_empty() => only,
        (None, _, Some(annotated)) => annotated,
        (None, _, None) => {
            let mut message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                containers.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(
                    " or one of the init containers: [{}]",
                    init.join(" ")
                ));
            }
            return Err(StatusError::bad_request(message));
        }
    };
    if !containers.contains(&container) && !init.contains(&container) {
        return Err(StatusError::bad_request(format!(
            "container {container} is not valid for pod {name}"
        )));
    }

    let statuses = ["/status/containerStatuses", "/status/initContainerStatuses"];
    let status = statuses
        .iter()
        .flat_map(|list| items(pod, list))
        .find(|status| text(status, "/name") == container);
    let has = |pointer: &str| {
        status.is_some_and(|status| {
            status
                .pointer(pointer)
                .is_some_and(|state| !state.is_null())
        })
    };
    if options.previous && !has("/lastState/terminated") {
        return Err(StatusError::bad_request(format!(
            "previous terminated container {container:?} in pod {name:?} not found"
        )));
    }
    if has("/state/waiting") && !has("/lastState/terminated") {
        let reason = status.map_or("", |status| text(status, "/state/waiting/reason"));
        return Err(StatusError::bad_request(format!(
            "container {container:?} in pod {name:?} is waiting to start: {reason}"
        )));
    }
    Ok(container.to_owned())
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::request::RequestInfo;

    fn parse(query: &str) -> Result<Options, StatusError> {
        let uri: Uri = format!("/?{query}").parse().unwrap();
        super::parse(
            RequestInfo::of(&weft_kinds::Registry::builtin(), &Method::GET, &uri)
                .params()
                .unwrap()
                .pairs(),
        )
    }

    #[test]
    fn queries_are_checked_and_passed_on() {
        let options = parse("container=web&follow=true&tailLines=10&sinceTime=2026-01-01T01%3A00%3A00%2B01:00&pretty=x&previous=false").unwrap();
        assert_eq!(options.container.as_deref(), Some("web"));
        assert_eq!(
            options.passed_on,
            "follow=true&tailLines=10&sinceTime=2026-01-01T00:00:00.000000000Z&previous=false"
        );
        for (query, message) in [
            (
                "tailLines=-1",
                "tailLines: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "limitBytes=0",
                "limitBytes: Invalid value: 0: must be greater than or equal to 1",
            ),
            (
                "tailLines=x",
                "tailLines: Invalid value: \"x\": must be an integer",
            ),
            (
                "sinceTime=now",
                "sinceTime: Invalid value: \"now\": must be an RFC 3339 time",
            ),
            (
                "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
                "sinceSeconds: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
            ),
        ] {
            let error = parse(query).unwrap_err();
            assert_eq!(
                (error.code, error.message),
                (422, format!("PodLogOptions \"\" is invalid: {message}"))
            );
        }
    }

    #[test]
    fn the_container_is_chosen_as_kubectl_users_know_it() {
        let pod = |containers: &[&str], init: &[&str], status: Value| {
            let named = |names: &[&str]| -> Vec<Value> {
                names.iter().map(|name| json!({ "name": name })).collect()
            };
            json!({
                "metadata": { "name": "p" },
                "spec": { "containers": named(containers), "initContainers": named(init) },
                "status": { "containerStatuses": [status] },
            })
        };
        let asked = |container: &str| Options {
            container: Some(container.to_owned()),
            ..Options::default()
        };
        let previous = || Options {
            previous: true,
            ..Options::default()
        };
        let waiting =
            json!({ "name": "a", "state": { "waiting": { "reason": "ContainerCreating" } } });
        let crashed = json!({ "name": "a", "state": { "waiting": { "reason": "CrashLoopBackOff" } }, "lastState": { "terminated": {} } });
        let running = json!({ "name": "a", "state": { "running": {} } });
        for (pod, options, outcome) in [
            (
                pod(&["a"], &[], running.clone()),
                Options::default(),
                Ok("a"),
            ),
            (pod(&["a", "b"], &[], running.clone()), asked("b"), Ok("b")),
            (
                pod(&["a", "b"], &[], running.clone()),
                Options::default(),
                Err("a container name must be specified for pod p, choose one of: [a b]"),
            ),
            (
                pod(&["a"], &["i"], running.clone()),
                Options::default(),
                Err(
                    "a container name must be specified for pod p, choose one of: [a] or one of the init containers: [i]",
                ),
            ),
            (
                pod(&["a"], &[], running.clone()),
                asked("x"),
                Err("container x is not valid for pod p"),
            ),
            (
                pod(&["a"], &[], waiting),
                Options::default(),
                Err("container \"a\" in pod \"p\" is waiting to start: ContainerCreating"),
            ),
            (
                pod(&["a"], &[], running),
                previous(),
                Err("previous terminated container \"a\" in pod \"p\" not found"),
            ),
            (pod(&["a"], &[], crashed.clone()), previous(), Ok("a")),
            (pod(&["a"], &[], crashed), Options::default(), Ok("a")),
        ] {
            let got = choose(&pod, &options).map_err(|error| error.message);
            assert_eq!(got.as_deref().map_err(String::as_str), outcome);
        }
    }
}
