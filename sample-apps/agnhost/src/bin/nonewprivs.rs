//! The image `nonewprivs`: says as whom it runs.

use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    let code = agnhost::command::run_by_default(&argv, "nonewprivs");
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
