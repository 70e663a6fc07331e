//! Logs of the program itself: one line an event on stderr, filtered by `WEFT_LOG`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// What is logged when `WEFT_LOG` says nothing: our own news, and only warnings of libraries.
const FILTER_DEFAULT: &str = "warn,weft=info,weft_agent=info,weft_apiserver=info,weft_mesh=info,weft_runtime=info,weft_store=info";

/// Starts logging. A second call in one process changes nothing.
pub fn init(json: bool) {
    let filter =
        EnvFilter::try_from_env("WEFT_LOG").unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // An embedder may have set its own subscriber; then its choice stands.
    let _ = if json {
        builder.json().try_init()
    } else {
        builder.with_target(true).try_init()
    };
}
