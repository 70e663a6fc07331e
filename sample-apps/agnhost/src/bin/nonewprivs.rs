//! The image `nonewprivs`: says as whom it runs.

fn main() {
    let argv: Vec<String> = std::env::args().collect();
    toolbox::exit::leave(agnhost::command::run_by_default(&argv, "nonewprivs"));
}
