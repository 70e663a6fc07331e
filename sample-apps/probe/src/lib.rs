//! One component for trying a cluster out: it waits, fails, echoes, spins, eats memory and calls others on request.
//!
//! | path | does |
//! | --- | --- |
//! | `/hello` | a fixed short line, for benches |
//! | `/delay?ms=` | answers after that time |
//! | `/status?code=` | answers with that status |
//! | `/echo` | streams the request's body back |
//! | `/headers` | the request line and its headers, as text |
//! | `/env` | the environment, sorted, as text |
//! | `/admit` | answers an AdmissionReview: no, where the object is labelled `refused`, else yes with a warning that names the caller |
//! | `/page` | a page with a link, at an absolute path |
//! | `/whoami` | who the mesh says is calling, and the time left |
//! | `/call?url=&timeout=` | calls that address, within so many ms, and reports the response or the typed error |
//! | `/spin?ms=` | computes for that time, then answers |
//! | `/panic` | panics: the instance traps |
//! | `/truncate` | panics in the middle of the response's body |
//! | `/loop` | spins for ever: the runtime has to end it |
//! | `/eat?mb=` | takes that much memory and touches it |

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft::http::{Timeout, header, query};
use weft::{Request, Response};

/// `/call` shows this much of what it got: enough to recognise it.
const SHOWN_BYTES: usize = 4096;

#[weft::http]
async fn handle(request: Request) -> Result<Response, weft::BodyError> {
    let uri = request.uri().clone();
    let number = |name: &str, default: u64| match query(&uri, name) {
        None => Ok(default),
        Some(text) => text
            .parse::<u64>()
            .map_err(|error| format!("{name}={text}: {error}\n")),
    };
    let answer: Result<Response, String> = match uri.path() {
        "/" | "/hello" => Ok(Response::new("hello\n".into())),
        "/delay" => match number("ms", 100) {
            Ok(ms) => {
                weft::time::sleep(Duration::from_millis(ms)).await;
                Ok(text(format!("waited {ms} ms\n")))
            }
            Err(error) => Err(error),
        },
        "/status" => number("code", 200).and_then(|code| match u16::try_from(code) {
            Ok(code @ 200..=599) => Ok(weft::http::status(code)),
            _ => Err(format!("code={code}: not between 200 and 599\n")),
        }),
        "/echo" => Ok(echo(request)),
        "/headers" => Ok(text(headers(&request))),
        "/env" => Ok(text(environment())),
        "/admit" => {
            let review = request.into_body().json().await;
            review.map(admit).map_err(|error| format!("{error}\n"))
        }
        "/page" => Ok(page()),
        "/whoami" => Ok(text(whoami())),
        "/call" => match query(&uri, "url") {
            Some(url) => match query(&uri, "timeout").map(|ms| ms.parse()).transpose() {
                Ok(ms) => Ok(call(&url, ms.map(Duration::from_millis)).await),
                Err(error) => Err(format!("timeout: {error}\n")),
            },
            None => Err("/call needs url=\n".to_owned()),
        },
        "/panic" => panic!("asked to panic"),
        "/truncate" => Ok(truncated()),
        "/spin" => number("ms", 10).map(|ms| {
            let until = Instant::now() + Duration::from_millis(ms);
            while Instant::now() < until {
                black_box(());
            }
            text(format!("computed for {ms} ms\n"))
        }),
        "/loop" => spin(),
        "/eat" => number("mb", 16).map(|mb| text(eat(mb))),
        _ => Ok(weft::http::status(404)),
    };
    Ok(answer.unwrap_or_else(|message| {
        let mut refusal = text(message);
        *refusal.status_mut() = weft::http::StatusCode::BAD_REQUEST;
        refusal
    }))
}

fn page() -> Response {
    let mut response = text("<a href=\"/rewriteme\">test</a>".to_owned());
    let kind = header::HeaderValue::from_static("text/html");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// As an admission webhook.
fn admit(review: Value) -> Response {
    let request = &review["request"];
    let refused = !request["object"]["metadata"]["labels"]["refused"].is_null();
    let mut answer = json!({"uid": request["uid"], "allowed": !refused});
    if refused {
        answer["status"] = json!({"message": "it is labelled refused"});
    } else if let Some(caller) = weft::mesh::caller() {
        answer["warnings"] = json!([format!("asked by {}", caller.spiffe_id)]);
    }
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer,
    });
    text(review.to_string())
}

fn text(text: String) -> Response {
    Response::new(text.into())
}

fn truncated() -> Response {
    Response::new(weft::Body::stream(async |mut body| {
        body.write(b"the beginning\n").await?;
        panic!("asked to panic in the middle")
    }))
}

fn echo(request: Request) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut response = Response::new(request.into_body());
    if let Some(kind) = kind {
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

fn headers(request: &Request) -> String {
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        let _ = writeln!(
            text,
            "{name}: {}",
            String::from_utf8_lossy(value.as_bytes())
        );
    }
    text
}

fn environment() -> String {
    let mut variables: Vec<_> = std::env::vars().collect();
    variables.sort();
    variables.iter().fold(String::new(), |text, (name, value)| {
        text + name + "=" + value + "\n"
    })
}

fn whoami() -> String {
    let mut text = match weft::mesh::caller() {
        Some(peer) => format!(
            "spiffe-id: {}\nnamespace: {}\nservice-account: {}\nworkload: {}\ntransport: {}\n",
            peer.spiffe_id, peer.namespace, peer.service_account, peer.workload, peer.transport
        ),
        None => "unknown caller\n".to_owned(),
    };
    if let Some(left) = weft::mesh::remaining() {
        let _ = writeln!(text, "remaining: {} ms", left.as_millis());
    }
    let _ = writeln!(text, "attempt: {}", weft::mesh::attempt());
    if let Some(id) = weft::mesh::trace_id() {
        let _ = writeln!(text, "trace: {id}");
    }
    if let Some(port) = weft::mesh::port() {
        let _ = writeln!(text, "port: {port}");
    }
    text
}

/// What came back, or a 502 whose text names the error's kind and code.
async fn call(url: &str, timeout: Option<Duration>) -> Response {
    let outcome = async {
        let response = match timeout {
            None => weft::http::get(url).await?,
            Some(timeout) => {
                let mut request = Request::new(weft::Body::empty());
                // What is no address names no service, and is refused as that.
                *request.uri_mut() = url.parse().unwrap_or_default();
                request.extensions_mut().insert(Timeout(timeout));
                weft::http::send(request).await?
            }
        };
        let status = response.status();
        let body = response.into_body().bytes().await?;
        Ok::<_, weft::http::Error>((status, body))
    };
    match outcome.await {
        Ok((status, body)) => {
            let shown = &body[..body.len().min(SHOWN_BYTES)];
            text(format!("{status}\n{}", String::from_utf8_lossy(shown)))
        }
        Err(error) => {
            let mut response = text(format!(
                "{error}\nkind: {:?}\ncode: {}\n",
                error.kind(),
                error.code()
            ));
            *response.status_mut() = weft::http::StatusCode::BAD_GATEWAY;
            response
        }
    }
}

fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn eat(mb: u64) -> String {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    for _ in 0..mb {
        eaten.push(black_box(vec![1; 1 << 20])); // written, so that the pages exist
    }
    format!("ate {} MiB\n", eaten.len())
}
