//! Whether this machine's clock goes as the servers' do.
//!
//! Certificates are good between two times, and begin a quarter of an hour before they are made: a clock that is off by less than that keeps
//! nobody from anything. It is told all the same, as an event of the node and in its log, because logs, tokens and schedules of such a node are off
//! as well, and because it may go on.
//!
//! Invariant: nothing is set and nobody is kept waiting; what is told once is told again only when it has changed.

use std::time::Duration;

use http::{Request, header};
use jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use tokio_util::sync::CancellationToken;

use crate::events::{Recorder, Severity};
use crate::identity::Link;

/// How often clocks are compared.
const EVERY: Duration = Duration::from_secs(60);
/// For one comparison.
const ASK_MAX: Duration = Duration::from_secs(5);
/// What is told of: far above what a server's answer may be late, and far below what certificates bear.
const TOLD_FROM: SignedDuration = SignedDuration::from_secs(30);
/// By how much it has to be otherwise to be told again.
const TOLD_AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// Compares until `shutdown`.
pub(crate) async fn watch(
    link: Link,
    recorder: Recorder,
    node: String,
    shutdown: CancellationToken,
) {
    let mut told = SignedDuration::ZERO;
    loop {
        let compared = tokio::time::timeout(ASK_MAX, compare(&link));
        // A server that is away says nothing of clocks.
        if let Ok(Some(off)) = compared.await
            && let Some(next) = news(told, off)
        {
            told = next;
            let message = sentence(next);
            let severity = match next == SignedDuration::ZERO {
                true => Severity::Normal,
                false => Severity::Warning,
            };
            tracing::warn!("{message}");
            recorder.node(&node, severity, "ClockSkew", message);
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// By how much this clock is ahead of the server's; behind it where that is less than nothing.
async fn compare(link: &Link) -> Option<SignedDuration> {
    let request = Request::get("/version").body(Body::empty()).ok()?;
    let before = Timestamp::now();
    let response = link.client().send(request).await.ok()?;
    let after = Timestamp::now();
    let date = response.headers().get(header::DATE)?.to_str().ok()?;
    Some(ahead(read(date)?, before, after))
}

/// A time as HTTP writes it.
fn read(date: &str) -> Option<Timestamp> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    parser.parse_timestamp(date).ok()
}

/// A server that said `date`, in whole seconds, did so between two times of this clock.
fn ahead(date: Timestamp, before: Timestamp, after: Timestamp) -> SignedDuration {
    const SECOND: SignedDuration = SignedDuration::from_secs(1);
    let ahead = before.duration_since(date) - SECOND;
    let behind = date.duration_since(after);
    if ahead > SignedDuration::ZERO {
        ahead
    } else if behind > SignedDuration::ZERO {
        -behind
    } else {
        SignedDuration::ZERO
    }
}

/// What is to be told now, if that is another than what was: in whole seconds, and nothing where clocks agree.
fn news(told: SignedDuration, off: SignedDuration) -> Option<SignedDuration> {
    let off = match off.abs() < TOLD_FROM {
        true => SignedDuration::ZERO,
        false => SignedDuration::from_secs(off.as_secs()),
    };
    let is_other = (off == SignedDuration::ZERO) != (told == SignedDuration::ZERO)
        || (off - told).abs() >= TOLD_AGAIN;
    is_other.then_some(off)
}

fn sentence(off: SignedDuration) -> String {
    let seconds = off.as_secs();
    let which = match seconds.signum() {
        0 => return "the clock of this node goes as that of the server again".to_owned(),
        1 => "ahead of",
        _ => "behind",
    };
    format!(
        "the clock of this node is {} s {which} that of the server: certificates bear a quarter of an hour, and times in logs and of schedules are off; synchronise it (NTP)",
        seconds.unsigned_abs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_within_what_a_question_takes() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).expect("a time");
        for (date, before, after, expected) in [
            (0, 0, 0, 0),
            (0, 1, 1, 0),
            (5, 0, 5, 0),
            (0, 601, 602, 600),
            (600, 0, 1, -599),
        ] {
            let off = ahead(at(date), at(before), at(after));
            assert_eq!(off.as_secs(), expected, "{date} {before} {after}");
        }
        let date = read("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        assert_eq!(date.as_second(), 784_111_777);
    }

    #[test]
    fn ten_minutes_are_told_once_until_they_are_others() {
        let seconds = SignedDuration::from_secs;
        let mut told = SignedDuration::ZERO;
        let mut heard = Vec::new();
        for off in [0, 29, -29, 600, 610, 640, 661, 20, 0, -600] {
            if let Some(next) = news(told, seconds(off)) {
                told = next;
                heard.push(next.as_secs());
            }
        }
        assert_eq!(heard, [600, 661, 0, -600]);
        assert!(sentence(seconds(-600)).contains("600 s behind"));
    }
}
