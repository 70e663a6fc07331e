//! What the reader sees while work goes on: a numbered line for each step, and what it waits for.
//!
//! On a terminal a spinner shows the current state; elsewhere, and with `CI` set, every change is a line. Cargo shows
//! its own progress on the same stderr. Everything here goes to stderr: stdout belongs to results.

use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::Failure;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// A command's steps, counted.
pub struct Steps {
    done: usize,
    total: usize,
}

impl Steps {
    pub fn new(total: usize) -> Self {
        Self { done: 0, total }
    }

    /// Announces the next step, runs it, says how long it took.
    pub fn step<T>(&mut self, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.done += 1;
        eprintln!("[{}/{}] {what}", self.done, self.total);
        let started = Instant::now();
        let result = work()?;
        eprintln!("      done in {:.1} s", started.elapsed().as_secs_f64());
        Ok(result)
    }
}

/// What is being waited for right now.
pub struct Waiting {
    bar: ProgressBar,
    last: String,
}

impl Waiting {
    pub fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() && std::env::var_os("CI").is_none() {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("      {spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            bar
        } else {
            ProgressBar::hidden()
        };
        Self {
            bar,
            last: String::new(),
        }
    }

    /// Shows `state`, once for as long as it stays the same.
    pub fn show(&mut self, state: impl Into<String>) {
        let state = state.into();
        if state == self.last {
            return;
        }
        if self.bar.is_hidden() {
            eprintln!("      {state}");
        } else {
            self.bar.set_message(state.clone());
        }
        self.last = state;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// How much of a known number is done.
pub struct Counting {
    bar: ProgressBar,
    total: u64,
    what: &'static str,
    /// Tenths that were told where there is no terminal.
    told: u64,
}

impl Counting {
    pub fn new(total: u64, what: &'static str) -> Self {
        let bar = if std::io::stderr().is_terminal() && std::env::var_os("CI").is_none() {
            let bar = ProgressBar::new(total);
            let template = "      {bar:30} {pos} of {len} {msg}, {elapsed}, {eta} to go";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(what);
            bar.enable_steady_tick(TICK);
            bar
        } else {
            ProgressBar::hidden()
        };
        Self {
            bar,
            total,
            what,
            told: 0,
        }
    }

    pub fn show(&mut self, done: u64) {
        self.bar.set_position(done);
        let tenths = done * 10 / self.total.max(1);
        if self.bar.is_hidden() && tenths > self.told {
            self.told = tenths;
            eprintln!("      {done} of {} {}", self.total, self.what);
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Cargo of the toolchain that runs us, free of what `cargo run` put into the environment: a nested build would take
/// its changes for reasons to build again.
pub fn cargo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    clean_environment(&mut command);
    command
}

/// Takes away what `cargo run` sets for the program it runs.
pub fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    // Cargo prepends the directories of its own build here.
    command.env_remove("LD_LIBRARY_PATH");
}

/// Runs a command to its end with its output shown.
pub fn run(command: &mut Command, next: &'static str) -> Result<()> {
    let name = describe(command);
    // What it prints is progress, not a result.
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot start {name}"))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("`{name}` failed ({status})"), next).into())
}

/// Runs a command to its end and returns what it printed; its stderr becomes part of a failure.
pub fn read(command: &mut Command) -> Result<String> {
    let name = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr)
        .trim()
        .replace('\n', "\n  ");
    anyhow::bail!("`{name}` failed: {errors}")
}

/// The command as one would type it, without paths that only this machine has.
pub fn describe(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let mut text = program.to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text += &argument.to_string_lossy();
    }
    text
}
