//! Which time of a schedule is due, and when to look again.
//!
//! Of times that were missed only the latest is made up for. How many were is estimated from the distance of two, as
//! Kubernetes does, so that a clock gone wrong by years costs no more than one gone wrong by minutes.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use weft_kinds::batch::Schedule;

use crate::until;

/// Missed times of which a word is said.
const MISSED_MANY: i64 = 100;
/// Clocks differ: a look comes a little after its time.
const PADDING: Duration = Duration::from_millis(100);

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Due {
    /// The latest time that has come.
    pub latest: Option<Timestamp>,
    /// How many have come.
    pub missed: i64,
}

impl Due {
    /// There is reason to believe that a clock is wrong, or that nobody looked for long.
    pub fn is_many(&self) -> bool {
        self.missed > MISSED_MANY
    }
}

/// What came due after `earliest`, up to `now`.
///
/// # Errors
/// For a schedule that has no two times, in Kubernetes' sentence.
pub fn due(schedule: &Schedule, earliest: Timestamp, now: Timestamp) -> Result<Due, String> {
    let none = || Err("time difference between two schedules is less than 1 second".to_owned());
    let Some(first) = schedule.next(earliest) else {
        return none();
    };
    if now < first {
        return Ok(Due::default());
    }
    let Some(second) = schedule.next(first) else {
        return none();
    };
    if now < second {
        let latest = Some(first);
        return Ok(Due { latest, missed: 1 });
    }
    let apart = second.duration_since(first).as_secs().max(1);
    let missed = now.duration_since(first).as_secs() / apart + 1;
    // Where steps are not even, none may have come after so many less two: then it is sought further back.
    let mut back = 2;
    loop {
        let steps = SignedDuration::from_secs(apart.saturating_mul(missed - back));
        let begin = first.saturating_add(steps).unwrap_or(first);
        let latest = last_of(schedule, begin, now);
        if latest.is_some() || begin < first {
            return Ok(Due { latest, missed });
        }
        back *= 2;
    }
}

/// The last time after `begin`, up to `now`.
fn last_of(schedule: &Schedule, begin: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let next = |time: &Timestamp| schedule.next(*time).filter(|next| *next <= now);
    std::iter::successors(next(&begin), next).last()
}

/// How long it is until the next time.
pub fn next_look(schedule: &Schedule, earliest: Timestamp, now: Timestamp) -> Option<Duration> {
    let last = match due(schedule, earliest, now) {
        Ok(Due {
            latest: Some(latest),
            ..
        }) => latest,
        Ok(Due { missed: 0, .. }) => earliest,
        _ => now,
    };
    let next = schedule.next(last)?;
    Some(until(next, now) + PADDING)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-01-{text}:00Z").parse().unwrap()
    }

    #[test]
    fn the_latest_of_the_missed_times_is_due() {
        for (schedule, earliest, now, latest, missed) in [
            ("0 * * * *", "01T10:00", "01T10:59", None, 0),
            ("0 * * * *", "01T10:00", "01T11:00", Some("01T11:00"), 1),
            ("0 * * * *", "01T10:30", "01T11:59", Some("01T11:00"), 1),
            ("0 * * * *", "01T10:30", "01T14:10", Some("01T14:00"), 4),
            ("* * * * *", "01T10:00", "01T11:40", Some("01T11:40"), 100),
            ("* * * * *", "01T10:00", "01T11:41", Some("01T11:41"), 101),
            // Uneven: the estimate is off, the time is not.
            (
                "59 9,10 * * *",
                "01T09:00",
                "05T09:58",
                Some("04T10:59"),
                96,
            ),
            (
                "30 6-16/4 * * 1-5",
                "01T00:00",
                "05T03:00",
                Some("02T14:30"),
                24,
            ),
            ("@every 5m", "01T10:00", "01T10:17", Some("01T10:15"), 3),
        ] {
            let schedule = Schedule::parse(schedule).unwrap();
            let found = due(&schedule, at(earliest), at(now)).unwrap();
            let expected = Due {
                latest: latest.map(at),
                missed,
            };
            assert_eq!(found, expected, "{schedule:?} at {now}");
            assert_eq!(found.is_many(), missed > 100);
        }
        let never = Schedule::parse("59 23 31 2 *").unwrap();
        let told = due(&never, at("01T00:00"), at("02T00:00")).unwrap_err();
        assert_eq!(
            told,
            "time difference between two schedules is less than 1 second"
        );
    }

    #[test]
    fn the_next_look_is_a_moment_after_the_next_time() {
        for (schedule, earliest, now, millis) in [
            ("0 * * * *", "01T10:00", "01T10:59", 60_100),
            ("0 * * * *", "01T10:00", "01T11:00", 3_600_100),
            ("0 * * * *", "01T02:00", "01T10:30", 1_800_100),
            ("@every 5m", "01T10:02", "01T10:10", 120_100),
        ] {
            let schedule = Schedule::parse(schedule).unwrap();
            let found = next_look(&schedule, at(earliest), at(now)).unwrap();
            assert_eq!(found.as_millis(), millis, "{schedule:?} at {now}");
        }
        let never = Schedule::parse("59 23 31 2 *").unwrap();
        assert_eq!(next_look(&never, at("01T00:00"), at("02T00:00")), None);
    }
}
