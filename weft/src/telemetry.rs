//! Logs of the program itself: one line an event on stderr, filtered by `WEFT_LOG`.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// What is logged when `WEFT_LOG` says nothing: our own news, and only warnings of libraries. The client library logs each
/// failed connection as an error, and hands it to whoever called it, who says more.
const FILTER_DEFAULT: &str = "warn,kube_client::client::builder=off,weft=info,weft_agent=info,weft_apiserver=info,weft_mesh=info,weft_runtime=info,weft_store=info";

/// Starts logging. A second call in one process changes nothing.
pub fn init(json: bool) {
    let (filter, refused) = filter(std::env::var("WEFT_LOG").ok().as_deref());
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !plain);
    // An embedder may have set its own subscriber; then its choice stands.
    let _ = if json {
        builder.json().try_init()
    } else {
        builder.with_target(true).try_init()
    };
    if let Some(reason) = refused {
        tracing::warn!(reason, "WEFT_LOG is not used; write it as weft=debug,warn");
    }
}

/// The filter that `WEFT_LOG` asks for, or the default one and why it was not used.
fn filter(wanted: Option<&str>) -> (EnvFilter, Option<String>) {
    match wanted
        .filter(|wanted| !wanted.is_empty())
        .map(EnvFilter::try_new)
    {
        None => (EnvFilter::new(FILTER_DEFAULT), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(FILTER_DEFAULT), Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::filter;

    #[test]
    fn a_filter_that_cannot_be_read_is_said_and_replaced() {
        for (wanted, used, refused) in [
            (None, "weft_agent=info", false),
            (Some(""), "weft_agent=info", false),
            (Some("weft=debug"), "weft=debug", false),
            (Some("weft=loud"), "weft_agent=info", true),
        ] {
            let (filter, reason) = filter(wanted);
            assert!(filter.to_string().contains(used), "{wanted:?}: {filter}");
            assert_eq!(reason.is_some(), refused, "{wanted:?}: {reason:?}");
        }
    }
}
