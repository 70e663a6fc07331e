//! Files and commands that a program reads and writes by name, open until it closes them or ends.
//!
//! A command is `sh -c` as a task of this instance, joined by a bounded pipe.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};

use crate::applet::{self, Output};
use crate::executor::{self, Task};
use crate::tools::call::{Call, Stop, reason};

use super::input::Records;
use super::syntax_tree::Redirect;

/// Open at once.
const OPEN_MAX: usize = 200;

#[derive(Default)]
pub struct Streams {
    writers: BTreeMap<String, (Output, Option<Task<i32>>)>,
    readers: BTreeMap<String, (Records, Option<Task<i32>>)>,
}

fn command(call: &Call, text: &str) -> (Vec<String>, applet::Io) {
    let argv = ["sh", "-c", text].map(str::to_owned).to_vec();
    (argv, call.io.clone())
}

impl Streams {
    pub async fn write(
        &mut self,
        call: &mut Call,
        redirect: Redirect,
        name: &str,
        text: &[u8],
    ) -> Result<(), Stop> {
        match name {
            "/dev/stdout" | "-" if redirect != Redirect::Pipe => return call.out(text).await,
            "/dev/stderr" if redirect != Redirect::Pipe => {
                // What cannot be complained of is not worth ending for.
                let _ = call.io.stderr.write_all(text).await;
                return Ok(());
            }
            _ => {}
        }
        if !self.writers.contains_key(name) {
            self.room()?;
            let opened = match redirect {
                Redirect::Pipe => {
                    call.io.stdout.flush().await.map_err(Stop::Output)?;
                    let (output, input) = applet::pipe();
                    let (argv, mut io) = command(call, name);
                    io.stdin = input;
                    (output, Some(executor::spawn(applet::run(argv, io))))
                }
                Redirect::Write | Redirect::Append => {
                    let append = redirect == Redirect::Append;
                    let opened = OpenOptions::new()
                        .create(true)
                        .write(true)
                        .append(append)
                        .truncate(!append)
                        .open(call.path(name));
                    let file = opened.map_err(|error| {
                        Stop::Failed(1, format!("can't open '{name}': {}", reason(&error)))
                    })?;
                    (Output::file(file), None)
                }
            };
            self.writers.insert(name.to_owned(), opened);
        }
        match self.writers.get_mut(name) {
            Some((output, _)) => output.write_all(text).await.map_err(Stop::Output),
            None => Ok(()),
        }
    }

    fn room(&self) -> Result<(), Stop> {
        match self.writers.len() + self.readers.len() >= OPEN_MAX {
            true => Err(Stop::Failed(
                1,
                format!("{OPEN_MAX} files and commands are open; close() some"),
            )),
            false => Ok(()),
        }
    }

    /// A file to read; `None` if it cannot be opened.
    pub fn file(&mut self, call: &Call, name: &str) -> Result<Option<&mut Records>, Stop> {
        if !self.readers.contains_key(name) {
            self.room()?;
            let input = match name {
                "-" | "/dev/stdin" => call.io.stdin.clone(),
                name => match File::open(call.path(name)) {
                    Ok(file) => applet::Input::file(file),
                    Err(_) => return Ok(None),
                },
            };
            self.readers
                .insert(name.to_owned(), (Records::new(input), None));
        }
        Ok(self.readers.get_mut(name).map(|(records, _)| records))
    }

    /// A command whose output is read.
    pub async fn command(
        &mut self,
        call: &mut Call,
        text: &str,
    ) -> Result<Option<&mut Records>, Stop> {
        if !self.readers.contains_key(text) {
            self.room()?;
            call.io.stdout.flush().await.map_err(Stop::Output)?;
            let (output, input) = applet::pipe();
            let (argv, mut io) = command(call, text);
            io.stdout = output;
            let task = executor::spawn(applet::run(argv, io));
            self.readers
                .insert(text.to_owned(), (Records::new(input), Some(task)));
        }
        Ok(self.readers.get_mut(text).map(|(records, _)| records))
    }

    /// Runs a command to its end.
    pub async fn system(&mut self, call: &mut Call, text: &str) -> Result<i32, Stop> {
        self.flush(call).await?;
        let (argv, io) = command(call, text);
        Ok(applet::run(argv, io).await)
    }

    pub async fn flush(&mut self, call: &mut Call) -> Result<(), Stop> {
        call.io.stdout.flush().await.map_err(Stop::Output)?;
        for (output, _) in self.writers.values_mut() {
            output.flush().await.map_err(Stop::Output)?;
        }
        Ok(())
    }

    /// Closes what has this name: -1 if nothing has, else the code of a command, else 0.
    pub async fn close(&mut self, name: &str) -> i32 {
        let writer = self.writers.remove(name);
        let reader = self.readers.remove(name);
        let mut code = if writer.is_none() && reader.is_none() {
            -1
        } else {
            0
        };
        if let Some((mut output, task)) = writer {
            if output.flush().await.is_err() {
                code = -1;
            }
            drop(output);
            if let Some(task) = task {
                code = task.await;
            }
        }
        if let Some((records, task)) = reader {
            drop(records);
            if let Some(task) = task {
                code = task.await;
            }
        }
        code
    }

    /// Closes all; whether everything was written.
    pub async fn close_all(&mut self, call: &mut Call) -> bool {
        let mut well = call.io.stdout.flush().await.is_ok();
        // A command that is only read is stopped by dropping it.
        self.readers.clear();
        while let Some((_, (mut output, task))) = self.writers.pop_first() {
            well &= output.flush().await.is_ok();
            drop(output);
            if let Some(task) = task {
                task.await;
            }
        }
        well
    }
}
