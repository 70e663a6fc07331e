//! The shell in front of a person: prompts, the line editor, completion, ^C.

use std::rc::Rc;

use super::editor::{Action, Editor};
use super::lexer::{Lexer, SyntaxError};
use super::parser;
use super::process::{INT, Process};
use super::shell::{Flow, Outcome, Shell};
use super::syntax_tree::{Part, Word};
use crate::executor::{self, Task};
use crate::stream::Stream;
use crate::terminal::Terminal;
use crate::{applet, text};

/// More names are not listed.
const COMPLETIONS_MAX: usize = 200;

/// While it lives, ^C of a terminal is SIGINT to a shell.
pub struct Interrupts {
    _task: Task<()>,
}

impl Interrupts {
    pub fn new(terminal: &Rc<Terminal>, process: &Rc<Process>) -> Self {
        let claim = Terminal::claim(terminal);
        terminal.start();
        let process = Rc::clone(process);
        Self {
            _task: executor::spawn(async move {
                loop {
                    claim.interrupted().await;
                    process.send(INT);
                }
            }),
        }
    }
}

/// Reads and runs commands until the input ends or `exit`.
pub async fn run(shell: &mut Shell) -> Outcome {
    let stdin = shell.descriptor(0);
    let mut editor = Editor::new(80);
    loop {
        shell.tell_jobs().await;
        let mut source = String::new();
        let mut prompt = "PS1";
        let list = loop {
            match next_line(shell, &stdin, &mut editor, prompt).await {
                Line::Text(line) => source.push_str(&line),
                Line::Cancelled => {
                    shell.status = 130;
                    source.clear();
                    prompt = "PS1";
                    continue;
                }
                Line::End if source.is_empty() => {
                    if stdin.is_terminal() {
                        let stderr = shell.descriptor(2);
                        // Nobody is left to tell.
                        let _ = stderr.write_all(b"\n").await;
                    }
                    return Ok(shell.status);
                }
                Line::End => {}
            }
            let mut lexer = Lexer::new(&source, 1);
            let aliases = Rc::clone(&shell.aliases);
            match parser::next_line(&mut lexer, &aliases) {
                Ok(list) => break list,
                Err(SyntaxError::Incomplete { .. }) if source.ends_with('\n') => prompt = "PS2",
                Err(error) => {
                    shell.status = shell.syntax_error::<()>(error).await.map_or(2, |()| 0);
                    break None;
                }
            }
        };
        editor.remember(&source);
        let Some(list) = list else { continue };
        let (loops, tested, calls, scopes) =
            (shell.loops, shell.tested, shell.calls, shell.scopes.len());
        match shell.run_list(&list).await {
            Ok(status) | Err(Flow::Return(status)) => shell.status = status,
            Err(Flow::Exit(status)) => return Err(Flow::Exit(status)),
            Err(Flow::Fail(status)) => shell.status = status,
            Err(Flow::Break(_) | Flow::Continue(_)) => {}
            Err(Flow::Interrupted) => shell.status = 130,
        }
        (shell.loops, shell.tested, shell.calls) = (loops, tested, calls);
        while shell.scopes.len() > scopes {
            shell.leave_scope();
        }
        shell.command_name = None;
        shell.in_trap = false;
        shell.flush().await;
    }
}

enum Line {
    Text(String),
    Cancelled,
    End,
}

async fn next_line(
    shell: &mut Shell,
    stdin: &Rc<Stream>,
    editor: &mut Editor,
    prompt: &str,
) -> Line {
    let prompt = shell.prompt(prompt).await;
    shell.flush().await;
    let stderr = shell.descriptor(2);
    if stdin.terminal_of().is_none() {
        // Nobody is left to tell.
        let _ = stderr.write_all(&text::to_bytes(&prompt)).await;
        shell.flush().await;
        return match stdin.line(1 << 20).await {
            Ok(Some(line)) => Line::Text(text::from_bytes(&line)),
            Ok(None) | Err(_) => Line::End,
        };
    }
    stdin.set_raw(true);
    let line = edit(shell, stdin, editor, &prompt).await;
    stdin.set_raw(false);
    line
}

async fn edit(shell: &mut Shell, stdin: &Rc<Stream>, editor: &mut Editor, prompt: &str) -> Line {
    let screen = shell.descriptor(2);
    let show = async |text: &str| {
        // A screen that is gone shows nothing.
        let _ = screen.write_all(&text::to_bytes(text)).await;
        let _ = screen.flush().await;
    };
    let width = shell
        .variables
        .get("COLUMNS")
        .and_then(|columns| columns.parse().ok())
        .unwrap_or(80);
    if let Some((above, _)) = prompt.rsplit_once('\n') {
        show(&format!("{above}\n")).await;
    }
    show(&editor.begin(prompt, width)).await;
    let mut key = [0];
    loop {
        match stdin.read(&mut key).await {
            Ok(0) | Err(_) => return Line::End,
            Ok(_) => {}
        }
        let [byte] = key;
        match editor.key(byte) {
            None => {}
            Some(Action::Draw(text)) => show(&text).await,
            Some(Action::Done(line)) => {
                show("\n").await;
                return Line::Text(line + "\n");
            }
            Some(Action::Cancel) => {
                show("^C\n").await;
                return Line::Cancelled;
            }
            Some(Action::End) => return Line::End,
            Some(Action::Complete { again }) => {
                let before = editor.before_cursor();
                let (word, candidates) = completions(shell, &before);
                let (typed, list) = complete(&word, &candidates);
                if !typed.is_empty() {
                    show(&editor.insert(&typed)).await;
                } else if again && list {
                    let names: Vec<_> = candidates
                        .iter()
                        .take(COMPLETIONS_MAX)
                        .map(|candidate| {
                            candidate
                                .rsplit('/')
                                .find(|part| !part.is_empty())
                                .unwrap_or_default()
                        })
                        .collect();
                    show(&format!("\n{}\n", names.join("  "))).await;
                    show(&editor.draw()).await;
                } else {
                    show("\x07").await;
                }
            }
        }
    }
}

/// What to type for a word with these candidates, and whether there are several.
fn complete(word: &str, candidates: &[String]) -> (String, bool) {
    let Some(first) = candidates.first() else {
        return (String::new(), false);
    };
    let mut common = first.chars().count();
    for candidate in candidates {
        let same = candidate
            .chars()
            .zip(first.chars())
            .take_while(|(left, right)| left == right)
            .count();
        common = common.min(same);
    }
    let mut typed: String = first
        .chars()
        .take(common)
        .skip(word.chars().count())
        .collect();
    if candidates.len() == 1 && !first.ends_with('/') {
        typed.push(' ');
    }
    (typed, candidates.len() > 1)
}

/// The word before the cursor and what it can become.
fn completions(shell: &Shell, before: &str) -> (String, Vec<String>) {
    let start = before
        .rfind(|character: char| " \t;|&(<>=`".contains(character))
        .map_or(0, |at| at + 1);
    let word = before.get(start..).unwrap_or_default().to_owned();
    let ahead = before.get(..start).unwrap_or_default().trim_end();
    let is_command =
        (ahead.is_empty() || ahead.ends_with([';', '|', '&', '(', '`'])) && !word.contains('/');
    let mut found: Vec<String> = Vec::new();
    if is_command {
        found.extend(
            applet::names()
                .into_iter()
                .chain(super::builtin::names())
                .map(str::to_owned),
        );
        found.extend(shell.functions.keys().chain(shell.aliases.keys()).cloned());
        found.retain(|name| name.starts_with(&word));
    } else {
        let (folder, name) = word
            .rsplit_once('/')
            .map_or(("", word.as_str()), |(folder, name)| (folder, name));
        let prefix = word.get(..word.len() - name.len()).unwrap_or_default();
        let home = shell.variables.get("HOME").unwrap_or("/");
        let path = match folder.strip_prefix('~') {
            Some(rest) => shell.cwd.join(home).join(rest.trim_start_matches('/')),
            None if prefix == "/" => "/".into(),
            None => shell.cwd.join(folder),
        };
        for entry in std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .take(1 << 16)
        {
            let entry_name = entry.file_name().to_string_lossy().into_owned();
            if !entry_name.starts_with(name)
                || entry_name.starts_with('.') && !name.starts_with('.')
            {
                continue;
            }
            let slash = if entry.path().is_dir() { "/" } else { "" };
            found.push(format!("{prefix}{entry_name}{slash}"));
        }
    }
    found.sort_unstable();
    found.dedup();
    (word, found)
}

impl Shell {
    /// A prompt's text: busybox' escapes, then expansion.
    pub async fn prompt(&mut self, name: &str) -> String {
        let value = self.variables.get(name).unwrap_or_default().to_owned();
        let value = self.fancy(&value);
        if !value.contains(['$', '`']) {
            return value;
        }
        let word = Lexer::new(&value, 1).prompt();
        let Ok(word) = word else { return value };
        let (status, substituted) = (self.status, self.substituted);
        let trace = self.options.has("xtrace");
        self.options.set("xtrace", false);
        let text = Box::pin(self.expand_text(&Word(vec![Part::Double(word)]))).await;
        self.options.set("xtrace", trace);
        (self.status, self.substituted) = (status, substituted);
        text.unwrap_or(value)
    }

    fn fancy(&self, value: &str) -> String {
        let mut text = String::new();
        let mut characters = value.chars();
        while let Some(character) = characters.next() {
            if character != '\\' {
                text.push(character);
                continue;
            }
            match characters.next() {
                Some('w') => {
                    let path = self.cwd.to_string_lossy().into_owned();
                    let home = self.variables.get("HOME").filter(|home| home.len() > 1);
                    match home.and_then(|home| path.strip_prefix(home)) {
                        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                            text.push_str(&format!("~{rest}"))
                        }
                        _ => text.push_str(&path),
                    }
                }
                Some('W') => {
                    let name = self.cwd.file_name();
                    text.push_str(&name.map_or("/".into(), |name| name.to_string_lossy()));
                }
                Some('h' | 'H') => {
                    text.push_str(self.variables.get("HOSTNAME").unwrap_or("localhost"))
                }
                Some('u') => text.push_str(self.variables.get("USER").unwrap_or("root")),
                Some('$') => text.push(
                    if self.variables.get("USER").is_none_or(|user| user == "root") {
                        '#'
                    } else {
                        '$'
                    },
                ),
                Some('n') => text.push('\n'),
                Some('e') => text.push('\x1b'),
                Some('\\') => text.push('\\'),
                // What does not show needs no mark here.
                Some('[' | ']') => {}
                Some(other) => {
                    text.push('\\');
                    text.push(other);
                }
                None => text.push('\\'),
            }
        }
        text
    }
}
