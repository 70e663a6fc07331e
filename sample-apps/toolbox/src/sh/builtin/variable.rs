//! Builtins for variables, parameters and options.

use std::rc::Rc;

use crate::sh::arithmetic;
use crate::sh::builtin::letters;
use crate::sh::quote;
use crate::sh::shell::{Outcome, Shell};
use crate::sh::syntax_tree::is_name;

/// `export` and `readonly`.
pub async fn export(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let readonly = arguments.first().is_some_and(|name| name == "readonly");
    let name = if readonly { "readonly" } else { "export" };
    let (options, operands) = match letters(&arguments, "pn") {
        Ok(found) => found,
        Err(letter) => return shell.fail(&format!("illegal option -{letter}")).await,
    };
    let operands = arguments.get(operands..).unwrap_or_default();
    if operands.is_empty() {
        let mut lines = String::new();
        for (variable, state) in shell.variables.iter() {
            if !(if readonly {
                state.readonly
            } else {
                state.exported
            }) {
                continue;
            }
            match &state.value {
                Some(value) => {
                    lines.push_str(&format!("{name} {variable}={}\n", quote::always(value)))
                }
                None => lines.push_str(&format!("{name} {variable}\n")),
            }
        }
        return shell.print(&lines).await;
    }
    for operand in operands {
        let (variable, value) = match operand.split_once('=') {
            Some((variable, value)) => (variable, Some(value)),
            None => (operand.as_str(), None),
        };
        if !is_name(variable) {
            return shell.fail(&format!("{operand}: bad variable name")).await;
        }
        if let Some(value) = value {
            shell.assign(variable, value.to_owned()).await?;
        }
        let state = shell.variables.entry(variable);
        match readonly {
            true => state.readonly = true,
            false => state.exported = !options.contains(&'n'),
        }
    }
    Ok(0)
}

pub async fn unset(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let (options, operands) = match letters(&arguments, "fv") {
        Ok(found) => found,
        Err(letter) => return shell.fail(&format!("illegal option -{letter}")).await,
    };
    for name in arguments.get(operands..).unwrap_or_default() {
        if options.last() == Some(&'f') {
            Rc::make_mut(&mut shell.functions).remove(name);
            continue;
        }
        if !is_name(name) {
            return shell.fail(&format!("{name}: bad variable name")).await;
        }
        if let Err(message) = shell.variables.unset(name) {
            return shell.fail(&message).await;
        }
    }
    Ok(0)
}

pub async fn local(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    if shell.scopes.is_empty() {
        return shell.fail("not in a function").await;
    }
    for operand in arguments.get(1..).unwrap_or_default() {
        let (name, value) = match operand.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (operand.as_str(), None),
        };
        if !is_name(name) {
            return shell.fail(&format!("{operand}: bad variable name")).await;
        }
        shell.localize(name);
        match value {
            Some(value) => shell.assign(name, value.to_owned()).await?,
            // As busybox has it: a local variable begins without a value.
            None => shell.variables.entry(name).value = None,
        }
    }
    Ok(0)
}

pub async fn let_(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let mut value = 0;
    for expression in arguments.get(1..).unwrap_or_default() {
        value = match arithmetic::evaluate(expression, &mut shell.variables) {
            Ok(value) => value,
            Err(message) => return shell.fail(&message).await,
        };
    }
    Ok(i32::from(value == 0))
}

pub async fn shift(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let count = match arguments.get(1) {
        None => 1,
        Some(text) => match text.parse::<usize>() {
            Ok(count) => count,
            Err(_) => return shell.fail(&format!("Illegal number: {text}")).await,
        },
    };
    if count > shell.arguments.len() {
        return Ok(1);
    }
    Rc::make_mut(&mut shell.arguments).drain(..count);
    shell.getopts = (1, 0);
    Ok(0)
}

pub async fn set(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    if arguments.len() == 1 {
        let mut lines = String::new();
        for (name, variable) in shell.variables.iter() {
            if let Some(value) = &variable.value {
                lines.push_str(&format!("{name}={}\n", quote::always(value)));
            }
        }
        return shell.print(&lines).await;
    }
    let mut rest = arguments.into_iter().skip(1).peekable();
    let mut positional = false;
    while let Some(argument) = rest.peek().cloned() {
        let on = argument.starts_with('-');
        if !on && !argument.starts_with('+') || argument == "+" {
            break;
        }
        if argument == "-" || argument == "--" {
            positional = argument == "--" || rest.len() > 1;
            if argument == "-" {
                shell.options.set("xtrace", false);
                shell.options.set("verbose", false);
            }
            rest.next();
            break;
        }
        let Some(argument) = rest.next() else { break };
        for letter in argument.chars().skip(1) {
            if letter == 'o' {
                match rest.next() {
                    Some(name) => {
                        if !shell.options.set(&name, on) {
                            return shell
                                .fail(&format!(
                                    "illegal option {}o {name}",
                                    if on { '-' } else { '+' }
                                ))
                                .await;
                        }
                    }
                    None => {
                        let text = options(shell, on);
                        shell.print(&text).await?;
                    }
                }
            } else if matches!(letter, 'i' | 's') || !shell.options.set_letter(letter, on) {
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
    if positional || rest.peek().is_some() {
        shell.arguments = Rc::new(rest.collect());
        shell.getopts = (1, 0);
    }
    Ok(0)
}

/// All options, for people (`set -o`) or to be read back (`set +o`).
fn options(shell: &Shell, readable: bool) -> String {
    let mut lines = String::new();
    if readable {
        lines.push_str("Current option settings\n");
    }
    for (name, on) in shell.options.list() {
        match readable {
            true => lines.push_str(&format!("{name:<16}{}\n", if on { "on" } else { "off" })),
            false => lines.push_str(&format!("set {}o {name}\n", if on { '-' } else { '+' })),
        }
    }
    lines
}

pub async fn getopts(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let (Some(known), Some(name)) = (arguments.get(1).cloned(), arguments.get(2).cloned()) else {
        return shell.fail("usage: getopts optstring var [arg]").await;
    };
    let operands = match arguments.len() > 3 {
        true => arguments.get(3..).unwrap_or_default().to_vec(),
        false => shell.arguments.to_vec(),
    };
    let quiet = known.starts_with(':');
    let (mut index, mut inside) = shell.getopts;
    index = index.max(1);
    let mut letter = None;
    if let Some(argument) = operands.get(index - 1) {
        let letters: Vec<char> = argument.chars().collect();
        if inside == 0 {
            if argument == "--" {
                index += 1;
            } else if letters.len() > 1 && letters.first() == Some(&'-') {
                inside = 1;
            }
        }
        if inside > 0 {
            letter = letters.get(inside).copied();
            inside += 1;
            if inside >= letters.len() {
                inside = 0;
                index += 1;
            }
        }
    }
    let Some(letter) = letter else {
        finish(shell, index, 0, &name, "?").await?;
        return Ok(1);
    };
    let place = known
        .chars()
        .position(|known| known == letter && known != ':');
    let Some(place) = place else {
        let _ = shell.variables.unset("OPTARG");
        match quiet {
            true => shell.assign("OPTARG", letter.into()).await?,
            false => usage(shell, &format!("Illegal option -{letter}")).await,
        }
        finish(shell, index, inside, &name, "?").await?;
        return Ok(0);
    };
    if known.chars().nth(place + 1) != Some(':') {
        shell.assign("OPTARG", String::new()).await?;
        finish(shell, index, inside, &name, &letter.to_string()).await?;
        return Ok(0);
    }
    // The rest of this argument, or the next one.
    let value = match inside {
        0 => {
            let value = operands.get(index - 1).cloned();
            index += usize::from(value.is_some());
            value
        }
        inside => {
            let value = operands
                .get(index - 1)
                .map(|argument| argument.chars().skip(inside).collect());
            index += 1;
            value
        }
    };
    match value {
        Some(value) => {
            shell.assign("OPTARG", value).await?;
            finish(shell, index, 0, &name, &letter.to_string()).await?;
        }
        None if quiet => {
            shell.assign("OPTARG", letter.into()).await?;
            finish(shell, index, 0, &name, ":").await?;
        }
        None => {
            let _ = shell.variables.unset("OPTARG");
            usage(shell, &format!("No arg for -{letter} option")).await;
            finish(shell, index, 0, &name, "?").await?;
        }
    }
    Ok(0)
}

/// Words of `getopts`, which speaks for the script.
async fn usage(shell: &mut Shell, message: &str) {
    let stream = shell.descriptor(2);
    // Nobody is left to tell.
    let _ = stream.write_all(format!("{message}\n").as_bytes()).await;
}

async fn finish(
    shell: &mut Shell,
    index: usize,
    inside: usize,
    name: &str,
    value: &str,
) -> Outcome<()> {
    shell.assign("OPTIND", index.to_string()).await?;
    shell.getopts = (index, inside);
    shell.assign(name, value.to_owned()).await
}
