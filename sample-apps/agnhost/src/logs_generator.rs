//! `logs-generator`: lines of a log at an even pace.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::flags::{Flags, Known};
use crate::{Code, log};

const FLAGS: [Known; 2] = [
    ("log-lines-total", Some('t'), "0"),
    ("run-duration", Some('d'), "0"),
];
const METHODS: [&str; 3] = ["GET", "POST", "PUT"];
const NAMESPACES: [&str; 3] = ["kube-system", "default", "ns"];

pub(crate) fn run(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&FLAGS, arguments)?;
    let (lines, duration) = (
        flags.number("log-lines-total")?,
        flags.duration("run-duration")?,
    );
    let Some(count) = u32::try_from(lines).ok().filter(|count| *count > 0) else {
        log::error(
            "logs_generator.go:60",
            format_args!("Invalid total number of lines: {lines}"),
        );
        return Ok(255);
    };
    if duration.is_zero() {
        log::error("logs_generator.go:64", "Invalid duration: 0s");
        return Ok(255);
    }
    let delay = duration / count;
    let begun = Instant::now();
    let mut chance = Chance::new();
    for id in 0..count {
        log::info("logs_generator.go:74", line(id, &mut chance));
        let due = delay.checked_mul(id + 1).unwrap_or(Duration::MAX);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    Ok(0)
}

fn line(id: u32, chance: &mut Chance) -> String {
    let method = METHODS[chance.below(3) as usize];
    let namespace = NAMESPACES[chance.below(3) as usize];
    let letters = b"bcdfghjklmnpqrstvwxz2456789";
    let pod: String = (0..3 + chance.below(2))
        .map(|_| char::from(letters[chance.below(letters.len() as u64) as usize]))
        .collect();
    let status = 200 + chance.below(400);
    format!("{id} {method} /api/v1/namespaces/{namespace}/pods/{pod} {status}")
}

/// Numbers that nobody relies on.
struct Chance(u64);

impl Chance {
    fn new() -> Chance {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Chance(since.unwrap_or_default().as_nanos() as u64 | 1)
    }

    /// Source: Marsaglia, "Xorshift RNGs", 2003.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_looks_like_that_of_a_server() {
        let mut chance = Chance::new();
        for id in 0..100 {
            let line = line(id, &mut chance);
            let parts: Vec<&str> = line.split(' ').collect();
            let status: u32 = parts[3].parse().expect("a number");
            assert!(parts.len() == 4 && parts[0] == id.to_string(), "{line}");
            assert!(
                METHODS.contains(&parts[1]) && (200..600).contains(&status),
                "{line}"
            );
            assert!(parts[2].starts_with("/api/v1/namespaces/"), "{line}");
        }
    }
}
