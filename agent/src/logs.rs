//! Container logs: what guests write to stdout and stderr, in files that `kubectl logs` reads.
//!
//! ```text
//! guest ──write──► account ──queue──► files, one thread ──► DATA/logs/NS_POD_UID/CONTAINER/RESTART.log[.1,.2]
//! node  ──note───►                                              └──► reader ──► kubectl logs
//! ```
//!
//! Guests hand chunks over and never wait. What a container, or all of a namespace together, may hand over has bounds
//! (`account`); what does not fit is dropped and counted, and the count is written into the log where the loss was, with the
//! bound that it met. Files are in Kubernetes' CRI format, `<RFC 3339 nanos> <stdout|stderr> <F|P> <line>`, one folder a
//! container, one file a run of the container; a file is rotated at [`FILE_BYTES_MAX`] and [`FILES_MAX`] of them are kept.
//!
//! Invariants: nothing that one namespace logs has a line of another dropped; memory is bounded by the accounts; the run before
//! the current one is kept, older ones go; nobody but the log thread, and threads that may block, waits for the disk.
//!
//! Left to others: who may read (`http`), when a run begins and ends (`execute`).

mod account;
mod files;
mod reader;

pub use self::reader::{Query, Reader};

use self::account::{Account, Accounts, Bucket, CONTAINER, Cost, Limit, NOTES, Waiting};
use self::files::{Files, Message, write_all};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use tokio::sync::watch;

/// Size at which a log file is rotated; the kubelet's default.
pub const FILE_BYTES_MAX: u64 = 10 << 20;
/// Files kept of one run, the current one included.
pub const FILES_MAX: u32 = 3;
/// Longest line in a file; what is longer continues in the next (`P`), as containerd does.
pub const LINE_BYTES_MAX: usize = 16 << 10;
/// Largest chunk taken at once; a guest's single write is at most 64 KiB.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One run of one container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RunId {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
    pub restart: u32,
}

impl RunId {
    fn folder(&self, root: &Path) -> PathBuf {
        root.join(format!("{}_{}_{}", self.namespace, self.pod, self.uid))
            .join(&self.container)
    }

    fn file(&self, root: &Path) -> PathBuf {
        self.folder(root).join(format!("{}.log", self.restart))
    }
}

/// The logs of a node. Clones share them.
#[derive(Clone)]
pub struct Logs {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    queue: Sender<Message>,
    accounts: Accounts,
    /// Runs that are still written to, with the number of bytes that followers have been told of.
    live: Mutex<HashMap<RunId, watch::Sender<u64>>>,
    dropped: AtomicU64,
}

struct Run {
    id: RunId,
    account: Arc<Account>,
    bucket: Mutex<Bucket>,
    notes: Mutex<Bucket>,
    /// Bytes that each limit cost it since this was last said in the log.
    lost: [AtomicU64; Limit::ALL.len()],
    closed: AtomicBool,
}

impl Run {
    fn admit(&self, cost: Cost, now: Timestamp) -> Result<Waiting, Limit> {
        if !self.bucket.lock().try_spend(cost.written, now) {
            return Err(Limit::Container);
        }
        self.account.admit(cost, now)
    }

    fn admit_note(&self, cost: Cost, now: Timestamp) -> Result<Waiting, Limit> {
        if !self.notes.lock().try_spend(cost.written, now) {
            return Err(Limit::Container);
        }
        self.account.admit_note(cost)
    }

    fn take_lost(&self) -> impl Iterator<Item = (Limit, u64)> {
        let taken =
            move |limit: Limit| (limit, self.lost[limit as usize].swap(0, Ordering::Relaxed));
        Limit::ALL
            .into_iter()
            .map(taken)
            .filter(|(_, bytes)| *bytes > 0)
    }
}

/// The writing end of one run; what the runtime's sink calls.
#[derive(Clone)]
pub struct Writer {
    logs: Logs,
    run: Arc<Run>,
}

impl Logs {
    /// Opens the logs below `root` and starts the thread that writes them.
    ///
    /// # Errors
    /// When the folder cannot be made or the thread cannot be started.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let (logs, messages) = Self::handing_over(root);
        let (weak, files) = (Arc::downgrade(&logs.inner), Files::below(root));
        std::thread::Builder::new()
            .name("weft-logs".into())
            .spawn(move || write_all(&messages, files, &weak))?;
        Ok(logs)
    }

    fn handing_over(root: &Path) -> (Self, Receiver<Message>) {
        // Chunks are bounded by their accounts, and what else is sent by runs and pods.
        let (queue, messages) = std::sync::mpsc::channel();
        let inner = Arc::new(Inner {
            root: root.to_owned(),
            queue,
            accounts: Accounts::default(),
            live: Mutex::default(),
            dropped: AtomicU64::new(0),
        });
        (Self { inner }, messages)
    }

    /// Begins a run. Runs of the container older than the one before are removed.
    pub fn begin(&self, id: RunId) -> Writer {
        let now = Timestamp::now();
        self.send(Message::Begin {
            folder: id.folder(&self.inner.root),
            restart: id.restart,
        });
        self.inner
            .live
            .lock()
            .entry(id.clone())
            .or_insert_with(|| watch::Sender::new(0));
        let run = Run {
            account: self.inner.accounts.of(&id.namespace, now),
            id,
            bucket: Mutex::new(Bucket::new(CONTAINER, now)),
            notes: Mutex::new(Bucket::new(NOTES, now)),
            lost: Default::default(),
            closed: AtomicBool::new(false),
        };
        Writer {
            logs: self.clone(),
            run: Arc::new(run),
        }
    }

    /// Removes all logs of a pod that is gone.
    pub fn remove_pod(&self, namespace: &str, pod: &str, uid: &str) {
        let folder = self.inner.root.join(format!("{namespace}_{pod}_{uid}"));
        self.send(Message::Remove { folder });
    }

    /// Removes the logs of pods that are gone: those whose uid `lives` does not know.
    pub fn sweep(&self, lives: impl Fn(&str) -> bool) {
        let Ok(entries) = fs::read_dir(&self.inner.root) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let uid = name.to_str().and_then(|name| name.rsplit('_').next());
            if uid.is_some_and(|uid| !lives(uid)) {
                self.send(Message::Remove {
                    folder: entry.path(),
                });
            }
        }
    }

    /// Bytes dropped since the start, over all containers.
    pub fn dropped_bytes(&self) -> u64 {
        self.inner.dropped.load(Ordering::Relaxed)
    }

    /// Opens a run for reading. Looks whether its files are there, so it may block for a moment.
    ///
    /// # Errors
    /// `NotFound` when the run never logged.
    pub fn read(&self, id: &RunId, query: Query) -> io::Result<Reader> {
        let live = self.inner.live.lock().get(id).map(watch::Sender::subscribe);
        Reader::open(id.file(&self.inner.root), query, live)
    }

    fn send(&self, message: Message) {
        // The thread ends only with the last of these senders, unless it met a bug; then logs are lost, and guests go on.
        let _ = self.inner.queue.send(message);
    }
}

impl Writer {
    /// Takes what a guest wrote. Never blocks; what cannot be kept is counted.
    pub fn write(&self, stream: Stream, bytes: &[u8]) {
        self.hand_over(stream, bytes, Run::admit);
    }

    /// Writes one line on behalf of the node, such as why a request trapped; a guest that floods its log does not push it out.
    pub fn write_note(&self, text: &str) {
        let line = format!("{}\n", text.trim_end());
        self.hand_over(Stream::Stderr, line.as_bytes(), Run::admit_note);
    }

    fn hand_over(
        &self,
        stream: Stream,
        bytes: &[u8],
        admit: fn(&Run, Cost, Timestamp) -> Result<Waiting, Limit>,
    ) {
        let at = Timestamp::now();
        for chunk in bytes.chunks(CHUNK_BYTES_MAX) {
            let run = self.run.clone();
            match admit(&run, Cost::of(chunk), at) {
                Ok(waiting) => self.logs.send(Message::Chunk {
                    run,
                    stream,
                    at,
                    bytes: chunk.to_vec(),
                    waiting,
                }),
                Err(limit) => {
                    let size = chunk.len() as u64;
                    self.logs.inner.dropped.fetch_add(size, Ordering::Relaxed);
                    // Said for the first of them; the thread says the rest with what it writes next.
                    if run.lost[limit as usize].fetch_add(size, Ordering::Relaxed) == 0 {
                        self.logs.send(Message::Lost { run, at });
                    }
                }
            }
        }
    }

    /// Ends the run: open lines are written, followers reach the end.
    pub fn close(&self) {
        if self.run.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.logs.send(Message::Close {
            run: self.run.clone(),
            at: Timestamp::now(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    fn run(restart: u32) -> RunId {
        RunId {
            namespace: "vote".into(),
            pod: "web-1".into(),
            uid: "u".into(),
            container: "web".into(),
            restart,
        }
    }

    async fn read_all(logs: &Logs, id: &RunId, query: Query) -> String {
        let mut reader = logs.read(id, query).expect("a log");
        let mut text = Vec::new();
        while let Some(piece) = reader.next().await.expect("readable") {
            text.extend(piece);
        }
        String::from_utf8(text).expect("UTF-8")
    }

    fn follow() -> Query {
        Query {
            follow: true,
            ..Query::default()
        }
    }

    #[tokio::test]
    async fn a_follower_sees_every_line_and_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let logs = Logs::open(folder.path()).expect("opens");
        let writer = logs.begin(run(0));
        let reading = tokio::spawn({
            let logs = logs.clone();
            async move { read_all(&logs, &run(0), follow()).await }
        });
        writer.write(Stream::Stdout, b"one\ntw");
        writer.write(Stream::Stderr, b"oops\n");
        writer.write(Stream::Stdout, b"o\n\nthree");
        writer.close();
        assert_eq!(reading.await.expect("reads"), "one\noops\ntwo\n\nthree");
        let last = Query {
            tail_lines: Some(1),
            ..Query::default()
        };
        assert_eq!(read_all(&logs, &run(0), last).await, "three");
    }

    #[tokio::test]
    async fn tail_limit_and_the_run_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let logs = Logs::open(folder.path()).expect("opens");
        for restart in 0..3 {
            let writer = logs.begin(run(restart));
            writer.write(
                Stream::Stdout,
                format!("a{restart}\nb{restart}\nc{restart}\n").as_bytes(),
            );
            writer.close();
            read_all(&logs, &run(restart), follow()).await;
        }
        let tail = |lines| Query {
            tail_lines: Some(lines),
            ..Query::default()
        };
        assert_eq!(read_all(&logs, &run(2), tail(2)).await, "b2\nc2\n");
        assert_eq!(read_all(&logs, &run(2), tail(0)).await, "");
        assert_eq!(
            read_all(
                &logs,
                &run(1),
                Query {
                    limit_bytes: Some(4),
                    ..Query::default()
                }
            )
            .await,
            "a1\nb"
        );
        assert_eq!(
            logs.read(&run(0), Query::default())
                .err()
                .map(|error| error.kind()),
            Some(io::ErrorKind::NotFound)
        );
        let stamped = read_all(
            &logs,
            &run(2),
            Query {
                timestamps: true,
                ..tail(1)
            },
        )
        .await;
        let (time, line) = stamped.split_once(' ').expect("a time");
        assert!(
            time.parse::<Timestamp>().is_ok() && line == "c2\n",
            "{stamped}"
        );
    }

    /// All that was handed over is written, in this thread.
    fn write_out(logs: Logs, messages: &Receiver<Message>, root: &Path) {
        // Without a sender, the writing ends with what is there.
        let weak = Arc::downgrade(&logs.inner);
        drop(logs);
        write_all(messages, Files::below(root), &weak);
    }

    fn of(namespace: &str) -> RunId {
        RunId {
            namespace: namespace.into(),
            ..run(0)
        }
    }

    fn written(root: &Path, id: &RunId) -> String {
        fs::read_to_string(id.file(root)).expect("a log")
    }

    #[test]
    fn a_flood_of_one_namespace_drops_no_line_of_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let (logs, messages) = Logs::handing_over(folder.path());
        let (flood, quiet) = (logs.begin(of("greedy")), logs.begin(of("quiet")));
        // A byte a write, as many as its rate lets through, while the disk is slow.
        for _ in 0..200_000 {
            flood.write(Stream::Stdout, b"x");
        }
        quiet.write(Stream::Stdout, b"heard\n");
        // What the node has to say in the greedy one's log is said as well.
        flood.write_note("weft: a request trapped");
        for writer in [&flood, &quiet] {
            writer.close();
        }
        let dropped = logs.dropped_bytes();
        drop((flood, quiet));
        write_out(logs, &messages, folder.path());
        assert!(written(folder.path(), &of("quiet")).ends_with(" stdout F heard\n"));
        let greedy = written(folder.path(), &of("greedy"));
        assert!(greedy.contains("weft: a request trapped"), "{greedy}");
        assert!(dropped > 0, "more was written than may wait");
        let told: u64 = greedy
            .lines()
            .filter_map(|line| line.split_once("[weft: ")?.1.split_once(' '))
            .filter_map(|(bytes, _)| bytes.parse::<u64>().ok())
            .sum();
        assert_eq!(told, dropped, "what was dropped is said: {greedy}");
        assert!(greedy.contains("of its namespace wait for this node's disk]"));
    }

    #[test]
    fn what_is_dropped_last_is_said_though_nothing_comes_after_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (logs, messages) = Logs::handing_over(folder.path());
        let writer = logs.begin(run(0));
        let much = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            writer.write(Stream::Stdout, &much);
        }
        drop(writer);
        write_out(logs, &messages, folder.path());
        let log = written(folder.path(), &run(0));
        assert!(log.contains("bytes of log were dropped here: "), "{log}");
    }

    #[tokio::test]
    async fn what_a_dropped_future_was_reading_is_not_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let logs = Logs::open(folder.path()).expect("opens");
        let writer = logs.begin(run(0));
        writer.write(Stream::Stdout, b"one\ntwo\n");
        writer.close();
        read_all(&logs, &run(0), follow()).await;
        let mut reader = logs.read(&run(0), Query::default()).expect("a log");
        let mut first = Box::pin(reader.next());
        let polled = futures::poll!(first.as_mut());
        drop(first);
        let text = match polled {
            Poll::Ready(text) => text,
            Poll::Pending => reader.next().await,
        };
        let text = text.expect("readable");
        assert_eq!(text.as_deref(), Some(&b"one\ntwo\n"[..]));
    }
}
