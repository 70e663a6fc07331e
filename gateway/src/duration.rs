//! Durations as the Gateway API writes them (GEP-2257): one to four numbers of up to five digits, each with `h`, `m`, `s` or
//! `ms`, as `1h30m` or `1500ms`. Pure.

use std::time::Duration;

/// What `0s` asks for, which is no limit: more than this notation can write, and little enough for any clock.
pub const UNLIMITED: Duration = Duration::from_secs(500_000 * 3600);

/// Reads a duration; `0s` is zero.
///
/// # Errors
/// One sentence with the text and what would be right.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration such as 500ms, 30s or 1h30m");
    let mut rest = text;
    let mut sum = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        if !(1..=5).contains(&digits) {
            return Err(bad());
        }
        let number: u64 = number.parse().map_err(|_| bad())?;
        let (unit, behind) = match behind.strip_prefix("ms") {
            Some(behind) => (1, behind),
            None => {
                let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000)];
                let mut known = units.into_iter();
                known
                    .find_map(|(name, unit)| Some((unit, behind.strip_prefix(name)?)))
                    .ok_or_else(bad)?
            }
        };
        sum += Duration::from_millis(number * unit);
        rest = behind;
        if rest.is_empty() {
            return Ok(sum);
        }
    }
    Err(bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_gep_2257() {
        for (text, millis) in [
            ("0s", Some(0)),
            ("500ms", Some(500)),
            ("60s", Some(60_000)),
            ("1h30m", Some(5_400_000)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("10s30m1h", Some(5_410_000)),
            ("99999h", Some(359_996_400_000)),
            ("", None),
            ("1", None),
            ("s", None),
            ("1.5s", None),
            ("100000s", None),
            ("-1s", None),
            ("1s1s1s1s1s", None),
            ("1d", None),
            ("1s ", None),
        ] {
            assert_eq!(
                parse(text).ok(),
                millis.map(Duration::from_millis),
                "{text:?}"
            );
        }
        let most = parse("99999h99999m99999s99999ms").expect("the most that can be written");
        assert!(most < UNLIMITED, "{most:?}");
    }
}
