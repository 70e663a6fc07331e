//! The command: hands its arguments to [`toolbox::run`] and leaves with the code that comes back.

fn main() {
    let argv = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    toolbox::exit::leave(run(argv));
}

#[cfg(target_os = "wasi")]
fn run(argv: Vec<String>) -> i32 {
    toolbox::run(argv)
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

/// What this component says of itself, for hosts that look for a command's component without running one.
#[cfg(target_os = "wasi")]
#[used]
#[unsafe(link_section = "weft:applets")]
static NAMES: [u8; toolbox::applet::NAMES.len()] = toolbox::applet::NAMES;
