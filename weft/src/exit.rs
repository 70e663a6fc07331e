//! How a command ends badly: one sentence what, one why, one next step, and an exit code.
//!
//! Commands return [`anyhow::Result`]; a [`Failure`] anywhere in the chain decides how it is shown. Any
//! other error is shown with its chain of causes, each once.

use std::fmt;

/// A refusal or failure that the reader can do something about.
#[derive(Debug)]
pub struct Failure {
    pub what: String,
    pub why: String,
    /// What to try next; empty when there is nothing sensible to say.
    pub next: String,
    pub code: u8,
}

/// Exit code of a command that failed at what it was asked to do.
const CODE_FAILED: u8 = 1;
/// Exit code of a command whose arguments or input files cannot be used.
pub const CODE_USAGE: u8 = 2;

impl Failure {
    pub fn new(what: impl Into<String>, why: impl fmt::Display, next: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: why.to_string(),
            next: next.into(),
            code: CODE_FAILED,
        }
    }

    #[must_use]
    pub fn usage(mut self) -> Self {
        self.code = CODE_USAGE;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl std::error::Error for Failure {}

/// Prints an error to stderr and gives the exit code for it.
pub fn report(error: &anyhow::Error) -> u8 {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        eprintln!("error: {}", failure.what);
        eprintln!("  why: {}", failure.why);
        if !failure.next.is_empty() {
            eprintln!("  try: {}", failure.next);
        }
        return failure.code;
    }
    eprintln!("error: {}", Chain(error.as_ref()));
    CODE_FAILED
}

/// An error and its causes in one line, leaving out a cause that its parent already repeats.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.to_string();
        f.write_str(&shown)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !shown.contains(&text) {
                write!(f, ": {text}")?;
                shown = text;
            }
            source = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow::anyhow!("disk full")
            .context("writing the log: disk full")
            .context("starting");
        assert_eq!(
            Chain(error.as_ref()).to_string(),
            "starting: writing the log: disk full"
        );
    }
}
