//! `guestbook`: a store in memory with replicas, and a page in front of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::{Map, Value, json};
use tokio::net::UdpSocket;

use crate::client::{self, join};
use crate::flags::{Flags, Known};
use crate::server::{Answer, Request, not_found, refused, text};
use crate::{Code, json, log, server};

const FLAGS: [Known; 3] = [
    ("http-port", None, "80"),
    ("backend-port", None, "6379"),
    ("replicaof", None, ""),
];
const REGISTER_MAX: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_secs(1);
const DIAL_MAX: Duration = Duration::from_secs(5);
/// Replicas that are told of changes.
const REPLICAS_MAX: usize = 64;

#[derive(Default)]
struct State {
    backend_port: String,
    store: Map<String, Value>,
    replicas: Vec<String>,
}

type Shared = Rc<RefCell<State>>;

pub(crate) async fn run(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&FLAGS, arguments)?;
    let port = flags.port("http-port")?.unwrap_or(80);
    let state: Shared = Rc::default();
    state.borrow_mut().backend_port = flags.text("backend-port").to_owned();
    let primary = flags.text("replicaof").to_owned();
    if !primary.is_empty() {
        tokio::task::spawn_local(register(state.clone(), primary));
    }
    let listener = server::listen(port)
        .await
        .map_err(|error| error.to_string())?;
    let handler = server::handler(move |request| {
        let state = state.clone();
        async move {
            match request.path.as_str() {
                "/register" => registered(&state, &request),
                "/get" => got(&state, &request),
                "/set" => set(&state, &request).await,
                "/guestbook" => page(&state, &request).await,
                _ => not_found(),
            }
        }
    });
    server::serve(listener, None, handler).await;
    Ok(0)
}

async fn register(state: Shared, primary: String) {
    let port = state.borrow().backend_port.clone();
    let begun = Instant::now();
    while begun.elapsed() < REGISTER_MAX {
        match registering(&state, &primary, &port).await {
            Ok(()) => {
                log::print(format_args!("Registered to node: {primary}"));
                return;
            }
            Err(why) => {
                log::print(format_args!(
                    "encountered error while registering to primary: {why}. Retrying in 1s."
                ));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    log::print("Timed out while registering to primary.");
    toolbox::exit::leave(1);
}

async fn registering(state: &Shared, primary: &str, port: &str) -> Result<(), String> {
    let at = join(primary, port);
    let number = port.parse().map_err(|_| format!("unknown port {port}"))?;
    let own = own_address(primary, number).await?;
    log::print(format_args!(
        "Registering to primary: {at}/register?host={own}"
    ));
    let told = client::get(&format!("http://{at}/register?host={own}"), DIAL_MAX).await?;
    let told: Value = serde_json::from_str(&told).map_err(|error| error.to_string())?;
    let Value::Object(store) = &told["data"] else {
        return Err(format!("Could not cast responseJSON: {}", told["data"]));
    };
    state.borrow_mut().store = store.clone();
    Ok(())
}

/// Under which address this end is seen by another.
async fn own_address(host: &str, port: u16) -> Result<String, String> {
    let addresses = client::resolve(host, port)?;
    let address = addresses.first().ok_or("no such host")?;
    if let Ok(ip) = std::env::var("POD_IP") {
        return Ok(ip);
    }
    let seen = async {
        let socket = UdpSocket::bind("0.0.0.0:0").await?;
        socket.connect(address).await?;
        socket.local_addr()
    };
    let seen = seen.await.map_err(|error| error.to_string())?;
    Ok(seen.ip().to_string())
}

fn registered(state: &Shared, request: &Request) -> Answer {
    // A socket that is bound to any address may not know its own: then the one who calls is it.
    let host = match request.value("host") {
        "" | "0.0.0.0" => request.remote.ip().to_string(),
        host => host.to_owned(),
    };
    log::print(format_args!("GET /register?host={host}"));
    let mut state = state.borrow_mut();
    if state.replicas.len() < REPLICAS_MAX && !state.replicas.contains(&host) {
        state.replicas.push(host.clone());
    }
    log::print(format_args!("Node '{host}' registered."));
    text(json::go(&json!({"data": state.store})))
}

fn got(state: &Shared, request: &Request) -> Answer {
    let key = request.value("key");
    log::print(format_args!("GET /get?key={key}"));
    let state = state.borrow();
    let data = match key {
        "" => Value::Object(state.store.clone()),
        key => state.store.get(key).cloned().unwrap_or(json!("")),
    };
    text(json::go(&json!({"data": data})))
}

async fn set(state: &Shared, request: &Request) -> Answer {
    let (key, value) = (request.value("key"), request.value("value"));
    log::print(format_args!("GET /set?key={key}&value={value}"));
    if key.is_empty() {
        return refused(StatusCode::BAD_REQUEST, "cannot set with empty key.");
    }
    let (replicas, port) = {
        let mut state = state.borrow_mut();
        state.store.insert(key.to_owned(), json!(value));
        (state.replicas.clone(), state.backend_port.clone())
    };
    for replica in replicas {
        let at = join(&replica, &port);
        let told = client::get(&format!("http://{at}/set?{}", asked(key, value)), DIAL_MAX).await;
        if let Err(why) = told {
            let told = format!("encountered error while propagating to replica '{replica}': {why}");
            return refused(StatusCode::EXPECTATION_FAILED, told);
        }
    }
    text(json::go(&json!({"message": "Updated"})))
}

async fn page(state: &Shared, request: &Request) -> Answer {
    let command = request.value("cmd").to_lowercase();
    let (key, value) = (request.value("key"), request.value("value"));
    log::print(format_args!(
        "GET /guestbook?cmd={command}&key={key}&value={value}"
    ));
    let host = match command.as_str() {
        "get" => "agnhost-replica",
        "set" if key.is_empty() => {
            return refused(StatusCode::BAD_REQUEST, "cannot set with empty key.");
        }
        "set" => "agnhost-primary",
        _ => {
            let told = format!("unsupported cmd: '{command}'");
            return refused(StatusCode::BAD_REQUEST, told);
        }
    };
    let port = state.borrow().backend_port.clone();
    let at = join(host, &port);
    let url = format!("http://{at}/{command}?{}", asked(key, value));
    match client::get(&url, DIAL_MAX).await {
        Ok(told) => text(told),
        Err(why) => refused(
            StatusCode::EXPECTATION_FAILED,
            format!("encountered error: {why}"),
        ),
    }
}

/// `key=K&value=V`, escaped.
fn asked(key: &str, value: &str) -> String {
    let escaped = |text: &str| {
        let bytes = text.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        });
        bytes.collect::<String>()
    };
    format!("key={}&value={}", escaped(key), escaped(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_escaped() {
        assert_eq!(asked("a b", "ü&"), "key=a%20b&value=%C3%BC%26");
    }
}
