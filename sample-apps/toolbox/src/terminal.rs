//! The line discipline of a terminal: what a kernel does between the keys and the program.
//!
//! Keys arrive raw. In line mode they are echoed, can be taken back (backspace, ^W, ^U) and reach the reader a line at
//! a time; ^D ends a line or the input, ^C interrupts whoever runs. In raw mode the reader gets every key as it comes.
//! Keys are read all the time, so that ^C works while nobody reads. Who does not read makes typing wait after
//! [`WAITING_BYTES_MAX`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::executor::{self, Either, Task};
use crate::stream::Stream;

/// What may wait to be read.
const WAITING_BYTES_MAX: usize = 64 << 10;

/// The code of a command that ^C ended, as that of a process that SIGINT ended.
pub const INTERRUPTED: i32 = 130;

const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const KILL_LINE: u8 = 0x15;
const KILL_WORD: u8 = 0x17;
const QUIT: u8 = 0x1C;
const DELETE: u8 = 0x7F;

pub struct Terminal {
    keys: Rc<Stream>,
    screen: Rc<Stream>,
    raw: Cell<bool>,
    /// How many shells deal with interrupts, of which the last one does.
    claims: Cell<u32>,
    interrupts: Cell<u64>,
    state: RefCell<State>,
    reading: RefCell<Option<Task<()>>>,
}

#[derive(Default)]
struct State {
    /// The line that is being typed.
    line: Vec<u8>,
    /// To be read; an empty piece is an end of the input.
    pieces: VecDeque<Vec<u8>>,
    bytes: usize,
    closed: bool,
    waiting: Vec<Waker>,
}

impl State {
    fn push(&mut self, piece: Vec<u8>) {
        self.bytes += piece.len();
        self.pieces.push_back(piece);
        self.wake();
    }

    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }

    fn wait<T>(&mut self, context: &Context<'_>) -> Poll<T> {
        self.waiting.push(context.waker().clone());
        Poll::Pending
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Terminal>>> = const { RefCell::new(None) };
}

/// Says which terminal the program has.
#[cfg_attr(
    not(target_os = "wasi"),
    allow(dead_code, reason = "natively the kernel has the terminal")
)]
pub fn set_current(terminal: &Rc<Terminal>) {
    CURRENT.with(|current| *current.borrow_mut() = Some(Rc::clone(terminal)));
}

/// Runs an applet until it is done or, where no shell deals with that, ^C is pressed.
pub async fn interruptible(applet: impl Future<Output = i32>) -> i32 {
    let Some(terminal) = CURRENT.with(|current| current.borrow().clone()) else {
        return applet.await;
    };
    terminal.start();
    let interrupted = async {
        loop {
            terminal.interrupted().await;
            if terminal.claims.get() == 0 {
                return;
            }
        }
    };
    match executor::either(applet, interrupted).await {
        Either::First(code) => code,
        Either::Second(()) => INTERRUPTED,
    }
}

impl Terminal {
    /// A terminal of raw keys and a screen, which is a [`Stream::screen`].
    pub fn new(keys: Rc<Stream>, screen: Rc<Stream>) -> Rc<Self> {
        Rc::new(Self {
            keys,
            screen,
            raw: Cell::new(false),
            claims: Cell::new(0),
            interrupts: Cell::new(0),
            state: RefCell::default(),
            reading: RefCell::default(),
        })
    }

    pub fn screen(&self) -> &Rc<Stream> {
        &self.screen
    }

    /// Who calls deals with ^C while the claim lives, unless another one claims after it.
    pub fn claim(terminal: &Rc<Self>) -> Claim {
        let level = terminal.claims.get() + 1;
        terminal.claims.set(level);
        Claim {
            terminal: Rc::clone(terminal),
            level,
        }
    }

    /// Starts to read keys, once.
    pub fn start(self: &Rc<Self>) {
        let mut reading = self.reading.borrow_mut();
        if reading.is_none() {
            // A weak reference in between keys: the terminal owns the task.
            let this = Rc::downgrade(self);
            *reading = Some(executor::spawn(async move {
                loop {
                    let Some(terminal) = this.upgrade() else {
                        return;
                    };
                    if !terminal.take_keys().await {
                        return;
                    }
                }
            }));
        }
    }

    pub fn set_raw(&self, raw: bool) {
        if self.raw.replace(raw) != raw && raw {
            let mut state = self.state.borrow_mut();
            let line = std::mem::take(&mut state.line);
            if !line.is_empty() {
                state.push(line);
            }
        }
    }

    /// Waits for the next ^C of line mode.
    pub async fn interrupted(&self) {
        let before = self.interrupts.get();
        poll_fn(|context| match self.interrupts.get() == before {
            true => self.state.borrow_mut().wait(context),
            false => Poll::Ready(()),
        })
        .await;
    }

    /// What was typed; nothing at an end.
    pub async fn read(self: &Rc<Self>, max: usize) -> io::Result<Vec<u8>> {
        self.start();
        // What was written shows before the person answers it.
        self.screen.flush().await?;
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            let Some(mut piece) = state.pieces.pop_front() else {
                return match state.closed {
                    true => Poll::Ready(Ok(Vec::new())),
                    false => state.wait(context),
                };
            };
            if piece.len() > max {
                let rest = piece.split_off(max);
                state.pieces.push_front(rest);
            }
            state.bytes = state.bytes.saturating_sub(piece.len());
            state.wake();
            Poll::Ready(Ok(piece))
        })
        .await
    }

    /// Reads keys once; false when no more will come.
    async fn take_keys(&self) -> bool {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            match state.bytes < WAITING_BYTES_MAX {
                true => Poll::Ready(()),
                false => state.wait(context),
            }
        })
        .await;
        let mut keys = [0; 1024];
        let count = self.keys.read(&mut keys).await.unwrap_or(0);
        if count == 0 {
            let mut state = self.state.borrow_mut();
            let line = std::mem::take(&mut state.line);
            if !line.is_empty() {
                state.push(line);
            }
            state.closed = true;
            state.wake();
            return false;
        }
        let keys = keys.get(..count).unwrap_or_default();
        if self.raw.get() {
            self.state.borrow_mut().push(keys.to_vec());
            return true;
        }
        let mut echo = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            self.cook(*key, &mut echo);
            // An interrupt may have brought the shell back: the rest is for its editor.
            if *key == INTERRUPT {
                executor::yield_now().await;
                if self.raw.get() {
                    let rest = keys.get(at + 1..).unwrap_or_default().to_vec();
                    if !rest.is_empty() {
                        self.state.borrow_mut().push(rest);
                    }
                    break;
                }
            }
        }
        // A screen that is gone shows nothing.
        let _ = self.screen.write_all(&echo).await;
        let _ = self.screen.flush().await;
        true
    }

    fn cook(&self, key: u8, echo: &mut Vec<u8>) {
        let mut state = self.state.borrow_mut();
        match key {
            INTERRUPT | QUIT => {
                echo.extend_from_slice(if key == QUIT { b"^\\\n" } else { b"^C\n" });
                state.line.clear();
                state.pieces.clear();
                state.bytes = 0;
                self.interrupts.set(self.interrupts.get() + 1);
                state.wake();
            }
            END => {
                let line = std::mem::take(&mut state.line);
                state.push(line);
            }
            DELETE | BACKSPACE => erase(&mut state.line, 1, echo),
            KILL_LINE => erase(&mut state.line, usize::MAX, echo),
            KILL_WORD => {
                let text = String::from_utf8_lossy(&state.line).into_owned();
                let kept = text.trim_end().rfind(' ').map_or(0, |at| at + 1);
                let count = text.get(kept..).unwrap_or_default().chars().count();
                erase(&mut state.line, count, echo);
            }
            b'\r' | b'\n' => {
                echo.push(b'\n');
                let mut line = std::mem::take(&mut state.line);
                line.push(b'\n');
                state.push(line);
            }
            _ if state.line.len() >= WAITING_BYTES_MAX => echo.push(0x07),
            0..0x20 if key != b'\t' => {
                echo.extend_from_slice(&[b'^', key + b'@']);
                state.line.push(key);
            }
            _ => {
                echo.push(key);
                state.line.push(key);
            }
        }
    }
}

/// See [`Terminal::claim`].
pub struct Claim {
    terminal: Rc<Terminal>,
    level: u32,
}

impl Claim {
    /// Waits for a ^C that is for this one.
    pub async fn interrupted(&self) {
        loop {
            self.terminal.interrupted().await;
            if self.terminal.claims.get() == self.level {
                return;
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.terminal.claims.set(self.level.saturating_sub(1));
    }
}

/// Takes the last characters of a line back.
fn erase(line: &mut Vec<u8>, count: usize, echo: &mut Vec<u8>) {
    for _ in 0..count {
        // A character's later bytes first.
        while line.last().is_some_and(|byte| byte & 0xC0 == 0x80) {
            line.pop();
        }
        match line.pop() {
            None => return,
            Some(0..0x20) => echo.extend_from_slice(b"\x08 \x08\x08 \x08"),
            Some(_) => echo.extend_from_slice(b"\x08 \x08"),
        }
    }
}
