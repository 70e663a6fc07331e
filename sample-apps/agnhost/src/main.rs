//! The program: one thread, one subcommand.

fn main() {
    let argv: Vec<String> = std::env::args().collect();
    toolbox::exit::leave(agnhost::command::run(&argv));
}
