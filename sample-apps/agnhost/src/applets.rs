//! The toolbox' commands, which tests run in this image, too: `sh`, `nc`, `curl` and the others.

use crate::Code;

/// Whether there is such a command.
pub(crate) fn is_known(name: &str) -> bool {
    toolbox::applet::find(name).is_some()
}

/// Runs one; its name comes first.
pub(crate) fn run(argv: &[String]) -> Code {
    toolbox::run(argv.to_vec())
}
