//! `weft worker`: the process that holds the guests of one namespace, and nothing else.

use std::process::ExitCode;

use weft_runtime::{Engine, worker};

use crate::telemetry;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose guests it holds; only for whoever looks at the process table
    namespace: Option<String>,
    /// Lock this process down as a worker is, try one forbidden thing, and say what came of it; without a name, list them
    #[arg(long, num_args = 0..=1, value_name = "NAME")]
    self_test: Option<Option<String>>,
}

/// Call it before any thread is started.
pub fn run(args: &Args) -> ExitCode {
    if let Some(name) = &args.self_test {
        return worker::self_test(name.as_deref());
    }
    telemetry::init(false);
    worker::worker_main(Engine::builder())
}
