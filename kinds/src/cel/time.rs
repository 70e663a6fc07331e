//! Times and durations as Go reads and writes them.
//!
//! Invariants: total; a timestamp lies in the years 1 to 9999, a duration in an `i64` of nanoseconds.
//! Left out: names of time zones. Rules are judged by every server alike, and zones are files of a machine; offsets and `UTC`
//! are understood.

/// Nanoseconds since 1970, in UTC.
pub(super) type Time = i128;

const YEAR_ONE_SECONDS: i128 = -62_135_596_800;
const YEAR_10000_SECONDS: i128 = 253_402_300_800;
pub(super) const SECOND: i128 = 1_000_000_000;
const DAY: i128 = 86_400 * SECOND;

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

/// As seconds with what is needed behind the point: `5400s`, `0.5s`.
pub(super) fn duration_text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let magnitude = nanos.unsigned_abs();
    let (seconds, rest) = (magnitude / 1_000_000_000, magnitude % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// RFC 3339, as `time.Parse` reads it.
pub(super) fn timestamp(text: &str) -> Option<Time> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20
        && text.is_ascii()
        && bytes[..19]
            .iter()
            .enumerate()
            .all(|(index, byte)| match index {
                4 | 7 => *byte == b'-',
                10 => *byte == b'T',
                13 | 16 => *byte == b':',
                _ => byte.is_ascii_digit(),
            });
    if !shaped {
        return None;
    }
    let zone = text[19..].find(['Z', '+', '-'])? + 19;
    let fraction = &text[19..zone];
    let digits = fraction.strip_prefix(['.', ',']);
    if !fraction.is_empty()
        && !digits.is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
    {
        return None;
    }
    let offset_seconds = match &text[zone..] {
        "Z" => 0,
        offset => offset_of(offset)?,
    };
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut nanos = 0;
    for (index, digit) in digits.unwrap_or("").bytes().take(9).enumerate() {
        nanos += i128::from(digit - b'0') * 10_i128.pow(8 - index as u32);
    }
    let clock = hour * 3600 + minute * 60 + second - offset_seconds;
    let days = days_from_civil(year, month, day);
    in_range(i128::from(days) * DAY + i128::from(clock) * SECOND + nanos)
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
    let time = time + i128::from(offset_seconds) * SECOND;
    // A year has four digits, so the days fit.
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

/// `+01:00`, in seconds.
fn offset_of(text: &str) -> Option<i64> {
    let negative = match text.as_bytes().first()? {
        b'-' => true,
        b'+' => false,
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':')?;
    let number = |text: &str| {
        (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse::<i64>().ok())
            .flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    if hours > 24 || minutes > 59 {
        return None;
    }
    let seconds = hours * 3600 + minutes * 60;
    Some(if negative { -seconds } else { seconds })
}

pub(super) fn in_range(time: Time) -> Option<Time> {
    (YEAR_ONE_SECONDS * SECOND..YEAR_10000_SECONDS * SECOND)
        .contains(&time)
        .then_some(time)
}

/// A day, as its first moment.
pub(super) fn date(text: &str) -> Option<Time> {
    if text.len() != 10 {
        return None;
    }
    timestamp(&format!("{text}T00:00:00Z"))
}

/// With as many digits behind the point as are needed.
pub(super) fn timestamp_text(time: Time) -> String {
    let Civil {
        year,
        month,
        day,
        hour,
        minute,
        second,
        nanos,
        ..
    } = civil(time, 0);
    let fraction = match nanos {
        0 => String::new(),
        nanos => format!(".{nanos:09}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// What `getHours('-08:00')` means, in seconds east of UTC.
pub(super) fn zone(name: &str) -> Option<i64> {
    if matches!(name, "" | "UTC" | "Z") {
        return Some(0);
    }
    match name.starts_with(['+', '-']) {
        true => offset_of(name),
        false => offset_of(&format!("+{name}")),
    }
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
        assert_eq!(duration_text(5_400_000_000_000), "5400s");
        assert_eq!(duration_text(-500_000_000), "-0.5s");
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        for (text, read) in [
            ("2011-08-18T19:03:37Z", Some("2011-08-18T19:03:37Z")),
            (
                "2011-08-18T19:03:37.010+01:00",
                Some("2011-08-18T18:03:37.01Z"),
            ),
            ("2011-08-18T19:03:37", None),
            ("2011-08-18 19:03:37Z", None),
            ("2011-02-30T00:00:00Z", None),
            ("9999-12-31T23:59:59Z", Some("9999-12-31T23:59:59Z")),
            ("9999-12-31T23:59:59-02:00", None),
            ("0000-12-31T23:59:59Z", None),
            ("2011-08-18T19:03:37.Z", None),
            ("ä011-08-18T19:03:37Zz", None),
            ("2012-02-29T00:00:00Z", Some("2012-02-29T00:00:00Z")),
            ("1900-02-29T00:00:00Z", None),
            ("1969-12-31T23:59:59.5Z", Some("1969-12-31T23:59:59.5Z")),
            ("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z")),
        ] {
            let found = timestamp(text).map(timestamp_text);
            assert_eq!(found.as_deref(), read, "{text}");
        }
        let day = timestamp("2024-12-31T23:00:00Z").unwrap();
        let there = civil(day, 7200);
        assert_eq!(
            (there.year, there.day_of_year, there.weekday, there.hour),
            (2025, 0, 3, 1)
        );
    }
}
