//! Builtins that change what runs next.

use std::rc::Rc;

use crate::sh::process::{self, INT};
use crate::sh::quote;
use crate::sh::shell::{Flow, Outcome, Shell};
use crate::sh::simple::Meaning;
use crate::text;

pub async fn succeed(_: &mut Shell, _: Vec<String>) -> Outcome {
    Ok(0)
}

pub async fn fail(_: &mut Shell, _: Vec<String>) -> Outcome {
    Ok(1)
}

/// A number that an argument must be.
async fn number(shell: &mut Shell, text: &str) -> Outcome<i32> {
    match text.parse::<i32>().ok().filter(|number| *number >= 0) {
        Some(number) => Ok(number),
        None => shell.fail(&format!("Illegal number: {text}")).await,
    }
}

/// `break` and `continue`.
pub async fn leave_loop(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let count = match arguments.get(1) {
        None => 1,
        Some(text) => match number(shell, text).await? {
            0 => return shell.fail(&format!("Illegal number: {text}")).await,
            count => count as u32,
        },
    };
    if shell.loops == 0 {
        return Ok(0);
    }
    let count = count.min(shell.loops);
    Err(match arguments.first().map(String::as_str) {
        Some("break") => Flow::Break(count),
        _ => Flow::Continue(count),
    })
}

pub async fn return_(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let status = match arguments.get(1) {
        None => shell.status,
        Some(text) => number(shell, text).await?,
    };
    Err(Flow::Return(status & 0xFF))
}

pub async fn exit(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let status = match arguments.get(1) {
        None => shell.status,
        Some(text) => number(shell, text).await?,
    };
    Err(Flow::Exit(status & 0xFF))
}

pub async fn eval(shell: &mut Shell, mut arguments: Vec<String>) -> Outcome {
    arguments.remove(0);
    let text = arguments.join(" ");
    shell.eval(&text).await
}

/// `.`: a file's commands in this shell.
pub async fn source(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let Some(name) = arguments.get(1) else {
        return shell.fail("filename argument required").await;
    };
    let path = match name.contains('/') {
        true => Some(shell.cwd.join(name)),
        false => {
            let folders = shell.variables.get("PATH").unwrap_or_default().split(':');
            let mut files = folders.map(|folder| shell.cwd.join(folder).join(name));
            files
                .find(|file| file.is_file())
                .or_else(|| Some(shell.cwd.join(name)).filter(|path| path.is_file()))
        }
    };
    let bytes = match path {
        None => return shell.fail(&format!("{name}: not found")).await,
        Some(path) => match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let words = match error.kind() {
                    std::io::ErrorKind::NotFound => "No such file or directory".to_owned(),
                    _ => crate::sh::words(&error),
                };
                return shell.fail(&format!("can't open '{name}': {words}")).await;
            }
        },
    };
    let outer = (arguments.len() > 2).then(|| {
        let own = Rc::new(arguments.get(2..).unwrap_or_default().to_vec());
        std::mem::replace(&mut shell.arguments, own)
    });
    let outcome = Box::pin(shell.run_text(&text::from_bytes(&bytes), 1, true)).await;
    if let Some(outer) = outer {
        shell.arguments = outer;
    }
    match outcome {
        Err(Flow::Return(status)) => Ok(status),
        outcome => outcome,
    }
}

/// `exec`: a command instead of the shell. Redirections alone are kept by who called.
pub async fn exec(shell: &mut Shell, mut arguments: Vec<String>) -> Outcome {
    arguments.remove(0);
    if arguments.first().is_some_and(|argument| argument == "--") {
        arguments.remove(0);
    }
    let Some(name) = arguments.first() else {
        return Ok(0);
    };
    let meaning = match shell.meaning(name, false) {
        Meaning::Nothing(message, status) => {
            shell.complain(&message).await;
            return Err(Flow::Exit(status));
        }
        meaning => meaning,
    };
    // The shell is gone, and its traps with it.
    shell.traps.clear();
    let outcome = shell.run_meaning(meaning, arguments).await;
    let status = shell.status_of(outcome);
    Err(Flow::Exit(status))
}

pub async fn times(shell: &mut Shell, _: Vec<String>) -> Outcome {
    // A component is not told how much processor time it took.
    let line = "0m0.000000s 0m0.000000s\n";
    shell.print(&format!("{line}{line}")).await
}

pub async fn trap(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let mut operands = arguments.get(1..).unwrap_or_default();
    match operands.first().map(String::as_str) {
        Some("-l") => {
            let names: Vec<_> = process::names()
                .iter()
                .enumerate()
                .map(|(place, name)| format!("{:2}) SIG{name}\n", place + 1))
                .collect();
            return shell.print(&names.concat()).await;
        }
        Some("-p" | "--") => operands = operands.get(1..).unwrap_or_default(),
        _ => {}
    }
    let Some(first) = operands.first() else {
        let mut lines = String::new();
        for (signal, action) in &shell.traps {
            lines.push_str(&format!(
                "trap -- {} {}\n",
                quote::always(action),
                process::name(*signal)
            ));
        }
        return shell.print(&lines).await;
    };
    // A number first, or nothing else, resets.
    let reset = operands.len() == 1 || first == "-" || first.parse::<u8>().is_ok();
    let signals = match operands.len() > 1 && first.parse::<u8>().is_err() {
        true => operands.get(1..).unwrap_or_default(),
        false => operands,
    };
    let mut status = 0;
    for text in signals {
        let Some(signal) = process::signal(text) else {
            shell
                .complain(&format!("{text}: invalid signal specification"))
                .await;
            status = 1;
            continue;
        };
        let is_prompting = signal == INT && shell.is_interactive();
        match reset {
            true => {
                shell.traps.remove(&signal);
                shell.process.set(signal, is_prompting, false);
            }
            false => {
                shell.traps.insert(signal, first.clone());
                shell
                    .process
                    .set(signal, !first.is_empty() || is_prompting, first.is_empty());
            }
        }
    }
    Ok(status)
}
