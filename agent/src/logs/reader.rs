//! Reading a run's log, through its rotations, and following it.
//!
//! Files are read on threads that may block, a piece of at most [`READ_BYTES_MAX`] at a time; a reader that nobody asks reads
//! nothing. The future of [`Reader::next`] may be dropped: what it was reading is the next answer.

use super::files::rotated;
use super::{FILES_MAX, Stream};
use jiff::Timestamp;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Largest answer of one [`Reader::next`]; a reader's memory is bounded by it.
const READ_BYTES_MAX: usize = 64 << 10;

/// What of a log is asked for; the query of `pods/log`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub follow: bool,
    pub tail_lines: Option<u64>,
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    pub limit_bytes: Option<u64>,
    /// The one of both that is asked for.
    pub stream: Option<Stream>,
}

/// Reads one run, and follows it if asked.
pub struct Reader {
    follow: bool,
    live: Option<watch::Receiver<u64>>,
    state: State,
}

enum State {
    Idle(Box<Position>),
    Reading(JoinHandle<(Box<Position>, io::Result<Piece>)>),
    /// A thread that read ended without an answer.
    Lost,
}

/// What one reading found.
struct Piece {
    text: Vec<u8>,
    limit_reached: bool,
}

/// Where in the files of a run a reader is.
struct Position {
    path: PathBuf,
    query: Query,
    file: Option<BufReader<File>>,
    /// Rotated files still to be read before the current one, oldest last.
    older: Vec<PathBuf>,
    sent: u64,
    /// Whole entries to leave out before the first that is sent (`tailLines`); `None`: not counted yet.
    skip: Option<u64>,
    /// Whether the entry before was continued in this one (`P`): it gets no time of its own.
    inside_line: bool,
}

impl Reader {
    pub(super) fn open(
        path: PathBuf,
        query: Query,
        live: Option<watch::Receiver<u64>>,
    ) -> io::Result<Self> {
        let files: Vec<PathBuf> = std::iter::once(path.clone())
            .chain((1..FILES_MAX).map(|number| rotated(&path, number)))
            .filter(|file| file.exists())
            .collect();
        if files.is_empty() && live.is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut position = Position {
            path,
            skip: query.tail_lines.is_none().then_some(0),
            file: None,
            older: files,
            sent: 0,
            inside_line: false,
            query,
        };
        if position.query.tail_lines.is_none() {
            position.next_file()?;
        }
        Ok(Self {
            follow: position.query.follow,
            live,
            state: State::Idle(Box::new(position)),
        })
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
            let piece = self.read().await?;
            if !piece.text.is_empty() {
                return Ok(Some(piece.text));
            }
            if piece.limit_reached || !self.follow {
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

    async fn read(&mut self) -> io::Result<Piece> {
        if matches!(self.state, State::Idle(_))
            && let State::Idle(mut position) = std::mem::replace(&mut self.state, State::Lost)
        {
            self.state = State::Reading(tokio::task::spawn_blocking(move || {
                let piece = position.read_some();
                (position, piece)
            }));
        }
        let State::Reading(reading) = &mut self.state else {
            return Err(io::Error::other("the log could not be read"));
        };
        match reading.await {
            Ok((position, piece)) => {
                self.state = State::Idle(position);
                piece
            }
            Err(error) => {
                self.state = State::Lost;
                Err(io::Error::other(error))
            }
        }
    }
}

impl Position {
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

    fn limit_reached(&self) -> bool {
        self.query
            .limit_bytes
            .is_some_and(|limit| self.sent >= limit)
    }

    fn read_some(&mut self) -> io::Result<Piece> {
        if self.skip.is_none() {
            let tail = self.query.tail_lines.unwrap_or(u64::MAX);
            let lines = count_lines(&self.older, self.query.since)?;
            self.skip = Some(lines.saturating_sub(tail));
            self.next_file()?;
        }
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
        Ok(Piece {
            limit_reached: self.limit_reached(),
            text: out,
        })
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
        if self
            .query
            .stream
            .is_some_and(|stream| !is_of(entry, stream))
        {
            return;
        }
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
        if let Some(skip) = self.skip.as_mut().filter(|skip| **skip > 0) {
            *skip -= u64::from(full);
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
pub(super) fn parse(entry: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let entry = entry.strip_suffix(b"\n").unwrap_or(entry);
    let mut parts = entry.splitn(4, |byte| *byte == b' ');
    let (time, _stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    Some((time, tag == b"F", parts.next().unwrap_or_default()))
}

fn is_of(entry: &[u8], stream: Stream) -> bool {
    let name = entry.split(|byte| *byte == b' ').nth(1);
    name == Some(stream.name().as_bytes())
}

fn older_than(time: &[u8], since: Timestamp) -> bool {
    std::str::from_utf8(time)
        .ok()
        .and_then(|text| text.parse::<Timestamp>().ok())
        .is_some_and(|time| time < since)
}

/// How many lines there are, a last one without an end included.
fn count_lines(files: &[PathBuf], since: Option<Timestamp>) -> io::Result<u64> {
    let (mut count, mut is_open) = (0, false);
    // The oldest is the last of them.
    for path in files.iter().rev() {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut reader = BufReader::new(file);
        let mut entry = Vec::new();
        while reader.read_until(b'\n', &mut entry)? > 0 {
            if let Some((time, is_full, _)) = parse(&entry)
                && !since.is_some_and(|since| older_than(time, since))
            {
                count += u64::from(is_full);
                is_open = !is_full;
            }
            entry.clear();
        }
    }
    Ok(count + u64::from(is_open))
}
