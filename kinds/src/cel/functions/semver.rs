//! Semantic versions.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Function, Outcome};
use crate::cel::eval::Error;
use crate::cel::value::Value;

/// A version; what stands behind `+` does not count.
#[derive(Debug, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    /// Parts of the pre-release; none for a release.
    pre: Vec<Part>,
}

/// Numbers come before words.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "semver",
        overloads: &[
            ("string_to_semver", "(string) Semver"),
            ("string_bool_to_semver", "(string, bool) Semver"),
        ],
        run: |args, _| match parsed(args) {
            Some(Ok(version)) => Ok(Some(Value::Semver(Arc::new(version)))),
            Some(Err(reason)) => Err(Error::new(reason)),
            None => Ok(None),
        },
    },
    Function {
        name: "isSemver",
        overloads: &[
            ("is_semver_string", "(string) bool"),
            ("is_semver_string_bool", "(string, bool) bool"),
        ],
        run: |args, _| Ok(parsed(args).map(|parsed| Value::Bool(parsed.is_ok()))),
    },
    Function {
        name: "isGreaterThan",
        overloads: &[("semver_is_greater_than", "Semver.(Semver) bool")],
        run: |args, _| Ok(compared(args).map(|order| Value::Bool(order.is_gt()))),
    },
    Function {
        name: "isLessThan",
        overloads: &[("semver_is_less_than", "Semver.(Semver) bool")],
        run: |args, _| Ok(compared(args).map(|order| Value::Bool(order.is_lt()))),
    },
    Function {
        name: "compareTo",
        overloads: &[("semver_compare_to", "Semver.(Semver) int")],
        run: |args, _| Ok(compared(args).map(|order| Value::Int(order as i64))),
    },
    Function {
        name: "major",
        overloads: &[("semver_major", "Semver.() int")],
        run: |args, _| number(args, 0),
    },
    Function {
        name: "minor",
        overloads: &[("semver_minor", "Semver.() int")],
        run: |args, _| number(args, 1),
    },
    Function {
        name: "patch",
        overloads: &[("semver_patch", "Semver.() int")],
        run: |args, _| number(args, 2),
    },
];

fn parsed(args: &[Value<'_>]) -> Option<Result<Semver, String>> {
    match args {
        [Value::String(text)] => Some(Semver::parse(text)),
        [Value::String(text), Value::Bool(normalize)] => Some(match normalize {
            true => Semver::parse(&normalized(text)),
            false => Semver::parse(text),
        }),
        _ => None,
    }
}

fn compared(args: &[Value<'_>]) -> Option<Ordering> {
    match args {
        [Value::Semver(a), Value::Semver(b)] => Some((**a).cmp(b)),
        _ => None,
    }
}

fn number<'a>(args: &[Value<'a>], index: usize) -> Outcome<'a> {
    match args {
        [Value::Semver(version)] => {
            let number = i64::try_from(version.numbers[index]);
            Ok(Some(Value::Int(number.unwrap_or(i64::MAX))))
        }
        _ => Ok(None),
    }
}

/// Without `v` and leading zeros, and with the numbers that are missing.
fn normalized(text: &str) -> String {
    let text = text.trim_start_matches('v');
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let mut parts: Vec<&str> = numbers
        .split('.')
        .map(|part| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0",
            trimmed => trimmed,
        })
        .collect();
    if rest.is_empty() {
        while parts.len() < 3 {
            parts.push("0");
        }
    }
    format!("{}{rest}", parts.join("."))
}

impl Semver {
    fn parse(text: &str) -> Result<Self, String> {
        let (text, build) = match text.split_once('+') {
            Some((text, build)) => (text, Some(build)),
            None => (text, None),
        };
        let (core, pre) = match text.split_once('-') {
            Some((core, pre)) => (core, Some(pre)),
            None => (text, None),
        };
        let word = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if let Some(build) = build
            && !build.split('.').all(word)
        {
            return Err(format!(
                "Invalid character(s) found in build meta data {build:?}"
            ));
        }
        let parts: Vec<&str> = core.split('.').collect();
        let [major, minor, patch] = parts[..] else {
            return Err("No Major.Minor.Patch elements found".to_owned());
        };
        let number = |part: &str| -> Result<u64, String> {
            if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(format!(
                    "Invalid character(s) found in version number {part:?}"
                ));
            }
            if part.len() > 1 && part.starts_with('0') {
                return Err(format!(
                    "Version number must not contain leading zeroes {part:?}"
                ));
            }
            part.parse()
                .map_err(|_| format!("version number {part:?} is out of range"))
        };
        let pre = match pre {
            None => Vec::new(),
            Some(pre) => pre
                .split('.')
                .map(
                    |part| match part.bytes().all(|byte| byte.is_ascii_digit()) {
                        true if !part.is_empty() => number(part).map(Part::Number),
                        _ if word(part) => Ok(Part::Word(part.to_owned())),
                        _ => Err(format!("Invalid character(s) found in prerelease {part:?}")),
                    },
                )
                .collect::<Result<_, _>>()?,
        };
        Ok(Self {
            numbers: [number(major)?, number(minor)?, number(patch)?],
            pre,
        })
    }

    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| {
            // A release comes behind its pre-releases.
            match (self.pre.is_empty(), other.pre.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => self.pre.cmp(&other.pre),
            }
        })
    }
}
