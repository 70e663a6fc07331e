//! A job: counts the words of the file that its argument names, and says so in the unit that `UNIT` names.
//!
//! It exits with 2 when it was not told which file, and with 3 when that cannot be read. (A library, because exit codes
//! beyond success and failure are not in the standard library of this target.)

use wasip2::cli::exit::exit_with_code;
use wasip2::exports::cli::run::Guest;

struct WordCount;

impl Guest for WordCount {
    fn run() -> Result<(), ()> {
        let Some(path) = std::env::args().nth(1) else {
            eprintln!("usage: wordcount FILE");
            exit_with_code(2);
            return Err(());
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let unit = std::env::var("UNIT").unwrap_or_default();
                println!("{} {unit} in {path}", text.split_whitespace().count());
                Ok(())
            }
            Err(error) => {
                eprintln!("{path}: {error}");
                exit_with_code(3);
                Err(())
            }
        }
    }
}

wasip2::cli::command::export!(WordCount);
