//! One call of a tool: its name, its arguments, its streams, and how it ends.
//!
//! A tool is an `async fn(&mut Call) -> Result<i32, Stop>`; [`entry!`] makes an applet of it. A write that fails ends it: a pipe
//! that nobody reads quietly with 141, anything else with a sentence. What a tool only complains of ([`Call::fault`]) does not end it,
//! and makes its code 1.

use std::cell::RefCell;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::applet::{self, Input, Io};
use crate::executor::{self, Task};

/// How much is read at a time.
pub const CHUNK_BYTES: usize = 32 << 10;
/// Pieces or lines between two turns of other tasks.
const PIECES_PER_TURN: u32 = 256;
/// The most that tools keep of their input which must see all of it (sort, tac, `tail -n`, `sed` hold space).
pub const HELD_BYTES_MAX: usize = 256 << 20;

/// Makes an [`crate::applet::Applet`] of a tool.
macro_rules! entry {
    ($tool:path) => {
        |args, io| {
            Box::pin(async move {
                let mut call = $crate::tools::call::Call::new(args, io);
                let ended = $tool(&mut call).await;
                call.end(ended).await
            })
        }
    };
}
pub(crate) use entry;

/// Why a tool ends before its end.
#[derive(Debug)]
pub enum Stop {
    /// With this code and nothing to say.
    Code(i32),
    /// With this code; the sentence goes to stderr behind the tool's name.
    Failed(i32, String),
    /// With this code; the text goes to stderr as it is.
    Said(i32, String),
    /// Standard output took no more.
    Output(io::Error),
}

impl Stop {
    pub fn failed(text: impl Display) -> Stop {
        Stop::Failed(1, text.to_string())
    }
}

pub type Ended = Result<i32, Stop>;

pub struct Call {
    pub name: String,
    /// Without the name.
    pub args: Vec<String>,
    pub io: Io,
    /// What it ends with if nothing else happens.
    pub code: i32,
    /// What writes the devices that it reads.
    devices: RefCell<Vec<Task<()>>>,
    /// Pieces read and written.
    pieces: u32,
}

impl Call {
    pub fn new(mut args: Vec<String>, io: Io) -> Call {
        let name = if args.is_empty() {
            String::new()
        } else {
            args.remove(0)
        };
        let name = name.rsplit('/').next().unwrap_or_default().to_owned();
        Call {
            name,
            args,
            io,
            code: 0,
            devices: RefCell::default(),
            pieces: 0,
        }
    }

    pub async fn end(mut self, ended: Ended) -> i32 {
        let flushed = self.io.stdout.flush().await;
        let ended = match (ended, flushed) {
            (Ok(0), Err(error)) => Err(Stop::Output(error)),
            (ended, _) => ended,
        };
        let (code, text) = match ended {
            Ok(code) => (code, String::new()),
            Err(Stop::Code(code)) => (code, String::new()),
            Err(Stop::Failed(code, text)) => (code, format!("{}: {text}\n", self.name)),
            Err(Stop::Said(code, text)) => (code, text),
            Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                (141, String::new())
            }
            Err(Stop::Output(error)) => (
                1,
                format!("{}: write error: {}\n", self.name, reason(&error)),
            ),
        };
        // Nobody is left to tell if this fails.
        let _ = self.io.stderr.write_all(text.as_bytes()).await;
        code
    }

    /// Lets others go on now and then: files and memory never make a tool wait.
    async fn turn(&mut self) {
        self.pieces = self.pieces.wrapping_add(1);
        if self.pieces.is_multiple_of(PIECES_PER_TURN) {
            executor::yield_now().await;
        }
    }

    /// Writes to standard output.
    pub async fn out(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Stop> {
        self.turn().await;
        self.io
            .stdout
            .write_all(bytes.as_ref())
            .await
            .map_err(Stop::Output)
    }

    /// Writes to standard error, as it is.
    pub async fn say(&mut self, text: impl Display) {
        // What cannot be complained of is not worth ending for.
        let _ = self.io.stdout.flush().await;
        let _ = self.io.stderr.write_all(text.to_string().as_bytes()).await;
    }

    /// Complains behind the tool's name; the code will be 1 if it is not worse by then.
    pub async fn fault(&mut self, text: impl Display) {
        let text = format!("{}: {text}\n", self.name);
        self.say(text).await;
        self.code = self.code.max(1);
    }

    /// A path of an argument. An empty one is no path, not the working directory.
    pub fn path(&self, argument: &str) -> PathBuf {
        match argument.is_empty() {
            true => PathBuf::new(),
            false => self.io.path(argument),
        }
    }

    /// A file to read, or standard input for `-`.
    pub fn open(&self, name: &str) -> io::Result<Input> {
        if name == "-" || name == "/dev/stdin" {
            return Ok(self.io.stdin.clone());
        }
        match File::open(self.path(name)) {
            Ok(file) => Ok(Input::file(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match name {
                "/dev/null" => Ok(Input::empty()),
                "/dev/zero" => Ok(self.device(|piece| piece.fill(0))),
                "/dev/urandom" | "/dev/random" => Ok(self.device(random)),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// A device that is not there: a task writes what it would give, as long as the tool reads.
    fn device(&self, fill: fn(&mut [u8])) -> Input {
        let (mut output, input) = applet::pipe();
        let work = async move {
            let mut piece = vec![0; CHUNK_BYTES];
            loop {
                fill(&mut piece);
                if output.write_all(&piece).await.is_err() {
                    return;
                }
            }
        };
        self.devices.borrow_mut().push(executor::spawn(work));
        input
    }

    /// As [`Call::open`]; complains as busybox does when it cannot.
    pub async fn open_or_fault(&mut self, name: &str) -> Option<Input> {
        match self.open(name) {
            Ok(input) => Some(input),
            Err(error) => {
                self.fault(cannot_open(name, &error)).await;
                None
            }
        }
    }

    /// The next bytes of a stream; `None` at its end or when it fails, which is complained of.
    pub async fn chunk(&mut self, input: &mut Input, name: &str) -> Option<Vec<u8>> {
        self.turn().await;
        let mut bytes = vec![0; CHUNK_BYTES];
        match input.read(&mut bytes).await {
            Ok(0) => None,
            Ok(count) => {
                bytes.truncate(count);
                Some(bytes)
            }
            Err(error) => {
                self.fault(read_failed(name, &error)).await;
                None
            }
        }
    }

    /// The next line with its end, if it has one; `None` at the end or when it fails, which is complained of.
    pub async fn line(&mut self, input: &mut Input, name: &str) -> Option<Vec<u8>> {
        self.turn().await;
        match input.line().await {
            Ok(line) => line,
            Err(error) => {
                self.fault(read_failed(name, &error)).await;
                None
            }
        }
    }

    /// All of a file, for what must see it whole.
    pub async fn whole(&mut self, name: &str) -> Result<Vec<u8>, Stop> {
        let mut input = self
            .open(name)
            .map_err(|error| Stop::failed(cannot_open(name, &error)))?;
        let all = input.all(HELD_BYTES_MAX).await;
        all.map_err(|error| Stop::failed(read_failed(name, &error)))
    }

    /// The value of an exported variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.io.env.get(name).map(String::as_str)
    }
}

fn read_failed(name: &str, error: &io::Error) -> String {
    match name {
        "" | "-" => format!("read error: {}", reason(error)),
        name => format!("{name}: {}", reason(error)),
    }
}

pub fn cannot_open(name: &str, error: &io::Error) -> String {
    format!("can't open '{name}': {}", reason(error))
}

/// Fills a piece with what nobody can foretell: the seeds of the standard library's hashes are random.
fn random(piece: &mut [u8]) {
    use std::hash::{BuildHasher, RandomState};
    let seed = RandomState::new();
    for (index, word) in piece.chunks_mut(8).enumerate() {
        let bytes = seed.hash_one(index).to_le_bytes();
        word.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    }
}

/// What the C library calls an error.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    match error.kind() {
        io::ErrorKind::NotFound => "No such file or directory".into(),
        io::ErrorKind::AlreadyExists => "File exists".into(),
        io::ErrorKind::IsADirectory => "Is a directory".into(),
        io::ErrorKind::NotADirectory => "Not a directory".into(),
        io::ErrorKind::DirectoryNotEmpty => "Directory not empty".into(),
        io::ErrorKind::ReadOnlyFilesystem => "Read-only file system".into(),
        io::ErrorKind::ConnectionRefused => "Connection refused".into(),
        io::ErrorKind::ConnectionReset => "Connection reset by peer".into(),
        io::ErrorKind::TimedOut => "Connection timed out".into(),
        io::ErrorKind::BrokenPipe => "Broken pipe".into(),
        io::ErrorKind::StorageFull => "No space left on device".into(),
        io::ErrorKind::CrossesDevices => "Invalid cross-device link".into(),
        io::ErrorKind::Unsupported => "Operation not supported".into(),
        // A path that none of the directories lent to this program holds.
        _ if text.contains("pre-opened") => "No such file or directory".into(),
        _ => text.to_owned(),
    }
}
