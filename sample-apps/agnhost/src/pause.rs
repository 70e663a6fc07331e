//! `pause`: says so, and waits to be stopped.
//!
//! A component hears of a stop at the end of its standard input, if it has one that is open; otherwise it is stopped.

use std::io::{Read as _, Write as _};

use crate::Code;

pub(crate) fn run() -> Code {
    println!("Paused");
    println!("Signals registered");
    let _ = std::io::stdout().flush();
    let mut input = std::io::stdin().lock();
    let mut buffer = [0; 1024];
    let begun = std::time::Instant::now();
    // An input that is at its end from the start says nothing of a stop.
    let mut was_open = false;
    loop {
        match input.read(&mut buffer) {
            Ok(read) if read > 0 => was_open = true,
            _ if was_open || begun.elapsed().as_secs() > 0 => break,
            _ => wait_for_ever(),
        }
    }
    let said = "exiting because of signal \"terminated\"\n";
    let path = std::env::var("TERMINATION_MESSAGE_PATH");
    let path = path.unwrap_or_else(|_| "/dev/termination-log".to_owned());
    // There may be none.
    let _ = std::fs::write(path, said);
    print!("{said}");
    let _ = std::io::stdout().flush();
    2
}

fn wait_for_ever() -> ! {
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}
