//! What a command prints as its result.
//!
//! `println!` panics when the reader has gone, as `weft get pods | head -1` brings about; here that is an error like any
//! other, and [`exit::report`](crate::exit::report) ends quietly on it.

use std::fmt::Display;
use std::io::{Result, Write as _};

/// Prints a line.
///
/// # Errors
/// What the system answers, such as a broken pipe.
pub fn line(text: impl Display) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")
}

/// Prints a text as it is.
///
/// # Errors
/// What the system answers, such as a broken pipe.
pub fn text(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
