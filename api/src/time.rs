//! Times and durations as Kubernetes writes them. The clock itself is always handed in.

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
