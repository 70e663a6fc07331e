//! The backends of the Gateway API's conformance suite: one program, whose kind an environment variable says.

fn main() -> std::process::ExitCode {
    gateway_echo::end(gateway_echo::basic())
}
