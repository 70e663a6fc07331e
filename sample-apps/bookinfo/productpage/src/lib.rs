//! The page of a book: what `details` and `reviews` know of it.
//!
//! | path | answers |
//! | --- | --- |
//! | `GET /productpage` | the page, for a reader who may be logged in |
//! | `GET /api/v1/products/0` | `{"reader", "details", "reviews"}`: each as it was answered, or `{"error", "status"}` |
//! | `POST /login` with `username=NAME` | a cookie, and the page; nobody asks for a password |
//! | `GET /logout` | the page, without |
//! | `GET /health` | 200, for probes |
//!
//! Who is logged in is told on as `end-user`. Reviews that do not come within three seconds are asked for once more; what cannot be had is
//! left out of the page, which says so.

use std::time::Duration;

use serde::Serialize;
use weft::http::{HeaderValue, Method, StatusCode, Timeout, header, html, json, status};
use weft::{Body, Request, Response};

const PAGE: &str = include_str!("page.html");
const READER: &str = "end-user";
const COOKIE: &str = "reader";
const PATIENCE: Duration = Duration::from_secs(3);
/// Of a name, and of what is shown as one.
const NAME_BYTES_MAX: usize = 64;

#[derive(Serialize)]
struct Product {
    reader: Option<String>,
    details: Part,
    reviews: Part,
}

/// What another service said: JSON as it was, or why there is none.
struct Part(Result<String, (u16, String)>);

impl Serialize for Part {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Missing<'a> {
            error: &'a str,
            status: u16,
        }
        match &self.0 {
            Ok(text) => match serde_json::from_str::<serde_json::Value>(text) {
                Ok(value) => value.serialize(serializer),
                Err(_) => text.serialize(serializer),
            },
            Err((status, error)) => Missing {
                error,
                status: *status,
            }
            .serialize(serializer),
        }
    }
}

#[weft::http]
async fn handle(request: Request) -> Result<Response, weft::http::Error> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/health") => Ok(status(200)),
        (&Method::GET, "/" | "/productpage") => page(reader(&request)).await,
        (&Method::GET, "/api/v1/products/0") => json(&product(reader(&request)).await),
        (&Method::POST, "/login") => {
            let form = request.into_body().text().await?;
            Ok(sent_back(&username(&form)))
        }
        (&Method::GET, "/logout") => Ok(sent_back("")),
        (_, "/" | "/productpage" | "/api/v1/products/0" | "/login" | "/logout") => Ok(status(405)),
        _ => Ok(status(404)),
    }
}

/// The name in a form; only what a header and a cookie can have.
fn username(form: &str) -> String {
    let field = form
        .split('&')
        .find_map(|field| field.strip_prefix("username="));
    let letters = field.unwrap_or_default().chars();
    let letters =
        letters.filter(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(*letter));
    letters.take(NAME_BYTES_MAX).collect()
}

/// To the page, with the cookie set, or taken away.
fn sent_back(name: &str) -> Response {
    let cookie = match name {
        "" => format!("{COOKIE}=; Path=/; Max-Age=0"),
        name => format!("{COOKIE}={name}; Path=/; HttpOnly; SameSite=Lax"),
    };
    let mut response = status(303);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static("/productpage"));
    if let Ok(cookie) = cookie.parse() {
        headers.insert(header::SET_COOKIE, cookie);
    }
    response
}

/// Who is logged in.
fn reader(request: &Request) -> Option<String> {
    let cookies = request.headers().get(header::COOKIE)?.to_str().ok()?;
    let mut cookies = cookies.split(';').map(str::trim);
    let name = cookies.find_map(|cookie| cookie.strip_prefix(COOKIE)?.strip_prefix('='))?;
    let name = username(&format!("username={name}"));
    (!name.is_empty()).then_some(name)
}

async fn product(reader: Option<String>) -> Product {
    let (details, reviews) = weft::join(
        ask("http://details:9080/details/0", reader.as_deref()),
        reviews(reader.as_deref()),
    )
    .await;
    Product {
        reader,
        details,
        reviews,
    }
}

async fn reviews(reader: Option<&str>) -> Part {
    let first = ask("http://reviews:9080/reviews/0", reader).await;
    match first.0 {
        Ok(_) => first,
        Err(_) => ask("http://reviews:9080/reviews/0", reader).await,
    }
}

async fn ask(uri: &'static str, reader: Option<&str>) -> Part {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = weft::http::Uri::from_static(uri);
    if let Some(reader) = reader.and_then(|reader| HeaderValue::from_str(reader).ok()) {
        request.headers_mut().insert(READER, reader);
    }
    request.extensions_mut().insert(Timeout(PATIENCE));
    let answered = async {
        let answer = weft::http::send(request).await?;
        let status = answer.status();
        Ok::<_, weft::http::Error>((status, answer.into_body().text().await?))
    };
    Part(match answered.await {
        Ok((StatusCode::OK, text)) => Ok(text),
        Ok((status, text)) => Err((status.as_u16(), text.trim().to_owned())),
        Err(error) => Err((503, error.to_string())),
    })
}

async fn page(reader: Option<String>) -> Result<Response, weft::http::Error> {
    let Product {
        reader,
        details,
        reviews,
    } = product(reader).await;
    let who = match &reader {
        Some(name) => format!(
            r#"<span>{}</span> <a href="/logout">log out</a>"#,
            escaped(name)
        ),
        None => concat!(
            r#"<form method="post" action="/login"><input name="username" "#,
            r#"placeholder="name" aria-label="name"><button>log in</button></form>"#
        )
        .to_owned(),
    };
    let page = PAGE
        .replacen("{who}", &who, 1)
        .replacen("{details}", &of_details(&details), 1)
        .replacen("{reviews}", &of_reviews(&reviews), 1);
    Ok(html(page))
}

fn missing(what: &str, (status, why): &(u16, String)) -> String {
    format!(
        "<p class=\"missing\">The {what} cannot be had at the moment. <small>{status}: {}</small></p>",
        escaped(why)
    )
}

fn of_details(details: &Part) -> String {
    let text = match &details.0 {
        Ok(text) => text,
        Err(why) => return missing("details", why),
    };
    let book: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let rows = ["title", "author", "year", "pages", "publisher", "language"].map(|name| {
        let value = match &book[name] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        format!("<dt>{name}</dt><dd>{}</dd>", escaped(&value))
    });
    format!("<dl>{}</dl>", rows.concat())
}

fn of_reviews(reviews: &Part) -> String {
    let text = match &reviews.0 {
        Ok(text) => text,
        Err(why) => return missing("reviews", why),
    };
    let found: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let said = found["reviews"].as_array().into_iter().flatten();
    let said = said.map(|review| {
        let text = |name: &str| escaped(review[name].as_str().unwrap_or_default());
        let rating = &review["rating"];
        let stars = match (rating["stars"].as_u64(), rating["error"].as_str()) {
            (Some(stars), _) => {
                let stars = usize::try_from(stars.min(5)).unwrap_or(5);
                format!(
                    "<b class=\"{}\">{}{}</b>",
                    escaped(rating["color"].as_str().unwrap_or_default()),
                    "★".repeat(stars),
                    "☆".repeat(5 - stars)
                )
            }
            (None, Some(error)) => format!("<small class=\"missing\">{}</small>", escaped(error)),
            (None, None) => String::new(),
        };
        format!(
            "<blockquote>{}<footer>{} {stars}</footer></blockquote>",
            text("text"),
            text("reviewer")
        )
    });
    let said: String = said.collect();
    format!(
        "{said}<p><small>reviews {}, {}</small></p>",
        escaped(found["version"].as_str().unwrap_or_default()),
        escaped(found["pod"].as_str().unwrap_or_default())
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_logged_in_is_a_name_and_nothing_else() {
        for (form, expected) in [
            ("username=jason&password=x", "jason"),
            ("password=x&username=a%0d%0aset-cookie", "a0d0aset-cookie"),
            ("username=<b>", "b"),
            ("", ""),
        ] {
            assert_eq!(username(form), expected, "{form}");
        }
        let mut request = Request::new(Body::empty());
        let cookie = "other=1; reader=jason".parse().unwrap();
        request.headers_mut().insert(header::COOKIE, cookie);
        assert_eq!(reader(&request).as_deref(), Some("jason"));
    }

    #[test]
    fn the_page_is_there_without_its_reviews() {
        weft::http::respond_with(|request| match request.uri().host() {
            Some("details") => Ok(Response::new(r#"{"title":"A & B","pages":3}"#.into())),
            _ => Err(weft::http::ErrorKind::Timeout),
        });
        let answer = weft::block_on(page(Some("jason".to_owned()))).unwrap();
        let text = weft::block_on(answer.into_body().text()).unwrap();
        for part in ["A &amp; B", "jason", "The reviews cannot be had"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
