//! A running container as commands find it: what they share with its component.
//!
//! A command has the container's root, volumes, environment, identity, grants and limits, and nothing else: it runs as a session of
//! the container's own workload (`weft_runtime::Session`), in the process where that is. It ends with the container.
//!
//! Left to others: streams of clients (`session`), hooks and probes, which component a command is (`toolbox`).

use crate::cgroup::{self, Held};
use crate::console::Console;
use crate::downward::Downward;
use crate::guest::Guest;
use crate::identity::Chain;
use crate::kept_pod::KeptPod;
use crate::node::Node;
use crate::pod_view::PodView;
use crate::root_files;
use crate::roots::{Placed, Root};
use crate::sockets::Sockets;
use crate::toolbox::{self, NotFound, Toolbox, Whose};
use crate::volumes::Mount;
use bytes::Bytes;
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OnceCell, mpsc};
use tokio_util::task::AbortOnDropHandle;
use weft_runtime::{Access, Artifact, Exit, Metrics, Session, Stdio, Volume};

/// What is kept of what a probe or a hook prints; as the kubelet keeps of a probe.
pub(crate) const OUTPUT_BYTES_MAX: usize = 10 << 10;

/// Chunks of it that wait to be taken.
const CHUNKS_MAX: usize = 4;

/// Variables that commands have where the container does not say them.
pub(crate) const ENV_DEFAULT: [(&str, &str); 2] = [("PATH", toolbox::PATH), ("HOME", "/")];

/// See the module's promise.
pub(crate) struct Context {
    pub(crate) namespace: String,
    /// The pod's, in whose network its commands are.
    pub(crate) uid: String,
    pub(crate) guest: Guest,
    /// The container's own component, and the names by which it is called.
    pub(crate) artifact: Artifact,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) console: Arc<Console>,
    /// Of a container whose component opens no files: the root that commands have in it.
    pub(crate) late: Option<Box<LateRoot>>,
    /// What its component counts itself, where it imports that.
    pub(crate) metrics: Option<Metrics>,
    /// What a container runtime's commands have that the container itself does not say.
    pub(crate) env: Vec<(&'static str, &'static str)>,
}

/// The root of a container whose component opens no files, made for the first command.
pub(crate) struct LateRoot {
    pub(crate) pod: KeptPod,
    pub(crate) container: String,
    pub(crate) restart: u32,
    pub(crate) ip: IpAddr,
    /// Volumes that it has though it does not open them.
    pub(crate) mounts: Vec<(Mount, Volume)>,
    /// Files of volumes that are mounted by themselves.
    pub(crate) placed: Vec<Placed>,
    /// What the container is held to now.
    pub(crate) held: Mutex<Held>,
    pub(crate) made: OnceCell<Root>,
}

impl LateRoot {
    /// All that a command is lent.
    async fn lent(&self, node: &Node) -> Result<Vec<(Volume, String, Access)>, String> {
        let made = self.made.get_or_try_init(|| self.make(node)).await?;
        let volumes = self.mounts.iter();
        let volumes = volumes.map(|(mount, volume)| {
            let path = mount.path.clone();
            (volume.clone(), path, mount.access)
        });
        Ok(made.lent().into_iter().chain(volumes).collect())
    }

    async fn make(&self, node: &Node) -> Result<Root, String> {
        let pod = self.pod.read();
        let pod = PodView(&pod);
        let at = Downward {
            pod,
            pod_ip: self.ip,
            node: &node.facts,
        };
        let mut containers = pod.containers().into_iter();
        let container = containers.find(|(container, _)| container.name == self.container);
        let (container, _) = container.ok_or("the container is gone")?;
        let mounts: Vec<Mount> = self.mounts.iter().map(|(mount, _)| mount.clone()).collect();
        let placed = self.placed.clone();
        let (names, held) = (node.names(), *self.held.lock());
        let contents = root_files::contents(at, &container, &mounts, placed, names, held);
        let contents = contents.map_err(|error| error.to_string())?;
        let (uid, name) = (pod.uid(), self.container.as_str());
        let made = node.roots.make(uid, name, self.restart, contents).await;
        made.map_err(|error| format!("making the container's root: {error}"))
    }
}

/// Why a command was not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// A sentence.
    #[error("{0}")]
    Failed(String),
}

/// What a command of the node's own came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    /// Of both streams, as it came; at most [`OUTPUT_BYTES_MAX`].
    pub(crate) output: String,
    pub(crate) stderr: String,
}

/// Why a command of the node's own came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("command timed out: \"{command}\" timed out after {}s", after.as_secs())]
    TimedOut { command: String, after: Duration },
}

impl Context {
    /// Runs `command` with these streams, to its end. Dropping the future ends it.
    ///
    /// # Errors
    /// [`ExecError`] when nothing was started.
    pub(crate) async fn exec(
        &self,
        node: &Arc<Node>,
        command: Vec<String>,
        env: Vec<(String, String)>,
        stdio: Stdio,
    ) -> Result<Exit, ExecError> {
        let asked = node.workers.toolbox_allowed(&self.namespace, &node.link);
        let allowed = asked.await;
        let allowed = allowed.map_err(|error| ExecError::Failed(error.to_string()))?;
        let volumes = match &self.late {
            Some(late) => late.lent(node).await.map_err(ExecError::Failed)?,
            None => Vec::new(),
        };
        let session = Session {
            args: command,
            env,
            cwd: None,
            volumes,
            network: Sockets::network_for(node, &self.uid),
        };
        self.exec_by(&node.toolbox, allowed, session, stdio).await
    }

    /// Has the container use what it is held to from now on, and tells it so in the files of `root`, if it has one.
    ///
    /// # Errors
    /// A sentence when it keeps what it has.
    pub(crate) async fn resize(&self, held: Held, root: Option<Root>) -> Result<(), String> {
        let resized = self.guest.resize(held.to).await;
        resized.map_err(|error| error.to_string())?;
        if let Some(late) = &self.late {
            *late.held.lock() = held;
        }
        if let Some(root) = root
            && let Err(error) = root.tell(cgroup::PATH, cgroup::files(held)).await
        {
            // It has what it was given, and cannot read so.
            tracing::warn!(uid = self.uid, %error, "files of a container's limits stay as they are");
        }
        Ok(())
    }

    async fn exec_by(
        &self,
        toolbox: &Toolbox,
        allowed: bool,
        mut session: Session,
        stdio: Stdio,
    ) -> Result<Exit, ExecError> {
        let word = session.args.first();
        let word = word.map(String::as_str).unwrap_or_default();
        let own = &self.artifact;
        let artifact = match toolbox.find(word, own, &self.entrypoint, allowed)? {
            Whose::Own => own.clone(),
            Whose::Toolboxs => {
                let loaded = toolbox.artifact().await;
                loaded.map_err(|error| ExecError::Failed(Chain(&error).to_string()))?
            }
        };
        let defaults = self.env.iter();
        let defaults = defaults.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        drop(session.env.splice(..0, defaults));
        let (guest, engine) = (self.guest.clone(), toolbox.engine().clone());
        // Guests run on cores only; whoever gives up waiting ends it.
        let running = AbortOnDropHandle::new(
            toolbox.spawn(async move { guest.session(&engine, &artifact, session, stdio).await }),
        );
        match running.await {
            Ok(ended) => ended.map_err(ExecError::Failed),
            Err(_) => Err(ExecError::Failed("the node is shutting down".into())),
        }
    }

    /// Runs a command of the node's own, and keeps what it prints.
    ///
    /// # Errors
    /// When it was not started, or took longer than `timeout`.
    pub(crate) async fn run(
        &self,
        node: &Arc<Node>,
        command: &[String],
        timeout: Option<Duration>,
    ) -> Result<Ran, RunError> {
        let (stdout, mut printed) = mpsc::channel::<Bytes>(CHUNKS_MAX);
        let (stderr, mut complained) = mpsc::channel::<Bytes>(CHUNKS_MAX);
        let stdio = Stdio {
            stdout: Some(stdout),
            stderr: Some(stderr),
            ..Stdio::default()
        };
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let collected = async {
            let add = |to: &mut Vec<u8>, chunk: &[u8]| {
                let room = OUTPUT_BYTES_MAX.saturating_sub(to.len());
                to.extend_from_slice(&chunk[..chunk.len().min(room)]);
            };
            loop {
                tokio::select! {
                    Some(chunk) = printed.recv() => add(&mut output, &chunk),
                    Some(chunk) = complained.recv() => {
                        add(&mut output, &chunk);
                        add(&mut errors, &chunk);
                    }
                    else => break,
                }
            }
        };
        let running = async {
            let running = self.exec(node, command.to_vec(), Vec::new(), stdio);
            let (exit, ()) = tokio::join!(running, collected);
            exit
        };
        let exit = match timeout {
            None => running.await?,
            Some(after) => match tokio::time::timeout(after, running).await {
                Ok(exit) => exit?,
                Err(_) => {
                    return Err(RunError::TimedOut {
                        command: command.join(" "),
                        after,
                    });
                }
            },
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ran {
            exit,
            output: text(output),
            stderr: text(errors),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::Kind;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use weft_runtime::{Cores, Engine, Limits, LogSink, Workload};

    /// A command that prints `text`.
    fn speaker(text: &str) -> Vec<u8> {
        let text = format!(
            r#"(component
              (import "wasi:io/error@0.2.6" (instance $error (export "error" (type (sub resource)))))
              (alias export $error "error" (type $io-error))
              (import "wasi:io/streams@0.2.6" (instance $streams
                (alias outer 1 $io-error (type $e))
                (export "error" (type $error (eq $e)))
                (type $failed (variant (case "last-operation-failed" (own $error)) (case "closed")))
                (export "stream-error" (type $stream-error (eq $failed)))
                (export "output-stream" (type $out (sub resource)))
                (export "[method]output-stream.blocking-write-and-flush"
                  (func (param "self" (borrow $out)) (param "contents" (list u8)) (result (result (error $stream-error)))))))
              (alias export $streams "output-stream" (type $output))
              (import "wasi:cli/stdout@0.2.6" (instance $stdout
                (alias outer 1 $output (type $o))
                (export "output-stream" (type $out (eq $o)))
                (export "get-stdout" (func (result (own $out))))))
              (core module $memory
                (memory (export "memory") 1)
                (data (i32.const 0) "{text}")
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 4096))
              (core instance $m (instantiate $memory))
              (core func $get (canon lower (func $stdout "get-stdout")))
              (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
                (memory (core memory $m "memory")) (realloc (core func $m "realloc"))))
              (core module $main
                (import "host" "get" (func $get (result i32)))
                (import "host" "write" (func $write (param i32 i32 i32 i32)))
                (func (export "run") (result i32)
                  (call $write (call $get) (i32.const 0) (i32.const {length}) (i32.const 1024))
                  i32.const 0))
              (core instance $i (instantiate $main (with "host" (instance
                (export "get" (func $get)) (export "write" (func $write))))))
              (func $run (result (result)) (canon lift (core func $i "run")))
              (instance $cli (export "run" (func $run)))
              (export "wasi:cli/run@0.2.6" (instance $cli)))"#,
            length = text.len()
        );
        wat::parse_str(text).expect("a component")
    }

    fn session(word: &str) -> Session {
        Session {
            args: vec![word.to_owned()],
            ..Session::default()
        }
    }

    struct Place {
        toolbox: Toolbox,
        context: Context,
        log: Arc<AtomicUsize>,
        cores: Cores,
    }

    impl Place {
        async fn new() -> Self {
            let engine = Engine::builder()
                .instances_max(64)
                .build()
                .expect("an engine");
            let cores = Cores::start(1).expect("a core");
            let artifact = engine.load(speaker("own")).await.expect("loads");
            let log = Arc::new(AtomicUsize::new(0));
            let heard = log.clone();
            let workload = Workload::builder(&engine, &artifact)
                .limits(Limits {
                    memory_bytes: 8 << 20,
                    ..Limits::default()
                })
                .stdout(LogSink::new(move |bytes| {
                    heard.fetch_add(bytes.len(), Ordering::Relaxed);
                }))
                .build()
                .expect("a workload");
            let (console, _) = Console::new(Kind::default());
            Self {
                toolbox: Toolbox::new(speaker("box").into(), engine, cores.clone()),
                context: Context {
                    namespace: "n".into(),
                    uid: "u".into(),
                    guest: Guest::Here(workload),
                    artifact,
                    entrypoint: vec!["words".into()],
                    console,
                    late: None,
                    metrics: None,
                    env: ENV_DEFAULT.to_vec(),
                },
                log,
                cores,
            }
        }

        async fn exec(&self, word: &str, allowed: bool) -> Result<(Exit, String), String> {
            let (stdout, mut printed) = mpsc::channel::<Bytes>(1);
            let stdio = Stdio {
                stdout: Some(stdout),
                ..Stdio::default()
            };
            let command = session(word);
            let running = self.context.exec_by(&self.toolbox, allowed, command, stdio);
            let heard = async {
                let mut all = String::new();
                while let Some(chunk) = printed.recv().await {
                    all += &String::from_utf8_lossy(&chunk);
                }
                all
            };
            let (exit, heard) = tokio::join!(running, heard);
            exit.map(|exit| (exit, heard))
                .map_err(|error| error.to_string())
        }
    }

    #[tokio::test]
    async fn a_word_finds_its_component() {
        let place = Place::new().await;
        let own = Ok((Exit::Success, "own".to_owned()));
        let tools = Ok((Exit::Success, "box".to_owned()));
        assert_eq!(place.exec("/words", true).await, own);
        assert_eq!(place.exec("/words", false).await, own);
        assert_eq!(place.exec("/bin/ls", true).await, tools);
        for (word, allowed, expected) in [
            (
                "ls",
                false,
                "exec: \"ls\": executable file not found in $PATH",
            ),
            (
                "/opt/ls",
                true,
                "exec: \"/opt/ls\": stat /opt/ls: no such file or directory",
            ),
            ("", true, "exec: \"\": executable file not found in $PATH"),
        ] {
            assert_eq!(place.exec(word, allowed).await, Err(expected.to_owned()));
        }
        assert_eq!(
            place.log.load(Ordering::Relaxed),
            0,
            "a session is not in the log"
        );
    }

    /// How many files this process has open.
    fn files() -> usize {
        std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
    }

    #[tokio::test]
    async fn sessions_leave_nothing_behind() {
        let place = Place::new().await;
        let tasks = || place.cores.handle(0).metrics().num_alive_tasks();
        let idle = tasks();
        let settled = async || {
            // What has ended is taken down by its core a moment later.
            for _ in 0..1_000 {
                if tasks() == idle {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            panic!("{} tasks are left", tasks());
        };
        for word in ["words", "ls"] {
            place.exec(word, true).await.expect("runs");
        }
        settled().await;
        let before = (files(), place.context.guest.usage().memory_bytes);
        // What other tests of this program may have open meanwhile; a file left by each session would be more.
        let others = 250;
        for _ in 0..300 {
            let (exit, heard) = place.exec("ls", true).await.expect("runs");
            assert_eq!((exit, heard.as_str()), (Exit::Success, "box"));
        }
        let many = (0..50).map(|_| place.exec("ls", true));
        for ended in futures::future::join_all(many).await {
            assert_eq!(ended, Ok((Exit::Success, "box".to_owned())));
        }
        // Those that are given up in the middle, whose output nobody takes.
        for _ in 0..100 {
            let (stdout, printed) = mpsc::channel::<Bytes>(1);
            stdout.try_send(Bytes::from_static(b"full")).expect("room");
            let stdio = Stdio {
                stdout: Some(stdout),
                ..Stdio::default()
            };
            let command = session("ls");
            let running = place.context.exec_by(&place.toolbox, true, command, stdio);
            let waiting = tokio::time::timeout(std::time::Duration::from_millis(5), running);
            assert!(waiting.await.is_err(), "it waits for its reader");
            drop(printed);
        }
        settled().await;
        assert_eq!(place.context.guest.usage().memory_bytes, before.1);
        let open = files();
        assert!(
            open < before.0 + others,
            "{open} files are open, {} were",
            before.0
        );
    }

    #[tokio::test]
    async fn a_session_ends_with_its_container() {
        let place = Place::new().await;
        let (stdout, _printed) = mpsc::channel::<Bytes>(1);
        stdout.try_send(Bytes::from_static(b"full")).expect("room");
        let stdio = Stdio {
            stdout: Some(stdout),
            ..Stdio::default()
        };
        let command = session("ls");
        let running = place.context.exec_by(&place.toolbox, true, command, stdio);
        let stopping = async {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            place.context.guest.stop(std::time::Duration::ZERO).await;
        };
        let (exit, ()) = tokio::join!(running, stopping);
        assert!(matches!(exit, Ok(Exit::Stopped)), "{exit:?}");
        let after = place.exec("ls", true).await;
        assert_eq!(
            after,
            Ok((Exit::Stopped, String::new())),
            "there is no container"
        );
    }
}
