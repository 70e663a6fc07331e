//! `serve-hostname`: the host's name over HTTP, or raw over TCP and UDP.

use tokio::io::AsyncWriteExt;
use tokio::net::UdpSocket;

use crate::flags::{Flags, Known};
use crate::machine::host_name;
use crate::{Code, log, server};

const FLAGS: [Known; 5] = [
    ("tcp", None, "false"),
    ("udp", None, "false"),
    ("http", None, "true"),
    ("close", None, "false"),
    ("port", None, "9376"),
];

pub(crate) async fn run(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&FLAGS, arguments)?;
    let (tcp, udp) = (flags.switch("tcp")?, flags.switch("udp")?);
    let (http, closes) = (flags.switch("http")?, flags.switch("close")?);
    let port = flags.port("port")?.unwrap_or(9376);
    if http && (tcp || udp) {
        log::print("Can't server TCP/UDP mode and HTTP mode at the same time");
        return Ok(1);
    }
    let failed = |error: std::io::Error| format!("Error from net.Listen(): {error}");
    if tcp {
        let listener = server::listen(port).await.map_err(failed)?;
        tokio::task::spawn_local(async move {
            loop {
                let Ok((mut stream, from)) = listener.accept().await else {
                    continue;
                };
                log::print(format_args!("TCP request from {from}"));
                tokio::task::spawn_local(async move {
                    // Who has left by then does not read it.
                    let _ = stream.write_all(host_name().as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
    }
    if udp {
        let socket = UdpSocket::bind(("0.0.0.0", port)).await.map_err(failed)?;
        tokio::task::spawn_local(async move {
            let mut buffer = [0; 16];
            loop {
                let Ok((_, from)) = socket.recv_from(&mut buffer).await else {
                    continue;
                };
                log::print(format_args!("UDP request from {from}"));
                let _ = socket.send_to(host_name().as_bytes(), from).await;
            }
        });
    }
    if http {
        let listener = server::listen(port).await.map_err(failed)?;
        let handler = server::handler(move |request| async move {
            log::print(format_args!("HTTP request from {}", request.remote));
            let mut answer = server::text(host_name());
            if closes {
                let close = hyper::header::HeaderValue::from_static("close");
                answer
                    .headers_mut()
                    .insert(hyper::header::CONNECTION, close);
            }
            answer
        });
        tokio::task::spawn_local(server::serve(listener, None, handler));
    }
    log::print(format_args!("Serving on port {port}."));
    std::future::pending().await
}
