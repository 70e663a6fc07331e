//! The file of the audit log: a line of JSON an event, in files of a bounded size, of which the oldest go.
//!
//! One thread has the file. Events wait for it in a queue that is bounded by [`QUEUE_MAX`] and [`QUEUE_BYTES_MAX`]: whoever brings one to a
//! full queue waits, so that nothing is done that is not written down.
//!
//! Invariants: what was taken is written before a flush is over; a file never holds half a line, unless the disk failed. Left to others:
//! what an event says (`super`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Events that wait to be written.
const QUEUE_MAX: usize = 4096;
/// Their bytes together, some of which have bodies.
const QUEUE_BYTES_MAX: u32 = 32 << 20;
/// Bytes of a file where nobody says, as in Kubernetes.
const FILE_BYTES: u64 = 100 << 20;

/// Where the log is, and how much of it is kept.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `-` is the standard output, which is neither bounded nor kept.
    pub path: PathBuf,
    /// Bytes of a file before another one is begun.
    pub file_bytes_max: u64,
    /// Old files that are kept; 0 is all of them.
    pub files_max: usize,
    /// How long old ones are kept; none is for ever.
    pub age_max: Option<Duration>,
}

impl LogConfig {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            file_bytes_max: FILE_BYTES,
            files_max: 0,
            age_max: None,
        }
    }
}

/// What waits for the thread that has the file.
enum Waiting {
    Line(String, OwnedSemaphorePermit),
    /// Whoever wants to know that everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// The log. Cheap to clone; clones write to the same file.
#[derive(Clone)]
pub struct Log {
    waiting: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    lost: Arc<AtomicU64>,
}

/// What a line takes of the queue's bytes; one that is larger than the queue has it alone.
fn room_of(line: &str) -> u32 {
    u32::try_from(line.len()).map_or(QUEUE_BYTES_MAX, |bytes| bytes.min(QUEUE_BYTES_MAX))
}

impl Log {
    /// Opens the log, and goes on where it ended.
    ///
    /// # Errors
    /// When the file cannot be made or written.
    pub fn open(config: LogConfig) -> io::Result<Self> {
        let mut sink = Sink::open(config)?;
        let (waiting, mut queue) = mpsc::channel(QUEUE_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let unwritten = Arc::clone(&lost);
        let write = move || {
            while let Some(next) = queue.blocking_recv() {
                match next {
                    Waiting::Line(line, _room) => {
                        if let Err(error) = sink.write(&line) {
                            unwritten.fetch_add(1, Ordering::Relaxed);
                            tracing::error!(%error, "an event of the audit log is lost");
                        }
                    }
                    // Nobody waits any more where it fails.
                    Waiting::Flush(written) => drop(written.send(())),
                }
            }
        };
        let writer = std::thread::Builder::new().name("audit".to_owned());
        writer.spawn(write)?;
        let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX as usize));
        Ok(Self {
            waiting,
            room,
            lost,
        })
    }

    /// Takes an event, as soon as there is room for it.
    pub(super) async fn write(&self, line: String) {
        let room = Arc::clone(&self.room).acquire_many_owned(room_of(&line));
        // The room is never closed, and the thread ends with the last of its logs.
        if let Ok(room) = room.await {
            let _ = self.waiting.send(Waiting::Line(line, room)).await;
        }
    }

    /// Takes an event from where nobody can wait; one too many is told in the server's log.
    pub(super) fn write_now(&self, line: String) {
        let room = Arc::clone(&self.room).try_acquire_many_owned(room_of(&line));
        let taken = room.is_ok_and(|room| self.waiting.try_send(Waiting::Line(line, room)).is_ok());
        if !taken {
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!("an event of the audit log is lost: too many wait to be written");
        }
    }

    /// Events that were lost: for want of room, or because the file could not be written.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Comes once everything that was taken is written.
    pub(super) async fn flush(&self) {
        let (written, told) = oneshot::channel();
        if self.waiting.send(Waiting::Flush(written)).await.is_ok() {
            let _ = told.await;
        }
    }
}

enum Sink {
    Stdout,
    File {
        config: LogConfig,
        file: File,
        bytes: u64,
    },
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

impl Sink {
    fn open(config: LogConfig) -> io::Result<Self> {
        if config.path.as_os_str() == "-" {
            return Ok(Self::Stdout);
        }
        let (file, bytes) = open(&config.path)?;
        Ok(Self::File {
            config,
            file,
            bytes,
        })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Stdout => writeln!(io::stdout().lock(), "{line}"),
            Self::File {
                config,
                file,
                bytes,
            } => {
                let length = line.len() as u64 + 1;
                if *bytes > 0 && *bytes + length > config.file_bytes_max {
                    fs::rename(&config.path, old_name(&config.path, Timestamp::now()))?;
                    (*file, *bytes) = open(&config.path)?;
                    sweep(config)?;
                }
                file.write_all(format!("{line}\n").as_bytes())?;
                *bytes += length;
                Ok(())
            }
        }
    }
}

/// `audit-2026-01-01T00-00-00.000.log` beside `audit.log`.
fn old_name(path: &Path, now: Timestamp) -> PathBuf {
    let (stem, end) = parts(path);
    let at = now.strftime("%Y-%m-%dT%H-%M-%S%.3f");
    path.with_file_name(format!("{stem}-{at}{end}"))
}

fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| {
        part.map(|part| part.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let end = match text(path.extension()) {
        end if end.is_empty() => end,
        end => format!(".{end}"),
    };
    (text(path.file_stem()), end)
}

/// Removes old files beyond their number and age.
fn sweep(config: &LogConfig) -> io::Result<()> {
    let (stem, end) = parts(&config.path);
    let folder = config
        .path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut old: Vec<PathBuf> = fs::read_dir(folder.unwrap_or(Path::new(".")))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            path != &config.path && name.starts_with(&format!("{stem}-")) && name.ends_with(&end)
        })
        .collect();
    // The newest first: their names are times.
    old.sort_unstable_by(|one, other| other.cmp(one));
    let too_old = |path: &Path| {
        let written = fs::metadata(path).and_then(|found| found.modified());
        let age = written
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        config
            .age_max
            .zip(age)
            .is_some_and(|(most, age)| age > most)
    };
    for (index, path) in old.iter().enumerate() {
        let too_many = config.files_max > 0 && index >= config.files_max;
        if too_many || too_old(path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_bounded_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/audit.log");
        let config = LogConfig {
            file_bytes_max: 20,
            files_max: 2,
            ..LogConfig::new(&path)
        };
        for round in 0..5 {
            // A server that starts again goes on.
            let log = Log::open(config.clone()).unwrap();
            for number in 0..2 {
                log.write(format!("event {round}{number}")).await;
                // Names are times of a millisecond.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            log.flush().await;
        }
        let mut files: Vec<String> = fs::read_dir(dir.path().join("logs"))
            .unwrap()
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect();
        files.sort();
        assert_eq!(
            files,
            [
                "event 20\nevent 21\n",
                "event 30\nevent 31\n",
                "event 40\nevent 41\n",
            ]
        );
    }
}
