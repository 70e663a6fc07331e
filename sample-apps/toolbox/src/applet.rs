//! What an applet is: a function from arguments and open streams to an exit code.
//!
//! Streams are shared as descriptors are: what one holder reads, no other sees again, and nothing that was read ahead
//! is lost when an applet ends. Writing to a pipe that nobody reads is [`io::ErrorKind::BrokenPipe`]; an applet then
//! ends quietly with code 141 as a program that SIGPIPE ended. An applet is stopped by dropping its future.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;

use crate::stream::Stream;
use crate::terminal::Terminal;
use crate::{console, sh, tools};

/// An applet: takes its arguments, of which the first is its name, and its streams; gives its exit code.
pub type Applet = fn(Vec<String>, Io) -> Running;

/// An applet at work. Dropping it stops it.
pub type Running = Pin<Box<dyn Future<Output = i32>>>;

/// A line may be this long; a longer one is an error of the kind `InvalidData`.
pub const LINE_BYTES_MAX: usize = 64 << 20;

/// What an applet is given.
#[derive(Clone)]
pub struct Io {
    pub stdin: Input,
    pub stdout: Output,
    pub stderr: Output,
    /// The exported variables.
    pub env: Rc<BTreeMap<String, String>>,
    /// The working directory, absolute. Relative paths are taken from here, see [`Io::path`].
    pub cwd: PathBuf,
}

impl Io {
    /// Streams, environment and folder of the whole program.
    pub fn of_process() -> Self {
        let (stdin, stdout, stderr) = console::standard_streams();
        let env = std::env::vars_os()
            .map(|(name, value)| {
                let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
                (text(name), text(value))
            })
            .collect();
        Self {
            stdin: Input(stdin),
            stdout: Output(stdout),
            stderr: Output(stderr),
            env: Rc::new(env),
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
        }
    }

    /// A path from an argument, made absolute.
    pub fn path(&self, argument: impl AsRef<Path>) -> PathBuf {
        self.cwd.join(argument)
    }
}

/// A stream to read from. Clones share it.
#[derive(Clone)]
pub struct Input(pub(crate) Rc<Stream>);

impl Input {
    /// Reads what there is, waiting until there is something; 0 at the end.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf).await
    }

    /// Reads a line with its `\n`, which only a last line may lack; `None` at the end.
    pub async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.0.line(LINE_BYTES_MAX).await
    }

    /// Reads until the end; more than `max` bytes are an error of the kind `InvalidData`.
    pub async fn all(&mut self, max: usize) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut buf = vec![0; 32 << 10];
        loop {
            match self.0.read(&mut buf).await? {
                0 => return Ok(all),
                count if all.len() + count > max => {
                    let message = format!("more than {max} bytes of input");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
                count => all.extend_from_slice(&buf[..count]),
            }
        }
    }

    /// A stream that is at its end.
    pub fn empty() -> Self {
        Self(Stream::null())
    }

    /// A stream of these bytes.
    pub fn bytes(bytes: Vec<u8>) -> Self {
        Self(Stream::bytes(bytes))
    }

    /// A stream of a file that was opened for reading.
    pub fn file(file: File) -> Self {
        Self(Stream::file(file))
    }

    /// Whether a person types here.
    pub fn is_terminal(&self) -> bool {
        self.0.is_terminal()
    }

    /// On a terminal: hand over every key as it is pressed, without echo and ^C (`true`), or lines again (`false`).
    pub fn set_raw(&self, raw: bool) {
        self.0.set_raw(raw);
    }
}

/// A stream to write to. Clones share it.
#[derive(Clone)]
pub struct Output(pub(crate) Rc<Stream>);

impl Output {
    /// Writes all of it, or keeps it to be written soon: at the latest when the program has nothing else to do, or the
    /// applet ends. Waits while the reader of a full pipe is slow.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// Writes what was kept, so that its error shows here.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.0.flush().await
    }

    /// A stream into memory, and the bytes that it got.
    pub fn memory() -> (Self, Rc<RefCell<Vec<u8>>>) {
        let (stream, bytes) = Stream::memory();
        (Self(stream), bytes)
    }

    /// A stream into a file that was opened for writing.
    pub fn file(file: File) -> Self {
        Self(Stream::file(file))
    }

    /// A stream that keeps nothing.
    pub fn null() -> Self {
        Self(Stream::null())
    }

    /// Whether this is a person's screen.
    pub fn is_terminal(&self) -> bool {
        self.0.is_terminal()
    }
}

/// A bounded pipe (64 KiB): what is written to the one comes out of the other.
pub fn pipe() -> (Output, Input) {
    let (writer, reader) = Stream::pipe();
    (Output(writer), Input(reader))
}

/// A terminal out of keys as they are pressed and a screen: lines are edited and echoed in here, `\n` becomes `\r\n`,
/// ^C is for the shell that reads from it.
pub fn terminal(keys: Input, screen: Output) -> (Input, Output) {
    let screen = Stream::screen(screen.0);
    let terminal = Terminal::new(keys.0, Rc::clone(&screen));
    (Input(Stream::terminal(terminal)), Output(screen))
}

/// Folders whose files are the applets, whether or not the file is there.
const FOLDERS: [&str; 5] = [
    "/bin/",
    "/usr/bin/",
    "/sbin/",
    "/usr/sbin/",
    "/usr/local/bin/",
];

/// The applet of that name, or of a path such as `/bin/ls`.
pub fn find(name: &str) -> Option<Applet> {
    let name = FOLDERS
        .iter()
        .find_map(|folder| name.strip_prefix(folder))
        .unwrap_or(name);
    let found = |table: &[(&str, Applet)]| {
        let entry = table.iter().find(|(entry, _)| *entry == name);
        entry.map(|(_, applet)| *applet)
    };
    found(sh::TABLE)
        .or_else(|| found(tools::TABLE))
        .or_else(|| found(sh::BUILTINS))
}

/// Where applets are.
const TABLES: [&[(&str, Applet)]; 3] = [sh::TABLE, tools::TABLE, sh::BUILTINS];

/// The names of all applets, each with a line's end, as hosts read them.
pub const NAMES: [u8; NAMES_BYTES] = listed();

const NAMES_BYTES: usize = {
    let (mut bytes, mut table) = (0, 0);
    while table < TABLES.len() {
        let mut entry = 0;
        while entry < TABLES[table].len() {
            bytes += TABLES[table][entry].0.len() + 1;
            entry += 1;
        }
        table += 1;
    }
    bytes
};

const fn listed() -> [u8; NAMES_BYTES] {
    let mut names = [b'\n'; NAMES_BYTES];
    let (mut at, mut table) = (0, 0);
    while table < TABLES.len() {
        let mut entry = 0;
        while entry < TABLES[table].len() {
            let name = TABLES[table][entry].0.as_bytes();
            let mut byte = 0;
            while byte < name.len() {
                names[at] = name[byte];
                at += 1;
                byte += 1;
            }
            at += 1;
            entry += 1;
        }
        table += 1;
    }
    names
}

/// The names of all applets, sorted.
pub fn names() -> Vec<&'static str> {
    let mut names: Vec<_> = TABLES
        .iter()
        .flat_map(|table| table.iter().map(|(name, _)| *name))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Runs a command for an applet that runs others (`env`, `xargs`, `timeout`): its exit code, or 127 with the usual
/// words on stderr.
pub async fn run(argv: Vec<String>, io: Io) -> i32 {
    let mut stderr = io.stderr.clone();
    let Some(name) = argv.first() else { return 0 };
    match find(name) {
        Some(applet) => applet(argv, io).await,
        None if name.contains('/') && io.path(name).exists() => {
            // A script, as an executable file is.
            let mut script = vec!["sh".to_owned()];
            script.extend(argv);
            sh::applet(script, io).await
        }
        None => {
            let message = format!("{name}: not found\n");
            // Nobody is left to tell.
            let _ = stderr.write_all(message.as_bytes()).await;
            127
        }
    }
}

/// Picks the applet for a program's arguments: the one that it is called by, else the one that is named first, else the shell; otherwise what to say and the code to leave with.
pub(crate) fn choose(mut argv: Vec<String>) -> Result<(Applet, Vec<String>), (String, i32)> {
    let base = |name: &str| {
        name.rsplit('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".wasm")
            .to_owned()
    };
    let first = argv.first().map(|name| base(name)).unwrap_or_default();
    // A login shell is called `-sh`.
    if let Some(applet) = find(first.trim_start_matches('-')) {
        return Ok((applet, argv));
    }
    if !argv.is_empty() {
        argv.remove(0);
    }
    // As a container of busybox, which runs a shell unless it is told otherwise.
    if argv.is_empty() {
        argv.push("sh".to_owned());
    }
    let name = argv.first().map(String::as_str).unwrap_or_default();
    match find(&base(name)) {
        Some(applet) => Ok((applet, argv)),
        None => Err((format!("{name}: applet not found\n"), 127)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_told_nothing_is_a_shell() {
        let chosen = |argv: &[&str]| {
            let argv = argv.iter().map(|word| (*word).to_owned()).collect();
            choose(argv).map_or_else(|(told, _)| told, |(_, argv)| argv.join(" "))
        };
        for (argv, expected) in [
            (&["toolbox"][..], "sh"),
            // A container called so, without a command.
            (&["c"], "sh"),
            (&["c", "echo", "a"], "echo a"),
            (&["/bin/cat", "a"], "/bin/cat a"),
            (&["c", "nope"], "nope: applet not found\n"),
        ] {
            assert_eq!(chosen(argv), expected, "{argv:?}");
        }
    }
}
