//! nginx answering from its memory: what a proxy does that runs nothing. And nginx passing on bytes.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::load::{Case, Server, Target};
use super::peers::Program;
use crate::target;

const PATIENCE: Duration = Duration::from_secs(10);

/// nginx with a process a core, which keeps its connections and logs nothing; a new one for each round.
pub fn case(name: &'static str, program: Program, answer: &'static str) -> Case<'static> {
    Case {
        name,
        peers: Vec::new(),
        serve: Box::new(move || {
            let (server, port) = start(&program, answer)?;
            let address = format!("127.0.0.1:{port}");
            Ok(Target {
                url: format!("http://{address}/"),
                connect: address,
                host: None,
                process: server.id(),
                server: Some(server),
            })
        }),
    }
}

fn start(program: &Program, answer: &str) -> Result<(Server, u16)> {
    started(program, |port| configured(port, answer))
}

/// nginx passing on connections to `port` of this machine, by its stream module; and where it listens.
pub fn pass(program: &Program, module: &Path, to: u16) -> Result<(Server, u16)> {
    started(program, |port| {
        format!(
            "load_module {};
daemon off; pid nginx.pid; worker_processes auto;
events {{ worker_connections 4096; }}
stream {{
  access_log off;
  server {{ listen 127.0.0.1:{port} reuseport; proxy_pass 127.0.0.1:{to}; tcp_nodelay on; }}
}}
",
            module.display()
        )
    })
}

/// `configured`: what it is told, for a port.
fn started(program: &Program, configured: impl FnOnce(u16) -> String) -> Result<(Server, u16)> {
    let folder = target().join("bench-nginx");
    fs::create_dir_all(&folder)?;
    // Free now; nobody else on this machine is after it in the next milliseconds.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let configuration = folder.join("nginx.conf");
    fs::write(&configuration, configured(port))?;
    let process = program
        .command()
        .arg("-p")
        .arg(&folder)
        .arg("-c")
        .arg(&configuration)
        .args(["-e", "stderr"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start nginx")?;
    let mut server = Server::new(process);
    if !server.listens(port, PATIENCE) {
        bail!("nginx does not listen");
    }
    Ok((server, port))
}

fn configured(port: u16, answer: &str) -> String {
    let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {name};"))
        .join(" ");
    format!(
        "daemon off; pid nginx.pid; worker_processes auto;
events {{ worker_connections 4096; }}
http {{
  {folders}
  access_log off; keepalive_requests 1000000000; default_type text/plain;
  server {{
    listen 127.0.0.1:{port} reuseport;
    location / {{ return 200 \"{answer}\"; }}
  }}
}}
"
    )
}
