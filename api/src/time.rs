//! Times and durations as Kubernetes reads and writes them. The clock itself is always handed in.
//!
//! What is read is what Go's `time.Parse` takes, with its sentences (`tests/upstream/times.tsv`): an hour of one digit, a
//! comma before the fraction, offsets of up to 24 hours; no lower case `t`, no second 60. A [`WireTime`] reaches to the
//! ends of the years that have four digits, where `jiff`'s time stamps do not.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;

/// `metav1.Time`: RFC 3339 in UTC, whole seconds.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `metav1.MicroTime`: RFC 3339 in UTC with six digits.
pub fn rfc3339_micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Log time stamps: RFC 3339 in UTC with nine digits.
pub fn rfc3339_nanos(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// A point in time as it is on the wire: since 1970 in UTC, before it negative with nanoseconds counted forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireTime {
    pub seconds: i64,
    pub nanos: u32,
}

/// Why a text is no time, in the words of Go's decoder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parsing time {}{reason}", quoted(text))]
pub struct TimeError {
    text: String,
    reason: String,
}

/// Go's own quotes: what is not printable ASCII becomes bytes in hexadecimal.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='\x7f' => out.push(c),
            _ => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\x{byte:02x}");
                }
            }
        }
    }
    out.push('"');
    out
}

impl WireTime {
    /// Reads a `metav1.Time`, whose fraction is dropped.
    ///
    /// # Errors
    /// [`TimeError`] for what Go does not take.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let time = Reader::new(text, false).time()?;
        Ok(Self { nanos: 0, ..time })
    }

    /// Reads a `metav1.MicroTime`, which has six digits behind the second.
    ///
    /// # Errors
    /// [`TimeError`] for what Go does not take.
    pub fn parse_micro(text: &str) -> Result<Self, TimeError> {
        Reader::new(text, true).time()
    }

    /// Go's zero time, the first second of year 1, stands for no time: it is `null` in JSON.
    pub fn is_zero(self) -> bool {
        self.seconds == YEAR_ONE_SECONDS && self.nanos == 0
    }

    /// Whether the year has four digits, as RFC 3339 wants.
    pub fn is_in_range(self) -> bool {
        (YEAR_ONE_SECONDS..YEAR_10000_SECONDS).contains(&self.seconds) && self.nanos < 1_000_000_000
    }

    /// The form of a `metav1.Time`.
    pub fn rfc3339(self) -> String {
        format!("{}Z", self.clock())
    }

    /// The form of a `metav1.MicroTime`.
    pub fn rfc3339_micros(self) -> String {
        format!("{}.{:06}Z", self.clock(), self.nanos / 1000)
    }

    fn clock(self) -> String {
        let days = self.seconds.div_euclid(DAY_SECONDS);
        let second = self.seconds.rem_euclid(DAY_SECONDS);
        let (year, month, day) = date_of(days);
        let sign = if year < 0 { "-" } else { "" };
        format!(
            "{sign}{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
            year.abs(),
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}

const DAY_SECONDS: i64 = 86_400;
const YEAR_ONE_SECONDS: i64 = -62_135_596_800;
const YEAR_10000_SECONDS: i64 = 253_402_300_800;
const DAYS_IN_400_YEARS: i64 = 146_097;

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days before the first of January of a year from 0 to 399 of any 400 years.
fn days_before_year(year: i64) -> i64 {
    // Year 0 is a leap year, and so is every fourth but 100, 200 and 300.
    let years_before = year - 1;
    if year == 0 {
        return 0;
    }
    year * 365 + years_before / 4 + 1 - years_before / 100
}

/// Days from the first of January 1970.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let before: i64 = (1..month).map(|month| days_in(year, month)).sum();
    let cycle = year.div_euclid(400) * DAYS_IN_400_YEARS;
    let since_year_0 = cycle + days_before_year(year.rem_euclid(400)) + before + day - 1;
    // 1970 is 4 times 400 years and 370 more.
    since_year_0 - (4 * DAYS_IN_400_YEARS + days_before_year(370))
}

/// Year, month and day of so many days from the first of January 1970.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 4 * DAYS_IN_400_YEARS + days_before_year(370);
    let mut left = days.rem_euclid(DAYS_IN_400_YEARS);
    // At most one too late, as 366 days are the longest year.
    let mut year = left / 365;
    while days_before_year(year) > left {
        year -= 1;
    }
    left -= days_before_year(year);
    let mut month = 1;
    while left >= days_in(year, month) {
        left -= days_in(year, month);
        month += 1;
    }
    (
        days.div_euclid(DAYS_IN_400_YEARS) * 400 + year,
        month,
        left + 1,
    )
}

/// Walks a text along Go's layout, and says where it leaves it.
struct Reader<'a> {
    text: &'a str,
    rest: &'a [u8],
    micro: bool,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, micro: bool) -> Self {
        Self {
            text,
            rest: text.as_bytes(),
            micro,
        }
    }

    fn fail<T>(&self, reason: String) -> Result<T, TimeError> {
        Err(TimeError {
            text: self.text.to_owned(),
            reason,
        })
    }

    /// The rest of the text does not read as this part of the layout.
    fn unlike<T>(&self, part: &str) -> Result<T, TimeError> {
        let layout = if self.micro {
            "2006-01-02T15:04:05.000000Z07:00"
        } else {
            "2006-01-02T15:04:05Z07:00"
        };
        // Only whole characters have been read, so the rest begins with one.
        let rest = &self.text[self.text.len() - self.rest.len()..];
        self.fail(format!(
            " as \"{layout}\": cannot parse {} as \"{part}\"",
            quoted(rest)
        ))
    }

    fn out_of_range<T>(&self, what: &str) -> Result<T, TimeError> {
        self.fail(format!(": {what} out of range"))
    }

    fn digit(&self, at: usize) -> Option<i64> {
        let byte = self.rest.get(at).filter(|byte| byte.is_ascii_digit())?;
        Some(i64::from(byte - b'0'))
    }

    /// The number that the first `length` bytes are.
    fn digits(&self, from: usize, length: usize) -> Option<i64> {
        (from..from + length).try_fold(0, |sum, at| Some(sum * 10 + self.digit(at)?))
    }

    fn number(&mut self, length: usize, part: &str) -> Result<i64, TimeError> {
        match self.digits(0, length) {
            Some(number) => {
                self.rest = &self.rest[length..];
                Ok(number)
            }
            None => self.unlike(part),
        }
    }

    fn literal(&mut self, literal: &str) -> Result<(), TimeError> {
        match self.rest.strip_prefix(literal.as_bytes()) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => self.unlike(literal),
        }
    }

    fn time(mut self) -> Result<WireTime, TimeError> {
        let year = self.number(4, "2006")?;
        self.literal("-")?;
        let month = self.number(2, "01")?;
        if !(1..=12).contains(&month) {
            return self.out_of_range("month");
        }
        self.literal("-")?;
        let day = self.number(2, "02")?;
        self.literal("T")?;
        let hour_digits = 1 + usize::from(self.digit(1).is_some());
        let hour = self.number(hour_digits, "15")?;
        if hour >= 24 {
            return self.out_of_range("hour");
        }
        self.literal(":")?;
        let minute = self.number(2, "04")?;
        if minute >= 60 {
            return self.out_of_range("minute");
        }
        self.literal(":")?;
        let second = self.number(2, "05")?;
        if second >= 60 {
            return self.out_of_range("second");
        }
        let nanos = self.fraction()?;
        let offset_seconds = self.offset()?;
        if !self.rest.is_empty() {
            let rest = &self.text[self.text.len() - self.rest.len()..];
            return self.fail(format!(": extra text: {}", quoted(rest)));
        }
        if day < 1 || day > days_in(year, month) {
            return self.out_of_range("day");
        }
        let clock = hour * 3600 + minute * 60 + second;
        Ok(WireTime {
            seconds: days_of(year, month, day) * DAY_SECONDS + clock - offset_seconds,
            nanos,
        })
    }

    fn fraction(&mut self) -> Result<u32, TimeError> {
        let has_point = matches!(self.rest.first(), Some(b'.' | b','));
        if self.micro {
            return match self.digits(1, 6) {
                Some(micros) if has_point => {
                    self.rest = &self.rest[7..];
                    Ok(micros as u32 * 1000)
                }
                _ => self.unlike(".000000"),
            };
        }
        // As many digits as there are, of which nine count. A point without one belongs to what follows.
        let mut length = 0;
        let mut nanos = 0;
        while has_point && let Some(digit) = self.digit(1 + length) {
            if length < 9 {
                nanos = nanos * 10 + digit as u32;
            }
            length += 1;
        }
        if length > 0 {
            self.rest = &self.rest[1 + length..];
        }
        Ok((length..9).fold(nanos, |nanos, _| nanos * 10))
    }

    fn offset(&mut self) -> Result<i64, TimeError> {
        if let Some(rest) = self.rest.strip_prefix(b"Z") {
            self.rest = rest;
            return Ok(0);
        }
        let sign = match self.rest.first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return self.unlike("Z07:00"),
        };
        let (Some(hours), Some(b':'), Some(minutes)) =
            (self.digits(1, 2), self.rest.get(3), self.digits(4, 2))
        else {
            return self.unlike("Z07:00");
        };
        // Go lets 24 and 60 pass.
        if hours > 24 {
            return self.out_of_range("time zone offset hour");
        }
        if minutes > 60 {
            return self.out_of_range("time zone offset minute");
        }
        self.rest = &self.rest[6..];
        Ok(sign * (hours * 3600 + minutes * 60))
    }
}

/// The age that kubectl shows: `5s`, `3m12s`, `4h5m`, `2d3h`, `45d`, `1y20d`.
///
/// Source: k8s.io/apimachinery `pkg/util/duration` `HumanDuration`.
pub fn short_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let pair = |a: u64, unit_a: char, b: u64, unit_b: char| {
        let mut text = format!("{a}{unit_a}");
        if b > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "{b}{unit_b}");
        }
        text
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => pair(days, 'd', hours % 24, 'h'),
        () if years < 2 => format!("{days}d"),
        () if years < 8 => pair(years, 'y', days % 365, 'd'),
        () => format!("{years}y"),
    }
}

/// How long ago `then` was, as kubectl shows it; `<invalid>` when it lies more than two seconds ahead.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    match u64::try_from(seconds) {
        Ok(seconds) => short_duration(Duration::from_secs(seconds)),
        Err(_) if seconds >= -2 => "0s".into(),
        Err(_) => "<invalid>".into(),
    }
}

/// Parses a duration as weft's annotations and flags write it: `250ms`, `30s`, `5m`, `2h`.
///
/// # Errors
/// One sentence naming the forms that are allowed.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    number
        .parse::<u64>()
        .ok()
        .filter(|_| unit_ms > 0)
        .and_then(|number| number.checked_mul(unit_ms))
        .map(Duration::from_millis)
        .ok_or_else(|| {
            format!("{text:?} is not a duration: write a whole number and ms, s, m or h, as 30s")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_in_kubectl() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (600, "10m"),
            (10_800, "3h"),
            (14_700, "4h5m"),
            (86_400, "24h"),
            (183_600, "2d3h"),
            (3_888_000, "45d"),
        ] {
            assert_eq!(short_duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn times_have_kubernetes_digits() {
        let time: Timestamp = "2026-11-22T10:04:05.123456789Z".parse().unwrap();
        assert_eq!(rfc3339(time), "2026-11-22T10:04:05Z");
        assert_eq!(rfc3339_micros(time), "2026-11-22T10:04:05.123456Z");
        assert_eq!(rfc3339_nanos(time), "2026-11-22T10:04:05.123456789Z");
    }

    #[test]
    fn durations_parse_or_say_how() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "5", "s", "1.5s", "-1s", "5 s", "99999999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
