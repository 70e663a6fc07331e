//! `sleep` and `timeout`.

use std::future::Future;
use std::time::Duration;

use crate::executor::{self, Either};
use crate::{applet, clock};

use super::call::{Call, Ended, Stop};
use super::flags::Usage;

/// For ever, as far as anybody will see.
const FOR_EVER: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 100);

/// A time such as `1.5`, `10m`, `1d` or `infinity`.
pub fn span(text: &str) -> Option<Duration> {
    if matches!(text, "infinity" | "inf") {
        return Some(FOR_EVER);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..)? {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    let plain = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds: f64 = digits.parse().ok().filter(|_| plain)?;
    Some(
        Duration::try_from_secs_f64(seconds * unit)
            .unwrap_or(FOR_EVER)
            .min(FOR_EVER),
    )
}

/// `sleep N...`
pub async fn sleep(call: &mut Call) -> Ended {
    if call.args.is_empty() {
        return Err(Stop::Said(1, "Usage: sleep [N]...\n".into()));
    }
    let mut total = Duration::ZERO;
    for text in &call.args {
        let span = span(text).ok_or_else(|| Stop::failed(format!("invalid number '{text}'")))?;
        total = total.saturating_add(span);
    }
    clock::sleep(total).await;
    Ok(0)
}

const TIMEOUT: Usage = Usage::new("timeout [-s SIG] [-k KILL_SECS] SECS PROG ARGS", "+s:k:fpv")
    .long(&[
        ("signal", 's'),
        ("kill-after", 'k'),
        ("foreground", 'f'),
        ("preserve-status", 'p'),
        ("verbose", 'v'),
    ]);

/// `timeout`: a command that is out of time is stopped by dropping it; there is no signal that it could ignore.
pub async fn timeout(call: &mut Call) -> Ended {
    let flags = TIMEOUT.parse(call)?;
    let [limit, command @ ..] = flags.rest.as_slice() else {
        return Err(TIMEOUT.wrong());
    };
    if command.is_empty() {
        return Err(TIMEOUT.wrong());
    }
    let limit = span(limit).ok_or_else(|| Stop::failed(format!("invalid number '{limit}'")))?;
    let limit = if limit.is_zero() { FOR_EVER } else { limit };
    let work = applet::run(command.to_vec(), call.io.clone());
    match within(limit, work).await {
        Some(code) => Ok(code),
        None if flags.has('p') => Ok(143),
        None if flags
            .value('s')
            .is_some_and(|name| name == "9" || name.ends_with("KILL")) =>
        {
            Ok(137)
        }
        // As busybox; GNU's own code for it is 124.
        None => Ok(143),
    }
}

/// What a future gives, or `None` when it is not done in time; then it is dropped.
pub async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    match executor::either(work, clock::sleep(limit)).await {
        Either::First(done) => Some(done),
        Either::Second(()) => None,
    }
}
