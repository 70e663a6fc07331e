//! What containers print, line by line, on its way to a receiver of logs, each line with the call that it was printed in.
//!
//! ```text
//! guest ─ a chunk, and its call ─► Printing (a stream of a container) ─ lines ─► Printed, which is sent batch by batch
//! ```
//! Their logs themselves are files (`logs`), whatever becomes of this. Where an instance works on several calls at once, it is not known which
//! of them prints: such a line has no call.
//!
//! Invariants: who prints waits for nobody; lines that wait are bounded in number, those of one container to [`SHARE`] of it, and all of them
//! in bytes; what finds no room is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use weft_mesh::{TraceContext, WorkloadInfo};

use super::config::Config;
use crate::logs::{LINE_BYTES_MAX, Stream};

/// Bytes of lines that wait, over all containers.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// So many containers fill the queue: one alone leaves room for others.
const SHARE: usize = 4;

/// Who prints.
#[derive(Debug)]
pub struct Container {
    pub workload: WorkloadInfo,
    pub pod: String,
    pub uid: String,
    pub name: String,
    pub restart: u32,
    waiting: AtomicUsize,
}

impl Container {
    #[must_use]
    pub fn new(workload: WorkloadInfo, pod: &str, uid: &str, name: &str, restart: u32) -> Self {
        Self {
            workload,
            pod: pod.to_owned(),
            uid: uid.to_owned(),
            name: name.to_owned(),
            restart,
            waiting: AtomicUsize::new(0),
        }
    }
}

/// A line that waits to be sent.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) container: Arc<Container>,
    pub(super) stream: Stream,
    /// When its first bytes came.
    pub(super) at: SystemTime,
    pub(super) text: String,
    pub(super) trace: Option<TraceContext>,
    bytes: Arc<AtomicUsize>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.container.waiting.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(self.text.len(), Ordering::Relaxed);
    }
}

/// Where lines are handed in. Clones share it.
#[derive(Debug, Clone)]
pub struct Lines {
    queue: mpsc::Sender<Line>,
    lost: Arc<AtomicU64>,
    bytes: Arc<AtomicUsize>,
}

/// Where they come out.
#[derive(Debug)]
pub struct Printed {
    /// Its other end: while nobody prints, the queue is empty and not over.
    lines: Lines,
    queue: mpsc::Receiver<Line>,
}

impl Lines {
    /// One, and its end, where the environment has containers' lines sent.
    #[must_use]
    pub fn wanted(config: &Config) -> Option<(Self, Printed)> {
        let (_, batches) = config.logs.as_ref().filter(|_| config.records.containers)?;
        Some(Self::new(batches.queue))
    }

    /// A way for so many lines, and its end.
    #[must_use]
    pub fn new(queue: usize) -> (Self, Printed) {
        let (sender, queue) = mpsc::channel(queue.max(1));
        let lines = Self {
            queue: sender,
            lost: Arc::default(),
            bytes: Arc::default(),
        };
        let printed = Printed {
            lines: lines.clone(),
            queue,
        };
        (lines, printed)
    }

    /// A stream of a container.
    #[must_use]
    pub fn printing(&self, container: &Arc<Container>, stream: Stream) -> Printing {
        Printing {
            lines: self.clone(),
            container: Arc::clone(container),
            stream,
            open: Mutex::default(),
        }
    }

    fn push(&self, printing: &Printing, open: Open) {
        let waiting = &printing.container.waiting;
        let line = Line {
            container: Arc::clone(&printing.container),
            stream: printing.stream,
            at: open.at.unwrap_or_else(SystemTime::now),
            text: String::from_utf8_lossy(&open.text).into_owned(),
            trace: open.trace,
            bytes: Arc::clone(&self.bytes),
        };
        // What is taken here is given back with the line, wherever that ends.
        let length = line.text.len();
        let of_container = waiting.fetch_add(1, Ordering::Relaxed);
        let of_all = self.bytes.fetch_add(length, Ordering::Relaxed);
        let has_room = of_container < self.queue.max_capacity().div_ceil(SHARE)
            && of_all + length <= WAITING_BYTES_MAX;
        if !has_room || self.queue.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One stream of one container, which all of its instances print to.
#[derive(Debug)]
pub struct Printing {
    lines: Lines,
    container: Arc<Container>,
    stream: Stream,
    open: Mutex<Open>,
}

/// A line whose end has not come.
#[derive(Debug, Default)]
struct Open {
    text: Vec<u8>,
    at: Option<SystemTime>,
    trace: Option<TraceContext>,
}

impl Printing {
    /// Takes what was printed, in the call of `trace` if that is known and recorded. Never waits for anything but another thread here.
    pub fn write(&self, bytes: &[u8], trace: Option<&TraceContext>) {
        let mut open = self.open.lock();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let mut parts = text.chunks(LINE_BYTES_MAX).peekable();
            while let Some(part) = parts.next() {
                if open.text.len() + part.len() > LINE_BYTES_MAX {
                    self.lines.push(self, std::mem::take(&mut *open));
                }
                if open.at.is_none() {
                    open.at = Some(SystemTime::now());
                    open.trace = trace.filter(|trace| trace.is_recorded()).cloned();
                }
                open.text.extend_from_slice(part);
                if parts.peek().is_some() {
                    self.lines.push(self, std::mem::take(&mut *open));
                }
            }
            if is_whole && !open.text.is_empty() {
                self.lines.push(self, std::mem::take(&mut *open));
            }
        }
    }
}

impl Drop for Printing {
    fn drop(&mut self) {
        let open = std::mem::take(&mut *self.open.lock());
        if !open.text.is_empty() {
            self.lines.push(self, open);
        }
    }
}

impl super::Source for Printed {
    type Item = Line;

    async fn next(&mut self) -> Line {
        match self.queue.recv().await {
            Some(line) => line,
            // Its sender is in here.
            None => std::future::pending().await,
        }
    }

    fn try_next(&mut self) -> Option<Line> {
        self.queue.try_recv().ok()
    }

    fn take_lost(&self) -> u64 {
        self.lines.lost.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Source as _;
    use super::*;

    fn container(name: &str) -> Arc<Container> {
        Arc::new(Container::new(
            WorkloadInfo::default(),
            "web-1",
            "u",
            name,
            0,
        ))
    }

    fn all(printed: &mut Printed) -> Vec<String> {
        std::iter::from_fn(|| printed.try_next())
            .map(|line| {
                let trace = line.trace.as_ref().map(|trace| trace.span_id);
                format!("{:?} {:?} {}", line.stream, trace, line.text)
            })
            .collect()
    }

    #[test]
    fn lines_have_the_call_that_they_began_in() {
        let (lines, mut printed) = Lines::new(64);
        let web = container("web");
        let stdout = lines.printing(&web, Stream::Stdout);
        let stderr = lines.printing(&web, Stream::Stderr);
        let recorded = TraceContext::root(1, 7).recorded(true);
        let not = TraceContext::root(1, 8);
        stdout.write(b"one\ntw", Some(&recorded));
        stderr.write(b"oops\n\n", Some(&not));
        stdout.write(b"o\nthr", None);
        assert_eq!(
            all(&mut printed),
            [
                "Stdout Some(7) one",
                "Stderr None oops",
                "Stdout Some(7) two"
            ]
        );
        // What has no end of a line ends with its stream.
        drop(stdout);
        assert_eq!(all(&mut printed), ["Stdout None thr"]);
    }

    #[test]
    fn who_floods_loses_and_leaves_room_for_others() {
        let (lines, mut printed) = Lines::new(8);
        let flood = lines.printing(&container("flood"), Stream::Stdout);
        let quiet = lines.printing(&container("quiet"), Stream::Stdout);
        for _ in 0..100 {
            flood.write(b"x\n", None);
        }
        quiet.write(b"y\n", None);
        assert_eq!(printed.take_lost(), 98);
        let told = ["Stdout None x", "Stdout None x", "Stdout None y"];
        assert_eq!(all(&mut printed), told);
        // What was sent makes room.
        flood.write(b"z\n", None);
        assert_eq!(all(&mut printed), ["Stdout None z"]);
        // A line without end is many.
        let long = vec![b'x'; 3 * LINE_BYTES_MAX + 1];
        quiet.write(&long, None);
        assert_eq!(printed.take_lost(), 1);
        let lengths = std::iter::from_fn(|| printed.try_next());
        let lengths: Vec<usize> = lengths.map(|line| line.text.len()).collect();
        assert_eq!(lengths, [LINE_BYTES_MAX; 2]);
        assert_eq!(lines.bytes.load(Ordering::Relaxed), 0);
    }
}
