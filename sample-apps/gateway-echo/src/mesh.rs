//! A mesh's server: what came, a line each, in the format that the suite's parser reads.

use std::io;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::{Request, Response, Version};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::http::spelled;
use crate::serve::{Peer, Reply, listen, serve};
use crate::{Ended, variable};

const GRPC: &str = "application/grpc";

struct Who {
    host: String,
    version: String,
}

/// `--port=8080 --grpc=7070 --tcp=9090`, which are those where none is given; what it is told of TLS it has no certificate for, and leaves.
///
/// # Errors
/// When a port is taken.
pub fn mesh(arguments: &[String]) -> Ended {
    let arguments: Vec<String> = arguments.to_vec();
    crate::run(async move {
        let ports = |name: &str, usual: &[u16]| -> Vec<u16> {
            let values = arguments.iter().filter_map(|argument| {
                let (flag, value) = argument.trim_start_matches('-').split_once('=')?;
                (flag == name).then(|| value.parse().ok())?
            });
            let values: Vec<u16> = values.collect();
            match values.is_empty() {
                true => usual.to_vec(),
                false => values,
            }
        };
        let who = Rc::new(Who {
            host: first(&["HOSTNAME", "POD_NAME"]),
            version: variable("SERVICE_VERSION"),
        });
        let over_tls = ports("tls", &[]);
        let http = ports("port", &[8080]).into_iter();
        let http = http.chain(ports("grpc", &[7070]));
        let mut serving = tokio::task::JoinSet::new();
        for port in http.filter(|port| !over_tls.contains(port)) {
            let who = who.clone();
            let answer = move |request, peer| answered(who.clone(), request, peer);
            serving.spawn_local(serve(port, None, answer));
        }
        for port in ports("tcp", &[9090]) {
            serving.spawn_local(lines(port, who.clone()));
        }
        match serving.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(error)) => Err(error.to_string()),
            None => Ok(()),
        }
    })
}

/// The first of these variables that is set.
fn first(names: &[&str]) -> String {
    let values = names.iter().map(|name| variable(name));
    let mut set = values.filter(|value| !value.is_empty());
    set.next().unwrap_or_default()
}

async fn answered(
    who: Rc<Who>,
    request: Request<Incoming>,
    peer: Peer,
) -> io::Result<Response<Reply>> {
    let kind = request.headers().get("content-type");
    let is_grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(GRPC.as_bytes()));
    let told = told(&who, &request, &peer);
    if is_grpc {
        return Ok(crate::grpc::echoed(&told));
    }
    Ok(Response::new(Reply::from(told)))
}

fn told(who: &Who, request: &Request<Incoming>, peer: &Peer) -> String {
    let lines = request.headers();
    let named = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    let line = lines.get("host").and_then(|host| host.to_str().ok());
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let proto = match request.version() {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    };
    let mut told = format!(
        "ServiceVersion={}\nServicePort={}\nHost={}\nURL={target}\nMethod={}\nProto={proto}\nIP={}\n",
        who.version,
        peer.port,
        named.or(line).unwrap_or_default(),
        request.method(),
        peer.remote.ip(),
    );
    for (name, value) in lines {
        let value = String::from_utf8_lossy(value.as_bytes());
        told.push_str(&format!(
            "RequestHeader={}:{value}\n",
            spelled(name.as_str())
        ));
    }
    told.push_str(&format!("Hostname={}\n", who.host));
    told
}

/// The server of TCP: a line, and who had it.
async fn lines(port: u16, who: Rc<Who>) -> Ended {
    let listener = listen(port)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            continue;
        };
        let who = who.clone();
        tokio::task::spawn_local(async move {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            if stream.read_line(&mut line).await.is_ok() {
                let told = format!("Hostname={}\nServicePort={port}\nEcho={line}\n", who.host);
                // To somebody who reads, or to nobody.
                let _ = stream.get_mut().write_all(told.as_bytes()).await;
            }
        });
    }
}
