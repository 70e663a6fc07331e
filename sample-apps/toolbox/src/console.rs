//! The program's own streams: WASI's in a component, the process' natively.

use std::io;
use std::rc::Rc;

use crate::stream::Stream;
#[cfg(target_os = "wasi")]
use crate::terminal::{self, Terminal};

#[cfg(not(target_os = "wasi"))]
pub use native::{ConsoleIn, ConsoleOut};
#[cfg(target_os = "wasi")]
pub use wasi::{ConsoleIn, ConsoleOut};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Out,
    Err,
}

/// Standard input, output and error. A terminal of WASI has no line discipline, so that it gets ours; natively the
/// kernel has one.
pub fn standard_streams() -> (Rc<Stream>, Rc<Stream>, Rc<Stream>) {
    let stdin = Stream::console_in();
    let stdout = Stream::console_out(Which::Out);
    let stderr = Stream::console_out(Which::Err);
    #[cfg(target_os = "wasi")]
    {
        use wasip2::cli::{terminal_stderr, terminal_stdin, terminal_stdout};
        let screen = |stream, is_terminal| match is_terminal {
            true => Stream::screen(stream),
            false => stream,
        };
        let is_screen = terminal_stdout::get_terminal_stdout().is_some();
        let stderr = screen(stderr, terminal_stderr::get_terminal_stderr().is_some());
        let stdout = screen(stdout, is_screen);
        if terminal_stdin::get_terminal_stdin().is_some() {
            let echo = if stdout.is_terminal() {
                Rc::clone(&stdout)
            } else {
                Stream::null()
            };
            let terminal = Terminal::new(stdin, echo);
            terminal::set_current(&terminal);
            return (Stream::terminal(terminal), stdout, stderr);
        }
        (stdin, stdout, stderr)
    }
    #[cfg(not(target_os = "wasi"))]
    (stdin, stdout, stderr)
}

/// Says something on standard error, before any applet runs.
pub fn complain(message: &str) {
    use std::io::Write as _;
    // Nobody is left to tell.
    let _ = io::stderr().write_all(message.as_bytes());
}

#[cfg(target_os = "wasi")]
mod wasi {
    use std::io;
    use std::rc::Rc;

    use wasip2::cli::stderr::get_stderr;
    use wasip2::cli::stdin::get_stdin;
    use wasip2::cli::stdout::get_stdout;
    use wasip2::io::streams::{InputStream, OutputStream, StreamError};

    use super::Which;
    use crate::executor;

    pub struct ConsoleIn(InputStream);

    impl ConsoleIn {
        pub fn new() -> Self {
            Self(get_stdin())
        }

        /// What there is, at least a byte; nothing at the end.
        pub async fn read(&self, max: usize) -> io::Result<Vec<u8>> {
            loop {
                match self.0.read(max as u64) {
                    Ok(bytes) if bytes.is_empty() => {
                        executor::ready(Rc::new(self.0.subscribe())).await
                    }
                    Ok(bytes) => return Ok(bytes),
                    Err(StreamError::Closed) => return Ok(Vec::new()),
                    Err(StreamError::LastOperationFailed(error)) => {
                        return Err(io::Error::other(error.to_debug_string()));
                    }
                }
            }
        }
    }

    pub struct ConsoleOut(OutputStream);

    impl ConsoleOut {
        pub fn new(which: Which) -> Self {
            Self(match which {
                Which::Out => get_stdout(),
                Which::Err => get_stderr(),
            })
        }

        /// Writes what can be written now.
        pub fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
            let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            let room = usize::try_from(self.0.check_write().map_err(gone)?).unwrap_or(usize::MAX);
            let count = room.min(bytes.len());
            if count > 0 {
                self.0.write(&bytes[..count]).map_err(gone)?;
            }
            Ok(count)
        }

        pub async fn writable(&self) {
            executor::ready(Rc::new(self.0.subscribe())).await;
        }

        /// Waits until the host has what was written, so that nothing is lost when the program ends.
        pub async fn hand_over(&self) -> io::Result<()> {
            self.0
                .flush()
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            self.writable().await;
            Ok(())
        }
    }
}

#[cfg(not(target_os = "wasi"))]
mod native {
    use std::future::poll_fn;
    use std::io::{self, Read as _, Write as _};
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::task::{Poll, Waker};

    use super::Which;
    use crate::executor::Foreign;

    pub struct ConsoleIn;

    /// What the thread that reads standard input has for whoever asks next.
    struct Slot {
        asked: bool,
        got: Option<io::Result<Vec<u8>>>,
        waiting: Option<Waker>,
    }

    static SLOT: Mutex<Slot> = Mutex::new(Slot {
        asked: false,
        got: None,
        waiting: None,
    });

    fn slot() -> MutexGuard<'static, Slot> {
        SLOT.lock().unwrap_or_else(PoisonError::into_inner)
    }

    impl ConsoleIn {
        pub fn new() -> Self {
            Self
        }

        /// What there is, at least a byte; nothing at the end. A read that nobody waits for any more keeps its bytes
        /// for the next.
        pub async fn read(&self, max: usize) -> io::Result<Vec<u8>> {
            let _guard = Foreign::new();
            poll_fn(|context| {
                let mut slot = slot();
                if let Some(got) = slot.got.take() {
                    slot.asked = false;
                    return Poll::Ready(got);
                }
                slot.waiting = Some(context.waker().clone());
                if !std::mem::replace(&mut slot.asked, true) {
                    std::thread::spawn(move || {
                        let mut bytes = vec![0; max];
                        let got = io::stdin().read(&mut bytes).map(|count| {
                            bytes.truncate(count);
                            bytes
                        });
                        let mut slot = self::slot();
                        slot.got = Some(got);
                        if let Some(waiting) = slot.waiting.take() {
                            waiting.wake();
                        }
                    });
                }
                Poll::Pending
            })
            .await
        }
    }

    pub struct ConsoleOut(Which);

    impl ConsoleOut {
        pub fn new(which: Which) -> Self {
            Self(which)
        }

        /// Writes all of it, however long that takes.
        pub fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
            match self.0 {
                Which::Out => {
                    let mut stdout = io::stdout().lock();
                    stdout.write_all(bytes)?;
                    stdout.flush()?;
                }
                Which::Err => io::stderr().lock().write_all(bytes)?,
            }
            Ok(bytes.len())
        }

        pub async fn writable(&self) {}

        /// Nothing is left here.
        pub async fn hand_over(&self) -> io::Result<()> {
            Ok(())
        }
    }
}
