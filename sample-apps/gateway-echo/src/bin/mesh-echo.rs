//! The workloads of the suite's tests of meshes: a server without a subcommand, a client with `client`.

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ended = match arguments.split_first() {
        Some((first, rest)) if first == "client" => gateway_echo::client(rest),
        _ => gateway_echo::mesh(&arguments),
    };
    gateway_echo::end(ended)
}
