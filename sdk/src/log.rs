//! Lines for the container's log.
//!
//! A line is written to stdout in one piece, `LEVEL text`, and the node adds the time. Anything printed with
//! `println!` arrives there as well.
//!
//! ```
//! # use weft_sdk as weft;
//! weft::info!("voted for {}", ":tada:");
//! ```

use std::fmt;
use std::io::Write;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Something happened, as intended.
    Info,
    /// Something happened that someone should look at when there is time.
    Warn,
    /// Something failed.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        })
    }
}

/// Writes one line; the macros [`info!`](crate::info), [`warn!`](crate::warn), [`error!`](crate::error) are shorter.
pub fn line(level: Level, text: fmt::Arguments<'_>) {
    let line = format!("{level} {text}\n");
    // A log nobody takes any more is no reason to fail the work that was logged.
    let _ = std::io::stdout().write_all(line.as_bytes());
}

/// Logs a line of level [`Level::Info`](crate::log::Level::Info), with `format!`'s arguments.
#[macro_export]
macro_rules! info {
    ($($argument:tt)+) => { $crate::log::line($crate::log::Level::Info, ::core::format_args!($($argument)+)) };
}

/// Logs a line of level [`Level::Warn`](crate::log::Level::Warn), with `format!`'s arguments.
#[macro_export]
macro_rules! warn {
    ($($argument:tt)+) => { $crate::log::line($crate::log::Level::Warn, ::core::format_args!($($argument)+)) };
}

/// Logs a line of level [`Level::Error`](crate::log::Level::Error), with `format!`'s arguments.
#[macro_export]
macro_rules! error {
    ($($argument:tt)+) => { $crate::log::line($crate::log::Level::Error, ::core::format_args!($($argument)+)) };
}
