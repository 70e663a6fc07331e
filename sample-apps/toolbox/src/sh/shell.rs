//! The state of one shell or subshell.
//!
//! A subshell is a copy: nothing that it does to its state reaches the shell that it came from. What is large is shared
//! until one of both writes.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;

use super::jobs::Jobs;
use super::options::Options;
use super::parser::Aliases;
use super::process::{INT, Process, Signal};
use super::syntax_tree::Command;
use super::variables::{Variable, Variables};
use crate::applet::{Input, Io, Output};
use crate::executor::{self, Either};
use crate::stream::{self, Stream};
use crate::text;

/// How deep commands may run inside of each other, calls and subshells included.
pub const NESTING_MAX: u32 = 1500;

/// So many of them are polled by one task; what is deeper gets a task of its own, since a component's stack is small.
pub const POLLED_MAX: u32 = 12;

/// A variable, a word or the output of a substitution may be this long.
pub const TEXT_BYTES_MAX: usize = 16 << 20;

/// So many commands run before others get their turn.
const COMMANDS_PER_TURN: u32 = 64;

/// Why a command does not just end with a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Exit(i32),
    Return(i32),
    Break(u32),
    Continue(u32),
    /// An error of the shell, already told: it ends unless a person types.
    Fail(i32),
    /// ^C in an interactive shell.
    Interrupted,
}

pub type Outcome<T = i32> = Result<T, Flow>;

pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Code of a shell whose output nobody reads any more, as SIGPIPE gives.
pub const BROKEN_PIPE: i32 = 141;

pub struct Shell {
    pub variables: Variables,
    pub functions: Rc<BTreeMap<String, Rc<Command>>>,
    pub aliases: Rc<Aliases>,
    pub arguments: Rc<Vec<String>>,
    pub arg0: String,
    pub options: Options,
    /// `$?`
    pub status: i32,
    /// The status of the last substitution in the command that runs.
    pub substituted: Option<i32>,
    /// `$!`
    pub last_job: Option<u32>,
    /// `$$`
    pub main_pid: u32,
    pub descriptors: BTreeMap<u32, Rc<Stream>>,
    pub cwd: PathBuf,
    pub umask: u32,
    pub traps: BTreeMap<Signal, String>,
    pub jobs: Jobs,
    pub process: Rc<Process>,
    /// What local variables were before, one list a running function.
    pub scopes: Vec<Vec<(String, Option<Variable>)>>,
    /// How many loops of this function are around.
    pub loops: u32,
    /// How many conditions are around, in which `set -e` does not end the shell.
    pub tested: u32,
    pub nesting: u32,
    /// How many of these are polled by the task that polls this one.
    pub polled: u32,
    /// How far `getopts` is inside of an argument.
    pub getopts: (usize, usize),
    /// The builtin that runs, for messages.
    pub command_name: Option<String>,
    pub in_trap: bool,
    turns: u32,
}

impl Shell {
    pub fn new(arg0: String, io: Io) -> Self {
        let mut variables = Variables::of_environment(&io.env);
        let process = Process::new(None);
        let cwd = io.cwd;
        let mut default = |name: &str, value: String| {
            if variables.get(name).is_none() {
                // A new variable is not readonly.
                let _ = variables.set(name, value);
            }
        };
        default("PATH", "/sbin:/usr/sbin:/bin:/usr/bin".to_owned());
        default("PS1", "\\w \\$ ".to_owned());
        default("PS2", "> ".to_owned());
        default("PS4", "+ ".to_owned());
        default("PWD", cwd.to_string_lossy().into_owned());
        let _ = variables.set("IFS", " \t\n".to_owned());
        let _ = variables.set("OPTIND", "1".to_owned());
        let _ = variables.set("PWD", cwd.to_string_lossy().into_owned());
        variables.entry("IFS").exported = false;
        Self {
            variables,
            functions: Rc::default(),
            aliases: Rc::default(),
            arguments: Rc::default(),
            arg0,
            options: Options::default(),
            status: 0,
            substituted: None,
            last_job: None,
            main_pid: process.pid,
            descriptors: BTreeMap::from([(0, io.stdin.0), (1, io.stdout.0), (2, io.stderr.0)]),
            cwd,
            umask: 0o022,
            traps: BTreeMap::new(),
            jobs: Jobs::default(),
            process,
            scopes: Vec::new(),
            loops: 0,
            tested: 0,
            nesting: 0,
            polled: 0,
            getopts: (1, 0),
            command_name: None,
            in_trap: false,
            turns: 0,
        }
    }

    /// A copy that runs on its own, with its traps reset and no jobs.
    pub fn subshell(&self) -> Self {
        let mut options = self.options;
        options.set("interactive", false);
        options.set("monitor", false);
        Self {
            variables: self.variables.clone(),
            functions: Rc::clone(&self.functions),
            aliases: Rc::clone(&self.aliases),
            arguments: Rc::clone(&self.arguments),
            arg0: self.arg0.clone(),
            options,
            status: self.status,
            substituted: None,
            last_job: self.last_job,
            main_pid: self.main_pid,
            descriptors: self.descriptors.clone(),
            cwd: self.cwd.clone(),
            umask: self.umask,
            // What is ignored stays ignored.
            traps: self
                .traps
                .iter()
                .filter(|(_, action)| action.is_empty())
                .map(|(signal, action)| (*signal, action.clone()))
                .collect(),
            jobs: Jobs::default(),
            process: Process::new(Some(&self.process)),
            scopes: self.scopes.clone(),
            loops: self.loops,
            tested: self.tested,
            nesting: self.nesting,
            polled: 0,
            getopts: self.getopts,
            command_name: None,
            in_trap: false,
            turns: 0,
        }
    }

    /// What stands for the shell while a task has it.
    pub fn stand_in(&self) -> Self {
        Self {
            process: Rc::clone(&self.process),
            ..self.subshell()
        }
    }

    pub fn is_interactive(&self) -> bool {
        self.options.has("interactive")
    }

    pub fn descriptor(&self, number: u32) -> Rc<Stream> {
        self.descriptors
            .get(&number)
            .map_or_else(Stream::closed, Rc::clone)
    }

    /// What a command is started with.
    pub fn io(&self) -> Io {
        Io {
            stdin: Input(self.descriptor(0)),
            stdout: Output(self.descriptor(1)),
            stderr: Output(self.descriptor(2)),
            env: Rc::new(self.variables.environment()),
            cwd: self.cwd.clone(),
        }
    }

    /// Writes a builtin's output; a reader that left ends the shell as SIGPIPE would.
    pub async fn print(&mut self, text: &str) -> Outcome {
        self.print_bytes(&text::to_bytes(text)).await
    }

    pub async fn print_bytes(&mut self, bytes: &[u8]) -> Outcome {
        let stream = self.descriptor(1);
        match self.guard(async { stream.write_all(bytes).await }).await? {
            Ok(()) => Ok(0),
            Err(error)
                if error.kind() == io::ErrorKind::BrokenPipe
                    && !self.process.ignores(super::process::PIPE) =>
            {
                Err(Flow::Exit(BROKEN_PIPE))
            }
            Err(error) => {
                let name = self.command_name.take();
                self.complain(&format!("write error: {}", super::words(&error)))
                    .await;
                self.command_name = name;
                Ok(1)
            }
        }
    }

    /// Says an error in busybox' form: the shell's name, the builtin's name, the line, the words.
    pub async fn complain(&mut self, message: &str) {
        let mut text = format!("{}: ", self.arg0);
        if let Some(name) = self
            .command_name
            .as_ref()
            .filter(|name| **name != self.arg0)
        {
            text.push_str(name);
            text.push_str(": ");
        }
        if !self.is_interactive() && self.command_name.is_some() {
            text.push_str(&format!("line {}: ", self.variables.line));
        }
        text.push_str(message);
        text.push('\n');
        let stream = self.descriptor(2);
        // Nobody is left to tell.
        let _ = stream.write_all(&text::to_bytes(&text)).await;
    }

    /// Says an error and gives what ends the command.
    pub async fn fail<T>(&mut self, message: &str) -> Outcome<T> {
        self.complain(message).await;
        Err(Flow::Fail(2))
    }

    /// Lets others run now and then, and runs the traps of signals that came.
    pub async fn turn(&mut self) -> Outcome<()> {
        self.turns += 1;
        if self.turns >= COMMANDS_PER_TURN {
            self.turns = 0;
            executor::yield_now().await;
        }
        if self.process.is_called() {
            return Box::pin(self.run_traps()).await;
        }
        Ok(())
    }

    /// Waits for something that ^C ends in an interactive shell.
    pub async fn guard<T>(&self, work: impl Future<Output = T>) -> Outcome<T> {
        if self.traps.contains_key(&INT) {
            return Ok(work.await);
        }
        match executor::either(work, self.process.interrupted()).await {
            Either::First(value) => Ok(value),
            Either::Second(()) => {
                self.process.take();
                Err(Flow::Interrupted)
            }
        }
    }

    /// Waits for a command, which ^C ends also where a trap is set for that.
    pub async fn guard_command(&self, work: impl Future<Output = i32>) -> Outcome {
        match executor::either(work, self.process.interrupted()).await {
            Either::First(status) => Ok(status),
            Either::Second(()) if self.traps.contains_key(&INT) => Ok(128 + i32::from(INT)),
            Either::Second(()) => {
                self.process.take();
                Err(Flow::Interrupted)
            }
        }
    }

    /// Runs what is set for signals that came.
    async fn run_traps(&mut self) -> Outcome<()> {
        while !self.in_trap {
            let Some(signal) = self.process.take() else {
                break;
            };
            match self.traps.get(&signal).cloned() {
                Some(action) => {
                    let status = self.status;
                    self.in_trap = true;
                    let outcome = self.eval(&action).await;
                    self.in_trap = false;
                    outcome?;
                    self.status = status;
                }
                None if signal == INT => return Err(Flow::Interrupted),
                None => {}
            }
        }
        Ok(())
    }

    /// Writes what output is kept, so that its order is that of the commands.
    pub async fn flush(&self) {
        stream::flush_all().await;
    }

    /// Sets a variable, or says why not.
    pub async fn assign(&mut self, name: &str, value: String) -> Outcome<()> {
        if value.len() > TEXT_BYTES_MAX {
            return self
                .fail(&format!(
                    "{name}: a value of more than {TEXT_BYTES_MAX} bytes"
                ))
                .await;
        }
        match self.variables.set(name, value) {
            Ok(()) => {
                if name == "OPTIND" {
                    let index = self
                        .variables
                        .get(name)
                        .and_then(|value| value.parse().ok());
                    self.getopts = (index.unwrap_or(1), 0);
                }
                Ok(())
            }
            Err(message) => self.fail(&message).await,
        }
    }

    /// Makes a variable local to the function that runs.
    pub fn localize(&mut self, name: &str) {
        let before = self.variables.variable(name).cloned();
        if let Some(scope) = self.scopes.last_mut() {
            if !scope.iter().any(|(known, _)| known == name) {
                scope.push((name.to_owned(), before));
            }
        }
    }

    pub fn leave_scope(&mut self) {
        for (name, before) in self.scopes.pop().unwrap_or_default().into_iter().rev() {
            self.variables.restore(&name, before);
        }
    }
}
