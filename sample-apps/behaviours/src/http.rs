//! `wasi:http`.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, HeaderError, IncomingBody, IncomingRequest, Method, OutgoingBody,
    OutgoingRequest, OutgoingResponse, RequestOptions, ResponseOutparam, Scheme, http_error_code,
};
use wasip2::io::streams::{InputStream, StreamError};

pub fn row(request: IncomingRequest, out: ResponseOutparam) {
    let path = request.path_with_query().unwrap_or_default();
    let row = path
        .trim_start_matches('/')
        .split('?')
        .next()
        .unwrap_or_default();
    let saw = match row {
        "" | "request" => format!(
            "{:?} {:?} {:?} {:?}",
            request.method(),
            request.scheme(),
            request.authority(),
            request.path_with_query()
        ),
        "request-headers" => {
            let headers = request.headers();
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
            let headers = request.headers();
            format!(
                "{:?} {:?} {:?} {:?}",
                headers.set("a", &[]),
                headers.append("a", b"b"),
                headers.delete("a"),
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
            let names: Vec<String> = fields.entries().into_iter().map(|(name, _)| name).collect();
            format!("{appended:?} {names:?}")
        }
        "consume-twice" => {
            let body = request.consume();
            let again = request.consume().is_ok();
            let stream = body
                .as_ref()
                .ok()
                .map(|body| (body.stream().is_ok(), body.stream().is_ok()));
            format!("{} {again} {stream:?}", body.is_ok())
        }
        "request-body" => match read(&request) {
            (said, Some(body)) => format!("{said}; {}", trailers(body)),
            (said, None) => said,
        },
        "request-trailers-without-reading" => match request.consume() {
            Ok(body) => trailers(body),
            Err(()) => "no body".to_owned(),
        },
        "status" => {
            let response = OutgoingResponse::new(Fields::new());
            let first = response.status_code();
            let set = [0, 99, 100, 103, 200, 418, 599, 999, 1000, 65_535]
                .map(|code| response.set_status_code(code).is_ok());
            format!("{first} {set:?}")
        }
        "response-body-once" => {
            let response = OutgoingResponse::new(Fields::new());
            let (one, two) = (response.body(), response.body());
            let writes = one
                .as_ref()
                .ok()
                .map(|body| (body.write().is_ok(), body.write().is_ok()));
            format!("{} {} {writes:?}", one.is_ok(), two.is_ok())
        }
        "options" => {
            let options = RequestOptions::new();
            let before = options.connect_timeout();
            let set = (
                options.set_connect_timeout(Some(5)),
                options.set_first_byte_timeout(Some(6)),
                options.set_between_bytes_timeout(Some(7)),
            );
            format!(
                "{before:?} {set:?} {:?} {:?} {:?}",
                options.connect_timeout(),
                options.first_byte_timeout(),
                options.between_bytes_timeout()
            )
        }
        "request-setters" => {
            let request = OutgoingRequest::new(Fields::new());
            format!(
                "{:?} {:?} {:?} {:?}; {:?} {:?} {:?} {:?} {:?}",
                request.method(),
                request.scheme(),
                request.authority(),
                request.path_with_query(),
                request.set_method(&Method::Other("not a method".into())),
                request.set_scheme(Some(&Scheme::Other("not a scheme".into()))),
                request.set_authority(Some("not an authority")),
                request.set_path_with_query(Some("/not a path")),
                request.set_path_with_query(Some("/\r\nhost: evil"))
            )
        }
        "send" | "send-defaults" | "send-error" | "send-no-authority" | "send-broken-response" => {
            send(row)
        }
        "send-trailers" | "send-unfinished" | "send-short" => send_body(row),
        "no-answer" => return,
        "error" => return ResponseOutparam::set(out, Err(ErrorCode::ConnectionTimeout)),
        "answer-twice" => {
            let handle = out.handle();
            ResponseOutparam::set(out, Ok(OutgoingResponse::new(Fields::new())));
            // Safety: none; the handle is used up, and that is what the row is about.
            let again = unsafe { ResponseOutparam::from_handle(handle) };
            return ResponseOutparam::set(again, Ok(OutgoingResponse::new(Fields::new())));
        }
        "answer-103" | "answer-duplicates" => return head(row, out),
        "trailers" | "unfinished" | "length-right" | "length-short" | "length-long"
        | "trap-in-body" => {
            return body(row, out);
        }
        _ => format!("there is no row {row}"),
    };
    answer(out, &saw);
}

fn answer(out: ResponseOutparam, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("a new response has its body");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("a new body has its stream");
    // A caller that went away is not this component's concern.
    let _ = stream.blocking_write_and_flush(text.as_bytes());
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
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
        let entries = fields.entries().into_iter();
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

/// The whole body, and what reading says at its end.
fn read(request: &IncomingRequest) -> (String, Option<IncomingBody>) {
    let Ok(body) = request.consume() else {
        return ("no body".to_owned(), None);
    };
    let stream = body.stream().expect("a new body has its stream");
    let said = drain(&stream);
    drop(stream);
    (said, Some(body))
}

/// The stream's bytes, and what it says at the end and after it.
fn drain(stream: &InputStream) -> String {
    let mut bytes = Vec::new();
    let end = loop {
        match stream.blocking_read(7) {
            Ok(more) => bytes.extend(more),
            Err(error) => break error,
        }
    };
    let end = match end {
        StreamError::Closed => "closed".to_owned(),
        StreamError::LastOperationFailed(error) => format!("failed {:?}", http_error_code(&error)),
    };
    let after = match stream.blocking_read(7) {
        Ok(more) => format!("{} bytes more", more.len()),
        Err(StreamError::Closed) => "closed".to_owned(),
        Err(StreamError::LastOperationFailed(_)) => "failed".to_owned(),
    };
    format!("{}, {end}, then {after}", String::from_utf8_lossy(&bytes))
}

fn trailers(body: IncomingBody) -> String {
    let future = IncomingBody::finish(body);
    future.subscribe().block();
    let first = match future.get() {
        Some(Ok(Ok(Some(fields)))) => {
            let immutable = fields.append("a", b"b");
            let entries: Vec<String> = fields.entries().into_iter().map(|(name, _)| name).collect();
            format!("{entries:?} {immutable:?}")
        }
        Some(Ok(Ok(None))) => "no trailers".to_owned(),
        other => format!("{other:?}"),
    };
    format!(
        "{first}, then {:?}",
        future.get().map(|again| again.is_ok())
    )
}

fn outgoing(authority: Option<&str>, path: Option<&str>) -> OutgoingRequest {
    let request = OutgoingRequest::new(Fields::new());
    request.set_authority(authority).expect("a valid authority");
    request.set_path_with_query(path).expect("a valid path");
    request
}

fn send(row: &str) -> String {
    let request = match row {
        "send" => {
            let request = outgoing(Some("next:81"), Some("/a?b=c"));
            request.set_method(&Method::Put).expect("a valid method");
            request
                .set_scheme(Some(&Scheme::Https))
                .expect("a valid scheme");
            request
        }
        "send-error" => outgoing(Some("error"), None),
        "send-broken-response" => outgoing(Some("broken"), None),
        "send-no-authority" => outgoing(None, Some("/")),
        _ => outgoing(Some("next"), None),
    };
    match outgoing_handler::handle(request, None) {
        Ok(response) => received(&response),
        Err(code) => format!("refused {code:?}"),
    }
}

fn received(response: &outgoing_handler::FutureIncomingResponse) -> String {
    response.subscribe().block();
    let first = match response.get() {
        Some(Ok(Ok(response))) => {
            let immutable = response.headers().append("a", b"b");
            let body = response.consume().expect("a new response has its body");
            let stream = body.stream().expect("a new body has its stream");
            let said = drain(&stream);
            drop(stream);
            format!(
                "{} {immutable:?} {said}; {}",
                response.status(),
                trailers(body)
            )
        }
        Some(Ok(Err(code))) => format!("{code:?}"),
        other => format!("{other:?}"),
    };
    format!(
        "{first}; again {:?}",
        response.get().map(|again| again.is_ok())
    )
}

fn send_body(row: &str) -> String {
    let headers = Fields::new();
    if row == "send-short" {
        headers
            .append("content-length", b"9")
            .expect("a valid length");
    }
    let request = OutgoingRequest::new(headers);
    request.set_method(&Method::Post).expect("a valid method");
    request
        .set_authority(Some("echo"))
        .expect("a valid authority");
    let body = request.body().expect("a new request has its body");
    let response = outgoing_handler::handle(request, None).expect("the request may be sent");
    let stream = body.write().expect("a new body has its stream");
    let _ = stream.blocking_write_and_flush(b"hello");
    drop(stream);
    let finished = match row {
        "send-unfinished" => {
            drop(body);
            "dropped".to_owned()
        }
        _ => {
            let trailers = Fields::new();
            trailers.append("x-sum", b"5").expect("a valid trailer");
            format!(
                "{:?}",
                OutgoingBody::finish(body, (row == "send-trailers").then_some(trailers))
            )
        }
    };
    format!("{finished}; {}", received(&response))
}

fn head(row: &str, out: ResponseOutparam) {
    let headers = Fields::new();
    for value in [&b"one"[..], b"two"] {
        headers.append("x-twice", value).expect("a valid header");
    }
    let response = OutgoingResponse::new(headers);
    if row == "answer-103" {
        // Refused or not is what the row asks; the status stays 200 when it was.
        let _ = response.set_status_code(103);
    }
    let body = response.body().expect("a new response has its body");
    ResponseOutparam::set(out, Ok(response));
    let _ = OutgoingBody::finish(body, None);
}

fn body(row: &str, out: ResponseOutparam) {
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
    let response = OutgoingResponse::new(headers);
    let body = response.body().expect("a new response has its body");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("a new body has its stream");
    let written = stream.blocking_write_and_flush(b"hello");
    if row == "trap-in-body" {
        std::process::abort();
    }
    drop(stream);
    let finished = match row {
        "unfinished" => {
            drop(body);
            Ok(())
        }
        "trailers" => {
            let trailers = Fields::new();
            trailers.append("x-sum", b"5").expect("a valid trailer");
            OutgoingBody::finish(body, Some(trailers))
        }
        _ => OutgoingBody::finish(body, None),
    };
    // The response is on its way already: what the guest learned goes to stdout.
    println!("written {}, finished {finished:?}", written.is_ok());
}
