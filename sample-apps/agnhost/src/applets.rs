//! The toolbox' commands, which tests run in this image, too: `sh`, `nc`, `curl` and the others.

use crate::Code;

/// Whether there is such a command.
pub(crate) fn is_known(_name: &str) -> bool {
    false
}

/// Runs one.
pub(crate) fn run(argv: &[String]) -> Code {
    let name = argv.first().map_or("", String::as_str);
    eprintln!("{name}: applet not found");
    127
}
