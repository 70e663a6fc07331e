//! The images whose program is a web server: `nautilus`, `kitten`, `nginx`, `httpd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().collect();
    let code = agnhost::command::run_by_default(&argv, "test-webserver");
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
