//! Simple commands: a name is looked up and run with its arguments, assignments and redirections.

use std::fs::Metadata;
use std::path::PathBuf;
use std::rc::Rc;

use super::builtin::{self, Builtin};
use super::shell::{CALLS_MAX, Flow, Outcome, Shell};
use super::syntax_tree::{Assignment, Command, Redirect, Word};
use super::{parser, quote};
use crate::applet::{self, Applet};
use crate::text;

/// What a command's name means.
pub enum Meaning {
    Special(Builtin),
    Function(Rc<Command>),
    Builtin(Builtin),
    Applet(Applet),
    /// A file, to be read as a script.
    File(PathBuf),
    /// Not to be run: the words and the status.
    Nothing(String, i32),
}

fn is_script(metadata: &Metadata) -> bool {
    metadata.is_file() && super::is_executable(metadata)
}

/// Builtins whose arguments may be assignments, which are not split.
const DECLARING: [&str; 4] = ["export", "readonly", "local", "alias"];

/// Builtins whose errors do not say their names, as in busybox those that are applets too.
const UNNAMED: [&str; 6] = ["[", "[[", "echo", "kill", "printf", "test"];

impl Shell {
    pub async fn run_simple(
        &mut self,
        assignments: &[Assignment],
        words: &[Word],
        redirects: &[Redirect],
    ) -> Outcome {
        self.substituted = None;
        let arguments = self.command_words(words).await?;
        if arguments.is_empty() {
            return self.run_assignments(assignments, redirects).await;
        }
        let name = arguments.first().map(String::as_str).unwrap_or_default();
        let meaning = self.meaning(name, true);
        let is_special = matches!(meaning, Meaning::Special(_));
        let saved = match self.redirect(redirects).await? {
            Ok(saved) => saved,
            // An error of a special builtin ends the shell.
            Err(status) if is_special && !self.is_interactive() => return Err(Flow::Fail(status)),
            Err(status) => return Ok(status),
        };
        let outcome = self
            .run_with(assignments, arguments, meaning, is_special)
            .await;
        self.flush().await;
        match (is_special, &outcome) {
            // `exec` alone: the redirections stay.
            (true, Ok(_))
                if words.len() == 1 && words.first().and_then(Word::as_text) == Some("exec") => {}
            _ => self.put_back(saved),
        }
        outcome
    }

    /// Expands words; assignments that a declaring builtin gets stay whole.
    async fn command_words(&mut self, words: &[Word]) -> Outcome<Vec<String>> {
        let mut arguments = Vec::with_capacity(words.len());
        for word in words {
            let declares = arguments
                .first()
                .is_some_and(|name: &String| DECLARING.contains(&name.as_str()));
            match declares.then(|| parser::assignment(word)).flatten() {
                Some(assignment) => {
                    let value = self.expand_text(&assignment.value).await?;
                    arguments.push(format!("{}={value}", assignment.name));
                }
                None => self.expand_word(word, &mut arguments).await?,
            }
        }
        Ok(arguments)
    }

    /// Assignments without a command: they stay.
    async fn run_assignments(
        &mut self,
        assignments: &[Assignment],
        redirects: &[Redirect],
    ) -> Outcome {
        let saved = match self.redirect(redirects).await? {
            Ok(saved) => saved,
            Err(status) => return Ok(status),
        };
        self.put_back(saved);
        let mut traced = Vec::new();
        for assignment in assignments {
            let value = self.assigned(assignment).await?;
            if self.options.has("xtrace") {
                traced.push(format!("{}={}", assignment.name, quote::if_needed(&value)));
            }
            self.assign(&assignment.name, value).await?;
        }
        self.trace(&traced).await?;
        Ok(self.substituted.unwrap_or(0))
    }

    async fn assigned(&mut self, assignment: &Assignment) -> Outcome<String> {
        let value = self.expand_text(&assignment.value).await?;
        Ok(match assignment.append {
            true => {
                self.variables
                    .get(&assignment.name)
                    .unwrap_or_default()
                    .to_owned()
                    + &value
            }
            false => value,
        })
    }

    async fn trace(&mut self, words: &[String]) -> Outcome<()> {
        if !self.options.has("xtrace") || words.is_empty() {
            return Ok(());
        }
        let prefix = self.prompt("PS4").await;
        let stream = self.descriptor(2);
        let line = format!("{prefix}{}\n", words.join(" "));
        // Nobody is left to tell.
        let _ = stream.write_all(&text::to_bytes(&line)).await;
        Ok(())
    }

    async fn run_with(
        &mut self,
        assignments: &[Assignment],
        arguments: Vec<String>,
        meaning: Meaning,
        is_special: bool,
    ) -> Outcome {
        let mut traced = Vec::new();
        // Prefixed assignments last as long as the command; with a special builtin they stay.
        let mut before = Vec::new();
        let mut failed = None;
        for assignment in assignments {
            let value = match self.assigned(assignment).await {
                Ok(value) => value,
                Err(flow) => {
                    failed = Some(flow);
                    break;
                }
            };
            if self.options.has("xtrace") {
                traced.push(format!("{}={}", assignment.name, quote::if_needed(&value)));
            }
            if !is_special {
                before.push((
                    assignment.name.clone(),
                    self.variables.variable(&assignment.name).cloned(),
                ));
            }
            if let Err(flow) = self.assign(&assignment.name, value).await {
                failed = Some(flow);
                break;
            }
            if !is_special {
                self.variables.entry(&assignment.name).exported = true;
            }
        }
        let outcome = match failed {
            Some(flow) => Err(flow),
            None => {
                if self.options.has("xtrace") {
                    traced.extend(arguments.iter().map(|argument| quote::if_needed(argument)));
                    self.trace(&traced).await?;
                }
                self.run_meaning(meaning, arguments).await
            }
        };
        for (name, variable) in before.into_iter().rev() {
            self.variables.restore(&name, variable);
        }
        outcome
    }

    pub async fn run_meaning(&mut self, meaning: Meaning, arguments: Vec<String>) -> Outcome {
        match meaning {
            Meaning::Special(builtin) => self.run_builtin(builtin, arguments).await,
            // Its errors end only itself.
            Meaning::Builtin(builtin) => match self.run_builtin(builtin, arguments).await {
                Err(Flow::Fail(status)) => Ok(status),
                outcome => outcome,
            },
            Meaning::Function(body) => self.call(&body, arguments).await,
            Meaning::Applet(applet) => {
                let running = applet(arguments, self.io());
                self.guard_command(running).await
            }
            Meaning::File(path) => self.run_file(path, arguments).await,
            Meaning::Nothing(message, status) => {
                self.complain(&message).await;
                Ok(status)
            }
        }
    }

    async fn run_builtin(&mut self, builtin: Builtin, arguments: Vec<String>) -> Outcome {
        let name = arguments.first().cloned().unwrap_or_default();
        let outer = self.command_name.clone();
        self.command_name = (!UNNAMED.contains(&name.as_str())).then_some(name);
        let outcome = builtin(self, arguments).await;
        self.command_name = outer;
        outcome
    }

    /// Looks a name up. Without `functions`, these are passed over.
    pub fn meaning(&self, name: &str, functions: bool) -> Meaning {
        if let Some(special) = builtin::special(name) {
            return Meaning::Special(special);
        }
        if let Some(function) = self.functions.get(name).filter(|_| functions) {
            return Meaning::Function(Rc::clone(function));
        }
        if let Some(builtin) = builtin::regular(name) {
            return Meaning::Builtin(builtin);
        }
        if let Some(applet) = applet::find(name).filter(|_| !name.is_empty()) {
            return Meaning::Applet(applet);
        }
        if !name.contains('/') {
            return match self.on_path(name, is_script) {
                Some(file) => Meaning::File(file),
                None if self.on_path(name, |_| true).is_some() => {
                    Meaning::Nothing(format!("{name}: Permission denied"), 127)
                }
                None => Meaning::Nothing(format!("{name}: not found"), 127),
            };
        }
        let path = self.cwd.join(name);
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Meaning::Nothing(format!("{name}: not found"), 127)
            }
            Err(error) => Meaning::Nothing(format!("{name}: {}", super::words(&error)), 126),
            Ok(metadata) if !is_script(&metadata) => {
                Meaning::Nothing(format!("{name}: Permission denied"), 126)
            }
            Ok(_) => Meaning::File(path),
        }
    }

    /// What has that name in one of `PATH`'s folders and will do.
    fn on_path(&self, name: &str, will_do: fn(&Metadata) -> bool) -> Option<PathBuf> {
        let path = self.variables.get("PATH").unwrap_or_default();
        let mut files = path
            .split(':')
            .map(|folder| self.cwd.join(folder).join(name));
        files.find(|file| std::fs::metadata(file).is_ok_and(|metadata| will_do(&metadata)))
    }

    /// Runs a file as a script in a shell of its own.
    async fn run_file(&mut self, path: PathBuf, arguments: Vec<String>) -> Outcome {
        let name = arguments.first().cloned().unwrap_or_default();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.complain(&format!("{name}: {}", super::words(&error)))
                    .await;
                return Ok(126);
            }
        };
        let head = bytes.get(..256.min(bytes.len())).unwrap_or_default();
        if head.contains(&0) {
            self.complain(&format!("{name}: Exec format error")).await;
            return Ok(126);
        }
        // `#!/bin/sh` and the like; another interpreter is an applet.
        if let Some(line) = head.strip_prefix(b"#!") {
            let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line).trim().to_owned();
            let mut interpreter: Vec<String> = line
                .splitn(2, char::is_whitespace)
                .map(|word| word.trim().to_owned())
                .collect();
            let first = interpreter.first().cloned().unwrap_or_default();
            let Some(applet) = applet::find(&first) else {
                self.complain(&format!("{name}: not found")).await;
                return Ok(127);
            };
            interpreter.push(path.to_string_lossy().into_owned());
            interpreter.extend(arguments.into_iter().skip(1));
            return self.guard_command(applet(interpreter, self.io())).await;
        }
        let mut script = vec!["sh".to_owned(), path.to_string_lossy().into_owned()];
        script.extend(arguments.into_iter().skip(1));
        self.guard_command(super::applet(script, self.io())).await
    }

    async fn call(&mut self, body: &Rc<Command>, arguments: Vec<String>) -> Outcome {
        if self.calls >= CALLS_MAX {
            return self.fail("too many nested calls").await;
        }
        let outer = std::mem::replace(
            &mut self.arguments,
            Rc::new(arguments.into_iter().skip(1).collect()),
        );
        let loops = std::mem::take(&mut self.loops);
        self.calls += 1;
        self.scopes.push(Vec::new());
        let outcome = self.run_command(body).await;
        self.leave_scope();
        self.calls -= 1;
        self.loops = loops;
        self.arguments = outer;
        match outcome {
            Err(Flow::Return(status)) => Ok(status),
            Err(Flow::Break(_) | Flow::Continue(_)) => Ok(self.status),
            outcome => outcome,
        }
    }
}
