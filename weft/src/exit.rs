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
/// What a shell gives for a program that SIGPIPE ended.
const CODE_PIPE: u8 = 141;
/// Exit code of a command whose arguments or input files cannot be used.
pub const CODE_USAGE: u8 = 2;
/// Exit code of a server that was removed from its cluster: starting it again with its folder is of no use.
pub const CODE_REMOVED: u8 = 3;

impl Failure {
    pub fn new(what: impl Into<String>, why: impl fmt::Display, next: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: why.to_string(),
            next: next.into(),
            code: CODE_FAILED,
        }
    }

    /// What becomes of several failures of one command: nothing, the failure itself, or one that lists them.
    ///
    /// # Errors
    /// That failure.
    pub fn all(mut failures: Vec<Self>, what: &str) -> Result<(), Self> {
        if failures.len() < 2 {
            return failures.pop().map_or(Ok(()), Err);
        }
        let lines: Vec<String> = failures.iter().map(Self::to_string).collect();
        let first = failures.swap_remove(0);
        Err(Self {
            what: format!("{} {what}", lines.len()),
            why: lines.join("\n       "),
            ..first
        })
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

/// What ran in a container ended with a code, which is this program's, too.
#[derive(Debug)]
pub struct Terminated(pub u8);

impl fmt::Display for Terminated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command terminated with exit code {}", self.0)
    }
}

impl std::error::Error for Terminated {}

/// Prints an error to stderr and gives the exit code for it.
pub fn report(error: &anyhow::Error) -> u8 {
    let io = error.downcast_ref::<std::io::Error>();
    if io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
        // Whoever read our output has seen enough, as `head` does.
        return CODE_PIPE;
    }
    if let Some(ended) = error.downcast_ref::<Terminated>() {
        eprintln!("{ended}");
        return ended.0;
    }
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

/// What an error says by itself. The client library prints an answer of the API with all its fields; its message will do.
fn sentence(error: &(dyn std::error::Error + 'static)) -> String {
    // A box hides what is in it.
    let boxed = error.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref);
    let status = error.downcast_ref::<Box<kube::core::Status>>();
    if let Some(status) = status.map(AsRef::as_ref).or(error.downcast_ref()) {
        let status: &kube::core::Status = status;
        return status.message.clone();
    }
    match error.downcast_ref::<kube::Error>().or(boxed) {
        Some(kube::Error::Api(status)) => status.message.clone(),
        Some(kube::Error::Service(error)) => error.to_string(),
        _ => error.to_string(),
    }
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = sentence(self.0);
        f.write_str(&shown)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            let text = sentence(cause);
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
    fn several_failures_are_one_that_lists_them() {
        let failure = |name: &str| Failure::new(format!("cannot get {name}"), "not found", "look");
        assert!(Failure::all(Vec::new(), "failed").is_ok());
        let one = Failure::all(vec![failure("a")], "failed").unwrap_err();
        assert_eq!(one.to_string(), "cannot get a: not found");
        let two = Failure::all(vec![failure("a"), failure("b")], "objects failed").unwrap_err();
        assert_eq!(two.what, "2 objects failed");
        assert_eq!(
            two.why,
            "cannot get a: not found\n       cannot get b: not found"
        );
        assert_eq!(two.next, "look");
    }

    #[test]
    fn an_answer_of_the_api_is_its_message() {
        let status = kube::core::Status::failure("Unauthorized", "Unauthorized").with_code(401);
        let error = anyhow::Error::new(kube::Error::Api(status.boxed())).context("joining");
        assert_eq!(Chain(error.as_ref()).to_string(), "joining: Unauthorized");
    }

    #[test]
    fn a_reader_that_left_is_no_error() {
        let error = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(report(&error.into()), CODE_PIPE);
    }

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
