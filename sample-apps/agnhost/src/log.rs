//! Lines of a log, in the two shapes that Go programs have: `log.Printf`'s, and klog's.
//!
//! Both go to standard error. A line that cannot be written is lost: there is nobody to tell.

use std::fmt::Display;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// A moment as a calendar has it, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) year: i64,
    pub(crate) month: u32,
    pub(crate) day: u32,
    pub(crate) hour: u32,
    pub(crate) minute: u32,
    pub(crate) second: u32,
    pub(crate) nanos: u32,
}

impl Moment {
    pub(crate) fn now() -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default();
        Moment::of(since.as_secs(), since.subsec_nanos())
    }

    /// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
    fn of(seconds: u64, nanos: u32) -> Moment {
        let (days, rest) = ((seconds / 86_400) as i64, (seconds % 86_400) as u32);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        Moment {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: month as u32,
            day: (of_year - (153 * shifted_month + 2) / 5 + 1) as u32,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
            nanos,
        }
    }
}

fn line(text: &str) {
    // To somebody who reads, or to nobody.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// As `log.Printf`.
pub(crate) fn print(what: impl Display) {
    let Moment {
        year,
        month,
        day,
        hour,
        minute,
        second,
        ..
    } = Moment::now();
    let what = what.to_string();
    let end = if what.ends_with('\n') { "" } else { "\n" };
    line(&format!(
        "{year}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02} {what}{end}"
    ));
}

/// As `klog.Info`, `file` being where it is said.
pub(crate) fn info(file: &str, what: impl Display) {
    klog('I', file, what);
}

/// As `klog.Error`.
pub(crate) fn error(file: &str, what: impl Display) {
    klog('E', file, what);
}

fn klog(severity: char, file: &str, what: impl Display) {
    let Moment {
        month,
        day,
        hour,
        minute,
        second,
        nanos,
        ..
    } = Moment::now();
    line(&format!(
        "{severity}{month:02}{day:02} {hour:02}:{minute:02}:{second:02}.{:06} {:7} {file}] {what}\n",
        nanos / 1000,
        1
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, (1970, 1, 1, 0, 0, 0)),
            (951_782_400, (2000, 2, 29, 0, 0, 0)),
            (1_735_689_599, (2024, 12, 31, 23, 59, 59)),
            (4_102_444_800, (2100, 1, 1, 0, 0, 0)),
        ] {
            let it = Moment::of(seconds, 0);
            let found = (it.year, it.month, it.day, it.hour, it.minute, it.second);
            assert_eq!(found, expected, "{seconds}");
        }
    }
}
