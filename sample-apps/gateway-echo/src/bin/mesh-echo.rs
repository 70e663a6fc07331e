//! The workloads of the suite's tests of meshes: a server, and a client where it is called `client`, or told so.

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match words.as_slice() {
        ["client", ..] => gateway_echo::client(arguments.get(1..).unwrap_or_default()),
        [_, "client", ..] => gateway_echo::client(arguments.get(2..).unwrap_or_default()),
        _ => gateway_echo::mesh(arguments.get(1..).unwrap_or_default()),
    };
    gateway_echo::end(ended)
}

/// The names that it is called by, for hosts that look for a command's component without running one.
#[cfg(target_os = "wasi")]
#[used]
#[expect(
    unsafe_code,
    reason = "a section with a name is the linker's, and nothing else has this one"
)]
#[unsafe(link_section = "weft:applets")]
static NAMES: [u8; 7] = *b"client\n";
