//! The program: one thread, one subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    let code = agnhost::command::run(&argv);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
