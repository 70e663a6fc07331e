//! `netexec`: a server over HTTP(S) and UDP that says who it is, echoes, and calls others.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Map, Value, json};
use tokio::net::UdpSocket;

use crate::flags::{Flags, Known, duration};
use crate::liveness::redirect;
use crate::machine::{self, host_name};
use crate::server::{Answer, Request, refused, text};
use crate::{Code, client, json, log, server, tls};

const FLAGS: [Known; 8] = [
    ("http-port", None, "8080"),
    ("tls-cert-file", None, ""),
    ("tls-private-key-file", None, ""),
    ("udp-port", None, "8081"),
    ("sctp-port", None, "-1"),
    ("http-override", None, ""),
    ("udp-listen-addresses", None, ""),
    ("delay-shutdown", None, "0"),
];
/// How long somebody who is dialled has.
const DIAL_MAX: Duration = Duration::from_secs(5);
/// Tries of one `/dial`.
const TRIES_MAX: u32 = 1024;

struct State {
    http_port: u16,
    /// The UDP server has started.
    is_ready: Cell<bool>,
}

pub(crate) async fn run(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&FLAGS, arguments)?;
    let http_port = flags.port("http-port")?.unwrap_or(8080);
    let udp_port = flags.port("udp-port")?;
    if flags.port("sctp-port")?.is_some() {
        return Err("listen sctp: protocol not supported".to_owned());
    }
    machine::unpack();
    let state = Rc::new(State {
        http_port,
        is_ready: Cell::new(false),
    });
    if let Some(port) = udp_port {
        for address in addresses(flags.text("udp-listen-addresses"))? {
            tokio::task::spawn_local(datagrams(state.clone(), address, port));
        }
    }
    let certificate = flags.text("tls-cert-file");
    let acceptor = match certificate.is_empty() {
        true => None,
        false => Some(tls::acceptor(
            certificate,
            flags.text("tls-private-key-file"),
        )?),
    };
    let listener = server::listen(http_port)
        .await
        .map_err(|error| format!("listen tcp :{http_port}: {error}"))?;
    log::print(format_args!("Started HTTP server on port {http_port}"));
    let instead = flags.text("http-override").to_owned();
    let handler = server::handler(move |mut request| {
        let state = state.clone();
        if !instead.is_empty() {
            let (path, query) = instead.split_once('?').unwrap_or((&instead, ""));
            request.path = path.to_owned();
            request.query = server::pairs(query);
        }
        async move { answered(&state, request).await }
    });
    server::serve(listener, acceptor, handler).await;
    Ok(0)
}

fn addresses(list: &str) -> Result<Vec<String>, String> {
    if list.is_empty() {
        return Ok(vec!["0.0.0.0".to_owned()]);
    }
    let mut all = Vec::new();
    for address in list.split(',') {
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(format!("parseAddress: invalid address {address}"));
        }
        all.push(address.to_owned());
    }
    all.sort();
    all.dedup();
    Ok(all)
}

async fn answered(state: &Rc<State>, request: Request) -> Answer {
    match request.path.as_str() {
        "/clientip" => {
            log::print("GET /clientip");
            text(request.remote.to_string())
        }
        "/serverport" => {
            log::print("GET /serverport");
            text(state.http_port.to_string())
        }
        "/header" => header(&request),
        "/dial" => dial(&request).await,
        "/echo" => echo(&request),
        "/exit" => exit(&request).await,
        "/healthz" => {
            log::print("GET /healthz");
            match state.is_ready.get() {
                true => text(""),
                false => server::answer(StatusCode::PRECONDITION_FAILED, PLAIN, ""),
            }
        }
        "/readyz" => {
            log::print("GET /readyz");
            match state.is_ready.get() {
                true => text("ok"),
                false => server::answer(StatusCode::PRECONDITION_FAILED, PLAIN, ""),
            }
        }
        "/hostname" => {
            log::print("GET /hostname");
            text(host_name())
        }
        "/hostName" => {
            log::print("GET /hostName");
            text(host_name())
        }
        "/envvar" => variable(&request),
        "/redirect" => redirected(&request),
        "/shell" => shell(&request),
        "/upload" => upload(&request),
        "/shutdown" => {
            log::print("GET /shutdown");
            toolbox::exit::leave(0)
        }
        _ => {
            log::print("GET /");
            let now = log::Moment::now();
            text(format!(
                "NOW: {}-{:02}-{:02} {:02}:{:02}:{:02}.{:09} +0000 UTC",
                now.year, now.month, now.day, now.hour, now.minute, now.second, now.nanos
            ))
        }
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn echo(request: &Request) -> Answer {
    let (said, code) = (request.value("msg"), request.value("code"));
    log::print(format_args!("GET /echo?msg={said}&code={code}"));
    match status(code) {
        Ok(status) => {
            let mut answer = text(said);
            *answer.status_mut() = status.unwrap_or(StatusCode::OK);
            answer
        }
        Err(answer) => *answer,
    }
}

/// A status that a parameter asks for.
fn status(code: &str) -> Result<Option<StatusCode>, Box<Answer>> {
    if code.is_empty() {
        return Ok(None);
    }
    let number = code.parse::<u16>().ok();
    let found = number.and_then(|number| StatusCode::from_u16(number).ok());
    match found {
        Some(status) => Ok(Some(status)),
        None => {
            let told = format!("argument 'code' must be an integer or empty, got {code:?}\n");
            Err(Box::new(text(told)))
        }
    }
}

fn header(request: &Request) -> Answer {
    let key = request.value("key");
    if !key.is_empty() {
        log::print(format_args!("GET /header?key={key}"));
        return text(request.header(key));
    }
    log::print("GET /header");
    let mut all = Map::new();
    for name in request.headers.keys() {
        let values = request.headers.get_all(name).iter();
        let values = values.map(|value| json!(String::from_utf8_lossy(value.as_bytes())));
        all.insert(canonical(name.as_str()), values.collect());
    }
    text(json::go(&Value::Object(all)))
}

/// `X-Forwarded-For`, as Go's headers are named.
fn canonical(name: &str) -> String {
    let parts = name.split('-').map(|part| {
        let (first, rest) = part.split_at(part.len().min(1));
        first.to_ascii_uppercase() + rest
    });
    parts.collect::<Vec<_>>().join("-")
}

fn variable(request: &Request) -> Answer {
    let name = request.value("var");
    if name.is_empty() {
        return refused(StatusCode::BAD_REQUEST, "'var' query parameter is required");
    }
    log::print(format_args!("GET /envvar?var={name}"));
    match std::env::var(name) {
        Ok(value) => text(value),
        Err(_) => {
            let told = format!("env var {name:?} is not set");
            refused(StatusCode::INTERNAL_SERVER_ERROR, told)
        }
    }
}

fn redirected(request: &Request) -> Answer {
    let (location, code) = (request.value("location"), request.value("code"));
    let method = &request.method;
    log::print(format_args!(
        "{method} /redirect?msg={location}&code={code}"
    ));
    match status(code) {
        Ok(status) => redirect(location, status.unwrap_or(StatusCode::FOUND)),
        Err(answer) => *answer,
    }
}

async fn exit(request: &Request) -> Answer {
    let (code, timeout, wait) = (
        request.value("code"),
        request.value("timeout"),
        request.value("wait"),
    );
    log::print(format_args!(
        "GET /exit?code={code}&timeout={timeout}&wait={wait}"
    ));
    let span = |name: &str, value: &str| match value {
        "" => Ok(Duration::ZERO),
        value => duration(value).ok_or_else(|| {
            format!("argument '{name}' must be a valid golang duration or empty, got {value:?}\n")
        }),
    };
    let spans = span("timeout", timeout).and_then(|it| Ok((it, span("wait", wait)?)));
    let (timeout, wait) = match spans {
        Ok(spans) => spans,
        Err(told) => return text(told),
    };
    let Ok(code) = (if code.is_empty() { "0" } else { code }).parse::<i32>() else {
        let told = format!("argument 'code' must be an integer [0-127] or empty, got {code:?}\n");
        return text(told);
    };
    log::print(format_args!(
        "Will begin shutdown in {wait:?}, allowing {timeout:?} for connections to close, then will exit with {code}"
    ));
    tokio::time::sleep(wait).await;
    if timeout.is_zero() {
        toolbox::exit::leave(code);
    }
    tokio::task::spawn_local(async move {
        tokio::time::sleep(timeout).await;
        log::print("Graceful shutdown completed with: <nil>");
        toolbox::exit::leave(code);
    });
    text("")
}

async fn dial(request: &Request) -> Answer {
    let value = |name| request.value(name);
    let (host, port, asked) = (value("host"), value("port"), value("request"));
    let (protocol, tries) = (value("protocol"), value("tries"));
    log::print(format_args!(
        "GET /dial?host={host}&protocol={protocol}&port={port}&request={asked}&tries={tries}"
    ));
    let bad = |told: String| refused(StatusCode::BAD_REQUEST, told);
    let Ok(count) = (if tries.is_empty() { "1" } else { tries }).parse::<u32>() else {
        return bad(format!(
            "tries parameter is invalid. strconv.Atoi: parsing {tries:?}: invalid syntax"
        ));
    };
    if asked.is_empty() {
        return bad("request parameter not specified. <nil>".to_owned());
    }
    let is_udp = match protocol.to_ascii_lowercase().as_str() {
        "" | "http" => false,
        "udp" => true,
        _ => return bad(format!("unsupported protocol. {protocol}")),
    };
    let Ok(number) = port.parse::<u16>() else {
        return bad(format!(
            "host and/or port param are invalid. lookup tcp/{port}: unknown port"
        ));
    };
    if let Err(why) = client::resolve(host, number) {
        return bad(format!("host and/or port param are invalid. {why}"));
    }
    let (mut responses, mut errors, mut has_last) = (Vec::new(), Vec::new(), false);
    for _ in 0..count.min(TRIES_MAX) {
        let answered = match is_udp {
            true => ask_by_datagram(host, number, asked).await,
            false => {
                let at = client::join(host, port);
                client::get(&format!("http://{at}/{asked}"), DIAL_MAX).await
            }
        };
        has_last = answered.as_ref().is_ok_and(|answer| !answer.is_empty());
        match answered {
            Ok(answer) => responses.push(answer),
            Err(why) => errors.push(why),
        }
    }
    let mut told = Map::new();
    if !errors.is_empty() {
        told.insert("errors".to_owned(), json!(errors));
    }
    if has_last {
        told.insert("responses".to_owned(), json!(responses));
    }
    text(json::go(&Value::Object(told)))
}

async fn ask_by_datagram(host: &str, port: u16, asked: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("udp dial failed. err:{error}");
    let addresses = client::resolve(host, port)?;
    let address = addresses
        .first()
        .ok_or("udp dial failed. err:no such host")?;
    let any = if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).await.map_err(failed)?;
    socket.connect(address).await.map_err(failed)?;
    socket
        .send(asked.as_bytes())
        .await
        .map_err(|error| format!("udp connection write failed. err:{error}"))?;
    let mut buffer = [0; 2048];
    let received = tokio::time::timeout(DIAL_MAX, socket.recv(&mut buffer)).await;
    match received {
        Ok(Ok(count)) if count > 0 => Ok(String::from_utf8_lossy(&buffer[..count]).into_owned()),
        Ok(Ok(_)) => Err("reading from udp connection failed. err:'EOF'".to_owned()),
        Ok(Err(error)) => Err(format!("reading from udp connection failed. err:'{error}'")),
        Err(_) => Err(format!(
            "reading from udp connection failed. err:'read udp {address}: i/o timeout'"
        )),
    }
}

/// There is no process to be started: the toolbox' shell would write to this one's output.
fn shell(request: &Request) -> Answer {
    let command = match request.value("shellCommand") {
        "" => request.value("cmd"),
        command => command,
    };
    log::print(format_args!("GET /shell?cmd={command}"));
    let told = json!({"error": "fork/exec /bin/sh: operation not permitted"});
    text(json::go(&told))
}

/// The first file of a form, written to `/uploads`.
fn upload(request: &Request) -> Answer {
    log::print("GET /upload");
    let told = |key: &str, value: &str| json::go(&json!({key: value}));
    let Some(file) = form_file(request.header("content-type"), &request.body) else {
        log::print("Unable to upload file: http: no such file");
        return text(told("error", "Unable to upload file."));
    };
    let path = format!("/uploads/upload{}", log::Moment::now().nanos);
    if let Err(error) = std::fs::write(&path, file) {
        log::print(format_args!("Unable to open file for write: {error}"));
        return text(told("error", "Unable to open file for write"));
    }
    log::print(format_args!("Wrote upload to {path}"));
    server::answer(StatusCode::CREATED, PLAIN, told("output", &path))
}

/// What is in the field `file` of a form in parts. Source: RFC 7578.
fn form_file<'b>(kind: &str, body: &'b [u8]) -> Option<&'b [u8]> {
    let boundary = kind.split("boundary=").nth(1)?.trim_matches('"');
    let mark = format!("--{boundary}");
    let find = |from: usize, what: &[u8]| {
        let rest = body.get(from..)?;
        let found = rest.windows(what.len()).position(|window| window == what)?;
        Some(from + found)
    };
    let mut at = find(0, mark.as_bytes())?;
    loop {
        let head = at + mark.len();
        let text = find(head, b"\r\n\r\n")? + 4;
        let end = find(text, mark.as_bytes())?;
        let lines = String::from_utf8_lossy(body.get(head..text)?);
        if lines.contains("name=\"file\"") {
            return body.get(text..end.saturating_sub(2));
        }
        at = end;
    }
}

async fn datagrams(state: Rc<State>, address: String, port: u16) {
    let socket = match UdpSocket::bind((address.as_str(), port)).await {
        Ok(socket) => socket,
        Err(error) => {
            log::print(format_args!(
                "Error occurred: failed to create listener for UDP address {address}:{port}:{error}"
            ));
            toolbox::exit::leave(1)
        }
    };
    let shown = if address == "0.0.0.0" { "" } else { &address };
    log::print(format_args!("Started UDP server on port {shown} {port}"));
    state.is_ready.set(true);
    let mut buffer = [0; 2048];
    loop {
        let Ok((count, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let said = String::from_utf8_lossy(&buffer[..count]);
        if let Some(answer) = said_by_datagram(said.trim(), from, port) {
            let _ = socket.send_to(answer.as_bytes(), from).await;
        }
    }
}

fn said_by_datagram(said: &str, from: std::net::SocketAddr, port: u16) -> Option<String> {
    let lower = said.to_lowercase();
    if lower == "hostname" {
        log::print("Sending udp hostName response");
        return Some(host_name());
    }
    if lower.starts_with("envvar ") {
        let name = said.split_once(' ').map_or("", |(_, name)| name.trim());
        log::print(format_args!("Sending UDP envvar response for {name}"));
        return Some(std::env::var(name).unwrap_or_default());
    }
    if let Some(echoed) = lower.strip_prefix("echo ") {
        log::print(format_args!("Echoing {echoed} to UDP client {from}\n"));
        return Some(echoed.to_owned());
    }
    match lower.as_str() {
        "clientip" => {
            log::print(format_args!("Sending clientip back to UDP client {from}\n"));
            Some(from.to_string())
        }
        "serverport" => {
            log::print(format_args!("Sending server port to UDP client {port}\n"));
            Some(port.to_string())
        }
        "" => None,
        _ => {
            log::print(format_args!(
                "Unknown UDP command received from {from}: {lower}\n"
            ));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_answered_by_word() {
        let from = "10.42.0.9:5000".parse().expect("an address");
        for (said, expected) in [
            ("echo Hello", Some("hello")),
            ("ClientIP", Some("10.42.0.9:5000")),
            ("serverport", Some("8081")),
            ("nonsense", None),
            ("", None),
        ] {
            let found = said_by_datagram(said, from, 8081);
            assert_eq!(found.as_deref(), expected, "{said}");
        }
        assert_eq!(said_by_datagram("hostName", from, 1), Some(host_name()));
    }

    #[test]
    fn a_forms_file_is_found() {
        let body = b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\nabc\r\n--x--\r\n";
        let found = form_file("multipart/form-data; boundary=x", body);
        assert_eq!(found, Some(&b"abc"[..]));
        assert_eq!(form_file("multipart/form-data; boundary=y", body), None);
        assert_eq!(form_file("text/plain", body), None);
    }

    #[test]
    fn headers_are_named_as_gos() {
        assert_eq!(canonical("x-forwarded-for"), "X-Forwarded-For");
    }
}
