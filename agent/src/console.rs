//! A running container's own streams, for all who attach to it.
//!
//! What the container prints goes to its log, and from here on to each of the clients that are attached: from when they came, not
//! before. A client that takes nothing holds nobody up; what does not fit into its queue is dropped, and the count stands where the
//! loss was. What clients type reaches a container that has `stdin`, in the order in which it comes; with `stdinOnce` the first client
//! that leaves takes the input with it.
//!
//! Invariants: printing never waits; a client costs at most [`WAITING_BYTES_MAX`]; nobody attached costs one look at a number.

use crate::session::{CHUNK_BYTES_MAX, CHUNKS_MAX, Streams};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use weft_runtime::{Stdio, TerminalSize};

use crate::logs::Stream;

/// What may wait for one client: a screen or a thousand of them.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// See the module's promise.
pub(crate) struct Console {
    clients: Mutex<Vec<Arc<Client>>>,
    /// How many there are, for those who print.
    attached: AtomicUsize,
    /// None where the container has no input, or no more.
    keys: Mutex<Option<mpsc::Sender<Bytes>>>,
    once: bool,
    size: Option<watch::Sender<TerminalSize>>,
    ended: CancellationToken,
}

/// What waits for one client.
#[derive(Default)]
struct Client {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    chunks: VecDeque<(bool, Bytes)>,
    bytes: usize,
    lost: usize,
}

impl Client {
    fn print(&self, is_stdout: bool, bytes: &Bytes) {
        let mut waiting = self.waiting.lock();
        if waiting.bytes + bytes.len() > WAITING_BYTES_MAX {
            waiting.lost += bytes.len();
        } else {
            waiting.settle();
            waiting.bytes += bytes.len();
            waiting.chunks.push_back((is_stdout, bytes.clone()));
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    fn take(&self) -> Option<(bool, Bytes)> {
        let mut waiting = self.waiting.lock();
        if waiting.chunks.is_empty() {
            waiting.settle();
        }
        let (is_stdout, bytes) = waiting.chunks.pop_front()?;
        waiting.bytes = waiting.bytes.saturating_sub(bytes.len());
        Some((is_stdout, bytes))
    }
}

impl Waiting {
    fn settle(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            let note = Bytes::from(format!(
                "[weft: {lost} bytes of output were dropped here]\r\n"
            ));
            self.bytes += note.len();
            self.chunks.push_back((false, note));
        }
    }
}

/// What a container's streams are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) stdin: bool,
    pub(crate) once: bool,
    pub(crate) tty: bool,
}

impl Console {
    /// For a container of that kind, and the streams that its component is to be run with.
    pub(crate) fn new(kind: Kind) -> (Arc<Self>, Stdio) {
        let (keys, stdin) = match kind.stdin {
            true => Some(mpsc::channel(CHUNKS_MAX)).unzip(),
            false => (None, None),
        };
        let (size, terminal) = match kind.tty {
            true => Some(watch::channel(TerminalSize::default())).unzip(),
            false => (None, None),
        };
        let console = Self {
            clients: Mutex::default(),
            attached: AtomicUsize::new(0),
            keys: Mutex::new(keys),
            once: kind.once,
            size,
            ended: CancellationToken::new(),
        };
        let stdio = Stdio {
            stdin,
            terminal,
            ..Stdio::default()
        };
        (Arc::new(console), stdio)
    }

    /// Has who is attached see what the container prints.
    pub(crate) fn print(&self, stream: Stream, bytes: &[u8]) {
        if self.attached.load(Ordering::Relaxed) == 0 {
            return;
        }
        let is_stdout = stream == Stream::Stdout;
        for chunk in bytes.chunks(CHUNK_BYTES_MAX) {
            let chunk = Bytes::copy_from_slice(chunk);
            for client in self.clients.lock().iter() {
                client.print(is_stdout, &chunk);
            }
        }
    }

    /// The container has come to its end, and with it every attachment once it has been read.
    pub(crate) fn end(&self) {
        self.keys.lock().take();
        self.ended.cancel();
    }

    /// Connects a client until the container ends, or nobody reads any more.
    pub(crate) async fn attach(self: &Arc<Self>, streams: Streams) {
        let Streams {
            stdin,
            stdout,
            stderr,
            resize,
            tty: _,
        } = streams;
        let client = Arc::new(Client::default());
        self.clients.lock().push(client.clone());
        self.attached.fetch_add(1, Ordering::Relaxed);
        let _attached = Attached {
            console: self.clone(),
            client: client.clone(),
            types: stdin.is_some(),
        };
        let shown = async {
            loop {
                let Some((is_stdout, bytes)) = client.take() else {
                    if self.ended.is_cancelled() {
                        return;
                    }
                    tokio::select! {
                        () = client.arrived.notified() => {}
                        () = self.ended.cancelled() => {}
                    }
                    continue;
                };
                let to = match (is_stdout, self.size.is_some()) {
                    // A terminal is one stream.
                    (true, _) | (false, true) => &stdout,
                    (false, false) => &stderr,
                };
                if let Some(to) = to
                    && to.send(bytes).await.is_err()
                {
                    return;
                }
            }
        };
        let typed = async {
            let Some(mut stdin) = stdin else {
                return std::future::pending().await;
            };
            while let Some(chunk) = stdin.recv().await {
                let keys = self.keys.lock().clone();
                let Some(keys) = keys else { continue };
                // Its guest reads no more.
                let _ = keys.send(chunk).await;
            }
            if self.once {
                self.keys.lock().take();
            }
            std::future::pending::<()>().await;
        };
        let resized = async {
            let (Some(mut resize), Some(size)) = (resize, &self.size) else {
                return std::future::pending().await;
            };
            while let Some(new) = resize.recv().await {
                size.send_replace(new.into());
            }
            std::future::pending::<()>().await;
        };
        let left = async {
            // The client's reading ends are gone.
            match (&stdout, &stderr) {
                (Some(stdout), _) => stdout.closed().await,
                (None, Some(stderr)) => stderr.closed().await,
                (None, None) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shown => {}
            () = typed => {}
            () = resized => {}
            () = left => {}
        }
    }
}

/// A client that is attached.
struct Attached {
    console: Arc<Console>,
    client: Arc<Client>,
    types: bool,
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut clients = self.console.clients.lock();
        clients.retain(|client| !Arc::ptr_eq(client, &self.client));
        self.console
            .attached
            .store(clients.len(), Ordering::Relaxed);
        drop(clients);
        if self.types && self.console.once {
            self.console.keys.lock().take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(
        stdin: bool,
    ) -> (
        Streams,
        Option<mpsc::Sender<Bytes>>,
        mpsc::Receiver<Bytes>,
        mpsc::Receiver<Bytes>,
    ) {
        let (keys, stdin) = match stdin {
            true => Some(mpsc::channel(CHUNKS_MAX)).unzip(),
            false => (None, None),
        };
        let (stdout, out) = mpsc::channel(CHUNKS_MAX);
        let (stderr, err) = mpsc::channel(CHUNKS_MAX);
        let streams = Streams {
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
            resize: None,
            tty: false,
        };
        (streams, keys, out, err)
    }

    async fn attached(console: &Arc<Console>, count: usize) {
        while console.attached.load(Ordering::Relaxed) != count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn all_who_look_see_the_same_from_when_they_came() {
        let (console, _) = Console::new(Kind::default());
        console.print(Stream::Stdout, b"early");
        let mut looking = Vec::new();
        for _ in 0..2 {
            let (streams, _, out, err) = client(false);
            let console = console.clone();
            let task = tokio::spawn(async move { console.attach(streams).await });
            looking.push((out, err, task));
        }
        attached(&console, 2).await;
        console.print(Stream::Stdout, b"out");
        console.print(Stream::Stderr, b"err");
        console.end();
        for (mut out, mut err, task) in looking {
            task.await.expect("ends with the container");
            assert_eq!(out.recv().await.expect("printed"), "out");
            assert_eq!(err.recv().await.expect("printed"), "err");
            assert_eq!(out.recv().await, None);
        }
        assert_eq!(console.attached.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn who_takes_nothing_holds_nobody_up_and_is_told_what_it_missed() {
        let (console, _) = Console::new(Kind::default());
        let (streams, _, mut out, mut err) = client(false);
        let looking = tokio::spawn({
            let console = console.clone();
            async move { console.attach(streams).await }
        });
        attached(&console, 1).await;
        let much = vec![b'x'; WAITING_BYTES_MAX];
        for _ in 0..3 {
            console.print(Stream::Stdout, &much);
        }
        console.end();
        let (mut seen, mut told) = (0, String::new());
        loop {
            tokio::select! {
                Some(chunk) = out.recv() => seen += chunk.len(),
                Some(chunk) = err.recv() => told += &String::from_utf8_lossy(&chunk),
                else => break,
            }
        }
        looking.await.expect("ends");
        let lost: usize = told
            .split(' ')
            .filter_map(|word| word.parse::<usize>().ok())
            .sum();
        assert_eq!(seen + lost, 3 * WAITING_BYTES_MAX, "{told}");
        assert!(lost > 0);
    }

    #[tokio::test]
    async fn the_first_client_that_leaves_takes_an_input_of_once_with_it() {
        for (once, expected) in [(true, None), (false, Some("more"))] {
            let kind = Kind {
                stdin: true,
                once,
                tty: false,
            };
            let (console, stdio) = Console::new(kind);
            let mut input = stdio.stdin.expect("an input");
            let (streams, keys, _out, _err) = client(true);
            let keys = keys.expect("an input");
            let looking = tokio::spawn({
                let console = console.clone();
                async move { console.attach(streams).await }
            });
            keys.send(Bytes::from_static(b"hi")).await.expect("taken");
            assert_eq!(input.recv().await.expect("typed"), "hi");
            looking.abort();
            let _ = looking.await;
            let next = console.keys.lock().clone();
            match next {
                Some(keys) => keys.send(Bytes::from_static(b"more")).await.expect("taken"),
                None => assert!(once),
            }
            drop(console);
            let seen = input.recv().await;
            assert_eq!(seen.as_deref(), expected.map(str::as_bytes));
        }
    }
}
