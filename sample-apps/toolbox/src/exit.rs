//! Leaving the process with a code of its own.

use std::io::Write;

/// Ends the process with the code, of which a component keeps the lowest byte. What std's `print!` holds back is printed before.
///
/// std itself would make a mere failure of every code but zero where the process is a component.
pub fn leave(code: i32) -> ! {
    // Where nobody reads what is printed, the code is all that is left to say.
    let _ = std::io::stdout().flush();
    #[cfg(target_os = "wasi")]
    wasip2::cli::exit::exit_with_code(code.to_le_bytes()[0]);
    std::process::exit(code)
}
