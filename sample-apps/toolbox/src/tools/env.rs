//! `env` and `printenv`. Names need not be ones that a shell could assign.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::applet;

use super::call::{Call, Ended, Stop, reason};
use super::filesystem;
use super::flags::Usage;

const ENV: Usage = Usage::new(
    "env [-i0] [-u NAME]... [-C DIR] [-] [NAME=VALUE]... [PROG ARGS]",
    "+iu:0C:",
)
.long(&[
    ("ignore-environment", 'i'),
    ("unset", 'u'),
    ("null", '0'),
    ("chdir", 'C'),
]);

/// `env`
pub async fn env(call: &mut Call) -> Ended {
    let flags = ENV.parse(call).map_err(|stop| match stop {
        Stop::Said(1, text) => Stop::Said(125, text),
        stop => stop,
    })?;
    let mut rest = flags.rest.as_slice();
    let mut variables = BTreeMap::clone(&call.io.env);
    if let [dash, more @ ..] = rest
        && dash == "-"
    {
        variables.clear();
        rest = more;
    }
    if flags.has('i') {
        variables.clear();
    }
    for name in flags.values('u') {
        variables.remove(name);
    }
    while let [assignment, more @ ..] = rest
        && let Some((name, value)) = assignment.split_once('=')
    {
        variables.insert(name.to_owned(), value.to_owned());
        rest = more;
    }
    if rest.is_empty() {
        let end = if flags.has('0') { "\0" } else { "\n" };
        for (name, value) in variables {
            call.out(format!("{name}={value}{end}")).await?;
        }
        return Ok(0);
    }
    let mut io = call.io.clone();
    io.env = Rc::new(variables);
    if let Some(directory) = flags.value('C') {
        let path = call.path(directory);
        match filesystem::about(&path, true) {
            Ok(about) if about.is_directory() => io.cwd = path,
            Ok(_) => {
                return Err(Stop::Failed(
                    125,
                    format!("can't change directory to '{directory}': Not a directory"),
                ));
            }
            Err(error) => {
                let text = format!(
                    "can't change directory to '{directory}': {}",
                    reason(&error)
                );
                return Err(Stop::Failed(125, text));
            }
        }
    }
    if let Some(name) = rest.first()
        && applet::find(name).is_none()
        && !(name.contains('/') && filesystem::exists(&io.path(name)))
    {
        return Err(Stop::Failed(
            127,
            format!("can't execute '{name}': No such file or directory"),
        ));
    }
    Ok(applet::run(rest.to_vec(), io).await)
}

/// `printenv [VARIABLE]...`
pub async fn printenv(call: &mut Call) -> Ended {
    let variables = call.io.env.clone();
    let names = std::mem::take(&mut call.args);
    if names.is_empty() {
        for (name, value) in variables.iter() {
            call.out(format!("{name}={value}\n")).await?;
        }
    }
    for name in names {
        match variables.get(&name) {
            Some(value) => call.out(format!("{value}\n")).await?,
            None => call.code = 1,
        }
    }
    Ok(call.code)
}
