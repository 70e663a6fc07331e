//! `wasi:http`.

use wasip3::http::client;
use wasip3::http::types::{
    ErrorCode, Fields, HeaderError, Method, Request, RequestOptions, Response, Scheme, Trailers,
};
use wasip3::wit_bindgen::{FutureReader, StreamReader, spawn_local};
use wasip3::{wit_future, wit_stream};

type Body = (
    StreamReader<u8>,
    FutureReader<Result<Option<Trailers>, ErrorCode>>,
);

pub async fn row(request: Request) -> Result<Response, ErrorCode> {
    let path = request.get_path_with_query().unwrap_or_default();
    let row = path
        .trim_start_matches('/')
        .split('?')
        .next()
        .unwrap_or_default();
    let saw = match row {
        "" | "request" => format!(
            "{:?} {:?} {:?} {:?}",
            request.get_method(),
            request.get_scheme(),
            request.get_authority(),
            request.get_path_with_query()
        ),
        "request-headers" => {
            let headers = request.get_headers();
            let get = |name: &str| strings(headers.get(name));
            format!(
                "{:?} {:?} {:?} {} {:?} {:?}",
                get("x-twice"),
                get("X-TWICE"),
                get("x-empty"),
                headers.has("x-missing"),
                get("x-missing"),
                get("not a name")
            )
        }
        "request-headers-are-immutable" => {
            let headers = request.get_headers();
            format!(
                "{:?} {:?} {:?} {:?} {:?}",
                headers.set("a", &[]),
                headers.append("a", b"b"),
                headers.delete("a"),
                headers.get_and_delete("a"),
                headers.clone().set("a", &[])
            )
        }
        "fields" => fields(),
        "fields-refused" => fields_refused(),
        "fields-too-large" => {
            let large = vec![b'x'; 100_000];
            format!("{:?}", Fields::new().append("large", &large))
        }
        "field-names-keep-their-case" => {
            let fields = Fields::new();
            let appended = fields.append("X-Name", b"1");
            let names: Vec<String> = fields
                .copy_all()
                .into_iter()
                .map(|(name, _)| name)
                .collect();
            format!("{appended:?} {names:?}")
        }
        "headers-outlive-their-request" => {
            let headers = request.get_headers();
            let body = Request::consume_body(request, fine());
            let said = read(body).await;
            format!("{:?} {said}", strings(headers.get("x-twice")))
        }
        "request-body" => read(Request::consume_body(request, fine())).await,
        "request-body-dropped" => {
            let (bytes, end) = Request::consume_body(request, fine());
            drop(bytes);
            match end.await {
                Ok(trailers) => format!("trailers: {}", trailers.is_some()),
                Err(code) => format!("{code:?}"),
            }
        }
        "status" => {
            let (response, _sent) = Response::new(Fields::new(), None, no_trailers());
            let first = response.get_status_code();
            let set = [0, 99, 100, 103, 200, 418, 599, 999, 1000, 65_535]
                .map(|code| response.set_status_code(code).is_ok());
            format!("{first} {set:?}")
        }
        "options" => options(),
        "request-setters" => {
            let (request, _sent) = Request::new(Fields::new(), None, no_trailers(), None);
            format!(
                "{:?} {:?} {:?} {:?}; {:?} {:?} {:?} {:?} {:?}",
                request.get_method(),
                request.get_scheme(),
                request.get_authority(),
                request.get_path_with_query(),
                request.set_method(&Method::Other("not a method".into())),
                request.set_scheme(Some(&Scheme::Other("not a scheme".into()))),
                request.set_authority(Some("not an authority")),
                request.set_path_with_query(Some("/not a path")),
                request.set_path_with_query(Some("/\r\nhost: evil"))
            )
        }
        "send" | "send-defaults" | "send-error" | "send-no-authority" | "send-broken-response" => {
            send(row).await
        }
        "send-trailers" | "send-failed" | "send-short" => send_body(row).await,
        "error" => return Err(ErrorCode::ConnectionTimeout),
        "answer-103" | "answer-duplicates" => return Ok(head(row)),
        "trailers" | "failed" | "length-right" | "length-short" | "length-long"
        | "trap-in-body" => {
            return Ok(body(row));
        }
        _ => format!("there is no row {row}"),
    };
    Ok(answer(saw))
}

fn answer(text: String) -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (response, _sent) = Response::new(Fields::new(), Some(reader), no_trailers());
    spawn_local(async move {
        // A caller that went away is not this component's concern.
        let _ = writer.write_all(text.into_bytes()).await;
    });
    response
}

/// A future that resolves to `ok(none)`.
fn no_trailers() -> FutureReader<Result<Option<Trailers>, ErrorCode>> {
    wit_future::new(|| Ok(None)).1
}

/// A future that resolves to `ok`.
fn fine() -> FutureReader<Result<(), ErrorCode>> {
    wit_future::new(|| Ok(())).1
}

fn strings(values: Vec<Vec<u8>>) -> Vec<String> {
    let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
    values.into_iter().map(text).collect()
}

fn fields() -> String {
    let fields = Fields::from_list(&[
        ("a".into(), b"1".to_vec()),
        ("b".into(), b"2".to_vec()),
        ("A".into(), b"3".to_vec()),
    ])
    .expect("valid fields");
    let show = |fields: &Fields| {
        let entries = fields.copy_all().into_iter();
        let pairs: Vec<String> = entries
            .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(&value)))
            .collect();
        pairs.join(" ")
    };
    let copy = fields.clone();
    let mut seen = vec![show(&fields)];
    type Change<'a> = (&'a str, &'a dyn Fn() -> Result<(), HeaderError>);
    let changes: [Change; 4] = [
        ("append", &|| fields.append("b", b"4")),
        ("set", &|| fields.set("a", &[b"5".to_vec()])),
        ("delete", &|| fields.delete("B")),
        ("delete", &|| fields.delete("missing")),
    ];
    for (name, change) in changes {
        seen.push(format!("{name} {:?} {}", change(), show(&fields)));
    }
    let taken = fields.get_and_delete("A").map(strings);
    seen.push(format!("take {taken:?} {}", show(&fields)));
    seen.push(format!("copy {}", show(&copy)));
    seen.join("; ")
}

fn fields_refused() -> String {
    let fields = Fields::new();
    let forbidden = [
        "connection",
        "Keep-Alive",
        "transfer-encoding",
        "upgrade",
        "host",
        "proxy-connection",
    ]
    .map(|name| matches!(fields.append(name, b"x"), Err(HeaderError::Forbidden)));
    format!(
        "{forbidden:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        Fields::from_list(&[("host".into(), b"x".to_vec())]).map(drop),
        fields.append("not a name", b"x"),
        fields.append("name", b"two\r\nlines: 1"),
        fields.set("", &[b"x".to_vec()]),
        fields.delete("not a name"),
        fields.has("not a name")
    )
}

fn options() -> String {
    let options = RequestOptions::new();
    let before = options.get_connect_timeout();
    let set = (
        options.set_connect_timeout(Some(5)),
        options.set_first_byte_timeout(Some(6)),
        options.set_between_bytes_timeout(Some(7)),
    );
    let copy = options.clone();
    let (request, _sent) = Request::new(Fields::new(), None, no_trailers(), Some(options));
    let inside = request.get_options();
    format!(
        "{before:?} {set:?} {:?} {:?} {:?}; immutable {:?}, copy {:?}",
        copy.get_connect_timeout(),
        copy.get_first_byte_timeout(),
        copy.get_between_bytes_timeout(),
        inside.map(|options| options.set_connect_timeout(None)),
        copy.set_connect_timeout(None)
    )
}

/// A body's bytes, and what its future says.
async fn read((bytes, end): Body) -> String {
    let bytes = bytes.collect().await;
    let end = match end.await {
        Ok(Some(fields)) => {
            let immutable = fields.append("a", b"b");
            let names: Vec<String> = fields
                .copy_all()
                .into_iter()
                .map(|(name, _)| name)
                .collect();
            format!("{names:?} {immutable:?}")
        }
        Ok(None) => "no trailers".to_owned(),
        Err(code) => format!("{code:?}"),
    };
    format!("{}; {end}", String::from_utf8_lossy(&bytes))
}

async fn send(row: &str) -> String {
    let (request, sent) = Request::new(Fields::new(), None, no_trailers(), None);
    let (authority, path) = match row {
        "send" => (Some("next:81"), Some("/a?b=c")),
        "send-error" => (Some("error"), None),
        "send-broken-response" => (Some("broken"), None),
        "send-no-authority" => (None, Some("/")),
        _ => (Some("next"), None),
    };
    request.set_authority(authority).expect("a valid authority");
    request.set_path_with_query(path).expect("a valid path");
    if row == "send" {
        request.set_method(&Method::Put).expect("a valid method");
        request
            .set_scheme(Some(&Scheme::Https))
            .expect("a valid scheme");
    }
    let response = match client::send(request).await {
        Ok(response) => received(response).await,
        Err(code) => format!("{code:?}"),
    };
    format!("{response}; sent {:?}", sent.await)
}

async fn received(response: Response) -> String {
    let immutable = response.get_headers().append("a", b"b");
    let status = response.get_status_code();
    format!(
        "{status} {immutable:?} {}",
        read(Response::consume_body(response, fine())).await
    )
}

async fn send_body(row: &str) -> String {
    let headers = Fields::new();
    if row == "send-short" {
        headers
            .append("content-length", b"9")
            .expect("a valid length");
    }
    let (mut writer, reader) = wit_stream::new();
    let (trailers, arriving) = wit_future::new(|| Ok(None));
    let (request, sent) = Request::new(headers, Some(reader), arriving, None);
    request.set_method(&Method::Post).expect("a valid method");
    request
        .set_authority(Some("echo"))
        .expect("a valid authority");
    let end = match row {
        "send-trailers" => {
            let fields = Fields::new();
            fields.append("x-sum", b"5").expect("a valid trailer");
            Ok(Some(fields))
        }
        "send-failed" => Err(ErrorCode::InternalError(Some("the guest gave up".into()))),
        _ => Ok(None),
    };
    spawn_local(async move {
        let _ = writer.write_all(b"hello".to_vec()).await;
        drop(writer);
        let _ = trailers.write(end).await;
    });
    let response = match client::send(request).await {
        Ok(response) => received(response).await,
        Err(code) => format!("{code:?}"),
    };
    format!("{response}; sent {:?}", sent.await)
}

fn head(row: &str) -> Response {
    let headers = Fields::new();
    for value in [&b"one"[..], b"two"] {
        headers.append("x-twice", value).expect("a valid header");
    }
    let (response, _sent) = Response::new(headers, None, no_trailers());
    if row == "answer-103" {
        // Refused or not is what the row asks; the status stays 200 when it was.
        let _ = response.set_status_code(103);
    }
    response
}

fn body(row: &str) -> Response {
    let headers = Fields::new();
    let length: Option<&[u8]> = match row {
        "length-right" => Some(b"5"),
        "length-short" => Some(b"9"),
        "length-long" => Some(b"3"),
        _ => None,
    };
    if let Some(length) = length {
        headers
            .append("content-length", length)
            .expect("a valid length");
    }
    let (mut writer, reader) = wit_stream::new();
    let (trailers, arriving) = wit_future::new(|| Ok(None));
    let (response, sent) = Response::new(headers, Some(reader), arriving);
    let row = row.to_owned();
    spawn_local(async move {
        let left = writer.write_all(b"hello".to_vec()).await;
        drop(writer);
        let end = match row.as_str() {
            "trap-in-body" => std::process::abort(),
            "trailers" => {
                let fields = Fields::new();
                fields.append("x-sum", b"5").expect("a valid trailer");
                Ok(Some(fields))
            }
            "failed" => Err(ErrorCode::InternalError(Some("the guest gave up".into()))),
            _ => Ok(None),
        };
        let told = trailers.write(end).await.is_ok();
        // The response is on its way already: what the guest learned goes to stdout.
        println!("{} left, told {told}, sent {:?}", left.len(), sent.await);
    });
    response
}
