//! Container logs: what guests write to stdout and stderr, in files that `kubectl logs` reads.
//!
//! One thread owns all files. Guests hand chunks over through a bounded queue and never wait: what does not fit, or what
//! exceeds a container's rate, is dropped and counted, and the count is written into the log where the loss was.
//! Files are in Kubernetes' CRI format, `<RFC 3339 nanos> <stdout|stderr> <F|P> <line>`, one folder a container, one file a
//! run of the container; a file is rotated at [`FILE_BYTES_MAX`] and [`FILES_MAX`] of them are kept.
//!
//! Invariants: no line of a file is torn by another stream; memory is bounded by the queue plus one open line a stream;
//! the run before the current one is kept, older ones go.
//!
//! Left to others: who may read (`http`), when a run begins and ends (`execute`).

use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::Duration;
use tokio::sync::watch;

/// Size at which a log file is rotated; the kubelet's default.
pub const FILE_BYTES_MAX: u64 = 10 << 20;
/// Files kept of one run, the current one included.
pub const FILES_MAX: u32 = 3;
/// Longest line in a file; what is longer continues in the next (`P`), as containerd does.
pub const LINE_BYTES_MAX: usize = 16 << 10;
/// Chunks waiting for the log thread, over all containers of the node.
const QUEUE_CHUNKS_MAX: usize = 8192;
/// Largest chunk taken at once; a guest's single write is at most 64 KiB.
const CHUNK_BYTES_MAX: usize = 64 << 10;
/// What a container may log for long, in bytes a second.
const RATE_BYTES_PER_SECOND: u64 = 4 << 20;
/// What a container may log at once.
const BURST_BYTES: u64 = 8 << 20;
/// Open files at once; the least recently written are closed beyond that.
const OPEN_FILES_MAX: usize = 256;

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
    queue: SyncSender<Message>,
    /// Runs that are still written to, with the number of bytes that followers have been told of.
    live: Mutex<HashMap<RunId, watch::Sender<u64>>>,
    dropped: AtomicU64,
}

enum Message {
    Chunk {
        run: Arc<Run>,
        stream: Stream,
        at: Timestamp,
        bytes: Vec<u8>,
    },
    Close {
        run: Arc<Run>,
    },
    Remove {
        folder: PathBuf,
    },
}

struct Run {
    id: RunId,
    bucket: Mutex<Bucket>,
    dropped: AtomicU64,
    closed: AtomicBool,
}

/// The writing end of one run; what the runtime's sink calls.
#[derive(Clone)]
pub struct Writer {
    logs: Logs,
    run: Arc<Run>,
}

/// A token bucket in bytes, with the time handed in.
#[derive(Debug)]
struct Bucket {
    tokens: u64,
    at: Timestamp,
}

impl Bucket {
    fn new(now: Timestamp) -> Self {
        Self {
            tokens: BURST_BYTES,
            at: now,
        }
    }

    fn try_spend(&mut self, bytes: u64, now: Timestamp) -> bool {
        let elapsed = u64::try_from(now.duration_since(self.at).as_millis()).unwrap_or(0);
        let earned = elapsed.saturating_mul(RATE_BYTES_PER_SECOND) / 1000;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(BURST_BYTES);
            self.at = now;
        }
        match self.tokens.checked_sub(bytes) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

impl Logs {
    /// Opens the logs below `root` and starts the thread that writes them.
    ///
    /// # Errors
    /// When the folder cannot be made or the thread cannot be started.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let (queue, messages) = std::sync::mpsc::sync_channel(QUEUE_CHUNKS_MAX);
        let inner = Arc::new(Inner {
            root: root.to_owned(),
            queue,
            live: Mutex::default(),
            dropped: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&inner);
        let files = Files {
            root: root.to_owned(),
            open: HashMap::new(),
            clock: 0,
        };
        std::thread::Builder::new()
            .name("weft-logs".into())
            .spawn(move || write_all(&messages, files, &weak))?;
        Ok(Self { inner })
    }

    /// Begins a run. Runs of the container older than the one before are removed.
    pub fn begin(&self, id: RunId) -> Writer {
        let folder = id.folder(&self.inner.root);
        if let Ok(entries) = fs::read_dir(&folder) {
            for entry in entries.flatten() {
                let name = entry.file_name();
                let run = name
                    .to_str()
                    .and_then(|name| name.split('.').next())
                    .and_then(|run| run.parse::<u32>().ok());
                if run.is_some_and(|run| run.saturating_add(1) < id.restart)
                    && let Err(error) = fs::remove_file(entry.path())
                {
                    tracing::debug!(path = %entry.path().display(), %error, "old log not removed");
                }
            }
        }
        self.inner
            .live
            .lock()
            .entry(id.clone())
            .or_insert_with(|| watch::Sender::new(0));
        let run = Run {
            id,
            bucket: Mutex::new(Bucket::new(Timestamp::now())),
            dropped: AtomicU64::new(0),
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
        // If the queue is full the folder stays until the next start of the node, which removes what belongs to nobody.
        if self
            .inner
            .queue
            .try_send(Message::Remove { folder })
            .is_err()
        {
            tracing::debug!(namespace, pod, "log folder left behind");
        }
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
                // As in `remove_pod`: what a full queue refuses is swept the next time.
                let _ = self.inner.queue.try_send(Message::Remove {
                    folder: entry.path(),
                });
            }
        }
    }

    /// Bytes dropped since the start, over all containers.
    pub fn dropped_bytes(&self) -> u64 {
        self.inner.dropped.load(Ordering::Relaxed)
    }

    /// Opens a run for reading.
    ///
    /// # Errors
    /// `NotFound` when the run never logged.
    pub fn read(&self, id: &RunId, query: Query) -> io::Result<Reader> {
        let live = self.inner.live.lock().get(id).map(watch::Sender::subscribe);
        Reader::open(id.file(&self.inner.root), query, live)
    }
}

impl Writer {
    /// Takes what a guest wrote. Never blocks; what cannot be kept is counted.
    pub fn write(&self, stream: Stream, bytes: &[u8]) {
        let now = Timestamp::now();
        for chunk in bytes.chunks(CHUNK_BYTES_MAX) {
            let size = chunk.len() as u64;
            let fits = self.run.bucket.lock().try_spend(size, now);
            let message = || Message::Chunk {
                run: self.run.clone(),
                stream,
                at: now,
                bytes: chunk.to_vec(),
            };
            let sent = fits
                && match self.logs.inner.queue.try_send(message()) {
                    Ok(()) => true,
                    Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
                };
            if !sent {
                self.run.dropped.fetch_add(size, Ordering::Relaxed);
                self.logs.inner.dropped.fetch_add(size, Ordering::Relaxed);
            }
        }
    }

    /// Writes one line on behalf of the node, such as why a request trapped.
    pub fn write_note(&self, text: &str) {
        self.write(Stream::Stderr, format!("{}\n", text.trim_end()).as_bytes());
    }

    /// Ends the run: open lines are written, followers reach the end.
    pub fn close(&self) {
        if self.run.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        // A close must not be lost, so that it may wait for the queue; off the async threads.
        let (queue, run) = (self.logs.inner.queue.clone(), self.run.clone());
        if let Err(TrySendError::Full(message)) = queue.try_send(Message::Close { run }) {
            std::thread::spawn(move || queue.send(message));
        }
    }
}

fn write_all(messages: &Receiver<Message>, mut files: Files, logs: &std::sync::Weak<Inner>) {
    loop {
        // The time-out only bounds how long an idle node keeps buffers in the page cache unseen; there is nothing to poll.
        let first = match messages.recv_timeout(Duration::from_secs(3600)) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut touched: HashMap<RunId, u64> = HashMap::new();
        let mut ended = Vec::new();
        // One batch: everything that is here now, then one write a file and one wake a follower.
        for message in std::iter::once(first).chain(messages.try_iter().take(QUEUE_CHUNKS_MAX)) {
            match message {
                Message::Chunk {
                    run,
                    stream,
                    at,
                    bytes,
                } => {
                    let lost = run.dropped.swap(0, Ordering::Relaxed);
                    let open = files.get(&run.id);
                    if lost > 0 {
                        open.line(
                            Stream::Stderr,
                            at,
                            format!("[weft: {lost} bytes of log were dropped here]").as_bytes(),
                            true,
                        );
                    }
                    open.append(stream, at, &bytes);
                    *touched.entry(run.id.clone()).or_default() += bytes.len() as u64;
                }
                Message::Close { run } => {
                    files.get(&run.id).finish(Timestamp::now());
                    touched.entry(run.id.clone()).or_default();
                    ended.push(run.id.clone());
                }
                Message::Remove { folder } => {
                    files.forget_below(&folder);
                    if let Err(error) = fs::remove_dir_all(&folder)
                        && error.kind() != io::ErrorKind::NotFound
                    {
                        tracing::warn!(folder = %folder.display(), %error, "logs of a removed pod stay behind");
                    }
                }
            }
        }
        for id in touched.keys() {
            files.flush(id);
        }
        let Some(logs) = logs.upgrade() else { return };
        let mut live = logs.live.lock();
        for (id, bytes) in touched {
            if let Some(sender) = live.get(&id) {
                sender.send_modify(|total| *total += bytes.max(1));
            }
        }
        for id in ended {
            live.remove(&id);
            files.close(&id);
        }
    }
}

/// The files of the log thread.
struct Files {
    root: PathBuf,
    open: HashMap<RunId, OpenFile>,
    clock: u64,
}

struct OpenFile {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    buffer: Vec<u8>,
    partial: [(Vec<u8>, Option<Timestamp>); 2],
    used: u64,
}

impl Files {
    fn get(&mut self, id: &RunId) -> &mut OpenFile {
        self.clock += 1;
        if !self.open.contains_key(id)
            && self
                .open
                .values()
                .filter(|open| open.file.is_some())
                .count()
                >= OPEN_FILES_MAX
        {
            // Closing keeps the entry with its open lines; the file is opened again by the next flush.
            if let Some(oldest) = self
                .open
                .values_mut()
                .filter(|open| open.file.is_some())
                .min_by_key(|open| open.used)
            {
                oldest.file = None;
            }
        }
        let (clock, root) = (self.clock, &self.root);
        let open = self.open.entry(id.clone()).or_insert_with(|| OpenFile {
            path: id.file(root),
            file: None,
            size: 0,
            buffer: Vec::new(),
            partial: [(Vec::new(), None), (Vec::new(), None)],
            used: 0,
        });
        open.used = clock;
        open
    }

    fn flush(&mut self, id: &RunId) {
        if let Some(open) = self.open.get_mut(id)
            && let Err(error) = open.flush()
        {
            tracing::warn!(path = %open.path.display(), %error, "log lines lost");
            open.buffer.clear();
            open.file = None;
        }
    }

    fn close(&mut self, id: &RunId) {
        self.open.remove(id);
    }

    fn forget_below(&mut self, folder: &Path) {
        self.open.retain(|_, open| !open.path.starts_with(folder));
    }
}

impl OpenFile {
    /// Splits a chunk into lines, keeping the unfinished rest.
    fn append(&mut self, stream: Stream, at: Timestamp, mut bytes: &[u8]) {
        let slot = stream as usize;
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (mut line, since) = std::mem::take(&mut self.partial[slot]);
            line.extend_from_slice(&bytes[..end]);
            self.line(stream, since.unwrap_or(at), &line, true);
            bytes = &bytes[end + 1..];
        }
        if bytes.is_empty() {
            return;
        }
        let (mut rest, since) = std::mem::take(&mut self.partial[slot]);
        let since = since.unwrap_or(at);
        rest.extend_from_slice(bytes);
        while rest.len() > LINE_BYTES_MAX {
            let tail = rest.split_off(LINE_BYTES_MAX);
            self.line(stream, since, &rest, false);
            rest = tail;
        }
        self.partial[slot] = (rest, Some(since));
    }

    fn line(&mut self, stream: Stream, at: Timestamp, line: &[u8], full: bool) {
        let mut pieces = line.chunks(LINE_BYTES_MAX).peekable();
        if pieces.peek().is_none() {
            self.piece(stream, at, b"", full);
        }
        while let Some(piece) = pieces.next() {
            self.piece(stream, at, piece, full && pieces.peek().is_none());
        }
    }

    fn piece(&mut self, stream: Stream, at: Timestamp, piece: &[u8], full: bool) {
        let tag = if full { 'F' } else { 'P' };
        // Writing to a Vec cannot fail.
        let _ = write!(
            self.buffer,
            "{} {} {tag} ",
            weft_api::time::rfc3339_nanos(at),
            stream.name()
        );
        self.buffer.extend_from_slice(piece);
        self.buffer.push(b'\n');
    }

    fn finish(&mut self, now: Timestamp) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let (rest, since) = std::mem::take(&mut self.partial[stream as usize]);
            if !rest.is_empty() {
                self.line(stream, since.unwrap_or(now), &rest, true);
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut at = 0;
        while at < buffer.len() {
            if self.file.is_none() {
                if let Some(folder) = self.path.parent() {
                    fs::create_dir_all(folder)?;
                }
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&self.path)?;
                self.size = file.metadata()?.len();
                self.file = Some(file);
            }
            if self.size >= FILE_BYTES_MAX {
                self.rotate()?;
                continue;
            }
            // Up to the line that fills the file, so that no line is split between two files.
            let room = usize::try_from(FILE_BYTES_MAX - self.size).unwrap_or(usize::MAX);
            let end = match buffer.len() - at <= room {
                true => buffer.len(),
                false => buffer[at + room..]
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(buffer.len(), |end| at + room + end + 1),
            };
            if let Some(file) = &mut self.file {
                file.write_all(&buffer[at..end])?;
            }
            self.size += (end - at) as u64;
            at = end;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for number in (1..FILES_MAX).rev() {
            let from = if number == 1 {
                self.path.clone()
            } else {
                rotated(&self.path, number - 1)
            };
            match fs::rename(&from, rotated(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// `0.log` → `0.log.1`.
fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// What of a log is asked for; the query of `pods/log`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub follow: bool,
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    pub limit_bytes: Option<u64>,
}

/// Reads one run, through its rotations, and follows it if asked.
pub struct Reader {
    path: PathBuf,
    query: Query,
    file: Option<BufReader<File>>,
    /// Rotated files still to be read before the current one, oldest last.
    older: Vec<PathBuf>,
    live: Option<watch::Receiver<u64>>,
    sent: u64,
    /// Whole entries to leave out before the first that is sent (`tailLines`).
    skip: u64,
    /// Whether the entry before was continued in this one (`P`): it gets no time of its own.
    inside_line: bool,
}

/// Largest answer of one [`Reader::next`]; a reader's memory is bounded by it.
const READ_BYTES_MAX: usize = 64 << 10;

impl Reader {
    fn open(path: PathBuf, query: Query, live: Option<watch::Receiver<u64>>) -> io::Result<Self> {
        let files: Vec<PathBuf> = std::iter::once(path.clone())
            .chain((1..FILES_MAX).map(|number| rotated(&path, number)))
            .filter(|file| file.exists())
            .collect();
        if files.is_empty() && live.is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let skip = match query.tail_lines {
            None => 0,
            Some(tail) => count_lines(&files, query.since)?.saturating_sub(tail),
        };
        let mut reader = Self {
            path,
            query,
            file: None,
            older: files,
            live,
            sent: 0,
            skip,
            inside_line: false,
        };
        reader.next_file()?;
        Ok(reader)
    }

    /// Opens the next file to read: the oldest left, then the current one.
    fn next_file(&mut self) -> io::Result<bool> {
        while let Some(path) = self.older.pop() {
            match File::open(&path) {
                Ok(file) => {
                    self.file = Some(BufReader::new(file));
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// The next piece of text; `None` at the end, which a follower reaches when the run is over.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(receiver) = &mut self.live {
                // Before reading, so that what is written while we read wakes us again.
                receiver.mark_unchanged();
            }
            let text = self.read_some()?;
            if !text.is_empty() {
                return Ok(Some(text));
            }
            if self.limit_reached() || !self.query.follow {
                return Ok(None);
            }
            let Some(receiver) = &mut self.live else {
                return Ok(None);
            };
            if receiver.changed().await.is_err() {
                // The run ended; what it wrote last is in the file by now.
                self.live = None;
            }
        }
    }

    fn limit_reached(&self) -> bool {
        self.query
            .limit_bytes
            .is_some_and(|limit| self.sent >= limit)
    }

    fn read_some(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut line = Vec::new();
        while out.len() < READ_BYTES_MAX && !self.limit_reached() {
            let Some(file) = &mut self.file else {
                // Nothing has been written yet; look whether it is there by now.
                if self.path.exists() {
                    self.older.push(self.path.clone());
                }
                if !self.next_file()? {
                    break;
                }
                continue;
            };
            line.clear();
            let start = file.stream_position()?;
            let read = file.read_until(b'\n', &mut line)?;
            if read == 0 {
                if self.older.is_empty() && !self.was_rotated()? {
                    break;
                }
                self.file = None;
                self.next_file()?;
                continue;
            }
            if line.last() != Some(&b'\n') {
                // Half a batch: the rest comes with the next wake.
                file.seek(SeekFrom::Start(start))?;
                break;
            }
            self.render(&line, &mut out);
        }
        if let Some(limit) = self.query.limit_bytes {
            out.truncate(usize::try_from(limit.saturating_sub(self.sent)).unwrap_or(usize::MAX));
        }
        self.sent += out.len() as u64;
        Ok(out)
    }

    /// Whether the file being read is no longer the current one, and there is a current one to go on with.
    fn was_rotated(&self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let Some(file) = &self.file else {
            return Ok(false);
        };
        match fs::metadata(&self.path) {
            Ok(current) => {
                let ours = file.get_ref().metadata()?;
                Ok((ours.dev(), ours.ino()) != (current.dev(), current.ino()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn render(&mut self, entry: &[u8], out: &mut Vec<u8>) {
        let Some((time, full, text)) = parse(entry) else {
            return;
        };
        let continued = std::mem::replace(&mut self.inside_line, !full);
        if self
            .query
            .since
            .is_some_and(|since| older_than(time, since))
        {
            return;
        }
        if self.skip > 0 {
            self.skip -= u64::from(full);
            return;
        }
        if self.query.timestamps && !continued {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        if full {
            out.push(b'\n');
        }
    }
}

/// Time, whether the line ends here, and the text of one CRI entry.
fn parse(entry: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let entry = entry.strip_suffix(b"\n").unwrap_or(entry);
    let mut parts = entry.splitn(4, |byte| *byte == b' ');
    let (time, _stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    Some((time, tag == b"F", parts.next().unwrap_or_default()))
}

fn older_than(time: &[u8], since: Timestamp) -> bool {
    std::str::from_utf8(time)
        .ok()
        .and_then(|text| text.parse::<Timestamp>().ok())
        .is_some_and(|time| time < since)
}

fn count_lines(files: &[PathBuf], since: Option<Timestamp>) -> io::Result<u64> {
    let mut count = 0;
    for path in files {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut reader = BufReader::new(file);
        let mut entry = Vec::new();
        while reader.read_until(b'\n', &mut entry)? > 0 {
            if let Some((time, true, _)) = parse(&entry)
                && !since.is_some_and(|since| older_than(time, since))
            {
                count += 1;
            }
            entry.clear();
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(reading.await.expect("reads"), "one\noops\ntwo\n\nthree\n");
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

    #[tokio::test]
    async fn files_rotate_without_losing_or_tearing_a_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = run(0).file(folder.path());
        let mut files = Files {
            root: folder.path().into(),
            open: HashMap::new(),
            clock: 0,
        };
        let now = Timestamp::from_second(1_000_000).expect("in range");
        let line = format!("{}\n", "x".repeat(1 << 20));
        for _ in 0..25 {
            files
                .get(&run(0))
                .append(Stream::Stdout, now, line.as_bytes());
            files.flush(&run(0));
        }
        assert!(path.exists() && rotated(&path, 1).exists() && rotated(&path, 2).exists());
        assert!(
            fs::metadata(rotated(&path, 1)).expect("a file").len()
                < FILE_BYTES_MAX + 2 * LINE_BYTES_MAX as u64
        );
        let mut reader = Reader::open(path, Query::default(), None).expect("opens");
        let mut total = 0;
        while let Some(piece) = reader.next().await.expect("readable") {
            total += piece.len();
        }
        assert_eq!(total, 25 * line.len());
    }

    #[test]
    fn a_flood_is_dropped_at_the_rate() {
        let at =
            |millis: i64| Timestamp::from_millisecond(1_000_000_000 + millis).expect("in range");
        let mut bucket = Bucket::new(at(0));
        assert!(bucket.try_spend(BURST_BYTES, at(0)));
        assert!(!bucket.try_spend(1, at(0)));
        assert!(bucket.try_spend(RATE_BYTES_PER_SECOND / 10, at(100)));
        assert!(!bucket.try_spend(RATE_BYTES_PER_SECOND, at(101)));
    }

    #[test]
    fn long_lines_are_cut_into_pieces() {
        let mut files = Files {
            root: PathBuf::from("/nowhere"),
            open: HashMap::new(),
            clock: 0,
        };
        let now = Timestamp::from_second(0).expect("in range");
        let open = files.get(&run(0));
        open.append(Stream::Stdout, now, &vec![b'x'; 2 * LINE_BYTES_MAX + 5]);
        open.append(Stream::Stdout, now, b"\n");
        let tags: Vec<bool> = open
            .buffer
            .split_inclusive(|byte| *byte == b'\n')
            .filter_map(parse)
            .map(|(_, full, _)| full)
            .collect();
        assert_eq!(tags, [false, false, true]);
    }
}
