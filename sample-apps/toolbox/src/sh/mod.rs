//! The shell: POSIX' language with busybox' additions and words.
//!
//! [`lexer`] and [`parser`] make a [`syntax_tree`], [`expand`] turns words into fields, [`interpreter`] walks the tree
//! on a [`shell::Shell`]. Whatever a script or a person gives it, the shell ends or goes on with an error of its own;
//! it does not panic, and every recursion, text and buffer has a bound.

mod arithmetic;
mod builtin;
mod editor;
mod escape;
mod expand;
mod glob;
mod interactive;
mod interpreter;
mod jobs;
mod lexer;
mod options;
mod parser;
mod pattern;
mod process;
mod quote;
mod redirect;
mod shell;
mod simple;
mod syntax_tree;
mod variables;

use std::fs::Metadata;
use std::io;
use std::rc::Rc;

pub(crate) use self::jobs::end_orphans;
use self::lexer::{Lexer, SyntaxError};
use self::process::INT;
use self::shell::{Flow, Outcome, Shell};
use crate::applet::{Applet, Io, Running};
use crate::stream::Stream;
use crate::{executor, text};

/// The shell under its names.
pub const TABLE: &[(&str, Applet)] = &[("sh", applet), ("ash", applet)];

/// Builtins that are also commands, for callers that are no shell.
pub const BUILTINS: &[(&str, Applet)] = &[
    ("[", builtin_applet),
    ("[[", builtin_applet),
    ("echo", builtin_applet),
    ("false", builtin_applet),
    ("printf", builtin_applet),
    ("pwd", builtin_applet),
    ("test", builtin_applet),
    ("true", builtin_applet),
];

/// A script may be this long.
const SCRIPT_BYTES_MAX: usize = 64 << 20;

/// Jobs that are left when a shell ends get so many turns before the program may be over.
const LAST_TURNS: u32 = 64;

fn builtin_applet(argv: Vec<String>, io: Io) -> Running {
    Box::pin(async move {
        let called = argv.first().cloned().unwrap_or_default();
        let name = called.rsplit('/').next().unwrap_or_default().to_owned();
        let Some(builtin) = builtin::regular(&name) else {
            return 127;
        };
        let mut shell = Shell::new(name, io);
        let outcome = builtin(&mut shell, argv).await;
        shell.flush().await;
        shell.status_of(outcome)
    })
}

/// `sh`.
pub fn applet(argv: Vec<String>, io: Io) -> Running {
    Box::pin(async move {
        let mut shell = Shell::new(argv.first().cloned().unwrap_or_else(|| "sh".to_owned()), io);
        let process = Rc::clone(&shell.process);
        let stdin = shell.descriptor(0);
        let _interrupts = stdin
            .terminal_of()
            .map(|terminal| interactive::Interrupts::new(terminal, &process));
        let status = process.run(async move {
            let outcome = run(&mut shell, argv).await;
            let status = shell.status_of(outcome);
            shell.end(status).await
        });
        let status = status.await;
        for _ in 0..LAST_TURNS {
            executor::yield_now().await;
        }
        status
    })
}

/// What a command line asks for.
enum Source {
    Text(String),
    File(String),
    Stdin,
}

async fn run(shell: &mut Shell, argv: Vec<String>) -> Outcome {
    let mut arguments = argv.into_iter().skip(1).peekable();
    let mut text = false;
    while let Some(argument) = arguments.peek() {
        let on = argument.starts_with('-');
        if !on && !argument.starts_with('+') {
            break;
        }
        let Some(argument) = arguments.next() else {
            break;
        };
        if argument == "--" || argument == "-" {
            break;
        }
        for letter in argument.chars().skip(1) {
            let known = match letter {
                'c' => {
                    text = true;
                    true
                }
                'l' => true,
                'o' => match arguments.next() {
                    Some(name) => shell.options.set(&name, on),
                    None => false,
                },
                letter => shell.options.set_letter(letter, on),
            };
            if !known {
                return shell
                    .fail(&format!(
                        "illegal option {}{letter}",
                        if on { '-' } else { '+' }
                    ))
                    .await;
            }
        }
    }
    shell.variables.export_all = shell.options.has("allexport");
    let source = if text {
        let Some(script) = arguments.next() else {
            return shell.fail("-c requires an argument").await;
        };
        if let Some(name) = arguments.next() {
            shell.command_name = Some(name.clone());
            shell.arg0 = name;
        }
        Source::Text(script)
    } else if let Some(file) = arguments
        .peek()
        .filter(|_| !shell.options.has("stdin"))
        .cloned()
    {
        arguments.next();
        Source::File(file)
    } else {
        Source::Stdin
    };
    shell.arguments = Rc::new(arguments.collect());
    match source {
        Source::Text(script) => shell.run_text(&script, 1, false).await,
        Source::File(name) => {
            let path = match name.contains('/') || shell.cwd.join(&name).exists() {
                true => shell.cwd.join(&name),
                false => std::path::Path::new("/bin").join(&name),
            };
            match std::fs::read(&path) {
                Ok(bytes) if bytes.len() > SCRIPT_BYTES_MAX => {
                    shell.fail(&format!("{name}: File too large")).await
                }
                Ok(bytes) => {
                    shell.command_name = Some(name.clone());
                    shell.arg0 = name;
                    shell.run_text(&text::from_bytes(&bytes), 1, true).await
                }
                Err(error) => {
                    shell
                        .complain(&format!("can't open '{name}': {}", words(&error)))
                        .await;
                    Err(Flow::Exit(if error.kind() == io::ErrorKind::NotFound {
                        2
                    } else {
                        126
                    }))
                }
            }
        }
        Source::Stdin => {
            let stdin = shell.descriptor(0);
            if stdin.is_terminal() || shell.is_interactive() {
                shell.options.set("interactive", true);
                shell.process.set(INT, true, false);
                return interactive::run(shell).await;
            }
            shell.options.set("stdin", true);
            run_stdin(shell, &stdin).await
        }
    }
}

/// Runs commands from a stream, of which no line is taken before it is needed: the commands may read the rest.
async fn run_stdin(shell: &mut Shell, stdin: &Rc<Stream>) -> Outcome {
    let mut status = 0;
    let mut line = 1;
    loop {
        let Some(mut source) = next_line(shell, stdin).await? else {
            return Ok(status);
        };
        let mut is_last = false;
        loop {
            let mut lexer = match is_last {
                true => Lexer::last(&source, line),
                false => Lexer::new(&source, line),
            };
            let aliases = Rc::clone(&shell.aliases);
            match parser::next_line(&mut lexer, &aliases) {
                Ok(list) => {
                    line = lexer.line;
                    if shell.options.has("verbose") {
                        let stderr = shell.descriptor(2);
                        // Nobody is left to tell.
                        let _ = stderr.write_all(&text::to_bytes(&source)).await;
                    }
                    if let Some(list) = list.filter(|_| !shell.options.has("noexec")) {
                        status = shell.run_list(&list).await?;
                    }
                    break;
                }
                Err(SyntaxError::Incomplete { here, .. }) if !is_last => {
                    is_last = !more(shell, stdin, &mut source, here).await?;
                }
                Err(error) => return shell.syntax_error(error).await,
            }
        }
    }
}

/// Adds lines: one, or all up to the end of a here-document. False where there are none.
async fn more(
    shell: &mut Shell,
    stdin: &Rc<Stream>,
    source: &mut String,
    here: Option<(String, bool)>,
) -> Outcome<bool> {
    loop {
        let Some(line) = next_line(shell, stdin).await? else {
            return Ok(false);
        };
        let ends = match &here {
            None => true,
            Some((delimiter, tabs)) => {
                let line = line.trim_end_matches('\n');
                delimiter
                    == if *tabs {
                        line.trim_start_matches('\t')
                    } else {
                        line
                    }
            }
        };
        source.push_str(&line);
        if source.len() > SCRIPT_BYTES_MAX {
            return shell.fail("a command is too long").await;
        }
        if ends {
            return Ok(true);
        }
    }
}

async fn next_line(shell: &mut Shell, stdin: &Rc<Stream>) -> Outcome<Option<String>> {
    match stdin.line(SCRIPT_BYTES_MAX).await {
        Ok(line) => Ok(line.map(|line| text::from_bytes(&line))),
        Err(error) => shell.fail(&format!("read error: {}", words(&error))).await,
    }
}

/// An error's words as C libraries say them, without what Rust adds.
pub fn words(error: &io::Error) -> String {
    use io::ErrorKind::*;
    let known = match error.kind() {
        NotFound => "No such file or directory",
        PermissionDenied => "Permission denied",
        AlreadyExists => "File exists",
        NotADirectory => "Not a directory",
        IsADirectory => "Is a directory",
        DirectoryNotEmpty => "Directory not empty",
        ReadOnlyFilesystem => "Read-only file system",
        StorageFull => "No space left on device",
        BrokenPipe => "Broken pipe",
        InvalidInput => "Invalid argument",
        Unsupported => "Not supported",
        _ => {
            let text = error.to_string();
            return text
                .split(" (os error")
                .next()
                .unwrap_or_default()
                .to_owned();
        }
    };
    known.to_owned()
}

#[cfg(unix)]
fn is_executable(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o111 != 0
}

/// Files of a component have no modes: every one may be tried.
#[cfg(not(unix))]
fn is_executable(metadata: &Metadata) -> bool {
    metadata.is_file()
}
