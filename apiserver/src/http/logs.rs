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
use weft_api::status::{Cause, StatusError};
use weft_api::time::rfc3339_nanos;
use weft_kinds::lens::{items, text};

use crate::caller::Caller;
use crate::http::AppState;
use crate::http::proxy::{find_node, unreachable};
use crate::http::streams::choose_container;
use crate::request::Params;

/// How much of a node's refusal is read to pass it on.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

/// What is asked for, checked. Counts go to the node as they came.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    /// Empty where none is named.
    container: String,
    previous: bool,
    /// The parameters that the node understands, already encoded.
    passed_on: String,
}

/// Answers the log subresource of a pod.
///
/// # Errors
/// 400 for a container that cannot be chosen or has no log yet, and for what is no number or time; 404; 422 for parameters out of range; 503 when the
/// pod's node is out of reach.
pub async fn serve(
    state: &AppState,
    namespace: &str,
    pod: &str,
    params: &Params,
) -> Result<Response, StatusError> {
    let options = parse(pod, params)?;
    let reader = Caller::system("apiserver", None);
    let reader = state.objects.client(&reader);
    let stored = reader.get(&weft_kinds::POD, Some(namespace), pod).await?;
    let stored = stored.object();
    let object = stored.as_value();
    let container = choose_container(object, &options.container)?;
    let node_name = text(object, "/spec/nodeName");
    if node_name.is_empty() {
        // Nobody can have written anything.
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    if let Some(why) = missing(object, container, options.previous) {
        return Err(StatusError::bad_request(why));
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

/// # Errors
/// 400 for what is no number or time, in Go's words; 422 for what is out of range.
fn parse(pod: &str, params: &Params) -> Result<Options, StatusError> {
    let mut causes = Vec::new();
    let mut passed_on = form_urlencoded::Serializer::new(String::new());
    let previous = params.flag("previous") == Some(true);
    for name in ["follow", "previous", "timestamps"] {
        if params.flag(name) == Some(true) {
            passed_on.append_pair(name, "true");
        }
    }
    for (name, least, words) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ] {
        match params.number(name)? {
            Some(number) if number < least => {
                causes.push(Cause::invalid(name, &json!(number), words));
            }
            Some(number) => {
                passed_on.append_pair(name, &number.to_string());
            }
            None => {}
        }
    }
    let since = params.get("sinceTime").filter(|text| *text != "null");
    let since = since.map(|text| {
        text.parse::<jiff::Timestamp>().map_err(|_| {
            StatusError::bad_request(format!(
                "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
            ))
        })
    });
    if let Some(since) = since.transpose()? {
        passed_on.append_pair("sinceTime", &rfc3339_nanos(since));
        if params.number("sinceSeconds")?.is_some() {
            let told = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            causes.push(Cause::forbidden("[]", told));
        }
    }
    let stream = params.get("stream").unwrap_or("All");
    if !matches!(stream, "All" | "Stdout" | "Stderr") {
        let known = ["All", "Stderr", "Stdout"];
        causes.push(Cause::not_supported("stream", &json!(stream), &known));
    }
    if stream != "All" {
        if params.number("tailLines")?.is_some() {
            let told = "`tailLines` and specific `stream` are mutually exclusive for now";
            causes.push(Cause::forbidden("[]", told));
        }
        passed_on.append_pair("stream", stream);
    }
    if !causes.is_empty() {
        return Err(StatusError::invalid("PodLogOptions", "", pod, causes));
    }
    Ok(Options {
        container: params.get("container").unwrap_or("").to_owned(),
        previous,
        passed_on: passed_on.finish(),
    })
}

/// Why a container can have no log yet, as a kubelet tells it.
fn missing(pod: &Value, container: &str, previous: bool) -> Option<String> {
    let name = text(pod, "/metadata/name");
    let statuses = [
        "/status/containerStatuses",
        "/status/initContainerStatuses",
        "/status/ephemeralContainerStatuses",
    ];
    let mut statuses = statuses.iter().flat_map(|list| items(pod, list));
    let Some(status) = statuses.find(|status| text(status, "/name") == container) else {
        return Some(format!(
            "container {container:?} in pod {name:?} is not available"
        ));
    };
    let has = |pointer: &str| {
        status
            .pointer(pointer)
            .is_some_and(|state| !state.is_null())
    };
    let ended = has("/lastState/terminated");
    if previous {
        return (!ended).then(|| {
            format!("previous terminated container {container:?} in pod {name:?} not found")
        });
    }
    if ended || has("/state/running") || has("/state/terminated") {
        return None;
    }
    if !has("/state/waiting") {
        return Some(format!(
            "container {container:?} in pod {name:?} is waiting to start - no logs yet"
        ));
    }
    let why = match text(status, "/state/waiting/reason") {
        "ErrImagePull" => "image can't be pulled",
        "ImagePullBackOff" => "trying and failing to pull image",
        other => other,
    };
    Some(format!(
        "container {container:?} in pod {name:?} is waiting to start: {why}"
    ))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::request::RequestInfo;

    fn parse(query: &str) -> Result<Options, StatusError> {
        let uri: Uri = format!("/?{query}").parse().unwrap();
        let info = RequestInfo::of(&weft_kinds::Registry::builtin(), &Method::GET, &uri);
        super::parse("p", info.params().unwrap())
    }

    #[test]
    fn queries_are_checked_and_passed_on() {
        let options = parse("container=web&follow=true&tailLines=10&sinceTime=2026-01-01T01%3A00%3A00%2B01:00&pretty=x&previous=false&insecureSkipTLSVerifyBackend=true").unwrap();
        assert_eq!(
            (options.container.as_str(), options.previous),
            ("web", false)
        );
        assert_eq!(
            options.passed_on,
            "follow=true&tailLines=10&sinceTime=2026-01-01T00%3A00%3A00.000000000Z"
        );
        let options =
            parse("stream=Stderr&timestamps&limitBytes=1&sinceSeconds=5&previous=1").unwrap();
        assert!(options.previous);
        assert_eq!(
            options.passed_on,
            "previous=true&timestamps=true&limitBytes=1&sinceSeconds=5&stream=Stderr"
        );
        for (query, code, message) in [
            (
                "tailLines=-1",
                422,
                "tailLines: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                "limitBytes=0",
                422,
                "limitBytes: Invalid value: 0: must be greater than 0",
            ),
            (
                "sinceSeconds=0",
                422,
                "sinceSeconds: Invalid value: 0: must be greater than 0",
            ),
            (
                "tailLines=x",
                400,
                "strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "sinceTime=now",
                400,
                "parsing time \"now\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"now\" as \"2006\"",
            ),
            (
                "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
                422,
                "[]: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
            ),
            (
                "stream=stdin",
                422,
                "stream: Unsupported value: \"stdin\": supported values: \"All\", \"Stderr\", \"Stdout\"",
            ),
            (
                "stream=Stdout&tailLines=1",
                422,
                "[]: Forbidden: `tailLines` and specific `stream` are mutually exclusive for now",
            ),
        ] {
            let error = parse(query).unwrap_err();
            let message = match code {
                422 => format!("PodLogOptions \"p\" is invalid: {message}"),
                _ => message.to_owned(),
            };
            assert_eq!((error.code, error.message), (code, message));
        }
    }

    #[test]
    fn a_log_that_cannot_be_there_says_why() {
        let pod = |list: &str, status: Value| json!({"metadata": {"name": "p"}, "status": {list: [status]}});
        let waiting = |reason: &str| json!({"name": "a", "state": {"waiting": {"reason": reason}}});
        let crashed = json!({"name": "a", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {}}});
        let running = json!({"name": "a", "state": {"running": {}}});
        const LIST: &str = "containerStatuses";
        for (pod, previous, expected) in [
            (pod(LIST, running.clone()), false, None),
            (pod("initContainerStatuses", running.clone()), false, None),
            (
                pod("ephemeralContainerStatuses", running.clone()),
                false,
                None,
            ),
            (pod(LIST, crashed.clone()), false, None),
            (pod(LIST, crashed), true, None),
            (
                pod(LIST, running),
                true,
                Some("previous terminated container \"a\" in pod \"p\" not found"),
            ),
            (
                pod(LIST, waiting("ContainerCreating")),
                false,
                Some("container \"a\" in pod \"p\" is waiting to start: ContainerCreating"),
            ),
            (
                pod(LIST, waiting("ErrImagePull")),
                false,
                Some("container \"a\" in pod \"p\" is waiting to start: image can't be pulled"),
            ),
            (
                pod(LIST, waiting("ImagePullBackOff")),
                false,
                Some(
                    "container \"a\" in pod \"p\" is waiting to start: trying and failing to pull image",
                ),
            ),
            (
                pod(LIST, json!({"name": "a"})),
                false,
                Some("container \"a\" in pod \"p\" is waiting to start - no logs yet"),
            ),
            (
                pod(LIST, json!({"name": "b"})),
                false,
                Some("container \"a\" in pod \"p\" is not available"),
            ),
        ] {
            assert_eq!(missing(&pod, "a", previous).as_deref(), expected);
        }
    }
}
