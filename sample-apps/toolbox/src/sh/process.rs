//! What a process is here: a shell or subshell that has a number and gets signals.
//!
//! A signal that is neither caught nor ignored ends the task; a caught one waits until the shell looks for it. Nothing
//! outside of the program can send signals, except that a terminal's ^C is SIGINT.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use crate::executor::{self, Either};

pub type Signal = u8;

pub const INT: Signal = 2;
pub const KILL: Signal = 9;
pub const PIPE: Signal = 13;
pub const TERM: Signal = 15;

/// Names without SIG, by number from 1 on.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// What is ignored unless caught. Stopping is among it: a task cannot be stopped.
const HARMLESS: [&str; 8] = [
    "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "WINCH",
];

/// The signal of a name, with or without SIG, or of a number; 0 is `EXIT`.
pub fn signal(text: &str) -> Option<Signal> {
    if let Ok(number) = text.parse::<Signal>() {
        return Some(number).filter(|number| *number < 65);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if name == "EXIT" {
        return Some(0);
    }
    let place = NAMES.iter().position(|known| *known == name)?;
    Some(place as Signal + 1)
}

pub fn name(signal: Signal) -> String {
    match usize::from(signal).checked_sub(1) {
        None => "EXIT".to_owned(),
        Some(place) => NAMES
            .get(place)
            .map_or_else(|| signal.to_string(), |name| (*name).to_owned()),
    }
}

pub fn names() -> &'static [&'static str] {
    &NAMES
}

#[derive(Default)]
pub struct Process {
    pub pid: u32,
    pending: RefCell<BTreeSet<Signal>>,
    caught: RefCell<BTreeSet<Signal>>,
    ignored: RefCell<BTreeSet<Signal>>,
    waiting: RefCell<Vec<Waker>>,
    /// Which signal ended it.
    killed: Cell<Option<Signal>>,
}

thread_local! {
    static NEXT: Cell<u32> = Cell::new(std::process::id().max(1));
    static ALL: RefCell<BTreeMap<u32, Weak<Process>>> = const { RefCell::new(BTreeMap::new()) };
}

/// The process of that number, if it still runs.
pub fn find(pid: u32) -> Option<Rc<Process>> {
    ALL.with(|all| all.borrow().get(&pid).and_then(Weak::upgrade))
}

impl Process {
    /// A new process; it ignores what its parent does.
    pub fn new(parent: Option<&Process>) -> Rc<Self> {
        let pid = NEXT.with(|next| next.replace(next.get().checked_add(1).unwrap_or(1)));
        let process = Rc::new(Self {
            pid,
            ignored: RefCell::new(
                parent
                    .map(|parent| parent.ignored.borrow().clone())
                    .unwrap_or_default(),
            ),
            ..Self::default()
        });
        ALL.with(|all| {
            let mut all = all.borrow_mut();
            all.retain(|_, process| process.strong_count() > 0);
            all.insert(pid, Rc::downgrade(&process));
        });
        process
    }

    pub fn send(&self, signal: Signal) {
        let caught = self.caught.borrow().contains(&signal);
        let ignored = self.ignored.borrow().contains(&signal)
            || !caught && HARMLESS.contains(&name(signal).as_str());
        if signal == 0 || ignored && signal != KILL {
            return;
        }
        self.pending.borrow_mut().insert(signal);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// What happens from now on when that signal comes.
    pub fn set(&self, signal: Signal, caught: bool, ignored: bool) {
        let put = |set: &RefCell<BTreeSet<Signal>>, wanted| match wanted {
            true => set.borrow_mut().insert(signal),
            false => set.borrow_mut().remove(&signal),
        };
        put(&self.caught, caught);
        put(&self.ignored, ignored);
    }

    pub fn ignores(&self, signal: Signal) -> bool {
        self.ignored.borrow().contains(&signal)
    }

    fn fatal(&self) -> Option<Signal> {
        let caught = self.caught.borrow();
        self.pending
            .borrow()
            .iter()
            .find(|signal| **signal == KILL || !caught.contains(signal))
            .copied()
    }

    /// A caught signal that came.
    pub fn take(&self) -> Option<Signal> {
        let caught = self.caught.borrow();
        let mut pending = self.pending.borrow_mut();
        let signal = pending
            .iter()
            .find(|signal| caught.contains(signal))
            .copied()?;
        pending.remove(&signal);
        Some(signal)
    }

    /// What a shell says of a process that a signal ended; nothing of the usual ends.
    pub fn epitaph(&self) -> Option<&'static str> {
        Some(match name(self.killed.get()?).as_str() {
            "HUP" => "Hangup",
            "QUIT" => "Quit",
            "ABRT" => "Aborted",
            "KILL" => "Killed",
            "USR1" => "User defined signal 1",
            "USR2" => "User defined signal 2",
            "ALRM" => "Alarm clock",
            "TERM" => "Terminated",
            _ => return None,
        })
    }

    pub fn has(&self, signal: Signal) -> bool {
        self.pending.borrow().contains(&signal)
    }

    /// Whether a caught signal waits.
    pub fn is_called(&self) -> bool {
        let caught = self.caught.borrow();
        self.pending
            .borrow()
            .iter()
            .any(|signal| caught.contains(signal))
    }

    async fn until<T>(&self, mut ready: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| match ready() {
            Some(value) => Poll::Ready(value),
            None => {
                self.waiting.borrow_mut().push(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// Waits for a caught signal.
    pub async fn called(&self) {
        self.until(|| self.is_called().then_some(())).await;
    }

    /// Waits for that signal to be caught.
    pub async fn interrupted(&self) {
        self.until(|| (self.has(INT) && self.caught.borrow().contains(&INT)).then_some(()))
            .await;
    }

    /// Runs this process' work until it is done or a signal ends it; its status.
    pub async fn run(&self, work: impl Future<Output = i32>) -> i32 {
        let killed = self.until(|| self.fatal());
        match executor::either(killed, work).await {
            Either::First(signal) => {
                self.killed.set(Some(signal));
                128 + i32::from(signal)
            }
            Either::Second(status) => status,
        }
    }
}
