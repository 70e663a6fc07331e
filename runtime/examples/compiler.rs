//! The compiling child of a program that embeds the runtime; weft's own is `weft compile`.
//!
//! `compiler [MEMORY_BYTES CPU_SECONDS]` reads a component on stdin and writes machine code to stdout.
//! [`weft_runtime::EngineBuilder::compiler`] starts it.

use std::process::ExitCode;

use weft_runtime::{CompileLimits, compile_main};

fn main() -> ExitCode {
    let mut limits = CompileLimits::default();
    let mut numbers = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse().ok());
    if let (Some(memory_bytes), Some(cpu_seconds)) = (numbers.next(), numbers.next()) {
        limits = CompileLimits {
            memory_bytes,
            cpu_seconds,
        };
    }
    compile_main(limits)
}
