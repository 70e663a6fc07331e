//! The client's end of what runs in a container: a WebSocket whose messages are channels (`v5.channel.k8s.io`).
//!
//! ```text
//! 0 stdin · 1 stdout · 2 stderr · 3 how it ended (a Status) · 4 size of the terminal · 255 a channel's end
//! ```
//!
//! Invariants: what goes in and what comes out do not wait for one another; a session ends with the Status, whose exit code is the command's.

use std::fmt::Write as _;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

use crate::exit::{Failure, Terminated};
use crate::kubeconfig::api_failure;
use crate::terminal;

const PROTOCOL: &str = "v5.channel.k8s.io";
/// How much of a refusal is read.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// What is read of the input at once.
const READ_BYTES: usize = 32 << 10;

type Io = TokioIo<hyper::upgrade::Upgraded>;

/// A connection of the API that has become something else.
///
/// # Errors
/// What the server says to it, and what [`api_failure`] makes of no answer.
pub async fn upgraded(
    client: &kube::Client,
    request: http::request::Builder,
    cannot: &str,
) -> Result<Io, Failure> {
    let broken = |why: &dyn std::fmt::Display| Failure::new(cannot, why, "run the command again");
    let request = request
        .header(header::CONNECTION, "Upgrade")
        .body(Body::empty())
        .map_err(|error| broken(&error))?;
    let response = client.send(request).await;
    let response = response.map_err(|error| api_failure(cannot, &error))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let upgraded = hyper::upgrade::on(response).await;
        return Ok(TokioIo::new(upgraded.map_err(|error| broken(&error))?));
    }
    let code = response.status();
    let refusal = Limited::new(response.into_body(), REFUSAL_BYTES_MAX)
        .collect()
        .await;
    let refusal = refusal.map(|body| body.to_bytes()).unwrap_or_default();
    let status: Value = serde_json::from_slice(&refusal).unwrap_or_default();
    let why = match status["message"].as_str() {
        Some(message) => message.to_owned(),
        None => format!("the server answered {code}"),
    };
    Err(Failure::new(cannot, why, "see the pod with `weft get pod`"))
}

/// What is wanted of a container.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    pub namespace: &'a str,
    pub pod: &'a str,
    pub container: &'a str,
    /// None: a look at what runs there already.
    pub command: Option<&'a [String]>,
    pub stdin: bool,
    pub tty: bool,
}

impl Wanted<'_> {
    fn path(&self) -> String {
        let Self {
            namespace,
            pod,
            container,
            ..
        } = self;
        let what = if self.command.is_some() {
            "exec"
        } else {
            "attach"
        };
        let mut query = form_urlencoded::Serializer::new(String::new());
        for word in self.command.into_iter().flatten() {
            query.append_pair("command", word);
        }
        query.append_pair("container", container);
        for (name, is) in [
            ("stdin", self.stdin),
            ("stdout", true),
            ("stderr", !self.tty),
            ("tty", self.tty),
        ] {
            if is {
                query.append_pair(name, "true");
            }
        }
        let query = query.finish();
        format!("/api/v1/namespaces/{namespace}/pods/{pod}/{what}?{query}")
    }
}

/// A session that is open.
pub struct Session {
    socket: WebSocketStream<Io>,
    tty: bool,
}

impl Session {
    /// # Errors
    /// As [`upgraded`].
    pub async fn open(
        client: &kube::Client,
        wanted: &Wanted<'_>,
        cannot: &str,
    ) -> Result<Self, Failure> {
        let request = Request::get(wanted.path())
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, generate_key())
            .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL);
        let io = upgraded(client, request, cannot).await?;
        let socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        let tty = wanted.tty;
        Ok(Self { socket, tty })
    }

    /// Carries it to its end; `stdin` is none where nothing goes in.
    ///
    /// # Errors
    /// [`Terminated`] for a code that is not 0; a [`Failure`] for what did not come to an end, `cannot` being what that was.
    pub async fn run(
        self,
        stdin: Option<impl AsyncRead + Unpin>,
        mut stdout: impl AsyncWrite + Unpin,
        mut stderr: impl AsyncWrite + Unpin,
        cannot: &str,
    ) -> anyhow::Result<()> {
        let (mut out, mut received) = self.socket.split();
        let up = up(&mut out, stdin, self.tty);
        let down = down(&mut received, &mut stdout, &mut stderr);
        let status = tokio::select! {
            biased;
            status = down => status?,
            error = up => return Err(error.into()),
        };
        match status {
            Some(status) => Ok(ended(&status, cannot)?),
            None => {
                let why = "the connection ended before it did";
                Err(Failure::new(cannot, why, "see the pod with `weft get pod`").into())
            }
        }
    }
}

/// What a Status says of the end.
fn ended(status: &Value, cannot: &str) -> anyhow::Result<()> {
    if status["status"] == "Success" {
        return Ok(());
    }
    let causes = status["details"]["causes"].as_array();
    let mut causes = causes.into_iter().flatten();
    let code = causes.find(|cause| cause["reason"] == "ExitCode");
    let code = code.and_then(|cause| cause["message"].as_str()?.parse().ok());
    if let (Some(code), true) = (code, status["reason"] == "NonZeroExitCode") {
        return Err(Terminated(code).into());
    }
    let why = status["message"].as_str().unwrap_or("it did not say why");
    Err(Failure::new(cannot, why, "see the pod with `weft get pod`").into())
}

/// From here to the container. Ends only when the connection does.
async fn up(
    out: &mut SplitSink<WebSocketStream<Io>, Message>,
    mut stdin: Option<impl AsyncRead + Unpin>,
    tty: bool,
) -> Failure {
    let mut resized = tty.then(terminal::resized).and_then(Result::ok);
    let mut buffer = vec![0; READ_BYTES];
    let mut next = size_message().filter(|_| tty);
    loop {
        if let Some(message) = next.take()
            && let Err(error) = out.send(message).await
        {
            // What the server says to it is heard first, if it says something.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            return Failure::new("the session is lost", error, "run the command again");
        }
        let read = async {
            match &mut stdin {
                Some(stdin) => stdin.read(&mut buffer).await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            match &mut resized {
                Some(resized) => resized.recv().await,
                None => std::future::pending().await,
            }
        };
        next = tokio::select! {
            read = read => match read {
                Ok(count @ 1..) => {
                    let mut message = Vec::with_capacity(1 + count);
                    message.push(0);
                    message.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    Some(Message::binary(message))
                }
                Ok(0) | Err(_) => {
                    stdin = None;
                    Some(Message::binary(vec![255, 0]))
                }
            },
            changed = changed => match changed {
                Some(()) => size_message(),
                None => {
                    resized = None;
                    None
                }
            },
        };
    }
}

fn size_message() -> Option<Message> {
    let (width, height) = terminal::size()?;
    let mut message = String::from("\u{4}");
    // Writing to a String cannot fail.
    let _ = write!(message, "{}", json!({"Width": width, "Height": height}));
    Some(Message::binary(message.into_bytes()))
}

/// From the container to here: the Status, if it is told.
async fn down(
    received: &mut SplitStream<WebSocketStream<Io>>,
    stdout: &mut (impl AsyncWrite + Unpin),
    stderr: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<Option<Value>> {
    while let Some(Ok(message)) = received.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Close(_) => break,
            _ => continue,
        };
        match bytes.split_first() {
            Some((1, bytes)) => {
                stdout.write_all(bytes).await?;
                stdout.flush().await?;
            }
            Some((2, bytes)) => {
                stderr.write_all(bytes).await?;
                stderr.flush().await?;
            }
            Some((3, bytes)) if !bytes.is_empty() => return Ok(serde_json::from_slice(bytes).ok()),
            _ => {}
        }
    }
    Ok(None)
}

/// Has somebody at this terminal, or whatever this program reads and writes, in a session.
///
/// # Errors
/// As [`Session::run`].
pub async fn at_hand(
    client: &kube::Client,
    wanted: &Wanted<'_>,
    cannot: &str,
) -> anyhow::Result<()> {
    let session = Session::open(client, wanted, cannot).await?;
    let raw = wanted.tty.then(terminal::Raw::enter).transpose()?;
    let stdin = wanted.stdin.then(tokio::io::stdin);
    let ran = session.run(stdin, tokio::io::stdout(), tokio::io::stderr(), cannot);
    let ran = ran.await;
    drop(raw);
    ran
}

/// Whether there can be a terminal; told where one is asked for in vain.
pub fn terminal_for(asked: bool, stdin: bool) -> bool {
    if asked && stdin && !terminal::is_typed() {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
        return false;
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_a_path() {
        let command = ["sh".to_owned(), "-c".to_owned(), "a b&c".to_owned()];
        let wanted = Wanted {
            namespace: "n",
            pod: "p",
            container: "c",
            command: Some(&command),
            stdin: true,
            tty: true,
        };
        assert_eq!(
            wanted.path(),
            "/api/v1/namespaces/n/pods/p/exec?command=sh&command=-c&command=a+b%26c&container=c&stdin=true&stdout=true&tty=true"
        );
        let look = Wanted {
            command: None,
            stdin: false,
            tty: false,
            ..wanted
        };
        assert_eq!(
            look.path(),
            "/api/v1/namespaces/n/pods/p/attach?container=c&stdout=true&stderr=true"
        );
    }

    #[test]
    fn how_it_ended() {
        let told = |status: Value| match ended(&status, "cannot") {
            Ok(()) => "well".to_owned(),
            Err(error) => match error.downcast_ref::<Terminated>() {
                Some(Terminated(code)) => format!("code {code}"),
                None => error.to_string(),
            },
        };
        let code = |code: &str| json!({"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": code}]}});
        for (status, expected) in [
            (json!({"status": "Success"}), "well"),
            (code("7"), "code 7"),
            (code("300"), "cannot: it did not say why"),
            (
                json!({"status": "Failure", "message": "no such file"}),
                "cannot: no such file",
            ),
            (json!({}), "cannot: it did not say why"),
        ] {
            assert_eq!(told(status), expected);
        }
    }
}
