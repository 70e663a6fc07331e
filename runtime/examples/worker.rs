//! The worker process of a program that embeds the runtime; weft's own is `weft worker`.
//!
//! [`weft_runtime::worker::Worker::start`] starts it. With `self-test [NAME]` it locks itself down and tries what a worker
//! must not be able to do.

use std::process::ExitCode;

use weft_runtime::{Engine, worker};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("self-test") {
        return worker::self_test(args.next().as_deref());
    }
    worker::worker_main(Engine::builder().instances_max(64))
}
