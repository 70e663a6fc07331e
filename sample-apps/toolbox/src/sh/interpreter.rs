//! The interpreter: walks the syntax tree.
//!
//! Each part of a pipeline, each `( )`, `$( )` and `&` runs as a task on a copy of the shell; everything else runs in
//! place. How deep commands run inside of each other is counted; every few levels a task of its own goes on, so that the
//! stack stays small.

use std::rc::Rc;

use super::lexer::{Lexer, SyntaxError};
use super::parser;
use super::process::Process;
use super::shell::{Flow, NESTING_MAX, Outcome, POLLED_MAX, Pending, Shell, TEXT_BYTES_MAX};
use super::syntax_tree::{AndOr, Arm, Command, Connector, Item, Kind, List, Pipeline, Word};
use crate::executor::{self, Task};
use crate::stream::Stream;
use crate::text;

/// What a copy of the shell runs.
pub enum Work {
    Command(Rc<Command>),
    List(Rc<List>),
    AndOr(Rc<AndOr>),
}

impl Shell {
    pub fn run_list<'a>(&'a mut self, list: &'a List) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let mut status = 0;
            for item in &list.0 {
                status = self.run_item(item).await?;
            }
            Ok(status)
        })
    }

    async fn run_item(&mut self, item: &Item) -> Outcome {
        match &item.background {
            Some(text) => {
                self.start_job(Rc::clone(&item.and_or), text).await?;
                self.status = 0;
                Ok(0)
            }
            None => self.run_and_or(&item.and_or).await,
        }
    }

    async fn start_job(&mut self, and_or: Rc<AndOr>, text: &str) -> Outcome<()> {
        let mut shell = self.subshell();
        if !self.options.has("monitor") {
            shell.descriptors.insert(0, Stream::null());
        }
        let process = Rc::clone(&shell.process);
        let task = spawn(shell, Work::AndOr(and_or));
        self.last_job = Some(process.pid);
        let pid = process.pid;
        let number = self.jobs.add(process, text.to_owned(), task);
        if self.is_interactive() {
            let stream = self.descriptor(2);
            // Nobody is left to tell.
            let _ = stream
                .write_all(format!("[{number}] {pid}\n").as_bytes())
                .await;
        }
        Ok(())
    }

    async fn run_and_or(&mut self, and_or: &AndOr) -> Outcome {
        let mut status = self
            .run_pipeline(&and_or.first, !and_or.rest.is_empty())
            .await?;
        for (place, (connector, pipeline)) in and_or.rest.iter().enumerate() {
            if (*connector == Connector::And) == (status == 0) {
                let tested = place + 1 < and_or.rest.len();
                status = self.run_pipeline(pipeline, tested).await?;
            }
        }
        Ok(status)
    }

    /// Runs something whose failure does not end the shell.
    async fn run_tested(&mut self, list: &List) -> Outcome {
        self.tested += 1;
        let outcome = self.run_list(list).await;
        self.tested -= 1;
        outcome
    }

    async fn run_pipeline(&mut self, pipeline: &Pipeline, tested: bool) -> Outcome {
        let tested = tested || pipeline.negated;
        self.tested += u32::from(tested);
        let outcome = match pipeline.commands.as_slice() {
            [command] if self.polled >= POLLED_MAX => self.run_apart(command).await,
            [command] => {
                self.polled += 1;
                let outcome = self.run_command(command).await;
                self.polled -= 1;
                outcome
            }
            commands => self.run_piped(commands).await,
        };
        self.tested -= u32::from(tested);
        let mut status = outcome?;
        if pipeline.negated {
            status = i32::from(status == 0);
        }
        self.status = status;
        // Compound commands that run in place were ended inside already.
        let ends = match pipeline.commands.as_slice() {
            [command] => matches!(command.kind, Kind::Simple { .. } | Kind::Subshell(_)),
            _ => true,
        };
        if status != 0 && ends && !tested && self.tested == 0 && self.options.has("errexit") {
            return Err(Flow::Exit(status));
        }
        self.turn().await?;
        Ok(status)
    }

    /// Runs a command in place, but polled by a task of its own.
    async fn run_apart(&mut self, command: &Rc<Command>) -> Outcome {
        let stand_in = self.stand_in();
        let mut shell = std::mem::replace(self, stand_in);
        let polled = std::mem::take(&mut shell.polled);
        let command = Rc::clone(command);
        let task = executor::spawn(async move {
            let outcome = shell.run_command(&command).await;
            (shell, outcome)
        });
        let outcome;
        (*self, outcome) = task.await;
        self.polled = polled;
        outcome
    }

    async fn run_piped(&mut self, commands: &[Rc<Command>]) -> Outcome {
        let mut tasks = Vec::with_capacity(commands.len());
        let mut input = None;
        for (place, command) in commands.iter().enumerate() {
            let mut shell = self.subshell();
            if let Some(input) = input.take() {
                shell.descriptors.insert(0, input);
            }
            if place + 1 < commands.len() {
                let (writer, reader) = Stream::pipe();
                shell.descriptors.insert(1, writer);
                input = Some(reader);
            }
            tasks.push(spawn(shell, Work::Command(Rc::clone(command))));
        }
        let pipefail = self.options.has("pipefail");
        self.guard_command(async move {
            let mut status = 0;
            let mut failed = 0;
            for task in tasks {
                status = task.await;
                if status != 0 {
                    failed = status;
                }
            }
            if pipefail { failed } else { status }
        })
        .await
    }

    pub fn run_command<'a>(&'a mut self, command: &'a Command) -> Pending<'a, Outcome> {
        Box::pin(async move {
            if self.nesting >= NESTING_MAX {
                return self.fail("too many nested calls").await;
            }
            self.nesting += 1;
            let outcome = self.run_command_inside(command).await;
            self.nesting -= 1;
            outcome
        })
    }

    fn run_command_inside<'a>(&'a mut self, command: &'a Command) -> Pending<'a, Outcome> {
        Box::pin(async move {
            if let Kind::Simple { assignments, words } = &command.kind {
                self.variables.line = command.line;
                let status = self
                    .run_simple(assignments, words, &command.redirects)
                    .await?;
                self.status = status;
                return Ok(status);
            }
            if let Kind::Subshell(list) = &command.kind {
                return self.run_subshell(list, command).await;
            }
            if command.redirects.is_empty() {
                return self.run_compound(&command.kind).await;
            }
            let saved = match self.redirect(&command.redirects).await? {
                Ok(saved) => saved,
                Err(status) => {
                    self.status = status;
                    return Ok(status);
                }
            };
            let outcome = self.run_compound(&command.kind).await;
            self.flush().await;
            self.put_back(saved);
            outcome
        })
    }

    async fn run_subshell(&mut self, list: &Rc<List>, command: &Command) -> Outcome {
        let mut shell = self.subshell();
        let status = match shell.redirect(&command.redirects).await? {
            Ok(_) => {
                let task = spawn(shell, Work::List(Rc::clone(list)));
                self.guard_command(task).await?
            }
            Err(status) => status,
        };
        self.flush().await;
        self.status = status;
        Ok(status)
    }

    async fn run_compound(&mut self, kind: &Kind) -> Outcome {
        match kind {
            Kind::Group(list) => self.run_list(list).await,
            Kind::If {
                branches,
                otherwise,
            } => {
                for (condition, body) in branches {
                    if self.run_tested(condition).await? == 0 {
                        return self.run_list(body).await;
                    }
                }
                match otherwise {
                    Some(body) => self.run_list(body).await,
                    None => {
                        self.status = 0;
                        Ok(0)
                    }
                }
            }
            Kind::Loop {
                condition,
                until,
                body,
            } => {
                self.loops += 1;
                let outcome = self.run_loop(condition, *until, body).await;
                self.loops -= 1;
                outcome
            }
            Kind::For { name, words, body } => {
                let values = match words {
                    Some(words) => self.expand_words(words).await?,
                    None => self.arguments.to_vec(),
                };
                self.loops += 1;
                let outcome = self.run_for(name, values, body).await;
                self.loops -= 1;
                outcome
            }
            Kind::Case { word, arms } => self.run_case(word, arms).await,
            Kind::Function { name, body } => {
                Rc::make_mut(&mut self.functions).insert(name.clone(), Rc::clone(body));
                self.status = 0;
                Ok(0)
            }
            Kind::Simple { .. } | Kind::Subshell(_) => Ok(0),
        }
    }

    /// What a loop does with how its body ended: `Some` ends the loop.
    fn around(&mut self, outcome: Outcome, status: &mut i32) -> Option<Outcome> {
        match outcome {
            Ok(ended) => {
                *status = ended;
                None
            }
            Err(Flow::Break(count)) => {
                *status = 0;
                Some(if count > 1 {
                    Err(Flow::Break(count - 1))
                } else {
                    Ok(0)
                })
            }
            Err(Flow::Continue(count)) => {
                *status = 0;
                (count > 1).then_some(Err(Flow::Continue(count - 1)))
            }
            Err(flow) => Some(Err(flow)),
        }
    }

    async fn run_loop(&mut self, condition: &List, until: bool, body: &List) -> Outcome {
        let mut status = 0;
        loop {
            let mut held = 0;
            let outcome = self.run_tested(condition).await;
            if let Some(ended) = self.around(outcome, &mut held) {
                return ended;
            }
            if (held == 0) == until {
                self.status = status;
                return Ok(status);
            }
            let outcome = self.run_list(body).await;
            if let Some(ended) = self.around(outcome, &mut status) {
                return ended;
            }
        }
    }

    async fn run_for(&mut self, name: &str, values: Vec<String>, body: &List) -> Outcome {
        let mut status = 0;
        for value in values {
            self.assign(name, value).await?;
            let outcome = self.run_list(body).await;
            if let Some(ended) = self.around(outcome, &mut status) {
                return ended;
            }
        }
        self.status = status;
        Ok(status)
    }

    async fn run_case(&mut self, word: &Word, arms: &[Arm]) -> Outcome {
        let text = self.expand_text(word).await?;
        let mut falls = false;
        let mut status = 0;
        for arm in arms {
            if !falls {
                for pattern in &arm.patterns {
                    let pattern = self.expand_pattern(pattern).await?;
                    if pattern.matches(&text) {
                        falls = true;
                        break;
                    }
                }
            }
            if falls {
                status = self.run_list(&arm.body).await?;
                if !arm.falls_through {
                    break;
                }
            }
        }
        self.status = status;
        Ok(status)
    }

    /// What `$( )` gives: the output without the newlines at its end.
    pub async fn substitute(&mut self, list: &Rc<List>) -> Outcome<String> {
        let mut shell = self.subshell();
        let (writer, reader) = Stream::pipe();
        shell.descriptors.insert(1, writer);
        let task = spawn(shell, Work::List(Rc::clone(list)));
        let read = async {
            let mut output = Vec::new();
            let mut room = vec![0; 8 << 10];
            loop {
                match reader.read(&mut room).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => output.extend(room.iter().take(count).filter(|byte| **byte != 0)),
                }
                if output.len() > TEXT_BYTES_MAX {
                    return None;
                }
            }
            Some((output, task.await))
        };
        let Some((mut output, status)) = self.guard(read).await? else {
            return self
                .fail(&format!(
                    "a substitution of more than {TEXT_BYTES_MAX} bytes"
                ))
                .await;
        };
        self.substituted = Some(status);
        self.status = status;
        while output.last() == Some(&b'\n') {
            output.pop();
        }
        Ok(text::from_bytes(&output))
    }

    /// Runs text as commands in place, as `eval` and traps do.
    pub fn eval<'a>(&'a mut self, text: &'a str) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let line = self.variables.line.max(1);
            self.run_text(text, line, false).await
        })
    }

    /// Runs a whole text, line by line; a file's is shown with `set -v`.
    pub async fn run_text(&mut self, text: &str, line: u32, is_file: bool) -> Outcome {
        let mut lexer = Lexer::last(text, line);
        let mut status = 0;
        loop {
            let aliases = Rc::clone(&self.aliases);
            let start = lexer.position();
            let parsed = parser::next_line(&mut lexer, &aliases);
            if is_file && self.options.has("verbose") {
                let source = lexer.text_since(start);
                let stream = self.descriptor(2);
                // Nobody is left to tell.
                let _ = stream.write_all(&text::to_bytes(&source)).await;
            }
            match parsed {
                Ok(None) => return Ok(status),
                Ok(Some(_)) if self.options.has("noexec") && !self.is_interactive() => {}
                Ok(Some(list)) => status = self.run_list(&list).await?,
                Err(error) => return self.syntax_error(error).await,
            }
        }
    }

    /// Says what is wrong with a text and ends the shell.
    pub async fn syntax_error<T>(&mut self, error: SyntaxError) -> Outcome<T> {
        let message = match error {
            SyntaxError::Incomplete { message, .. } if message.starts_with("syntax error") => {
                message
            }
            SyntaxError::Incomplete { message, .. } => format!("syntax error: {message}"),
            SyntaxError::Wrong { line, message } => {
                self.variables.line = line;
                message
            }
        };
        self.fail(&message).await
    }

    /// Runs as a copy to its end: the traps of its end too. Gives the status.
    pub async fn run_to_end(mut self, work: Work) -> i32 {
        let outcome = match &work {
            Work::Command(command) => self.run_command(command).await,
            Work::List(list) => self.run_list(list).await,
            Work::AndOr(and_or) => self.run_and_or(and_or).await,
        };
        let status = self.status_of(outcome);
        self.end(status).await
    }

    pub fn status_of(&self, outcome: Outcome) -> i32 {
        match outcome {
            Ok(status) | Err(Flow::Exit(status) | Flow::Return(status) | Flow::Fail(status)) => {
                status
            }
            Err(Flow::Break(_) | Flow::Continue(_)) => self.status,
            Err(Flow::Interrupted) => 130,
        }
    }

    /// Runs the trap of the shell's end, and gives the status to leave with.
    pub async fn end(&mut self, status: i32) -> i32 {
        self.status = status;
        let mut status = status;
        if let Some(action) = self.traps.remove(&0).filter(|action| !action.is_empty()) {
            self.loops = 0;
            match self.eval(&action).await {
                Err(Flow::Exit(ended) | Flow::Fail(ended)) => status = ended,
                _ => {}
            }
        }
        self.flush().await;
        status
    }
}

/// Starts a copy of the shell on its work.
pub fn spawn(shell: Shell, work: Work) -> Task<i32> {
    let process: Rc<Process> = Rc::clone(&shell.process);
    executor::spawn(async move {
        let work = shell.run_to_end(work);
        process.run(work).await
    })
}
