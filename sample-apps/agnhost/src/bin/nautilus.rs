//! The images whose program is a web server: `nautilus`, `kitten`, `nginx`, `httpd`.

fn main() {
    let argv: Vec<String> = std::env::args().collect();
    toolbox::exit::leave(agnhost::command::run_by_default(&argv, "test-webserver"));
}
