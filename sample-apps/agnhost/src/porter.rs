//! `porter`: serves on each port that its environment names the value that is there.

use serde_json::json;
use tokio::net::UdpSocket;

use crate::flags::{Flags, Known};
use crate::server::Handler;
use crate::{Code, json, log, machine, server, tls};

const FLAGS: [Known; 1] = [("json-response", None, "false")];
/// Of variables, and whether what is served is TCP, TLS or UDP.
const PREFIXES: [(&str, Kind); 4] = [
    ("SERVE_PORT_", Kind::Tcp),
    ("SERVE_TCP_PORT_", Kind::Tcp),
    ("SERVE_TLS_PORT_", Kind::Tls),
    ("SERVE_UDP_PORT_", Kind::Udp),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Tls,
    Udp,
}

pub(crate) async fn run(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&FLAGS, arguments)?;
    let as_json = flags.switch("json-response")?;
    machine::unpack();
    for (name, value) in std::env::vars() {
        let Some((kind, port)) = named(&name) else {
            continue;
        };
        tokio::task::spawn_local(async move {
            let served = match kind {
                Kind::Udp => datagrams(port, value).await,
                _ => serve(port, value, kind == Kind::Tls, as_json).await,
            };
            if let Err(why) = served {
                log::print(format_args!("server on port \"{port}\" failed: {why}"));
            }
        });
    }
    std::future::pending().await
}

fn named(name: &str) -> Option<(Kind, u16)> {
    PREFIXES.iter().find_map(|(prefix, kind)| {
        let port = name.strip_prefix(prefix)?;
        Some((*kind, port.parse().ok()?))
    })
}

async fn serve(port: u16, value: String, is_tls: bool, as_json: bool) -> Result<(), String> {
    let acceptor = match is_tls {
        true => {
            let file = |name, default: &str| {
                std::env::var(name)
                    .ok()
                    .filter(|it| !it.is_empty())
                    .unwrap_or_else(|| default.to_owned())
            };
            let (certificate, key) = (
                file("CERT_FILE", "localhost.crt"),
                file("KEY_FILE", "localhost.key"),
            );
            Some(tls::acceptor(&certificate, &key)?)
        }
        false => None,
    };
    let listener = server::listen(port)
        .await
        .map_err(|error| error.to_string())?;
    server::serve(listener, acceptor, handler(value, as_json)).await;
    Ok(())
}

fn handler(value: String, as_json: bool) -> Handler {
    server::handler(move |request| {
        let value = value.clone();
        async move {
            if !as_json {
                return server::text(value);
            }
            let (method, body) = (json!(request.method.as_str()), json::go(&json!(value)));
            let told = format!("{{\"Method\":{method},\"Body\":{body}}}");
            server::answer(hyper::StatusCode::OK, "application/json", told)
        }
    })
}

async fn datagrams(port: u16, value: String) -> Result<(), String> {
    let socket = UdpSocket::bind(("0.0.0.0", port)).await;
    let socket = socket.map_err(|error| error.to_string())?;
    log::print(format_args!("Started UDP server on port {port}"));
    let mut buffer = [0; 16];
    loop {
        let received = socket.recv_from(&mut buffer).await;
        let (_, from) = received.map_err(|error| error.to_string())?;
        let _ = socket.send_to(value.as_bytes(), from).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_name_ports() {
        for (name, expected) in [
            ("SERVE_PORT_80", Some((Kind::Tcp, 80))),
            ("SERVE_TLS_PORT_443", Some((Kind::Tls, 443))),
            ("SERVE_UDP_PORT_53", Some((Kind::Udp, 53))),
            ("SERVE_PORT_x", None),
            ("SERVE_SCTP_PORT_1", None),
            ("PATH", None),
        ] {
            assert_eq!(named(name), expected, "{name}");
        }
    }
}
