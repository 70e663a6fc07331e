//! `test`, `[` and `[[`.
//!
//! `[[` is as in busybox: its words are not split and `&&` and `||` are among them, but right sides are texts, not
//! patterns.

use std::fs::{self, Metadata};
use std::path::PathBuf;

use crate::sh::is_executable;
use crate::sh::shell::{Outcome, Shell};

/// How deep `!` and `(` may nest.
const DEPTH_MAX: u32 = 100;

pub async fn test(shell: &mut Shell, arguments: Vec<String>) -> Outcome {
    let mut operands = arguments.get(1..).unwrap_or_default();
    let close = match arguments
        .first()
        .map(|name| name.rsplit('/').next().unwrap_or_default())
    {
        Some("[") => Some("]"),
        Some("[[") => Some("]]"),
        _ => None,
    };
    if let Some(close) = close {
        match operands.split_last() {
            Some((last, rest)) if last == close => operands = rest,
            _ => return shell.refuse(&format!("missing {close}"), 2).await,
        }
    }
    let outcome = Test {
        words: operands,
        at: 0,
        shell,
        depth: 0,
    }
    .run();
    match outcome {
        Ok(true) => Ok(0),
        Ok(false) => Ok(1),
        Err(message) => shell.refuse(&message, 2).await,
    }
}

struct Test<'a> {
    words: &'a [String],
    at: usize,
    shell: &'a Shell,
    depth: u32,
}

const BINARY: [&str; 16] = [
    "=", "==", "!=", "<", ">", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef", "-a",
    "-o",
];

fn is_unary(word: &str) -> bool {
    matches!(word.strip_prefix('-').map(str::as_bytes), Some([letter]) if b"bcdefghknprstuwxzLOGS".contains(letter))
}

impl Test<'_> {
    fn word(&self, ahead: usize) -> Option<&str> {
        self.words.get(self.at + ahead).map(String::as_str)
    }

    /// POSIX tells by the number of words what they are, up to four.
    fn run(&mut self) -> Result<bool, String> {
        match self.words {
            [] => return Ok(false),
            [word] => return Ok(!word.is_empty()),
            [bang, word] if bang == "!" => return Ok(word.is_empty()),
            [left, operator, right] if BINARY.contains(&operator.as_str()) => {
                return self.binary(left, operator, right);
            }
            [bang, rest @ ..] if bang == "!" && (rest.len() == 2 || rest.len() == 3) => {
                let mut inner = Test {
                    words: rest,
                    at: 0,
                    shell: self.shell,
                    depth: self.depth + 1,
                };
                return inner.run().map(|held| !held);
            }
            _ => {}
        }
        let held = self.or()?;
        match self.word(0) {
            None => Ok(held),
            Some(word) => Err(format!("{word}: unknown operand")),
        }
    }

    fn or(&mut self) -> Result<bool, String> {
        let mut held = self.and()?;
        while matches!(self.word(0), Some("-o" | "||")) {
            self.at += 1;
            held |= self.and()?;
        }
        Ok(held)
    }

    fn and(&mut self) -> Result<bool, String> {
        let mut held = self.not()?;
        while matches!(self.word(0), Some("-a" | "&&")) {
            self.at += 1;
            held &= self.not()?;
        }
        Ok(held)
    }

    fn not(&mut self) -> Result<bool, String> {
        let mut negated = false;
        while self.word(0) == Some("!")
            && !self
                .word(1)
                .is_none_or(|next| BINARY.contains(&next) && self.word(2).is_some())
        {
            negated = !negated;
            self.at += 1;
        }
        self.primary().map(|held| held != negated)
    }

    fn primary(&mut self) -> Result<bool, String> {
        let Some(first) = self.word(0).map(str::to_owned) else {
            return Err("argument expected".to_owned());
        };
        let is_binary =
            |operator: &&str| BINARY.contains(operator) && !matches!(*operator, "-a" | "-o");
        if let (Some(operator), Some(right)) = (self.word(1).filter(is_binary), self.word(2)) {
            let held = self.binary(&first, operator, right);
            self.at += 3;
            return held;
        }
        if first == "(" && self.word(1).is_some() {
            if self.depth >= DEPTH_MAX {
                return Err("nested too deeply".to_owned());
            }
            self.at += 1;
            self.depth += 1;
            let held = self.or()?;
            self.depth -= 1;
            if self.word(0) != Some(")") {
                return Err("closing paren expected".to_owned());
            }
            self.at += 1;
            return Ok(held);
        }
        if is_unary(&first) {
            if let Some(operand) = self.word(1).map(str::to_owned) {
                self.at += 2;
                return self.unary(&first, &operand);
            }
            if self.words.len() > 1 {
                return Err("argument expected".to_owned());
            }
        }
        self.at += 1;
        Ok(!first.is_empty())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        (!name.is_empty()).then(|| self.shell.cwd.join(name))
    }

    fn metadata(&self, name: &str) -> Option<Metadata> {
        fs::metadata(self.path(name)?).ok()
    }

    fn unary(&self, operator: &str, operand: &str) -> Result<bool, String> {
        let is = |check: fn(&Metadata) -> bool| {
            self.metadata(operand)
                .is_some_and(|metadata| check(&metadata))
        };
        Ok(match operator {
            "-z" => operand.is_empty(),
            "-n" => !operand.is_empty(),
            "-e" => is(|_| true),
            "-f" => is(Metadata::is_file),
            "-d" => is(Metadata::is_dir),
            "-s" => is(|metadata| metadata.len() > 0),
            "-r" => is(readable),
            "-w" => is(|metadata| !metadata.permissions().readonly()),
            "-x" => is(|metadata| metadata.is_dir() || is_executable(metadata)),
            "-h" | "-L" => self
                .path(operand)
                .and_then(|path| fs::symlink_metadata(path).ok())
                .is_some_and(|metadata| metadata.is_symlink()),
            "-O" | "-G" => is(|_| true),
            "-t" => {
                let number = self.integer(operand)?;
                u32::try_from(number)
                    .is_ok_and(|number| self.shell.descriptor(number).is_terminal())
            }
            "-p" | "-S" | "-b" | "-c" => {
                // Of these kinds only the null device is told apart from a file.
                operator == "-c"
                    && self
                        .metadata(operand)
                        .is_some_and(|metadata| !metadata.is_file() && !metadata.is_dir())
            }
            _ => false,
        })
    }

    fn integer(&self, text: &str) -> Result<i64, String> {
        text.trim()
            .parse()
            .map_err(|_| format!("{text}: bad number"))
    }

    fn binary(&self, left: &str, operator: &str, right: &str) -> Result<bool, String> {
        let modified = |name: &str| {
            self.metadata(name)
                .and_then(|metadata| metadata.modified().ok())
        };
        Ok(match operator {
            "=" | "==" => left == right,
            "!=" => left != right,
            "<" => left < right,
            ">" => left > right,
            "-a" => !left.is_empty() && !right.is_empty(),
            "-o" => !left.is_empty() || !right.is_empty(),
            "-nt" => match (modified(left), modified(right)) {
                (Some(left), Some(right)) => left > right,
                _ => false,
            },
            "-ot" => match (modified(left), modified(right)) {
                (Some(left), Some(right)) => left < right,
                _ => false,
            },
            "-ef" => {
                let whole =
                    |name: &str| self.path(name).and_then(|path| fs::canonicalize(path).ok());
                whole(left).is_some() && whole(left) == whole(right)
            }
            _ => {
                let (left, right) = (self.integer(left)?, self.integer(right)?);
                match operator {
                    "-eq" => left == right,
                    "-ne" => left != right,
                    "-lt" => left < right,
                    "-le" => left <= right,
                    "-gt" => left > right,
                    _ => left >= right,
                }
            }
        })
    }
}

#[cfg(unix)]
fn readable(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o444 != 0
}

/// Files of a component have no modes: what is there can be read.
#[cfg(not(unix))]
fn readable(_: &Metadata) -> bool {
    true
}
