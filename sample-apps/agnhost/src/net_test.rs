//! `nettest`: a server that others register at, and that says of whom it has heard.
//!
//! Looking for peers by the API is not part of what tests use of it; who writes is received all the same.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Value, json};

use crate::flags::{Flags, Known};
use crate::machine::host_name;
use crate::server::{not_found, text};
use crate::{Code, server};

const FLAGS: [Known; 5] = [
    ("port", None, "8080"),
    ("peers", None, "8"),
    ("service", None, "nettest"),
    ("namespace", None, "default"),
    ("delay-shutdown", None, "0"),
];
/// Errors that are kept.
const ERRORS_MAX: usize = 500;

#[derive(Default)]
struct State {
    received: BTreeMap<String, u64>,
    errors: Vec<String>,
}

pub(crate) async fn run(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&FLAGS, arguments)?;
    if flags.text("service").is_empty() {
        return Err("Must provide -service flag.".to_owned());
    }
    let port = flags.port("port")?.unwrap_or(8080);
    let peers = usize::try_from(flags.number("peers")?).unwrap_or(usize::MAX);
    let listener = server::listen(port)
        .await
        .map_err(|error| error.to_string())?;
    let state = Rc::new(RefCell::new(State::default()));
    let handler = server::handler(move |request| {
        let state = state.clone();
        async move {
            match request.path.as_str() {
                "/quit" => toolbox::exit::leave(0),
                "/status" => text(match state.borrow().received.len() >= peers {
                    true => "pass",
                    false => "running",
                }),
                "/read" => text(read(&state.borrow())),
                "/write" => text(written(&mut state.borrow_mut(), &request.body)),
                _ => not_found(),
            }
        }
    });
    server::serve(listener, None, handler).await;
    Ok(0)
}

fn read(state: &State) -> String {
    let or_null = |is_empty: bool, value: Value| if is_empty { Value::Null } else { value };
    let fields = [
        ("Hostname", json!(host_name())),
        ("Sent", Value::Null),
        (
            "Received",
            or_null(state.received.is_empty(), json!(state.received)),
        ),
        (
            "Errors",
            or_null(state.errors.is_empty(), json!(state.errors)),
        ),
        ("Log", Value::Null),
        ("StillContactingPeers", json!(true)),
    ];
    let lines = fields.map(|(name, value)| format!("\t\"{name}\": {value}"));
    format!("{{\n{}\n}}", lines.join(",\n"))
}

fn written(state: &mut State, body: &[u8]) -> String {
    let source = match serde_json::from_slice::<Value>(body) {
        Ok(said) => said["Source"].as_str().unwrap_or("").to_owned(),
        Err(error) => {
            state.errors.push(error.to_string());
            String::new()
        }
    };
    if source.is_empty() {
        let told = format!("{}: Got request with no source", host_name());
        state.errors.push(told);
    } else {
        *state.received.entry(source).or_default() += 1;
    }
    let over = state.errors.len().saturating_sub(ERRORS_MAX);
    state.errors.drain(..over);
    format!("{}\n", json!({"Hostname": host_name()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_is_received_and_counted() {
        let mut state = State::default();
        for body in [
            "{\"Source\":\"a\",\"Dest\":\"b\"}",
            "{\"Source\":\"a\"}",
            "{}",
            "x",
        ] {
            written(&mut state, body.as_bytes());
        }
        let read: Value = serde_json::from_str(&read(&state)).expect("JSON");
        assert_eq!(read["Received"], json!({"a": 2}));
        assert_eq!(read["Errors"].as_array().map(Vec::len), Some(3));
        assert_eq!(read["StillContactingPeers"], true);
    }
}
