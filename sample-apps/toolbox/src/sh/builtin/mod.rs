//! The shell's own commands.

mod command;
mod control;
mod job;
mod output;
mod place;
mod read;
mod test;
mod variable;

use super::shell::{Outcome, Pending, Shell};

/// A builtin: gets the shell and all arguments, the name first.
pub type Builtin = for<'a> fn(&'a mut Shell, Vec<String>) -> Pending<'a, Outcome>;

/// A table's entry out of an `async fn(&mut Shell, Vec<String>) -> Outcome`.
macro_rules! table {
    ($($name:literal => $function:path,)*) => {
        &[$(($name, |shell, arguments| Box::pin($function(shell, arguments)))),*]
    };
}

/// Those whose errors end the shell and whose assignments stay.
const SPECIAL: &[(&str, Builtin)] = table! {
    "." => control::source,
    ":" => control::succeed,
    "break" => control::leave_loop,
    "continue" => control::leave_loop,
    "eval" => control::eval,
    "exec" => control::exec,
    "exit" => control::exit,
    "export" => variable::export,
    "local" => variable::local,
    "readonly" => variable::export,
    "return" => control::return_,
    "set" => variable::set,
    "shift" => variable::shift,
    "source" => control::source,
    "times" => control::times,
    "trap" => control::trap,
    "unset" => variable::unset,
};

const REGULAR: &[(&str, Builtin)] = table! {
    "[" => test::test,
    "[[" => test::test,
    "alias" => command::alias,
    "bg" => job::bg,
    "cd" => place::cd,
    "chdir" => place::cd,
    "command" => command::command,
    "echo" => output::echo,
    "false" => control::fail,
    "fg" => job::fg,
    "getopts" => variable::getopts,
    "hash" => command::hash,
    "help" => command::help,
    "jobs" => job::jobs,
    "kill" => job::kill,
    "let" => variable::let_,
    "printf" => output::printf,
    "pwd" => place::pwd,
    "read" => read::read,
    "test" => test::test,
    "true" => control::succeed,
    "type" => command::type_,
    "ulimit" => command::ulimit,
    "umask" => place::umask,
    "unalias" => command::unalias,
    "wait" => job::wait,
};

fn find(table: &[(&str, Builtin)], name: &str) -> Option<Builtin> {
    table
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, builtin)| *builtin)
}

pub fn special(name: &str) -> Option<Builtin> {
    find(SPECIAL, name)
}

pub fn regular(name: &str) -> Option<Builtin> {
    find(REGULAR, name)
}

pub fn names() -> impl Iterator<Item = &'static str> {
    SPECIAL.iter().chain(REGULAR).map(|(name, _)| *name)
}

impl Shell {
    /// Says an error of a builtin; its status.
    pub(super) async fn refuse(&mut self, message: &str, status: i32) -> Outcome {
        self.complain(message).await;
        Ok(status)
    }
}

/// Options of one letter each from the front of the arguments: the letters, and where the operands begin. The letter
/// that is not known otherwise.
fn letters(arguments: &[String], known: &str) -> Result<(Vec<char>, usize), char> {
    let mut found = Vec::new();
    for (place, argument) in arguments.iter().enumerate().skip(1) {
        match argument.strip_prefix('-') {
            None | Some("") => return Ok((found, place)),
            Some("-") => return Ok((found, place + 1)),
            Some(letters) => {
                for letter in letters.chars() {
                    if !known.contains(letter) {
                        return Err(letter);
                    }
                    found.push(letter);
                }
            }
        }
    }
    Ok((found, arguments.len()))
}
