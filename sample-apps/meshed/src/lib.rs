//! What `weft:mesh` offers, tried out, one thing a request.
//!
//! | path | does |
//! | --- | --- |
//! | `/who` | from where the call comes, how much it matters, which try it is |
//! | `/ask?…` | calls `http://next/` with options (`idempotent`, `no-retry`, `hedge-ms=`, `within-ms=`, `at-most=`, `key=`), then once more without |
//! | `/tell?rest-ms=&no-retry&name=&value=` | pushes back, and says something of the call |
//! | `/describe?count=` | puts so many attributes on the call, and tells how many were taken |
//! | `/count?sort=&name=&kind=&value=` | counts |
//! | `/flood?count=` | makes so many series, and tells how many were taken |
//! | `/lie` | calls `http://next/` with the host's own lines in the request |
//!
//! What is refused is answered with 400 and why.

use std::time::Duration;

use weft::http::{Uri, query};
use weft::mesh::{self, Options, Priority};
use weft::{Body, Request, Response, metrics};

#[weft::http]
async fn handle(request: Request) -> Result<Response, weft::http::Error> {
    let uri = request.uri();
    let text = |name: &str| query(uri, name).unwrap_or_default();
    let number = |name: &str| text(name).parse::<u64>().unwrap_or(0);
    let answer = match uri.path() {
        "/who" => Ok(format!(
            "{:?} {:?} try {}",
            mesh::origin(),
            mesh::priority(),
            mesh::attempt()
        )),
        "/ask" => {
            let asked = call(Some(options(uri))).await?;
            let plain = call(None).await?;
            Ok(format!("{asked} {plain}"))
        }
        "/tell" => {
            if number("rest-ms") > 0 {
                mesh::rest(Duration::from_millis(number("rest-ms")));
            }
            if query(uri, "no-retry").is_some() {
                mesh::no_retry();
            }
            match query(uri, "name") {
                Some(name) => mesh::attribute(&name, &text("value")).map(|()| "told".to_owned()),
                None => Ok("told".to_owned()),
            }
        }
        "/describe" => {
            let names = (0..number("count")).map(|number| format!("n{number}"));
            let taken = names.filter(|name| mesh::attribute(name, "v").is_ok());
            Ok(format!("{} taken", taken.count()))
        }
        "/count" => {
            let (name, kind) = (text("name"), text("kind"));
            let value = text("value").parse().unwrap_or(1.0);
            let labels = [("kind", kind.as_str())];
            let counted = match text("sort").as_str() {
                "gauge" => metrics::set(&name, &labels, value),
                "histogram" => metrics::observe(&name, &labels, value),
                _ => metrics::add(&name, &labels, value),
            };
            counted.map(|()| "counted".to_owned())
        }
        "/flood" => {
            let made = (0..number("count")).filter(|number| {
                let kind = number.to_string();
                metrics::add("flood", &[("kind", &kind)], 1.0).is_ok()
            });
            Ok(format!("{} taken", made.count()))
        }
        "/lie" => {
            let mut lie = Request::new(Body::empty());
            *lie.uri_mut() = NEXT.parse().unwrap_or_default();
            for (name, value) in LIES {
                let value = weft::http::HeaderValue::from_static(value);
                lie.headers_mut().insert(name, value);
            }
            let answer = weft::http::send(lie).await?;
            Ok(answer.status().to_string())
        }
        _ => return Ok(weft::http::status(404)),
    };
    Ok(match answer {
        Ok(text) => Response::new(text.into()),
        Err(refusal) => {
            let mut response = Response::new(format!("{refusal:?}").into());
            *response.status_mut() = weft::http::StatusCode::BAD_REQUEST;
            response
        }
    })
}

const NEXT: &str = "http://next/";
/// What only hosts say.
const LIES: [(&str, &str); 6] = [
    ("x-weft-attempt", "7"),
    ("x-weft-priority", "critical"),
    ("x-weft-depth", "0"),
    ("x-weft-timeout-ms", "99999999"),
    ("weft-worker-asked", r#"{"idempotent":true,"once":false}"#),
    ("weft-worker-aside", r#"{"is_spent":true}"#),
];

fn options(uri: &Uri) -> Options {
    let has = |name: &str| query(uri, name).is_some();
    let time = |name: &str| {
        let millis = query(uri, name)?.parse().ok()?;
        Some(Duration::from_millis(millis))
    };
    let mut options = Options::new();
    if has("idempotent") {
        options = options.idempotent();
    }
    if has("no-retry") {
        options = options.no_retry();
    }
    if let Some(wait) = time("hedge-ms") {
        options = options.hedge_after(wait);
    }
    if let Some(limit) = time("within-ms") {
        options = options.within(limit);
    }
    if let Some(key) = query(uri, "key") {
        options = options.key(key);
    }
    match query(uri, "at-most").as_deref() {
        Some("critical") => options.at_most(Priority::Critical),
        Some("sheddable") => options.at_most(Priority::Sheddable),
        Some(_) => options.at_most(Priority::Low),
        None => options,
    }
}

async fn call(options: Option<Options>) -> Result<u16, weft::http::Error> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = NEXT.parse().unwrap_or_default();
    if let Some(options) = options {
        request.extensions_mut().insert(options);
    }
    let answer = weft::http::send(request).await?;
    Ok(answer.status().as_u16())
}
