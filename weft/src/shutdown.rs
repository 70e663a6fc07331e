//! How a process learns that it should end: a signal, or the death of its parent.

use std::io::Read as _;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell gives for a program that SIGINT ended.
const AT_ONCE: i32 = 130;

/// A token that is cancelled by the first SIGINT or SIGTERM. A second signal ends the process at once,
/// with the exit code a shell gives for it, so that a stuck drain never traps the user.
///
/// # Errors
/// What the kernel answers when the handlers cannot be installed.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = token.clone();
    tokio::spawn(async move {
        let mut signals = 0;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            signals += 1;
            if signals > 1 {
                std::process::exit(AT_ONCE);
            }
            stop.cancel();
        }
    });
    Ok(token)
}

/// Cancels `token` when stdin ends, so a parent that keeps the other end of the pipe open takes its children with it
/// however it dies. A parent that dies while its child drains was told to stop at once, and so the child does.
pub fn on_stdin_end(token: CancellationToken) {
    let watch = move || {
        let mut byte = [0_u8; 64];
        let mut stdin = std::io::stdin().lock();
        while matches!(stdin.read(&mut byte), Ok(1..)) {}
        if token.is_cancelled() {
            std::process::exit(AT_ONCE);
        }
        token.cancel();
    };
    // Blocked in read until the end of the process: not a task, and joined by nobody.
    if let Err(error) = std::thread::Builder::new()
        .name("parent".into())
        .spawn(watch)
    {
        tracing::warn!(%error, "cannot watch the parent process");
    }
}
