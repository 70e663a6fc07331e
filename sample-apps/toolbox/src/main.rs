//! The command: hands its arguments to [`toolbox::run`] and leaves with the code that comes back.

fn main() {
    let argv = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    leave(run(argv));
}

#[cfg(target_os = "wasi")]
fn run(argv: Vec<String>) -> i32 {
    toolbox::run(argv)
}

/// The code itself, which std would make a mere failure of.
#[cfg(target_os = "wasi")]
fn leave(code: i32) {
    wasip2::cli::exit::exit_with_code(code.to_le_bytes()[0]);
}

/// Natively on a thread whose stack is large, since code that is not optimised takes more.
#[cfg(not(target_os = "wasi"))]
fn run(argv: Vec<String>) -> i32 {
    std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(move || toolbox::run(argv))
        .map(|thread| thread.join().unwrap_or(134))
        .unwrap_or(126)
}

#[cfg(not(target_os = "wasi"))]
fn leave(code: i32) {
    std::process::exit(code);
}
