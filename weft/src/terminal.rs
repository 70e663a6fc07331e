//! The terminal that a command is started in: in raw mode while somebody works in a container, and as it was afterwards.
//!
//! Invariant: whatever becomes of the command, the terminal is as it was before.

use std::io::{self, IsTerminal as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The terminal in raw mode, as long as this is there: each key goes to the container, Ctrl-C too.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// # Errors
    /// When the terminal cannot be asked.
    pub fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Whether somebody types what this program reads.
pub fn is_typed() -> bool {
    io::stdin().is_terminal()
}

/// Columns and rows; none where there is no terminal.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin()));
    let size = size.ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// What tells that the size is another.
///
/// # Errors
/// When the signal cannot be waited for.
pub fn resized() -> io::Result<Signal> {
    signal(SignalKind::window_change())
}
