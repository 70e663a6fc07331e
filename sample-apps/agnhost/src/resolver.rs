//! Names: those of the machine, and the two lines of `/etc/resolv.conf` that tests read.

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::Code;

/// The addresses of a host.
///
/// # Errors
/// In Go's words.
pub(crate) fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    match (host, port).to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Err(format!("lookup {host}: {error}"))
        }
        Err(_) => Err(format!("lookup {host}: no such host")),
    }
}

/// Prints the list behind a word of `resolv.conf`, with commas.
pub(crate) fn print_list(word: &str) -> Code {
    let text = match std::fs::read_to_string("/etc/resolv.conf") {
        Ok(text) => text,
        Err(error) => {
            eprintln!("panic: open /etc/resolv.conf: {error}");
            return 2;
        }
    };
    match list(&text, word) {
        Some(list) => {
            println!("{list}");
            0
        }
        None => {
            eprintln!("panic: Could not find DNS search list!");
            2
        }
    }
}

fn list(text: &str, word: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(word))?;
    let parts: Vec<&str> = line.split(' ').skip(1).collect();
    Some(parts.join(","))
}

/// Prints `/etc/hosts`.
pub(crate) fn print_hosts() -> Code {
    match std::fs::read_to_string("/etc/hosts") {
        Ok(text) => {
            println!("{text}");
            0
        }
        Err(error) => {
            eprintln!("panic: open /etc/hosts: {error}");
            2
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_the_first_of_its_word() {
        let text = "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local\nnameserver 1.1.1.1\n";
        for (word, expected) in [
            ("nameserver", Some("10.96.0.10")),
            ("search", Some("shop.svc.cluster.local,svc.cluster.local")),
            ("options", None),
        ] {
            assert_eq!(list(text, word).as_deref(), expected, "{word}");
        }
    }
}
