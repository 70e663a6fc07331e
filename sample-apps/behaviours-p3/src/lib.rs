//! What WASI 0.3 does on this host, a row at a time: `runtime/tests/behaviours.rs` has the table, with what the interface's
//! text promises and what these rows have to say.
//!
//! A row of `wasi:http` is a path, any other is the first argument of the command. Each says in one line what it saw.
//! `volume/DIRECTORY` takes a script in the arguments after it instead (`volume.rs`).

mod cli;
mod clocks;
mod filesystem;
mod http;
mod volume;

use wasip3::exports::cli::run;
use wasip3::exports::http::handler;
use wasip3::http::types::{ErrorCode, Request, Response};

struct Behaviours;

impl run::Guest for Behaviours {
    async fn run() -> Result<(), ()> {
        let row = std::env::args().nth(1).unwrap_or_default();
        if let Some(directory) = row.strip_prefix("volume") {
            volume::script(directory, std::env::args().skip(2)).await;
            return Ok(());
        }
        let saw = match row.split_once('/') {
            Some(("cli", row)) => cli::row(row).await?,
            Some(("clocks", row)) => clocks::clock(row).await,
            Some(("random", row)) => clocks::random(row),
            Some(("filesystem", row)) => filesystem::row(row).await,
            _ => None,
        };
        println!(
            "{}",
            saw.unwrap_or_else(|| format!("there is no row {row}"))
        );
        Ok(())
    }
}

impl handler::Guest for Behaviours {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        http::row(request).await
    }
}

wasip3::cli::command::export!(Behaviours);
wasip3::http::service::export!(Behaviours);
