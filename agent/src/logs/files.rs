//! The thread that owns all files of logs: it takes what was handed over, in batches, one write a file.
//!
//! Invariants: no line of a file is torn by another stream; where something was dropped the log says so, at the end of a run
//! too; what it holds is bounded by what waits (`account`), one open line a stream, and [`BUFFER_BYTES`] a file.

use super::account::Waiting;
use super::{FILE_BYTES_MAX, FILES_MAX, Inner, LINE_BYTES_MAX, Run, RunId, Stream};
use crate::pod_state::later;
use jiff::Timestamp;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Messages taken at once: then what was written is flushed, and followers are told.
const BATCH_MESSAGES: usize = 8192;
/// What of one file is gathered before it is written within a batch.
const BUFFER_BYTES: usize = 1 << 20;
/// How often a run says that it loses something: else a flood of short lines would be one of such notes.
const LOST_TOLD_EVERY: Duration = Duration::from_secs(1);
/// Open files at once; the least recently written are closed beyond that.
const OPEN_FILES_MAX: usize = 256;

/// What the thread is handed, in order. Chunks are bounded by what they wait with, the others by runs and pods.
pub(super) enum Message {
    /// Runs of the container older than the one before `restart` go.
    Begin {
        folder: PathBuf,
        restart: u32,
    },
    Chunk {
        run: Arc<Run>,
        stream: Stream,
        at: Timestamp,
        bytes: Vec<u8>,
        waiting: Waiting,
    },
    /// Something was dropped, and nothing may come after it for long.
    Lost {
        run: Arc<Run>,
        at: Timestamp,
    },
    Close {
        run: Arc<Run>,
        at: Timestamp,
    },
    Remove {
        folder: PathBuf,
    },
}

/// Writes until nobody can hand over anything any more.
pub(super) fn write_all(messages: &Receiver<Message>, mut files: Files, logs: &Weak<Inner>) {
    loop {
        // The time-out only bounds how long an idle node keeps buffers in the page cache unseen; there is nothing to poll.
        let first = match messages.recv_timeout(Duration::from_secs(3600)) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut batch = Batch::default();
        for message in std::iter::once(first).chain(messages.try_iter().take(BATCH_MESSAGES)) {
            batch.take(&mut files, message);
        }
        for id in batch.touched.keys() {
            files.flush(id);
        }
        // On disk: now others may wait in their place.
        batch.waiting.clear();
        // Nobody follows logs that were let go of; what was handed over before is written all the same.
        let logs = logs.upgrade();
        let mut live = logs.as_ref().map(|logs| logs.live.lock());
        for (id, bytes) in batch.touched {
            if let Some(sender) = live.as_ref().and_then(|live| live.get(&id)) {
                sender.send_modify(|total| *total += bytes.max(1));
            }
        }
        for id in batch.ended {
            if let Some(live) = &mut live {
                live.remove(&id);
            }
            files.close(&id);
        }
    }
}

#[derive(Default)]
struct Batch {
    touched: HashMap<RunId, u64>,
    ended: Vec<RunId>,
    waiting: Vec<Waiting>,
}

impl Batch {
    fn take(&mut self, files: &mut Files, message: Message) {
        match message {
            Message::Begin { folder, restart } => remove_older_runs(&folder, restart),
            Message::Chunk {
                run,
                stream,
                at,
                bytes,
                waiting,
            } => {
                let open = files.get(&run.id);
                open.tell_lost(&run, at, LOST_TOLD_EVERY);
                open.append(stream, at, &bytes);
                if open.buffer.len() > BUFFER_BYTES {
                    files.flush(&run.id);
                }
                *self.touched.entry(run.id.clone()).or_default() += bytes.len() as u64;
                self.waiting.push(waiting);
            }
            Message::Lost { run, at } => {
                files.get(&run.id).tell_lost(&run, at, LOST_TOLD_EVERY);
                self.touched.entry(run.id.clone()).or_default();
            }
            Message::Close { run, at } => {
                let open = files.get(&run.id);
                open.tell_lost(&run, at, Duration::ZERO);
                open.finish(at);
                self.touched.entry(run.id.clone()).or_default();
                self.ended.push(run.id.clone());
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
}

/// The run before the current one is kept.
fn remove_older_runs(folder: &Path, restart: u32) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let run = name
            .to_str()
            .and_then(|name| name.split('.').next())
            .and_then(|run| run.parse::<u32>().ok());
        if run.is_some_and(|run| run.saturating_add(1) < restart)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::debug!(path = %entry.path().display(), %error, "old log not removed");
        }
    }
}

/// The files of the log thread.
pub(super) struct Files {
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
    /// When it was last said that something was dropped.
    lost_told: Option<Timestamp>,
    used: u64,
}

impl Files {
    pub(super) fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            open: HashMap::new(),
            clock: 0,
        }
    }

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
            lost_told: None,
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

    /// Says what was dropped since this was last said, unless that was a moment ago.
    fn tell_lost(&mut self, run: &Run, at: Timestamp, every: Duration) {
        if self.lost_told.is_some_and(|told| later(told, every) > at) {
            return;
        }
        for (limit, bytes) in run.take_lost() {
            self.lost_told = Some(at);
            self.line(Stream::Stderr, at, limit.tell(bytes).as_bytes(), true);
        }
    }

    /// What was begun and not ended stays so, as containerd has it: a program that prints no line's end is read back without one.
    fn finish(&mut self, now: Timestamp) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let (rest, since) = std::mem::take(&mut self.partial[stream as usize]);
            if !rest.is_empty() {
                self.line(stream, since.unwrap_or(now), &rest, false);
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
pub(super) fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::super::reader::{self, Query, Reader};
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

    #[tokio::test]
    async fn files_rotate_without_losing_or_tearing_a_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = run(0).file(folder.path());
        let mut files = Files::below(folder.path());
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
    fn long_lines_are_cut_into_pieces() {
        let mut files = Files::below(Path::new("/nowhere"));
        let now = Timestamp::from_second(0).expect("in range");
        let open = files.get(&run(0));
        open.append(Stream::Stdout, now, &vec![b'x'; 2 * LINE_BYTES_MAX + 5]);
        open.append(Stream::Stdout, now, b"\n");
        let tags: Vec<bool> = open
            .buffer
            .split_inclusive(|byte| *byte == b'\n')
            .filter_map(reader::parse)
            .map(|(_, full, _)| full)
            .collect();
        assert_eq!(tags, [false, false, true]);
    }
}
