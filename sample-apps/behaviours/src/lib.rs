//! What WASI 0.2 does on this host, a row at a time: `runtime/tests/behaviours.rs` has the table, with what the interface's
//! text promises and what these rows have to say.
//!
//! A row of `wasi:http` is a path, any other is the first argument of the command. Each says in one line what it saw.
//! `volume/DIRECTORY` takes a script in the arguments after it instead (`volume.rs`).

mod cli;
mod clocks;
mod filesystem;
mod http;
mod volume;

use wasip2::exports::cli::run;
use wasip2::exports::http::incoming_handler;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Behaviours;

impl run::Guest for Behaviours {
    fn run() -> Result<(), ()> {
        let row = std::env::args().nth(1).unwrap_or_default();
        if let Some(directory) = row.strip_prefix("volume") {
            volume::script(directory, std::env::args().skip(2));
            return Ok(());
        }
        let saw = match row.split_once('/') {
            Some(("cli", row)) => cli::row(row)?,
            Some(("clocks", row)) => clocks::clock(row),
            Some(("random", row)) => clocks::random(row),
            Some(("filesystem", row)) => filesystem::row(row),
            _ => None,
        };
        println!(
            "{}",
            saw.unwrap_or_else(|| format!("there is no row {row}"))
        );
        Ok(())
    }
}

impl incoming_handler::Guest for Behaviours {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        http::row(request, out);
    }
}

wasip2::cli::command::export!(Behaviours);
wasip2::http::proxy::export!(Behaviours);
