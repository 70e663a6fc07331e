//! Ctrl-C and SIGTERM: passed on to the clusters that run, so that they drain.
//!
//! A cluster is in a process group of its own, where the terminal's Ctrl-C does not reach it: it hears of each interrupt
//! once, from here. The second one ends it at once.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use anyhow::Result;

static CAME: AtomicBool = AtomicBool::new(false);
static CLUSTERS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn clusters() -> MutexGuard<'static, Vec<u32>> {
    CLUSTERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on an interrupt drains the clusters instead of ending this process.
pub fn watch() -> Result<()> {
    static WATCHED: Once = Once::new();
    let mut result = Ok(());
    WATCHED.call_once(|| result = ctrlc::set_handler(pass_on));
    Ok(result?)
}

fn pass_on() {
    let again = CAME.swap(true, Ordering::SeqCst);
    let what = if again {
        "stopping at once"
    } else {
        "draining; a second Ctrl-C stops at once"
    };
    eprintln!("\n{what}");
    clusters().iter().for_each(|process| send(*process));
}

/// Somebody asked this process to end.
pub fn came() -> bool {
    CAME.load(Ordering::SeqCst)
}

/// Interrupts reach this process from now on.
pub fn reach(process: u32) {
    clusters().push(process);
}

pub fn forget(process: u32) {
    clusters().retain(|known| *known != process);
}

/// Asks a process to end.
pub fn send(process: u32) {
    // The standard library has no signals but the one that cannot be handled.
    let _ = Command::new("kill")
        .args(["-INT", &process.to_string()])
        .status();
}
