//! Options before and between arguments, as getopt reads them.
//!
//! A specification is getopt's: `"abn:"` has `-n` take a value; a leading `+` ends options at the first argument that is none; `::`
//! marks a value that only `-nVALUE` gives. Long options are names for short ones; a name for a letter that takes a value takes one too.

use super::call::{Call, Stop};

pub struct Flags {
    /// In the order of the arguments.
    pub seen: Vec<(char, String)>,
    /// What is no option.
    pub rest: Vec<String>,
}

/// How a tool is called; printed behind `Usage: ` when a call is wrong.
pub struct Usage {
    pub line: &'static str,
    pub short: &'static str,
    pub long: &'static [(&'static str, char)],
    /// The code of a wrong call.
    pub code: i32,
}

impl Usage {
    pub const fn new(line: &'static str, short: &'static str) -> Usage {
        Usage {
            line,
            short,
            long: &[],
            code: 1,
        }
    }

    pub const fn long(self, long: &'static [(&'static str, char)]) -> Usage {
        Usage { long, ..self }
    }

    pub const fn code(self, code: i32) -> Usage {
        Usage { code, ..self }
    }

    /// A call that is wrong in itself.
    pub fn wrong(&self) -> Stop {
        Stop::Said(self.code, format!("Usage: {}\n", self.line))
    }

    fn takes(&self, letter: char) -> Option<Takes> {
        let spec = self.short.trim_start_matches('+');
        let at = spec.find(letter).filter(|_| letter != ':')?;
        let after = spec.get(at + letter.len_utf8()..).unwrap_or_default();
        Some(match (after.starts_with("::"), after.starts_with(':')) {
            (true, _) => Takes::Attached,
            (_, true) => Takes::Value,
            _ => Takes::Nothing,
        })
    }

    /// Sorts a call's arguments.
    pub fn parse(&self, call: &Call) -> Result<Flags, Stop> {
        self.sort(&call.name, &call.args)
    }

    /// As [`Usage::parse`], for arguments that were changed beforehand.
    pub fn sort(&self, name: &str, args: &[String]) -> Result<Flags, Stop> {
        let mut flags = Flags {
            seen: Vec::new(),
            rest: Vec::new(),
        };
        let wrong =
            |text: String| Stop::Said(self.code, format!("{name}: {text}\nUsage: {}\n", self.line));
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == "--" {
                flags.rest.extend(args.by_ref().cloned());
            } else if let Some(long) = arg.strip_prefix("--") {
                let (key, value) = match long.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (long, None),
                };
                if key == "help" && !self.long.iter().any(|(name, _)| *name == "help") {
                    return Err(Stop::Said(0, format!("Usage: {}\n", self.line)));
                }
                let found = self.long.iter().find(|(name, _)| *name == key);
                let Some((_, letter)) = found else {
                    return Err(wrong(format!("unrecognized option '--{key}'")));
                };
                let value = match (self.takes(*letter), value) {
                    (Some(Takes::Value), Some(value)) => value,
                    (Some(Takes::Value), None) => args
                        .next()
                        .cloned()
                        .ok_or_else(|| wrong(format!("option '--{key}' requires an argument")))?,
                    (Some(Takes::Attached), value) => value.unwrap_or_default(),
                    (_, Some(_)) => {
                        return Err(wrong(format!("option '--{key}' doesn't allow an argument")));
                    }
                    (_, None) => String::new(),
                };
                flags.seen.push((*letter, value));
            } else if arg.len() > 1 && arg.starts_with('-') {
                let mut letters = arg.chars();
                letters.next();
                while let Some(letter) = letters.next() {
                    let value = match self.takes(letter) {
                        None => return Err(wrong(format!("invalid option -- '{letter}'"))),
                        Some(Takes::Nothing) => String::new(),
                        Some(Takes::Attached) => {
                            std::mem::replace(&mut letters, "".chars()).collect()
                        }
                        Some(Takes::Value) => {
                            let attached: String =
                                std::mem::replace(&mut letters, "".chars()).collect();
                            match attached.is_empty() {
                                false => attached,
                                true => args.next().cloned().ok_or_else(|| {
                                    wrong(format!("option requires an argument -- '{letter}'"))
                                })?,
                            }
                        }
                    };
                    flags.seen.push((letter, value));
                }
            } else {
                flags.rest.push(arg.clone());
                if self.short.starts_with('+') {
                    flags.rest.extend(args.by_ref().cloned());
                }
            }
        }
        Ok(flags)
    }
}

enum Takes {
    Nothing,
    Value,
    Attached,
}

impl Flags {
    pub fn has(&self, letter: char) -> bool {
        self.count(letter) > 0
    }

    pub fn count(&self, letter: char) -> usize {
        self.seen.iter().filter(|(seen, _)| *seen == letter).count()
    }

    /// The last value that was given.
    pub fn value(&self, letter: char) -> Option<&str> {
        self.seen
            .iter()
            .rev()
            .find(|(seen, _)| *seen == letter)
            .map(|(_, value)| value.as_str())
    }

    pub fn values(&self, letter: char) -> impl Iterator<Item = &str> {
        self.seen
            .iter()
            .filter(move |(seen, _)| *seen == letter)
            .map(|(_, value)| value.as_str())
    }

    /// Which of these letters came last.
    pub fn last_of(&self, letters: &str) -> Option<char> {
        self.seen
            .iter()
            .rev()
            .map(|(seen, _)| *seen)
            .find(|seen| letters.contains(*seen))
    }

    /// The files among the arguments; standard input if there are none.
    pub fn files(&self) -> Vec<String> {
        match self.rest.is_empty() {
            true => vec!["-".to_owned()],
            false => self.rest.clone(),
        }
    }
}

/// A number with a suffix of size: `b` is 512, `k` 1024, `m`, `g`.
pub fn size(text: &str) -> Result<u64, Stop> {
    let invalid = || Stop::failed(format!("invalid number '{text}'"));
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text.get(digits.len()..).unwrap_or_default() {
        "" | "c" => 1,
        "b" => 512,
        "k" | "K" | "KiB" => 1 << 10,
        "kB" | "KB" => 1000,
        "m" | "M" | "MiB" => 1 << 20,
        "MB" => 1_000_000,
        "g" | "G" | "GiB" => 1 << 30,
        "GB" => 1_000_000_000,
        _ => return Err(invalid()),
    };
    let number: u64 = digits.parse().map_err(|_| invalid())?;
    number.checked_mul(unit).ok_or_else(invalid)
}
