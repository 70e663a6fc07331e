//! What a namespace asks for: a level and a version of it, for each of three modes.
//!
//! Invariants: a label that cannot be read asks for the strictest level of what is enforced, and for nothing else.

use std::fmt;

use serde_json::Value;
use weft_api::status::Cause;

use super::PREFIX;
use crate::lens::object;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

/// A level as of a version; without a number, the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standard {
    pub(super) level: Level,
    pub(super) minor: Option<u32>,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor {
            Some(minor) => write!(f, "{}:v1.{minor}", self.level),
            None => write!(f, "{}:latest", self.level),
        }
    }
}

/// What a namespace asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: Standard,
    pub(super) audit: Standard,
    pub(super) warn: Standard,
}

pub(super) fn level(text: &str) -> Option<Level> {
    Some(match text {
        "privileged" => Level::Privileged,
        "baseline" => Level::Baseline,
        "restricted" => Level::Restricted,
        _ => return None,
    })
}

/// The number of a version, none for the latest.
pub(super) fn minor(text: &str) -> Result<Option<u32>, ()> {
    if text == "latest" {
        return Ok(None);
    }
    let digits = text.strip_prefix("v1.").ok_or(())?;
    let plain = digits == "0" || !digits.starts_with('0');
    let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits
        .filter(|_| plain)
        .and_then(|digits| digits.parse().ok());
    number.map(Some).ok_or(())
}

impl Policy {
    /// What labels ask for, and what is wrong with them.
    pub(super) fn of(namespace: &Value) -> (Self, Vec<Cause>) {
        let labels = object(namespace, "/metadata/labels");
        let label = |name: &str| labels?.get(&format!("{PREFIX}{name}"))?.as_str();
        let mut causes = Vec::new();
        let mut wrong = |name: &str, value: &str, sentence: &str| {
            let field = format!("metadata.labels[{PREFIX}{name}]");
            causes.push(Cause::invalid(&field, &value.into(), sentence));
        };
        let mut read = |mode: &str, otherwise: Level| {
            let mut standard = Standard {
                level: Level::Privileged,
                minor: None,
            };
            if let Some(value) = label(mode) {
                standard.level = level(value).unwrap_or_else(|| {
                    wrong(
                        mode,
                        value,
                        "must be one of privileged, baseline, restricted",
                    );
                    otherwise
                });
            }
            let name = format!("{mode}-version");
            if let Some(value) = label(&name) {
                standard.minor = minor(value).unwrap_or_else(|()| {
                    wrong(&name, value, "must be \"latest\" or \"v1.x\"");
                    None
                });
            }
            standard
        };
        let enforce = read("enforce", Level::Restricted);
        let audit = read("audit", Level::Privileged);
        let mut warn = read("warn", Level::Privileged);
        let is_asked = label("enforce").and_then(level).is_some();
        if label("warn").is_none() && is_asked && enforce.level > warn.level {
            warn.level = enforce.level;
            if label("warn-version").is_none() {
                warn.minor = enforce.minor;
            }
        }
        let policy = Self {
            enforce,
            audit,
            warn,
        };
        (policy, causes)
    }

    pub(super) fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn]
            .iter()
            .all(|standard| standard.level == Level::Privileged)
    }
}
