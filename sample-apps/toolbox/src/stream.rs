//! Open streams: what a descriptor stands for.
//!
//! A stream is shared by all descriptors that were copied from it and so are the bytes that were read ahead, so that
//! whoever reads next goes on where the last one stopped. Output to files and to the program's own streams is kept up
//! to [`KEPT_BYTES_MAX`] and written when it is more, when it is flushed, when nothing else is to do, and at the end.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::rc::{Rc, Weak};

use crate::console::{self, ConsoleIn, ConsoleOut};
use crate::terminal::Terminal;
use crate::{executor, pipe};

const KEPT_BYTES_MAX: usize = 32 << 10;
const READ_BYTES: usize = 32 << 10;

pub struct Stream {
    kind: Kind,
    /// Read ahead and not yet taken, from `at` on.
    ahead: RefCell<Vec<u8>>,
    at: Cell<usize>,
    /// Written and kept.
    kept: RefCell<Vec<u8>>,
    this: Weak<Stream>,
}

enum Kind {
    /// No descriptor at all.
    Closed,
    Null,
    Bytes,
    Memory(Rc<RefCell<Vec<u8>>>),
    File(RefCell<File>),
    Reader(pipe::Reader),
    Writer(pipe::Writer),
    In(ConsoleIn),
    Out(ConsoleOut),
    Terminal(Rc<Terminal>),
    /// A screen: the stream behind, with `\n` as `\r\n`.
    Screen(Rc<Stream>),
}

thread_local! {
    /// Streams that keep output.
    static KEEPING: RefCell<Vec<Weak<Stream>>> = const { RefCell::new(Vec::new()) };
}

/// Writes what is kept and can be written without waiting; an error shows where the stream is written next.
pub fn drain() {
    let keeping = KEEPING.with(|keeping| keeping.take());
    for stream in keeping.iter().filter_map(Weak::upgrade) {
        stream.drain_now();
    }
}

/// Writes all that is kept anywhere. Errors are lost: nobody is left to hear of them.
pub async fn flush_all() {
    let keeping = KEEPING.with(|keeping| keeping.take());
    for stream in keeping.iter().filter_map(Weak::upgrade) {
        let _ = stream.flush().await;
    }
}

impl Stream {
    fn new(kind: Kind, ahead: Vec<u8>) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            kind,
            ahead: RefCell::new(ahead),
            at: Cell::new(0),
            kept: RefCell::default(),
            this: this.clone(),
        })
    }

    pub fn closed() -> Rc<Self> {
        Self::new(Kind::Closed, Vec::new())
    }

    pub fn null() -> Rc<Self> {
        Self::new(Kind::Null, Vec::new())
    }

    pub fn bytes(bytes: Vec<u8>) -> Rc<Self> {
        Self::new(Kind::Bytes, bytes)
    }

    pub fn memory() -> (Rc<Self>, Rc<RefCell<Vec<u8>>>) {
        let bytes = Rc::<RefCell<Vec<u8>>>::default();
        (
            Self::new(Kind::Memory(Rc::clone(&bytes)), Vec::new()),
            bytes,
        )
    }

    pub fn file(file: File) -> Rc<Self> {
        Self::new(Kind::File(RefCell::new(file)), Vec::new())
    }

    pub fn pipe() -> (Rc<Self>, Rc<Self>) {
        let (writer, reader) = pipe::new();
        (
            Self::new(Kind::Writer(writer), Vec::new()),
            Self::new(Kind::Reader(reader), Vec::new()),
        )
    }

    pub fn console_in() -> Rc<Self> {
        Self::new(Kind::In(ConsoleIn::new()), Vec::new())
    }

    pub fn console_out(which: console::Which) -> Rc<Self> {
        Self::new(Kind::Out(ConsoleOut::new(which)), Vec::new())
    }

    pub fn terminal(terminal: Rc<Terminal>) -> Rc<Self> {
        Self::new(Kind::Terminal(terminal), Vec::new())
    }

    pub fn screen(behind: Rc<Stream>) -> Rc<Self> {
        Self::new(Kind::Screen(behind), Vec::new())
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self.kind, Kind::Terminal(_) | Kind::Screen(_))
    }

    pub fn terminal_of(&self) -> Option<&Rc<Terminal>> {
        match &self.kind {
            Kind::Terminal(terminal) => Some(terminal),
            _ => None,
        }
    }

    pub fn set_raw(&self, raw: bool) {
        if let Kind::Terminal(terminal) = &self.kind {
            // Read as lines, it stays as it is.
            let unread = match raw {
                true => Vec::new(),
                false => self.ahead.take().split_off(self.at.take()),
            };
            terminal.set_raw(raw, unread);
        }
    }

    /// Keeps a screen's text to be written soon.
    pub fn write_now(&self, bytes: &[u8]) {
        match &self.kind {
            Kind::Memory(memory) => memory.borrow_mut().extend_from_slice(bytes),
            Kind::Out(_) => self.keep(bytes),
            Kind::Screen(behind) => behind.write_now(&lines_of_a_screen(bytes)),
            _ => {}
        }
    }

    /// Reads ahead if nothing is there; false at the end.
    async fn fill(&self) -> io::Result<bool> {
        if self.at.get() < self.ahead.borrow().len() {
            return Ok(true);
        }
        let mut more = Vec::new();
        let count = match &self.kind {
            Kind::Null | Kind::Bytes => 0,
            Kind::Closed | Kind::Memory(_) | Kind::Writer(_) | Kind::Out(_) | Kind::Screen(_) => {
                return Err(bad_descriptor());
            }
            Kind::File(file) => {
                self.write_kept_to(file)?;
                more.resize(READ_BYTES, 0);
                let count = file.borrow_mut().read(&mut more)?;
                // Reading a file never waits: others get their turn here.
                executor::yield_now().await;
                count
            }
            Kind::Reader(reader) => {
                poll_fn(|context| reader.poll_read(context, &mut more, READ_BYTES)).await
            }
            Kind::In(console) => {
                more = console.read(READ_BYTES).await?;
                more.len()
            }
            Kind::Terminal(terminal) => {
                more = terminal.read(READ_BYTES).await?;
                more.len()
            }
        };
        if count == 0 {
            return Ok(false);
        }
        more.truncate(count);
        self.at.set(0);
        *self.ahead.borrow_mut() = more;
        Ok(true)
    }

    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() || !self.fill().await? {
            return Ok(0);
        }
        let ahead = self.ahead.borrow();
        let there = ahead.get(self.at.get()..).unwrap_or_default();
        let count = there.len().min(buf.len());
        buf[..count].copy_from_slice(&there[..count]);
        self.at.set(self.at.get() + count);
        Ok(count)
    }

    /// A line with its end, of at most so many bytes.
    pub async fn line(&self, max: usize) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        while self.fill().await? {
            let ahead = self.ahead.borrow();
            let there = ahead.get(self.at.get()..).unwrap_or_default();
            let end = there
                .iter()
                .position(|byte| *byte == b'\n')
                .map(|at| at + 1);
            let count = end.unwrap_or(there.len());
            if line.len() + count > max {
                let message = format!("a line of more than {max} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            line.extend_from_slice(&there[..count]);
            self.at.set(self.at.get() + count);
            if end.is_some() {
                break;
            }
        }
        Ok(Some(line).filter(|line| !line.is_empty()))
    }

    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        match &self.kind {
            Kind::Null => {}
            Kind::Closed | Kind::Bytes | Kind::Reader(_) | Kind::In(_) => {
                return Err(bad_descriptor());
            }
            Kind::Memory(memory) => memory.borrow_mut().extend_from_slice(bytes),
            Kind::Writer(writer) => {
                while !bytes.is_empty() {
                    let count = poll_fn(|context| writer.poll_write(context, bytes)).await?;
                    bytes = bytes.get(count..).unwrap_or_default();
                }
            }
            Kind::File(file) => {
                self.forget_ahead(file)?;
                self.keep(bytes);
                if self.kept.borrow().len() >= KEPT_BYTES_MAX {
                    self.flush().await?;
                    executor::yield_now().await;
                }
            }
            Kind::Out(_) => {
                self.keep(bytes);
                if self.kept.borrow().len() >= KEPT_BYTES_MAX {
                    self.flush().await?;
                }
            }
            Kind::Terminal(terminal) => return Box::pin(terminal.screen().write_all(bytes)).await,
            Kind::Screen(behind) => {
                return Box::pin(behind.write_all(&lines_of_a_screen(bytes))).await;
            }
        }
        Ok(())
    }

    pub async fn flush(&self) -> io::Result<()> {
        match &self.kind {
            Kind::File(file) => self.write_kept_to(file),
            Kind::Out(console) => {
                if self.kept.borrow().is_empty() {
                    return Ok(());
                }
                while !self.kept.borrow().is_empty() {
                    let count = {
                        let kept = self.kept.borrow();
                        console.write_some(&kept)
                    };
                    match count {
                        Ok(0) => console.writable().await,
                        Ok(count) => drop(self.kept.borrow_mut().drain(..count)),
                        Err(error) => {
                            self.kept.borrow_mut().clear();
                            return Err(error);
                        }
                    }
                }
                console.hand_over().await
            }
            Kind::Screen(behind) => Box::pin(behind.flush()).await,
            Kind::Terminal(terminal) => Box::pin(terminal.screen().flush()).await,
            _ => Ok(()),
        }
    }

    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.kept.borrow_mut();
        if kept.is_empty() && !bytes.is_empty() {
            self.will_be_written();
        }
        kept.extend_from_slice(bytes);
    }

    fn will_be_written(&self) {
        // Gone already where the thread itself ends.
        let _ = KEEPING.try_with(|keeping| keeping.borrow_mut().push(self.this.clone()));
    }

    /// What of [`Stream::flush`] needs no waiting.
    fn drain_now(&self) {
        match &self.kind {
            Kind::File(file) => drop(self.write_kept_to(file)),
            Kind::Out(console) => {
                let mut kept = self.kept.borrow_mut();
                while !kept.is_empty() {
                    match console.write_some(&kept) {
                        Ok(0) => {
                            self.will_be_written();
                            break;
                        }
                        Ok(count) => drop(kept.drain(..count)),
                        Err(_) => kept.clear(),
                    }
                }
            }
            _ => {}
        }
    }

    fn write_kept_to(&self, file: &RefCell<File>) -> io::Result<()> {
        let kept = self.kept.take();
        match kept.is_empty() {
            true => Ok(()),
            false => file.borrow_mut().write_all(&kept),
        }
    }

    /// Before a write: the file goes back to where its readers are.
    fn forget_ahead(&self, file: &RefCell<File>) -> io::Result<()> {
        let mut ahead = self.ahead.borrow_mut();
        let unread = ahead.len().saturating_sub(self.at.get());
        if unread > 0 {
            let back = i64::try_from(unread).map_err(io::Error::other)?;
            file.borrow_mut().seek(SeekFrom::Current(-back))?;
        }
        ahead.clear();
        self.at.set(0);
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.drain_now();
    }
}

/// Text with every line beginning at the left.
fn lines_of_a_screen(bytes: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(bytes.len() + 16);
    for byte in bytes {
        if *byte == b'\n' {
            lines.push(b'\r');
        }
        lines.push(*byte);
    }
    lines
}

fn bad_descriptor() -> io::Error {
    io::Error::other("Bad file descriptor")
}
