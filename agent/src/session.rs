//! Running a command in a container's context, and looking over the shoulder of the one that runs.
//!
//! ```text
//! /exec    ─► Node::exec ────► a component of its own instance, in the container's context, on its limits
//! /attach  ─► Node::attach ──► the running container's own streams, shared by all who look
//! ```
//!
//! A terminal's size goes into the environment (`COLUMNS`, `LINES`) when the command begins, and to whoever asks `weft:terminal/size`
//! afterwards.
//!
//! Invariants: a session ends with the future that carries it; what a client does not read waits in bounded channels and holds up
//! its own session only; input that has ended is told to the guest as the end of its input; there are never more sessions than
//! [`OF_POD_MAX`] in a pod, [`OF_NAMESPACE_MAX`] in a namespace and [`OF_NODE_MAX`] on a node, so that no tenant has all of them.
//!
//! Left to others: the wire (`http`), which component a command is (`toolbox`), what a container's context is (`context`), its own
//! streams (`console`).

use crate::context::{Context, ExecError};
use crate::node::Node;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use weft_api::StatusError;
use weft_runtime::{Exit, Stdio};

/// Chunks that wait on one of a session's channels; each is at most [`CHUNK_BYTES_MAX`].
pub(crate) const CHUNKS_MAX: usize = 16;
/// The longest chunk that goes over a channel.
pub(crate) const CHUNK_BYTES_MAX: usize = weft_runtime::stdio::CHUNK_BYTES_MAX;
/// Sessions of one pod: people and their scripts. Each takes an instance and up to two mebibytes of channels.
pub(crate) const OF_POD_MAX: usize = 64;
/// Sessions at once in the pods of one namespace: half of a node's.
pub(crate) const OF_NAMESPACE_MAX: usize = OF_NODE_MAX / 2;
/// Sessions of one node.
pub(crate) const OF_NODE_MAX: usize = 512;
/// How long a terminal's size is waited for before the command begins: clients send it first.
const SIZE_WITHIN: Duration = Duration::from_millis(100);
/// When a client that was refused for want of a place may come again.
const RETRY_AFTER_SECONDS: u32 = 1;

/// The ends of a session that are the client's.
pub(crate) struct Streams {
    /// What the client types; closed is the end of the input.
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    pub stdout: Option<mpsc::Sender<Bytes>>,
    pub stderr: Option<mpsc::Sender<Bytes>>,
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
    /// One terminal instead of two streams: what the guest writes to stderr goes to `stdout`.
    pub tty: bool,
}

/// How large the client's terminal is, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

impl From<TerminalSize> for weft_runtime::TerminalSize {
    fn from(size: TerminalSize) -> Self {
        Self {
            columns: size.width,
            lines: size.height,
        }
    }
}

/// How a session ended.
#[derive(Debug)]
pub(crate) enum SessionEnd {
    /// The command's exit code; 0 for an attachment that came to its end.
    Exited(i32),
    /// Nothing was started.
    Refused(StatusError),
    /// What was started did not come to an end of its own; a sentence.
    Broken(String),
}

/// The container that a session is in.
#[derive(Clone, Debug)]
pub(crate) struct ContainerRef {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
}

/// The sessions of a node, by their pods. Clones count the same ones.
#[derive(Clone, Default)]
pub struct Sessions {
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    all: usize,
    of_namespaces: BTreeMap<String, usize>,
    of_pods: BTreeMap<String, usize>,
}

/// A session's place.
pub(crate) struct Place {
    sessions: Sessions,
    namespace: String,
    uid: String,
}

/// One fewer; nothing is kept of who has none.
fn leave(counts: &mut BTreeMap<String, usize>, name: &str) {
    if let Some(count) = counts.get_mut(name) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(name);
        }
    }
}

impl Sessions {
    /// A place in the pod; it is given back when it is dropped.
    ///
    /// # Errors
    /// When there are as many sessions as there may be.
    pub(crate) fn enter(&self, namespace: &str, uid: &str) -> Result<Place, StatusError> {
        let mut open = self.open.lock();
        let of_pod = open.of_pods.get(uid).copied().unwrap_or_default();
        let of_namespace = open.of_namespaces.get(namespace).copied();
        let of_namespace = of_namespace.unwrap_or_default();
        let is_full = of_pod >= OF_POD_MAX || of_namespace >= OF_NAMESPACE_MAX;
        if is_full || open.all >= OF_NODE_MAX {
            return Err(StatusError::too_many_requests(
                "Too many requests, please try again later.",
                RETRY_AFTER_SECONDS,
            ));
        }
        open.all += 1;
        open.of_pods.insert(uid.to_owned(), of_pod + 1);
        let of_namespace = of_namespace + 1;
        open.of_namespaces
            .insert(namespace.to_owned(), of_namespace);
        Ok(Place {
            sessions: self.clone(),
            namespace: namespace.to_owned(),
            uid: uid.to_owned(),
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.open.lock().all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sessions.open.lock();
        open.all = open.all.saturating_sub(1);
        leave(&mut open.of_pods, &self.uid);
        leave(&mut open.of_namespaces, &self.namespace);
    }
}

impl Node {
    /// Runs `command` in the container, to its end.
    pub(crate) async fn exec(
        self: &Arc<Self>,
        target: &ContainerRef,
        command: Vec<String>,
        streams: Streams,
    ) -> SessionEnd {
        let entered = self.context(target).and_then(|context| {
            Ok((
                context,
                self.sessions.enter(&target.namespace, &target.uid)?,
            ))
        });
        let (context, _place) = match entered {
            Ok(entered) => entered,
            Err(error) => return SessionEnd::Refused(error),
        };
        run(self, &context, command, streams).await
    }

    /// Connects the client with the container's own streams, until either ends.
    pub(crate) async fn attach(
        self: &Arc<Self>,
        target: &ContainerRef,
        streams: Streams,
    ) -> SessionEnd {
        let entered = self.context(target).and_then(|context| {
            Ok((
                context,
                self.sessions.enter(&target.namespace, &target.uid)?,
            ))
        });
        match entered {
            Ok((context, _place)) => {
                context.console.attach(streams).await;
                SessionEnd::Exited(0)
            }
            Err(error) => SessionEnd::Refused(error),
        }
    }

    fn context(&self, target: &ContainerRef) -> Result<Arc<Context>, StatusError> {
        let ContainerRef {
            namespace,
            pod,
            uid,
            container,
        } = target;
        let record = self.registry.get(namespace, pod);
        let record = record
            .filter(|record| record.uid == *uid)
            .ok_or_else(|| StatusError::not_found("pods", "", pod))?;
        let mut containers = record.containers.into_iter();
        let running = containers.find(|found| found.name == *container);
        running
            .and_then(|found| found.context)
            .ok_or_else(|| StatusError::internal(not_running(container)))
    }
}

/// The kubelet's words for a container that is not there, or not yet, or not any more.
fn not_running(container: &str) -> String {
    format!("unable to upgrade connection: container not found (\"{container}\")")
}

async fn run(
    node: &Arc<Node>,
    context: &Context,
    command: Vec<String>,
    streams: Streams,
) -> SessionEnd {
    let Streams {
        stdin,
        stdout,
        stderr,
        mut resize,
        tty,
    } = streams;
    let mut env = Vec::new();
    let mut size = TerminalSize::default();
    if tty {
        env.push(("TERM".to_owned(), "xterm".to_owned()));
        if let Some(resize) = &mut resize
            && let Ok(Some(first)) = tokio::time::timeout(SIZE_WITHIN, resize.recv()).await
        {
            size = first;
            env.push(("COLUMNS".to_owned(), size.width.to_string()));
            env.push(("LINES".to_owned(), size.height.to_string()));
        }
    }
    let (resized, terminal) = watch::channel(size.into());
    let stderr = match tty {
        true => stdout.clone(),
        false => stderr,
    };
    let complaints = stderr.clone();
    let stdio = Stdio {
        stdin,
        stdout,
        stderr,
        terminal: tty.then_some(terminal),
    };
    let resizing = async {
        while let Some(resize) = &mut resize
            && let Some(size) = resize.recv().await
        {
            resized.send_replace(size.into());
        }
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = context.exec(node, command, env, stdio) => ended,
        () = resizing => return SessionEnd::Broken("the terminal is gone".into()),
    };
    match ended {
        Ok(exit) => end(exit, complaints, tty).await,
        Err(error @ (ExecError::NotFound(_) | ExecError::Failed(_))) => {
            SessionEnd::Refused(StatusError::internal(format!(
                "error executing command in container: failed to exec in container: {error}"
            )))
        }
    }
}

/// What the client is told; what a shell would have printed of a command that broke down goes where errors go.
async fn end(exit: Exit, complaints: Option<mpsc::Sender<Bytes>>, tty: bool) -> SessionEnd {
    let code = match &exit {
        Exit::Lost { reason } => {
            return SessionEnd::Broken(format!("the worker process of the namespace {reason}"));
        }
        // Its container has ended, and all that was in it.
        Exit::Stopped => 137,
        exit => exit.code(),
    };
    let said = match &exit {
        Exit::Trap { message, backtrace } => Some(format!(
            "weft: the component trapped: {message}\n{backtrace}"
        )),
        Exit::OutOfMemory { limit_bytes } => Some(format!(
            "weft: out of memory: the container's limit is {limit_bytes} bytes"
        )),
        _ => None,
    };
    if let (Some(said), Some(complaints)) = (said, complaints) {
        let mut text = format!("{}\n", said.trim_end());
        if tty {
            text = text.replace('\n', "\r\n");
        }
        // The client may have left.
        let _ = complaints.send(Bytes::from(text)).await;
    }
    SessionEnd::Exited(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_sessions_and_no_more() {
        let sessions = Sessions::default();
        let fill = |namespace: &str| {
            let places = (0..).map_while(|n| {
                let pod = format!("{namespace}-{}", n / OF_POD_MAX);
                sessions.enter(namespace, &pod).ok()
            });
            places.collect::<Vec<Place>>()
        };
        let of_pod: Vec<Place> = (0..OF_POD_MAX)
            .map(|_| sessions.enter("shop", "u").expect("a place"))
            .collect();
        let refused = sessions.enter("shop", "u").err().expect("too many");
        assert_eq!(refused.code, 429);
        // Whoever fills a namespace leaves room for the others.
        let of_namespace = fill("shop");
        assert_eq!(of_pod.len() + of_namespace.len(), OF_NAMESPACE_MAX);
        let others: Vec<Place> = ["bank", "blog"].into_iter().flat_map(fill).collect();
        let all = OF_NAMESPACE_MAX + others.len();
        assert_eq!((all, sessions.count()), (OF_NODE_MAX, OF_NODE_MAX));
        drop((of_pod, of_namespace, others));
        assert_eq!(sessions.count(), 0);
        let open = sessions.open.lock();
        assert!(open.of_pods.is_empty() && open.of_namespaces.is_empty());
        drop(open);
        assert!(sessions.enter("shop", "u").is_ok());
    }

    #[tokio::test]
    async fn a_command_that_breaks_down_leaves_a_sentence_and_its_code() {
        for (exit, code, expected) in [
            (Exit::Success, 0, ""),
            (Exit::Failed(3), 3, ""),
            (Exit::Stopped, 137, ""),
            (
                Exit::OutOfMemory { limit_bytes: 7 },
                137,
                "weft: out of memory: the container's limit is 7 bytes\r\n",
            ),
            (
                Exit::Trap {
                    message: "unreachable".into(),
                    backtrace: "0: main\n".into(),
                },
                134,
                "weft: the component trapped: unreachable\r\n0: main\r\n",
            ),
        ] {
            let (complaints, mut told) = mpsc::channel(1);
            let ended = end(exit, Some(complaints), true).await;
            assert!(matches!(ended, SessionEnd::Exited(found) if found == code));
            let told = told.recv().await.unwrap_or_default();
            assert_eq!(String::from_utf8_lossy(&told), expected);
        }
        let lost = Exit::Lost {
            reason: "was ended by SIGKILL".into(),
        };
        let ended = end(lost, None, false).await;
        assert!(matches!(ended, SessionEnd::Broken(why) if why.ends_with("SIGKILL")));
    }
}
