//! `date`: shows a time, in UTC unless `TZ` shifts it. The clock is the host's and cannot be set.

use std::time::SystemTime;

use super::calendar::{self, Date};
use super::call::{Call, Ended, Stop, reason};
use super::filesystem;
use super::flags::Usage;

const RFC3339: char = '3';
const USAGE: Usage = Usage::new(
    "date [-u] [-I[SPEC]] [-R] [-d TIME | @SECONDS] [-D FMT] [-r FILE] [-s TIME] [+FMT]",
    "ud:RI::r:s:D:3:",
)
.long(&[
    ("utc", 'u'),
    ("universal", 'u'),
    ("date", 'd'),
    ("rfc-2822", 'R'),
    ("rfc-email", 'R'),
    ("iso-8601", 'I'),
    ("reference", 'r'),
    ("set", 's'),
    ("rfc-3339", RFC3339),
]);

pub async fn date(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let zone = match flags.has('u') {
        true => ("UTC".to_owned(), 0),
        false => calendar::zone(call.variable("TZ")),
    };
    let now = SystemTime::now();
    let (seconds, nanos) = match (flags.value('d'), flags.value('r')) {
        (Some(text), _) => calendar::parse(text, now, zone.clone())
            .ok_or_else(|| Stop::failed(format!("invalid date '{text}'")))?,
        (None, Some(name)) => {
            let about = filesystem::about(&call.path(name), true);
            let about =
                about.map_err(|error| Stop::failed(format!("{name}: {}", reason(&error))))?;
            calendar::since_epoch(about.modified)
        }
        (None, None) => calendar::since_epoch(now),
    };
    let format = match flags.rest.as_slice() {
        [] => None,
        [format] if format.starts_with('+') => format.strip_prefix('+'),
        [_] => Some(""),
        [_, extra, ..] => return Err(Stop::failed(format!("extra operand '{extra}'"))),
    };
    if flags.has('s') || format == Some("") && flags.rest.first().is_some_and(|text| text != "+") {
        return Err(Stop::failed("can't set date: Operation not permitted"));
    }
    let date = Date::of(seconds, nanos, zone);
    let iso = |spec: &str| match spec {
        "h" | "hours" => "%Y-%m-%dT%H%:z",
        "m" | "minutes" => "%Y-%m-%dT%H:%M%:z",
        "s" | "seconds" => "%Y-%m-%dT%H:%M:%S%:z",
        "ns" => "%Y-%m-%dT%H:%M:%S,%N%:z",
        _ => "%Y-%m-%d",
    };
    let format = match (format, flags.value('I')) {
        (Some(format), _) => format,
        (None, Some(spec)) => iso(spec),
        (None, None) if flags.has('R') => "%a, %d %b %Y %H:%M:%S %z",
        (None, None) => match flags.value(RFC3339) {
            Some("date") => "%Y-%m-%d",
            Some("ns") => "%Y-%m-%d %H:%M:%S.%N%:z",
            Some(_) => "%Y-%m-%d %H:%M:%S%:z",
            None => "%a %b %e %H:%M:%S %Z %Y",
        },
    };
    call.out(format!("{}\n", date.format(format))).await?;
    Ok(0)
}
