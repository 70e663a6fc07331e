//! The calendar: seconds since 1970 to dates and back, and `strftime`. Times are UTC, or shifted as a `TZ` of the form
//! `NAME[+-]H[:MM]` says; there is no zone database in a component, so any other zone is UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Date {
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    pub nanos: u32,
    /// East of Greenwich.
    pub offset_seconds: i64,
    pub zone: String,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// Days since 1970-01-01.
fn days(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year =
        (153 * (i64::from(month) + if month > 2 { -3 } else { 9 }) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// A zone by its `TZ`: its name and what it adds to UTC.
pub fn zone(tz: Option<&str>) -> (String, i64) {
    let utc = || ("UTC".to_owned(), 0);
    let Some(tz) = tz else { return utc() };
    let name: String = tz.chars().take_while(char::is_ascii_alphabetic).collect();
    let rest = tz.get(name.len()..).unwrap_or_default();
    let (sign, digits) = match rest.strip_prefix('-') {
        Some(digits) => (1, digits),
        None => (-1, rest.trim_start_matches('+')),
    };
    let mut parts = digits.split(':').map(|part| part.parse::<i64>().ok());
    match (name.len() >= 3, parts.next().flatten()) {
        (true, Some(hours)) if (0..=24).contains(&hours) => {
            let minutes = parts.next().flatten().unwrap_or(0);
            (name, sign * (hours * 3600 + minutes * 60))
        }
        _ => utc(),
    }
}

impl Date {
    pub fn of(seconds: i64, nanos: u32, zone: (String, i64)) -> Date {
        // Kept where the arithmetic cannot run over.
        let local = seconds.clamp(-1 << 54, 1 << 54) + zone.1;
        let (day_number, of_day) = (local.div_euclid(86_400), local.rem_euclid(86_400));
        let shifted = day_number + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        Date {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: month as u32,
            day: day as u32,
            hour: (of_day / 3600) as u32,
            minute: (of_day / 60 % 60) as u32,
            second: (of_day % 60) as u32,
            nanos,
            offset_seconds: zone.1,
            zone: zone.0,
        }
    }

    pub fn of_time(time: SystemTime, zone: (String, i64)) -> Date {
        let (seconds, nanos) = since_epoch(time);
        Date::of(seconds, nanos, zone)
    }

    /// Seconds since 1970.
    pub fn seconds(&self) -> i64 {
        days(self.year, self.month, self.day) * 86_400
            + i64::from(self.hour) * 3600
            + i64::from(self.minute) * 60
            + i64::from(self.second)
            - self.offset_seconds
    }

    fn weekday(&self) -> usize {
        (days(self.year, self.month, self.day) + 4).rem_euclid(7) as usize
    }

    fn day_of_year(&self) -> i64 {
        days(self.year, self.month, self.day) - days(self.year, 1, 1) + 1
    }

    /// The ISO week and its year.
    fn iso_week(&self) -> (i64, i64) {
        let number = days(self.year, self.month, self.day);
        let thursday = number + 3 - (number + 3).rem_euclid(7);
        let date = Date::of(thursday * 86_400, 0, (String::new(), 0));
        (date.year, (date.day_of_year() - 1) / 7 + 1)
    }

    /// The date as `strftime` writes it.
    pub fn format(&self, format: &str) -> String {
        let mut out = String::new();
        let mut chars = format.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut flag = None;
            while let Some(next) = chars.next_if(|next| "-_0^#".contains(*next)) {
                flag = Some(next);
            }
            let colons = std::iter::from_fn(|| chars.next_if_eq(&':')).count();
            let digits: String =
                std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)).collect();
            let width: usize = digits.parse().unwrap_or(0).min(64);
            let Some(letter) = chars.next() else {
                out.push('%');
                break;
            };
            let text = self.part(letter, flag, colons, width);
            let text = if flag == Some('^') {
                text.to_uppercase()
            } else {
                text
            };
            out.push_str(&text);
        }
        out
    }

    fn part(&self, letter: char, flag: Option<char>, colons: usize, wide: usize) -> String {
        let number = |value: i64, width: usize, fill: char| {
            let width = width.max(wide);
            match flag.unwrap_or(fill) {
                '-' => value.to_string(),
                '_' => format!("{value:width$}"),
                _ => format!("{value:0width$}"),
            }
        };
        let zero = |value: u32| number(i64::from(value), 2, '0');
        let hour12 = if self.hour.is_multiple_of(12) {
            12
        } else {
            self.hour % 12
        };
        let weekday = self.weekday();
        let name =
            |names: &[&str], index: usize| names.get(index).copied().unwrap_or_default().to_owned();
        let short = |text: String| text.chars().take(3).collect::<String>();
        let month = (self.month as usize).wrapping_sub(1);
        let week =
            |first: i64| (self.day_of_year() + 6 - (weekday as i64 - first).rem_euclid(7)) / 7;
        match letter {
            '%' => "%".into(),
            'n' => "\n".into(),
            't' => "\t".into(),
            'a' => short(name(&DAYS, weekday)),
            'A' => name(&DAYS, weekday),
            'b' | 'h' => short(name(&MONTHS, month)),
            'B' => name(&MONTHS, month),
            'c' => self.format("%a %b %e %H:%M:%S %Y"),
            'C' => number(self.year.div_euclid(100), 2, '0'),
            'd' => zero(self.day),
            'D' | 'x' => self.format("%m/%d/%y"),
            'e' => number(i64::from(self.day), 2, '_'),
            'F' => self.format("%Y-%m-%d"),
            'g' => number(self.iso_week().0.rem_euclid(100), 2, '0'),
            'G' => self.iso_week().0.to_string(),
            'H' => zero(self.hour),
            'I' => zero(hour12),
            'j' => number(self.day_of_year(), 3, '0'),
            'k' => number(i64::from(self.hour), 2, '_'),
            'l' => number(i64::from(hour12), 2, '_'),
            'm' => zero(self.month),
            'M' => zero(self.minute),
            'N' => {
                let digits = format!("{:09}", self.nanos);
                let keep = if wide == 0 { 9 } else { wide.min(9) };
                digits.get(..keep).unwrap_or_default().to_owned()
            }
            'p' => if self.hour < 12 { "AM" } else { "PM" }.into(),
            'P' => if self.hour < 12 { "am" } else { "pm" }.into(),
            'q' => self.month.div_ceil(3).to_string(),
            'r' => self.format("%I:%M:%S %p"),
            'R' => self.format("%H:%M"),
            's' => self.seconds().to_string(),
            'S' => zero(self.second),
            'T' | 'X' => self.format("%H:%M:%S"),
            'u' => if weekday == 0 { 7 } else { weekday }.to_string(),
            'U' => number(week(0), 2, '0'),
            'V' => number(self.iso_week().1, 2, '0'),
            'w' => weekday.to_string(),
            'W' => number(week(1), 2, '0'),
            'y' => number(self.year.rem_euclid(100), 2, '0'),
            'Y' => number(self.year, 1, '0'),
            'z' => {
                let minutes = self.offset_seconds.abs() / 60;
                let sign = if self.offset_seconds < 0 { '-' } else { '+' };
                let colon = if colons > 0 { ":" } else { "" };
                format!("{sign}{:02}{colon}{:02}", minutes / 60, minutes % 60)
            }
            'Z' => self.zone.clone(),
            other => format!("%{other}"),
        }
    }
}

/// A time as seconds since 1970 and the nanoseconds after them.
pub fn since_epoch(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (
            i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            after.subsec_nanos(),
        ),
        Err(before) => {
            let before = before.duration();
            let seconds = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (seconds, 0),
                nanos => (seconds - 1, 1_000_000_000 - nanos),
            }
        }
    }
}

/// The time so many seconds from 1970, if a clock can show it.
pub fn time_at(seconds: i64, nanos: u32) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time = match seconds < 0 {
        true => UNIX_EPOCH.checked_sub(whole)?,
        false => UNIX_EPOCH.checked_add(whole)?,
    };
    time.checked_add(Duration::from_nanos(u64::from(nanos)))
}

/// Reads a date as people write it: `@SECONDS`, ISO 8601, `YYYY-MM-DD hh:mm[:ss]`, `hh:mm[:ss]`, `[[[[[YY]YY]MM]DD]hh]mm[.ss]`, RFC 2822,
/// `now`, `today`, `yesterday`, `tomorrow`, and `N UNIT [ago]` behind any of them. `now` fills in what is not said.
pub fn parse(text: &str, now: SystemTime, zone: (String, i64)) -> Option<(i64, u32)> {
    let text = text.trim();
    if let Some(seconds) = text.strip_prefix('@') {
        let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
        let nanos: String = fraction
            .chars()
            .chain("000000000".chars())
            .take(9)
            .collect();
        return Some((whole.parse().ok()?, nanos.parse().ok()?));
    }
    let today = Date::of_time(now, zone.clone());
    let mut date = today.clone();
    let (mut dated, mut timed, mut added) = (false, false, 0i64);
    if !text.contains([' ', '-', ':', '/', 'T'])
        || text
            .split_once('.')
            .is_some_and(|(a, b)| compact(a) && compact(b))
    {
        let (digits, seconds) = text.split_once('.').unwrap_or((text, "00"));
        if compact(digits) && matches!(digits.len(), 4 | 6 | 8 | 10 | 12) {
            let all = format!(
                "{:04}{:02}{:02}{:02}",
                today.year, today.month, today.day, today.hour
            );
            // MMDDhhmm[[YY]YY] is how `date` was first told.
            let (year, rest) = match digits.len() {
                12 => (digits.get(..4)?.parse().ok()?, digits.get(4..)?.to_owned()),
                10 => (
                    2000 + digits.get(..2)?.parse::<i64>().ok()?,
                    digits.get(2..)?.to_owned(),
                ),
                8 => (today.year, digits.to_owned()),
                length => (today.year, format!("{}{digits}", all.get(4..12 - length)?)),
            };
            let two = |at: usize| rest.get(at..at + 2).and_then(|two| two.parse::<u32>().ok());
            date.year = year;
            (date.month, date.day, date.hour, date.minute) = (two(0)?, two(2)?, two(4)?, two(6)?);
            date.second = seconds.parse().ok()?;
            date.nanos = 0;
            return valid(&date).then(|| (date.seconds(), 0));
        }
    }
    let spaced = text.replace(',', " ");
    let mut words = spaced.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let lower = word.to_ascii_lowercase();
        let sign = lower.starts_with('-') || lower.starts_with('+');
        let number: Option<i64> = lower.trim_start_matches('+').parse().ok();
        if let (Some(number), Some(unit)) =
            (number, words.peek().and_then(|word| unit_seconds(word)))
        {
            words.next();
            let ago = words
                .next_if(|word| word.eq_ignore_ascii_case("ago"))
                .is_some();
            added = added.checked_add(number.checked_mul(if ago { -unit } else { unit })?)?;
            continue;
        }
        match lower.as_str() {
            "now" | "today" => continue,
            "yesterday" | "tomorrow" => {
                added += if lower == "tomorrow" { 86_400 } else { -86_400 };
                continue;
            }
            "utc" | "gmt" | "z" => {
                (date.offset_seconds, date.zone) = (0, "UTC".into());
                continue;
            }
            _ => {}
        }
        if DAYS
            .iter()
            .any(|day| lower.len() >= 3 && day.to_ascii_lowercase().starts_with(&lower))
        {
            continue;
        }
        if let Some(month) = MONTHS
            .iter()
            .position(|month| lower.len() >= 3 && month.to_ascii_lowercase().starts_with(&lower))
        {
            date.month = month as u32 + 1;
            dated = true;
            continue;
        }
        if timed && sign && lower.len() == 5 && compact(lower.get(1..)?) {
            date.offset_seconds = offset(&lower)?;
            continue;
        }
        let (day, clock) = match lower.split_once('t') {
            Some((day, clock)) => (Some(day), Some(clock)),
            None if lower.contains(':') => (None, Some(lower.as_str())),
            None => (Some(lower.as_str()), None),
        };
        if let Some(day) = day {
            let parts: Vec<&str> = day.split(['-', '/']).collect();
            match parts.as_slice() {
                [month, day, year] if lower.contains('/') && year.len() == 4 => {
                    (date.year, date.month, date.day) =
                        (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
                }
                [year, month, day] => {
                    (date.year, date.month, date.day) =
                        (year.parse().ok()?, month.parse().ok()?, day.parse().ok()?);
                }
                [one] if one.len() == 8 && compact(one) => {
                    date.year = one.get(..4)?.parse().ok()?;
                    date.month = one.get(4..6)?.parse().ok()?;
                    date.day = one.get(6..)?.parse().ok()?;
                }
                [one] if one.len() == 4 => date.year = one.parse().ok()?,
                [one] => date.day = one.parse().ok()?,
                _ => return None,
            }
            dated = true;
        }
        if let Some(clock) = clock {
            let (clock, shift) = match clock.find(['+', '-', 'z']) {
                Some(at) => clock.split_at(at),
                None => (clock, ""),
            };
            if !shift.is_empty() {
                date.offset_seconds = offset(shift)?;
            }
            let mut parts = clock.split(':');
            date.hour = parts.next()?.parse().ok()?;
            date.minute = parts.next()?.parse().ok()?;
            let seconds = parts.next().unwrap_or("0");
            let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
            date.second = seconds.parse().ok()?;
            let nanos: String = fraction
                .chars()
                .chain("000000000".chars())
                .take(9)
                .collect();
            date.nanos = nanos.parse().ok()?;
            timed = true;
        }
    }
    if dated && !timed {
        (date.hour, date.minute, date.second, date.nanos) = (0, 0, 0, 0);
    }
    valid(&date).then(|| (date.seconds().saturating_add(added), date.nanos))
}

fn compact(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn valid(date: &Date) -> bool {
    let long = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let leap = date.year % 4 == 0 && (date.year % 100 != 0 || date.year % 400 == 0);
    let month = (date.month as usize)
        .checked_sub(1)
        .and_then(|month| long.get(month));
    let last = month.map_or(0, |last| if *last == 29 && !leap { 28 } else { *last });
    (1..=last).contains(&date.day)
        && date.hour < 24
        && date.minute < 60
        && date.second <= 60
        && (-1 << 40..1 << 40).contains(&date.year)
}

fn offset(text: &str) -> Option<i64> {
    if text == "z" {
        return Some(0);
    }
    let digits = text.get(1..)?.replace(':', "");
    let hours: i64 = digits.get(..2)?.parse().ok()?;
    let minutes: i64 = digits.get(2..4).unwrap_or("0").parse().ok()?;
    let seconds = hours * 3600 + minutes * 60;
    Some(if text.starts_with('-') {
        -seconds
    } else {
        seconds
    })
}

fn unit_seconds(word: &str) -> Option<i64> {
    Some(match word.to_ascii_lowercase().trim_end_matches('s') {
        "sec" | "second" => 1,
        "min" | "minute" => 60,
        "hour" => 3600,
        "day" => 86_400,
        "week" => 604_800,
        _ => return None,
    })
}
