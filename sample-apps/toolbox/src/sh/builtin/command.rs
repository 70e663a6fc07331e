//! Builtins about commands: what a name means, and other names for them.

use std::rc::Rc;

use crate::applet;
use crate::sh::builtin;
use crate::sh::parser;
use crate::sh::quote;
use crate::sh::shell::{Outcome, Shell};
use crate::sh::simple::Meaning;

pub async fn command(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let mut at = 1;
    let mut tell = None;
    while let Some(option) = arguments
        .get(at)
        .filter(|argument| argument.starts_with('-') && argument.len() > 1)
    {
        at += 1;
        match option.as_str() {
            "-p" => {}
            "-v" => tell = Some(false),
            "-V" => tell = Some(true),
            "--" => break,
            option => return shell.fail(&format!("illegal option {option}")).await,
        }
    }
    let rest = arguments.get(at..).unwrap_or_default().to_vec();
    let Some(name) = rest.first() else {
        return Ok(0);
    };
    if let Some(verbose) = tell {
        return match describe(shell, name, verbose) {
            Some(line) => shell.print(&format!("{line}\n")).await,
            None if verbose => shell
                .print(&format!("{name}: not found\n"))
                .await
                .map(|_| 127),
            None => Ok(127),
        };
    }
    let meaning = shell.meaning(name, false);
    if let Meaning::Nothing(..) = meaning {
        shell.command_name = None;
    }
    shell.run_meaning(meaning, rest).await
}

pub async fn type_(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let mut status = 0;
    for name in arguments.get(1..).unwrap_or_default() {
        let line = match describe(shell, name, true) {
            Some(line) => line,
            None => {
                status = 127;
                format!("{name}: not found")
            }
        };
        shell.print(&format!("{line}\n")).await?;
    }
    Ok(status)
}

/// What a name means, in a sentence or as what would be run.
fn describe(shell: &Shell, name: &str, verbose: bool) -> Option<String> {
    let say = |what: &str| match verbose {
        true => format!("{name} is {what}"),
        false => name.to_owned(),
    };
    if parser::is_reserved(name) {
        return Some(say("a shell keyword"));
    }
    if let Some(value) = shell.aliases.get(name) {
        return Some(match verbose {
            true => format!("{name} is an alias for {value}"),
            false => format!("alias {name}={}", quote::always(value)),
        });
    }
    match shell.meaning(name, true) {
        Meaning::Special(_) => Some(say("a special shell builtin")),
        Meaning::Function(_) => Some(say("a function")),
        Meaning::Builtin(_) => Some(say("a shell builtin")),
        Meaning::Applet(_) => {
            let path = if name.contains('/') {
                name.to_owned()
            } else {
                format!("/bin/{name}")
            };
            Some(match verbose {
                true => format!("{name} is {path}"),
                false => path,
            })
        }
        Meaning::File(path) => Some(match verbose {
            true => format!("{name} is {}", path.display()),
            false => path.display().to_string(),
        }),
        Meaning::Nothing(..) => None,
    }
}

pub async fn alias(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    if arguments.len() == 1 {
        let lines: String = shell
            .aliases
            .iter()
            .map(|(name, value)| format!("{name}={}\n", quote::always(value)))
            .collect();
        return shell.print(&lines).await;
    }
    let mut status = 0;
    for operand in arguments.get(1..).unwrap_or_default() {
        match operand.split_once('=').filter(|(name, _)| !name.is_empty()) {
            Some((name, value)) => {
                Rc::make_mut(&mut shell.aliases).insert(name.to_owned(), value.to_owned());
            }
            None => match shell.aliases.get(operand) {
                Some(value) => {
                    let line = format!("{operand}={}\n", quote::always(value));
                    shell.print(&line).await?;
                }
                None => {
                    shell.complain(&format!("{operand}: not found")).await;
                    status = 1;
                }
            },
        }
    }
    Ok(status)
}

pub async fn unalias(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let mut status = 0;
    for operand in arguments.get(1..).unwrap_or_default() {
        let aliases = Rc::make_mut(&mut shell.aliases);
        if operand == "-a" {
            aliases.clear();
        } else if aliases.remove(operand).is_none() {
            shell.complain(&format!("{operand}: not found")).await;
            status = 1;
        }
    }
    Ok(status)
}

/// Nothing is remembered that could be out of date.
pub async fn hash(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let mut status = 0;
    for name in arguments.iter().skip(1).filter(|name| *name != "-r") {
        if let Meaning::Nothing(message, _) = shell.meaning(name, true) {
            shell.complain(&message).await;
            status = 1;
        }
    }
    Ok(status)
}

pub async fn help(shell: &mut Shell, _: Vec<String>) -> Outcome {
    let mut names: Vec<_> = builtin::names().collect();
    names.sort_unstable();
    let text = format!(
        "Built-in commands:\n{}\n\nApplets:\n{}\n",
        names.join(" "),
        applet::names().join(" ")
    );
    shell.print(&text).await
}

/// What a component may use is set by whoever runs it and not known in here.
pub async fn ulimit(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    const LIMITS: [(char, &str); 10] = [
        ('t', "cpu time (seconds)"),
        ('f', "file size (blocks)"),
        ('d', "data seg size (kb)"),
        ('s', "stack size (kb)"),
        ('c', "core file size (blocks)"),
        ('m', "resident set size (kb)"),
        ('l', "locked memory (kb)"),
        ('p', "processes"),
        ('n', "file descriptors"),
        ('v', "address space (kb)"),
    ];
    let option = arguments
        .get(1)
        .and_then(|argument| argument.strip_prefix('-'));
    let value = if option.is_some() {
        arguments.get(2)
    } else {
        arguments.get(1)
    };
    if let Some(value) = value.filter(|value| *value != "unlimited") {
        return shell
            .refuse(
                &format!("can't set a limit to {value}: Operation not permitted"),
                1,
            )
            .await;
    }
    match option.and_then(|letters| letters.chars().last()) {
        Some('a') => {
            let lines: String = LIMITS
                .iter()
                .map(|(letter, name)| format!("-{letter}: {name:<25}unlimited\n"))
                .collect();
            shell.print(&lines).await
        }
        Some(letter)
            if letter != 'H'
                && letter != 'S'
                && !LIMITS.iter().any(|(known, _)| *known == letter) =>
        {
            shell.fail(&format!("illegal option -{letter}")).await
        }
        _ if value.is_some() => Ok(0),
        _ => shell.print("unlimited\n").await,
    }
}
